//! A revocation pins commits that the server then loses: it is put back to a copy from before them, and other commits
//! come in their place. The owner's word joins the two.

use crate::heal::{heal, heal_with_cuts};
use crate::proxy::Proxy;
use crate::revoke::{login_as, revoke};
use crate::tree::copy;
use crate::world::{Device, World};

/// The owner's device, a good one, and one that was revoked; the server has forgotten the revocation and the commit
/// before it, which the revocation pins.
struct Lost {
    world: World,
    owner: Device,
    good: Device,
    revoked: Device,
}

/// `is_seen`: whether the good device saw what was lost.
fn lost(is_seen: bool) -> Lost {
    lost_in(World::new(), is_seen)
}

fn lost_in(mut world: World, is_seen: bool) -> Lost {
    let owner = world.signup("a");
    let (revoked, good) = (login_as(&world, "b"), login_as(&world, "c"));
    owner.put("x", "\"old\"").ok();
    for device in [&good, &revoked] {
        assert_eq!(device.get("x"), "\"old\"");
    }
    let copy = world.path("copy");
    world.server.back_up(&copy);
    owner.put("n", "\"today\"").ok();
    owner.put("x", "\"new\"").ok();
    revoke(&world, &owner, "b").ok();
    if is_seen {
        assert_eq!(good.get("n"), "\"today\"");
    }
    world.server.put_back(&copy, true, true);
    Lost { world, owner, good, revoked }
}

/// Both devices have what was lost, and neither has anything of the revoked one.
#[track_caller]
fn is_joined(one: &Lost) {
    for device in [&one.owner, &one.good, &one.owner] {
        device.ok(&["status"]);
        assert_eq!(device.get("n"), "\"today\"");
        device.run(&["record", "get", "--type", "note", "--id", "late"]).ends(11, &[]);
    }
    assert_eq!(one.owner.get("x"), one.good.get("x"));
    let done = heal(&one.world, &one.owner).ok();
    assert!(done.out.contains("nothing to heal"), "{done:#?}");
    one.revoked.run(&["status"]).ends(5, &[]);
}

#[test]
fn the_revoked_device_wrote_in_place_of_what_was_pinned() {
    for is_seen in [false, true] {
        let one = lost(is_seen);
        one.revoked.put("late", "\"of a device that was revoked\"").ok();
        one.owner.run(&["status"]).ends(6, &[]);
        heal(&one.world, &one.owner).ok();
        is_joined(&one);
        assert_eq!(one.good.get("x"), "\"new\"");
        let kept = one.owner.ok(&["--json", "heal", "--review"]).json().to_string();
        assert!(kept.contains("of a device that was revoked"), "{kept}");
    }
}

/// More commits than the pinned chain had, the good device's behind them.
#[test]
fn a_good_device_wrote_behind_the_revoked_one() {
    let one = lost(false);
    for name in ["late", "later", "latest"] {
        one.revoked.put(name, "\"of a device that was revoked\"").ok();
    }
    one.good.put("good", "\"of a device that was not\"").ok();
    heal(&one.world, &one.owner).ok();
    is_joined(&one);
    for device in [&one.owner, &one.good] {
        assert_eq!(device.get("good"), "\"of a device that was not\"");
    }
}

/// Nobody has to be blamed: a good device wrote there.
#[test]
fn a_good_device_wrote_in_place_of_what_was_pinned() {
    let one = lost(false);
    one.good.put("good", "\"of a device that was not\"").ok();
    one.good.put("x", "\"of a device that was not\"").ok();
    heal(&one.world, &one.owner).ok();
    is_joined(&one);
    for device in [&one.owner, &one.good] {
        assert_eq!(device.get("good"), "\"of a device that was not\"");
        let list = device.ok(&["record", "list", "--type", "note"]).out;
        assert!(list.contains("x~"), "one of the two edits of x is gone: {list}");
    }
}

/// Cut off further and further on, with what the runs before had done already.
#[test]
fn a_cut_at_any_request_leaves_it_to_the_next_run() {
    let (world, proxy) = Proxy::with_world();
    let one = lost_in(world, false);
    one.revoked.put("late", "\"of a device that was revoked\"").ok();
    one.good.put("good", "\"of a device that was not\"").ok();
    heal_with_cuts(&one.world, &proxy, &one.owner, 3, |broken| broken % 2 == 0).ok();
    is_joined(&one);
    assert_eq!(one.owner.get("good"), "\"of a device that was not\"");
}

/// The same old copy is put back twice: what only the first healing's repair named is named again, or nobody who joins
/// later could believe the pin.
#[test]
fn a_second_restore_leaves_nothing_unnamed() {
    for is_seen in [false, true] {
        let mut one = lost(false);
        one.revoked.put("late", "\"of a device that was revoked\"").ok();
        heal(&one.world, &one.owner).ok();
        if is_seen {
            assert_eq!(one.good.get("n"), "\"today\"");
        }
        let copy = one.world.path("copy");
        one.world.server.put_back(&copy, true, true);
        if !is_seen {
            one.good.put("good", "1").ok();
        }
        heal(&one.world, &one.owner).ok();
        let joined = login_as(&one.world, "d");
        is_joined(&one);
        for device in [&joined, &one.good, &one.owner] {
            device.ok(&["status"]);
            assert_eq!(device.get("n"), "\"today\"");
            assert_eq!(device.get("x"), "\"new\"");
            if !is_seen {
                assert_eq!(device.get("good"), "1");
            }
        }
    }
}

/// The revoked device, copied before the first healing, writes again after the second restore, and the second healing
/// is cut off anywhere: what it wrote counts for nobody.
#[test]
fn after_a_second_restore_a_cut_lets_nothing_of_the_revoked_device_count() {
    let (world, proxy) = Proxy::with_world();
    let mut one = lost_in(world, false);
    let twin = one.world.device("twin");
    copy(&one.revoked.home, &twin.home);
    one.revoked.put("late", "\"of a device that was revoked\"").ok();
    heal(&one.world, &one.owner).ok();
    let old = one.world.path("copy");
    one.world.server.put_back(&old, true, true);
    twin.put("later", "\"of a device that was revoked\"").ok();
    heal_with_cuts(&one.world, &proxy, &one.owner, 2, |broken| broken % 2 == 0).ok();
    is_joined(&one);
    let joined = login_as(&one.world, "d");
    for device in [&joined, &one.good, &one.owner] {
        device.run(&["record", "get", "--type", "note", "--id", "later"]).ends(11, &[]);
        assert_eq!(device.get("x"), "\"new\"");
    }
}
