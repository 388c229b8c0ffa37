//! Segments in an S3 bucket.
//!
//! A segment that fits one part is one plain put; a longer one is a multipart upload, of which one part at a
//! time is held in memory. Errors tell the operation, the status and the error code, and nothing else: an
//! answer of the bucket may echo the request, and with it a session token.

use super::segments::{MISSING, Segments};
use super::settings::S3Settings;
use super::{Objects, SegmentWriter};
use crate::error::StoreError;
use crate::store::SegmentId;
use async_trait::async_trait;
use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, Error, MultipartUpload, ObjectStore as _, ObjectStoreExt as _, PutPayload,
    PutPayloadMut, RetryConfig,
};
use std::sync::Arc;
use std::time::Duration;

/// The smallest part that S3 takes, but for the last.
const PART_BYTES: usize = 5 * 1024 * 1024;
/// Memory of a part comes in blocks.
const BLOCK_BYTES: usize = 128 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One request from connecting to the end of the answer: 8 MiB at 140 KiB a second.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);
const RETRIES_MAX: usize = 4;
const RETRY_TIMEOUT: Duration = Duration::from_mins(1);
/// Connections that wait for the next request.
const IDLE_CONNECTIONS_MAX: usize = 16;

/// Segments in a bucket.
pub struct S3Objects {
    segments: Segments<AmazonS3>,
}

/// Why a request to the bucket failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the S3 bucket: {0}")]
struct S3Error(String);

#[expect(clippy::needless_pass_by_value, reason = "errors are mapped by it")]
fn failed(error: Error) -> StoreError {
    let why = reason(&error);
    // 507, and what servers say beside it, means the same as a full disk.
    if ["507", "InsufficientStorage", "QuotaExceeded", "StorageFull"].iter().any(|word| why.contains(word)) {
        return StoreError::Full;
    }
    StoreError::Unavailable(Arc::new(S3Error(why)))
}

/// What is safe to tell of an error.
fn reason(error: &Error) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(http) = inner.downcast_ref::<HttpError>() {
            return transport(http).to_owned();
        }
        cause = inner.source();
    }
    let text = error.to_string();
    let status = after(&text, "status code: ", |c| c.is_ascii_digit());
    let code = after(&text, "<Code>", |c| c.is_ascii_alphanumeric());
    let kind = match status.as_deref() {
        Some("401" | "403") => "access was refused",
        Some(_) => "the request was refused",
        None if text.contains("redirect") => "it lies elsewhere; is AWS_REGION right?",
        None => "it answered what is no answer of S3",
    };
    let told = [status, code].into_iter().flatten().collect::<Vec<_>>().join(" ");
    if told.is_empty() { kind.to_owned() } else { format!("{kind} ({told})") }
}

fn transport(error: &HttpError) -> &'static str {
    match error.kind() {
        HttpErrorKind::Connect => "no connection could be made",
        HttpErrorKind::Timeout => "it did not answer in time",
        HttpErrorKind::Interrupted => "the connection broke",
        HttpErrorKind::Decode => "its answer could not be read",
        _ => "the request could not be sent",
    }
}

/// The short word after a mark, of the characters that are allowed.
fn after(text: &str, mark: &str, allowed: fn(char) -> bool) -> Option<String> {
    const CHARS_MAX: usize = 40;
    let (_, rest) = text.split_once(mark)?;
    let word: String = rest.chars().take(CHARS_MAX).take_while(|c| allowed(*c)).collect();
    (!word.is_empty()).then_some(word)
}

impl S3Objects {
    /// Opens a bucket, and asks it whether it is there and can be listed: without the right to list, S3
    /// answers "refused" for what is missing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(settings: &S3Settings) -> Result<Self, StoreError> {
        // Another part of the process may have chosen its provider first; it is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = ClientOptions::new()
            .with_allow_http(settings.is_plain())
            .with_timeout(REQUEST_TIMEOUT)
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_pool_max_idle_per_host(IDLE_CONNECTIONS_MAX);
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(4),
                base: 2.,
            },
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_TIMEOUT,
        };
        let mut builder = AmazonS3Builder::new()
            .with_client_options(client)
            .with_retry(retry)
            .with_bucket_name(&settings.bucket)
            .with_region(&settings.region)
            .with_access_key_id(settings.access_key.expose())
            .with_secret_access_key(settings.secret_key.expose())
            .with_virtual_hosted_style_request(!settings.path_style)
            // One request a key: not every server knows the other.
            .with_disable_bulk_delete(true);
        if let Some(token) = &settings.session_token {
            builder = builder.with_token(token.expose());
        }
        if let Some(endpoint) = settings.endpoint_for_requests() {
            builder = builder.with_endpoint(endpoint);
        }
        let prefix = Path::from(settings.prefix.as_str());
        let objects = Self { segments: Segments::new(builder.build().map_err(failed)?, prefix, failed) };
        objects.bucket_is_there().await?;
        Ok(objects)
    }

    /// A bucket that is gone must not look like segments that are.
    async fn bucket_is_there(&self) -> Result<(), StoreError> {
        let nothing = self.segments.prefix().clone().join("probe");
        match self.segments.store().list(Some(&nothing)).next().await {
            None | Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(failed(error)),
        }
    }
}

