//! Row 26, a broken member: a device signs a commit whose state digest is wrong, and a server takes it. Everybody stops
//! before it and names the device; what is held is read; the owner repairs the vault, and all agree again.

use crate::revoke::{id_of, login_as, revoke};
use crate::thief::Thief;
use crate::world::{Device, World};
use lockstep_proto::api::vault::PushCommit;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::{Changes, Commit};
use lockstep_proto::{Digest, state::StateDigest};

/// Puts a commit into the server's database as its head, which the server itself refuses to do.
fn take_over(world: &World, key: i64, push: &PushCommit, state: &StateDigest) {
    let commit = Commit::decode(&push.commit.bytes.0).unwrap();
    let hash = Commit::hash_of(&push.commit.bytes.0);
    let (seq, literal) = (commit.seq, |bytes: &[u8]| world.server.literal(bytes));
    let head = literal(hash.as_bytes());
    let (bytes, signature) = (literal(&push.commit.bytes.0), literal(&push.commit.signature.0));
    let changes = literal(&push.changes.0);
    let insert = |text: &str| assert_eq!(world.server.change(text), 1, "{text}");
    insert(&format!(
        "INSERT INTO commit_header (vault, seq, hash, bytes, signature, changes)
         VALUES ({key}, {seq}, {head}, {bytes}, {signature}, {changes})"
    ));
    let list = Changes::decode(&push.changes.0).unwrap();
    let (record, revision, digest) = list.0[0].version().unwrap();
    let (record, digest) = (literal(record.as_bytes()), literal(digest.as_bytes()));
    let envelope = literal(&push.envelopes[0].0);
    insert(&format!(
        "INSERT INTO version (vault, seq, record, revision, kind, digest, envelope)
         VALUES ({key}, {seq}, {record}, {revision}, 1, {digest}, {envelope})"
    ));
    insert(&format!(
        "INSERT INTO live (vault, record, revision, digest, seq) VALUES ({key}, {record}, {revision}, {digest}, {seq})"
    ));
    let state = literal(&state.to_bytes());
    insert(&format!(
        "UPDATE vault SET seq = {seq}, head = {head}, state = {state}, records = records + 1 WHERE id = {key}"
    ));
}

fn heal(world: &World, device: &Device) -> crate::program::Done {
    device.run(&["heal", "--yes", "--passphrase-file", &world.text("passphrase")])
}

#[test]
fn row_26_a_commit_with_a_wrong_state_is_named_and_repaired() {
    let world = World::new();
    let a = world.signup("a");
    let (b, c) = (login_as(&world, "b"), login_as(&world, "c"));
    a.put("n", "1").ok();
    for device in [&b, &c] {
        assert_eq!(device.get("n"), "1");
    }
    let id = id_of(&c);
    let thief = Thief::new(&world, &c);
    let forged = thief.forged(thief.files(), "note", b"forged", |commit| commit.state = Digest::ZERO);
    // An honest server refuses it.
    let answer = thief.send(&forged.push);
    assert!(answer.contains("state digest"), "{answer}");
    a.ok(&["status"]);
    take_over(&world, forged.vault_key, &forged.push, &forged.state);
    let seq = Commit::decode(&forged.push.commit.bytes.0).unwrap().seq;
    let named =
        format!("commit {seq} of vault {} by device {id} is not valid: the state digest", thief.files());
    for device in [&a, &b] {
        for _ in 0..2 {
            device.run(&["status"]).ends(7, &[&named, "lockstep heal"]);
        }
        // What is held is read, and nothing of the commit is among it.
        let held = device.run(&["record", "get", "--type", "note", "--id", "n"]);
        assert!(held.out.trim() == "1", "{held:?}");
        let list = device.run(&["--json", "record", "list", "--type", "note"]);
        assert!(!list.out.contains("forged"), "{list:?}");
        // What is written waits.
        let put = device.put("waits", "2");
        assert_ne!(put.status, Some(0), "{put:?}");
    }
    // A device that joins stops there, too, and names it.
    let late = world.device("late");
    let done = late.try_login(&world.text("passphrase"));
    assert!(done.status == Some(0) || done.err.contains(&id), "{done:?}");
    let done = heal(&world, &a);
    assert!(done.status == Some(0), "{done:?}");
    a.ok(&["status"]);
    b.ok(&["status"]);
    revoke(&world, &a, "c").ok();
    c.run(&["status"]).ends(5, &[]);
    b.put("m", "3").ok();
    let later = login_as(&world, "later");
    for device in [&a, &b, &later] {
        assert_eq!((device.get("n"), device.get("m")), ("1".into(), "3".into()));
        device.run(&["record", "get", "--type", "note", "--id", "forged"]).ends(11, &[]);
        device.ok(&["check"]);
    }
}
