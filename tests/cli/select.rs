//! Devices that hold less than everything of a vault: they verify all of it, say what they do not hold, and fetch it.

use crate::program::Done;
use crate::server::Server;
use crate::tree::{assert_same, write};
use crate::world::{Device, World};
use serde_json::{Value, json};
use std::collections::BTreeSet;

impl Device {
    #[track_caller]
    pub(crate) fn task(&self, id: &str, document: &str) {
        self.run_with(&["record", "put", "--type", "task", "--id", id], document).ok();
    }

    fn listed(&self, record_type: &str) -> Done {
        self.ok(&["--json", "record", "list", "--type", record_type])
    }

    #[track_caller]
    pub(crate) fn ids(&self, record_type: &str) -> Vec<String> {
        let list = self.listed(record_type).json();
        list.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Envelopes in this device's database: those of the account's vault, by what it is to hold.
    pub(crate) fn envelopes(&self) -> i64 {
        let database = rusqlite::Connection::open(self.home.join("replica.sqlite")).unwrap();
        let text = "SELECT count(*) FROM record WHERE envelope IS NOT NULL AND vault =
                    (SELECT vault FROM record GROUP BY vault ORDER BY count(*) DESC LIMIT 1)";
        database.query_row(text, [], |row| row.get(0)).unwrap()
    }

    pub(crate) fn read(&self, id: &str) -> Done {
        self.run(&["record", "get", "--type", "note", "--id", id])
    }

    #[track_caller]
    fn kept(&self) -> Value {
        let list = self.ok(&["--json", "vault", "list"]).json();
        list[0]["keep"].clone()
    }
}

/// Two devices; the vault has twelve notes, two tasks and a backup, and the second device, a new one, is to hold the tasks.
pub(crate) fn two() -> (World, Device, Device) {
    let world = World::new();
    let a = world.signup("a");
    for number in 0..12 {
        a.put(&format!("n{number}"), &format!("{{\"number\":{number}}}")).ok();
    }
    a.task("t0", "1");
    a.task("t1", "2");
    write(&world.path("docs/file"), "contents");
    a.backup("docs");
    let b = world.login("b");
    let done = b.ok(&["--json", "vault", "keep", "files", "--type", "task"]).json();
    assert_eq!((&done["not_held"], &done["keep"]), (&json!(12), &json!({ "days": null, "types": ["task"] })));
    (world, a, b)
}

#[test]
fn a_device_that_holds_one_type_verifies_everything_and_fetches_the_rest() {
    let (mut world, a, b) = two();
    // Source, folder, file, snapshot, and two tasks.
    assert_eq!(b.envelopes(), 6);
    assert_eq!(b.ids("task"), ["t0", "t1"]);
    let notes = b.listed("note");
    assert_eq!(notes.json(), json!([]));
    assert!(notes.err.contains("12 more are known and not held on this device"), "{notes:?}");
    assert_eq!(b.ok(&["fingerprint"]).out, a.ok(&["fingerprint"]).out);
    let check = b.ok(&["--json", "check", "--read-data"]).json();
    assert_eq!((&check["not_held"], &check["problems"]), (&json!(12), &json!([])));
    assert_eq!(check["records"], a.ok(&["--json", "check"]).json()["records"]);
    assert_same(&world.path("docs"), &b.restore("out").join("docs"));
    assert!(b.ok(&["vault", "list"]).out.contains("(here: records of type task)"));
    // What is read is fetched, and stays for a while.
    assert_eq!(b.get("n3"), "{\"number\":3}");
    b.ok(&["record", "fetch", "--type", "note", "--id", "n4"]);
    assert_eq!(b.ids("note"), ["n3", "n4"]);
    world.server.stop();
    assert_eq!((b.get("n3"), b.get("n4")), ("{\"number\":3}".into(), "{\"number\":4}".into()));
    b.read("n5").ends(4, &["is not held on this device", "while the server can be reached"]);
    b.read("none").ends(11, &["there is no record"]);
    b.run(&["vault", "keep", "files", "--all"]).ends(0, &["with the next sync"]);
    world.server.restart();
    // A new version is not held either.
    b.ok(&["vault", "keep", "files", "--type", "task"]);
    assert_eq!(b.ids("note"), [""; 0]);
    a.put("n3", "{\"number\":33}").ok();
    b.ok(&["status"]);
    assert_eq!((b.envelopes(), b.ids("note")), (6, vec![]));
    let fetched = b.ok(&["--json", "record", "fetch", "--type", "note"]).json();
    assert_eq!((fetched, b.envelopes()), (json!({ "fetched": 12 }), 18));
    b.ok(&["vault", "keep", "files", "--type", "task"]);
    assert_eq!(b.envelopes(), 6);
    b.ok(&["vault", "keep", "files", "--all"]);
    assert_eq!((b.kept(), b.envelopes(), b.ids("note").len()), (Value::Null, 18, 12));
    assert_eq!(b.get("n3"), "{\"number\":33}");
    b.ok(&["check"]);
}

#[test]
fn what_is_older_is_not_held_and_files_always_are() {
    let (world, a, b) = two();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    b.ok(&["vault", "keep", "files", "--days", "0"]);
    assert_eq!((b.ids("task"), b.envelopes()), (vec![], 4));
    b.ok(&["vault", "keep", "files", "--days", "30", "--type", "task"]);
    assert_eq!((b.ids("task").len(), b.envelopes()), (2, 6));
    b.ok(&["vault", "keep", "files", "--days", "30"]);
    assert_eq!((b.kept(), b.envelopes()), (json!({ "days": 30, "types": null }), 18));
    b.run(&["vault", "keep", "files"]).ends(2, &[]);
    b.run(&["vault", "keep", "files", "--all", "--days", "3"]).ends(2, &[]);
    b.run(&["vault", "keep", "files", "--type", "lockstep/file"]).ends(2, &["always held"]);
    // It backs up from there as ever, and another device's merge policies arrive.
    b.ok(&["vault", "keep", "files", "--days", "0"]);
    write(&world.path("docs/file"), "changed");
    b.backup("docs");
    let out = a.restore("out");
    let restored = crate::tree::files(&out).into_iter().map(|path| std::fs::read_to_string(path).unwrap());
    assert_eq!(restored.collect::<BTreeSet<_>>(), ["changed", "contents"].map(String::from).into());
    a.ok(&["check", "--read-data"]);
    b.ok(&["check", "--read-data"]);
}

#[test]
fn a_record_that_is_not_held_is_written_deleted_and_restored() {
    let (mut world, a, b) = two();
    b.put("n0", "{\"number\":100}").ok();
    b.ok(&["record", "rm", "--type", "note", "--id", "n1"]);
    b.ok(&["record", "restore", "--type", "note", "--id", "n0", "--revision", "1"]);
    assert_eq!(a.get("n0"), "{\"number\":0}");
    a.read("n1").ends(11, &["there is no record"]);
    assert_eq!(
        b.ok(&["--json", "record", "history", "--type", "note", "--id", "n2"]).json()[0]["document"]["number"],
        2
    );
    // To merge, the version that is written over has to be known.
    let policy = json!({ "lockstep-merge": 1, "types": { "note": {
        "schema": { "oldest": 1, "newest": 1 }, "delete": "edit-wins",
        "document": { "policy": "three-way", "default": "last-write-wins", "fields": { "number": "sum-of-deltas" } },
    } } });
    std::fs::write(world.path("policies.json"), policy.to_string()).unwrap();
    a.ok(&["policy", "set", "policies.json"]);
    a.put("n6", "{\"number\":6}").ok();
    b.ok(&["status"]);
    b.put("n2", "{\"number\":5}").ok();
    a.put("n2", "{\"number\":6}").ok();
    assert_eq!(b.get("n2"), "{\"number\":6}");
    world.server.stop();
    b.put("n5", "{\"number\":1}").ends(4, &["is not held on this device"]);
    a.put("n6", "{\"number\":16}").ok();
    world.server.restart();
    b.put("n6", "{\"number\":106}").ok();
    a.ok(&["status"]);
    assert_eq!((a.get("n6"), b.get("n6")), ("{\"number\":116}".into(), "{\"number\":116}".into()));
    for device in [&a, &b] {
        device.ok(&["check"]);
    }
}

#[test]
fn an_export_has_what_the_device_does_not_hold() {
    let (world, _a, b) = two();
    b.ok(&["export", "--decrypted", "plain"]);
    for number in 0..12 {
        let text = std::fs::read(world.path(&format!("plain/files/records/note/n{number}.json"))).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), json!({ "number": number }));
    }
    b.ok(&["export", "all.lockstep"]);
    assert_eq!(b.envelopes(), 6);
    // Into the same account, on a device that holds none of them.
    b.ok(&["import", "all.lockstep", "--passphrase-file", &world.text("passphrase")]);
    let note = |id| b.ok(&["record", "get", "--vault", "files-imported", "--type", "note", "--id", id]).out;
    assert_eq!(note("n7"), "{\"number\":7}\n");
}

