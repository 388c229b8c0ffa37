//! Filling a new vault from an archive's: sources, records, every snapshot in its order, and what the head says beyond
//! the last one.

use super::import::{IMPORT_TYPE, is_own};
use super::index::Index;
use super::mark::Mark;
use super::open::OpenedVault;
use super::send::{Sent, called};
use crate::account::Account;
use crate::backup::plan::{Known, known_files};
use crate::blob::Frames;
use crate::error::{ClientError, Result};
use crate::keyring::record;
use crate::snapshot::{Snapshot, SnapshotFile, SnapshotFiles};
use crate::vault::Vault;
use lockstep_client_crypto::content::Content;
use lockstep_engine::files::{
    FILE_TYPE, FileDoc, SNAPSHOT_TYPE, SOURCE_TYPE, SnapshotDoc, SourceDoc, UNREADABLE_NAMED_MAX, file_name,
};
use lockstep_engine::replica::{Pinning, Policy, Replica as _, VersionRow};
use lockstep_engine::{NewRecord, read};
use lockstep_proto::Digest;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::envelope::KIND_DOCUMENT;
use lockstep_proto::id::{DeviceId, RecordId, SourceId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Names of a snapshot's unreadable files, in bytes.
const NAMES_BYTES_MAX: usize = 256 * 1024;

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Snapshots.
    pub snapshots: u64,
    /// Versions of files, folders and links.
    pub files: u64,
    /// Records of other types.
    pub records: u64,
    /// Bytes of contents sent.
    pub bytes: u64,
}

/// An import of one vault under way.
pub(super) struct Fill<'a> {
    pub(super) account: &'a mut Account,
    pub(super) target: &'a mut Vault,
    pub(super) source: &'a OpenedVault,
    pub(super) index: &'a Arc<Index>,
    mark: Mark,
    stop: &'a Arc<AtomicBool>,
    names: BTreeMap<SourceId, SourceId>,
    pub(super) batch: Vec<NewRecord>,
    pub(super) batch_bytes: usize,
    pub(super) frames: Frames,
    pub(super) framed: Vec<NewRecord>,
    pub(super) tally: Tally,
    pub(super) problems: Vec<String>,
}

/// What a source looks like in the new vault.
struct State {
    new: SourceId,
    known: HashMap<Vec<u8>, Known>,
    /// Versions of the archive that are in `known`.
    taken: HashMap<RecordId, Digest>,
}

impl<'a> Fill<'a> {
    pub(super) fn new(
        account: &'a mut Account,
        target: &'a mut Vault,
        source: &'a OpenedVault,
        index: &'a Arc<Index>,
        mark: Mark,
        stop: &'a Arc<AtomicBool>,
    ) -> Self {
        let names = mark.sources.iter().copied().collect();
        Self {
            account,
            target,
            source,
            index,
            mark,
            stop,
            names,
            batch: Vec::new(),
            batch_bytes: 0,
            frames: Frames::default(),
            framed: Vec::new(),
            tally: Tally::default(),
            problems: Vec::new(),
        }
    }

    pub(super) async fn go(&mut self, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let from = &self.source.vault;
        let mut states = BTreeMap::new();
        for source in from.sources()? {
            let Some(new) = self.names.get(&source.id).copied() else { continue };
            self.source_record(new, &source.doc).await?;
            let known = known_files(self.target, new)?;
            states.insert(source.id, State { new, known, taken: HashMap::new() });
        }
        self.records(progress).await?;
        self.flush().await?;
        let unnamed = self.unnamed()?;
        let snapshots = from.snapshots()?;
        self.name_strays(&states, snapshots.len())?;
        for snapshot in snapshots {
            let Some(state) = states.get_mut(&snapshot.source.id) else { continue };
            self.snapshot(&snapshot, state, &unnamed, progress).await?;
        }
        for (id, state) in &mut states {
            let mut found = SnapshotFiles::default();
            let mut versions = HashMap::new();
            for row in from.replica.list(FILE_TYPE, Some(id.as_bytes()))? {
                versions.insert(row.record, row.digest);
                found.add(*id, row.record, read::open(&from.replica, &from.setup.keys, &row)?);
            }
            self.apply(state, &found, &versions, progress).await?;
            self.flush().await?;
        }
        self.mark.done = true;
        let mut name = self.mark.archive.as_bytes().to_vec();
        name.extend_from_slice(self.mark.vault.as_bytes());
        let done = record(IMPORT_TYPE, name, self.mark.encode(), Policy::Overwrite);
        self.target.put(vec![done]).await?;
        self.account.send(self.target).await
    }

    /// Says what belongs to no source that can be read.
    fn name_strays(&mut self, states: &BTreeMap<SourceId, State>, snapshots: usize) -> Result<()> {
        let replica = &self.source.vault.replica;
        let count = |record_type| replica.list(record_type, None).map(|rows| rows.len());
        let strays = count(SNAPSHOT_TYPE)?.saturating_sub(snapshots);
        let mut files = count(FILE_TYPE)?;
        for source in states.keys() {
            files = files.saturating_sub(replica.list(FILE_TYPE, Some(source.as_bytes()))?.len());
        }
        for (number, what) in [(strays, "snapshots"), (files, "files")] {
            if number > 0 {
                self.problems.push(format!("{number} {what} belong to no source that can be read"));
            }
        }
        Ok(())
    }

