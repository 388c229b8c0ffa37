//! Functions of section 1 and texts: golden files, and what is refused of signatures, sealed bytes and texts.

use crate::vectors::world::{WORLD, fixed};
use crate::vectors::{File, Golden, Reject, hex};
use ed25519_dalek::{Signer as _, SigningKey};
use lockstep_client_crypto::seal;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_proto::cbor::encode;
use lockstep_proto::hash::Digest;
use lockstep_proto::id::Seq;
use lockstep_proto::label::{self, Label};
use lockstep_proto::recovery::{Checkpoint, recovery_key_text};
use lockstep_proto::sign::signing_input;
use lockstep_proto::version::VERSION;
use serde_json::{Value, json};

pub(super) fn golden() -> Vec<File> {
    vec![
        hash(),
        kdf(),
        sign(),
        verify(),
        sealed(),
        open(),
        pad(),
        skip(),
        ids(),
        fingerprints(),
        texts(),
        checkpoints(),
    ]
}

fn short(label: Label) -> String {
    label.as_str().trim_start_matches("lockstep/v1/").into()
}

fn hash() -> File {
    let mut file =
        Golden::new("hash", "hash", "1.2, 1.3", "H and H16 of every label, over 13 bytes and over nothing")
            .plain(&["x"]);
    for label in label::ALL {
        file.case(&short(*label), json!({ "label": label.as_str(), "x": hex("thirteen byte") }), json!({}));
    }
    file.case("empty", json!({ "label": label::OPAQUE_KEY_STRETCH.as_str(), "x": "" }), json!({}));
    file.case("long", json!({ "label": label::COMMIT.as_str(), "x": hex([0x5a; 3000]) }), json!({}));
    file.file()
}

fn kdf() -> File {
    let mut file = Golden::new(
        "kdf",
        "kdf",
        "1.2, 1.3",
        "KDF of every label without more, and with each kind of argument",
    )
    .plain(&["key"]);
    let key = hex(fixed::<32>("kdf key"));
    for label in label::ALL {
        let input = json!({ "key": key, "label": label.as_str(), "args": [], "length": 32 });
        file.case(&short(*label), input, json!({}));
    }
    let id = json!({ "bytes": hex([7; 16]) });
    for (name, args, length) in [
        ("an id", json!([id]), 32),
        ("two byte strings", json!([id, { "bytes": hex([8; 16]) }]), 32),
        ("numbers, 64 bytes", json!([0, 23, 24, 255, 256, 65_536, 4_294_967_296_u64, i64::MAX]), 64),
        (
            "as an object's key, 83 bytes",
            json!([VERSION, 1, 16, { "bytes": hex([9; 32]) }, id, { "bytes": hex([1; 32]) }]),
            83,
        ),
        ("a text", json!(["https://backup.example"]), 32),
    ] {
        let input = json!({ "key": key, "label": label::BLOB_KEY.as_str(), "args": args, "length": length });
        file.case(name, input, json!({}));
    }
    file.file()
}

fn sign() -> File {
    let mut file =
        Golden::new("sign", "sign", "1.2", "Sign under every label: what is signed, and the signature")
            .plain(&["seed", "x"]);
    for label in label::ALL {
        let input =
            json!({ "seed": hex(fixed::<32>("sign seed")), "label": label.as_str(), "x": hex("signed") });
        file.case(&short(*label), input, json!({}));
    }
    file.file()
}

fn signed(seed: [u8; 32], label: Label, x: &[u8]) -> Value {
    let key = SigningKey::from_bytes(&seed);
    json!({
        "public": hex(key.verifying_key().to_bytes()),
        "label": label.as_str(),
        "x": hex(x),
        "signature": hex(key.sign(&signing_input(label, x)).to_bytes()),
    })
}

fn verify() -> File {
    let mut file =
        Golden::new("verify", "verify", "1.2", "Strict verification").sealed(&["public", "x", "signature"]);
    file.case("one", signed(fixed("verify one"), label::COMMIT, b"x"), json!({}));
    file.case("another", signed(fixed("verify two"), label::LOGIN, &[1; 200]), json!({}));
    file.file()
}

fn seal_case(label: Label, plaintext: &[u8]) -> (Value, Value) {
    let (key, nonce, header) =
        (fixed::<32>("seal key"), fixed::<24>("seal nonce"), encode(&(VERSION, 1, "header")));
    let (commitment, ciphertext) =
        seal::seal(&SecretKey::from_bytes(&key), label, &header, &nonce, plaintext);
    let made = json!({
        "key": hex(key), "label": label.as_str(), "header": hex(&header), "nonce": hex(nonce), "plaintext": hex(plaintext),
    });
    let mut opened = made.clone();
    opened.as_object_mut().unwrap().remove("plaintext");
    opened["commitment"] = hex(commitment.as_bytes()).into();
    opened["ciphertext"] = hex(ciphertext).into();
    (made, opened)
}

const SEALS: &[Label] =
    &[label::ROOT_WRAP, label::KEYRING_WRAP, label::KEYRING_LINK, label::DEVICE_NAME, label::ENVELOPE_HEADER];

