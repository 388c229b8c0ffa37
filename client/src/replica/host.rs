//! The tables of host stores. What they mean is in [`crate::host`].

use super::read::sql;
use super::{VaultReplica, damaged};
use crate::error::{ClientError, Result};
use lockstep_proto::Digest;
use lockstep_proto::id::{RecordId, Seq};
use rusqlite::{OptionalExtension as _, params};
use zeroize::Zeroizing;

/// A host store of a vault.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoreKey(i64);

/// Says which schema a cursor is of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SchemaTag([u8; 16]);

/// Type and key of a row, as the store has them.
pub(crate) type KeyText<'a> = (&'a str, &'a str);

impl VaultReplica {
    /// A store by its name; it is made if it is not there.
    pub(crate) fn host_store(&self, name: &str) -> Result<StoreKey> {
        let tag = self.db.keys().tag("host store", name.as_bytes());
        let text = "INSERT OR IGNORE INTO host_store (vault, tag, imported) VALUES (?1, ?2, 0)";
        let select = "SELECT id FROM host_store WHERE vault = ?1 AND tag = ?2";
        let connection = self.db.connection();
        let find = || connection.prepare_cached(select)?.query_row(params![self.key, tag], |row| row.get(0));
        if let Some(id) = find().optional()? {
            return Ok(StoreKey(id));
        }
        if self.selection()?.is_some() {
            return Err(ClientError::Usage(
                "this device does not hold all of the vault, and a database of an app's own needs all rows: hold it whole \
                 first (lockstep vault keep NAME --all)"
                    .into(),
            ));
        }
        connection.prepare_cached(text)?.execute(params![self.key, tag])?;
        Ok(StoreKey(find()?))
    }

    /// A cursor of this schema; what was passed with another one may not have been delivered.
    pub(crate) fn host_cursor(&self, store: StoreKey, schema: &SchemaTag) -> Result<Option<(Seq, Digest)>> {
        let text = "SELECT seq, hash FROM host_store WHERE id = ?1 AND schema = ?2";
        let mut statement = self.db.connection().prepare_cached(text)?;
        let row: Option<(Option<i64>, Option<[u8; 32]>)> = statement
            .query_row(params![store.0, schema.0], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((Some(seq), Some(hash))) = row else { return Ok(None) };
        let seq = u64::try_from(seq).map_err(|_| damaged("a cursor"))?;
        Ok(Some((Seq::new(seq), Digest::from_bytes(hash))))
    }

    pub(crate) fn schema_tag(&self, schema: &[u8]) -> SchemaTag {
        SchemaTag(self.db.keys().tag("host schema", schema))
    }

    pub(crate) fn set_host_cursor(
        &self,
        store: StoreKey,
        place: (Seq, Digest),
        schema: &SchemaTag,
    ) -> Result<()> {
        let text = "UPDATE host_store SET seq = ?2, hash = ?3, schema = ?4 WHERE id = ?1";
        let values = params![store.0, sql(place.0.value()), place.1.as_bytes(), schema.0];
        self.db.connection().prepare_cached(text)?.execute(values)?;
        Ok(())
    }

    /// How far the import of a store got: 0 not begun, 1 begun, 2 done.
    pub(crate) fn host_imported(&self, store: StoreKey) -> Result<u8> {
        let mut statement =
            self.db.connection().prepare_cached("SELECT imported FROM host_store WHERE id = ?1")?;
        Ok(statement.query_row([store.0], |row| row.get(0))?)
    }

    pub(crate) fn set_host_imported(&self, store: StoreKey, imported: u8) -> Result<()> {
        let text = "UPDATE host_store SET imported = ?2 WHERE id = ?1";
        self.db.connection().prepare_cached(text)?.execute(params![store.0, imported])?;
        Ok(())
    }

    fn host_place(&self, store: StoreKey, record: RecordId) -> Vec<u8> {
        let mut place = b"host_row".to_vec();
        place.extend_from_slice(self.vault.as_bytes());
        place.extend_from_slice(&store.0.to_be_bytes());
        place.extend_from_slice(record.as_bytes());
        place
    }

    fn key_tag(&self, (record_type, key): KeyText<'_>) -> [u8; 16] {
        self.db.keys().tag("host key", format!("{record_type}\0{key}").as_bytes())
    }

    /// What is kept of a record.
    pub(crate) fn host_row(&self, store: StoreKey, record: RecordId) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let text = "SELECT sealed FROM host_row WHERE store = ?1 AND record = ?2";
        let mut statement = self.db.connection().prepare_cached(text)?;
        let row: Option<Vec<u8>> =
            statement.query_row(params![store.0, record.as_bytes()], |row| row.get(0)).optional()?;
        let Some(sealed) = row else { return Ok(None) };
        let opened = self.db.keys().open_row(&self.host_place(store, record), &sealed);
        Ok(Some(opened.map_err(|_| damaged("a row of a host store"))?))
    }

