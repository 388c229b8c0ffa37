//! A world behind a hostile server, what a home holds, and what "refuse" means.

use crate::tree::{copy, write};
use crate::world::{Device, NAME, World};
use lockstep_proto::Signed;
use lockstep_proto::api::account::Devices;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::VaultId;
use lockstep_proto::key_header::KeyHeader;
use lockstep_proto::vault_log::keyring_vault_id;
use lockstep_tests::hostile::{Hits, Hostile, Route, Rule};
use rusqlite::Connection;
use std::collections::BTreeMap;

/// A world whose clients take a hostile server for the real one.
pub(crate) fn world_behind() -> (World, Hostile) {
    let hostile = Hostile::start();
    let world = World::with(&[("LOCKSTEP_PUBLIC_URL", &hostile.origin)]);
    hostile.set_upstream(world.server.address());
    (world, hostile)
}

/// One more device, with a name.
pub(crate) fn login_as(world: &World, name: &str) -> Device {
    let device = world.device(name);
    device.ok(&login_arguments(&world.text("passphrase"), name));
    device
}

fn login_arguments<'a>(passphrase: &'a str, name: &'a str) -> [&'a str; 7] {
    ["login", "--name", NAME, "--passphrase-file", passphrase, "--device-name", name]
}

/// Every row of a home's database, but for when the server last answered; none of a home that has no database.
pub(crate) fn dump(device: &Device) -> BTreeMap<String, Vec<String>> {
    let path = device.home.join("replica.sqlite");
    let mut tables = BTreeMap::new();
    if !path.exists() {
        return tables;
    }
    let database = Connection::open(path).unwrap();
    let mut names = database.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
    let names: Vec<String> = names.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    for name in names {
        let mut statement = database.prepare(&format!("SELECT * FROM {name}")).unwrap();
        let columns = statement.column_count();
        let mut rows: Vec<String> = statement
            .query_map([], |row| {
                (0..columns).map(|at| row.get::<_, rusqlite::types::Value>(at)).collect::<Result<Vec<_>, _>>()
            })
            .unwrap()
            .map(|row| format!("{:?}", row.unwrap()))
            .filter(|row| !row.contains("answered-utc"))
            .collect();
        rows.sort();
        tables.insert(name, rows);
    }
    tables
}

/// Requests that ask and sign in; all others change something.
const READS: &[&str] = &[
    "POST /v1/vaults/{}/envelopes/get",
    "POST /v1/vaults/{}/objects/missing",
    "POST /v1/vaults/{}/objects/get",
    "POST /v1/device-login/start",
    "POST /v1/device-login/finish",
    "POST /v1/login/start",
    "POST /v1/login/finish",
    "POST /v1/recovery/start",
    "POST /v1/recovery/finish",
];

/// Requests of the record that change something.
pub(crate) fn writes(hostile: &Hostile) -> Vec<String> {
    let reads: Vec<Route> = READS.iter().map(|route| Route::new(route)).collect();
    hostile
        .exchanges()
        .iter()
        .filter(|one| one.request.method != "GET" && !reads.iter().any(|route| route.fits(&one.request)))
        .map(lockstep_tests::hostile::Exchange::line)
        .collect()
}

/// Every rule was carried out, or one of them where they are the same lie on several routes.
#[track_caller]
pub(crate) fn assert_told(hits: &[Hits]) {
    assert!(hits.iter().any(|hits| hits.count() > 0), "the lie was not told");
}

/// How a command was refused: status, what it printed, which requests it sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) trace: Vec<String>,
}

/// A command of a device is refused: one error, nothing sent that changes anything, nothing stored.
#[track_caller]
pub(crate) fn refuses(
    hostile: &Hostile,
    device: &Device,
    rules: Vec<Rule>,
    arguments: &[&str],
    (status, texts): (i32, &[&str]),
) -> Refusal {
    let before = dump(device);
    hostile.forget();
    let hits = hostile.arm_all(rules);
    let done = device.run(arguments).ends(status, texts);
    hostile.disarm();
    assert_told(&hits);
    assert_eq!(writes(hostile), Vec::<String>::new(), "{done:#?}");
    let after = dump(device);
    for (table, rows) in &after {
        let none = Vec::new();
        let known = before.get(table).unwrap_or(&none);
        assert!(known == rows, "{table} changed: {done:#?}");
    }
    Refusal { out: done.out, err: done.err, trace: hostile.trace() }
}

