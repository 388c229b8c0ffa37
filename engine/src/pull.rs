//! One round of a pull: a verified page of commits, and the envelopes that it announces.

use crate::bound::{Bound, Bounds, Looked, Place};
use crate::document;
use crate::effect::Event;
use crate::engine::Setup;
use crate::error::EngineError;
use crate::many;
use crate::old;
use crate::replica::{EnvelopeSource, Head, IndexInfo, RecordRow, Replica, Result, WriteOp};
use crate::settle::{self, Brought};
use crate::skipped;
use crate::verify::{Overlay, Step, Touched};
use lockstep_client_crypto::content::{Content, Hlc};
use lockstep_client_crypto::vault::Opened;
use lockstep_proto::Digest;
use lockstep_proto::api::vault::{CommitEntry, Entry, Page};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::chain::Tip;
use lockstep_proto::clock::HLC_AHEAD_MS_MAX;
use lockstep_proto::commit::{Change, Changes, Commit, KIND_CHANGE};
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::envelope::{self, KIND_DOCUMENT, blob_list_digest};
use lockstep_proto::id::{DeviceId, RecordId, Seq};
use lockstep_proto::limits;
use std::collections::{BTreeMap, BTreeSet};

/// Whether the verified chain stands under an epoch whose key is not here: what comes next would not open, and the
/// keyring has the key.
fn key_missing(setup: &Setup, head: Option<&Head>, next: &CommitEntry) -> Option<EngineError> {
    let Tip { seq, epoch, .. } = head?.tip;
    let writes = Commit::decode(&next.commit.bytes.0).is_ok_and(|commit| commit.kind == KIND_CHANGE);
    let is_given_up = setup.unreadable.is_some_and(|unreadable| epoch <= unreadable);
    let missing = writes && !is_given_up && !setup.keys.has_epoch(epoch);
    missing.then(|| EngineError::KeyMissing { vault: setup.vault(), seq: seq.next(), epoch })
}

/// What a page leads to.
pub(crate) enum Verdict {
    /// A round, verified.
    Round(Box<Pull>),
    /// The device log has to be fetched first.
    NeedDevices,
    /// Whether the chain passes through this place, or gives it up, has to be seen first.
    LookAhead(Place),
}

/// A round under way.
pub(crate) struct Pull {
    overlay: Overlay,
    after: Option<Seq>,
    head_seq: Seq,
    /// Whether the in-flight commit is among the commits: an answer was lost.
    ours: bool,
    here: BTreeMap<RecordId, (Vec<u8>, Option<IndexInfo>)>,
    staged: BTreeSet<RecordId>,
    /// This device's clock when the round began.
    utc_ms: u64,
    /// The latest clock of what came, but for those that run ahead.
    latest: Hlc,
    last_place: Option<(Seq, RecordId)>,
    events: Vec<Event>,
}

impl Pull {
    /// Verifies a page; `looked` is what was looked at ahead.
    pub(crate) fn verify(
        replica: &dyn Replica,
        setup: &Setup,
        devices: &DeviceLog,
        looked: &Looked,
        utc_ms: u64,
        page: &Page,
    ) -> Result<Verdict> {
        let head = replica.head()?;
        let bounds = Bounds::new(replica, setup.vault(), devices, looked, page)?;
        if let Some(place) = bounds.missed()? {
            return Ok(Verdict::LookAhead(place));
        }
        let after = head.as_ref().map(|head| head.tip.seq);
        let in_flight = replica.in_flight()?;
        let in_flight_hash = in_flight.map(|in_flight| Commit::hash_of(&in_flight.commit.bytes.0));
        let mut overlay = Overlay { head, ..Overlay::default() };
        let mut ours = false;
        for entry in &page.commits {
            if let Some(missing) = key_missing(setup, overlay.head.as_ref(), entry) {
                if overlay.commits.is_empty() {
                    return Err(missing);
                }
                break;
            }
            let commit = Commit::decode(&entry.commit.bytes.0).map_err(EngineError::server)?;
            let added = match bounds.of(commit.device, commit.seq)? {
                Bound::LookAhead(place) if overlay.commits.is_empty() => {
                    return Ok(Verdict::LookAhead(place));
                }
                Bound::LookAhead(_) => break,
                Bound::PassedBy => Err(skipped::off_its_bound(setup, &commit)),
                Bound::Met => overlay.add(replica, setup, devices, entry),
            };
            match added {
                Ok(Step::Next) => {}
                Ok(Step::NeedDevices) => return Ok(Verdict::NeedDevices),
                // The good commits before a fault count; the next round meets the fault first.
                Err(EngineError::Fault { .. }) if !overlay.commits.is_empty() => break,
                Err(error) => return Err(error),
            }
            let Some(commit) = overlay.commits.last() else { continue };
            let is_in_flight = in_flight_hash == Some(commit.hash);
            ours |= is_in_flight;
            // A genesis is bound by the keyring, whoever posted it.
            let is_birth = commit.seq == Seq::new(0);
            let is_own = commit.device == setup.device.id() && !is_in_flight && !is_birth;
            if is_own && !replica.gave_up(commit.seq, commit.hash)? {
                return Err(EngineError::Cloned { vault: setup.vault(), seq: commit.seq });
            }
        }
        Ok(Verdict::Round(Box::new(Self {
            overlay,
            after,
            head_seq: page.head_seq,
            ours,
            here: BTreeMap::new(),
            staged: BTreeSet::new(),
            utc_ms,
            latest: Hlc::ZERO,
            last_place: None,
            events: Vec::new(),
        })))
    }

