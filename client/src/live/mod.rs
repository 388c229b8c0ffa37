//! Keeping a home in sync in the background of an app, while the app goes on reading and writing.
//!
//! A [`Live`] is a handle to a thread of its own that owns the home. Reading and writing never wait for the network: a
//! write returns when it is durable on this device. Syncs come by themselves: a moment after a write, when the server
//! tells that something moved, now and then, and when the app asks. What is going on is a stream of [`Status`]; what
//! changed is a stream of [`Event`]s. docs/CLIENT.md shows how it is used.
//!
//! Inside: [`schedule`](self) decides when, `back` talks to the server, `front` is the app's side of the same database,
//! `follow` tells what changed, `worker` is the loop that ties them together.
//!
//! What needs a person (a revoked device, a server that shows another history, a quota) stops the attempts of the vault
//! that it is about, and is tried again when the app syncs by hand. A server that goes back in time or parts from what was
//! verified is believed in no vault, and a device that is signed out in none: that stops all of them.

mod back;
mod command;
mod event;
mod follow;
pub(crate) mod front;
mod put;
mod record;
mod schedule;
mod settings;
mod start;
mod status;
mod trouble;
mod worker;

pub use event::{Change, Event, Subscription};
pub(crate) use record::check_type;
pub use record::{Record, Version, deletion, document};
pub use settings::Settings;
pub use status::{State, Statistics, Status, VaultStatus};
pub use trouble::Trouble;

use crate::error::{ClientError, Result};
use command::Command;
use front::{Front, version_as_new};
use lockstep_engine::NewRecord;
use lockstep_proto::id::{RecordId, Revision};
use std::path::Path;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// A home that is kept in sync. Clones are handles to the same one; sync ends when the last one is gone.
#[derive(Clone)]
pub struct Live {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
    events: broadcast::WeakSender<Event>,
    gone: watch::Receiver<()>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Live")
    }
}

fn ended() -> ClientError {
    ClientError::Usage("sync of this home ended".into())
}

impl Live {
    /// Opens a home in which a device is signed in, and begins to keep it in sync. `insecure_http`: whether `http://` is
    /// allowed to other machines.
    ///
    /// # Errors
    /// [`ClientError::NoAccount`], [`ClientError::Locked`] if another process has the home, and what is wrong with it.
    pub async fn start(home: &Path, insecure_http: bool, settings: Settings) -> Result<Self> {
        start::start(home.to_path_buf(), insecure_http, settings).await
    }

    async fn send(&self, command: Command) -> Result<()> {
        self.commands.send(command).await.map_err(|_| ended())
    }

