//! docs/DEPENDENCIES.md lists every package that can touch a secret, with the version that is built.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)).unwrap()
}

/// Name and version of each package, and what it needs, as Cargo.lock says: a version only where there are several.
fn locked() -> BTreeMap<(String, String), Vec<String>> {
    let lock = read("Cargo.lock");
    let quoted = |line: &str| line.split('"').nth(1).map(str::to_owned);
    let mut packages = BTreeMap::new();
    for block in lock.split("[[package]]").skip(1) {
        let field =
            |name: &str| block.lines().find_map(|line| line.strip_prefix(name).and_then(quoted)).unwrap();
        let needs = block.split("dependencies = [").nth(1).unwrap_or_default();
        let needs = needs.split("\n]").next().unwrap().lines().filter_map(quoted).collect();
        packages.insert((field("name = "), field("version = ")), needs);
    }
    packages
}

/// Everything that is built for a package, for whatever target and feature; "name version".
fn reached_from(start: &str) -> BTreeSet<String> {
    let packages = locked();
    let mut reached = BTreeSet::new();
    let mut next = vec![start.to_owned()];
    while let Some(wanted) = next.pop() {
        let (name, version) = wanted.split_once(' ').unwrap_or((&wanted, ""));
        let mut fitting =
            packages.iter().filter(|((known, found), _)| known == name && found.starts_with(version));
        let ((name, version), needs) = fitting.next().unwrap();
        assert!(fitting.next().is_none(), "{wanted} is ambiguous");
        if reached.insert(format!("{name} {version}")) {
            next.extend(needs.iter().cloned());
        }
    }
    reached.retain(|package| !package.starts_with("lockstep-"));
    reached
}

/// Rows of the table: its first two columns.
fn listed() -> BTreeSet<String> {
    let text = read("docs/DEPENDENCIES.md");
    let table = text.split("## What can touch a secret").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let mut cells = row.split('|').skip(1).map(|cell| cell.trim().trim_matches('`'));
        format!("{} {}", cells.next().unwrap(), cells.next().unwrap())
    })
    .collect()
}

#[test]
fn every_package_under_client_crypto_is_in_the_table() {
    let built = reached_from("lockstep-client-crypto");
    assert!(built.len() > 50 && built.iter().any(|package| package.starts_with("chacha20poly1305 ")));
    let listed = listed();
    let missing: Vec<_> = built.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&built).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "not in docs/DEPENDENCIES.md: {missing:?}; not built: {gone:?}"
    );
}

#[test]
fn our_own_crates_forbid_unsafe_code() {
    for name in ["proto", "client-crypto", "engine", "client", "cli", "server", "tests"] {
        let manifest = read(&format!("{name}/Cargo.toml"));
        let inherits = manifest.contains("[lints]\nworkspace = true");
        let own = manifest.contains("[lints.rust]\nunsafe_code = \"forbid\"");
        assert!(inherits || own, "{name} takes no lints");
    }
    assert!(read("Cargo.toml").contains("[workspace.lints.rust]\nunsafe_code = \"forbid\""));
}
