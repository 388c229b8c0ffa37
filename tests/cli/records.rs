//! Single records, online, offline and in conflict.

use crate::world::{Device, World};

fn list(device: &Device) -> Vec<serde_json::Value> {
    device.ok(&["--json", "record", "list", "--type", "note"]).json().as_array().unwrap().clone()
}

#[test]
fn records_are_written_read_and_deleted() {
    let world = World::new();
    let a = world.signup("a");
    let b = world.login("b");
    a.put("n", "{\"a\": [1, \"\\u00e9\", null, 1e3]}").ok();
    let document = b.ok(&["--json", "record", "get", "--type", "note", "--id", "n"]).json();
    assert_eq!(document, serde_json::json!({"a": [1, "\u{e9}", null, 1e3]}));
    b.put("n", "2").ok();
    a.put("n", "3").ok();
    let history = b.ok(&["--json", "record", "history", "--type", "note", "--id", "n"]).json();
    let documents: Vec<_> = history.as_array().unwrap().iter().map(|v| v["document"].clone()).collect();
    assert_eq!(documents[..2], [serde_json::json!(3), serde_json::json!(2)]);
    a.ok(&["record", "rm", "--type", "note", "--id", "n"]);
    b.run(&["record", "get", "--type", "note", "--id", "n"]).ends(11, &["no record \"n\""]);
    b.run(&["record", "rm", "--type", "note", "--id", "n"]).ends(11, &[]);
    assert!(list(&b).is_empty());
    assert!(b.ok(&["record", "history", "--type", "note", "--id", "n"]).out.contains("deleted"));
    // It may come back.
    b.put("n", "4").ok();
    assert_eq!(a.get("n"), "4");
    let id = b.run_with(&["record", "put", "--type", "note"], "5").ok().out.trim().to_owned();
    assert_eq!(a.get(&id), "5");
}

#[test]
fn what_is_no_record_is_refused() {
    let world = World::new();
    let a = world.signup("a");
    for input in ["", "{", "{\"a\":}", "nonsense", "1 2", "\u{0}"] {
        a.put("n", input).ends(2, &["not JSON"]);
    }
    a.put("n", &format!("\"{}\"", "x".repeat(1_000_000))).ends(2, &["900 KiB"]);
    a.put("n", &format!("\"{}\"", "x".repeat(900_000))).ok();
    assert_eq!(world.login("b").get("n").len(), 900_002);
    let put = ["record", "put", "--type", "lockstep/file", "--id", "n"];
    a.run_with(&put, "1").ends(2, &["lockstep/"]);
    let long = "t".repeat(200);
    a.run_with(&["record", "put", "--type", &long], "1").ends(2, &[]);
    let long = "i".repeat(9000);
    a.run_with(&["record", "put", "--type", "note", "--id", &long], "1").ends(2, &[]);
    a.put("after", "1").ok();
}

#[test]
fn both_sides_of_a_conflict_survive() {
    let mut world = World::new();
    let a = world.signup("a");
    for id in ["n", "same", "edited"] {
        a.put(id, "0").ok();
    }
    let b = world.login("b");
    assert_eq!(b.get("n"), "0");
    world.server.stop();
    // Equal documents are no conflict, and who deletes does not win over who writes.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            a.put("n", "\"of a\"").ends(0, &["kept on this device"]);
            a.put("same", "1").ok();
            a.put("edited", "1").ok();
        });
        b.put("n", "\"of b\"").ends(0, &["kept on this device"]);
        b.put("same", "1").ok();
        b.ok(&["record", "rm", "--type", "note", "--id", "edited"]);
    });
    world.server.restart();
    a.ok(&["status"]);
    b.ok(&["status"]);
    a.ok(&["status"]);
    for device in [&a, &b] {
        let rows = list(device);
        let rows: Vec<_> =
            rows.iter().map(|row| (row["document"].clone(), row["conflict"] == true)).collect();
        let expected = [(1.into(), false), ("of a".into(), false), ("of b".into(), true), (1.into(), false)];
        assert_eq!(rows, expected);
        assert!(device.ok(&["record", "list", "--type", "note"]).out.contains("(conflict copy)"));
    }
    assert_eq!(list(&a), list(&b));
}

/// A copy that nobody can look at or put away is not resolved.
#[test]
fn a_conflict_copy_can_be_read_and_removed_by_the_id_that_is_listed() {
    let mut world = World::new();
    let a = world.signup("a");
    a.put("n", "0").ok();
    let b = world.login("b");
    b.get("n");
    world.server.stop();
    a.put("n", "1").ok();
    b.put("n", "2").ok();
    world.server.restart();
    a.ok(&["status"]);
    b.ok(&["status"]);
    let rows = list(&b);
    let copy = rows.iter().find(|row| row["conflict"] == true).unwrap();
    let id = copy["id"].as_str().unwrap();
    assert!(!id.contains('\0'), "no argument can hold {id:?}");
    assert_eq!(b.get(id), "2");
    b.ok(&["record", "rm", "--type", "note", "--id", id]);
    assert_eq!(list(&a).len(), 1);
}

/// Longer than one answer of the server; the history is whole all the same.
#[test]
fn a_long_history_is_whole_and_any_version_comes_back() {
    const VERSIONS: i64 = 12;
    let world = World::new();
    let a = world.signup("a");
    let history = |device: &Device| {
        let done = device.ok(&["--json", "record", "history", "--type", "note", "--id", "n"]).json();
        done.as_array().unwrap().clone()
    };
    let filler = "x".repeat(800_000);
    for number in 0..VERSIONS {
        a.put("n", &format!("[{number}, \"{filler}\"]")).ok();
    }
    let b = world.login("b");
    for device in [&a, &b] {
        let found = history(device);
        let numbers: Vec<i64> =
            found.iter().map(|version| version["document"][0].as_i64().unwrap()).collect();
        assert_eq!(numbers, (0..VERSIONS).rev().collect::<Vec<i64>>());
        assert_eq!((&found[0]["revision"], &found[11]["revision"]), (&12.into(), &1.into()));
    }
    let restore =
        |revision: &str| b.run(&["record", "restore", "--type", "note", "--id", "n", "--revision", revision]);
    let done = restore("3").ok();
    assert!(done.out.contains("revision 3 of n"), "{done:?}");
    assert!(a.get("n").starts_with("[2,"));
    // It is a version of its own: nothing that was there is lost.
    let found = history(&a);
    assert_eq!(
        (found.len(), &found[0]["document"][0], &found[1]["document"][0]),
        (13, &2.into(), &11.into())
    );
    restore("15").ends(11, &["no revision 15", "record history"]);
    restore("0").ends(11, &["no revision 0"]);
    restore("x").ends(2, &["x"]);
    b.ok(&["record", "rm", "--type", "note", "--id", "n"]);
    restore("14").ends(2, &["is a deletion"]);
    restore("1").ok();
    assert!(a.get("n").starts_with("[0,"));
    b.run(&["record", "restore", "--type", "note", "--id", "x", "--revision", "1"])
        .ends(11, &["no record \"x\""]);
    let taken = ["record", "restore", "--type", "lockstep/snapshot", "--id", "x", "--revision", "1"];
    b.run(&taken).ends(2, &["belong to the program"]);
}
