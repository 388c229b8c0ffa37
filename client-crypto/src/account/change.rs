//! What an unlocked account changes: its credentials, its devices, a vault that needs repair.

use super::{Credential, Enrolment, Place, UnlockedAccount, keyring_header, seal_context, sized};
use crate::error::CryptoError;
use crate::passphrase::Passphrase;
use crate::recovery::RecoveryKey;
use crate::secret::{SecretKey, random_bytes};
use crate::{device, seal};
use lockstep_proto::cbor::{ByteArray, Wire};
use lockstep_proto::commit::{Change, RepairPlace, repair_input};
use lockstep_proto::device_log::{DeviceLog, KIND_KEYS, KIND_REVOKE, KeysChanged, Pin, Revoke};
use lockstep_proto::id::{DeviceId, Epoch, VaultId};
use lockstep_proto::key_header::{KeyHeader, Link, VerifiedKeyHeader};
use lockstep_proto::label;
use lockstep_proto::sign::Signature;
use lockstep_proto::vault_log::deletion_input;
use rand::rand_core::CryptoRng;

/// Which credentials change.
#[derive(Debug, Clone, Copy)]
pub struct CredentialChange<'a> {
    /// New passphrase, if it changes.
    pub passphrase: Option<&'a Passphrase>,
    /// New recovery key, if it changes.
    pub recovery: Option<&'a RecoveryKey>,
}

impl UnlockedAccount {
    /// Puts new wraps of the root in the place of old ones.
    pub(super) fn renew(
        &self,
        header: &mut KeyHeader,
        change: CredentialChange<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), CryptoError> {
        let mut fresh = Vec::new();
        if let Some(passphrase) = change.passphrase {
            fresh.push(self.wrap_root(Credential::Passphrase(passphrase), rng)?);
        }
        if let Some(recovery) = change.recovery {
            fresh.push(self.wrap_root(Credential::Recovery(recovery), rng)?);
            header.recovery = recovery.login_public();
        }
        header.wraps.retain(|wrap| fresh.iter().all(|new| new.role != wrap.role));
        header.wraps.extend(fresh);
        header.wraps.sort_by_key(|wrap| wrap.role);
        Ok(())
    }

    /// A new passphrase, a new recovery key, or both, on a verified log.
    ///
    /// # Errors
    /// [`CryptoError`] if a primitive fails.
    pub fn change_credentials(
        &self,
        header: &VerifiedKeyHeader,
        log: &DeviceLog,
        change: CredentialChange<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Enrolment, CryptoError> {
        let mut fields = header.header().clone();
        self.renew(&mut fields, change, rng)?;
        let body = KeysChanged { reserved: Vec::new() }.encode();
        Ok(self.enter(fields, Place::after(log), KIND_KEYS, body))
    }

    /// Revokes a device on a verified log: a new keyring key, sealed to every device that stays. `pins` are the
    /// heads of all vaults, ascending.
    ///
    /// # Errors
    /// [`CryptoError`] if the device is not live or a primitive fails.
    pub fn revoke(
        &self,
        header: &VerifiedKeyHeader,
        log: &DeviceLog,
        device: DeviceId,
        pins: Vec<Pin>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Enrolment, CryptoError> {
        if log.live().all(|live| live.id != device) {
            return Err(CryptoError::Misuse { what: "this device is not one of the account's" });
        }
        let (old, epoch) = self.current_keyring()?;
        let mut fields = header.header().clone();
        let next = Epoch::new(epoch.value().saturating_add(1));
        let key = SecretKey::generate(rng);
        let nonce = ByteArray(random_bytes(rng));
        let associated = keyring_header(self.account, epoch, nonce);
        let (commitment, ciphertext) =
            seal::seal(&key, label::KEYRING_LINK, &associated, &nonce.0, old.expose());
        fields.keyring.links.push(Link { epoch, nonce, commitment, ciphertext: sized(ciphertext)? });
        let (nonce, commitment, ciphertext) = self.wrap_keyring(next, &key, rng)?;
        (fields.keyring.nonce, fields.keyring.commitment) = (nonce, commitment);
        fields.keyring.ciphertext = ciphertext;
        fields.keyring.epoch = next;
        let context = seal_context(&self.public, self.account, next);
        let mut seals = Vec::new();
        for live in log.live().filter(|live| live.id != device) {
            seals.push(context.seal(live.id, &live.seal_key, &key, rng)?);
        }
        fields.keyring.seals = seals;
        let body = Revoke { device, pins }.encode();
        Ok(self.enter(fields, Place::after(log), KIND_REVOKE, body))
    }

    /// Takes over the keyring of a newer key header of this account.
    ///
    /// # Errors
    /// [`CryptoError::Open`] if it does not open with this root.
    pub fn take_header(&mut self, header: &VerifiedKeyHeader) -> Result<(), CryptoError> {
        self.keyring = super::open_keyring(&self.root, header.header())?;
        Ok(())
    }

    /// Signs what a repair says at its place.
    pub fn authorise_repair(&self, place: &RepairPlace, says: &[Change]) -> Signature {
        device::sign(&self.identity, label::REPAIR, &repair_input(self.account, place, says))
    }

    /// Signs that a vault is deleted: no device's mark counts without it.
    pub fn authorise_deletion(&self, vault: VaultId) -> Signature {
        device::sign(&self.identity, label::VAULT_DELETION, &deletion_input(self.account, vault))
    }
}
