//! What is done on threads that may block: looking at what is there, making folders and links, writing files.

use super::place::{self, Existing, Folder, Temporary};
use crate::error::{ClientError, Result};
use crate::fetch::Sink;
use crate::snapshot::SnapshotFile;
use lockstep_client_crypto::content::BlobRef;
use lockstep_client_crypto::vault::VaultKeys;
use lockstep_engine::files::{KIND_FILE, KIND_FOLDER, KIND_LINK};
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Folders that are kept open, because the next file may lie in one of them.
const FOLDERS_MAX: usize = 8;

/// Where a snapshot is restored to.
pub(super) struct Site {
    pub(super) top: Arc<Folder>,
    /// The source's name, which is the first folder.
    pub(super) name: Vec<u8>,
    pub(super) destination: PathBuf,
    pub(super) files: Vec<SnapshotFile>,
    pub(super) overwrite: bool,
    pub(super) keys: Arc<VaultKeys>,
    pub(super) folders: Mutex<Folders>,
}

/// Folders that files were written to.
#[derive(Default)]
pub(super) struct Folders {
    open: VecDeque<(Vec<Vec<u8>>, Arc<Folder>)>,
    /// Where nothing is left of a restore before.
    clean: BTreeSet<Vec<Vec<u8>>>,
}

/// What became of an entry.
pub(super) enum Step {
    /// It is there now.
    Made,
    /// It was there already.
    Unchanged,
    /// It is written; what is left is its name.
    Written(Temporary),
    /// Its contents are to be fetched.
    Wanted(BlobRef, Contents),
}

pub(super) enum Failure {
    /// About this entry only.
    This(String),
    /// The restore can not go on.
    Stop(ClientError),
}

impl Failure {
    pub(super) fn of(destination: &Path, error: std::io::Error) -> Self {
        Self::told(ClientError::io(destination, error))
    }

    pub(super) fn told(error: ClientError) -> Self {
        match error {
            ClientError::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists => refused(),
            ClientError::Io { source, .. } => Self::This(source.to_string()),
            ClientError::Damaged(reason) | ClientError::Usage(reason) => Self::This(reason),
            other => Self::Stop(other),
        }
    }
}

fn refused() -> Failure {
    Failure::This("something else is there; say --overwrite to replace it".into())
}

type Done<T> = std::result::Result<T, Failure>;

