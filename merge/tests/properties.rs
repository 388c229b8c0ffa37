//! Promises, held against generated edits. `LOCKSTEP_MERGE_CASES` says how many, `LOCKSTEP_MERGE_SEED` replays one.

use crate::common::{Held, by_field, held, merged, outcome, policies, whole};
use crate::schedule::{Dice, End, Scenario, Written, base_json, draw, end, policy_fields, run};
use lockstep_merge::{Outcome, Policies, SameAs, TypePolicy};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

const CASES: u64 = 20_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

type Check = fn(&TypePolicy, &Written, &mut Dice) -> Result<(), String>;

/// Whether it holds for these edits; a panic is a failure like any other.
fn holds(policy: &TypePolicy, scenario: &Scenario, seed: u64, check: Check) -> Result<(), String> {
    let attempt = || check(policy, &scenario.write(policy), &mut Dice::new(seed ^ 0x5eed));
    catch_unwind(AssertUnwindSafe(attempt)).unwrap_or_else(|_| Err("it panicked".to_owned()))
}

/// Takes out devices, versions and changes while it still fails.
fn shrunk(policy: &TypePolicy, mut scenario: Scenario, seed: u64, check: Check) -> Scenario {
    loop {
        let fails = |smaller: &Scenario| holds(policy, smaller, seed, check).is_err();
        let Some(smaller) = smaller(&scenario).into_iter().find(fails) else { return scenario };
        scenario = smaller;
    }
}

fn smaller(scenario: &Scenario) -> Vec<Scenario> {
    let mut found = Vec::new();
    for device in 0..scenario.devices.len() {
        let mut without = scenario.clone();
        without.devices.remove(device);
        found.push(without);
        for step in 0..scenario.devices[device].len() {
            let mut without = scenario.clone();
            without.devices[device].remove(step);
            found.push(without);
            for op in 0..scenario.devices[device][step].ops.len() {
                let mut without = scenario.clone();
                without.devices[device][step].ops.remove(op);
                found.push(without);
            }
        }
    }
    found
}

/// `share` of the cases, since a check of one pair is cheaper than one of many schedules.
fn for_all(name: &str, policy: &TypePolicy, share: u64, check: Check) {
    let seeds = match number("LOCKSTEP_MERGE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LOCKSTEP_MERGE_CASES").unwrap_or(CASES) / share,
    };
    for seed in seeds {
        let scenario = draw(&mut Dice::new(seed));
        if let Err(why) = holds(policy, &scenario, seed, check) {
            let scenario = shrunk(policy, scenario, seed, check);
            let again = holds(policy, &scenario, seed, check).err().unwrap_or_default();
            panic!(
                "{name}: {why}\nshrunk: {scenario:#?}\n{again}\nreplay: LOCKSTEP_MERGE_SEED={seed} cargo test -p \
                 lockstep-merge {name}"
            );
        }
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, a: &T, b: &T) -> Result<(), String> {
    if a == b { Ok(()) } else { Err(format!("{what}:\n{a:?}\n{b:?}")) }
}

fn fail<T>(what: impl Into<String>) -> Result<T, String> {
    Err(what.into())
}

fn everything() -> TypePolicy {
    by_field(&policy_fields())
}

#[test]
fn any_order_gives_the_same_document() {
    for_all("any_order_gives_the_same_document", &everything(), 1, |policy, written, dice| {
        let first = run(policy, written, dice);
        for _ in 0..2 {
            let other = run(policy, written, dice);
            equal("two orders", &end(policy, &first), &end(policy, &other))?;
        }
        Ok(())
    });
}

#[test]
fn any_order_gives_the_same_whole_document() {
    let documents = [("last-write-wins", "last-write-wins"), ("manual", "edit-wins")];
    for (document, delete) in documents {
        let policy = whole(&json!(document), delete);
        for_all("any_order_gives_the_same_whole_document", &policy, 8, |policy, written, dice| {
            let first = end(policy, &run(policy, written, dice));
            equal("two orders", &first, &end(policy, &run(policy, written, dice)))
        });
    }
}

#[test]
fn nothing_is_lost() {
    for_all("nothing_is_lost", &everything(), 2, |policy, written, dice| {
        let end = end(policy, &run(policy, written, dice));
        check_sets(written, &end)?;
        check_extremes(written, &end)?;
        check_sums(written, &end)?;
        check_open(written, &end, &["answer"])?;
        check_open(written, &end, &["place", "answer"])?;
        check_text(written, &end)
    });
}

#[test]
fn it_makes_no_difference_which_side_is_pending() {
    for_all("it_makes_no_difference_which_side_is_pending", &everything(), 2, |policy, written, _| {
        pairs(written, |base, one, two| {
            let (there, back) = (merged(policy, Some(base), one, two), merged(policy, Some(base), two, one));
            if there.document != back.document || there.open != back.open {
                return fail("which side is pending makes a difference");
            }
            let mirrored = match there.same_as {
                SameAs::Local => SameAs::Remote,
                SameAs::Remote => SameAs::Local,
                same => same,
            };
            equal("same as", &mirrored, &back.same_as)
        })
    });
}

