//! What a device keeps of a vault, as the engine reads and writes it.

use crate::document::Origin;
use crate::error::EngineError;
use lockstep_client_crypto::content::Hlc;
use lockstep_proto::chain::Tip;
use lockstep_proto::id::{OperationId, RecordId, Revision, Seq};
use lockstep_proto::state::StateDigest;
use lockstep_proto::{Digest, Signed};

/// Result of reading.
pub type Result<T> = std::result::Result<T, EngineError>;

/// The verified head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Where the chain stands.
    pub tip: Tip,
    /// State digest there.
    pub state: StateDigest,
}

/// A record's newest verified version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRow {
    /// Record.
    pub record: RecordId,
    /// Revision.
    pub revision: Revision,
    /// Envelope digest.
    pub digest: Digest,
    /// Commit that put it.
    pub seq: Seq,
    /// Document or tombstone.
    pub kind: u8,
    /// Whether the envelope is here.
    pub present: bool,
}

/// Any version that a verified change list announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRow {
    /// Commit that put it.
    pub seq: Seq,
    /// Record.
    pub record: RecordId,
    /// Revision.
    pub revision: Revision,
    /// Envelope digest.
    pub digest: Digest,
    /// Document or tombstone.
    pub kind: u8,
    /// Commit of the revision before.
    pub previous_seq: Option<Seq>,
}

/// What a pending write is based on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// A verified revision; 0 for a new record.
    Revision(Revision),
    /// An earlier pending write of the same record.
    Pending(OperationId),
}

/// What happens when somebody else wrote the record first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The committed version stays; the pending one becomes a conflict copy.
    KeepBoth,
    /// The committed version stays; the pending one is dropped (write-once records).
    AdoptCommitted,
    /// The pending version is written over the committed one (records with one writer).
    Overwrite,
    /// Both become one by the merge policy of the record's type. What can not become one is kept as by
    /// [`Self::KeepBoth`].
    Merge,
}

/// What the commit that carries a write does to the vault's pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinning {
    /// Nothing.
    None,
    /// It pins itself: a snapshot.
    Pin,
    /// It unpins an earlier commit: a snapshot is forgotten.
    Unpin(Seq),
}

/// A local write that the server has not got yet.
#[derive(Clone, PartialEq, Eq)]
pub struct PendingRow {
    /// Random id.
    pub operation: OperationId,
    /// Record.
    pub record: RecordId,
    /// Document or tombstone.
    pub kind: u8,
    /// Encoded content; its base revision is filled in when it is sealed.
    pub content: Vec<u8>,
    /// What it is based on.
    pub base: Base,
    /// What happens in a clash.
    pub policy: Policy,
    /// What the commit that carries it pins or unpins.
    pub pin: Pinning,
    /// The version that the writer saw, where the write is to be merged; none if there was none, or it is not known
    /// any more.
    pub grew: Option<Origin>,
}

impl std::fmt::Debug for PendingRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PendingRow({}, {}, {:?}, {:?})", self.operation, self.record, self.base, self.policy)
    }
}

/// What an automatic merge decided, and what it decided about: enough to show it and to undo it.
#[derive(Clone, PartialEq, Eq)]
pub struct MergeRow {
    /// The pending write.
    pub operation: OperationId,
    /// Its record.
    pub record: RecordId,
    /// The committed revision that it was merged with.
    pub revision: Revision,
    /// Encoded [`lockstep_merge::Record`].
    pub decisions: Vec<u8>,
    /// The pending content as it was.
    pub pending: Vec<u8>,
}

impl std::fmt::Debug for MergeRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MergeRow({}, {}, revision {})", self.operation, self.record, self.revision)
    }
}

/// A commit that was built and may have been sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    /// The signed commit.
    pub commit: Signed,
    /// Its change list.
    pub changes: Vec<u8>,
    /// Operations that it carries, each with the envelope made of it.
    pub sealed: Vec<SealedOperation>,
}

/// A pending write, sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedOperation {
    /// The write.
    pub operation: OperationId,
    /// Record.
    pub record: RecordId,
    /// Revision in the envelope.
    pub revision: Revision,
    /// The envelope.
    pub envelope: Vec<u8>,
}

/// What the local index says of a record; sealed at rest by the adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexInfo {
    /// Record type.
    pub record_type: String,
    /// Group within the type (the source of a file), or empty.
    pub group: Vec<u8>,
    /// Whether somebody has to decide: it is a conflict copy, or holds what waits for a decision.
    pub conflict: bool,
}

/// Where a record's envelope comes from when its row is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvelopeSource {
    /// Here it is; with no index information if it does not open (quarantined).
    Here(Vec<u8>, Option<IndexInfo>),
    /// Staged before under (seq, record).
    Staged,
    /// Not here yet.
    Absent,
}

