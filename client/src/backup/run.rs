//! A backup run: scan, then groups of files are read, sealed and sent ahead on other threads, while what is done of them, in
//! their order, is recorded here; at the end the snapshot.

mod send;
mod take;

use super::Progress;
use super::group::{GROUP_BYTES, GROUP_FILES, Item, Reader, framed_bytes};
use super::known::{KnownFiles, known_at, record_of};
use super::plan::{Known, document, lies_in};
use super::rules::Rules;
use super::scan::{Entry, Kind, Leave, Scan, Stat, identity_of, scan};
use super::source::{root_of, source_of};
use crate::account::Account;
use crate::error::{ClientError, Result};
use crate::rng;
use crate::vault::Vault;
use lockstep_client_crypto::content::BlobRef;
use lockstep_engine::NewRecord;
use lockstep_engine::files::{
    FILE_TYPE, FileDoc, SNAPSHOT_TYPE, SnapshotDoc, UNREADABLE_NAMED_MAX, file_name,
};
use lockstep_engine::replica::{Pinning, Policy};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::{BlobId, RecordId, SourceId};
use send::{Work, abandon_and_sync};
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Records are made durable here and sent when so many wait.
const BATCH_RECORDS: usize = 4096;
/// Bytes of records that wait, beside the count.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Records do not wait longer than this.
const FLUSH_INTERVAL: Duration = Duration::from_secs(30);
/// Groups under way at once.
const GROUPS_MAX: usize = 6;
/// Bytes of files under way at once; one file more, however large.
const UNDER_WAY_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// A run is begun anew so often, if the server lost what it had taken.
const ROUNDS_MAX: usize = 3;

/// Options of a run.
pub struct Options {
    /// What is left out.
    pub rules: Rules,
    /// The source's root in the place of the path: of contents that have none of their own ([`super::Input`]).
    pub known_as: Option<PathBuf>,
    /// Tags of the snapshots.
    pub tags: Vec<String>,
    /// Whether contents that this device sent into the vault before are not sent again.
    pub deduplicate: bool,
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
    let mut lost: BTreeSet<BlobId> = abandon_and_sync(account, vault).await?.into_iter().collect();
    for _ in 0..ROUNDS_MAX {
        let mut run = Run::begin(account, vault, &root, options, lost)?;
        let found = run.scan(options)?;
        run.go(found, options, progress).await?;
        if !run.is_again {
            return run.finish(start_utc, options).await;
        }
        lost = run.lost;
    }
    Err(ClientError::Server("it keeps losing objects that it had taken".into()))
}

/// A file whose contents are at the server, or ride in its record.
struct Ready {
    doc: FileDoc,
    blob: Option<BlobRef>,
    stat: Stat,
    kind: Kind,
    record: RecordId,
}

struct Run<'a> {
    known: KnownFiles,
    source: SourceId,
    root: PathBuf,
    begin: (i64, u32),
    account: &'a mut Account,
    vault: &'a mut Vault,
    reader: Arc<Reader>,
    batch: Vec<NewRecord>,
    batch_bytes: usize,
    flushed: Instant,
    stats: Vec<(RecordId, [u8; 16])>,
    under_way: VecDeque<Work>,
    /// Files that are to be read once more.
    again: Vec<Item>,
    /// Whether the server lost what it had taken, so that the run has to be done again.
    is_again: bool,
    /// Objects that the server has not got: records that name them do not say where contents are.
    lost: BTreeSet<BlobId>,
    deduplicate: bool,
    outcome: Outcome,
    progress: Progress,
}

/// What comes next.
enum Next {
    /// Files to be read together.
    Group(Vec<Item>),
    /// A file that is sent in parts.
    Large(Box<Item>),
    /// Records wait to be sent.
    Due,
    /// Nothing.
    End,
}

type Entries = std::iter::Peekable<std::vec::IntoIter<Entry>>;

