use super::*;
use crate::api::vault::Entry;
use crate::cbor::ByteArray;
use crate::commit::{Commit, KIND_CHANGE, KIND_GENESIS};
use crate::id::{BlobId, Epoch, Revision};
use crate::key_header::Link;
use crate::sign::signing_input;
use crate::vault_log::keyring_vault_id;
use crate::version::{SUITE, VERSION};
use ed25519_dalek::{Signer, SigningKey};

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn public() -> PublicKey {
    PublicKey::from_bytes(&key().verifying_key().to_bytes()).unwrap()
}

fn sign(label: label::Label, bytes: Vec<u8>) -> Signed {
    let signature = ByteArray(key().sign(&signing_input(label, &bytes)).to_bytes());
    Signed { bytes: bytes.into(), signature }
}

fn header() -> ArchiveHeader {
    let identity = public().to_bytes();
    ArchiveHeader {
        version: VERSION,
        suite: SUITE,
        account: account_id(&identity),
        identity: Digest::from_bytes(identity),
        device: DeviceId::from_bytes([3; 16]),
        utc: 1,
    }
}

fn bare() -> BareKeys {
    let header = header();
    let link = Link {
        epoch: Epoch::new(1),
        nonce: ByteArray([0; 24]),
        commitment: Digest::ZERO,
        ciphertext: ByteArray([0; 48]),
    };
    BareKeys {
        version: VERSION,
        suite: SUITE,
        account: header.account,
        counter: 1,
        identity: header.identity,
        recovery: header.identity,
        wrap: Wrap {
            role: ROLE_RECOVERY,
            profile: 0,
            salt: ByteArray([0; 16]),
            nonce: ByteArray([0; 24]),
            commitment: Digest::ZERO,
            ciphertext: ByteArray([0; 48]),
        },
        keyring: Keyring {
            epoch: Epoch::new(2),
            nonce: ByteArray([0; 24]),
            commitment: Digest::ZERO,
            ciphertext: ByteArray([0; 48]),
            links: vec![link],
            seals: Vec::new(),
        },
    }
}

fn keyring() -> VaultId {
    keyring_vault_id(&public().to_bytes())
}

type Raw = (u8, Vec<u8>);

fn vault(id: VaultId) -> Raw {
    (5, ArchiveVault { vault: id, log: vec![sign(label::VAULT_LOG_ENTRY, vec![1])] }.encode())
}

fn commit(vault: VaultId, seq: u64) -> Raw {
    let commit = Commit {
        version: VERSION,
        suite: SUITE,
        vault,
        seq: Seq::new(seq),
        previous: Digest::ZERO,
        skip: Digest::ZERO,
        kind: if seq == 0 { KIND_GENESIS } else { KIND_CHANGE },
        epoch: Epoch::new(1),
        device: DeviceId::ZERO,
        device_log_index: 0,
        device_log_head: Digest::ZERO,
        vault_log_index: 0,
        vault_log_head: Digest::ZERO,
        utc: 0,
        changes: Digest::ZERO,
        state: Digest::ZERO,
    };
    let commit = sign(label::COMMIT, commit.encode());
    (6, ArchiveCommit { commit, changes: vec![0x80].into() }.encode())
}

fn version(seq: u64, record: u8) -> Raw {
    let record = RecordId::from_bytes([record; 16]);
    let (revision, envelope) = (Revision::new(1), vec![1].into());
    (7, Entry { seq: Seq::new(seq), record, revision, kind: 1, envelope }.encode())
}

fn missing(seq: u64, record: u8) -> Raw {
    (8, MissingVersion { seq: Seq::new(seq), record: RecordId::from_bytes([record; 16]) }.encode())
}

fn object(blob: u8) -> Raw {
    (9, [&[blob; 16][..], b"object"].concat())
}

fn missing_object(blob: u8) -> Raw {
    (10, vec![blob; 16])
}

/// A small archive without its end.
fn good() -> Vec<Raw> {
    let other = VaultId::from_bytes([0xfe; 16]);
    let last = VaultId::from_bytes([0xff; 16]);
    vec![
        (1, header().encode()),
        (3, bare().encode()),
        (4, sign(label::DEVICE_LOG_ENTRY, vec![1]).encode()),
        (4, sign(label::DEVICE_LOG_ENTRY, vec![2]).encode()),
        vault(keyring()),
        commit(keyring(), 0),
        vault(other),
        commit(other, 0),
        commit(other, 1),
        version(1, 1),
        version(1, 2),
        version(2, 1),
        missing(1, 3),
        missing(2, 3),
        object(1),
        object(2),
        missing_object(1),
        missing_object(3),
        vault(last),
        commit(last, 0),
    ]
}

fn framed(items: &[Raw]) -> Vec<u8> {
    let mut out = prefix().to_vec();
    for (kind, body) in items {
        out.push(*kind);
        out.extend((body.len() as u64).to_be_bytes());
        out.extend(body);
    }
    out
}

