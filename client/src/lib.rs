//! Lockstep's native client: the adapters round the engine. [`account`] is sign-up, sign-in and recovery,
//! [`vault`] drives engines over the SQLite [`replica`] and HTTP [`api`], [`backup`] and [`restore`] are
//! files as records, [`documents`] are records that merge, [`conflicts`] what waits for somebody to decide. It never touches the terminal.

pub mod account;
pub mod api;
pub mod archive;
pub mod backup;
pub mod blob;
pub mod changes;
pub mod check;
pub mod conflicts;
pub mod diff;
pub mod documents;
pub mod error;
mod fetch;
pub mod heal;
pub mod history;
pub mod home;
pub mod host;
pub mod keyring;
pub mod kit;
mod late;
pub mod live;
pub mod notice;
pub mod objects;
pub mod past;
pub mod replica;
pub mod restore;
pub mod rng;
pub mod select;
pub mod snapshot;
pub mod vault;

pub use error::ClientError;
