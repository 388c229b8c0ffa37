//! When what is synced, and nothing else: inputs and the time go in, the next thing to do comes out. It reads no clock
//! and draws nothing itself, so that hours of back-off are tested in a moment.
//!
//! There is one lane for the account (keyring, device log, the server's heads) and one for each vault. The account goes
//! first: after a start, a pause or trouble no vault is synced until the account was. One lane is at work at a time.

#[cfg(test)]
mod tests;

use lockstep_proto::id::VaultId;
use std::collections::{BTreeMap, BTreeSet};

/// Milliseconds since some fixed moment of this run.
pub(crate) type Millis = u64;

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// A write is sent when no other came for so long,
    pub(crate) debounce: Millis,
    /// and so long after the first one at the latest.
    pub(crate) debounce_max: Millis,
    /// Everything is synced as often, whatever the server tells.
    pub(crate) every: Millis,
    /// Between two turns of one lane.
    pub(crate) spacing: Millis,
    /// Bounds of the wait after a failure.
    pub(crate) retry_min: Millis,
    pub(crate) retry_max: Millis,
    /// The longest wait that a server may ask for.
    pub(crate) asked_max: Millis,
}

/// What takes turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    Account,
    Vault(VaultId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Pull, then push.
    Full,
    /// Pull only: pushes are refused until somebody does something about it.
    Pull,
}

