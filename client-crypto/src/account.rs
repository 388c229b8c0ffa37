//! The account's key hierarchy: root key, identity, keyring (PROTOCOL.md sections 2 and 3).
//!
//! [`UnlockedAccount`] exists only while a passphrase or recovery key is at hand: to sign up, enrol or
//! recover. It is dropped, and with it wiped, before anything else happens.

use crate::device::{self, DeviceKeys, SealContext};
use crate::error::{CryptoError, OpenError};
use crate::kdf;
use crate::passphrase::{DEFAULT_PROFILE, Passphrase};
use crate::recovery::RecoveryKey;
use crate::seal;
use crate::secret::{SecretKey, random_bytes};
use ed25519_dalek::SigningKey;
use lockstep_proto::api::auth::action_input;
use lockstep_proto::cbor::{ByteArray, Wire, encode};
use lockstep_proto::device_log::{
    CLASS_FULL, Device, DeviceLog, DeviceLogEntry, DeviceNameHeader, Enrol, KIND_ENROL, Pin, SealedName,
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

/// Keys of the keyring vault by epoch. A full device holds them as long as it runs.
#[derive(Debug)]
pub struct KeyringKeys {
    account: AccountId,
    keys: BTreeMap<Epoch, SecretKey>,
}

impl KeyringKeys {
    /// Current epoch.
    pub fn epoch(&self) -> Epoch {
        self.keys.last_key_value().map_or(Epoch::new(0), |(epoch, _)| *epoch)
    }

    /// Key of an epoch.
    pub fn key(&self, epoch: Epoch) -> Option<&SecretKey> {
        self.keys.get(&epoch)
    }

    /// All keys, ascending.
    pub fn keys(&self) -> impl Iterator<Item = (Epoch, &SecretKey)> {
        self.keys.iter().map(|(epoch, key)| (*epoch, key))
    }

    /// The keyring's vault secret; survives epochs, because epoch 1 stays readable.
    pub fn vault_secret(&self) -> SecretKey {
        let none = SecretKey::from_bytes(&[0; 32]);
        let first = self.keys.get(&Epoch::new(1)).unwrap_or(&none);
        kdf::derive_key(first, label::KEYRING_SECRET, &[self.account])
    }

    /// Opens the keyring as an enrolled device.
    ///
    /// # Errors
    /// [`OpenError`]: the header has no seal for this device, or it does not open.
    pub fn open_as_device(header: &VerifiedKeyHeader, device: &DeviceKeys) -> Result<Self, OpenError> {
        let keyring = &header.header().keyring;
        let own = keyring.seals.iter().find(|seal| seal.device == device.id()).ok_or(OpenError)?;
        let context = seal_context(header.identity(), header.header().account, keyring.epoch);
        let current = device.open_seal(&context, own)?;
        Self::open_links(header.header(), current)
    }

    fn open_links(header: &KeyHeader, current: SecretKey) -> Result<Self, OpenError> {
        let mut keys = BTreeMap::new();
        let mut next = current.duplicate();
        keys.insert(header.keyring.epoch, current);
        for link in header.keyring.links.iter().rev() {
            let associated = keyring_header(header.account, link.epoch, link.nonce);
            let opened = seal::open(
                &next,
                label::KEYRING_LINK,
                &associated,
                &link.nonce.0,
                &link.commitment,
                &link.ciphertext.0,
            )?;
            let key = SecretKey::from_slice(&opened).ok_or(OpenError)?;
            next = key.duplicate();
            keys.insert(link.epoch, key);
        }
        Ok(Self { account: header.account, keys })
    }

    /// Opens a device's name.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_name(&self, device: &Device) -> Result<String, OpenError> {
        let key = self.keys.get(&device.name.epoch).ok_or(OpenError)?;
        let header = name_header(self.account, device.id, device.name.epoch, device.name.nonce);
        let name = &device.name;
        let padded = seal::open(
            &device::name_key(key),
            label::DEVICE_NAME,
            &header,
            &name.nonce.0,
            &name.commitment,
            &name.ciphertext.0,
        )?;
        let text = std::str::from_utf8(&padded).map_err(|_| OpenError)?;
        Ok(text.trim_end_matches('\0').to_owned())
    }
}

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
    identity: SigningKey,
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
        let fields = header.header();
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
        if public != *header.identity() {
            return Err(OpenError.into());
        }
        let keyring = &fields.keyring;
        let associated = keyring_header(fields.account, keyring.epoch, keyring.nonce);
        let wrap_key = kdf::derive_key(&root, label::KEYRING_WRAP_KEY, kdf::NONE);
        let opened = seal::open(
            &wrap_key,
            label::KEYRING_WRAP,
            &associated,
            &keyring.nonce.0,
            &keyring.commitment,
            &keyring.ciphertext.0,
        )?;
        let current = SecretKey::from_slice(&opened).ok_or(OpenError)?;
        let keyring = KeyringKeys::open_links(fields, current)?;
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
        let wrap_key = kdf::derive_key(&self.root, label::KEYRING_WRAP_KEY, kdf::NONE);
        let nonce = ByteArray(random_bytes(rng));
        let associated = keyring_header(self.account, epoch, nonce);
        let (commitment, ciphertext) =
            seal::seal(&wrap_key, label::KEYRING_WRAP, &associated, &nonce.0, key.expose());
        let header = KeyHeader {
            version: VERSION,
            suite: SUITE,
            account: self.account,
            counter: 0,
            identity: Digest::from_bytes(self.public.to_bytes()),
            recovery: Digest::ZERO,
            wraps: Vec::new(),
            keyring: Keyring {
                epoch,
                nonce,
                commitment,
                ciphertext: sized(ciphertext)?,
                links: Vec::new(),
                seals: Vec::new(),
            },
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
        let place = Place { index: log.next_index(), previous: log.head() };
        self.enrol_on(header.header().clone(), place, credentials, joining, rng)
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
            let passphrase = self.wrap_root(Credential::Passphrase(new.passphrase), rng)?;
            let recovery = self.wrap_root(Credential::Recovery(new.recovery), rng)?;
            header.wraps = vec![passphrase, recovery];
            header.recovery = new.recovery.login_public();
        }
        let (key, epoch) = self.current_keyring()?;
        let Joining { device, name, pins } = joining;
        let context = seal_context(&self.public, self.account, epoch);
        let seal_public = device.seal_public();
        header.keyring.seals.push(context.seal(device.id(), &seal_public, key, rng)?);
        header.keyring.seals.sort_by_key(|seal| seal.device);
        header.counter = place.index.saturating_add(1);
        let key_header = device::sign_encoding(&self.identity, label::KEY_HEADER, header.encode());
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
        let entry = DeviceLogEntry {
            version: VERSION,
            suite: SUITE,
            account: self.account,
            index: place.index,
            previous: place.previous,
            kind: KIND_ENROL,
            key_header_counter: header.counter,
            key_header_hash: key_header.digest(label::KEY_HEADER),
            body: enrol.encode().into(),
        };
        let entry = device::sign_encoding(&self.identity, label::DEVICE_LOG_ENTRY, entry.encode());
        Ok(Enrolment { key_header, entry })
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

fn identity_of(root: &SecretKey) -> Result<(SigningKey, PublicKey), CryptoError> {
    let seed: zeroize::Zeroizing<[u8; 32]> = kdf::derive(root, label::IDENTITY_KEY, kdf::NONE);
    let identity = SigningKey::from_bytes(&seed);
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