    pub(crate) fn after(&self) -> Option<Seq> {
        self.after
    }

    pub(crate) fn upto(&self) -> Seq {
        self.overlay.head.as_ref().map_or(Seq::new(0), |head| head.tip.seq)
    }

    pub(crate) fn last_place(&self) -> Option<(Seq, RecordId)> {
        self.last_place
    }

    /// Whether the server's head lies beyond this round.
    pub(crate) fn has_more(&self) -> bool {
        self.upto() < self.head_seq
    }

    /// Whether every announced envelope is here.
    pub(crate) fn is_complete(&self) -> bool {
        self.here.len().saturating_add(self.staged.len()) == self.overlay.touched.len()
    }

    /// Places of announced envelopes that did not come and must, ascending: in the last round all of them,
    /// before that those of records that can be read here, so that none disappears meanwhile, and of records with
    /// pending writes, which may be merged with them.
    pub(crate) fn missing(&mut self, replica: &dyn Replica) -> Result<Vec<(Seq, RecordId)>> {
        self.last_place = None;
        let mut places = Vec::new();
        for (record, touched) in &self.overlay.touched {
            if self.here.contains_key(record) || self.staged.contains(record) {
                continue;
            }
            if !self.has_more()
                || replica.record(*record)?.is_some_and(|row| row.present)
                || !replica.pending_of(*record)?.is_empty()
            {
                places.push((touched.row.seq, *record));
            }
        }
        places.sort_unstable();
        places.truncate(limits::PAGE_ENTRIES_MAX);
        Ok(places)
    }

    /// Takes entries, which ascend; refuses what no verified commit announced.
    pub(crate) fn take(&mut self, replica: &dyn Replica, setup: &Setup, entries: Vec<Entry>) -> Result<()> {
        let upto = self.upto();
        let touched = &self.overlay.touched;
        let read = many::map(&entries, |entry| Read::of(setup, touched.get(&entry.record), entry));
        for (entry, Read { digest, opened, index }) in entries.into_iter().zip(read) {
            if entry.seq > upto && upto < self.head_seq {
                // Of a commit that this round did not take.
                continue;
            }
            let Some(touched) = self.overlay.touched.get(&entry.record) else {
                return Err(EngineError::server(format!("no commit of these wrote record {}", entry.record)));
            };
            if (touched.row.seq, touched.row.digest) != (entry.seq, digest) {
                let fresh = &self.overlay.versions;
                return Err(old::refusal(replica, setup.vault(), fresh, &touched.row, digest));
            }
            let place = (entry.seq, entry.record);
            if self.last_place.is_some_and(|last| last >= place) {
                return Err(EngineError::server("entries do not ascend"));
            }
            self.last_place = Some(place);
            if self.here.contains_key(&entry.record) || self.staged.contains(&entry.record) {
                return Err(EngineError::server(format!("record {} comes twice", entry.record)));
            }
            match &opened {
                None => self.events.push(Event::Quarantined { record: entry.record, seq: entry.seq }),
                Some(hlc) if hlc.utc_ms <= self.utc_ms.saturating_add(HLC_AHEAD_MS_MAX) => {
                    self.latest = self.latest.max(*hlc);
                }
                Some(_) => {}
            }
            self.here.insert(entry.record, (entry.envelope.0, index));
        }
        Ok(())
    }

