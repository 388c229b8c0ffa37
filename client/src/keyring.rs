//! The keyring vault: which vaults there are, their keys and names, and the pins that tie views together
//! (PROTOCOL.md section 4.2).

mod first;
mod keys;
mod list;
mod pins;
mod register;
mod rotate;

pub(crate) use keys::HeldKey;
pub(crate) use pins::{Known, check_log_pins, check_pin, counting, head_pins};
pub(crate) use register::Cache;
pub(crate) use rotate::open_keyring;

use crate::account::Account;
use crate::error::{ClientError, Result};
use crate::rng;
use crate::vault::Vault;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::vault::{Parent, VaultKeys, give_birth};
use lockstep_engine::engine::Setup;
use lockstep_engine::keyring::{
    DEVICE_NAME_TYPE, DeviceNameDoc, VAULT_KEY_TYPE, VAULT_TYPE, VaultDoc, VaultKeyDoc, vault_key_name,
};
use lockstep_engine::replica::{Pinning, Policy, Replica as _};
use lockstep_engine::{NewRecord, read};
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::vault::{CreateVault, Vaults};
use lockstep_proto::cbor::{ByteArray, Wire};
use lockstep_proto::id::{DeviceId, Epoch, VaultId};
use lockstep_proto::sign::Signature;
use lockstep_proto::vault_log::files_vault_id;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The default vault.
pub const DEFAULT_VAULT: &str = "files";

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

