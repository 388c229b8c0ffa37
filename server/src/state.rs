//! What every handler shares.

use crate::budget::Budget;
use crate::config::Registration;
use crate::cors::CorsOrigins;
use crate::domain::freeze::Freeze;
use crate::domain::notices::{LISTENERS_MAX, Notices};
use crate::domain::opaque::Opaque;
use crate::domain::refused::RefusedEntries;
use crate::domain::throttle::Throttle;
use crate::error::ApiError;
use crate::objects::Objects;
use crate::store::Store;
use crate::time::now_utc;
use lockstep_proto::Digest;
use lockstep_proto::api::problem::Code;
use lockstep_proto::id::{AccountId, DeviceId};
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

/// Shared state; cheap to clone.
#[derive(Clone)]
pub struct App(pub Arc<Shared>);

/// The shared parts.
pub struct Shared {
    /// Database.
    pub store: Arc<dyn Store>,
    /// Blob bytes.
    pub objects: Arc<dyn Objects>,
    /// OPAQUE keys.
    pub opaque: Opaque,
    /// Key of fake answers for unknown names.
    pub fake_key: [u8; 32],
    /// Bytes held in memory.
    pub budget: Budget,
    /// Bytes held in memory for requests without a session.
    pub open_budget: Budget,
    /// Bytes held in memory for answers of many objects.
    pub objects_budget: Budget,
    /// Tries by account name.
    pub names: Throttle,
    /// Tries by source address.
    pub sources: Throttle,
    /// Devices whose writes wait while they are being revoked.
    pub freeze: Freeze,
    /// Revocations that were refused.
    pub refused: RefusedEntries,
    /// Who waits for vaults to move.
    pub notices: Arc<Notices>,
    /// Places of sockets and of requests that wait.
    pub waiting: WaitingPlaces,
    /// Whether the server is about to stop: who waits is let go.
    pub stopping: watch::Sender<bool>,
    /// Public origin.
    pub origin: String,
    /// Pages of other origins that may talk to this server.
    pub cors: CorsOrigins,
    /// Who may register.
    pub registration: Registration,
}

/// Bounds on those who wait for notices, apart from the bound of each account.
pub struct WaitingPlaces {
    /// Sockets, all of them.
    pub sockets: Arc<Semaphore>,
    /// Sockets that did not say yet whose they are.
    pub strangers: Arc<Semaphore>,
    /// Requests; each has one of the server's connections.
    pub requests: Arc<Semaphore>,
}

impl Default for WaitingPlaces {
    fn default() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self {
            sockets: places(LISTENERS_MAX),
            strangers: places(STRANGERS_MAX),
            requests: places(REQUESTS_MAX),
        }
    }
}

const STRANGERS_MAX: usize = 256;
const REQUESTS_MAX: usize = 512;

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Shared {
    /// Refuses a write of a device that is being revoked, for a moment.
    ///
    /// # Errors
    /// 503.
    pub fn check_not_held(&self, account: AccountId, device: DeviceId) -> Result<(), ApiError> {
        if self.freeze.holds(account, device, now_utc()) {
            let text = "this device's writes are held back for a moment: its owner is revoking it";
            return Err(ApiError::new(Code::Busy, text).retry_after(5));
        }
        Ok(())
    }

    /// Account id and credential identifier of a name that does not exist: the same from call to call.
    pub fn fake_account(&self, name: &str) -> (AccountId, Vec<u8>) {
        let mut hasher = blake3::Hasher::new_keyed(&self.fake_key);
        hasher.update(name.as_bytes());
        let digest = Digest::from_bytes(*hasher.finalize().as_bytes());
        let (_, credential) = digest.as_bytes().split_at(16);
        (AccountId::from_bytes(digest.truncate16()), credential.to_vec())
    }
}
