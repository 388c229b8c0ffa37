//! Tests of epochs, sizes, and contents that are not their header's.

use super::*;

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
