//! What accounts and vaults use: kept up to date within the transactions that they count, and counted anew.

use super::failed;
use super::row::{id16, number, sql};
use crate::domain::quota::{
    self, Allowance, Charge, DefaultQuota, QuotaSetting, ROW_BYTES, Standing, VAULT_BYTES, signed_bytes,
};
use crate::store::{EntryEffect, NewEntry, Result, UsageFault, VaultKey, no_vault};
use lockstep_proto::api::usage::Usage;
use lockstep_proto::id::{AccountId, VaultId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection, SqlitePool};

const UNLIMITED: i64 = -1;

fn setting(row: &SqliteRow, index: usize) -> Result<QuotaSetting> {
    Ok(QuotaSetting::from_column(row.try_get(index).map_err(failed)?))
}

/// Counts what a write to a vault adds and frees, in its transaction; refused, the caller's work is undone.
pub(super) async fn charge(
    c: &mut SqliteConnection,
    key: VaultKey,
    default: DefaultQuota,
    charge: Charge,
    allowance: Allowance,
) -> Result<()> {
    let row = sqlx::query(
        "SELECT v.used_bytes, v.objects, v.is_keyring, a.used_bytes, a.spared_bytes, a.quota_bytes, a.id
         FROM vault v JOIN account a ON a.id = v.account WHERE v.id = ?",
    )
    .bind(key.0)
    .fetch_optional(&mut *c)
    .await
    .map_err(failed)?
    .ok_or_else(no_vault)?;
    let is_keyring = number(&row, 2)? == 1;
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
    sqlx::query("UPDATE vault SET used_bytes = ?, objects = ? WHERE id = ?")
        .bind(sql(used)?)
        .bind(sql(objects)?)
        .bind(key.0)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    write(c, account, after).await
}

