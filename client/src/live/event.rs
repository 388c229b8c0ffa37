//! What subscribers are told.

use lockstep_proto::id::{DeviceId, RecordId, Revision, Seq, VaultId};
use std::sync::Arc;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

/// A record changed. What it says now is read with [`super::Live::read`]: it may have changed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The vault.
    pub vault: VaultId,
    /// Its name.
    pub vault_name: Arc<str>,
    /// The record.
    pub record: RecordId,
    /// Its type; none if it does not open.
    pub record_type: Option<String>,
    /// Its name within the type; none if it does not open.
    pub name: Option<Vec<u8>>,
    /// Whether it was deleted.
    pub deleted: bool,
    /// Who wrote it.
    pub device: DeviceId,
    /// Whether that was this device.
    pub own: bool,
    /// The commit and the revision; none: written here, and not at the server yet.
    pub committed: Option<(Seq, Revision)>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A record changed: an own write when it is durable here and again when it is committed, one of others when it is
    /// verified here.
    Changed(Change),
    /// A repair went back over commits of a vault: what was told of it may not count any more. Read again what is
    /// shown.
    Repaired {
        /// The vault.
        vault: VaultId,
        /// Its name.
        vault_name: Arc<str>,
        /// Its last commit.
        seq: Seq,
    },
    /// The subscriber was too slow, and was not told of so many events. Read again what is shown.
    Lagged(u64),
    /// A device joined the account; told once.
    DeviceJoined {
        /// Its name, as it gave it to itself.
        name: String,
        /// Its id.
        id: String,
    },
}

/// Events from the moment of [`super::Live::subscribe`] on.
pub struct Subscription(pub(super) Option<broadcast::Receiver<Event>>);

impl Subscription {
    /// The next event; none when sync ended. It may be dropped and asked again at any time.
    pub async fn next(&mut self) -> Option<Event> {
        match self.0.as_mut()?.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(missed)) => Some(Event::Lagged(missed)),
            Err(RecvError::Closed) => None,
        }
    }

    /// The next event if there is one.
    pub fn try_next(&mut self) -> Option<Event> {
        match self.0.as_mut()?.try_recv() {
            Ok(event) => Some(event),
            Err(TryRecvError::Lagged(missed)) => Some(Event::Lagged(missed)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}
