//! The test vectors of `vectors/`: made again and compared, read, refused, and every bit of the golden ones flipped; and
//! the published vectors of the primitives.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    missing_docs
)]

mod flips;
mod limits;
mod primitives;

use lockstep_tests::vectors;
use serde_json::Value;
use std::path::PathBuf;

/// The folder `vectors/` of the repository.
fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../vectors")
}

/// Files of a folder below `vectors/`, by name.
fn files(kind: &str) -> Vec<(String, Value)> {
    let mut paths: Vec<_> =
        std::fs::read_dir(folder().join(kind)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (format!("{kind}/{name}"), serde_json::from_str(&text).unwrap())
    };
    let files: Vec<_> = paths.into_iter().map(read).collect();
    assert!(files.len() > 5, "{kind} has files");
    files
}

fn cases(file: &Value) -> &[Value] {
    let cases = file["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    cases
}

#[test]
fn what_is_checked_in_is_what_is_made() {
    let made = vectors::files();
    for (name, text) in &made {
        let path = folder().join(name);
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == *text, "vectors/{name} is another than is made; see vectors/README.md");
        assert!(text.len() < 320_000, "{name} has {} bytes", text.len());
    }
    for kind in ["golden", "reject"] {
        for (name, _) in files(kind) {
            assert!(made.iter().any(|file| file.0 == name), "nothing makes vectors/{name}");
        }
    }
}

#[test]
fn every_golden_file_is_read() {
    for (name, file) in files("golden") {
        for case in cases(&file) {
            let out = vectors::run::run(file["op"].as_str().unwrap(), case["in"].as_object().unwrap());
            let out = out.unwrap_or_else(|fault| panic!("{name}, {}: {}", case["name"], fault.class));
            assert_eq!(out, case["out"], "{name}, {}", case["name"]);
        }
    }
}

/// The classes of `vectors/README.md`.
const CLASSES: &[&str] = &[
    "malformed",
    "version",
    "limit",
    "identity",
    "signature",
    "chain",
    "open",
    "profile",
    "passphrase",
    "text",
    "fork",
    "rollback",
    "archive",
];

#[test]
fn every_reject_file_is_refused() {
    let mut seen = std::collections::BTreeSet::new();
    for (name, file) in files("reject") {
        let mut faults = std::collections::BTreeSet::new();
        for case in cases(&file) {
            let fault = case["fault"].as_str().unwrap();
            assert!(faults.insert(fault), "{name}: two cases are called {fault}");
            let found = vectors::run::run(file["op"].as_str().unwrap(), case["in"].as_object().unwrap());
            let found = found.err().unwrap_or_else(|| panic!("{name}, {fault}: it is taken"));
            assert_eq!(case["error"], found.class, "{name}, {fault}");
            let other = case.get("or").map(|class| class.as_str().unwrap());
            assert!(
                other.is_none_or(|other| CLASSES.contains(&other) && other != found.class),
                "{name}, {fault}"
            );
            assert_eq!(case["released"], found.released(), "{name}, {fault}");
            assert_eq!(
                case.get("position").and_then(Value::as_u64),
                found.position.map(|place| place as u64)
            );
            seen.insert(found.class);
        }
    }
    let readme = std::fs::read_to_string(folder().join("README.md")).unwrap();
    for class in CLASSES {
        assert!(seen.contains(class), "no reject file has class {class}");
        assert!(readme.contains(&format!("| `{class}` |")), "vectors/README.md does not have class {class}");
    }
    assert_eq!(seen.len(), CLASSES.len());
}

#[test]
fn every_op_has_a_golden_file_and_what_refuses_has_a_reject_file() {
    let ops = |kind: &str| -> std::collections::BTreeSet<String> {
        files(kind).iter().map(|file| file.1["op"].as_str().unwrap().to_owned()).collect()
    };
    let (golden, reject) = (ops("golden"), ops("reject"));
    assert!(reject.is_subset(&golden));
    let readme = std::fs::read_to_string(folder().join("README.md")).unwrap();
    for op in &golden {
        assert!(readme.contains(&format!("| `{op}` |")), "vectors/README.md does not have op {op}");
    }
    // These have no input that could be refused.
    let total = [
        "fingerprint",
        "hash",
        "ids",
        "kdf",
        "object-digest",
        "pad",
        "record-id",
        "recovery-kek",
        "seal",
        "sign",
        "skip",
        "state",
        "vault-secrets",
    ];
    let without: Vec<_> = golden.difference(&reject).map(String::as_str).collect();
    assert_eq!(without, total);
}

#[test]
fn every_wrong_letter_of_a_recovery_key_is_located() {
    let letters = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    let file = files("golden").into_iter().find(|file| file.0 == "golden/recovery-text.json").unwrap().1;
    let text = cases(&file)[0]["in"]["text"].as_str().unwrap().replace(' ', "");
    for place in 5..text.len() {
        for letter in letters.chars().filter(|letter| !text[place..].starts_with(*letter)) {
            let mut typed = text.clone();
            typed.replace_range(place..=place, &letter.to_string());
            let input = serde_json::json!({ "text": typed });
            let fault = vectors::run::run("recovery-text", input.as_object().unwrap()).unwrap_err();
            assert_eq!((fault.class, fault.position), ("text", Some(place + 1)), "{letter} at {place}");
        }
    }
}
