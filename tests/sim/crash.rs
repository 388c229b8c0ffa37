//! Fixed scripts without faults, crashed before and after every single effect of them, one at a time; in long runs at
//! every two of them.

use crate::bench::{Desk, note};
use crate::faults::{Faults, Hooks};
use crate::plan::settle;
use crate::repair::{by_identity, publish, repair};
use crate::server::{ModelServer, PageSizes};
use crate::tamper::Draft;
use crate::world::{Moment, World};
use crate::{fixture::FIXTURE, number};
use lockstep_client_crypto::content::BlobRef;
use lockstep_engine::effect::{Input, NewRecord};
use lockstep_engine::replica::Pinning;
use lockstep_proto::Digest;
use lockstep_proto::cbor::ByteArray;
use lockstep_proto::id::{BlobId, Seq};
use std::num::NonZero;
use std::sync::Mutex;

const SIZES: PageSizes = PageSizes { commits: 2, inline: 1, state: 1, envelopes: 1 };

/// A script with what it must reach when nothing crashes.
struct Flow {
    name: &'static str,
    devices: usize,
    play: fn(&mut World),
    reaches: &'static [&'static str],
}

const FLOWS: [Flow; 8] = [
    Flow {
        name: "clashes and races",
        devices: 3,
        play: script,
        reaches: &["asked for state", "head moved", "conflict copy", "adopted", "answer lost"],
    },
    Flow {
        name: "revoke and rotate",
        devices: 3,
        play: revocation,
        reaches: &["keys behind", "revocation", "rotated"],
    },
    Flow { name: "staging", devices: 2, play: staging, reaches: &["staged at the server"] },
    Flow { name: "snapshots", devices: 2, play: snapshots, reaches: &["unpinned"] },
    Flow { name: "deletions only", devices: 2, play: beyond_quota, reaches: &["deletions only"] },
    Flow { name: "abandon", devices: 2, play: missing_objects, reaches: &["abandoned"] },
    Flow { name: "repair past a fault", devices: 2, play: fault, reaches: &["repair"] },
    Flow { name: "repair that goes back", devices: 2, play: gone_back_over, reaches: &["repair"] },
];

impl Flow {
    /// Plays it, crashing at these places, and lets everything come to rest.
    fn run(&self, crashes_at: &[(u64, Moment)]) -> World {
        let mut world = World::new(1, self.devices, Faults::none(), SIZES, Hooks::HONEST);
        world.crashes_at = crashes_at.to_vec();
        (self.play)(&mut world);
        world
    }

    /// All of it, then the checks.
    fn holds(&self, crashes_at: &[(u64, Moment)]) {
        let mut world = self.run(crashes_at);
        let crashes = world.ledger.counts.get("crash").copied().unwrap_or_default();
        // After the first crash the script may be too short for the second.
        assert!((1..=crashes_at.len() as u64).contains(&crashes), "{}: {crashes_at:?}", self.name);
        settle(&mut world);
        let lines = world.lines.join("\n");
        assert_eq!(world.failure, None, "{}: crash at {crashes_at:?}\n{lines}", self.name);
    }
}

fn put(world: &mut World, device: usize, name: &str, document: Option<&[u8]>) {
    world.input(device, Input::Put(vec![note(name, document)]));
    world.drain(1000);
}

fn sync(world: &mut World, device: usize) {
    world.input(device, Input::Sync);
    world.drain(10_000);
}

/// Write, pull, batch, clash, equal writes, deletion, a lost answer, lost races until staging.
fn script(world: &mut World) {
    put(world, 0, "a", Some(b"one"));
    sync(world, 0);
    sync(world, 1);
    let batch = ["a", "b", "c"].map(|name| note(name, Some(b"batch"))).to_vec();
    world.input(0, Input::Put(batch));
    put(world, 0, "a", Some(b"upon the batch"));
    put(world, 1, "a", Some(b"at the same time"));
    put(world, 1, "c", Some(b"batch"));
    put(world, 1, "b", None);
    sync(world, 0);
    sync(world, 1);
    sync(world, 2);
    put(world, 2, "a", None);
    sync(world, 2);
    sync(world, 0);
    put(world, 0, "d", Some(b"its answer is lost"));
    world.lose_answers = 1;
    sync(world, 0);
    put(world, 0, "d", Some(b"and more upon it"));
    sync(world, 0);
    races(world);
    sync(world, 2);
}

