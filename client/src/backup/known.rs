//! What the vault has of a source, as a run needs it: 33 bytes an entry, whatever the records are like.

use super::plan::Known;
use super::scan::{Entry, Kind, Stat};
use crate::error::Result;
use crate::vault::Vault;
use lockstep_client_crypto::content::Content;
use lockstep_client_crypto::local::LocalKeys;
use lockstep_engine::files::{FILE_TYPE, FileDoc, file_name};
use lockstep_engine::read;
use lockstep_engine::replica::Replica as _;
use lockstep_proto::cbor::{Wire as _, encode};
use lockstep_proto::envelope::KIND_DOCUMENT;
use lockstep_proto::id::{RecordId, SourceId};
use std::collections::HashMap;
use std::sync::Arc;

/// Time stamps may be as coarse as this.
const MARGIN_NANOS: u32 = 20_000_000;

/// The files of a source that the vault has, pending writes included, and which of them a run has met.
pub(super) struct KnownFiles {
    records: Vec<RecordId>,
    met: Vec<bool>,
    stats: Vec<(RecordId, [u8; 16])>,
    keys: Arc<LocalKeys>,
}

impl KnownFiles {
    pub(super) fn load(vault: &Vault, source: SourceId) -> Result<Self> {
        let mut records = vault.replica.file_ids(FILE_TYPE, source)?;
        // An interrupted run may have left writes that wait for the server; they count.
        let mut pending = HashMap::new();
        for row in vault.replica.pending(usize::MAX)? {
            let Ok(content) = Content::decode(&row.content) else { continue };
            if content.record_type == FILE_TYPE && content.name.0.starts_with(source.as_bytes()) {
                pending.insert(row.record, row.kind == KIND_DOCUMENT);
            }
        }
        records.retain(|record| !pending.contains_key(record));
        records.extend(pending.into_iter().filter_map(|(record, is_there)| is_there.then_some(record)));
        records.sort_unstable();
        let met = vec![false; records.len()];
        let stats = vault.replica.stat_tags()?;
        Ok(Self { records, met, stats, keys: vault.replica.db().shared_keys() })
    }

    /// Whether the vault has a record; it is not among the unmet any more.
    pub(super) fn meet(&mut self, record: RecordId) -> bool {
        let Ok(at) = self.records.binary_search(&record) else { return false };
        if let Some(met) = self.met.get_mut(at) {
            *met = true;
        }
        true
    }

    /// Records that were not met.
    pub(super) fn unmet(&self) -> Vec<RecordId> {
        let both = self.records.iter().zip(&self.met);
        both.filter_map(|(record, met)| (!met).then_some(*record)).collect()
    }

    /// Whether an entry looks exactly as when it was recorded last.
    pub(super) fn is_untouched(&self, record: RecordId, entry: &Entry) -> bool {
        let at = self.stats.binary_search_by_key(&record, |(known, _)| *known);
        let known = at.ok().and_then(|at| self.stats.get(at));
        known.is_some_and(|(_, tag)| *tag == stat_tag(&self.keys, record, &entry.kind, &entry.stat))
    }

    /// A row of the stat cache, unless the file was touched so recently that another write could hide in the same tick of
    /// its clock.
    pub(super) fn stat_row(
        &self,
        record: RecordId,
        kind: &Kind,
        stat: &Stat,
        scan_begin: (i64, u32),
    ) -> Option<(RecordId, [u8; 16])> {
        let newest = stat.mtime.max(stat.ctime);
        let margin = match scan_begin.1.checked_sub(MARGIN_NANOS) {
            Some(nanos) => (scan_begin.0, nanos),
            None => (scan_begin.0.saturating_sub(1), scan_begin.1 + 1_000_000_000 - MARGIN_NANOS),
        };
        (newest < margin).then(|| (record, stat_tag(&self.keys, record, kind, stat)))
    }
}

fn stat_tag(keys: &LocalKeys, record: RecordId, kind: &Kind, stat: &Stat) -> [u8; 16] {
    let target = match kind {
        Kind::Link(target) => target.as_slice(),
        Kind::File | Kind::Folder => &[],
    };
    let value = encode(&(
        record,
        stat.size,
        stat.mtime,
        stat.ctime,
        stat.inode,
        stat.mode,
        lockstep_proto::Bytes::from(target.to_vec()),
    ));
    keys.tag("stat", &value)
}

/// What the vault has at the place of a record, pending writes included.
pub(super) fn known_at(vault: &Vault, record: RecordId) -> Result<Option<Known>> {
    let Some(current) = read::current(&vault.replica, &vault.setup.keys, record)? else { return Ok(None) };
    let doc = FileDoc::decode(&current.content.document.0).ok();
    let blob = current.content.blobs.into_iter().next();
    Ok(doc.map(|doc| Known::new(record, doc, blob)))
}

/// The record of a path.
pub(super) fn record_of(vault: &Vault, source: SourceId, path: &[u8]) -> RecordId {
    vault.setup.keys.record_id(FILE_TYPE, &file_name(source, path))
}
