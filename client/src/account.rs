//! Sign-up, sign-in on a new device, recovery, and opening the account of a home. The order of
//! verification is PROTOCOL.md section 2.2; the order of writing section 3.1.

pub(crate) mod devices;
mod finish;
mod join;
pub(crate) mod manage;
mod session;
mod unknown;

pub use join::{Ignored, NewSecrets, Place, generate_passphrase, login, meet, recover, signup};
pub use manage::{KitState, Owner};
pub use session::SessionInfo;

use crate::api::Api;
use crate::error::{ClientError, Result};
use crate::home::{AccountFile, Home};
use crate::replica::Db;
use crate::vault::Vault;
use lockstep_client_crypto::account::KeyringKeys;
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::local::LocalKeys;
use lockstep_client_crypto::vault::VaultKeys;
use lockstep_engine::engine::{NextKey, Setup};
use lockstep_merge::Policies;
use lockstep_proto::api::account::Devices;
use lockstep_proto::api::vault::VaultLog;
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::id::{AccountId, DeviceId, Seq, VaultId};
use lockstep_proto::key_header::VerifiedKeyHeader;
use lockstep_proto::sign::PublicKey;
use lockstep_proto::vault_log::keyring_vault_id;
use lockstep_proto::{Signed, limits};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// When the server last answered.
pub(crate) const ANSWERED: &str = "answered-utc";

/// The account of a home, open.
pub struct Account {
    pub(crate) home: Home,
    pub(crate) file: AccountFile,
    pub(crate) api: Arc<Api>,
    pub(crate) db: Rc<Db>,
    pub(crate) device: Arc<DeviceKeys>,
    pub(crate) names: KeyringKeys,
    pub(crate) keyring: Vault,
    /// Devices whose head pins are not believed: they are about to be revoked.
    pub(crate) ignored: BTreeSet<DeviceId>,
    pub(crate) register: crate::keyring::Cache,
    /// Merge policies of the app that runs, for all its vaults; none: those that stand in each vault.
    pub(crate) policies: Option<Arc<Policies>>,
}

/// A device of the account, for people.
#[derive(Debug, Clone)]
pub struct DeviceInfo {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it is this one.
    pub is_this: bool,
    /// Whether it was revoked.
    pub is_revoked: bool,
    /// Place of its enrolment in the device log.
    pub enrolled_at: u64,
    /// When it last pinned what it verified, by its own clock; none: never, or it was revoked long ago.
    pub seen_utc: Option<u64>,
}

impl Account {
    /// Opens the account of a home.
    ///
    /// # Errors
    /// [`ClientError::NoAccount`] and what is wrong with the home.
    pub fn open(home: Home, insecure_http: bool) -> Result<Self> {
        let none = || ClientError::NoAccount(home.path().to_path_buf());
        let file = home.account()?.filter(|file| file.enrolled).ok_or_else(none)?;
        let device = Arc::new(home.device()?.ok_or_else(none)?);
        let api = Api::new(crate::api::check_server(&file.server, insecure_http)?)?;
        let account: AccountId = file
            .account
            .parse()
            .map_err(|_| ClientError::Damaged("the home's account file is damaged".into()))?;
        api.set_token(home.session()?);
        api.set_signer(account, Arc::clone(&device));
        let db = Db::open(&home.replica_path(), LocalKeys::new(device.index_key()), home.writes())?;
        Self::over(home, file, account, api, db, device)
    }

    /// The same account over the same database, as it is stored now: for reading and for local writes while another
    /// one is at work with the server.
    pub(crate) fn beside(&self) -> Result<Self> {
        let (home, file) = (self.home.share()?, self.file.clone());
        let (api, db, device) = (Arc::clone(&self.api), Rc::clone(&self.db), Arc::clone(&self.device));
        let beside = Self::over(home, file, self.id(), api, db, device)?;
        Ok(Self { policies: self.policies.clone(), ..beside })
    }

    /// Merges documents of all vaults by these policies from now on, whatever stands in the vaults.
    pub fn use_policies(&mut self, policies: Arc<Policies>) {
        self.policies = Some(policies);
    }

