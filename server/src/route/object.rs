//! Objects: framed uploads, parts, downloads with ranges (PROTOCOL.md section 9).

use super::{cbor, nothing, to_the_end};
use crate::budget::Reserved;
use crate::domain::opaque::random_bytes;
use crate::error::{ApiError, StoreError};
use crate::extract::body::{Cbor, deadline, drain, next_chunk, read};
use crate::extract::session::{DeviceSession, vault_of};
use crate::extract::{Place, parse_id};
use crate::objects::SegmentWriter;
use crate::state::App;
use crate::store::{PartRow, SegmentId, VaultKey};
use crate::time::now_utc;
use axum::body::{Body, BodyDataStream, HttpBody as _};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use lockstep_proto::api::frames::{FramedObject, Frames, parse_range};
use lockstep_proto::api::object::{BeginUpload, ObjectList, Stored, UploadState};
use lockstep_proto::api::problem::Code;
use lockstep_proto::blob::{part_count, part_digest, part_len};
use lockstep_proto::id::BlobId;
use lockstep_proto::limits;
use std::collections::BTreeMap;

type Answer = Result<Response, ApiError>;

/// Memory of a segment's writer comes in blocks of at most this size.
const WRITER_BLOCK_BYTES: usize = 256 * 1024;

/// `POST /v1/vaults/{v}/objects`: many small objects become one segment in one write.
pub(crate) async fn framed(
    State(app): State<App>,
    DeviceSession(session): DeviceSession,
    Place(vault): Place<String>,
    body: Body,
) -> Answer {
    let vault = vault_of(&app, &session, &vault).await?;
    let declared = body.size_hint().exact();
    // A writer never holds more than the body, but for the last block of its memory.
    let most = declared.and_then(|size| usize::try_from(size).ok());
    let most = most.map_or(usize::MAX, |size| size.saturating_add(WRITER_BLOCK_BYTES));
    let reserved = app.budget.reserve(app.objects.writer_bytes().min(most)).await?;
    to_the_end(store_frames(app, vault.key, body, reserved)).await
}

async fn store_frames(app: App, vault: VaultKey, body: Body, _reserved: Reserved) -> Answer {
    let bytes_max = u64::try_from(limits::FRAMES_BODY_BYTES_MAX).unwrap_or(u64::MAX);
    let declared = body.size_hint().exact().unwrap_or(bytes_max).min(bytes_max);
    let segment = SegmentId(random_bytes());
    let mut stream = body.into_data_stream();
    if let Err(error) = app.store.begin_segment(vault, segment, declared, now_utc()).await {
        drain(&mut stream).await;
        return Err(error.into());
    }
    let done = match app.objects.create(segment).await {
        Ok(writer) => write_frames(&app, vault, segment, writer, &mut stream).await,
        Err(error) => Err(error.into()),
    };
    match done {
        Ok((ids, true)) => Ok(cbor(&Stored(ids))),
        Ok((ids, false)) => {
            discard(&app, segment).await;
            Ok(cbor(&Stored(ids)))
        }
        Err(error) => {
            discard(&app, segment).await;
            drain(&mut stream).await;
            Err(error)
        }
    }
}

/// Writes and records what comes; false if nothing of it was new.
async fn write_frames(
    app: &App,
    vault: VaultKey,
    segment: SegmentId,
    mut writer: Box<dyn SegmentWriter>,
    stream: &mut BodyDataStream,
) -> Result<(Vec<BlobId>, bool), ApiError> {
    let taken =
        tokio::time::timeout(deadline(limits::FRAMES_BODY_BYTES_MAX), take_frames(stream, &mut *writer));
    let too_slow = || ApiError::new(Code::Timeout, "the body came too slowly");
    let objects = match taken.await.unwrap_or_else(|_| Err(too_slow())) {
        Ok(objects) => objects,
        Err(error) => {
            writer.abort().await;
            return Err(error);
        }
    };
    writer.finish().await?;
    let ids = objects.iter().map(|object| object.blob).collect();
    let is_used = app.store.put_framed(vault, segment, objects, now_utc()).await?;
    Ok((ids, is_used))
}

/// Deletes a segment that no row names. What can not be done now is done by the collection.
async fn discard(app: &App, segment: SegmentId) {
    let done = async {
        app.store.drop_segment(segment).await?;
        app.objects.delete(segment).await?;
        app.store.forget_segment(segment).await
    };
    if let Err(error) = done.await {
        tracing::warn!(%error, "a segment could not be deleted; it is tried again");
    }
}

