//! Building commits from pending writes, and what holds when one is applied (PROTOCOL.md section 6.4).

use crate::effect::{Env, Event};
use crate::engine::{NextKey, Setup};
use crate::error::EngineError;
use crate::replica::{
    Base, EnvelopeSource, Head, InFlight, IndexInfo, PendingRow, Pinning, RecordRow, Replica, Result,
    SealedOperation, WriteOp,
};
use crate::verify::{Overlay, Step};
use crate::{many, settle};
use lockstep_client_crypto::content::Content;
use lockstep_client_crypto::vault::{Fresh, Parent, Rotating, SealAs, sign_rotation};
use lockstep_proto::api::vault::{CommitEntry, PushCommit};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::chain::Tip;
use lockstep_proto::commit::{Change, Changes, Commit, KIND_CHANGE, KIND_ROTATE};
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::envelope::{self, KIND_DOCUMENT};
use lockstep_proto::id::{BlobId, DeviceId, Epoch, OperationId, RecordId, Revision, Seq};
use lockstep_proto::version::{SUITE, VERSION};
use lockstep_proto::{Bytes, Digest, label};
use std::collections::{BTreeMap, BTreeSet};

/// Changes in one commit of ours; below the protocol's limit, so that a commit stays a small step.
const CHANGES_A_COMMIT: usize = 1024;
/// Envelope bytes in one commit of ours, about; a larger single envelope still rides alone.
const BYTES_A_COMMIT: usize = 1024 * 1024;
/// Header, commitment, tag and CBOR round a sealed plaintext, about.
const ENVELOPE_OVERHEAD_BYTES: u64 = 200;

/// Whether a commit extends the head, and is by this device (which may have a new id since).
pub(crate) fn follows(in_flight: &InFlight, head: &Head, device: DeviceId) -> Result<bool> {
    let commit = Commit::decode(&in_flight.commit.bytes.0).map_err(EngineError::replica)?;
    Ok(commit.device == device && commit.seq == head.tip.seq.next() && commit.previous == head.tip.hash)
}

/// Whether a device was revoked since a commit was signed: no server takes it any more.
pub(crate) fn is_outdated(in_flight: &InFlight, devices: &DeviceLog) -> Result<bool> {
    let commit = Commit::decode(&in_flight.commit.bytes.0).map_err(EngineError::replica)?;
    let last = devices.last_revocation(devices.next_index());
    Ok(last.is_some_and(|revoked| commit.device_log_index < revoked))
}

/// Takes back pending writes that name objects which are not at the server, and what stands on them: whoever
/// wrote them uploads and writes them again.
pub(crate) fn abandon(replica: &dyn Replica, blobs: &[BlobId]) -> Result<Vec<WriteOp>> {
    let mut gone: BTreeSet<OperationId> = BTreeSet::new();
    let mut ops = vec![WriteOp::DropInFlight];
    for row in replica.pending(usize::MAX)? {
        let content = Content::decode(&row.content).map_err(EngineError::replica)?;
        let stands_on_gone = matches!(row.base, Base::Pending(operation) if gone.contains(&operation));
        // A snapshot behind what is taken back would be one without its files.
        let lacks_files = row.pin == Pinning::Pin && !gone.is_empty();
        if stands_on_gone
            || lacks_files
            || content.blobs.iter().any(|reference| blobs.contains(&reference.blob))
        {
            gone.insert(row.operation);
            ops.push(WriteOp::DropPending(row.operation));
        }
    }
    Ok(ops)
}

/// The request's body, with or without its envelopes.
pub(crate) fn body(setup: &Setup, in_flight: &InFlight, with_envelopes: bool) -> PushCommit {
    let envelopes = if with_envelopes {
        in_flight.sealed.iter().map(|sealed| sealed.envelope.clone().into()).collect()
    } else {
        Vec::new()
    };
    let changes = in_flight.changes.clone().into();
    PushCommit { commit: in_flight.commit.clone(), changes, envelopes, heals: setup.heals }
}

