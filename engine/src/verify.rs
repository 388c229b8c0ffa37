//! Verifying a page of commits in full, over an overlay of what is held (PROTOCOL.md sections 6.3, 6.5).

use crate::engine::Setup;
use crate::error::EngineError;
use crate::replica::{Head, RecordRow, Replica, Result, VersionRow};
use lockstep_proto::api::vault::CommitEntry;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::chain::{self, ChainError, Owner, VerifiedCommit};
use lockstep_proto::commit::{Change, Changes, Commit};
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::envelope::{KIND_DOCUMENT, KIND_TOMBSTONE};
use lockstep_proto::id::{BlobId, DeviceId, Epoch, RecordId, Revision, Seq};
use lockstep_proto::state::StateDigest;
use lockstep_proto::{Digest, Signed, label};
use std::collections::BTreeMap;

/// A record that a page touches: its newest version there.
#[derive(Debug, Clone)]
pub(crate) struct Touched {
    pub(crate) row: RecordRow,
    pub(crate) device: DeviceId,
    pub(crate) epoch: Epoch,
    pub(crate) blobs: Vec<BlobId>,
}

/// A verified commit with what is stored of it.
#[derive(Debug, Clone)]
pub(crate) struct Verified {
    pub(crate) seq: Seq,
    pub(crate) hash: Digest,
    pub(crate) device: DeviceId,
    pub(crate) signed: Signed,
    pub(crate) changes: Vec<u8>,
}

/// What a run of commits amounts to.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    pub(crate) commits: Vec<Verified>,
    pub(crate) touched: BTreeMap<RecordId, Touched>,
    pub(crate) versions: Vec<VersionRow>,
    pub(crate) head: Option<Head>,
    /// Commits of other chains that repairs among these abandon.
    pub(crate) abandoned: Vec<(Seq, Digest)>,
}

/// Outcome of verifying one commit.
pub(crate) enum Step {
    Next,
    NeedDevices,
}

impl Overlay {
    /// Verifies the next commit and adds it.
    pub(crate) fn add(
        &mut self,
        replica: &dyn Replica,
        setup: &Setup,
        devices: &DeviceLog,
        entry: &CommitEntry,
    ) -> Result<Step> {
        let Some(changes) = entry.changes.as_ref() else {
            return Err(EngineError::server("it left a change list out"));
        };
        let Some(head) = self.head.clone() else {
            return self.birth(setup, devices, entry);
        };
        let commit = Commit::decode(&entry.commit.bytes.0).map_err(EngineError::server)?;
        if commit.vault != head.tip.vault || commit.seq != head.tip.seq.next() {
            return Err(EngineError::server("it sends a commit that does not belong here"));
        }
        if commit.previous != head.tip.hash {
            return Err(EngineError::Fork { vault: setup.vault(), seq: commit.seq });
        }
        let skip = self.hash_at(replica, commit.seq.skip_target())?;
        let verified = match chain::verify_next(&head.tip, skip, devices, &entry.commit) {
            Ok(verified) => verified,
            Err(ChainError::UnknownLogEntry { .. }) => return Ok(Step::NeedDevices),
            Err(error) => return Err(blame(setup, devices, &head, &entry.commit, &commit, &error)),
        };
        let list = chain::verify_changes(&commit, &changes.0).map_err(|error| {
            if Changes::digest_of(&changes.0) == commit.changes {
                fault(setup, &commit, &error)
            } else {
                EngineError::server("a change list is not the one that was signed")
            }
        })?;
        let owner = Owner { account: setup.account, identity: devices.identity() };
        chain::verify_kind(&head.tip, owner, devices, &verified, &list)
            .map_err(|error| fault(setup, &commit, &error))?;
        if list.goes_back_to().is_some() {
            return Err(fault_of(setup, &commit, "it goes back, and is taken over by itself only"));
        }
        self.abandoned.extend(list.abandoned());
        let state = self.apply(replica, setup, &head, &verified, &list)?;
        self.push(&verified, entry, changes.0.clone(), state);
        Ok(Step::Next)
    }