    /// Records that are missing or do not open, of which nobody can say what they are.
    fn unnamed(&self) -> Result<Vec<RecordId>> {
        let from = &self.source.vault;
        let mut records: BTreeSet<RecordId> =
            from.replica.absent(usize::MAX)?.into_iter().map(|row| row.record).collect();
        records.extend(from.replica.quarantined()?.into_iter().map(|row| row.record));
        Ok(records.into_iter().collect())
    }

    async fn source_record(&mut self, new: SourceId, doc: &SourceDoc) -> Result<()> {
        // No device: no later backup takes the source for its own.
        let doc = SourceDoc { device: DeviceId::ZERO, ..doc.clone() }.encode();
        let name = new.as_bytes().to_vec();
        if self.document(SOURCE_TYPE, &name)?.is_some_and(|known| known == doc) {
            return Ok(());
        }
        self.add(record(SOURCE_TYPE, name, doc, Policy::Overwrite)).await
    }

    fn current(&self, record_type: &str, name: &[u8]) -> Result<Option<Content>> {
        let keys = &self.target.setup.keys;
        let current = read::current(&self.target.replica, keys, keys.record_id(record_type, name))?;
        Ok(current.map(|current| current.content))
    }

    fn document(&self, record_type: &str, name: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.current(record_type, name)?.map(|content| content.document.0))
    }

    /// Every record of an app, as it is at the head.
    async fn records(&mut self, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let from = &self.source.vault;
        let mut after = None;
        loop {
            let page = from.replica.records_after(after, 1000)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.record);
            for row in page.iter().filter(|row| row.kind == KIND_DOCUMENT) {
                let content =
                    if row.present { read::open(&from.replica, &from.setup.keys, row)? } else { None };
                let Some(content) = content else {
                    let why = if row.present { "does not open" } else { "is missing" };
                    self.problems.push(format!("record {} of commit {} {why}", row.record, row.seq));
                    continue;
                };
                if !is_own(&content.record_type) {
                    self.record(content, progress).await?;
                }
            }
        }
    }

    async fn record(&mut self, content: Content, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let shown = called(&content.record_type, &content.name.0);
        let place = self.target.setup.keys.record_id(&content.record_type, &content.name.0);
        self.target.fetch(&[place]).await?;
        let known = self.current(&content.record_type, &content.name.0)?;
        let same = known.as_ref().is_some_and(|known| {
            known.blobs.len() == content.blobs.len()
                && (known.schema, &known.document) == (content.schema, &content.document)
        });
        if same && content.blobs.is_empty() {
            return Ok(());
        }
        let mut blobs = Vec::new();
        for (reference, at) in content.blobs.iter().zip(0_usize..) {
            let before = known.as_ref().and_then(|known| known.blobs.get(at));
            match self.contents(place, reference, before, progress).await? {
                Some(Sent::Kept(new) | Sent::Large(new)) => blobs.push(new),
                Some(Sent::Framed(new, object)) => {
                    self.frames.push(new.blob, &object);
                    self.send_frames().await?;
                    blobs.push(new);
                }
                None => {
                    self.problems.push(format!("{shown}: its contents are missing or damaged"));
                    return Ok(());
                }
            }
        }
        if same && known.is_some_and(|known| known.blobs == blobs) {
            return Ok(());
        }
        if content.name.0.len() > lockstep_proto::limits::APP_NAME_BYTES_MAX {
            self.problems.push(format!("{shown}: its name is too long"));
            return Ok(());
        }
        self.tally.records += 1;
        self.add(NewRecord {
            record_type: content.record_type,
            name: content.name.0,
            schema: content.schema,
            document: Some(content.document.0),
            blobs,
            policy: Policy::Overwrite,
            pin: Pinning::None,
            expected: None,
        })
        .await
    }

    /// One snapshot: its files, then its record in a pinned commit. One that is there already is taken as it is.
    async fn snapshot(
        &mut self,
        snapshot: &Snapshot,
        state: &mut State,
        unnamed: &[RecordId],
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let from = &self.source.vault;
        let versions = from.versions_of(snapshot)?;
        let digests: HashMap<RecordId, Digest> =
            versions.iter().map(|version| (version.record, version.digest)).collect();
        let place = self.target.setup.keys.record_id(SNAPSHOT_TYPE, &snapshot.name);
        if self.target.replica.record(place)?.is_some() {
            state.taken = digests;
            return Ok(());
        }
        let mut found = SnapshotFiles::default();
        let mut take = |version: &VersionRow, content| {
            found.add(snapshot.source.id, version.record, content);
            Ok(())
        };
        for version in from.open_versions(&versions, &mut take).await? {
            found.failed.push((
                format!("record {} of commit {}", version.record, version.seq),
                "it is missing".into(),
            ));
        }
        let mut lost = self.apply(state, &found, &digests, progress).await?;
        for record in unnamed {
            if read::version_at(&from.replica, *record, snapshot.seq)?
                .is_some_and(|row| row.kind == KIND_DOCUMENT)
            {
                lost.unreadable += 1;
            }
        }
        let (files, folders, links, bytes, unreadable) = snapshot.doc.counts;
        let mut names = snapshot.doc.unreadable.clone();
        let mut left = NAMES_BYTES_MAX.saturating_sub(names.iter().map(|name| name.0.len()).sum());
        for name in lost.names {
            let Some(rest) = left.checked_sub(name.len().saturating_add(8)) else { break };
            left = rest;
            names.push(name.into());
        }
        names.truncate(UNREADABLE_NAMED_MAX);
        let doc = SnapshotDoc {
            source: state.new,
            counts: (
                files.saturating_sub(lost.files),
                folders,
                links,
                bytes.saturating_sub(lost.bytes),
                unreadable.saturating_add(lost.unreadable),
            ),
            unreadable: names,
            ..snapshot.doc.clone()
        };
        let pinned = record(SNAPSHOT_TYPE, snapshot.name.clone(), doc.encode(), Policy::KeepBoth);
        self.flush().await?;
        self.target.put(vec![NewRecord { pin: Pinning::Pin, ..pinned }]).await?;
        self.account.send(self.target).await?;
        self.tally.snapshots += 1;
        Ok(())
    }

    /// Makes a source's files those that were found.
    async fn apply(
        &mut self,
        state: &mut State,
        found: &SnapshotFiles,
        digests: &HashMap<RecordId, Digest>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Lost> {
        let mut lost = Lost::default();
        for (name, reason) in &found.failed {
            self.problems.push(format!("{name}: {reason}"));
            lost.unreadable += 1;
        }
        let mut kept: BTreeSet<&[u8]> = BTreeSet::new();
        for file in &found.files {
            if self.stop.load(Ordering::Relaxed) {
                self.flush().await?;
                return Err(ClientError::Interrupted);
            }
            let digest = digests.get(&file.record);
            let is_taken = digest.is_some() && state.taken.get(&file.record) == digest;
            if is_taken && state.known.contains_key(&file.doc.path.0) {
                kept.insert(&file.doc.path.0);
                continue;
            }
            if self.file(state, file, progress).await? {
                kept.insert(&file.doc.path.0);
            } else {
                let path = String::from_utf8_lossy(&file.doc.path.0).escape_debug().to_string();
                self.problems.push(format!("{path}: its contents are missing or damaged"));
                lost.unreadable += 1;
                lost.files += 1;
                lost.bytes = lost.bytes.saturating_add(file.doc.size);
                lost.names.push(file.doc.path.0.clone());
            }
        }
        let gone: Vec<Vec<u8>> =
            state.known.keys().filter(|path| !kept.contains(path.as_slice())).cloned().collect();
        self.send_frames().await?;
        for path in gone {
            state.known.remove(&path);
            let deletion = record(FILE_TYPE, file_name(state.new, &path), Vec::new(), Policy::Overwrite);
            self.add(NewRecord { document: None, ..deletion }).await?;
        }
        state.taken.clone_from(digests);
        Ok(lost)
    }

    /// One file; false if its contents can not be had.
    async fn file(
        &mut self,
        state: &mut State,
        file: &SnapshotFile,
        progress: &mut dyn FnMut(u64),
    ) -> Result<bool> {
        let path = file.doc.path.0.clone();
        let doc = FileDoc { source: state.new, ..file.doc.clone() };
        let place = self.target.setup.keys.record_id(FILE_TYPE, &file_name(state.new, &path));
        let before = state.known.get(&path).and_then(|known| known.blob.clone());
        let sent = match &file.blob {
            None => None,
            Some(reference) => match self.contents(place, reference, before.as_ref(), progress).await? {
                Some(sent) => Some(sent),
                None => return Ok(false),
            },
        };
        let (blob, object) = match sent {
            None => (None, None),
            Some(Sent::Kept(blob) | Sent::Large(blob)) => (Some(blob), None),
            Some(Sent::Framed(blob, object)) => (Some(blob), Some(object)),
        };
        let unchanged = state.known.get(&path).is_some_and(|known| known.doc == doc && known.blob == blob);
        if !unchanged {
            let mut written = record(FILE_TYPE, file_name(state.new, &path), doc.encode(), Policy::Overwrite);
            written.blobs = blob.clone().into_iter().collect();
            self.tally.files += 1;
            match (object, &blob) {
                (Some(object), Some(blob)) => {
                    self.frames.push(blob.blob, &object);
                    self.framed.push(written);
                    if self.frames.is_full() {
                        self.send_frames().await?;
                    }
                }
                _ => self.add(written).await?,
            }
        }
        state.known.insert(path, Known::new(place, doc, blob));
        Ok(true)
    }
}

/// What a snapshot lacks.
#[derive(Default)]
struct Lost {
    files: u64,
    bytes: u64,
    unreadable: u64,
    names: Vec<Vec<u8>>,
}
