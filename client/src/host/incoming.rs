//! What a host store is told.
//!
//! Delivery compares states: a record is delivered when what is here is not what the store has, whatever happened in
//! between. So own changes do not come back, a merge of one does, and a repair that goes back is a change like any other.
//! The cursor only says which commits need not be looked at again.

use super::row::{HostKey, Row, Rows, fields_of, name_text};
use super::{Fields, HostChange, Page, Unresolved};
use crate::documents::Document;
use crate::error::{ClientError, Result};
use crate::heal::changes_of;
use crate::late::commit_at;
use crate::replica::SchemaTag;
use lockstep_engine::replica::Replica as _;
use lockstep_proto::Digest;
use lockstep_proto::commit::Change;
use lockstep_proto::envelope::KIND_DOCUMENT;
use lockstep_proto::id::{RecordId, Seq};
use serde_json::Value;
use std::collections::BTreeSet;

const ROWS_AT_ONCE: usize = 1024;

/// What an acknowledgement makes durable.
#[derive(Clone)]
pub(crate) struct Shown {
    record: RecordId,
    row: Row,
}

impl Shown {
    fn over(&self, row: Row) -> Row {
        let Row { known, withheld, .. } = self.row.clone();
        Row { is_deleted: known.is_none(), known, withheld, must_show: false, ..row }
    }
}

/// A record that the store does not have as it is here.
struct News {
    rank: usize,
    row: Row,
    /// What is here; none: it was deleted.
    here: Option<Fields>,
    conflict_of: Option<RecordId>,
    written_utc_ms: u64,
}

/// The next changes, `limit` at most.
pub(crate) fn page(rows: &Rows<'_>, limit: usize) -> Result<Page> {
    let end = rows.vault.verified()?;
    let mut all: Vec<(RecordId, News)> = Vec::new();
    let schema = rows.schema_tag();
    let mut page =
        Page { changes: Vec::new(), upto: None, shown: Vec::new(), unreadable: Vec::new(), schema };
    for record in candidates(rows, &schema)? {
        match here(rows, record)? {
            Here::Unreadable => page.unreadable.push(record),
            Here::Nothing => all.extend(deletion(rows, record)?.map(|news| (record, news))),
            Here::Document(document) => {
                all.extend(news(rows, record, &document)?.map(|news| (record, news)));
            }
        }
    }
    all.sort_by_key(|(record, news)| (news.rank, *record));
    let coming: BTreeSet<RecordId> = all
        .iter()
        .filter(|(_, news)| news.row.key.is_none() && news.here.is_some())
        .map(|(r, _)| *r)
        .collect();
    let mut later = Vec::new();
    let mut is_cut = false;
    for (record, news) in all {
        if page.changes.len() >= limit.max(1) {
            is_cut = true;
            break;
        }
        match change(rows, &news, &coming)? {
            (change, true) => later.push((record, news, change)),
            (change, false) => add(&mut page, record, news, change),
        }
    }
    // Rows that refer to each other: one of them comes first, and again once the other has its key.
    if page.changes.is_empty() && !later.is_empty() {
        let (record, news, change) = later.remove(0);
        add(&mut page, record, news, change);
    }
    if later.is_empty() && !is_cut {
        page.upto = end;
    }
    Ok(page)
}

fn add(page: &mut Page, record: RecordId, news: News, change: HostChange) {
    let withheld = change.unresolved.iter().map(|left_out| (left_out.field.clone(), left_out.name.clone()));
    let row = Row { known: news.here, withheld: withheld.collect(), ..news.row };
    page.shown.push(Shown { record, row });
    page.changes.push(change);
}

/// Records that may have changed since the cursor.
fn candidates(rows: &Rows<'_>, schema: &SchemaTag) -> Result<BTreeSet<RecordId>> {
    let mut found: BTreeSet<RecordId> = rows.replica().host_records(rows.store, true)?.into_iter().collect();
    let cursor: Option<(Seq, Digest)> = rows.replica().host_cursor(rows.store, schema)?;
    if let Some(cursor) = cursor
        && rows.vault.still_counts(cursor)?
    {
        for seq in rows.vault.counting_since(cursor.0)? {
            let (_, changes) = commit_at(rows.replica(), seq)?;
            found.extend(changes_of(&changes)?.0.iter().filter_map(Change::version).map(|version| version.0));
        }
        return Ok(found);
    }
    let mut after = None;
    loop {
        let records = rows.replica().records_after(after, ROWS_AT_ONCE)?;
        let Some(last) = records.last() else { break };
        after = Some(last.record);
        found.extend(records.iter().map(|row| row.record));
    }
    found.extend(rows.replica().host_records(rows.store, false)?);
    Ok(found)
}

enum Here {
    Document(Box<Document>),
    /// It is not there, or deleted.
    Nothing,
    /// It is there, and can not be shown (yet).
    Unreadable,
}

fn here(rows: &Rows<'_>, record: RecordId) -> Result<Here> {
    match rows.vault.document(record) {
        Ok(Some(document)) => Ok(Here::Document(Box::new(document))),
        Ok(None) => {
            let is_unreadable = rows.replica().pending_of(record)?.is_empty()
                && rows.replica().record(record)?.is_some_and(|row| row.kind == KIND_DOCUMENT);
            Ok(if is_unreadable { Here::Unreadable } else { Here::Nothing })
        }
        Err(ClientError::NotHeld(_) | ClientError::Incomplete(_)) => Ok(Here::Unreadable),
        Err(error) => Err(error),
    }
}

