//! Row 10: records, files and commits that the server adds, and old ones that it replays.

use crate::scene::{Refusal, assert_told, document, lagging, login_as, refuses, vault_of, world_behind};
use crate::world::{Device, NAME};
use lockstep_proto::api::vault::{CommitEntry, Entry, Page, PushCommit};
use lockstep_proto::cbor::{Bytes, Wire as _};
use lockstep_proto::commit::{Change, Changes, Commit};
use lockstep_proto::envelope::{self, KIND_DOCUMENT};
use lockstep_proto::id::{RecordId, Revision, Seq, VaultId};
use lockstep_proto::label;
use lockstep_proto::state::StateDigest;
use lockstep_tests::hostile::scenario::keys::own_keys;
use lockstep_tests::hostile::scenario::{At, rules};
use lockstep_tests::hostile::{Answer, Hostile, Rule};
use std::collections::BTreeMap;

const BACK: &[&str] = &["went back in time"];
const NOT_VALID: &[&str] = &["not valid"];
const LIST: &[&str] = &["record", "list", "--type", "note"];

#[test]
fn row_10_records_and_commits_that_the_server_adds() {
    let (world, hostile) = world_behind();
    let (_a, b) = lagging(&world);
    for name in ["record-added", "commit-of-the-server", "commit-replayed", "state-in-pages"] {
        let refusal = refuses(&hostile, &b, rules(name, &At::default()), LIST, (6, &[]));
        assert!(!refusal.out.contains("three"), "{name}: {refusal:?}");
    }
    let listed = b.ok(&["--json", "record", "list", "--type", "note"]).json();
    assert_eq!(listed.as_array().unwrap().len(), 2);
}

#[test]
fn row_10_files_that_the_server_adds() {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    document(&world, "f", b"1");
    a.backup("docs");
    let b = login_as(&world, "b");
    assert_eq!(b.snapshots().len(), 1);
    document(&world, "g", b"2");
    a.backup("docs");
    for name in ["record-added", "commit-of-the-server", "commit-replayed", "state-in-pages"] {
        for arguments in [&["snapshots"][..], &["ls"], &["restore", "out"]] {
            refuses(&hostile, &b, rules(name, &At::default()), arguments, (6, &[]));
            assert!(!world.path("out").exists());
        }
    }
    assert_eq!(b.snapshots().len(), 2);
}

/// Every commit of a vault that was pushed or served so far.
fn chain_of(hostile: &Hostile, vault: VaultId) -> BTreeMap<Seq, CommitEntry> {
    let pages = hostile.answers("GET /v1/vaults/{}/commits").into_iter().filter(Answer::is_success);
    let served = pages.flat_map(|page| Page::decode(&page.body).unwrap().commits);
    let pushed = pushes(hostile).into_iter().map(|(_, push)| {
        let changes = Some(push.changes);
        CommitEntry { commit: push.commit, changes }
    });
    let of_seq = |entry: CommitEntry| (Commit::decode(&entry.commit.bytes.0).unwrap(), entry);
    let all = served.chain(pushed).map(of_seq);
    all.filter(|(commit, _)| commit.vault == vault).map(|(commit, entry)| (commit.seq, entry)).collect()
}

/// A commit after the last one that is right in everything that a server can get right: place, links, log, change list, and
/// the state after it. It writes a record of the server's; a key of the server's signed it, in the last author's name.
fn forged(chain: &BTreeMap<Seq, CommitEntry>) -> (CommitEntry, Entry) {
    let (mut state, mut live) = (StateDigest::default(), BTreeMap::new());
    for (seq, entry) in chain {
        for change in Changes::decode(&entry.changes.as_ref().unwrap().0).unwrap().0 {
            let Some((record, revision, digest)) = change.version() else { continue };
            if let Some((revision, digest, seq)) = live.insert(record, (revision, digest, *seq)) {
                state.remove(record, revision, digest, seq);
            }
            state.add(record, revision, digest, *seq);
        }
    }
    let hash = |seq: Seq| Commit::hash_of(&chain[&seq].commit.bytes.0);
    let (last_seq, last) = chain.last_key_value().unwrap();
    assert_eq!(chain.len() as u64, last_seq.value() + 1, "the whole chain is here");
    let last = Commit::decode(&last.commit.bytes.0).unwrap();
    assert_eq!(state.checksum(), last.state, "the state is summed up as devices do it");

    let seq = last_seq.next();
    let (record, revision) = (RecordId::from_bytes([0xff; 16]), Revision::new(1));
    let envelope: Bytes = b"sealed by nobody".as_slice().into();
    let digest = envelope::digest(&envelope.0);
    state.add(record, revision, digest, seq);
    let changes =
        Changes(vec![Change::Put { record, revision, envelope: digest, blobs: Vec::new() }]).encode();
    let commit = Commit {
        seq,
        previous: hash(*last_seq),
        skip: hash(seq.skip_target()),
        changes: Changes::digest_of(&changes),
        state: state.checksum(),
        ..last
    };
    let commit = own_keys().sign(label::COMMIT, commit.encode());
    let commit = CommitEntry { commit, changes: Some(changes.into()) };
    (commit, Entry { seq, record, revision, kind: KIND_DOCUMENT, envelope })
}

