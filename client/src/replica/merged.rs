//! What automatic merges decided, and which records wait for a decision.

use super::VaultReplica;
use super::read::sql;
use crate::error::Result;
use crate::rng;
use lockstep_engine::replica::{MergeRow, RecordRow};
use lockstep_proto::cbor::{Bytes, Wire as _, decode_local, encode};
use lockstep_proto::id::{OperationId, RecordId, Revision};
use rusqlite::{Connection, OptionalExtension as _, params};
use zeroize::Zeroizing;

/// Merges that are remembered in a vault.
const ENTRIES_MAX: u64 = 1000;

type Fields = (OperationId, RecordId, Revision, u64, Bytes, Bytes);

/// A merge that this device did.
#[derive(Clone)]
pub struct MergeEntry {
    /// Random id.
    pub entry: [u8; 16],
    /// When, in seconds since 1970 by this device's clock.
    pub utc: u64,
    /// The pending write.
    pub operation: OperationId,
    /// Its record.
    pub record: RecordId,
    /// The committed revision that it was merged with.
    pub revision: Revision,
    /// What was decided.
    pub decisions: lockstep_merge::Record,
    /// Encoded content of the pending write as it was.
    pub pending: Vec<u8>,
}

impl std::fmt::Debug for MergeEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MergeEntry({}, revision {})", self.record, self.revision)
    }
}

impl VaultReplica {
    fn merge_place(&self, entry: [u8; 16]) -> Vec<u8> {
        let mut place = b"merge".to_vec();
        place.extend_from_slice(self.vault.as_bytes());
        place.extend_from_slice(&entry);
        place
    }

    /// Remembers a merge, and forgets the oldest beyond a thousand.
    pub(super) fn add_merge(&self, t: &Connection, row: &MergeRow) -> Result<()> {
        let entry = rng::bytes();
        let fields: Fields = (
            row.operation,
            row.record,
            row.revision,
            rng::now_ms() / 1000,
            row.decisions.clone().into(),
            row.pending.clone().into(),
        );
        let plain = Zeroizing::new(encode(&fields));
        let sealed = self.db.keys().seal_row(&self.merge_place(entry), &plain, &mut rng::system());
        t.prepare_cached("INSERT INTO merge (vault, entry, sealed) VALUES (?1, ?2, ?3)")?
            .execute(params![self.key, entry, sealed])?;
        let oldest = "DELETE FROM merge WHERE vault = ?1 AND id <=
            (SELECT id FROM merge WHERE vault = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
        t.prepare_cached(oldest)?.execute(params![self.key, sql(ENTRIES_MAX)])?;
        Ok(())
    }

    /// Merges that this device did, the newest first; at most a thousand.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn merges(&self) -> Result<Vec<MergeEntry>> {
        let text = "SELECT entry, sealed FROM merge WHERE vault = ?1 ORDER BY id DESC";
        let mut statement = self.db.connection().prepare_cached(text)?;
        let mut rows = statement.query([self.key])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (entry, sealed): ([u8; 16], Vec<u8>) = (row.get(0)?, row.get(1)?);
            found.push(self.merge_entry(entry, &sealed)?);
        }
        Ok(found)
    }

    fn merge_entry(&self, entry: [u8; 16], sealed: &[u8]) -> Result<MergeEntry> {
        let damaged = || super::damaged("a merge");
        let plain = self.db.keys().open_row(&self.merge_place(entry), sealed).map_err(|_| damaged())?;
        let fields: Fields = decode_local(&plain).ok_or_else(damaged)?;
        let (operation, record, revision, utc, decisions, pending) = fields;
        let decisions = lockstep_merge::Record::decode(&decisions.0).map_err(|_| damaged())?;
        Ok(MergeEntry { entry, utc, operation, record, revision, decisions, pending: pending.0 })
    }

    fn policies_place(&self) -> Vec<u8> {
        [&b"policies"[..], self.vault.as_bytes()].concat()
    }

    /// Merge policies of the app that this home belongs to, encoded.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub(crate) fn own_policies(&self) -> Result<Option<Vec<u8>>> {
        let text = "SELECT policies FROM vault WHERE id = ?1";
        let sealed: Option<Vec<u8>> =
            self.db.connection().prepare_cached(text)?.query_row([self.key], |row| row.get(0))?;
        let open = |sealed: Vec<u8>| {
            let plain = self.db.keys().open_row(&self.policies_place(), &sealed);
            plain.map(|plain| plain.to_vec()).map_err(|_| super::damaged("the app's merge policies"))
        };
        sealed.map(open).transpose()
    }

    /// Sets them.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub(crate) fn set_own_policies(&self, policies: Option<&[u8]>) -> Result<()> {
        if self.own_policies()?.as_deref() == policies {
            return Ok(());
        }
        let place = self.policies_place();
        let sealed = policies.map(|policies| self.db.keys().seal_row(&place, policies, &mut rng::system()));
        let text = "UPDATE vault SET policies = ?2 WHERE id = ?1";
        self.db.connection().prepare_cached(text)?.execute(params![self.key, sealed])?;
        Ok(())
    }

    /// Records that may wait for a decision, ascending, after one; at most `limit`. Those that were not looked at since
    /// the policies changed are among them.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn maybe_open(&self, after: Option<RecordId>, limit: usize) -> Result<Vec<RecordRow>> {
        let after = after.map_or_else(Vec::new, |record| record.as_bytes().to_vec());
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let condition = "vault = ?1 AND conflict IS NOT 0 AND record > ?2 ORDER BY record LIMIT ?3";
        Ok(self.records(condition, params![self.key, after, limit])?)
    }

    /// How many records may wait for a decision.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn maybe_open_count(&self) -> Result<u64> {
        let text = "SELECT count(*) FROM record WHERE vault = ?1 AND conflict IS NOT 0";
        let count: Option<i64> =
            self.db.connection().prepare_cached(text)?.query_row([self.key], |row| row.get(0)).optional()?;
        Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
    }

    /// Notes whether a record waits for a decision, as long as it is the version that was looked at.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn set_open(&self, row: &RecordRow, is_open: bool) -> Result<()> {
        let text = "UPDATE record SET conflict = ?4 WHERE vault = ?1 AND record = ?2 AND seq = ?3";
        let values = params![self.key, row.record.as_bytes(), sql(row.seq.value()), is_open];
        self.db.connection().prepare_cached(text)?.execute(values)?;
        Ok(())
    }

    /// From now on it has to be looked again which records wait: the policies changed.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn forget_open(&self) -> Result<()> {
        let text = "UPDATE record SET conflict = NULL WHERE vault = ?1 AND conflict = 0 AND kind = 1 AND evicted = 0";
        self.db.connection().prepare_cached(text)?.execute([self.key])?;
        Ok(())
    }
}
