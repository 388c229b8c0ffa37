//! Repairs (PROTOCOL.md section 6.7): commits that the identity signed, by which a chain goes back to an earlier
//! state, or by which a chain that parted from it is given up.

use crate::engine::Setup;
use crate::error::EngineError;
use crate::read::version_at;
use crate::replica::{Base, Head, InFlight, PendingRow, Pinning, Replica, Result, WriteOp};
use crate::verify::Verified;
use lockstep_proto::api::vault::CommitEntry;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::chain::{self, Owner, Tip};
use lockstep_proto::commit::{Change, Changes, Commit, KIND_REPAIR, RepairPlace, repair_input};
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::id::{RecordId, Revision, Seq};
use lockstep_proto::state::StateDigest;
use lockstep_proto::version::{SUITE, VERSION};
use lockstep_proto::{Digest, Signature, label};
use std::collections::BTreeMap;

const RECORDS_A_PAGE: usize = 1024;

/// The state digest after a commit that is held, from the verified versions.
///
/// # Errors
/// The replica's.
pub fn state_at(replica: &dyn Replica, seq: Seq) -> Result<StateDigest> {
    let mut state = StateDigest::default();
    let mut after: Option<RecordId> = None;
    loop {
        let page = replica.records_after(after, RECORDS_A_PAGE)?;
        let Some(last) = page.last() else { return Ok(state) };
        after = Some(last.record);
        for row in page {
            if row.seq <= seq {
                state.add(row.record, row.revision, row.digest, row.seq);
            } else if let Some(version) = version_at(replica, row.record, seq)? {
                state.add(row.record, version.revision, version.digest, version.seq);
            }
        }
    }
}

/// The head as it was after a commit that is held.
///
/// # Errors
/// The replica's; also if what is held does not give the commit's signed state.
pub fn head_at(replica: &dyn Replica, seq: Seq) -> Result<Head> {
    let head = replica.head()?.ok_or_else(|| EngineError::replica("there is no head"))?;
    if head.tip.seq == seq {
        return Ok(head);
    }
    let (signed, _) = commit_at(replica, seq)?;
    let commit = Commit::decode(&signed).map_err(EngineError::replica)?;
    let rotated_at = if commit.vault_log_index == head.tip.vault_log_index {
        head.tip.rotated_at
    } else {
        rotated_at(replica, &commit)?
    };
    let state = state_at(replica, seq)?;
    if state.checksum() != commit.state {
        return Err(EngineError::replica(format!("the versions up to commit {seq} do not give its state")));
    }
    let tip = Tip {
        vault: commit.vault,
        seq,
        hash: Commit::hash_of(&signed),
        epoch: commit.epoch,
        device_log_index: commit.device_log_index,
        vault_log_index: commit.vault_log_index,
        vault_log_head: commit.vault_log_head,
        rotated_at,
        state: commit.state,
    };
    Ok(Head { tip, state })
}

fn commit_at(replica: &dyn Replica, seq: Seq) -> Result<(Vec<u8>, Vec<u8>)> {
    let missing = || EngineError::replica(format!("commit {seq} is missing"));
    replica.commit(seq)?.map(|(signed, changes)| (signed.bytes.0, changes)).ok_or_else(missing)
}

/// Device-log index of the vault-log entry in force at a commit: of the rotation or genesis that brought it.
fn rotated_at(replica: &dyn Replica, commit: &Commit) -> Result<u64> {
    let mut seq = commit.seq;
    loop {
        let (bytes, changes) = commit_at(replica, seq)?;
        let here = Commit::decode(&bytes).map_err(EngineError::replica)?;
        let changes = Changes::decode(&changes).map_err(EngineError::replica)?;
        let brings = here.vault_log_index == commit.vault_log_index && changes.rotation().is_some();
        // What a repair went back over has no say: nobody verified it.
        let before = changes.goes_back_to().filter(|_| here.kind == KIND_REPAIR).or_else(|| seq.previous());
        match before.filter(|before| *before < seq) {
            Some(before) if !brings => seq = before,
            _ => return Ok(here.device_log_index),
        }
    }
}

