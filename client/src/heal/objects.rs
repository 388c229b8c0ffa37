//! Contents that are gone from the server: found by asking for every object that is referred to, and uploaded again
//! from the files of this device, if they are still what they were.

use crate::blob::upload_large;
use crate::error::{ClientError, Result};
use crate::vault::Vault;
use lockstep_client_crypto::content::BlobRef;
use lockstep_engine::files::{FILE_TYPE, FileDoc};
use lockstep_engine::read;
use lockstep_engine::replica::Replica as _;
use lockstep_proto::api::object::ObjectList;
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::{BlobId, SourceId};
use lockstep_proto::limits;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// An object whose bytes are gone, and which file it is.
#[derive(Debug, Clone)]
pub struct Lost {
    /// The object.
    pub blob: BlobId,
    /// Name of the source and path below it.
    pub name: PathBuf,
    /// Size of the contents.
    pub size: u64,
    reference: BlobRef,
    files: Vec<PathBuf>,
}

impl Vault {
    /// Objects that records of this vault, present or of snapshots, refer to and that are gone from the server.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub async fn lost_objects(&self) -> Result<Vec<Lost>> {
        let mut wanted: BTreeMap<BlobId, Lost> = BTreeMap::new();
        let sources: BTreeMap<SourceId, _> =
            self.sources()?.into_iter().map(|source| (source.id, source.doc)).collect();
        let mut refer = |doc: &FileDoc, reference: BlobRef| {
            let below = std::ffi::OsStr::from_bytes(&doc.path.0);
            let (root, name) = match sources.get(&doc.source) {
                Some(source) => (
                    Some(PathBuf::from(std::ffi::OsStr::from_bytes(&source.root.0)).join(below)),
                    PathBuf::from(std::ffi::OsStr::from_bytes(&source.name.0)).join(below),
                ),
                None => (None, PathBuf::from(below)),
            };
            let lost = wanted.entry(reference.blob).or_insert_with(|| Lost {
                blob: reference.blob,
                name,
                size: reference.size,
                reference,
                files: Vec::new(),
            });
            lost.files.extend(root);
        };
        for row in self.replica.list(FILE_TYPE, None)? {
            let Some(content) = read::open(&self.replica, &self.setup.keys, &row)? else { continue };
            if let (Ok(doc), Some(blob)) =
                (FileDoc::decode(&content.document.0), content.blobs.into_iter().next())
            {
                refer(&doc, blob);
            }
        }
        for snapshot in self.snapshots()? {
            // What of an old snapshot can not be had is told by a check; the rest is looked at.
            let Ok(found) = self.files_of(&snapshot).await else { continue };
            for file in found.files {
                if let Some(blob) = file.blob {
                    refer(&file.doc, blob);
                }
            }
        }
        let ids: Vec<BlobId> = wanted.keys().copied().collect();
        let mut lost = Vec::new();
        for some in ids.chunks(limits::FRAMES_MAX) {
            let path = format!("/v1/vaults/{}/objects/missing", self.setup.vault());
            let missing: ObjectList = self.api().post(&path, &ObjectList(some.to_vec())).await?;
            lost.extend(missing.0.iter().filter_map(|blob| wanted.remove(blob)));
        }
        Ok(lost)
    }

    /// Uploads lost objects again from this device's files; gives what could not be found.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub async fn upload_lost(&self, lost: Vec<Lost>) -> Result<Vec<Lost>> {
        let mut left = Vec::new();
        for object in lost {
            let keys = &self.setup.keys;
            let found = object.files.iter().find_map(|path| same_contents(path, &object.reference, keys));
            match found {
                Some(mut file) => {
                    let done =
                        upload_large(self.api(), keys, &object.reference, &mut file, &mut |_| {}).await;
                    match done {
                        // What is wrong with this object is not wrong with the others.
                        Err(ClientError::Refused {
                            code: Some(Code::Exists | Code::Mismatch | Code::NotFound),
                            ..
                        }) => left.push(object),
                        other => other?,
                    }
                }
                None => left.push(object),
            }
        }
        Ok(left)
    }
}

/// A file, if it holds exactly the contents that a reference names.
fn same_contents(
    path: &std::path::Path,
    reference: &BlobRef,
    keys: &lockstep_client_crypto::vault::VaultKeys,
) -> Option<File> {
    let is_file = path.symlink_metadata().ok()?.is_file();
    let mut file = File::open(path).ok().filter(|_| is_file)?;
    if file.metadata().ok()?.len() != reference.size {
        return None;
    }
    let mut hasher = keys.content_hasher();
    let mut buffer = vec![0; 1024 * 1024];
    loop {
        let got = file.read(&mut buffer).ok()?;
        if got == 0 {
            break;
        }
        hasher.update(buffer.get(..got)?);
    }
    (hasher.finish() == reference.content_hash).then_some(file)
}
