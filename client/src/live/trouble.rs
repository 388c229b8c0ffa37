//! What an error means for the attempts that follow, and what a person can do about it.

use super::schedule::{End, Millis};
use crate::error::ClientError;
use lockstep_proto::api::problem::Code;
use std::sync::Arc;

/// Something that went wrong, and is not mended yet.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// What.
    pub error: Arc<ClientError>,
    /// What to do about it, in one sentence.
    pub advice: &'static str,
    /// Whether nothing is tried again until a person did something and syncs by hand ([`super::Live::sync_now`]).
    pub needs_person: bool,
    /// When it was last tried, seconds since 1970 by this device's clock.
    pub utc: u64,
}

/// What is tried after an error. `is_of_vault`: whether it is about one vault alone ([`crate::account::Account::is_of`]).
pub(crate) fn end_of(error: &ClientError, is_of_vault: bool, asked: Option<Millis>) -> End {
    match error {
        ClientError::Unreachable { .. } => End::Later { asked, is_away: true },
        ClientError::QuotaExceeded(_) => End::Full,
        ClientError::Busy(_)
        | ClientError::Locked(_)
        | ClientError::Server(_)
        | ClientError::Incomplete(_)
        | ClientError::Database(_)
        | ClientError::Io { .. }
        | ClientError::KeysBehind(_)
        | ClientError::Refused { code: Some(Code::Throttled | Code::Busy | Code::StorageFull), .. } => {
            End::Later { asked, is_away: false }
        }
        _ => End::Person { of_all: !is_of_vault },
    }
}

/// What to do about an error.
pub(crate) fn advice(error: &ClientError) -> &'static str {
    match error {
        ClientError::Unreachable { .. } => {
            "Nothing: it is tried again by itself; check the connection if it lasts."
        }
        ClientError::Busy(_) | ClientError::Refused { code: Some(Code::Throttled | Code::Busy), .. } => {
            "Nothing: it is tried again by itself."
        }
        ClientError::Locked(_) => "Close the other program that uses this home.",
        ClientError::QuotaExceeded(_) => {
            "Ask whoever runs the server for a larger quota or delete something, then sync by hand."
        }
        ClientError::DiskFull(_) => "Make room on this device, then sync by hand.",
        ClientError::Refused { code: Some(Code::StorageFull), .. } => {
            "Tell whoever runs the server that its disk is full; it is tried again by itself."
        }
        ClientError::SignedOut | ClientError::Revoked => {
            "Sign in again with a new home; what waits here stays here until then."
        }
        ClientError::Cloned(_) => "Sign in again to give this copy of the device an identity of its own.",
        ClientError::Rollback(_) | ClientError::Fork(_) | ClientError::RecordRollback(_) => {
            "Ask whoever runs the server whether it was restored from an old copy; if it was, heal it from this device."
        }
        ClientError::Fault(_) => "The owner of the account can repair the vault: lockstep heal.",
        ClientError::Incomplete(_) => {
            "It is tried again by itself; if it lasts, the server lost or hides something: lockstep check."
        }
        ClientError::Server(_) | ClientError::KeysBehind(_) => {
            "It is tried again by itself; if it lasts, update this program or the server."
        }
        ClientError::Damaged(_) => "Sign in again with a new home, and keep this one.",
        ClientError::Database(_) | ClientError::Io { .. } => {
            "It is tried again by itself; if it lasts, check this device's disk."
        }
        _ => "Read what it says, mend it, then sync by hand.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_away_by_itself_is_tried_again_and_the_rest_waits_for_a_person() {
        let later = End::Later { asked: Some(7), is_away: false };
        let refused =
            |code| ClientError::Refused { code: Some(code), detail: String::new(), names: Vec::new() };
        for error in [
            ClientError::Busy(String::new()),
            ClientError::Server(String::new()),
            refused(Code::Throttled),
            refused(Code::StorageFull),
        ] {
            assert_eq!(end_of(&error, true, Some(7)), later, "{error}");
        }
        let away = ClientError::Unreachable { server: String::new(), reason: String::new() };
        assert_eq!(end_of(&away, false, None), End::Later { asked: None, is_away: true });
        assert_eq!(end_of(&ClientError::QuotaExceeded(None), true, None), End::Full);
        for error in [
            ClientError::SignedOut,
            ClientError::Revoked,
            ClientError::Cloned(String::new()),
            ClientError::Rollback(String::new()),
            ClientError::Fork(String::new()),
        ] {
            assert_eq!(end_of(&error, false, Some(7)), End::Person { of_all: true }, "{error}");
            assert!(!advice(&error).contains("by itself"), "{error}");
        }
        assert_eq!(end_of(&refused(Code::NotFound), true, None), End::Person { of_all: false });
    }
}
