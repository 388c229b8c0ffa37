//! Segments: announced, used, released, forgotten. Their bytes count from the announcement until they are
//! forgotten, except while a begun upload counts them.
//!
//! All parts of a segment come in the transaction that begins to use it: later none can come, only go.

use super::row::{bytes, number, sql};
use super::{failed, usage};
use crate::domain::quota::{Allowance, Charge, DefaultQuota};
use crate::error::StoreError;
use crate::store::{Result, SegmentId, VaultKey};
use lockstep_proto::api::problem::Code;
use sqlx::{PgConnection, Row as _};
use std::collections::BTreeMap;

pub(super) async fn begin(
    c: &mut PgConnection,
    key: VaultKey,
    quota: DefaultQuota,
    segment: SegmentId,
    bytes: u64,
    now_utc: u64,
) -> Result<()> {
    if bytes > 0 {
        usage::lock(c, key).await?;
    }
    let fresh = sqlx::query(
        "INSERT INTO segment (id, vault, state, created_utc, counted_bytes) VALUES ($1, $2, 1, $3, $4)
         ON CONFLICT DO NOTHING",
    )
    .bind(&segment.0[..])
    .bind(key.0)
    .bind(sql(now_utc)?)
    .bind(sql(bytes)?)
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    if bytes == 0 || fresh.rows_affected() == 0 {
        return Ok(());
    }
    usage::charge(c, key, quota, Charge { added: bytes, ..Charge::default() }, Allowance::Quota).await
}

/// Whether there is any.
pub(super) async fn any(c: &mut PgConnection) -> Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM segment)").fetch_one(c).await.map_err(failed)
}

/// Takes a segment into use with the bytes that it counts from now on; gives those that it counted before.
pub(super) async fn take(c: &mut PgConnection, segment: SegmentId, bytes: u64) -> Result<u64> {
    let before = sqlx::query("SELECT counted_bytes FROM segment WHERE id = $1 AND state = 1 FOR UPDATE")
        .bind(&segment.0[..])
        .fetch_optional(&mut *c)
        .await
        .map_err(failed)?;
    let Some(before) = before else {
        return Err(StoreError::refused(Code::Expired, "the upload took too long; send it again"));
    };
    sqlx::query("UPDATE segment SET state = 2, counted_bytes = $1 WHERE id = $2")
        .bind(sql(bytes)?)
        .bind(&segment.0[..])
        .execute(c)
        .await
        .map_err(failed)?;
    number(&before, 0)
}

/// Marks segments for deletion in which no part lies any more; gives the bytes that count anew: those of parts, which
/// their upload does not count any longer. `parts`: bytes of the parts that are gone, by segment.
///
/// The segments are locked by a statement before: of two that take the last parts of a segment the later one sees
/// that they are gone.
pub(super) async fn release(c: &mut PgConnection, parts: &BTreeMap<Vec<u8>, u64>) -> Result<u64> {
    if parts.is_empty() {
        return Ok(0);
    }
    let segments: Vec<_> = parts.keys().map(Vec::as_slice).collect();
    let sizes = parts.values().map(|size| sql(*size)).collect::<Result<Vec<_>>>()?;
    sqlx::query("SELECT 1 FROM segment WHERE id = ANY($1) ORDER BY id FOR UPDATE")
        .bind(&segments)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    let added: i64 = sqlx::query_scalar(
        "WITH gone AS (
             SELECT s.id, s.counted_bytes AS before, p.size
             FROM segment s JOIN unnest($1::bytea[], $2::bigint[]) AS p (id, size) ON p.id = s.id
             WHERE NOT EXISTS (SELECT 1 FROM part WHERE part.segment = s.id)
         ), marked AS (
             UPDATE segment SET state = 3, counted_bytes = CASE WHEN before = 0 THEN size ELSE before END
             FROM gone WHERE segment.id = gone.id RETURNING segment.counted_bytes - gone.before AS added
         )
         SELECT coalesce(sum(added), 0)::bigint FROM marked",
    )
    .bind(segments)
    .bind(sizes)
    .fetch_one(c)
    .await
    .map_err(failed)?;
    u64::try_from(added).map_err(|_| StoreError::Corrupt("a segment counts fewer bytes than none"))
}

/// Gives a segment up that was only announced.
pub(super) async fn give_up(c: &mut PgConnection, segment: SegmentId) -> Result<()> {
    sqlx::query("UPDATE segment SET state = 3 WHERE id = $1 AND state = 1")
        .bind(&segment.0[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

/// Forgets a segment whose bytes are gone.
pub(super) async fn forget(c: &mut PgConnection, segment: SegmentId) -> Result<()> {
    let whose = sqlx::query(
        "SELECT coalesce(s.owner, v.account) FROM segment s LEFT JOIN vault v ON v.id = s.vault
         WHERE s.id = $1 AND s.state = 3",
    )
    .bind(&segment.0[..])
    .fetch_optional(&mut *c)
    .await
    .map_err(failed)?;
    let Some(whose) = whose else { return Ok(()) };
    let account: Option<Vec<u8>> = whose.try_get(0).map_err(failed)?;
    if let Some(account) = account {
        usage::lock_account(c, &account).await?;
    }
    let gone = sqlx::query(
        "DELETE FROM segment WHERE id = $1 AND state = 3 RETURNING counted_bytes, owner, vault,
             EXISTS (SELECT 1 FROM vault WHERE vault.id = segment.vault)",
    )
    .bind(&segment.0[..])
    .fetch_optional(&mut *c)
    .await
    .map_err(failed)?;
    let Some(row) = gone else { return Ok(()) };
    let freed = number(&row, 0)?;
    if let Some(owner) = row.try_get::<Option<&[u8]>, _>(1).map_err(failed)? {
        return usage::free(c, owner, freed).await;
    }
    if freed == 0 || !row.try_get::<bool, _>(3).map_err(failed)? {
        return Ok(());
    }
    let key = VaultKey(row.try_get(2).map_err(failed)?);
    usage::charge(c, key, DefaultQuota(None), Charge { freed, ..Charge::default() }, Allowance::Always).await
}

/// Sums up the sizes of parts by segment; the rows are segment and size.
pub(super) fn by_segment(rows: &[sqlx::postgres::PgRow]) -> Result<BTreeMap<Vec<u8>, u64>> {
    let mut sizes: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for row in rows {
        let size = sizes.entry(bytes(row, 0)?).or_default();
        *size = size.saturating_add(number(row, 1)?);
    }
    Ok(sizes)
}
