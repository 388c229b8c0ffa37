//! What merging notes in a document, under the key `~`: who wrote which value when (docs/MERGING.md).
//!
//! ```cddl
//! notes   = [ 1, stamps: [+ stamp], root: node, deletion: uint / null ]
//! stamp   = [ utc-ms: uint, counter: uint, device: bstr .size 16 ]
//! node    = uint                                          ; the whole value, by the stamp at this place
//!         / [ "r", [+ sibling] ]                          ; concurrent values, or a field that was taken out
//!         / [ "t", tstr / null, [+ sibling] ]             ; concurrent texts and what they were made from
//!         / [ "s", [* element] ]                          ; a set, in the order in which it is shown
//!         / [ "l", [* [ uint, count: uint ]] ]            ; a list that grows, by who appended how many
//!         / [ "m", uint / null, { * tstr => node } ]      ; a map; keys left out have the stamp in the second place
//! sibling = [ uint, ? value ]
//! element = uint / [+ sibling]
//! ```

use crate::policy::Rule;
use crate::stamp::Stamp;
use crate::state::{Register, State, element_key, rule_of, set_order};
use crate::value::{Fields, Value};
use lockstep_proto::clock::Hlc;
use lockstep_proto::id::DeviceId;
use std::collections::{BTreeMap, BTreeSet};

/// The key of the notes.
pub(crate) const KEY: &str = "~";

const FORMAT: i128 = 1;

/// Notes that can not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotesError {
    /// Of a later library.
    #[error("its notes of merging are in format {found}, this library reads format 1")]
    Format {
        /// The format found.
        found: u64,
    },
    /// Not made by this library.
    #[error("its notes of merging are malformed")]
    Malformed,
}

type Result<T> = std::result::Result<T, NotesError>;

const fn malformed<T>() -> Result<T> {
    Err(NotesError::Malformed)
}

fn uint(value: u64) -> Value {
    Value::Int(value.into())
}

fn index(value: usize) -> Value {
    Value::int(i128::try_from(value).unwrap_or(i128::MAX))
}

/// Writes notes.
pub(crate) fn write(rule: &Rule, root: &State, deletion: Option<Stamp>) -> Value {
    let mut stamps = BTreeSet::new();
    collect(root, &mut stamps);
    stamps.extend(deletion);
    let table: Vec<Stamp> = stamps.into_iter().collect();
    let writer = Writer { table: &table };
    let rows = table.iter().map(|stamp| {
        let Hlc { utc_ms, counter } = stamp.hlc;
        Value::Array(vec![uint(utc_ms), uint(counter), Value::Bytes(stamp.device.as_bytes().to_vec())])
    });
    let deletion = deletion.map_or(Value::Null, |stamp| writer.place(stamp));
    Value::Array(vec![Value::Int(FORMAT), Value::Array(rows.collect()), writer.node(rule, root), deletion])
}

fn collect(state: &State, into: &mut BTreeSet<Stamp>) {
    match state {
        State::Register(register) => into.extend(register.siblings.keys()),
        State::Map(children) => children.values().for_each(|child| collect(child, into)),
        State::Set(elements) => into.extend(elements.values().flat_map(BTreeMap::keys)),
        State::Log(runs) => into.extend(runs.keys()),
        State::Count(_, stamp) => into.extend([*stamp]),
    }
}

struct Writer<'a> {
    table: &'a [Stamp],
}

