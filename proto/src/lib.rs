//! What Lockstep's clients and servers agree on: identifiers, the one strict codec, every public
//! structure of `docs/PROTOCOL.md`, the rules of a valid chain, and the text form of recovery keys.
//!
//! Nothing in this crate needs a secret, reads a clock or does I/O. The server depends on this crate
//! and not on `lockstep-client-crypto`: that it can not read what it stores shows in the dependency
//! graph.
//!
//! Reading order for an auditor: [`label`] and [`hash`], [`cbor`], [`sign`], then [`device_log`] and
//! [`key_header`] (who may write), [`envelope`] and [`blob`] (what is written), [`commit`], [`state`]
//! and [`chain`] (in which order, and that nothing is missing).

#![cfg_attr(
    test,
    allow(clippy::as_conversions, clippy::cast_possible_truncation, clippy::indexing_slicing, clippy::panic)
)]

pub mod api;
pub mod archive;
pub mod blob;
pub mod cbor;
pub mod chain;
pub mod clock;
pub mod commit;
pub mod device_log;
pub mod envelope;
pub mod hash;
pub mod id;
pub mod key_header;
pub mod label;
pub mod limits;
pub mod recovery;
pub mod sign;
pub mod size;
pub mod state;
pub mod vault_log;
pub mod version;

pub use cbor::{Bytes, CodecError};
pub use hash::Digest;
pub use id::{
    AccountId, BlobId, DeviceId, Epoch, OperationId, RecordId, Revision, Seq, SessionId, SourceId, VaultId,
};
pub use sign::{Signature, Signed};
