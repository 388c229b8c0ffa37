//! The embedded default: one SQLite file (WAL, synchronous=FULL), one writer that groups concurrent
//! jobs into one transaction, readers beside it.

mod account;
mod collect;
mod commit;
mod entry;
mod heal;
mod object;
mod pull;
mod repair;
mod row;
mod schema;
mod segment;
mod session;
mod stage;
mod usage;
mod vault;
mod writer;

use super::{
    Challenge, EntryQuery, FramedObject, NewAccount, NewEntry, NewVault, ObjectRow, PartRow, Pushed, Result,
    SegmentId, SessionRow, SignIn, SignInChange, Store, UsageFault, VaultKey, VaultRow,
};
use crate::domain::commit::PreparedCommit;
use crate::domain::notices::Notices;
use crate::domain::quota::{DefaultQuota, QuotaSetting};
use crate::error::StoreError;
use async_trait::async_trait;
use lockstep_proto::api::account::Devices;
use lockstep_proto::api::usage::Usage;
use lockstep_proto::api::vault::{CommitEntry, Entry, VaultInfo};
use lockstep_proto::id::{AccountId, BlobId, DeviceId, RecordId, Seq, SessionId, VaultId};
use lockstep_proto::{Digest, Signed};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, SqliteConnection, SqlitePool};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use writer::Writer;

const READERS_MAX: u32 = 4;

/// Rows a statement: enough to amortise it, far below SQLite's limit of variables.
const ROWS_A_STATEMENT: usize = 100;

/// Cuts rows into pieces of few different sizes: every size is a statement that is prepared, and kept, by itself.
pub(super) fn pieces<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    const SIZES: [usize; 4] = [ROWS_A_STATEMENT, 25, 5, 1];
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= rows.len())?;
        let (piece, rest) = rows.split_at_checked(size)?;
        rows = rest;
        Some(piece)
    })
}

/// The SQLite back end.
pub struct SqliteStore {
    writer: Writer,
    readers: SqlitePool,
    quota: DefaultQuota,
}

/// Turns a database error into ours; a full disk is told apart.
pub(super) fn failed(error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
    match code.as_deref() {
        Some("13") => StoreError::Full,
        _ => StoreError::Unavailable(Arc::new(error)),
    }
}

