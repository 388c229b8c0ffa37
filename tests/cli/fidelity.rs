//! What is backed up comes back as it was.

use crate::tree::{assert_same, assert_trees, noise, set_mode, set_time, tree, write};
use crate::world::World;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

pub(crate) fn fill(root: &Path) {
    write(&root.join("empty"), "");
    write(&root.join("inline"), "hello");
    // Either side of what rides in a record, of a chunk, and of what is sent in parts.
    for (number, size) in [4095, 4096, 4097, 65_535, 65_536, 65_537, 300_000].into_iter().enumerate() {
        write(&root.join(format!("sizes/{size}")), noise(number as u64, size));
    }
    write(&root.join("sizes/large"), noise(77, 9_000_001));
    write(&root.join("zeros"), vec![0; 200_000]);
    std::fs::create_dir_all(root.join("empty folder/and one in it")).unwrap();
    write(&root.join(OsStr::from_bytes(b"not-\xff\xfe-utf8/\x80")), "x");
    write(&root.join("two\nlines"), "newline");
    write(&root.join(" -rf *;'\"\\$(x)"), "shell");
    write(&root.join("tab\tand\x1b[31mred"), "control");
    write(&root.join("\u{e9}"), "one code point");
    write(&root.join("e\u{301}"), "two code points");
    write(&root.join("n".repeat(255)), "long name");
    symlink("inline", root.join("link")).unwrap();
    symlink("not there", root.join("dangling")).unwrap();
    symlink("/etc/passwd", root.join("absolute")).unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink(OsStr::from_bytes(b"\xff"), root.join("bytes")).unwrap();
    write(&root.join("secret"), "s");
    set_mode(&root.join("secret"), 0o600);
    set_mode(&root.join("inline"), 0o444);
    set_mode(&root.join("zeros"), 0o751);
    set_mode(&root.join("empty folder"), 0o500);
    set_time(&root.join("inline"), 1_000_000_000, 123_456_789);
    set_time(&root.join("zeros"), 4_102_444_800, 1);
    set_time(&root.join("secret"), 0, 0);
    set_time(&root.join("empty"), -86_400, 999_999_999);
    set_time(&root.join("dangling"), 1_234_567_890, 987_654_321);
    set_time(&root.join("empty folder/and one in it"), 1_111_111_111, 5);
    set_time(&root.join("empty folder"), 1_222_222_222, 6);
    set_time(root, 1_333_333_333, 7);
}

#[test]
fn everything_comes_back_as_it_was() {
    let world = World::new();
    let a = world.signup("a");
    fill(&world.path("docs"));
    a.backup("docs");
    let out = a.restore("out");
    assert_same(&world.path("docs"), &out.join("docs"));
    assert_same(&world.path("docs"), &world.login("b").restore("out-b").join("docs"));
    // Nothing changed: nothing is sent, nothing is written twice.
    let again = a.ok(&["--json", "backup", "docs"]).json();
    assert_eq!((&again[0]["changed"], &again[0]["deleted"]), (&0.into(), &0.into()), "{again}");
    let again = a.ok(&["--json", "restore", "out"]).json();
    assert_eq!(again["failed"].as_array().unwrap().len(), 0);
    assert_eq!(again["bytes"], 0, "equal files are left alone: {again}");
    assert_same(&world.path("docs"), &out.join("docs"));
    a.ok(&["check", "--read-data"]);
}

#[test]
fn a_root_may_be_a_file_or_a_link() {
    let world = World::new();
    let a = world.signup("a");
    write(&world.path("alone"), noise(3, 5000));
    set_time(&world.path("alone"), 1_000_000_000, 3);
    symlink("alone", world.path("pointer")).unwrap();
    a.ok(&["backup", "alone", "pointer"]);
    let out = a.restore("out");
    assert_same(&world.path("alone"), &out.join("alone"));
    assert_same(&world.path("pointer"), &out.join("pointer"));
}

