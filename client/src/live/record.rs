//! Records as an app sees them.

use crate::error::{ClientError, Result};
use lockstep_client_crypto::content::{BlobRef, Content};
use lockstep_engine::NewRecord;
use lockstep_engine::read::Current;
use lockstep_engine::replica::{Pinning, Policy};
use lockstep_proto::id::{DeviceId, RecordId, Revision, Seq};

/// Types that begin so belong to the program.
const RESERVED: &str = "lockstep/";

/// A record as it stands here, writes that wait for the server included.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Its type.
    pub record_type: String,
    /// Its name within the type.
    pub name: Vec<u8>,
    /// Version of the type's schema.
    pub schema: u64,
    /// The document, as it was put.
    pub document: Vec<u8>,
    /// Objects that it needs.
    pub blobs: Vec<BlobRef>,
    /// Its newest revision that is committed; 0: none yet.
    pub revision: Revision,
    /// Whether a write of it waits for the server.
    pub pending: bool,
    /// When it was written, milliseconds since 1970 by the writer's clock.
    pub written_utc_ms: u64,
    /// The record that this is a conflict copy of.
    pub conflict_of: Option<RecordId>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record(revision {}, pending {}, [redacted])", self.revision, self.pending)
    }
}

impl From<Current> for Record {
    fn from(current: Current) -> Self {
        let Current { content, revision, pending } = current;
        let conflict_of = content.conflict_of();
        let Content { record_type, name, schema, document, blobs, hlc, .. } = content;
        Self {
            record_type,
            name: name.0,
            schema,
            document: document.0,
            blobs,
            revision,
            pending,
            written_utc_ms: hlc.utc_ms,
            conflict_of,
        }
    }
}

/// One version of a record. Its document is read with [`super::Live::restore`], which writes it as the newest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Its revision.
    pub revision: Revision,
    /// The commit that put it.
    pub seq: Seq,
    /// Who wrote it.
    pub device: DeviceId,
    /// When its commit says that it was written, seconds since 1970 by the writer's clock.
    pub written_utc: u64,
    /// Whether it is a deletion.
    pub deleted: bool,
}

/// A record to put, with schema 1 and no objects.
pub fn document(record_type: &str, name: &[u8], document: Vec<u8>) -> NewRecord {
    NewRecord { document: Some(document), ..deletion(record_type, name) }
}

/// A record to delete.
pub fn deletion(record_type: &str, name: &[u8]) -> NewRecord {
    NewRecord {
        record_type: record_type.to_owned(),
        name: name.to_vec(),
        schema: 1,
        document: None,
        blobs: Vec::new(),
        policy: Policy::KeepBoth,
        pin: Pinning::None,
        expected: None,
    }
}

pub(crate) fn check_type(record_type: &str) -> Result<()> {
    if record_type.starts_with(RESERVED) {
        return Err(ClientError::Usage("types that begin with lockstep/ belong to the program".into()));
    }
    Ok(())
}
