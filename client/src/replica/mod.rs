//! The replica: one SQLite file in the home. Envelopes lie as received; what the device adds (pending
//! writes, index tags, stat cache) is sealed under a key of the device (ADR 0004).

mod contents;
mod host;
mod merged;
mod read;
mod schema;
mod select;
mod shelf;
mod write;

pub(crate) use contents::{content_tag, mark_of};
pub(crate) use host::{SchemaTag, StoreKey};
pub use merged::MergeEntry;
pub use shelf::Shelved;

use crate::error::{ClientError, Result};
use lockstep_client_crypto::local::LocalKeys;
use lockstep_proto::Signed;
use lockstep_proto::cbor::ByteArray;
use lockstep_proto::id::{RecordId, VaultId};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use std::cell::Cell;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// The database of a home.
pub struct Db {
    connection: Connection,
    keys: Arc<LocalKeys>,
    writes: bool,
    folder: PathBuf,
    /// Whether every envelope that is here stays, whatever a selection says.
    holds_all: Cell<bool>,
}

/// One vault's part of it; the engine reads through this.
#[derive(Clone)]
pub struct VaultReplica {
    db: Rc<Db>,
    key: i64,
    vault: VaultId,
}

impl Db {
    /// Opens (or creates) the database of a home.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub fn open(path: &Path, keys: LocalKeys, writes: bool) -> Result<Rc<Self>> {
        let mode = if writes {
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
        } else {
            OpenFlags::SQLITE_OPEN_READ_WRITE
        };
        if writes {
            // Readable by its owner only, from the first byte.
            std::fs::OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(path)
                .map_err(|error| ClientError::io(path, error))?;
        }
        let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.set_prepared_statement_cache_capacity(64);
        if writes {
            let _mode: String =
                connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            // In pages: what many commits write to the same pages of an index goes to the file once.
            connection.pragma_update(None, "wal_autocheckpoint", 8192)?;
            schema::migrate(&connection, path)?;
        } else {
            schema::check(&connection, path)?;
            connection.pragma_update(None, "query_only", true)?;
        }
        connection.pragma_update(None, "cache_size", -32768)?;
        let folder = path.parent().unwrap_or(Path::new(".")).to_path_buf();
        Ok(Rc::new(Self { connection, keys: Arc::new(keys), writes, folder, holds_all: Cell::new(false) }))
    }

    /// Keys of what is sealed here.
    pub fn keys(&self) -> &LocalKeys {
        &self.keys
    }

    /// The same for another thread.
    pub(crate) fn shared_keys(&self) -> Arc<LocalKeys> {
        Arc::clone(&self.keys)
    }

    /// The folder that it lies in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether this process may write here.
    pub const fn writes(&self) -> bool {
        self.writes
    }

    /// From now on no envelope is let go of through this.
    pub(crate) fn hold_all(&self) {
        self.holds_all.set(true);
    }

    /// Whether envelopes may be let go of.
    pub(crate) fn lets_go(&self) -> bool {
        self.writes && !self.holds_all.get()
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Carries out writes durably, together; within another such call they become part of that.
    ///
    /// # Errors
    /// Those of `write`, after which nothing of the outermost call was written; [`ClientError::Database`].
    pub(crate) fn together<T>(&self, write: impl FnOnce() -> Result<T>) -> Result<T> {
        if !self.connection.is_autocommit() {
            return write();
        }
        let transaction = self.connection.unchecked_transaction()?;
        let done = write()?;
        transaction.commit()?;
        Ok(done)
    }

    /// A small value.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub fn meta(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let mut statement = self.connection.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
        Ok(statement.query_row([key], |row| row.get(0)).optional()?)
    }

    /// Sets a small value.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub fn set_meta(&self, key: &str, value: &[u8]) -> Result<()> {
        let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        self.connection.prepare_cached(sql)?.execute(params![key, value])?;
        Ok(())
    }

    /// Removes a small value.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub fn drop_meta(&self, key: &str) -> Result<()> {
        self.connection.prepare_cached("DELETE FROM meta WHERE key = ?1")?.execute([key])?;
        Ok(())
    }

    /// The device log as stored.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub fn device_log(&self) -> Result<Vec<Signed>> {
        let mut statement =
            self.connection.prepare_cached("SELECT bytes, signature FROM device_log ORDER BY position")?;
        let rows =
            statement.query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, [u8; 64]>(1)?)))?;
        rows.map(|row| row.map(signed).map_err(ClientError::from)).collect()
    }

    /// Entries of the device log that are stored.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub(crate) fn device_log_entries(&self) -> Result<u64> {
        let mut statement = self.connection.prepare_cached("SELECT count(*) FROM device_log")?;
        let count: i64 = statement.query_row([], |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Stores verified log entries from a position on, and the key header that belongs to them, together.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub fn set_devices(&self, from: usize, entries: &[Signed], key_header: &Signed) -> Result<()> {
        let transaction = self.connection.unchecked_transaction()?;
        for (index, entry) in entries.iter().enumerate() {
            let position = i64::try_from(from.saturating_add(index)).unwrap_or(i64::MAX);
            let known: Option<Vec<u8>> = transaction
                .prepare_cached("SELECT bytes FROM device_log WHERE position = ?1")?
                .query_row([position], |row| row.get(0))
                .optional()?;
            if known.is_some_and(|known| known != entry.bytes.0) {
                return Err(ClientError::Fork(
                    "the device log is not the one that was verified before".into(),
                ));
            }
            let sql = "INSERT OR IGNORE INTO device_log (position, bytes, signature) VALUES (?1, ?2, ?3)";
            let row = params![position, entry.bytes.0, entry.signature.0];
            transaction.prepare_cached(sql)?.execute(row)?;
        }
        for (key, value) in
            [("key-header", &key_header.bytes.0[..]), ("key-header-signature", &key_header.signature.0)]
        {
            let sql = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)";
            transaction.prepare_cached(sql)?.execute(params![key, value])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// The key header as stored.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn key_header(&self) -> Result<Option<Signed>> {
        let (Some(bytes), Some(signature)) = (self.meta("key-header")?, self.meta("key-header-signature")?)
        else {
            return Ok(None);
        };
        let signature = signature.as_slice().try_into().map_err(|_| damaged("the key header"))?;
        Ok(Some(signed((bytes, signature))))
    }

    /// A vault's part; it is created with its vault-log entry 0 if it is not there.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn vault(self: &Rc<Self>, vault: VaultId, create: Option<&Signed>) -> Result<Option<VaultReplica>> {
        if let Some(create) = create {
            let sql = "INSERT INTO vault (vault, create_bytes, create_signature) VALUES (?1, ?2, ?3)
                       ON CONFLICT (vault) DO NOTHING";
            let row = params![vault.as_bytes(), create.bytes.0, create.signature.0];
            self.connection.prepare_cached(sql)?.execute(row)?;
        }
        let key: Option<i64> = self
            .connection
            .prepare_cached("SELECT id FROM vault WHERE vault = ?1")?
            .query_row([&vault.as_bytes()[..]], |row| row.get(0))
            .optional()?;
        Ok(key.map(|key| VaultReplica { db: Rc::clone(self), key, vault }))
    }

    /// Forgets everything of a vault.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub fn drop_vault(&self, vault: VaultId) -> Result<()> {
        let transaction = self.connection.unchecked_transaction()?;
        let text = "SELECT id FROM vault WHERE vault = ?1";
        let key: Option<i64> =
            transaction.query_row(text, [&vault.as_bytes()[..]], |row| row.get(0)).optional()?;
        let Some(key) = key else { return Ok(()) };
        for table in [
            "commit_row",
            "version",
            "record",
            "staged",
            "pending",
            "stat",
            "upload",
            "content",
            "abandoned",
            "shelved_commit",
            "shelved",
            "merge",
            "host_store",
            "host_row",
            "host_change",
        ] {
            transaction.execute(&format!("DELETE FROM {table} WHERE vault = ?1"), [key])?;
        }
        transaction.execute("DELETE FROM vault WHERE id = ?1", [key])?;
        transaction.commit()?;
        // Its objects are opened by nothing any more.
        let objects = self.folder.join("objects").join(vault.to_string());
        match std::fs::remove_dir_all(&objects) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(ClientError::io(objects, error))
            }
            _ => Ok(()),
        }
    }

    /// Vaults that are held here.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub fn vault_ids(&self) -> Result<Vec<VaultId>> {
        let mut statement = self.connection.prepare_cached("SELECT vault FROM vault ORDER BY vault")?;
        let rows = statement.query_map([], |row| row.get::<_, [u8; 16]>(0))?;
        rows.map(|row| row.map(VaultId::from_bytes).map_err(ClientError::from)).collect()
    }
}

