//! Strict Ed25519 verification and the `signed` pair of PROTOCOL.md sections 1.1 and 1.2.

use crate::cbor::{ByteArray, Bytes, Wire, encode};
use crate::hash::Digest;
use crate::label::Label;
use crate::wire_array;

/// An Ed25519 signature, 64 bytes.
pub type Signature = ByteArray<64>;

/// The signature does not verify; one variant, on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature on {what} does not verify")]
pub struct SignatureError {
    /// What was signed.
    pub what: &'static str,
}

wire_array! {
    /// A structure's exact encoding and the signature over it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Signed {
        /// The encoding.
        pub bytes: Bytes,
        /// Ed25519 over `signing_input(label, bytes)`.
        pub signature: Signature,
    }
}

impl Wire for Signed {
    const NAME: &'static str = "signed structure";
    const BYTES_MAX: usize = crate::limits::KEY_HEADER_BYTES_MAX + 128;
}

impl Signed {
    /// Digest of the structure, without its signature.
    pub fn digest(&self, label: Label) -> Digest {
        Digest::of(label, &self.bytes.0)
    }

    /// Verifies strictly.
    ///
    /// # Errors
    /// [`SignatureError`], which does not say more.
    pub fn verify(&self, what: &'static str, label: Label, key: &PublicKey) -> Result<(), SignatureError> {
        key.verify(what, label, &self.bytes.0, &self.signature)
    }
}

/// What is signed: CBOR `[label, H(label, bytes)]`.
pub fn signing_input(label: Label, bytes: &[u8]) -> Vec<u8> {
    encode(&(label.as_str(), Digest::of(label, bytes)))
}

/// An Ed25519 public key in canonical encoding, not of small order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(ed25519_dalek::VerifyingKey);

impl PublicKey {
    /// Parses 32 bytes; refuses what is not canonical, not on the curve or of small order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        if !is_canonical_field_element(bytes) {
            return None;
        }
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).ok()?;
        (!key.is_weak()).then_some(Self(key))
    }

    /// The 32 bytes.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Verifies a signature over `bytes` under `label`, strictly.
    ///
    /// # Errors
    /// [`SignatureError`], which does not say more.
    pub fn verify(
        &self,
        what: &'static str,
        label: Label,
        bytes: &[u8],
        signature: &Signature,
    ) -> Result<(), SignatureError> {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        self.0.verify_strict(&signing_input(label, bytes), &signature).map_err(|_| SignatureError { what })
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({})", Digest::from_bytes(self.to_bytes()))
    }
}

/// Whether the y coordinate is below 2^255 - 19.
fn is_canonical_field_element(bytes: &[u8; 32]) -> bool {
    let [low, middle @ .., high] = bytes;
    !(high & 0x7f == 0x7f && middle.iter().all(|byte| *byte == 0xff) && *low >= 0xed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};

    #[test]
    fn labels_and_bytes_are_bound() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = PublicKey::from_bytes(&key.verifying_key().to_bytes()).unwrap();
        let signature = ByteArray(key.sign(&signing_input(crate::label::COMMIT, b"x")).to_bytes());
        assert!(public.verify("commit", crate::label::COMMIT, b"x", &signature).is_ok());
        assert!(public.verify("commit", crate::label::COMMIT, b"y", &signature).is_err());
        assert!(public.verify("commit", crate::label::LOGIN, b"x", &signature).is_err());
    }

    #[test]
    fn weak_and_non_canonical_keys_are_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert!(PublicKey::from_bytes(&identity).is_none(), "small order");
        assert!(PublicKey::from_bytes(&[0; 32]).is_none(), "small order");
        let mut non_canonical = [0xff; 32];
        non_canonical[0] = 0xee;
        non_canonical[31] = 0x7f;
        assert!(PublicKey::from_bytes(&non_canonical).is_none(), "y = p + 1");
        for low in 0xed..=0xff {
            non_canonical[0] = low;
            assert!(PublicKey::from_bytes(&non_canonical).is_none());
        }
    }

    #[test]
    fn only_what_is_p_or_more_is_no_field_element() {
        let element = |low, middle, high| {
            let mut bytes = [middle; 32];
            (bytes[0], bytes[31]) = (low, high);
            bytes
        };
        for (low, middle, high) in
            [(0xec, 0xff, 0x7f), (0xec, 0xff, 0xff), (0xff, 0xff, 0x7e), (0xff, 0xff, 0), (0xff, 0xfe, 0x7f)]
        {
            assert!(is_canonical_field_element(&element(low, middle, high)), "{low:x} {middle:x} {high:x}");
        }
        for (low, high) in [(0xed, 0x7f), (0xff, 0x7f), (0xed, 0xff), (0xff, 0xff)] {
            assert!(!is_canonical_field_element(&element(low, 0xff, high)), "{low:x} {high:x}");
        }
        let bytes = SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes();
        assert_eq!(PublicKey::from_bytes(&bytes).unwrap().to_bytes(), bytes);
    }

    #[test]
    fn the_longest_signed_structure_is_a_key_header() {
        assert_eq!(Signed::BYTES_MAX, 256 * 1024 + 128);
    }
}
