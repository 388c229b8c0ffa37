//! Reading commits, entries and history, page by page. A page is one statement: it sees one moment. Sizes
//! are summed before any bytes are read. The first row always fits; the first that does not comes without its
//! bytes, and says that there is more.

use super::failed;
use super::row::{byte, bytes, id16, number, signed, sql};
use crate::store::{EntryQuery, Result, VaultKey, no_vault};
use lockstep_proto::api::vault::{CommitEntry, Entry};
use lockstep_proto::id::{RecordId, Revision, Seq};
use lockstep_proto::limits;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

/// A limit as SQL takes it.
fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) async fn commits(
    c: &mut PgConnection,
    key: VaultKey,
    after: Option<Seq>,
    lists_bytes_max: usize,
) -> Result<(Seq, Vec<CommitEntry>, bool)> {
    let rows = sqlx::query(
        "SELECT v.seq, p.bytes, p.signature, CASE WHEN p.fits THEN p.changes END
         FROM vault v LEFT JOIN LATERAL (
             SELECT seq, bytes, signature, changes, place = 1 OR (total <= $3 AND place <= $4) AS fits,
                    place <= 2 OR (total - octet_length(changes) <= $3 AND place <= $4 + 1) AS wanted
             FROM (SELECT *, row_number() OVER page AS place, sum(octet_length(changes)) OVER page AS total
                   FROM (SELECT seq, bytes, signature, changes FROM commit_header
                         WHERE vault = $1 AND seq > $2 ORDER BY seq LIMIT $4 + 1) AS next
                   WINDOW page AS (ORDER BY seq ROWS UNBOUNDED PRECEDING)) AS sums
         ) AS p ON p.wanted WHERE v.id = $1 ORDER BY p.seq",
    )
    .bind(key.0)
    .bind(after.map_or(Ok(-1), |seq| sql(seq.value()))?)
    .bind(limit(lists_bytes_max))
    .bind(limit(limits::PAGE_COMMITS_MAX))
    .fetch_all(c)
    .await
    .map_err(failed)?;
    let first = rows.first().ok_or_else(no_vault)?;
    let head = Seq::new(number(first, 0)?);
    let mut commits = Vec::with_capacity(rows.len());
    for row in &rows {
        if row.try_get::<Option<&[u8]>, _>(1).map_err(failed)?.is_none() {
            break;
        }
        let Some(changes) = row.try_get::<Option<Vec<u8>>, _>(3).map_err(failed)? else {
            return Ok((head, commits, true));
        };
        commits.push(CommitEntry { commit: signed(row, 1, 2)?, changes: Some(changes.into()) });
    }
    Ok((head, commits, false))
}

fn entry(row: &PgRow) -> Result<Entry> {
    Ok(Entry {
        seq: Seq::new(number(row, 0)?),
        record: RecordId::from_bytes(id16(row, 1)?),
        revision: Revision::new(number(row, 2)?),
        kind: byte(row, 3)?,
        envelope: bytes(row, 4)?.into(),
    })
}

/// The entries up to the row that comes without its bytes, and whether there is one.
fn page(rows: &[PgRow]) -> Result<(Vec<Entry>, bool)> {
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        if row.try_get::<Option<&[u8]>, _>(4).map_err(failed)?.is_none() {
            return Ok((entries, true));
        }
        entries.push(entry(row)?);
    }
    Ok((entries, false))
}

