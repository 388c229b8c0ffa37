//! Groups of files: read, hashed and sealed on another thread, and sent in one request, which becomes one segment at the
//! server.

use super::plan::{Known, document};
use super::scan::{Entry, Stat, open_file, stat_file};
use crate::blob::Frames;
use crate::replica::{content_tag, mark_of};
use crate::rng;
use lockstep_client_crypto::blob::Hashed;
use lockstep_client_crypto::content::BlobRef;
use lockstep_client_crypto::local::LocalKeys;
use lockstep_client_crypto::vault::VaultKeys;
use lockstep_engine::files::FileDoc;
use lockstep_proto::Digest;
use lockstep_proto::api::object::FRAME_HEADER_BYTES;
use lockstep_proto::blob::{Layout, chunk_log2_for};
use lockstep_proto::id::{RecordId, SourceId};
use lockstep_proto::limits::{FRAMES_BODY_BYTES_MAX, INLINE_BYTES_MAX, PART_BYTES};
use std::collections::HashSet;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A group is sent when it has grown to this size.
pub(super) const GROUP_BYTES: u64 = 8 * 1024 * 1024;
/// Files of one group.
pub(super) const GROUP_FILES: usize = 512;
const TRIES: u8 = 3;
const READ_BYTES: usize = 1024 * 1024;
/// Buffers that are kept for the next group.
const SPARE_MAX: usize = 8;

/// Bytes that contents of a size take in a request; none if they are sent in parts.
pub(super) fn framed_bytes(size: u64) -> Option<u64> {
    if usize::try_from(size).is_ok_and(|size| size <= INLINE_BYTES_MAX) {
        return Some(0);
    }
    let object = Layout::new(size, chunk_log2_for(size))?.object_bytes;
    let is_framed = object <= u64::try_from(PART_BYTES).ok()?;
    is_framed.then_some(object.checked_add(u64::try_from(FRAME_HEADER_BYTES).ok()?)?)
}

/// A file that is to be read.
pub(super) struct Item {
    pub(super) entry: Entry,
    pub(super) record: RecordId,
    /// What its path had before.
    pub(super) known: Option<Known>,
    /// Its contents are sent even if it seems that they were before.
    pub(super) anew: bool,
    pub(super) tries: u8,
}

impl Item {
    /// What it takes to read it.
    pub(super) fn clone_to_read(&self) -> Self {
        let known =
            self.known.as_ref().map(|known| Known::new(self.record, known.doc.clone(), known.blob.clone()));
        Self { entry: self.entry.clone(), record: self.record, known, anew: self.anew, tries: self.tries }
    }
}

/// A file that was read.
pub(super) enum Stored {
    /// Contents ride in the record, or are those that the path had before.
    Record(FileDoc, Option<BlobRef>, Stat),
    /// Contents are in the group's request.
    Sealed(FileDoc, BlobRef, Stat),
    /// It seems that these contents were sent before.
    Seen(FileDoc, Digest, Stat),
    /// It changed, or has grown beyond the group's request: to be looked at again.
    Again(Stat),
}

/// What a group came to.
pub(super) struct Group {
    pub(super) items: Vec<(Item, Result<Stored, String>)>,
    pub(super) frames: Frames,
}

/// Reads files of one source; shared by all threads of a run.
pub(super) struct Reader {
    keys: Arc<VaultKeys>,
    local: Arc<LocalKeys>,
    source: SourceId,
    root: PathBuf,
    /// Marks of contents that were sent, or are sealed to be sent.
    seen: Mutex<HashSet<u64>>,
    spare: Mutex<Vec<Vec<u8>>>,
    stop: Arc<AtomicBool>,
}

impl Reader {
    pub(super) fn new(
        keys: Arc<VaultKeys>,
        local: Arc<LocalKeys>,
        source: SourceId,
        root: PathBuf,
        seen: Vec<u64>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let seen = Mutex::new(seen.into_iter().collect());
        Self { keys, local, source, root, seen, spare: Mutex::default(), stop }
    }

    fn take_spare(&self) -> Vec<u8> {
        let mut buffer = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        buffer.clear();
        buffer
    }

    /// Takes a buffer back, for the next group.
    pub(super) fn give_back(&self, buffer: Vec<u8>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    }

