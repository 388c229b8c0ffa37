//! What a merge decided, so that it can be shown and undone.

use crate::limits::RECORD_BYTES_MAX;
use crate::merge::Side;
use crate::policy::Rule;
use crate::stamp::Stamp;
use crate::state::{State, rule_of};
use crate::value::{Fields, Value};
use lockstep_proto::cbor::Wire;
use lockstep_proto::wire_array;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeSet;

wire_array! {
    /// What one merge decided. The pending version itself is not in it: who wants to undo a merge keeps that, too.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Record {
        /// The base's stamp; empty if there was none.
        pub base: Vec<Stamp>,
        /// The pending version's stamp.
        pub local: Stamp,
        /// The committed version's stamp.
        pub remote: Stamp,
        /// By field, in the order of their names.
        pub decisions: Vec<Decision>,
    }
}

wire_array! {
    /// What was decided for one field, or for the whole document (empty path).
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Decision {
        /// The field, from the outermost map in.
        pub path: Vec<String>,
        /// The policy's word, or "delete", or "newer-schema".
        pub rule: String,
        /// Whose value it is.
        pub outcome: Outcome,
        /// The pending value. Where only one side changed the field, this and the next two are not noted.
        pub local: Slot,
        /// The committed value.
        pub remote: Slot,
        /// The merged value, as the app sees it.
        pub merged: Slot,
    }
}

/// Whose value a field has after a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// Only the pending version changed it.
    OnlyLocal,
    /// Only the committed version changed it.
    OnlyRemote,
    /// Both changed it; the pending value stays.
    Local,
    /// Both changed it; the committed value stays.
    Remote,
    /// Both made the same of it.
    Equal,
    /// Both are in it.
    Combined,
    /// Every value waits for somebody to decide.
    Open,
}

/// A value, or none: written as a list of one or none.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Slot(pub Option<Value>);

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slot([redacted])")
    }
}

impl Serialize for Slot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_slice().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Slot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut items: Vec<Value> = Vec::deserialize(deserializer)?;
        let item = items.pop();
        if !items.is_empty() {
            return Err(serde::de::Error::custom("more than one value"));
        }
        Ok(Self(item))
    }
}

impl Wire for Record {
    const NAME: &'static str = "merge record";
    const BYTES_MAX: usize = RECORD_BYTES_MAX;
    const SECRET: bool = true;
}

/// Why a decision is not undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UndoError {
    /// The field was written since.
    #[error("the field was changed after the merge: write the value that it shall have")]
    ChangedSince,
    /// Only one side had changed it.
    #[error("only one version had changed the field: there is nothing to undo")]
    NothingToUndo,
}

impl Decision {
    /// Whether both sides had changed it.
    pub const fn is_clash(&self) -> bool {
        !matches!(self.outcome, Outcome::OnlyLocal | Outcome::OnlyRemote)
    }

    /// The document's fields with one side's value in the place of the merged one, to be written as an edit; none
    /// if that side had deleted the document. `now` is what the document is now; none if it is deleted.
    ///
    /// # Errors
    /// [`UndoError`]: what was written since is not undone.
    pub fn undo(&self, now: Option<&Fields>, to: Side) -> Result<Option<Fields>, UndoError> {
        if !self.is_clash() {
            return Err(UndoError::NothingToUndo);
        }
        let wanted = match to {
            Side::Local => &self.local,
            Side::Remote => &self.remote,
        };
        let root = now.map(|fields| Value::Map(fields.clone()));
        if at(root.as_ref(), &self.path) != self.merged.0.as_ref() {
            return Err(UndoError::ChangedSince);
        }
        match put(root, &self.path, wanted.0.clone()) {
            Some(Value::Map(fields)) => Ok(Some(fields)),
            None => Ok(None),
            Some(_) => Err(UndoError::ChangedSince),
        }
    }
}

fn at<'a>(value: Option<&'a Value>, path: &[String]) -> Option<&'a Value> {
    match (value, path.split_first()) {
        (value, None) => value,
        (Some(Value::Map(fields)), Some((name, rest))) => at(fields.get(name), rest),
        _ => None,
    }
}

fn put(value: Option<Value>, path: &[String], new: Option<Value>) -> Option<Value> {
    let Some((name, rest)) = path.split_first() else { return new };
    let mut fields = match value {
        Some(Value::Map(fields)) => fields,
        _ => Fields::new(),
    };
    let child = fields.remove(name);
    if let Some(child) = put(child, rest, new) {
        fields.insert(name.clone(), child);
    }
    Some(Value::Map(fields))
}

/// What was decided for every field that a side changed.
pub(crate) fn decisions(
    rule: &Rule,
    base: Option<&State>,
    local: &State,
    remote: &State,
    merged: &State,
) -> Vec<Decision> {
    let mut walk = Walk { path: Vec::new(), decisions: Vec::new() };
    walk.visit(rule, base, Some(local), Some(remote), Some(merged));
    walk.decisions
}

struct Walk {
    path: Vec<String>,
    decisions: Vec<Decision>,
}

impl Walk {
    fn visit(
        &mut self,
        rule: &Rule,
        base: Option<&State>,
        local: Option<&State>,
        remote: Option<&State>,
        merged: Option<&State>,
    ) {
        if local == base && remote == base {
            return;
        }
        let all = [base, local, remote, merged];
        if all.into_iter().flatten().all(|state| matches!(state, State::Map(_))) {
            let names: BTreeSet<&String> = all.into_iter().flat_map(children).collect();
            for name in names {
                let child = |state: Option<&State>| child(state, name).cloned();
                let [base, local, remote, merged] = all.map(child);
                self.path.push(name.clone());
                let rule = rule_of(rule, name);
                self.visit(rule, base.as_ref(), local.as_ref(), remote.as_ref(), merged.as_ref());
                self.path.pop();
            }
            return;
        }
        let see = |state: Option<&State>| state.and_then(|state| state.visible(rule));
        let outcome = match (local == base, remote == base) {
            (false, true) => Outcome::OnlyLocal,
            (true, _) => Outcome::OnlyRemote,
            (false, false) => {
                settled(rule, merged, see(local).as_ref(), see(remote).as_ref(), see(merged).as_ref())
            }
        };
        let is_clash = local != base && remote != base;
        let slot = |state| if is_clash { Slot(see(state)) } else { Slot::default() };
        self.decisions.push(Decision {
            path: self.path.clone(),
            rule: rule.word().to_owned(),
            outcome,
            local: slot(local),
            remote: slot(remote),
            merged: slot(merged),
        });
    }
}

fn settled(
    rule: &Rule,
    merged: Option<&State>,
    local: Option<&Value>,
    remote: Option<&Value>,
    shown: Option<&Value>,
) -> Outcome {
    if let Some(State::Register(register)) = merged
        && *rule == Rule::Manual
        && register.is_split()
    {
        return Outcome::Open;
    }
    match (shown == local, shown == remote) {
        (true, true) => Outcome::Equal,
        (true, false) => Outcome::Local,
        (false, true) => Outcome::Remote,
        (false, false) => Outcome::Combined,
    }
}

fn children(state: Option<&State>) -> Vec<&String> {
    match state {
        Some(State::Map(children)) => children.keys().collect(),
        _ => Vec::new(),
    }
}

fn child<'a>(state: Option<&'a State>, name: &str) -> Option<&'a State> {
    match state {
        Some(State::Map(children)) => children.get(name),
        _ => None,
    }
}
