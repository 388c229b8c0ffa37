//! `Seal` and `Open`: the one AEAD construction for records and key wraps (PROTOCOL.md section 1.2).
//!
//! A fresh key and a commitment to it are derived for every header, so that a ciphertext opens under
//! one key only (no partitioning oracle), and the commitment is compared before anything is decrypted.

use crate::error::OpenError;
use crate::kdf;
use crate::secret::{SHALLOW, SecretKey, wiped};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use lockstep_proto::cbor::encode;
use lockstep_proto::hash::Digest;
use lockstep_proto::label::Label;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Length that sealing adds, in bytes.
pub const TAG_BYTES: usize = 16;

/// The AEAD's key, and the commitment to it.
fn derive(key: &SecretKey, label: Label, header: &[u8]) -> (SecretKey, Digest) {
    let info = encode(&(label.as_str(), Digest::of(label, header)));
    let mut okm = Zeroizing::new([0; 64]);
    kdf::fill(key, &info, okm.as_mut());
    let (aead_key, commitment) = okm.split_at(32);
    let mut aead = SecretKey::zero();
    aead.expose_mut().copy_from_slice(aead_key);
    (aead, Digest::from_slice(commitment).unwrap_or(Digest::ZERO))
}

/// Seals `plaintext`; `header` is the associated data and holds `nonce`.
pub fn seal(
    key: &SecretKey,
    label: Label,
    header: &[u8],
    nonce: &[u8; 24],
    plaintext: &[u8],
) -> (Digest, Vec<u8>) {
    wiped::<SHALLOW, _>(|| {
        let (aead, commitment) = derive(key, label, header);
        let payload = Payload { msg: plaintext, aad: header };
        let cipher = XChaCha20Poly1305::new(aead.expose().into());
        // The only failure is a plaintext of more than 256 GiB.
        let ciphertext = cipher.encrypt(nonce.into(), payload).unwrap_or_default();
        (commitment, ciphertext)
    })
}

/// Opens what [`seal`] sealed.
///
/// # Errors
/// [`OpenError`], the same for a wrong commitment and a wrong tag.
pub fn open(
    key: &SecretKey,
    label: Label,
    header: &[u8],
    nonce: &[u8; 24],
    commitment: &Digest,
    ciphertext: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    wiped::<SHALLOW, _>(|| {
        let (aead, expected) = derive(key, label, header);
        if !bool::from(expected.as_bytes().ct_eq(commitment.as_bytes())) {
            return Err(OpenError);
        }
        let payload = Payload { msg: ciphertext, aad: header };
        let cipher = XChaCha20Poly1305::new(aead.expose().into());
        cipher.decrypt(nonce.into(), payload).map(Zeroizing::new).map_err(|_| OpenError)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_proto::label;

    #[test]
    fn every_input_is_bound() {
        let key = SecretKey::from_bytes(&[1; 32]);
        let nonce = [2; 24];
        let (commitment, sealed) = seal(&key, label::ROOT_WRAP, b"header", &nonce, b"secret");
        assert_eq!(sealed.len(), 6 + TAG_BYTES);
        let try_open =
            |key: &SecretKey, label, header: &[u8], nonce: &[u8; 24], commitment: &Digest, sealed: &[u8]| {
                open(key, label, header, nonce, commitment, sealed).map(|plain| plain.to_vec())
            };
        assert_eq!(
            try_open(&key, label::ROOT_WRAP, b"header", &nonce, &commitment, &sealed),
            Ok(b"secret".to_vec())
        );
        let other = SecretKey::from_bytes(&[9; 32]);
        assert!(try_open(&other, label::ROOT_WRAP, b"header", &nonce, &commitment, &sealed).is_err());
        assert!(try_open(&key, label::KEYRING_WRAP, b"header", &nonce, &commitment, &sealed).is_err());
        assert!(try_open(&key, label::ROOT_WRAP, b"Header", &nonce, &commitment, &sealed).is_err());
        assert!(try_open(&key, label::ROOT_WRAP, b"header", &[3; 24], &commitment, &sealed).is_err());
        assert!(try_open(&key, label::ROOT_WRAP, b"header", &nonce, &Digest::ZERO, &sealed).is_err());
        for place in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[place] ^= 1;
            assert!(try_open(&key, label::ROOT_WRAP, b"header", &nonce, &commitment, &damaged).is_err());
        }
    }

    #[test]
    fn a_ciphertext_that_another_key_opens_is_refused_at_the_commitment() {
        // The AEAD alone would accept this: it was made under the key that the second header derives.
        // The commitment belongs to the first key, and is compared first.
        let (first, second) = (SecretKey::from_bytes(&[1; 32]), SecretKey::from_bytes(&[2; 32]));
        let (commitment, _) = seal(&first, label::ENVELOPE_HEADER, b"h", &[0; 24], b"x");
        let (_, sealed) = seal(&second, label::ENVELOPE_HEADER, b"h", &[0; 24], b"x");
        assert!(open(&second, label::ENVELOPE_HEADER, b"h", &[0; 24], &commitment, &sealed).is_err());
    }
}
