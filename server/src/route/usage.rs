//! What an account uses.

use super::cbor;
use crate::error::ApiError;
use crate::extract::session::DeviceSession;
use crate::state::App;
use axum::extract::State;
use axum::response::Response;

/// `GET /v1/account/usage`.
pub(crate) async fn usage(
    State(app): State<App>,
    DeviceSession(session): DeviceSession,
) -> Result<Response, ApiError> {
    let usage = app.store.usage(session.account).await?;
    Ok(cbor(&usage.ok_or_else(ApiError::unauthenticated)?))
}
