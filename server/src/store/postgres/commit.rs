//! Applying commits: the vault's row is locked, then everything is read, judged and written in that
//! transaction. Whoever waited for the lock sees what the one before did.

use super::failed;
use super::row::{digest, id16, number, sql};
use super::version;
use crate::domain::commit::{Judged, Live, PreparedCommit, VaultState, judge};
use crate::error::{Refusal, StoreError};
use crate::store::{Pushed, Result, VaultKey};
use lockstep_proto::Digest;
use lockstep_proto::api::problem::Code;
use lockstep_proto::chain::{Authors, Tip};
use lockstep_proto::id::{AccountId, BlobId, DeviceId, Epoch, RecordId, Revision, Seq, VaultId};
use lockstep_proto::sign::PublicKey;
use lockstep_proto::state::StateDigest;
use sqlx::{PgConnection, Row as _};
use std::collections::BTreeMap;

pub(super) async fn stage(
    c: &mut PgConnection,
    key: VaultKey,
    envelopes: &[(Digest, Vec<u8>)],
    expires_utc: u64,
) -> Result<()> {
    // Each once and in one order: two that stage the same wait for each other, and do not block each other.
    let sorted: BTreeMap<_, _> = envelopes.iter().map(|(digest, bytes)| (digest, bytes)).collect();
    let rows: Vec<_> = sorted.into_iter().collect();
    let mut rest = rows.as_slice();
    while !rest.is_empty() {
        let (rows, after) = version::split(rest, |(_, bytes)| bytes.len());
        rest = after;
        let digests: Vec<_> = rows.iter().map(|(digest, _)| &digest.as_bytes()[..]).collect();
        let envelopes: Vec<_> = rows.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        sqlx::query(
            "INSERT INTO staged (vault, digest, envelope, expires_utc)
             SELECT $1, digest, envelope, $2 FROM unnest($3::bytea[], $4::bytea[]) AS fresh (digest, envelope)
             ON CONFLICT (vault, digest) DO UPDATE SET expires_utc = excluded.expires_utc",
        )
        .bind(key.0)
        .bind(sql(expires_utc)?)
        .bind(digests)
        .bind(envelopes)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    }
    Ok(())
}

/// `came_along`: digests of the envelopes that the push brought, ascending. Those that an earlier try took from
/// the staged ones are taken again.
pub(super) async fn apply(
    c: &mut PgConnection,
    account: AccountId,
    key: VaultKey,
    push: &mut PreparedCommit,
    came_along: &[Digest],
) -> Result<Pushed> {
    push.envelopes.retain(|digest, _| came_along.binary_search(digest).is_ok());
    let (tip, state, records) = lock_vault(c, key).await?;
    let seq = push.commit.seq;
    if seq <= tip.seq {
        let same = commit_hash(c, key, seq).await? == Some(push.hash);
        return Ok(if same { Pushed::Applied { seq, head: push.hash } } else { Pushed::HeadMoved });
    }
    if seq != tip.seq.next() || push.commit.previous != tip.hash {
        return Ok(Pushed::HeadMoved);
    }
    let staged = take_staged(c, key, push).await?;
    check_objects(c, key, push).await?;
    let skip = commit_hash(c, key, seq.skip_target()).await?;
    let skip = skip.ok_or(StoreError::Corrupt("a commit of the chain is missing"))?;
    let live = live(c, key, &push.records()).await?;
    let authors = authors(c, account, push).await?;
    let vault = VaultState { tip, skip, state, records, live };
    let judged = judge(push, &vault, &authors)?;
    write(c, key, push, &vault.live, &judged).await?;
    drop_staged(c, key, &staged).await?;
    Ok(Pushed::Applied { seq, head: push.hash })
}

