//! Documents that the engine merges: what becomes of writes that did not know of each other.

use crate::bench::{Desk, ROOMY, TIGHT, stopped};
use crate::fixture::FIXTURE;
use crate::server::ModelServer;
use lockstep_client_crypto::content::{BlobRef, Content};
use lockstep_engine::document::Origin;
use lockstep_engine::effect::{Answer, Event, Failure, Input, NewRecord, Request};
use lockstep_engine::error::EngineError;
use lockstep_engine::read;
use lockstep_engine::replica::{Pinning, Policy, Replica as _};
use lockstep_merge::{Choice, Open, Value, View};
use lockstep_proto::cbor::{ByteArray, Wire as _};
use lockstep_proto::id::{BlobId, RecordId};
use serde_json::{Value as Json, json};

fn record_of(record_type: &str, name: &str) -> RecordId {
    FIXTURE.keys.record_id(record_type, name.as_bytes())
}

/// A document of a type with a merge policy; none deletes it.
fn document(record_type: &str, name: &str, fields: Option<&Json>) -> NewRecord {
    let document = fields.map(|fields| {
        let Value::Map(fields) = serde_json::from_value(fields.clone()).unwrap() else { panic!("a map") };
        lockstep_merge::encode(fields).unwrap()
    });
    NewRecord {
        record_type: record_type.into(),
        name: name.as_bytes().to_vec(),
        schema: 1,
        document,
        blobs: Vec::new(),
        policy: Policy::Merge,
        pin: Pinning::None,
        expected: None,
    }
}

impl Desk {
    fn write(&mut self, record_type: &str, fields: &Json) {
        let events = self.put(vec![document(record_type, "a", Some(fields))]);
        assert!(matches!(events[..], [Event::Stored(_)]), "{events:?}");
    }

    fn delete(&mut self, record_type: &str) {
        self.put(vec![document(record_type, "a", None)]);
    }

    fn view(&self, record_type: &str) -> Option<View> {
        let current =
            read::current(&self.replica, &FIXTURE.later_keys, record_of(record_type, "a")).unwrap()?;
        let device = FIXTURE.devices[0].id();
        let policy = FIXTURE.setup(0).policies.of(record_type).unwrap().clone();
        Some(Origin::new(&current.content, 1, device).view(&policy).unwrap())
    }

    fn shown(&self, record_type: &str) -> Json {
        self.view(record_type).map_or(Json::Null, |view| serde_json::to_value(&view.fields).unwrap())
    }

    /// The same with the set sorted: writes of one moment have no order of their own.
    fn sorted(&self, record_type: &str) -> Json {
        let mut shown = self.shown(record_type);
        shown["seen"].as_array_mut().unwrap().sort_by_key(ToString::to_string);
        shown
    }

    fn open(&self, record_type: &str) -> Vec<Open> {
        self.view(record_type).map(|view| view.open).unwrap_or_default()
    }
}

/// Three devices that hold the same first version, and the server.
fn three(record_type: &str, first: &Json) -> (ModelServer, [Desk; 3]) {
    let mut server = ModelServer::new(ROOMY);
    let mut desks = [0, 1, 2].map(Desk::new);
    desks[0].write(record_type, first);
    sync_all(&mut server, &mut desks);
    (server, desks)
}

/// Until nobody has anything to send.
fn sync_all(server: &mut ModelServer, desks: &mut [Desk]) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..3 {
        for desk in &mut *desks {
            events.extend(desk.sync(server));
        }
    }
    for desk in &*desks {
        assert!(desk.replica.pending.is_empty() && desk.replica.head == desks[0].replica.head);
    }
    events
}

fn copies(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::ConflictCopy { .. })).count()
}

#[test]
fn edits_of_one_base_become_one_document_on_every_device() {
    let first = json!({ "count": 10, "seen": ["x"], "title": "old" });
    let (mut server, mut desks) = three("tally", &first);
    desks[0].write("tally", &json!({ "count": 11, "seen": ["x", "0"], "title": "by 0" }));
    desks[1].write("tally", &json!({ "count": 15, "seen": ["1"], "title": "old" }));
    desks[2].write("tally", &json!({ "count": 10, "seen": ["x", "2"], "title": "old", "new": true }));
    let events = sync_all(&mut server, &mut desks);
    let want = json!({ "count": 16, "seen": ["0", "1", "2"], "title": "by 0", "new": true });
    for desk in &desks {
        assert_eq!(desk.sorted("tally"), want);
    }
    assert_eq!(copies(&events), 0);
    assert!(events.iter().any(|event| matches!(event, Event::Merged { open: false, .. })));
}

