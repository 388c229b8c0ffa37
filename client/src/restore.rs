//! Restoring snapshots. Nothing leaves the destination through `..`, absolute names or symbolic links; a
//! file gets its real name only when it is whole and verified.

mod place;

use crate::error::{ClientError, Result};
use crate::snapshot::{Snapshot, SnapshotFile};
use crate::vault::Vault;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lockstep_engine::files::{KIND_FILE, KIND_FOLDER, KIND_LINK};
use place::{Existing, Folder};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Objects fetched at once.
const DOWNLOADS_MAX: usize = 4;

/// Options of a restore.
pub struct Options {
    /// Only these paths below a source's name (`docs/letters`), and what lies below them.
    pub paths: Vec<PathBuf>,
    /// Replace what differs.
    pub overwrite: bool,
    /// Set to stop cleanly.
    pub stop: Arc<AtomicBool>,
}

/// What a restore came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Files, folders and links that were written.
    pub written: u64,
    /// Files that were there already, equal.
    pub unchanged: u64,
    /// Bytes written.
    pub bytes: u64,
    /// What could not be restored, with the reason.
    pub failed: Vec<(PathBuf, String)>,
}

/// What a restore tells while it works.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Entries done and in all.
    pub entries: (u64, u64),
    /// Bytes done and in all.
    pub bytes: (u64, u64),
}

/// Whether a path was asked for: it, something above it, or (for folders on the way) something below it.
fn is_wanted(name: &[u8], path: &[u8], wanted: &[PathBuf]) -> bool {
    if wanted.is_empty() {
        return true;
    }
    let mut full = PathBuf::from(std::ffi::OsStr::from_bytes(name));
    if !path.is_empty() {
        full.push(std::ffi::OsStr::from_bytes(path));
    }
    wanted.iter().any(|wanted| full.starts_with(wanted))
}

/// Restores snapshots to `destination/<source name>/...`.
///
/// # Errors
/// [`ClientError`] if nothing can be done; what fails for single files is in the outcome.
pub async fn restore(
    vault: &Vault,
    snapshots: &[Snapshot],
    destination: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome> {
    std::fs::create_dir_all(destination).map_err(|error| ClientError::io(destination, error))?;
    let top = Folder::open(destination).map_err(|error| ClientError::io(destination, error))?;
    let mut outcome = Outcome::default();
    let mut wanted_any = false;
    for snapshot in snapshots {
        let name = &snapshot.source.doc.name.0;
        let found = vault.files_of(snapshot).await?;
        let shown = PathBuf::from(std::ffi::OsStr::from_bytes(name));
        outcome.failed.extend(found.failed.into_iter().map(|(path, reason)| (shown.join(path), reason)));
        let mut files = found.files;
        files.retain(|file| is_wanted(name, &file.doc.path.0, &options.paths));
        if files.is_empty() {
            continue;
        }
        wanted_any = true;
        let mut job = Job {
            vault,
            top: &top,
            name: name.clone(),
            destination: destination.join(std::ffi::OsStr::from_bytes(name)),
            options,
            outcome: &mut outcome,
            progress: Progress {
                entries: (0, u64::try_from(files.len()).unwrap_or(0)),
                bytes: (0, files.iter().map(|file| file.doc.size).fold(0, u64::saturating_add)),
            },
        };
        job.go(&files, progress).await?;
    }
    if !wanted_any && !options.paths.is_empty() {
        return Err(ClientError::NotFound("no snapshot has these paths; see: lockstep ls".into()));
    }
    Ok(outcome)
}

struct Job<'a> {
    vault: &'a Vault,
    top: &'a Folder,
    name: Vec<u8>,
    destination: PathBuf,
    options: &'a Options,
    outcome: &'a mut Outcome,
    progress: Progress,
}