async fn lock_vault(c: &mut PgConnection, key: VaultKey) -> Result<(Tip, StateDigest, u64)> {
    let row = sqlx::query(
        "SELECT vault, seq, head, epoch, device_log_index, log_index, log_head, state, records
         FROM vault WHERE id = $1 FOR UPDATE",
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

async fn commit_hash(c: &mut PgConnection, key: VaultKey, seq: Seq) -> Result<Option<Digest>> {
    let row = sqlx::query("SELECT hash FROM commit_header WHERE vault = $1 AND seq = $2")
        .bind(key.0)
        .bind(sql(seq.value())?)
        .fetch_optional(c)
        .await
        .map_err(failed)?;
    row.map(|row| digest(&row, 0)).transpose()
}

/// Adds staged envelopes that the push names; gives their digests.
async fn take_staged(c: &mut PgConnection, key: VaultKey, push: &mut PreparedCommit) -> Result<Vec<Digest>> {
    let missing = push.missing();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let digests: Vec<_> = missing.iter().map(|digest| &digest.as_bytes()[..]).collect();
    let rows = sqlx::query("SELECT digest, envelope FROM staged WHERE vault = $1 AND digest = ANY($2)")
        .bind(key.0)
        .bind(digests)
        .fetch_all(c)
        .await
        .map_err(failed)?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let digest = digest(row, 0)?;
        push.envelopes.insert(digest, row.try_get(1).map_err(failed)?);
        found.push(digest);
    }
    Ok(found)
}

async fn drop_staged(c: &mut PgConnection, key: VaultKey, digests: &[Digest]) -> Result<()> {
    if digests.is_empty() {
        return Ok(());
    }
    let digests: Vec<_> = digests.iter().map(|digest| &digest.as_bytes()[..]).collect();
    sqlx::query("DELETE FROM staged WHERE vault = $1 AND digest = ANY($2)")
        .bind(key.0)
        .bind(digests)
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

/// Every object that the push names is complete in this vault. From here on none of them is collected: its
/// row is locked, and marked when the transaction ends.
async fn check_objects(c: &mut PgConnection, key: VaultKey, push: &PreparedCommit) -> Result<()> {
    let mut missing = push.blobs();
    if missing.is_empty() {
        return Ok(());
    }
    let named: Vec<BlobId> = missing.iter().copied().collect();
    let blobs: Vec<_> = named.iter().map(|blob| &blob.as_bytes()[..]).collect();
    let rows = sqlx::query(
        "SELECT blob FROM object WHERE vault = $1 AND blob = ANY($2) AND complete ORDER BY blob FOR UPDATE",
    )
    .bind(key.0)
    .bind(&blobs)
    .fetch_all(&mut *c)
    .await
    .map_err(failed)?;
    for row in &rows {
        missing.remove(&BlobId::from_bytes(id16(row, 0)?));
    }
    if !missing.is_empty() {
        let mut refusal = Refusal::new(
            Code::MissingObject,
            "objects that the commit names are not there; upload them again",
        );
        refusal.names = missing.iter().map(ToString::to_string).collect();
        return Err(refusal.into());
    }
    sqlx::query("UPDATE object SET named = true WHERE vault = $1 AND blob = ANY($2) AND NOT named")
        .bind(key.0)
        .bind(blobs)
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

async fn live(c: &mut PgConnection, key: VaultKey, records: &[RecordId]) -> Result<BTreeMap<RecordId, Live>> {
    let records: Vec<_> = records.iter().map(|record| &record.as_bytes()[..]).collect();
    let rows =
        sqlx::query("SELECT record, revision, digest, seq FROM live WHERE vault = $1 AND record = ANY($2)")
            .bind(key.0)
            .bind(records)
            .fetch_all(c)
            .await
            .map_err(failed)?;
    let found = rows.iter().map(|row| {
        let live = Live {
            revision: Revision::new(number(row, 1)?),
            digest: digest(row, 2)?,
            seq: Seq::new(number(row, 3)?),
        };
        Ok((RecordId::from_bytes(id16(row, 0)?), live))
    });
    found.collect()
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

async fn authors(c: &mut PgConnection, account: AccountId, push: &PreparedCommit) -> Result<Claimed> {
    let (index, device) = (push.commit.device_log_index, push.commit.device);
    let row = sqlx::query(
        "SELECT l.hash, d.sign_key FROM device_log l
         LEFT JOIN device d ON d.account = l.account AND d.device = $1 AND d.enrolled_at <= l.position
         WHERE l.account = $2 AND l.position = $3",
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
    c: &mut PgConnection,
    key: VaultKey,
    push: &PreparedCommit,
    before: &BTreeMap<RecordId, Live>,
    judged: &Judged,
) -> Result<()> {
    let seq = sql(push.commit.seq.value())?;
    sqlx::query(
        "INSERT INTO commit_header (vault, seq, hash, bytes, signature, changes)
         VALUES ($1, $2, $3, $4, $5, $6)",
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
    version::write(c, key, push, before, seq).await?;
    version::write_pins(c, key, push).await?;
    sqlx::query(
        "UPDATE vault SET seq = $1, head = $2, device_log_index = $3, state = $4, records = $5 WHERE id = $6",
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