fn deletion(rows: &Rows<'_>, record: RecordId) -> Result<Option<News>> {
    let may_have_it = |row: &Row| row.known.is_some() || row.must_show && row.key.is_some();
    let row = rows.row(record)?.filter(may_have_it);
    Ok(row.map(|row| News {
        rank: rows.schema.ranks().get(row.record_type.as_str()).copied().unwrap_or(0),
        row,
        here: None,
        conflict_of: None,
        written_utc_ms: 0,
    }))
}

fn news(rows: &Rows<'_>, record: RecordId, document: &Document) -> Result<Option<News>> {
    let row = rows.row(record)?;
    let Some(rank) = rows.schema.ranks().get(document.record_type.as_str()).copied() else { return Ok(None) };
    let Some(here) = fields_of(document) else { return Ok(None) };
    let row = row.unwrap_or_else(|| Row::new(&document.record_type, name_text(&document.name)));
    if row.known.as_ref() == Some(&here) && !row.must_show && !can_show_more(rows, &row)? {
        return Ok(None);
    }
    let (conflict_of, written_utc_ms) = (document.conflict_of, document.stamp.hlc.utc_ms);
    Ok(Some(News { rank, row, here: Some(here), conflict_of, written_utc_ms }))
}

/// Whether a reference that was withheld can be shown by now. One that never can be does not bring its row again.
fn can_show_more(rows: &Rows<'_>, row: &Row) -> Result<bool> {
    let references = &rows.schema.of(&row.record_type)?.references;
    for (field, name) in &row.withheld {
        let Some(target) = references.get(field) else { return Ok(true) };
        if rows.key_of(rows.record(target, name))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The change as the store is told it, and whether it has to wait: a row that it refers to comes first.
fn change(rows: &Rows<'_>, news: &News, coming: &BTreeSet<RecordId>) -> Result<(HostChange, bool)> {
    let row = &news.row;
    let mut document = news.here.clone();
    let (mut unresolved, mut waits) = (Vec::new(), false);
    for (field, target) in rows.schema.types.get(&row.record_type).into_iter().flat_map(|of| &of.references) {
        let Some(value) = document.as_mut().and_then(|document| document.get_mut(field)) else { continue };
        let mut key_of = |name: &Value| -> Result<Option<Value>> {
            let Some(name) = name.as_str() else { return Ok(None) };
            let record = rows.record(target, name);
            let key = rows.key_of(record)?;
            if key.is_none() {
                waits |= coming.contains(&record) && record != rows.record(&row.record_type, &row.name);
                let (field, record_type) = (field.clone(), target.clone());
                unresolved.push(Unresolved { field, record_type, name: name.to_owned() });
            }
            Ok(key.as_ref().map(HostKey::to_value))
        };
        *value = match &*value {
            Value::Array(names) => {
                let keys = names.iter().map(&mut key_of).collect::<Result<Vec<_>>>()?;
                Value::Array(keys.into_iter().flatten().collect())
            }
            name => key_of(name)?.unwrap_or(Value::Null),
        };
    }
    let conflict_of = match news.conflict_of {
        Some(record) => rows.row(record)?.and_then(|row| row.key),
        None => None,
    };
    let record = rows.record(&row.record_type, &row.name);
    let device = match rows.replica().record(record)? {
        Some(version) => Some(commit_at(rows.replica(), version.seq)?.0.device),
        None => None,
    };
    let change = HostChange {
        record_type: row.record_type.clone(),
        name: row.name.clone(),
        key: row.key.clone(),
        document,
        unresolved,
        is_conflict: news.conflict_of.is_some(),
        conflict_of,
        device,
        written_utc_ms: news.written_utc_ms,
    };
    Ok((change, waits))
}

/// The store has what the page says.
pub(crate) fn acknowledge(rows: &Rows<'_>, page: &Page) -> Result<()> {
    for shown in &page.shown {
        let row = match rows.row(shown.record)? {
            // It handed something in since. Nobody knows which of both it wrote last, and the cursor goes on.
            Some(row) if row.edits != shown.row.edits => Row { must_show: true, ..row },
            Some(row) => shown.over(row),
            None => shown.over(shown.row.clone()),
        };
        rows.set(&row)?;
    }
    if let Some(upto) = page.upto {
        page.unreadable.iter().try_for_each(|record| rows.owe(*record))?;
        rows.replica().set_host_cursor(rows.store, upto, &page.schema)?;
    }
    Ok(())
}

/// The store gives a record a key, before it writes the row.
pub(crate) fn assign(rows: &Rows<'_>, record_type: &str, name: &str, key: &HostKey) -> Result<()> {
    rows.schema.of(record_type)?;
    let record = rows.record(record_type, name);
    let row = rows.row(record)?.unwrap_or_else(|| Row::new(record_type, name.to_owned()));
    // A row that was deleted gives its key up.
    if let Some(old) = rows.row_of_key(record_type, key)?.filter(|old| old.is_deleted && old.name != row.name)
    {
        rows.set(&Row { key: None, ..old })?;
    }
    rows.set(&Row { key: Some(key.clone()), is_deleted: false, ..row })
}
