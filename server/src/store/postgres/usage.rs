//! What accounts and vaults use: kept up to date within the transactions that they count, and counted anew.
//!
//! Whoever writes for an account locks its row first, before any other row of it: so numbers are exact, the quota is
//! met by one write after the other, and locks are taken in one order.

use super::failed;
use super::row::{bytes, id16, number, sql};
use crate::domain::quota::{
    self, Allowance, Charge, DefaultQuota, QuotaSetting, ROW_BYTES, Standing, VAULT_BYTES, signed_bytes,
};
use crate::store::{EntryEffect, NewEntry, Result, UsageFault, VaultKey, no_vault};
use lockstep_proto::api::usage::Usage;
use lockstep_proto::id::{AccountId, VaultId};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

const UNLIMITED: i64 = -1;

fn setting(row: &PgRow, index: usize) -> Result<QuotaSetting> {
    Ok(QuotaSetting::from_column(row.try_get(index).map_err(failed)?))
}

/// Locks the account of a vault: nobody else writes for it until the transaction ends.
pub(super) async fn lock(c: &mut PgConnection, key: VaultKey) -> Result<()> {
    sqlx::query(
        "SELECT 1 FROM account WHERE id = (SELECT account FROM vault WHERE id = $1) FOR NO KEY UPDATE",
    )
    .bind(key.0)
    .fetch_optional(c)
    .await
    .map_err(failed)?
    .ok_or_else(no_vault)?;
    Ok(())
}

/// Locks an account; false if there is none.
pub(super) async fn lock_account(c: &mut PgConnection, account: &[u8]) -> Result<bool> {
    let row = sqlx::query("SELECT 1 FROM account WHERE id = $1 FOR NO KEY UPDATE")
        .bind(account)
        .fetch_optional(c)
        .await
        .map_err(failed)?;
    Ok(row.is_some())
}

/// Counts what a write to a vault adds and frees, in its transaction, which has locked the account; refused, the
/// caller's work is undone.
pub(super) async fn charge(
    c: &mut PgConnection,
    key: VaultKey,
    default: DefaultQuota,
    charge: Charge,
    allowance: Allowance,
) -> Result<()> {
    let row = sqlx::query(
        "SELECT v.used_bytes, v.objects, v.is_keyring, a.used_bytes, a.spared_bytes, a.quota_bytes, a.id
         FROM vault v JOIN account a ON a.id = v.account WHERE v.id = $1",
    )
    .bind(key.0)
    .fetch_optional(&mut *c)
    .await
    .map_err(failed)?
    .ok_or_else(no_vault)?;
    let is_keyring: bool = row.try_get(2).map_err(failed)?;
    let allowance = if is_keyring && allowance == Allowance::Quota { Allowance::Reserve } else { allowance };
    let before = Standing {
        used: number(&row, 3)?,
        spared: number(&row, 4)?,
        quota: setting(&row, 5)?.bytes(default),
    };
    let account = id16(&row, 6)?;
    let after = quota::charge(before, charge.added, charge.freed, allowance)?;
    let used = number(&row, 0)?.saturating_add(charge.added).saturating_sub(charge.freed);
    let objects = number(&row, 1)?.saturating_add(charge.objects_added).saturating_sub(charge.objects_freed);
    write_vault(c, key, (used, objects)).await?;
    write(c, account, after).await
}

