//! Vault keys as the keyring has them.

use super::Result;
use super::register::Register;
use crate::account::Account;
use lockstep_client_crypto::content::Content;
use lockstep_engine::keyring::{VAULT_KEY_TYPE, VaultKeyDoc, vault_key_name};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::{Epoch, RecordId, VaultId};

/// A vault's key of one epoch, and the keyring's own epoch under which it was written.
#[derive(Clone)]
pub(crate) struct HeldKey {
    pub(crate) doc: VaultKeyDoc,
    pub(crate) sealed_in: Epoch,
}

impl Account {
    pub(super) fn key_record(&self, vault: VaultId, epoch: Epoch) -> RecordId {
        self.keyring.setup.keys.record_id(VAULT_KEY_TYPE, &vault_key_name(vault, epoch))
    }

    /// The keys of a vault as held, ascending by epoch, from the first one on.
    pub(crate) fn held_keys(&self, vault: VaultId) -> Result<Vec<HeldKey>> {
        Ok(of_one_birth(self.register()?.keys_of(vault)))
    }

    /// The keys of a vault; those that were written over before this device saw them are fetched.
    pub(super) async fn keys_of(&self, vault: VaultId) -> Result<Vec<HeldKey>> {
        let mut keys = self.register()?.keys_of(vault);
        for version in self.unkept(VAULT_KEY_TYPE)? {
            if let Some(bytes) = self.fetch_first(&version).await? {
                keys.extend(self.key_in(&bytes).filter(|key| key.doc.vault == vault));
            }
        }
        Ok(of_one_birth(keys))
    }

    /// The vault key that an envelope of the keyring holds, if it does.
    pub(super) fn key_in(&self, bytes: &[u8]) -> Option<HeldKey> {
        let opened = self.keyring.setup.keys.open(bytes).ok()?;
        Some(HeldKey { doc: key_doc(&opened.content)?, sealed_in: opened.header.epoch })
    }
}

impl Register {
    fn keys_of(&self, vault: VaultId) -> Vec<HeldKey> {
        self.keys.get(&vault).cloned().unwrap_or_default()
    }
}

/// The vault key that a record holds, if it does.
pub(super) fn key_doc(content: &Content) -> Option<VaultKeyDoc> {
    let doc = VaultKeyDoc::decode(&content.document.0).ok()?;
    let is_its =
        content.record_type == VAULT_KEY_TYPE && content.name.0 == vault_key_name(doc.vault, doc.epoch);
    is_its.then_some(doc)
}

/// Ascending by epoch, from the key of epoch 1 on; none without it. Secret and birth are fixed at creation: a record
/// that says otherwise is no key of the vault.
fn of_one_birth(mut keys: Vec<HeldKey>) -> Vec<HeldKey> {
    keys.sort_by_key(|key| key.doc.epoch);
    keys.dedup_by_key(|key| key.doc.epoch);
    let first = keys.iter().find(|key| key.doc.epoch == Epoch::new(1)).map(|key| key.doc.clone());
    let Some(first) = first else { return Vec::new() };
    keys.retain(|key| {
        (&key.doc.secret, &key.doc.create, &key.doc.genesis) == (&first.secret, &first.create, &first.genesis)
    });
    keys
}
