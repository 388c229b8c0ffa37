//! Driving an engine: carrying out its effects over the replica and HTTP.

use crate::api::Api;
use crate::error::{ClientError, Result};
use crate::replica::VaultReplica;
use crate::rng;
use lockstep_engine::engine::Setup;
use lockstep_engine::{Answer, Effect, Env, Event, Failure, Input, NewRecord, Request, VaultEngine};
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::vault::{Entries, GetEnvelopes, Page, Pushed, StageEnvelopes, StagedEnvelopes};
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::id::{BlobId, Epoch, RecordId, Seq, VaultId};
use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Fetches and verifies what the device log has grown by.
pub(crate) struct DeviceLogSource {
    pub(crate) api: Arc<Api>,
    pub(crate) db: std::rc::Rc<crate::replica::Db>,
}

impl DeviceLogSource {
    async fn refresh(&self, known: &DeviceLog) -> Result<Arc<DeviceLog>> {
        crate::account::refresh_log(&self.api, &self.db, known).await.map(|(log, _)| Arc::new(log))
    }
}

/// A vault at work.
pub struct Vault {
    pub(crate) engine: VaultEngine,
    pub(crate) replica: VaultReplica,
    pub(crate) setup: Setup,
    pub(crate) checked: RefCell<crate::past::Checked>,
    api: Arc<Api>,
    devices: DeviceLogSource,
    /// Whether envelopes that nobody has are left absent.
    gaps: bool,
}

/// Set when another copy of this home was met: nothing is written any more until it has a new identity.
pub(crate) const CLONED: &str = "cloned";

impl Vault {
    pub(crate) fn new(setup: Setup, log: Arc<DeviceLog>, replica: VaultReplica, api: Arc<Api>) -> Self {
        let devices = DeviceLogSource { api: Arc::clone(&api), db: std::rc::Rc::clone(replica.db()) };
        let engine = VaultEngine::new(setup.clone(), log);
        Self { engine, replica, setup, checked: RefCell::default(), api, devices, gaps: false }
    }

    /// The same vault; from now on its commits may name objects that the server lost.
    pub(crate) fn healing(self) -> Self {
        let log = Arc::clone(self.engine.devices());
        Self::new(Setup { heals: true, ..self.setup }, log, self.replica, self.api)
    }

    /// From now on takes commits under epochs up to this one although their keys are not here.
    pub(crate) fn take_unreadable(&mut self, epoch: Epoch) {
        self.setup.unreadable = Some(epoch);
        self.renew_engine();
    }

    /// From now on envelopes that do not come are left absent, and named by who reads.
    pub(crate) fn with_gaps(mut self) -> Self {
        self.gaps = true;
        self.renew_engine();
        self
    }

    pub(crate) fn renew_engine(&mut self) {
        self.engine = VaultEngine::new(self.setup.clone(), Arc::clone(self.engine.devices()));
        if self.gaps {
            self.engine.allow_gaps();
        }
    }

    /// The replica.
    pub fn replica(&self) -> &VaultReplica {
        &self.replica
    }

    /// The setup: keys and birth.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The server.
    pub fn api(&self) -> &Arc<Api> {
        &self.api
    }

    /// The device log as this vault's engine knows it.
    pub fn device_log(&self) -> &Arc<DeviceLog> {
        self.engine.devices()
    }

