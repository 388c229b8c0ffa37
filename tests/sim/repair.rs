//! Repairs: the one way past a commit that does not count, and the one way by which a head that does not descend
//! from the verified one is accepted. A hostile server has no other, and none of its own making.

use crate::bench::{Desk, ROOMY, TIGHT, note, stopped};
use crate::fixture::FIXTURE;
use crate::hostile::scene;
use crate::server::{ModelServer, PageSizes};
use crate::tamper::Draft;
use lockstep_engine::effect::{Answer, Event, Input, Request};
use lockstep_engine::error::EngineError;
use lockstep_engine::repair::{Plan, build, head_at};
use lockstep_engine::replica::InFlight;
use lockstep_proto::cbor::{ByteArray, Wire as _};
use lockstep_proto::commit::{Change, Changes, Commit};
use lockstep_proto::id::Seq;
use lockstep_proto::{Digest, Signature, label};

/// Hash of a commit at the server.
pub(crate) fn hash_at(server: &ModelServer, seq: Seq) -> Digest {
    server.commits[seq.value() as usize].2
}

fn end(server: &ModelServer) -> (Seq, Digest) {
    let seq = Seq::new(server.commits.len() as u64 - 1);
    (seq, hash_at(server, seq))
}

pub(crate) fn by_identity(place: &lockstep_proto::commit::RepairPlace, says: &[Change]) -> Signature {
    FIXTURE.unlocked.authorise_repair(place, says)
}

/// A repair by a device at the end of the server's chain, which goes back to `good` and abandons commits.
pub(crate) fn repair(
    server: &ModelServer,
    desk: &Desk,
    good: Seq,
    abandoned: Vec<(Seq, Digest)>,
    authorise: impl FnOnce(&lockstep_proto::commit::RepairPlace, &[Change]) -> Signature,
) -> InFlight {
    let last = end(server);
    let target = last.0.next().skip_target();
    let plan = Plan {
        last,
        skip: hash_at(server, target),
        good: head_at(&desk.replica, good).unwrap(),
        abandoned,
        utc: 1,
    };
    build(&FIXTURE.setup(2), &FIXTURE.log(), &plan, authorise)
}

/// The server stores it without looking, its state being that of `good` from here on.
pub(crate) fn publish(server: &mut ModelServer, good: &ModelServer, repair: &InFlight) {
    let commit = Commit::decode(&repair.commit.bytes.0).unwrap();
    let hash = Commit::hash_of(&repair.commit.bytes.0);
    let commits = std::mem::take(&mut server.commits);
    let versions = std::mem::take(&mut server.versions);
    *server = good.clone();
    // What was abandoned is still had by place, and is given out by nothing else.
    for (place, version) in versions {
        server.versions.entry(place).or_insert(crate::server::Version { is_replaced: true, ..version });
    }
    server.commits = commits;
    server.commits.push((repair.commit.clone(), repair.changes.clone(), hash));
    server.tip.seq = commit.seq;
    server.tip.hash = hash;
    server.tip.device_log_index = commit.device_log_index;
}

pub(crate) fn went_back(events: &[Event]) -> bool {
    events.contains(&Event::WentBack)
}

#[test]
fn a_repair_leads_past_a_commit_that_is_not_valid() {
    for sizes in [ROOMY, TIGHT] {
        let mut one = scene(sizes);
        one.writer.sync(&mut one.server);
        let good = one.server.clone();
        let device = &FIXTURE.devices[2];
        let mut draft = Draft::new(&one.server, device, b"f");
        draft.commit.state = draft.commit.changes;
        draft.publish(&mut one.server, device);
        let events = one.reader.run(Input::Sync, &mut |request| one.server.serve(request));
        assert!(matches!(stopped(&events), EngineError::Fault { .. }));
        let repair = repair(&one.server, &one.writer, good.tip.seq, Vec::new(), by_identity);
        publish(&mut one.server, &good, &repair);
        let events = one.reader.sync(&mut one.server);
        assert!(went_back(&events), "{events:?}");
        assert_eq!(one.reader.read("a"), Some(b"a2".to_vec()));
        assert!(one.reader.replica.pending.is_empty(), "what waited went out behind the repair");
        // Who comes new walks the same way, and both agree.
        let mut third = Desk::new(2);
        third.sync(&mut one.server);
        one.reader.sync(&mut one.server);
        assert_eq!(third.replica.head, one.reader.replica.head);
        assert_eq!(third.read("waiting"), Some(b"kept whatever happens".to_vec()));
    }
}

