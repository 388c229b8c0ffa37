//! Objects of merged documents: none that the document names is ever left out.

use crate::common::{Held, by_field, edit, first, merged, stamp};
use lockstep_merge::Object;
use lockstep_proto::id::BlobId;
use serde_json::json;

fn object(n: u8) -> Object {
    Object { id: BlobId::from_bytes([n; 16]), reference: vec![n] }
}

fn name(n: u8) -> String {
    BlobId::from_bytes([n; 16]).to_string()
}

fn with(held: Held, objects: &[u8]) -> Held {
    Held { objects: objects.iter().map(|n| object(*n)).collect(), ..held }
}

fn numbers(objects: &[Object]) -> Vec<u8> {
    objects.iter().map(|object| object.reference[0]).collect()
}

#[test]
fn what_both_added_stays_and_what_one_took_out_goes() {
    let policy = by_field(&json!({ "photos": "union" }));
    let at = |photos: &[u8]| json!({ "photos": photos.iter().map(|n| name(*n)).collect::<Vec<_>>() });
    let base = with(first(&policy, stamp(9, 1), &at(&[1, 2])), &[1, 2]);
    let one = with(edit(&policy, &base, stamp(1, 2), &at(&[1, 2, 3])), &[1, 2, 3]);
    let two = with(edit(&policy, &base, stamp(2, 3), &at(&[2, 4])), &[2, 4]);
    for (local, remote) in [(&one, &two), (&two, &one)] {
        assert_eq!(numbers(&merged(&policy, Some(&base), local, remote).objects), [2, 3, 4]);
    }
}

#[test]
fn an_object_that_a_side_took_out_stays_while_the_document_names_it() {
    let policy = by_field(&json!({}));
    let base = with(first(&policy, stamp(9, 1), &json!({ "photo": name(1), "x": 0 })), &[1]);
    let one = with(edit(&policy, &base, stamp(1, 2), &json!({ "photo": null, "x": 0 })), &[]);
    // Device 2 wrote the field later: it keeps the photo, with another caption.
    let two = with(edit(&policy, &base, stamp(2, 3), &json!({ "photo": [name(1), "sea"], "x": 1 })), &[1]);
    let three = with(edit(&policy, &base, stamp(3, 2), &json!({ "photo": null, "x": 0, "y": 1 })), &[]);
    assert_eq!(numbers(&merged(&policy, Some(&base), &one, &two).objects), [1]);
    assert_eq!(numbers(&merged(&policy, Some(&base), &three, &two).objects), [1]);
    assert!(merged(&policy, Some(&base), &one, &three).objects.is_empty());
}

#[test]
fn every_value_of_a_conflict_keeps_its_object() {
    let policy = by_field(&json!({ "photo": "manual" }));
    let base = with(first(&policy, stamp(9, 1), &json!({ "photo": name(1) })), &[1]);
    let one = with(edit(&policy, &base, stamp(1, 2), &json!({ "photo": name(2) })), &[2]);
    let two = with(edit(&policy, &base, stamp(2, 3), &json!({ "photo": name(3) })), &[3]);
    let both = merged(&policy, Some(&base), &one, &two);
    assert_eq!(numbers(&both.objects), [2, 3]);
    // The photo that lost its place is not shown, and is there: device 3 keeps it beside another edit.
    let both = crate::common::held(&both, &one);
    let three = with(edit(&policy, &base, stamp(3, 4), &json!({ "photo": name(1), "x": 1 })), &[1]);
    assert_eq!(numbers(&merged(&policy, Some(&base), &three, &both).objects), [2, 3]);
}
