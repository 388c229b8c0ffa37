//! Objects: STREAM over XChaCha20-Poly1305 with a key commitment (PROTOCOL.md section 9).

use crate::content::BlobRef;
use crate::error::{CryptoError, OpenError};
use crate::kdf;
use crate::secret::{SHALLOW, SecretKey, random_bytes, wiped};
use crate::vault::{ContentHasher, VaultKeys};
use aead_stream::{NewStream, StreamBE32, StreamPrimitive};
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{self, Buffer, KeyInit};
use lockstep_proto::blob::{HEADER_BYTES, Layout, ObjectHeader, chunk_log2_for};
use lockstep_proto::cbor::{ByteArray, encode};
use lockstep_proto::hash::Digest;
use lockstep_proto::id::BlobId;
use lockstep_proto::label;
use lockstep_proto::version::{SUITE, VERSION};
use rand::rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize as _, Zeroizing};

/// Makes a reference for contents that were hashed: fresh id and seed.
pub fn new_reference(size: u64, content_hash: Digest, rng: &mut dyn CryptoRng) -> BlobRef {
    BlobRef {
        blob: BlobId::from_bytes(random_bytes(rng)),
        size,
        content_hash,
        seed: ByteArray(random_bytes(rng)),
        chunk_log2: chunk_log2_for(size),
    }
}

/// The cipher of one object: chunk by chunk, in any order.
struct ObjectCipher {
    stream: Box<StreamBE32<XChaCha20Poly1305>>,
    header: ObjectHeader,
    associated: Vec<u8>,
    layout: Layout,
}

impl ObjectCipher {
    fn new(keys: &VaultKeys, reference: &BlobRef) -> Result<Self, CryptoError> {
        let layout = Layout::new(reference.size, reference.chunk_log2)
            .ok_or(CryptoError::Misuse { what: "the contents are larger than an object can be" })?;
        Ok(wiped::<SHALLOW, _>(|| Self::derive(keys, reference, layout)))
    }

    fn derive(keys: &VaultKeys, reference: &BlobRef, layout: Layout) -> Self {
        let info = Zeroizing::new(encode(&(
            label::BLOB_KEY.as_str(),
            VERSION,
            SUITE,
            reference.chunk_log2,
            ByteArray(*keys.blob_secret().expose()),
            reference.blob,
            reference.content_hash,
        )));
        let mut okm = Zeroizing::new([0; 83]);
        kdf::fill(&SecretKey::from_bytes(&reference.seed.0), &info, okm.as_mut());
        let (key, rest) = okm.split_at(32);
        let (commitment, prefix) = rest.split_at(32);
        let mut aead = SecretKey::zero();
        aead.expose_mut().copy_from_slice(key);
        let mut prefix_array = [0_u8; 19];
        prefix_array.copy_from_slice(prefix);
        let header = ObjectHeader {
            chunk_log2: reference.chunk_log2,
            prefix: prefix_array,
            commitment: Digest::from_slice(commitment).unwrap_or(Digest::ZERO),
        };
        let mut associated = header.to_bytes().to_vec();
        associated.extend_from_slice(reference.blob.as_bytes());
        let cipher = XChaCha20Poly1305::new(aead.expose().into());
        let stream = Box::new(StreamBE32::from_aead(cipher, &prefix_array.into()));
        Self { stream, header, associated, layout }
    }

    fn is_last(&self, index: u64) -> bool {
        index.checked_add(1) == Some(self.layout.chunk_count)
    }

    /// Plaintext length of chunk `index`, padding included.
    fn chunk_len(&self, index: u64) -> usize {
        let begin = index.saturating_mul(self.layout.chunk_bytes);
        let len = self.layout.padded_bytes.saturating_sub(begin).min(self.layout.chunk_bytes);
        usize::try_from(len).unwrap_or(usize::MAX)
    }

    /// Seals what lies in `out` from `start` on, where it lies; if that fails, it is taken away.
    fn seal(&self, index: u64, out: &mut Vec<u8>, start: usize) -> Result<(), CryptoError> {
        let failed = CryptoError::Primitive { what: "STREAM" };
        let mut chunk = Tail { whole: out, start };
        let sealed = u32::try_from(index).ok().is_some_and(|position| {
            wiped::<SHALLOW, _>(|| {
                self.stream.encrypt_in_place(position, self.is_last(index), &self.associated, &mut chunk)
            })
            .is_ok()
        });
        if sealed {
            return Ok(());
        }
        chunk.as_mut().zeroize();
        chunk.truncate(0);
        Err(failed)
    }

