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
use lockstep_engine::NewRecord;
use lockstep_engine::files::{FILE_TYPE, SNAPSHOT_TYPE, SnapshotDoc};
use lockstep_engine::keyring::{DEVICE_NAME_TYPE, HEAD_PIN_TYPE, VAULT_KEY_TYPE, VAULT_TYPE};
use lockstep_engine::repair::{self, Plan, head_at};
use lockstep_engine::replica::{Pinning, Policy, Replica as _, WriteOp};
use lockstep_proto::api::vault::{Entries, GetEnvelopes, PushCommit, Pushed};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::envelope::{self, KIND_DOCUMENT};
use lockstep_proto::id::{DeviceId, RecordId, Seq, VaultId};
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
        let shown = ServerChain::read(&vault).await?;
        let held = head_of(&vault)?;
        if held.0 > shown.shared {
            let ops = repair::give_up(&vault.replica, shown.shared)?;
            vault.replica.apply(&ops)?;
        }
        settle_others(&vault, &shown)?;
        self.carry_over(&mut vault, &shown, healed).await?;
        // The server's branch, as far as it is valid.
        match vault.pull().await {
            Ok(_) | Err(ClientError::Fault(_)) => {}
            Err(error) => return Err(error),
        }
        self.repair(&mut vault, &shown, healed).await?;
        vault.pull().await?;
        self.carry_over_skipped(&mut vault, &shown, healed).await?;
        if id == self.account().keyring.setup.vault() {
            return self.account().push_keyring().await;
        }
        match vault.sync().await {
            // A new key epoch comes first: with it the rest goes out in the usual way.
            Err(ClientError::KeysBehind(_)) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Puts what waits on the shelf as pending writes, in the order in which it was committed.
    async fn carry_over(
        &mut self,
        vault: &mut Vault,
        shown: &ServerChain,
        healed: &mut Healed,
    ) -> Result<()> {
        let waiting: Vec<Shelved> = vault.replica.shelved()?.into_iter().filter(|row| row.waits).collect();
        let shelf = Shelf::open(vault, &waiting);
        let mut records = Vec::new();
        let mut done = Vec::new();
        for row in &waiting {
            done.push(row.id);
            match shelf.fate(row, &shown.records) {
                Fate::Carry(record) => records.push(*record),
                Fate::Keep => healed.kept += u64::from(row.envelope.is_some()),
                Fate::Drop => {}
                Fate::Incomplete => {
                    healed.snapshots_left += 1;
                    healed.kept += 1;
                }
            }
        }
        put(vault, records, healed).await?;
        vault.replica.settle_shelved(&done)
    }

    /// Signs and posts the repairs that are needed: one that goes back over commits that do not count, and those
    /// that name what was given up here.
    async fn repair(&mut self, vault: &mut Vault, shown: &ServerChain, healed: &mut Healed) -> Result<()> {
        let mut abandoned = unnamed(&vault.replica)?;
        let mut end = shown.end(&vault.replica)?;
        let late = self.first_late(shown);
        let verified = head_of(vault)?.0;
        let mut good = match late {
            Some(late) if late <= verified => late.previous().unwrap_or(shown.shared),
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

    /// The first commit of the server's branch that a revoked device wrote: it was accepted while the revocation
    /// was forgotten.
    fn first_late(&mut self, shown: &ServerChain) -> Option<Seq> {
        let log = std::sync::Arc::clone(self.account().keyring.device_log());
        let is_revoked = |device: DeviceId| log.device(device).is_some_and(|known| known.revoked.is_some());
        shown.commits.iter().find(|commit| is_revoked(commit.device)).map(|commit| commit.seq)
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
                let fate = opened.filter(|_| trusted).map(|opened| new_record(&opened, false));
                if let Some(new) = fate.flatten() {
                    newest.insert(record, new);
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

fn for_review(seq: Seq, commit: Digest, record: RecordId, envelope: Vec<u8>) -> Shelved {
    let header = envelope::decode(&envelope).ok().map(|(_, header)| header);
    Shelved {
        id: 0,
        seq,
        commit: Some(commit),
        record,
        revision: header.as_ref().map_or(lockstep_proto::Revision::new(0), |header| header.revision),
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

/// What becomes of a version on the shelf.
enum Fate {
    Carry(Box<NewRecord>),
    /// It stays for review.
    Keep,
    /// It says nothing any more.
    Drop,
    /// A snapshot of which something is not held.
    Incomplete,
}

/// What waits on the shelf, opened.
struct Shelf {
    opened: BTreeMap<i64, Opened>,
    /// Of each record the newest version that waits, and the group that its index says.
    newest: BTreeMap<RecordId, (Seq, Vec<u8>)>,
    /// Versions whose envelopes were replaced before they could be kept.
    bare: Vec<(Seq, RecordId)>,
}

impl Shelf {
    fn open(vault: &Vault, waiting: &[Shelved]) -> Self {
        let mut shelf = Self { opened: BTreeMap::new(), newest: BTreeMap::new(), bare: Vec::new() };
        for row in waiting {
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
            shelf.opened.insert(row.id, opened);
        }
        shelf
    }

    fn fate(&self, row: &Shelved, written: &BTreeSet<RecordId>) -> Fate {
        let Some(opened) = self.opened.get(&row.id) else { return Fate::Keep };
        if opened.content.record_type == HEAD_PIN_TYPE {
            return Fate::Drop;
        }
        if opened.content.record_type == SNAPSHOT_TYPE && !self.is_whole(row.seq, opened, written) {
            return Fate::Incomplete;
        }
        new_record(opened, true).map_or(Fate::Keep, |record| Fate::Carry(Box::new(record)))
    }

    /// Whether the files of a snapshot can be put as they were after its commit: none of them was replaced since on
    /// this side, and none was written on the other.
    fn is_whole(&self, seq: Seq, snapshot: &Opened, written: &BTreeSet<RecordId>) -> bool {
        let Ok(doc) = SnapshotDoc::decode(&snapshot.content.document.0) else { return false };
        let source = doc.source.as_bytes();
        let is_ours = |record: &RecordId| self.newest.get(record).is_some_and(|(_, group)| group == source);
        let replaced = self.bare.iter().any(|(at, record)| *at <= seq && is_ours(record));
        let other_side =
            self.newest.iter().any(|(record, (_, group))| group == source && written.contains(record));
        !replaced && !other_side
    }
}

/// What another device's repair abandoned, that device carried over.
fn settle_others(vault: &Vault, shown: &ServerChain) -> Result<()> {
    let shelved = vault.replica.shelved()?;
    let done: Vec<i64> = shelved
        .iter()
        .filter(|row| row.waits && row.commit.is_some_and(|hash| shown.abandoned.contains(&(row.seq, hash))))
        .map(|row| row.id)
        .collect();
    vault.replica.settle_shelved(&done)
}

/// A version as a write of its own.
fn new_record(opened: &Opened, pins: bool) -> Option<NewRecord> {
    let content = &opened.content;
    let policy = match content.record_type.as_str() {
        HEAD_PIN_TYPE => return None,
        VAULT_KEY_TYPE | VAULT_TYPE => Policy::AdoptCommitted,
        DEVICE_NAME_TYPE => Policy::Overwrite,
        // A snapshot is the state of a commit that no longer counts, unless all of it is carried over.
        SNAPSHOT_TYPE if !pins => return None,
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