/// Nothing but the signature tells this commit from one of the device in whose name it is.
#[test]
fn row_10_a_commit_that_is_right_but_for_its_signature() {
    let (world, hostile) = world_behind();
    let (a, b) = lagging(&world);
    let vault: VaultId = vault_of(&a, "files").parse().unwrap();
    let (commit, entry) = forged(&chain_of(&hostile, vault));
    let path = vault.to_string();
    let rule = Rule::answer_of::<Page>("forged", "GET /v1/vaults/{}/commits", move |request, page| {
        if !request.path.contains(&path) || page.commits.is_empty() {
            return false;
        }
        page.commits.push(commit.clone());
        page.entries.push(entry.clone());
        page.head_seq = entry.seq;
        true
    });
    let refusal = refuses(&hostile, &b, vec![rule], LIST, (6, &["not valid", "signature"]));
    assert!(!refusal.out.contains("three"), "{refusal:?}");
    let listed = b.ok(&["--json", "record", "list", "--type", "note"]).json();
    assert_eq!(listed.as_array().unwrap().len(), 2);
}

/// What was pushed so far.
fn pushes(hostile: &Hostile) -> Vec<(Commit, PushCommit)> {
    let pushed = hostile.requests("POST /v1/vaults/{}/commits");
    let pushed = pushed.iter().map(|request| PushCommit::decode(&request.body).unwrap());
    pushed.map(|push| (Commit::decode(&push.commit.bytes.0).unwrap(), push)).collect()
}

/// A snapshot that was listed once: its record as it was then, and the commit that wrote it.
#[derive(Clone)]
struct Old {
    entry: Entry,
    commit: CommitEntry,
}

/// The record that the last commit deleted, as an earlier one wrote it.
fn forgotten(hostile: &Hostile) -> Old {
    let pushes = pushes(hostile);
    let (_, last) = pushes.last().unwrap();
    let [Change::Tombstone { record, .. }, ..] = Changes::decode(&last.changes.0).unwrap().0[..] else {
        panic!("the last commit deletes no record")
    };
    let with_envelope = |(commit, push): &(Commit, PushCommit)| {
        let is_of = |bytes: &[u8]| envelope::decode(bytes).unwrap().1.record == record;
        let envelope = push.envelopes.iter().find(|envelope| is_of(&envelope.0))?.clone();
        let (_, header) = envelope::decode(&envelope.0).unwrap();
        let (seq, revision, kind) = (commit.seq, header.revision, header.kind);
        let changes = Some(push.changes.clone());
        let commit = CommitEntry { commit: push.commit.clone(), changes };
        Some(Old { entry: Entry { seq, record, revision, kind, envelope }, commit })
    };
    pushes.iter().find_map(with_envelope).unwrap()
}

/// How an old record is replayed.
#[derive(Debug, Clone, Copy)]
enum Replay {
    /// Its envelope in the place of what replaced it.
    Envelope,
    /// The whole entry in that place.
    Entry,
    /// The whole entry beside what replaced it, or alone where nothing of the record is wanted.
    Beside,
    /// Its commit as the next one, with the entry under that commit's number.
    Commit,
}

