//! Healing (PROTOCOL.md section 6.8): a server whose database or blob storage was restored from an older copy gets
//! back what this device holds, and chains that parted are joined by the owner's word. First everything is looked
//! at and explained; nothing is changed before somebody said yes.

mod carry;
mod chain;
mod envelopes;
mod objects;
mod rescue;
mod shown;
mod skipped;

pub use objects::Lost;

use crate::account::{Account, Owner};
use crate::error::{ClientError, Result};
use crate::late;
use crate::vault::Vault;
use lockstep_engine::replica::Replica as _;
use lockstep_proto::api::account::{Devices, HealDevices};
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::vault::Vaults;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::{RecordId, Seq, VaultId};
use lockstep_proto::{Digest, Signed, label, limits};
use shown::ServerChain;
use std::collections::BTreeSet;

/// How a server's device log stands to the one held here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogState {
    /// It has everything that is held here.
    Whole,
    /// It lacks the last entries.
    Behind(u64),
    /// It does not know this device: it lacks at least the entry that enrolled it.
    Unknown,
    /// It went on without entries that are held here: both sides enrolled or revoked devices.
    Parted,
}

/// How a server's vault stands to the one held here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultState {
    /// Nothing to heal.
    Whole,
    /// It is not there.
    Missing,
    /// It lacks commits after this one; what it has is what is held here.
    Behind(Seq),
    /// Both went on after this commit, each in its own way.
    Parted(Seq),
    /// A commit there is not valid, and nothing after it is taken over.
    Fault(String),
    /// An earlier healing was cut off.
    Unfinished,
}

/// One vault, looked at.
#[derive(Debug, Clone)]
pub struct VaultFinding {
    /// The vault.
    pub vault: VaultId,
    /// Its name; `keyring` for the keyring.
    pub name: String,
    /// What was found.
    pub state: VaultState,
    /// The head that is held here.
    pub held: Option<Seq>,
    /// Its head at the server.
    pub server: Option<Seq>,
    /// Newest versions that the server does not give out as they were signed and that are held here: commit and record.
    /// They are given back.
    pub lacks: BTreeSet<(Seq, RecordId)>,
    /// Those of what the server lacks that are not held here either: nobody gets them back from this device.
    pub not_held: BTreeSet<(Seq, RecordId)>,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Diagnosis {
    /// The device log.
    pub log: LogState,
    /// Vaults that are held here; empty if the device log has to be healed first.
    pub vaults: Vec<VaultFinding>,
}

impl Diagnosis {
    /// Whether device log and chains are whole, and nothing that is held here is lacking.
    pub fn is_whole(&self) -> bool {
        let is_whole = |found: &VaultFinding| found.state == VaultState::Whole && found.lacks.is_empty();
        self.log == LogState::Whole && self.vaults.iter().all(is_whole)
    }

    /// Whether the owner's word is needed: an identity signs what is given up.
    pub fn needs_owner(&self) -> bool {
        self.log != LogState::Whole
            || self.vaults.iter().any(|found| {
                matches!(found.state, VaultState::Parted(_) | VaultState::Fault(_) | VaultState::Unfinished)
            })
    }
}

/// What healing came to.
#[derive(Debug, Clone, Default)]
pub struct Healed {
    /// Commits that the server got back.
    pub commits: u64,
    /// Repairs that were signed.
    pub repairs: u64,
    /// Versions that were carried over to the chain that counts.
    pub carried: u64,
    /// Versions that are kept here for review.
    pub kept: u64,
    /// Versions that devices wrote and that the server does not give out as they were signed: commit and record.
    pub withheld: Vec<(Seq, RecordId)>,
    /// Envelopes that the server got back of commits that it had.
    pub envelopes: u64,
    /// Newest versions that the server lacks and this device does not hold: commit and record.
    pub not_held: BTreeSet<(Seq, RecordId)>,
    /// Newest versions that the server got back and does not give out all the same: commit and record.
    pub refused: BTreeSet<(Seq, RecordId)>,
    /// Snapshots that could not be carried over whole; a new backup takes their place.
    pub snapshots_left: u64,
}

const SIGN_IN_DUE: &str = "sign-in-due";

impl Account {
    /// Whether the passphrase's sign-in record has to be made anew since a device log was given back.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub fn sign_in_is_due(&self) -> Result<bool> {
        Ok(self.db.meta(SIGN_IN_DUE)?.is_some())
    }

