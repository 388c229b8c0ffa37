//! The device log: who may write, as an identity-signed hash chain (PROTOCOL.md section 3.1). Its structures are
//! here, the verified log is [`DeviceLog`].

mod verified;

pub use verified::{Device, DeviceLog, DeviceLogError, Entered, Revocation};

use crate::cbor::{ByteArray, Bytes, CodecError, Wire, encode};
use crate::hash::Digest;
use crate::id::{AccountId, DeviceId, Epoch, Seq, VaultId};
use crate::sign::Signature;
use crate::{limits, wire_array};

/// A device joins.
pub const KIND_ENROL: u8 = 1;
/// A device leaves; what it wrote counts up to the pins.
pub const KIND_REVOKE: u8 = 2;
/// The key header changed: passphrase or recovery key.
pub const KIND_KEYS: u8 = 3;
/// Reads and writes everything; the only class of this draft.
pub const CLASS_FULL: u8 = 1;

wire_array! {
    /// One entry of the device log; signed by the identity, apart from it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct DeviceLogEntry {
        /// Version byte.
        pub version: u8,
        /// Suite.
        pub suite: u8,
        /// Account.
        pub account: AccountId,
        /// Position, from 0.
        pub index: u64,
        /// Hash of the entry before; zero at 0.
        pub previous: Digest,
        /// [`KIND_ENROL`], [`KIND_REVOKE`] or [`KIND_KEYS`]; all others are refused in this draft.
        pub kind: u8,
        /// Counter of the key header that came with this entry.
        pub key_header_counter: u64,
        /// Its hash.
        pub key_header_hash: Digest,
        /// Encoding of the kind's own structure.
        pub body: Bytes,
    }
}

impl Wire for DeviceLogEntry {
    const NAME: &'static str = "device-log entry";
    const BYTES_MAX: usize = limits::DEVICE_LOG_ENTRY_BYTES_MAX;
    const VERSIONED: bool = true;

    fn check(&self) -> Result<(), CodecError> {
        crate::version::check_suite(Self::NAME, self.version, self.suite)?;
        if !matches!(self.kind, KIND_ENROL | KIND_REVOKE | KIND_KEYS) {
            return Err(CodecError::Rule {
                what: Self::NAME,
                rule: "its kind is not part of this draft; an update is needed",
            });
        }
        Ok(())
    }
}

wire_array! {
    /// A device's name, 64 bytes zero-padded, sealed under the keyring key.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct SealedName {
        /// Epoch of the keyring key.
        pub epoch: Epoch,
        /// Nonce.
        pub nonce: ByteArray<24>,
        /// Commitment.
        pub commitment: Digest,
        /// Ciphertext.
        pub ciphertext: ByteArray<80>,
    }
}

wire_array! {
    /// Associated data of a [`SealedName`].
    #[derive(Debug, Clone)]
    pub struct DeviceNameHeader {
        /// Version byte.
        pub version: u8,
        /// Suite.
        pub suite: u8,
        /// Account.
        pub account: AccountId,
        /// Device.
        pub device: DeviceId,
        /// Epoch of the keyring key.
        pub epoch: Epoch,
        /// Nonce.
        pub nonce: ByteArray<24>,
    }
}

wire_array! {
    /// A vault's head as somebody verified it: whoever reads this demands that the vault descends from it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Pin {
        /// Vault.
        pub vault: VaultId,
        /// Seq of the commit.
        pub seq: Seq,
        /// Its hash.
        pub head: Digest,
    }
}

wire_array! {
    /// Body of an enrolment.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Enrol {
        /// The new device.
        pub device: DeviceId,
        /// Its Ed25519 public key.
        pub sign_key: Digest,
        /// Its X-Wing public key.
        pub seal_key: ByteArray<1216>,
        /// [`CLASS_FULL`]; all others are refused in this draft.
        pub class: u8,
        /// Empty: the whole account. Anything else is refused in this draft.
        pub scope: Vec<VaultId>,
        /// Its name.
        pub name: SealedName,
        /// Heads that the enroller verified, ascending by vault; empty at index 0.
        pub pins: Vec<Pin>,
        /// The device's signature over [`Enrol::proof_input`].
        pub proof: Signature,
    }
}

impl Wire for Enrol {
    const NAME: &'static str = "enrolment";
    const BYTES_MAX: usize = limits::DEVICE_LOG_ENTRY_BYTES_MAX;

    fn check(&self) -> Result<(), CodecError> {
        if self.class != CLASS_FULL || !self.scope.is_empty() {
            return Err(CodecError::Rule {
                what: Self::NAME,
                rule: "only devices of class full and of the whole account are part of this draft",
            });
        }
        check_pins(Self::NAME, &self.pins)
    }
}

fn check_pins(what: &'static str, pins: &[Pin]) -> Result<(), CodecError> {
    if pins.len() > limits::VAULTS_MAX || !pins.is_sorted_by(|left, right| left.vault < right.vault) {
        return Err(CodecError::Rule { what, rule: "pins ascend by vault, each vault once" });
    }
    Ok(())
}

wire_array! {
    /// Body of a revocation.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Revoke {
        /// The device that leaves.
        pub device: DeviceId,
        /// Head of every vault, ascending by vault: nothing that the device wrote after it counts, and in a
        /// vault that is not named nothing at all.
        pub pins: Vec<Pin>,
    }
}

impl Wire for Revoke {
    const NAME: &'static str = "revocation";
    const BYTES_MAX: usize = limits::DEVICE_LOG_ENTRY_BYTES_MAX;

    fn check(&self) -> Result<(), CodecError> {
        check_pins(Self::NAME, &self.pins)
    }
}

wire_array! {
    /// Body of an entry that changes the key header only.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct KeysChanged {
        /// Always empty.
        pub reserved: Vec<u8>,
    }
}

impl Wire for KeysChanged {
    const NAME: &'static str = "change of keys";
    const BYTES_MAX: usize = 8;

    fn check(&self) -> Result<(), CodecError> {
        if self.reserved.is_empty() {
            Ok(())
        } else {
            Err(CodecError::Rule { what: Self::NAME, rule: "its body is empty" })
        }
    }
}

impl Enrol {
    /// What the proof of possession covers.
    pub fn proof_input(&self, account: AccountId, index: u64, previous: Digest) -> Vec<u8> {
        let claims =
            (self.device, self.sign_key, self.seal_key, self.class, &self.scope, &self.name, &self.pins);
        encode(&(account, index, previous, claims))
    }
}
