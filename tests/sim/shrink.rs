//! Making a failing run small: fewer steps and fewer kinds of faults, as long as it fails in the same way.

use crate::faults::Fault;
use crate::plan::{Outcome, Trial};
use std::fmt::Write as _;

/// Runs that one search takes at most.
const RUNS_AT_MOST: u32 = 400;
const LINES_SHOWN: usize = 60;

/// A failing run and how it failed.
struct Search {
    best: Trial,
    kind: String,
    runs: u32,
}

/// What a failure says, without numbers and names.
fn kind_of(failure: &str) -> String {
    let words = failure.split_whitespace();
    let plain = words.filter(|word| !word.chars().any(|letter| letter.is_ascii_digit()));
    plain.take(12).collect::<Vec<_>>().join(" ")
}

impl Search {
    /// Takes a smaller run if it fails in the same way.
    fn attempt(&mut self, trial: Trial) -> bool {
        if self.runs >= RUNS_AT_MOST {
            return false;
        }
        self.runs += 1;
        let fails = trial.run().failure.is_some_and(|failure| kind_of(&failure) == self.kind);
        if fails {
            self.best = trial;
        }
        fails
    }

    fn steps(&self) -> Vec<u64> {
        self.best.keep.clone().unwrap_or_default()
    }

    fn drop_faults(&mut self) {
        for fault in Fault::all() {
            if self.best.without.contains(&fault) {
                continue;
            }
            let mut smaller = self.best.clone();
            smaller.without.push(fault);
            self.attempt(smaller);
        }
    }

    /// Ends earlier and earlier.
    fn drop_suffix(&mut self) {
        let (mut enough, mut too_few) = (self.steps().len(), 0);
        while too_few + 1 < enough {
            let middle = usize::midpoint(too_few, enough);
            let keep = Some(self.steps()[..middle].to_vec());
            if self.attempt(Trial { keep, ..self.best.clone() }) {
                enough = middle;
            } else {
                too_few = middle;
            }
        }
    }

    /// Leaves out runs of steps, from long ones to single ones.
    fn drop_chunks(&mut self) {
        let mut size = self.steps().len() / 2;
        while size > 0 {
            let mut at = 0;
            while at < self.steps().len() {
                let mut keep = self.steps();
                keep.drain(at..(at + size).min(keep.len()));
                if !self.attempt(Trial { keep: Some(keep), ..self.best.clone() }) {
                    at += size;
                }
            }
            size /= 2;
        }
    }
}

/// The smallest run that was found to fail in the same way.
pub(crate) fn shrink(trial: &Trial, outcome: &Outcome) -> Trial {
    let kind = kind_of(outcome.failure.as_deref().unwrap_or_default());
    let keep = Some((0..outcome.steps).collect());
    let mut search = Search { best: Trial { keep, ..trial.clone().quiet() }, kind, runs: 0 };
    search.drop_suffix();
    search.drop_faults();
    search.drop_chunks();
    search.drop_faults();
    Trial { is_loud: true, ..search.best }
}

/// A failing run in words: what it was, what is left of it, and the command that replays that.
pub(crate) fn report(trial: &Trial, outcome: &Outcome) -> String {
    let seed = trial.seed;
    let mut text = format!("seed {seed}: {}\n", outcome.failure.as_deref().unwrap_or("it holds"));
    let _ =
        writeln!(text, "{} devices, {} steps; faults: {:?}", outcome.devices, outcome.steps, outcome.faults);
    let small = shrink(trial, outcome);
    let shown = small.run();
    let keep = small.keep.clone().unwrap_or_default();
    let _ = writeln!(text, "shrunk to {} steps; faults: {:?}", keep.len(), shown.faults);
    let from = shown.lines.len().saturating_sub(LINES_SHOWN);
    for line in &shown.lines[from..] {
        let _ = writeln!(text, "  {line}");
    }
    let keep: Vec<String> = keep.iter().map(u64::to_string).collect();
    let without: Vec<&str> = small.without.iter().map(|fault| fault.name()).collect();
    let _ = writeln!(text, "replay, whole: scripts/sim --seed {seed}");
    let _ = write!(
        text,
        "replay, shrunk: scripts/sim --seed {seed} --keep '{}' --without '{}'",
        keep.join(","),
        without.join(",")
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Hooks;
    use crate::planted;

    /// What is left of a failing run fails in the same way, and is small.
    #[test]
    fn a_failing_run_is_made_small() {
        let hooks = Hooks { write: planted::forgets_the_commit_in_flight, ..Hooks::HONEST };
        let failing =
            (1..1000).map(|seed| Trial::new(seed, hooks)).find(|trial| trial.run().failure.is_some());
        let trial = failing.unwrap();
        let outcome = trial.run();
        let small = shrink(&trial, &outcome);
        let again = small.run();
        assert_eq!(kind_of(&again.failure.unwrap()), kind_of(&outcome.failure.unwrap()));
        assert!(small.keep.unwrap().len() <= 2);
        assert_eq!(small.without.len(), Fault::all().count(), "no fault is needed for it");
    }
}
