//! Key header, device log: enrolment, recovery, revocation, new credentials, deletion, healing.

use super::auth::{take_record, throttled};
use super::{cbor, cbor_reserved, nothing};
use crate::domain::account::{Action, HeaderChange, Known, check_follows};
use crate::domain::opaque::Opaque;
use crate::error::{ApiError, StoreError};
use crate::extract::body::Cbor;
use crate::extract::session::{
    AnySession, DeviceSession, SESSION_RECOVERY, keyring_of, open_session, vault_of,
};
use crate::extract::{Ask, Place};
use crate::http::Peer;
use crate::state::App;
use crate::store::{EntryEffect, NewEntry, SignInChange};
use crate::time::now_utc;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use lockstep_proto::api::account::{
    ChangeCredentials, DeleteAccount, DeleteVault, EnrolDevice, HealDevices, Recover,
};
use lockstep_proto::api::auth::{
    ACTION_CREDENTIALS, ACTION_DELETE_ACCOUNT, ACTION_DELETE_VAULT, ACTION_ENROL, ACTION_RECOVER,
    ACTION_REVOKE, Authorised,
};
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::{AccountId, DeviceId};
use lockstep_proto::{label, limits};
use serde::Deserialize;

type Answer = Result<Response, ApiError>;

/// Query of the device log.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct From {
    from: Option<u64>,
}

/// `GET /v1/account/devices`.
pub(crate) async fn devices(
    State(app): State<App>,
    AnySession(session): AnySession,
    Ask(query): Ask<From>,
) -> Answer {
    let from = query.from.unwrap_or(0);
    let reserved = app.budget.reserve(LOG_BYTES).await?;
    let devices = app.store.devices(session.account, from, limits::DEVICE_LOG_PAGE_MAX).await?;
    Ok(cbor_reserved(&devices.ok_or_else(ApiError::unauthenticated)?, reserved))
}

/// What a device log takes in memory at most, with its key header.
const LOG_BYTES: usize = limits::DEVICE_LOG_WITH_REVOCATIONS_BYTES_MAX + limits::KEY_HEADER_BYTES_MAX;

/// The account as stored, verified: thousands of signatures at most, on a thread that serves nobody else meanwhile.
pub(super) async fn known(app: &App, account: AccountId) -> Result<Known, ApiError> {
    let _reserved = app.budget.reserve(LOG_BYTES).await?;
    let limit = usize::try_from(limits::DEVICE_LOG_ENTRIES_MAX).unwrap_or(usize::MAX);
    let stored = app.store.devices(account, 0, limit).await?.ok_or_else(ApiError::unauthenticated)?;
    let verified = tokio::task::spawn_blocking(move || Known::verify(account, &stored)).await;
    let failed = |_| ApiError::new(Code::Internal, "the server failed; its log says more");
    Ok(verified.map_err(failed)??)
}

fn action(action: u8, body: &Authorised) -> Action<'_> {
    Action { action, body: &body.bytes.0, signature: &body.action }
}

/// `POST /v1/account/devices`.
pub(crate) async fn enrol(
    State(app): State<App>,
    AnySession(session): AnySession,
    body: Cbor<Authorised>,
) -> Answer {
    let request = EnrolDevice::decode(&body.value.bytes.0)?;
    let action = action(ACTION_ENROL, &body.value);
    let known = known(&app, session.account).await?;
    let (entry, _) = known.check_next(&action, &request.key_header, &request.entry, HeaderChange::Enrol)?;
    let device = enrolled(&entry)?;
    app.store.add_entry(entry, SignInChange::default()).await?;
    app.store.end_session(session.token_hash).await?;
    Ok(cbor(&open_session(&app, session.account, Some(device)).await?))
}

fn enrolled(entry: &NewEntry) -> Result<DeviceId, ApiError> {
    match entry.effect {
        EntryEffect::Enrol { device, .. } => Ok(device),
        _ => Err(ApiError::new(Code::InvalidChain, "the device-log entry enrols nobody")),
    }
}

/// `POST /v1/account/recover`.
pub(crate) async fn recover(
    State(app): State<App>,
    AnySession(session): AnySession,
    body: Cbor<Authorised>,
) -> Answer {
    if session.kind != SESSION_RECOVERY {
        return Err(ApiError::new(Code::Forbidden, "a recovery begins with the recovery key"));
    }
    let request = Recover::decode(&body.value.bytes.0)?;
    let action = action(ACTION_RECOVER, &body.value);
    let known = known(&app, session.account).await?;
    let (entry, recovery) =
        known.check_next(&action, &request.key_header, &request.entry, HeaderChange::Recover)?;
    let opaque_record = Opaque::check_record(&request.opaque_record.0)?;
    let credential = take_record(&app, request.ticket, session.account).await?;
    let device = enrolled(&entry)?;
    let change = SignInChange { passphrase: Some((credential, opaque_record)), recovery: Some(recovery) };
    app.store.add_entry(entry, change).await?;
    Ok(cbor(&open_session(&app, session.account, Some(device)).await?))
}

