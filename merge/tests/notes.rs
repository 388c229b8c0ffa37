//! What merging notes in a document: it is hidden from the app, small, versioned, and its damage is no panic.

use crate::common::{
    Held, by_field, edit, fields, first, held, json_of, merged, outcome, shown, stamp, value,
};
use lockstep_merge::{DocumentError, NotesError, Outcome, Reason, Value, read, write};
use serde_json::{Value as Json, json};

fn notes(held: &Held) -> Option<Value> {
    #[derive(serde::Deserialize, serde::Serialize)]
    struct Raw(Value);
    let raw: Raw = lockstep_proto::cbor::decode_local(held.document.as_ref().unwrap()).unwrap();
    match raw.0 {
        Value::Map(mut fields) => fields.remove("~"),
        _ => panic!("a map"),
    }
}

/// Stands in the place of the notes of a version.
fn with_notes(held: &Held, notes: &Json) -> Held {
    let map = Value::Map(
        std::iter::once(("~".to_owned(), value(notes))).chain([("n".to_owned(), value(&json!(1)))]).collect(),
    );
    Held { document: Some(lockstep_proto::cbor::encode(&map)), ..held.clone() }
}

#[test]
fn a_first_version_has_no_notes_and_an_edit_has() {
    let policy = by_field(&json!({}));
    let base = first(&policy, stamp(1, 1), &json!({ "a": 1, "b": 1, "c": 1 }));
    assert!(notes(&base).is_none());
    let edited = edit(&policy, &base, stamp(2, 2), &json!({ "a": 1, "b": 2, "c": 1 }));
    let Some(Value::Array(parts)) = notes(&edited) else { panic!("notes") };
    // Format; two stamps; all fields of the first, but for b; no deletion waits.
    assert_eq!(json_of(&parts[0]), json!(1));
    assert_eq!(json_of(&parts[1]).as_array().unwrap().len(), 2);
    assert_eq!(json_of(&parts[2]), json!(["m", 0, { "b": 1 }]));
    assert_eq!(json_of(&parts[3]), json!(null));
    assert_eq!(shown(&policy, &edited), json!({ "a": 1, "b": 2, "c": 1 }), "the app does not see them");
    let size = edited.document.unwrap().len() - base.document.unwrap().len();
    assert!(size < 80, "{size} bytes");
}

#[test]
fn every_kind_of_note_is_read_as_it_was_written() {
    let policy = by_field(&crate::schedule::policy_fields());
    let json = crate::schedule::base_json();
    let base = first(&policy, stamp(9, 1), &json);
    let mut one = json.clone();
    let mut two = json.clone();
    for (json, n) in [(&mut one, 1), (&mut two, 2)] {
        json["tags"].as_array_mut().unwrap().push(json!("same"));
        json["items"][0]["n"] = json!(n);
        json["log"].as_array_mut().unwrap().push(json!(n));
        for name in ["title", "high", "low", "answer", "count", "note", "new"] {
            json[name] = json!(n);
        }
        json["note"] = json!(format!("{n}"));
        json["place"]["answer"] = json!(n);
        json.as_object_mut().unwrap().remove("free");
    }
    let one = edit(&policy, &base, stamp(1, 2), &one);
    let two = edit(&policy, &base, stamp(2, 3), &two);
    let both = held(&merged(&policy, Some(&base), &one, &two), &one);
    // Written again without a change, the bytes are the same: reading lost nothing.
    let again = edit(&policy, &both, stamp(1, 9), &shown(&policy, &both));
    assert!(again.document == both.document);
}

#[test]
fn the_librarys_field_is_not_the_apps() {
    let policy = by_field(&json!({}));
    let refused = write(&policy, None, fields(&json!({ "~": 1 })), stamp(1, 1));
    assert!(matches!(refused, Err(DocumentError::ReservedField)));
    // Inside a map it is a name like others.
    first(&policy, stamp(1, 1), &json!({ "map": { "~": 1 } }));
}

#[test]
fn notes_of_a_later_library_keep_both_versions() {
    let policy = by_field(&json!({}));
    let base = first(&policy, stamp(1, 1), &json!({ "n": 0 }));
    let one = edit(&policy, &base, stamp(1, 2), &json!({ "n": 2 }));
    let later = with_notes(&Held { stamp: stamp(2, 3), ..base.clone() }, &json!([2, "whatever"]));
    let Outcome::Conflict(conflict) = outcome(&policy, Some(&base), &one, &later) else {
        panic!("a conflict")
    };
    let Reason::Unreadable { version: "committed", source } = &conflict.reason else { panic!("unreadable") };
    assert!(source.to_string().contains("in format 2, this library reads format 1"), "{source}");
}

#[test]
fn malformed_notes_are_named() {
    let policy = by_field(&json!({ "t": "text" }));
    let base = first(&policy, stamp(1, 1), &json!({ "n": 0 }));
    let edited = edit(&policy, &base, stamp(2, 2), &json!({ "n": 1 }));
    let stamps = json_of(&notes(&edited).unwrap())[1].clone();
    assert!(stamps[0][2].is_array(), "a device id");
    let malformed = [
        json!(1),
        json!([]),
        json!(["1"]),
        json!([1, [], 0, null]),
        json!([1, [[1, 2]], 0, null]),
        json!([1, [[1, 2, "device"]], 0, null]),
        json!([1, [], ["m", null, {}], null]),
        json!([1, [], ["r", []], null]),
        json!([1, [], ["x"], null]),
        json!([1, [], 0, 5]),
        json!([1, [], 0]),
    ];
    for notes in malformed {
        let damaged = with_notes(&edited, &notes);
        let error = read(&policy, &damaged.version()).unwrap_err();
        assert!(matches!(error, DocumentError::Notes(NotesError::Malformed)), "{notes}: {error}");
    }
}

#[test]
fn a_policy_that_changes_reads_older_notes_as_what_is_shown() {
    let before = by_field(&json!({ "f": "manual", "tags": "last-write-wins", "t": "text" }));
    let base = first(&before, stamp(1, 1), &json!({ "f": 0, "tags": ["a"], "t": "x" }));
    let one = edit(&before, &base, stamp(1, 2), &json!({ "f": 1, "tags": ["a", "b"], "t": "x one" }));
    let two = edit(&before, &base, stamp(2, 3), &json!({ "f": 2, "tags": ["a"], "t": "two x" }));
    let both = held(&merged(&before, Some(&base), &one, &two), &one);
    let shown_before = shown(&before, &both);
    assert_eq!(shown_before, json!({ "f": 2, "tags": ["a", "b"], "t": "two x one" }));
    for fields in [
        json!({ "f": "last-write-wins", "tags": "union", "t": "last-write-wins" }),
        json!({ "f": "sum-of-deltas", "tags": "append-only", "t": "manual" }),
        json!({}),
    ] {
        let after = by_field(&fields);
        assert_eq!(shown(&after, &both), shown_before, "{fields}");
    }
    // And from rules that note more than a stamp.
    let rich = by_field(&json!({ "tags": "union", "log": "append-only" }));
    let base = first(&rich, stamp(1, 1), &json!({ "tags": ["a"], "log": [1] }));
    let more = edit(&rich, &base, stamp(1, 2), &json!({ "tags": ["a", "b"], "log": [1, 2] }));
    assert_eq!(shown(&by_field(&json!({})), &more), json!({ "tags": ["a", "b"], "log": [1, 2] }));
}
