//! Registration, sign-in, sessions. Known and unknown names are answered alike.

use super::{cbor, nothing};
use crate::config::Registration;
use crate::domain::account::{Action, check_registration};
use crate::domain::opaque::{Opaque, random_bytes};
use crate::error::ApiError;
use crate::extract::body::Cbor;
use crate::extract::session::{AnySession, open_recovery_session, open_session, public_kind};
use crate::http::Peer;
use crate::state::App;
use crate::store::{
    CHALLENGE_DEVICE, CHALLENGE_LOGIN, CHALLENGE_OPAQUE_RECORD, CHALLENGE_RECOVERY, Challenge, EntryEffect,
    NewAccount, NewSignIn,
};
use crate::time::now_utc;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use lockstep_proto::api::account::OpaqueStart;
use lockstep_proto::api::auth::{
    ACTION_REGISTER, Authorised, DeviceLoginStart, DeviceLoginStarted, LoginFinish, LoginStart, LoginStarted,
    OpaqueStarted, PURPOSE_DEVICE, PURPOSE_RECOVERY, RecoveryStart, RecoveryStarted, RegisterFinish,
    RegisterStart, SessionInfo, Statement, is_account_name, statement_input,
};
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::{AccountId, DeviceId};
use lockstep_proto::sign::PublicKey;
use lockstep_proto::{Digest, label, limits};

type Answer = Result<Response, ApiError>;

pub(super) fn throttled(seconds: u64) -> ApiError {
    ApiError::new(Code::Throttled, format!("too many tries; try again in {seconds} s")).retry_after(seconds)
}

/// Before anything is kept or counted under a name: it could be one.
fn check_name(name: &str) -> Result<(), ApiError> {
    if is_account_name(name) {
        return Ok(());
    }
    Err(ApiError::new(
        Code::Malformed,
        "an account name has 1 to 64 characters of a-z 0-9 . _ - @ + and begins with a letter or digit",
    ))
}

async fn keep(
    app: &App,
    kind: u8,
    account: AccountId,
    data: Vec<u8>,
    ttl_seconds: u64,
) -> Result<Digest, ApiError> {
    let id = Digest::from_bytes(random_bytes());
    let expires_utc = now_utc().saturating_add(ttl_seconds);
    app.store.put_challenge(Challenge { id, kind, account, data, expires_utc }).await?;
    Ok(id)
}

/// `POST /v1/register/start`.
pub(crate) async fn register_start(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    body: Cbor<RegisterStart>,
) -> Answer {
    if app.registration == Registration::Closed {
        return Err(ApiError::new(Code::RegistrationClosed, "this server takes no new accounts"));
    }
    app.sources.try_now(&peer.bucket("register"), now_utc()).map_err(throttled)?;
    let (ticket, response) = start_record(&app, body.value.account, &body.value.request.0).await?;
    Ok(cbor(&OpaqueStarted { ticket, response: response.into() }))
}

/// `POST /v1/account/opaque`.
pub(crate) async fn opaque_start(
    State(app): State<App>,
    AnySession(session): AnySession,
    body: Cbor<OpaqueStart>,
) -> Answer {
    let (ticket, response) = start_record(&app, session.account, &body.value.request.0).await?;
    Ok(cbor(&OpaqueStarted { ticket, response: response.into() }))
}

async fn start_record(app: &App, account: AccountId, request: &[u8]) -> Result<(Digest, Vec<u8>), ApiError> {
    let credential: [u8; 16] = random_bytes();
    let response = app.opaque.start_record(request, &credential)?;
    let ttl_seconds = limits::PROVISIONAL_SESSION_TTL_SECONDS;
    let ticket = keep(app, CHALLENGE_OPAQUE_RECORD, account, credential.to_vec(), ttl_seconds).await?;
    Ok((ticket, response))
}

