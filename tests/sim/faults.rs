//! What goes wrong, drawn per seed; and the places where a planted bug can sit.

use crate::dice::Dice;
use crate::server::{ModelServer, PageSizes};
use lockstep_engine::effect::{Answer, Failure, Request};
use lockstep_engine::replica::WriteOp;

/// Rates of faults, in permille unless said otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Per moment: before and after every effect.
    pub(crate) crash: u64,
    pub(crate) request_lost: u64,
    /// The server applied it, the device does not hear of it.
    pub(crate) answer_lost: u64,
    pub(crate) duplicated: u64,
    /// Answers that come after the device gave up.
    pub(crate) late: u64,
    /// Longest ordinary delay of one way, in milliseconds.
    pub(crate) delay_ms_max: u64,
    /// Per step: a device is cut off for a while.
    pub(crate) partition: u64,
    /// Per step: a clock jumps, forward or back.
    pub(crate) clock_jump: u64,
    /// Per step: what was staged at the server expires.
    pub(crate) staged_expires: u64,
}

impl Faults {
    /// Faults of a seed.
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let mut rate = |max: u64| if dice.chance(250) { 0 } else { dice.below(max) };
        Self {
            crash: rate(50),
            request_lost: rate(200),
            answer_lost: rate(200),
            duplicated: rate(300),
            late: rate(150),
            delay_ms_max: 1 + rate(600),
            partition: rate(100),
            clock_jump: rate(100),
            staged_expires: rate(50),
        }
    }

    /// A quiet world.
    pub(crate) fn none() -> Self {
        Self { delay_ms_max: 1, ..Self::default() }
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
    pub(crate) answer: fn(Answer) -> Answer,
    /// Whether a write that was reported survives a crash.
    pub(crate) is_durable: bool,
    /// Whether all operations of a write happen together when the crash is in the middle of it.
    pub(crate) is_atomic: bool,
}

impl Hooks {
    /// Everything as it should be.
    pub(crate) const HONEST: Self = Self {
        write: |ops| ops,
        serve: ModelServer::serve,
        answer: |answer| answer,
        is_durable: true,
        is_atomic: true,
    };
}
