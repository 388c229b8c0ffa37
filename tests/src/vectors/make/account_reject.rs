//! What is refused of key headers, wraps, seals, names, statements and actions.

use super::account::{
    ORIGIN, action_input, deletion_input, header_at, header_input, name_input, passphrase_kek,
    recovery_wrap_kek, seal_input, statement, statement_input, wrap_input,
};
use crate::vectors::json::signed_hex;
use crate::vectors::world::{A, B, C, PASSPHRASE, WORLD, fixed, identity_key, sign_by};
use crate::vectors::{File, Reject, hex};
use ed25519_dalek::SigningKey;
use lockstep_client_crypto::seal;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_proto::cbor::{ByteArray, Wire as _, encode};
use lockstep_proto::hash::Digest;
use lockstep_proto::id::{AccountId, DeviceId, Epoch};
use lockstep_proto::key_header::{DeviceSeal, KeyHeader, Wrap};
use lockstep_proto::label;
use lockstep_proto::sign::Signed;
use serde_json::{Value, json};

pub(super) fn reject() -> Vec<File> {
    vec![
        passphrases(),
        wraps(),
        key_headers(),
        too_many_seals(),
        unlocks(),
        device_seals(),
        names(),
        statements(),
        actions(),
        deletions(),
    ]
}

pub(super) fn changed(input: &Value, name: &str, value: impl Into<Value>) -> Value {
    let mut input = input.clone();
    input[name] = value.into();
    input
}

fn passphrases() -> File {
    let mut file = Reject::new("passphrase-kek", "passphrase-kek", "2.1, 2.4");
    let good =
        json!({ "passphrase": PASSPHRASE, "account": hex([1; 16]), "profile": 1, "salt": hex([2; 16]) });
    for (profile, what) in [(0, "the recovery key's"), (3, "none"), (128, "none"), (255, "none")] {
        file.case(
            &format!("profile {profile}, which is {what}"),
            changed(&good, "profile", profile),
            "profile",
        );
    }
    file.case("it is empty", changed(&good, "passphrase", ""), "passphrase");
    file.case("it has 1,025 bytes", changed(&good, "passphrase", "a".repeat(1025)), "passphrase");
    let ligatures = "\u{fdfa}".repeat(40);
    file.case(
        "it has more than 1,024 bytes once it is normalised",
        changed(&good, "passphrase", ligatures),
        "passphrase",
    );
    file.file()
}

fn wraps() -> File {
    let mut file = Reject::new("wrap", "wrap", "2.2");
    let header = header_at(0);
    let good = wrap_input(&header.wraps[0], &passphrase_kek(0, PASSPHRASE));
    let other = wrap_input(&header.wraps[1], &recovery_wrap_kek(0, &WORLD.recovery[0]));
    file.case("another role", changed(&good, "role", 2), "open");
    file.case("another profile", changed(&good, "profile", 2), "open");
    for name in ["salt", "nonce", "commitment", "ciphertext", "kek"] {
        file.case(&format!("{name} of the other wrap"), changed(&good, name, other[name].clone()), "open");
    }
    file.case("another account", changed(&good, "account", hex([1; 16])), "open");
    file.case(
        "another passphrase's KEK",
        changed(&good, "kek", hex(passphrase_kek(0, "another passphrase"))),
        "open",
    );
    let header = encode(&(0x82, 1, WORLD.id(), 1, 1, header.wraps[0].salt, header.wraps[0].nonce));
    let second = SecretKey::from_bytes(&fixed("second kek"));
    let (_, salamander) =
        seal::seal(&second, label::ROOT_WRAP, &header, &header_at(0).wraps[0].nonce.0, &[1; 32]);
    let both = changed(&changed(&good, "ciphertext", hex(salamander)), "kek", hex(second.expose()));
    file.case("the ciphertext opens under this KEK, the commitment is to another one", both, "open");
    file.file()
}

pub(super) fn header_signed(header: &KeyHeader) -> Signed {
    sign_by(&identity_key(), label::KEY_HEADER, header.encode())
}

fn header_case(header: &KeyHeader) -> Value {
    changed(&header_input(0), "signed", signed_hex(&header_signed(header)))
}