impl Writer<'_> {
    fn place(&self, stamp: Stamp) -> Value {
        index(self.table.binary_search(&stamp).unwrap_or(usize::MAX))
    }

    fn siblings(&self, siblings: &BTreeMap<Stamp, Option<Value>>) -> Value {
        let sibling = |(stamp, value): (&Stamp, &Option<Value>)| {
            Value::Array(std::iter::once(self.place(*stamp)).chain(value.clone()).collect())
        };
        Value::Array(siblings.iter().map(sibling).collect())
    }

    fn node(&self, rule: &Rule, state: &State) -> Value {
        match state {
            State::Register(register) => self.register(rule, register),
            State::Map(children) => self.map(rule, children),
            State::Set(elements) => self.set(elements),
            State::Log(runs) => {
                let run = |(stamp, items): (&Stamp, &Vec<Value>)| {
                    Value::Array(vec![self.place(*stamp), index(items.len())])
                };
                match runs.first_key_value() {
                    Some((stamp, _)) if runs.len() == 1 => self.place(*stamp),
                    _ => Value::Array(vec![Value::text("l"), Value::Array(runs.iter().map(run).collect())]),
                }
            }
            State::Count(_, stamp) => self.place(*stamp),
        }
    }

    fn register(&self, rule: &Rule, register: &Register) -> Value {
        match register.siblings.first_key_value() {
            Some((stamp, Some(value))) if register.siblings.len() == 1 => {
                // A value that would be read as something else than a register says so.
                match State::fresh(rule, value, *stamp) {
                    State::Register(_) => self.place(*stamp),
                    _ => Value::Array(vec![Value::text("r"), self.siblings(&register.siblings)]),
                }
            }
            _ if *rule == Rule::Text && register.siblings.len() > 1 => {
                let ancestor = register.ancestor.as_deref().map_or(Value::Null, Value::text);
                Value::Array(vec![Value::text("t"), ancestor, self.siblings(&register.siblings)])
            }
            _ => Value::Array(vec![Value::text("r"), self.siblings(&register.siblings)]),
        }
    }

    fn set(&self, elements: &BTreeMap<Value, BTreeMap<Stamp, Value>>) -> Value {
        let in_order: Vec<&BTreeMap<Stamp, Value>> =
            set_order(elements).into_iter().filter_map(|key| elements.get(key)).collect();
        let first = in_order.first().and_then(|dots| dots.keys().next());
        if let Some(first) = first
            && in_order.iter().all(|dots| dots.len() == 1 && dots.contains_key(first))
        {
            return self.place(*first);
        }
        let element = |dots: &BTreeMap<Stamp, Value>| match dots.first_key_value() {
            Some((stamp, _)) if dots.len() == 1 => self.place(*stamp),
            _ => {
                let pair =
                    |(stamp, value): (&Stamp, &Value)| Value::Array(vec![self.place(*stamp), value.clone()]);
                Value::Array(dots.iter().map(pair).collect())
            }
        };
        Value::Array(vec![Value::text("s"), Value::Array(in_order.into_iter().map(element).collect())])
    }

    fn map(&self, rule: &Rule, children: &BTreeMap<String, State>) -> Value {
        let mut nodes: Fields = children
            .iter()
            .map(|(name, child)| (name.clone(), self.node(rule_of(rule, name), child)))
            .collect();
        let mut counts: BTreeMap<&Value, usize> = BTreeMap::new();
        for node in nodes.values().filter(|node| matches!(node, Value::Int(_))) {
            let count = counts.entry(node).or_default();
            *count = count.saturating_add(1);
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count).map(|(node, _)| node.clone());
        nodes.retain(|_, node| Some(&*node) != most.as_ref());
        match (most, nodes.is_empty()) {
            (Some(most), true) => most,
            (most, _) => Value::Array(vec![Value::text("m"), most.unwrap_or(Value::Null), Value::Map(nodes)]),
        }
    }
}

/// Reads notes: the state of the document that they stand in, and an undecided deletion of it.
pub(crate) fn read(rule: &Rule, fields: Fields, notes: &Value) -> Result<(State, Option<Stamp>)> {
    let Value::Array(parts) = notes else { return malformed() };
    match parts.first() {
        Some(Value::Int(FORMAT)) => {}
        Some(Value::Int(found)) => {
            return Err(NotesError::Format { found: u64::try_from(*found).unwrap_or_default() });
        }
        _ => return malformed(),
    }
    let [_, Value::Array(rows), root, deletion] = parts.as_slice() else { return malformed() };
    let table: Vec<Stamp> = rows.iter().map(stamp).collect::<Result<_>>()?;
    let reader = Reader { table: &table };
    let deletion = match deletion {
        Value::Null => None,
        place => Some(reader.stamp(place)?),
    };
    Ok((reader.node(rule, Some(&Value::Map(fields)), root)?, deletion))
}

fn stamp(row: &Value) -> Result<Stamp> {
    let Value::Array(row) = row else { return malformed() };
    let [Value::Int(utc_ms), Value::Int(counter), Value::Bytes(device)] = row.as_slice() else {
        return malformed();
    };
    let number = |number: &i128| u64::try_from(*number).map_err(|_| NotesError::Malformed);
    let hlc = Hlc { utc_ms: number(utc_ms)?, counter: number(counter)? };
    Ok(Stamp { hlc, device: DeviceId::from_slice(device).ok_or(NotesError::Malformed)? })
}

struct Reader<'a> {
    table: &'a [Stamp],
}

