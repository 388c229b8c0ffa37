//! Going back to an earlier commit, and what is kept of what no longer counts.

use super::VaultReplica;
use super::read::sql;
use crate::error::Result;
use lockstep_proto::Digest;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::{Changes, Commit, KIND_REPAIR};
use lockstep_proto::id::{RecordId, Revision, Seq};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::BTreeSet;

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
    /// Whether its envelope is here.
    pub has_envelope: bool,
    /// The record's revision in the state that counts again.
    pub base: Revision,
    /// Whether it waits to be carried over to the chain that counts.
    pub waits: bool,
}

/// What is on the shelf of a record stands on the version that counts again. Once per record: it has an index.
const REBASE: &str = "UPDATE shelved SET base = coalesce(
        (SELECT revision FROM version WHERE vault = ?1 AND seq = ?4 AND record = ?3), 0)
    WHERE vault = ?1 AND record = ?3 AND seq > ?2";

impl VaultReplica {
    /// Makes the state after a commit the newest again.
    pub(super) fn go_back(&self, t: &Connection, to: Seq, on_chain: bool, carries: bool) -> Result<()> {
        let to = sql(to.value());
        // What was carried over once, counted again since, and is given up again waits again.
        t.prepare_cached(
            "INSERT INTO shelved
                 (vault, seq, record, revision, kind, digest, commit_hash, envelope, evicted, state)
             SELECT v.vault, v.seq, v.record, v.revision, v.kind, v.digest, c.hash, r.envelope,
                    coalesce(r.evicted, 0), ?3
             FROM version v
             LEFT JOIN commit_row c ON c.vault = v.vault AND c.seq = v.seq
             LEFT JOIN record r ON r.vault = v.vault AND r.record = v.record AND r.seq = v.seq
             WHERE v.vault = ?1 AND v.seq > ?2 ORDER BY v.seq, v.record
             ON CONFLICT (vault, seq, record, digest) DO UPDATE SET state = min(state, excluded.state),
                 envelope = coalesce(envelope, excluded.envelope), evicted = excluded.evicted",
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
            self.forget_abandoned(t, to)?;
        }
        // What files looked like says nothing of the state that counts now.
        t.prepare_cached("DELETE FROM stat WHERE vault = ?1")?.execute([self.key])?;
        Ok(())
    }

    /// What only repairs abandon that were given up themselves is abandoned no more: the chain that counts has to name
    /// it, too.
    fn forget_abandoned(&self, t: &Connection, to: i64) -> Result<()> {
        let mut given_up = self.named_by(t, "shelved_commit", "seq > ?2", to)?;
        if given_up.is_empty() {
            return Ok(());
        }
        for place in self.named_by(t, "commit_row", "seq <= ?2", to)? {
            given_up.remove(&place);
        }
        for (seq, hash) in given_up {
            t.prepare_cached("DELETE FROM abandoned WHERE vault = ?1 AND seq = ?2 AND hash = ?3")?
                .execute(params![self.key, sql(seq.value()), hash.as_bytes()])?;
        }
        Ok(())
    }

    /// What the repairs among some commits abandon.
    fn named_by(
        &self,
        t: &Connection,
        table: &str,
        condition: &str,
        to: i64,
    ) -> Result<BTreeSet<(Seq, Digest)>> {
        let mut named = BTreeSet::new();
        let text = format!("SELECT bytes, changes FROM {table} WHERE vault = ?1 AND {condition}");
        let mut statement = t.prepare(&text)?;
        let mut rows = statement.query(params![self.key, to])?;
        while let Some(row) = rows.next()? {
            let (bytes, changes): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
            let is_repair = Commit::decode(&bytes).is_ok_and(|commit| commit.kind == KIND_REPAIR);
            if let Some(changes) = is_repair.then(|| Changes::decode(&changes).ok()).flatten() {
                named.extend(changes.abandoned());
            }
        }
        Ok(named)
    }

