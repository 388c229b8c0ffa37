//! The targets, which tests/corpus replays too: the functions are in tests/src/fuzz.

#![forbid(unsafe_code)]

#[path = "../../tests/src/fuzz/mod.rs"]
pub mod targets;

/// Runs a target by its name.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) =
        targets::TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    target(data);
}
