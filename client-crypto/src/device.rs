//! A device's own keys and what it signs (PROTOCOL.md sections 3 and 11).

use crate::error::{CryptoError, OpenError};
use crate::kdf;
use crate::secret::{DEEP, SecretKey, random_bytes, wiped};
use ed25519_dalek::{Signer, SigningKey};
use hpke::kem::XWing;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use lockstep_proto::api::auth::{Statement, statement_input};
use lockstep_proto::cbor::{ByteArray, Wire, encode};
use lockstep_proto::hash::Digest;
use lockstep_proto::id::{AccountId, DeviceId, Epoch, VaultId};
use lockstep_proto::key_header::DeviceSeal;
use lockstep_proto::label::{self, Label};
use lockstep_proto::sign::{PublicKey, Signature, Signed, signing_input};
use lockstep_proto::wire_array;
use rand::rand_core::CryptoRng;
use zeroize::Zeroizing;

type PrivateKey = <XWing as Kem>::PrivateKey;
type SealKey = <XWing as Kem>::PublicKey;
type Encapsulated = <XWing as Kem>::EncappedKey;

/// `Sign(sk, label, bytes)`.
pub(crate) fn sign(key: &SigningKey, label: Label, bytes: &[u8]) -> Signature {
    wiped::<DEEP, _>(|| ByteArray(key.sign(&signing_input(label, bytes)).to_bytes()))
}

/// A signing key in a place of its own.
pub(crate) fn signing_key(seed: &SecretKey) -> Box<SigningKey> {
    wiped::<DEEP, _>(|| Box::new(SigningKey::from_bytes(seed.expose())))
}

/// An X-Wing key in a place of its own.
fn private_key(seed: &SecretKey) -> Result<Box<PrivateKey>, CryptoError> {
    wiped::<DEEP, _>(|| PrivateKey::from_bytes(seed.expose()).map(Box::new))
        .map_err(|_| CryptoError::Primitive { what: "X-Wing" })
}

/// Signs an encoding.
pub(crate) fn sign_encoding(key: &SigningKey, label: Label, bytes: Vec<u8>) -> Signed {
    let signature = sign(key, label, &bytes);
    Signed { bytes: bytes.into(), signature }
}

/// A device's private keys. They live in the device file and nowhere else.
pub struct DeviceKeys {
    id: DeviceId,
    sign: Box<SigningKey>,
    seal: Box<PrivateKey>,
    nonce: SecretKey,
    index: SecretKey,
}

impl std::fmt::Debug for DeviceKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeviceKeys({}, [redacted])", self.id)
    }
}

wire_array! {
    /// The device file's secret part, as stored: id, Ed25519 seed, X-Wing seed, nonce key, index key.
    struct StoredDevice {
        pub version: u8,
        pub id: DeviceId,
        pub sign: ByteArray<32>,
        pub seal: ByteArray<32>,
        pub nonce: ByteArray<32>,
        pub index: ByteArray<32>,
    }
}

impl Wire for StoredDevice {
    const NAME: &'static str = "device file";
    const BYTES_MAX: usize = 512;
    const VERSIONED: bool = true;
    const SECRET: bool = true;
}

impl DeviceKeys {
    /// Fresh keys under a fresh id.
    ///
    /// # Errors
    /// [`CryptoError::Primitive`].
    pub fn generate(rng: &mut dyn CryptoRng) -> Result<Self, CryptoError> {
        let id = DeviceId::from_bytes(random_bytes(rng));
        let seal = private_key(&SecretKey::generate(rng))?;
        Ok(Self {
            id,
            sign: signing_key(&SecretKey::generate(rng)),
            seal,
            nonce: SecretKey::generate(rng),
            index: SecretKey::generate(rng),
        })
    }

    /// Fresh keys under a fresh id for a device whose own were copied: what lies at rest stays readable.
    ///
    /// # Errors
    /// [`CryptoError::Primitive`].
    pub fn renew(&self, rng: &mut dyn CryptoRng) -> Result<Self, CryptoError> {
        Ok(Self { index: self.index.duplicate(), ..Self::generate(rng)? })
    }

