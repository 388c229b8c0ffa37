//! Stable codes of problem documents (RFC 9457).

/// What went wrong, for programs. The text of a code never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// The body, a path or a query is not what the route takes.
    Malformed,
    /// No valid session, or a sign-in failed.
    Unauthenticated,
    /// The session may not do this.
    Forbidden,
    /// Nothing is there.
    NotFound,
    /// The route knows no such method.
    MethodNotAllowed,
    /// The account name is taken.
    NameTaken,
    /// The device log moved on.
    LogMoved,
    /// The vault's head moved on.
    HeadMoved,
    /// Something with this id is there and differs.
    Exists,
    /// A ticket, challenge or upload expired.
    Expired,
    /// Larger than a limit.
    TooLarge,
    /// Another media type.
    MediaType,
    /// The range can not be satisfied.
    Range,
    /// A signature does not verify.
    InvalidSignature,
    /// A commit, log entry or key header does not follow.
    InvalidChain,
    /// An object that a change names is not there.
    MissingObject,
    /// An envelope that a change names is not there.
    MissingEnvelope,
    /// Size or digest differ from what was said.
    Mismatch,
    /// A limit of the account is reached.
    LimitReached,
    /// The account's quota is used up.
    QuotaExceeded,
    /// Registration is closed, or the invite is wrong.
    RegistrationClosed,
    /// Too many tries.
    Throttled,
    /// The sender stalled.
    Timeout,
    /// Too much at once; later.
    Busy,
    /// The server's disk is full.
    StorageFull,
    /// The server failed.
    Internal,
}

impl Code {
    /// Code, text and HTTP status.
    const TABLE: &[(Self, &'static str, u16)] = &[
        (Self::Malformed, "malformed", 400),
        (Self::Unauthenticated, "unauthenticated", 401),
        (Self::Forbidden, "forbidden", 403),
        (Self::NotFound, "not_found", 404),
        (Self::MethodNotAllowed, "method_not_allowed", 405),
        (Self::Timeout, "timeout", 408),
        (Self::NameTaken, "name_taken", 409),
        (Self::LogMoved, "log_moved", 409),
        (Self::HeadMoved, "head_moved", 409),
        (Self::Exists, "exists", 409),
        (Self::Expired, "expired", 410),
        (Self::TooLarge, "too_large", 413),
        (Self::MediaType, "media_type", 415),
        (Self::Range, "range", 416),
        (Self::InvalidSignature, "invalid_signature", 422),
        (Self::InvalidChain, "invalid_chain", 422),
        (Self::MissingObject, "missing_object", 422),
        (Self::MissingEnvelope, "missing_envelope", 422),
        (Self::Mismatch, "mismatch", 422),
        (Self::LimitReached, "limit_reached", 403),
        (Self::QuotaExceeded, "quota_exceeded", 403),
        (Self::RegistrationClosed, "registration_closed", 403),
        (Self::Throttled, "throttled", 429),
        (Self::Busy, "busy", 503),
        (Self::StorageFull, "storage_full", 507),
        (Self::Internal, "internal", 500),
    ];

    /// The code's text.
    pub fn as_str(self) -> &'static str {
        Self::TABLE.iter().find(|(code, ..)| *code == self).map_or("internal", |(_, text, _)| text)
    }

    /// HTTP status.
    pub fn status(self) -> u16 {
        Self::TABLE.iter().find(|(code, ..)| *code == self).map_or(500, |(.., status)| *status)
    }

    /// Reads a code's text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::TABLE.iter().find(|(_, known, _)| *known == text).map(|(code, ..)| *code)
    }
}
