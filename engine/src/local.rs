//! Local writes: durable here before anything is sent.

use crate::document::Origin;
use crate::edit::{self, Change, Written};
use crate::effect::{Env, NewRecord};
use crate::engine::Setup;
use crate::error::EngineError;
use crate::read;
use crate::replica::{Base, PendingRow, Pinning, Policy, Replica, Result, WriteOp};
use lockstep_client_crypto::content::{Content, Hlc};
use lockstep_client_crypto::secret::random_bytes;
use lockstep_merge::{Choice, Stamp, TypePolicy};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::envelope::{KIND_DOCUMENT, padded_size};
use lockstep_proto::id::{OperationId, RecordId, Revision};
use lockstep_proto::limits;
use std::collections::BTreeMap;

/// Header, commitment, tag and CBOR around a sealed plaintext; generous.
const ENVELOPE_OVERHEAD_BYTES: u64 = 512;

/// What a content may grow by after it was accepted: a base revision of nine bytes, the suffix of a conflict
/// copy's name, and the record that the copy was split from; generous.
const GROWTH_BYTES_MAX: u64 = 64;

/// A batch of local writes on its way to pending rows.
struct Batch<'a> {
    replica: &'a dyn Replica,
    setup: &'a Setup,
    clock: Hlc,
    /// Whether nothing waited before this batch.
    none_waits: bool,
    /// Writes of one batch may follow each other on one record.
    last: BTreeMap<RecordId, (OperationId, Option<Origin>)>,
    operations: Vec<OperationId>,
    ops: Vec<WriteOp>,
}

impl<'a> Batch<'a> {
    fn new(replica: &'a dyn Replica, setup: &'a Setup) -> Result<Self> {
        let (operations, ops) = (Vec::new(), Vec::new());
        let none_waits = replica.pending(1)?.is_empty();
        Ok(Self {
            replica,
            setup,
            clock: replica.clock()?,
            none_waits,
            last: BTreeMap::new(),
            operations,
            ops,
        })
    }

    fn done(mut self) -> (Vec<OperationId>, Vec<WriteOp>) {
        self.ops.push(WriteOp::SetClock(self.clock));
        (self.operations, self.ops)
    }
}

/// Turns local writes into pending rows.
pub(crate) fn put(
    replica: &dyn Replica,
    setup: &Setup,
    env: &mut Env<'_>,
    records: Vec<NewRecord>,
) -> Result<(Vec<OperationId>, Vec<WriteOp>)> {
    let mut batch = Batch::new(replica, setup)?;
    for new in records {
        if new.name.len() > limits::APP_NAME_BYTES_MAX {
            return Err(EngineError::Misuse { what: "the record's name is longer than 4,112 bytes" });
        }
        if let Pinning::Unpin(seq) = new.pin
            && replica.head()?.is_none_or(|head| head.tip.seq < seq)
        {
            return Err(EngineError::Misuse { what: "a commit that is not there can not be unpinned" });
        }
        batch.add(env, new, Change::Fields)?;
    }
    Ok(batch.done())
}

/// The same for edits of documents by somebody who saw an older version of them than is here by now.
pub(crate) fn edit(
    replica: &dyn Replica,
    setup: &Setup,
    env: &mut Env<'_>,
    edits: Vec<(NewRecord, Option<Origin>)>,
) -> Result<(Vec<OperationId>, Vec<WriteOp>)> {
    let mut batch = Batch::new(replica, setup)?;
    for (new, seen) in edits {
        if new.name.len() > limits::APP_NAME_BYTES_MAX {
            return Err(EngineError::Misuse { what: "the record's name is longer than 4,112 bytes" });
        }
        let change = seen.map_or(Change::Fields, |seen| Change::Seen(Box::new(seen)));
        batch.add(env, new, change)?;
    }
    Ok(batch.done())
}

/// Turns a decision into a pending row.
pub(crate) fn decide(
    replica: &dyn Replica,
    setup: &Setup,
    env: &mut Env<'_>,
    record: RecordId,
    choice: Choice,
) -> Result<(Vec<OperationId>, Vec<WriteOp>)> {
    let mut batch = Batch::new(replica, setup)?;
    let current = read::current(replica, &setup.keys, record)?
        .ok_or(EngineError::Misuse { what: "the record is not there: list what is open" })?;
    let content = current.content;
    if setup.policies.of(&content.record_type).is_none() {
        return Err(EngineError::Misuse {
            what: "the record's type has no merge policy: nothing in it can wait",
        });
    }
    let new = NewRecord {
        record_type: content.record_type,
        name: content.name.0,
        schema: content.schema,
        document: Some(content.document.0),
        blobs: content.blobs,
        policy: Policy::Merge,
        pin: Pinning::None,
        expected: None,
    };
    batch.add(env, new, Change::Decision(choice))?;
    Ok(batch.done())
}

