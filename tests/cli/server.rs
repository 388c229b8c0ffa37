//! The real server as a process of its own.

use crate::program::{command, poll};
use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, ExitStatus, Stdio};

/// `lockstep-server serve` on loopback. Killed when it is dropped.
pub(crate) struct Server {
    pub(crate) data: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) origin: String,
    address: String,
    settings: Vec<(String, String)>,
    running: Option<(Child, BufReader<ChildStdout>)>,
}

impl Server {
    /// Starts a server below a folder, on a port of the system's choice.
    pub(crate) fn start(folder: &Path, settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let mut server = Self {
            data: folder.join("server"),
            log: folder.join("server.log"),
            origin: String::new(),
            address: "127.0.0.1:0".into(),
            settings,
            running: None,
        };
        server.restart();
        server
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    fn command(&self) -> std::process::Command {
        let mut command = command("lockstep-server");
        command.env("LOCKSTEP_DATA", &self.data).env("LOCKSTEP_LISTEN", &self.address);
        command.envs(self.settings.iter().map(|(key, value)| (key, value)));
        command
    }

    fn try_start(&mut self) -> bool {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut child =
            self.command().arg("serve").stdout(Stdio::piped()).stderr(log).spawn().expect("the server");
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let Some((address, origin)) =
            line.strip_prefix("listening on ").and_then(|rest| rest.trim().split_once(' '))
        else {
            child.wait().unwrap();
            return false;
        };
        address.clone_into(&mut self.address);
        origin.trim_matches(['(', ')']).clone_into(&mut self.origin);
        self.running = Some((child, out));
        true
    }

    /// Starts it again on the same data and port.
    pub(crate) fn restart(&mut self) {
        assert!(self.running.is_none());
        // Somebody's connection may hold the port for a moment.
        let started = poll(20, || self.try_start());
        assert!(started, "{}", std::fs::read_to_string(&self.log).unwrap_or_default());
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Ends it as a service manager does.
    pub(crate) fn stop(&mut self) -> Option<ExitStatus> {
        let (mut child, _) = self.running.take()?;
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        if !poll(30, || child.try_wait().unwrap().is_some()) {
            child.kill().unwrap();
            panic!("the server does not stop");
        }
        Some(child.wait().unwrap())
    }

    /// Tells it that its files changed.
    pub(crate) fn hang_up(&self) {
        let (child, _) = self.running.as_ref().unwrap();
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }

    /// Another command of the server's program on the same data.
    pub(crate) fn run(&self, folder: &Path, arguments: &[&str]) -> crate::program::Done {
        let mut command = self.command();
        command.args(arguments);
        crate::program::Running::start(command, folder, "").done()
    }

    /// The database; for reading while it runs, for damage while it does not.
    pub(crate) fn database(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.data.join("lockstep.sqlite")).unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        connection
    }

    /// A copy of the database and of the bucket, as a careful owner makes them: while nothing runs.
    pub(crate) fn back_up(&mut self, to: &Path) {
        self.stop();
        std::fs::create_dir_all(to).unwrap();
        crate::tree::copy(&self.data, &to.join("whole"));
        self.restart();
    }

    /// Puts a copy of the database back, of the bucket, or of both.
    pub(crate) fn put_back(&mut self, from: &Path, database: bool, objects: bool) {
        self.stop();
        let copy = from.join("whole");
        if database {
            for name in ["lockstep.sqlite", "lockstep.sqlite-wal", "lockstep.sqlite-shm"] {
                let _ = std::fs::remove_file(self.data.join(name));
                if copy.join(name).exists() {
                    std::fs::copy(copy.join(name), self.data.join(name)).unwrap();
                }
            }
        }
        if objects {
            std::fs::remove_dir_all(self.objects()).unwrap();
            if copy.join("objects").exists() {
                crate::tree::copy(&copy.join("objects"), &self.objects());
            }
        }
        self.restart();
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.data.join("objects")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
