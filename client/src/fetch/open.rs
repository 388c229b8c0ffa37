//! Opening what came, on threads that may block.

use super::batch::Jobs;
use super::{Shared, Sink, Wanted};
use crate::blob::{ObjectBytes, damaged};
use crate::error::Result;
use bytes::Bytes;
use lockstep_client_crypto::blob::ObjectOpener;
use lockstep_client_crypto::content::BlobRef;
use lockstep_client_crypto::vault::VaultKeys;
use lockstep_proto::id::BlobId;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinError;

/// Pieces of a large object that came and are not opened yet.
const PIECES_MAX: usize = 4;
const PIECE_BYTES: usize = 64 * 1024;

/// Opens an object that is here, as soon as a core is free.
pub(super) async fn open<S: Sink>(
    shared: &Arc<Shared<S>>,
    jobs: &mut Jobs,
    reference: BlobRef,
    object: Vec<u8>,
    mut sink: S,
    held: OwnedSemaphorePermit,
) {
    let core = Arc::clone(&shared.openers).acquire_owned().await;
    let shared = Arc::clone(shared);
    jobs.spawn_blocking(move || {
        let result = opened(&shared.keys, &reference, &object, &mut sink);
        drop((object, held));
        shared.give(sink, result);
        drop(core);
    });
    // What is done is not kept.
    while jobs.try_join_next().is_some_and(|job| job.is_ok()) {}
}

fn opened(keys: &VaultKeys, reference: &BlobRef, object: &[u8], sink: &mut impl Sink) -> Result<()> {
    let mut opening = Opening::new(keys, reference)?;
    for piece in object.chunks(PIECE_BYTES) {
        opening.push(piece, sink)?;
    }
    opening.finish(sink)
}

/// An object being opened: whatever is wrong with it, it is damaged.
struct Opening {
    blob: BlobId,
    opener: ObjectOpener,
    out: Vec<u8>,
}

impl Opening {
    fn new(keys: &VaultKeys, reference: &BlobRef) -> Result<Self> {
        Ok(Self { blob: reference.blob, opener: ObjectOpener::new(keys, reference)?, out: Vec::new() })
    }

    fn push(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<()> {
        self.opener.push(bytes, &mut self.out).map_err(|_| damaged(self.blob))?;
        if !self.out.is_empty() {
            sink.take(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }

    fn finish(self, sink: &mut impl Sink) -> Result<()> {
        self.opener.finish().map_err(|_| damaged(self.blob))?;
        sink.end()
    }
}

/// Fetches an object by itself: it is opened while it comes, and goes on where a connection breaks.
pub(super) async fn alone<S: Sink>(
    shared: &Arc<Shared<S>>,
    wanted: Wanted<S>,
) -> std::result::Result<(), JoinError> {
    let place = Arc::clone(&shared.alone).acquire_owned().await;
    let Wanted { reference, bytes, mut sink } = wanted;
    let (sender, mut pieces) = mpsc::channel::<Option<Bytes>>(PIECES_MAX);
    let (keys, blob) = (Arc::clone(&shared.keys), reference.blob);
    let opening = tokio::task::spawn_blocking(move || {
        let result = open_pieces(&keys, &reference, &mut pieces, &mut sink);
        // Whoever waits for the place waits for the end of what takes it, too.
        drop(pieces);
        (sink, result, place)
    });
    let mut coming = ObjectBytes::new(&shared.api, shared.keys.vault(), blob, bytes);
    let failed = loop {
        match coming.next().await {
            Ok(None) => break None,
            Ok(Some(piece)) => {
                let is_end = piece.is_empty();
                let is_taken = sender.send(Some(piece)).await.is_ok();
                // Nothing is asked for before what came is opened: no answer is asked for after a wrong one.
                let is_opened = !is_end || sender.reserve_many(PIECES_MAX).await.is_ok();
                // It was refused, or what takes it failed: that is what is told.
                if !is_taken || !is_opened {
                    break None;
                }
            }
            Err(error) => break Some(error),
        }
    };
    if failed.is_some() {
        // Nobody listens any more if what came was wrong already.
        let _ = sender.send(None).await;
    }
    drop(sender);
    let (sink, result, _place) = opening.await?;
    // What was opened and found wrong was wrong before the rest was lost.
    let result = match (result, failed) {
        (Ok(true), None) => Ok(()),
        (Ok(_), failed) => Err(failed.unwrap_or_else(|| damaged(blob))),
        (Err(error), _) => Err(error),
    };
    shared.give(sink, result);
    Ok(())
}

/// Opens what comes, up to its end; false if nothing comes in the place of a piece: the rest was lost.
fn open_pieces(
    keys: &VaultKeys,
    reference: &BlobRef,
    pieces: &mut mpsc::Receiver<Option<Bytes>>,
    sink: &mut impl Sink,
) -> Result<bool> {
    let mut opening = Opening::new(keys, reference)?;
    while let Some(piece) = pieces.blocking_recv() {
        let Some(piece) = piece else { return Ok(false) };
        opening.push(&piece, sink)?;
    }
    opening.finish(sink).map(|()| true)
}
