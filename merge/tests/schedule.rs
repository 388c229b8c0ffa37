//! Devices that edit one record while apart, and every way in which the server may hear of it.

use crate::common::{Held, edit, first, held, json_of, merged, stamp, view};
use lockstep_merge::{Fields, Hlc, Open, SameAs, Stamp, TypePolicy};
use serde_json::{Value as Json, json};

/// Numbers from a seed (SplitMix64).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(u64::try_from(bound).unwrap())).unwrap()
    }
}

/// One change that a person makes.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Sets a field, or takes it out; a path of one or two names.
    Set(&'static [&'static str], Option<Json>),
    /// Adds an element to a set.
    Add(&'static [&'static str], Json),
    /// Takes an element out of a set.
    Remove(&'static [&'static str], Json),
    /// Writes an element of the set with keys.
    Item(&'static str, u64),
    /// Takes one out.
    DropItem(&'static str),
    /// Counts.
    Count(i64),
    /// Appends to the log.
    Append(String),
    /// Puts a word into the text, at a place from 0 to 99.
    Word(u64, String),
    /// Puts a line into it.
    Line(u64, String),
    /// Takes a line out.
    DropLine(u64),
}

/// One version: when its device says that it was written, and what was changed.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) minute: u64,
    pub(crate) ops: Vec<Op>,
}

/// What each device did.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) devices: Vec<Vec<Step>>,
}

pub(crate) fn base_json() -> Json {
    json!({
        "title": "base", "free": 1, "tags": ["a", "b"], "items": [{ "id": "p", "n": 0 }, { "id": "q", "n": 0 }],
        "high": 5, "low": 5, "severity": "moderate", "count": 10, "log": ["begin"], "answer": "?",
        "note": "first row here\nsecond line there\nthird verse\n",
        "place": { "room": "r", "tags": ["t"], "answer": "?" },
    })
}

pub(crate) fn policy_fields() -> Json {
    json!({
        "tags": "union", "items": { "policy": "union", "key": "id" }, "high": "max", "low": "min",
        "severity": { "policy": "max", "order": ["mild", "moderate", "severe"] }, "count": "sum-of-deltas",
        "log": "append-only", "answer": "manual", "note": "text",
        "place": {
            "policy": "three-way", "fields": { "tags": "union", "answer": "manual" }, "default": "last-write-wins",
        },
    })
}

const SEVERITIES: [&str; 4] = ["mild", "moderate", "severe", "odd"];
const TAGS: [&str; 4] = ["a", "b", "c", "d"];
const ITEMS: [&str; 3] = ["p", "q", "r"];

fn draw_op(dice: &mut Dice, unique: &str) -> Op {
    let number = json!(dice.below(10));
    let maybe = |dice: &mut Dice, value: Json| (dice.below(6) > 0).then_some(value);
    let tag = json!(TAGS[dice.index(4)]);
    let word = json!(SEVERITIES[dice.index(4)]);
    match dice.below(18) {
        0 => Op::Set(&["title"], maybe(dice, json!(unique))),
        1 => Op::Set(&["free"], maybe(dice, number)),
        2 => Op::Set(&["other"], maybe(dice, number)),
        3 => Op::Add(&["tags"], tag),
        4 => Op::Remove(&["tags"], tag),
        5 => Op::Item(ITEMS[dice.index(3)], dice.below(5)),
        6 => Op::DropItem(ITEMS[dice.index(3)]),
        7 => Op::Set(&["high"], maybe(dice, number)),
        8 => Op::Set(&["low"], maybe(dice, number)),
        9 => Op::Set(&["severity"], maybe(dice, word)),
        10 => Op::Count(i64::try_from(dice.below(9)).unwrap() - 4),
        11 => Op::Append(unique.to_owned()),
        12 => Op::Set(&["answer"], maybe(dice, word)),
        13 => Op::Word(dice.below(100), unique.to_owned()),
        14 => Op::Line(dice.below(100), unique.to_owned()),
        15 => Op::DropLine(dice.below(100)),
        16 => Op::Set(&["place", "room"], maybe(dice, number)),
        _ if dice.below(2) == 0 => Op::Add(&["place", "tags"], tag),
        _ => Op::Set(&["place", "answer"], maybe(dice, number)),
    }
}

pub(crate) fn draw(dice: &mut Dice) -> Scenario {
    let count = 2 + dice.below(3);
    let devices = (1..=count)
        .map(|device| {
            (0..=dice.below(3))
                .map(|step| {
                    let draw = |op, dice: &mut Dice| draw_op(dice, &format!("u{device}x{step}x{op}"));
                    let ops = (0..=dice.below(3)).map(|op| draw(op, dice)).collect();
                    Step { minute: 1 + dice.below(6), ops }
                })
                .collect()
        })
        .collect();
    Scenario { devices }
}

fn at<'a>(json: &'a mut Json, path: &[&str]) -> &'a mut Json {
    path.iter().fold(json, |json, name| &mut json[*name])
}

fn list<'a>(json: &'a mut Json, path: &[&str]) -> &'a mut Vec<Json> {
    at(json, path).as_array_mut().unwrap()
}

fn put(text: &mut Json, separator: char, place: u64, piece: &str) {
    let mut pieces: Vec<String> =
        text.as_str().unwrap_or_default().split_inclusive(separator).map(str::to_owned).collect();
    let place = usize::try_from(place).unwrap() % (pieces.len() + 1);
    pieces.insert(place, format!("{piece}{separator}"));
    *text = json!(pieces.concat());
}

