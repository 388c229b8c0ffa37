//! Answers of a server that lies. Whatever it sends, the device keeps what it verified, stops with the
//! right error, and goes on once the server is honest again.

use crate::bench::{Desk, ROOMY, TIGHT, note, stopped};
use crate::fixture::FIXTURE;
use crate::plan::NOTE;
use crate::server::{ModelServer, PageSizes};
use crate::tamper::{Draft, flip, in_entries, in_page, seq};
use lockstep_engine::effect::{Answer, Event, Input, Request};
use lockstep_engine::error::EngineError;
use lockstep_engine::replica::Replica as _;
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::envelope;
use lockstep_proto::id::Revision;
use std::sync::Arc;

/// The server is ahead of the reader by one commit with three records.
pub(crate) struct Scene {
    pub(crate) server: ModelServer,
    pub(crate) writer: Desk,
    pub(crate) reader: Desk,
}

pub(crate) fn scene(sizes: PageSizes) -> Scene {
    let mut server = ModelServer::new(sizes);
    let (mut writer, mut reader) = (Desk::new(0), Desk::new(1));
    writer.put(vec![note("a", Some(b"a1")), note("b", Some(b"b1"))]);
    writer.sync(&mut server);
    reader.sync(&mut server);
    writer.put(vec![note("a", Some(b"a2")), note("b", Some(b"b2")), note("c", Some(b"c1"))]);
    writer.sync(&mut server);
    reader.put(vec![note("waiting", Some(b"kept whatever happens"))]);
    Scene { server, writer, reader }
}

impl Scene {
    /// The reader syncs with tampered answers, stops, keeps what it had; then the server is honest.
    pub(crate) fn refuses(mut self, tamper: &mut dyn FnMut(&Request, Answer) -> Answer) -> EngineError {
        let before = self.reader.replica.visible();
        let mut liar = self.server.clone();
        let events = self
            .reader
            .run(Input::Sync, &mut |request| liar.serve(request).map(|answer| tamper(request, answer)));
        let error = stopped(&events);
        assert!(!self.reader.engine.is_busy());
        assert_eq!(liar.commits.len(), self.server.commits.len(), "nothing is pushed: {error}");
        assert!(self.reader.replica.visible() == before, "something of it was kept: {error}");
        self.reader.sync(&mut self.server);
        assert_eq!(self.reader.read("a"), Some(b"a2".to_vec()), "it goes on after: {error}");
        assert!(self.reader.replica.pending.is_empty());
        error
    }

    /// The server serves a commit that no device signed; nothing of the page is kept.
    fn refuses_forged(mut self) -> EngineError {
        let before = self.reader.replica.visible();
        let events = self.reader.run(Input::Sync, &mut |request| self.server.serve(request));
        assert!(self.reader.replica.visible() == before);
        stopped(&events)
    }

    /// The server serves a forged commit as its last; the reader stops at the last good one before it, and
    /// keeps its pending writes.
    fn stops_at_forged(mut self) -> EngineError {
        let pending = self.reader.replica.pending.clone();
        let events = self.reader.run(Input::Sync, &mut |request| self.server.serve(request));
        let good = lockstep_engine::Replica::head(&self.reader.replica).unwrap().unwrap().tip.seq;
        assert_eq!(
            good.value() as usize + 2,
            self.server.commits.len(),
            "all but the forged commit, no more"
        );
        assert!(!pending.is_empty() && self.reader.replica.pending == pending);
        stopped(&events)
    }
}

fn is_server(error: &EngineError) -> bool {
    matches!(error, EngineError::Server { .. })
}

#[test]
fn a_server_that_goes_back() {
    let mut scene = scene(ROOMY);
    let mut old = scene.server.clone();
    scene.writer.put(vec![note("a", Some(b"a3"))]);
    scene.writer.sync(&mut scene.server);
    scene.reader.sync(&mut scene.server);
    let (before, head) = (scene.reader.replica.clone(), scene.server.tip.seq);
    let events = scene.reader.run(Input::Sync, &mut |request| old.serve(request));
    let expected = EngineError::Rollback { vault: FIXTURE.keys.vault(), verified: head, server: old.tip.seq };
    assert_eq!(stopped(&events), expected);
    assert!(scene.reader.replica == before);
}