    /// Moves envelopes from memory into the replica's staging.
    pub(crate) fn stage(&mut self) -> Vec<WriteOp> {
        let here = std::mem::take(&mut self.here);
        let mut ops = Vec::with_capacity(here.len());
        for (record, (envelope, index)) in here {
            if let Some(touched) = self.overlay.touched.get(&record) {
                ops.push(WriteOp::StageEnvelope { seq: touched.row.seq, record, envelope, index });
                self.staged.insert(record);
            }
        }
        ops
    }

    /// What came of a record in this round.
    fn arrived(&self, replica: &dyn Replica, setup: &Setup, touched: &Touched) -> Result<Brought> {
        let record = touched.row.record;
        let opened = match self.here.get(&record) {
            Some((envelope, _)) => open(setup, touched, envelope),
            None if self.staged.contains(&record) => {
                let staged = replica.staged(touched.row.seq, record)?;
                staged.and_then(|envelope| open(setup, touched, &envelope))
            }
            None => return Ok(Brought::Absent),
        };
        Ok(opened.map_or(Brought::Quarantined, |opened| Brought::Here(Box::new(opened))))
    }

    /// All that becomes visible with this round.
    pub(crate) fn finish(
        mut self,
        replica: &dyn Replica,
        setup: &Setup,
    ) -> Result<(Vec<WriteOp>, Vec<Event>)> {
        let (mut ops, mut events) = (Vec::new(), std::mem::take(&mut self.events));
        let arrived = |touched: &Touched| self.arrived(replica, setup, touched);
        settle::settle(replica, setup, &self.overlay, &arrived, self.ours, &mut ops, &mut events)?;
        let clock = replica.clock()?;
        if self.latest > clock {
            ops.push(WriteOp::SetClock(clock.receive(self.latest, self.utc_ms)));
        }
        for commit in self.overlay.commits {
            let (seq, hash) = (commit.seq, commit.hash);
            ops.push(WriteOp::AddCommit { seq, hash, commit: commit.signed, changes: commit.changes });
        }
        ops.extend(self.overlay.versions.into_iter().map(WriteOp::AddVersion));
        ops.extend(self.overlay.abandoned.into_iter().map(|(seq, hash)| WriteOp::Abandon(seq, hash)));
        let records = self.overlay.touched.len();
        for (record, touched) in self.overlay.touched {
            let (present, source) = match self.here.remove(&record) {
                Some((envelope, index)) => (true, EnvelopeSource::Here(envelope, index)),
                None if self.staged.contains(&record) => (true, EnvelopeSource::Staged),
                None => (false, EnvelopeSource::Absent),
            };
            ops.push(WriteOp::SetRecord(RecordRow { present, ..touched.row }, source));
        }
        let head = self.overlay.head.ok_or(EngineError::server("a round without commits"))?;
        let seq = head.tip.seq;
        if replica.expected()?.is_some_and(|(place, _)| place <= seq) {
            ops.push(WriteOp::SetExpected(None));
        }
        ops.push(WriteOp::SetHead(head));
        ops.push(WriteOp::ClearStaged);
        events.push(Event::Pulled { seq, records });
        Ok((ops, events))
    }
}

/// What is read of an entry, apart from whether it belongs here.
struct Read {
    digest: Digest,
    /// The clock in it; none if it is not what was announced, or does not open.
    opened: Option<Hlc>,
    index: Option<IndexInfo>,
}

impl Read {
    fn of(setup: &Setup, touched: Option<&Touched>, entry: &Entry) -> Self {
        let digest = envelope::digest(&entry.envelope.0);
        let touched = touched.filter(|touched| touched.row.digest == digest);
        let opened = touched.and_then(|touched| open(setup, touched, &entry.envelope.0));
        let index = opened.as_ref().map(|opened| index_info(setup, opened));
        Self { digest, opened: opened.map(|opened| opened.content.hlc), index }
    }
}

/// What the index says of a version.
pub(crate) fn index_info(setup: &Setup, opened: &Opened) -> IndexInfo {
    index_of(setup, &opened.content, opened.header.kind, opened.header.device)
}

