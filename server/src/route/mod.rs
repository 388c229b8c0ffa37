//! Handlers, one file a resource.

pub(crate) mod account;
pub(crate) mod auth;
pub(crate) mod object;
pub(crate) mod pull;
pub(crate) mod server;
pub(crate) mod vault;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use lockstep_proto::api::MEDIA_TYPE;
use lockstep_proto::cbor::Wire;

/// 200 with a CBOR body.
pub(crate) fn cbor<T: Wire>(value: &T) -> Response {
    let mut response = Response::new(Body::from(value.encode()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response
}

/// 204.
pub(crate) fn nothing() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