/// Uses a started record up: the credential identifier under which it was made.
pub(super) async fn take_record(app: &App, ticket: Digest, account: AccountId) -> Result<Vec<u8>, ApiError> {
    let expired = || ApiError::new(Code::Expired, "the started record expired; begin again");
    let challenge =
        app.store.take_challenge(ticket, CHALLENGE_OPAQUE_RECORD, now_utc()).await?.ok_or_else(expired)?;
    if challenge.account == account { Ok(challenge.data) } else { Err(expired()) }
}

/// `POST /v1/register/finish`.
pub(crate) async fn register_finish(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    body: Cbor<Authorised>,
) -> Answer {
    app.sources.try_now(&peer.bucket("register"), now_utc()).map_err(throttled)?;
    let request = RegisterFinish::decode(&body.value.bytes.0)?;
    check_name(&request.name)?;
    let invite = match app.registration {
        Registration::Open => None,
        Registration::Invite => Some(Digest::of(label::LOCAL_SESSION, request.invite.as_bytes())),
        Registration::Closed => {
            return Err(ApiError::new(Code::RegistrationClosed, "this server takes no new accounts"));
        }
    };
    let header = lockstep_proto::key_header::KeyHeader::decode(&request.key_header.bytes.0)?;
    let action = Action { action: ACTION_REGISTER, body: &body.value.bytes.0, signature: &body.value.action };
    let keyring = (&request.keyring_create, &request.keyring_genesis);
    let (entry, keyring, recovery) =
        check_registration(header.account, &action, &request.key_header, &request.entry, keyring)?;
    let opaque_record = Opaque::check_record(&request.opaque_record.0)?;
    let credential = take_record(&app, request.ticket, header.account).await?;
    let EntryEffect::Enrol { device, .. } = entry.effect else {
        return Err(ApiError::new(Code::InvalidChain, "a registration enrols the first device"));
    };
    app.store
        .register(NewAccount {
            name: request.name,
            sign_in: NewSignIn { credential, opaque_record, recovery },
            entry,
            keyring,
            invite,
            now_utc: now_utc(),
        })
        .await?;
    app.sources.succeeded(&peer.bucket("register"));
    Ok(cbor(&open_session(&app, header.account, Some(device)).await?))
}

/// `POST /v1/login/start`.
pub(crate) async fn login_start(State(app): State<App>, body: Cbor<LoginStart>) -> Answer {
    let LoginStart { name, ke1 } = body.value;
    check_name(&name)?;
    app.names.try_now(name.as_bytes(), now_utc()).map_err(throttled)?;
    let known = app.store.sign_in(&name).await?;
    let (fake_account, fake_credential) = app.fake_account(&name);
    let (account, credential, record) = match &known {
        Some(row) => (row.account, row.credential.as_slice(), Some(row.opaque_record.as_slice())),
        None => (fake_account, fake_credential.as_slice(), None),
    };
    let answered = app.opaque.start_login(&ke1.0, credential, record, account, &app.origin)?;
    // The state is kept for unknown names too: the same work, and the finish fails like any other.
    let mut data = answered.state;
    data.extend_from_slice(name.as_bytes());
    let login = keep(&app, CHALLENGE_LOGIN, account, data, limits::CHALLENGE_TTL_SECONDS).await?;
    Ok(cbor(&LoginStarted { login, account, ke2: answered.ke2.into() }))
}

const LOGIN_STATE_BYTES: usize = 128;

/// `POST /v1/login/finish`.
pub(crate) async fn login_finish(State(app): State<App>, body: Cbor<LoginFinish>) -> Answer {
    let challenge = app.store.take_challenge(body.value.login, CHALLENGE_LOGIN, now_utc()).await?;
    let challenge = challenge.ok_or_else(ApiError::unauthenticated)?;
    let (state, name) =
        challenge.data.split_at_checked(LOGIN_STATE_BYTES).ok_or_else(ApiError::unauthenticated)?;
    if !Opaque::finish_login(state, &body.value.ke3.0) || !app.store.account_exists(challenge.account).await?
    {
        return Err(ApiError::unauthenticated());
    }
    app.names.succeeded(name);
    Ok(cbor(&open_session(&app, challenge.account, None).await?))
}

