//! Measuring sync: the real client library against the real server program, over loopback. Every figure is a median with
//! its range, and what was pulled is compared with what was pushed.

mod alone;
mod big;
mod crowd;
mod device;
mod figures;
mod reference;
mod server;

use server::{BackEnd, Server};
use std::path::PathBuf;

/// What is measured, and how much of it.
pub struct Plan {
    /// Documents of one push.
    pub documents: usize,
    /// Runs of each.
    pub runs: usize,
    /// Documents of the big vault; 0: none.
    pub big: usize,
    /// Clients at once, each with its own vault; 0: none.
    pub clients: usize,
    /// Devices at once in one vault; 0: none.
    pub devices: usize,
    /// Commits of each of them.
    pub commits: usize,
    /// Measure on PostgreSQL, too.
    pub postgres: bool,
    /// Where to work.
    pub folder: Option<PathBuf>,
}

impl Plan {
    /// As the environment says.
    ///
    /// # Panics
    /// If a variable is no number.
    pub fn from_environment() -> Self {
        let number = |name: &str, default: usize| {
            std::env::var(name)
                .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
        };
        Self {
            documents: number("DOCUMENTS", 10_000),
            runs: number("RUNS", 5),
            big: number("BIG", 1_000_000),
            clients: number("CLIENTS", 64),
            devices: number("DEVICES", 16),
            commits: number("COMMITS", 100),
            postgres: number("POSTGRES", 1) == 1,
            folder: std::env::var_os("BENCH_DIR").map(PathBuf::from),
        }
    }
}

/// A folder of this process, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(folder: Option<&PathBuf>) -> Self {
        let folder = folder.cloned().unwrap_or_else(std::env::temp_dir);
        let path = folder.join(format!("lockstep-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Measures and prints.
///
/// # Panics
/// If anything fails, or what was pulled is not what was pushed.
pub fn run(plan: &Plan) {
    let scratch = Scratch::new(plan.folder.as_ref());
    reference::measure(&scratch.0, plan.runs);
    figures::heading("Sync, SQLite");
    let server = Server::start(&scratch.0.join("sqlite"), BackEnd::Sqlite);
    let single = alone::throughput(plan, &scratch.0.join("alone"), &server);
    alone::latency(plan, &scratch.0.join("latency"), &server);
    server.say_peak("until here");
    crowd::vaults(plan, &scratch.0.join("crowd"), &server, single);
    server.say_peak("with many clients");
    crowd::one_vault(plan, &scratch.0.join("one"), &server);
    big::measure(plan, &scratch.0.join("big"), &server);
    server.say_peak("through all of it");
    drop(server);
    if plan.postgres {
        figures::heading("Sync, PostgreSQL");
        let server = Server::start(&scratch.0.join("postgres"), BackEnd::Postgres);
        let single = alone::throughput(plan, &scratch.0.join("alone-postgres"), &server);
        alone::latency(plan, &scratch.0.join("latency-postgres"), &server);
        crowd::vaults(plan, &scratch.0.join("crowd-postgres"), &server, single);
        crowd::one_vault(plan, &scratch.0.join("one-postgres"), &server);
        server.say_peak("through all of it");
    }
}
