//! The state digest: LtHash over the newest revision of every record (PROTOCOL.md section 6.2).
//!
//! Source: Lewi, Kim, Maykov, Weis, "Securing Update Propagation with Homomorphic Hashing", 2019;
//! 1,024 lanes of 16 bits. One change costs one XOF of 2,048 bytes and 1,024 additions, however many
//! records there are.

use crate::hash::Digest;
use crate::id::{RecordId, Revision, Seq};
use crate::{cbor, label};

const LANES: usize = 1024;

/// Encoded length of a state digest, in bytes.
pub const STATE_BYTES: usize = 2 * LANES;

/// The homomorphic sum. Two equal sets have equal sums, in whatever order they were built.
#[derive(Clone, PartialEq, Eq)]
pub struct StateDigest(Box<[u16; LANES]>);

impl Default for StateDigest {
    fn default() -> Self {
        Self(Box::new([0; LANES]))
    }
}

impl std::fmt::Debug for StateDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StateDigest({})", self.checksum())
    }
}

impl StateDigest {
    /// Adds the element of a record's version that commit `seq` put.
    pub fn add(&mut self, record: RecordId, revision: Revision, envelope: Digest, seq: Seq) {
        for (lane, value) in self.0.iter_mut().zip(element(record, revision, envelope, seq)) {
            *lane = lane.wrapping_add(value);
        }
    }

    /// Takes the element of a record's version away again.
    pub fn remove(&mut self, record: RecordId, revision: Revision, envelope: Digest, seq: Seq) {
        for (lane, value) in self.0.iter_mut().zip(element(record, revision, envelope, seq)) {
            *lane = lane.wrapping_sub(value);
        }
    }

    /// The 32 bytes that a commit header carries.
    pub fn checksum(&self) -> Digest {
        Digest::of(label::STATE_CHECKSUM, &self.to_bytes())
    }

    /// The sum itself, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|lane| lane.to_le_bytes()).collect()
    }

    /// Reads a sum; none unless it is exactly [`STATE_BYTES`] long.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != STATE_BYTES {
            return None;
        }
        let mut state = Self::default();
        for (lane, value) in state.0.iter_mut().zip(lanes(bytes)) {
            *lane = value;
        }
        Some(state)
    }
}

fn lanes(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.chunks_exact(2).map(|pair| match pair {
        [low, high] => u16::from_le_bytes([*low, *high]),
        _ => 0,
    })
}

fn element(record: RecordId, revision: Revision, envelope: Digest, seq: Seq) -> impl Iterator<Item = u16> {
    let mut bytes = [0_u8; STATE_BYTES];
    blake3::Hasher::new_derive_key(label::STATE_ELEMENT.as_str())
        .update(&cbor::encode(&(record, revision, envelope, seq)))
        .finalize_xof()
        .fill(&mut bytes);
    let mut index = 0_usize;
    std::iter::from_fn(move || {
        let pair = bytes.get(index..index.checked_add(2)?)?;
        index = index.checked_add(2)?;
        Some(u16::from_le_bytes(pair.try_into().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(byte: u8) -> (RecordId, Revision, Digest, Seq) {
        let number = u64::from(byte);
        (
            RecordId::from_bytes([byte; 16]),
            Revision::new(number),
            Digest::from_bytes([byte; 32]),
            Seq::new(number),
        )
    }

    fn sum(items: impl Iterator<Item = u8>) -> StateDigest {
        let mut state = StateDigest::default();
        for (record, revision, digest, seq) in items.map(item) {
            state.add(record, revision, digest, seq);
        }
        state
    }

    #[test]
    fn order_does_not_matter_and_removal_undoes() {
        let mut forward = sum(1..20);
        let backward = sum((1..20).rev());
        assert_eq!(forward, backward);
        for (record, revision, digest, seq) in (1..20).map(item) {
            forward.remove(record, revision, digest, seq);
        }
        assert_eq!(forward, StateDigest::default());
        assert_ne!(forward.checksum(), backward.checksum());
    }

    #[test]
    fn every_field_counts_and_bytes_round_trip() {
        let (record, revision, digest, seq) = item(3);
        let one = sum(3..4);
        let other = item(4);
        for (record, revision, digest, seq) in [
            (other.0, revision, digest, seq),
            (record, other.1, digest, seq),
            (record, revision, other.2, seq),
            (record, revision, digest, other.3),
        ] {
            let mut changed = StateDigest::default();
            changed.add(record, revision, digest, seq);
            assert_ne!(one.checksum(), changed.checksum());
        }
        assert_eq!(StateDigest::from_bytes(&one.to_bytes()), Some(one));
        assert_eq!(StateDigest::from_bytes(&[0; 2047]), None);
    }
}
