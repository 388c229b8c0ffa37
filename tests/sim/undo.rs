//! Taking writes of a replica back: those that fail in the middle, and those that a crash swallows.

use crate::replica::{Held, MemReplica};
use lockstep_client_crypto::content::Hlc;
use lockstep_engine::replica::{Head, InFlight, IndexInfo, PendingRow, WriteOp};
use lockstep_proto::Digest;
use lockstep_proto::id::{RecordId, Seq};
use std::collections::BTreeMap;

type Staged = BTreeMap<(Seq, RecordId), (Vec<u8>, Option<IndexInfo>)>;

/// What one operation replaced.
enum Before {
    Pending(Vec<PendingRow>),
    InFlight(Option<InFlight>),
    Commit(Seq),
    Version(Seq, RecordId),
    Record(RecordId, Option<Held>),
    Staged(Staged),
    Head(Option<Head>),
    Clock(Hlc),
    Whole(Box<MemReplica>),
}

/// What a write replaced, in the order of its operations.
#[derive(Default)]
pub(crate) struct Undo(Vec<Before>);

impl Undo {
    /// Remembers what an operation is about to replace.
    pub(crate) fn remember(&mut self, replica: &MemReplica, op: &WriteOp) {
        let before = match op {
            WriteOp::AddPending(_) | WriteOp::ReplacePending(..) | WriteOp::DropPending(_) => {
                if self.0.iter().any(|before| matches!(before, Before::Pending(_) | Before::Whole(_))) {
                    return;
                }
                Before::Pending(replica.pending.clone())
            }
            WriteOp::SetInFlight(_) | WriteOp::DropInFlight => Before::InFlight(replica.in_flight.clone()),
            WriteOp::AddCommit { seq, .. } if !replica.commits.contains_key(seq) => Before::Commit(*seq),
            WriteOp::AddVersion(row) if !replica.versions.contains_key(&(row.seq, row.record)) => {
                Before::Version(row.seq, row.record)
            }
            WriteOp::SetRecord(row, _) => {
                Before::Record(row.record, replica.records.get(&row.record).cloned())
            }
            WriteOp::StageEnvelope { .. } | WriteOp::ClearStaged => {
                if self.0.iter().any(|before| matches!(before, Before::Staged(_) | Before::Whole(_))) {
                    return;
                }
                Before::Staged(replica.staged.clone())
            }
            WriteOp::SetHead(_) => Before::Head(replica.head.clone()),
            WriteOp::SetClock(_) => Before::Clock(replica.clock),
            _ => Before::Whole(Box::new(replica.clone())),
        };
        self.0.push(before);
    }

    /// Takes it all back; no later write may have been carried out, or it was taken back before.
    pub(crate) fn back(self, replica: &mut MemReplica) {
        for before in self.0.into_iter().rev() {
            match before {
                Before::Pending(rows) => replica.pending = rows,
                Before::InFlight(in_flight) => replica.in_flight = in_flight,
                Before::Commit(seq) => drop(replica.commits.remove(&seq)),
                Before::Version(seq, record) => drop(replica.versions.remove(&(seq, record))),
                Before::Record(record, Some(held)) => drop(replica.records.insert(record, held)),
                Before::Record(record, None) => drop(replica.records.remove(&record)),
                Before::Staged(staged) => replica.staged = staged,
                Before::Head(head) => replica.head = head,
                Before::Clock(clock) => replica.clock = clock,
                Before::Whole(whole) => *replica = *whole,
            }
        }
    }
}

/// Hash of a seq's commit: what `AddCommit` must link to.
pub(crate) fn hash_before(replica: &MemReplica, seq: Seq) -> Option<Digest> {
    replica.commits.get(&seq.previous()?).map(|(hash, ..)| *hash)
}
