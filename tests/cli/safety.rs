//! A restore never harms what is there already, and never leaves its destination.

use crate::tree::{assert_no_parts, assert_same, assert_trees, noise, tree, write};
use crate::world::World;
use std::os::unix::fs::{MetadataExt as _, symlink};

#[test]
fn what_differs_is_kept_until_told_otherwise() {
    let world = World::new();
    let a = world.signup("a");
    let docs = world.path("docs");
    write(&docs.join("small"), "new");
    write(&docs.join("same size"), "aaaa");
    write(&docs.join("large"), noise(1, 5_000_000));
    write(&docs.join("equal"), noise(2, 100_000));
    write(&docs.join("fresh"), "fresh");
    symlink("small", docs.join("link")).unwrap();
    symlink("small", docs.join("link 2")).unwrap();
    a.backup("docs");
    let out = world.path("out/docs");
    write(&out.join("small"), "mine, longer");
    write(&out.join("same size"), "bbbb");
    write(&out.join("large"), noise(9, 5_000_000));
    write(&out.join("equal"), noise(2, 100_000));
    write(&out.join("own"), "nobody's business");
    write(&out.join("link"), "a file");
    symlink("elsewhere", out.join("link 2")).unwrap();
    let inode = |name: &str| out.join(name).symlink_metadata().unwrap().ino();
    let before: Vec<u64> = ["small", "large", "equal", "own"].into_iter().map(inode).collect();
    let done = a.run(&["--json", "restore", "out"]);
    let names = ["docs/small", "docs/same size", "docs/large", "docs/link", "docs/link 2", "--overwrite"];
    let done = done.ends(3, &names);
    assert_eq!(done.json()["failed"].as_array().unwrap().len(), 5, "{done:?}");
    assert_eq!(done.json()["unchanged"], 1);
    assert_eq!(std::fs::read(out.join("small")).unwrap(), b"mine, longer");
    assert_eq!(std::fs::read(out.join("same size")).unwrap(), b"bbbb");
    assert_eq!(std::fs::read(out.join("large")).unwrap(), noise(9, 5_000_000));
    assert_eq!(std::fs::read(out.join("link")).unwrap(), b"a file");
    assert_eq!(std::fs::read_link(out.join("link 2")).unwrap().to_str(), Some("elsewhere"));
    assert_eq!(std::fs::read(out.join("fresh")).unwrap(), b"fresh");
    let after: Vec<u64> = ["small", "large", "equal", "own"].into_iter().map(inode).collect();
    assert_eq!(before, after);
    assert_no_parts(&world.path("out"));

    a.ok(&["restore", "out", "--overwrite"]);
    assert_eq!(std::fs::read(out.join("own")).unwrap(), b"nobody's business");
    assert_eq!(inode("equal"), before[2]);
    std::fs::remove_file(out.join("own")).unwrap();
    crate::tree::set_time(&out, docs.metadata().unwrap().mtime(), docs.metadata().unwrap().mtime_nsec());
    assert_same(&docs, &out);
}

#[test]
fn planted_links_are_never_followed() {
    let world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/sub/f"), "from the backup");
    write(&world.path("docs/g"), "from the backup");
    write(&world.path("docs/big"), noise(4, 200_000));
    a.backup("docs");
    write(&world.path("victim/f"), "precious");
    write(&world.path("victim/g"), "precious");
    let victim = tree(&world.path("victim"));
    for arguments in [&["restore", "out"][..], &["restore", "out", "--overwrite"]] {
        // In the place of the source, of a folder in it, of a file.
        for planted in ["out/docs", "out/docs/sub", "out/docs/g", "out/docs/big"] {
            let _ = std::fs::remove_dir_all(world.path("out"));
            let place = world.path(planted);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            let target = if planted.ends_with('g') { "victim/g" } else { "victim" };
            symlink(world.path(target), &place).unwrap();
            let done = a.run(arguments);
            let replaced = arguments.len() == 3 && !(planted.ends_with("docs") || planted.ends_with("sub"));
            assert_eq!(done.status, Some(if replaced { 0 } else { 3 }), "{planted}: {done:?}");
            assert!(replaced || done.err.contains(planted), "{planted}: {done:?}");
            assert_eq!(place.symlink_metadata().unwrap().is_symlink(), !replaced, "{planted}");
            assert_trees(&victim, &tree(&world.path("victim")));
        }
    }
}

#[test]
fn what_is_in_the_way_is_named_and_the_rest_comes() {
    let world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/file"), "f");
    write(&world.path("docs/folder/g"), "g");
    write(&world.path("docs/rest"), "r");
    a.backup("docs");
    std::fs::create_dir_all(world.path("out/docs/file/own")).unwrap();
    write(&world.path("out/docs/folder"), "own");
    for arguments in [&["restore", "out"][..], &["restore", "out", "--overwrite"]] {
        a.run(arguments).ends(3, &["docs/file", "docs/folder"]);
        assert!(world.path("out/docs/file/own").is_dir());
        assert_eq!(std::fs::read(world.path("out/docs/folder")).unwrap(), b"own");
        assert_eq!(std::fs::read(world.path("out/docs/rest")).unwrap(), b"r");
    }
    assert_no_parts(&world.path("out"));
    // A file where the destination should be.
    write(&world.path("a file"), "own");
    a.run(&["restore", "a file"]).ends(1, &["a file"]);
    assert_eq!(std::fs::read(world.path("a file")).unwrap(), b"own");
}

#[test]
fn nothing_outside_the_destination_is_touched() {
    let world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/sub/f"), noise(1, 70_000));
    symlink("../../../outside", world.path("docs/sub/up")).unwrap();
    a.backup("docs");
    std::fs::create_dir(world.path("outside")).unwrap();
    std::fs::create_dir(world.path("real")).unwrap();
    symlink(world.path("real"), world.path("by a link")).unwrap();
    let before = tree(&world.path("docs"));
    // The destination itself is the user's word, through a link or new several levels deep.
    a.ok(&["restore", "by a link"]);
    a.ok(&["restore", "new/levels/deep"]);
    assert_same(&world.path("docs"), &world.path("real/docs"));
    assert_same(&world.path("docs"), &world.path("new/levels/deep/docs"));
    assert_trees(&before, &tree(&world.path("docs")));
    assert_eq!(tree(&world.path("outside")).len(), 1);
}
