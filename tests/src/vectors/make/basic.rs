//! Functions of section 1 and texts: golden files.

use crate::vectors::world::{WORLD, fixed};
use crate::vectors::{File, Golden, hex};
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

pub(super) fn short(label: Label) -> String {
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

pub(super) fn signed(seed: [u8; 32], label: Label, x: &[u8]) -> Value {
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

pub(super) fn seal_case(label: Label, plaintext: &[u8]) -> (Value, Value) {
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

pub(super) fn key_text() -> ([u8; 32], String) {
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

pub(super) fn checkpoint() -> Checkpoint {
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