/// Reads a whole file: the end must come, and nothing after it.
fn read(bytes: &[u8]) -> Result<(Items, Signed), ArchiveError> {
    let cut = || ArchiveError::Damaged { rule: "cut off" };
    let (first, mut rest) = bytes.split_first_chunk().ok_or_else(cut)?;
    let mut items = Items::begin(first)?;
    loop {
        let (head, after) = rest.split_first_chunk().ok_or_else(cut)?;
        let head = items.head(head)?;
        let (body, after) = after.split_at_checked(head.bytes as usize).ok_or_else(cut)?;
        rest = after;
        if head.kind == ItemKind::Object {
            let (id, object) = body.split_first_chunk::<16>().ok_or_else(cut)?;
            items.object(head, BlobId::from_bytes(*id))?;
            for piece in object.chunks(4) {
                items.object_bytes(piece)?;
            }
        } else if let Item::End(end) = items.take(head, body)? {
            return if rest.is_empty() { Ok((items, end)) } else { Err(cut()) };
        }
    }
}

fn end(of: &[u8], count: u64) -> Vec<u8> {
    let ArchiveHeader { version, suite, account, device, .. } = header();
    let digest = Digest::of(label::ARCHIVE_BYTES, of);
    sign(label::ARCHIVE, ArchiveEnd { version, suite, account, device, items: count, digest }.encode())
        .encode()
}

fn whole(items: &[Raw]) -> Vec<u8> {
    let before = framed(items);
    let end = end(&before, items.len() as u64);
    [before, framed(&[(11, end)])[PREFIX_BYTES..].to_vec()].concat()
}

fn verify(bytes: &[u8]) -> Result<(), ArchiveError> {
    let (items, end) = read(bytes)?;
    verify_end(&end, &header(), &items, &public())
}

#[test]
fn a_whole_archive_is_read() {
    verify(&whole(&good())).unwrap();
}

#[test]
fn no_item_may_be_dropped_doubled_or_moved_unnoticed() {
    let items = good();
    for at in 0..items.len() {
        let mut dropped = items.clone();
        dropped.remove(at);
        let mut doubled = items.clone();
        doubled.insert(at, items[at].clone());
        // The maker's end is that of the whole.
        for changed in [&dropped, &doubled] {
            let before = framed(changed);
            let genuine = framed(&[(11, end(&framed(&items), items.len() as u64))])[PREFIX_BYTES..].to_vec();
            assert!(verify(&[before, genuine].concat()).is_err(), "item {at}");
        }
        if !matches!(items[at].0, 4) {
            assert!(read(&whole(&doubled)).is_err(), "item {at} twice");
        }
    }
    for (left, right) in
        [(0, 1), (1, 2), (3, 4), (4, 5), (7, 8), (9, 10), (10, 11), (11, 12), (12, 13), (14, 15)]
    {
        let mut swapped = items.clone();
        swapped.swap(left, right);
        assert!(read(&whole(&swapped)).is_err(), "items {left} and {right}");
    }
}

#[test]
fn vaults_and_commits_come_in_their_order() {
    let refused = |change: &dyn Fn(&mut Vec<Raw>)| {
        let mut items = good();
        change(&mut items);
        assert!(read(&whole(&items)).is_err());
    };
    refused(&|items| items.insert(8, commit(VaultId::from_bytes([0xfe; 16]), 5)));
    refused(&|items| items[7] = commit(keyring(), 0));
    refused(&|items| items[18] = vault(VaultId::from_bytes([1; 16])));
    refused(&|items| items[18] = vault(keyring()));
    refused(&|items| items[4] = vault(VaultId::from_bytes([1; 16])));
    refused(&|items| items.truncate(4));
    refused(&|items| items.truncate(5));
    refused(&|items| items.push((12, vec![])));
    refused(&|items| items.push((0, vec![])));
}

#[test]
fn what_is_cut_off_or_goes_on_is_refused() {
    let bytes = whole(&good());
    for length in 0..bytes.len() {
        assert!(verify(&bytes[..length]).is_err(), "{length} bytes");
    }
    assert!(verify(&[&bytes[..], &[0]].concat()).is_err());
    assert!(verify(&[&bytes[..], &bytes[PREFIX_BYTES..]].concat()).is_err());
}

#[test]
fn every_flipped_bit_is_refused() {
    let bytes = whole(&good());
    for place in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1 << bit;
            assert!(verify(&damaged).is_err(), "byte {place} bit {bit}");
        }
    }
}

#[test]
fn lengths_beyond_the_limit_are_refused_before_a_body_is_looked_at() {
    let mut items = Items::begin(&prefix()).unwrap();
    let head = |kind: u8, bytes: u64| -> [u8; 9] {
        [&[kind][..], &bytes.to_be_bytes()].concat().try_into().unwrap()
    };
    for bytes in [257, u64::MAX] {
        assert!(items.head(&head(1, bytes)).is_err());
    }
    for (kind, body) in &good()[..15] {
        if *kind != 9 {
            let head = items.head(&head(*kind, body.len() as u64)).unwrap();
            items.take(head, body).unwrap();
        }
    }
    assert!(items.clone().head(&head(9, limits::ARCHIVE_OBJECT_BYTES_MAX)).is_ok());
    assert!(items.clone().head(&head(9, limits::ARCHIVE_OBJECT_BYTES_MAX + 1)).is_err());
    assert!(items.clone().head(&head(9, 15)).is_err());
    assert!(items.head(&head(5, (8 << 20) + 1)).is_err());
}

