//! A device's durable data in memory. Every write is checked: a store would refuse what does not fit.

use crate::undo::Undo;
use lockstep_client_crypto::content::Hlc;
use lockstep_engine::replica::{
    EnvelopeSource, Head, InFlight, IndexInfo, MergeRow, PendingRow, RecordRow, Replica, Result, VersionRow,
    WriteOp,
};
use lockstep_proto::envelope::KIND_DOCUMENT;
use lockstep_proto::id::{OperationId, RecordId, Seq};
use lockstep_proto::{Digest, Signed};
use std::collections::{BTreeMap, BTreeSet};

/// A record with its envelope and what the index says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) row: RecordRow,
    pub(crate) envelope: Option<Vec<u8>>,
    pub(crate) index: Option<IndexInfo>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemReplica {
    pub(crate) head: Option<Head>,
    pub(crate) commits: BTreeMap<Seq, (Digest, Signed, Vec<u8>)>,
    pub(crate) versions: BTreeMap<(Seq, RecordId), VersionRow>,
    pub(crate) records: BTreeMap<RecordId, Held>,
    pub(crate) pending: Vec<PendingRow>,
    pub(crate) in_flight: Option<InFlight>,
    pub(crate) staged: BTreeMap<(Seq, RecordId), (Vec<u8>, Option<IndexInfo>)>,
    pub(crate) clock: Hlc,
    /// Versions that no longer count, with their envelopes.
    pub(crate) shelved: Vec<(VersionRow, Option<Vec<u8>>)>,
    pub(crate) abandoned: BTreeSet<(Seq, Digest)>,
    /// Commits that were given up.
    pub(crate) given_up: BTreeSet<(Seq, Digest)>,
    /// A repair that was followed and has to come.
    pub(crate) expected: Option<(Seq, Digest)>,
    /// Records whose envelope was let go of.
    pub(crate) evicted: BTreeSet<RecordId>,
    /// Records whose envelope is wanted, and nothing waits for it.
    pub(crate) wanted: BTreeSet<RecordId>,
    /// What merges decided.
    pub(crate) merges: Vec<MergeRow>,
}

impl Default for MemReplica {
    fn default() -> Self {
        Self {
            head: None,
            commits: BTreeMap::new(),
            versions: BTreeMap::new(),
            records: BTreeMap::new(),
            pending: Vec::new(),
            in_flight: None,
            staged: BTreeMap::new(),
            clock: Hlc { utc_ms: 0, counter: 0 },
            shelved: Vec::new(),
            abandoned: BTreeSet::new(),
            given_up: BTreeSet::new(),
            expected: None,
            evicted: BTreeSet::new(),
            wanted: BTreeSet::new(),
            merges: Vec::new(),
        }
    }
}

impl MemReplica {
    /// Carries out one write, whole or not at all; gives what takes it back.
    pub(crate) fn apply(&mut self, ops: &[WriteOp]) -> std::result::Result<Undo, String> {
        let mut undo = Undo::default();
        for op in ops {
            undo.remember(self, op);
            if let Err(what) = self.apply_one(op) {
                undo.back(self);
                return Err(what);
            }
        }
        Ok(undo)
    }

    /// What anybody can see: all but the invisible staging.
    pub(crate) fn visible(&self) -> Self {
        Self { staged: BTreeMap::new(), ..self.clone() }
    }

