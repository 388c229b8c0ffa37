//! Tests of what a device log takes and refuses. The log is real, but nothing is sealed: names and seals hold
//! zeros.

mod enrolments;

use super::*;
use crate::chain::Authors;
use crate::device_log::{CLASS_FULL, KIND_KEYS};
use crate::key_header::{DeviceSeal, Keyring, Link, ROLE_PASSPHRASE, ROLE_RECOVERY, Wrap};
use crate::sign::{Signature, signing_input};
use crate::version::{SUITE, VERSION};
use ed25519_dalek::{Signer as _, SigningKey};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn sign(key: &SigningKey, label: label::Label, bytes: &[u8]) -> Signature {
    ByteArray(key.sign(&signing_input(label, bytes)).to_bytes())
}

fn identity() -> SigningKey {
    key(200)
}

fn public(key: &SigningKey) -> PublicKey {
    PublicKey::from_bytes(&key.verifying_key().to_bytes()).unwrap()
}

fn id(device: u8) -> DeviceId {
    DeviceId::from_bytes([device; 16])
}

fn keyring() -> VaultId {
    crate::vault_log::keyring_vault_id(&identity().verifying_key().to_bytes())
}

fn pin(seq: u64) -> Pin {
    Pin { vault: keyring(), seq: Seq::new(seq), head: Digest::from_bytes([6; 32]) }
}

fn empty() -> DeviceLog {
    DeviceLog::new(public(&identity()))
}

fn entry(log: &DeviceLog, kind: u8, body: Vec<u8>) -> DeviceLogEntry {
    DeviceLogEntry {
        version: VERSION,
        suite: SUITE,
        account: log.account(),
        index: log.next_index(),
        previous: log.head(),
        kind,
        key_header_counter: log.next_index() + 1,
        key_header_hash: Digest::from_bytes([7; 32]),
        body: body.into(),
    }
}

fn signed(entry: &DeviceLogEntry) -> Signed {
    let bytes = entry.encode();
    let signature = sign(&identity(), label::DEVICE_LOG_ENTRY, &bytes);
    Signed { bytes: bytes.into(), signature }
}

fn append(log: &mut DeviceLog, kind: u8, body: Vec<u8>) -> Result<Entered, DeviceLogError> {
    let next = signed(&entry(log, kind, body));
    log.append(&next)
}

/// An enrolment before its proof.
fn claims(device: u8, pins: Vec<Pin>) -> Enrol {
    let name = SealedName {
        epoch: Epoch::new(1),
        nonce: ByteArray([0; 24]),
        commitment: Digest::ZERO,
        ciphertext: ByteArray([0; 80]),
    };
    Enrol {
        device: id(device),
        sign_key: Digest::from_bytes(key(device).verifying_key().to_bytes()),
        seal_key: ByteArray([device; 1216]),
        class: CLASS_FULL,
        scope: Vec::new(),
        name,
        pins,
        proof: ByteArray([0; 64]),
    }
}

fn enrol_as(log: &mut DeviceLog, signer: u8, mut enrol: Enrol) -> Result<Entered, DeviceLogError> {
    let input = enrol.proof_input(log.account(), log.next_index(), log.head());
    enrol.proof = sign(&key(signer), label::DEVICE_PROOF, &input);
    append(log, KIND_ENROL, enrol.encode())
}

fn enrol(log: &mut DeviceLog, device: u8) -> Result<Entered, DeviceLogError> {
    let pins = if log.next_index() == 0 { Vec::new() } else { vec![pin(u64::from(device))] };
    enrol_as(log, device, claims(device, pins))
}

fn revoke(log: &mut DeviceLog, device: u8, pins: Vec<Pin>) -> Result<Entered, DeviceLogError> {
    append(log, KIND_REVOKE, Revoke { device: id(device), pins }.encode())
}

fn change_keys(log: &mut DeviceLog) -> Result<Entered, DeviceLogError> {
    append(log, KIND_KEYS, KeysChanged { reserved: Vec::new() }.encode())
}

/// Two devices, then a change of keys, then the end of the second.
fn log() -> DeviceLog {
    let mut log = empty();
    assert_eq!(enrol(&mut log, 1).unwrap(), Entered::Enrolled(id(1)));
    assert_eq!(enrol(&mut log, 2).unwrap(), Entered::Enrolled(id(2)));
    assert_eq!(change_keys(&mut log).unwrap(), Entered::Keys);
    assert_eq!(revoke(&mut log, 2, vec![pin(5)]).unwrap(), Entered::Revoked(id(2)));
    log
}

/// A rule, and a way to break it.
type Spoilt = (&'static str, fn(&mut DeviceLogEntry));

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, DeviceLogError>, what: &str) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains(what), "{error}");
}

