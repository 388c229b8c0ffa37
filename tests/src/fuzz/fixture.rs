//! One account with two devices, a revocation, a vault and its chain: real bytes for inputs to spoil.

use lockstep_client_crypto::account::{Joining, NewCredentials, UnlockedAccount};
use lockstep_client_crypto::content::{Content, Hlc};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::vault::{Birth, Parent, SealAs, VaultKeys, give_birth};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::{Change, Changes, Commit, KIND_CHANGE};
use lockstep_proto::device_log::{DeviceLog, Pin};
use lockstep_proto::envelope::{self, KIND_DOCUMENT};
use lockstep_proto::id::{AccountId, Epoch, OperationId, RecordId, Revision, Seq, VaultId};
use lockstep_proto::key_header::VerifiedKeyHeader;
use lockstep_proto::sign::{PublicKey, Signed};
use lockstep_proto::state::StateDigest;
use lockstep_proto::vault_log::{VaultLogEntry, keyring_vault_id};
use lockstep_proto::version::{SUITE, VERSION};
use lockstep_proto::{Digest, label};
use rand::SeedableRng as _;
use rand::rngs::ChaCha20Rng;
use std::sync::OnceLock;

pub(super) const AS: SealAs =
    SealAs { kind: KIND_DOCUMENT, revision: Revision::new(1), epoch: Epoch::new(1) };
const COMMITS: u64 = 6;

/// A commit and its change list.
pub(super) struct Link {
    pub(super) commit: Signed,
    pub(super) changes: Vec<u8>,
}

pub(super) struct Fixture {
    pub(super) account: AccountId,
    pub(super) identity: PublicKey,
    pub(super) device: DeviceKeys,
    pub(super) recovery: RecoveryKey,
    /// Key header of each entry of the log.
    pub(super) headers: Vec<Signed>,
    pub(super) entries: Vec<Signed>,
    pub(super) log: DeviceLog,
    pub(super) vault: VaultId,
    pub(super) vault_keys: VaultKeys,
    pub(super) birth: Birth,
    pub(super) chain: Vec<Link>,
    pub(super) content: Content,
    pub(super) envelope: Vec<u8>,
}

pub(super) fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

pub(super) fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(build)
}

fn content() -> Content {
    Content {
        record_type: "note".into(),
        name: b"shopping".as_slice().into(),
        schema: 1,
        codec: 0,
        hlc: Hlc { utc_ms: 1_700_000_000_000, counter: 0 },
        operation: OperationId::from_bytes([1; 16]),
        base_revision: Revision::new(0),
        conflict_of: Vec::new().into(),
        document: br#"{"text":"bread and milk"}"#.as_slice().into(),
        blobs: Vec::new(),
        manifest: (),
    }
}

fn build() -> Fixture {
    let mut rng = rng(1);
    let account = UnlockedAccount::create(&mut rng).unwrap();
    let device = DeviceKeys::generate(&mut rng).unwrap();
    let second = DeviceKeys::generate(&mut rng).unwrap();
    let recovery = RecoveryKey::generate(&mut rng);
    let passphrase = Passphrase::new("a passphrase for the fuzzer").unwrap();
    let identity = *account.identity();
    let mut log = DeviceLog::new(identity);
    let credentials = NewCredentials { passphrase: &passphrase, recovery: &recovery };
    let joining = Joining { device: &device, name: "laptop", pins: Vec::new() };
    let first = account.first_enrolment(credentials, joining, &mut rng).unwrap();
    log.append(&first.entry).unwrap();
    let header = VerifiedKeyHeader::verify(account.account(), &first.key_header).unwrap();
    let keyring = keyring_vault_id(&identity.to_bytes());
    let pins = vec![Pin { vault: keyring, seq: Seq::new(0), head: Digest::ZERO }];
    let joining = Joining { device: &second, name: "phone", pins: pins.clone() };
    let joined = account.enrol(&header, &log, None, joining, &mut rng).unwrap();
    log.append(&joined.entry).unwrap();
    let header = VerifiedKeyHeader::verify(account.account(), &joined.key_header).unwrap();
    let left = account.revoke(&header, &log, second.id(), pins, &mut rng).unwrap();
    log.append(&left.entry).unwrap();

    let vault = VaultId::from_bytes([0x5a; 16]);
    let secret = SecretKey::generate(&mut rng);
    let vault_keys = VaultKeys::new(vault, &secret).with_epoch(Epoch::new(1), SecretKey::generate(&mut rng));
    let parent = Parent {
        account: account.account(),
        identity: &identity,
        device_log_index: 2,
        device_log_head: log.head(),
        utc: 1_700_000_000,
    };
    let birth = give_birth(vault, &parent, &device);
    let chain = write(vault, &birth, &parent, &device);
    let content = content();
    let envelope = vault_keys.seal(AS, &content, &device, &mut rng).unwrap();
    Fixture {
        account: account.account(),
        identity,
        device,
        recovery,
        headers: vec![first.key_header, joined.key_header, left.key_header],
        entries: vec![first.entry, joined.entry, left.entry],
        log,
        vault,
        vault_keys,
        birth,
        chain,
        content,
        envelope,
    }
}

/// A chain of commits that put one record each, and pin the commit before.
fn write(vault: VaultId, birth: &Birth, parent: &Parent<'_>, device: &DeviceKeys) -> Vec<Link> {
    let mut hashes = vec![Commit::hash_of(&birth.genesis.bytes.0)];
    let mut state = StateDigest::default();
    let mut chain = Vec::new();
    for seq in (1..=COMMITS).map(Seq::new) {
        let record = RecordId::from_bytes([seq.value() as u8; 16]);
        let envelope = envelope::digest(&seq.value().to_be_bytes());
        let put = Change::Put { record, revision: Revision::new(1), envelope, blobs: Vec::new() };
        let pin = Change::Pin(Seq::new(seq.value() - 1));
        state.add(record, Revision::new(1), envelope, seq);
        let changes = Changes(vec![put, pin]).encode();
        let commit = Commit {
            version: VERSION,
            suite: SUITE,
            vault,
            seq,
            previous: hashes[hashes.len() - 1],
            skip: hashes[seq.skip_target().value() as usize],
            kind: KIND_CHANGE,
            epoch: Epoch::new(1),
            device: device.id(),
            device_log_index: parent.device_log_index,
            device_log_head: parent.device_log_head,
            vault_log_index: 0,
            vault_log_head: VaultLogEntry::hash_of(&birth.create.bytes.0),
            utc: parent.utc + seq.value(),
            changes: Changes::digest_of(&changes),
            state: state.checksum(),
        };
        let commit = device.sign(label::COMMIT, commit.encode());
        hashes.push(Commit::hash_of(&commit.bytes.0));
        chain.push(Link { commit, changes });
    }
    chain
}
