//! What is inside an envelope (PROTOCOL.md section 5): structures that only clients see.

use crate::error::OpenError;
use lockstep_proto::cbor::{ByteArray, Bytes, CodecError, Wire};
pub use lockstep_proto::clock::Hlc;
use lockstep_proto::envelope::padded_size;
use lockstep_proto::hash::Digest;
use lockstep_proto::id::{BlobId, OperationId, RecordId, Revision};
use lockstep_proto::{limits, wire_array};
use zeroize::Zeroizing;

wire_array! {
    /// A reference to an object: all it takes, beside the vault's secrets, to open it.
    #[derive(Clone, PartialEq, Eq)]
    pub struct BlobRef {
        /// Object.
        pub blob: BlobId,
        /// Size of the contents in bytes, without padding.
        pub size: u64,
        /// Keyed content hash.
        pub content_hash: Digest,
        /// Random bytes from which its key is derived.
        pub seed: ByteArray<32>,
        /// Chunk size as a power of two.
        pub chunk_log2: u8,
    }
}

impl std::fmt::Debug for BlobRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobRef({}, {} bytes)", self.blob, self.size)
    }
}

wire_array! {
    /// The plaintext of an envelope.
    #[derive(Clone, PartialEq, Eq)]
    pub struct Content {
        /// Record type.
        pub record_type: String,
        /// Name that the app gave the record.
        pub name: Bytes,
        /// Version of the type's schema.
        pub schema: u64,
        /// 0: the document as it is.
        pub codec: u8,
        /// When it was written, by the writer's hybrid clock.
        pub hlc: Hlc,
        /// Random id of the operation.
        pub operation: OperationId,
        /// Revision that the writer saw; 0 for a new record.
        pub base_revision: Revision,
        /// Record that this conflict copy was split from (16 bytes), or empty.
        pub conflict_of: Bytes,
        /// The document; empty in a tombstone.
        pub document: Bytes,
        /// Objects, in the order of the contents.
        pub blobs: Vec<BlobRef>,
        /// Reserved.
        pub manifest: (),
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Content([redacted])")
    }
}

impl Wire for Content {
    const NAME: &'static str = "content";
    const BYTES_MAX: usize = limits::ENVELOPE_BYTES_MAX;
    const SECRET: bool = true;

    fn check(&self) -> Result<(), CodecError> {
        let rule = |rule| Err(CodecError::Rule { what: Self::NAME, rule });
        if self.codec != 0 {
            return rule("the codec is not part of this draft; an update is needed");
        }
        if self.record_type.is_empty() || self.record_type.len() > limits::RECORD_TYPE_BYTES_MAX {
            return rule("the record type is empty or longer than 128 bytes");
        }
        if self.name.0.len() > limits::RECORD_NAME_BYTES_MAX {
            return rule("the record name is longer than 8,192 bytes");
        }
        if !matches!(self.conflict_of.0.len(), 0 | 16) {
            return rule("the conflict's record is no record id");
        }
        if self.blobs.len() > limits::BLOBS_PER_CHANGE_MAX {
            return rule("more than 1,024 blobs");
        }
        Ok(())
    }
}

