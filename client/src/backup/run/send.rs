//! Sending contents: large files part by part, others framed together while the next ones are read.

use super::super::scan::Stat;
use super::Run;
use crate::blob;
use crate::error::{ClientError, Result};
use crate::rng;
use futures_util::StreamExt as _;
use lockstep_client_crypto::blob::new_reference;
use lockstep_client_crypto::content::BlobRef;
use lockstep_proto::api::problem::Code;
use lockstep_proto::id::RecordId;
use std::sync::Arc;

/// Framed requests under way at once.
const UPLOADS_MAX: usize = 2;

impl Run<'_> {
    pub(super) async fn upload(
        &mut self,
        record: RecordId,
        hash: lockstep_proto::Digest,
        file: &mut std::fs::File,
        stat: &Stat,
    ) -> Result<BlobRef> {
        let reference = match blob::begun_upload(&self.vault.replica, record, stat.size, hash)? {
            Some(reference) => reference,
            None => new_reference(stat.size, hash, &mut rng::system()),
        };
        blob::remember_upload(&self.vault.replica, record, &reference)?;
        let (api, keys) = (Arc::clone(self.vault.api()), Arc::clone(&self.vault.setup.keys));
        let sent = &mut self.progress.sent_bytes;
        let mut count = |bytes| *sent = sent.saturating_add(bytes);
        match blob::upload_large(&api, &keys, &reference, file, &mut count).await {
            Ok(()) => Ok(reference),
            // What the server holds of an earlier try is not this: begin anew, under another key.
            Err(error) if matches!(error.code(), Some(Code::Mismatch | Code::Exists)) => {
                let fresh = new_reference(stat.size, hash, &mut rng::system());
                blob::remember_upload(&self.vault.replica, record, &fresh)?;
                blob::upload_large(&api, &keys, &fresh, file, &mut count).await?;
                Ok(fresh)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn send_frames(&mut self) -> Result<()> {
        if self.frames.is_empty() {
            return Ok(());
        }
        while self.uploads.len() >= UPLOADS_MAX {
            self.one_upload().await?;
        }
        let frames = std::mem::take(&mut self.frames);
        let ready = std::mem::take(&mut self.framed);
        let (api, vault) = (Arc::clone(self.vault.api()), self.vault.setup.vault());
        self.uploads.push(tokio::spawn(async move { frames.send(api, vault).await.map(|()| ready) }));
        Ok(())
    }

    /// Waits for one upload; its files are recorded only now that their contents are durable.
    pub(super) async fn one_upload(&mut self) -> Result<()> {
        if let Some(done) = self.uploads.next().await {
            let ready = done.map_err(|_| ClientError::Damaged("an upload failed".into()))??;
            for file in ready {
                self.record(file);
            }
        }
        Ok(())
    }
}
