//! Encodings that are not the one of a structure: refused, whoever signed them.

use super::account::header_input;
use super::record::commit_input;
use crate::vectors::json::signed_hex;
use crate::vectors::world::{A, WORLD, identity_key, put, sign_by};
use crate::vectors::{File, Reject, hex};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::Changes;
use lockstep_proto::label::{self, Label};
use lockstep_proto::limits;
use lockstep_proto::sign::Signed;
use serde_json::{Value, json};

/// Encodings of a versioned structure that say the same, or nearly, and are refused; and their class.
pub(super) fn spoilt(good: &[u8], bytes_max: usize) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let [head, 0x18, version, 1, rest @ ..] = good else {
        panic!("it does not begin with version and suite")
    };
    let count = head & 0x1f;
    let with = |first: &[u8], rest: &[u8], last: &[u8]| [first, rest, last].concat();
    let last = rest.last().copied().unwrap();
    vec![
        ("it is empty", Vec::new(), "malformed"),
        ("its last byte is missing", good[..good.len() - 1].to_vec(), "malformed"),
        ("a byte follows", with(good, &[], &[0]), "malformed"),
        ("it stands there twice", with(good, &[], good), "malformed"),
        ("one item more", with(&[head + 1, 0x18, *version, 1], rest, &[0]), "malformed"),
        ("it says that it has one item less", with(&[head - 1, 0x18, *version, 1], rest, &[]), "malformed"),
        ("an array of indefinite length", with(&[0x9f, 0x18, *version, 1], rest, &[0xff]), "malformed"),
        ("the array's length in two bytes", with(&[0x98, count, 0x18, *version, 1], rest, &[]), "version"),
        ("the version in three bytes", with(&[*head, 0x19, 0, *version, 1], rest, &[]), "malformed"),
        ("the suite in two bytes", with(&[*head, 0x18, *version, 0x18, 1], rest, &[]), "malformed"),
        (
            "the suite in nine bytes",
            with(&[*head, 0x18, *version, 0x1b, 0, 0, 0, 0, 0, 0, 0, 1], rest, &[]),
            "malformed",
        ),
        ("the suite is a float", with(&[*head, 0x18, *version, 0xf9, 0x3c, 0], rest, &[]), "malformed"),
        ("the suite is negative", with(&[*head, 0x18, *version, 0x20], rest, &[]), "malformed"),
        ("the suite is true", with(&[*head, 0x18, *version, 0xf5], rest, &[]), "malformed"),
        ("the suite is null", with(&[*head, 0x18, *version, 0xf6], rest, &[]), "malformed"),
        ("the suite is undefined", with(&[*head, 0x18, *version, 0xf7], rest, &[]), "malformed"),
        ("the suite is a text", with(&[*head, 0x18, *version, 0x61, b'1'], rest, &[]), "malformed"),
        ("the suite has a tag", with(&[*head, 0x18, *version, 0xc1, 1], rest, &[]), "malformed"),
        ("the whole has the tag of CBOR", with(&[0xd9, 0xd9, 0xf7], good, &[]), "malformed"),
        ("a map in its place", with(&[0xa1, 0x18, *version], good, &[]), "malformed"),
        ("a byte string in its place", with(&[0x58, 4], &good[..4], &[]), "malformed"),
        ("draft 1 of version 1", with(&[*head, 0x18, 0x81, 1], rest, &[]), "version"),
        ("draft 3 of version 1", with(&[*head, 0x18, 0x83, 1], rest, &[]), "version"),
        ("version 1", with(&[*head, 1, 1], rest, &[]), "version"),
        ("version 3", with(&[*head, 3, 1], rest, &[]), "version"),
        ("version 127", with(&[*head, 0x18, 0x7f, 1], rest, &[]), "version"),
        ("suite 0", with(&[*head, 0x18, *version, 0], rest, &[]), "malformed"),
        ("suite 2", with(&[*head, 0x18, *version, 2], rest, &[]), "malformed"),
        ("longer than its limit", with(good, &vec![last; bytes_max], &[]), "limit"),
    ]
}

