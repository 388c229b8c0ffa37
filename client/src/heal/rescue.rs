//! Joining chains that parted: what this device holds of the one that is given up is carried over as pending writes,
//! and the owner signs a repair that says which commits no longer count. Nothing is dropped: what can not or must
//! not be carried over stays on the shelf, for review.

use super::Healed;
use super::chain::ServerChain;
use crate::account::Owner;
use crate::error::{ClientError, Result};
use crate::replica::{Shelved, VaultReplica};
use crate::rng;
use crate::vault::Vault;
use lockstep_client_crypto::vault::Opened;
use lockstep_engine::files::{FILE_TYPE, SNAPSHOT_TYPE, SnapshotDoc};
use lockstep_engine::keyring::{DEVICE_NAME_TYPE, HEAD_PIN_TYPE, VAULT_KEY_TYPE, VAULT_TYPE};
use lockstep_engine::repair::{self, Plan, head_at};
use lockstep_engine::replica::{Pinning, Policy, Replica as _, WriteOp};
use lockstep_engine::{NewRecord, read};
use lockstep_proto::api::vault::{Entries, GetEnvelopes, PushCommit, Pushed};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::envelope::{self, KIND_DOCUMENT};
use lockstep_proto::id::{DeviceId, RecordId, Revision, Seq, VaultId};
use lockstep_proto::{Digest, limits};
use std::collections::{BTreeMap, BTreeSet};

/// Commits that one repair abandons at most; more take several.
const ABANDONED_A_REPAIR: usize = 2000;
const RECORDS_A_PUT: usize = 500;

/// Whether something on the shelf waits: versions to be carried over, or commits that no repair abandons yet.
pub(super) fn is_unfinished(replica: &VaultReplica) -> Result<bool> {
    Ok(replica.shelved()?.iter().any(|shelved| shelved.waits) || !unnamed(replica)?.is_empty())
}

/// Commits of a chain that was given up here and that no verified repair abandons.
fn unnamed(replica: &VaultReplica) -> Result<Vec<(Seq, Digest)>> {
    let mut commits = replica.shelved_commits()?;
    let mut left = Vec::new();
    for (seq, hash) in commits.drain(..) {
        if !replica.is_abandoned(seq, hash)? {
            left.push((seq, hash));
        }
    }
    Ok(left)
}

