//! Going back to an earlier commit, and what is kept of what no longer counts.

use super::VaultReplica;
use super::read::sql;
use crate::error::Result;
use lockstep_proto::Digest;
use lockstep_proto::id::{RecordId, Revision, Seq};
use rusqlite::{OptionalExtension as _, Transaction, params};

/// A version that no longer counts.
#[derive(Debug, Clone)]
pub struct Shelved {
    /// Its row here.
    pub id: i64,
    /// Commit that put it.
    pub seq: Seq,
    /// Hash of that commit.
    pub commit: Option<Digest>,
    /// Record.
    pub record: RecordId,
    /// Revision.
    pub revision: Revision,
    /// Document or tombstone.
    pub kind: u8,
    /// Its envelope, if this device held it.
    pub envelope: Option<Vec<u8>>,
    /// The record's revision in the state that counts again.
    pub base: Revision,
    /// Whether it waits to be carried over to the chain that counts.
    pub waits: bool,
}

impl VaultReplica {
    /// Makes the state after a commit the newest again.
    pub(super) fn go_back(&self, t: &Transaction<'_>, to: Seq, on_chain: bool, carries: bool) -> Result<()> {
        let to = sql(to.value());
        t.prepare_cached(
            "INSERT OR IGNORE INTO shelved
                 (vault, seq, record, revision, kind, digest, commit_hash, envelope, state)
             SELECT v.vault, v.seq, v.record, v.revision, v.kind, v.digest, c.hash, r.envelope, ?3
             FROM version v
             LEFT JOIN commit_row c ON c.vault = v.vault AND c.seq = v.seq
             LEFT JOIN record r ON r.vault = v.vault AND r.record = v.record AND r.seq = v.seq
             WHERE v.vault = ?1 AND v.seq > ?2 ORDER BY v.seq, v.record",
        )?
        .execute(params![self.key, to, i64::from(!carries)])?;
        self.put_records_back(t, to)?;
        let run = |text: &str| -> Result<()> {
            t.prepare_cached(text)?.execute(params![self.key, to])?;
            Ok(())
        };
        run("DELETE FROM version WHERE vault = ?1 AND seq > ?2")?;
        if !on_chain {
            run("INSERT OR IGNORE INTO shelved_commit (vault, seq, hash, bytes, signature, changes)
                 SELECT vault, seq, hash, bytes, signature, changes FROM commit_row WHERE vault = ?1 AND seq > ?2")?;
            run("DELETE FROM commit_row WHERE vault = ?1 AND seq > ?2")?;
        }
        // What files looked like says nothing of the state that counts now.
        t.prepare_cached("DELETE FROM stat WHERE vault = ?1")?.execute([self.key])?;
        Ok(())
    }

    fn put_records_back(&self, t: &Transaction<'_>, to: i64) -> Result<()> {
        let text = "SELECT id, record, seq FROM record WHERE vault = ?1 AND seq > ?2";
        let newer: Vec<(i64, Vec<u8>, i64)> = t
            .prepare_cached(text)?
            .query_map(params![self.key, to], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<rusqlite::Result<_>>()?;
        for (id, record, seq) in newer {
            let mut place = Some(seq);
            while let Some(at) = place.filter(|at| *at > to) {
                let text = "SELECT previous_seq FROM version WHERE vault = ?1 AND seq = ?2 AND record = ?3";
                let found: Option<Option<i64>> = t
                    .prepare_cached(text)?
                    .query_row(params![self.key, at, record], |row| row.get(0))
                    .optional()?;
                place = found.ok_or_else(|| super::damaged("a version"))?;
            }
            let text = "UPDATE shelved SET base = coalesce(
                    (SELECT revision FROM version WHERE vault = ?1 AND seq = ?4 AND record = ?3), 0)
                 WHERE vault = ?1 AND record = ?3 AND seq > ?2";
            t.prepare_cached(text)?.execute(params![self.key, to, record, place])?;
            match place {
                None => {
                    t.prepare_cached("DELETE FROM record WHERE id = ?1")?.execute([id])?;
                }
                Some(at) => {
                    let text = "UPDATE record SET (revision, digest, seq, kind) =
                            (SELECT revision, digest, seq, kind FROM version WHERE vault = ?2 AND seq = ?3 AND record = ?4),
                         present = 0, quarantined = 0, envelope = NULL WHERE id = ?1";
                    t.prepare_cached(text)?.execute(params![id, self.key, at, record])?;
                }
            }
        }
        Ok(())
    }

    /// Whether a verified repair abandons a commit.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn is_abandoned(&self, seq: Seq, hash: Digest) -> Result<bool> {
        let text = "SELECT 1 FROM abandoned WHERE vault = ?1 AND seq = ?2 AND hash = ?3";
        let mut statement = self.db.connection().prepare_cached(text)?;
        Ok(statement.exists(params![self.key, sql(seq.value()), hash.as_bytes()])?)
    }

    /// Versions that no longer count, in the order in which they were committed.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn shelved(&self) -> Result<Vec<Shelved>> {
        let text = "SELECT id, seq, commit_hash, record, revision, kind, envelope, state, base FROM shelved
                    WHERE vault = ?1 ORDER BY seq, id";
        let mut statement = self.db.connection().prepare_cached(text)?;
        let rows = statement.query_map([self.key], |row| {
            let number = |value: i64| u64::try_from(value).unwrap_or(0);
            let commit: Option<[u8; 32]> = row.get(2)?;
            Ok(Shelved {
                id: row.get(0)?,
                seq: Seq::new(number(row.get(1)?)),
                commit: commit.map(Digest::from_bytes),
                record: RecordId::from_bytes(row.get(3)?),
                revision: Revision::new(number(row.get(4)?)),
                kind: row.get(5)?,
                envelope: row.get(6)?,
                waits: row.get::<_, i64>(7)? == 0,
                base: Revision::new(number(row.get(8)?)),
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Marks versions as carried over, or as not to be.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn settle_shelved(&self, ids: &[i64]) -> Result<()> {
        let transaction = self.db.connection().unchecked_transaction()?;
        for id in ids {
            transaction
                .prepare_cached("UPDATE shelved SET state = 1 WHERE vault = ?1 AND id = ?2")?
                .execute(params![self.key, id])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Keeps a version of a commit that does not count, fetched for review.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn shelve(&self, shelved: &Shelved, digest: Digest) -> Result<()> {
        let text = "INSERT OR IGNORE INTO shelved
                (vault, seq, record, revision, kind, digest, commit_hash, envelope, state)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        self.db.connection().prepare_cached(text)?.execute(params![
            self.key,
            sql(shelved.seq.value()),
            shelved.record.as_bytes(),
            sql(shelved.revision.value()),
            shelved.kind,
            digest.as_bytes(),
            shelved.commit.map(|hash| *hash.as_bytes()),
            shelved.envelope,
            i64::from(!shelved.waits),
        ])?;
        Ok(())
    }

    /// Commits of chains that were given up, ascending: seq and hash.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn shelved_commits(&self) -> Result<Vec<(Seq, Digest)>> {
        let text = "SELECT seq, hash FROM shelved_commit WHERE vault = ?1 ORDER BY seq, hash";
        let mut statement = self.db.connection().prepare_cached(text)?;
        let rows = statement.query_map([self.key], |row| {
            Ok((Seq::new(u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0)), Digest::from_bytes(row.get(1)?)))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}
