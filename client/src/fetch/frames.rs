//! The answer of many objects, read strictly: what comes is what is due, or the answer is of no use any more.

use crate::api::{deadline, next_chunk};
use bytes::{Buf as _, Bytes};
use lockstep_proto::api::object::{FRAME_HEADER_BYTES, parse_frame_header};
use lockstep_proto::id::BlobId;
use reqwest::Response;
use std::time::Duration;
use tokio::time::Instant;

/// Why an answer is not read any further.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It broke off: the connection, or the server's patience with it, or ours.
    Broken,
    /// It is not the answer to what was asked.
    Wrong,
}

/// What stands in the place of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// It, as far as its id and length say.
    Object(Vec<u8>),
    /// That it is not there.
    Missing,
}

/// An answer being read.
pub(super) struct Answer {
    response: Response,
    rest: Bytes,
    /// Time that is left for what is awaited.
    left: Duration,
}

impl Answer {
    /// An answer of at most so many bytes.
    pub(super) fn new(response: Response, bytes_max: u64) -> Self {
        let left = deadline(usize::try_from(bytes_max).unwrap_or(usize::MAX));
        Self { response, rest: Bytes::new(), left }
    }

    /// The next frame, which has to be of this object, and of this length if the object is there.
    pub(super) async fn frame(&mut self, blob: BlobId, bytes: u64) -> Result<Frame, Ended> {
        let header: [u8; FRAME_HEADER_BYTES] =
            self.exactly(FRAME_HEADER_BYTES).await?.try_into().map_err(|_| Ended::Wrong)?;
        match parse_frame_header(&header) {
            (id, 0) if id == blob => Ok(Frame::Missing),
            (id, size) if id == blob && u64::from(size) == bytes => {
                let size = usize::try_from(size).map_err(|_| Ended::Wrong)?;
                Ok(Frame::Object(self.exactly(size).await?))
            }
            _ => Err(Ended::Wrong),
        }
    }

    /// Nothing comes any more.
    pub(super) async fn end(&mut self) -> Result<(), Ended> {
        if self.rest.is_empty() && !self.more().await? { Ok(()) } else { Err(Ended::Wrong) }
    }

    async fn exactly(&mut self, size: usize) -> Result<Vec<u8>, Ended> {
        let mut out = Vec::with_capacity(size);
        while out.len() < size {
            if self.rest.is_empty() && !self.more().await? {
                return Err(Ended::Broken);
            }
            let (now, _) = self.rest.split_at(self.rest.len().min(size.saturating_sub(out.len())));
            out.extend_from_slice(now);
            self.rest.advance(now.len());
        }
        Ok(out)
    }

    /// Waits for more; false at the end. Only waiting counts, not what is done with what came.
    async fn more(&mut self) -> Result<bool, Ended> {
        while self.rest.is_empty() {
            let begun = Instant::now();
            let chunk = tokio::time::timeout(self.left, next_chunk(&mut self.response)).await;
            self.left = self.left.saturating_sub(begun.elapsed());
            match chunk {
                Ok(Ok(Some(chunk))) => self.rest = chunk,
                Ok(Ok(None)) => return Ok(false),
                _ => return Err(Ended::Broken),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_proto::api::object::frame_header;

    const ONE: BlobId = BlobId::ZERO;

    fn two() -> BlobId {
        BlobId::from_bytes([2; 16])
    }

    fn frame(blob: BlobId, bytes: &[u8]) -> Vec<u8> {
        [&frame_header(blob, u32::try_from(bytes.len()).unwrap()), bytes].concat()
    }

    /// The answer in pieces of some size; then the connection breaks, or the answer ends.
    fn answer(body: &[u8], piece: usize, breaks: bool) -> Answer {
        let mut pieces: Vec<_> = body.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        if breaks {
            pieces.push(Err(std::io::Error::other("the connection broke")));
        }
        let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
        Answer::new(http::Response::new(body).into(), 1000)
    }

    #[tokio::test]
    async fn frames_are_read_wherever_they_are_cut() {
        let body = [frame(ONE, b"hello"), frame(two(), b""), frame(two(), b"x")].concat();
        for piece in 1..=body.len() {
            let mut answer = answer(&body, piece, false);
            assert_eq!(answer.frame(ONE, 5).await, Ok(Frame::Object(b"hello".to_vec())), "pieces of {piece}");
            assert_eq!(answer.frame(two(), 9).await, Ok(Frame::Missing));
            assert_eq!(answer.frame(two(), 1).await, Ok(Frame::Object(b"x".to_vec())));
            assert_eq!(answer.end().await, Ok(()));
        }
    }

    #[tokio::test]
    async fn what_is_not_due_is_wrong() {
        let body = frame(ONE, b"hello");
        for (blob, bytes) in [(two(), 5), (ONE, 4), (ONE, 6), (ONE, 5 + (1 << 32))] {
            assert_eq!(answer(&body, 7, false).frame(blob, bytes).await, Err(Ended::Wrong));
        }
        // Not even that another one is missing.
        assert_eq!(answer(&frame(two(), b""), 7, false).frame(ONE, 5).await, Err(Ended::Wrong));
        let more = [&body[..], &[0]].concat();
        for piece in [7, more.len()] {
            let mut answer = answer(&more, piece, false);
            assert!(answer.frame(ONE, 5).await.is_ok());
            assert_eq!(answer.end().await, Err(Ended::Wrong));
        }
    }

    #[tokio::test]
    async fn what_ends_early_is_broken() {
        let body = frame(ONE, b"hello");
        for (cut, breaks) in (0..body.len()).flat_map(|cut| [(cut, false), (cut, true)]) {
            let end = answer(&body[..cut], 7, breaks).frame(ONE, 5).await;
            assert_eq!(end, Err(Ended::Broken), "after {cut} bytes");
        }
        let mut answer = answer(&body, 7, true);
        assert!(answer.frame(ONE, 5).await.is_ok());
        assert_eq!(answer.end().await, Err(Ended::Broken));
    }

    /// Bytes that come one by one do not hold the client up for ever, and neither does what is done with them.
    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_too_slowly_is_given_up() {
        let bytes = futures_util::stream::unfold(frame(ONE, &[7; 500]).into_iter(), |mut rest| async move {
            tokio::time::sleep(Duration::from_secs(59)).await;
            rest.next().map(|byte| (Ok::<_, std::io::Error>(Bytes::copy_from_slice(&[byte])), rest))
        });
        let body = reqwest::Body::wrap_stream(bytes);
        let begun = Instant::now();
        let mut answer = Answer::new(http::Response::new(body).into(), 520);
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert_eq!(answer.frame(ONE, 500).await, Err(Ended::Broken));
        let waited = begun.elapsed().saturating_sub(Duration::from_hours(1));
        assert!(waited >= Duration::from_secs(59) && waited < Duration::from_mins(2), "{waited:?}");
    }
}
