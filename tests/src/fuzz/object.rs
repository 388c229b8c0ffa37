//! The reader of objects: whatever comes, in whatever pieces, nothing is given out but the contents from their beginning, and
//! the end is accepted for the object itself only.

use super::edit::Input;
use super::fixture::fixture;
use lockstep_client_crypto::blob::{ObjectOpener, ObjectSealer, new_reference};
use lockstep_client_crypto::content::BlobRef;
use lockstep_client_crypto::vault::VaultKeys;
use std::sync::OnceLock;

/// An object of three chunks, and a small one.
pub(super) struct Sealed {
    pub(super) reference: BlobRef,
    pub(super) contents: Vec<u8>,
    pub(super) object: Vec<u8>,
}

fn seal(keys: &VaultKeys, contents: Vec<u8>) -> Sealed {
    let mut hasher = keys.content_hasher();
    hasher.update(&contents);
    let reference = new_reference(contents.len() as u64, hasher.finish(), &mut super::fixture::rng(9));
    let (mut sealer, mut object) = ObjectSealer::new(keys, &reference).unwrap();
    sealer.push(&contents, &mut object).unwrap();
    sealer.finish(&mut object).unwrap();
    Sealed { reference, contents, object }
}

pub(super) fn sealed() -> &'static [Sealed; 2] {
    static SEALED: OnceLock<[Sealed; 2]> = OnceLock::new();
    SEALED.get_or_init(|| {
        let keys = &fixture().vault_keys;
        let large = (0..150_000_u32).map(|n| (n % 251) as u8).collect();
        [seal(keys, large), seal(keys, b"small contents".to_vec())]
    })
}

/// Opens bytes in the pieces that the input asks for.
fn open(reference: &BlobRef, object: &[u8], input: &mut Input<'_>) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    let Ok(mut opener) = ObjectOpener::new(&fixture().vault_keys, reference) else { return (out, false) };
    let mut rest = object;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at((input.number() % 100_000 + 1).min(rest.len()));
        if opener.push(piece, &mut out).is_err() {
            return (out, false);
        }
        rest = later;
    }
    let whole = opener.finish().is_ok();
    (out, whole)
}

/// A real object that the input spoils, or a reference and an object that the input makes up.
pub(super) fn target(data: &[u8]) {
    let mut input = Input(data);
    let which = input.byte();
    let sealed = &sealed()[usize::from(which & 1)];
    if which & 2 == 0 {
        let mut object = sealed.object.clone();
        input.spoil(&mut object);
        let (out, whole) = open(&sealed.reference, &object, &mut input);
        assert!(sealed.contents.starts_with(&out), "something unverified was given out");
        assert_eq!(whole, object == sealed.object, "only the object itself is whole");
        assert!(!whole || out == sealed.contents);
    } else {
        let mut reference = sealed.reference.clone();
        reference.size = reference.size.wrapping_add(input.number() as u64) << (input.byte() % 64);
        reference.chunk_log2 = input.byte();
        let is_same = reference == sealed.reference;
        let made_up = [&sealed.object[..input.number() % 200], input.take(100_000)].concat();
        let (out, whole) = open(&reference, &made_up, &mut input);
        assert!(is_same || (out.is_empty() && !whole), "another reference opens nothing");
    }
}
