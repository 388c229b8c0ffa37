//! Host stores: an app's own database (Dexie, Realm, SQLite) stays the source of truth, and its rows are records of a
//! vault. docs/adr/0014-host-stores.md says why it is built like this, docs/CLIENT.md how it is used.
//!
//! Out: the store hands in its changes under ids of its own ([`Host::hand_in`]). Handing one in twice has one effect,
//! across restarts and crashes.
//!
//! In: the store asks for changes ([`Host::changes`]), writes them, and acknowledges them ([`Host::acknowledge`]). What was
//! not acknowledged comes again. Rows that are new get a key first ([`Host::assign`]), so that a row that comes again
//! after a crash is written to the same place.
//!
//! Keys of rows, and references between them, are the store's own; in the vault they are names that are the same on all
//! devices.

mod incoming;
mod join;
mod outgoing;
mod redacted;
mod row;
mod schema;

pub use row::HostKey;
pub use schema::{HostSchema, HostType};

use crate::error::{ClientError, Result};
use crate::live::Live;
use crate::live::front::Front;
use crate::replica::SchemaTag;
use incoming::Shown;
use join::Newer;
use lockstep_proto::Digest;
use lockstep_proto::id::{DeviceId, RecordId, Seq};
use outgoing::Outgoing;
use row::Rows;
use std::sync::Arc;

/// A document: a JSON object.
pub type Fields = serde_json::Map<String, serde_json::Value>;

const BEGUN: u8 = 1;
const DONE: u8 = 2;

/// A change of one row, as the store hands it in.
#[derive(Clone, PartialEq)]
pub struct HostWrite {
    /// The store's id of the change: no two changes have the same.
    pub change: Vec<u8>,
    /// Type of the row.
    pub record_type: String,
    /// Its key.
    pub key: HostKey,
    /// The whole row; none: it was deleted.
    pub document: Option<Fields>,
}

/// What became of a change that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is durable here now.
    Now,
    /// It was handed in before.
    Before,
}

/// A row as it is to be in the store.
#[derive(Clone, PartialEq)]
pub struct HostChange {
    /// Its type.
    pub record_type: String,
    /// Its name on all devices.
    pub name: String,
    /// Its key in this store; none: it is new here. Give it one with [`Host::assign`], then write it.
    pub key: Option<HostKey>,
    /// The whole row, references as this store's keys; none: it was deleted.
    pub document: Option<Fields>,
    /// References that are left out of it because the row that they mean has no key here (yet). If it gets one, this row
    /// comes again.
    pub unresolved: Vec<Unresolved>,
    /// Whether it is a conflict copy.
    pub is_conflict: bool,
    /// Key of the row that it is a conflict copy of, if that has one.
    pub conflict_of: Option<HostKey>,
    /// The device that wrote the committed version; none: there is none.
    pub device: Option<DeviceId>,
    /// When it was written, milliseconds since 1970 by the writer's clock; 0 for a deletion.
    pub written_utc_ms: u64,
}

/// A reference that can not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Unresolved {
    /// The field.
    pub field: String,
    /// Type of the row that it means.
    pub record_type: String,
    /// Its name.
    pub name: String,
}

/// Changes to write and then to acknowledge. Rows that are referred to come before those that refer to them, if need be
/// in a page before.
#[derive(Clone)]
pub struct Page {
    /// The changes, in the order in which they are to be written.
    pub changes: Vec<HostChange>,
    /// What the cursor moves to.
    upto: Option<(Seq, Digest)>,
    shown: Vec<Shown>,
    /// What could not be read.
    unreadable: Vec<RecordId>,
    /// What the cursor is of.
    schema: SchemaTag,
}

/// How far the import of what a store had before its first sync got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Import {
    /// Not begun.
    None,
    /// Begun; the rows that were handed in need not be handed in again, and may be.
    Begun,
    /// Done; nothing more is imported.
    Done,
}

/// One store of an app, over one vault. Stores with different names know nothing of each other.
#[derive(Debug, Clone)]
pub struct Host {
    live: Live,
    vault: String,
    store: Arc<str>,
    schema: Arc<HostSchema>,
}

impl Live {
    /// A store of the app's own over a vault. `store`: its name on this device, the same in every run.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if the schema can not be used.
    pub fn host(&self, vault: &str, store: &str, schema: HostSchema) -> Result<Host> {
        schema.check()?;
        Ok(Host {
            live: self.clone(),
            vault: vault.to_owned(),
            store: Arc::from(store),
            schema: Arc::new(schema),
        })
    }
}

impl Host {
    /// Hands in changes in their order, all or none: durable here when it returns, and sent later.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if a row is of no type of the schema, or refers to a row that is not known; nothing was taken
    /// then. [`ClientError::NotFound`] if there is no such vault, [`ClientError::DiskFull`].
    pub async fn hand_in(&self, writes: Vec<HostWrite>) -> Result<Vec<Taken>> {
        self.take(writes, Newer::Store, false).await
    }

