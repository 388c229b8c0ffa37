//! What differs between two snapshots: by path below the root, contents apart from metadata.

use crate::error::Result;
use crate::snapshot::{Snapshot, SnapshotFile, SnapshotFiles};
use crate::vault::Vault;
use lockstep_client_crypto::vault::VaultKeys;
use lockstep_engine::files::{KIND_FILE, KIND_LINK};
use lockstep_engine::replica::VersionRow;
use lockstep_proto::Digest;
use lockstep_proto::id::{RecordId, Seq};
use std::collections::{BTreeMap, BTreeSet};

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// Its contents, its kind or its link's target changed.
    Contents,
    /// Only its time or its mode changed.
    Metadata,
}

/// One path that differs.
pub struct Difference {
    /// Path below the root; the root itself is empty.
    pub path: Vec<u8>,
    /// What became of it.
    pub change: Change,
    /// How it was.
    pub before: Option<SnapshotFile>,
    /// How it is.
    pub after: Option<SnapshotFile>,
}

/// What differs, and what does not open and may be shown as added or removed for that.
pub struct Diff {
    /// Ascending by path.
    pub differences: Vec<Difference>,
    /// Entries that are the same in both.
    pub unchanged: u64,
    /// Names for a person, and why they could not be compared.
    pub failed: Vec<(String, String)>,
}

/// What makes contents equal, whether they ride in the record or are an object.
fn contents(keys: &VaultKeys, file: &SnapshotFile) -> (u8, u64, Option<Digest>) {
    let hash = |bytes: &[u8]| {
        let mut hasher = keys.content_hasher();
        hasher.update(bytes);
        hasher.finish()
    };
    let digest = match (&file.blob, file.doc.kind) {
        (Some(blob), _) => Some(blob.content_hash),
        (None, KIND_FILE) => Some(hash(&file.doc.inline.0)),
        (None, KIND_LINK) => Some(hash(&file.doc.target.0)),
        (None, _) => None,
    };
    (file.doc.kind, file.doc.size, digest)
}

/// How a file differs from what it was; none if it does not.
pub fn change_of(keys: &VaultKeys, before: &SnapshotFile, after: &SnapshotFile) -> Option<Change> {
    if contents(keys, before) != contents(keys, after) {
        return Some(Change::Contents);
    }
    let metadata = |file: &SnapshotFile| (file.doc.mtime, file.doc.mode);
    (metadata(before) != metadata(after)).then_some(Change::Metadata)
}

impl Vault {
    /// Compares two snapshots, of one source or of two. What has not been written since is not even opened.
    ///
    /// # Errors
    /// [`crate::ClientError::Damaged`] if the local database is; what the server withholds is an error.
    pub async fn diff(&self, old: &Snapshot, new: &Snapshot) -> Result<Diff> {
        let (mut left, mut right) = (self.versions_of(old)?, self.versions_of(new)?);
        let places = |versions: &[VersionRow]| -> BTreeSet<(Seq, RecordId)> {
            versions.iter().map(|version| (version.seq, version.record)).collect()
        };
        let (in_left, in_right) = (places(&left), places(&right));
        left.retain(|version| !in_right.contains(&(version.seq, version.record)));
        right.retain(|version| !in_left.contains(&(version.seq, version.record)));
        let same = in_left.intersection(&in_right).count();
        let left = self.open_files(old, &left).await?;
        let right = self.open_files(new, &right).await?;
        Ok(compare(&self.setup().keys, left, right, u64::try_from(same).unwrap_or(u64::MAX)))
    }
}

fn compare(keys: &VaultKeys, left: SnapshotFiles, right: SnapshotFiles, same: u64) -> Diff {
    let mut failed = left.failed;
    failed.extend(right.failed);
    let mut pairs: BTreeMap<Vec<u8>, (Option<SnapshotFile>, Option<SnapshotFile>)> = BTreeMap::new();
    for file in left.files {
        let path = file.doc.path.0.clone();
        pairs.entry(path).or_default().0 = Some(file);
    }
    for file in right.files {
        let path = file.doc.path.0.clone();
        pairs.entry(path).or_default().1 = Some(file);
    }
    let mut diff = Diff { differences: Vec::new(), unchanged: same, failed };
    for (path, (before, after)) in pairs {
        let change = match (&before, &after) {
            (None, _) => Some(Change::Added),
            (_, None) => Some(Change::Removed),
            (Some(before), Some(after)) => change_of(keys, before, after),
        };
        match change {
            Some(change) => diff.differences.push(Difference { path, change, before, after }),
            None => diff.unchanged = diff.unchanged.saturating_add(1),
        }
    }
    diff
}
