//! Collection: what expired, and objects that no commit names after the grace period. It runs in the
//! writer's transaction, so that no commit can come to name an object while it is being collected.

use super::row::{id16, number, sql};
use super::{failed, usage};
use crate::domain::quota::{Allowance, Charge, DefaultQuota, ROW_BYTES};
use crate::store::{Result, SegmentId, VaultKey};
use lockstep_proto::id::BlobId;
use sqlx::SqliteConnection;

/// Most rows that one run takes.
const ROWS_MAX: i64 = 1000;

pub(super) async fn collect(
    c: &mut SqliteConnection,
    now_utc: u64,
    grace_seconds: u64,
) -> Result<Vec<SegmentId>> {
    let now = sql(now_utc)?;
    for statement in [
        "DELETE FROM session WHERE expires_utc < ?",
        "DELETE FROM challenge WHERE expires_utc < ?",
        "DELETE FROM invite WHERE expires_utc < ?",
    ] {
        sqlx::query(statement).bind(now).execute(&mut *c).await.map_err(failed)?;
    }
    expire_staged(c, now).await?;
    let cutoff = sql(now_utc.saturating_sub(grace_seconds))?;
    let unnamed = sqlx::query("SELECT vault, blob FROM object WHERE named = 0 AND created_utc < ? LIMIT ?")
        .bind(cutoff)
        .bind(ROWS_MAX)
        .fetch_all(&mut *c)
        .await
        .map_err(failed)?;
    for row in &unnamed {
        let vault: i64 = sqlx::Row::try_get(row, 0).map_err(failed)?;
        super::object::forget(c, VaultKey(vault), BlobId::from_bytes(id16(row, 1)?)).await?;
    }
    sqlx::query("UPDATE segment SET state = 3 WHERE state = 1 AND created_utc < ?")
        .bind(cutoff)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    let dead = sqlx::query("SELECT id FROM segment WHERE state = 3 LIMIT ?")
        .bind(ROWS_MAX)
        .fetch_all(c)
        .await
        .map_err(failed)?;
    dead.iter().map(|row| Ok(SegmentId(id16(row, 0)?))).collect()
}

async fn expire_staged(c: &mut SqliteConnection, now: i64) -> Result<()> {
    let expired = sqlx::query(
        "SELECT vault, count(*), sum(length(envelope)) FROM staged WHERE expires_utc < ? GROUP BY vault",
    )
    .bind(now)
    .fetch_all(&mut *c)
    .await
    .map_err(failed)?;
    for row in &expired {
        let vault: i64 = sqlx::Row::try_get(row, 0).map_err(failed)?;
        let freed = number(row, 1)?.saturating_mul(ROW_BYTES).saturating_add(number(row, 2)?);
        let charge = Charge { freed, ..Charge::default() };
        usage::charge(c, VaultKey(vault), DefaultQuota(None), charge, Allowance::Always).await?;
    }
    sqlx::query("DELETE FROM staged WHERE expires_utc < ?").bind(now).execute(c).await.map_err(failed)?;
    Ok(())
}
