//! Photos and other contents of documents: written here first, sent before the documents that need them.
//!
//! [`Vault::attach`] seals contents into a file of the home and gives the reference that a document carries; it needs no
//! network. [`Vault::sync`] sends the objects of pending writes before the writes. What was sent stays here until
//! [`Vault::let_go`], and [`Vault::contents`] reads what is here, or asks the server. A document may refer to a small
//! picture and to the whole one: which is read when is the app's choice.
//!
//! `objects/<vault>/waiting` holds objects that the server has not got, `objects/<vault>/held` those that it has; both are
//! ciphertext, as they are sent.

use crate::api::Api;
use crate::blob::{self, FRAMED_BYTES_MAX, Frames};
use crate::documents::kept as decoded;
use crate::error::{ClientError, Result};
use crate::rng;
use crate::vault::Vault;
use lockstep_client_crypto::blob::{ObjectOpener, ObjectSealer, new_reference};
use lockstep_client_crypto::content::BlobRef;
use lockstep_engine::replica::Replica as _;
use lockstep_proto::api::object::{BeginUpload, UploadState};
use lockstep_proto::blob::{object_digest, part_digest};
use lockstep_proto::id::{BlobId, VaultId};
use lockstep_proto::limits;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const READ_BYTES: usize = 1024 * 1024;
/// An object that no write has named for so long never will be.
const ORPHAN_AGE: Duration = Duration::from_hours(24);

/// Where an object stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Held,
}

impl State {
    const fn folder(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Held => "held",
        }
    }
}

/// Objects that wait to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// How many.
    pub objects: u64,
    /// Bytes of all.
    pub bytes: u64,
}

impl Vault {
    fn objects_folder(&self, state: State) -> PathBuf {
        let folder = self.replica.db().folder().join("objects").join(self.setup.vault().to_string());
        folder.join(state.folder())
    }

    fn object_path(&self, state: State, blob: BlobId) -> PathBuf {
        self.objects_folder(state).join(blob.to_string())
    }

