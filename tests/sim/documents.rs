//! Documents that the engine merges, in a run: who adds, counts, decides and deletes, and what must be there in the end.

use crate::check::Committed;
use crate::dice::Dice;
use crate::faults::{Fault, Faults};
use crate::fixture::FIXTURE;
use crate::ledger::Ledger;
use crate::world::World;
use lockstep_engine::document::Origin;
use lockstep_engine::effect::{Input, NewRecord};
use lockstep_engine::read;
use lockstep_engine::replica::{Pinning, Policy};
use lockstep_merge::{Choice, Fields, Open, Value, View};
use lockstep_proto::envelope::KIND_DOCUMENT;
use lockstep_proto::id::{OperationId, RecordId};
use std::collections::{BTreeMap, BTreeSet};

/// Types by what becomes of an edit against a deletion: the edit wins, the deletion wins, somebody decides.
const TYPES: [&str; 3] = ["tally", "draft", "case"];
const NAMES: [&str; 2] = ["p", "q"];
/// A set, to which every write adds something of its own.
const SET: &str = "seen";
/// A sum of deltas, in the first type.
const COUNT: &str = "count";
/// Every value of it waits until somebody decides; not in the second type.
const MANUAL: &str = "opinion";

/// What a write says, as its writer meant it.
#[derive(Debug, Clone)]
pub(crate) struct Intent {
    record_type: &'static str,
    record: RecordId,
    adds: Option<i128>,
    value: Option<i128>,
    delta: i128,
    deletes: bool,
    /// Whether there was a copy of the device: at one time both may write under one stamp.
    is_twin: bool,
    /// Elements that it takes out, or deletes.
    removed: BTreeSet<i128>,
    /// Values of the manual field that it replaces, or deletes.
    replaced: BTreeSet<i128>,
}

impl Intent {
    fn of(record_type: &'static str, record: RecordId) -> Self {
        let (removed, replaced) = (BTreeSet::new(), BTreeSet::new());
        Self {
            record_type,
            record,
            adds: None,
            value: None,
            delta: 0,
            deletes: false,
            is_twin: false,
            removed,
            replaced,
        }
    }
}

fn record_of(record_type: &str, name: &str) -> RecordId {
    FIXTURE.keys.record_id(record_type, name.as_bytes())
}

fn number(value: &Value) -> Option<i128> {
    if let Value::Int(number) = value { Some(*number) } else { None }
}

fn elements(fields: &Fields) -> BTreeSet<i128> {
    let Some(Value::Array(set)) = fields.get(SET) else { return BTreeSet::new() };
    set.iter().filter_map(number).collect()
}

/// Values of the manual field: what is shown, and what waits.
fn values(view: &View) -> BTreeSet<i128> {
    let mut found: BTreeSet<i128> = view.fields.get(MANUAL).and_then(number).into_iter().collect();
    for open in &view.open {
        if let Open::Field { path, values } = open
            && path[..] == [MANUAL.to_owned()]
        {
            found.extend(values.iter().filter_map(|(_, value)| number(value.as_ref()?)));
        }
    }
    found
}

fn view(record_type: &str, content: &lockstep_client_crypto::content::Content) -> Result<View, String> {
    let setup = FIXTURE.setup(0);
    let policy = setup.policies.of(record_type).ok_or("the type has no policy")?;
    let origin = Origin::new(content, KIND_DOCUMENT, FIXTURE.devices[0].id());
    origin.view(policy).map_err(|error| error.to_string())
}

fn new(record_type: &str, name: &str, fields: Option<Fields>) -> NewRecord {
    NewRecord {
        record_type: record_type.into(),
        name: name.as_bytes().to_vec(),
        schema: 1,
        document: fields.map(|fields| lockstep_merge::encode(fields).unwrap()),
        blobs: Vec::new(),
        policy: Policy::Merge,
        pin: Pinning::None,
        expected: None,
    }
}

/// Every device has a first version of every document before anything goes wrong.
pub(crate) fn prologue(world: &mut World) {
    let faults = std::mem::replace(&mut world.faults, Faults::none());
    for record_type in TYPES {
        for name in NAMES {
            let mut fields = Fields::from([(SET.to_owned(), Value::Array(Vec::new()))]);
            if record_type == "tally" {
                fields.insert(COUNT.into(), Value::Int(0));
            }
            let intent = Intent::of(record_type, record_of(record_type, name));
            give(world, 0, intent, Input::Put(vec![new(record_type, name, Some(fields))]));
        }
    }
    world.drain(1000);
    for index in 0..world.devices.len() {
        world.input(index, Input::Sync);
        world.drain(1000);
    }
    world.faults = faults;
}

