//! The account that the vectors are about: one identity, three devices, a device log with an entry of every kind, and
//! the chain of a vault. All of it follows from fixed seeds.

use super::run::chain::{Chain, Link};
use ed25519_dalek::{Signer as _, SigningKey};
use lockstep_client_crypto::account::{
    CredentialChange, Enrolment, Joining, NewCredentials, UnlockedAccount,
};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::kdf;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::vault::{Birth, Parent, Rotating, give_birth, sign_rotation};
use lockstep_proto::cbor::{ByteArray, Wire as _};
use lockstep_proto::commit::{Change, Changes, Commit, KIND_CHANGE, KIND_REPAIR, KIND_ROTATE, RepairPlace};
use lockstep_proto::device_log::{DeviceLog, Pin};
use lockstep_proto::hash::Digest;
use lockstep_proto::id::{AccountId, BlobId, DeviceId, Epoch, RecordId, Revision, Seq, VaultId};
use lockstep_proto::key_header::VerifiedKeyHeader;
use lockstep_proto::label::{self, Label};
use lockstep_proto::sign::{Signed, signing_input};
use lockstep_proto::vault_log::{files_vault_id, keyring_vault_id};
use lockstep_proto::version::{SUITE, VERSION};
use rand::SeedableRng as _;
use rand::rngs::ChaCha20Rng;
use std::sync::LazyLock;

/// A generator of its own for every purpose.
pub fn rng(purpose: &str) -> ChaCha20Rng {
    ChaCha20Rng::from_seed(*blake3::hash(purpose.as_bytes()).as_bytes())
}

/// `N` fixed bytes for a purpose.
pub fn fixed<const N: usize>(purpose: &str) -> [u8; N] {
    lockstep_client_crypto::secret::random_bytes(&mut rng(purpose))
}

/// The passphrase of the account at first.
pub const PASSPHRASE: &str = "correct horse battery staple";
/// The time that commits claim.
pub const UTC: u64 = 1_790_000_000;

/// The account.
pub struct World {
    /// Its root, unlocked, with the newest keyring.
    pub account: UnlockedAccount,
    /// Its devices A, B and C.
    pub devices: [DeviceKeys; 3],
    /// Recovery keys: of the beginning, and after entry 2.
    pub recovery: [[u8; 32]; 2],
    /// Device log and the key header of each entry.
    pub log: Vec<Enrolment>,
    /// The keyring's birth.
    pub keyring: Birth,
    /// The birth of the vault `files`.
    pub files: Birth,
    /// Its chain up to the revocation, as everybody has it.
    pub plain: Vec<Link>,
}

/// Index of device A, which stays.
pub const A: usize = 0;
/// Index of device B, which is revoked.
pub const B: usize = 1;
/// Index of device C.
pub const C: usize = 2;

/// The one world.
pub static WORLD: LazyLock<World> = LazyLock::new(World::new);

fn recovery(bytes: &[u8; 32]) -> RecoveryKey {
    RecoveryKey::parse(&lockstep_proto::recovery::recovery_key_text(bytes)).unwrap()
}

impl World {
    fn new() -> Self {
        let mut rng = rng("account");
        let account = UnlockedAccount::create(&mut rng).unwrap();
        let devices = [(); 3].map(|()| DeviceKeys::generate(&mut rng).unwrap());
        let recovery_keys = [fixed("recovery key"), fixed("second recovery key")];
        let keyring_id = keyring_vault_id(&account.identity().to_bytes());
        let passphrase = Passphrase::new(PASSPHRASE).unwrap();
        let first = recovery(&recovery_keys[0]);
        let credentials = NewCredentials { passphrase: &passphrase, recovery: &first };
        let joining = Joining { device: &devices[A], name: "laptop", pins: Vec::new() };
        let log = vec![account.first_enrolment(credentials, joining, &mut rng).unwrap()];
        let mut world = Self {
            keyring: Birth { create: log[0].entry.clone(), genesis: log[0].entry.clone() },
            files: Birth { create: log[0].entry.clone(), genesis: log[0].entry.clone() },
            account,
            devices,
            recovery: recovery_keys,
            log,
            plain: Vec::new(),
        };
        world.keyring = world.birth(keyring_id, A);
        world.files = world.birth(world.files_id(), A);
        let pins = Self::pins(&[(keyring_id, 0, hash(&world.keyring.genesis))]);
        world.enrol(
            B,
            "Tablet \u{1f4d6} of a name that is cut after sixty-four bytes, not before",
            pins.clone(),
            &mut rng,
        );
        world.change_credentials(&mut rng);
        world.enrol(C, "", pins, &mut rng);
        world.plain = plain(&world);
        let head = world.plain.last().unwrap();
        let pins = Self::pins(&[
            (keyring_id, 0, hash(&world.keyring.genesis)),
            (world.files_id(), 4, hash(&head.0)),
        ]);
        world.revoke(B, pins, &mut rng);
        world.change_passphrase(&mut rng);
        world
    }

