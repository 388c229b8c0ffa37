//! PostgreSQL: any number of servers on one database. Nothing is kept in the process; one operation is one
//! transaction, tried again where that is safe (docs/adr/0008).

mod account;
mod collect;
mod commit;
mod entry;
mod heal;
mod notice;
mod object;
mod pull;
mod repair;
mod retry;
mod row;
mod schema;
mod segment;
mod session;
mod stage;
mod url;
mod usage;
mod vault;
mod version;

use super::{
    Challenge, EntryQuery, FramedObject, NewAccount, NewEntry, NewVault, ObjectRow, PartRow, Pushed, Result,
    SegmentId, SessionRow, SignIn, SignInChange, Store, UsageFault, VaultKey, VaultRow,
};
use crate::domain::commit::PreparedCommit;
use crate::domain::notices::Notices;
use crate::domain::opaque::random_bytes;
use crate::domain::quota::{DefaultQuota, QuotaSetting};
use crate::error::StoreError;
use async_trait::async_trait;
use lockstep_proto::api::account::Devices;
use lockstep_proto::api::usage::Usage;
use lockstep_proto::api::vault::{CommitEntry, Entry, VaultInfo};
use lockstep_proto::id::{AccountId, BlobId, DeviceId, RecordId, Seq, SessionId, VaultId};
use lockstep_proto::{Digest, Signed};
use retry::Run;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgPool};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
pub use url::PostgresUrl;

const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that rested longer is tested before it is used.
const TRUSTED: Duration = Duration::from_secs(1);
/// Bounds on what a connection may wait for, and on how long an idle transaction keeps its locks.
const BOUNDS: &str = "SET statement_timeout = '30s'; SET lock_timeout = '10s'; \
                      SET idle_in_transaction_session_timeout = '30s'";

/// The PostgreSQL back end.
pub struct PostgresStore {
    pool: PgPool,
    options: PgConnectOptions,
    quota: DefaultQuota,
    /// Tells this server from others on the same database.
    server: u64,
}

/// Turns a database error into ours; a full disk and damaged data are told apart.
fn failed(error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
    match code.as_deref() {
        Some("53100") => StoreError::Full,
        Some("XX001" | "XX002") => StoreError::Corrupt("PostgreSQL says that its data is damaged"),
        _ => StoreError::Unavailable(Arc::new(error)),
    }
}

