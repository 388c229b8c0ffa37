//! What a revoked device can read of what comes after it: nothing, with any key that it has or can get, even if
//! the server gives it everything.

use crate::life::recover;
use crate::lost::behind;
use crate::proxy::Cut;
use crate::revoke::{id_of, login_as, pins, revoke};
use crate::tree::{noise, write};
use crate::world::{Device, World};
use lockstep_client_crypto::account::KeyringKeys;
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::vault::VaultKeys;
use lockstep_engine::keyring::{VAULT_KEY_TYPE, VaultKeyDoc};
use lockstep_proto::cbor::{ByteArray, Wire as _};
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::id::{AccountId, Epoch, VaultId};
use lockstep_proto::key_header::VerifiedKeyHeader;
use lockstep_proto::vault_log::keyring_vault_id;
use lockstep_proto::{Signed, envelope};
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};

type Key = [u8; 32];

fn signed(bytes: Vec<u8>, signature: &[u8]) -> Signed {
    Signed { bytes: bytes.into(), signature: ByteArray(signature.try_into().unwrap()) }
}

pub(crate) fn account_of(database: &Connection) -> AccountId {
    let id: [u8; 16] = database.query_row("SELECT id FROM account", [], |row| row.get(0)).unwrap();
    AccountId::from_bytes(id)
}

/// The key header as it is now.
pub(crate) fn header(database: &Connection) -> VerifiedKeyHeader {
    let row = database
        .query_row("SELECT key_header, key_header_signature FROM account", [], |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?))
        })
        .unwrap();
    VerifiedKeyHeader::verify(account_of(database), &signed(row.0, &row.1)).unwrap()
}

pub(crate) fn device_log(database: &Connection, identity: lockstep_proto::sign::PublicKey) -> DeviceLog {
    let mut log = DeviceLog::new(identity);
    let mut rows = database.prepare("SELECT bytes, signature FROM device_log ORDER BY position").unwrap();
    let rows = rows.query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?))).unwrap();
    for row in rows {
        let (bytes, signature) = row.unwrap();
        log.append(&signed(bytes, &signature)).unwrap();
    }
    log
}

/// One version at the server, whether it is the newest or not.
struct Row {
    vault: VaultId,
    seq: i64,
    envelope: Vec<u8>,
}