/// Whether a commit puts nothing: deletions, or a new key. The server takes it beyond the account's quota, too.
pub(crate) fn puts_nothing(in_flight: &InFlight) -> Result<bool> {
    let changes = Changes::decode(&in_flight.changes).map_err(EngineError::replica)?;
    Ok(!changes.0.iter().any(|change| matches!(change, Change::Put { .. })))
}

/// Pending writes for the next commit, in order; with `deletions_only`, those deletions that follow no other pending
/// write of their record.
pub(crate) fn pending(replica: &dyn Replica, deletions_only: bool) -> Result<Vec<PendingRow>> {
    if !deletions_only {
        return replica.pending(CHANGES_A_COMMIT);
    }
    let mut seen = BTreeSet::new();
    let mut rows = replica.pending(usize::MAX)?;
    rows.retain(|row| {
        let is_first = seen.insert(row.record) && matches!(row.base, Base::Revision(_));
        is_first && row.kind != KIND_DOCUMENT && row.pin != Pinning::Pin
    });
    rows.truncate(CHANGES_A_COMMIT);
    Ok(rows)
}

/// A pending write that the next commit carries.
struct Chosen<'a> {
    row: &'a PendingRow,
    before: Option<RecordRow>,
    revision: Revision,
    how: How<'a>,
}

/// Where its envelope comes from.
enum How<'a> {
    Made(&'a Sealed),
    ToMake(Fresh),
}

/// A pending write that was sealed, by whom and for which epoch.
#[derive(Clone)]
pub(crate) struct Sealed {
    operation: SealedOperation,
    epoch: Epoch,
    device: DeviceId,
    /// Of the write as it was sealed: merging may change it since.
    content: Digest,
    digest: Digest,
    blobs: Vec<BlobId>,
    pub(crate) index: IndexInfo,
}

/// What was sealed and not confirmed yet, by write.
pub(crate) type SealedWrites = BTreeMap<OperationId, Sealed>;

/// A commit that was built, and what it carries.
pub(crate) struct Built {
    pub(crate) in_flight: InFlight,
    pub(crate) sealed: SealedWrites,
}

/// How large an envelope becomes, about.
fn envelope_bytes(row: &PendingRow) -> usize {
    let content = u64::try_from(row.content.len()).unwrap_or(u64::MAX).saturating_add(4);
    let envelope = envelope::padded_size(content).saturating_add(ENVELOPE_OVERHEAD_BYTES);
    usize::try_from(envelope).unwrap_or(usize::MAX)
}

/// Pending rows that go into one commit, in order. Their randomness is drawn in that order, too: the same generator gives
/// the same envelopes, on however many cores they are sealed.
fn choose<'a>(
    replica: &dyn Replica,
    setup: &Setup,
    epoch: Epoch,
    pending: &'a [PendingRow],
    mut records: BTreeSet<RecordId>,
    made: &'a SealedWrites,
    env: &mut Env<'_>,
) -> Result<Vec<Chosen<'a>>> {
    let mut chosen = Vec::with_capacity(pending.len());
    let mut size_bytes = 0_usize;
    for row in pending {
        // In order: a second write of a record waits for the next commit, and everything behind it too.
        if !records.insert(row.record) {
            break;
        }
        size_bytes = size_bytes.saturating_add(envelope_bytes(row));
        if size_bytes > BYTES_A_COMMIT && !chosen.is_empty() {
            break;
        }
        let before = replica.record(row.record)?;
        let revision = before.map_or(Revision::new(1), |row| row.revision.next());
        let place = (row.record, revision, epoch, setup.device.id());
        let fits = |sealed: &&Sealed| {
            (sealed.operation.record, sealed.operation.revision, sealed.epoch, sealed.device) == place
                && sealed.content == content_digest(row)
        };
        let made = made.get(&row.operation).filter(fits);
        let how = made.map_or_else(|| How::ToMake(Fresh::draw(env.rng)), How::Made);
        chosen.push(Chosen { row, before, revision, how });
        if row.pin == Pinning::Pin {
            // A snapshot is the last change of its commit.
            break;
        }
    }
    Ok(chosen)
}