impl Site {
    pub(super) fn shown(&self, path: &[u8]) -> PathBuf {
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

    /// The open folder of an entry, and its name in it.
    fn folder_of(&self, file: &SnapshotFile) -> Done<(Arc<Folder>, Vec<u8>)> {
        let mut above = self.components(&file.doc.path.0);
        let Some(name) = above.pop() else { return Err(Failure::This("the path is empty".into())) };
        // Held while a folder is cleaned: nothing new appears in it meanwhile.
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, folder)) = folders.open.iter().find(|(known, _)| *known == above) {
            return Ok((Arc::clone(folder), name));
        }
        let failure = |error| Failure::of(&self.destination, error);
        let folder = Arc::new(self.top.below(&above, true).map_err(failure)?);
        if !folders.clean.contains(&above) {
            folder.clean().map_err(failure)?;
            folders.clean.insert(above.clone());
        }
        folder.claim();
        if folders.open.len() >= FOLDERS_MAX {
            folders.open.pop_front();
        }
        folders.open.push_back((above, Arc::clone(&folder)));
        Ok((folder, name))
    }

    /// Does some of the entries, up to what has to be fetched.
    pub(super) fn steps(self: &Arc<Self>, range: Range<usize>) -> Vec<(usize, Done<Step>)> {
        let files = range.filter_map(|place| Some((place, self.files.get(place)?)));
        files.map(|(place, file)| (place, self.step(place, file))).collect()
    }

    fn step(self: &Arc<Self>, place: usize, file: &SnapshotFile) -> Done<Step> {
        let (folder, name) = self.folder_of(file)?;
        let failure = |error| Failure::of(&self.destination, error);
        match file.doc.kind {
            KIND_FOLDER => {
                folder.make_folder(&name).map_err(failure)?;
                Ok(Step::Made)
            }
            KIND_LINK => match folder.existing_link(&name, &file.doc.target.0).map_err(failure)? {
                Existing::Equal => Ok(Step::Unchanged),
                Existing::Different if !self.overwrite => Err(refused()),
                _ => {
                    folder.make_link(&name, &file.doc).map_err(failure)?;
                    Ok(Step::Made)
                }
            },
            KIND_FILE => self.file(place, file, &folder, &name),
            _ => Err(Failure::This("its kind needs a newer version of this program".into())),
        }
    }

    fn file(
        self: &Arc<Self>,
        place: usize,
        file: &SnapshotFile,
        folder: &Arc<Folder>,
        name: &[u8],
    ) -> Done<Step> {
        let failure = |error| Failure::of(&self.destination, error);
        let equal = |existing: &mut std::fs::File| match &file.blob {
            None => place::has_contents(existing, &file.doc.inline.0),
            Some(blob) => place::has_hash(existing, self.keys.content_hasher(), blob.content_hash),
        };
        match folder.existing_file(name, file.doc.size, equal).map_err(failure)? {
            Existing::Equal => {
                folder.set_metadata(name, &file.doc).map_err(failure)?;
                return Ok(Step::Unchanged);
            }
            Existing::Different if !self.overwrite => return Err(refused()),
            _ => {}
        }
        if let Some(blob) = &file.blob {
            return Ok(Step::Wanted(blob.clone(), Contents { site: Arc::clone(self), place, written: None }));
        }
        let mut temporary = folder.begin_file(name, &file.doc, self.overwrite).map_err(failure)?;
        temporary.write(&file.doc.inline.0).map_err(failure)?;
        temporary.seal().map_err(failure)?;
        Ok(Step::Written(temporary))
    }

    /// Folders get their mode and time last, the deepest first; gives those that do not.
    pub(super) fn finish_folders(&self) -> Vec<(PathBuf, String)> {
        let mut failed = Vec::new();
        for file in self.files.iter().rev().filter(|file| file.doc.kind == KIND_FOLDER) {
            let components = self.components(&file.doc.path.0);
            let Some((name, above)) = components.split_last() else { continue };
            let set = self.top.below(above, false).and_then(|folder| folder.set_metadata(name, &file.doc));
            if let Err(error) = set {
                failed.push((self.shown(&file.doc.path.0), error.to_string()));
            }
        }
        failed
    }
}

/// Writes the contents of one file as they come.
pub(super) struct Contents {
    site: Arc<Site>,
    /// Which file.
    pub(super) place: usize,
    pub(super) written: Option<Temporary>,
}

impl Contents {
    /// The file under its temporary name, from the first bytes on.
    fn file(&mut self) -> Result<&mut Temporary> {
        let begun = match self.written.take() {
            Some(written) => written,
            None => self.begin()?,
        };
        Ok(self.written.insert(begun))
    }

    fn begin(&self) -> Result<Temporary> {
        let none = || ClientError::Damaged("the file is not in the snapshot".into());
        let file = self.site.files.get(self.place).ok_or_else(none)?;
        let (folder, name) = self.site.folder_of(file).map_err(|failure| match failure {
            Failure::This(reason) => ClientError::Damaged(reason),
            Failure::Stop(error) => error,
        })?;
        let begun = folder.begin_file(&name, &file.doc, self.site.overwrite);
        begun.map_err(|error| ClientError::io(&self.site.destination, error))
    }
}

impl Sink for Contents {
    fn take(&mut self, contents: &[u8]) -> Result<()> {
        let written = self.file()?.write(contents);
        written.map_err(|error| ClientError::io(&self.site.destination, error))
    }

    fn end(&mut self) -> Result<()> {
        let sealed = self.file()?.seal();
        sealed.map_err(|error| ClientError::io(&self.site.destination, error))
    }
}