    /// Makes the folder of a state, durably, with all that is above it in the home.
    fn make_folder(&self, state: State) -> Result<()> {
        let folder = self.objects_folder(state);
        if folder.is_dir() {
            return Ok(());
        }
        let io = |error| ClientError::io(&folder, error);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io)?;
        for above in folder.ancestors().skip(1) {
            File::open(above).and_then(|folder| folder.sync_all()).map_err(io)?;
            if above == self.replica.db().folder() {
                break;
            }
        }
        Ok(())
    }

    /// Seals contents into the home; they are durable when this returns. The reference is for
    /// [`crate::documents::NewDocument::blobs`], within a day: what no write has named by then is removed. The document
    /// names the object by its id, as 16 bytes or as text. The contents are read twice.
    ///
    /// # Errors
    /// [`ClientError::Io`], and [`ClientError::Usage`] if the contents change while they are read.
    pub fn attach(&self, contents: &mut (impl Read + Seek)) -> Result<BlobRef> {
        let io = |error| ClientError::io(Path::new("contents"), error);
        let mut hasher = self.setup.keys.content_hasher();
        let mut buffer = vec![0; READ_BYTES];
        let mut size = 0_u64;
        contents.seek(SeekFrom::Start(0)).map_err(io)?;
        each_piece(contents, &mut buffer, &mut |piece| {
            hasher.update(piece);
            size = size.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            Ok(())
        })?;
        let reference = new_reference(size, hasher.finish(), &mut rng::system());
        self.make_folder(State::Waiting)?;
        let path = self.object_path(State::Waiting, reference.blob);
        let part = path.with_extension("part");
        let written = self.seal_into(&part, &reference, contents, &mut buffer);
        written.and_then(|()| rename(&part, &path)).inspect_err(|_| drop(std::fs::remove_file(&part)))?;
        Ok(reference)
    }

    fn seal_into(
        &self,
        path: &Path,
        reference: &BlobRef,
        contents: &mut (impl Read + Seek),
        buffer: &mut [u8],
    ) -> Result<()> {
        let io = |error| ClientError::io(path, error);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
        let (mut sealer, mut object) = ObjectSealer::new(&self.setup.keys, reference)?;
        contents.seek(SeekFrom::Start(0)).map_err(|error| ClientError::io(Path::new("contents"), error))?;
        each_piece(contents, buffer, &mut |piece| {
            sealer.push(piece, &mut object)?;
            file.write_all(&object).map_err(io)?;
            object.clear();
            Ok(())
        })?;
        sealer.finish(&mut object)?;
        file.write_all(&object).map_err(io)?;
        file.sync_all().map_err(io)
    }

    /// Gives the contents of an object to `sink`, verified, in order: from here if they are here, else from the server. Only
    /// when this succeeds they are whole.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] if they are at the server alone, and that is away; [`ClientError::Damaged`].
    pub async fn contents(
        &self,
        reference: &BlobRef,
        sink: &mut (dyn FnMut(&[u8]) -> Result<()> + Send),
    ) -> Result<()> {
        for state in [State::Held, State::Waiting] {
            let path = self.object_path(state, reference.blob);
            match File::open(&path) {
                Ok(mut file) => return self.open_file(&path, &mut file, reference, sink),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(ClientError::io(path, error)),
            }
        }
        blob::download(self.api(), &self.setup.keys, reference, sink).await
    }

    fn open_file(
        &self,
        path: &Path,
        file: &mut File,
        reference: &BlobRef,
        sink: &mut (dyn FnMut(&[u8]) -> Result<()> + Send),
    ) -> Result<()> {
        let damaged =
            || ClientError::Damaged(format!("{} is damaged: remove it, to have it fetched", path.display()));
        let mut opener = ObjectOpener::new(&self.setup.keys, reference)?;
        let (mut buffer, mut out) = (vec![0; READ_BYTES], Vec::new());
        each_piece(file, &mut buffer, &mut |piece| {
            opener.push(piece, &mut out).map_err(|_| damaged())?;
            sink(&out)?;
            out.clear();
            Ok(())
        })?;
        opener.finish().map_err(|_| damaged())
    }

    /// Whether the contents of an object are here.
    pub fn holds(&self, blob: BlobId) -> bool {
        [State::Held, State::Waiting].into_iter().any(|state| self.object_path(state, blob).exists())
    }

    /// Removes the contents of an object from this device, if the server has them.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn let_go(&self, blob: BlobId) -> Result<()> {
        let path = self.object_path(State::Held, blob);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(ClientError::io(path, error)),
            _ => Ok(()),
        }
    }

    /// What waits to be sent.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn waiting_objects(&self) -> Result<Waiting> {
        let mut waiting = Waiting::default();
        for (_, path) in self.waiting_files()? {
            let size = path.metadata().map_or(0, |file| file.len());
            waiting.objects += 1;
            waiting.bytes = waiting.bytes.saturating_add(size);
        }
        Ok(waiting)
    }

    fn waiting_files(&self) -> Result<Vec<(BlobId, PathBuf)>> {
        let folder = self.objects_folder(State::Waiting);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(ClientError::io(folder, error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| ClientError::io(&folder, error))?.path();
            if path.extension().is_some_and(|extension| extension == "part") {
                // Of an attachment that was cut off.
                if is_orphan(&path) {
                    std::fs::remove_file(&path).map_err(|error| ClientError::io(&path, error))?;
                }
                continue;
            }
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            found.extend(name.map(|blob: BlobId| (blob, path)));
        }
        Ok(found)
    }

    /// Sends the objects that pending writes need, and forgets those that no write names for a day.
    ///
    /// # Errors
    /// [`ClientError`]; what was sent is not sent again.
    pub(crate) async fn send_objects(&self) -> Result<()> {
        let waiting = self.waiting_files()?;
        if waiting.is_empty() {
            return Ok(());
        }
        let mut named = BTreeSet::new();
        for row in self.replica.pending(usize::MAX)? {
            let content = decoded(&row.content)?;
            named.extend(content.blobs.iter().map(|reference| reference.blob));
        }
        // What was merged away may come back: an undo writes it again.
        let mut kept = BTreeSet::new();
        for entry in self.replica.merges()? {
            kept.extend(decoded(&entry.pending)?.blobs.iter().map(|reference| reference.blob));
        }
        let (vault, api) = (self.setup.vault(), self.api());
        let mut frames = Frames::default();
        let mut framed = Vec::new();
        for (blob, path) in waiting {
            let io = |error| ClientError::io(&path, error);
            if !named.contains(&blob) {
                if !kept.contains(&blob) && is_orphan(&path) {
                    std::fs::remove_file(&path).map_err(io)?;
                }
                continue;
            }
            if path.metadata().map_err(io)?.len() > FRAMED_BYTES_MAX {
                send_parts(api, vault, blob, &mut File::open(&path).map_err(io)?).await?;
                self.hold(&[blob])?;
                continue;
            }
            frames.push(blob, &std::fs::read(&path).map_err(io)?);
            framed.push(blob);
            if frames.is_full() {
                std::mem::take(&mut frames).send(Arc::clone(api), vault).await?;
                self.hold(&std::mem::take(&mut framed))?;
            }
        }
        if !frames.is_empty() {
            frames.send(Arc::clone(api), vault).await?;
            self.hold(&framed)?;
        }
        Ok(())
    }

    /// The server has these now.
    fn hold(&self, blobs: &[BlobId]) -> Result<()> {
        self.make_folder(State::Held)?;
        for blob in blobs {
            rename(&self.object_path(State::Waiting, *blob), &self.object_path(State::Held, *blob))?;
        }
        Ok(())
    }

    /// The server has not got these after all. Whether all of them are here, and at least one of them was thought to be
    /// there, so that sending again helps.
    pub(crate) fn wait_again(&self, blobs: &[BlobId]) -> Result<bool> {
        let is_at = |state, blob: &BlobId| self.object_path(state, *blob).exists();
        let are_here = blobs.iter().all(|blob| is_at(State::Held, blob) || is_at(State::Waiting, blob));
        let held: Vec<&BlobId> = blobs.iter().filter(|blob| is_at(State::Held, blob)).collect();
        if !are_here || held.is_empty() {
            return Ok(false);
        }
        for blob in held {
            rename(&self.object_path(State::Held, *blob), &self.object_path(State::Waiting, *blob))?;
        }
        Ok(true)
    }
}