fn key_headers() -> File {
    let mut file = Reject::new("key-header", "key-header", "2.2");
    let mut change = |fault: &str, class: &str, change: &dyn Fn(&mut KeyHeader)| {
        let mut header = header_at(4);
        change(&mut header);
        file.case(fault, header_case(&header), class);
    };
    change("counter 0", "malformed", &|header| header.counter = 0);
    change("it names another account", "identity", &|header| header.account = AccountId::from_bytes([1; 16]));
    change("the identity is another key", "identity", &|header| header.identity = header.recovery);
    change("the recovery key is no key", "malformed", &|header| header.recovery = Digest::ZERO);
    change("no wrap", "malformed", &|header| header.wraps.clear());
    change("the passphrase's wrap alone", "malformed", &|header| header.wraps.truncate(1));
    change("the recovery wrap alone", "malformed", &|header| header.wraps = header.wraps.split_off(1));
    change("the wraps in another order", "malformed", &|header| header.wraps.reverse());
    change("the passphrase's wrap twice", "malformed", &|header| header.wraps[1] = header.wraps[0].clone());
    change("a third wrap", "malformed", &|header| header.wraps.push(header.wraps[1].clone()));
    change("role 3, passkey: reserved", "malformed", &|header| header.wraps[1].role = 3);
    change("role 0", "malformed", &|header| header.wraps[0].role = 0);
    change("profile 0 for the passphrase", "malformed", &|header| header.wraps[0].profile = 0);
    change("profile 3", "malformed", &|header| header.wraps[0].profile = 3);
    change("profile 1 for the recovery key", "malformed", &|header| header.wraps[1].profile = 1);
    change("epoch 0", "malformed", &|header| header.keyring.epoch = Epoch::new(0));
    change("epoch 3 with one link", "malformed", &|header| header.keyring.epoch = Epoch::new(3));
    change("epoch 2 without a link", "malformed", &|header| header.keyring.links.clear());
    change("the link is of epoch 2", "malformed", &|header| header.keyring.links[0].epoch = Epoch::new(2));
    change("two links of epoch 1", "malformed", &|header| {
        header.keyring.links.push(header.keyring.links[0].clone());
        header.keyring.epoch = Epoch::new(3);
    });
    change("no seal", "malformed", &|header| header.keyring.seals.clear());
    change("the seals in another order", "malformed", &|header| header.keyring.seals.reverse());
    change("a seal twice", "malformed", &|header| header.keyring.seals.push(header.keyring.seals[1].clone()));
    let good = header_at(4).encode();
    let signed = |key: &SigningKey, label| signed_hex(&sign_by(key, label, good.clone()));
    let other = SigningKey::from_bytes(&[7; 32]);
    file.case(
        "signed by another key",
        changed(&header_input(4), "signed", signed(&other, label::KEY_HEADER)),
        "signature",
    );
    let label = signed(&identity_key(), label::DEVICE_LOG_ENTRY);
    file.case("signed under another label", changed(&header_input(4), "signed", label), "signature");
    let mut swapped = WORLD.log[4].key_header.clone();
    swapped.signature = WORLD.log[3].key_header.signature;
    file.case(
        "another header's signature",
        changed(&header_input(4), "signed", signed_hex(&swapped)),
        "signature",
    );
    file.case(
        "it is asked for as another account's",
        changed(&header_input(4), "account", hex([1; 16])),
        "identity",
    );
    file.file()
}

fn too_many_seals() -> File {
    let mut file = Reject::new("key-header-seals", "key-header", "2.2");
    let mut header = header_at(4);
    let seal = header.keyring.seals[0].clone();
    let devices = (0..65).map(|n| DeviceId::from_bytes([n; 16]));
    header.keyring.seals = devices.map(|device| DeviceSeal { device, ..seal.clone() }).collect();
    file.case("65 seals", header_case(&header), "malformed");
    file.file()
}

fn unlocks() -> File {
    let mut file = Reject::new("unlock", "unlock", "2.2");
    let recovery = hex(WORLD.recovery[1]);
    let with = |header: &KeyHeader| changed(&header_case(header), "recovery", recovery.clone());
    file.case(
        "another recovery key",
        changed(&with(&header_at(4)), "recovery", hex(WORLD.recovery[0])),
        "open",
    );
    let mut change = |fault: &str, change: &dyn Fn(&mut KeyHeader)| {
        let mut header = header_at(4);
        change(&mut header);
        file.case(fault, with(&header), "open");
    };
    change("its login key is another one's", &|header| header.recovery = header_at(0).recovery);
    change("the wrap's salt is another", &|header| header.wraps[1].salt.0[0] ^= 1);
    change("the wrap's nonce is another", &|header| header.wraps[1].nonce.0[0] ^= 1);
    change("the wrap's commitment is another", &|header| header.wraps[1].commitment = Digest::ZERO);
    change("the wrap is that of an older recovery key", &|header| {
        header.wraps[1] = header_at(0).wraps[1].clone();
    });
    change("the wrap holds another root", &|header| header.wraps[1] = foreign_root(&header.wraps[1]));
    change("the keyring key is that of the epoch before", &|header| {
        let old = header_at(3).keyring;
        (header.keyring.nonce, header.keyring.commitment) = (old.nonce, old.commitment);
        header.keyring.ciphertext = old.ciphertext;
    });
    change("the keyring's nonce is another", &|header| header.keyring.nonce.0[0] ^= 1);
    change("the keyring's commitment is another", &|header| header.keyring.commitment = Digest::ZERO);
    change("the link's nonce is another", &|header| header.keyring.links[0].nonce.0[0] ^= 1);
    change("the link's commitment is another", &|header| header.keyring.links[0].commitment = Digest::ZERO);
    change("the link's ciphertext is another", &|header| header.keyring.links[0].ciphertext.0[0] ^= 1);
    file.file()
}

