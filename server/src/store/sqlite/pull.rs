//! Reading commits, entries and history, page by page.

use super::failed;
use super::row::{byte, bytes, id16, number, signed, sql};
use crate::store::{EntryQuery, Result, VaultKey, no_vault};
use lockstep_proto::api::vault::{CommitEntry, Entry};
use lockstep_proto::id::{RecordId, Revision, Seq};
use lockstep_proto::limits;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

pub(super) async fn commits(
    c: &mut SqliteConnection,
    key: VaultKey,
    after: Option<Seq>,
    lists_bytes_max: usize,
) -> Result<(Seq, Vec<CommitEntry>, bool)> {
    let head: i64 = sqlx::query_scalar("SELECT seq FROM vault WHERE id = ?")
        .bind(key.0)
        .fetch_optional(&mut *c)
        .await
        .map_err(failed)?
        .ok_or_else(no_vault)?;
    let head = Seq::new(u64::try_from(head).unwrap_or(0));
    let mut commits = Vec::new();
    let mut size_bytes = 0_usize;
    let mut place = after;
    loop {
        let after = place.map_or(Ok(-1), |seq| sql(seq.value()))?;
        // Sizes first: change lists that do not fit are never read.
        let sizes: Vec<i64> = sqlx::query_scalar(
            "SELECT length(changes) FROM commit_header WHERE vault = ? AND seq > ? ORDER BY seq LIMIT 256",
        )
        .bind(key.0)
        .bind(after)
        .fetch_all(&mut *c)
        .await
        .map_err(failed)?;
        if sizes.is_empty() {
            return Ok((head, commits, false));
        }
        let mut count = 0_usize;
        for size in &sizes {
            let next_bytes = size_bytes.saturating_add(usize::try_from(*size).unwrap_or(usize::MAX));
            let taken = commits.len().saturating_add(count);
            let full = taken >= limits::PAGE_COMMITS_MAX || next_bytes > lists_bytes_max;
            if full && taken > 0 {
                break;
            }
            size_bytes = next_bytes;
            count = count.saturating_add(1);
        }
        let rows = sqlx::query(
            "SELECT seq, bytes, signature, changes FROM commit_header WHERE vault = ? AND seq > ? ORDER BY seq LIMIT ?",
        )
        .bind(key.0)
        .bind(after)
        .bind(i64::try_from(count).unwrap_or(0))
        .fetch_all(&mut *c)
        .await
        .map_err(failed)?;
        for row in &rows {
            place = Some(Seq::new(number(row, 0)?));
            commits.push(CommitEntry { commit: signed(row, 1, 2)?, changes: Some(bytes(row, 3)?.into()) });
        }
        if count < sizes.len() {
            return Ok((head, commits, true));
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

    /// How many of the next entries, by the sizes of their envelopes, the page has room for.
    fn fitting(&self, sizes: &[i64]) -> usize {
        let (mut entries, mut size_bytes) = (self.entries.len(), self.size_bytes);
        sizes
            .iter()
            .take_while(|size| {
                size_bytes = size_bytes.saturating_add(usize::try_from(**size).unwrap_or(usize::MAX));
                let full = entries >= limits::PAGE_ENTRIES_MAX || size_bytes > self.bytes_max;
                let fits = !full || entries == 0;
                entries = entries.saturating_add(1);
                fits
            })
            .count()
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
        // Sizes first: envelopes that do not fit are never read.
        let mut select = select_entries("SELECT length(envelope)", key, &place, upto, query.current_only);
        select.push(" LIMIT 256");
        let sizes: Vec<i64> = select.build_query_scalar().fetch_all(&mut *c).await.map_err(failed)?;
        if sizes.is_empty() {
            return Ok((page.entries, false));
        }
        let count = page.fitting(&sizes);
        let columns = "SELECT seq, record, revision, kind, envelope";
        let mut select = select_entries(columns, key, &place, upto, query.current_only);
        select.push(" LIMIT ").push_bind(i64::try_from(count).unwrap_or(0));
        for row in &select.build().fetch_all(&mut *c).await.map_err(failed)? {
            let entry = entry(row)?;
            place = (sql(entry.seq.value())?, entry.record.as_bytes().to_vec());
            page.take(entry);
        }
        if count < sizes.len() {
            return Ok((page.entries, true));
        }
    }
}

fn select_entries(
    columns: &str,
    key: VaultKey,
    place: &(i64, Vec<u8>),
    upto: i64,
    current_only: bool,
) -> QueryBuilder<Sqlite> {
    let mut select = QueryBuilder::<Sqlite>::new(columns);
    select.push(" FROM version WHERE vault = ").push_bind(key.0);
    select.push(" AND (seq, record) > (").push_bind(place.0).push(", ").push_bind(place.1.clone());
    select.push(") AND seq <= ").push_bind(upto).push(" AND abandoned IS NULL AND length(envelope) > 0");
    if current_only {
        select.push(" AND replaced IS NULL");
    } else {
        select.push(" AND (replaced IS NULL OR replaced > ").push_bind(upto).push(")");
    }
    select.push(" ORDER BY seq, record");
    select
}

async fn at(
    c: &mut SqliteConnection,
    key: VaultKey,
    seq: i64,
    record: RecordId,
) -> Result<Option<SqliteRow>> {
    sqlx::query(
        "SELECT seq, record, revision, kind, envelope, previous_seq FROM version
         WHERE vault = ? AND seq = ? AND record = ? AND length(envelope) > 0",
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
