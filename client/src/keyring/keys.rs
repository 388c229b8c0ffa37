//! Vault keys as the keyring has them. Such a record is write-once: whatever is written over it, revision 1 counts. It
//! is kept here when it is first seen, and fetched if it was written over before.

use super::Result;
use crate::account::Account;
use crate::error::ClientError;
use lockstep_client_crypto::content::Content;
use lockstep_engine::keyring::{VAULT_KEY_TYPE, VaultKeyDoc, vault_key_name};
use lockstep_engine::read;
use lockstep_engine::replica::{RecordRow, Replica as _, VersionRow};
use lockstep_proto::api::vault::{Entries, GetEnvelopes};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::envelope;
use lockstep_proto::id::{Epoch, RecordId, Revision, VaultId};
use std::collections::BTreeSet;

/// A vault's key of one epoch, and the keyring's own epoch under which it was written.
pub(crate) struct HeldKey {
    pub(crate) doc: VaultKeyDoc,
    pub(crate) sealed_in: Epoch,
}

/// Where the first envelope of a vault key is kept.
fn first_place(record: RecordId) -> String {
    format!("first-key {record}")
}

impl Account {
    pub(super) fn key_record(&self, vault: VaultId, epoch: Epoch) -> RecordId {
        self.keyring.setup.keys.record_id(VAULT_KEY_TYPE, &vault_key_name(vault, epoch))
    }

    /// The keys of a vault as held, ascending by epoch.
    pub(crate) fn held_keys(&self, vault: VaultId) -> Result<Vec<HeldKey>> {
        let mut found = Vec::new();
        for row in self.key_rows()? {
            if let Some(bytes) = self.first_envelope(&row)? {
                found.extend(self.key_in(vault, &bytes));
            }
        }
        // A key of this device's own that waits for the server.
        for row in self.keyring.replica.pending(usize::MAX)? {
            if let Ok(content) = Content::decode(&row.content)
                && let Some(doc) = key_doc(vault, &content)
                && found.iter().all(|key| key.doc.epoch != doc.epoch)
            {
                found.push(HeldKey { doc, sealed_in: Epoch::new(0) });
            }
        }
        Ok(of_one_birth(found))
    }

    /// The keys of a vault; those that were written over before this device saw them are fetched.
    pub(super) async fn keys_of(&self, vault: VaultId) -> Result<Vec<HeldKey>> {
        let mut keys = self.held_keys(vault)?;
        for version in self.unkept_keys()? {
            if let Some(bytes) = self.fetch_first(&version).await? {
                keys.extend(self.key_in(vault, &bytes));
            }
        }
        Ok(of_one_birth(keys))
    }

    /// Keeps the first version of every vault key: it counts whatever is written over it.
    ///
    /// # Errors
    /// [`ClientError`] if the server can not be asked.
    pub(super) async fn keep_first_keys(&self) -> Result<()> {
        if !self.writes() {
            return Ok(());
        }
        for row in self.key_rows()? {
            let place = first_place(row.record);
            if row.revision == Revision::new(1)
                && let Some(bytes) = self.keyring.replica.envelope(row.record)?
                && self.db.meta(&place)?.as_ref() != Some(&bytes)
            {
                self.db.set_meta(&place, &bytes)?;
            }
        }
        for version in self.unkept_keys()? {
            if let Some(bytes) = self.fetch_first(&version).await? {
                self.db.set_meta(&first_place(version.record), &bytes)?;
            }
        }
        Ok(())
    }

    /// Names of the vault keys that are held.
    pub(super) fn key_names(&self) -> Result<Vec<Vec<u8>>> {
        let keyring = &self.keyring;
        let mut names = Vec::new();
        for row in self.key_rows()? {
            let first = self.first_envelope(&row)?.and_then(|bytes| keyring.setup.keys.open(&bytes).ok());
            let content = match first {
                Some(opened) => Some(opened.content),
                None => read::open(&keyring.replica, &keyring.setup.keys, &row)?,
            };
            names.extend(content.filter(|content| content.record_type == VAULT_KEY_TYPE).map(|it| it.name.0));
        }
        Ok(names)
    }

