//! Documents of the keyring vault (PROTOCOL.md section 4.2).

use lockstep_proto::cbor::{ByteArray, CodecError, Wire};
use lockstep_proto::device_log::Pin;
use lockstep_proto::id::{AccountId, DeviceId, Epoch, VaultId};
use lockstep_proto::sign::{PublicKey, Signature};
use lockstep_proto::vault_log::{deletion_input, keyring_vault_id};
use lockstep_proto::{Digest, Signed, label, wire_array};

/// Record type of vault keys.
pub const VAULT_KEY_TYPE: &str = "lockstep/vault-key";
/// Record type of vault names.
pub const VAULT_TYPE: &str = "lockstep/vault";
/// Record type of device names that replace the one in the device log.
pub const DEVICE_NAME_TYPE: &str = "lockstep/device-name";
/// Record type of head pins.
pub const HEAD_PIN_TYPE: &str = "lockstep/head-pin";

wire_array! {
    /// Key of a vault's epoch and the vault's signed birth; write-once, revision 1 counts.
    #[derive(Clone, PartialEq, Eq)]
    pub struct VaultKeyDoc {
        /// Vault.
        pub vault: VaultId,
        /// Epoch.
        pub epoch: Epoch,
        /// Its key.
        pub key: ByteArray<32>,
        /// Vault secret.
        pub secret: ByteArray<32>,
        /// Vault-log entry 0.
        pub create: Signed,
        /// Genesis.
        pub genesis: Signed,
        /// The keyring's epoch for which the key was made: no device revoked before that one began has seen it,
        /// neither here nor in an envelope that was sent and came to nothing.
        pub made_in: Epoch,
    }
}

impl std::fmt::Debug for VaultKeyDoc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VaultKeyDoc({}, epoch {}, [redacted])", self.vault, self.epoch)
    }
}

impl Wire for VaultKeyDoc {
    const NAME: &'static str = "vault key record";
    const BYTES_MAX: usize = 16 * 1024;

    fn check(&self) -> Result<(), CodecError> {
        if self.epoch.value() > 0 && self.made_in.value() > 0 {
            Ok(())
        } else {
            Err(CodecError::Rule { what: Self::NAME, rule: "epochs begin at 1" })
        }
    }
}

/// Record name of a vault key.
pub fn vault_key_name(vault: VaultId, epoch: Epoch) -> Vec<u8> {
    let mut name = vault.as_bytes().to_vec();
    name.extend_from_slice(&epoch.value().to_be_bytes());
    name
}

wire_array! {
    /// Name of a vault.
    #[derive(Clone, PartialEq, Eq)]
    pub struct VaultDoc {
        /// Vault.
        pub vault: VaultId,
        /// Its name.
        pub name: String,
        /// When it was deleted, seconds since 1970; 0: it was not.
        pub deleted_utc: u64,
        /// The identity's word for the deletion: no mark counts without it.
        pub deletion: Option<Signature>,
    }
}

impl VaultDoc {
    /// Whether this account's identity says that the vault is deleted. The keyring never is.
    pub fn is_deleted(&self, account: AccountId, identity: &PublicKey) -> bool {
        let input = deletion_input(account, self.vault);
        self.vault != keyring_vault_id(&identity.to_bytes())
            && self.deletion.as_ref().is_some_and(|signature| {
                identity.verify("vault deletion", label::VAULT_DELETION, &input, signature).is_ok()
            })
    }
}

impl Wire for VaultDoc {
    const NAME: &'static str = "vault record";
    const BYTES_MAX: usize = 4096;
}

wire_array! {
    /// What a device last verified.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct HeadPinDoc {
        /// The device.
        pub device: DeviceId,
        /// When, by its clock, seconds since 1970.
        pub utc: u64,
        /// Index of the last device-log entry.
        pub device_log_index: u64,
        /// Its hash.
        pub device_log_head: Digest,
        /// Heads, ascending by vault.
        pub heads: Vec<Pin>,
    }
}

impl Wire for HeadPinDoc {
    const NAME: &'static str = "head pin";
    const BYTES_MAX: usize = 128 * 1024;

    fn check(&self) -> Result<(), CodecError> {
        if self.heads.is_sorted_by(|left, right| left.vault < right.vault) {
            Ok(())
        } else {
            Err(CodecError::Rule { what: Self::NAME, rule: "heads ascend by vault" })
        }
    }
}

wire_array! {
    /// A device's name, as its owner changed it.
    #[derive(Clone, PartialEq, Eq)]
    pub struct DeviceNameDoc {
        /// The device.
        pub device: DeviceId,
        /// Its name.
        pub name: String,
    }
}

impl Wire for DeviceNameDoc {
    const NAME: &'static str = "device name";
    const BYTES_MAX: usize = 1024;
}
