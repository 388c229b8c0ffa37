//! Checking a vault: the chain and every signature again from genesis, the state digest, every envelope
//! here and at the server, and on demand every object.

use crate::error::{ClientError, Result};
use crate::fetch::{Fetched, Fetcher, Sink};
use crate::late;
use crate::vault::Vault;
use lockstep_client_crypto::content::BlobRef;
use lockstep_engine::EngineError;
use lockstep_engine::files::FILE_TYPE;
use lockstep_engine::read;
use lockstep_engine::replica::{RecordRow, Replica as _};
use lockstep_proto::api::vault::{Entries, Entry, Page};
use lockstep_proto::chain::{self, Owner, Tip};
use lockstep_proto::commit::{Change, Commit};
use lockstep_proto::envelope::{self, KIND_DOCUMENT, KIND_TOMBSTONE};
use lockstep_proto::id::{RecordId, Revision, Seq};
use lockstep_proto::state::StateDigest;
use lockstep_proto::{Digest, limits};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Records that no commit wrote, after which a server is not asked for more.
const STRANGERS_MAX: usize = 1000;

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Commits verified.
    pub commits: u64,
    /// Records compared.
    pub records: u64,
    /// Objects read.
    pub objects: u64,
    /// Bytes of contents read.
    pub bytes: u64,
    /// Records whose envelopes are not held here, by the device's selection, or because they did not come: the server's
    /// were compared.
    pub not_held: u64,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// Checks a vault that was just synced.
///
/// # Errors
/// [`ClientError`] if the check itself can not be done.
pub async fn check(vault: &Vault, read_data: bool, progress: &mut dyn FnMut(&Report)) -> Result<Report> {
    let mut report = Report::default();
    let expected = check_chain(vault, &mut report)?;
    progress(&report);
    let mut blobs = check_records(vault, &expected, &mut report)?;
    check_server_chain(vault, &mut report).await?;
    check_server(vault, &expected, &mut blobs, &mut report, progress).await?;
    for snapshot in vault.snapshots()? {
        match vault.files_of(&snapshot).await {
            Ok(found) => {
                for (path, reason) in found.failed {
                    report.problems.push(format!("snapshot {}: {path}: {reason}", snapshot.id));
                }
                blobs.extend(found.files.into_iter().filter_map(|file| Some((file.record, file.blob?))));
            }
            Err(
                error @ (ClientError::Incomplete(_)
                | ClientError::RecordRollback(_)
                | ClientError::Server(_)
                | ClientError::Damaged(_)),
            ) => {
                report.problems.push(format!("snapshot {}: {error}", snapshot.id));
            }
            Err(error) => return Err(error),
        }
        progress(&report);
    }
    if read_data {
        check_objects(vault, blobs, &mut report, progress).await?;
    }
    Ok(report)
}

type Live = BTreeMap<RecordId, (Revision, Digest, Seq, u8)>;

/// Walks the stored chain from genesis; gives the live set that it amounts to.
fn check_chain(vault: &Vault, report: &mut Report) -> Result<Live> {
    let id = vault.setup().vault();
    let log = vault.device_log();
    let mut live = Live::new();
    let Some(head) = vault.replica().head()? else { return Ok(live) };
    let missing = |seq: Seq| ClientError::Damaged(format!("commit {seq} of vault {id} is missing here"));
    let wrong =
        |error: &dyn std::fmt::Display| ClientError::Damaged(format!("the local chain is damaged: {error}"));
    let zero = Seq::new(0);
    let (genesis, _) = vault.replica().commit(zero)?.ok_or_else(|| missing(zero))?;
    let setup = vault.setup();
    let born = chain::verify_birth(id, setup.account, log.identity(), &**log, &setup.create, &genesis);
    let mut tip = born.map_err(|error| wrong(&error))?.tip();
    let mut state = StateDigest::default();
    report.commits = 1;
    let skipped = late::skipped(vault.replica())?;
    let owner = Owner { account: setup.account, identity: log.identity() };
    while tip.seq < head.tip.seq {
        if let Some((_, repair)) = skipped.iter().find(|(to, _)| *to == tip.seq)
            && let Some(last) = repair.previous()
        {
            // What lies between does not count; the repair that says so is verified like any commit.
            let hash = vault.replica().commit_hash(last)?.ok_or_else(|| missing(last))?;
            tip = Tip { seq: last, hash, ..tip };
        }
        let seq = tip.seq.next();
        let (signed, changes) = vault.replica().commit(seq)?.ok_or_else(|| missing(seq))?;
        let target = seq.skip_target();
        let skip = vault.replica().commit_hash(target)?.ok_or_else(|| missing(target))?;
        let verified = chain::verify_next(&tip, skip, &**log, &signed).map_err(|error| wrong(&error))?;
        let list = chain::verify_changes(verified.commit(), &changes).map_err(|error| wrong(&error))?;
        chain::verify_kind(&tip, owner, &**log, &verified, &list).map_err(|error| wrong(&error))?;
        for change in &list.0 {
            let Some((record, revision, digest)) = change.version() else { continue };
            let kind = if matches!(change, Change::Put { .. }) { KIND_DOCUMENT } else { KIND_TOMBSTONE };
            if let Some((revision, digest, seq, _)) = live.insert(record, (revision, digest, seq, kind)) {
                state.remove(record, revision, digest, seq);
            }
            state.add(record, revision, digest, seq);
        }
        if state.checksum() != verified.commit().state {
            return Err(wrong(&format!("the state digest of commit {seq} does not fit its changes")));
        }
        tip = verified.tip();
        report.commits += 1;
    }
    if tip != head.tip {
        return Err(wrong(&"the head is not the one that was verified"));
    }
    Ok(live)
}

