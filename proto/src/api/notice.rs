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

crate::wire_array! {
    /// The first message to `GET /v1/events`: a browser can not set a header there, and no secret belongs in an
    /// address. Debug does not show the token.
    #[derive(Clone, PartialEq, Eq)]
    pub struct Listen {
        /// Token of a device's session.
        pub token: String,
        /// What the device knows.
        pub heads: Heads,
    }
}

impl std::fmt::Debug for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listen {{ token: [redacted], heads: {:?} }}", self.heads)
    }
}

impl crate::cbor::Wire for Listen {
    const NAME: &'static str = "listen request";
    const BYTES_MAX: usize = 33 * KIB;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_show_the_token() {
        let listen = Listen { token: "c2VjcmV0".into(), heads: Heads(vec![(VaultId::ZERO, Seq::new(7))]) };
        let text = format!("{listen:?}");
        assert!(!text.contains("c2VjcmV0") && text.contains("[redacted]") && text.contains('7'), "{text}");
    }
}
