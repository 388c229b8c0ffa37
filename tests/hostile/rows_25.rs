//! Row 25, bombs of a server: whatever it answers with, on every route, the client ends soon, with little memory, with an
//! error that says whose fault it is, and without having taken anything over.

use super::tap::{Asked, Lie, Tap, cbor, head_of, tapped};
use crate::program::{Done, poll};
use crate::revoke::login_as;
use crate::tree::{noise, write};
use crate::world::{Device, NAME, World};
use lockstep_proto::Digest;
use lockstep_proto::api::account::Devices;
use lockstep_proto::api::vault::{Entries, Entry, Page, VaultInfo, Vaults};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::{RecordId, Revision, Seq, VaultId};
use std::collections::BTreeSet;

/// Argon2id alone takes 64 MiB.
const MEMORY_KIB_MAX: u64 = 224 * 1024;
/// What the kernel buffers of an answer that nobody reads to its end, and what is read of it.
const TAKEN_MAX: u64 = 64 * 1024 * 1024;

type Bomb = (&'static str, fn(&Asked) -> Lie);

/// Bytes that are no structure of ours.
const SHORT: &[Bomb] = &[
    ("deep arrays", |_| cbor(&[0x81; 7000])),
    ("deep endless arrays", |_| cbor(&[0x9f; 7000])),
    ("a huge list", |_| cbor(&[0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
    ("a huge string", |_| cbor(&[0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
    ("a huge list inside", |_| cbor(&[0x82, 0x9b, 0, 0, 0x0f, 0xff, 0xff, 0xff, 0xff, 0xff])),
    ("nothing", |_| cbor(&[])),
    ("twice the answer", |asked| cbor(&asked.answer.repeat(2))),
    ("a byte more", |asked| cbor(&[&asked.answer[..], &[0]].concat())),
    ("a byte less", |asked| cbor(&asked.answer[..asked.answer.len() - 1])),
    // The same array, its length in another form; an array without a length; a tag before it.
    ("a longer head", |asked| cbor(&[&[0x98, asked.answer[0] & 0x1f], &asked.answer[1..]].concat())),
    ("no length", |asked| cbor(&[&[0x9f], &asked.answer[1..], &[0xff]].concat())),
    ("a tag", |asked| cbor(&[&[0xd9, 0xd9, 0xf7], &asked.answer[..]].concat())),
    ("compressed", |_| {
        let mut out = head_of(200, "application/cbor", "content-encoding: gzip\r\ncontent-length: 26\r\n");
        out.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3]);
        out.extend_from_slice(&[0; 16]);
        Lie::Raw(out)
    }),
];

/// Answers without an end.
const LONG: &[Bomb] = &[
    ("a huge content-length", |_| {
        let head = head_of(200, "application/cbor", "content-length: 1152921504606846976\r\n");
        Lie::Endless(head, vec![0x81; 65_536], 16_384)
    }),
    ("endless chunks", |_| {
        let head = head_of(200, "application/cbor", "transfer-encoding: chunked\r\n");
        let chunk = [b"10000\r\n".as_slice(), &[0x81; 65_536], b"\r\n"].concat();
        Lie::Endless(head, chunk, 16_384)
    }),
    ("an endless refusal", |_| {
        let head = head_of(403, "application/problem+json", "transfer-encoding: chunked\r\n");
        let chunk = [b"10000\r\n".as_slice(), &[b'['; 65_536], b"\r\n"].concat();
        Lie::Endless(head, chunk, 16_384)
    }),
];

struct Room {
    world: World,
    tap: Tap,
    number: u32,
}

/// Runs a command and watches its memory.
fn run(device: &Device, arguments: &[&str]) -> (Done, u64) {
    let mut running = device.start(arguments);
    let mut memory = 0;
    let ended = poll(85, || {
        memory = memory.max(running.memory_kib().unwrap_or(0));
        !running.is_running()
    });
    assert!(ended, "it hangs: {arguments:?}");
    (running.done(), memory)
}

impl Room {
    fn new() -> Self {
        let (world, tap) = tapped();
        Self { world, tap, number: 0 }
    }

    /// The routes that a command asks, whose answers have a body.
    fn routes(&self, device: &Device, arguments: &[&str]) -> BTreeSet<String> {
        self.tap.take();
        device.ok(arguments);
        let asked = self.tap.take();
        let bodies = asked.iter().filter(|asked| asked.status == 200 && !asked.answer.is_empty());
        bodies.map(Asked::route).filter(|route| !route.starts_with("GET /v1/vaults/{}/objects/")).collect()
    }

    /// One command, one bomb on one route.
    fn explode(&self, (what, bomb): Bomb, route: &str, device: &Device, arguments: &[&str]) -> Done {
        let wanted = route.to_owned();
        self.tap.lie(move |asked| (asked.route() == wanted && asked.status == 200).then(|| bomb(asked)));
        let (done, memory) = run(device, arguments);
        assert!(self.tap.lies() > 0, "{route} was not asked: {done:?}");
        let is_told =
            done.err.contains("not valid") || done.err.contains("refuses") || done.err.contains("malformed");
        assert!(is_told && !done.err.contains("panicked"), "{what} on {route}: {done:#?}");
        assert!(matches!(done.status, Some(1 | 6)), "{what} on {route}: {done:#?}");
        assert!(memory < MEMORY_KIB_MAX, "{what} on {route}: {memory} KiB");
        assert!(self.tap.taken() < TAKEN_MAX, "{what} on {route}: {} bytes", self.tap.taken());
        self.tap.be_honest();
        done
    }

    /// A home that is new each time.
    fn next(&mut self) -> Device {
        self.number += 1;
        self.world.device(&format!("n-{}", self.number))
    }
}

#[test]
fn row_25_a_signed_in_client_survives_every_bomb_on_every_route() {
    let mut room = Room::new();
    let a = room.world.signup("a");
    a.put("n", "1").ok();
    let b = login_as(&room.world, "b");
    let mut tried = BTreeSet::new();
    // Something new has to be there each time, or it would not be asked for.
    let commands: [&[&str]; 4] = [
        &["record", "get", "--type", "note", "--id", "n"],
        &["record", "history", "--type", "note", "--id", "n"],
        &["session", "list"],
        &["check"],
    ];
    for arguments in commands {
        a.put("n", &room.number.to_string()).ok();
        let first = room.routes(&b, arguments);
        a.put("n", "\"again\"").ok();
        let routes: Vec<String> = room.routes(&b, arguments).intersection(&first).cloned().collect();
        for route in routes {
            if tried.contains(&route) {
                continue;
            }
            for bomb in SHORT.iter().chain(LONG) {
                room.number += 1;
                a.put("n", &room.number.to_string()).ok();
                room.explode(*bomb, &route, &b, arguments);
            }
            tried.insert(route);
        }
        // Nothing stuck.
        assert_eq!(b.get("n"), room.number.to_string());
    }
    for wanted in
        ["GET /v1/vaults", "GET /v1/vaults/{}/commits", "GET /v1/account/sessions", "GET /v1/vaults/{}/state"]
    {
        assert!(tried.contains(wanted), "{wanted} was not tried: {tried:?}");
    }
}

/// Sign-in, sign-up and recovery: nothing is enrolled, and the same command works afterwards.
#[test]
fn row_25_a_client_that_signs_in_survives_bombs() {
    let mut room = Room::new();
    room.world.signup("a").put("n", "1").ok();
    let (passphrase, kit) = (room.world.text("passphrase"), room.world.text("kit"));
    let login = ["login", "--name", NAME, "--passphrase-file", &passphrase];
    let new = room.world.secret("new", "a passphrase after recovery");
    let recover = [
        "recover",
        "--name",
        NAME,
        "--recovery-key-file",
        &kit,
        "--passphrase-file",
        &new,
        "--kit",
        "kit-2",
        "--keep-others",
    ];
    let device = room.next();
    let routes = room.routes(&device, &login);
    assert!(routes.len() >= 7, "{routes:?}");
    for (number, route) in routes.iter().enumerate() {
        // What only comes after the enrolment was accepted leaves a device that the next run finishes.
        let device = room.next();
        for bomb in
            [SHORT[number % SHORT.len()], SHORT[(number + 5) % SHORT.len()], LONG[number % LONG.len()]]
        {
            let wanted = route.clone();
            room.tap
                .lie(move |asked| (asked.route() == wanted && asked.status == 200).then(|| bomb.1(asked)));
            let (done, memory) = run(&device, &login);
            assert!(done.status != Some(0) || room.tap.lies() == 0, "{} on {route}: {done:#?}", bomb.0);
            assert!(
                !done.err.contains("panicked") && memory < MEMORY_KIB_MAX,
                "{}: {memory} {done:#?}",
                bomb.0
            );
            assert!(room.tap.taken() < TAKEN_MAX);
            room.tap.be_honest();
        }
        device.ok(&login);
    }
    for route in ["POST /v1/recovery/start", "POST /v1/recovery/finish"] {
        let device = room.next();
        room.explode(SHORT[0], route, &device, &recover);
        room.explode(LONG[0], route, &device, &recover);
    }
    for (number, route) in ["POST /v1/register/start"].into_iter().enumerate() {
        let device = room.next();
        let kit = format!("kit-new-{number}");
        let name = format!("new-{number}");
        let signup = ["signup", "--name", &name, "--passphrase-file", &new, "--kit", &kit];
        room.explode(SHORT[1], route, &device, &signup);
        room.explode(LONG[1], route, &device, &signup);
        device.ok(&signup);
    }
}

/// An object without an end, of other length, or in a thousand small answers.
#[test]
fn row_25_objects_without_an_end_are_cut_off() {
    let room = Room::new();
    let a = room.world.signup("a");
    write(&room.world.path("docs/f"), noise(1, 100_000));
    a.backup("docs");
    let bombs: [Bomb; 4] = [
        LONG[0],
        LONG[1],
        ("another's head", |_| {
            Lie::Raw([head_of(200, "application/cbor", "content-length: 7\r\n"), vec![0; 7]].concat())
        }),
        ("nothing", |_| Lie::Raw(head_of(200, "application/cbor", "content-length: 0\r\n"))),
    ];
    for (number, (what, bomb)) in bombs.into_iter().enumerate() {
        room.tap
            .lie(move |asked| asked.route().starts_with("GET /v1/vaults/{}/objects/").then(|| bomb(asked)));
        let out = format!("out-{number}");
        let (done, memory) = run(&a, &["restore", &out]);
        assert!(room.tap.lies() > 0 && room.tap.lies() < 10, "{what}: {}", room.tap.lies());
        assert_eq!(done.status, Some(3), "{what}: {done:#?}");
        assert!(done.err.contains("docs/f") && memory < MEMORY_KIB_MAX, "{what}: {memory} {done:#?}");
        assert!(room.tap.taken() < TAKEN_MAX, "{what}: {}", room.tap.taken());
        assert!(!room.world.path(&out).join("docs/f").exists());
        crate::tree::assert_no_parts(&room.world.path(&out));
    }
    room.tap.be_honest();
    a.ok(&["restore", "out"]);
}

/// The same of many objects at once; and a good answer that does not end.
#[test]
fn row_25_an_answer_of_many_objects_without_an_end_is_cut_off() {
    let room = Room::new();
    let a = room.world.signup("a");
    let names = ["four", "one", "three", "two"];
    for (seed, name) in names.iter().enumerate() {
        write(&room.world.path(&format!("docs/{name}")), noise(seed as u64, 100_000));
    }
    a.backup("docs");
    let good_without_an_end: Bomb = ("a good beginning", |asked| {
        let head = head_of(200, "application/octet-stream", "transfer-encoding: chunked\r\n");
        let size = format!("{:x}\r\n", asked.answer.len());
        let chunk = [b"10000\r\n".as_slice(), &vec![0; 65_536], b"\r\n"].concat();
        Lie::Endless([&head[..], size.as_bytes(), &asked.answer, b"\r\n"].concat(), chunk, 16_384)
    });
    // Each answer is of no use from its first wrong byte on; the last object comes by itself, and is served.
    let bombs = [(LONG[0], 3), (LONG[1], 3), (good_without_an_end, 1)];
    for (number, ((what, bomb), missing)) in bombs.into_iter().enumerate() {
        room.tap.lie(move |asked| (asked.route() == "POST /v1/vaults/{}/objects/get").then(|| bomb(asked)));
        let out = format!("out-{number}");
        let (done, memory) = run(&a, &["restore", &out]);
        assert!(room.tap.lies() > 0 && room.tap.lies() < 5, "{what}: {}", room.tap.lies());
        assert_eq!(done.status, Some(3), "{what}: {done:#?}");
        assert!(memory < MEMORY_KIB_MAX, "{what}: {memory} KiB");
        assert!(room.tap.taken() < TAKEN_MAX, "{what}: {}", room.tap.taken());
        crate::tree::assert_no_parts(&room.world.path(&out));
        let there = |name: &&&str| room.world.path(&out).join("docs").join(name).exists();
        assert_eq!(names.iter().filter(there).count(), names.len() - missing, "{what}: {done:#?}");
        for name in names.iter().filter(|name| !there(name)) {
            assert!(done.err.contains(&format!("docs/{name}")), "{what}: {done:#?}");
        }
    }
    room.tap.be_honest();
    a.ok(&["restore", "out"]);
    crate::tree::assert_same(&room.world.path("docs"), &room.world.path("out/docs"));
}

fn entry(seq: u64, number: u64) -> Entry {
    let mut record = [0; 16];
    record[..8].copy_from_slice(&number.to_be_bytes());
    let (record, revision) = (RecordId::from_bytes(record), Revision::new(1));
    Entry { seq: Seq::new(seq), record, revision, kind: 1, envelope: vec![0; 8].into() }
}

/// What is answered, to which requests (their path's end) of which command.
type Answers = (&'static str, &'static str, &'static [&'static str], fn(&Asked) -> Vec<u8>);

/// Pages that are all in order, and promise one more each time.
#[test]
fn row_25_pages_without_an_end_are_given_up() {
    let room = Room::new();
    let a = room.world.signup("a");
    a.put("n", "1").ok();
    let b = login_as(&room.world, "b");
    b.ok(&["status"]);
    a.put("n", "2").ok();
    let answers: Vec<Answers> = vec![
        ("commits that never come", "/commits", &["status"], |asked| {
            let page = Page::decode(&asked.answer).unwrap();
            let head_seq = Seq::new(page.head_seq.value() + (1 << 40));
            Page { head_seq, more: true, commits: Vec::new(), entries: Vec::new() }.encode()
        }),
        ("the same commits again and again", "/commits", &["status"], |asked| {
            let page = Page::decode(&asked.answer).unwrap();
            let commits = page.commits.iter().cycle().take(page.commits.len() * 1000).cloned().collect();
            Page { commits, more: true, ..page }.encode()
        }),
        ("entries that never come", "/state", &["check"], |_| {
            Entries { more: true, entries: Vec::new() }.encode()
        }),
        ("records that nobody wrote", "/state", &["check"], |asked| {
            let from = asked
                .path()
                .split("from-seq=")
                .nth(1)
                .map_or(0, |rest| rest.split('&').next().unwrap().parse::<u64>().unwrap());
            Entries { more: true, entries: (0..2000).map(|number| entry(from + 1, number)).collect() }
                .encode()
        }),
        ("vaults that are none", "/vaults", &["status"], |asked| {
            let mut vaults = Vaults::decode(&asked.answer).unwrap();
            for number in 0..2000_u32 {
                let vault = VaultId::from_slice(&[&number.to_be_bytes()[..], &[7; 12]].concat()).unwrap();
                vaults.0.push(VaultInfo {
                    vault,
                    seq: Seq::new(1 << 50),
                    head: Digest::ZERO,
                    records: 1 << 50,
                });
            }
            vaults.encode()
        }),
    ];
    for (what, end, arguments, answer) in answers {
        room.tap.lie(move |asked| {
            let path = asked.path().split('?').next().unwrap();
            (asked.method() == "GET" && path.ends_with(end)).then(|| cbor(&answer(asked)))
        });
        let (done, memory) = run(&b, arguments);
        let lies = room.tap.lies();
        assert!(lies > 0 && lies < 12, "{what}: {lies} {done:#?}");
        let is_ignored = end == "/vaults" && done.status == Some(0);
        assert!(is_ignored || matches!(done.status, Some(6 | 7)), "{what}: {done:#?}");
        assert!(!done.err.contains("panicked") && memory < MEMORY_KIB_MAX, "{what}: {memory} {done:#?}");
    }
    room.tap.be_honest();
    assert_eq!(b.get("n"), "2");
}

/// A device log that says that it is longer, or as long as a log can be and all of one entry.
#[test]
fn row_25_a_device_log_without_an_end_is_given_up() {
    let mut room = Room::new();
    let _a = room.world.signup("a");
    let totals = [4096, 4097, 1 << 40, u64::MAX >> 1];
    for (number, total) in totals.into_iter().enumerate() {
        for empty in [false, true] {
            room.tap.lie(move |asked| {
                if !asked.route().eq("GET /v1/account/devices") {
                    return None;
                }
                let honest = Devices::decode(&asked.answer).ok()?;
                let from_start = asked.path().ends_with("from=0");
                let one = honest.entries.first().cloned();
                let entries = match one {
                    Some(one) if !empty => vec![one; 256],
                    _ if from_start => honest.entries,
                    _ => Vec::new(),
                };
                Some(cbor(&Devices { total, entries, key_header: honest.key_header }.encode()))
            });
            let device = room.next();
            let (done, memory) =
                run(&device, &["login", "--name", NAME, "--passphrase-file", &room.world.text("passphrase")]);
            assert_eq!(done.status, Some(6), "{number} {empty}: {done:#?}");
            assert!(room.tap.lies() < 20 && memory < MEMORY_KIB_MAX, "{} {memory}", room.tap.lies());
            let asked = room.tap.take();
            assert!(asked.iter().all(|asked| asked.route() != "POST /v1/account/devices"));
        }
    }
}
