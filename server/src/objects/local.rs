//! Segments in a local folder, through `object_store` with fsync on.

use super::segments::{MISSING, Segments};
use super::{Objects, SegmentWriter};
use crate::error::StoreError;
use crate::store::SegmentId;
use async_trait::async_trait;
use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, WriteMultipart};
use std::sync::Arc;

const CHUNK_BYTES: usize = 512 * 1024;

/// Segments in a folder.
pub struct LocalObjects {
    segments: Segments<LocalFileSystem>,
}

fn failed(error: Error) -> StoreError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>()
            && matches!(io.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        {
            return StoreError::Full;
        }
        cause = inner.source();
    }
    StoreError::Unavailable(Arc::new(error))
}

/// Tells a folder of objects from the empty place where one is to be mounted.
pub const MARKER: &str = "lockstep-objects";

/// Marks a folder of objects, and refuses one without the mark and with nothing in it if the database knows segments
/// (`in_use`): it would pass for one whose objects are all lost.
///
/// # Errors
/// [`StoreError`].
pub fn check_folder(folder: &std::path::Path, in_use: bool) -> Result<(), StoreError> {
    let failed = |error| StoreError::Unavailable(Arc::new(error));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let marker = folder.join(MARKER);
    if marker.try_exists().map_err(failed)? {
        return Ok(());
    }
    if in_use && std::fs::read_dir(folder).map_err(failed)?.next().is_none() {
        return Err(failed(std::io::Error::other(format!(
            "the folder {} is empty, and the database knows objects in it; is it not mounted? Mount it, or set \
             LOCKSTEP_OBJECTS. If the objects are gone for good, put an empty file named {MARKER} into it, and run \
             lockstep heal on every device",
            folder.display()
        ))));
    }
    std::fs::File::create(&marker).and_then(|file| file.sync_all()).map_err(failed)
}

impl LocalObjects {
    /// Opens a folder, which is created if needed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(folder: &std::path::Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(folder).map_err(|error| StoreError::Unavailable(Arc::new(error)))?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(failed)?.with_fsync(true);
        Ok(Self { segments: Segments::new(store, Path::default(), failed) })
    }
}

struct LocalWriter {
    upload: WriteMultipart,
}

#[async_trait]
impl SegmentWriter for LocalWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.upload.wait_for_capacity(1).await.map_err(failed)?;
        self.upload.put(bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(), StoreError> {
        self.upload.finish().await.map_err(failed)?;
        Ok(())
    }

    async fn abort(self: Box<Self>) {
        if let Err(error) = self.upload.abort().await {
            tracing::warn!(%error, "an unfinished segment could not be removed");
        }
    }
}

#[async_trait]
impl Objects for LocalObjects {
    async fn create(&self, segment: SegmentId) -> Result<Box<dyn SegmentWriter>, StoreError> {
        let upload =
            self.segments.store().put_multipart(&self.segments.place(segment)).await.map_err(failed)?;
        Ok(Box::new(LocalWriter { upload: WriteMultipart::new_with_chunk_size(upload, CHUNK_BYTES) }))
    }

    async fn read(&self, segment: SegmentId, start: u64, size: u64) -> Result<Bytes, StoreError> {
        self.segments.read(segment, start, size).await?.ok_or(MISSING)
    }

    async fn size(&self, segment: SegmentId) -> Result<Option<u64>, StoreError> {
        self.segments.size(segment).await
    }

    async fn delete(&self, segment: SegmentId) -> Result<(), StoreError> {
        self.segments.delete(segment).await
    }

    fn writer_bytes(&self) -> usize {
        3 * CHUNK_BYTES
    }
}
