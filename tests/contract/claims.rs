//! docs/CLAIMS.md and docs/PROTOCOL.md against the tree: what they cite exists, what they must list is listed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A row of a table: its number, and what its cells for code and for tests cite.
struct Row {
    number: String,
    code: Vec<String>,
    tests: Vec<String>,
}

/// What stands between backquotes.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Rows whose first cell is a letter and a number.
fn rows(text: &str) -> Vec<Row> {
    let mut found = Vec::new();
    for line in text.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let Some(digits) = cells[0].strip_prefix(['A', 'P']) else { continue };
        if digits.parse::<u32>().is_ok() {
            assert_eq!(cells.len(), 4, "row {}", cells[0]);
            let number = cells[0].to_owned();
            found.push(Row { number, code: quoted(cells[2]), tests: quoted(cells[3]) });
        }
    }
    found
}

fn is_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// How often a name occurs as a whole word.
fn count(text: &str, name: &str) -> usize {
    text.match_indices(name)
        .filter(|(at, _)| !text[..*at].ends_with(is_name) && !text[at + name.len()..].starts_with(is_name))
        .count()
}

fn defines(text: &str, name: &str) -> bool {
    ["fn ", "struct ", "enum ", "trait ", "const "]
        .iter()
        .any(|kind| count(text, &format!("{kind}{name}")) > 0)
}

/// The lines of attributes right above a function.
fn attributes(text: &str, name: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| count(line, &format!("fn {name}")) > 0).unwrap();
    let above = lines[..at].iter().rev().take_while(|line| line.trim_start().starts_with(['#', '/']));
    above.copied().collect::<Vec<_>>().join("\n")
}

/// Every source of a suite of tests (`tests/NAME/`), together.
fn suite_of(file: &str) -> String {
    let suite: Vec<&str> = file.split('/').take(2).collect();
    let mut folders = vec![root().join(suite.join("/"))];
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    text
}

/// Whether a line of a list of tests is this one: `room::name`, or the name alone.
fn lists(suite: &str, name: &str) -> bool {
    let path = format!("::{name}");
    suite.lines().map(str::trim).any(|line| {
        line == name || line.ends_with(&path) && line.chars().all(|letter| is_name(letter) || letter == ':')
    })
}

/// What is wrong with a cited test: it must be there, and run: by an attribute of its own, or by a list of its suite.
fn fault_of_test(file: &str, text: &str, name: &str) -> Option<String> {
    if Path::new(file).extension().is_some_and(|extension| extension == "py") {
        let is_there = name.starts_with("test") && count(text, &format!("def {name}")) > 0;
        return (!is_there).then(|| format!("{file} has no test {name}"));
    }
    if count(text, &format!("fn {name}")) == 0 {
        return Some(format!("{file} has no function {name}"));
    }
    let attributes = attributes(text, name);
    if attributes.contains("#[ignore") {
        return Some(format!("{file}::{name} is not run"));
    }
    let has_attribute = attributes.contains("#[test]") || attributes.contains("::test");
    let is_listed = file.starts_with("tests/") && lists(&suite_of(file), name);
    (!has_attribute && !is_listed).then(|| format!("{file}::{name} is no test"))
}

fn fault_of(citation: &str, is_test: bool) -> Option<String> {
    let (file, name) = match citation.split_once("::") {
        Some((file, name)) => (file, Some(name)),
        None => (citation, None),
    };
    let Ok(text) = std::fs::read_to_string(root().join(file)) else {
        return Some(format!("there is no file {file}"));
    };
    match name {
        Some(name) if is_test => fault_of_test(file, &text, name),
        Some(name) if !defines(&text, name) => Some(format!("{file} has no {name}")),
        None if is_test => Some(format!("{file}: a test is cited by its name")),
        _ => None,
    }
}

