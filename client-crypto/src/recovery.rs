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

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_key_is_the_one_that_its_text_says() {
        let mut rng = rand::rngs::ChaCha20Rng::from_seed([1; 32]);
        let key = RecoveryKey::generate(&mut rng);
        assert_eq!(*key.to_text(), recovery::recovery_key_text(key.0.expose()));
        let read = RecoveryKey::parse(&key.to_text()).unwrap();
        assert_eq!((read.0.expose(), read.login_public()), (key.0.expose(), key.login_public()));
        assert_eq!(key.login_public().as_bytes(), &key.login_key().verifying_key().to_bytes());
        assert!(RecoveryKey::parse("lsrk 1").is_err());
        let other = RecoveryKey::generate(&mut rng);
        assert_ne!(*other.to_text(), *key.to_text());
        assert_ne!(other.login_public(), key.login_public());
    }

    #[test]
    fn a_key_encryption_key_is_for_one_account_and_salt() {
        let key = RecoveryKey(SecretKey::from_bytes(&[1; 32]));
        let kek =
            |account, salt| *key.kek(AccountId::from_bytes([account; 16]), &ByteArray([salt; 16])).expose();
        assert_eq!(kek(1, 1), kek(1, 1));
        assert!(kek(1, 1) != kek(2, 1) && kek(1, 1) != kek(1, 2));
    }
}