/// `POST /v1/account/devices/revoke`.
pub(crate) async fn revoke(
    State(app): State<App>,
    DeviceSession(session): DeviceSession,
    body: Cbor<Authorised>,
) -> Answer {
    let request = EnrolDevice::decode(&body.value.bytes.0)?;
    let action = action(ACTION_REVOKE, &body.value);
    let known = known(&app, session.account).await?;
    let (entry, _) = known.check_next(&action, &request.key_header, &request.entry, HeaderChange::Revoke)?;
    let revoked = match &entry.effect {
        EntryEffect::Revoke { device, .. } => Some(*device),
        _ => None,
    };
    let hash = entry.hash;
    let added = app.store.add_entry(entry, SignInChange::default()).await;
    match (&added, revoked) {
        (Ok(()), Some(device)) => {
            app.notices.moved(session.account);
            app.freeze.release(session.account, device);
            app.refused.forget(hash);
        }
        (Err(StoreError::Refused(refusal)), Some(device)) if refusal.code == Code::HeadMoved => {
            app.freeze.hold(session.account, device, now_utc());
            app.refused.remember(hash);
        }
        _ => {}
    }
    added?;
    Ok(nothing())
}

/// `POST /v1/account/credentials`.
pub(crate) async fn credentials(
    State(app): State<App>,
    DeviceSession(session): DeviceSession,
    body: Cbor<Authorised>,
) -> Answer {
    let request = ChangeCredentials::decode(&body.value.bytes.0)?;
    let action = action(ACTION_CREDENTIALS, &body.value);
    let change = HeaderChange::Credentials { passphrase: request.record.is_some() };
    let known = known(&app, session.account).await?;
    let (entry, recovery) = known.check_next(&action, &request.key_header, &request.entry, change)?;
    let mut sign_in = SignInChange { passphrase: None, recovery: Some(recovery) };
    if let Some(record) = &request.record {
        let opaque_record = Opaque::check_record(&record.opaque_record.0)?;
        let credential = take_record(&app, record.ticket, session.account).await?;
        sign_in.passphrase = Some((credential, opaque_record));
    }
    app.store.add_entry(entry, sign_in).await?;
    Ok(nothing())
}

/// `POST /v1/account/delete`.
pub(crate) async fn delete(
    State(app): State<App>,
    DeviceSession(session): DeviceSession,
    body: Cbor<Authorised>,
) -> Answer {
    let request = DeleteAccount::decode(&body.value.bytes.0)?;
    let known = known(&app, session.account).await?;
    known.check_action(&action(ACTION_DELETE_ACCOUNT, &body.value))?;
    if request.account != session.account {
        return Err(ApiError::new(Code::Forbidden, "the request is for another account"));
    }
    app.store.delete_account(session.account).await?;
    app.notices.moved(session.account);
    Ok(nothing())
}

/// `POST /v1/vaults/{v}/delete`.
pub(crate) async fn delete_vault(
    State(app): State<App>,
    DeviceSession(session): DeviceSession,
    Place(vault): Place<String>,
    body: Cbor<Authorised>,
) -> Answer {
    let row = vault_of(&app, &session, &vault).await?;
    let request = DeleteVault::decode(&body.value.bytes.0)?;
    let known = known(&app, session.account).await?;
    known.check_action(&action(ACTION_DELETE_VAULT, &body.value))?;
    if request.vault.to_string() != vault || request.vault == keyring_of(&app, session.account).await? {
        return Err(ApiError::new(Code::Forbidden, "the request is for another vault, or for the keyring"));
    }
    app.store.delete_vault(row.key).await?;
    Ok(nothing())
}

/// `POST /v1/heal/devices`: no session, because the device that heals may be unknown to an older copy. What is
/// posted carries the identity's signatures and follows what is stored, or nothing happens. Every failure is answered
/// alike, so that nobody learns here which accounts there are.
pub(crate) async fn heal(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    body: Cbor<HealDevices>,
) -> Answer {
    app.sources.try_now(&peer.bucket("heal"), now_utc()).map_err(throttled)?;
    if body.value.entries.is_empty() {
        return Err(ApiError::new(Code::Malformed, "there are no entries to give back"));
    }
    match give_back(&app, body.value).await {
        Ok(true) => app.sources.succeeded(&peer.bucket("heal")),
        Ok(false) => {}
        Err(error) if matches!(error.code(), Code::Busy | Code::StorageFull) => return Err(error),
        Err(_) => return Err(moved()),
    }
    Ok(nothing())
}

fn moved() -> ApiError {
    ApiError::new(Code::LogMoved, "the entries do not follow the device log as it is here")
}

/// Appends what is new; false if nothing is. The whole log is verified only for entries that the identity signed.
async fn give_back(app: &App, posted: HealDevices) -> Result<bool, ApiError> {
    let HealDevices { account, entries, key_header } = posted;
    let total = app.store.devices(account, 0, 0).await?.ok_or_else(moved)?.total;
    let end = app.store.devices(account, total.saturating_sub(1), 1).await?.ok_or_else(moved)?;
    if !check_follows(account, &end, &entries)? {
        return Ok(false);
    }
    if entries.iter().any(|entry| app.refused.has(entry.digest(label::DEVICE_LOG_ENTRY))) {
        return Err(moved());
    }
    let (entries, recovery) = known(app, account).await?.check_missing(&entries, &key_header)?;
    let is_new = !entries.is_empty();
    if is_new {
        app.store.heal_log(entries, recovery).await?;
        app.notices.moved(account);
    }
    Ok(is_new)
}