#[test]
fn a_server_with_two_histories() {
    let mut scene = scene(ROOMY);
    let mut other = scene.server.clone();
    scene.writer.put(vec![note("a", Some(b"a3"))]);
    scene.writer.sync(&mut scene.server);
    scene.reader.sync(&mut scene.server);
    let mut third = Desk::new(2);
    for document in [b"x", b"y", b"z"] {
        third.put(vec![note("a", Some(document))]);
        third.sync(&mut other);
    }
    let before = scene.reader.replica.clone();
    let events = scene.reader.run(Input::Sync, &mut |request| other.serve(request));
    let error = stopped(&events);
    assert!(
        matches!(error, EngineError::Fork { seq, .. } if seq == before.head.as_ref().unwrap().tip.seq.next())
    );
    assert!(scene.reader.replica == before);
}

#[test]
fn swapped_envelopes() {
    for sizes in [ROOMY, TIGHT] {
        let a = FIXTURE.keys.record_id(NOTE, b"a");
        let b = FIXTURE.keys.record_id(NOTE, b"b");
        let scene = scene(sizes);
        let newest = |record| scene.server.entry((scene.server.live[&record].seq, record)).unwrap();
        let (for_a, for_b) = (newest(b).envelope, newest(a).envelope);
        let error = scene.refuses(&mut |_, answer| {
            in_entries(answer, |entries| {
                for entry in entries {
                    if entry.record == a {
                        entry.envelope = for_a.clone();
                    } else if entry.record == b {
                        entry.envelope = for_b.clone();
                    }
                }
            })
        });
        assert!(is_server(&error), "{error}");
    }
}

/// What an old version of record a is refused with: it names the version that came and the one that is wanted.
fn rollback_of_a(scene: &Scene) -> EngineError {
    let record = FIXTURE.keys.record_id(NOTE, b"a");
    let newest = scene.server.live[&record].seq;
    EngineError::RecordRollback { vault: FIXTURE.keys.vault(), record, seq: newest, old: seq(1) }
}

#[test]
fn an_older_revision_in_the_place_of_the_newest() {
    // The whole entry, and its envelope alone under the newest one's place.
    for (sizes, is_whole) in [(ROOMY, true), (ROOMY, false), (TIGHT, true), (TIGHT, false)] {
        let scene = scene(sizes);
        let a = FIXTURE.keys.record_id(NOTE, b"a");
        let old = scene.server.entry((seq(1), a)).unwrap();
        let expected = rollback_of_a(&scene);
        let error = scene.refuses(&mut |_, answer| {
            in_entries(answer, |entries| {
                for entry in entries.iter_mut().filter(|entry| entry.record == a) {
                    if is_whole {
                        *entry = old.clone();
                    }
                    entry.envelope = old.envelope.clone();
                }
            })
        });
        assert_eq!(error, expected);
    }
}

#[test]
fn entries_twice_descending_or_never_announced() {
    let twice: fn(&mut Vec<_>) = |entries| {
        let first: Option<lockstep_proto::api::vault::Entry> = entries.first().cloned();
        entries.extend(first);
    };
    for wrong in [twice, |entries| entries.reverse()] {
        let error = scene(ROOMY).refuses(&mut |_, answer| in_entries(answer, wrong));
        assert!(is_server(&error), "{error}");
    }
    let scene = scene(ROOMY);
    let old = scene.server.entry((seq(1), FIXTURE.keys.record_id(NOTE, b"a"))).unwrap();
    let expected = rollback_of_a(&scene);
    let error = scene.refuses(&mut |_, answer| in_entries(answer, |entries| entries.insert(0, old.clone())));
    assert_eq!(error, expected);
}

#[test]
fn every_flipped_bit_of_commit_signature_and_change_list() {
    let probe = scene(ROOMY).server.page(Some(seq(1)));
    let commit = &probe.commits[0];
    let parts =
        [commit.commit.bytes.0.len(), 64, commit.changes.as_ref().unwrap().0.len()].map(|bytes| bytes * 8);
    for (part, bits) in parts.into_iter().enumerate() {
        // Every byte, and every bit in the course of eight bytes.
        for bit in (0..bits).step_by(9) {
            let error = scene(ROOMY).refuses(&mut |_, answer| {
                in_page(answer, |page| {
                    let Some(entry) = page.commits.first_mut() else { return };
                    match part {
                        0 => flip(&mut entry.commit.bytes.0, bit),
                        1 => flip(&mut entry.commit.signature.0, bit),
                        _ => flip(&mut entry.changes.as_mut().unwrap().0, bit),
                    }
                })
            });
            // Nobody is blamed for what nobody signed.
            let is_right = is_server(&error) || (part == 0 && matches!(error, EngineError::Fork { .. }));
            assert!(is_right, "part {part} bit {bit}: {error}");
        }
    }
}

