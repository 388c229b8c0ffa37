//! The record by which an import finds the vault again that it began.

use lockstep_proto::cbor::Wire;
use lockstep_proto::id::{SourceId, VaultId};
use lockstep_proto::{Digest, limits, wire_array};

wire_array! {
    /// Which import a vault is from.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(super) struct Mark {
        /// The archive's digest.
        pub archive: Digest,
        /// The vault that it was.
        pub vault: VaultId,
        /// When it began, seconds since 1970.
        pub utc: u64,
        /// What sources are called here: old id and new one.
        pub sources: Vec<(SourceId, SourceId)>,
        /// Whether everything was imported.
        pub done: bool,
    }
}

impl Wire for Mark {
    const NAME: &'static str = "import record";
    const BYTES_MAX: usize = limits::ENVELOPE_BYTES_MAX;
}
