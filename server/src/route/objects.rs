//! Many objects in one answer (PROTOCOL.md section 9): what lies together is read together, in pieces, as the client
//! takes them.

use crate::budget::Reserved;
use crate::error::{ApiError, StoreError};
use crate::extract::Place;
use crate::extract::body::Cbor;
use crate::extract::session::{DeviceSession, vault_of};
use crate::state::App;
use crate::store::{PartRow, SegmentId};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use lockstep_proto::api::object::{FRAME_HEADER_BYTES, ObjectList, frame_header};
use lockstep_proto::api::problem::Code;
use lockstep_proto::id::BlobId;
use lockstep_proto::limits;
use std::collections::VecDeque;

/// A piece that is read at once, if the budget has room for it and the one before it, which is still being sent.
const PIECE_BYTES: usize = limits::MIB;
/// Otherwise this much, as of one object.
const SMALL_PIECE_BYTES: usize = 256 * 1024;

/// `POST /v1/vaults/{v}/objects/get`.
pub(crate) async fn get(
    State(app): State<App>,
    DeviceSession(session): DeviceSession,
    Place(vault): Place<String>,
    body: Cbor<ObjectList>,
) -> Result<Response, ApiError> {
    let vault = vault_of(&app, &session, &vault).await?;
    let Cbor { value: ObjectList(blobs), reserved } = body;
    drop(reserved);
    if blobs.is_empty() {
        return Err(ApiError::new(Code::Malformed, "no object is asked for"));
    }
    if blobs.len() > limits::OBJECTS_GET_MAX {
        return Err(ApiError::new(Code::TooLarge, "more than 64 objects"));
    }
    let bytes_max = u64::try_from(limits::OBJECTS_GET_BYTES_MAX).unwrap_or(u64::MAX);
    let found = app.store.objects(vault.key, blobs.clone(), bytes_max).await?;
    let bytes =
        blobs.iter().filter_map(|blob| found.get(blob)).fold(0_u64, |sum, found| sum.saturating_add(found.0));
    if bytes > bytes_max {
        return Err(ApiError::new(Code::TooLarge, "the objects have more than 32 MiB together"));
    }
    let pieces_bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(PIECE_BYTES);
    let reserved = app.objects_budget.try_reserve(pieces_bytes.saturating_mul(2));
    let piece_bytes = if reserved.is_some() { PIECE_BYTES } else { SMALL_PIECE_BYTES };
    let mut plan = Plan::new(u64::try_from(piece_bytes).unwrap_or(u64::MAX));
    for blob in blobs {
        plan.add(blob, found.get(&blob).map(|(size, parts)| (*size, parts.as_slice())));
    }
    answer(app, plan, reserved).await
}

async fn answer(app: App, plan: Plan, reserved: Option<Reserved>) -> Result<Response, ApiError> {
    let length = HeaderValue::from(plan.length);
    let mut sending = Sending { app, reads: plan.reads, ready: VecDeque::new(), _reserved: reserved };
    // The first piece is read before anything is promised.
    if let Err(error) = sending.read().await {
        return Err(match error {
            StoreError::Corrupt(what) => {
                tracing::error!(what, "an object is damaged");
                ApiError::new(Code::NotFound, "the bytes of an object are missing")
            }
            other => other.into(),
        });
    }
    let stream = stream::try_unfold(sending, |mut sending| async move {
        if sending.ready.is_empty() {
            sending.read().await.map_err(|error| {
                tracing::error!(%error, "objects could not be read");
                std::io::Error::other("objects could not be read")
            })?;
        }
        Ok::<_, std::io::Error>(sending.ready.pop_front().map(|bytes| (bytes, sending)))
    });
    let mut response = Response::new(Body::from_stream(stream));
    let set = response.headers_mut();
    set.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    set.insert(header::CONTENT_LENGTH, length);
    Ok(response)
}

/// An answer on its way.
struct Sending {
    app: App,
    reads: VecDeque<Read>,
    /// What was read and not sent yet.
    ready: VecDeque<Bytes>,
    _reserved: Option<Reserved>,
}

impl Sending {
    /// Reads the next piece, and puts the headers where they belong.
    async fn read(&mut self) -> Result<(), StoreError> {
        let Some(read) = self.reads.pop_front() else { return Ok(()) };
        let mut bytes = if read.size == 0 {
            Bytes::new()
        } else {
            self.app.objects.read(read.segment, read.start, read.size).await?
        };
        let mut given = 0;
        for (at, headers) in read.headers {
            let before = bytes.split_to(at.saturating_sub(given).min(bytes.len()));
            given = at;
            self.ready.extend([before, headers.freeze()].into_iter().filter(|bytes| !bytes.is_empty()));
        }
        self.ready.extend(Some(bytes).filter(|bytes| !bytes.is_empty()));
        Ok(())
    }
}

/// Bytes that lie together, and the headers among them: each goes before the byte at its place.
struct Read {
    segment: SegmentId,
    start: u64,
    size: u64,
    headers: Vec<(usize, BytesMut)>,
}

/// What is read, in which order.
struct Plan {
    reads: VecDeque<Read>,
    piece_bytes: u64,
    /// Bytes of the whole answer.
    length: u64,
}

impl Plan {
    fn new(piece_bytes: u64) -> Self {
        Self { reads: VecDeque::new(), piece_bytes, length: 0 }
    }

