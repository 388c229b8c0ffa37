//! Limits that take much to break: what is repeated is said once.

use crate::vectors::world::WORLD;
use crate::vectors::{File, Reject, hex};
use lockstep_proto::cbor::{Bytes, encode};
use lockstep_proto::limits::{CHANGES_BYTES_MAX, KEY_HEADER_BYTES_MAX};
use serde_json::{Value, json};

pub(super) fn reject() -> Vec<File> {
    vec![changes(), key_headers()]
}

/// A byte string of so many zeros, as it begins.
fn zeros_head(count: usize) -> Vec<u8> {
    [&[0x5a], &u32::try_from(count).unwrap().to_be_bytes()[..]].concat()
}

/// An input that is `begin`, a byte string of zeros, `end`, and has `whole` bytes.
fn filled(begin: &[u8], end: &[u8], whole: usize) -> Value {
    let count = whole - begin.len() - end.len() - zeros_head(0).len();
    let begin = [begin, &zeros_head(count)].concat();
    json!({ "pieces": [hex(begin), { "byte": 0, "count": count }, hex(end)] })
}

fn changes() -> File {
    let mut file = Reject::new("changes-limit", "changes", "1.5, 6.1");
    // One rotation, whose entry is a byte string of zeros.
    let end = encode(&Bytes(vec![0; 64]));
    let mut add = |fault: &str, whole: usize, class: &str| {
        let input = json!({ "bytes": filled(&[0x81, 0x82, 7, 0x82], &end, whole) });
        file.case(fault, input, class);
    };
    add("a byte more than 2 MiB", CHANGES_BYTES_MAX + 1, "limit");
    add("4 MiB", 2 * CHANGES_BYTES_MAX, "limit");
    file.file()
}

fn key_headers() -> File {
    let mut file = Reject::new("key-header-limit", "key-header", "1.5, 2.2");
    let end = encode(&Bytes(vec![0; 64]));
    let around = 1 + zeros_head(0).len() + end.len();
    let mut add = |fault: &str, bytes: usize, class: &str| {
        let signed = filled(&[0x82], &end, bytes + around);
        file.case(fault, json!({ "account": hex(WORLD.id().as_bytes()), "signed": signed }), class);
    };
    add("256 KiB", KEY_HEADER_BYTES_MAX, "malformed");
    add("a byte more than 256 KiB", KEY_HEADER_BYTES_MAX + 1, "limit");
    add(
        "a byte more than the pair of bytes and signature may have",
        KEY_HEADER_BYTES_MAX + 129 - around,
        "limit",
    );
    file.file()
}
