//! Revocations that were refused because their pins were behind: bytes that the identity signed, and that nobody enters
//! by another way. Remembered by this process; what is forgotten is a known limit (SECURITY.md).

use lockstep_proto::Digest;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

const ENTRIES_MAX: usize = 4096;

/// Hashes of refused entries; the oldest are forgotten first.
#[derive(Default)]
pub struct RefusedEntries(Mutex<VecDeque<Digest>>);

impl RefusedEntries {
    /// Remembers an entry.
    pub fn remember(&self, entry: Digest) {
        self.forget(entry);
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= ENTRIES_MAX {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    /// It was entered after all.
    pub fn forget(&self, entry: Digest) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| *known != entry);
    }

    /// Whether an entry is remembered.
    pub fn has(&self, entry: Digest) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_first() {
        let refused = RefusedEntries::default();
        let entry = |number: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            Digest::from_bytes(bytes)
        };
        for number in 0..=ENTRIES_MAX {
            refused.remember(entry(number));
            refused.remember(entry(number));
        }
        assert!(!refused.has(entry(0)) && refused.has(entry(1)) && refused.has(entry(ENTRIES_MAX)));
        refused.forget(entry(1));
        assert!(!refused.has(entry(1)));
    }
}