fn rows(database: &Connection) -> Vec<Row> {
    let text = "SELECT v.vault, r.seq, r.envelope FROM version r JOIN vault v ON v.id = r.vault";
    let mut statement = database.prepare(text).unwrap();
    statement
        .query_map([], |row| {
            let vault = VaultId::from_bytes(row.get::<_, [u8; 16]>(0)?);
            Ok(Row { vault, seq: row.get(1)?, envelope: row.get(2)? })
        })
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

/// What a thief knows: every key, whatever it was meant for, and the secrets of vaults.
#[derive(Default)]
struct Loot {
    keys: BTreeSet<Key>,
    secrets: BTreeMap<VaultId, Key>,
}

impl Loot {
    /// Tries every key on an envelope, in the place of the epoch that the envelope names.
    fn open(&self, row: &Row) -> Option<lockstep_client_crypto::vault::Opened> {
        let (_, header) = envelope::decode(&row.envelope).unwrap();
        let secret = SecretKey::from_bytes(self.secrets.get(&row.vault)?);
        self.keys.iter().find_map(|key| {
            let keys = VaultKeys::new(row.vault, &secret);
            keys.with_epoch(header.epoch, SecretKey::from_bytes(key)).open(&row.envelope).ok()
        })
    }

    /// Opens what opens, takes the keys that are in it, and starts over until nothing new is found. Gives the places
    /// of all that opened.
    fn plunder(&mut self, rows: &[Row]) -> BTreeSet<usize> {
        let mut opened = BTreeSet::new();
        loop {
            let before = opened.len();
            for (place, row) in rows.iter().enumerate() {
                if opened.contains(&place) {
                    continue;
                }
                let Some(found) = self.open(row) else { continue };
                opened.insert(place);
                if found.content.record_type == VAULT_KEY_TYPE
                    && let Ok(doc) = VaultKeyDoc::decode(&found.content.document.0)
                {
                    self.keys.extend([doc.key.0, doc.secret.0]);
                    self.secrets.insert(doc.vault, doc.secret.0);
                }
            }
            if opened.len() == before {
                return opened;
            }
        }
    }
}

/// The revoked device's home and the whole server, against each other. Blobs need no look of their own: a blob's key
/// comes from a seed in the record that names it (PROTOCOL.md section 9).
#[test]
fn nothing_that_is_written_after_a_revocation_opens_with_what_the_device_has() {
    let world = World::new();
    let a = world.signup("a");
    let mut headers = vec![header(&world.server.database())];
    let b = login_as(&world, "b");
    let c = login_as(&world, "c");
    headers.push(header(&world.server.database()));
    write(&world.path("docs/f"), noise(1, 100_000));
    a.backup("docs");
    a.put("n", "1").ok();
    b.put("n", "2").ok();
    b.run_with(&["record", "put", "--type", "note", "--vault", "more"], "{}").ok();
    c.put("of-c", "1").ok();
    c.ok(&["check", "--read-data"]);
    let id = id_of(&c);
    revoke(&world, &a, "c").ok();
    headers.push(header(&world.server.database()));

    write(&world.path("docs/g"), noise(2, 100_000));
    a.backup("docs");
    b.put("n", "3").ok();
    b.run_with(&["record", "put", "--type", "note", "--vault", "more"], "{\"later\":1}").ok();
    b.run_with(&["record", "put", "--type", "note", "--vault", "new"], "{}").ok();
    a.ok(&["device", "rename", "b", "renamed"]);
    let d = login_as(&world, "d");
    headers.push(header(&world.server.database()));
    d.put("n", "4").ok();
    let id_d = id_of(&d);
    // Another one, another passphrase, another recovery key: each writes a key header.
    revoke(&world, &a, "d").ok();
    headers.push(header(&world.server.database()));
    let (old, new) = (world.text("passphrase"), world.secret("new", "another passphrase"));
    a.ok(&["passphrase", "change", "--passphrase-file", &old, "--new-passphrase-file", &new]);
    headers.push(header(&world.server.database()));
    recover(&world, "e", "kit", "kit-2", &["--keep-others"]).ok();
    headers.push(header(&world.server.database()));
    b.put("n", "5").ok();
    world.device("e").put("n", "6").ok();

    let database = world.server.database();
    assert_shut_out(&database, &headers, &c, &headers[2..]);
    let (opened, after) = assert_shut_out(&database, &headers, &d, &headers[4..]);
    assert_eq!(after.len(), 4, "keyring, files, more, new");
    assert!(opened > 5 && after.values().sum::<usize>() > 4, "the test tests nothing: {after:?}");
    assert_eq!(pins(&database, &id).len(), 3);
    assert_eq!(pins(&database, &id_d).len(), 4);
}

/// Opens what opens with everything that a revoked device has: exactly what was written before its revocation. Gives
/// how much that is, and how much came after, by vault.
fn assert_shut_out(
    database: &Connection,
    headers: &[VerifiedKeyHeader],
    revoked: &Device,
    later: &[VerifiedKeyHeader],
) -> (usize, BTreeMap<VaultId, usize>) {
    let identity = *headers[0].identity();
    let keyring = keyring_vault_id(&identity.to_bytes());
    let file = std::fs::read(revoked.home.join("device")).unwrap();
    let device = DeviceKeys::from_bytes(&file).unwrap();
    let mut loot = Loot::default();
    // Everything in the device's file, whatever it is.
    loot.keys.extend(file.windows(32).map(|run| Key::try_from(run).unwrap()));
    let mut newest = Epoch::new(0);
    let mut keyrings = Vec::new();
    for header in headers {
        let has_seal = header.header().keyring.seals.iter().any(|seal| seal.device == device.id());
        let keys = KeyringKeys::open_as_device(header, &device);
        assert_eq!(keys.is_ok(), has_seal, "header {}", header.header().counter);
        if let Ok(keys) = keys {
            loot.keys.extend(keys.keys().map(|(_, key)| *key.expose()));
            loot.secrets.insert(keyring, *keys.vault_secret().expose());
            newest = newest.max(keys.epoch());
            keyrings.push(keys);
        }
    }
    assert!(!keyrings.is_empty());
    assert!(!later.is_empty() && later.iter().all(|header| header.header().keyring.epoch > newest));

    let pins = pins(database, &device.id().to_string());
    let rows = rows(database);
    let opened = loot.plunder(&rows);
    let mut after = BTreeMap::<VaultId, usize>::new();
    for (place, row) in rows.iter().enumerate() {
        let was_before = pins.get(&row.vault.as_bytes()[..]).is_some_and(|pin| row.seq <= *pin);
        assert_eq!(opened.contains(&place), was_before, "vault {} commit {}", row.vault, row.seq);
        *after.entry(row.vault).or_default() += usize::from(!was_before);
    }
    assert!(!opened.is_empty() && after[&keyring] > 0);
    // Names of devices that joined later are sealed under later keys, too.
    let log = device_log(database, identity);
    let end = log.device(device.id()).unwrap().revoked.as_ref().unwrap().index;
    for other in log.devices() {
        for keys in &keyrings {
            assert_eq!(keys.open_name(other).is_err(), other.enrolled_at > end, "device {}", other.id);
        }
    }
    (opened.len(), after)
}

/// The key for a vault's next epoch was made when one device was revoked, and read by another before the vault came to
/// use it; then that one is revoked, too: the vault goes on under a third key.
#[test]
fn a_key_that_was_made_before_a_second_revocation_is_not_used_after_it() {
    let (world, proxy) = behind();
    let a = world.signup("a");
    let (b, c, d) = (login_as(&world, "b"), login_as(&world, "c"), login_as(&world, "d"));
    a.put("n", "1").ok();
    let mut headers = vec![header(&world.server.database())];
    let vaults = a.ok(&["--json", "vault", "list"]).json();
    let place = format!("/v1/vaults/{}/commits HTTP", vaults[0]["vault"].as_str().unwrap());
    proxy.cut(Cut::Before(place.leak()), u64::MAX);
    revoke(&world, &a, "c").ends(4, &["can not be reached"]);
    headers.push(header(&world.server.database()));
    for device in [&b, &d] {
        device.run(&["status"]).ends(4, &["can not be reached"]);
    }
    proxy.heal();
    revoke(&world, &b, "d").ok();
    headers.push(header(&world.server.database()));
    a.put("n", "2").ok();
    b.put("n", "3").ok();
    let database = world.server.database();
    assert_shut_out(&database, &headers, &c, &headers[1..]);
    let (opened, after) = assert_shut_out(&database, &headers, &d, &headers[2..]);
    assert!(opened > 5 && after.values().all(|count| *count > 0), "{after:?}");
    let newest: i64 = database.query_row("SELECT max(epoch) FROM vault", [], |row| row.get(0)).unwrap();
    assert_eq!(newest, 3);
}
