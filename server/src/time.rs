//! The one clock of the server.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
pub fn now_utc() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