#[test]
fn a_log_knows_its_devices_and_its_place() {
    let log = log();
    assert_eq!(log.next_index(), 4);
    assert_eq!(log.key_header(), (4, Digest::from_bytes([7; 32])));
    let ids =
        |devices: &mut dyn Iterator<Item = &Device>| devices.map(|device| device.id).collect::<Vec<_>>();
    assert_eq!(ids(&mut log.devices()), [id(1), id(2)]);
    assert_eq!(ids(&mut log.live()), [id(1)]);
    let second = log.device(id(2)).unwrap();
    assert_eq!((second.id, second.enrolled_at), (id(2), 1));
    assert_eq!(second.sign_key, public(&key(2)));
    assert_eq!(second.revoked, Some(Revocation { index: 3, pins: vec![pin(5)] }));
    assert!(log.device(id(1)).unwrap().revoked.is_none() && log.device(id(3)).is_none());
    assert_eq!(log.pins(), [pin(2), pin(5)]);
    let first = signed(&entry(&empty(), KIND_ENROL, claims_proved(&empty(), 1).encode()));
    assert_eq!(log.hash_at(0), Some(first.digest(label::DEVICE_LOG_ENTRY)));
    assert_eq!(log.hash_at(3), Some(log.head()));
    assert_eq!((log.hash_at(4), empty().head()), (None, Digest::ZERO));
}

fn claims_proved(log: &DeviceLog, device: u8) -> Enrol {
    let mut enrol = claims(device, Vec::new());
    let input = enrol.proof_input(log.account(), log.next_index(), log.head());
    enrol.proof = sign(&key(device), label::DEVICE_PROOF, &input);
    enrol
}

#[test]
fn revocations_begin_epochs_from_their_entry_on() {
    let mut log = empty();
    for device in 1..=3 {
        enrol(&mut log, device).unwrap();
    }
    revoke(&mut log, 3, vec![pin(5)]).unwrap();
    change_keys(&mut log).unwrap();
    revoke(&mut log, 2, vec![pin(6)]).unwrap();
    for (index, last, epoch) in
        [(0, None, 1), (2, None, 1), (3, Some(3), 2), (4, Some(3), 2), (5, Some(5), 3), (900, Some(5), 3)]
    {
        assert_eq!(log.last_revocation(index), last, "{index}");
        assert_eq!(log.keyring_epoch_at(index), Epoch::new(epoch), "{index}");
        let authors: &dyn Authors = &log;
        assert_eq!(authors.last_revocation(index), last, "{index}");
        assert_eq!(authors.keyring_epoch(index), Epoch::new(epoch), "{index}");
    }
    assert_eq!(log.keyring_epoch(), Epoch::new(3));
}

#[test]
fn a_device_writes_from_its_enrolment_to_its_revocation() {
    let log = log();
    let authors: &dyn Authors = &log;
    for (device, index, may) in [
        (1, 0, true),
        (1, 3, true),
        (2, 0, false),
        (2, 1, true),
        (2, 2, true),
        (2, 3, false),
        (2, 4, false),
        (3, 3, false),
    ] {
        let expected = may.then(|| public(&key(device)));
        assert_eq!(authors.author_key(id(device), index), expected, "device {device} at entry {index}");
    }
    let other = VaultId::from_bytes([9; 16]);
    for (device, vault, seq, counts) in [
        (1, keyring(), 900, true),
        (1, other, 900, true),
        (2, keyring(), 4, true),
        (2, keyring(), 5, true),
        (2, keyring(), 6, false),
        (2, other, 0, false),
    ] {
        assert_eq!(authors.counts(id(device), vault, Seq::new(seq)), counts, "device {device} at {seq}");
    }
    assert_eq!(authors.entry_hash(3), Some(log.head()));
    assert_eq!(authors.entry_hash(4), None);
}

#[test]
fn an_entry_follows_the_one_before_it() {
    let log = log();
    let spoilt: [Spoilt; 7] = [
        ("does not follow", |entry| entry.account = AccountId::from_bytes([1; 16])),
        ("does not follow", |entry| (entry.index, entry.key_header_counter) = (3, 4)),
        ("does not follow", |entry| (entry.index, entry.key_header_counter) = (5, 6)),
        ("does not follow", |entry| entry.previous = Digest::ZERO),
        ("its counter is the entry's index plus one", |entry| entry.key_header_counter = 4),
        ("its counter is the entry's index plus one", |entry| entry.key_header_counter = 6),
        ("its kind is not part of this draft", |entry| entry.kind = 4),
    ];
    let body = KeysChanged { reserved: Vec::new() }.encode();
    for (what, spoil) in spoilt {
        let mut next = entry(&log, KIND_KEYS, body.clone());
        spoil(&mut next);
        refused(log.clone().append(&signed(&next)), what);
    }
    let mut next = signed(&entry(&log, KIND_KEYS, body));
    assert_eq!(log.clone().append(&next).unwrap(), Entered::Keys);
    next.signature = sign(&key(1), label::DEVICE_LOG_ENTRY, &next.bytes.0);
    refused(log.clone().append(&next), "the signature");
    let body = KeysChanged { reserved: vec![0] }.encode();
    refused(append(&mut log.clone(), KIND_KEYS, body), "its body is empty");
    for kind in [KIND_KEYS, KIND_REVOKE] {
        let body = Revoke { device: id(1), pins: vec![pin(1)] }.encode();
        refused(append(&mut empty(), kind, body), "the first entry is an enrolment");
    }
}

