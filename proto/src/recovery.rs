//! Text forms of the recovery key and of a kit's checkpoint, and fingerprints
//! (PROTOCOL.md section 2.3).

use crate::cbor::{CodecError, Wire};
use crate::hash::Digest;
use crate::id::{AccountId, Seq, VaultId};
use crate::{label, wire_array};
use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

const KEY_PART: Hrp = Hrp::parse_unchecked("lsrk");
const CHECKPOINT_PART: Hrp = Hrp::parse_unchecked("lscp");
const GROUP_CHARS: usize = 4;
const KEY_TEXT_CHARS: usize = 4 + 1 + 52 + 6;

/// Why a text is not a recovery key. Never holds the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryTextError {
    /// Does not begin with the part that such a text begins with.
    #[error("this is not a {what}: it begins with \"{prefix}\"")]
    Prefix {
        /// What was expected.
        what: &'static str,
        /// How it begins.
        prefix: &'static str,
    },
    /// Too short or too long.
    #[error("a {what} has {expected} letters and digits, this has {actual}")]
    Length {
        /// What was expected.
        what: &'static str,
        /// Characters expected.
        expected: usize,
        /// Characters found.
        actual: usize,
    },
    /// A character that never occurs.
    #[error("character {position} (group {group}, place {place}) of the {what} can not occur there")]
    Character {
        /// What was expected.
        what: &'static str,
        /// From 1, without spaces.
        position: usize,
        /// Group of four, from 1.
        group: usize,
        /// Place in the group, from 1.
        place: usize,
    },
    /// One character was mistyped, and it is known which.
    #[error("character {position} (group {group}, place {place}) of the {what} is mistyped")]
    Mistyped {
        /// What was expected.
        what: &'static str,
        /// From 1, without spaces.
        position: usize,
        /// Group of four, from 1.
        group: usize,
        /// Place in the group, from 1.
        place: usize,
    },
    /// More than one character is wrong.
    #[error("the {what} is mistyped in several places")]
    Checksum {
        /// What was expected.
        what: &'static str,
    },
}

/// Writes a recovery key in groups of four. The result is as secret as the key.
pub fn recovery_key_text(key: &[u8; 32]) -> String {
    grouped(&to_text(KEY_PART, key))
}

/// Reads a recovery key, without regard to case, spaces, hyphens and line ends.
///
/// # Errors
/// [`RecoveryTextError`] names the mistyped place where it can.
pub fn parse_recovery_key(text: &str) -> Result<[u8; 32], RecoveryTextError> {
    let what = "recovery key";
    let compact = compact(text);
    if compact.is_ascii() && !compact.starts_with("lsrk1") && compact.len() != KEY_TEXT_CHARS {
        return Err(RecoveryTextError::Prefix { what, prefix: "lsrk1" });
    }
    let actual = compact.chars().count();
    if actual != KEY_TEXT_CHARS {
        return Err(RecoveryTextError::Length { what, expected: KEY_TEXT_CHARS, actual });
    }
    let bytes = from_text(KEY_PART, "lsrk1", what, &compact)?;
    bytes.as_slice().try_into().map_err(|_| RecoveryTextError::Checksum { what })
}

wire_array! {
    /// What a kit remembers of the account: a new device refuses anything older.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Checkpoint {
        /// Version byte.
        pub version: u8,
        /// Account.
        pub account: AccountId,
        /// Index of the last device-log entry.
        pub device_log_index: u64,
        /// Its hash.
        pub device_log_head: Digest,
        /// Head of the keyring vault.
        pub keyring_seq: Seq,
        /// Its hash.
        pub keyring_head: Digest,
    }
}

impl Wire for Checkpoint {
    const NAME: &'static str = "checkpoint";
    const BYTES_MAX: usize = 256;
    const VERSIONED: bool = true;
}

impl Checkpoint {
    /// Text for the kit.
    pub fn to_text(&self) -> String {
        grouped(&to_text(CHECKPOINT_PART, &self.encode()))
    }

    /// Reads the text of a kit.
    ///
    /// # Errors
    /// [`RecoveryTextError`].
    pub fn parse(text: &str) -> Result<Self, RecoveryTextError> {
        let what = "checkpoint";
        let bytes = from_text(CHECKPOINT_PART, "lscp1", what, &compact(text))?;
        let parsed: Result<Self, CodecError> = Self::decode(&bytes);
        parsed.map_err(|_| RecoveryTextError::Checksum { what })
    }
}

/// Fingerprint of an identity, ten groups of four.
pub fn identity_fingerprint(identity: &[u8; 32]) -> String {
    fingerprint(&Digest::of(label::IDENTITY_FINGERPRINT, identity))
}

/// Fingerprint of an account as it stands: device log and the heads of its vaults, which are ascending.
pub fn account_fingerprint(
    account: AccountId,
    device_log_index: u64,
    device_log_head: Digest,
    heads: &[(VaultId, Seq, Digest)],
) -> String {
    let value = (account, device_log_index, device_log_head, heads);
    fingerprint(&Digest::of_cbor(label::ACCOUNT_FINGERPRINT, &value))
}

