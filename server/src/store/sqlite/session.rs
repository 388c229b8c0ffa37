//! Sessions.

use super::failed;
use super::row::{byte, digest, id16, number, sql};
use crate::store::{Result, SessionRow, revoked};
use lockstep_proto::Digest;
use lockstep_proto::id::{AccountId, DeviceId, SessionId};
use lockstep_proto::limits::SESSIONS_MAX;
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, SqlitePool};

pub(super) async fn put(c: &mut SqliteConnection, session: SessionRow) -> Result<()> {
    let kind = i64::from(session.kind);
    let put = sqlx::query(
        "INSERT INTO session (token_hash, account, device, kind, expires_utc, id, created_utc, used_utc)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8
         WHERE NOT EXISTS (SELECT 1 FROM device WHERE account = ?2 AND device = ?3 AND revoked_at IS NOT NULL)",
    )
    .bind(&session.token_hash.as_bytes()[..])
    .bind(&session.account.as_bytes()[..])
    .bind(&session.device.as_bytes()[..])
    .bind(kind)
    .bind(sql(session.expires_utc)?)
    .bind(&session.id.as_bytes()[..])
    .bind(sql(session.created_utc)?)
    .bind(sql(session.used_utc)?)
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    if put.rows_affected() == 0 {
        return Err(revoked());
    }
    // Whoever opens sessions in a loop ends the oldest of them; this one stays.
    sqlx::query(
        "DELETE FROM session WHERE token_hash IN (
             SELECT token_hash FROM session WHERE account = ?1 AND kind = ?2 AND token_hash <> ?3
             ORDER BY created_utc DESC, token_hash LIMIT -1 OFFSET ?4)",
    )
    .bind(&session.account.as_bytes()[..])
    .bind(kind)
    .bind(&session.token_hash.as_bytes()[..])
    .bind(i64::try_from(SESSIONS_MAX.saturating_sub(1)).unwrap_or(i64::MAX))
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(())
}

fn row(row: &SqliteRow) -> Result<SessionRow> {
    Ok(SessionRow {
        token_hash: digest(row, 0)?,
        id: SessionId::from_bytes(id16(row, 1)?),
        account: AccountId::from_bytes(id16(row, 2)?),
        device: DeviceId::from_bytes(id16(row, 3)?),
        kind: byte(row, 4)?,
        created_utc: number(row, 5)?,
        used_utc: number(row, 6)?,
        expires_utc: number(row, 7)?,
    })
}

pub(super) async fn find(pool: &SqlitePool, token_hash: Digest, now_utc: u64) -> Result<Option<SessionRow>> {
    let found = sqlx::query(
        "SELECT token_hash, id, account, device, kind, created_utc, used_utc, expires_utc
         FROM session s WHERE token_hash = ? AND expires_utc > ? AND NOT EXISTS (
             SELECT 1 FROM device d
             WHERE d.account = s.account AND d.device = s.device AND d.revoked_at IS NOT NULL)",
    )
    .bind(&token_hash.as_bytes()[..])
    .bind(sql(now_utc)?)
    .fetch_optional(pool)
    .await
    .map_err(failed)?;
    found.as_ref().map(row).transpose()
}

pub(super) async fn list(pool: &SqlitePool, account: AccountId, now_utc: u64) -> Result<Vec<SessionRow>> {
    let found = sqlx::query(
        "SELECT token_hash, id, account, device, kind, created_utc, used_utc, expires_utc
         FROM session WHERE account = ? AND expires_utc > ? ORDER BY created_utc, id",
    )
    .bind(&account.as_bytes()[..])
    .bind(sql(now_utc)?)
    .fetch_all(pool)
    .await
    .map_err(failed)?;
    found.iter().map(row).collect()
}

pub(super) async fn touch(c: &mut SqliteConnection, token_hash: Digest, now_utc: u64) -> Result<()> {
    sqlx::query("UPDATE session SET used_utc = max(used_utc, ?) WHERE token_hash = ?")
        .bind(sql(now_utc)?)
        .bind(&token_hash.as_bytes()[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

pub(super) async fn end(c: &mut SqliteConnection, token_hash: Digest) -> Result<()> {
    sqlx::query("DELETE FROM session WHERE token_hash = ?")
        .bind(&token_hash.as_bytes()[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

pub(super) async fn revoke(c: &mut SqliteConnection, account: AccountId, id: SessionId) -> Result<bool> {
    let ended = sqlx::query("DELETE FROM session WHERE account = ? AND id = ?")
        .bind(&account.as_bytes()[..])
        .bind(&id.as_bytes()[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(ended.rows_affected() > 0)
}
