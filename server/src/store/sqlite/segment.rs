//! Segments: announced, used, released, forgotten. Their bytes count from the announcement until they are
//! forgotten, except while a begun upload counts them.

use super::row::{number, sql};
use super::{failed, usage};
use crate::domain::quota::{Allowance, Charge, DefaultQuota};
use crate::error::StoreError;
use crate::store::{Result, SegmentId, VaultKey};
use lockstep_proto::api::problem::Code;
use sqlx::{SqliteConnection, SqlitePool};

pub(super) async fn begin(
    c: &mut SqliteConnection,
    key: VaultKey,
    quota: DefaultQuota,
    segment: SegmentId,
    bytes: u64,
    now_utc: u64,
) -> Result<()> {
    sqlx::query("INSERT INTO segment (id, vault, state, created_utc, counted_bytes) VALUES (?, ?, 1, ?, ?)")
        .bind(&segment.0[..])
        .bind(key.0)
        .bind(sql(now_utc)?)
        .bind(sql(bytes)?)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    if bytes == 0 {
        return Ok(());
    }
    usage::charge(c, key, quota, Charge { added: bytes, ..Charge::default() }, Allowance::Quota).await
}

/// Whether there is any.
pub(super) async fn any(pool: &SqlitePool) -> Result<bool> {
    let found: i64 =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM segment)").fetch_one(pool).await.map_err(failed)?;
    Ok(found == 1)
}

/// Takes a segment into use with the bytes that it counts from now on; gives those that it counted before.
pub(super) async fn take(c: &mut SqliteConnection, segment: SegmentId, bytes: u64) -> Result<u64> {
    let before = sqlx::query("SELECT counted_bytes FROM segment WHERE id = ? AND state = 1")
        .bind(&segment.0[..])
        .fetch_optional(&mut *c)
        .await
        .map_err(failed)?;
    let Some(before) = before else {
        return Err(StoreError::refused(Code::Expired, "the upload took too long; send it again"));
    };
    sqlx::query("UPDATE segment SET state = 2, counted_bytes = ? WHERE id = ?")
        .bind(sql(bytes)?)
        .bind(&segment.0[..])
        .execute(c)
        .await
        .map_err(failed)?;
    number(&before, 0)
}

/// Marks a segment for deletion if no part lies in it any more; gives the bytes that count anew: those of a part,
/// which its upload does not count any longer.
pub(super) async fn release(c: &mut SqliteConnection, segment: SegmentId, part_bytes: u64) -> Result<u64> {
    let before = sqlx::query(
        "SELECT counted_bytes FROM segment
         WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM part WHERE part.segment = ?1)",
    )
    .bind(&segment.0[..])
    .fetch_optional(&mut *c)
    .await
    .map_err(failed)?;
    let Some(before) = before else { return Ok(0) };
    let before = number(&before, 0)?;
    let counted = if before == 0 { part_bytes } else { before };
    sqlx::query("UPDATE segment SET state = 3, counted_bytes = ? WHERE id = ?")
        .bind(sql(counted)?)
        .bind(&segment.0[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(counted.saturating_sub(before))
}

/// Gives a segment up that was only announced.
pub(super) async fn give_up(c: &mut SqliteConnection, segment: SegmentId) -> Result<()> {
    sqlx::query("UPDATE segment SET state = 3 WHERE id = ? AND state = 1")
        .bind(&segment.0[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

/// Forgets a segment whose bytes are gone.
pub(super) async fn forget(c: &mut SqliteConnection, segment: SegmentId) -> Result<()> {
    let gone =
        sqlx::query("DELETE FROM segment WHERE id = ? AND state = 3 RETURNING vault, counted_bytes, owner")
            .bind(&segment.0[..])
            .fetch_optional(&mut *c)
            .await
            .map_err(failed)?;
    let Some(row) = gone else { return Ok(()) };
    let key = VaultKey(sqlx::Row::try_get(&row, 0).map_err(failed)?);
    let freed = number(&row, 1)?;
    if freed == 0 {
        return Ok(());
    }
    let owner: Option<Vec<u8>> = sqlx::Row::try_get(&row, 2).map_err(failed)?;
    if let Some(owner) = owner {
        return usage::free(c, &owner, freed).await;
    }
    let charge = Charge { freed, ..Charge::default() };
    usage::charge(c, key, DefaultQuota(None), charge, Allowance::Always).await
}