#[test]
fn each_of_several_waiting_writes_is_merged_with_what_became_of_the_one_before() {
    let (mut server, mut desks) = three("tally", &json!({ "count": 0, "seen": [] }));
    for count in 1..=3 {
        let seen: Vec<String> = (1..=count).map(|number| format!("0.{number}")).collect();
        desks[0].write("tally", &json!({ "count": count, "seen": seen }));
    }
    // The second of them takes out again what the first added.
    desks[0].write("tally", &json!({ "count": 3, "seen": ["0.2", "0.3"] }));
    desks[1].write("tally", &json!({ "count": 100, "seen": ["1"] }));
    desks[1].sync(&mut server);
    sync_all(&mut server, &mut desks);
    for desk in &desks {
        assert_eq!(desk.sorted("tally"), json!({ "count": 103, "seen": ["0.2", "0.3", "1"] }));
    }
}

#[test]
fn a_write_whose_answer_was_lost_is_not_merged_with_itself() {
    let (mut server, mut desks) = three("tally", &json!({ "count": 0 }));
    let [one, two, _] = &mut desks;
    one.write("tally", &json!({ "count": 1 }));
    let mut lost = false;
    one.run(Input::Sync, &mut |request| {
        let answer = server.serve(request);
        if matches!(request, Request::Push(_)) && !std::mem::replace(&mut lost, true) {
            return Err(Failure::Later("the answer is lost".into()));
        }
        answer
    });
    assert!(lost);
    // Before it hears of that, it writes on, and so does somebody else.
    one.write("tally", &json!({ "count": 2 }));
    two.sync(&mut server);
    two.write("tally", &json!({ "count": 11 }));
    two.sync(&mut server);
    sync_all(&mut server, &mut desks);
    for desk in &desks {
        assert_eq!(desk.shown("tally"), json!({ "count": 12 }));
    }
}

#[test]
fn what_was_merged_away_is_remembered_on_the_device_that_merged() {
    let (mut server, mut desks) = three("tally", &json!({ "title": "old" }));
    desks[0].write("tally", &json!({ "title": "first" }));
    desks[1].write("tally", &json!({ "title": "second" }));
    desks[1].sync(&mut server);
    sync_all(&mut server, &mut desks);
    assert!(desks[1].replica.merges.is_empty() && desks[2].replica.merges.is_empty());
    let [entry] = &desks[0].replica.merges[..] else { panic!("one merge") };
    assert_eq!(entry.record, record_of("tally", "a"));
    let was = Content::decode(&entry.pending).unwrap();
    let policy = FIXTURE.setup(0).policies.of("tally").unwrap().clone();
    let was = Origin::new(&was, 1, FIXTURE.devices[0].id()).view(&policy).unwrap();
    assert_eq!(serde_json::to_value(&was.fields).unwrap(), json!({ "title": "first" }));
    let record = lockstep_merge::Record::decode(&entry.decisions).unwrap();
    assert!(record.decisions[0].is_clash());
    // Undone like any edit.
    let now = desks[0].view("tally").unwrap().fields;
    let side = if desks[0].shown("tally") == json!({ "title": "first" }) {
        lockstep_merge::Side::Remote
    } else {
        lockstep_merge::Side::Local
    };
    let undone = record.decisions[0].undo(Some(&now), side).unwrap().unwrap();
    desks[0].write("tally", &serde_json::to_value(&undone).unwrap());
    sync_all(&mut server, &mut desks);
    assert_ne!(desks[2].shown("tally"), serde_json::to_value(&now).unwrap());
}

#[test]
fn an_edit_stays_or_goes_against_a_deletion_as_the_type_says() {
    for (record_type, stays) in [("tally", true), ("draft", false)] {
        for deletes_first in [true, false] {
            let (mut server, mut desks) = three(record_type, &json!({ "seen": ["x"] }));
            desks[0].delete(record_type);
            desks[1].write(record_type, &json!({ "seen": ["x", "1"] }));
            let order = if deletes_first { [0, 1] } else { [1, 0] };
            for index in order {
                desks[index].sync(&mut server);
            }
            let events = sync_all(&mut server, &mut desks);
            assert_eq!(copies(&events), 0);
            for desk in &desks {
                let want = if stays { json!({ "seen": ["x", "1"] }) } else { Json::Null };
                assert_eq!(desk.shown(record_type), want, "{record_type}, deleted first: {deletes_first}");
            }
        }
    }
}

