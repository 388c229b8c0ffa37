//! Identifiers and counters, each its own type. Text form: PROTOCOL.md section 1.1.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A text that is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier: expected 32 hexadecimal digits, grouped like a UUID")]
pub struct ParseIdError;

macro_rules! id_type {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Sixteen zero bytes: the place of "none" in a few structures.
            pub const ZERO: Self = Self([0; 16]);

            /// Wraps 16 bytes, as they are.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// Reads 16 bytes from a slice of exactly that length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&uuid::Uuid::from_bytes(self.0), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let parsed = uuid::Uuid::try_parse(text).map_err(|_| ParseIdError)?;
                let id = Self(parsed.into_bytes());
                // One text form only: what would print differently is refused.
                if id.to_string() == text { Ok(id) } else { Err(ParseIdError) }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::cbor::fixed_bytes(deserializer).map(Self)
            }
        }
    };
}

id_type!(
    /// An account: digest of its identity public key (PROTOCOL.md section 2.1).
    AccountId
);
id_type!(
    /// One enrolled device of an account; random.
    DeviceId
);
id_type!(
    /// A vault; derived for the keyring and the default vault, otherwise random.
    VaultId
);
id_type!(
    /// A record: keyed hash of its type and name under a secret of the vault.
    RecordId
);
id_type!(
    /// An object in a vault's blob storage; random.
    BlobId
);
id_type!(
    /// One local operation, random; makes retries idempotent.
    OperationId
);
id_type!(
    /// A backed-up root folder on one device; random, known to clients only.
    SourceId
);
id_type!(
    /// A session's public name; random, and says nothing about its token.
    SessionId
);

macro_rules! counter_type {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a number.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The number.
            pub const fn value(self) -> u64 {
                self.0
            }

            /// The next number; saturates, and every use compares for equality, so that a saturated
            /// counter is refused rather than reused.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter_type!(
    /// Position of a commit in its vault's chain, from 0 without gaps.
    Seq
);
counter_type!(
    /// Version of one record, from 1.
    Revision
);
counter_type!(
    /// Key epoch of a vault or of the keyring, from 1.
    Epoch
);

impl Seq {
    /// The seq whose header hash a commit at `self` carries as its skip link:
    /// `seq - (seq & -seq)`.
    #[must_use]
    pub const fn skip_target(self) -> Self {
        Self(self.0 & self.0.wrapping_sub(1))
    }

    /// The seq before, or none at genesis.
    pub const fn previous(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_unique() {
        let id = VaultId::from_bytes([0xab; 16]);
        let text = id.to_string();
        assert_eq!(text, "abababab-abab-abab-abab-abababababab");
        assert_eq!(text.parse::<VaultId>(), Ok(id));
        assert!(text.to_uppercase().parse::<VaultId>().is_err());
        assert!(text.replace('-', "").parse::<VaultId>().is_err());
    }

    #[test]
    fn skip_targets() {
        for (seq, target) in [(1, 0), (2, 0), (3, 2), (4, 0), (6, 4), (12, 8), (13, 12)] {
            assert_eq!(Seq::new(seq).skip_target(), Seq::new(target));
        }
        assert_eq!((Seq::new(0).previous(), Seq::new(7).previous()), (None, Some(Seq::new(6))));
    }
}