/// Takes frames apart as they come: the bytes of objects go to the segment.
async fn take_frames(
    stream: &mut BodyDataStream,
    writer: &mut dyn SegmentWriter,
) -> Result<Vec<FramedObject>, ApiError> {
    let mut frames = Frames::default();
    while let Some(chunk) = next_chunk(stream).await? {
        for place in frames.push(&chunk)? {
            writer.write(chunk.slice(place)).await?;
        }
    }
    Ok(frames.finish()?)
}

/// `POST /v1/vaults/{v}/uploads`.
pub(crate) async fn begin(
    State(app): State<App>,
    DeviceSession(session): DeviceSession,
    Place(vault): Place<String>,
    body: Cbor<BeginUpload>,
) -> Answer {
    let vault = vault_of(&app, &session, &vault).await?;
    let BeginUpload { blob, size, digest } = body.value;
    if size == 0 || part_count(size) > limits::PARTS_MAX {
        return Err(ApiError::new(Code::Malformed, "an object has between 1 byte and 1 TiB"));
    }
    let (row, parts) = app.store.begin_object(vault.key, blob, size, digest, now_utc()).await?;
    let parts = parts.iter().map(|part| part.index).collect();
    Ok(cbor(&UploadState { complete: row.complete, parts }))
}

/// `POST /v1/vaults/{v}/objects/missing`: which of some objects are not there or not whole. Their bytes are looked
/// for, too: a bucket may have been restored from an older copy than the database.
pub(crate) async fn missing(
    State(app): State<App>,
    DeviceSession(session): DeviceSession,
    Place(vault): Place<String>,
    body: Cbor<ObjectList>,
) -> Answer {
    let vault = vault_of(&app, &session, &vault).await?;
    if body.value.0.len() > limits::FRAMES_MAX {
        return Err(ApiError::new(Code::TooLarge, "more than 4,096 objects"));
    }
    let mut missing = Vec::new();
    let mut sizes = BTreeMap::new();
    for blob in body.value.0 {
        let whole = match app.store.object(vault.key, blob).await? {
            Some((object, parts)) => {
                let whole = !parts.is_empty() && all_there(&app, &parts, &mut sizes).await?;
                match (whole, object.complete) {
                    (true, false) => is_completed(&app, vault.key, blob).await?,
                    (false, true) => {
                        app.store.lose_object(vault.key, blob).await?;
                        false
                    }
                    _ => whole,
                }
            }
            None => false,
        };
        if !whole {
            missing.push(blob);
        }
    }
    Ok(cbor(&ObjectList(missing)))
}