/// The same under a signature that verifies.
fn signed(file: &mut Reject, good: &[u8], max: usize, sign: &dyn Fn(Vec<u8>) -> Value) {
    for (fault, bytes, class) in spoilt(good, max) {
        // More than the limit of the pair itself is refused before the structure is looked at: the class is the same.
        if bytes.len() < 130_000 {
            file.case(fault, sign(bytes), class);
        }
    }
}

fn by_device(label: Label) -> impl Fn(Vec<u8>) -> Value {
    move |bytes| commit_input(A, &WORLD.devices[A].sign(label, bytes))
}

pub(super) fn reject() -> Vec<File> {
    let mut commits = Reject::new("commit-coding", "commit", "1.1");
    let genesis = &WORLD.files.genesis;
    signed(&mut commits, &genesis.bytes.0, limits::COMMIT_BYTES_MAX, &by_device(label::COMMIT));
    let mut entries = Reject::new("vault-log-entry-coding", "vault-log-entry", "1.1");
    let create = &WORLD.files.create.bytes.0;
    signed(&mut entries, create, limits::VAULT_LOG_ENTRY_BYTES_MAX, &by_device(label::VAULT_LOG_ENTRY));
    let mut logs = Reject::new("device-log-entry-coding", "device-log-entry", "1.1");
    signed(&mut logs, &WORLD.log[2].entry.bytes.0, limits::DEVICE_LOG_ENTRY_BYTES_MAX, &|bytes| {
        let signed = sign_by(&identity_key(), label::DEVICE_LOG_ENTRY, bytes);
        json!({ "identity": hex(WORLD.identity()), "signed": signed_hex(&signed) })
    });
    let mut headers = Reject::new("key-header-coding", "key-header", "1.1");
    signed(&mut headers, &WORLD.log[0].key_header.bytes.0, limits::KEY_HEADER_BYTES_MAX, &|bytes| {
        let signed = sign_by(&identity_key(), label::KEY_HEADER, bytes);
        let mut input = header_input(0);
        input["signed"] = signed_hex(&signed).into();
        input
    });
    vec![commits.file(), entries.file(), logs.file(), headers.file(), pairs(), lists()]
}

