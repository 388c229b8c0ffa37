//! Handlers, one file a resource.

pub(crate) mod account;
pub(crate) mod auth;
pub(crate) mod notice;
pub(crate) mod object;
pub(crate) mod objects;
pub(crate) mod pull;
pub(crate) mod server;
pub(crate) mod session;
pub(crate) mod usage;
pub(crate) mod vault;

use crate::budget::Reserved;
use crate::error::ApiError;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use lockstep_proto::api::MEDIA_TYPE;
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::{Wire, encode_large};
use std::convert::Infallible;
use std::future::Future;

/// 200 with a CBOR body.
pub(crate) fn cbor<T: Wire>(value: &T) -> Response {
    let mut response = Response::new(Body::from(value.encode()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response
}

/// 200 with a CBOR body whose share of the budget is held until it was sent.
pub(crate) fn cbor_reserved<T: Wire>(value: &T, reserved: Reserved) -> Response {
    reserved_body(encode_large(value), reserved)
}

/// The same of bytes.
pub(crate) fn reserved_body(bytes: Vec<u8>, reserved: Reserved) -> Response {
    let mut rest = Bytes::from(bytes);
    let length = HeaderValue::from(rest.len());
    let chunks = std::iter::from_fn(move || {
        // The reservation lives in this closure, and so as long as the body.
        let _held = &reserved;
        (!rest.is_empty()).then(|| Ok::<_, Infallible>(rest.split_to(rest.len().min(SEND_BYTES))))
    });
    let mut response = Response::new(Body::from_stream(futures_util::stream::iter(chunks)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    response
}

/// Runs a handler to its end even if the client hangs up: what it began to store is recorded or taken back.
pub(crate) async fn to_the_end(
    work: impl Future<Output = Result<Response, ApiError>> + Send + 'static,
) -> Result<Response, ApiError> {
    let failed = || ApiError::new(Code::Internal, "the server failed; its log says more");
    tokio::spawn(work).await.unwrap_or_else(|_| Err(failed()))
}

const SEND_BYTES: usize = 256 * 1024;

/// 204.
pub(crate) fn nothing() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
