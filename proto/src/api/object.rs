//! Objects: framed uploads, parts, ranges (PROTOCOL.md section 9).

use super::body;
use crate::hash::Digest;
use crate::id::BlobId;
use crate::limits::{FRAMES_MAX, MIB, TINY_BODY_BYTES_MAX};
use serde::{Deserialize, Serialize};

/// Bytes before each object of a framed upload: id and big-endian size.
pub const FRAME_HEADER_BYTES: usize = 20;

/// Writes the header of a frame.
pub fn frame_header(blob: BlobId, size: u32) -> [u8; FRAME_HEADER_BYTES] {
    let mut out = [0; FRAME_HEADER_BYTES];
    for (place, byte) in out.iter_mut().zip(blob.as_bytes().iter().chain(&size.to_be_bytes())) {
        *place = *byte;
    }
    out
}

/// Reads the header of a frame.
pub fn parse_frame_header(bytes: &[u8; FRAME_HEADER_BYTES]) -> (BlobId, u32) {
    let (id, size) = bytes.split_at(16);
    let size: [u8; 4] = size.try_into().unwrap_or_default();
    (BlobId::from_slice(id).unwrap_or(BlobId::ZERO), u32::from_be_bytes(size))
}

/// Answer to a framed upload: the ids stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stored(pub Vec<BlobId>);

impl crate::cbor::Wire for Stored {
    const NAME: &'static str = "stored objects";
    const BYTES_MAX: usize = FRAMES_MAX * 17 + 16;
}

body! {
    /// `POST /v1/vaults/{v}/uploads`.
    BeginUpload("upload", TINY_BODY_BYTES_MAX) {
        /// Object.
        blob: BlobId,
        /// Its size in bytes.
        size: u64,
        /// Its digest.
        digest: Digest,
    }
}

body! {
    /// Answer to it.
    UploadState("upload state", 2 * MIB) {
        /// Whether the object is complete.
        complete: bool,
        /// Parts held, ascending.
        parts: Vec<u64>,
    }
}

/// `POST /v1/vaults/{v}/objects/missing`: which of these are not there, or not whole; and the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ObjectList(pub Vec<BlobId>);

impl crate::cbor::Wire for ObjectList {
    const NAME: &'static str = "object list";
    const BYTES_MAX: usize = FRAMES_MAX * 17 + 16;
}