#[test]
fn roots_of_one_name_stay_apart() {
    let world = World::new();
    let a = world.signup("a");
    write(&world.path("x/docs/f"), "of x");
    write(&world.path("y/docs/f"), "of y");
    a.ok(&["backup", "x/docs", "y/docs"]);
    let b = world.login("b");
    b.backup("y/docs");
    let out = a.restore("out");
    assert_same(&world.path("x/docs"), &out.join("docs"));
    assert_same(&world.path("y/docs"), &out.join("docs-2"));
    assert_same(&world.path("y/docs"), &out.join("docs-3"));
}

#[test]
fn a_trailing_slash_is_the_same_root() {
    let world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/f"), "1");
    a.backup("docs");
    a.backup("docs/");
    a.backup("./docs/.");
    a.backup("docs/../docs");
    let snapshots = a.snapshots();
    assert!(snapshots.iter().all(|snapshot| snapshot["source"] == "docs"), "{snapshots:#?}");
}

#[test]
fn special_files_are_named_and_never_opened() {
    let world = World::new();
    let a = world.signup("a");
    let docs = world.path("docs");
    write(&docs.join("f"), "1");
    mknodat(CWD, docs.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(docs.join("socket")).unwrap();
    let done = a.run(&["backup", "docs"]).ends(0, &["docs/fifo", "docs/socket", "left out"]);
    assert!(done.out.contains("1 files, 1 folders"), "{done:?}");
    let out = a.restore("out").join("docs");
    assert_eq!(tree(&out).len(), 2);
    // A FIFO as the root is refused, and nothing waits for somebody to write into it.
    a.run(&["backup", "docs/fifo"]).ends(1, &["neither a file nor a folder"]);
}

#[test]
fn set_uid_is_dropped_and_the_rest_of_the_mode_is_not() {
    let world = World::new();
    let a = world.signup("a");
    let docs = world.path("docs");
    write(&docs.join("f"), "1");
    set_mode(&docs.join("f"), 0o6755);
    set_mode(&docs, 0o1777);
    a.backup("docs");
    let found = tree(&a.restore("out").join("docs"));
    assert_eq!(found[&b"f"[..]].mode, 0o755);
    assert_eq!(found[&b""[..]].mode, 0o777);
}

#[test]
fn the_own_home_is_left_out() {
    let world = World::new();
    let mut a = world.device("a");
    a.home = world.path("docs/hidden/home");
    std::fs::create_dir_all(world.path("docs/hidden")).unwrap();
    let passphrase = world.text("passphrase");
    a.ok(&["signup", "--name", "ada", "--passphrase-file", &passphrase, "--kit", "kit"]);
    write(&world.path("docs/f"), "1");
    a.backup("docs");
    let found = tree(&a.restore("out").join("docs"));
    let names: Vec<&[u8]> = found.keys().map(Vec::as_slice).collect();
    assert_eq!(names, [&b""[..], b"f", b"hidden"]);
    // Also if it is reached by another name.
    symlink(world.path("docs/hidden"), world.path("other name")).unwrap();
    a.home = world.path("other name/home");
    a.backup("docs");
    symlink(world.path("docs/hidden/home"), world.path("link to home")).unwrap();
    a.home = world.path("link to home");
    a.backup("docs");
    let found = tree(&a.restore("out-2").join("docs"));
    assert_eq!(found.len(), 3, "the home reached through a link is backed up");
}

#[test]
fn excluded_names_and_paths_are_left_out() {
    let world = World::new();
    let a = world.signup("a");
    for name in ["keep", "a.tmp", "sub/b.tmp", "sub/keep", "node_modules/x", "sub/node_modules/y", "sub/z/w"]
    {
        write(&world.path("docs").join(name), name);
    }
    a.ok(&["backup", "docs", "--exclude", "*.tmp", "--exclude", "node_modules", "--exclude", "sub/z"]);
    let found = tree(&a.restore("out").join("docs"));
    let names: Vec<&str> = found.keys().map(|name| std::str::from_utf8(name).unwrap()).collect();
    assert_eq!(names, ["", "keep", "sub", "sub/keep"]);
    a.run(&["backup", "docs", "--exclude", "["]).ends(2, &["--exclude ["]);
}

#[test]
fn what_can_not_be_read_is_named_and_stays_as_it_was() {
    let world = World::new();
    let a = world.signup("a");
    for name in ["f", "g", "sub/h", "sub/deep/i"] {
        write(&world.path("docs").join(name), format!("first {name}"));
    }
    a.backup("docs");
    let before = tree(&world.path("docs"));
    std::fs::write(world.path("docs/g"), "second g").unwrap();
    std::fs::write(world.path("docs/f"), "second f").unwrap();
    set_mode(&world.path("docs/f"), 0o000);
    set_mode(&world.path("docs/sub"), 0o000);
    for path in crate::tree::files(&a.home).iter().chain([&a.home]) {
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
        }
    }
    let done = a.run_as_nobody(&["backup", "docs"]).ends(3, &["docs/f", "docs/sub", "as it was"]);
    assert!(!done.err.contains("docs/g"), "{done:?}");
    let shown = a.run_as_nobody(&["--json", "snapshots"]).ok().json();
    assert_eq!(shown[1]["unreadable"], 2);
    let out = a.restore("out").join("docs");
    let after = tree(&out);
    assert_eq!(after[&b"g"[..]].bytes, b"second g");
    for name in ["f", "sub/h", "sub/deep/i"] {
        assert_eq!(after[name.as_bytes()].bytes, before[name.as_bytes()].bytes, "{name}");
    }
    set_mode(&world.path("docs/f"), 0o644);
    set_mode(&world.path("docs/sub"), 0o755);
    a.backup("docs");
    assert_same(&world.path("docs"), &a.restore("out-2").join("docs"));
}