/// Seals and signs the next commit of pending rows; none if there is none.
pub(crate) fn build(
    replica: &dyn Replica,
    pending: &[PendingRow],
    setup: &Setup,
    devices: &DeviceLog,
    head: &Head,
    made: &SealedWrites,
    env: &mut Env<'_>,
) -> Result<Option<Built>> {
    if !pending.is_empty() && !setup.keys.has_epoch(head.tip.epoch) {
        let Tip { seq, epoch, .. } = head.tip;
        return Err(EngineError::KeyMissing { vault: setup.vault(), seq, epoch });
    }
    let seq = head.tip.seq.next();
    let epoch = head.tip.epoch;
    let chosen = choose(replica, setup, epoch, pending, BTreeSet::new(), made, env)?;
    let all_sealed = seal_all(setup, epoch, &chosen);
    let mut sealed = Vec::with_capacity(chosen.len());
    let mut all = SealedWrites::new();
    let mut changes: BTreeMap<RecordId, Change> = BTreeMap::new();
    let mut state = head.state.clone();
    let mut pins: BTreeMap<Seq, Change> = BTreeMap::new();
    for (Chosen { row, before, revision, .. }, done) in chosen.iter().zip(all_sealed) {
        let done = done?;
        let digest = done.digest;
        if let Some(old) = before {
            state.remove(row.record, old.revision, old.digest, old.seq);
        }
        state.add(row.record, *revision, digest, seq);
        changes.insert(row.record, change(row, *revision, digest, done.blobs.clone()));
        sealed.push(done.operation.clone());
        all.insert(row.operation, done);
        match row.pin {
            Pinning::None => {}
            Pinning::Unpin(old) => {
                pins.insert(old, Change::Unpin(old));
            }
            Pinning::Pin => {
                pins.insert(seq, Change::Pin(seq));
            }
        }
    }
    if sealed.is_empty() {
        return Ok(None);
    }
    let changes = Changes(changes.into_values().chain(pins.into_values()).collect()).encode();
    let skip = skip_of(replica, seq)?;
    let last = devices.next_index().saturating_sub(1);
    let commit = Commit {
        version: VERSION,
        suite: SUITE,
        vault: setup.vault(),
        seq,
        previous: head.tip.hash,
        skip,
        kind: KIND_CHANGE,
        epoch: head.tip.epoch,
        device: setup.device.id(),
        device_log_index: last,
        device_log_head: devices.head(),
        vault_log_index: head.tip.vault_log_index,
        vault_log_head: head.tip.vault_log_head,
        utc: env.utc_ms / 1000,
        changes: Changes::digest_of(&changes),
        state: state.checksum(),
    };
    let commit = setup.device.sign(label::COMMIT, commit.encode());
    Ok(Some(Built { in_flight: InFlight { commit, changes, sealed }, sealed: all }))
}

