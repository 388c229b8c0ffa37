//! The store: everything but blob bytes, behind one trait that speaks in operations. Transactions never
//! escape it, and all SQL is in its back ends.

pub mod postgres;
pub mod sqlite;

pub use lockstep_proto::api::frames::FramedObject;

use crate::domain::commit::PreparedCommit;
use crate::domain::notices::Notices;
use crate::domain::quota::QuotaSetting;
use crate::error::StoreError;
use async_trait::async_trait;
use lockstep_proto::api::account::Devices;
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::usage::Usage;
use lockstep_proto::api::vault::{CommitEntry, Entry, VaultInfo};
use lockstep_proto::chain::Tip;
use lockstep_proto::device_log::Pin;
use lockstep_proto::id::{AccountId, BlobId, DeviceId, RecordId, Seq, SessionId, VaultId};
use lockstep_proto::{Digest, Signed};
use std::collections::BTreeMap;

/// Result of an operation.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The vault was deleted since the request found it.
fn no_vault() -> StoreError {
    StoreError::refused(Code::NotFound, "there is no such vault; it may have been deleted")
}

/// Sessions of a device that was revoked do not begin.
fn revoked() -> StoreError {
    StoreError::refused(Code::Unauthenticated, "the device was revoked")
}

/// A back end's own name for a vault; found by [`Store::vault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VaultKey(pub i64);

/// A vault as found.
#[derive(Debug, Clone, Copy)]
pub struct VaultRow {
    /// The back end's name.
    pub key: VaultKey,
    /// Head.
    pub seq: Seq,
    /// Its hash.
    pub head: Digest,
}

/// What sign-in needs of an account.
#[derive(Clone)]
pub struct SignIn {
    /// Account.
    pub account: AccountId,
    /// OPAQUE credential identifier.
    pub credential: Vec<u8>,
    /// OPAQUE record.
    pub opaque_record: Vec<u8>,
    /// Recovery sign-in public key.
    pub recovery: Digest,
}

/// A single-use, short-lived value.
#[derive(Clone)]
pub struct Challenge {
    /// Its name, random.
    pub id: Digest,
    /// What it is for; one of the `CHALLENGE_` constants.
    pub kind: u8,
    /// Account that it is for.
    pub account: AccountId,
    /// What is kept.
    pub data: Vec<u8>,
    /// End.
    pub expires_utc: u64,
}

/// An OPAQUE record that is being made; data is the credential identifier.
pub const CHALLENGE_OPAQUE_RECORD: u8 = 1;
/// An OPAQUE sign-in; data is the server's state.
pub const CHALLENGE_LOGIN: u8 = 2;
/// A device's sign-in.
pub const CHALLENGE_DEVICE: u8 = 3;
/// A recovery sign-in.
pub const CHALLENGE_RECOVERY: u8 = 4;

/// A session row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRow {
    /// Hash of the token.
    pub token_hash: Digest,
    /// Its public name, random.
    pub id: SessionId,
    /// Account.
    pub account: AccountId,
    /// Device; zero in a provisional session.
    pub device: DeviceId,
    /// `SESSION_PROVISIONAL` or `SESSION_DEVICE`.
    pub kind: u8,
    /// Begin.
    pub created_utc: u64,
    /// Last use, as far as it was written down.
    pub used_utc: u64,
    /// End.
    pub expires_utc: u64,
}

/// A number that is not what its rows say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageFault {
    /// Name of the account.
    pub name: String,
    /// The vault; none is the whole account.
    pub vault: Option<VaultId>,
    /// Bytes, and objects of a vault, as they are kept.
    pub kept: (u64, u64),
    /// The same as they were counted anew.
    pub counted: (u64, u64),
}

/// A verified device-log entry with its key header, to be appended.
#[derive(Clone)]
pub struct NewEntry {
    /// Account.
    pub account: AccountId,
    /// Its position.
    pub index: u64,
    /// Hash of the entry before.
    pub previous: Digest,
    /// The entry.
    pub entry: Signed,
    /// Its hash.
    pub hash: Digest,
    /// The key header that came with it.
    pub key_header: Signed,
    /// What it does.
    pub effect: EntryEffect,
}

