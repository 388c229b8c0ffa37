//! What the simulator remembers apart from devices and server: every write, every byte that was sent.

use crate::documents::Intent;
use crate::replica::MemReplica;
use lockstep_client_crypto::content::{Content, Hlc};
use lockstep_engine::effect::{Event, Request};
use lockstep_engine::replica::{Base, PendingRow, Policy, WriteOp};
use lockstep_proto::commit::{Change, Changes, Commit};
use lockstep_proto::id::{DeviceId, OperationId, RecordId, Seq};
use lockstep_proto::{Digest, cbor::Wire as _, envelope};
use std::collections::{BTreeMap, BTreeSet};

/// A local write that became durable.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) device: usize,
    pub(crate) record: RecordId,
    pub(crate) record_type: String,
    pub(crate) name: Vec<u8>,
    pub(crate) kind: u8,
    pub(crate) document: Vec<u8>,
    pub(crate) policy: Policy,
    pub(crate) base: Base,
    pub(crate) hlc: Hlc,
}

/// All of it.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) operations: BTreeMap<OperationId, Operation>,
    pub(crate) stored: BTreeSet<OperationId>,
    /// Where a device was told that its write is durable at the server.
    pub(crate) pushed: BTreeMap<OperationId, Seq>,
    /// Writes that were taken away: by who set a device back, or by who took them back. They may be missing.
    pub(crate) forgotten: BTreeSet<OperationId>,
    /// Writes that a copy of their device has too. They may come twice.
    pub(crate) doubled: BTreeSet<OperationId>,
    /// Devices of which there is or was a copy.
    pub(crate) forked: BTreeSet<DeviceId>,
    /// How often a device was set back, doubled or lost.
    pub(crate) disasters: usize,
    /// Commits that were built and given up without another one at their place: they were refused, and may have been
    /// under way more than once.
    pub(crate) dropped: BTreeSet<Digest>,
    /// What the write of a document says that is given now; and of those that became durable.
    pub(crate) intent: Option<Intent>,
    pub(crate) documents: BTreeMap<OperationId, Intent>,
    /// Devices that were set back or lost: they forgot what they merged.
    pub(crate) was_set_back: BTreeSet<usize>,
    /// Whether what is dropped now is taken back by the app.
    pub(crate) is_abandoning: bool,
    nonces: BTreeMap<[u8; 24], Digest>,
    commits: BTreeMap<(DeviceId, Seq, Digest), (Digest, u64)>,
    last_hlc: BTreeMap<usize, Hlc>,
    /// How often what happened: shows that a run reached what it is to test.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl Ledger {
    /// Counts.
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// A write was carried out.
    pub(crate) fn wrote(&mut self, device: usize, ops: &[WriteOp]) -> Result<(), String> {
        for op in ops {
            match op {
                WriteOp::AddPending(row) => self.operation(device, row)?,
                WriteOp::StageEnvelope { .. } => self.count("staged locally"),
                WriteOp::SetInFlight(in_flight) => {
                    in_flight.sealed.iter().try_for_each(|sealed| self.sealed(&sealed.envelope))?;
                }
                WriteOp::DropPending(operation) if self.is_abandoning => {
                    self.count("abandoned");
                    self.forgotten.insert(*operation);
                }
                WriteOp::AddCommit { changes, .. } => {
                    let list = Changes::decode(changes).map_err(|error| error.to_string())?;
                    if list.0.iter().any(|change| matches!(change, Change::Unpin(_))) {
                        self.count("unpinned");
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn operation(&mut self, device: usize, row: &PendingRow) -> Result<(), String> {
        let content = Content::decode(&row.content).map_err(|error| error.to_string())?;
        let last = self.last_hlc.insert(device, content.hlc);
        if last.is_some_and(|last| last >= content.hlc) {
            return Err(format!("device {device}: the hybrid clock does not rise"));
        }
        let operation = Operation {
            device,
            record: row.record,
            record_type: content.record_type,
            name: content.name.0,
            kind: row.kind,
            document: content.document.0,
            policy: row.policy,
            base: row.base,
            hlc: content.hlc,
        };
        if row.policy == Policy::Merge {
            let intent = self.intent.take().ok_or("nobody meant to write this document")?;
            self.documents.insert(row.operation, intent);
        }
        match self.operations.insert(row.operation, operation) {
            None => Ok(()),
            Some(_) => Err(format!("operation {} is there twice", row.operation)),
        }
    }

    /// Something leaves a device.
    pub(crate) fn sent(&mut self, request: &Request) -> Result<(), String> {
        let envelopes = match request {
            Request::Commits { .. } => return Ok(()),
            Request::State { .. } => {
                self.count("asked for state");
                return Ok(());
            }
            Request::Envelopes { .. } => {
                self.count("asked for envelopes");
                return Ok(());
            }
            Request::DeviceLog => {
                self.count("asked for the device log");
                return Ok(());
            }
            Request::Stage { envelopes } => {
                self.count("staged at the server");
                envelopes
            }
            Request::Push(push) => {
                let commit = Commit::decode(&push.commit.bytes.0).map_err(|error| error.to_string())?;
                let hash = Commit::hash_of(&push.commit.bytes.0);
                let place = (commit.device, commit.seq, commit.previous);
                // One that names a later place of the device log may stand in for one that no server takes any more.
                let known = self.commits.insert(place, (hash, commit.device_log_index));
                let differs = |before: (Digest, u64)| {
                    let is_given_up = self.dropped.contains(&before.0);
                    before.0 != hash && before.1 >= commit.device_log_index && !is_given_up
                };
                if !self.forked.contains(&commit.device) && known.is_some_and(differs) {
                    return Err(format!("two commits by device {} at seq {}", commit.device, commit.seq));
                }
                &push.envelopes
            }
        };
        envelopes.iter().try_for_each(|bytes| self.sealed(&bytes.0))
    }

    /// Invariant 7: an envelope comes to be, or is sent.
    fn sealed(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (_, header) = envelope::decode(bytes).map_err(|error| error.to_string())?;
        let digest = envelope::digest(bytes);
        if self.nonces.insert(header.nonce.0, digest).is_some_and(|before| before != digest) {
            return Err("a nonce repeats".into());
        }
        Ok(())
    }

    /// Writes that were never on the disk: nobody was told of them.
    pub(crate) fn unwrote(&mut self, device: usize, added: &[OperationId], clock: Hlc) {
        for operation in added {
            self.operations.remove(operation);
            self.documents.remove(operation);
        }
        self.last_hlc.insert(device, clock);
    }

    /// A device goes on from another state than its own, or as another's copy.
    pub(crate) fn set_back(&mut self, device: usize, from: &MemReplica, to: &MemReplica, identity: DeviceId) {
        self.disasters += 1;
        self.was_set_back.insert(device);
        self.forked.insert(identity);
        self.last_hlc.insert(device, to.clock);
        self.doubled.extend(to.pending.iter().map(|row| row.operation));
        let kept: BTreeSet<OperationId> = to.pending.iter().map(|row| row.operation).collect();
        let lost = from.pending.iter().map(|row| row.operation).filter(|operation| !kept.contains(operation));
        self.forgotten.extend(lost);
    }

    /// A device says something.
    pub(crate) fn reported(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Stored(operations) => {
                for operation in operations {
                    if !self.operations.contains_key(operation) {
                        return Err(format!("{operation} is said to be stored and is not"));
                    }
                    self.stored.insert(*operation);
                }
            }
            Event::Pushed { seq, operations } => {
                for operation in operations {
                    let is_second = self.pushed.insert(*operation, *seq).is_some();
                    if is_second && !self.doubled.contains(operation) {
                        return Err(format!("{operation} is said to be pushed twice"));
                    }
                }
            }
            Event::ConflictCopy { .. } => self.count("conflict copy"),
            Event::Adopted { .. } => self.count("adopted"),
            Event::Merged { .. } => self.count("merged"),
            Event::StillWanted { record, error } => return Err(format!("{record} does not come: {error}")),
            Event::Quarantined { .. } => return Err("an envelope is quarantined".into()),
            Event::Stopped(lockstep_engine::EngineError::Misuse { .. }) => self.count("misuse"),
            Event::Stopped(error) => return Err(format!("the sync stopped: {error}")),
            Event::Paused(_) => self.count("paused"),
            Event::WentBack => return Err("the chain went back, and nobody repaired it".into()),
            Event::Pulled { .. } | Event::Idle => {}
        }
        Ok(())
    }
}
