//! Servers that lack envelopes which some devices let go of: healing gives back what is held and says what is not, and
//! what a server lost keeps nobody from the rest.

use crate::heal::heal;
use crate::select::{two, written_twice};
use crate::server::Server;
use crate::world::World;
use serde_json::json;
use std::collections::BTreeSet;

/// The server has no envelope of what a condition finds, as if it was healed by a device that did not hold it.
fn lose(server: &mut Server, condition: &str) {
    server.stop();
    let nothing = server.literal(&[]);
    assert_eq!(server.change(&format!("UPDATE version SET envelope = {nothing} WHERE {condition}")), 1);
    server.restart();
}

/// A server is healed from a device that let go of records, and then by one that has everything.
#[test]
fn what_one_device_does_not_hold_another_one_gives_back() {
    let (mut world, a, b) = two();
    let copy = world.path("yesterday");
    world.server.back_up(&copy);
    a.put("late", "1").ok();
    a.task("t2", "3");
    // Two in one commit.
    world.server.stop();
    for id in ["later", "latest"] {
        a.put(id, "2").ends(0, &["kept on this device"]);
    }
    world.server.restart();
    a.ok(&["status"]);
    assert_eq!(b.ids("task"), ["t0", "t1", "t2"]);
    world.server.put_back(&copy, true, false);
    b.run(&["status"]).ends(6, &["went back in time", "lockstep heal"]);
    // It is said before anybody agrees.
    let not_held = "lacks the newest versions of 3 records that this device does not hold either";
    b.run(&["heal"]).ends(2, &[not_held, "say --yes"]);
    b.run(&["status"]).ends(6, &["went back in time"]);
    let done = heal(&world, &b).ends(3, &[not_held]);
    assert_eq!(done.out.matches("not given back: what commit").count(), 3, "{done:#?}");
    let commit =
        |line: &str| line.strip_prefix("not given back: what commit ")?.split(' ').next().map(String::from);
    assert_eq!(done.out.lines().filter_map(commit).collect::<BTreeSet<_>>().len(), 2, "{done:#?}");
    b.ok(&["status"]);
    b.read("late").ends(6, &["the server withholds record"]);
    assert!(b.run(&["check"]).ends(7, &[]).out.contains("is missing at the server"));
    // The heads agree, and yet it is not whole.
    let again = heal(&world, &b).ends(3, &[not_held]);
    assert!(again.out.contains("nothing to heal") && again.out.contains("not given back"), "{again:#?}");
    let held = "lacks the newest versions of 3 records that this device holds";
    a.run(&["heal"]).ends(2, &[held, "say --yes"]);
    let done = heal(&world, &a).ends(0, &[held]);
    assert!(done.out.contains("healed: 0 commits given back, 3 envelopes of others"), "{done:#?}");
    for device in [&a, &b] {
        assert!(heal(&world, device).ok().out.contains("nothing to heal"));
        device.ok(&["check", "--read-data"]);
    }
    assert_eq!((b.get("late"), b.get("latest")), ("1".into(), "2".into()));
    assert_eq!(world.login("c").ids("note").len(), 15);
}

#[test]
fn what_a_server_does_not_give_out_again_is_named() {
    let (mut world, a, _b) = two();
    a.put("n0", "{\"number\":1000}").ok();
    world.server.stop();
    let (_, newest, old) = written_twice(&world.server);
    let old = world.server.literal(&old);
    assert_eq!(world.server.change(&format!("UPDATE version SET envelope = {old} WHERE {newest}")), 1);
    world.server.restart();
    let done = heal(&world, &a).ends(3, &["lacks the newest versions of 1 records that this device holds"]);
    assert!(done.out.contains("still missing: what commit"), "{done:#?}");
    a.put("n0", "{\"number\":1001}").ok();
    assert!(heal(&world, &a).ok().out.contains("nothing to heal"));
}

/// The last device that holds a record is to let go of it, and heals first.
#[test]
fn nothing_is_let_go_of_while_a_server_is_healed() {
    let (mut world, a, b) = two();
    a.put("n0", "{\"number\":1000}").ok();
    b.ok(&["status"]);
    let held = a.envelopes();
    world.server.stop();
    a.run(&["vault", "keep", "files", "--type", "task"]).ends(0, &["with the next sync"]);
    let (_, newest, _) = written_twice(&world.server);
    lose(&mut world.server, &newest);
    // The server is ahead: whoever looks takes that over.
    b.task("t2", "3");
    let done = heal(&world, &a).ok();
    assert!(done.out.contains("1 envelopes of others"), "{done:#?}");
    assert_eq!(a.envelopes(), held + 1);
    a.ok(&["status"]);
    // Two sources' worth of the library, and three tasks.
    assert_eq!((a.envelopes(), a.ids("task").len()), (7, 3));
    assert_eq!(b.get("n0"), "{\"number\":1000}");
    for device in [&a, &b] {
        device.ok(&["check"]);
    }
}

