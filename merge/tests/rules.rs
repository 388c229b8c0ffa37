//! Each rule by example: base, what device 1 made of it, what device 2 made of it a minute later, what comes of it.

use crate::common::{by_field, check, clash, edit, first, held, merged, shown, stamp, view, whole};
use lockstep_merge::{Choice, Open, SameAs, Taken, resolve};
use serde_json::json;

#[test]
fn edits_of_different_fields_are_both_made() {
    let policy = by_field(&json!({}));
    check(
        &policy,
        &json!({ "name": "tent", "weight": 2 }),
        &json!({ "name": "big tent", "weight": 2 }),
        &json!({ "name": "tent", "weight": 3, "packed": true }),
        &json!({ "name": "big tent", "weight": 3, "packed": true }),
    );
}

#[test]
fn last_write_wins_takes_the_later_value() {
    let policy = by_field(&json!({}));
    check(&policy, &json!({ "n": 1 }), &json!({ "n": 2 }), &json!({ "n": 3 }), &json!({ "n": 3 }));
    // To take a field out is a write, too.
    check(&policy, &json!({ "n": 1 }), &json!({ "n": 2 }), &json!({}), &json!({}));
    check(&policy, &json!({ "n": 1 }), &json!({}), &json!({ "n": 3 }), &json!({ "n": 3 }));
}

#[test]
fn at_the_same_time_the_greater_device_id_wins() {
    let policy = by_field(&json!({}));
    let base = first(&policy, stamp(1, 1), &json!({ "n": 0 }));
    let one = edit(&policy, &base, stamp(1, 5), &json!({ "n": 1 }));
    let two = edit(&policy, &base, stamp(2, 5), &json!({ "n": 2 }));
    let after = held(&merged(&policy, Some(&base), &one, &two), &one);
    assert_eq!(shown(&policy, &after), json!({ "n": 2 }));
}

#[test]
fn a_slow_clock_does_not_undo_what_its_device_saw() {
    let policy = by_field(&json!({}));
    let base = first(&policy, stamp(1, 1), &json!({ "n": 0 }));
    let one = edit(&policy, &base, stamp(1, 100), &json!({ "n": 1 }));
    // Device 2 saw the edit of minute 100; its own clock says minute 5. Device 3 saw neither.
    let two = edit(&policy, &one, stamp(2, 5), &json!({ "n": 2 }));
    let three = edit(&policy, &base, stamp(3, 50), &json!({ "n": 3 }));
    let after = held(&merged(&policy, Some(&base), &three, &two), &three);
    assert_eq!(shown(&policy, &after), json!({ "n": 2 }));
}

#[test]
fn a_whole_document_by_time() {
    let policy = whole(&json!("last-write-wins"), "last-write-wins");
    check(
        &policy,
        &json!({ "a": 1 }),
        &json!({ "a": 2 }),
        &json!({ "a": 1, "b": 3 }),
        &json!({ "a": 1, "b": 3 }),
    );
}

#[test]
fn a_map_merges_key_by_key_and_deeper() {
    let inner = json!({ "policy": "three-way", "fields": { "tags": "union" }, "default": "last-write-wins" });
    let policy = by_field(&json!({ "place": inner }));
    check(
        &policy,
        &json!({ "place": { "room": "a", "floor": 1, "tags": ["x"] } }),
        &json!({ "place": { "room": "b", "floor": 1, "tags": ["x", "y"] } }),
        &json!({ "place": { "room": "a", "floor": 2, "tags": ["z"] } }),
        &json!({ "place": { "room": "b", "floor": 2, "tags": ["y", "z"] } }),
    );
}

#[test]
fn a_union_keeps_additions_and_honours_removals() {
    let policy = by_field(&json!({ "tags": "union" }));
    check(
        &policy,
        &json!({ "tags": ["a", "b"] }),
        &json!({ "tags": ["a", "b", "mine"] }),
        &json!({ "tags": ["b", "yours"] }),
        &json!({ "tags": ["b", "mine", "yours"] }),
    );
}

#[test]
fn an_addition_wins_against_a_removal_that_did_not_see_it() {
    let policy = by_field(&json!({ "tags": "union" }));
    let base = first(&policy, stamp(1, 1), &json!({ "tags": ["a"] }));
    let gone = edit(&policy, &base, stamp(1, 2), &json!({ "tags": [] }));
    let again = edit(&policy, &gone, stamp(1, 3), &json!({ "tags": ["a"] }));
    let other = edit(&policy, &base, stamp(2, 4), &json!({ "tags": [] }));
    let after = held(&merged(&policy, Some(&base), &other, &again), &other);
    assert_eq!(shown(&policy, &after), json!({ "tags": ["a"] }));
}

