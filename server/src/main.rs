//! The `lockstep-server` program.

use clap::{Parser, Subcommand};
use lockstep_server::Server;
use lockstep_server::config::{Config, VARIABLES};
use lockstep_server::http::open_store;
use std::path::PathBuf;
use std::process::ExitCode;

/// End-to-end encrypted backup and sync: the server. It stores ciphertext and can not read it.
#[derive(Parser)]
#[command(name = "lockstep-server", version, after_help = after_help())]
struct Cli {
    /// Settings file (TOML); environment variables go before it.
    #[arg(long, global = true, env = "LOCKSTEP_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve. With nothing configured: on 127.0.0.1:8484, everything in ./lockstep-data.
    Serve,
    /// Bring the database's schema up to date and end.
    Migrate,
    /// Read the settings, say what they come to, and end.
    CheckConfig,
    /// Print a new invite code, good for one registration within seven days. With SQLite the server must be stopped.
    Invite,
}

fn after_help() -> String {
    let list: Vec<String> =
        VARIABLES.iter().map(|(variable, key)| format!("  {variable} (file: {key})")).collect();
    format!(
        "Settings:\n{}\n\nLOCKSTEP_LOG sets the log filter (default: info).\n\
         Exit status: 0 done, 1 failed, 2 wrong usage or wrong setting.",
        list.join("\n")
    )
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match Config::load(cli.config.as_deref(), |name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(error) => return complain(&error.to_string(), 2),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error.to_string(), 1),
    };
    let done = runtime.block_on(async {
        match cli.command {
            Command::Serve => serve(&config).await,
            Command::Migrate => migrate(&config).await,
            Command::CheckConfig => {
                check_config(&config);
                Ok(())
            }
            Command::Invite => invite(&config).await,
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("{error:#}"), 1),
    }
}

#[expect(clippy::print_stderr, reason = "a program speaks to its user")]
fn complain(text: &str, status: u8) -> ExitCode {
    eprintln!("lockstep-server: {text}");
    ExitCode::from(status)
}

#[expect(clippy::print_stdout, reason = "a program speaks to its user")]
fn say(text: &str) {
    println!("{text}");
}

fn start_log() {
    use tracing_subscriber::{EnvFilter, fmt};
    let filter = EnvFilter::try_from_env("LOCKSTEP_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn,hyper=warn"));
    fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .init();
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    start_log();
    // Before anybody is told that the server is there: from now on a signal ends it cleanly.
    let stop = stop_signal();
    let server = Server::bind(config).await?;
    say(&format!("listening on {} ({})", server.address().unwrap_or(config.listen), server.origin()));
    tracing::info!(address = %server.address().unwrap_or(config.listen), "serving");
    server.run(stop).await;
    tracing::info!("stopped");
    Ok(())
}

/// Listens for signals from now on; resolves at the first.
fn stop_signal() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut signals = Vec::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        match signal(kind) {
            Ok(signal) => signals.push(signal),
            Err(error) => tracing::warn!(%error, "a signal can not be listened for"),
        }
    }
    async move {
        let mut waiting: futures_util::stream::FuturesUnordered<_> =
            signals.iter_mut().map(tokio::signal::unix::Signal::recv).collect();
        if futures_util::StreamExt::next(&mut waiting).await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

async fn migrate(config: &Config) -> anyhow::Result<()> {
    let (store, _lock) = open_store(config).await?;
    store.close().await;
    say("the database is up to date");
    Ok(())
}

fn check_config(config: &Config) {
    say(&format!(
        "listen: {}\ndata: {}\ndatabase: {}\nobjects: {}\npublic url: {}\nregistration: {:?}",
        config.listen,
        config.data.display(),
        config.database,
        config.objects.display(),
        config.public_url.as_deref().unwrap_or("(the listening address)"),
        config.registration,
    ));
}

async fn invite(config: &Config) -> anyhow::Result<()> {
    use lockstep_proto::{Digest, label};
    const TTL_SECONDS: u64 = 7 * 24 * 3600;
    let (store, _lock) = open_store(config).await?;
    let secret: [u8; 16] = lockstep_server::domain::opaque::random_bytes();
    let code = lockstep_proto::BlobId::from_bytes(secret).to_string();
    let expires_utc = lockstep_server::time::now_utc().saturating_add(TTL_SECONDS);
    store.put_invite(Digest::of(label::LOCAL_SESSION, code.as_bytes()), expires_utc).await?;
    store.close().await;
    say(&code);
    Ok(())
}