fn give(world: &mut World, index: usize, mut intent: Intent, input: Input) {
    let identity = FIXTURE.devices[world.devices[index].identity].id();
    intent.is_twin = world.ledger.forked.contains(&identity);
    world.say(|| format!("device {index} means {intent:?}"));
    world.ledger.intent = Some(intent);
    world.input(index, input);
    world.ledger.intent = None;
}

/// A device writes to a document that it shows.
pub(crate) fn step(world: &mut World, dice: &mut Dice, index: usize) {
    let record_type = TYPES[dice.index(TYPES.len())];
    let name = NAMES[dice.index(NAMES.len())];
    let record = record_of(record_type, name);
    let replica = &world.devices[index].replica;
    let Ok(Some(current)) = read::current(replica, &FIXTURE.later_keys, record) else { return };
    let View { mut fields, open } = match view(record_type, &current.content) {
        Ok(view) => view,
        Err(what) => return world.demand(Err(what)),
    };
    world.ledger.count("document");
    let fresh = i128::from(world.ledger.counts["document"]);
    let (seen, shown) = (elements(&fields), View { fields: fields.clone(), open: open.clone() });
    let mut intent = Intent::of(record_type, record);
    let set = |seen: &BTreeSet<i128>| Value::Array(seen.iter().map(|element| Value::Int(*element)).collect());
    match (dice.below(12), record_type) {
        (0, _) => {
            (intent.deletes, intent.removed, intent.replaced) = (true, seen, values(&shown));
            return give(world, index, intent, Input::Put(vec![new(record_type, name, None)]));
        }
        (1..3, _) if !seen.is_empty() => {
            let gone = *seen.iter().nth(dice.index(seen.len())).unwrap();
            intent.removed.insert(gone);
            fields.insert(SET.into(), set(&seen.into_iter().filter(|element| *element != gone).collect()));
        }
        (3..5, "tally" | "case") => {
            intent.value = Some(fresh);
            intent.replaced = fields
                .insert(MANUAL.into(), Value::Int(fresh))
                .as_ref()
                .and_then(number)
                .into_iter()
                .collect();
        }
        (5..7, _) if !open.is_empty() => {
            let choice = decide(&open[dice.index(open.len())], dice);
            if let Choice::Field { value, .. } = &choice {
                intent.value = value.as_ref().and_then(number);
                intent.replaced =
                    values(&shown).into_iter().filter(|value| Some(*value) != intent.value).collect();
            }
            world.ledger.count("decided");
            return give(world, index, intent, Input::Decide(record, choice));
        }
        _ => {
            intent.adds = Some(fresh);
            let mut list = match fields.remove(SET) {
                Some(Value::Array(list)) => list,
                _ => Vec::new(),
            };
            list.push(Value::Int(fresh));
            fields.insert(SET.into(), Value::Array(list));
            if record_type == "tally" {
                intent.delta = i128::from(dice.below(20)) - 5;
                let count = fields.get(COUNT).and_then(number).unwrap_or_default();
                fields.insert(COUNT.into(), Value::Int(count + intent.delta));
            }
        }
    }
    give(world, index, intent, Input::Put(vec![new(record_type, name, Some(fields))]));
}

fn decide(open: &Open, dice: &mut Dice) -> Choice {
    match open {
        Open::Field { path, values } => {
            Choice::Field { path: path.clone(), value: values[dice.index(values.len())].1.clone() }
        }
        Open::Deletion { .. } => Choice::KeepDocument,
    }
}

