//! One ciphertext, one tag, two keys. XChaCha20-Poly1305 does not commit to its key: Poly1305 is a polynomial over a field,
//! and who knows both keys solves for one block of the ciphertext so that both give the same tag (Dodis, Grubbs, Ristenpart,
//! Woodage, CRYPTO 2018: "invisible salamanders"; Len, Grubbs, Ristenpart, USENIX Security 2021: "partitioning oracles").
//!
//! With `r` and `s` of a key's one-time key (RFC 8439, 2.5), the tag is `(sum of block_j * r^(n-j) mod p) + s mod 2^128`,
//! where every block is 16 bytes, little-endian, with a one above them, and the last one is multiplied by `r`.

use chacha20::XChaCha20;
use chacha20::cipher::{KeyIvInit as _, StreamCipher as _};
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use num_bigint::BigUint;

/// What one reader opens with.
pub(crate) struct Reader {
    pub(crate) key: [u8; 32],
    pub(crate) nonce: [u8; 24],
    pub(crate) associated: Vec<u8>,
}

impl Reader {
    /// The AEAD alone, as anybody would use it.
    pub(crate) fn open(&self, ciphertext: &[u8]) -> Option<Vec<u8>> {
        let payload = Payload { msg: ciphertext, aad: &self.associated };
        XChaCha20Poly1305::new(&self.key.into()).decrypt(&self.nonce.into(), payload).ok()
    }

    /// `r` and `s`: the first 32 bytes of the key stream.
    fn one_time_key(&self) -> (BigUint, BigUint) {
        let mut bytes = [0; 32];
        XChaCha20::new(&self.key.into(), &self.nonce.into()).apply_keystream(&mut bytes);
        let (r, s) = bytes.split_at_mut(16);
        for place in [3, 7, 11, 15] {
            r[place] &= 0x0f;
        }
        for place in [4, 8, 12] {
            r[place] &= 0xfc;
        }
        (BigUint::from_bytes_le(r), BigUint::from_bytes_le(s))
    }

    /// What Poly1305 reads: associated data and ciphertext, padded to whole blocks, and their lengths.
    fn blocks(&self, ciphertext: &[u8]) -> Vec<BigUint> {
        let mut bytes = self.associated.clone();
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        bytes.extend_from_slice(ciphertext);
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        bytes.extend_from_slice(&(self.associated.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&(ciphertext.len() as u64).to_le_bytes());
        bytes.chunks(16).map(|block| BigUint::from_bytes_le(block) + two_to(128)).collect()
    }

    /// The polynomial at `r`.
    fn polynomial(&self, ciphertext: &[u8]) -> BigUint {
        let (r, _) = self.one_time_key();
        let blocks = self.blocks(ciphertext);
        blocks.iter().fold(BigUint::ZERO, |sum, block| (sum + block) * &r % prime())
    }

    fn tag(&self, ciphertext: &[u8]) -> BigUint {
        (self.polynomial(ciphertext) + self.one_time_key().1) % two_to(128)
    }
}

fn two_to(power: u32) -> BigUint {
    BigUint::from(1_u8) << power
}

/// 2^130 - 5.
fn prime() -> BigUint {
    two_to(130) - BigUint::from(5_u8)
}

/// `left - right` in the field.
fn minus(left: &BigUint, right: &BigUint) -> BigUint {
    (left + prime() - right % prime()) % prime()
}

/// Puts the 16 bytes into block `free` of a ciphertext (its tag is not part of it) that make both readers' tags one; gives it
/// with that tag. None if this ciphertext has no such bytes: about one in five has.
pub(crate) fn collide(readers: [&Reader; 2], ciphertext: &[u8], free: usize) -> Option<Vec<u8>> {
    let mut ciphertext = ciphertext.to_vec();
    let place = free * 16..free * 16 + 16;
    ciphertext[place.clone()].fill(0);
    // The block is multiplied by r as often as there are blocks from it on, that of the lengths included.
    let power = BigUint::from(ciphertext.len().div_ceil(16) - free + 1);
    let parts = readers.map(|reader| {
        let (r, s) = reader.one_time_key();
        let factor = r.modpow(&power, &prime());
        let without = minus(&reader.polynomial(&ciphertext), &(two_to(128) * &factor));
        (factor, without + s)
    });
    let [(factor, rest), (other_factor, other_rest)] = &parts;
    // x * factor + rest = x * other_factor + other_rest; the inverse is the power p - 2.
    let inverse = minus(factor, other_factor).modpow(&(prime() - BigUint::from(2_u8)), &prime());
    let block = minus(other_rest, rest) * inverse % prime();
    if block < two_to(128) || block >= two_to(129) {
        return None;
    }
    let mut bytes = (block - two_to(128)).to_bytes_le();
    bytes.resize(16, 0);
    ciphertext[place].copy_from_slice(&bytes);
    // Equal in the field, and yet not where one sum passed the prime before s was added and the other did not.
    let tag = readers[0].tag(&ciphertext);
    if tag != readers[1].tag(&ciphertext) {
        return None;
    }
    let mut tag = tag.to_bytes_le();
    tag.resize(16, 0);
    ciphertext.extend_from_slice(&tag);
    Some(ciphertext)
}

/// Tries ciphertexts that `vary` makes of a number, until one has a solution.
pub(crate) fn find(readers: [&Reader; 2], free: usize, vary: impl Fn(u8) -> Vec<u8>) -> Vec<u8> {
    (0..=u8::MAX)
        .find_map(|number| collide(readers, &vary(number), free))
        .expect("one in five has a solution")
}
