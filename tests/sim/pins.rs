//! What commits pin and unpin: snapshots that are made and forgotten.

use crate::bench::{Desk, ROOMY, note, stopped};
use crate::server::ModelServer;
use lockstep_engine::effect::{Input, NewRecord};
use lockstep_engine::error::EngineError;
use lockstep_engine::replica::Pinning;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::{Change, Changes};
use lockstep_proto::id::Seq;

fn snapshot(name: &str) -> NewRecord {
    NewRecord { pin: Pinning::Pin, ..note(name, Some(b"snapshot")) }
}

fn forgotten(name: &str, seq: Seq) -> NewRecord {
    NewRecord { pin: Pinning::Unpin(seq), ..note(name, None) }
}

/// Pins and unpins of a commit, and how many records it changes.
fn pins(server: &ModelServer, seq: u64) -> (Vec<Change>, usize) {
    let (_, changes, _) = &server.commits[seq as usize];
    let (records, pins): (Vec<_>, Vec<_>) =
        Changes::decode(changes).unwrap().0.into_iter().partition(|change| change.version().is_some());
    (pins, records.len())
}

fn two_snapshots() -> (ModelServer, Desk) {
    let mut server = ModelServer::new(ROOMY);
    let mut desk = Desk::new(0);
    for name in ["one", "two"] {
        desk.put(vec![note(&format!("file of {name}"), Some(b"1")), snapshot(name)]);
        desk.sync(&mut server);
    }
    assert_eq!(pins(&server, 1), (vec![Change::Pin(Seq::new(1))], 2));
    assert_eq!(pins(&server, 2), (vec![Change::Pin(Seq::new(2))], 2));
    (server, desk)
}

#[test]
fn a_snapshot_and_its_pin_go_together_in_one_commit() {
    let (mut server, mut desk) = two_snapshots();
    // Later ones first: in the commit they ascend. A snapshot in the same batch is the last of its commit.
    desk.put(vec![
        forgotten("two", Seq::new(2)),
        forgotten("one", Seq::new(1)),
        snapshot("three"),
        note("behind", Some(b"1")),
    ]);
    desk.sync(&mut server);
    let expected = vec![Change::Unpin(Seq::new(1)), Change::Unpin(Seq::new(2)), Change::Pin(Seq::new(3))];
    assert_eq!(pins(&server, 3), (expected, 3));
    assert_eq!(pins(&server, 4), (vec![], 1));
    assert_eq!((desk.read("one"), desk.read("two")), (None, None));
    assert!(desk.read("three").is_some());
    let mut other = Desk::new(1);
    other.sync(&mut server);
    assert_eq!(other.replica.head, desk.replica.head);
}

/// Two devices forget the same snapshot: the one that comes second has nothing left to say.
#[test]
fn a_snapshot_that_is_forgotten_twice_is_unpinned_once() {
    let (mut server, mut desk) = two_snapshots();
    let mut other = Desk::new(1);
    other.sync(&mut server);
    for desk in [&mut desk, &mut other] {
        desk.put(vec![forgotten("one", Seq::new(1))]);
    }
    desk.sync(&mut server);
    other.sync(&mut server);
    assert!(other.replica.pending.is_empty());
    assert_eq!(server.commits.len(), 4, "genesis, two snapshots, one forgotten");
    assert_eq!(pins(&server, 3), (vec![Change::Unpin(Seq::new(1))], 1));
    // And what was never there or is no more needs no commit either.
    desk.put(vec![forgotten("one", Seq::new(1)), forgotten("never", Seq::new(1))]);
    desk.sync(&mut server);
    assert_eq!(server.commits.len(), 4);
}

/// A lost race does not lose the pin's end: the next commit carries it.
#[test]
fn an_unpin_survives_a_lost_race_and_a_crash() {
    let (mut server, mut desk) = two_snapshots();
    desk.put(vec![forgotten("one", Seq::new(1))]);
    let mut other = Desk::new(1);
    other.put(vec![note("between", Some(b"1"))]);
    other.sync(&mut server);
    let mut again = Desk::over(0, desk.replica.clone(), 9);
    again.sync(&mut server);
    assert_eq!(pins(&server, 4), (vec![Change::Unpin(Seq::new(1))], 1));
}

#[test]
fn a_commit_that_is_not_there_is_not_unpinned() {
    let (_, mut desk) = two_snapshots();
    let before = desk.replica.clone();
    let events = desk
        .run(Input::Put(vec![forgotten("two", Seq::new(3))]), &mut |_| unreachable!("a put sends nothing"));
    assert!(matches!(stopped(&events), EngineError::Misuse { .. }), "{events:?}");
    assert_eq!(desk.replica, before);
}
