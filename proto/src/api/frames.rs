//! A framed upload, taken apart as it comes (PROTOCOL.md section 9): digests are made on the way, and only the bytes of
//! objects are given on. Ranges of objects.

use super::object::{FRAME_HEADER_BYTES, parse_frame_header};
use crate::blob::object_digest;
use crate::hash::{Digest, DigestStream};
use crate::id::BlobId;
use crate::{label, limits};
use std::collections::BTreeSet;
use std::ops::Range;

/// One object of a framed upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramedObject {
    /// Object.
    pub blob: BlobId,
    /// Its size.
    pub size: u64,
    /// Digest of its one part.
    pub part: Digest,
    /// Its digest.
    pub digest: Digest,
    /// Where it begins among the bytes of all objects.
    pub start: u64,
}

/// Why a framed upload is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The body is longer than [`limits::FRAMES_BODY_BYTES_MAX`].
    #[error("a framed upload has at most 16 MiB")]
    TooLarge,
    /// An object without bytes, or of more than one part.
    #[error("a framed object has between 1 byte and 8 MiB")]
    ObjectSize,
    /// An object twice, or more than [`limits::FRAMES_MAX`].
    #[error("a framed upload names an object twice, or more than 4,096")]
    Objects,
    /// No object, or not the whole of one.
    #[error("the framed upload is empty or ends within an object")]
    CutOff,
}

/// Takes the chunks of a body, however it was cut.
#[derive(Default)]
pub struct Frames {
    header: Vec<u8>,
    current: Option<Frame>,
    objects: Vec<FramedObject>,
    known: BTreeSet<BlobId>,
    taken: usize,
    given: u64,
}

struct Frame {
    blob: BlobId,
    size: u64,
    left: usize,
    start: u64,
    digest: DigestStream,
}

impl Frames {
    /// Takes the next chunk; gives the places in it that are bytes of objects, in their order.
    ///
    /// # Errors
    /// [`FrameError`]; nothing of the upload counts then.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Vec<Range<usize>>, FrameError> {
        self.taken = self.taken.saturating_add(chunk.len());
        if self.taken > limits::FRAMES_BODY_BYTES_MAX {
            return Err(FrameError::TooLarge);
        }
        let (mut places, mut rest) = (Vec::new(), chunk);
        while !rest.is_empty() {
            let begin = chunk.len().saturating_sub(rest.len());
            let Some(frame) = &mut self.current else {
                let want = FRAME_HEADER_BYTES.saturating_sub(self.header.len()).min(rest.len());
                let (now, later) = rest.split_at(want);
                self.header.extend_from_slice(now);
                rest = later;
                self.open()?;
                continue;
            };
            let (now, later) = rest.split_at(frame.left.min(rest.len()));
            frame.digest.update(now);
            frame.left = frame.left.saturating_sub(now.len());
            self.given = self.given.saturating_add(u64::try_from(now.len()).unwrap_or(u64::MAX));
            let is_done = frame.left == 0;
            places.push(begin..begin.saturating_add(now.len()));
            rest = later;
            if is_done {
                self.close();
            }
        }
        Ok(places)
    }

    /// Begins an object if its header is whole.
    fn open(&mut self) -> Result<(), FrameError> {
        let Ok(bytes) = <&[u8; FRAME_HEADER_BYTES]>::try_from(self.header.as_slice()) else { return Ok(()) };
        let (blob, size) = parse_frame_header(bytes);
        self.header.clear();
        let left = usize::try_from(size).unwrap_or(usize::MAX);
        if left == 0 || left > limits::PART_BYTES {
            return Err(FrameError::ObjectSize);
        }
        if self.objects.len() >= limits::FRAMES_MAX || !self.known.insert(blob) {
            return Err(FrameError::Objects);
        }
        let digest = DigestStream::new(label::OBJECT_PART);
        self.current = Some(Frame { blob, size: size.into(), left, start: self.given, digest });
        Ok(())
    }

    fn close(&mut self) {
        let Some(Frame { blob, size, start, digest, .. }) = self.current.take() else { return };
        let part = digest.digest();
        self.objects.push(FramedObject { blob, size, part, digest: object_digest(size, &[part]), start });
    }

    /// The objects of the whole body.
    ///
    /// # Errors
    /// [`FrameError::CutOff`].
    pub fn finish(self) -> Result<Vec<FramedObject>, FrameError> {
        if self.current.is_some() || !self.header.is_empty() || self.objects.is_empty() {
            return Err(FrameError::CutOff);
        }
        Ok(self.objects)
    }
}

