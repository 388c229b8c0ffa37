//! A folder, a server in it, and devices that use it.

use crate::program::{Done, Running, command};
use crate::server::Server;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) const NAME: &str = "ada";
pub(crate) const PASSPHRASE: &str = "correct horse battery staple";

/// A folder that is removed when it is dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // A folder that an earlier failure left may have the same name.
        for _ in 0..1000 {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("lockstep-cli-{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Self(path),
                Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{}", path.display()),
            }
        }
        panic!("a thousand folders of failed tests are in the way");
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What a failed test leaves is looked at.
        if !std::thread::panicking() {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }
}

/// A server with its folder. The server ends first.
pub(crate) struct World {
    pub(crate) server: Server,
    folder: Folder,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    pub(crate) fn with(settings: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        let server = Server::start(folder.path(), settings);
        std::fs::write(folder.path().join("passphrase"), format!("{PASSPHRASE}\n")).unwrap();
        Self { server, folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path as an argument.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A file with one line.
    pub(crate) fn secret(&self, name: &str, line: &str) -> String {
        std::fs::write(self.path(name), format!("{line}\n")).unwrap();
        self.text(name)
    }

    /// A device with nothing in its home.
    pub(crate) fn device(&self, name: &str) -> Device {
        Device {
            home: self.path(&format!("home-{name}")),
            folder: self.folder.path().to_path_buf(),
            server: self.server.origin.clone(),
        }
    }

    /// The first device of the account, its kit in the file `kit`.
    pub(crate) fn signup(&self, name: &str) -> Device {
        let device = self.device(name);
        let (passphrase, kit) = (self.text("passphrase"), self.text("kit"));
        device.run(&["signup", "--name", NAME, "--passphrase-file", &passphrase, "--kit", &kit]).ok();
        device
    }

    /// One more device of the account.
    pub(crate) fn login(&self, name: &str) -> Device {
        let device = self.device(name);
        device.try_login(&self.text("passphrase")).ok();
        device
    }
}

/// A home and who uses it.
pub(crate) struct Device {
    pub(crate) home: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) server: String,
}

impl Device {
    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = command("lockstep");
        command.env("LOCKSTEP_SERVER", &self.server).current_dir(&self.folder);
        command.arg("--home").arg(&self.home).args(arguments);
        command
    }

    /// Starts a command and lets it run.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments), &self.folder, "")
    }

    /// Starts a command with something of its own on standard input.
    pub(crate) fn start_with(&self, arguments: &[&str], input: std::process::Stdio) -> Running {
        Running::start_with(self.command(arguments), &self.folder, input)
    }

    /// Starts a command as another user, if this one may read everything.
    pub(crate) fn run_as_nobody(&self, arguments: &[&str]) -> Done {
        use std::os::unix::process::CommandExt as _;
        let mut command = self.command(arguments);
        if rustix::process::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        Running::start(command, &self.folder, "").done()
    }

    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        self.start(arguments).done()
    }

    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> Done {
        self.run(arguments).ok()
    }

    /// With something on standard input.
    #[track_caller]
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Done {
        Running::start(self.command(arguments), &self.folder, input).done()
    }

    pub(crate) fn try_login(&self, passphrase_file: &str) -> Done {
        self.run(&["login", "--name", NAME, "--passphrase-file", passphrase_file])
    }

    /// Puts a record.
    #[track_caller]
    pub(crate) fn put(&self, id: &str, document: &str) -> Done {
        self.run_with(&["record", "put", "--type", "note", "--id", id], document)
    }

    /// A record's document, as printed.
    #[track_caller]
    pub(crate) fn get(&self, id: &str) -> String {
        self.ok(&["record", "get", "--type", "note", "--id", id]).out.trim().to_owned()
    }

    /// Backs up a path that has to work; gives the snapshot's id.
    #[track_caller]
    pub(crate) fn backup(&self, path: &str) -> String {
        let done = self.ok(&["--json", "backup", path]).json();
        done[0]["snapshot"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn snapshots(&self) -> Vec<serde_json::Value> {
        self.ok(&["--json", "snapshots"]).json().as_array().unwrap().clone()
    }

    /// Restores everything to a folder of the world's, which has to work.
    #[track_caller]
    pub(crate) fn restore(&self, name: &str) -> PathBuf {
        self.ok(&["restore", name]);
        self.folder.join(name)
    }
}
