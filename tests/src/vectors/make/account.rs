//! The key hierarchy and the device log: golden files.

use crate::vectors::json::signed_hex;
use crate::vectors::world::{A, C, PASSPHRASE, WORLD, fixed};
use crate::vectors::{File, Golden, hex};
use lockstep_client_crypto::device::sign_recovery_statement;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_client_crypto::seal;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_proto::api::auth::{PURPOSE_DEVICE, PURPOSE_RECOVERY, Statement};
use lockstep_proto::cbor::{ByteArray, Wire as _, encode};
use lockstep_proto::device_log::{DeviceLogEntry, Enrol, KIND_ENROL};
use lockstep_proto::hash::Digest;
use lockstep_proto::id::DeviceId;
use lockstep_proto::key_header::{KeyHeader, Wrap};
use lockstep_proto::label;
use lockstep_proto::version::{SUITE, VERSION};
use serde_json::{Value, json};

pub(super) fn golden() -> Vec<File> {
    vec![
        passphrases(),
        recovery_keks(),
        wraps(),
        key_headers(),
        unlocks(),
        device_seals(),
        device_logs(),
        device_log_stages(),
        entries(),
        names(),
        statements(),
        actions(),
        deletions(),
    ]
}

fn passphrases() -> File {
    let mut file =
        Golden::new("passphrase-kek", "passphrase-kek", "2.1", "KEK of a passphrase; NFKC, both profiles");
    let account = hex(WORLD.id().as_bytes());
    let salt = hex(fixed::<16>("passphrase salt"));
    let cases: [(&str, &str, &str, u8); 9] = [
        ("plain", PASSPHRASE, PASSPHRASE, 1),
        ("plain, profile 2", PASSPHRASE, PASSPHRASE, 2),
        ("composed", "caf\u{e9}", "caf\u{e9}", 1),
        ("decomposed, the same", "cafe\u{301}", "caf\u{e9}", 1),
        ("ligature, full width, circled", "\u{fb01}ne \u{ff21}\u{ff22} \u{2460}", "fine AB 1", 1),
        ("marks in another order", "q\u{307}\u{323}", "q\u{323}\u{307}", 1),
        ("Hangul of parts", "\u{1112}\u{1161}\u{11ab}", "\u{d55c}", 1),
        ("spaces are kept, no-break ones become plain", " a\u{a0}b  ", " a b  ", 1),
        (
            "angstrom, long s with dots, emoji",
            "\u{212b} \u{1e9b}\u{323} \u{1f600}",
            "\u{c5} \u{1e69} \u{1f600}",
            2,
        ),
    ];
    for (name, typed, normalised, profile) in cases {
        let input = json!({ "passphrase": typed, "account": account, "profile": profile, "salt": salt });
        file.case(name, input, json!({ "normalised": hex(normalised) }));
    }
    file.file()
}

fn recovery_keks() -> File {
    let mut file = Golden::new("recovery-kek", "recovery-kek", "2.1", "KEK and login key of a recovery key")
        .plain(&["recovery", "account", "salt"]);
    for (name, key) in [("first", WORLD.recovery[0]), ("second", WORLD.recovery[1])] {
        let input =
            json!({ "recovery": hex(key), "account": hex(WORLD.id().as_bytes()), "salt": hex([3; 16]) });
        file.case(name, input, json!({}));
    }
    file.file()
}

pub(super) fn header_at(entry: usize) -> KeyHeader {
    KeyHeader::decode(&WORLD.log[entry].key_header.bytes.0).unwrap()
}

pub(super) fn wrap_input(wrap: &Wrap, kek: &[u8; 32]) -> Value {
    json!({
        "kek": hex(kek),
        "account": hex(WORLD.id().as_bytes()),
        "role": wrap.role,
        "profile": wrap.profile,
        "salt": hex(wrap.salt.0),
        "nonce": hex(wrap.nonce.0),
        "commitment": hex(wrap.commitment.as_bytes()),
        "ciphertext": hex(wrap.ciphertext.0),
    })
}