/// The pair of bytes and signature itself.
fn pairs() -> File {
    let mut file = Reject::new("signed", "commit", "1.1");
    let good = &WORLD.files.genesis;
    let input = |bytes: Vec<u8>| {
        let mut input = commit_input(A, good);
        input["signed"] = hex(bytes).into();
        input
    };
    let pair = good.encode();
    let (bytes, signature) = (&good.bytes.0, &good.signature.0[..]);
    let head = &pair[..pair.len() - bytes.len() - 66];
    let put = |head: &[u8], middle: &[u8], signature: &[u8]| [head, bytes, middle, signature].concat();
    assert_eq!(put(head, &[0x58, 64], signature), pair);
    let long = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    for (fault, bytes) in [
        ("the pair is empty", Vec::new()),
        ("a byte follows the pair", [&pair[..], &[0]].concat()),
        ("the signature has 63 bytes", put(head, &[0x58, 63], &signature[..63])),
        ("the signature has 65 bytes", put(head, &[0x58, 65], &[signature, &[0]].concat())),
        ("the signature's length in three bytes", put(head, &[0x59, 0, 64], signature)),
        ("the signature is a list of numbers", put(head, &[0x98, 64], &[1; 64])),
        (
            "the signature is a byte string of indefinite length",
            put(head, &[0x5f, 0x58, 64], &[signature, &[0xff]].concat()),
        ),
        ("the signature is a text", put(head, &[0x78, 64], &[b'a'; 64])),
        ("there is no signature", [&[0x81], &pair[1..pair.len() - 66]].concat()),
        ("the signature is null", put(head, &[0xf6], &[])),
        (
            "the length of the bytes in five bytes",
            put(&[0x82, 0x5a, 0, 0, long[0], long[1]], &[0x58, 64], signature),
        ),
        ("three items", [&[0x83], &pair[1..], &[0]].concat()),
        (
            "a length beyond the end",
            [&[0x82, 0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &bytes[..]].concat(),
        ),
        ("arrays in arrays without end", vec![0x81; 1000]),
    ] {
        file.case(fault, input(bytes), "malformed");
    }
    file.file()
}

/// Change lists by their encoding alone.
fn lists() -> File {
    let mut file = Reject::new("changes-coding", "changes", "1.1, 6.1");
    let good = Changes(vec![put(1, 1, &[7])]).encode();
    let [0x81, change @ ..] = &good[..] else { panic!("one change") };
    let case = |bytes: Vec<u8>| json!({ "bytes": hex(bytes) });
    for (fault, bytes) in [
        ("it is empty", Vec::new()),
        ("its last byte is missing", good[..good.len() - 1].to_vec()),
        ("a byte follows", [&good[..], &[0]].concat()),
        ("a list of indefinite length", [&[0x9f], change, &[0xff]].concat()),
        ("the list's length in two bytes", [&[0x98, 1], change].concat()),
        ("a change of indefinite length", [&[0x81, 0x9f], &change[1..], &[0xff]].concat()),
        ("the change's kind in two bytes", [&[0x81, 0x85, 0x18, 1], &change[2..]].concat()),
        ("the revision in two bytes", [&[0x81], &change[..19], &[0x18, 1], &change[20..]].concat()),
        ("the revision is a float", [&[0x81], &change[..19], &[0xf9, 0x3c, 0], &change[20..]].concat()),
        ("a put of four items", [&[0x81, 0x84], &change[1..54]].concat()),
        ("a put of six items", [&[0x81, 0x86], &change[1..], &[0]].concat()),
        ("a record id of 15 bytes", [&[0x81, 0x85, 1, 0x4f], &change[4..]].concat()),
        ("a map in the place of the list", vec![0xa0]),
        ("a list in the place of the kind", vec![0x81, 0x81, 0x80]),
        ("a number in the place of a change", vec![0x81, 1]),
        ("more changes announced than there are", [&[0x9a, 0x7f, 0xff, 0xff, 0xff], change].concat()),
    ] {
        file.case(fault, case(bytes), "malformed");
    }
    file.file()
}

/// Bodies of the API: what is general, on each of them.
pub(super) fn bodies(all: &[(&'static str, Vec<u8>)]) -> File {
    let mut file = Reject::new("bodies", "decode", "1.1, 12");
    let mut seen = std::collections::BTreeSet::new();
    for (name, good) in all.iter().filter(|body| body.1.len() < 2000 && seen.insert(body.0)) {
        let count = good[0] & 0x1f;
        let head = good[0];
        let case = |bytes: Vec<u8>| json!({ "type": name, "bytes": hex(bytes) });
        let mut refuse =
            |fault: &str, bytes: Vec<u8>| file.case(&format!("{name}: {fault}"), case(bytes), "malformed");
        refuse("it is empty", Vec::new());
        refuse("its last byte is missing", good[..good.len() - 1].to_vec());
        refuse("a byte follows", [&good[..], &[0]].concat());
        refuse("an array of indefinite length", [&[0x9f], &good[1..], &[0xff]].concat());
        refuse("the array's length in two bytes", [&[0x98, count], &good[1..]].concat());
        refuse("a map in its place", vec![0xa0]);
        refuse("one item more", [&[head + 1], &good[1..], &[0xf6]].concat());
        refuse("a tag before it", [&[0xc1], &good[..]].concat());
    }
    let long = |name: &str, bytes: usize| json!({ "type": name, "bytes": "80".repeat(bytes) });
    file.case(
        "login-start: longer than its limit",
        long("login-start", limits::TINY_BODY_BYTES_MAX + 1),
        "limit",
    );
    file.case("create-vault: longer than its limit", long("create-vault", 16 * limits::KIB + 1), "limit");
    file.case(
        "get-envelopes: no list of pairs",
        json!({ "type": "get-envelopes", "bytes": "818101" }),
        "malformed",
    );
    let signed = Signed::decode(&WORLD.files.create.encode()).unwrap();
    file.case("signed: the bytes are a text", json!({ "type": "signed", "bytes": hex([&[0x82, 0x61, b'a', 0x58, 64], &signed.signature.0[..]].concat()) }), "malformed");
    file.file()
}
