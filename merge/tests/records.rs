//! What a merge says that it decided, and undoing it.

use crate::common::{by_field, clash, edit, first, held, json_of, merged, shown, stamp, view, whole};
use lockstep_merge::{Record, Side, Taken, UndoError};
use lockstep_proto::cbor::Wire as _;
use serde_json::json;

#[test]
fn every_changed_field_has_a_decision() {
    let policy = by_field(&json!({ "tags": "union", "sum": "sum-of-deltas" }));
    let merged = clash(
        &policy,
        &json!({ "a": 0, "b": 0, "c": 0, "d": 0, "same": 0, "tags": [], "sum": 0 }),
        &json!({ "a": 1, "b": 0, "c": 1, "d": 0, "same": 5, "tags": ["x"], "sum": 1 }),
        &json!({ "a": 0, "b": 2, "c": 2, "d": 0, "same": 5, "tags": ["y"], "sum": 2 }),
    );
    let said: Vec<(String, &str, Taken)> = merged
        .record
        .decisions
        .iter()
        .map(|decision| (decision.path.join("."), decision.rule.as_str(), decision.outcome))
        .collect();
    let last = "last-write-wins";
    let want = [
        ("a".to_owned(), last, Taken::OnlyLocal),
        ("b".to_owned(), last, Taken::OnlyRemote),
        ("c".to_owned(), last, Taken::Remote),
        ("same".to_owned(), last, Taken::Equal),
        ("sum".to_owned(), "sum-of-deltas", Taken::Combined),
        ("tags".to_owned(), "union", Taken::Combined),
    ];
    assert_eq!(said, want);
    assert_eq!((merged.record.local, merged.record.remote), (stamp(1, 2), stamp(2, 3)));
    assert_eq!(merged.record.base, [stamp(1, 1)]);
}

#[test]
fn a_record_is_written_and_read() {
    let policy = by_field(&json!({}));
    let record = clash(&policy, &json!({ "a": 0 }), &json!({ "a": 1 }), &json!({})).record;
    let bytes = record.encode();
    assert!(Record::decode(&bytes).unwrap() == record);
    assert!(Record::decode(&bytes[..bytes.len() - 1]).is_err());
    assert!(!format!("{record:?}").contains("Int"), "no value gets into a log");
}

#[test]
fn a_decision_is_undone_field_by_field() {
    let policy = by_field(&json!({ "place": { "policy": "three-way", "default": "last-write-wins" } }));
    let base = first(&policy, stamp(1, 1), &json!({ "a": 0, "place": { "room": 0 } }));
    let one = edit(&policy, &base, stamp(1, 2), &json!({ "a": 1, "place": { "room": 1 } }));
    let two = edit(&policy, &base, stamp(2, 3), &json!({ "a": 2, "b": 2, "place": {} }));
    let merged = merged(&policy, Some(&base), &one, &two);
    let after = held(&merged, &one);
    assert_eq!(shown(&policy, &after), json!({ "a": 2, "b": 2, "place": {} }));
    let fields = view(&policy, &after).fields;
    let decision =
        |path: &[&str]| merged.record.decisions.iter().find(|one| one.path == path).unwrap().clone();

    let undone = decision(&["place", "room"]).undo(Some(&fields), Side::Local).unwrap().unwrap();
    assert_eq!(json_of(&undone), json!({ "a": 2, "b": 2, "place": { "room": 1 } }));
    // Undone as an edit, it is on top of what it undoes.
    let undone = edit(&policy, &after, stamp(3, 1), &json_of(&undone));
    let again = crate::common::merged(&policy, Some(&after), &undone, &after);
    assert_eq!(shown(&policy, &held(&again, &undone))["place"]["room"], json!(1));

    let written = view(&policy, &edit(&policy, &after, stamp(3, 9), &json!({ "a": 7 }))).fields;
    assert_eq!(decision(&["a"]).undo(Some(&written), Side::Local), Err(UndoError::ChangedSince));
    assert_eq!(decision(&["b"]).undo(Some(&fields), Side::Local), Err(UndoError::NothingToUndo));
}

#[test]
fn a_whole_document_is_undone() {
    let policy = whole(&json!("last-write-wins"), "last-write-wins");
    let merged = clash(&policy, &json!({ "a": 0 }), &json!({ "a": 1 }), &json!({ "b": 2 }));
    let decision = &merged.record.decisions[0];
    assert!(decision.path.is_empty() && decision.outcome == Taken::Remote);
    let now = crate::common::fields(&json!({ "b": 2 }));
    assert_eq!(json_of(&decision.undo(Some(&now), Side::Local).unwrap()), json!({ "a": 1 }));
}
