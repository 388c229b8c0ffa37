//! A stolen device that is not revoked yet writes what it likes to the keyring: it deletes nothing, and can not keep
//! its owner from shutting it out.

use crate::life::recover;
use crate::program::Done;
use crate::revoke::{id_of, login_as, revoke};
use crate::revoked_keys::{device_log, header};
use crate::thief::post;
use crate::world::{Device, World};
use lockstep_client_crypto::account::KeyringKeys;
use lockstep_client_crypto::content::{Content, Hlc};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::local::LocalKeys;
use lockstep_client_crypto::vault::{Birth, Parent, VaultKeys, give_birth};
use lockstep_engine::keyring::{
    HEAD_PIN_TYPE, HeadPinDoc, VAULT_KEY_TYPE, VAULT_TYPE, VaultDoc, VaultKeyDoc, vault_key_name,
};
use lockstep_proto::Digest;
use lockstep_proto::api::vault::CreateVault;
use lockstep_proto::cbor::{ByteArray, Wire as _};
use lockstep_proto::device_log::Pin;
use lockstep_proto::id::{Epoch, OperationId, Revision, Seq, VaultId};
use lockstep_proto::vault_log::keyring_vault_id;
use rand::SeedableRng as _;
use rusqlite::{OptionalExtension as _, params};

/// Pins, and a place of the device log.
type Case = (Vec<Pin>, Option<(u64, Digest)>);

fn keys_of(device: &Device) -> DeviceKeys {
    DeviceKeys::from_bytes(&std::fs::read(device.home.join("device")).unwrap()).unwrap()
}

pub(crate) fn keyring_of(world: &World) -> VaultId {
    keyring_vault_id(&header(&world.server.database()).identity().to_bytes())
}

pub(crate) fn files_of(device: &Device) -> VaultId {
    let listed = device.ok(&["--json", "vault", "list"]).json();
    let files = listed.as_array().unwrap().iter().find(|entry| entry["name"] == "files").unwrap();
    files["vault"].as_str().unwrap().parse().unwrap()
}

/// Commits of a vault at the server.
fn commits(world: &World, vault: VaultId) -> i64 {
    let text = "SELECT count(*) FROM commit_header c JOIN vault v ON v.id = c.vault WHERE v.vault = ?1";
    world.server.database().query_row(text, [&vault.as_bytes()[..]], |row| row.get(0)).unwrap()
}

/// The device writes a record to the keyring as a program of its thief's would: durable at the server in the end.
pub(crate) fn forge(world: &World, device: &Device, record_type: &str, name: &[u8], document: Vec<u8>) {
    let own = keys_of(device);
    let keyring = keyring_of(world);
    let opened = KeyringKeys::open_as_device(&header(&world.server.database()), &own).unwrap();
    let record = VaultKeys::new(keyring, &opened.vault_secret()).record_id(record_type, name);
    let before = commits(world, keyring);
    let operation = OperationId::from_bytes([before.to_le_bytes()[0]; 16]);
    let content = Content {
        record_type: record_type.into(),
        name: name.to_vec().into(),
        schema: 1,
        codec: 0,
        hlc: Hlc { utc_ms: 1, counter: 0 },
        operation,
        base_revision: Revision::new(0),
        conflict_of: Vec::new().into(),
        document: document.into(),
        blobs: Vec::new(),
        manifest: (),
    };
    let database = rusqlite::Connection::open(device.home.join("replica.sqlite")).unwrap();
    let text = "SELECT id FROM vault WHERE vault = ?1";
    let vault: i64 = database.query_row(text, [&keyring.as_bytes()[..]], |row| row.get(0)).unwrap();
    let text = "SELECT revision FROM record WHERE vault = ?1 AND record = ?2";
    let revision = database.query_row(text, params![vault, record.as_bytes()], |row| row.get::<_, i64>(0));
    let place = [&b"pending"[..], keyring.as_bytes(), operation.as_bytes()].concat();
    let mut rng = rand::rngs::ChaCha20Rng::from_seed([before.to_le_bytes()[0]; 32]);
    let sealed = LocalKeys::new(own.index_key()).seal_row(&place, &content.encode(), &mut rng);
    let text = "INSERT INTO pending (vault, operation, record, kind, base_revision, policy, pin, content)
                VALUES (?1, ?2, ?3, 1, ?4, 2, 0, ?5)";
    let base = revision.optional().unwrap().unwrap_or(0);
    let row = params![vault, operation.as_bytes(), record.as_bytes(), base, sealed];
    assert_eq!(database.execute(text, row).unwrap(), 1);
    drop(database);
    device.run(&["status"]);
    let database = rusqlite::Connection::open(device.home.join("replica.sqlite")).unwrap();
    let text = "SELECT count(*) FROM pending WHERE operation = ?1";
    let waiting: i64 = database.query_row(text, [operation.as_bytes()], |row| row.get(0)).unwrap();
    assert!(waiting == 0 && commits(world, keyring) > before, "nothing was forged");
}

