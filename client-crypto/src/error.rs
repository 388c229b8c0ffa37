//! Errors of this crate. A failed decryption is one opaque value that says nothing about why.

/// Something sealed did not open: wrong key, damaged or foreign bytes. One variant, on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it does not open with this key")]
pub struct OpenError;

/// What can go wrong when keys are derived, opened or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CryptoError {
    /// Misuse: a value is outside what the function takes.
    #[error("{what}")]
    Misuse {
        /// What is wrong.
        what: &'static str,
    },
    /// It does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A structure is malformed.
    #[error(transparent)]
    Codec(#[from] lockstep_proto::CodecError),
    /// A key header is not to be used.
    #[error(transparent)]
    KeyHeader(#[from] lockstep_proto::key_header::KeyHeaderError),
    /// The peer sent something that no honest peer sends.
    #[error("the server's {what} is not valid")]
    Peer {
        /// What was not valid.
        what: &'static str,
    },
    /// A primitive refused its parameters; can not happen with the compiled-in ones.
    #[error("the {what} primitive failed")]
    Primitive {
        /// Which one.
        what: &'static str,
    },
}
