//! What a document is while it is merged: values with the stamps of those who wrote them.
//!
//! Every kind of state is built so that joining is a matter of sets: what a side has and the base has not was added,
//! what the base has and a side has not was taken away. That is why the order in which edits are joined makes no
//! difference.

use crate::policy::{Order, Rule};
use crate::stamp::Stamp;
use crate::text;
use crate::value::{Fields, Value};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// A value, by the rule that it was read under.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// One value, or several concurrent ones.
    Register(Register),
    /// `three-way`.
    Map(BTreeMap<String, State>),
    /// `union`: by key, every addition that was not taken away.
    Set(BTreeMap<Value, BTreeMap<Stamp, Value>>),
    /// `append-only`: what each write appended.
    Log(BTreeMap<Stamp, Vec<Value>>),
    /// `sum-of-deltas`.
    Count(i128, Stamp),
}

/// Concurrent values by who wrote them; none is a field that was taken out.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Register {
    pub(crate) siblings: BTreeMap<Stamp, Option<Value>>,
    /// The text that concurrent texts were made from.
    pub(crate) ancestor: Option<String>,
}

impl Register {
    pub(crate) fn one(stamp: Stamp, value: Option<Value>) -> Self {
        Self { siblings: BTreeMap::from([(stamp, value)]), ancestor: None }
    }

    /// The values without repetition.
    pub(crate) fn is_split(&self) -> bool {
        let mut values = self.siblings.values();
        let first = values.next();
        values.any(|value| Some(value) != first)
    }

    pub(crate) fn latest(&self) -> Option<&Value> {
        self.siblings.last_key_value().and_then(|(_, value)| value.as_ref())
    }

    fn visible(&self, rule: &Rule) -> Option<Value> {
        match rule {
            Rule::Max(order) => self.extreme(order, Ordering::Greater),
            Rule::Min(order) => self.extreme(order, Ordering::Less),
            Rule::Text => self.text().0,
            _ => self.latest().cloned(),
        }
    }

    /// The greatest or least of the values that are there.
    fn extreme(&self, order: &Order, wanted: Ordering) -> Option<Value> {
        let mut best: Option<&Value> = None;
        for value in self.siblings.values().flatten() {
            if best.is_none_or(|best| compare(order, value, best) == wanted) {
                best = Some(value);
            }
        }
        best.cloned()
    }

    /// The merged text, and whether edits overlapped. Values that are no text have no part in it, unless there are
    /// no others.
    pub(crate) fn text(&self) -> (Option<Value>, bool) {
        let texts: Vec<&str> = self
            .siblings
            .values()
            .filter_map(|value| match value {
                Some(Value::Text(text)) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        match texts.as_slice() {
            [] => (self.latest().cloned(), false),
            [text] => (Some(Value::text(text)), false),
            texts => {
                let merged = text::merge(self.ancestor.as_deref().unwrap_or_default(), texts);
                (Some(Value::Text(merged.text)), merged.overlap)
            }
        }
    }
}

/// Words of the order by their place, all else below them by the natural order.
pub(crate) fn compare(order: &Order, a: &Value, b: &Value) -> Ordering {
    order.rank(a).cmp(&order.rank(b)).then_with(|| a.cmp(b))
}

/// The key of a set's element; none if it has no such key.
pub(crate) fn element_key(key: Option<&str>, element: &Value) -> Option<Value> {
    match (key, element) {
        (None, _) => Some(element.clone()),
        (Some(key), Value::Map(fields)) => fields.get(key).cloned(),
        _ => None,
    }
}

/// What the elements of a map fall under; the rule itself, if it is not the rule of a map.
pub(crate) fn rule_of<'a>(rule: &'a Rule, field: &str) -> &'a Rule {
    match rule {
        Rule::ThreeWay(rules) => rules.of(field),
        _ => rule,
    }
}