    /// It was.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub fn sign_in_is_done(&self) -> Result<()> {
        self.db.drop_meta(SIGN_IN_DUE)
    }

    /// Looks at what the server's device log and chains lack of what this device has. Changes nothing. From here on this
    /// account lets go of no envelope, until it is opened anew: the server may need it.
    ///
    /// # Errors
    /// [`ClientError`] if the server can not be asked.
    pub async fn diagnose(&mut self) -> Result<Diagnosis> {
        self.db.hold_all();
        let log = self.diagnose_log().await?;
        if log != LogState::Whole {
            return Ok(Diagnosis { log, vaults: Vec::new() });
        }
        let listed: Vaults = self.api.get("/v1/vaults").await?;
        let keyring = self.keyring.setup.vault();
        let mut vaults = Vec::new();
        let deleted = self.deleted_vaults()?;
        let mut held = self.db.vault_ids()?;
        // The keyring first: it has the keys of the others.
        held.sort_by_key(|vault| *vault != keyring);
        for vault in held.into_iter().filter(|vault| !deleted.contains(vault)) {
            let server = listed.0.iter().find(|info| info.vault == vault).map(|info| (info.seq, info.head));
            let mut found = self.diagnose_vault(vault, server).await?;
            let after = match &found.state {
                VaultState::Missing => Some(None),
                VaultState::Behind(seq) | VaultState::Parted(seq) => Some(Some(*seq)),
                _ => None,
            };
            if let (Some(after), Some(replica)) = (after, self.db.vault(vault, None)?) {
                found.not_held = envelopes::not_here(&replica, after)?;
            }
            vaults.push(found);
        }
        Ok(Diagnosis { log, vaults })
    }

    async fn diagnose_log(&self) -> Result<LogState> {
        let log = self.keyring.device_log();
        let held = log.next_index();
        let shown: Devices = match self.api.get("/v1/account/devices?from=0").await {
            Err(ClientError::SignedOut) => return Ok(LogState::Unknown),
            other => other?,
        };
        let shared = shown.entries.iter().zip(0_u64..).take_while(|(entry, index)| {
            *index >= held || log.hash_at(*index) == Some(entry.digest(label::DEVICE_LOG_ENTRY))
        });
        if shared.count() < shown.entries.len() {
            return Ok(LogState::Parted);
        }
        Ok(match held.checked_sub(shown.total) {
            Some(behind) if behind > 0 => LogState::Behind(behind),
            _ => LogState::Whole,
        })
    }

    async fn diagnose_vault(&self, id: VaultId, server: Option<(Seq, Digest)>) -> Result<VaultFinding> {
        let name = self.vaults()?.into_iter().find(|entry| entry.vault == id).map(|entry| entry.name);
        let mut found = VaultFinding {
            vault: id,
            name: name.unwrap_or_else(|| "keyring".into()),
            state: VaultState::Whole,
            held: None,
            server: server.map(|(seq, _)| seq),
            lacks: BTreeSet::new(),
            not_held: BTreeSet::new(),
        };
        let Some(replica) = self.db.vault(id, None)? else { return Ok(found) };
        let Some(head) = replica.head()? else { return Ok(found) };
        found.held = Some(head.tip.seq);
        let Some((seq, hash)) = server else {
            found.state = VaultState::Missing;
            return Ok(found);
        };
        let late = late::first_late(&self.heal_vault(id)?, self.keyring.device_log(), &self.db, false)?;
        if seq <= head.tip.seq && replica.commit_hash(seq)? == Some(hash) {
            // What a repair went back over is no server's to take again: that is joined anew.
            let counts = lockstep_engine::repair::counting(&replica, seq)?;
            let skips = late::skipped(&replica)?.iter().any(|(_, repair)| *repair > seq);
            found.state = match late {
                Some((late, device)) => VaultState::Fault(late_text(late, device)),
                None if seq < head.tip.seq && skips => VaultState::Parted(counts),
                None if seq < head.tip.seq => VaultState::Behind(seq),
                None if rescue::is_unfinished(&replica)? => VaultState::Unfinished,
                None => VaultState::Whole,
            };
            return Ok(found);
        }
        let mut vault = self.heal_vault(id)?;
        let looked = if seq == head.tip.seq { vault.follow_repair().await } else { vault.pull().await };
        found.state = match looked {
            Err(ClientError::Rollback(_) | ClientError::Fork(_)) => {
                VaultState::Parted(ServerChain::shared(&vault).await?)
            }
            Err(ClientError::Fault(text)) => VaultState::Fault(text),
            // What it withholds another device may have to give back; the sync after this tells.
            Err(ClientError::KeysBehind(_) | ClientError::Incomplete(_)) => VaultState::Whole,
            other => {
                other?;
                let late = late::first_late(&vault, self.keyring.device_log(), &self.db, false)?;
                match late {
                    Some((seq, device)) => VaultState::Fault(late_text(seq, device)),
                    None if rescue::is_unfinished(&vault.replica)? => VaultState::Unfinished,
                    None => VaultState::Whole,
                }
            }
        };
        Ok(found)
    }

    /// A vault over what is held, the keyring too.
    pub(crate) fn heal_vault(&self, id: VaultId) -> Result<Vault> {
        if id != self.keyring.setup.vault() {
            return self.open_held(id);
        }
        let setup = self.keyring.setup.clone();
        let log = std::sync::Arc::clone(self.keyring.device_log());
        Ok(Vault::new(setup, log, self.keyring.replica.clone(), std::sync::Arc::clone(&self.api)))
    }

    /// Gives the server the device-log entries back that it lacks. They carry the identity's signatures, so that no
    /// session is needed: this device may be one that the server forgot.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the server went on by itself meanwhile.
    pub async fn heal_log(&mut self) -> Result<()> {
        // The sign-in record of an older copy may be that of an older passphrase: remembered until it is renewed.
        self.db.set_meta(SIGN_IN_DUE, b"1")?;
        let held = self.db.device_log()?;
        let missing = || ClientError::Damaged("the home is damaged: there is no key header".into());
        let key_header = self.db.key_header()?.ok_or_else(missing)?;
        let mut entries: Vec<Signed> = Vec::new();
        let mut bytes = key_header.bytes.0.len();
        for entry in held.into_iter().rev() {
            bytes = bytes.saturating_add(entry.bytes.0.len()).saturating_add(128);
            if bytes > limits::SMALL_BODY_BYTES_MAX {
                break;
            }
            entries.push(entry);
        }
        entries.reverse();
        let body = HealDevices { account: self.id(), entries, key_header };
        self.api.post_open_nothing("/v1/heal/devices", &body).await
    }
}

