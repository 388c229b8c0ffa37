//! Where the items of an archive lie. One walk over the file checks framing, order and lengths and gives the digest;
//! the places are kept in a database of their own, not in memory.

use super::refused;
use crate::error::{ClientError, Result};
use lockstep_proto::Signed;
use lockstep_proto::archive::{
    ArchiveHeader, ArchiveVault, BareKeys, ITEM_HEAD_BYTES, Item, ItemHead, ItemKind, Items, PREFIX_BYTES,
};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::{Changes, Commit};
use lockstep_proto::id::{BlobId, RecordId, Seq, VaultId};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SCHEMA: &str = "
    CREATE TABLE vault (id INTEGER PRIMARY KEY, vault BLOB NOT NULL UNIQUE, place INTEGER NOT NULL,
        bytes INTEGER NOT NULL, head INTEGER NOT NULL, returns INTEGER NOT NULL) STRICT;
    CREATE TABLE commit_item (vault INTEGER NOT NULL, seq INTEGER NOT NULL, place INTEGER NOT NULL,
        bytes INTEGER NOT NULL, PRIMARY KEY (vault, seq)) STRICT, WITHOUT ROWID;
    CREATE TABLE newest (vault INTEGER NOT NULL, record BLOB NOT NULL, seq INTEGER NOT NULL,
        PRIMARY KEY (vault, record)) STRICT, WITHOUT ROWID;
    CREATE TABLE version_item (vault INTEGER NOT NULL, seq INTEGER NOT NULL, record BLOB NOT NULL, place INTEGER,
        bytes INTEGER, PRIMARY KEY (vault, seq, record)) STRICT, WITHOUT ROWID;
    CREATE TABLE object_item (vault INTEGER NOT NULL, blob BLOB NOT NULL, place INTEGER, bytes INTEGER,
        PRIMARY KEY (vault, blob)) STRICT, WITHOUT ROWID;";

const READ_BYTES: usize = 256 * 1024;

/// Where bytes lie in the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) place: u64,
    pub(crate) bytes: u64,
}

/// What of a version or an object an archive has.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Held {
    /// It is there.
    Here(Span),
    /// The archive says that it was missing when it was made.
    Missing,
    /// The archive says nothing of it.
    Unnamed,
}

/// How the keys lie in an archive.
pub(crate) enum Keys {
    /// The signed key header.
    Whole(Signed),
    /// Without the passphrase's wrap.
    Bare(Box<BareKeys>),
}

/// What the walk gave.
pub(crate) struct Scanned {
    pub(crate) header: ArchiveHeader,
    pub(crate) keys: Keys,
    pub(crate) devices: Vec<Signed>,
    pub(crate) items: Items,
    pub(crate) end: Signed,
}

/// The places, and the file.
pub(crate) struct Index {
    file: File,
    connection: Mutex<Connection>,
}

fn sql(value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| refused(&"a number in it is too large"))
}

fn number(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// One walk under way.
struct Walk<'a> {
    reader: BufReader<&'a File>,
    path: &'a Path,
    place: u64,
    connection: &'a Connection,
    vault: i64,
}