/// Every record here is as the chain says, and opens. Gives the objects that are referred to.
fn check_records(vault: &Vault, expected: &Live, report: &mut Report) -> Result<Vec<(RecordId, BlobRef)>> {
    let mut blobs = Vec::new();
    let mut after = None;
    let mut count = 0_usize;
    loop {
        let page = vault.replica().records_after(after, 1000)?;
        let Some(last) = page.last() else { break };
        after = Some(last.record);
        for row in &page {
            count += 1;
            let fits = expected.get(&row.record) == Some(&(row.revision, row.digest, row.seq, row.kind));
            if !fits {
                report
                    .problems
                    .push(format!("record {}: the local row is not what the chain says", row.record));
                continue;
            }
            check_record(vault, row, &mut blobs, report)?;
        }
    }
    if count != expected.len() {
        report.problems.push(format!(
            "{} records are missing in the local database",
            expected.len() - count.min(expected.len())
        ));
    }
    Ok(blobs)
}

fn check_record(
    vault: &Vault,
    row: &RecordRow,
    blobs: &mut Vec<(RecordId, BlobRef)>,
    report: &mut Report,
) -> Result<()> {
    report.records += 1;
    if !row.present {
        report.not_held += 1;
        return Ok(());
    }
    let opened = match read::open(vault.replica(), &vault.setup().keys, row) {
        Ok(opened) => opened,
        Err(error) => {
            report.problems.push(error.to_string());
            return Ok(());
        }
    };
    if let Some(content) = opened {
        blobs.extend(content.blobs.into_iter().map(|blob| (row.record, blob)));
        return Ok(());
    }
    report.problems.push(does_not_open(vault, row.record, row.seq)?);
    Ok(())
}

fn does_not_open(vault: &Vault, record: RecordId, seq: Seq) -> Result<String> {
    let author = vault.replica().commit(seq)?.and_then(|(signed, _)| author(&signed.bytes.0));
    let author = author.map_or_else(String::new, |device| format!(" by device {device}"));
    Ok(format!("record {record} of commit {seq}{author}: its envelope does not open"))
}

fn author(commit: &[u8]) -> Option<lockstep_proto::DeviceId> {
    use lockstep_proto::cbor::Wire as _;
    Commit::decode(commit).ok().map(|commit| commit.device)
}

