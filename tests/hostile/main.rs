//! The real client against a server that lies (`tests/src/hostile`): one named test for each row of the attack
//! catalogue. Each lie is told once to see that the client does what it must, and counted, to see that it was told.

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

// What the suite `cli` has for its own tests, too.
#[allow(dead_code, unused_macros, unused_imports, reason = "the suite cli uses the rest")]
#[path = "../cli/back_end.rs"]
mod back_end;
#[allow(dead_code, reason = "the suite cli uses the rest")]
#[path = "../cli/program.rs"]
mod program;
#[allow(dead_code, reason = "the suite cli uses the rest")]
#[path = "../cli/server.rs"]
mod server;
#[allow(dead_code, reason = "the suite cli uses the rest")]
#[path = "../cli/tree.rs"]
mod tree;
#[allow(dead_code, reason = "the suite cli uses the rest")]
#[path = "../cli/world.rs"]
mod world;

mod collision;
mod library;
mod rows_added;
mod rows_chain;
mod rows_commitment;
mod rows_devices;
mod rows_envelopes;
mod rows_keys;
mod rows_many;
mod rows_objects;
mod rows_rotation;
mod rows_wraps;
mod scene;
