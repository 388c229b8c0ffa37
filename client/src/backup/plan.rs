//! What a run has to do: what is known of a source, against what a walk found.

use super::scan::{Entry, Kind, Stat};
use crate::error::Result;
use crate::vault::Vault;
use lockstep_client_crypto::content::{BlobRef, Content};
use lockstep_engine::files::{FILE_TYPE, FileDoc, FileTime, KIND_FILE, KIND_FOLDER, KIND_LINK};
use lockstep_engine::read;
use lockstep_engine::replica::{PendingRow, Replica as _};
use lockstep_proto::Bytes;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::envelope::KIND_DOCUMENT;
use lockstep_proto::id::{RecordId, SourceId};
use std::collections::{HashMap, HashSet};

/// What the vault (pending writes included) has of a path.
pub(crate) struct Known {
    record: RecordId,
    pub(crate) doc: FileDoc,
    pub(crate) blob: Option<BlobRef>,
}

impl Known {
    /// What stands at a path.
    pub(crate) fn new(record: RecordId, doc: FileDoc, blob: Option<BlobRef>) -> Self {
        Self { record, doc, blob }
    }
}

/// All that is known of a source, by path.
pub(crate) fn known_files(vault: &Vault, source: SourceId) -> Result<HashMap<Vec<u8>, Known>> {
    let mut known = HashMap::new();
    // The paths of each record, so that a deletion finds them.
    let mut paths: HashMap<RecordId, Vec<Vec<u8>>> = HashMap::new();
    for row in vault.replica.list(FILE_TYPE, Some(source.as_bytes()))? {
        if let Some(content) = read::open(&vault.replica, &vault.setup.keys, &row)? {
            add(&mut known, &mut paths, row.record, content);
        }
    }
    // An interrupted run may have left writes that wait for the server; they count.
    for row in all_pending(vault)? {
        let Ok(content) = Content::decode(&row.content) else { continue };
        if content.record_type != FILE_TYPE || !content.name.0.starts_with(source.as_bytes()) {
            continue;
        }
        if row.kind == KIND_DOCUMENT {
            add(&mut known, &mut paths, row.record, content);
            continue;
        }
        for path in paths.remove(&row.record).unwrap_or_default() {
            if known.get(&path).is_some_and(|file| file.record == row.record) {
                known.remove(&path);
            }
        }
    }
    Ok(known)
}

fn all_pending(vault: &Vault) -> Result<Vec<PendingRow>> {
    Ok(vault.replica.pending(usize::MAX)?)
}

fn add(
    known: &mut HashMap<Vec<u8>, Known>,
    paths: &mut HashMap<RecordId, Vec<Vec<u8>>>,
    record: RecordId,
    content: Content,
) {
    if let Ok(doc) = FileDoc::decode(&content.document.0) {
        let blob = content.blobs.into_iter().next();
        paths.entry(record).or_default().push(doc.path.0.clone());
        known.insert(doc.path.0.clone(), Known { record, doc, blob });
    }
}

/// Whether a path, or a folder above it, is among some.
pub(super) fn lies_in(path: &[u8], among: &HashSet<&[u8]>) -> bool {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
    among.contains(&[][..])
        || [path.len()]
            .into_iter()
            .chain(ends)
            .any(|end| path.get(..end).is_some_and(|part| among.contains(part)))
}

/// The document of an entry without its contents.
pub(super) fn document(source: SourceId, entry: &Entry, stat: &Stat) -> FileDoc {
    let (kind, target) = match &entry.kind {
        Kind::File => (KIND_FILE, Vec::new()),
        Kind::Folder => (KIND_FOLDER, Vec::new()),
        Kind::Link(target) => (KIND_LINK, target.clone()),
    };
    FileDoc {
        source,
        path: entry.path.clone().into(),
        kind,
        size: if kind == KIND_FILE { stat.size } else { 0 },
        mtime: FileTime(stat.mtime.0, stat.mtime.1),
        mode: stat.mode & 0o7777,
        target: target.into(),
        inline: Bytes::default(),
        owner: (),
        xattrs: (),
        acl: (),
        hard_link: (),
        sparse: (),
        codec: (),
        chunker: (),
    }
}
