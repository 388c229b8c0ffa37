//! The sessions of an account: seen and ended from any of its devices.

use super::{cbor, nothing};
use crate::error::ApiError;
use crate::extract::session::{DeviceSession, public_kind};
use crate::extract::{Place, parse_id};
use crate::state::App;
use crate::time::now_utc;
use axum::extract::State;
use axum::response::Response;
use lockstep_proto::api::auth::SESSION_DEVICE;
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::session::{SessionEntry, Sessions};

type Answer = Result<Response, ApiError>;

/// `GET /v1/account/sessions`.
pub(crate) async fn list(State(app): State<App>, DeviceSession(session): DeviceSession) -> Answer {
    let rows = app.store.sessions(session.account, now_utc()).await?;
    let entries = rows.iter().map(|row| SessionEntry {
        id: row.id,
        device: row.device,
        kind: public_kind(row.kind),
        created_utc: row.created_utc,
        used_utc: row.used_utc,
        expires_utc: row.expires_utc,
        is_this: row.id == session.id,
    });
    Ok(cbor(&Sessions(entries.collect())))
}

/// `DELETE /v1/account/sessions/{id}`. A device ends sessions of devices only: one that was stolen could keep its owner
/// from signing in otherwise.
pub(crate) async fn revoke(
    State(app): State<App>,
    DeviceSession(session): DeviceSession,
    Place(id): Place<String>,
) -> Answer {
    let id = parse_id(&id)?;
    let rows = app.store.sessions(session.account, now_utc()).await?;
    if rows.iter().any(|row| row.id == id && row.kind != SESSION_DEVICE) {
        let text = "somebody is signing in with it; it ends by itself within 10 minutes";
        return Err(ApiError::new(Code::Forbidden, text));
    }
    if app.store.revoke_session(session.account, id).await? {
        app.notices.moved(session.account);
        Ok(nothing())
    } else {
        Err(ApiError::new(Code::NotFound, "there is no such session; it may have ended"))
    }
}
