//! The five companion apps: their data and their rules as files, and a clash of each type.

use crate::common::{deletion, edit, first, held, json_of, merged, shown, stamp};
use lockstep_merge::{Open, Policies, SameAs, TypePolicy};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;

const APPS: [(&str, &str); 5] = [
    ("symptom-tracker", include_str!("companions/symptom-tracker.json")),
    ("packing-list", include_str!("companions/packing-list.json")),
    ("interview-assessments", include_str!("companions/interview-assessments.json")),
    ("clinical-desktop", include_str!("companions/clinical-desktop.json")),
    ("mood-journal", include_str!("companions/mood-journal.json")),
];

fn policy(app: &str, record_type: &str) -> TypePolicy {
    let (_, text) = APPS.iter().find(|(name, _)| *name == app).unwrap();
    Policies::from_json(text).unwrap().of(record_type).unwrap().clone()
}

/// Type; what there was; what the phone made of it; what the laptop made of it later; what both have in the end;
/// fields that wait for a decision.
type Row = (&'static str, Json, Json, Json, Json, &'static [&'static str]);

/// Runs the rows with the phone's version pending, then with the laptop's.
fn check(app: &str, rows: Vec<Row>) {
    let (_, text) = APPS.iter().find(|(name, _)| *name == app).unwrap();
    let policies = Policies::from_json(text).unwrap_or_else(|error| panic!("{app}: {error}"));
    assert!(Policies::from_cbor(&policies.to_cbor()).unwrap() == policies, "{app}: the same in CBOR");
    let declared: BTreeSet<&str> = policies.types().map(|(name, _)| name).collect();
    let shown_types: BTreeSet<&str> =
        rows.iter().map(|row| row.0).filter(|name| declared.contains(name)).collect();
    assert_eq!(shown_types, declared, "{app}: every type has a row");
    for (record_type, before, phone, laptop, want, open) in rows {
        let policy = policies.of(record_type).unwrap();
        let base = first(policy, stamp(1, 1), &before);
        let phone = edit(policy, &base, stamp(1, 2), &phone);
        let laptop = edit(policy, &base, stamp(2, 3), &laptop);
        for (local, remote) in [(&phone, &laptop), (&laptop, &phone)] {
            if !policy.document().is_order_free() && local == &laptop {
                continue;
            }
            let merged = merged(policy, Some(&base), local, remote);
            assert_eq!(shown(policy, &held(&merged, local)), want, "{app}, {record_type}");
            let waiting: Vec<String> = merged.open.iter().map(path_of).collect();
            assert_eq!(waiting, open, "{app}, {record_type}");
        }
    }
}

fn path_of(open: &Open) -> String {
    match open {
        Open::Field { path, values } => {
            assert!(values.len() > 1 && values.windows(2).all(|pair| pair[0].0 < pair[1].0));
            path.join(".")
        }
        Open::Deletion { .. } => "deletion".to_owned(),
    }
}

#[test]
fn symptom_tracker() {
    let symptom = |id: &str, level: u64| json!({ "symptomId": id, "level": level });
    check(
        "symptom-tracker",
        vec![
            (
                "symptom",
                json!({ "name": "Headache", "color": "red", "tags": ["head"] }),
                json!({ "name": "Migraine", "color": "red", "tags": ["head", "often"] }),
                json!({ "name": "Headache", "color": "blue", "tags": ["head", "light"] }),
                json!({ "name": "Migraine", "color": "blue", "tags": ["head", "often", "light"] }),
                &[],
            ),
            (
                "daily-entry",
                json!({ "date": "2026-03-01", "severity": "mild", "tags": [], "symptoms": [symptom("h", 1)],
                        "photos": [], "notes": "Woke early.\n", "diagnosis": "open" }),
                json!({ "date": "2026-03-01", "severity": "severe", "tags": ["work"], "symptoms": [symptom("h", 3)],
                        "photos": ["p1"], "notes": "Woke early.\nHeadache at noon.\n", "diagnosis": "migraine" }),
                json!({ "date": "2026-03-01", "severity": "moderate", "tags": ["rain"],
                        "symptoms": [symptom("h", 1), symptom("n", 2)], "photos": ["p2"],
                        "notes": "Woke very early.\n", "diagnosis": "tension" }),
                json!({ "date": "2026-03-01", "severity": "severe", "tags": ["work", "rain"],
                        "symptoms": [symptom("h", 3), symptom("n", 2)], "photos": ["p1", "p2"],
                        "notes": "Woke very early.\nHeadache at noon.\n", "diagnosis": "tension" }),
                &["diagnosis"],
            ),
            (
                "medication",
                json!({ "name": "A", "dose": "10 mg", "times": ["08:00"] }),
                json!({ "name": "A", "dose": "20 mg", "times": ["08:00", "20:00"] }),
                json!({ "name": "A forte", "dose": "15 mg", "times": [] }),
                json!({ "name": "A forte", "dose": "15 mg", "times": ["20:00"] }),
                &["dose"],
            ),
            (
                "flare",
                json!({ "events": ["began"], "peak": 3, "over": false }),
                json!({ "events": ["began", "worse"], "peak": 7, "over": false }),
                json!({ "events": ["began", "rested"], "peak": 5, "over": true }),
                json!({ "events": ["began", "worse", "rested"], "peak": 7, "over": true }),
                &[],
            ),
            // A type that the file does not name goes by its default.
            (
                "setting",
                json!({ "a": 1, "b": 1 }),
                json!({ "a": 2, "b": 1 }),
                json!({ "a": 1, "b": 2 }),
                json!({ "a": 1, "b": 2 }),
                &[],
            ),
        ],
    );
}

#[test]
fn packing_list() {
    check(
        "packing-list",
        vec![
            (
                "list",
                json!({ "title": "Alps", "trip": { "from": "June 1", "to": "June 8" }, "collaborators": ["ann"] }),
                json!({ "title": "Alps", "trip": { "from": "June 2", "to": "June 8" }, "collaborators": ["ann", "bo"] }),
                json!({ "title": "The Alps", "trip": { "from": "June 1", "to": "June 9" }, "collaborators": [] }),
                json!({ "title": "The Alps", "trip": { "from": "June 2", "to": "June 9" }, "collaborators": ["bo"] }),
                &[],
            ),
            (
                "item",
                json!({ "name": "socks", "quantity": 4, "packedCount": 0 }),
                json!({ "name": "socks", "quantity": 6, "packedCount": 2 }),
                json!({ "name": "wool socks", "quantity": 5, "packedCount": 1 }),
                json!({ "name": "wool socks", "quantity": 6, "packedCount": 3 }),
                &[],
            ),
            (
                "category",
                json!({ "name": "c", "color": 1 }),
                json!({ "name": "Clothes", "color": 1 }),
                json!({ "name": "c", "color": 2 }),
                json!({ "name": "Clothes", "color": 2 }),
                &[],
            ),
            (
                "rule",
                json!({ "if": "rain" }),
                json!({ "if": "rain", "add": "coat" }),
                json!({ "if": "snow" }),
                json!({ "if": "snow" }),
                &[""],
            ),
        ],
    );
}

#[test]
fn interview_assessments() {
    check(
        "interview-assessments",
        vec![
            (
                "project",
                json!({ "name": "Plant", "description": "First visit.\n", "members": [], "client": "X" }),
                json!({ "name": "Plant 1", "description": "First visit.\nSecond visit.\n",
                        "members": [{ "id": "a", "role": "editor" }], "client": "Y" }),
                json!({ "name": "Plant 2", "description": "The first visit.\n",
                        "members": [{ "id": "b", "role": "viewer" }], "client": "Z" }),
                json!({ "name": "Plant 2", "description": "The first visit.\nSecond visit.\n",
                        "members": [{ "id": "a", "role": "editor" }, { "id": "b", "role": "viewer" }], "client": "Z" }),
                &["client"],
            ),
            (
                // The laptop's version is the committed one.
                "assessment",
                json!({ "completionPercentage": 10, "answered": 1 }),
                json!({ "completionPercentage": 50, "answered": 5 }),
                json!({ "completionPercentage": 30, "answered": 3 }),
                json!({ "completionPercentage": 30, "answered": 5 }),
                &[],
            ),
            (
                "response",
                json!({ "answer": "", "evidence": [], "history": [], "by": "ann" }),
                json!({ "answer": "Yes, since May.", "evidence": ["log"], "history": ["ann: yes"], "by": "ann" }),
                json!({ "answer": "No.", "evidence": ["photo"], "history": ["bo: no"], "by": "bo" }),
                json!({ "answer": "No.", "evidence": ["log", "photo"], "history": ["ann: yes", "bo: no"], "by": "bo" }),
                &["answer"],
            ),
            (
                "stakeholder",
                json!({ "name": "n", "roles": [] }),
                json!({ "name": "N", "roles": ["sponsor"] }),
                json!({ "name": "n", "roles": ["user"] }),
                json!({ "name": "N", "roles": ["sponsor", "user"] }),
                &[],
            ),
            (
                "sign-off",
                json!({ "signed": false }),
                json!({ "signed": true, "by": "ann" }),
                json!({ "signed": false, "why": "open points" }),
                json!({ "signed": false, "why": "open points" }),
                &[""],
            ),
        ],
    );
}

#[test]
fn clinical_desktop() {
    let latest = |name| -> Row {
        (
            name,
            json!({ "a": 0, "b": 0 }),
            json!({ "a": 1, "b": 0 }),
            json!({ "a": 0, "b": 2 }),
            json!({ "a": 0, "b": 2 }),
            &[],
        )
    };
    check(
        "clinical-desktop",
        vec![
            (
                "assessment",
                json!({ "form": "PHQ-9", "answers": [], "state": "open" }),
                json!({ "form": "PHQ-9", "answers": [{ "q": 1, "a": 2 }], "state": "open" }),
                json!({ "form": "PHQ-9", "answers": [{ "q": 2, "a": 0 }], "state": "done" }),
                json!({ "form": "PHQ-9", "answers": [{ "q": 1, "a": 2 }, { "q": 2, "a": 0 }], "state": "done" }),
                &[],
            ),
            latest("mood"),
            latest("activity"),
            latest("schedule"),
        ],
    );
}

#[test]
fn mood_journal() {
    check(
        "mood-journal",
        vec![
            (
                "journal-entry",
                json!({ "title": "Monday", "body": "It rained.\nI read.\n", "tags": [], "moods": [], "pinned": false }),
                json!({ "title": "Monday", "body": "It rained all day.\nI read.\n", "tags": ["rain"],
                        "moods": [{ "id": "calm", "level": 3 }], "pinned": true }),
                json!({ "title": "A Monday", "body": "It rained.\nI read a lot.\nSlept.\n", "tags": ["books"],
                        "moods": [{ "id": "tired", "level": 1 }], "pinned": false }),
                json!({ "title": "A Monday", "body": "It rained all day.\nI read a lot.\nSlept.\n",
                        "tags": ["rain", "books"],
                        "moods": [{ "id": "calm", "level": 3 }, { "id": "tired", "level": 1 }], "pinned": true }),
                &[],
            ),
            (
                "mood",
                json!({ "level": 1, "icon": "a" }),
                json!({ "level": 2, "icon": "a" }),
                json!({ "level": 1, "icon": "b" }),
                json!({ "level": 2, "icon": "b" }),
                &[],
            ),
            (
                "profile",
                json!({ "settings": { "dark": false }, "streakBest": 5, "firstEntry": 20, "entriesWritten": 10 }),
                json!({ "settings": { "dark": true, "font": "a" }, "streakBest": 9, "firstEntry": 12, "entriesWritten": 13 }),
                json!({ "settings": { "dark": null, "font": "b" }, "streakBest": 7, "firstEntry": 8, "entriesWritten": 11 }),
                // The phone's version is the pending one.
                json!({ "settings": { "dark": true, "font": "a" }, "streakBest": 9, "firstEntry": 8, "entriesWritten": 14 }),
                &[],
            ),
        ],
    );
}

#[test]
fn what_each_app_does_with_a_deletion() {
    // App, type, whether the document is there after a later edit met the deletion, whether somebody has to decide.
    let rows = [
        ("symptom-tracker", "daily-entry", true, false),
        ("symptom-tracker", "medication", true, true),
        ("packing-list", "item", false, false),
        ("packing-list", "list", true, false),
        ("interview-assessments", "sign-off", true, true),
        ("clinical-desktop", "mood", true, false),
        ("mood-journal", "journal-entry", true, false),
    ];
    for (app, record_type, is_there, waits) in rows {
        let policy = policy(app, record_type);
        let base = first(&policy, stamp(1, 1), &json!({ "n": 0 }));
        let edited = edit(&policy, &base, stamp(2, 3), &json!({ "n": 1 }));
        let merged = merged(&policy, Some(&base), &edited, &deletion(stamp(1, 2)));
        assert_eq!(merged.document.is_some(), is_there, "{app}, {record_type}");
        assert_eq!(
            merged.open.iter().any(|open| matches!(open, Open::Deletion { .. })),
            waits,
            "{app}, {record_type}"
        );
    }
}

#[test]
fn a_tie_of_clocks_ends_the_same_on_every_device() {
    let policy = policy("clinical-desktop", "mood");
    let base = first(&policy, stamp(1, 1), &json!({ "level": 0 }));
    let versions: Vec<_> =
        (1..=3).map(|device| edit(&policy, &base, stamp(device, 5), &json!({ "level": device }))).collect();
    let mut ends = BTreeSet::new();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut head = base.clone();
        for index in order {
            let merged = merged(&policy, Some(&base), &versions[index], &head);
            head = if merged.same_as == SameAs::Remote { head } else { held(&merged, &versions[index]) };
        }
        ends.insert(json_of(&shown(&policy, &head)).to_string());
    }
    assert_eq!(ends.into_iter().collect::<Vec<_>>(), [r#"{"level":3}"#]);
}
