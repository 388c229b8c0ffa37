//! Objects.

use super::record::keys;
use crate::vectors::json::{Fault, In, hex, item_array, unhex};
use lockstep_client_crypto::blob::ObjectOpener;
use lockstep_client_crypto::content::BlobRef;
use lockstep_proto::blob::{self, part_digest};
use lockstep_proto::hash::Digest;
use lockstep_proto::id::BlobId;
use lockstep_proto::limits::PART_BYTES;
use serde_json::{Value, json};

type Out = Result<Value, Fault>;

/// The bytes of input `object`, put together from another file if it says so.
fn bytes(input: In<'_>) -> Vec<u8> {
    let object = &input.0["object"];
    if let Some(text) = object.as_str() {
        return unhex(text).unwrap();
    }
    let from = crate::vectors::make::golden_object(object["file"].as_str().unwrap());
    let mut out = Vec::new();
    for range in object["ranges"].as_array().unwrap() {
        let at = |index: usize| usize::try_from(range[index].as_u64().unwrap()).unwrap();
        out.extend_from_slice(&from[at(0)..at(1)]);
    }
    out
}

pub(super) fn object(input: In<'_>) -> Out {
    open(input, &bytes(input))
}

/// Opens these bytes in the place of input `object`.
///
/// # Errors
/// [`Fault`].
pub fn open(input: In<'_>, bytes: &[u8]) -> Out {
    let reference = BlobRef {
        blob: BlobId::from_bytes(input.array("blob")?),
        size: input.number("size"),
        content_hash: input.digest("content-hash")?,
        seed: input.fixed("seed")?,
        chunk_log2: input.small("chunk-log2"),
    };
    let mut contents = Vec::new();
    let opened = ObjectOpener::new(&keys(input)?, &reference).map_err(|_| Fault::new("limit")).and_then(
        |mut opener| {
            opener.push(bytes, &mut contents)?;
            Ok(opener.finish()?)
        },
    );
    if let Err(fault) = opened {
        return Err(Fault { given: contents, ..fault });
    }
    let size = u64::try_from(bytes.len()).unwrap();
    let parts: Vec<Digest> = bytes.chunks(PART_BYTES).map(part_digest).collect();
    Ok(json!({
        "content": blake3::hash(&contents).to_hex().to_string(),
        "digest": hex(blob::object_digest(size, &parts).as_bytes()),
    }))
}

pub(super) fn object_digest(input: In<'_>) -> Out {
    let mut parts = Vec::new();
    for part in input.list("parts") {
        parts.push(Digest::from_bytes(item_array(part)?));
    }
    Ok(json!({ "digest": hex(blob::object_digest(input.number("size"), &parts).as_bytes()) }))
}
