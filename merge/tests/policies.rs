//! Policy files: what is read, and what a refusal says.

use crate::common::{json_of, policies};
use lockstep_merge::{Policies, PolicyError, limits};
use serde_json::{Value as Json, json};
use std::error::Error as _;

fn with(document: &Json) -> Json {
    with_type(&json!({ "schema": { "oldest": 1, "newest": 1 }, "delete": "edit-wins", "document": document }))
}

fn with_type(policy: &Json) -> Json {
    json!({ "lockstep-merge": 1, "types": { "note": policy } })
}

fn with_field(rule: &Json) -> Json {
    with(&json!({ "policy": "three-way", "default": "manual", "fields": { "f": rule } }))
}

#[track_caller]
fn refused(json: &Json, says: &str) {
    let error = Policies::from_json(&json.to_string()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(says), "{text:?} does not say {says:?}");
}

#[test]
fn a_file_is_the_same_in_json_and_cbor() {
    let json = with_field(&json!({ "policy": "max", "order": ["mild", "severe"] }));
    let read = policies(&json);
    assert!(Policies::from_cbor(&read.to_cbor()).unwrap() == read);
    assert!(Policies::from_json(&read.to_json()).unwrap() == read);
    let words: Vec<&str> = read.types().map(|(_, policy)| policy.document().word()).collect();
    assert_eq!(words, ["three-way"]);
    // Words that are defaults are written out.
    assert_eq!(
        serde_json::from_str::<Json>(&read.to_json()).unwrap()["types"]["note"]["schema"]["newer"],
        "keep-both"
    );
}

#[test]
fn types_without_a_policy_take_the_default_or_none() {
    let mut json = with(&json!("last-write-wins"));
    assert!(policies(&json).of("other").is_none());
    json["default"] =
        json!({ "schema": { "oldest": 1, "newest": 7 }, "delete": "manual", "document": "manual" });
    assert_eq!(policies(&json).of("other").unwrap().schema(), 7);
    assert_eq!(policies(&json).of("note").unwrap().schema(), 1);
}

#[test]
fn a_word_that_is_not_known_is_named_with_those_that_are() {
    refused(
        &with_field(&json!("latest")),
        "policy.types.note.document.fields.f: \"latest\" is no policy; write one of: last-write-wins, three-way",
    );
    refused(
        &with(&json!({ "policy": "latest" })),
        "policy.types.note.document.policy: \"latest\" is no policy",
    );
    let delete = json!({ "schema": { "oldest": 1, "newest": 1 }, "delete": "never", "document": "manual" });
    refused(&with_type(&delete), "policy.types.note.delete: \"never\" is not known; write one of: edit-wins");
}

#[test]
fn a_key_that_is_not_known_is_named() {
    refused(
        &json!({ "lockstep-merge": 1, "types": {}, "x": 1 }),
        "policy: \"x\" is not known here; take it out",
    );
    refused(&with_field(&json!({ "policy": "union", "by": "id" })), "fields.f: \"by\" is not known here");
    refused(&with_field(&json!({ "policy": "text", "key": "id" })), "fields.f: \"key\" is not known here");
}

#[test]
fn what_is_missing_is_named() {
    refused(&json!({ "types": {} }), "\"lockstep-merge\" is missing; write \"lockstep-merge\": 1");
    refused(&json!({ "lockstep-merge": 1 }), "\"types\" is missing");
    let schema = json!({ "oldest": 1, "newest": 1 });
    refused(&with_type(&json!({ "schema": schema, "document": "manual" })), "\"delete\" is missing; declare");
    refused(&with_type(&json!({ "delete": "manual", "document": "manual" })), "\"schema\" is missing");
    refused(&with_type(&json!({ "schema": schema, "delete": "manual" })), "\"document\" is missing");
    refused(
        &with(&json!({ "policy": "three-way" })),
        "\"default\" is missing; declare what holds for fields",
    );
    refused(&with(&json!("three-way")), "\"three-way\" does not say what becomes of each key");
}

#[test]
fn contradictions_are_named() {
    let late = json!({ "schema": { "oldest": 3, "newest": 2 }, "delete": "manual", "document": "manual" });
    refused(&with_type(&late), "policy.types.note.schema: oldest 3 contradicts newest 2");
    let time = json!({ "schema": { "oldest": 1, "newest": 1 }, "delete": "last-write-wins",
                       "document": { "policy": "three-way", "default": "manual" } });
    refused(&with_type(&time), "\"delete\": \"last-write-wins\" contradicts \"document\": \"three-way\"");
    for rule in ["union", "max", "min", "sum-of-deltas", "text", "append-only"] {
        refused(&with(&json!(rule)), "is for a field, not for a document");
    }
    let twice = json!({ "policy": "max", "order": ["mild", "mild"] });
    refused(&with_field(&twice), "fields.f.order: \"mild\" stands twice");
}

