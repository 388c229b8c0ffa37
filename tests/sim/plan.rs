//! A run of one seed: random steps under faults, then quiet, then the checks.

use crate::check;
use crate::dice::Dice;
use crate::disasters::Snapshot;
use crate::documents;
use crate::faults::{Fault, Faults, Hooks, draw_sizes};
use crate::fixture::FIXTURE;
use crate::server::ModelServer;
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
    /// Every version that was committed, in order: the same whatever the clocks say.
    pub(crate) shape: Vec<String>,
    pub(crate) lines: Vec<String>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) commits: usize,
    pub(crate) devices: usize,
    /// Steps that the seed has, whether they were taken or not.
    pub(crate) steps: u64,
    pub(crate) faults: Faults,
}

/// A run of a seed, or of a part of it.
#[derive(Clone)]
pub(crate) struct Trial {
    pub(crate) seed: u64,
    /// Only these steps.
    pub(crate) keep: Option<Vec<u64>>,
    /// None of these faults.
    pub(crate) without: Vec<Fault>,
    pub(crate) hooks: Hooks,
    pub(crate) is_loud: bool,
    pub(crate) has_frozen_clocks: bool,
    /// Whether its shape is wanted: then nothing is merged, where clocks have a say.
    pub(crate) has_shape: bool,
}

impl Trial {
    /// A seed as it is, with its trace.
    pub(crate) fn new(seed: u64, hooks: Hooks) -> Self {
        let (keep, without) = (None, Vec::new());
        Self { seed, keep, without, hooks, is_loud: true, has_frozen_clocks: false, has_shape: false }
    }

    /// The same without a trace.
    pub(crate) fn quiet(self) -> Self {
        Self { is_loud: false, ..self }
    }

    /// Runs it.
    pub(crate) fn run(&self) -> Outcome {
        let mut dice = Dice::new(self.seed, 0);
        let drawn = Faults::draw(&mut dice);
        let faults = self.without.iter().fold(drawn, |faults, fault| faults.without(*fault));
        let sizes = draw_sizes(&mut dice);
        let (steps, devices) = (draw_steps(&mut dice), draw_devices(&mut dice));
        let revocation = if dice.chance(600) { Some(dice.below(steps)) } else { None };
        let has_documents = dice.chance(500) && !self.has_shape;
        let mut world = World::new(self.seed, devices, faults, sizes, self.hooks);
        world.is_loud = self.is_loud;
        world.has_frozen_clocks = self.has_frozen_clocks;
        let played = catch_unwind(AssertUnwindSafe(|| {
            let mut kept = Kept::default();
            if has_documents {
                documents::prologue(&mut world);
            }
            for number in 0..steps {
                let is_taken = self.keep.as_ref().is_none_or(|keep| keep.contains(&number));
                if !is_taken || world.failure.is_some() {
                    continue;
                }
                // Each step draws for itself, so that others can be left out.
                let mut dice = Dice::new(self.seed, 1_000_000 + number);
                world.dice = Dice::new(self.seed, 2_000_000 + number);
                world.say(|| format!("step {number}"));
                if revocation == Some(number) {
                    let by = dice.index(world.devices.len());
                    world.revoke(by);
                }
                disturb(&mut world, &mut dice, &mut kept);
                step(&mut world, &mut dice);
            }
            world.dice = Dice::new(self.seed, 3_000_000);
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
            shape: if self.has_shape { check::shape(&world) } else { Vec::new() },
            commits: world.server.commits.len(),
            devices: world.devices.len(),
            steps,
            counts: world.ledger.counts,
            lines: world.lines,
            faults,
        }
    }
}

/// Runs a seed.
pub(crate) fn run(seed: u64, hooks: Hooks) -> Outcome {
    Trial::new(seed, hooks).run()
}

/// 50 to 400, mostly few.
fn draw_steps(dice: &mut Dice) -> u64 {
    50 + (0..5).map(|_| dice.below(351)).min().unwrap_or_default()
}

/// 2 to 5, mostly few.
fn draw_devices(dice: &mut Dice) -> usize {
    match dice.below(100) {
        0..30 => 2,
        30..75 => 3,
        75..90 => 4,
        _ => 5,
    }
}

/// Faults end; everything comes to rest; then what must hold is checked.
pub(crate) fn settle(world: &mut World) {
    world.faults = Faults::none();
    world.crashes_at.clear();
    world.say(|| "faults end".into());
    world.calm();
    world.drain(DRAIN_AT_MOST);
    let mut rounds = 0;
    while world.failure.is_none() {
        let before: Vec<_> = world.devices.iter().map(|device| device.replica.clone()).collect();
        for index in 0..world.devices.len() {
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

/// States that can come back.
#[derive(Default)]
struct Kept {
    devices: Vec<Snapshot>,
    server: Option<ModelServer>,
}

/// What goes wrong between steps.
fn disturb(world: &mut World, dice: &mut Dice, kept: &mut Kept) {
    let index = dice.index(world.devices.len());
    if world.strikes(Fault::Partition) {
        world.devices[index].offline_until_ms = world.now_ms + dice.below(20_000);
    }
    if world.strikes(Fault::ClockJump) {
        let jump = dice.below(4 * YEAR_MS) as i64 - (2 * YEAR_MS) as i64;
        world.devices[index].skew_ms = jump;
    }
    if world.strikes(Fault::StagedExpires) {
        world.server.staged.clear();
    }
    if world.server.refuses_puts {
        world.server.refuses_puts = dice.chance(800);
    } else if world.strikes(Fault::Quota) {
        world.server.refuses_puts = true;
    }
    if world.has_spares() && world.strikes(Fault::Cloned) {
        world.double(index);
    } else if world.has_spares() && world.strikes(Fault::Wiped) {
        world.wipe(index);
    } else if !kept.devices.is_empty() && world.has_spares() && world.strikes(Fault::Restored) {
        world.restore(kept.devices.swap_remove(dice.index(kept.devices.len())));
    }
    if let Some(old) = &kept.server
        && world.strikes(Fault::Yesterday)
    {
        world.roll_back(old.clone(), 1000 + dice.below(6000));
        kept.server = None;
    }
    if dice.chance(80) && world.faults.rate(Fault::Restored) > 0 {
        kept.devices.extend(world.photograph(index));
    }
    if dice.chance(80) && world.faults.rate(Fault::Yesterday) > 0 {
        kept.server = Some(world.server.clone());
    }
}

fn step(world: &mut World, dice: &mut Dice) {
    let index = dice.index(world.devices.len());
    if !world.ledger.documents.is_empty() && dice.chance(350) {
        documents::step(world, dice, index);
        return world.pass(if dice.chance(300) { 0 } else { dice.below(1500) });
    }
    match dice.below(44) {
        0..7 => world.input(index, Input::Sync),
        7..12 => world.input(index, Input::Send),
        12..16 => (0..world.devices.len()).for_each(|device| world.input(device, Input::Sync)),
        16..33 => {
            let record = record(world, dice, index);
            world.input(index, Input::Put(vec![record]));
        }
        33..37 => {
            let records = (0..2 + dice.below(4)).map(|_| record(world, dice, index)).collect();
            world.input(index, Input::Put(records));
        }
        37 => world.input(index, Input::Pull),
        38 => {
            world.ledger.count("deletions only");
            world.input(index, Input::Deletions);
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