/// The document after a change.
pub(crate) fn apply(json: &mut Json, op: &Op) {
    match op {
        Op::Set(path, value) => {
            let (name, parent) = path.split_last().unwrap();
            let parent = at(json, parent).as_object_mut().unwrap();
            match value {
                Some(value) => drop(parent.insert((*name).to_owned(), value.clone())),
                None => drop(parent.remove(*name)),
            }
        }
        Op::Add(path, tag) => {
            let list = list(json, path);
            if !list.contains(tag) {
                list.push(tag.clone());
            }
        }
        Op::Remove(path, tag) => list(json, path).retain(|there| there != tag),
        Op::Item(id, n) => {
            list(json, &["items"]).retain(|item| item["id"] != *id);
            list(json, &["items"]).push(json!({ "id": id, "n": n }));
        }
        Op::DropItem(id) => list(json, &["items"]).retain(|item| item["id"] != *id),
        Op::Count(by) => json["count"] = json!(json["count"].as_i64().unwrap() + by),
        Op::Append(entry) => list(json, &["log"]).push(json!(entry)),
        Op::Word(place, word) => put(&mut json["note"], ' ', *place, word),
        Op::Line(place, line) => put(&mut json["note"], '\n', *place, line),
        Op::DropLine(place) => {
            let text = json["note"].as_str().unwrap_or_default().to_owned();
            let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
            if !lines.is_empty() {
                lines.remove(usize::try_from(*place).unwrap() % lines.len());
            }
            json["note"] = json!(lines.concat());
        }
    }
}

/// What each device wrote, one version after the other, not knowing of the others.
pub(crate) struct Written {
    pub(crate) base: Held,
    pub(crate) chains: Vec<Vec<Held>>,
    /// The same as the apps saw it, the base first.
    pub(crate) seen: Vec<Vec<Json>>,
}

impl Scenario {
    pub(crate) fn write(&self, policy: &TypePolicy) -> Written {
        let base = first(policy, stamp(200, 3), &base_json());
        let mut written = Written { base: base.clone(), chains: Vec::new(), seen: Vec::new() };
        for (device, steps) in (1_u8..).zip(&self.devices) {
            let mut clock = Hlc::ZERO;
            let mut last = base.clone();
            let mut json = json_of(&view(policy, &base).fields);
            let mut chain = Vec::new();
            let mut seen = vec![json.clone()];
            for step in steps {
                step.ops.iter().for_each(|op| apply(&mut json, op));
                clock = clock.tick(step.minute * 60_000);
                last = edit(policy, &last, Stamp { hlc: clock, ..stamp(device, 0) }, &json);
                // As the app sees it: a list that only grows, or a set, has an order of its own.
                json = json_of(&view(policy, &last).fields);
                chain.push(last.clone());
                seen.push(json.clone());
            }
            written.chains.push(chain);
            written.seen.push(seen);
        }
        written
    }
}

/// A version that the server has not got, and the version that it grew from.
#[derive(Clone)]
struct Pending {
    grew_from: Held,
    held: Held,
}

/// A device in a run.
struct Device {
    /// The head that `pending` stands on.
    head: Held,
    pending: Vec<Pending>,
}

impl Device {
    fn new(base: &Held, chain: &[Held]) -> Self {
        let before = std::iter::once(base).chain(chain);
        let pending = before
            .zip(chain)
            .map(|(grew_from, held)| Pending { grew_from: grew_from.clone(), held: held.clone() });
        Self { head: base.clone(), pending: pending.collect() }
    }

    /// Puts what is pending onto the head, one after the other.
    fn rebase(&mut self, policy: &TypePolicy, head: &Held) {
        if self.head == *head {
            return;
        }
        let mut tip = head.clone();
        for pending in std::mem::take(&mut self.pending) {
            let outcome = merged(policy, Some(&pending.grew_from), &pending.held, &tip);
            if matches!(outcome.same_as, SameAs::Remote | SameAs::Both) {
                continue;
            }
            let held = held(&outcome, &pending.held);
            // An edit that stands against a deletion grew from what it grew from before.
            let grew_from = if tip.document.is_some() { tip } else { pending.grew_from };
            tip = held.clone();
            self.pending.push(Pending { grew_from, held });
        }
        self.head = head.clone();
    }
}

/// Lets devices push in a drawn order, some of what is pending at a time; gives the last head.
pub(crate) fn run(policy: &TypePolicy, written: &Written, dice: &mut Dice) -> Held {
    let mut devices: Vec<Device> =
        written.chains.iter().map(|chain| Device::new(&written.base, chain)).collect();
    let mut head = written.base.clone();
    while devices.iter().any(|device| !device.pending.is_empty()) {
        let index = dice.index(devices.len());
        let device = &mut devices[index];
        if !device.pending.is_empty() {
            device.rebase(policy, &head);
        }
        if !device.pending.is_empty() {
            let count = 1 + dice.index(device.pending.len());
            let pushed: Vec<Pending> = device.pending.drain(..count).collect();
            head = pushed[count - 1].held.clone();
            device.head = head.clone();
        }
    }
    head
}

/// What is the same on every device in the end.
#[derive(PartialEq, Debug, Clone)]
pub(crate) struct End {
    pub(crate) fields: Json,
    pub(crate) open: Vec<(Vec<String>, Vec<Json>)>,
}

pub(crate) fn end(policy: &TypePolicy, head: &Held) -> End {
    let view = view(policy, head);
    let mut open: Vec<(Vec<String>, Vec<Json>)> = view.open.iter().map(open_of).collect();
    open.sort_by_key(|(path, _)| path.clone());
    End { fields: json_of::<Fields>(&view.fields), open }
}

fn open_of(open: &Open) -> (Vec<String>, Vec<Json>) {
    match open {
        Open::Field { path, values } => {
            (path.clone(), values.iter().map(|(_, value)| json_of(value)).collect())
        }
        Open::Deletion { by } => (vec!["deletion".to_owned()], vec![json!(by.hlc.utc_ms)]),
    }
}
