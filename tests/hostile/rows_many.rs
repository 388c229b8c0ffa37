//! Row 8: the answer of many objects. Whatever stands in it, no file appears that is not whole and right, each that
//! does not is named, and what the lie was not about is restored.

use crate::scene::{assert_told, document, world_behind};
use crate::tree::{assert_no_parts, assert_same, noise};
use crate::world::{Device, World};
use lockstep_proto::id::BlobId;
use lockstep_tests::hostile::scenario::object::{framed, frames_of};
use lockstep_tests::hostile::{Answer, Hostile, Reply, Route, Rule};

const MANY: &str = "POST /v1/vaults/{}/objects/get";
const NAMES: [&str; 4] = ["four", "one", "three", "two"];
const BYTES: usize = 100_000;

type Frames = Vec<(BlobId, Vec<u8>)>;

fn fill(world: &World) {
    for (seed, name) in NAMES.iter().enumerate() {
        document(world, name, &noise(seed as u64 + 1, BYTES));
    }
}

/// A change of the body of every such answer; how many objects it has is for the change to say.
fn body(name: &str, change: impl Fn(&Frames, Vec<u8>) -> Vec<u8> + Send + 'static) -> Rule {
    let route = Route::new(MANY);
    Rule::answer(name, move |request, answer| {
        if answer.status != 200 || !route.fits(request) {
            return false;
        }
        answer.body = change(&frames_of(&answer.body), answer.body.clone());
        true
    })
}

fn frames(name: &str, change: impl Fn(&mut Frames) + Send + 'static) -> Rule {
    body(name, move |frames, _| {
        let mut frames = frames.clone();
        change(&mut frames);
        framed(&frames)
    })
}

/// Restores while the server lies; gives how many files are missing. What is there is right, what is not is named.
fn restore(world: &World, hostile: &Hostile, device: &Device, rule: Rule) -> usize {
    let _ = std::fs::remove_dir_all(world.path("out"));
    let name = rule.name.clone();
    let hits = hostile.arm_all(vec![rule]);
    let done = device.run(&["restore", "out"]);
    hostile.disarm();
    assert_told(&hits);
    assert_no_parts(&world.path("out"));
    let mut missing = 0;
    for (seed, file) in NAMES.iter().enumerate() {
        if let Ok(bytes) = std::fs::read(world.path(&format!("out/docs/{file}"))) {
            assert!(bytes == noise(seed as u64 + 1, BYTES), "{name}: {file} is there and wrong");
        } else {
            missing += 1;
            let line = format!("docs/{file}: object ");
            assert!(done.err.contains(&line), "{name}: {done:#?}");
        }
    }
    assert_eq!(done.status, Some(if missing == 0 { 0 } else { 3 }), "{name}: {done:#?}");
    missing
}

/// Files in order of their paths travel in one request, and so do their objects in the answer.
fn many() -> (World, Hostile, Device) {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    fill(&world);
    a.backup("docs");
    hostile.forget();
    a.ok(&["restore", "whole"]);
    assert_same(&world.path("docs"), &world.path("whole/docs"));
    assert_eq!(hostile.requests(MANY).len(), 1);
    assert_eq!(hostile.requests("GET /v1/vaults/{}/objects/{}").len(), 0);
    (world, hostile, a)
}

