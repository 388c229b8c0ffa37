//! Key epochs: after a device was revoked every vault goes on under a key that the device never had.

use super::{HeldKey, record};
use crate::account::{Account, keyring_setup};
use crate::error::{ClientError, Result};
use crate::late;
use crate::vault::Vault;
use crate::{account, rng};
use lockstep_client_crypto::account::KeyringKeys;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_engine::keyring::{VAULT_KEY_TYPE, VaultKeyDoc, vault_key_name};
use lockstep_engine::replica::{Policy, Replica as _};
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::{ByteArray, Wire as _};
use lockstep_proto::id::{Epoch, VaultId};
use lockstep_proto::key_header::VerifiedKeyHeader;
use std::sync::Arc;

/// Keys, device log and head may each move on while a sync runs; more often than this nobody's luck is so bad.
const ROUNDS_MAX: usize = 16;

impl Account {
    /// Brings the device log up to date; with it comes the key header, and the keyring's newest key.
    ///
    /// # Errors
    /// [`ClientError::Rollback`], [`ClientError::Fork`], [`ClientError::Revoked`] and the server's.
    pub async fn refresh_devices(&mut self) -> Result<()> {
        if !self.writes() {
            return Ok(());
        }
        let known = Arc::clone(self.keyring.device_log());
        let (log, _) = account::refresh_log(&self.api, &self.db, &known).await?;
        if log.next_index() > known.next_index() {
            self.reload_keys()?;
        }
        Ok(())
    }

    /// Takes over device log and key header as they are stored now.
    fn reload_keys(&mut self) -> Result<()> {
        let id = self.id();
        let (header, log) = account::stored_log(&self.db, id)?;
        if log.live().all(|device| device.id != self.device.id()) {
            return Err(ClientError::Revoked);
        }
        self.names = open_keyring(&header, &self.device)?;
        let replica = self.keyring.replica.clone();
        let create = replica.create_entry()?;
        let setup = keyring_setup(id, header.identity(), &self.names, &self.device, create);
        self.keyring = Vault::new(setup, Arc::new(log), replica, Arc::clone(&self.api));
        Ok(())
    }

    /// Pulls the keyring; keys that came meanwhile are taken over on the way.
    pub(crate) async fn pull_keyring(&mut self) -> Result<()> {
        for _ in 0..ROUNDS_MAX {
            match self.keyring.pull().await {
                Err(ClientError::KeysBehind(_)) => self.catch_up().await?,
                other => return other.map(|_| ()),
            }
        }
        Err(unsettled())
    }

    /// Pushes what is pending in a keyring that was pulled, under a new epoch if a device was revoked.
    ///
    /// # Errors
    /// The sync's.
    pub async fn push_keyring(&mut self) -> Result<()> {
        for _ in 0..ROUNDS_MAX {
            match self.keyring.sync().await {
                Err(ClientError::KeysBehind(_)) => self.catch_up().await?,
                Err(error) if error.code() == Some(Code::LogMoved) => self.catch_up().await?,
                other => return other.map(|_| ()),
            }
        }
        Err(unsettled())
    }

    async fn catch_up(&mut self) -> Result<()> {
        self.refresh_devices().await?;
        self.reload_keys()
    }

    /// Pulls a vault, checks it against every pin, and only then pushes to it; after a revocation under a new key.
    ///
    /// # Errors
    /// [`ClientError::Rollback`], [`ClientError::Fork`] and the sync's.
    pub async fn sync_vault(&mut self, vault: &mut Vault) -> Result<()> {
        for _ in 0..ROUNDS_MAX {
            match self.sync_vault_once(vault).await {
                Err(ClientError::KeysBehind(_)) => {}
                Err(error) if error.code() == Some(Code::LogMoved) => {}
                other => return other,
            }
            Box::pin(self.sync_keyring()).await?;
            self.reopen(vault)?;
        }
        Err(unsettled())
    }

