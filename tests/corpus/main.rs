//! The corpora of the fuzzer, replayed: whatever was once worth keeping holds its property on every run.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

use lockstep_tests::fuzz::{TARGETS, seeds};
use std::path::{Path, PathBuf};

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    files.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_file_of_every_corpus_holds() {
    for (name, target) in TARGETS {
        let files = corpus(name);
        assert!(files.len() >= 5, "{name} has a corpus");
        for path in files {
            println!("{}", path.display());
            target(&std::fs::read(&path).unwrap());
        }
    }
}

#[test]
fn real_structures_and_every_flipped_bit_of_them_hold() {
    for (name, label, bytes) in seeds() {
        let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
        target(&bytes);
        // Signatures cost: large inputs of costly targets are flipped here and there.
        let step = if name == "structures" || name == "texts" { 1 } else { bytes.len() / 20 + 1 };
        for place in (0..bytes.len()).step_by(step) {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[place] ^= 1 << bit;
                println!("{name} {label}: byte {place} bit {bit}");
                target(&flipped);
            }
        }
    }
}

#[test]
fn the_inputs_to_begin_with_decode() {
    // With another first byte they would be noise that holds every property; seeds() itself checks that each decodes.
    let decoded = seeds().iter().filter(|(target, ..)| *target == "structures").count();
    assert!(decoded > 25, "{decoded} structures");
}
