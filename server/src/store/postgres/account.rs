//! Accounts, devices, sessions, challenges. Random ids make it safe to store the same row twice.

use super::row::{byte, bytes, digest, id16, number, signed, sql};
use super::{failed, vault};
use crate::error::StoreError;
use crate::store::{Challenge, NewAccount, NewEntry, NewSignIn, Result, SessionRow, SignIn};
use lockstep_proto::Digest;
use lockstep_proto::api::account::Devices;
use lockstep_proto::api::problem::Code;
use lockstep_proto::id::{AccountId, DeviceId};
use sqlx::PgConnection;

pub(super) async fn secret(c: &mut PgConnection, name: &'static str, fresh: &[u8]) -> Result<Vec<u8>> {
    sqlx::query("INSERT INTO secret (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(name)
        .bind(fresh)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    let row = sqlx::query("SELECT value FROM secret WHERE name = $1")
        .bind(name)
        .fetch_one(c)
        .await
        .map_err(failed)?;
    bytes(&row, 0)
}

pub(super) async fn put_challenge(c: &mut PgConnection, challenge: &Challenge) -> Result<()> {
    sqlx::query(
        "INSERT INTO challenge (id, kind, account, data, expires_utc) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT DO NOTHING",
    )
    .bind(&challenge.id.as_bytes()[..])
    .bind(i64::from(challenge.kind))
    .bind(&challenge.account.as_bytes()[..])
    .bind(&challenge.data)
    .bind(sql(challenge.expires_utc)?)
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(())
}

pub(super) async fn take_challenge(
    c: &mut PgConnection,
    id: Digest,
    kind: u8,
    now_utc: u64,
) -> Result<Option<Challenge>> {
    let row =
        sqlx::query("DELETE FROM challenge WHERE id = $1 AND kind = $2 RETURNING account, data, expires_utc")
            .bind(&id.as_bytes()[..])
            .bind(i64::from(kind))
            .fetch_optional(c)
            .await
            .map_err(failed)?;
    let Some(row) = row else { return Ok(None) };
    let expires_utc = number(&row, 2)?;
    if expires_utc < now_utc {
        return Ok(None);
    }
    let account = AccountId::from_bytes(id16(&row, 0)?);
    Ok(Some(Challenge { id, kind, account, data: bytes(&row, 1)?, expires_utc }))
}

pub(super) async fn put_session(c: &mut PgConnection, session: SessionRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO session (token_hash, account, device, kind, expires_utc) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT DO NOTHING",
    )
    .bind(&session.token_hash.as_bytes()[..])
    .bind(&session.account.as_bytes()[..])
    .bind(&session.device.as_bytes()[..])
    .bind(i64::from(session.kind))
    .bind(sql(session.expires_utc)?)
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(())
}

pub(super) async fn session(
    c: &mut PgConnection,
    token_hash: Digest,
    now_utc: u64,
) -> Result<Option<SessionRow>> {
    let row = sqlx::query(
        "SELECT account, device, kind, expires_utc FROM session WHERE token_hash = $1 AND expires_utc > $2",
    )
    .bind(&token_hash.as_bytes()[..])
    .bind(sql(now_utc)?)
    .fetch_optional(c)
    .await
    .map_err(failed)?;
    row.map(|row| {
        Ok(SessionRow {
            token_hash,
            account: AccountId::from_bytes(id16(&row, 0)?),
            device: DeviceId::from_bytes(id16(&row, 1)?),
            kind: byte(&row, 2)?,
            expires_utc: number(&row, 3)?,
        })
    })
    .transpose()
}

