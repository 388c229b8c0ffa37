//! The one codec: deterministic CBOR (RFC 8949 section 4.2.1), positional arrays only.
//!
//! Decoding is strict by construction: what was decoded is encoded again and must give the same
//! bytes, so that every structure has exactly one accepted encoding.

use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::hash::{Hash, Hasher};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroize as _;

/// Why bytes are not the encoding of a structure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Longer than the structure may be; nothing was decoded.
    #[error("{what} is {actual} bytes long, at most {max} are allowed")]
    TooLong {
        /// Name of the structure.
        what: &'static str,
        /// Length found, in bytes.
        actual: usize,
        /// Limit, in bytes.
        max: usize,
    },
    /// A version byte that this build does not speak.
    #[error("{what} is of {}, this program speaks {}", crate::version::describe(*.found), crate::version::describe(crate::version::VERSION))]
    Version {
        /// Name of the structure.
        what: &'static str,
        /// The version byte found.
        found: u8,
    },
    /// Not CBOR of the expected shape.
    #[error("{what} is malformed")]
    Malformed {
        /// Name of the structure.
        what: &'static str,
        /// How, and where.
        source: Malformation,
    },
    /// Decodable, but not in the one accepted encoding.
    #[error("{what} is not in its one deterministic encoding")]
    NotDeterministic {
        /// Name of the structure.
        what: &'static str,
    },
    /// A field holds a value outside its range.
    #[error("{what}: {rule}")]
    Rule {
        /// Name of the structure.
        what: &'static str,
        /// The rule that does not hold.
        rule: &'static str,
    },
}

/// Why and where bytes are not CBOR of the expected shape. Not in the codec's own words: they repeat what they found, which
/// may be a megabyte from a peer, or a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why} before byte {offset}")]
pub struct Malformation {
    why: &'static str,
    offset: u64,
}

impl From<serde_cbor::Error> for Malformation {
    fn from(error: serde_cbor::Error) -> Self {
        let why = match error.classify() {
            serde_cbor::error::Category::Syntax => "it is no CBOR",
            serde_cbor::error::Category::Data => "an item is of another type or count than expected",
            serde_cbor::error::Category::Eof => "it ends",
            serde_cbor::error::Category::Io => "it can not be read",
        };
        Self { why, offset: error.offset() }
    }
}

/// A structure with one encoding, a name for messages and a limit.
pub trait Wire: Serialize + DeserializeOwned {
    /// Name in error messages.
    const NAME: &'static str;
    /// Longest encoding accepted, in bytes.
    const BYTES_MAX: usize;
    /// Whether the first field is the version byte.
    const VERSIONED: bool = false;
    /// Whether it holds secrets: an encoding that was made to be compared is wiped.
    const SECRET: bool = false;

    /// Checks what types alone can not: order, ranges, counts.
    ///
    /// # Errors
    /// [`CodecError::Rule`] names the rule.
    fn check(&self) -> Result<(), CodecError> {
        Ok(())
    }

    /// The deterministic encoding.
    fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Decodes strictly.
    ///
    /// # Errors
    /// Every deviation from the one valid encoding is a [`CodecError`].
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let what = Self::NAME;
        if bytes.len() > Self::BYTES_MAX {
            return Err(CodecError::TooLong { what, actual: bytes.len(), max: Self::BYTES_MAX });
        }
        if Self::VERSIONED {
            crate::version::check(what, bytes)?;
        }
        let value: Self =
            serde_cbor::from_slice(bytes).map_err(|e| CodecError::Malformed { what, source: e.into() })?;
        let mut again = Vec::with_capacity(bytes.len());
        encode_into(&value, &mut again);
        let is_same = again == bytes;
        if Self::SECRET {
            again.zeroize();
        }
        if !is_same {
            return Err(CodecError::NotDeterministic { what });
        }
        value.check()?;
        Ok(value)
    }
}

/// Encodes a value of our own types; their `Serialize` can not fail, and a `Vec` takes every write.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    encode_into(value, &mut out);
    out
}

