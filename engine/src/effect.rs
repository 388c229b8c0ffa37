//! What goes into the engine and what comes out.

use crate::document::Origin;
use crate::error::EngineError;
use crate::replica::{Pinning, Policy, WriteOp};
use lockstep_client_crypto::CryptoRng;
use lockstep_client_crypto::content::BlobRef;
use lockstep_merge::Choice;
use lockstep_proto::api::vault::{Entry, Page, PushCommit};
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::id::{OperationId, RecordId, Revision, Seq};
use lockstep_proto::{BlobId, Bytes};
use std::sync::Arc;

/// What a step may use of the world.
pub struct Env<'a> {
    /// Milliseconds since 1970, by this device's clock.
    pub utc_ms: u64,
    /// Randomness.
    pub rng: &'a mut dyn CryptoRng,
}

/// A local write.
#[derive(Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// Record type.
    pub record_type: String,
    /// Name within the type.
    pub name: Vec<u8>,
    /// Schema version.
    pub schema: u64,
    /// The document; none deletes the record. One that is to be merged is a CBOR map without the library's notes.
    pub document: Option<Vec<u8>>,
    /// Objects that it needs; they are complete at the server.
    pub blobs: Vec<BlobRef>,
    /// What happens in a clash.
    pub policy: Policy,
    /// What its commit pins or unpins (snapshots).
    pub pin: Pinning,
    /// Revision that the writer read, for compare-and-swap; none takes what is there now.
    pub expected: Option<Revision>,
}

impl std::fmt::Debug for NewRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewRecord([redacted])")
    }
}

/// Something to send to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `GET .../commits?after`.
    Commits {
        /// Last verified commit.
        after: Option<Seq>,
    },
    /// `GET .../state` with current entries only.
    State {
        /// Last commit before the round.
        after: Option<Seq>,
        /// Last commit of the round.
        upto: Seq,
        /// Last entry received.
        from: Option<(Seq, RecordId)>,
    },
    /// `POST .../envelopes/get`.
    Envelopes {
        /// Places.
        places: Vec<(Seq, RecordId)>,
    },
    /// `POST .../envelopes`.
    Stage {
        /// Envelopes.
        envelopes: Vec<Bytes>,
    },
    /// `POST .../commits`.
    Push(PushCommit),
    /// The whole device log, verified by the adapter from what it holds.
    DeviceLog,
}

/// What came back.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Commits.
    Page(Page),
    /// Entries, and whether there are more.
    Entries(Vec<Entry>, bool),
    /// Envelopes are staged.
    Staged,
    /// The commit is applied.
    Pushed,
    /// The head moved on; here is the first page after the commit's place.
    HeadMoved(Page),
    /// The device log as it is now.
    DeviceLog(Arc<DeviceLog>),
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Try again later; the request may have been carried out.
    Later(String),
    /// Objects that the commit names are missing.
    MissingObjects(Vec<BlobId>),
    /// The server refuses; trying the same again does not help.
    Refused(String),
    /// The session ended.
    SignedOut,
}

/// An input.
#[derive(Debug)]
pub enum Input {
    /// Local writes, durable together.
    Put(Vec<NewRecord>),
    /// Edits of documents, each of the version that its writer saw, which may be older than what is here by now: then
    /// both become one. None takes what is here.
    Edit(Vec<(NewRecord, Option<Origin>)>),
    /// Decides what waits in a record's document; written like any edit.
    Decide(RecordId, Choice),
    /// Pull, then push what is pending.
    Sync,
    /// The same of a vault that was pulled before: a small change is sent without asking first what is new.
    Send,
    /// Pull only: nothing is signed or sent.
    Pull,
    /// Pull, then get the envelopes of these records that are not here: the first one that does not come as it was signed
    /// ends it.
    Fetch(Vec<RecordId>),
    /// Pull, then push pending deletions only: the server takes nothing else now. What else is pending waits, and a
    /// commit of it that was refused is taken back.
    Deletions,
    /// The server says that its head is another than the one that was verified here, at this place or before it:
    /// looks for a repair that gives this one up, and pulls.
    Seek,
    /// These objects are not at the server: pending writes that name them are taken back, to be written
    /// again by whoever has their contents.
    Abandon(Vec<BlobId>),
    /// A write was carried out.
    Written(u64),
    /// An answer to a request.
    Answered(u64, Result<Answer, Failure>),
}

/// Something for the adapter to do. All effects of a step are carried out before the next input is given;
/// only answers may be late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Carry out all operations durably, together; then give [`Input::Written`].
    Write(u64, Vec<WriteOp>),
    /// Send; then give [`Input::Answered`].
    Send(u64, Request),
    /// Tell the app.
    Report(Event),
}

/// Something that the app may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Local writes are durable.
    Stored(Vec<OperationId>),
    /// Commits became visible.
    Pulled {
        /// Head.
        seq: Seq,
        /// Records that changed.
        records: usize,
    },
    /// A commit of this device is durable at the server.
    Pushed {
        /// Its seq.
        seq: Seq,
        /// Operations in it.
        operations: Vec<OperationId>,
    },
    /// A repair was taken over: what it abandons is kept for review.
    WentBack,
    /// A pending write lost and lives on as a copy.
    ConflictCopy {
        /// The record that stays as committed.
        record: RecordId,
        /// The copy.
        copy: RecordId,
    },
    /// A pending write lost and was dropped by its policy.
    Adopted {
        /// The record that stays as committed.
        record: RecordId,
    },
    /// A pending write and the committed version became one.
    Merged {
        /// The record.
        record: RecordId,
        /// Whether something in it waits for a decision.
        open: bool,
    },
    /// An envelope does not open or belongs elsewhere; it is kept and named.
    Quarantined {
        /// The record.
        record: RecordId,
        /// Commit that put it.
        seq: Seq,
    },
    /// An envelope that is wanted again did not come, or not as it was signed: it is asked for again with the next
    /// sync, and nothing waits for it.
    StillWanted {
        /// The record.
        record: RecordId,
        /// What is wrong.
        error: EngineError,
    },
    /// Nothing is left to do.
    Idle,
    /// The sync ended early; pending writes are kept.
    Paused(Failure),
    /// The sync stopped.
    Stopped(EngineError),
}
