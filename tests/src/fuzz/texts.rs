//! What a person types: recovery keys, checkpoints, ids, sizes. What is read is written again as one text.

use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_proto::id::VaultId;
use lockstep_proto::recovery::{Checkpoint, RecoveryTextError, parse_recovery_key, recovery_key_text};
use lockstep_proto::size::{parse_size, size_text};

/// What spelling does not matter for.
pub(super) fn compact(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| c.to_ascii_lowercase()).collect()
}

/// A place that is named exists.
fn check_error(error: &RecoveryTextError, text: &str) {
    if let RecoveryTextError::Character { position, group, place, .. }
    | RecoveryTextError::Mistyped { position, group, place, .. } = error
    {
        assert!((1..=compact(text).chars().count()).contains(position), "{error}");
        assert!(((group - 1) * 4 + place == *position) && (1..=4).contains(place), "{error}");
    }
    assert!(error.to_string().len() < 150, "a message has a bound, whatever came: {error}");
}

/// The first byte says what is read, the rest is the text.
pub(super) fn target(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match which % 4 {
        0 => match parse_recovery_key(text) {
            Ok(key) => {
                assert_eq!(compact(&recovery_key_text(&key)), compact(text));
                assert_eq!(compact(&RecoveryKey::parse(text).unwrap().to_text()), compact(text));
            }
            Err(error) => check_error(&error, text),
        },
        1 => match Checkpoint::parse(text) {
            Ok(checkpoint) => assert_eq!(compact(&checkpoint.to_text()), compact(text)),
            Err(error) => check_error(&error, text),
        },
        2 => {
            if let Ok(id) = text.parse::<VaultId>() {
                assert_eq!(id.to_string(), text);
            }
        }
        _ => {
            if let Ok(size) = parse_size(text) {
                // What is shown is rounded, and can be read.
                parse_size(&size_text(size)).unwrap();
            }
        }
    }
}
