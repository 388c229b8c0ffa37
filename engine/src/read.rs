//! Reading: the present (pending writes included) and the past (versions in force after a commit).

use crate::engine::Setup;
use crate::error::EngineError;
use crate::replica::{RecordRow, Replica, Result, VersionRow};
use lockstep_client_crypto::content::Content;
use lockstep_client_crypto::vault::{Opened, VaultKeys};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::envelope::KIND_DOCUMENT;
use lockstep_proto::id::{RecordId, Revision, Seq, VaultId};

/// A record as it stands here.
#[derive(Debug, Clone)]
pub struct Current {
    /// Content.
    pub content: Content,
    /// Verified revision; 0 if the server has none yet.
    pub revision: Revision,
    /// Whether a write of it waits for the server.
    pub pending: bool,
}

/// The record of a type and name, pending writes included; none if it is not there or deleted.
///
/// # Errors
/// [`EngineError::NotHeld`] if it was let go of, [`EngineError::Incomplete`] if it is missing, [`EngineError::Replica`] if
/// what is held is damaged.
pub fn current(replica: &dyn Replica, keys: &VaultKeys, record: RecordId) -> Result<Option<Current>> {
    let row = replica.record(record)?;
    let revision = row.map_or(Revision::new(0), |row| row.revision);
    if let Some(last) = replica.pending_of(record)?.pop() {
        if last.kind != KIND_DOCUMENT {
            return Ok(None);
        }
        let content = Content::decode(&last.content).map_err(EngineError::replica)?;
        return Ok(Some(Current { content, revision, pending: true }));
    }
    match row {
        Some(row) if row.kind == KIND_DOCUMENT && !row.present => Err(absence(replica, keys.vault(), &row)?),
        Some(row) if row.kind == KIND_DOCUMENT => {
            let content = open(replica, keys, &row)?;
            Ok(content.map(|content| Current { content, revision, pending: false }))
        }
        _ => Ok(None),
    }
}

/// Why an envelope is not here: it was let go of, or the server withholds it.
///
/// # Errors
/// The replica's.
pub fn absence(replica: &dyn Replica, vault: VaultId, row: &RecordRow) -> Result<EngineError> {
    let (seq, record) = (row.seq, row.record);
    if replica.is_evicted(record)? {
        return Ok(EngineError::NotHeld { vault, seq, record });
    }
    Ok(EngineError::Incomplete { vault, seq, record })
}

/// Opens the newest envelope of a row; none if it is quarantined or not here.
///
/// # Errors
/// The replica's.
pub fn open(replica: &dyn Replica, keys: &VaultKeys, row: &RecordRow) -> Result<Option<Content>> {
    Ok(open_row(replica, keys, row)?.map(|opened| opened.content))
}

/// The same, with the header: who wrote it.
///
/// # Errors
/// The replica's.
pub fn open_row(replica: &dyn Replica, keys: &VaultKeys, row: &RecordRow) -> Result<Option<Opened>> {
    let Some(bytes) = replica.envelope(row.record)? else { return Ok(None) };
    if lockstep_proto::envelope::digest(&bytes) != row.digest {
        return Err(EngineError::replica(format!("the stored envelope of record {} is damaged", row.record)));
    }
    Ok(keys.open(&bytes).ok().filter(|opened| {
        let header = &opened.header;
        (header.record, header.revision, header.kind) == (row.record, row.revision, row.kind)
    }))
}

/// The version of a record that was in force after commit `seq`.
///
/// # Errors
/// The replica's.
pub fn version_at(replica: &dyn Replica, record: RecordId, seq: Seq) -> Result<Option<VersionRow>> {
    let mut place = replica.record(record)?.map(|row| row.seq);
    while let Some(at) = place {
        let version = replica
            .version(at, record)?
            .ok_or_else(|| EngineError::replica(format!("a version of record {record} is missing")))?;
        if version.seq <= seq {
            return Ok(Some(version));
        }
        if version.previous_seq.is_some_and(|previous| previous >= at) {
            return Err(EngineError::replica(format!("the versions of record {record} do not go back")));
        }
        place = version.previous_seq;
    }
    Ok(None)
}

/// Opens an envelope that was fetched for a version; none if it is to be quarantined.
///
/// # Errors
/// [`EngineError::Server`] if it is not the one that the commit announced.
pub fn open_version(
    replica: &dyn Replica,
    setup: &Setup,
    version: &VersionRow,
    bytes: &[u8],
) -> Result<Option<Content>> {
    let VersionRow { seq, record, revision, digest, kind, .. } = *version;
    let row = RecordRow { record, revision, digest, seq, kind, present: true };
    crate::pull::open_version(replica, setup, &row, bytes)
}
