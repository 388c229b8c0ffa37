//! Sending: groups framed together while others are read, large files part by part, records in commits.

use super::super::group::{Group, Item, Large, Reader, framed_bytes};
use super::super::scan::Stat;
use super::Run;
use crate::account::Account;
use crate::blob;
use crate::error::{ClientError, Result};
use crate::replica::{Side, content_tag};
use crate::rng;
use crate::vault::Vault;
use lockstep_client_crypto::blob::new_reference;
use lockstep_client_crypto::content::{BlobRef, Content};
use lockstep_engine::replica::Replica as _;
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::{BlobId, RecordId};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Files that are read, or on their way.
pub(super) enum Work {
    Group(JoinHandle<Result<Group>>, u64),
    Large(Box<Item>, JoinHandle<std::result::Result<Large, String>>),
}

impl Work {
    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Group(_, bytes) => *bytes,
            Self::Large(..) => 0,
        }
    }
}

/// Reads and seals a group on another thread, and sends it. What of it the server has is known afterwards.
async fn read_and_send(
    reader: Arc<Reader>,
    api: Arc<crate::api::Api>,
    vault: lockstep_proto::id::VaultId,
    items: Vec<Item>,
) -> Result<Group> {
    let reads = Arc::clone(&reader);
    let read = tokio::task::spawn_blocking(move || reads.read(items)).await;
    let mut group = read.map_err(|_| ClientError::Damaged("a reading thread failed".into()))?;
    let frames = std::mem::take(&mut group.frames);
    if !frames.is_empty() {
        reader.give_back(frames.send(api, vault).await?);
    }
    Ok(group)
}

/// The objects that the server says it has not got.
fn missing(error: &ClientError) -> Option<Vec<BlobId>> {
    let ClientError::Refused { names, .. } = error else { return None };
    if error.code() != Some(Code::MissingObject) {
        return None;
    }
    let blobs: Vec<BlobId> = names.iter().filter_map(|name| name.parse().ok()).collect();
    (!blobs.is_empty()).then_some(blobs)
}

/// Of the objects that the server has not got, those that pending writes name: those whose contents lie in this home wait
/// to be sent again, and the writes of the others are taken back and forgotten; whoever has the contents writes them again.
///
/// # Errors
/// [`ClientError::Server`] if that changes nothing: there is no sense in asking again.
async fn abandon(vault: &mut Vault, blobs: Vec<BlobId>) -> Result<Vec<BlobId>> {
    let mut named = BTreeSet::new();
    for row in vault.replica.pending(usize::MAX)? {
        if let Ok(content) = Content::decode(&row.content) {
            named.extend(content.blobs.iter().map(|reference| reference.blob));
        }
    }
    let missing = blobs.into_iter().filter(|blob| named.contains(blob));
    let (here, gone): (Vec<BlobId>, Vec<BlobId>) = missing.partition(|blob| vault.holds(*blob));
    let is_sent_again = vault.wait_again(&here)?;
    if gone.is_empty() && !is_sent_again {
        return Err(ClientError::Server("it misses objects that it has, or that nothing names".into()));
    }
    if !gone.is_empty() {
        vault.replica.forget_contents(&gone)?;
        vault.abandon(gone.clone()).await?;
    }
    Ok(gone)
}

/// Brings a vault up to date. Pending writes may name objects that were collected meanwhile: they are taken back. Gives
/// those objects.
pub(super) async fn abandon_and_sync(account: &mut Account, vault: &mut Vault) -> Result<Vec<BlobId>> {
    const ROUNDS_MAX: usize = 256;
    let mut lost = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let Err(error) = account.sync_vault(vault).await else { return Ok(lost) };
        let Some(blobs) = missing(&error) else { return Err(error) };
        lost.extend(abandon(vault, blobs).await?);
    }
    Err(ClientError::Server("it keeps missing objects".into()))
}