/// The last commit at or before one that is held and counts: not one that a repair went back over.
///
/// # Errors
/// The replica's.
pub fn counting(replica: &dyn Replica, seq: Seq) -> Result<Seq> {
    let Some(head) = replica.head()? else { return Ok(seq) };
    let mut counts = seq;
    let mut at = head.tip.seq;
    // From the end: a later repair may go back over an earlier one.
    while at > counts {
        let (bytes, changes) = commit_at(replica, at)?;
        let is_repair = Commit::decode(&bytes).is_ok_and(|commit| commit.kind == KIND_REPAIR);
        let to =
            Changes::decode(&changes).ok().filter(|_| is_repair).and_then(|changes| changes.goes_back_to());
        match to {
            Some(to) if to < counts => {
                counts = to;
                at = head.tip.seq;
            }
            Some(to) => at = to,
            None => at = at.previous().unwrap_or(counts),
        }
    }
    Ok(counts)
}

/// What is to be written when the replica goes back to a commit: pending writes that stand on what no longer
/// counts stand on what does. A snapshot that waits is dropped: it was of a state that no longer is.
///
/// # Errors
/// The replica's.
pub(crate) fn go_back(replica: &dyn Replica, to: Seq, on_chain: bool, carries: bool) -> Result<Vec<WriteOp>> {
    let mut ops = vec![WriteOp::DropInFlight, WriteOp::ClearStaged];
    let mut revisions: BTreeMap<RecordId, Revision> = BTreeMap::new();
    for row in replica.pending(usize::MAX)? {
        if row.pin == Pinning::Pin {
            ops.push(WriteOp::DropPending(row.operation));
            continue;
        }
        let Base::Revision(base) = row.base else { continue };
        let revision = match revisions.get(&row.record) {
            Some(known) => *known,
            None => version_at(replica, row.record, to)?.map_or(Revision::new(0), |version| version.revision),
        };
        revisions.insert(row.record, revision);
        if base > revision {
            // What it grew from does not count any more: a merge takes nothing for known to both.
            let row = PendingRow { base: Base::Revision(revision), grew: None, ..row };
            ops.push(WriteOp::ReplacePending(row.operation, row));
        }
    }
    ops.push(WriteOp::GoBack { to, on_chain, carries });
    Ok(ops)
}

/// What is to be written when the commits after one that is held are given up, because the chain that counts has
/// others there. They are kept for review.
///
/// # Errors
/// The replica's.
pub fn give_up(replica: &dyn Replica, shared: Seq, carries: bool) -> Result<Vec<WriteOp>> {
    let shared = counting(replica, shared)?;
    let mut ops = go_back(replica, shared, false, carries)?;
    ops.push(WriteOp::SetHead(head_at(replica, shared)?));
    Ok(ops)
}

/// A repair that goes back, with the commits between that do not count here.
pub(crate) struct Return {
    skipped: Vec<Verified>,
    repair: Verified,
    to: Seq,
    head: Head,
    abandoned: Vec<(Seq, Digest)>,
}

/// Commits that one search for a repair looks through at most.
const RETURN_COMMITS_MAX: usize = 8192;
/// Bytes of their change lists.
const RETURN_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A search through commits that follow the head for a repair by which the chain goes on, whatever is between.
/// Only their links are looked at: what is between does not count. Every commit is looked at once.
pub(crate) struct Search {
    last: (Seq, Digest),
    skipped: Vec<Verified>,
    bytes: usize,
}

impl Search {
    /// A search from the head; none if there is none yet.
    pub(crate) fn new(replica: &dyn Replica) -> Result<Option<Self>> {
        let head = replica.head()?;
        let last = head.map(|head| (head.tip.seq, head.tip.hash));
        Ok(last.map(|last| Self { last, skipped: Vec::new(), bytes: 0 }))
    }

    /// The last commit that was looked at.
    pub(crate) fn after(&self) -> Seq {
        self.last.0
    }