fn sealed() -> File {
    let mut file = Golden::new("seal", "seal", "1.2", "Seal under every label that seals").plain(&[
        "key",
        "header",
        "nonce",
        "plaintext",
    ]);
    for label in SEALS {
        file.case(&short(*label), seal_case(*label, &[0x33; 32]).0, json!({}));
    }
    file.case("empty", seal_case(label::ENVELOPE_HEADER, b"").0, json!({}));
    file.file()
}

fn open() -> File {
    let mut file = Golden::new("open", "open", "1.2", "Open").sealed(&[
        "key",
        "header",
        "nonce",
        "commitment",
        "ciphertext",
    ]);
    for label in SEALS {
        file.case(&short(*label), seal_case(*label, &[0x33; 32]).1, json!({ "plaintext": hex([0x33; 32]) }));
    }
    file.case("empty", seal_case(label::ENVELOPE_HEADER, b"").1, json!({ "plaintext": "" }));
    file.file()
}

fn pad() -> File {
    let mut file = Golden::new("pad", "pad", "1.2", "Padme sizes around every edge that the format has");
    let mut sizes: Vec<u64> = vec![0, 1, 4, 255, 256, 257, 271, 272, 273, 1000, 1_000_000];
    for power in 8..=43_u32 {
        let power = 1_u64 << power;
        sizes.extend([power - 1, power, power + 1, power + power / 2, power + power / 2 + 1]);
    }
    sizes.sort_unstable();
    sizes.dedup();
    for size in sizes {
        file.case(&size.to_string(), json!({ "n": size }), json!({}));
    }
    file.file()
}

fn skip() -> File {
    let mut file = Golden::new("skip", "skip", "6.1", "Skip targets: seq - (seq & -seq)");
    let far = [100, 1023, 1024, 1025, 1 << 40, (1 << 40) + 6, (1 << 62) + (1 << 61), i64::MAX.unsigned_abs()];
    for seq in (0..=33).chain(far) {
        let target = if seq == 0 { 0 } else { seq - (seq & seq.wrapping_neg()) };
        file.case(&seq.to_string(), json!({ "seq": seq }), json!({ "target": target }));
    }
    file.file()
}

fn ids() -> File {
    let mut file =
        Golden::new("ids", "ids", "2.1, 2.3, 4.1", "Ids and fingerprint of an identity").plain(&["identity"]);
    let known = json!({ "account": hex(WORLD.id().as_bytes()), "files": hex(WORLD.files_id().as_bytes()) });
    file.case("the account of these vectors", json!({ "identity": hex(WORLD.identity()) }), known);
    file.case("any bytes", json!({ "identity": hex([0xa5; 32]) }), json!({}));
    file.file()
}

fn fingerprints() -> File {
    let mut file = Golden::new("fingerprint", "fingerprint", "2.3", "Account fingerprints").plain(&[
        "account",
        "device-log-head",
        "heads",
    ]);
    let head = |n: u8, seq: u64| json!([hex([n; 16]), seq, hex([n; 32])]);
    for (name, heads) in
        [("no vault", json!([])), ("three vaults", json!([head(1, 0), head(2, 24), head(3, 70_000)]))]
    {
        let input = json!({ "account": hex([4; 16]), "device-log-index": 3, "device-log-head": hex([5; 32]), "heads": heads });
        file.case(name, input, json!({}));
    }
    file.file()
}

fn key_text() -> ([u8; 32], String) {
    let key = WORLD.recovery[0];
    (key, recovery_key_text(&key))
}

fn texts() -> File {
    let (key, text) = key_text();
    let mut file = Golden::new(
        "recovery-text",
        "recovery-text",
        "2.3",
        "The text of a recovery key, in every layout that is read",
    );
    let compact = text.replace(' ', "");
    let mixed: String = compact
        .chars()
        .enumerate()
        .map(|(i, c)| if i % 3 == 0 { c.to_ascii_uppercase() } else { c })
        .collect();
    for (name, text) in [
        ("as it is written", text.clone()),
        ("as in the QR code", compact.to_uppercase()),
        ("mixed case", mixed),
        ("hyphens and line ends", text.replace(' ', "-\r\n\t")),
        ("without spaces", compact),
        ("all zero", recovery_key_text(&[0; 32])),
        ("all one", recovery_key_text(&[0xff; 32])),
    ] {
        let expected = if name == "all zero" {
            [0; 32]
        } else if name == "all one" {
            [0xff; 32]
        } else {
            key
        };
        file.case(name, json!({ "text": text }), json!({ "key": hex(expected) }));
    }
    file.file()
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        version: VERSION,
        account: WORLD.id(),
        device_log_index: 5,
        device_log_head: WORLD.log().head(),
        keyring_seq: Seq::new(300),
        keyring_head: Digest::from_bytes(fixed("keyring head")),
    }
}

fn checkpoints() -> File {
    let mut file = Golden::new("checkpoint", "checkpoint", "2.3", "A kit's checkpoint");
    file.case("one", json!({ "text": checkpoint().to_text() }), json!({}));
    file.case(
        "without spaces, in capitals",
        json!({ "text": checkpoint().to_text().replace(' ', "").to_uppercase() }),
        json!({}),
    );
    file.file()
}

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
