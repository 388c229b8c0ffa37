//! Revoking devices: who is out, who goes on, and what happens in between.

use crate::life::{cut_everywhere, recover};
use crate::lost::behind;
use crate::program::{Done, poll};
use crate::proxy::Cut;
use crate::tree::{assert_same, noise, write};
use crate::world::{Device, World};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::vault::{Parent, give_birth};
use lockstep_proto::api::vault::CreateVault;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::{Commit, KIND_ROTATE};
use lockstep_proto::device_log::DeviceLogEntry;
use lockstep_proto::id::VaultId;
use lockstep_proto::key_header::KeyHeader;
use lockstep_proto::sign::PublicKey;
use lockstep_proto::{AccountId, Digest};
use rusqlite::Connection;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

pub(crate) fn id_of(device: &Device) -> String {
    device.ok(&["--json", "whoami"]).json()["device"].as_str().unwrap().to_owned()
}

pub(crate) fn revoke(world: &World, by: &Device, device: &str) -> Done {
    by.run(&["device", "revoke", device, "--passphrase-file", &world.text("passphrase")])
}

pub(crate) fn login_as(world: &World, name: &str) -> Device {
    let device = world.device(name);
    let passphrase = world.text("passphrase");
    let arguments =
        ["login", "--name", crate::world::NAME, "--passphrase-file", &passphrase, "--device-name", name];
    device.ok(&arguments);
    device
}

fn listed(device: &Device) -> Vec<Value> {
    device.ok(&["--json", "device", "list"]).json().as_array().unwrap().clone()
}

fn entry<'a>(list: &'a [Value], id: &str) -> &'a Value {
    list.iter().find(|device| device["id"] == id).unwrap()
}

