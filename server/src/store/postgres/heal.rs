//! What a healed store lacks of the commits that it was given back: envelopes and objects that come later.

use super::row::sql;
use super::{failed, usage};
use crate::domain::commit::PreparedCommit;
use crate::domain::quota::{Charge, DefaultQuota, allowance_of, length};
use crate::store::{Result, VaultKey};
use lockstep_proto::Digest;
use lockstep_proto::id::BlobId;
use sqlx::PgConnection;

/// Envelopes that were not at hand when a commit was given back, and are now.
pub(super) async fn fill(
    c: &mut PgConnection,
    key: VaultKey,
    quota: DefaultQuota,
    push: &PreparedCommit,
) -> Result<()> {
    let mut added = 0_u64;
    for change in &push.changes.0 {
        let Some((record, _, digest)) = change.version() else { continue };
        let Some(envelope) = push.envelopes.get(&digest) else { continue };
        let filled = sqlx::query(
            "UPDATE version SET envelope = $1
             WHERE vault = $2 AND seq = $3 AND record = $4 AND octet_length(envelope) = 0",
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
    c: &mut PgConnection,
    key: VaultKey,
    blobs: impl IntoIterator<Item = BlobId>,
) -> Result<u64> {
    let blobs: Vec<BlobId> = blobs.into_iter().collect();
    let blobs: Vec<_> = blobs.iter().map(|blob| &blob.as_bytes()[..]).collect();
    sqlx::query("UPDATE object SET named = true WHERE vault = $1 AND blob = ANY($2)")
        .bind(key.0)
        .bind(&blobs)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    let fresh = sqlx::query(
        "INSERT INTO object (vault, blob, size, digest, complete, named, created_utc, lost, reserved_bytes)
         SELECT $1, blob, 0, $2, false, true, 0, 1, 0 FROM unnest($3::bytea[]) AS gone (blob)
         ON CONFLICT DO NOTHING",
    )
    .bind(key.0)
    .bind(&Digest::ZERO.as_bytes()[..])
    .bind(blobs)
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(fresh.rows_affected())
}
