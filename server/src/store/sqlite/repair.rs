//! A repair that goes back: which state holds afterwards, and what is written for it.

use super::failed;
use super::row::{bytes, digest, id16, number, signed, sql};
use crate::domain::commit::Live;
use crate::domain::quota::signed_bytes;
use crate::error::StoreError;
use crate::store::{Result, VaultKey};
use lockstep_proto::Digest;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::chain::Tip;
use lockstep_proto::commit::{Change, Changes, Commit};
use lockstep_proto::id::{RecordId, Revision, Seq};
use lockstep_proto::state::StateDigest;
use lockstep_proto::vault_log::VaultLogEntry;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;
use std::collections::BTreeSet;

const DAMAGED: StoreError = StoreError::Corrupt("a commit that a repair goes back to can not be read");

/// A vault as it was after an earlier commit, but at the place where its chain ends.
pub(super) async fn at(
    c: &mut SqliteConnection,
    key: VaultKey,
    to: Seq,
    (end, mut state, mut records): (Tip, StateDigest, u64),
) -> Result<(Tip, StateDigest, u64)> {
    let row = sqlx::query("SELECT bytes FROM commit_header WHERE vault = ? AND seq = ?")
        .bind(key.0)
        .bind(sql(to.value())?)
        .fetch_optional(&mut *c)
        .await
        .map_err(failed)?;
    let commit = Commit::decode(&bytes(&row.ok_or(DAMAGED)?, 0)?).map_err(|_| DAMAGED)?;
    let row = sqlx::query("SELECT bytes FROM vault_log WHERE vault = ? AND position = ?")
        .bind(key.0)
        .bind(sql(commit.vault_log_index)?)
        .fetch_optional(&mut *c)
        .await
        .map_err(failed)?;
    let entry = VaultLogEntry::decode(&bytes(&row.ok_or(DAMAGED)?, 0)?).map_err(|_| DAMAGED)?;
    for (record, live) in gone(c, key, to).await? {
        state.remove(record, live.revision, live.digest, live.seq);
        records = records.saturating_sub(1);
    }
    for (record, live) in back(c, key, to).await? {
        state.add(record, live.revision, live.digest, live.seq);
        records = records.saturating_add(1);
    }
    let tip = Tip {
        epoch: commit.epoch,
        device_log_index: commit.device_log_index,
        vault_log_index: commit.vault_log_index,
        vault_log_head: commit.vault_log_head,
        rotated_at: entry.device_log_index,
        state: commit.state,
        ..end
    };
    Ok((tip, state, records))
}

/// Versions that are the newest now and do not count afterwards.
async fn gone(c: &mut SqliteConnection, key: VaultKey, to: Seq) -> Result<Vec<(RecordId, Live)>> {
    let rows = sqlx::query("SELECT record, revision, digest, seq FROM live WHERE vault = ? AND seq > ?")
        .bind(key.0)
        .bind(sql(to.value())?)
        .fetch_all(c)
        .await
        .map_err(failed)?;
    rows.iter().map(version).collect()
}

/// Versions that were replaced since, and count again.
async fn back(c: &mut SqliteConnection, key: VaultKey, to: Seq) -> Result<Vec<(RecordId, Live)>> {
    let rows = sqlx::query(
        "SELECT record, revision, digest, seq FROM version
         WHERE vault = ?1 AND seq <= ?2 AND replaced > ?2 AND abandoned IS NULL",
    )
    .bind(key.0)
    .bind(sql(to.value())?)
    .fetch_all(c)
    .await
    .map_err(failed)?;
    rows.iter().map(version).collect()
}

fn version(row: &SqliteRow) -> Result<(RecordId, Live)> {
    let digest: Digest = digest(row, 2)?;
    let live = Live { revision: Revision::new(number(row, 1)?), digest, seq: Seq::new(number(row, 3)?) };
    Ok((RecordId::from_bytes(id16(row, 0)?), live))
}

