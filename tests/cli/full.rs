//! Full disks, on a file system of a few megabytes. Mounting one needs rights; where they are missing these
//! tests say so and end.

use crate::back_end::{embedded_only, is_embedded};
use crate::tree::{assert_no_parts, assert_same, noise, write};
use crate::world::World;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system, unmounted when it is dropped.
pub(crate) struct Small(PathBuf);

impl Small {
    pub(crate) fn mount(place: &Path, megabytes: u32) -> Option<Self> {
        std::fs::create_dir_all(place).unwrap();
        let size = format!("size={megabytes}m");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(place).output();
        if done.is_ok_and(|done| done.status.success()) {
            return Some(Self(place.to_path_buf()));
        }
        println!("mounting is not permitted here: full disks and mounted folders are not tested");
        None
    }

    pub(crate) fn resize(&self, megabytes: u32) {
        let option = format!("remount,size={megabytes}m");
        assert!(Command::new("mount").args(["-o", &option]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn a_restore_to_a_full_disk_says_so_and_goes_on_later() {
    let world = World::new();
    let Some(small) = Small::mount(&world.path("out"), 3) else { return };
    let a = world.signup("a");
    for number in 0..20 {
        write(&world.path(&format!("docs/{number}")), noise(number, 500_000));
    }
    a.backup("docs");
    a.run(&["restore", "out"]).ends(10, &["is full", "make room", "out"]);
    assert_no_parts(&world.path("out"));
    for path in crate::tree::files(&world.path("out")) {
        let below = path.strip_prefix(world.path("out")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(world.path("").join(below)).unwrap());
    }
    small.resize(40);
    a.ok(&["restore", "out"]);
    assert_same(&world.path("docs"), &world.path("out/docs"));
}

#[test]
fn a_home_on_a_full_disk_says_so_and_goes_on_later() {
    let world = World::new();
    let Some(small) = Small::mount(&world.path("home-a"), 2) else { return };
    let a = world.signup("a");
    for number in 0..2000 {
        write(&world.path(&format!("docs/{number}")), noise(number, 3000));
    }
    a.run(&["backup", "docs"]).ends(10, &["is full"]);
    small.resize(100);
    a.backup("docs");
    assert_same(&world.path("docs"), &a.restore("out").join("docs"));
}

// About the folder of the embedded default: on PostgreSQL and a bucket the server has none that could be full.
embedded_only! {
    fn a_server_whose_objects_are_on_a_full_disk_says_so_and_goes_on_later() {
        let mut world = World::new();
        let Some(small) = Small::mount(&world.path("server/objects"), 3) else { return };
        world.server.kill();
        world.server.restart();
        let a = world.signup("a");
        for number in 0..30 {
            write(&world.path(&format!("docs/{number}")), noise(number, 500_000));
        }
        write(&world.path("docs/large"), noise(100, 12_000_000));
        a.run(&["backup", "docs"]).ends(10, &["full"]);
        assert!(a.snapshots().is_empty());
        small.resize(100);
        a.backup("docs");
        assert_same(&world.path("docs"), &a.restore("out").join("docs"));
        world.server.stop();
    }

    fn a_server_whose_database_is_on_a_full_disk_says_so_and_goes_on_later() {
        let mut world = World::new();
        world.server.stop();
        std::fs::remove_dir_all(&world.server.data).unwrap();
        let Some(small) = Small::mount(&world.path("server"), 3) else { return };
        world.server.restart();
        let a = world.signup("a");
        for number in 0..2000 {
            write(&world.path(&format!("docs/{number}")), noise(number, 3000));
        }
        a.run(&["backup", "docs"]).ends(10, &["full"]);
        small.resize(200);
        a.backup("docs");
        assert_same(&world.path("docs"), &a.restore("out").join("docs"));
        a.ok(&["check", "--read-data"]);
        world.server.stop();
    }
}

#[test]
fn only_these_tests_are_about_the_embedded_default_alone() {
    let left_out = EMBEDDED_ONLY;
    if !is_embedded() {
        println!("not run on PostgreSQL and S3: {left_out:#?}");
    }
    let expected = [
        "a_server_whose_objects_are_on_a_full_disk_says_so_and_goes_on_later",
        "a_server_whose_database_is_on_a_full_disk_says_so_and_goes_on_later",
    ];
    assert_eq!(left_out, expected);
}
