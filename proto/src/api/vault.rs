//! Vaults, commits, envelopes and state.

use super::body;
use crate::cbor::Bytes;
use crate::hash::Digest;
use crate::id::{RecordId, Revision, Seq, VaultId};
use crate::limits::{COMMIT_BODY_BYTES_MAX, KIB, MIB, PAGE_BODY_BYTES_MAX, TINY_BODY_BYTES_MAX};
use crate::sign::Signed;
use serde::{Deserialize, Serialize};

body! {
    /// One vault in `GET /v1/vaults`.
    VaultInfo("vault information", TINY_BODY_BYTES_MAX) {
        /// Vault.
        vault: VaultId,
        /// Head.
        seq: Seq,
        /// Its hash.
        head: Digest,
        /// Records, tombstones included.
        records: u64,
    }
}

/// `GET /v1/vaults`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Vaults(pub Vec<VaultInfo>);

impl crate::cbor::Wire for Vaults {
    const NAME: &'static str = "vault list";
    const BYTES_MAX: usize = 128 * KIB;
}

body! {
    /// `POST /v1/vaults`.
    CreateVault("vault creation", 16 * KIB) {
        /// Vault-log entry 0.
        create: Signed,
        /// Genesis.
        genesis: Signed,
    }
}

/// `GET /v1/vaults/{v}/log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VaultLog(pub Vec<Signed>);

impl crate::cbor::Wire for VaultLog {
    const NAME: &'static str = "vault log";
    const BYTES_MAX: usize = MIB;
}

/// `POST /v1/vaults/{v}/envelopes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StageEnvelopes(pub Vec<Bytes>);

impl crate::cbor::Wire for StageEnvelopes {
    const NAME: &'static str = "staged envelopes";
    const BYTES_MAX: usize = COMMIT_BODY_BYTES_MAX;
}

/// Answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StagedEnvelopes(pub Vec<Digest>);

impl crate::cbor::Wire for StagedEnvelopes {
    const NAME: &'static str = "staged digests";
    const BYTES_MAX: usize = MIB;
}

body! {
    /// `POST /v1/vaults/{v}/commits`.
    PushCommit("commit request", COMMIT_BODY_BYTES_MAX) {
        /// The signed commit.
        commit: Signed,
        /// Encoding of its change list.
        changes: Bytes,
        /// Envelopes that were not staged before, in any order.
        envelopes: Vec<Bytes>,
        /// Gives a server that was restored from an older copy its commits back: any device's, and envelopes and
        /// objects that nobody has any more may be missing.
        heals: bool,
    }
}

body! {
    /// Answer to it.
    Pushed("commit answer", TINY_BODY_BYTES_MAX) {
        /// Seq of the commit.
        seq: Seq,
        /// Its hash.
        head: Digest,
    }
}

body! {
    /// One version of one record.
    Entry("entry", PAGE_BODY_BYTES_MAX) {
        /// Commit that put it.
        seq: Seq,
        /// Record.
        record: RecordId,
        /// Revision.
        revision: Revision,
        /// Kind of the envelope.
        kind: u8,
        /// The envelope.
        envelope: Bytes,
    }
}

body! {
    /// A commit with its change list.
    CommitEntry("commit entry", PAGE_BODY_BYTES_MAX) {
        /// The signed commit.
        commit: Signed,
        /// Its change list; null behind the history horizon, which this draft has not.
        changes: Option<Bytes>,
    }
}

body! {
    /// `GET /v1/vaults/{v}/commits`.
    Page("page of commits", PAGE_BODY_BYTES_MAX) {
        /// The server's head.
        head_seq: Seq,
        /// Commits after the one asked for.
        commits: Vec<CommitEntry>,
        /// Whether there are more commits.
        more: bool,
        /// Versions that these commits put and no later one replaces, as many as fit.
        entries: Vec<Entry>,
    }
}

body! {
    /// `GET /v1/vaults/{v}/state` and `POST /v1/vaults/{v}/envelopes/get`.
    Entries("page of entries", PAGE_BODY_BYTES_MAX) {
        /// Whether there are more.
        more: bool,
        /// Entries.
        entries: Vec<Entry>,
    }
}

/// `POST /v1/vaults/{v}/envelopes/get`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GetEnvelopes(pub Vec<(Seq, RecordId)>);

impl crate::cbor::Wire for GetEnvelopes {
    const NAME: &'static str = "envelope request";
    const BYTES_MAX: usize = 256 * KIB;
}

/// `GET /v1/vaults/{v}/records/{r}/history`, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History(pub Vec<Entry>);

impl crate::cbor::Wire for History {
    const NAME: &'static str = "record history";
    const BYTES_MAX: usize = PAGE_BODY_BYTES_MAX;
}