impl Reader<'_> {
    fn stamp(&self, place: &Value) -> Result<Stamp> {
        let Value::Int(place) = place else { return malformed() };
        let place = usize::try_from(*place).map_err(|_| NotesError::Malformed)?;
        self.table.get(place).copied().ok_or(NotesError::Malformed)
    }

    fn siblings(&self, siblings: &Value) -> Result<BTreeMap<Stamp, Option<Value>>> {
        let Value::Array(siblings) = siblings else { return malformed() };
        if siblings.is_empty() || siblings.len() > crate::limits::SIBLINGS_MAX {
            return malformed();
        }
        let sibling = |sibling: &Value| match sibling {
            Value::Array(pair) => match pair.as_slice() {
                [place] => Ok((self.stamp(place)?, None)),
                [place, value] => Ok((self.stamp(place)?, Some(value.clone()))),
                _ => malformed(),
            },
            _ => malformed(),
        };
        siblings.iter().map(sibling).collect()
    }

    fn node(&self, rule: &Rule, value: Option<&Value>, node: &Value) -> Result<State> {
        let parts = match (node, value) {
            (Value::Int(_), Some(value)) => return Ok(State::fresh(rule, value, self.stamp(node)?)),
            (Value::Array(parts), _) => parts.as_slice(),
            _ => return malformed(),
        };
        let [Value::Text(kind), parts @ ..] = parts else { return malformed() };
        let read = match (kind.as_str(), parts) {
            ("r", [siblings]) | ("t", [Value::Null, siblings]) => {
                Some(self.register(rule, value, None, siblings)?)
            }
            ("t", [Value::Text(ancestor), siblings]) => {
                Some(self.register(rule, value, Some(ancestor.clone()), siblings)?)
            }
            ("s", [Value::Array(elements)]) => self.set(rule, value, elements)?,
            ("l", [Value::Array(runs)]) => self.log(rule, value, runs)?,
            ("m", [default, Value::Map(nodes)]) => self.map(rule, value, default, nodes)?,
            _ => return malformed(),
        };
        Ok(match (read, value) {
            (Some(state), _) => state,
            // The policy is another than the one that the notes were made under: the value as it is shown, written
            // at the latest time that the notes have.
            (None, Some(value)) => {
                State::fresh(rule, value, *self.table.last().ok_or(NotesError::Malformed)?)
            }
            (None, None) => return malformed(),
        })
    }

    /// Concurrent values stay so under the rules that have them; under others the value that is shown stands.
    fn register(
        &self,
        rule: &Rule,
        value: Option<&Value>,
        ancestor: Option<String>,
        siblings: &Value,
    ) -> Result<State> {
        let siblings = self.siblings(siblings)?;
        let is_kept = match rule {
            Rule::Manual | Rule::Max(_) | Rule::Min(_) => ancestor.is_none(),
            Rule::Text => true,
            _ => false,
        };
        match siblings.last_key_value() {
            Some((stamp, _)) if siblings.len() > 1 && !is_kept => {
                Ok(State::Register(Register::one(*stamp, value.cloned())))
            }
            _ => Ok(State::Register(Register { siblings, ancestor })),
        }
    }

    fn set(&self, rule: &Rule, value: Option<&Value>, elements: &[Value]) -> Result<Option<State>> {
        let (Rule::Union { key }, Some(Value::Array(items))) = (rule, value) else { return Ok(None) };
        if items.len() != elements.len() {
            return malformed();
        }
        let mut read: BTreeMap<Value, BTreeMap<Stamp, Value>> = BTreeMap::new();
        for (item, element) in items.iter().zip(elements) {
            let Some(at) = element_key(key.as_deref(), item) else { return Ok(None) };
            let dots = match element {
                Value::Int(_) => BTreeMap::from([(self.stamp(element)?, item.clone())]),
                _ => self
                    .siblings(element)?
                    .into_iter()
                    .map(|(stamp, value)| Ok((stamp, value.ok_or(NotesError::Malformed)?)))
                    .collect::<Result<_>>()?,
            };
            if read.insert(at, dots).is_some() {
                return Ok(None);
            }
        }
        Ok(Some(State::Set(read)))
    }

    fn log(&self, rule: &Rule, value: Option<&Value>, runs: &[Value]) -> Result<Option<State>> {
        let (Rule::AppendOnly, Some(Value::Array(items))) = (rule, value) else { return Ok(None) };
        let mut rest = items.as_slice();
        let mut read = BTreeMap::new();
        for run in runs {
            let Value::Array(pair) = run else { return malformed() };
            let [place, Value::Int(count)] = pair.as_slice() else { return malformed() };
            let count = usize::try_from(*count).map_err(|_| NotesError::Malformed)?;
            let (run, after) = rest.split_at_checked(count).ok_or(NotesError::Malformed)?;
            read.insert(self.stamp(place)?, run.to_vec());
            rest = after;
        }
        if rest.is_empty() { Ok(Some(State::Log(read))) } else { malformed() }
    }

    fn map(
        &self,
        rule: &Rule,
        value: Option<&Value>,
        default: &Value,
        nodes: &Fields,
    ) -> Result<Option<State>> {
        let (Rule::ThreeWay(rules), Some(Value::Map(fields))) = (rule, value) else { return Ok(None) };
        let mut children = BTreeMap::new();
        for (name, value) in fields {
            let node = nodes.get(name).unwrap_or(default);
            children.insert(name.clone(), self.node(rules.of(name), Some(value), node)?);
        }
        for (name, node) in nodes {
            if !fields.contains_key(name) {
                children.insert(name.clone(), self.node(rules.of(name), None, node)?);
            }
        }
        Ok(Some(State::Map(children)))
    }
}
