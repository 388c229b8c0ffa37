//! Carrying over what waits on the shelf to the chain that counts, as pending writes.

use super::Healed;
use crate::account::Owner;
use crate::error::Result;
use crate::late;
use crate::replica::{Shelved, VaultReplica};
use crate::vault::Vault;
use lockstep_client_crypto::vault::Opened;
use lockstep_engine::files::{FILE_TYPE, SNAPSHOT_TYPE, SnapshotDoc};
use lockstep_engine::keyring::{DEVICE_NAME_TYPE, HEAD_PIN_TYPE, VAULT_KEY_TYPE, VAULT_TYPE};
use lockstep_engine::replica::{Pinning, Policy, Replica as _};
use lockstep_engine::{NewRecord, read};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::envelope::KIND_DOCUMENT;
use lockstep_proto::id::{RecordId, Revision, Seq};
use lockstep_proto::limits;
use std::collections::BTreeMap;

const RECORDS_A_PUT: usize = 500;

impl Owner<'_> {
    /// Puts what waits on the shelf as pending writes, in the order in which it was committed: what was given up here
    /// before the other chain is taken over, everything else once the repair is there, snapshots when it is known
    /// what the other chain touched.
    pub(super) async fn carry_over(
        &mut self,
        vault: &mut Vault,
        last: bool,
        healed: &mut Healed,
    ) -> Result<()> {
        let log = std::sync::Arc::clone(vault.device_log());
        let skipped = late::skipped(&vault.replica)?;
        let mut sources: Option<Sources> = None;
        let (mut records, mut done) = (Vec::new(), Vec::new());
        for row in vault.replica.waiting()? {
            if !last && !is_given_up(&vault.replica, &row)? {
                continue;
            }
            if counts(&vault.replica, &skipped, &row)? {
                done.push(row.id);
                continue;
            }
            let Some(opened) = open(vault, &row)? else {
                healed.kept += u64::from(row.has_envelope);
                if vault.replica.was_not_held(row.id)? {
                    healed.not_held.insert((row.seq, row.record));
                }
                done.push(row.id);
                continue;
            };
            let is_snapshot = opened.content.record_type == SNAPSHOT_TYPE;
            if is_snapshot && !last {
                continue;
            }
            done.push(row.id);
            if is_snapshot && sources.is_none() {
                sources = Some(Sources::read(vault)?);
            }
            let is_live = log.device(opened.header.device).is_some_and(|known| known.revoked.is_none());
            if !is_live {
                healed.kept += 1;
            } else if let Some(sources) = sources.as_ref().filter(|_| is_snapshot)
                && !sources.are_whole(vault, &row, &opened)?
            {
                healed.snapshots_left += 1;
                healed.kept += 1;
            } else if let Some(record) = carried(vault, &opened, row.base)? {
                records.push(record);
            }
            if records.len() >= RECORDS_A_PUT {
                put(vault, &mut records, &mut done, healed).await?;
            }
        }
        put(vault, &mut records, &mut done, healed).await
    }
}

async fn put(
    vault: &mut Vault,
    records: &mut Vec<NewRecord>,
    done: &mut Vec<i64>,
    healed: &mut Healed,
) -> Result<()> {
    if !records.is_empty() {
        healed.carried += u64::try_from(records.len()).unwrap_or(0);
        vault.put(std::mem::take(records)).await?;
    }
    vault.replica.settle_shelved(&std::mem::take(done))
}

/// Whether a version is of a chain that was given up here: it is due before the other chain is taken over.
fn is_given_up(replica: &VaultReplica, row: &Shelved) -> Result<bool> {
    Ok(match row.commit {
        Some(hash) => replica.gave_up(row.seq, hash)?,
        None => true,
    })
}

/// Whether a version's commit counts: it was to be gone back over, and was not.
fn counts(replica: &VaultReplica, skipped: &[(Seq, Seq)], row: &Shelved) -> Result<bool> {
    let is_here = row.commit.is_some() && replica.commit_hash(row.seq)? == row.commit;
    Ok(is_here && !skipped.iter().any(|(to, repair)| row.seq > *to && row.seq < *repair))
}

fn open(vault: &Vault, row: &Shelved) -> Result<Option<Opened>> {
    let envelope = vault.replica.shelved_envelope(row.id)?;
    Ok(envelope.and_then(|envelope| vault.setup.keys.open(&envelope).ok()))
}

/// What lies on the shelf of each source of files.
struct Sources {
    of: BTreeMap<Vec<u8>, Source>,
    /// The last commit before all of it.
    shared: Option<Seq>,
}

#[derive(Default)]
struct Source {
    /// The last commit that wrote a file of it.
    last: Option<Seq>,
    /// Whether versions of its files were replaced before they could be kept.
    is_replaced: bool,
}

impl Sources {
    fn read(vault: &Vault) -> Result<Self> {
        let mut newest: BTreeMap<RecordId, (Seq, Vec<u8>)> = BTreeMap::new();
        let mut bare = Vec::new();
        // Files that were put before the snapshots count, too.
        let rows = vault.replica.shelved()?;
        for row in &rows {
            if !row.has_envelope {
                bare.push(row.record);
            } else if let Some(opened) = open(vault, row)? {
                let group = match opened.content.record_type.as_str() {
                    FILE_TYPE => opened.content.name.0.get(..16).unwrap_or_default().to_vec(),
                    _ => Vec::new(),
                };
                newest.insert(row.record, (row.seq, group));
            }
        }
        let shared = rows.iter().map(|row| row.seq).min().and_then(Seq::previous);
        let mut of: BTreeMap<Vec<u8>, Source> = BTreeMap::new();
        for record in bare {
            if let Some((_, group)) = newest.get(&record) {
                of.entry(group.clone()).or_default().is_replaced = true;
            }
        }
        for (seq, group) in newest.into_values() {
            let source = of.entry(group).or_default();
            source.last = source.last.max(Some(seq));
        }
        Ok(Self { of, shared })
    }

    /// Whether the state that holds now, with what was carried over, is the one of a snapshot as far as its source
    /// goes: nothing of the source was replaced or written after it on this side, and nothing on the other.
    fn are_whole(&self, vault: &Vault, row: &Shelved, snapshot: &Opened) -> Result<bool> {
        let Ok(doc) = SnapshotDoc::decode(&snapshot.content.document.0) else { return Ok(false) };
        let source = doc.source.as_bytes();
        let here = self.of.get(&source[..]);
        if here.is_some_and(|here| here.is_replaced || here.last > Some(row.seq)) {
            return Ok(false);
        }
        let files = vault.replica.tagged(FILE_TYPE, source)?;
        Ok(!files.iter().any(|file| Some(file.seq) > self.shared))
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