impl PostgresStore {
    /// Connects, and brings the schema up to date.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(url: &PostgresUrl, connections_max: u32) -> Result<Self> {
        schema::migrate(url.options()).await?;
        let pool = PgPoolOptions::new()
            .max_connections(connections_max)
            .min_connections(0)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|connection, resting| {
                Box::pin(async move { Ok(resting.idle_for < TRUSTED || connection.ping().await.is_ok()) })
            })
            .after_connect(|connection, _| {
                Box::pin(async move {
                    sqlx::raw_sql(BOUNDS).execute(connection).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(url.options().clone());
        let server = u64::from_ne_bytes(random_bytes());
        Ok(Self { pool, options: url.options().clone(), quota: DefaultQuota(None), server })
    }

    /// Sets what an account without a quota of its own may use; none is no limit.
    #[must_use]
    pub fn with_default_quota(mut self, bytes: Option<u64>) -> Self {
        self.quota = DefaultQuota(bytes);
        self
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn secret(&self, name: &'static str, fresh: Vec<u8>) -> Result<Vec<u8>> {
        self.run(Run::Idempotent, fresh, |c, fresh| Box::pin(account::secret(c, name, fresh))).await
    }

    async fn ping(&self) -> Result<()> {
        sqlx::query("SELECT 1").execute(&self.pool).await.map_err(failed)?;
        Ok(())
    }

    async fn close(&self) {
        self.pool.close().await;
    }

    async fn put_challenge(&self, challenge: Challenge) -> Result<()> {
        self.run(Run::Statement, challenge, |c, challenge| Box::pin(account::put_challenge(c, challenge)))
            .await
    }

    async fn take_challenge(&self, id: Digest, kind: u8, now_utc: u64) -> Result<Option<Challenge>> {
        self.run(Run::Once, (), |c, ()| Box::pin(account::take_challenge(c, id, kind, now_utc))).await
    }

    async fn put_session(&self, session: SessionRow) -> Result<()> {
        self.run(Run::Idempotent, (), |c, ()| Box::pin(session::put(c, session))).await
    }

    async fn session(&self, token_hash: Digest, now_utc: u64) -> Result<Option<SessionRow>> {
        self.run(Run::Statement, (), |c, ()| Box::pin(session::find(c, token_hash, now_utc))).await
    }

    async fn end_session(&self, token_hash: Digest) -> Result<()> {
        self.run(Run::Statement, (), |c, ()| Box::pin(session::end(c, token_hash))).await
    }

    async fn touch_session(&self, token_hash: Digest, now_utc: u64) -> Result<()> {
        self.run(Run::Statement, (), |c, ()| Box::pin(session::touch(c, token_hash, now_utc))).await
    }

    async fn sessions(&self, account: AccountId, now_utc: u64) -> Result<Vec<SessionRow>> {
        self.run(Run::Statement, (), |c, ()| Box::pin(session::list(c, account, now_utc))).await
    }

    async fn revoke_session(&self, account: AccountId, id: SessionId) -> Result<bool> {
        self.run(Run::Once, (), |c, ()| Box::pin(session::revoke(c, account, id))).await
    }

    async fn put_invite(&self, code_hash: Digest, expires_utc: u64) -> Result<()> {
        self.run(Run::Statement, (), |c, ()| Box::pin(account::put_invite(c, code_hash, expires_utc))).await
    }

    async fn sign_in(&self, name: &str) -> Result<Option<SignIn>> {
        self.run(Run::Statement, name.to_owned(), |c, name| Box::pin(account::sign_in(c, name))).await
    }

    async fn account_exists(&self, account: AccountId) -> Result<bool> {
        Ok(self.recovery_key(account).await?.is_some())
    }

    async fn recovery_key(&self, account: AccountId) -> Result<Option<Digest>> {
        self.run(Run::Statement, (), |c, ()| Box::pin(account::recovery_key(c, account))).await
    }

    async fn device_key(&self, account: AccountId, device: DeviceId) -> Result<Option<Digest>> {
        self.run(Run::Statement, (), |c, ()| Box::pin(account::device_key(c, account, device))).await
    }

    async fn register(&self, account: NewAccount) -> Result<()> {
        self.run(Run::Once, account, |c, account| Box::pin(account::register(c, account))).await
    }

    async fn devices(&self, account: AccountId, from: u64, limit: usize) -> Result<Option<Devices>> {
        self.run(Run::Snapshot, (), |c, ()| Box::pin(account::devices(c, account, from, limit))).await
    }

    async fn add_entry(&self, entry: NewEntry, sign_in: SignInChange) -> Result<()> {
        self.run(Run::Once, (entry, sign_in), |c, (entry, sign_in)| Box::pin(entry::add(c, entry, sign_in)))
            .await
    }

    async fn heal_log(&self, entries: Vec<NewEntry>, recovery: Digest) -> Result<()> {
        self.run(Run::Once, entries, |c, entries| Box::pin(entry::heal(c, entries, recovery))).await
    }

    async fn delete_account(&self, account: AccountId) -> Result<()> {
        self.run(Run::Idempotent, (), |c, ()| Box::pin(account::delete(c, account))).await
    }

    async fn usage(&self, account: AccountId) -> Result<Option<Usage>> {
        let quota = self.quota;
        self.run(Run::Statement, (), |c, ()| Box::pin(usage::of(c, account, quota))).await
    }

    async fn quota(&self, account: AccountId) -> Result<Option<QuotaSetting>> {
        self.run(Run::Statement, (), |c, ()| Box::pin(usage::quota(c, account))).await
    }

    async fn set_quota(&self, account: AccountId, quota: QuotaSetting) -> Result<bool> {
        self.run(Run::Statement, (), |c, ()| Box::pin(usage::set_quota(c, account, quota))).await
    }

    async fn check_usage(&self, mend: bool) -> Result<Vec<UsageFault>> {
        let accounts = self.run(Run::Statement, (), |c, ()| Box::pin(usage::accounts(c))).await?;
        let mut faults = Vec::new();
        for account in accounts {
            let found = self
                .run(Run::Idempotent, account, |c, account| Box::pin(usage::check(c, account, mend)))
                .await?;
            faults.extend(found);
        }
        Ok(faults)
    }

    async fn vaults(&self, account: AccountId) -> Result<Vec<VaultInfo>> {
        self.run(Run::Statement, (), |c, ()| Box::pin(vault::list(c, account))).await
    }

    async fn tell_moved(&self, accounts: Vec<AccountId>) -> Result<()> {
        let told = (self.server, accounts);
        self.run(Run::Statement, told, |c, (server, accounts)| Box::pin(notice::tell(c, *server, accounts)))
            .await
    }

    async fn hear_moved(&self, notices: &Notices) -> Result<()> {
        notice::hear(self.options.clone(), self.server, notices).await
    }

    async fn heads(&self, account: AccountId) -> Result<Vec<(VaultId, Seq)>> {
        self.run(Run::Statement, (), |c, ()| Box::pin(vault::heads(c, account))).await
    }

    async fn vault(&self, account: AccountId, id: VaultId) -> Result<Option<VaultRow>> {
        self.run(Run::Statement, (), |c, ()| Box::pin(vault::find(c, account, id))).await
    }

    async fn create_vault(&self, account: AccountId, new: NewVault) -> Result<()> {
        let quota = Some(self.quota);
        self.run(Run::Idempotent, new, |c, new| Box::pin(vault::create(c, account, new, quota))).await
    }

    async fn delete_vault(&self, key: VaultKey) -> Result<()> {
        self.run(Run::Idempotent, (), |c, ()| Box::pin(vault::delete(c, key))).await
    }

    async fn vault_log(&self, key: VaultKey) -> Result<Vec<Signed>> {
        self.run(Run::Statement, (), |c, ()| Box::pin(vault::log(c, key))).await
    }

    async fn stage(&self, key: VaultKey, envelopes: Vec<(Digest, Vec<u8>)>, expires_utc: u64) -> Result<()> {
        let quota = self.quota;
        self.run(Run::Idempotent, envelopes, |c, envelopes| {
            Box::pin(stage::put(c, key, quota, envelopes, expires_utc))
        })
        .await
    }

    async fn apply_commit(&self, account: AccountId, key: VaultKey, push: PreparedCommit) -> Result<Pushed> {
        let quota = self.quota;
        let came_along: Vec<Digest> = push.envelopes.keys().copied().collect();
        self.run(Run::Idempotent, (push, came_along), |c, (push, came_along)| {
            Box::pin(commit::apply(c, account, key, quota, push, came_along))
        })
        .await
    }

    async fn commits(
        &self,
        key: VaultKey,
        after: Option<Seq>,
        lists_bytes_max: usize,
    ) -> Result<(Seq, Vec<CommitEntry>, bool)> {
        self.run(Run::Statement, (), |c, ()| Box::pin(pull::commits(c, key, after, lists_bytes_max))).await
    }

    async fn entries(&self, key: VaultKey, query: EntryQuery) -> Result<(Vec<Entry>, bool)> {
        self.run(Run::Statement, (), |c, ()| Box::pin(pull::entries(c, key, query))).await
    }

    async fn envelopes(&self, key: VaultKey, places: Vec<(Seq, RecordId)>) -> Result<(Vec<Entry>, bool)> {
        self.run(Run::Statement, places, |c, places| Box::pin(pull::envelopes(c, key, places))).await
    }

    async fn history(&self, key: VaultKey, record: RecordId) -> Result<Vec<Entry>> {
        self.run(Run::Statement, (), |c, ()| Box::pin(pull::history(c, key, record))).await
    }

    async fn begin_segment(&self, key: VaultKey, segment: SegmentId, bytes: u64, now_utc: u64) -> Result<()> {
        let quota = self.quota;
        self.run(Run::Idempotent, (), |c, ()| {
            Box::pin(segment::begin(c, key, quota, segment, bytes, now_utc))
        })
        .await
    }

    async fn has_segments(&self) -> Result<bool> {
        self.run(Run::Statement, (), |c, ()| Box::pin(segment::any(c))).await
    }

    async fn drop_segment(&self, segment: SegmentId) -> Result<()> {
        self.run(Run::Statement, (), |c, ()| Box::pin(segment::give_up(c, segment))).await
    }

    async fn put_framed(
        &self,
        key: VaultKey,
        segment: SegmentId,
        objects: Vec<FramedObject>,
        now_utc: u64,
    ) -> Result<bool> {
        let quota = self.quota;
        self.run(Run::Idempotent, objects, |c, objects| {
            Box::pin(object::put_framed(c, key, quota, segment, objects, now_utc))
        })
        .await
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
        self.run(Run::Idempotent, (), |c, ()| Box::pin(object::begin(c, key, quota, blob, object, now_utc)))
            .await
    }

    async fn put_part(&self, key: VaultKey, blob: BlobId, part: PartRow, now_utc: u64) -> Result<bool> {
        let quota = self.quota;
        self.run(Run::Idempotent, part, |c, part| {
            Box::pin(object::put_part(c, key, quota, blob, part, now_utc))
        })
        .await
    }

    async fn complete_object(&self, key: VaultKey, blob: BlobId) -> Result<()> {
        self.run(Run::Idempotent, (), |c, ()| Box::pin(object::complete(c, key, blob))).await
    }

    async fn lose_object(&self, key: VaultKey, blob: BlobId) -> Result<()> {
        self.run(Run::Idempotent, (), |c, ()| Box::pin(object::lose(c, key, blob))).await
    }

    async fn object(&self, key: VaultKey, blob: BlobId) -> Result<Option<(ObjectRow, Vec<PartRow>)>> {
        self.run(Run::Snapshot, (), |c, ()| Box::pin(object::find(c, key, blob))).await
    }

    async fn objects(
        &self,
        key: VaultKey,
        blobs: Vec<BlobId>,
        bytes_max: u64,
    ) -> Result<BTreeMap<BlobId, (u64, Vec<PartRow>)>> {
        self.run(Run::Statement, blobs, |c, blobs| Box::pin(object::find_all(c, key, blobs, bytes_max))).await
    }

    async fn object_row(&self, key: VaultKey, blob: BlobId) -> Result<Option<ObjectRow>> {
        self.run(Run::Snapshot, (), |c, ()| Box::pin(object::find_row(c, key, blob))).await
    }

    async fn collect(&self, now_utc: u64, grace_seconds: u64) -> Result<Vec<SegmentId>> {
        let cutoff_utc = now_utc.saturating_sub(grace_seconds);
        let expire = self.run(Run::Idempotent, (), |c, ()| Box::pin(collect::expire(c, now_utc, cutoff_utc)));
        for account in expire.await? {
            self.run(Run::Idempotent, account, |c, account| {
                Box::pin(collect::collect(c, account, now_utc, cutoff_utc))
            })
            .await?;
        }
        self.run(Run::Idempotent, (), |c, ()| Box::pin(collect::segments(c, cutoff_utc))).await
    }

    async fn forget_segment(&self, segment: SegmentId) -> Result<()> {
        self.run(Run::Idempotent, (), |c, ()| Box::pin(segment::forget(c, segment))).await
    }
}