/// Where the one note with two versions lies at the server: a condition for each version, and the older envelope.
pub(crate) fn written_twice(server: &Server) -> (String, String, Vec<u8>) {
    let database = server.database();
    let text = "SELECT id FROM vault ORDER BY records DESC LIMIT 1";
    let vault: i64 = database.query_row(text, [], |row| row.get(0)).unwrap();
    let text = "SELECT record FROM version WHERE vault = ?1 AND revision = 2";
    let record: Vec<u8> = database.query_row(text, [vault], |row| row.get(0)).unwrap();
    let text = "SELECT envelope FROM version WHERE vault = ?1 AND record = ?2 AND revision = 1";
    let envelope = database.query_row(text, rusqlite::params![vault, record], |row| row.get(0)).unwrap();
    let record = server.literal(&record);
    let is_it = |revision| format!("vault = {vault} AND record = {record} AND revision = {revision}");
    (is_it(1), is_it(2), envelope)
}

#[test]
fn what_the_server_lost_or_took_back_is_found_when_it_is_fetched() {
    let (mut world, a, b) = two();
    a.put("n0", "{\"number\":1000}").ok();
    b.ok(&["status"]);
    world.server.stop();
    let (_, newest, old) = written_twice(&world.server);
    let old = world.server.literal(&old);
    let text = format!("UPDATE version SET envelope = {old} WHERE {newest}");
    assert_eq!(world.server.change(&text), 1);
    world.server.restart();
    // Nothing of it is asked for, until it is wanted.
    b.ok(&["status"]);
    b.read("n0").ends(6, &["went back in time", "replaced"]);
    b.run(&["record", "fetch", "--type", "note"]).ends(6, &["went back in time"]);
    assert!(b.run(&["check"]).ends(7, &[]).out.contains("is damaged at the server"));
    world.server.stop();
    assert_eq!(world.server.change(&format!("DELETE FROM version WHERE {newest}")), 1);
    world.server.restart();
    b.read("n0").ends(6, &["the server withholds record"]);
    assert!(b.run(&["check"]).ends(7, &[]).out.contains("is missing at the server"));
    // What it does not hold does not keep it from the rest.
    b.task("t2", "3");
    assert_eq!(b.get("n1"), "{\"number\":1}");
    world.server.stop();
    b.read("n0").ends(4, &["is not held on this device"]);
}

