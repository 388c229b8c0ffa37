//! Edits that an input asks for: real bytes spoilt in arbitrary places, which plain noise never reaches.

/// Reads an input from its front; beyond its end there are zeros.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(super) fn number(&mut self) -> usize {
        usize::from(self.byte()) << 16 | usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Spoils bytes as the input says: up to 15 edits. None is an edit like any other.
    pub(super) fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.byte() % 16 {
            let kind = self.byte();
            let place = self.number() % (bytes.len() + 1);
            let len = usize::from(self.byte());
            match kind % 6 {
                0 => bytes.truncate(place),
                1 if place < bytes.len() => bytes[place] ^= len as u8,
                2 => drop(bytes.splice(place..place, self.take(len).to_vec())),
                3 => drop(bytes.drain(place..(place + len).min(bytes.len()))),
                4 => {
                    // A piece once more, somewhere else.
                    let piece = bytes[place..(place + len).min(bytes.len())].to_vec();
                    let to = self.number() % (bytes.len() + 1);
                    drop(bytes.splice(to..to, piece));
                }
                _ => bytes.extend_from_slice(self.take(len)),
            }
        }
    }
}
