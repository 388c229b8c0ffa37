//! What is refused of device logs.

use super::account::header_at;
use super::account_reject::{changed, header_signed};
use crate::vectors::json::signed_hex;
use crate::vectors::world::{A, B, C, WORLD, identity_key, sign_by};
use crate::vectors::{File, Reject, hex};
use ed25519_dalek::SigningKey;
use lockstep_proto::cbor::{ByteArray, Wire as _};
use lockstep_proto::device_log::{DeviceLogEntry, Enrol, KIND_ENROL, KIND_REVOKE, Pin, Revoke};
use lockstep_proto::hash::Digest;
use lockstep_proto::id::{AccountId, DeviceId, Seq, VaultId};
use lockstep_proto::key_header::KeyHeader;
use lockstep_proto::label;
use lockstep_proto::sign::Signed;
use serde_json::{Value, json};

/// The log up to an entry, by the numbers of the golden one.
fn log_input(entries: usize) -> Value {
    json!({
        "account": hex(WORLD.id().as_bytes()),
        "identity": hex(WORLD.identity()),
        "log": (0..entries).collect::<Vec<_>>(),
        "key-header": entries - 1,
    })
}

pub(super) fn reject() -> Vec<File> {
    vec![logs(), log_headers()]
}

fn entry(index: usize) -> DeviceLogEntry {
    DeviceLogEntry::decode(&WORLD.log[index].entry.bytes.0).unwrap()
}

fn enter(entry: &DeviceLogEntry) -> String {
    signed_hex(&sign_by(&identity_key(), label::DEVICE_LOG_ENTRY, entry.encode()))
}

/// The log up to an entry, which is changed and signed again.
fn with_entry(index: usize, change: &dyn Fn(&mut DeviceLogEntry)) -> Value {
    let mut input = log_input(index + 1);
    let mut entry = entry(index);
    change(&mut entry);
    input["log"][index] = enter(&entry).into();
    input
}

/// The same with another enrolment in it, whose proof a key makes anew.
fn with_enrol(index: usize, key: Option<usize>, change: &dyn Fn(&mut Enrol)) -> Value {
    with_entry(index, &|entry| {
        let mut enrol = Enrol::decode(&entry.body.0).unwrap();
        change(&mut enrol);
        if let Some(device) = key {
            let input = enrol.proof_input(entry.account, entry.index, entry.previous);
            enrol.proof = WORLD.devices[device].sign(label::DEVICE_PROOF, input).signature;
        }
        entry.body = enrol.encode().into();
    })
}

fn with_revoke(index: usize, change: &dyn Fn(&mut Revoke)) -> Value {
    with_entry(index, &|entry| {
        let mut revoke = Revoke::decode(&entry.body.0).unwrap();
        change(&mut revoke);
        entry.body = revoke.encode().into();
    })
}

fn pin(n: u8) -> Pin {
    Pin { vault: VaultId::from_bytes([n; 16]), seq: Seq::new(0), head: Digest::ZERO }
}

