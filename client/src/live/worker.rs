//! The loop of the thread that a home's sync lives on: it takes what the app asks for, hears notices, waits, and lets one
//! turn after the other go on beside all that.

use super::back::{Back, Ended, Job};
use super::command::{Command, Hands};
use super::follow::Follow;
use super::front::Front;
use super::schedule::{End, Input, Lane, Millis, Next, Schedule};
use super::settings::{Settings, millis};
use super::status::{State, Statistics, Status, VaultStatus};
use super::trouble::{Trouble, advice};
use crate::api::Api;
use crate::error::{ClientError, Result};
use crate::notice::Listener;
use crate::rng;
use lockstep_proto::id::{Seq, VaultId};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Where the statistics are kept.
const STATISTICS: &str = "live-statistics";
/// How often the progress of a turn is looked at.
const PROGRESS: Duration = Duration::from_millis(100);
/// The longest sleep; whatever is due later is looked at again then.
const SLEEP_MAX: Millis = 3_600_000;

type Turn = Pin<Box<dyn Future<Output = (Back, Ended)>>>;
type Told = Result<Vec<(VaultId, Seq)>>;

pub(crate) struct Worker {
    schedule: Schedule,
    hands: Rc<RefCell<Hands>>,
    follow: Rc<RefCell<Follow>>,
    api: Arc<Api>,
    status: watch::Sender<Status>,
    begun: Instant,
    back: Option<Back>,
    turn: Option<(Job, Turn)>,
    listening: Option<JoinHandle<()>>,
    /// No listening before; after failures of its own.
    listen_from: Option<(Instant, u32)>,
    notices: (mpsc::Sender<Told>, mpsc::Receiver<Told>),
    told: BTreeMap<VaultId, Seq>,
    creating: Vec<(String, oneshot::Sender<Result<()>>)>,
    /// Who waits for a sync of everything, and which lanes had no turn since.
    waiting: Vec<(BTreeSet<Lane>, oneshot::Sender<Status>)>,
    troubles: BTreeMap<Lane, Trouble>,
    vaults: Vec<VaultStatus>,
    away_utc: Option<u64>,
    statistics: Statistics,
    /// Whether the account was synced in this run.
    is_synced: bool,
    sync: Option<Sync>,
}

/// What is done without a pause in between.
struct Sync {
    begun: Instant,
    /// Writes that waited when it began, and came since.
    of: u64,
    /// Writes that waited when it was last looked at.
    pending: u64,
    is_good: bool,
}

impl Worker {
    pub(crate) fn new(
        settings: &Settings,
        back: Back,
        hands: Rc<RefCell<Hands>>,
        follow: Rc<RefCell<Follow>>,
        api: Arc<Api>,
        status: watch::Sender<Status>,
    ) -> Self {
        let begun = Instant::now();
        let schedule = Schedule::new(settings.pace(), settings.metered.map(millis), 0);
        let mut worker = Self {
            schedule,
            hands,
            follow,
            api,
            status,
            begun,
            back: Some(back),
            turn: None,
            listening: None,
            listen_from: None,
            notices: mpsc::channel(16),
            told: BTreeMap::new(),
            creating: Vec::new(),
            waiting: Vec::new(),
            troubles: BTreeMap::new(),
            vaults: Vec::new(),
            away_utc: None,
            statistics: Statistics::default(),
            is_synced: false,
            sync: None,
        };
        if let Ok(Some(Some(bytes))) = worker.with_front(|front| front.account().db().meta(STATISTICS)) {
            worker.statistics = serde_json::from_slice(&bytes).unwrap_or_default();
        }
        worker.look_over();
        worker.publish();
        worker
    }

    fn now(&self) -> Millis {
        millis(self.begun.elapsed())
    }

    fn take(&mut self, input: Input) {
        self.schedule.take(self.now(), input, u64::from_be_bytes(rng::bytes()));
    }

