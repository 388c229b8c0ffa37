//! Listening for notices that vaults moved: over a WebSocket, or with requests that wait where none can be had. What
//! is told is a hint that a pull is due, and never believed further: the pull verifies.

use crate::api::{Api, Begun, Socket};
use crate::error::{ClientError, Result};
use lockstep_proto::api::notice::{Heads, WaitForHeads};
use lockstep_proto::id::{Seq, VaultId};
use lockstep_proto::limits;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What a request that waits asks for.
const WAIT_SECONDS: u64 = 25;
/// After so long without sockets they are tried again; after so long, if there were too many.
const RETRY_SOCKETS: Duration = Duration::from_mins(10);
const RETRY_BUSY: Duration = Duration::from_mins(1);
/// Between two requests that had nothing to wait for.
const PAUSE: Duration = Duration::from_secs(1);

/// Listens for an account's vaults.
pub struct Listener {
    api: Arc<Api>,
    known: BTreeMap<VaultId, Seq>,
    way: Way,
}

enum Way {
    None,
    Socket(Socket),
    /// By requests, until sockets are tried again.
    Requests(Instant),
}

impl Listener {
    /// A listener that knows of some heads already: a notice comes at once for every other one.
    pub fn new(api: Arc<Api>, known: BTreeMap<VaultId, Seq>) -> Self {
        Self { api, known, way: Way::None }
    }

    /// Waits for the next notices, for a minute or so at most; there may be none. After an error it can be asked again,
    /// and begins anew with what was told so far.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::Busy`]: try again later. [`ClientError::SignedOut`],
    /// [`ClientError::Server`].
    pub async fn next(&mut self) -> Result<Vec<(VaultId, Seq)>> {
        let told = match self.told().await {
            Err(ClientError::SignedOut) => {
                self.way = Way::None;
                self.api.device_login().await?;
                self.told().await
            }
            other => other,
        };
        if told.is_err() {
            self.way = Way::None;
        }
        let told = told?.0;
        let is_ascending = told.is_sorted_by(|one, next| one.0 < next.0);
        if !is_ascending || told.len() > limits::VAULTS_MAX {
            self.way = Way::None;
            return Err(ClientError::Server("its notices do not ascend by vault".into()));
        }
        for (vault, seq) in &told {
            // What it makes up is not remembered without end.
            if self.known.len() < limits::VAULTS_MAX || self.known.contains_key(vault) {
                self.known.insert(*vault, *seq);
            }
        }
        Ok(told)
    }

    async fn told(&mut self) -> Result<Heads> {
        if matches!(self.way, Way::Requests(until) if until <= Instant::now()) {
            self.way = Way::None;
        }
        if matches!(self.way, Way::None) {
            self.begin().await?;
        }
        if let Way::Socket(socket) = &mut self.way {
            return socket.next().await;
        }
        let begin = Instant::now();
        let wait = WaitForHeads { heads: self.heads(), seconds: WAIT_SECONDS };
        let told: Heads = self.api.post("/v1/events/wait", &wait).await?;
        if told.0.is_empty() && begin.elapsed() < PAUSE {
            // It did not wait, and is not asked without a pause.
            tokio::time::sleep(PAUSE).await;
        }
        Ok(told)
    }

    async fn begin(&mut self) -> Result<()> {
        if self.api.token().is_none() {
            self.api.device_login().await?;
        }
        self.way = match self.api.begin_socket(self.heads()).await {
            Ok(Begun::Socket(socket)) => Way::Socket(socket),
            Ok(Begun::Unsupported) => Way::Requests(Instant::now() + RETRY_SOCKETS),
            Err(ClientError::Busy(_)) => Way::Requests(Instant::now() + RETRY_BUSY),
            Err(error) => return Err(error),
        };
        Ok(())
    }

    fn heads(&self) -> Heads {
        Heads(self.known.iter().map(|(vault, seq)| (*vault, *seq)).collect())
    }
}
