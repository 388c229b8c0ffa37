//! Devices, network and server in one virtual time: what happens next is decided by the seed alone.

use crate::dice::{Dice, generator};
use crate::faults::{Faults, Hooks};
use crate::fixture::{DEVICES, FIXTURE};
use crate::ledger::Ledger;
use crate::replica::MemReplica;
use crate::server::{LOG_MOVED, ModelServer, PageSizes};
use lockstep_engine::effect::{Answer, Effect, Env, Event, Failure, Input, Request};
use lockstep_engine::replica::WriteOp;
use lockstep_engine::{EngineError, VaultEngine};
use lockstep_proto::device_log::DeviceLog;
use rand::rngs::ChaCha20Rng;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

/// When a device gives up waiting for an answer.
const TIMEOUT_MS: u64 = 2000;
/// 2026-01-01, where every clock without skew begins.
const EPOCH_MS: u64 = 1_767_225_600_000;

/// A device: what is durable, and the engine that is not.
pub(crate) struct Device {
    pub(crate) replica: MemReplica,
    /// The replica before its last write; what is left if that was not synced.
    before: MemReplica,
    pub(crate) engine: VaultEngine,
    /// The device log as the adapter keeps it.
    pub(crate) log: Arc<DeviceLog>,
    /// Whether it has the key that was made after the revocation.
    has_later_key: bool,
    incarnation: u64,
    rng: ChaCha20Rng,
    pub(crate) skew_ms: i64,
    pub(crate) offline_until_ms: u64,
}

enum Occurrence {
    Serve { device: usize, incarnation: u64, id: u64, request: Request },
    Give { device: usize, incarnation: u64, input: Input },
}

/// The moment of a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    After,
}

/// Everything.
pub(crate) struct World {
    pub(crate) now_ms: u64,
    queue: BTreeMap<(u64, u64), Occurrence>,
    ticket: u64,
    pub(crate) dice: Dice,
    pub(crate) faults: Faults,
    pub(crate) hooks: Hooks,
    pub(crate) server: ModelServer,
    pub(crate) devices: Vec<Device>,
    pub(crate) ledger: Ledger,
    /// Crash at exactly this effect.
    pub(crate) crash_at: Option<(u64, Moment)>,
    /// Writes and sends so far.
    pub(crate) effects: u64,
    /// The next so many answers of pushes are lost.
    pub(crate) lose_answers: u64,
    pub(crate) lines: Vec<String>,
    pub(crate) failure: Option<String>,
}

impl World {
    /// A world before anything happened.
    pub(crate) fn new(seed: u64, faults: Faults, sizes: PageSizes, hooks: Hooks) -> Self {
        let mut dice = Dice::new(seed, 1);
        let devices = (0..DEVICES)
            .map(|index| {
                let log = FIXTURE.logs[index + dice.index(DEVICES - index)].clone();
                Device {
                    replica: MemReplica::default(),
                    before: MemReplica::default(),
                    engine: VaultEngine::new(FIXTURE.setup(index), log.clone()),
                    log,
                    has_later_key: false,
                    incarnation: 0,
                    rng: generator(seed, 100 + index as u64),
                    skew_ms: 0,
                    offline_until_ms: 0,
                }
            })
            .collect();
        Self {
            now_ms: 0,
            queue: BTreeMap::new(),
            ticket: 0,
            dice,
            faults,
            hooks,
            server: ModelServer::new(sizes),
            devices,
            ledger: Ledger::default(),
            crash_at: None,
            effects: 0,
            lose_answers: 0,
            lines: Vec::new(),
            failure: None,
        }
    }

    /// A line of the trace.
    pub(crate) fn say(&mut self, line: &str) {
        self.lines.push(format!("{:>7} {line}", self.now_ms));
    }

