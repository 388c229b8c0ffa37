//! Pins: what ties the views of an account's devices together. Every vault descends from every place that a device
//! pinned, or a repair says why not.

use super::record;
use crate::account::Account;
use crate::error::{ClientError, Result};
use crate::rng;
use crate::vault::Vault;
use lockstep_engine::keyring::{HEAD_PIN_TYPE, HeadPinDoc};
use lockstep_engine::replica::{Policy, Replica as _};
use lockstep_proto::api::vault::Vaults;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::device_log::Pin;
use lockstep_proto::id::VaultId;

const PIN_INTERVAL_SECONDS: u64 = 24 * 3600;

impl Account {
    /// Every pin that is known: of the device log and of the keyring.
    pub(crate) fn pins(&self) -> Result<Vec<Pin>> {
        let mut pins = self.keyring.device_log().pins().to_vec();
        for doc in self.head_pins()? {
            pins.extend(doc.heads);
        }
        let deleted = self.deleted_vaults()?;
        pins.retain(|pin| !deleted.contains(&pin.vault));
        Ok(pins)
    }

    fn head_pins(&self) -> Result<Vec<HeadPinDoc>> {
        head_pins(&self.keyring)
    }

    /// Pulls the keyring, checks every pin against everything that is held, then pushes.
    ///
    /// # Errors
    /// [`ClientError::Rollback`], [`ClientError::Fork`] and the sync's.
    pub async fn sync_keyring(&mut self) -> Result<()> {
        self.refresh_keyring().await?;
        self.push_keyring().await
    }

    /// Pulls the keyring and checks every pin against everything that is held; nothing is pushed.
    ///
    /// # Errors
    /// [`ClientError::Rollback`], [`ClientError::Fork`] and the pull's.
    pub async fn refresh_keyring(&mut self) -> Result<()> {
        let unlisted = self.check_heads().await?;
        // Only now: a server that is behind may show a device log that went another way, too.
        self.refresh_devices().await?;
        self.pull_keyring().await?;
        self.keep_first_keys().await?;
        check_log_pins(&self.keyring)?;
        self.drop_deleted(&unlisted)?;
        self.check_pins_of(&self.keyring, true)?;
        let keyring = self.keyring.setup.vault();
        let pins = self.pins()?;
        for vault in self.db.vault_ids()? {
            if vault != keyring
                && let Some(replica) = self.db.vault(vault, None)?
            {
                for pin in pins.iter().filter(|pin| pin.vault == vault) {
                    check_pin(&replica, pin, false)?;
                }
            }
        }
        self.check_late(&self.keyring)
    }

    /// Forgets vaults that the keyring calls deleted; one that is only missing at the server is a rollback.
    fn drop_deleted(&self, unlisted: &[VaultId]) -> Result<()> {
        let deleted = self.deleted_vaults()?;
        for vault in unlisted {
            if !deleted.contains(vault) {
                return Err(ClientError::Rollback(format!(
                    "the server went back in time: it does not list vault {vault}"
                )));
            }
            if self.writes() {
                self.db.drop_vault(*vault)?;
            }
        }
        Ok(())
    }

    /// A server whose heads lie behind what is held, of any vault, is not believed in any: otherwise this
    /// device would follow it on a branch that the newer data knows nothing of.
    ///
    /// Gives the vaults that are held here and not at the server: the keyring says whether they were deleted.
    async fn check_heads(&self) -> Result<Vec<VaultId>> {
        let mut unlisted = Vec::new();
        if !self.writes() {
            return Ok(unlisted);
        }
        let listed: Vaults = self.api.get("/v1/vaults").await?;
        for vault in self.db.vault_ids()? {
            let Some(replica) = self.db.vault(vault, None)? else { continue };
            let Some(head) = replica.head()? else { continue };
            let back = "the server went back in time";
            match listed.0.iter().find(|info| info.vault == vault) {
                None if vault == self.keyring.setup.vault() => {
                    return Err(ClientError::Rollback(format!("{back}: it does not list the keyring")));
                }
                None => unlisted.push(vault),
                // Unless a repair gives this very head up.
                Some(info) if info.seq < head.tip.seq => self.pull_held(vault).await?,
                Some(info) if info.seq == head.tip.seq && info.head != head.tip.hash => {
                    self.heal_vault(vault)?.follow_repair().await?;
                }
                Some(_) => {}
            }
        }
        // A longer chain may still be another one: what is held is pulled first, and the keyring after it.
        for entry in self.vaults()? {
            if !unlisted.contains(&entry.vault) {
                self.pull_held(entry.vault).await?;
            }
        }
        Ok(unlisted)
    }

