//! Objects: STREAM over XChaCha20-Poly1305 with a key commitment (PROTOCOL.md section 9).

use crate::content::BlobRef;
use crate::error::{CryptoError, OpenError};
use crate::kdf;
use crate::secret::{SHALLOW, SecretKey, random_bytes, wiped};
use crate::vault::{ContentHasher, VaultKeys};
use aead_stream::{NewStream, StreamBE32, StreamPrimitive};
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::KeyInit;
use lockstep_proto::blob::{HEADER_BYTES, Layout, ObjectHeader, chunk_log2_for};
use lockstep_proto::cbor::{ByteArray, encode};
use lockstep_proto::hash::Digest;
use lockstep_proto::id::BlobId;
use lockstep_proto::label;
use lockstep_proto::version::{SUITE, VERSION};
use rand::rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

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

    fn seal(&self, index: u64, chunk: &mut Vec<u8>) -> Result<(), CryptoError> {
        let position = u32::try_from(index).map_err(|_| CryptoError::Primitive { what: "STREAM" })?;
        wiped::<SHALLOW, _>(|| {
            self.stream.encrypt_in_place(position, self.is_last(index), &self.associated, chunk)
        })
        .map_err(|_| CryptoError::Primitive { what: "STREAM" })
    }

    fn open(&self, index: u64, chunk: &mut Vec<u8>) -> Result<(), OpenError> {
        let position = u32::try_from(index).map_err(|_| OpenError)?;
        wiped::<SHALLOW, _>(|| {
            self.stream.decrypt_in_place(position, self.is_last(index), &self.associated, chunk)
        })
        .map_err(|_| OpenError)
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
            let room = self.cipher.chunk_len(self.index).saturating_sub(self.buffer.len());
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
        let mut chunk = std::mem::take(&mut *self.buffer);
        self.cipher.seal(self.index, &mut chunk)?;
        out.extend_from_slice(&chunk);
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
        self.cipher.open(self.index, &mut self.buffer)?;
        self.index = self.index.saturating_add(1);
        let left = usize::try_from(self.size.saturating_sub(self.given)).unwrap_or(usize::MAX);
        let (contents, zeros) = self.buffer.split_at(left.min(self.buffer.len()));
        if zeros.iter().any(|byte| *byte != 0) {
            return Err(OpenError);
        }
        self.hasher.update(contents);
        self.given = self.given.saturating_add(u64::try_from(contents.len()).map_err(|_| OpenError)?);
        out.extend_from_slice(contents);
        self.buffer.clear();
        Ok(())
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
mod tests;
