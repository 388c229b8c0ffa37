//! The sessions of an account (PROTOCOL.md section 12.4).

use super::body;
use crate::id::{DeviceId, SessionId};
use crate::limits::{KIB, TINY_BODY_BYTES_MAX};
use serde::{Deserialize, Serialize};

body! {
    /// One session in `GET /v1/account/sessions`.
    SessionEntry("session entry", TINY_BODY_BYTES_MAX) {
        /// Its name.
        id: SessionId,
        /// Device; zero in a provisional session.
        device: DeviceId,
        /// One of the `SESSION_` constants.
        kind: u8,
        /// When it began, seconds since 1970.
        created_utc: u64,
        /// When it was last used, to about an hour.
        used_utc: u64,
        /// End.
        expires_utc: u64,
        /// Whether it is the one that asks.
        is_this: bool,
    }
}

/// `GET /v1/account/sessions`, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sessions(pub Vec<SessionEntry>);

impl crate::cbor::Wire for Sessions {
    const NAME: &'static str = "session list";
    const BYTES_MAX: usize = 64 * KIB;
}