/// A recovery wrap that opens, to a root of another identity.
fn foreign_root(wrap: &Wrap) -> Wrap {
    let kek = SecretKey::from_bytes(&recovery_wrap_kek(4, &WORLD.recovery[1]));
    let header = encode(&(0x82, 1, WORLD.id(), 2, 0, wrap.salt, wrap.nonce));
    let (commitment, ciphertext) = seal::seal(&kek, label::ROOT_WRAP, &header, &wrap.nonce.0, &[9; 32]);
    Wrap { commitment, ciphertext: ByteArray(ciphertext.try_into().unwrap()), ..wrap.clone() }
}

fn device_seals() -> File {
    let mut file = Reject::new("device-seal", "device-seal", "2.2");
    let (good, other) = (seal_input(4, A), seal_input(4, C));
    for name in ["device", "seal-seed", "encapsulated", "ciphertext"] {
        file.case(&format!("{name} of another device"), changed(&good, name, other[name].clone()), "open");
    }
    file.case("another epoch", changed(&good, "epoch", 1), "open");
    file.case("another account", changed(&good, "account", hex([1; 16])), "open");
    let identity = SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes();
    file.case("another identity", changed(&good, "identity", hex(identity)), "open");
    let old = seal_input(3, A);
    file.case("the seal of the epoch before", changed(&old, "epoch", 2), "open");
    file.file()
}

fn names() -> File {
    let mut file = Reject::new("device-name", "device-name", "3.1");
    let (good, other) = (name_input(0), name_input(1));
    file.case("another device", changed(&good, "device", other["device"].clone()), "open");
    file.case("another epoch", changed(&good, "epoch", 2), "open");
    file.case("another account", changed(&good, "account", hex([1; 16])), "open");
    file.case("another nonce", changed(&good, "nonce", other["nonce"].clone()), "open");
    file.case("another commitment", changed(&good, "commitment", other["commitment"].clone()), "open");
    file.case("another ciphertext", changed(&good, "ciphertext", other["ciphertext"].clone()), "open");
    file.file()
}

fn statements() -> File {
    let mut file = Reject::new("statement", "statement", "3.2");
    let (public, good) = statement(1);
    let input = statement_input(&public, &good);
    assert_eq!(input["origin"], ORIGIN);
    for origin in ["https://backup.example", "http://backup.example:8443", "https://backup.example:8443/"] {
        file.case(
            &format!("signed for another origin than {origin}"),
            changed(&input, "origin", origin),
            "signature",
        );
    }
    let other = statement(2);
    file.case("the recovery key's", changed(&input, "public", other.0), "signature");
    let mut purpose = good.clone();
    purpose.purpose = 2;
    file.case("another purpose", statement_input(&public, &purpose), "signature");
    let mut nonce = good.clone();
    nonce.server_nonce = nonce.client_nonce;
    file.case("another server nonce", statement_input(&public, &nonce), "signature");
    let mut device = good;
    device.device = WORLD.devices[B].id();
    file.case("another device", statement_input(&public, &device), "signature");
    file.file()
}

fn actions() -> File {
    let mut file = Reject::new("action", "action", "3.3");
    let good = action_input(6, b"body");
    file.case("another action", changed(&good, "action", 7), "signature");
    file.case("another body", changed(&good, "body", hex("Body")), "signature");
    file.case("another log index", changed(&good, "log-index", 4), "signature");
    file.case("another log head", changed(&good, "log-head", hex([0; 32])), "signature");
    file.case("another account", changed(&good, "account", hex([1; 16])), "signature");
    let device = hex(WORLD.devices[A].sign_public().as_bytes());
    file.case("a device in the identity's place", changed(&good, "identity", device), "signature");
    file.file()
}

fn deletions() -> File {
    let mut file = Reject::new("vault-deletion", "vault-deletion", "4.2");
    let good = deletion_input();
    file.case("another vault", changed(&good, "vault", hex([1; 16])), "signature");
    file.case("another account", changed(&good, "account", hex([1; 16])), "signature");
    file.case("the signature is zero", changed(&good, "signature", hex([0; 64])), "signature");
    file.file()
}
