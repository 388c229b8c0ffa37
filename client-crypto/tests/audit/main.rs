//! What an auditor would look for by hand: secrets that stay in memory or show themselves, comparisons in variable
//! time, and dependencies that nobody listed.

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

mod compare;
mod dependencies;
#[cfg(target_os = "linux")]
mod memory;
mod redaction;
mod scenario;
