//! Servers that show a healing one chain at one moment and another at the next: nothing that is valid is signed away.

use crate::heal::heal;
use crate::program::Done;
use crate::proxy::Proxy;
use crate::revoke::{login_as, revoke};
use crate::skipped::{files_of, number};
use crate::world::{Device, World};
use lockstep_proto::Digest;
use lockstep_proto::api::vault::{Page, Vaults};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::Commit;
use lockstep_proto::id::Seq;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where the chain of the records ends at the server.
fn end(world: &World) -> u64 {
    let text = "SELECT seq FROM vault WHERE is_keyring = 0";
    number(world.server.database().query_row(text, [], |row| row.get(0)).unwrap())
}

/// A page of commits as if the chain ended there.
fn ends_at(body: &[u8], end: u64) -> Vec<u8> {
    let end = Seq::new(end);
    let mut page = Page::decode(body).unwrap();
    page.commits.retain(|entry| Commit::decode(&entry.commit.bytes.0).unwrap().seq <= end);
    page.entries.retain(|entry| entry.seq <= end);
    (page.more, page.head_seq) = (false, end);
    page.encode()
}

/// So many versions were signed away by repairs, and no others.
#[track_caller]
fn are_signed_away(world: &World, count: i64, done: &Done) {
    let text = "SELECT count(*) FROM version WHERE abandoned IS NOT NULL";
    let abandoned: i64 = world.server.database().query_row(text, [], |row| row.get(0)).unwrap();
    assert_eq!(abandoned, count, "{done:#?}");
}

#[track_caller]
fn all_have(devices: &[&Device], ids: &[&str]) {
    for device in devices {
        for id in ids {
            assert_eq!(device.get(id), "1", "{id}");
        }
    }
}

/// The server shows a pull fewer commits than it shows a healing: commits that are valid would be signed away.
#[test]
fn what_is_valid_is_not_signed_away_by_showing_two_chains() {
    let (mut world, proxy) = Proxy::with_world();
    let owner = world.signup("a");
    let good = login_as(&world, "c");
    owner.put("n", "1").ok();
    assert_eq!(good.get("n"), "1");
    let copy = world.path("copy");
    world.server.back_up(&copy);
    let shared = end(&world);
    owner.put("of-a", "1").ok();
    world.server.put_back(&copy, true, true);
    for name in ["first", "second", "third"] {
        good.put(name, "1").ok();
    }
    let vault = files_of(&world);
    let place = format!("/v1/vaults/{vault}/commits?after={shared} ");
    let lies = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&lies);
    let mut asked = 0;
    proxy.lie(move |line, body| {
        if !line.contains(&place) {
            return body;
        }
        asked += 1;
        // The search for a repair and two looks at the chain come first; then comes what the pull is shown.
        if asked < 4 {
            return body;
        }
        told.fetch_add(1, Ordering::Relaxed);
        ends_at(&body, shared + 1)
    });
    let done = heal(&world, &owner);
    assert!(lies.load(Ordering::Relaxed) > 0, "{done:#?}");
    proxy.heal();
    are_signed_away(&world, 0, &done);
    heal(&world, &owner).ok();
    all_have(&[&owner, &good], &["of-a", "first", "second", "third"]);
}

/// The server shows a chain that ends early until the device has given up what it was not shown, and then all of it:
/// the commits of a device that was revoked later count, for the chain passes through what its revocation pinned.
#[test]
fn what_was_given_up_and_is_shown_again_is_not_signed_away() {
    let mut refused = 0;
    for truths in 1..=6 {
        let (world, proxy) = Proxy::with_world();
        let owner = world.signup("a");
        let (revoked, good) = (login_as(&world, "b"), login_as(&world, "c"));
        owner.put("first", "1").ok();
        let shared = end(&world);
        for (device, id) in [(&revoked, "of-b"), (&owner, "of-a"), (&good, "of-c")] {
            device.put(id, "1").ok();
        }
        revoke(&world, &owner, "b").ok();
        owner.put("last", "1").ok();
        let vault = files_of(&world);
        let (list, place) = ("GET /v1/vaults ", format!("GET /v1/vaults/{vault}/commits"));
        let mut asked = 0;
        proxy.lie(move |line, body| {
            if line.contains(&format!("{place}?after={shared} ")) {
                asked += 1;
            }
            if asked >= truths {
                return body;
            }
            if line.contains(list) {
                let mut vaults = Vaults::decode(&body).unwrap();
                for info in vaults.0.iter_mut().filter(|info| info.vault == vault) {
                    (info.seq, info.head) = (Seq::new(shared), Digest::from_bytes([7; 32]));
                }
                return vaults.encode();
            }
            if !line.contains(&place) {
                return body;
            }
            ends_at(&body, shared)
        });
        let done = heal(&world, &owner);
        refused += u32::from(done.err.contains("another chain of vault"));
        proxy.heal();
        are_signed_away(&world, 0, &done);
        heal(&world, &owner).ok();
        all_have(&[&owner, &good], &["first", "of-b", "of-a", "of-c", "last"]);
    }
    assert!(refused > 0, "no run reached the lie");
}

/// Another device healed already, and a good one wrote since. The server shows the pull of a second healing the commit
/// that does not count and nothing behind it: no repair goes back over the one that is there.
#[test]
fn a_repair_that_another_device_signed_is_not_gone_back_over() {
    for which in 1..=6 {
        let (mut world, proxy) = Proxy::with_world();
        let owner = world.signup("a");
        let (revoked, good) = (login_as(&world, "b"), login_as(&world, "c"));
        owner.put("x", "1").ok();
        for device in [&good, &revoked] {
            assert_eq!(device.get("x"), "1");
        }
        let copy = world.path("copy");
        world.server.back_up(&copy);
        let shared = end(&world);
        revoke(&world, &owner, "b").ok();
        owner.put("both", "1").ok();
        assert_eq!(good.get("both"), "1");
        // What the other device has not seen: its repair does not name it.
        owner.put("more", "1").ok();
        world.server.put_back(&copy, true, true);
        revoked.put("late", "1").ok();
        heal(&world, &good).ok();
        good.put("of-c", "1").ok();
        let vault = files_of(&world);
        let place = format!("/v1/vaults/{vault}/commits?after={shared} ");
        let mut asked = 0;
        proxy.lie(move |line, body| {
            if !line.contains(&place) {
                return body;
            }
            asked += 1;
            if asked != which {
                return body;
            }
            ends_at(&body, shared + 1)
        });
        let done = heal(&world, &owner);
        proxy.heal();
        // Nothing but what the revoked device wrote was gone back over.
        are_signed_away(&world, 1, &done);
        heal(&world, &owner).ok();
        all_have(&[&owner, &good], &["both", "more", "of-c"]);
    }
}
