//! What an app shows of its sync.

use super::trouble::Trouble;
use lockstep_proto::id::VaultId;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// What is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing to do, or nothing that can be done now: then [`Status::trouble`] or a vault's says why.
    Idle,
    /// A sync is under way.
    Syncing {
        /// Writes that the server confirmed since it began,
        done: u64,
        /// of so many.
        of: u64,
    },
    /// The server can not be reached; it is tried again.
    Offline {
        /// Since when, in seconds since 1970 by this device's clock.
        since_utc: u64,
    },
    /// Somebody paused it.
    Paused,
}

/// How sync stands. All times are seconds since 1970 by this device's clock.
#[derive(Debug, Clone)]
pub struct Status {
    /// What is going on.
    pub state: State,
    /// Writes that wait for the server, over all vaults.
    pub pending: u64,
    /// Committed records in which something waits for a decision, conflict copies included, over all vaults.
    pub conflicts: u64,
    /// When everything was in sync last; none: never since that is kept.
    pub last_success_utc: Option<u64>,
    /// What was wrong with the account or the server when it was last tried; none: nothing.
    pub trouble: Option<Trouble>,
    /// The vaults, by name.
    pub vaults: Vec<VaultStatus>,
    /// What this device counted. It is told to nobody.
    pub statistics: Statistics,
}

/// How one vault stands.
#[derive(Debug, Clone)]
pub struct VaultStatus {
    /// Its id.
    pub vault: VaultId,
    /// Its name.
    pub name: String,
    /// Writes that wait for the server.
    pub pending: u64,
    /// Committed records in which something waits for a decision.
    pub conflicts: u64,
    /// What was wrong when it was last tried.
    pub trouble: Option<Trouble>,
}

impl Status {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Idle,
            pending: 0,
            conflicts: 0,
            last_success_utc: None,
            trouble: None,
            vaults: Vec::new(),
            statistics: Statistics::default(),
        }
    }

    /// Whether an app would show the same.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let of = |status: &Self| {
            let vaults = status.vaults.iter();
            let vaults: Vec<_> = vaults
                .map(|v| (v.vault, v.name.clone(), v.pending, v.conflicts, place(v.trouble.as_ref())))
                .collect();
            (status.state, status.pending, status.conflicts, status.last_success_utc, vaults)
        };
        of(self) == of(other)
            && place(self.trouble.as_ref()) == place(other.trouble.as_ref())
            && self.statistics == other.statistics
    }

    /// The last error: of the account, or else of the first vault that has one.
    pub fn last_error(&self) -> Option<&Trouble> {
        self.trouble.as_ref().or_else(|| self.vaults.iter().find_map(|vault| vault.trouble.as_ref()))
    }
}

/// Tells one trouble from another.
fn place(trouble: Option<&Trouble>) -> Option<*const crate::ClientError> {
    trouble.map(|trouble| std::sync::Arc::as_ptr(&trouble.error))
}

/// Counts of syncs. A sync is everything that is done without a pause in between. Kept on the device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Syncs that ended.
    pub syncs: u64,
    /// Those in which nothing failed.
    pub successes: u64,
    /// Those in which something did.
    pub failures: u64,
    /// Durations of the last ones in milliseconds, [`Self::DURATIONS_MAX`] at most.
    durations_ms: VecDeque<u64>,
    /// When one without failure ended last, seconds since 1970.
    pub(crate) last_success_utc: Option<u64>,
}

impl Statistics {
    /// So many durations are kept.
    pub const DURATIONS_MAX: usize = 100;

    /// `whole_utc`: when, if everything is in sync now.
    pub(crate) fn add(&mut self, duration: Duration, is_good: bool, whole_utc: Option<u64>) {
        self.syncs = self.syncs.saturating_add(1);
        if is_good {
            self.successes = self.successes.saturating_add(1);
        } else {
            self.failures = self.failures.saturating_add(1);
        }
        self.last_success_utc = whole_utc.or(self.last_success_utc);
        if self.durations_ms.len() >= Self::DURATIONS_MAX {
            self.durations_ms.pop_front();
        }
        self.durations_ms.push_back(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    }

    /// Median duration of the last [`Self::DURATIONS_MAX`] syncs: the lower of the two in the middle.
    pub fn median(&self) -> Option<Duration> {
        let mut sorted: Vec<u64> = self.durations_ms.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len().saturating_sub(1) / 2).copied().map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_of_the_last_hundred() {
        let mut statistics = Statistics::default();
        assert_eq!(statistics.median(), None);
        for ms in [9_000; 50] {
            statistics.add(Duration::from_millis(ms), false, None);
        }
        for ms in 1..=100 {
            statistics.add(Duration::from_millis(ms), true, Some(ms));
        }
        assert_eq!(statistics.median(), Some(Duration::from_millis(50)));
        assert_eq!((statistics.syncs, statistics.successes, statistics.failures), (150, 100, 50));
        assert_eq!(statistics.last_success_utc, Some(100));
        let text = serde_json::to_string(&statistics).unwrap();
        assert_eq!(serde_json::from_str::<Statistics>(&text).unwrap(), statistics);
    }
}
