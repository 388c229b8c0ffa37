//! Passphrases: normalisation, the key-encryption key, and generated ones (PROTOCOL.md section 2.1).

use crate::error::CryptoError;
use crate::secret::{DEEP, SHALLOW, SecretKey, wiped};
use lockstep_proto::cbor::{ByteArray, encode};
use lockstep_proto::hash::Digest;
use lockstep_proto::id::AccountId;
use lockstep_proto::{key_header, label};
use rand::rand_core::CryptoRng;
use unicode_normalization::UnicodeNormalization;
use zeroize::{Zeroize, Zeroizing};

/// Shortest passphrase that is taken at sign-up and recovery, in characters.
pub const CHARS_MIN: usize = 10;
/// Longest passphrase, in bytes after normalisation.
pub const BYTES_MAX: usize = 1024;
/// Words of a generated passphrase: 7 of 7,776, that is 90 bits.
pub const WORDS: usize = 7;
/// Profile that new wraps use.
pub const DEFAULT_PROFILE: u8 = 1;

/// A passphrase, NFKC-normalised UTF-8. Wiped on drop.
pub struct Passphrase(Zeroizing<String>);

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase([redacted])")
    }
}

impl Passphrase {
    /// Normalises a typed passphrase.
    ///
    /// # Errors
    /// [`CryptoError::Misuse`] if it is empty or too long.
    pub fn new(typed: &str) -> Result<Self, CryptoError> {
        let normalised = wiped::<SHALLOW, _>(|| {
            // Room for all of it from the start: a text that grows leaves copies behind.
            let room = typed.nfkc().map(char::len_utf8).sum();
            let mut normalised = Zeroizing::new(String::with_capacity(room));
            normalised.extend(typed.nfkc());
            normalised
        });
        if normalised.is_empty() {
            return Err(CryptoError::Misuse { what: "the passphrase is empty" });
        }
        if normalised.len() > BYTES_MAX {
            return Err(CryptoError::Misuse { what: "the passphrase is longer than 1,024 bytes" });
        }
        Ok(Self(normalised))
    }

    /// Whether it is long enough to protect a new account.
    ///
    /// # Errors
    /// [`CryptoError::Misuse`] if not.
    pub fn check_strength(&self) -> Result<(), CryptoError> {
        if self.0.chars().count() < CHARS_MIN {
            return Err(CryptoError::Misuse { what: "the passphrase has fewer than 10 characters" });
        }
        Ok(())
    }

    /// Seven random words of the EFF's large list, separated by spaces.
    pub fn generate(rng: &mut dyn CryptoRng) -> Zeroizing<String> {
        let list = &diceware_wordlists::EFF_LONG_WORDLIST;
        let mut text = Zeroizing::new(String::with_capacity(80));
        let mut words = 0;
        while words < WORDS {
            // Rejection sampling over 16 bits: 65,536 is no multiple of 7,776.
            let mut bytes = [0; 2];
            rng.fill_bytes(&mut bytes);
            let number = usize::from(u16::from_le_bytes(bytes));
            if number >= 8 * list.len() {
                continue;
            }
            if let Some(word) = list.get(number % list.len()) {
                if words > 0 {
                    text.push(' ');
                }
                text.push_str(word);
                words += 1;
            }
        }
        text
    }

    /// The bytes, for OPAQUE.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The key-encryption key: Argon2id (RFC 9106) under a profile of the closed list.
    ///
    /// # Errors
    /// [`CryptoError::Misuse`] for a profile that is not on the list, before any work is done.
    pub fn derive_kek(
        &self,
        account: AccountId,
        profile: u8,
        salt: &ByteArray<16>,
    ) -> Result<SecretKey, CryptoError> {
        let (_, memory_kib, passes, lanes) = key_header::PROFILES
            .iter()
            .find(|(known, ..)| *known == profile)
            .ok_or(CryptoError::Misuse { what: "the key-derivation profile is not on the closed list" })?;
        let salt = Digest::of(label::KEK_SALT, &encode(&(account, salt))).truncate16();
        wiped::<DEEP, _>(|| {
            let out: Zeroizing<[u8; 32]> = argon2id(self.0.as_bytes(), &salt, *memory_kib, *passes, *lanes)?;
            Ok(SecretKey::from_bytes(&out))
        })
    }
}

