//! What a repair goes back over, looked at by whoever signs it: where it may begin, and what of it is really by the
//! devices that it names (PROTOCOL.md section 6.7).

use crate::bound::bound_of;
use crate::engine::Setup;
use crate::error::EngineError;
use crate::pull;
use crate::repair::Search;
use crate::replica::{RecordRow, Replica, Result};
use crate::verify::{Overlay, Touched};
use lockstep_client_crypto::vault::Opened;
use lockstep_proto::Digest;
use lockstep_proto::api::vault::CommitEntry;
use lockstep_proto::chain::{self, Authors as _};
use lockstep_proto::commit::{Change, Changes, Commit, KIND_CHANGE};
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::envelope::{self, KIND_DOCUMENT, KIND_TOMBSTONE};
use lockstep_proto::id::{RecordId, Revision, Seq};
use lockstep_proto::sign::PublicKey;
use lockstep_proto::{Signed, cbor::Wire as _, label};

/// Whether a commit that follows the verified head is one by which a device broke a rule: only behind such a one a
/// repair is needed. A repair that leads past it is none. `binds` says whether the chain that it is in passes through a
/// place, or gives it up.
///
/// # Errors
/// The replica's; [`EngineError::Server`] and the like for an answer that is nobody's fault but the server's.
pub fn is_fault(
    replica: &dyn Replica,
    setup: &Setup,
    devices: &DeviceLog,
    entry: &CommitEntry,
    binds: impl Fn(Seq, Digest) -> bool,
) -> Result<bool> {
    let mut overlay = Overlay { head: replica.head()?, ..Overlay::default() };
    let added = overlay.add(replica, setup, devices, entry);
    let commit = Commit::decode(&entry.commit.bytes.0).map_err(EngineError::server)?;
    let added = match bound_of(devices, setup.vault(), commit.device, commit.seq) {
        Some((seq, head))
            if added.is_ok()
                && !binds(seq, head)
                && replica.gave_up(seq, head)?
                && !replica.abandoned(seq, head)? =>
        {
            Err(off_its_bound(setup, &commit))
        }
        _ => added,
    };
    match added {
        Ok(_) => Ok(false),
        Err(EngineError::Fault { .. }) => {
            let Some(mut search) = Search::new(replica)? else { return Ok(false) };
            Ok(search.take(replica, setup, devices, vec![entry.clone()])?.is_none())
        }
        Err(error) => Err(error),
    }
}

/// A commit of a revoked device that is not on the way to what its revocation pinned.
pub(crate) fn off_its_bound(setup: &Setup, commit: &Commit) -> EngineError {
    let rule = "its device is revoked, and it is not on the way to what the revocation pinned".to_owned();
    EngineError::Fault { vault: setup.vault(), seq: commit.seq, device: commit.device, rule }
}

/// Whether a device of the account, live or not, signed a commit.
pub fn is_signed(devices: &DeviceLog, commit: &Commit, signed: &Signed) -> bool {
    devices.device(commit.device).is_some_and(|device| has_signed(&device.sign_key, signed))
}

fn has_signed(key: &PublicKey, signed: &Signed) -> bool {
    signed.verify(Commit::NAME, label::COMMIT, key).is_ok()
}

/// A version that a commit announces.
#[derive(Debug, Clone)]
pub struct Announced {
    /// Record.
    pub record: RecordId,
    /// Revision.
    pub revision: Revision,
    /// Envelope digest.
    pub digest: Digest,
    /// Document or tombstone.
    pub kind: u8,
    touched: Touched,
}

/// A commit that is gone back over, and what it announces.
#[derive(Debug, Clone)]
pub struct Skipped {
    /// Its versions, in the order of the change list that was signed with it.
    pub versions: Vec<Announced>,
    /// Whether a device that is live at the end of the log signed it: it is carried over.
    pub is_live: bool,
}

impl Skipped {
    /// Reads a commit. A list that was not signed with it, or that is none, announces nothing.
    pub fn read(devices: &DeviceLog, commit: &Commit, entry: &CommitEntry) -> Self {
        let last = devices.next_index().saturating_sub(1);
        let author = devices.author_key(commit.device, last);
        let names = devices.entry_hash(commit.device_log_index) == Some(commit.device_log_head);
        let is_live = names && author.is_some_and(|key| has_signed(&key, &entry.commit));
        let list = entry.changes.as_ref().and_then(|bytes| chain::verify_changes(commit, &bytes.0).ok());
        let list = list.filter(|_| commit.kind == KIND_CHANGE).unwrap_or_default();
        Self { versions: announced(commit, &list), is_live }
    }
}

fn announced(commit: &Commit, list: &Changes) -> Vec<Announced> {
    let mut versions = Vec::new();
    for change in &list.0 {
        let Some((record, revision, digest)) = change.version() else { continue };
        let kind = if matches!(change, Change::Put { .. }) { KIND_DOCUMENT } else { KIND_TOMBSTONE };
        let row = RecordRow { record, revision, digest, seq: commit.seq, kind, present: false };
        let blobs = change.blobs().to_vec();
        let touched = Touched { row, device: commit.device, epoch: commit.epoch, blobs };
        versions.push(Announced { record, revision, digest, kind, touched });
    }
    versions
}

impl Announced {
    /// Whether an envelope is the one that was announced.
    pub fn is(&self, bytes: &[u8]) -> bool {
        envelope::digest(bytes) == self.digest
    }

    /// Opens it, if it is and if it says of itself what its commit says of it.
    pub fn open(&self, setup: &Setup, bytes: &[u8]) -> Option<Opened> {
        if self.is(bytes) { pull::open(setup, &self.touched, bytes) } else { None }
    }
}
