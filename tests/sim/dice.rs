//! Drawing from one seeded generator.

use rand::rngs::ChaCha20Rng;
use rand::{Rng as _, SeedableRng as _};

/// All chance of a run.
pub(crate) struct Dice(ChaCha20Rng);

impl Dice {
    /// A generator of its own for every (seed, purpose).
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        Self(generator(seed, purpose))
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0.next_u64() % end
    }

    /// An index below `end`.
    pub(crate) fn index(&mut self, end: usize) -> usize {
        self.below(end as u64) as usize
    }

    /// True in so many of a thousand cases. Draws nothing if there is no chance.
    pub(crate) fn chance(&mut self, permille: u64) -> bool {
        permille > 0 && self.below(1000) < permille
    }
}

/// A generator for (seed, purpose).
pub(crate) fn generator(seed: u64, purpose: u64) -> ChaCha20Rng {
    Draws { seed, purpose, count: 0 }.generator()
}

/// A place in a row of generators: a copy of it goes on with the same ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draws {
    pub(crate) seed: u64,
    pub(crate) purpose: u64,
    pub(crate) count: u64,
}

impl Draws {
    /// The next generator.
    pub(crate) fn next(&mut self) -> ChaCha20Rng {
        self.count += 1;
        self.generator()
    }

    fn generator(self) -> ChaCha20Rng {
        let mut bytes = [0x51; 32];
        bytes[..8].copy_from_slice(&self.seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.purpose.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.count.to_le_bytes());
        ChaCha20Rng::from_seed(bytes)
    }
}
