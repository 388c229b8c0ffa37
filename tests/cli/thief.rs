//! A device of the account that does not keep to the rules: it signs what a good one never would. The others go on,
//! and it can be revoked.

use crate::lost::behind;
use crate::proxy::Cut;
use crate::revoke::{id_of, login_as, revoke};
use crate::revoked_keys::{account_of, header};
use crate::world::{Device, World};
use lockstep_client_crypto::account::KeyringKeys;
use lockstep_client_crypto::content::{Content, Hlc};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::vault::{Parent, Rotating, SealAs, VaultKeys, sign_rotation};
use lockstep_engine::keyring::{VAULT_KEY_TYPE, vault_key_name};
use lockstep_proto::api::vault::PushCommit;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::{Change, Changes, Commit, KIND_CHANGE, KIND_ROTATE};
use lockstep_proto::device_log::DeviceLogEntry;
use lockstep_proto::envelope::{self, KIND_DOCUMENT};
use lockstep_proto::id::{Epoch, OperationId, Revision, Seq, VaultId};
use lockstep_proto::sign::PublicKey;
use lockstep_proto::state::StateDigest;
use lockstep_proto::vault_log::{files_vault_id, keyring_vault_id};
use lockstep_proto::version::{SUITE, VERSION};
use lockstep_proto::{Digest, label};
use rand::SeedableRng as _;
use rand::rngs::ChaCha20Rng;
use rusqlite::Connection;
use std::io::{Read as _, Write as _};

/// What the thief has: a device's home, and the server's answers (read off its database).
pub(crate) struct Thief<'a> {
    world: &'a World,
    home: std::path::PathBuf,
    keys: DeviceKeys,
    identity: PublicKey,
}

/// A commit of the thief's, the vault's key at the server, and the state that is right after it.
pub(crate) struct Forged {
    pub(crate) vault_key: i64,
    pub(crate) state: StateDigest,
    pub(crate) push: PushCommit,
}

/// Key, seq, head, epoch, log index, log head and state of a vault.
type HeadRow = (i64, i64, Vec<u8>, i64, i64, Vec<u8>, Vec<u8>);

fn digest(bytes: Vec<u8>) -> Digest {
    Digest::from_bytes(bytes.try_into().unwrap())
}

fn number(value: i64) -> u64 {
    value.try_into().unwrap()
}

impl<'a> Thief<'a> {
    pub(crate) fn new(world: &'a World, device: &Device) -> Self {
        let keys = DeviceKeys::from_bytes(&std::fs::read(device.home.join("device")).unwrap()).unwrap();
        let identity = *header(&world.server.database()).identity();
        Self { world, home: device.home.clone(), keys, identity }
    }

    fn keyring(&self) -> VaultId {
        keyring_vault_id(&self.identity.to_bytes())
    }

    pub(crate) fn files(&self) -> VaultId {
        files_vault_id(&self.identity.to_bytes())
    }

    fn keyring_keys(&self) -> VaultKeys {
        let opened = KeyringKeys::open_as_device(&header(&self.world.server.database()), &self.keys).unwrap();
        let mut keys = VaultKeys::new(self.keyring(), &opened.vault_secret());
        for (epoch, key) in opened.keys() {
            keys.add_epoch(epoch, key.duplicate());
        }
        keys
    }