/// The same of a large value, with as much room as it takes: nothing is copied while it grows.
pub fn encode_large<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut count = Count(0);
    let counted = serde_cbor::to_writer(&mut count, &value);
    debug_assert!(counted.is_ok(), "our structures always encode");
    let mut out = Vec::with_capacity(count.0);
    encode_into(value, &mut out);
    out
}

/// Counts bytes.
struct Count(usize);

impl std::io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Appends an encoding: who wants no copies left behind gives it room enough.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    let written = serde_cbor::to_writer(out, &value);
    debug_assert!(written.is_ok(), "our structures always encode");
}

/// Decodes a value that this device wrote itself, in its one encoding; none if it is anything else.
/// Not for bytes of a peer: those have a type, a name and a limit ([`Wire`]).
pub fn decode_local<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let value: T = serde_cbor::from_slice(bytes).ok()?;
    (encode(&value) == bytes).then_some(value)
}

/// A byte string of any length.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} bytes)", self.0.len())
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(BytesVisitor).map(Self)
    }
}

/// A byte string of exactly `N` bytes. Some hold keys: compared for equality in constant time.
#[derive(Clone, Copy, Eq, PartialOrd, Ord)]
pub struct ByteArray<const N: usize>(pub [u8; N]);

impl<const N: usize> PartialEq for ByteArray<N> {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl<const N: usize> Hash for ByteArray<N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<const N: usize> fmt::Debug for ByteArray<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ByteArray<{N}>")
    }
}

impl<const N: usize> Serialize for ByteArray<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for ByteArray<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fixed_bytes(deserializer).map(Self)
    }
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a byte string")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }
}

struct FixedVisitor<const N: usize>;

impl<const N: usize> Visitor<'_> for FixedVisitor<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a byte string of {N} bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<[u8; N], E> {
        bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}

/// Deserialises a byte string of exactly `N` bytes.
pub(crate) fn fixed_bytes<'de, D: Deserializer<'de>, const N: usize>(
    deserializer: D,
) -> Result<[u8; N], D::Error> {
    deserializer.deserialize_bytes(FixedVisitor::<N>)
}

/// Reads the next element of an array, or says that the array is too short.
///
/// # Errors
/// The decoder's error, or an invalid length.
pub fn next_element<'de, A: SeqAccess<'de>, T: Deserialize<'de>>(
    seq: &mut A,
    index: usize,
) -> Result<T, A::Error> {
    seq.next_element()?.ok_or_else(|| A::Error::invalid_length(index, &"a longer array"))
}

