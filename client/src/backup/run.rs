//! A backup run: scan, read, send, record, and at the end the snapshot.

mod send;

use super::Progress;
use super::plan::{Known, document, is_untouched, known_files, lies_in, stat_row};
use super::rules::Rules;
use super::scan::{Entry, Kind, Leave, Scan, Stat, identity_of, scan};
use super::source::{root_of, source_of};
use super::store::{Stored, is_about_the_file, store};
use crate::account::Account;
use crate::blob::Frames;
use crate::error::{ClientError, Result};
use crate::replica::Side;
use crate::rng;
use crate::vault::Vault;
use futures_util::stream::FuturesUnordered;
use lockstep_client_crypto::content::BlobRef;
use lockstep_engine::NewRecord;
use lockstep_engine::files::{
    FILE_TYPE, FileDoc, SNAPSHOT_TYPE, SnapshotDoc, UNREADABLE_NAMED_MAX, file_name,
};
use lockstep_engine::replica::{Pinning, Policy};
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::{BlobId, RecordId, SourceId};
use std::collections::{HashMap, HashSet, VecDeque};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Records are made durable here and sent when so many wait.
const BATCH_RECORDS: usize = 1000;
/// Bytes of records that wait, beside the count.
const BATCH_BYTES: usize = 1024 * 1024;
/// Records do not wait longer than this.
const FLUSH_INTERVAL: Duration = Duration::from_secs(30);
/// Files read and sealed at once.
const READERS_MAX: usize = 3;

/// Options of a run.
pub struct Options {
    /// What is left out.
    pub rules: Rules,
    /// The source's root in the place of the path: of contents that have none of their own ([`super::Input`]).
    pub known_as: Option<PathBuf>,
    /// Tags of the snapshots.
    pub tags: Vec<String>,
    /// Set to stop cleanly.
    pub stop: Arc<AtomicBool>,
}

/// What a run of one source came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The root.
    pub root: PathBuf,
    /// Id of the snapshot.
    pub snapshot: String,
    /// Files, folders, links, bytes.
    pub counts: (u64, u64, u64, u64),
    /// Entries written, because they are new or changed.
    pub changed: u64,
    /// Entries deleted.
    pub deleted: u64,
    /// What could not be read, with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
    /// FIFOs, sockets and devices.
    pub special: Vec<PathBuf>,
    /// Files of rules in the tree that could not be followed, with the reason.
    pub rules_unread: Vec<(PathBuf, String)>,
    /// Entries that rules left out, without what is below them.
    pub left_out: u64,
}

