//! Notices: which vaults moved. A notice names a vault and its head's seq, nothing else.

use super::body;
use crate::id::{Seq, VaultId};
use crate::limits::KIB;
use serde::{Deserialize, Serialize};

/// Heads: what a listener knows, and what is told of them. None are told: nothing moved, the other side is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Heads(pub Vec<(VaultId, Seq)>);

impl crate::cbor::Wire for Heads {
    const NAME: &'static str = "heads";
    const BYTES_MAX: usize = 32 * KIB;
}

body! {
    /// The first message to `GET /v1/events`: a browser can not set a header there, and no secret belongs in an
    /// address.
    Listen("listen request", 33 * KIB) {
        /// Token of a device's session.
        token: String,
        /// What the device knows.
        heads: Heads,
    }
}

body! {
    /// `POST /v1/events/wait`.
    WaitForHeads("wait request", 33 * KIB) {
        /// What the device knows.
        heads: Heads,
        /// How long the server may wait with its answer, in seconds; it waits 25 at most.
        seconds: u64,
    }
}
