//! Applying commits: everything is read, judged and written in the writer's transaction.

use super::row::{digest, id16, number, sql};
use super::usage::{self, Charge, row_bytes};
use super::{DefaultQuota, failed};
use crate::domain::commit::{Judged, Live, PreparedCommit, VaultState, judge};
use crate::domain::quota::{allowance_of, allowance_of_staged};
use crate::error::{Refusal, StoreError};
use crate::store::{Pushed, Result, VaultKey};
use lockstep_proto::Digest;
use lockstep_proto::api::problem::Code;
use lockstep_proto::chain::{Authors, Tip};
use lockstep_proto::commit::Change;
use lockstep_proto::envelope::{KIND_DOCUMENT, KIND_TOMBSTONE};
use lockstep_proto::id::{AccountId, DeviceId, Epoch, RecordId, Revision, Seq, VaultId};
use lockstep_proto::sign::PublicKey;
use lockstep_proto::state::StateDigest;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};
use std::collections::{BTreeMap, BTreeSet};

/// Rows a statement: enough to amortise it, far below SQLite's limit of variables.
const ROWS_A_STATEMENT: usize = 100;

pub(super) async fn stage(
    c: &mut SqliteConnection,
    key: VaultKey,
    quota: DefaultQuota,
    envelopes: Vec<(Digest, Vec<u8>)>,
    expires_utc: u64,
) -> Result<()> {
    let expires = sql(expires_utc)?;
    let allowance = allowance_of_staged(envelopes.iter().map(|(_, bytes)| bytes.as_slice()));
    let mut charge = Charge::default();
    for rows in envelopes.chunks(ROWS_A_STATEMENT) {
        let known = renew_staged(c, key, rows, expires).await?;
        let fresh: Vec<_> = rows.iter().filter(|(digest, _)| !known.contains(digest)).collect();
        if fresh.is_empty() {
            continue;
        }
        let mut query =
            QueryBuilder::<Sqlite>::new("INSERT INTO staged (vault, digest, envelope, expires_utc) ");
        query.push_values(&fresh, |mut row, (digest, bytes)| {
            row.push_bind(key.0).push_bind(&digest.as_bytes()[..]).push_bind(bytes).push_bind(expires);
        });
        query.build().execute(&mut *c).await.map_err(failed)?;
        charge.added =
            fresh.iter().fold(charge.added, |sum, (_, bytes)| sum.saturating_add(row_bytes(bytes)));
    }
    usage::charge(c, key, quota, charge, allowance).await
}

/// Lets what is staged already live longer; gives its digests.
async fn renew_staged(
    c: &mut SqliteConnection,
    key: VaultKey,
    rows: &[(Digest, Vec<u8>)],
    expires: i64,
) -> Result<BTreeSet<Digest>> {
    let mut query = QueryBuilder::<Sqlite>::new("UPDATE staged SET expires_utc = ");
    query.push_bind(expires).push(" WHERE vault = ").push_bind(key.0).push(" AND digest IN (");
    let mut list = query.separated(", ");
    for (digest, _) in rows {
        list.push_bind(&digest.as_bytes()[..]);
    }
    query.push(") RETURNING digest");
    let known = query.build().fetch_all(c).await.map_err(failed)?;
    known.iter().map(|row| digest(row, 0)).collect()
}

pub(super) async fn apply(
    c: &mut SqliteConnection,
    account: AccountId,
    key: VaultKey,
    quota: DefaultQuota,
    mut push: PreparedCommit,
) -> Result<Pushed> {
    let (tip, state, records) = vault(c, key).await?;
    let seq = push.commit.seq;
    if seq <= tip.seq {
        let same = commit_hash(c, key, seq).await? == Some(push.hash);
        return Ok(if same { Pushed::Applied { seq, head: push.hash } } else { Pushed::HeadMoved });
    }
    if seq != tip.seq.next() || push.commit.previous != tip.hash {
        return Ok(Pushed::HeadMoved);
    }
    let staged = take_staged(c, key, &mut push).await?;
    check_objects(c, key, &push).await?;
    let skip = commit_hash(c, key, seq.skip_target()).await?;
    let skip = skip.ok_or(StoreError::Corrupt("a commit of the chain is missing"))?;
    let live = live(c, key, &push.records()).await?;
    let authors = authors(c, account, &push).await?;
    let vault = VaultState { tip, skip, state, records, live };
    let judged = judge(&push, &vault, &authors)?;
    usage::charge(c, key, quota, charge_of(&push, &staged), allowance_of(&push.changes)).await?;
    write(c, key, &push, &vault.live, &judged).await?;
    drop_staged(c, key, &staged).await?;
    Ok(Pushed::Applied { seq, head: push.hash })
}

