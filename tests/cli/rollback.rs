//! A server whose data was put back to an older copy.

use crate::tree::{files, tree, write};
use crate::world::{Device, NAME, World};
use std::collections::BTreeMap;

/// A world with devices a and b, and an older copy of the server's data that both are ahead of.
fn ahead() -> (World, Device, Device) {
    let mut world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/f"), "1");
    a.backup("docs");
    let b = world.login("b");
    b.snapshots();
    let old = world.path("old");
    world.server.back_up(&old);
    write(&world.path("docs/g"), "2");
    a.backup("docs");
    a.put("n", "1").ok();
    assert_eq!(b.snapshots().len(), 2);
    (world, a, b)
}

/// Puts the older copy back; what is there now is kept.
fn put_back(world: &mut World) {
    let (old, newest) = (world.path("old"), world.path("newest"));
    world.server.back_up(&newest);
    world.server.put_back(&old, true, true);
}

fn bytes_of(device: &Device) -> BTreeMap<String, Vec<u8>> {
    // What matters of a home; its session may be renewed and its database file be tidied up.
    let names = ["account", "device"];
    files(&device.home)
        .into_iter()
        .filter(|path| names.iter().any(|name| path.ends_with(name)))
        .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()))
        .collect()
}

#[test]
fn every_device_that_saw_more_refuses() {
    let (mut world, a, b) = ahead();
    put_back(&mut world);
    for device in [&a, &b] {
        let before = bytes_of(device);
        let text = "went back in time";
        for arguments in [
            &["snapshots"][..],
            &["status"],
            &["backup", "docs"],
            &["restore", "out"],
            &["check"],
            &["fingerprint"],
            &["ls"],
            &["record", "list", "--type", "note"],
            &["vault", "create", "more"],
        ] {
            device.run(arguments).ends(6, &[text]);
        }
        device.put("n", "2").ends(6, &[text]);
        assert_eq!(bytes_of(device), before);
        assert!(!world.path("out").exists());
        device.ok(&["whoami"]);
    }
    // The newer copy mends it, and nothing is lost.
    put_back_newest(&mut world);
    assert_eq!(a.snapshots().len(), 2);
    assert_eq!(b.get("n"), "1");
    b.backup("docs");
    a.ok(&["check", "--read-data"]);
}

fn put_back_newest(world: &mut World) {
    let newest = world.path("newest");
    world.server.put_back(&newest, true, true);
}

/// Only the keyring lies behind: nothing else is taken over from such a server before that is noticed.
#[test]
fn a_keyring_that_is_behind_is_noticed_before_anything_is_taken_over() {
    let mut world = World::new();
    let a = world.signup("a");
    a.put("n", "1").ok();
    let b = world.login("b");
    assert_eq!(b.get("n"), "1");
    let device = a.ok(&["--json", "whoami"]).json()["device"].as_str().unwrap().to_owned();
    let old = world.path("old");
    world.server.back_up(&old);
    for number in 0..12 {
        a.ok(&["device", "rename", &device, &number.to_string()]);
    }
    put_back(&mut world);
    world.login("c");
    b.put("n", "2").ok();
    let held = || {
        let database = rusqlite::Connection::open(a.home.join("replica.sqlite")).unwrap();
        let count = |table: &str| -> i64 {
            database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
        };
        (count("commit_row"), count("device_log"))
    };
    let before = held();
    for _ in 0..2 {
        a.run(&["status"]).ends(6, &["went back in time"]);
        assert_eq!(held(), before);
    }
}

#[test]
fn what_is_held_here_is_still_read() {
    let (mut world, a, _b) = ahead();
    put_back(&mut world);
    a.run(&["status"]).ends(6, &[]);
    // As beside a process that writes, where nothing is asked of the server.
    let lock = std::fs::File::open(a.home.join("lock")).unwrap();
    lock.try_lock().unwrap();
    assert_eq!(a.get("n"), "1");
    assert_eq!(a.snapshots().len(), 2);
    assert_eq!(tree(&world.path("docs")).len(), 3);
}

/// The honest limit of PROTOCOL.md section 0: who brings nothing but a passphrase sees an older account.
/// What must not happen is that the devices that saw more take the branch that comes of it.
#[test]
fn a_login_with_nothing_but_the_passphrase_sees_the_old_state_and_no_other_device_follows() {
    let (mut world, a, b) = ahead();
    put_back(&mut world);
    let c = world.login("c");
    assert_eq!(c.snapshots().len(), 1);
    c.put("n", "\"of the branch\"").ok();
    c.backup("docs");
    c.backup("docs");
    c.backup("docs");
    for device in [&a, &b] {
        let done = device.run(&["snapshots"]);
        assert_eq!(done.status, Some(6), "{done:?}");
        assert!(done.err.contains("another history") || done.err.contains("went back"), "{done:?}");
    }
    put_back_newest(&mut world);
    assert_eq!(a.get("n"), "1");
    let done = c.run(&["snapshots"]);
    assert!(matches!(done.status, Some(5 | 6)), "{done:?}");
}

