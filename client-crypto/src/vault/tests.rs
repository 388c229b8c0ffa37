//! Tests of record ids and envelopes.

use super::*;
use crate::content::Hlc;
use lockstep_proto::envelope::KIND_DOCUMENT;
use lockstep_proto::id::OperationId;
use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;

fn content(name: &[u8], document: Vec<u8>) -> Content {
    Content {
        record_type: "note".into(),
        name: name.into(),
        schema: 1,
        codec: 0,
        hlc: Hlc { utc_ms: 1, counter: 0 },
        operation: OperationId::from_bytes([1; 16]),
        base_revision: Revision::new(0),
        conflict_of: Vec::new().into(),
        document: document.into(),
        blobs: Vec::new(),
        manifest: (),
    }
}

fn keys(seed: u8) -> VaultKeys {
    VaultKeys::new(VaultId::from_bytes([seed; 16]), &SecretKey::from_bytes(&[seed; 32]))
        .with_epoch(Epoch::new(1), SecretKey::from_bytes(&[seed.wrapping_add(1); 32]))
}

const AS: SealAs = SealAs { kind: KIND_DOCUMENT, revision: Revision::new(1), epoch: Epoch::new(1) };

#[test]
fn envelopes_round_trip_in_buckets() {
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let device = DeviceKeys::generate(&mut rng).unwrap();
    let vault = keys(1);
    let mut sizes = std::collections::BTreeSet::new();
    for length in 0..2000 {
        let content = content(b"a", vec![7; length]);
        let sealed = vault.seal(AS, &content, &device, &mut rng).unwrap();
        sizes.insert(sealed.len());
        if length % 97 == 0 {
            assert_eq!(vault.open(&sealed).unwrap().content, content);
        }
    }
    assert!(sizes.len() < 60, "2,000 lengths fall into {} sizes", sizes.len());
}

#[test]
fn flipped_and_transplanted_envelopes_do_not_open() {
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let device = DeviceKeys::generate(&mut rng).unwrap();
    let vault = keys(1);
    let sealed = vault.seal(AS, &content(b"a", b"x".to_vec()), &device, &mut rng).unwrap();
    for place in 0..sealed.len() {
        for bit in 0..8 {
            let mut damaged = sealed.clone();
            damaged[place] ^= 1 << bit;
            assert!(vault.open(&damaged).is_err(), "byte {place} bit {bit}");
        }
    }
    assert!(keys(2).open(&sealed).is_err());
    let other_vault_same_key = VaultKeys::new(VaultId::from_bytes([9; 16]), &SecretKey::from_bytes(&[1; 32]))
        .with_epoch(Epoch::new(1), SecretKey::from_bytes(&[2; 32]));
    assert!(other_vault_same_key.open(&sealed).is_err());
}

#[test]
fn a_repeating_generator_does_not_repeat_nonces_for_other_contents() {
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let device = DeviceKeys::generate(&mut rng).unwrap();
    let vault = keys(1);
    let nonce_of = |document: &[u8]| {
        let mut cloned = ChaCha20Rng::from_seed([5; 32]);
        let sealed = vault.seal(AS, &content(b"a", document.to_vec()), &device, &mut cloned).unwrap();
        envelope::decode(&sealed).unwrap().1.nonce
    };
    assert_eq!(nonce_of(b"one"), nonce_of(b"one"));
    assert_ne!(nonce_of(b"one"), nonce_of(b"two"));
}

#[test]
fn record_ids_depend_on_vault_type_and_name() {
    let vault = keys(1);
    let id = vault.record_id("note", b"a");
    assert_eq!(id, vault.record_id("note", b"a"));
    assert_ne!(id, vault.record_id("note", b"b"));
    assert_ne!(id, vault.record_id("file", b"a"));
    assert_ne!(id, keys(2).record_id("note", b"a"));
}

#[test]
fn a_vault_knows_its_epochs() {
    let mut vault = keys(1);
    assert_eq!((vault.vault(), vault.newest_epoch()), (VaultId::from_bytes([1; 16]), Some(Epoch::new(1))));
    vault.add_epoch(Epoch::new(3), SecretKey::from_bytes(&[4; 32]));
    assert_eq!(vault.newest_epoch(), Some(Epoch::new(3)));
    assert!(vault.has_epoch(Epoch::new(1)) && vault.has_epoch(Epoch::new(3)));
    assert!(!vault.has_epoch(Epoch::new(2)));
    let none = VaultKeys::new(VaultId::from_bytes([1; 16]), &SecretKey::from_bytes(&[1; 32]));
    assert_eq!(none.newest_epoch(), None);
}