impl Walk<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        match self.reader.read_exact(buffer) {
            Ok(()) => {
                self.place = self.place.saturating_add(u64::try_from(buffer.len()).unwrap_or(u64::MAX));
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(refused(&"it is cut off")),
            Err(error) => Err(ClientError::io(self.path, error)),
        }
    }

    fn object(&mut self, items: &mut Items, head: ItemHead, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let mut id = [0; 16];
        self.read(&mut id)?;
        let blob = BlobId::from_bytes(id);
        items.object(head, blob)?;
        let mut left = head.bytes.saturating_sub(16);
        self.add(
            "INSERT INTO object_item VALUES (?1, ?2, ?3, ?4)",
            params![self.vault, blob.as_bytes(), sql(self.place)?, sql(left)?],
        )?;
        let mut buffer = vec![0; READ_BYTES];
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let (piece, _) = buffer.split_at_mut(now);
            self.read(piece)?;
            items.object_bytes(piece)?;
            left = left.saturating_sub(u64::try_from(now).unwrap_or(u64::MAX));
            progress(self.place);
        }
        Ok(())
    }

    fn add(&self, text: &str, row: &[&dyn rusqlite::ToSql]) -> Result<()> {
        match self.connection.prepare_cached(text)?.execute(row) {
            Ok(_) => Ok(()),
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
                Err(refused(&"it has something twice, or calls missing what is there"))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn vault(&mut self, vault: VaultId, span: Span) -> Result<()> {
        let row = params![vault.as_bytes(), sql(span.place)?, sql(span.bytes)?];
        self.add("INSERT INTO vault (vault, place, bytes, head, returns) VALUES (?1, ?2, ?3, 0, 0)", row)?;
        self.vault = self.connection.last_insert_rowid();
        Ok(())
    }

    fn commit(&self, commit: &Commit, changes: &[u8], span: Span) -> Result<()> {
        let seq = sql(commit.seq.value())?;
        let row = params![self.vault, seq, sql(span.place)?, sql(span.bytes)?];
        self.add("INSERT INTO commit_item VALUES (?1, ?2, ?3, ?4)", row)?;
        // What does not decode is the chain's fault, and found there.
        let changes = Changes::decode(changes).unwrap_or_default();
        let returns = changes.goes_back_to().is_some();
        self.add(
            "UPDATE vault SET head = ?2, returns = max(returns, ?3) WHERE id = ?1",
            params![self.vault, seq, returns],
        )?;
        for (record, ..) in changes.0.iter().filter_map(lockstep_proto::commit::Change::version) {
            let row = params![self.vault, record.as_bytes(), seq];
            self.add("INSERT OR REPLACE INTO newest VALUES (?1, ?2, ?3)", row)?;
        }
        Ok(())
    }

    fn version(&self, seq: Seq, record: RecordId, span: Option<Span>) -> Result<()> {
        let place = span.map(|span| sql(span.place)).transpose()?;
        let bytes = span.map(|span| sql(span.bytes)).transpose()?;
        let row = params![self.vault, sql(seq.value())?, record.as_bytes(), place, bytes];
        self.add("INSERT INTO version_item VALUES (?1, ?2, ?3, ?4, ?5)", row)
    }
}

impl Index {
    /// Walks over a file; nothing in it is believed yet.
    ///
    /// # Errors
    /// [`ClientError::Damaged`] for anything that is not the framing of an archive.
    pub(crate) fn scan(
        path: &Path,
        folder: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(Arc<Self>, Scanned)> {
        let file = File::open(path).map_err(|error| ClientError::io(path, error))?;
        let stat = file.metadata().map_err(|error| ClientError::io(path, error))?;
        if !stat.is_file() {
            return Err(ClientError::Usage(format!("{} is no file", path.display())));
        }
        let connection = Connection::open(folder.join("index.sqlite"))?;
        let _mode: String =
            connection.pragma_update_and_check(None, "journal_mode", "OFF", |row| row.get(0))?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        connection.set_prepared_statement_cache_capacity(32);
        connection.execute_batch(SCHEMA)?;
        connection.execute_batch("BEGIN")?;
        let mut walk = Walk {
            reader: BufReader::with_capacity(READ_BYTES, &file),
            path,
            place: 0,
            connection: &connection,
            vault: 0,
        };
        let scanned = walk_over(&mut walk, stat.len(), &mut |done| progress(done, stat.len()))?;
        connection.execute_batch("COMMIT")?;
        Ok((Arc::new(Self { file, connection: Mutex::new(connection) }), scanned))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads bytes of the file.
    ///
    /// # Errors
    /// [`ClientError::Damaged`] if they are not there any more.
    pub(crate) fn read(&self, span: Span) -> Result<Vec<u8>> {
        let length = usize::try_from(span.bytes).map_err(|_| refused(&"an item is too long"))?;
        let mut bytes = vec![0; length];
        self.file
            .read_exact_at(&mut bytes, span.place)
            .map_err(|_| refused(&"it changed while it was read"))?;
        Ok(bytes)
    }

    /// The vaults, the keyring first.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub(crate) fn vaults(&self) -> Result<Vec<VaultId>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached("SELECT vault FROM vault ORDER BY id")?;
        let rows = statement.query_map([], |row| row.get::<_, [u8; 16]>(0))?;
        rows.map(|row| row.map(VaultId::from_bytes).map_err(ClientError::from)).collect()
    }

    /// A vault's item.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) fn vault(&self, vault: VaultId) -> Result<Option<ArchiveVault>> {
        let span = self.span("SELECT place, bytes FROM vault WHERE vault = ?1", params![vault.as_bytes()])?;
        let Some(Held::Here(span)) = span else { return Ok(None) };
        ArchiveVault::decode(&self.read(span)?).map(Some).map_err(|error| refused(&error))
    }

    /// The vault's row, its last commit, and whether a repair in it goes back.
    pub(super) fn head(&self, vault: VaultId) -> Result<Option<(i64, Seq, bool)>> {
        let connection = self.connection();
        let mut statement =
            connection.prepare_cached("SELECT id, head, returns FROM vault WHERE vault = ?1")?;
        let row = statement.query_row([&vault.as_bytes()[..]], |row| {
            Ok((row.get(0)?, Seq::new(number(row.get(1)?)), row.get(2)?))
        });
        Ok(row.optional()?)
    }

    fn span(&self, text: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Option<Held>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(text)?;
        let row: Option<(Option<i64>, Option<i64>)> =
            statement.query_row(values, |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        Ok(row.map(|(place, bytes)| match (place, bytes) {
            (Some(place), Some(bytes)) => Held::Here(Span { place: number(place), bytes: number(bytes) }),
            _ => Held::Missing,
        }))
    }

    /// A version.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub(crate) fn version(&self, vault: VaultId, seq: Seq, record: RecordId) -> Result<Held> {
        let text = "SELECT v.place, v.bytes FROM version_item v JOIN vault ON vault.id = v.vault
                    WHERE vault.vault = ?1 AND seq = ?2 AND record = ?3";
        let values = params![vault.as_bytes(), sql(seq.value())?, record.as_bytes()];
        Ok(self.span(text, values)?.unwrap_or(Held::Unnamed))
    }

    /// An object.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub(crate) fn object(&self, vault: VaultId, blob: BlobId) -> Result<Held> {
        let text = "SELECT o.place, o.bytes FROM object_item o JOIN vault ON vault.id = o.vault
                    WHERE vault.vault = ?1 AND blob = ?2";
        Ok(self.span(text, params![vault.as_bytes(), blob.as_bytes()])?.unwrap_or(Held::Unnamed))
    }

    /// Commits from one on.
    pub(super) fn commits(&self, vault: i64, from: Seq, to: Seq, limit: usize) -> Result<Vec<Span>> {
        let text = "SELECT place, bytes FROM commit_item WHERE vault = ?1 AND seq BETWEEN ?2 AND ?3
                    ORDER BY seq LIMIT ?4";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.spans(text, params![vault, sql(from.value())?, sql(to.value())?, limit])
    }

    /// Versions after one commit and up to another that no later commit replaced, behind a place.
    pub(super) fn newest(
        &self,
        vault: i64,
        range: (i64, Seq),
        behind: Option<(Seq, RecordId)>,
        limit: usize,
    ) -> Result<Vec<Span>> {
        let text = "SELECT v.place, v.bytes FROM version_item v
                    JOIN newest n ON n.vault = v.vault AND n.record = v.record AND n.seq = v.seq
                    WHERE v.vault = ?1 AND v.seq > ?2 AND v.seq <= ?3 AND v.place IS NOT NULL
                      AND (v.seq, v.record) > (?4, ?5)
                    ORDER BY v.seq, v.record LIMIT ?6";
        let (seq, record) = match behind {
            Some((seq, record)) => (sql(seq.value())?, record.as_bytes().to_vec()),
            None => (-1, Vec::new()),
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.spans(text, params![vault, range.0, sql(range.1.value())?, seq, record, limit])
    }

    fn spans(&self, text: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<Span>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(text)?;
        let rows = statement
            .query_map(values, |row| Ok(Span { place: number(row.get(0)?), bytes: number(row.get(1)?) }))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

fn walk_over(walk: &mut Walk<'_>, whole: u64, progress: &mut dyn FnMut(u64)) -> Result<Scanned> {
    let mut first = [0; PREFIX_BYTES];
    walk.read(&mut first)?;
    let mut items = Items::begin(&first)?;
    let (mut header, mut keys, mut devices) = (None, None, Vec::new());
    loop {
        let mut head = [0; ITEM_HEAD_BYTES];
        walk.read(&mut head)?;
        let head = items.head(&head)?;
        progress(walk.place);
        if head.kind == ItemKind::Object {
            walk.object(&mut items, head, progress)?;
            continue;
        }
        let span = Span { place: walk.place, bytes: head.bytes };
        // Never more than the largest item, and never more than there is.
        if head.bytes > whole.saturating_sub(walk.place) {
            return Err(refused(&"it is cut off"));
        }
        let mut body = vec![0; usize::try_from(head.bytes).map_err(|_| refused(&"an item is too long"))?];
        walk.read(&mut body)?;
        match items.take(head, &body)? {
            Item::Header(found) => header = Some(found),
            Item::KeyHeader(signed) => keys = Some(Keys::Whole(signed)),
            Item::BareKeys(bare) => keys = Some(Keys::Bare(bare)),
            Item::Device(entry) => devices.push(entry),
            Item::Vault(found) => walk.vault(found.vault, span)?,
            Item::Commit(entry, commit) => walk.commit(&commit, &entry.changes.0, span)?,
            Item::Version(entry) => walk.version(entry.seq, entry.record, Some(span))?,
            Item::MissingVersion(missing) => walk.version(missing.seq, missing.record, None)?,
            Item::MissingObject(blob) => {
                let row = params![walk.vault, blob.as_bytes()];
                walk.add("INSERT INTO object_item VALUES (?1, ?2, NULL, NULL)", row)?;
            }
            Item::End(end) => {
                if walk.reader.read(&mut [0]).map_err(|error| ClientError::io(walk.path, error))? > 0 {
                    return Err(refused(&"something follows its end"));
                }
                let (Some(header), Some(keys)) = (header, keys) else {
                    return Err(refused(&"it has no header"));
                };
                return Ok(Scanned { header, keys, devices, items, end });
            }
        }
    }
}