/// Declares a struct whose encoding is the positional array of its fields.
#[macro_export]
macro_rules! wire_array {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident : $ty:ty),+ $(,)? }) => {
        $(#[$meta])*
        $vis struct $name { $($(#[$fmeta])* pub $field: $ty),+ }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeTuple as _;
                const FIELDS: &[&str] = &[$(stringify!($field)),+];
                let mut tuple = serializer.serialize_tuple(FIELDS.len())?;
                $(tuple.serialize_element(&self.$field)?;)+
                tuple.end()
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct ArrayVisitor;
                impl<'de> serde::de::Visitor<'de> for ArrayVisitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("the array of ", stringify!($name)))
                    }
                    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<$name, A::Error> {
                        let mut index = 0_usize;
                        $(
                            let $field = $crate::cbor::next_element::<A, $ty>(&mut seq, index)?;
                            index = index.saturating_add(1);
                        )+
                        let _ = index;
                        Ok($name { $($field),+ })
                    }
                }
                const FIELDS: &[&str] = &[$(stringify!($field)),+];
                deserializer.deserialize_tuple(FIELDS.len(), ArrayVisitor)
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    wire_array! {
        /// A small structure.
        #[derive(Debug, PartialEq)]
        struct Sample {
            pub number: u64,
            pub bytes: Bytes,
            pub list: Vec<u64>,
        }
    }
    impl Wire for Sample {
        const NAME: &'static str = "sample";
        const BYTES_MAX: usize = 64;
    }

    #[test]
    fn only_the_deterministic_encoding_is_read() {
        let value = Sample { number: 7, bytes: Bytes(vec![1, 2]), list: vec![3] };
        let bytes = value.encode();
        assert_eq!(bytes, [0x83, 7, 0x42, 1, 2, 0x81, 3]);
        assert_eq!(Sample::decode(&bytes).unwrap(), value);
        let refused: [&[u8]; 8] = [
            &[0x83, 0x18, 7, 0x42, 1, 2, 0x81, 3],       // longer integer than needed
            &[0x83, 7, 0x42, 1, 2, 0x9f, 3, 0xff],       // indefinite array
            &[0x9f, 7, 0x42, 1, 2, 0x81, 3, 0xff],       // the same, outside
            &[0x83, 7, 0x42, 1, 2, 0x81, 3, 0],          // trailing byte
            &[0x84, 7, 0x42, 1, 2, 0x81, 3, 0],          // one element too many
            &[0x82, 7, 0x42, 1, 2],                      // one too few
            &[0x83, 0xf9, 0x47, 0, 0x42, 1, 2, 0x81, 3], // a float
            &[0xa1, 0, 7],                               // a map
        ];
        for bytes in refused {
            assert!(Sample::decode(bytes).is_err(), "{bytes:02x?}");
        }
        assert!(matches!(Sample::decode(&[0; 65]), Err(CodecError::TooLong { actual: 65, max: 64, .. })));
        let longest = Sample { number: 7, bytes: Bytes(vec![1; 59]), list: vec![] };
        assert_eq!(longest.encode().len(), 64);
        assert_eq!(Sample::decode(&longest.encode()).unwrap(), longest);
    }

    #[test]
    fn what_was_written_here_is_read_in_its_one_encoding() {
        let value = Sample { number: 7, bytes: Bytes(vec![1, 2]), list: vec![3] };
        assert_eq!(decode_local::<Sample>(&value.encode()), Some(value));
        assert_eq!(decode_local::<Sample>(&[0x83, 0x18, 7, 0x42, 1, 2, 0x81, 3]), None);
        assert_eq!(decode_local::<Sample>(&[0x83, 7]), None);
    }

    #[test]
    fn a_large_value_is_encoded_into_the_room_that_it_takes() {
        let value = Sample { number: 7, bytes: Bytes(vec![1; 3000]), list: vec![300; 5] };
        let bytes = encode_large(&value);
        assert_eq!((&bytes, bytes.capacity()), (&encode(&value), bytes.len()));
    }

    #[test]
    fn byte_strings_keep_their_bytes() {
        let bytes = Bytes::from(&[1, 2][..]);
        assert_eq!((bytes.as_ref(), &bytes), (&[1, 2][..], &Bytes::from(vec![1, 2])));
        let read = BytesVisitor.visit_byte_buf::<serde::de::value::Error>(vec![1, 2]);
        assert_eq!(read.unwrap(), [1, 2]);
        let hash = |array: ByteArray<2>| {
            let mut hasher = std::hash::DefaultHasher::new();
            array.hash(&mut hasher);
            hasher.finish()
        };
        assert!(ByteArray([1, 2]) == ByteArray([1, 2]) && ByteArray([1, 2]) != ByteArray([1, 3]));
        assert_eq!(hash(ByteArray([1, 2])), hash(ByteArray([1, 2])));
        assert_ne!(hash(ByteArray([1, 2])), hash(ByteArray([1, 3])));
    }

    #[test]
    fn messages_do_not_repeat_what_came() {
        let mut bytes = vec![0x83, 0x78, 40];
        bytes.extend_from_slice(&[b'x'; 40]);
        let error = Sample::decode(&bytes).unwrap_err();
        let source = std::error::Error::source(&error).unwrap();
        let said = format!("{error} {error:?} {source} {source:?}");
        assert!(said.contains("another type") && !said.contains("xxx"), "{said}");
    }

    #[test]
    fn claimed_lengths_and_depth_cost_nothing() {
        assert!(Sample::decode(&[0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(Sample::decode(&[0x83, 7, 0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(Sample::decode(&[0x81; 64]).is_err());
    }
}
