//! Servers on PostgreSQL, as processes: two of them on one database, and on one folder or one bucket of objects.

use crate::program::{Done, Running, command};
use crate::tree::{assert_same, noise, write};
use crate::world::{Device, World};
use lockstep_tests::postgres::Cluster;
use std::path::Path;

const PASSWORD: &str = "s3cret-of-the-database";

/// The address of an empty database, with a password that nobody asks for and nobody may say.
fn database() -> String {
    Cluster::shared().database().replacen("postgres@", &format!("postgres:{PASSWORD}@"), 1)
}

fn run(folder: &Path, url: &str, what: &str) -> Done {
    let mut command = command("lockstep-server");
    command.current_dir(folder).arg(what).env("LOCKSTEP_DATABASE_URL", url);
    Running::start(command, folder, "").done()
}

fn assert_silent(done: &Done) {
    assert!(!(done.out.contains(PASSWORD) || done.err.contains(PASSWORD)), "{done:?}");
}

#[test]
fn what_is_not_serving_makes_no_folder_and_says_no_password() {
    let folder = crate::world::Folder::new();
    let url = database();
    let check = run(folder.path(), &url, "check-config").ok();
    assert!(check.out.contains("database: postgres://postgres@/"), "{check:?}");
    let invite = run(folder.path(), &url, "invite").ok();
    assert_eq!(invite.out.trim().len(), 36, "{invite:?}");
    let nowhere = url.replacen("/test_", "/nowhere_", 1);
    let refused = run(folder.path(), &nowhere, "migrate").ends(1, &["nowhere_", "LOCKSTEP_DATABASE_URL"]);
    let malformed = run(folder.path(), &url.replacen("postgres:", "postgres:x:", 1), "migrate");
    assert_eq!(malformed.status, Some(2), "{malformed:?}");
    for done in [check, invite, refused, malformed, run(folder.path(), &url, "migrate").ok()] {
        assert_silent(&done);
    }
    assert!(!folder.path().join("lockstep-data").exists());
}

#[test]
fn a_device_on_each_of_two_servers_and_one_server_killed() {
    let url = database();
    let settings = [("LOCKSTEP_DATABASE_URL", url.as_str()), ("LOCKSTEP_LOG", "debug")];
    let world = World::with(&settings);
    std::fs::create_dir(world.path("second")).unwrap();
    let mut second = world.server.beside(&world.path("second"));

    let a = world.signup("a");
    let b = Device { server: second.origin.clone(), ..world.device("b") };
    b.try_login(&world.text("passphrase")).ok();
    write(&world.path("docs/one"), noise(1, 300_000));
    write(&world.path("pictures/two"), noise(2, 9_000_000));
    a.backup("docs");
    assert_eq!(b.snapshots().len(), 1);
    b.backup("pictures");
    second.kill();
    assert_eq!(a.snapshots().len(), 2);
    let out = a.restore("out");
    assert_same(&world.path("docs"), &out.join("docs"));
    assert_same(&world.path("pictures"), &out.join("pictures"));
    second.restart();
    b.ok(&["check", "--read-data"]);
    for log in [&world.server.log, &second.log] {
        assert!(!std::fs::read_to_string(log).unwrap().contains(PASSWORD));
    }
    assert!(!world.server.data.join("lock").exists() && !second.data.exists());
}