    /// Does something with what is here; nothing in it waits. What it writes to `vault` is sent later.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        vault: &str,
        writes: bool,
        work: impl FnOnce(&mut Front, &str) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let vault = vault.to_owned();
        let command = Command::Run(Box::new(move |hands| {
            let done = hands.with(|front| {
                let done = work(front, &vault)?;
                let written = if writes { vec![front.vault(&vault)?.setup().vault()] } else { Vec::new() };
                Ok((done, written))
            });
            let (done, written) = match done {
                Ok((done, written)) => (Ok(done), written),
                Err(error) => (Err(error), Vec::new()),
            };
            let reply: command::Reply = Box::new(move || {
                let _ = reply.send(done);
            });
            (written, reply)
        }));
        self.send(command).await?;
        answer.await.map_err(|_| ended())?
    }

    /// Writes records, all or none; durable on this device when it returns.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] if there is no such vault, [`ClientError::Usage`], [`ClientError::DiskFull`].
    pub async fn put(&self, vault: &str, records: Vec<NewRecord>) -> Result<()> {
        self.run(vault, true, move |front, vault| front.put(vault, records).map(|_| ())).await
    }

    /// Deletes a record; durable on this device when it returns. One that is not there is no error.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn delete(&self, vault: &str, record_type: &str, name: &[u8]) -> Result<()> {
        self.put(vault, vec![deletion(record_type, name)]).await
    }

    /// A record by type and name, as it stands here; none if it is not there.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] if there is no such vault; [`ClientError::Incomplete`] if it is not here yet.
    pub async fn get(&self, vault: &str, record_type: &str, name: &[u8]) -> Result<Option<Record>> {
        let (record_type, name) = (record_type.to_owned(), name.to_vec());
        self.run(vault, false, move |front, vault| front.get(vault, &record_type, &name)).await
    }

    /// The same by id, as events tell it.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn read(&self, vault: &str, record: RecordId) -> Result<Option<Record>> {
        self.run(vault, false, move |front, vault| front.read(vault, record)).await
    }

    /// Records of a type, ascending by name.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn list(&self, vault: &str, record_type: &str) -> Result<Vec<Record>> {
        let record_type = record_type.to_owned();
        self.run(vault, false, move |front, vault| front.list(vault, &record_type)).await
    }

    /// Committed versions of a record, newest first. Authors and times are here; contents of old versions are at the
    /// server.
    ///
    /// # Errors
    /// As [`Self::get`], and [`ClientError::Damaged`].
    pub async fn history(&self, vault: &str, record_type: &str, name: &[u8]) -> Result<Vec<Version>> {
        let (record_type, name) = (record_type.to_owned(), name.to_vec());
        self.run(vault, false, move |front, vault| front.history(vault, &record_type, &name)).await
    }

    /// Writes an old version as the newest one; durable on this device when it returns. The one call here that may ask the
    /// server, because an old version's contents are there; other calls go on meanwhile.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::Usage`] if the version is a deletion, [`ClientError::Unreachable`],
    /// [`ClientError::Incomplete`] if the server withholds it.
    pub async fn restore(
        &self,
        vault: &str,
        record_type: &str,
        name: &[u8],
        revision: Revision,
    ) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        let (place, record_type, name) = (vault.to_owned(), record_type.to_owned(), name.to_vec());
        let commands = self.commands.clone();
        let work = move |hands: std::rc::Rc<std::cell::RefCell<command::Hands>>| {
            let work = async move {
                let apart = hands.borrow_mut().with(|front| front.vault_apart(&place))?;
                let record = version_as_new(&apart, &record_type, &name, revision).await?;
                drop(apart);
                let id = hands.borrow_mut().with(|front| front.put(&place, vec![record]))?;
                let (noted, is_noted) = oneshot::channel();
                let _ = commands.send(Command::Wrote(id, noted)).await;
                let _ = is_noted.await;
                Ok(())
            };
            let told = async move {
                let _ = reply.send(work.await);
            };
            let told: command::LocalFuture = Box::pin(told);
            told
        };
        self.send(Command::Spawn(Box::new(work))).await?;
        answer.await.map_err(|_| ended())?
    }

    /// Makes a vault if there is none of this name. The server is asked first, so that two devices do not make two.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::Usage`] for a name that can not be used. While sync is paused it waits.
    pub async fn create_vault(&self, name: &str) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Create(name.to_owned(), reply)).await?;
        answer.await.map_err(|_| ended())?
    }

    /// What changes from now on, own writes included. A subscriber who is more than [`Settings::events_max`] events
    /// behind is told that it lagged.
    pub fn subscribe(&self) -> Subscription {
        Subscription(self.events.upgrade().map(|events| events.subscribe()))
    }

    /// How sync stands: now, and as it changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Syncs everything now, also what waits for a person or for its time; gives the status once everything was tried.
    /// Who does not want to wait for that may drop the future. While sync is paused nothing is done.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if sync ended.
    pub async fn sync_now(&self) -> Result<Status> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::SyncNow(reply)).await?;
        answer.await.map_err(|_| ended())
    }

    /// Stops all traffic, also what is under way; what was sent is not lost. Reading and writing go on.
    ///
    /// # Errors
    /// As [`Self::sync_now`].
    pub async fn pause(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Pause(reply)).await?;
        answer.await.map_err(|_| ended())
    }

    /// Goes on after a pause, and syncs everything at once.
    ///
    /// # Errors
    /// As [`Self::sync_now`].
    pub async fn resume(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Resume(reply)).await?;
        answer.await.map_err(|_| ended())
    }

    /// Says whether the network is metered from now on, as [`Settings::metered`].
    ///
    /// # Errors
    /// As [`Self::sync_now`].
    pub async fn set_metered(&self, every: Option<Duration>) -> Result<()> {
        self.send(Command::Metered(every)).await
    }

    /// Ends sync for all handles; when it returns the home is free.
    pub async fn close(mut self) {
        let _ = self.commands.send(Command::End).await;
        while self.gone.changed().await.is_ok() {}
    }
}