/// One durable change of the replica. All operations of one write happen together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOp {
    /// Appends a pending write.
    AddPending(PendingRow),
    /// Puts another pending write in the place of one.
    ReplacePending(OperationId, PendingRow),
    /// Removes a pending write.
    DropPending(OperationId),
    /// Remembers what a merge did.
    AddMerge(MergeRow),
    /// Remembers a commit before it is sent.
    SetInFlight(InFlight),
    /// Forgets it.
    DropInFlight,
    /// A verified commit.
    AddCommit {
        /// Its seq.
        seq: Seq,
        /// Its hash.
        hash: Digest,
        /// The signed commit.
        commit: Signed,
        /// Its change list.
        changes: Vec<u8>,
    },
    /// A version that it announced.
    AddVersion(VersionRow),
    /// A record's newest version.
    SetRecord(RecordRow, EnvelopeSource),
    /// Lets go of a record's envelope, on purpose: it is known and not held, until it is recalled or a new version comes.
    Evict(RecordId),
    /// An envelope that is not here is wanted, and nothing waits for it: every sync asks for it after all else. One whose
    /// record is still to be sent stays as it is, unless it was evicted.
    Recall(RecordId),
    /// A record was looked at and stays held: as long as what is held begins no later than this (seconds since 1970), or
    /// whatever its age.
    Hold(RecordId, Option<u64>),
    /// An envelope that came before its commit became visible.
    StageEnvelope {
        /// Commit that put it.
        seq: Seq,
        /// Record.
        record: RecordId,
        /// The envelope.
        envelope: Vec<u8>,
        /// What the index says of it.
        index: Option<IndexInfo>,
    },
    /// Forgets what was staged and not used.
    ClearStaged,
    /// Goes back to the state after a commit: newer versions and commits no longer count, and are kept for
    /// review. Envelopes of versions that count again may have to be fetched.
    GoBack {
        /// The commit.
        to: Seq,
        /// Whether the commits after it stay part of the chain (a repair follows them), or were of another one.
        on_chain: bool,
        /// Whether this device is the one that carries over what it held of them.
        carries: bool,
    },
    /// A commit of another chain that a verified repair abandons.
    Abandon(Seq, Digest),
    /// A repair that was followed and has to come at this place of the chain; none: it came.
    SetExpected(Option<(Seq, Digest)>),
    /// The verified head.
    SetHead(Head),
    /// The hybrid clock.
    SetClock(Hlc),
}

/// Read access to one vault's replica. Reading sees every write that was carried out.
#[expect(clippy::missing_errors_doc, reason = "every method fails with the replica's own error only")]
pub trait Replica {
    /// The verified head; none before genesis.
    fn head(&self) -> Result<Option<Head>>;
    /// Hash of a verified commit.
    fn commit_hash(&self, seq: Seq) -> Result<Option<Digest>>;
    /// Whether a commit was verified here once and given up since: one of this device's own may come back.
    fn gave_up(&self, seq: Seq, hash: Digest) -> Result<bool>;
    /// A verified commit and its change list.
    fn commit(&self, seq: Seq) -> Result<Option<(Signed, Vec<u8>)>>;
    /// A record's newest verified version.
    fn record(&self, record: RecordId) -> Result<Option<RecordRow>>;
    /// Its envelope.
    fn envelope(&self, record: RecordId) -> Result<Option<Vec<u8>>>;
    /// What was staged under (seq, record).
    fn staged(&self, seq: Seq, record: RecordId) -> Result<Option<Vec<u8>>>;
    /// A version by place.
    fn version(&self, seq: Seq, record: RecordId) -> Result<Option<VersionRow>>;
    /// Newest versions ascending by record, after a place, at most `limit`.
    fn records_after(&self, after: Option<RecordId>, limit: usize) -> Result<Vec<RecordRow>>;
    /// Whether a record's envelope was let go of on purpose, and is not wanted again.
    fn is_evicted(&self, record: RecordId) -> Result<bool>;
    /// Records whose envelope is not here and should be before anything is sent, at most `limit`: those that were evicted
    /// are left out, wanted again or not.
    fn absent(&self, limit: usize) -> Result<Vec<RecordRow>>;
    /// Records whose envelope was recalled and did not come yet, ascending by commit and record, after a place, at most
    /// `limit`.
    fn wanted(&self, after: Option<(Seq, RecordId)>, limit: usize) -> Result<Vec<RecordRow>>;
    /// Pending writes in order, at most `limit`.
    fn pending(&self, limit: usize) -> Result<Vec<PendingRow>>;
    /// Pending writes after one of them, in order, at most `limit`.
    fn pending_after(&self, after: OperationId, limit: usize) -> Result<Vec<PendingRow>> {
        let mut rows = self.pending(usize::MAX)?.into_iter().skip_while(|row| row.operation != after);
        let _after = rows.next();
        Ok(rows.take(limit).collect())
    }
    /// Pending writes of a record, in order.
    fn pending_of(&self, record: RecordId) -> Result<Vec<PendingRow>>;
    /// Whether any pending write is based on an earlier pending one.
    fn has_followers(&self) -> Result<bool> {
        Ok(self.pending(usize::MAX)?.iter().any(|row| matches!(row.base, Base::Pending(_))))
    }
    /// Whether a verified repair abandons a commit.
    fn abandoned(&self, seq: Seq, hash: Digest) -> Result<bool>;
    /// The repair that was followed and has to come.
    fn expected(&self) -> Result<Option<(Seq, Digest)>>;
    /// The commit that may have been sent.
    fn in_flight(&self) -> Result<Option<InFlight>>;
    /// The hybrid clock's last reading.
    fn clock(&self) -> Result<Hlc>;
    /// Records of a type (and group, if given) that are present and not tombstones, ascending by record.
    fn list(&self, record_type: &str, group: Option<&[u8]>) -> Result<Vec<RecordRow>>;
}
