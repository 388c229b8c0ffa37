//! The `lockstep` program: the reference companion app.

mod archive;
mod args;
mod backup;
mod conflicts;
mod heal;
mod input;
mod join;
mod look;
mod output;
mod owner;
mod pages;
mod past;
mod progress;
mod record;
mod select;
mod session;
mod watch;

use args::{Cli, Command, KitCommand, VaultCommand};
use clap::Parser as _;
use lockstep_client::account::Account;
use lockstep_client::home::Home;
use lockstep_client::{ClientError, error::Result};
use output::Output;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A command that writes waits so long for a home in which another one writes.
const HOME_WAIT: Duration = Duration::from_secs(5);
const HOME_PAUSE: Duration = Duration::from_millis(25);

/// What every command gets.
pub(crate) struct Context {
    pub(crate) home: PathBuf,
    pub(crate) insecure_http: bool,
    pub(crate) out: Output,
    pub(crate) stop: Arc<AtomicBool>,
    /// Whether the server could not be reached: then nothing more is tried.
    pub(crate) is_away: AtomicBool,
}

impl Context {
    /// Opens the home's account for writing. `lockstep watch` has the home for a moment at a time: it is waited for.
    pub(crate) fn account(&self) -> Result<Account> {
        let begin = Instant::now();
        loop {
            match self.account_now() {
                Err(ClientError::Locked(_))
                    if begin.elapsed() < HOME_WAIT && !self.stop.load(Ordering::Relaxed) =>
                {
                    std::thread::sleep(HOME_PAUSE);
                }
                done => return done,
            }
        }
    }

    fn account_now(&self) -> Result<Account> {
        if !self.home.join("account").exists() {
            return Err(ClientError::NoAccount(self.home.clone()));
        }
        Account::open(Home::open(&self.home)?, self.insecure_http)
    }

    /// Opens it for reading if another process writes; then nothing is synced.
    pub(crate) fn account_to_read(&self) -> Result<Account> {
        match self.account_now() {
            Err(ClientError::Locked(_)) => {
                self.out.note("another lockstep process is writing here: showing what this device holds");
                Account::open(Home::open_read_only(&self.home), self.insecure_http)
            }
            other => other,
        }
    }

    /// After a sync: keeps the session, and tells once of devices that joined since.
    pub(crate) fn synced(&self, account: &Account) -> Result<()> {
        account.keep_session()?;
        for device in account.new_devices()? {
            self.tell_device(&device.name, &device.id);
        }
        Ok(())
    }

    /// Tells of a device that joined.
    pub(crate) fn tell_device(&self, name: &str, id: &str) {
        let (name, id) = (output::shown(name.as_bytes()), output::short(id));
        self.out.note(&format!(
            "a new device joined this account: {name} ({id}); if it is not yours, run: lockstep device revoke {id}, \
             and then: lockstep passphrase change"
        ));
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let out = Output::new(cli.global.json);
    let home = match home_of(cli.global.home) {
        Ok(home) => home,
        Err(_) if cli.command.needs_no_home() => PathBuf::new(),
        Err(error) => return fail(&out, &error),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&out, &ClientError::io("runtime", error)),
    };
    let context = Context {
        home,
        insecure_http: cli.global.insecure_http,
        out,
        stop: Arc::clone(&stop),
        is_away: AtomicBool::new(false),
    };
    runtime.spawn(async move {
        // The first Ctrl-C ends the run cleanly, a second one at once.
        let _ = tokio::signal::ctrl_c().await;
        stop.store(true, Ordering::Relaxed);
        let _ = tokio::signal::ctrl_c().await;
        std::process::exit(output::INTERRUPTED.into());
    });
    match runtime.block_on(run(&context, cli.command)) {
        Ok(code) => code,
        Err(error) => fail(&context.out, &error),
    }
}

fn fail(out: &Output, error: &ClientError) -> ExitCode {
    out.error(error);
    ExitCode::from(output::status_of(error))
}

/// `--home`, `LOCKSTEP_HOME`, or the XDG data folder.
fn home_of(given: Option<PathBuf>) -> Result<PathBuf> {
    let base =
        |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    given
        .or_else(|| base("XDG_DATA_HOME").map(|folder| folder.join("lockstep")))
        .or_else(|| base("HOME").map(|folder| folder.join(".local/share/lockstep")))
        .ok_or_else(|| ClientError::Usage("say --home DIR: there is no HOME".into()))
}

async fn run(context: &Context, command: Command) -> Result<ExitCode> {
    match command {
        Command::Signup(args) => join::signup(context, args).await?,
        Command::Login(args) => join::login(context, args).await?,
        Command::Recover(args) => join::recover(context, args).await?,
        Command::Logout { wipe } => join::logout(context, wipe).await?,
        Command::Whoami => look::whoami(context)?,
        Command::Passphrase(command) => owner::passphrase(context, command).await?,
        Command::RecoveryKey(command) => owner::recovery_key(context, command).await?,
        Command::Device(command) => owner::device(context, command).await?,
        Command::Account(command) => owner::account(context, command).await?,
        Command::Vault(VaultCommand::Delete { name, unlock, yes }) => {
            owner::vault_delete(context, &name, &unlock, yes).await?;
        }
        Command::Vault(VaultCommand::Create { name }) => look::vault_create(context, &name).await?,
        Command::Vault(VaultCommand::Keep { name, days, types, all: _ }) => {
            select::keep(context, &name, days, types).await?;
        }
        Command::Vault(VaultCommand::List) => look::vault_list(context).await?,
        Command::Backup(args) => return backup::backup(context, args).await,
        Command::Snapshots { vault } => backup::snapshots(context, &vault).await?,
        Command::Ls(args) => backup::ls(context, args).await?,
        Command::Restore(args) => return backup::restore(context, args).await,
        Command::History(args) => past::history(context, args).await?,
        Command::Diff(args) => return past::diff(context, args).await,
        Command::Forget(args) => past::forget(context, args).await?,
        Command::Record(command) => record::run(context, command).await?,
        Command::Policy(command) => conflicts::policy(context, command).await?,
        Command::Conflicts(command) => conflicts::run(context, command).await?,
        Command::Session(command) => session::run(context, command).await?,
        Command::Status => look::status(context).await?,
        Command::Watch { vault } => return watch::watch(context, &vault).await,
        Command::Check { vault, read_data } => {
            return look::check(context, vault.as_deref(), read_data).await;
        }
        Command::Export(args) => return archive::export(context, args).await,
        Command::Import(args) => return archive::import(context, args).await,
        Command::Fingerprint => look::fingerprint(context).await?,
        Command::Heal(args) => return heal::heal(context, args).await,
        Command::Kit(KitCommand::Refresh { kit }) => join::refresh_kit(context, kit.as_deref()).await?,
        Command::Completions { shell } => pages::completions(shell)?,
        Command::Man { dir } => pages::man(&dir)?,
    }
    Ok(ExitCode::SUCCESS)
}