/// The commit that begins a new key epoch, because a device was revoked; none if no key was made for the
/// device log as it is and nothing waits to be written.
pub(crate) fn rotate(
    replica: &dyn Replica,
    setup: &Setup,
    devices: &DeviceLog,
    head: &Head,
    env: &mut Env<'_>,
) -> Result<Option<Built>> {
    let tip = &head.tip;
    let last = devices.next_index().saturating_sub(1);
    let is_fresh = |next: &NextKey| next.fresh_for == devices.keyring_epoch_at(last);
    let next = setup.next_key.filter(is_fresh).map(|next| next.epoch);
    let Some(epoch) = next.filter(|next| *next > tip.epoch && setup.keys.has_epoch(*next)) else {
        let waits = !replica.pending(1)?.is_empty();
        let vault = setup.vault();
        return if waits { Err(EngineError::NeedsRotation { vault }) } else { Ok(None) };
    };
    let parent = Parent {
        account: setup.account,
        identity: devices.identity(),
        device_log_index: last,
        device_log_head: devices.head(),
        utc: env.utc_ms / 1000,
    };
    let rotating = Rotating { parent: &parent, index: tip.vault_log_index, head: tip.vault_log_head, epoch };
    let entry = sign_rotation(setup.vault(), &rotating, &setup.device);
    let vault_log_head = entry.digest(label::VAULT_LOG_ENTRY);
    let changes = Changes(vec![Change::Rotate(Box::new(entry))]).encode();
    let seq = tip.seq.next();
    let commit = Commit {
        version: VERSION,
        suite: SUITE,
        vault: setup.vault(),
        seq,
        previous: tip.hash,
        skip: skip_of(replica, seq)?,
        kind: KIND_ROTATE,
        epoch,
        device: setup.device.id(),
        device_log_index: last,
        device_log_head: devices.head(),
        vault_log_index: tip.vault_log_index.saturating_add(1),
        vault_log_head,
        utc: env.utc_ms / 1000,
        changes: Changes::digest_of(&changes),
        state: tip.state,
    };
    let commit = setup.device.sign(label::COMMIT, commit.encode());
    let in_flight = InFlight { commit, changes, sealed: Vec::new() };
    Ok(Some(Built { in_flight, sealed: SealedWrites::new() }))
}

fn skip_of(replica: &dyn Replica, seq: Seq) -> Result<Digest> {
    replica
        .commit_hash(seq.skip_target())?
        .ok_or_else(|| EngineError::replica(format!("commit {} is missing", seq.skip_target())))
}

/// What the commit after this one will carry, sealed while this one is on its way. Nothing of it is kept but in memory, and
/// what no longer fits when its turn comes is sealed again.
pub(crate) fn seal_ahead(
    replica: &dyn Replica,
    setup: &Setup,
    epoch: Epoch,
    in_flight: &InFlight,
    env: &mut Env<'_>,
) -> Result<(Vec<PendingRow>, SealedWrites)> {
    let Some(last) = in_flight.sealed.last() else { return Ok(Default::default()) };
    // A commit of deletions alone may have left earlier writes aside; what comes next is read when it is its turn.
    if puts_nothing(in_flight)? {
        return Ok(Default::default());
    }
    let pending = replica.pending_after(last.operation, CHANGES_A_COMMIT)?;
    let records = in_flight.sealed.iter().map(|sealed| sealed.record).collect();
    let made = SealedWrites::new();
    let chosen = choose(replica, setup, epoch, &pending, records, &made, env)?;
    let sealed = seal_all(setup, epoch, &chosen);
    let sealed = chosen.iter().zip(sealed).map(|(chosen, sealed)| Ok((chosen.row.operation, sealed?)));
    let sealed = sealed.collect::<Result<SealedWrites>>()?;
    let count = chosen.len();
    let mut rows = pending;
    rows.truncate(count);
    Ok((rows, sealed))
}