pub(crate) fn record(record_type: &str, name: Vec<u8>, document: Vec<u8>, policy: Policy) -> NewRecord {
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
        self.open_known(vault).await
    }

    /// Opens a vault that the keyring knows.
    pub(crate) async fn open_known(&mut self, vault: VaultId) -> Result<Vault> {
        let keys = self.keys_of(vault).await?;
        let first = first_of(vault, &keys)?;
        if self.writes() {
            self.finish_birth(&first.doc).await?;
        }
        self.vault_of(&keys)
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
        self.open_held(entry.vault)
    }

    /// The same by id.
    pub(crate) fn open_held(&self, vault: VaultId) -> Result<Vault> {
        let keys = self.held_keys(vault)?;
        first_of(vault, &keys)?;
        self.vault_of(&keys)
    }

    fn vault_of(&self, keys: &[HeldKey]) -> Result<Vault> {
        let none = || ClientError::NotFound("the keyring has no key of this vault".into());
        let first = &keys.first().ok_or_else(none)?.doc;
        let mut vault_keys = VaultKeys::new(first.vault, &SecretKey::from_bytes(&first.secret.0));
        for key in keys {
            vault_keys.add_epoch(key.doc.epoch, SecretKey::from_bytes(&key.doc.key.0));
        }
        let create = self.writes().then_some(&first.create);
        let replica = self.db.vault(first.vault, create)?;
        let replica = replica.ok_or_else(|| {
            ClientError::NotFound(format!("vault {} was never synced on this device", first.vault))
        })?;
        let epoch = replica.head()?.map_or(Epoch::new(1), |head| head.tip.epoch);
        let setup = Setup {
            account: self.id(),
            keys: Arc::new(vault_keys),
            device: Arc::clone(&self.device),
            create: first.create.clone(),
            genesis: Some(first.genesis.clone()),
            next_key: self.next_key(first.vault, epoch)?,
            unreadable: None,
            policies: Arc::default(),
            heals: false,
        };
        let log = Arc::clone(self.keyring.device_log());
        let mut vault = Vault::new(setup, log, replica, Arc::clone(&self.api));
        match self.policies.as_ref().filter(|_| self.writes()) {
            Some(policies) => vault.use_policies(Some(policies))?,
            None => vault.load_policies()?,
        }
        Ok(vault)
    }

    /// Names that their owner gave to devices later.
    pub(crate) fn device_names(&self) -> Result<BTreeMap<DeviceId, String>> {
        let docs = documents::<DeviceNameDoc>(&self.keyring, DEVICE_NAME_TYPE)?;
        Ok(docs.into_iter().map(|doc| (doc.device, doc.name)).collect())
    }

    /// Vaults that the server lists and the keyring does not know; nobody reads or writes them. Whoever made them may
    /// be gone.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn unknown_vaults(&self) -> Result<Vec<VaultId>> {
        let listed: Vaults = self.api.get("/v1/vaults").await?;
        let register = self.register()?;
        let is_known = |id: &VaultId| {
            *id == self.keyring.setup.vault()
                || register.vaults.contains_key(id)
                || register.deleted.contains_key(id)
        };
        Ok(listed.0.into_iter().map(|info| info.vault).filter(|id| !is_known(id)).collect())
    }

    /// Marks a vault as deleted in the keyring, signed by the identity: one that the keyring knows, by its name or id,
    /// or one that only the server knows, by its id. One that is marked already is found, too.
    pub(crate) async fn mark_deleted(
        &mut self,
        name: &str,
        authorise: impl Fn(VaultId) -> Signature,
    ) -> Result<VaultId> {
        self.sync_keyring().await?;
        let register = self.register()?;
        let id = name.parse::<VaultId>().ok();
        let is_meant = |(vault, called): &(&VaultId, &String)| *called == name || id == Some(**vault);
        let known = register.vaults.iter().find(is_meant).map(|(vault, name)| (*vault, name.clone()));
        let marked = register.deleted.iter().find(is_meant).map(|(vault, _)| *vault);
        let (vault, name) = match (known, marked, id) {
            (Some(known), ..) => known,
            (None, Some(vault), _) => return Ok(vault),
            (None, None, Some(id)) if self.unknown_vaults().await?.contains(&id) => (id, id.to_string()),
            _ => {
                return Err(ClientError::NotFound(format!(
                    "there is no vault \"{name}\"; see: lockstep vault list"
                )));
            }
        };
        let deletion = Some(authorise(vault));
        let doc = VaultDoc { vault, name, deleted_utc: rng::now_utc(), deletion };
        let place = vault.as_bytes().to_vec();
        self.keyring.put(vec![record(VAULT_TYPE, place, doc.encode(), Policy::Overwrite)]).await?;
        self.push_keyring().await?;
        Ok(vault)
    }

    /// Makes a vault: its key becomes durable in the keyring before it exists. Who loses a race adopts the
    /// winner's.
    async fn create_vault(&mut self, name: &str) -> Result<VaultId> {
        let is_id = name.parse::<VaultId>().is_ok();
        if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) || is_id {
            return Err(ClientError::Usage(
                "a vault's name has 1 to 128 characters, none of them control, and is not like an id".into(),
            ));
        }
        let default = files_vault_id(&self.identity().to_bytes());
        // A vault that was deleted does not come back under its id.
        let is_default = name == DEFAULT_VAULT && !self.deleted_vaults()?.contains(&default);
        let vault = if is_default { default } else { VaultId::from_bytes(rng::bytes()) };
        if !self.keyring.replica.pending_of(self.key_record(vault, Epoch::new(1)))?.is_empty() {
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
            made_in: Epoch::new(1),
        };
        let name_doc = VaultDoc { vault, name: name.to_owned(), deleted_utc: 0, deletion: None };
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
        if self.holds(doc.vault)? {
            return Ok(());
        }
        let listed: Vaults = self.api.get("/v1/vaults").await?;
        if listed.0.iter().any(|info| info.vault == doc.vault) {
            return Ok(());
        }
        self.check_unlisted(doc.vault)?;
        let body = CreateVault { create: doc.create.clone(), genesis: doc.genesis.clone() };
        match self.api.post_nothing("/v1/vaults", Some(&body)).await {
            Err(error) if error.code() == Some(Code::Exists) => {
                Err(ClientError::Fork(format!("vault {} has another birth than the keyring says", doc.vault)))
            }
            other => other,
        }
    }
}

/// The key of epoch 1, without which a vault can not be opened.
fn first_of(vault: VaultId, keys: &[HeldKey]) -> Result<&HeldKey> {
    keys.first().filter(|key| key.doc.epoch == Epoch::new(1)).ok_or_else(|| changed_key(vault))
}

fn changed_key(vault: VaultId) -> ClientError {
    ClientError::Fault(format!(
        "the key record of vault {vault} was written over, and the first one can not be had"
    ))
}
