//! Homes: one writer, copies, sessions, signing out.

use crate::program::Done;
use crate::tree::{copy, write};
use crate::world::{Device, NAME, World};

/// `lockstep watch` has its home for a moment at a time: who comes then waits.
#[test]
fn a_writer_waits_a_moment_for_the_home() {
    let world = World::new();
    let a = world.signup("a");
    let lock = std::fs::File::open(a.home.join("lock")).unwrap();
    lock.try_lock().unwrap();
    let mut waits = a.start(&["vault", "create", "v"]);
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(waits.is_running());
    lock.unlock().unwrap();
    waits.done().ok();
}

#[test]
fn a_second_writer_is_refused_and_readers_are_not() {
    let world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/f"), "1");
    a.backup("docs");
    a.put("n", "1").ok();
    let lock = std::fs::File::open(a.home.join("lock")).unwrap();
    lock.try_lock().unwrap();
    let text = "another lockstep process is writing";
    for arguments in [
        &["backup", "docs"][..],
        &["check"],
        &["logout"],
        &["vault", "create", "v"],
        &["fingerprint"],
        &["record", "rm", "--type", "note", "--id", "n"],
    ] {
        a.run(arguments).ends(8, &[text]);
    }
    a.put("n", "2").ends(8, &[text]);
    a.try_login(&world.text("passphrase")).ends(8, &[text]);
    for arguments in [
        &["snapshots"][..],
        &["ls"],
        &["whoami"],
        &["status"],
        &["vault", "list"],
        &["record", "list", "--type", "note"],
        &["record", "get", "--type", "note", "--id", "n"],
        &["restore", "out"],
    ] {
        a.run(arguments).ends(0, &[text]);
    }
    assert_eq!(std::fs::read(world.path("out/docs/f")).unwrap(), b"1");
    drop(lock);
    a.put("n", "2").ok();
}

/// A device and a copy of its home, the copy with a write that waits.
fn copied(world: &mut World) -> (Device, Device) {
    let a = world.signup("a");
    a.put("n", "1").ok();
    write(&world.path("docs/f"), "1");
    a.backup("docs");
    let mut clone = world.device("clone");
    copy(&a.home, &clone.home);
    clone.home = clone.home.canonicalize().unwrap();
    (a, clone)
}

fn cloned(done: Done) {
    done.ends(9, &["another copy of this device's home is in use", "lockstep login"]);
}

#[test]
fn a_copy_of_a_home_is_noticed_and_gets_its_own_identity() {
    let mut world = World::new();
    let (a, clone) = copied(&mut world);
    a.put("n", "2").ok();
    // The copy writes while the server is away: the write waits.
    world.server.stop();
    clone.put("waits", "\"of the copy\"").ends(0, &["kept on this device"]);
    world.server.restart();
    cloned(clone.put("n", "3"));
    cloned(clone.run(&["status"]));
    cloned(clone.run(&["backup", "docs"]));
    let lock = std::fs::File::open(clone.home.join("lock")).unwrap();
    lock.try_lock().unwrap();
    assert_eq!(clone.get("waits"), "\"of the copy\"", "what is held is still read");
    drop(lock);

    clone.try_login(&world.text("passphrase")).ok();
    let id = |device: &Device| device.ok(&["--json", "whoami"]).json()["device"].clone();
    assert_ne!(id(&a), id(&clone));
    assert_eq!(clone.get("waits"), "\"of the copy\"");
    assert_eq!(a.get("waits"), "\"of the copy\"");
    clone.backup("docs");
    a.backup("docs");
    clone.put("n", "4").ok();
    assert_eq!(a.get("n"), "4");
    a.ok(&["check", "--read-data"]);
    clone.ok(&["check", "--read-data"]);
}

#[test]
fn the_home_that_writes_second_is_the_copy() {
    let mut world = World::new();
    let (a, clone) = copied(&mut world);
    clone.put("n", "of the copy".replace(' ', "").len().to_string().as_str()).ok();
    cloned(a.run(&["status"]));
    a.try_login(&world.text("passphrase")).ok();
    assert_eq!(a.get("n"), "9");
    a.put("n", "5").ok();
    assert_eq!(clone.get("n"), "5");
}

#[test]
fn a_session_that_ended_is_renewed() {
    let world = World::new();
    let a = world.signup("a");
    a.put("n", "1").ok();
    a.ok(&["logout"]);
    a.ok(&["logout"]);
    assert!(!a.home.join("session").exists());
    assert_eq!(a.get("n"), "1");
    assert!(a.home.join("session").exists());
    assert!(world.server.change("DELETE FROM session") > 0);
    write(&world.path("docs/f"), "1");
    a.backup("docs");
    assert!(world.server.change("UPDATE session SET expires_utc = 1") > 0);
    a.ok(&["restore", "out"]);
    std::fs::write(a.home.join("session"), "nonsense").unwrap();
    a.ok(&["status"]);
}

#[test]
fn wiping_waits_for_what_was_not_sent() {
    let mut world = World::new();
    let a = world.signup("a");
    a.put("n", "1").ok();
    world.server.stop();
    a.put("n", "2").ends(0, &["kept on this device"]);
    let listed = a.ok(&["--json", "record", "list", "--type", "note"]).json();
    assert_eq!((&listed[0]["pending"], &listed[0]["document"]), (&true.into(), &2.into()));
    a.run(&["logout", "--wipe"]).ends(2, &["1 writes wait", "lockstep status"]);
    assert_eq!(a.get("n"), "2");
    world.server.restart();
    // Still waiting: nothing has talked to the server since.
    a.run(&["logout", "--wipe"]).ends(2, &["1 writes wait"]);
    let status = a.ok(&["--json", "status"]).json();
    assert_eq!(status["vaults"][0]["pending"], 0, "{status}");
    a.ok(&["logout", "--wipe"]);
    let left: Vec<_> = crate::tree::files(&a.home);
    assert!(left.iter().all(|path| path.ends_with("lock")), "{left:?}");
    a.run(&["whoami"]).ends(2, &["there is no account"]);
    world.login("a");
    assert_eq!(a.get("n"), "2");
}

#[test]
fn a_wipe_without_the_server_removes_nothing() {
    let mut world = World::new();
    let a = world.signup("a");
    a.put("n", "1").ok();
    world.server.stop();
    a.run(&["logout", "--wipe"]).ends(4, &["can not be reached"]);
    a.ok(&["whoami"]);
}

#[test]
fn two_logins_at_once_both_end_well_or_say_so() {
    let world = World::new();
    world.signup("a");
    let passphrase = world.text("passphrase");
    let login = ["login", "--name", NAME, "--passphrase-file", &passphrase];
    let devices: Vec<Device> = ["b", "c", "d"].map(|name| world.device(name)).into();
    let running: Vec<_> = devices.iter().map(|device| device.start(&login)).collect();
    for (device, running) in devices.iter().zip(running) {
        let done = running.done();
        if done.status != Some(0) {
            assert!(!done.err.contains("panicked"), "{done:?}");
            device.ok(&login);
        }
        device.ok(&["status"]);
    }
}