#[test]
fn an_edit_against_a_deletion_is_merged_with_a_later_edit_from_where_both_began() {
    let (mut server, mut desks) = three("tally", &json!({ "count": 5 }));
    desks[0].write("tally", &json!({ "count": 6 }));
    desks[1].write("tally", &json!({ "count": 15 }));
    desks[2].delete("tally");
    desks[2].sync(&mut server);
    // 0 stands against the deletion and is not sent yet; 1 does the same and is.
    desks[0].run(Input::Pull, &mut |request| server.serve(request));
    desks[1].sync(&mut server);
    sync_all(&mut server, &mut desks);
    for desk in &desks {
        assert_eq!(desk.shown("tally"), json!({ "count": 16 }));
    }
}

#[test]
fn manual_values_and_deletions_wait_until_somebody_decides() {
    let (mut server, mut desks) = three("case", &json!({ "diagnosis": "none" }));
    desks[0].write("case", &json!({ "diagnosis": "flu" }));
    desks[1].write("case", &json!({ "diagnosis": "cold" }));
    desks[2].delete("case");
    sync_all(&mut server, &mut desks);
    for desk in &desks {
        let open = desk.open("case");
        assert_eq!(open.len(), 2, "{open:?}");
        let row = &desk.replica.records[&record_of("case", "a")];
        assert!(row.index.as_ref().unwrap().conflict);
    }
    let path = vec!["diagnosis".to_owned()];
    let choice = Choice::Field { path, value: Some(serde_json::from_value(json!("flu")).unwrap()) };
    let record = record_of("case", "a");
    let decide = |desk: &mut Desk, choice: Choice| {
        desk.run(Input::Decide(record, choice), &mut |_| unreachable!("it sends nothing"))
    };
    assert!(matches!(decide(&mut desks[2], choice.clone())[..], [Event::Stored(_)]));
    decide(&mut desks[2], Choice::KeepDocument);
    sync_all(&mut server, &mut desks);
    for desk in &desks {
        assert_eq!((desk.shown("case"), desk.open("case").len()), (json!({ "diagnosis": "flu" }), 0));
        let row = &desk.replica.records[&record];
        assert!(!row.index.as_ref().unwrap().conflict);
    }
    let events = decide(&mut desks[0], choice);
    assert!(matches!(stopped(&events), EngineError::Document { .. }), "nothing waits any more");
}

#[test]
fn a_document_of_a_newer_schema_is_kept_beside_and_never_written_over() {
    let (mut server, mut desks) = three("whole", &json!({ "v": 1 }));
    // A newer app writes; the policy here knows schema 1.
    let newer =
        NewRecord { schema: 9, policy: Policy::KeepBoth, ..document("whole", "a", Some(&json!({ "v": 9 }))) };
    desks[1].put(vec![newer]);
    desks[1].sync(&mut server);
    desks[0].write("whole", &json!({ "v": 2 }));
    let events = sync_all(&mut server, &mut desks);
    assert_eq!(copies(&events), 1);
    let record = record_of("whole", "a");
    for desk in &mut desks {
        let current = read::current(&desk.replica, &FIXTURE.keys, record).unwrap().unwrap();
        assert_eq!(current.content.schema, 9);
    }
    let events = desks[0].put(vec![document("whole", "a", Some(&json!({ "v": 3 })))]);
    assert!(matches!(stopped(&events), EngineError::Document { .. }));
    assert!(desks[0].replica.pending.is_empty());
}

#[test]
fn clocks_of_others_are_taken_over_up_to_a_day_ahead() {
    let (_, desks) = three("tally", &json!({ "title": "x" }));
    // All desks stand at the same time: whoever saw the write counts on from its clock.
    let clocks: Vec<_> = desks.iter().map(|desk| desk.replica.clock().unwrap()).collect();
    assert!(clocks[1] > clocks[0] && clocks[2] > clocks[0], "{clocks:?}");
}