impl Account {
    /// Gives the server the vaults and commits back that it lacks.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn give_all_back(&mut self, diagnosis: &Diagnosis, healed: &mut Healed) -> Result<()> {
        for found in &diagnosis.vaults {
            let after = match &found.state {
                VaultState::Missing => {
                    self.give_birth_back(found.vault).await?;
                    Seq::new(0)
                }
                VaultState::Behind(seq) => *seq,
                _ => continue,
            };
            healed.commits += self.give_back(found.vault, after, &mut healed.not_held).await?;
        }
        Ok(())
    }
}

impl Account {
    /// Sends what waits although the server lost objects that it names: a healing that was cut off left it so.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn push_healing(&mut self) -> Result<()> {
        for entry in self.vaults()? {
            // What was never synced here waits for nothing.
            if !self.holds(entry.vault)? {
                continue;
            }
            let mut vault = self.open_held(entry.vault)?;
            vault.pull().await?;
            self.check_pins_of(&vault, true)?;
            self.check_late(&vault)?;
            self.prepare_rotation(&mut vault).await?;
            vault.healing().sync().await?;
        }
        Ok(())
    }
}

impl Owner<'_> {
    /// Joins the chains that parted, and repairs what does not count. It can be cut off anywhere, and goes on when
    /// it is asked for again.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn join_all(&mut self, diagnosis: &Diagnosis, healed: &mut Healed) -> Result<()> {
        for found in &diagnosis.vaults {
            if matches!(found.state, VaultState::Parted(_) | VaultState::Fault(_) | VaultState::Unfinished) {
                self.join(found.vault, healed).await?;
            }
        }
        Ok(())
    }
}

fn late_text(seq: Seq, device: lockstep_proto::DeviceId) -> String {
    format!("commit {seq} is by device {device}, which was revoked before it")
}

/// Whether an error says that this server may be one to heal.
pub fn may_be_healed(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Rollback(_) | ClientError::Fork(_) | ClientError::Fault(_) | ClientError::SignedOut
    ) || matches!(error.code(), Some(Code::LogMoved))
}

/// What a stored commit's change list names, decoded; for giving commits back.
pub(crate) fn changes_of(bytes: &[u8]) -> Result<lockstep_proto::commit::Changes> {
    lockstep_proto::commit::Changes::decode(bytes)
        .map_err(|error| ClientError::Damaged(format!("a stored change list can not be read: {error}")))
}
