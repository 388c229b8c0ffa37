//! What handles ask of the thread that sync lives on.

use super::back::{Back, Whose};
use super::follow::Follow;
use super::front::Front;
use super::status::Status;
use crate::error::Result;
use lockstep_proto::id::VaultId;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Given once the status says what was done.
pub(crate) type Reply = Box<dyn FnOnce()>;
type Work = Box<dyn FnOnce(&mut Hands) -> (Vec<VaultId>, Reply) + Send>;
pub(crate) type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

pub(crate) enum Command {
    /// Something that waits for nothing; gives the vaults that it wrote to.
    Run(Work),
    /// Something that may ask the server, beside everything else.
    Spawn(Box<dyn FnOnce(Rc<RefCell<Hands>>) -> LocalFuture + Send>),
    /// Something was written to a vault by what was spawned.
    Wrote(VaultId, oneshot::Sender<()>),
    SyncNow(oneshot::Sender<Status>),
    Pause(oneshot::Sender<()>),
    Resume(oneshot::Sender<()>),
    Metered(Option<Duration>),
    Create(String, oneshot::Sender<Result<()>>),
    End,
}

/// What commands work with.
pub(crate) struct Hands {
    whose: Whose,
    follow: Rc<RefCell<Follow>>,
    /// None if the home is shared.
    pub(crate) front: Option<Front>,
}

impl Hands {
    pub(crate) fn new(whose: Whose, follow: Rc<RefCell<Follow>>, front: Option<Front>) -> Self {
        Self { whose, follow, front }
    }

    /// Works with the account; one that is shared is opened for it.
    pub(crate) fn with<T>(&mut self, work: impl FnOnce(&mut Front) -> Result<T>) -> Result<T> {
        if let Some(front) = &mut self.front {
            return work(front);
        }
        let account = self.whose.open()?;
        work(&mut Front::new(account, Rc::clone(&self.follow)))
    }

    /// Who opens the account for each turn.
    pub(crate) fn shared(&self) -> Back {
        Back::Shared(self.whose.clone())
    }
}
