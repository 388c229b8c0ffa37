//! Objects: golden files, and what is refused of them.

use super::record::SECRET;
use crate::vectors::world::{WORLD, fixed};
use crate::vectors::{File, Golden, Reject, hex};
use lockstep_client_crypto::blob::ObjectSealer;
use lockstep_client_crypto::content::BlobRef;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::vault::VaultKeys;
use lockstep_proto::blob::HEADER_BYTES;
use lockstep_proto::cbor::{ByteArray, encode};
use lockstep_proto::id::BlobId;
use lockstep_proto::label;
use lockstep_proto::version::{SUITE, VERSION};
use serde_json::{Value, json};
use std::sync::LazyLock;

const SMALL: [usize; 8] = [0, 1, 255, 256, 257, 272, 273, 1000];
/// Contents of one whole chunk, of one byte more, and of three chunks.
const LARGE: [usize; 4] = [65_535, 65_536, 65_537, 131_073];

fn contents(size: usize) -> Vec<u8> {
    (0..size).map(|place| u8::try_from(place % 251).unwrap()).collect()
}

fn keys() -> VaultKeys {
    VaultKeys::new(WORLD.files_id(), &SecretKey::from_bytes(&SECRET))
}

struct Made {
    reference: BlobRef,
    object: Vec<u8>,
}

fn made(size: usize) -> Made {
    let (keys, contents) = (keys(), contents(size));
    let mut hasher = keys.content_hasher();
    hasher.update(&contents);
    let reference = BlobRef {
        blob: BlobId::from_bytes(fixed(&format!("blob {size}"))),
        size: u64::try_from(size).unwrap(),
        content_hash: hasher.finish(),
        seed: ByteArray(fixed(&format!("seed {size}"))),
        chunk_log2: 16,
    };
    let (mut sealer, mut object) = ObjectSealer::new(&keys, &reference).unwrap();
    sealer.push(&contents, &mut object).unwrap();
    sealer.finish(&mut object).unwrap();
    Made { reference, object }
}

static ALL: LazyLock<Vec<(usize, Made)>> =
    LazyLock::new(|| SMALL.into_iter().chain(LARGE).map(|size| (size, made(size))).collect());

fn of(size: usize) -> &'static Made {
    &ALL.iter().find(|made| made.0 == size).unwrap().1
}

/// The object of the first case of a golden file.
pub fn golden_object(file: &str) -> &'static [u8] {
    let size = file.trim_start_matches("golden/object-").trim_end_matches(".json").parse().unwrap();
    &of(size).object
}

fn input(made: &Made, object: Value) -> Value {
    let reference = &made.reference;
    json!({
        "secret": hex(SECRET),
        "vault": hex(WORLD.files_id().as_bytes()),
        "blob": hex(reference.blob.as_bytes()),
        "size": reference.size,
        "content-hash": hex(reference.content_hash.as_bytes()),
        "seed": hex(reference.seed.0),
        "chunk-log2": reference.chunk_log2,
        "object": object,
    })
}

const SEALED: &[&str] = &["secret", "vault", "blob", "content-hash", "seed", "object"];

fn known(size: usize) -> Value {
    json!({ "content": blake3::hash(&contents(size)).to_hex().to_string() })
}

pub(super) fn golden() -> Vec<File> {
    let mut small =
        Golden::new("object", "object", "9", "Objects of one chunk; byte n of the contents is n mod 251")
            .sealed(SEALED);
    for size in SMALL {
        let made = of(size);
        small.case(&format!("{size} bytes"), input(made, hex(&made.object).into()), known(size));
    }
    let mut files = vec![small.file()];
    let names = ["object-65535", "object-65536", "object-65537", "object-131073"];
    for (size, name) in LARGE.into_iter().zip(names) {
        let mut file = Golden::new(name, "object", "9", "An object; byte n of the contents is n mod 251")
            .sealed(&["object"]);
        let made = of(size);
        file.case(&format!("{size} bytes"), input(made, hex(&made.object).into()), known(size));
        files.push(file.file());
    }
    let mut digests = Golden::new("object-digest", "object-digest", "9", "Object digests from part digests")
        .plain(&["parts"]);
    for (name, size, parts) in [("one part", 331, 1_u8), ("two", 8_388_609, 2), ("130", 1_082_130_433, 130)] {
        let parts: Vec<_> = (0..parts).map(|n| hex([n; 32])).collect();
        digests.case(name, json!({ "size": size, "parts": parts }), json!({}));
    }
    files.push(digests.file());
    files
}

