//! Bearer sessions.

use crate::domain::opaque::random_bytes;
use crate::error::ApiError;
use crate::state::App;
use crate::store::{SessionRow, VaultRow};
use crate::time::now_utc;
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64ct::{Base64UrlUnpadded, Encoding};
use lockstep_proto::api::auth::{SESSION_DEVICE, SESSION_PROVISIONAL, Session};
use lockstep_proto::api::problem::Code;
use lockstep_proto::id::{AccountId, DeviceId, SessionId, VaultId};
use lockstep_proto::{Digest, label, limits};

const TOKEN_BYTES: usize = 32;
/// The last use of a session is written down at most so often.
const TOUCH_SECONDS: u64 = 3600;

/// Any session: of a device, or provisional.
pub struct AnySession(pub SessionRow);

/// A device's session.
pub struct DeviceSession(pub SessionRow);

impl FromRequestParts<App> for AnySession {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let token = parts
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(ApiError::unauthenticated)?;
        Ok(Self(session_of(app, token).await?))
    }
}

/// The live session of a token; its use is written down.
///
/// # Errors
/// 401.
pub async fn session_of(app: &App, token: &str) -> Result<SessionRow, ApiError> {
    let mut bytes = [0; TOKEN_BYTES];
    let decoded = Base64UrlUnpadded::decode(token, &mut bytes).map_err(|_| ApiError::unauthenticated())?;
    if decoded.len() != TOKEN_BYTES {
        return Err(ApiError::unauthenticated());
    }
    let hash = Digest::of(label::LOCAL_SESSION, decoded);
    let now = now_utc();
    let session = app.store.session(hash, now).await?.ok_or_else(ApiError::unauthenticated)?;
    if now.saturating_sub(session.used_utc) >= TOUCH_SECONDS
        && let Err(error) = app.store.touch_session(hash, now).await
    {
        // Reading goes on when nothing can be written.
        tracing::warn!(%error, "the last use of a session could not be written down");
    }
    Ok(session)
}

/// The session, if it is a device's.
///
/// # Errors
/// 403.
pub fn of_device(session: SessionRow) -> Result<SessionRow, ApiError> {
    if session.kind == SESSION_DEVICE {
        Ok(session)
    } else {
        Err(ApiError::new(Code::Forbidden, "enrol a device first: this session can not do that"))
    }
}

impl FromRequestParts<App> for DeviceSession {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let AnySession(session) = AnySession::from_request_parts(parts, app).await?;
        of_device(session).map(Self)
    }
}

/// A provisional session from a recovery sign-in; to clients it is a provisional one.
pub const SESSION_RECOVERY: u8 = 3;

/// The kind that clients see.
pub fn public_kind(kind: u8) -> u8 {
    if kind == SESSION_RECOVERY { SESSION_PROVISIONAL } else { kind }
}

/// Opens the session of a recovery sign-in, the only one that may recover.
///
/// # Errors
/// The store's.
pub async fn open_recovery_session(app: &App, account: AccountId) -> Result<Session, ApiError> {
    open(app, account, DeviceId::ZERO, SESSION_RECOVERY, limits::PROVISIONAL_SESSION_TTL_SECONDS).await
}

/// Opens a session and gives its token to the client; the server keeps the token's hash.
///
/// # Errors
/// The store's.
pub async fn open_session(
    app: &App,
    account: AccountId,
    device: Option<DeviceId>,
) -> Result<Session, ApiError> {
    let (kind, ttl_seconds) = match device {
        Some(_) => (SESSION_DEVICE, limits::DEVICE_SESSION_TTL_SECONDS),
        None => (SESSION_PROVISIONAL, limits::PROVISIONAL_SESSION_TTL_SECONDS),
    };
    open(app, account, device.unwrap_or(DeviceId::ZERO), kind, ttl_seconds).await
}

async fn open(
    app: &App,
    account: AccountId,
    device: DeviceId,
    kind: u8,
    ttl_seconds: u64,
) -> Result<Session, ApiError> {
    let token: [u8; TOKEN_BYTES] = random_bytes();
    let now = now_utc();
    let row = SessionRow {
        token_hash: Digest::of(label::LOCAL_SESSION, &token),
        id: SessionId::from_bytes(random_bytes()),
        account,
        device,
        kind,
        created_utc: now,
        used_utc: now,
        expires_utc: now.saturating_add(ttl_seconds),
    };
    app.store.put_session(row).await?;
    Ok(Session {
        token: Base64UrlUnpadded::encode_string(&token),
        account,
        device,
        kind: public_kind(kind),
        expires_utc: row.expires_utc,
    })
}

/// The account's vault of a path. A provisional session sees the keyring vault only, whose id it can not
/// choose: it is derived from the identity.
///
/// # Errors
/// 400, 403, 404.
pub async fn vault_of(app: &App, session: &SessionRow, id: &str) -> Result<VaultRow, ApiError> {
    let vault: VaultId = super::parse_id(id)?;
    if session.kind != SESSION_DEVICE && vault != keyring_of(app, session.account).await? {
        return Err(ApiError::new(Code::Forbidden, "enrol a device first: this session can not do that"));
    }
    let row = app.store.vault(session.account, vault).await?;
    row.ok_or_else(|| ApiError::new(Code::NotFound, "there is no such vault"))
}

/// Id of an account's keyring vault.
///
/// # Errors
/// 401 if there is no such account.
pub async fn keyring_of(app: &App, account: AccountId) -> Result<VaultId, ApiError> {
    use lockstep_proto::cbor::Wire as _;
    let devices = app.store.devices(account, 0, 0).await?.ok_or_else(ApiError::unauthenticated)?;
    let header = lockstep_proto::key_header::KeyHeader::decode(&devices.key_header.bytes.0)?;
    Ok(lockstep_proto::vault_log::keyring_vault_id(header.identity.as_bytes()))
}