/// The same of a content of this kind by this device.
pub(crate) fn index_of(setup: &Setup, content: &Content, kind: u8, device: DeviceId) -> IndexInfo {
    let conflict = kind == KIND_DOCUMENT && document::is_conflict(setup, content, device);
    let group = if content.record_type == crate::files::FILE_TYPE {
        content.name.0.iter().copied().take(16).collect()
    } else {
        Vec::new()
    };
    IndexInfo { record_type: content.record_type.clone(), group, conflict }
}

/// Opens an envelope that belongs to a change; none if it is to be quarantined.
pub(crate) fn open(setup: &Setup, touched: &Touched, bytes: &[u8]) -> Option<Opened> {
    let opened = setup.keys.open(bytes).ok()?;
    let header = &opened.header;
    let row = &touched.row;
    let fits = (header.record, header.revision, header.kind) == (row.record, row.revision, row.kind)
        && (header.device, header.epoch) == (touched.device, touched.epoch)
        && header.blobs == blob_list_digest(&touched.blobs);
    fits.then_some(opened)
}

/// Takes envelopes that were absent. Each is checked against the commit that announced it.
pub(crate) fn fill(
    replica: &dyn Replica,
    setup: &Setup,
    rows: &[RecordRow],
    entries: Vec<Entry>,
) -> Result<(Vec<WriteOp>, Vec<Event>)> {
    let wanted: BTreeMap<RecordId, &RecordRow> = rows.iter().map(|row| (row.record, row)).collect();
    let (mut ops, mut events) = (Vec::new(), Vec::new());
    for entry in entries {
        let Some(row) = wanted.get(&entry.record) else {
            return Err(EngineError::server(format!("record {} was not asked for", entry.record)));
        };
        let digest = envelope::digest(&entry.envelope.0);
        if (row.seq, row.digest) != (entry.seq, digest) {
            return Err(old::refusal(replica, setup.vault(), &[], row, digest));
        }
        let touched = touched_of(replica, row)?;
        let opened = open(setup, &touched, &entry.envelope.0);
        let index = opened.as_ref().map(|opened| index_info(setup, opened));
        if index.is_none() {
            events.push(Event::Quarantined { record: row.record, seq: row.seq });
        }
        let source = EnvelopeSource::Here(entry.envelope.0, index);
        ops.push(WriteOp::SetRecord(RecordRow { present: true, ..**row }, source));
        settle::late(replica, setup, &touched, opened.as_ref(), &mut ops, &mut events)?;
    }
    Ok((ops, events))
}

/// Settles the writes of records whose newest version nobody has.
pub(crate) fn without(replica: &dyn Replica, setup: &Setup) -> Result<(Vec<WriteOp>, Vec<Event>)> {
    let (mut ops, mut events) = (Vec::new(), Vec::new());
    let records: BTreeSet<RecordId> = replica.pending(usize::MAX)?.iter().map(|row| row.record).collect();
    for record in records {
        if let Some(row) = replica.record(record)?.filter(|row| !row.present) {
            settle::late(replica, setup, &touched_of(replica, &row)?, None, &mut ops, &mut events)?;
        }
    }
    Ok((ops, events))
}

fn touched_of(replica: &dyn Replica, row: &RecordRow) -> Result<Touched> {
    let missing = || EngineError::replica(format!("commit {} is missing", row.seq));
    let (signed, changes) = replica.commit(row.seq)?.ok_or_else(missing)?;
    let commit = Commit::decode(&signed.bytes.0).map_err(EngineError::replica)?;
    let changes = Changes::decode(&changes).map_err(EngineError::replica)?;
    let change =
        changes.0.iter().find(|change| change.version().is_some_and(|(record, ..)| record == row.record));
    let blobs = change.map(Change::blobs).unwrap_or_default().to_vec();
    Ok(Touched { row: *row, device: commit.device, epoch: commit.epoch, blobs })
}

/// Opens a version that was fetched for reading the past; it must be the one that its commit announced.
pub(crate) fn open_version(
    replica: &dyn Replica,
    setup: &Setup,
    row: &RecordRow,
    bytes: &[u8],
) -> Result<Option<Content>> {
    let digest = envelope::digest(bytes);
    if digest != row.digest {
        return Err(old::refusal(replica, setup.vault(), &[], row, digest));
    }
    Ok(open(setup, &touched_of(replica, row)?, bytes).map(|opened| opened.content))
}
