//! Staged envelopes: they wait for the commit that names them.

use super::row::{digest, number, sql};
use super::{failed, pieces, usage};
use crate::domain::commit::{PreparedCommit, check_staged};
use crate::domain::quota::{Charge, DefaultQuota, allowance_of_staged, row_bytes};
use crate::store::{Result, VaultKey};
use lockstep_proto::Digest;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};
use std::collections::BTreeSet;

/// Keeps envelopes for a commit to come; what is kept already is kept longer.
pub(super) async fn put(
    c: &mut SqliteConnection,
    key: VaultKey,
    quota: DefaultQuota,
    envelopes: Vec<(Digest, Vec<u8>)>,
    expires_utc: u64,
) -> Result<()> {
    let expires = sql(expires_utc)?;
    let allowance = allowance_of_staged(envelopes.iter().map(|(_, bytes)| bytes.as_slice()));
    let mut charge = Charge::default();
    for rows in pieces(&envelopes) {
        let known = renew(c, key, rows, expires).await?;
        let fresh: Vec<_> = rows.iter().filter(|(digest, _)| !known.contains(digest)).collect();
        if fresh.is_empty() {
            continue;
        }
        let mut query =
            QueryBuilder::<Sqlite>::new("INSERT INTO staged (vault, digest, envelope, expires_utc) ");
        query.push_values(&fresh, |mut row, (digest, bytes)| {
            row.push_bind(key.0).push_bind(&digest.as_bytes()[..]).push_bind(bytes).push_bind(expires);
        });
        query.build().execute(&mut *c).await.map_err(failed)?;
        charge.added =
            fresh.iter().fold(charge.added, |sum, (_, bytes)| sum.saturating_add(row_bytes(bytes)));
    }
    usage::charge(c, key, quota, charge, allowance).await
}

/// Lets what is staged already live longer; gives its digests.
async fn renew(
    c: &mut SqliteConnection,
    key: VaultKey,
    rows: &[(Digest, Vec<u8>)],
    expires: i64,
) -> Result<BTreeSet<Digest>> {
    let mut query = QueryBuilder::<Sqlite>::new("UPDATE staged SET expires_utc = ");
    query.push_bind(expires).push(" WHERE vault = ").push_bind(key.0).push(" AND digest IN (");
    let mut list = query.separated(", ");
    for (digest, _) in rows {
        list.push_bind(&digest.as_bytes()[..]);
    }
    query.push(") RETURNING digest");
    let known = query.build().fetch_all(c).await.map_err(failed)?;
    known.iter().map(|row| digest(row, 0)).collect()
}

/// Adds staged envelopes that the push names; gives their digests.
pub(super) async fn take(
    c: &mut SqliteConnection,
    key: VaultKey,
    push: &mut PreparedCommit,
) -> Result<Vec<Digest>> {
    let missing = push.missing();
    let mut found = Vec::new();
    let mut bytes = 0_u64;
    for digests in pieces(&missing) {
        let mut sizes = select("SELECT coalesce(sum(length(envelope)), 0)", key, digests);
        let sum = sizes.build().fetch_one(&mut *c).await.map_err(failed)?;
        bytes = bytes.saturating_add(number(&sum, 0)?);
        check_staged(bytes)?;
        let mut query = select("SELECT digest, envelope", key, digests);
        for row in query.build().fetch_all(&mut *c).await.map_err(failed)? {
            let digest = digest(&row, 0)?;
            push.envelopes.insert(digest, row.try_get(1).map_err(failed)?);
            found.push(digest);
        }
    }
    Ok(found)
}

fn select(columns: &str, key: VaultKey, digests: &[Digest]) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::<Sqlite>::new(columns);
    query.push(" FROM staged WHERE vault = ").push_bind(key.0).push(" AND digest IN (");
    let mut list = query.separated(", ");
    for digest in digests {
        list.push_bind(digest.as_bytes().to_vec());
    }
    query.push(")");
    query
}

/// Drops envelopes that a commit took over.
pub(super) async fn forget(c: &mut SqliteConnection, key: VaultKey, digests: &[Digest]) -> Result<()> {
    for digests in pieces(digests) {
        let mut query = QueryBuilder::<Sqlite>::new("DELETE FROM staged WHERE vault = ");
        query.push_bind(key.0).push(" AND digest IN (");
        let mut list = query.separated(", ");
        for digest in digests {
            list.push_bind(&digest.as_bytes()[..]);
        }
        query.push(")");
        query.build().execute(&mut *c).await.map_err(failed)?;
    }
    Ok(())
}