/// Both devices write a record while the server is away; the second one does not hold what the first one wrote.
#[test]
fn a_conflict_is_listed_and_decided_where_its_other_side_is_not_held() {
    let (mut world, a, b) = two();
    world.server.stop();
    for (device, who) in [(&a, "a"), (&b, "b")] {
        for id in ["n0", "n1"] {
            device.put(id, &json!({ "of": who }).to_string()).ok();
        }
    }
    world.server.restart();
    a.ok(&["status"]);
    let before = b.envelopes();
    b.ok(&["status"]);
    // The copies wait for somebody and stay; the originals are not held.
    assert_eq!(b.envelopes(), before + 2);
    let list = || b.ok(&["--json", "conflicts", "list"]).json().as_array().unwrap().clone();
    let found = list();
    assert_eq!(found.len(), 2, "{found:?}");
    for conflict in &found {
        let versions = conflict["versions"].as_array().unwrap();
        assert_eq!((versions.len(), &versions[0]["value"]), (1, &json!({ "of": "b" })), "{conflict}");
    }
    // Nor is one that was to be held and that the server lost.
    world.server.stop();
    let database = world.server.database();
    let text = "SELECT count(*) FROM version WHERE revision = 2 AND vault = (SELECT id FROM vault ORDER BY records DESC LIMIT 1)";
    assert_eq!(database.query_row(text, [], |row| row.get::<_, i64>(0)).unwrap(), 2);
    drop(database);
    let nothing = world.server.literal(&[]);
    let lose = format!(
        "UPDATE version SET envelope = {nothing} WHERE revision = 2 AND vault = (SELECT id FROM vault ORDER BY records DESC LIMIT 1)"
    );
    assert_eq!(world.server.change(&lose), 2);
    world.server.restart();
    b.ok(&["vault", "keep", "files", "--all"]);
    assert_eq!(list(), found);
    let id = found[0]["id"].as_str().unwrap();
    let resolve = ["conflicts", "resolve", "--type", "note", "--id", id, "--keep", "local"];
    b.run(&resolve).ends(6, &["the server withholds record"]);
    crate::heal::heal(&world, &a).ok();
    b.ok(&resolve);
    assert_eq!((list().len(), a.get(id.split('~').next().unwrap())), (1, "{\"of\":\"b\"}".into()));
}

/// The policies by which a record waits for a decision come in the same round as the record.
#[test]
fn what_waits_by_policies_that_just_came_stays() {
    let (mut world, a, b) = two();
    let c = world.login("c");
    let policy = json!({ "lockstep-merge": 1, "types": { "note": {
        "schema": { "oldest": 1, "newest": 1 }, "delete": "edit-wins",
        "document": { "policy": "three-way", "default": "last-write-wins", "fields": { "number": "manual" } },
    } } });
    std::fs::write(world.path("policies.json"), policy.to_string()).unwrap();
    a.ok(&["policy", "set", "policies.json"]);
    a.put("open", "{\"number\":0}").ok();
    c.ok(&["status"]);
    world.server.stop();
    a.put("open", "{\"number\":100}").ok();
    c.put("open", "{\"number\":200}").ok();
    world.server.restart();
    a.ok(&["status"]);
    c.ok(&["status"]);
    let before = b.envelopes();
    b.ok(&["status"]);
    // The policies, and what waits by them.
    assert_eq!((b.envelopes(), b.ids("note")), (before + 2, vec!["open".to_owned()]));
    let found = b.ok(&["--json", "conflicts", "list"]).json();
    assert_eq!((found.as_array().unwrap().len(), &found[0]["id"]), (1, &json!("open")), "{found}");
    a.ok(&["conflicts", "resolve", "--type", "note", "--id", "open", "--keep", "local"]);
    b.ok(&["status"]);
    assert_eq!((b.envelopes(), b.ids("note")), (before + 1, vec![]));
}