/// What a commit adds: header, change list, envelopes. Those that were staged count once.
fn charge_of(push: &PreparedCommit, staged: &[Digest]) -> Charge {
    let size = |digest: &Digest| push.envelopes.get(digest).map_or(0, |bytes| row_bytes(bytes));
    let header = usage::signed_bytes(&push.signed).saturating_add(usage::length(&push.change_bytes));
    let versions = push.changes.0.iter().filter_map(Change::version);
    Charge {
        added: versions.fold(header, |sum, (_, _, digest)| sum.saturating_add(size(&digest))),
        freed: staged.iter().fold(0, |sum, digest| sum.saturating_add(size(digest))),
        ..Charge::default()
    }
}

async fn vault(c: &mut SqliteConnection, key: VaultKey) -> Result<(Tip, StateDigest, u64)> {
    let row = sqlx::query(
        "SELECT vault, seq, head, epoch, device_log_index, log_index, log_head, state, records FROM vault WHERE id = ?",
    )
    .bind(key.0)
    .fetch_one(c)
    .await
    .map_err(failed)?;
    let state: &[u8] = row.try_get(7).map_err(failed)?;
    let state =
        StateDigest::from_bytes(state).ok_or(StoreError::Corrupt("a state digest has another length"))?;
    let tip = Tip {
        vault: VaultId::from_bytes(id16(&row, 0)?),
        seq: Seq::new(number(&row, 1)?),
        hash: digest(&row, 2)?,
        epoch: Epoch::new(number(&row, 3)?),
        device_log_index: number(&row, 4)?,
        vault_log_index: number(&row, 5)?,
        vault_log_head: digest(&row, 6)?,
        state: state.checksum(),
    };
    Ok((tip, state, number(&row, 8)?))
}

async fn commit_hash(c: &mut SqliteConnection, key: VaultKey, seq: Seq) -> Result<Option<Digest>> {
    let row = sqlx::query("SELECT hash FROM commit_header WHERE vault = ? AND seq = ?")
        .bind(key.0)
        .bind(sql(seq.value())?)
        .fetch_optional(c)
        .await
        .map_err(failed)?;
    row.map(|row| digest(&row, 0)).transpose()
}

/// Adds staged envelopes that the push names; gives their digests.
async fn take_staged(
    c: &mut SqliteConnection,
    key: VaultKey,
    push: &mut PreparedCommit,
) -> Result<Vec<Digest>> {
    let missing = push.missing();
    let mut found = Vec::new();
    for digests in missing.chunks(ROWS_A_STATEMENT) {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT digest, envelope FROM staged WHERE vault = ");
        query.push_bind(key.0).push(" AND digest IN (");
        let mut list = query.separated(", ");
        for digest in digests {
            list.push_bind(&digest.as_bytes()[..]);
        }
        query.push(")");
        for row in query.build().fetch_all(&mut *c).await.map_err(failed)? {
            let digest = digest(&row, 0)?;
            push.envelopes.insert(digest, row.try_get(1).map_err(failed)?);
            found.push(digest);
        }
    }
    Ok(found)
}

async fn drop_staged(c: &mut SqliteConnection, key: VaultKey, digests: &[Digest]) -> Result<()> {
    for digests in digests.chunks(ROWS_A_STATEMENT) {
        let mut query = QueryBuilder::<Sqlite>::new("DELETE FROM staged WHERE vault = ");
        query.push_bind(key.0).push(" AND digest IN (");
        let mut list = query.separated(", ");
        for digest in digests {
            list.push_bind(&digest.as_bytes()[..]);
        }
        query.push(")");
        query.build().execute(&mut *c).await.map_err(failed)?;
    }
    Ok(())
}