async fn write(c: &mut SqliteConnection, account: [u8; 16], standing: Standing) -> Result<()> {
    sqlx::query("UPDATE account SET used_bytes = ?, spared_bytes = ? WHERE id = ?")
        .bind(sql(standing.used)?)
        .bind(sql(standing.spared)?)
        .bind(&account[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

/// Frees what an account used for a vault that was deleted.
pub(super) async fn free(c: &mut SqliteConnection, account: &[u8], bytes: u64) -> Result<()> {
    sqlx::query("UPDATE account SET used_bytes = max(0, used_bytes - ?) WHERE id = ?")
        .bind(sql(bytes)?)
        .bind(account)
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

/// Counts an entry of the device log; never refused, because devices and credentials change at any time. A revocation
/// gives part of the reserve back: what follows it is written, whatever the device did before.
pub(super) async fn count_log_entry(c: &mut SqliteConnection, entry: &NewEntry) -> Result<()> {
    let spared_max = quota::spared_max(matches!(entry.effect, EntryEffect::Revoke { .. }));
    sqlx::query(
        "UPDATE account SET used_bytes = used_bytes + ?, spared_bytes = min(spared_bytes, ?) WHERE id = ?",
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
    pool: &SqlitePool,
    account: AccountId,
    default: DefaultQuota,
) -> Result<Option<Usage>> {
    let row = sqlx::query(
        "SELECT a.used_bytes, a.quota_bytes, coalesce(sum(v.objects), 0), coalesce(sum(v.records), 0)
         FROM account a LEFT JOIN vault v ON v.account = a.id WHERE a.id = ? GROUP BY a.id",
    )
    .bind(&account.as_bytes()[..])
    .fetch_optional(pool)
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

pub(super) async fn quota(pool: &SqlitePool, account: AccountId) -> Result<Option<QuotaSetting>> {
    let row = sqlx::query("SELECT quota_bytes FROM account WHERE id = ?")
        .bind(&account.as_bytes()[..])
        .fetch_optional(pool)
        .await
        .map_err(failed)?;
    row.map(|row| setting(&row, 0)).transpose()
}

pub(super) async fn set_quota(
    c: &mut SqliteConnection,
    account: AccountId,
    quota: QuotaSetting,
) -> Result<bool> {
    let value = match quota {
        QuotaSetting::Default => None,
        QuotaSetting::Unlimited => Some(UNLIMITED),
        QuotaSetting::Bytes(bytes) => Some(sql(bytes)?),
    };
    let done = sqlx::query("UPDATE account SET quota_bytes = ? WHERE id = ?")
        .bind(value)
        .bind(&account.as_bytes()[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(done.rows_affected() == 1)
}

/// Everything that counts, counted anew in the writer's transaction.
pub(super) async fn check(c: &mut SqliteConnection, mend: bool) -> Result<Vec<UsageFault>> {
    let mut faults = Vec::new();
    let accounts =
        sqlx::query("SELECT id, name, used_bytes FROM account ORDER BY name").fetch_all(&mut *c).await;
    for row in accounts.map_err(failed)? {
        let account = id16(&row, 0)?;
        let name: String = row.try_get(1).map_err(failed)?;
        let mut counted = own_bytes(c, account).await?;
        for (key, vault, kept) in vaults(c, account).await? {
            let found = count(c, key).await?;
            counted = counted.saturating_add(found.0);
            if found != kept {
                faults.push(UsageFault { name: name.clone(), vault: Some(vault), kept, counted: found });
                if mend {
                    mend_vault(c, key, found).await?;
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
    }
    Ok(faults)
}

async fn vaults(c: &mut SqliteConnection, account: [u8; 16]) -> Result<Vec<(VaultKey, VaultId, (u64, u64))>> {
    let rows = sqlx::query("SELECT id, vault, used_bytes, objects FROM vault WHERE account = ? ORDER BY id")
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
async fn own_bytes(c: &mut SqliteConnection, account: [u8; 16]) -> Result<u64> {
    let row = sqlx::query(
        "SELECT count(*), coalesce(sum(length(bytes) + length(signature)), 0),
                (SELECT coalesce(sum(counted_bytes), 0) FROM segment WHERE owner = ?1)
         FROM device_log WHERE account = ?1",
    )
    .bind(&account[..])
    .fetch_one(c)
    .await
    .map_err(failed)?;
    let log = number(&row, 0)?.saturating_mul(ROW_BYTES).saturating_add(number(&row, 1)?);
    Ok(log.saturating_add(number(&row, 2)?))
}

/// Bytes that count and objects of a vault, from its rows.
async fn count(c: &mut SqliteConnection, key: VaultKey) -> Result<(u64, u64)> {
    let mut bytes = VAULT_BYTES;
    let mut rows = 0;
    for statement in [
        "SELECT count(*), coalesce(sum(length(bytes) + length(signature)), 0) FROM vault_log WHERE vault = ?",
        "SELECT count(*), coalesce(sum(length(bytes) + length(signature) + length(changes)), 0)
         FROM commit_header WHERE vault = ?",
        "SELECT count(*), coalesce(sum(length(envelope)), 0) FROM version WHERE vault = ?",
        "SELECT count(*), coalesce(sum(length(envelope)), 0) FROM staged WHERE vault = ?",
        "SELECT 0, coalesce(sum(counted_bytes), 0) FROM segment WHERE vault = ?",
        "SELECT count(*), coalesce(sum(reserved_bytes), 0) FROM object WHERE vault = ?",
    ] {
        let row = sqlx::query(statement).bind(key.0).fetch_one(&mut *c).await.map_err(failed)?;
        rows = number(&row, 0)?;
        bytes = bytes.saturating_add(rows.saturating_mul(ROW_BYTES)).saturating_add(number(&row, 1)?);
    }
    // The last statement counts objects.
    Ok((bytes, rows))
}

async fn mend_vault(c: &mut SqliteConnection, key: VaultKey, (bytes, objects): (u64, u64)) -> Result<()> {
    sqlx::query("UPDATE vault SET used_bytes = ?, objects = ? WHERE id = ?")
        .bind(sql(bytes)?)
        .bind(sql(objects)?)
        .bind(key.0)
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}
