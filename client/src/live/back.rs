//! The side that talks to the server: one turn of one lane at a time.

use super::follow::{Follow, look};
use super::front::look_over;
use super::schedule::{End, Lane, Millis, Mode};
use super::settings::millis;
use super::status::VaultStatus;
use super::trouble::end_of;
use crate::account::Account;
use crate::error::{ClientError, Result};
use crate::home::Home;
use crate::live::event::Event;
use lockstep_merge::Policies;
use lockstep_proto::id::VaultId;
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long another process may write here before it is tried again.
const LOCKED_PAUSE: Duration = Duration::from_millis(500);

/// Whose account it is.
pub(crate) enum Back {
    /// Kept open.
    Kept(Box<Account>),
    /// Opened for each turn.
    Shared(Whose),
}

/// What an account is opened with.
#[derive(Clone)]
pub(crate) struct Whose {
    pub(crate) home: PathBuf,
    pub(crate) insecure_http: bool,
    pub(crate) policies: Option<Arc<Policies>>,
}

impl Whose {
    pub(crate) fn open(&self) -> Result<Account> {
        let mut account = Account::open(Home::open(&self.home)?, self.insecure_http)?;
        account.policies.clone_from(&self.policies);
        Ok(account)
    }

    /// Waits for other processes that write.
    async fn open_when_free(&self) -> Result<Account> {
        loop {
            match self.open() {
                Err(ClientError::Locked(_)) => tokio::time::sleep(LOCKED_PAUSE).await,
                other => return other,
            }
        }
    }
}

/// What a turn is about.
#[derive(Debug, Clone)]
pub(crate) enum Job {
    Lane(Lane, Mode),
    /// Makes a vault if there is none of this name.
    Create(String),
}

/// How a turn ended, and what was seen.
pub(crate) struct Ended {
    pub(crate) result: Result<()>,
    pub(crate) end: End,
    pub(crate) vaults: Option<Vec<VaultStatus>>,
}

impl Back {
    /// Does a turn. It may be dropped at any time: what is durable is in the replica.
    pub(crate) async fn run(mut self, job: Job, follow: Rc<RefCell<Follow>>) -> (Self, Ended) {
        let ended = match &mut self {
            Self::Kept(account) => turn(account, &job, &follow).await,
            Self::Shared(whose) => match whose.open_when_free().await {
                Ok(mut account) => turn(&mut account, &job, &follow).await,
                Err(error) => Ended { end: end_of(&error, false, None), result: Err(error), vaults: None },
            },
        };
        (self, ended)
    }
}

async fn turn(account: &mut Account, job: &Job, follow: &RefCell<Follow>) -> Ended {
    let result = match job {
        Job::Lane(Lane::Account, _) => whole_account(account, follow).await,
        Job::Lane(Lane::Vault(vault), mode) => one_vault(account, *vault, *mode, follow).await,
        Job::Create(name) => create(account, name).await,
    };
    let kept = follow.borrow_mut().saw(account.keyring()).and_then(|()| account.keep_session());
    let result = result.and(kept);
    let end = result.as_ref().err().map_or(End::Synced, |error| {
        let is_of_vault = match job {
            Job::Lane(Lane::Vault(vault), _) => account.is_of(*vault, error).unwrap_or(false),
            _ => false,
        };
        end_of(error, is_of_vault, asked(account))
    });
    Ended { result, end, vaults: look_over(account).ok() }
}

fn asked(account: &Account) -> Option<Millis> {
    account.api().asked_to_wait().map(millis)
}

/// Keyring and device log, and the server's heads against everything that is held; that pulls every vault.
async fn whole_account(account: &mut Account, follow: &RefCell<Follow>) -> Result<()> {
    account.refresh_keyring().await?;
    let pushed = unless_full(account.push_keyring().await);
    for entry in account.vaults()? {
        // What is wrong with one vault is told when it has its turn.
        if let Ok(vault) = account.open_held(entry.vault) {
            look(follow, &Arc::from(entry.name), &vault).await?;
        }
    }
    // Told once: only if somebody listens.
    if follow.borrow().events.receiver_count() > 0 {
        for device in account.new_devices()? {
            follow.borrow().tell(Event::DeviceJoined { name: device.name, id: device.id });
        }
    }
    pushed
}

async fn one_vault(account: &mut Account, id: VaultId, mode: Mode, follow: &RefCell<Follow>) -> Result<()> {
    let entry = account.vaults()?.into_iter().find(|entry| entry.vault == id);
    let Some(entry) = entry else { return Ok(()) };
    let name = Arc::from(entry.name);
    let mut vault = account.open_known(id).await?;
    let synced = match mode {
        Mode::Full => account.sync_vault(&mut vault).await,
        Mode::Pull => account.pull_vault(&mut vault).await.and_then(|()| {
            account.check_pins_of(&vault, true)?;
            account.check_late(&vault)
        }),
    };
    // Whatever became of the push: what was pulled is here.
    look(follow, &name, &vault).await?;
    if vault.conflict_count()? > 0 {
        // Some may only not have been looked at since the policies changed: that is noted. What goes wrong here is told to
        // who lists them, and ends no sync.
        drop(vault.conflicts());
    }
    synced?;
    unless_full(account.pin_heads(false).await)
}

async fn create(account: &mut Account, name: &str) -> Result<()> {
    account.sync_keyring().await?;
    let mut vault = account.open_vault(name, true).await?;
    account.sync_vault(&mut vault).await
}

/// Beyond the account's quota what the library writes by itself can wait.
fn unless_full(pushed: Result<()>) -> Result<()> {
    match pushed {
        Err(ClientError::QuotaExceeded(_)) => Ok(()),
        other => other,
    }
}
