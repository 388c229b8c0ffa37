//! Tests of what a key header is refused for.

use super::*;
use crate::sign::signing_input;
use crate::version::{SUITE, VERSION};
use ed25519_dalek::{Signer as _, SigningKey};

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn wrap(role: u8, profile: u8) -> Wrap {
    Wrap {
        role,
        profile,
        salt: ByteArray([0; 16]),
        nonce: ByteArray([0; 24]),
        commitment: Digest::ZERO,
        ciphertext: ByteArray([0; 48]),
    }
}

fn link(epoch: u64) -> Link {
    Link {
        epoch: Epoch::new(epoch),
        nonce: ByteArray([0; 24]),
        commitment: Digest::ZERO,
        ciphertext: ByteArray([0; 48]),
    }
}

fn seal(device: u8) -> DeviceSeal {
    DeviceSeal {
        device: DeviceId::from_bytes([device; 16]),
        encapsulated: ByteArray([0; 1120]),
        ciphertext: ByteArray([0; 48]),
    }
}

fn header() -> KeyHeader {
    let identity = key().verifying_key().to_bytes();
    KeyHeader {
        version: VERSION,
        suite: SUITE,
        account: account_id(&identity),
        counter: 1,
        identity: Digest::from_bytes(identity),
        recovery: Digest::from_bytes(identity),
        wraps: vec![wrap(ROLE_PASSPHRASE, 1), wrap(ROLE_RECOVERY, 0)],
        keyring: Keyring {
            epoch: Epoch::new(3),
            nonce: ByteArray([0; 24]),
            commitment: Digest::ZERO,
            ciphertext: ByteArray([0; 48]),
            links: vec![link(1), link(2)],
            seals: vec![seal(1), seal(2)],
        },
    }
}

fn sign(header: &KeyHeader) -> Signed {
    let bytes = header.encode();
    let signature = ByteArray(key().sign(&signing_input(label::KEY_HEADER, &bytes)).to_bytes());
    Signed { bytes: bytes.into(), signature }
}

/// A header that differs from the right one, read.
fn judge(spoil: impl Fn(&mut KeyHeader)) -> Result<KeyHeader, String> {
    let mut header = header();
    spoil(&mut header);
    let read = KeyHeader::decode(&header.encode()).map_err(|error| error.to_string())?;
    assert_eq!(read, header);
    Ok(read)
}

#[track_caller]
fn refused(spoil: impl Fn(&mut KeyHeader), rule: &str) {
    let error = judge(spoil).unwrap_err();
    assert!(error.contains(rule), "{error}");
}

#[test]
fn profiles_are_those_of_the_specification() {
    assert_eq!(PROFILES, [(1, 65_536, 3, 1), (2, 262_144, 4, 1)]);
    let text = include_str!("../../../docs/PROTOCOL.md");
    assert!(text.contains("1 = 64 MiB (m = 65,536), t=3, p=1; 2 = 256 MiB (m = 262,144), t=4, p=1"));
}

#[test]
fn a_header_has_a_passphrase_wrap_and_a_recovery_wrap() {
    let rule = "exactly one passphrase wrap and one recovery wrap";
    judge(|_| {}).unwrap();
    judge(|header| header.wraps[0].profile = 2).unwrap();
    refused(|header| header.wraps.truncate(1), rule);
    refused(|header| header.wraps.push(wrap(ROLE_RECOVERY, 0)), rule);
    refused(|header| header.wraps[0].role = ROLE_RECOVERY, rule);
    refused(|header| header.wraps[1].role = ROLE_PASSPHRASE, rule);
    refused(|header| header.wraps.swap(0, 1), rule);
    for profile in [0, 3] {
        refused(|header| header.wraps[0].profile = profile, "not on the closed list");
    }
    refused(|header| header.wraps[1].profile = 1, "not on the closed list");
    refused(|header| header.counter = 0, "the counter begins at 1");
    refused(|header| header.suite = 2, "not suite 1");
}

#[test]
fn a_keyring_has_one_to_sixty_four_seals_ascending_by_device() {
    let seals = |count: u8| (1..=count).map(seal).collect::<Vec<_>>();
    judge(|header| header.keyring.seals = seals(1)).unwrap();
    judge(|header| header.keyring.seals = seals(64)).unwrap();
    for count in [0, 65, 80] {
        refused(|header| header.keyring.seals = seals(count), "between 1 and 64 device seals");
    }
    let rule = "seals ascend by device, each device once";
    refused(|header| header.keyring.seals = vec![seal(2), seal(1)], rule);
    refused(|header| header.keyring.seals = vec![seal(1), seal(1)], rule);
}

#[test]
fn a_keyring_has_one_link_for_each_older_epoch() {
    let keyring = |header: &mut KeyHeader, epoch: u64, links: u64| {
        header.keyring.epoch = Epoch::new(epoch);
        header.keyring.links = (1..=links).map(link).collect();
    };
    judge(|header| keyring(header, 1, 0)).unwrap();
    judge(|header| keyring(header, 1025, 1024)).unwrap();
    for (epoch, links) in [(0, 0), (1, 1), (2, 0), (1026, 1025), (1101, 1100)] {
        refused(|header| keyring(header, epoch, links), "one link for each older keyring epoch");
    }
    for links in [[2, 1], [1, 1], [2, 3]] {
        refused(|header| header.keyring.links = links.map(link).to_vec(), "links ascend from epoch 1");
    }
}

#[test]
fn a_header_is_of_its_account_and_signed_by_its_identity() {
    let account = header().account;
    let verified = VerifiedKeyHeader::verify(account, &sign(&header())).unwrap();
    assert_eq!(
        (verified.header(), verified.identity().to_bytes()),
        (&header(), *header().identity.as_bytes())
    );
    assert_eq!(verified.hash(), Digest::of(label::KEY_HEADER, &header().encode()));
    let judge = |account, spoil: &dyn Fn(&mut KeyHeader)| {
        let mut header = header();
        spoil(&mut header);
        VerifiedKeyHeader::verify(account, &sign(&header)).unwrap_err().to_string()
    };
    let other = AccountId::from_bytes([9; 16]);
    let stranger = Digest::from_bytes(SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes());
    let weak = Digest::ZERO;
    let wrong = "the identity key does not belong to account";
    assert!(judge(other, &|_| {}).contains(wrong), "asked for another");
    assert!(judge(account, &|header| header.account = other).contains(wrong), "names another");
    assert!(judge(other, &|header| header.account = other).contains(wrong), "both, but not its identity's");
    assert!(judge(account, &|header| header.identity = stranger).contains(wrong), "another identity");
    let of_weak = account_id(weak.as_bytes());
    let is_weak = |header: &mut KeyHeader| (header.account, header.identity) = (of_weak, weak);
    assert!(judge(of_weak, &is_weak).contains(wrong), "an identity that is no key");
    let error = judge(account, &|header| header.recovery = weak);
    assert!(error.contains("the recovery key is not a valid key"), "{error}");
    let mut signed = sign(&header());
    signed.signature.0[3] ^= 1;
    let error = VerifiedKeyHeader::verify(account, &signed).unwrap_err().to_string();
    assert!(error.contains("the signature"), "{error}");
}
