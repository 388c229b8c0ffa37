//! The account's key hierarchy: root key, identity, keyring (PROTOCOL.md sections 2 and 3).
//!
//! [`UnlockedAccount`] exists only while a passphrase or recovery key is at hand: to sign up, enrol or
//! recover. It is dropped, and with it wiped, before anything else happens.

mod change;
mod keyring;

pub use change::CredentialChange;
pub use keyring::KeyringKeys;

use crate::device::{self, DeviceKeys, SealContext};
use crate::error::{CryptoError, OpenError};
use crate::kdf;
use crate::passphrase::{DEFAULT_PROFILE, Passphrase};
use crate::recovery::RecoveryKey;
use crate::seal;
use crate::secret::{SecretKey, random_bytes};
use ed25519_dalek::SigningKey;
use lockstep_proto::api::auth::action_input;
use lockstep_proto::archive::BareKeys;
use lockstep_proto::cbor::{ByteArray, Wire, encode};
use lockstep_proto::device_log::{
    CLASS_FULL, DeviceLog, DeviceLogEntry, DeviceNameHeader, Enrol, KIND_ENROL, Pin, SealedName,
};
use lockstep_proto::hash::Digest;
use lockstep_proto::id::{AccountId, DeviceId, Epoch, VaultId};
use lockstep_proto::key_header::{
    KeyHeader, Keyring, KeyringHeader, ROLE_PASSPHRASE, ROLE_RECOVERY, VerifiedKeyHeader, Wrap, WrapHeader,
    account_id,
};
use lockstep_proto::label;
use lockstep_proto::sign::{PublicKey, Signature, Signed};
use lockstep_proto::vault_log::keyring_vault_id;
use lockstep_proto::version::{SUITE, VERSION};
use rand::rand_core::CryptoRng;
use std::collections::BTreeMap;

/// What opens the root key.
#[derive(Debug, Clone, Copy)]
pub enum Credential<'a> {
    /// The passphrase; opening runs Argon2id.
    Passphrase(&'a Passphrase),
    /// The recovery key.
    Recovery(&'a RecoveryKey),
}

/// The account while its root key is at hand.
pub struct UnlockedAccount {
    account: AccountId,
    root: SecretKey,
    identity: Box<SigningKey>,
    public: PublicKey,
    keyring: KeyringKeys,
}

impl std::fmt::Debug for UnlockedAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UnlockedAccount({}, [redacted])", self.account)
    }
}

/// A key header and the device-log entry that it comes with.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// New key header.
    pub key_header: Signed,
    /// New device-log entry.
    pub entry: Signed,
}

/// A device that joins.
#[derive(Debug, Clone)]
pub struct Joining<'a> {
    /// Its keys.
    pub device: &'a DeviceKeys,
    /// Its name, for the owner's eyes; at most 64 bytes are kept.
    pub name: &'a str,
    /// Heads that were verified, ascending by vault; empty for the first device only.
    pub pins: Vec<Pin>,
}

/// New credentials of a recovery.
#[derive(Debug, Clone, Copy)]
pub struct NewCredentials<'a> {
    /// New passphrase.
    pub passphrase: &'a Passphrase,
    /// New recovery key.
    pub recovery: &'a RecoveryKey,
}

impl UnlockedAccount {
    /// A new account: random root and keyring key.
    ///
    /// # Errors
    /// [`CryptoError`] if a primitive fails.
    pub fn create(rng: &mut dyn CryptoRng) -> Result<Self, CryptoError> {
        let root = SecretKey::generate(rng);
        let (identity, public) = identity_of(&root)?;
        let account = account_id(&public.to_bytes());
        let keys = BTreeMap::from([(Epoch::new(1), SecretKey::generate(rng))]);
        Ok(Self { account, root, identity, public, keyring: KeyringKeys { account, keys } })
    }

    /// Opens a verified key header (order of verification: PROTOCOL.md section 2.2, steps 4 and 5).
    ///
    /// # Errors
    /// [`CryptoError::Open`] for a wrong credential, a damaged wrap and a root that does not belong to
    /// the identity alike.
    pub fn unlock(header: &VerifiedKeyHeader, credential: Credential<'_>) -> Result<Self, CryptoError> {
        Self::unlock_fields(header.header(), header.identity(), credential)
    }