    fn over(
        home: Home,
        file: AccountFile,
        account: AccountId,
        api: Arc<Api>,
        db: Rc<Db>,
        device: Arc<DeviceKeys>,
    ) -> Result<Self> {
        let damaged =
            |what: &dyn std::fmt::Display| ClientError::Damaged(format!("the home is damaged: {what}"));
        let (header, log) = stored_log(&db, account)?;
        if log.live().all(|live| live.id != device.id()) {
            return Err(ClientError::Revoked);
        }
        let names = crate::keyring::open_keyring(&header, &device)?;
        let keyring = keyring_id(header.identity());
        let replica = db.vault(keyring, None)?.ok_or_else(|| damaged(&"there is no keyring"))?;
        let create = replica.create_entry()?;
        let setup = keyring_setup(account, header.identity(), &names, &device, create);
        let keyring = Vault::new(setup, Arc::new(log), replica, Arc::clone(&api));
        Ok(Self {
            home,
            file,
            api,
            db,
            device,
            names,
            keyring,
            ignored: BTreeSet::new(),
            register: crate::keyring::Cache::default(),
            policies: None,
        })
    }

    /// Listens for notices of this account's vaults: those whose heads are others than what is known.
    pub fn listener(&self, known: BTreeMap<VaultId, Seq>) -> crate::notice::Listener {
        crate::notice::Listener::new(Arc::clone(&self.api), known)
    }

    /// This device.
    pub fn device_id(&self) -> DeviceId {
        self.device.id()
    }

    /// Account id.
    pub fn id(&self) -> AccountId {
        self.keyring.setup.account
    }

    /// The identity key.
    pub fn identity(&self) -> &PublicKey {
        self.keyring.device_log().identity()
    }

    /// What the home remembers of the account.
    pub fn file(&self) -> &AccountFile {
        &self.file
    }

    /// The home.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The server.
    pub fn api(&self) -> &Arc<Api> {
        &self.api
    }

    /// The keyring vault.
    pub fn keyring(&self) -> &Vault {
        &self.keyring
    }

    /// The database.
    pub fn db(&self) -> &Rc<Db> {
        &self.db
    }

    /// Whether this process may write.
    pub fn writes(&self) -> bool {
        self.home.writes()
    }

    /// Keeps the session that is in use for the next run.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn keep_session(&self) -> Result<()> {
        let token = self.api.token();
        if self.writes() && token != self.home.session()? {
            self.home.set_session(token.as_deref())?;
        }
        Ok(())
    }

    /// Ends the session; the home stays.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn logout(&self) -> Result<()> {
        if self.api.token().is_some() {
            match self.api.delete("/v1/session").await {
                Ok(()) | Err(ClientError::SignedOut) => {}
                Err(error) => return Err(error),
            }
        }
        self.home.set_session(None)
    }

    /// When the server last answered this device with what vaults there are, seconds since 1970 by this device's clock;
    /// none: not since that is kept.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub fn answered_utc(&self) -> Result<Option<u64>> {
        Ok(self.db.meta(ANSWERED)?.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes))
    }

    /// Writes that wait for the server, over all vaults.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn pending(&self) -> Result<u64> {
        let mut count = 0_u64;
        for vault in self.db.vault_ids()? {
            if let Some(replica) = self.db.vault(vault, None)? {
                count = count.saturating_add(replica.pending_count()?);
            }
        }
        Ok(count)
    }

    /// The account's devices, in the order of their enrolment.
    pub fn devices(&self) -> Vec<DeviceInfo> {
        let log = self.keyring.device_log();
        let renamed = self.device_names().unwrap_or_default();
        let seen = crate::keyring::head_pins(&self.keyring).unwrap_or_default();
        let mut devices: Vec<DeviceInfo> = log
            .devices()
            .map(|device| DeviceInfo {
                id: device.id.to_string(),
                name: renamed.get(&device.id).cloned().unwrap_or_else(|| {
                    self.names.open_name(device).unwrap_or_else(|_| "(unreadable)".into())
                }),
                is_this: device.id == self.device.id(),
                is_revoked: device.revoked.is_some(),
                enrolled_at: device.enrolled_at,
                seen_utc: seen.iter().find(|doc| doc.device == device.id).map(|doc| doc.utc),
            })
            .collect();
        devices.sort_by_key(|device| device.enrolled_at);
        devices
    }

    /// Devices that joined since this device last told its owner; told once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn new_devices(&self) -> Result<Vec<DeviceInfo>> {
        const TOLD: &str = "devices-told";
        let log = self.keyring.device_log();
        let own = log.device(self.device.id()).map_or(0, |device| device.enrolled_at);
        let told =
            self.db.meta(TOLD)?.and_then(|bytes| bytes.try_into().ok()).map_or(own, u64::from_be_bytes);
        let last = log.next_index().saturating_sub(1);
        if last <= told || !self.writes() {
            return Ok(Vec::new());
        }
        self.db.set_meta(TOLD, &last.to_be_bytes())?;
        let mut devices = self.devices();
        devices.retain(|device| device.enrolled_at > told && !device.is_this && !device.is_revoked);
        Ok(devices)
    }
}

