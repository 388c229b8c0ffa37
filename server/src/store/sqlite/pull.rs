//! Reading commits, entries and history, page by page.

use super::failed;
use super::row::{byte, bytes, id16, number, signed, sql};
use crate::store::{EntryQuery, Result, VaultKey};
use lockstep_proto::api::vault::{CommitEntry, Entry};
use lockstep_proto::id::{RecordId, Revision, Seq};
use lockstep_proto::limits;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

pub(super) async fn commits(
    c: &mut SqliteConnection,
    key: VaultKey,
    after: Option<Seq>,
) -> Result<(Seq, Vec<CommitEntry>, bool)> {
    let head: i64 = sqlx::query_scalar("SELECT seq FROM vault WHERE id = ?")
        .bind(key.0)
        .fetch_one(&mut *c)
        .await
        .map_err(failed)?;
    let head = Seq::new(u64::try_from(head).unwrap_or(0));
    let mut commits = Vec::new();
    let mut size_bytes = 0_usize;
    let mut place = after;
    loop {
        // A handful at a time, so that a page of large change lists is not read far beyond its end.
        let batch = sqlx::query(
            "SELECT seq, bytes, signature, changes FROM commit_header WHERE vault = ? AND seq > ? ORDER BY seq LIMIT 32",
        )
        .bind(key.0)
        .bind(place.map_or(Ok(-1), |seq| sql(seq.value()))?)
        .fetch_all(&mut *c)
        .await
        .map_err(failed)?;
        if batch.is_empty() {
            return Ok((head, commits, false));
        }
        for row in &batch {
            let changes = bytes(row, 3)?;
            let next_bytes = size_bytes.saturating_add(changes.len());
            let full =
                commits.len() >= limits::PAGE_COMMITS_MAX || next_bytes > limits::PAGE_CHANGES_BYTES_MAX;
            if full && !commits.is_empty() {
                return Ok((head, commits, true));
            }
            size_bytes = next_bytes;
            place = Some(Seq::new(number(row, 0)?));
            commits.push(CommitEntry { commit: signed(row, 1, 2)?, changes: Some(changes.into()) });
        }
    }
}

fn entry(row: &SqliteRow) -> Result<Entry> {
    Ok(Entry {
        seq: Seq::new(number(row, 0)?),
        record: RecordId::from_bytes(id16(row, 1)?),
        revision: Revision::new(number(row, 2)?),
        kind: byte(row, 3)?,
        envelope: bytes(row, 4)?.into(),
    })
}

/// Collects entries up to the limits of a page.
struct Page {
    entries: Vec<Entry>,
    size_bytes: usize,
    bytes_max: usize,
}

impl Page {
    fn new(bytes_max: usize) -> Self {
        Self { entries: Vec::new(), size_bytes: 0, bytes_max: bytes_max.min(limits::PAGE_BYTES_MAX) }
    }

    /// False: the page is full, and the entry not taken.
    fn take(&mut self, entry: Entry) -> bool {
        let next_bytes = self.size_bytes.saturating_add(entry.envelope.0.len());
        let full = self.entries.len() >= limits::PAGE_ENTRIES_MAX || next_bytes > self.bytes_max;
        if full && !self.entries.is_empty() {
            return false;
        }
        self.size_bytes = next_bytes;
        self.entries.push(entry);
        true
    }
}

pub(super) async fn entries(
    c: &mut SqliteConnection,
    key: VaultKey,
    query: EntryQuery,
) -> Result<(Vec<Entry>, bool)> {
    let mut page = Page::new(query.bytes_max);
    let mut place = match query.from {
        Some((seq, record)) => (sql(seq.value())?, record.as_bytes().to_vec()),
        None => (query.after.map_or(Ok(0), |seq| sql(seq.value().saturating_add(1)))?, Vec::new()),
    };
    let upto = sql(query.upto.value())?;
    loop {
        let mut select = QueryBuilder::<Sqlite>::new(
            "SELECT seq, record, revision, kind, envelope FROM version WHERE vault = ",
        );
        select.push_bind(key.0).push(" AND (seq, record) > (").push_bind(place.0).push(", ");
        select.push_bind(place.1.as_slice()).push(") AND seq <= ").push_bind(upto);
        if query.current_only {
            select.push(" AND replaced IS NULL");
        } else {
            select.push(" AND (replaced IS NULL OR replaced > ").push_bind(upto).push(")");
        }
        select.push(" ORDER BY seq, record LIMIT 256");
        let rows = select.build().fetch_all(&mut *c).await.map_err(failed)?;
        if rows.is_empty() {
            return Ok((page.entries, false));
        }
        for row in &rows {
            let entry = entry(row)?;
            place = (sql(entry.seq.value())?, entry.record.as_bytes().to_vec());
            if !page.take(entry) {
                return Ok((page.entries, true));
            }
        }
    }
}

async fn at(
    c: &mut SqliteConnection,
    key: VaultKey,
    seq: i64,
    record: RecordId,
) -> Result<Option<SqliteRow>> {
    sqlx::query(
        "SELECT seq, record, revision, kind, envelope, previous_seq FROM version WHERE vault = ? AND seq = ? AND record = ?",
    )
    .bind(key.0)
    .bind(seq)
    .bind(&record.as_bytes()[..])
    .fetch_optional(c)
    .await
    .map_err(failed)
}

pub(super) async fn envelopes(
    c: &mut SqliteConnection,
    key: VaultKey,
    places: &[(Seq, RecordId)],
) -> Result<(Vec<Entry>, bool)> {
    let mut page = Page::new(limits::PAGE_BYTES_MAX);
    for (seq, record) in places.iter().take(limits::PAGE_ENTRIES_MAX) {
        if let Some(row) = at(c, key, sql(seq.value())?, *record).await?
            && !page.take(entry(&row)?)
        {
            return Ok((page.entries, true));
        }
    }
    Ok((page.entries, false))
}

pub(super) async fn history(c: &mut SqliteConnection, key: VaultKey, record: RecordId) -> Result<Vec<Entry>> {
    let mut page = Page::new(limits::PAGE_BYTES_MAX);
    let mut seq: Option<i64> = sqlx::query_scalar("SELECT seq FROM live WHERE vault = ? AND record = ?")
        .bind(key.0)
        .bind(&record.as_bytes()[..])
        .fetch_optional(&mut *c)
        .await
        .map_err(failed)?;
    while let Some(place) = seq {
        let Some(row) = at(c, key, place, record).await? else { break };
        if page.entries.len() >= limits::HISTORY_ENTRIES_MAX || !page.take(entry(&row)?) {
            break;
        }
        seq = sqlx::Row::try_get(&row, 5).map_err(failed)?;
    }
    Ok(page.entries)
}
