//! `KDF(k, [label, a...], n)`: HKDF-SHA-256 (RFC 5869) with CBOR info (PROTOCOL.md section 1.2).

use crate::secret::{SHALLOW, SecretKey, wiped};
use lockstep_proto::cbor::encode;
use lockstep_proto::label::Label;
use serde::Serialize;
use zeroize::Zeroizing;

/// Derives `N` bytes (at most 8,160). `context` is the rest of the info array as a tuple or array.
pub fn derive<const N: usize, T: Serialize>(
    key: &SecretKey,
    label: Label,
    context: &[T],
) -> Zeroizing<[u8; N]> {
    let info = InfoArray { label: label.as_str(), context };
    expand(key, &encode(&info))
}

/// Derives a key.
pub fn derive_key<T: Serialize>(key: &SecretKey, label: Label, context: &[T]) -> SecretKey {
    expand_key(key, &encode(&InfoArray { label: label.as_str(), context }))
}

/// Derives a key under an info that is already encoded and begins with its label.
pub(crate) fn expand_key(key: &SecretKey, info: &[u8]) -> SecretKey {
    let mut okm = SecretKey::zero();
    fill(key, info, okm.expose_mut());
    okm
}

/// Derives `N` bytes under an info that is already encoded and begins with its label.
pub fn expand<const N: usize>(key: &SecretKey, info: &[u8]) -> Zeroizing<[u8; N]> {
    let mut okm = Zeroizing::new([0_u8; N]);
    fill(key, info, okm.as_mut());
    okm
}

/// Derives as many bytes as there is room for, where they are wanted.
pub(crate) fn fill(key: &SecretKey, info: &[u8], okm: &mut [u8]) {
    wiped::<SHALLOW, _>(|| {
        let expanded = hkdf::Hkdf::<sha2::Sha256>::new(None, key.expose()).expand(info, okm);
        debug_assert!(expanded.is_ok(), "the room is far below 255 blocks");
    });
}

struct InfoArray<'a, T> {
    label: &'static str,
    context: &'a [T],
}

impl<T: Serialize> Serialize for InfoArray<'_, T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeTuple as _;
        let mut tuple = serializer.serialize_tuple(self.context.len().saturating_add(1))?;
        tuple.serialize_element(self.label)?;
        for item in self.context {
            tuple.serialize_element(item)?;
        }
        tuple.end()
    }
}

/// No context beyond the label.
pub const NONE: &[u8] = &[];

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_proto::label;

    #[test]
    fn hkdf_is_rfc_5869_with_cbor_info() {
        // RFC 5869 test case 3 has an empty info and no salt; here the IKM is 22 x 0x0b, ours is 32 bytes,
        // so this locks the composition: info = CBOR [label].
        let key = SecretKey::from_bytes(&[0x0b; 32]);
        let ours: Zeroizing<[u8; 32]> = derive(&key, label::IDENTITY_KEY, NONE);
        let mut expected = [0; 32];
        let mut info = vec![0x81, 0x78, 24];
        info.extend_from_slice(b"lockstep/v1/identity-key");
        hkdf::Hkdf::<sha2::Sha256>::new(None, &[0x0b; 32]).expand(&info, &mut expected).unwrap();
        assert_eq!(*ours, expected);
        assert_ne!(*ours, *derive::<32, u8>(&key, label::KEYRING_WRAP_KEY, NONE));
    }
}
