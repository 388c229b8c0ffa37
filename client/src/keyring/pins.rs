//! Pins: what ties the views of an account's devices together. Every vault descends from every place that a device
//! pinned, or a repair says why not.

use super::record;
use crate::account::Account;
use crate::error::{ClientError, Result};
use crate::replica::VaultReplica;
use crate::rng;
use crate::vault::Vault;
use lockstep_engine::keyring::{HEAD_PIN_TYPE, HeadPinDoc};
use lockstep_engine::replica::{Policy, Replica as _};
use lockstep_proto::api::vault::Vaults;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::device_log::Pin;
use lockstep_proto::id::{DeviceId, Seq, VaultId};
use std::collections::BTreeSet;

const PIN_INTERVAL_SECONDS: u64 = 24 * 3600;

/// A pin, and the device that says so; none: the device log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) pin: Pin,
    pub(crate) by: Option<DeviceId>,
}

impl Known {
    /// Who says so, and what can be done if it is not true.
    pub(crate) fn blame(&self) -> String {
        self.by.map(blame).unwrap_or_default()
    }
}

/// Any device can write any pin: who can not believe one of them shuts that device out.
fn blame(device: DeviceId) -> String {
    let text = device.to_string();
    let short = text.get(..8).unwrap_or(&text);
    format!(
        ". Device {text} pinned it. Should that device be stolen or faulty, and the server right: lockstep device \
         revoke {short}. Where no device of the account is at hand: lockstep login --ignore-pins-of {short}, or \
         lockstep recover --revoke-others"
    )
}

/// The head pins that count: those of live devices, but for those that are not to be believed. What a revoked device
/// pinned is replaced by the pins of its revocation.
pub(crate) fn counting(keyring: &Vault, ignored: &BTreeSet<DeviceId>) -> Result<Vec<HeadPinDoc>> {
    let log = keyring.device_log();
    let mut docs = head_pins(keyring)?;
    docs.retain(|doc| {
        !ignored.contains(&doc.device)
            && log.device(doc.device).is_some_and(|device| device.revoked.is_none())
    });
    Ok(docs)
}

impl Account {
    /// What these devices say that they verified is not believed as long as this account is open: they are about to
    /// be revoked.
    pub fn ignore_pins_of(&mut self, devices: &[DeviceId]) {
        self.ignored.extend(devices);
    }

