//! Key header, device log, enrolment, recovery.

use super::auth::take_record;
use super::{cbor, cbor_reserved};
use crate::domain::account::{Action, check_next_entry};
use crate::domain::opaque::Opaque;
use crate::error::ApiError;
use crate::extract::Ask;
use crate::extract::body::Cbor;
use crate::extract::session::{AnySession, SESSION_RECOVERY, open_session};
use crate::state::App;
use crate::store::{NewSignIn, SessionRow};
use axum::extract::State;
use axum::response::Response;
use lockstep_proto::api::account::{Devices, EnrolDevice, Recover};
use lockstep_proto::api::auth::{ACTION_ENROL, ACTION_RECOVER, Authorised};
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::limits;
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
    let reserved = app.budget.reserve(4 * limits::MIB).await?;
    let devices = app.store.devices(session.account, from, limits::DEVICE_LOG_PAGE_MAX).await?;
    Ok(cbor_reserved(&devices.ok_or_else(ApiError::unauthenticated)?, reserved))
}

/// The whole log, for verification.
async fn whole_log(app: &App, session: &SessionRow) -> Result<Devices, ApiError> {
    let limit = usize::try_from(limits::DEVICE_LOG_ENTRIES_MAX).unwrap_or(usize::MAX);
    app.store.devices(session.account, 0, limit).await?.ok_or_else(ApiError::unauthenticated)
}

/// `POST /v1/account/devices`.
pub(crate) async fn enrol(
    State(app): State<App>,
    AnySession(session): AnySession,
    body: Cbor<Authorised>,
) -> Answer {
    let request = EnrolDevice::decode(&body.value.bytes.0)?;
    let stored = whole_log(&app, &session).await?;
    let action = Action { action: ACTION_ENROL, body: &body.value.bytes.0, signature: &body.value.action };
    let (entry, _) =
        check_next_entry(session.account, &stored, &action, &request.key_header, &request.entry, false)?;
    let device = entry.device;
    app.store.add_entry(entry, None).await?;
    app.store.end_session(session.token_hash).await?;
    Ok(cbor(&open_session(&app, session.account, Some(device)).await?))
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
    let stored = whole_log(&app, &session).await?;
    let action = Action { action: ACTION_RECOVER, body: &body.value.bytes.0, signature: &body.value.action };
    let (entry, recovery) =
        check_next_entry(session.account, &stored, &action, &request.key_header, &request.entry, true)?;
    let opaque_record = Opaque::check_record(&request.opaque_record.0)?;
    let credential = take_record(&app, request.ticket, session.account).await?;
    let device = entry.device;
    app.store.add_entry(entry, Some(NewSignIn { credential, opaque_record, recovery })).await?;
    Ok(cbor(&open_session(&app, session.account, Some(device)).await?))
}
