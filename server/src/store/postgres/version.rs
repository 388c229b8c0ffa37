//! Writing the versions of a commit that was judged good: many rows a statement.

use super::failed;
use super::row::sql;
use crate::domain::commit::{Live, PreparedCommit};
use crate::error::StoreError;
use crate::store::{Result, VaultKey};
use lockstep_proto::Digest;
use lockstep_proto::commit::Change;
use lockstep_proto::envelope::{KIND_DOCUMENT, KIND_TOMBSTONE};
use lockstep_proto::id::RecordId;
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// Envelope bytes a statement: they are copied on their way, and all copies together stay small.
const BYTES_A_STATEMENT: usize = 1024 * 1024;

/// The longest first rows whose bytes go into one statement, at least one; and the others.
pub(super) fn split<T>(rows: &[T], size: impl Fn(&T) -> usize) -> (&[T], &[T]) {
    let mut total_bytes = 0_usize;
    let fits = |row: &&T| {
        total_bytes = total_bytes.saturating_add(size(row));
        total_bytes <= BYTES_A_STATEMENT
    };
    let count = rows.iter().take_while(fits).count().max(1).min(rows.len());
    rows.split_at(count)
}

struct Row<'a> {
    record: RecordId,
    revision: i64,
    kind: u8,
    digest: Digest,
    previous: Option<i64>,
    envelope: &'a [u8],
}

fn rows<'a>(push: &'a PreparedCommit, before: &BTreeMap<RecordId, Live>) -> Result<Vec<Row<'a>>> {
    let mut rows = Vec::with_capacity(push.changes.0.len());
    for change in &push.changes.0 {
        let Some((record, revision, digest)) = change.version() else { continue };
        let kind = if matches!(change, Change::Put { .. }) { KIND_DOCUMENT } else { KIND_TOMBSTONE };
        let previous = before.get(&record).map(|live| sql(live.seq.value())).transpose()?;
        let envelope = match push.envelopes.get(&digest) {
            Some(envelope) => envelope.as_slice(),
            None if push.heals => &[],
            None => return Err(StoreError::Corrupt("a judged push lacks an envelope")),
        };
        rows.push(Row { record, revision: sql(revision.value())?, kind, digest, previous, envelope });
    }
    Ok(rows)
}

pub(super) async fn write(
    c: &mut PgConnection,
    key: VaultKey,
    push: &PreparedCommit,
    before: &BTreeMap<RecordId, Live>,
    seq: i64,
) -> Result<()> {
    let rows = rows(push, before)?;
    let mut rest = rows.as_slice();
    while !rest.is_empty() {
        let (chunk, after) = split(rest, |row| row.envelope.len());
        rest = after;
        insert(c, key, seq, chunk).await?;
    }
    let records: Vec<_> = rows.iter().map(|row| &row.record.as_bytes()[..]).collect();
    let revisions: Vec<_> = rows.iter().map(|row| row.revision).collect();
    let digests: Vec<_> = rows.iter().map(|row| &row.digest.as_bytes()[..]).collect();
    sqlx::query(
        "INSERT INTO live (vault, record, revision, digest, seq)
         SELECT $1, record, revision, digest, $2
         FROM unnest($3::bytea[], $4::bigint[], $5::bytea[]) AS fresh (record, revision, digest)
         ON CONFLICT (vault, record) DO UPDATE
         SET revision = excluded.revision, digest = excluded.digest, seq = excluded.seq",
    )
    .bind(key.0)
    .bind(seq)
    .bind(records)
    .bind(revisions)
    .bind(digests)
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    replace(c, key, seq, &rows).await
}

async fn insert(c: &mut PgConnection, key: VaultKey, seq: i64, rows: &[Row<'_>]) -> Result<()> {
    let records: Vec<_> = rows.iter().map(|row| &row.record.as_bytes()[..]).collect();
    let revisions: Vec<_> = rows.iter().map(|row| row.revision).collect();
    let kinds: Vec<_> = rows.iter().map(|row| i64::from(row.kind)).collect();
    let digests: Vec<_> = rows.iter().map(|row| &row.digest.as_bytes()[..]).collect();
    let previous: Vec<_> = rows.iter().map(|row| row.previous).collect();
    let envelopes: Vec<_> = rows.iter().map(|row| row.envelope).collect();
    sqlx::query(
        "INSERT INTO version (vault, seq, record, revision, kind, digest, previous_seq, envelope)
         SELECT $1, $2, record, revision, kind, digest, previous, envelope
         FROM unnest($3::bytea[], $4::bigint[], $5::bigint[], $6::bytea[], $7::bigint[], $8::bytea[])
             AS fresh (record, revision, kind, digest, previous, envelope)",
    )
    .bind(key.0)
    .bind(seq)
    .bind(records)
    .bind(revisions)
    .bind(kinds)
    .bind(digests)
    .bind(previous)
    .bind(envelopes)
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(())
}

/// Marks the versions that were the newest as replaced.
async fn replace(c: &mut PgConnection, key: VaultKey, seq: i64, rows: &[Row<'_>]) -> Result<()> {
    let places = rows.iter().filter_map(|row| Some((row.previous?, &row.record.as_bytes()[..])));
    let (seqs, records): (Vec<_>, Vec<_>) = places.unzip();
    if seqs.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE version SET replaced = $1 FROM unnest($2::bigint[], $3::bytea[]) AS old (seq, record)
         WHERE version.vault = $4 AND version.seq = old.seq AND version.record = old.record",
    )
    .bind(seq)
    .bind(seqs)
    .bind(records)
    .bind(key.0)
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(())
}

/// A change list names a seq once: the order of pins and unpins does not matter.
pub(super) async fn write_pins(c: &mut PgConnection, key: VaultKey, push: &PreparedCommit) -> Result<()> {
    let (mut pins, mut unpins) = (Vec::new(), Vec::new());
    for change in &push.changes.0 {
        match change {
            Change::Pin(seq) => pins.push(sql(seq.value())?),
            Change::Unpin(seq) => unpins.push(sql(seq.value())?),
            _ => {}
        }
    }
    for (statement, seqs) in [
        ("INSERT INTO pin (vault, seq) SELECT $1, unnest($2::bigint[]) ON CONFLICT DO NOTHING", pins),
        ("DELETE FROM pin WHERE vault = $1 AND seq = ANY($2)", unpins),
    ] {
        if !seqs.is_empty() {
            sqlx::query(statement).bind(key.0).bind(seqs).execute(&mut *c).await.map_err(failed)?;
        }
    }
    Ok(())
}
