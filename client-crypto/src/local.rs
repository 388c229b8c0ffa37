//! What lies at rest on a device beside envelopes: index tags and sealed rows, under the device's
//! index key (ADR 0004 says what a thief gets).

use crate::error::OpenError;
use crate::kdf;
use crate::secret::{SHALLOW, SecretKey, random_bytes, wiped};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use lockstep_proto::label;
use rand::rand_core::CryptoRng;
use zeroize::Zeroizing;

/// Seals rows and makes tags for a device's own database.
pub struct LocalKeys {
    tag: SecretKey,
    row: Box<XChaCha20Poly1305>,
}

impl std::fmt::Debug for LocalKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LocalKeys([redacted])")
    }
}

impl LocalKeys {
    /// From the device's index key.
    pub fn new(index_key: &SecretKey) -> Self {
        let row = kdf::derive_key(index_key, label::LOCAL_ROW, kdf::NONE);
        Self {
            tag: kdf::derive_key(index_key, label::LOCAL_INDEX_TAG, kdf::NONE),
            row: wiped::<SHALLOW, _>(|| Box::new(XChaCha20Poly1305::new(row.expose().into()))),
        }
    }

    /// A 16-byte tag by which equal values of one kind are found again.
    pub fn tag(&self, kind: &str, value: &[u8]) -> [u8; 16] {
        wiped::<SHALLOW, _>(|| {
            let mut hasher = blake3::Hasher::new_keyed(self.tag.expose());
            let kind_len = u32::try_from(kind.len()).unwrap_or(u32::MAX);
            hasher.update(&kind_len.to_be_bytes()).update(kind.as_bytes()).update(value);
            let mut out = [0; 16];
            hasher.finalize_xof().fill(&mut out);
            out
        })
    }

    /// Seals a row for its place (table and key), so that rows can not be swapped.
    pub fn seal_row(&self, place: &[u8], row: &[u8], rng: &mut dyn CryptoRng) -> Vec<u8> {
        let nonce: [u8; 24] = random_bytes(rng);
        let payload = Payload { msg: row, aad: place };
        let sealed = wiped::<SHALLOW, _>(|| self.row.encrypt((&nonce).into(), payload).unwrap_or_default());
        let mut out = Vec::with_capacity(sealed.len().saturating_add(24));
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        out
    }

    /// Opens a row of a place.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_row(&self, place: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (nonce, sealed) = sealed.split_at_checked(24).ok_or(OpenError)?;
        let nonce: [u8; 24] = nonce.try_into().map_err(|_| OpenError)?;
        let payload = Payload { msg: sealed, aad: place };
        wiped::<SHALLOW, _>(|| {
            self.row.decrypt((&nonce).into(), payload).map(Zeroizing::new).map_err(|_| OpenError)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn rows_belong_to_their_place() {
        let keys = LocalKeys::new(&SecretKey::from_bytes(&[1; 32]));
        let mut rng = rand::rngs::ChaCha20Rng::from_seed([1; 32]);
        let sealed = keys.seal_row(b"stat/1", b"row", &mut rng);
        assert_eq!(&**keys.open_row(b"stat/1", &sealed).unwrap(), b"row");
        assert!(keys.open_row(b"stat/2", &sealed).is_err());
        assert!(keys.open_row(b"stat/1", &sealed[..20]).is_err());
        assert_ne!(keys.tag("type", b"a"), keys.tag("path", b"a"));
    }
}