#[test]
fn writes_are_merged_whatever_the_pages() {
    // Envelopes come one by one, staged, and the other side's writes come in several rounds.
    let mut server = ModelServer::new(TIGHT);
    let mut desks = [Desk::new(0), Desk::new(1)];
    desks[0].write("tally", &json!({ "count": 1 }));
    sync_all(&mut server, &mut desks);
    for count in 2..6 {
        desks[0].write("tally", &json!({ "count": count }));
        let others = [document("draft", "b", Some(&json!({ "n": count })))];
        desks[0].put(others.to_vec());
        desks[0].sync(&mut server);
    }
    desks[1].write("tally", &json!({ "count": 101 }));
    // And while envelopes are waited for, the app goes on.
    let late = vec![document("tally", "a", Some(&json!({ "count": 201 })))];
    let serve = &mut |request: &Request| -> Result<Answer, Failure> { server.serve(request) };
    desks[1].run_interrupted(Input::Sync, serve, 3, late);
    sync_all(&mut server, &mut desks);
    for desk in &desks {
        assert_eq!(desk.shown("tally"), json!({ "count": 205 }));
    }
}

#[test]
fn a_record_that_two_devices_made_becomes_one() {
    let mut server = ModelServer::new(TIGHT);
    let mut desks = [Desk::new(0), Desk::new(1)];
    desks[0].write("tally", &json!({ "seen": ["0"], "title": "zero" }));
    desks[0].sync(&mut server);
    // The other's comes in a round that is not the last, and is replaced by then.
    desks[0].write("tally", &json!({ "seen": ["0", "2"], "title": "zero" }));
    desks[0].sync(&mut server);
    desks[1].write("tally", &json!({ "seen": ["1"], "more": true }));
    let events = sync_all(&mut server, &mut desks);
    assert_eq!(copies(&events), 0);
    for desk in &desks {
        assert_eq!(desk.sorted("tally"), json!({ "seen": ["0", "1", "2"], "title": "zero", "more": true }));
    }
}

/// A server that keeps an envelope back for a while, in a round that is not the last, does not choose what becomes of the
/// writes that wait: they are merged when it is there.
#[test]
fn nobody_turns_a_merge_into_a_copy_by_keeping_an_envelope_back() {
    for delete in [true, false] {
        let mut server = ModelServer::new(TIGHT);
        let mut desks = [Desk::new(0), Desk::new(1)];
        desks[0].write("draft", &json!({ "seen": ["x"] }));
        sync_all(&mut server, &mut desks);
        desks[0].write("draft", &json!({ "seen": ["x", "0"] }));
        desks[0].sync(&mut server);
        desks[0].put(vec![document("tally", "b", Some(&json!({})))]);
        desks[0].sync(&mut server);
        if delete {
            desks[1].delete("draft");
        } else {
            desks[1].write("draft", &json!({ "seen": ["1", "x"] }));
        }
        let mut asked = 0;
        let mut events = desks[1].run(Input::Sync, &mut |request| {
            let answer = server.serve(request);
            // Nothing but commits in the first round.
            match request {
                Request::State { .. } | Request::Envelopes { .. } if asked < 2 => {
                    asked += 1;
                    Ok(Answer::Entries(Vec::new(), false))
                }
                _ => answer,
            }
        });
        assert_eq!((asked, events.last()), (2, Some(&Event::Idle)), "{events:?}");
        events.extend(sync_all(&mut server, &mut desks));
        assert_eq!(copies(&events), 0);
        for desk in &desks {
            // Whoever deletes wins in this type.
            let want = if delete { Json::Null } else { json!({ "seen": ["0", "1", "x"] }) };
            let shown = if delete { desk.shown("draft") } else { desk.sorted("draft") };
            assert_eq!(shown, want);
        }
    }
}