pub(crate) fn mark(world: &World, device: &Device, vault: VaultId, signature: Option<[u8; 64]>) {
    let doc = VaultDoc { vault, name: "files".into(), deleted_utc: 1, deletion: signature.map(ByteArray) };
    forge(world, device, VAULT_TYPE, vault.as_bytes(), doc.encode());
}

/// A head pin of the device over what is not there.
fn pin(world: &World, device: &Device, pins: Vec<Pin>, log: Option<(u64, Digest)>) {
    let own = keys_of(device).id();
    let database = world.server.database();
    let known = device_log(&database, *header(&database).identity());
    let (device_log_index, device_log_head) = log.unwrap_or((known.next_index() - 1, known.head()));
    let doc = HeadPinDoc { device: own, utc: 1, device_log_index, device_log_head, heads: pins };
    forge(world, device, HEAD_PIN_TYPE, own.as_bytes(), doc.encode());
}

#[test]
fn a_mark_without_the_identitys_word_deletes_nothing() {
    let world = World::new();
    let a = world.signup("a");
    a.put("n", "1").ok();
    let thief = login_as(&world, "thief");
    assert_eq!(thief.get("n"), "1");
    let (files, keyring) = (files_of(&a), keyring_of(&world));
    mark(&world, &thief, files, None);
    mark(&world, &thief, keyring, Some([7; 64]));
    assert_eq!(a.get("n"), "1");
    mark(&world, &thief, files, Some([7; 64]));
    // The server joins in and hides the vault.
    let hidden = VaultId::from_bytes([9; 16]);
    let rename = |from: VaultId, to: VaultId| {
        let [from, to] = [from, to].map(|vault| world.server.literal(vault.as_bytes()));
        let text = format!("UPDATE vault SET vault = {to} WHERE vault = {from}");
        assert_eq!(world.server.change(&text), 1);
    };
    rename(files, hidden);
    for _ in 0..2 {
        a.run(&["status"]).ends(6, &["does not list vault"]);
    }
    rename(hidden, files);
    assert_eq!(a.get("n"), "1");
    // The owner's answer to a stolen device is no harm either.
    revoke(&world, &a, "thief").ok();
    assert!(commits(&world, files) > 0);
    assert_eq!(a.get("n"), "1");
    assert_eq!(login_as(&world, "b").get("n"), "1");
    // Who means it deletes it all the same.
    let passphrase = world.text("passphrase");
    a.ok(&["vault", "delete", "files", "--yes", "--passphrase-file", &passphrase]);
    assert_eq!(commits(&world, files), 0);
    a.ok(&["status"]);
}

/// Births of one vault by the device, which differ by their time.
pub(crate) fn births(world: &World, device: &Device, vault: VaultId) -> [Birth; 2] {
    let database = world.server.database();
    let identity = *header(&database).identity();
    let log = device_log(&database, identity);
    [1, 2].map(|utc| {
        let (device_log_index, device_log_head) = (log.next_index() - 1, log.head());
        let parent =
            Parent { account: log.account(), identity: &identity, device_log_index, device_log_head, utc };
        give_birth(vault, &parent, &keys_of(device))
    })
}

pub(crate) fn forge_key(world: &World, device: &Device, vault: VaultId, epoch: u64, birth: &Birth) {
    let doc = VaultKeyDoc {
        vault,
        epoch: Epoch::new(epoch),
        key: ByteArray([1; 32]),
        secret: ByteArray([2; 32]),
        create: birth.create.clone(),
        genesis: birth.genesis.clone(),
        made_in: Epoch::new(1),
    };
    forge(world, device, VAULT_KEY_TYPE, &vault_key_name(vault, doc.epoch), doc.encode());
}

pub(crate) fn call(world: &World, device: &Device, vault: VaultId, name: &str) {
    let doc = VaultDoc { vault, name: name.into(), deleted_utc: 0, deletion: None };
    forge(world, device, VAULT_TYPE, vault.as_bytes(), doc.encode());
}