/// Backs up a root into a vault.
///
/// # Errors
/// [`ClientError`]; what was sent stays, and the same run goes on there.
pub async fn backup(
    account: &mut Account,
    vault: &mut Vault,
    root: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome> {
    let root = root_of(root).map_err(|error| ClientError::io(root, error))?;
    let start_utc = rng::now_utc();
    let begin_ms = rng::now_ms();
    let begin = (
        i64::try_from(begin_ms / 1000).unwrap_or(i64::MAX),
        u32::try_from(begin_ms % 1000).unwrap_or(0).saturating_mul(1_000_000),
    );
    let leave = Leave { rules: &options.rules, home: identity_of(account.home().path()) };
    let found = scan(&root, &leave).map_err(|error| ClientError::io(&root, error))?;
    sync_or_abandon(account, vault).await?;
    let known_as = options.known_as.clone().unwrap_or_else(|| root.clone());
    let source = source_of(account, vault, &known_as)?;
    let mut run = Run {
        known: known_files(vault, source.0.id)?,
        source: source.0.id,
        root,
        begin,
        account,
        vault,
        batch: Vec::new(),
        batch_bytes: 0,
        flushed: Instant::now(),
        stats: Vec::new(),
        frames: Frames::default(),
        framed: Vec::new(),
        uploads: FuturesUnordered::new(),
        outcome: Outcome { root: known_as, ..Outcome::default() },
        progress: Progress::default(),
    };
    if let Some(record) = source.1 {
        run.batch.push(record);
    }
    run.go(found, options, progress).await?;
    run.finish(start_utc, options).await
}

/// Brings a vault up to date. Pending writes of an interrupted run may name objects that were collected
/// meanwhile: they are taken back, this run writes them again.
async fn sync_or_abandon(account: &mut Account, vault: &mut Vault) -> Result<()> {
    const ROUNDS_MAX: usize = 4096;
    for _ in 0..ROUNDS_MAX {
        match account.sync_vault(vault).await {
            Err(error) if error.code() == Some(Code::MissingObject) => {
                let ClientError::Refused { names, .. } = &error else { return Err(error) };
                let blobs: Vec<BlobId> = names.iter().filter_map(|name| name.parse().ok()).collect();
                if blobs.is_empty() {
                    return Err(error);
                }
                vault.abandon(blobs).await?;
            }
            other => return other,
        }
    }
    Err(ClientError::Server("it keeps missing objects".into()))
}

type Upload = JoinHandle<Result<Vec<Ready>>>;
type Reading = JoinHandle<std::result::Result<Stored, String>>;

/// A file whose contents are at the server, or ride in its record.
struct Ready {
    doc: FileDoc,
    blob: Option<BlobRef>,
    stat: Stat,
}

struct Run<'a> {
    known: HashMap<Vec<u8>, Known>,
    source: SourceId,
    root: PathBuf,
    begin: (i64, u32),
    account: &'a mut Account,
    vault: &'a mut Vault,
    batch: Vec<NewRecord>,
    batch_bytes: usize,
    flushed: Instant,
    stats: Vec<(RecordId, Vec<u8>)>,
    frames: Frames,
    framed: Vec<Ready>,
    uploads: FuturesUnordered<Upload>,
    outcome: Outcome,
    progress: Progress,
}

