//! Finding the programs, and running them with a bound on how long they may take.

use serde_json::Value;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A program that runs longer hangs.
const RUN_SECONDS_MAX: u64 = 90;

/// Polls a condition; false if it did not come true within the bound.
pub(crate) fn poll(seconds_max: u64, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(seconds_max);
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// `target/<profile>/<name>`, built once if it is not there.
pub(crate) fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let folder = test.parent().and_then(Path::parent).unwrap().to_path_buf();
        let is_there = |name: &str| folder.join(name).exists();
        if !(is_there("lockstep") && is_there("lockstep-server")) {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let arguments = ["build", "-p", "lockstep-cli", "-p", "lockstep-server", "--locked"];
            let status = Command::new(cargo).args(arguments).status().unwrap();
            assert!(status.success(), "the programs can not be built");
        }
        folder
    });
    folder.join(name)
}

/// What a run printed, and its exit status; `None` if a signal ended it.
#[derive(Debug)]
#[expect(dead_code, reason = "`what` is for whoever reads a failure")]
pub(crate) struct Done {
    pub(crate) what: String,
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    /// It did what it was told.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.status, Some(0), "{self:#?}");
        self
    }

    /// It ended with a status, and every text is in what it said on standard error.
    #[track_caller]
    pub(crate) fn ends(self, status: i32, texts: &[&str]) -> Self {
        assert_eq!(self.status, Some(status), "{self:#?}");
        for text in texts {
            assert!(self.err.contains(text), "\"{text}\" was not said: {self:#?}");
        }
        // A panic is no way to refuse.
        assert!(!self.err.contains("panicked"), "{self:#?}");
        self
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// A program that runs, its output going to files.
pub(crate) struct Running {
    what: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    pub(crate) fn start(command: Command, folder: &Path, input: &str) -> Self {
        let stdin = folder.join(format!("run-{}.in", Self::number()));
        std::fs::write(&stdin, input).unwrap();
        Self::start_with(command, folder, File::open(&stdin).unwrap().into())
    }

    fn number() -> u64 {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        COUNT.fetch_add(1, Ordering::Relaxed)
    }

    /// Starts it with something else on standard input.
    pub(crate) fn start_with(mut command: Command, folder: &Path, input: Stdio) -> Self {
        let number = Self::number();
        let place = |suffix: &str| folder.join(format!("run-{number}.{suffix}"));
        let (out, err) = (place("out"), place("err"));
        command.stdin(input);
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let arguments: Vec<String> =
            command.get_args().map(OsStr::to_string_lossy).map(String::from).collect();
        let what = arguments.join(" ");
        let child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        Self { what, child, out, err }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it printed so far.
    pub(crate) fn printed(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap()
    }

    /// What it said on standard error so far.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap()
    }

    /// The most memory that it had at once so far, in KiB; none when it ended.
    pub(crate) fn memory_kib(&self) -> Option<u64> {
        let process = format!("/proc/{}", self.child.id());
        // A process that was only just made has the memory of this one until its own program begins.
        let program = std::fs::read_link(format!("{process}/exe")).ok()?;
        if program == std::env::current_exe().ok()? {
            return None;
        }
        let status = std::fs::read_to_string(format!("{process}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    }

    pub(crate) fn kill(mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    pub(crate) fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    }

    #[track_caller]
    pub(crate) fn done(mut self) -> Done {
        let mut status: Option<ExitStatus> = None;
        let ended = poll(RUN_SECONDS_MAX, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        if !ended {
            self.child.kill().unwrap();
        }
        let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        let (out, err) = (read(&self.out), read(&self.err));
        let done = Done { what: self.what, status: status.and_then(|status| status.code()), out, err };
        assert!(ended, "it hangs: {done:#?}");
        done
    }
}

/// A program with an environment of its own.
pub(crate) fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    command.env_clear().stdin(Stdio::null());
    command
}
