//! Reading an archive: everything is verified in the order of PROTOCOL.md section 10.1 before anything is given out.

use super::index::{Index, Keys, Scanned};
use super::scratch::Scratch;
use super::serve::{Cuts, Serve};
use super::wanted::chain_of;
use super::{Progress, of_archive, refused};
use crate::account::{Account, Ignored, keyring_id, keyring_setup};
use crate::api::Api;
use crate::error::{ClientError, Result};
use crate::home::{AccountFile, Home};
use crate::keyring::{Known, check_log_pins, check_pin};
use crate::kit::Kit;
use crate::replica::Db;
use crate::rng;
use crate::vault::Vault;
use lockstep_client_crypto::CryptoError;
use lockstep_client_crypto::account::{Credential, KeyringKeys, UnlockedAccount};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::local::LocalKeys;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_engine::replica::Replica as _;
use lockstep_proto::archive::{ArchiveHeader, verify_end};
use lockstep_proto::device_log::{DeviceLog, Pin};
use lockstep_proto::id::{DeviceId, VaultId};
use lockstep_proto::key_header::VerifiedKeyHeader;
use lockstep_proto::recovery::{Checkpoint, account_fingerprint};
use lockstep_proto::sign::PublicKey;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, PoisonError};

/// Rounds in which a vault may show one more unreadable epoch, or one more fault.
const ROUNDS_MAX: usize = 64;

