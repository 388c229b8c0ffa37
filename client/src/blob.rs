//! Uploading and downloading objects.

use crate::api::{Api, next_chunk};
use crate::error::{ClientError, Result};
use crate::replica::{Side, VaultReplica};
use bytes::Bytes;
use lockstep_client_crypto::CryptoRng;
use lockstep_client_crypto::blob::{Hashed, ObjectOpener, ObjectSealer};
use lockstep_client_crypto::content::BlobRef;
use lockstep_client_crypto::vault::VaultKeys;
use lockstep_proto::api::object::{BeginUpload, Stored, UploadState, frame_header};
use lockstep_proto::api::problem::Code;
use lockstep_proto::blob::{object_digest, part_digest};
use lockstep_proto::cbor::{decode_local, encode};
use lockstep_proto::id::{BlobId, RecordId, VaultId};
use lockstep_proto::limits;
use reqwest::Response;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

/// Objects up to this size travel framed, many in a request.
pub const FRAMED_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// A framed request is sent when it has grown to this size.
pub const FRAMES_BYTES: usize = 8 * 1024 * 1024;
const READ_BYTES: usize = 1024 * 1024;

/// Objects that wait to be sent in one request.
#[derive(Default)]
pub struct Frames {
    body: Vec<u8>,
    count: usize,
}

impl Frames {
    /// None yet; what comes is put into this buffer.
    pub(crate) fn in_buffer(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self { body: buffer, count: 0 }
    }

    /// Adds an object.
    pub fn push(&mut self, blob: BlobId, object: &[u8]) {
        let size = u32::try_from(object.len()).unwrap_or(u32::MAX);
        self.body.extend_from_slice(&frame_header(blob, size));
        self.body.extend_from_slice(object);
        self.count += 1;
    }

    /// Seals contents and adds the object.
    ///
    /// # Errors
    /// [`ClientError`]; nothing was added.
    pub(crate) fn seal(
        &mut self,
        keys: &VaultKeys,
        hashed: &Hashed<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<BlobRef> {
        let begin = self.body.len();
        self.body.extend_from_slice(&frame_header(BlobId::ZERO, 0));
        let start = self.body.len();
        let sealed = hashed.seal(keys, rng, &mut self.body);
        let reference = sealed.inspect_err(|_| self.body.truncate(begin))?;
        let size = u32::try_from(self.body.len().saturating_sub(start)).unwrap_or(u32::MAX);
        let header = frame_header(reference.blob, size);
        for (place, byte) in self.body.iter_mut().skip(begin).zip(header) {
            *place = byte;
        }
        self.count += 1;
        Ok(reference)
    }

    /// Whether so many bytes, header included, and one more object go into the same request.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let left = limits::FRAMES_BODY_BYTES_MAX.saturating_sub(self.body.len());
        self.count < limits::FRAMES_MAX && usize::try_from(bytes).is_ok_and(|bytes| bytes <= left)
    }

    /// Whether it is time to send.
    pub fn is_full(&self) -> bool {
        self.body.len() >= FRAMES_BYTES || self.count >= limits::FRAMES_MAX / 2
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes in it.
    pub fn size_bytes(&self) -> usize {
        self.body.len()
    }

    /// Sends; every object in it is durable afterwards. Gives the buffer back, if nobody else holds it still.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send(self, api: Arc<Api>, vault: VaultId) -> Result<Vec<u8>> {
        let count = self.count;
        let body = Bytes::from(self.body);
        let stored: Stored = api.post_bytes(&format!("/v1/vaults/{vault}/objects"), body.clone()).await?;
        if stored.0.len() == count {
            Ok(body.try_into_mut().map_or_else(|_| Vec::new(), Vec::from))
        } else {
            Err(ClientError::Server("it did not store every object".into()))
        }
    }
}

