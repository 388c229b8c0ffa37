//! What a backup leaves out by rule: patterns of the user's and of the tree, caches, other file systems.

use crate::full::Small;
use crate::program::Done;
use crate::tree::{set_mode, write};
use crate::world::{Device, World};
use std::os::unix::fs::symlink;

const CACHE_MARK: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# a cache\n";

/// Paths of the newest snapshot of `docs`, without `docs/`.
fn listed(device: &Device) -> Vec<String> {
    names_of(&device.ok(&["--json", "ls"]))
}

fn names_of(done: &Done) -> Vec<String> {
    let list = done.json();
    let paths = list.as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap().to_owned());
    let mut names: Vec<String> =
        paths.filter_map(|path| path.strip_prefix("docs/").map(str::to_owned)).collect();
    names.sort();
    names
}

fn write_all(world: &World, paths: &[&str]) {
    for path in paths {
        write(&world.path("docs").join(path), path);
    }
}

#[test]
fn files_in_the_tree_say_what_is_left_out_below_them() {
    let world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/.lockstepignore"), "# logs\n*.log\n/build/\n\\#x\n");
    write(&world.path("docs/sub/.lockstepignore"), "!wanted.log\nsecret/\n/top\n");
    write_all(&world, &["a.log", "a.txt", "#x", "build/x", "secret/s", "top", "sub/top", "sub/deep/top"]);
    write_all(&world, &["sub/build/y", "sub/wanted.log", "sub/other.log", "sub/secret/s", "sub/deep/b.log"]);
    write_all(&world, &["sub/deep/wanted.log"]);
    let done = a.ok(&["--json", "backup", "docs"]);
    assert_eq!(done.json()[0]["left_out"], 7, "{done:?}");
    let expected = [
        ".lockstepignore",
        "a.txt",
        "secret",
        "secret/s",
        "sub",
        "sub/.lockstepignore",
        "sub/build",
        "sub/build/y",
        "sub/deep",
        "sub/deep/top",
        "sub/deep/wanted.log",
        "sub/wanted.log",
        "top",
    ];
    assert_eq!(listed(&a), expected);
    assert!(a.ok(&["backup", "docs"]).out.contains("7 left out"));
}

#[test]
fn what_is_left_out_later_is_gone_from_the_new_snapshot_alone() {
    let world = World::new();
    let a = world.signup("a");
    write_all(&world, &["a", "old/b", "old/c"]);
    let first = a.backup("docs");
    write(&world.path("docs/.lockstepignore"), "old\n");
    let done = a.ok(&["--json", "backup", "docs"]);
    let one = &done.json()[0];
    assert_eq!((&one["deleted"], &one["unreadable"]), (&3.into(), &serde_json::json!([])), "{done:?}");
    assert!(done.err.is_empty(), "{done:?}");
    assert_eq!(listed(&a), [".lockstepignore", "a"]);
    let before = a.ok(&["--json", "ls", "--snapshot", &first]);
    assert_eq!(names_of(&before), ["a", "old", "old/b", "old/c"]);
    std::fs::remove_file(world.path("docs/.lockstepignore")).unwrap();
    a.backup("docs");
    assert_eq!(listed(&a), ["a", "old", "old/b", "old/c"]);
    assert_eq!(std::fs::read(a.restore("out").join("docs/old/b")).unwrap(), b"old/b");
}

#[test]
fn patterns_from_files_count_in_order_and_before_the_tree() {
    let world = World::new();
    let a = world.signup("a");
    write_all(&world, &["a.tmp", "b.tmp", "c.txt", "d.iso", "sub/e.iso", "sub/f.txt"]);
    write(&world.path("docs/.lockstepignore"), "!d.iso\nc.txt\nf.txt\n");
    write(&world.path("one"), "\u{feff}*.tmp\r\n*.iso\r\n");
    write(&world.path("two"), "!b.tmp\n!/c.txt\n");
    a.ok(&["backup", "docs", "--exclude-file", "one", "--exclude-file", "two"]);
    assert_eq!(listed(&a), [".lockstepignore", "b.tmp", "c.txt", "sub"]);
    a.ok(&["backup", "docs", "--exclude-file", "two", "--exclude-file", "one", "--exclude", "c.*"]);
    assert_eq!(listed(&a), [".lockstepignore", "sub"]);

    let before = a.snapshots().len();
    write(&world.path("wrong"), "good\n\n[z-a]\n");
    a.run(&["backup", "docs", "--exclude-file", "wrong"]).ends(2, &["wrong", "line 3 "]);
    a.run(&["backup", "docs", "--exclude-file", "nowhere"]).ends(1, &["nowhere"]);
    write(&world.path("large"), vec![b'#'; 1024 * 1024 + 1]);
    a.run(&["backup", "docs", "--exclude-file", "large"]).ends(1, &["large", "1 MiB"]);
    assert_eq!(a.snapshots().len(), before);
}

