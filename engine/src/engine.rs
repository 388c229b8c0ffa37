//! The state machine of one vault: pull, then push, until nothing is pending.

mod ahead;
mod descent;
mod fetch;
mod rest;

use crate::bound::{Ahead, Looked};
use crate::effect::{Answer, Effect, Env, Event, Failure, Input, Request};
use crate::error::EngineError;
use crate::pull::Pull;
use crate::push::SealedWrites;
use crate::repair::Search;
use crate::replica::{InFlight, PendingRow, RecordRow, Replica, Result, WriteOp};
use crate::seek::Seek;
use crate::{local, push};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::vault::VaultKeys;
use lockstep_merge::Policies;
use lockstep_proto::api::vault::Page;
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::id::{AccountId, Epoch, OperationId, RecordId, Seq, VaultId};
use lockstep_proto::{Digest, Signed, envelope};
use rest::Asked;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What an engine knows of its vault from the start.
#[derive(Clone)]
pub struct Setup {
    /// Owner.
    pub account: AccountId,
    /// The vault's keys.
    pub keys: Arc<VaultKeys>,
    /// This device.
    pub device: Arc<DeviceKeys>,
    /// Vault-log entry 0, as the keyring (or, for the keyring itself, the server) has it.
    pub create: Signed,
    /// Genesis as the keyring has it; none for the keyring itself.
    pub genesis: Option<Signed>,
    /// What to go on to when a device was revoked.
    pub next_key: Option<NextKey>,
    /// Commits under epochs up to this one are taken although their keys are not here, because the keyring has none:
    /// what they write is quarantined.
    pub unreadable: Option<Epoch>,
    /// What becomes of concurrent edits, by record type.
    pub policies: Arc<Policies>,
    /// Whether a server that was restored is being healed: commits carry over what it lacks, objects that they name may
    /// be missing there, and what was given up here is not looked for.
    pub heals: bool,
}

/// A key that is among the keys and that the vault can go on to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextKey {
    /// Its epoch.
    pub epoch: Epoch,
    /// The keyring's epoch for which it was made. A log with more revocations needs another key.
    pub fresh_for: Epoch,
}

impl Setup {
    /// The vault.
    pub fn vault(&self) -> VaultId {
        self.keys.vault()
    }
}

/// What is being waited for.
enum Phase {
    Idle,
    Waiting { request: u64, doing: Doing },
    Writing { write: u64, then: Then },
}

enum Doing {
    Commits,
    Seek(Box<Seek>),
    Ahead(Box<Ahead>),
    Return(Box<Search>, EngineError),
    Devices(Box<Page>),
    Behind,
    State(Box<Pull>),
    Missing(Box<Pull>),
    Fill(Vec<RecordRow>),
    Fetch(Vec<RecordRow>),
    Wanted(Vec<RecordRow>),
    Stage(Box<InFlight>),
    Push(Box<InFlight>),
}

enum Then {
    State(Box<Pull>),
    Missing(Box<Pull>),
    Pulled { events: Vec<Event>, more: bool },
    Filled { events: Vec<Event> },
    Rest { events: Vec<Event> },
    Send(Box<InFlight>),
    Rebuild,
    Ahead,
    Confirmed { event: Event },
    WentBack,
}

/// After so many lost races envelopes are staged before the commit is sent.
const RACES_BEFORE_STAGING: u32 = 2;

/// The engine of one vault. Volatile: everything durable is in the replica, so that a new engine over
/// the same replica goes on where another one was stopped.
pub struct VaultEngine {
    pub(crate) setup: Setup,
    pub(crate) devices: Arc<DeviceLog>,
    phase: Phase,
    next_id: u64,
    stores: BTreeMap<u64, Vec<OperationId>>,
    /// Envelopes of the commit in flight, if it was built here; those of one that lost a race, and those made ahead, are
    /// used again where they still fit.
    made: SealedWrites,
    /// Digests of envelopes that wait at the server for their commit: after another lost race they are not sent again.
    staged: BTreeSet<Digest>,
    /// Pending writes that were read while a commit was on its way: the next commit begins with them.
    ahead: Vec<PendingRow>,
    /// What was looked at ahead.
    looked: Looked,
    /// Looks ahead since the last round that was taken.
    looks: u32,
    races: u32,
    pull_only: bool,
    deletions_only: bool,
    /// Records that were asked for by name.
    fetch: Vec<RecordId>,
    /// How far recalled envelopes were asked for since the sync began; none: they are not.
    asked: Option<Asked>,
    /// Whether envelopes that do not come are left absent.
    pub(crate) gaps: bool,
}

