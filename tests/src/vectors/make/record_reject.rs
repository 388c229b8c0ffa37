//! What is refused of envelopes, vault-log entries, commits, change lists and repairs by themselves.

use super::chain::{gave_up, repaired, rotated};
use super::record::{EPOCH_KEYS, blob_ref, commit_input, content, envelope_input, repair_input, vault_keys};
use crate::vectors::world::{A, B, WORLD, envelope, fixed, put, record, sign_by, tombstone};
use crate::vectors::{File, Reject, hex};
use ed25519_dalek::SigningKey;
use lockstep_client_crypto::content::Content;
use lockstep_client_crypto::seal;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_proto::cbor::{ByteArray, Wire as _, encode};
use lockstep_proto::commit::{Change, Changes, Commit, RepairPlace};
use lockstep_proto::envelope::{Envelope, EnvelopeHeader, blob_list_digest, padded_size};
use lockstep_proto::hash::Digest;
use lockstep_proto::id::{BlobId, Epoch, RecordId, Revision, Seq, VaultId};
use lockstep_proto::label;
use lockstep_proto::sign::Signed;
use lockstep_proto::vault_log::VaultLogEntry;
use serde_json::{Value, json};

pub(super) fn reject() -> Vec<File> {
    vec![envelopes(), too_many_objects(), vault_log_entries(), commits(), change_lists(), repairs()]
}

/// An envelope put together by its parts, so that any rule can be broken.
struct Parts {
    content: Content,
    header: EnvelopeHeader,
}

impl Parts {
    fn new(content: Content) -> Self {
        let record = vault_keys(WORLD.files_id()).record_id(&content.record_type, &content.name.0);
        let header = EnvelopeHeader {
            version: 0x82,
            suite: 1,
            kind: 1,
            vault: WORLD.files_id(),
            record,
            revision: Revision::new(1),
            epoch: Epoch::new(1),
            device: WORLD.devices[A].id(),
            blobs: blob_list_digest(&content.blob_ids()),
            nonce: ByteArray(fixed("envelope nonce")),
        };
        Self { content, header }
    }

    fn plaintext(encoding: &[u8]) -> Vec<u8> {
        let length = u32::try_from(encoding.len()).unwrap();
        let mut plaintext = [&length.to_be_bytes(), encoding].concat();
        plaintext.resize(usize::try_from(padded_size(u64::from(length) + 4)).unwrap(), 0);
        plaintext
    }

    fn seal(&self) -> Vec<u8> {
        self.seal_plaintext(&Self::plaintext(&self.content.encode()))
    }

    fn seal_plaintext(&self, plaintext: &[u8]) -> Vec<u8> {
        self.seal_under(&self.header.encode(), plaintext, &EPOCH_KEYS[0])
    }

    fn seal_under(&self, header: &[u8], plaintext: &[u8], key: &[u8; 32]) -> Vec<u8> {
        let key = SecretKey::from_bytes(key);
        let (commitment, ciphertext) =
            seal::seal(&key, label::ENVELOPE_HEADER, header, &self.header.nonce.0, plaintext);
        Envelope { header: header.into(), commitment, ciphertext: ciphertext.into() }.encode()
    }
}

fn open_case(envelope: &[u8]) -> Value {
    envelope_input(1, envelope)
}

fn envelopes() -> File {
    let mut file = Reject::new("envelope", "envelope", "5");
    let good = Parts::new(content(20));
    let known = crate::vectors::run::run("envelope", open_case(&good.seal()).as_object().unwrap());
    assert!(known.is_ok(), "the parts are put together as the protocol says");
    headers(&mut file);
    plaintexts(&mut file, &good);
    contents(&mut file);
    swaps(&mut file, &good);
    for (fault, bytes, _) in super::coding_reject::spoilt(&good.header.encode(), 512) {
        let sealed = good.seal_under(&bytes, &Parts::plaintext(&good.content.encode()), &EPOCH_KEYS[0]);
        file.case(&format!("header: {fault}"), open_case(&sealed), "open");
    }
    let whole = good.seal();
    let cut = whole.len() - 1;
    file.case("its last byte is missing", open_case(&whole[..cut]), "open");
    file.case("a byte follows", open_case(&[&whole[..], &[0]].concat()), "open");
    file.case("it is empty", open_case(&[]), "open");
    file.case("an array of indefinite length", open_case(&[&[0x9f], &whole[1..], &[0xff]].concat()), "open");
    file.file()
}