    fn apply_one(&mut self, op: &WriteOp) -> std::result::Result<(), String> {
        match op {
            WriteOp::AddPending(row) => {
                if self.place(row.operation).is_some() {
                    return Err(format!("{} is pending twice", row.operation));
                }
                self.pending.push(row.clone());
            }
            WriteOp::ReplacePending(operation, row) => {
                let place = self.place(*operation).ok_or("it replaces a pending write that is not there")?;
                self.pending[place] = row.clone();
            }
            WriteOp::DropPending(operation) => {
                let place = self.place(*operation).ok_or("it drops a pending write that is not there")?;
                self.pending.remove(place);
            }
            WriteOp::AddMerge(row) => self.merges.push(row.clone()),
            WriteOp::SetInFlight(in_flight) => {
                if self.in_flight.replace(in_flight.clone()).is_some() {
                    return Err("a second commit is in flight".into());
                }
            }
            WriteOp::DropInFlight => self.in_flight = None,
            WriteOp::AddCommit { seq, hash, commit, changes } => {
                let next = self.commits.last_key_value().map_or(Seq::new(0), |(last, _)| last.next());
                if *seq != next {
                    return Err(format!("commit {seq} is stored where {next} belongs"));
                }
                self.commits.insert(*seq, (*hash, commit.clone(), changes.clone()));
            }
            WriteOp::AddVersion(row) => {
                if self.versions.insert((row.seq, row.record), *row).is_some() {
                    return Err("a version is stored twice".into());
                }
            }
            WriteOp::SetRecord(row, source) => self.set_record(row, source)?,
            WriteOp::Evict(record) => self.evict(*record)?,
            WriteOp::Recall(record) => {
                if self.records.get(record).is_none_or(|held| held.row.present) {
                    return Err("a record is recalled that is here, or is not there".into());
                }
                let waits = self.pending.iter().any(|row| row.record == *record);
                if self.evicted.remove(record) || !waits {
                    self.wanted.insert(*record);
                }
            }
            WriteOp::Hold(record, _) => {
                if !self.records.get(record).is_some_and(|held| held.row.present) {
                    return Err("a record is to be held that is not here".into());
                }
            }
            WriteOp::StageEnvelope { seq, record, envelope, index } => {
                self.staged.insert((*seq, *record), (envelope.clone(), index.clone()));
            }
            WriteOp::ClearStaged => self.staged.clear(),
            WriteOp::SetHead(head) => {
                let hash = self.commits.get(&head.tip.seq).map(|(hash, ..)| *hash);
                if hash != Some(head.tip.hash) {
                    return Err("the head is no stored commit".into());
                }
                self.head = Some(head.clone());
            }
            WriteOp::GoBack { to, on_chain, .. } => self.go_back(*to, *on_chain)?,
            WriteOp::Abandon(seq, hash) => {
                self.abandoned.insert((*seq, *hash));
            }
            WriteOp::SetExpected(place) => self.expected = *place,
            WriteOp::SetClock(clock) => {
                if *clock < self.clock {
                    return Err("the hybrid clock goes back".into());
                }
                self.clock = *clock;
            }
        }
        Ok(())
    }

    fn set_record(&mut self, row: &RecordRow, source: &EnvelopeSource) -> std::result::Result<(), String> {
        let place = (row.seq, row.record);
        let (envelope, index) = match source {
            EnvelopeSource::Here(envelope, index) => (Some(envelope.clone()), index.clone()),
            EnvelopeSource::Staged => {
                let (envelope, index) = self.staged.get(&place).ok_or("nothing is staged there")?.clone();
                (Some(envelope), index)
            }
            EnvelopeSource::Absent => (None, None),
        };
        if row.present != envelope.is_some() || !self.versions.contains_key(&place) {
            return Err("a record's row contradicts its envelope or versions".into());
        }
        self.records.insert(row.record, Held { row: *row, envelope, index });
        self.evicted.remove(&row.record);
        self.wanted.remove(&row.record);
        Ok(())
    }

    fn evict(&mut self, record: RecordId) -> std::result::Result<(), String> {
        if self.pending.iter().any(|row| row.record == record) {
            return Err("a record is evicted that is still to be sent".into());
        }
        let held = self.records.get_mut(&record).ok_or("a record is evicted that is not there")?;
        held.row.present = false;
        held.envelope = None;
        self.wanted.remove(&record);
        self.evicted.insert(record);
        Ok(())
    }

    fn go_back(&mut self, to: Seq, on_chain: bool) -> std::result::Result<(), String> {
        let newer: Vec<VersionRow> = self.versions.values().filter(|row| row.seq > to).copied().collect();
        for row in newer {
            self.versions.remove(&(row.seq, row.record));
            let held = self.records.get(&row.record).filter(|held| held.row.seq == row.seq);
            self.shelved.push((row, held.and_then(|held| held.envelope.clone())));
        }
        let records: Vec<RecordId> =
            self.records.values().filter(|held| held.row.seq > to).map(|held| held.row.record).collect();
        for record in records {
            let index = self.records.remove(&record).and_then(|held| held.index);
            let back = self.versions.values().filter(|row| row.record == record).max_by_key(|row| row.seq);
            if let Some(VersionRow { seq, record, revision, digest, kind, .. }) = back.copied() {
                let row = RecordRow { record, revision, digest, seq, kind, present: false };
                self.records.insert(record, Held { row, envelope: None, index });
            }
        }
        // A version that counts again is older still: it stays evicted.
        self.evicted.retain(|record| self.records.contains_key(record));
        self.wanted.retain(|record| self.records.contains_key(record));
        if !on_chain {
            let later = self.commits.iter().filter(|(seq, _)| **seq > to);
            self.given_up.extend(later.map(|(seq, (hash, ..))| (*seq, *hash)));
            self.commits.retain(|seq, _| *seq <= to);
        }
        if self.commits.contains_key(&to) {
            Ok(())
        } else {
            Err("it goes back to a commit that is not there".into())
        }
    }

