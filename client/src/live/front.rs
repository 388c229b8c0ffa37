//! The app's side: reading and writing what is here, while a sync may be under way. Nothing here waits for the network.

use super::event::{Change, Event};
use super::follow::Follow;
use super::record::{Record, Version, check_type};
use super::status::VaultStatus;
use crate::account::Account;
use crate::error::{ClientError, Result};
use crate::replica::VaultReplica;
use crate::vault::Vault;
use lockstep_engine::EngineError;
use lockstep_engine::replica::Replica as _;
use lockstep_engine::{NewRecord, read};
use lockstep_proto::envelope::KIND_TOMBSTONE;
use lockstep_proto::id::{RecordId, Revision, VaultId};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// An account beside the one that syncs: the same database, engines of its own. Local writes touch no engine's state
/// but what is in the database, so those of one may come between any two steps of the other.
pub(crate) struct Front {
    account: Account,
    vaults: BTreeMap<VaultId, Vault>,
    follow: Rc<RefCell<Follow>>,
}

impl Front {
    pub(crate) fn new(account: Account, follow: Rc<RefCell<Follow>>) -> Self {
        Self { account, vaults: BTreeMap::new(), follow }
    }

    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    /// Takes over device log and keys if a sync brought new ones.
    fn renew(&mut self) -> Result<()> {
        let keyring = self.account.keyring();
        let knows_key = |vault: &Vault| -> Result<bool> {
            let head = vault.replica().head()?;
            Ok(head.is_none_or(|head| vault.setup().keys.has_epoch(head.tip.epoch)))
        };
        let stored = self.account.db().device_log_entries()?;
        if stored != keyring.device_log().next_index() || !knows_key(keyring)? {
            self.account = self.account.beside()?;
            self.vaults.clear();
        }
        let mut stale = Vec::new();
        for (id, vault) in &self.vaults {
            if !knows_key(vault)? {
                stale.push(*id);
            }
        }
        for id in stale {
            self.vaults.remove(&id);
        }
        Ok(())
    }

    /// A vault over what is held.
    pub(crate) fn vault(&mut self, name: &str) -> Result<&mut Vault> {
        self.renew()?;
        let known = self.account.vaults()?.into_iter().find(|entry| entry.name == name);
        let entry = known
            .ok_or_else(|| ClientError::NotFound(format!("there is no vault \"{name}\"; create it first")))?;
        if !self.vaults.contains_key(&entry.vault) {
            let vault = self.account.open_held(entry.vault)?;
            self.vaults.insert(entry.vault, vault);
        }
        let gone = || ClientError::NotFound("the vault is gone".into());
        let vault = self.vaults.get_mut(&entry.vault).ok_or_else(gone)?;
        // A sync may have brought others.
        vault.load_policies()?;
        Ok(vault)
    }

    /// Writes records durably, together with whatever else `also` writes to the same database.
    pub(crate) fn put(&mut self, name: &str, records: Vec<NewRecord>) -> Result<VaultId> {
        for record in &records {
            check_type(&record.record_type)?;
        }
        let vault = self.vault(name)?;
        let id = vault.setup().vault();
        let written: Vec<_> = records
            .iter()
            .map(|record| {
                let place = vault.setup().keys.record_id(&record.record_type, &record.name);
                (place, record.record_type.clone(), record.name.clone(), record.document.is_none())
            })
            .collect();
        vault.put_now(records)?;
        for (record, record_type, record_name, deleted) in written {
            self.tell_own(id, name, record, record_type, record_name, deleted);
        }
        Ok(id)
    }

    /// Tells of a write that is durable here.
    pub(crate) fn tell_own(
        &self,
        vault: VaultId,
        vault_name: &str,
        record: RecordId,
        record_type: String,
        name: Vec<u8>,
        deleted: bool,
    ) {
        let follow = self.follow.borrow();
        follow.tell(Event::Changed(Change {
            vault,
            vault_name: Arc::from(vault_name),
            record,
            record_type: Some(record_type),
            name: Some(name),
            deleted,
            device: follow.own,
            own: true,
            committed: None,
        }));
    }