fn headers(file: &mut Reject) {
    let mut change = |fault: &str, change: &dyn Fn(&mut EnvelopeHeader)| {
        let mut parts = Parts::new(content(20));
        change(&mut parts.header);
        file.case(fault, open_case(&parts.seal()), "open");
    };
    change("kind 0", &|header| header.kind = 0);
    change("kind 3", &|header| header.kind = 3);
    change("revision 0", &|header| header.revision = Revision::new(0));
    change("epoch 0", &|header| header.epoch = Epoch::new(0));
    change("an epoch without a key", &|header| header.epoch = Epoch::new(3));
    change("another vault", &|header| header.vault = VaultId::from_bytes([1; 16]));
    change("the record is not that of type and name", &|header| {
        header.record = RecordId::from_bytes([1; 16]);
    });
    change("the digest of objects is not that of the content", &|header| header.blobs = Digest::ZERO);
    change("a tombstone with a document", &|header| header.kind = 2);
}

fn plaintexts(file: &mut Reject, good: &Parts) {
    let plaintext = Parts::plaintext(&good.content.encode());
    let mut change = |fault: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut plaintext = plaintext.clone();
        change(&mut plaintext);
        file.case(fault, open_case(&good.seal_plaintext(&plaintext)), "open");
    };
    change("the last byte of padding is not zero", &|plain| *plain.last_mut().unwrap() = 1);
    change("the first byte of padding is not zero", &|plain| plain[4 + good.content.encode().len()] = 1);
    change("a byte of padding is missing", &|plain| plain.truncate(255));
    change("there is no padding", &|plain| plain.truncate(4 + good.content.encode().len()));
    change("the next size of padding", &|plain| plain.resize(272, 0));
    change("the length is beyond the end", &|plain| plain[..4].copy_from_slice(&300_u32.to_be_bytes()));
    change("the length is 2^32 - 1", &|plain| plain[..4].copy_from_slice(&[0xff; 4]));
    change("the length is one less", &|plain| plain[3] -= 1);
    change("the length is one more", &|plain| plain[3] += 1);
    change("the plaintext has three bytes", &|plain| plain.truncate(3));
    change("the plaintext is empty", &|plain| plain.clear());
    let mut encoded = |fault: &str, bytes: Vec<u8>| {
        file.case(fault, open_case(&good.seal_plaintext(&Parts::plaintext(&bytes))), "open");
    };
    let encoding = good.content.encode();
    encoded("a byte follows the content", [&encoding[..], &[0]].concat());
    encoded("the content is an array of indefinite length", [&[0x9f], &encoding[1..], &[0xff]].concat());
    encoded("the content has one item more", [&[0x8c], &encoding[1..], &[0xf6]].concat());
    encoded("the content's manifest is a number", [&encoding[..encoding.len() - 1], &[0]].concat());
    encoded("the content's manifest is undefined", [&encoding[..encoding.len() - 1], &[0xf7]].concat());
}

fn contents(file: &mut Reject) {
    let mut change = |fault: &str, change: &dyn Fn(&mut Content)| {
        let mut content = content(20);
        change(&mut content);
        file.case(fault, open_case(&Parts::new(content).seal()), "open");
    };
    change("codec 1: reserved", &|content| content.codec = 1);
    change("an empty type", &|content| content.record_type.clear());
    change("a type of 129 bytes", &|content| content.record_type = "a".repeat(129));
    change("a name of 8,193 bytes", &|content| content.name = vec![0x61; 8193].into());
    change("conflict-of has 15 bytes", &|content| content.conflict_of = vec![1; 15].into());
    change("conflict-of has 17 bytes", &|content| content.conflict_of = vec![1; 17].into());
    let mut tombstone = Parts::new(Content { blobs: vec![blob_ref(1)], ..content(0) });
    tombstone.header.kind = 2;
    file.case("a tombstone with an object", open_case(&tombstone.seal()), "open");
}

