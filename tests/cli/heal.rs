//! Healing drills: the server's database, its bucket, or both are put back to yesterday's copy. In the end all
//! devices agree, and nothing that any of them held is lost.

use crate::program::Done;
use crate::proxy::Proxy;
use crate::tree::{assert_same, noise, write};
use crate::world::{Device, World};
use std::path::PathBuf;

/// Larger than what rides inside a record, so that it lies in the bucket.
const LARGE: usize = 200_000;

/// A world with two devices in step, and yesterday's copy of the server.
fn yesterday() -> (World, Device, Device, PathBuf) {
    yesterday_in(World::new())
}

fn yesterday_in(mut world: World) -> (World, Device, Device, PathBuf) {
    let a = world.signup("a");
    let b = world.login("b");
    write(&world.path("docs/one"), noise(1, LARGE));
    write(&world.path("docs/small"), "small");
    a.backup("docs");
    a.put("n", "\"yesterday\"").ok();
    b.snapshots();
    let copy = world.path("yesterday");
    world.server.back_up(&copy);
    (world, a, b, copy)
}

/// What the first device does today.
fn today(world: &World, a: &Device) {
    write(&world.path("docs/two"), noise(2, LARGE));
    write(&world.path("docs/small"), "changed");
    a.backup("docs");
    a.put("n", "\"today\"").ok();
    a.put("more", "1").ok();
}

#[track_caller]
pub(crate) fn heal(world: &World, device: &Device) -> Done {
    device.run(&["heal", "--yes", "--passphrase-file", &world.text("passphrase")])
}

/// Heals with the connection cut off further and further on, each run with what the ones before had done, until one
/// gets through. `after`: whether the last request of a run still arrives.
pub(crate) fn heal_with_cuts(
    world: &World,
    proxy: &Proxy,
    device: &Device,
    step: usize,
    after: impl Fn(usize) -> bool,
) -> Done {
    for (broken, left) in (0..).step_by(step).enumerate() {
        let before = proxy.cuts();
        proxy.cut_off(left, after(broken));
        let done = heal(world, device);
        proxy.heal();
        if proxy.cuts() == before {
            assert!(broken > 3, "{broken} is too few to say anything");
            return done;
        }
        assert!(!done.err.contains("panicked") && done.status.is_some(), "{done:#?}");
    }
    unreachable!("the steps go on")
}

/// Both devices agree with each other and the server, and everything is whole.
#[track_caller]
fn in_step(world: &World, devices: &[&Device]) {
    for _ in 0..2 {
        for device in devices {
            device.ok(&["status"]);
        }
    }
    let fingerprints: Vec<String> = devices.iter().map(|device| device.ok(&["fingerprint"]).out).collect();
    assert!(fingerprints.iter().all(|one| *one == fingerprints[0]), "{fingerprints:#?}");
    for (number, device) in devices.iter().enumerate() {
        device.ok(&["check", "--read-data"]);
        let out = device.restore(&format!("out-{number}"));
        assert_same(&world.path("docs"), &out.join("docs"));
        std::fs::remove_dir_all(&out).unwrap();
        heal(world, device).ok();
    }
}

#[test]
fn the_database_of_yesterday_gets_todays_commits_back() {
    let (mut world, a, b, copy) = yesterday();
    today(&world, &a);
    world.server.put_back(&copy, true, false);
    a.run(&["status"]).ends(6, &["went back in time", "lockstep heal"]);
    let done = heal(&world, &a).ok();
    assert!(done.err.contains("is given back"), "{done:#?}");
    assert_eq!(b.get("n"), "\"today\"");
    assert_eq!(a.snapshots(), b.snapshots());
    assert_eq!(a.snapshots().len(), 2);
    in_step(&world, &[&a, &b]);
}

#[test]
fn the_bucket_of_yesterday_gets_its_contents_back() {
    let (mut world, a, b, copy) = yesterday();
    today(&world, &a);
    b.snapshots();
    world.server.put_back(&copy, false, true);
    a.run(&["check", "--read-data"]).ends(7, &[]);
    b.run(&["restore", "broken"]).ends(3, &["missing"]);
    // Who has not got the file can not help, and says what is missing.
    std::fs::rename(world.path("docs"), world.path("elsewhere")).unwrap();
    let done = heal(&world, &b).ends(3, &["gone from the server"]);
    std::fs::rename(world.path("elsewhere"), world.path("docs")).unwrap();
    assert!(done.out.contains("still missing: docs/two"), "{done:#?}");
    let done = heal(&world, &a).ok();
    assert!(done.out.contains("1 objects uploaded again"), "{done:#?}");
    in_step(&world, &[&a, &b]);
}

#[test]
fn database_and_bucket_of_yesterday() {
    let (mut world, a, b, copy) = yesterday();
    today(&world, &a);
    world.server.put_back(&copy, true, true);
    heal(&world, &a).ok();
    assert_eq!(b.get("more"), "1");
    in_step(&world, &[&a, &b]);
}