#[test]
fn merging_again_changes_nothing() {
    for_all("merging_again_changes_nothing", &everything(), 2, |policy, written, _| {
        pairs(written, |base, one, two| {
            let same = merged(policy, Some(base), one, one);
            if same.document != one.document || same.same_as != SameAs::Both {
                return fail("a version and itself are not that version");
            }
            let both = held(&merged(policy, Some(base), one, two), one);
            // The server has one of them, and the other device meets its own work again.
            for parent in [one, two] {
                let again = merged(policy, Some(parent), &both, parent);
                if again.document != both.document {
                    return fail("what was merged onto a version changes when it meets that version again");
                }
            }
            // Met again with the old base, all is the same but for sums, which count what they meet.
            for side in [one, two] {
                let again = held(&merged(policy, Some(base), &both, side), &both);
                let (mut a, mut b) = (end(policy, &again), end(policy, &both));
                a.fields["count"] = Json::Null;
                b.fields["count"] = Json::Null;
                equal("absorbed", &a, &b)?;
            }
            Ok(())
        })
    });
}

#[test]
fn the_same_input_gives_the_same_bytes_under_a_policy_that_travelled() {
    let policy = policies(&json!({ "lockstep-merge": 1, "types": { "t": {
        "schema": { "oldest": 1, "newest": 2 }, "delete": "edit-wins",
        "document": { "policy": "three-way", "fields": policy_fields(), "default": "last-write-wins" },
    } } }));
    let travelled = Policies::from_cbor(&policy.to_cbor()).unwrap();
    assert!(travelled == Policies::from_json(&policy.to_json()).unwrap() && travelled == policy);
    let name = "the_same_input_gives_the_same_bytes_under_a_policy_that_travelled";
    for_all(name, policy.of("t").unwrap(), 8, |policy, written, _| {
        let travelled = everything();
        pairs(written, |base, one, two| {
            let (a, b) = (merged(policy, Some(base), one, two), merged(&travelled, Some(base), one, two));
            let is_same = a.document == b.document && a.record == b.record && a.open == b.open;
            if is_same { Ok(()) } else { fail("two runs differ") }
        })
    });
}

#[test]
fn deletions_end_the_same_in_any_order() {
    // One device deletes; the others edit.
    let by_field = json!({ "policy": "three-way", "fields": policy_fields(), "default": "last-write-wins" });
    let all = [
        (&by_field, "edit-wins"),
        (&by_field, "delete-wins"),
        (&by_field, "manual"),
        (&json!("last-write-wins"), "last-write-wins"),
    ];
    for (document, delete) in all {
        let policy = whole(document, delete);
        for_all("deletions_end_the_same_in_any_order", &policy, 16, |policy, written, dice| {
            let Some(last) = written.chains[..].last().and_then(|chain| chain.last()) else { return Ok(()) };
            let gone = crate::common::deletion(last.stamp);
            let mut chains = written.chains.clone();
            *chains.last_mut().unwrap() = vec![gone];
            let written = Written { base: written.base.clone(), chains, seen: Vec::new() };
            let see = |head: Held| head.document.is_some().then(|| end(policy, &head));
            let first = see(run(policy, &written, dice));
            equal("two orders", &first, &see(run(policy, &written, dice)))
        });
    }
}

#[test]
fn damaged_documents_are_kept_and_never_a_panic() {
    for_all("damaged_documents_are_kept_and_never_a_panic", &everything(), 2, |policy, written, dice| {
        let head = run(policy, written, dice);
        let mut damaged = head.clone();
        let Some(bytes) = &mut damaged.document else { return Ok(()) };
        for _ in 0..=dice.below(3) {
            let at = dice.index(bytes.len());
            bytes[at] = u8::try_from(dice.below(256)).unwrap();
        }
        let local = written.chains[..].iter().find_map(|chain| chain.last()).unwrap_or(&written.base);
        for (local, remote) in [(local, &damaged), (&damaged, local)] {
            if let Outcome::Merged(merged) = outcome(policy, Some(&written.base), local, remote)
                && merged.document.is_none()
            {
                return fail("a document is gone");
            }
        }
        Ok(())
    });
}

/// Every two devices' last versions.
fn pairs(written: &Written, check: impl Fn(&Held, &Held, &Held) -> Result<(), String>) -> Result<(), String> {
    let last: Vec<&Held> = written.chains.iter().filter_map(|chain| chain.last()).collect();
    for (at, one) in last.iter().enumerate() {
        for two in &last[at + 1..] {
            check(&written.base, one, two)?;
        }
    }
    Ok(())
}

fn field<'a>(json: &'a Json, path: &[&str]) -> &'a Json {
    path.iter().fold(json, |json, name| &json[*name])
}

/// What tells an element of a set from others.
fn key_of(item: &Json) -> &Json {
    item.get("id").unwrap_or(item)
}

fn keys(json: &Json) -> BTreeSet<&str> {
    json.as_array().into_iter().flatten().filter_map(|item| key_of(item).as_str()).collect()
}

fn element<'a>(json: &'a Json, key: &str) -> Option<&'a Json> {
    json.as_array()?.iter().find(|item| key_of(item) == key)
}