#[test]
fn who_had_taken_what_is_given_up_goes_back_and_keeps_it() {
    for sizes in [ROOMY, TIGHT] {
        let mut one = scene(sizes);
        one.reader.sync(&mut one.server);
        one.writer.sync(&mut one.server);
        let good = one.server.clone();
        let mut third = Desk::new(2);
        third.sync(&mut one.server);
        third.put(vec![note("a", Some(b"a3")), note("late", Some(b"l1"))]);
        third.sync(&mut one.server);
        one.reader.sync(&mut one.server);
        assert_eq!(one.reader.read("a"), Some(b"a3".to_vec()));
        one.reader.put(vec![note("a", Some(b"upon a3"))]);
        let repair = repair(&one.server, &one.writer, good.tip.seq, Vec::new(), by_identity);
        publish(&mut one.server, &good, &repair);
        let events = one.reader.run(Input::Pull, &mut |request| one.server.serve(request));
        assert!(went_back(&events), "{events:?}");
        assert_eq!(one.reader.replica.shelved.len(), 2, "both versions are kept");
        assert!(one.reader.replica.shelved.iter().all(|(_, envelope)| envelope.is_some()));
        assert_eq!(one.reader.read("late"), None);
        // Its own pending write stands on what counts again, and goes out as the next revision.
        one.reader.sync(&mut one.server);
        one.writer.sync(&mut one.server);
        assert_eq!(one.writer.read("a"), Some(b"upon a3".to_vec()));
        one.reader.sync(&mut one.server);
        assert_eq!(one.writer.replica.head, one.reader.replica.head);
    }
}

/// Two branches after one commit: the reader verified the first one, the server goes on with the second.
pub(crate) fn parted(sizes: PageSizes) -> (crate::hostile::Scene, ModelServer, Vec<(Seq, Digest)>) {
    let mut one = scene(sizes);
    one.reader.sync(&mut one.server);
    let mut other = one.server.clone();
    let shared = one.server.tip.seq;
    for document in [b"x1", b"x2"] {
        one.reader.put(vec![note("x", Some(document))]);
        one.reader.sync(&mut one.server);
    }
    let branch = one.server.commits[shared.value() as usize + 1..]
        .iter()
        .map(|(signed, _, hash)| (Commit::decode(&signed.bytes.0).unwrap().seq, *hash))
        .collect();
    for document in [b"y1", b"y2", b"y3"] {
        one.writer.put(vec![note("y", Some(document))]);
        one.writer.sync(&mut other);
    }
    (one, other, branch)
}

#[test]
fn a_head_that_a_repair_names_gives_way_to_the_other_branch() {
    for sizes in [ROOMY, TIGHT] {
        let (mut one, mut other, branch) = parted(sizes);
        let good = other.clone();
        let repair = repair(&other, &one.writer, good.tip.seq, branch.clone(), by_identity);
        publish(&mut other, &good, &repair);
        let events = one.reader.sync(&mut other);
        assert!(went_back(&events), "{events:?}");
        assert_eq!(one.reader.read("y"), Some(b"y3".to_vec()));
        assert_eq!(one.reader.read("x"), None, "it is on the shelf");
        assert_eq!(one.reader.replica.shelved.len(), 2);
        assert_eq!(one.reader.replica.abandoned, branch.into_iter().collect());
        one.writer.sync(&mut other);
        assert_eq!(one.writer.replica.head, one.reader.replica.head);
    }
}

/// Whatever else the server shows in the place of a repair, the reader stays where it is.
#[test]
fn nothing_but_the_identitys_word_on_this_head_does_it() {
    let zero = |_: &lockstep_proto::commit::RepairPlace, _: &[Change]| ByteArray([0; 64]);
    for sizes in [ROOMY, TIGHT] {
        let (one, other, branch) = parted(sizes);
        let good = other.clone();
        let head = *branch.last().unwrap();
        let others: Vec<(Seq, Digest)> = branch.iter().copied().filter(|commit| *commit != head).collect();
        let elsewhere = [(head.0, hash_at(&other, Seq::new(0)))];
        // A signature that the identity made for another place, or for other words.
        let transplanted = |place: &lockstep_proto::commit::RepairPlace, says: &[Change]| {
            let other = lockstep_proto::commit::RepairPlace { seq: place.seq.next(), ..*place };
            by_identity(&other, says)
        };
        let of_another_vault = |place: &lockstep_proto::commit::RepairPlace, says: &[Change]| {
            let vault = lockstep_proto::VaultId::from_bytes([9; 16]);
            by_identity(&lockstep_proto::commit::RepairPlace { vault, ..*place }, says)
        };
        let of_other_words = |place: &lockstep_proto::commit::RepairPlace, says: &[Change]| {
            by_identity(place, &says[..says.len() - 1])
        };
        // A device signs what only the identity may.
        let by_device = |_: &lockstep_proto::commit::RepairPlace, _: &[Change]| {
            FIXTURE.devices[0].sign(label::REPAIR, Vec::new()).signature
        };
        let tries = [
            repair(&other, &one.writer, good.tip.seq, branch.clone(), zero),
            repair(&other, &one.writer, good.tip.seq, others, by_identity),
            repair(&other, &one.writer, good.tip.seq, elsewhere.to_vec(), by_identity),
            repair(&other, &one.writer, good.tip.seq, branch.clone(), transplanted),
            repair(&other, &one.writer, good.tip.seq, branch.clone(), of_another_vault),
            repair(&other, &one.writer, good.tip.seq, branch.clone(), of_other_words),
            repair(&other, &one.writer, good.tip.seq, branch.clone(), by_device),
        ];
        for (number, repair) in tries.iter().enumerate() {
            let mut server = other.clone();
            publish(&mut server, &good, repair);
            let mut reader = Desk::over(1, one.reader.replica.clone(), 7);
            let events = reader.run(Input::Sync, &mut |request| server.serve(request));
            let error = stopped(&events);
            let refused = matches!(error, EngineError::Rollback { .. } | EngineError::Fork { .. });
            assert!(refused, "try {number}: {error}");
            assert!(reader.replica == one.reader.replica, "try {number} changed something");
        }
    }
}