#[test]
fn every_flipped_byte_of_an_envelope() {
    let bytes = scene(ROOMY).server.page(Some(seq(1))).entries[0].envelope.0.len();
    for (sizes, step) in [(ROOMY, 9), (TIGHT, 1999)] {
        for bit in (0..bytes * 8).step_by(step) {
            let error = scene(sizes).refuses(&mut |_, answer| {
                in_entries(answer, |entries| {
                    if let Some(entry) = entries.first_mut() {
                        flip(&mut entry.envelope.0, bit);
                    }
                })
            });
            assert!(is_server(&error), "bit {bit}: {error}");
        }
    }
}

#[test]
fn pages_that_leave_something_out() {
    let wrongs: [fn(&mut lockstep_proto::api::vault::Page); 3] = [
        |page| page.commits.iter_mut().for_each(|entry| entry.changes = None),
        |page| page.commits.clear(),
        |page| {
            page.commits.clear();
            page.head_seq = page.head_seq.next();
        },
    ];
    for wrong in wrongs {
        let error = scene(ROOMY).refuses(&mut |_, answer| in_page(answer, wrong));
        assert!(is_server(&error), "{error}");
    }
}

#[test]
fn answers_to_another_question() {
    for other in [Answer::Pushed, Answer::Staged, Answer::Entries(Vec::new(), true)] {
        let error = scene(TIGHT).refuses(&mut |_, _| other.clone());
        assert!(is_server(&error), "{error}");
    }
    let error = scene(TIGHT).refuses(&mut |request, answer| match request {
        Request::State { .. } => Answer::Entries(Vec::new(), true),
        _ => answer,
    });
    assert!(is_server(&error), "more is promised, nothing comes: {error}");
}

#[test]
fn commits_of_strangers() {
    let stranger = &FIXTURE.stranger;
    let mut one = scene(ROOMY);
    Draft::new(&one.server, stranger, b"f").publish(&mut one.server, stranger);
    assert!(is_server(&one.refuses_forged()), "a device that the log does not know");

    let mut one = scene(ROOMY);
    let mut draft = Draft::new(&one.server, stranger, b"f");
    draft.commit.device = FIXTURE.devices[0].id();
    draft.publish(&mut one.server, stranger);
    assert!(is_server(&one.refuses_forged()), "a device's id, another's key");

    let mut one = scene(ROOMY);
    let mut draft = Draft::new(&one.server, &FIXTURE.devices[0], b"f");
    draft.commit.device_log_index += 1;
    draft.publish(&mut one.server, &FIXTURE.devices[0]);
    assert!(is_server(&one.refuses_forged()), "a log entry that the server does not show");
}

#[test]
fn a_device_that_was_not_enrolled_yet_at_the_entry_that_it_names() {
    let mut one = scene(ROOMY);
    let mut draft = Draft::new(&one.server, &FIXTURE.devices[2], b"f");
    draft.commit.device_log_index = 0;
    draft.commit.device_log_head = FIXTURE.logs[0].head();
    draft.publish(&mut one.server, &FIXTURE.devices[2]);
    let error = one.stops_at_forged();
    assert!(matches!(error, EngineError::Fault { .. }), "{error}");
}

#[test]
fn a_device_log_that_does_not_go_on() {
    let foreign = DeviceLog::new(FIXTURE.identity);
    for log in [FIXTURE.logs[0].clone(), FIXTURE.logs[1].clone(), Arc::new(foreign)] {
        let mut one = scene(ROOMY);
        let mut reader = Desk::over(1, one.reader.replica.clone(), 1);
        let setup = FIXTURE.setup(1);
        reader.engine = lockstep_engine::VaultEngine::new(setup, FIXTURE.logs[1].clone());
        one.reader = reader;
        let before = one.reader.replica.clone();
        let events = one.reader.run(Input::Sync, &mut |request| match request {
            Request::DeviceLog => Ok(Answer::DeviceLog(log.clone())),
            _ => one.server.serve(request),
        });
        assert!(is_server(&stopped(&events)));
        assert!(one.reader.replica == before);
    }
}

/// What a forger does to a good commit.
type Wrong = fn(&ModelServer, &mut Draft);