/// An object whose plaintext after the contents is not zero: sealed as the protocol says but for that.
fn not_zero(size: usize) -> Value {
    let made = of(size);
    let object = sealed_as(&made.reference, &|plain| *plain.last_mut().unwrap() = 1, VERSION, 16);
    input(made, hex(object).into())
}

/// Seals the contents of one chunk by the primitives, so that any rule can be broken.
fn sealed_as(reference: &BlobRef, change: &dyn Fn(&mut Vec<u8>), version: u8, log2: u8) -> Vec<u8> {
    use chacha20poly1305::aead::{Aead as _, Payload};
    use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
    let vault = WORLD.files_id();
    let secret = lockstep_client_crypto::kdf::derive_key(
        &SecretKey::from_bytes(&SECRET),
        label::BLOB_SECRET,
        &[vault],
    );
    let info = encode(&(
        label::BLOB_KEY.as_str(),
        version,
        SUITE,
        log2,
        ByteArray(*secret.expose()),
        reference.blob,
        reference.content_hash,
    ));
    let okm = lockstep_client_crypto::kdf::expand::<83>(&SecretKey::from_bytes(&reference.seed.0), &info);
    let mut object = [&b"LSO1"[..], &[version, SUITE, log2, 0], &okm[64..], &okm[32..64]].concat();
    let size = usize::try_from(reference.size).unwrap();
    let mut plain = contents(size);
    plain.resize(usize::try_from(lockstep_proto::envelope::padded_size(reference.size)).unwrap(), 0);
    change(&mut plain);
    let associated = [&object[..], reference.blob.as_bytes()].concat();
    let nonce: [u8; 24] = [&okm[64..], &[0, 0, 0, 0, 1]].concat().try_into().unwrap();
    let key: [u8; 32] = okm[..32].try_into().unwrap();
    let cipher = XChaCha20Poly1305::new((&key).into());
    let payload = Payload { msg: &plain, aad: &associated };
    object.extend(cipher.encrypt((&nonce).into(), payload).unwrap());
    object
}

const CHUNK: usize = 65_536 + 16;

fn ranges(ranges: &[(usize, usize)]) -> Value {
    let ranges: Vec<_> = ranges.iter().map(|(from, to)| json!([from, to])).collect();
    json!({ "file": "golden/object-131073.json", "case": 0, "ranges": ranges })
}

pub(super) fn reject() -> Vec<File> {
    let mut file = Reject::new("object", "object", "9");
    headers(&mut file);
    references(&mut file);
    chunks(&mut file);
    file.case("the padding is not zero", not_zero(1000), "open");
    let same = sealed_as(&of(1000).reference, &|_| {}, VERSION, 16);
    assert_eq!(same, of(1000).object, "the primitives are put together as the protocol says");
    let short = sealed_as(&of(1000).reference, &|plain| plain.truncate(1000), VERSION, 16);
    file.case("there is no padding", input(of(1000), hex(short).into()), "open");
    let long = sealed_as(&of(1000).reference, &|plain| plain.resize(1025, 0), VERSION, 16);
    file.case("a byte of padding too many", input(of(1000), hex(long).into()), "open");
    let other = sealed_as(&of(1000).reference, &|plain| plain[0] ^= 1, VERSION, 16);
    file.case("the contents are not those of the content hash", input(of(1000), hex(other).into()), "open");
    let draft = sealed_as(&of(1000).reference, &|_| {}, 0x81, 16);
    file.case("sealed whole as another draft", input(of(1000), hex(draft).into()), "open");
    vec![file.file()]
}