/// Makes what was after an earlier commit the newest again; `by` is the repair. Gives the bytes that count no more:
/// entries of the vault log. What is abandoned stays, and counts.
pub(super) async fn write(
    c: &mut SqliteConnection,
    key: VaultKey,
    to: Seq,
    by: Seq,
    vault_log_index: u64,
) -> Result<u64> {
    let touched = touched_pins(c, key, to, by).await?;
    restore_pins(c, key, to, touched).await?;
    let (to, by) = (sql(to.value())?, sql(by.value())?);
    for statement in [
        "UPDATE version SET abandoned = ?3 WHERE vault = ?1 AND seq > ?2 AND abandoned IS NULL",
        "UPDATE version SET replaced = NULL
         WHERE vault = ?1 AND seq <= ?2 AND replaced > ?2 AND abandoned IS NULL AND ?3 > 0",
        "DELETE FROM live WHERE vault = ?1 AND seq > ?2 AND ?3 > 0",
        "INSERT INTO live (vault, record, revision, digest, seq)
         SELECT vault, record, revision, digest, seq FROM version
         WHERE vault = ?1 AND seq <= ?2 AND replaced IS NULL AND abandoned IS NULL AND ?3 > 0
         ON CONFLICT (vault, record) DO NOTHING",
        "DELETE FROM pin WHERE vault = ?1 AND seq > ?2 AND ?3 > 0",
    ] {
        sqlx::query(statement).bind(key.0).bind(to).bind(by).execute(&mut *c).await.map_err(failed)?;
    }
    let rows =
        sqlx::query("DELETE FROM vault_log WHERE vault = ? AND position > ? RETURNING bytes, signature")
            .bind(key.0)
            .bind(sql(vault_log_index)?)
            .fetch_all(c)
            .await
            .map_err(failed)?;
    let mut freed = 0_u64;
    for row in &rows {
        freed = freed.saturating_add(signed_bytes(&signed(row, 0, 1)?));
    }
    Ok(freed)
}

async fn changes(c: &mut SqliteConnection, key: VaultKey, seq: Seq) -> Result<Option<Changes>> {
    let row = sqlx::query("SELECT changes FROM commit_header WHERE vault = ? AND seq = ?")
        .bind(key.0)
        .bind(sql(seq.value())?)
        .fetch_optional(c)
        .await
        .map_err(failed)?;
    let Some(row) = row else { return Ok(None) };
    let bytes = bytes(&row, 0)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    Changes::decode(&bytes).map(Some).map_err(|_| DAMAGED)
}

/// Earlier commits that the commits between pin or unpin.
async fn touched_pins(c: &mut SqliteConnection, key: VaultKey, to: Seq, by: Seq) -> Result<BTreeSet<Seq>> {
    let mut touched = BTreeSet::new();
    let mut seq = to.next();
    while seq < by {
        let changes = changes(c, key, seq).await?;
        touched.extend(changes.iter().flat_map(|changes| &changes.0).filter_map(|change| match change {
            Change::Pin(pinned) | Change::Unpin(pinned) if *pinned <= to => Some(*pinned),
            _ => None,
        }));
        seq = seq.next();
    }
    Ok(touched)
}

/// Puts pins back to what they were after a commit: the last word that counts up to it.
async fn restore_pins(
    c: &mut SqliteConnection,
    key: VaultKey,
    to: Seq,
    mut touched: BTreeSet<Seq>,
) -> Result<()> {
    for seq in &touched {
        set_pin(c, "DELETE FROM pin WHERE vault = ? AND seq = ?", key, *seq).await?;
    }
    let mut place = Some(to);
    while let Some(seq) = place.filter(|_| !touched.is_empty()) {
        let changes = changes(c, key, seq).await?;
        for change in changes.iter().flat_map(|changes| changes.0.iter().rev()) {
            match change {
                Change::Pin(pinned) if touched.remove(pinned) => {
                    let statement = "INSERT INTO pin (vault, seq) VALUES (?, ?) ON CONFLICT DO NOTHING";
                    set_pin(c, statement, key, *pinned).await?;
                }
                Change::Unpin(pinned) => {
                    touched.remove(pinned);
                }
                _ => {}
            }
        }
        // What an earlier repair abandoned has no say.
        place = changes.and_then(|changes| changes.goes_back_to()).or_else(|| seq.previous());
    }
    Ok(())
}

async fn set_pin(c: &mut SqliteConnection, statement: &'static str, key: VaultKey, seq: Seq) -> Result<()> {
    sqlx::query(statement).bind(key.0).bind(sql(seq.value())?).execute(c).await.map_err(failed)?;
    Ok(())
}
