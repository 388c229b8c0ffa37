//! Tests of objects.

use super::*;
use lockstep_proto::id::VaultId;
use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;

fn keys(seed: u8) -> VaultKeys {
    VaultKeys::new(VaultId::from_bytes([seed; 16]), &SecretKey::from_bytes(&[seed; 32]))
}

fn seal(keys: &VaultKeys, contents: &[u8]) -> (BlobRef, Vec<u8>) {
    let mut rng = ChaCha20Rng::from_seed([4; 32]);
    let mut hasher = keys.content_hasher();
    hasher.update(contents);
    let reference = new_reference(contents.len() as u64, hasher.finish(), &mut rng);
    let (mut sealer, mut object) = ObjectSealer::new(keys, &reference).unwrap();
    for piece in contents.chunks(10_000) {
        sealer.push(piece, &mut object).unwrap();
    }
    sealer.finish(&mut object).unwrap();
    (reference, object)
}

fn open(keys: &VaultKeys, reference: &BlobRef, object: &[u8]) -> (Vec<u8>, Result<(), OpenError>) {
    let mut opener = ObjectOpener::new(keys, reference).unwrap();
    let mut out = Vec::new();
    for piece in object.chunks(7_777) {
        if let Err(error) = opener.push(piece, &mut out) {
            return (out, Err(error));
        }
    }
    let end = opener.finish();
    (out, end)
}

#[test]
fn sizes_round_trip() {
    let keys = keys(1);
    for size in [0_usize, 1, 255, 256, 257, 65_535, 65_536, 65_537, 131_072, 200_000] {
        let contents: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        let (reference, object) = seal(&keys, &contents);
        let layout = Layout::new(size as u64, reference.chunk_log2).unwrap();
        assert_eq!(object.len() as u64, layout.object_bytes);
        let (out, end) = open(&keys, &reference, &object);
        assert_eq!((out == contents, end), (true, Ok(())), "{size}");
    }
}

#[test]
fn drop_reorder_duplicate_splice_truncate_release_only_a_verified_prefix() {
    let keys = keys(1);
    let contents: Vec<u8> = (0..300_000_u32).map(|i| (i % 249) as u8).collect();
    let (reference, object) = seal(&keys, &contents);
    let chunk = 65_536 + 16;
    let at = |index: usize| HEADER_BYTES + index * chunk;
    let mut dropped = object.clone();
    dropped.drain(at(1)..at(2));
    let mut reordered = object.clone();
    let first = object[at(0)..at(1)].to_vec();
    reordered[at(0)..at(1)].copy_from_slice(&object[at(1)..at(2)]);
    reordered[at(1)..at(2)].copy_from_slice(&first);
    let mut duplicated = object.clone();
    duplicated.splice(at(1)..at(1), first);
    let truncated = object[..at(3)].to_vec();
    let mut longer = object.clone();
    longer.push(0);
    for (name, damaged) in [
        ("dropped", dropped),
        ("reordered", reordered),
        ("duplicated", duplicated),
        ("truncated", truncated),
        ("longer", longer),
    ] {
        let (out, end) = open(&keys, &reference, &damaged);
        assert_eq!(end, Err(OpenError), "{name}");
        assert!(contents.starts_with(&out), "{name} released something unverified");
    }
}

#[test]
fn every_flipped_byte_and_foreign_reference_is_refused() {
    let keys_1 = keys(1);
    let (reference, object) = seal(&keys_1, b"short contents");
    for place in 0..object.len() {
        let mut damaged = object.clone();
        damaged[place] ^= 1;
        let (out, end) = open(&keys_1, &reference, &damaged);
        assert_eq!((out.len(), end), (0, Err(OpenError)), "byte {place}");
    }
    assert_eq!(open(&keys(2), &reference, &object).1, Err(OpenError));
    let other_id = BlobRef { blob: BlobId::from_bytes([9; 16]), ..reference.clone() };
    assert_eq!(open(&keys_1, &other_id, &object).1, Err(OpenError));
    let other_chunk = BlobRef { chunk_log2: 17, ..reference };
    assert_eq!(open(&keys_1, &other_chunk, &object).1, Err(OpenError));
}

