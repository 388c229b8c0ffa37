//! What a write of a document becomes: its notes, its objects, and its merge with what came since it was read.

use crate::document::{Origin, blobs, objects};
use crate::effect::NewRecord;
use crate::error::EngineError;
use crate::replica::Result;
use lockstep_client_crypto::content::BlobRef;
use lockstep_merge::{Choice, DocumentError, NotesError, Outcome, SameAs, Stamp, TypePolicy, Version, merge};
use lockstep_proto::envelope::{KIND_DOCUMENT, KIND_TOMBSTONE};

/// What a write changes.
pub(crate) enum Change {
    /// All fields, of what is here now.
    Fields,
    /// All fields, of a version that was read earlier.
    Seen(Box<Origin>),
    /// Something that waits for a decision.
    Decision(Choice),
}

/// What is written.
pub(crate) struct Written {
    pub(crate) schema: u64,
    pub(crate) kind: u8,
    pub(crate) document: Vec<u8>,
    pub(crate) blobs: Vec<BlobRef>,
}

const fn kind_of(is_document: bool) -> u8 {
    if is_document { KIND_DOCUMENT } else { KIND_TOMBSTONE }
}

impl Written {
    /// The writer's bytes as they are. A deletion needs nothing.
    pub(crate) fn plain(new: NewRecord) -> Self {
        let kind = kind_of(new.document.is_some());
        let blobs = if new.document.is_some() { new.blobs } else { Vec::new() };
        Self { schema: new.schema, kind, document: new.document.unwrap_or_default(), blobs }
    }
}

fn refused(error: &DocumentError) -> EngineError {
    EngineError::Document { what: error.to_string() }
}

/// A write that is merged, upon what is here; none if that says all of it.
pub(crate) fn write(
    policy: &TypePolicy,
    before: Option<&Origin>,
    new: NewRecord,
    change: Change,
    stamp: Stamp,
) -> Result<Option<Written>> {
    let Some(document) = &new.document else {
        return match change {
            Change::Seen(seen) if before != Some(&*seen) => {
                upon(policy, &seen, before, &Written::plain(new), stamp)
            }
            _ => Ok(Some(Written::plain(new))),
        };
    };
    let mut written = Written { document: Vec::new(), ..Written::plain(new.clone()) };
    match change {
        Change::Decision(choice) => {
            let before = before.ok_or_else(|| refused(&DocumentError::NothingOpen))?;
            let decided = before.with(|version| lockstep_merge::resolve(policy, version, choice, stamp));
            written.document = decided.map_err(|error| refused(&error))?;
        }
        Change::Seen(seen) if before != Some(&*seen) => {
            written.document = noted(policy, Some(&seen), document, stamp)?;
            keep_named(&mut written.blobs, Some(&seen), &written.document);
            return upon(policy, &seen, before, &written, stamp);
        }
        Change::Fields | Change::Seen(_) => written.document = noted(policy, before, document, stamp)?,
    }
    keep_named(&mut written.blobs, before, &written.document);
    Ok(Some(written))
}

/// An edit of a version that is not the newest here: both become one at once.
fn upon(
    policy: &TypePolicy,
    seen: &Origin,
    before: Option<&Origin>,
    written: &Written,
    stamp: Stamp,
) -> Result<Option<Written>> {
    let changed = || EngineError::Document {
        what: "the record changed since it was read, and the two can not become one: read it again"
            .to_owned(),
    };
    let before = before.ok_or_else(changed)?;
    let (own_objects, seen_objects) = (objects(&written.blobs), objects(&seen.blobs));
    let own = Version {
        schema: written.schema,
        stamp,
        document: (written.kind == KIND_DOCUMENT).then_some(&written.document[..]),
        objects: &own_objects,
    };
    let base = seen.version(&seen_objects);
    let Outcome::Merged(merged) = before.with(|now| merge(policy, Some(&base), &own, now)) else {
        return Err(changed());
    };
    if matches!(merged.same_as, SameAs::Remote | SameAs::Both) {
        return Ok(None);
    }
    let kind = kind_of(merged.document.is_some());
    let blobs = if merged.document.is_some() { blobs(&merged.objects)? } else { Vec::new() };
    Ok(Some(Written { schema: merged.schema, kind, document: merged.document.unwrap_or_default(), blobs }))
}

/// Adds the objects that the version before had and the document still names, if only in values that wait: who writes may
/// know of those that it shows alone.
fn keep_named(blobs: &mut Vec<BlobRef>, before: Option<&Origin>, document: &[u8]) {
    for blob in before.map(|before| &before.blobs[..]).unwrap_or_default() {
        let is_listed = blobs.iter().any(|known| known.blob == blob.blob);
        if !is_listed && lockstep_merge::names_object(document, blob.blob) {
            blobs.push(blob.clone());
        }
    }
}

/// The document with the notes of who wrote what. What was there before and can not be read is replaced whole.
fn noted(policy: &TypePolicy, before: Option<&Origin>, document: &[u8], stamp: Stamp) -> Result<Vec<u8>> {
    let fields = lockstep_merge::decode(document).map_err(|error| refused(&error))?;
    let Some(before) = before.filter(|before| !before.is_deletion()) else {
        return lockstep_merge::encode(fields).map_err(|error| refused(&error));
    };
    match before.with(|version| lockstep_merge::write(policy, Some(version), fields.clone(), stamp)) {
        Ok(written) => Ok(written),
        Err(error) => match before.view(policy) {
            Err(DocumentError::Codec(_) | DocumentError::Notes(NotesError::Malformed)) => {
                lockstep_merge::encode(fields).map_err(|error| refused(&error))
            }
            _ => Err(refused(&error)),
        },
    }
}