/// Replays it in every page that has commits of its vault.
fn replaying(old: &Old, how: Replay) -> Vec<Rule> {
    let old = old.clone();
    let vault = Commit::decode(&old.commit.commit.bytes.0).unwrap().vault.to_string();
    vec![Rule::answer_of::<Page>("replay", "GET /v1/vaults/{}/commits", move |request, page| {
        if !request.path.contains(&vault) || page.commits.is_empty() {
            return false;
        }
        let is_of = |entry: &&mut Entry| entry.record == old.entry.record;
        match how {
            Replay::Envelope | Replay::Entry => {
                let Some(entry) = page.entries.iter_mut().find(is_of) else { return false };
                if matches!(how, Replay::Entry) {
                    *entry = old.entry.clone();
                } else {
                    entry.envelope = old.entry.envelope.clone();
                }
            }
            Replay::Beside => page.entries.push(old.entry.clone()),
            Replay::Commit => {
                page.commits.push(old.commit.clone());
                page.head_seq = page.head_seq.next();
                page.entries.push(Entry { seq: page.head_seq, ..old.entry.clone() });
            }
        }
        // In the order that a page has to have, so that this is not what it is refused for.
        page.entries.sort_by_key(|entry| (entry.seq, entry.record));
        true
    })]
}

/// A snapshot that its owner took out of the list is replayed: to a device that has not seen that yet, to one that has,
/// and to a new one. It is never listed again, and nothing of it is restored.
#[test]
fn row_10_an_old_snapshot_that_is_replayed_is_never_listed() {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    document(&world, "f", b"old");
    let old_id = a.backup("docs");
    document(&world, "f", b"new");
    let new_id = a.backup("docs");
    let (b, c) = (login_as(&world, "b"), login_as(&world, "c"));
    assert_eq!((b.snapshots().len(), c.snapshots().len()), (2, 2));
    // What each writes of itself into the keyring comes to everybody before.
    for device in [&a, &b, &c, &a, &b, &c] {
        device.ok(&["status"]);
    }
    a.ok(&["forget", &old_id]);
    let old = forgotten(&hostile);
    // To b, which has not seen it yet: what it holds is what is printed, if anything is.
    for (how, texts) in
        [(Replay::Envelope, BACK), (Replay::Entry, BACK), (Replay::Beside, BACK), (Replay::Commit, NOT_VALID)]
    {
        refuses(&hostile, &b, replaying(&old, how), &["snapshots"], (6, texts));
    }
    // To c, which has: with the next page that it asks for.
    assert_eq!(listed(&c), [new_id.as_str()]);
    document(&world, "f", b"newest");
    let newest_id = a.backup("docs");
    for how in [Replay::Beside, Replay::Commit] {
        for arguments in [&["snapshots"][..], &["restore", "out"]] {
            let refusal = refuses(&hostile, &c, replaying(&old, how), arguments, (6, NOT_VALID));
            assert_not_listed(&refusal, &old_id);
            assert!(!world.path("out").exists());
        }
    }
    // To a new device, which verifies that it was deleted.
    let passphrase = world.text("passphrase");
    for (how, texts) in
        [(Replay::Envelope, BACK), (Replay::Entry, BACK), (Replay::Beside, BACK), (Replay::Commit, NOT_VALID)]
    {
        let new = world.device(&format!("new-{how:?}"));
        new.ok(&["login", "--name", NAME, "--passphrase-file", &passphrase]);
        let hits = hostile.arm_all(replaying(&old, how));
        let done = new.run(&["snapshots"]).ends(6, texts);
        hostile.disarm();
        assert_told(&hits);
        assert_eq!(done.out, "there is no snapshot yet\n", "{how:?}: {done:#?}");
        assert_eq!(listed(&new), [new_id.clone(), newest_id.clone()]);
    }
    for device in [&a, &b, &c] {
        assert_eq!(listed(device), [new_id.clone(), newest_id.clone()]);
    }
}

fn assert_not_listed(refusal: &Refusal, id: &str) {
    assert!(!refusal.out.contains(&id[..8]), "{refusal:?}");
}

/// Ids of the snapshots, oldest first.
fn listed(device: &Device) -> Vec<String> {
    let snapshots = device.snapshots();
    snapshots.iter().map(|one| one["snapshot"].as_str().unwrap().to_owned()).collect()
}
