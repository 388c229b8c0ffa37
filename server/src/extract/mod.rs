//! What a handler takes: a session, a strictly decoded body, ids of the path, a query.

pub mod body;
pub mod session;

use crate::error::ApiError;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use lockstep_proto::api::problem::Code;
use serde::de::DeserializeOwned;

/// Path parameters; a malformed one is 400.
pub struct Place<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Place<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(value) = Path::<T>::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::new(Code::Malformed, "the path is malformed"))?;
        Ok(Self(value))
    }
}

/// Query parameters; a malformed or unknown one is 400.
pub struct Ask<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Ask<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(value) = Query::<T>::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::new(Code::Malformed, "the query is malformed"))?;
        Ok(Self(value))
    }
}

/// Reads an id of the path.
///
/// # Errors
/// 400.
pub fn parse_id<T: std::str::FromStr>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| ApiError::new(Code::Malformed, "an id of the path or query is malformed"))
}