impl VaultEngine {
    /// An engine over a replica.
    pub fn new(setup: Setup, devices: Arc<DeviceLog>) -> Self {
        Self {
            setup,
            devices,
            phase: Phase::Idle,
            next_id: 1,
            stores: BTreeMap::new(),
            made: SealedWrites::new(),
            staged: BTreeSet::new(),
            ahead: Vec::new(),
            looked: Looked::default(),
            looks: 0,
            races: 0,
            pull_only: false,
            deletions_only: false,
            fetch: Vec::new(),
            asked: None,
            gaps: false,
        }
    }

    /// From now on what has no envelope stays absent, and is the caller's to name: nobody has more than an archive
    /// holds.
    pub fn allow_gaps(&mut self) {
        self.gaps = true;
    }

    /// Whether a sync is under way.
    pub fn is_busy(&self) -> bool {
        !matches!(self.phase, Phase::Idle)
    }

    /// The vault's keys.
    pub fn keys(&self) -> &Arc<VaultKeys> {
        &self.setup.keys
    }

    /// The device log that commits are verified against.
    pub fn devices(&self) -> &Arc<DeviceLog> {
        &self.devices
    }

    /// Takes one input and gives what is to be done. Errors end the sync, not the engine.
    pub fn step(&mut self, replica: &dyn Replica, env: &mut Env<'_>, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        let is_put = matches!(input, Input::Put(_) | Input::Edit(_) | Input::Decide(..) | Input::Abandon(_));
        if let Err(error) = self.take(replica, env, input, &mut out) {
            if !is_put {
                self.phase = Phase::Idle;
            }
            out.push(Effect::Report(Event::Stopped(error)));
        }
        out
    }

    fn take(
        &mut self,
        replica: &dyn Replica,
        env: &mut Env<'_>,
        input: Input,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        match input {
            Input::Put(records) => {
                let (operations, ops) = local::put(replica, &self.setup, env, records)?;
                self.store(operations, ops, out);
                Ok(())
            }
            Input::Edit(edits) => {
                let (operations, ops) = local::edit(replica, &self.setup, env, edits)?;
                self.store(operations, ops, out);
                Ok(())
            }
            Input::Decide(record, choice) => {
                let (operations, ops) = local::decide(replica, &self.setup, env, record, choice)?;
                self.store(operations, ops, out);
                Ok(())
            }
            Input::Sync | Input::Send | Input::Pull | Input::Fetch(_) | Input::Deletions => {
                if !self.is_busy() {
                    self.races = 0;
                    self.looks = 0;
                    self.pull_only = matches!(input, Input::Pull | Input::Fetch(_));
                    self.deletions_only = matches!(input, Input::Deletions);
                    self.asked = matches!(input, Input::Sync | Input::Pull).then(Asked::default);
                    self.fetch = match &input {
                        Input::Fetch(records) => records.clone(),
                        _ => Vec::new(),
                    };
                    if matches!(input, Input::Send) && ahead::may_push_first(replica)? {
                        self.build(replica, env, out)?;
                    } else {
                        self.ask_commits(replica, out)?;
                    }
                }
                Ok(())
            }
            Input::Seek => {
                if !self.is_busy() {
                    self.pull_only = true;
                    self.looks = 0;
                    (self.asked, self.fetch) = (None, Vec::new());
                    let seq = replica.head()?.map_or(Seq::new(0), |head| head.tip.seq);
                    self.seek(replica, EngineError::Fork { vault: self.setup.vault(), seq }, out)?;
                }
                Ok(())
            }
            Input::Abandon(blobs) => {
                self.ahead.clear();
                let ops = push::abandon(replica, &blobs)?;
                self.store(Vec::new(), ops, out);
                Ok(())
            }
            Input::Written(id) => self.written(replica, env, id, out),
            Input::Answered(id, answer) => self.answered(replica, env, id, answer, out),
        }
    }