    /// A commit on the head, with nothing in it yet; the state before it.
    fn draft(&self, database: &Connection, vault: VaultId) -> (i64, Commit, StateDigest) {
        let text = "SELECT id, seq, head, epoch, log_index, log_head, state FROM vault WHERE vault = ?1";
        let row: HeadRow = database
            .query_row(text, [&vault.as_bytes()[..]], |row| {
                Ok((
                    row.get(0)?,
                    row.get(1)?,
                    row.get(2)?,
                    row.get(3)?,
                    row.get(4)?,
                    row.get(5)?,
                    row.get(6)?,
                ))
            })
            .unwrap();
        let (key, seq, head, epoch, log_index, log_head, state) = row;
        let seq = Seq::new(number(seq)).next();
        let target = i64::try_from(seq.skip_target().value()).unwrap();
        let text = "SELECT hash FROM commit_header WHERE vault = ?1 AND seq = ?2";
        let skip: Vec<u8> = database.query_row(text, [key, target], |row| row.get(0)).unwrap();
        let text = "SELECT bytes, hash FROM device_log ORDER BY position DESC";
        let last: (Vec<u8>, Vec<u8>) =
            database.query_row(text, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let state = StateDigest::from_bytes(&state).unwrap();
        let commit = Commit {
            version: VERSION,
            suite: SUITE,
            vault,
            seq,
            previous: digest(head),
            skip: digest(skip),
            kind: KIND_CHANGE,
            epoch: Epoch::new(number(epoch)),
            device: self.keys.id(),
            device_log_index: DeviceLogEntry::decode(&last.0).unwrap().index,
            device_log_head: digest(last.1),
            vault_log_index: number(log_index),
            vault_log_head: digest(log_head),
            utc: 1,
            changes: Digest::ZERO,
            state: state.checksum(),
        };
        (key, commit, state)
    }

    /// Writes a record, whatever is there already; the server's answer.
    fn put(&self, keys: &VaultKeys, record_type: &str, name: &[u8], spoil: bool) -> String {
        self.send(&self.draft_put(keys, (record_type, name), spoil, |_| {}).push)
    }

    /// A commit that puts a record with the vault's own keys, changed before it is signed.
    pub(crate) fn forged(
        &self,
        vault: VaultId,
        record_type: &str,
        name: &[u8],
        change: impl FnOnce(&mut Commit),
    ) -> Forged {
        let (secret, key) = (SecretKey::from_bytes(&[1; 32]), SecretKey::from_bytes(&[2; 32]));
        let keys = VaultKeys::new(vault, &secret).with_epoch(Epoch::new(1), key);
        self.draft_put(&keys, (record_type, name), false, change)
    }

    fn draft_put(
        &self,
        keys: &VaultKeys,
        (record_type, name): (&str, &[u8]),
        spoil: bool,
        change: impl FnOnce(&mut Commit),
    ) -> Forged {
        let database = self.world.server.database();
        let (vault_key, mut commit, mut state) = self.draft(&database, keys.vault());
        let record = keys.record_id(record_type, name);
        let text = "SELECT revision, digest, seq FROM live WHERE vault = ?1 AND record = ?2";
        let before = database.query_row(text, (vault_key, &record.as_bytes()[..]), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, i64>(2)?))
        });
        let mut revision = Revision::new(1);
        if let Ok((old, old_digest, seq)) = before {
            let old = Revision::new(number(old));
            state.remove(record, old, digest(old_digest), Seq::new(number(seq)));
            revision = old.next();
        }
        let content = Content {
            record_type: record_type.into(),
            name: name.into(),
            schema: 1,
            codec: 0,
            hlc: Hlc { utc_ms: 1, counter: 0 },
            operation: OperationId::from_bytes([1; 16]),
            base_revision: Revision::new(0),
            conflict_of: Vec::new().into(),
            document: b"nothing".as_slice().into(),
            blobs: Vec::new(),
            manifest: (),
        };
        let seal_as = SealAs { kind: KIND_DOCUMENT, revision, epoch: commit.epoch };
        let mut rng = ChaCha20Rng::from_seed([revision.value() as u8; 32]);
        let mut sealed = keys.seal(seal_as, &content, &self.keys, &mut rng).unwrap();
        if spoil {
            *sealed.last_mut().unwrap() ^= 1;
        }
        let envelope = envelope::digest(&sealed);
        state.add(record, revision, envelope, commit.seq);
        commit.state = state.checksum();
        let changes = Changes(vec![Change::Put { record, revision, envelope, blobs: Vec::new() }]);
        change(&mut commit);
        Forged { vault_key, state, push: self.sign(commit, &changes, vec![sealed]) }
    }

    /// Begins a key epoch; the server's answer.
    fn rotate(&self, vault: VaultId, epoch: u64) -> String {
        let database = self.world.server.database();
        let (_, mut commit, _) = self.draft(&database, vault);
        let parent = Parent {
            account: account_of(&database),
            identity: &self.identity,
            device_log_index: commit.device_log_index,
            device_log_head: commit.device_log_head,
            utc: 1,
        };
        let (index, head, epoch) = (commit.vault_log_index, commit.vault_log_head, Epoch::new(epoch));
        let entry = sign_rotation(vault, &Rotating { parent: &parent, index, head, epoch }, &self.keys);
        (commit.kind, commit.epoch) = (KIND_ROTATE, epoch);
        commit.vault_log_index = index + 1;
        commit.vault_log_head = entry.digest(label::VAULT_LOG_ENTRY);
        self.send(&self.sign(commit, &Changes(vec![Change::Rotate(Box::new(entry))]), Vec::new()))
    }

    fn sign(&self, mut commit: Commit, changes: &Changes, envelopes: Vec<Vec<u8>>) -> PushCommit {
        let changes = changes.encode();
        commit.changes = Changes::digest_of(&changes);
        let commit = self.keys.sign(label::COMMIT, commit.encode());
        let envelopes = envelopes.into_iter().map(Into::into).collect();
        PushCommit { commit, changes: changes.into(), envelopes, heals: false }
    }

    /// Posts a commit; the server's answer.
    pub(crate) fn send(&self, push: &PushCommit) -> String {
        let vault = Commit::decode(&push.commit.bytes.0).unwrap().vault;
        post(self.world, &self.home, &format!("/v1/vaults/{vault}/commits"), &push.encode())
    }
}