#[test]
fn the_formats_own_names_and_versions_are_kept() {
    let newer = json!({ "lockstep-merge": 2, "types": {} });
    refused(&newer, "format 2 is not known, this library reads format 1; update the app");
    let own = with(&json!({ "policy": "three-way", "default": "manual", "fields": { "~": "manual" } }));
    refused(&own, "the name \"~\" belongs to the library");
    let policy = &with(&json!("manual"))["types"]["note"];
    refused(&json!({ "lockstep-merge": 1, "types": { "lockstep/file": policy } }), "belong to the library");
}

#[test]
fn everything_is_bounded() {
    let policy = &with(&json!("manual"))["types"]["note"];
    let many = |count: usize| {
        (0..count).map(|i| (format!("t{i}"), policy.clone())).collect::<serde_json::Map<_, _>>()
    };
    refused(&json!({ "lockstep-merge": 1, "types": many(limits::TYPES_MAX + 1) }), "257 types, at most 256");
    policies(&json!({ "lockstep-merge": 1, "types": many(limits::TYPES_MAX) }));

    let named =
        |count: usize| (0..count).map(|i| (format!("f{i}"), json!("max"))).collect::<serde_json::Map<_, _>>();
    let fields = |count| with(&json!({ "policy": "three-way", "default": "manual", "fields": named(count) }));
    refused(&fields(limits::FIELDS_MAX + 1), "1025 fields, at most 1,024");
    policies(&fields(limits::FIELDS_MAX));

    let deep = |depth| {
        (0..depth).fold(json!("manual"), |inner, _| json!({ "policy": "three-way", "default": inner }))
    };
    refused(&with(&deep(limits::POLICY_DEPTH_MAX + 1)), "more than 4 three-way policies inside each other");
    policies(&with(&deep(limits::POLICY_DEPTH_MAX)));

    let order = |count: usize| json!({ "policy": "min", "order": (0..count).map(|i| i.to_string()).collect::<Vec<_>>() });
    refused(&with_field(&order(limits::ORDER_MAX + 1)), "65 words; write 1 to 64 words");
    refused(&with_field(&order(0)), "0 words");
    policies(&with_field(&order(limits::ORDER_MAX)));
    refused(&with_field(&json!({ "policy": "union", "key": "" })), "a key's name has 1 to 256 bytes");
    refused(&json!({ "lockstep-merge": 1, "types": { "": policy } }), "a type's name has 1 to 128 bytes");

    let long = " ".repeat(limits::POLICY_BYTES_MAX + 1);
    assert!(matches!(Policies::from_json(&long), Err(PolicyError::TooLong { .. })));
    assert!(matches!(Policies::from_cbor(long.as_bytes()), Err(PolicyError::TooLong { .. })));
}

#[test]
fn what_is_no_json_or_cbor_says_so() {
    let error = Policies::from_json("{").unwrap_err();
    assert!(error.to_string().contains("mend it at the place") && error.source().is_some());
    let error = Policies::from_json(r#"{"lockstep-merge":1,"types":{},"types":{}}"#).unwrap_err();
    assert!(error.source().unwrap().to_string().contains("a key stands twice"));
    assert!(matches!(Policies::from_cbor(b"\xa1\x61a"), Err(PolicyError::Cbor(_))));
    refused(&json!([]), "policy: this is no map");
    refused(&with_field(&json!(7)), "fields.f: this is no policy");
    refused(
        &with_type(&json!({ "schema": { "oldest": -1, "newest": 1 } })),
        "schema.oldest: this is no whole number",
    );
    assert!(Policies::from_json(&"[".repeat(100_000)).is_err(), "depth costs nothing");
}

#[test]
fn a_message_does_not_repeat_a_long_name_or_what_would_move_the_cursor() {
    let error = Policies::from_json(&with_field(&json!("x".repeat(5000))).to_string()).unwrap_err();
    assert!(error.to_string().len() < 500);
    let error = Policies::from_json(&with_field(&json!("a\u{1b}[2Jb")).to_string()).unwrap_err();
    assert!(!error.to_string().contains('\u{1b}'));
}

#[test]
fn a_rule_says_whether_order_matters() {
    let is_order_free = |json: &Json| policies(json).of("note").unwrap().document().is_order_free();
    assert!(is_order_free(&with_field(&json!("manual"))));
    assert!(!is_order_free(&with_field(&json!("prefer-pending"))));
    assert!(!is_order_free(&with(&json!({ "policy": "three-way", "default": "prefer-committed" }))));
    assert_eq!(json_of(&is_order_free(&with(&json!("last-write-wins")))), json!(true));
}