#[test]
fn a_union_by_key_merges_elements() {
    let policy = by_field(&json!({ "items": { "policy": "union", "key": "id" } }));
    let item = |id: &str, n: u64| json!({ "id": id, "n": n });
    check(
        &policy,
        &json!({ "items": [item("a", 1), item("b", 1), item("c", 1)] }),
        &json!({ "items": [item("a", 2), item("b", 1), item("c", 1), item("d", 1)] }),
        // Removed a, which the other edited: the edit is an addition and wins. Removed c.
        &json!({ "items": [item("b", 3)] }),
        &json!({ "items": [item("a", 2), item("d", 1), item("b", 3)] }),
    );
    check(
        &policy,
        &json!({ "items": [item("a", 1)] }),
        &json!({ "items": [item("a", 2)] }),
        &json!({ "items": [item("a", 3)] }),
        &json!({ "items": [item("a", 3)] }),
    );
}

#[test]
fn max_and_min_take_the_extreme_of_concurrent_values() {
    let policy = by_field(&json!({ "high": "max", "low": "min" }));
    let at = |high: f64, low: f64| json!({ "high": high, "low": low });
    check(&policy, &at(4.5, 4.5), &at(6.5, 2.5), &at(5.5, 3.5), &at(6.5, 2.5));
    // One that nobody else changed may go down.
    check(
        &policy,
        &json!({ "high": 8, "x": 0 }),
        &json!({ "high": 3, "x": 0 }),
        &json!({ "high": 8, "x": 1 }),
        &json!({ "high": 3, "x": 1 }),
    );
}

#[test]
fn max_compares_words_by_their_order() {
    let order = ["mild", "moderate", "severe"];
    let policy = by_field(&json!({ "severity": { "policy": "max", "order": order } }));
    let at = |word: &str| json!({ "severity": word });
    check(&policy, &at("mild"), &at("severe"), &at("moderate"), &at("severe"));
    check(&policy, &at("severe"), &at("mild"), &at("moderate"), &at("moderate"));
    check(&policy, &at("severe"), &at("mild"), &at("zzz"), &at("mild"));
}

#[test]
fn deltas_add_up() {
    let policy = by_field(&json!({ "count": "sum-of-deltas" }));
    let at = |count: i64| json!({ "count": count });
    check(&policy, &at(10), &at(13), &at(5), &at(8));
    check(&policy, &at(10), &at(11), &at(11), &at(12));
    // A number that was taken out counts as 0.
    check(&policy, &at(10), &json!({}), &at(12), &at(2));
    check(&policy, &json!({}), &at(2), &at(3), &at(3));
}

#[test]
fn two_that_counted_the_same_add_up_even_after_a_third() {
    let policy = by_field(&json!({ "count": "sum-of-deltas" }));
    let base = first(&policy, stamp(1, 1), &json!({ "count": 10 }));
    let one = edit(&policy, &base, stamp(1, 2), &json!({ "count": 14 }));
    let two = edit(&policy, &base, stamp(2, 3), &json!({ "count": 14 }));
    // Device 3 is first, with the latest clock; then 1 and 2 are put onto its version, and look the same.
    let three = edit(&policy, &base, stamp(3, 9), &json!({ "count": 12 }));
    let one = held(&merged(&policy, Some(&base), &one, &three), &one);
    let two = held(&merged(&policy, Some(&base), &two, &three), &two);
    assert_eq!(one.document, two.document);
    let after = held(&merged(&policy, Some(&three), &two, &one), &two);
    assert_eq!(shown(&policy, &after), json!({ "count": 20 }));
}

#[test]
fn a_sum_ends_where_numbers_end() {
    let policy = by_field(&json!({ "count": "sum-of-deltas" }));
    let near = u64::MAX - 1;
    let at = |count: u64| json!({ "count": count });
    check(&policy, &at(near - 5), &at(near), &at(near), &at(u64::MAX));
}

#[test]
fn text_merges_by_lines_and_words() {
    let policy = by_field(&json!({ "note": "text" }));
    let note = |text: &str| json!({ "note": text });
    check(
        &policy,
        &note("Slept well.\nWalked.\n"),
        &note("Slept very well.\nWalked.\n"),
        &note("Slept well.\nWalked.\nRead.\n"),
        &note("Slept very well.\nWalked.\nRead.\n"),
    );
    check(&policy, &note("fair"), &note("good"), &note("bad"), &note("good\nbad"));
    // Taking the text out gives way to an edit of it.
    check(&policy, &note("fair"), &note("good"), &json!({}), &note("good"));
}