impl<'a> Run<'a> {
    fn begin(
        account: &'a mut Account,
        vault: &'a mut Vault,
        root: &Path,
        options: &Options,
        lost: BTreeSet<BlobId>,
    ) -> Result<Self> {
        let begin_ms = rng::now_ms();
        let begin = (
            i64::try_from(begin_ms / 1000).unwrap_or(i64::MAX),
            u32::try_from(begin_ms % 1000).unwrap_or(0).saturating_mul(1_000_000),
        );
        let known_as = options.known_as.clone().unwrap_or_else(|| root.to_path_buf());
        let (source, record) = source_of(account, vault, &known_as)?;
        let keys = Arc::clone(&vault.setup.keys);
        let local = vault.replica.db().shared_keys();
        let seen = vault.replica.content_marks()?;
        let reader = Reader::new(keys, local, source.id, root.to_path_buf(), seen, Arc::clone(&options.stop));
        Ok(Self {
            known: KnownFiles::load(vault, source.id)?,
            source: source.id,
            root: root.to_path_buf(),
            begin,
            account,
            vault,
            reader: Arc::new(reader),
            batch: record.into_iter().collect(),
            batch_bytes: 0,
            flushed: Instant::now(),
            stats: Vec::new(),
            under_way: VecDeque::new(),
            again: Vec::new(),
            is_again: false,
            lost,
            deduplicate: options.deduplicate,
            outcome: Outcome { root: known_as, ..Outcome::default() },
            progress: Progress::default(),
        })
    }

    fn scan(&self, options: &Options) -> Result<Scan> {
        let leave = Leave { rules: &options.rules, home: identity_of(self.account.home().path()) };
        scan(&self.root, &leave).map_err(|error| ClientError::io(&self.root, error))
    }

    async fn go(&mut self, found: Scan, options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        self.progress.entries_total = u64::try_from(found.entries.len()).ok();
        let bytes =
            found.entries.iter().filter(|entry| entry.kind == Kind::File).map(|entry| entry.stat.size);
        self.progress.bytes_total = Some(bytes.fold(0, u64::saturating_add));
        self.outcome.special = found.special.iter().map(|path| self.full(path)).collect();
        for (path, reason) in &found.unreadable {
            let path = self.full(path);
            self.outcome.unreadable.push((path, reason.clone()));
        }
        self.outcome.rules_unread =
            found.rules_unread.iter().map(|(path, reason)| (self.full(path), reason.clone())).collect();
        self.outcome.left_out = found.left_out;
        let mut entries = found.entries.into_iter().peekable();
        if let Err(error) = self.work(&mut entries, options, progress).await {
            // What others have sent meanwhile is not sent again by the next run.
            self.keep_what_was_sent().await?;
            return Err(error);
        }
        let unread = found.unreadable.into_iter().map(|(path, _)| path).collect();
        self.delete_missing(&unread).await?;
        self.flush(true).await
    }

    /// Reads, sends and records everything that was found.
    async fn work(
        &mut self,
        entries: &mut Entries,
        options: &Options,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        loop {
            if options.stop.load(Ordering::Relaxed) {
                self.stop().await?;
                return Err(ClientError::Interrupted);
            }
            let mut is_due = false;
            while self.has_room() && !is_due {
                match self.next(entries, progress)? {
                    Next::Group(items) => self.begin_group(items),
                    Next::Large(item) => self.begin_large(item),
                    Next::Due => is_due = true,
                    Next::End => break,
                }
            }
            match self.under_way.pop_front() {
                Some(work) if !is_due => self.done(work).await?,
                Some(work) => self.under_way.push_front(work),
                None if !is_due && self.again.is_empty() => return Ok(()),
                None => {}
            }
            progress(self.progress);
            self.flush(false).await?;
        }
    }

    fn has_room(&self) -> bool {
        let bytes = self.under_way.iter().map(Work::bytes).fold(0, u64::saturating_add);
        self.under_way.len() < GROUPS_MAX && bytes < UNDER_WAY_BYTES_MAX
    }

    /// Passes over what was not touched, records what needs no reading, and gathers what does.
    fn next(&mut self, entries: &mut Entries, progress: &mut dyn FnMut(Progress)) -> Result<Next> {
        const LOOKS: usize = 4096;
        let (mut group, mut bytes) = (Vec::new(), 0_u64);
        let mut looks = 0;
        if let Some(item) = self.again.pop() {
            // Alone: its size is not what it was.
            return Ok(if framed_bytes(item.entry.stat.size).is_some() {
                Next::Group(vec![item])
            } else {
                Next::Large(Box::new(item))
            });
        }
        while let Some(entry) = entries.peek() {
            let size = entry.stat.size;
            let framed = if entry.kind == Kind::File { framed_bytes(size) } else { Some(0) };
            let room = u64::try_from(lockstep_proto::limits::FRAMES_BODY_BYTES_MAX).unwrap_or(u64::MAX);
            if framed.is_none_or(|framed| bytes.saturating_add(framed) > room) && !group.is_empty() {
                break;
            }
            looks += 1;
            if looks > LOOKS && group.is_empty() {
                // Others want their turn.
                progress(self.progress);
                return Ok(Next::Due);
            }
            let Some(entry) = entries.next() else { break };
            let Some(item) = self.look(entry)? else {
                if self.is_due() {
                    if group.is_empty() {
                        return Ok(Next::Due);
                    }
                    break;
                }
                continue;
            };
            let Some(framed) = framed else { return Ok(Next::Large(Box::new(item))) };
            // What rides in records takes memory, too.
            bytes = bytes.saturating_add(framed.max(size));
            group.push(item);
            if bytes >= GROUP_BYTES || group.len() >= GROUP_FILES {
                break;
            }
        }
        Ok(if group.is_empty() { Next::End } else { Next::Group(group) })
    }

