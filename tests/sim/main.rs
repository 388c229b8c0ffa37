//! The deterministic simulator of the sync engine: devices of one account, a network, disks and a server on which
//! everything goes wrong that can, and the owner's own disasters; all from one seed. docs/RELIABILITY.md says what it shows.
//!
//! `scripts/sim` runs it optimised, for as many seeds as wanted. Here, on every test run:
//! `LOCKSTEP_SIM_SEEDS=n` sets how many fresh seeds are run, `LOCKSTEP_SIM_SEED=n` where they begin (alone: that one, with
//! its trace). A seed that failed once joins `seeds.txt` for good.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    missing_docs
)]

mod bench;
mod bound;
mod check;
mod crash;
mod dice;
mod disasters;
mod disk;
mod documents;
mod faults;
mod findings;
mod fixture;
mod hostile;
mod ledger;
mod merging;
mod network;
mod pins;
mod plan;
mod planted;
mod repair;
mod replica;
mod select;
mod server;
mod shrink;
mod tamper;
mod trace;
mod undo;
mod world;

use faults::{Fault, Hooks};
use plan::{Outcome, Trial};
use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Fresh seeds count from here.
const BASE_SEED: u64 = 20_261_120_000;
const SEEDS: u64 = 2000;
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// What a full run must have reached at least once beside every kind of fault, or it tests less than it says.
const MUST_HAPPEN: &[&str] = &[
    "adopted",
    "asked for envelopes",
    "asked for state",
    "asked for the device log",
    "conflict copy",
    "copy met",
    "decided",
    "deletions only",
    "head moved",
    "joined again",
    "keys behind",
    "lie noticed",
    "merged",
    "misuse",
    "paused",
    "revocation",
    "rollback noticed",
    "rotated",
    "staged at the server",
    "staged locally",
    "unpinned",
];

/// What was asked for.
struct Wanted {
    seeds: Vec<u64>,
    keep: Option<Vec<u64>>,
    without: Vec<Fault>,
    /// Whether it is a run long enough that everything must happen in it.
    is_full: bool,
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("it is a number"))
}

fn list(variable: &str) -> Option<Vec<String>> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.split(',').map(|part| part.trim().to_owned()).collect())
}

impl Wanted {
    fn read() -> Self {
        let (first, count) = (number("LOCKSTEP_SIM_SEED"), number("LOCKSTEP_SIM_SEEDS"));
        let seeds = match (first, count) {
            (Some(seed), count) => (seed..seed + count.unwrap_or(1)).collect(),
            (None, count) => {
                let fresh = BASE_SEED..BASE_SEED + count.unwrap_or(SEEDS);
                kept_seeds().into_iter().chain(fresh).collect::<Vec<_>>()
            }
        };
        let keep = list("LOCKSTEP_SIM_KEEP");
        let without = list("LOCKSTEP_SIM_WITHOUT").unwrap_or_default();
        Self {
            is_full: seeds.len() as u64 >= SEEDS,
            seeds,
            keep: keep.map(|steps| steps.iter().map(|step| step.parse().expect("it is a step")).collect()),
            without: without.iter().map(|name| Fault::named(name).expect("it is a fault")).collect(),
        }
    }

    fn trial(&self, seed: u64) -> Trial {
        let is_loud = self.seeds.len() == 1;
        let (keep, without) = (self.keep.clone(), self.without.clone());
        Trial { keep, without, is_loud, ..Trial::new(seed, Hooks::HONEST) }
    }
}

fn kept_seeds() -> Vec<u64> {
    let lines = include_str!("seeds.txt").lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.parse().unwrap())
        .collect()
}

/// What came of the runs so far.
struct Tally {
    begin: Instant,
    last_shown: Instant,
    done: u64,
    counts: BTreeMap<&'static str, u64>,
    failed: Vec<u64>,
}

impl Tally {
    fn new() -> Self {
        let begin = Instant::now();
        Self { begin, last_shown: begin, done: 0, counts: BTreeMap::new(), failed: Vec::new() }
    }