impl Owner<'_> {
    /// Joins the server's chain of a vault with the one that is held here.
    pub(super) async fn join(&mut self, id: VaultId, healed: &mut Healed) -> Result<()> {
        let mut vault = self.account().heal_vault(id)?.healing();
        let mut shown = ServerChain::read(&vault, None).await?;
        if head_of(&vault)?.0 > shown.shared {
            vault.replica.apply(&repair::give_up(&vault.replica, shown.shared, true)?)?;
        }
        settle_others(&vault, &shown)?;
        self.carry_over(&mut vault, false, healed).await?;
        // The server's branch, as far as it is valid.
        match vault.pull().await {
            Ok(_) | Err(ClientError::Fault(_)) => {}
            Err(error) => return Err(error),
        }
        let late = self.first_late(&vault, &shown)?;
        if let Some(late) = late.and_then(Seq::previous).filter(|good| *good < shown.shared) {
            shown = ServerChain::read(&vault, Some(late)).await?;
        }
        self.repair(&mut vault, &shown, late, healed).await?;
        vault.pull().await?;
        self.carry_over_skipped(&mut vault, &shown, healed).await?;
        self.carry_over(&mut vault, true, healed).await?;
        if id == self.account().keyring.setup.vault() {
            return self.account().push_keyring().await;
        }
        match vault.sync().await {
            // A new key epoch comes first: with it the rest goes out in the usual way.
            Err(ClientError::KeysBehind(_)) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Puts what waits on the shelf as pending writes, in the order in which it was committed: everything but
    /// snapshots before the other chain is taken over, snapshots when it is known what that one touched.
    async fn carry_over(&mut self, vault: &mut Vault, snapshots: bool, healed: &mut Healed) -> Result<()> {
        let waiting: Vec<Shelved> = vault.replica.shelved()?.into_iter().filter(|row| row.waits).collect();
        let log = std::sync::Arc::clone(vault.device_log());
        let shelf = Shelf::open(vault, &waiting);
        let mut records = Vec::new();
        let mut done = Vec::new();
        for row in &waiting {
            let Some(opened) = shelf.opened.get(&row.id) else {
                healed.kept += u64::from(row.envelope.is_some());
                done.push(row.id);
                continue;
            };
            if (opened.content.record_type == SNAPSHOT_TYPE) != snapshots {
                continue;
            }
            done.push(row.id);
            let is_live = log.device(opened.header.device).is_some_and(|known| known.revoked.is_none());
            if !is_live {
                healed.kept += 1;
            } else if snapshots && !shelf.is_whole(vault, row, opened)? {
                healed.snapshots_left += 1;
                healed.kept += 1;
            } else if let Some(record) = carried(vault, opened, row.base)? {
                records.push(record);
            }
        }
        put(vault, records, healed).await?;
        vault.replica.settle_shelved(&done)
    }

    /// Signs and posts the repairs that are needed: one that goes back over commits that do not count, and those
    /// that name what was given up here.
    async fn repair(
        &mut self,
        vault: &mut Vault,
        shown: &ServerChain,
        late: Option<Seq>,
        healed: &mut Healed,
    ) -> Result<()> {
        let mut abandoned = unnamed(&vault.replica)?;
        let mut end = shown.end(&vault.replica)?;
        let verified = head_of(vault)?.0;
        let mut good = match late.and_then(Seq::previous) {
            Some(before) if before < verified => before,
            _ => verified,
        };
        while good < end.0 || !abandoned.is_empty() {
            let rest = abandoned.split_off(abandoned.len().min(ABANDONED_A_REPAIR));
            let target = end.0.next().skip_target();
            let plan = Plan {
                last: end,
                skip: if target == end.0 { end.1 } else { shown.hash_at(&vault.replica, target)? },
                good: head_at(&vault.replica, good)?,
                abandoned: std::mem::replace(&mut abandoned, rest),
                utc: rng::now_utc(),
            };
            let devices = std::sync::Arc::clone(vault.device_log());
            let built = repair::build(&vault.setup, &devices, &plan, |place, says| {
                self.unlocked().authorise_repair(place, says)
            });
            // Remembered before it is sent: met again in the chain, it is known as this device's own.
            vault.replica.apply(&[WriteOp::DropInFlight, WriteOp::SetInFlight(built.clone())])?;
            let push = PushCommit {
                commit: built.commit,
                changes: built.changes.into(),
                envelopes: Vec::new(),
                heals: false,
            };
            let path = format!("/v1/vaults/{}/commits", vault.setup.vault());
            let _pushed: Pushed = self.account().api.post(&path, &push).await?;
            healed.repairs += 1;
            vault.pull().await?;
            end = head_of(vault)?;
            good = end.0;
        }
        Ok(())
    }

    /// The first commit, here or of the server's branch, that a revoked device wrote late: it was accepted while the
    /// revocation was forgotten.
    fn first_late(&mut self, vault: &Vault, shown: &ServerChain) -> Result<Option<Seq>> {
        let account = self.account();
        let log = std::sync::Arc::clone(account.keyring.device_log());
        let is_revoked = |device: DeviceId| log.device(device).is_some_and(|known| known.revoked.is_some());
        // On a branch that the revocation did not see, nothing of the device is at or before its pin.
        let parted = !unnamed(&vault.replica)?.is_empty();
        let shown = shown.commits.iter().find(|commit| parted && is_revoked(commit.device));
        let held = crate::late::first_late(vault, &log, &account.db, false)?.map(|(seq, _)| seq);
        Ok(shown.map(|commit| commit.seq).into_iter().chain(held).min())
    }

    /// Versions of the server's branch that a repair went back over: those of live devices are carried over, the
    /// others are kept for review.
    async fn carry_over_skipped(
        &mut self,
        vault: &mut Vault,
        shown: &ServerChain,
        healed: &mut Healed,
    ) -> Result<()> {
        let skipped = crate::late::skipped(&vault.replica)?;
        let is_skipped = |seq: Seq| skipped.iter().any(|(to, repair)| seq > *to && seq < *repair);
        let log = std::sync::Arc::clone(vault.device_log());
        let mut first = true;
        let mut newest: BTreeMap<RecordId, NewRecord> = BTreeMap::new();
        for commit in shown.commits.iter().filter(|commit| is_skipped(commit.seq)) {
            // The first one is the one that does not count by itself.
            let trusted = !std::mem::take(&mut first)
                && log.device(commit.device).is_some_and(|known| known.revoked.is_none());
            let records = shown.versions.get(&commit.seq).map_or(&[][..], Vec::as_slice);
            for (record, envelope) in fetch(vault, commit.seq, records).await? {
                let opened = vault.setup.keys.open(&envelope).ok();
                let digest = envelope::digest(&envelope);
                let fate = match opened.filter(|_| trusted) {
                    Some(opened) if opened.content.record_type != SNAPSHOT_TYPE => {
                        let base = vault.replica.record(record)?.map_or(Revision::new(0), |row| row.revision);
                        Some(carried(vault, &opened, base)?)
                    }
                    _ => None,
                };
                if let Some(new) = fate {
                    newest.remove(&record);
                    newest.extend(new.map(|new| (record, new)));
                    continue;
                }
                newest.remove(&record);
                healed.kept += 1;
                vault.replica.shelve(&for_review(commit.seq, commit.hash, record, envelope), digest)?;
            }
        }
        put(vault, newest.into_values().collect(), healed).await
    }
}

/// What another device's repair abandoned, that device carried over.
fn settle_others(vault: &Vault, shown: &ServerChain) -> Result<()> {
    let mut done = Vec::new();
    for row in vault.replica.shelved()?.into_iter().filter(|row| row.waits) {
        // Of an earlier healing here that was cut off, the repair is this device's own: it goes on.
        if row.commit.is_some_and(|hash| shown.abandoned.contains(&(row.seq, hash))) {
            done.push(row.id);
        }
    }
    vault.replica.settle_shelved(&done)
}

fn for_review(seq: Seq, commit: Digest, record: RecordId, envelope: Vec<u8>) -> Shelved {
    let header = envelope::decode(&envelope).ok().map(|(_, header)| header);
    Shelved {
        id: 0,
        seq,
        commit: Some(commit),
        base: Revision::new(0),
        record,
        revision: header.as_ref().map_or(Revision::new(0), |header| header.revision),
        kind: header.map_or(KIND_DOCUMENT, |header| header.kind),
        envelope: Some(envelope),
        waits: false,
    }
}

async fn put(vault: &mut Vault, records: Vec<NewRecord>, healed: &mut Healed) -> Result<()> {
    let mut records = records.into_iter().peekable();
    while records.peek().is_some() {
        let some: Vec<NewRecord> = records.by_ref().take(RECORDS_A_PUT).collect();
        healed.carried += u64::try_from(some.len()).unwrap_or(0);
        vault.put(some).await?;
    }
    Ok(())
}

fn head_of(vault: &Vault) -> Result<(Seq, Digest)> {
    let head = vault.replica.head()?;
    let head = head.ok_or_else(|| ClientError::Damaged("the vault was never synced here".into()))?;
    Ok((head.tip.seq, head.tip.hash))
}

/// Envelopes of a commit that does not count, as the server has them.
async fn fetch(vault: &Vault, seq: Seq, records: &[RecordId]) -> Result<Vec<(RecordId, Vec<u8>)>> {
    let path = format!("/v1/vaults/{}/envelopes/get", vault.setup.vault());
    let mut found = Vec::new();
    let mut wanted: Vec<RecordId> = records.to_vec();
    while !wanted.is_empty() {
        let some: Vec<(Seq, RecordId)> =
            wanted.iter().take(limits::PAGE_ENTRIES_MAX / 4).map(|record| (seq, *record)).collect();
        let page: Entries = vault.api().post(&path, &GetEnvelopes(some.clone())).await?;
        let got: BTreeSet<RecordId> = page.entries.iter().map(|entry| entry.record).collect();
        let asked: BTreeSet<RecordId> = some.into_iter().map(|(_, record)| record).collect();
        // What is not there any more is left out; a full page is asked for again without what came.
        let done: BTreeSet<RecordId> = if page.more { got } else { asked };
        if done.is_empty() {
            break;
        }
        wanted.retain(|record| !done.contains(record));
        found.extend(page.entries.into_iter().map(|entry| (entry.record, entry.envelope.0)));
    }
    Ok(found)
}

/// What waits on the shelf, opened.
struct Shelf {
    opened: BTreeMap<i64, Opened>,
    /// Of each record the newest version that waits, and the source that it is a file of.
    newest: BTreeMap<RecordId, (Seq, Vec<u8>)>,
    /// Versions whose envelopes were replaced before they could be kept.
    bare: Vec<(Seq, RecordId)>,
}

impl Shelf {
    fn open(vault: &Vault, waiting: &[Shelved]) -> Self {
        let mut shelf = Self { opened: BTreeMap::new(), newest: BTreeMap::new(), bare: Vec::new() };
        // Files that were put before the snapshots count, too.
        let all = vault.replica.shelved().unwrap_or_default();
        for row in &all {
            let Some(envelope) = &row.envelope else {
                shelf.bare.push((row.seq, row.record));
                continue;
            };
            let Ok(opened) = vault.setup.keys.open(envelope) else { continue };
            let group = match opened.content.record_type.as_str() {
                FILE_TYPE => opened.content.name.0.get(..16).unwrap_or_default().to_vec(),
                _ => Vec::new(),
            };
            shelf.newest.insert(row.record, (row.seq, group));
            if waiting.iter().any(|waits| waits.id == row.id) {
                shelf.opened.insert(row.id, opened);
            }
        }
        shelf
    }

    /// Whether the state that holds now, with what was carried over, is the one of a snapshot as far as its source
    /// goes: nothing of the source was replaced or written after it on this side, and nothing on the other.
    fn is_whole(&self, vault: &Vault, row: &Shelved, snapshot: &Opened) -> Result<bool> {
        let Ok(doc) = SnapshotDoc::decode(&snapshot.content.document.0) else { return Ok(false) };
        let source = doc.source.as_bytes();
        let is_ours = |record: &RecordId| self.newest.get(record).is_some_and(|(_, group)| group == source);
        let replaced = self.bare.iter().any(|(_, record)| is_ours(record));
        let later = self.newest.values().any(|(seq, group)| group == source && *seq > row.seq);
        let shared = vault.replica.shelved()?.iter().map(|row| row.seq).min().and_then(Seq::previous);
        let files = vault.replica.tagged(FILE_TYPE, source)?;
        let other_side = files.iter().any(|file| Some(file.seq) > shared);
        Ok(!replaced && !later && !other_side)
    }
}

/// A version as a write of its own, upon the revision that it stood on; none if it says nothing new. Where somebody
/// changed the record since, both versions are kept; of a file the one that is there stays, and its device's next
/// backup says what is right.
fn carried(vault: &Vault, opened: &Opened, base: Revision) -> Result<Option<NewRecord>> {
    let content = &opened.content;
    let Some(mut new) = new_record(opened) else { return Ok(None) };
    let record = vault.setup.keys.record_id(&content.record_type, &content.name.0);
    let row = vault.replica.record(record)?;
    let revision = row.map_or(Revision::new(0), |row| row.revision);
    let is_pending = !vault.replica.pending_of(record)?.is_empty();
    // A version that counts again may not have been fetched yet; what it says is not known then.
    if is_pending || row.is_none_or(|row| row.present) {
        let current = read::current(&vault.replica, &vault.setup.keys, record)?;
        let there = current.as_ref().map(|current| (&current.content.document, &current.content.blobs));
        let ours = new.document.is_some().then_some((&content.document, &content.blobs));
        if there == ours {
            return Ok(None);
        }
    }
    if revision == base && !is_pending {
        return Ok(Some(new));
    }
    // A deletion or a write-once record that lost says nothing; an edit lives on as a copy.
    if new.document.is_none() || new.policy != Policy::KeepBoth {
        return Ok(None);
    }
    new.name.truncate(limits::APP_NAME_BYTES_MAX.saturating_sub(COPY_SUFFIX_BYTES));
    new.name.push(0);
    new.name.extend_from_slice(content.operation.as_bytes());
    let copy = vault.setup.keys.record_id(&new.record_type, &new.name);
    let is_there = vault.replica.record(copy)?.is_some() || !vault.replica.pending_of(copy)?.is_empty();
    Ok((!is_there).then_some(new))
}

/// A zero byte and an operation id behind a name.
const COPY_SUFFIX_BYTES: usize = 17;

fn new_record(opened: &Opened) -> Option<NewRecord> {
    let content = &opened.content;
    let policy = match content.record_type.as_str() {
        HEAD_PIN_TYPE => return None,
        VAULT_KEY_TYPE | VAULT_TYPE | FILE_TYPE => Policy::AdoptCommitted,
        DEVICE_NAME_TYPE => Policy::Overwrite,
        _ => Policy::KeepBoth,
    };
    let is_document = opened.header.kind == KIND_DOCUMENT;
    let pins = content.record_type == SNAPSHOT_TYPE && is_document;
    Some(NewRecord {
        record_type: content.record_type.clone(),
        name: content.name.0.clone(),
        schema: content.schema,
        document: is_document.then(|| content.document.0.clone()),
        blobs: content.blobs.clone(),
        policy,
        pin: if pins { Pinning::Pin } else { Pinning::None },
        expected: None,
    })
}