/// The server still has every commit, unchanged: a new device needs them.
async fn check_server_chain(vault: &Vault, report: &mut Report) -> Result<()> {
    let Some(head) = vault.replica().head()? else { return Ok(()) };
    let base = format!("/v1/vaults/{}/commits", vault.setup().vault());
    let mut next = Seq::new(0);
    while next <= head.tip.seq {
        let query = next.previous().map_or_else(String::new, |after| format!("?after={after}"));
        let page: Page = match vault.api().get(&format!("{base}{query}")).await {
            Ok(page) => page,
            Err(ClientError::Server(what) | ClientError::Busy(what)) => {
                report
                    .problems
                    .push(format!("commits from {next} on can not be had from the server: {what}"));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if page.commits.is_empty() {
            report.problems.push(format!("commit {next} and what follows is missing at the server"));
            return Ok(());
        }
        for entry in &page.commits {
            let here = vault.replica().commit(next)?;
            let changes = entry.changes.as_ref().map(|changes| &changes.0);
            let same =
                here.as_ref().is_some_and(|(signed, list)| *signed == entry.commit && Some(list) == changes);
            if !same && next <= head.tip.seq {
                report.problems.push(format!("commit {next} is missing or damaged at the server"));
                return Ok(());
            }
            next = next.next();
        }
    }
    Ok(())
}

/// The server still has every live envelope, unchanged.
async fn check_server(
    vault: &Vault,
    expected: &Live,
    blobs: &mut Vec<(RecordId, BlobRef)>,
    report: &mut Report,
    progress: &mut dyn FnMut(&Report),
) -> Result<()> {
    let Some(head) = vault.replica().head()? else { return Ok(()) };
    let mut unseen: BTreeSet<RecordId> = expected.keys().copied().collect();
    let mut place: Option<(Seq, RecordId)> = None;
    let known = report.problems.len().saturating_add(expected.len().saturating_mul(2));
    let problems_max = known.saturating_add(STRANGERS_MAX);
    let base = format!("/v1/vaults/{}/state?upto={}", vault.setup().vault(), head.tip.seq);
    loop {
        let path = match place {
            None => base.clone(),
            Some((seq, record)) => format!("{base}&from-seq={seq}&from-record={record}"),
        };
        let page: Entries = vault.api().get(&path).await?;
        for entry in &page.entries {
            // What nobody wrote can be shown without an end.
            if report.problems.len() > problems_max {
                return Err(ClientError::Server("it shows ever more records that no commit wrote".into()));
            }
            let here = (entry.seq, entry.record);
            if place.is_some_and(|last| last >= here) {
                return Err(ClientError::Server("entries do not ascend".into()));
            }
            place = Some(here);
            if check_entry(expected, entry, &mut unseen, report) {
                check_not_held(vault, entry, blobs, report)?;
            }
        }
        progress(report);
        if !page.more {
            break;
        }
        if page.entries.is_empty() || page.entries.len() > limits::PAGE_ENTRIES_MAX {
            return Err(ClientError::Server("it promises more entries and sends none".into()));
        }
    }
    for record in unseen {
        let seq = expected.get(&record).map_or(Seq::new(0), |(_, _, seq, _)| *seq);
        report.problems.push(format!("record {record} of commit {seq} is missing at the server"));
    }
    Ok(())
}

/// Whether it is the one that its commit announced.
fn check_entry(expected: &Live, entry: &Entry, unseen: &mut BTreeSet<RecordId>, report: &mut Report) -> bool {
    let record = entry.record;
    let digest = envelope::digest(&entry.envelope.0);
    match expected.get(&record) {
        None => {
            report.problems.push(format!("the server shows record {record}, which no commit wrote"));
            false
        }
        Some((revision, expected_digest, seq, kind)) => {
            if !unseen.remove(&record) {
                report.problems.push(format!("the server shows record {record} twice"));
            } else if (*revision, *expected_digest, *seq, *kind)
                != (entry.revision, digest, entry.seq, entry.kind)
            {
                report.problems.push(format!("record {record} of commit {seq} is damaged at the server"));
            } else {
                return true;
            }
            false
        }
    }
}

/// What is not held here is looked at as the server shows it: it opens, and names the objects that it needs.
fn check_not_held(
    vault: &Vault,
    entry: &Entry,
    blobs: &mut Vec<(RecordId, BlobRef)>,
    report: &mut Report,
) -> Result<()> {
    let (seq, record) = (entry.seq, entry.record);
    if vault.replica().record(record)?.is_none_or(|row| row.present) {
        return Ok(());
    }
    let Some(version) = vault.replica().version(seq, record)? else { return Ok(()) };
    match read::open_version(vault.replica(), vault.setup(), &version, &entry.envelope.0)? {
        Some(content) => blobs.extend(content.blobs.into_iter().map(|blob| (record, blob))),
        None => report.problems.push(does_not_open(vault, record, seq)?),
    }
    Ok(())
}

/// Counts the contents of an object.
struct Counted {
    /// Its place among those that are read.
    place: usize,
    record: RecordId,
    bytes: u64,
}

impl Sink for Counted {
    fn take(&mut self, contents: &[u8]) -> Result<()> {
        self.bytes = self.bytes.saturating_add(u64::try_from(contents.len()).unwrap_or(u64::MAX));
        Ok(())
    }
}

/// Reads every object once.
async fn check_objects(
    vault: &Vault,
    mut blobs: Vec<(RecordId, BlobRef)>,
    report: &mut Report,
    progress: &mut dyn FnMut(&Report),
) -> Result<()> {
    let mut known = BTreeSet::new();
    blobs.retain(|(_, blob)| known.insert(blob.blob));
    let mut fetcher = Fetcher::new(Arc::clone(vault.api()), Arc::clone(&vault.setup().keys));
    let mut problems = BTreeMap::new();
    let mut left = blobs.into_iter().enumerate();
    loop {
        while fetcher.has_room() {
            let Some((place, (record, blob))) = left.next() else {
                fetcher.flush();
                break;
            };
            fetcher.push(blob, Counted { place, record, bytes: 0 });
        }
        if !fetcher.is_busy() {
            break;
        }
        let Some(Fetched { sink, result }) = fetcher.next().await? else { continue };
        match result {
            Ok(()) => {
                report.objects += 1;
                report.bytes = report.bytes.saturating_add(sink.bytes);
            }
            Err(ClientError::Damaged(what)) => {
                let named = name_of(vault, sink.record)?;
                problems.insert(sink.place, format!("{what} ({named})"));
            }
            Err(error) => return Err(error),
        }
        progress(report);
    }
    report.problems.extend(problems.into_values());
    Ok(())
}

/// What a person calls a record: for a file its path, otherwise its type and name.
fn name_of(vault: &Vault, record: RecordId) -> Result<String> {
    let current = match read::current(vault.replica(), &vault.setup().keys, record) {
        Err(EngineError::NotHeld { .. }) => None,
        other => other?,
    };
    Ok(current.map_or_else(
        || format!("record {record}"),
        |current| {
            let name = &current.content.name.0;
            let shown = if current.content.record_type == FILE_TYPE {
                name.get(16..).unwrap_or_default()
            } else {
                name.as_slice()
            };
            format!("{} {}", current.content.record_type, String::from_utf8_lossy(shown).escape_debug())
        },
    ))
}
