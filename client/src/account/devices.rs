//! The account's devices: names, and the end of one.

use super::{Account, Owner};
use crate::error::{ClientError, Result};
use crate::keyring::VaultEntry;
use crate::rng;
use lockstep_engine::keyring::{DEVICE_NAME_TYPE, DeviceNameDoc};
use lockstep_engine::replica::{Policy, Replica as _};
use lockstep_proto::api::account::EnrolDevice;
use lockstep_proto::api::auth::ACTION_REVOKE;
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::vault::{Page, Vaults};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::chain::Authors as _;
use lockstep_proto::commit::Commit;
use lockstep_proto::device_log::Pin;
use lockstep_proto::id::{DeviceId, Seq, VaultId};
use lockstep_proto::label;
use lockstep_proto::vault_log::files_vault_id;

/// Other devices may write while heads are being pinned; each try pins what is there then.
const REVOKE_TRIES: usize = 16;

impl Account {
    /// Whether commits of a vault were verified here.
    pub(crate) fn holds(&self, vault: VaultId) -> Result<bool> {
        match self.db.vault(vault, None)? {
            Some(replica) => Ok(replica.head()?.is_some()),
            None => Ok(false),
        }
    }

    /// Whether an error is about one vault only, so that the others can go on: a device wrote what is not valid, or the
    /// vault is another one from the beginning. A server that goes back or parts from what was verified is not believed
    /// in any.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub fn is_of(&self, vault: VaultId, error: &ClientError) -> Result<bool> {
        Ok(match error {
            ClientError::Fault(_)
            | ClientError::Damaged(_)
            | ClientError::NotHeld(_)
            | ClientError::Refused { .. } => true,
            ClientError::Fork(_) => !self.holds(vault)?,
            _ => false,
        })
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

pub(crate) fn unknown_device() -> ClientError {
    ClientError::NotFound("there is no such device; see: lockstep device list".into())
}

fn own_device() -> ClientError {
    ClientError::Usage(
        "this is the device that you are using; revoke it from another one, or: lockstep logout --wipe"
            .into(),
    )
}

impl Owner<'_> {
    /// Revokes devices, and gives every vault a key that they never had. What the devices say that they verified
    /// does not keep them from being revoked, if the account was told to ignore it before it was unlocked.
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
            let pins = self.heads(device).await?;
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
    /// the server shows it, if devices signed it: nobody reads it, and it must not keep a device from being revoked. So
    /// is one to which the device gave two births.
    async fn heads(&mut self, device: DeviceId) -> Result<Vec<Pin>> {
        let listed: Vaults = self.account.api.get("/v1/vaults").await?;
        self.account.sync_keyring().await?;
        self.reload()?;
        for VaultEntry { vault: id, .. } in self.account.vaults()? {
            let is_held = self.account.holds(id)?;
            if !is_held && listed.0.iter().all(|info| info.vault != id) {
                self.account.check_unlisted(id)?;
                continue;
            }
            match self.pull_known(id).await {
                Err(ClientError::Fork(_)) if !is_held && self.gave_two_births(id, device).await? => {}
                other => other?,
            }
        }
        // A deleted vault that is still there is pinned as the server shows it, like one that nobody knows.
        let deleted = self.account.deleted_vaults()?;
        let mut pins = Vec::new();
        for vault in self.account.db.vault_ids()?.into_iter().filter(|vault| !deleted.contains(vault)) {
            if let Some(replica) = self.account.db.vault(vault, None)?
                && let Some(head) = replica.head()?
            {
                pins.push(Pin { vault, seq: head.tip.seq, head: head.tip.hash });
            }
        }
        let files = files_vault_id(&self.account.identity().to_bytes());
        for info in listed.0 {
            if pins.iter().any(|pin| pin.vault == info.vault) {
                continue;
            }
            if info.vault == files && !deleted.contains(&files) {
                return Err(ClientError::Rollback(format!(
                    "the server went back in time: the keyring is older than vault {}",
                    info.vault
                )));
            }
            self.account.check_listed(&info).await?;
            pins.push(Pin { vault: info.vault, seq: info.seq, head: info.head });
        }
        pins.sort_by_key(|pin| pin.vault);
        Ok(pins)
    }

    async fn pull_known(&mut self, id: VaultId) -> Result<()> {
        let mut vault = self.account.open_known(id).await?;
        self.account.pull_vault(&mut vault).await?;
        self.account.check_pins_of(&vault, true)
    }

    /// Whether the genesis at the server is another than the keyring's, and yet the device signed it: nobody else could.
    async fn gave_two_births(&self, id: VaultId, device: DeviceId) -> Result<bool> {
        let known = self.account.open_held(id)?.setup.genesis;
        let page: Page = self.account.api.get(&format!("/v1/vaults/{id}/commits")).await?;
        let Some(entry) = page.commits.into_iter().next() else { return Ok(false) };
        let Ok(commit) = Commit::decode(&entry.commit.bytes.0) else { return Ok(false) };
        let key = self.log.author_key(device, commit.device_log_index);
        let is_its = (commit.vault, commit.seq, commit.device) == (id, Seq::new(0), device)
            && key.is_some_and(|key| entry.commit.verify(Commit::NAME, label::COMMIT, &key).is_ok());
        Ok(is_its && known.as_ref() != Some(&entry.commit))
    }

    /// Brings the keyring and every vault under keys that no revoked device had. One that can not be brought there
    /// does not keep the others from it; nobody writes to it before it is.
    async fn rotate_all(&mut self) -> Result<()> {
        self.account.sync_keyring().await?;
        let mut failed = None;
        for VaultEntry { vault: id, .. } in self.account.vaults()? {
            if !self.account.holds(id)? {
                continue;
            }
            match self.sync_known(id).await {
                Err(error) if self.account.is_of(id, &error)? => failed = failed.or(Some(error)),
                other => other?,
            }
        }
        match failed {
            None => self.account.pin_heads(true).await,
            Some(error) => Err(error),
        }
    }

    async fn sync_known(&mut self, id: VaultId) -> Result<()> {
        let mut vault = self.account.open_known(id).await?;
        self.account.sync_vault(&mut vault).await
    }
}