    /// Hash over the whole trace.
    pub(crate) fn trace_hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.lines.hash(&mut hasher);
        hasher.finish()
    }

    /// Remembers the first thing that must not be.
    pub(crate) fn demand(&mut self, result: Result<(), String>) {
        if let Err(what) = result
            && self.failure.is_none()
        {
            self.say(&format!("FAILURE {what}"));
            self.failure = Some(what);
        }
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while self.failure.is_none()
            && let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= until
        {
            self.now_ms = entry.key().0;
            let occurrence = entry.remove();
            self.happen(occurrence);
        }
        self.now_ms = until;
    }

    /// Lets everything that is under way come to its end; at most so many occurrences.
    pub(crate) fn drain(&mut self, at_most: usize) {
        for _ in 0..at_most {
            let Some(((at, _), occurrence)) = self.queue.pop_first() else { return };
            self.now_ms = self.now_ms.max(at);
            self.happen(occurrence);
            if self.failure.is_some() {
                return;
            }
        }
        self.demand(Err("it does not come to rest".into()));
    }

    /// Gives a device an input.
    pub(crate) fn input(&mut self, index: usize, input: Input) {
        let device = &mut self.devices[index];
        let utc_ms = (EPOCH_MS + self.now_ms).saturating_add_signed(device.skew_ms);
        let mut env = Env { utc_ms, rng: &mut device.rng };
        let effects = device.engine.step(&device.replica, &mut env, input);
        let incarnation = self.devices[index].incarnation;
        for effect in effects {
            let still_up = self.devices[index].incarnation == incarnation && self.failure.is_none();
            if still_up {
                self.carry_out(index, effect);
            }
        }
    }

    fn carry_out(&mut self, index: usize, effect: Effect) {
        match effect {
            Effect::Report(event) => {
                self.say(&format!("device {index}: {}", describe(&event)));
                if is_behind(&event) {
                    self.ledger.count("keys behind");
                    let now = self.server.log.next_index() > FIXTURE.log().next_index();
                    self.demand(if now { Ok(()) } else { Err("keys are behind of nothing".into()) });
                    return self.catch_up(index);
                }
                let result = self.ledger.reported(&event);
                self.demand(result);
            }
            Effect::Write(id, ops) => self.write(index, id, ops),
            Effect::Send(id, request) => {
                self.effects += 1;
                if self.crashes(index, Moment::Before) {
                    return;
                }
                self.say(&format!("device {index} sends {id}: {}", name_of(&request)));
                let result = self.check_in_flight(index, &request).and_then(|()| self.ledger.sent(&request));
                self.demand(result);
                self.transmit(index, id, &request);
                self.crashes(index, Moment::After);
            }
        }
    }

    fn write(&mut self, index: usize, id: u64, ops: Vec<WriteOp>) {
        self.effects += 1;
        let ops = (self.hooks.write)(ops);
        if self.crashes(index, Moment::Before) {
            if !self.hooks.is_atomic {
                let half = &ops[..ops.len() / 2];
                let result =
                    self.devices[index].replica.apply(half).and_then(|()| self.ledger.wrote(index, half));
                self.demand(result);
            }
            return;
        }
        let device = &mut self.devices[index];
        if !self.hooks.is_durable {
            device.before = device.replica.clone();
        }
        let result = device.replica.apply(&ops).and_then(|()| self.ledger.wrote(index, &ops));
        self.say(&format!("device {index} writes {id}: {} operations", ops.len()));
        self.demand(result);
        if self.crashes(index, Moment::After) {
            return;
        }
        let delay = if self.faults.delay_ms_max > 1 { self.dice.below(20) } else { 0 };
        let incarnation = self.devices[index].incarnation;
        self.later(delay, Occurrence::Give { device: index, incarnation, input: Input::Written(id) });
    }

    /// Draws or carries out the planned crash.
    fn crashes(&mut self, index: usize, moment: Moment) -> bool {
        let is_planned = self.crash_at == Some((self.effects, moment));
        if !is_planned && !self.dice.chance(self.faults.crash) {
            return false;
        }
        self.crash(index);
        true
    }

    /// A device is revoked, by one of those that stay; whether the vault is rotated is another matter.
    pub(crate) fn revoke(&mut self, by: usize) {
        self.say(&format!("device {by} revokes a device"));
        self.ledger.count("revocation");
        self.server.log = FIXTURE.later_log.clone();
        self.catch_up(by);
    }

    /// What the adapter does then: fetches log and key, starts the engine anew, syncs again.
    fn catch_up(&mut self, index: usize) {
        let device = &mut self.devices[index];
        device.log = self.server.log.clone();
        device.has_later_key = true;
        self.restart(index);
        let incarnation = self.devices[index].incarnation;
        self.later(1, Occurrence::Give { device: index, incarnation, input: Input::Sync });
    }

    fn restart(&mut self, index: usize) {
        let device = &mut self.devices[index];
        device.incarnation += 1;
        let setup = if device.has_later_key { FIXTURE.later_setup(index) } else { FIXTURE.setup(index) };
        device.engine = VaultEngine::new(setup, device.log.clone());
    }

    /// Ends a device's process and starts it again over what is durable.
    pub(crate) fn crash(&mut self, index: usize) {
        self.say(&format!("device {index} crashes"));
        self.ledger.count("crash");
        let is_durable = self.hooks.is_durable;
        self.restart(index);
        let device = &mut self.devices[index];
        if !is_durable {
            device.replica = device.before.clone();
        }
    }

    fn check_in_flight(&self, index: usize, request: &Request) -> Result<(), String> {
        let Request::Push(push) = request else { return Ok(()) };
        let in_flight = self.devices[index].replica.in_flight.as_ref();
        if in_flight.is_some_and(|in_flight| in_flight.commit == push.commit) {
            Ok(())
        } else {
            Err("a commit is sent that was not persisted before".into())
        }
    }

    fn later(&mut self, delay_ms: u64, occurrence: Occurrence) {
        self.ticket += 1;
        self.queue.insert((self.now_ms + delay_ms, self.ticket), occurrence);
    }

    fn transmit(&mut self, device: usize, id: u64, request: &Request) {
        let incarnation = self.devices[device].incarnation;
        let gives_up = Input::Answered(id, Err(Failure::Later("no answer".into())));
        self.later(TIMEOUT_MS, Occurrence::Give { device, incarnation, input: gives_up });
        let is_offline = self.now_ms < self.devices[device].offline_until_ms;
        if is_offline || self.dice.chance(self.faults.request_lost) {
            self.ledger.count("request lost");
            return;
        }
        let copies = if self.dice.chance(self.faults.duplicated) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = self.delay();
            self.later(delay, Occurrence::Serve { device, incarnation, id, request: request.clone() });
        }
    }

    fn delay(&mut self) -> u64 {
        let delay = self.dice.below(self.faults.delay_ms_max);
        if self.dice.chance(self.faults.late) { delay + TIMEOUT_MS } else { delay }
    }

    fn happen(&mut self, occurrence: Occurrence) {
        match occurrence {
            Occurrence::Give { device, incarnation, input } => {
                if self.devices[device].incarnation == incarnation {
                    self.input(device, input);
                }
            }
            Occurrence::Serve { device, incarnation, id, request } => {
                let epoch = self.server.tip.epoch;
                let answer = (self.hooks.serve)(&mut self.server, &request);
                if self.server.tip.epoch > epoch {
                    self.ledger.count("rotated");
                }
                self.say(&format!("server to device {device}, {id}: {}", name_of_answer(&answer)));
                if matches!(answer, Ok(Answer::HeadMoved(_))) {
                    self.ledger.count("head moved");
                }
                let is_push = matches!(request, Request::Push(_));
                let is_lost = (is_push && self.lose_answers > 0) || self.dice.chance(self.faults.answer_lost);
                if is_lost {
                    self.lose_answers = self.lose_answers.saturating_sub(u64::from(is_push));
                    self.ledger.count("answer lost");
                    return;
                }
                let answer = answer.map(self.hooks.answer);
                if let Ok(Answer::DeviceLog(log)) = &answer {
                    // The adapter keeps the log before it hands it on.
                    self.devices[device].log = log.clone();
                }
                let delay = self.delay();
                let input = Input::Answered(id, answer);
                self.later(delay, Occurrence::Give { device, incarnation, input });
            }
        }
    }
}