/// Reads one range `bytes=a-b`, `bytes=a-` or `bytes=-n` of an object of `size` bytes; gives begin and end (exclusive).
/// None: it can not be satisfied.
pub fn parse_range(text: &str, size: u64) -> Option<(u64, u64)> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| is_number(text));
    let (begin, end) = match (from, to) {
        ("", count) => (size.saturating_sub(number(count)?), size),
        (from, "") => (number(from)?, size),
        (from, to) => (number(from)?, number(to)?.saturating_add(1).min(size)),
    };
    (begin < end).then_some((begin, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::object::frame_header;
    use crate::blob::part_digest;

    fn body(objects: &[(u8, &[u8])]) -> Vec<u8> {
        let framed = |(id, bytes): &(u8, &[u8])| {
            let header = frame_header(BlobId::from_bytes([*id; 16]), u32::try_from(bytes.len()).unwrap());
            [&header[..], *bytes].concat()
        };
        objects.iter().flat_map(framed).collect()
    }

    fn take(body: &[u8], chunk: usize) -> Result<(Vec<FramedObject>, Vec<u8>), FrameError> {
        let (mut frames, mut given) = (Frames::default(), Vec::new());
        for chunk in body.chunks(chunk) {
            for place in frames.push(chunk)? {
                given.extend_from_slice(&chunk[place]);
            }
        }
        frames.finish().map(|objects| (objects, given))
    }

    #[test]
    fn a_body_is_taken_apart_wherever_it_is_cut() {
        let body = body(&[(1, b"hello"), (2, b"x"), (3, b"and more")]);
        for chunk in 1..=body.len() {
            let (objects, given) = take(&body, chunk).unwrap();
            assert_eq!(given, b"helloxand more", "chunks of {chunk}");
            let found: Vec<_> = objects.iter().map(|object| (object.size, object.start)).collect();
            assert_eq!(found, [(5, 0), (1, 5), (8, 6)]);
            assert_eq!(objects[0].part, part_digest(b"hello"));
            assert_eq!(objects[2].digest, object_digest(8, &[part_digest(b"and more")]));
        }
    }

    #[test]
    fn what_is_no_framed_upload_is_refused_by_its_reason() {
        let good = body(&[(1, b"hello")]);
        assert_eq!(take(b"", 9).unwrap_err(), FrameError::CutOff);
        assert_eq!(take(&good[..24], 9).unwrap_err(), FrameError::CutOff);
        assert_eq!(take(&[&good[..], &[0; 19]].concat(), 9).unwrap_err(), FrameError::CutOff);
        assert_eq!(take(&body(&[(1, b"a"), (1, b"b")]), 9).unwrap_err(), FrameError::Objects);
        assert_eq!(take(&body(&[(1, b"")]), 9).unwrap_err(), FrameError::ObjectSize);
        let mut long = good.clone();
        long[16..20].copy_from_slice(&(8 * 1024 * 1024 + 1_u32).to_be_bytes());
        assert_eq!(take(&long, 9).unwrap_err(), FrameError::ObjectSize);
        let parts = vec![1; 8 * 1024 * 1024 - FRAME_HEADER_BYTES];
        let whole = body(&[(1, &parts), (2, &parts)]);
        assert_eq!(take(&whole, 65_536).unwrap().0.len(), 2);
        let more = [&whole[..], &[0]].concat();
        assert_eq!(take(&more, 65_536).unwrap_err(), FrameError::TooLarge);
    }

    #[test]
    fn a_framed_upload_has_so_many_objects_and_no_more() {
        let many = |count: u32| -> Vec<u8> {
            let id = |n: u32| BlobId::from_bytes(u128::from(n).to_be_bytes());
            (0..count).flat_map(|n| [&frame_header(id(n), 1)[..], &[7]].concat()).collect()
        };
        assert_eq!(take(&many(4096), 65_536).unwrap().0.len(), 4096);
        assert_eq!(take(&many(4097), 65_536).unwrap_err(), FrameError::Objects);
    }

    #[test]
    fn ranges() {
        let parse = |text: &str| parse_range(text, 100);
        assert_eq!(parse("bytes=0-9"), Some((0, 10)));
        assert_eq!(parse("bytes=90-"), Some((90, 100)));
        assert_eq!(parse("bytes=-5"), Some((95, 100)));
        assert_eq!(parse("bytes=0-1000"), Some((0, 100)));
        for refused in ["bytes=100-", "bytes=5-4", "bytes=x-1", "lines=0-1", "bytes=0-1,3-4", "bytes=-0"] {
            assert_eq!(parse(refused), None, "{refused}");
        }
        for refused in
            ["bytes=+5-", "bytes=-+5", "bytes=1-+5", "bytes=-", "bytes=", "bytes=18446744073709551616-"]
        {
            assert_eq!(parse(refused), None, "{refused}");
        }
    }
}
