//! Rows 3 and 15: keys of devices that the server swapped, devices that it made up.

use crate::scene::{login_as, refuses, refuses_login, refuses_recovery, world_behind};
use lockstep_proto::api::vault::Page;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::Commit;
use lockstep_proto::label;
use lockstep_tests::hostile::scenario::keys::own_keys;
use lockstep_tests::hostile::scenario::{At, rules};
use lockstep_tests::hostile::{Hostile, Rule};

const NOT_VALID: &[&str] = &["not valid"];

/// Nothing that was sent holds one of the server's own keys, or the id of its device.
fn assert_nothing_for_the_server(hostile: &Hostile) {
    let own = own_keys();
    let (id, sign, seal) = (own.id(), own.sign_public(), own.seal_public());
    for one in hostile.exchanges() {
        for needle in [&id.as_bytes()[..], sign.as_bytes(), &seal.0[..32]] {
            let found = one.request.body.windows(needle.len()).any(|window| window == needle);
            assert!(!found, "{}", one.line());
        }
    }
}

/// Of the own account nothing is taken unverified, so that there is no "before pinning": a swapped key of a device is a
/// hard failure at once.
#[test]
fn row_03_the_key_of_an_own_device_is_swapped() {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    login_as(&world, "b");
    for at in [0, 1] {
        let of = || rules("device-key-swapped", &At::number(at));
        // a has not seen the entry of b yet.
        refuses(&hostile, &a, of(), &["status"], (6, NOT_VALID));
        assert_nothing_for_the_server(&hostile);
        refuses_login(&world, &hostile, of(), NOT_VALID);
        assert_nothing_for_the_server(&hostile);
        refuses_recovery(&world, &hostile, of(), NOT_VALID);
    }
    a.ok(&["status"]);
    assert_eq!(a.ok(&["--json", "device", "list"]).json().as_array().unwrap().len(), 2);
}

#[test]
fn row_03_the_identity_is_swapped() {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    login_as(&world, "b");
    let of = || rules("other-identity", &At::default());
    refuses(&hostile, &a, of(), &["status"], (6, NOT_VALID));
    refuses_login(&world, &hostile, of(), NOT_VALID);
    refuses_recovery(&world, &hostile, of(), NOT_VALID);
    assert_nothing_for_the_server(&hostile);
}

#[test]
fn row_15_a_device_that_the_server_made_up() {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    a.put("n", "1").ok();
    login_as(&world, "b");
    let of = || rules("ghost-device", &At::default());
    let list = refuses(&hostile, &a, of(), &["device", "list"], (6, NOT_VALID));
    assert!(!list.out.contains(&own_keys().id().to_string()[..8]));
    assert_nothing_for_the_server(&hostile);
    refuses_login(&world, &hostile, of(), NOT_VALID);
    refuses_recovery(&world, &hostile, of(), NOT_VALID);
    // Whoever writes while the ghost is shown seals nothing to it: a revocation would make new seals.
    let passphrase = world.text("passphrase");
    login_as(&world, "c");
    hostile.forget();
    let hits = hostile.arm_all(of());
    a.run(&["device", "revoke", "b", "--passphrase-file", &passphrase]).ends(6, NOT_VALID);
    hostile.disarm();
    crate::scene::assert_told(&hits);
    assert_eq!(crate::scene::writes(&hostile), Vec::<String>::new());
    // The server forgets it: all goes on.
    a.ok(&["device", "revoke", "b", "--passphrase-file", &passphrase]);
    assert_nothing_for_the_server(&hostile);
    a.ok(&["status"]);
}

/// A commit that a device signs which is not in the log.
#[test]
fn row_15_commits_of_a_made_up_device_are_refused() {
    let (world, hostile) = world_behind();
    let (_a, b) = crate::scene::lagging(&world);
    let rule = || {
        Rule::answer_of::<Page>("ghost-commit", "GET /v1/vaults/{}/commits", |_, page| {
            let Some(last) = page.commits.last() else { return false };
            let mut commit = Commit::decode(&last.commit.bytes.0).unwrap();
            commit.previous = Commit::hash_of(&last.commit.bytes.0);
            commit.seq = commit.seq.next();
            commit.device = own_keys().id();
            let mut next = last.clone();
            next.commit = own_keys().sign(label::COMMIT, commit.encode());
            page.commits.push(next);
            page.head_seq = page.head_seq.next();
            true
        })
    };
    let refusal = refuses(&hostile, &b, vec![rule()], &["record", "list", "--type", "note"], (6, NOT_VALID));
    assert!(!refusal.out.contains("three"));
    assert_eq!(b.get("m"), "\"three\"");
}