fn headers(file: &mut Reject) {
    let made = of(257);
    let changed = |place: usize, byte: u8| {
        let mut object = made.object.clone();
        object[place] = byte;
        input(made, hex(object).into())
    };
    file.case("another magic", changed(3, b'2'), "open");
    file.case("draft 1 of version 1", changed(4, 0x81), "open");
    file.case("version 1", changed(4, 1), "open");
    file.case("suite 2", changed(5, 2), "open");
    file.case("chunk-log2 15", changed(6, 15), "open");
    file.case("chunk-log2 17 in the header only", changed(6, 17), "open");
    file.case("chunk-log2 21", changed(6, 21), "open");
    file.case("the reserved byte is set", changed(7, 1), "open");
    file.case("another prefix", changed(8, made.object[8] ^ 1), "open");
    file.case("another commitment", changed(27, made.object[27] ^ 1), "open");
    file.case("the first byte of the chunk is another", changed(59, made.object[59] ^ 1), "open");
    let last = made.object.len() - 1;
    file.case("the last byte of the tag is another", changed(last, made.object[last] ^ 1), "open");
    file.case("it is empty", input(made, "".into()), "open");
    file.case("the header is cut off", input(made, hex(&made.object[..58]).into()), "open");
    file.case("there is a header and nothing else", input(made, hex(&made.object[..59]).into()), "open");
    file.case("the last byte is missing", input(made, hex(&made.object[..last]).into()), "open");
    file.case("a byte follows", input(made, format!("{}00", hex(&made.object)).into()), "open");
    let second = of(256);
    let foreign = [&made.object[..HEADER_BYTES], &second.object[HEADER_BYTES..]].concat();
    file.case("header of one object, chunk of another", input(made, hex(foreign).into()), "open");
    file.case("it is another object of the vault", input(made, hex(&of(272).object).into()), "open");
}

fn references(file: &mut Reject) {
    let made = of(257);
    let good = input(made, hex(&made.object).into());
    let mut change = |fault: &str, name: &str, value: Value, class: &str| {
        let mut input = good.clone();
        input[name] = value;
        file.case(fault, input, class);
    };
    change("the reference's chunk-log2 is 17", "chunk-log2", 17.into(), "open");
    change("the reference's chunk-log2 is 15", "chunk-log2", 15.into(), "limit");
    change("the reference's chunk-log2 is 21", "chunk-log2", 21.into(), "limit");
    change("the reference's size is one byte less", "size", 256.into(), "open");
    change("the reference's size is one byte more, in the same bucket", "size", 258.into(), "open");
    change("the reference's size is of another bucket", "size", 1000.into(), "open");
    change("the reference's size is beyond what an object can be", "size", (1_u64 << 41).into(), "limit");
    change("another blob id", "blob", hex([1; 16]).into(), "open");
    change("another seed", "seed", hex([1; 32]).into(), "open");
    change("another content hash", "content-hash", hex([1; 32]).into(), "open");
    change("another vault's secret", "secret", hex([1; 32]).into(), "open");
    change("another vault", "vault", hex([1; 16]).into(), "open");
}

fn chunks(file: &mut Reject) {
    let made = of(131_073);
    let end = made.object.len();
    let at = |index: usize| (HEADER_BYTES + index * CHUNK).min(end);
    let case = |parts: &[(usize, usize)]| input(made, ranges(parts));
    file.case("the last chunk is missing", case(&[(0, at(2))]), "open");
    file.case("the middle chunk is missing", case(&[(0, at(1)), (at(2), end)]), "open");
    file.case("the first chunk is missing", case(&[(0, at(0)), (at(1), end)]), "open");
    file.case(
        "two chunks are swapped",
        case(&[(0, at(0)), (at(1), at(2)), (at(0), at(1)), (at(2), end)]),
        "open",
    );
    file.case("the first chunk comes twice", case(&[(0, at(1)), (at(0), at(1)), (at(1), end)]), "open");
    file.case("the last chunk comes twice", case(&[(0, end), (at(2), end)]), "open");
    file.case("the last chunk takes the place of the middle one", case(&[(0, at(1)), (at(2), end)]), "open");
    file.case("it ends within the second chunk", case(&[(0, at(1) + 1000)]), "open");
    file.case("the last byte of three chunks is missing", case(&[(0, end - 1)]), "open");
    file.case("a byte follows the last of three chunks", case(&[(0, end), (0, 1)]), "open");
    let mut spliced = input(made, ranges(&[(0, end)]));
    spliced["object"]["file"] = "golden/object-65537.json".into();
    let other = of(65_537).object.len();
    spliced["object"]["ranges"] = json!([[0, other]]);
    file.case("all of it is another object's", spliced, "open");
}