    /// Writes records durably here; they are sent by [`Self::sync`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put(&mut self, records: Vec<NewRecord>) -> Result<()> {
        self.drive(Input::Put(records)).await?;
        Ok(())
    }

    /// Sends the objects of pending writes, pulls, then pushes everything that is pending. Beyond the account's quota,
    /// deletions are pushed all the same.
    ///
    /// # Errors
    /// [`ClientError`]; pending writes are kept.
    pub async fn sync(&mut self) -> Result<Vec<Event>> {
        self.push(Input::Sync).await
    }

    /// The same of a vault that was pulled before: a small change is sent without asking first what is new; the answer
    /// tells if the head moved on.
    ///
    /// # Errors
    /// [`ClientError`]; pending writes are kept.
    pub async fn send(&mut self) -> Result<Vec<Event>> {
        self.push(Input::Send).await
    }

    async fn push(&mut self, input: Input) -> Result<Vec<Event>> {
        match self.push_with_objects(input).await {
            Err(error @ ClientError::QuotaExceeded(_)) => {
                self.drive(Input::Deletions).await?;
                Err(error)
            }
            Ok(events) => {
                self.evict()?;
                Ok(events)
            }
            other => other,
        }
    }

    async fn push_with_objects(&mut self, input: Input) -> Result<Vec<Event>> {
        let mut input = input;
        let mut again = BTreeSet::new();
        loop {
            self.send_objects().await?;
            let error = match self.drive(input).await {
                Err(error) if error.code() == Some(Code::MissingObject) => error,
                other => return other,
            };
            let ClientError::Refused { names, .. } = &error else { return Err(error) };
            let blobs: Vec<BlobId> = names.iter().filter_map(|name| name.parse().ok()).collect();
            // The server lost, or never kept, what it had taken: once more, if it is here still.
            if !blobs.iter().all(|blob| again.insert(*blob)) || !self.wait_again(&blobs)? {
                return Err(error);
            }
            input = Input::Sync;
        }
    }

    /// Pulls without signing or sending anything.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn pull(&mut self) -> Result<Vec<Event>> {
        self.drive(Input::Pull).await
    }

    /// The server's head is another than the one that was verified here, and not behind it: takes over a repair that
    /// says why, and pulls.
    ///
    /// # Errors
    /// [`ClientError::Fork`] if there is none.
    pub async fn follow_repair(&mut self) -> Result<Vec<Event>> {
        self.drive(Input::Seek).await
    }

    /// Takes back pending writes that name objects which are not at the server any more; the caller, who has
    /// the contents, uploads and writes them again.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn abandon(&mut self, blobs: Vec<BlobId>) -> Result<()> {
        self.drive(Input::Abandon(blobs)).await?;
        Ok(())
    }

    pub(crate) async fn drive(&mut self, input: Input) -> Result<Vec<Event>> {
        if self.replica.db().meta(CLONED)?.is_some() {
            return Err(ClientError::Cloned("noticed before".into()));
        }
        let is_sync = matches!(input, Input::Sync | Input::Send | Input::Pull | Input::Fetch(_));
        let done = self.drive_to_the_end(input).await;
        if is_sync && done.is_ok() {
            // Another device may have changed them.
            self.load_policies()?;
        }
        if done.is_err() {
            // The engine may still wait for an answer that will not come; everything durable is in the replica.
            self.renew_engine();
        }
        if let Err(ClientError::Cloned(_)) = &done {
            self.replica.db().set_meta(CLONED, b"1")?;
        }
        done
    }

    async fn drive_to_the_end(&mut self, input: Input) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        let mut inputs = VecDeque::from([input]);
        let mut early: Option<Early> = None;
        while let Some(input) = inputs.pop_front() {
            let mut generator = rng::system();
            let mut env = Env { utc_ms: rng::now_ms(), rng: &mut generator };
            // What a step reads is of one moment, and locked once.
            let reading = self.replica.db().connection().unchecked_transaction()?;
            let effects = self.engine.step(&self.replica, &mut env, input);
            drop(reading);
            for effect in effects {
                match effect {
                    Effect::Write(id, ops) => {
                        early = self.engine.asks_next().and_then(|request| self.send_early(request));
                        self.replica.apply(&ops)?;
                        inputs.push_back(Input::Written(id));
                    }
                    Effect::Send(id, request) => {
                        let answer = match early.take().filter(|early| early.request == request) {
                            Some(early) => early.answer().await?,
                            None => self.carry_out_and_seal_ahead(request).await?,
                        };
                        inputs.push_back(Input::Answered(id, answer));
                    }
                    Effect::Report(Event::Stopped(error)) => return Err(error.into()),
                    Effect::Report(Event::Paused(failure)) => return Err(paused(failure)),
                    Effect::Report(event) => {
                        // Never more than one round's envelopes of what is not to be held.
                        if matches!(event, Event::Pulled { .. }) {
                            self.evict()?;
                        }
                        events.push(event);
                    }
                }
            }
        }
        Ok(events)
    }

    /// Sends the request for the next commits while the last ones are still being written.
    fn send_early(&self, request: Request) -> Option<Early> {
        let Request::Commits { after } = request else { return None };
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        let (api, vault) = (Arc::clone(&self.api), self.setup.vault());
        Some(Early { request, task: runtime.spawn(async move { commits(&api, vault, after).await }) })
    }

    /// Sends a request; while a commit is on its way, the next one is sealed.
    async fn carry_out_and_seal_ahead(
        &mut self,
        request: Request,
    ) -> Result<std::result::Result<Answer, Failure>> {
        let is_commit = matches!(request, Request::Push(_));
        let log = Arc::clone(self.engine.devices());
        let sending = carry_out(&self.api, &self.devices, &log, self.setup.vault(), request);
        if !is_commit {
            return sending.await;
        }
        let (engine, replica) = (&mut self.engine, &self.replica);
        let sealing = async {
            // The request leaves first.
            tokio::task::yield_now().await;
            let reading = replica.db().connection().unchecked_transaction()?;
            let mut generator = rng::system();
            engine.seal_ahead(replica, &mut Env { utc_ms: rng::now_ms(), rng: &mut generator });
            drop(reading);
            Ok::<(), ClientError>(())
        };
        let (answer, sealed) = tokio::join!(sending, sealing);
        sealed?;
        answer
    }
}

