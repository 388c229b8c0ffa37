//! The file of an archive while it is written: items in their order, and a way back where an object was not whole.

use crate::error::{ClientError, Result};
use crate::rng;
use lockstep_proto::archive::{ItemHead, ItemKind, Items, prefix};
use lockstep_proto::id::BlobId;
use std::fs::File;
use std::io::{BufWriter, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The folder that a file is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A file that is being written; it disappears unless it is finished.
pub(super) struct Archive {
    file: BufWriter<File>,
    pub(super) items: Items,
    pub(super) bytes: u64,
    pub(super) temporary: PathBuf,
    path: PathBuf,
    pub(super) stop: Arc<AtomicBool>,
    is_done: bool,
}

impl Drop for Archive {
    fn drop(&mut self) {
        if !self.is_done {
            // Best effort: a name that ends in .part is left if even this fails.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Where one can go back to.
pub(super) struct Mark {
    items: Items,
    bytes: u64,
}

impl Archive {
    pub(super) fn begin(path: &Path, stop: Arc<AtomicBool>) -> Result<Self> {
        let random: [u8; 8] = rng::bytes();
        let temporary = folder_of(path).join(format!(".lockstep-{}.part", rng::hex(&random)));
        let io = |error| ClientError::io(&temporary, error);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(io)?;
        let first = prefix();
        let mut archive = Self {
            file: BufWriter::with_capacity(1024 * 1024, file),
            items: Items::begin(&first)?,
            bytes: 0,
            temporary,
            path: path.to_path_buf(),
            stop,
            is_done: false,
        };
        archive.put(&first)?;
        Ok(archive)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| ClientError::io(&self.path, error))?;
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Writes an item; gives where its body begins.
    pub(super) fn item(&mut self, kind: ItemKind, body: &[u8]) -> Result<u64> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(ClientError::Interrupted);
        }
        let head = ItemHead { kind, bytes: u64::try_from(body.len()).unwrap_or(u64::MAX) };
        let bytes = head.to_bytes();
        self.items.head(&bytes)?;
        self.items.take(head, body)?;
        self.put(&bytes)?;
        let place = self.bytes;
        self.put(body)?;
        Ok(place)
    }

    /// Begins an object of so many bytes.
    pub(super) fn begin_object(&mut self, blob: BlobId, bytes: u64) -> Result<Mark> {
        let mark = Mark { items: self.items.clone(), bytes: self.bytes };
        let head = ItemHead { kind: ItemKind::Object, bytes: bytes.saturating_add(16) };
        let written = head.to_bytes();
        self.items.head(&written)?;
        self.items.object(head, blob)?;
        self.put(&written)?;
        self.put(blob.as_bytes())?;
        Ok(mark)
    }

    pub(super) fn object_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.items.object_bytes(bytes)?;
        self.put(bytes)
    }

    /// Takes back what was written since a mark.
    pub(super) fn go_back(&mut self, mark: Mark) -> Result<()> {
        let io = |error| ClientError::io(&self.path, error);
        self.file.flush().map_err(io)?;
        self.file.get_ref().set_len(mark.bytes).map_err(io)?;
        self.file.seek(SeekFrom::Start(mark.bytes)).map_err(io)?;
        (self.items, self.bytes) = (mark.items, mark.bytes);
        Ok(())
    }

    /// Reads back an item that was written.
    pub(super) fn read_back(&mut self, place: u64, bytes: usize) -> Result<Vec<u8>> {
        let io = |error| ClientError::io(&self.path, error);
        self.file.flush().map_err(io)?;
        let mut body = vec![0; bytes];
        self.file.get_ref().read_exact_at(&mut body, place).map_err(io)?;
        Ok(body)
    }

    /// Makes all of it durable.
    pub(super) fn sync(&mut self) -> Result<()> {
        let io = |error| ClientError::io(&self.path, error);
        self.file.flush().map_err(io)?;
        self.file.get_ref().sync_all().map_err(io)
    }

    /// Gives the file its name.
    pub(super) fn finish(mut self, path: &Path) -> Result<()> {
        let io = |error| ClientError::io(path, error);
        std::fs::rename(&self.temporary, path).map_err(io)?;
        self.is_done = true;
        File::open(folder_of(path)).and_then(|folder| folder.sync_all()).map_err(io)
    }
}
