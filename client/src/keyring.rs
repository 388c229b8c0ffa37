//! The keyring vault: which vaults there are, their keys and names, and the pins that tie views together
//! (PROTOCOL.md section 4.2).

use crate::account::Account;
use crate::error::{ClientError, Result};
use crate::rng;
use crate::vault::Vault;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::vault::{Parent, VaultKeys, give_birth};
use lockstep_engine::engine::Setup;
use lockstep_engine::keyring::{
    HEAD_PIN_TYPE, HeadPinDoc, VAULT_KEY_TYPE, VAULT_TYPE, VaultDoc, VaultKeyDoc, vault_key_name,
};
use lockstep_engine::replica::{Pinning, Policy, Replica as _};
use lockstep_engine::{NewRecord, read};
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::vault::{CreateVault, Entries, GetEnvelopes, Vaults};
use lockstep_proto::cbor::{ByteArray, Wire};
use lockstep_proto::device_log::Pin;
use lockstep_proto::id::{Epoch, RecordId, Revision, VaultId};
use lockstep_proto::vault_log::files_vault_id;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The default vault.
pub const DEFAULT_VAULT: &str = "files";
const PIN_INTERVAL_SECONDS: u64 = 24 * 3600;

/// A vault of the account.
#[derive(Debug, Clone)]
pub struct VaultEntry {
    /// Its id.
    pub vault: VaultId,
    /// Its name.
    pub name: String,
}

fn documents<T: Wire>(keyring: &Vault, record_type: &str) -> Result<Vec<T>> {
    let mut found = Vec::new();
    for row in keyring.replica.list(record_type, None)? {
        if let Some(content) = read::open(&keyring.replica, &keyring.setup.keys, &row)?
            && let Ok(document) = T::decode(&content.document.0)
        {
            found.push(document);
        }
    }
    Ok(found)
}

fn record(record_type: &str, name: Vec<u8>, document: Vec<u8>, policy: Policy) -> NewRecord {
    NewRecord {
        record_type: record_type.into(),
        name,
        schema: 1,
        document: Some(document),
        blobs: Vec::new(),
        policy,
        pin: Pinning::None,
        expected: None,
    }
}

