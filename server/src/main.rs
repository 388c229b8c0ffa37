//! The `lockstep-server` program.

use clap::{Parser, Subcommand};
use lockstep_proto::size::size_text;
use lockstep_server::Server;
use lockstep_server::admin;
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
    Serve {
        /// Encrypt connections with this certificate chain (PEM); read again when it changes.
        #[arg(long, value_name = "FILE")]
        tls_cert: Option<PathBuf>,
        /// Private key of the certificate (PEM).
        #[arg(long, value_name = "FILE")]
        tls_key: Option<PathBuf>,
    },
    /// Bring the database's schema up to date and end.
    Migrate,
    /// Read the settings, say what they come to, and end.
    CheckConfig,
    /// Print a new invite code, good for one registration within seven days. With SQLite the server must be stopped.
    Invite,
    /// Show what an account uses and may use, or set its quota. With SQLite the server must be stopped.
    Quota {
        /// Account name.
        name: String,
        /// Its own quota from now on, such as 10 GiB or 500 MB; none (no limit); default (LOCKSTEP_QUOTA).
        size: Option<String>,
    },
    /// Count anew what every account uses and name each that is off. With SQLite the server must be stopped.
    CheckUsage {
        /// Set what is off right.
        #[arg(long)]
        mend: bool,
    },
}

fn after_help() -> String {
    let list: Vec<String> =
        VARIABLES.iter().map(|(variable, key)| format!("  {variable} (file: {key})")).collect();
    format!(
        "Settings:\n{}\n\nObjects lie in a folder or in s3://BUCKET/PREFIX. A bucket needs AWS_ACCESS_KEY_ID, \
         AWS_SECRET_ACCESS_KEY\nand AWS_REGION; AWS_SESSION_TOKEN, AWS_ENDPOINT_URL and AWS_ALLOW_HTTP are read too.\n\n\
         LOCKSTEP_LOG sets the log filter (default: info).\n\
         Exit status: 0 done, 1 failed, 2 wrong usage or wrong setting.",
        list.join("\n")
    )
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match Config::load(cli.config.as_deref(), |name| setting(&cli.command, name)) {
        Ok(config) => config,
        Err(error) => return complain(&error.to_string(), 2),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error.to_string(), 1),
    };
    let done = runtime.block_on(async {
        match cli.command {
            Command::Serve { .. } => serve(&config).await,
            Command::Migrate => migrate(&config).await,
            Command::CheckConfig => {
                check_config(&config);
                Ok(())
            }
            Command::Invite => invite(&config).await,
            Command::Quota { name, size } => quota(&config, &name, size.as_deref()).await,
            Command::CheckUsage { mend } => check_usage(&config, mend).await,
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("{error:#}"), 1),
    }
}

/// A flag goes before the environment.
fn setting(command: &Command, name: &str) -> Option<String> {
    let flag = match (command, name) {
        (Command::Serve { tls_cert, .. }, "LOCKSTEP_TLS_CERT") => tls_cert.as_ref(),
        (Command::Serve { tls_key, .. }, "LOCKSTEP_TLS_KEY") => tls_key.as_ref(),
        _ => None,
    };
    flag.map(|file| file.display().to_string()).or_else(|| std::env::var(name).ok())
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
        "listen: {}\ndata: {}\ndatabase: {}\nobjects: {}\npublic url: {}\nregistration: {:?}\n\
         tls: {}\nquota: {}",
        config.listen,
        config.data.display(),
        config.database,
        config.objects,
        config.public_url.as_deref().unwrap_or("(the listening address)"),
        config.registration,
        config.tls.as_ref().map_or_else(|| "no".to_owned(), |files| files.cert.display().to_string()),
        config.quota.map_or_else(|| "none".to_owned(), size_text),
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

async fn quota(config: &Config, name: &str, size: Option<&str>) -> anyhow::Result<()> {
    let (store, _lock) = open_store(config).await?;
    let done = admin::quota(&*store, name, size).await;
    store.close().await;
    say(&done?);
    Ok(())
}

async fn check_usage(config: &Config, mend: bool) -> anyhow::Result<()> {
    let (store, _lock) = open_store(config).await?;
    let done = admin::check_usage(&*store, mend).await;
    store.close().await;
    say(&done?);
    Ok(())
}
