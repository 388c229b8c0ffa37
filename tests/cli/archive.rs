//! Archives: made by one account, read with its passphrase or its recovery key, imported by another on another server.

use crate::fidelity::fill;
use crate::lost::behind;
use crate::program::Done;
use crate::proxy::Cut;
use crate::revoke::{id_of, login_as, revoke};
use crate::tree::{assert_same, noise, write};
use crate::world::{Device, World};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

const LARGE: usize = 200_000;

/// A world with an account that has files in two snapshots, records, and a second vault.
fn full() -> (World, Device) {
    let world = World::new();
    let a = world.signup("a");
    fill(&world.path("docs"));
    write(&world.path("docs/changes"), noise(1, LARGE));
    write(&world.path("docs/goes"), "goes");
    a.ok(&["backup", "docs", "--tag", "first"]);
    write(&world.path("docs/changes"), noise(2, LARGE));
    write(&world.path("docs/comes"), "canarycontents");
    std::fs::remove_file(world.path("docs/goes")).unwrap();
    a.backup("docs");
    write(&world.path("more/one"), "one");
    a.backup("more");
    for number in 0..20 {
        a.put(&format!("canaryid{number}"), &format!("{{\"n\":{number}}}")).ok();
    }
    a.put("canaryid0", "\"written twice\"").ok();
    a.ok(&["record", "rm", "--type", "note", "--id", "canaryid1"]);
    a.ok(&["vault", "create", "canaryvault"]);
    a.run_with(&["record", "put", "--type", "a/b", "--id", "../x", "--vault", "canaryvault"], "[1]").ok();
    (world, a)
}

#[track_caller]
fn export(device: &Device, name: &str) -> PathBuf {
    device.ok(&["export", name]);
    device.folder.join(name)
}

pub(crate) fn check(device: &Device, name: &str, key: &[&str]) -> Done {
    device.run(&[&["--json", "import", name, "--check"], key].concat())
}

fn passphrase(world: &World) -> [String; 2] {
    ["--passphrase-file".into(), world.text("passphrase")]
}

fn import(by: &Device, archive: &Path, key: &[String; 2]) -> Done {
    by.run(&["--json", "import", archive.to_str().unwrap(), &key[0], &key[1]])
}

fn listed(device: &Device, vault: &str, command: &[&str]) -> Vec<Value> {
    let arguments = [&["--json"], command, &["--vault", vault]].concat();
    device.ok(&arguments).json().as_array().unwrap().clone()
}

/// What of a snapshot is the same wherever it was imported.
fn essence(snapshots: &[Value]) -> Vec<Value> {
    let keys = ["snapshot", "source", "root", "start_utc", "end_utc", "files", "bytes", "unreadable", "tags"];
    snapshots.iter().map(|one| keys.iter().map(|key| one[*key].clone()).collect()).collect()
}

fn records(device: &Device, vault: &str, record_type: &str) -> Vec<(Value, Value)> {
    let list = listed(device, vault, &["record", "list", "--type", record_type]);
    list.iter().map(|row| (row["id"].clone(), row["document"].clone())).collect()
}

/// Every snapshot, restored from the one and from the other, is the same.
fn assert_snapshots(of: &Device, a: &str, by: &Device, b: &str) {
    let (left, right) = (listed(of, a, &["snapshots"]), listed(by, b, &["snapshots"]));
    assert_eq!(essence(&left), essence(&right));
    assert!(!left.is_empty());
    for snapshot in left {
        let id = snapshot["snapshot"].as_str().unwrap();
        let (here, there) = (format!("out-{id}"), format!("in-{id}"));
        of.ok(&["restore", &here, "--vault", a, "--snapshot", id]);
        by.ok(&["restore", &there, "--vault", b, "--snapshot", id]);
        let source = snapshot["source"].as_str().unwrap();
        assert_same(&of.folder.join(here).join(source), &by.folder.join(there).join(source));
    }
}

fn assert_no_parts(device: &Device) {
    for entry in std::fs::read_dir(&device.folder).unwrap().chain(std::fs::read_dir(&device.home).unwrap()) {
        let name = entry.unwrap().file_name();
        assert!(!name.to_string_lossy().starts_with(".lockstep-"), "{}", name.display());
    }
}

