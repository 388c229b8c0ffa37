//! What happens to pending writes when a round touches their records (PROTOCOL.md section 8).

use crate::effect::Event;
use crate::engine::Setup;
use crate::error::EngineError;
use crate::replica::{Base, InFlight, PendingRow, Policy, Replica, Result, WriteOp};
use crate::verify::{Overlay, Touched};
use lockstep_client_crypto::content::Content;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::envelope::KIND_TOMBSTONE;
use lockstep_proto::id::{OperationId, RecordId, Revision};
use lockstep_proto::{Digest, label};
use std::collections::{BTreeMap, BTreeSet};

/// Settles all pending writes of touched records; drops the in-flight commit, which either is among the
/// commits (its writes are done) or lost the race (its writes go on as pending).
pub(crate) fn settle(
    replica: &dyn Replica,
    setup: &Setup,
    overlay: &Overlay,
    documents: &BTreeMap<RecordId, Digest>,
    ours: bool,
    ops: &mut Vec<WriteOp>,
    events: &mut Vec<Event>,
) -> Result<()> {
    let in_flight = replica.in_flight()?;
    let mut done: BTreeMap<OperationId, Revision> = BTreeMap::new();
    if let Some(in_flight) = &in_flight {
        ops.push(WriteOp::DropInFlight);
        if ours {
            done = confirmed(in_flight, ops);
            let seq = overlay
                .commits
                .iter()
                .find(|commit| commit.signed == in_flight.commit)
                .map(|commit| commit.seq);
            let operations = done.keys().copied().collect();
            events.extend(seq.map(|seq| Event::Pushed { seq, operations }));
        }
    }
    if replica.pending(1)?.is_empty() {
        return Ok(());
    }
    for (record, touched) in &overlay.touched {
        let pending = replica.pending_of(*record)?;
        let waiting: Vec<PendingRow> =
            pending.into_iter().filter(|row| !done.contains_key(&row.operation)).collect();
        if !waiting.is_empty() {
            settle_record(
                setup,
                *record,
                touched,
                documents.get(record).copied(),
                waiting,
                &done,
                ops,
                events,
            )?;
        }
    }
    Ok(())
}

/// Removes the writes of a commit that is applied; gives the revision that each became.
pub(crate) fn confirmed(in_flight: &InFlight, ops: &mut Vec<WriteOp>) -> BTreeMap<OperationId, Revision> {
    for sealed in &in_flight.sealed {
        ops.push(WriteOp::DropPending(sealed.operation));
    }
    in_flight.sealed.iter().map(|sealed| (sealed.operation, sealed.revision)).collect()
}

#[expect(clippy::too_many_arguments, reason = "one record's view of the round")]
fn settle_record(
    setup: &Setup,
    record: RecordId,
    touched: &Touched,
    committed: Option<Digest>,
    waiting: Vec<PendingRow>,
    done: &BTreeMap<OperationId, Revision>,
    ops: &mut Vec<WriteOp>,
    events: &mut Vec<Event>,
) -> Result<()> {
    let revision = touched.row.revision;
    let mut gone: BTreeSet<OperationId> = BTreeSet::new();
    let mut equal: BTreeSet<OperationId> = BTreeSet::new();
    let mut rows = waiting.into_iter();
    while let Some(row) = rows.next() {
        let base = match row.base {
            Base::Revision(revision) => Some(revision),
            Base::Pending(operation) => done.get(&operation).copied(),
        };
        let follows_dropped = matches!(row.base, Base::Pending(operation) if gone.contains(&operation));
        // What stands on a write that turned out to be the committed one stands on the committed one.
        let follows_equal = matches!(row.base, Base::Pending(operation) if equal.contains(&operation));
        let goes_on = row.policy == Policy::KeepBoth
            && (follows_equal || (follows_dropped && !is_clash(&row, touched, committed, true)));
        if base == Some(revision) || goes_on {
            rebase(row, revision, ops);
            return Ok(());
        }
        match row.policy {
            Policy::Overwrite => {
                rebase(row, revision, ops);
                return Ok(());
            }
            Policy::AdoptCommitted => {
                gone.insert(row.operation);
                ops.push(WriteOp::DropPending(row.operation));
                events.push(Event::Adopted { record });
            }
            Policy::KeepBoth if !is_clash(&row, touched, committed, false) => {
                gone.insert(row.operation);
                if row.kind != KIND_TOMBSTONE {
                    equal.insert(row.operation);
                }
                ops.push(WriteOp::DropPending(row.operation));
                events.push(Event::Adopted { record });
            }
            Policy::KeepBoth => {
                let copy = make_copy(setup, &row, ops)?;
                events.push(Event::ConflictCopy { record, copy: copy.record });
                for later in rows.by_ref() {
                    let operation = later.operation;
                    ops.push(WriteOp::ReplacePending(operation, renamed(&later, &copy)?));
                }
                return Ok(());
            }
        }
    }
    Ok(())
}

fn rebase(row: PendingRow, revision: Revision, ops: &mut Vec<WriteOp>) {
    let operation = row.operation;
    ops.push(WriteOp::ReplacePending(operation, PendingRow { base: Base::Revision(revision), ..row }));
}

/// A deletion that lost is no clash: the edit stays. Equal documents are none either.
fn is_clash(row: &PendingRow, touched: &Touched, committed: Option<Digest>, follows_dropped: bool) -> bool {
    if row.kind == KIND_TOMBSTONE {
        return follows_dropped;
    }
    if touched.row.kind == KIND_TOMBSTONE {
        return true;
    }
    match (Content::decode(&row.content), committed) {
        (Ok(own), Some(theirs)) => document_digest(&own) != theirs,
        _ => true,
    }
}

/// What makes two documents equal: their bytes and their objects.
pub(crate) fn document_digest(content: &Content) -> Digest {
    Digest::of_cbor(label::LOCAL_DOCUMENT, &(&content.document, &content.blobs))
}

struct Copy {
    record: RecordId,
    name: Vec<u8>,
    conflict_of: RecordId,
}

/// Turns the losing write into a new record.
fn make_copy(setup: &Setup, row: &PendingRow, ops: &mut Vec<WriteOp>) -> Result<Copy> {
    let content = decode(row)?;
    let mut name = content.name.0.clone();
    if content.conflict_of().is_some() {
        // A copy of a copy replaces the suffix: one zero byte and an operation id.
        name.truncate(name.len().saturating_sub(17));
    }
    name.push(0);
    name.extend_from_slice(row.operation.as_bytes());
    let record = setup.keys.record_id(&content.record_type, &name);
    let copy = Copy { record, name, conflict_of: row.record };
    let operation = row.operation;
    let moved = renamed(row, &copy)?;
    ops.push(WriteOp::ReplacePending(
        operation,
        PendingRow { base: Base::Revision(Revision::new(0)), ..moved },
    ));
    Ok(copy)
}

fn renamed(row: &PendingRow, copy: &Copy) -> Result<PendingRow> {
    let mut content = decode(row)?;
    content.name = copy.name.clone().into();
    content.conflict_of = copy.conflict_of.as_bytes().to_vec().into();
    Ok(PendingRow { record: copy.record, content: content.encode(), ..row.clone() })
}

fn decode(row: &PendingRow) -> Result<Content> {
    Content::decode(&row.content).map_err(EngineError::replica)
}