    /// Forgets that changes were handed in. For changes that the store does not hand in any more.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub async fn release(&self, changes: Vec<Vec<u8>>) -> Result<()> {
        self.with(move |rows| {
            changes.iter().try_for_each(|change| rows.replica().drop_host_change(rows.store, change))
        })
        .await
    }

    /// Imports rows that the store had before its first sync, in as many calls as it likes; a row that was imported before is
    /// not taken again. A row whose natural key another device has is the same row: they become one, field by field; where
    /// both have a field, what the vault has stays, and the other is in the history.
    ///
    /// # Errors
    /// As [`Self::hand_in`]; [`ClientError::Usage`] if the import is done.
    pub async fn import(&self, rows: Vec<(String, HostKey, Fields)>) -> Result<Vec<Taken>> {
        let writes = rows.into_iter().map(|(record_type, key, document)| HostWrite {
            change: format!("import\0{record_type}\0{}", key.text()).into_bytes(),
            record_type,
            key,
            document: Some(document),
        });
        self.take(writes.collect(), Newer::Here, true).await
    }

    /// Nothing more is imported.
    ///
    /// # Errors
    /// As [`Self::release`].
    pub async fn finish_import(&self) -> Result<()> {
        self.with(|rows| rows.replica().set_host_imported(rows.store, DONE)).await
    }

    /// How far the import got.
    ///
    /// # Errors
    /// As [`Self::release`].
    pub async fn imported(&self) -> Result<Import> {
        let state = self.with(|rows| rows.replica().host_imported(rows.store)).await?;
        Ok(match state {
            0 => Import::None,
            BEGUN => Import::Begun,
            _ => Import::Done,
        })
    }

    /// The next changes that the store does not have, `limit` at most or so; none if it has all. Asked again without an
    /// acknowledgement, it gives the same ones, as they are by then.
    ///
    /// Write a page and look at the store's outbox in one transaction: if a row of the page has an entry there, write nothing,
    /// acknowledge nothing, hand the entry in and ask again. An entry from before the page that is handed in after its
    /// acknowledgement takes back what came with the page.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] if there is no such vault, [`ClientError::Damaged`].
    pub async fn changes(&self, limit: usize) -> Result<Page> {
        self.with(move |rows| incoming::page(rows, limit)).await
    }

    /// Says that the store has written everything of a page durably, over rows without an entry in its outbox. Rows that were
    /// handed in since the page was given come once more.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub async fn acknowledge(&self, page: Page) -> Result<()> {
        self.with(move |rows| incoming::acknowledge(rows, &page)).await
    }

    /// Gives a row that is new here its key, before it is written under it: if it comes again after a crash, it comes with
    /// this key. The key has to be one that the store gives to no other row from then on, also if it crashes before the
    /// row is written: taken from its own sequence, or from a range of its own.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if another row has the key.
    pub async fn assign(&self, record_type: &str, name: &str, key: HostKey) -> Result<()> {
        let (record_type, name) = (record_type.to_owned(), name.to_owned());
        self.with(move |rows| incoming::assign(rows, &record_type, &name, &key)).await
    }

    /// Does something with the store's tables, whole or not at all.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Rows<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (store, schema) = (Arc::clone(&self.store), Arc::clone(&self.schema));
        self.live
            .run(&self.vault, false, move |front, name| {
                let vault = front.vault(name)?;
                let replica = vault.replica();
                replica.db().together(|| {
                    let store = replica.host_store(&store)?;
                    work(&Rows { vault, store, schema: &schema })
                })
            })
            .await
    }

    async fn take(&self, writes: Vec<HostWrite>, newer: Newer, is_import: bool) -> Result<Vec<Taken>> {
        let (store, schema) = (Arc::clone(&self.store), Arc::clone(&self.schema));
        self.live
            .run(&self.vault, true, move |front, name| {
                take(front, name, &store, &schema, &writes, newer, is_import)
            })
            .await
    }
}

fn take(
    front: &mut Front,
    name: &str,
    store: &str,
    schema: &HostSchema,
    writes: &[HostWrite],
    newer: Newer,
    is_import: bool,
) -> Result<Vec<Taken>> {
    // One is read while the other one is written to; both are over the same database.
    let reader = front.vault_apart(name)?;
    let vault = front.vault(name)?;
    let (replica, keys, id) = (reader.replica(), &reader.setup().keys, reader.setup().vault());
    let mut told = Vec::new();
    let taken = replica.db().together(|| {
        let store = replica.host_store(store)?;
        if is_import {
            if replica.host_imported(store)? == DONE {
                return Err(ClientError::Usage("the import of this store is done".into()));
            }
            replica.set_host_imported(store, BEGUN)?;
        }
        let rows = Rows { vault: &reader, store, schema };
        let mut outgoing = Outgoing::new(rows, newer, writes);
        let mut taken = Vec::new();
        for write in writes {
            let (one, records) = outgoing.take(write)?;
            taken.push(one);
            for record in &records {
                let place = keys.record_id(&record.record_type, &record.name);
                told.push((
                    place,
                    record.record_type.clone(),
                    record.name.clone(),
                    record.document.is_none(),
                ));
            }
            if !records.is_empty() {
                vault.put_now(records)?;
            }
        }
        Ok(taken)
    })?;
    for (record, record_type, record_name, deleted) in told {
        front.tell_own(id, name, record, record_type, record_name, deleted);
    }
    Ok(taken)
}