impl Run<'_> {
    pub(super) fn begin_group(&mut self, items: Vec<Item>) {
        let sizes = items.iter().map(|item| (item.entry.stat.size, framed_bytes(item.entry.stat.size)));
        let bytes = sizes.map(|(size, framed)| framed.unwrap_or(size).max(size)).fold(0, u64::saturating_add);
        let (api, vault) = (Arc::clone(self.vault.api()), self.vault.setup.vault());
        let work = tokio::spawn(read_and_send(Arc::clone(&self.reader), api, vault, items));
        self.under_way.push_back(Work::Group(work, bytes));
    }

    pub(super) fn begin_large(&mut self, item: Box<Item>) {
        let reader = Arc::clone(&self.reader);
        let copy = item.clone_to_read();
        let work = tokio::task::spawn_blocking(move || reader.hash_large(&copy));
        self.under_way.push_back(Work::Large(item, work));
    }

    /// Sends records that are durable here. If the server lost objects that they name, the run has to be done again.
    pub(super) async fn send(&mut self) -> Result<()> {
        let Err(error) = self.account.send(self.vault).await else { return Ok(()) };
        let Some(blobs) = missing(&error) else { return Err(error) };
        let lost = abandon(self.vault, blobs).await?;
        self.lost.extend(lost);
        self.lost.extend(abandon_and_sync(self.account, self.vault).await?);
        self.is_again = true;
        // What was taken back is not what the files look like.
        self.stats.clear();
        Ok(())
    }

    /// The run ends before its end, as it was told to: what is under way is taken along.
    pub(super) async fn stop(&mut self) -> Result<()> {
        while let Some(work) = self.under_way.pop_front() {
            match work {
                Work::Large(_, hashing) => hashing.abort(),
                group @ Work::Group(..) => self.done(group).await?,
            }
        }
        self.flush(true).await
    }

    /// The run can not go on: what others have sent meanwhile is not sent again by the next one.
    pub(super) async fn keep_what_was_sent(&mut self) -> Result<()> {
        while let Some(work) = self.under_way.pop_front() {
            match work {
                Work::Large(_, hashing) => hashing.abort(),
                Work::Group(group, _) => {
                    if let Ok(Ok(group)) = group.await {
                        self.remember_sent(&group)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Where an upload in parts is remembered: by its contents, wherever they lie when it goes on.
    fn upload_place(&self, hash: lockstep_proto::Digest, size: u64) -> RecordId {
        let keys = self.vault.replica.db().keys();
        RecordId::from_bytes(content_tag(keys, self.vault.setup.vault(), hash, size))
    }

    /// The next upload of these contents, if there is to be one, is another.
    pub(super) fn upload_is_done(&self, blob: &BlobRef) -> Result<()> {
        let place = self.upload_place(blob.content_hash, blob.size);
        self.vault.replica.drop_side(Side::Upload, &[place])
    }

    pub(super) async fn upload(
        &mut self,
        hash: lockstep_proto::Digest,
        file: &mut std::fs::File,
        stat: &Stat,
        anew: bool,
    ) -> Result<BlobRef> {
        let place = self.upload_place(hash, stat.size);
        let begun = blob::begun_upload(&self.vault.replica, place, stat.size, hash)?;
        let reference = match begun.filter(|_| !anew) {
            Some(reference) => reference,
            None => new_reference(stat.size, hash, &mut rng::system()),
        };
        blob::remember_upload(&self.vault.replica, place, &reference)?;
        let (api, keys) = (Arc::clone(self.vault.api()), Arc::clone(&self.vault.setup.keys));
        let sent = &mut self.progress.sent_bytes;
        let mut count = |bytes| *sent = sent.saturating_add(bytes);
        match blob::upload_large(&api, &keys, &reference, file, &mut count).await {
            Ok(()) => Ok(reference),
            // What the server holds of an earlier try is not this: begin anew, under another key.
            Err(error) if matches!(error.code(), Some(Code::Mismatch | Code::Exists)) => {
                let fresh = new_reference(stat.size, hash, &mut rng::system());
                blob::remember_upload(&self.vault.replica, place, &fresh)?;
                blob::upload_large(&api, &keys, &fresh, file, &mut count).await?;
                Ok(fresh)
            }
            Err(error) => Err(error),
        }
    }
}
