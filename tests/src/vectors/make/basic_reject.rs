//! What is refused of signatures, sealed bytes and texts.

use super::basic::{checkpoint, key_text, seal_case, short, signed};
use crate::vectors::world::fixed;
use crate::vectors::{File, Reject, hex};
use ed25519_dalek::{Signer as _, SigningKey};
use lockstep_client_crypto::seal;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_proto::cbor::encode;
use lockstep_proto::hash::Digest;
use lockstep_proto::label;
use lockstep_proto::recovery::Checkpoint;
use serde_json::{Value, json};

pub(super) fn reject() -> Vec<File> {
    vec![reject_verify(), reject_open(), reject_text(), reject_checkpoint()]
}

fn changed(input: &Value, name: &str, value: impl Into<Value>) -> Value {
    let mut input = input.clone();
    input[name] = value.into();
    input
}

/// Encodings of points of small order, canonical ones (the same as in curve25519-dalek's `EIGHT_TORSION`).
const SMALL_ORDER: [&str; 8] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
];

/// Encodings of field elements that are not canonical: y = p .. p + 18, with either sign.
const NON_CANONICAL: [&str; 4] = [
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

/// S + L, little-endian, of the S of a signature.
fn s_plus_order(signature: &str) -> String {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut bytes = crate::vectors::unhex(signature).unwrap();
    let mut carry = 0_u16;
    for (byte, add) in bytes[32..].iter_mut().zip(ORDER) {
        carry += u16::from(*byte) + u16::from(add);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    hex(bytes)
}

fn reject_verify() -> File {
    let mut file = Reject::new("verify", "verify", "1.2");
    let good = signed(fixed("verify one"), label::COMMIT, b"x");
    let signature = good["signature"].as_str().unwrap();
    for (n, point) in SMALL_ORDER.iter().enumerate() {
        file.case(&format!("A is point {n} of small order"), changed(&good, "public", *point), "signature");
        let r = format!("{point}{}", &signature[64..]);
        file.case(&format!("R is point {n} of small order"), changed(&good, "signature", r), "signature");
        let zero = format!("{point}{}", "00".repeat(32));
        let both = changed(&changed(&good, "public", *point), "signature", zero);
        file.case(&format!("A and R are point {n} of small order, S is zero"), both, "signature");
    }
    for (n, point) in NON_CANONICAL.iter().enumerate() {
        file.case(
            &format!("A is encoding {n} that is not canonical"),
            changed(&good, "public", *point),
            "signature",
        );
        let r = format!("{point}{}", &signature[64..]);
        file.case(
            &format!("R is encoding {n} that is not canonical"),
            changed(&good, "signature", r),
            "signature",
        );
    }
    file.case("S is S + L", changed(&good, "signature", s_plus_order(signature)), "signature");
    let high = format!("{}{}", &signature[..64], "ff".repeat(32));
    file.case("S has its high bits set", changed(&good, "signature", high), "signature");
    file.case("another label", changed(&good, "label", label::LOGIN.as_str()), "signature");
    let other = signed(fixed("verify two"), label::COMMIT, b"x");
    file.case("another key", changed(&good, "public", other["public"].clone()), "signature");
    let key = SigningKey::from_bytes(&fixed("verify one"));
    let bare = |message: &[u8]| hex(key.sign(message).to_bytes());
    file.case("the bytes themselves were signed", changed(&good, "signature", bare(b"x")), "signature");
    let digest = Digest::of(label::COMMIT, b"x");
    file.case(
        "the digest alone was signed",
        changed(&good, "signature", bare(digest.as_bytes())),
        "signature",
    );
    let text = encode(&(short(label::COMMIT), digest));
    file.case(
        "the label was signed without its beginning",
        changed(&good, "signature", bare(&text)),
        "signature",
    );
    file.file()
}

fn reject_open() -> File {
    let mut file = Reject::new("open", "open", "1.2");
    let good = seal_case(label::ENVELOPE_HEADER, b"plaintext").1;
    file.case("another label", changed(&good, "label", label::ROOT_WRAP.as_str()), "open");
    file.case("another key", changed(&good, "key", hex([1; 32])), "open");
    file.case("another header", changed(&good, "header", hex(b"header")), "open");
    file.case("another nonce", changed(&good, "nonce", hex([0; 24])), "open");
    file.case("the commitment is zero", changed(&good, "commitment", hex([0; 32])), "open");
    let text = good["ciphertext"].as_str().unwrap();
    file.case(
        "the ciphertext is cut off by a byte",
        changed(&good, "ciphertext", &text[..text.len() - 2]),
        "open",
    );
    file.case("a byte follows the ciphertext", changed(&good, "ciphertext", format!("{text}00")), "open");
    file.case("there is no ciphertext", changed(&good, "ciphertext", ""), "open");
    let header = crate::vectors::unhex(good["header"].as_str().unwrap()).unwrap();
    let second = SecretKey::from_bytes(&fixed("second key"));
    let (_, salamander) =
        seal::seal(&second, label::ENVELOPE_HEADER, &header, &fixed("seal nonce"), b"plaintext");
    let mut both = changed(&good, "ciphertext", hex(salamander));
    both["key"] = hex(second.expose()).into();
    file.case("the ciphertext opens under this key, the commitment is to another one", both, "open");
    file.file()
}

fn typed(text: &str, position: usize, letter: char) -> String {
    text.chars().enumerate().map(|(place, c)| if place == position { letter } else { c }).collect()
}

fn reject_text() -> File {
    let mut file = Reject::new("recovery-text", "recovery-text", "2.3");
    let text = key_text().1.replace(' ', "");
    let case = |text: String| json!({ "text": text });
    for position in 5..text.len() {
        let wrong = if text.as_bytes()[position] == b'q' { 'p' } else { 'q' };
        file.case(
            &format!("character {} is wrong", position + 1),
            case(typed(&text, position, wrong)),
            "text",
        );
    }
    for letter in ['b', 'i', 'o', '1', '!', '\u{e9}'] {
        file.case(
            &format!("character 10 is {letter:?}, which does not occur"),
            case(typed(&text, 9, letter)),
            "text",
        );
    }
    let two = typed(&typed(&text, 8, 'q'), 30, 'z');
    file.case("two characters are wrong", case(two), "text");
    let mut swapped: Vec<char> = text.chars().collect();
    let place = (5..swapped.len() - 1).find(|place| swapped[*place] != swapped[place + 1]).unwrap();
    swapped.swap(place, place + 1);
    file.case("two neighbours are swapped", case(swapped.into_iter().collect()), "text");
    file.case("the last character is missing", case(text[..text.len() - 1].into()), "text");
    file.case("one character more", case(format!("{text}q")), "text");
    file.case("it is empty", case(String::new()), "text");
    file.case("another part, of the same length", case(text.replacen("lsrk", "lsrx", 1)), "text");
    file.case("it is a checkpoint", case(checkpoint().to_text()), "text");
    file.case("the checksum is Bech32's, not Bech32m's", case(bech32_text()), "text");
    file.case("its padding bits are not zero", case(padded_text()), "text");
    file.file()
}

const LETTERS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// Text of five-bit groups with the checksum whose constant is given (BIP 173: 1; BIP 350: 0x2bc830a3).
fn with_checksum(part: &str, groups: &[u8], constant: u32) -> String {
    let step = |sum: u32, value: u8| {
        let top = sum >> 25;
        let next = (sum & 0x01ff_ffff) << 5 ^ u32::from(value);
        [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3]
            .into_iter()
            .enumerate()
            .fold(next, |sum, (bit, add)| if top >> bit & 1 == 1 { sum ^ add } else { sum })
    };
    let high = part.bytes().map(|c| c >> 5);
    let low = part.bytes().map(|c| c & 31);
    let all = high.chain([0]).chain(low).chain(groups.iter().copied()).chain([0; 6]);
    let sum = all.fold(1, step) ^ constant;
    let check = (0..6).map(|place| (sum >> (5 * (5 - place))).to_le_bytes()[0] & 31);
    let letters = groups.iter().copied().chain(check).map(|group| char::from(LETTERS[usize::from(group)]));
    format!("{part}1{}", letters.collect::<String>())
}

fn groups() -> Vec<u8> {
    let text = key_text().1.replace(' ', "");
    let place = |c: u8| LETTERS.iter().position(|letter| *letter == c).unwrap();
    text.as_bytes()[5..57].iter().map(|c| place(*c).to_le_bytes()[0]).collect()
}

fn bech32_text() -> String {
    assert_eq!(with_checksum("lsrk", &groups(), 0x2bc8_30a3), key_text().1.replace(' ', ""));
    with_checksum("lsrk", &groups(), 1)
}

fn padded_text() -> String {
    let mut groups = groups();
    *groups.last_mut().unwrap() |= 1;
    with_checksum("lsrk", &groups, 0x2bc8_30a3)
}

fn reject_checkpoint() -> File {
    let mut file = Reject::new("checkpoint", "checkpoint", "2.3");
    let good = checkpoint();
    let case = |checkpoint: &Checkpoint| json!({ "text": checkpoint.to_text() });
    file.case("another draft", case(&Checkpoint { version: 0x81, ..good.clone() }), "text");
    file.case("version 1", case(&Checkpoint { version: 1, ..good.clone() }), "text");
    file.case("it is a recovery key", json!({ "text": key_text().1 }), "text");
    let text = good.to_text().replace(' ', "");
    let last = text.len() - 1;
    let wrong = if text.ends_with('q') { 'p' } else { 'q' };
    file.case("its last character is wrong", json!({ "text": typed(&text, last, wrong) }), "text");
    file.case("its last character is missing", json!({ "text": text[..last] }), "text");
    file.file()
}
