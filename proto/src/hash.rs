//! `H(label, x)`: BLAKE3 in derive-key mode under a registered label (PROTOCOL.md section 1.2).

use crate::label::Label;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::hash::{Hash, Hasher};
use subtle::ConstantTimeEq as _;

/// A 32-byte digest. Not for secrets, it prints itself; but commitments and content hashes are digests too, and so it is
/// compared for equality in constant time.
#[derive(Clone, Copy, Eq, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Digest {
    /// Thirty-two zero bytes: "nothing before".
    pub const ZERO: Self = Self([0; 32]);

    /// Wraps 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 32 bytes from a slice of exactly that length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// `H(label, bytes)`.
    pub fn of(label: Label, bytes: &[u8]) -> Self {
        Self(blake3::derive_key(label.as_str(), bytes))
    }

    /// `H(label, CBOR(value))`.
    pub fn of_cbor<T: Serialize + ?Sized>(label: Label, value: &T) -> Self {
        Self::of(label, &crate::cbor::encode(value))
    }

    /// The first 16 bytes: `H16`.
    pub fn truncate16(&self) -> [u8; 16] {
        let (head, _) = self.0.split_at(16);
        let mut out = [0; 16];
        out.copy_from_slice(head);
        out
    }
}

/// `H(label, ...)` of bytes that come piece by piece.
#[derive(Clone)]
pub struct DigestStream(blake3::Hasher);

impl DigestStream {
    /// Begins.
    pub fn new(label: Label) -> Self {
        Self(blake3::Hasher::new_derive_key(label.as_str()))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything so far.
    pub fn digest(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

impl fmt::Debug for DigestStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestStream")
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::cbor::fixed_bytes(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_compared_hashed_shown_and_cut_by_all_of_its_bytes() {
        let bytes: [u8; 32] = std::array::from_fn(|place| place as u8);
        let digest = Digest::from_bytes(bytes);
        let text = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
        assert_eq!((digest.to_string().as_str(), &digest.truncate16()[..]), (text, &bytes[..16]));
        let hash = |digest: Digest| {
            let mut hasher = std::hash::DefaultHasher::new();
            digest.hash(&mut hasher);
            hasher.finish()
        };
        for place in 0..32 {
            let mut other = bytes;
            other[place] ^= 1;
            let other = Digest::from_bytes(other);
            assert!(digest != other && hash(digest) != hash(other), "byte {place}");
        }
        assert_eq!((Digest::from_slice(&bytes), Digest::from_slice(&bytes[1..])), (Some(digest), None));
    }

    #[test]
    fn a_stream_has_the_digest_of_the_whole() {
        let mut stream = DigestStream::new(crate::label::OBJECT);
        stream.update(b"one");
        assert_eq!(stream.digest(), Digest::of(crate::label::OBJECT, b"one"));
        stream.update(b"two");
        assert_eq!(stream.digest(), Digest::of(crate::label::OBJECT, b"onetwo"));
    }
}