/// Seals contents that are in memory.
///
/// # Errors
/// [`ClientError::Usage`] if they are not the ones that were hashed.
pub fn seal(keys: &VaultKeys, reference: &BlobRef, contents: &[u8]) -> Result<Vec<u8>> {
    let (mut sealer, mut object) = ObjectSealer::new(keys, reference)?;
    sealer.push(contents, &mut object)?;
    sealer.finish(&mut object)?;
    Ok(object)
}

/// What is remembered of a large upload before its first byte is sent.
///
/// # Errors
/// [`ClientError`].
pub fn remember_upload(replica: &VaultReplica, record: RecordId, reference: &BlobRef) -> Result<()> {
    replica.set_side(Side::Upload, &[(record, encode(reference))])
}

/// A large upload that was begun for a record with these contents.
///
/// # Errors
/// [`ClientError`].
pub fn begun_upload(
    replica: &VaultReplica,
    record: RecordId,
    size: u64,
    content_hash: lockstep_proto::Digest,
) -> Result<Option<BlobRef>> {
    let row = replica.side(Side::Upload, record)?;
    let reference: Option<BlobRef> = row.and_then(|row| decode_local(&row));
    // Other contents never meet the same key.
    Ok(reference.filter(|known| known.size == size && known.content_hash == content_hash))
}

/// Uploads contents, such as a file's, in parts; parts that the server holds are not sent again. They are
/// read twice: for the digest, and to send.
///
/// # Errors
/// [`ClientError::Usage`] if the file changed meanwhile.
pub async fn upload_large(
    api: &Api,
    keys: &VaultKeys,
    reference: &BlobRef,
    file: &mut (impl Read + Seek),
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let vault = keys.vault();
    let mut digests = Vec::new();
    let mut size = 0_u64;
    for_parts(keys, reference, file, |part| {
        size = size.saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX));
        digests.push(part_digest(&part));
        Ok(None)
    })?;
    let blob = reference.blob;
    let begin = BeginUpload { blob, size, digest: object_digest(size, &digests) };
    let state: UploadState = api.post(&format!("/v1/vaults/{vault}/uploads"), &begin).await?;
    if state.complete {
        return Ok(());
    }
    let mut parts = Parts::new(keys, reference, file)?;
    let mut index = 0_u64;
    while let Some(part) = parts.next()? {
        let len = u64::try_from(part.len()).unwrap_or(u64::MAX);
        // Other bytes under this key must never leave the machine.
        let digest = usize::try_from(index).ok().and_then(|index| digests.get(index));
        if digest != Some(&part_digest(&part)) {
            return Err(ClientError::Usage("the contents changed while they were sent".into()));
        }
        if !state.parts.contains(&index) {
            api.put_bytes(&format!("/v1/vaults/{vault}/uploads/{blob}/parts/{index}"), part).await?;
        }
        progress(len);
        index += 1;
    }
    let nothing: Option<&BeginUpload> = None;
    api.post_nothing(&format!("/v1/vaults/{vault}/uploads/{blob}/complete"), nothing).await
}

fn for_parts(
    keys: &VaultKeys,
    reference: &BlobRef,
    file: &mut (impl Read + Seek),
    mut each: impl FnMut(Bytes) -> Result<Option<()>>,
) -> Result<()> {
    let mut parts = Parts::new(keys, reference, file)?;
    while let Some(part) = parts.next()? {
        each(part)?;
    }
    Ok(())
}

/// The parts of a file's object, one after the other.
struct Parts<'a, R> {
    sealer: Option<ObjectSealer>,
    file: &'a mut R,
    buffer: Vec<u8>,
    read: Vec<u8>,
}

impl<'a, R: Read + Seek> Parts<'a, R> {
    fn new(keys: &VaultKeys, reference: &BlobRef, file: &'a mut R) -> Result<Self> {
        file.seek(SeekFrom::Start(0)).map_err(|error| ClientError::io(Path::new("file"), error))?;
        let (sealer, buffer) = ObjectSealer::new(keys, reference)?;
        Ok(Self { sealer: Some(sealer), file, buffer, read: vec![0; READ_BYTES] })
    }