    /// Adds an object; one that is not there, or whose parts are not all of it, is an empty frame.
    fn add(&mut self, blob: BlobId, found: Option<(u64, &[PartRow])>) {
        let whole = found.filter(|(size, parts)| {
            *size > 0 && parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(part.size)) == Some(*size)
        });
        let (size, parts) = whole.unwrap_or_default();
        self.header(blob, u32::try_from(size).unwrap_or(0));
        for part in parts {
            self.part(part);
        }
        self.length = self.length.saturating_add(size);
    }

    fn header(&mut self, blob: BlobId, size: u32) {
        let header = frame_header(blob, size);
        self.length = self.length.saturating_add(u64::try_from(FRAME_HEADER_BYTES).unwrap_or(u64::MAX));
        if self.reads.is_empty() {
            let nowhere = Read { segment: SegmentId([0; 16]), start: 0, size: 0, headers: Vec::new() };
            self.reads.push_back(nowhere);
        }
        let Some(last) = self.reads.back_mut() else { return };
        let at = usize::try_from(last.size).unwrap_or(usize::MAX);
        match last.headers.last_mut() {
            Some((place, headers)) if *place == at => headers.extend_from_slice(&header),
            _ => last.headers.push((at, BytesMut::from(header.as_slice()))),
        }
    }

    fn part(&mut self, part: &PartRow) {
        let (mut start, mut left) = (part.start, part.size);
        while left > 0 {
            let taken = self.room_after(part.segment, start).min(left);
            if taken == 0 {
                let read = Read { segment: part.segment, start, size: 0, headers: Vec::new() };
                self.reads.push_back(read);
                continue;
            }
            if let Some(last) = self.reads.back_mut() {
                if last.size == 0 {
                    (last.segment, last.start) = (part.segment, start);
                }
                last.size = last.size.saturating_add(taken);
            }
            start = start.saturating_add(taken);
            left = left.saturating_sub(taken);
        }
    }

    /// How much the last piece still takes of what lies here.
    fn room_after(&self, segment: SegmentId, start: u64) -> u64 {
        match self.reads.back() {
            Some(last) if last.size == 0 => self.piece_bytes,
            Some(last) if last.segment == segment && last.start.checked_add(last.size) == Some(start) => {
                self.piece_bytes.saturating_sub(last.size)
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_proto::Digest;

    const ONE: SegmentId = SegmentId([1; 16]);
    const TWO: SegmentId = SegmentId([2; 16]);

    fn part(segment: SegmentId, start: u64, size: u64) -> PartRow {
        PartRow { index: 0, digest: Digest::ZERO, segment, start, size }
    }

    /// The objects `0, 1, ...` at these places; none: it is not there.
    fn plan(piece_bytes: u64, places: &[Option<PartRow>]) -> Plan {
        let mut plan = Plan::new(piece_bytes);
        for (number, place) in places.iter().enumerate() {
            let blob = BlobId::from_bytes([u8::try_from(number).unwrap(); 16]);
            plan.add(blob, place.as_ref().map(|part| (part.size, std::slice::from_ref(part))));
        }
        plan
    }

    /// Segment, start, size, and the places and number of headers.
    type Told = (u8, u64, u64, Vec<(usize, usize)>);

    fn told(plan: &Plan) -> Vec<Told> {
        let headers = |read: &Read| {
            read.headers.iter().map(|(at, headers)| (*at, headers.len() / FRAME_HEADER_BYTES)).collect()
        };
        plan.reads.iter().map(|read| (read.segment.0[0], read.start, read.size, headers(read))).collect()
    }

    #[test]
    fn neighbours_are_read_together_and_others_apart() {
        let places =
            [Some(part(ONE, 5, 10)), Some(part(ONE, 15, 20)), Some(part(TWO, 0, 7)), Some(part(TWO, 8, 1))];
        let plan = plan(1000, &places);
        assert_eq!(plan.length, 38 + 4 * 20);
        assert_eq!(
            told(&plan),
            [(1, 5, 30, vec![(0, 1), (10, 1), (30, 1)]), (2, 0, 7, vec![(7, 1)]), (2, 8, 1, vec![])]
        );
    }

    #[test]
    fn no_piece_is_larger_than_it_may_be() {
        let plan = plan(100, &[Some(part(ONE, 0, 90)), Some(part(ONE, 90, 250)), None]);
        assert_eq!(plan.length, 340 + 3 * 20);
        assert_eq!(
            told(&plan),
            [
                (1, 0, 100, vec![(0, 1), (90, 1)]),
                (1, 100, 100, vec![]),
                (1, 200, 100, vec![]),
                (1, 300, 40, vec![(40, 1)])
            ]
        );
    }

    #[test]
    fn what_is_not_there_is_a_header_and_nothing_else() {
        assert_eq!(told(&plan(100, &[None, None])), [(0, 0, 0, vec![(0, 2)])]);
        let mixed = plan(100, &[None, Some(part(ONE, 3, 4)), None]);
        assert_eq!((mixed.length, told(&mixed)), (64, vec![(1, 3, 4, vec![(0, 2), (4, 1)])]));
        let mut halves = Plan::new(100);
        halves.add(BlobId::from_bytes([1; 16]), Some((10, &[part(ONE, 0, 9)])));
        assert_eq!((halves.length, told(&halves)), (20, vec![(0, 0, 0, vec![(0, 1)])]));
    }
}