fn logs() -> File {
    let mut file = Reject::new("device-log", "device-log", "3.1");
    let list = |places: &[usize]| changed(&log_input(6), "log", places);
    file.case("it begins with its second entry", list(&[1, 2, 3, 4, 5]), "chain");
    file.case("an entry is missing", list(&[0, 1, 3, 4, 5]), "chain");
    file.case("two entries are swapped", list(&[0, 2, 1, 3, 4, 5]), "chain");
    file.case("an entry comes twice", list(&[0, 1, 1, 2, 3, 4, 5]), "chain");
    file.case("another previous", with_entry(2, &|entry| entry.previous = Digest::ZERO), "chain");
    file.case("another index", with_entry(2, &|entry| entry.index = 3), "chain");
    file.case("another account", with_entry(2, &|entry| entry.account = AccountId::ZERO), "chain");
    file.case(
        "the counter is not index plus 1",
        with_entry(2, &|entry| entry.key_header_counter = 2),
        "chain",
    );
    file.case("index 4,096", with_entry(2, &|entry| entry.index = 4096), "limit");
    file.case("kind 4, compromised: reserved", with_entry(2, &|entry| entry.kind = 4), "malformed");
    file.case("kind 0", with_entry(2, &|entry| entry.kind = 0), "malformed");
    file.case("kind 5", with_entry(2, &|entry| entry.kind = 5), "malformed");
    file.case(
        "the first entry is a change of keys",
        with_entry(0, &|first| {
            first.kind = 3;
            first.body = entry(2).body;
        }),
        "malformed",
    );
    file.case(
        "the first entry is a revocation",
        with_entry(0, &|first| {
            first.kind = 2;
            first.body = entry(4).body;
        }),
        "malformed",
    );
    file.case(
        "a revocation's body under kind 1",
        with_entry(4, &|entry| entry.kind = KIND_ENROL),
        "malformed",
    );
    file.case(
        "an enrolment's body under kind 2",
        with_entry(3, &|entry| entry.kind = KIND_REVOKE),
        "malformed",
    );
    file.case(
        "the body of a change of keys is not empty",
        with_entry(2, &|entry| entry.body = vec![0x81, 0x81, 0].into()),
        "malformed",
    );
    file.case("a byte follows the body", with_entry(2, &|entry| entry.body.0.push(0)), "malformed");
    let signed = |signed: Signed| changed(&log_input(3), "log", json!([0, 1, signed_hex(&signed)]));
    let other = SigningKey::from_bytes(&[7; 32]);
    file.case(
        "signed by another key",
        signed(sign_by(&other, label::DEVICE_LOG_ENTRY, entry(2).encode())),
        "signature",
    );
    file.case(
        "signed by a device",
        signed(WORLD.devices[A].sign(label::DEVICE_LOG_ENTRY, entry(2).encode())),
        "signature",
    );
    file.case(
        "signed under another label",
        signed(sign_by(&identity_key(), label::KEY_HEADER, entry(2).encode())),
        "signature",
    );
    file.case(
        "the identity is not the account's",
        changed(&log_input(1), "account", hex([1; 16])),
        "identity",
    );
    enrolments(&mut file);
    revocations(&mut file);
    file.file()
}

fn enrolments(file: &mut Reject) {
    let (first, second) =
        (Enrol::decode(&entry(0).body.0).unwrap(), Enrol::decode(&entry(1).body.0).unwrap());
    file.case(
        "a device id for the second time",
        with_enrol(3, Some(C), &|enrol| enrol.device = second.device),
        "chain",
    );
    file.case(
        "the device id is zero",
        with_enrol(3, Some(C), &|enrol| enrol.device = DeviceId::ZERO),
        "chain",
    );
    file.case(
        "a signing key for the second time",
        with_enrol(3, Some(B), &|enrol| enrol.sign_key = second.sign_key),
        "chain",
    );
    file.case(
        "a seal key for the second time",
        with_enrol(3, Some(C), &|enrol| enrol.seal_key = first.seal_key),
        "chain",
    );
    file.case(
        "the signing key is of small order",
        with_enrol(3, None, &|enrol| enrol.sign_key = Digest::ZERO),
        "malformed",
    );
    file.case("class 2, read: reserved", with_enrol(3, Some(C), &|enrol| enrol.class = 2), "malformed");
    file.case("class 3, append: reserved", with_enrol(3, Some(C), &|enrol| enrol.class = 3), "malformed");
    file.case("class 0", with_enrol(3, Some(C), &|enrol| enrol.class = 0), "malformed");
    file.case(
        "a scope: reserved",
        with_enrol(3, Some(C), &|enrol| enrol.scope = vec![WORLD.files_id()]),
        "malformed",
    );
    file.case(
        "the first enrolment has pins",
        with_enrol(0, Some(A), &|enrol| enrol.pins.clone_from(&second.pins)),
        "malformed",
    );
    file.case("a later enrolment has none", with_enrol(3, Some(C), &|enrol| enrol.pins.clear()), "malformed");
    file.case(
        "it does not pin the keyring",
        with_enrol(3, Some(C), &|enrol| enrol.pins = vec![pin(1)]),
        "malformed",
    );
    file.case(
        "pins descend",
        with_enrol(3, Some(C), &|enrol| enrol.pins = vec![enrol.pins[0], pin(0)]),
        "malformed",
    );
    file.case(
        "a vault is pinned twice",
        with_enrol(3, Some(C), &|enrol| enrol.pins = vec![enrol.pins[0]; 2]),
        "malformed",
    );
    file.case("the proof is by another device", with_enrol(3, Some(B), &|_| {}), "signature");
    file.case(
        "the proof is zero",
        with_enrol(3, None, &|enrol| enrol.proof = ByteArray([0; 64])),
        "signature",
    );
    file.case(
        "the proof is for another name",
        with_enrol(3, None, &|enrol| enrol.name.nonce.0[0] ^= 1),
        "signature",
    );
    let replayed = with_entry(3, &|new| {
        let enrol = Enrol::decode(&new.body.0).unwrap();
        let mut moved = enrol.clone();
        let input = enrol.proof_input(new.account, new.index + 1, new.previous);
        moved.proof = WORLD.devices[C].sign(label::DEVICE_PROOF, input).signature;
        new.body = moved.encode().into();
    });
    file.case("the proof is for another place of the log", replayed, "signature");
}

