//! Devices, network and server in one virtual time: what happens next is decided by the seed alone. Here are the devices:
//! their engines are given inputs, and their effects are carried out. What is durable is `disk`, what goes between
//! is `network`.

use crate::dice::{Dice, Draws, generator};
use crate::faults::{Fault, Faults, Hooks};
use crate::fixture::{DEVICES, FIXTURE};
use crate::ledger::Ledger;
use crate::replica::MemReplica;
use crate::server::{LOG_MOVED, ModelServer, PageSizes, QUOTA};
use crate::trace;
use crate::undo::Undo;
use lockstep_engine::effect::{Effect, Env, Event, Failure, Input, Request};
use lockstep_engine::engine::Setup;
use lockstep_engine::{EngineError, VaultEngine};
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::id::OperationId;
use rand::rngs::ChaCha20Rng;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

/// 2026-01-01, where every clock without skew begins.
const EPOCH_MS: u64 = 1_767_225_600_000;

/// A device: what is durable, and the engine that is not.
pub(crate) struct Device {
    /// Which of the account's devices it is.
    pub(crate) identity: usize,
    pub(crate) replica: MemReplica,
    /// Writes that were carried out and of which nobody was told yet, with what each added.
    pub(crate) unsynced: Vec<(u64, Undo, Vec<OperationId>)>,
    /// The last one of which somebody was told; kept where a planted bug loses it.
    pub(crate) told: Option<(Undo, Vec<OperationId>)>,
    pub(crate) engine: VaultEngine,
    /// The device log as the adapter keeps it.
    pub(crate) log: Arc<DeviceLog>,
    /// Whether it has the key that was made after the revocation.
    pub(crate) has_later_key: bool,
    pub(crate) incarnation: u64,
    /// Draws operation ids.
    pub(crate) ids: ChaCha20Rng,
    /// Draws everything else: a copy of the device goes on with the same.
    pub(crate) nonces: Draws,
    pub(crate) skew_ms: i64,
    pub(crate) offline_until_ms: u64,
    pub(crate) disk_full_until_ms: u64,
    /// The request that it waits for.
    pub(crate) awaits: Option<u64>,
    /// Whether the server lied to it in the sync under way: then it may stop.
    pub(crate) lied_to: bool,
    /// Whether the lie was that the vault ends before what it verified: then it must.
    pub(crate) must_notice: bool,
}

impl Device {
    pub(crate) fn new(seed: u64, index: usize, log: Arc<DeviceLog>) -> Self {
        Self {
            identity: index,
            replica: MemReplica::default(),
            unsynced: Vec::new(),
            told: None,
            engine: VaultEngine::new(FIXTURE.setup(index), log.clone()),
            log,
            has_later_key: false,
            incarnation: 0,
            ids: generator(seed, 100 + index as u64),
            nonces: Draws { seed, purpose: 200 + index as u64, count: 0 },
            skew_ms: 0,
            offline_until_ms: 0,
            disk_full_until_ms: 0,
            awaits: None,
            lied_to: false,
            must_notice: false,
        }
    }

    pub(crate) fn setup(&self) -> Setup {
        if self.has_later_key { FIXTURE.later_setup(self.identity) } else { FIXTURE.setup(self.identity) }
    }
}

/// Something that is under way.
pub(crate) enum Occurrence {
    Serve {
        device: usize,
        incarnation: u64,
        id: u64,
        request: Request,
    },
    Give {
        device: usize,
        incarnation: u64,
        input: Input,
        lie: Option<Lie>,
    },
    /// An answer that the adapter can not read.
    Break {
        device: usize,
        incarnation: u64,
        id: u64,
    },
}

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    Tampered,
    Yesterday,
    /// The vault ends before the commit that was asked from.
    Behind,
}

/// The moment of a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    After,
}

