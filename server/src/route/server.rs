//! `/v1/server`, `/healthz`, `/readyz`.

use super::cbor;
use crate::config::Registration;
use crate::error::ApiError;
use crate::state::App;
use crate::time::now_utc;
use axum::extract::State;
use axum::response::Response;
use lockstep_proto::api::server::{REGISTRATION_CLOSED, REGISTRATION_INVITE, REGISTRATION_OPEN, ServerInfo};
use lockstep_proto::limits;
use lockstep_proto::version::{SUITE, VERSION};

/// What a client learns before it signs in.
pub(crate) async fn info(State(app): State<App>) -> Response {
    let registration = match app.registration {
        Registration::Open => REGISTRATION_OPEN,
        Registration::Invite => REGISTRATION_INVITE,
        Registration::Closed => REGISTRATION_CLOSED,
    };
    let limits = limits::PUBLISHED.iter();
    cbor(&ServerInfo {
        versions: vec![VERSION],
        suite: SUITE,
        origin: app.origin.clone(),
        registration,
        utc: now_utc(),
        limits: limits
            .map(|(name, value)| ((*name).to_owned(), u64::try_from(*value).unwrap_or(u64::MAX)))
            .collect(),
    })
}

/// The process runs.
pub(crate) async fn health() -> &'static str {
    "ok\n"
}

/// The process can serve: its database answers.
pub(crate) async fn ready(State(app): State<App>) -> Result<&'static str, ApiError> {
    app.store.ping().await?;
    Ok("ready\n")
}