    pub(crate) fn get(&mut self, name: &str, record_type: &str, record: &[u8]) -> Result<Option<Record>> {
        let vault = self.vault(name)?;
        let record = vault.setup().keys.record_id(record_type, record);
        Ok(read::current(vault.replica(), &vault.setup().keys, record)?.map(Record::from))
    }

    pub(crate) fn read(&mut self, name: &str, record: RecordId) -> Result<Option<Record>> {
        let vault = self.vault(name)?;
        Ok(read::current(vault.replica(), &vault.setup().keys, record)?.map(Record::from))
    }

    /// Records of a type that are there, ascending by name.
    pub(crate) fn list(&mut self, name: &str, record_type: &str) -> Result<Vec<Record>> {
        let vault = self.vault(name)?;
        let (replica, keys) = (vault.replica(), &vault.setup().keys);
        let mut places: BTreeSet<RecordId> =
            replica.list(record_type, None)?.into_iter().map(|row| row.record).collect();
        places.extend(replica.pending(usize::MAX)?.into_iter().map(|row| row.record));
        let mut found: Vec<Record> = Vec::new();
        for record in places {
            let current = match read::current(replica, keys, record) {
                // It was let go of meanwhile.
                Err(EngineError::NotHeld { .. }) => None,
                other => other?.map(Record::from),
            };
            found.extend(current.filter(|record| record.record_type == record_type));
        }
        found.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(found)
    }

    /// Committed versions of a record, newest first.
    pub(crate) fn history(&mut self, name: &str, record_type: &str, record: &[u8]) -> Result<Vec<Version>> {
        let vault = self.vault(name)?;
        let record = vault.setup().keys.record_id(record_type, record);
        let mut found = Vec::new();
        for version in vault.versions(record)? {
            let (commit, _) = crate::late::commit_at(vault.replica(), version.seq)?;
            found.push(Version {
                revision: version.revision,
                seq: version.seq,
                device: commit.device,
                written_utc: commit.utc,
                deleted: version.kind == KIND_TOMBSTONE,
            });
        }
        Ok(found)
    }

    /// A vault of its own for reading an old version, which may have to be fetched.
    pub(crate) fn vault_apart(&mut self, name: &str) -> Result<Vault> {
        let id = self.vault(name)?.setup().vault();
        self.account.open_held(id)
    }

    /// The vaults, by name, without what is wrong with them.
    pub(crate) fn look_over(&mut self) -> Result<Vec<VaultStatus>> {
        self.renew()?;
        look_over(&self.account)
    }
}

pub(crate) fn look_over(account: &Account) -> Result<Vec<VaultStatus>> {
    let mut found = Vec::new();
    for entry in account.vaults()? {
        let replica = account.db().vault(entry.vault, None)?;
        found.push(VaultStatus {
            vault: entry.vault,
            name: entry.name,
            pending: replica.as_ref().map_or(Ok(0), VaultReplica::pending_count)?,
            conflicts: replica.as_ref().map_or(Ok(0), VaultReplica::maybe_open_count)?,
            trouble: None,
        });
    }
    Ok(found)
}

/// A committed version's content as a new write.
pub(crate) async fn version_as_new(
    vault: &Vault,
    record_type: &str,
    name: &[u8],
    revision: Revision,
) -> Result<NewRecord> {
    let record = vault.setup().keys.record_id(record_type, name);
    let version = vault.versions(record)?.into_iter().find(|version| version.revision == revision);
    let version =
        version.ok_or_else(|| ClientError::NotFound(format!("the record has no revision {revision}")))?;
    if version.kind == KIND_TOMBSTONE {
        return Err(ClientError::Usage(format!(
            "revision {revision} is a deletion; delete the record instead"
        )));
    }
    let mut found = None;
    let mut take = |_: &lockstep_engine::replica::VersionRow, content| {
        found = content;
        Ok(())
    };
    if let Some(version) = vault.open_versions(&[version], &mut take).await?.first() {
        return Err(crate::past::withheld(version));
    }
    let content = found.ok_or_else(|| ClientError::Damaged(format!("revision {revision} does not open")))?;
    Ok(NewRecord {
        schema: content.schema,
        blobs: content.blobs,
        ..super::record::document(record_type, name, content.document.0)
    })
}