async fn write(c: &mut PgConnection, account: [u8; 16], standing: Standing) -> Result<()> {
    sqlx::query("UPDATE account SET used_bytes = $1, spared_bytes = $2 WHERE id = $3")
        .bind(sql(standing.used)?)
        .bind(sql(standing.spared)?)
        .bind(&account[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

async fn write_vault(c: &mut PgConnection, key: VaultKey, (bytes, objects): (u64, u64)) -> Result<()> {
    sqlx::query("UPDATE vault SET used_bytes = $1, objects = $2 WHERE id = $3")
        .bind(sql(bytes)?)
        .bind(sql(objects)?)
        .bind(key.0)
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

/// Frees what an account used for a vault that was deleted.
pub(super) async fn free(c: &mut PgConnection, account: &[u8], bytes: u64) -> Result<()> {
    sqlx::query("UPDATE account SET used_bytes = greatest(0, used_bytes - $1) WHERE id = $2")
        .bind(sql(bytes)?)
        .bind(account)
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

/// Counts an entry of the device log; never refused, because devices and credentials change at any time. A revocation
/// gives part of the reserve back: what follows it is written, whatever the device did before.
pub(super) async fn count_log_entry(c: &mut PgConnection, entry: &NewEntry) -> Result<()> {
    let spared_max = quota::spared_max(matches!(entry.effect, EntryEffect::Revoke { .. }));
    sqlx::query(
        "UPDATE account SET used_bytes = used_bytes + $1, spared_bytes = least(spared_bytes, $2) WHERE id = $3",
    )
        .bind(sql(signed_bytes(&entry.entry))?)
        .bind(sql(spared_max)?)
        .bind(&entry.account.as_bytes()[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

pub(super) async fn of(
    c: &mut PgConnection,
    account: AccountId,
    default: DefaultQuota,
) -> Result<Option<Usage>> {
    let row = sqlx::query(
        "SELECT a.used_bytes, a.quota_bytes, coalesce(sum(v.objects), 0)::bigint,
                coalesce(sum(v.records), 0)::bigint
         FROM account a LEFT JOIN vault v ON v.account = a.id WHERE a.id = $1 GROUP BY a.id",
    )
    .bind(&account.as_bytes()[..])
    .fetch_optional(c)
    .await
    .map_err(failed)?;
    row.map(|row| {
        Ok(Usage {
            used: number(&row, 0)?,
            quota: setting(&row, 1)?.bytes(default),
            objects: number(&row, 2)?,
            records: number(&row, 3)?,
        })
    })
    .transpose()
}

pub(super) async fn quota(c: &mut PgConnection, account: AccountId) -> Result<Option<QuotaSetting>> {
    let row = sqlx::query("SELECT quota_bytes FROM account WHERE id = $1")
        .bind(&account.as_bytes()[..])
        .fetch_optional(c)
        .await
        .map_err(failed)?;
    row.map(|row| setting(&row, 0)).transpose()
}

pub(super) async fn set_quota(c: &mut PgConnection, account: AccountId, quota: QuotaSetting) -> Result<bool> {
    let value = match quota {
        QuotaSetting::Default => None,
        QuotaSetting::Unlimited => Some(UNLIMITED),
        QuotaSetting::Bytes(bytes) => Some(sql(bytes)?),
    };
    let done = sqlx::query("UPDATE account SET quota_bytes = $1 WHERE id = $2")
        .bind(value)
        .bind(&account.as_bytes()[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(done.rows_affected() == 1)
}

/// All accounts.
pub(super) async fn accounts(c: &mut PgConnection) -> Result<Vec<Vec<u8>>> {
    let rows = sqlx::query("SELECT id FROM account ORDER BY name").fetch_all(c).await.map_err(failed)?;
    rows.iter().map(|row| bytes(row, 0)).collect()
}

/// Everything of one account that counts, counted anew while nobody writes for it.
pub(super) async fn check(c: &mut PgConnection, account: &[u8], mend: bool) -> Result<Vec<UsageFault>> {
    let mut faults = Vec::new();
    if !lock_account(c, account).await? {
        return Ok(faults);
    }
    let row = sqlx::query("SELECT id, name, used_bytes FROM account WHERE id = $1")
        .bind(account)
        .fetch_one(&mut *c)
        .await
        .map_err(failed)?;
    let account = id16(&row, 0)?;
    let name: String = row.try_get(1).map_err(failed)?;
    let mut counted = own_bytes(c, account).await?;
    for (key, vault, kept) in vaults(c, account).await? {
        let found = count(c, key).await?;
        counted = counted.saturating_add(found.0);
        if found != kept {
            faults.push(UsageFault { name: name.clone(), vault: Some(vault), kept, counted: found });
            if mend {
                write_vault(c, key, found).await?;
            }
        }
    }
    let kept = number(&row, 2)?;
    if kept != counted {
        faults.push(UsageFault { name, vault: None, kept: (kept, 0), counted: (counted, 0) });
        if mend {
            write(c, account, Standing { used: counted, spared: 0, quota: None }).await?;
        }
    }
    Ok(faults)
}

async fn vaults(c: &mut PgConnection, account: [u8; 16]) -> Result<Vec<(VaultKey, VaultId, (u64, u64))>> {
    let rows = sqlx::query("SELECT id, vault, used_bytes, objects FROM vault WHERE account = $1 ORDER BY id")
        .bind(&account[..])
        .fetch_all(c)
        .await
        .map_err(failed)?;
    rows.iter()
        .map(|row| {
            let key = VaultKey(row.try_get(0).map_err(failed)?);
            Ok((key, VaultId::from_bytes(id16(row, 1)?), (number(row, 2)?, number(row, 3)?)))
        })
        .collect()
}

/// What an account counts beside its vaults: the device log, and segments of vaults that were deleted.
async fn own_bytes(c: &mut PgConnection, account: [u8; 16]) -> Result<u64> {
    let row = sqlx::query(
        "SELECT count(*), coalesce(sum(octet_length(bytes) + octet_length(signature)), 0)::bigint,
                (SELECT coalesce(sum(counted_bytes), 0)::bigint FROM segment WHERE owner = $1)
         FROM device_log WHERE account = $1",
    )
    .bind(&account[..])
    .fetch_one(c)
    .await
    .map_err(failed)?;
    let log = number(&row, 0)?.saturating_mul(ROW_BYTES).saturating_add(number(&row, 1)?);
    Ok(log.saturating_add(number(&row, 2)?))
}

/// Bytes that count and objects of a vault, from its rows.
async fn count(c: &mut PgConnection, key: VaultKey) -> Result<(u64, u64)> {
    let mut bytes = VAULT_BYTES;
    let mut rows = 0;
    for statement in [
        "SELECT count(*), coalesce(sum(octet_length(bytes) + octet_length(signature)), 0)::bigint
         FROM vault_log WHERE vault = $1",
        "SELECT count(*), coalesce(sum(octet_length(bytes) + octet_length(signature) + octet_length(changes)),
                0)::bigint
         FROM commit_header WHERE vault = $1",
        "SELECT count(*), coalesce(sum(octet_length(envelope)), 0)::bigint FROM version WHERE vault = $1",
        "SELECT count(*), coalesce(sum(octet_length(envelope)), 0)::bigint FROM staged WHERE vault = $1",
        "SELECT 0::bigint, coalesce(sum(counted_bytes), 0)::bigint FROM segment WHERE vault = $1",
        "SELECT count(*), coalesce(sum(reserved_bytes), 0)::bigint FROM object WHERE vault = $1",
    ] {
        let row = sqlx::query(statement).bind(key.0).fetch_one(&mut *c).await.map_err(failed)?;
        rows = number(&row, 0)?;
        bytes = bytes.saturating_add(rows.saturating_mul(ROW_BYTES)).saturating_add(number(&row, 1)?);
    }
    // The last statement counts objects.
    Ok((bytes, rows))
}