impl Content {
    /// Ids of the blobs, sorted, each once: what header and change list name.
    pub fn blob_ids(&self) -> Vec<BlobId> {
        let mut ids: Vec<BlobId> = self.blobs.iter().map(|reference| reference.blob).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The record that a conflict copy was split from.
    pub fn conflict_of(&self) -> Option<RecordId> {
        RecordId::from_slice(&self.conflict_of.0)
    }

    /// Length-prefixed, padded plaintext.
    pub(crate) fn to_plaintext(&self) -> Zeroizing<Vec<u8>> {
        let encoding = Zeroizing::new(self.encode());
        let length = u32::try_from(encoding.len()).unwrap_or(u32::MAX);
        let padded = padded_size(u64::from(length).saturating_add(4));
        let padded = usize::try_from(padded).unwrap_or(encoding.len());
        let mut plaintext = Zeroizing::new(Vec::with_capacity(padded));
        plaintext.extend_from_slice(&length.to_be_bytes());
        plaintext.extend_from_slice(&encoding);
        plaintext.resize(padded, 0);
        plaintext
    }

    /// Reads a plaintext; size and zeros are checked.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) fn from_plaintext(plaintext: &[u8]) -> Result<Self, OpenError> {
        let (prefix, rest) = plaintext.split_at_checked(4).ok_or(OpenError)?;
        let length = u32::from_be_bytes(prefix.try_into().map_err(|_| OpenError)?);
        let size = u64::try_from(plaintext.len()).map_err(|_| OpenError)?;
        if size != padded_size(u64::from(length).saturating_add(4)) {
            return Err(OpenError);
        }
        let length = usize::try_from(length).map_err(|_| OpenError)?;
        let (encoding, zeros) = rest.split_at_checked(length).ok_or(OpenError)?;
        if zeros.iter().any(|byte| *byte != 0) {
            return Err(OpenError);
        }
        Self::decode(encoding).map_err(|_| OpenError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(number: u16) -> BlobRef {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        BlobRef {
            blob: BlobId::from_bytes(id),
            size: 1,
            content_hash: Digest::ZERO,
            seed: ByteArray([0; 32]),
            chunk_log2: 16,
        }
    }

    fn content() -> Content {
        Content {
            record_type: "note".into(),
            name: vec![1].into(),
            schema: 1,
            codec: 0,
            hlc: Hlc { utc_ms: 1, counter: 0 },
            operation: OperationId::from_bytes([1; 16]),
            base_revision: Revision::new(0),
            conflict_of: Vec::new().into(),
            document: vec![7; 100].into(),
            blobs: Vec::new(),
            manifest: (),
        }
    }

    #[test]
    fn fields_have_limits() {
        let judge = |spoil: &dyn Fn(&mut Content)| {
            let mut content = content();
            spoil(&mut content);
            let read = Content::decode(&content.encode()).map_err(|error| error.to_string());
            read.map(|read| assert!(read == content))
        };
        judge(&|_| {}).unwrap();
        judge(&|content| content.record_type = "a".into()).unwrap();
        judge(&|content| content.record_type = "a".repeat(128)).unwrap();
        judge(&|content| content.name = vec![1; 8192].into()).unwrap();
        judge(&|content| content.conflict_of = vec![1; 16].into()).unwrap();
        judge(&|content| content.blobs = (0..1024).map(blob).collect()).unwrap();
        let refused = |spoil: &dyn Fn(&mut Content), rule: &str| {
            let error = judge(spoil).unwrap_err();
            assert!(error.contains(rule), "{error}");
        };
        refused(&|content| content.codec = 1, "the codec is not part of this draft");
        for length in [0, 129, 500] {
            refused(&|content| content.record_type = "a".repeat(length), "empty or longer than 128 bytes");
        }
        for length in [8193, 9000] {
            refused(&|content| content.name = vec![1; length].into(), "longer than 8,192 bytes");
        }
        for length in [1, 15, 17] {
            refused(&|content| content.conflict_of = vec![1; length].into(), "no record id");
        }
        for count in [1025, 1500] {
            refused(&|content| content.blobs = (0..count).map(blob).collect(), "more than 1,024 blobs");
        }
    }

    #[test]
    fn ids_of_blobs_are_sorted_and_each_there_once() {
        let ids = [blob(1).blob, blob(2).blob, blob(3).blob];
        let content = Content { blobs: [3, 1, 2, 1, 3].map(blob).to_vec(), ..content() };
        assert_eq!(content.blob_ids(), ids);
    }

    #[test]
    fn a_conflict_copy_names_its_record() {
        assert_eq!(content().conflict_of(), None);
        let copy = Content { conflict_of: vec![9; 16].into(), ..content() };
        assert_eq!(copy.conflict_of(), Some(RecordId::from_bytes([9; 16])));
    }

    #[test]
    fn a_plaintext_is_its_length_the_content_and_zeros_up_to_the_bucket() {
        let content = content();
        let plaintext = content.to_plaintext();
        let encoding = content.encode();
        assert_eq!(plaintext.len(), 256);
        assert_eq!(plaintext[..4], u32::try_from(encoding.len()).unwrap().to_be_bytes());
        assert_eq!(plaintext[4..4 + encoding.len()], encoding);
        assert!(plaintext[4 + encoding.len()..].iter().all(|byte| *byte == 0));
        assert!(Content::from_plaintext(&plaintext).unwrap() == content);
        let refused = |plaintext: &[u8]| Content::from_plaintext(plaintext).unwrap_err() == OpenError;
        for place in [4 + encoding.len(), 255] {
            let mut padded = plaintext.to_vec();
            padded[place] = 1;
            assert!(refused(&padded), "padding at {place}");
        }
        assert!(refused(&plaintext[..255]) && refused(&plaintext[..4 + encoding.len()]) && refused(&[0; 3]));
        assert!(refused(&[&plaintext[..], &[0; 16]].concat()), "a larger bucket");
        let mut longer = plaintext.to_vec();
        longer[3] += 1;
        assert!(refused(&longer), "a length that takes padding with it");
    }
}