fn too_many_objects() -> File {
    let mut file = Reject::new("envelope-objects", "envelope", "5");
    let content = Content { blobs: vec![blob_ref(1); 1025], ..content(20) };
    file.case("1,025 references to objects", open_case(&Parts::new(content).seal()), "open");
    file.file()
}

fn swaps(file: &mut Reject, good: &Parts) {
    let sealed = Envelope::decode(&good.seal()).unwrap();
    let mut header = |fault: &str, change: &dyn Fn(&mut EnvelopeHeader)| {
        let mut header = good.header.clone();
        change(&mut header);
        let swapped = Envelope { header: header.encode().into(), ..sealed.clone() };
        file.case(fault, open_case(&swapped.encode()), "open");
    };
    header("another revision in its header", &|header| header.revision = Revision::new(2));
    header("another device in its header", &|header| header.device = WORLD.devices[B].id());
    header("another record in its header", &|header| header.record = record(1));
    header("another kind in its header", &|header| header.kind = 2);
    header("another epoch in its header", &|header| header.epoch = Epoch::new(2));
    header("another nonce in its header", &|header| header.nonce = ByteArray([0; 24]));
    header("another digest of objects in its header", &|header| header.blobs = Digest::ZERO);
    let zero = Envelope { commitment: Digest::ZERO, ..sealed.clone() };
    file.case("the commitment is zero", open_case(&zero.encode()), "open");
    let plaintext = Parts::plaintext(&good.content.encode());
    let second = good.seal_under(&good.header.encode(), &plaintext, &EPOCH_KEYS[1]);
    file.case("sealed under another epoch's key", open_case(&second), "open");
    let second = Envelope::decode(&second).unwrap();
    let salamander = Envelope { ciphertext: second.ciphertext, ..sealed.clone() };
    let mut input = open_case(&salamander.encode());
    input["key"] = hex(EPOCH_KEYS[1]).into();
    file.case("the ciphertext opens under this key, the commitment is to another one", input, "open");
    let cut = Envelope { ciphertext: sealed.ciphertext.0[..15].into(), ..sealed.clone() };
    file.case("the ciphertext is shorter than a tag", open_case(&cut.encode()), "open");
    let mut foreign = open_case(&sealed.encode());
    foreign["secret"] = hex([1; 32]).into();
    file.case("another vault secret: the record is another", foreign, "open");
}

fn vault_log_entries() -> File {
    let mut file = Reject::new("vault-log-entry", "vault-log-entry", "4.1");
    let rotation = Changes::decode(&rotated()[5].1).unwrap().rotation().unwrap().clone();
    let (create, rotate) = (
        VaultLogEntry::decode(&WORLD.files.create.bytes.0).unwrap(),
        VaultLogEntry::decode(&rotation.bytes.0).unwrap(),
    );
    let sign = |entry: &VaultLogEntry| {
        commit_input(A, &WORLD.devices[A].sign(label::VAULT_LOG_ENTRY, entry.encode()))
    };
    let mut change = |fault: &str, good: &VaultLogEntry, change: &dyn Fn(&mut VaultLogEntry)| {
        let mut entry = good.clone();
        change(&mut entry);
        file.case(fault, sign(&entry), "malformed");
    };
    for (kind, name) in [(3, "add member"), (4, "remove member"), (5, "role")] {
        change(&format!("kind {kind}, {name}: reserved"), &rotate, &|entry| entry.kind = kind);
    }
    change("kind 0", &rotate, &|entry| entry.kind = 0);
    change("kind 6", &rotate, &|entry| entry.kind = 6);
    change("a creation at index 1", &create, &|entry| entry.index = 1);
    change("a creation with an entry before it", &create, &|entry| {
        entry.previous = Digest::from_bytes([1; 32]);
    });
    change("a creation of epoch 2", &create, &|entry| entry.epoch = Epoch::new(2));
    change("a creation of epoch 0", &create, &|entry| entry.epoch = Epoch::new(0));
    change("a rotation at index 0", &rotate, &|entry| entry.index = 0);
    change("a rotation at index 4,096", &rotate, &|entry| entry.index = 4096);
    file.case(
        "signed by another device",
        commit_input(A, &WORLD.devices[B].sign(label::VAULT_LOG_ENTRY, create.encode())),
        "signature",
    );
    file.case(
        "signed under another label",
        commit_input(A, &WORLD.devices[A].sign(label::COMMIT, create.encode())),
        "signature",
    );
    file.file()
}

