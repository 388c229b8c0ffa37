//! Every bit of the golden files, flipped: refused where the file says `sealed`, refused or something else where it says
//! `plain`. Of an archive, and of a byte string of more than 64 KiB: every bit of the first 59 bytes (an object's header)
//! and of the last 256, every 97th bit between.

use crate::{cases, files};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::sign::Signed;
use lockstep_tests::vectors::{Fault, In, hex, run, unhex};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

const WHOLE_BYTES_MAX: usize = 64 * 1024;
const BEGIN_BYTES: usize = 59;
const END_BYTES: usize = 256;
const STEP_BITS: usize = 97;

/// The byte strings in an input: their places as JSON pointers.
fn places(value: &Value, at: String, out: &mut Vec<String>) {
    match value {
        Value::String(_) => out.push(at),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(item, format!("{at}/{index}"), out);
            }
        }
        _ => {}
    }
}

fn bits(op: &str, bytes: usize) -> Vec<usize> {
    if bytes <= WHOLE_BYTES_MAX && op != "archive" {
        return (0..bytes * 8).collect();
    }
    let (begin, end) = (BEGIN_BYTES * 8, (bytes - END_BYTES) * 8);
    (0..begin).chain((begin..end).step_by(STEP_BITS)).chain(end..bytes * 8).collect()
}

/// Of a commit of which only the link is read: whether a bit of the pair is one of what is signed.
fn is_linked(pair: &[u8], bit: usize) -> bool {
    let signed = Signed::decode(pair).unwrap().bytes.0.len();
    let to = pair.len() - 66;
    ((to - signed) * 8..to * 8).contains(&bit)
}

struct Job<'a> {
    file: &'a str,
    op: &'a str,
    case: &'a Value,
    place: String,
    is_sealed: bool,
}

impl Job<'_> {
    /// Flips every bit of one byte string; gives how many.
    fn flip(&self) -> usize {
        let mut input = Value::Object(self.case["in"].as_object().unwrap().clone());
        let mut bytes = unhex(input.pointer(&self.place).unwrap().as_str().unwrap()).unwrap();
        let unread = self.unread();
        let mut flipped = 0;
        for bit in bits(self.op, bytes.len()) {
            if unread == Some(1) || unread == Some(0) && !is_linked(&bytes, bit) {
                continue;
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
            let result = self.read(&mut input, &bytes, bit / 8);
            let where_ = || format!("{}, {}: bit {bit} of {}", self.file, self.case["name"], self.place);
            match result {
                Ok(_) if self.is_sealed => panic!("{}: it is taken", where_()),
                Ok(out) => assert_ne!(out, self.case["out"], "{}: nothing is another", where_()),
                Err(_) => {}
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
            self.put(&mut input, &bytes, bit / 8);
            flipped += 1;
        }
        flipped
    }

    /// Reads the input with `bytes`, of which one is another than before. Objects are large, and go by themselves.
    fn read(&self, input: &mut Value, bytes: &[u8], changed: usize) -> Result<Value, Fault> {
        if self.op == "object" && self.place == "/object" {
            return run::object::open(In(input.as_object().unwrap()), bytes);
        }
        self.put(input, bytes, changed);
        run::run(self.op, input.as_object().unwrap())
    }

    /// Writes one byte into the text.
    fn put(&self, input: &mut Value, bytes: &[u8], changed: usize) {
        let Some(Value::String(text)) = input.pointer_mut(&self.place) else { panic!("no {}", self.place) };
        text.replace_range(2 * changed..2 * changed + 2, &hex(&bytes[changed..=changed]));
    }

    /// For a commit whose link alone is read: which item of the pair of commit and changes it is.
    fn unread(&self) -> Option<usize> {
        let rest = self.place.strip_prefix("/commits/")?;
        let (commit, item) = rest.split_once('/')?;
        let commit: u64 = commit.parse().unwrap();
        let unread = self.case.get("unread")?.as_array()?;
        unread.iter().any(|place| place.as_u64() == Some(commit)).then(|| item.parse().unwrap())
    }
}

fn names<'a>(file: &'a Value, list: &str) -> Vec<&'a str> {
    file[list].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

/// What stands before and in a commit of a chain: what a reader of it knows then.
fn beginning(case: &Value, place: &str) -> Option<String> {
    let (commit, _) = place.strip_prefix("/commits/")?.split_once('/')?;
    let commit: usize = commit.parse().unwrap();
    Some(format!("{place} {} {:?}", case["in"]["create"], &case["in"]["commits"].as_array()?[..=commit]))
}

fn jobs(files: &[(String, Value)]) -> Vec<Job<'_>> {
    let (mut jobs, mut seen) = (Vec::new(), BTreeSet::new());
    for (name, file) in files {
        for (list, is_sealed) in [("sealed", true), ("plain", false)] {
            for input in names(file, list) {
                for case in cases(file) {
                    let mut found = Vec::new();
                    places(&case["in"][input], format!("/{input}"), &mut found);
                    found.retain(|place| {
                        beginning(case, place).is_none_or(|beginning| seen.insert(beginning))
                    });
                    let op = file["op"].as_str().unwrap();
                    jobs.extend(found.into_iter().map(|place| Job {
                        file: name,
                        op,
                        case,
                        place,
                        is_sealed,
                    }));
                }
            }
        }
    }
    jobs
}

#[test]
fn every_flipped_bit_is_refused_or_gives_something_else() {
    let files = files("golden");
    let jobs = jobs(&files);
    assert!(jobs.len() > 300, "{} byte strings", jobs.len());
    let (next, count) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    count.fetch_add(job.flip(), Ordering::Relaxed);
                }
            });
        }
    });
    let count = count.into_inner();
    assert!(count > 500_000, "{count} bits were flipped");
}

/// Golden files none of whose inputs is a byte string that could be refused or say something else, and why.
const WITHOUT: &[(&str, &str)] = &[
    ("golden/pad.json", "numbers"),
    ("golden/skip.json", "numbers"),
    ("golden/recovery-text.json", "a text, of which every wrong letter is tried"),
    ("golden/checkpoint.json", "a text with a checksum"),
    ("golden/passphrase-kek.json", "every try runs Argon2id; the wraps are flipped under derived KEKs"),
    ("golden/archive-parts.json", "pieces of golden/archive.json"),
    ("golden/opaque.json", "every try runs Argon2id; the fields of KE2 are in reject/opaque.json"),
];

#[test]
fn every_golden_file_says_what_may_be_flipped() {
    for (name, file) in files("golden") {
        let flipped = names(&file, "sealed").len() + names(&file, "plain").len();
        let is_without = WITHOUT.iter().any(|without| without.0 == name);
        assert_eq!(flipped == 0, is_without, "{name}");
        let none = Map::new();
        for input in names(&file, "sealed").into_iter().chain(names(&file, "plain")) {
            let found =
                cases(&file).iter().all(|case| case["in"].as_object().unwrap_or(&none).contains_key(input));
            assert!(found, "{name} has no input {input}");
        }
    }
}
