//! The library as apps use it: homes that are kept in sync in the background, and host stores, against the real server with
//! its real time-outs.
//!
//! Everything listens on loopback only. What is waited for is a condition that is polled with a bound.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions,
    clippy::print_stdout,
    dead_code,
    unused_imports,
    unused_macros,
    unreachable_pub,
    missing_docs
)]

#[path = "../cli/back_end.rs"]
mod back_end;
mod between;
mod device;
mod guide;
mod host;
mod host_crash;
mod host_owed;
#[path = "../cli/program.rs"]
mod program;
mod select;
#[path = "../cli/server.rs"]
mod server;
mod sync;
#[path = "../cli/tree.rs"]
mod tree;
mod trouble;
mod wait;