fn commits() -> File {
    let mut file = Reject::new("commit", "commit", "6.1");
    let (genesis, second) = (
        Commit::decode(&WORLD.plain[0].0.bytes.0).unwrap(),
        Commit::decode(&WORLD.plain[1].0.bytes.0).unwrap(),
    );
    let sign = |commit: &Commit| commit_input(A, &WORLD.devices[A].sign(label::COMMIT, commit.encode()));
    let mut change = |fault: &str, good: &Commit, change: &dyn Fn(&mut Commit)| {
        let mut commit = good.clone();
        change(&mut commit);
        file.case(fault, sign(&commit), "malformed");
    };
    change("kind 4, purge: a later draft", &second, &|commit| commit.kind = 4);
    change("kind 0", &second, &|commit| commit.kind = 0);
    change("kind 6", &second, &|commit| commit.kind = 6);
    change("a genesis at seq 1", &second, &|commit| commit.kind = 1);
    for (kind, name) in [(2, "change"), (3, "rotation"), (5, "repair")] {
        change(&format!("a {name} at seq 0"), &genesis, &|commit| commit.kind = kind);
    }
    file.case(
        "signed by another device",
        commit_input(A, &WORLD.devices[B].sign(label::COMMIT, second.encode())),
        "signature",
    );
    let label = WORLD.devices[A].sign(label::VAULT_LOG_ENTRY, second.encode());
    file.case("signed under another label", commit_input(A, &label), "signature");
    let moved = Signed { signature: WORLD.plain[0].0.signature, ..WORLD.plain[1].0.clone() };
    file.case("another commit's signature", commit_input(A, &moved), "signature");
    file.file()
}

fn blobs(count: u16) -> Vec<BlobId> {
    let id = |n: u16| BlobId::from_bytes([[0; 14].as_slice(), &n.to_be_bytes()].concat().try_into().unwrap());
    (0..count).map(id).collect()
}

