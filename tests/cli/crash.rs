//! Programs that are killed: nothing that was listed is lost, and the same command goes on.

use crate::program::poll;
use crate::tree::{assert_no_parts, assert_same, noise, size, write};
use crate::world::World;

/// Inline, framed and large files: some 13 MB that do not compress.
fn fill(world: &World) {
    for number in 0..60 {
        write(&world.path(&format!("docs/small/{number}")), noise(number, 3000));
        write(&world.path(&format!("docs/framed/{number}")), noise(1000 + number, 60_000));
    }
    write(&world.path("docs/large 1"), noise(5, 9_000_000));
    write(&world.path("docs/large 2"), noise(6, 9_500_000));
}

#[test]
fn a_client_that_is_killed_anywhere_goes_on() {
    let world = World::new();
    fill(&world);
    let a = world.signup("a");
    // Each in a vault of its own, each killed later than the one before, then at every later growth.
    for (number, megabytes) in [0_u64, 3, 9].into_iter().enumerate() {
        let vault = format!("vault {number}");
        let begin = size(&world.server.objects());
        for more in [0, 2_000_000] {
            let mut running = a.start(&["backup", "docs", "--vault", &vault]);
            let wanted = begin + megabytes * 1_000_000 + more;
            poll(60, || size(&world.server.objects()) > wanted || !running.is_running());
            running.kill();
            let listed = a.run(&["--json", "snapshots", "--vault", &vault]);
            if listed.status == Some(0) && listed.json().as_array().is_some_and(|list| !list.is_empty()) {
                let _ = std::fs::remove_dir_all(world.path("out"));
                a.ok(&["restore", "out", "--vault", &vault]);
                assert_same(&world.path("docs"), &world.path("out/docs"));
            }
        }
        a.ok(&["backup", "docs", "--vault", &vault]);
        let _ = std::fs::remove_dir_all(world.path("out"));
        a.ok(&["restore", "out", "--vault", &vault]);
        assert_same(&world.path("docs"), &world.path("out/docs"));
    }
    a.ok(&["check", "--read-data"]);
}

#[test]
fn a_killed_restore_is_run_again() {
    let world = World::new();
    fill(&world);
    let a = world.signup("a");
    a.backup("docs");
    for megabytes in [0_u64, 6] {
        let _ = std::fs::remove_dir_all(world.path("out"));
        let mut running = a.start(&["restore", "out"]);
        poll(60, || size(&world.path("out")) > megabytes * 1_000_000 || !running.is_running());
        running.kill();
        // Every file that has its name is whole.
        for path in crate::tree::files(&world.path("out")) {
            let below = path.strip_prefix(world.path("out")).unwrap();
            if !path.to_string_lossy().ends_with(".part") {
                assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(world.path("").join(below)).unwrap());
            }
        }
        // What had no name yet is removed where it lies.
        a.ok(&["restore", "out"]);
        assert_no_parts(&world.path("out"));
        assert_same(&world.path("docs"), &world.path("out/docs"));
    }
}

#[test]
fn a_server_that_is_killed_loses_nothing() {
    let mut world = World::new();
    fill(&world);
    let a = world.signup("a");
    for (number, megabytes) in [0_u64, 6].into_iter().enumerate() {
        let vault = format!("vault {number}");
        let arguments = ["backup", "docs", "--vault", &vault];
        let begin = size(&world.server.objects());
        let mut running = a.start(&arguments);
        let grown = poll(60, || {
            size(&world.server.objects()) > begin + megabytes * 1_000_000 || !running.is_running()
        });
        assert!(grown);
        world.server.kill();
        let done = running.done();
        assert!(matches!(done.status, Some(0 | 4)), "{done:#?}");
        if done.status == Some(4) {
            done.ends(4, &["can not be reached", "try again"]);
        }
        world.server.restart();
        a.ok(&arguments);
        let _ = std::fs::remove_dir_all(world.path("out"));
        a.ok(&["restore", "out", "--vault", &vault]);
        assert_same(&world.path("docs"), &world.path("out/docs"));
    }
    world.login("b").ok(&["check", "--read-data"]);
}

#[test]
fn ctrl_c_ends_a_backup_cleanly() {
    let world = World::new();
    for number in 0..2000 {
        write(&world.path(&format!("docs/{number}")), noise(number, 30_000));
    }
    let a = world.signup("a");
    let mut running = a.start(&["backup", "docs"]);
    assert!(poll(60, || size(&world.server.objects()) > 0 || !running.is_running()));
    running.interrupt();
    running.done().ends(130, &["stopped", "goes on"]);
    assert!(a.snapshots().is_empty());
    let before = size(&world.server.objects());
    a.backup("docs");
    // What was sent before is not sent again.
    assert!(size(&world.server.objects()) < before + 2000 * 33_000);
    let mut running = a.start(&["restore", "out"]);
    assert!(poll(60, || size(&world.path("out")) > 0 || !running.is_running()));
    running.interrupt();
    running.done().ends(130, &["stopped"]);
    assert_no_parts(&world.path("out"));
    a.ok(&["restore", "out"]);
    assert_same(&world.path("docs"), &world.path("out/docs"));
}