/// What a device-log entry does.
#[derive(Clone)]
pub enum EntryEffect {
    /// A device joins.
    Enrol {
        /// Which.
        device: DeviceId,
        /// Its signing key.
        sign_key: Digest,
    },
    /// A device leaves.
    Revoke {
        /// Which.
        device: DeviceId,
        /// What it wrote counts up to these.
        pins: Vec<Pin>,
    },
    /// The key header changed.
    Keys,
}

/// What of an account's sign-in data changes with an entry.
#[derive(Clone, Default)]
pub struct SignInChange {
    /// New OPAQUE credential identifier and record.
    pub passphrase: Option<(Vec<u8>, Vec<u8>)>,
    /// New recovery sign-in public key.
    pub recovery: Option<Digest>,
}

/// New sign-in data of an account.
#[derive(Clone)]
pub struct NewSignIn {
    /// OPAQUE credential identifier.
    pub credential: Vec<u8>,
    /// OPAQUE record.
    pub opaque_record: Vec<u8>,
    /// Recovery sign-in public key.
    pub recovery: Digest,
}

/// A verified birth of a vault.
#[derive(Clone)]
pub struct NewVault {
    /// Vault-log entry 0.
    pub create: Signed,
    /// Genesis.
    pub genesis: Signed,
    /// Where the chain stands after it.
    pub tip: Tip,
}

/// A verified registration.
#[derive(Clone)]
pub struct NewAccount {
    /// Name.
    pub name: String,
    /// Sign-in data.
    pub sign_in: NewSignIn,
    /// Entry 0.
    pub entry: NewEntry,
    /// The keyring vault.
    pub keyring: NewVault,
    /// Hash of the invite code to use up, if one is needed.
    pub invite: Option<Digest>,
    /// Clock.
    pub now_utc: u64,
}

/// How a push ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// Applied now, or before by the same bytes.
    Applied {
        /// Seq of the commit.
        seq: Seq,
        /// Its hash.
        head: Digest,
    },
    /// The head is elsewhere.
    HeadMoved,
}

/// Which entries are asked for.
#[derive(Debug, Clone, Copy)]
pub struct EntryQuery {
    /// Only versions of commits after this one.
    pub after: Option<Seq>,
    /// As of this commit.
    pub upto: Seq,
    /// Continue after this place.
    pub from: Option<(Seq, RecordId)>,
    /// Leave out versions that any later commit replaced.
    pub current_only: bool,
    /// Envelope bytes that fit (one envelope always does).
    pub bytes_max: usize,
}

/// An object being uploaded or stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectRow {
    /// Size in bytes.
    pub size: u64,
    /// Digest.
    pub digest: Digest,
    /// Whether all parts are there and were verified.
    pub complete: bool,
}

/// Where a part lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartRow {
    /// Position in the object.
    pub index: u64,
    /// Digest.
    pub digest: Digest,
    /// Segment.
    pub segment: SegmentId,
    /// First byte in the segment.
    pub start: u64,
    /// Length.
    pub size: u64,
}

/// A stored piece of blob storage; random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub [u8; 16]);

