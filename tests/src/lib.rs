//! What the tests across crates share.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a test that can not set up its parts has failed"
)]

pub mod bench;
pub mod fuzz;
pub mod hostile;
pub mod postgres;
pub mod s3;
pub mod tls;
pub mod vectors;