/// What must hold of documents once everything is quiet.
pub(crate) fn check(
    world: &World,
    newest: &BTreeMap<RecordId, &Committed>,
    committed: &dyn Fn(&OperationId) -> Vec<RecordId>,
) -> Result<(), String> {
    let ledger = &world.ledger;
    let mut copied: BTreeSet<RecordId> = BTreeSet::new();
    let mut records: BTreeMap<RecordId, Vec<(&OperationId, &Intent)>> = BTreeMap::new();
    for (operation, intent) in &ledger.documents {
        records.entry(intent.record).or_default().push((operation, intent));
        let places = committed(operation);
        // A known limit (docs/RELIABILITY.md): who withholds an envelope in the middle of a pull keeps it from being merged.
        let is_copied = places.iter().any(|record| *record != intent.record);
        if is_copied && !was_tampered(ledger) {
            return Err(format!("write {operation} of a document became a copy"));
        }
        if is_copied {
            copied.insert(intent.record);
        }
        if places.is_empty() {
            has_an_entry(world, operation, intent)?;
        }
    }
    for (record, writes) in records.into_iter().filter(|(record, _)| !copied.contains(record)) {
        let found = match newest.get(&record) {
            Some(version) if version.kind == KIND_DOCUMENT => {
                Some(view(writes[0].1.record_type, &version.content)?)
            }
            _ => None,
        };
        let judged = judge(ledger, &writes, found.as_ref());
        judged.map_err(|what| format!("document {record} ({}): {what}", writes[0].1.record_type))?;
    }
    Ok(())
}

/// A write that was merged away is remembered where it was written.
fn has_an_entry(world: &World, operation: &OperationId, intent: &Intent) -> Result<(), String> {
    let device = world.ledger.operations[operation].device;
    // Who says nothing of their own may say the same as others: nothing is decided then.
    let is_excused = intent.adds.is_none()
        || world.ledger.forgotten.contains(operation)
        || world.ledger.doubled.contains(operation)
        || world.ledger.was_set_back.contains(&device);
    let merges = &world.devices[device].replica.merges;
    if is_excused || merges.iter().any(|entry| entry.operation == *operation) {
        return Ok(());
    }
    Err(format!("write {operation} was merged away, and device {device} has no entry of it"))
}

fn was_tampered(ledger: &Ledger) -> bool {
    ledger.counts.contains_key(Fault::Tampered.name())
}

fn judge(ledger: &Ledger, writes: &[(&OperationId, &Intent)], found: Option<&View>) -> Result<(), String> {
    let is_sure = |operation: &OperationId| !ledger.forgotten.contains(operation);
    let deletes = writes.iter().any(|(_, intent)| intent.deletes);
    let surely_deletes = writes.iter().any(|(operation, intent)| intent.deletes && is_sure(operation));
    if deletes && writes[0].1.record_type == "draft" {
        let is_right = !surely_deletes || found.is_none() || was_tampered(ledger);
        return if is_right { Ok(()) } else { Err("it was deleted and is there".into()) };
    }
    let removed: BTreeSet<i128> =
        writes.iter().flat_map(|(_, intent)| intent.removed.iter().copied()).collect();
    let replaced: BTreeSet<i128> =
        writes.iter().flat_map(|(_, intent)| intent.replaced.iter().copied()).collect();
    let is_doubled = writes.iter().any(|(operation, _)| ledger.doubled.contains(*operation));
    let set = found.map(|view| elements(&view.fields)).unwrap_or_default();
    let shown = found.map(values).unwrap_or_default();
    let sure = writes.iter().filter(|(operation, intent)| is_sure(operation) && !intent.is_twin);
    for (operation, intent) in sure {
        if let Some(lost) = intent.adds.filter(|added| !removed.contains(added) && !set.contains(added)) {
            return Err(format!("element {lost} of {operation} is lost"));
        }
        if let Some(lost) = intent.value.filter(|value| !replaced.contains(value) && !shown.contains(value)) {
            return Err(format!("value {lost} of {operation} is lost"));
        }
        // A deletion takes along what was known to be taken out; and what a copy of a device had too is added again by
        // one that had not seen it taken out.
        let is_back = |gone: &&i128| !deletes && !is_doubled && set.contains(gone);
        if let Some(back) = intent.removed.iter().find(is_back) {
            return Err(format!("element {back} is back, which {operation} took out"));
        }
    }
    let Some(view) = found.filter(|_| !deletes) else {
        return if deletes || found.is_some() {
            Ok(())
        } else {
            Err("nobody deleted it and it is gone".into())
        };
    };
    let is_uncertain = writes.iter().any(|(operation, intent)| {
        intent.delta != 0 && (!is_sure(operation) || intent.is_twin || ledger.doubled.contains(*operation))
    });
    let sum: i128 = writes.iter().map(|(_, intent)| intent.delta).sum();
    let count = view.fields.get(COUNT).and_then(number).unwrap_or_default();
    if is_uncertain || count == sum {
        Ok(())
    } else {
        Err(format!("it counts {count}, and {sum} was counted"))
    }
}