#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// The vaults that there are.
    Vaults(BTreeSet<VaultId>),
    /// Something was written here.
    Wrote(VaultId),
    /// The server says that something moved.
    Moved(Lane),
    SyncNow,
    Pause,
    Resume,
    /// From now on each lane has a turn at most as often; none: as often as there is a reason.
    Metered(Option<Millis>),
    Done(Lane, End),
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Synced,
    /// It may go well later. The server may have said when.
    Later {
        asked: Option<Millis>,
        is_away: bool,
    },
    /// Pushes are refused, pulls are not.
    Full,
    /// A person has to do something first, about this lane or about all of them.
    Person {
        of_all: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Work(Lane, Mode),
    /// Nothing until then.
    At(Millis),
    /// Nothing until something happens.
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stop {
    #[default]
    None,
    Pushes,
    All,
}

#[derive(Debug, Clone, Default)]
struct State {
    /// A turn is wanted from then on, for another reason than a write.
    wanted: Option<Millis>,
    /// First and last write that no turn has begun after.
    wrote: Option<(Millis, Millis)>,
    /// Failures one after the other.
    failures: u32,
    not_before: Millis,
    stop: Stop,
    began: Option<Millis>,
    ended: Option<Millis>,
}

impl State {
    fn want(&mut self, at: Millis) {
        self.wanted = Some(self.wanted.map_or(at, |wanted| wanted.min(at)));
    }

    /// Everything that held it back is over.
    fn renew(&mut self, now: Millis) {
        self.stop = Stop::None;
        self.failures = 0;
        self.not_before = 0;
        self.ended = None;
        self.want(now);
    }

    fn due(&self, pace: &Pace) -> Option<Millis> {
        let wrote = self.wrote.filter(|_| self.stop == Stop::None).map(|(first, last)| {
            last.saturating_add(pace.debounce).min(first.saturating_add(pace.debounce_max))
        });
        let wanted = self.wanted.filter(|_| self.stop != Stop::All);
        let due = wrote.into_iter().chain(wanted).min()?;
        let spaced = self.ended.map_or(0, |ended| ended.saturating_add(pace.spacing));
        Some(due.max(self.not_before).max(spaced))
    }
}

pub(crate) struct Schedule {
    pace: Pace,
    account: State,
    vaults: BTreeMap<VaultId, State>,
    running: Option<Lane>,
    paused: bool,
    /// Whether the account was synced since it last had to be.
    ready: bool,
    metered: Option<Millis>,
    /// When the present turn of all lanes began, on a metered network.
    window: Option<Millis>,
}

impl Schedule {
    pub(crate) fn new(pace: Pace, metered: Option<Millis>, now: Millis) -> Self {
        let account = State { wanted: Some(now), ..State::default() };
        Self {
            pace,
            account,
            vaults: BTreeMap::new(),
            running: None,
            paused: false,
            ready: false,
            metered,
            window: None,
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(crate) fn is_metered(&self) -> bool {
        self.metered.is_some()
    }

    /// Takes an input; `draw` is a random number.
    pub(crate) fn take(&mut self, now: Millis, input: Input, draw: u64) {
        match input {
            Input::Vaults(vaults) => {
                self.vaults.retain(|vault, _| vaults.contains(vault));
                for vault in vaults {
                    let new = || State { wanted: Some(now), ..State::default() };
                    self.vaults.entry(vault).or_insert_with(new);
                }
            }
            Input::Wrote(vault) => {
                let state = self.vaults.entry(vault).or_default();
                state.wrote = Some((state.wrote.map_or(now, |(first, _)| first), now));
            }
            Input::Moved(Lane::Account) => self.account.want(now),
            Input::Moved(Lane::Vault(vault)) => {
                if let Some(state) = self.vaults.get_mut(&vault) {
                    state.want(now);
                }
            }
            Input::SyncNow => self.renew(now),
            Input::Pause => {
                self.paused = true;
                // What was cut off is done again.
                if let Some(state) = self.running.take().and_then(|lane| self.state(lane)) {
                    state.want(now);
                }
            }
            Input::Resume => {
                self.paused = false;
                self.renew(now);
            }
            Input::Metered(every) => {
                self.metered = every;
                self.window = None;
            }
            Input::Done(lane, end) => self.done(now, lane, end, draw),
        }
    }

    fn state(&mut self, lane: Lane) -> Option<&mut State> {
        match lane {
            Lane::Account => Some(&mut self.account),
            Lane::Vault(vault) => self.vaults.get_mut(&vault),
        }
    }

    fn renew(&mut self, now: Millis) {
        self.ready = false;
        self.window = None;
        self.account.renew(now);
        self.vaults.values_mut().for_each(|state| state.renew(now));
    }

    fn done(&mut self, now: Millis, lane: Lane, end: End, draw: u64) {
        if self.running == Some(lane) {
            self.running = None;
        }
        let pace = self.pace;
        let Some(state) = self.state(lane) else { return };
        state.ended = Some(now);
        match end {
            End::Synced => {
                let had_failed = state.failures > 0;
                (state.failures, state.not_before) = (0, 0);
                if lane == Lane::Account {
                    self.ready = true;
                    for vault in self.vaults.values_mut() {
                        vault.want(now);
                        if had_failed {
                            vault.not_before = 0;
                        }
                    }
                }
            }
            End::Later { asked, is_away } => {
                state.failures = state.failures.saturating_add(1);
                let wait = backoff(&pace, state.failures, draw).max(asked.unwrap_or(0).min(pace.asked_max));
                state.not_before = now.saturating_add(wait);
                state.want(now);
                if lane == Lane::Account {
                    self.ready = false;
                } else if is_away {
                    // Whether the server is away from everybody, the account tells.
                    self.ready = false;
                    self.account.want(now);
                }
            }
            End::Full => {
                (state.failures, state.not_before) = (0, 0);
                state.stop = Stop::Pushes;
            }
            End::Person { of_all } => {
                state.stop = Stop::All;
                if of_all || lane == Lane::Account {
                    self.account.stop = Stop::All;
                    self.ready = false;
                }
            }
        }
    }

    /// A lane's turn begins: everything that was written and told so far is in it.
    pub(crate) fn begin(&mut self, now: Millis, lane: Lane) {
        if let Some(every) = self.metered
            && self.window.is_none_or(|begun| now >= begun.saturating_add(every))
        {
            // What one lane wakes the network for, all of them use.
            self.window = Some(now);
            self.account.want(now);
            self.vaults.values_mut().for_each(|state| state.want(now));
        }
        self.running = Some(lane);
        if let Some(state) = self.state(lane) {
            state.began = Some(now);
            (state.wanted, state.wrote) = (None, None);
        }
    }

    /// What is to be done now.
    pub(crate) fn next(&self, now: Millis) -> Next {
        if self.paused || self.running.is_some() || self.account.stop == Stop::All {
            return Next::Never;
        }
        let mut account = self.account.clone();
        let every = self.metered.unwrap_or(self.pace.every);
        if let Some(began) = account.began {
            account.want(began.saturating_add(every));
        }
        let mut soonest = self.at(&account).map(|at| (at, Lane::Account, Mode::Full));
        if self.ready && soonest.is_none_or(|(at, ..)| at > now) {
            for (vault, state) in &self.vaults {
                let mode = if state.stop == Stop::Pushes { Mode::Pull } else { Mode::Full };
                if let Some(at) = self.at(state)
                    && soonest.is_none_or(|(best, ..)| at < best)
                {
                    soonest = Some((at, Lane::Vault(*vault), mode));
                }
            }
        }
        match soonest {
            None => Next::Never,
            Some((at, ..)) if at > now => Next::At(at),
            Some((_, lane, mode)) => Next::Work(lane, mode),
        }
    }

    fn at(&self, state: &State) -> Option<Millis> {
        let due = state.due(&self.pace)?;
        let (Some(every), Some(window)) = (self.metered, self.window) else { return Some(due) };
        let had_its_turn = state.began.is_some_and(|began| began >= window);
        Some(if had_its_turn { due.max(window.saturating_add(every)) } else { due })
    }
}

/// Full jitter: anything between the least wait and a bound that doubles with each failure.
pub(crate) fn backoff(pace: &Pace, failures: u32, draw: u64) -> Millis {
    let doubled = 1_u64.checked_shl(failures.min(32)).unwrap_or(u64::MAX);
    let bound = pace.retry_min.saturating_mul(doubled).min(pace.retry_max);
    let span = bound.saturating_sub(pace.retry_min).saturating_add(1);
    pace.retry_min.saturating_add(draw % span)
}