    fn birth(&mut self, setup: &Setup, devices: &DeviceLog, entry: &CommitEntry) -> Result<Step> {
        if setup.genesis.as_ref().is_some_and(|known| *known != entry.commit) {
            return Err(EngineError::Fork { vault: setup.vault(), seq: Seq::new(0) });
        }
        let identity = devices.identity();
        let born = chain::verify_birth(
            setup.vault(),
            setup.account,
            identity,
            devices,
            &setup.create,
            &entry.commit,
        );
        let verified = match born {
            Ok(verified) => verified,
            Err(ChainError::UnknownLogEntry { .. }) => return Ok(Step::NeedDevices),
            Err(error) => return Err(EngineError::server(error)),
        };
        let changes = Changes::default().encode();
        if entry.changes.as_ref().is_some_and(|list| list.0 != changes) {
            return Err(EngineError::server("a genesis has no changes"));
        }
        self.push(&verified, entry, changes, StateDigest::default());
        Ok(Step::Next)
    }

    fn push(&mut self, verified: &VerifiedCommit, entry: &CommitEntry, changes: Vec<u8>, state: StateDigest) {
        self.commits.push(Verified {
            seq: verified.commit().seq,
            hash: verified.hash(),
            device: verified.commit().device,
            signed: entry.commit.clone(),
            changes,
        });
        self.head = Some(Head { tip: verified.tip(), state });
    }

    pub(crate) fn hash_at(&self, replica: &dyn Replica, seq: Seq) -> Result<Digest> {
        let here = self.commits.iter().find(|commit| commit.seq == seq).map(|commit| commit.hash);
        let hash = match here {
            Some(hash) => Some(hash),
            None => replica.commit_hash(seq)?,
        };
        hash.ok_or_else(|| EngineError::replica(format!("commit {seq} is missing")))
    }

    /// Applies a change list to the overlay; gives the state after it.
    fn apply(
        &mut self,
        replica: &dyn Replica,
        setup: &Setup,
        head: &Head,
        verified: &VerifiedCommit,
        list: &Changes,
    ) -> Result<StateDigest> {
        let commit = verified.commit();
        let wrong = |rule: &str| EngineError::Fault {
            vault: setup.vault(),
            seq: commit.seq,
            device: commit.device,
            rule: rule.to_owned(),
        };
        let mut state = head.state.clone();
        let mut touched = Vec::new();
        for change in &list.0 {
            let Some((record, revision, digest)) = change.version() else { continue };
            let before = match self.touched.get(&record) {
                Some(known) => Some(known.row),
                None => replica.record(record)?,
            };
            if revision != before.map_or(Revision::new(1), |row| row.revision.next()) {
                return Err(wrong("a record's revision is not its last one plus one"));
            }
            if let Some(row) = before {
                state.remove(record, row.revision, row.digest, row.seq);
            }
            state.add(record, revision, digest, commit.seq);
            let kind = if matches!(change, Change::Put { .. }) { KIND_DOCUMENT } else { KIND_TOMBSTONE };
            let row = RecordRow { record, revision, digest, seq: commit.seq, kind, present: false };
            let previous_seq = before.map(|row| row.seq);
            touched.push((row, previous_seq, change.blobs().to_vec()));
        }
        if state.checksum() != commit.state {
            return Err(wrong("the state digest is not the one after its changes"));
        }
        for (row, previous_seq, blobs) in touched {
            let RecordRow { record, revision, digest, seq, kind, .. } = row;
            self.versions.push(VersionRow { seq, record, revision, digest, kind, previous_seq });
            self.touched.insert(record, Touched { row, device: commit.device, epoch: commit.epoch, blobs });
        }
        Ok(state)
    }
}

fn fault(setup: &Setup, commit: &Commit, error: &ChainError) -> EngineError {
    match error {
        ChainError::Rule { rule, .. } => fault_of(setup, commit, rule),
        other => fault_of(setup, commit, &other.to_string()),
    }
}

fn fault_of(setup: &Setup, commit: &Commit, rule: &str) -> EngineError {
    let rule = rule.to_owned();
    EngineError::Fault { vault: setup.vault(), seq: commit.seq, device: commit.device, rule }
}

/// Only a device that signed bytes which extend the head can be blamed; everything else is the server's.
fn blame(
    setup: &Setup,
    devices: &DeviceLog,
    head: &Head,
    signed: &Signed,
    commit: &Commit,
    error: &ChainError,
) -> EngineError {
    let extends = commit.seq == head.tip.seq.next() && commit.previous == head.tip.hash;
    let author = devices.device(commit.device);
    let signed_by_it =
        author.is_some_and(|device| signed.verify(Commit::NAME, label::COMMIT, &device.sign_key).is_ok());
    if extends && signed_by_it { fault(setup, commit, error) } else { EngineError::server(error) }
}