#[test]
fn secrets_of_a_vault_are_its_own() {
    assert_eq!(keys(1).blob_secret().expose(), keys(1).blob_secret().expose());
    assert_ne!(keys(1).blob_secret().expose(), keys(2).blob_secret().expose());
    let secret = SecretKey::from_bytes(&[1; 32]);
    let other = VaultKeys::new(VaultId::from_bytes([2; 16]), &secret);
    assert_ne!(keys(1).blob_secret().expose(), other.blob_secret().expose());
}

#[test]
fn what_is_too_large_or_has_no_key_is_not_sealed() {
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let device = DeviceKeys::generate(&mut rng).unwrap();
    let vault = keys(1);
    let mut seal = |size: usize, epoch: u64| {
        let seal_as = SealAs { epoch: Epoch::new(epoch), ..AS };
        vault
            .seal(seal_as, &content(b"a", vec![7; size]), &device, &mut rng)
            .map_err(|error| error.to_string())
    };
    assert!(seal(1_030_000, 1).unwrap().len() <= limits::ENVELOPE_BYTES_MAX);
    for size in [1_040_000, 1_048_576, 2_000_000] {
        assert!(seal(size, 1).unwrap_err().contains("larger than 1 MiB"), "{size}");
    }
    assert!(seal(1, 2).unwrap_err().contains("the key of this vault's epoch is not here"));
}

/// An envelope under the vault's right key whose header was changed before it was sealed.
fn forged(vault: &VaultKeys, content: &Content, change: impl Fn(&mut EnvelopeHeader)) -> Vec<u8> {
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let device = DeviceKeys::generate(&mut rng).unwrap();
    let sealed = vault.seal(AS, content, &device, &mut rng).unwrap();
    let mut header = envelope::decode(&sealed).unwrap().1;
    change(&mut header);
    let bytes = header.encode();
    let (commitment, ciphertext) = seal::seal(
        &vault.epochs[&Epoch::new(1)],
        label::ENVELOPE_HEADER,
        &bytes,
        &header.nonce.0,
        &content.to_plaintext(),
    );
    Envelope { header: bytes.into(), commitment, ciphertext: ciphertext.into() }.encode()
}

#[test]
fn a_content_belongs_to_its_header() {
    let vault = keys(1);
    let document = content(b"a", b"x".to_vec());
    vault.open(&forged(&vault, &document, |_| {})).unwrap();
    let spoilt: [fn(&mut EnvelopeHeader); 4] = [
        |header| header.record = keys(1).record_id("note", b"b"),
        |header| header.blobs = blob_list_digest(&[lockstep_proto::BlobId::ZERO]),
        |header| header.vault = VaultId::from_bytes([2; 16]),
        |header| header.kind = KIND_TOMBSTONE,
    ];
    for (place, spoil) in spoilt.into_iter().enumerate() {
        assert_eq!(vault.open(&forged(&vault, &document, spoil)).unwrap_err(), OpenError, "{place}");
    }
}

#[test]
fn a_tombstone_has_no_document_and_no_blobs() {
    let vault = keys(1);
    let bury =
        |content: &Content| vault.open(&forged(&vault, content, |header| header.kind = KIND_TOMBSTONE));
    let mut bare = content(b"a", Vec::new());
    bury(&bare).unwrap();
    vault.open(&forged(&vault, &bare, |_| {})).expect("an empty document");
    let mut rng = ChaCha20Rng::from_seed([4; 32]);
    bare.blobs.push(crate::blob::new_reference(1, Digest::ZERO, &mut rng));
    assert_eq!(bury(&bare).unwrap_err(), OpenError);
    vault.open(&forged(&vault, &bare, |_| {})).expect("a document of blobs");
}

#[test]
fn the_author_is_the_device_that_sealed() {
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let device = DeviceKeys::generate(&mut rng).unwrap();
    let sealed = keys(1).seal(AS, &content(b"a", vec![]), &device, &mut rng).unwrap();
    assert_eq!((author_of(&sealed), author_of(b"none")), (Some(device.id()), None));
}
