//! Vaults, envelopes, commits, change lists and state: golden files.

use super::chain::rotated;
use crate::vectors::json::{signed_hex, value};
use crate::vectors::world::{A, B, UTC, WORLD, fixed, put, record, rng, tombstone};
use crate::vectors::{File, Golden, hex};
use lockstep_client_crypto::content::{BlobRef, Content, Hlc};
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::vault::{SealAs, VaultKeys};
use lockstep_proto::cbor::{ByteArray, Wire as _};
use lockstep_proto::commit::{Change, Changes, Commit};
use lockstep_proto::envelope::{KIND_DOCUMENT, KIND_TOMBSTONE};
use lockstep_proto::hash::Digest;
use lockstep_proto::id::{BlobId, Epoch, OperationId, Revision, Seq, VaultId};
use lockstep_proto::sign::Signed;
use serde_json::{Value, json};

pub(super) fn golden() -> Vec<File> {
    vec![
        secrets(),
        record_ids(),
        envelopes(),
        vault_log_entries(),
        commits(),
        change_lists(),
        states(),
        repairs(),
    ]
}

fn secrets() -> File {
    let mut file = Golden::new("vault-secrets", "vault-secrets", "4.3", "What follows from a vault's secret")
        .plain(&["secret", "vault"]);
    file.case("one", json!({ "secret": hex([5; 32]), "vault": hex([6; 16]) }), json!({}));
    let vault = hex(WORLD.files_id().as_bytes());
    file.case("another", json!({ "secret": hex(SECRET), "vault": vault }), json!({}));
    file.file()
}

fn record_ids() -> File {
    let mut file =
        Golden::new("record-id", "record-id", "4.3", "Record ids").plain(&["secret", "vault", "name"]);
    let vault = hex(WORLD.files_id().as_bytes());
    for (name, kind, record) in [
        ("a file", "lockstep/file", [&[9; 16][..], b"home/me/letter.txt"].concat()),
        ("no name", "lockstep/settings", Vec::new()),
        ("a vault key", "lockstep/vault-key", [&[9; 16][..], &7_u64.to_be_bytes()].concat()),
        ("bytes that are no text", "app/thing", vec![0, 0xff, 0xfe]),
        ("a conflict copy", "note", [&b"note"[..], &[0], &[4; 16]].concat()),
        ("the longest name", "note", vec![0x61; 8192]),
        ("a type that is not ASCII", "n\u{f6}te", b"x".to_vec()),
    ] {
        let input = json!({ "secret": hex(SECRET), "vault": vault, "type": kind, "name": hex(record) });
        file.case(name, input, json!({}));
    }
    file.file()
}

pub(super) const SECRET: [u8; 32] = [0x5e; 32];
/// Keys of epochs 1 and 2.
pub(super) const EPOCH_KEYS: [[u8; 32]; 2] = [[0xe1; 32], [0xe2; 32]];

pub(super) fn vault_keys(vault: VaultId) -> VaultKeys {
    let [first, second] = EPOCH_KEYS;
    VaultKeys::new(vault, &SecretKey::from_bytes(&SECRET))
        .with_epoch(Epoch::new(1), SecretKey::from_bytes(&first))
        .with_epoch(Epoch::new(2), SecretKey::from_bytes(&second))
}

pub(super) fn content(document: usize) -> Content {
    Content {
        record_type: "lockstep/file".into(),
        name: b"home/me/letter.txt".as_slice().into(),
        schema: 1,
        codec: 0,
        hlc: Hlc { utc_ms: UTC * 1000, counter: 3 },
        operation: OperationId::from_bytes(fixed("operation")),
        base_revision: Revision::new(0),
        conflict_of: Vec::new().into(),
        document: vec![0x64; document].into(),
        blobs: Vec::new(),
        manifest: (),
    }
}

pub(super) fn blob_ref(n: u8) -> BlobRef {
    BlobRef {
        blob: BlobId::from_bytes([n; 16]),
        size: 70_000 + u64::from(n),
        content_hash: Digest::from_bytes([n; 32]),
        seed: ByteArray([n; 32]),
        chunk_log2: 16,
    }
}

pub(super) fn envelope_input(epoch: u64, envelope: &[u8]) -> Value {
    json!({
        "secret": hex(SECRET),
        "vault": hex(WORLD.files_id().as_bytes()),
        "epoch": epoch,
        "key": hex(EPOCH_KEYS[usize::from(epoch == 2)]),
        "envelope": hex(envelope),
    })
}

fn envelopes() -> File {
    let mut file = Golden::new(
        "envelope",
        "envelope",
        "5",
        "Documents, tombstones, and contents around the sizes of padding",
    )
    .sealed(&["secret", "vault", "key", "envelope"]);
    let keys = vault_keys(WORLD.files_id());
    let mut rng = rng("envelopes");
    let small = content(0).encode().len();
    let exact = 256 - 4 - small - 1;
    let mut add = |name: &str, kind: u8, revision: u64, epoch: u64, content: &Content| {
        let seal_as = SealAs { kind, revision: Revision::new(revision), epoch: Epoch::new(epoch) };
        let sealed = keys.seal(seal_as, content, &WORLD.devices[A], &mut rng).unwrap();
        let known = json!({ "content": value(&content.encode()) });
        file.case(name, envelope_input(epoch, &sealed), known);
    };
    add("a document", KIND_DOCUMENT, 1, 1, &content(20));
    add("an empty document, revision 24, epoch 2", KIND_DOCUMENT, 24, 2, &content(0));
    add("a tombstone", KIND_TOMBSTONE, 2, 1, &Content { base_revision: Revision::new(1), ..content(0) });
    add("256 bytes of plaintext, no padding", KIND_DOCUMENT, 1, 1, &content(exact));
    add("one byte more: 272", KIND_DOCUMENT, 1, 1, &content(exact + 1));
    add("one byte less", KIND_DOCUMENT, 1, 1, &content(exact - 1));
    add("a thousand bytes", KIND_DOCUMENT, 300, 2, &content(1000));
    let copy = Content {
        name: [&b"home/me/letter.txt"[..], &[0], &fixed::<16>("operation")].concat().into(),
        conflict_of: vec![0xc0; 16].into(),
        ..content(9)
    };
    add("a conflict copy", KIND_DOCUMENT, 1, 1, &copy);
    let blobs = vec![blob_ref(9), blob_ref(2), blob_ref(9)];
    add("objects, one of them twice", KIND_DOCUMENT, 1, 1, &Content { blobs, ..content(9) });
    file.file()
}

