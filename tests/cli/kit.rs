//! The recovery kit: as a page for the printer, and with a newer checkpoint.

use crate::program::Done;
use crate::tree::write;
use crate::world::{Device, NAME, World};
use std::os::unix::fs::PermissionsExt as _;

fn text(world: &World, name: &str) -> String {
    std::fs::read_to_string(world.path(name)).unwrap()
}

/// The value of a line of a kit, text or page.
fn field(kit: &str, name: &str) -> String {
    let begin = format!("{name}: ");
    let line = kit.lines().find_map(|line| line.strip_prefix(&begin));
    line.unwrap_or_else(|| panic!("no line {name}: {kit}")).to_owned()
}

fn signup_with(world: &World, device: &Device, name: &str, kit: &str) -> Done {
    device.run(&["signup", "--name", name, "--passphrase-file", &world.text("passphrase"), "--kit", kit])
}

fn recover(world: &World, device: &str, key: &str, kit: &str) -> Done {
    let new = world.secret("new", "another passphrase");
    let place = ["recover", "--name", NAME, "--recovery-key-file", key];
    let mut arguments = place.to_vec();
    arguments.extend(["--passphrase-file", &new, "--kit", kit]);
    world.device(device).run(&arguments)
}

/// What the QR code of a page says, read from its picture.
fn scanned(page: &str) -> String {
    const SCALE: usize = 8;
    let between = |begin: &str, end: &str| page.split_once(begin).unwrap().1.split_once(end).unwrap().0;
    let side: usize = between("viewBox=\"0 0 ", "\"").split_once(' ').unwrap().0.parse().unwrap();
    let path = between("<path d=\"", "\"");
    let mut black = vec![false; side * side];
    for module in path.split("h1v1h-1z").filter(|module| !module.is_empty()) {
        let (x, y) = module.strip_prefix('M').unwrap().split_once(' ').unwrap();
        black[y.parse::<usize>().unwrap() * side + x.parse::<usize>().unwrap()] = true;
    }
    let pixel = |x: usize, y: usize| if black[y / SCALE * side + x / SCALE] { 0 } else { 255 };
    let mut picture = rqrr::PreparedImage::prepare_from_greyscale(side * SCALE, side * SCALE, pixel);
    let grids = picture.detect_grids();
    assert_eq!(grids.len(), 1, "one code, with enough white round it");
    grids[0].decode().unwrap().1
}