    /// Sends what is pending in a vault that was synced before; if a device was revoked meanwhile, under a key that
    /// it never had.
    ///
    /// # Errors
    /// As [`Self::sync_vault`]; pending writes are kept.
    pub async fn send(&mut self, vault: &mut Vault) -> Result<()> {
        match vault.sync().await {
            Err(ClientError::KeysBehind(_)) => self.sync_vault(vault).await,
            other => other.map(|_| ()),
        }
    }

    async fn sync_vault_once(&mut self, vault: &mut Vault) -> Result<()> {
        vault.pull().await?;
        self.check_pins_of(vault, true)?;
        self.check_late(vault)?;
        self.prepare_rotation(vault).await?;
        vault.sync().await?;
        Ok(())
    }

    /// Opens a vault again with the keys that the keyring has now.
    fn reopen(&self, vault: &mut Vault) -> Result<()> {
        *vault = self.open_held(vault.setup.vault())?;
        Ok(())
    }

    /// If a device was revoked since the vault's key was made: sees to it that the keyring has a key for the next
    /// epoch that the device never had. Who loses a race adopts the winner's.
    async fn prepare_rotation(&mut self, vault: &mut Vault) -> Result<()> {
        let Some(head) = vault.replica.head()? else { return Ok(()) };
        let log = Arc::clone(self.keyring.device_log());
        let last = log.next_index().saturating_sub(1);
        if !head.tip.needs_rotation(&*log, last) {
            return Ok(());
        }
        let id = vault.setup.vault();
        if self.next_key(id, head.tip.epoch)?.is_none() {
            self.make_key(id, head.tip.epoch).await?;
        }
        self.reopen(vault)
    }

    /// An epoch after `current` whose key was written to the keyring under the keyring's own newest key: whoever was
    /// revoked before that can not have read it.
    pub(super) fn next_key(&self, vault: VaultId, current: Epoch) -> Result<Option<Epoch>> {
        let newest = self.names.epoch();
        let fresh = |key: &HeldKey| key.doc.epoch > current && key.sealed_in == newest;
        Ok(self.held_keys(vault)?.into_iter().find(fresh).map(|key| key.doc.epoch))
    }

    async fn make_key(&mut self, vault: VaultId, current: Epoch) -> Result<()> {
        let keys = self.held_keys(vault)?;
        let newest = keys.iter().map(|key| key.doc.epoch).max().unwrap_or(current).max(current);
        let first = keys.into_iter().find(|key| key.doc.epoch == Epoch::new(1));
        let first = first.ok_or_else(|| super::changed_key(vault))?.doc;
        let mut generator = rng::system();
        let doc = VaultKeyDoc {
            epoch: newest.next(),
            key: ByteArray(*SecretKey::generate(&mut generator).expose()),
            ..first
        };
        let name = vault_key_name(vault, doc.epoch);
        self.keyring.put(vec![record(VAULT_KEY_TYPE, name, doc.encode(), Policy::AdoptCommitted)]).await?;
        Box::pin(self.sync_keyring()).await
    }

    /// What a revoked device wrote beyond its pins, and this device took before it knew of the revocation.
    ///
    /// # Errors
    /// [`ClientError::Fault`] names it.
    pub(crate) fn check_late(&self, vault: &Vault) -> Result<()> {
        match late::first_late(vault, self.keyring.device_log(), &self.db, self.writes())? {
            None => Ok(()),
            Some((seq, device)) => Err(ClientError::Fault(format!(
                "commit {seq} of vault {} is by device {device}, which was revoked before it",
                vault.setup.vault()
            ))),
        }
    }
}

/// Opens the keyring's keys with this device's own.
pub(crate) fn open_keyring(
    header: &VerifiedKeyHeader,
    device: &lockstep_client_crypto::device::DeviceKeys,
) -> Result<KeyringKeys> {
    KeyringKeys::open_as_device(header, device).map_err(|_| {
        ClientError::Damaged("the home is damaged: the keyring does not open with this device's key".into())
    })
}

fn unsettled() -> ClientError {
    ClientError::Server("keys and device log do not come to rest".into())
}
