//! Sources and snapshots, and the files of a snapshot (PROTOCOL.md section 7).

use crate::error::{ClientError, Result};
use crate::past::withheld;
use crate::vault::Vault;
use lockstep_client_crypto::content::{BlobRef, Content};
use lockstep_engine::files::{
    FILE_TYPE, FileDoc, KIND_FILE, SNAPSHOT_TYPE, SOURCE_TYPE, SnapshotDoc, SourceDoc, file_name,
};
use lockstep_engine::replica::{Pinning, Policy, RecordRow, Replica as _, VersionRow};
use lockstep_engine::{NewRecord, read};
use lockstep_proto::blob::Layout;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::envelope::KIND_DOCUMENT;
use lockstep_proto::id::{RecordId, Revision, Seq, SourceId};
use std::collections::BTreeMap;

/// A source.
#[derive(Clone)]
pub struct Source {
    /// Its id.
    pub id: SourceId,
    /// Its record.
    pub doc: SourceDoc,
}

/// A finished snapshot.
#[derive(Clone)]
pub struct Snapshot {
    /// Its id: 32 hexadecimal digits.
    pub id: String,
    /// Name of its record.
    pub name: Vec<u8>,
    /// The commit that it is.
    pub seq: Seq,
    /// Its record.
    pub doc: SnapshotDoc,
    /// Its source.
    pub source: Source,
}

/// A file of a snapshot.
#[derive(Clone)]
pub struct SnapshotFile {
    /// Its record id.
    pub record: RecordId,
    /// Its record.
    pub doc: FileDoc,
    /// Its contents, if they do not ride in the record.
    pub blob: Option<BlobRef>,
}

/// The files of a snapshot, and what of it does not open.
#[derive(Default)]
pub struct SnapshotFiles {
    /// Files, ascending by path.
    pub files: Vec<SnapshotFile>,
    /// Names for a person, and why they are not among the files.
    pub failed: Vec<(String, String)>,
}

impl SnapshotFiles {
    /// Adds a file, or says why it can not be restored; one bad record does not keep the others.
    pub(crate) fn add(&mut self, source: SourceId, record: RecordId, content: Option<Content>) {
        let Some(content) = content else {
            self.failed.push((format!("record {record}"), "it does not open; see: lockstep check".into()));
            return;
        };
        let path = content.name.0.get(16..).unwrap_or_default();
        let name = String::from_utf8_lossy(path).escape_debug().to_string();
        let mut blobs = content.blobs.into_iter();
        let (blob, more) = (blobs.next(), blobs.next());
        match FileDoc::decode(&content.document.0) {
            Ok(doc)
                if more.is_none()
                    && doc.source == source
                    && content.name.0 == file_name(source, &doc.path.0)
                    && contents_fit(&doc, blob.as_ref()) =>
            {
                self.files.push(SnapshotFile { record, doc, blob });
            }
            _ => self
                .failed
                .push((name, "its record is malformed, or needs a newer version of this program".into())),
        }
    }
}

/// Whether the contents have the size that the record says.
fn contents_fit(doc: &FileDoc, blob: Option<&BlobRef>) -> bool {
    match blob {
        Some(blob) => {
            doc.kind == KIND_FILE
                && doc.inline.0.is_empty()
                && blob.size == doc.size
                && Layout::new(blob.size, blob.chunk_log2).is_some()
        }
        None => u64::try_from(doc.inline.0.len()) == Ok(doc.size),
    }
}

fn named<T>(content: &Content, parse: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    parse(&content.name.0)
}

