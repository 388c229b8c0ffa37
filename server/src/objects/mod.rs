//! Blob bytes: segments behind one trait. A segment is written once, whole, and is durable before any
//! row names it.

pub mod local;

use crate::error::StoreError;
use crate::store::SegmentId;
use async_trait::async_trait;
use bytes::Bytes;

/// A segment being written; nothing of it is visible before [`SegmentWriter::finish`].
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
    /// Reads exactly `size` bytes from `start`; fewer are an error.
    async fn read(&self, segment: SegmentId, start: u64, size: u64) -> Result<Bytes, StoreError>;
    /// Size of a segment; none if it is not there.
    async fn size(&self, segment: SegmentId) -> Result<Option<u64>, StoreError>;
    /// Deletes a segment; one that is not there is fine.
    async fn delete(&self, segment: SegmentId) -> Result<(), StoreError>;
    /// Bytes that one writer holds in memory at most.
    fn writer_bytes(&self) -> usize;
}
