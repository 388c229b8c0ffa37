//! A server whose disk lies: every damage is noticed and named, and nothing damaged gets its real name.

use crate::program::Done;
use crate::server::Server;
use crate::tree::{assert_no_parts, noise, write};
use crate::world::{Device, World};
use std::path::{Path, PathBuf};

/// Backs up a good file and a bad one whose contents lie in segments of their own; gives those.
fn two_files(world: &World, bytes: usize) -> (Device, Vec<PathBuf>) {
    let a = world.signup("a");
    write(&world.path("docs/good"), noise(1, bytes));
    a.backup("docs");
    let before = world.server.segments();
    write(&world.path("docs/bad"), noise(2, bytes));
    a.backup("docs");
    let new: Vec<PathBuf> =
        world.server.segments().into_iter().filter(|path| !before.contains(path)).collect();
    assert!(!new.is_empty());
    (a, new)
}

fn flip(path: &Path, from_end: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    let place = bytes.len() - 1 - from_end as usize;
    bytes[place] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn check_damaged_object(bytes: usize, damage: impl Fn(&Path)) {
    let mut world = World::new();
    let (a, segments) = two_files(&world, bytes);
    world.server.stop();
    damage(segments.last().unwrap());
    world.server.restart();
    a.run(&["restore", "out"]).ends(3, &["docs/bad"]);
    let out = world.path("out/docs");
    assert_eq!(std::fs::read(out.join("good")).unwrap(), noise(1, bytes));
    assert!(!out.join("bad").exists());
    assert_no_parts(&world.path("out"));
    let done = a.run(&["check", "--read-data"]);
    assert_eq!(done.status, Some(7), "{done:?}");
    assert!(done.out.contains("PROBLEM") && done.out.contains("bad"), "{done:?}");
    // The records are whole; who does not read contents sees nothing wrong.
    a.ok(&["check"]);
}

#[test]
fn a_truncated_segment_is_named() {
    let cut = |path: &Path| {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    };
    check_damaged_object(200_000, cut);
    check_damaged_object(4_500_000, cut);
}

#[test]
fn a_flipped_bit_is_named() {
    check_damaged_object(200_000, |path| flip(path, 0));
    check_damaged_object(200_000, |path| flip(path, path.metadata().unwrap().len() - 1));
    check_damaged_object(4_500_000, |path| flip(path, 100));
}

#[test]
fn a_missing_segment_is_named() {
    check_damaged_object(200_000, |path| std::fs::remove_file(path).unwrap());
    check_damaged_object(4_500_000, |path| std::fs::write(path, "").unwrap());
}

#[test]
fn a_segment_in_the_place_of_another_is_named() {
    let mut world = World::new();
    let (a, segments) = two_files(&world, 200_000);
    let good = world.server.segments().into_iter().find(|path| !segments.contains(path)).unwrap();
    world.server.stop();
    std::fs::copy(good, &segments[0]).unwrap();
    world.server.restart();
    a.run(&["restore", "out"]).ends(3, &["docs/bad"]);
    assert!(!world.path("out/docs/bad").exists());
}

/// A world with some records, and what is done to the database while the server is down. What the two
/// devices then say: `check` of one that saw everything, and the first command of a new one.
fn damaged(damage: impl Fn(&Server, i64)) -> (Done, Done) {
    let mut world = World::new();
    let a = world.signup("a");
    for number in 0..5 {
        write(&world.path(&format!("docs/{number}")), format!("contents {number}"));
        a.backup("docs");
    }
    world.server.stop();
    let text = "SELECT id FROM vault ORDER BY records DESC LIMIT 1";
    let vault: i64 = world.server.database().query_row(text, [], |row| row.get(0)).unwrap();
    damage(&world.server, vault);
    world.server.restart();
    let check = a.run(&["check"]);
    let b = world.login("b");
    let restore = b.run(&["restore", "out"]);
    assert!(crate::tree::files(&world.path("out")).is_empty(), "something of it was restored");
    (check, restore)
}

fn assert_found(done: &Done, text: &str) {
    assert!(matches!(done.status, Some(6 | 7)), "{done:#?}");
    assert!(format!("{}{}", done.out, done.err).contains(text), "\"{text}\" is not named: {done:#?}");
}

/// The newest two versions that nothing replaced, of a vault: a condition that finds it, and its envelope.
fn newest(server: &Server, vault: i64) -> Vec<(String, Vec<u8>)> {
    let text = "SELECT seq, record, envelope FROM version WHERE vault = ?1 AND replaced IS NULL
                ORDER BY seq DESC, record LIMIT 2";
    let database = server.database();
    let mut statement = database.prepare(text).unwrap();
    let rows = statement.query_map([vault], |row| {
        let (seq, record): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let is_it = format!("vault = {vault} AND seq = {seq} AND record = {}", server.literal(&record));
        Ok((is_it, row.get(2)?))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn set_envelope(server: &Server, is_it: &str, envelope: &[u8]) {
    let text = format!("UPDATE version SET envelope = {} WHERE {is_it}", server.literal(envelope));
    assert_eq!(server.change(&text), 1);
}

#[test]
fn a_deleted_version_is_noticed() {
    let (check, restore) = damaged(|server, vault| {
        let is_it = &newest(server, vault)[0].0;
        assert_eq!(server.change(&format!("DELETE FROM version WHERE {is_it}")), 1);
    });
    assert_found(&check, "missing at the server");
    assert_found(&restore, "record");
}

#[test]
fn swapped_envelopes_are_noticed() {
    let (check, restore) = damaged(|server, vault| {
        let rows = newest(server, vault);
        set_envelope(server, &rows[0].0, &rows[1].1);
        set_envelope(server, &rows[1].0, &rows[0].1);
    });
    assert_found(&check, "damaged at the server");
    assert_found(&restore, "record");
}

#[test]
fn a_flipped_envelope_is_noticed() {
    let (check, restore) = damaged(|server, vault| {
        let (is_it, mut envelope) = newest(server, vault).swap_remove(0);
        *envelope.last_mut().unwrap() ^= 1;
        set_envelope(server, &is_it, &envelope);
    });
    assert_found(&check, "damaged at the server");
    assert_found(&restore, "record");
}

fn edit_commit(server: &Server, vault: i64, column: &str) {
    let text = format!("SELECT {column} FROM commit_header WHERE vault = ?1 AND seq = 2");
    let mut bytes: Vec<u8> = server.database().query_row(&text, [vault], |row| row.get(0)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let bytes = server.literal(&bytes);
    let text = format!("UPDATE commit_header SET {column} = {bytes} WHERE vault = {vault} AND seq = 2");
    assert_eq!(server.change(&text), 1);
}

#[test]
fn an_edited_commit_is_noticed() {
    for column in ["bytes", "signature", "changes"] {
        let (check, restore) = damaged(|server, vault| edit_commit(server, vault, column));
        assert!(matches!(restore.status, Some(6 | 7)), "{column}: {restore:#?}");
        assert!(matches!(check.status, Some(6 | 7)), "{column}: {check:#?}");
    }
}

#[test]
fn a_removed_commit_is_noticed() {
    let (check, restore) = damaged(|server, vault| {
        let text = format!("DELETE FROM commit_header WHERE vault = {vault} AND seq = 2");
        assert_eq!(server.change(&text), 1);
    });
    assert!(matches!(restore.status, Some(4 | 6 | 7)), "{restore:#?}");
    assert!(matches!(check.status, Some(4 | 6 | 7)), "{check:#?}");
}

/// Older versions are part of older snapshots: a check that says that nothing is wrong has looked at them.
#[test]
fn damage_to_an_older_snapshot_is_noticed() {
    let mut world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/f"), noise(1, 100_000));
    let first = a.backup("docs");
    let segments = world.server.segments();
    write(&world.path("docs/f"), noise(2, 100_000));
    a.backup("docs");
    world.server.stop();
    flip(&segments[0], 0);
    world.server.restart();
    a.run(&["restore", "old", "--snapshot", &first]).ends(3, &["docs/f"]);
    a.ok(&["restore", "new"]);
    let done = a.run(&["check", "--read-data"]);
    assert_eq!(done.status, Some(7), "{done:#?}");
}

#[test]
fn a_missing_older_version_is_noticed() {
    let mut world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/f"), "old");
    let first = a.backup("docs");
    write(&world.path("docs/f"), "newer");
    a.backup("docs");
    world.server.stop();
    let gone = world.server.change(
        "DELETE FROM version WHERE replaced IS NOT NULL AND vault = (SELECT id FROM vault ORDER BY records DESC LIMIT 1)",
    );
    assert!(gone > 0);
    world.server.restart();
    let done = a.run(&["restore", "old", "--snapshot", &first]);
    assert!(matches!(done.status, Some(3 | 6 | 7)), "{done:#?}");
    assert!(!world.path("old/docs/f").exists());
    let done = a.run(&["check"]);
    assert!(matches!(done.status, Some(6 | 7)), "{done:#?}");
}
