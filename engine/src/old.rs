//! An envelope that is not the one that its commit announced: an older version of the record is a rollback of it, and
//! anything else is no answer.

use crate::error::EngineError;
use crate::replica::{RecordRow, Replica, Result, VersionRow};
use lockstep_proto::Digest;
use lockstep_proto::id::VaultId;

/// Why an envelope with this digest is refused in the place of `announced`; `fresh` are versions that were verified and
/// are not held yet.
pub(crate) fn refusal(
    replica: &dyn Replica,
    vault: VaultId,
    fresh: &[VersionRow],
    announced: &RecordRow,
    digest: Digest,
) -> EngineError {
    let RecordRow { record, seq, .. } = *announced;
    match older(replica, fresh, announced, digest) {
        Ok(Some(old)) => EngineError::RecordRollback { vault, record, seq, old: old.seq },
        Ok(None) => EngineError::server(format!("record {record} is not as its commit announced it")),
        Err(error) => error,
    }
}

/// The version with this digest among those that `announced` replaced.
fn older(
    replica: &dyn Replica,
    fresh: &[VersionRow],
    announced: &RecordRow,
    digest: Digest,
) -> Result<Option<VersionRow>> {
    let record = announced.record;
    let mut place = Some(announced.seq);
    while let Some(seq) = place {
        let here = fresh.iter().find(|row| row.seq == seq && row.record == record).copied();
        let Some(row) = (match here {
            Some(row) => Some(row),
            None => replica.version(seq, record)?,
        }) else {
            break;
        };
        if seq < announced.seq && row.digest == digest {
            return Ok(Some(row));
        }
        // Descending, so that this ends whatever the replica says.
        place = row.previous_seq.filter(|previous| *previous < seq);
    }
    Ok(None)
}
