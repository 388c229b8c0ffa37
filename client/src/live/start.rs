//! Starting the thread that a home's sync lives on. What it works with is not for several threads; the handle is.

use super::Live;
use super::back::{Back, Whose};
use super::command::{Command, Hands};
use super::event::Event;
use super::follow::Follow;
use super::front::Front;
use super::settings::Settings;
use super::status::Status;
use super::worker::Worker;
use crate::account::Account;
use crate::error::{ClientError, Result};
use crate::home::Home;
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Commands that wait for their turn; who has one more waits, too.
const COMMANDS_MAX: usize = 64;

pub(super) async fn start(home: PathBuf, insecure_http: bool, settings: Settings) -> Result<Live> {
    let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
    let (events, _) = broadcast::channel(settings.events_max.clamp(1, 1 << 20));
    let (status_sender, status) = watch::channel(Status::new());
    let (here, gone) = watch::channel(());
    let weak = events.downgrade();
    let (ready, answer) = oneshot::channel();
    let thread = move || {
        live(home, insecure_http, &settings, events, status_sender, ready, receiver);
        drop(here);
    };
    std::thread::Builder::new()
        .name("lockstep-live".into())
        .spawn(thread)
        .map_err(|error| ClientError::io("thread", error))?;
    let started = answer.await;
    started.map_err(|_| ClientError::Usage("sync could not be started".into()))??;
    Ok(Live { commands, status, events: weak, gone })
}

fn live(
    home: PathBuf,
    insecure_http: bool,
    settings: &Settings,
    events: broadcast::Sender<Event>,
    status: watch::Sender<Status>,
    ready: oneshot::Sender<Result<()>>,
    commands: mpsc::Receiver<Command>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(ClientError::io("runtime", error)));
            return;
        }
    };
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        match set_up(home, insecure_http, settings, events, status) {
            Ok(worker) => {
                let _ = ready.send(Ok(()));
                worker.run(commands).await;
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    });
}

fn set_up(
    home: PathBuf,
    insecure_http: bool,
    settings: &Settings,
    events: broadcast::Sender<Event>,
    status: watch::Sender<Status>,
) -> Result<Worker> {
    if !home.join("account").exists() {
        return Err(ClientError::NoAccount(home));
    }
    let opened = match Home::open(&home) {
        Err(ClientError::Locked(_)) if settings.shares_home => Home::open_read_only(&home),
        other => other?,
    };
    let mut account = Account::open(opened, insecure_http)?;
    account.policies.clone_from(&settings.policies);
    let mut follow = Follow::new(events, account.device_id());
    follow.begin(&account)?;
    let follow = Rc::new(RefCell::new(follow));
    let api = Arc::clone(account.api());
    let whose = Whose { home, insecure_http, policies: settings.policies.clone() };
    let (front, back) = if settings.shares_home {
        (None, Back::Shared(whose.clone()))
    } else {
        let front = Front::new(account.beside()?, Rc::clone(&follow));
        (Some(front), Back::Kept(Box::new(account)))
    };
    let hands = Rc::new(RefCell::new(Hands::new(whose, Rc::clone(&follow), front)));
    Ok(Worker::new(settings, back, hands, follow, api, status))
}
