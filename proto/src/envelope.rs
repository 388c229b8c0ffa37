//! Record envelopes: one version of one record, sealed (PROTOCOL.md section 5).

use crate::cbor::{ByteArray, Bytes, CodecError, Wire};
use crate::hash::Digest;
use crate::id::{BlobId, DeviceId, Epoch, RecordId, Revision, VaultId};
use crate::{label, limits, wire_array};

/// Document envelope.
pub const KIND_DOCUMENT: u8 = 1;
/// Tombstone envelope.
pub const KIND_TOMBSTONE: u8 = 2;

wire_array! {
    /// The envelope as stored: exact header bytes, key commitment, ciphertext with its tag.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Envelope {
        /// Encoding of [`EnvelopeHeader`]; the associated data.
        pub header: Bytes,
        /// Commitment to the key.
        pub commitment: Digest,
        /// XChaCha20-Poly1305 ciphertext, tag appended.
        pub ciphertext: Bytes,
    }
}

impl Wire for Envelope {
    const NAME: &'static str = "envelope";
    const BYTES_MAX: usize = limits::ENVELOPE_BYTES_MAX;
}

wire_array! {
    /// What is public about an envelope.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct EnvelopeHeader {
        /// Version byte.
        pub version: u8,
        /// Suite.
        pub suite: u8,
        /// [`KIND_DOCUMENT`] or [`KIND_TOMBSTONE`].
        pub kind: u8,
        /// Vault.
        pub vault: VaultId,
        /// Record.
        pub record: RecordId,
        /// Version of the record.
        pub revision: Revision,
        /// Key epoch of the vault.
        pub epoch: Epoch,
        /// Writing device.
        pub device: DeviceId,
        /// Digest of the sorted blob list.
        pub blobs: Digest,
        /// 24-byte nonce.
        pub nonce: ByteArray<24>,
    }
}

impl Wire for EnvelopeHeader {
    const NAME: &'static str = "envelope header";
    const BYTES_MAX: usize = limits::ENVELOPE_HEADER_BYTES_MAX;
    const VERSIONED: bool = true;

    fn check(&self) -> Result<(), CodecError> {
        crate::version::check_suite(Self::NAME, self.version, self.suite)?;
        let rule = |rule| Err(CodecError::Rule { what: Self::NAME, rule });
        if self.kind != KIND_DOCUMENT && self.kind != KIND_TOMBSTONE {
            return rule("the kind is neither document nor tombstone");
        }
        if self.revision.value() == 0 || self.epoch.value() == 0 {
            return rule("revision and epoch begin at 1");
        }
        Ok(())
    }
}

/// Digest of a whole envelope: what change lists and the state digest name.
pub fn digest(envelope: &[u8]) -> Digest {
    Digest::of(label::ENVELOPE, envelope)
}

/// Digest of a blob list, which must be sorted and without duplicates.
pub fn blob_list_digest(blobs: &[BlobId]) -> Digest {
    Digest::of_cbor(label::BLOB_LIST, blobs)
}

/// Decodes an envelope and its header.
///
/// # Errors
/// Every deviation is a [`CodecError`].
pub fn decode(bytes: &[u8]) -> Result<(Envelope, EnvelopeHeader), CodecError> {
    let envelope = Envelope::decode(bytes)?;
    let header = EnvelopeHeader::decode(&envelope.header.0)?;
    Ok((envelope, header))
}

/// Smallest bucket of [`padded_size`], in bytes.
pub const PAD_FLOOR_BYTES: u64 = 256;

/// Padme bucket with a floor of 256 bytes: leaks O(log log n) bits of a length and costs at most 12 %.
/// Source: Nikitin et al., PURBs, PETS 2019, section 4.
pub fn padded_size(size: u64) -> u64 {
    if size <= PAD_FLOOR_BYTES {
        return PAD_FLOOR_BYTES;
    }
    let exponent = size.ilog2();
    let low_bits = exponent.saturating_sub(exponent.ilog2().saturating_add(1));
    let mask = (1_u64 << low_bits).saturating_sub(1);
    size.saturating_add(mask) & !mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_of_a_known_kind_and_count_from_one() {
        let header = |kind, revision, epoch| EnvelopeHeader {
            version: crate::version::VERSION,
            suite: crate::version::SUITE,
            kind,
            vault: VaultId::ZERO,
            record: RecordId::ZERO,
            revision: Revision::new(revision),
            epoch: Epoch::new(epoch),
            device: DeviceId::ZERO,
            blobs: Digest::ZERO,
            nonce: ByteArray([0; 24]),
        };
        for right in [header(KIND_DOCUMENT, 1, 1), header(KIND_TOMBSTONE, 2, 3)] {
            assert_eq!(EnvelopeHeader::decode(&right.encode()).unwrap(), right);
        }
        for (wrong, rule) in [
            (header(0, 1, 1), "neither document nor tombstone"),
            (header(3, 1, 1), "neither document nor tombstone"),
            (header(KIND_DOCUMENT, 0, 1), "begin at 1"),
            (header(KIND_TOMBSTONE, 1, 0), "begin at 1"),
            (EnvelopeHeader { suite: 2, ..header(KIND_DOCUMENT, 1, 1) }, "not suite 1"),
        ] {
            let error = EnvelopeHeader::decode(&wrong.encode()).unwrap_err().to_string();
            assert!(error.contains(rule), "{error}");
        }
    }

    #[test]
    fn padme_buckets() {
        for (size, bucket) in [
            (0, 256),
            (1, 256),
            (256, 256),
            (257, 272),
            (272, 272),
            (273, 288),
            (1000, 1024),
            (1_000_000, 1_015_808),
        ] {
            assert_eq!(padded_size(size), bucket, "{size}");
        }
    }

    #[test]
    fn padme_is_monotonic_idempotent_and_cheap() {
        let mut last = 0;
        for size in 1..200_000_u64 {
            let bucket = padded_size(size);
            assert!(bucket >= size && bucket >= last);
            assert_eq!(padded_size(bucket), bucket);
            assert!(size < 257 || bucket * 100 <= size * 112, "{size} -> {bucket}");
            last = bucket;
        }
    }
}
