//! Accounts whose quota is used up, and what goes on all the same.

use crate::back_end::is_embedded;
use crate::tree::{assert_same, noise, write};
use crate::world::{Device, NAME, World};

/// Sets the account's quota as whoever runs the server does.
fn set_quota(world: &mut World, size: &str) -> String {
    let folder = world.path("");
    world.server.stop();
    let said = world.server.run(&folder, &["quota", NAME, size]).ok().out;
    world.server.run(&folder, &["check-usage"]).ok();
    world.server.restart();
    said
}

fn used(device: &Device) -> u64 {
    device.ok(&["--json", "status"]).json()["used"].as_u64().unwrap()
}

#[test]
fn a_backup_beyond_the_quota_says_so_and_goes_on_later() {
    let mut world = World::with(&[("LOCKSTEP_QUOTA", "2 MiB")]);
    let a = world.signup("a");
    write(&world.path("docs/first"), noise(1, 300_000));
    a.put("n", "1").ok();
    a.backup("docs");
    let first = a.restore("first");
    let status = a.ok(&["--json", "status"]).json();
    assert_eq!(status["quota"], 2 << 20);
    assert!((300_000..400_000).contains(&status["used"].as_u64().unwrap()), "{status}");
    assert!(a.ok(&["status"]).out.contains(" of 2 MiB"));

    for number in 0..20 {
        write(&world.path(&format!("docs/{number}")), noise(100 + number, 200_000));
    }
    for _ in 0..2 {
        a.run(&["backup", "docs"]).ends(
            10,
            &["the account's quota at the server is used up", "of 2 MiB are used", "lockstep-server quota"],
        );
        assert_eq!(a.snapshots().len(), 1, "a run that did not finish is no snapshot");
        assert!(used(&a) <= 2 << 20);
    }
    let json = a.run(&["--json", "backup", "docs"]).ends(10, &["\"status\":10"]);
    assert!(json.out.is_empty(), "{json:?}");
    // One that travels in parts is refused before its first byte.
    write(&world.path("large/one"), noise(7, 9_000_000));
    a.run(&["backup", "large"]).ends(10, &["quota"]);
    assert_same(&first.join("docs"), &a.restore("again").join("docs"));
    a.ok(&["record", "rm", "--type", "note", "--id", "n"]);
    a.run(&["record", "get", "--type", "note", "--id", "n"]).ends(11, &["no record"]);
    let b = world.login("b");
    assert_same(&first.join("docs"), &b.restore("third").join("docs"));

    let said = set_quota(&mut world, "30 MiB");
    assert!(said.contains("of 30 MiB (its own)"), "{said}");
    a.ok(&["backup", "docs"]);
    a.ok(&["backup", "large"]);
    let out = a.restore("out");
    assert_same(&world.path("docs"), &out.join("docs"));
    assert_same(&world.path("large"), &out.join("large"));
    assert!(used(&a) > 13_000_000);
    a.ok(&["check", "--read-data"]);
}

/// Records that were accepted here and refused there wait; they do not stand in the way of anything.
#[test]
fn writes_that_wait_for_a_larger_quota_block_nothing() {
    let mut world = World::with(&[("LOCKSTEP_QUOTA", "300 KB")]);
    let a = world.signup("a");
    write(&world.path("docs/f"), "contents");
    a.backup("docs");
    a.put("one", "1").ok();
    a.put("two", "2").ok();
    let b = world.login("b");
    let text = format!("\"{}\"", "x".repeat(400_000));
    a.put("large", &text).ends(10, &["quota", "292.96 KiB", "are used"]);
    a.put("small", "4").ends(10, &["quota"]);
    a.run(&["status"]).ends(10, &["quota"]);

    let note = "what this device wrote waits here";
    let done = a.ok(&["restore", "out"]);
    assert!(done.err.contains(note), "{done:?}");
    assert_same(&world.path("docs"), &world.path("out/docs"));
    assert_eq!(a.get("one"), "1");
    assert_eq!(a.get("large"), text, "what waits is held here");
    a.ok(&["record", "rm", "--type", "note", "--id", "one"]);
    b.run(&["record", "get", "--type", "note", "--id", "one"]).ends(11, &[]);
    assert_eq!(b.get("two"), "2");
    b.run(&["record", "get", "--type", "note", "--id", "large"]).ends(11, &[]);
    // A deletion of what waits waits, too.
    a.run(&["record", "rm", "--type", "note", "--id", "small"]).ends(10, &["quota"]);

    set_quota(&mut world, "none");
    a.ok(&["status"]);
    assert_eq!(b.get("large"), text);
    assert_eq!(b.get("two"), "2");
    for device in [&a, &b] {
        for id in ["one", "small"] {
            device.run(&["record", "get", "--type", "note", "--id", id]).ends(11, &[]);
        }
        device.ok(&["check"]);
    }
    assert!(a.ok(&["status"]).out.contains("no limit"));
}

#[test]
fn whoever_runs_the_server_sees_and_sets_quotas() {
    let mut world = World::with(&[("LOCKSTEP_QUOTA", "500MB")]);
    let a = world.signup("a");
    a.put("n", "1").ok();
    let folder = world.path("");
    for command in [&["quota", NAME][..], &["check-usage"]] {
        let done = world.server.run(&folder, command);
        // SQLite is one process's alone.
        if is_embedded() {
            done.ends(1, &["stop it first"]);
        } else {
            done.ok();
        }
    }
    world.server.stop();
    let run = |arguments: &[&str]| world.server.run(&folder, arguments);
    assert!(run(&["check-config"]).ok().out.contains("quota: 476.83 MiB"));
    for (size, expected) in [
        (None, "of 476.83 MiB (the server's default)"),
        (Some("1.5 GiB"), "of 1.5 GiB (its own)"),
        (None, "of 1.5 GiB (its own)"),
        (Some("none"), "no limit (its own)"),
        (Some("default"), "of 476.83 MiB (the server's default)"),
    ] {
        let mut arguments = vec!["quota", NAME];
        arguments.extend(size);
        let said = run(&arguments).ok().out;
        assert!(said.starts_with("ada: used ") && said.contains(expected), "{said}");
    }
    run(&["quota", NAME, "10 G"]).ends(1, &["10 G", "GiB", "default"]);
    run(&["quota", "nobody"]).ends(1, &["nobody"]);
    assert!(run(&["check-usage"]).ok().out.contains("right"));
    assert_eq!(world.server.change("UPDATE account SET used_bytes = used_bytes + 1"), 1);
    run(&["check-usage"]).ends(1, &["ada: ", "--mend"]);
    assert!(run(&["check-usage", "--mend"]).ok().out.contains("set right"));
    run(&["check-usage"]).ok();
    for command in [&["quota", "--help"], &["check-usage", "--help"]] {
        assert!(run(command).ok().out.contains("must be stopped"));
    }
    world.server.restart();
    a.ok(&["status"]);
}
