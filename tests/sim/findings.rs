//! What the simulator and its authors found in the engine: each a test of its own, for good.

use crate::bench::{Desk, ROOMY, TIGHT, note};
use crate::fixture::FIXTURE;
use crate::hostile::scene;
use crate::plan::NOTE;
use crate::server::{LOG_MOVED, ModelServer, PageSizes};
use crate::tamper::in_entries;
use lockstep_engine::VaultEngine;
use lockstep_engine::effect::{Answer, Event, Failure, Input, Request};
use lockstep_engine::engine::{NextKey, Setup};
use lockstep_engine::error::EngineError;
use lockstep_engine::replica::{Policy, Replica as _};
use lockstep_proto::id::Epoch;
use lockstep_proto::limits;

/// A server that was set back and written to again may stand at this device's own seq: then nothing is
/// there to pull, and every push is answered with "the head moved" and an empty page.
#[test]
fn a_fork_of_equal_length_is_named_and_not_chased() {
    let mut one = scene(ROOMY);
    one.reader.sync(&mut one.server);
    let mut other = one.server.clone();
    one.writer.put(vec![note("a", Some(b"here"))]);
    one.writer.sync(&mut one.server);
    one.reader.sync(&mut one.server);
    let mut third = Desk::new(2);
    third.put(vec![note("a", Some(b"there"))]);
    third.sync(&mut other);
    assert_eq!(one.server.tip.seq, other.tip.seq);
    one.reader.put(vec![note("b", Some(b"mine"))]);
    let events = one.reader.run(Input::Sync, &mut |request| other.serve(request));
    assert!(matches!(crate::bench::stopped(&events), EngineError::Fork { .. }));
}

/// PROTOCOL.md section 6.5: a page becomes visible when every version of it that is still the newest at
/// the server's head is there. Otherwise a server hides a record by keeping its newest envelope back.
#[test]
fn a_withheld_envelope_leaves_the_last_good_state() {
    for sizes in [ROOMY, TIGHT] {
        let a = FIXTURE.keys.record_id(NOTE, b"a");
        let error = scene(sizes).refuses(&mut |_, answer| {
            in_entries(answer, |entries| entries.retain(|entry| entry.record != a))
        });
        assert!(matches!(error, EngineError::Incomplete { record, .. } if record == a), "{error}");
    }
}

/// What a put accepts must fit into an envelope later, when its base revision has more digits, or as a
/// conflict copy with its longer name. Otherwise it stands at the head of the queue for ever.
#[test]
fn the_largest_document_fits_as_a_copy() {
    let mut server = ModelServer::new(ROOMY);
    let (mut one, mut two) = (Desk::new(0), Desk::new(1));
    one.sync(&mut server);
    two.sync(&mut server);
    let accepted = |desk: &mut Desk, size: usize| {
        let events = desk.put(vec![note("a", Some(&vec![7; size]))]);
        matches!(events.last(), Some(Event::Stored(_)))
    };
    let (mut fits, mut too_large) = (0, limits::ENVELOPE_BYTES_MAX);
    while fits + 1 < too_large {
        let middle = usize::midpoint(fits, too_large);
        let mut scratch = Desk::over(1, two.replica.clone(), 5);
        if accepted(&mut scratch, middle) {
            fits = middle;
        } else {
            too_large = middle;
        }
    }
    assert!(accepted(&mut two, fits));
    one.put(vec![note("a", Some(b"first"))]);
    one.sync(&mut server);
    let events = two.sync(&mut server);
    assert!(events.iter().any(|event| matches!(event, Event::ConflictCopy { .. })));
    assert!(two.replica.pending.is_empty());
}

/// A write-once record that lost is dropped; a write with another policy behind it is not.
#[test]
fn a_lost_write_once_record_does_not_take_others_along() {
    let mut server = ModelServer::new(ROOMY);
    let (mut one, mut two) = (Desk::new(0), Desk::new(1));
    one.put(vec![note("a", Some(b"first"))]);
    one.sync(&mut server);
    let mut once = note("a", Some(b"second"));
    once.policy = Policy::AdoptCommitted;
    two.put(vec![once]);
    two.put(vec![note("a", Some(b"third, to be kept"))]);
    two.sync(&mut server);
    let opened = server.versions.values().map(|version| FIXTURE.keys.open(&version.envelope).unwrap());
    let documents: Vec<_> = opened.map(|opened| opened.content.document.0).collect();
    assert!(documents.contains(&b"third, to be kept".to_vec()));
}

