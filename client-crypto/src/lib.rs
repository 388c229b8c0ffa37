//! Everything of Lockstep that touches a secret. No I/O, no async, no clock, no global randomness:
//! every function that needs randomness takes the generator.
//!
//! An auditor reads [`seal`] (the one AEAD construction), [`account`] (the key hierarchy and the order
//! of verification), [`device`], [`vault`] (envelopes), [`blob`] (objects) and [`opaque`]. Byte-exact
//! definitions are in `docs/PROTOCOL.md`; structures that need no secret are in `lockstep-proto`.

#![cfg_attr(
    test,
    allow(clippy::as_conversions, clippy::cast_possible_truncation, clippy::indexing_slicing, clippy::panic)
)]

pub mod account;
pub mod blob;
pub mod content;
pub mod device;
pub mod error;
pub mod kdf;
pub mod local;
pub mod opaque;
pub mod passphrase;
pub mod recovery;
pub mod seal;
pub mod secret;
pub mod vault;

pub use error::{CryptoError, OpenError};
pub use rand::rand_core::CryptoRng;
