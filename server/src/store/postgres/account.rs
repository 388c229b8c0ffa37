//! Accounts, devices, challenges. Random ids make it safe to store the same row twice.

use super::row::{bytes, digest, id16, number, signed, sql};
use super::{entry, failed, usage, vault};
use crate::error::StoreError;
use crate::store::{Challenge, NewAccount, Result, SignIn, SignInChange};
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
    let row =
        sqlx::query("SELECT sign_key FROM device WHERE account = $1 AND device = $2 AND revoked_at IS NULL")
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
    entry::add(c, entry, &SignInChange::default()).await?;
    vault::create(c, entry.account, &account.keyring, None).await
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

/// Removes everything of an account. Whoever writes for it waits for its row, and finds none.
pub(super) async fn delete(c: &mut PgConnection, account: AccountId) -> Result<()> {
    usage::lock_account(c, &account.as_bytes()[..]).await?;
    for key in vault::keys(c, account).await? {
        vault::delete(c, key).await?;
    }
    for statement in [
        "UPDATE segment SET owner = NULL, counted_bytes = 0 WHERE owner = $1",
        "DELETE FROM device_pin WHERE account = $1",
        "DELETE FROM device WHERE account = $1",
        "DELETE FROM device_log WHERE account = $1",
        "DELETE FROM session WHERE account = $1",
        "DELETE FROM challenge WHERE account = $1",
        "DELETE FROM account WHERE id = $1",
    ] {
        sqlx::query(statement).bind(&account.as_bytes()[..]).execute(&mut *c).await.map_err(failed)?;
    }
    Ok(())
}