    fn with_front<T>(&self, work: impl FnOnce(&mut Front) -> Result<T>) -> Result<Option<T>> {
        self.hands.borrow_mut().front.as_mut().map(work).transpose()
    }

    /// Until every handle is gone.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut is_news = true;
        loop {
            let until = self.begin_what_is_due();
            if std::mem::replace(&mut is_news, true) {
                self.publish();
            }
            let sleep = tokio::time::sleep_until(self.begun + Duration::from_millis(until));
            tokio::select! {
                command = commands.recv() => match command {
                    None | Some(Command::End) => break,
                    Some(command) => is_news = self.command(command),
                },
                ended = turn(&mut self.turn) => self.ended(ended),
                told = self.notices.1.recv() => self.told(told),
                () = sleep => {}
            }
        }
        self.stop_listening();
    }

    /// Begins the next turn if one is due; gives the moment at which to look again.
    fn begin_what_is_due(&mut self) -> Millis {
        let now = self.now();
        if self.turn.is_some() {
            return now.saturating_add(millis(PROGRESS));
        }
        let is_paused = self.schedule.is_paused();
        let job = match self.creating.first() {
            Some((name, _)) if !is_paused => Due::Job(Job::Create(name.clone())),
            _ => match self.schedule.next(now) {
                Next::Work(lane, mode) => {
                    self.schedule.begin(now, lane);
                    Due::Job(Job::Lane(lane, mode))
                }
                Next::At(at) => Due::At(at),
                Next::Never => Due::At(Millis::MAX),
            },
        };
        match job {
            Due::Job(job) => {
                let pending = self.pending();
                let begin = || Sync { begun: Instant::now(), of: pending, pending, is_good: true };
                self.sync.get_or_insert_with(begin);
                match self.back.take().map_or_else(|| self.new_back(), Ok) {
                    Ok(back) => {
                        let turn = Box::pin(back.run(job.clone(), Rc::clone(&self.follow)));
                        self.turn = Some((job, turn));
                    }
                    Err(error) => self.over(&job, Err(error), End::Later { asked: None, is_away: false }),
                }
                now.saturating_add(millis(PROGRESS))
            }
            Due::At(at) => {
                self.sync_is_over();
                self.listen();
                let retry = self.listen_from.map(|(from, _)| millis(from.duration_since(self.begun)));
                at.min(retry.unwrap_or(Millis::MAX)).min(now.saturating_add(SLEEP_MAX))
            }
        }
    }

    /// The one that was at work was dropped in the middle: another one goes on from what is stored.
    fn new_back(&self) -> Result<Back> {
        let hands = self.hands.borrow();
        match &hands.front {
            Some(front) => Ok(Back::Kept(Box::new(front.account().beside()?))),
            None => Ok(hands.shared()),
        }
    }

    fn ended(&mut self, (back, ended): (Back, Ended)) {
        self.back = Some(back);
        let Some((job, _)) = self.turn.take() else { return };
        if let Some(vaults) = ended.vaults {
            self.vaults = vaults;
        }
        let ids = self.vaults.iter().map(|vault| vault.vault).collect();
        if matches!(job, Job::Lane(Lane::Account, _) | Job::Create(_)) {
            self.take(Input::Vaults(ids));
        }
        self.over(&job, ended.result, ended.end);
        self.compare_told();
    }

    fn over(&mut self, job: &Job, result: Result<()>, end: End) {
        if let Some(sync) = &mut self.sync {
            sync.is_good &= result.is_ok();
        }
        let lane = match job {
            Job::Create(_) => {
                if !self.creating.is_empty() {
                    let (_, reply) = self.creating.remove(0);
                    let _ = reply.send(result);
                }
                return;
            }
            Job::Lane(lane, _) => *lane,
        };
        match result {
            Ok(()) => {
                self.troubles.remove(&lane);
                if lane == Lane::Account {
                    self.away_utc = None;
                    self.is_synced = true;
                }
            }
            Err(error) => self.note_trouble(lane, error, end),
        }
        self.take(Input::Done(lane, end));
        let ids: Vec<Lane> = self.vaults.iter().map(|vault| Lane::Vault(vault.vault)).collect();
        let is_ready = !self.troubles.contains_key(&Lane::Account);
        for (left, _) in &mut self.waiting {
            if lane == Lane::Account && left.remove(&lane) && is_ready {
                left.extend(&ids);
            }
            left.remove(&lane);
            left.retain(|lane| *lane == Lane::Account || ids.contains(lane));
            if !is_ready {
                left.clear();
            }
        }
    }

    fn note_trouble(&mut self, lane: Lane, error: ClientError, end: End) {
        let is_of_all = matches!(end, End::Person { of_all: true });
        let lane = if is_of_all { Lane::Account } else { lane };
        if lane == Lane::Account {
            match end {
                End::Later { .. } => {
                    self.away_utc.get_or_insert_with(rng::now_utc);
                }
                _ => self.away_utc = None,
            }
        }
        let trouble = Trouble {
            advice: advice(&error),
            needs_person: matches!(end, End::Person { .. } | End::Full),
            utc: rng::now_utc(),
            error: Arc::new(error),
        };
        self.troubles.insert(lane, trouble);
    }

    fn sync_is_over(&mut self) {
        if let Some(sync) = self.sync.take() {
            // What failed before and was not tried now is not in sync either.
            let whole = (sync.is_good && self.troubles.is_empty()).then(rng::now_utc);
            self.statistics.add(sync.begun.elapsed(), sync.is_good, whole);
            let bytes = serde_json::to_vec(&self.statistics).unwrap_or_default();
            // They are not worth an error.
            let _ = self.with_front(|front| front.account().db().set_meta(STATISTICS, &bytes));
        }
        self.publish();
        let status = self.status.borrow().clone();
        let is_paused = self.schedule.is_paused();
        for (left, reply) in std::mem::take(&mut self.waiting) {
            if left.is_empty() || is_paused {
                let _ = reply.send(status.clone());
            } else {
                self.waiting.push((left, reply));
            }
        }
    }

    /// Does what is asked; says whether the status may be another one now.
    fn command(&mut self, command: Command) -> bool {
        match command {
            Command::Run(work) => {
                let (written, reply) = work(&mut self.hands.borrow_mut());
                if !written.is_empty() {
                    for vault in written {
                        self.take(Input::Wrote(vault));
                    }
                    self.publish();
                }
                reply();
                return false;
            }
            Command::Spawn(work) => {
                tokio::task::spawn_local(work(Rc::clone(&self.hands)));
                return false;
            }
            Command::End => {}
            Command::Wrote(vault, reply) => {
                self.take(Input::Wrote(vault));
                self.publish();
                let _ = reply.send(());
                return false;
            }
            Command::SyncNow(reply) => {
                self.take(Input::SyncNow);
                self.listen_from = None;
                if self.schedule.is_paused() {
                    let _ = reply.send(self.status.borrow().clone());
                } else {
                    self.waiting.push((BTreeSet::from([Lane::Account]), reply));
                }
            }
            Command::Pause(reply) => {
                // What was cut off counts as nothing.
                (self.turn, self.sync) = (None, None);
                self.take(Input::Pause);
                self.stop_listening();
                self.sync_is_over();
                let _ = reply.send(());
            }
            Command::Resume(reply) => {
                self.take(Input::Resume);
                self.listen_from = None;
                self.publish();
                let _ = reply.send(());
            }
            Command::Metered(every) => {
                self.take(Input::Metered(every.map(millis)));
                if every.is_some() {
                    self.stop_listening();
                }
            }
            Command::Create(name, reply) => self.creating.push((name, reply)),
        }
        true
    }

    fn stop_listening(&mut self) {
        if let Some(task) = self.listening.take() {
            task.abort();
        }
    }

    /// Listens for notices if nobody does and it may be done: not before the account was synced, and not on a metered
    /// network.
    fn listen(&mut self) {
        let is_early = self.listen_from.is_some_and(|(from, _)| from > Instant::now());
        let is_quiet = self.schedule.is_paused() || self.schedule.is_metered();
        let is_synced = self.is_synced && !self.troubles.contains_key(&Lane::Account);
        if self.listening.is_some() || is_early || is_quiet || !is_synced {
            return;
        }
        let mut listener = Listener::new(Arc::clone(&self.api), self.known());
        let notices = self.notices.0.clone();
        self.listening = Some(tokio::task::spawn_local(async move {
            loop {
                let told = listener.next().await;
                let is_over = told.is_err();
                if notices.send(told).await.is_err() || is_over {
                    break;
                }
            }
        }));
    }

    fn known(&self) -> BTreeMap<VaultId, Seq> {
        self.follow.borrow().seen()
    }

    fn told(&mut self, told: Option<Told>) {
        match told {
            Some(Ok(told)) => {
                self.listen_from = None;
                self.told.extend(told);
                self.compare_told();
            }
            Some(Err(_)) if self.listening.take().is_some() => {
                let failures = self.listen_from.map_or(1, |(_, failures)| failures.saturating_add(1));
                let pace = Settings::default().pace();
                let wait = super::schedule::backoff(&pace, failures, u64::from_be_bytes(rng::bytes()));
                self.listen_from = Some((Instant::now() + Duration::from_millis(wait), failures));
                // Whether the server is there at all, the account tells.
                self.take(Input::Moved(Lane::Account));
            }
            _ => {}
        }
    }

    /// What was told and is not here, but for what comes with the turn that goes on.
    fn compare_told(&mut self) {
        if self.turn.is_some() {
            return;
        }
        let known = self.known();
        let ids: BTreeSet<VaultId> = self.vaults.iter().map(|vault| vault.vault).collect();
        for (vault, seq) in std::mem::take(&mut self.told) {
            if known.get(&vault) != Some(&seq) {
                let lane = if ids.contains(&vault) { Lane::Vault(vault) } else { Lane::Account };
                self.take(Input::Moved(lane));
            }
        }
    }

    fn look_over(&mut self) {
        if let Ok(Some(vaults)) = self.with_front(Front::look_over) {
            self.vaults = vaults;
        }
    }

    fn pending(&mut self) -> u64 {
        self.look_over();
        self.vaults.iter().map(|vault| vault.pending).fold(0, u64::saturating_add)
    }

    fn publish(&mut self) {
        let pending = self.pending();
        let state = if self.schedule.is_paused() {
            State::Paused
        } else if let (Some(sync), None) = (&mut self.sync, self.away_utc) {
            // Writes come while it goes on.
            sync.of = sync.of.saturating_add(pending.saturating_sub(sync.pending));
            sync.pending = pending;
            State::Syncing { done: sync.of.saturating_sub(pending), of: sync.of }
        } else if let Some(since_utc) = self.away_utc {
            State::Offline { since_utc }
        } else {
            State::Idle
        };
        let mut vaults = self.vaults.clone();
        for vault in &mut vaults {
            vault.trouble = self.troubles.get(&Lane::Vault(vault.vault)).cloned();
        }
        let next = Status {
            state,
            pending,
            conflicts: vaults.iter().map(|vault| vault.conflicts).fold(0, u64::saturating_add),
            last_success_utc: self.statistics.last_success_utc,
            trouble: self.troubles.get(&Lane::Account).cloned(),
            vaults,
            statistics: self.statistics.clone(),
        };
        self.status.send_if_modified(|status| {
            let is_new = !status.is_like(&next);
            if is_new {
                *status = next;
            }
            is_new
        });
    }
}

enum Due {
    Job(Job),
    At(Millis),
}

/// The end of the turn that goes on; never, if none does.
async fn turn(turn: &mut Option<(Job, Turn)>) -> (Back, Ended) {
    match turn {
        Some((_, turn)) => turn.await,
        None => std::future::pending().await,
    }
}
