//! One file over time, two snapshots side by side, snapshots that are forgotten, and a local database that says
//! of the past what nobody signed.

use crate::program::{Done, poll};
use crate::tree::{assert_same, assert_trees, files, noise, set_mode, set_time, size, tree, write};
use crate::world::{Device, World};
use serde_json::Value;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

fn lines(done: &Done) -> Vec<&str> {
    done.out.lines().collect()
}

fn pins(world: &World) -> i64 {
    world.server.database().query_row("SELECT count(*) FROM pin", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_forgotten_snapshot_is_gone_for_every_device_and_nothing_else_is() {
    let world = World::new();
    let a = world.signup("a");
    let docs = world.path("docs");
    write(&docs.join("f"), noise(1, 100_000));
    let first = a.backup("docs");
    let before = tree(&docs);
    std::fs::write(docs.join("f"), noise(2, 100_000)).unwrap();
    let second = a.backup("docs");
    let third = a.backup("docs");
    assert_eq!(pins(&world), 3);

    let done = a.ok(&["forget", &second[..12]]);
    assert!(done.out.contains(&second[..12]) && done.out.contains("docs"), "{done:?}");
    assert_eq!(pins(&world), 2);
    let b = world.login("b");
    for device in [&a, &b] {
        let left: Vec<Value> = device.snapshots().iter().map(|found| found["snapshot"].clone()).collect();
        assert_eq!(left, [first.as_str(), third.as_str()]);
        device.run(&["ls", "--snapshot", &second]).ends(11, &["there is no snapshot"]);
        device.run(&["restore", "out", "--snapshot", &second]).ends(11, &["there is no snapshot"]);
        device.run(&["forget", &second]).ends(11, &["there is no snapshot"]);
    }
    // What others hold stays, and the state stays provable.
    b.ok(&["restore", "old", "--snapshot", &first]);
    assert_trees(&before, &tree(&world.path("old/docs")));
    b.ok(&["check", "--read-data"]);

    // One that is not there keeps the others from being forgotten, too.
    b.run(&["forget", &first, "ffffffffffff"]).ends(11, &["ffffffffffff"]);
    assert_eq!(b.snapshots().len(), 2);
    // Several at once, one named twice.
    let done = b.ok(&["--json", "forget", &first, &third, &first[..20]]).json();
    assert_eq!((done["forgotten"].as_array().unwrap().len(), &done["sent"]), (2, &true.into()));
    assert!(a.snapshots().is_empty());
    assert_eq!(pins(&world), 0);
    a.run(&["restore", "out"]).ends(11, &["no finished snapshot"]);
    a.run(&["forget"]).ends(2, &["SNAPSHOT"]);
    assert!(!world.path("out").exists());
}

#[test]
fn after_forgetting_the_newest_snapshot_the_next_backup_sends_only_what_changed() {
    let world = World::new();
    let a = world.signup("a");
    let docs = world.path("docs");
    for number in 0..5 {
        write(&docs.join(number.to_string()), noise(number, 60_000));
    }
    let first = a.backup("docs");
    let objects = size(&world.server.objects());
    a.ok(&["forget", &first]);
    let again = a.ok(&["--json", "backup", "docs"]).json();
    assert_eq!((&again[0]["changed"], &again[0]["deleted"]), (&0.into(), &0.into()), "{again}");
    assert_eq!(size(&world.server.objects()), objects, "contents were sent again");
    assert_eq!(a.snapshots().len(), 1);
    assert_same(&docs, &a.restore("out").join("docs"));
}

#[test]
fn forgetting_without_the_server_waits_for_it() {
    let mut world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/f"), "1");
    let first = a.backup("docs");
    world.server.stop();
    a.run(&["forget", &first]).ends(0, &["kept on this device"]);
    a.run(&["forget", &first]).ends(11, &["there is no snapshot"]);
    world.server.restart();
    assert_eq!(pins(&world), 1);
    a.ok(&["status"]);
    assert_eq!(pins(&world), 0);
    assert!(world.login("b").snapshots().is_empty());
}

#[test]
fn a_diff_tells_contents_from_metadata() {
    let world = World::new();
    let a = world.signup("a");
    let docs = world.path("docs");
    for (number, name) in ["same", "inline", "framed", "touched", "gone", "mode"].into_iter().enumerate() {
        let bytes = if name == "framed" { 100_000 } else { 100 };
        write(&docs.join(name), noise(number as u64, bytes));
    }
    std::os::unix::fs::symlink("same", docs.join("link")).unwrap();
    write(&docs.join("becomes a folder"), "1");
    let first = a.backup("docs");
    std::fs::write(docs.join("inline"), noise(20, 100)).unwrap();
    std::fs::write(docs.join("framed"), noise(21, 100_000)).unwrap();
    set_time(&docs.join("touched"), 1_500_000_000, 42);
    set_mode(&docs.join("mode"), 0o600);
    std::fs::remove_file(docs.join("gone")).unwrap();
    std::fs::remove_file(docs.join("link")).unwrap();
    std::os::unix::fs::symlink("inline", docs.join("link")).unwrap();
    std::fs::remove_file(docs.join("becomes a folder")).unwrap();
    write(&docs.join("becomes a folder/new"), "2");
    set_time(&docs, 1_600_000_000, 0);
    let second = a.backup("docs");
    let b = world.login("b");
    let done = b.ok(&["diff", &first[..10], &second[..10]]);
    let expected = [
        "m docs",
        "M docs/becomes a folder",
        "+ docs/becomes a folder/new",
        "M docs/framed",
        "- docs/gone",
        "M docs/inline",
        "M docs/link",
        "m docs/mode",
        "m docs/touched",
    ];
    let found = lines(&done);
    assert_eq!(found[..expected.len()], expected, "{done:?}");
    assert!(
        found[9].starts_with("1 added (+), 1 removed (-), 4 with other contents (M), 3 with only"),
        "{done:?}"
    );
    assert!(found[9].ends_with("1 unchanged") && found.len() == 10, "{done:?}");
    // The other way round, + and - change places.
    let back = b.ok(&["--json", "diff", &second, &first]).json();
    assert_eq!((&back["added"], &back["removed"], &back["one_source"]), (&1.into(), &1.into(), &true.into()));
    let gone = back["differences"].as_array().unwrap().iter().find(|entry| entry["path"] == "docs/gone");
    assert_eq!(gone.unwrap()["change"], "added");
    assert_eq!((&gone.unwrap()["before"], &gone.unwrap()["after"]["size"]), (&Value::Null, &100.into()));
    let same = b.ok(&["--json", "diff", &first, &first]).json();
    assert_eq!((same["differences"].as_array().unwrap().len(), &same["unchanged"]), (0, &9.into()));
    b.run(&["diff", &first, "ffffffff"]).ends(11, &["there is no snapshot"]);
    b.run(&["diff", &first, ""]).ends(2, &["several"]);
    b.run(&["diff", &first]).ends(2, &["<NEW>"]);
}

#[test]
fn snapshots_of_two_sources_are_compared_below_their_roots() {
    let world = World::new();
    let a = world.signup("a");
    for name in ["x", "y"] {
        let root = world.path(name);
        write(&root.join("same"), noise(1, 50_000));
        write(&root.join("other"), name);
        write(&root.join(format!("only in {name}")), "1");
        for below in ["same", "other", ""] {
            set_time(&root.join(below), 1_000_000_000, 0);
        }
    }
    let (x, y) = (a.backup("x"), a.backup("y"));
    let done = a.run(&["diff", &x, &y]).ends(0, &["two sources", "below the root"]);
    assert_eq!(lines(&done)[..3], ["- only in x", "+ only in y", "M other"], "{done:?}");
    assert!(lines(&done)[3].contains("2 unchanged") && lines(&done).len() == 4, "{done:?}");
}

#[test]
fn the_history_of_a_file_is_what_snapshots_hold_of_it() {
    let world = World::new();
    let a = world.signup("a");
    let (docs, f) = (world.path("docs"), world.path("docs/sub/f"));
    write(&docs.join("other"), "1");
    a.backup("docs");
    write(&f, "one");
    set_time(&f, 1_000_000_000, 5);
    let first = a.backup("docs");
    write(&docs.join("other"), "2");
    let second = a.backup("docs");
    set_time(&f, 1_100_000_000, 0);
    let third = a.backup("docs");
    std::fs::remove_file(&f).unwrap();
    let fourth = a.backup("docs");
    write(&f, noise(1, 70_000));
    let fifth = a.backup("docs");
    std::fs::write(&f, noise(2, 80_000)).unwrap();
    let sixth = a.backup("docs");

    let b = world.login("b");
    let history = |device: &Device| device.ok(&["--json", "history", "docs/sub/f"]).json();
    let found = history(&b);
    assert_eq!(found, history(&a));
    let found = found.as_array().unwrap();
    let row = |entry: &Value| {
        let ids: Vec<String> =
            entry["snapshots"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
        (entry["change"].as_str().unwrap().to_owned(), entry["size"].as_u64(), ids)
    };
    let expected = [
        ("contents", Some(80_000), vec![&sixth]),
        ("added", Some(70_000), vec![&fifth]),
        ("removed", None, vec![&fourth]),
        ("metadata", Some(3), vec![&third]),
        ("added", Some(3), vec![&first, &second]),
    ];
    for (entry, (change, size, ids)) in found.iter().zip(&expected) {
        let ids: Vec<String> = ids.iter().map(|id| (*id).clone()).collect();
        assert_eq!(row(entry), ((*change).to_owned(), *size, ids), "{found:#?}");
    }
    assert_eq!(found.len(), 5);
    assert_eq!(found[4]["mtime"], serde_json::json!([1_000_000_000, 5]));
    assert_eq!(
        (&found[2]["deleted"], &found[4]["kind"], &found[2]["kind"]),
        (&true.into(), &"file".into(), &Value::Null)
    );
    let ends: Vec<u64> = found.iter().map(|entry| entry["end_utc"].as_u64().unwrap()).collect();
    assert!(ends.is_sorted_by(|newer, older| newer >= older), "{ends:?}");
    assert_eq!(found[4]["end_utc"], a.snapshots()[1]["end_utc"]);

    let done = a.ok(&["history", "docs/sub/f/"]);
    let text = lines(&done);
    for (line, words) in text.iter().zip(["contents changed", "new", "deleted", "only time or mode", "new"]) {
        assert!(line.contains(words), "{done:?}");
    }
    assert!(text[4].contains(&first[..12]) && text[4].contains(&second[..12]), "{done:?}");
    // A folder and a root have one, too.
    assert!(a.ok(&["history", "docs/sub"]).out.contains("folder"));
    assert_eq!(a.ok(&["--json", "history", "docs"]).json()[0]["kind"], "folder");

    // What is forgotten is no part of it: the version that only it held is not listed any more.
    a.ok(&["forget", &third]);
    let left = history(&b);
    assert_eq!(left.as_array().unwrap().len(), 4, "{left:#}");
    a.run(&["history", "docs/sub/nothing"]).ends(11, &["no finished snapshot has ever held", "lockstep ls"]);
    a.run(&["history", "nowhere/f"]).ends(11, &["there is no source \"nowhere\"", "lockstep snapshots"]);
    a.run(&["history", "/docs/sub/f"]).ends(2, &["lockstep ls"]);
    a.run(&["history", "docs/../docs/sub/f"]).ends(2, &["lockstep ls"]);
}

/// A server that does not have an old version any more is named; the rest is shown.
#[test]
fn a_withheld_version_is_named_in_the_history() {
    let mut world = World::new();
    let a = world.signup("a");
    for text in ["one", "two", "three"] {
        write(&world.path("docs/f"), text);
        a.backup("docs");
        a.put("n", &format!("\"{text}\"")).ok();
    }
    world.server.stop();
    let text = "DELETE FROM version WHERE replaced IS NOT NULL AND vault = (SELECT id FROM vault ORDER BY records DESC LIMIT 1)";
    assert!(world.server.change(text) > 0);
    world.server.restart();
    let done = a.run(&["history", "docs/f"]).ends(6, &["withholds"]);
    assert!(
        lines(&done)[0].contains("contents changed") && done.out.contains("can not be shown"),
        "{done:?}"
    );
    let done = a.run(&["record", "history", "--type", "note", "--id", "n"]).ends(6, &["withholds"]);
    assert!(done.out.contains("\"three\"") && done.out.contains("not shown by the server"), "{done:?}");
}

/// Two snapshots, with a file that changed, one that went and one that stayed.
fn two_states() -> (World, Device, String, String) {
    let world = World::new();
    let a = world.signup("a");
    let docs = world.path("docs");
    for name in ["changed", "gone", "kept"] {
        write(&docs.join(name), format!("first {name}"));
    }
    let first = a.backup("docs");
    std::fs::write(docs.join("changed"), "second").unwrap();
    std::fs::remove_file(docs.join("gone")).unwrap();
    let second = a.backup("docs");
    (world, a, first, second)
}

fn database(device: &Device) -> std::path::PathBuf {
    device.home.join("replica.sqlite")
}

fn put_back(device: &Device, copy: &Path) {
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(device.home.join(format!("replica.sqlite{suffix}")));
    }
    std::fs::copy(copy, database(device)).unwrap();
}

#[test]
fn a_local_database_that_was_changed_is_refused() {
    let (world, a, first, second) = two_states();
    let copy = world.path("replica copy");
    std::fs::copy(database(&a), &copy).unwrap();
    // The files' vault, and in it a version that was replaced since the first snapshot, and what replaced it.
    let listed = a.ok(&["--json", "vault", "list"]).json();
    let id = listed.as_array().unwrap().iter().find(|entry| entry["name"] == "files").unwrap();
    let files_vault = format!(
        "(SELECT id FROM vault WHERE lower(hex(vault)) = '{}')",
        id["vault"].as_str().unwrap().replace('-', "")
    );
    let old = format!(
        "vault = {files_vault} AND (seq, record) IN (SELECT previous_seq, record FROM version WHERE previous_seq IS NOT NULL AND vault = {files_vault} AND kind = 1 AND revision = 2)"
    );
    let kept = format!("vault = {files_vault} AND revision = 1 AND kind = 1");
    let new = format!("vault = {files_vault} AND revision = 2");
    let tombstone = format!("{new} AND kind = 2");
    let mut tampers = vec![
        format!("DELETE FROM version WHERE {old}"),
        format!("UPDATE version SET digest = zeroblob(32) WHERE {old}"),
        format!("UPDATE version SET revision = 7 WHERE {old}"),
        format!("UPDATE version SET kind = 2 WHERE {old}"),
        format!("UPDATE version SET previous_seq = NULL WHERE {new}"),
        format!("UPDATE version SET previous_seq = seq WHERE {new}"),
        format!("DELETE FROM version WHERE {new}"),
        format!(
            "UPDATE record SET kind = 2 WHERE {kept} AND record IN (SELECT record FROM record WHERE {kept} AND group_tag = (SELECT group_tag FROM record WHERE {tombstone}))"
        ),
        format!("UPDATE record SET digest = zeroblob(32) WHERE {new}"),
        format!("UPDATE record SET seq = seq - 1 WHERE {tombstone}"),
        format!(
            "UPDATE commit_row SET bytes = (SELECT bytes FROM commit_row WHERE vault = {files_vault} AND seq = 3), signature = (SELECT signature FROM commit_row WHERE vault = {files_vault} AND seq = 3) WHERE vault = {files_vault} AND seq = 2"
        ),
    ];
    // The source, a file and both snapshots, one at a time.
    tampers.extend((0..4).map(|skip| {
        format!("DELETE FROM record WHERE {kept} AND record = (SELECT record FROM record WHERE {kept} ORDER BY record LIMIT 1 OFFSET {skip})")
    }));
    let at = a.snapshots()[0]["end_utc"].as_u64().unwrap();
    let commands = [
        vec!["restore", "out", "--snapshot", &first],
        vec!["ls", "--snapshot", &first],
        vec!["diff", &first, &second],
    ];
    for tamper in &tampers {
        let connection = rusqlite::Connection::open(database(&a)).unwrap();
        assert!(connection.execute(tamper, []).unwrap() > 0, "{tamper}");
        drop(connection);
        for command in &commands {
            let done = a.run(command);
            assert_eq!(done.status, Some(7), "{tamper}: {done:#?}");
        }
        assert!(files(&world.path("out")).is_empty(), "{tamper}");
        put_back(&a, &copy);
    }
    // And as it was, it is good again.
    for command in &commands {
        a.ok(command);
    }
    a.ok(&["restore", "by time", "--at", &at.to_string()]);
}

/// A time picks complete snapshots, and they are checked as those that are named.
#[test]
fn a_point_in_time_is_checked_against_what_was_signed() {
    let (world, a, _, _) = two_states();
    let end = a.snapshots()[1]["end_utc"].as_u64().unwrap();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(poll(10, || now() > end));
    let before = tree(&world.path("docs"));
    std::fs::write(world.path("docs/changed"), "third").unwrap();
    // A run that does not finish is no snapshot: its files are not what a later time gives.
    a.backup("docs");
    let third = a.snapshots()[2]["snapshot"].as_str().unwrap().to_owned();
    a.ok(&["restore", "then", "--at", &end.to_string()]);
    assert_trees(&before, &tree(&world.path("then/docs")));
    a.ok(&["forget", &third]);
    a.ok(&["restore", "late", "--at", "9000-01-01"]);
    assert_trees(&before, &tree(&world.path("late/docs")));
    let connection = rusqlite::Connection::open(database(&a)).unwrap();
    let text = "UPDATE version SET digest = zeroblob(32) WHERE revision = 2";
    assert!(connection.execute(text, []).unwrap() > 0);
    drop(connection);
    let done = a.run(&["restore", "out", "--at", &end.to_string()]);
    done.ends(7, &["the local database is damaged", "signed"]);
    assert!(files(&world.path("out")).is_empty());
}
