//! First versions. A record of the keyring that says what a vault is called or what its key is, is write-once: whatever
//! is written over it, revision 1 counts. It is kept here when it is first seen, and fetched if it was written over
//! before. The one thing that may follow is the identity's word that a vault is deleted; that counts for ever.

use super::Result;
use crate::account::Account;
use crate::error::ClientError;
use lockstep_client_crypto::content::Content;
use lockstep_engine::keyring::{VAULT_KEY_TYPE, VAULT_TYPE, VaultDoc};
use lockstep_engine::read;
use lockstep_engine::replica::{RecordRow, Replica as _, VersionRow};
use lockstep_proto::api::vault::{Entries, GetEnvelopes};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::envelope;
use lockstep_proto::id::{RecordId, Revision, VaultId};
use std::collections::BTreeSet;

/// Versions of a record that are asked for at once.
const VERSIONS_A_REQUEST: usize = 256;

/// Where the first envelope of a record is kept.
fn first_place(record: RecordId) -> String {
    format!("first-key {record}")
}

/// Where it is kept that the identity said that a vault is deleted.
fn deleted_place(vault: VaultId) -> String {
    format!("deleted-vault {vault}")
}

/// Up to which revision a record was searched for the identity's word.
fn searched_place(record: RecordId) -> String {
    format!("searched {record}")
}

impl Account {
    /// Records of a type whose first version counts. One that was written over with what does not open may be one, too.
    pub(super) fn once_rows(&self, record_type: &str) -> Result<Vec<RecordRow>> {
        let replica = &self.keyring.replica;
        let quarantined = replica.quarantined()?;
        let spoilt: BTreeSet<RecordId> = quarantined.iter().map(|row| row.record).collect();
        let mut rows = replica.tagged(record_type, b"")?;
        rows.retain(|row| !spoilt.contains(&row.record));
        rows.extend(quarantined.into_iter().filter(|row| row.revision != Revision::new(1)));
        Ok(rows)
    }

    /// Keeps the first version of every record that is write-once, and what the identity said.
    ///
    /// # Errors
    /// [`ClientError`] if the server can not be asked.
    pub(crate) async fn keep_first_versions(&self) -> Result<()> {
        if !self.writes() {
            return Ok(());
        }
        for record_type in [VAULT_KEY_TYPE, VAULT_TYPE] {
            for row in self.once_rows(record_type)? {
                let place = first_place(row.record);
                if row.revision == Revision::new(1)
                    && let Some(bytes) = self.keyring.replica.envelope(row.record)?
                    && self.db.meta(&place)?.as_ref() != Some(&bytes)
                {
                    self.db.set_meta(&place, &bytes)?;
                }
            }
            for version in self.unkept(record_type)? {
                if let Some(bytes) = self.fetch_first(&version).await? {
                    self.db.set_meta(&first_place(version.record), &bytes)?;
                }
            }
        }
        for row in self.once_rows(VAULT_TYPE)? {
            if row.revision != Revision::new(1) {
                self.keep_deletion(&row).await?;
            }
        }
        self.register.forget();
        Ok(())
    }

    /// The first versions that are not here.
    pub(super) fn unkept(&self, record_type: &str) -> Result<Vec<VersionRow>> {
        let mut unkept = Vec::new();
        for row in self.once_rows(record_type)? {
            if row.revision != Revision::new(1) && self.first_envelope(&row)?.is_none() {
                unkept.extend(self.first_version(row.record)?);
            }
        }
        Ok(unkept)
    }

    /// The first version of a record; it may have been written over since.
    pub(super) fn first_version(&self, record: RecordId) -> Result<Option<VersionRow>> {
        let first = self.versions(record)?.pop();
        Ok(first.filter(|version| version.revision == Revision::new(1)))
    }

    /// Versions of a record that count, the newest first.
    fn versions(&self, record: RecordId) -> Result<Vec<VersionRow>> {
        let replica = &self.keyring.replica;
        let mut place = replica.record(record)?.map(|row| row.seq);
        let mut found = Vec::new();
        while let Some(seq) = place {
            let Some(version) = replica.version(seq, record)? else { break };
            place = version.previous_seq.filter(|previous| *previous < seq);
            found.push(version);
        }
        Ok(found)
    }

