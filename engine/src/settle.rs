//! What happens to pending writes when a round touches their records (PROTOCOL.md section 8).

use crate::document::Origin;
use crate::effect::Event;
use crate::engine::Setup;
use crate::error::EngineError;
use crate::merge::{Became, Joined, join};
use crate::replica::{Base, InFlight, PendingRow, Policy, Replica, Result, WriteOp};
use crate::verify::{Overlay, Touched};
use lockstep_client_crypto::content::Content;
use lockstep_client_crypto::vault::Opened;
use lockstep_merge::TypePolicy;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::envelope::KIND_TOMBSTONE;
use lockstep_proto::id::{OperationId, RecordId, Revision};
use lockstep_proto::{Digest, label};
use std::collections::{BTreeMap, BTreeSet};

/// What a round brought of a record.
pub(crate) enum Brought {
    /// Its newest version.
    Here(Box<Opened>),
    /// A version that does not open.
    Quarantined,
    /// Nothing yet.
    Absent,
}

/// Gives what a round brought of a record.
pub(crate) type Arrived<'a> = dyn Fn(&Touched) -> Result<Brought> + 'a;

/// Settles all pending writes of touched records; drops the in-flight commit, which either is among the
/// commits (its writes are done) or lost the race (its writes go on as pending).
pub(crate) fn settle(
    replica: &dyn Replica,
    setup: &Setup,
    overlay: &Overlay,
    arrived: &Arrived<'_>,
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
        if waiting.is_empty() {
            continue;
        }
        let committed = match arrived(touched)? {
            Brought::Absent if waiting.iter().any(|row| row.policy == Policy::Merge) => {
                // They are merged once it is here ([`late`]): nobody gets a say in that by keeping it back.
                stand_on_done(waiting, &done, ops);
                continue;
            }
            Brought::Here(opened) => Some(opened),
            Brought::Quarantined | Brought::Absent => None,
        };
        let scene =
            Scene { replica, setup, overlay: Some(overlay), touched, committed: committed.as_deref() };
        Settling::new(scene, &done, ops, events).run(waiting)?;
    }
    Ok(())
}

/// Settles the writes of a record whose newest version came after its round; none if it does not open, or nobody has it.
pub(crate) fn late(
    replica: &dyn Replica,
    setup: &Setup,
    touched: &Touched,
    committed: Option<&Opened>,
    ops: &mut Vec<WriteOp>,
    events: &mut Vec<Event>,
) -> Result<()> {
    let waiting = replica.pending_of(touched.row.record)?;
    let is_settled = waiting.first().is_none_or(|row| row.base == Base::Revision(touched.row.revision));
    if is_settled {
        return Ok(());
    }
    let scene = Scene { replica, setup, overlay: None, touched, committed };
    Settling::new(scene, &BTreeMap::new(), ops, events).run(waiting)
}

/// Writes that follow some that are done stand on what these became.
fn stand_on_done(waiting: Vec<PendingRow>, done: &BTreeMap<OperationId, Revision>, ops: &mut Vec<WriteOp>) {
    for row in waiting {
        if let Base::Pending(operation) = row.base
            && let Some(revision) = done.get(&operation)
        {
            let (operation, base) = (row.operation, Base::Revision(*revision));
            ops.push(WriteOp::ReplacePending(operation, PendingRow { base, ..row }));
        }
    }
}

/// Removes the writes of a commit that is applied; gives the revision that each became.
pub(crate) fn confirmed(in_flight: &InFlight, ops: &mut Vec<WriteOp>) -> BTreeMap<OperationId, Revision> {
    for sealed in &in_flight.sealed {
        ops.push(WriteOp::DropPending(sealed.operation));
    }
    in_flight.sealed.iter().map(|sealed| (sealed.operation, sealed.revision)).collect()
}

/// One record of a round.
struct Scene<'a> {
    replica: &'a dyn Replica,
    setup: &'a Setup,
    /// The round; none after it.
    overlay: Option<&'a Overlay>,
    touched: &'a Touched,
    /// The newest version; none if it is not here or does not open.
    committed: Option<&'a Opened>,
}

/// One record of a round, and the writes of it that wait.
struct Settling<'a> {
    scene: Scene<'a>,
    /// Writes that are among the round's commits.
    done: &'a BTreeMap<OperationId, Revision>,
    /// Writes that were dropped.
    gone: BTreeSet<OperationId>,
    /// Those of them that say what the committed version says.
    equal: BTreeSet<OperationId>,
    ops: &'a mut Vec<WriteOp>,
    events: &'a mut Vec<Event>,
}