    fn put_records_back(&self, t: &Connection, to: i64) -> Result<()> {
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
            t.prepare_cached(REBASE)?.execute(params![self.key, to, record, place])?;
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
        self.shelved_where("vault = ?1")
    }

    /// Those that wait to be carried over.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn waiting(&self) -> Result<Vec<Shelved>> {
        self.shelved_where("vault = ?1 AND state = 0")
    }

    fn shelved_where(&self, condition: &str) -> Result<Vec<Shelved>> {
        let text = format!(
            "SELECT id, seq, commit_hash, record, revision, kind, envelope IS NOT NULL, state, base FROM shelved
             WHERE {condition} ORDER BY seq, id"
        );
        let mut statement = self.db.connection().prepare_cached(&text)?;
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
                has_envelope: row.get(6)?,
                waits: row.get::<_, i64>(7)? == 0,
                base: Revision::new(number(row.get(8)?)),
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Whether any waits.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn has_waiting(&self) -> Result<bool> {
        let text = "SELECT 1 FROM shelved WHERE vault = ?1 AND state = 0";
        Ok(self.db.connection().prepare_cached(text)?.exists([self.key])?)
    }

    /// Whether a version that no longer counts was the newest of its record, and this device did not hold it.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub(crate) fn was_not_held(&self, id: i64) -> Result<bool> {
        let text = "SELECT 1 FROM shelved WHERE vault = ?1 AND id = ?2 AND evicted > 0 AND envelope IS NULL";
        Ok(self.db.connection().prepare_cached(text)?.exists(params![self.key, id])?)
    }

    /// Envelope of a version that no longer counts, if it is here.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn shelved_envelope(&self, id: i64) -> Result<Option<Vec<u8>>> {
        let text = "SELECT envelope FROM shelved WHERE vault = ?1 AND id = ?2";
        let mut statement = self.db.connection().prepare_cached(text)?;
        let row = statement.query_row(params![self.key, id], |row| row.get(0)).optional()?;
        Ok(row.flatten())
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

    /// Keeps versions of a commit that is about to be gone back over, with their digests and envelopes. One that waits
    /// takes the place of those of its record that wait since the commit `good`, which counts.
    ///
    /// # Errors
    /// [`crate::ClientError`]; nothing was kept then.
    pub fn shelve(&self, good: Seq, versions: &[(Shelved, Digest, Vec<u8>)]) -> Result<()> {
        const INSERT: &str = "INSERT OR IGNORE INTO shelved
                (vault, seq, record, revision, kind, digest, commit_hash, envelope, base, state)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        const REPLACE: &str = "UPDATE shelved SET state = 1
            WHERE vault = ?1 AND record = ?2 AND seq > ?3 AND seq < ?4 AND state = 0";
        let transaction = self.db.connection().unchecked_transaction()?;
        for (version, digest, envelope) in versions {
            let (record, seq) = (version.record.as_bytes(), sql(version.seq.value()));
            transaction.prepare_cached(INSERT)?.execute(params![
                self.key,
                seq,
                record,
                sql(version.revision.value()),
                version.kind,
                digest.as_bytes(),
                version.commit.map(|hash| *hash.as_bytes()),
                envelope,
                sql(version.base.value()),
                i64::from(!version.waits),
            ])?;
            if version.waits {
                let values = params![self.key, record, sql(good.value()), seq];
                transaction.prepare_cached(REPLACE)?.execute(values)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Commits of chains that were given up here and that no verified repair abandons, ascending: seq and hash. One that
    /// is in the verified chain again is none.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn unnamed_commits(&self) -> Result<Vec<(Seq, Digest)>> {
        let text = "SELECT seq, hash FROM shelved_commit c WHERE vault = ?1 AND NOT EXISTS
                        (SELECT 1 FROM abandoned a WHERE a.vault = c.vault AND a.seq = c.seq AND a.hash = c.hash)
                    AND NOT EXISTS
                        (SELECT 1 FROM commit_row r WHERE r.vault = c.vault AND r.seq = c.seq AND r.hash = c.hash)
                    ORDER BY seq, hash";
        let mut statement = self.db.connection().prepare_cached(text)?;
        let rows = statement.query_map([self.key], |row| {
            Ok((Seq::new(u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0)), Digest::from_bytes(row.get(1)?)))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Db;
    use super::*;
    use lockstep_client_crypto::local::LocalKeys;
    use lockstep_client_crypto::secret::SecretKey;
    use lockstep_engine::replica::Replica as _;
    use lockstep_proto::id::VaultId;

    struct Scratch(std::path::PathBuf);

    impl Scratch {
        fn replica(&self) -> VaultReplica {
            let keys = LocalKeys::new(&SecretKey::from_bytes(&[5; 32]));
            let db = Db::open(&self.0.join("replica.sqlite"), keys, true).unwrap();
            let create = super::super::signed((vec![1], [0; 64]));
            db.vault(VaultId::from_bytes([7; 16]), Some(&create)).unwrap().unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn scratch(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("lockstep-shelf-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn version(seq: u64, record: u8, waits: bool) -> (Shelved, Digest, Vec<u8>) {
        let row = Shelved {
            id: 0,
            seq: Seq::new(seq),
            commit: Some(Digest::from_bytes([9; 32])),
            record: RecordId::from_bytes([record; 16]),
            revision: Revision::new(seq),
            kind: 1,
            has_envelope: true,
            base: Revision::new(1),
            waits,
        };
        (row, Digest::from_bytes([u8::try_from(seq).unwrap(); 32]), vec![record])
    }

    fn seqs(rows: &[Shelved]) -> Vec<u64> {
        rows.iter().map(|row| row.seq.value()).collect()
    }

    /// Going back touches the shelf once per record: each touch finds its rows by an index of all that is looked for.
    #[test]
    fn going_back_finds_what_it_touches_by_index() {
        let scratch = scratch("plan");
        let replica = scratch.replica();
        let plan = |text: &str| -> String {
            let mut statement =
                replica.db().connection().prepare(&format!("EXPLAIN QUERY PLAN {text}")).unwrap();
            let count = statement.parameter_count();
            let values = vec![rusqlite::types::Value::Integer(1); count];
            let rows = statement
                .query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3))
                .unwrap()
                .map(|row| row.unwrap())
                .collect::<Vec<String>>();
            rows.join("; ")
        };
        let rebase = plan(REBASE);
        assert!(rebase.contains("shelved_record (vault=? AND record=? AND seq>?)"), "{rebase}");
        let waits = plan("SELECT 1 FROM shelved WHERE vault = ?1 AND state = 0");
        assert!(waits.contains("shelved_waits"), "{waits}");
    }

    /// The newest version that waits takes the place of earlier ones; what is there already stays as it is.
    #[test]
    fn of_a_record_the_newest_version_waits() {
        let scratch = scratch("newest");
        let replica = scratch.replica();
        assert!(!replica.has_waiting().unwrap());
        let all = [version(5, 1, true), version(6, 2, true), version(7, 1, true), version(8, 1, false)];
        for _ in 0..2 {
            replica.shelve(Seq::new(4), &all).unwrap();
            assert_eq!(seqs(&replica.waiting().unwrap()), [6, 7]);
            assert_eq!(seqs(&replica.shelved().unwrap()), [5, 6, 7, 8]);
        }
        let ids: Vec<i64> = replica.waiting().unwrap().iter().map(|row| row.id).collect();
        assert_eq!(replica.shelved_envelope(ids[0]).unwrap(), Some(vec![2]));
        assert!(replica.has_waiting().unwrap());
        replica.settle_shelved(&ids).unwrap();
        replica.shelve(Seq::new(4), &all).unwrap();
        assert!(!replica.has_waiting().unwrap(), "what was carried over is carried over once");
        assert!(replica.head().unwrap().is_none());
    }
}
