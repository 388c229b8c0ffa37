//! An archive in the place of a server: answers what a device asks of one when it pulls.

use super::index::{Held, Index, Span};
use super::refused;
use crate::api::StandIn;
use crate::error::{ClientError, Result};
use bytes::Bytes;
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::vault::{CommitEntry, Entries, Entry, GetEnvelopes, Page};
use lockstep_proto::archive::ArchiveCommit;
use lockstep_proto::cbor::Wire;
use lockstep_proto::id::{BlobId, RecordId, Seq, VaultId};
use lockstep_proto::limits;
use reqwest::Response;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

const CHUNK_BYTES: u64 = 256 * 1024;

/// Where chains are cut: what a fault follows is not shown.
pub(crate) type Cuts = Arc<Mutex<BTreeMap<VaultId, Seq>>>;

/// The stand-in.
pub(crate) struct Serve {
    pub(crate) index: Arc<Index>,
    pub(crate) cuts: Cuts,
}

fn not_there(what: &str) -> ClientError {
    ClientError::Refused {
        code: Some(Code::NotFound),
        detail: format!("it has no {what}"),
        names: Vec::new(),
    }
}

fn answered(body: impl Into<reqwest::Body>) -> Response {
    Response::from(http::Response::new(body.into()))
}

fn encoded<T: Wire>(value: &T) -> Response {
    answered(value.encode())
}

impl StandIn for Serve {
    fn answer(&self, path: &str, body: Option<&[u8]>, from: u64) -> Result<Response> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
        let ["vaults", vault, rest @ ..] = parts.as_slice() else { return Err(not_there("such thing")) };
        let vault: VaultId = vault.parse().map_err(|_| not_there("such vault"))?;
        match (rest, body) {
            (["commits"], None) => Ok(encoded(&self.commits(vault, &query)?)),
            (["state"], None) => Ok(encoded(&self.state(vault, &query)?)),
            (["envelopes", "get"], Some(body)) => Ok(encoded(&self.envelopes(vault, body)?)),
            (["objects", blob], None) => self.object(vault, blob, from),
            _ => Err(not_there("such thing")),
        }
    }
}

fn seq_of(query: &BTreeMap<&str, &str>, key: &str) -> Option<Seq> {
    query.get(key).and_then(|text| text.parse().ok()).map(Seq::new)
}

impl Serve {
    fn head(&self, vault: VaultId) -> Result<(i64, Seq, bool)> {
        let (row, head, returns) = self.index.head(vault)?.ok_or_else(|| not_there("such vault"))?;
        let cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        let head = cuts.get(&vault).map_or(head, |cut| head.min(*cut));
        Ok((row, head, returns))
    }

    fn commits(&self, vault: VaultId, query: &BTreeMap<&str, &str>) -> Result<Page> {
        let (row, head, _) = self.head(vault)?;
        let next = seq_of(query, "after").map_or(Seq::new(0), Seq::next);
        let mut page = Page { head_seq: head, commits: Vec::new(), more: false, entries: Vec::new() };
        let mut left = limits::PAGE_CHANGES_BYTES_MAX;
        let mut last = next.previous();
        for span in self.index.commits(row, next, head, limits::PAGE_COMMITS_MAX)? {
            let item = ArchiveCommit::decode(&self.index.read(span)?).map_err(|error| refused(&error))?;
            match left.checked_sub(item.changes.0.len()) {
                Some(rest) => left = rest,
                None if page.commits.is_empty() => left = 0,
                None => break,
            }
            page.commits.push(CommitEntry { commit: item.commit, changes: Some(item.changes) });
            last = Some(last.map_or(Seq::new(0), Seq::next));
        }
        page.more = last.is_none_or(|last| last < head);
        Ok(page)
    }

    fn entry(&self, span: Span) -> Result<Entry> {
        Entry::decode(&self.index.read(span)?).map_err(|error| refused(&error))
    }

    /// Entries, as many as a page holds; one always fits.
    fn page_of(&self, spans: impl Iterator<Item = Result<Span>>, more_behind: bool) -> Result<Entries> {
        let mut page = Entries { more: more_behind, entries: Vec::new() };
        let mut left = u64::try_from(limits::PAGE_BYTES_MAX).unwrap_or(u64::MAX);
        for span in spans {
            let span = span?;
            match left.checked_sub(span.bytes) {
                Some(rest) => left = rest,
                None if page.entries.is_empty() => left = 0,
                None => {
                    page.more = true;
                    break;
                }
            }
            page.entries.push(self.entry(span)?);
        }
        Ok(page)
    }

    /// What no later commit replaces. Where a repair goes back, which versions those are only the chain's reader knows;
    /// it asks for each.
    fn state(&self, vault: VaultId, query: &BTreeMap<&str, &str>) -> Result<Entries> {
        let (row, _, returns) = self.head(vault)?;
        let cut = self.cuts.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&vault);
        if returns || cut {
            return Ok(Entries { more: false, entries: Vec::new() });
        }
        let upto = seq_of(query, "upto").ok_or_else(|| not_there("such state"))?;
        let after = seq_of(query, "after").and_then(|seq| i64::try_from(seq.value()).ok()).unwrap_or(-1);
        let record: Option<RecordId> = query.get("from-record").and_then(|text| text.parse().ok());
        let behind = seq_of(query, "from-seq").zip(record);
        let limit = limits::PAGE_ENTRIES_MAX;
        let spans = self.index.newest(row, (after, upto), behind, limit)?;
        let is_full = spans.len() == limit;
        self.page_of(spans.into_iter().map(Ok), is_full)
    }

    fn envelopes(&self, vault: VaultId, body: &[u8]) -> Result<Entries> {
        let wanted = GetEnvelopes::decode(body).map_err(|error| refused(&error))?;
        let held =
            wanted.0.iter().filter_map(|(seq, record)| match self.index.version(vault, *seq, *record) {
                Ok(Held::Here(span)) => Some(Ok(span)),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            });
        self.page_of(held, false)
    }

    fn object(&self, vault: VaultId, blob: &str, from: u64) -> Result<Response> {
        let blob: BlobId = blob.parse().map_err(|_| not_there("such object"))?;
        let Held::Here(span) = self.index.object(vault, blob)? else { return Err(not_there("such object")) };
        let end = span.place.saturating_add(span.bytes);
        let begin = span.place.saturating_add(from).min(end);
        let index = Arc::clone(&self.index);
        let pieces = futures_util::stream::iter(Pieces { index, next: begin, end });
        Ok(answered(reqwest::Body::wrap_stream(pieces)))
    }
}

/// The bytes of an object, piece by piece.
struct Pieces {
    index: Arc<Index>,
    next: u64,
    end: u64,
}

impl Iterator for Pieces {
    type Item = std::result::Result<Bytes, std::io::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let left = self.end.saturating_sub(self.next);
        if left == 0 {
            return None;
        }
        let span = Span { place: self.next, bytes: left.min(CHUNK_BYTES) };
        self.next = self.next.saturating_add(span.bytes);
        Some(self.index.read(span).map(Bytes::from).map_err(std::io::Error::other))
    }
}
