//! Key epochs: after a device was revoked every vault goes on under a key that the device never had.

use super::{HeldKey, record};
use crate::account::{Account, keyring_setup};
use crate::error::{ClientError, Result};
use crate::late;
use crate::vault::Vault;
use crate::{account, rng};
use lockstep_client_crypto::account::KeyringKeys;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_engine::engine::NextKey;
use lockstep_engine::keyring::{VAULT_KEY_TYPE, VaultKeyDoc, vault_key_name};
use lockstep_engine::replica::{Policy, Replica as _};
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::{ByteArray, Wire as _};
use lockstep_proto::chain::Tip;
use lockstep_proto::commit::KIND_ROTATE;
use lockstep_proto::id::{Epoch, VaultId};
use lockstep_proto::key_header::VerifiedKeyHeader;
use lockstep_proto::limits;
use std::sync::Arc;

/// Keys, device log and head may each move on while a sync runs; more often than this nobody's luck is so bad.
const ROUNDS_MAX: usize = 16;
/// Epochs after the present one that are looked at for one that is free.
const NEAR_EPOCHS: usize = 256;

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
        // The keyring's engine may have fetched the log by itself: then it has not grown, and the keys are behind it.
        if log.next_index() > known.next_index() || self.names.epoch() != log.keyring_epoch() {
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
            self.take_new_keys(vault).await?;
        }
        Err(unsettled())
    }

    /// Pulls a vault; keys that came meanwhile are taken over on the way.
    ///
    /// # Errors
    /// The pull's.
    pub(crate) async fn pull_vault(&mut self, vault: &mut Vault) -> Result<()> {
        for _ in 0..ROUNDS_MAX {
            match vault.pull().await {
                Err(ClientError::KeysBehind(_)) => self.take_new_keys(vault).await?,
                other => return other.map(|_| ()),
            }
        }
        Err(unsettled())
    }

    /// Opens a vault again with the keys that the keyring has by now. A key is in the keyring before any commit is
    /// under it: one that is still not there does not exist, and its commits are taken unread, so that whoever wrote
    /// them can be revoked.
    async fn take_new_keys(&mut self, vault: &mut Vault) -> Result<()> {
        let seen = vault.replica.head()?.map(|head| head.tip);
        Box::pin(self.sync_keyring()).await?;
        self.reopen(vault)?;
        let Some(tip) = seen.filter(|tip| !vault.setup.keys.has_epoch(tip.epoch)) else { return Ok(()) };
        let log = self.keyring.device_log();
        let last = log.next_index().saturating_sub(1);
        if vault.setup.unreadable == Some(tip.epoch) && !tip.needs_rotation(&**log, last) {
            return Err(keyless(vault, &tip)?);
        }
        vault.take_unreadable(tip.epoch);
        Ok(())
    }

    /// Sends what is pending in a vault that was synced before; if a device was revoked meanwhile, under a key that
    /// it never had.
    ///
    /// # Errors
    /// As [`Self::sync_vault`]; pending writes are kept.
    pub async fn send(&mut self, vault: &mut Vault) -> Result<()> {
        match vault.send().await {
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
        let unreadable = vault.setup.unreadable;
        *vault = self.open_held(vault.setup.vault())?;
        if let Some(epoch) = unreadable {
            vault.take_unreadable(epoch);
        }
        Ok(())
    }

    /// If a device was revoked since the vault's key was made: sees to it that the keyring has a key for the next
    /// epoch that the device never had. Who loses a race adopts the winner's.
    pub(crate) async fn prepare_rotation(&mut self, vault: &mut Vault) -> Result<()> {
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

    /// A key after `current` that was made for the keyring's epoch of now, and written under it: whoever was revoked
    /// before that can not have read it, nor an earlier envelope of it.
    pub(super) fn next_key(&self, vault: VaultId, current: Epoch) -> Result<Option<NextKey>> {
        let fresh_for = self.keyring.device_log().keyring_epoch();
        let fresh = |key: &HeldKey| {
            is_next(current, key.doc.epoch) && (key.doc.made_in, key.sealed_in) == (fresh_for, fresh_for)
        };
        let key = self.held_keys(vault)?.into_iter().find(fresh);
        Ok(key.map(|key| NextKey { epoch: key.doc.epoch, fresh_for }))
    }

    async fn make_key(&mut self, vault: VaultId, current: Epoch) -> Result<()> {
        let keys = self.held_keys(vault)?;
        let first = super::first_of(vault, &keys)?.doc.clone();
        let made_in = self.keyring.device_log().keyring_epoch();
        // An earlier try may wait to be sent.
        let waits = |key: &HeldKey| {
            is_next(current, key.doc.epoch) && (key.doc.made_in, key.sealed_in) == (made_in, Epoch::new(0))
        };
        if !keys.iter().any(waits) {
            let epoch = self.free_epoch(vault, current)?;
            let key = ByteArray(*SecretKey::generate(&mut rng::system()).expose());
            let name = vault_key_name(vault, epoch);
            let doc = VaultKeyDoc { epoch, key, made_in, ..first };
            self.keyring
                .put(vec![record(VAULT_KEY_TYPE, name, doc.encode(), Policy::AdoptCommitted)])
                .await?;
        }
        Box::pin(self.sync_keyring()).await
    }

    /// The next epoch of which nobody wrote a key, good or not. Somebody may have filled up the nearest ones: then any
    /// further on.
    fn free_epoch(&self, vault: VaultId, current: Epoch) -> Result<Epoch> {
        let mut epoch = current;
        for _ in 0..NEAR_EPOCHS {
            epoch = epoch.next();
            let record = self.key_record(vault, epoch);
            let replica = &self.keyring.replica;
            if replica.record(record)?.is_none() && replica.pending_of(record)?.is_empty() {
                return Ok(epoch);
            }
        }
        let further = u64::from(u32::from_be_bytes(rng::bytes()) >> 1);
        Ok(Epoch::new(epoch.next().value().saturating_add(further)))
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

/// Whether a vault can go on from one epoch to another.
fn is_next(current: Epoch, next: Epoch) -> bool {
    let step = next.value().checked_sub(current.value());
    step.is_some_and(|step| step > 0 && step <= limits::EPOCH_STEP_MAX)
}

/// Says who began an epoch whose key is not in the keyring.
fn keyless(vault: &Vault, tip: &Tip) -> Result<ClientError> {
    let mut commit = late::commit_at(&vault.replica, tip.seq)?.0;
    while commit.kind != KIND_ROTATE {
        let Some(previous) = commit.seq.previous() else { break };
        commit = late::commit_at(&vault.replica, previous)?.0;
    }
    Ok(ClientError::Damaged(format!(
        "commit {} of vault {} begins key epoch {}, whose key its author did not write to the keyring; nothing can \
         be written to the vault until device {} is revoked: lockstep device revoke {}",
        commit.seq,
        vault.setup.vault(),
        tip.epoch,
        commit.device,
        commit.device
    )))
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