    /// Whether it went as far as a search goes.
    pub(crate) fn is_at_its_end(&self) -> bool {
        self.skipped.len() > RETURN_COMMITS_MAX || self.bytes > RETURN_BYTES_MAX
    }

    /// Takes the commits of the next page.
    pub(crate) fn take(
        &mut self,
        replica: &dyn Replica,
        setup: &Setup,
        devices: &DeviceLog,
        entries: Vec<CommitEntry>,
    ) -> Result<Option<Return>> {
        for entry in entries {
            let commit = Commit::decode(&entry.commit.bytes.0).map_err(EngineError::server)?;
            if commit.seq != self.last.0.next() || commit.previous != self.last.1 {
                return Err(EngineError::server("its commits do not follow each other"));
            }
            let verified = Verified {
                seq: commit.seq,
                hash: Commit::hash_of(&entry.commit.bytes.0),
                device: commit.device,
                signed: entry.commit,
                changes: entry.changes.map(|changes| changes.0).unwrap_or_default(),
            };
            if commit.kind == KIND_REPAIR
                && let Some((to, head)) =
                    check_return(replica, setup, devices, self.last, &self.skipped, &verified)?
            {
                let abandoned = Changes::decode(&verified.changes).map_err(EngineError::server)?;
                let abandoned = abandoned.abandoned().collect();
                let skipped = std::mem::take(&mut self.skipped);
                return Ok(Some(Return { skipped, repair: verified, to, head, abandoned }));
            }
            self.last = (verified.seq, verified.hash);
            self.bytes = self.bytes.saturating_add(verified.changes.len());
            self.skipped.push(verified);
        }
        Ok(None)
    }
}

/// Whether a repair at a place is valid, as seen from here; gives where it goes back to, and the head after it.
fn check_return(
    replica: &dyn Replica,
    setup: &Setup,
    devices: &DeviceLog,
    last: (Seq, Digest),
    skipped: &[Verified],
    repair: &Verified,
) -> Result<Option<(Seq, Head)>> {
    let commit = Commit::decode(&repair.signed.bytes.0).map_err(EngineError::server)?;
    let Ok(changes) = chain::verify_changes(&commit, &repair.changes) else { return Ok(None) };
    let held = replica.head()?.map_or(Seq::new(0), |head| head.tip.seq);
    let Some(to) = changes.goes_back_to().filter(|to| *to <= held) else { return Ok(None) };
    // The identity's word first: what follows costs a walk over all records.
    let entry = CommitEntry { commit: repair.signed.clone(), changes: Some(repair.changes.clone().into()) };
    if !is_authorised(setup, devices, &entry) || counting(replica, to)? != to {
        return Ok(None);
    }
    let before = head_at(replica, to)?;
    let tip = Tip { seq: last.0, hash: last.1, ..before.tip.clone() };
    let target = commit.seq.skip_target();
    let skip = match skipped.iter().find(|commit| commit.seq == target) {
        Some(commit) => Some(commit.hash),
        None => replica.commit_hash(target)?,
    };
    let owner = Owner { account: setup.account, identity: devices.identity() };
    let checked = skip.and_then(|skip| chain::verify_next(&tip, skip, devices, &repair.signed).ok());
    let Some(verified) = checked else { return Ok(None) };
    if chain::verify_kind(&tip, owner, devices, &verified, &changes).is_err()
        || commit.state != before.tip.state
    {
        return Ok(None);
    }
    Ok(Some((to, Head { tip: verified.tip(), state: before.state })))
}

impl Return {
    /// Everything that holds once the repair is taken over.
    pub(crate) fn ops(self, replica: &dyn Replica) -> Result<Vec<WriteOp>> {
        let mut ops = go_back(replica, self.to, true, false)?;
        for commit in self.skipped.into_iter().chain([self.repair]) {
            let Verified { seq, hash, signed, changes, .. } = commit;
            ops.push(WriteOp::AddCommit { seq, hash, commit: signed, changes });
        }
        ops.extend(self.abandoned.into_iter().map(|(seq, hash)| WriteOp::Abandon(seq, hash)));
        ops.push(WriteOp::SetHead(self.head));
        Ok(ops)
    }
}

