//! Contents are sent once: copies, renames, and runs that were cut off.

use crate::lost::behind;
use crate::proxy::Cut;
use crate::tree::{assert_same, noise, write};
use crate::world::{Device, World};

/// Objects that the server has.
fn objects(world: &World) -> i64 {
    world.server.database().query_row("SELECT count(*) FROM object", [], |row| row.get(0)).unwrap()
}

fn restored_is_same(world: &World, device: &Device, vault: &str) {
    let _ = std::fs::remove_dir_all(world.path("out"));
    device.ok(&["restore", "out", "--vault", vault]);
    assert_same(&world.path("docs"), &world.path("out/docs"));
}

#[test]
fn copies_and_renames_send_nothing() {
    let world = World::new();
    let a = world.signup("a");
    for number in 0..4 {
        write(&world.path(&format!("docs/{number}")), noise(number, 60_000));
    }
    // Two that are equal from the beginning, and one that is sent in parts.
    write(&world.path("docs/equal"), noise(1, 60_000));
    write(&world.path("docs/large"), noise(9, 9_000_000));
    a.backup("docs");
    assert_eq!(objects(&world), 5);
    for (from, to) in [("1", "moved"), ("large", "moved large")] {
        std::fs::rename(world.path("docs").join(from), world.path("docs").join(to)).unwrap();
    }
    write(&world.path("docs/copy"), noise(2, 60_000));
    write(&world.path("docs/deep/copy of the large one"), noise(9, 9_000_000));
    a.backup("docs");
    assert_eq!(objects(&world), 5);
    restored_is_same(&world, &a, "files");
    // The copy stands on its own: what it was copied from may go.
    for name in ["2", "moved large", "equal"] {
        std::fs::remove_file(world.path("docs").join(name)).unwrap();
    }
    a.backup("docs");
    restored_is_same(&world, &a, "files");
    write(&world.path("docs/new"), noise(10, 60_000));
    a.backup("docs");
    assert_eq!(objects(&world), 6);
    write(&world.path("docs/told to 1"), noise(10, 60_000));
    write(&world.path("docs/told to 2"), noise(9, 9_000_000));
    a.ok(&["backup", "docs", "--no-deduplicate"]);
    assert_eq!(objects(&world), 8);
    a.ok(&["check", "--read-data"]);
}

/// 24 files that make three requests, then a large one.
fn fill(world: &World) -> i64 {
    for number in 0..24 {
        write(&world.path(&format!("docs/{number}")), noise(number, 1_050_000));
    }
    write(&world.path("docs/large"), noise(99, 9_000_000));
    25
}

/// However far a run came, the next one sends what the server has not acknowledged, and nothing else.
#[test]
fn a_run_that_was_cut_off_sends_nothing_twice() {
    let (world, proxy) = behind();
    let a = world.signup("a");
    let files = fill(&world);
    // Groups of eight files, the parts and the end of the large one.
    let cuts = [("/objects ", 1, 8), ("/objects ", 2, 16), ("/parts/", 1, 25), ("/complete ", 0, 25)];
    let mut before = 0;
    for (number, (place, spared, sent)) in cuts.into_iter().enumerate() {
        let vault = format!("vault {number}");
        proxy.cut_from(spared, Cut::Before(place));
        a.run(&["backup", "docs", "--vault", &vault]).ends(4, &["can not be reached"]);
        proxy.heal();
        assert_eq!(objects(&world) - before, sent, "{place}");
        a.ok(&["backup", "docs", "--vault", &vault]);
        assert_eq!(objects(&world) - before, files, "{place}");
        before = objects(&world);
        restored_is_same(&world, &a, &vault);
    }
}

/// The server collected what a run that was cut off had sent: the next one notices, and sends it again.
#[test]
fn what_was_sent_and_collected_is_sent_again_in_the_same_run() {
    let (mut world, proxy) = behind();
    let a = world.signup("a");
    let files = fill(&world);
    for (number, spared) in [1, 2].into_iter().enumerate() {
        let vault = format!("vault {number}");
        let before = objects(&world);
        proxy.cut_from(spared, Cut::Before("/objects "));
        a.run(&["backup", "docs", "--vault", &vault]).ends(4, &["can not be reached"]);
        proxy.heal();
        world.server.stop();
        // As the collector does a day later.
        world.server.change("DELETE FROM part WHERE blob IN (SELECT blob FROM object WHERE NOT named)");
        let collected = world.server.change("DELETE FROM object WHERE NOT named");
        assert_eq!(collected, 8 * (number + 1));
        world.server.restart();
        a.ok(&["backup", "docs", "--vault", &vault]);
        assert_eq!(objects(&world) - before, files);
        restored_is_same(&world, &a, &vault);
    }
}

/// The server lost what commits name; a file that is touched with the contents that it had is sent again then.
#[test]
fn what_the_server_lost_is_sent_again_when_its_file_is_touched() {
    let mut world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/framed"), noise(1, 60_000));
    write(&world.path("docs/large"), noise(2, 9_000_000));
    write(&world.path("docs/other"), noise(3, 60_000));
    a.backup("docs");
    world.server.stop();
    world.server.change("DELETE FROM part");
    assert_eq!(world.server.change("DELETE FROM object"), 3);
    world.server.restart();
    for name in ["framed", "large", "other"] {
        crate::tree::set_time(&world.path("docs").join(name), 1_600_000_000, 0);
    }
    a.backup("docs");
    assert_eq!(objects(&world), 3);
    restored_is_same(&world, &a, "files");
}
