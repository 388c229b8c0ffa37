//! Appending to the device log, and everything that changes with an entry.

use super::row::{bytes, digest, number, sql};
use super::{failed, usage};
use crate::error::StoreError;
use crate::store::{EntryEffect, NewEntry, Result, SignInChange};
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::Commit;
use lockstep_proto::device_log::Pin;
use lockstep_proto::id::{AccountId, DeviceId};
use sqlx::SqliteConnection;

/// Commits beyond a revocation's pins that are looked through; with more the pins are too old.
const LATE_COMMITS_MAX: i64 = 256;

pub(super) async fn add(c: &mut SqliteConnection, entry: NewEntry, sign_in: SignInChange) -> Result<()> {
    let account = entry.account;
    if let EntryEffect::Revoke { device, pins } = &entry.effect {
        check_pins(c, account, *device, pins).await?;
    }
    append(c, &entry).await?;
    if let EntryEffect::Revoke { device, .. } = &entry.effect {
        end_device(c, account, *device).await?;
    }
    set_sign_in(c, account, sign_in).await
}

/// Entries that an older copy lacks; their pins may lie beyond what the copy has.
pub(super) async fn heal(
    c: &mut SqliteConnection,
    entries: Vec<NewEntry>,
    recovery: lockstep_proto::Digest,
) -> Result<()> {
    for entry in entries {
        append(c, &entry).await?;
        if let EntryEffect::Revoke { device, .. } = &entry.effect {
            end_device(c, entry.account, *device).await?;
        }
        set_sign_in(c, entry.account, SignInChange { passphrase: None, recovery: Some(recovery) }).await?;
    }
    Ok(())
}

async fn append(c: &mut SqliteConnection, entry: &NewEntry) -> Result<()> {
    let moved = sqlx::query(
        "UPDATE account SET log_length = ?, log_head = ?, key_header = ?, key_header_signature = ?
         WHERE id = ? AND log_length = ? AND log_head = ?",
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
    sqlx::query("INSERT INTO device_log (account, position, bytes, signature, hash) VALUES (?, ?, ?, ?, ?)")
        .bind(&entry.account.as_bytes()[..])
        .bind(sql(entry.index)?)
        .bind(&entry.entry.bytes.0)
        .bind(&entry.entry.signature.0[..])
        .bind(&entry.hash.as_bytes()[..])
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    usage::count_log_entry(c, entry).await?;
    match &entry.effect {
        EntryEffect::Enrol { device, sign_key } => {
            sqlx::query("INSERT INTO device (account, device, sign_key, enrolled_at) VALUES (?, ?, ?, ?)")
                .bind(&entry.account.as_bytes()[..])
                .bind(&device.as_bytes()[..])
                .bind(&sign_key.as_bytes()[..])
                .bind(sql(entry.index)?)
                .execute(c)
                .await
                .map_err(failed)?;
        }
        EntryEffect::Revoke { device, pins } => revoke(c, entry, *device, pins).await?,
        EntryEffect::Keys => {}
    }
    Ok(())
}

async fn revoke(c: &mut SqliteConnection, entry: &NewEntry, device: DeviceId, pins: &[Pin]) -> Result<()> {
    sqlx::query("UPDATE device SET revoked_at = ? WHERE account = ? AND device = ?")
        .bind(sql(entry.index)?)
        .bind(&entry.account.as_bytes()[..])
        .bind(&device.as_bytes()[..])
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    for pin in pins {
        sqlx::query("INSERT INTO device_pin (account, device, vault, seq) VALUES (?, ?, ?, ?)")
            .bind(&entry.account.as_bytes()[..])
            .bind(&device.as_bytes()[..])
            .bind(&pin.vault.as_bytes()[..])
            .bind(sql(pin.seq.value())?)
            .execute(&mut *c)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

/// The pins are of this chain, of all vaults, and the device wrote nothing beyond them.
async fn check_pins(
    c: &mut SqliteConnection,
    account: AccountId,
    device: DeviceId,
    pins: &[Pin],
) -> Result<()> {
    let moved = |text: &str| StoreError::refused(Code::HeadMoved, text);
    let vaults = sqlx::query("SELECT id, vault FROM vault WHERE account = ?")
        .bind(&account.as_bytes()[..])
        .fetch_all(&mut *c)
        .await
        .map_err(failed)?;
    if vaults.len() != pins.len() {
        return Err(moved("the revocation does not pin exactly the account's vaults; sync and try again"));
    }
    for row in &vaults {
        let id = bytes(row, 1)?;
        let pin = pins.iter().find(|pin| pin.vault.as_bytes()[..] == id);
        let pin = pin.ok_or_else(|| moved("the revocation does not pin every vault; sync and try again"))?;
        let rows = sqlx::query(
            "SELECT seq, hash, bytes FROM commit_header WHERE vault = ? AND seq >= ? ORDER BY seq LIMIT ?",
        )
        .bind(i64::try_from(number(row, 0)?).unwrap_or(i64::MAX))
        .bind(sql(pin.seq.value())?)
        .bind(LATE_COMMITS_MAX)
        .fetch_all(&mut *c)
        .await
        .map_err(failed)?;
        let Some((pinned, later)) = rows.split_first() else {
            return Err(moved("the revocation pins a commit that is not here"));
        };
        if number(pinned, 0)? != pin.seq.value() || digest(pinned, 1)? != pin.head {
            return Err(moved("the revocation pins a commit that is not here"));
        }
        let late = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= LATE_COMMITS_MAX;
        let wrote = |row| -> Result<bool> {
            let commit = Commit::decode(&bytes(row, 2)?);
            Ok(commit.is_ok_and(|commit| commit.device == device))
        };
        let mut wrote_later = late;
        for row in later {
            wrote_later |= wrote(row)?;
        }
        if wrote_later {
            return Err(moved(
                "the device wrote more since the heads that the revocation pins; sync and try again",
            ));
        }
    }
    Ok(())
}

/// Ends a device's sessions and what it began.
async fn end_device(c: &mut SqliteConnection, account: AccountId, device: DeviceId) -> Result<()> {
    for statement in [
        "DELETE FROM session WHERE account = ? AND device = ?",
        "DELETE FROM challenge WHERE account = ? AND data = ?",
    ] {
        sqlx::query(statement)
            .bind(&account.as_bytes()[..])
            .bind(&device.as_bytes()[..])
            .execute(&mut *c)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

async fn set_sign_in(c: &mut SqliteConnection, account: AccountId, change: SignInChange) -> Result<()> {
    if let Some((credential, record)) = &change.passphrase {
        sqlx::query("UPDATE account SET credential = ?, opaque_record = ? WHERE id = ?")
            .bind(credential)
            .bind(record)
            .bind(&account.as_bytes()[..])
            .execute(&mut *c)
            .await
            .map_err(failed)?;
    }
    if let Some(recovery) = &change.recovery {
        sqlx::query("UPDATE account SET recovery = ? WHERE id = ?")
            .bind(&recovery.as_bytes()[..])
            .bind(&account.as_bytes()[..])
            .execute(&mut *c)
            .await
            .map_err(failed)?;
    }
    if change.passphrase.is_none() && change.recovery.is_none() {
        return Ok(());
    }
    // Whoever was half signed in with the old credentials starts again.
    for statement in
        ["DELETE FROM challenge WHERE account = ?", "DELETE FROM session WHERE account = ? AND kind <> 2"]
    {
        sqlx::query(statement).bind(&account.as_bytes()[..]).execute(&mut *c).await.map_err(failed)?;
    }
    Ok(())
}
