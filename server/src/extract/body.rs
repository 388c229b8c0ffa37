//! Request bodies: bounded, within the global budget, progress watched, strictly decoded.

use crate::budget::{Budget, Reserved};
use crate::error::ApiError;
use crate::state::App;
use axum::body::{Body, BodyDataStream, HttpBody as _};
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use lockstep_proto::api::MEDIA_TYPE;
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::Wire;
use std::time::Duration;

/// Routes that need no session.
const OPEN_ROUTES: [&str; 5] =
    ["/v1/register/", "/v1/login/", "/v1/recovery/", "/v1/device-login/", "/v1/heal/"];

/// A sender that is silent for so long is cut off.
pub const STALL: Duration = Duration::from_secs(30);

/// A strictly decoded body. Its share of the budget is held as long as it lives.
pub struct Cbor<T> {
    /// The body.
    pub value: T,
    /// Its share of the budget.
    pub reserved: Reserved,
}

impl<T: Wire + Send> FromRequest<App> for Cbor<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let is_cbor = request.headers().get(CONTENT_TYPE).is_some_and(|value| value == MEDIA_TYPE);
        if !is_cbor {
            return Err(ApiError::new(Code::MediaType, "the body must be application/cbor"));
        }
        // Who has no session yet shares a small budget of its own, and can not use up everybody's.
        let path = request.uri().path();
        let budget = if OPEN_ROUTES.iter().any(|route| path.starts_with(route)) {
            &app.open_budget
        } else {
            &app.budget
        };
        let (bytes, reserved) = read(request.into_body(), T::BYTES_MAX, budget).await?;
        Ok(Self { value: T::decode(&bytes)?, reserved })
    }
}

/// Reads a whole body of at most `bytes_max`.
///
/// # Errors
/// 400, 408, 413, 503.
pub async fn read(body: Body, bytes_max: usize, budget: &Budget) -> Result<(Bytes, Reserved), ApiError> {
    let too_large = || ApiError::new(Code::TooLarge, format!("the body is larger than {bytes_max} bytes"));
    let hint = body.size_hint();
    let declared = hint.exact().map(|size| usize::try_from(size).unwrap_or(usize::MAX));
    let mut stream = body.into_data_stream();
    if declared.is_some_and(|size| size > bytes_max) {
        drain(&mut stream).await;
        return Err(too_large());
    }
    // Twice: the bytes, and what they are decoded into.
    let expected = declared.unwrap_or(bytes_max);
    let reserved = budget.reserve(expected.saturating_mul(2)).await?;
    let mut out = BytesMut::with_capacity(declared.unwrap_or(0));
    let whole = async {
        while let Some(chunk) = next_chunk(&mut stream).await? {
            if out.len().saturating_add(chunk.len()) > bytes_max {
                drain(&mut stream).await;
                return Err(too_large());
            }
            out.extend_from_slice(&chunk);
        }
        Ok(())
    };
    // A share of the budget is not held by somebody who sends a byte now and then.
    match tokio::time::timeout(deadline(expected), whole).await {
        Ok(done) => done?,
        Err(_) => return Err(ApiError::new(Code::Timeout, "the body came too slowly")),
    }
    Ok((out.freeze(), reserved))
}

/// Time for a body of some length: 15 seconds, and what 16 KiB a second take.
pub fn deadline(bytes: usize) -> Duration {
    const BYTES_A_SECOND: usize = 16 * 1024;
    Duration::from_secs(15 + u64::try_from(bytes / BYTES_A_SECOND).unwrap_or(0))
}

/// The next chunk of a body; a sender that stalls is refused.
///
/// # Errors
/// 400, 408.
pub async fn next_chunk(stream: &mut BodyDataStream) -> Result<Option<Bytes>, ApiError> {
    match tokio::time::timeout(STALL, stream.next()).await {
        Err(_) => Err(ApiError::new(Code::Timeout, "the sender was silent for 30 seconds")),
        Ok(None) => Ok(None),
        Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
        Ok(Some(Err(_))) => Err(ApiError::new(Code::Malformed, "the body ended early")),
    }
}

/// Reads what is left of a refused body, within bounds, so that the sender sees the answer and not a
/// broken connection.
pub async fn drain(stream: &mut BodyDataStream) {
    const DRAIN_BYTES_MAX: usize = 64 * 1024 * 1024;
    let rest = async {
        let mut taken = 0_usize;
        while let Some(Ok(chunk)) = stream.next().await {
            taken = taken.saturating_add(chunk.len());
            if taken > DRAIN_BYTES_MAX {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), rest).await;
}