/// Whether a file is older than whatever may still become of it.
fn is_orphan(path: &Path) -> bool {
    let age = path.metadata().and_then(|file| file.modified()).map(|time| time.elapsed());
    age.is_ok_and(|age| age.is_ok_and(|age| age > ORPHAN_AGE))
}

/// Gives what is read to a function, piece by piece.
fn each_piece(
    from: &mut impl Read,
    buffer: &mut [u8],
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    loop {
        let got = match from.read(buffer) {
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(ClientError::io(Path::new("contents"), error)),
        };
        if got == 0 {
            return Ok(());
        }
        let (piece, _) = buffer.split_at(got);
        take(piece)?;
    }
}

/// Renames a file durably.
fn rename(from: &Path, to: &Path) -> Result<()> {
    let io = |error| ClientError::io(to, error);
    std::fs::rename(from, to).map_err(io)?;
    let folder = to.parent().unwrap_or(to);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
}

/// Sends a sealed object in parts; those that the server holds are not sent again.
async fn send_parts(api: &Api, vault: VaultId, blob: BlobId, file: &mut File) -> Result<()> {
    let io = |error| ClientError::io(Path::new("object"), error);
    let mut buffer = vec![0; limits::PART_BYTES];
    let (mut digests, mut size) = (Vec::new(), 0_u64);
    loop {
        let part = part(file, &mut buffer).map_err(io)?;
        if part.is_empty() {
            break;
        }
        digests.push(part_digest(part));
        size = size.saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX));
    }
    let begin = BeginUpload { blob, size, digest: object_digest(size, &digests) };
    let state: UploadState = api.post(&format!("/v1/vaults/{vault}/uploads"), &begin).await?;
    if state.complete {
        return Ok(());
    }
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    let mut index = 0_u64;
    loop {
        let part = part(file, &mut buffer).map_err(io)?.to_vec();
        if part.is_empty() {
            break;
        }
        if !state.parts.contains(&index) {
            api.put_bytes(&format!("/v1/vaults/{vault}/uploads/{blob}/parts/{index}"), part.into()).await?;
        }
        index += 1;
    }
    let nothing: Option<&BeginUpload> = None;
    api.post_nothing(&format!("/v1/vaults/{vault}/uploads/{blob}/complete"), nothing).await
}

/// The next part of a file; empty at its end.
fn part<'a>(file: &mut File, buffer: &'a mut [u8]) -> std::io::Result<&'a [u8]> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(got) => filled = filled.saturating_add(got),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(buffer.get(..filled).unwrap_or_default())
}