    fn place(&self, operation: OperationId) -> Option<usize> {
        self.pending.iter().position(|row| row.operation == operation)
    }
}

impl Replica for MemReplica {
    fn head(&self) -> Result<Option<Head>> {
        Ok(self.head.clone())
    }

    fn commit_hash(&self, seq: Seq) -> Result<Option<Digest>> {
        Ok(self.commits.get(&seq).map(|(hash, ..)| *hash))
    }

    fn gave_up(&self, seq: Seq, hash: Digest) -> Result<bool> {
        Ok(self.given_up.contains(&(seq, hash)))
    }

    fn commit(&self, seq: Seq) -> Result<Option<(Signed, Vec<u8>)>> {
        Ok(self.commits.get(&seq).map(|(_, commit, changes)| (commit.clone(), changes.clone())))
    }

    fn record(&self, record: RecordId) -> Result<Option<RecordRow>> {
        Ok(self.records.get(&record).map(|held| held.row))
    }

    fn envelope(&self, record: RecordId) -> Result<Option<Vec<u8>>> {
        Ok(self.records.get(&record).and_then(|held| held.envelope.clone()))
    }

    fn staged(&self, seq: Seq, record: RecordId) -> Result<Option<Vec<u8>>> {
        Ok(self.staged.get(&(seq, record)).map(|(envelope, _)| envelope.clone()))
    }

    fn version(&self, seq: Seq, record: RecordId) -> Result<Option<VersionRow>> {
        Ok(self.versions.get(&(seq, record)).copied())
    }

    fn records_after(&self, after: Option<RecordId>, limit: usize) -> Result<Vec<RecordRow>> {
        let later = self
            .records
            .values()
            .map(|held| held.row)
            .filter(|row| after.is_none_or(|after| row.record > after));
        Ok(later.take(limit).collect())
    }

    fn is_evicted(&self, record: RecordId) -> Result<bool> {
        Ok(self.evicted.contains(&record))
    }

    fn absent(&self, limit: usize) -> Result<Vec<RecordRow>> {
        let is_known =
            |row: &RecordRow| self.evicted.contains(&row.record) || self.wanted.contains(&row.record);
        let absent = self.records.values().map(|held| held.row);
        Ok(absent.filter(|row| !row.present && !is_known(row)).take(limit).collect())
    }

    fn wanted(&self, after: Option<(Seq, RecordId)>, limit: usize) -> Result<Vec<RecordRow>> {
        let wanted = self.wanted.iter().filter_map(|record| self.records.get(record));
        let mut rows: Vec<RecordRow> = wanted.map(|held| held.row).collect();
        rows.sort_unstable_by_key(|row| (row.seq, row.record));
        rows.retain(|row| after.is_none_or(|after| (row.seq, row.record) > after));
        rows.truncate(limit);
        Ok(rows)
    }

    fn pending(&self, limit: usize) -> Result<Vec<PendingRow>> {
        Ok(self.pending.iter().take(limit).cloned().collect())
    }

    fn pending_of(&self, record: RecordId) -> Result<Vec<PendingRow>> {
        Ok(self.pending.iter().filter(|row| row.record == record).cloned().collect())
    }

    fn abandoned(&self, seq: Seq, hash: Digest) -> Result<bool> {
        Ok(self.abandoned.contains(&(seq, hash)))
    }

    fn expected(&self) -> Result<Option<(Seq, Digest)>> {
        Ok(self.expected)
    }

    fn in_flight(&self) -> Result<Option<InFlight>> {
        Ok(self.in_flight.clone())
    }

    fn clock(&self) -> Result<Hlc> {
        Ok(self.clock)
    }

    fn list(&self, record_type: &str, group: Option<&[u8]>) -> Result<Vec<RecordRow>> {
        let fits = |held: &&Held| {
            held.row.present
                && held.row.kind == KIND_DOCUMENT
                && held.index.as_ref().is_some_and(|index| {
                    index.record_type == record_type && group.is_none_or(|group| group == index.group)
                })
        };
        Ok(self.records.values().filter(fits).map(|held| held.row).collect())
    }
}
