//! Devices that hold less than everything: all is verified, what is let go of is known, and what is fetched again is the
//! newest version or refused.

use crate::bench::{Desk, ROOMY, TIGHT, note, stopped};
use crate::fixture::FIXTURE;
use crate::plan::NOTE;
use crate::server::{ModelServer, PageSizes};
use crate::tamper::in_entries;
use lockstep_engine::effect::{Answer, Event, Failure, Input, NewRecord, Request};
use lockstep_engine::error::EngineError;
use lockstep_engine::read;
use lockstep_engine::replica::{Policy, RecordRow, Replica as _, WriteOp};
use lockstep_engine::select::{self, Selection};
use lockstep_proto::id::{RecordId, Seq};
use lockstep_proto::state::StateDigest;
use std::collections::{BTreeMap, BTreeSet};

const DAY_MS: u64 = 86_400_000;

fn days(days: u64) -> Selection {
    Selection { days: Some(days), types: None }
}

fn types(types: &[&str]) -> Selection {
    Selection { days: None, types: Some(types.iter().map(ToString::to_string).collect()) }
}

fn place_of(name: &str) -> RecordId {
    FIXTURE.keys.record_id(NOTE, name.as_bytes())
}

impl Desk {
    /// Lets go of what a selection does not hold.
    fn evict(&mut self, selection: &Selection) {
        let rows: Vec<RecordRow> = self.replica.records.values().map(|held| held.row).collect();
        let ops = select::evict(&self.replica, &FIXTURE.setup(1), selection, self.utc_ms / 1000, &rows);
        self.replica.apply(&ops.unwrap()).unwrap();
    }

    /// Fetches records that are not held, as an adapter does.
    fn fetch(
        &mut self,
        names: &[&str],
        serve: &mut dyn FnMut(&Request) -> Result<Answer, Failure>,
    ) -> Vec<Event> {
        let records: Vec<RecordId> = names.iter().map(|name| place_of(name)).collect();
        assert!(names.iter().all(|name| !self.replica.records[&place_of(name)].row.present));
        let events = self.run(Input::Fetch(records.clone()), serve);
        self.replica.apply(&select::give_up(&self.replica, &records).unwrap()).unwrap();
        events
    }