    /// Opens what lies in `out` from `start` on, where it lies; if that fails, it is taken away.
    fn open(&self, index: u64, out: &mut Vec<u8>, start: usize) -> Result<(), OpenError> {
        let mut chunk = Tail { whole: out, start };
        let opened = u32::try_from(index).ok().is_some_and(|position| {
            wiped::<SHALLOW, _>(|| {
                self.stream.decrypt_in_place(position, self.is_last(index), &self.associated, &mut chunk)
            })
            .is_ok()
        });
        if opened {
            return Ok(());
        }
        chunk.as_mut().zeroize();
        chunk.truncate(0);
        Err(OpenError)
    }
}

/// The end of a vector, as a cipher's buffer: chunks are sealed and opened where they are wanted.
struct Tail<'a> {
    whole: &'a mut Vec<u8>,
    start: usize,
}

impl AsRef<[u8]> for Tail<'_> {
    fn as_ref(&self) -> &[u8] {
        self.whole.get(self.start..).unwrap_or_default()
    }
}

impl AsMut<[u8]> for Tail<'_> {
    fn as_mut(&mut self) -> &mut [u8] {
        self.whole.get_mut(self.start..).unwrap_or_default()
    }
}

impl Buffer for Tail<'_> {
    fn extend_from_slice(&mut self, other: &[u8]) -> aead::Result<()> {
        self.whole.extend_from_slice(other);
        Ok(())
    }

    fn truncate(&mut self, len: usize) {
        self.whole.truncate(self.start.saturating_add(len));
    }
}

/// Contents and their content hash, which can not part.
pub struct Hashed<'a> {
    contents: &'a [u8],
    hash: Digest,
}

impl<'a> Hashed<'a> {
    /// Hashes contents.
    pub fn new(keys: &VaultKeys, contents: &'a [u8]) -> Self {
        let mut hasher = keys.content_hasher();
        hasher.update(contents);
        Self { contents, hash: hasher.finish() }
    }

    /// The content hash.
    pub const fn hash(&self) -> Digest {
        self.hash
    }

    /// Size of the contents in bytes.
    pub fn size(&self) -> u64 {
        u64::try_from(self.contents.len()).unwrap_or(u64::MAX)
    }

    /// Seals into a new object, which is appended to `out`. What was appended of one that fails is taken away.
    ///
    /// # Errors
    /// [`CryptoError::Misuse`] for contents larger than an object can be.
    pub fn seal(
        &self,
        keys: &VaultKeys,
        rng: &mut dyn CryptoRng,
        out: &mut Vec<u8>,
    ) -> Result<BlobRef, CryptoError> {
        let reference = new_reference(self.size(), self.hash, rng);
        let cipher = ObjectCipher::new(keys, &reference)?;
        let begin = out.len();
        out.extend_from_slice(&cipher.header.to_bytes());
        let mut rest = self.contents;
        for index in 0..cipher.layout.chunk_count {
            let (now, later) = rest.split_at(cipher.chunk_len(index).min(rest.len()));
            rest = later;
            let start = out.len();
            out.extend_from_slice(now);
            out.resize(start.saturating_add(cipher.chunk_len(index)), 0);
            if let Err(error) = cipher.seal(index, out, start) {
                out.truncate(begin);
                return Err(error);
            }
        }
        Ok(reference)
    }
}

/// Seals contents into an object, in order. The contents are hashed on the way: bytes that are not those
/// of the reference's content hash are noticed at the end, before anything is named by a record.
pub struct ObjectSealer {
    cipher: ObjectCipher,
    hasher: ContentHasher,
    buffer: Zeroizing<Vec<u8>>,
    index: u64,
    taken: u64,
    size: u64,
    content_hash: Digest,
}

impl ObjectSealer {
    /// Begins; the second value is the object's first bytes.
    ///
    /// # Errors
    /// [`CryptoError::Misuse`] for contents larger than an object can be.
    pub fn new(keys: &VaultKeys, reference: &BlobRef) -> Result<(Self, Vec<u8>), CryptoError> {
        let cipher = ObjectCipher::new(keys, reference)?;
        let first = cipher.header.to_bytes().to_vec();
        let sealer = Self {
            cipher,
            hasher: keys.content_hasher(),
            buffer: Zeroizing::new(Vec::new()),
            index: 0,
            taken: 0,
            size: reference.size,
            content_hash: reference.content_hash,
        };
        Ok((sealer, first))
    }