/// Whether an object whose bytes are there is complete again, although it was lost meanwhile.
async fn is_completed(app: &App, vault: VaultKey, blob: BlobId) -> Result<bool, ApiError> {
    match app.store.complete_object(vault, blob).await {
        Ok(()) => Ok(true),
        Err(StoreError::Refused(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether the segments of some parts are there and long enough.
async fn all_there(
    app: &App,
    parts: &[PartRow],
    sizes: &mut BTreeMap<SegmentId, Option<u64>>,
) -> Result<bool, ApiError> {
    for part in parts {
        let size = if let Some(size) = sizes.get(&part.segment) {
            *size
        } else {
            let size = app.objects.size(part.segment).await?;
            sizes.insert(part.segment, size);
            size
        };
        if size.is_none_or(|size| size < part.start.saturating_add(part.size)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `PUT /v1/vaults/{v}/uploads/{b}/parts/{i}`.
pub(crate) async fn put_part(
    State(app): State<App>,
    DeviceSession(session): DeviceSession,
    Place((vault, blob, index)): Place<(String, String, u64)>,
    body: Body,
) -> Answer {
    let vault = vault_of(&app, &session, &vault).await?;
    let blob: BlobId = parse_id(&blob)?;
    to_the_end(store_part(app, vault.key, blob, index, body)).await
}

async fn store_part(app: App, vault: VaultKey, blob: BlobId, index: u64, body: Body) -> Answer {
    let found = app.store.object_row(vault, blob).await?;
    let object =
        found.ok_or_else(|| ApiError::new(Code::NotFound, "this upload was not begun, or it expired"))?;
    let expected = part_len(object.size, index)
        .ok_or_else(|| ApiError::new(Code::Malformed, "the object has no such part"))?;
    let (bytes, _reserved) = read(body, limits::PART_BYTES, &app.budget).await?;
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if size != expected {
        return Err(ApiError::new(
            Code::Mismatch,
            format!("part {index} has {expected} bytes, {size} were sent"),
        ));
    }
    if object.complete {
        return Ok(nothing());
    }
    let part =
        PartRow { index, digest: part_digest(&bytes), segment: SegmentId(random_bytes()), start: 0, size };
    app.store.begin_segment(vault, part.segment, 0, now_utc()).await?;
    let stored = async {
        app.objects.put(part.segment, bytes).await?;
        app.store.put_part(vault, blob, part, now_utc()).await
    };
    let stored = stored.await;
    if !matches!(stored, Ok(true)) {
        discard(&app, part.segment).await;
    }
    stored?;
    Ok(nothing())
}

/// `POST /v1/vaults/{v}/uploads/{b}/complete`.
pub(crate) async fn complete(
    State(app): State<App>,
    DeviceSession(session): DeviceSession,
    Place((vault, blob)): Place<(String, String)>,
) -> Answer {
    let vault = vault_of(&app, &session, &vault).await?;
    let blob: BlobId = parse_id(&blob)?;
    app.store.complete_object(vault.key, blob).await?;
    Ok(nothing())
}

/// `GET /v1/vaults/{v}/objects/{b}`.
pub(crate) async fn get(
    State(app): State<App>,
    DeviceSession(session): DeviceSession,
    Place((vault, blob)): Place<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let vault = vault_of(&app, &session, &vault).await?;
    let found = app.store.object(vault.key, parse_id(&blob)?).await?;
    let (object, parts) = found
        .filter(|(object, _)| object.complete)
        .ok_or_else(|| ApiError::new(Code::NotFound, "there is no such object"))?;
    let range = match headers.get(header::RANGE) {
        None => None,
        Some(value) => Some(range_of(value, object.size)?),
    };
    let (begin, end) = range.unwrap_or((0, object.size));
    // The first piece is read before anything is promised.
    if let Err(error) = read_piece(&app, &parts, begin, end).await {
        return Err(match error {
            StoreError::Corrupt(what) => {
                tracing::error!(what, "an object is damaged");
                ApiError::new(Code::NotFound, "the object's bytes are missing")
            }
            other => other.into(),
        });
    }
    let body = body_of(&app, parts, begin, end);
    let mut response = Response::new(body);
    let set = response.headers_mut();
    set.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    set.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    set.insert(header::CONTENT_LENGTH, HeaderValue::from(end.saturating_sub(begin)));
    if range.is_some() {
        let text = format!("bytes {begin}-{}/{}", end.saturating_sub(1), object.size);
        if let Ok(value) = HeaderValue::from_str(&text) {
            set.insert(header::CONTENT_RANGE, value);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// Begin and end (exclusive) of the range that is asked for.
fn range_of(value: &HeaderValue, size: u64) -> Result<(u64, u64), ApiError> {
    let range = value.to_str().ok().and_then(|text| parse_range(text, size));
    range.ok_or_else(|| {
        ApiError::new(Code::Range, format!("the range can not be satisfied: the object has {size} bytes"))
    })
}

/// Reads pieces of at most this size, one at a time, as the client takes them.
const READ_BYTES: u64 = 256 * 1024;

/// The piece at a place of an object, at most [`READ_BYTES`].
async fn read_piece(app: &App, parts: &[PartRow], place: u64, end: u64) -> Result<Bytes, StoreError> {
    const DAMAGED: StoreError = StoreError::Corrupt("a part of the object is missing");
    let part_bytes = u64::try_from(limits::PART_BYTES).unwrap_or(u64::MAX);
    let index = place / part_bytes;
    let at = parts.binary_search_by_key(&index, |part| part.index).map_err(|_| DAMAGED)?;
    let part = parts.get(at).ok_or(DAMAGED)?;
    let within = place % part_bytes;
    let size = part.size.saturating_sub(within).min(end.saturating_sub(place)).min(READ_BYTES);
    if size == 0 {
        return Err(DAMAGED);
    }
    app.objects.read(part.segment, part.start.saturating_add(within), size).await
}

fn body_of(app: &App, parts: Vec<PartRow>, begin: u64, end: u64) -> Body {
    let state = (app.clone(), parts, begin);
    let stream = stream::try_unfold(state, move |(app, parts, place)| async move {
        if place >= end {
            return Ok::<_, std::io::Error>(None);
        }
        let bytes = read_piece(&app, &parts, place, end).await.map_err(|error| {
            tracing::error!(%error, "an object could not be read");
            std::io::Error::other("an object could not be read")
        })?;
        let next = place.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(Some((bytes, (app, parts, next))))
    });
    Body::from_stream(stream)
}