/// An element is there if a device added or changed it and has it still, or if it was there and nobody touched it.
fn check_sets(written: &Written, end: &End) -> Result<(), String> {
    for path in [&["tags"][..], &["items"], &["place", "tags"]] {
        let all: BTreeSet<&str> =
            written.seen.iter().flatten().flat_map(|json| keys(field(json, path))).collect();
        for key in all {
            let has = |json: &Json| element(field(json, path), key).cloned();
            let is_touched = |seen: &Vec<Json>| seen.windows(2).any(|pair| has(&pair[0]) != has(&pair[1]));
            let added = |seen: &&Vec<Json>| is_touched(seen) && seen.last().and_then(has).is_some();
            let untouched = has(&base_json()).is_some() && !written.seen.iter().any(is_touched);
            let want = untouched || written.seen.iter().any(|seen| added(&seen));
            if want != has(&end.fields).is_some() {
                return fail(format!("{path:?} {key}: there should be {want}\n{:?}", end.fields));
            }
        }
    }
    Ok(())
}

/// Last values of the devices that changed a field.
fn changed(written: &Written, path: &[&str]) -> Vec<Json> {
    let is_changed =
        |seen: &&Vec<Json>| seen.windows(2).any(|pair| field(&pair[0], path) != field(&pair[1], path));
    written.seen.iter().filter(is_changed).map(|seen| field(&seen[seen.len() - 1], path).clone()).collect()
}

/// How high a value is.
type Rank<'a> = &'a dyn Fn(&Json) -> Option<i64>;

fn check_extremes(written: &Written, end: &End) -> Result<(), String> {
    let rank = |json: &Json| ["odd", "mild", "moderate", "severe"].iter().position(|word| json == word);
    let level = |json: &Json| json.as_u64();
    let checks: [(&str, Rank<'_>); 3] = [
        ("high", &|json| level(json).map(|n| i64::try_from(n).unwrap())),
        ("low", &|json| level(json).map(|n| -i64::try_from(n).unwrap())),
        ("severity", &|json| rank(json).map(|n| i64::try_from(n).unwrap())),
    ];
    for (name, rank) in checks {
        let values = changed(written, &[name]);
        let base = base_json();
        let best = if values.is_empty() { rank(&base[name]) } else { values.iter().filter_map(rank).max() };
        equal(name, &best, &rank(&end.fields[name]))?;
    }
    Ok(())
}

fn check_sums(written: &Written, end: &End) -> Result<(), String> {
    let count = |json: &Json| json["count"].as_i64().unwrap();
    let base = count(&base_json());
    let sum: i64 = written.seen.iter().map(|seen| count(&seen[seen.len() - 1]) - base).sum();
    equal("count", &(base + sum), &count(&end.fields))?;
    let mut entries: Vec<String> = vec!["\"begin\"".to_owned()];
    for seen in &written.seen {
        let log = seen[seen.len() - 1]["log"].as_array().unwrap().iter();
        entries.extend(log.skip(1).map(Json::to_string));
    }
    let mut got: Vec<String> = end.fields["log"].as_array().unwrap().iter().map(Json::to_string).collect();
    entries.sort();
    got.sort();
    equal("log", &entries, &got)
}

/// Every value that a device left in a manual field waits, or is the only one.
fn check_open(written: &Written, end: &End, path: &[&str]) -> Result<(), String> {
    let text = |values: &[Json]| values.iter().map(Json::to_string).collect::<BTreeSet<String>>();
    let values = text(&changed(written, path));
    let open = end.open.iter().find(|(open, _)| open == path).map(|(_, values)| text(values));
    match open {
        Some(open) => equal("open", &values, &open),
        None if values.len() > 1 => fail(format!("{path:?}: nothing waits, but there are {values:?}")),
        None => {
            let base = text(&[field(&base_json(), path).clone()]);
            let want = if values.is_empty() { base } else { values };
            equal("settled", &want, &text(&[field(&end.fields, path).clone()]))
        }
    }
}

/// Every word that a device put in and left in is there.
fn check_text(written: &Written, end: &End) -> Result<(), String> {
    let text = end.fields["note"].as_str().unwrap_or_default();
    let words: BTreeSet<&str> = text.split_whitespace().collect();
    let base = base_json()["note"].as_str().unwrap().to_owned();
    for seen in &written.seen {
        for word in seen[seen.len() - 1]["note"].as_str().unwrap_or_default().split_whitespace() {
            if !words.contains(word) && !base.contains(word) {
                return fail(format!("{word} is gone from {text:?}"));
            }
        }
    }
    // What nobody took out is there, too. Each word of the base stands there once.
    let has = |json: &Json, word: &str| {
        json["note"].as_str().unwrap_or_default().split_whitespace().any(|there| there == word)
    };
    let is_kept = |word: &&str| written.seen.iter().flatten().all(|json| has(json, word));
    match base.split_whitespace().filter(is_kept).find(|word| !words.contains(word)) {
        Some(word) => fail(format!("{word} is gone from {text:?}")),
        None => Ok(()),
    }
}