pub(super) fn passphrase_kek(entry: usize, passphrase: &str) -> [u8; 32] {
    let wrap = &header_at(entry).wraps[0];
    let kek = Passphrase::new(passphrase).unwrap().derive_kek(WORLD.id(), wrap.profile, &wrap.salt).unwrap();
    *kek.expose()
}

pub(super) fn recovery_wrap_kek(entry: usize, key: &[u8; 32]) -> [u8; 32] {
    let salt = header_at(entry).wraps[1].salt;
    let info = encode(&(label::RECOVERY_KEK.as_str(), WORLD.id(), salt));
    *lockstep_client_crypto::kdf::expand::<32>(&SecretKey::from_bytes(key), &info)
}

/// A wrap of the same root under profile 2, which new wraps do not use.
pub(super) fn wrap_of_profile_2(root: &[u8]) -> (Wrap, [u8; 32]) {
    let mut wrap = Wrap {
        role: 1,
        profile: 2,
        salt: ByteArray(fixed("wrap salt")),
        nonce: ByteArray(fixed("wrap nonce")),
        commitment: Digest::ZERO,
        ciphertext: ByteArray([0; 48]),
    };
    let kek = Passphrase::new(PASSPHRASE).unwrap().derive_kek(WORLD.id(), 2, &wrap.salt).unwrap();
    let header = encode(&(VERSION, SUITE, WORLD.id(), wrap.role, wrap.profile, wrap.salt, wrap.nonce));
    let (commitment, ciphertext) = seal::seal(&kek, label::ROOT_WRAP, &header, &wrap.nonce.0, root);
    wrap.commitment = commitment;
    wrap.ciphertext = ByteArray(ciphertext.try_into().unwrap());
    (wrap, *kek.expose())
}

pub(super) const WRAP_BYTES: &[&str] = &["kek", "account", "salt", "nonce", "commitment", "ciphertext"];

fn wraps() -> File {
    let mut file =
        Golden::new("wrap", "wrap", "2.2", "Wraps of the root key, under KEKs that are derived already")
            .sealed(WRAP_BYTES);
    let known = json!({ "identity": hex(WORLD.identity()) });
    let (first, last) = (header_at(0), header_at(5));
    let passphrase = wrap_input(&first.wraps[0], &passphrase_kek(0, PASSPHRASE));
    file.case("passphrase", passphrase.clone(), known.clone());
    let changed = wrap_input(&last.wraps[0], &passphrase_kek(5, "another passphrase"));
    file.case("passphrase, changed", changed, known.clone());
    file.case(
        "recovery key",
        wrap_input(&first.wraps[1], &recovery_wrap_kek(0, &WORLD.recovery[0])),
        known.clone(),
    );
    file.case(
        "second recovery key",
        wrap_input(&last.wraps[1], &recovery_wrap_kek(5, &WORLD.recovery[1])),
        known.clone(),
    );
    let root = crate::vectors::run::run("wrap", passphrase.as_object().unwrap()).unwrap();
    let root = crate::vectors::unhex(root["root"].as_str().unwrap()).unwrap();
    let (wrap, kek) = wrap_of_profile_2(&root);
    file.case("passphrase, profile 2", wrap_input(&wrap, &kek), known);
    file.file()
}

const STAGES: [&str; 6] = [
    "first device",
    "a second device",
    "another recovery key",
    "a third device",
    "after a revocation: epoch 2, one link",
    "another passphrase",
];

pub(super) fn header_input(entry: usize) -> Value {
    json!({ "account": hex(WORLD.id().as_bytes()), "signed": signed_hex(&WORLD.log[entry].key_header) })
}

fn key_headers() -> File {
    let mut file =
        Golden::new("key-header", "key-header", "2.2", "The key header of each entry of the device log")
            .sealed(&["account", "signed"]);
    for (entry, name) in STAGES.iter().enumerate() {
        let known = json!({ "identity": hex(WORLD.identity()), "counter": entry + 1 });
        file.case(name, header_input(entry), known);
    }
    file.file()
}

