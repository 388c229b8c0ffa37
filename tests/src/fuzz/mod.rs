//! What every decoder and reader has to do with whatever bytes come: one function a target. `fuzz/` runs them under
//! libFuzzer, tests/corpus over the files in `fuzz/corpus` (docs/FUZZING.md). Each panics if its property does not hold.

mod account;
mod archive;
mod chain;
mod edit;
mod envelope;
mod fixture;
mod frames;
mod kit;
mod object;
mod ranges;
mod seeds;
mod structures;
mod texts;

pub use seeds::seeds;

/// A target's function.
pub type Target = fn(&[u8]);

/// All targets by name; `fuzz/fuzz_targets` has a file for each.
pub const TARGETS: [(&str, Target); 10] = [
    ("account", account::target),
    ("archive", archive::target),
    ("chain", chain::target),
    ("envelope", envelope::target),
    ("frames", frames::target),
    ("kit", kit::target),
    ("object", object::target),
    ("ranges", ranges::target),
    ("structures", structures::target),
    ("texts", texts::target),
];
