//! Fetching many objects: small ones together, in few requests; large ones by themselves. What comes is opened and verified
//! on all cores, and what takes it runs there, too.
//!
//! Bounded: [`REQUESTS_MAX`] requests at once, [`HELD_BYTES_MAX`] of objects that came and are not opened yet. Every object is
//! verified by itself: a server that mixes answers up only gets the objects refused, each by its name. Where an answer
//! breaks off, the object that broke is fetched by itself, and those after it anew.

mod batch;
mod frames;
mod open;

use crate::api::Api;
use crate::error::{ClientError, Result};
use batch::batch;
use lockstep_client_crypto::content::BlobRef;
use lockstep_client_crypto::vault::VaultKeys;
use lockstep_proto::blob::Layout;
use lockstep_proto::limits;
use open::alone;
use std::num::NonZero;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};

/// Requests under way at once.
const REQUESTS_MAX: usize = 4;
/// Bytes of objects that came and are not opened yet.
const HELD_BYTES_MAX: usize = 24 * limits::MIB;
/// Objects up to this size come together with others.
const TOGETHER_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bytes of the objects of one request.
const BATCH_BYTES: u64 = 8 * 1024 * 1024;
const UNIT_BYTES: u64 = 1024;

/// Takes the contents of one object, on a thread that may block.
pub(crate) trait Sink: Send + 'static {
    /// The next contents, verified. That they are whole, only [`Self::end`] says.
    ///
    /// # Errors
    /// [`ClientError`] ends this object.
    fn take(&mut self, contents: &[u8]) -> Result<()>;

    /// They were whole.
    ///
    /// # Errors
    /// As [`Self::take`].
    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// An object that is wanted, and what takes it.
pub(crate) struct Wanted<S> {
    reference: BlobRef,
    /// Length of the object.
    bytes: u64,
    sink: S,
}

/// What came of one.
pub(crate) struct Fetched<S> {
    /// What took it.
    pub(crate) sink: S,
    /// Whether it is whole.
    pub(crate) result: Result<()>,
}

/// What all requests share.
struct Shared<S> {
    api: Arc<Api>,
    keys: Arc<VaultKeys>,
    /// Units of bytes that may still be held.
    held: Arc<Semaphore>,
    /// Cores that are free to open what came.
    openers: Arc<Semaphore>,
    openers_max: u32,
    /// Places for objects that come by themselves.
    alone: Arc<Semaphore>,
    done: mpsc::UnboundedSender<Fetched<S>>,
}

impl<S> Shared<S> {
    fn give(&self, sink: S, result: Result<()>) {
        // Whoever waits for it is gone only if everything ends.
        let _ = self.done.send(Fetched { sink, result });
    }
}

/// Fetches objects in the order in which they are pushed, roughly; gives them as they are done.
pub(crate) struct Fetcher<S: Sink> {
    shared: Arc<Shared<S>>,
    waiting: Vec<Wanted<S>>,
    waiting_bytes: u64,
    requests: JoinSet<std::result::Result<(), JoinError>>,
    done: mpsc::UnboundedReceiver<Fetched<S>>,
    /// Pushed, and not given back yet.
    open: usize,
}

impl<S: Sink> Fetcher<S> {
    pub(crate) fn new(api: Arc<Api>, keys: Arc<VaultKeys>) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, NonZero::get).clamp(2, 16);
        let (sender, done) = mpsc::unbounded_channel();
        let units = usize::try_from(UNIT_BYTES).unwrap_or(1);
        let shared = Shared {
            api,
            keys,
            held: Arc::new(Semaphore::new(HELD_BYTES_MAX / units)),
            openers: Arc::new(Semaphore::new(cores)),
            openers_max: u32::try_from(cores).unwrap_or(1),
            alone: Arc::new(Semaphore::new(REQUESTS_MAX)),
            done: sender,
        };
        Self {
            shared: Arc::new(shared),
            waiting: Vec::new(),
            waiting_bytes: 0,
            requests: JoinSet::new(),
            done,
            open: 0,
        }
    }

    /// Whether one more is taken without waiting.
    pub(crate) fn has_room(&self) -> bool {
        self.requests.len() < REQUESTS_MAX
    }

    /// Whether something was pushed that was not given back yet.
    pub(crate) fn is_busy(&self) -> bool {
        self.open > 0
    }

    /// Whether something was asked for that was not given back yet.
    pub(crate) fn is_asking(&self) -> bool {
        self.open > self.waiting.len() || !self.requests.is_empty()
    }

    /// Takes an object on. What waits for company is asked for when there is enough of it, or with [`Self::flush`].
    pub(crate) fn push(&mut self, reference: BlobRef, sink: S) {
        self.open += 1;
        let layout = Layout::new(reference.size, reference.chunk_log2);
        let bytes = layout.map_or(u64::MAX, |layout| layout.object_bytes);
        let wanted = Wanted { reference, bytes, sink };
        if bytes > TOGETHER_BYTES_MAX || self.shared.api.has_stand_in() {
            let shared = Arc::clone(&self.shared);
            self.requests.spawn(async move { alone(&shared, wanted).await });
            return;
        }
        let is_full = self.waiting.len() >= limits::OBJECTS_GET_MAX
            || self.waiting_bytes.saturating_add(bytes) > BATCH_BYTES;
        if is_full {
            self.flush();
        }
        self.waiting_bytes = self.waiting_bytes.saturating_add(bytes);
        self.waiting.push(wanted);
    }

    /// Asks for what waits.
    pub(crate) fn flush(&mut self) {
        self.waiting_bytes = 0;
        let waiting = std::mem::take(&mut self.waiting);
        if !waiting.is_empty() {
            let shared = Arc::clone(&self.shared);
            self.requests.spawn(async move { batch(&shared, waiting.into()).await });
        }
    }

    /// The next that is done; none if there may be room for others before. May be dropped and called again.
    ///
    /// # Errors
    /// [`ClientError::Damaged`] if the program itself failed at one.
    pub(crate) async fn next(&mut self) -> Result<Option<Fetched<S>>> {
        let failed = || ClientError::Damaged("a download failed".into());
        if !self.is_asking() {
            return Ok(None);
        }
        tokio::select! {
            biased;
            Some(fetched) = self.done.recv() => {
                self.open = self.open.saturating_sub(1);
                Ok(Some(fetched))
            }
            Some(ended) = self.requests.join_next() => {
                ended.map_err(|_| failed())?.map_err(|_| failed())?;
                Ok(None)
            }
        }
    }

    /// Gives everything up; when this is done, nothing takes contents any more.
    pub(crate) async fn stop(&mut self) {
        self.requests.shutdown().await;
        let _ = self.shared.openers.acquire_many(self.shared.openers_max).await;
        let _ = self.shared.alone.acquire_many(u32::try_from(REQUESTS_MAX).unwrap_or(1)).await;
    }
}