/// A repair that is valid at its place is worth nothing when its commit is not the end of a chain from here.
#[test]
fn a_repair_that_goes_back_is_refused_where_it_does_not_follow() {
    let mut one = scene(ROOMY);
    one.reader.sync(&mut one.server);
    one.writer.sync(&mut one.server);
    let good = one.server.clone();
    let repair = repair(&one.server, &one.writer, Seq::new(1), Vec::new(), by_identity);
    // The chain goes on without it; later the server shows it as the next commit.
    one.writer.put(vec![note("a", Some(b"a9"))]);
    one.writer.sync(&mut one.server);
    one.reader.sync(&mut one.server);
    let mut liar = one.server.clone();
    let before = one.reader.replica.clone();
    publish(&mut liar, &good, &repair);
    let events = one.reader.run(Input::Sync, &mut |request| liar.serve(request));
    stopped(&events);
    assert!(one.reader.replica == before);
    // Nor does one that claims another state than that of the commit that it goes back to.
    let mut liar = one.server.clone();
    let mut forged = self::repair(&one.server, &one.writer, Seq::new(1), Vec::new(), by_identity);
    let mut commit = Commit::decode(&forged.commit.bytes.0).unwrap();
    commit.state = commit.changes;
    forged.commit = FIXTURE.devices[2].sign(label::COMMIT, commit.encode());
    publish(&mut liar, &good, &forged);
    let events = one.reader.run(Input::Sync, &mut |request| liar.serve(request));
    stopped(&events);
    assert!(one.reader.replica == before);
}

/// A server that answers the search with nonsense, or without an end, is left with what was wrong at first.
#[test]
fn the_search_for_a_repair_ends() {
    let (one, other, _) = parted(TIGHT);
    for lie in 0..4 {
        let mut server = other.clone();
        let mut reader = Desk::over(1, one.reader.replica.clone(), 7);
        let mut asked = 0;
        let events = reader.run(Input::Sync, &mut |request| {
            asked += 1;
            let answer = server.serve(request)?;
            let (Request::Commits { .. }, Answer::Page(mut page)) = (request, answer.clone()) else {
                return Ok(answer);
            };
            if asked > 1 {
                match lie {
                    0 => page.commits.clear(),
                    1 => page.more = true,
                    2 => page.head_seq = Seq::new(0),
                    _ => {
                        let again = page.commits.first().cloned();
                        page.commits.extend(again);
                    }
                }
            }
            Ok(Answer::Page(page))
        });
        stopped(&events);
        assert!(reader.replica == one.reader.replica, "lie {lie}");
    }
}

#[test]
fn change_lists_of_repairs_and_rotations_have_one_form() {
    let authority = Change::Authority(ByteArray([1; 64]));
    let abandon = |seq, byte| Change::Abandon(Seq::new(seq), Digest::from_bytes([byte; 32]));
    let good = [
        vec![Change::GoBack(Seq::new(1)), authority.clone()],
        vec![abandon(1, 1), abandon(1, 2), abandon(2, 0), authority.clone()],
        vec![Change::GoBack(Seq::new(1)), abandon(1, 1), authority.clone()],
    ];
    for list in good {
        let bytes = Changes(list.clone()).encode();
        assert_eq!(Changes::decode(&bytes).unwrap().0, list);
    }
    let wrong = [
        vec![authority.clone()],
        vec![abandon(1, 1)],
        vec![abandon(2, 1), abandon(1, 1), authority.clone()],
        vec![abandon(1, 1), abandon(1, 1), authority.clone()],
        vec![abandon(1, 1), Change::GoBack(Seq::new(1)), authority.clone()],
        vec![Change::GoBack(Seq::new(1)), Change::GoBack(Seq::new(2)), authority.clone()],
        vec![Change::Pin(Seq::new(1)), authority.clone()],
        vec![authority.clone(), authority],
        vec![Change::Rotate(Box::new(FIXTURE.birth.create.clone())), Change::Pin(Seq::new(1))],
    ];
    for list in wrong {
        assert!(Changes::decode(&Changes(list.clone()).encode()).is_err(), "{list:?}");
    }
}
