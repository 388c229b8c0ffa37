//! What an app may choose.

use super::schedule::{Millis, Pace};
use lockstep_merge::Policies;
use std::sync::Arc;
use std::time::Duration;

/// How a home is kept in sync.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Everything is synced as often, whatever the server tells; 15 minutes if nothing is said.
    pub every: Duration,
    /// On a metered network: pulls and pushes happen once in such a time at most, all vaults one after the other, and no
    /// connection is kept open in between. None: as often as there is a reason.
    pub metered: Option<Duration>,
    /// A write is sent when no other came for so long: 300 ms if nothing is said,
    pub debounce: Duration,
    /// and so long after the first one at the latest: 5 s.
    pub debounce_max: Duration,
    /// Events that are kept for a subscriber who is slow; 1,024.
    pub events_max: usize,
    /// Whether the home is free for other processes between two syncs: for programs that only follow. An app that
    /// writes keeps its home.
    pub shares_home: bool,
    /// Merge policies of the app (docs/MERGING.md), for all vaults; none: those that stand in each vault.
    pub policies: Option<Arc<Policies>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            every: Duration::from_mins(15),
            metered: None,
            debounce: Duration::from_millis(300),
            debounce_max: Duration::from_secs(5),
            events_max: 1024,
            shares_home: false,
            policies: None,
        }
    }
}

impl Settings {
    pub(crate) fn pace(&self) -> Pace {
        Pace {
            debounce: millis(self.debounce),
            debounce_max: millis(self.debounce_max),
            every: millis(self.every).max(1_000),
            spacing: 250,
            retry_min: 1_000,
            retry_max: 300_000,
            asked_max: 3_600_000,
        }
    }
}

pub(crate) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
