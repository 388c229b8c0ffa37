//! Commits, state, envelopes, history: what a device reads of a vault.

use super::{cbor, cbor_reserved};
use crate::error::ApiError;
use crate::extract::body::Cbor;
use crate::extract::session::{AnySession, vault_of};
use crate::extract::{Ask, Place, parse_id};
use crate::state::App;
use crate::store::{EntryQuery, VaultKey};
use axum::extract::State;
use axum::response::Response;
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::vault::{CommitEntry, Entries, GetEnvelopes, History, Page};
use lockstep_proto::id::{RecordId, Seq};
use lockstep_proto::{cbor::Wire as _, commit::Commit, limits};
use serde::Deserialize;

type Answer = Result<Response, ApiError>;

/// A page counts once for the rows and once for its encoding.
pub(super) const PAGE_RESERVE_BYTES: usize = 8 * limits::MIB;

/// Bytes of a page of commits, half of what it may have: it is in memory twice, and the next one is asked for in time.
const PAGE_BYTES: usize = limits::PAGE_BYTES_MAX / 2;
/// Of these, so many are for change lists (one always fits): the rest is for the entries that they announce.
const LISTS_BYTES_MAX: usize = PAGE_BYTES / 8;

/// Query of commits.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct After {
    after: Option<u64>,
}

/// The first page after a commit: commits, and entries that are still the newest.
pub(super) async fn first_page(app: &App, vault: VaultKey, after: Option<Seq>) -> Result<Page, ApiError> {
    let (head_seq, mut commits, mut more) = app.store.commits(vault, after, LISTS_BYTES_MAX).await?;
    let last = commits.last().and_then(|entry| Commit::decode(&entry.commit.bytes.0).ok());
    let Some(last) = last else { return Ok(Page { head_seq, commits, more, entries: Vec::new() }) };
    let lists_bytes: usize =
        commits.iter().map(|entry| entry.changes.as_ref().map_or(0, |changes| changes.0.len())).sum();
    let query = EntryQuery {
        after,
        upto: last.seq,
        from: None,
        current_only: true,
        bytes_max: PAGE_BYTES.saturating_sub(lists_bytes),
    };
    let (mut entries, is_cut) = app.store.entries(vault, query).await?;
    if let Some(last) = entries.last().map(|entry| entry.seq).filter(|_| is_cut) {
        // Commits whose entries are all here are a round of their own for the client; the others come with the next page.
        let whole = |commit: &CommitEntry| {
            Commit::decode(&commit.commit.bytes.0).is_ok_and(|commit| commit.seq < last)
        };
        let count = commits.iter().take_while(|commit| whole(commit)).count();
        if count > 0 {
            commits.truncate(count);
            entries.retain(|entry| entry.seq < last);
            more = true;
        }
    }
    Ok(Page { head_seq, commits, more, entries })
}

/// `GET /v1/vaults/{v}/commits`.
pub(crate) async fn commits(
    State(app): State<App>,
    AnySession(session): AnySession,
    Place(vault): Place<String>,
    Ask(query): Ask<After>,
) -> Answer {
    let vault = vault_of(&app, &session, &vault).await?;
    let after = query.after.map(Seq::new);
    if after.is_some_and(|seq| seq >= vault.seq) {
        let page = Page { head_seq: vault.seq, commits: Vec::new(), more: false, entries: Vec::new() };
        return Ok(cbor(&page));
    }
    let reserved = app.budget.reserve(PAGE_RESERVE_BYTES).await?;
    Ok(cbor_reserved(&first_page(&app, vault.key, after).await?, reserved))
}

/// Query of the state.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct StateQuery {
    upto: u64,
    after: Option<u64>,
    from_seq: Option<u64>,
    from_record: Option<String>,
    /// Leave out versions that the server's head replaced.
    #[serde(default)]
    current: bool,
}

/// `GET /v1/vaults/{v}/state`.
pub(crate) async fn state(
    State(app): State<App>,
    AnySession(session): AnySession,
    Place(vault): Place<String>,
    Ask(query): Ask<StateQuery>,
) -> Answer {
    let vault = vault_of(&app, &session, &vault).await?;
    if query.upto > vault.seq.value() {
        return Err(ApiError::new(Code::NotFound, "the vault has no such commit yet"));
    }
    let from = match (query.from_seq, &query.from_record) {
        (None, None) => None,
        (Some(seq), Some(record)) => Some((Seq::new(seq), parse_id::<RecordId>(record)?)),
        _ => return Err(ApiError::new(Code::Malformed, "from-seq and from-record go together")),
    };
    let reserved = app.budget.reserve(PAGE_RESERVE_BYTES).await?;
    let query = EntryQuery {
        after: query.after.map(Seq::new),
        upto: Seq::new(query.upto),
        from,
        current_only: query.current,
        bytes_max: limits::PAGE_BYTES_MAX,
    };
    let (entries, more) = app.store.entries(vault.key, query).await?;
    Ok(cbor_reserved(&Entries { more, entries }, reserved))
}

/// `POST /v1/vaults/{v}/envelopes/get`.
pub(crate) async fn envelopes(
    State(app): State<App>,
    AnySession(session): AnySession,
    Place(vault): Place<String>,
    body: Cbor<GetEnvelopes>,
) -> Answer {
    let vault = vault_of(&app, &session, &vault).await?;
    if body.value.0.len() > limits::PAGE_ENTRIES_MAX {
        return Err(ApiError::new(Code::TooLarge, "more than 4,096 envelopes"));
    }
    let reserved = app.budget.reserve(PAGE_RESERVE_BYTES).await?;
    let (entries, more) = app.store.envelopes(vault.key, body.value.0).await?;
    Ok(cbor_reserved(&Entries { more, entries }, reserved))
}

/// `GET /v1/vaults/{v}/records/{r}/history`.
pub(crate) async fn history(
    State(app): State<App>,
    AnySession(session): AnySession,
    Place((vault, record)): Place<(String, String)>,
) -> Answer {
    let vault = vault_of(&app, &session, &vault).await?;
    let reserved = app.budget.reserve(PAGE_RESERVE_BYTES).await?;
    Ok(cbor_reserved(&History(app.store.history(vault.key, parse_id(&record)?).await?), reserved))
}