fn change_lists() -> File {
    let mut file = Reject::new("changes", "changes", "6.1");
    let mut refuse = |fault: &str, list: Vec<Change>| {
        file.case(fault, json!({ "bytes": hex(Changes(list).encode()) }), "malformed");
    };
    let (pin, unpin) = (|seq| Change::Pin(Seq::new(seq)), |seq| Change::Unpin(Seq::new(seq)));
    refuse("records descend", vec![put(2, 1, &[]), put(1, 1, &[])]);
    refuse("a record twice", vec![put(1, 1, &[]), put(1, 2, &[])]);
    refuse("a put and a tombstone of one record", vec![put(1, 1, &[]), tombstone(1, 2)]);
    refuse("a pin before a record", vec![pin(1), put(1, 1, &[])]);
    refuse("pins descend", vec![pin(2), pin(1)]);
    refuse("a seq pinned twice", vec![pin(1), pin(1)]);
    refuse("a seq pinned and unpinned", vec![pin(1), unpin(1)]);
    refuse("a put of revision 0", vec![put(1, 0, &[])]);
    refuse("a tombstone of revision 0", vec![tombstone(1, 0)]);
    refuse("objects descend", vec![put(1, 1, &[2, 1])]);
    refuse("an object twice", vec![put(1, 1, &[1, 1])]);
    let many = |blobs| Change::Put {
        record: record(1),
        revision: Revision::new(1),
        envelope: envelope(1, 1),
        blobs,
    };
    refuse("1,025 objects", vec![many(blobs(1025))]);
    refuse("4,097 changes", (0..4097).map(pin).collect());
    let rotation = Changes::decode(&rotated()[5].1).unwrap().0[0].clone();
    refuse("a rotation and a put", vec![rotation.clone(), put(1, 1, &[])]);
    refuse("a put and a rotation", vec![put(1, 1, &[]), rotation.clone()]);
    refuse("two rotations", vec![rotation.clone(), rotation.clone()]);
    let back = Change::GoBack(Seq::new(1));
    let authority = Change::Authority(ByteArray([1; 64]));
    let abandon = |seq, n| Change::Abandon(Seq::new(seq), Digest::from_bytes([n; 32]));
    refuse("a way back without authority", vec![back.clone()]);
    refuse("an abandoned commit without authority", vec![abandon(1, 1)]);
    refuse("an authority for nothing", vec![authority.clone()]);
    refuse("two ways back", vec![back.clone(), back.clone(), authority.clone()]);
    refuse("a way back after an abandoned commit", vec![abandon(1, 1), back.clone(), authority.clone()]);
    refuse("abandoned commits descend", vec![abandon(2, 1), abandon(1, 1), authority.clone()]);
    refuse(
        "abandoned commits of one seq descend by hash",
        vec![abandon(1, 2), abandon(1, 1), authority.clone()],
    );
    refuse("an abandoned commit twice", vec![abandon(1, 1), abandon(1, 1), authority.clone()]);
    refuse("a put in a repair", vec![put(1, 1, &[]), back.clone(), authority.clone()]);
    refuse("a pin in a repair", vec![back.clone(), pin(1), authority.clone()]);
    refuse("a rotation in a repair", vec![rotation, back.clone(), authority.clone()]);
    refuse("the authority is not last", vec![authority.clone(), back.clone()]);
    refuse("two authorities", vec![back, authority.clone(), authority]);
    let mut kind =
        |fault: &str, bytes: Vec<u8>| file.case(fault, json!({ "bytes": hex(bytes) }), "malformed");
    kind("kind 3, purge: reserved", encode(&[(3, record(1), Seq::new(1))]));
    let (digest, none): (Digest, Vec<BlobId>) = (Digest::ZERO, Vec::new());
    kind("kind 6, put with a manifest: reserved", encode(&[(6, record(1), 1, digest, none, Digest::ZERO)]));
    kind("kind 0", encode(&[(0, 1)]));
    kind("kind 11", encode(&[(11, 1)]));
    kind("kind 255", encode(&[(255, 1)]));
    file.file()
}

fn repairs() -> File {
    let mut file = Reject::new("repair", "repair", "6.7");
    let good = repair_input(&repaired(), 7);
    let changed = |name: &str, value: Value| {
        let mut input = good.clone();
        input[name] = value;
        input
    };
    file.case("another account", changed("account", hex([1; 16]).into()), "signature");
    file.case("another vault", changed("vault", hex([1; 16]).into()), "signature");
    file.case("another seq", changed("seq", 8.into()), "signature");
    file.case("another commit before it", changed("previous", hex([1; 32]).into()), "signature");
    file.case("another author", changed("device", hex(WORLD.devices[B].id().as_bytes()).into()), "signature");
    let device = hex(WORLD.devices[A].sign_public().as_bytes());
    file.case("a device in the identity's place", changed("identity", device.into()), "signature");
    file.case("no repair", changed("changes", hex(&WORLD.plain[1].1).into()), "malformed");
    let commit = Commit::decode(&repaired()[7].0.bytes.0).unwrap();
    let says = [Change::GoBack(Seq::new(3))];
    let authority = Changes::decode(&repaired()[7].1).unwrap().0[1].clone();
    let list = Changes(vec![says[0].clone(), authority]).encode();
    file.case(
        "it goes back to another commit than was signed",
        changed("changes", hex(list).into()),
        "signature",
    );
    let place = RepairPlace {
        vault: commit.vault,
        seq: commit.seq,
        previous: commit.previous,
        device: commit.device,
    };
    let input = lockstep_proto::commit::repair_input(WORLD.id(), &place, &says);
    let by_device = sign_by(&SigningKey::from_bytes(&[7; 32]), label::REPAIR, input).signature;
    let list = Changes(vec![says[0].clone(), Change::Authority(by_device)]).encode();
    file.case("the authority is by another key", changed("changes", hex(list).into()), "signature");
    let mut given_up = repair_input(&gave_up().1, 4);
    given_up["changes"] = hex(&repaired()[7].1).into();
    file.case("the authority of another repair", given_up, "signature");
    file.file()
}