impl State {
    /// A value that one write put there as a whole. One that does not have the shape that its rule is for is a
    /// plain register.
    pub(crate) fn fresh(rule: &Rule, value: &Value, stamp: Stamp) -> Self {
        match (rule, value) {
            (Rule::ThreeWay(rules), Value::Map(fields)) => {
                let fresh = |(name, value): (&String, &Value)| {
                    (name.clone(), Self::fresh(rules.of(name), value, stamp))
                };
                Self::Map(fields.iter().map(fresh).collect())
            }
            (Rule::Union { key }, Value::Array(items)) => match elements(key.as_deref(), items) {
                Some(elements) => {
                    let add = |(key, value)| (key, BTreeMap::from([(stamp, value)]));
                    Self::Set(elements.into_iter().map(add).collect())
                }
                None => Self::Register(Register::one(stamp, Some(value.clone()))),
            },
            (Rule::AppendOnly, Value::Array(items)) => {
                let runs =
                    if items.is_empty() { BTreeMap::new() } else { BTreeMap::from([(stamp, items.clone())]) };
                Self::Log(runs)
            }
            (Rule::SumOfDeltas, Value::Int(number)) => Self::Count(*number, stamp),
            _ => Self::Register(Register::one(stamp, Some(value.clone()))),
        }
    }

    /// What the app sees.
    pub(crate) fn visible(&self, rule: &Rule) -> Option<Value> {
        match self {
            Self::Register(register) => register.visible(rule),
            Self::Map(children) => {
                let see = |(name, child): (&String, &Self)| {
                    child.visible(rule_of(rule, name)).map(|value| (name.clone(), value))
                };
                Some(Value::Map(children.iter().filter_map(see).collect::<Fields>()))
            }
            Self::Set(elements) => {
                let in_order = set_order(elements);
                Some(Value::Array(in_order.into_iter().filter_map(|key| seen(elements, key)).collect()))
            }
            Self::Log(runs) => Some(Value::Array(runs.values().flatten().cloned().collect())),
            Self::Count(number, _) => Some(Value::int(*number)),
        }
    }

    /// The latest stamp in it.
    pub(crate) fn latest(&self) -> Option<Stamp> {
        match self {
            Self::Register(register) => register.siblings.keys().next_back().copied(),
            Self::Map(children) => children.values().filter_map(Self::latest).max(),
            Self::Set(elements) => {
                elements.values().filter_map(|dots| dots.keys().next_back().copied()).max()
            }
            Self::Log(runs) => runs.keys().next_back().copied(),
            Self::Count(_, stamp) => Some(*stamp),
        }
    }

    pub(crate) const fn is_same_kind(&self, other: &Self) -> bool {
        matches!(
            (self, other),
            (Self::Register(_), Self::Register(_))
                | (Self::Map(_), Self::Map(_))
                | (Self::Set(_), Self::Set(_))
                | (Self::Log(_), Self::Log(_))
                | (Self::Count(..), Self::Count(..))
        )
    }

    /// The state after an app wrote this value over it; none takes the field out.
    pub(crate) fn edit(&self, rule: &Rule, value: Option<&Value>, stamp: Stamp) -> Self {
        if self.visible(rule).as_ref() == value {
            return self.clone();
        }
        let fresh = value.map(|value| Self::fresh(rule, value, stamp));
        if let Some(fresh) = &fresh
            && !fresh.is_same_kind(self)
        {
            return fresh.clone();
        }
        match (self, value) {
            (Self::Register(register), _) => Self::Register(edit_register(register, rule, value, stamp)),
            (Self::Map(children), _) => Self::Map(edit_map(children, rule, value, stamp)),
            (Self::Set(elements), _) => match fresh {
                Some(Self::Set(wanted)) => Self::Set(edit_set(elements, &wanted)),
                _ => Self::Set(BTreeMap::new()),
            },
            (Self::Log(runs), Some(Value::Array(items))) => Self::Log(edit_log(runs, items, stamp)),
            (Self::Log(_), _) => self.clone(),
            (Self::Count(..), Some(Value::Int(number))) => Self::Count(*number, stamp),
            (Self::Count(..), _) => Self::Count(0, stamp),
        }
    }
}

