//! Local writes: durable here before anything is sent.

use crate::effect::{Env, NewRecord};
use crate::engine::Setup;
use crate::error::EngineError;
use crate::replica::{Base, PendingRow, Pinning, Replica, Result, WriteOp};
use lockstep_client_crypto::content::Content;
use lockstep_client_crypto::secret::random_bytes;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::envelope::{KIND_DOCUMENT, KIND_TOMBSTONE, padded_size};
use lockstep_proto::id::{OperationId, RecordId, Revision};
use lockstep_proto::limits;
use std::collections::BTreeMap;

/// Header, commitment, tag and CBOR around a sealed plaintext; generous.
const ENVELOPE_OVERHEAD_BYTES: u64 = 512;

/// What a content may grow by after it was accepted: a base revision of nine bytes, the suffix of a conflict
/// copy's name, and the record that the copy was split from; generous.
const GROWTH_BYTES_MAX: u64 = 64;

/// Turns local writes into pending rows.
pub(crate) fn put(
    replica: &dyn Replica,
    setup: &Setup,
    env: &mut Env<'_>,
    records: Vec<NewRecord>,
) -> Result<(Vec<OperationId>, Vec<WriteOp>)> {
    let mut clock = replica.clock()?;
    let none_waits = replica.pending(1)?.is_empty();
    let mut operations = Vec::new();
    let mut ops = Vec::new();
    // Writes of one batch may follow each other on one record.
    let mut last: BTreeMap<RecordId, OperationId> = BTreeMap::new();
    for new in records {
        if new.name.len() > limits::APP_NAME_BYTES_MAX {
            return Err(EngineError::Misuse { what: "the record's name is longer than 4,112 bytes" });
        }
        if let Pinning::Unpin(seq) = new.pin
            && replica.head()?.is_none_or(|head| head.tip.seq < seq)
        {
            return Err(EngineError::Misuse { what: "a commit that is not there can not be unpinned" });
        }
        let record = setup.keys.record_id(&new.record_type, &new.name);
        let Some(base) = base(replica, record, &new, last.get(&record).copied(), none_waits)? else {
            continue;
        };
        clock = clock.tick(env.utc_ms);
        let operation = OperationId::from_bytes(random_bytes(env.rng));
        let kind = if new.document.is_some() { KIND_DOCUMENT } else { KIND_TOMBSTONE };
        let content = Content {
            record_type: new.record_type,
            name: new.name.into(),
            schema: new.schema,
            codec: 0,
            hlc: clock,
            operation,
            base_revision: Revision::new(0),
            conflict_of: Vec::new().into(),
            document: new.document.unwrap_or_default().into(),
            blobs: new.blobs,
            manifest: (),
        };
        content
            .check()
            .map_err(|_| EngineError::Misuse { what: "the record's type, name or blobs break a limit" })?;
        let content = content.encode();
        let size = u64::try_from(content.len()).unwrap_or(u64::MAX).saturating_add(4 + GROWTH_BYTES_MAX);
        let sealed = padded_size(size).saturating_add(ENVELOPE_OVERHEAD_BYTES);
        if sealed > u64::try_from(limits::ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX) {
            return Err(EngineError::Misuse { what: "the record is larger than 1 MiB when sealed" });
        }
        ops.push(WriteOp::AddPending(PendingRow {
            operation,
            record,
            kind,
            content,
            base,
            policy: new.policy,
            pin: new.pin,
        }));
        last.insert(record, operation);
        operations.push(operation);
    }
    ops.push(WriteOp::SetClock(clock));
    Ok((operations, ops))
}

/// What the write is based on; none if there is nothing to delete.
fn base(
    replica: &dyn Replica,
    record: RecordId,
    new: &NewRecord,
    in_batch: Option<OperationId>,
    none_waits: bool,
) -> Result<Option<Base>> {
    let pending = match in_batch {
        Some(operation) => Some(operation),
        None if none_waits => None,
        None => replica.pending_of(record)?.last().map(|row| row.operation),
    };
    let row = replica.record(record)?;
    let revision = row.map_or(Revision::new(0), |row| row.revision);
    if let Some(expected) = new.expected
        && (pending.is_some() || expected != revision)
    {
        return Err(EngineError::Misuse { what: "the record changed since it was read" });
    }
    if let Some(operation) = pending {
        return Ok(Some(Base::Pending(operation)));
    }
    let is_there = row.is_some_and(|row| row.kind == KIND_DOCUMENT);
    Ok((new.document.is_some() || is_there).then_some(Base::Revision(revision)))
}
