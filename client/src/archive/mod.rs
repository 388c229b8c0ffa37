//! Archives (PROTOCOL.md section 10.1): one file that restores an account without any server. [`write()`] makes one,
//! [`open()`] reads and verifies one, [`import`] writes one into an account, [`plain`] writes
//! everything out decrypted.
//!
//! There is one verification of chains, pins and envelopes: an archive that is read stands in the place of a server
//! (`serve`), and the same engines pull from it into a replica that is thrown away.

mod copy;
mod file;
mod fill;
mod index;
mod look;
mod mark;
mod object;
mod open;
mod scratch;
mod send;
mod serve;
mod wanted;
mod write;

pub mod import;
pub mod plain;

pub use look::Counts;
pub use open::{Ignore, Key, Opened, OpenedVault, open};
pub use write::{Options, Outcome, write};

use crate::error::ClientError;
use lockstep_proto::archive::ArchiveError;

/// What making or reading an archive tells while it works.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Vaults done and in all.
    pub vaults: (u64, u64),
    /// Bytes done and in all; the sum may grow.
    pub bytes: (u64, u64),
}

/// An archive that is not to be believed.
pub(crate) fn refused(what: &dyn std::fmt::Display) -> ClientError {
    ClientError::Damaged(format!(
        "the archive is damaged or not to be believed: {what}. Nothing of it was taken over"
    ))
}

impl From<ArchiveError> for ClientError {
    fn from(error: ArchiveError) -> Self {
        refused(&error)
    }
}

/// What goes wrong over an archive is said of the archive, and not of a server.
pub(crate) fn of_archive(error: ClientError) -> ClientError {
    match error {
        ClientError::Rollback(what)
        | ClientError::RecordRollback(what)
        | ClientError::Fork(what)
        | ClientError::Server(what)
        | ClientError::Incomplete(what)
        | ClientError::KeysBehind(what) => {
            refused(&what.replace("the server went back in time", "it is older than what was verified"))
        }
        ClientError::Refused { detail, .. } => refused(&detail),
        other => other,
    }
}
