//! How fast a run goes, and what it says of it.

use crate::tree::{noise, set_mode, write};
use crate::world::World;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// What so many bytes take at least at a rate; a tenth is for what the limit may be off.
fn least(bytes: u32, rate: u32) -> Duration {
    Duration::from_secs(1) * bytes / rate * 9 / 10
}

/// No slower than that is checked where time stands still (`client/src/api/pace.rs`).
#[test]
fn contents_go_and_come_no_faster_than_the_limit() {
    let world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/framed"), noise(1, 1_000_000));
    write(&world.path("docs/in parts"), noise(2, 6_000_000));
    // Contents that ride in records, too.
    for number in 0..60 {
        write(&world.path(&format!("docs/{number}")), noise(number + 10, 15_000));
    }
    let bytes = 1_000_000 + 6_000_000 + 60 * 15_000;
    let begun = Instant::now();
    a.ok(&["backup", "docs", "--limit-rate", "2M"]);
    assert!(begun.elapsed() >= least(bytes, 2 << 20), "sent in {:?}", begun.elapsed());
    let begun = Instant::now();
    a.ok(&["restore", "out", "--limit-rate", "2MiB"]);
    assert!(begun.elapsed() >= least(7_000_000, 2 << 20), "fetched in {:?}", begun.elapsed());
    crate::tree::assert_same(&world.path("docs"), &world.path("out/docs"));
}

#[test]
fn a_limit_that_no_server_waits_for_is_refused() {
    let world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/a"), "a");
    a.run(&["backup", "docs", "--limit-rate", "10K"]).ends(2, &["too low", "64K"]);
    a.run(&["backup", "docs", "--limit-rate", "fast"]).ends(2, &["fast", "500K"]);
    a.run(&["snapshots"]).ends(11, &["no vault"]);
}

/// The server says no while a slow body is still on its way.
#[test]
fn a_refusal_is_heard_however_slow_the_body_goes() {
    let world = World::with(&[("LOCKSTEP_QUOTA", "1 MB")]);
    let a = world.signup("a");
    write(&world.path("docs/a"), noise(1, 3_500_000));
    a.run(&["backup", "docs", "--limit-rate", "1M"]).ends(10, &["quota"]);
    write(&world.path("docs/a"), noise(1, 6_000_000));
    a.run(&["backup", "docs", "--limit-rate", "1M"]).ends(10, &["quota"]);
}

const FIELDS: [&str; 10] = [
    "bytes",
    "bytes_per_second",
    "bytes_total",
    "entries",
    "entries_total",
    "progress",
    "seconds",
    "seconds_left",
    "source",
    "state",
];

/// Lines of progress among what was said, each with all of its fields and no other.
#[track_caller]
fn lines(said: &str) -> Vec<Value> {
    let lines = said.lines().filter(|line| line.starts_with('{'));
    let values: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    for value in &values {
        let fields: BTreeSet<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, BTreeSet::from(FIELDS));
    }
    values
}

#[test]
fn progress_for_programs_is_an_object_a_line() {
    let world = World::new();
    let a = world.signup("a");
    for number in 0..1500 {
        write(&world.path(&format!("docs/{number}")), "some text");
    }
    write(&world.path("more/x"), noise(1, 100_000));
    let begun = Instant::now();
    let done = a.ok(&["--json", "backup", "docs", "more", "--progress", "json"]);
    let quarters = begun.elapsed().as_millis() / 250;
    assert_eq!(done.json().as_array().unwrap().len(), 2, "results stay on standard output");
    let said = lines(&done.err);
    assert_eq!(said.len(), done.err.lines().count());
    // A first and a last line a source, and four a second.
    assert!(said.len() >= 4 && said.len() as u128 <= 4 + quarters, "{}: {done:?}", said.len());
    let of = |name: &str| -> Vec<&Value> {
        let root = world.path(name);
        said.iter()
            .filter(|line| line["source"] == root.to_str().unwrap() || line["source"] == name)
            .collect()
    };
    for (name, entries, bytes) in [("docs", 1501, 1500 * 9), ("more", 2, 100_000)] {
        let lines = of(name);
        let (last, before) = lines.split_last().unwrap();
        for line in before {
            assert_eq!((&line["progress"], &line["state"]), (&"backup".into(), &"running".into()), "{line}");
            assert_eq!((&line["entries_total"], &line["bytes_total"]), (&entries.into(), &bytes.into()));
            assert!(line["entries"].as_u64() <= Some(entries) && line["bytes"].as_u64() <= Some(bytes));
        }
        assert_eq!((&last["state"], &last["seconds_left"]), (&"done".into(), &0.into()));
        assert_eq!((&last["entries"], &last["bytes"]), (&entries.into(), &bytes.into()));
    }
    let done = a.ok(&["restore", "out", "--progress", "json"]);
    let said = lines(&done.err);
    let last = said.last().unwrap();
    assert_eq!((&last["progress"], &last["state"]), (&"restore".into(), &"done".into()), "{done:?}");
    assert_eq!(last["bytes"], last["bytes_total"]);
    assert!(a.ok(&["backup", "docs", "--progress", "none"]).err.is_empty());
}

#[test]
fn the_last_line_says_how_it_ended() {
    let mut world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/a"), "a");
    std::fs::write(world.path("docs/.lockstepignore"), "[z-a]\n").unwrap();
    let last = |said: &str| lines(said).pop().unwrap()["state"].clone();
    let done = a.run(&["backup", "docs", "--progress", "json"]).ends(3, &["line 1 "]);
    assert_eq!(last(&done.err), "incomplete");
    std::fs::remove_file(world.path("docs/.lockstepignore")).unwrap();
    // What is there already stays, and is told.
    write(&world.path("out/docs/a"), "mine");
    let done = a.run(&["restore", "out", "--progress", "json"]).ends(3, &["docs/a"]);
    assert_eq!(last(&done.err), "incomplete");
    set_mode(&world.path("out/docs/a"), 0o644);
    let input = std::fs::File::open(world.path("")).unwrap();
    let running = a.start_with(&["backup", "--stdin", "x", "--progress", "json"], input.into());
    let done = running.done().ends(1, &["standard input"]);
    assert_eq!(last(&done.err), "failed");
    assert_eq!(lines(&done.err).pop().unwrap()["progress"], "read");
    world.server.stop();
}