    fn names(&self, names: &[&'static str]) -> Vec<&'static str> {
        let is_here = |name: &&&str| self.replica.records[&place_of(name)].row.present;
        names.iter().filter(is_here).copied().collect()
    }

    fn why(&self, name: &str) -> EngineError {
        read::current(&self.replica, &FIXTURE.keys, place_of(name)).unwrap_err()
    }

    /// The state digest of what is known here, held or not.
    fn state(&self) -> lockstep_proto::Digest {
        let mut state = StateDigest::default();
        for row in self.replica.records.values().map(|held| held.row) {
            state.add(row.record, row.revision, row.digest, row.seq);
        }
        state.checksum()
    }
}

/// Seven notes, one a day, the first of them written over on the last day; the reader has seen them all.
fn week(sizes: PageSizes) -> (ModelServer, Desk, Desk) {
    let mut server = ModelServer::new(sizes);
    let (mut writer, mut reader) = (Desk::new(0), Desk::new(1));
    for (day, name) in WEEK.iter().enumerate() {
        writer.utc_ms = (day as u64 + 1) * DAY_MS;
        writer.put(vec![note(name, Some(name.as_bytes()))]);
        writer.sync(&mut server);
    }
    writer.put(vec![note("mon", Some(b"mon, again"))]);
    writer.sync(&mut server);
    reader.utc_ms = writer.utc_ms + DAY_MS / 2;
    reader.sync(&mut server);
    (server, writer, reader)
}

const WEEK: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

#[test]
fn everything_is_verified_with_most_envelopes_let_go_of() {
    for sizes in [ROOMY, TIGHT] {
        let (mut server, mut writer, mut reader) = week(sizes);
        reader.evict(&days(2));
        // The age is that of the newest version.
        assert_eq!(reader.names(&WEEK), ["mon", "sat", "sun"]);
        assert!(
            matches!(reader.why("tue"), EngineError::NotHeld { record, .. } if record == place_of("tue"))
        );
        reader.utc_ms += 30 * DAY_MS;
        reader.evict(&days(2));
        assert_eq!(reader.names(&WEEK), [""; 0]);
        // It goes on verifying, asks for nothing that it let go of, and what it signs is right.
        writer.utc_ms = reader.utc_ms;
        writer.put(vec![note("new", Some(b"new")), note("wed", None)]);
        writer.sync(&mut server);
        reader.put(vec![note("own", Some(b"own"))]);
        let gone: BTreeSet<RecordId> = ["mon", "tue", "thu", "fri", "sat", "sun"].map(place_of).into();
        let mut asked = BTreeSet::new();
        let events = reader.run(Input::Sync, &mut |request| {
            if let Request::Envelopes { places } = request {
                asked.extend(places.iter().map(|(_, record)| *record));
            }
            server.serve(request)
        });
        assert_eq!(events.last(), Some(&Event::Idle), "{events:?}");
        assert!(asked.is_disjoint(&gone), "{asked:?}");
        let head = reader.replica.head.clone().unwrap();
        assert_eq!((head.tip.hash, head.state.checksum()), (server.tip.hash, server.state.checksum()));
        assert_eq!(reader.state(), server.state.checksum());
        assert_eq!(reader.read("new"), Some(b"new".to_vec()));
        writer.sync(&mut server);
        assert_eq!(writer.read("own"), Some(b"own".to_vec()));
    }
}

#[test]
fn a_new_version_comes_and_the_selection_decides_again() {
    for sizes in [ROOMY, TIGHT] {
        let (mut server, mut writer, mut reader) = week(sizes);
        reader.evict(&types(&["other"]));
        assert_eq!(reader.names(&WEEK), [""; 0]);
        writer.put(vec![note("tue", Some(b"tue, again"))]);
        writer.sync(&mut server);
        reader.sync(&mut server);
        assert_eq!(reader.names(&WEEK), ["tue"]);
        assert_eq!(reader.read("tue"), Some(b"tue, again".to_vec()));
        reader.evict(&types(&["other"]));
        assert_eq!(reader.names(&WEEK), [""; 0]);
        reader.sync(&mut server);
        assert_eq!(reader.names(&WEEK), [""; 0]);
    }
}

#[test]
fn what_was_let_go_of_is_fetched_again() {
    for sizes in [ROOMY, TIGHT] {
        let (mut server, _, mut reader) = week(sizes);
        let before = reader.replica.clone();
        reader.evict(&days(0));
        reader.fetch(&["tue", "mon"], &mut |request| server.serve(request));
        assert_eq!(reader.names(&WEEK), ["mon", "tue"]);
        assert_eq!(reader.read("mon"), Some(b"mon, again".to_vec()));
        reader.fetch(&["wed", "thu", "fri", "sat", "sun"], &mut |request| server.serve(request));
        assert!(reader.replica.records == before.records);
    }
}

/// A server that lies when a record is fetched: what the reader says, and that nothing of it stays.
fn lies(tamper: &dyn Fn(&mut Vec<lockstep_proto::api::vault::Entry>, &ModelServer)) -> EngineError {
    let (mut server, mut writer, mut reader) = week(ROOMY);
    reader.evict(&days(0));
    let before = reader.replica.visible();
    let mut liar = server.clone();
    let events = reader.fetch(&["mon"], &mut |request| {
        let answer = liar.serve(request)?;
        Ok(in_entries(answer, |entries| tamper(entries, &server)))
    });
    let error = stopped(&events);
    assert!(reader.replica.visible() == before, "something of it was kept: {error}");
    // It can go on without what it does not hold.
    writer.put(vec![note("next", Some(b"next"))]);
    writer.sync(&mut server);
    reader.put(vec![note("own", Some(b"own"))]);
    reader.sync(&mut server);
    assert!(matches!(reader.why("mon"), EngineError::NotHeld { .. }));
    reader.fetch(&["mon"], &mut |request| server.serve(request));
    assert_eq!(reader.read("mon"), Some(b"mon, again".to_vec()));
    error
}

#[test]
fn a_server_that_lost_or_rolled_back_what_was_let_go_of_is_found() {
    let vault = FIXTURE.keys.vault();
    let (record, first, newest) = (place_of("mon"), crate::tamper::seq(1), crate::tamper::seq(8));
    let lost = lies(&|entries, _| entries.clear());
    assert_eq!(lost, EngineError::Incomplete { vault, seq: newest, record });
    let is_whole = [true, false];
    for is_whole in is_whole {
        let old = lies(&|entries, server| {
            let old = server.entry((first, record)).unwrap();
            for entry in &mut *entries {
                if is_whole {
                    *entry = old.clone();
                }
                entry.envelope = old.envelope.clone();
            }
        });
        assert_eq!(old, EngineError::RecordRollback { vault, record, seq: newest, old: first });
    }
    for other in ["tue", "flipped"] {
        let wrong = lies(&|entries, server| {
            let tue = server.entry((crate::tamper::seq(2), place_of("tue"))).unwrap();
            for entry in &mut *entries {
                match other {
                    "tue" => entry.envelope = tue.envelope.clone(),
                    _ => crate::tamper::flip(&mut entry.envelope.0, 900),
                }
            }
        });
        assert!(matches!(wrong, EngineError::Server { .. }), "{wrong}");
    }
}

#[test]
fn what_somebody_still_needs_is_not_let_go_of() {
    let (mut server, mut writer, mut reader) = week(ROOMY);
    let library = NewRecord { record_type: "lockstep/x".into(), ..note("library", Some(b"l")) };
    writer.put(vec![library, note("tue", Some(b"of the writer"))]);
    writer.sync(&mut server);
    reader.put(vec![note("tue", Some(b"of the reader")), note("wed", Some(b"waits"))]);
    let events = reader.sync(&mut server);
    let copy = events.iter().find_map(|event| match event {
        Event::ConflictCopy { copy, .. } => Some(*copy),
        _ => None,
    });
    reader.put(vec![note("thu", Some(b"waits"))]);
    reader.evict(&days(0));
    reader.evict(&types(&["other"]));
    let library = FIXTURE.keys.record_id("lockstep/x", b"library");
    let held: BTreeSet<RecordId> =
        reader.replica.records.values().filter(|held| held.row.present).map(|held| held.row.record).collect();
    assert_eq!(held, BTreeSet::from([library, copy.unwrap(), place_of("thu")]));
    reader.sync(&mut server);
    reader.evict(&types(&["other"]));
    assert_eq!(reader.names(&WEEK), [""; 0]);
}

#[test]
fn a_write_over_what_is_not_held_needs_its_contents_only_to_merge() {
    let (mut server, mut writer, mut reader) = week(ROOMY);
    let tally = |count: i128| {
        let fields = [("count".to_owned(), lockstep_merge::Value::Int(count))].into_iter().collect();
        NewRecord {
            record_type: "tally".into(),
            policy: Policy::Merge,
            ..note("t", Some(&lockstep_merge::encode(fields).unwrap()))
        }
    };
    writer.put(vec![tally(1)]);
    writer.sync(&mut server);
    reader.sync(&mut server);
    reader.utc_ms += DAY_MS;
    reader.evict(&days(0));
    let events = reader.put(vec![tally(2)]);
    assert!(matches!(stopped(&events), EngineError::NotHeld { .. }));
    assert!(reader.replica.pending.is_empty());
    reader.put(vec![note("tue", Some(b"over it")), note("wed", None)]);
    reader.sync(&mut server);
    assert_eq!(server.live[&place_of("tue")].revision.value(), 2);
    let place = FIXTURE.keys.record_id("tally", b"t");
    reader.replica.apply(&select::recall(&reader.replica, &[place]).unwrap()).unwrap();
    reader.sync(&mut server);
    reader.put(vec![tally(2)]);
    reader.sync(&mut server);
    writer.sync(&mut server);
    assert_eq!(server.live[&place].revision.value(), 2);
    assert_eq!((writer.read("tue"), writer.read("wed")), (Some(b"over it".to_vec()), None));
}

#[test]
fn a_version_that_counts_again_stays_let_go_of() {
    let (_, _, mut reader) = week(ROOMY);
    reader.evict(&days(0));
    let back = lockstep_engine::repair::give_up(&reader.replica, crate::tamper::seq(3), true).unwrap();
    assert!(back.iter().any(|op| matches!(op, WriteOp::GoBack { .. })));
    reader.replica.apply(&back).unwrap();
    assert_eq!(reader.replica.records[&place_of("mon")].row.seq, crate::tamper::seq(1));
    assert!(matches!(reader.why("mon"), EngineError::NotHeld { .. }));
    assert_eq!(reader.replica.absent(10).unwrap(), []);
    assert_eq!(reader.replica.evicted, ["mon", "tue", "wed"].map(place_of).into());
}

impl Desk {
    fn want(&mut self, names: &[&str]) {
        let records: Vec<RecordId> = names.iter().map(|name| place_of(name)).collect();
        let ops = select::recall(&self.replica, &records).unwrap();
        assert_eq!(ops.len(), names.len());
        self.replica.apply(&ops).unwrap();
    }
}

/// A request without the places of some envelopes, as it is to a server that lost them.
fn without(request: &Request, lost: &[(Seq, RecordId)]) -> Request {
    match request {
        Request::Envelopes { places } => {
            let there = places.iter().filter(|place| !lost.contains(place));
            Request::Envelopes { places: there.copied().collect() }
        }
        other => other.clone(),
    }
}

fn still_wanted(events: &[Event]) -> Vec<(RecordId, EngineError)> {
    let named = events.iter().filter_map(|event| match event {
        Event::StillWanted { record, error } => Some((*record, error.clone())),
        _ => None,
    });
    named.collect()
}

#[test]
fn what_is_wanted_again_and_lost_keeps_nothing_from_being_sent() {
    let vault = FIXTURE.keys.vault();
    for sizes in [ROOMY, TIGHT] {
        let (mut server, mut writer, mut reader) = week(sizes);
        reader.evict(&days(0));
        reader.want(&["mon", "tue", "wed", "thu", "sun"]);
        // One is lost, one is as it was before; they come before one that is there.
        let (first, tue) =
            ((crate::tamper::seq(1), place_of("mon")), (crate::tamper::seq(2), place_of("tue")));
        let (newest, thu) =
            ((crate::tamper::seq(8), place_of("mon")), (crate::tamper::seq(4), place_of("thu")));
        let whole = server.versions.clone();
        server.versions.get_mut(&newest).unwrap().envelope = whole[&first].envelope.clone();
        reader.put(vec![note("own", Some(b"own"))]);
        let events = reader.run(Input::Sync, &mut |request| server.serve(&without(request, &[tue, thu])));
        assert_eq!(events.last(), Some(&Event::Idle), "{events:?}");
        let pushed = events.iter().position(|event| matches!(event, Event::Pushed { .. })).unwrap();
        let named = events.iter().position(|event| matches!(event, Event::StillWanted { .. })).unwrap();
        assert!(pushed < named, "{events:?}");
        let lost = |(seq, record)| EngineError::Incomplete { vault, seq, record };
        let back = EngineError::RecordRollback { vault, record: newest.1, seq: newest.0, old: first.0 };
        let named: BTreeMap<RecordId, EngineError> = still_wanted(&events).into_iter().collect();
        assert_eq!(named, [(tue.1, lost(tue)), (thu.1, lost(thu)), (newest.1, back)].into());
        assert_eq!(still_wanted(&events).len(), 3, "each once: {events:?}");
        assert_eq!(reader.names(&WEEK), ["wed", "sun"]);
        assert_eq!(reader.why("tue"), lost(tue));
        assert_eq!(reader.replica.wanted(None, 9).unwrap().len(), 3);
        writer.sync(&mut server);
        assert_eq!(writer.read("own"), Some(b"own".to_vec()));
        // A small change is sent without asking for any of it; a pull asks again.
        reader.put(vec![note("more", Some(b"more"))]);
        let sent = reader.run(Input::Send, &mut |request| {
            assert!(!matches!(request, Request::Envelopes { .. }));
            server.serve(request)
        });
        assert_eq!((sent.last(), still_wanted(&sent).len()), (Some(&Event::Idle), 0), "{sent:?}");
        let pulled = reader.run(Input::Pull, &mut |request| server.serve(&without(request, &[tue, thu])));
        assert_eq!((pulled.last(), still_wanted(&pulled).len()), (Some(&Event::Idle), 3), "{pulled:?}");
        // One is written anew, the others are there again.
        server.versions.insert(newest, whole[&newest].clone());
        writer.put(vec![note("tue", Some(b"tue, anew"))]);
        writer.sync(&mut server);
        assert_eq!(still_wanted(&reader.sync(&mut server)), []);
        assert_eq!(reader.names(&WEEK), ["mon", "tue", "wed", "thu", "sun"]);
        assert_eq!(reader.read("tue"), Some(b"tue, anew".to_vec()));
        assert!(reader.replica.wanted.is_empty());
    }
}

#[test]
fn a_wanted_record_is_written_over_before_it_comes() {
    let (mut server, mut writer, mut reader) = week(ROOMY);
    reader.evict(&days(0));
    reader.want(&["tue", "wed"]);
    reader.put(vec![note("tue", Some(b"over it")), note("wed", None)]);
    let lost = ["tue", "wed"].map(|name| (reader.replica.records[&place_of(name)].row.seq, place_of(name)));
    let events = reader.run(Input::Sync, &mut |request| server.serve(&without(request, &lost)));
    assert_eq!((events.last(), still_wanted(&events)), (Some(&Event::Idle), vec![]));
    writer.sync(&mut server);
    assert_eq!((writer.read("tue"), writer.read("wed")), (Some(b"over it".to_vec()), None));
    assert!(reader.replica.wanted.is_empty());
}

/// What never was here is waited for before anything is sent, until somebody asked for it in vain.
#[test]
fn what_never_was_here_is_waited_for_until_it_was_fetched_in_vain() {
    let mut server = ModelServer::new(TIGHT);
    let (mut writer, mut reader) = (Desk::new(0), Desk::new(1));
    reader.sync(&mut server);
    writer.put(vec![note("lost", Some(b"lost"))]);
    writer.sync(&mut server);
    writer.put(vec![note("later", Some(b"later"))]);
    writer.sync(&mut server);
    let record = place_of("lost");
    let lost = EngineError::Incomplete { vault: FIXTURE.keys.vault(), seq: crate::tamper::seq(1), record };
    let mut lose = |request: &Request| {
        let answer = server.serve(request)?;
        Ok(in_entries(answer, |entries| entries.retain(|entry| entry.record != record)))
    };
    reader.put(vec![note("own", Some(b"own"))]);
    assert_eq!(stopped(&reader.run(Input::Sync, &mut lose)), lost);
    let events = reader.fetch(&["lost"], &mut lose);
    assert_eq!((stopped(&events), reader.replica.pending.len()), (lost.clone(), 1));
    let events = reader.run(Input::Sync, &mut lose);
    assert_eq!((events.last(), still_wanted(&events)), (Some(&Event::Idle), vec![(record, lost)]));
    assert!(reader.replica.pending.is_empty());
    reader.sync(&mut server);
    assert_eq!(reader.read("lost"), Some(b"lost".to_vec()));
}
