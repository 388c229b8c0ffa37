//! What the tests across crates share.

#![allow(clippy::unwrap_used, reason = "a test that can not set up its parts has failed")]

pub mod s3;
pub mod tls;