#[test]
fn every_claim_names_code_and_tests_that_exist() {
    let rows = rows(&read("docs/CLAIMS.md"));
    let numbers: BTreeSet<&str> = rows.iter().map(|row| row.number.as_str()).collect();
    assert_eq!(numbers.len(), rows.len(), "a number stands twice");
    for attack in 1..=26 {
        assert!(numbers.contains(format!("A{attack}").as_str()), "row A{attack} is missing");
    }
    let mut faults = Vec::new();
    for row in &rows {
        // An attack has a test that does exactly this, and is named by its number.
        if let Some(attack) = row.number.strip_prefix('A') {
            let named = format!("::row_{attack:0>2}_");
            if row.tests.iter().all(|citation| !citation.contains(&named)) {
                faults.push(format!("row {} names no test of its own", row.number));
            }
        }
        if row.code.is_empty() || row.tests.is_empty() {
            faults.push(format!("row {} has no code or no test", row.number));
        }
        let code = row.code.iter().filter_map(|citation| fault_of(citation, false));
        let tests = row.tests.iter().filter_map(|citation| fault_of(citation, true));
        faults.extend(code.chain(tests).map(|fault| format!("row {}: {fault}", row.number)));
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn a_citation_of_what_is_not_there_is_noticed() {
    let here = "tests/contract/claims.rs";
    assert_eq!(fault_of(&format!("{here}::a_citation_of_what_is_not_there_is_noticed"), true), None);
    for wrong in
        ["tests/contract/nowhere.rs::x", &format!("{here}::nobody"), &format!("{here}::quoted"), here]
    {
        assert!(fault_of(wrong, true).is_some(), "{wrong}");
    }
    assert!(fault_of(&format!("{here}::nobody"), false).is_some());
    assert_eq!(fault_of(&format!("{here}::quoted"), false), None);
}

#[test]
fn rows_of_the_threat_model_are_claims() {
    let claims: BTreeSet<String> = rows(&read("docs/CLAIMS.md")).into_iter().map(|row| row.number).collect();
    let text = read("docs/THREAT-MODEL.md");
    let mut named = 0;
    for word in text.split(|letter: char| !letter.is_ascii_alphanumeric()) {
        let digits = word.strip_prefix(['A', 'P']).filter(|digits| !digits.is_empty());
        if digits.is_some_and(|digits| digits.chars().all(|letter| letter.is_ascii_digit())) {
            assert!(claims.contains(word), "THREAT-MODEL.md names row {word}, which CLAIMS.md has not");
            named += 1;
        }
    }
    assert!(named > 40, "the threat model was read");
}

/// Constants of a source file, and what stands behind the equals sign.
fn constants(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("pub const "));
    lines
        .filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            Some((name.to_owned(), rest.split_once('=')?.1.trim().to_owned()))
        })
        .collect()
}

#[test]
fn the_specification_has_every_limit_code_and_route() {
    let specification = read("docs/PROTOCOL.md");
    let mut missing = Vec::new();
    let limits = constants(&read("proto/src/limits.rs"));
    for name in limits.keys().filter(|name| !["KIB", "MIB", "PUBLISHED"].contains(&name.as_str())) {
        if count(&specification, name) == 0 {
            missing.push(format!("limit {name}"));
        }
    }
    let quoted_names: BTreeSet<String> = quoted(&specification).into_iter().collect();
    let in_capitals = |name: &&String| name.ends_with("_MAX") || name.ends_with("_SECONDS");
    for name in quoted_names.iter().filter(in_capitals) {
        if !limits.contains_key(name) {
            missing.push(format!("limit {name}, which the code has not"));
        }
    }
    let problem = read("proto/src/api/problem.rs");
    let codes: Vec<&str> =
        problem.lines().filter_map(|line| line.trim().strip_prefix("(Self::")?.split('"').nth(1)).collect();
    for code in &codes {
        if count(&specification, code) == 0 {
            missing.push(format!("code {code}"));
        }
    }
    let router = read("server/src/router.rs");
    let routes: Vec<String> = router
        .lines()
        .filter_map(|line| line.trim().strip_prefix(".route(\"")?.split('"').next())
        .map(|route| route.replace("{vault}", "{v}").replace("{record}", "{r}"))
        .map(|route| route.replace("{blob}", "{b}").replace("{index}", "{i}").replace("{session}", "{s}"))
        .collect();
    for route in &routes {
        if !specification.contains(route.as_str()) {
            missing.push(format!("route {route}"));
        }
    }
    assert!(limits.len() > 30 && codes.len() > 20 && routes.len() > 30, "the sources were read");
    assert!(missing.is_empty(), "PROTOCOL.md lacks:\n{}", missing.join("\n"));
}
