//! Filling a new vault from an archive's: sources, records, every snapshot in its order, and what the head says beyond
//! the last one.

use super::import::{IMPORT_TYPE, is_own};
use super::index::Index;
use super::mark::Mark;
use super::object::Contents;
use super::open::OpenedVault;
use crate::account::Account;
use crate::backup::plan::{Known, known_files};
use crate::blob::{self, Frames};
use crate::error::{ClientError, Result};
use crate::keyring::record;
use crate::rng;
use crate::snapshot::{Snapshot, SnapshotFile, SnapshotFiles};
use crate::vault::Vault;
use lockstep_client_crypto::blob::new_reference;
use lockstep_client_crypto::content::{BlobRef, Content};
use lockstep_engine::files::{
    FILE_TYPE, FileDoc, SNAPSHOT_TYPE, SOURCE_TYPE, SnapshotDoc, SourceDoc, UNREADABLE_NAMED_MAX, file_name,
};
use lockstep_engine::replica::{Pinning, Policy, Replica as _, VersionRow};
use lockstep_engine::{NewRecord, read};
use lockstep_proto::Digest;
use lockstep_proto::api::problem::Code;
use lockstep_proto::blob::Layout;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::envelope::KIND_DOCUMENT;
use lockstep_proto::id::{DeviceId, RecordId, SourceId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read as _, Seek as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use zeroize::Zeroizing;

/// Records are made durable here and sent when so many wait.
const BATCH_RECORDS: usize = 1000;
/// Bytes of records that wait, beside the count.
const BATCH_BYTES: usize = 1024 * 1024;
const READ_BYTES: usize = 256 * 1024;

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
    account: &'a mut Account,
    target: &'a mut Vault,
    source: &'a OpenedVault,
    index: &'a Arc<Index>,
    mark: Mark,
    stop: &'a Arc<AtomicBool>,
    names: BTreeMap<SourceId, SourceId>,
    batch: Vec<NewRecord>,
    batch_bytes: usize,
    frames: Frames,
    framed: Vec<NewRecord>,
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
        for snapshot in from.snapshots()? {
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
        let shown = format!(
            "record {} of type {}",
            String::from_utf8_lossy(&content.name.0).escape_debug(),
            content.record_type.escape_debug()
        );
        let known = self.current(&content.record_type, &content.name.0)?;
        let same = known.as_ref().is_some_and(|known| {
            known.blobs.len() == content.blobs.len()
                && (known.schema, &known.document) == (content.schema, &content.document)
        });
        if same && content.blobs.is_empty() {
            return Ok(());
        }
        let place = self.target.setup.keys.record_id(&content.record_type, &content.name.0);
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
        names.extend(lost.names.into_iter().map(Into::into));
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

    /// Contents under the new vault's keys: those that are there already, small ones sealed, large ones sent. None if
    /// the archive does not have them whole.
    async fn contents(
        &mut self,
        place: RecordId,
        reference: &BlobRef,
        before: Option<&BlobRef>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Option<Sent>> {
        let from = Arc::clone(&self.source.vault.setup.keys);
        let keys = Arc::clone(&self.target.setup.keys);
        let Ok(Some(mut contents)) = Contents::open(self.index, &from, reference) else { return Ok(None) };
        let layout = Layout::new(reference.size, 16);
        let is_small = layout.is_some_and(|layout| layout.object_bytes <= blob::FRAMED_BYTES_MAX);
        let mut hasher = keys.content_hasher();
        let mut small = Zeroizing::new(Vec::new());
        let mut buffer = Zeroizing::new(vec![0; READ_BYTES]);
        // To the end, where they are known to be whole.
        loop {
            let Ok(got) = contents.read(&mut buffer) else { return Ok(None) };
            let (piece, _) = buffer.split_at(got);
            if got == 0 {
                break;
            }
            hasher.update(piece);
            if is_small {
                small.extend_from_slice(piece);
            }
        }
        let hash = hasher.finish();
        if let Some(before) =
            before.filter(|before| (before.size, before.content_hash) == (reference.size, hash))
        {
            return Ok(Some(Sent::Kept(before.clone())));
        }
        self.tally.bytes = self.tally.bytes.saturating_add(reference.size);
        progress(self.tally.bytes);
        if is_small {
            let new = new_reference(reference.size, hash, &mut rng::system());
            let object = blob::seal(&keys, &new, &small)?;
            return Ok(Some(Sent::Framed(new, object)));
        }
        contents.rewind().map_err(|error| ClientError::Damaged(error.to_string()))?;
        let replica = &self.target.replica;
        let new = match blob::begun_upload(replica, place, reference.size, hash)? {
            Some(begun) => begun,
            None => new_reference(reference.size, hash, &mut rng::system()),
        };
        blob::remember_upload(replica, place, &new)?;
        let api = Arc::clone(self.target.api());
        match blob::upload_large(&api, &keys, &new, &mut contents, &mut |_| {}).await {
            Ok(()) => Ok(Some(Sent::Large(new))),
            Err(error) if matches!(error.code(), Some(Code::Mismatch | Code::Exists)) => {
                let fresh = new_reference(reference.size, hash, &mut rng::system());
                blob::remember_upload(&self.target.replica, place, &fresh)?;
                blob::upload_large(&api, &keys, &fresh, &mut contents, &mut |_| {}).await?;
                Ok(Some(Sent::Large(fresh)))
            }
            Err(error) => Err(error),
        }
    }

    /// Sends framed objects; only then their records are written.
    async fn send_frames(&mut self) -> Result<()> {
        if !self.frames.is_empty() {
            let frames = std::mem::take(&mut self.frames);
            frames.send(Arc::clone(self.target.api()), self.target.setup.vault()).await?;
        }
        for written in std::mem::take(&mut self.framed) {
            self.add(written).await?;
        }
        Ok(())
    }

    async fn add(&mut self, written: NewRecord) -> Result<()> {
        self.batch_bytes = self
            .batch_bytes
            .saturating_add(written.document.as_ref().map_or(0, Vec::len))
            .saturating_add(256);
        self.batch.push(written);
        if self.batch.len() >= BATCH_RECORDS || self.batch_bytes >= BATCH_BYTES {
            return self.send_batch().await;
        }
        Ok(())
    }

    async fn send_batch(&mut self) -> Result<()> {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() {
            self.target.put(batch).await?;
            self.account.send(self.target).await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.send_frames().await?;
        self.send_batch().await
    }
}

enum Sent {
    /// The new vault has them already.
    Kept(BlobRef),
    /// They are at the server.
    Large(BlobRef),
    /// Sealed, and to be sent.
    Framed(BlobRef, Vec<u8>),
}

/// What a snapshot lacks.
#[derive(Default)]
struct Lost {
    files: u64,
    bytes: u64,
    unreadable: u64,
    names: Vec<Vec<u8>>,
}
