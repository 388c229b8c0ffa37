//! What the engine can end a sync with.

use lockstep_proto::id::{DeviceId, Epoch, RecordId, Seq, VaultId};

/// Why a sync stopped. Nothing was persisted of what it refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The server's chain ends before the head that was verified here.
    #[error(
        "the server went back in time: vault {vault} ends at commit {server}, this device verified commit {verified}"
    )]
    Rollback {
        /// Vault.
        vault: VaultId,
        /// Last commit that was verified here.
        verified: Seq,
        /// The server's head.
        server: Seq,
    },
    /// The server sends a version of a record that was replaced, in the place of the newest one or beside it.
    #[error(
        "the server went back in time: it sends record {record} of vault {vault} as commit {old} wrote it, which commit {seq} replaced"
    )]
    RecordRollback {
        /// Vault.
        vault: VaultId,
        /// The record.
        record: RecordId,
        /// Commit whose version is wanted.
        seq: Seq,
        /// Commit whose version came.
        old: Seq,
    },
    /// The server's chain does not pass through the head that was verified here.
    #[error(
        "the server shows another history: commit {seq} of vault {vault} does not follow what this device verified"
    )]
    Fork {
        /// Vault.
        vault: VaultId,
        /// First commit that differs.
        seq: Seq,
    },
    /// A commit of a device breaks a rule.
    #[error("commit {seq} of vault {vault} by device {device} is not valid: {rule}")]
    Fault {
        /// Vault.
        vault: VaultId,
        /// The commit.
        seq: Seq,
        /// Its author.
        device: DeviceId,
        /// The rule.
        rule: String,
    },
    /// The server withholds something that a signed change list announces.
    #[error("the server withholds record {record}, which commit {seq} of vault {vault} wrote")]
    Incomplete {
        /// Vault.
        vault: VaultId,
        /// Commit that wrote it.
        seq: Seq,
        /// The record.
        record: RecordId,
    },
    /// A record that this device does not hold, by its selection. Nobody is to blame: it can be fetched.
    #[error(
        "record {record} of vault {vault} (commit {seq}) is not held on this device: its selection leaves it out"
    )]
    NotHeld {
        /// Vault.
        vault: VaultId,
        /// Commit that wrote it.
        seq: Seq,
        /// The record.
        record: RecordId,
    },
    /// The server's answer is not valid; nothing is held against any device.
    #[error("the server's answer is not valid: {what}")]
    Server {
        /// What is wrong.
        what: String,
    },
    /// A commit by this device that this device does not know: its data was copied or restored.
    #[error("another copy of this device has written commit {seq} of vault {vault}")]
    Cloned {
        /// Vault.
        vault: VaultId,
        /// The commit.
        seq: Seq,
    },
    /// The vault is under a key epoch whose key is not here: the keyring has it.
    #[error("commit {seq} of vault {vault} is under key epoch {epoch}, whose key is not here")]
    KeyMissing {
        /// Vault.
        vault: VaultId,
        /// First commit under that key.
        seq: Seq,
        /// The epoch.
        epoch: Epoch,
    },
    /// A device was revoked since the vault's key was made: a new key is needed before anything is written.
    #[error("vault {vault} needs a new key epoch before anything is written to it")]
    NeedsRotation {
        /// Vault.
        vault: VaultId,
    },
    /// Misuse by the caller.
    #[error("{what}")]
    Misuse {
        /// What is wrong.
        what: &'static str,
    },
    /// A document that can not be written.
    #[error("{what}")]
    Document {
        /// Why.
        what: String,
    },
    /// The replica failed or contradicts itself.
    #[error("the local data is damaged or can not be read: {what}")]
    Replica {
        /// What is wrong.
        what: String,
    },
}

impl EngineError {
    pub(crate) fn server(what: impl std::fmt::Display) -> Self {
        Self::Server { what: what.to_string() }
    }

    /// An error of the replica.
    pub fn replica(what: impl std::fmt::Display) -> Self {
        Self::Replica { what: what.to_string() }
    }
}
