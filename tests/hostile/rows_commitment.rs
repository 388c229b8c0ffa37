//! Row 19: a ciphertext that opens under two keys, because the AEAD does not commit to its key; the format does.

use crate::collision::{Reader, find};
use crate::rows_envelopes::keys_and_envelope;
use crate::scene::{lagging, refuses, world_behind};
use lockstep_client_crypto::blob::{ObjectOpener, ObjectSealer, new_reference};
use lockstep_client_crypto::content::BlobRef;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::vault::{SealAs, VaultKeys};
use lockstep_client_crypto::{kdf, seal};
use lockstep_proto::Digest;
use lockstep_proto::blob::{HEADER_BYTES, ObjectHeader};
use lockstep_proto::cbor::{ByteArray, Wire as _, encode};
use lockstep_proto::envelope::{self, Envelope, KIND_DOCUMENT};
use lockstep_proto::id::{Epoch, Revision, VaultId};
use lockstep_proto::label;
use lockstep_proto::version::{SUITE, VERSION};
use lockstep_tests::hostile::scenario::envelope::relabelled;
use lockstep_tests::hostile::scenario::{At, rules};
use rand::SeedableRng as _;
use rand::rngs::ChaCha20Rng;

const NOT_VALID: &[&str] = &["not valid"];
const LIST: &[&str] = &["record", "list", "--type", "note"];

/// A ciphertext that is whole under the second key, with the commitment to the first: who is served it refuses it, and
/// the error is the one for a commitment that is wrong over a ciphertext that is whole.
#[test]
fn row_19_a_ciphertext_under_two_keys() {
    let (keys, device, sealed) = keys_and_envelope(b"secret");
    let content = keys.open(&sealed).unwrap().content;
    let other = VaultKeys::new(keys.vault(), &SecretKey::from_bytes(&[2; 32]))
        .with_epoch(Epoch::new(1), SecretKey::from_bytes(&[9; 32]));
    let mut rng = ChaCha20Rng::from_seed([5; 32]);
    let seal_as = SealAs { kind: KIND_DOCUMENT, revision: Revision::new(1), epoch: Epoch::new(1) };
    let under_other = other.seal(seal_as, &content, &device, &mut rng).unwrap();
    let (mut mixed, header) = envelope::decode(&under_other).unwrap();
    let (first, _) = envelope::decode(&sealed).unwrap();
    let whole = mixed.clone();
    mixed.commitment = first.commitment;
    // Whole under the other key, and yet refused by both.
    assert!(other.open(&whole.encode()).is_ok());
    let errors = [&keys, &other].map(|keys| keys.open(&mixed.encode()).unwrap_err().to_string());
    let wrong = keys.open(&relabelled(&sealed, 10).0).unwrap_err().to_string();
    assert_eq!(errors, [wrong.clone(), wrong]);
    assert_eq!(header.revision, Revision::new(1));

    let (world, hostile) = world_behind();
    let (_a, b) = lagging(&world);
    refuses(&hostile, &b, rules("other-key", &At::default()), LIST, (6, NOT_VALID));
    assert_eq!(b.get("n"), "\"two\"");
}

/// What a key gives for an envelope's header: the AEAD's key, and the commitment (PROTOCOL.md section 1.2).
fn derived(key: &SecretKey, header: &[u8]) -> ([u8; 32], Digest) {
    let info = encode(&(label::ENVELOPE_HEADER.as_str(), Digest::of(label::ENVELOPE_HEADER, header)));
    let both = kdf::expand::<64>(key, &info);
    (both[..32].try_into().unwrap(), Digest::from_slice(&both[32..]).unwrap())
}

