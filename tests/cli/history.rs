//! Snapshots over time: what changed, what went, and how it was before.

use crate::program::poll;
use crate::tree::{assert_trees, noise, set_time, tree, write};
use crate::world::World;
use std::time::{SystemTime, UNIX_EPOCH};

fn now_utc() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn an_old_snapshot_gives_the_old_bytes() {
    let world = World::new();
    let a = world.signup("a");
    let docs = world.path("docs");
    write(&docs.join("inline"), "old");
    write(&docs.join("framed"), noise(1, 100_000));
    write(&docs.join("gone"), "gone");
    write(&docs.join("sub/gone too"), noise(2, 9000));
    write(&docs.join("kept"), "kept");
    std::os::unix::fs::symlink("kept", docs.join("link")).unwrap();
    let first = a.backup("docs");
    let before = tree(&docs);

    // Same size, and a file becomes a folder, a link a file.
    std::fs::write(docs.join("inline"), "new").unwrap();
    std::fs::write(docs.join("framed"), noise(3, 100_000)).unwrap();
    std::fs::remove_file(docs.join("gone")).unwrap();
    write(&docs.join("gone/now a folder"), "1");
    std::fs::remove_dir_all(docs.join("sub")).unwrap();
    std::fs::remove_file(docs.join("link")).unwrap();
    write(&docs.join("link"), "no link any more");
    let second = a.ok(&["--json", "backup", "docs", "--tag", "t1", "--tag", "t2"]).json();
    assert_eq!(second[0]["deleted"], 2, "{second}");
    let after = tree(&docs);

    let b = world.login("b");
    for device in [&a, &b] {
        for (snapshot, expected) in
            [(first.as_str(), &before), (second[0]["snapshot"].as_str().unwrap(), &after)]
        {
            let out = world.path("out");
            device.ok(&["restore", "out", "--snapshot", &snapshot[..12]]);
            assert_trees(expected, &tree(&out.join("docs")));
            std::fs::remove_dir_all(out).unwrap();
        }
    }
    let list = b.snapshots();
    assert_eq!(list.len(), 2);
    assert_eq!(list[0]["tags"], serde_json::json!([]));
    assert_eq!(list[1]["tags"], serde_json::json!(["t1", "t2"]));
    assert_eq!((&list[0]["snapshot"], &list[0]["files"]), (&first.clone().into(), &5.into()));
    assert!(b.ok(&["snapshots"]).out.contains("#t1 #t2"));
    let listed = b.ok(&["ls", "--snapshot", &first, "docs/gone"]).out;
    assert!(listed.contains("docs/gone") && !listed.contains('/'.to_string().repeat(2).as_str()));
    b.run(&["ls", "--snapshot", "ffffffffffff"]).ends(11, &["there is no snapshot"]);
    b.run(&["restore", "out", "--snapshot", "x"]).ends(11, &["there is no snapshot"]);
    b.run(&["restore", "out", "--snapshot", ""]).ends(2, &["several"]);
}

#[test]
fn a_time_picks_the_snapshot_that_was_newest_then() {
    let world = World::new();
    let a = world.signup("a");
    let docs = world.path("docs");
    write(&docs.join("f"), "old");
    a.backup("docs");
    let end = a.snapshots()[0]["end_utc"].as_u64().unwrap();
    assert!(poll(10, || now_utc() > end));
    std::fs::write(docs.join("f"), "new").unwrap();
    write(&world.path("late/g"), "late");
    a.ok(&["backup", "docs", "late"]);
    let at = |time: &str| {
        let out = world.path("out-at");
        let _ = std::fs::remove_dir_all(&out);
        a.ok(&["restore", "out-at", "--at", time]);
        std::fs::read_to_string(out.join("docs/f")).unwrap()
    };
    assert_eq!(at(&end.to_string()), "old");
    assert!(!world.path("out-at/late").exists());
    assert_eq!(at("9000-01-01"), "new");
    assert_eq!(at(&a.snapshots()[1]["end_utc"].to_string()), "new");
    a.run(&["restore", "out", "--at", "2001-01-01"]).ends(11, &["at or before that time"]);
    a.run(&["restore", "out", "--at", "yesterday"]).ends(2, &["yesterday"]);
    a.run(&["restore", "out", "--at", "1", "--snapshot", "abcd"]).ends(2, &[]);
    assert!(!world.path("out").exists());
}

#[test]
fn a_touched_file_is_not_sent_again() {
    let world = World::new();
    let a = world.signup("a");
    let docs = world.path("docs");
    write(&docs.join("f"), noise(1, 2_000_000));
    a.backup("docs");
    let size = crate::tree::size(&world.server.objects());
    set_time(&docs.join("f"), 1_500_000_000, 42);
    let again = a.ok(&["--json", "backup", "docs"]).json();
    assert_eq!(again[0]["changed"], 1);
    assert_eq!(crate::tree::size(&world.server.objects()), size, "the contents were sent again");
    assert_trees(&tree(&docs), &tree(&a.restore("out").join("docs")));
}

#[test]
fn parts_of_a_snapshot_are_listed_and_restored() {
    let world = World::new();
    let a = world.signup("a");
    for name in ["docs/a", "docs/sub/b", "docs/sub/deep/c", "docs/subway", "other/d"] {
        write(&world.path(name), name);
    }
    a.ok(&["backup", "docs", "other"]);
    let paths = |arguments: &[&str]| -> Vec<String> {
        let list = a.ok(arguments).json();
        list.as_array().unwrap().iter().map(|entry| entry["path"].as_str().unwrap().to_owned()).collect()
    };
    let below = paths(&["--json", "ls", "docs/sub"]);
    assert_eq!(below, ["docs/sub", "docs/sub/b", "docs/sub/deep", "docs/sub/deep/c"]);
    assert_eq!(paths(&["--json", "ls", "docs/sub/"]), below);
    assert_eq!(paths(&["--json", "ls"]).len(), 9);
    a.run(&["ls", "nowhere"]).ends(11, &[]);
    a.ok(&["restore", "out", "docs/sub", "other/d"]);
    let found = tree(&world.path("out"));
    let names: Vec<&str> = found.keys().map(|name| std::str::from_utf8(name).unwrap()).collect();
    let expected =
        ["", "docs", "docs/sub", "docs/sub/b", "docs/sub/deep", "docs/sub/deep/c", "other", "other/d"];
    assert_eq!(names, expected);
    a.run(&["restore", "out", "nowhere"]).ends(11, &["no snapshot has these paths"]);
}

#[test]
fn vaults_are_apart() {
    let world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/f"), "1");
    a.ok(&["vault", "create", "second"]);
    a.run(&["vault", "create", "second"]).ends(2, &["second"]);
    a.ok(&["backup", "docs", "--vault", "second"]);
    a.ok(&["backup", "docs", "--vault", "made on first use"]);
    let b = world.login("b");
    let names: Vec<String> = b
        .ok(&["--json", "vault", "list"])
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|vault| vault["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["made on first use", "second"]);
    b.ok(&["restore", "out", "--vault", "second"]);
    assert_eq!(std::fs::read(world.path("out/docs/f")).unwrap(), b"1");
    b.run(&["snapshots"]).ends(11, &["there is no vault \"files\""]);
    b.run(&["check", "--vault", "nowhere"]).ends(11, &["nowhere"]);
}