/// The second device heals first and goes on writing; the first one, which had seen more, comes later.
#[test]
fn two_devices_ahead_with_different_heads() {
    let (mut world, a, b, copy) = yesterday();
    a.put("both", "1").ok();
    b.put("of-b", "1").ok();
    assert_eq!(b.get("both"), "1");
    // From here on only the first device sees what it does.
    today(&world, &a);
    a.put("of-a", "1").ok();
    world.server.put_back(&copy, true, true);
    heal(&world, &b).ok();
    b.put("of-b", "2").ok();
    b.put("n", "\"of b, meanwhile\"").ok();
    a.run(&["status"]).ends(6, &[]);
    let done = heal(&world, &a);
    assert!(matches!(done.status, Some(0 | 3)), "{done:#?}");
    assert!(done.err.contains("part after commit"), "{done:#?}");
    a.ok(&["status"]);
    b.ok(&["status"]);
    a.backup("docs");
    for device in [&a, &b] {
        assert_eq!(device.get("of-a"), "1");
        assert_eq!(device.get("of-b"), "2");
        assert_eq!(device.get("more"), "1");
        // Both changed it: both versions are kept.
        let list = device.ok(&["--json", "record", "list", "--type", "note"]).json();
        let of_n: Vec<String> = list
            .as_array()
            .unwrap()
            .iter()
            .filter(|row| row["id"].as_str().unwrap().split('~').next() == Some("n"))
            .map(|row| row["document"].as_str().unwrap().to_owned())
            .collect();
        let mut sorted = of_n.clone();
        sorted.sort();
        assert_eq!(sorted, ["of b, meanwhile", "today"]);
    }
    in_step(&world, &[&a, &b]);
}

/// A third device was in step with the first one's branch: it follows by itself once the repair is there.
#[test]
fn a_device_on_the_branch_that_is_given_up_follows_the_repair() {
    let (mut world, a, b, copy) = yesterday();
    let c = world.login("c");
    c.snapshots();
    let between = world.path("between");
    world.server.back_up(&between);
    today(&world, &a);
    c.put("of-c", "1").ok();
    assert_eq!(c.get("n"), "\"today\"");
    world.server.put_back(&between, true, true);
    // A device that saw nothing of it goes on.
    b.put("of-b", "1").ok();
    b.put("of-b", "2").ok();
    c.run(&["status"]).ends(6, &[]);
    let done = heal(&world, &a);
    assert!(matches!(done.status, Some(0 | 3)), "{done:#?}");
    a.ok(&["status"]);
    // The third one had written after the first one last synced: that is its own to give back.
    let done = c.run(&["status"]);
    if done.status != Some(0) {
        heal(&world, &c).ok();
    }
    c.ok(&["status"]);
    a.backup("docs");
    drop(copy);
    for device in [&a, &b, &c] {
        assert_eq!(device.get("n"), "\"today\"");
        assert_eq!(device.get("of-c"), "1");
        assert_eq!(device.get("of-b"), "2");
    }
    in_step(&world, &[&a, &b, &c]);
    // What is on the shelf of a device that followed is not its own to carry: healing there changes nothing.
    for device in [&c, &b, &a] {
        device.put("n", "\"later\"").ok();
        let done = heal(&world, device).ok();
        assert!(done.out.contains("nothing to heal"), "{done:#?}");
    }
    for device in [&a, &b, &c] {
        assert_eq!(device.get("n"), "\"later\"");
        assert_eq!(
            device.ok(&["--json", "record", "list", "--type", "note"]).json().as_array().unwrap().len(),
            4
        );
    }
}

/// A device that joined after the copy was made is unknown to the server: it is given back with the log.
#[test]
fn a_device_that_the_copy_does_not_know_gives_the_log_back() {
    let (mut world, a, b, copy) = yesterday();
    let c = world.login("c");
    c.put("of-c", "1").ok();
    today(&world, &a);
    assert_eq!(c.get("n"), "\"today\"");
    world.server.put_back(&copy, true, true);
    c.run(&["status"]).ends(5, &[]);
    // It has no files of the first one, but everything else.
    let done = heal(&world, &c);
    assert!(matches!(done.status, Some(0 | 3)), "{done:#?}");
    assert!(done.err.contains("does not know this device"), "{done:#?}");
    heal(&world, &a).ok();
    for device in [&a, &b, &c] {
        assert_eq!(device.get("of-c"), "1");
        assert_eq!(device.get("n"), "\"today\"");
    }
    in_step(&world, &[&a, &b, &c]);
    let d = world.login("d");
    assert_eq!(d.get("of-c"), "1");
}

/// A vault that was made after the copy is not there at all.
#[test]
fn a_vault_that_the_copy_does_not_have_is_born_again() {
    let (mut world, a, b, copy) = yesterday();
    a.ok(&["vault", "create", "garden"]);
    write(&world.path("plants/rose"), noise(7, LARGE));
    a.ok(&["backup", "plants", "--vault", "garden"]);
    world.server.put_back(&copy, true, true);
    a.run(&["status"]).ends(6, &[]);
    heal(&world, &a).ok();
    b.ok(&["restore", "out", "--vault", "garden"]);
    assert_same(&world.path("plants"), &world.path("out/plants"));
    in_step(&world, &[&a, &b]);
}