/// `POST /v1/recovery/start`.
pub(crate) async fn recovery_start(State(app): State<App>, body: Cbor<RecoveryStart>) -> Answer {
    check_name(&body.value.name)?;
    let known = app.store.sign_in(&body.value.name).await?;
    let account = known.map_or_else(|| app.fake_account(&body.value.name).0, |row| row.account);
    let nonce = keep(&app, CHALLENGE_RECOVERY, account, Vec::new(), limits::CHALLENGE_TTL_SECONDS).await?;
    Ok(cbor(&RecoveryStarted { account, nonce }))
}

/// `POST /v1/recovery/finish`.
pub(crate) async fn recovery_finish(State(app): State<App>, body: Cbor<Statement>) -> Answer {
    let statement = body.value;
    let known = app.store.recovery_key(statement.account).await?;
    check_statement(&app, &statement, CHALLENGE_RECOVERY, PURPOSE_RECOVERY, known).await?;
    if statement.device != DeviceId::ZERO {
        return Err(ApiError::unauthenticated());
    }
    Ok(cbor(&open_recovery_session(&app, statement.account).await?))
}

/// `POST /v1/device-login/start`.
pub(crate) async fn device_login_start(State(app): State<App>, body: Cbor<DeviceLoginStart>) -> Answer {
    let data = body.value.device.as_bytes().to_vec();
    let nonce = keep(&app, CHALLENGE_DEVICE, body.value.account, data, limits::CHALLENGE_TTL_SECONDS).await?;
    Ok(cbor(&DeviceLoginStarted { nonce }))
}

/// `POST /v1/device-login/finish`.
pub(crate) async fn device_login_finish(State(app): State<App>, body: Cbor<Statement>) -> Answer {
    let statement = body.value;
    let known = app.store.device_key(statement.account, statement.device).await?;
    check_statement(&app, &statement, CHALLENGE_DEVICE, PURPOSE_DEVICE, known).await?;
    Ok(cbor(&open_session(&app, statement.account, Some(statement.device)).await?))
}

/// Uses the nonce up and verifies the statement; an unknown key costs the same work.
async fn check_statement(
    app: &App,
    statement: &Statement,
    kind: u8,
    purpose: u8,
    known: Option<Digest>,
) -> Result<(), ApiError> {
    let challenge = app.store.take_challenge(statement.server_nonce, kind, now_utc()).await?;
    let is_ours = challenge.is_some_and(|challenge| {
        let device_fits = kind != CHALLENGE_DEVICE || challenge.data == statement.device.as_bytes();
        challenge.account == statement.account && device_fits
    });
    let key = known.and_then(|key| PublicKey::from_bytes(key.as_bytes()));
    let stand_in = PublicKey::from_bytes(&STAND_IN_KEY);
    let Some(verifier) = key.or(stand_in) else { return Err(ApiError::unauthenticated()) };
    let input = statement_input(&app.origin, statement);
    let verified = verifier.verify("sign-in statement", label::LOGIN, &input, &statement.signature).is_ok();
    if verified && key.is_some() && is_ours && statement.purpose == purpose {
        Ok(())
    } else {
        Err(ApiError::unauthenticated())
    }
}

/// The Ed25519 base point: a valid key that stands in for an unknown one, so that the work is the same.
const STAND_IN_KEY: [u8; 32] = [
    0x58, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
    0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
];

/// `GET /v1/session`.
pub(crate) async fn session(AnySession(session): AnySession) -> Response {
    cbor(&SessionInfo {
        account: session.account,
        device: session.device,
        kind: public_kind(session.kind),
        expires_utc: session.expires_utc,
    })
}

/// `DELETE /v1/session`.
pub(crate) async fn sign_out(State(app): State<App>, AnySession(session): AnySession) -> Answer {
    app.store.end_session(session.token_hash).await?;
    app.notices.moved(session.account);
    Ok(nothing())
}