/// A rule that can not be read is told; what it might have left out is backed up.
#[test]
fn a_file_of_rules_that_can_not_be_followed_is_named() {
    let world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/1/.lockstepignore"), b"good\n[z-a]\n\xff\n*.log\n");
    write_all(&world, &["1/good", "1/x.log", "1/a", "2/a", "3/a", "4/a"]);
    write(&world.path("rules"), "a\n");
    symlink(world.path("rules"), world.path("docs/2/.lockstepignore")).unwrap();
    let fifo = world.path("docs/3/.lockstepignore");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    write(&world.path("docs/4/.lockstepignore"), "a\n".repeat(600_000));
    let done = a.run(&["--json", "backup", "docs"]);
    let done =
        done.ends(3, &["1/.lockstepignore", "line 2 ", "line 3 ", "2/.lockstepignore", "symbolic link"]);
    let done = done.ends(3, &["3/.lockstepignore", "no regular file", "4/.lockstepignore", "1 MiB"]);
    let one = &done.json()[0];
    assert_eq!(one["rules_unread"].as_array().unwrap().len(), 5, "{done:?}");
    assert_eq!(one["unreadable"], serde_json::json!([]));
    let expected = ["1", "1/.lockstepignore", "1/a", "2", "2/.lockstepignore", "2/a", "3", "3/a", "4"];
    assert_eq!(listed(&a)[..9], expected);
    assert_eq!(listed(&a)[9..], ["4/.lockstepignore", "4/a"]);
}

#[test]
fn what_is_left_out_is_not_looked_into() {
    let world = World::new();
    let a = world.signup("a");
    write_all(&world, &["private/x", "open"]);
    set_mode(&world.path("docs/private"), 0o000);
    for path in crate::tree::files(&a.home).iter().chain([&a.home]) {
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
        }
    }
    a.run_as_nobody(&["backup", "docs"]).ends(3, &["docs/private"]);
    write(&world.path("docs/.lockstepignore"), "private/\n");
    let done = a.run_as_nobody(&["backup", "docs"]).ok();
    assert!(done.err.is_empty(), "{done:?}");
    set_mode(&world.path("docs/private"), 0o700);
}

#[test]
fn of_a_cache_only_its_mark_is_kept() {
    let world = World::new();
    let a = world.signup("a");
    write_all(&world, &["a", "cache/x", "cache/deep/y", "like/x", "link/x", "docs/in a cache"]);
    write(&world.path("docs/CACHEDIR.TAG"), CACHE_MARK);
    write(&world.path("docs/cache/CACHEDIR.TAG"), CACHE_MARK);
    write(&world.path("docs/like/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc56\n");
    symlink("../CACHEDIR.TAG", world.path("docs/link/CACHEDIR.TAG")).unwrap();
    a.ok(&["backup", "docs", "--exclude-caches"]);
    let kept = ["CACHEDIR.TAG", "a", "cache", "cache/CACHEDIR.TAG", "docs", "docs/in a cache", "like"];
    let found = listed(&a);
    assert_eq!(found[..7], kept);
    assert_eq!(found[7..], ["like/CACHEDIR.TAG", "like/x", "link", "link/CACHEDIR.TAG", "link/x"]);
    a.backup("docs");
    assert!(listed(&a).contains(&"cache/deep/y".to_owned()));
}

#[test]
fn other_file_systems_are_left_out_and_the_folders_where_they_are_stay() {
    let world = World::new();
    let a = world.signup("a");
    write_all(&world, &["a", "sub/b"]);
    let Some(_one) = Small::mount(&world.path("docs/mnt"), 1) else { return };
    let Some(_two) = Small::mount(&world.path("docs/sub/other"), 1) else { return };
    write_all(&world, &["mnt/x", "mnt/deep/y", "sub/other/z"]);
    let all = ["a", "mnt", "mnt/deep", "mnt/deep/y", "mnt/x", "sub", "sub/b", "sub/other", "sub/other/z"];
    a.backup("docs");
    assert_eq!(listed(&a), all);
    let done = a.ok(&["--json", "backup", "--one-file-system", "docs"]);
    assert_eq!(done.json()[0]["left_out"], 2, "{done:?}");
    assert_eq!(listed(&a), ["a", "mnt", "sub", "sub/b", "sub/other"]);
    assert!(std::fs::read_dir(a.restore("out").join("docs/mnt")).unwrap().next().is_none());
    // A root is on its own file system, wherever that is.
    let done = a.ok(&["--json", "backup", "--one-file-system", "docs/mnt"]);
    assert_eq!((&done.json()[0]["files"], &done.json()[0]["left_out"]), (&2.into(), &0.into()), "{done:?}");
}
