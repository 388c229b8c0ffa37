//! What an import sends: contents under the new vault's keys, and records in batches.

use super::fill::Fill;
use super::object::Contents;
use crate::blob;
use crate::error::{ClientError, Result};
use crate::rng;
use lockstep_client_crypto::blob::new_reference;
use lockstep_client_crypto::content::BlobRef;
use lockstep_engine::NewRecord;
use lockstep_engine::files::FILE_TYPE;
use lockstep_proto::api::problem::Code;
use lockstep_proto::blob::Layout;
use lockstep_proto::id::RecordId;
use std::io::{Read as _, Seek as _};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Records are made durable here and sent when so many wait.
const BATCH_RECORDS: usize = 1000;
/// Bytes of records that wait, beside the count.
const BATCH_BYTES: usize = 1024 * 1024;
const READ_BYTES: usize = 256 * 1024;

/// What became of contents.
pub(super) enum Sent {
    /// The new vault has them already.
    Kept(BlobRef),
    /// They are at the server.
    Large(BlobRef),
    /// Sealed, and to be sent.
    Framed(BlobRef, Vec<u8>),
}

/// What a person calls a record.
pub(super) fn called(record_type: &str, name: &[u8]) -> String {
    let name = if record_type == FILE_TYPE { name.get(16..).unwrap_or_default() } else { name };
    format!("record {} of type {}", String::from_utf8_lossy(name).escape_debug(), record_type.escape_debug())
}

impl Fill<'_> {
    /// Contents under the new vault's keys: those that are there already, small ones sealed, large ones sent. None if
    /// the archive does not have them whole.
    pub(super) async fn contents(
        &mut self,
        place: RecordId,
        reference: &BlobRef,
        before: Option<&BlobRef>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Option<Sent>> {
        let from = Arc::clone(&self.source.vault.setup.keys);
        let keys = Arc::clone(&self.target.setup.keys);
        let Ok(Some(mut contents)) = Contents::open(self.index, &from, reference) else { return Ok(None) };
        let layout = Layout::new(reference.size, 16);
        let is_small = layout.is_some_and(|layout| layout.object_bytes <= blob::FRAMED_BYTES_MAX);
        let mut hasher = keys.content_hasher();
        let mut small = Zeroizing::new(Vec::new());
        let mut buffer = Zeroizing::new(vec![0; READ_BYTES]);
        // To the end, where they are known to be whole.
        loop {
            let Ok(got) = contents.read(&mut buffer) else { return Ok(None) };
            let (piece, _) = buffer.split_at(got);
            if got == 0 {
                break;
            }
            hasher.update(piece);
            if is_small {
                small.extend_from_slice(piece);
            }
        }
        let hash = hasher.finish();
        if let Some(before) =
            before.filter(|before| (before.size, before.content_hash) == (reference.size, hash))
        {
            return Ok(Some(Sent::Kept(before.clone())));
        }
        self.tally.bytes = self.tally.bytes.saturating_add(reference.size);
        progress(self.tally.bytes);
        if is_small {
            let new = new_reference(reference.size, hash, &mut rng::system());
            let object = blob::seal(&keys, &new, &small)?;
            return Ok(Some(Sent::Framed(new, object)));
        }
        contents.rewind().map_err(|error| ClientError::Damaged(error.to_string()))?;
        let replica = &self.target.replica;
        let new = match blob::begun_upload(replica, place, reference.size, hash)? {
            Some(begun) => begun,
            None => new_reference(reference.size, hash, &mut rng::system()),
        };
        blob::remember_upload(replica, place, &new)?;
        let api = Arc::clone(self.target.api());
        match blob::upload_large(&api, &keys, &new, &mut contents, &mut |_| {}).await {
            Ok(()) => Ok(Some(Sent::Large(new))),
            Err(error) if matches!(error.code(), Some(Code::Mismatch | Code::Exists)) => {
                let fresh = new_reference(reference.size, hash, &mut rng::system());
                blob::remember_upload(&self.target.replica, place, &fresh)?;
                blob::upload_large(&api, &keys, &fresh, &mut contents, &mut |_| {}).await?;
                Ok(Some(Sent::Large(fresh)))
            }
            Err(error) => Err(error),
        }
    }

    /// Sends framed objects; only then their records are written.
    pub(super) async fn send_frames(&mut self) -> Result<()> {
        if !self.frames.is_empty() {
            let frames = std::mem::take(&mut self.frames);
            frames.send(Arc::clone(self.target.api()), self.target.setup.vault()).await?;
        }
        for written in std::mem::take(&mut self.framed) {
            self.add(written).await?;
        }
        Ok(())
    }

    pub(super) async fn add(&mut self, written: NewRecord) -> Result<()> {
        self.batch_bytes = self
            .batch_bytes
            .saturating_add(written.document.as_ref().map_or(0, Vec::len))
            .saturating_add(256);
        self.batch.push(written);
        if self.batch.len() >= BATCH_RECORDS || self.batch_bytes >= BATCH_BYTES {
            return self.send_batch().await;
        }
        Ok(())
    }

    async fn send_batch(&mut self) -> Result<()> {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        match self.target.put(batch.clone()).await {
            Err(ClientError::Usage(_)) => {
                // One of them is what no program of ours writes: the others go on without it.
                for one in batch {
                    let shown = called(&one.record_type, &one.name);
                    match self.target.put(vec![one]).await {
                        Err(ClientError::Usage(what)) => self.problems.push(format!("{shown}: {what}")),
                        other => other?,
                    }
                }
            }
            other => other?,
        }
        self.account.send(self.target).await
    }

    pub(super) async fn flush(&mut self) -> Result<()> {
        self.send_frames().await?;
        self.send_batch().await
    }
}