impl Job<'_> {
    fn shown(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() {
            self.destination.clone()
        } else {
            self.destination.join(std::ffi::OsStr::from_bytes(path))
        }
    }

    /// Components below the destination: the source's name, then the path's.
    fn components(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let mut components = vec![self.name.clone()];
        if !path.is_empty() {
            components.extend(path.split(|byte| *byte == b'/').map(<[u8]>::to_vec));
        }
        components
    }

    async fn go(&mut self, files: &[SnapshotFile], progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let mut downloads = FuturesUnordered::new();
        for file in files {
            if self.options.stop.load(Ordering::Relaxed) {
                return Err(ClientError::Interrupted);
            }
            let shown = self.shown(&file.doc.path.0);
            match self.prepare(file) {
                Ok(None) => self.done(file, progress),
                Ok(Some(pending)) => {
                    let api = Arc::clone(self.vault.api());
                    let keys = Arc::clone(&self.vault.setup().keys);
                    let blob = file.blob.clone();
                    let task = tokio::spawn(async move { fetch(&api, &keys, blob, pending).await });
                    downloads.push(async move { (file, shown, task.await) });
                }
                Err(Failure::Stop(error)) => return Err(error),
                Err(Failure::This(reason)) => {
                    self.outcome.failed.push((shown, reason));
                    self.done(file, progress);
                }
            }
            while downloads.len() >= DOWNLOADS_MAX
                && let Some((file, shown, result)) = downloads.next().await
            {
                self.fetched(file, shown, flatten(result))?;
                self.done(file, progress);
            }
        }
        while let Some((file, shown, result)) = downloads.next().await {
            self.fetched(file, shown, flatten(result))?;
            self.done(file, progress);
        }
        self.finish_folders(files);
        Ok(())
    }

    fn fetched(
        &mut self,
        file: &SnapshotFile,
        shown: PathBuf,
        result: std::result::Result<(), Failure>,
    ) -> Result<()> {
        match result {
            Ok(()) => {
                self.outcome.written += 1;
                self.outcome.bytes = self.outcome.bytes.saturating_add(file.doc.size);
                Ok(())
            }
            Err(Failure::This(reason)) => {
                self.outcome.failed.push((shown, reason));
                Ok(())
            }
            Err(Failure::Stop(error)) => Err(error),
        }
    }

    fn done(&mut self, file: &SnapshotFile, progress: &mut dyn FnMut(Progress)) {
        self.progress.entries.0 += 1;
        self.progress.bytes.0 = self.progress.bytes.0.saturating_add(file.doc.size);
        progress(self.progress);
    }

    /// Makes folders and links, and files whose contents are at hand; gives a file whose contents are to be
    /// fetched.
    fn prepare(&mut self, file: &SnapshotFile) -> std::result::Result<Option<Pending>, Failure> {
        let components = self.components(&file.doc.path.0);
        let Some((name, above)) = components.split_last() else {
            return Err(Failure::This("the path is empty".into()));
        };
        let folder = self.top.below(above, true).map_err(|error| Failure::of(&self.destination, error))?;
        let failure = |error| Failure::of(&self.destination, error);
        match file.doc.kind {
            KIND_FOLDER => {
                folder.make_folder(name).map_err(failure)?;
                self.outcome.written += 1;
                Ok(None)
            }
            KIND_LINK => {
                match folder.existing_link(name, &file.doc.target.0).map_err(failure)? {
                    Existing::Equal => self.outcome.unchanged += 1,
                    Existing::Different if !self.options.overwrite => return Err(refused()),
                    _ => {
                        folder.make_link(name, &file.doc).map_err(failure)?;
                        self.outcome.written += 1;
                    }
                }
                Ok(None)
            }
            KIND_FILE => self.prepare_file(&folder, name, file),
            _ => Err(Failure::This("its kind needs a newer version of this program".into())),
        }
    }

    fn prepare_file(
        &mut self,
        folder: &Folder,
        name: &[u8],
        file: &SnapshotFile,
    ) -> std::result::Result<Option<Pending>, Failure> {
        let failure = |error| Failure::of(&self.destination, error);
        let keys = &self.vault.setup().keys;
        let equal = |existing: &mut std::fs::File| match &file.blob {
            None => place::has_contents(existing, &file.doc.inline.0),
            Some(blob) => place::has_hash(existing, keys.content_hasher(), blob.content_hash),
        };
        match folder.existing_file(name, file.doc.size, equal).map_err(failure)? {
            Existing::Equal => {
                folder.set_metadata(name, &file.doc).map_err(failure)?;
                self.outcome.unchanged += 1;
                return Ok(None);
            }
            Existing::Different if !self.options.overwrite => return Err(refused()),
            _ => {}
        }
        let temporary = folder.begin_file(name, &file.doc).map_err(failure)?;
        let pending = Pending { temporary, shown: self.shown(&file.doc.path.0) };
        if file.blob.is_some() {
            return Ok(Some(pending));
        }
        let mut temporary = pending.temporary;
        temporary.write(&file.doc.inline.0).map_err(failure)?;
        temporary.finish().map_err(failure)?;
        self.outcome.written += 1;
        self.outcome.bytes = self.outcome.bytes.saturating_add(file.doc.size);
        Ok(None)
    }

    /// Folders get their mode and time last, the deepest first.
    fn finish_folders(&mut self, files: &[SnapshotFile]) {
        for file in files.iter().rev().filter(|file| file.doc.kind == KIND_FOLDER) {
            let components = self.components(&file.doc.path.0);
            let Some((name, above)) = components.split_last() else { continue };
            let set = self.top.below(above, false).and_then(|folder| folder.set_metadata(name, &file.doc));
            if let Err(error) = set {
                let shown = self.shown(&file.doc.path.0);
                self.outcome.failed.push((shown, error.to_string()));
            }
        }
    }
}

/// A file whose contents are on the way.
struct Pending {
    temporary: place::Temporary,
    shown: PathBuf,
}

enum Failure {
    /// About this file only.
    This(String),
    /// The restore can not go on.
    Stop(ClientError),
}

impl Failure {
    fn of(destination: &Path, error: std::io::Error) -> Self {
        match ClientError::io(destination, error) {
            ClientError::Io { source, .. } => Self::This(source.to_string()),
            full => Self::Stop(full),
        }
    }
}

fn refused() -> Failure {
    Failure::This("something else is there; say --overwrite to replace it".into())
}

fn flatten(
    result: std::result::Result<std::result::Result<(), Failure>, tokio::task::JoinError>,
) -> std::result::Result<(), Failure> {
    result.unwrap_or_else(|_| Err(Failure::Stop(ClientError::Damaged("a download failed".into()))))
}

async fn fetch(
    api: &crate::api::Api,
    keys: &lockstep_client_crypto::vault::VaultKeys,
    blob: Option<lockstep_client_crypto::content::BlobRef>,
    pending: Pending,
) -> std::result::Result<(), Failure> {
    let Pending { mut temporary, shown } = pending;
    let Some(blob) = blob else { return Err(Failure::This("it has no contents".into())) };
    let mut sink =
        |contents: &[u8]| temporary.write(contents).map_err(|error| ClientError::io(&shown, error));
    match crate::blob::download(api, keys, &blob, &mut sink).await {
        Ok(()) => temporary.finish().map_err(|error| Failure::of(&shown, error)),
        Err(ClientError::Damaged(reason) | ClientError::Usage(reason)) => Err(Failure::This(reason)),
        Err(ClientError::Io { source, .. }) => Err(Failure::This(source.to_string())),
        Err(error) => Err(Failure::Stop(error)),
    }
}
