//! What every back end of `object_store` shares: names of segments, exact reads, sizes, deleting.

use crate::error::StoreError;
use crate::store::SegmentId;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt as _};
use std::sync::Arc;

/// A segment that rows name is not there.
pub(super) const MISSING: StoreError = StoreError::Corrupt("a segment is missing");
const SHORT: StoreError = StoreError::Corrupt("a segment is shorter than its parts");

/// Segments below a prefix of a store.
pub(super) struct Segments<S> {
    store: Arc<S>,
    prefix: Path,
    failed: fn(Error) -> StoreError,
}

impl<S: ObjectStore> Segments<S> {
    pub(super) fn new(store: S, prefix: Path, failed: fn(Error) -> StoreError) -> Self {
        Self { store: Arc::new(store), prefix, failed }
    }

    pub(super) fn store(&self) -> &Arc<S> {
        &self.store
    }

    pub(super) fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Where a segment lies: two characters spread them over folders.
    pub(super) fn place(&self, segment: SegmentId) -> Path {
        let name = lockstep_proto::BlobId::from_bytes(segment.0).to_string();
        let folder: String = name.chars().take(2).collect();
        self.prefix.clone().join(folder).join(name)
    }

    /// Exactly `size` bytes from `start`; none: the segment is not there.
    pub(super) async fn read(
        &self,
        segment: SegmentId,
        start: u64,
        size: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        let end =
            start.checked_add(size).ok_or(StoreError::Corrupt("a part lies beyond the end of numbers"))?;
        match self.range(&self.place(segment), start, end).await {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => Err(SHORT),
            Err(Error::NotFound { .. }) => Ok(None),
            // A range that the segment does not have is told by no kind of error of its own.
            Err(error) => match self.size(segment).await? {
                None => Ok(None),
                Some(size) if size < end => Err(SHORT),
                Some(_) => Err((self.failed)(error)),
            },
        }
    }

    /// The bytes of a range; none: there are fewer, or more than were asked for.
    async fn range(&self, place: &Path, start: u64, end: u64) -> Result<Option<Bytes>, Error> {
        let options = GetOptions { range: Some(GetRange::Bounded(start..end)), ..GetOptions::default() };
        let result = self.store.get_opts(place, options).await?;
        let Ok(size) = usize::try_from(end.saturating_sub(start)) else { return Ok(None) };
        if result.range != (start..end) {
            return Ok(None);
        }
        if !matches!(result.payload, GetResultPayload::Stream(_)) {
            let bytes = result.bytes().await?;
            return Ok((bytes.len() == size).then_some(bytes));
        }
        // What comes over a network is not taken beyond what was asked for.
        let mut stream = result.into_stream();
        let mut bytes = BytesMut::with_capacity(size);
        while let Some(chunk) = stream.try_next().await? {
            if chunk.len() > size.saturating_sub(bytes.len()) {
                return Ok(None);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok((bytes.len() == size).then(|| bytes.freeze()))
    }

    /// Bytes of a segment; none: it is not there.
    pub(super) async fn size(&self, segment: SegmentId) -> Result<Option<u64>, StoreError> {
        match self.store.head(&self.place(segment)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err((self.failed)(error)),
        }
    }

    /// Deletes a segment; one that is not there is fine.
    pub(super) async fn delete(&self, segment: SegmentId) -> Result<(), StoreError> {
        match self.store.delete(&self.place(segment)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err((self.failed)(error)),
        }
    }
}
