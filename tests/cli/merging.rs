//! Records that merge by policies, and the decisions that are left to somebody.

use crate::world::{Device, World};
use serde_json::{Value, json};

const POLICIES: &str = r#"{
  "lockstep-merge": 1,
  "types": {
    "note": {
      "schema": { "oldest": 1, "newest": 1 },
      "delete": "manual",
      "document": {
        "policy": "three-way",
        "default": "last-write-wins",
        "fields": { "count": "sum-of-deltas", "tags": "union", "diagnosis": "manual", "dose": "manual" }
      }
    }
  }
}"#;

impl Device {
    #[track_caller]
    fn fields(&self, id: &str) -> Value {
        self.ok(&["--json", "record", "get", "--type", "note", "--id", id]).json()
    }

    #[track_caller]
    fn conflicts(&self) -> Vec<Value> {
        self.ok(&["--json", "conflicts", "list"]).json().as_array().unwrap().clone()
    }

    #[track_caller]
    fn resolve(&self, id: &str, more: &[&str]) -> crate::program::Done {
        let mut arguments = vec!["conflicts", "resolve", "--type", "note", "--id", id];
        arguments.extend(more);
        self.run(&arguments)
    }
}

/// Two devices with the same records, and with policies if they are given.
fn two(world: &World, policies: Option<&str>, records: &[(&str, Value)]) -> (Device, Device) {
    let a = world.signup("a");
    if let Some(policies) = policies {
        std::fs::write(world.path("policies.json"), policies).unwrap();
        a.ok(&["policy", "set", "policies.json"]);
    }
    for (id, document) in records {
        a.put(id, &document.to_string()).ok();
    }
    let b = world.login("b");
    b.ok(&["status"]);
    (a, b)
}

/// Both write while the server is away; then first one, then the other syncs, until both have all.
fn apart(world: &mut World, [a, b]: [&Device; 2], of_a: impl FnOnce() + Send, of_b: impl FnOnce() + Send) {
    world.server.stop();
    std::thread::scope(|scope| {
        scope.spawn(of_a);
        scope.spawn(of_b);
    });
    world.server.restart();
    for device in [a, b, a, b] {
        device.ok(&["status"]);
    }
}

