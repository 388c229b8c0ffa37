//! Tests of lengths, ends and padding.

use super::*;

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
        cipher.seal(0, &mut chunk, 0).unwrap();
        [object[..HEADER_BYTES].to_vec(), chunk].concat()
    };
    assert_eq!(open(&keys, &reference, &with_padding(0)), (b"short contents".to_vec(), Ok(())));
    assert_eq!(open(&keys, &reference, &with_padding(1)), (Vec::new(), Err(OpenError)));
}