#[test]
fn what_a_wider_selection_wants_and_the_server_lost_keeps_nothing_from_being_sent() {
    let (mut world, a, b) = two();
    a.put("n0", "{\"number\":1000}").ok();
    b.ok(&["status"]);
    let (_, newest, _) = written_twice(&world.server);
    lose(&mut world.server, &newest);
    let done = b.ok(&["--json", "vault", "keep", "files", "--all"]).json();
    assert_eq!(done["not_held"], 1);
    b.task("t2", "3");
    assert_eq!(a.ids("task"), ["t0", "t1", "t2"]);
    // It is named until it is there.
    let status = b.ok(&["status"]);
    assert!(status.out.contains("1 records are to be held here") && status.out.contains("missing: record"));
    let vault = b.ok(&["--json", "status"]).json()["vaults"][0].clone();
    assert_eq!((&vault["complete"], vault["missing"].as_array().unwrap().len()), (&json!(false), 1));
    b.read("n0").ends(6, &["the server withholds record"]);
    b.run(&["record", "fetch", "--type", "note"]).ends(6, &["the server withholds record"]);
    let check = b.run(&["check"]).ends(7, &[]);
    assert_eq!(check.out.matches("PROBLEM").count(), 1, "{check:#?}");
    assert!(check.out.contains("is missing at the server"), "{check:#?}");
    b.task("t3", "4");
    // Who has it gives it back, and it comes by itself.
    heal(&world, &a).ok();
    let vault = b.ok(&["--json", "status"]).json()["vaults"][0].clone();
    assert_eq!((&vault["complete"], &vault["missing"]), (&json!(true), &json!([])));
    assert_eq!(b.get("n0"), "{\"number\":1000}");
    // Lost once more, it is written anew.
    b.ok(&["vault", "keep", "files", "--type", "task"]);
    lose(&mut world.server, &newest);
    b.ok(&["vault", "keep", "files", "--all"]);
    assert!(b.ok(&["status"]).out.contains("missing: record"));
    b.put("n0", "{\"number\":7}").ok();
    assert!(!b.ok(&["status"]).out.contains("missing"));
    assert_eq!(a.get("n0"), "{\"number\":7}");
    // Or deleted.
    b.ok(&["vault", "keep", "files", "--type", "task"]);
    lose(&mut world.server, &newest.replace("revision = 2", "revision = 3"));
    b.ok(&["vault", "keep", "files", "--all"]);
    assert!(b.ok(&["status"]).out.contains("missing: record"));
    b.ok(&["record", "rm", "--type", "note", "--id", "n0"]);
    assert!(!b.ok(&["status"]).out.contains("missing"));
    a.read("n0").ends(11, &["there is no record"]);
    for device in [&a, &b] {
        device.ok(&["check"]);
    }
}

#[test]
fn one_bad_version_is_named_in_an_export_and_the_others_come() {
    let (mut world, a, b) = two();
    a.put("n0", "{\"number\":1000}").ok();
    b.ok(&["status"]);
    world.server.stop();
    let (_, newest, old) = written_twice(&world.server);
    let old = world.server.literal(&old);
    assert_eq!(world.server.change(&format!("UPDATE version SET envelope = {old} WHERE {newest}")), 1);
    world.server.restart();
    b.run(&["export", "--decrypted", "old"]).ends(3, &["vault files: record", "went back in time"]);
    lose(&mut world.server, &newest);
    b.run(&["export", "--decrypted", "lost"]).ends(3, &["vault files: record", "it is missing"]);
    world.server.stop();
    let junk = world.server.literal(b"junk");
    assert_eq!(world.server.change(&format!("UPDATE version SET envelope = {junk} WHERE {newest}")), 1);
    world.server.restart();
    b.run(&["export", "--decrypted", "junk"]).ends(3, &["vault files: record", "is not as its commit"]);
    for folder in ["old", "lost", "junk"] {
        exported(&world, folder);
    }
}

/// All notes but one, and both tasks.
#[track_caller]
fn exported(world: &World, folder: &str) {
    let read = |path: String| std::fs::read(world.path(&path)).ok();
    for number in 0..12 {
        let text = read(format!("{folder}/files/records/note/n{number}.json"));
        assert_eq!(text.is_some(), number != 0, "n{number}");
    }
    for number in 0..2 {
        assert!(read(format!("{folder}/files/records/task/t{number}.json")).is_some());
    }
    let manifest: serde_json::Value =
        serde_json::from_slice(&read(format!("{folder}/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["problems"].as_array().unwrap().len(), 1, "{manifest}");
}
