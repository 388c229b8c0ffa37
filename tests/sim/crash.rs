//! A fixed script without faults, crashed before and after every single effect of it, one at a time.

use crate::bench::note;
use crate::faults::{Faults, Hooks};
use crate::plan::settle;
use crate::server::PageSizes;
use crate::world::{Moment, World};
use lockstep_engine::effect::Input;

const SIZES: PageSizes = PageSizes { commits: 2, inline: 1, state: 1, envelopes: 1 };

fn world(crashes_at: &[(u64, Moment)]) -> World {
    let mut world = World::new(1, 3, Faults::none(), SIZES, Hooks::HONEST);
    world.crashes_at = crashes_at.to_vec();
    world
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

#[test]
fn every_single_crash_converges() {
    let mut whole = world(&[]);
    script(&mut whole);
    let effects = whole.effects;
    settle(&mut whole);
    assert_eq!(whole.failure, None, "{}", whole.lines.join("\n"));
    for what in ["asked for state", "head moved", "conflict copy", "adopted", "answer lost"] {
        assert!(whole.ledger.counts.contains_key(what), "the script does not reach: {what}");
    }
    assert!(effects > 60, "{effects} effects");
    for place in 1..=effects {
        for moment in [Moment::Before, Moment::After] {
            let mut world = world(&[(place, moment)]);
            script(&mut world);
            assert_eq!(world.ledger.counts.get("crash"), Some(&1), "crash {moment:?} effect {place}");
            settle(&mut world);
            let lines = world.lines.join("\n");
            assert_eq!(world.failure, None, "crash {moment:?} effect {place}\n{lines}");
        }
    }
}
