//! Merging of documents: what becomes of edits that devices made at the same time, by policies that are data.
//!
//! A document is a CBOR map. A policy ([`Policies`], docs/MERGING.md) says for each record type and field what
//! becomes of concurrent edits. [`merge()`] takes the common base, the pending and the committed version and gives
//! one version, what was decided for each field ([`Record`]), and what waits for somebody to decide ([`Open`]); or
//! says why there can not be one, and both are kept. A writer passes each edit through [`write()`], which notes in
//! the document when each field was written and by whom.
//!
//! Nothing here needs a secret, reads a clock, draws randomness or does I/O: the same versions and the same policy
//! give the same bytes on every device. But for `prefer-committed` and `prefer-pending`, concurrent edits of one
//! base give the same document in whatever order they reach the server: `merge/tests/` holds that against generated
//! edits. Why it is built like this: docs/adr/0012-merging.md.
//!
//! Reading order: [`value`], [`policy`], `state` (what a document is while it is merged), `join`, `text`, `meta`
//! (what is noted in a document), `document`, `merge`, `record`.

#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::panic))]

mod document;
mod join;
pub mod limits;
mod merge;
mod meta;
pub mod policy;
mod record;
mod stamp;
mod state;
mod text;
pub mod value;

pub use document::{
    Choice, DocumentError, NOTES_KEY, Object, Open, Version, View, decode, encode, read, resolve, write,
};
pub use lockstep_proto::clock::Hlc;
pub use merge::{Conflict, Merged, Outcome, Reason, SameAs, Side, merge, names_object};
pub use meta::NotesError;
pub use policy::{Policies, PolicyError, TypePolicy};
pub use record::{Decision, Outcome as Taken, Record, Slot, UndoError};
pub use stamp::Stamp;
pub use value::{Fields, Value};