/// Signing in on a new device is refused; there is no account in its home afterwards. Nothing of it remains.
#[track_caller]
pub(crate) fn refuses_login(world: &World, hostile: &Hostile, rules: Vec<Rule>, texts: &[&str]) -> Refusal {
    let passphrase = world.text("passphrase");
    refuses_joining(world, hostile, rules, &login_arguments(&passphrase, "new"), (6, texts))
}

/// The same with the recovery key.
#[track_caller]
pub(crate) fn refuses_recovery(
    world: &World,
    hostile: &Hostile,
    rules: Vec<Rule>,
    texts: &[&str],
) -> Refusal {
    let passphrase = world.text("passphrase");
    let arguments = [
        "recover",
        "--name",
        NAME,
        "--passphrase-file",
        &passphrase,
        "--recovery-key-file",
        "kit",
        "--kit",
        "kit-new",
    ];
    let refusal = refuses_joining(world, hostile, rules, &arguments, (6, texts));
    assert!(!world.path("kit-new").exists());
    refusal
}

#[track_caller]
pub(crate) fn refuses_joining(
    world: &World,
    hostile: &Hostile,
    rules: Vec<Rule>,
    arguments: &[&str],
    (status, texts): (i32, &[&str]),
) -> Refusal {
    let new = world.device("refused");
    hostile.forget();
    let hits = hostile.arm_all(rules);
    let done = new.run(arguments).ends(status, texts);
    hostile.disarm();
    assert_told(&hits);
    assert_eq!(writes(hostile), Vec::<String>::new(), "{done:#?}");
    for name in ["account", "account.next", "device", "session"] {
        assert!(!new.home.join(name).exists(), "{name} was kept");
    }
    new.run(&["whoami"]).ends(2, &["there is no account"]);
    let refusal = Refusal { out: done.out, err: done.err, trace: hostile.trace() };
    if new.home.exists() {
        std::fs::remove_dir_all(&new.home).unwrap();
    }
    refusal
}

/// Device a, which wrote; device b, which lags behind it by two records in the vault of records, and in nothing else.
pub(crate) fn lagging(world: &World) -> (Device, Device) {
    let a = world.signup("a");
    a.put("n", "\"one\"").ok();
    let b = login_as(world, "b");
    for _ in 0..2 {
        b.ok(&["status"]);
        a.ok(&["status"]);
    }
    assert_eq!(b.get("n"), "\"one\"");
    a.put("n", "\"two\"").ok();
    a.put("m", "\"three\"").ok();
    (a, b)
}

/// A copy of a device's home, as it is now. Of both only one may write.
pub(crate) fn copied(device: &Device, name: &str) -> Device {
    let home = device.folder.join(format!("home-{name}"));
    let _ = std::fs::remove_dir_all(&home);
    copy(&device.home, &home);
    Device { home, folder: device.folder.clone(), server: device.server.clone() }
}

/// The newest key header that was served.
pub(crate) fn served(hostile: &Hostile) -> Signed {
    let answers = hostile.answers("GET /v1/account/devices");
    let newest = answers.iter().rfind(|answer| answer.is_success()).unwrap();
    Devices::decode(&newest.body).unwrap().key_header
}

/// Its encoding.
pub(crate) fn served_header(hostile: &Hostile) -> Vec<u8> {
    served(hostile).bytes.0
}

/// Id of the keyring of the account whose key header was served last.
pub(crate) fn keyring_of(hostile: &Hostile) -> VaultId {
    let header = KeyHeader::decode(&served_header(hostile)).unwrap();
    keyring_vault_id(header.identity.as_bytes())
}

/// The text of a vault's id.
pub(crate) fn vault_of(device: &Device, name: &str) -> String {
    let listed = device.ok(&["--json", "vault", "list"]).json();
    let entry = listed.as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap().clone();
    entry["vault"].as_str().unwrap().to_owned()
}

/// A file with a passphrase that nobody ever writes: who opens it waits for ever.
pub(crate) fn nobody_types(world: &World) -> String {
    let path = world.path("nobody-types");
    if !path.exists() {
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
    }
    path.to_str().unwrap().to_owned()
}

pub(crate) fn document(world: &World, name: &str, bytes: &[u8]) {
    write(&world.path(&format!("docs/{name}")), bytes);
}
