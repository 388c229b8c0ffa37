//! One account with its devices and one vault, built once a process: a key derivation with Argon2id
//! is the one slow thing in here.

use lockstep_client_crypto::account::{Joining, NewCredentials, UnlockedAccount};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::vault::{Birth, Parent, VaultKeys, give_birth};
use lockstep_engine::engine::{NextKey, Setup};
use lockstep_merge::Policies;
use lockstep_proto::device_log::{DeviceLog, Pin};
use lockstep_proto::id::{Epoch, Seq, VaultId};
use lockstep_proto::key_header::VerifiedKeyHeader;
use lockstep_proto::sign::PublicKey;
use lockstep_proto::vault_log::keyring_vault_id;
use lockstep_proto::{AccountId, Digest};
use rand::SeedableRng as _;
use rand::rngs::ChaCha20Rng;
use std::sync::{Arc, LazyLock};

/// Devices of the account.
pub(crate) const DEVICES: usize = 5;
/// Identities for devices that have to join again: they are enrolled behind the others, one by one.
pub(crate) const SPARES: usize = 8;

/// What every world starts from.
pub(crate) struct Fixture {
    pub(crate) account: AccountId,
    pub(crate) identity: PublicKey,
    pub(crate) devices: Vec<Arc<DeviceKeys>>,
    /// Keys that no device log knows.
    pub(crate) stranger: DeviceKeys,
    /// The account with its root at hand, for signing repairs.
    pub(crate) unlocked: UnlockedAccount,
    pub(crate) keys: Arc<VaultKeys>,
    /// The same with the key that is made after the revocation.
    pub(crate) later_keys: Arc<VaultKeys>,
    pub(crate) birth: Birth,
    /// The device log after each enrolment, the spare ones too.
    pub(crate) logs: Vec<Arc<DeviceLog>>,
    /// The key header that belongs to the last device that is no spare one.
    pub(crate) header: VerifiedKeyHeader,
    /// The device log after all of them, and one more device, which writes nothing here, came and was revoked.
    pub(crate) later_log: Arc<DeviceLog>,
}

/// The one fixture.
pub(crate) static FIXTURE: LazyLock<Fixture> = LazyLock::new(build);

/// Merge policies of the types that have one.
static POLICIES: LazyLock<Arc<Policies>> =
    LazyLock::new(|| Arc::new(Policies::from_json(include_str!("policies.json")).unwrap()));

impl Fixture {
    /// What the engine of a device is built from.
    pub(crate) fn setup(&self, device: usize) -> Setup {
        Setup {
            account: self.account,
            keys: self.keys.clone(),
            device: self.devices[device].clone(),
            create: self.birth.create.clone(),
            genesis: Some(self.birth.genesis.clone()),
            next_key: None,
            unreadable: None,
            policies: POLICIES.clone(),
            heals: false,
        }
    }

    /// The same once the device has the key that is made after the revocation.
    pub(crate) fn later_setup(&self, device: usize) -> Setup {
        let keys = self.later_keys.clone();
        let next_key = NextKey { epoch: Epoch::new(2), fresh_for: self.later_log.keyring_epoch() };
        Setup { keys, next_key: Some(next_key), ..self.setup(device) }
    }

    /// The device log as the server has it.
    pub(crate) fn log(&self) -> Arc<DeviceLog> {
        self.logs[DEVICES - 1].clone()
    }
}

fn build() -> Fixture {
    let mut rng = ChaCha20Rng::from_seed([0x5e; 32]);
    let account = UnlockedAccount::create(&mut rng).unwrap();
    let passphrase = Passphrase::new("correct horse battery staple").unwrap();
    let recovery = RecoveryKey::generate(&mut rng);
    let credentials = NewCredentials { passphrase: &passphrase, recovery: &recovery };
    let mut devices = Vec::new();
    let mut logs = Vec::new();
    let mut log = DeviceLog::new(*account.identity());
    let mut header: Option<VerifiedKeyHeader> = None;
    let keyring = keyring_vault_id(&account.identity().to_bytes());
    let pin = Pin { vault: keyring, seq: Seq::new(0), head: Digest::ZERO };
    let mut roster: Option<VerifiedKeyHeader> = None;
    for index in 0..DEVICES + SPARES {
        let device = DeviceKeys::generate(&mut rng).unwrap();
        let enrolment = match &header {
            None => {
                let joining = Joining { device: &device, name: "device", pins: Vec::new() };
                account.first_enrolment(credentials, joining, &mut rng).unwrap()
            }
            Some(header) => {
                let joining = Joining { device: &device, name: "device", pins: vec![pin] };
                account.enrol(header, &log, None, joining, &mut rng).unwrap()
            }
        };
        header = Some(VerifiedKeyHeader::verify(account.account(), &enrolment.key_header).unwrap());
        log.append(&enrolment.entry).unwrap();
        logs.push(Arc::new(log.clone()));
        devices.push(Arc::new(device));
        if index + 1 == DEVICES {
            roster.clone_from(&header);
        }
    }
    let vault = VaultId::from_bytes([0x7a; 16]);
    let (secret, key) = (SecretKey::generate(&mut rng), SecretKey::generate(&mut rng));
    let keys = VaultKeys::new(vault, &secret).with_epoch(Epoch::new(1), key.duplicate());
    let mut later_rng = ChaCha20Rng::from_seed([0x5f; 32]);
    let later_keys = VaultKeys::new(vault, &secret)
        .with_epoch(Epoch::new(1), key)
        .with_epoch(Epoch::new(2), SecretKey::generate(&mut later_rng));
    let later_log = revoke(&account, &header.unwrap(), log, vec![pin], &mut later_rng);
    let parent = Parent {
        account: account.account(),
        identity: account.identity(),
        device_log_index: 0,
        device_log_head: logs[0].head(),
        utc: 1,
    };
    let birth = give_birth(vault, &parent, &devices[0]);
    let (id, identity) = (account.account(), *account.identity());
    Fixture {
        account: id,
        identity,
        stranger: DeviceKeys::generate(&mut rng).unwrap(),
        unlocked: account,
        devices,
        keys: Arc::new(keys),
        later_keys: Arc::new(later_keys),
        birth,
        logs,
        header: roster.unwrap(),
        later_log: Arc::new(later_log),
    }
}

/// One more device that joins and is revoked.
fn revoke(
    account: &UnlockedAccount,
    header: &VerifiedKeyHeader,
    mut log: DeviceLog,
    pins: Vec<Pin>,
    rng: &mut ChaCha20Rng,
) -> DeviceLog {
    let device = DeviceKeys::generate(rng).unwrap();
    let joining = Joining { device: &device, name: "device", pins: pins.clone() };
    let enrolment = account.enrol(header, &log, None, joining, rng).unwrap();
    log.append(&enrolment.entry).unwrap();
    let header = VerifiedKeyHeader::verify(account.account(), &enrolment.key_header).unwrap();
    let revocation = account.revoke(&header, &log, device.id(), pins, rng).unwrap();
    log.append(&revocation.entry).unwrap();
    log
}
