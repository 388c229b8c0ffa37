//! Accounts, devices, sessions, challenges.

use super::row::{bytes, digest, id16, number, signed, sql};
use super::{entry, failed, vault};
use crate::error::StoreError;
use crate::store::{Challenge, NewAccount, Result, SignIn, SignInChange};
use lockstep_proto::Digest;
use lockstep_proto::api::account::Devices;
use lockstep_proto::api::problem::Code;
use lockstep_proto::id::{AccountId, DeviceId};
use sqlx::{SqliteConnection, SqlitePool};

pub(super) async fn secret(c: &mut SqliteConnection, name: &'static str, fresh: Vec<u8>) -> Result<Vec<u8>> {
    sqlx::query("INSERT INTO secret (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING")
        .bind(name)
        .bind(fresh)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    let row = sqlx::query("SELECT value FROM secret WHERE name = ?")
        .bind(name)
        .fetch_one(c)
        .await
        .map_err(failed)?;
    bytes(&row, 0)
}

pub(super) async fn put_challenge(c: &mut SqliteConnection, challenge: Challenge) -> Result<()> {
    sqlx::query("INSERT INTO challenge (id, kind, account, data, expires_utc) VALUES (?, ?, ?, ?, ?)")
        .bind(&challenge.id.as_bytes()[..])
        .bind(i64::from(challenge.kind))
        .bind(&challenge.account.as_bytes()[..])
        .bind(challenge.data)
        .bind(sql(challenge.expires_utc)?)
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

pub(super) async fn take_challenge(
    c: &mut SqliteConnection,
    id: Digest,
    kind: u8,
    now_utc: u64,
) -> Result<Option<Challenge>> {
    let row =
        sqlx::query("DELETE FROM challenge WHERE id = ? AND kind = ? RETURNING account, data, expires_utc")
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

pub(super) async fn put_invite(c: &mut SqliteConnection, code_hash: Digest, expires_utc: u64) -> Result<()> {
    sqlx::query("INSERT INTO invite (code_hash, expires_utc) VALUES (?, ?)")
        .bind(&code_hash.as_bytes()[..])
        .bind(sql(expires_utc)?)
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

pub(super) async fn sign_in(pool: &SqlitePool, name: &str) -> Result<Option<SignIn>> {
    let row = sqlx::query("SELECT id, credential, opaque_record, recovery FROM account WHERE name = ?")
        .bind(name)
        .fetch_optional(pool)
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

pub(super) async fn recovery_key(pool: &SqlitePool, account: AccountId) -> Result<Option<Digest>> {
    let row = sqlx::query("SELECT recovery FROM account WHERE id = ?")
        .bind(&account.as_bytes()[..])
        .fetch_optional(pool)
        .await
        .map_err(failed)?;
    row.map(|row| digest(&row, 0)).transpose()
}

pub(super) async fn device_key(
    pool: &SqlitePool,
    account: AccountId,
    device: DeviceId,
) -> Result<Option<Digest>> {
    let row =
        sqlx::query("SELECT sign_key FROM device WHERE account = ? AND device = ? AND revoked_at IS NULL")
            .bind(&account.as_bytes()[..])
            .bind(&device.as_bytes()[..])
            .fetch_optional(pool)
            .await
            .map_err(failed)?;
    row.map(|row| digest(&row, 0)).transpose()
}

pub(super) async fn register(c: &mut SqliteConnection, account: NewAccount) -> Result<()> {
    if let Some(invite) = account.invite {
        let used = sqlx::query("DELETE FROM invite WHERE code_hash = ? AND expires_utc > ?")
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
    let entry = account.entry;
    let result = sqlx::query(
        "INSERT INTO account (id, name, recovery, credential, opaque_record, key_header, key_header_signature,
                              log_length, log_head, created_utc)
         VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
    )
    .bind(&entry.account.as_bytes()[..])
    .bind(&account.name)
    .bind(&account.sign_in.recovery.as_bytes()[..])
    .bind(account.sign_in.credential)
    .bind(account.sign_in.opaque_record)
    .bind(&entry.key_header.bytes.0)
    .bind(&entry.key_header.signature.0[..])
    .bind(&Digest::ZERO.as_bytes()[..])
    .bind(sql(account.now_utc)?)
    .execute(&mut *c)
    .await;
    if let Err(error) = result {
        let taken = error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation);
        return Err(if taken {
            StoreError::refused(Code::NameTaken, "this account name is taken; choose another one")
        } else {
            failed(error)
        });
    }
    let id = entry.account;
    entry::add(c, entry, SignInChange::default()).await?;
    vault::create(c, id, account.keyring, None).await
}

pub(super) async fn devices(
    c: &mut SqliteConnection,
    account: AccountId,
    from: u64,
    limit: usize,
) -> Result<Option<Devices>> {
    let row = sqlx::query("SELECT log_length, key_header, key_header_signature FROM account WHERE id = ?")
        .bind(&account.as_bytes()[..])
        .fetch_optional(&mut *c)
        .await
        .map_err(failed)?;
    let Some(row) = row else { return Ok(None) };
    let rows = sqlx::query(
        "SELECT bytes, signature FROM device_log WHERE account = ? AND position >= ? ORDER BY position LIMIT ?",
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

/// Removes everything of an account.
pub(super) async fn delete(c: &mut SqliteConnection, account: AccountId) -> Result<()> {
    for key in vault::keys(c, account).await? {
        vault::delete(c, key).await?;
    }
    for statement in [
        "UPDATE segment SET owner = NULL, counted_bytes = 0 WHERE owner = ?",
        "DELETE FROM device_pin WHERE account = ?",
        "DELETE FROM device WHERE account = ?",
        "DELETE FROM device_log WHERE account = ?",
        "DELETE FROM session WHERE account = ?",
        "DELETE FROM challenge WHERE account = ?",
        "DELETE FROM account WHERE id = ?",
    ] {
        sqlx::query(statement).bind(&account.as_bytes()[..]).execute(&mut *c).await.map_err(failed)?;
    }
    Ok(())
}