impl Vault {
    /// Sources of the vault.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn sources(&self) -> Result<Vec<Source>> {
        let mut found = Vec::new();
        for row in self.replica.list(SOURCE_TYPE, None)? {
            let Some(content) = read::open(&self.replica, &self.setup.keys, &row)? else { continue };
            if let (Some(id), Ok(doc)) =
                (named(&content, SourceId::from_slice), SourceDoc::decode(&content.document.0))
            {
                found.push(Source { id, doc });
            }
        }
        Ok(found)
    }

    /// Finished snapshots, oldest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let sources: BTreeMap<SourceId, Source> =
            self.sources()?.into_iter().map(|source| (source.id, source)).collect();
        let mut found = Vec::new();
        for row in self.replica.list(SNAPSHOT_TYPE, None)? {
            // A snapshot is written once; its commit is that of revision 1.
            if row.revision != Revision::new(1) {
                continue;
            }
            let Some(content) = read::open(&self.replica, &self.setup.keys, &row)? else { continue };
            let Ok(doc) = SnapshotDoc::decode(&content.document.0) else { continue };
            let Some(source) = sources.get(&doc.source).cloned() else { continue };
            // One that is forgotten here is gone, though the server may not know it yet.
            if self.replica.pending_of(row.record)?.iter().any(|write| write.kind != KIND_DOCUMENT) {
                continue;
            }
            let (id, name) = (crate::rng::hex(&content.name.0), content.name.0);
            found.push(Snapshot { id, name, seq: row.seq, doc, source });
        }
        found.sort_by_key(|snapshot| snapshot.seq);
        Ok(found)
    }

    /// One snapshot by the beginning of its id.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::Usage`] if several fit, [`ClientError::Damaged`].
    pub fn snapshot(&self, prefix: &str) -> Result<Snapshot> {
        let mut fits: Vec<Snapshot> =
            self.snapshots()?.into_iter().filter(|snapshot| snapshot.id.starts_with(prefix)).collect();
        match (fits.pop(), fits.is_empty()) {
            (Some(snapshot), true) if prefix.len() >= 4 => Ok(snapshot),
            (Some(_), _) => {
                Err(ClientError::Usage(format!("\"{prefix}\" fits several snapshots, or is too short")))
            }
            (None, _) => {
                self.check_state()?;
                let text = format!("there is no snapshot \"{prefix}\"; see: lockstep snapshots");
                Err(ClientError::NotFound(text))
            }
        }
    }

    /// Of every source the newest finished snapshot, at or before a time if one is given.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn newest_snapshots(&self, at_utc: Option<u64>) -> Result<Vec<Snapshot>> {
        let mut newest: BTreeMap<SourceId, Snapshot> = BTreeMap::new();
        for snapshot in self.snapshots()? {
            if at_utc.is_none_or(|at| snapshot.doc.end_utc <= at) {
                newest.insert(snapshot.source.id, snapshot);
            }
        }
        if newest.is_empty() {
            self.check_state()?;
        }
        let mut found: Vec<Snapshot> = newest.into_values().collect();
        found.sort_by(|left, right| left.source.doc.name.cmp(&right.source.doc.name));
        Ok(found)
    }

    /// Takes snapshots out of the list: for each one commit deletes its record and ends its pin. Durable here;
    /// [`Self::sync`] sends it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn forget(&mut self, snapshots: &[Snapshot]) -> Result<()> {
        let deletions = snapshots.iter().map(|snapshot| NewRecord {
            record_type: SNAPSHOT_TYPE.into(),
            name: snapshot.name.clone(),
            schema: 1,
            document: None,
            blobs: Vec::new(),
            policy: Policy::KeepBoth,
            pin: Pinning::Unpin(snapshot.seq),
            expected: None,
        });
        self.put(deletions.collect()).await
    }

    /// The versions of a source's files that were in force after a snapshot's commit, as the verified change
    /// lists say; deletions are left out. What is held here has to give the state that the commit was signed
    /// with.
    ///
    /// # Errors
    /// [`ClientError::Damaged`] if it does not.
    pub fn versions_of(&self, snapshot: &Snapshot) -> Result<Vec<VersionRow>> {
        self.check_state_as_of(snapshot.seq)?;
        let (mut found, mut deleted) = (Vec::new(), Vec::new());
        for row in self.replica.tagged(FILE_TYPE, snapshot.source.id.as_bytes())? {
            let RecordRow { record, revision, digest, seq, kind, .. } = row;
            let version = if seq <= snapshot.seq {
                Some(VersionRow { seq, record, revision, digest, kind, previous_seq: None })
            } else {
                read::version_at(&self.replica, record, snapshot.seq)?
            };
            match version {
                Some(version) if version.kind == KIND_DOCUMENT => found.push(version),
                Some(version) => deleted.push(version),
                None => {}
            }
        }
        // A file is not left out for a deletion that nobody signed.
        self.check_announced(&deleted)?;
        Ok(found)
    }

    /// The files of a snapshot, ascending by path. Older envelopes are fetched and accepted by digest.
    ///
    /// # Errors
    /// [`ClientError::Damaged`] if the local database is; what the server withholds is an error.
    pub async fn files_of(&self, snapshot: &Snapshot) -> Result<SnapshotFiles> {
        let versions = self.versions_of(snapshot)?;
        self.open_files(snapshot, &versions).await
    }

    /// Opens some of the versions of a snapshot.
    pub(crate) async fn open_files(
        &self,
        snapshot: &Snapshot,
        versions: &[VersionRow],
    ) -> Result<SnapshotFiles> {
        let mut found = SnapshotFiles::default();
        let mut take = |version: &VersionRow, content| {
            found.add(snapshot.source.id, version.record, content);
            Ok(())
        };
        let missing = self.open_versions(versions, &mut take).await?;
        if let Some(version) = missing.first() {
            return Err(withheld(version));
        }
        found.files.sort_by(|left, right| left.doc.path.cmp(&right.doc.path));
        Ok(found)
    }
}