    /// The device file's bytes; as secret as everything that the device can read.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        wiped::<DEEP, _>(|| {
            let mut seal = [0; 32];
            seal.copy_from_slice(&self.seal.to_bytes());
            let stored = StoredDevice {
                version: lockstep_proto::version::VERSION,
                id: self.id,
                sign: ByteArray(self.sign.to_bytes()),
                seal: ByteArray(seal),
                nonce: ByteArray(*self.nonce.expose()),
                index: ByteArray(*self.index.expose()),
            };
            Zeroizing::new(stored.encode())
        })
    }

    /// Reads a device file.
    ///
    /// # Errors
    /// [`CryptoError::Codec`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CryptoError> {
        wiped::<DEEP, _>(|| {
            let stored = StoredDevice::decode(bytes)?;
            Ok(Self {
                id: stored.id,
                sign: signing_key(&SecretKey::from_bytes(&stored.sign.0)),
                seal: private_key(&SecretKey::from_bytes(&stored.seal.0))?,
                nonce: SecretKey::from_bytes(&stored.nonce.0),
                index: SecretKey::from_bytes(&stored.index.0),
            })
        })
    }

    /// The device's id.
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// Public signing key.
    pub fn sign_public(&self) -> Digest {
        Digest::from_bytes(self.sign.verifying_key().to_bytes())
    }

    /// Public X-Wing key.
    pub fn seal_public(&self) -> ByteArray<1216> {
        wiped::<DEEP, _>(|| {
            let mut out = [0; 1216];
            out.copy_from_slice(&XWing::sk_to_pk(&self.seal).to_bytes());
            ByteArray(out)
        })
    }

    /// Signs an encoding under a label.
    pub fn sign(&self, label: Label, bytes: Vec<u8>) -> Signed {
        sign_encoding(&self.sign, label, bytes)
    }

    pub(crate) fn prove(&self, input: &[u8]) -> Signature {
        sign(&self.sign, label::DEVICE_PROOF, input)
    }

    /// Signs a sign-in statement; its signature field is filled in.
    pub fn sign_statement(&self, origin: &str, mut statement: Statement) -> Statement {
        statement.signature = sign(&self.sign, label::LOGIN, &statement_input(origin, &statement));
        statement
    }

    /// Key that makes envelope nonces.
    pub(crate) fn nonce_key(&self) -> &SecretKey {
        &self.nonce
    }

    /// Key for what lies at rest on the device.
    pub fn index_key(&self) -> &SecretKey {
        &self.index
    }

    /// Opens a seal of the keyring key.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_seal(&self, context: &SealContext<'_>, seal: &DeviceSeal) -> Result<SecretKey, OpenError> {
        let encapsulated = Encapsulated::from_bytes(&seal.encapsulated.0).map_err(|_| OpenError)?;
        wiped::<DEEP, _>(|| {
            let plaintext =
                hpke::single_shot_open::<hpke::aead::ChaCha20Poly1305, hpke::kdf::HkdfSha256, XWing>(
                    &OpModeR::Base,
                    &self.seal,
                    &encapsulated,
                    &context.info(self.id),
                    &seal.ciphertext.0,
                    b"",
                )
                .map(Zeroizing::new)
                .map_err(|_| OpenError)?;
            SecretKey::from_slice(&plaintext).ok_or(OpenError)
        })
    }
}

/// What a seal of the keyring key is bound to.
#[derive(Debug)]
pub struct SealContext<'a> {
    /// The identity that seals.
    pub identity: &'a PublicKey,
    /// Account.
    pub account: AccountId,
    /// Keyring vault.
    pub vault: VaultId,
    /// Epoch of the key.
    pub epoch: Epoch,
}

impl SealContext<'_> {
    fn info(&self, device: DeviceId) -> Vec<u8> {
        encode(&(
            label::KEYRING_SEAL.as_str(),
            Digest::from_bytes(self.identity.to_bytes()),
            device,
            self.account,
            self.vault,
            self.epoch,
        ))
    }

    /// Seals the keyring key to a device.
    ///
    /// # Errors
    /// [`CryptoError::Peer`] if the device's public key is not valid.
    pub fn seal(
        &self,
        device: DeviceId,
        public: &ByteArray<1216>,
        key: &SecretKey,
        mut rng: &mut dyn CryptoRng,
    ) -> Result<DeviceSeal, CryptoError> {
        let peer = CryptoError::Peer { what: "device key" };
        // A seal to a key whose X25519 half is zero would rest on ML-KEM alone.
        if public.0.iter().skip(1184).all(|byte| *byte == 0) {
            return Err(peer);
        }
        let Ok(public) = SealKey::from_bytes(&public.0) else {
            return Err(peer);
        };
        let (encapsulated, ciphertext) = wiped::<DEEP, _>(|| {
            hpke::single_shot_seal_with_rng::<hpke::aead::ChaCha20Poly1305, hpke::kdf::HkdfSha256, XWing>(
                &OpModeS::Base,
                &public,
                &self.info(device),
                key.expose(),
                b"",
                &mut rng,
            )
        })
        .map_err(|_| CryptoError::Primitive { what: "HPKE" })?;
        let failed = CryptoError::Primitive { what: "HPKE" };
        let (Ok(encapsulated), Ok(ciphertext)) =
            (encapsulated.to_bytes().as_slice().try_into(), ciphertext.as_slice().try_into())
        else {
            return Err(failed);
        };
        Ok(DeviceSeal { device, encapsulated: ByteArray(encapsulated), ciphertext: ByteArray(ciphertext) })
    }
}

