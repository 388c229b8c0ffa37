//! Lockstep's server: it stores opaque, versioned ciphertext and verifies everything that needs no key.
//!
//! Rooms: [`route`] (one file a resource), [`extract`] (what a handler takes), [`domain`] (rules; knows
//! neither axum nor SQL), [`store`] (all SQL behind one trait), [`objects`] (blob bytes), [`job`]
//! (collection). [`serve`] is the whole program but for its command line.

#![cfg_attr(test, allow(clippy::as_conversions, clippy::indexing_slicing, clippy::panic))]

pub mod admin;
pub mod budget;
pub mod config;
pub mod cors;
pub mod domain;
pub mod error;
pub mod extract;
pub mod http;
pub mod job;
pub mod objects;
pub mod proxy;
pub mod route;
pub mod router;
pub mod state;
pub mod store;
pub mod time;
pub mod tls;

pub use config::Config;
pub use http::{Server, serve};
