//! The vault log: birth, key epochs and (later) members of a vault (PROTOCOL.md section 4.1).

use crate::cbor::{CodecError, Wire, encode};
use crate::hash::Digest;
use crate::id::{AccountId, DeviceId, Epoch, VaultId};
use crate::{label, limits, wire_array};

/// Birth of the vault.
pub const KIND_CREATE: u8 = 1;
/// A new key epoch.
pub const KIND_ROTATE: u8 = 2;

wire_array! {
    /// One entry of a vault log; signed by the device, apart from it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct VaultLogEntry {
        /// Version byte.
        pub version: u8,
        /// Suite.
        pub suite: u8,
        /// Vault.
        pub vault: VaultId,
        /// Position, from 0.
        pub index: u64,
        /// Hash of the entry before; zero at 0.
        pub previous: Digest,
        /// [`KIND_CREATE`] or [`KIND_ROTATE`]; all others are refused in this draft.
        pub kind: u8,
        /// Owner.
        pub account: AccountId,
        /// Owner's identity key.
        pub identity: Digest,
        /// Key epoch from here on.
        pub epoch: Epoch,
        /// Author.
        pub device: DeviceId,
        /// Last device-log entry that the author had verified.
        pub device_log_index: u64,
        /// Its hash.
        pub device_log_head: Digest,
    }
}

impl Wire for VaultLogEntry {
    const NAME: &'static str = "vault-log entry";
    const BYTES_MAX: usize = limits::VAULT_LOG_ENTRY_BYTES_MAX;
    const VERSIONED: bool = true;

    fn check(&self) -> Result<(), CodecError> {
        crate::version::check_suite(Self::NAME, self.version, self.suite)?;
        let rule = |rule| Err(CodecError::Rule { what: Self::NAME, rule });
        let is_first = self.index == 0 && self.previous == Digest::ZERO && self.epoch.value() == 1;
        match self.kind {
            KIND_CREATE if !is_first => rule("a creation has index 0, no entry before it, and epoch 1"),
            KIND_ROTATE if self.index == 0 || self.index >= limits::VAULT_LOG_ENTRIES_MAX => {
                rule("a rotation follows a creation, and a vault log has at most 4,096 entries")
            }
            KIND_CREATE | KIND_ROTATE => Ok(()),
            _ => rule("its kind is not part of this draft; an update is needed"),
        }
    }
}

impl VaultLogEntry {
    /// Hash of an entry's encoding.
    pub fn hash_of(bytes: &[u8]) -> Digest {
        Digest::of(label::VAULT_LOG_ENTRY, bytes)
    }
}

/// Id of the keyring vault of an identity.
pub fn keyring_vault_id(identity: &[u8; 32]) -> VaultId {
    derived_id(identity, "keyring")
}

/// Id of the default vault `files` of an identity.
pub fn files_vault_id(identity: &[u8; 32]) -> VaultId {
    derived_id(identity, "files")
}

/// What the identity signs when it deletes a vault.
pub fn deletion_input(account: AccountId, vault: VaultId) -> Vec<u8> {
    encode(&(account, vault))
}

fn derived_id(identity: &[u8; 32], purpose: &str) -> VaultId {
    let digest = Digest::of_cbor(label::VAULT_ID, &(Digest::from_bytes(*identity), purpose));
    VaultId::from_bytes(digest.truncate16())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: u8, index: u64, previous: u8, epoch: u64) -> VaultLogEntry {
        VaultLogEntry {
            version: crate::version::VERSION,
            suite: crate::version::SUITE,
            vault: VaultId::ZERO,
            index,
            previous: Digest::from_bytes([previous; 32]),
            kind,
            account: AccountId::ZERO,
            identity: Digest::ZERO,
            epoch: Epoch::new(epoch),
            device: DeviceId::ZERO,
            device_log_index: 0,
            device_log_head: Digest::ZERO,
        }
    }

    #[test]
    fn a_creation_is_first_and_rotations_follow_up_to_the_limit() {
        let last = limits::VAULT_LOG_ENTRIES_MAX - 1;
        for right in
            [entry(KIND_CREATE, 0, 0, 1), entry(KIND_ROTATE, 1, 1, 2), entry(KIND_ROTATE, last, 1, 2)]
        {
            assert_eq!(VaultLogEntry::decode(&right.encode()).unwrap(), right);
        }
        for (wrong, rule) in [
            (entry(KIND_CREATE, 1, 0, 1), "a creation has index 0"),
            (entry(KIND_CREATE, 0, 1, 1), "a creation has index 0"),
            (entry(KIND_CREATE, 0, 0, 0), "a creation has index 0"),
            (entry(KIND_CREATE, 0, 0, 2), "a creation has index 0"),
            (entry(KIND_ROTATE, 0, 0, 1), "a rotation follows a creation"),
            (entry(KIND_ROTATE, last + 1, 1, 2), "at most 4,096 entries"),
            (entry(0, 0, 0, 1), "its kind is not part of this draft"),
            (entry(3, 1, 1, 2), "its kind is not part of this draft"),
            (VaultLogEntry { suite: 2, ..entry(KIND_CREATE, 0, 0, 1) }, "not suite 1"),
        ] {
            let error = VaultLogEntry::decode(&wrong.encode()).unwrap_err().to_string();
            assert!(error.contains(rule), "{error}");
        }
    }

    #[test]
    fn a_deletion_is_of_one_vault_of_one_account() {
        let (account, vault) = (AccountId::from_bytes([1; 16]), VaultId::from_bytes([2; 16]));
        let expected = [&[0x82, 0x50][..], &[1; 16], &[0x50], &[2; 16]].concat();
        assert_eq!(deletion_input(account, vault), expected);
    }
}