pub(crate) fn damaged(what: &str) -> ClientError {
    ClientError::Damaged(format!("the local database is damaged: {what} can not be read"))
}

pub(crate) fn signed((bytes, signature): (Vec<u8>, [u8; 64])) -> Signed {
    Signed { bytes: bytes.into(), signature: ByteArray(signature) }
}

/// A sealed side table: stat cache or uploads.
#[derive(Debug, Clone, Copy)]
pub enum Side {
    /// Uploads that have begun.
    Upload,
}

impl Side {
    fn table(self) -> &'static str {
        match self {
            Self::Upload => "upload",
        }
    }
}

impl VaultReplica {
    /// The vault.
    pub fn vault(&self) -> VaultId {
        self.vault
    }

    /// The database.
    pub fn db(&self) -> &Rc<Db> {
        &self.db
    }

    /// Vault-log entry 0.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub fn create_entry(&self) -> Result<Signed> {
        let sql = "SELECT create_bytes, create_signature FROM vault WHERE id = ?1";
        let mut statement = self.db.connection.prepare_cached(sql)?;
        Ok(signed(statement.query_row([self.key], |row| Ok((row.get(0)?, row.get(1)?)))?))
    }

    fn place(&self, side: Side, record: RecordId) -> Vec<u8> {
        let mut place = side.table().as_bytes().to_vec();
        place.extend_from_slice(self.vault.as_bytes());
        place.extend_from_slice(record.as_bytes());
        place
    }

    /// Sets rows of a side table, together.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub fn set_side(&self, side: Side, rows: &[(RecordId, Vec<u8>)]) -> Result<()> {
        let transaction = self.db.connection.unchecked_transaction()?;
        let mut rng = crate::rng::system();
        let sql =
            format!("INSERT OR REPLACE INTO {} (vault, record, sealed) VALUES (?1, ?2, ?3)", side.table());
        for (record, row) in rows {
            let sealed = self.db.keys.seal_row(&self.place(side, *record), row, &mut rng);
            transaction.prepare_cached(&sql)?.execute(params![self.key, record.as_bytes(), sealed])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Removes rows of a side table.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub fn drop_side(&self, side: Side, records: &[RecordId]) -> Result<()> {
        let transaction = self.db.connection.unchecked_transaction()?;
        let sql = format!("DELETE FROM {} WHERE vault = ?1 AND record = ?2", side.table());
        for record in records {
            transaction.prepare_cached(&sql)?.execute(params![self.key, record.as_bytes()])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// A row of a side table; one that does not open counts as none, it is a cache.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub fn side(&self, side: Side, record: RecordId) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let sql = format!("SELECT sealed FROM {} WHERE vault = ?1 AND record = ?2", side.table());
        let mut statement = self.db.connection.prepare_cached(&sql)?;
        let sealed: Option<Vec<u8>> =
            statement.query_row(params![self.key, record.as_bytes()], |row| row.get(0)).optional()?;
        Ok(sealed.and_then(|sealed| self.db.keys.open_row(&self.place(side, record), &sealed).ok()))
    }
}