/// Pins of the last revocation: vault and seq.
pub(crate) fn pins(database: &Connection, device: &str) -> BTreeMap<Vec<u8>, i64> {
    let device: lockstep_proto::DeviceId = device.parse().unwrap();
    let mut rows = database.prepare("SELECT vault, seq FROM device_pin WHERE device = ?1").unwrap();
    rows.query_map([&device.as_bytes()[..]], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

/// All commits of a vault, in order.
fn commits(database: &Connection, vault: &[u8]) -> Vec<Commit> {
    let text = "SELECT c.bytes FROM commit_header c JOIN vault v ON v.id = c.vault WHERE v.vault = ?1 ORDER BY c.seq";
    let mut rows = database.prepare(text).unwrap();
    rows.query_map([vault], |row| row.get::<_, Vec<u8>>(0))
        .unwrap()
        .map(|bytes| Commit::decode(&bytes.unwrap()).unwrap())
        .collect()
}

/// Every vault goes on after the pins of a revocation, under a later epoch, beginning with a rotation.
fn assert_rotated(world: &World, device: &str) {
    let database = world.server.database();
    let pins = pins(&database, device);
    let vaults: i64 = database.query_row("SELECT count(*) FROM vault", [], |row| row.get(0)).unwrap();
    assert_eq!(i64::try_from(pins.len()), Ok(vaults));
    for (vault, seq) in pins {
        let commits = commits(&database, &vault);
        let (before, after) = commits.split_at(usize::try_from(seq).unwrap() + 1);
        let first = after.first().expect("a rotation");
        assert_eq!(first.kind, KIND_ROTATE);
        assert!(after.iter().all(|commit| commit.epoch > before.last().unwrap().epoch));
        assert!(after.iter().all(|commit| commit.device.to_string() != device));
    }
}

#[test]
fn a_revoked_device_is_out_and_the_others_go_on() {
    let world = World::new();
    let a = world.signup("a");
    let b = login_as(&world, "b");
    let c = login_as(&world, "phone");
    write(&world.path("docs/f"), noise(1, 100_000));
    a.backup("docs");
    a.put("old", "1").ok();
    c.ok(&["status"]);
    let id = id_of(&c);
    let session = std::fs::read(c.home.join("session")).unwrap();
    a.run(&["device", "revoke", "phone"]).ends(2, &["--passphrase-file"]);
    let wrong = world.secret("wrong", "another passphrase");
    a.run(&["device", "revoke", "phone", "--passphrase-file", &wrong]).ends(5, &["passphrase is wrong"]);
    c.put("n", "1").ok();
    revoke(&world, &a, "phone").ends(0, &["what it holds, it keeps"]);
    assert_rotated(&world, &id);

    for _ in 0..2 {
        c.run(&["status"]).ends(5, &["it was revoked"]);
        c.put("n", "2").ends(5, &["it was revoked"]);
        c.run(&["backup", "docs"]).ends(5, &["it was revoked"]);
        // Not with the session that it had, either.
        std::fs::write(c.home.join("session"), &session).unwrap();
    }
    assert_eq!(a.get("n"), "1", "what it wrote before counts");
    b.put("m", "3").ok();
    assert_eq!(a.get("m"), "3");
    a.put("m", "4").ok();
    assert_eq!(b.get("m"), "4");
    b.backup("docs");
    let list = listed(&a);
    assert_eq!(entry(&list, &id)["revoked"], true);
    assert_eq!(entry(&list, &id_of(&a))["this"], true);
    assert!(entry(&list, &id_of(&b))["seen_utc"].as_u64().unwrap() > 1_000_000_000);
    let text = a.ok(&["device", "list"]).out;
    assert!(text.contains("phone (revoked)") && text.contains("(this one), last seen 20"), "{text}");

    let d = world.login("d");
    assert_eq!((d.get("old"), d.get("m")), ("1".into(), "4".into()));
    assert_same(&world.path("docs"), &d.restore("out").join("docs"));
    for device in [&a, &b, &d] {
        device.ok(&["check", "--read-data"]);
    }
    assert_rotated(&world, &id);
    // Again is once; and whoever knows the passphrase joins as a new device.
    revoke(&world, &b, "phone").ok();
    c.try_login(&world.text("passphrase")).ok();
    assert_ne!(id_of(&c), id);
    c.put("m", "5").ok();
    assert_eq!(a.get("m"), "5");
}

#[test]
fn who_can_not_be_revoked_is_named() {
    let world = World::new();
    let a = world.signup("a");
    let b = login_as(&world, "b");
    let own = id_of(&a);
    revoke(&world, &a, &own).ends(2, &["this is the device that you are using"]);
    revoke(&world, &a, "nobody").ends(11, &["there is no such device"]);
    revoke(&world, &a, "0000").ends(11, &["there is no such device"]);
    let c = world.device("c");
    let passphrase = world.text("passphrase");
    c.ok(&["login", "--name", "ada", "--passphrase-file", &passphrase, "--device-name", "b"]);
    revoke(&world, &a, "b").ends(2, &["fits several devices"]);
    revoke(&world, &a, &id_of(&b)[..8]).ok();
    revoke(&world, &a, "b").ok();
    b.run(&["status"]).ends(5, &[]);
    c.run(&["status"]).ends(5, &[]);
    a.put("n", "1").ok();
    let list = listed(&a);
    assert_eq!(list.iter().filter(|device| device["revoked"] == true).count(), 2);
}

#[test]
fn devices_are_renamed_and_new_ones_are_told_once() {
    let world = World::new();
    let a = world.signup("a");
    a.ok(&["status"]);
    let b = login_as(&world, "phone");
    let told = "a new device joined this account: phone";
    let id = id_of(&b);
    b.ok(&["status"]);
    let first = a.put("n", "1").ends(0, &[told, &id[..8], "lockstep device revoke", "passphrase change"]);
    assert_eq!(first.err.matches("joined").count(), 1);
    for arguments in [&["status"][..], &["snapshots"], &["vault", "list"], &["device", "list"]] {
        for device in [&a, &b] {
            assert!(!device.run(arguments).err.contains("joined"));
        }
    }
    a.ok(&["device", "rename", "phone", "tablet"]);
    assert_eq!(entry(&listed(&b), &id)["name"], "tablet");
    a.run(&["device", "rename", "phone", "x"]).ends(11, &["there is no such device"]);
    a.run(&["device", "rename", "tablet", ""]).ends(2, &["1 to 64 bytes"]);
    b.ok(&["device", "rename", &id[..8], "phone again"]);
    assert_eq!(entry(&listed(&a), &id)["name"], "phone again");
    write(&world.path("docs/f"), "1");
    let c = login_as(&world, "third");
    a.run(&["backup", "docs"]).ends(0, &["a new device joined this account: third"]);
    b.run(&["device", "list"]).ends(0, &["a new device joined this account: third"]);
    c.ok(&["status"]);
}

#[test]
fn a_revocation_that_is_cut_off_anywhere_is_run_again() {
    let (world, proxy) = behind();
    let a = world.signup("a");
    let b = login_as(&world, "b");
    a.put("n", "0").ok();
    let passphrase = world.text("passphrase");
    let mut ids = Vec::new();
    cut_everywhere(
        &proxy,
        |number| {
            let name = format!("d-{number}");
            let device = login_as(&world, &name);
            device.put("n", &number.to_string()).ok();
            ids.push(id_of(&device));
            let arguments = ["device", "revoke", &name, "--passphrase-file", &passphrase];
            (world.device("a"), arguments.map(str::to_owned).into())
        },
        |number| {
            assert_eq!(b.get("n"), number.to_string());
            world.device(&format!("d-{number}")).run(&["status"]).ends(5, &[]);
        },
    );
    for id in &ids {
        assert_rotated(&world, id);
    }
    a.ok(&["check"]);
    assert_eq!(world.login("e").get("n"), (ids.len() - 1).to_string());
}

/// The first revocation is cut off before any vault has a new key; the second one comes on top of it.
#[test]
fn a_second_revocation_before_the_vaults_were_rotated() {
    let (world, proxy) = behind();
    let a = world.signup("a");
    let (b, c, d) = (login_as(&world, "b"), login_as(&world, "c"), login_as(&world, "d"));
    a.put("n", "1").ok();
    let (id_c, id_d) = (id_of(&c), id_of(&d));
    let before = proxy.cuts();
    proxy.cut(Cut::Before("/commits HTTP"), u64::MAX);
    revoke(&world, &a, "c").ends(4, &["can not be reached"]);
    assert!(proxy.cuts() > before);
    proxy.heal();
    assert_eq!(pins(&world.server.database(), &id_c).len(), 2, "it is revoked");
    revoke(&world, &b, "d").ok();
    for id in [&id_c, &id_d] {
        assert_rotated(&world, id);
    }
    c.run(&["status"]).ends(5, &[]);
    d.run(&["status"]).ends(5, &[]);
    b.put("n", "2").ok();
    assert_eq!(a.get("n"), "2");
    a.ok(&["check"]);
    assert_eq!(world.login("e").get("n"), "2");
}

/// Writes that wait, one of them in a commit that was signed and never arrived, go out under the new key.
#[test]
fn pending_writes_of_an_offline_device_outlive_a_revocation() {
    for rotates in [false, true] {
        let (world, proxy) = behind();
        let a = world.signup("a");
        let (b, c) = (login_as(&world, "b"), login_as(&world, "c"));
        a.put("n", "1").ok();
        b.ok(&["status"]);
        let id = id_of(&c);
        proxy.cut(Cut::Before("POST /v1/vaults/"), u64::MAX);
        b.put("in-flight", "2").ends(0, &["kept on this device"]);
        b.put("waits", "3").ends(0, &["kept on this device"]);
        proxy.heal();
        if !rotates {
            // The revocation counts, and no vault has its new key yet.
            proxy.cut(Cut::Before("/commits HTTP"), u64::MAX);
        }
        let done = revoke(&world, &a, "c");
        proxy.heal();
        if rotates {
            done.ok();
        } else {
            done.ends(4, &[]);
        }
        assert_eq!(pins(&world.server.database(), &id).len(), 2);
        b.ok(&["status"]);
        assert_eq!((a.get("in-flight"), a.get("waits"), a.get("n")), ("2".into(), "3".into(), "1".into()));
        assert_rotated(&world, &id);
        let status = b.ok(&["--json", "status"]).json();
        assert_eq!(status["vaults"][0]["pending"], 0);
        a.ok(&["check"]);
        b.ok(&["check"]);
    }
}

/// The backup's commit is signed before the revocation and arrives after it.
#[test]
fn a_backup_that_a_revocation_overtakes_goes_on() {
    let (world, proxy) = behind();
    let a = world.signup("a");
    let (b, c) = (login_as(&world, "b"), login_as(&world, "c"));
    write(&world.path("docs/0"), "0");
    a.backup("docs");
    b.ok(&["status"]);
    let id = id_of(&c);
    for number in 0..30 {
        write(&world.path(&format!("docs/{number}")), noise(number, 40_000));
    }
    proxy.hold("/commits HTTP", 1);
    let mut running = b.start(&["backup", "docs"]);
    assert!(poll(60, || proxy.holding() == 1 || !running.is_running()));
    assert_eq!(proxy.holding(), 1, "no commit was held");
    revoke(&world, &a, "c").ok();
    proxy.heal();
    let done = running.done();
    assert!(matches!(done.status, Some(0 | 4)), "{done:?}");
    if done.status == Some(4) {
        done.ends(4, &["run the same command again"]);
        b.backup("docs");
    }
    assert_rotated(&world, &id);
    assert_same(&world.path("docs"), &b.restore("out").join("docs-2"));
    assert_eq!(a.snapshots().len(), 2);
    a.ok(&["check", "--read-data"]);
}

#[test]
fn two_devices_revoke_a_third_at_once() {
    let world = World::new();
    let a = world.signup("a");
    let (b, c) = (login_as(&world, "b"), login_as(&world, "c"));
    a.put("n", "1").ok();
    b.ok(&["status"]);
    let id = id_of(&c);
    let passphrase = world.text("passphrase");
    let arguments = ["device", "revoke", &id, "--passphrase-file", &passphrase];
    let running = [&a, &b].map(|device| device.start(&arguments));
    for running in running {
        running.done().ok();
    }
    assert_rotated(&world, &id);
    c.run(&["status"]).ends(5, &[]);
    b.put("n", "2").ok();
    assert_eq!(a.get("n"), "2");
}

#[test]
fn a_recovery_revokes_the_others_if_told_to() {
    let world = World::new();
    let a = world.signup("a");
    let b = login_as(&world, "b");
    a.put("n", "1").ok();
    let kept = recover(&world, "c", "kit", "kit-2", &[]);
    let kept = kept.ends(0, &["earlier devices can still read", "b (", "lockstep device revoke"]);
    assert!(kept.out.contains("recovered"));
    recover(&world, "x", "kit-2", "kit-3", &["--revoke-others", "--keep-others"]).ends(2, &[]);
    b.ok(&["status"]);
    let done = recover(&world, "d", "kit-2", "kit-3", &["--json", "--revoke-others"]).ok();
    assert_eq!(done.json()["revoked"].as_array().unwrap().len(), 3, "{done:?}");
    for device in [&a, &b, &world.device("c")] {
        device.run(&["status"]).ends(5, &["it was revoked"]);
    }
    let d = world.device("d");
    assert_eq!(d.get("n"), "1");
    d.put("n", "2").ok();
    assert_eq!(listed(&d).iter().filter(|device| device["revoked"] == false).count(), 1);
    let e = recover(&world, "e", "kit-3", "kit-4", &["--keep-others"]).ok();
    assert!(e.err.contains("earlier devices can still read"));
    assert_eq!(world.device("e").get("n"), "2");
}

/// A thief who has the device makes vaults that no keyring knows: they do not keep it from being revoked.
#[test]
fn a_vault_that_the_keyring_does_not_know_keeps_nobody_from_being_revoked() {
    let world = World::new();
    let a = world.signup("a");
    let c = login_as(&world, "c");
    a.put("n", "1").ok();
    let database = world.server.database();
    let row = |text: &str| database.query_row(text, [], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    let header = KeyHeader::decode(&row("SELECT key_header FROM account")).unwrap();
    let identity = PublicKey::from_bytes(header.identity.as_bytes()).unwrap();
    let last = DeviceLogEntry::decode(&row("SELECT bytes FROM device_log ORDER BY position DESC")).unwrap();
    let head: [u8; 32] = row("SELECT log_head FROM account").try_into().unwrap();
    let account = AccountId::from_bytes(row("SELECT id FROM account").try_into().unwrap());
    let parent = Parent {
        account,
        identity: &identity,
        device_log_index: last.index,
        device_log_head: Digest::from_bytes(head),
        utc: 1,
    };
    let keys = DeviceKeys::from_bytes(&std::fs::read(c.home.join("device")).unwrap()).unwrap();
    let birth = give_birth(VaultId::from_bytes([0x66; 16]), &parent, &keys);
    let body = CreateVault { create: birth.create, genesis: birth.genesis }.encode();
    let token = std::fs::read_to_string(c.home.join("session")).unwrap();
    let address = world.server.address();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let request = format!(
        "POST /v1/vaults HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
         content-type: application/cbor\r\ncontent-length: {}\r\n\r\n",
        token.trim(),
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream.write_all(&body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    a.ok(&["status"]);
    revoke(&world, &a, "c").ok();
    c.run(&["status"]).ends(5, &["it was revoked"]);
    a.put("n", "2").ok();
    assert_eq!(world.login("d").get("n"), "2");
    a.ok(&["check"]);
}