#[test]
fn contents_that_change_while_sealed_are_noticed_and_share_no_key() {
    let keys = keys(1);
    let (reference, object) = seal(&keys, &[1; 1000]);
    let (mut sealer, mut out) = ObjectSealer::new(&keys, &reference).unwrap();
    sealer.push(&[2; 1000], &mut out).unwrap();
    assert!(sealer.finish(&mut out).is_err());
    let (again, same) = seal(&keys, &[1; 1000]);
    assert_eq!((again, same), (reference.clone(), object.clone()), "same seed and bytes: same object");
    let mut hasher = keys.content_hasher();
    hasher.update(&[2; 1000]);
    let changed = BlobRef { content_hash: hasher.finish(), ..reference };
    let (_, first) = ObjectSealer::new(&keys, &changed).unwrap();
    assert_ne!(first[..], object[..HEADER_BYTES], "another hash gives another nonce prefix and commitment");
}

#[test]
fn contents_are_as_long_as_the_reference_says() {
    let keys = keys(1);
    let (reference, _) = seal(&keys, &[1; 1000]);
    let begin = || ObjectSealer::new(&keys, &reference).unwrap();
    for size in [1001, 1002, 5000] {
        let (mut sealer, mut out) = begin();
        assert!(sealer.push(&vec![1; size], &mut out).is_err(), "{size}");
    }
    let (mut sealer, mut out) = begin();
    sealer.push(&[1; 999], &mut out).unwrap();
    sealer.push(&[1], &mut out).unwrap();
    assert!(sealer.push(&[1], &mut out).is_err());
    // The hash is that of fewer bytes: the length alone says that some are missing.
    let longer = BlobRef { size: 1001, ..reference.clone() };
    let (mut sealer, mut out) = ObjectSealer::new(&keys, &longer).unwrap();
    sealer.push(&[1; 1000], &mut out).unwrap();
    assert!(sealer.finish(&mut out).is_err());
}

#[test]
fn the_last_chunk_is_known_and_the_length_of_the_whole() {
    let keys = keys(1);
    let (reference, object) = seal(&keys, &vec![1; 200_000]);
    let cipher = ObjectCipher::new(&keys, &reference).unwrap();
    let last: Vec<bool> = (0..6).map(|index| cipher.is_last(index)).collect();
    assert_eq!(last, [false, false, false, true, false, false]);
    let (mut opener, mut out) = (ObjectOpener::new(&keys, &reference).unwrap(), Vec::new());
    assert_eq!(opener.object_bytes(), object.len() as u64);
    opener.push(&object, &mut out).unwrap();
    assert_eq!(opener.push(&[0], &mut out), Err(OpenError), "nothing comes after it");
}

#[test]
fn chunks_that_hold_padding_only_are_not_missed_unnoticed() {
    let keys = keys(1);
    let contents = vec![5; (1 << 22) + 1];
    let mut hasher = keys.content_hasher();
    hasher.update(&contents);
    let mut rng = ChaCha20Rng::from_seed([4; 32]);
    let fresh = new_reference(contents.len() as u64, hasher.finish(), &mut rng);
    // With small chunks the padding of this size fills a chunk of its own.
    let reference = BlobRef { chunk_log2: 16, ..fresh };
    let (mut sealer, mut object) = ObjectSealer::new(&keys, &reference).unwrap();
    sealer.push(&contents, &mut object).unwrap();
    sealer.finish(&mut object).unwrap();
    let (out, end) = open(&keys, &reference, &object);
    assert_eq!((out == contents, end), (true, Ok(())));
    let (out, end) = open(&keys, &reference, &object[..object.len() - 65_536 - 16]);
    assert_eq!((out == contents, end), (true, Err(OpenError)));
    let (out, end) = open(&keys, &reference, &object[..HEADER_BYTES]);
    assert_eq!((out.len(), end), (0, Err(OpenError)));
}

#[test]
fn padding_is_zeros() {
    let keys = keys(1);
    let (reference, object) = seal(&keys, b"short contents");
    let cipher = ObjectCipher::new(&keys, &reference).unwrap();
    let with_padding = |byte: u8| {
        let mut chunk = b"short contents".to_vec();
        chunk.resize(256, 0);
        chunk[255] = byte;
        cipher.seal(0, &mut chunk).unwrap();
        [object[..HEADER_BYTES].to_vec(), chunk].concat()
    };
    assert_eq!(open(&keys, &reference, &with_padding(0)), (b"short contents".to_vec(), Ok(())));
    assert_eq!(open(&keys, &reference, &with_padding(1)), (Vec::new(), Err(OpenError)));
}
