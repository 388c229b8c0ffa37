//! What can go wrong, in words for a person: what failed, why, and what to do.

use lockstep_engine::EngineError;
use lockstep_proto::api::problem::Code;
use lockstep_proto::size::size_text;
use std::path::{Path, PathBuf};

/// An error of the client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Misuse: a value that can not be used.
    #[error("{0}")]
    Usage(String),
    /// The server can not be reached.
    #[error(
        "the server {server} can not be reached: {reason}; check the address and that it runs, then try again"
    )]
    Unreachable {
        /// Which.
        server: String,
        /// Why.
        reason: String,
    },
    /// The device is enrolled, but the home is not finished.
    #[error(
        "the server has this device now, and new credentials and a new kit are valid; but: {0}. Run the same command again"
    )]
    Unfinished(Box<ClientError>),
    /// Sign-in failed.
    #[error("the account name or the passphrase is wrong")]
    WrongPassphrase,
    /// Recovery sign-in failed.
    #[error("the account name or the recovery key is wrong")]
    WrongRecoveryKey,
    /// The session ended and the device can not sign in again.
    #[error(
        "the server does not accept this device any more: it was revoked, or the account was deleted, or the server's \
         data is older than the device; to join again, run: lockstep login"
    )]
    SignedOut,
    /// The server refuses.
    #[error("the server refuses: {detail}")]
    Refused {
        /// Its code, if it is one of ours.
        code: Option<Code>,
        /// Its words.
        detail: String,
        /// Ids that it names.
        names: Vec<String>,
    },
    /// A lost race: what came in between. The engine goes on with it.
    #[error("the vault's head moved on")]
    HeadMoved(Box<lockstep_proto::api::vault::Page>),
    /// The server is busy or failing.
    #[error("the server can not do this now: {0}; try again later")]
    Busy(String),
    /// The server's answer is not valid.
    #[error("the server's answer is not valid: {0}")]
    Server(String),
    /// The server showed an older state than a device verified before.
    #[error(
        "{0}. Nothing was changed here. It may have been restored from an old copy: put a newer copy of the server's \
         data back, or give it back what this device holds: lockstep heal"
    )]
    Rollback(String),
    /// The server sent a version of a record that was replaced, where a newer one was wanted.
    #[error("{0}. Nothing of it was taken over. A server that was restored needs all its data of one time")]
    RecordRollback(String),
    /// The server shows another history.
    #[error(
        "the server shows another history than the one verified before: {0}. Nothing was changed here. If it was \
         restored from an old copy: lockstep heal"
    )]
    Fork(String),
    /// Something that a device wrote is not valid.
    #[error("{0}. Nothing after it was taken over; its owner can repair it: lockstep heal")]
    Fault(String),
    /// The server withholds something.
    #[error("{0}. Nothing of it was taken over")]
    Incomplete(String),
    /// Something that this device does not hold, by its own choice, and that has to be fetched.
    #[error("{0}; to fetch it, run the same command while the server can be reached")]
    NotHeld(String),
    /// A device was revoked and keys changed meanwhile.
    #[error("{0}: a device of the account was revoked meanwhile; run the same command again")]
    KeysBehind(String),
    /// This device was revoked.
    #[error("this device was revoked by its owner; run: lockstep login, with another --home, to join again")]
    Revoked,
    /// This home is a copy of another.
    #[error(
        "another copy of this device's home is in use ({0}); run: lockstep login, to give this copy its own identity"
    )]
    Cloned(String),
    /// Something stored is damaged.
    #[error("{0}")]
    Damaged(String),
    /// There is no account in this home.
    #[error("there is no account in {0}; run: lockstep signup, or: lockstep login")]
    NoAccount(PathBuf),
    /// Another process writes.
    #[error("another lockstep process is writing in {0}; wait for it to end, or use another --home")]
    Locked(PathBuf),
    /// A local file operation failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The disk is full.
    #[error("the disk of {} is full; make room and run the same command again", .0.display())]
    DiskFull(PathBuf),
    /// The account's quota is used up.
    #[error(
        "{}. Ask whoever runs the server for a larger quota (there: lockstep-server quota NAME SIZE), then run the \
         same command again. Reading, restoring and deleting go on",
        quota_text(*.0)
    )]
    QuotaExceeded(Option<(u64, u64)>),
    /// The local database failed.
    #[error("the local database failed: {0}")]
    Database(String),
    /// Something was not found.
    #[error("{0}")]
    NotFound(String),
    /// The run was stopped by the user.
    #[error("stopped; the same command goes on where it was")]
    Interrupted,
}

/// Result of the client.
pub type Result<T> = std::result::Result<T, ClientError>;

impl ClientError {
    /// A file operation that failed; a full disk is told apart.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull(path),
            _ => Self::Io { path, source },
        }
    }

    /// The server's code, if it refused with one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => *code,
            Self::QuotaExceeded(_) => Some(Code::QuotaExceeded),
            _ => None,
        }
    }
}

/// Bytes used and allowed, if the server says how many.
fn quota_text(bytes: Option<(u64, u64)>) -> String {
    let used = "the account's quota at the server is used up";
    match bytes {
        Some((bytes, quota)) => {
            format!("{used}: {} of {} are used, and this needs more", size_text(bytes), size_text(quota))
        }
        None => used.to_owned(),
    }
}

impl From<EngineError> for ClientError {
    fn from(error: EngineError) -> Self {
        let text = error.to_string();
        match error {
            EngineError::Rollback { .. } => Self::Rollback(text),
            EngineError::RecordRollback { .. } => Self::RecordRollback(text),
            EngineError::Fork { vault, seq } => {
                Self::Fork(format!("commit {seq} of vault {vault} does not follow what this device verified"))
            }
            EngineError::Fault { .. } => Self::Fault(text),
            EngineError::Incomplete { .. } => Self::Incomplete(text),
            EngineError::NotHeld { .. } => Self::NotHeld(text),
            EngineError::Cloned { .. } => Self::Cloned(text),
            EngineError::KeyMissing { .. } | EngineError::NeedsRotation { .. } => Self::KeysBehind(text),
            EngineError::Misuse { what } => Self::Usage(what.to_owned()),
            EngineError::Replica { .. } => Self::Damaged(text),
            _ => Self::Server(text),
        }
    }
}

impl From<rusqlite::Error> for ClientError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::DiskFull(PathBuf::from("this device's home")),
            _ => Self::Database(error.to_string()),
        }
    }
}

impl From<lockstep_client_crypto::CryptoError> for ClientError {
    fn from(error: lockstep_client_crypto::CryptoError) -> Self {
        use lockstep_client_crypto::CryptoError;
        match error {
            CryptoError::Misuse { what } => Self::Usage(what.to_owned()),
            CryptoError::Peer { .. } | CryptoError::KeyHeader(_) | CryptoError::Codec(_) => {
                Self::Server(error.to_string())
            }
            other => Self::Damaged(other.to_string()),
        }
    }
}
