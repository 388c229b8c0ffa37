//! The real programs with the server's bytes in an S3 bucket.

use crate::tree::{assert_same, noise, write};
use crate::world::{Folder, World};
use lockstep_tests::s3::{BUCKET, S3, SECRET_KEY};
use std::path::Path;

/// Bytes of the objects in the bucket.
fn stored(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(
            |entry| {
                if entry.path().is_dir() { stored(&entry.path()) } else { entry.metadata().unwrap().len() }
            },
        )
        .sum()
}

fn on_bucket(s3: &S3) -> World {
    let environment = s3.environment("backups");
    let settings: Vec<(&str, &str)> = environment.iter().map(|(key, value)| (*key, value.as_str())).collect();
    World::with(&settings)
}

fn fill(root: &Path) {
    write(&root.join("small"), "hello");
    for (number, size) in [5_000, 300_000, 4_000_000, 9_000_001].into_iter().enumerate() {
        write(&root.join(format!("{size}")), noise(number as u64, size));
    }
}

#[test]
fn a_backup_lies_in_the_bucket_and_comes_back() {
    let folder = Folder::new();
    let s3 = S3::start(folder.path());
    let mut world = on_bucket(&s3);
    let a = world.signup("a");
    fill(&world.path("docs"));
    a.backup("docs");
    let bytes = stored(&s3.folder().join(BUCKET).join("backups"));
    assert!(bytes > 13_000_000, "the bucket has {bytes} bytes");
    assert!(!world.server.data.join("objects").exists(), "and the data folder none");
    world.server.stop();
    world.server.restart();
    assert_same(&world.path("docs"), &world.login("b").restore("out").join("docs"));
    let shown = world.server.run(&world.path(""), &["check-config"]).ok();
    assert!(shown.out.contains("s3://lockstep/backups"), "{shown:?}");
    let log = std::fs::read_to_string(&world.server.log).unwrap();
    assert!(!shown.out.contains(SECRET_KEY) && !log.contains(SECRET_KEY));
}

#[test]
fn while_the_bucket_is_away_nothing_is_lost() {
    let folder = Folder::new();
    let mut s3 = S3::start(folder.path());
    let world = on_bucket(&s3);
    let a = world.signup("a");
    fill(&world.path("docs"));
    a.backup("docs");
    write(&world.path("docs").join("new"), noise(9, 200_000));
    s3.stop();
    let failed = a.run(&["backup", "docs"]);
    assert!(failed.status.is_some_and(|status| status != 0), "{failed:?}");
    assert!(!failed.err.contains("panicked"), "{failed:?}");
    s3.restart();
    a.backup("docs");
    assert_same(&world.path("docs"), &world.login("b").restore("out").join("docs"));
}

#[test]
fn without_its_bucket_the_server_does_not_start() {
    let folder = Folder::new();
    let s3 = S3::start(folder.path());
    let place = Folder::new();
    let mut command = crate::program::command("lockstep-server");
    command.current_dir(place.path()).arg("serve").envs(s3.environment("x"));
    command.env("LOCKSTEP_LISTEN", "127.0.0.1:0").env("AWS_SECRET_ACCESS_KEY", "another-secret");
    let done = crate::program::Running::start(command, place.path(), "").done();
    let done = done.ends(1, &["the S3 bucket: access was refused (403 SignatureDoesNotMatch)"]);
    assert!(!done.err.contains("another-secret") && !done.err.contains(SECRET_KEY), "{done:?}");
}