pub(super) async fn entries(
    c: &mut PgConnection,
    key: VaultKey,
    query: EntryQuery,
) -> Result<(Vec<Entry>, bool)> {
    let (seq, record) = match query.from {
        Some((seq, record)) => (sql(seq.value())?, record.as_bytes().to_vec()),
        None => (query.after.map_or(Ok(0), |seq| sql(seq.value().saturating_add(1)))?, Vec::new()),
    };
    let rows = sqlx::query(
        "SELECT seq, record, revision, kind,
                CASE WHEN place = 1 OR (total <= $6 AND place <= $7) THEN envelope END
         FROM (SELECT *, row_number() OVER page AS place, sum(octet_length(envelope)) OVER page AS total
               FROM (SELECT seq, record, revision, kind, envelope FROM version
                     WHERE vault = $1 AND (seq, record) > ($2, $3) AND seq <= $4
                       AND abandoned IS NULL AND octet_length(envelope) > 0
                       AND (replaced IS NULL OR (NOT $5 AND replaced > $4))
                     ORDER BY seq, record LIMIT $7 + 1) AS next
               WINDOW page AS (ORDER BY seq, record ROWS UNBOUNDED PRECEDING)) AS sums
         WHERE place <= 2 OR (total - octet_length(envelope) <= $6 AND place <= $7 + 1)
         ORDER BY seq, record",
    )
    .bind(key.0)
    .bind(seq)
    .bind(record)
    .bind(sql(query.upto.value())?)
    .bind(query.current_only)
    .bind(limit(query.bytes_max.min(limits::PAGE_BYTES_MAX)))
    .bind(limit(limits::PAGE_ENTRIES_MAX))
    .fetch_all(c)
    .await
    .map_err(failed)?;
    page(&rows)
}

pub(super) async fn envelopes(
    c: &mut PgConnection,
    key: VaultKey,
    places: &[(Seq, RecordId)],
) -> Result<(Vec<Entry>, bool)> {
    let (mut seqs, mut records) = (Vec::new(), Vec::new());
    for (seq, record) in places.iter().take(limits::PAGE_ENTRIES_MAX) {
        seqs.push(sql(seq.value())?);
        records.push(&record.as_bytes()[..]);
    }
    let rows = sqlx::query(
        "SELECT seq, record, revision, kind, CASE WHEN rank = 1 OR total <= $4 THEN envelope END
         FROM (SELECT *, row_number() OVER page AS rank, sum(octet_length(envelope)) OVER page AS total
               FROM (SELECT v.seq, v.record, revision, kind, envelope, place
                     FROM unnest($2::bigint[], $3::bytea[]) WITH ORDINALITY AS asked (seq, record, place)
                     JOIN version v ON v.vault = $1 AND v.seq = asked.seq AND v.record = asked.record
                          AND octet_length(v.envelope) > 0) AS found
               WINDOW page AS (ORDER BY place ROWS UNBOUNDED PRECEDING)) AS sums
         WHERE rank <= 2 OR total - octet_length(envelope) <= $4
         ORDER BY place",
    )
    .bind(key.0)
    .bind(seqs)
    .bind(records)
    .bind(limit(limits::PAGE_BYTES_MAX))
    .fetch_all(c)
    .await
    .map_err(failed)?;
    page(&rows)
}

/// Walks from the newest version to the one before, and so on: no index leads from a record to its versions.
pub(super) async fn history(c: &mut PgConnection, key: VaultKey, record: RecordId) -> Result<Vec<Entry>> {
    let rows = sqlx::query(
        "WITH RECURSIVE walk AS (
             SELECT v.seq, v.previous_seq, 1 AS place, octet_length(v.envelope)::bigint AS total
             FROM live l JOIN version v ON v.vault = l.vault AND v.seq = l.seq AND v.record = l.record
                  AND octet_length(v.envelope) > 0
             WHERE l.vault = $1 AND l.record = $2
             UNION ALL
             SELECT v.seq, v.previous_seq, w.place + 1, w.total + octet_length(v.envelope)
             FROM walk w JOIN version v ON v.vault = $1 AND v.seq = w.previous_seq AND v.record = $2
                  AND octet_length(v.envelope) > 0
             WHERE w.place < $3 AND w.total <= $4
         )
         SELECT v.seq, v.record, v.revision, v.kind, v.envelope
         FROM walk w JOIN version v ON v.vault = $1 AND v.seq = w.seq AND v.record = $2
         WHERE w.place = 1 OR w.total <= $4 ORDER BY w.place",
    )
    .bind(key.0)
    .bind(&record.as_bytes()[..])
    .bind(limit(limits::HISTORY_ENTRIES_MAX))
    .bind(limit(limits::PAGE_BYTES_MAX))
    .fetch_all(c)
    .await
    .map_err(failed)?;
    rows.iter().map(entry).collect()
}