    fn id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id = self.next_id.saturating_add(1);
        id
    }

    /// Local writes, which need no answer but that they are durable.
    fn store(&mut self, operations: Vec<OperationId>, ops: Vec<WriteOp>, out: &mut Vec<Effect>) {
        let id = self.id();
        self.stores.insert(id, operations);
        out.push(Effect::Write(id, ops));
    }

    fn send(&mut self, request: Request, doing: Doing, out: &mut Vec<Effect>) {
        let id = self.id();
        self.phase = Phase::Waiting { request: id, doing };
        out.push(Effect::Send(id, request));
    }

    fn write(&mut self, ops: Vec<WriteOp>, then: Then, out: &mut Vec<Effect>) {
        let id = self.id();
        self.phase = Phase::Writing { write: id, then };
        out.push(Effect::Write(id, ops));
    }

    fn ask_commits(&mut self, replica: &dyn Replica, out: &mut Vec<Effect>) -> Result<()> {
        let after = replica.head()?.map(|head| head.tip.seq);
        self.send(Request::Commits { after }, Doing::Commits, out);
        Ok(())
    }

    fn written(
        &mut self,
        replica: &dyn Replica,
        env: &mut Env<'_>,
        id: u64,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        if let Some(operations) = self.stores.remove(&id) {
            out.push(Effect::Report(Event::Stored(operations)));
            return Ok(());
        }
        let then = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Writing { write, then } if write == id => then,
            other => {
                self.phase = other;
                return Ok(());
            }
        };
        match then {
            Then::State(pull) => self.ask_state(pull, out),
            Then::Missing(pull) => self.ask_missing(replica, pull, out)?,
            Then::Pulled { events, more } => {
                self.looks = 0;
                out.extend(events.into_iter().map(Effect::Report));
                if more { self.ask_commits(replica, out)? } else { self.fill_or_push(replica, env, out)? }
            }
            Then::Filled { events } => {
                out.extend(events.into_iter().map(Effect::Report));
                self.fill_or_push(replica, env, out)?;
            }
            Then::Rest { events } => {
                out.extend(events.into_iter().map(Effect::Report));
                // Writes may have come meanwhile.
                self.build(replica, env, out)?;
            }
            Then::Send(in_flight) => self.send_commit(in_flight, out),
            Then::Rebuild => self.build(replica, env, out)?,
            Then::Ahead => self.ask_commits(replica, out)?,
            Then::WentBack => {
                out.push(Effect::Report(Event::WentBack));
                self.forget_made();
                self.ask_commits(replica, out)?;
            }
            Then::Confirmed { event } => {
                out.push(Effect::Report(event));
                self.races = 0;
                self.staged.clear();
                // Only its own confirmation came between: it touches no other write than those that it carried, and those
                // that follow them on their records, which are not among these.
                let ahead = std::mem::take(&mut self.ahead);
                self.build_from(replica, env, ahead, out)?;
            }
        }
        Ok(())
    }

    fn answered(
        &mut self,
        replica: &dyn Replica,
        env: &mut Env<'_>,
        id: u64,
        answer: std::result::Result<Answer, Failure>,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        let doing = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Waiting { request, doing } if request == id => doing,
            other => {
                // A late or duplicated answer.
                self.phase = other;
                return Ok(());
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                // What waits at the server may have expired: the next push brings its envelopes itself.
                self.staged.clear();
                out.push(Effect::Report(Event::Paused(failure)));
                return Ok(());
            }
        };
        match (doing, answer) {
            (Doing::Commits, Answer::Page(page)) => self.page(replica, env, page, out),
            (Doing::Seek(seek), Answer::Page(page)) => self.sought(replica, seek, &page, out),
            (Doing::Ahead(ahead), Answer::Page(page)) => self.seen(replica, ahead, &page, out),
            (Doing::Return(search, fault), Answer::Page(page)) => {
                self.go_on_returning(replica, search, page, fault, out)
            }
            (Doing::Devices(page), Answer::DeviceLog(log)) => {
                self.take_log(log)?;
                self.page(replica, env, *page, out)
            }
            (Doing::Behind, Answer::DeviceLog(log)) => {
                self.take_log(log)?;
                self.build(replica, env, out)
            }
            (Doing::State(pull), Answer::Entries(entries, more)) => {
                self.state_page(replica, pull, entries, more, out)
            }
            (Doing::Missing(pull), Answer::Entries(entries, _)) => self.missing(replica, pull, entries, out),
            (Doing::Fill(rows), Answer::Entries(entries, _)) => self.fill(replica, env, &rows, entries, out),
            (Doing::Fetch(rows), Answer::Entries(entries, _)) => self.fetched(replica, &rows, entries, out),
            (Doing::Wanted(rows), Answer::Entries(entries, _)) => {
                self.came_back(replica, &rows, entries, out)
            }
            (Doing::Stage(in_flight), Answer::Staged) => {
                self.staged =
                    in_flight.sealed.iter().map(|sealed| envelope::digest(&sealed.envelope)).collect();
                let push = push::body(&self.setup, &in_flight, false);
                self.send(Request::Push(push), Doing::Push(in_flight), out);
                Ok(())
            }
            (Doing::Push(in_flight), Answer::Pushed) => self.confirm(replica, &in_flight, out),
            (Doing::Push(_), Answer::HeadMoved(page)) => {
                self.races = self.races.saturating_add(1);
                self.ahead.clear();
                let seq = replica.head()?.map_or(Seq::new(0), |head| head.tip.seq);
                if page.commits.is_empty() && page.head_seq >= seq {
                    // Its chain ends where this device's does, and yet its head is another.
                    let fork = EngineError::Fork { vault: self.setup.vault(), seq };
                    return self.seek(replica, fork, out);
                }
                self.page(replica, env, page, out)
            }
            _ => Err(EngineError::server("it does not fit the request")),
        }
    }

    /// Takes a longer device log over.
    fn take_log(&mut self, log: Arc<DeviceLog>) -> Result<()> {
        let known = self.devices.next_index();
        let goes_on = log.account() == self.devices.account()
            && log.next_index() > known
            && known.checked_sub(1).and_then(|index| log.hash_at(index)) == Some(self.devices.head());
        if !goes_on {
            return Err(EngineError::server(
                "a commit names a device-log entry that the server does not show",
            ));
        }
        self.devices = log;
        Ok(())
    }

    fn build(&mut self, replica: &dyn Replica, env: &mut Env<'_>, out: &mut Vec<Effect>) -> Result<()> {
        self.build_from(replica, env, Vec::new(), out)
    }

    /// `ahead`: pending writes that are known to be the next ones.
    fn build_from(
        &mut self,
        replica: &dyn Replica,
        env: &mut Env<'_>,
        ahead: Vec<PendingRow>,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        self.ahead.clear();
        let head = replica.head()?.ok_or(EngineError::Misuse { what: "the vault has no head yet" })?;
        if !self.pull_only && head.tip.device_log_index >= self.devices.next_index() {
            // Another engine over this replica went on with a longer log.
            self.send(Request::DeviceLog, Doing::Behind, out);
            return Ok(());
        }
        if self.pull_only {
            return self.rest(replica, out);
        }
        if let Some(in_flight) = replica.in_flight()? {
            let is_wanted = !self.deletions_only || push::puts_nothing(&in_flight)?;
            let follows = push::follows(&in_flight, &head, self.setup.device.id())?;
            if is_wanted && follows && !push::is_outdated(&in_flight, &self.devices)? {
                self.send_commit(Box::new(in_flight), out);
            } else {
                self.write(vec![WriteOp::DropInFlight], Then::Rebuild, out);
            }
            return Ok(());
        }
        let last = self.devices.next_index().saturating_sub(1);
        let built = if head.tip.needs_rotation(&*self.devices, last) {
            push::rotate(replica, &self.setup, &self.devices, &head, env)?
        } else {
            let pending = if ahead.is_empty() { push::pending(replica, self.deletions_only)? } else { ahead };
            push::build(replica, &pending, &self.setup, &self.devices, &head, &self.made, env)?
        };
        match built {
            None => {
                self.forget_made();
                self.rest(replica, out)?;
            }
            Some(push::Built { in_flight, sealed }) => {
                self.made = sealed;
                let ops = vec![WriteOp::SetInFlight(in_flight.clone())];
                self.write(ops, Then::Send(Box::new(in_flight)), out);
            }
        }
        Ok(())
    }

    fn send_commit(&mut self, in_flight: Box<InFlight>, out: &mut Vec<Effect>) {
        let digests = || in_flight.sealed.iter().map(|sealed| envelope::digest(&sealed.envelope));
        let are_staged = !self.staged.is_empty() && digests().all(|digest| self.staged.contains(&digest));
        if self.races >= RACES_BEFORE_STAGING && !are_staged {
            let envelopes = in_flight.sealed.iter().map(|sealed| sealed.envelope.clone().into()).collect();
            self.send(Request::Stage { envelopes }, Doing::Stage(in_flight), out);
        } else {
            let push = push::body(&self.setup, &in_flight, !are_staged);
            self.send(Request::Push(push), Doing::Push(in_flight), out);
        }
    }

    fn confirm(&mut self, replica: &dyn Replica, in_flight: &InFlight, out: &mut Vec<Effect>) -> Result<()> {
        let (ops, event) = push::confirm(replica, &self.setup, &self.devices, in_flight, &self.made)?;
        self.write(ops, Then::Confirmed { event }, out);
        Ok(())
    }
}