    fn add(&mut self, outcome: &Outcome) {
        self.done += 1;
        *self.counts.entry("commits").or_default() += outcome.commits as u64;
        *self.counts.entry("steps").or_default() += outcome.steps;
        for (what, count) in &outcome.counts {
            *self.counts.entry(what).or_default() += count;
        }
        if self.last_shown.elapsed() > PROGRESS_EVERY {
            self.last_shown = Instant::now();
            println!("{}", self.line());
        }
    }

    fn line(&self) -> String {
        let seconds = self.begin.elapsed().as_secs_f64();
        let rate = self.done as f64 / seconds.max(0.001);
        let faults: Vec<String> = Fault::all()
            .filter_map(|fault| {
                self.counts.get(fault.name()).map(|count| format!("{} {count}", fault.name()))
            })
            .collect();
        let of = |what| self.counts.get(what).copied().unwrap_or_default();
        format!(
            "sim: {} schedules in {seconds:.0} s, {rate:.0} a second, {} failed; {} steps, {} commits; faults injected: {}",
            self.done,
            self.failed.len(),
            of("steps"),
            of("commits"),
            faults.join(", ")
        )
    }
}

#[test]
fn seeds_converge() {
    let wanted = Wanted::read();
    let queue = Mutex::new(wanted.seeds.iter().copied());
    let tally = Mutex::new(Tally::new());
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().next();
                    let Some(seed) = next else { return };
                    let outcome = wanted.trial(seed).run();
                    if wanted.seeds.len() == 1 {
                        println!("{}", outcome.lines.join("\n"));
                    }
                    let mut tally = tally.lock().unwrap();
                    tally.add(&outcome);
                    if outcome.failure.is_some() {
                        println!("seed {seed} fails: {}", outcome.failure.as_deref().unwrap_or_default());
                        tally.failed.push(seed);
                    }
                }
            });
        }
    });
    let mut tally = tally.into_inner().unwrap();
    tally.failed.sort_unstable();
    if let Some(seed) = tally.failed.first() {
        let trial = wanted.trial(*seed);
        let text = shrink::report(&trial, &trial.run());
        println!("{text}\n{}", tally.line());
        panic!("{} of {} seeds fail: {:?}", tally.failed.len(), wanted.seeds.len(), tally.failed);
    }
    println!("{}", tally.line());
    let must_happen = Fault::all().map(Fault::name).chain(MUST_HAPPEN.iter().copied());
    for what in must_happen {
        assert!(!wanted.is_full || tally.counts.contains_key(what), "no seed reaches: {what}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let hashes: Vec<u64> = (0..4)
        .map(|index| {
            let seed = BASE_SEED + index;
            let (one, two) = (plan::run(seed, Hooks::HONEST), plan::run(seed, Hooks::HONEST));
            assert_eq!(one.lines, two.lines, "seed {seed}");
            assert_eq!(one.trace_hash, two.trace_hash, "seed {seed}");
            one.trace_hash
        })
        .collect();
    assert!(hashes.windows(2).all(|pair| pair[0] != pair[1]), "other seeds give other traces");
}

/// Clocks that jump by years, and clocks that stand still: the same versions are committed in the same order.
#[test]
fn no_order_comes_from_a_wall_clock() {
    let mut jumps = 0;
    for index in 0..40 {
        // Where bits are flipped depends on how long a time is in an answer.
        let without = vec![Fault::Tampered];
        let trial =
            Trial { has_shape: true, without, ..Trial::new(BASE_SEED + index, Hooks::HONEST).quiet() };
        let (one, two) = (trial.run(), Trial { has_frozen_clocks: true, ..trial.clone() }.run());
        jumps += one.counts.get(Fault::ClockJump.name()).copied().unwrap_or_default();
        assert!(!one.shape.is_empty());
        let differs = one.shape.iter().zip(&two.shape).find(|(one, two)| one != two);
        assert_eq!(differs, None, "seed {}", trial.seed);
        assert_eq!(one.shape.len(), two.shape.len(), "seed {}", trial.seed);
    }
    assert!(jumps > 20, "{jumps} jumps of clocks");
}