/// A recovery key's sign-in statement; its signature field is filled in.
pub fn sign_recovery_statement(
    key: &crate::recovery::RecoveryKey,
    origin: &str,
    mut statement: Statement,
) -> Statement {
    statement.signature = sign(&key.login_key(), label::LOGIN, &statement_input(origin, &statement));
    statement
}

/// Derives the device-name key from the keyring key.
pub(crate) fn name_key(keyring: &SecretKey) -> SecretKey {
    kdf::derive_key(keyring, label::DEVICE_NAME, kdf::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::from_seed([1; 32])
    }

    /// Everything of a device that can be compared.
    fn parts(device: &DeviceKeys) -> (DeviceId, Digest, ByteArray<1216>, [u8; 32], [u8; 32]) {
        let (nonce, index) = (*device.nonce_key().expose(), *device.index_key().expose());
        (device.id(), device.sign_public(), device.seal_public(), nonce, index)
    }

    #[test]
    fn a_device_file_holds_the_device() {
        let device = DeviceKeys::generate(&mut rng()).unwrap();
        let bytes = device.to_bytes();
        assert!(parts(&DeviceKeys::from_bytes(&bytes).unwrap()) == parts(&device));
        assert!(DeviceKeys::from_bytes(&bytes[1..]).is_err());
        let signed = device.sign(label::COMMIT, vec![1]);
        let public = PublicKey::from_bytes(device.sign_public().as_bytes()).unwrap();
        signed.verify("commit", label::COMMIT, &public).unwrap();
    }

    #[test]
    fn a_renewed_device_keeps_its_index_key_and_nothing_else() {
        let mut rng = rng();
        let device = DeviceKeys::generate(&mut rng).unwrap();
        let renewed = device.renew(&mut rng).unwrap();
        let (old, new) = (parts(&device), parts(&renewed));
        assert!(old.0 != new.0 && old.1 != new.1 && old.2 != new.2 && old.3 != new.3);
        assert_eq!(old.4, new.4);
    }

    #[test]
    fn a_seal_is_for_one_device_and_place() {
        let mut rng = rng();
        let device = DeviceKeys::generate(&mut rng).unwrap();
        let identity = PublicKey::from_bytes(device.sign_public().as_bytes()).unwrap();
        let other = DeviceKeys::generate(&mut rng).unwrap();
        let stranger = PublicKey::from_bytes(other.sign_public().as_bytes()).unwrap();
        let account = AccountId::from_bytes([1; 16]);
        let vault = VaultId::from_bytes([2; 16]);
        let context = |epoch| SealContext { identity: &identity, account, vault, epoch: Epoch::new(epoch) };
        let key = SecretKey::from_bytes(&[9; 32]);
        let seal = context(1).seal(device.id(), &device.seal_public(), &key, &mut rng).unwrap();
        assert_eq!(seal.device, device.id());
        assert_eq!(device.open_seal(&context(1), &seal).unwrap().expose(), key.expose());
        for wrong in [
            context(2),
            SealContext { identity: &stranger, ..context(1) },
            SealContext { account: AccountId::ZERO, ..context(1) },
            SealContext { vault: VaultId::ZERO, ..context(1) },
        ] {
            assert!(device.open_seal(&wrong, &seal).is_err(), "{wrong:?}");
        }
        let for_another = context(1).seal(other.id(), &device.seal_public(), &key, &mut rng).unwrap();
        assert!(device.open_seal(&context(1), &for_another).is_err());
        assert!(other.open_seal(&context(1), &seal).is_err());
    }

    #[test]
    fn nothing_is_sealed_to_a_key_whose_curve_half_is_zero() {
        let mut rng = rng();
        let device = DeviceKeys::generate(&mut rng).unwrap();
        let identity = PublicKey::from_bytes(device.sign_public().as_bytes()).unwrap();
        let context = SealContext {
            identity: &identity,
            account: AccountId::ZERO,
            vault: VaultId::ZERO,
            epoch: Epoch::new(1),
        };
        let mut public = device.seal_public();
        public.0[1184..].fill(0);
        let key = SecretKey::from_bytes(&[9; 32]);
        let result = context.seal(device.id(), &public, &key, &mut rng);
        assert!(matches!(result, Err(CryptoError::Peer { what: "device key" })));
        public.0[1215] = 1;
        context.seal(device.id(), &public, &key, &mut rng).unwrap();
    }
}