/// Everything.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) now_ms: u64,
    pub(crate) queue: BTreeMap<(u64, u64), Occurrence>,
    pub(crate) ticket: u64,
    pub(crate) dice: Dice,
    pub(crate) faults: Faults,
    pub(crate) hooks: Hooks,
    pub(crate) server: ModelServer,
    /// The server shows this state until then.
    pub(crate) yesterday: Option<(u64, ModelServer)>,
    pub(crate) down_until_ms: u64,
    pub(crate) devices: Vec<Device>,
    /// Devices that joined since the beginning.
    pub(crate) joined: usize,
    pub(crate) ledger: Ledger,
    /// Crash at exactly these effects.
    pub(crate) crashes_at: Vec<(u64, Moment)>,
    /// Writes and sends so far.
    pub(crate) effects: u64,
    /// The next so many answers of pushes are lost.
    pub(crate) lose_answers: u64,
    /// Whether the owner repairs the chain in this run.
    pub(crate) has_repairs: bool,
    /// Whether lines of the trace are kept.
    pub(crate) is_loud: bool,
    /// Whether devices seal the next commit while they wait for the answer to one.
    pub(crate) seals_ahead: bool,
    /// Whether every clock stands where it began.
    pub(crate) has_frozen_clocks: bool,
    pub(crate) lines: Vec<String>,
    pub(crate) failure: Option<String>,
}

impl World {
    /// A world of so many devices before anything happened.
    pub(crate) fn new(seed: u64, devices: usize, faults: Faults, sizes: PageSizes, hooks: Hooks) -> Self {
        let mut dice = Dice::new(seed, 1);
        let devices = (0..devices)
            .map(|index| Device::new(seed, index, FIXTURE.logs[index + dice.index(DEVICES - index)].clone()))
            .collect();
        Self {
            seed,
            now_ms: 0,
            queue: BTreeMap::new(),
            ticket: 0,
            dice,
            faults,
            hooks,
            server: ModelServer::new(sizes),
            yesterday: None,
            down_until_ms: 0,
            devices,
            joined: 0,
            ledger: Ledger::default(),
            crashes_at: Vec::new(),
            effects: 0,
            lose_answers: 0,
            has_repairs: false,
            is_loud: true,
            seals_ahead: seed.is_multiple_of(2),
            has_frozen_clocks: false,
            lines: Vec::new(),
            failure: None,
        }
    }