#[test]
fn a_kit_that_is_newer_than_the_copy_is_refused() {
    let (mut world, _a, _b) = ahead();
    let new = world.secret("new", "another passphrase");
    let recover = |device: &str, key: &str, kit: &str| {
        world.device(device).run(&[
            "recover",
            "--name",
            NAME,
            "--recovery-key-file",
            key,
            "--passphrase-file",
            &new,
            "--kit",
            kit,
        ])
    };
    recover("c", "kit", "kit-2").ok();
    // Same recovery key, but a checkpoint of later: what an older copy with that key amounts to.
    let text = |name: &str| std::fs::read_to_string(world.path(name)).unwrap();
    let line = |name: &str, field: &str| {
        text(name).lines().find(|line| line.starts_with(field)).map(str::to_owned).unwrap()
    };
    let mixed = text("kit").replace(&line("kit", "checkpoint:"), &line("kit-2", "checkpoint:"));
    std::fs::write(world.path("kit-mixed"), mixed).unwrap();
    put_back(&mut world);
    let recover = |device: &str, key: &str, kit: &str| {
        world.device(device).run(&[
            "recover",
            "--name",
            NAME,
            "--recovery-key-file",
            key,
            "--passphrase-file",
            &new,
            "--kit",
            kit,
        ])
    };
    let done = recover("d", "kit-2", "kit-3");
    assert!(matches!(done.status, Some(5 | 6)), "{done:?}");
    recover("d", "kit-mixed", "kit-3").ends(6, &["went back in time", "older than the kit"]);
    assert!(!world.path("kit-3").exists());
    world.device("d").run(&["whoami"]).ends(2, &["there is no account"]);
}

/// A device that was enrolled after the copy is unknown to the server now. Following the advice that it
/// gets (`lockstep login`) must be refused and must not cost it what it holds.
#[test]
fn a_device_that_the_copy_does_not_know_keeps_what_it_holds() {
    let mut world = World::new();
    let a = world.signup("a");
    a.put("n", "1").ok();
    let old = world.path("old");
    world.server.back_up(&old);
    let b = world.login("b");
    b.put("n", "2").ok();
    put_back(&mut world);
    let done = b.run(&["snapshots"]);
    assert!(matches!(done.status, Some(5 | 6)), "{done:?}");
    let done = b.try_login(&world.text("passphrase"));
    assert_eq!(done.status, Some(6), "{done:?}");
    // Still the device that it was, with all that it holds.
    b.ok(&["whoami"]);
    let lock = std::fs::File::open(b.home.join("lock")).unwrap();
    lock.try_lock().unwrap();
    assert_eq!(b.get("n"), "2");
    drop(lock);
    put_back_newest(&mut world);
    assert_eq!(b.get("n"), "2");
    b.put("n", "3").ok();
    assert_eq!(a.get("n"), "3");
}

/// A vault is pinned with what its maker first put into it, not at its birth only: a server that shows another device
/// an empty vault is refused, whether a record or a backup made it.
#[test]
fn a_new_vault_that_is_shown_empty_is_refused() {
    for makes in [
        |_: &World, a: &Device| drop(a.put("n", "1").ok()),
        |world: &World, a: &Device| {
            write(&world.path("docs/f"), "1");
            a.backup("docs");
        },
    ] {
        let world = World::new();
        let a = world.signup("a");
        makes(&world, &a);
        let b = world.login("b");
        let text = "SELECT v.id, c.hash FROM vault v JOIN commit_header c ON c.vault = v.id
                    WHERE v.is_keyring = 0 AND c.seq = 0";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let (vault, birth): (i64, Vec<u8>) = world.server.database().query_row(text, [], row).unwrap();
        let birth = world.server.literal(&birth);
        for statement in [
            format!("UPDATE vault SET seq = 0, head = {birth} WHERE id = {vault}"),
            format!("DELETE FROM live WHERE vault = {vault}"),
            format!("DELETE FROM commit_header WHERE seq > 0 AND vault = {vault}"),
        ] {
            assert!(world.server.change(&statement) > 0, "{statement}");
        }
        let done = b.run(&["record", "get", "--type", "note", "--id", "n"]);
        done.ends(6, &["went back in time", "pinned it"]);
        b.run(&["snapshots"]).ends(6, &["went back in time"]);
    }
}
