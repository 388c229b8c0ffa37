//! The real server as a process of its own.

use crate::back_end::BackEnd;
use crate::program::{command, poll};
use crate::tree::files;
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
    back_end: BackEnd,
    running: Option<(Child, BufReader<ChildStdout>)>,
}

impl Server {
    /// Starts a server below a folder, on a port of the system's choice.
    pub(crate) fn start(folder: &Path, settings: &[(&str, &str)]) -> Self {
        let mut settings =
            settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let back_end = BackEnd::new(folder, &mut settings);
        let mut server = Self {
            data: folder.join("server"),
            log: folder.join("server.log"),
            origin: String::new(),
            address: "127.0.0.1:0".into(),
            settings,
            back_end,
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

    /// The database, for reading. It may be a copy: what changes later is not in it.
    pub(crate) fn database(&self) -> rusqlite::Connection {
        self.back_end.database()
    }

    /// Deletes or updates rows behind the server's back, in SQL that SQLite and PostgreSQL know; gives how many.
    #[track_caller]
    pub(crate) fn change(&self, statement: &str) -> usize {
        self.back_end.change(statement)
    }

    /// Bytes as they are written in a statement.
    pub(crate) fn literal(&self, bytes: &[u8]) -> String {
        self.back_end.literal(bytes)
    }

    /// A copy of the database and of the bucket, as a careful owner makes them: while nothing runs.
    pub(crate) fn back_up(&mut self, to: &Path) {
        self.stop();
        self.back_end.back_up(to);
        self.restart();
    }

    /// Puts a copy of the database back, of the bucket, or of both.
    pub(crate) fn put_back(&mut self, from: &Path, database: bool, objects: bool) {
        self.stop();
        if database {
            self.back_end.put_back_database(Some(from));
        }
        if objects {
            self.back_end.put_back_objects(Some(from));
        }
        self.restart();
    }

    /// Loses all that it has.
    pub(crate) fn lose_everything(&mut self) {
        self.stop();
        self.back_end.put_back_database(None);
        self.back_end.put_back_objects(None);
        self.restart();
    }

    /// Files in which something of the server lies.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.back_end.files()
    }

    /// Files of a server that stopped in which nothing that was replaced may lie.
    pub(crate) fn vacuumed_files(&self) -> Vec<PathBuf> {
        self.back_end.vacuumed_files()
    }

    /// Where the objects lie.
    pub(crate) fn objects(&self) -> PathBuf {
        self.back_end.objects()
    }

    /// Files of objects; the folder's mark is none.
    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let mut files = files(&self.objects());
        files.retain(|path| !path.ends_with(lockstep_server::objects::local::MARKER));
        files
    }

    /// Starts one more server below a folder, on the same database and objects.
    pub(crate) fn beside(&self, folder: &Path) -> Self {
        let mut settings = self.settings.clone();
        if !settings.iter().any(|(key, _)| key == "LOCKSTEP_OBJECTS") {
            settings.push(("LOCKSTEP_OBJECTS".into(), self.objects().to_str().unwrap().to_owned()));
        }
        let settings: Vec<_> = settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        Self::start(folder, &settings)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
