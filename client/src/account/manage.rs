//! What an owner changes with the passphrase at hand: passphrase, recovery key, vaults, the account itself. Each
//! request is one transaction of the server; whether a lost answer meant success is told by the device log.

use super::{Account, fetch_devices};
use crate::error::{ClientError, Result};
use crate::kit;
use crate::rng;
use lockstep_client_crypto::account::{Credential, CredentialChange, UnlockedAccount};
use lockstep_client_crypto::opaque::Registration;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_engine::replica::Replica as _;
use lockstep_proto::Signed;
use lockstep_proto::api::account::OpaqueStart;
use lockstep_proto::api::account::{ChangeCredentials, DeleteAccount, DeleteVault, NewRecord};
use lockstep_proto::api::auth::{
    ACTION_CREDENTIALS, ACTION_DELETE_ACCOUNT, ACTION_DELETE_VAULT, Authorised, OpaqueStarted,
};
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::key_header::VerifiedKeyHeader;
use lockstep_proto::label;
use lockstep_proto::recovery::Checkpoint;
use lockstep_proto::version::VERSION;
use std::sync::Arc;

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
    pub(super) account: &'a mut Account,
    pub(super) unlocked: UnlockedAccount,
    pub(super) header: VerifiedKeyHeader,
    pub(super) log: Arc<DeviceLog>,
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
    pub(super) fn authorised(&self, action: u8, body: Vec<u8>) -> Authorised {
        let last = self.log.next_index().saturating_sub(1);
        let action = self.unlocked.authorise(action, &body, last, self.log.head());
        Authorised { bytes: body.into(), action }
    }

    /// Sends a request that adds an entry; after a lost answer the log tells whether it did. Takes the new log over.
    pub(super) async fn enter(&mut self, path: &str, body: &Authorised, entry: &Signed) -> Result<()> {
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

    pub(super) fn reload(&mut self) -> Result<()> {
        let (header, log) = super::stored_log(&self.account.db, self.account.id())?;
        self.unlocked.take_header(&header)?;
        self.header = header;
        self.log = Arc::new(log);
        Ok(())
    }

    /// The same for new credentials, which are not tried again by themselves.
    async fn enter_credentials(&mut self, body: &Authorised, entry: &Signed) -> Result<()> {
        match self.enter("/v1/account/credentials", body, entry).await {
            Err(error) if error.code() == Some(Code::LogMoved) => {
                Err(ClientError::Busy("the account's devices changed meanwhile".into()))
            }
            other => other,
        }
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
        self.enter_credentials(&body, &entry).await
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
        self.enter_credentials(&body, &entry).await?;
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
    /// [`ClientError`]; what is cut off goes on when the same is asked for again.
    pub async fn delete_vault(&mut self, name: &str) -> Result<()> {
        let unlocked = &self.unlocked;
        let vault = self.account.mark_deleted(name, |vault| unlocked.authorise_deletion(vault)).await?;
        self.reload()?;
        let body = self.authorised(ACTION_DELETE_VAULT, DeleteVault { vault }.encode());
        match self.account.api.post_nothing(&format!("/v1/vaults/{vault}/delete"), Some(&body)).await {
            // A repetition of a request that counted finds nothing.
            Err(error) if error.code() == Some(Code::NotFound) => {}
            other => other?,
        }
        self.account.db.drop_vault(vault)
    }
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
}
