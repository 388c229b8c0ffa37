//! What a host store wrote without having seen what is here, and what is here, as one document.

use super::Fields;

/// Who wins where both changed one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Newer {
    /// The store: somebody wrote it just now.
    Store,
    /// What is here: the store's row is of unknown age.
    Here,
}

/// Field by field, against what the store knew before, if it knew anything.
pub(crate) fn join(base: Option<&Fields>, store: &Fields, here: &Fields, newer: Newer) -> Fields {
    let mut joined = Fields::new();
    for field in store.keys().chain(here.keys()) {
        let (of_store, of_here) = (store.get(field), here.get(field));
        let winner = match base.map(|base| base.get(field)) {
            _ if of_store == of_here => of_here,
            Some(of_base) if of_store == of_base => of_here,
            Some(of_base) if of_here == of_base => of_store,
            None if of_here.is_none() => of_store,
            None if of_store.is_none() => of_here,
            _ if newer == Newer::Store => of_store,
            _ => of_here,
        };
        if let Some(value) = winner {
            joined.insert(field.clone(), value.clone());
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn fields(value: Value) -> Fields {
        match value {
            Value::Object(fields) => fields,
            _ => panic!(),
        }
    }

    #[test]
    fn edits_of_different_fields_meet() {
        let base = fields(json!({"a": 1, "b": 1, "c": 1, "gone": 1}));
        let store = fields(json!({"a": 2, "b": 1, "c": 2, "gone": 1, "new": 1}));
        let here = fields(json!({"a": 1, "b": 3, "c": 3, "also": 1}));
        let expect = |c: i32| fields(json!({"a": 2, "b": 3, "c": c, "new": 1, "also": 1}));
        assert_eq!(join(Some(&base), &store, &here, Newer::Store), expect(2));
        assert_eq!(join(Some(&base), &store, &here, Newer::Here), expect(3));
    }

    #[test]
    fn rows_without_a_common_past_add_up() {
        let store = fields(json!({"date": "d", "mood": 2, "note": "n"}));
        let here = fields(json!({"date": "d", "mood": 5, "sleep": 7}));
        let joined = fields(json!({"date": "d", "mood": 5, "note": "n", "sleep": 7}));
        assert_eq!(join(None, &store, &here, Newer::Here), joined);
    }
}
