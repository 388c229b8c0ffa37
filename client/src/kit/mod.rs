//! The recovery kit: a text file, or a page to print with the same lines in it (PROTOCOL.md section 2.3).

pub mod page;
mod refresh;

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

/// The value of one of a kit's lines.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.trim().strip_prefix(name).and_then(|rest| rest.strip_prefix(':')))
}

/// Reads a kit, lines or page, or a bare recovery key.
///
/// # Errors
/// [`ClientError::Usage`] names the mistyped place.
pub fn parse(text: &str) -> Result<Kit> {
    let lines = if page::is_page(text) { Some(page::lines(text)?) } else { None };
    let text = lines.as_ref().map_or(text, |lines| lines.as_str());
    let field = |name: &str| field(text, name);
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
        let page = page::page(&written).unwrap();
        assert_eq!(page::lines(&page).unwrap(), written);
        for kit in [&written, &page] {
            let read = parse(kit).unwrap();
            assert_eq!(read.checkpoint.as_ref(), Some(&checkpoint));
            assert_eq!(read.account, Some(checkpoint.account));
            assert_eq!(read.recovery.to_text(), recovery.to_text());
        }
        assert!(parse("<!doctype html><p>hello</p>").is_err() && page::page("nonsense").is_err());
        let bare = parse(&recovery.to_text()).unwrap();
        assert!(bare.checkpoint.is_none());
        assert!(parse("nonsense").is_err());
    }

    #[test]
    fn what_a_server_calls_itself_is_text_in_the_page_and_nothing_else() {
        let recovery = RecoveryKey::generate(&mut crate::rng::system());
        let checkpoint = Checkpoint {
            version: lockstep_proto::version::VERSION,
            account: AccountId::from_bytes([7; 16]),
            device_log_index: 0,
            device_log_head: Digest::ZERO,
            keyring_seq: Seq::new(0),
            keyring_head: Digest::ZERO,
        };
        let name = "</pre><script>alert(\"&amp;\")</script>";
        let written = text("http://localhost", name, &[3; 32], &recovery, &checkpoint);
        let page = page::page(&written).unwrap();
        assert!(!page.contains("<script") && page.matches("</pre>").count() == 1);
        assert_eq!(page::lines(&page).unwrap(), written);
    }
}
