//! One pending write and the version that it is merged with (docs/MERGING.md, ADR 0012).

use crate::document::{Origin, blobs, objects};
use crate::engine::Setup;
use crate::local::fits;
use crate::replica::{MergeRow, PendingRow, Result};
use lockstep_client_crypto::content::Content;
use lockstep_merge::{Decision, Merged, Outcome, Record, SameAs, TypePolicy, merge};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::envelope::{KIND_DOCUMENT, KIND_TOMBSTONE};
use lockstep_proto::id::Revision;

/// What becomes of a pending write.
pub(crate) enum Became {
    /// It goes on as it is, upon the other.
    Kept,
    /// The other says all of it: nothing is left to send.
    Dropped,
    /// It goes on with other contents, upon the other.
    Changed(Box<Content>, u8),
    /// It can not become one with the other: both are kept.
    Apart,
}

/// A write that was merged.
pub(crate) struct Joined {
    pub(crate) became: Became,
    /// What was decided; none if nothing was.
    pub(crate) entry: Option<MergeRow>,
    /// Whether something in it waits for a decision.
    pub(crate) open: bool,
}

impl Joined {
    /// Nothing was decided.
    pub(crate) const APART: Self = Self { became: Became::Apart, entry: None, open: false };
}

/// Merges a pending write with the version below it: the committed one, of `revision`, or what the write before it
/// became.
pub(crate) fn join(
    setup: &Setup,
    policy: &TypePolicy,
    row: &PendingRow,
    content: &Content,
    below: &Origin,
    revision: Revision,
) -> Result<Joined> {
    let own = Origin::new(content, row.kind, setup.device.id());
    let base_objects = row.grew.as_ref().map(|grew| objects(&grew.blobs)).unwrap_or_default();
    let base = row.grew.as_ref().map(|grew| grew.version(&base_objects));
    let (own_objects, below_objects) = (objects(&own.blobs), objects(&below.blobs));
    let outcome = merge(policy, base.as_ref(), &own.version(&own_objects), &below.version(&below_objects));
    let merged = match outcome {
        Outcome::Merged(merged) => merged,
        Outcome::Conflict(_) => return Ok(Joined::APART),
    };
    let became = match merged.same_as {
        SameAs::Local => Became::Kept,
        SameAs::Remote | SameAs::Both => Became::Dropped,
        SameAs::Neither => {
            let (content, kind) = content_of(&merged, content)?;
            if !fits(&content) {
                return Ok(Joined::APART);
            }
            Became::Changed(Box::new(content), kind)
        }
    };
    let open = !merged.open.is_empty();
    let entry = (!merged.record.decisions.is_empty()).then(|| MergeRow {
        operation: row.operation,
        record: row.record,
        revision,
        decisions: encode_record(merged.record),
        pending: row.content.clone(),
    });
    Ok(Joined { became, entry, open })
}

/// What was decided, as far as an entry holds it: the clashes alone, or, where even they are too many, none. The pending
/// version is in the entry in any case.
fn encode_record(mut record: Record) -> Vec<u8> {
    let mut encoded = record.encode();
    if encoded.len() > Record::BYTES_MAX {
        record.decisions.retain(Decision::is_clash);
        encoded = record.encode();
    }
    if encoded.len() > Record::BYTES_MAX {
        record.decisions.clear();
        encoded = record.encode();
    }
    encoded
}

/// The write's content with what it was merged to: its operation and its clock stay.
fn content_of(merged: &Merged, content: &Content) -> Result<(Content, u8)> {
    let kind = if merged.document.is_some() { KIND_DOCUMENT } else { KIND_TOMBSTONE };
    let content = Content {
        schema: merged.schema,
        document: merged.document.clone().unwrap_or_default().into(),
        blobs: blobs(&merged.objects)?,
        ..content.clone()
    };
    Ok((content, kind))
}
