//! A device log that was verified entry by entry.

use super::{DeviceLogEntry, Enrol, KIND_ENROL, KIND_REVOKE, KeysChanged, Pin, Revoke, SealedName};
use crate::cbor::{ByteArray, CodecError, Wire};
use crate::hash::Digest;
use crate::id::{AccountId, DeviceId, Epoch, Seq, VaultId};
use crate::key_header::{KeyHeader, VerifiedKeyHeader};
use crate::sign::{PublicKey, SignatureError, Signed};
use crate::{label, limits};
use std::collections::BTreeMap;

/// A device of the log, live or revoked.
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
    /// Its end, if it was revoked.
    pub revoked: Option<Revocation>,
}

/// The end of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Log index of the entry.
    pub index: u64,
    /// What it wrote counts up to these, ascending by vault.
    pub pins: Vec<Pin>,
}

impl Revocation {
    /// What it pinned of a vault.
    pub fn pin(&self, vault: VaultId) -> Option<&Pin> {
        self.pins.iter().find(|pin| pin.vault == vault)
    }

    /// The last commit of a vault that may be the device's; none: none may.
    pub fn last(&self, vault: VaultId) -> Option<Seq> {
        self.pin(vault).map(|pin| pin.seq)
    }
}

/// What an entry that was appended did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entered {
    /// A device joined.
    Enrolled(DeviceId),
    /// A device left.
    Revoked(DeviceId),
    /// Passphrase or recovery key changed.
    Keys,
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
    /// The revoked device is unknown, was revoked before, or is the only one.
    #[error("device-log entry {index} revokes a device that is not enrolled, or the only one")]
    NotLive {
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
    /// Length of the entries and their signatures.
    bytes: usize,
    key_header: (u64, Digest),
    devices: BTreeMap<DeviceId, Device>,
    pins: Vec<Pin>,
    revocations: Vec<u64>,
}

impl DeviceLog {
    /// An empty log of the account that `identity` certifies.
    pub fn new(identity: PublicKey) -> Self {
        Self {
            account: crate::key_header::account_id(&identity.to_bytes()),
            identity,
            hashes: Vec::new(),
            bytes: 0,
            key_header: (0, Digest::ZERO),
            devices: BTreeMap::new(),
            pins: Vec::new(),
            revocations: Vec::new(),
        }
    }

    /// Verifies and appends the next entry; on error the log is as before.
    ///
    /// # Errors
    /// [`DeviceLogError`] names what does not hold.
    pub fn append(&mut self, signed: &Signed) -> Result<Entered, DeviceLogError> {
        let entry = DeviceLogEntry::decode(&signed.bytes.0)?;
        let index = entry.index;
        if index >= limits::DEVICE_LOG_ENTRIES_MAX {
            return Err(DeviceLogError::Full {
                what: "device-log entries",
                max: limits::DEVICE_LOG_ENTRIES_MAX,
            });
        }
        let bytes = self.bytes.saturating_add(signed.bytes.0.len()).saturating_add(signed.signature.0.len());
        let max = match entry.kind {
            KIND_REVOKE => limits::DEVICE_LOG_WITH_REVOCATIONS_BYTES_MAX,
            _ => limits::DEVICE_LOG_BYTES_MAX,
        };
        if bytes > max {
            let max = u64::try_from(max).unwrap_or(u64::MAX);
            return Err(DeviceLogError::Full { what: "bytes of device-log entries", max });
        }
        if entry.account != self.account || index != self.next_index() || entry.previous != self.head() {
            return Err(DeviceLogError::Broken { index });
        }
        if Some(entry.key_header_counter) != index.checked_add(1) {
            return Err(DeviceLogError::KeyHeader { rule: "its counter is the entry's index plus one" });
        }
        signed.verify(DeviceLogEntry::NAME, label::DEVICE_LOG_ENTRY, &self.identity)?;
        let entered = match entry.kind {
            KIND_ENROL => self.enrol(&entry)?,
            _ if index == 0 => return Err(rule("the first entry is an enrolment")),
            KIND_REVOKE => self.revoke(&entry)?,
            _ => {
                KeysChanged::decode(&entry.body.0)?;
                Entered::Keys
            }
        };
        self.hashes.push(signed.digest(label::DEVICE_LOG_ENTRY));
        self.bytes = bytes;
        self.key_header = (entry.key_header_counter, entry.key_header_hash);
        Ok(entered)
    }