pub(super) async fn end_session(c: &mut PgConnection, token_hash: Digest) -> Result<()> {
    sqlx::query("DELETE FROM session WHERE token_hash = $1")
        .bind(&token_hash.as_bytes()[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

pub(super) async fn put_invite(c: &mut PgConnection, code_hash: Digest, expires_utc: u64) -> Result<()> {
    sqlx::query("INSERT INTO invite (code_hash, expires_utc) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(&code_hash.as_bytes()[..])
        .bind(sql(expires_utc)?)
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

pub(super) async fn sign_in(c: &mut PgConnection, name: &str) -> Result<Option<SignIn>> {
    let row = sqlx::query("SELECT id, credential, opaque_record, recovery FROM account WHERE name = $1")
        .bind(name)
        .fetch_optional(c)
        .await
        .map_err(failed)?;
    row.map(|row| {
        Ok(SignIn {
            account: AccountId::from_bytes(id16(&row, 0)?),
            credential: bytes(&row, 1)?,
            opaque_record: bytes(&row, 2)?,
            recovery: digest(&row, 3)?,
        })
    })
    .transpose()
}

pub(super) async fn recovery_key(c: &mut PgConnection, account: AccountId) -> Result<Option<Digest>> {
    let row = sqlx::query("SELECT recovery FROM account WHERE id = $1")
        .bind(&account.as_bytes()[..])
        .fetch_optional(c)
        .await
        .map_err(failed)?;
    row.map(|row| digest(&row, 0)).transpose()
}

pub(super) async fn device_key(
    c: &mut PgConnection,
    account: AccountId,
    device: DeviceId,
) -> Result<Option<Digest>> {
    let row = sqlx::query("SELECT sign_key FROM device WHERE account = $1 AND device = $2")
        .bind(&account.as_bytes()[..])
        .bind(&device.as_bytes()[..])
        .fetch_optional(c)
        .await
        .map_err(failed)?;
    row.map(|row| digest(&row, 0)).transpose()
}

pub(super) async fn register(c: &mut PgConnection, account: &NewAccount) -> Result<()> {
    if let Some(invite) = account.invite {
        let used = sqlx::query("DELETE FROM invite WHERE code_hash = $1 AND expires_utc > $2")
            .bind(&invite.as_bytes()[..])
            .bind(sql(account.now_utc)?)
            .execute(&mut *c)
            .await
            .map_err(failed)?;
        if used.rows_affected() == 0 {
            return Err(StoreError::refused(
                Code::RegistrationClosed,
                "the invite code is not valid, or was used",
            ));
        }
    }
    let entry = &account.entry;
    let stored = sqlx::query(
        "INSERT INTO account (id, name, recovery, credential, opaque_record, key_header, key_header_signature,
                              log_length, log_head, created_utc)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8, $9) ON CONFLICT DO NOTHING",
    )
    .bind(&entry.account.as_bytes()[..])
    .bind(&account.name)
    .bind(&account.sign_in.recovery.as_bytes()[..])
    .bind(&account.sign_in.credential)
    .bind(&account.sign_in.opaque_record)
    .bind(&entry.key_header.bytes.0)
    .bind(&entry.key_header.signature.0[..])
    .bind(&Digest::ZERO.as_bytes()[..])
    .bind(sql(account.now_utc)?)
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    if stored.rows_affected() == 0 {
        return Err(StoreError::refused(Code::NameTaken, "this account name is taken; choose another one"));
    }
    add_entry(c, entry, None).await?;
    vault::create(c, entry.account, &account.keyring).await
}

pub(super) async fn devices(
    c: &mut PgConnection,
    account: AccountId,
    from: u64,
    limit: usize,
) -> Result<Option<Devices>> {
    let row = sqlx::query("SELECT log_length, key_header, key_header_signature FROM account WHERE id = $1")
        .bind(&account.as_bytes()[..])
        .fetch_optional(&mut *c)
        .await
        .map_err(failed)?;
    let Some(row) = row else { return Ok(None) };
    let rows = sqlx::query(
        "SELECT bytes, signature FROM device_log WHERE account = $1 AND position >= $2
         ORDER BY position LIMIT $3",
    )
    .bind(&account.as_bytes()[..])
    .bind(sql(from)?)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(c)
    .await
    .map_err(failed)?;
    let entries = rows.iter().map(|row| signed(row, 0, 1)).collect::<Result<_>>()?;
    Ok(Some(Devices { total: number(&row, 0)?, entries, key_header: signed(&row, 1, 2)? }))
}

/// The account's row is locked first: whoever comes second sees that the log moved.
pub(super) async fn add_entry(
    c: &mut PgConnection,
    entry: &NewEntry,
    sign_in: Option<&NewSignIn>,
) -> Result<()> {
    let moved = sqlx::query(
        "UPDATE account SET log_length = $1, log_head = $2, key_header = $3, key_header_signature = $4
         WHERE id = $5 AND log_length = $6 AND log_head = $7",
    )
    .bind(sql(entry.index.saturating_add(1))?)
    .bind(&entry.hash.as_bytes()[..])
    .bind(&entry.key_header.bytes.0)
    .bind(&entry.key_header.signature.0[..])
    .bind(&entry.account.as_bytes()[..])
    .bind(sql(entry.index)?)
    .bind(&entry.previous.as_bytes()[..])
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    if moved.rows_affected() != 1 {
        return Err(StoreError::refused(Code::LogMoved, "the device log moved on; fetch it and try again"));
    }
    sqlx::query(
        "INSERT INTO device_log (account, position, bytes, signature, hash) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(&entry.account.as_bytes()[..])
    .bind(sql(entry.index)?)
    .bind(&entry.entry.bytes.0)
    .bind(&entry.entry.signature.0[..])
    .bind(&entry.hash.as_bytes()[..])
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    sqlx::query("INSERT INTO device (account, device, sign_key, enrolled_at) VALUES ($1, $2, $3, $4)")
        .bind(&entry.account.as_bytes()[..])
        .bind(&entry.device.as_bytes()[..])
        .bind(&entry.sign_key.as_bytes()[..])
        .bind(sql(entry.index)?)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    if let Some(new) = sign_in {
        recover(c, entry.account, new).await?;
    }
    Ok(())
}

async fn recover(c: &mut PgConnection, account: AccountId, new: &NewSignIn) -> Result<()> {
    sqlx::query("UPDATE account SET recovery = $1, credential = $2, opaque_record = $3 WHERE id = $4")
        .bind(&new.recovery.as_bytes()[..])
        .bind(&new.credential)
        .bind(&new.opaque_record)
        .bind(&account.as_bytes()[..])
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    // Whoever was half signed in with the old credentials starts again.
    for statement in
        ["DELETE FROM challenge WHERE account = $1", "DELETE FROM session WHERE account = $1 AND kind <> 2"]
    {
        sqlx::query(statement).bind(&account.as_bytes()[..]).execute(&mut *c).await.map_err(failed)?;
    }
    Ok(())
}
