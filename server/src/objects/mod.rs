//! Blob bytes: segments behind one trait. A segment is written once, whole, and is durable before any
//! row names it.

pub mod local;
pub mod s3;
mod segments;
pub mod settings;

use crate::error::StoreError;
use crate::store::SegmentId;
use async_trait::async_trait;
use bytes::Bytes;
use settings::ObjectsAt;
use std::sync::Arc;

/// A segment being written; nothing of it is visible before [`SegmentWriter::finish`]. One that is dropped
/// is given up.
#[async_trait]
pub trait SegmentWriter: Send {
    /// Appends bytes.
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError>;
    /// Makes the segment durable and visible.
    async fn finish(self: Box<Self>) -> Result<(), StoreError>;
    /// Gives up.
    async fn abort(self: Box<Self>);
}

/// Where segments lie.
#[async_trait]
pub trait Objects: Send + Sync + 'static {
    /// Begins a segment.
    async fn create(&self, segment: SegmentId) -> Result<Box<dyn SegmentWriter>, StoreError>;
    /// Writes a whole segment whose bytes the caller holds anyway.
    async fn put(&self, segment: SegmentId, bytes: Bytes) -> Result<(), StoreError> {
        let mut writer = self.create(segment).await?;
        match writer.write(bytes).await {
            Ok(()) => writer.finish().await,
            Err(error) => {
                writer.abort().await;
                Err(error)
            }
        }
    }
    /// Reads exactly `size` bytes from `start`; fewer are an error.
    async fn read(&self, segment: SegmentId, start: u64, size: u64) -> Result<Bytes, StoreError>;
    /// Bytes of a segment; none: it is not there.
    async fn size(&self, segment: SegmentId) -> Result<Option<u64>, StoreError>;
    /// Deletes a segment; one that is not there is fine.
    async fn delete(&self, segment: SegmentId) -> Result<(), StoreError>;
    /// Bytes that one writer holds in memory at most.
    fn writer_bytes(&self) -> usize;
}

/// Opens what the settings name; `in_use` says that the database knows segments.
///
/// # Errors
/// [`StoreError`]: the folder can not be used, or the bucket does not answer.
pub async fn open(at: &ObjectsAt, in_use: bool) -> Result<Arc<dyn Objects>, StoreError> {
    Ok(match at {
        ObjectsAt::Folder(folder) => {
            local::check_folder(folder, in_use)?;
            Arc::new(local::LocalObjects::open(folder)?)
        }
        ObjectsAt::S3(settings) => Arc::new(s3::S3Objects::open(settings).await?),
    })
}