    /// Every pin that is known and counts: of the device log and of the keyring.
    pub(crate) fn pins(&self) -> Result<Vec<Known>> {
        let of_log = self.keyring.device_log().pins();
        let mut pins: Vec<Known> = of_log.iter().map(|pin| Known { pin: *pin, by: None }).collect();
        for doc in counting(&self.keyring, &self.ignored)? {
            pins.extend(doc.heads.iter().map(|pin| Known { pin: *pin, by: Some(doc.device) }));
        }
        let deleted = self.deleted_vaults()?;
        pins.retain(|known| !deleted.contains(&known.pin.vault));
        Ok(pins)
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
        self.keep_first_versions().await?;
        check_log_pins(&self.keyring, &self.ignored)?;
        self.drop_deleted(&unlisted)?;
        self.check_pins_of(&self.keyring, true)?;
        let keyring = self.keyring.setup.vault();
        let pins = self.pins()?;
        for vault in self.db.vault_ids()? {
            if vault != keyring
                && let Some(replica) = self.db.vault(vault, None)?
            {
                for known in pins.iter().filter(|known| known.pin.vault == vault) {
                    check_pin(&replica, known, false)?;
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
        self.db.set_meta(crate::account::ANSWERED, &rng::now_utc().to_be_bytes())?;
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
                Some(info) if info.seq < head.tip.seq => match self.follow_repair(vault).await {
                    Err(ClientError::Fork(_)) => {
                        return Err(ClientError::Rollback(format!(
                            "{back}: vault {vault} ends at commit {}, this device verified commit {}",
                            info.seq, head.tip.seq
                        )));
                    }
                    other => other?,
                },
                Some(info) if info.seq == head.tip.seq && info.head != head.tip.hash => {
                    self.follow_repair(vault).await?;
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

    /// Looks for a repair that gives the held head of a vault up. Keys that the keyring brings only then come later.
    async fn follow_repair(&self, vault: VaultId) -> Result<()> {
        match self.heal_vault(vault)?.follow_repair().await {
            Err(ClientError::KeysBehind(_)) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Pulls a vault over what is held. What is wrong with this vault only is told when it is used.
    async fn pull_held(&self, id: VaultId) -> Result<()> {
        if !self.holds(id)? {
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
        for known in self.pins()?.iter().filter(|known| known.pin.vault == id) {
            check_pin(&vault.replica, known, pulled)?;
        }
        Ok(())
    }

    /// A vault that the server does not list, and that no device verified, was not born yet.
    ///
    /// # Errors
    /// [`ClientError::Rollback`] if one did.
    pub(crate) fn check_unlisted(&self, vault: VaultId) -> Result<()> {
        match self.pins()?.iter().find(|known| known.pin.vault == vault) {
            None => Ok(()),
            Some(known) => Err(ClientError::Rollback(format!(
                "the server went back in time: it does not list vault {vault}{}",
                known.blame()
            ))),
        }
    }

    /// Writes this device's head pin if it is due: a day old, or a vault is not in it yet, or only its birth is.
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
        let own = head_pins(&self.keyring)?.into_iter().find(|doc| doc.device == self.device.id());
        let now = rng::now_utc();
        let is_due = own.is_none_or(|doc| {
            now.saturating_sub(doc.utc) >= PIN_INTERVAL_SECONDS
                || heads.iter().any(|pin| !doc.heads.iter().any(|known| covers(known, pin)))
        });
        if !is_due && !force {
            return Ok(());
        }
        let name = self.device.id().as_bytes().to_vec();
        let record_id = self.keyring.setup.keys.record_id(HEAD_PIN_TYPE, &name);
        if !force && !self.keyring.replica.pending_of(record_id)?.is_empty() {
            return self.sync_keyring().await;
        }
        let log = self.keyring.device_log();
        let doc = HeadPinDoc {
            device: self.device.id(),
            utc: now,
            device_log_index: log.next_index().saturating_sub(1),
            device_log_head: log.head(),
            heads,
        };
        self.keyring.put(vec![record(HEAD_PIN_TYPE, name, doc.encode(), Policy::Overwrite)]).await?;
        self.sync_keyring().await
    }
}

/// Whether a pin says enough of a vault until the next one is due: a birth says nothing of what a vault has in it.
fn covers(known: &Pin, head: &Pin) -> bool {
    let is_birth = |pin: &Pin| pin.seq == Seq::new(0);
    known.vault == head.vault && (!is_birth(known) || is_birth(head))
}

/// Head pins as devices wrote them: record name, document and envelope name the same device.
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
pub(crate) fn check_log_pins(keyring: &Vault, ignored: &BTreeSet<DeviceId>) -> Result<()> {
    let log = keyring.device_log();
    for doc in counting(keyring, ignored)? {
        match log.hash_at(doc.device_log_index) {
            Some(hash) if hash == doc.device_log_head => {}
            Some(_) => {
                return Err(ClientError::Fork(format!(
                    "the device log is not the one that was pinned{}",
                    blame(doc.device)
                )));
            }
            None => {
                return Err(ClientError::Rollback(format!(
                    "the server went back in time: the device log is shorter than was pinned{}",
                    blame(doc.device)
                )));
            }
        }
    }
    Ok(())
}

pub(crate) fn check_pin(replica: &VaultReplica, known: &Known, pulled: bool) -> Result<()> {
    let pin = known.pin;
    let vault = pin.vault;
    match replica.commit_hash(pin.seq)? {
        Some(hash) if hash == pin.head => Ok(()),
        _ if replica.is_abandoned(pin.seq, pin.head)? => Ok(()),
        Some(_) => Err(ClientError::Fork(format!(
            "commit {} of vault {vault} is not the one that was pinned{}",
            pin.seq,
            known.blame()
        ))),
        None if pulled => Err(ClientError::Rollback(format!(
            "the server went back in time: vault {vault} ends before commit {}, which one of your devices verified{}",
            pin.seq,
            known.blame()
        ))),
        None => Ok(()),
    }
}