    /// Looks at an entry; gives it back if it is to be read.
    fn look(&mut self, entry: Entry) -> Result<Option<Item>> {
        let record = record_of(self.vault, self.source, &entry.path);
        let is_known = self.known.meet(record);
        if is_known && self.known.is_untouched(record, &entry) {
            self.count(&entry.kind, entry.stat.size);
            return Ok(None);
        }
        let known = if is_known { known_at(self.vault, record)? } else { None };
        if entry.kind == Kind::File {
            let is_lost =
                |known: &Known| known.blob.as_ref().is_some_and(|blob| self.lost.contains(&blob.blob));
            let known = known.filter(|known| !is_lost(known));
            return Ok(Some(Item { entry, record, known, anew: !self.deduplicate, tries: 0 }));
        }
        self.count(&entry.kind, entry.stat.size);
        let doc = document(self.source, &entry, &entry.stat);
        let is_same = known.is_some_and(|known| known.doc == doc && known.blob.is_none());
        let ready = Ready { doc, blob: None, stat: entry.stat, kind: entry.kind, record };
        if is_same {
            self.remember(&ready);
        } else {
            self.record(ready);
        }
        Ok(None)
    }

    fn full(&self, path: &[u8]) -> PathBuf {
        let root = &self.outcome.root;
        if path.is_empty() { root.clone() } else { root.join(std::ffi::OsStr::from_bytes(path)) }
    }

    fn record(&mut self, ready: Ready) {
        self.remember(&ready);
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

    fn remember(&mut self, ready: &Ready) {
        self.stats.extend(self.known.stat_row(ready.record, &ready.kind, &ready.stat, self.begin));
    }

    fn count(&mut self, kind: &Kind, size: u64) {
        let counts = &mut self.outcome.counts;
        match kind {
            Kind::File => {
                counts.0 += 1;
                counts.3 = counts.3.saturating_add(size);
                self.progress.bytes = self.progress.bytes.saturating_add(size);
            }
            Kind::Folder => counts.1 += 1,
            Kind::Link(_) => counts.2 += 1,
        }
        self.progress.entries += 1;
    }

    /// What was known and was not met is gone; what could not be read is not, and neither is what lies below it.
    async fn delete_missing(&mut self, unread: &HashSet<Vec<u8>>) -> Result<()> {
        let unread: HashSet<&[u8]> = unread.iter().map(Vec::as_slice).collect();
        for record in self.known.unmet() {
            let Some(known) = known_at(self.vault, record)? else { continue };
            if !unread.is_empty() && lies_in(&known.doc.path.0, &unread) {
                continue;
            }
            self.outcome.deleted += 1;
            self.batch.push(NewRecord {
                record_type: FILE_TYPE.into(),
                name: file_name(self.source, &known.doc.path.0),
                schema: 1,
                document: None,
                blobs: Vec::new(),
                policy: Policy::Overwrite,
                pin: Pinning::None,
                expected: None,
            });
            self.flush(false).await?;
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        self.batch.len() >= BATCH_RECORDS
            || self.batch_bytes >= BATCH_BYTES
            || self.stats.len() >= BATCH_RECORDS
            || self.flushed.elapsed() >= FLUSH_INTERVAL
    }

    /// Makes waiting records durable and sends them, when there are enough or at the end.
    async fn flush(&mut self, everything: bool) -> Result<()> {
        if !(everything || self.is_due()) {
            return Ok(());
        }
        self.batch_bytes = 0;
        self.flushed = Instant::now();
        if !self.batch.is_empty() {
            self.vault.put(std::mem::take(&mut self.batch)).await?;
            self.send().await?;
        }
        // The stat cache follows what is durable, never leads it.
        let rows = std::mem::take(&mut self.stats);
        self.vault.replica.set_stat_tags(&rows)
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
