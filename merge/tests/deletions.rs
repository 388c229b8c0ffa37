//! Deletion against edit.

use crate::common::{Held, deletion, edit, first, held, merged, shown, stamp, view, whole};
use lockstep_merge::{Choice, Open, SameAs, Taken, TypePolicy, resolve};
use serde_json::json;

fn by_field(delete: &str) -> TypePolicy {
    whole(&json!({ "policy": "three-way", "default": "last-write-wins" }), delete)
}

/// A record that device 1 deletes at minute 2 and device 2 edits at the minute given.
fn versions(policy: &TypePolicy, edited: u64) -> (Held, Held, Held) {
    let base = first(policy, stamp(1, 1), &json!({ "n": 0 }));
    let gone = deletion(stamp(1, 2));
    let edited = edit(policy, &base, stamp(2, edited), &json!({ "n": 1 }));
    (base, gone, edited)
}

#[test]
fn an_edit_wins_where_that_is_declared() {
    let policy = by_field("edit-wins");
    let (base, gone, edited) = versions(&policy, 3);
    let there = merged(&policy, Some(&base), &edited, &gone);
    assert!(there.document == edited.document && there.same_as == SameAs::Local);
    let back = merged(&policy, Some(&base), &gone, &edited);
    assert!(back.document == edited.document && back.same_as == SameAs::Remote);
    assert_eq!(back.record.decisions[0].rule, "delete");
    assert_eq!(back.record.decisions[0].outcome, Taken::Remote);
}

#[test]
fn a_deletion_wins_where_that_is_declared_and_can_be_undone() {
    let policy = by_field("delete-wins");
    let (base, gone, edited) = versions(&policy, 3);
    let there = merged(&policy, Some(&base), &edited, &gone);
    assert!(there.document.is_none() && there.same_as == SameAs::Remote);
    let back = merged(&policy, Some(&base), &gone, &edited);
    assert!(back.document.is_none() && back.same_as == SameAs::Local);
    let again = there.record.decisions[0].undo(None, lockstep_merge::Side::Local).unwrap().unwrap();
    assert_eq!(crate::common::json_of(&again), json!({ "n": 1 }));
}

#[test]
fn the_later_of_deletion_and_edit_wins_where_that_is_declared() {
    let policy = whole(&json!("last-write-wins"), "last-write-wins");
    let (base, gone, edited) = versions(&policy, 3);
    assert!(merged(&policy, Some(&base), &gone, &edited).document.is_some());
    assert!(merged(&policy, Some(&base), &edited, &gone).document.is_some());
    let base = first(&policy, stamp(1, 1), &json!({ "n": 0 }));
    let edited = edit(&policy, &base, stamp(2, 2), &json!({ "n": 1 }));
    let gone = deletion(stamp(1, 3));
    assert!(merged(&policy, Some(&base), &gone, &edited).document.is_none());
    assert!(merged(&policy, Some(&base), &edited, &gone).document.is_none());
}

#[test]
fn by_hand_the_document_stays_and_the_deletion_waits() {
    let policy = by_field("manual");
    let (base, gone, edited) = versions(&policy, 3);
    let there = merged(&policy, Some(&base), &edited, &gone);
    let back = merged(&policy, Some(&base), &gone, &edited);
    assert!(there.document == back.document);
    assert_eq!(there.open, [Open::Deletion { by: stamp(1, 2) }]);
    assert_eq!(there.record.decisions[0].outcome, Taken::Open);
    let waiting = held(&there, &edited);
    assert_eq!(shown(&policy, &waiting), json!({ "n": 1 }));

    let more = edit(&policy, &waiting, stamp(2, 4), &json!({ "n": 2 }));
    assert_eq!(view(&policy, &more).open, there.open, "an edit decides nothing");
    let bytes = resolve(&policy, &waiting.version(), Choice::KeepDocument, stamp(2, 5)).unwrap();
    let kept = Held { document: Some(bytes), stamp: stamp(2, 5), ..waiting.clone() };
    assert!(view(&policy, &kept).open.is_empty());
    assert!(resolve(&policy, &kept.version(), Choice::KeepDocument, stamp(2, 6)).is_err());

    // The decision holds when another edit of the undecided version meets it.
    let after = merged(&policy, Some(&waiting), &more, &kept);
    assert!(after.open.is_empty());
    assert_eq!(shown(&policy, &held(&after, &more)), json!({ "n": 2 }));
}

#[test]
fn edits_that_stand_against_a_deletion_meet_on_the_base_that_they_grew_from() {
    let rule = json!({ "policy": "three-way", "fields": { "note": "text" }, "default": "last-write-wins" });
    let policy = whole(&rule, "edit-wins");
    let base = first(&policy, stamp(1, 1), &json!({ "note": "a good day\n" }));
    let one = edit(&policy, &base, stamp(2, 2), &json!({ "note": "a very good day\n" }));
    let two = edit(&policy, &base, stamp(3, 3), &json!({ "note": "a good long day\n" }));
    let gone = deletion(stamp(1, 4));
    for edited in [&one, &two] {
        assert_eq!(merged(&policy, Some(&base), edited, &gone).same_as, SameAs::Local);
    }
    let both = held(&merged(&policy, Some(&base), &two, &one), &two);
    assert_eq!(shown(&policy, &both), json!({ "note": "a very good long day\n" }));
}

#[test]
fn an_edit_that_changes_nothing_does_not_stand_against_a_deletion() {
    let policy = by_field("edit-wins");
    let base = first(&policy, stamp(1, 1), &json!({ "n": 0 }));
    let same = edit(&policy, &base, stamp(2, 3), &json!({ "n": 0 }));
    assert_eq!(merged(&policy, Some(&base), &same, &deletion(stamp(1, 2))).same_as, SameAs::Remote);
    assert_eq!(merged(&policy, Some(&base), &deletion(stamp(1, 2)), &same).same_as, SameAs::Local);
}

#[test]
fn a_deletion_of_what_nobody_edited_is_a_deletion() {
    for delete in ["edit-wins", "delete-wins", "manual"] {
        let policy = by_field(delete);
        let (base, gone, _) = versions(&policy, 3);
        assert!(merged(&policy, Some(&base), &gone, &base).document.is_none(), "{delete}");
        assert!(merged(&policy, Some(&base), &base, &gone).document.is_none(), "{delete}");
        let twice = merged(&policy, Some(&base), &gone, &deletion(stamp(2, 3)));
        assert!(twice.document.is_none() && twice.same_as == SameAs::Remote, "{delete}");
    }
}

#[test]
fn what_is_written_after_a_deletion_was_seen_is_no_clash() {
    let policy = by_field("delete-wins");
    let gone = deletion(stamp(1, 2));
    let again = edit(&policy, &gone, stamp(1, 1), &json!({ "n": 5 }));
    let after = merged(&policy, Some(&gone), &again, &gone);
    assert!(after.document == again.document && after.same_as == SameAs::Local);
}