/// Two devices push at the same time, again and again.
fn races(world: &mut World) {
    for round in 0..3_u8 {
        for device in 0..2 {
            for name in ["x", "y", "z"] {
                let document = [round, device as u8];
                world.input(device, Input::Put(vec![note(name, Some(&document))]));
                world.input(device, Input::Sync);
            }
        }
        world.drain(10_000);
    }
}

fn put_all(world: &mut World, device: usize, records: Vec<NewRecord>) {
    world.input(device, Input::Put(records));
    world.drain(1000);
}

/// A device is revoked while a commit that does not know of it is under way; who stays goes on under a new key.
fn revocation(world: &mut World) {
    for device in 0..3 {
        put(world, device, "a", Some(b"before"));
        sync(world, device);
    }
    put(world, 1, "a", Some(b"its answer is lost"));
    world.lose_answers = 1;
    sync(world, 1);
    put(world, 1, "b", Some(b"waits"));
    put(world, 2, "c", Some(b"waits, too"));
    world.input(1, Input::Sync);
    world.revoke(0);
    world.drain(10_000);
    for device in [1, 2, 0] {
        sync(world, device);
        put(world, device, "a", Some(b"after"));
    }
    (0..3).for_each(|device| sync(world, device));
}

/// A device that has many commits to send is faster than another, again and again, until that one stages first.
fn staging(world: &mut World) {
    put(world, 1, "b", Some(b"loses"));
    sync(world, 1);
    sync(world, 0);
    put(world, 1, "b", Some(b"loses again"));
    for number in 0..6_u8 {
        put_all(world, 0, ["x", "y", "z"].map(|name| note(name, Some(&[number]))).to_vec());
    }
    world.input(0, Input::Sync);
    world.input(1, Input::Sync);
    world.drain(10_000);
    (0..2).for_each(|device| sync(world, device));
}

/// Snapshots are made and forgotten, one of them by both devices.
fn snapshots(world: &mut World) {
    let snapshot = |name, pin| NewRecord { pin, ..note(name, Some(b"snapshot")) };
    let forget = |name, seq| NewRecord { pin: Pinning::Unpin(Seq::new(seq)), ..note(name, None) };
    for name in ["one", "two"] {
        put_all(world, 0, vec![note("file", Some(name.as_bytes())), snapshot(name, Pinning::Pin)]);
        sync(world, 0);
    }
    sync(world, 1);
    for device in 0..2 {
        put_all(world, device, vec![forget("one", 1)]);
    }
    put_all(world, 0, vec![forget("two", 1), snapshot("three", Pinning::Pin), note("behind", Some(b"1"))]);
    (0..2).for_each(|device| sync(world, device));
    sync(world, 0);
}

/// Beyond its quota an account can delete, and everything else waits.
fn beyond_quota(world: &mut World) {
    let names = ["a", "b", "c"];
    put_all(world, 0, names.map(|name| note(name, Some(b"1"))).to_vec());
    (0..2).for_each(|device| sync(world, device));
    world.server.refuses_puts = true;
    put(world, 0, "a", Some(b"waits"));
    put(world, 0, "b", None);
    put(world, 1, "c", None);
    put(world, 1, "b", Some(b"waits, too"));
    (0..2).for_each(|device| sync(world, device));
    put(world, 0, "c", Some(b"and this"));
    sync(world, 0);
    world.server.refuses_puts = false;
    (0..2).for_each(|device| sync(world, device));
}