impl Run<'_> {
    async fn go(&mut self, found: Scan, options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        self.progress.entries_total = u64::try_from(found.entries.len()).ok();
        let bytes =
            found.entries.iter().filter(|entry| entry.kind == Kind::File).map(|entry| entry.stat.size);
        self.progress.bytes_total = Some(bytes.fold(0, u64::saturating_add));
        self.unreadable(found.unreadable);
        self.outcome.special = found.special.iter().map(|path| self.full(path)).collect();
        self.outcome.rules_unread =
            found.rules_unread.into_iter().map(|(path, reason)| (self.full(&path), reason)).collect();
        self.outcome.left_out = found.left_out;
        // Reading and sealing run ahead on other threads, in order, a few files at a time.
        let mut reading: VecDeque<(Entry, Option<Reading>)> = VecDeque::new();
        let mut entries = found.entries.into_iter();
        loop {
            if options.stop.load(Ordering::Relaxed) {
                self.flush(true).await?;
                return Err(ClientError::Interrupted);
            }
            while reading.len() < READERS_MAX
                && let Some(entry) = entries.next()
            {
                let task = self.begin_reading(&entry)?;
                reading.push_back((entry, task));
            }
            let Some((entry, task)) = reading.pop_front() else { break };
            match task {
                Some(task) => {
                    let stored =
                        task.await.map_err(|_| ClientError::Damaged("a reading thread failed".into()))?;
                    self.take(&entry, stored).await?;
                }
                None => self.take_without_contents(&entry),
            }
            self.count(&entry);
            progress(self.progress);
            self.flush(false).await?;
        }
        self.delete_missing();
        self.flush(true).await
    }

    fn full(&self, path: &[u8]) -> PathBuf {
        let root = &self.outcome.root;
        if path.is_empty() { root.clone() } else { root.join(std::ffi::OsStr::from_bytes(path)) }
    }

    fn unreadable(&mut self, found: Vec<(Vec<u8>, String)>) {
        // What could not be read is never taken for deleted; neither is what lies below it.
        let unread: HashSet<&[u8]> = found.iter().map(|(path, _)| path.as_slice()).collect();
        if !unread.is_empty() {
            self.known.retain(|known, _| !lies_in(known, &unread));
        }
        drop(unread);
        for (path, reason) in found {
            let path = self.full(&path);
            self.outcome.unreadable.push((path, reason));
        }
    }

    /// Starts reading a file that may have changed; none for everything that needs no reading.
    fn begin_reading(&self, entry: &Entry) -> Result<Option<Reading>> {
        if entry.kind != Kind::File {
            return Ok(None);
        }
        let known = self.known.get(&entry.path);
        if let Some(known) = known
            && is_untouched(&self.vault.replica, known.record, &entry.stat)?
        {
            return Ok(None);
        }
        let keys = Arc::clone(&self.vault.setup.keys);
        let (source, root, entry) = (self.source, self.root.clone(), entry.clone());
        let known = known.map(|known| Known {
            record: known.record,
            doc: known.doc.clone(),
            blob: known.blob.clone(),
        });
        Ok(Some(tokio::task::spawn_blocking(move || store(&keys, source, &root, &entry, known.as_ref()))))
    }

    fn take_without_contents(&mut self, entry: &Entry) {
        let known = self.known.remove(&entry.path);
        if entry.kind == Kind::File {
            // Untouched since it was read last.
            return;
        }
        let doc = document(self.source, entry, &entry.stat);
        if known.is_none_or(|known| known.doc != doc) {
            self.record(Ready { doc, blob: None, stat: entry.stat });
        }
    }

    async fn take(&mut self, entry: &Entry, stored: std::result::Result<Stored, String>) -> Result<()> {
        let known = self.known.remove(&entry.path);
        match stored {
            Err(reason) => {
                let path = self.full(&entry.path);
                self.outcome.unreadable.push((path, reason));
            }
            Ok(Stored::Record(doc, blob, stat)) => {
                if known.is_some_and(|known| known.doc == doc && known.blob == blob) {
                    self.remember(&doc, &stat);
                } else {
                    self.record(Ready { doc, blob, stat });
                }
            }
            Ok(Stored::Framed(doc, blob, object, stat)) => {
                self.progress.sent_bytes = self.progress.sent_bytes.saturating_add(blob.size);
                self.frames.push(blob.blob, &object);
                self.framed.push(Ready { doc, blob: Some(blob), stat });
                if self.frames.is_full() {
                    self.send_frames().await?;
                }
            }
            Ok(Stored::Large(doc, hash, mut file, stat)) => {
                let record = self.vault.setup.keys.record_id(FILE_TYPE, &file_name(self.source, &entry.path));
                match self.upload(record, hash, &mut file, &stat).await {
                    Ok(blob) => {
                        self.record(Ready { doc, blob: Some(blob), stat });
                        // Named soon, so that it is not collected while other large files are on their way.
                        self.batch_bytes = BATCH_BYTES;
                    }
                    Err(error) if is_about_the_file(&error) => {
                        let path = self.full(&entry.path);
                        self.outcome.unreadable.push((path, "it changed while it was sent".into()));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, ready: Ready) {
        self.remember(&ready.doc, &ready.stat);
        self.outcome.changed += 1;
        let document = ready.doc.encode();
        self.batch_bytes = self.batch_bytes.saturating_add(document.len());
        self.batch.push(NewRecord {
            record_type: FILE_TYPE.into(),
            name: file_name(self.source, &ready.doc.path.0),
            schema: 1,
            document: Some(document),
            blobs: ready.blob.into_iter().collect(),
            policy: Policy::Overwrite,
            pin: Pinning::None,
            expected: None,
        });
    }

    fn remember(&mut self, doc: &FileDoc, stat: &Stat) {
        let record = self.vault.setup.keys.record_id(FILE_TYPE, &file_name(self.source, &doc.path.0));
        if let Some(row) = stat_row(stat, self.begin) {
            self.stats.push((record, row));
        }
    }

    fn count(&mut self, entry: &Entry) {
        let counts = &mut self.outcome.counts;
        match entry.kind {
            Kind::File => {
                counts.0 += 1;
                counts.3 = counts.3.saturating_add(entry.stat.size);
                self.progress.bytes = self.progress.bytes.saturating_add(entry.stat.size);
            }
            Kind::Folder => counts.1 += 1,
            Kind::Link(_) => counts.2 += 1,
        }
        self.progress.entries += 1;
    }

    /// What was known and was not met is gone.
    fn delete_missing(&mut self) {
        let gone: Vec<Vec<u8>> = self.known.drain().map(|(path, _)| path).collect();
        self.outcome.deleted = u64::try_from(gone.len()).unwrap_or(u64::MAX);
        for path in gone {
            self.batch.push(NewRecord {
                record_type: FILE_TYPE.into(),
                name: file_name(self.source, &path),
                schema: 1,
                document: None,
                blobs: Vec::new(),
                policy: Policy::Overwrite,
                pin: Pinning::None,
                expected: None,
            });
        }
    }

    /// Makes waiting records durable and sends them, when there are enough or at the end.
    async fn flush(&mut self, everything: bool) -> Result<()> {
        if everything {
            self.send_frames().await?;
            while !self.uploads.is_empty() {
                self.one_upload().await?;
            }
        }
        let is_old = self.flushed.elapsed() >= FLUSH_INTERVAL;
        let is_due = self.batch.len() >= BATCH_RECORDS || self.batch_bytes >= BATCH_BYTES || is_old;
        if self.batch.is_empty() || !(everything || is_due) {
            return if everything { self.flush_stats() } else { Ok(()) };
        }
        self.batch_bytes = 0;
        self.flushed = Instant::now();
        self.vault.put(std::mem::take(&mut self.batch)).await?;
        self.account.send(self.vault).await?;
        self.flush_stats()
    }

    /// The stat cache follows what is durable, never leads it.
    fn flush_stats(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.stats);
        self.vault.replica.set_side(Side::Stat, &rows)
    }

    async fn finish(mut self, start_utc: u64, options: &Options) -> Result<Outcome> {
        let id: [u8; 16] = rng::bytes();
        let counts = self.outcome.counts;
        let unreadable = u64::try_from(self.outcome.unreadable.len()).unwrap_or(u64::MAX);
        let doc = SnapshotDoc {
            source: self.source,
            start_utc,
            end_utc: rng::now_utc(),
            roots: vec![self.outcome.root.as_os_str().as_bytes().into()],
            tags: options.tags.clone(),
            counts: (counts.0, counts.1, counts.2, counts.3, unreadable),
            unreadable: named(&self.outcome.unreadable),
        };
        let record = NewRecord {
            record_type: SNAPSHOT_TYPE.into(),
            name: id.to_vec(),
            schema: 1,
            document: Some(doc.encode()),
            blobs: Vec::new(),
            policy: Policy::KeepBoth,
            pin: Pinning::Pin,
            expected: None,
        };
        self.vault.put(vec![record]).await?;
        self.account.send(self.vault).await?;
        self.outcome.snapshot = rng::hex(&id);
        Ok(self.outcome)
    }
}

/// The first unreadable paths, as many as a record can name.
fn named(unreadable: &[(PathBuf, String)]) -> Vec<lockstep_proto::Bytes> {
    const BYTES_MAX: usize = 256 * 1024;
    let mut left = BYTES_MAX;
    let mut names = Vec::new();
    for (path, _) in unreadable.iter().take(UNREADABLE_NAMED_MAX) {
        let bytes = path.as_os_str().as_bytes();
        let Some(rest) = left.checked_sub(bytes.len().saturating_add(8)) else { break };
        left = rest;
        names.push(bytes.into());
    }
    names
}