fn fingerprint(digest: &Digest) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut text = String::with_capacity(40);
    let (head, _) = digest.as_bytes().split_at(25);
    let mut bits = 0_u32;
    let mut count = 0_u32;
    for byte in head {
        bits = (bits << 8) | u32::from(*byte);
        count = count.saturating_add(8);
        while count >= 5 {
            count = count.saturating_sub(5);
            let index = usize::try_from((bits >> count) & 31).unwrap_or(0);
            text.extend(ALPHABET.get(index).map(|letter| char::from(*letter)));
        }
    }
    grouped(&text)
}

fn compact(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(text.len()));
    out.extend(text.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| c.to_ascii_lowercase()));
    out
}

fn grouped(text: &str) -> String {
    let mut out = String::with_capacity(text.len().saturating_mul(2));
    for (index, letter) in text.chars().enumerate() {
        if index > 0 && index.is_multiple_of(GROUP_CHARS) {
            out.push(' ');
        }
        out.push(letter);
    }
    out
}

/// What passes through here may be a recovery key: room for all of it from the start, and wiped.
fn to_text(part: Hrp, bytes: &[u8]) -> Zeroizing<String> {
    use bech32::primitives::iter::{ByteIterExt as _, Fe32IterExt as _};
    let mut out = Zeroizing::new(String::with_capacity(bytes.len().saturating_mul(2).saturating_add(16)));
    out.extend(bytes.iter().copied().bytes_to_fes().with_checksum::<Bech32m>(&part).chars());
    out
}

fn from_text(
    part: Hrp,
    prefix: &'static str,
    what: &'static str,
    compact: &str,
) -> Result<Zeroizing<Vec<u8>>, RecoveryTextError> {
    let Some(data) = compact.strip_prefix(prefix) else {
        return Err(RecoveryTextError::Prefix { what, prefix });
    };
    let place_of = |position: usize| (position / GROUP_CHARS + 1, position % GROUP_CHARS + 1);
    for (offset, letter) in data.chars().enumerate() {
        if bech32::Fe32::from_char(letter).is_err() {
            let position = prefix.len().saturating_add(offset);
            let (group, place) = place_of(position);
            return Err(RecoveryTextError::Character { what, position: position + 1, group, place });
        }
    }
    let Ok(parsed) = CheckedHrpstring::new::<LongBech32m>(compact) else {
        return Err(match mistyped_place(compact, prefix) {
            Some(position) => {
                let (group, place) = place_of(position);
                RecoveryTextError::Mistyped { what, position: position + 1, group, place }
            }
            None => RecoveryTextError::Checksum { what },
        });
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(compact.len()));
    bytes.extend(parsed.byte_iter());
    // One text for one value: bits of padding are not ours to ignore.
    let is_same = to_text(part, &bytes).as_bytes().ct_eq(compact.as_bytes());
    if bool::from(is_same) { Ok(bytes) } else { Err(RecoveryTextError::Checksum { what }) }
}

/// The place where one other letter makes the text right; none if more are wrong. Every letter is tried: the codec's own
/// correction panics on some texts with three wrong letters or more.
fn mistyped_place(compact: &str, prefix: &str) -> Option<usize> {
    const LETTERS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    // Beyond this length nothing is right, whatever the letters.
    if compact.len() > <Bech32m as bech32::Checksum>::CODE_LENGTH {
        return None;
    }
    let mut typed = Zeroizing::new(compact.as_bytes().to_vec());
    for position in prefix.len()..compact.len() {
        let letter = *typed.get(position)?;
        for other in LETTERS {
            *typed.get_mut(position)? = *other;
            if CheckedHrpstring::new::<Bech32m>(std::str::from_utf8(&typed).ok()?).is_ok() {
                return Some(position);
            }
        }
        *typed.get_mut(position)? = letter;
    }
    None
}

/// Bech32m without the length limit of payment addresses: a checkpoint is longer, and locating single
/// errors in it is not promised.
enum LongBech32m {}

impl bech32::Checksum for LongBech32m {
    type MidstateRepr = <Bech32m as bech32::Checksum>::MidstateRepr;
    type CorrectionField = <Bech32m as bech32::Checksum>::CorrectionField;
    const ROOT_GENERATOR: Self::CorrectionField = <Bech32m as bech32::Checksum>::ROOT_GENERATOR;
    const ROOT_EXPONENTS: core::ops::RangeInclusive<usize> = <Bech32m as bech32::Checksum>::ROOT_EXPONENTS;
    const CHECKSUM_LENGTH: usize = <Bech32m as bech32::Checksum>::CHECKSUM_LENGTH;
    const CODE_LENGTH: usize = 1023;
    const GENERATOR_SH: [u32; 5] = <Bech32m as bech32::Checksum>::GENERATOR_SH;
    const TARGET_RESIDUE: u32 = <Bech32m as bech32::Checksum>::TARGET_RESIDUE;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_key_round_trip_tolerates_layout() {
        let key = [0x5a; 32];
        let text = recovery_key_text(&key);
        assert!(text.starts_with("lsrk 1"));
        assert_eq!(parse_recovery_key(&text), Ok(key));
        assert_eq!(parse_recovery_key(&text.to_uppercase().replace(' ', "\n-")), Ok(key));
    }

