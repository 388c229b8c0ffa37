//! What of a vault is held here: the selection, and the records that it leaves out.

use super::read::{RECORD_COLUMNS, record_row, sql};
use super::{Db, VaultReplica};
use crate::error::Result;
use crate::rng;
use lockstep_engine::replica::RecordRow;
use lockstep_engine::select::{Selection, written};
use lockstep_proto::cbor::{decode_local, encode};
use lockstep_proto::id::RecordId;
use rusqlite::params;

/// Lets an envelope go, but for one whose record is still to be sent.
pub(super) const EVICT: &str =
    "UPDATE record SET present = 0, evicted = 1, envelope = NULL, quarantined = 0, conflict = 0, due = NULL
     WHERE vault = ?1 AND record = ?2
     AND NOT EXISTS (SELECT 1 FROM pending p WHERE p.vault = ?1 AND p.record = ?2)";
/// Wants it back.
pub(super) const RECALL: &str =
    "UPDATE record SET evicted = 0 WHERE vault = ?1 AND record = ?2 AND evicted = 1";
/// Says when a record is to be looked at again.
pub(super) const HOLD: &str = "UPDATE record SET due = ?3 WHERE vault = ?1 AND record = ?2";
/// When a record that comes is to be looked at: at once, if not everything is held.
pub(super) const DUE: &str = "(SELECT iif(keep IS NULL, NULL, 0) FROM vault WHERE id = ?1)";

/// Days, and types, each an array of none or one.
type Fields = (Vec<u64>, Vec<Vec<String>>);

/// A place in the order in which records are looked at.
pub(crate) type DuePlace = (i64, i64);

impl Db {
    /// Gives space back to the file system that is free in the database.
    ///
    /// # Errors
    /// [`crate::ClientError`]; everything is as it was then.
    pub fn shrink(&self) -> Result<()> {
        Ok(self.connection().execute_batch("VACUUM")?)
    }
}

impl VaultReplica {
    fn keep_place(&self) -> Vec<u8> {
        let mut place = b"keep".to_vec();
        place.extend_from_slice(self.vault.as_bytes());
        place
    }

    /// What of the vault is held here; none: everything.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn selection(&self) -> Result<Option<Selection>> {
        let mut statement = self.db.connection().prepare_cached("SELECT keep FROM vault WHERE id = ?1")?;
        let sealed: Option<Vec<u8>> = statement.query_row([self.key], |row| row.get(0))?;
        let Some(sealed) = sealed else { return Ok(None) };
        let damaged = || super::damaged("what is held of a vault");
        let plain = self.db.keys().open_row(&self.keep_place(), &sealed).map_err(|_| damaged())?;
        let (days, types): Fields = decode_local(&plain).ok_or_else(damaged)?;
        Ok(Some(Selection {
            days: days.first().copied(),
            types: types.into_iter().next().map(|types| types.into_iter().collect()),
        }))
    }

    /// Sets it. Every record is looked at anew, and what is wanted now and is not here counts as missing.
    ///
    /// # Errors
    /// [`crate::ClientError`]; nothing was changed then.
    pub fn set_selection(&self, selection: Option<&Selection>) -> Result<()> {
        let wanted = match selection {
            None => Vec::new(),
            Some(selection) => self.wanted_again(selection)?,
        };
        let sealed = selection.map(|selection| {
            let days: Vec<u64> = selection.days.into_iter().collect();
            let types: Vec<Vec<&String>> =
                selection.types.iter().map(|types| types.iter().collect()).collect();
            self.db.keys().seal_row(&self.keep_place(), &encode(&(days, types)), &mut rng::system())
        });
        let transaction = self.db.connection().unchecked_transaction()?;
        transaction.execute("UPDATE vault SET keep = ?2 WHERE id = ?1", params![self.key, sealed])?;
        if selection.is_none() {
            let all = "UPDATE record SET evicted = 0, due = NULL WHERE vault = ?1 AND (evicted = 1 OR due IS NOT NULL)";
            transaction.execute(all, [self.key])?;
        } else {
            let anew = "UPDATE record SET due = 0 WHERE vault = ?1 AND evicted = 0 AND due IS NOT 0";
            transaction.execute(anew, [self.key])?;
            for record in wanted {
                transaction.prepare_cached(RECALL)?.execute(params![self.key, record.as_bytes()])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Records that were let go of and that a selection holds.
    fn wanted_again(&self, selection: &Selection) -> Result<Vec<RecordId>> {
        let mut rows = Vec::new();
        match &selection.types {
            None => rows = self.not_held(None)?,
            Some(types) => {
                for record_type in types {
                    rows.extend(self.not_held(Some(record_type))?);
                }
            }
        }
        let since = selection.since(rng::now_utc());
        let mut wanted = Vec::new();
        for row in rows {
            if written(self, row.seq)? >= since {
                wanted.push(row.record);
            }
        }
        Ok(wanted)
    }

    /// Records (of a type) that are known and deliberately not held, deletions included.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn not_held(&self, record_type: Option<&str>) -> Result<Vec<RecordRow>> {
        Ok(match record_type {
            None => self.records("vault = ?1 AND evicted = 1", params![self.key])?,
            Some(record_type) => {
                let tag = self.db.keys().tag("type", record_type.as_bytes());
                self.records("vault = ?1 AND evicted = 1 AND tag = ?2", params![self.key, &tag[..]])?
            }
        })
    }

    /// Records that are to be looked at, if what is held begins at `since`; after a place, at most `limit`. With the
    /// place of the last one.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub(crate) fn due(
        &self,
        since: u64,
        after: DuePlace,
        limit: usize,
    ) -> Result<(Vec<RecordRow>, Option<DuePlace>)> {
        let text = format!(
            "SELECT {RECORD_COLUMNS}, due, id FROM record WHERE vault = ?1 AND (due, id) > (?2, ?3) AND due <= ?4
             ORDER BY due, id LIMIT ?5"
        );
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = self.db.connection().prepare_cached(&text)?;
        let mut rows = statement.query(params![self.key, after.0, after.1, sql(since), limit])?;
        let (mut found, mut last) = (Vec::new(), None);
        while let Some(row) = rows.next()? {
            found.push(record_row(row)?);
            last = Some((row.get(6)?, row.get(7)?));
        }
        Ok((found, last))
    }
}