    /// A line of the trace.
    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        if self.is_loud {
            self.lines.push(format!("{:>7} {}", self.now_ms, line()));
        }
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
            self.say(|| format!("FAILURE {what}"));
            self.failure = Some(what);
        }
    }

    /// Whether a fault strikes now; it is counted.
    pub(crate) fn strikes(&mut self, fault: Fault) -> bool {
        let strikes = self.dice.chance(self.faults.rate(fault));
        if strikes {
            self.ledger.count(fault.name());
        }
        strikes
    }

    /// Gives a device an input.
    pub(crate) fn input(&mut self, index: usize, input: Input) {
        if let Input::Written(id) = input {
            self.synced(index, id);
        }
        if let Input::Abandon(_) = input {
            self.ledger.is_abandoning = true;
        }
        let hooks = self.hooks;
        let device = &mut self.devices[index];
        let skew_ms = if self.has_frozen_clocks { -(self.now_ms as i64) } else { device.skew_ms };
        let utc_ms = (EPOCH_MS + self.now_ms).saturating_add_signed(skew_ms);
        let is_put = matches!(input, Input::Put(_) | Input::Edit(_) | Input::Decide(..));
        let mut drawn =
            if hooks.draws_nonces && !is_put { device.nonces.next() } else { generator(0, index as u64) };
        let rng = if is_put && hooks.draws_ids { &mut device.ids } else { &mut drawn };
        let effects = device.engine.step(&device.replica, &mut Env { utc_ms, rng }, input);
        let incarnation = device.incarnation;
        for effect in effects {
            let still_up = self.devices[index].incarnation == incarnation && self.failure.is_none();
            if still_up {
                self.carry_out(index, effect);
            }
        }
        self.ledger.is_abandoning = false;
    }

    fn carry_out(&mut self, index: usize, effect: Effect) {
        match effect {
            Effect::Report(event) => self.report(index, &event),
            Effect::Write(id, ops) => self.write(index, id, ops),
            Effect::Send(id, request) => {
                self.effects += 1;
                if self.crashes(index, Moment::Before) {
                    return;
                }
                self.say(|| format!("device {index} sends {id}: {}", trace::of_request(&request)));
                let result = self.check_in_flight(index, &request).and_then(|()| self.ledger.sent(&request));
                self.demand(result);
                self.devices[index].awaits = Some(id);
                self.transmit(index, id, &request);
                if self.seals_ahead && matches!(request, Request::Push(_)) {
                    let device = &mut self.devices[index];
                    let mut rng = device.nonces.next();
                    let env = &mut Env { utc_ms: EPOCH_MS, rng: &mut rng };
                    device.engine.seal_ahead(&device.replica, env);
                }
                self.crashes(index, Moment::After);
            }
        }
    }

    fn report(&mut self, index: usize, event: &Event) {
        self.say(|| format!("device {index}: {}", trace::of_event(event)));
        let device = &mut self.devices[index];
        let (lied_to, must_notice) = (device.lied_to, device.must_notice);
        let ends = match event {
            Event::Stopped(error) => {
                !matches!(error, EngineError::Misuse { .. } | EngineError::Document { .. })
            }
            event => matches!(event, Event::Paused(_) | Event::Idle),
        };
        if ends {
            (device.lied_to, device.must_notice) = (false, false);
        }
        match event {
            event if is_behind(event) => {
                self.ledger.count("keys behind");
                let is_right = self.server.log.next_index() == FIXTURE.later_log.next_index();
                self.demand(if is_right { Ok(()) } else { Err("keys are behind of nothing".into()) });
                self.catch_up(index);
            }
            Event::Stopped(EngineError::Cloned { seq, .. }) => self.met_a_copy(index, *seq),
            Event::Stopped(error) if lied_to && blames_the_server(error) => {
                self.ledger.count(if must_notice { "rollback noticed" } else { "lie noticed" });
            }
            Event::Stopped(EngineError::Fault { .. }) | Event::WentBack if self.has_repairs => {
                self.ledger.count("repair");
            }
            Event::Idle if must_notice => {
                self.demand(Err(format!("device {index} does not notice that the server went back")));
            }
            event => {
                if *event == Event::Paused(Failure::Refused(QUOTA.into())) {
                    // What the client does then.
                    self.ledger.count("deletions only");
                    self.soon(index, Input::Deletions);
                }
                let result = self.ledger.reported(event);
                self.demand(result);
            }
        }
    }

    /// Draws or carries out the planned crash.
    pub(crate) fn crashes(&mut self, index: usize, moment: Moment) -> bool {
        let is_planned = self.crashes_at.contains(&(self.effects, moment));
        if is_planned {
            self.ledger.count(Fault::Crash.name());
        } else if !self.strikes(Fault::Crash) {
            return false;
        }
        self.crash(index);
        true
    }

    /// A device is revoked, by one of those that stay; whether the vault is rotated is another matter.
    pub(crate) fn revoke(&mut self, by: usize) {
        self.say(|| format!("device {by} revokes a device"));
        self.ledger.count("revocation");
        self.server.log = FIXTURE.later_log.clone();
        self.catch_up(by);
    }

    /// What the adapter does then: fetches log and key, starts the engine anew, syncs again.
    pub(crate) fn catch_up(&mut self, index: usize) {
        let device = &mut self.devices[index];
        device.log = self.server.log.clone();
        device.has_later_key = self.server.log.next_index() == FIXTURE.later_log.next_index();
        self.restart(index);
        self.soon(index, Input::Sync);
    }

    /// Throws an engine away and makes it anew over the same replica.
    pub(crate) fn restart(&mut self, index: usize) {
        let device = &mut self.devices[index];
        device.incarnation += 1;
        device.awaits = None;
        (device.lied_to, device.must_notice) = (false, false);
        device.unsynced.clear();
        (self.hooks.start)(&mut device.replica);
        device.engine = VaultEngine::new(device.setup(), device.log.clone());
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
}

/// Whether the engine waits for a key, or for the device log that the server has.
fn is_behind(event: &Event) -> bool {
    match event {
        Event::Stopped(EngineError::KeyMissing { .. } | EngineError::NeedsRotation { .. }) => true,
        Event::Paused(Failure::Refused(text)) => text == LOG_MOVED,
        _ => false,
    }
}

/// What a lie may end a sync with: no device is blamed for it.
fn blames_the_server(error: &EngineError) -> bool {
    matches!(
        error,
        EngineError::Server { .. }
            | EngineError::Fork { .. }
            | EngineError::Rollback { .. }
            | EngineError::RecordRollback { .. }
            | EngineError::Incomplete { .. }
    )
}