/// Whether a commit is a repair that the identity signed and that abandons another commit.
pub(crate) fn abandons(
    setup: &Setup,
    devices: &DeviceLog,
    entry: &CommitEntry,
    given_up: (Seq, Digest),
) -> bool {
    abandoned_by(setup, devices, entry).contains(&given_up)
}

/// Whether a commit is a repair that the identity signed.
fn is_authorised(setup: &Setup, devices: &DeviceLog, entry: &CommitEntry) -> bool {
    authorised(setup, devices, entry).is_some()
}

/// Commits of other chains that a commit abandons: none, unless it is a repair that the identity signed.
pub fn abandoned_by(setup: &Setup, devices: &DeviceLog, entry: &CommitEntry) -> Vec<(Seq, Digest)> {
    authorised(setup, devices, entry).map_or_else(Vec::new, |changes| changes.abandoned().collect())
}

/// Where a commit goes back to: nowhere, unless it is a repair that the identity signed.
pub fn goes_back_to(setup: &Setup, devices: &DeviceLog, entry: &CommitEntry) -> Option<Seq> {
    authorised(setup, devices, entry).and_then(|changes| changes.goes_back_to())
}

/// The change list of a repair that the identity signed.
fn authorised(setup: &Setup, devices: &DeviceLog, entry: &CommitEntry) -> Option<Changes> {
    let commit = Commit::decode(&entry.commit.bytes.0).ok()?;
    let bytes = entry.changes.as_ref().filter(|_| commit.kind == KIND_REPAIR)?;
    let changes = chain::verify_changes(&commit, &bytes.0).ok()?;
    let (says, signature) = changes.repair()?;
    let input = repair_input(setup.account, &place_of(&commit), says);
    let verified = devices.identity().verify("repair", label::REPAIR, &input, signature);
    verified.is_ok().then_some(changes)
}

fn place_of(commit: &Commit) -> RepairPlace {
    RepairPlace { vault: commit.vault, seq: commit.seq, previous: commit.previous, device: commit.device }
}

/// Where a chain ends at the server, and what a repair there does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The commit that the repair follows.
    pub last: (Seq, Digest),
    /// Hash of the commit at the repair's skip target.
    pub skip: Digest,
    /// The state that holds afterwards: that after the last commit that counts.
    pub good: Head,
    /// Commits of other chains that are given up, ascending.
    pub abandoned: Vec<(Seq, Digest)>,
    /// Claimed time.
    pub utc: u64,
}

/// Builds a repair; `authorise` signs with the identity.
pub fn build(
    setup: &Setup,
    devices: &DeviceLog,
    plan: &Plan,
    authorise: impl FnOnce(&RepairPlace, &[Change]) -> Signature,
) -> InFlight {
    let (last, previous) = plan.last;
    let seq = last.next();
    let place = RepairPlace { vault: setup.vault(), seq, previous, device: setup.device.id() };
    let mut says = Vec::new();
    if plan.good.tip.seq < last {
        says.push(Change::GoBack(plan.good.tip.seq));
    }
    says.extend(plan.abandoned.iter().map(|(seq, hash)| Change::Abandon(*seq, *hash)));
    let signature = authorise(&place, &says);
    says.push(Change::Authority(signature));
    let changes = Changes(says).encode();
    let tip = &plan.good.tip;
    let commit = Commit {
        version: VERSION,
        suite: SUITE,
        vault: setup.vault(),
        seq,
        previous,
        skip: plan.skip,
        kind: KIND_REPAIR,
        epoch: tip.epoch,
        device: setup.device.id(),
        device_log_index: devices.next_index().saturating_sub(1),
        device_log_head: devices.head(),
        vault_log_index: tip.vault_log_index,
        vault_log_head: tip.vault_log_head,
        utc: plan.utc,
        changes: Changes::digest_of(&changes),
        state: tip.state,
    };
    let commit = setup.device.sign(label::COMMIT, commit.encode());
    InFlight { commit, changes, sealed: Vec::new() }
}
