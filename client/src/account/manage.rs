//! What an owner changes with the passphrase at hand: passphrase, recovery key, devices, the account itself. Each
//! request is one transaction of the server; whether a lost answer meant success is told by the device log.

use super::{Account, fetch_devices};
use crate::error::{ClientError, Result};
use crate::kit;
use crate::rng;
use lockstep_client_crypto::account::{Credential, CredentialChange, UnlockedAccount};
use lockstep_client_crypto::opaque::Registration;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_engine::keyring::{DEVICE_NAME_TYPE, DeviceNameDoc};
use lockstep_engine::replica::{Policy, Replica as _};
use lockstep_proto::Signed;
use lockstep_proto::api::account::OpaqueStart;
use lockstep_proto::api::account::{ChangeCredentials, DeleteAccount, DeleteVault, EnrolDevice, NewRecord};
use lockstep_proto::api::auth::{
    ACTION_CREDENTIALS, ACTION_DELETE_ACCOUNT, ACTION_DELETE_VAULT, ACTION_REVOKE, Authorised, OpaqueStarted,
};
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::vault::Vaults;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::device_log::{DeviceLog, Pin};
use lockstep_proto::id::DeviceId;
use lockstep_proto::key_header::VerifiedKeyHeader;
use lockstep_proto::label;
use lockstep_proto::recovery::Checkpoint;
use lockstep_proto::vault_log::files_vault_id;
use lockstep_proto::version::VERSION;
use std::sync::Arc;

/// Other devices may write while heads are being pinned; each try pins what is there then.
const REVOKE_TRIES: usize = 16;

/// Public part of a recovery key whose kit was delivered and that is not known to count yet.
const RECOVERY_BEGUN: &str = "recovery-begun";
/// Set before the account's deletion is asked for.
const DELETING: &str = "deleting";

/// Whose a kit is that stands where a new one is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KitState {
    /// An earlier try delivered it and was cut off; its key never counted.
    Begun,
    /// An earlier try delivered it, and its key counts.
    Counts,
    /// Any other.
    Other,
}

/// An account with its root at hand: what its owner can do with the passphrase.
pub struct Owner<'a> {
    account: &'a mut Account,
    unlocked: UnlockedAccount,
    header: VerifiedKeyHeader,
    log: Arc<DeviceLog>,
}

impl Account {
    /// Unlocks the account with its passphrase, after everything that is held was checked against the server.
    ///
    /// # Errors
    /// [`ClientError::WrongPassphrase`], and what a sync ends with.
    pub async fn unlock(&mut self, passphrase: &Passphrase) -> Result<Owner<'_>> {
        self.sync_keyring().await?;
        self.unlock_held(passphrase)
    }

    /// The same over what is held, without asking the server: for healing one that is behind.
    ///
    /// # Errors
    /// [`ClientError::WrongPassphrase`].
    pub fn unlock_held(&mut self, passphrase: &Passphrase) -> Result<Owner<'_>> {
        let (header, log) = super::stored_log(&self.db, self.id())?;
        let unlocked = UnlockedAccount::unlock(&header, Credential::Passphrase(passphrase))
            .map_err(|_| ClientError::WrongPassphrase)?;
        Ok(Owner { account: self, unlocked, header, log: Arc::new(log) })
    }

    /// Gives a device another name, for the eyes of the account's devices only.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::Usage`] and the sync's.
    pub async fn rename_device(&mut self, device: DeviceId, name: &str) -> Result<()> {
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            return Err(ClientError::Usage("a device's name has 1 to 64 bytes, none of them control".into()));
        }
        self.sync_keyring().await?;
        if self.keyring.device_log().device(device).is_none() {
            return Err(unknown_device());
        }
        let doc = DeviceNameDoc { device, name: name.to_owned() };
        let place = device.as_bytes().to_vec();
        let record = crate::keyring::record(DEVICE_NAME_TYPE, place, doc.encode(), Policy::Overwrite);
        self.keyring.put(vec![record]).await?;
        self.push_keyring().await
    }
}

pub(crate) fn unknown_device() -> ClientError {
    ClientError::NotFound("there is no such device; see: lockstep device list".into())
}

