//! Owned secret bytes: wiped on drop, not printed, not comparable, not serialisable.

use rand::rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A 32-byte symmetric key or seed.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// A fresh random key.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut key = Self([0; 32]);
        rng.fill_bytes(&mut key.0);
        key
    }

    /// Takes over 32 bytes; the caller wipes its own copy.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(*bytes)
    }

    /// Takes over a slice of exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes, for a primitive or for sealing.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// A second owner of the same key; explicit, because copies multiply what must be wiped.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0)
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey([redacted])")
    }
}

/// `N` random bytes that are not secret: salts, nonces, ids.
pub fn random_bytes<const N: usize>(rng: &mut dyn CryptoRng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let key = SecretKey::from_bytes(&[0x41; 32]);
        assert_eq!(format!("{key:?}"), "SecretKey([redacted])");
    }
}