/// A device that breaks a rule is named, whatever the rule.
#[test]
fn faults_of_a_real_device_are_named() {
    let device = &FIXTURE.devices[2];
    let wrongs: [(&str, Wrong); 6] = [
        ("state", |_, draft| draft.commit.state = draft.commit.changes),
        ("revision", |server, draft| draft.list(server, Revision::new(2))),
        ("skip", |_, draft| draft.commit.skip = draft.commit.state),
        ("epoch", |_, draft| draft.commit.epoch = draft.commit.epoch.next()),
        ("device log", |_, draft| draft.commit.device_log_head = draft.commit.state),
        ("vault log", |_, draft| draft.commit.vault_log_index = 1),
    ];
    for (what, wrong) in wrongs {
        let mut one = scene(ROOMY);
        let mut draft = Draft::new(&one.server, device, b"f");
        wrong(&one.server, &mut draft);
        let at = draft.commit.seq;
        draft.publish(&mut one.server, device);
        let error = one.stops_at_forged();
        let names_it = matches!(&error, EngineError::Fault { seq, device: named, .. } if *seq == at && *named == device.id());
        assert!(names_it, "{what}: {error}");
    }
}

#[test]
fn an_empty_or_disordered_change_list_is_the_devices_fault() {
    let device = &FIXTURE.devices[2];
    for is_empty in [true, false] {
        let mut one = scene(ROOMY);
        let mut draft = Draft::new(&one.server, device, b"f");
        if is_empty {
            draft.changes.0.clear();
        } else {
            let again = draft.changes.0[0].clone();
            draft.changes.0.push(again);
        }
        let bytes = lockstep_proto::cbor::Wire::encode(&draft.changes);
        draft.commit.changes = lockstep_proto::commit::Changes::digest_of(&bytes);
        draft.publish(&mut one.server, device);
        let error = one.stops_at_forged();
        assert!(matches!(error, EngineError::Fault { .. }), "{error}");
    }
}

/// An envelope that its own device spoilt is named and kept; the vault goes on.
#[test]
fn a_spoilt_envelope_is_quarantined() {
    for sizes in [ROOMY, TIGHT] {
        let mut one = scene(sizes);
        let device = &FIXTURE.devices[2];
        let mut draft = Draft::new(&one.server, device, b"f");
        let last = draft.envelope.len() - 1;
        draft.envelope[last] ^= 1;
        draft.list(&one.server, Revision::new(1));
        let (at, record) = (draft.commit.seq, draft.record);
        draft.publish(&mut one.server, device);
        let events = one.reader.sync(&mut one.server);
        assert!(events.contains(&Event::Quarantined { record, seq: at }), "{events:?}");
        assert_eq!(one.reader.read("f"), None);
        assert_eq!(one.reader.read("a"), Some(b"a2".to_vec()));
        let held = &one.reader.replica.records[&record];
        assert_eq!(envelope::digest(held.envelope.as_ref().unwrap()), held.row.digest, "it is kept");
    }
}

#[test]
fn a_copy_of_the_device_wrote() {
    let mut one = scene(ROOMY);
    one.reader.sync(&mut one.server);
    let mut copy = Desk::over(1, one.reader.replica.clone(), 77);
    copy.put(vec![note("copy", Some(b"written by the copy"))]);
    copy.sync(&mut one.server);
    let before = one.reader.replica.clone();
    let events = one.reader.run(Input::Sync, &mut |request| one.server.serve(request));
    let expected = EngineError::Cloned { vault: FIXTURE.keys.vault(), seq: one.server.tip.seq };
    assert_eq!(stopped(&events), expected);
    assert!(one.reader.replica == before);
}

#[test]
fn another_birth() {
    let mut server = ModelServer::new(ROOMY);
    let mut reader = Desk::new(1);
    let log = FIXTURE.log();
    let parent = lockstep_client_crypto::vault::Parent {
        account: FIXTURE.account,
        identity: &FIXTURE.identity,
        device_log_index: log.next_index() - 1,
        device_log_head: log.head(),
        utc: 2,
    };
    let other = lockstep_client_crypto::vault::give_birth(FIXTURE.keys.vault(), &parent, &FIXTURE.devices[2]);
    server.commits[0].0 = other.genesis;
    let events = reader.run(Input::Sync, &mut |request| server.serve(request));
    assert!(matches!(stopped(&events), EngineError::Fork { seq, .. } if seq.value() == 0));
    assert_eq!(reader.replica.head().unwrap(), None);
}
