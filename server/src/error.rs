//! Errors at the edge: one [`ApiError`], a problem document (RFC 9457), the cause logged once.

use crate::budget::Reserved;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use lockstep_proto::CodecError;
use lockstep_proto::api::frames::FrameError;
use lockstep_proto::api::problem::Code;
use std::sync::Arc;

/// Why a request was refused, in words that are safe to send.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// Stable code.
    pub code: Code,
    /// What a person sees.
    pub detail: String,
    /// Ids that the refusal is about, in text form (missing objects or envelopes).
    pub names: Vec<String>,
    /// Bytes used and allowed, where the quota is what refuses.
    pub quota: Option<Box<(u64, u64)>>,
}

impl Refusal {
    /// A refusal without names.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), names: Vec::new(), quota: None }
    }
}

/// What an operation of the store can end with.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A rule says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The disk is full; nothing was written.
    #[error("the server's disk is full")]
    Full,
    /// The database or the blob storage can not be reached or failed; nothing was written.
    #[error("the storage failed: {0}")]
    Unavailable(Arc<dyn std::error::Error + Send + Sync>),
    /// What is stored contradicts itself.
    #[error("what is stored is damaged: {0}")]
    Corrupt(&'static str),
}

impl StoreError {
    /// A refusal.
    pub fn refused(code: Code, detail: impl Into<String>) -> Self {
        Self::Refused(Refusal::new(code, detail))
    }
}

/// The answer to a request that failed.
#[derive(Debug)]
pub struct ApiError {
    refusal: Refusal,
    retry_after_seconds: Option<u64>,
    body: Option<(Vec<u8>, Reserved)>,
}

impl ApiError {
    /// An error with a code and a text that is safe to send.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { refusal: Refusal::new(code, detail), retry_after_seconds: None, body: None }
    }

    /// Tells the client when to come back.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// Sends a CBOR body with the status instead of a problem document (a lost race brings the page).
    #[must_use]
    pub fn with_body(mut self, body: Vec<u8>, reserved: Reserved) -> Self {
        self.body = Some((body, reserved));
        self
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.refusal.code
    }

    /// 401, the same for every failed sign-in and every missing session.
    pub fn unauthenticated() -> Self {
        Self::new(Code::Unauthenticated, "sign in first: there is no valid session, or the sign-in failed")
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, retry_after_seconds: None, body: None }
    }
}

impl From<CodecError> for ApiError {
    fn from(error: CodecError) -> Self {
        let code = if matches!(error, CodecError::TooLong { .. }) { Code::TooLarge } else { Code::Malformed };
        Self::new(code, error.to_string())
    }
}

impl From<FrameError> for ApiError {
    fn from(error: FrameError) -> Self {
        let code = if error == FrameError::TooLarge { Code::TooLarge } else { Code::Malformed };
        Self::new(code, error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refusal) => refusal.into(),
            StoreError::Full => {
                tracing::error!("the disk is full");
                Self::new(Code::StorageFull, "the server's disk is full; nothing was stored").retry_after(60)
            }
            StoreError::Unavailable(source) => {
                tracing::error!(error = %Chain(&*source), "storage failed");
                Self::new(Code::Busy, "the server can not reach its storage; try again later").retry_after(5)
            }
            StoreError::Corrupt(what) => {
                tracing::error!(what, "stored data is damaged");
                Self::new(Code::Internal, "what the server stores is damaged; its log says more")
            }
        }
    }
}

/// An error with its causes, on one line.
struct Chain<'a>(&'a (dyn std::error::Error + 'a));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = self.refusal.code;
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = if let Some((body, reserved)) = self.body {
            crate::route::reserved_body(body, reserved)
        } else {
            let mut response = Response::new(Body::from(problem(status, &self.refusal)));
            let media_type = HeaderValue::from_static("application/problem+json");
            response.headers_mut().insert(header::CONTENT_TYPE, media_type);
            response
        };
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

fn problem(status: StatusCode, refusal: &Refusal) -> Vec<u8> {
    let mut document = serde_json::json!({
        "type": format!("urn:lockstep:problem:{}", refusal.code.as_str()),
        "title": status.canonical_reason().unwrap_or("error"),
        "status": status.as_u16(),
        "code": refusal.code.as_str(),
        "detail": refusal.detail,
    });
    if let (Some(map), false) = (document.as_object_mut(), refusal.names.is_empty()) {
        map.insert("names".into(), refusal.names.clone().into());
    }
    if let (Some(map), Some((used, quota))) = (document.as_object_mut(), refusal.quota.as_deref()) {
        map.insert("used".into(), (*used).into());
        map.insert("quota".into(), (*quota).into());
    }
    serde_json::to_vec(&document).unwrap_or_default()
}