/// The attack on envelopes: a device that knows two keys makes one ciphertext that XChaCha20-Poly1305 opens under both, so
/// that each reader would see a document of his own. One commitment stands before it, and is good for one key.
#[test]
fn row_19_a_computed_collision_of_an_envelope_opens_for_one_key_only() {
    const DOCUMENT: [u8; 64] = [b'd'; 64];
    let (keys, _, sealed) = keys_and_envelope(&DOCUMENT);
    let (envelope, header) = envelope::decode(&sealed).unwrap();
    let secrets = [SecretKey::from_bytes(&[3; 32]), SecretKey::from_bytes(&[9; 32])];
    let both = [0, 1].map(|at| derived(&secrets[at], &envelope.header.0));
    assert_eq!(both[0].1, envelope.commitment, "derived as the client derives it");
    let readers =
        both.map(|(key, _)| Reader { key, nonce: header.nonce.0, associated: envelope.header.0.clone() });
    let plain = readers[0].open(&envelope.ciphertext.0).unwrap();
    assert_eq!(readers[1].open(&envelope.ciphertext.0), None);
    // A block within the document is solved for, the first byte of the next one is varied.
    let begin = plain.windows(DOCUMENT.len()).position(|window| window == DOCUMENT).unwrap();
    let free = begin.div_ceil(16);
    let body = &envelope.ciphertext.0[..plain.len()];
    let collision = find([&readers[0], &readers[1]], free, |number| {
        let mut body = body.to_vec();
        body[(free + 1) * 16] ^= number;
        body
    });

    // The attack is real: the AEAD takes it twice, for two plaintexts, of which the first is what was sealed but for 17 bytes.
    let [one, other] = [0, 1].map(|at| readers[at].open(&collision).expect("the AEAD does not commit"));
    assert_ne!(one, other);
    let solved = free * 16..(free + 1) * 16 + 1;
    let differs = |at: &usize| one[*at] != plain[*at];
    assert!((0..plain.len()).filter(differs).all(|at| solved.contains(&at)));
    let committed = |commitment: Digest| {
        let whole =
            Envelope { commitment, header: envelope.header.clone(), ciphertext: collision.clone().into() };
        whole.encode()
    };
    // To the first reader it is a good envelope.
    let opened = keys.open(&committed(both[0].1)).unwrap().content;
    assert_eq!(opened.document.0.len(), DOCUMENT.len());
    assert_ne!(opened.document.0, DOCUMENT);
    // Whichever commitment it has: one key opens it, and the other is refused what the AEAD alone gives it.
    let tried = |key: usize, commitment: usize| {
        let (header, nonce) = (&envelope.header.0, &header.nonce.0);
        seal::open(&secrets[key], label::ENVELOPE_HEADER, header, nonce, &both[commitment].1, &collision)
            .map(|plain| plain.to_vec())
            .map_err(|error| error.to_string())
    };
    assert_eq!((tried(0, 0), tried(1, 1)), (Ok(one), Ok(other)));
    let wrong = || Err("it does not open with this key".to_owned());
    assert_eq!((tried(0, 1), tried(1, 0)), (wrong(), wrong()));
    let second = VaultKeys::new(keys.vault(), &SecretKey::from_bytes(&[2; 32]))
        .with_epoch(Epoch::new(1), SecretKey::from_bytes(&[9; 32]));
    assert!(second.open(&committed(both[0].1)).is_err());
    assert!(keys.open(&committed(both[1].1)).is_err());
}

const VAULT: VaultId = VaultId::from_bytes([1; 16]);
const VAULT_SECRET: [u8; 32] = [2; 32];

/// What a reference gives: its object's header, and what its only chunk is sealed with (PROTOCOL.md section 9).
fn of_reference(reference: &BlobRef) -> (Vec<u8>, Reader) {
    let secret = kdf::derive_key(&SecretKey::from_bytes(&VAULT_SECRET), label::BLOB_SECRET, &[VAULT]);
    let info = encode(&(
        label::BLOB_KEY.as_str(),
        VERSION,
        SUITE,
        reference.chunk_log2,
        ByteArray(*secret.expose()),
        reference.blob,
        reference.content_hash,
    ));
    let okm = kdf::expand::<83>(&SecretKey::from_bytes(&reference.seed.0), &info);
    let prefix: [u8; 19] = okm[64..].try_into().unwrap();
    let commitment = Digest::from_slice(&okm[32..64]).unwrap();
    let header = ObjectHeader { chunk_log2: reference.chunk_log2, prefix, commitment }.to_bytes().to_vec();
    // STREAM: number of the chunk, and that it is the last one.
    let nonce = [&prefix[..], &[0, 0, 0, 0], &[1]].concat().try_into().unwrap();
    let associated = [&header[..], reference.blob.as_bytes()].concat();
    (header, Reader { key: okm[..32].try_into().unwrap(), nonce, associated })
}

/// The same with objects: two references, whose nonces and associated data differ, too.
#[test]
fn row_19_a_computed_collision_of_an_object_is_refused_before_anything_is_decrypted() {
    let keys = VaultKeys::new(VAULT, &SecretKey::from_bytes(&VAULT_SECRET));
    let contents = [b'c'; 256];
    let mut hasher = keys.content_hasher();
    hasher.update(&contents);
    let mut rng = ChaCha20Rng::from_seed([19; 32]);
    let references = [0, 1].map(|_| new_reference(256, hasher.finish(), &mut rng));
    let (mut sealer, mut object) = ObjectSealer::new(&keys, &references[0]).unwrap();
    sealer.push(&contents, &mut object).unwrap();
    sealer.finish(&mut object).unwrap();
    let [(header, first), (other_header, second)] = references.each_ref().map(of_reference);
    assert_eq!(header, object[..HEADER_BYTES], "derived as the client derives it");
    let body = &object[HEADER_BYTES..object.len() - 16];
    let collision = find([&first, &second], 3, |number| {
        let mut body = body.to_vec();
        body[64] ^= number;
        body
    });
    let [one, other] =
        [&first, &second].map(|reader| reader.open(&collision).expect("the AEAD does not commit"));
    assert_ne!(one, other);

    let given = |reference: &BlobRef, header: &[u8]| {
        let mut opener = ObjectOpener::new(&keys, reference).unwrap();
        let mut out = Vec::new();
        let result = opener.push(header, &mut out).and_then(|()| opener.push(&collision, &mut out));
        (out, result.is_ok(), result.and_then(|()| opener.finish()).is_ok())
    };
    // Each takes it under its own header, and finds at the end that these are not the contents that were hashed.
    assert_eq!(given(&references[0], &header), (one, true, false));
    assert_eq!(given(&references[1], &other_header), (other, true, false));
    // Under the other's it is refused, and nothing came out.
    assert_eq!(given(&references[1], &header), (Vec::new(), false, false));
    assert_eq!(given(&references[0], &other_header), (Vec::new(), false, false));
}
