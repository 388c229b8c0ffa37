//! Nothing that a person wrote or named is anywhere at the server, but the account's name.

use crate::tree::{files, write};
use crate::world::{NAME, World};
use std::os::unix::fs::symlink;
use std::path::Path;

const CANARIES: &[&str] = &[
    "canaryroot",
    "canaryfile",
    "canaryfolder",
    "canaryinline",
    "canarycontents",
    "canarytarget",
    "canarylink",
    "canarytype",
    "canaryrecordid",
    "canarykey",
    "canaryvalue",
    "canaryvault",
    "canarytag",
    "canarydevice",
    "canaryphrase",
    "canaryexcluded",
];

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| "0123456789abcdef".as_bytes()[usize::from(digit)] as char)
        .collect()
}

/// Base64 of the middle of a text, at each of the three places that it can begin at.
fn base64(text: &str) -> Vec<String> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    (0..3)
        .map(|skip| {
            let bytes = &text.as_bytes()[skip..];
            bytes
                .chunks_exact(3)
                .flat_map(|c| {
                    let bits = u32::from(c[0]) << 16 | u32::from(c[1]) << 8 | u32::from(c[2]);
                    [18, 12, 6, 0].map(|shift| DIGITS[(bits >> shift & 63) as usize] as char)
                })
                .collect()
        })
        .collect()
}

fn needles(text: &str) -> Vec<String> {
    let mut needles =
        vec![text.to_owned(), text.to_uppercase(), hex(text.as_bytes()), hex(text.as_bytes()).to_uppercase()];
    needles.extend(base64(text));
    needles
}

/// Needles by their first two bytes: one pass over a file looks for all of them.
struct Search(Vec<Vec<Vec<u8>>>);

impl Search {
    fn new(needles: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut table = vec![Vec::new(); 65_536];
        for needle in needles {
            table[usize::from(needle[0]) << 8 | usize::from(needle[1])].push(needle);
        }
        Self(table)
    }

    fn find(&self, bytes: &[u8]) -> Option<&[u8]> {
        let mut pair = 0;
        for (end, byte) in bytes.iter().enumerate() {
            pair = (pair & 0xff) << 8 | usize::from(*byte);
            let found = self.0[pair].iter().find(|needle| end > 0 && bytes[end - 1..].starts_with(needle));
            if let Some(needle) = found {
                return Some(needle);
            }
        }
        None
    }
}