    /// The record of a row of the store.
    pub(crate) fn host_record(&self, store: StoreKey, key: KeyText<'_>) -> Result<Option<RecordId>> {
        let text = "SELECT record FROM host_row WHERE store = ?1 AND key_tag = ?2";
        let mut statement = self.db.connection().prepare_cached(text)?;
        let found: Option<[u8; 16]> =
            statement.query_row(params![store.0, self.key_tag(key)], |row| row.get(0)).optional()?;
        Ok(found.map(RecordId::from_bytes))
    }

    /// Keeps a row; a key names one record only.
    pub(crate) fn set_host_row(
        &self,
        store: StoreKey,
        record: RecordId,
        key: Option<KeyText<'_>>,
        owed: bool,
        plain: &[u8],
    ) -> Result<()> {
        let text = "INSERT INTO host_row (vault, store, record, key_tag, owed, sealed)
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                    ON CONFLICT (store, record) DO UPDATE SET key_tag = excluded.key_tag, owed = excluded.owed,
                    sealed = excluded.sealed";
        let place = self.host_place(store, record);
        let sealed = self.db.keys().seal_row(&place, plain, &mut crate::rng::system());
        let tag = key.map(|key| self.key_tag(key));
        let values = params![self.key, store.0, record.as_bytes(), tag, owed, sealed];
        match self.db.connection().prepare_cached(text)?.execute(values) {
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
                Err(ClientError::Usage("the key belongs to another record of the store".into()))
            }
            other => Ok(other.map(|_| ())?),
        }
    }

    /// Records of which something is kept; with `owed`, only those that are looked at although nothing was committed.
    pub(crate) fn host_records(&self, store: StoreKey, owed: bool) -> Result<Vec<RecordId>> {
        let text = if owed {
            "SELECT record FROM host_row WHERE store = ?1 AND owed = 1"
        } else {
            "SELECT record FROM host_row WHERE store = ?1"
        };
        let mut statement = self.db.connection().prepare_cached(text)?;
        let rows = statement.query_map([store.0], |row| row.get::<_, [u8; 16]>(0))?;
        rows.map(|row| row.map(RecordId::from_bytes).map_err(ClientError::from)).collect()
    }

    /// Notes that a change was handed in; false if it was before.
    pub(crate) fn note_host_change(&self, store: StoreKey, change: &[u8]) -> Result<bool> {
        let tag = self.db.keys().tag("host change", change);
        let text = "INSERT OR IGNORE INTO host_change (vault, store, tag) VALUES (?1, ?2, ?3)";
        let count = self.db.connection().prepare_cached(text)?.execute(params![self.key, store.0, tag])?;
        Ok(count == 1)
    }

    /// Forgets that a change was handed in.
    pub(crate) fn drop_host_change(&self, store: StoreKey, change: &[u8]) -> Result<()> {
        let tag = self.db.keys().tag("host change", change);
        let text = "DELETE FROM host_change WHERE store = ?1 AND tag = ?2";
        self.db.connection().prepare_cached(text)?.execute(params![store.0, tag])?;
        Ok(())
    }
}