fn revocations(file: &mut Reject) {
    file.case(
        "it revokes a device that is not there",
        with_revoke(4, &|revoke| revoke.device = DeviceId::ZERO),
        "chain",
    );
    file.case(
        "a revocation does not pin the keyring",
        with_revoke(4, &|revoke| revoke.pins = vec![pin(1)]),
        "malformed",
    );
    file.case("a revocation without pins", with_revoke(4, &|revoke| revoke.pins.clear()), "malformed");
    file.case("a revocation's pins descend", with_revoke(4, &|revoke| revoke.pins.reverse()), "malformed");
    let again = with_entry(5, &|new| {
        new.kind = KIND_REVOKE;
        new.body = entry(4).body;
    });
    file.case("it revokes a device for the second time", again, "chain");
    let revoke =
        Revoke { device: WORLD.devices[A].id(), pins: Enrol::decode(&entry(1).body.0).unwrap().pins };
    let only = with_entry(1, &|new| {
        new.kind = KIND_REVOKE;
        new.body = revoke.encode().into();
    });
    file.case("it revokes the only device", only, "chain");
    let back = with_entry(5, &|new| {
        new.kind = KIND_ENROL;
        new.body = entry(1).body;
    });
    file.case("a revoked device is enrolled again", back, "chain");
}

fn log_headers() -> File {
    let mut file = Reject::new("device-log-key-header", "device-log", "2.2, 3.1");
    let header =
        |entries: usize, signed: &Signed| changed(&log_input(entries), "key-header", signed_hex(signed));
    file.case("the header of the entry before", header(6, &WORLD.log[4].key_header), "chain");
    file.case("the header of an entry after", header(4, &WORLD.log[4].key_header), "chain");
    let mut change = |fault: &str, change: &dyn Fn(&mut KeyHeader)| {
        let mut new = header_at(5);
        change(&mut new);
        let signed = header_signed(&new);
        let mut input = with_entry(5, &|entry| entry.key_header_hash = signed.digest(label::KEY_HEADER));
        input["key-header"] = signed_hex(&signed).into();
        file.case(fault, input, "chain");
    };
    change("the named header's counter is another", &|header| header.counter = 5);
    change("a live device has no seal", &|header| header.keyring.seals.truncate(1));
    change("a revoked device has a seal", &|header| {
        let seal =
            header_at(3).keyring.seals.into_iter().find(|seal| seal.device == WORLD.devices[B].id()).unwrap();
        header.keyring.seals.push(seal);
        header.keyring.seals.sort_by_key(|seal| seal.device);
    });
    change("no new epoch since the revocation", &|header| {
        let seals = std::mem::take(&mut header.keyring.seals);
        header.keyring = header_at(3).keyring;
        header.keyring.seals = seals;
    });
    file.file()
}
