//! The key header: every wrap of the root key and of the keyring key, public part
//! (PROTOCOL.md section 2.2). What is inside the wraps only `lockstep-client-crypto` can see.

use crate::cbor::{ByteArray, CodecError, Wire};
use crate::hash::Digest;
use crate::id::{AccountId, DeviceId, Epoch};
use crate::sign::{PublicKey, Signed};
use crate::{label, limits, wire_array};

/// Wrap under the passphrase.
pub const ROLE_PASSPHRASE: u8 = 1;
/// Wrap under the recovery key.
pub const ROLE_RECOVERY: u8 = 2;

/// The closed list of Argon2id profiles; 0 stands for "no stretching" and belongs to the recovery key.
pub const PROFILES: &[(u8, u32, u32, u32)] = &[(1, 64 * 1024, 3, 1), (2, 256 * 1024, 4, 1)];

wire_array! {
    /// One wrap of the root key.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Wrap {
        /// [`ROLE_PASSPHRASE`] or [`ROLE_RECOVERY`].
        pub role: u8,
        /// Argon2id profile, 0 for the recovery key.
        pub profile: u8,
        /// 16 random bytes.
        pub salt: ByteArray<16>,
        /// Nonce.
        pub nonce: ByteArray<24>,
        /// Commitment to the key-encryption key.
        pub commitment: Digest,
        /// Sealed root key.
        pub ciphertext: ByteArray<48>,
    }
}

wire_array! {
    /// Associated data of a [`Wrap`].
    #[derive(Debug, Clone)]
    pub struct WrapHeader {
        /// Version byte.
        pub version: u8,
        /// Suite.
        pub suite: u8,
        /// Account.
        pub account: AccountId,
        /// Role.
        pub role: u8,
        /// Profile.
        pub profile: u8,
        /// Salt.
        pub salt: ByteArray<16>,
        /// Nonce.
        pub nonce: ByteArray<24>,
    }
}

wire_array! {
    /// An older keyring key, under the one of the next epoch.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Link {
        /// Epoch of the key inside.
        pub epoch: Epoch,
        /// Nonce.
        pub nonce: ByteArray<24>,
        /// Commitment.
        pub commitment: Digest,
        /// Sealed key.
        pub ciphertext: ByteArray<48>,
    }
}

wire_array! {
    /// The current keyring key, HPKE-sealed to one device.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct DeviceSeal {
        /// Recipient.
        pub device: DeviceId,
        /// X-Wing encapsulation.
        pub encapsulated: ByteArray<1120>,
        /// Sealed key.
        pub ciphertext: ByteArray<48>,
    }
}

wire_array! {
    /// The keyring: its current key under the root, older ones, and a seal for each device.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Keyring {
        /// Current epoch.
        pub epoch: Epoch,
        /// Nonce.
        pub nonce: ByteArray<24>,
        /// Commitment.
        pub commitment: Digest,
        /// Sealed key.
        pub ciphertext: ByteArray<48>,
        /// Older keys, ascending from epoch 1.
        pub links: Vec<Link>,
        /// Seals, ascending by device.
        pub seals: Vec<DeviceSeal>,
    }
}

wire_array! {
    /// Associated data of the keyring key's wrap and of its links.
    #[derive(Debug, Clone)]
    pub struct KeyringHeader {
        /// Version byte.
        pub version: u8,
        /// Suite.
        pub suite: u8,
        /// Account.
        pub account: AccountId,
        /// Epoch of the key inside.
        pub epoch: Epoch,
        /// Nonce.
        pub nonce: ByteArray<24>,
    }
}

wire_array! {
    /// The key header; signed by the identity, apart from it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct KeyHeader {
        /// Version byte.
        pub version: u8,
        /// Suite.
        pub suite: u8,
        /// Account.
        pub account: AccountId,
        /// From 1, rises by one with each change.
        pub counter: u64,
        /// Identity public key.
        pub identity: Digest,
        /// Public key of recovery sign-in.
        pub recovery: Digest,
        /// Passphrase and recovery wrap, in this order.
        pub wraps: Vec<Wrap>,
        /// The keyring.
        pub keyring: Keyring,
    }
}

impl Wire for KeyHeader {
    const NAME: &'static str = "key header";
    const BYTES_MAX: usize = limits::KEY_HEADER_BYTES_MAX;
    const VERSIONED: bool = true;