fn vault_log_entries() -> File {
    let mut file = Golden::new("vault-log-entry", "vault-log-entry", "4.1", "Entries of vault logs")
        .sealed(&["public", "signed"]);
    let public = hex(WORLD.devices[A].sign_public().as_bytes());
    let input = |signed: &Signed| json!({ "public": public, "signed": signed_hex(signed) });
    file.case("create, of the keyring", input(&WORLD.keyring.create), json!({}));
    file.case("create", input(&WORLD.files.create), json!({}));
    let links = rotated();
    let changes = Changes::decode(&links[5].1).unwrap();
    file.case("rotate", input(changes.rotation().unwrap()), json!({}));
    file.file()
}

pub(super) fn commit_input(device: usize, signed: &Signed) -> Value {
    json!({ "public": hex(WORLD.devices[device].sign_public().as_bytes()), "signed": signed_hex(signed) })
}

fn commits() -> File {
    let mut file =
        Golden::new("commit", "commit", "6.1", "A signed commit of each kind").sealed(&["public", "signed"]);
    let (plain, rotated, back) = (&WORLD.plain, rotated(), super::chain::repaired());
    file.case("genesis", commit_input(A, &plain[0].0), json!({}));
    file.case("change", commit_input(A, &plain[1].0), json!({}));
    file.case("change by another device", commit_input(B, &plain[2].0), json!({}));
    file.case("rotate", commit_input(A, &rotated[5].0), json!({}));
    let repair = back.iter().find(|link| Commit::decode(&link.0.bytes.0).unwrap().kind == 5).unwrap();
    file.case("repair", commit_input(A, &repair.0), json!({}));
    file.file()
}

fn change_lists() -> File {
    let mut file =
        Golden::new("changes", "changes", "6.1", "Change lists: every kind of change").plain(&["bytes"]);
    let pins = vec![Change::Pin(Seq::new(3)), Change::Unpin(Seq::new(4)), Change::Pin(Seq::new(70_000))];
    let many = (1..=40).map(|n| put(n, u64::from(n), &[])).collect();
    let lists = [
        ("empty", Vec::new()),
        ("puts", vec![put(1, 1, &[]), put(2, 24, &[1, 2, 3]), put(3, 1 << 40, &[])]),
        ("tombstones", vec![tombstone(1, 2), tombstone(2, 3)]),
        ("records and pins", [vec![put(1, 1, &[]), tombstone(2, 2)], pins.clone()].concat()),
        ("pins", pins),
        ("many", many),
    ];
    for (name, list) in lists {
        let bytes = Changes(list).encode();
        file.case(
            name,
            json!({ "bytes": hex(&bytes) }),
            json!({ "digest": hex(Changes::digest_of(&bytes).as_bytes()) }),
        );
    }
    file.case("a rotation", json!({ "bytes": hex(&rotated()[5].1) }), json!({}));
    file.case("a repair that goes back", json!({ "bytes": hex(&super::chain::repaired()[7].1) }), json!({}));
    file.case("a repair that abandons", json!({ "bytes": hex(&super::chain::gave_up().1[4].1) }), json!({}));
    file.file()
}

fn states() -> File {
    let mut file = Golden::new("state", "state", "6.2", "State digests").plain(&["elements"]);
    let element = |n: u8| json!([hex(record(n).as_bytes()), u64::from(n) * 100, hex([n; 32]), u64::from(n)]);
    let set = |numbers: &[u8]| json!({ "elements": numbers.iter().map(|n| element(*n)).collect::<Vec<_>>() });
    file.case("the empty set", set(&[]), json!({ "sum": "00".repeat(2048) }));
    file.case("one element", set(&[1]), json!({}));
    file.case("five elements", set(&[1, 2, 3, 4, 5]), json!({}));
    let same = file.cases.last().unwrap()["out"].clone();
    file.case("the same in another order", set(&[4, 2, 5, 1, 3]), same);
    file.case("many", set(&(0..20).collect::<Vec<_>>()), json!({}));
    file.file()
}

pub(super) fn repair_input(links: &[(Signed, Vec<u8>)], place: usize) -> Value {
    let commit = Commit::decode(&links[place].0.bytes.0).unwrap();
    json!({
        "identity": hex(WORLD.identity()),
        "account": hex(WORLD.id().as_bytes()),
        "vault": hex(commit.vault.as_bytes()),
        "seq": commit.seq.value(),
        "previous": hex(commit.previous.as_bytes()),
        "device": hex(commit.device.as_bytes()),
        "changes": hex(&links[place].1),
    })
}

fn repairs() -> File {
    let mut file = Golden::new("repair", "repair", "6.7", "The identity's authority in a repair")
        .sealed(&["identity", "account", "vault", "previous", "device", "changes"]);
    file.case("goes back", repair_input(&super::chain::repaired(), 7), json!({}));
    file.case("gives up a chain that parted", repair_input(&super::chain::gave_up().1, 4), json!({}));
    file.file()
}