impl Owner<'_> {
    /// The account.
    pub fn account(&mut self) -> &mut Account {
        self.account
    }

    /// The account, unlocked.
    pub fn unlocked(&self) -> &UnlockedAccount {
        &self.unlocked
    }

    /// An identity-signed request over the log as it is.
    fn authorised(&self, action: u8, body: Vec<u8>) -> Authorised {
        let last = self.log.next_index().saturating_sub(1);
        let action = self.unlocked.authorise(action, &body, last, self.log.head());
        Authorised { bytes: body.into(), action }
    }

    /// Sends a request that adds an entry; after a lost answer the log tells whether it did. Takes the new log over.
    async fn enter(&mut self, path: &str, body: &Authorised, entry: &Signed) -> Result<()> {
        let sent = self.account.api.post_nothing(path, Some(body)).await;
        let unsure = match &sent {
            Ok(()) => false,
            Err(ClientError::Unreachable { .. } | ClientError::Busy(_)) => true,
            // A repetition of a request that counted finds the log moved on by itself.
            Err(error) => matches!(error.code(), Some(Code::LogMoved | Code::Expired)),
        };
        if unsure {
            let from = self.log.next_index();
            let now = fetch_devices(&self.account.api, from).await;
            let entered = now.is_ok_and(|devices| devices.entries.first() == Some(entry));
            if !entered {
                return sent;
            }
        } else {
            sent?;
        }
        self.account.refresh_devices().await?;
        self.reload()
    }

    fn reload(&mut self) -> Result<()> {
        let (header, log) = super::stored_log(&self.account.db, self.account.id())?;
        self.unlocked.take_header(&header)?;
        self.header = header;
        self.log = Arc::new(log);
        Ok(())
    }

    async fn opaque_record(&self, passphrase: &Passphrase) -> Result<NewRecord> {
        let mut generator = rng::system();
        let (registration, request) = Registration::start(passphrase, &mut generator)?;
        let started: OpaqueStarted =
            self.account.api.post("/v1/account/opaque", &OpaqueStart { request: request.into() }).await?;
        let record =
            registration.finish(passphrase, self.account.id(), &started.response.0, &mut generator)?;
        Ok(NewRecord { ticket: started.ticket, opaque_record: record.into() })
    }

    /// Changes the passphrase; the recovery key stays.
    ///
    /// # Errors
    /// [`ClientError`]; the old passphrase counts until this succeeds.
    pub async fn change_passphrase(&mut self, passphrase: &Passphrase) -> Result<()> {
        let record = self.opaque_record(passphrase).await?;
        let change = CredentialChange { passphrase: Some(passphrase), recovery: None };
        let new = self.unlocked.change_credentials(&self.header, &self.log, change, &mut rng::system())?;
        let entry = new.entry.clone();
        let request =
            ChangeCredentials { record: Some(record), key_header: new.key_header, entry: new.entry }.encode();
        let body = self.authorised(ACTION_CREDENTIALS, request);
        self.enter("/v1/account/credentials", &body, &entry).await
    }

    /// Changes the recovery key; the passphrase stays. The kit is delivered before anything is sent.
    ///
    /// # Errors
    /// [`ClientError`]; the old recovery key counts until this succeeds.
    pub async fn rotate_recovery_key(
        &mut self,
        deliver_kit: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        let recovery = RecoveryKey::generate(&mut rng::system());
        self.account.db.set_meta(RECOVERY_BEGUN, recovery.login_public().as_bytes())?;
        let change = CredentialChange { passphrase: None, recovery: Some(&recovery) };
        let new = self.unlocked.change_credentials(&self.header, &self.log, change, &mut rng::system())?;
        let checkpoint = Checkpoint {
            device_log_index: self.log.next_index(),
            device_log_head: new.entry.digest(label::DEVICE_LOG_ENTRY),
            ..self.account.checkpoint()?
        };
        let file = &self.account.file;
        let identity = self.unlocked.identity().to_bytes();
        deliver_kit(&kit::text(&file.server, &file.name, &identity, &recovery, &checkpoint))?;
        let entry = new.entry.clone();
        let request =
            ChangeCredentials { record: None, key_header: new.key_header, entry: new.entry }.encode();
        let body = self.authorised(ACTION_CREDENTIALS, request);
        self.enter("/v1/account/credentials", &body, &entry).await?;
        self.account.db.drop_meta(RECOVERY_BEGUN)
    }

    /// Whether a kit is what an earlier try to change the recovery key left. One that counts is done with.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub fn kit_state(&self, kit: &kit::Kit) -> Result<KitState> {
        let public = kit.recovery.login_public();
        if self.account.db.meta(RECOVERY_BEGUN)?.as_deref() != Some(&public.as_bytes()[..]) {
            return Ok(KitState::Other);
        }
        if self.header.header().recovery != public {
            return Ok(KitState::Begun);
        }
        self.account.db.drop_meta(RECOVERY_BEGUN)?;
        Ok(KitState::Counts)
    }

    /// Revokes devices, and gives every vault a key that they never had.
    ///
    /// # Errors
    /// [`ClientError`]. Once a device is revoked, what is cut off goes on at the next sync of any device.
    pub async fn revoke(&mut self, devices: &[DeviceId]) -> Result<()> {
        for device in devices {
            self.revoke_one(*device).await?;
        }
        self.rotate_all().await
    }

    async fn revoke_one(&mut self, device: DeviceId) -> Result<()> {
        for _ in 0..REVOKE_TRIES {
            match self.log.device(device).map(|known| known.revoked.is_none()) {
                None => return Err(unknown_device()),
                Some(false) => return Ok(()),
                Some(true) if device == self.account.device.id() => return Err(own_device()),
                Some(true) => {}
            }
            let pins = self.heads().await?;
            if self.log.device(device).is_some_and(|known| known.revoked.is_some()) {
                return Ok(());
            }
            let new = self.unlocked.revoke(&self.header, &self.log, device, pins, &mut rng::system())?;
            let entry = new.entry.clone();
            let request = EnrolDevice { key_header: new.key_header, entry: new.entry }.encode();
            let body = self.authorised(ACTION_REVOKE, request);
            match self.enter("/v1/account/devices/revoke", &body, &entry).await {
                Err(error) if matches!(error.code(), Some(Code::HeadMoved | Code::LogMoved)) => {
                    self.account.refresh_devices().await?;
                    self.reload()?;
                }
                other => return other,
            }
        }
        Err(ClientError::Busy("the device writes faster than it can be revoked".into()))
    }

    /// The head of every vault, verified just now, ascending. A vault that the keyring does not know is pinned as
    /// the server shows it: nobody reads it, and it must not keep a device from being revoked.
    async fn heads(&mut self) -> Result<Vec<Pin>> {
        let listed: Vaults = self.account.api.get("/v1/vaults").await?;
        self.account.sync_keyring().await?;
        self.reload()?;
        self.finish_deletions().await?;
        for entry in self.account.vaults()? {
            let mut vault = self.account.open_vault(&entry.name, false).await?;
            vault.pull().await?;
            self.account.check_pins_of(&vault, true)?;
        }
        let mut pins = Vec::new();
        for vault in self.account.db.vault_ids()? {
            if let Some(replica) = self.account.db.vault(vault, None)?
                && let Some(head) = replica.head()?
            {
                pins.push(Pin { vault, seq: head.tip.seq, head: head.tip.hash });
            }
        }
        let deleted = self.account.deleted_vaults()?;
        for info in listed.0 {
            if deleted.contains(&info.vault) || pins.iter().any(|pin| pin.vault == info.vault) {
                continue;
            }
            if info.vault == files_vault_id(&self.account.identity().to_bytes()) {
                return Err(ClientError::Rollback(format!(
                    "the server went back in time: the keyring is older than vault {}",
                    info.vault
                )));
            }
            pins.push(Pin { vault: info.vault, seq: info.seq, head: info.head });
        }
        pins.sort_by_key(|pin| pin.vault);
        Ok(pins)
    }

    /// Brings the keyring and every vault under keys that no revoked device had.
    async fn rotate_all(&mut self) -> Result<()> {
        self.account.sync_keyring().await?;
        for entry in self.account.vaults()? {
            let mut vault = self.account.open_vault(&entry.name, false).await?;
            self.account.sync_vault(&mut vault).await?;
        }
        self.account.pin_heads(true).await
    }

    async fn delete_account(&mut self) -> Result<()> {
        let request = DeleteAccount { account: self.account.id() }.encode();
        let body = self.authorised(ACTION_DELETE_ACCOUNT, request);
        self.account.db.set_meta(DELETING, b"1")?;
        match self.account.api.post_nothing("/v1/account/delete", Some(&body)).await {
            // A repetition of a request that counted finds nobody.
            Err(ClientError::SignedOut) => Ok(()),
            Err(error @ (ClientError::Unreachable { .. } | ClientError::Busy(_))) => {
                match self.account.api.device_login().await {
                    Err(ClientError::SignedOut) => Ok(()),
                    _ => Err(error),
                }
            }
            other => other,
        }
    }

    /// Deletes a vault: first in the keyring, so that every device knows that it was meant, then at the server.
    ///
    /// # Errors
    /// [`ClientError`]; what is cut off goes on when the same is asked for again, or a device is revoked.
    pub async fn delete_vault(&mut self, name: &str) -> Result<()> {
        self.account.mark_deleted(name).await?;
        self.reload()?;
        self.finish_deletions().await
    }

    /// Deletes at the server, and here, what the keyring calls deleted.
    async fn finish_deletions(&mut self) -> Result<()> {
        let deleted = self.account.deleted_vaults()?;
        if deleted.is_empty() {
            return Ok(());
        }
        let listed: Vaults = self.account.api.get("/v1/vaults").await?;
        for info in listed.0.into_iter().filter(|info| deleted.contains(&info.vault)) {
            let vault = info.vault;
            let body = self.authorised(ACTION_DELETE_VAULT, DeleteVault { vault }.encode());
            match self.account.api.post_nothing(&format!("/v1/vaults/{vault}/delete"), Some(&body)).await {
                // A repetition of a request that counted finds nothing.
                Err(error) if error.code() == Some(Code::NotFound) => {}
                other => other?,
            }
        }
        for vault in deleted {
            self.account.db.drop_vault(vault)?;
        }
        Ok(())
    }
}