#[test]
fn an_end_by_somebody_else_or_of_another_archive_is_refused() {
    let bytes = whole(&good());
    let (items, signed) = read(&bytes).unwrap();
    let other = SigningKey::from_bytes(&[8; 32]);
    let stranger = PublicKey::from_bytes(&other.verifying_key().to_bytes()).unwrap();
    assert!(verify_end(&signed, &header(), &items, &stranger).is_err());
    let elsewhere = ArchiveHeader { device: DeviceId::from_bytes([4; 16]), ..header() };
    assert!(verify_end(&signed, &elsewhere, &items, &public()).is_err());
    let genuine = ArchiveEnd::decode(&signed.bytes.0).unwrap();
    for wrong in [
        ArchiveEnd { items: genuine.items + 1, ..genuine.clone() },
        ArchiveEnd { digest: Digest::ZERO, ..genuine.clone() },
    ] {
        assert!(verify_end(&sign(label::ARCHIVE, wrong.encode()), &header(), &items, &public()).is_err());
    }
    let mislabelled = sign(label::COMMIT, genuine.encode());
    assert!(verify_end(&mislabelled, &header(), &items, &public()).is_err());
}

#[test]
fn bare_keys_hold_the_recovery_wrap_alone() {
    assert_eq!(BareKeys::decode(&bare().encode()).unwrap(), bare());
    let refused = |change: &dyn Fn(&mut BareKeys)| {
        let mut keys = bare();
        change(&mut keys);
        assert!(BareKeys::decode(&keys.encode()).is_err());
    };
    refused(&|keys| keys.wrap.role = 1);
    refused(&|keys| keys.wrap.profile = 1);
    refused(&|keys| keys.counter = 0);
    refused(&|keys| keys.keyring.epoch = Epoch::new(3));
    refused(&|keys| keys.keyring.links.clear());
    refused(&|keys| keys.account = AccountId::from_bytes([1; 16]));
    refused(&|keys| keys.recovery = Digest::ZERO);
    refused(&|keys| keys.version = 1);
}

#[test]
fn a_header_and_an_end_are_of_their_account_and_this_suite() {
    assert_eq!(ArchiveHeader::decode(&header().encode()).unwrap(), header());
    let foreign = Digest::from_bytes(SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes());
    let (weak, of_weak) = (Digest::ZERO, account_id(&[0; 32]));
    for wrong in [
        ArchiveHeader { account: AccountId::from_bytes([1; 16]), ..header() },
        ArchiveHeader { identity: foreign, ..header() },
        ArchiveHeader { identity: weak, account: of_weak, ..header() },
        ArchiveHeader { suite: 2, ..header() },
    ] {
        assert!(ArchiveHeader::decode(&wrong.encode()).is_err());
    }
    let ArchiveHeader { version, suite, account, device, .. } = header();
    let end = ArchiveEnd { version, suite, account, device, items: 1, digest: Digest::ZERO };
    assert_eq!(ArchiveEnd::decode(&end.encode()).unwrap(), end);
    assert!(ArchiveEnd::decode(&ArchiveEnd { suite: 2, ..end }.encode()).is_err());
}

#[test]
fn bare_keys_are_what_remains_of_a_key_header() {
    let bare = bare();
    let passphrase = Wrap { role: crate::key_header::ROLE_PASSPHRASE, profile: 1, ..bare.wrap.clone() };
    let seal = crate::key_header::DeviceSeal {
        device: DeviceId::from_bytes([3; 16]),
        encapsulated: ByteArray([0; 1120]),
        ciphertext: ByteArray([0; 48]),
    };
    let full = KeyHeader {
        version: VERSION,
        suite: SUITE,
        account: bare.account,
        counter: bare.counter,
        identity: bare.identity,
        recovery: bare.recovery,
        wraps: vec![passphrase.clone(), bare.wrap.clone()],
        keyring: Keyring { seals: vec![seal], ..bare.keyring.clone() },
    };
    assert_eq!(BareKeys::of(&full), Some(bare));
    assert_eq!(BareKeys::of(&KeyHeader { wraps: vec![passphrase], ..full }), None);
}

#[test]
fn a_vault_has_one_to_4096_entries_of_its_log() {
    let judge = |count| {
        let log = vec![sign(label::VAULT_LOG_ENTRY, vec![1]); count];
        ArchiveVault::decode(&ArchiveVault { vault: keyring(), log }.encode()).is_ok()
    };
    assert!(judge(1) && judge(4096) && !judge(0) && !judge(4097) && !judge(5000));
    assert_eq!(ArchiveCommit::BYTES_MAX, (2 << 20) + 4096);
}
