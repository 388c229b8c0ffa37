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
