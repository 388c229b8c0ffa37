//! What every back end has to do (a store, blob storage), and what the real server answers on real
//! connections: honest devices, clumsy ones and hostile ones.
//!
//! Nothing here sleeps or measures time; everything listens on loopback only.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    missing_docs
)]

mod architecture;
mod bucket;
mod chain;
mod claims;
mod client;
mod folder;
mod http;
mod memory;
mod objects;
mod store;
mod world;
