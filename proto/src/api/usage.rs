//! What an account uses (PROTOCOL.md section 12.3).

use super::body;
use crate::limits::TINY_BODY_BYTES_MAX;

body! {
    /// `GET /v1/account/usage`.
    Usage("usage", TINY_BODY_BYTES_MAX) {
        /// Bytes that count.
        used: u64,
        /// Bytes that the account may use; null if there is no limit.
        quota: Option<u64>,
        /// Objects, begun ones included.
        objects: u64,
        /// Records, tombstones included.
        records: u64,
    }
}