/// What opens an archive.
pub enum Key<'a> {
    /// The passphrase.
    Passphrase(&'a Passphrase),
    /// The recovery key, with the checkpoint of its kit if it came with one.
    Recovery(&'a Kit),
    /// The keyring's keys as a device of the account holds them.
    Held(KeyringKeys),
}

/// Devices whose head pins are not believed, each by the beginning of its id.
pub type Ignore<'a> = &'a [String];

/// A vault of an archive, verified.
pub struct OpenedVault {
    /// Its name.
    pub name: String,
    /// The vault; it pulls from the archive.
    pub vault: Vault,
}

/// An archive whose chains are verified.
pub struct Opened {
    /// Who made it and when, by its own word.
    pub header: ArchiveHeader,
    /// Name of the device that made it.
    pub maker: String,
    /// Index of the last device-log entry.
    pub log_index: u64,
    /// The account's fingerprint, as `lockstep fingerprint` shows it.
    pub fingerprint: String,
    /// Digest of the archive.
    pub digest: lockstep_proto::Digest,
    /// Vaults that can be read.
    pub vaults: Vec<OpenedVault>,
    /// What can not be read, for people.
    pub problems: Vec<String>,
    pub(crate) account: Account,
    pub(crate) index: Arc<Index>,
    _scratch: Scratch,
}

/// Opens an archive. `folder` is where a scratch folder may be made.
///
/// # Errors
/// [`ClientError::Damaged`] for an archive that is not to be believed, [`ClientError::WrongPassphrase`],
/// [`ClientError::WrongRecoveryKey`].
pub async fn open(
    path: &Path,
    folder: &Path,
    key: Key<'_>,
    ignore: Ignore<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Opened> {
    let scratch = Scratch::new(folder)?;
    let mut walked = |done, whole| progress(Progress { vaults: (0, 0), bytes: (done, whole) });
    let (index, scanned) = Index::scan(path, scratch.path(), &mut walked)?;
    let log = verify_log(&scanned)?;
    let maker = log.device(scanned.header.device).filter(|device| device.revoked.is_none());
    let maker = maker.ok_or_else(|| refused(&"its maker is no device of the account, or was revoked"))?;
    verify_end(&scanned.end, &scanned.header, &scanned.items, &maker.sign_key)?;
    let checkpoint = match &key {
        Key::Recovery(kit) => kit_of(kit, &scanned.header)?,
        _ => None,
    };
    let names = unlock(&scanned, key)?;
    let maker = names.open_name(maker).unwrap_or_else(|_| "(unreadable)".into());
    let cuts = Cuts::default();
    let serve = Serve { index: Arc::clone(&index), cuts: Arc::clone(&cuts) };
    let mut reader = Reader {
        account: stand_in_account(&scratch, serve, &index, &scanned, log, names)?,
        index: Arc::clone(&index),
        cuts,
        problems: Vec::new(),
        vaults: Vec::new(),
    };
    reader.keyring(checkpoint.as_ref(), ignore).await.map_err(of_archive)?;
    reader.vaults(progress).await?;
    reader.finish(scanned, maker, scratch)
}

/// Steps up to the device log: nothing secret is needed.
fn verify_log(scanned: &Scanned) -> Result<DeviceLog> {
    let header = &scanned.header;
    let identity = PublicKey::from_bytes(header.identity.as_bytes());
    let identity = identity.ok_or_else(|| refused(&"its identity key is not valid"))?;
    let mut log = DeviceLog::new(identity);
    for entry in &scanned.devices {
        log.append(entry).map_err(|error| refused(&error))?;
    }
    match &scanned.keys {
        Keys::Whole(signed) => {
            let verified =
                VerifiedKeyHeader::verify(header.account, signed).map_err(|error| refused(&error))?;
            log.check_key_header(&verified).map_err(|error| refused(&error))?;
        }
        Keys::Bare(bare) => {
            let is_its = (bare.account, bare.identity) == (header.account, header.identity)
                && (bare.counter, bare.keyring.epoch) == (log.next_index(), log.keyring_epoch());
            if !is_its {
                return Err(refused(&"its keys do not belong to its device log"));
            }
        }
    }
    Ok(log)
}

fn kit_of(kit: &Kit, header: &ArchiveHeader) -> Result<Option<Checkpoint>> {
    let accounts = [kit.account, kit.checkpoint.as_ref().map(|checkpoint| checkpoint.account)];
    if accounts.iter().flatten().any(|account| *account != header.account) {
        return Err(ClientError::Usage("the kit belongs to another account than the archive".into()));
    }
    Ok(kit.checkpoint.clone())
}

fn unlock(scanned: &Scanned, key: Key<'_>) -> Result<KeyringKeys> {
    let unlocked = match (&scanned.keys, key) {
        (_, Key::Held(keys)) => return Ok(keys),
        (Keys::Bare(_), Key::Passphrase(_)) => {
            return Err(ClientError::Usage(
                "this archive was made without the passphrase's wrap, so that nobody can try passphrases on it; only \
                 the recovery key opens it: say --recovery-key-file F"
                    .into(),
            ));
        }
        (Keys::Whole(signed), key) => {
            let header =
                VerifiedKeyHeader::verify(scanned.header.account, signed).map_err(|error| refused(&error))?;
            match key {
                Key::Passphrase(passphrase) => {
                    UnlockedAccount::unlock(&header, Credential::Passphrase(passphrase))
                        .map_err(|error| wrong(error, ClientError::WrongPassphrase))?
                }
                Key::Recovery(kit) => UnlockedAccount::unlock(&header, Credential::Recovery(&kit.recovery))
                    .map_err(|error| wrong(error, ClientError::WrongRecoveryKey))?,
                Key::Held(keys) => return Ok(keys),
            }
        }
        (Keys::Bare(bare), Key::Recovery(kit)) => UnlockedAccount::unlock_bare(bare, &kit.recovery)
            .map_err(|error| wrong(error, ClientError::WrongRecoveryKey))?,
    };
    Ok(unlocked.into_keyring())
}

fn wrong(error: CryptoError, credential: ClientError) -> ClientError {
    match error {
        CryptoError::Open(_) => credential,
        other => other.into(),
    }
}

/// The account as the archive shows it: a home that is thrown away, and a device that nobody enrolled and that signs
/// nothing.
fn stand_in_account(
    scratch: &Scratch,
    serve: Serve,
    index: &Index,
    scanned: &Scanned,
    log: DeviceLog,
    names: KeyringKeys,
) -> Result<Account> {
    let home = Home::open(scratch.path())?;
    let device = Arc::new(DeviceKeys::generate(&mut rng::system())?);
    let api = Api::without_server(Box::new(serve))?;
    let db = Db::open(&home.replica_path(), LocalKeys::new(device.index_key()), true)?;
    let id = keyring_id(log.identity());
    let create = index.vault(id)?.and_then(|vault| vault.log.into_iter().next());
    let create = create.ok_or_else(|| refused(&"it has no keyring"))?;
    let replica = db.vault(id, Some(&create))?.ok_or_else(|| refused(&"it has no keyring"))?;
    let setup = keyring_setup(scanned.header.account, log.identity(), &names, &device, create);
    let keyring = Vault::new(setup, Arc::new(log), replica, Arc::clone(&api)).with_gaps();
    let file = AccountFile {
        server: String::new(),
        name: String::new(),
        account: scanned.header.account.to_string(),
        device: device.id().to_string(),
        enrolled: true,
    };
    Ok(Account {
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

struct Reader {
    account: Account,
    index: Arc<Index>,
    cuts: Cuts,
    problems: Vec<String>,
    vaults: Vec<OpenedVault>,
}

impl Reader {
    /// The keyring: chain, records, and the pins that bind everything.
    async fn keyring(&mut self, checkpoint: Option<&Checkpoint>, ignore: Ignore<'_>) -> Result<()> {
        let account = &mut self.account;
        account.ignored =
            Ignored::Some(ignore).devices(account.keyring.device_log(), DeviceId::from_bytes([0; 16]))?;
        let fault = pull(&mut account.keyring, &self.cuts).await?;
        self.problems.extend(fault.map(|fault| format!("keyring: {fault}")));
        check_log(&account.keyring, &self.index)?;
        if let Some(checkpoint) = checkpoint {
            let log = account.keyring.device_log();
            if log.hash_at(checkpoint.device_log_index) != Some(checkpoint.device_log_head) {
                return Err(refused(&"its device log is older than the kit's checkpoint, or another one"));
            }
            let pin = Pin {
                vault: account.keyring.setup.vault(),
                seq: checkpoint.keyring_seq,
                head: checkpoint.keyring_head,
            };
            check_pin(&account.keyring.replica, &Known { pin, by: None }, true)?;
        }
        account.keep_first_versions().await?;
        check_log_pins(&account.keyring, &account.ignored).map_err(with_way_out)?;
        account.check_pins_of(&account.keyring, true).map_err(with_way_out)?;
        account.check_late(&account.keyring)
    }

    async fn vaults(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let mut entries = self.account.vaults()?;
        entries.sort_by_key(|entry| entry.vault);
        let here: BTreeSet<VaultId> = self.index.vaults()?.into_iter().collect();
        let keyring = self.account.keyring.setup.vault();
        let deleted = self.account.deleted_vaults()?;
        for vault in &here {
            if *vault != keyring
                && entries.iter().all(|entry| entry.vault != *vault)
                && !deleted.contains(vault)
            {
                self.problems.push(format!("vault {vault}: the keyring has no key of it"));
            }
        }
        let total = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        for (entry, done) in entries.into_iter().zip(0_u64..) {
            progress(Progress { vaults: (done, total), bytes: (0, 0) });
            if !here.contains(&entry.vault) {
                self.problems.push(format!("vault {}: it is not in the archive", entry.name));
                continue;
            }
            self.one_vault(&entry.name, entry.vault).await.map_err(of_archive)?;
        }
        Ok(())
    }

    async fn one_vault(&mut self, name: &str, id: VaultId) -> Result<()> {
        let mut vault = match self.account.open_held(id) {
            Ok(vault) => vault.with_gaps(),
            Err(error @ (ClientError::Fault(_) | ClientError::NotFound(_))) => {
                self.problems.push(format!("vault {name}: {error}"));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let fault = pull(&mut vault, &self.cuts).await?;
        let has_fault = fault.is_some();
        self.problems.extend(fault.map(|fault| format!("vault {name}: {fault}")));
        if !has_fault {
            check_log(&vault, &self.index)?;
        }
        // What the identity signed binds always; what one device says can be one faulty device's word.
        for known in self.account.pins()?.iter().filter(|known| known.pin.vault == id) {
            let Err(error) = check_pin(&vault.replica, known, !has_fault) else { continue };
            if known.by.is_none() {
                return Err(error);
            }
            self.problems.push(format!("vault {name}, left out: {}", with_way_out(error)));
            return Ok(());
        }
        self.vaults.push(OpenedVault { name: name.to_owned(), vault });
        Ok(())
    }

    fn finish(self, scanned: Scanned, maker: String, scratch: Scratch) -> Result<Opened> {
        let log = self.account.keyring.device_log();
        let log_index = log.next_index().saturating_sub(1);
        let mut heads = Vec::new();
        for vault in
            std::iter::once(&self.account.keyring).chain(self.vaults.iter().map(|opened| &opened.vault))
        {
            if let Some(head) = vault.replica.head()? {
                heads.push((vault.setup.vault(), head.tip.seq, head.tip.hash));
            }
        }
        heads.sort_unstable();
        Ok(Opened {
            maker,
            log_index,
            fingerprint: account_fingerprint(self.account.id(), log_index, log.head(), &heads),
            digest: scanned.items.digest(),
            header: scanned.header,
            vaults: self.vaults,
            problems: self.problems,
            account: self.account,
            index: self.index,
            _scratch: scratch,
        })
    }
}

fn with_way_out(error: ClientError) -> ClientError {
    let hint = "if that device is stolen or faulty: --ignore-pins-of DEVICE, by the beginning of its id";
    match error {
        ClientError::Rollback(what) => ClientError::Rollback(format!("{}; {hint}", before_blame(&what))),
        ClientError::Fork(what) => ClientError::Fork(format!("{}; {hint}", before_blame(&what))),
        other => other,
    }
}

/// What is said of a device's pin, without the advice for an account that is at hand.
fn before_blame(text: &str) -> &str {
    text.split(". Should that device").next().unwrap_or(text)
}

/// Pulls a vault out of the archive. A fault ends it at the last good commit, and is given back.
async fn pull(vault: &mut Vault, cuts: &Cuts) -> Result<Option<String>> {
    let id = vault.setup.vault();
    let mut fault = None;
    for _ in 0..ROUNDS_MAX {
        match vault.pull().await {
            Ok(_) => return Ok(fault),
            Err(ClientError::Fault(what)) if fault.is_none() => {
                let Some(head) = vault.replica.head()? else { return Err(refused(&what)) };
                cuts.lock().unwrap_or_else(PoisonError::into_inner).insert(id, head.tip.seq);
                fault = Some(what);
            }
            // A key that the keyring does not have: what is under it is quarantined.
            Err(error @ ClientError::KeysBehind(_)) => match vault.replica.head()? {
                Some(head) if vault.setup.unreadable != Some(head.tip.epoch) => {
                    vault.take_unreadable(head.tip.epoch);
                }
                _ => return Err(error),
            },
            Err(error) => return Err(error),
        }
    }
    Err(refused(&"its keys do not come to rest"))
}

/// The vault's item holds the log that its chain amounts to.
fn check_log(vault: &Vault, index: &Index) -> Result<()> {
    let id = vault.setup.vault();
    let item = index.vault(id)?.ok_or_else(|| refused(&"a vault is missing"))?;
    let rotations = chain_of(&vault.replica)?.rotations;
    let log = std::iter::once(&vault.setup.create).chain(&rotations);
    if log.eq(&item.log) {
        Ok(())
    } else {
        Err(refused(&format!("the log of vault {id} is not that of its chain")))
    }
}
