//! Tests of bodies, names, frames and codes.

use super::auth::{Statement, action_input, is_account_name, statement_input};
use super::object::{FRAME_HEADER_BYTES, ObjectList, Stored, frame_header, parse_frame_header};
use super::problem::Code;
use super::session::Sessions;
use super::vault::{GetEnvelopes, Vaults};
use crate::cbor::{ByteArray, Wire, encode};
use crate::hash::Digest;
use crate::id::{AccountId, BlobId, DeviceId};
use crate::label;

const SPECIFICATION: &str = include_str!("../../../docs/PROTOCOL.md");

#[test]
fn bodies_without_a_row_have_the_limits_of_the_specification() {
    for (said, actual, expected) in [
        ("list of vaults 128 KiB", Vaults::BYTES_MAX, 131_072),
        ("envelopes asked for 256 KiB", GetEnvelopes::BYTES_MAX, 262_144),
        ("object list and list of stored ids 69,648 bytes", ObjectList::BYTES_MAX, 69_648),
        ("object list and list of stored ids 69,648 bytes", Stored::BYTES_MAX, 69_648),
        ("sessions 64 KiB", Sessions::BYTES_MAX, 65_536),
    ] {
        assert!(SPECIFICATION.contains(said), "section 1.5 does not say: {said}");
        assert_eq!(actual, expected, "{said}");
    }
    let list = ObjectList(vec![BlobId::from_bytes([1; 16]); 4096]);
    assert_eq!(ObjectList::decode(&list.encode()).unwrap(), list);
}

#[test]
fn account_names_have_few_letters_and_begin_with_one() {
    for name in ["a", "7", "ada", "ada.l_o-v@e+lace", "0.", &"a".repeat(64)] {
        assert!(is_account_name(name), "{name}");
    }
    for name in ["", ".a", "-a", "@", "+1", "_a", "Ada", "aD", "a b", "a/b", "\u{e9}", "a\u{e9}", "a\n"] {
        assert!(!is_account_name(name), "{name}");
    }
    assert!(!is_account_name(&"a".repeat(65)) && !is_account_name(&"a".repeat(80)));
}

#[test]
fn what_is_signed_to_sign_in_names_origin_and_all_fields_but_the_signature() {
    let statement = Statement {
        account: AccountId::from_bytes([1; 16]),
        device: DeviceId::from_bytes([2; 16]),
        purpose: 1,
        server_nonce: Digest::from_bytes([3; 32]),
        client_nonce: Digest::from_bytes([4; 32]),
        signature: ByteArray([5; 64]),
    };
    let fields = (statement.account, statement.device, 1_u8, statement.server_nonce, statement.client_nonce);
    let expected = encode(&("http://a", fields.0, fields.1, fields.2, fields.3, fields.4));
    assert_eq!(statement_input("http://a", &statement), expected);
}

#[test]
fn an_action_is_for_one_body_at_one_place_of_the_log() {
    let (account, head) = (AccountId::from_bytes([1; 16]), Digest::from_bytes([2; 32]));
    let expected = encode(&(account, 3_u8, Digest::of(label::ACTION_BODY, b"body"), 9_u64, head));
    assert_eq!(action_input(account, 3, b"body", 9, head), expected);
}

#[test]
fn a_frame_header_is_an_id_and_a_big_endian_size() {
    let blob = BlobId::from_bytes([7; 16]);
    let header = frame_header(blob, 0x0102_0304);
    let mut expected = [7; FRAME_HEADER_BYTES];
    expected[16..].copy_from_slice(&[1, 2, 3, 4]);
    assert_eq!(header, expected);
    assert_eq!(parse_frame_header(&header), (blob, 0x0102_0304));
}

#[test]
fn codes_have_their_text_and_status() {
    for (code, text, status) in [
        (Code::Malformed, "malformed", 400),
        (Code::Unauthenticated, "unauthenticated", 401),
        (Code::QuotaExceeded, "quota_exceeded", 403),
        (Code::HeadMoved, "head_moved", 409),
        (Code::InvalidChain, "invalid_chain", 422),
        (Code::StorageFull, "storage_full", 507),
        (Code::Internal, "internal", 500),
    ] {
        assert_eq!((code.as_str(), code.status(), Code::parse(text)), (text, status, Some(code)));
    }
    assert_eq!((Code::parse(""), Code::parse("xyzzy")), (None, None));
}
