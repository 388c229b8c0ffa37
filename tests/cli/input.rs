//! Standard input as a file of its own.

use crate::full::Small;
use crate::program::{Running, poll};
use crate::tree::noise;
use crate::world::{Device, World};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;

/// Runs a backup of what is on standard input.
fn backup(device: &Device, name: &str, input: impl Into<Stdio>) -> Running {
    device.start_with(&["--json", "backup", "--stdin", name], input.into())
}

fn file_of(world: &World, name: &str, contents: &[u8]) -> File {
    std::fs::write(world.path(name), contents).unwrap();
    File::open(world.path(name)).unwrap()
}

#[track_caller]
fn assert_nothing_left(device: &Device) {
    assert!(!device.home.join("input").exists());
}

#[test]
fn standard_input_becomes_one_file_with_snapshots_of_its_own() {
    let world = World::new();
    let a = world.signup("a");
    // Inline, framed, in parts.
    let versions = [b"small".to_vec(), noise(1, 300_000), noise(2, 9_000_000)];
    let mut snapshots = Vec::new();
    for contents in &versions {
        let done = backup(&a, "db.sql", file_of(&world, "in", contents)).done().ok();
        let one = done.json()[0].clone();
        assert_eq!((&one["root"], &one["files"]), (&"stdin:db.sql".into(), &1.into()), "{done:?}");
        snapshots.push(one["snapshot"].as_str().unwrap().to_owned());
        assert_nothing_left(&a);
    }
    // The same again is not sent again, and is a snapshot all the same.
    backup(&a, "db.sql", File::open(world.path("in")).unwrap()).done().ok();
    let listed = a.snapshots();
    assert_eq!(listed.len(), 4);
    let roots_and_names = listed.iter().map(|one| (&one["root"], &one["source"]));
    assert!(
        roots_and_names.clone().all(|one| one == (&"stdin:db.sql".into(), &"db.sql".into())),
        "{listed:?}"
    );
    for (number, (snapshot, contents)) in snapshots.iter().zip(&versions).enumerate() {
        let out = format!("out-{number}");
        a.ok(&["restore", &out, "--snapshot", snapshot]);
        let restored = world.path(&out).join("db.sql");
        assert!(std::fs::read(&restored).unwrap() == *contents);
        assert_eq!(restored.metadata().unwrap().mode() & 0o777, 0o600);
    }
    // A file that is called so in the working folder is another source.
    std::fs::write(world.path("db.sql"), "a file").unwrap();
    a.backup("db.sql");
    assert_eq!(a.snapshots().last().unwrap()["source"], "db.sql-2");
}

#[test]
fn an_input_that_is_empty_or_broken_is_not_backed_up() {
    let world = World::new();
    let a = world.signup("a");
    backup(&a, "x", file_of(&world, "empty", b""))
        .done()
        .ends(1, &["standard input", "was empty", "nothing"]);
    // A folder can be opened, and not be read.
    let folder = File::open(world.path("")).unwrap();
    backup(&a, "x", folder).done().ends(1, &["standard input", "after 0 bytes", "nothing was backed up"]);
    for wrong in ["", "..", "a/b"] {
        backup(&a, wrong, file_of(&world, "in", b"x")).done().ends(2, &["plain file name"]);
    }
    a.run(&["backup", "--stdin", "x", "docs"]).ends(2, &["cannot be used with"]);
    assert_nothing_left(&a);
    a.run(&["snapshots"]).ends(11, &["no vault"]);
}

#[test]
fn what_a_command_prints_is_backed_up_if_it_ends_well() {
    let world = World::new();
    let a = world.signup("a");
    std::fs::write(world.path("in"), noise(1, 700_000)).unwrap();
    let run = |command: &str| a.run(&["backup", "--stdin", "x", "--command", command]);
    run("cat in; exit 3").ends(1, &["cat in; exit 3", "exit status: 3", "nothing was backed up"]);
    run("exit 4").ends(1, &["exit status: 4"]);
    run("cat in; kill $$").ends(1, &["signal: 15"]);
    run("true").ends(1, &["was empty"]);
    let arguments = ["backup", "--stdin", "x", "--command", "cat in; false", "--progress", "json"];
    a.run(&arguments).ends(1, &["\"state\":\"failed\""]);
    a.run(&["snapshots"]).ends(11, &["no vault"]);
    run("cat in; test -z \"$(cat)\"").ok();
    assert!(std::fs::read(a.restore("out").join("x")).unwrap() == noise(1, 700_000));
    a.run(&["backup", "--command", "true", "in"]).ends(2, &["cannot be used with"]);
    a.run(&["backup", "--command", "true"]).ends(2, &["--stdin"]);
    assert_nothing_left(&a);
}

#[test]
fn a_home_that_is_too_full_for_an_input_says_so() {
    let world = World::new();
    let Some(small) = Small::mount(&world.path("home-a"), 4) else { return };
    let a = world.signup("a");
    backup(&a, "x", file_of(&world, "in", &noise(1, 6_000_000))).done().ends(10, &["is full", "home-a"]);
    assert_nothing_left(&a);
    a.run(&["snapshots"]).ends(11, &["no vault"]);
    small.resize(60);
    backup(&a, "x", File::open(world.path("in")).unwrap()).done().ok();
    assert!(std::fs::read(a.restore("out").join("x")).unwrap() == noise(1, 6_000_000));
}

/// Nothing of an input stays behind, whenever its backup is stopped.
#[test]
fn an_input_that_is_stopped_leaves_nothing() {
    let world = World::new();
    let a = world.signup("a");
    let place = a.home.join("input");
    let begun = || {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let running = backup(&a, "x", reader);
        writer.write_all(b"the beginning").unwrap();
        assert!(poll(60, || place.metadata().is_ok_and(|stat| stat.len() == 13)));
        assert_eq!(place.metadata().unwrap().mode() & 0o777, 0o600);
        (running, writer)
    };
    // The pipe stays open: the read never ends.
    let (running, _writer) = begun();
    running.interrupt();
    running.done().ends(130, &["stopped"]);
    assert_nothing_left(&a);

    let (running, _writer) = begun();
    running.kill();
    assert!(place.exists(), "a killed process can not clean up");
    a.ok(&["status"]);
    assert_nothing_left(&a);
    a.run(&["snapshots"]).ends(11, &["no vault"]);
}
