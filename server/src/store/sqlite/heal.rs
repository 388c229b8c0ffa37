//! What a healed store lacks of the commits that it was given back: envelopes and objects that come later.

use super::row::sql;
use super::{failed, usage};
use crate::domain::commit::PreparedCommit;
use crate::domain::quota::{Charge, DefaultQuota, allowance_of, length};
use crate::store::{Result, VaultKey};
use lockstep_proto::Digest;
use lockstep_proto::id::BlobId;
use sqlx::SqliteConnection;

/// Envelopes that were not at hand when a commit was given back, and are now.
pub(super) async fn fill(
    c: &mut SqliteConnection,
    key: VaultKey,
    quota: DefaultQuota,
    push: &PreparedCommit,
) -> Result<()> {
    let mut added = 0_u64;
    for change in &push.changes.0 {
        let Some((record, _, digest)) = change.version() else { continue };
        let Some(envelope) = push.envelopes.get(&digest) else { continue };
        let filled = sqlx::query(
            "UPDATE version SET envelope = ? WHERE vault = ? AND seq = ? AND record = ? AND length(envelope) = 0",
        )
        .bind(envelope.as_slice())
        .bind(key.0)
        .bind(sql(push.commit.seq.value())?)
        .bind(&record.as_bytes()[..])
        .execute(&mut *c)
        .await
        .map_err(failed)?;
        // Their rows count already.
        added = added.saturating_add(filled.rows_affected().saturating_mul(length(envelope)));
    }
    if added == 0 {
        return Ok(());
    }
    usage::charge(c, key, quota, Charge { added, ..Charge::default() }, allowance_of(&push.changes)).await
}

/// Remembers objects that a commit names and that are not here: whoever has the contents uploads them again. Gives
/// how many are new.
pub(super) async fn lose(
    c: &mut SqliteConnection,
    key: VaultKey,
    blobs: impl IntoIterator<Item = BlobId>,
) -> Result<u64> {
    let mut count = 0_u64;
    for blob in blobs {
        let known = sqlx::query("UPDATE object SET named = 1 WHERE vault = ? AND blob = ?")
            .bind(key.0)
            .bind(&blob.as_bytes()[..])
            .execute(&mut *c)
            .await
            .map_err(failed)?;
        if known.rows_affected() > 0 {
            continue;
        }
        sqlx::query(
            "INSERT INTO object (vault, blob, size, digest, complete, named, created_utc, lost)
             VALUES (?, ?, 0, ?, 0, 1, 0, 1)",
        )
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .bind(&Digest::ZERO.as_bytes()[..])
        .execute(&mut *c)
        .await
        .map_err(failed)?;
        count = count.saturating_add(1);
    }
    Ok(count)
}