#[test]
fn a_log_is_full_at_its_last_entry() {
    let log = empty();
    for (index, what) in [
        (limits::DEVICE_LOG_ENTRIES_MAX - 1, "does not follow"),
        (limits::DEVICE_LOG_ENTRIES_MAX, "4096 device-log entries"),
        (limits::DEVICE_LOG_ENTRIES_MAX + 1, "4096 device-log entries"),
    ] {
        let mut next = entry(&log, KIND_KEYS, Vec::new());
        next.index = index;
        refused(log.clone().append(&signed(&next)), what);
    }
}

#[test]
fn a_log_is_full_at_its_last_byte_but_for_revocations() {
    let mut log = log();
    enrol(&mut log, 3).unwrap();
    let keys = signed(&entry(&log, KIND_KEYS, KeysChanged { reserved: Vec::new() }.encode()));
    let end = signed(&entry(&log, KIND_REVOKE, Revoke { device: id(3), pins: vec![pin(1)] }.encode()));
    let before = |max: usize, next: &Signed| {
        let mut log = log.clone();
        log.bytes = max - next.bytes.0.len() - 64;
        log
    };
    for (next, max) in
        [(&keys, limits::DEVICE_LOG_BYTES_MAX), (&end, limits::DEVICE_LOG_WITH_REVOCATIONS_BYTES_MAX)]
    {
        let mut last = before(max, next);
        last.append(next).unwrap();
        assert_eq!(last.bytes, max);
        for more in [1, 1000] {
            let mut full = before(max + more, next);
            refused(full.append(next), "bytes of device-log entries");
        }
    }
}

#[test]
fn only_a_live_device_that_is_not_the_only_one_is_revoked() {
    let mut log = log();
    refused(revoke(&mut log.clone(), 1, vec![pin(1)]), "or the only one");
    enrol(&mut log, 3).unwrap();
    for device in [2, 4] {
        refused(revoke(&mut log.clone(), device, vec![pin(1)]), "revokes a device that is not enrolled");
    }
    let other = Pin { vault: VaultId::from_bytes([0; 16]), ..pin(1) };
    for pins in [Vec::new(), vec![other]] {
        refused(revoke(&mut log.clone(), 1, pins), "a revocation pins the keyring vault");
    }
    assert_eq!(revoke(&mut log, 1, vec![other, pin(1)]).unwrap(), Entered::Revoked(id(1)));
}

/// A key header for an entry at the log's next place, sealed to devices.
fn header(log: &DeviceLog, epoch: u64, devices: &[u8]) -> VerifiedKeyHeader {
    let wrap = |role, profile| Wrap {
        role,
        profile,
        salt: ByteArray([0; 16]),
        nonce: ByteArray([0; 24]),
        commitment: Digest::ZERO,
        ciphertext: ByteArray([0; 48]),
    };
    let link = |epoch| Link {
        epoch: Epoch::new(epoch),
        nonce: ByteArray([0; 24]),
        commitment: Digest::ZERO,
        ciphertext: ByteArray([0; 48]),
    };
    let seal = |device: &u8| DeviceSeal {
        device: id(*device),
        encapsulated: ByteArray([0; 1120]),
        ciphertext: ByteArray([0; 48]),
    };
    let header = KeyHeader {
        version: VERSION,
        suite: SUITE,
        account: log.account(),
        counter: log.next_index() + 1,
        identity: Digest::from_bytes(log.identity().to_bytes()),
        recovery: Digest::from_bytes(log.identity().to_bytes()),
        wraps: vec![wrap(ROLE_PASSPHRASE, 1), wrap(ROLE_RECOVERY, 0)],
        keyring: Keyring {
            epoch: Epoch::new(epoch),
            nonce: ByteArray([0; 24]),
            commitment: Digest::ZERO,
            ciphertext: ByteArray([0; 48]),
            links: (1..epoch).map(link).collect(),
            seals: devices.iter().map(seal).collect(),
        },
    };
    let bytes = header.encode();
    let signature = sign(&identity(), label::KEY_HEADER, &bytes);
    let signed = Signed { bytes: bytes.into(), signature };
    VerifiedKeyHeader::verify(log.account(), &signed).unwrap()
}

#[test]
fn the_key_header_is_that_of_the_last_entry() {
    let names = |header: &VerifiedKeyHeader| {
        let mut log = log();
        let mut next = entry(&log, KIND_KEYS, KeysChanged { reserved: Vec::new() }.encode());
        next.key_header_hash = header.hash();
        log.append(&signed(&next)).unwrap();
        log
    };
    let right = header(&log(), 2, &[1]);
    names(&right).check_key_header(&right).unwrap();
    refused(log().check_key_header(&right), "the last entry names another one");
    let mut later = names(&right);
    change_keys(&mut later).unwrap();
    refused(later.check_key_header(&right), "the last entry names another one");
    for devices in [&[1, 2][..], &[2], &[1, 3]] {
        let other = header(&log(), 2, devices);
        refused(names(&other).check_key_header(&other), "exactly the enrolled devices");
    }
    for epoch in [1, 3] {
        let other = header(&log(), epoch, &[1]);
        refused(names(&other).check_key_header(&other), "one epoch more than there are revocations");
    }
}