/// However often a write-once record that lost was written here, no second revision comes of it.
#[test]
fn a_write_once_record_that_lost_is_not_written_again() {
    let mut server = ModelServer::new(ROOMY);
    let (mut one, mut two) = (Desk::new(0), Desk::new(1));
    one.put(vec![note("a", Some(b"first"))]);
    one.sync(&mut server);
    for document in [b"other", b"first"] {
        let mut once = note("a", Some(document));
        once.policy = Policy::AdoptCommitted;
        two.put(vec![once]);
    }
    two.sync(&mut server);
    assert_eq!(server.versions.len(), 1);
    assert!(two.replica.pending.is_empty());
}

/// Equal documents do not clash (PROTOCOL.md section 8), also when the write comes while a pull that
/// took the record already waits for other envelopes.
#[test]
fn equal_documents_written_during_a_pull_are_no_clash() {
    let sizes = PageSizes { inline: 1, ..TIGHT };
    let mut one = scene(sizes);
    let name = ["a", "b"].into_iter().min_by_key(|name| FIXTURE.keys.record_id(NOTE, name.as_bytes()));
    let name = name.unwrap();
    let document = one.writer.read(name).unwrap();
    let record = FIXTURE.keys.record_id(NOTE, name.as_bytes());
    let first = one.server.page(Some(crate::tamper::seq(1))).entries[0].record;
    assert_eq!(first, record, "the record of this test comes with the page");
    // The page was taken and asks for more; now the app writes what is already on its way.
    let records = vec![note(name, Some(&document))];
    let serve = &mut |request: &_| one.server.serve(request);
    let mut events = one.reader.run_interrupted(Input::Sync, serve, 2, records);
    events.retain(|event| matches!(event, Event::ConflictCopy { .. }));
    assert_eq!(events, Vec::new());
}

/// A commit that was signed before a revocation and never arrived is refused by every server: it is built anew, under
/// the new key, and nothing of it is lost. While it followed the head it was sent again and again.
#[test]
fn a_commit_in_flight_that_a_revocation_overtook_is_built_anew() {
    let mut server = ModelServer::new(ROOMY);
    let mut desk = Desk::new(0);
    desk.put(vec![note("a", Some(b"first"))]);
    desk.sync(&mut server);
    desk.put(vec![note("a", Some(b"second")), note("b", Some(b"waits"))]);
    desk.run(Input::Sync, &mut |request| match request {
        Request::Push(_) => Err(Failure::Later("it never arrives".into())),
        request => server.serve(request),
    });
    assert!(desk.replica.in_flight.is_some());
    server.log = FIXTURE.later_log.clone();
    let events = desk.run(Input::Sync, &mut |request| server.serve(request));
    assert!(events.contains(&Event::Paused(Failure::Refused(LOG_MOVED.into()))), "{events:?}");
    // Knowing of the revocation without a key for the next epoch, it says so and keeps everything.
    desk.engine = VaultEngine::new(FIXTURE.setup(0), FIXTURE.later_log.clone());
    let events = desk.run(Input::Sync, &mut |request| server.serve(request));
    assert!(matches!(crate::bench::stopped(&events), EngineError::NeedsRotation { .. }));
    assert_eq!(desk.replica.pending.len(), 2);
    desk.engine = VaultEngine::new(FIXTURE.later_setup(0), FIXTURE.later_log.clone());
    desk.sync(&mut server);
    assert_eq!(server.tip.epoch.value(), 2);
    assert!(desk.replica.pending.is_empty() && desk.replica.in_flight.is_none());
    // Who has neither log nor key is told of the one and asks for the other.
    let mut late = Desk::new(1);
    let events = late.run(Input::Sync, &mut |request| server.serve(request));
    assert!(matches!(crate::bench::stopped(&events), EngineError::KeyMissing { .. }), "{events:?}");
    late.engine = VaultEngine::new(FIXTURE.later_setup(1), FIXTURE.later_log.clone());
    late.sync(&mut server);
    assert_eq!((late.read("a"), late.read("b")), (Some(b"second".to_vec()), Some(b"waits".to_vec())));
}

/// The key for the next epoch was made for the log as it was when the engine was set up. Another revocation came
/// meanwhile, in a log that the engine fetched by itself: whoever left then had read that key. It went on to it, in a
/// commit that named the new log.
#[test]
fn a_key_that_was_made_for_an_older_log_is_not_used() {
    let mut server = ModelServer::new(ROOMY);
    let mut desk = Desk::new(0);
    desk.put(vec![note("a", Some(b"first"))]);
    desk.sync(&mut server);
    server.log = FIXTURE.later_log.clone();
    desk.put(vec![note("a", Some(b"second"))]);
    let next_key = NextKey { epoch: Epoch::new(2), fresh_for: FIXTURE.log().keyring_epoch() };
    let setup = Setup { next_key: Some(next_key), ..FIXTURE.later_setup(0) };
    desk.engine = VaultEngine::new(setup, FIXTURE.later_log.clone());
    let events = desk.run(Input::Sync, &mut |request| server.serve(request));
    assert!(matches!(crate::bench::stopped(&events), EngineError::NeedsRotation { .. }));
    assert_eq!((server.tip.epoch, desk.replica.pending.len()), (Epoch::new(1), 1));
    desk.engine = VaultEngine::new(FIXTURE.later_setup(0), FIXTURE.later_log.clone());
    desk.sync(&mut server);
    assert_eq!(server.tip.epoch, Epoch::new(2));
}

