//! Which crate may know which, read from cargo itself.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// The chain, top down: each may know every one below it. The server stands beside and knows `proto`.
const CHAIN: [&str; 5] =
    ["lockstep-cli", "lockstep-client", "lockstep-engine", "lockstep-client-crypto", "lockstep-proto"];
const SERVER: &str = "lockstep-server";
/// Stands beside `client-crypto`: it merges documents and knows no secret. The engine and what is above it may know it.
const MERGE: &str = "lockstep-merge";
const TESTS: &str = "lockstep-tests";

/// Names, and which name depends on which; development dependencies apart.
struct Graph {
    names: BTreeSet<String>,
    normal: BTreeMap<String, BTreeSet<String>>,
}

fn metadata() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn graph() -> Graph {
    let metadata = metadata();
    let list = |value: &Value| value.as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let names: BTreeMap<String, String> = list(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let mut normal: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let known = normal.entry(names[&text(&node["id"])].clone()).or_default();
        for dependency in list(&node["deps"]) {
            // Build dependencies count: what runs at build time decides what is built.
            if list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev") {
                known.insert(names[&text(&dependency["pkg"])].clone());
            }
        }
    }
    Graph { names: names.into_values().collect(), normal }
}

impl Graph {
    fn reached_from(&self, start: &str) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut next = vec![start];
        while let Some(name) = next.pop() {
            for dependency in &self.normal[name] {
                if reached.insert(dependency.as_str()) {
                    next.push(dependency);
                }
            }
        }
        reached
    }
}

fn may_know(from: &str, to: &str) -> bool {
    let place = |name| CHAIN.iter().position(|known| *known == name);
    match (from, to) {
        (TESTS, _) | (SERVER | MERGE, "lockstep-proto") => true,
        (upper, MERGE) => CHAIN[..3].contains(&upper),
        _ => matches!((place(from), place(to)), (Some(upper), Some(lower)) if upper < lower),
    }
}

#[test]
fn the_server_can_not_reach_a_secret() {
    let graph = graph();
    let reached = graph.reached_from(SERVER);
    assert!(reached.contains("lockstep-proto"), "the graph was read");
    for secret in &CHAIN[..4] {
        assert!(!reached.contains(secret), "{SERVER} reaches {secret}");
    }
    assert!(!graph.reached_from(MERGE).contains("lockstep-client-crypto"), "{MERGE} reaches a secret");
}

#[test]
fn arrows_point_down_the_chain() {
    let graph = graph();
    for (from, known) in graph.normal.iter().filter(|(from, _)| from.starts_with("lockstep-")) {
        for to in known.iter().filter(|to| to.starts_with("lockstep-")) {
            assert!(may_know(from, to), "{from} must not know {to}");
        }
    }
    assert!(!may_know(SERVER, "lockstep-client-crypto") && !may_know("lockstep-proto", "lockstep-engine"));
    assert!(
        !may_know(SERVER, MERGE) && !may_know("lockstep-client-crypto", MERGE) && may_know(CHAIN[2], MERGE)
    );
    assert!(!may_know(MERGE, "lockstep-client-crypto") && !may_know(MERGE, "lockstep-engine"));
    assert!(!may_know("lockstep-cli", SERVER) && !may_know("lockstep-engine", TESTS));
}

#[test]
fn unwanted_crates_are_nowhere() {
    let graph = graph();
    assert!(graph.names.contains("lockstep-proto"), "the graph was read");
    for name in ["serde_cbor", "openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys"] {
        assert!(!graph.names.contains(name), "{name}");
    }
}
