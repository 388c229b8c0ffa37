//! Object (blob) layout and digest (PROTOCOL.md section 9). The bytes inside are sealed by
//! `lockstep-client-crypto`; sizes and places are public.

use crate::cbor::CodecError;
use crate::envelope::padded_size;
use crate::hash::Digest;
use crate::version::{SUITE, VERSION};
use crate::{label, limits};

/// First bytes of every object.
pub const MAGIC: [u8; 4] = *b"LSO1";
/// Length of the object header.
pub const HEADER_BYTES: usize = 59;
/// Length of a Poly1305 tag.
pub const TAG_BYTES: u64 = 16;
/// Smallest and largest power of two of a chunk.
pub const CHUNK_LOG2: std::ops::RangeInclusive<u8> = 16..=20;

/// An object's header, parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectHeader {
    /// Chunk size as a power of two.
    pub chunk_log2: u8,
    /// Nonce prefix of the STREAM.
    pub prefix: [u8; 19],
    /// Commitment to the key.
    pub commitment: Digest,
}

impl ObjectHeader {
    /// The 59 bytes.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let numbers = [VERSION, SUITE, self.chunk_log2, 0];
        let fields = MAGIC.iter().chain(&numbers).chain(&self.prefix).chain(self.commitment.as_bytes());
        for (place, byte) in out.iter_mut().zip(fields) {
            *place = *byte;
        }
        out
    }

    /// Parses strictly.
    ///
    /// # Errors
    /// [`CodecError`] for another magic, version, suite, chunk size or reserved byte.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, CodecError> {
        const WHAT: &str = "object header";
        let rule = |rule| Err(CodecError::Rule { what: WHAT, rule });
        let (magic, rest) = bytes.split_at(4);
        let [version, suite, chunk_log2, reserved, rest @ ..] = rest else {
            return rule("too short");
        };
        if magic != MAGIC {
            return rule("not a Lockstep object");
        }
        crate::version::check_suite(WHAT, *version, *suite)?;
        if *reserved != 0 || !CHUNK_LOG2.contains(chunk_log2) {
            return rule("the chunk size is outside its range or the reserved byte is set");
        }
        let (prefix, commitment) = rest.split_at(19);
        match (prefix.try_into(), Digest::from_slice(commitment)) {
            (Ok(prefix), Some(commitment)) => Ok(Self { chunk_log2: *chunk_log2, prefix, commitment }),
            _ => rule("too short"),
        }
    }
}

/// Chunk size for contents of `size` bytes: 64 KiB up to 4 MiB of contents, 1 MiB above 64 MiB.
pub fn chunk_log2_for(size: u64) -> u8 {
    match size {
        0..=0x40_0000 => 16,
        0x40_0001..=0x400_0000 => 18,
        _ => 20,
    }
}

/// Where the bytes of an object lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Plaintext with padding, in bytes.
    pub padded_bytes: u64,
    /// Plaintext of one full chunk, in bytes.
    pub chunk_bytes: u64,
    /// Number of chunks, at least 1.
    pub chunk_count: u64,
    /// The whole object, in bytes.
    pub object_bytes: u64,
}

impl Layout {
    /// Layout of contents of `size` bytes; none if an object can not be that large.
    pub fn new(size: u64, chunk_log2: u8) -> Option<Self> {
        if !CHUNK_LOG2.contains(&chunk_log2) {
            return None;
        }
        let part_bytes = u64::try_from(limits::PART_BYTES).ok()?;
        let object_bytes_max = limits::PARTS_MAX.checked_mul(part_bytes)?;
        if size > object_bytes_max {
            return None;
        }
        let padded_bytes = padded_size(size);
        let chunk_bytes = 1_u64 << chunk_log2;
        let chunk_count = padded_bytes.div_ceil(chunk_bytes);
        let object_bytes = padded_bytes
            .checked_add(chunk_count.checked_mul(TAG_BYTES)?)?
            .checked_add(u64::try_from(HEADER_BYTES).ok()?)?;
        (object_bytes <= object_bytes_max).then_some(Self {
            padded_bytes,
            chunk_bytes,
            chunk_count,
            object_bytes,
        })
    }
}

/// Digest of one part of an object.
pub fn part_digest(part: &[u8]) -> Digest {
    Digest::of(label::OBJECT_PART, part)
}

/// Digest of a whole object: of its size and its parts' digests, so that a server that saw each part
/// once can check the whole without reading it again.
pub fn object_digest(size: u64, parts: &[Digest]) -> Digest {
    Digest::of_cbor(label::OBJECT, &(size, parts))
}

/// Number of parts of an object of `size` bytes.
pub fn part_count(size: u64) -> u64 {
    size.div_ceil(u64::try_from(limits::PART_BYTES).unwrap_or(u64::MAX)).max(1)
}

/// Length of part `index` of an object of `size` bytes; none beyond the end.
pub fn part_len(size: u64, index: u64) -> Option<u64> {
    let part_bytes = u64::try_from(limits::PART_BYTES).ok()?;
    let begin = index.checked_mul(part_bytes)?;
    if begin >= size { None } else { Some((size.checked_sub(begin)?).min(part_bytes)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trip_and_refusals() {
        let header =
            ObjectHeader { chunk_log2: 16, prefix: [3; 19], commitment: Digest::from_bytes([4; 32]) };
        let bytes = header.to_bytes();
        assert_eq!(ObjectHeader::parse(&bytes).unwrap(), header);
        for place in 0..8 {
            let mut damaged = bytes;
            damaged[place] ^= 0x40;
            assert!(ObjectHeader::parse(&damaged).is_err(), "byte {place}");
        }
    }

    #[test]
    fn chunks_grow_with_the_contents() {
        for (size, chunk_log2) in [
            (0, 16),
            (4 << 20, 16),
            ((4 << 20) + 1, 18),
            (64 << 20, 18),
            ((64 << 20) + 1, 20),
            (u64::MAX, 20),
        ] {
            assert_eq!(chunk_log2_for(size), chunk_log2, "{size}");
        }
        for (size, parts) in [(0, 1), (1, 1), (8 << 20, 1), ((8 << 20) + 1, 2), (80 << 20, 10)] {
            assert_eq!(part_count(size), parts, "{size}");
        }
    }

    #[test]
    fn layouts() {
        let empty = Layout::new(0, 16).unwrap();
        assert_eq!((empty.padded_bytes, empty.chunk_count, empty.object_bytes), (256, 1, 59 + 256 + 16));
        let two = Layout::new(65_537, 16).unwrap();
        assert_eq!(two.chunk_count, 2);
        assert!(Layout::new(u64::MAX, 20).is_none());
        assert!(Layout::new(1, 15).is_none() && Layout::new(1, 21).is_none() && Layout::new(1, 20).is_some());
        // The last bucket below 1 TiB, in which tags and header have room.
        let last = (1_u64 << 40) - (1 << 33);
        assert_eq!(Layout::new(last, 20).unwrap().padded_bytes, last);
        assert!(Layout::new(last + 1, 20).is_none() && Layout::new(1 << 40, 20).is_none());
        assert_eq!(part_count(0), 1);
        assert_eq!(part_len(8 * 1024 * 1024 + 1, 1), Some(1));
        assert_eq!(part_len(8 * 1024 * 1024, 1), None);
    }
}