/// All that the server keeps but blob bytes.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// A secret of the server; `fresh` is stored if there is none yet.
    async fn secret(&self, name: &'static str, fresh: Vec<u8>) -> Result<Vec<u8>>;
    /// Whether the store answers.
    async fn ping(&self) -> Result<()>;
    /// Lets what runs end and closes all connections.
    async fn close(&self);

    /// Keeps a challenge.
    async fn put_challenge(&self, challenge: Challenge) -> Result<()>;
    /// Uses a challenge up: none if there is none of this kind, or it expired.
    async fn take_challenge(&self, id: Digest, kind: u8, now_utc: u64) -> Result<Option<Challenge>>;
    /// Keeps a session; beyond [`lockstep_proto::limits::SESSIONS_MAX`] of a kind the account's oldest end. Refused for a
    /// device that was revoked.
    async fn put_session(&self, session: SessionRow) -> Result<()>;
    /// Finds a live session of a device that was not revoked.
    async fn session(&self, token_hash: Digest, now_utc: u64) -> Result<Option<SessionRow>>;
    /// Ends a session.
    async fn end_session(&self, token_hash: Digest) -> Result<()>;
    /// Writes down that a session was used.
    async fn touch_session(&self, token_hash: Digest, now_utc: u64) -> Result<()>;
    /// The account's live sessions, oldest first.
    async fn sessions(&self, account: AccountId, now_utc: u64) -> Result<Vec<SessionRow>>;
    /// Ends a session of the account by its public name; false if there is none.
    async fn revoke_session(&self, account: AccountId, id: SessionId) -> Result<bool>;
    /// Keeps an invite.
    async fn put_invite(&self, code_hash: Digest, expires_utc: u64) -> Result<()>;

    /// Sign-in data by name.
    async fn sign_in(&self, name: &str) -> Result<Option<SignIn>>;
    /// Whether an account exists.
    async fn account_exists(&self, account: AccountId) -> Result<bool>;
    /// Recovery sign-in key of an account.
    async fn recovery_key(&self, account: AccountId) -> Result<Option<Digest>>;
    /// Signing key of a live device.
    async fn device_key(&self, account: AccountId, device: DeviceId) -> Result<Option<Digest>>;
    /// Stores a new account; refuses a taken name or id.
    async fn register(&self, account: NewAccount) -> Result<()>;
    /// A page of the device log and the key header, of one moment.
    async fn devices(&self, account: AccountId, from: u64, limit: usize) -> Result<Option<Devices>>;
    /// Appends an entry if the log still ends where the entry says, with the sign-in data that changes with it. A
    /// revocation is refused while the device has commits beyond its pins, and ends the device's sessions.
    async fn add_entry(&self, entry: NewEntry, sign_in: SignInChange) -> Result<()>;
    /// Appends entries that a store which was restored from an older copy lacks, all or none.
    async fn heal_log(&self, entries: Vec<NewEntry>, recovery: Digest) -> Result<()>;
    /// Removes everything of an account; its segments are collected.
    async fn delete_account(&self, account: AccountId) -> Result<()>;

    /// What an account uses.
    async fn usage(&self, account: AccountId) -> Result<Option<Usage>>;
    /// The account's own quota; none if there is no such account.
    async fn quota(&self, account: AccountId) -> Result<Option<QuotaSetting>>;
    /// Sets it; false if there is no such account.
    async fn set_quota(&self, account: AccountId, quota: QuotaSetting) -> Result<bool>;
    /// Counts everything anew and gives what is off: nothing, unless there is a fault. With `mend`, sets it right.
    async fn check_usage(&self, mend: bool) -> Result<Vec<UsageFault>>;

    /// The account's vaults.
    async fn vaults(&self, account: AccountId) -> Result<Vec<VaultInfo>>;
    /// Tells other servers on the same database that accounts moved.
    async fn tell_moved(&self, accounts: Vec<AccountId>) -> Result<()>;
    /// Wakes those whose accounts moved on other servers; ends only with an error.
    async fn hear_moved(&self, notices: &Notices) -> Result<()>;
    /// The account's vaults with the seqs of their heads, ascending.
    async fn heads(&self, account: AccountId) -> Result<Vec<(VaultId, Seq)>>;
    /// One vault.
    async fn vault(&self, account: AccountId, vault: VaultId) -> Result<Option<VaultRow>>;
    /// Stores a vault's birth; the same birth twice is once, another is refused.
    async fn create_vault(&self, account: AccountId, vault: NewVault) -> Result<()>;
    /// Removes everything of a vault; its segments are collected.
    async fn delete_vault(&self, vault: VaultKey) -> Result<()>;
    /// The vault's log.
    async fn vault_log(&self, vault: VaultKey) -> Result<Vec<Signed>>;

    /// Keeps envelopes for a commit to come.
    async fn stage(&self, vault: VaultKey, envelopes: Vec<(Digest, Vec<u8>)>, expires_utc: u64)
    -> Result<()>;
    /// Checks a commit against the chain and applies it, all or nothing.
    async fn apply_commit(
        &self,
        account: AccountId,
        vault: VaultKey,
        commit: PreparedCommit,
    ) -> Result<Pushed>;
    /// Head seq, commits after `after` with at most so many bytes of change lists (one always fits), and whether there are
    /// more.
    async fn commits(
        &self,
        vault: VaultKey,
        after: Option<Seq>,
        lists_bytes_max: usize,
    ) -> Result<(Seq, Vec<CommitEntry>, bool)>;
    /// Entries ascending by (seq, record), and whether there are more.
    async fn entries(&self, vault: VaultKey, query: EntryQuery) -> Result<(Vec<Entry>, bool)>;
    /// Entries at given places, in that order, as far as a page goes; missing ones are left out.
    async fn envelopes(&self, vault: VaultKey, places: Vec<(Seq, RecordId)>) -> Result<(Vec<Entry>, bool)>;
    /// Versions of a record, newest first.
    async fn history(&self, vault: VaultKey, record: RecordId) -> Result<Vec<Entry>>;

    /// Announces a segment before its bytes are written. `bytes` of it count from now on; none of a part, which the
    /// begun upload counts.
    async fn begin_segment(
        &self,
        vault: VaultKey,
        segment: SegmentId,
        bytes: u64,
        now_utc: u64,
    ) -> Result<()>;
    /// Whether any segment is known.
    async fn has_segments(&self) -> Result<bool>;
    /// Gives a segment up that no row names yet; its bytes count until it is forgotten.
    async fn drop_segment(&self, segment: SegmentId) -> Result<()>;
    /// Records the objects of a framed upload whose segment is durable. Objects that exist with the same
    /// digest are left as they are; with another one, nothing is stored. False if nothing of it was new: the
    /// segment is not needed then.
    async fn put_framed(
        &self,
        vault: VaultKey,
        segment: SegmentId,
        objects: Vec<FramedObject>,
        now_utc: u64,
    ) -> Result<bool>;
    /// Begins or resumes an upload; gives the object and the parts held. A new one counts in full. One that was lost
    /// begins anew; what was lost before its digest was known here, is replaced by whatever comes.
    async fn begin_object(
        &self,
        vault: VaultKey,
        blob: BlobId,
        size: u64,
        digest: Digest,
        now_utc: u64,
    ) -> Result<(ObjectRow, Vec<PartRow>)>;
    /// Records a part whose segment is durable; false if it was there already, and the segment is not needed.
    async fn put_part(&self, vault: VaultKey, blob: BlobId, part: PartRow, now_utc: u64) -> Result<bool>;
    /// Marks an object complete if its parts are all there and give its digest.
    async fn complete_object(&self, vault: VaultKey, blob: BlobId) -> Result<()>;
    /// An object whose bytes are gone from blob storage: it has to be uploaded again, and stays named. Its parts stay
    /// until then; [`Store::complete_object`] makes it whole again if the bytes come back.
    async fn lose_object(&self, vault: VaultKey, blob: BlobId) -> Result<()>;
    /// An object and its parts.
    async fn object(&self, vault: VaultKey, blob: BlobId) -> Result<Option<(ObjectRow, Vec<PartRow>)>>;
    /// Those of some objects that are complete, with their parts; of one larger than `bytes_max` without.
    async fn objects(
        &self,
        vault: VaultKey,
        blobs: Vec<BlobId>,
        bytes_max: u64,
    ) -> Result<BTreeMap<BlobId, (u64, Vec<PartRow>)>>;
    /// An object without its parts, of which there may be 131,072.
    async fn object_row(&self, vault: VaultKey, blob: BlobId) -> Result<Option<ObjectRow>>;

    /// Drops what expired; gives segments whose bytes are to be deleted now.
    async fn collect(&self, now_utc: u64, grace_seconds: u64) -> Result<Vec<SegmentId>>;
    /// Forgets a segment whose bytes are gone.
    async fn forget_segment(&self, segment: SegmentId) -> Result<()>;
}