    /// Opens the keys of an archive that was made without the passphrase's wrap (PROTOCOL.md section 10.1). Nobody
    /// signed them: that what the wrap opens to gives the identity, and opens the keyring, takes the signature's place.
    ///
    /// # Errors
    /// As [`Self::unlock`].
    pub fn unlock_bare(bare: &BareKeys, recovery: &RecoveryKey) -> Result<Self, CryptoError> {
        let identity = PublicKey::from_bytes(bare.identity.as_bytes()).ok_or(OpenError)?;
        if account_id(bare.identity.as_bytes()) != bare.account {
            return Err(OpenError.into());
        }
        let fields = KeyHeader {
            version: bare.version,
            suite: bare.suite,
            account: bare.account,
            counter: bare.counter,
            identity: bare.identity,
            recovery: bare.recovery,
            wraps: vec![bare.wrap.clone()],
            keyring: bare.keyring.clone(),
        };
        Self::unlock_fields(&fields, &identity, Credential::Recovery(recovery))
    }

    fn unlock_fields(
        fields: &KeyHeader,
        expected: &PublicKey,
        credential: Credential<'_>,
    ) -> Result<Self, CryptoError> {
        let role = match credential {
            Credential::Passphrase(_) => ROLE_PASSPHRASE,
            Credential::Recovery(_) => ROLE_RECOVERY,
        };
        let wrap = fields.wraps.iter().find(|wrap| wrap.role == role).ok_or(OpenError)?;
        let kek = match credential {
            Credential::Passphrase(passphrase) => {
                passphrase.derive_kek(fields.account, wrap.profile, &wrap.salt)?
            }
            Credential::Recovery(key) => {
                if key.login_public() != fields.recovery {
                    return Err(OpenError.into());
                }
                key.kek(fields.account, &wrap.salt)
            }
        };
        let associated = wrap_header(fields.account, wrap);
        let opened = seal::open(
            &kek,
            label::ROOT_WRAP,
            &associated,
            &wrap.nonce.0,
            &wrap.commitment,
            &wrap.ciphertext.0,
        )?;
        let root = SecretKey::from_slice(&opened).ok_or(OpenError)?;
        let (identity, public) = identity_of(&root)?;
        if public != *expected {
            return Err(OpenError.into());
        }
        let keyring = open_keyring(&root, fields)?;
        Ok(Self { account: fields.account, root, identity, public, keyring })
    }

    /// Account id.
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// Identity public key.
    pub fn identity(&self) -> &PublicKey {
        &self.public
    }

    /// Keys of the keyring.
    pub fn keyring(&self) -> &KeyringKeys {
        &self.keyring
    }

    /// Gives up root and identity, keeps the keyring.
    pub fn into_keyring(self) -> KeyringKeys {
        self.keyring
    }

    /// Signs an identity-signed request.
    pub fn authorise(&self, action: u8, body: &[u8], log_index: u64, log_head: Digest) -> Signature {
        let input = action_input(self.account, action, body, log_index, log_head);
        device::sign(&self.identity, label::ACTION, &input)
    }