impl<'a> Settling<'a> {
    fn new(
        scene: Scene<'a>,
        done: &'a BTreeMap<OperationId, Revision>,
        ops: &'a mut Vec<WriteOp>,
        events: &'a mut Vec<Event>,
    ) -> Self {
        Self { scene, done, gone: BTreeSet::new(), equal: BTreeSet::new(), ops, events }
    }

    fn run(mut self, waiting: Vec<PendingRow>) -> Result<()> {
        let revision = self.scene.touched.row.revision;
        let mut rows = waiting.into_iter();
        while let Some(row) = rows.next() {
            let base = match row.base {
                Base::Revision(revision) => Some(revision),
                Base::Pending(operation) => self.done.get(&operation).copied(),
            };
            let stands_on =
                |set: &BTreeSet<_>| matches!(row.base, Base::Pending(operation) if set.contains(&operation));
            // What stands on a write that turned out to be the committed one stands on the committed one.
            let goes_on = row.policy == Policy::KeepBoth
                && (stands_on(&self.equal) || (stands_on(&self.gone) && !self.is_clash(&row, true)));
            if base == Some(revision) || goes_on {
                self.rebase(row);
                return Ok(());
            }
            match row.policy {
                Policy::Overwrite => {
                    self.rebase(row);
                    return Ok(());
                }
                Policy::AdoptCommitted => self.adopt(&row),
                Policy::Merge => {
                    let content = decode(&row)?;
                    let setup = self.scene.setup;
                    if let Some(policy) = setup.policies.of(&content.record_type)
                        && let Some(committed) = self.scene.committed.map(Origin::of)
                    {
                        return self.merge(policy, committed, std::iter::once(row).chain(rows));
                    }
                    if self.keeps_both(&row, &mut rows)? {
                        return Ok(());
                    }
                }
                Policy::KeepBoth => {
                    if self.keeps_both(&row, &mut rows)? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Merges the waiting writes one after the other: the first with the committed version, each later one with what
    /// became of the one before.
    fn merge(
        mut self,
        policy: &TypePolicy,
        committed: Origin,
        mut rows: impl Iterator<Item = PendingRow>,
    ) -> Result<()> {
        let (revision, record) = (self.scene.touched.row.revision, self.scene.touched.row.record);
        let (mut below, mut base) = (committed, Base::Revision(revision));
        while let Some(row) = rows.next() {
            let content = decode(&row)?;
            let joined = match row.policy {
                Policy::Merge => join(self.scene.setup, policy, &row, &content, &below, revision)?,
                // Written when the type had no policy: it saw the write before it, but not what became of that.
                _ => Joined::APART,
            };
            let has_entry = joined.entry.is_some();
            self.ops.extend(joined.entry.map(WriteOp::AddMerge));
            // A deletion says nothing of the document: what stands against one still grew from what it did.
            let grew = if below.is_deletion() { row.grew.clone() } else { Some(below.clone()) };
            let operation = row.operation;
            match joined.became {
                // A deletion that can not be weighed against the other gives way to it.
                Became::Apart if row.kind == KIND_TOMBSTONE => self.adopt(&row),
                Became::Apart => return self.make_copy(&row, &mut rows),
                Became::Kept => {
                    self.ops.push(WriteOp::ReplacePending(operation, PendingRow { base, grew, ..row }));
                    if has_entry {
                        self.events.push(Event::Merged { record, open: joined.open });
                    }
                    // What was written upon it still stands on what it saw.
                    return Ok(());
                }
                Became::Dropped => self.adopt(&row),
                Became::Changed(content, kind) => {
                    below = Origin::new(&content, kind, self.scene.setup.device.id());
                    let content = content.encode();
                    let changed = PendingRow { kind, content, base, grew, ..row };
                    self.ops.push(WriteOp::ReplacePending(operation, changed));
                    self.events.push(Event::Merged { record, open: joined.open });
                    base = Base::Pending(operation);
                }
            }
        }
        Ok(())
    }

    fn rebase(&mut self, row: PendingRow) {
        let operation = row.operation;
        let base = Base::Revision(self.scene.touched.row.revision);
        self.ops.push(WriteOp::ReplacePending(operation, PendingRow { base, ..row }));
    }

    fn adopt(&mut self, row: &PendingRow) {
        self.gone.insert(row.operation);
        self.ops.push(WriteOp::DropPending(row.operation));
        self.events.push(Event::Adopted { record: self.scene.touched.row.record });
    }

    /// Drops a write that is no clash, and otherwise makes a copy of it and of what is written upon it; whether it did
    /// that, and nothing waits any more.
    fn keeps_both(&mut self, row: &PendingRow, later: &mut impl Iterator<Item = PendingRow>) -> Result<bool> {
        if self.is_clash(row, false) {
            self.make_copy(row, later)?;
            return Ok(true);
        }
        self.adopt(row);
        if row.kind != KIND_TOMBSTONE {
            self.equal.insert(row.operation);
        }
        Ok(false)
    }

    /// A deletion that lost is no clash: the edit stays. Equal documents are none either.
    fn is_clash(&self, row: &PendingRow, follows_dropped: bool) -> bool {
        if row.kind == KIND_TOMBSTONE {
            return follows_dropped;
        }
        if self.scene.touched.row.kind == KIND_TOMBSTONE {
            return true;
        }
        match (Content::decode(&row.content), self.scene.committed) {
            (Ok(own), Some(theirs)) => document_digest(&own) != document_digest(&theirs.content),
            _ => true,
        }
    }

    /// Turns the losing write, and what is written upon it, into a new record.
    fn make_copy(&mut self, row: &PendingRow, later: &mut dyn Iterator<Item = PendingRow>) -> Result<()> {
        let copy = self.free_copy(row)?;
        let base = Base::Revision(Revision::new(0));
        let moved = PendingRow { base, grew: None, ..copy.renamed(row)? };
        self.ops.push(WriteOp::ReplacePending(row.operation, moved));
        let record = self.scene.touched.row.record;
        self.events.push(Event::ConflictCopy { record, copy: copy.record });
        for row in later {
            self.ops.push(WriteOp::ReplacePending(row.operation, copy.renamed(&row)?));
        }
        Ok(())
    }
}

/// Names that are tried for one conflict copy: each one that is taken was made by another copy of this device.
const COPY_NAMES_MAX: u64 = 1024;

impl Settling<'_> {
    /// A new record for a write that lost, under the first name that is free here: a copy of this device's data may have
    /// made some of them, or the write lost against one.
    fn free_copy(&self, row: &PendingRow) -> Result<Copy> {
        for number in 0..COPY_NAMES_MAX {
            let copy = Copy::of(self.scene.setup, row, number)?;
            let is_new = self.scene.overlay.is_some_and(|overlay| overlay.touched.contains_key(&copy.record));
            if !is_new && self.scene.replica.record(copy.record)?.is_none() {
                return Ok(copy);
            }
        }
        Err(EngineError::replica("a conflict copy has no name that is free"))
    }
}

/// What makes two documents equal: their bytes and their objects.
pub(crate) fn document_digest(content: &Content) -> Digest {
    Digest::of_cbor(label::LOCAL_DOCUMENT, &(&content.document, &content.blobs))
}

/// A new record for a write that lost.
struct Copy {
    record: RecordId,
    name: Vec<u8>,
    conflict_of: RecordId,
}

impl Copy {
    /// A copy of a write, named after its operation, or after that and a number.
    fn of(setup: &Setup, row: &PendingRow, number: u64) -> Result<Self> {
        let content = decode(row)?;
        let mut name = content.name.0.clone();
        if content.conflict_of().is_some() {
            // A copy of a copy replaces the suffix: one zero byte and an operation id.
            name.truncate(name.len().saturating_sub(17));
        }
        name.push(0);
        if number == 0 {
            name.extend_from_slice(row.operation.as_bytes());
        } else {
            let suffix = Digest::of_cbor(label::LOCAL_DOCUMENT, &(row.operation, number));
            name.extend(suffix.as_bytes().iter().take(16));
        }
        let record = setup.keys.record_id(&content.record_type, &name);
        Ok(Self { record, name, conflict_of: row.record })
    }

    fn renamed(&self, row: &PendingRow) -> Result<PendingRow> {
        let mut content = decode(row)?;
        content.name = self.name.clone().into();
        content.conflict_of = self.conflict_of.as_bytes().to_vec().into();
        Ok(PendingRow { record: self.record, content: content.encode(), ..row.clone() })
    }
}

fn decode(row: &PendingRow) -> Result<Content> {
    Content::decode(&row.content).map_err(EngineError::replica)
}