    fn check(&self) -> Result<(), CodecError> {
        crate::version::check_suite(Self::NAME, self.version, self.suite)?;
        let rule = |rule| Err(CodecError::Rule { what: Self::NAME, rule });
        let [passphrase, recovery] = self.wraps.as_slice() else {
            return rule("exactly one passphrase wrap and one recovery wrap are expected");
        };
        if passphrase.role != ROLE_PASSPHRASE || recovery.role != ROLE_RECOVERY {
            return rule("exactly one passphrase wrap and one recovery wrap are expected");
        }
        if !PROFILES.iter().any(|(profile, ..)| *profile == passphrase.profile) || recovery.profile != 0 {
            return rule("the key-derivation profile is not on the closed list");
        }
        if self.counter == 0 {
            return rule("the counter begins at 1");
        }
        self.keyring.check()
    }
}

impl Keyring {
    fn check(&self) -> Result<(), CodecError> {
        let rule = |rule| Err(CodecError::Rule { what: KeyHeader::NAME, rule });
        self.check_links()?;
        if self.seals.is_empty() || self.seals.len() > limits::DEVICES_MAX {
            return rule("there are between 1 and 64 device seals");
        }
        if !self.seals.is_sorted_by(|left, right| left.device < right.device) {
            return rule("seals ascend by device, each device once");
        }
        Ok(())
    }

    /// One link for every older epoch.
    pub(crate) fn check_links(&self) -> Result<(), CodecError> {
        let rule = |rule| Err(CodecError::Rule { what: KeyHeader::NAME, rule });
        let links = u64::try_from(self.links.len()).unwrap_or(u64::MAX);
        if self.links.len() > limits::KEYRING_LINKS_MAX || links.checked_add(1) != Some(self.epoch.value()) {
            return rule("there is one link for each older keyring epoch");
        }
        if !self.links.iter().zip(1_u64..).all(|(link, epoch)| link.epoch.value() == epoch) {
            return rule("links ascend from epoch 1");
        }
        Ok(())
    }
}

/// Why a key header is not to be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyHeaderError {
    /// Not decodable.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The signature does not verify.
    #[error(transparent)]
    Signature(#[from] crate::sign::SignatureError),
    /// The identity key is not the one that the account id certifies.
    #[error("the identity key does not belong to account {account}")]
    WrongIdentity {
        /// Account asked for.
        account: AccountId,
    },
}

/// A key header whose signature and identity were checked against an account id.
#[derive(Debug, Clone)]
pub struct VerifiedKeyHeader {
    header: KeyHeader,
    identity: PublicKey,
    hash: Digest,
}

impl VerifiedKeyHeader {
    /// Decodes and verifies: the identity hashes to `account` and signed the header.
    ///
    /// # Errors
    /// [`KeyHeaderError`]; nothing of the header may be used then.
    pub fn verify(account: AccountId, signed: &Signed) -> Result<Self, KeyHeaderError> {
        let header = KeyHeader::decode(&signed.bytes.0)?;
        let wrong = KeyHeaderError::WrongIdentity { account };
        if header.account != account || account_id(header.identity.as_bytes()) != account {
            return Err(wrong);
        }
        let Some(identity) = PublicKey::from_bytes(header.identity.as_bytes()) else {
            return Err(wrong);
        };
        if PublicKey::from_bytes(header.recovery.as_bytes()).is_none() {
            return Err(CodecError::Rule {
                what: KeyHeader::NAME,
                rule: "the recovery key is not a valid key",
            }
            .into());
        }
        signed.verify(KeyHeader::NAME, label::KEY_HEADER, &identity)?;
        Ok(Self { header, identity, hash: signed.digest(label::KEY_HEADER) })
    }

    /// The header.
    pub fn header(&self) -> &KeyHeader {
        &self.header
    }

    /// The identity's public key.
    pub fn identity(&self) -> &PublicKey {
        &self.identity
    }

    /// Hash that the device log names.
    pub fn hash(&self) -> Digest {
        self.hash
    }
}

/// The account id that an identity public key certifies.
pub fn account_id(identity: &[u8; 32]) -> AccountId {
    AccountId::from_bytes(Digest::of(label::ACCOUNT_ID, identity).truncate16())
}

#[cfg(test)]
mod tests;