/// Keys of vaults that there are not, of the keyring, of a vault that is born twice, and names of other vaults.
#[test]
fn vaults_that_a_thief_makes_up_are_in_nobodys_way() {
    let world = World::new();
    let a = world.signup("a");
    a.put("n", "1").ok();
    let photos = a.ok(&["--json", "vault", "create", "photos"]).json()["vault"].as_str().unwrap().to_owned();
    let thief = login_as(&world, "thief");
    let (files, keyring) = (files_of(&a), keyring_of(&world));
    let [unborn, late, own, twice] = [1, 2, 0, 3].map(|number| VaultId::from_bytes([number; 16]));
    let mut junk = births(&world, &thief, unborn)[0].clone();
    junk.genesis.signature = ByteArray([7; 64]);
    forge_key(&world, &thief, unborn, 1, &junk);
    forge_key(&world, &thief, late, 7, &births(&world, &thief, late)[0]);
    forge_key(&world, &thief, keyring, 1, &births(&world, &thief, keyring)[0]);
    forge_key(&world, &thief, own, 1, &births(&world, &thief, own)[0]);
    call(&world, &thief, own, "photos");
    let ids = |device: &Device| -> Vec<(String, String)> {
        let listed = device.ok(&["--json", "vault", "list"]).json();
        let text = |entry: &serde_json::Value, key: &str| entry[key].as_str().unwrap().to_owned();
        listed.as_array().unwrap().iter().map(|entry| (text(entry, "name"), text(entry, "vault"))).collect()
    };
    let expected = vec![
        (own.to_string(), own.to_string()),
        ("files".into(), files.to_string()),
        ("photos".into(), photos.clone()),
    ];
    assert_eq!((ids(&a), ids(&thief)), (expected.clone(), expected));
    call(&world, &thief, own, "files");
    call(&world, &thief, VaultId::from_bytes([4; 16]), &photos);
    assert_eq!((files_of(&a), ids(&a).len()), (files, 3));
    a.ok(&["status"]);
    let [there, told] = births(&world, &thief, twice);
    let create = CreateVault { create: there.create, genesis: there.genesis }.encode();
    assert!(post(&world, &thief.home, "/v1/vaults", &create).starts_with("HTTP/1.1 2"));
    forge_key(&world, &thief, twice, 1, &told);
    a.put("n", "2").ok();
    a.run(&["status"]).ends(6, &["another history"]);
    revoke(&world, &a, "thief").ok();
    a.put("n", "3").ok();
    let b = login_as(&world, "b");
    assert_eq!((a.get("n"), b.get("n")), ("3".into(), "3".into()));
    thief.run(&["status"]).ends(5, &[]);
    // The owner gets rid of what was born twice, too.
    let passphrase = world.text("passphrase");
    for vault in [twice, own] {
        a.ok(&["vault", "delete", &vault.to_string(), "--yes", "--passphrase-file", &passphrase]);
    }
    a.ok(&["status"]);
    b.ok(&["status"]);
}

fn ignoring(world: &World, name: &str, id: &str) -> Done {
    world.device(name).run(&[
        "login",
        "--name",
        crate::world::NAME,
        "--passphrase-file",
        &world.text("passphrase"),
        "--ignore-pins-of",
        id,
    ])
}

/// Whatever a device says that it verified: its owner is told which one it is, and shuts it out.
#[test]
fn a_device_that_pins_what_is_not_there_is_named_and_revoked() {
    let world = World::new();
    let a = world.signup("a");
    a.put("n", "1").ok();
    let (files, keyring) = (files_of(&a), keyring_of(&world));
    let other = Digest::from_bytes([7; 32]);
    let beyond = Pin { vault: files, seq: Seq::new(1_000_000), head: other };
    let forked = Pin { vault: keyring, seq: Seq::new(1), head: other };
    let cases: [Case; 4] = [
        (vec![beyond], None),
        (vec![forked], None),
        (vec![], Some((1000, other))),
        (vec![], Some((0, other))),
    ];
    for (number, (pins, log)) in cases.into_iter().enumerate() {
        let thief = login_as(&world, &format!("thief-{number}"));
        thief.get("n");
        let id = id_of(&thief);
        pin(&world, &thief, pins.clone(), log);
        let needle = format!("lockstep device revoke {}", &id[..8]);
        if pins.iter().all(|pin| pin.vault == keyring) {
            a.run(&["status"]).ends(6, &[&id, &needle]);
            world.device(&format!("no-{number}")).try_login(&world.text("passphrase")).ends(6, &[&id[..8]]);
        } else {
            a.run(&["record", "get", "--type", "note", "--id", "n"]).ends(6, &[&id, &needle]);
        }
        ignoring(&world, &format!("x-{number}"), "ffff").ends(2, &["beginning"]);
        ignoring(&world, &format!("in-{number}"), &id[..8]).ok();
        let by = world.device(&format!("in-{number}"));
        let by = if number % 2 == 0 { &a } else { &by };
        revoke(&world, by, &format!("thief-{number}")).ok();
        assert_eq!(a.get("n"), "1");
        a.ok(&["status"]);
        assert_eq!(world.login(&format!("after-{number}")).get("n"), "1");
    }
}

#[test]
fn a_recovery_that_revokes_all_others_does_not_ask_them() {
    let world = World::new();
    let a = world.signup("a");
    a.put("n", "1").ok();
    let thief = login_as(&world, "thief");
    pin(&world, &thief, vec![], Some((1000, Digest::from_bytes([7; 32]))));
    let id = id_of(&thief);
    recover(&world, "b", "kit", "kit-2", &["--keep-others"]).ends(6, &[&id, "--revoke-others"]);
    recover(&world, "b", "kit", "kit-3", &["--revoke-others"]).ok();
    let b = world.device("b");
    assert_eq!(b.get("n"), "1");
    b.ok(&["status"]);
    thief.run(&["status"]).ends(5, &["revoked"]);
}