    /// Takes contents and appends sealed chunks to `out`.
    ///
    /// # Errors
    /// [`CryptoError::Misuse`] if there are more contents than the reference says.
    pub fn push(&mut self, mut contents: &[u8], out: &mut Vec<u8>) -> Result<(), CryptoError> {
        self.hasher.update(contents);
        self.taken = self.taken.saturating_add(u64::try_from(contents.len()).unwrap_or(u64::MAX));
        if self.taken > self.size {
            return Err(CryptoError::Misuse { what: "the contents changed while they were sealed" });
        }
        while !contents.is_empty() {
            let len = self.cipher.chunk_len(self.index);
            if self.buffer.is_empty() && len > 0 && contents.len() >= len {
                // A whole chunk is sealed where it is wanted.
                let (now, later) = contents.split_at(len);
                let start = out.len();
                out.extend_from_slice(now);
                contents = later;
                self.cipher.seal(self.index, out, start)?;
                self.index = self.index.saturating_add(1);
                continue;
            }
            let room = len.saturating_sub(self.buffer.len());
            let (now, later) = contents.split_at(room.min(contents.len()));
            self.buffer.extend_from_slice(now);
            contents = later;
            if self.buffer.len() == self.cipher.chunk_len(self.index) {
                self.flush(out)?;
            }
        }
        Ok(())
    }

    /// Pads, seals the rest, and checks that size and content hash are those of the reference.
    ///
    /// # Errors
    /// [`CryptoError::Misuse`] if the contents changed since they were hashed.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), CryptoError> {
        let changed = CryptoError::Misuse { what: "the contents changed while they were sealed" };
        let is_same = self.hasher.is(&self.content_hash);
        if self.taken != self.size || !is_same {
            return Err(changed);
        }
        while self.index < self.cipher.layout.chunk_count {
            let len = self.cipher.chunk_len(self.index);
            self.buffer.resize(len, 0);
            self.flush(out)?;
        }
        Ok(())
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), CryptoError> {
        let start = out.len();
        out.extend_from_slice(&self.buffer);
        self.buffer.zeroize();
        self.cipher.seal(self.index, out, start)?;
        self.index = self.index.saturating_add(1);
        Ok(())
    }
}

/// Opens an object in order. What it gives out is authentic up to there; that it is whole, only
/// [`ObjectOpener::finish`] says.
pub struct ObjectOpener {
    cipher: ObjectCipher,
    hasher: ContentHasher,
    buffer: Zeroizing<Vec<u8>>,
    header_done: bool,
    index: u64,
    given: u64,
    size: u64,
    content_hash: Digest,
}

impl ObjectOpener {
    /// Begins.
    ///
    /// # Errors
    /// [`CryptoError::Misuse`] for a reference that no object fits.
    pub fn new(keys: &VaultKeys, reference: &BlobRef) -> Result<Self, CryptoError> {
        Ok(Self {
            cipher: ObjectCipher::new(keys, reference)?,
            hasher: keys.content_hasher(),
            buffer: Zeroizing::new(Vec::new()),
            header_done: false,
            index: 0,
            given: 0,
            size: reference.size,
            content_hash: reference.content_hash,
        })
    }

    /// Length of the whole object.
    pub fn object_bytes(&self) -> u64 {
        self.cipher.layout.object_bytes
    }

