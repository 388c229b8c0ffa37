//! Which vaults there are. Any device can write a key record and a name: a key whose birth nobody signed is no vault,
//! and no name stands for two of them.

use super::{DEFAULT_VAULT, Result, VaultEntry, first_of};
use crate::account::Account;
use lockstep_engine::keyring::{VAULT_TYPE, VaultDoc, VaultKeyDoc};
use lockstep_engine::read;
use lockstep_engine::replica::Replica as _;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::chain;
use lockstep_proto::id::{Seq, VaultId};
use lockstep_proto::vault_log::files_vault_id;
use std::collections::{BTreeMap, BTreeSet};

impl Account {
    /// Vaults that the keyring knows, by name.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn vaults(&self) -> Result<Vec<VaultEntry>> {
        let deleted = self.deleted_vaults()?;
        let mut ids = BTreeSet::new();
        for name in self.key_names()? {
            if let Some((id, _)) = name.split_first_chunk::<16>() {
                ids.insert(VaultId::from_bytes(*id));
            }
        }
        ids.remove(&self.keyring.setup.vault());
        ids.retain(|id| !deleted.contains(id));
        let mut vaults = BTreeSet::new();
        for id in ids {
            if self.is_vault(id)? {
                vaults.insert(id);
            }
        }
        let mut found = self.named(vaults)?;
        found.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(found)
    }

    /// Whether a device of the account signed the birth that a vault's key says. One whose key was written over may
    /// be a vault: its key is fetched when it is opened.
    fn is_vault(&self, vault: VaultId) -> Result<bool> {
        let keys = self.held_keys(vault)?;
        Ok(match first_of(vault, &keys) {
            Ok(first) => self.is_born(&first.doc),
            Err(_) => self.is_first_key_elsewhere(vault)?,
        })
    }

    fn is_born(&self, doc: &VaultKeyDoc) -> bool {
        let log = &**self.keyring.device_log();
        chain::verify_birth(doc.vault, self.id(), log.identity(), log, &doc.create, &doc.genesis).is_ok()
    }

    /// The default vault has its name, whatever the keyring says; of the others that claim a name the one that claimed
    /// it first. Who has none is called by its id.
    fn named(&self, vaults: BTreeSet<VaultId>) -> Result<Vec<VaultEntry>> {
        let default = files_vault_id(&self.identity().to_bytes());
        let mut claims: BTreeMap<String, (Seq, VaultId)> = BTreeMap::new();
        let keyring = &self.keyring;
        for row in keyring.replica.list(VAULT_TYPE, None)? {
            let Some(content) = read::open(&keyring.replica, &keyring.setup.keys, &row)? else { continue };
            let Ok(doc) = VaultDoc::decode(&content.document.0) else { continue };
            if !vaults.contains(&doc.vault) || doc.vault == default || doc.name.parse::<VaultId>().is_ok() {
                continue;
            }
            let claim = claims.entry(doc.name).or_insert((row.seq, doc.vault));
            *claim = (row.seq, doc.vault).min(*claim);
        }
        if vaults.contains(&default) {
            claims.insert(DEFAULT_VAULT.into(), (Seq::new(0), default));
        }
        let names: BTreeMap<VaultId, String> =
            claims.into_iter().map(|(name, (_, vault))| (vault, name)).collect();
        let entry = |vault: VaultId| VaultEntry {
            vault,
            name: names.get(&vault).cloned().unwrap_or_else(|| vault.to_string()),
        };
        Ok(vaults.into_iter().map(entry).collect())
    }
}
