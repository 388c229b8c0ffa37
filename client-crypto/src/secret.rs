//! Owned secret bytes: wiped on drop, not printed, not comparable, not serialisable.
//!
//! Moving a value leaves its old place as it was, and so does a dependency that works on the stack. So keys lie on the
//! heap, where moving the owner moves no byte of them, and whatever computes with them runs in [`wiped`], which
//! overwrites the stack that it used.

use rand::rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Stack that symmetric primitives reach, in bytes, with room to spare.
pub(crate) const SHALLOW: usize = 16 * 1024;
/// Stack that curves, lattices and Argon2id reach, in bytes, with room to spare.
pub(crate) const DEEP: usize = 192 * 1024;

/// Runs `work`, then overwrites `N` bytes of the stack below its caller. What `work` gives back must hold its own secrets
/// on the heap.
#[inline(never)]
pub(crate) fn wiped<const N: usize, T>(work: impl FnOnce() -> T) -> T {
    let done = run(work);
    overwrite::<N>();
    done
}

#[inline(never)]
fn run<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn overwrite<const N: usize>() {
    std::hint::black_box(&mut [0_u8; N]);
}

/// A 32-byte symmetric key or seed.
pub struct SecretKey(Box<[u8; 32]>);

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for SecretKey {}

impl SecretKey {
    /// A fresh random key.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut key = Self::zero();
        rng.fill_bytes(key.0.as_mut_slice());
        key
    }

    /// Takes over 32 bytes; the caller wipes its own copy.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut key = Self::zero();
        key.0.copy_from_slice(bytes);
        key
    }

    /// Takes over a slice of exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_bytes)
    }

    /// A place for a key that is worked out there.
    pub(crate) fn zero() -> Self {
        Self(Box::new([0; 32]))
    }

    /// The bytes, to be filled.
    pub(crate) fn expose_mut(&mut self) -> &mut [u8; 32] {
        &mut self.0
    }

    /// The bytes, for a primitive or for sealing.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// A second owner of the same key; explicit, because copies multiply what must be wiped.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::from_bytes(&self.0)
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

    #[test]
    fn keys_and_random_bytes_are_what_the_generator_gives() {
        use rand::{Rng as _, SeedableRng as _};
        let generator = || rand::rngs::ChaCha20Rng::from_seed([1; 32]);
        let (mut ours, mut plain) = (generator(), generator());
        let mut expected = [0; 32];
        for _ in 0..2 {
            plain.fill_bytes(&mut expected);
            assert_eq!(SecretKey::generate(&mut ours).expose(), &expected);
            plain.fill_bytes(&mut expected);
            assert_eq!(random_bytes::<32>(&mut ours), expected);
        }
    }

    #[test]
    fn a_key_is_thirty_two_bytes_and_a_duplicate_has_the_same() {
        let key = SecretKey::from_slice(&[3; 32]).unwrap();
        assert_eq!((key.expose(), key.duplicate().expose()), (&[3; 32], &[3; 32]));
        assert!(SecretKey::from_slice(&[3; 31]).is_none() && SecretKey::from_slice(&[3; 33]).is_none());
    }
}