/// A manual field keeps the values that the writer did not replace: it is settled by a decision, not by an edit.
fn edit_register(register: &Register, rule: &Rule, value: Option<&Value>, stamp: Stamp) -> Register {
    let mut siblings = match rule {
        Rule::Manual => register.siblings.clone(),
        _ => BTreeMap::new(),
    };
    siblings.pop_last();
    siblings.insert(stamp, value.cloned());
    Register { siblings, ancestor: None }
}

fn edit_map(
    children: &BTreeMap<String, State>,
    rule: &Rule,
    value: Option<&Value>,
    stamp: Stamp,
) -> BTreeMap<String, State> {
    let none = Fields::new();
    let wanted = match value {
        Some(Value::Map(fields)) => fields,
        _ => &none,
    };
    let mut edited: BTreeMap<String, State> = children
        .iter()
        .map(|(name, child)| (name.clone(), child.edit(rule_of(rule, name), wanted.get(name), stamp)))
        .collect();
    for (name, value) in wanted {
        if !children.contains_key(name) {
            edited.insert(name.clone(), State::fresh(rule_of(rule, name), value, stamp));
        }
    }
    edited
}

/// Elements that stay as they are keep their additions; a changed one (same key) is a new addition in their place.
fn edit_set(
    elements: &BTreeMap<Value, BTreeMap<Stamp, Value>>,
    wanted: &BTreeMap<Value, BTreeMap<Stamp, Value>>,
) -> BTreeMap<Value, BTreeMap<Stamp, Value>> {
    let keep = |(key, new): (&Value, &BTreeMap<Stamp, Value>)| {
        let old = elements.get(key);
        let is_same = old.and_then(|dots| dots.values().next_back()) == new.values().next_back();
        (key.clone(), old.filter(|_| is_same).unwrap_or(new).clone())
    };
    wanted.iter().map(keep).collect()
}

/// What is there stays in any case; what the list has beyond it was appended.
fn edit_log(
    runs: &BTreeMap<Stamp, Vec<Value>>,
    items: &[Value],
    stamp: Stamp,
) -> BTreeMap<Stamp, Vec<Value>> {
    let mut there: BTreeMap<&Value, usize> = BTreeMap::new();
    for item in runs.values().flatten() {
        let count = there.entry(item).or_default();
        *count = count.saturating_add(1);
    }
    let mut appended = Vec::new();
    for item in items {
        match there.get_mut(item) {
            Some(count) if *count > 0 => *count = count.saturating_sub(1),
            _ => appended.push(item.clone()),
        }
    }
    let mut edited = runs.clone();
    if !appended.is_empty() {
        edited.insert(stamp, appended);
    }
    edited
}

/// A list as elements by key; none if an element has no key, or two have one key and differ.
fn elements(key: Option<&str>, items: &[Value]) -> Option<BTreeMap<Value, Value>> {
    let mut found = BTreeMap::new();
    for item in items {
        let replaced = found.insert(element_key(key, item)?, item.clone());
        if replaced.is_some_and(|before| before != *item) {
            return None;
        }
    }
    Some(found)
}

/// Keys in the order in which a set is shown: first added first, then by key.
pub(crate) fn set_order(elements: &BTreeMap<Value, BTreeMap<Stamp, Value>>) -> Vec<&Value> {
    let mut keys: Vec<(Option<&Stamp>, &Value)> =
        elements.iter().map(|(key, dots)| (dots.keys().next(), key)).collect();
    keys.sort();
    keys.into_iter().map(|(_, key)| key).collect()
}

/// An element as it is shown: as it was written last.
fn seen(elements: &BTreeMap<Value, BTreeMap<Stamp, Value>>, key: &Value) -> Option<Value> {
    elements.get(key).and_then(|dots| dots.values().next_back()).cloned()
}