#[test]
fn a_path_that_is_too_long_is_named() {
    let world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/f"), "1");
    // Deeper than any path can say, made one folder at a time.
    let mut folder = rustix::fs::open(world.path("docs"), flags(), Mode::empty()).unwrap();
    let name = "d".repeat(250);
    for _ in 0..18 {
        rustix::fs::mkdirat(&folder, name.as_str(), Mode::from_raw_mode(0o700)).unwrap();
        folder = rustix::fs::openat(&folder, name.as_str(), flags(), Mode::empty()).unwrap();
    }
    a.run(&["backup", "docs"]).ends(3, &["longer than 4,096 bytes"]);
    a.ok(&["restore", "out", "docs/f"]);
    assert_eq!(std::fs::read(world.path("out/docs/f")).unwrap(), b"1");
}

fn flags() -> rustix::fs::OFlags {
    rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY
}

#[test]
fn a_file_that_grows_while_it_is_read_is_some_state_it_had() {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicBool, Ordering};
    let world = World::new();
    let a = world.signup("a");
    let path = world.path("docs/log");
    write(&path, vec![b'x'; 8_000_000]);
    write(&world.path("docs/quiet"), "1");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
            while !stop.load(Ordering::Relaxed) {
                file.write_all(b"xxxx").unwrap();
            }
        });
        let done = a.run(&["backup", "docs"]);
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(done.status, Some(0 | 3)), "{done:?}");
        assert!(done.status == Some(0) || done.err.contains("docs/log"), "{done:?}");
    });
    let out = a.restore("out").join("docs");
    assert_eq!(std::fs::read(out.join("quiet")).unwrap(), b"1");
    if let Ok(bytes) = std::fs::read(out.join("log")) {
        assert!(bytes.len() >= 8_000_000 && bytes.iter().all(|byte| *byte == b'x'));
    }
    a.backup("docs");
    assert_trees(&tree(&world.path("docs")), &tree(&a.restore("out-2").join("docs")));
}