/// Argon2id v1.3 whose memory is wiped.
pub(crate) fn argon2id<const N: usize>(
    password: &[u8],
    salt: &[u8; 16],
    memory_kib: u32,
    passes: u32,
    lanes: u32,
) -> Result<Zeroizing<[u8; N]>, CryptoError> {
    let failed = |_| CryptoError::Primitive { what: "Argon2id" };
    let params = argon2::Params::new(memory_kib, passes, lanes, Some(N)).map_err(failed)?;
    let mut blocks = vec![argon2::Block::default(); params.block_count()];
    let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let mut out = Zeroizing::new([0_u8; N]);
    let result = argon.hash_password_into_with_memory(password, salt, out.as_mut(), &mut blocks[..]);
    blocks.iter_mut().for_each(Zeroize::zeroize);
    result.map_err(failed)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn composed_and_decomposed_are_one_passphrase() {
        let composed = Passphrase::new("caf\u{e9} \u{fb01}ne").unwrap();
        let decomposed = Passphrase::new("cafe\u{301} fine").unwrap();
        assert_eq!(composed.bytes(), "caf\u{e9} fine".as_bytes());
        assert_eq!(composed.bytes(), decomposed.bytes());
        assert!(Passphrase::new("").is_err());
        assert!(Passphrase::new("short").unwrap().check_strength().is_err());
    }

    #[test]
    fn lengths_are_counted_in_characters_and_limited_in_bytes() {
        let strength = |typed: &str| Passphrase::new(typed).unwrap().check_strength();
        assert!(strength("123456789").is_err() && strength("\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}").is_err());
        for long_enough in
            ["1234567890", "12345678901", "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}"]
        {
            strength(long_enough).unwrap();
        }
        assert!(Passphrase::new(&"a".repeat(1024)).is_ok() && Passphrase::new(&"a".repeat(1025)).is_err());
        // One character of three bytes that normalises to one of 33: counted after normalisation.
        assert!(
            Passphrase::new(&"\u{fdfa}".repeat(31)).is_ok()
                && Passphrase::new(&"\u{fdfa}".repeat(32)).is_err()
        );
    }

    /// Gives out the 16-bit numbers of a list, and no other.
    struct Numbers(std::vec::IntoIter<u16>);

    impl rand::rand_core::TryRng for Numbers {
        type Error = std::convert::Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            unreachable!("words are drawn by two bytes")
        }

        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            unreachable!("words are drawn by two bytes")
        }

        fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
            out.copy_from_slice(&self.0.next().unwrap().to_le_bytes());
            Ok(())
        }
    }

    impl rand::rand_core::TryCryptoRng for Numbers {}

    #[test]
    fn every_word_is_as_likely_as_every_other() {
        let list = &diceware_wordlists::EFF_LONG_WORDLIST;
        // 62,208 = 8 * 7,776: what is not below is drawn again.
        let drawn = vec![0, 7775, 7776, 62_207, 62_208, 65_535, 8000, 31_104, 1];
        let words = [0, 7775, 0, 7775, 224, 0, 1].map(|place| list[place]);
        let mut numbers = Numbers(drawn.into_iter());
        assert_eq!(*Passphrase::generate(&mut numbers), words.join(" "));
        assert_eq!(numbers.0.next(), None);
    }

    #[test]
    fn generated_passphrases_have_seven_words() {
        let mut rng = rand::rngs::ChaCha20Rng::from_seed([1; 32]);
        let first = Passphrase::generate(&mut rng);
        assert_eq!(first.split(' ').count(), WORDS);
        assert_ne!(*first, *Passphrase::generate(&mut rng));
    }

    #[test]
    fn unknown_profiles_are_refused_before_any_work() {
        let passphrase = Passphrase::new("correct horse battery").unwrap();
        for profile in [0, 3, 255] {
            let result = passphrase.derive_kek(AccountId::ZERO, profile, &ByteArray([0; 16]));
            assert!(matches!(result, Err(CryptoError::Misuse { .. })), "{profile}");
        }
    }

    #[test]
    fn salt_depends_on_the_account() {
        let passphrase = Passphrase::new("correct horse battery").unwrap();
        let kek = |account: u8| {
            passphrase.derive_kek(AccountId::from_bytes([account; 16]), 1, &ByteArray([7; 16])).unwrap()
        };
        assert_eq!(kek(1).expose(), kek(1).expose());
        assert_ne!(kek(1).expose(), kek(2).expose());
    }
}