    /// First key header and log entry of a new account.
    ///
    /// # Errors
    /// [`CryptoError`] if a primitive fails.
    pub fn first_enrolment(
        &self,
        credentials: NewCredentials<'_>,
        joining: Joining<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Enrolment, CryptoError> {
        let (key, epoch) = self.current_keyring()?;
        let (nonce, commitment, ciphertext) = self.wrap_keyring(epoch, key, rng)?;
        let header = KeyHeader {
            version: VERSION,
            suite: SUITE,
            account: self.account,
            counter: 0,
            identity: Digest::from_bytes(self.public.to_bytes()),
            recovery: Digest::ZERO,
            wraps: Vec::new(),
            keyring: Keyring { epoch, nonce, commitment, ciphertext, links: Vec::new(), seals: Vec::new() },
        };
        let place = Place { index: 0, previous: Digest::ZERO };
        self.enrol_on(header, place, Some(credentials), joining, rng)
    }

    /// Enrols a device on a verified log; in a recovery with new credentials.
    ///
    /// # Errors
    /// [`CryptoError`] if a primitive fails.
    pub fn enrol(
        &self,
        header: &VerifiedKeyHeader,
        log: &DeviceLog,
        credentials: Option<NewCredentials<'_>>,
        joining: Joining<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Enrolment, CryptoError> {
        self.enrol_on(header.header().clone(), Place::after(log), credentials, joining, rng)
    }

    fn enrol_on(
        &self,
        mut header: KeyHeader,
        place: Place,
        credentials: Option<NewCredentials<'_>>,
        joining: Joining<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Enrolment, CryptoError> {
        if let Some(new) = credentials {
            let change = CredentialChange { passphrase: Some(new.passphrase), recovery: Some(new.recovery) };
            self.renew(&mut header, change, rng)?;
        }
        let (key, epoch) = self.current_keyring()?;
        let Joining { device, name, pins } = joining;
        let context = seal_context(&self.public, self.account, epoch);
        let seal_public = device.seal_public();
        header.keyring.seals.push(context.seal(device.id(), &seal_public, key, rng)?);
        header.keyring.seals.sort_by_key(|seal| seal.device);
        let mut enrol = Enrol {
            device: device.id(),
            sign_key: device.sign_public(),
            seal_key: seal_public,
            class: CLASS_FULL,
            scope: Vec::new(),
            name: self.seal_name(device.id(), name, rng)?,
            pins,
            proof: ByteArray([0; 64]),
        };
        enrol.proof = device.prove(&enrol.proof_input(self.account, place.index, place.previous));
        Ok(self.enter(header, place, KIND_ENROL, enrol.encode()))
    }

    /// Signs a key header for the next place of the log, and the entry that names it.
    fn enter(&self, mut header: KeyHeader, place: Place, kind: u8, body: Vec<u8>) -> Enrolment {
        header.counter = place.index.saturating_add(1);
        let key_header = device::sign_encoding(&self.identity, label::KEY_HEADER, header.encode());
        let entry = DeviceLogEntry {
            version: VERSION,
            suite: SUITE,
            account: self.account,
            index: place.index,
            previous: place.previous,
            kind,
            key_header_counter: header.counter,
            key_header_hash: key_header.digest(label::KEY_HEADER),
            body: body.into(),
        };
        let entry = device::sign_encoding(&self.identity, label::DEVICE_LOG_ENTRY, entry.encode());
        Enrolment { key_header, entry }
    }

    /// The keyring key under the root.
    fn wrap_keyring(
        &self,
        epoch: Epoch,
        key: &SecretKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<(ByteArray<24>, Digest, ByteArray<48>), CryptoError> {
        let wrap_key = kdf::derive_key(&self.root, label::KEYRING_WRAP_KEY, kdf::NONE);
        let nonce = ByteArray(random_bytes(rng));
        let associated = keyring_header(self.account, epoch, nonce);
        let (commitment, ciphertext) =
            seal::seal(&wrap_key, label::KEYRING_WRAP, &associated, &nonce.0, key.expose());
        Ok((nonce, commitment, sized(ciphertext)?))
    }

    fn wrap_root(&self, credential: Credential<'_>, rng: &mut dyn CryptoRng) -> Result<Wrap, CryptoError> {
        let salt = ByteArray(random_bytes(rng));
        let nonce = ByteArray(random_bytes(rng));
        let (role, profile, kek) = match credential {
            Credential::Passphrase(passphrase) => (
                ROLE_PASSPHRASE,
                DEFAULT_PROFILE,
                passphrase.derive_kek(self.account, DEFAULT_PROFILE, &salt)?,
            ),
            Credential::Recovery(key) => (ROLE_RECOVERY, 0, key.kek(self.account, &salt)),
        };
        let mut wrap =
            Wrap { role, profile, salt, nonce, commitment: Digest::ZERO, ciphertext: ByteArray([0; 48]) };
        let associated = wrap_header(self.account, &wrap);
        let (commitment, ciphertext) =
            seal::seal(&kek, label::ROOT_WRAP, &associated, &nonce.0, self.root.expose());
        wrap.commitment = commitment;
        wrap.ciphertext = sized(ciphertext)?;
        Ok(wrap)
    }

    fn seal_name(
        &self,
        device: DeviceId,
        name: &str,
        rng: &mut dyn CryptoRng,
    ) -> Result<SealedName, CryptoError> {
        let (key, epoch) = self.current_keyring()?;
        let mut padded = [0_u8; 64];
        let mut end = name.len().min(padded.len());
        while !name.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        for (place, byte) in padded.iter_mut().zip(name.bytes().take(end)) {
            *place = byte;
        }
        let nonce = ByteArray(random_bytes(rng));
        let header = name_header(self.account, device, epoch, nonce);
        let (commitment, ciphertext) =
            seal::seal(&device::name_key(key), label::DEVICE_NAME, &header, &nonce.0, &padded);
        Ok(SealedName { epoch, nonce, commitment, ciphertext: sized(ciphertext)? })
    }

    fn current_keyring(&self) -> Result<(&SecretKey, Epoch), CryptoError> {
        let (epoch, key) = self
            .keyring
            .keys
            .last_key_value()
            .ok_or(CryptoError::Misuse { what: "the keyring has no key" })?;
        Ok((key, *epoch))
    }
}

#[derive(Clone, Copy)]
struct Place {
    index: u64,
    previous: Digest,
}

impl Place {
    fn after(log: &DeviceLog) -> Self {
        Self { index: log.next_index(), previous: log.head() }
    }
}

/// Opens the keyring with the root.
fn open_keyring(root: &SecretKey, fields: &KeyHeader) -> Result<KeyringKeys, OpenError> {
    let keyring = &fields.keyring;
    let associated = keyring_header(fields.account, keyring.epoch, keyring.nonce);
    let wrap_key = kdf::derive_key(root, label::KEYRING_WRAP_KEY, kdf::NONE);
    let opened = seal::open(
        &wrap_key,
        label::KEYRING_WRAP,
        &associated,
        &keyring.nonce.0,
        &keyring.commitment,
        &keyring.ciphertext.0,
    )?;
    let current = SecretKey::from_slice(&opened).ok_or(OpenError)?;
    KeyringKeys::open_links(fields, current)
}

fn identity_of(root: &SecretKey) -> Result<(Box<SigningKey>, PublicKey), CryptoError> {
    let identity = device::signing_key(&kdf::derive_key(root, label::IDENTITY_KEY, kdf::NONE));
    let public = PublicKey::from_bytes(&identity.verifying_key().to_bytes())
        .ok_or(CryptoError::Primitive { what: "Ed25519" })?;
    Ok((identity, public))
}

fn sized<const N: usize>(bytes: Vec<u8>) -> Result<ByteArray<N>, CryptoError> {
    bytes.try_into().map(ByteArray).map_err(|_| CryptoError::Primitive { what: "AEAD" })
}

fn wrap_header(account: AccountId, wrap: &Wrap) -> Vec<u8> {
    encode(&WrapHeader {
        version: VERSION,
        suite: SUITE,
        account,
        role: wrap.role,
        profile: wrap.profile,
        salt: wrap.salt,
        nonce: wrap.nonce,
    })
}

fn keyring_header(account: AccountId, epoch: Epoch, nonce: ByteArray<24>) -> Vec<u8> {
    encode(&KeyringHeader { version: VERSION, suite: SUITE, account, epoch, nonce })
}

fn name_header(account: AccountId, device: DeviceId, epoch: Epoch, nonce: ByteArray<24>) -> Vec<u8> {
    encode(&DeviceNameHeader { version: VERSION, suite: SUITE, account, device, epoch, nonce })
}

fn seal_context(identity: &PublicKey, account: AccountId, epoch: Epoch) -> SealContext<'_> {
    SealContext { identity, account, vault: keyring_id(identity), epoch }
}

fn keyring_id(identity: &PublicKey) -> VaultId {
    keyring_vault_id(&identity.to_bytes())
}

#[cfg(test)]
mod tests;