#[test]
fn a_list_that_only_grows_keeps_everything_in_the_order_of_time() {
    let policy = by_field(&json!({ "log": "append-only" }));
    check(
        &policy,
        &json!({ "log": ["start"] }),
        &json!({ "log": ["start", "one", "one"] }),
        // An entry that is missing was not taken out.
        &json!({ "log": ["two"] }),
        &json!({ "log": ["start", "one", "one", "two"] }),
    );
}

#[test]
fn a_side_may_be_preferred() {
    let policy = by_field(&json!({ "pending": "prefer-pending", "committed": "prefer-committed" }));
    let at = |n: u64| json!({ "pending": n, "committed": n });
    // Device 1's version is the pending one.
    check(&policy, &at(0), &at(1), &at(2), &json!({ "pending": 1, "committed": 2 }));
    // What one side alone changed is no clash.
    check(
        &policy,
        &at(0),
        &json!({ "pending": 0, "committed": 1 }),
        &at(0),
        &json!({ "pending": 0, "committed": 1 }),
    );
}

#[test]
fn manual_keeps_every_value_until_somebody_decides() {
    let policy = by_field(&json!({ "answer": "manual" }));
    let answer = |text: &str| json!({ "answer": text });
    let merged = clash(&policy, &answer("?"), &answer("yes"), &answer("no"));
    let values = vec![
        (stamp(1, 2), Some(crate::common::value(&json!("yes")))),
        (stamp(2, 3), Some(crate::common::value(&json!("no")))),
    ];
    let path = vec!["answer".to_owned()];
    assert_eq!(merged.open, [Open::Field { path: path.clone(), values: values.clone() }]);
    assert_eq!(merged.record.decisions[0].outcome, Taken::Open);
    let version = held(&merged, &first(&policy, stamp(1, 2), &json!({})));
    assert_eq!(shown(&policy, &version), answer("no"), "the latest is shown");

    // An edit elsewhere decides nothing; an edit of the field replaces the value that was seen.
    let elsewhere = edit(&policy, &version, stamp(3, 4), &json!({ "answer": "no", "x": 1 }));
    assert_eq!(view(&policy, &elsewhere).open, merged.open);
    let edited = edit(&policy, &version, stamp(3, 4), &answer("never"));
    let Open::Field { values: now, .. } = &view(&policy, &edited).open[0] else { panic!("a field") };
    assert_eq!(now[0], values[0]);
    assert_eq!(now[1].0, stamp(3, 4));

    let choice = Choice::Field { path: path.clone(), value: values[0].1.clone() };
    let bytes = resolve(&policy, &version.version(), choice.clone(), stamp(3, 5)).unwrap();
    let resolved = crate::common::Held { document: Some(bytes), ..version.clone() };
    assert_eq!(shown(&policy, &resolved), answer("yes"));
    assert!(view(&policy, &resolved).open.is_empty());
    assert!(resolve(&policy, &resolved.version(), choice, stamp(3, 6)).is_err(), "nothing waits any more");
}

#[test]
fn the_same_answer_twice_is_no_conflict() {
    let policy = by_field(&json!({ "answer": "manual" }));
    let answer = |text: &str| json!({ "answer": text });
    let merged = clash(&policy, &answer("?"), &answer("yes"), &answer("yes"));
    assert!(merged.open.is_empty());
    check(&policy, &answer("?"), &answer("yes"), &answer("yes"), &answer("yes"));
}

#[test]
fn a_decision_holds_against_those_who_had_not_seen_the_conflict_only_for_what_it_saw() {
    let policy = by_field(&json!({ "answer": "manual" }));
    let answer = |text: &str| json!({ "answer": text });
    let base = first(&policy, stamp(1, 1), &answer("?"));
    let one = edit(&policy, &base, stamp(1, 2), &answer("yes"));
    let two = edit(&policy, &base, stamp(2, 3), &answer("no"));
    let three = edit(&policy, &base, stamp(3, 4), &answer("perhaps"));
    let both = held(&merged(&policy, Some(&base), &two, &one), &two);
    let choice = Choice::Field { path: vec!["answer".to_owned()], value: None };
    let bytes = resolve(&policy, &both.version(), choice, stamp(1, 5)).unwrap();
    let resolved = crate::common::Held { document: Some(bytes), stamp: stamp(1, 5), ..both };
    let late = merged(&policy, Some(&base), &three, &resolved);
    let Open::Field { values, .. } = &late.open[0] else { panic!("a field") };
    let who: Vec<_> = values.iter().map(|(stamp, value)| (*stamp, value.is_some())).collect();
    assert_eq!(who, [(stamp(3, 4), true), (stamp(1, 5), false)]);
}