/// Whether the engine waits for a key, or for the device log that the server has.
fn is_behind(event: &Event) -> bool {
    match event {
        Event::Stopped(EngineError::KeyMissing { .. } | EngineError::NeedsRotation { .. }) => true,
        Event::Paused(Failure::Refused(text)) => text == LOG_MOVED,
        _ => false,
    }
}

fn describe(event: &Event) -> String {
    match event {
        Event::Stored(operations) => format!("stored {}", operations.len()),
        Event::Pushed { seq, operations } => format!("pushed {seq} with {}", operations.len()),
        other => format!("{other:?}"),
    }
}

fn name_of(request: &Request) -> String {
    match request {
        Request::Push(push) => {
            let commit = lockstep_proto::commit::Commit::hash_of(&push.commit.bytes.0);
            format!("push {commit}, {} envelopes", push.envelopes.len())
        }
        Request::Stage { envelopes } => format!("stage {}", envelopes.len()),
        Request::Envelopes { places } => format!("envelopes {}", places.len()),
        other => format!("{other:?}"),
    }
}

fn name_of_answer(answer: &Result<Answer, Failure>) -> String {
    let page = |page: &lockstep_proto::api::vault::Page| {
        format!("{} commits, {} entries, head {}", page.commits.len(), page.entries.len(), page.head_seq)
    };
    match answer {
        Ok(Answer::Page(found)) => page(found),
        Ok(Answer::HeadMoved(found)) => format!("head moved, {}", page(found)),
        Ok(Answer::Entries(entries, more)) => format!("{} entries, more {more}", entries.len()),
        Ok(Answer::DeviceLog(log)) => format!("device log of {}", log.next_index()),
        other => format!("{other:?}"),
    }
}