/// An object is missing at the server: what names it is taken back, and written again once it is there.
fn missing_objects(world: &mut World) {
    let blob = BlobId::from_bytes([0xb1; 16]);
    let seed = ByteArray([7; 32]);
    let reference = BlobRef { blob, size: 1, content_hash: Digest::ZERO, seed, chunk_log2: 16 };
    let file = |document: &[u8]| NewRecord { blobs: vec![reference.clone()], ..note("file", Some(document)) };
    world.server.missing.insert(blob);
    put_all(world, 0, vec![note("first", Some(b"1")), file(b"1")]);
    put(world, 0, "file", Some(b"upon it"));
    put(world, 0, "last", Some(b"1"));
    sync(world, 0);
    sync(world, 1);
    world.input(0, Input::Abandon(vec![blob]));
    world.drain(1000);
    sync(world, 0);
    world.server.missing.clear();
    put_all(world, 0, vec![file(b"again")]);
    (0..2).for_each(|device| sync(world, device));
}

/// A device that stands at a server's head, for whoever signs a repair.
fn signer(server: &ModelServer) -> Desk {
    let mut desk = Desk::new(3);
    desk.sync(&mut server.clone());
    desk
}

/// A device breaks a rule; the owner leads the chain past it.
fn fault(world: &mut World) {
    world.has_repairs = true;
    put(world, 0, "a", Some(b"1"));
    (0..2).for_each(|device| sync(world, device));
    put(world, 1, "b", Some(b"waits"));
    let good = world.server.clone();
    let mut draft = Draft::new(&world.server, &FIXTURE.devices[4], b"f");
    draft.commit.state = draft.commit.changes;
    draft.publish(&mut world.server, &FIXTURE.devices[4]);
    (0..2).for_each(|device| sync(world, device));
    let repair = repair(&world.server, &signer(&good), good.tip.seq, Vec::new(), by_identity);
    publish(&mut world.server, &good, &repair);
    (0..2).for_each(|device| sync(world, device));
    put(world, 0, "a", Some(b"2"));
    (0..2).for_each(|device| sync(world, device));
}

/// The owner gives up what a device wrote; another one had taken it already, and wrote upon it.
fn gone_back_over(world: &mut World) {
    world.has_repairs = true;
    put(world, 0, "a", Some(b"1"));
    (0..2).for_each(|device| sync(world, device));
    let good = world.server.clone();
    put(world, 1, "a", Some(b"given up"));
    put(world, 1, "b", Some(b"given up, too"));
    (0..2).for_each(|device| sync(world, 1 - device));
    put(world, 0, "a", Some(b"upon it"));
    put(world, 1, "c", Some(b"waits"));
    if world.server.tip.seq > good.tip.seq {
        let repair = repair(&world.server, &signer(&good), good.tip.seq, Vec::new(), by_identity);
        publish(&mut world.server, &good, &repair);
    }
    (0..2).for_each(|device| sync(world, device));
    sync(world, 0);
}

/// Every effect of a flow, before and after it.
fn moments(flow: &Flow) -> Vec<(u64, Moment)> {
    let mut whole = flow.run(&[]);
    let effects = whole.effects;
    for what in flow.reaches {
        assert!(
            whole.ledger.counts.contains_key(what),
            "{} does not reach: {what}\n{}",
            flow.name,
            whole.lines.join("\n")
        );
    }
    settle(&mut whole);
    assert_eq!(whole.failure, None, "{}: {}", flow.name, whole.lines.join("\n"));
    (1..=effects).flat_map(|place| [(place, Moment::Before), (place, Moment::After)]).collect()
}

#[test]
fn every_single_crash_converges() {
    let pairs = number("LOCKSTEP_SIM_PAIRS").is_some();
    for flow in &FLOWS {
        let moments = moments(flow);
        assert!(moments.len() > 40, "{}: {} moments", flow.name, moments.len());
        let singles = moments.iter().map(|moment| vec![*moment]);
        let doubles = moments.iter().enumerate().flat_map(|(index, first)| {
            let later = moments.iter().skip(index + 1).filter(|_| pairs);
            later.map(|second| vec![*first, *second])
        });
        let runs: Vec<Vec<(u64, Moment)>> = singles.chain(doubles).collect();
        let queue = Mutex::new(runs.iter());
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, NonZero::get) {
                scope.spawn(|| {
                    while let Some(crashes_at) = { queue.lock().unwrap().next() } {
                        flow.holds(crashes_at);
                    }
                });
            }
        });
        println!("crash: {}: {} effects, {} runs", flow.name, moments.len() / 2, runs.len());
    }
}
