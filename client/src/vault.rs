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
use lockstep_proto::id::{BlobId, Epoch, RecordId, Seq};
use std::cell::RefCell;
use std::collections::VecDeque;
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
    /// Whether the app that runs brought merge policies of its own.
    pub(crate) own_policies: bool,
}

/// Set when another copy of this home was met: nothing is written any more until it has a new identity.
pub(crate) const CLONED: &str = "cloned";

impl Vault {
    pub(crate) fn new(setup: Setup, log: Arc<DeviceLog>, replica: VaultReplica, api: Arc<Api>) -> Self {
        let devices = DeviceLogSource { api: Arc::clone(&api), db: std::rc::Rc::clone(replica.db()) };
        let engine = VaultEngine::new(setup.clone(), log);
        Self {
            engine,
            replica,
            setup,
            checked: RefCell::default(),
            api,
            devices,
            gaps: false,
            own_policies: false,
        }
    }

    /// The same vault; from now on its commits may name objects that the server lost.
    pub(crate) fn healing(self) -> Self {
        let log = Arc::clone(self.engine.devices());
        let own_policies = self.own_policies;
        let healing = Self::new(Setup { heals: true, ..self.setup }, log, self.replica, self.api);
        Self { own_policies, ..healing }
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

    /// Pulls, then pushes everything that is pending. Beyond the account's quota, deletions are pushed all the same.
    ///
    /// # Errors
    /// [`ClientError`]; pending writes are kept.
    pub async fn sync(&mut self) -> Result<Vec<Event>> {
        match self.drive(Input::Sync).await {
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
        let is_sync = matches!(input, Input::Sync | Input::Pull);
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
        while let Some(input) = inputs.pop_front() {
            let mut generator = rng::system();
            let mut env = Env { utc_ms: rng::now_ms(), rng: &mut generator };
            for effect in self.engine.step(&self.replica, &mut env, input) {
                match effect {
                    Effect::Write(id, ops) => {
                        self.replica.apply(&ops)?;
                        inputs.push_back(Input::Written(id));
                    }
                    Effect::Send(id, request) => {
                        let answer = self.carry_out(request).await?;
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

    /// Sends a request. Errors that end the whole run are errors; what the engine decides about is an answer.
    async fn carry_out(&self, request: Request) -> Result<std::result::Result<Answer, Failure>> {
        let base = format!("/v1/vaults/{}", self.setup.vault());
        let answer = match request {
            Request::Commits { after } => {
                let query = after.map_or_else(String::new, |after| format!("?after={after}"));
                let page: Page = self.api.get(&format!("{base}/commits{query}")).await?;
                Answer::Page(page)
            }
            Request::State { after, upto, from } => {
                let page: Entries = self.api.get(&state_path(&base, after, upto, from)).await?;
                Answer::Entries(page.entries, page.more)
            }
            Request::Envelopes { places } => {
                let page: Entries =
                    self.api.post(&format!("{base}/envelopes/get"), &GetEnvelopes(places)).await?;
                Answer::Entries(page.entries, page.more)
            }
            Request::Stage { envelopes } => {
                let _staged: StagedEnvelopes =
                    self.api.post(&format!("{base}/envelopes"), &StageEnvelopes(envelopes)).await?;
                Answer::Staged
            }
            Request::Push(push) => {
                let pushed: Result<Pushed> = self.api.post(&format!("{base}/commits"), &push).await;
                match pushed {
                    Ok(_) => Answer::Pushed,
                    Err(ClientError::HeadMoved(page)) => Answer::HeadMoved(*page),
                    Err(error) if error.code() == Some(Code::LogMoved) => {
                        return Err(ClientError::KeysBehind(format!(
                            "vault {} goes on under another key",
                            self.setup.vault()
                        )));
                    }
                    Err(error) if error.code() == Some(Code::MissingObject) => {
                        let ClientError::Refused { names, .. } = &error else { return Err(error) };
                        let blobs = names.iter().filter_map(|name| name.parse().ok()).collect();
                        return Ok(Err(Failure::MissingObjects(blobs)));
                    }
                    Err(error) => return Err(error),
                }
            }
            Request::DeviceLog => Answer::DeviceLog(self.devices.refresh(self.engine.devices()).await?),
        };
        Ok(Ok(answer))
    }
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
