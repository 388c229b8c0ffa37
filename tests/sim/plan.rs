//! A run of one seed: random steps under faults, then quiet, then the checks.

use crate::check;
use crate::dice::Dice;
use crate::faults::{Faults, Hooks, draw_sizes};
use crate::fixture::{DEVICES, FIXTURE};
use crate::world::World;
use lockstep_engine::effect::{Input, NewRecord};
use lockstep_engine::read;
use lockstep_engine::replica::{Pinning, Policy, Replica as _};
use lockstep_proto::id::{Revision, Seq};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Record type of notes: both versions are kept.
pub(crate) const NOTE: &str = "note";
/// Record type of write-once records.
pub(crate) const ONCE: &str = "once";
/// Record type of records that are written over.
pub(crate) const LAST: &str = "last";

const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;
/// Occurrences in which everything that is under way must end.
const DRAIN_AT_MOST: usize = 20_000;
/// Rounds of all devices in which quiet must be reached: push, pull, and one in which nothing happens.
const ROUNDS_AT_MOST: usize = 5;

/// How a run ended.
pub(crate) struct Outcome {
    pub(crate) failure: Option<String>,
    pub(crate) trace_hash: u64,
    pub(crate) lines: Vec<String>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) commits: usize,
    pub(crate) faults: Faults,
}

/// Runs a seed.
pub(crate) fn run(seed: u64, hooks: Hooks) -> Outcome {
    let mut dice = Dice::new(seed, 0);
    let faults = Faults::draw(&mut dice);
    let sizes = draw_sizes(&mut dice);
    let steps = 50 + dice.below(60);
    let revocation = if dice.chance(600) { Some(dice.below(steps)) } else { None };
    let mut world = World::new(seed, faults, sizes, hooks);
    let played = catch_unwind(AssertUnwindSafe(|| {
        for number in 0..steps {
            if world.failure.is_some() {
                return;
            }
            if revocation == Some(number) {
                let by = dice.index(DEVICES);
                world.revoke(by);
            }
            step(&mut world, &mut dice);
        }
        settle(&mut world);
    }));
    if let Err(panic) = played {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world.failure.get_or_insert(format!("panic: {}", text.unwrap_or_default()));
    }
    Outcome {
        failure: world.failure.clone(),
        trace_hash: world.trace_hash(),
        commits: world.server.commits.len(),
        counts: world.ledger.counts,
        lines: world.lines,
        faults,
    }
}

/// Faults end; everything comes to rest; then what must hold is checked.
pub(crate) fn settle(world: &mut World) {
    world.faults = Faults::none();
    world.crash_at = None;
    world.say("faults end");
    for device in &mut world.devices {
        device.offline_until_ms = 0;
    }
    world.drain(DRAIN_AT_MOST);
    let mut rounds = 0;
    while world.failure.is_none() {
        let before: Vec<_> = world.devices.iter().map(|device| device.replica.clone()).collect();
        for index in 0..DEVICES {
            world.input(index, Input::Sync);
            world.drain(DRAIN_AT_MOST);
        }
        if world.devices.iter().map(|device| &device.replica).eq(before.iter()) {
            break;
        }
        rounds += 1;
        if rounds > ROUNDS_AT_MOST {
            world.demand(Err("there are still changes after so many rounds".into()));
        }
    }
    if world.failure.is_none() {
        let result = check::all(world);
        world.demand(result);
    }
}

fn step(world: &mut World, dice: &mut Dice) {
    let (now_ms, faults) = (world.now_ms, world.faults);
    let index = dice.index(DEVICES);
    if dice.chance(faults.partition) {
        world.devices[index].offline_until_ms = now_ms + dice.below(20_000);
    }
    if dice.chance(faults.clock_jump) {
        let jump = dice.below(4 * YEAR_MS) as i64 - (2 * YEAR_MS) as i64;
        world.devices[index].skew_ms = jump;
    }
    if dice.chance(faults.staged_expires) {
        world.server.staged.clear();
    }
    match dice.below(10) {
        0..3 => world.input(index, Input::Sync),
        3 => (0..DEVICES).for_each(|device| world.input(device, Input::Sync)),
        4..8 => {
            let record = record(world, dice, index);
            world.input(index, Input::Put(vec![record]));
        }
        8 => {
            let records = (0..2 + dice.below(4)).map(|_| record(world, dice, index)).collect();
            world.input(index, Input::Put(records));
        }
        _ => {
            // An app that edits what it finds, conflict copies too.
            if let Some(edit) = edit(world, dice, index) {
                world.input(index, Input::Put(vec![edit]));
            }
        }
    }
    let ms = if dice.chance(300) { 0 } else { dice.below(1500) };
    world.pass(ms);
}

fn document(world: &mut World, dice: &mut Dice) -> Vec<u8> {
    if dice.chance(250) {
        // Now and then two devices write the same.
        return vec![b'v', dice.below(2) as u8];
    }
    world.ledger.count("document");
    let number = world.ledger.counts["document"];
    let size = if dice.chance(100) { 2000 } else { 20 };
    let mut document = number.to_be_bytes().to_vec();
    document.resize(size, b'.');
    document
}

fn record(world: &mut World, dice: &mut Dice, device: usize) -> NewRecord {
    let (record_type, policy) = match dice.below(10) {
        0 => (ONCE, Policy::AdoptCommitted),
        1 => (LAST, Policy::Overwrite),
        _ => (NOTE, Policy::KeepBoth),
    };
    let name = vec![b'a' + dice.below(4) as u8];
    let is_deletion = record_type != ONCE && dice.chance(200);
    let document = if is_deletion { None } else { Some(document(world, dice)) };
    let expected = dice.chance(100).then(|| {
        let record = FIXTURE.keys.record_id(record_type, &name);
        let row = world.devices[device].replica.record(record).unwrap();
        row.map_or(Revision::new(0), |row| row.revision)
    });
    NewRecord {
        record_type: record_type.into(),
        name,
        schema: 1,
        document,
        blobs: Vec::new(),
        policy,
        pin: pinning(world, dice, device),
        expected,
    }
}

/// Now and then a commit pins itself, or unpins one that the device has.
fn pinning(world: &World, dice: &mut Dice, device: usize) -> Pinning {
    let head = world.devices[device].replica.head.as_ref().map(|head| head.tip.seq.value());
    match (dice.below(1000), head) {
        (0..80, _) => Pinning::Pin,
        (80..160, Some(head)) => Pinning::Unpin(Seq::new(dice.below(head + 1))),
        _ => Pinning::None,
    }
}

fn edit(world: &mut World, dice: &mut Dice, device: usize) -> Option<NewRecord> {
    let replica = &world.devices[device].replica;
    let rows = replica.list(NOTE, None).unwrap();
    if rows.is_empty() {
        return None;
    }
    let row = &rows[dice.index(rows.len())];
    let current = read::current(replica, &FIXTURE.later_keys, row.record).unwrap()?;
    let document = if dice.chance(300) { None } else { Some(document(world, dice)) };
    Some(NewRecord {
        record_type: NOTE.into(),
        name: current.content.name.0,
        schema: 1,
        document,
        blobs: Vec::new(),
        policy: Policy::KeepBoth,
        pin: Pinning::None,
        expected: None,
    })
}
