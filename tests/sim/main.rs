//! The deterministic simulator of the sync engine: three devices of one account, a network that loses,
//! repeats and delays, crashes before and after every effect, and a model server; all from one seed.
//!
//! `LOCKSTEP_SIM_SEED=n` replays one seed, `LOCKSTEP_SIM_SEEDS=n` sets how many fresh ones are run.
//! A seed that failed once joins `seeds.txt` for good.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::print_stdout,
    missing_docs
)]

mod bench;
mod bound;
mod check;
mod crash;
mod dice;
mod faults;
mod findings;
mod fixture;
mod hostile;
mod ledger;
mod merging;
mod pins;
mod plan;
mod planted;
mod repair;
mod replica;
mod select;
mod server;
mod tamper;
mod world;

use faults::Hooks;
use plan::Outcome;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;

/// Fresh seeds count from here.
const BASE_SEED: u64 = 20_261_120_000;
const SEEDS: u64 = 200;
const LINES_SHOWN: usize = 40;
const WORKERS: usize = 2;

/// What a full run must have reached at least once, or it tests less than it says.
const MUST_HAPPEN: &[&str] = &[
    "adopted",
    "answer lost",
    "asked for envelopes",
    "asked for state",
    "asked for the device log",
    "conflict copy",
    "crash",
    "head moved",
    "keys behind",
    "misuse",
    "paused",
    "request lost",
    "revocation",
    "rotated",
    "staged at the server",
    "staged locally",
    "unpinned",
];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("it is a number"))
}

fn kept_seeds() -> Vec<u64> {
    let lines = include_str!("seeds.txt").lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.parse().unwrap())
        .collect()
}

fn report(seed: u64, outcome: &Outcome, what: &str) -> String {
    let mut text = format!("seed {seed}: {what}\nfaults: {:?}\n", outcome.faults);
    let from = outcome.lines.len().saturating_sub(LINES_SHOWN);
    for line in &outcome.lines[from..] {
        let _ = writeln!(text, "  {line}");
    }
    let _ = write!(
        text,
        "replay: LOCKSTEP_SIM_SEED={seed} cargo test -p lockstep-tests --test sim -- seeds_converge --nocapture"
    );
    text
}

#[test]
fn seeds_converge() {
    let (seeds, is_full) = if let Some(seed) = number("LOCKSTEP_SIM_SEED") {
        (vec![seed], false)
    } else {
        let count = number("LOCKSTEP_SIM_SEEDS").unwrap_or(SEEDS);
        let fresh = (0..count).map(|index| BASE_SEED + index);
        (kept_seeds().into_iter().chain(fresh).collect::<Vec<_>>(), count >= SEEDS)
    };
    let queue = Mutex::new(seeds.iter().copied());
    let failures = Mutex::new(BTreeMap::new());
    let counts = Mutex::new(BTreeMap::<&str, u64>::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().next();
                    let Some(seed) = next else { return };
                    let outcome = plan::run(seed, Hooks::HONEST);
                    if seeds.len() == 1 {
                        println!("{}", outcome.lines.join("\n"));
                    }
                    let mut counts = counts.lock().unwrap();
                    *counts.entry("commits").or_default() += outcome.commits as u64;
                    for (what, count) in &outcome.counts {
                        *counts.entry(what).or_default() += count;
                    }
                    if let Some(what) = &outcome.failure {
                        failures.lock().unwrap().insert(seed, report(seed, &outcome, what));
                    }
                }
            });
        }
    });
    let (failures, counts) = (failures.into_inner().unwrap(), counts.into_inner().unwrap());
    println!("{} seeds: {counts:?}", seeds.len());
    if let Some((_, text)) = failures.first_key_value() {
        let failed: Vec<_> = failures.keys().collect();
        panic!("{} of {} seeds fail: {failed:?}\n{text}", failed.len(), seeds.len());
    }
    for what in MUST_HAPPEN {
        assert!(!is_full || counts.contains_key(what), "no seed reaches: {what}");
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