    /// The envelope of a record's first version, if it is here.
    pub(super) fn first_envelope(&self, row: &RecordRow) -> Result<Option<Vec<u8>>> {
        if row.revision == Revision::new(1) {
            return Ok(self.keyring.replica.envelope(row.record)?);
        }
        let Some(version) = self.first_version(row.record)? else { return Ok(None) };
        let kept = self.db.meta(&first_place(row.record))?;
        Ok(kept.filter(|bytes| envelope::digest(bytes) == version.digest))
    }

    /// Fetches a first version; none if the server has none that its commit announced. What that means is said where
    /// the record is needed. One that does not open is kept, too: it is the first one, and says nothing.
    pub(super) async fn fetch_first(&self, version: &VersionRow) -> Result<Option<Vec<u8>>> {
        let found = self.fetch_versions(std::slice::from_ref(version)).await?;
        Ok(found.into_iter().next().map(|(bytes, _)| bytes))
    }

    /// Versions as the server has them, each as its commit announced it, with what they say if they open.
    async fn fetch_versions(&self, versions: &[VersionRow]) -> Result<Vec<(Vec<u8>, Option<Content>)>> {
        let keyring = &self.keyring;
        let path = format!("/v1/vaults/{}/envelopes/get", keyring.setup.vault());
        let mut found = Vec::new();
        let mut left = versions;
        while !left.is_empty() {
            let some =
                left.iter().take(VERSIONS_A_REQUEST).map(|version| (version.seq, version.record)).collect();
            let page: Entries = match self.api.post(&path, &GetEnvelopes(some)).await {
                Err(ClientError::Refused { .. }) => return Ok(found),
                other => other?,
            };
            let mut last = None;
            for entry in page.entries {
                let at = left
                    .iter()
                    .position(|version| (version.seq, version.record) == (entry.seq, entry.record));
                let Some(version) = at.and_then(|at| left.get(at)) else { continue };
                last = at.max(last);
                let bytes = entry.envelope.0;
                if let Ok(content) = read::open_version(&keyring.replica, &keyring.setup, version, &bytes) {
                    found.push((bytes, content));
                }
            }
            // What is not there is left out; a page that is full ends with the last one that came.
            let done = match last {
                Some(last) if page.more => last.saturating_add(1),
                _ => VERSIONS_A_REQUEST.min(left.len()),
            };
            left = left.get(done..).unwrap_or_default();
        }
        Ok(found)
    }

    /// Whether the identity said that a vault is deleted, as far as is known here.
    pub(super) fn is_known_deleted(&self, vault: VaultId) -> Result<bool> {
        Ok(self.db.meta(&deleted_place(vault))?.is_some())
    }

    /// Looks for the identity's word in versions of a vault's record that were not looked at yet: what is written over
    /// it takes nothing back.
    async fn keep_deletion(&self, row: &RecordRow) -> Result<()> {
        let place = searched_place(row.record);
        let searched = self.db.meta(&place)?.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        let searched = searched.unwrap_or(0);
        if row.revision.value() <= searched {
            return Ok(());
        }
        let mut versions = self.versions(row.record)?;
        versions.retain(|version| version.revision.value() > searched);
        let newest = self.keyring.replica.envelope(row.record)?;
        let mut says: Vec<Option<Content>> = Vec::new();
        if let (Some(bytes), Some(version)) = (newest, versions.first()) {
            says.push(
                read::open_version(&self.keyring.replica, &self.keyring.setup, version, &bytes)
                    .ok()
                    .flatten(),
            );
        }
        if !self.keep_if_deleted(says)? {
            let older = versions.get(1..).unwrap_or_default();
            let found = self.fetch_versions(older).await?.into_iter().map(|(_, content)| content).collect();
            self.keep_if_deleted(found)?;
        }
        self.db.set_meta(&place, &row.revision.value().to_be_bytes())
    }

    fn keep_if_deleted(&self, says: Vec<Option<Content>>) -> Result<bool> {
        let (account, identity) = (self.id(), self.identity());
        for content in says.into_iter().flatten().filter(|content| content.record_type == VAULT_TYPE) {
            if let Ok(doc) = VaultDoc::decode(&content.document.0)
                && doc.is_deleted(account, identity)
            {
                self.db.set_meta(&deleted_place(doc.vault), b"1")?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}