/// Commits under a key that nobody has stopped every pull, so that their author could not be revoked. Once it is known
/// that there is no such key they are taken, their envelopes quarantined; nothing is written under it.
#[test]
fn commits_under_a_key_that_does_not_exist_are_taken_unread() {
    let mut server = ModelServer::new(ROOMY);
    let mut desk = Desk::new(0);
    desk.put(vec![note("a", Some(b"first"))]);
    desk.sync(&mut server);
    server.log = FIXTURE.later_log.clone();
    desk.put(vec![note("a", Some(b"second"))]);
    desk.engine = VaultEngine::new(FIXTURE.later_setup(0), FIXTURE.later_log.clone());
    desk.sync(&mut server);
    let mut late = Desk::new(1);
    late.put(vec![note("b", Some(b"waits"))]);
    late.engine = VaultEngine::new(FIXTURE.setup(1), FIXTURE.later_log.clone());
    for unreadable in [None, Some(Epoch::new(1))] {
        late.engine = VaultEngine::new(Setup { unreadable, ..FIXTURE.setup(1) }, FIXTURE.later_log.clone());
        let events = late.run(Input::Pull, &mut |request| server.serve(request));
        assert!(matches!(crate::bench::stopped(&events), EngineError::KeyMissing { .. }), "{events:?}");
    }
    let setup = Setup { unreadable: Some(Epoch::new(2)), ..FIXTURE.setup(1) };
    late.engine = VaultEngine::new(setup, FIXTURE.later_log.clone());
    let events = late.run(Input::Pull, &mut |request| server.serve(request));
    assert!(events.iter().any(|event| matches!(event, Event::Quarantined { .. })), "{events:?}");
    assert_eq!(late.replica.head.as_ref().unwrap().tip, server.tip);
    let events = late.run(Input::Sync, &mut |request| server.serve(request));
    assert!(matches!(crate::bench::stopped(&events), EngineError::KeyMissing { .. }), "{events:?}");
    assert_eq!(late.replica.pending.len(), 1);
}

/// More entries are promised again and again, and all that come are of commits that were not asked for.
#[test]
fn a_promise_of_more_that_is_not_kept_ends_the_sync() {
    let mut one = scene(TIGHT);
    one.writer.put(vec![note("d", Some(b"d1"))]);
    one.writer.sync(&mut one.server);
    let (later, end) = (one.server.tip.seq, one.server.clone());
    let error = one.refuses(&mut |request, answer| match (request, answer) {
        (Request::State { .. }, Answer::Entries(..)) => {
            let mut entries = Vec::new();
            if let Ok(Answer::Entries(found, _)) =
                end.clone().serve(&Request::State { after: later.previous(), upto: later, from: None })
            {
                entries.extend(found);
            }
            Answer::Entries(entries, true)
        }
        (_, answer) => answer,
    });
    assert!(matches!(error, EngineError::Server { .. }), "{error}");
}

/// Two devices that go on from one copy of the data make the same conflict copy of a write that waits. The second one's
/// was written over what had become of the first one's meanwhile.
#[test]
fn a_conflict_copy_is_not_written_over_one_of_the_same_name() {
    let mut server = ModelServer::new(ROOMY);
    let (mut one, mut other) = (Desk::new(0), Desk::new(1));
    one.sync(&mut server);
    other.put(vec![note("a", Some(b"theirs"))]);
    other.sync(&mut server);
    one.put(vec![note("a", Some(b"mine"))]);
    // Its home is copied, and the copy gets an identity of its own.
    let mut copy = Desk::over(2, one.replica.clone(), 5);
    one.sync(&mut server);
    let copies = |desk: &Desk| desk.replica.list(NOTE, None).unwrap();
    let name = copies(&one).iter().find_map(|row| {
        let content = lockstep_engine::read::open(&one.replica, &FIXTURE.keys, row).unwrap().unwrap();
        content.conflict_of().map(|_| content.name.0)
    });
    let edit = |document: &[u8]| lockstep_engine::NewRecord {
        name: name.clone().unwrap(),
        ..note("a", Some(document))
    };
    one.put(vec![edit(b"mine, edited")]);
    one.sync(&mut server);
    copy.sync(&mut server);
    one.sync(&mut server);
    let shown: Vec<_> = copies(&one)
        .iter()
        .map(|row| lockstep_engine::read::open(&one.replica, &FIXTURE.keys, row).unwrap().unwrap().document.0)
        .collect();
    assert!(shown.contains(&b"mine, edited".to_vec()), "the edit is the newest version of its record");
    assert!(shown.contains(&b"mine".to_vec()), "and what waited at the copy stands beside it");
}