fn unlocks() -> File {
    let mut file = Golden::new(
        "unlock",
        "unlock",
        "2.2, 4.2",
        "The keyring's keys with the recovery key, through wrap, keyring and links",
    )
    .sealed(&["recovery"]);
    for (entry, name) in STAGES.iter().enumerate() {
        let mut input = header_input(entry);
        input["recovery"] = hex(WORLD.recovery[usize::from(entry >= 2)]).into();
        let keys = WORLD.account.keyring().keys().take(if entry < 4 { 1 } else { 2 });
        let keys: Vec<_> = keys.map(|(_, key)| hex(key.expose())).collect();
        let secret = hex(WORLD.account.keyring().vault_secret().expose());
        file.case(name, input, json!({ "keys": keys, "vault-secret": secret }));
    }
    file.file()
}

/// The seed of a device's seal key, from its file.
fn seal_seed(device: usize) -> Vec<u8> {
    type Stored = (u8, DeviceId, ByteArray<32>, ByteArray<32>, ByteArray<32>, ByteArray<32>);
    let stored: Stored = lockstep_proto::cbor::decode_local(&WORLD.devices[device].to_bytes()).unwrap();
    stored.3.0.to_vec()
}

pub(super) fn seal_input(entry: usize, device: usize) -> Value {
    let header = header_at(entry);
    let id = WORLD.devices[device].id();
    let seal = header.keyring.seals.iter().find(|seal| seal.device == id).unwrap();
    json!({
        "identity": hex(WORLD.identity()),
        "account": hex(WORLD.id().as_bytes()),
        "epoch": header.keyring.epoch.value(),
        "device": hex(id.as_bytes()),
        "seal-seed": hex(seal_seed(device)),
        "encapsulated": hex(seal.encapsulated.0),
        "ciphertext": hex(seal.ciphertext.0),
    })
}

fn device_seals() -> File {
    let mut file =
        Golden::new("device-seal", "device-seal", "2.2", "The keyring key, sealed to a device by HPKE")
            .sealed(&["identity", "account", "device", "seal-seed", "encapsulated", "ciphertext"]);
    let keys: Vec<_> = WORLD.account.keyring().keys().map(|(_, key)| hex(key.expose())).collect();
    file.case("device A, epoch 1", seal_input(0, A), json!({ "key": keys[0] }));
    file.case("device C, epoch 2", seal_input(4, C), json!({ "key": keys[1] }));
    file.file()
}

pub(super) fn log_input(entries: usize) -> Value {
    let log: Vec<_> = WORLD.log[..entries].iter().map(|enrolment| signed_hex(&enrolment.entry)).collect();
    json!({
        "account": hex(WORLD.id().as_bytes()),
        "identity": hex(WORLD.identity()),
        "log": log,
        "key-header": signed_hex(&WORLD.log[entries - 1].key_header),
    })
}

fn device_logs() -> File {
    let mut file =
        Golden::new("device-log", "device-log", "3.1", "The whole device log, with its key header")
            .sealed(&["account", "identity", "log", "key-header"]);
    file.case("six entries", log_input(6), json!({ "entries": 6, "keyring-epoch": 2 }));
    file.file()
}

fn device_log_stages() -> File {
    let about = "The device log after each entry, with its key header";
    let mut file =
        Golden::new("device-log-stages", "device-log", "3.1", about).sealed(&["account", "identity"]);
    for (entry, name) in STAGES.iter().enumerate() {
        file.case(name, log_input(entry + 1), json!({ "entries": entry + 1 }));
    }
    file.file()
}

fn entries() -> File {
    let mut file =
        Golden::new("device-log-entry", "device-log-entry", "3.1", "One entry of each kind, with its body")
            .sealed(&["identity", "signed"]);
    for (entry, name) in STAGES.iter().enumerate() {
        let signed = signed_hex(&WORLD.log[entry].entry);
        file.case(name, json!({ "identity": hex(WORLD.identity()), "signed": signed }), json!({}));
    }
    file.file()
}

