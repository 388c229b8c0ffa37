//! `GET /v1/server`.

use super::body;
use crate::limits::TINY_BODY_BYTES_MAX;

/// Anyone may register.
pub const REGISTRATION_OPEN: u8 = 1;
/// An invite code is needed.
pub const REGISTRATION_INVITE: u8 = 2;
/// Nobody may register.
pub const REGISTRATION_CLOSED: u8 = 3;

body! {
    /// What a client learns before it signs in. Nothing in it is trusted.
    ServerInfo("server information", TINY_BODY_BYTES_MAX) {
        /// Version bytes spoken.
        versions: Vec<u8>,
        /// Suite.
        suite: u8,
        /// Public origin; a client refuses another than the one that it was given.
        origin: String,
        /// One of the `REGISTRATION_` constants.
        registration: u8,
        /// The server's clock, seconds since 1970.
        utc: u64,
        /// Limits: name and value.
        limits: Vec<(String, u64)>,
    }
}