impl Account {
    /// Vaults that the keyring knows, by name.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn vaults(&self) -> Result<Vec<VaultEntry>> {
        let names: BTreeMap<VaultId, String> = documents::<VaultDoc>(&self.keyring, VAULT_TYPE)?
            .into_iter()
            .map(|doc| (doc.vault, doc.name))
            .collect();
        let mut ids = std::collections::BTreeSet::new();
        // Deletions of a key do not count: it is write-once.
        for row in self.keyring.replica.tagged(VAULT_KEY_TYPE, b"")? {
            if let Some(content) = read::open(&self.keyring.replica, &self.keyring.setup.keys, &row)?
                && let Some((id, _)) = content.name.0.split_first_chunk::<16>()
            {
                ids.insert(VaultId::from_bytes(*id));
            }
        }
        let mut found: Vec<VaultEntry> = ids
            .into_iter()
            .map(|vault| VaultEntry {
                vault,
                name: names.get(&vault).cloned().unwrap_or_else(|| vault.to_string()),
            })
            .collect();
        found.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(found)
    }

    /// Opens a vault by name; with `create`, makes it if there is none.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], and what the server's lies lead to.
    pub async fn open_vault(&mut self, name: &str, create: bool) -> Result<Vault> {
        let known = self.vaults()?.into_iter().find(|entry| entry.name == name);
        let vault = match known {
            Some(entry) => entry.vault,
            None if create => self.create_vault(name).await?,
            None => {
                return Err(ClientError::NotFound(format!(
                    "there is no vault \"{name}\"; see: lockstep vault list"
                )));
            }
        };
        let doc = match self.vault_key(vault)? {
            Some(doc) => doc,
            None => self.first_vault_key(vault).await?,
        };
        if self.writes() {
            self.finish_birth(&doc).await?;
        }
        self.vault_of(&doc)
    }

    /// Opens a vault over what is held here, without asking the server.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn open_vault_locally(&self, name: &str) -> Result<Vault> {
        let known = self.vaults()?.into_iter().find(|entry| entry.name == name);
        let entry = known.ok_or_else(|| {
            ClientError::NotFound(format!("there is no vault \"{name}\"; see: lockstep vault list"))
        })?;
        let doc = self.vault_key(entry.vault)?.ok_or_else(|| changed_key(entry.vault))?;
        self.vault_of(&doc)
    }

    fn key_record(&self, vault: VaultId) -> RecordId {
        self.keyring.setup.keys.record_id(VAULT_KEY_TYPE, &vault_key_name(vault, Epoch::new(1)))
    }

    /// The key of a vault; none if somebody wrote over it, and the first one has to be fetched.
    fn vault_key(&self, vault: VaultId) -> Result<Option<VaultKeyDoc>> {
        let keys = &self.keyring.setup.keys;
        let record = self.key_record(vault);
        if self.keyring.replica.record(record)?.is_some_and(|row| row.revision != Revision::new(1)) {
            return Ok(None);
        }
        let current = read::current(&self.keyring.replica, keys, record)?
            .ok_or_else(|| ClientError::NotFound(format!("the keyring has no key of vault {vault}")))?;
        parse_key(vault, &current.content.document.0).map(Some)
    }

    /// A vault key is write-once: whatever was written later, revision 1 counts.
    async fn first_vault_key(&self, vault: VaultId) -> Result<VaultKeyDoc> {
        let record = self.key_record(vault);
        let replica = &self.keyring.replica;
        let mut place = replica.record(record)?.map(|row| row.seq);
        let mut first = None;
        while let Some(seq) = place {
            first = replica.version(seq, record)?;
            place = first.and_then(|version| version.previous_seq);
        }
        let version = first.ok_or_else(|| changed_key(vault))?;
        let path = format!("/v1/vaults/{}/envelopes/get", self.keyring.setup.vault());
        let page: Entries = self.api.post(&path, &GetEnvelopes(vec![(version.seq, record)])).await?;
        let entry = page.entries.into_iter().next().ok_or_else(|| changed_key(vault))?;
        let content = read::open_version(replica, &self.keyring.setup, &version, &entry.envelope.0)?;
        parse_key(vault, &content.ok_or_else(|| changed_key(vault))?.document.0)
    }

    fn vault_of(&self, doc: &VaultKeyDoc) -> Result<Vault> {
        let keys = VaultKeys::new(doc.vault, &SecretKey::from_bytes(&doc.secret.0))
            .with_epoch(doc.epoch, SecretKey::from_bytes(&doc.key.0));
        let setup = Setup {
            account: self.id(),
            keys: Arc::new(keys),
            device: Arc::clone(&self.device),
            create: doc.create.clone(),
            genesis: Some(doc.genesis.clone()),
        };
        let create = self.writes().then_some(&doc.create);
        let replica = self.db.vault(doc.vault, create)?;
        let replica = replica.ok_or_else(|| {
            ClientError::NotFound(format!("vault {} was never synced on this device", doc.vault))
        })?;
        Ok(Vault::new(setup, Arc::clone(self.keyring.device_log()), replica, Arc::clone(&self.api)))
    }

    /// Makes a vault: its key becomes durable in the keyring before it exists. Who loses a race adopts the
    /// winner's.
    async fn create_vault(&mut self, name: &str) -> Result<VaultId> {
        if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
            return Err(ClientError::Usage(
                "a vault's name has 1 to 128 characters, none of them control".into(),
            ));
        }
        let identity = self.identity().to_bytes();
        let vault =
            if name == DEFAULT_VAULT { files_vault_id(&identity) } else { VaultId::from_bytes(rng::bytes()) };
        if !self.keyring.replica.pending_of(self.key_record(vault))?.is_empty() {
            // An earlier try waits to be sent.
            self.sync_keyring().await?;
            return Ok(vault);
        }
        let listed: Vaults = self.api.get("/v1/vaults").await?;
        if listed.0.iter().any(|info| info.vault == vault) {
            return Err(ClientError::Rollback(format!(
                "the server went back in time: the keyring is older than vault {vault}"
            )));
        }
        let mut generator = rng::system();
        let log = self.keyring.device_log();
        let parent = Parent {
            account: self.id(),
            identity: log.identity(),
            device_log_index: log.next_index().saturating_sub(1),
            device_log_head: log.head(),
            utc: rng::now_utc(),
        };
        let birth = give_birth(vault, &parent, &self.device);
        let doc = VaultKeyDoc {
            vault,
            epoch: Epoch::new(1),
            key: ByteArray(*SecretKey::generate(&mut generator).expose()),
            secret: ByteArray(*SecretKey::generate(&mut generator).expose()),
            create: birth.create,
            genesis: birth.genesis,
        };
        let name_doc = VaultDoc { vault, name: name.to_owned() };
        let records = vec![
            record(VAULT_KEY_TYPE, vault_key_name(vault, doc.epoch), doc.encode(), Policy::AdoptCommitted),
            record(VAULT_TYPE, vault.as_bytes().to_vec(), name_doc.encode(), Policy::AdoptCommitted),
        ];
        self.keyring.put(records).await?;
        self.sync_keyring().await?;
        Ok(vault)
    }

    /// Posts a vault's birth if the server has not got it: also finishes what another device began.
    async fn finish_birth(&mut self, doc: &VaultKeyDoc) -> Result<()> {
        let held = match self.db.vault(doc.vault, None)? {
            Some(replica) => replica.head()?,
            None => None,
        };
        if held.is_some() {
            return Ok(());
        }
        let listed: Vaults = self.api.get("/v1/vaults").await?;
        if listed.0.iter().any(|info| info.vault == doc.vault) {
            return Ok(());
        }
        if self.pins()?.iter().any(|pin| pin.vault == doc.vault) {
            return Err(ClientError::Rollback(format!(
                "the server went back in time: it does not list vault {}",
                doc.vault
            )));
        }
        let body = CreateVault { create: doc.create.clone(), genesis: doc.genesis.clone() };
        match self.api.post_nothing("/v1/vaults", Some(&body)).await {
            Err(error) if error.code() == Some(Code::Exists) => {
                Err(ClientError::Fork(format!("vault {} has another birth than the keyring says", doc.vault)))
            }
            other => other,
        }
    }

    /// Every pin that is known: of the device log and of the keyring.
    pub(crate) fn pins(&self) -> Result<Vec<Pin>> {
        let mut pins = self.keyring.device_log().pins().to_vec();
        for doc in self.head_pins()? {
            pins.extend(doc.heads);
        }
        Ok(pins)
    }

    fn head_pins(&self) -> Result<Vec<HeadPinDoc>> {
        head_pins(&self.keyring)
    }

    /// Pulls the keyring, checks every pin against everything that is held, then pushes.
    ///
    /// # Errors
    /// [`ClientError::Rollback`], [`ClientError::Fork`] and the sync's.
    pub async fn sync_keyring(&mut self) -> Result<()> {
        self.check_heads().await?;
        self.keyring.pull().await?;
        check_log_pins(&self.keyring)?;
        self.check_pins_of(&self.keyring, true)?;
        let keyring = self.keyring.setup.vault();
        let pins = self.pins()?;
        for vault in self.db.vault_ids()? {
            if vault != keyring
                && let Some(replica) = self.db.vault(vault, None)?
            {
                for pin in pins.iter().filter(|pin| pin.vault == vault) {
                    check_pin(&replica, pin, false)?;
                }
            }
        }
        self.keyring.sync().await?;
        Ok(())
    }

    /// A server whose heads lie behind what is held, of any vault, is not believed in any: otherwise this
    /// device would follow it on a branch that the newer data knows nothing of.
    async fn check_heads(&self) -> Result<()> {
        if !self.writes() {
            return Ok(());
        }
        let listed: Vaults = self.api.get("/v1/vaults").await?;
        for vault in self.db.vault_ids()? {
            let Some(replica) = self.db.vault(vault, None)? else { continue };
            let Some(head) = replica.head()? else { continue };
            let back = "the server went back in time";
            match listed.0.iter().find(|info| info.vault == vault) {
                None => return Err(ClientError::Rollback(format!("{back}: it does not list vault {vault}"))),
                Some(info) if info.seq < head.tip.seq => {
                    return Err(ClientError::Rollback(format!(
                        "{back}: vault {vault} ends at commit {}, this device verified commit {}",
                        info.seq, head.tip.seq
                    )));
                }
                Some(info) if info.seq == head.tip.seq && info.head != head.tip.hash => {
                    return Err(ClientError::Fork(format!(
                        "commit {} of vault {vault} is another",
                        info.seq
                    )));
                }
                Some(_) => {}
            }
        }
        // A longer chain may still be another one: what is held is pulled first, and the keyring after it.
        for entry in self.vaults()? {
            let Ok(mut vault) = self.open_vault_locally(&entry.name) else { continue };
            // What is wrong with one vault only is told when that vault is used.
            if let Err(error @ (ClientError::Rollback(_) | ClientError::Fork(_))) = vault.pull().await {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Pulls a vault, checks it against every pin, and only then pushes to it.
    ///
    /// # Errors
    /// [`ClientError::Rollback`], [`ClientError::Fork`] and the sync's.
    pub async fn sync_vault(&self, vault: &mut Vault) -> Result<()> {
        vault.pull().await?;
        self.check_pins_of(vault, true)?;
        vault.sync().await?;
        Ok(())
    }

    /// Checks a vault against every pin; after a pull (`pulled`) none may lie beyond its head.
    ///
    /// # Errors
    /// [`ClientError::Rollback`], [`ClientError::Fork`].
    pub fn check_pins_of(&self, vault: &Vault, pulled: bool) -> Result<()> {
        let id = vault.setup.vault();
        for pin in self.pins()?.iter().filter(|pin| pin.vault == id) {
            check_pin(&vault.replica, pin, pulled)?;
        }
        Ok(())
    }

    /// Writes this device's head pin if it is due: a day old, or a vault is not in it yet.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn pin_heads(&mut self, force: bool) -> Result<()> {
        let mut heads = Vec::new();
        for vault in self.db.vault_ids()? {
            if let Some(replica) = self.db.vault(vault, None)?
                && let Some(head) = replica.head()?
            {
                heads.push(Pin { vault, seq: head.tip.seq, head: head.tip.hash });
            }
        }
        let own = self.head_pins()?.into_iter().find(|doc| doc.device == self.device.id());
        let now = rng::now_utc();
        let is_due = own.is_none_or(|doc| {
            now.saturating_sub(doc.utc) >= PIN_INTERVAL_SECONDS
                || heads.iter().any(|pin| doc.heads.iter().all(|known| known.vault != pin.vault))
        });
        if !is_due && !force {
            return Ok(());
        }
        let log = self.keyring.device_log();
        let doc = HeadPinDoc {
            device: self.device.id(),
            utc: now,
            device_log_index: log.next_index().saturating_sub(1),
            device_log_head: log.head(),
            heads,
        };
        let name = self.device.id().as_bytes().to_vec();
        self.keyring.put(vec![record(HEAD_PIN_TYPE, name, doc.encode(), Policy::Overwrite)]).await?;
        self.sync_keyring().await
    }
}

fn changed_key(vault: VaultId) -> ClientError {
    ClientError::Fault(format!(
        "the key record of vault {vault} was written over, and the first one can not be had"
    ))
}

fn parse_key(vault: VaultId, document: &[u8]) -> Result<VaultKeyDoc> {
    let doc = VaultKeyDoc::decode(document).map_err(|error| ClientError::Damaged(error.to_string()))?;
    if doc.vault == vault && doc.epoch == Epoch::new(1) {
        Ok(doc)
    } else {
        Err(ClientError::Damaged(format!("the keyring's record of vault {vault} names another vault")))
    }
}

/// Head pins that count: record name, document and envelope name the same device.
pub(crate) fn head_pins(keyring: &Vault) -> Result<Vec<HeadPinDoc>> {
    let mut found = Vec::new();
    for row in keyring.replica.list(HEAD_PIN_TYPE, None)? {
        let Some(bytes) = keyring.replica.envelope(row.record)? else { continue };
        let Ok(opened) = keyring.setup.keys.open(&bytes) else { continue };
        let Ok(doc) = HeadPinDoc::decode(&opened.content.document.0) else { continue };
        if opened.header.device == doc.device && opened.content.name.0 == doc.device.as_bytes() {
            found.push(doc);
        }
    }
    Ok(found)
}

/// The device log passes through every place of it that was pinned.
pub(crate) fn check_log_pins(keyring: &Vault) -> Result<()> {
    let log = keyring.device_log();
    for doc in head_pins(keyring)? {
        match log.hash_at(doc.device_log_index) {
            Some(hash) if hash == doc.device_log_head => {}
            Some(_) => return Err(ClientError::Fork("the device log is not the one that was pinned".into())),
            None => {
                return Err(ClientError::Rollback(
                    "the server went back in time: the device log is shorter than was pinned".into(),
                ));
            }
        }
    }
    Ok(())
}

fn check_pin(replica: &crate::replica::VaultReplica, pin: &Pin, pulled: bool) -> Result<()> {
    let vault = pin.vault;
    match replica.commit_hash(pin.seq)? {
        Some(hash) if hash == pin.head => Ok(()),
        Some(_) => Err(ClientError::Fork(format!(
            "commit {} of vault {vault} is not the one that was pinned",
            pin.seq
        ))),
        None if pulled => Err(ClientError::Rollback(format!(
            "the server went back in time: vault {vault} ends before commit {}, which one of your devices verified",
            pin.seq
        ))),
        None => Ok(()),
    }
}