    /// Records of vault keys. One that was written over with what does not open may be a key, too.
    fn key_rows(&self) -> Result<Vec<RecordRow>> {
        let replica = &self.keyring.replica;
        let quarantined = replica.quarantined()?;
        let spoilt: BTreeSet<RecordId> = quarantined.iter().map(|row| row.record).collect();
        let mut rows = replica.tagged(VAULT_KEY_TYPE, b"")?;
        rows.retain(|row| !spoilt.contains(&row.record));
        rows.extend(quarantined.into_iter().filter(|row| row.revision != Revision::new(1)));
        Ok(rows)
    }

    /// The first versions that are not here.
    fn unkept_keys(&self) -> Result<Vec<VersionRow>> {
        let mut unkept = Vec::new();
        for row in self.key_rows()? {
            if row.revision != Revision::new(1) && self.first_envelope(&row)?.is_none() {
                unkept.extend(self.first_version(row.record)?);
            }
        }
        Ok(unkept)
    }

    /// Whether the first key of a vault was written over and its first version is not here.
    pub(super) fn is_first_key_elsewhere(&self, vault: VaultId) -> Result<bool> {
        let row = self.keyring.replica.record(self.key_record(vault, Epoch::new(1)))?;
        let Some(row) = row.filter(|row| row.revision != Revision::new(1)) else { return Ok(false) };
        Ok(self.first_envelope(&row)?.is_none())
    }

    fn first_version(&self, record: RecordId) -> Result<Option<VersionRow>> {
        let replica = &self.keyring.replica;
        let mut place = replica.record(record)?.map(|row| row.seq);
        let mut first = None;
        while let Some(seq) = place {
            first = replica.version(seq, record)?;
            place = first.and_then(|version| version.previous_seq).filter(|previous| *previous < seq);
        }
        Ok(first.filter(|version| version.revision == Revision::new(1)))
    }

    /// The envelope of a record's first version, if it is here.
    fn first_envelope(&self, row: &RecordRow) -> Result<Option<Vec<u8>>> {
        if row.revision == Revision::new(1) {
            return Ok(self.keyring.replica.envelope(row.record)?);
        }
        let Some(version) = self.first_version(row.record)? else { return Ok(None) };
        let kept = self.db.meta(&first_place(row.record))?;
        Ok(kept.filter(|bytes| envelope::digest(bytes) == version.digest))
    }

    /// Fetches a first version; none if the server has none that its commit announced. What that means is said where
    /// the key is needed. One that does not open is kept, too: it is the first one, and no key.
    async fn fetch_first(&self, version: &VersionRow) -> Result<Option<Vec<u8>>> {
        let path = format!("/v1/vaults/{}/envelopes/get", self.keyring.setup.vault());
        let places = GetEnvelopes(vec![(version.seq, version.record)]);
        let page: Entries = match self.api.post(&path, &places).await {
            Err(ClientError::Refused { .. }) => return Ok(None),
            other => other?,
        };
        let Some(entry) = page.entries.into_iter().next() else { return Ok(None) };
        let bytes = entry.envelope.0;
        let opened = read::open_version(&self.keyring.replica, &self.keyring.setup, version, &bytes);
        Ok(opened.is_ok().then_some(bytes))
    }

    fn key_in(&self, vault: VaultId, bytes: &[u8]) -> Option<HeldKey> {
        let opened = self.keyring.setup.keys.open(bytes).ok()?;
        Some(HeldKey { doc: key_doc(vault, &opened.content)?, sealed_in: opened.header.epoch })
    }
}

/// The key of a vault that a record holds, if it does.
fn key_doc(vault: VaultId, content: &Content) -> Option<VaultKeyDoc> {
    let doc = VaultKeyDoc::decode(&content.document.0).ok()?;
    let is_its = content.record_type == VAULT_KEY_TYPE
        && content.name.0 == vault_key_name(vault, doc.epoch)
        && doc.vault == vault;
    is_its.then_some(doc)
}

/// Ascending by epoch. Secret and birth are fixed at creation: a record that says otherwise is no key of the vault.
fn of_one_birth(mut keys: Vec<HeldKey>) -> Vec<HeldKey> {
    keys.sort_by_key(|key| key.doc.epoch);
    keys.dedup_by_key(|key| key.doc.epoch);
    let first = keys.first().map(|key| key.doc.clone());
    keys.retain(|key| {
        first.as_ref().is_some_and(|first| {
            (&key.doc.secret, &key.doc.create, &key.doc.genesis)
                == (&first.secret, &first.create, &first.genesis)
        })
    });
    keys
}