/// Objects that the writer does not list, but the document still names, go with it.
#[test]
fn a_write_keeps_the_objects_that_the_document_names() {
    let mut server = ModelServer::new(ROOMY);
    let mut desk = Desk::new(0);
    let blob = |byte: u8| BlobRef {
        blob: BlobId::from_bytes([byte; 16]),
        size: 1,
        content_hash: lockstep_proto::Digest::ZERO,
        seed: ByteArray([byte; 32]),
        chunk_log2: 16,
    };
    let photos: Vec<String> = [1, 2].map(|byte| blob(byte).blob.to_string()).to_vec();
    let first = document("tally", "a", Some(&json!({ "seen": photos })));
    desk.put(vec![NewRecord { blobs: vec![blob(1), blob(2)], ..first }]);
    desk.write("tally", &json!({ "seen": [photos[1]], "title": "one of them" }));
    let blobs = |desk: &Desk| {
        let record = record_of("tally", "a");
        let current = read::current(&desk.replica, &FIXTURE.keys, record).unwrap().unwrap();
        current.content.blob_ids()
    };
    assert_eq!(blobs(&desk), [blob(2).blob]);
    desk.sync(&mut server);
    // A deletion needs none, whatever its writer says: the server would refuse it for ever.
    let deletion = document("tally", "a", None);
    desk.put(vec![NewRecord { blobs: vec![blob(1)], ..deletion }]);
    desk.sync(&mut server);
    assert_eq!(desk.view("tally"), None);
}

/// Somebody reads a document, and writes it after the device took over what another one wrote.
#[test]
fn an_edit_of_a_version_that_was_replaced_meanwhile_is_merged_at_once() {
    let (mut server, mut desks) = three("tally", &json!({ "count": 1, "title": "old" }));
    let seen = |desk: &Desk| {
        let row = desk.replica.record(record_of("tally", "a")).unwrap().unwrap();
        Origin::of(&read::open_row(&desk.replica, &FIXTURE.keys, &row).unwrap().unwrap())
    };
    let edit = |desk: &mut Desk, fields: Option<&Json>, seen: Origin| {
        let edit = (document("tally", "a", fields), Some(seen));
        desk.run(Input::Edit(vec![edit]), &mut |_| unreachable!("it sends nothing"))
    };
    let before = seen(&desks[0]);
    desks[1].write("tally", &json!({ "count": 5, "title": "of 1" }));
    sync_all(&mut server, &mut desks);
    edit(&mut desks[0], Some(&json!({ "count": 2, "title": "old" })), before.clone());
    let want = json!({ "count": 6, "title": "of 1" });
    assert_eq!(desks[0].shown("tally"), want);
    // Who saw what is here writes what he says.
    let now = seen(&desks[2]);
    edit(&mut desks[2], Some(&json!({ "count": 5, "title": "of 2" })), now);
    sync_all(&mut server, &mut desks);
    for desk in &desks {
        assert_eq!(desk.shown("tally"), json!({ "count": 6, "title": "of 2" }));
    }
    // A deletion of what was changed since gives way in this type: there is nothing to write.
    let events = edit(&mut desks[0], None, before.clone());
    assert!(matches!(&events[..], [Event::Stored(operations)] if operations.is_empty()), "{events:?}");
    // What can not become one is not written.
    let newer = NewRecord {
        schema: 9,
        policy: Policy::KeepBoth,
        ..document("tally", "a", Some(&json!({ "count": 9 })))
    };
    desks[1].put(vec![newer]);
    sync_all(&mut server, &mut desks);
    let events = edit(&mut desks[0], Some(&json!({ "count": 3 })), before);
    assert!(matches!(stopped(&events), EngineError::Document { .. }));
}

/// The same where what came meanwhile is a deletion, which says nothing of the document.
#[test]
fn an_edit_of_what_was_deleted_meanwhile_still_grew_from_what_was_seen() {
    let (mut server, mut desks) = three("tally", &json!({ "count": 5 }));
    let row = desks[0].replica.record(record_of("tally", "a")).unwrap().unwrap();
    let seen = Origin::of(&read::open_row(&desks[0].replica, &FIXTURE.keys, &row).unwrap().unwrap());
    desks[1].write("tally", &json!({ "count": 15 }));
    desks[2].delete("tally");
    desks[2].sync(&mut server);
    desks[0].run(Input::Pull, &mut |request| server.serve(request));
    let edit = (document("tally", "a", Some(&json!({ "count": 6 }))), Some(seen));
    desks[0].run(Input::Edit(vec![edit]), &mut |_| unreachable!("it sends nothing"));
    desks[1].sync(&mut server);
    sync_all(&mut server, &mut desks);
    for desk in &desks {
        assert_eq!(desk.shown("tally"), json!({ "count": 16 }));
    }
}
