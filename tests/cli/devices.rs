//! Several devices of one account, and a new one from the recovery key alone.

use crate::tree::{assert_same, noise, write};
use crate::world::{NAME, World};

const OTHER: &str = "a new passphrase for ada";

fn recover(world: &World, device: &str, key: &str, kit: &str) -> crate::program::Done {
    let new = world.secret("passphrase-new", OTHER);
    let arguments = [
        "recover",
        "--name",
        NAME,
        "--recovery-key-file",
        key,
        "--passphrase-file",
        &new,
        "--kit",
        kit,
        "--device-name",
        "third",
    ];
    world.device(device).run(&arguments)
}

#[test]
fn devices_see_each_other_and_the_kit_alone_brings_everything_back() {
    let world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/one"), noise(1, 300_000));
    write(&world.path("pictures/deep/two"), noise(2, 9_000_000));
    a.backup("docs");
    let b = world.login("b");
    assert_eq!(b.snapshots().len(), 1);
    b.backup("pictures");
    assert_eq!(a.snapshots().len(), 2);
    assert_eq!(a.snapshots(), b.snapshots());
    let fingerprint = |device: &crate::world::Device| device.ok(&["fingerprint"]).out;
    a.ok(&["status"]);
    b.ok(&["status"]);
    assert_eq!(fingerprint(&a), fingerprint(&b));

    // Every home is lost; the kit is left.
    std::fs::remove_dir_all(&a.home).unwrap();
    recover(&world, "c", "kit", "kit-2").ok();
    let c = world.device("c");
    let out = c.restore("out");
    assert_same(&world.path("docs"), &out.join("docs"));
    assert_same(&world.path("pictures"), &out.join("pictures"));
    c.ok(&["check", "--read-data"]);
    let who = c.ok(&["--json", "whoami"]).json();
    let devices = who["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 3);
    assert!(devices.iter().any(|device| device["name"] == "third" && device["this"] == true));

    // What was replaced is worth nothing, and both refusals read as for anybody else.
    world.device("d").try_login(&world.text("passphrase")).ends(5, &["the passphrase is wrong"]);
    recover(&world, "d", "kit", "kit-3").ends(5, &["the recovery key is wrong"]);
    world.device("d").try_login(&world.text("passphrase-new")).ok();
    recover(&world, "e", "kit-2", "kit-4").ok();
    b.ok(&["status"]);
}

#[test]
fn a_bare_recovery_key_works_and_says_what_it_lacks() {
    let world = World::new();
    let a = world.signup("a");
    a.put("n", "{\"a\":1}").ok();
    let kit = std::fs::read_to_string(world.path("kit")).unwrap();
    let key = kit.lines().find_map(|line| line.strip_prefix("recovery key: ")).unwrap();
    world.secret("bare", key);
    recover(&world, "b", "bare", "kit-2").ends(0, &["bare recovery key", "checkpoint"]);
    assert_eq!(world.device("b").get("n"), "{\"a\":1}");
}

#[test]
fn a_mistyped_recovery_key_names_the_place() {
    let world = World::new();
    world.signup("a");
    let kit = std::fs::read_to_string(world.path("kit")).unwrap();
    let key = kit.lines().find_map(|line| line.strip_prefix("recovery key: ")).unwrap().to_owned();
    let groups: Vec<&str> = key.split(' ').collect();
    let third = groups[2];
    let other = if third.starts_with('q') { 'p' } else { 'q' };
    let wrong = format!("{other}{}", &third[1..]);
    let mut mistyped = groups.clone();
    mistyped[2] = &wrong;
    let line = mistyped.join(" ");
    std::fs::write(world.path("mistyped"), kit.replace(&key, &line)).unwrap();
    let said = recover(&world, "b", "mistyped", "kit-2").ends(2, &["recovery key", "group 3"]).err;
    assert!(!said.contains(third), "the key itself is not said: {said}");
    assert!(!world.path("kit-2").exists());
    // Nothing was used up: the right one still works.
    recover(&world, "b", "kit", "kit-2").ok();
}

#[test]
fn the_kit_of_another_account_is_refused() {
    let world = World::new();
    world.signup("a");
    let other = world.device("other");
    let passphrase = world.text("passphrase");
    let arguments = ["signup", "--name", "bob", "--passphrase-file", &passphrase, "--kit", "kit-bob"];
    other.ok(&arguments);
    recover(&world, "b", "kit-bob", "kit-2").ends(5, &["the recovery key is wrong"]);
    assert!(!world.path("kit-2").exists());
    // Even with the right key in it, a kit that names another account is not used.
    let text = |name: &str| std::fs::read_to_string(world.path(name)).unwrap();
    let line = |text: &str, field: &str| {
        text.lines().find(|line| line.starts_with(field)).map(str::to_owned).unwrap()
    };
    let mixed = text("kit").replace(&line(&text("kit"), "account:"), &line(&text("kit-bob"), "account:"));
    std::fs::write(world.path("kit-mixed"), mixed).unwrap();
    recover(&world, "b", "kit-mixed", "kit-2").ends(5, &[]);
    let mixed =
        text("kit").replace(&line(&text("kit"), "checkpoint:"), &line(&text("kit-bob"), "checkpoint:"));
    std::fs::write(world.path("kit-mixed"), mixed).unwrap();
    recover(&world, "b", "kit-mixed", "kit-2").ends(2, &["another account"]);
    world.login("c");
}