#[test]
fn where_there_is_nothing_to_heal_nothing_is_done() {
    let (world, a, _b, _copy) = yesterday();
    let done = heal(&world, &a).ok();
    assert!(done.out.contains("nothing to heal"), "{done:#?}");
    // Without a terminal nobody is asked, and nothing happens without a word.
    a.ok(&["heal"]);
}

#[test]
fn without_a_yes_nothing_happens() {
    let (mut world, a, _b, copy) = yesterday();
    today(&world, &a);
    world.server.put_back(&copy, true, true);
    a.run(&["heal"]).ends(2, &["the server ends at commit", "say --yes"]);
    a.run(&["status"]).ends(6, &["went back in time"]);
    let wrong = world.secret("wrong", "not the passphrase at all");
    // What is only given back needs no passphrase, and a wrong one does no harm.
    a.ok(&["heal", "--yes", "--passphrase-file", &wrong]);
    assert_eq!(a.get("n"), "\"today\"");
}

/// A device was revoked after the copy was made: to the restored server it is as good as any, and it writes. What it
/// wrote late is given up by a repair, and kept for review.
#[test]
fn what_a_revoked_device_wrote_while_it_was_forgotten_is_given_up_and_kept() {
    let (mut world, a, b, copy) = yesterday();
    let c = world.login("c");
    c.snapshots();
    let between = world.path("between");
    world.server.back_up(&between);
    let who = b.ok(&["--json", "whoami"]).json();
    let id = who["device"].as_str().unwrap().to_owned();
    a.ok(&["device", "revoke", &id, "--passphrase-file", &world.text("passphrase")]);
    a.put("n", "\"today\"").ok();
    world.server.put_back(&between, true, true);
    b.put("late", "\"of a device that was revoked\"").ok();
    c.put("good", "\"of a device that was not\"").ok();
    let done = heal(&world, &a);
    assert_eq!(done.status, Some(0), "{done:#?}");
    b.run(&["status"]).ends(5, &[]);
    for device in [&a, &c] {
        device.ok(&["status"]);
        assert_eq!(device.get("n"), "\"today\"");
        assert_eq!(device.get("good"), "\"of a device that was not\"");
        device.run(&["record", "get", "--type", "note", "--id", "late"]).ends(11, &[]);
    }
    let kept = a.ok(&["--json", "heal", "--review"]).json();
    assert!(kept.to_string().contains("of a device that was revoked"), "{kept}");
    drop(copy);
    in_step(&world, &[&a, &c]);
    // A chain with commits that do not count is healed like any other, from a copy of before and from one of after.
    for _ in 0..2 {
        let after = world.path("after");
        let _ = std::fs::remove_dir_all(&after);
        world.server.back_up(&after);
        a.put("more", "2").ok();
        world.server.put_back(&between, true, true);
        let done = heal(&world, &a);
        assert_eq!(done.status, Some(0), "{done:#?}");
        if c.run(&["status"]).status != Some(0) {
            heal(&world, &c).ok();
        }
        for device in [&a, &c] {
            device.ok(&["status"]);
            assert_eq!(device.get("good"), "\"of a device that was not\"");
            assert_eq!(device.get("more"), "2");
            device.run(&["record", "get", "--type", "note", "--id", "late"]).ends(11, &[]);
        }
        in_step(&world, &[&a, &c]);
        world.server.put_back(&after, true, true);
        heal(&world, &a).ok();
        if c.run(&["status"]).status != Some(0) {
            heal(&world, &c).ok();
        }
        in_step(&world, &[&a, &c]);
    }
}

/// Two chains that parted, a device log that is behind, and a connection that breaks at one request after the other.
#[test]
fn healing_that_is_cut_off_anywhere_goes_on() {
    for after in [false, true] {
        let (world, proxy) = Proxy::with_world();
        let (mut world, a, b, copy) = yesterday_in(world);
        let c = world.login("c");
        // Its first look at the vault writes its pin, which is then among what the first device gives back.
        assert_eq!(c.get("n"), "\"yesterday\"");
        today(&world, &a);
        assert_eq!(c.get("n"), "\"today\"");
        world.server.put_back(&copy, true, true);
        b.put("of-b", "1").ok();
        b.put("of-b", "2").ok();
        let done = heal_with_cuts(&world, &proxy, &a, 4, |_| after);
        assert!(matches!(done.status, Some(0 | 3)), "{done:#?}");
        heal(&world, &a);
        c.ok(&["status"]);
        a.backup("docs");
        for device in [&a, &b, &c] {
            assert_eq!(device.get("n"), "\"today\"");
            assert_eq!(device.get("more"), "1");
            assert_eq!(device.get("of-b"), "2");
        }
        in_step(&world, &[&a, &b, &c]);
    }
}