    fn next(&mut self) -> Result<Option<Bytes>> {
        while self.buffer.len() < limits::PART_BYTES {
            let Some(sealer) = &mut self.sealer else { break };
            let got =
                self.file.read(&mut self.read).map_err(|error| ClientError::io(Path::new("file"), error))?;
            let (contents, _) = self.read.split_at(got);
            if got == 0 {
                if let Some(sealer) = self.sealer.take() {
                    sealer.finish(&mut self.buffer)?;
                }
            } else {
                sealer.push(contents, &mut self.buffer)?;
            }
        }
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let rest = self.buffer.split_off(self.buffer.len().min(limits::PART_BYTES));
        Ok(Some(std::mem::replace(&mut self.buffer, rest).into()))
    }
}

/// What is said of an object that is not the one that was uploaded.
pub(crate) fn damaged(blob: BlobId) -> ClientError {
    ClientError::Damaged(format!("object {blob} at the server is damaged or not the right one"))
}

/// What is said of one that the server does not have.
pub(crate) fn missing(blob: BlobId) -> ClientError {
    ClientError::Damaged(format!("object {blob} is missing at the server"))
}

/// The bytes of one object as they come, from the first to the last; where a connection breaks they go on there.
pub(crate) struct ObjectBytes<'a> {
    api: &'a Api,
    blob: BlobId,
    path: String,
    whole: u64,
    received: u64,
    /// How much there was when the last answer began.
    begun: u64,
    tries: u32,
    response: Option<Response>,
}

impl<'a> ObjectBytes<'a> {
    /// `whole`: how long the object is.
    pub(crate) fn new(api: &'a Api, vault: VaultId, blob: BlobId, whole: u64) -> Self {
        let path = format!("/v1/vaults/{vault}/objects/{blob}");
        Self { api, blob, path, whole, received: 0, begun: 0, tries: 0, response: None }
    }

    /// The next bytes; none after the last. No bytes: an answer ended, and the next call asks anew.
    ///
    /// # Errors
    /// [`ClientError::Damaged`] names the object if it is missing, or of another length.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(response) = &mut self.response else {
                if self.received >= self.whole {
                    return Ok(None);
                }
                self.response = Some(self.ask().await?);
                self.begun = self.received;
                continue;
            };
            // At the end, or where the connection broke: if something is missing, go on there.
            let Ok(Some(chunk)) = next_chunk(response).await else {
                self.response = None;
                self.tries = if self.received > self.begun { 0 } else { self.tries + 1 };
                if self.received < self.whole && self.tries > 3 {
                    // The server answers and yet never gets beyond this byte.
                    return Err(damaged(self.blob));
                }
                return Ok(Some(Bytes::new()));
            };
            self.received = self.received.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            if self.received > self.whole {
                return Err(damaged(self.blob));
            }
            return Ok(Some(chunk));
        }
    }

    async fn ask(&self) -> Result<Response> {
        match self.api.get_object(&self.path, self.received).await {
            Err(error) if error.code() == Some(Code::NotFound) => Err(missing(self.blob)),
            Err(error) if error.code() == Some(Code::Range) => Err(damaged(self.blob)),
            other => other,
        }
    }
}

/// Downloads an object; `sink` gets verified contents, in order. Only when this succeeds they are whole.
///
/// # Errors
/// [`ClientError::Damaged`] names the object if it is not the one that was uploaded.
pub async fn download(
    api: &Api,
    keys: &VaultKeys,
    reference: &BlobRef,
    sink: &mut (dyn FnMut(&[u8]) -> Result<()> + Send),
) -> Result<()> {
    let damaged = || damaged(reference.blob);
    let mut opener = ObjectOpener::new(keys, reference)?;
    let mut bytes = ObjectBytes::new(api, keys.vault(), reference.blob, opener.object_bytes());
    let mut out = Vec::new();
    while let Some(chunk) = bytes.next().await? {
        opener.push(&chunk, &mut out).map_err(|_| damaged())?;
        sink(&out)?;
        out.clear();
    }
    opener.finish().map_err(|_| damaged())
}