    /// Pulls a vault over what is held. What is wrong with this vault only is told when it is used.
    async fn pull_held(&self, id: VaultId) -> Result<()> {
        if id == self.keyring.setup.vault() {
            return Ok(());
        }
        let Ok(mut vault) = self.open_held(id) else { return Ok(()) };
        match vault.pull().await {
            Err(error @ (ClientError::Rollback(_) | ClientError::Fork(_))) => Err(error),
            _ => Ok(()),
        }
    }

    /// Checks a vault against every pin; after a pull (`pulled`) none may lie beyond its head.
    ///
    /// # Errors
    /// [`ClientError::Rollback`], [`ClientError::Fork`].
    pub fn check_pins_of(&self, vault: &Vault, pulled: bool) -> Result<()> {
        let id = vault.setup.vault();
        for pin in self.pins()?.iter().filter(|pin| pin.vault == id) {
            check_pin(&vault.replica, pin, pulled)?;
        }
        Ok(())
    }

    /// Writes this device's head pin if it is due: a day old, or a vault is not in it yet.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn pin_heads(&mut self, force: bool) -> Result<()> {
        let mut heads = Vec::new();
        for vault in self.db.vault_ids()? {
            if let Some(replica) = self.db.vault(vault, None)?
                && let Some(head) = replica.head()?
            {
                heads.push(Pin { vault, seq: head.tip.seq, head: head.tip.hash });
            }
        }
        let own = self.head_pins()?.into_iter().find(|doc| doc.device == self.device.id());
        let now = rng::now_utc();
        let is_due = own.is_none_or(|doc| {
            now.saturating_sub(doc.utc) >= PIN_INTERVAL_SECONDS
                || heads.iter().any(|pin| doc.heads.iter().all(|known| known.vault != pin.vault))
        });
        if !is_due && !force {
            return Ok(());
        }
        let log = self.keyring.device_log();
        let doc = HeadPinDoc {
            device: self.device.id(),
            utc: now,
            device_log_index: log.next_index().saturating_sub(1),
            device_log_head: log.head(),
            heads,
        };
        let name = self.device.id().as_bytes().to_vec();
        self.keyring.put(vec![record(HEAD_PIN_TYPE, name, doc.encode(), Policy::Overwrite)]).await?;
        self.sync_keyring().await
    }
}

/// Head pins that count: record name, document and envelope name the same device.
pub(crate) fn head_pins(keyring: &Vault) -> Result<Vec<HeadPinDoc>> {
    let mut found = Vec::new();
    for row in keyring.replica.list(HEAD_PIN_TYPE, None)? {
        let Some(bytes) = keyring.replica.envelope(row.record)? else { continue };
        let Ok(opened) = keyring.setup.keys.open(&bytes) else { continue };
        let Ok(doc) = HeadPinDoc::decode(&opened.content.document.0) else { continue };
        if opened.header.device == doc.device && opened.content.name.0 == doc.device.as_bytes() {
            found.push(doc);
        }
    }
    Ok(found)
}

/// The device log passes through every place of it that was pinned.
pub(crate) fn check_log_pins(keyring: &Vault) -> Result<()> {
    let log = keyring.device_log();
    for doc in head_pins(keyring)? {
        match log.hash_at(doc.device_log_index) {
            Some(hash) if hash == doc.device_log_head => {}
            Some(_) => return Err(ClientError::Fork("the device log is not the one that was pinned".into())),
            None => {
                return Err(ClientError::Rollback(
                    "the server went back in time: the device log is shorter than was pinned".into(),
                ));
            }
        }
    }
    Ok(())
}

pub(crate) fn check_pin(replica: &crate::replica::VaultReplica, pin: &Pin, pulled: bool) -> Result<()> {
    let vault = pin.vault;
    match replica.commit_hash(pin.seq)? {
        Some(hash) if hash == pin.head => Ok(()),
        _ if replica.is_abandoned(pin.seq, pin.head)? => Ok(()),
        Some(_) => Err(ClientError::Fork(format!(
            "commit {} of vault {vault} is not the one that was pinned",
            pin.seq
        ))),
        None if pulled => Err(ClientError::Rollback(format!(
            "the server went back in time: vault {vault} ends before commit {}, which one of your devices verified",
            pin.seq
        ))),
        None => Ok(()),
    }
}
