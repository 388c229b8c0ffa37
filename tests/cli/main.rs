//! The real programs, as a person runs them: `lockstep-server serve` and `lockstep`, each test with its own
//! server, folders and devices.
//!
//! Everything listens on loopback only. What is waited for is a condition that is polled with a bound.

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

mod archive;
mod archive_damage;
mod back_end;
mod bucket;
mod canary;
mod crash;
mod damage;
mod dedup;
mod devices;
mod edge;
mod fidelity;
mod files;
mod full;
mod heal;
mod help;
mod history;
mod homes;
mod input;
mod kit;
mod lacking;
mod life;
mod lost;
mod lost_pin;
mod makeup;
mod merging;
mod pace;
mod pages;
mod past;
mod postgres;
mod program;
mod proxy;
mod quota;
mod records;
mod refusals;
mod revoke;
mod revoked_keys;
mod rollback;
#[path = "../hostile/rows.rs"]
mod rows;
mod safety;
mod select;
mod server;
mod sessions;
mod skipped;
mod stolen;
mod thief;
mod tree;
mod two_chains;
mod watch;
mod world;
