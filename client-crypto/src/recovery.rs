//! The recovery key: 256 random bits that stand in for the passphrase (PROTOCOL.md section 2.3).

use crate::device::signing_key;
use crate::kdf;
use crate::secret::{SHALLOW, SecretKey, wiped};
use ed25519_dalek::SigningKey;
use lockstep_proto::cbor::ByteArray;
use lockstep_proto::hash::Digest;
use lockstep_proto::id::AccountId;
use lockstep_proto::{label, recovery};
use rand::rand_core::CryptoRng;
use zeroize::Zeroizing;

/// A recovery key. Held by the user on paper; wiped here as soon as it was used.
#[derive(Debug)]
pub struct RecoveryKey(SecretKey);

impl RecoveryKey {
    /// A fresh one.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self(SecretKey::generate(rng))
    }

    /// Reads its text.
    ///
    /// # Errors
    /// Names the mistyped place.
    pub fn parse(text: &str) -> Result<Self, recovery::RecoveryTextError> {
        wiped::<SHALLOW, _>(|| {
            let bytes = Zeroizing::new(recovery::parse_recovery_key(text)?);
            Ok(Self(SecretKey::from_bytes(&bytes)))
        })
    }

    /// Its text, in groups of four.
    pub fn to_text(&self) -> Zeroizing<String> {
        wiped::<SHALLOW, _>(|| Zeroizing::new(recovery::recovery_key_text(self.0.expose())))
    }

    /// The key that signs a recovery sign-in.
    pub fn login_key(&self) -> Box<SigningKey> {
        signing_key(&kdf::derive_key(&self.0, label::RECOVERY_LOGIN, kdf::NONE))
    }

    /// Public part of [`Self::login_key`].
    pub fn login_public(&self) -> Digest {
        Digest::from_bytes(self.login_key().verifying_key().to_bytes())
    }

    /// The key-encryption key of the recovery wrap.
    pub(crate) fn kek(&self, account: AccountId, salt: &ByteArray<16>) -> SecretKey {
        let info = lockstep_proto::cbor::encode(&(label::RECOVERY_KEK.as_str(), account, salt));
        kdf::expand_key(&self.0, &info)
    }
}