#[track_caller]
fn assert_silent(world: &World, secrets: &Search) {
    let name = Search::new([b"canaryname".to_vec()]);
    assert!(world.server.files().iter().any(|path| name.find(&read(path)).is_some()), "a blind search");
    let mut paths = world.server.files();
    paths.push(world.server.log.clone());
    for path in paths {
        let found = secrets.find(&read(&path)).or(secrets.find(path.as_os_str().as_encoded_bytes()));
        let text = found.map(|found| found.escape_ascii().to_string());
        assert_eq!(text, None, "in {}", path.display());
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_default()
}

#[test]
fn the_server_and_its_log_know_nothing_but_the_account_name() {
    let mut world = World::with(&[("LOCKSTEP_LOG", "trace")]);
    let a = world.device("a");
    let phrase = world.secret("phrase", "canaryphrase of many words");
    a.ok(&[
        "signup",
        "--name",
        "canaryname",
        "--passphrase-file",
        &phrase,
        "--kit",
        "kit",
        "--device-name",
        "canarydevice",
    ]);
    let root = world.path("canaryroot");
    write(&root.join("canaryfolder/canaryfile"), "canaryinline");
    write(&root.join("framed"), "canarycontents".repeat(20_000));
    write(&root.join("large"), "canarycontents".repeat(700_000));
    write(&root.join("canaryexcluded"), "x");
    symlink("canarytarget", root.join("canarylink")).unwrap();
    let arguments = ["--tag", "canarytag", "--vault", "canaryvault", "--exclude", "canaryexcluded"];
    let mut all = vec!["backup", "canaryroot"];
    all.extend(arguments);
    a.ok(&all);
    let put = ["record", "put", "--type", "canarytype", "--id", "canaryrecordid"];
    a.run_with(&put, "{\"canarykey\":\"canaryvalue\"}").ok();
    let session = std::fs::read_to_string(a.home.join("session")).unwrap();
    let b = world.device("b");
    b.ok(&["login", "--name", "canaryname", "--passphrase-file", &phrase, "--device-name", "canarydevice"]);
    b.ok(&["restore", "out", "--vault", "canaryvault"]);
    b.ok(&["record", "history", "--type", "canarytype", "--id", "canaryrecordid"]);
    // A refusal is logged, too.
    let wrong = world.secret("wrong", "canaryphrase that is wrong");
    let c = world.device("c");
    c.run(&["login", "--name", "canaryname", "--passphrase-file", &wrong]).ends(5, &[]);

    let kit = std::fs::read_to_string(world.path("kit")).unwrap();
    let recovery = kit.lines().find_map(|line| line.strip_prefix("recovery key: ")).unwrap().replace(' ', "");
    let device = std::fs::read(a.home.join("device")).unwrap();
    let texts = CANARIES.iter().flat_map(|text| needles(text)).chain([session.trim().to_owned(), recovery]);
    // The device's file is ids and private keys; no run of the latter may be anywhere.
    let keys = device.chunks_exact(32).skip(1).map(<[u8]>::to_vec);
    let secrets = Search::new(texts.map(String::into_bytes).chain(keys));
    assert_silent(&world, &secrets);
    world.server.stop();
    assert_silent(&world, &secrets);
}

#[test]
fn homes_keep_to_their_owner_and_hold_no_plain_text() {
    use std::os::unix::fs::MetadataExt as _;
    let world = World::new();
    let a = world.signup("a");
    write(&world.path("canaryroot/canaryfile"), "canaryinline");
    a.backup("canaryroot");
    a.put("canaryrecordid", "{\"canarykey\":1}").ok();
    assert_eq!(a.home.metadata().unwrap().mode() & 0o777, 0o700);
    assert_eq!(world.path("kit").metadata().unwrap().mode() & 0o777, 0o600);
    let search = Search::new(CANARIES.iter().map(|text| text.as_bytes().to_vec()));
    for path in files(&a.home) {
        assert_eq!(search.find(&read(&path)), None, "in {}", path.display());
    }
    for name in ["device", "session"] {
        assert_eq!(a.home.join(name).metadata().unwrap().mode() & 0o777, 0o600, "{name}");
    }
}

/// The program, asked for as much as it says: what it is told wrong, and what it finds damaged, it answers without a secret.
#[test]
fn what_the_program_says_holds_no_secret() {
    let world = World::with(&[("LOCKSTEP_LOG", "trace")]);
    let a = world.signup("a");
    a.put("one", "{\"n\":1}").ok();
    for arguments in
        [&["device", "list"][..], &["session", "list"], &["vault", "list"], &["--json", "device", "list"]]
    {
        a.run(arguments);
    }
    let wrong = world.secret("wrong", "canaryphrase that is wrong");
    let b = world.device("b");
    b.try_login(&wrong).ends(5, &[]);
    let kit = world.text("kit");
    let lines = std::fs::read_to_string(&kit).unwrap();
    let recovery = lines.lines().find_map(|line| line.strip_prefix("recovery key: ")).unwrap().to_owned();
    // One letter wrong, two, and none left of the last group.
    let spoil = |places: &[usize]| {
        let mut typed = recovery.clone().into_bytes();
        for place in places {
            typed[*place] = if typed[*place] == b'q' { b'p' } else { b'q' };
        }
        String::from_utf8(typed).unwrap()
    };
    for (name, typed) in [("1", spoil(&[20])), ("2", spoil(&[20, 31])), ("3", recovery[..60].to_owned())] {
        let file = world.secret(&format!("typed-{name}"), &typed);
        let new = world.text(&format!("kit-{name}"));
        let run = [
            "recover",
            "--name",
            NAME,
            "--recovery-key-file",
            &file,
            "--passphrase-file",
            &wrong,
            "--kit",
            &new,
        ];
        assert_ne!(world.device(&format!("c{name}")).run(&run).status, Some(0));
    }
    let device = std::fs::read(a.home.join("device")).unwrap();
    let session = std::fs::read_to_string(a.home.join("session")).unwrap();
    for damaged in
        [&device[..device.len() - 1], &[&device[..], &[0]].concat(), &[&[0x81], &device[1..]].concat()]
    {
        std::fs::write(a.home.join("device"), damaged).unwrap();
        assert_ne!(a.run(&["device", "list"]).status, Some(0));
    }
    std::fs::write(a.home.join("device"), &device).unwrap();
    std::fs::write(a.home.join("session"), format!("{}x", session.trim())).unwrap();
    a.run(&["device", "list"]);

    let phrase = std::fs::read_to_string(world.path("passphrase")).unwrap();
    let texts = [phrase.trim(), "canaryphrase", session.trim(), &recovery, &recovery.replace(' ', "")];
    let keys: Vec<&[u8]> = device.chunks_exact(32).skip(1).collect();
    let raw = keys.iter().map(|key| key.to_vec());
    let shown = keys.iter().map(|key| hex(key).into_bytes());
    let groups = [recovery[10..40].to_owned(), recovery[40..].to_owned()].map(String::into_bytes);
    let search =
        Search::new(texts.iter().map(|text| text.as_bytes().to_vec()).chain(raw).chain(shown).chain(groups));
    assert!(search.find(&read(&world.path("kit"))).is_some(), "a blind search");
    let said = files(&world.path(""));
    let said = said.iter().filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("run-") && path.extension().is_none_or(|kind| kind != "in")
    });
    let mut bytes = 0;
    for path in said.chain([&world.server.log]) {
        let text = read(path);
        bytes += text.len();
        let found = search.find(&text).map(|found| found.escape_ascii().to_string());
        assert_eq!(found, None, "in {}: {}", path.display(), String::from_utf8_lossy(&text));
    }
    assert!(bytes > 1000, "something was said");
}
