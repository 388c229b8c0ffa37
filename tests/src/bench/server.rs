//! The server program, on one of its back ends.

use super::figures::line;
use crate::postgres::Cluster;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What the server stores in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BackEnd {
    Sqlite,
    Postgres,
}

/// A running server.
pub(super) struct Server {
    child: Child,
    pub(super) origin: String,
    /// Removed after the server has stopped.
    _cluster: Option<Cluster>,
}

/// Beside this program, where cargo puts it.
fn program() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("lockstep-server")
}

impl Server {
    pub(super) fn start(folder: &Path, back_end: BackEnd) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let cluster = (back_end == BackEnd::Postgres).then(Cluster::start);
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut command = Command::new(program());
        command
            .arg("serve")
            .env("LOCKSTEP_LISTEN", "127.0.0.1:0")
            .env("LOCKSTEP_DATA", folder.join("data"))
            .env("LOCKSTEP_LOG", "warn")
            .stdout(Stdio::piped())
            .stderr(log);
        if let Some(cluster) = &cluster {
            command.env("LOCKSTEP_DATABASE_URL", cluster.database());
        }
        let mut child = command.spawn().expect("lockstep-server beside this program; build it first");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let origin =
            line.split(['(', ')']).nth(1).unwrap_or_else(|| panic!("the server says: {line}")).to_owned();
        Self { child, origin, _cluster: cluster }
    }

    pub(super) fn say_peak(&self, when: &str) {
        line(&format!("{:52} {:10.1} MiB", format!("server's peak resident memory {when}"), self.peak_mib()));
    }

    /// The most memory that it ever had resident.
    fn peak_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