    #[test]
    fn one_mistyped_place_is_named_wherever_it_is() {
        let text = compact(&recovery_key_text(&[0xa7; 32])).to_string();
        for position in 5..text.len() {
            let mut typed = text.clone().into_bytes();
            typed[position] = if typed[position] == b'q' { b'p' } else { b'q' };
            let error = parse_recovery_key(&String::from_utf8(typed).unwrap()).unwrap_err();
            let (group, place) = (position / 4 + 1, position % 4 + 1);
            assert_eq!(
                error,
                RecoveryTextError::Mistyped { what: "recovery key", position: position + 1, group, place }
            );
        }
        let mut typed = text.clone().into_bytes();
        typed[9] = b'b';
        let error = parse_recovery_key(&String::from_utf8(typed).unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "character 10 (group 3, place 2) of the recovery key can not occur there"
        );
        assert!(matches!(parse_recovery_key(&text[..60]), Err(RecoveryTextError::Length { actual: 60, .. })));
        assert!(matches!(parse_recovery_key("hello"), Err(RecoveryTextError::Prefix { .. })));
    }

    #[test]
    fn texts_with_many_wrong_letters_are_refused() {
        // On these the codec's own correction panics: three wrong letters. A checkpoint is in fuzz/corpus/texts.
        let keys = [
            "lsrk157n60ra857n60fa857y60fa857n60fa857n20fa857n60fa857nswrc6cj",
            "lsrk157n60fav57n60fa857n60fa857n60fax57n60fa857n65fa857nswrc6cj",
            "lsrk157n60ca857n60fe8w7n60fa857n60fa857n60fa857n60fa857nswrc6cj",
        ];
        for text in keys {
            let result = parse_recovery_key(text);
            assert_eq!(result, Err(RecoveryTextError::Checksum { what: "recovery key" }), "{text}");
        }
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            version: crate::version::VERSION,
            account: AccountId::from_bytes([1; 16]),
            device_log_index: 3,
            device_log_head: Digest::from_bytes([2; 32]),
            keyring_seq: Seq::new(9),
            keyring_head: Digest::from_bytes([3; 32]),
        }
    }

    #[test]
    fn checkpoints_and_fingerprints() {
        let checkpoint = checkpoint();
        let text = checkpoint.to_text();
        assert_eq!(Checkpoint::parse(&text), Ok(checkpoint));
        let mut typed = text.into_bytes();
        let last = typed.len() - 1;
        typed[last] = if typed[last] == b'q' { b'p' } else { b'q' };
        assert!(Checkpoint::parse(&String::from_utf8(typed).unwrap()).is_err());
        let fingerprint = identity_fingerprint(&[4; 32]);
        assert_eq!(fingerprint.len(), 49);
        assert_ne!(fingerprint, identity_fingerprint(&[5; 32]));
    }

    #[test]
    fn an_account_has_the_fingerprint_of_the_vectors() {
        let (account, head) = (AccountId::from_bytes([4; 16]), Digest::from_bytes([5; 32]));
        let fingerprint = account_fingerprint(account, 3, head, &[]);
        assert_eq!(fingerprint, "rmad 7gm6 pec4 wshl uef5 aege w36i kape qpwf 4o34");
        let vault = (VaultId::from_bytes([1; 16]), Seq::new(0), Digest::from_bytes([1; 32]));
        let mut seen = std::collections::BTreeSet::from([fingerprint]);
        for other in [
            account_fingerprint(AccountId::ZERO, 3, head, &[]),
            account_fingerprint(account, 4, head, &[]),
            account_fingerprint(account, 3, Digest::ZERO, &[]),
            account_fingerprint(account, 3, head, &[vault]),
            account_fingerprint(account, 3, head, &[(vault.0, Seq::new(1), vault.2)]),
        ] {
            assert!(seen.insert(other), "every field counts");
        }
    }

    #[test]
    fn places_are_named_in_texts_as_long_as_the_code_corrects() {
        // A text of 1,023 characters, as long as one can be, and the next longer one.
        for (bytes, chars, found) in [(632, 1023, Some(20)), (633, 1024, None)] {
            let text = to_text(CHECKPOINT_PART, &vec![7; bytes]);
            assert_eq!(text.len(), chars);
            let mut typed = text.as_bytes().to_vec();
            typed[20] = if typed[20] == b'q' { b'p' } else { b'q' };
            let typed = String::from_utf8(typed).unwrap();
            assert_eq!(mistyped_place(&typed, "lscp1"), found, "{bytes} bytes");
        }
    }
}