#[test]
fn an_archive_gives_another_account_on_another_server_everything() {
    let (world, a) = full();
    let archive = export(&a, "archive");
    assert_eq!(archive.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let bytes = std::fs::read(&archive).unwrap();
    for canary in ["canary", "changes", "written"] {
        assert!(!bytes.windows(canary.len()).any(|window| window == canary.as_bytes()), "{canary}");
    }
    let other = World::new();
    let b = other.signup("b");
    // A vault of this name is in the way; what is in it stays.
    b.ok(&["vault", "create", "files-imported"]);
    b.run_with(&["record", "put", "--type", "note", "--id", "own", "--vault", "files-imported"], "1").ok();
    let done = import(&b, &archive, &passphrase(&world)).ok().json();
    let names: Vec<&str> =
        done["imported"].as_array().unwrap().iter().map(|vault| vault["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"files-imported-2") && names.contains(&"canaryvault-imported"), "{names:?}");
    assert_eq!(done["problems"], Value::Array(Vec::new()));
    assert_snapshots(&a, "files", &b, "files-imported-2");
    assert_eq!(records(&a, "files", "note"), records(&b, "files-imported-2", "note"));
    assert_eq!(records(&a, "canaryvault", "a/b"), records(&b, "canaryvault-imported", "a/b"));
    assert_eq!(records(&a, "files", "note").len(), 19);
    assert_eq!(records(&b, "files-imported", "note").len(), 1);
    b.ok(&["check", "--read-data"]);
    // Once more is as good as not at all.
    let before = b.ok(&["fingerprint"]).out;
    let again = import(&b, &archive, &passphrase(&world)).ok().json();
    assert!(again["imported"].as_array().unwrap().iter().all(|vault| vault["imported_before"] == true));
    assert_eq!(b.ok(&["fingerprint"]).out, before);
    // A later backup does not take the imported source for its own.
    let backed =
        b.ok(&["--json", "backup", world.path("docs").to_str().unwrap(), "--vault", "files-imported-2"]);
    assert_ne!(backed.json()[0]["changed"], 0);
    for device in [&a, &b] {
        assert_no_parts(device);
    }
}

#[test]
fn an_archive_is_imported_by_its_own_account_too() {
    let (world, a) = full();
    let archive = export(&a, "archive");
    a.put("later", "1").ok();
    import(&a, &archive, &passphrase(&world)).ok();
    assert_snapshots(&a, "files", &a, "files-imported");
    a.ok(&["check", "--read-data"]);
}

#[test]
fn an_archive_opens_with_the_keys_of_its_day() {
    let (world, a) = full();
    let archive = export(&a, "archive");
    let name = archive.to_str().unwrap();
    let new = world.secret("new", "another passphrase entirely");
    let old = world.text("passphrase");
    a.ok(&["passphrase", "change", "--passphrase-file", &old, "--new-passphrase-file", &new]);
    // Nobody's home is needed to look.
    let nobody = world.device("nobody");
    let found = check(&nobody, name, &["--passphrase-file", &old]).ok().json();
    assert_eq!(found["problems"], Value::Array(Vec::new()));
    assert_eq!(found["vaults"].as_array().unwrap().len(), 2);
    check(&nobody, name, &["--passphrase-file", &new]).ends(5, &["passphrase is wrong"]);
    check(&nobody, name, &["--recovery-key-file", &world.text("kit")]).ok();
    let kit = std::fs::read_to_string(world.path("kit")).unwrap();
    let key = kit.lines().find_map(|line| line.strip_prefix("recovery key: ")).unwrap();
    let bare = world.secret("bare", key);
    check(&nobody, name, &["--recovery-key-file", &bare]).ok();
    let other = World::new();
    let b = other.signup("b");
    check(&b, name, &["--recovery-key-file", &other.text("kit")]).ends(2, &["another account"]);
    let theirs = std::fs::read_to_string(other.path("kit")).unwrap();
    let key = theirs.lines().find_map(|line| line.strip_prefix("recovery key: ")).unwrap();
    let bare = other.secret("bare", key);
    check(&b, name, &["--recovery-key-file", &bare]).ends(5, &["recovery key is wrong"]);
    assert!(!nobody.home.exists());
    // A kit that is newer than the archive says so.
    world.device("b").try_login(&new).ok();
    a.ok(&["status"]);
    a.ok(&["kit", "refresh", "--kit", "kit"]);
    check(&nobody, name, &["--recovery-key-file", &world.text("kit")]).ends(7, &["older than the kit"]);
}

#[test]
fn a_file_that_is_there_is_not_written_over() {
    let world = World::new();
    let a = world.signup("a");
    a.put("n", "1").ok();
    write(&world.path("archive"), "mine");
    a.run(&["export", "archive"]).ends(2, &["--force"]);
    assert_eq!(std::fs::read(world.path("archive")).unwrap(), b"mine");
    a.ok(&["export", "archive", "--force"]);
    check(&a, "archive", &["--passphrase-file", &world.text("passphrase")]).ok();
    a.run(&["export", "no/such/folder/archive"]).ends(1, &[]);
    assert_no_parts(&a);
}

#[test]
fn an_import_that_is_cut_off_goes_on_where_it_was() {
    let (world, a) = full();
    let archive = export(&a, "archive");
    let (other, proxy) = behind();
    let b = other.signup("b");
    let cuts = [
        // In the order in which an import comes to them: one that is not met lets it come to its end.
        Cut::Before("/commits "),
        Cut::After("/commits "),
        Cut::Before("POST /v1/vaults "),
        Cut::After("POST /v1/vaults "),
        Cut::Before("/parts/"),
        Cut::After("/complete "),
        Cut::Before("/objects "),
        Cut::After("/objects "),
    ];
    for cut in cuts {
        let before = proxy.cuts();
        proxy.cut(cut.clone(), u64::MAX);
        let done = import(&b, &archive, &passphrase(&world));
        proxy.heal();
        assert!(proxy.cuts() > before, "{cut:?} was not met: {done:?}");
        done.ends(4, &["can not be reached"]);
    }
    import(&b, &archive, &passphrase(&world)).ok();
    let vaults = b.ok(&["--json", "vault", "list"]).json();
    assert_eq!(vaults.as_array().unwrap().len(), 2, "{vaults}");
    assert_snapshots(&a, "files", &b, "files-imported");
    assert_eq!(records(&a, "files", "note"), records(&b, "files-imported", "note"));
    b.ok(&["check", "--read-data"]);
}

#[test]
fn what_a_server_lost_is_named_in_the_archive_and_behind_it() {
    let mut world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/lost"), noise(1, LARGE));
    a.backup("docs");
    let lost = world.server.segments();
    write(&world.path("docs/kept"), noise(2, LARGE));
    a.backup("docs");
    world.server.stop();
    for path in &lost {
        std::fs::remove_file(path).unwrap();
    }
    world.server.restart();
    let done = a.run(&["--json", "export", "archive"]).ends(3, &["lost", "missing"]).json();
    assert_eq!((done["problems"].as_array().unwrap().len(), &done["objects"]), (1, &1.into()), "{done}");
    let other = World::new();
    let b = other.signup("b");
    import(&b, &world.path("archive"), &passphrase(&world)).ends(3, &["lost"]);
    let snapshots = listed(&b, "files-imported", &["snapshots"]);
    let counts: Vec<_> =
        snapshots.iter().map(|one| (one["files"].clone(), one["unreadable"].clone())).collect();
    assert_eq!(counts, [(0.into(), 1.into()), (1.into(), 1.into())]);
    b.ok(&["restore", "out", "--vault", "files-imported"]);
    assert!(!other.path("out/docs/lost").exists());
    assert_eq!(std::fs::read(other.path("out/docs/kept")).unwrap(), noise(2, LARGE));
}

#[test]
fn after_a_revocation_and_after_a_heal_an_archive_is_whole() {
    let mut world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/one"), noise(1, LARGE));
    a.backup("docs");
    let b = login_as(&world, "b");
    b.put("of-b", "1").ok();
    let copy = world.path("yesterday");
    world.server.back_up(&copy);
    // Two devices part: a repair gives one branch up.
    a.put("of-a", "1").ok();
    write(&world.path("docs/two"), noise(2, LARGE));
    a.backup("docs");
    world.server.put_back(&copy, true, true);
    b.put("of-b", "2").ok();
    let heal = a.run(&["heal", "--yes", "--passphrase-file", &world.text("passphrase")]);
    assert!(matches!(heal.status, Some(0 | 3)), "{heal:#?}");
    a.backup("docs");
    revoke(&world, &a, &id_of(&b)).ok();
    a.put("after", "1").ok();
    let archive = export(&a, "archive");
    let other = World::new();
    let c = other.signup("c");
    import(&c, &archive, &passphrase(&world)).ok();
    assert_snapshots(&a, "files", &c, "files-imported");
    assert_eq!(records(&a, "files", "note"), records(&c, "files-imported", "note"));
}

#[test]
fn everything_decrypted_is_in_a_folder_of_its_owner() {
    let (world, a) = full();
    write(&world.path("taken/x"), "x");
    a.run(&["export", "--decrypted", "taken"]).ends(2, &["not empty"]);
    assert_eq!(std::fs::read_dir(world.path("taken")).unwrap().count(), 1);
    let done = a.ok(&["export", "--decrypted", "plain"]);
    assert!(done.err.contains("not encrypted"), "{done:?}");
    let out = a.restore("out");
    assert_same(&out.join("docs"), &world.path("plain/files/docs"));
    assert_same(&out.join("more"), &world.path("plain/files/more"));
    let note = std::fs::read(world.path("plain/files/records/note/canaryid0.json")).unwrap();
    assert_eq!(note, b"\"written twice\"");
    assert!(!world.path("plain/files/records/note/canaryid1.json").exists());
    let other = std::fs::read(world.path("plain/canaryvault/records/a%2fb/%2e.%2fx.json")).unwrap();
    assert_eq!(other, b"[1]");
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(world.path("plain/manifest.json")).unwrap()).unwrap();
    let vaults = manifest["vaults"].as_array().unwrap();
    let files = vaults.iter().find(|vault| vault["name"] == "files").unwrap();
    assert_eq!(files["records"].as_array().unwrap().len(), 19);
    assert_eq!(files["snapshots"].as_array().unwrap().len(), 2);
    assert_eq!(manifest["problems"], Value::Array(Vec::new()));
    for (path, mode) in [
        ("plain", 0o700),
        ("plain/files", 0o700),
        ("plain/files/records", 0o700),
        ("plain/manifest.json", 0o600),
        ("plain/files/records/note/canaryid0.json", 0o600),
    ] {
        assert_eq!(world.path(path).metadata().unwrap().permissions().mode() & 0o777, mode, "{path}");
    }
}
