//! Collection: what expired, and objects that no commit names after the grace period.
//!
//! One collector runs at a time, whichever server it belongs to. It never waits for a row that somebody
//! works with: what is locked is in use, and left to the next run. A commit that is about to name an object
//! has locked it; an object that is being collected is locked, and gone when the commit gets to it.

use super::failed;
use super::object::release;
use super::row::{bytes, id16, sql};
use crate::store::{Result, SegmentId};
use sqlx::{PgConnection, Row as _};
use std::collections::BTreeSet;

/// Most objects or segments that one run takes.
const ROWS_MAX: i64 = 1000;

/// Name of the lock that collectors take: "lockcoll" in ASCII.
const LOCK: i64 = 0x6c6f_636b_636f_6c6c;

/// What expired, at most 10,000 of each: a run ends, however much there is.
const EXPIRED: [&str; 4] = [
    "DELETE FROM session WHERE token_hash IN (SELECT token_hash FROM session
     WHERE expires_utc < $1 LIMIT 10000 FOR UPDATE SKIP LOCKED)",
    "DELETE FROM challenge WHERE id IN (SELECT id FROM challenge
     WHERE expires_utc < $1 LIMIT 10000 FOR UPDATE SKIP LOCKED)",
    "DELETE FROM invite WHERE code_hash IN (SELECT code_hash FROM invite
     WHERE expires_utc < $1 LIMIT 10000 FOR UPDATE SKIP LOCKED)",
    "DELETE FROM staged WHERE (vault, digest) IN (SELECT vault, digest FROM staged
     WHERE expires_utc < $1 LIMIT 10000 FOR UPDATE SKIP LOCKED)",
];

pub(super) async fn collect(
    c: &mut PgConnection,
    now_utc: u64,
    grace_seconds: u64,
) -> Result<Vec<SegmentId>> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *c).await.map_err(failed)?;
    let now = sql(now_utc)?;
    for statement in EXPIRED {
        sqlx::query(statement).bind(now).execute(&mut *c).await.map_err(failed)?;
    }
    let cutoff = sql(now_utc.saturating_sub(grace_seconds))?;
    collect_objects(c, cutoff).await?;
    sqlx::query(
        "UPDATE segment SET state = 3 WHERE id IN (SELECT id FROM segment
         WHERE state = 1 AND created_utc < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
    )
    .bind(cutoff)
    .bind(ROWS_MAX)
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    let dead = sqlx::query("SELECT id FROM segment WHERE state = 3 LIMIT $1")
        .bind(ROWS_MAX)
        .fetch_all(c)
        .await
        .map_err(failed)?;
    dead.iter().map(|row| Ok(SegmentId(id16(row, 0)?))).collect()
}

async fn collect_objects(c: &mut PgConnection, cutoff: i64) -> Result<()> {
    let unnamed = sqlx::query(
        "SELECT vault, blob FROM object WHERE NOT named AND created_utc < $1
         ORDER BY vault, blob LIMIT $2 FOR UPDATE SKIP LOCKED",
    )
    .bind(cutoff)
    .bind(ROWS_MAX)
    .fetch_all(&mut *c)
    .await
    .map_err(failed)?;
    if unnamed.is_empty() {
        return Ok(());
    }
    let (mut vaults, mut blobs) = (Vec::new(), Vec::new());
    for row in &unnamed {
        vaults.push(row.try_get::<i64, _>(0).map_err(failed)?);
        blobs.push(bytes(row, 1)?);
    }
    let parts = sqlx::query(
        "DELETE FROM part USING unnest($1::bigint[], $2::bytea[]) AS gone (vault, blob)
         WHERE part.vault = gone.vault AND part.blob = gone.blob RETURNING part.segment",
    )
    .bind(&vaults)
    .bind(&blobs)
    .fetch_all(&mut *c)
    .await
    .map_err(failed)?;
    sqlx::query(
        "DELETE FROM object USING unnest($1::bigint[], $2::bytea[]) AS gone (vault, blob)
         WHERE object.vault = gone.vault AND object.blob = gone.blob",
    )
    .bind(&vaults)
    .bind(&blobs)
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    let segments = parts.iter().map(|row| bytes(row, 0)).collect::<Result<BTreeSet<_>>>()?;
    release(c, &segments).await
}

pub(super) async fn forget_segment(c: &mut PgConnection, segment: SegmentId) -> Result<()> {
    sqlx::query("DELETE FROM segment WHERE id = $1 AND state = 3")
        .bind(&segment.0[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}
