//! Sessions.

use super::row::{byte, digest, id16, number, sql};
use super::{failed, usage};
use crate::store::{Result, SessionRow, revoked};
use lockstep_proto::Digest;
use lockstep_proto::id::{AccountId, DeviceId, SessionId};
use lockstep_proto::limits::SESSIONS_MAX;
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

pub(super) async fn put(c: &mut PgConnection, session: SessionRow) -> Result<()> {
    let kind = i64::from(session.kind);
    // A revocation ends sessions under the same lock: none begins that it does not see.
    usage::lock_account(c, &session.account.as_bytes()[..]).await?;
    let gone =
        sqlx::query("SELECT 1 FROM device WHERE account = $1 AND device = $2 AND revoked_at IS NOT NULL")
            .bind(&session.account.as_bytes()[..])
            .bind(&session.device.as_bytes()[..])
            .fetch_optional(&mut *c)
            .await
            .map_err(failed)?;
    if gone.is_some() {
        return Err(revoked());
    }
    sqlx::query(
        "INSERT INTO session (token_hash, account, device, kind, expires_utc, id, created_utc, used_utc)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
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
    // Whoever opens sessions in a loop ends the oldest of them; this one stays.
    sqlx::query(
        "DELETE FROM session WHERE token_hash IN (
             SELECT token_hash FROM session WHERE account = $1 AND kind = $2 AND token_hash <> $3
             ORDER BY created_utc DESC, token_hash OFFSET $4)",
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

fn row(row: &PgRow) -> Result<SessionRow> {
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

pub(super) async fn find(
    c: &mut PgConnection,
    token_hash: Digest,
    now_utc: u64,
) -> Result<Option<SessionRow>> {
    let found = sqlx::query(
        "SELECT token_hash, id, account, device, kind, created_utc, used_utc, expires_utc
         FROM session s WHERE token_hash = $1 AND expires_utc > $2 AND NOT EXISTS (
             SELECT 1 FROM device d
             WHERE d.account = s.account AND d.device = s.device AND d.revoked_at IS NOT NULL)",
    )
    .bind(&token_hash.as_bytes()[..])
    .bind(sql(now_utc)?)
    .fetch_optional(c)
    .await
    .map_err(failed)?;
    found.as_ref().map(row).transpose()
}

pub(super) async fn list(c: &mut PgConnection, account: AccountId, now_utc: u64) -> Result<Vec<SessionRow>> {
    let found = sqlx::query(
        "SELECT token_hash, id, account, device, kind, created_utc, used_utc, expires_utc
         FROM session WHERE account = $1 AND expires_utc > $2 ORDER BY created_utc, id",
    )
    .bind(&account.as_bytes()[..])
    .bind(sql(now_utc)?)
    .fetch_all(c)
    .await
    .map_err(failed)?;
    found.iter().map(row).collect()
}

pub(super) async fn touch(c: &mut PgConnection, token_hash: Digest, now_utc: u64) -> Result<()> {
    sqlx::query("UPDATE session SET used_utc = greatest(used_utc, $1) WHERE token_hash = $2")
        .bind(sql(now_utc)?)
        .bind(&token_hash.as_bytes()[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

pub(super) async fn end(c: &mut PgConnection, token_hash: Digest) -> Result<()> {
    sqlx::query("DELETE FROM session WHERE token_hash = $1")
        .bind(&token_hash.as_bytes()[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

pub(super) async fn revoke(c: &mut PgConnection, account: AccountId, id: SessionId) -> Result<bool> {
    let ended = sqlx::query("DELETE FROM session WHERE account = $1 AND id = $2")
        .bind(&account.as_bytes()[..])
        .bind(&id.as_bytes()[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(ended.rows_affected() > 0)
}