    fn enrol(&mut self, device: usize, name: &str, pins: Vec<Pin>, rng: &mut ChaCha20Rng) {
        let joining = Joining { device: &self.devices[device], name, pins };
        let entry = self.account.enrol(&self.header(), &self.log(), None, joining, rng).unwrap();
        self.log.push(entry);
    }

    fn change_credentials(&mut self, rng: &mut ChaCha20Rng) {
        let second = recovery(&self.recovery[1]);
        let change = CredentialChange { passphrase: None, recovery: Some(&second) };
        let entry = self.account.change_credentials(&self.header(), &self.log(), change, rng).unwrap();
        self.log.push(entry);
    }

    fn change_passphrase(&mut self, rng: &mut ChaCha20Rng) {
        let passphrase = Passphrase::new("another passphrase").unwrap();
        let change = CredentialChange { passphrase: Some(&passphrase), recovery: None };
        let entry = self.account.change_credentials(&self.header(), &self.log(), change, rng).unwrap();
        self.log.push(entry);
    }

    fn revoke(&mut self, device: usize, pins: Vec<Pin>, rng: &mut ChaCha20Rng) {
        let id = self.devices[device].id();
        let entry = self.account.revoke(&self.header(), &self.log(), id, pins, rng).unwrap();
        self.log.push(entry);
        let header = self.header();
        self.account.take_header(&header).unwrap();
    }

    fn pins(heads: &[(VaultId, u64, Digest)]) -> Vec<Pin> {
        let pin = |(vault, seq, head): &(VaultId, u64, Digest)| Pin {
            vault: *vault,
            seq: Seq::new(*seq),
            head: *head,
        };
        let mut pins: Vec<Pin> = heads.iter().map(pin).collect();
        pins.sort_by_key(|pin| pin.vault);
        pins
    }

    fn birth(&self, vault: VaultId, device: usize) -> Birth {
        give_birth(vault, &self.parent(self.log.len() - 1), &self.devices[device])
    }

    /// Who signs, after an entry of the log.
    pub fn parent(&self, index: usize) -> Parent<'_> {
        Parent {
            account: self.id(),
            identity: self.account.identity(),
            device_log_index: u64::try_from(index).unwrap(),
            device_log_head: self.log[index].entry.digest(label::DEVICE_LOG_ENTRY),
            utc: UTC,
        }
    }

    /// Account id.
    pub fn id(&self) -> AccountId {
        self.account.account()
    }

    /// Identity public key.
    pub fn identity(&self) -> [u8; 32] {
        self.account.identity().to_bytes()
    }

    /// Vault `files`.
    pub fn files_id(&self) -> VaultId {
        files_vault_id(&self.identity())
    }

    /// The log so far.
    pub fn log(&self) -> DeviceLog {
        let mut log = DeviceLog::new(*self.account.identity());
        for enrolment in &self.log {
            log.append(&enrolment.entry).unwrap();
        }
        log
    }

    /// The newest key header.
    pub fn header(&self) -> VerifiedKeyHeader {
        VerifiedKeyHeader::verify(self.id(), &self.log.last().unwrap().key_header).unwrap()
    }

    /// The genesis of `files` as the first link.
    pub fn genesis(&self) -> Link {
        (self.files.genesis.clone(), Changes::default().encode())
    }

    /// A chain of `files` from its links.
    pub fn chain(&self, links: &[Link]) -> Chain {
        let mut chain = Chain::born(self.log(), self.files_id(), &self.files.create, &links[0]).unwrap();
        chain.read(&links[1..]).unwrap();
        chain
    }

    /// The next commit after `chain`, changed by `tweak` before it is signed.
    pub fn commit(
        &self,
        chain: &Chain,
        by: (usize, usize),
        kind: u8,
        changes: Vec<Change>,
        tweak: impl FnOnce(&mut Commit),
    ) -> Link {
        let last = chain.last();
        let seq = Seq::new(u64::try_from(chain.hashes.len()).unwrap());
        let (mut state, changes) = (last.state.clone(), Changes(changes));
        for (record, revision, envelope) in changes.0.iter().filter_map(Change::version) {
            if let Some((revision, envelope, seq)) = last.records.get(&record) {
                state.remove(record, *revision, *envelope, *seq);
            }
            state.add(record, revision, envelope, seq);
        }
        let list = changes.encode();
        let mut commit = Commit {
            version: VERSION,
            suite: SUITE,
            vault: self.files_id(),
            seq,
            previous: *chain.hashes.last().unwrap(),
            skip: chain.skip(seq),
            kind,
            epoch: last.tip.epoch,
            device: self.devices[by.0].id(),
            device_log_index: u64::try_from(by.1).unwrap(),
            device_log_head: self.parent(by.1).device_log_head,
            vault_log_index: last.tip.vault_log_index,
            vault_log_head: last.tip.vault_log_head,
            utc: UTC + seq.value(),
            changes: Changes::digest_of(&list),
            state: state.checksum(),
        };
        if let Some(entry) = changes.rotation() {
            commit.vault_log_index += 1;
            commit.vault_log_head = entry.digest(label::VAULT_LOG_ENTRY);
            commit.epoch = Epoch::new(last.tip.epoch.value() + 1);
        }
        tweak(&mut commit);
        (self.devices[by.0].sign(label::COMMIT, commit.encode()), list)
    }

    /// A change commit.
    pub fn change(&self, chain: &Chain, by: (usize, usize), changes: Vec<Change>) -> Link {
        self.commit(chain, by, KIND_CHANGE, changes, |_| {})
    }

    /// The entry of a rotation by a device after an entry of the log.
    pub fn rotation(&self, chain: &Chain, by: (usize, usize)) -> Change {
        let tip = &chain.last().tip;
        let rotating = Rotating {
            parent: &self.parent(by.1),
            index: tip.vault_log_index,
            head: tip.vault_log_head,
            epoch: Epoch::new(tip.epoch.value() + 1),
        };
        Change::Rotate(Box::new(sign_rotation(self.files_id(), &rotating, &self.devices[by.0])))
    }

    /// A rotate commit.
    pub fn rotate(&self, chain: &Chain, by: (usize, usize)) -> Link {
        self.commit(chain, by, KIND_ROTATE, vec![self.rotation(chain, by)], |_| {})
    }

    /// A repair behind `chain`, whose last link may not count, as of `good`.
    pub fn repair(&self, chain: &Chain, good: &Chain, by: (usize, usize), mut says: Vec<Change>) -> Link {
        let mut from = good.clone();
        from.hashes.clone_from(&chain.hashes);
        let place = RepairPlace {
            vault: self.files_id(),
            seq: Seq::new(u64::try_from(chain.hashes.len()).unwrap()),
            previous: *chain.hashes.last().unwrap(),
            device: self.devices[by.0].id(),
        };
        says.push(Change::Authority(self.account.authorise_repair(&place, &says)));
        self.commit(&from, by, KIND_REPAIR, says, |_| {})
    }
}