/// Every object that the push names is complete in this vault; from here on none of them is collected.
async fn check_objects(c: &mut SqliteConnection, key: VaultKey, push: &PreparedCommit) -> Result<()> {
    let mut missing = push.blobs();
    let named: Vec<_> = missing.iter().copied().collect();
    for blobs in named.chunks(ROWS_A_STATEMENT) {
        let mut query =
            QueryBuilder::<Sqlite>::new("UPDATE object SET named = 1 WHERE complete = 1 AND vault = ");
        query.push_bind(key.0).push(" AND blob IN (");
        let mut list = query.separated(", ");
        for blob in blobs {
            list.push_bind(&blob.as_bytes()[..]);
        }
        query.push(") RETURNING blob");
        for row in query.build().fetch_all(&mut *c).await.map_err(failed)? {
            missing.remove(&lockstep_proto::BlobId::from_bytes(id16(&row, 0)?));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let mut refusal =
        Refusal::new(Code::MissingObject, "objects that the commit names are not there; upload them again");
    refusal.names = missing.iter().map(ToString::to_string).collect();
    Err(refusal.into())
}

async fn live(
    c: &mut SqliteConnection,
    key: VaultKey,
    records: &[RecordId],
) -> Result<BTreeMap<RecordId, Live>> {
    let mut found = BTreeMap::new();
    for records in records.chunks(ROWS_A_STATEMENT) {
        let mut query =
            QueryBuilder::<Sqlite>::new("SELECT record, revision, digest, seq FROM live WHERE vault = ");
        query.push_bind(key.0).push(" AND record IN (");
        let mut list = query.separated(", ");
        for record in records {
            list.push_bind(&record.as_bytes()[..]);
        }
        query.push(")");
        for row in query.build().fetch_all(&mut *c).await.map_err(failed)? {
            let live = Live {
                revision: Revision::new(number(&row, 1)?),
                digest: digest(&row, 2)?,
                seq: Seq::new(number(&row, 3)?),
            };
            found.insert(RecordId::from_bytes(id16(&row, 0)?), live);
        }
    }
    Ok(found)
}

/// The rows of the device log that this commit's author claims.
struct Claimed {
    index: u64,
    hash: Option<Digest>,
    device: DeviceId,
    key: Option<PublicKey>,
}

impl Authors for Claimed {
    fn entry_hash(&self, index: u64) -> Option<Digest> {
        self.hash.filter(|_| index == self.index)
    }

    fn author_key(&self, device: DeviceId, _index: u64) -> Option<PublicKey> {
        self.key.filter(|_| device == self.device)
    }
}

async fn authors(c: &mut SqliteConnection, account: AccountId, push: &PreparedCommit) -> Result<Claimed> {
    let (index, device) = (push.commit.device_log_index, push.commit.device);
    let row = sqlx::query(
        "SELECT l.hash, d.sign_key FROM device_log l
         LEFT JOIN device d ON d.account = l.account AND d.device = ? AND d.enrolled_at <= l.position
         WHERE l.account = ? AND l.position = ?",
    )
    .bind(&device.as_bytes()[..])
    .bind(&account.as_bytes()[..])
    .bind(sql(index)?)
    .fetch_optional(c)
    .await
    .map_err(failed)?;
    let Some(row) = row else { return Ok(Claimed { index, hash: None, device, key: None }) };
    let key: Option<Vec<u8>> = row.try_get(1).map_err(failed)?;
    let key = key.and_then(|bytes| PublicKey::from_bytes(bytes.as_slice().try_into().ok()?));
    Ok(Claimed { index, hash: Some(digest(&row, 0)?), device, key })
}

async fn write(
    c: &mut SqliteConnection,
    key: VaultKey,
    push: &PreparedCommit,
    before: &BTreeMap<RecordId, Live>,
    judged: &Judged,
) -> Result<()> {
    let seq = sql(push.commit.seq.value())?;
    sqlx::query(
        "INSERT INTO commit_header (vault, seq, hash, bytes, signature, changes) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(key.0)
    .bind(seq)
    .bind(&push.hash.as_bytes()[..])
    .bind(&push.signed.bytes.0)
    .bind(&push.signed.signature.0[..])
    .bind(&push.change_bytes)
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    write_versions(c, key, push, before, seq).await?;
    write_pins(c, key, push).await?;
    sqlx::query(
        "UPDATE vault SET seq = ?, head = ?, device_log_index = ?, state = ?, records = ? WHERE id = ?",
    )
    .bind(seq)
    .bind(&push.hash.as_bytes()[..])
    .bind(sql(judged.tip.device_log_index)?)
    .bind(judged.state.to_bytes())
    .bind(sql(judged.records)?)
    .bind(key.0)
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(())
}

async fn write_versions(
    c: &mut SqliteConnection,
    key: VaultKey,
    push: &PreparedCommit,
    before: &BTreeMap<RecordId, Live>,
    seq: i64,
) -> Result<()> {
    let mut rows = Vec::with_capacity(push.changes.0.len());
    for change in &push.changes.0 {
        let Some((record, revision, digest)) = change.version() else { continue };
        let kind = if matches!(change, Change::Put { .. }) { KIND_DOCUMENT } else { KIND_TOMBSTONE };
        let previous = before.get(&record).map(|live| sql(live.seq.value())).transpose()?;
        let envelope =
            push.envelopes.get(&digest).ok_or(StoreError::Corrupt("a judged push lacks an envelope"))?;
        rows.push((record, sql(revision.value())?, kind, digest, previous, envelope));
    }
    for chunk in rows.chunks(ROWS_A_STATEMENT) {
        let mut query = QueryBuilder::<Sqlite>::new(
            "INSERT INTO version (vault, seq, record, revision, kind, digest, previous_seq, envelope) ",
        );
        query.push_values(chunk, |mut row, (record, revision, kind, digest, previous, envelope)| {
            row.push_bind(key.0)
                .push_bind(seq)
                .push_bind(&record.as_bytes()[..])
                .push_bind(*revision)
                .push_bind(i64::from(*kind))
                .push_bind(&digest.as_bytes()[..])
                .push_bind(*previous)
                .push_bind(envelope.as_slice());
        });
        query.build().execute(&mut *c).await.map_err(failed)?;
        let mut query =
            QueryBuilder::<Sqlite>::new("INSERT INTO live (vault, record, revision, digest, seq) ");
        query.push_values(chunk, |mut row, (record, revision, _, digest, ..)| {
            row.push_bind(key.0)
                .push_bind(&record.as_bytes()[..])
                .push_bind(*revision)
                .push_bind(&digest.as_bytes()[..])
                .push_bind(seq);
        });
        query.push(
            " ON CONFLICT (vault, record) DO UPDATE
              SET revision = excluded.revision, digest = excluded.digest, seq = excluded.seq",
        );
        query.build().execute(&mut *c).await.map_err(failed)?;
        replace(c, key, chunk.iter().filter_map(|row| Some((row.4?, row.0))).collect(), seq).await?;
    }
    Ok(())
}

/// Marks the versions that were the newest as replaced.
async fn replace(
    c: &mut SqliteConnection,
    key: VaultKey,
    places: Vec<(i64, RecordId)>,
    seq: i64,
) -> Result<()> {
    if places.is_empty() {
        return Ok(());
    }
    let mut query = QueryBuilder::<Sqlite>::new("UPDATE version SET replaced = ");
    query.push_bind(seq).push(" WHERE vault = ").push_bind(key.0).push(" AND (seq, record) IN (VALUES ");
    let mut list = query.separated(", ");
    for (previous, record) in &places {
        list.push("(").push_bind_unseparated(*previous).push_unseparated(", ");
        list.push_bind_unseparated(&record.as_bytes()[..]).push_unseparated(")");
    }
    query.push(")");
    query.build().execute(c).await.map_err(failed)?;
    Ok(())
}

async fn write_pins(c: &mut SqliteConnection, key: VaultKey, push: &PreparedCommit) -> Result<()> {
    for change in &push.changes.0 {
        let (statement, seq) = match change {
            Change::Pin(seq) => ("INSERT INTO pin (vault, seq) VALUES (?, ?) ON CONFLICT DO NOTHING", seq),
            Change::Unpin(seq) => ("DELETE FROM pin WHERE vault = ? AND seq = ?", seq),
            _ => continue,
        };
        sqlx::query(statement).bind(key.0).bind(sql(seq.value())?).execute(&mut *c).await.map_err(failed)?;
    }
    Ok(())
}