/// A request for commits that was sent before it was its turn.
struct Early {
    request: Request,
    task: tokio::task::JoinHandle<Result<Page>>,
}

impl Early {
    async fn answer(mut self) -> Result<std::result::Result<Answer, Failure>> {
        match (&mut self.task).await {
            Ok(page) => Ok(Ok(Answer::Page(page?))),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(ClientError::Busy("the program is stopping".into())),
            },
        }
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn commits(api: &Api, vault: VaultId, after: Option<Seq>) -> Result<Page> {
    let query = after.map_or_else(String::new, |after| format!("?after={after}"));
    api.get(&format!("/v1/vaults/{vault}/commits{query}")).await
}

/// Sends a request. Errors that end the whole run are errors; what the engine decides about is an answer.
async fn carry_out(
    api: &Api,
    devices: &DeviceLogSource,
    log: &DeviceLog,
    vault: VaultId,
    request: Request,
) -> Result<std::result::Result<Answer, Failure>> {
    let base = format!("/v1/vaults/{vault}");
    let answer = match request {
        Request::Commits { after } => Answer::Page(commits(api, vault, after).await?),
        Request::State { after, upto, from } => {
            let page: Entries = api.get(&state_path(&base, after, upto, from)).await?;
            Answer::Entries(page.entries, page.more)
        }
        Request::Envelopes { places } => {
            let page: Entries = api.post(&format!("{base}/envelopes/get"), &GetEnvelopes(places)).await?;
            Answer::Entries(page.entries, page.more)
        }
        Request::Stage { envelopes } => {
            let _staged: StagedEnvelopes =
                api.post(&format!("{base}/envelopes"), &StageEnvelopes(envelopes)).await?;
            Answer::Staged
        }
        Request::Push(push) => {
            let pushed: Result<Pushed> = api.post(&format!("{base}/commits"), &push).await;
            match pushed {
                Ok(_) => Answer::Pushed,
                Err(ClientError::HeadMoved(page)) => Answer::HeadMoved(*page),
                Err(error) if error.code() == Some(Code::LogMoved) => {
                    return Err(ClientError::KeysBehind(format!("vault {vault} goes on under another key")));
                }
                Err(error) if error.code() == Some(Code::MissingObject) => {
                    let ClientError::Refused { names, .. } = &error else { return Err(error) };
                    let blobs = names.iter().filter_map(|name| name.parse().ok()).collect();
                    return Ok(Err(Failure::MissingObjects(blobs)));
                }
                Err(error) => return Err(error),
            }
        }
        Request::DeviceLog => Answer::DeviceLog(devices.refresh(log).await?),
    };
    Ok(Ok(answer))
}

fn state_path(base: &str, after: Option<Seq>, upto: Seq, from: Option<(Seq, RecordId)>) -> String {
    use std::fmt::Write as _;
    let mut path = format!("{base}/state?upto={upto}&current=true");
    if let Some(after) = after {
        let _ = write!(path, "&after={after}");
    }
    if let Some((seq, record)) = from {
        let _ = write!(path, "&from-seq={seq}&from-record={record}");
    }
    path
}

fn paused(failure: Failure) -> ClientError {
    match failure {
        Failure::MissingObjects(blobs) => ClientError::Refused {
            code: Some(Code::MissingObject),
            detail: "contents that a record names are not at the server; run: lockstep backup, again".into(),
            names: blobs.iter().map(ToString::to_string).collect(),
        },
        Failure::SignedOut => ClientError::SignedOut,
        Failure::Later(text) => ClientError::Busy(text),
        Failure::Refused(detail) => ClientError::Refused { code: None, detail, names: Vec::new() },
    }
}
