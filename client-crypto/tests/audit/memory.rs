//! Secrets are gone from memory once their owners are dropped. A process of its own lives through [`scenario::live`];
//! this one, which can work out all of its secrets, reads the other's whole memory and looks for them.

use crate::scenario;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, Stdio};

const PROBE: &str = "LOCKSTEP_TEST_WIPE_PROBE";
const READY: &str = "the probe waits";
/// Enough of a secret to recognise it, and enough to be of use to whoever finds it.
const WINDOW_BYTES: usize = 16;

/// A process that waits, its work done.
struct Probe(Child);

impl Probe {
    fn start(work: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "memory::probe", "--nocapture", "--test-threads=1"])
            .env(PROBE, work)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.as_mut().unwrap());
        let mut line = String::new();
        while !line.contains(READY) {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "the probe ended before its work was done");
        }
        Self(child)
    }

    /// Names of the secrets of which a part is anywhere in the process's writable memory.
    fn finds(&self, secrets: &[(&'static str, Vec<u8>)]) -> BTreeSet<&'static str> {
        let mut search = Search::new(secrets);
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.0.id())).unwrap();
        let memory = std::fs::File::open(format!("/proc/{}/mem", self.0.id())).unwrap();
        let mut read_bytes = 0;
        for line in maps.lines().filter(|line| line.split(' ').nth(1).unwrap().starts_with("rw")) {
            let (begin, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let parse = |text| u64::from_str_radix(text, 16).unwrap();
            let mut region = vec![0; usize::try_from(parse(end) - parse(begin)).unwrap()];
            memory.read_exact_at(&mut region, parse(begin)).unwrap_or_else(|error| panic!("{line}: {error}"));
            read_bytes += region.len();
            search.look_into(&region);
        }
        assert!(read_bytes > 100_000, "the memory was read");
        search.found
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// First and last windows of all secrets, by their first two bytes.
struct Search {
    table: Vec<Vec<(&'static str, Vec<u8>)>>,
    found: BTreeSet<&'static str>,
}

impl Search {
    fn new(secrets: &[(&'static str, Vec<u8>)]) -> Self {
        let mut table = vec![Vec::new(); 65_536];
        for (name, secret) in secrets {
            for window in [&secret[..WINDOW_BYTES], &secret[secret.len() - WINDOW_BYTES..]] {
                table[place(window)].push((*name, window.to_vec()));
            }
        }
        Self { table, found: BTreeSet::new() }
    }

    fn look_into(&mut self, region: &[u8]) {
        for page in 0..region.len().div_ceil(4096) {
            let begin = page * 4096;
            let end = (begin + 4096).min(region.len());
            if region[begin..end].iter().all(|byte| *byte == 0) {
                continue;
            }
            // A window may go on in the next page.
            let end = (end + WINDOW_BYTES).min(region.len());
            for window in region[begin..end].windows(WINDOW_BYTES) {
                let wanted = &self.table[place(window)];
                self.found.extend(wanted.iter().filter(|(_, want)| want == window).map(|(name, _)| *name));
            }
        }
    }
}

fn place(window: &[u8]) -> usize {
    usize::from(window[0]) << 8 | usize::from(window[1])
}

/// What the other process does; a test by itself only so that this program can be started for it.
#[test]
fn probe() {
    let Ok(work) = std::env::var(PROBE) else { return };
    let mut kept = Vec::new();
    match work.as_str() {
        "keeps" => kept = all_secrets(),
        // Room before each, because the allocator writes into what was given back.
        "forgets to wipe" => {
            let roomy = |(name, secret): (_, Vec<u8>)| (name, [vec![0; 64], secret, vec![0; 64]].concat());
            drop(all_secrets().into_iter().map(roomy).collect::<Vec<_>>());
        }
        steps => drop(scenario::live(steps.parse().unwrap())),
    }
    println!("\n{READY}");
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    std::hint::black_box(&kept);
}

fn all_secrets() -> Vec<(&'static str, Vec<u8>)> {
    scenario::secrets(&scenario::whole())
}

#[test]
fn secrets_are_gone_once_their_owners_are_dropped() {
    let secrets = all_secrets();
    let remains: Vec<_> = (0..=scenario::STEPS)
        .flat_map(|steps| {
            let found = Probe::start(&steps.to_string()).finds(&secrets);
            found.into_iter().map(move |name| (steps, name))
        })
        .collect();
    assert_eq!(remains, [], "(after this step, this secret) is in memory although nobody owns it any more");
}

#[test]
fn the_search_finds_what_is_kept_and_what_is_dropped_without_being_wiped() {
    let secrets = all_secrets();
    let names: BTreeSet<&str> = secrets.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), secrets.len());
    assert_eq!(Probe::start("keeps").finds(&secrets), names);
    assert_eq!(Probe::start("forgets to wipe").finds(&secrets), names);
}
