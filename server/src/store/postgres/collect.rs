//! Collection: what expired, and objects that no commit names after the grace period.
//!
//! Accounts are taken one after the other, each in a transaction of its own that has locked the account's row: no commit
//! comes to name an object while it is being collected, and what is freed is counted. Any number of servers may collect
//! at once.

use super::object;
use super::row::{bytes, id16, number, sql};
use super::{failed, usage};
use crate::domain::quota::{Allowance, Charge, DefaultQuota, ROW_BYTES};
use crate::store::{Result, SegmentId, VaultKey};
use lockstep_proto::id::BlobId;
use sqlx::{PgConnection, Row as _};
use std::collections::BTreeMap;

/// Most objects, staged envelopes or segments that one transaction takes.
const ROWS_MAX: i64 = 1000;

/// What expired and counts for nobody, at most 10,000 of each: a run ends, however much there is. What somebody works
/// with is left to the next run.
const EXPIRED: [&str; 3] = [
    "DELETE FROM session WHERE token_hash IN (SELECT token_hash FROM session
     WHERE expires_utc < $1 LIMIT 10000 FOR UPDATE SKIP LOCKED)",
    "DELETE FROM challenge WHERE id IN (SELECT id FROM challenge
     WHERE expires_utc < $1 LIMIT 10000 FOR UPDATE SKIP LOCKED)",
    "DELETE FROM invite WHERE code_hash IN (SELECT code_hash FROM invite
     WHERE expires_utc < $1 LIMIT 10000 FOR UPDATE SKIP LOCKED)",
];

/// Drops what expired; gives the accounts that have something to collect.
pub(super) async fn expire(c: &mut PgConnection, now_utc: u64, cutoff_utc: u64) -> Result<Vec<Vec<u8>>> {
    let now = sql(now_utc)?;
    for statement in EXPIRED {
        sqlx::query(statement).bind(now).execute(&mut *c).await.map_err(failed)?;
    }
    let rows = sqlx::query(
        "SELECT DISTINCT account FROM vault WHERE id IN
             (SELECT vault FROM staged WHERE expires_utc < $1
              UNION SELECT vault FROM object WHERE NOT named AND created_utc < $2)
         ORDER BY account LIMIT $3",
    )
    .bind(now)
    .bind(sql(cutoff_utc)?)
    .bind(ROWS_MAX)
    .fetch_all(c)
    .await
    .map_err(failed)?;
    rows.iter().map(|row| bytes(row, 0)).collect()
}

/// Collects what one account has.
pub(super) async fn collect(
    c: &mut PgConnection,
    account: &[u8],
    now_utc: u64,
    cutoff_utc: u64,
) -> Result<()> {
    if !usage::lock_account(c, account).await? {
        return Ok(());
    }
    let staged = sqlx::query(
        "WITH gone AS (
             DELETE FROM staged WHERE (vault, digest) IN
                 (SELECT s.vault, s.digest FROM staged s JOIN vault v ON v.id = s.vault
                  WHERE v.account = $1 AND s.expires_utc < $2 LIMIT $3)
             RETURNING vault, octet_length(envelope) AS size)
         SELECT vault, count(*), sum(size)::bigint FROM gone GROUP BY vault",
    )
    .bind(account)
    .bind(sql(now_utc)?)
    .bind(ROWS_MAX)
    .fetch_all(&mut *c)
    .await
    .map_err(failed)?;
    for row in &staged {
        let freed = number(row, 1)?.saturating_mul(ROW_BYTES).saturating_add(number(row, 2)?);
        let charge = Charge { freed, ..Charge::default() };
        let key = VaultKey(row.try_get(0).map_err(failed)?);
        usage::charge(c, key, DefaultQuota(None), charge, Allowance::Always).await?;
    }
    let unnamed = sqlx::query(
        "SELECT o.vault, o.blob FROM object o JOIN vault v ON v.id = o.vault
         WHERE v.account = $1 AND NOT o.named AND o.created_utc < $2
         ORDER BY o.vault, o.blob LIMIT $3 FOR UPDATE OF o SKIP LOCKED",
    )
    .bind(account)
    .bind(sql(cutoff_utc)?)
    .bind(ROWS_MAX)
    .fetch_all(&mut *c)
    .await
    .map_err(failed)?;
    let mut by_vault: BTreeMap<i64, Vec<BlobId>> = BTreeMap::new();
    for row in &unnamed {
        let vault = row.try_get(0).map_err(failed)?;
        by_vault.entry(vault).or_default().push(BlobId::from_bytes(id16(row, 1)?));
    }
    for (vault, blobs) in by_vault {
        object::forget(c, VaultKey(vault), &blobs).await?;
    }
    Ok(())
}

/// Gives segments up that were announced too long ago; gives those whose bytes are to be deleted.
pub(super) async fn segments(c: &mut PgConnection, cutoff_utc: u64) -> Result<Vec<SegmentId>> {
    sqlx::query(
        "UPDATE segment SET state = 3 WHERE id IN (SELECT id FROM segment
         WHERE state = 1 AND created_utc < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
    )
    .bind(sql(cutoff_utc)?)
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