    /// Reads a group; blocking.
    pub(super) fn read(&self, items: Vec<Item>) -> Group {
        let expected: u64 = items.iter().filter_map(|item| framed_bytes(item.entry.stat.size)).sum();
        let mut contents = self.take_spare();
        let mut body = self.take_spare();
        body.reserve(usize::try_from(expected).unwrap_or(0).min(FRAMES_BODY_BYTES_MAX));
        let mut frames = Frames::in_buffer(body);
        let mut done = Vec::with_capacity(items.len());
        for item in items {
            let stored = self.one(&item, &mut contents, &mut frames).map_err(|error| error.to_string());
            done.push((item, stored));
        }
        self.give_back(contents);
        Group { items: done, frames }
    }

    fn one(&self, item: &Item, contents: &mut Vec<u8>, frames: &mut Frames) -> std::io::Result<Stored> {
        if item.tries >= TRIES {
            return Err(std::io::Error::other("it keeps changing while it is read"));
        }
        let (file, before) = open_file(&self.root, &item.entry.path)?;
        let doc = document(self.source, &item.entry, &before);
        if framed_bytes(before.size).is_none_or(|bytes| !frames.has_room(bytes)) {
            return Ok(Stored::Again(before));
        }
        contents.clear();
        contents.reserve(usize::try_from(before.size).unwrap_or(0).saturating_add(1));
        file.take(before.size.saturating_add(1)).read_to_end(contents)?;
        let (_, after) = open_file(&self.root, &item.entry.path)?;
        if u64::try_from(contents.len()).ok() != Some(before.size) || after != before {
            return Ok(Stored::Again(after));
        }
        if contents.len() <= INLINE_BYTES_MAX {
            let doc = FileDoc { inline: contents.clone().into(), ..doc };
            return Ok(Stored::Record(doc, None, before));
        }
        let hashed = Hashed::new(&self.keys, contents);
        if let Some(blob) = same_blob(item.known.as_ref(), before.size, hashed.hash()) {
            return Ok(Stored::Record(doc, Some(blob), before));
        }
        let tag = content_tag(&self.local, self.keys.vault(), hashed.hash(), hashed.size());
        let is_new = self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(mark_of(&tag));
        if !is_new && !item.anew {
            return Ok(Stored::Seen(doc, hashed.hash(), before));
        }
        let reference =
            frames.seal(&self.keys, &hashed, &mut rng::system()).map_err(std::io::Error::other)?;
        Ok(Stored::Sealed(doc, reference, before))
    }

    /// Hashes a file that is too large for a request; blocking. None if it changed meanwhile.
    pub(super) fn hash(&self, item: &Item) -> std::io::Result<Option<Large>> {
        let (mut file, before) = open_file(&self.root, &item.entry.path)?;
        if Layout::new(before.size, chunk_log2_for(before.size)).is_none() {
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "it is larger than 1 TiB"));
        }
        let doc = document(self.source, &item.entry, &before);
        let mut hasher = self.keys.content_hasher();
        let mut buffer = vec![0; READ_BYTES];
        let mut size = 0_u64;
        loop {
            let got = file.read(&mut buffer)?;
            if got == 0 || self.stop.load(Ordering::Relaxed) {
                break;
            }
            let (contents, _) = buffer.split_at(got);
            hasher.update(contents);
            size = size.saturating_add(u64::try_from(got).unwrap_or(u64::MAX));
        }
        if size != before.size || stat_file(&file)? != before {
            return Ok(None);
        }
        let hash = hasher.finish();
        let known = same_blob(item.known.as_ref(), size, hash);
        Ok(Some(Large { doc, hash, known, file, stat: before }))
    }

    /// The same, three times if need be.
    pub(super) fn hash_large(&self, item: &Item) -> Result<Large, String> {
        for _ in 0..TRIES {
            match self.hash(item) {
                Ok(Some(large)) => return Ok(large),
                Ok(None) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Err("it keeps changing while it is read".into())
    }
}

/// A large file that was hashed.
pub(super) struct Large {
    pub(super) doc: FileDoc,
    pub(super) hash: Digest,
    /// What its path had before, if the contents are the same.
    pub(super) known: Option<BlobRef>,
    pub(super) file: std::fs::File,
    pub(super) stat: Stat,
}

/// Contents that the path had before are not sent again.
fn same_blob(known: Option<&Known>, size: u64, hash: Digest) -> Option<BlobRef> {
    known.and_then(|known| known.blob.clone()).filter(|blob| blob.size == size && blob.content_hash == hash)
}
