//! Sources and snapshots, and the files of a snapshot (PROTOCOL.md section 7).

use crate::error::{ClientError, Result};
use crate::vault::Vault;
use lockstep_client_crypto::content::{BlobRef, Content};
use lockstep_engine::files::{
    FILE_TYPE, FileDoc, KIND_FILE, SNAPSHOT_TYPE, SOURCE_TYPE, SnapshotDoc, SourceDoc, file_name,
};
use lockstep_engine::read;
use lockstep_engine::replica::{Replica as _, VersionRow};
use lockstep_proto::api::vault::{Entries, GetEnvelopes};
use lockstep_proto::blob::Layout;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::envelope::KIND_DOCUMENT;
use lockstep_proto::id::{RecordId, Revision, Seq, SourceId};
use lockstep_proto::limits;
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
    fn add(&mut self, snapshot: &Snapshot, record: RecordId, content: Option<Content>) {
        let source = snapshot.source.id;
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
            let id = crate::rng::hex(&content.name.0);
            found.push(Snapshot { id, seq: row.seq, doc, source });
        }
        found.sort_by_key(|snapshot| snapshot.seq);
        Ok(found)
    }

    /// One snapshot by the beginning of its id.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::Usage`] if several fit.
    pub fn snapshot(&self, prefix: &str) -> Result<Snapshot> {
        let mut fits: Vec<Snapshot> =
            self.snapshots()?.into_iter().filter(|snapshot| snapshot.id.starts_with(prefix)).collect();
        match (fits.pop(), fits.is_empty()) {
            (Some(snapshot), true) if prefix.len() >= 4 => Ok(snapshot),
            (Some(_), _) => {
                Err(ClientError::Usage(format!("\"{prefix}\" fits several snapshots, or is too short")))
            }
            (None, _) => Err(ClientError::NotFound(format!(
                "there is no snapshot \"{prefix}\"; see: lockstep snapshots"
            ))),
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
        let mut found: Vec<Snapshot> = newest.into_values().collect();
        found.sort_by(|left, right| left.source.doc.name.cmp(&right.source.doc.name));
        Ok(found)
    }

    /// The files of a snapshot, ascending by path: the versions in force after its commit, as the verified
    /// change lists say. Older envelopes are fetched and accepted by digest.
    ///
    /// # Errors
    /// [`ClientError::Damaged`] names a record that does not open; what the server withholds is an error.
    pub async fn files_of(&self, snapshot: &Snapshot) -> Result<SnapshotFiles> {
        let mut found = SnapshotFiles::default();
        let mut past = Vec::new();
        for row in self.replica.tagged(FILE_TYPE, snapshot.source.id.as_bytes())? {
            let version = if row.seq <= snapshot.seq {
                VersionRow {
                    seq: row.seq,
                    record: row.record,
                    revision: row.revision,
                    digest: row.digest,
                    kind: row.kind,
                    previous_seq: None,
                }
            } else {
                match read::version_at(&self.replica, row.record, snapshot.seq)? {
                    Some(version) => version,
                    None => continue,
                }
            };
            if version.kind != KIND_DOCUMENT {
                continue;
            }
            if version.seq == row.seq && row.present {
                let content = read::open(&self.replica, &self.setup.keys, &row)?;
                found.add(snapshot, row.record, content);
            } else {
                past.push(version);
            }
        }
        for chunk in past.chunks(limits::PAGE_ENTRIES_MAX / 4) {
            self.fetch_past(snapshot, chunk, &mut found).await?;
        }
        found.files.sort_by(|left, right| left.doc.path.cmp(&right.doc.path));
        Ok(found)
    }

    async fn fetch_past(
        &self,
        snapshot: &Snapshot,
        versions: &[VersionRow],
        found: &mut SnapshotFiles,
    ) -> Result<()> {
        let mut wanted: Vec<&VersionRow> = versions.iter().collect();
        let path = format!("/v1/vaults/{}/envelopes/get", self.setup.vault());
        while !wanted.is_empty() {
            let places = wanted.iter().map(|version| (version.seq, version.record)).collect();
            let page: Entries = self.api().post(&path, &GetEnvelopes(places)).await?;
            let mut got = BTreeMap::new();
            for entry in page.entries {
                got.insert((entry.seq, entry.record), entry.envelope.0);
            }
            let before = wanted.len();
            let mut left = Vec::new();
            for version in wanted {
                match got.remove(&(version.seq, version.record)) {
                    Some(bytes) => {
                        let content = read::open_version(&self.replica, &self.setup, version, &bytes)?;
                        found.add(snapshot, version.record, content);
                    }
                    None => left.push(version),
                }
            }
            if left.len() == before {
                let record = left.first().map(|version| version.record.to_string()).unwrap_or_default();
                return Err(ClientError::Incomplete(format!(
                    "the server withholds an older version of record {record}"
                )));
            }
            wanted = left;
        }
        Ok(())
    }
}
