//! Lockstep's sync engine, pure: [`VaultEngine::step`] takes an input and gives effects. It reads the
//! replica through [`Replica`], and everything else (writing, sending, waiting) is an [`Effect`] that an
//! adapter carries out. So it runs in a browser and in the simulator as it is.
//!
//! Walks: a local write is [`local`]; pushing is [`push`]; pulling is [`pull`], whose checks are
//! [`verify`] and [`bound`]; what happens to pending writes that lost is [`settle`],
//! which has the documents merged in [`merge`]. Chains that parted or hold commits that do
//! not count are mended by a repair: [`repair`] takes one over, [`seek`] looks for one.

#![cfg_attr(test, allow(clippy::as_conversions, clippy::indexing_slicing, clippy::panic))]

mod bound;
pub mod document;
mod edit;
pub mod effect;
pub mod engine;
pub mod error;
pub mod files;
pub mod keyring;
mod local;
mod many;
mod merge;
mod old;
mod pull;
mod push;
pub mod read;
pub mod repair;
pub mod replica;
mod seek;
pub mod select;
mod settle;
pub mod skipped;
mod verify;

pub use effect::{Answer, Effect, Env, Event, Failure, Input, NewRecord, Request};
pub use engine::VaultEngine;
pub use error::EngineError;
pub use replica::Replica;
