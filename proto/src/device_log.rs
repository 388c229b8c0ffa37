//! The device log: who may write, as an identity-signed hash chain (PROTOCOL.md section 3.1).

use crate::cbor::{ByteArray, Bytes, CodecError, Wire, encode};
use crate::hash::Digest;
use crate::id::{AccountId, DeviceId, Epoch, Seq, VaultId};
use crate::key_header::{KeyHeader, VerifiedKeyHeader};
use crate::sign::{PublicKey, Signature, SignatureError, Signed};
use crate::{label, limits, wire_array};
use std::collections::BTreeMap;

/// A device joins.
pub const KIND_ENROL: u8 = 1;
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
        /// [`KIND_ENROL`]; all others are refused in this draft.
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
        if self.kind != KIND_ENROL {
            return Err(CodecError::Rule {
                what: Self::NAME,
                rule: "only enrolment is part of this draft; an update is needed",
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
        if self.pins.len() > limits::VAULTS_MAX
            || !self.pins.is_sorted_by(|left, right| left.vault < right.vault)
        {
            return Err(CodecError::Rule { what: Self::NAME, rule: "pins ascend by vault, each vault once" });
        }
        Ok(())
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

/// An enrolled device.
#[derive(Debug, Clone)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// Its signing key.
    pub sign_key: PublicKey,
    /// Its X-Wing public key.
    pub seal_key: ByteArray<1216>,
    /// Log index of its enrolment.
    pub enrolled_at: u64,
    /// Its sealed name.
    pub name: SealedName,
}

/// Why a device log is not to be trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceLogError {
    /// Not decodable.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A signature does not verify.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The entry does not follow the one before.
    #[error("device-log entry {index} does not follow the entry before it")]
    Broken {
        /// Index of the entry.
        index: u64,
    },
    /// A device id or key occurs a second time.
    #[error("device-log entry {index} enrols a device or key that was enrolled before")]
    Twice {
        /// Index of the entry.
        index: u64,
    },
    /// A limit is reached.
    #[error("the account has {max} {what}, and can not have more")]
    Full {
        /// What there are too many of.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// The key header is not the one that the log names, or does not seal to exactly the live devices.
    #[error("the key header does not belong to the device log: {rule}")]
    KeyHeader {
        /// The rule that does not hold.
        rule: &'static str,
    },
}

/// A verified device log: every entry follows from the one before under one identity.
#[derive(Debug, Clone)]
pub struct DeviceLog {
    account: AccountId,
    identity: PublicKey,
    hashes: Vec<Digest>,
    key_header: (u64, Digest),
    devices: BTreeMap<DeviceId, Device>,
    pins: Vec<Pin>,
}

impl DeviceLog {
    /// An empty log of the account that `identity` certifies.
    pub fn new(identity: PublicKey) -> Self {
        Self {
            account: crate::key_header::account_id(&identity.to_bytes()),
            identity,
            hashes: Vec::new(),
            key_header: (0, Digest::ZERO),
            devices: BTreeMap::new(),
            pins: Vec::new(),
        }
    }

    /// Verifies and appends the next entry; on error the log is as before.
    ///
    /// # Errors
    /// [`DeviceLogError`] names what does not hold.
    pub fn append(&mut self, signed: &Signed) -> Result<DeviceId, DeviceLogError> {
        let entry = DeviceLogEntry::decode(&signed.bytes.0)?;
        let index = entry.index;
        if index >= limits::DEVICE_LOG_ENTRIES_MAX {
            return Err(DeviceLogError::Full {
                what: "device-log entries",
                max: limits::DEVICE_LOG_ENTRIES_MAX,
            });
        }
        if entry.account != self.account || index != self.next_index() || entry.previous != self.head() {
            return Err(DeviceLogError::Broken { index });
        }
        if Some(entry.key_header_counter) != index.checked_add(1) {
            return Err(DeviceLogError::KeyHeader { rule: "its counter is the entry's index plus one" });
        }
        signed.verify(DeviceLogEntry::NAME, label::DEVICE_LOG_ENTRY, &self.identity)?;
        let enrol = Enrol::decode(&entry.body.0)?;
        let device = self.check_enrol(&entry, &enrol)?;
        let id = device.id;
        self.devices.insert(id, device);
        self.pins.extend(enrol.pins);
        self.hashes.push(signed.digest(label::DEVICE_LOG_ENTRY));
        self.key_header = (entry.key_header_counter, entry.key_header_hash);
        Ok(id)
    }

    fn check_enrol(&self, entry: &DeviceLogEntry, enrol: &Enrol) -> Result<Device, DeviceLogError> {
        let twice = DeviceLogError::Twice { index: entry.index };
        let keyring = crate::vault_log::keyring_vault_id(&self.identity.to_bytes());
        let pins_keyring = enrol.pins.iter().any(|pin| pin.vault == keyring);
        if (entry.index == 0) != enrol.pins.is_empty() || (entry.index > 0 && !pins_keyring) {
            let rule = "the first enrolment has no pins, every later one pins the keyring vault";
            return Err(CodecError::Rule { what: Enrol::NAME, rule }.into());
        }
        if self.devices.len() >= limits::DEVICES_MAX {
            let max = u64::try_from(limits::DEVICES_MAX).unwrap_or(u64::MAX);
            return Err(DeviceLogError::Full { what: "devices", max });
        }
        let key = PublicKey::from_bytes(enrol.sign_key.as_bytes())
            .ok_or(CodecError::Rule { what: Enrol::NAME, rule: "the signing key is not a valid key" })?;
        if enrol.device == DeviceId::ZERO
            || self.devices.contains_key(&enrol.device)
            || self.devices.values().any(|device| device.sign_key == key || device.seal_key == enrol.seal_key)
        {
            return Err(twice);
        }
        let input = enrol.proof_input(self.account, entry.index, entry.previous);
        key.verify("proof of possession", label::DEVICE_PROOF, &input, &enrol.proof)?;
        Ok(Device {
            id: enrol.device,
            sign_key: key,
            seal_key: enrol.seal_key,
            enrolled_at: entry.index,
            name: enrol.name.clone(),
        })
    }

    /// Checks that a key header is the one that the last entry names, and seals the keyring to exactly
    /// the live devices.
    ///
    /// # Errors
    /// [`DeviceLogError::KeyHeader`].
    pub fn check_key_header(&self, verified: &VerifiedKeyHeader) -> Result<(), DeviceLogError> {
        let header: &KeyHeader = verified.header();
        if (header.counter, verified.hash()) != self.key_header {
            return Err(DeviceLogError::KeyHeader { rule: "the last entry names another one" });
        }
        if !header.keyring.seals.iter().map(|seal| &seal.device).eq(self.devices.keys()) {
            return Err(DeviceLogError::KeyHeader {
                rule: "it does not seal to exactly the enrolled devices",
            });
        }
        Ok(())
    }

    /// Account.
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// Identity key.
    pub fn identity(&self) -> &PublicKey {
        &self.identity
    }

    /// Index that the next entry will have.
    pub fn next_index(&self) -> u64 {
        u64::try_from(self.hashes.len()).unwrap_or(u64::MAX)
    }

    /// Hash of the last entry; zero if there is none.
    pub fn head(&self) -> Digest {
        self.hashes.last().copied().unwrap_or(Digest::ZERO)
    }

    /// Hash of the entry at an index.
    pub fn hash_at(&self, index: u64) -> Option<Digest> {
        self.hashes.get(usize::try_from(index).ok()?).copied()
    }

    /// Counter and hash of the current key header.
    pub fn key_header(&self) -> (u64, Digest) {
        self.key_header
    }

    /// Every pin of the log: each vault descends from all of its own.
    pub fn pins(&self) -> &[Pin] {
        &self.pins
    }

    /// A device.
    pub fn device(&self, id: DeviceId) -> Option<&Device> {
        self.devices.get(&id)
    }

    /// All devices, ascending by id.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }
}
