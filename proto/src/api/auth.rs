//! Registration, sign-in and sessions.

use super::body;
use crate::cbor::Bytes;
use crate::hash::Digest;
use crate::id::{AccountId, DeviceId};
use crate::limits::{SMALL_BODY_BYTES_MAX, TINY_BODY_BYTES_MAX};
use crate::sign::{Signature, Signed};

/// Session of somebody who signed in but has no device yet.
pub const SESSION_PROVISIONAL: u8 = 1;
/// Session of an enrolled device.
pub const SESSION_DEVICE: u8 = 2;

/// Statement of a device.
pub const PURPOSE_DEVICE: u8 = 1;
/// Statement with the recovery sign-in key.
pub const PURPOSE_RECOVERY: u8 = 2;

/// Identity-signed action: register.
pub const ACTION_REGISTER: u8 = 1;
/// Identity-signed action: enrol a device.
pub const ACTION_ENROL: u8 = 2;
/// Identity-signed action: recover.
pub const ACTION_RECOVER: u8 = 3;
/// Identity-signed action: revoke a device.
pub const ACTION_REVOKE: u8 = 4;
/// Identity-signed action: change passphrase or recovery key.
pub const ACTION_CREDENTIALS: u8 = 5;
/// Identity-signed action: delete the account.
pub const ACTION_DELETE_ACCOUNT: u8 = 6;
/// Identity-signed action: delete a vault.
pub const ACTION_DELETE_VAULT: u8 = 7;

body! {
    /// `POST /v1/register/start`.
    RegisterStart("registration", TINY_BODY_BYTES_MAX) {
        /// The account that the new identity certifies.
        account: AccountId,
        /// OPAQUE registration request.
        request: Bytes,
    }
}

body! {
    /// Answer to a started OPAQUE record.
    OpaqueStarted("OPAQUE answer", TINY_BODY_BYTES_MAX) {
        /// Names the started record when it is finished.
        ticket: Digest,
        /// OPAQUE registration response.
        response: Bytes,
    }
}

body! {
    /// A request with the identity's signature over it ([`action_input`]).
    Authorised("identity-signed request", SMALL_BODY_BYTES_MAX) {
        /// Encoding of the request proper.
        bytes: Bytes,
        /// The identity's signature.
        action: Signature,
    }
}

body! {
    /// Body of `POST /v1/register/finish`, inside [`Authorised`].
    RegisterFinish("registration", SMALL_BODY_BYTES_MAX) {
        /// Account name.
        name: String,
        /// Invite code, or empty.
        invite: String,
        /// From the start.
        ticket: Digest,
        /// OPAQUE registration upload.
        opaque_record: Bytes,
        /// First key header.
        key_header: Signed,
        /// Device-log entry 0.
        entry: Signed,
        /// Creation of the keyring vault.
        keyring_create: Signed,
        /// Its genesis.
        keyring_genesis: Signed,
    }
}

body! {
    /// `POST /v1/login/start`.
    LoginStart("sign-in", TINY_BODY_BYTES_MAX) {
        /// Account name.
        name: String,
        /// OPAQUE KE1.
        ke1: Bytes,
    }
}

body! {
    /// Answer to it; of one shape whether the name exists or not.
    LoginStarted("sign-in answer", TINY_BODY_BYTES_MAX) {
        /// Names the attempt.
        login: Digest,
        /// Account.
        account: AccountId,
        /// OPAQUE KE2.
        ke2: Bytes,
    }
}

body! {
    /// `POST /v1/login/finish`.
    LoginFinish("sign-in", TINY_BODY_BYTES_MAX) {
        /// From the start.
        login: Digest,
        /// OPAQUE KE3.
        ke3: Bytes,
    }
}

body! {
    /// `POST /v1/recovery/start`.
    RecoveryStart("recovery sign-in", TINY_BODY_BYTES_MAX) {
        /// Account name.
        name: String,
    }
}

body! {
    /// Answer to it; of one shape whether the name exists or not.
    RecoveryStarted("recovery sign-in answer", TINY_BODY_BYTES_MAX) {
        /// Account.
        account: AccountId,
        /// Single-use nonce.
        nonce: Digest,
    }
}

body! {
    /// `POST /v1/device-login/start`.
    DeviceLoginStart("device sign-in", TINY_BODY_BYTES_MAX) {
        /// Account.
        account: AccountId,
        /// Device.
        device: DeviceId,
    }
}

body! {
    /// Answer to it.
    DeviceLoginStarted("device sign-in answer", TINY_BODY_BYTES_MAX) {
        /// Single-use nonce.
        nonce: Digest,
    }
}

body! {
    /// A signed sign-in statement ([`statement_input`]).
    Statement("sign-in statement", TINY_BODY_BYTES_MAX) {
        /// Account.
        account: AccountId,
        /// Device; zero in a recovery.
        device: DeviceId,
        /// One of the `PURPOSE_` constants.
        purpose: u8,
        /// The server's nonce.
        server_nonce: Digest,
        /// The client's nonce.
        client_nonce: Digest,
        /// Signature.
        signature: Signature,
    }
}

/// What a sign-in statement's signature covers.
pub fn statement_input(origin: &str, statement: &Statement) -> Vec<u8> {
    crate::cbor::encode(&(
        origin,
        statement.account,
        statement.device,
        statement.purpose,
        statement.server_nonce,
        statement.client_nonce,
    ))
}

/// What an identity-signed request's signature covers.
pub fn action_input(
    account: AccountId,
    action: u8,
    body: &[u8],
    log_index: u64,
    log_head: Digest,
) -> Vec<u8> {
    let digest = Digest::of(crate::label::ACTION_BODY, body);
    crate::cbor::encode(&(account, action, digest, log_index, log_head))
}

/// A session as the server hands it out. Debug does not show the token.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// Bearer token, base64url.
    pub token: String,
    /// Account.
    pub account: AccountId,
    /// Device; zero in a provisional session.
    pub device: DeviceId,
    /// One of the `SESSION_` constants.
    pub kind: u8,
    /// End, seconds since 1970.
    pub expires_utc: u64,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Session {{ account: {}, device: {}, kind: {}, token: [redacted] }}",
            self.account, self.device, self.kind
        )
    }
}

impl serde::Serialize for Session {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.token, self.account, self.device, self.kind, self.expires_utc).serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Session {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (token, account, device, kind, expires_utc) = serde::Deserialize::deserialize(deserializer)?;
        Ok(Self { token, account, device, kind, expires_utc })
    }
}

impl crate::cbor::Wire for Session {
    const NAME: &'static str = "session";
    const BYTES_MAX: usize = TINY_BODY_BYTES_MAX;
}

body! {
    /// `GET /v1/session`.
    SessionInfo("session information", TINY_BODY_BYTES_MAX) {
        /// Account.
        account: AccountId,
        /// Device; zero in a provisional session.
        device: DeviceId,
        /// One of the `SESSION_` constants.
        kind: u8,
        /// End, seconds since 1970.
        expires_utc: u64,
    }
}

/// Whether an account name is well-formed (PROTOCOL.md section 12.1).
pub fn is_account_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= crate::limits::ACCOUNT_NAME_BYTES_MAX
        && name.starts_with(letter)
        && name.chars().all(|c| letter(c) || matches!(c, '.' | '_' | '-' | '@' | '+'))
}
