//! Documents of schemas that the policy does not know, and documents that can not be merged at all.

use crate::common::{Held, deletion, edit, first, merged, outcome, policies, stamp};
use lockstep_merge::{DocumentError, Outcome, Reason, SameAs, Side, TypePolicy, limits, read, write};
use serde_json::json;

fn policy(newer: &str) -> TypePolicy {
    let policy = json!({
        "schema": { "oldest": 2, "newest": 3, "newer": newer }, "delete": "edit-wins",
        "document": { "policy": "three-way", "default": "last-write-wins" },
    });
    policies(&json!({ "lockstep-merge": 1, "types": { "t": policy } })).of("t").unwrap().clone()
}

/// Versions of one record: the base, and two edits of it, with these schemas.
fn versions(policy: &TypePolicy, one: u64, two: u64) -> (Held, Held, Held) {
    let base = Held { schema: 2, ..first(policy, stamp(1, 1), &json!({ "a": 0, "b": 0 })) };
    let one = Held { schema: one, ..edit(policy, &base, stamp(1, 2), &json!({ "a": 1, "b": 0 })) };
    let two = Held { schema: two, ..edit(policy, &base, stamp(2, 3), &json!({ "a": 0, "b": 1 })) };
    (base, one, two)
}

fn reason(policy: &TypePolicy, base: &Held, local: &Held, remote: &Held) -> Reason {
    match outcome(policy, Some(base), local, remote) {
        Outcome::Conflict(conflict) => {
            assert_eq!(conflict.later, if local.stamp > remote.stamp { Side::Local } else { Side::Remote });
            conflict.reason
        }
        Outcome::Merged(_) => panic!("it merged"),
    }
}

#[test]
fn schemas_that_merge_give_the_newer_of_them() {
    let policy = policy("keep-both");
    let (base, one, two) = versions(&policy, 3, 2);
    assert_eq!(merged(&policy, Some(&base), &one, &two).schema, 3);
    assert_eq!(merged(&policy, Some(&base), &two, &one).schema, 3);
}

#[test]
fn a_document_of_a_newer_schema_is_never_merged() {
    let keep = policy("keep-both");
    for (one, two) in [(4, 3), (3, 4), (4, 4)] {
        let (base, one, two) = versions(&keep, one, two);
        let reason = reason(&keep, &base, &one, &two);
        assert!(matches!(reason, Reason::NewerSchema { found: 4, known: 3 }), "{reason}");
    }
    let newer_wins = policy("newer-wins");
    let (base, one, two) = versions(&newer_wins, 4, 3);
    for (local, remote, same) in [(&one, &two, SameAs::Local), (&two, &one, SameAs::Remote)] {
        let taken = merged(&newer_wins, Some(&base), local, remote);
        assert!(taken.document == one.document && taken.schema == 4 && taken.same_as == same);
        assert_eq!(taken.record.decisions[0].rule, "newer-schema");
    }
}

#[test]
fn a_document_of_a_newer_schema_is_passed_on_untouched() {
    let policy = policy("keep-both");
    let (base, mut one, _) = versions(&policy, 4, 3);
    // Not even its encoding has to be known.
    one.document = Some(b"from the future".to_vec());
    assert!(merged(&policy, Some(&base), &one, &base).document == one.document);
    assert!(merged(&policy, Some(&base), &base, &one).document == one.document);
    let against = merged(&policy, Some(&base), &deletion(stamp(2, 9)), &one);
    assert!(against.document == one.document && against.same_as == SameAs::Remote);
    assert!(matches!(read(&policy, &one.version()), Err(DocumentError::NewerSchema { found: 4, known: 3 })));
    let over = write(&policy, Some(&one.version()), crate::common::fields(&json!({})), stamp(1, 9));
    assert!(matches!(over, Err(DocumentError::NewerSchema { .. })));
}

#[test]
fn a_document_of_a_schema_too_old_is_kept_beside() {
    for newer in ["keep-both", "newer-wins"] {
        let policy = policy(newer);
        let (base, one, two) = versions(&policy, 1, 3);
        let reason = reason(&policy, &base, &one, &two);
        assert!(matches!(reason, Reason::OlderSchema { found: 1, oldest: 2 }), "{reason}");
    }
}

#[test]
fn what_is_no_document_is_kept_beside() {
    let policy = policy("keep-both");
    let (base, one, two) = versions(&policy, 3, 3);
    let broken = |held: &Held| Held { document: Some(b"{\"json\":1}".to_vec()), ..held.clone() };
    let is = |reason: &Reason, want: &str| matches!(reason, Reason::Unreadable { version, .. } if *version == want);
    assert!(is(&reason(&policy, &base, &broken(&one), &two), "pending"));
    assert!(is(&reason(&policy, &base, &one, &broken(&two)), "committed"));
    assert!(is(&reason(&policy, &broken(&base), &one, &two), "base"));
}

#[test]
fn a_merged_document_that_is_too_large_keeps_both() {
    let policy = policy("keep-both");
    let base = Held { schema: 2, ..first(&policy, stamp(1, 1), &json!({})) };
    let half = "x".repeat(limits::DOCUMENT_BYTES_MAX / 2);
    let one = edit(&policy, &base, stamp(1, 2), &json!({ "a": half }));
    let two = edit(&policy, &base, stamp(2, 3), &json!({ "b": half }));
    assert!(matches!(reason(&policy, &base, &one, &two), Reason::Limit { .. }));
    let whole = "x".repeat(limits::DOCUMENT_BYTES_MAX);
    let refused = write(&policy, None, crate::common::fields(&json!({ "a": whole })), stamp(1, 1));
    assert!(matches!(refused, Err(DocumentError::Codec(_))));
}

#[test]
fn more_values_than_a_manual_field_holds_keep_both_versions() {
    let policy = crate::common::by_field(&json!({ "f": "manual", "high": "max" }));
    let base = first(&policy, stamp(200, 1), &json!({ "f": 0, "high": 0 }));
    let mut head = base.clone();
    for device in 1..=17 {
        let edited = edit(&policy, &base, stamp(device, 2), &json!({ "f": device, "high": 0 }));
        match outcome(&policy, Some(&base), &edited, &head) {
            Outcome::Merged(merged) => {
                assert!(device <= 16, "16 values fit");
                head = crate::common::held(&merged, &edited);
            }
            Outcome::Conflict(conflict) => {
                assert!(device == 17 && matches!(conflict.reason, Reason::TooManyValues));
            }
        }
    }
    // Of an extreme the lowest give way.
    let mut head = base.clone();
    for device in 1..=30 {
        let edited = edit(&policy, &base, stamp(device, 2), &json!({ "f": 0, "high": device }));
        head = crate::common::held(&merged(&policy, Some(&base), &edited, &head), &edited);
    }
    assert_eq!(crate::common::shown(&policy, &head)["high"], json!(30));
}
