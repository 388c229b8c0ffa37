//! The keys of the keyring vault, by epoch.

use super::{keyring_header, name_header, seal_context};
use crate::device::{self, DeviceKeys};
use crate::error::OpenError;
use crate::secret::SecretKey;
use crate::{kdf, seal};
use lockstep_proto::device_log::Device;
use lockstep_proto::id::{AccountId, Epoch};
use lockstep_proto::key_header::{KeyHeader, VerifiedKeyHeader};
use lockstep_proto::label;
use std::collections::BTreeMap;

/// Keys of the keyring vault by epoch. A full device holds them as long as it runs.
#[derive(Debug)]
pub struct KeyringKeys {
    pub(super) account: AccountId,
    pub(super) keys: BTreeMap<Epoch, SecretKey>,
}

impl KeyringKeys {
    /// A second owner of the same keys.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let keys = self.keys.iter().map(|(epoch, key)| (*epoch, key.duplicate())).collect();
        Self { account: self.account, keys }
    }

    /// Current epoch.
    pub fn epoch(&self) -> Epoch {
        self.keys.last_key_value().map_or(Epoch::new(0), |(epoch, _)| *epoch)
    }

    /// Key of an epoch.
    pub fn key(&self, epoch: Epoch) -> Option<&SecretKey> {
        self.keys.get(&epoch)
    }

    /// All keys, ascending.
    pub fn keys(&self) -> impl Iterator<Item = (Epoch, &SecretKey)> {
        self.keys.iter().map(|(epoch, key)| (*epoch, key))
    }

    /// The keyring's vault secret; survives epochs, because epoch 1 stays readable.
    pub fn vault_secret(&self) -> SecretKey {
        let none = SecretKey::from_bytes(&[0; 32]);
        let first = self.keys.get(&Epoch::new(1)).unwrap_or(&none);
        kdf::derive_key(first, label::KEYRING_SECRET, &[self.account])
    }

    /// Opens the keyring as an enrolled device.
    ///
    /// # Errors
    /// [`OpenError`]: the header has no seal for this device, or it does not open.
    pub fn open_as_device(header: &VerifiedKeyHeader, device: &DeviceKeys) -> Result<Self, OpenError> {
        let keyring = &header.header().keyring;
        let own = keyring.seals.iter().find(|seal| seal.device == device.id()).ok_or(OpenError)?;
        let context = seal_context(header.identity(), header.header().account, keyring.epoch);
        let current = device.open_seal(&context, own)?;
        Self::open_links(header.header(), current)
    }

    pub(super) fn open_links(header: &KeyHeader, current: SecretKey) -> Result<Self, OpenError> {
        let mut keys = BTreeMap::new();
        let mut next = current.duplicate();
        keys.insert(header.keyring.epoch, current);
        for link in header.keyring.links.iter().rev() {
            let associated = keyring_header(header.account, link.epoch, link.nonce);
            let opened = seal::open(
                &next,
                label::KEYRING_LINK,
                &associated,
                &link.nonce.0,
                &link.commitment,
                &link.ciphertext.0,
            )?;
            let key = SecretKey::from_slice(&opened).ok_or(OpenError)?;
            next = key.duplicate();
            keys.insert(link.epoch, key);
        }
        Ok(Self { account: header.account, keys })
    }

    /// Opens a device's name.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_name(&self, device: &Device) -> Result<String, OpenError> {
        let key = self.keys.get(&device.name.epoch).ok_or(OpenError)?;
        let header = name_header(self.account, device.id, device.name.epoch, device.name.nonce);
        let name = &device.name;
        let padded = seal::open(
            &device::name_key(key),
            label::DEVICE_NAME,
            &header,
            &name.nonce.0,
            &name.commitment,
            &name.ciphertext.0,
        )?;
        let text = std::str::from_utf8(&padded).map_err(|_| OpenError)?;
        Ok(text.trim_end_matches('\0').to_owned())
    }
}
