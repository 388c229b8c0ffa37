//! The history of one file: every version of it that finished snapshots hold. One walk over the versions of
//! one record, however many snapshots and files there are.

use crate::diff::{Change, change_of};
use crate::error::{ClientError, Result};
use crate::past::withheld;
use crate::snapshot::{Snapshot, SnapshotFile, SnapshotFiles, Source};
use crate::vault::Vault;
use lockstep_client_crypto::vault::VaultKeys;
use lockstep_engine::files::{FILE_TYPE, file_name, is_relative_path};
use lockstep_engine::replica::VersionRow;
use lockstep_proto::envelope::KIND_DOCUMENT;
use lockstep_proto::id::Seq;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

/// What a version holds.
pub enum Held {
    /// The file.
    File(Box<SnapshotFile>),
    /// The file was deleted.
    Deleted,
    /// It does not open, or the server does not have it; why.
    Unreadable(String),
}

/// A version that at least one finished snapshot holds.
pub struct FileVersion {
    /// Commit that put it.
    pub seq: Seq,
    /// Snapshots that hold it, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// What it holds.
    pub held: Held,
    /// How it differs from the version before it in this history; none if it does not.
    pub change: Option<Change>,
}

/// The history of a file.
pub struct FileHistory {
    /// Newest first.
    pub versions: Vec<FileVersion>,
    /// The first thing that the server withholds.
    pub trouble: Option<ClientError>,
}

/// A source's name and a path below its root.
fn split(path: &Path) -> Result<(Vec<u8>, Vec<u8>)> {
    let wrong = || {
        ClientError::Usage(format!(
            "\"{}\" is no path as lockstep ls shows it: the name of a source, and what lies below it",
            path.display()
        ))
    };
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.as_bytes().to_vec()),
            Component::CurDir => {}
            _ => return Err(wrong()),
        }
    }
    let (name, below) = parts.split_first().ok_or_else(wrong)?;
    let below = below.join(&b'/');
    if is_relative_path(&below) { Ok((name.clone(), below)) } else { Err(wrong()) }
}

impl Vault {
    /// Every version of a file that finished snapshots hold, newest first.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] if no snapshot ever held it; [`ClientError::Damaged`].
    pub async fn file_history(&self, path: &Path) -> Result<FileHistory> {
        let (name, below) = split(path)?;
        let snapshots = self.snapshots()?;
        let mut history = FileHistory { versions: Vec::new(), trouble: None };
        let mut is_source = false;
        for source in self.sources()?.into_iter().filter(|source| source.doc.name.0 == name) {
            is_source = true;
            let own: Vec<&Snapshot> =
                snapshots.iter().filter(|snapshot| snapshot.source.id == source.id).collect();
            self.history_in(&source, &below, &own, &mut history).await?;
        }
        if history.versions.is_empty() {
            let shown = path.display();
            return Err(ClientError::NotFound(if is_source {
                format!("no finished snapshot has ever held {shown}; see: lockstep ls")
            } else {
                format!("there is no source \"{}\"; lockstep snapshots lists them", name.escape_ascii())
            }));
        }
        history.versions.sort_by_key(|version| std::cmp::Reverse(version.seq));
        Ok(history)
    }

    async fn history_in(
        &self,
        source: &Source,
        below: &[u8],
        snapshots: &[&Snapshot],
        history: &mut FileHistory,
    ) -> Result<()> {
        let record = self.setup().keys.record_id(FILE_TYPE, &file_name(source.id, below));
        let versions = self.versions(record)?;
        let mut held: Vec<(VersionRow, Vec<Snapshot>)> = Vec::new();
        let mut until = None;
        for version in versions {
            // In force from its own commit to the one that replaced it.
            let from = snapshots.partition_point(|snapshot| snapshot.seq < version.seq);
            let to = until
                .map_or(snapshots.len(), |until| snapshots.partition_point(|snapshot| snapshot.seq < until));
            until = Some(version.seq);
            let of_it: Vec<Snapshot> =
                snapshots.get(from..to).unwrap_or_default().iter().map(|found| (*found).clone()).collect();
            if !of_it.is_empty() {
                held.push((version, of_it));
            }
        }
        let documents: Vec<VersionRow> = held
            .iter()
            .map(|(version, _)| *version)
            .filter(|version| version.kind == KIND_DOCUMENT)
            .collect();
        let mut opened: BTreeMap<Seq, Held> = BTreeMap::new();
        let mut take = |version: &VersionRow, content| {
            opened.insert(version.seq, one(source, version, content));
            Ok(())
        };
        let missing = self.open_versions(&documents, &mut take).await?;
        history.trouble = history.trouble.take().or_else(|| missing.first().map(withheld));
        // Oldest first, so that each is compared with the one before it.
        let mut found: Vec<FileVersion> = Vec::new();
        for (version, snapshots) in held.into_iter().rev() {
            let held = match opened.remove(&version.seq) {
                Some(held) => held,
                None if version.kind == KIND_DOCUMENT => {
                    Held::Unreadable("the server does not show it".into())
                }
                None => Held::Deleted,
            };
            let change = step(&self.setup().keys, found.last().map(|before| &before.held), &held);
            // A file that was never there is not deleted either.
            if !(found.is_empty() && matches!(held, Held::Deleted)) {
                found.push(FileVersion { seq: version.seq, snapshots, held, change });
            }
        }
        history.versions.extend(found);
        Ok(())
    }
}

fn one(
    source: &Source,
    version: &VersionRow,
    content: Option<lockstep_client_crypto::content::Content>,
) -> Held {
    let mut found = SnapshotFiles::default();
    found.add(source.id, version.record, content);
    match (found.files.pop(), found.failed.pop()) {
        (Some(file), _) => Held::File(Box::new(file)),
        (None, failed) => Held::Unreadable(failed.map(|(_, reason)| reason).unwrap_or_default()),
    }
}

fn step(keys: &VaultKeys, before: Option<&Held>, now: &Held) -> Option<Change> {
    match (before, now) {
        (_, Held::Deleted) => Some(Change::Removed),
        (None | Some(Held::Deleted), _) => Some(Change::Added),
        (Some(Held::File(before)), Held::File(now)) => change_of(keys, before, now),
        // What does not open is not known to be the same.
        _ => Some(Change::Contents),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_with_a_source_and_stay_below_it() {
        let parts = |text: &str| split(Path::new(text)).ok();
        let expect = |name: &str, below: &str| Some((name.as_bytes().to_vec(), below.as_bytes().to_vec()));
        assert_eq!(parts("docs/a/b"), expect("docs", "a/b"));
        assert_eq!(parts("./docs/./a/"), expect("docs", "a"));
        assert_eq!(parts("docs"), expect("docs", ""));
        for wrong in ["", "/docs/a", "..", "docs/../a", "."] {
            assert!(parts(wrong).is_none(), "{wrong}");
        }
    }
}
