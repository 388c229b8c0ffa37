//! What goes wrong, drawn per seed; and the places where a planted bug can sit.

use crate::dice::Dice;
use crate::replica::MemReplica;
use crate::server::{ModelServer, PageSizes};
use lockstep_engine::effect::{Answer, Failure, Request};
use lockstep_engine::replica::WriteOp;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Crash,
    Unsynced,
    DiskFull,
    TornWrite,
    RequestLost,
    AnswerLost,
    Duplicated,
    Late,
    ServerError,
    ErrorAfter,
    ShortBody,
    ServerRestart,
    Partition,
    ClockJump,
    StagedExpires,
    Quota,
    Restored,
    Cloned,
    Wiped,
    Yesterday,
    Tampered,
}

/// A kind with its name and its highest rate in permille.
#[rustfmt::skip]
const KINDS: [(Fault, &str, u64); 21] = [
    // Per moment: before and after every effect.
    (Fault::Crash, "crash", 50),
    // Per crash: writes that were carried out, and of which nobody was told yet, are gone.
    (Fault::Unsynced, "unsynced write dropped", 1000),
    // Per write: it is not carried out, and the adapter gets an error.
    (Fault::DiskFull, "disk full", 100),
    // Per write: the process dies in the middle of it, and the store rolls it back.
    (Fault::TornWrite, "torn write", 50),
    (Fault::RequestLost, "request lost", 200),
    // The server applied it, the device does not hear of it.
    (Fault::AnswerLost, "answer lost", 200),
    (Fault::Duplicated, "duplicated", 300),
    // Answers that come after the device gave up.
    (Fault::Late, "late", 150),
    // 500, 503 or a timeout at a proxy, before the request was looked at.
    (Fault::ServerError, "server error", 200),
    // The same after it was applied.
    (Fault::ErrorAfter, "server error after it was applied", 100),
    // An answer that is cut off: the adapter can not read it.
    (Fault::ShortBody, "short body", 200),
    // Per push: the server is killed in the middle of it.
    (Fault::ServerRestart, "server restarted", 100),
    // Per step: a device is cut off for a while.
    (Fault::Partition, "partition", 100),
    // Per step: a clock jumps, forward or back.
    (Fault::ClockJump, "clock jump", 100),
    // Per step: what was staged at the server expires.
    (Fault::StagedExpires, "staged expires", 50),
    // Per step: for a while the server takes nothing but deletions.
    (Fault::Quota, "quota exceeded", 20),
    // Per step: a device is set back to what it was some steps ago.
    (Fault::Restored, "device restored from a snapshot", 12),
    // Per step: a device goes on twice.
    (Fault::Cloned, "device cloned", 8),
    // Per step: a device loses everything and joins again.
    (Fault::Wiped, "device wiped", 6),
    // Per step: for a while the server shows an old state.
    (Fault::Yesterday, "server rolled back", 25),
    // Per answer: bits are flipped, or parts are left out or exchanged.
    (Fault::Tampered, "answer tampered with", 60),
];

impl Fault {
    /// All kinds.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        KINDS.iter().map(|(fault, ..)| *fault)
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        KINDS[self as usize].1
    }

    /// The kind of a name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        KINDS.iter().find(|(_, known, _)| *known == name).map(|(fault, ..)| *fault)
    }
}

/// Rates of faults in permille.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    rates: [u64; KINDS.len()],
    /// Longest ordinary delay of one way, in milliseconds.
    pub(crate) delay_ms_max: u64,
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "delay {} ms", self.delay_ms_max)?;
        let drawn = Fault::all().filter(|fault| self.rate(*fault) > 0);
        drawn.into_iter().try_for_each(|fault| write!(f, ", {} {}", fault.name(), self.rate(fault)))
    }
}

impl Faults {
    /// Faults of a seed: about half of the kinds, so that the others have room to show.
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let mut faults = Self::default();
        for (fault, _, rate_max) in KINDS {
            faults.rates[fault as usize] = if dice.chance(450) { 0 } else { 1 + dice.below(rate_max) };
        }
        faults.delay_ms_max = 1 + if dice.chance(250) { 0 } else { dice.below(600) };
        faults
    }

    /// A quiet world.
    pub(crate) fn none() -> Self {
        Self { delay_ms_max: 1, ..Self::default() }
    }

    /// The same without one kind.
    pub(crate) fn without(mut self, fault: Fault) -> Self {
        self.rates[fault as usize] = 0;
        self
    }

    /// How often a kind happens, in permille.
    pub(crate) fn rate(&self, fault: Fault) -> u64 {
        self.rates[fault as usize]
    }
}

/// Small pages of a seed.
pub(crate) fn draw_sizes(dice: &mut Dice) -> PageSizes {
    PageSizes {
        commits: 1 + dice.index(4),
        inline: dice.index(4),
        state: 1 + dice.index(3),
        envelopes: 1 + dice.index(2),
    }
}

/// Where a planted bug replaces what is right.
#[derive(Clone, Copy)]
pub(crate) struct Hooks {
    pub(crate) write: fn(Vec<WriteOp>) -> Vec<WriteOp>,
    pub(crate) serve: fn(&mut ModelServer, &Request) -> Result<Answer, Failure>,
    pub(crate) answer: fn(&Request, Answer) -> Answer,
    /// What a device finds when it starts again.
    pub(crate) start: fn(&mut MemReplica),
    /// Whether a write that was reported survives a crash.
    pub(crate) is_durable: bool,
    /// Whether all operations of a write happen together when the crash is in the middle of it.
    pub(crate) is_atomic: bool,
    /// Whether a write that failed is said to have failed.
    pub(crate) reports_full_disk: bool,
    /// Whether a device that met a copy of itself gets a new identity.
    pub(crate) ends_clones: bool,
    /// Whether operation ids are drawn anew.
    pub(crate) draws_ids: bool,
    /// Whether what seals draws anew.
    pub(crate) draws_nonces: bool,
}

impl Hooks {
    /// Everything as it should be.
    pub(crate) const HONEST: Self = Self {
        write: |ops| ops,
        serve: ModelServer::serve,
        answer: |_, answer| answer,
        start: |_| {},
        is_durable: true,
        is_atomic: true,
        reports_full_disk: true,
        ends_clones: true,
        draws_ids: true,
        draws_nonces: true,
    };
}