/// The identity's key: its root is the first thing that the account's generator gave.
pub fn identity_key() -> SigningKey {
    let root = SecretKey::from_bytes(&fixed("account"));
    SigningKey::from_bytes(&kdf::derive::<32, u8>(&root, label::IDENTITY_KEY, kdf::NONE))
}

/// Signs bytes by any key.
pub fn sign_by(key: &SigningKey, label: Label, bytes: Vec<u8>) -> Signed {
    let signature = ByteArray(key.sign(&signing_input(label, &bytes)).to_bytes());
    Signed { bytes: bytes.into(), signature }
}

/// Hash of a commit.
pub fn hash(commit: &Signed) -> Digest {
    commit.digest(label::COMMIT)
}

/// Record `n` of the chains.
pub fn record(n: u8) -> RecordId {
    RecordId::from_bytes([n; 16])
}

/// Digest of an envelope of the chains.
pub fn envelope(n: u8, revision: u64) -> Digest {
    Digest::from_bytes(fixed(&format!("envelope {n} {revision}")))
}

/// A put of a record of the chains.
pub fn put(n: u8, revision: u64, blobs: &[u8]) -> Change {
    let blobs = blobs.iter().map(|blob| BlobId::from_bytes([*blob; 16])).collect();
    Change::Put {
        record: record(n),
        revision: Revision::new(revision),
        envelope: envelope(n, revision),
        blobs,
    }
}

/// A tombstone of a record of the chains.
pub fn tombstone(n: u8, revision: u64) -> Change {
    Change::Tombstone {
        record: record(n),
        revision: Revision::new(revision),
        envelope: envelope(n, revision),
    }
}

/// A chain of five commits by devices A and B.
fn plain(world: &World) -> Vec<Link> {
    let mut links = vec![world.genesis()];
    let steps: [((usize, usize), Vec<Change>); 4] = [
        ((A, 0), vec![put(1, 1, &[]), put(2, 1, &[7, 8])]),
        ((B, 1), vec![put(1, 2, &[9]), tombstone(2, 2), Change::Pin(Seq::new(1))]),
        ((A, 2), vec![put(3, 1, &[])]),
        ((B, 3), vec![put(2, 3, &[]), Change::Unpin(Seq::new(1)), Change::Pin(Seq::new(3))]),
    ];
    for (by, changes) in steps {
        let chain = world.chain(&links);
        links.push(world.change(&chain, by, changes));
    }
    links
}

/// Id of a device.
pub fn device_id(device: usize) -> DeviceId {
    WORLD.devices[device].id()
}
