//! Joining two states that grew from a common base.

use crate::limits::SIBLINGS_MAX;
use crate::policy::Rule;
use crate::stamp::Stamp;
use crate::state::{Register, State, compare, rule_of};
use crate::value::Value;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// More concurrent values than one field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

type Result<T> = std::result::Result<T, TooMany>;

/// Joins two sides; `local` is the pending one, which matters to `prefer-pending` and `prefer-committed` only.
pub(crate) fn join(rule: &Rule, base: Option<&State>, local: &State, remote: &State) -> Result<State> {
    // Equal sides are no shortcut: two that counted the same are equal and add up.
    if base == Some(local) {
        return Ok(remote.clone());
    }
    if base == Some(remote) {
        return Ok(local.clone());
    }
    let base = base.filter(|base| base.is_same_kind(local));
    match (local, remote) {
        (State::Register(local), State::Register(remote)) => {
            let base = match base {
                Some(State::Register(base)) => Some(base),
                _ => None,
            };
            join_registers(rule, base, local, remote).map(State::Register)
        }
        (State::Map(local), State::Map(remote)) => {
            let base = match base {
                Some(State::Map(base)) => Some(base),
                _ => None,
            };
            join_maps(rule, base, local, remote).map(State::Map)
        }
        (State::Set(local), State::Set(remote)) => {
            let base = match base {
                Some(State::Set(base)) => Some(base),
                _ => None,
            };
            Ok(State::Set(join_sets(base, local, remote)))
        }
        (State::Log(local), State::Log(remote)) => Ok(State::Log(join_logs(local, remote))),
        (State::Count(local, local_stamp), State::Count(remote, remote_stamp)) => {
            let sum = match base {
                Some(State::Count(base, _)) => local.saturating_add(*remote).saturating_sub(*base),
                // Both began to count: there is no base from which to take the changes.
                _ => *local.max(remote),
            };
            let Value::Int(sum) = Value::int(sum) else { return Err(TooMany) };
            Ok(State::Count(sum, *local_stamp.max(remote_stamp)))
        }
        _ => Ok(later(rule, local, remote)),
    }
}

/// One has the shape that the rule is for and the other has not: the later one as a whole.
fn later(rule: &Rule, a: &State, b: &State) -> State {
    let key = |state: &State| (state.latest(), state.visible(rule));
    if key(a) >= key(b) { a.clone() } else { b.clone() }
}

/// What both have, and what either has that the base has not.
fn survivors<T: Clone + Ord>(
    base: Option<&BTreeMap<Stamp, T>>,
    local: &BTreeMap<Stamp, T>,
    remote: &BTreeMap<Stamp, T>,
) -> BTreeMap<Stamp, T> {
    let mut kept: BTreeMap<Stamp, T> = BTreeMap::new();
    for (here, there) in [(local, remote), (remote, local)] {
        for (stamp, value) in here {
            if !there.contains_key(stamp) && base.is_some_and(|base| base.contains_key(stamp)) {
                continue;
            }
            let kept = kept.entry(*stamp).or_insert_with(|| value.clone());
            // Two values under one stamp are nobody's honest doing; the choice is the same everywhere.
            if value > kept {
                *kept = value.clone();
            }
        }
    }
    kept
}

fn join_registers(
    rule: &Rule,
    base: Option<&Register>,
    local: &Register,
    remote: &Register,
) -> Result<Register> {
    match rule {
        Rule::PreferPending => return Ok(local.clone()),
        Rule::PreferCommitted => return Ok(remote.clone()),
        _ => {}
    }
    let mut siblings = survivors(base.map(|base| &base.siblings), &local.siblings, &remote.siblings);
    match rule {
        Rule::Max(order) => trim(&mut siblings, |a, b| compare(order, a, b)),
        Rule::Min(order) => trim(&mut siblings, |a, b| compare(order, b, a)),
        Rule::Text | Rule::Manual if siblings.len() > SIBLINGS_MAX => return Err(TooMany),
        Rule::Text | Rule::Manual => {}
        _ => {
            let last = siblings.pop_last();
            siblings = last.into_iter().collect();
        }
    }
    let ancestor = (*rule == Rule::Text && siblings.len() > 1).then(|| ancestor(base, local, remote));
    Ok(Register { siblings, ancestor: ancestor.flatten() })
}

