//! The recovery kit: a text file for paper (PROTOCOL.md section 2.3).

use crate::error::{ClientError, Result};
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_proto::id::AccountId;
use lockstep_proto::recovery::{Checkpoint, identity_fingerprint};
use zeroize::Zeroizing;

/// Writes a kit. The text is as secret as the recovery key.
pub fn text(
    server: &str,
    name: &str,
    identity: &[u8; 32],
    recovery: &RecoveryKey,
    checkpoint: &Checkpoint,
) -> Zeroizing<String> {
    Zeroizing::new(format!(
        "Lockstep recovery kit\n\n\
         Keep this on paper or in a safe. Whoever has it can read everything in the account.\n\
         Without it and without the passphrase nobody can, not even who runs the server.\n\n\
         server: {server}\n\
         name: {name}\n\
         account: {}\n\
         identity: {}\n\
         recovery key: {}\n\
         checkpoint: {}\n",
        checkpoint.account,
        identity_fingerprint(identity),
        *recovery.to_text(),
        checkpoint.to_text(),
    ))
}

/// What a kit, or a bare recovery key, says.
pub struct Kit {
    /// The recovery key.
    pub recovery: RecoveryKey,
    /// The account, if it is a kit.
    pub account: Option<AccountId>,
    /// The checkpoint, if it is a kit.
    pub checkpoint: Option<Checkpoint>,
}

/// Reads a kit file or a bare recovery key.
///
/// # Errors
/// [`ClientError::Usage`] names the mistyped place.
pub fn parse(text: &str) -> Result<Kit> {
    let field = |name: &str| {
        text.lines().find_map(|line| line.trim().strip_prefix(name).and_then(|rest| rest.strip_prefix(':')))
    };
    let usage = |error: &dyn std::fmt::Display| {
        ClientError::Usage(format!("the recovery key can not be used: {error}"))
    };
    let Some(key) = field("recovery key") else {
        let recovery = RecoveryKey::parse(text).map_err(|error| usage(&error))?;
        return Ok(Kit { recovery, account: None, checkpoint: None });
    };
    let recovery = RecoveryKey::parse(key).map_err(|error| usage(&error))?;
    let account = match field("account") {
        None => None,
        Some(text) => Some(text.trim().parse().map_err(|error| usage(&error))?),
    };
    let checkpoint = match field("checkpoint") {
        None => None,
        Some(text) => Some(Checkpoint::parse(text).map_err(|error| usage(&error))?),
    };
    Ok(Kit { recovery, account, checkpoint })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_proto::Digest;
    use lockstep_proto::id::Seq;

    #[test]
    fn kits_round_trip_and_bare_keys_are_taken() {
        let recovery = RecoveryKey::generate(&mut crate::rng::system());
        let checkpoint = Checkpoint {
            version: lockstep_proto::version::VERSION,
            account: AccountId::from_bytes([7; 16]),
            device_log_index: 0,
            device_log_head: Digest::ZERO,
            keyring_seq: Seq::new(0),
            keyring_head: Digest::ZERO,
        };
        let written = text("http://localhost", "ada", &[3; 32], &recovery, &checkpoint);
        let read = parse(&written).unwrap();
        assert_eq!(read.checkpoint, Some(checkpoint));
        assert_eq!(read.recovery.to_text(), recovery.to_text());
        let bare = parse(&recovery.to_text()).unwrap();
        assert!(bare.checkpoint.is_none());
        assert!(parse("nonsense").is_err());
    }
}