impl Batch<'_> {
    fn add(&mut self, env: &mut Env<'_>, new: NewRecord, change: Change) -> Result<()> {
        let record = self.setup.keys.record_id(&new.record_type, &new.name);
        let Some(base) = self.base(record, &new)? else { return Ok(()) };
        self.clock = self.clock.tick(env.utc_ms);
        let operation = OperationId::from_bytes(random_bytes(env.rng));
        // Deciding a field of a conflict copy does not decide the copy.
        let is_decision = matches!(change, Change::Decision(_));
        let conflict_of = if is_decision { self.conflict_of(record)? } else { Vec::new() };
        let (new_policy, pin) = (new.policy, new.pin);
        let (record_type, name) = (new.record_type.clone(), new.name.clone());
        let (written, grew) = match new.policy {
            Policy::Merge => {
                let policy = self.policy_of(&new)?;
                let before = self.before(record)?;
                let stamp = Stamp { hlc: self.clock, device: self.setup.device.id() };
                // A deletion says nothing of the document: what stands against one grew from what its writer saw.
                let seen = match &change {
                    Change::Seen(seen) if before.as_ref().is_some_and(Origin::is_deletion) => {
                        Some((**seen).clone())
                    }
                    _ => None,
                };
                let written = edit::write(policy, before.as_ref(), new, change, stamp)?;
                (written, seen.or(before))
            }
            _ => (Some(Written::plain(new)), None),
        };
        // Everything in it was said by what is here already.
        let Some(Written { schema, kind, document, blobs }) = written else { return Ok(()) };
        let content = Content {
            record_type,
            name: name.into(),
            schema,
            codec: 0,
            hlc: self.clock,
            operation,
            base_revision: Revision::new(0),
            conflict_of: conflict_of.into(),
            document: document.into(),
            blobs,
            manifest: (),
        };
        content
            .check()
            .map_err(|_| EngineError::Misuse { what: "the record's type, name or blobs break a limit" })?;
        let encoded = content.encode();
        if !is_sealable(encoded.len()) {
            return Err(EngineError::Misuse { what: "the record is larger than 1 MiB when sealed" });
        }
        let origin =
            (new_policy == Policy::Merge).then(|| Origin::new(&content, kind, self.setup.device.id()));
        self.last.insert(record, (operation, origin));
        self.operations.push(operation);
        self.ops.push(WriteOp::AddPending(PendingRow {
            operation,
            record,
            kind,
            content: encoded,
            base,
            policy: new_policy,
            pin,
            grew,
        }));
        Ok(())
    }

    fn policy_of(&self, new: &NewRecord) -> Result<&TypePolicy> {
        let what = "the record's type has no merge policy";
        let policy = self.setup.policies.of(&new.record_type).ok_or(EngineError::Misuse { what })?;
        if new.document.is_some() && new.schema > policy.schema() {
            return Err(EngineError::Misuse {
                what: "the document's schema is newer than the merge policy's",
            });
        }
        Ok(policy)
    }

    /// The version that a write grows from: what this device shows of the record, deletions included.
    fn before(&self, record: RecordId) -> Result<Option<Origin>> {
        match self.last.get(&record) {
            Some((_, Some(origin))) => return Ok(Some(origin.clone())),
            Some((operation, None)) => return self.in_batch(*operation),
            None => {}
        }
        if let Some(row) = self.replica.pending_of(record)?.pop() {
            let content = Content::decode(&row.content).map_err(EngineError::replica)?;
            return Ok(Some(Origin::new(&content, row.kind, self.setup.device.id())));
        }
        let Some(row) = self.replica.record(record)? else { return Ok(None) };
        if !row.present {
            return Err(read::absence(self.replica, self.setup.vault(), &row)?);
        }
        Ok(read::open_row(self.replica, &self.setup.keys, &row)?.as_ref().map(Origin::of))
    }

    /// A write of this batch that is not merged.
    fn in_batch(&self, operation: OperationId) -> Result<Option<Origin>> {
        let row = self.ops.iter().rev().find_map(|op| match op {
            WriteOp::AddPending(row) if row.operation == operation => Some(row),
            _ => None,
        });
        let Some(row) = row else { return Ok(None) };
        let content = Content::decode(&row.content).map_err(EngineError::replica)?;
        Ok(Some(Origin::new(&content, row.kind, self.setup.device.id())))
    }

    /// The record that a conflict copy was split from.
    fn conflict_of(&self, record: RecordId) -> Result<Vec<u8>> {
        let current = read::current(self.replica, &self.setup.keys, record)?;
        Ok(current.map(|current| current.content.conflict_of.0).unwrap_or_default())
    }

    /// What the write is based on; none if there is nothing to delete.
    fn base(&self, record: RecordId, new: &NewRecord) -> Result<Option<Base>> {
        let in_batch = self.last.get(&record).map(|(operation, _)| *operation);
        let pending = match in_batch {
            Some(operation) => Some(operation),
            None if self.none_waits => None,
            None => self.replica.pending_of(record)?.last().map(|row| row.operation),
        };
        let row = self.replica.record(record)?;
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
}

/// Whether a content is within the limits of an envelope, whatever it may still grow by.
pub(crate) fn fits(content: &Content) -> bool {
    content.check().is_ok() && is_sealable(content.encode().len())
}

fn is_sealable(encoded_bytes: usize) -> bool {
    let size = u64::try_from(encoded_bytes).unwrap_or(u64::MAX).saturating_add(4 + GROWTH_BYTES_MAX);
    let sealed = padded_size(size).saturating_add(ENVELOPE_OVERHEAD_BYTES);
    sealed <= u64::try_from(limits::ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX)
}