#[test]
fn row_08_an_answer_of_other_objects_than_were_asked_for() {
    let (world, hostile, a) = many();
    // Each answer is of no use from its first wrong frame on; what follows is asked for anew, and the last by itself.
    let cases: Vec<(Rule, usize)> = vec![
        (frames("swapped", |frames| frames.swap(0, 1)), 3),
        (frames("reversed", |frames| frames.reverse()), 3),
        (
            frames("contents-swapped", |frames| {
                let (first, second) = frames.split_at_mut(1);
                std::mem::swap(&mut first[0].1, &mut second[0].1);
            }),
            2,
        ),
        (frames("first-left-out", |frames| drop(frames.remove(0))), 3),
        (frames("first-twice", |frames| frames.insert(0, frames[0].clone())), 2),
        (
            frames("first-in-all-places", |frames| {
                let first = frames[0].clone();
                frames.fill(first);
            }),
            2,
        ),
        (frames("another-id", |frames| frames[0].0 = BlobId::from_bytes([9; 16])), 3),
        (frames("one-more", |frames| frames.push((BlobId::from_bytes([9; 16]), vec![7]))), 1),
        (frames("one-more-that-is-missing", |frames| frames.push((frames[0].0, Vec::new()))), 1),
        (frames("none-there", |frames| frames.iter_mut().for_each(|frame| frame.1.clear())), 4),
        (frames("shorter", |frames| frames[0].1.truncate(1000)), 3),
        (frames("longer", |frames| frames[0].1.push(0)), 3),
        (body("a-byte-more", |_, body| [&body[..], &[0]].concat()), 1),
        (body("twice", |_, body| body.repeat(2)), 1),
        // What it says of its length is not what it is: the next header is not where it has to be.
        (
            body("says-one-less", |_, mut body| {
                body[19] = body[19].wrapping_sub(1);
                body
            }),
            3,
        ),
        (
            body("says-four-gigabytes", |_, mut body| {
                body[16..20].fill(0xff);
                body
            }),
            3,
        ),
    ];
    for (rule, expected) in cases {
        let name = rule.name.clone();
        assert_eq!(restore(&world, &hostile, &a, rule), expected, "{name}");
    }
    a.ok(&["restore", "whole"]);
}

/// Where an answer breaks off, and where there is none, the rest comes all the same.
#[test]
fn row_08_an_answer_of_many_that_breaks_off_is_gone_on_with() {
    let (world, hostile, a) = many();
    let object = frames_len(&hostile);
    for cut in [0, 1, 19, 20, 21, object - 1, object, object + 10, 2 * object + 1000, 4 * object - 1] {
        let rule = body("cut-off", move |_, body| body[..cut.min(body.len() - 1)].to_vec());
        hostile.forget();
        assert_eq!(restore(&world, &hostile, &a, rule), 0, "after {cut} bytes");
        let asked = hostile.requests(MANY).len() + hostile.requests("GET /v1/vaults/{}/objects/{}").len();
        assert!(asked <= 8, "after {cut} bytes it took {asked} requests");
    }
    let route = Route::new(MANY);
    for (status, code) in
        [(404, "not_found"), (405, "method_not_allowed"), (413, "too_large"), (400, "malformed")]
    {
        let route = route.clone();
        let refused = Rule::before("refused", move |request| {
            route.fits(request).then(|| Reply::Answer(Answer::problem(status, code, "no")))
        });
        assert_eq!(restore(&world, &hostile, &a, refused), 0, "{code}");
    }
}

/// Bytes of one frame.
fn frames_len(hostile: &Hostile) -> usize {
    let answers = hostile.answers(MANY);
    answers[0].body.len() / NAMES.len()
}

/// A check names what a server does not show, or shows wrong, and reads everything else.
#[test]
fn row_08_a_check_names_what_many_objects_lack() {
    let (_world, hostile, a) = many();
    let cases: Vec<(Rule, usize, &str)> = vec![
        (frames("none-there", |frames| frames.iter_mut().for_each(|frame| frame.1.clear())), 4, "is missing"),
        (frames("flipped", |frames| frames.iter_mut().for_each(|frame| frame.1[77] ^= 1)), 4, "is damaged"),
        (frames("swapped", |frames| frames.swap(0, 1)), 3, "is damaged"),
    ];
    for (rule, count, text) in cases {
        let name = rule.name.clone();
        let hits = hostile.arm_all(vec![rule]);
        let done = a.run(&["--json", "check", "--read-data"]);
        hostile.disarm();
        assert_told(&hits);
        assert_eq!(done.status, Some(7), "{name}: {done:#?}");
        let told = done.json();
        let problems = told["problems"].as_array().unwrap();
        assert_eq!((problems.len(), &told["objects"]), (count, &(4 - count).into()), "{name}: {told}");
        assert!(problems.iter().all(|problem| problem.as_str().unwrap().contains(text)), "{name}: {told}");
    }
    a.ok(&["check", "--read-data"]);
}