#[test]
fn what_both_wrote_becomes_one_and_can_be_undone() {
    let mut world = World::new();
    let first = json!({ "title": "old", "count": 1, "tags": ["x"] });
    let (a, b) = two(&world, Some(POLICIES), &[("n", first)]);
    let of_a = || drop(a.put("n", r#"{"title": "of a", "count": 2, "tags": ["x", "a"]}"#).ok());
    let of_b = || {
        // Later than the other, by the clock that both have.
        std::thread::sleep(std::time::Duration::from_secs(8));
        b.put("n", r#"{"title": "of b", "count": 5, "tags": ["b"]}"#).ok();
    };
    apart(&mut world, [&a, &b], of_a, of_b);
    for device in [&a, &b] {
        assert_eq!(device.fields("n"), json!({ "title": "of b", "count": 6, "tags": ["a", "b"] }));
        assert!(device.conflicts().is_empty());
        device.ok(&["check"]);
    }
    assert!(b.ok(&["conflicts", "list"]).out.contains("nothing waits"));
    assert!(a.ok(&["conflicts", "log"]).out.contains("nothing was merged on this device"));
    let log = b.ok(&["--json", "conflicts", "log"]).json();
    assert_eq!(log[0]["before"], json!({ "title": "of b", "count": 5, "tags": ["b"] }));
    let text = b.ok(&["conflicts", "log"]).out;
    assert!(text.contains("title (last-write-wins): \"of b\" and \"of a\" became \"of b\""), "{text}");
    let merge = log[0]["merge"].as_str().unwrap();
    b.ok(&["conflicts", "undo", &merge[..8], "--keep", "remote"]);
    // What was taken out and comes again is the newest of the set.
    let want = json!({ "title": "of a", "count": 2, "tags": ["a", "x"] });
    assert_eq!((a.fields("n"), b.fields("n")), (want.clone(), want.clone()));
    // What was changed since is not undone.
    b.run(&["conflicts", "undo", merge]).ends(2, &["changed after the merge"]);
    b.run(&["conflicts", "undo", "zz"]).ends(11, &["no merge zz"]);
    // Whoever takes everything out reads the fields, without the library's notes.
    a.ok(&["export", "--decrypted", "plain"]);
    let plain = std::fs::read(world.path("plain/files/records/note/n.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&plain).unwrap(), want);
    // Nothing is lost: every version is in the history.
    let history = a.ok(&["--json", "record", "history", "--type", "note", "--id", "n"]).json();
    assert_eq!(history.as_array().unwrap().len(), 4);
}

#[test]
fn what_is_left_to_somebody_waits_until_it_is_decided() {
    let mut world = World::new();
    let first = json!({ "diagnosis": "none", "dose": 1 });
    let ids = ["one", "two", "gone", "stays"];
    let records: Vec<_> = ids.iter().map(|id| (*id, first.clone())).collect();
    let (a, b) = two(&world, Some(POLICIES), &records);
    let of_a = || {
        for id in ["one", "two"] {
            a.put(id, r#"{"diagnosis": "flu", "dose": 2}"#).ok();
        }
        for id in ["gone", "stays"] {
            a.ok(&["record", "rm", "--type", "note", "--id", id]);
        }
    };
    let of_b = || {
        for id in ["one", "two", "gone", "stays"] {
            let dose = if id == "two" { 3 } else { 1 };
            b.put(id, &json!({ "diagnosis": "cold", "dose": dose }).to_string()).ok();
        }
    };
    apart(&mut world, [&a, &b], of_a, of_b);
    for device in [&a, &b] {
        assert_eq!(device.conflicts().len(), 5);
    }
    let shown = a.ok(&["conflicts", "show", "--type", "note", "--id", "one"]).out;
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].contains("field diagnosis: 2 values"), "{shown}");
    let of = |side: &str| lines[1..].iter().find(|line| line[3..].starts_with(side)).unwrap();
    assert!(of("local").ends_with("\"flu\"") && of("remote").ends_with("\"cold\""), "{shown}");
    let own = of("local")[..1].to_owned();
    // A field that one side alone changed does not wait.
    assert_eq!(a.fields("one")["dose"], 2);
    for wrong in ["0", "x", "9", "both"] {
        a.resolve("one", &["--keep", wrong]).ends(2, &[]);
    }
    // By its number, or by its side.
    a.resolve("one", &["--keep", &own]).ok();
    assert_eq!(b.fields("one"), json!({ "diagnosis": "flu", "dose": 2 }));
    b.resolve("two", &["--keep", "local"]).ends(2, &["--field", "diagnosis, dose"]);
    b.resolve("two", &["--keep", "remote", "--field", "diagnosis"]).ok();
    let place = ["--field", "dose", "--keep", "merged"];
    let mut merged = vec!["conflicts", "resolve", "--type", "note", "--id", "two"];
    merged.extend(place);
    b.run_with(&merged, "nonsense").ends(2, &["not JSON"]);
    b.run_with(&merged, "2.5").ok();
    assert_eq!(a.fields("two"), json!({ "diagnosis": "flu", "dose": 2.5 }));
    // It was deleted on a: its side is the deletion, and of b the edit.
    a.resolve("gone", &["--keep", "local"]).ok();
    b.resolve("stays", &["--keep", "local"]).ok();
    b.run(&["record", "get", "--type", "note", "--id", "gone"]).ends(11, &[]);
    assert_eq!(a.fields("stays"), json!({ "diagnosis": "cold", "dose": 1 }));
    for device in [&a, &b] {
        assert!(device.conflicts().is_empty());
    }
    b.resolve("stays", &["--keep", "local"]).ends(11, &["nothing of \"stays\"", "conflicts list"]);
    b.resolve("nobody", &["--keep", "local"]).ends(11, &[]);
}

/// Without a policy both are kept, and each way to decide does what it says.
#[test]
fn conflict_copies_are_decided() {
    let mut world = World::new();
    let ids = ["local", "remote", "both", "merged", "gone"];
    let records: Vec<_> = ids.iter().map(|id| (*id, json!({ "of": "nobody" }))).collect();
    let (a, b) = two(&world, None, &records);
    let of_a = || {
        for id in ids {
            if id == "gone" {
                a.ok(&["record", "rm", "--type", "note", "--id", id]);
            } else {
                a.put(id, r#"{"of": "a"}"#).ok();
            }
        }
    };
    let of_b = || {
        for id in ids {
            b.put(id, r#"{"of": "b"}"#).ok();
        }
    };
    apart(&mut world, [&a, &b], of_a, of_b);
    assert!(a.ok(&["policy", "show"]).out.contains("there are none"));
    let found = a.conflicts();
    assert_eq!((found.len(), &b.conflicts()), (ids.len(), &found));
    for conflict in &found {
        let id = conflict["id"].as_str().unwrap();
        let original = id.split_once('~').unwrap().0;
        assert_eq!(conflict["conflict"], "copy");
        assert_eq!(conflict["versions"][0]["value"], json!({ "of": "b" }));
        match original {
            "merged" => {
                let merged = ["conflicts", "resolve", "--type", "note", "--id", id, "--keep", "merged"];
                a.run_with(&merged, "[1]").ends(2, &["a map of fields"]);
                a.run_with(&merged, r#"{"of": "both"}"#).ok();
            }
            "gone" => drop(a.resolve(id, &["--keep", "local"]).ok()),
            keep => drop(a.resolve(id, &["--keep", keep]).ok()),
        }
    }
    for device in [&a, &b] {
        assert!(device.conflicts().is_empty());
        let list = device.ok(&["--json", "record", "list", "--type", "note"]).json();
        let list = list.as_array().unwrap();
        assert_eq!(list.len(), ids.len() + 1);
        for (id, of) in [("local", "b"), ("remote", "a"), ("both", "a"), ("merged", "both"), ("gone", "b")] {
            assert_eq!(device.fields(id), json!({ "of": of }), "{id}");
        }
        let kept = list.iter().find(|row| row["id"].as_str().unwrap().starts_with("both~")).unwrap();
        assert_eq!((&kept["document"], &kept["conflict"]), (&json!({ "of": "b" }), &json!(false)));
    }
}

#[test]
fn policies_are_read_strictly_and_hold_for_every_device() {
    let world = World::new();
    let (a, b) = two(&world, Some(POLICIES), &[]);
    let shown = b.ok(&["--json", "policy", "show"]).json();
    assert_eq!(
        shown,
        serde_json::from_str::<Value>(POLICIES)
            .map(|mut want| {
                want["types"]["note"]["schema"]["newer"] = shown["types"]["note"]["schema"]["newer"].clone();
                want
            })
            .unwrap()
    );
    b.put("n", "[1]").ends(2, &["a JSON object"]);
    b.put("n", r#"{"~": 1}"#).ends(2, &["\"~\""]);
    b.put("n", r#"{"a": 1}"#).ok();
    assert_eq!(a.fields("n"), json!({ "a": 1 }));
    std::fs::write(world.path("bad.json"), POLICIES.replace("union", "onion")).unwrap();
    a.run(&["policy", "set", "bad.json"]).ends(2, &["bad.json", "types.note.document.fields.tags", "onion"]);
    std::fs::write(world.path("bad.json"), "{").unwrap();
    a.run(&["policy", "set", "bad.json"]).ends(2, &["bad.json", "no JSON"]);
    a.run(&["policy", "set", "nowhere.json"]).ends(1, &["nowhere.json"]);
    // Old text that was written without a policy is replaced whole by the next write.
    let plain = ["record", "put", "--type", "memo", "--id", "m"];
    a.run_with(&plain, r#"{ "old": true }"#).ok();
    std::fs::write(world.path("more.json"), POLICIES.replace("\"note\"", "\"memo\"")).unwrap();
    a.ok(&["policy", "set", "more.json"]);
    b.run_with(&plain, r#"{ "new": true }"#).ok();
    assert_eq!(
        a.ok(&["--json", "record", "get", "--type", "memo", "--id", "m"]).json(),
        json!({ "new": true })
    );
    // Written under the policy that is not there any more: readable all the same.
    assert_eq!(b.fields("n"), json!({ "a": 1 }));
}
