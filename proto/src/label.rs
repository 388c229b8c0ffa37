//! The registry of domain-separation labels: the only place where they are spelled.

/// A domain-separation label. Two uses never share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(&'static str);

impl Label {
    /// The label's text.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

macro_rules! labels {
    ($($(#[$meta:meta])* $name:ident = $text:literal;)+) => {
        $($(#[$meta])* pub const $name: Label = Label(concat!("lockstep/v1/", $text));)+
        /// Every label, for the test that no two are equal and for auditors.
        pub const ALL: &[Label] = &[$($name),+];
    };
}

labels! {
    /// Account id from the identity public key.
    ACCOUNT_ID = "account-id";
    /// Ids of the keyring vault and of the default vault.
    VAULT_ID = "vault-id";
    /// Fingerprint of the identity.
    IDENTITY_FINGERPRINT = "identity-fingerprint";
    /// Fingerprint of the account's whole state.
    ACCOUNT_FINGERPRINT = "account-fingerprint";
    /// Argon2id salt of a passphrase wrap.
    KEK_SALT = "kek-salt";
    /// Key-encryption key from the recovery key.
    RECOVERY_KEK = "recovery-kek";
    /// Sign-in key from the recovery key.
    RECOVERY_LOGIN = "recovery-login";
    /// Wraps of the root key.
    ROOT_WRAP = "root-wrap";
    /// Identity signing key from the root key.
    IDENTITY_KEY = "identity-key";
    /// Key that wraps the keyring key, from the root key.
    KEYRING_WRAP_KEY = "keyring-wrap-key";
    /// The keyring key under that key.
    KEYRING_WRAP = "keyring-wrap";
    /// An older keyring key under the next.
    KEYRING_LINK = "keyring-link";
    /// HPKE info of the keyring key sealed to a device.
    KEYRING_SEAL = "keyring-seal";
    /// Vault secret of the keyring vault.
    KEYRING_SECRET = "keyring-secret";
    /// Key header, hash and signature.
    KEY_HEADER = "key-header";
    /// Device-log entry, hash and signature.
    DEVICE_LOG_ENTRY = "device-log-entry";
    /// A new device's proof of possession.
    DEVICE_PROOF = "device-proof";
    /// Encrypted device name.
    DEVICE_NAME = "device-name";
    /// Sign-in statements.
    LOGIN = "login";
    /// Identity-signed requests.
    ACTION = "action";
    /// Digest of such a request's body.
    ACTION_BODY = "action-body";
    /// Vault-log entry, hash and signature.
    VAULT_LOG_ENTRY = "vault-log-entry";
    /// Commit header, hash and signature.
    COMMIT = "commit";
    /// Change list.
    CHANGES = "changes";
    /// The identity's word for a repair.
    REPAIR = "repair";
    /// The identity's word for the deletion of a vault.
    VAULT_DELETION = "vault-deletion";
    /// Element of the state digest.
    STATE_ELEMENT = "state-element";
    /// Checksum of the state digest.
    STATE_CHECKSUM = "state-checksum";
    /// Digest of a whole envelope.
    ENVELOPE = "envelope";
    /// Key derivation for one envelope.
    ENVELOPE_HEADER = "envelope-header";
    /// Envelope nonces.
    ENVELOPE_NONCE = "envelope-nonce";
    /// Sorted blob list.
    BLOB_LIST = "blob-list";
    /// Key of record ids.
    RECORD_ID_KEY = "record-id-key";
    /// Record ids.
    RECORD_ID = "record-id";
    /// Key of content hashes.
    CONTENT_HASH_KEY = "content-hash-key";
    /// Key of the chunker's table.
    CHUNKER_KEY = "chunker-key";
    /// Secret mixed into every blob key.
    BLOB_SECRET = "blob-secret";
    /// Blob keys.
    BLOB_KEY = "blob-key";
    /// Digest of a stored object.
    OBJECT = "object";
    /// Digest of a part of it.
    OBJECT_PART = "object-part";
    /// OPAQUE context.
    OPAQUE = "opaque";
    /// Salt of OPAQUE's key stretching.
    OPAQUE_KEY_STRETCH = "opaque-key-stretch";
    /// Kit checkpoint.
    CHECKPOINT = "checkpoint";
    /// The maker's signature at the end of an archive.
    ARCHIVE = "archive";
    /// Digest of everything before it.
    ARCHIVE_BYTES = "archive-bytes";
    /// Session token at rest on the server.
    LOCAL_SESSION = "local/session";
    /// Fake account ids of a server.
    LOCAL_FAKE_ACCOUNT = "local/fake-account";
    /// Index tags of a device.
    LOCAL_INDEX_TAG = "local/index-tag";
    /// Whether two documents are equal, while one of them is not at hand.
    LOCAL_DOCUMENT = "local/document";
    /// Rows sealed at rest on a device.
    LOCAL_ROW = "local/row";
    /// Device secrets locked at rest.
    LOCAL_NONCE_KEY = "local/nonce-key";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn labels_are_distinct_and_none_is_a_prefix_of_another_use() {
        let distinct: BTreeSet<_> = ALL.iter().map(|label| label.as_str()).collect();
        assert_eq!(distinct.len(), ALL.len());
        assert!(ALL.iter().all(|label| label.as_str().starts_with("lockstep/v1/")));
    }

    #[test]
    fn specification_lists_every_label() {
        let text = include_str!("../../docs/PROTOCOL.md");
        for label in ALL {
            let short = label.as_str().trim_start_matches("lockstep/v1/");
            if !short.starts_with("local/") {
                assert!(text.contains(&format!("`{short}`")), "PROTOCOL.md section 1.3 lacks {short}");
            }
        }
    }
}