/// Holds one part at most. The upload begins when the first part is full.
struct S3Writer {
    store: Arc<AmazonS3>,
    place: Path,
    held: PutPayloadMut,
    upload: Option<Box<dyn MultipartUpload>>,
}

fn empty_part() -> PutPayloadMut {
    PutPayloadMut::new().with_block_size(BLOCK_BYTES)
}

impl S3Writer {
    async fn send_part(&mut self) -> Result<(), StoreError> {
        let part = std::mem::replace(&mut self.held, empty_part()).freeze();
        let upload = match &mut self.upload {
            Some(upload) => upload,
            None => self.upload.insert(self.store.put_multipart(&self.place).await.map_err(failed)?),
        };
        upload.put_part(part).await.map_err(failed)
    }
}

async fn give_up(mut upload: Box<dyn MultipartUpload>) {
    match upload.abort().await {
        // What was completed, though its answer was lost, is no longer there to be given up.
        Ok(()) | Err(Error::NotFound { .. }) => {}
        Err(error) => {
            tracing::warn!(error = reason(&error), "an unfinished upload to the bucket could not be removed");
        }
    }
}

impl Drop for S3Writer {
    fn drop(&mut self) {
        if let (Some(upload), Ok(runtime)) = (self.upload.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(give_up(upload));
        }
    }
}

#[async_trait]
impl SegmentWriter for S3Writer {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            // A full part is sent only when more comes: what fits one part needs no multipart upload.
            if self.held.content_length() == PART_BYTES {
                self.send_part().await?;
            }
            let room = PART_BYTES.saturating_sub(self.held.content_length()).min(BLOCK_BYTES);
            let piece = bytes.split_to(room.min(bytes.remaining()));
            self.held.extend_from_slice(&piece);
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        if self.upload.is_none() {
            let whole = std::mem::replace(&mut self.held, empty_part()).freeze();
            self.store.put(&self.place, whole).await.map_err(failed)?;
            return Ok(());
        }
        self.send_part().await?;
        if let Some(upload) = &mut self.upload {
            upload.complete().await.map_err(failed)?;
        }
        self.upload = None;
        Ok(())
    }

    async fn abort(mut self: Box<Self>) {
        if let Some(upload) = self.upload.take() {
            give_up(upload).await;
        }
    }
}

#[async_trait]
impl Objects for S3Objects {
    async fn create(&self, segment: SegmentId) -> Result<Box<dyn SegmentWriter>, StoreError> {
        Ok(Box::new(S3Writer {
            store: Arc::clone(self.segments.store()),
            place: self.segments.place(segment),
            held: empty_part(),
            upload: None,
        }))
    }

    async fn put(&self, segment: SegmentId, bytes: Bytes) -> Result<(), StoreError> {
        let place = self.segments.place(segment);
        self.segments.store().put(&place, PutPayload::from_bytes(bytes)).await.map_err(failed)?;
        Ok(())
    }

    async fn read(&self, segment: SegmentId, start: u64, size: u64) -> Result<Bytes, StoreError> {
        if let Some(bytes) = self.segments.read(segment, start, size).await? {
            return Ok(bytes);
        }
        self.bucket_is_there().await?;
        Err(MISSING)
    }

    async fn size(&self, segment: SegmentId) -> Result<Option<u64>, StoreError> {
        let size = self.segments.size(segment).await?;
        if size.is_none() {
            self.bucket_is_there().await?;
        }
        Ok(size)
    }

    async fn delete(&self, segment: SegmentId) -> Result<(), StoreError> {
        self.segments.delete(segment).await
    }

    fn writer_bytes(&self) -> usize {
        PART_BYTES + 2 * BLOCK_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_with(text: &str) -> Error {
        Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn an_error_tells_status_and_code_and_echoes_nothing() {
        let body = "Server returned non-2xx status code: 400 Bad Request: <Error><Code>InvalidToken</Code>\
                    <CanonicalRequest>x-amz-security-token:s3cr3t\n</CanonicalRequest></Error>";
        assert_eq!(reason(&error_with(body)), "the request was refused (400 InvalidToken)");
        assert_eq!(reason(&error_with("s3cr3t")), "it answered what is no answer of S3");
        let long = format!("<Code>{}", "a".repeat(1000));
        assert!(reason(&error_with(&long)).len() < 100);
    }

    #[test]
    fn a_full_bucket_is_a_full_disk() {
        let full = error_with("status code: 507 Insufficient Storage: <Code>XMinioStorageFull</Code>");
        assert!(matches!(failed(full), StoreError::Full));
        let busy = error_with("status code: 503 Service Unavailable: <Code>SlowDown</Code>");
        assert!(matches!(failed(busy), StoreError::Unavailable(_)));
    }
}