pub(crate) fn keyring_id(identity: &PublicKey) -> lockstep_proto::VaultId {
    keyring_vault_id(&identity.to_bytes())
}

pub(crate) fn keyring_setup(
    account: AccountId,
    identity: &PublicKey,
    keyring: &KeyringKeys,
    device: &Arc<DeviceKeys>,
    create: Signed,
) -> Setup {
    let mut keys = VaultKeys::new(keyring_id(identity), &keyring.vault_secret());
    for (epoch, key) in keyring.keys() {
        keys.add_epoch(epoch, key.duplicate());
    }
    let next_key = Some(NextKey { epoch: keyring.epoch(), fresh_for: keyring.epoch() });
    Setup {
        account,
        keys: Arc::new(keys),
        device: Arc::clone(device),
        create,
        genesis: None,
        next_key,
        unreadable: None,
        policies: Arc::default(),
        heals: false,
    }
}

/// Device log and key header as stored, verified.
pub(crate) fn stored_log(db: &Db, account: AccountId) -> Result<(VerifiedKeyHeader, DeviceLog)> {
    let damaged = |what: &dyn std::fmt::Display| ClientError::Damaged(format!("the home is damaged: {what}"));
    let signed = db.key_header()?.ok_or_else(|| damaged(&"there is no key header"))?;
    let header = VerifiedKeyHeader::verify(account, &signed).map_err(|error| damaged(&error))?;
    let mut log = DeviceLog::new(*header.identity());
    for entry in db.device_log()? {
        log.append(&entry).map_err(|error| damaged(&error))?;
    }
    log.check_key_header(&header).map_err(|error| damaged(&error))?;
    Ok((header, log))
}

/// Fetches the device log and key header of one moment, from index 0 or on top of what is known.
pub(crate) async fn fetch_devices(api: &Api, from: u64) -> Result<Devices> {
    let mut whole: Devices = api.get(&format!("/v1/account/devices?from={from}")).await?;
    check_page(&whole, whole.total)?;
    while from.saturating_add(count(&whole)) < whole.total {
        let next = from.saturating_add(count(&whole));
        let page: Devices = api.get(&format!("/v1/account/devices?from={next}")).await?;
        check_page(&page, whole.total)?;
        if page.entries.is_empty() {
            return Err(ClientError::Server("it withholds entries of the device log".into()));
        }
        whole.entries.extend(page.entries);
        whole.key_header = page.key_header;
    }
    Ok(whole)
}

/// A log has an end, and a page too.
fn check_page(page: &Devices, total: u64) -> Result<()> {
    let too_many =
        page.total > limits::DEVICE_LOG_ENTRIES_MAX || page.entries.len() > limits::DEVICE_LOG_PAGE_MAX;
    if too_many || page.total != total {
        return Err(ClientError::Server(
            "its device log is longer than a log can be, or grows while it is read".into(),
        ));
    }
    Ok(())
}

fn count(devices: &Devices) -> u64 {
    u64::try_from(devices.entries.len()).unwrap_or(u64::MAX)
}

/// Brings a verified log up to date and stores what is new.
pub(crate) async fn refresh_log(api: &Api, db: &Db, known: &DeviceLog) -> Result<(DeviceLog, Signed)> {
    let from = known.next_index();
    let fetched = fetch_devices(api, from).await?;
    if fetched.total < from {
        return Err(ClientError::Rollback(
            "the server went back in time: the device log is shorter than before".into(),
        ));
    }
    let mut log = known.clone();
    for entry in &fetched.entries {
        log.append(entry).map_err(|error| ClientError::Server(error.to_string()))?;
    }
    let header = VerifiedKeyHeader::verify(log.account(), &fetched.key_header)
        .map_err(|error| ClientError::Server(error.to_string()))?;
    log.check_key_header(&header).map_err(|error| ClientError::Server(error.to_string()))?;
    db.set_devices(usize::try_from(from).unwrap_or(usize::MAX), &fetched.entries, &fetched.key_header)?;
    Ok((log, fetched.key_header))
}

/// Vault-log entry 0 of a vault, as the server has it; verified with the genesis.
pub(crate) async fn fetch_create(api: &Api, vault: lockstep_proto::VaultId) -> Result<Signed> {
    let log: VaultLog = api.get(&format!("/v1/vaults/{vault}/log")).await?;
    log.0.into_iter().next().ok_or_else(|| ClientError::Server("a vault's log is empty".into()))
}