#[test]
fn a_whole_document_by_hand() {
    let policy = whole(&json!("manual"), "manual");
    let merged = clash(&policy, &json!({ "a": 1 }), &json!({ "a": 2 }), &json!({ "a": 3 }));
    let Open::Field { path, values } = &merged.open[0] else { panic!("a field") };
    assert!(path.is_empty());
    let shown: Vec<_> = values.iter().map(|(_, value)| crate::common::json_of(value)).collect();
    assert_eq!(shown, [json!({ "a": 2 }), json!({ "a": 3 })]);
}

#[test]
fn a_value_of_another_shape_goes_by_time() {
    let policy = by_field(
        &json!({ "tags": "union", "count": "sum-of-deltas", "map": { "policy": "three-way", "default": "manual" } }),
    );
    check(
        &policy,
        &json!({ "tags": ["a"], "count": 1, "map": { "a": 1 } }),
        &json!({ "tags": ["a", "b"], "count": 2, "map": { "a": 2 } }),
        &json!({ "tags": null, "count": 1.5, "map": "none" }),
        &json!({ "tags": null, "count": 1.5, "map": "none" }),
    );
    check(
        &policy,
        &json!({ "tags": null }),
        &json!({ "tags": ["a"] }),
        &json!({ "tags": ["b"] }),
        &json!({ "tags": ["a", "b"] }),
    );
}

#[test]
fn what_only_one_side_changed_is_taken_as_it_is() {
    let policy = by_field(&json!({ "tags": "union" }));
    let base = first(&policy, stamp(1, 1), &json!({ "tags": ["a"] }));
    let edited = edit(&policy, &base, stamp(2, 2), &json!({ "tags": ["b"] }));
    let local = merged(&policy, Some(&base), &edited, &base);
    assert!(local.same_as == SameAs::Local && local.document == edited.document);
    let remote = merged(&policy, Some(&base), &base, &edited);
    assert!(remote.same_as == SameAs::Remote && remote.document == edited.document);
    let both = merged(&policy, Some(&base), &edited, &edited);
    assert!(both.same_as == SameAs::Both && both.document == edited.document);
}

#[test]
fn an_edit_that_loses_everywhere_leaves_nothing_to_send() {
    let policy = by_field(&json!({}));
    let base = first(&policy, stamp(1, 1), &json!({ "n": 0 }));
    let one = edit(&policy, &base, stamp(1, 2), &json!({ "n": 1 }));
    let two = edit(&policy, &base, stamp(2, 3), &json!({ "n": 2 }));
    assert_eq!(merged(&policy, Some(&base), &one, &two).same_as, SameAs::Remote);
    assert_eq!(merged(&policy, Some(&base), &two, &one).same_as, SameAs::Local);
}

#[test]
fn two_that_made_the_same_record_merge_without_a_base() {
    let policy = by_field(&json!({ "tags": "union", "count": "sum-of-deltas", "note": "text" }));
    let one = first(&policy, stamp(1, 1), &json!({ "name": "a", "tags": ["x"], "count": 5, "note": "left" }));
    let two =
        first(&policy, stamp(2, 2), &json!({ "name": "b", "tags": ["y"], "count": 7, "note": "right" }));
    let after = held(&merged(&policy, None, &one, &two), &one);
    let want = json!({ "name": "b", "tags": ["x", "y"], "count": 7, "note": "left\nright" });
    assert_eq!(shown(&policy, &after), want);
}

#[test]
fn plain_versions_merge_by_what_differs_from_the_base() {
    // Written by a program that does not note anything.
    let policy = by_field(&json!({ "tags": "union" }));
    let base = first(&policy, stamp(1, 1), &json!({ "a": 1, "b": 1, "tags": ["x"] }));
    let one = first(&policy, stamp(1, 2), &json!({ "a": 2, "b": 1, "tags": ["x", "y"] }));
    let two = first(&policy, stamp(2, 3), &json!({ "a": 1, "b": 2, "tags": [] }));
    let after = held(&merged(&policy, Some(&base), &one, &two), &one);
    assert_eq!(shown(&policy, &after), json!({ "a": 2, "b": 2, "tags": ["y"] }));
}
