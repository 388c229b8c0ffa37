//! Staged envelopes: they wait for the commit that names them.

use super::row::{digest, number, sql};
use super::{failed, usage, version};
use crate::domain::commit::{PreparedCommit, check_staged};
use crate::domain::quota::{Charge, DefaultQuota, allowance_of_staged, row_bytes};
use crate::store::{Result, VaultKey};
use lockstep_proto::Digest;
use sqlx::{PgConnection, Row as _};
use std::collections::{BTreeMap, BTreeSet};

/// Keeps envelopes for a commit to come; what is kept already is kept longer.
pub(super) async fn put(
    c: &mut PgConnection,
    key: VaultKey,
    quota: DefaultQuota,
    envelopes: &[(Digest, Vec<u8>)],
    expires_utc: u64,
) -> Result<()> {
    usage::lock(c, key).await?;
    let expires = sql(expires_utc)?;
    let allowance = allowance_of_staged(envelopes.iter().map(|(_, bytes)| bytes.as_slice()));
    let known = renew(c, key, envelopes, expires).await?;
    let fresh = envelopes.iter().filter(|(digest, _)| !known.contains(digest));
    let fresh: BTreeMap<_, _> = fresh.map(|(digest, bytes)| (digest, bytes)).collect();
    let rows: Vec<_> = fresh.into_iter().collect();
    let mut charge = Charge::default();
    let mut rest = rows.as_slice();
    while !rest.is_empty() {
        let (rows, after) = version::split(rest, |(_, bytes)| bytes.len());
        rest = after;
        let digests: Vec<_> = rows.iter().map(|(digest, _)| &digest.as_bytes()[..]).collect();
        let envelopes: Vec<_> = rows.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        sqlx::query(
            "INSERT INTO staged (vault, digest, envelope, expires_utc)
             SELECT $1, digest, envelope, $2 FROM unnest($3::bytea[], $4::bytea[]) AS fresh (digest, envelope)",
        )
        .bind(key.0)
        .bind(expires)
        .bind(digests)
        .bind(envelopes)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
        charge.added = rows.iter().fold(charge.added, |sum, (_, bytes)| sum.saturating_add(row_bytes(bytes)));
    }
    usage::charge(c, key, quota, charge, allowance).await
}

/// Lets what is staged already live longer; gives its digests.
async fn renew(
    c: &mut PgConnection,
    key: VaultKey,
    envelopes: &[(Digest, Vec<u8>)],
    expires: i64,
) -> Result<BTreeSet<Digest>> {
    let digests: Vec<_> = envelopes.iter().map(|(digest, _)| &digest.as_bytes()[..]).collect();
    let rows = sqlx::query(
        "UPDATE staged SET expires_utc = $1 WHERE vault = $2 AND digest = ANY($3) RETURNING digest",
    )
    .bind(expires)
    .bind(key.0)
    .bind(digests)
    .fetch_all(c)
    .await
    .map_err(failed)?;
    rows.iter().map(|row| digest(row, 0)).collect()
}

/// Adds staged envelopes that the push names; gives their digests.
pub(super) async fn take(
    c: &mut PgConnection,
    key: VaultKey,
    push: &mut PreparedCommit,
) -> Result<Vec<Digest>> {
    let missing = push.missing();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let digests: Vec<_> = missing.iter().map(|digest| &digest.as_bytes()[..]).collect();
    let sum = sqlx::query(
        "SELECT coalesce(sum(octet_length(envelope)), 0)::bigint FROM staged
         WHERE vault = $1 AND digest = ANY($2)",
    )
    .bind(key.0)
    .bind(&digests)
    .fetch_one(&mut *c)
    .await
    .map_err(failed)?;
    check_staged(number(&sum, 0)?)?;
    let rows = sqlx::query("SELECT digest, envelope FROM staged WHERE vault = $1 AND digest = ANY($2)")
        .bind(key.0)
        .bind(digests)
        .fetch_all(c)
        .await
        .map_err(failed)?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let digest = digest(row, 0)?;
        push.envelopes.insert(digest, row.try_get(1).map_err(failed)?);
        found.push(digest);
    }
    Ok(found)
}

/// Drops envelopes that a commit took over.
pub(super) async fn forget(c: &mut PgConnection, key: VaultKey, digests: &[Digest]) -> Result<()> {
    if digests.is_empty() {
        return Ok(());
    }
    let digests: Vec<_> = digests.iter().map(|digest| &digest.as_bytes()[..]).collect();
    sqlx::query("DELETE FROM staged WHERE vault = $1 AND digest = ANY($2)")
        .bind(key.0)
        .bind(digests)
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}