#[test]
fn a_kit_for_the_printer_says_the_same_and_recovers() {
    let world = World::new();
    let a = world.device("a");
    signup_with(&world, &a, NAME, "kit.html").ok();
    a.put("n", "1").ok();
    let page = text(&world, "kit.html");
    assert_eq!(world.path("kit.html").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // All the lines of the text, and what it is for.
    let key = field(&page, "recovery key");
    assert_eq!(
        (field(&page, "server").as_str(), field(&page, "name").as_str()),
        (world.server.origin.as_str(), NAME)
    );
    for name in ["account", "identity", "checkpoint"] {
        field(&page, name);
    }
    assert!(page.contains("nothing is lost") && page.contains("lockstep recover"));
    assert!(page.contains(&format!("--server {}", world.server.origin)));
    // Nothing is fetched, run or sent.
    let without_server = page.replace(&world.server.origin, "");
    assert!(!without_server.contains("://") && !without_server.contains("url("), "{page}");
    for tag in ["<script", "<img", "<link", "<iframe", "<a ", "src=", "href=", "@import"] {
        assert!(!page.contains(tag), "{tag}");
    }
    assert!(page.contains("Content-Security-Policy") && page.contains("default-src 'none'"));
    // The code is the key.
    let scanned = scanned(&page);
    assert_eq!(scanned, key.replace(' ', "").to_uppercase());

    // The page, the bare key as scanned, and a page that was edited.
    write(&world.path("scanned.txt"), &scanned);
    let mistyped = page.replace(&key, &key.replacen(&key[10..12], "bb", 1));
    write(&world.path("mistyped.html"), mistyped);
    recover(&world, "b", "mistyped.html", "kit-b").ends(2, &["recovery key"]);
    write(&world.path("other.html"), "<!DOCTYPE html><p>no kit</p>");
    recover(&world, "b", "other.html", "kit-b").ends(2, &["no recovery kit"]);
    recover(&world, "b", "kit.html", "kit-b.html").ok();
    assert_eq!(world.device("b").get("n"), "1");
    let new = text(&world, "kit-b.html");
    assert_ne!(field(&new, "recovery key"), key);
    recover(&world, "c", "scanned.txt", "kit-c").ends(5, &["recovery key is wrong"]);
    recover(&world, "c", "kit-b.html", "kit-c").ok();
}

#[test]
fn a_refreshed_kit_refuses_what_is_older() {
    let mut world = World::new();
    let a = world.device("a");
    signup_with(&world, &a, NAME, "kit").ok();
    a.put("n", "1").ok();
    let before = text(&world, "kit");
    std::fs::copy(world.path("kit"), world.path("kit-old")).unwrap();
    let old = world.path("old");
    world.server.back_up(&old);
    a.ok(&["vault", "create", "more"]);

    let done = a.ok(&["kit", "refresh", "--kit", "kit"]);
    assert!(done.out.contains("new checkpoint"), "{done:?}");
    let after = text(&world, "kit");
    for name in ["server", "name", "account", "identity", "recovery key"] {
        assert_eq!(field(&before, name), field(&after, name));
    }
    assert_ne!(field(&before, "checkpoint"), field(&after, "checkpoint"));
    assert_eq!(world.path("kit").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // Nothing new, the same again; and the line alone is that line.
    a.ok(&["kit", "refresh", "--kit", "kit"]);
    assert_eq!(text(&world, "kit"), after);
    let line = a.ok(&["kit", "refresh"]).out;
    assert_eq!(field(&line, "checkpoint"), field(&after, "checkpoint"));
    assert!(line.contains("in the place of the kit's old one"), "{line}");
    let value = a.ok(&["--json", "kit", "refresh"]).json();
    assert_eq!(value["checkpoint"].as_str().unwrap(), field(&after, "checkpoint"));

    // The old state, seen by somebody who has nothing but a kit.
    world.server.put_back(&old, true, true);
    a.run(&["kit", "refresh", "--kit", "kit"]).ends(6, &["went back in time"]);
    assert_eq!(text(&world, "kit"), after);
    recover(&world, "b", "kit", "kit-b").ends(6, &["went back in time"]);
    recover(&world, "c", "kit-old", "kit-c").ok();
    // A device of that branch does not put its own checkpoint over a newer one.
    let c = world.device("c");
    std::fs::copy(world.path("kit"), world.path("kit-mixed")).unwrap();
    let mixed = text(&world, "kit-c")
        .replace(&field(&text(&world, "kit-c"), "checkpoint"), &field(&after, "checkpoint"));
    write(&world.path("kit-mixed"), &mixed);
    let done = c.run(&["kit", "refresh", "--kit", "kit-mixed"]);
    assert_eq!(done.status, Some(6), "{done:?}");
    assert_eq!(text(&world, "kit-mixed"), mixed);
}

#[test]
fn only_the_kit_in_force_is_refreshed() {
    let world = World::new();
    let a = world.device("a");
    signup_with(&world, &a, NAME, "kit.html").ok();
    let other = world.device("other");
    signup_with(&world, &other, "bob", "kit-bob").ok();
    let refused = |device: &Device, kit: &str, words: &str| {
        let before = std::fs::read(world.path(kit)).unwrap();
        device.run(&["kit", "refresh", "--kit", kit]).ends(2, &[words]);
        assert_eq!(std::fs::read(world.path(kit)).unwrap(), before);
    };
    refused(&a, "kit-bob", "of another account");
    refused(&other, "kit.html", "of another account");
    world.secret("bare", &field(&text(&world, "kit.html"), "recovery key"));
    refused(&a, "bare", "bare recovery key");
    a.run(&["kit", "refresh", "--kit", "nothing"]).ends(1, &["nothing"]);
    // A page stays a page, whatever it is called, and a link stays a link.
    std::fs::rename(world.path("kit.html"), world.path("kept")).unwrap();
    std::os::unix::fs::symlink("kept", world.path("link")).unwrap();
    a.ok(&["kit", "refresh", "--kit", "link"]);
    let page = text(&world, "kept");
    assert!(page.starts_with("<!doctype html>") && world.path("link").is_symlink());
    assert_eq!(scanned(&page), field(&page, "recovery key").replace(' ', "").to_uppercase());
    // After a recovery elsewhere the old one is out of force, though this device did not hear of it yet.
    recover(&world, "b", "kept", "kit-new").ok();
    refused(&a, "kept", "not in force any more");
    a.ok(&["kit", "refresh", "--kit", "kit-new"]);
    recover(&world, "c", "kit-new", "kit-newer").ok();
}
