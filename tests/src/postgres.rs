//! A PostgreSQL of the tests' own: a temporary cluster on a Unix socket in a folder that only its user may
//! enter, without TCP, fully durable. A shell that holds one end of a pipe stops it and removes the folder
//! when the other end closes: however the test process ends.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// What the shell does: `$1` is the programs' folder, `$2` the cluster's. It answers every order with one line.
const KEEPER: &str = r#"
trap '' INT TERM HUP PIPE
bin=$1 home=$2
umask 077
start() {
    "$bin/pg_ctl" -D "$home/data" -l "$home/log" -w -t 60 start >>"$home/ctl" 2>&1
}
stop() {
    "$bin/pg_ctl" -D "$home/data" -w -t 60 -m "$1" stop >>"$home/ctl" 2>&1
}
answer() {
    if "$@"; then echo done; else echo failed; fi
}
make() {
    "$bin/initdb" -D "$home/data" --username=postgres --auth=trust --encoding=UTF8 --locale=C --no-sync \
        >>"$home/ctl" 2>&1 || return 1
    cat >>"$home/data/postgresql.conf" <<END
listen_addresses = ''
unix_socket_directories = '$home'
max_connections = 300
shared_buffers = 16MB
max_wal_size = 128MB
END
    start
}
answer make
while read -r order mode; do
    case "$order" in
        start) answer start ;;
        stop) answer stop "$mode" ;;
    esac
done
stop immediate
cd / && rm -rf "$home"
"#;

/// A running cluster.
pub struct Cluster {
    home: PathBuf,
    programs: PathBuf,
    keeper: Mutex<Keeper>,
}

struct Keeper {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Keeper {
    #[track_caller]
    fn answered(&mut self, what: &str, home: &Path) {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let said = |name| std::fs::read_to_string(home.join(name)).unwrap_or_default();
        assert_eq!(line.trim(), "done", "PostgreSQL: {what} failed: {}{}", said("ctl"), said("log"));
    }

    #[track_caller]
    fn order(&mut self, order: &str, home: &Path) {
        let orders = self.orders.as_mut().expect("the cluster runs");
        writeln!(orders, "{order}").unwrap();
        self.answered(order, home);
    }
}

/// The folder of `initdb` and its kin: in `PATH`, or where Debian puts the newest.
fn programs() -> PathBuf {
    let is_there =
        |folder: &PathBuf| ["initdb", "pg_ctl", "psql"].iter().all(|name| folder.join(name).exists());
    let mut folders: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).collect())
        .unwrap_or_default();
    folders.sort_unstable();
    folders.reverse();
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    folders
        .into_iter()
        .find(is_there)
        .expect("PostgreSQL's programs (initdb, pg_ctl, psql) are missing; run scripts/install postgres")
}

/// PostgreSQL refuses to run as root: then its own user runs it.
fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    line.is_some_and(|line| line.split_whitespace().nth(1) == Some("0"))
}

fn as_its_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program);
    command
}

fn make_home() -> PathBuf {
    let pattern = std::env::temp_dir().join("lockstep-postgres-XXXXXX");
    let made = as_its_user(Path::new("mktemp")).arg("-d").arg(pattern).output().unwrap();
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(made.status.success(), "no folder for PostgreSQL: {said}");
    PathBuf::from(String::from_utf8(made.stdout).unwrap().trim())
}

fn fresh_name() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

impl Cluster {
    /// Makes and starts a cluster.
    ///
    /// # Panics
    /// If PostgreSQL's programs are missing or do not work.
    pub fn start() -> Self {
        use std::os::unix::process::CommandExt as _;
        let (programs, home) = (programs(), make_home());
        let mut child = as_its_user(Path::new("/bin/sh"))
            .args(["-c", KEEPER, "lockstep-postgres"])
            .args([&programs, &home])
            .current_dir("/")
            // What interrupts the tests must not end the one who clears up after them.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut keeper = Keeper { child, orders, answers };
        keeper.answered("making a cluster", &home);
        Self { home, programs, keeper: Mutex::new(keeper) }
    }

    /// The one that all tests of this process share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A fresh, empty database; gives its address.
    ///
    /// # Panics
    /// If PostgreSQL does not answer.
    pub fn database(&self) -> String {
        let name = fresh_name();
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        format!("postgres://postgres@localhost/{name}?host={}", self.home.display())
    }

    /// A copy of a database that nobody uses; gives its name.
    ///
    /// # Panics
    /// If somebody uses it.
    pub fn copy(&self, database: &str) -> String {
        let name = fresh_name();
        self.sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE {database}"));
        name
    }

    /// Makes a database anew, from a copy or empty.
    ///
    /// # Panics
    /// If PostgreSQL does not answer.
    pub fn put_back(&self, database: &str, copy: Option<&str>) {
        self.remove(database);
        let from = copy.map(|copy| format!(" TEMPLATE {copy}")).unwrap_or_default();
        self.sql("postgres", &format!("CREATE DATABASE {database}{from}"));
    }

    /// Removes a database, whoever uses it.
    ///
    /// # Panics
    /// If PostgreSQL does not answer.
    pub fn remove(&self, database: &str) {
        self.sql("postgres", &format!("DROP DATABASE {database} WITH (FORCE)"));
    }

    /// The folder of a database's own files.
    ///
    /// # Panics
    /// If PostgreSQL does not answer.
    pub fn folder_of(&self, database: &str) -> PathBuf {
        let number = self.sql(database, "SELECT oid FROM pg_database WHERE datname = current_database()");
        self.home.join("data/base").join(number)
    }

    /// Runs SQL in a database; gives what it answers, unaligned.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn sql(&self, database: &str, statement: &str) -> String {
        let output = Command::new(self.programs.join("psql"))
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"])
            .args(["--username=postgres", "--dbname", database, "--command", statement])
            .arg("--host")
            .arg(&self.home)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{statement}: {said}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Stops it; `immediate` is how a power cut looks to those who are connected.
    ///
    /// # Panics
    /// If it does not stop.
    pub fn stop(&self, mode: &str) {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner).order(&format!("stop {mode}"), &self.home);
    }

    /// Starts it again on the same data.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_again(&self) {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner).order("start", &self.home);
    }

    /// Where it lives; gone when it is dropped.
    pub fn home(&self) -> &Path {
        &self.home
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let keeper = self.keeper.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(keeper.orders.take());
        let _ = keeper.child.wait();
    }
}

/// The name of the database at an address of [`Cluster::database`].
///
/// # Panics
/// If it is no such address.
pub fn name_of(url: &str) -> &str {
    let (_, rest) = url.rsplit_once("localhost/").unwrap();
    rest.split_once('?').unwrap().0
}
