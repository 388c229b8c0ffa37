//! The server's decoder of framed uploads: however a body is cut into chunks, it is taken apart as the specification says.

use super::edit::Input;
use lockstep_proto::Digest;
use lockstep_proto::api::frames::Frames;
use lockstep_proto::api::object::{FRAME_HEADER_BYTES, frame_header};
use lockstep_proto::blob::{object_digest, part_digest};
use lockstep_proto::id::BlobId;
use lockstep_proto::limits::{FRAMES_BODY_BYTES_MAX, FRAMES_MAX, PART_BYTES};
use std::collections::BTreeSet;

/// Bodies that are made up are at most this large: beyond the limit, but not far.
const BODY_BYTES_MAX: usize = FRAMES_BODY_BYTES_MAX + 1024 * 1024;

/// What a body says: id, size, digest of its part and of the whole, place.
type Object = (BlobId, u64, Digest, Digest, u64);

/// Reads a whole body at once; none if it is refused.
fn read(body: &[u8]) -> Option<(Vec<Object>, Vec<u8>)> {
    let (mut objects, mut contents, mut known) = (Vec::new(), Vec::new(), BTreeSet::new());
    let mut rest = body;
    while !rest.is_empty() {
        let (header, later) = rest.split_at_checked(FRAME_HEADER_BYTES)?;
        let blob = BlobId::from_slice(&header[..16])?;
        let size = u32::from_be_bytes(header[16..].try_into().unwrap());
        if !(1..=PART_BYTES).contains(&(size as usize)) || objects.len() == FRAMES_MAX || !known.insert(blob)
        {
            return None;
        }
        let (object, later) = later.split_at_checked(size as usize)?;
        let part = part_digest(object);
        let size = u64::from(size);
        objects.push((blob, size, part, object_digest(size, &[part]), contents.len() as u64));
        contents.extend_from_slice(object);
        rest = later;
    }
    (!objects.is_empty() && body.len() <= FRAMES_BODY_BYTES_MAX).then_some((objects, contents))
}

/// The server's decoder, fed with chunks of one size.
fn take(body: &[u8], chunk_bytes: usize) -> Option<(Vec<Object>, Vec<u8>)> {
    let (mut frames, mut contents) = (Frames::default(), Vec::new());
    for chunk in body.chunks(chunk_bytes) {
        for place in frames.push(chunk).ok()? {
            contents.extend_from_slice(&chunk[place]);
        }
    }
    let objects = frames.finish().ok()?;
    let objects = objects.iter().map(|of| (of.blob, of.size, of.part, of.digest, of.start)).collect();
    Some((objects, contents))
}

/// A frame whose size is the input's.
fn add_frame(body: &mut Vec<u8>, id: u32, size: usize) {
    let blob = BlobId::from_bytes(std::array::from_fn(|place| id.to_be_bytes()[place % 4]));
    if body.len() + FRAME_HEADER_BYTES + size <= BODY_BYTES_MAX {
        body.extend_from_slice(&frame_header(blob, size as u32));
        body.resize(body.len() + size, id as u8);
    }
}

/// A number up to 2^24, small ones rather than large ones: large bodies take long.
fn number(input: &mut Input<'_>) -> usize {
    let shift = input.byte() % 24;
    input.number() >> shift
}

/// Frames as the input asks for them: a few of any size, many of one byte, spoilt.
fn made_up(input: &mut Input<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..input.byte() % 8 {
        let (id, size) = (u32::from(input.byte()), number(input));
        add_frame(&mut body, id, size);
    }
    for id in 0..number(input) % (FRAMES_MAX + 8) {
        add_frame(&mut body, id as u32 + 0x1000, 1);
    }
    input.spoil(&mut body);
    body
}

/// A body that the input makes up, or bytes.
pub(super) fn target(data: &[u8]) {
    let mut input = Input(data);
    let is_bytes = input.byte() & 1 == 1;
    let chunk_bytes = input.number();
    let body = if is_bytes { input.0.to_vec() } else { made_up(&mut input) };
    let chunk_bytes = if chunk_bytes == 0 { 65_536 } else { chunk_bytes.max(body.len() / 100_000) };
    let (taken, expected) = (take(&body, chunk_bytes), read(&body));
    assert_eq!(taken.is_some(), expected.is_some(), "a framed upload is taken or refused as specified");
    assert!(taken == expected, "what is taken is what was sent");
}