fn own_device() -> ClientError {
    ClientError::Usage(
        "this is the device that you are using; revoke it from another one, or: lockstep logout --wipe"
            .into(),
    )
}

impl Account {
    /// Where the account stands, as this device verified it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        let log = self.keyring.device_log();
        let head = self.keyring.replica.head()?;
        let head = head.ok_or_else(|| ClientError::Damaged("the keyring was never synced here".into()))?;
        Ok(Checkpoint {
            version: VERSION,
            account: self.id(),
            device_log_index: log.next_index().saturating_sub(1),
            device_log_head: log.head(),
            keyring_seq: head.tip.seq,
            keyring_head: head.tip.hash,
        })
    }

    /// Deletes the account at the server: nothing of it stays there. The home is the caller's to wipe.
    ///
    /// # Errors
    /// [`ClientError`]; what is cut off goes on when the same is asked for again.
    pub async fn delete(&mut self, passphrase: &Passphrase) -> Result<()> {
        match self.unlock(passphrase).await {
            Ok(mut owner) => return owner.delete_account().await,
            Err(ClientError::SignedOut) => {}
            Err(error) => return Err(error),
        }
        // An earlier try may have counted without an answer: then the server knows nobody of this account.
        if self.db.meta(DELETING)?.is_none() {
            return Err(ClientError::SignedOut);
        }
        self.unlock_held(passphrase).map(|_| ())
    }

    /// A device by its name or its id's beginning; a live one first.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::Usage`] if several fit.
    pub fn find_device(&self, text: &str) -> Result<DeviceId> {
        let devices = self.devices();
        let mut fits: Vec<_> =
            devices.iter().filter(|device| device.name == text && !device.is_revoked).collect();
        if fits.is_empty() && text.len() >= 4 {
            fits = devices.iter().filter(|device| device.id.starts_with(text)).collect();
        }
        if fits.is_empty() {
            fits = devices.iter().filter(|device| device.name == text).collect();
        }
        match fits.as_slice() {
            [one] => one.id.parse().map_err(|_| unknown_device()),
            [] => Err(unknown_device()),
            _ => Err(ClientError::Usage(format!(
                "\"{text}\" fits several devices; say the beginning of one's id, from: lockstep device list"
            ))),
        }
    }
}