    fn enrol(&mut self, entry: &DeviceLogEntry) -> Result<Entered, DeviceLogError> {
        let enrol = Enrol::decode(&entry.body.0)?;
        let twice = DeviceLogError::Twice { index: entry.index };
        if (entry.index == 0) != enrol.pins.is_empty() || (entry.index > 0 && !self.pins_keyring(&enrol.pins))
        {
            return Err(rule("the first enrolment has no pins, every later one pins the keyring vault"));
        }
        if self.live().count() >= limits::DEVICES_MAX {
            let max = u64::try_from(limits::DEVICES_MAX).unwrap_or(u64::MAX);
            return Err(DeviceLogError::Full { what: "devices", max });
        }
        let key = PublicKey::from_bytes(enrol.sign_key.as_bytes())
            .ok_or_else(|| rule("the signing key is not a valid key"))?;
        if enrol.device == DeviceId::ZERO
            || self.devices.contains_key(&enrol.device)
            || self.devices.values().any(|device| device.sign_key == key || device.seal_key == enrol.seal_key)
        {
            return Err(twice);
        }
        let input = enrol.proof_input(self.account, entry.index, entry.previous);
        key.verify("proof of possession", label::DEVICE_PROOF, &input, &enrol.proof)?;
        let id = enrol.device;
        let device = Device {
            id,
            sign_key: key,
            seal_key: enrol.seal_key,
            enrolled_at: entry.index,
            name: enrol.name,
            revoked: None,
        };
        self.devices.insert(id, device);
        self.pins.extend(enrol.pins);
        Ok(Entered::Enrolled(id))
    }

    fn revoke(&mut self, entry: &DeviceLogEntry) -> Result<Entered, DeviceLogError> {
        let Revoke { device: id, pins } = Revoke::decode(&entry.body.0)?;
        if !self.pins_keyring(&pins) {
            return Err(rule("a revocation pins the keyring vault"));
        }
        let is_only = self.live().count() < 2;
        let index = entry.index;
        let live = self.devices.get_mut(&id).filter(|device| device.revoked.is_none() && !is_only);
        let device = live.ok_or(DeviceLogError::NotLive { index })?;
        device.revoked = Some(Revocation { index, pins: pins.clone() });
        self.pins.extend(pins);
        self.revocations.push(index);
        Ok(Entered::Revoked(id))
    }

    fn pins_keyring(&self, pins: &[Pin]) -> bool {
        let keyring = crate::vault_log::keyring_vault_id(&self.identity.to_bytes());
        pins.iter().any(|pin| pin.vault == keyring)
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
        let live = self.live().map(|device| device.id);
        if !header.keyring.seals.iter().map(|seal| seal.device).eq(live) {
            return Err(DeviceLogError::KeyHeader {
                rule: "it does not seal to exactly the enrolled devices",
            });
        }
        if header.keyring.epoch != self.keyring_epoch() {
            return Err(DeviceLogError::KeyHeader {
                rule: "its keyring has one epoch more than there are revocations",
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

    /// The last revocation at or before an entry: whoever has seen it writes under keys made after it.
    pub fn last_revocation(&self, index: u64) -> Option<u64> {
        self.revocations.iter().rev().copied().find(|revoked| *revoked <= index)
    }

    /// The keyring's epoch as of an entry: one more than there are revocations at or before it.
    pub fn keyring_epoch_at(&self, index: u64) -> Epoch {
        let revocations = self.revocations.iter().filter(|revoked| **revoked <= index).count();
        Epoch::new(u64::try_from(revocations).unwrap_or(u64::MAX)).next()
    }

    /// The keyring's epoch as of the last entry.
    pub fn keyring_epoch(&self) -> Epoch {
        self.keyring_epoch_at(self.next_index())
    }

    /// A device, live or revoked.
    pub fn device(&self, id: DeviceId) -> Option<&Device> {
        self.devices.get(&id)
    }

    /// All devices, revoked ones too, ascending by id.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// Devices that may write, ascending by id.
    pub fn live(&self) -> impl Iterator<Item = &Device> {
        self.devices.values().filter(|device| device.revoked.is_none())
    }
}

fn rule(rule: &'static str) -> DeviceLogError {
    CodecError::Rule { what: DeviceLogEntry::NAME, rule }.into()
}

#[cfg(test)]
mod tests;
