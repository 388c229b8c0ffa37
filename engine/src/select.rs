//! Holding less than everything (docs/adr/0015-selective-sync.md): which envelopes a device lets go of, and which it
//! wants back. Of what is not held, record, revision, digest and commit are known, so that everything stays verified.

use crate::engine::Setup;
use crate::error::EngineError;
use crate::pull::index_info;
use crate::read;
use crate::replica::{RecordRow, Replica, Result, WriteOp};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::Commit;
use lockstep_proto::id::{RecordId, Seq};
use std::collections::BTreeSet;

/// Record types of the library begin with this. What is of them is always held.
pub const LIBRARY_TYPES: &str = "lockstep/";

const DAY_S: u64 = 86_400;

/// What of a vault a device holds.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// What was written in the last so many days; none: whatever its age.
    pub days: Option<u64>,
    /// Records of these types; none: of all.
    pub types: Option<BTreeSet<String>>,
}

impl std::fmt::Debug for Selection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Selection([redacted])")
    }
}

impl Selection {
    /// What was written before this time is not held; seconds since 1970.
    pub fn since(&self, now_utc: u64) -> u64 {
        self.days.map_or(0, |days| now_utc.saturating_sub(days.saturating_mul(DAY_S)))
    }

    /// Whether records of a type are held.
    pub fn wants(&self, record_type: &str) -> bool {
        record_type.starts_with(LIBRARY_TYPES)
            || self.types.as_ref().is_none_or(|types| types.contains(record_type))
    }
}

/// When a commit says that it was written, by its author's clock. Nothing but what is held depends on it.
///
/// # Errors
/// [`EngineError::Replica`] if the commit is not here.
pub fn written(replica: &dyn Replica, seq: Seq) -> Result<u64> {
    let (signed, _) =
        replica.commit(seq)?.ok_or_else(|| EngineError::replica(format!("commit {seq} is missing")))?;
    Ok(Commit::decode(&signed.bytes.0).map_err(EngineError::replica)?.utc)
}

/// Lets go of envelopes that a selection does not hold, and says of the others when they are to be looked at again.
/// The envelope of a record that is still to be sent stays, and that of one that waits for a decision, or that does not
/// open: nobody can say of what type it is.
///
/// # Errors
/// The replica's.
pub fn evict(
    replica: &dyn Replica,
    setup: &Setup,
    selection: &Selection,
    now_utc: u64,
    rows: &[RecordRow],
) -> Result<Vec<WriteOp>> {
    let since = selection.since(now_utc);
    let mut ops = Vec::new();
    for row in rows.iter().filter(|row| row.present) {
        let record = row.record;
        if !replica.pending_of(record)?.is_empty() {
            continue;
        }
        // One that is damaged is for a check to tell.
        let info = match read::open_row(replica, &setup.keys, row) {
            Ok(Some(opened)) => Some(index_info(setup, &opened)),
            _ => None,
        };
        let info = info.filter(|info| !info.conflict && !info.record_type.starts_with(LIBRARY_TYPES));
        let utc = written(replica, row.seq)?;
        ops.push(match info {
            None => WriteOp::Hold(record, None),
            Some(info) if !selection.wants(&info.record_type) || utc < since => WriteOp::Evict(record),
            Some(_) => WriteOp::Hold(record, Some(utc)),
        });
    }
    Ok(ops)
}

/// Wants envelopes back: the next sync asks for them once everything else is done, and takes them as the commits announced
/// them.
///
/// # Errors
/// The replica's.
pub fn recall(replica: &dyn Replica, records: &[RecordId]) -> Result<Vec<WriteOp>> {
    let mut ops = Vec::new();
    for record in records {
        if replica.is_evicted(*record)? {
            ops.push(WriteOp::Recall(*record));
        }
    }
    Ok(ops)
}

/// No longer waits for envelopes that were never here and do not come: they are named, and asked for as what was recalled
/// is. Not where a write that is still to be sent has to be joined with one.
///
/// # Errors
/// The replica's.
pub fn give_up(replica: &dyn Replica, records: &[RecordId]) -> Result<Vec<WriteOp>> {
    let mut ops = Vec::new();
    for record in records {
        let is_absent = replica.record(*record)?.is_some_and(|row| !row.present);
        if is_absent && !replica.is_evicted(*record)? && replica.pending_of(*record)?.is_empty() {
            ops.push(WriteOp::Recall(*record));
        }
    }
    Ok(ops)
}
