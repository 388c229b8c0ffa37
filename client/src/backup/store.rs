//! Turning one file into a record: contents inline, framed, or in parts.

use super::plan::{Known, document};
use super::scan::{Entry, Stat, open_file, stat_file};
use crate::blob;
use crate::error::ClientError;
use crate::rng;
use lockstep_client_crypto::blob::new_reference;
use lockstep_client_crypto::content::BlobRef;
use lockstep_client_crypto::vault::VaultKeys;
use lockstep_engine::files::FileDoc;
use lockstep_proto::Digest;
use lockstep_proto::blob::Layout;
use lockstep_proto::id::SourceId;
use lockstep_proto::limits::INLINE_BYTES_MAX;
use std::io::Read as _;
use std::path::Path;

const TRIES: u32 = 3;
const READ_BYTES: usize = 1024 * 1024;

/// A file that was read.
pub(super) enum Stored {
    /// Contents ride in the record, or are those that the vault has already.
    Record(FileDoc, Option<BlobRef>, Stat),
    /// Contents were sealed and wait to be sent framed.
    Framed(FileDoc, BlobRef, Vec<u8>, Stat),
    /// Contents are large; they were hashed, and are sent in parts.
    Large(FileDoc, Digest, std::fs::File, Stat),
}

/// Reads a file that may change meanwhile: three tries, then it is reported.
pub(super) fn store(
    keys: &VaultKeys,
    source: SourceId,
    root: &Path,
    entry: &Entry,
    known: Option<&Known>,
) -> std::result::Result<Stored, String> {
    let mut reason = String::new();
    for _ in 0..TRIES {
        match once(keys, source, root, entry, known) {
            Ok(Some(stored)) => return Ok(stored),
            Ok(None) => "it keeps changing while it is read".clone_into(&mut reason),
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(reason)
}

fn once(
    keys: &VaultKeys,
    source: SourceId,
    root: &Path,
    entry: &Entry,
    known: Option<&Known>,
) -> std::io::Result<Option<Stored>> {
    let (mut file, before) = open_file(root, &entry.path)?;
    let doc = document(source, entry, &before);
    let is_large = match Layout::new(before.size, 16) {
        Some(layout) => layout.object_bytes > blob::FRAMED_BYTES_MAX,
        None => return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "it is larger than 1 TiB")),
    };
    if is_large {
        let mut hasher = keys.content_hasher();
        let mut buffer = vec![0; READ_BYTES];
        let mut size = 0_u64;
        loop {
            let got = file.read(&mut buffer)?;
            if got == 0 {
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
        if let Some(blob) = same_blob(known, size, hash) {
            return Ok(Some(Stored::Record(doc, Some(blob), before)));
        }
        return Ok(Some(Stored::Large(doc, hash, file, before)));
    }
    let mut contents = Vec::with_capacity(usize::try_from(before.size).unwrap_or(0).saturating_add(1));
    file.take(before.size.saturating_add(1)).read_to_end(&mut contents)?;
    let (again, after) = open_file(root, &entry.path)?;
    drop(again);
    if u64::try_from(contents.len()).ok() != Some(before.size) || after != before {
        return Ok(None);
    }
    if contents.len() <= INLINE_BYTES_MAX {
        let doc = FileDoc { inline: contents.into(), ..doc };
        return Ok(Some(Stored::Record(doc, None, before)));
    }
    let mut hasher = keys.content_hasher();
    hasher.update(&contents);
    let hash = hasher.finish();
    if let Some(blob) = same_blob(known, before.size, hash) {
        return Ok(Some(Stored::Record(doc, Some(blob), before)));
    }
    let reference = new_reference(before.size, hash, &mut rng::system());
    let object = blob::seal(keys, &reference, &contents).map_err(std::io::Error::other)?;
    Ok(Some(Stored::Framed(doc, reference, object, before)))
}

/// Contents that the path had before are not sent again.
fn same_blob(known: Option<&Known>, size: u64, hash: Digest) -> Option<BlobRef> {
    known.and_then(|known| known.blob.clone()).filter(|blob| blob.size == size && blob.content_hash == hash)
}

/// Whether an error is about one file, and the run goes on.
pub(super) fn is_about_the_file(error: &ClientError) -> bool {
    matches!(error, ClientError::Io { .. } | ClientError::Usage(_))
}