/// Posts what a device would never send; the server's answer.
pub(crate) fn post(world: &World, home: &std::path::Path, path: &str, body: &[u8]) -> String {
    let token = std::fs::read_to_string(home.join("session")).unwrap();
    let address = world.server.address();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
         content-type: application/cbor\r\ncontent-length: {}\r\n\r\n",
        token.trim(),
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[track_caller]
fn taken(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn epoch(world: &World, is_keyring: bool) -> i64 {
    let text = "SELECT epoch FROM vault WHERE is_keyring = ?1";
    world.server.database().query_row(text, [is_keyring], |row| row.get(0)).unwrap()
}

/// Any device could move a vault to any epoch at any time, the last one that there is too: nothing goes on from there.
#[test]
fn without_a_revocation_nobody_begins_an_epoch() {
    let world = World::new();
    let a = world.signup("a");
    let (b, c) = (login_as(&world, "b"), login_as(&world, "c"));
    a.put("n", "1").ok();
    c.ok(&["status"]);
    let thief = Thief::new(&world, &c);
    for vault in [thief.files(), thief.keyring()] {
        for epoch in [2, u64::MAX >> 1] {
            let answer = thief.rotate(vault, epoch);
            assert!(answer.contains("no device was revoked"), "{answer}");
        }
    }
    revoke(&world, &a, "b").ok();
    assert_eq!((epoch(&world, true), epoch(&world, false)), (2, 2));
    let answer = thief.rotate(thief.files(), 3);
    assert!(answer.contains("no device was revoked"), "{answer}");
    b.run(&["status"]).ends(5, &[]);
}

/// A vault key is write-once, and yet a device can write another version over it: with another document, or with
/// bytes that do not open. Devices that saw the first one and devices that did not go on with it.
#[test]
fn a_vault_key_that_was_written_over_is_the_first_one() {
    for spoil in [false, true] {
        let world = World::new();
        let a = world.signup("a");
        let (b, c) = (login_as(&world, "b"), login_as(&world, "c"));
        a.put("n", "1").ok();
        b.ok(&["status"]);
        c.ok(&["status"]);
        let thief = Thief::new(&world, &c);
        let name = vault_key_name(thief.files(), Epoch::new(1));
        for _ in 0..2 {
            taken(&thief.put(&thief.keyring_keys(), VAULT_KEY_TYPE, &name, spoil));
        }
        b.put("m", "2").ok();
        let d = login_as(&world, "d");
        assert_eq!((d.get("n"), a.get("m")), ("1".into(), "2".into()));
        revoke(&world, &a, "c").ok();
        assert_eq!(epoch(&world, false), 2);
        b.put("m", "3").ok();
        assert_eq!((a.get("m"), d.get("m")), ("3".into(), "3".into()));
        assert_eq!(login_as(&world, "e").get("m"), "3");
    }
}

/// Commits under a key that is nowhere stopped every pull, and so the revocation of whoever wrote them.
#[test]
fn who_writes_under_a_key_that_nobody_has_is_revoked() {
    let (world, proxy) = behind();
    let a = world.signup("a");
    let (b, c, d) = (login_as(&world, "b"), login_as(&world, "c"), login_as(&world, "d"));
    a.put("n", "1").ok();
    for device in [&b, &c] {
        device.ok(&["status"]);
    }
    let thief = Thief::new(&world, &c);
    let place: &'static str = format!("/v1/vaults/{}/commits HTTP", thief.files()).leak();
    proxy.cut(Cut::Before(place), u64::MAX);
    revoke(&world, &a, "d").ends(4, &["can not be reached"]);
    proxy.heal();
    taken(&thief.rotate(thief.files(), 9));
    let (secret, key) = (SecretKey::from_bytes(&[1; 32]), SecretKey::from_bytes(&[2; 32]));
    let keys = VaultKeys::new(thief.files(), &secret).with_epoch(Epoch::new(9), key);
    taken(&thief.put(&keys, "note", b"forged", false));
    let id = id_of(&c);
    for _ in 0..2 {
        b.put("m", "2").ends(7, &["begins key epoch 9", &id, "lockstep device revoke"]);
    }
    revoke(&world, &a, "c").ok();
    assert!(epoch(&world, false) > 9);
    b.ok(&["status"]);
    assert_eq!((a.get("m"), a.get("n")), ("2".into(), "1".into()));
    assert_eq!(login_as(&world, "e").get("m"), "2");
    d.run(&["status"]).ends(5, &[]);
}

/// A vault key was made and sent after one device was revoked, and came to nothing on the way; another device, which
/// could have read it there, is revoked before it is sent again, under the keyring's newest key. It is not used.
#[test]
fn a_key_that_was_sent_in_vain_before_a_revocation_is_not_used_after_it() {
    let (world, proxy) = behind();
    let a = world.signup("a");
    let (b, _c, d) = (login_as(&world, "b"), login_as(&world, "c"), login_as(&world, "d"));
    a.put("n", "1").ok();
    b.ok(&["status"]);
    proxy.cut(Cut::Before("/commits HTTP"), u64::MAX);
    revoke(&world, &a, "c").ends(4, &["can not be reached"]);
    proxy.heal();
    a.ok(&["device", "rename", "b", "b-2"]);
    assert_eq!((epoch(&world, true), epoch(&world, false)), (2, 1));
    proxy.cut(Cut::Before("/commits HTTP"), u64::MAX);
    a.put("n", "2").ends(0, &["kept on this device"]);
    revoke(&world, &b, "d").ends(4, &["can not be reached"]);
    proxy.heal();
    a.ok(&["status"]);
    assert_eq!((epoch(&world, true), epoch(&world, false)), (3, 3));
    assert_eq!(b.get("n"), "2");
    d.run(&["status"]).ends(5, &[]);
}