/// The envelopes of chosen writes, in their order.
fn seal_all(setup: &Setup, epoch: Epoch, chosen: &[Chosen<'_>]) -> Vec<Result<Sealed>> {
    many::map(chosen, |chosen| match &chosen.how {
        How::Made(sealed) => Ok((*sealed).clone()),
        How::ToMake(fresh) => seal(setup, epoch, chosen, fresh),
    })
}

fn seal(setup: &Setup, epoch: Epoch, chosen: &Chosen<'_>, fresh: &Fresh) -> Result<Sealed> {
    let Chosen { row, before, revision, .. } = chosen;
    let mut content = Content::decode(&row.content).map_err(EngineError::replica)?;
    content.base_revision = match row.base {
        Base::Revision(revision) => revision,
        Base::Pending(_) => before.map_or(Revision::new(0), |row| row.revision),
    };
    let seal_as = SealAs { kind: row.kind, revision: *revision, epoch };
    let envelope =
        setup.keys.seal_with(seal_as, &content, &setup.device, fresh).map_err(EngineError::replica)?;
    let digest = envelope::digest(&envelope);
    let operation =
        SealedOperation { operation: row.operation, record: row.record, revision: *revision, envelope };
    let (blobs, index) =
        (content.blob_ids(), crate::pull::index_of(setup, &content, row.kind, setup.device.id()));
    let (device, content) = (setup.device.id(), content_digest(row));
    Ok(Sealed { operation, epoch, device, content, digest, blobs, index })
}

fn content_digest(row: &PendingRow) -> Digest {
    Digest::of_cbor(label::LOCAL_DOCUMENT, &(row.kind, Bytes::from(row.content.clone())))
}

fn change(row: &PendingRow, revision: Revision, envelope: Digest, blobs: Vec<BlobId>) -> Change {
    let record = row.record;
    if row.kind == KIND_DOCUMENT {
        Change::Put { record, revision, envelope, blobs }
    } else {
        Change::Tombstone { record, revision, envelope }
    }
}

/// Everything that holds once the server has a commit of ours. It is verified like anybody else's; what is in
/// envelopes that this engine made is known, and the others are opened.
pub(crate) fn confirm(
    replica: &dyn Replica,
    setup: &Setup,
    devices: &DeviceLog,
    in_flight: &InFlight,
    made: &SealedWrites,
) -> Result<(Vec<WriteOp>, Event)> {
    let mut overlay = Overlay { head: replica.head()?, ..Overlay::default() };
    let entry =
        CommitEntry { commit: in_flight.commit.clone(), changes: Some(in_flight.changes.clone().into()) };
    if matches!(overlay.add(replica, setup, devices, &entry)?, Step::NeedDevices) {
        return Err(EngineError::replica("the own commit names an unknown device-log entry"));
    }
    let mut ops = vec![WriteOp::DropInFlight];
    let done = settle::confirmed(in_flight, &mut ops);
    for row in follow_ups(replica, in_flight, &done)? {
        ops.push(row);
    }
    for commit in overlay.commits {
        let (seq, hash) = (commit.seq, commit.hash);
        ops.push(WriteOp::AddCommit { seq, hash, commit: commit.signed, changes: commit.changes });
    }
    ops.extend(overlay.versions.into_iter().map(WriteOp::AddVersion));
    ops.extend(overlay.abandoned.into_iter().map(|(seq, hash)| WriteOp::Abandon(seq, hash)));
    let mut envelopes: BTreeMap<RecordId, &SealedOperation> =
        in_flight.sealed.iter().map(|sealed| (sealed.record, sealed)).collect();
    for (record, touched) in overlay.touched {
        let sealed = envelopes
            .remove(&record)
            .ok_or_else(|| EngineError::replica("an in-flight commit lacks an envelope"))?;
        let bytes = &sealed.envelope;
        let known = made.get(&sealed.operation).filter(|made| made.operation == *sealed);
        let index = known
            .map(|made| made.index.clone())
            .or_else(|| setup.keys.open(bytes).ok().map(|opened| crate::pull::index_info(setup, &opened)));
        let row = RecordRow { present: true, ..touched.row };
        ops.push(WriteOp::SetRecord(row, EnvelopeSource::Here(bytes.clone(), index)));
    }
    let head = overlay.head.ok_or_else(|| EngineError::replica("no head"))?;
    let seq = head.tip.seq;
    ops.push(WriteOp::SetHead(head));
    Ok((ops, Event::Pushed { seq, operations: done.into_keys().collect() }))
}

/// Pending writes that were based on the ones that are done now have a revision to stand on.
fn follow_ups(
    replica: &dyn Replica,
    in_flight: &InFlight,
    done: &BTreeMap<OperationId, Revision>,
) -> Result<Vec<WriteOp>> {
    let mut ops = Vec::new();
    if !replica.has_followers()? {
        return Ok(ops);
    }
    for sealed in &in_flight.sealed {
        for row in replica.pending_of(sealed.record)? {
            if let Base::Pending(operation) = row.base
                && let Some(revision) = done.get(&operation)
            {
                let id = row.operation;
                ops.push(WriteOp::ReplacePending(id, PendingRow { base: Base::Revision(*revision), ..row }));
            }
        }
    }
    Ok(ops)
}