/// A known limit. A commit that the server refused for now is given up when only deletions are sent; if a copy of that
/// request arrives after all, its own device does not know it, and says that there is a copy of the device. Nothing is lost.
#[test]
fn a_refused_commit_that_arrives_after_all_is_taken_for_a_copys() {
    let mut server = ModelServer::new(ROOMY);
    let mut desk = Desk::new(0);
    desk.put(vec![note("a", Some(b"first"))]);
    desk.sync(&mut server);
    desk.put(vec![note("a", Some(b"second"))]);
    server.refuses_puts = true;
    let mut on_its_way = None;
    desk.run(Input::Sync, &mut |request| {
        on_its_way =
            Some(request.clone()).filter(|request| matches!(request, Request::Push(_))).or(on_its_way.take());
        server.serve(request)
    });
    desk.run(Input::Deletions, &mut |request| server.serve(request));
    assert!(desk.replica.in_flight.is_none());
    server.refuses_puts = false;
    server.serve(&on_its_way.unwrap()).unwrap();
    let events = desk.run(Input::Sync, &mut |request| server.serve(request));
    assert!(matches!(crate::bench::stopped(&events), EngineError::Cloned { .. }), "{events:?}");
    assert_eq!(desk.replica.pending.len(), 1);
    // With an identity of its own it goes on; what waited is there already.
    let mut again = Desk::over(1, desk.replica.clone(), 3);
    again.sync(&mut server);
    assert_eq!((again.read("a"), again.replica.pending.len()), (Some(b"second".to_vec()), 0));
}

/// A known limit. Whoever keeps an envelope back in the middle of a pull keeps a waiting write from being merged with it:
/// both are kept, as where there is no policy.
#[test]
fn a_document_whose_envelope_is_kept_back_in_a_pull_is_kept_beside() {
    let mut server = ModelServer::new(TIGHT);
    let (mut one, mut other) = (Desk::new(0), Desk::new(1));
    let document = |text: &str| {
        let text = lockstep_merge::Value::Text(text.into());
        let fields = lockstep_merge::Fields::from([("title".to_owned(), text)]);
        let document = Some(lockstep_merge::encode(fields).unwrap());
        lockstep_engine::NewRecord {
            record_type: "tally".into(),
            document,
            policy: Policy::Merge,
            ..note("a", None)
        }
    };
    one.put(vec![document("first")]);
    one.sync(&mut server);
    other.sync(&mut server);
    for text in ["second", "third"] {
        one.put(vec![document(text)]);
        one.sync(&mut server);
    }
    other.put(vec![document("mine")]);
    let events = other.run(Input::Sync, &mut |request| match request {
        Request::Envelopes { .. } => Ok(Answer::Entries(Vec::new(), false)),
        request => server.serve(request),
    });
    assert!(events.iter().any(|event| matches!(event, Event::ConflictCopy { .. })), "{events:?}");
}

/// An app's vault may be pulled by another engine over the same replica, when the keyring is brought up to date: then the
/// first engine's device log is behind the head, and a commit that names it is refused.
#[test]
fn a_commit_never_names_an_older_device_log_than_the_head() {
    let mut server = ModelServer::new(ROOMY);
    let mut writer = Desk::new(1);
    writer.put(vec![note("a", Some(b"one"))]);
    writer.sync(&mut server);
    let mut desk = Desk::new(0);
    desk.sync(&mut server);
    desk.engine = VaultEngine::new(FIXTURE.setup(0), FIXTURE.logs[0].clone());
    desk.put(vec![note("b", Some(b"two"))]);
    let events = desk.sync(&mut server);
    assert!(events.iter().any(|event| matches!(event, Event::Pushed { .. })), "{events:?}");
    // A server that shows no longer log is named, and nothing is signed.
    desk.engine = VaultEngine::new(FIXTURE.setup(0), FIXTURE.logs[0].clone());
    desk.put(vec![note("c", Some(b"three"))]);
    let mut pushes = 0;
    let events = desk.run(Input::Sync, &mut |request| match request {
        Request::DeviceLog => Ok(Answer::DeviceLog(FIXTURE.logs[0].clone())),
        other => {
            pushes += usize::from(matches!(other, Request::Push(_)));
            server.serve(other)
        }
    });
    assert!(matches!(crate::bench::stopped(&events), EngineError::Server { .. }) && pushes == 0);
}