    /// Takes object bytes and appends verified contents to `out`.
    ///
    /// # Errors
    /// [`OpenError`]; nothing of the failing chunk is given out.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), OpenError> {
        while !bytes.is_empty() {
            let want = self.want().ok_or(OpenError)?;
            if self.header_done && self.buffer.is_empty() && bytes.len() >= want {
                // A whole chunk is opened where it is wanted.
                let (now, later) = bytes.split_at(want);
                let start = out.len();
                out.extend_from_slice(now);
                bytes = later;
                self.open(out, start)?;
                continue;
            }
            let room = want.saturating_sub(self.buffer.len());
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == want {
                self.take(out)?;
            }
        }
        Ok(())
    }

    /// Length of the piece that comes next; none after the last.
    fn want(&self) -> Option<usize> {
        if !self.header_done {
            return Some(HEADER_BYTES);
        }
        (self.index < self.cipher.layout.chunk_count)
            .then(|| self.cipher.chunk_len(self.index).saturating_add(crate::seal::TAG_BYTES))
    }

    fn take(&mut self, out: &mut Vec<u8>) -> Result<(), OpenError> {
        if !self.header_done {
            let bytes: [u8; HEADER_BYTES] = self.buffer.as_slice().try_into().map_err(|_| OpenError)?;
            ObjectHeader::parse(&bytes).map_err(|_| OpenError)?;
            // The expected header holds the commitment: compared before anything is decrypted.
            if !bool::from(self.cipher.header.to_bytes().as_slice().ct_eq(&bytes)) {
                return Err(OpenError);
            }
            self.header_done = true;
            self.buffer.clear();
            return Ok(());
        }
        let start = out.len();
        out.extend_from_slice(&self.buffer);
        self.buffer.clear();
        self.open(out, start)
    }

    /// Opens the next chunk, which lies in `out` from `start` on: only verified contents stay.
    fn open(&mut self, out: &mut Vec<u8>, start: usize) -> Result<(), OpenError> {
        self.cipher.open(self.index, out, start)?;
        self.index = self.index.saturating_add(1);
        let left = usize::try_from(self.size.saturating_sub(self.given)).unwrap_or(usize::MAX);
        let opened = out.get(start..).unwrap_or_default();
        let (contents, zeros) = opened.split_at(left.min(opened.len()));
        let is_padded = zeros.iter().all(|byte| *byte == 0);
        let given = u64::try_from(contents.len()).map_err(|_| OpenError)?;
        if is_padded {
            self.hasher.update(contents);
        }
        let end = start.saturating_add(if is_padded { contents.len() } else { 0 });
        out.truncate(end);
        self.given = self.given.saturating_add(given);
        if is_padded { Ok(()) } else { Err(OpenError) }
    }

    /// Whether the object was whole and its contents are those that were hashed.
    ///
    /// # Errors
    /// [`OpenError`] if it was cut off or has other contents.
    pub fn finish(self) -> Result<(), OpenError> {
        let whole = self.header_done
            && self.buffer.is_empty()
            && self.index == self.cipher.layout.chunk_count
            && self.given == self.size;
        if whole && self.hasher.is(&self.content_hash) { Ok(()) } else { Err(OpenError) }
    }
}

#[cfg(test)]
mod tests {
    mod edges;

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
    fn what_is_hashed_is_sealed_as_the_sealer_does() {
        let keys = keys(1);
        for size in [0_usize, 1, 65_536, 65_537, 200_000, 3_000_001] {
            let contents: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let hashed = Hashed::new(&keys, &contents);
            let mut out = vec![7; 3];
            let mut rng = ChaCha20Rng::from_seed([4; 32]);
            let reference = hashed.seal(&keys, &mut rng, &mut out).unwrap();
            // The same reference, from the same randomness; in pieces, and whole.
            let (same, in_pieces) = seal(&keys, &contents);
            assert!(reference == same && out[3..] == in_pieces[..] && out[..3] == [7; 3], "{size}");
            let (mut sealer, mut whole) = ObjectSealer::new(&keys, &reference).unwrap();
            sealer.push(&contents, &mut whole).unwrap();
            sealer.finish(&mut whole).unwrap();
            assert!(whole == in_pieces, "{size}");
            let mut opener = ObjectOpener::new(&keys, &reference).unwrap();
            let mut opened = Vec::new();
            opener.push(&whole, &mut opened).unwrap();
            assert_eq!((opened == contents, opener.finish()), (true, Ok(())), "{size}");
        }
    }

    #[test]
    fn a_damaged_chunk_that_comes_whole_leaves_nothing_of_it() {
        let keys = keys(1);
        let contents: Vec<u8> = (0..300_000_u32).map(|i| (i % 249) as u8).collect();
        let (reference, object) = seal(&keys, &contents);
        for chunk in 0..4 {
            let mut damaged = object.clone();
            damaged[HEADER_BYTES + chunk * (65_536 + 16) + 9] ^= 1;
            let mut opener = ObjectOpener::new(&keys, &reference).unwrap();
            let mut out = Vec::new();
            assert_eq!(opener.push(&damaged, &mut out), Err(OpenError));
            assert!(out == contents[..chunk * 65_536], "{chunk}");
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
        assert_ne!(
            first[..],
            object[..HEADER_BYTES],
            "another hash gives another nonce prefix and commitment"
        );
    }
}