/// The text that concurrent texts were made from: the one that a side still has concurrent texts of, else the base.
fn ancestor(base: Option<&Register>, local: &Register, remote: &Register) -> Option<String> {
    match (&local.ancestor, &remote.ancestor) {
        (Some(ancestor), None) | (None, Some(ancestor)) => Some(ancestor.clone()),
        (Some(a), Some(b)) => Some(a.min(b).clone()),
        (None, None) => match base?.text().0 {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        },
    }
}

/// Drops what ranks lowest beyond the limit, and values that are not there if others are.
fn trim(siblings: &mut BTreeMap<Stamp, Option<Value>>, compare: impl Fn(&Value, &Value) -> Ordering) {
    while siblings.len() > SIBLINGS_MAX {
        let worst = siblings
            .iter()
            .min_by(|(_, a), (_, b)| match (a, b) {
                (Some(a), Some(b)) => compare(a, b),
                _ => a.is_some().cmp(&b.is_some()),
            })
            .map(|(stamp, _)| *stamp);
        let Some(worst) = worst else { return };
        siblings.remove(&worst);
    }
}

fn join_maps(
    rule: &Rule,
    base: Option<&BTreeMap<String, State>>,
    local: &BTreeMap<String, State>,
    remote: &BTreeMap<String, State>,
) -> Result<BTreeMap<String, State>> {
    let names: BTreeSet<&String> = local.keys().chain(remote.keys()).collect();
    let mut joined = BTreeMap::new();
    for name in names {
        let child = match (local.get(name), remote.get(name)) {
            (Some(local), Some(remote)) => {
                join(rule_of(rule, name), base.and_then(|base| base.get(name)), local, remote)?
            }
            (Some(only), None) | (None, Some(only)) => only.clone(),
            (None, None) => continue,
        };
        joined.insert(name.clone(), child);
    }
    Ok(joined)
}

type Elements = BTreeMap<Value, BTreeMap<Stamp, Value>>;

fn join_sets(base: Option<&Elements>, local: &Elements, remote: &Elements) -> Elements {
    let none = BTreeMap::new();
    let keys: BTreeSet<&Value> = local.keys().chain(remote.keys()).collect();
    let mut joined = Elements::new();
    for key in keys {
        let mut dots = survivors(
            base.and_then(|base| base.get(key)),
            local.get(key).unwrap_or(&none),
            remote.get(key).unwrap_or(&none),
        );
        while dots.len() > SIBLINGS_MAX {
            dots.pop_first();
        }
        if !dots.is_empty() {
            joined.insert(key.clone(), dots);
        }
    }
    joined
}

fn join_logs(
    local: &BTreeMap<Stamp, Vec<Value>>,
    remote: &BTreeMap<Stamp, Vec<Value>>,
) -> BTreeMap<Stamp, Vec<Value>> {
    let mut joined = local.clone();
    for (stamp, items) in remote {
        let run = joined.entry(*stamp).or_insert_with(|| items.clone());
        if (items.len(), items) > (run.len(), &*run) {
            run.clone_from(items);
        }
    }
    joined
}

/// Deletions that wait for a decision: the later of those that no side decided.
pub(crate) fn join_deletions(
    base: Option<Stamp>,
    local: Option<Stamp>,
    remote: Option<Stamp>,
) -> Option<Stamp> {
    let is_kept = |stamp: &Stamp| (local == remote) || base != Some(*stamp);
    local.into_iter().chain(remote).filter(is_kept).max()
}