pub(super) fn name_input(entry: usize) -> Value {
    let entry = DeviceLogEntry::decode(&WORLD.log[entry].entry.bytes.0).unwrap();
    assert_eq!(entry.kind, KIND_ENROL);
    let enrol = Enrol::decode(&entry.body.0).unwrap();
    let key = WORLD.account.keyring().key(enrol.name.epoch).unwrap();
    json!({
        "key": hex(key.expose()),
        "account": hex(WORLD.id().as_bytes()),
        "device": hex(enrol.device.as_bytes()),
        "epoch": enrol.name.epoch.value(),
        "nonce": hex(enrol.name.nonce.0),
        "commitment": hex(enrol.name.commitment.as_bytes()),
        "ciphertext": hex(enrol.name.ciphertext.0),
    })
}

fn names() -> File {
    let mut file = Golden::new("device-name", "device-name", "3.1", "Names of devices in the device log")
        .sealed(&["key", "account", "device", "nonce", "commitment", "ciphertext"]);
    file.case("short", name_input(0), json!({ "name": "laptop" }));
    file.case("as long as it can be", name_input(1), json!({}));
    file.case("empty", name_input(3), json!({ "name": "" }));
    file.file()
}

pub(super) const ORIGIN: &str = "https://backup.example:8443";

pub(super) fn statement(purpose: u8) -> (String, Statement) {
    let mut statement = Statement {
        account: WORLD.id(),
        device: DeviceId::ZERO,
        purpose,
        server_nonce: Digest::from_bytes(fixed("server nonce")),
        client_nonce: Digest::from_bytes(fixed("client nonce")),
        signature: ByteArray([0; 64]),
    };
    if purpose == PURPOSE_DEVICE {
        statement.device = WORLD.devices[A].id();
        let public = WORLD.devices[A].sign_public();
        (hex(public.as_bytes()), WORLD.devices[A].sign_statement(ORIGIN, statement))
    } else {
        let text = lockstep_proto::recovery::recovery_key_text(&WORLD.recovery[1]);
        let key = RecoveryKey::parse(&text).unwrap();
        let public = key.login_public();
        (hex(public.as_bytes()), sign_recovery_statement(&key, ORIGIN, statement))
    }
}

pub(super) fn statement_input(public: &str, statement: &Statement) -> Value {
    json!({ "public": public, "origin": ORIGIN, "statement": hex(statement.encode()) })
}

fn statements() -> File {
    let mut file =
        Golden::new("statement", "statement", "3.2", "Sign-in statements").sealed(&["public", "statement"]);
    for (name, purpose) in [("device", PURPOSE_DEVICE), ("recovery", PURPOSE_RECOVERY)] {
        let (public, statement) = statement(purpose);
        file.case(name, statement_input(&public, &statement), json!({}));
    }
    file.file()
}

pub(super) fn action_input(action: u8, body: &[u8]) -> Value {
    let log = WORLD.log();
    let (index, head) = if action == 1 { (0, Digest::ZERO) } else { (log.next_index() - 1, log.head()) };
    let signature = WORLD.account.authorise(action, body, index, head);
    json!({
        "identity": hex(WORLD.identity()),
        "account": hex(WORLD.id().as_bytes()),
        "action": action,
        "body": hex(body),
        "log-index": index,
        "log-head": hex(head.as_bytes()),
        "signature": hex(signature.0),
    })
}

fn actions() -> File {
    let mut file = Golden::new("action", "action", "3.3", "The identity's signature over each action")
        .sealed(&["identity", "account", "body", "log-head", "signature"]);
    let names =
        ["register", "enrol", "recover", "revoke", "change credentials", "delete account", "delete vault"];
    for (name, action) in names.into_iter().zip(1..) {
        file.case(name, action_input(action, &encode(&[WORLD.id()])), json!({}));
    }
    file.file()
}

fn deletions() -> File {
    let mut file = Golden::new(
        "vault-deletion",
        "vault-deletion",
        "4.2",
        "The identity's signature that deletes a vault",
    )
    .sealed(&["identity", "account", "vault", "signature"]);
    file.case("files", deletion_input(), json!({}));
    file.file()
}

pub(super) fn deletion_input() -> Value {
    json!({
        "identity": hex(WORLD.identity()),
        "account": hex(WORLD.id().as_bytes()),
        "vault": hex(WORLD.files_id().as_bytes()),
        "signature": hex(WORLD.account.authorise_deletion(WORLD.files_id()).0),
    })
}
