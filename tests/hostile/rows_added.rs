//! Row 10: records, files and commits that the server adds, and old ones that it replays.

use crate::scene::{Refusal, assert_told, document, lagging, login_as, refuses, world_behind};
use crate::world::{Device, NAME};
use lockstep_proto::api::vault::{CommitEntry, Entry, Page, PushCommit};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::{Change, Changes, Commit};
use lockstep_proto::envelope;
use lockstep_tests::hostile::scenario::{At, rules};
use lockstep_tests::hostile::{Hostile, Rule};

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
    assert_eq!(listed(&c), [new_id.clone()]);
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