impl SqliteStore {
    /// Opens the database, creates it if needed, and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
            .foreign_keys(true)
            .statement_cache_capacity(200)
            .pragma("cache_size", "-8192")
            // What was replaced or deleted, such as the wrap of an old passphrase, does not linger in free pages.
            .pragma("secure_delete", "ON")
            // In pages: what many commits write to the same pages of an index goes to the file once.
            .pragma("wal_autocheckpoint", "8192");
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(failed)?;
        schema::migrator()
            .run(&mut connection)
            .await
            .map_err(|error| StoreError::Unavailable(Arc::new(error)))?;
        let reading = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .busy_timeout(Duration::from_secs(5))
            .statement_cache_capacity(100)
            .pragma("cache_size", "-2048")
            .pragma("query_only", "1");
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS_MAX)
            .min_connections(0)
            .acquire_timeout(Duration::from_secs(10))
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(reading)
            .await
            .map_err(failed)?;
        Ok(Self { writer: Writer::start(connection, options), readers, quota: DefaultQuota(None) })
    }

    /// Sets what an account without a quota of its own may use; none is no limit.
    #[must_use]
    pub fn with_default_quota(mut self, bytes: Option<u64>) -> Self {
        self.quota = DefaultQuota(bytes);
        self
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn secret(&self, name: &'static str, fresh: Vec<u8>) -> Result<Vec<u8>> {
        self.writer.run(move |c| Box::pin(account::secret(c, name, fresh))).await
    }

    async fn ping(&self) -> Result<()> {
        sqlx::query("SELECT 1").execute(&self.readers).await.map_err(failed)?;
        self.writer.run(|_| Box::pin(async { Ok(()) })).await
    }

    /// The writer's connection closes last: only then is the WAL brought back into the file and removed.
    async fn close(&self) {
        self.readers.close().await;
        self.writer.stop().await;
    }

    async fn put_challenge(&self, challenge: Challenge) -> Result<()> {
        self.writer.run(move |c| Box::pin(account::put_challenge(c, challenge))).await
    }

    async fn take_challenge(&self, id: Digest, kind: u8, now_utc: u64) -> Result<Option<Challenge>> {
        self.writer.run(move |c| Box::pin(account::take_challenge(c, id, kind, now_utc))).await
    }

    async fn put_session(&self, session: SessionRow) -> Result<()> {
        self.writer.run(move |c| Box::pin(session::put(c, session))).await
    }

    async fn session(&self, token_hash: Digest, now_utc: u64) -> Result<Option<SessionRow>> {
        session::find(&self.readers, token_hash, now_utc).await
    }

    async fn end_session(&self, token_hash: Digest) -> Result<()> {
        self.writer.run(move |c| Box::pin(session::end(c, token_hash))).await
    }

    async fn touch_session(&self, token_hash: Digest, now_utc: u64) -> Result<()> {
        self.writer.run(move |c| Box::pin(session::touch(c, token_hash, now_utc))).await
    }

    async fn sessions(&self, account: AccountId, now_utc: u64) -> Result<Vec<SessionRow>> {
        session::list(&self.readers, account, now_utc).await
    }

    async fn revoke_session(&self, account: AccountId, id: SessionId) -> Result<bool> {
        self.writer.run(move |c| Box::pin(session::revoke(c, account, id))).await
    }

    async fn put_invite(&self, code_hash: Digest, expires_utc: u64) -> Result<()> {
        self.writer.run(move |c| Box::pin(account::put_invite(c, code_hash, expires_utc))).await
    }

    async fn sign_in(&self, name: &str) -> Result<Option<SignIn>> {
        account::sign_in(&self.readers, name).await
    }

    async fn account_exists(&self, account: AccountId) -> Result<bool> {
        Ok(account::recovery_key(&self.readers, account).await?.is_some())
    }

    async fn recovery_key(&self, account: AccountId) -> Result<Option<Digest>> {
        account::recovery_key(&self.readers, account).await
    }

    async fn device_key(&self, account: AccountId, device: DeviceId) -> Result<Option<Digest>> {
        account::device_key(&self.readers, account, device).await
    }

    async fn register(&self, account: NewAccount) -> Result<()> {
        self.writer.run(move |c| Box::pin(account::register(c, account))).await
    }

    async fn devices(&self, account: AccountId, from: u64, limit: usize) -> Result<Option<Devices>> {
        let mut transaction = self.readers.begin().await.map_err(failed)?;
        account::devices(&mut transaction, account, from, limit).await
    }

    async fn add_entry(&self, entry: NewEntry, sign_in: SignInChange) -> Result<()> {
        self.writer.run(move |c| Box::pin(entry::add(c, entry, sign_in))).await
    }

    async fn heal_log(&self, entries: Vec<NewEntry>, recovery: Digest) -> Result<()> {
        self.writer.run(move |c| Box::pin(entry::heal(c, entries, recovery))).await
    }

    async fn delete_account(&self, account: AccountId) -> Result<()> {
        self.writer.run(move |c| Box::pin(account::delete(c, account))).await
    }

    async fn usage(&self, account: AccountId) -> Result<Option<Usage>> {
        usage::of(&self.readers, account, self.quota).await
    }

    async fn quota(&self, account: AccountId) -> Result<Option<QuotaSetting>> {
        usage::quota(&self.readers, account).await
    }

    async fn set_quota(&self, account: AccountId, quota: QuotaSetting) -> Result<bool> {
        self.writer.run(move |c| Box::pin(usage::set_quota(c, account, quota))).await
    }

    async fn check_usage(&self, mend: bool) -> Result<Vec<UsageFault>> {
        self.writer.run(move |c| Box::pin(usage::check(c, mend))).await
    }

    async fn vaults(&self, account: AccountId) -> Result<Vec<VaultInfo>> {
        vault::list(&self.readers, account).await
    }

    async fn tell_moved(&self, _: Vec<AccountId>) -> Result<()> {
        // This process is the only one.
        Ok(())
    }

    async fn hear_moved(&self, _: &Notices) -> Result<()> {
        std::future::pending().await
    }

    async fn heads(&self, account: AccountId) -> Result<Vec<(VaultId, Seq)>> {
        vault::heads(&self.readers, account).await
    }

    async fn vault(&self, account: AccountId, id: VaultId) -> Result<Option<VaultRow>> {
        vault::find(&self.readers, account, id).await
    }

    async fn create_vault(&self, account: AccountId, new: NewVault) -> Result<()> {
        let quota = self.quota;
        self.writer.run(move |c| Box::pin(vault::create(c, account, new, Some(quota)))).await
    }

    async fn delete_vault(&self, key: VaultKey) -> Result<()> {
        self.writer.run(move |c| Box::pin(vault::delete(c, key))).await
    }

    async fn vault_log(&self, key: VaultKey) -> Result<Vec<Signed>> {
        vault::log(&self.readers, key).await
    }

    async fn stage(&self, key: VaultKey, envelopes: Vec<(Digest, Vec<u8>)>, expires_utc: u64) -> Result<()> {
        let quota = self.quota;
        self.writer.run(move |c| Box::pin(stage::put(c, key, quota, envelopes, expires_utc))).await
    }

    async fn apply_commit(&self, account: AccountId, key: VaultKey, push: PreparedCommit) -> Result<Pushed> {
        let quota = self.quota;
        self.writer.run(move |c| Box::pin(commit::apply(c, account, key, quota, push))).await
    }

    async fn commits(
        &self,
        key: VaultKey,
        after: Option<Seq>,
        lists_bytes_max: usize,
    ) -> Result<(Seq, Vec<CommitEntry>, bool)> {
        let mut transaction = self.readers.begin().await.map_err(failed)?;
        pull::commits(&mut transaction, key, after, lists_bytes_max).await
    }

    async fn entries(&self, key: VaultKey, query: EntryQuery) -> Result<(Vec<Entry>, bool)> {
        let mut transaction = self.readers.begin().await.map_err(failed)?;
        pull::entries(&mut transaction, key, query).await
    }

    async fn envelopes(&self, key: VaultKey, places: Vec<(Seq, RecordId)>) -> Result<(Vec<Entry>, bool)> {
        let mut connection = self.readers.acquire().await.map_err(failed)?;
        pull::envelopes(&mut connection, key, &places).await
    }

    async fn history(&self, key: VaultKey, record: RecordId) -> Result<Vec<Entry>> {
        let mut transaction = self.readers.begin().await.map_err(failed)?;
        pull::history(&mut transaction, key, record).await
    }

    async fn begin_segment(&self, key: VaultKey, segment: SegmentId, bytes: u64, now_utc: u64) -> Result<()> {
        let quota = self.quota;
        self.writer.run(move |c| Box::pin(segment::begin(c, key, quota, segment, bytes, now_utc))).await
    }

    async fn has_segments(&self) -> Result<bool> {
        segment::any(&self.readers).await
    }

    async fn drop_segment(&self, segment: SegmentId) -> Result<()> {
        self.writer.run(move |c| Box::pin(segment::give_up(c, segment))).await
    }

    async fn put_framed(
        &self,
        key: VaultKey,
        segment: SegmentId,
        objects: Vec<FramedObject>,
        now_utc: u64,
    ) -> Result<bool> {
        let quota = self.quota;
        self.writer.run(move |c| Box::pin(object::put_framed(c, key, quota, segment, objects, now_utc))).await
    }

    async fn begin_object(
        &self,
        key: VaultKey,
        blob: BlobId,
        size: u64,
        digest: Digest,
        now_utc: u64,
    ) -> Result<(ObjectRow, Vec<PartRow>)> {
        let (quota, object) = (self.quota, ObjectRow { size, digest, complete: false });
        self.writer.run(move |c| Box::pin(object::begin(c, key, quota, blob, object, now_utc))).await
    }

    async fn put_part(&self, key: VaultKey, blob: BlobId, part: PartRow, now_utc: u64) -> Result<bool> {
        let quota = self.quota;
        self.writer.run(move |c| Box::pin(object::put_part(c, key, quota, blob, part, now_utc))).await
    }

    async fn complete_object(&self, key: VaultKey, blob: BlobId) -> Result<()> {
        self.writer.run(move |c| Box::pin(object::complete(c, key, blob))).await
    }

    async fn lose_object(&self, key: VaultKey, blob: BlobId) -> Result<()> {
        self.writer.run(move |c| Box::pin(object::lose(c, key, blob))).await
    }

    async fn object(&self, key: VaultKey, blob: BlobId) -> Result<Option<(ObjectRow, Vec<PartRow>)>> {
        let mut transaction = self.readers.begin().await.map_err(failed)?;
        object::find(&mut transaction, key, blob).await
    }

    async fn objects(
        &self,
        key: VaultKey,
        blobs: Vec<BlobId>,
        bytes_max: u64,
    ) -> Result<BTreeMap<BlobId, (u64, Vec<PartRow>)>> {
        let mut connection = self.readers.acquire().await.map_err(failed)?;
        object::find_all(&mut connection, key, &blobs, bytes_max).await
    }

    async fn object_row(&self, key: VaultKey, blob: BlobId) -> Result<Option<ObjectRow>> {
        object::find_row(&mut *self.readers.acquire().await.map_err(failed)?, key, blob).await
    }

    async fn collect(&self, now_utc: u64, grace_seconds: u64) -> Result<Vec<SegmentId>> {
        self.writer.run(move |c| Box::pin(collect::collect(c, now_utc, grace_seconds))).await
    }

    async fn forget_segment(&self, segment: SegmentId) -> Result<()> {
        self.writer.run(move |c| Box::pin(segment::forget(c, segment))).await
    }
}
