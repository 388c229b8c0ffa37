//! What of a vault is held here: the selection, and the records that it leaves out.

use super::read::{RECORD_COLUMNS, record_row, sql};
use super::{Db, VaultReplica};
use crate::error::{ClientError, Result};
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
/// Wants it, without waiting for it; but for one that was never here and that a write may have to be joined with.
pub(super) const RECALL: &str =
    "UPDATE record SET evicted = 2 WHERE vault = ?1 AND record = ?2 AND present = 0
     AND (evicted = 1 OR NOT EXISTS (SELECT 1 FROM pending p WHERE p.vault = ?1 AND p.record = ?2))";
/// Finds those that are wanted and did not come yet.
pub(super) const WANTED: &str =
    "vault = ?1 AND evicted = 2 AND (seq, record) > (?2, ?3) ORDER BY seq, record LIMIT ?4";
/// Says when a record is to be looked at again.
pub(super) const HOLD: &str = "UPDATE record SET due = ?3 WHERE vault = ?1 AND record = ?2";
/// When a record that comes is to be looked at: at once, if not everything is held.
pub(super) const DUE: &str = "(SELECT iif(keep IS NULL, NULL, 0) FROM vault WHERE id = ?1)";

/// Finds the records that are due, a page at a time.
const IS_DUE: &str =
    "vault = ?1 AND due IS NOT NULL AND (due, id) > (?2, ?3) AND due <= ?4 ORDER BY due, id LIMIT ?5";

/// Days, and types, each an array of none or one.
type Fields = (Vec<u64>, Vec<Vec<String>>);

/// A place in the order in which records are looked at.
pub(crate) type DuePlace = (i64, i64);

impl Db {
    /// Gives space back to the file system that is free in the database.
    ///
    /// # Errors
    /// [`ClientError`]; everything is as it was then.
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
    /// [`ClientError`].
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

    /// Sets it. Every record is looked at anew, and what is wanted now and is not here is asked for with every sync.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if an app's own database has the vault's rows: it could miss some. [`ClientError`]; nothing
    /// was changed then.
    pub fn set_selection(&self, selection: Option<&Selection>) -> Result<()> {
        let text = "SELECT 1 FROM host_store WHERE vault = ?1";
        if selection.is_some() && self.db.connection().prepare_cached(text)?.exists([self.key])? {
            return Err(ClientError::Usage(
                "an app's own database has the rows of this vault: it is held whole".into(),
            ));
        }
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
            let all = "UPDATE record SET evicted = 2 WHERE vault = ?1 AND evicted > 0";
            transaction.execute(all, [self.key])?;
            let never = "UPDATE record SET due = NULL WHERE vault = ?1 AND due IS NOT NULL";
            transaction.execute(never, [self.key])?;
        } else {
            let none = "UPDATE record SET evicted = 1 WHERE vault = ?1 AND evicted = 2";
            transaction.execute(none, [self.key])?;
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

    /// Records (of a type) that are known and not held, deletions included: they were let go of, or are wanted and did not
    /// come.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn not_held(&self, record_type: Option<&str>) -> Result<Vec<RecordRow>> {
        Ok(match record_type {
            None => self.records("vault = ?1 AND evicted > 0", params![self.key])?,
            Some(record_type) => {
                let tag = self.db.keys().tag("type", record_type.as_bytes());
                self.records("vault = ?1 AND evicted > 0 AND tag = ?2", params![self.key, &tag[..]])?
            }
        })
    }

    /// Records that are to be looked at, if what is held begins at `since`; after a place, at most `limit`. With the
    /// place of the last one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) fn due(
        &self,
        since: u64,
        after: DuePlace,
        limit: usize,
    ) -> Result<(Vec<RecordRow>, Option<DuePlace>)> {
        let text = format!("SELECT {RECORD_COLUMNS}, due, id FROM record WHERE {IS_DUE}");
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

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_client_crypto::local::LocalKeys;
    use lockstep_client_crypto::secret::SecretKey;
    use lockstep_engine::replica::{EnvelopeSource, IndexInfo, Replica as _, WriteOp};
    use lockstep_proto::Digest;
    use lockstep_proto::id::{Revision, Seq, VaultId};

    struct Scratch(std::path::PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("lockstep-select-{}-{name}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

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

    fn put(byte: u8) -> WriteOp {
        let row = RecordRow {
            record: RecordId::from_bytes([byte; 16]),
            revision: Revision::new(1),
            digest: Digest::from_bytes([byte; 32]),
            seq: Seq::new(u64::from(byte)),
            kind: 1,
            present: true,
        };
        let index = IndexInfo { record_type: "secret-type".into(), group: Vec::new(), conflict: false };
        WriteOp::SetRecord(row, EnvelopeSource::Here(vec![byte], Some(index)))
    }

    fn days(days: u64) -> Selection {
        Selection { days: Some(days), types: None }
    }

    /// All that is due, in pages of two.
    fn due(replica: &VaultReplica, since: u64) -> Vec<u8> {
        let (mut found, mut after) = (Vec::new(), (-1, 0));
        while let (rows, Some(last)) = replica.due(since, after, 2).unwrap() {
            found.extend(rows.iter().map(|row| row.record.as_bytes()[0]));
            after = last;
        }
        found
    }

    #[test]
    fn a_selection_is_kept_sealed() {
        let scratch = Scratch::new("sealed");
        let selection = Selection { days: Some(3), types: Some(["secret-type".to_owned()].into()) };
        for selection in [Some(selection), Some(days(0)), Some(Selection::default()), None] {
            let replica = scratch.replica();
            replica.set_selection(selection.as_ref()).unwrap();
            assert_eq!(scratch.replica().selection().unwrap(), selection);
            replica.db().shrink().unwrap();
            for file in std::fs::read_dir(&scratch.0).unwrap() {
                let bytes = std::fs::read(file.unwrap().path()).unwrap();
                assert!(!bytes.windows(11).any(|window| window == b"secret-type"));
            }
        }
    }

    #[test]
    fn a_record_is_looked_at_when_it_is_due_and_not_before() {
        let scratch = Scratch::new("due");
        let replica = scratch.replica();
        replica.apply(&(1..=5).map(put).collect::<Vec<_>>()).unwrap();
        assert_eq!(due(&replica, u64::MAX >> 1), [0; 0], "who holds everything looks at nothing");
        replica.set_selection(Some(&days(1))).unwrap();
        assert_eq!(due(&replica, 0), [1, 2, 3, 4, 5]);
        let record = |byte| RecordId::from_bytes([byte; 16]);
        replica
            .apply(&[
                WriteOp::Hold(record(1), Some(100)),
                WriteOp::Hold(record(2), None),
                WriteOp::Evict(record(3)),
                WriteOp::Hold(record(4), Some(99)),
            ])
            .unwrap();
        assert_eq!((due(&replica, 99), due(&replica, 100)), (vec![5], vec![5, 4]));
        assert_eq!(due(&replica, 101), [5, 4, 1]);
        assert_eq!((replica.envelope(record(3)).unwrap(), replica.absent(9).unwrap()), (None, vec![]));
        assert_eq!(replica.not_held(Some("secret-type")).unwrap().len(), 1);
        assert!(replica.not_held(Some("other")).unwrap().is_empty());
        // A new version is looked at, and held until then.
        replica.apply(&[put(3), put(2)]).unwrap();
        assert_eq!(due(&replica, 0), [2, 3, 5]);
        assert!(replica.not_held(None).unwrap().is_empty() && replica.envelope(record(3)).unwrap().is_some());
        replica.apply(&[WriteOp::Evict(record(3)), WriteOp::Recall(record(3))]).unwrap();
        assert_eq!((wanted(&replica), replica.is_evicted(record(3)).unwrap()), (vec![3], false));
        replica.apply(&[WriteOp::Evict(record(3))]).unwrap();
        assert_eq!((wanted(&replica), replica.is_evicted(record(3)).unwrap()), (vec![], true));
        replica.set_selection(None).unwrap();
        assert_eq!((wanted(&replica), due(&replica, u64::MAX >> 1)), (vec![3], vec![]));
    }

    /// All that is wanted and not here, one by one; nothing that is sent waits for any of it.
    fn wanted(replica: &VaultReplica) -> Vec<u8> {
        assert!(replica.absent(9).unwrap().is_empty());
        let (mut found, mut after) = (Vec::new(), None);
        while let Some(row) = replica.wanted(after, 1).unwrap().first() {
            found.push(row.record.as_bytes()[0]);
            after = Some((row.seq, row.record));
        }
        found
    }

    #[test]
    fn what_a_selection_wants_again_is_wanted_until_it_comes_or_is_not_wanted_any_more() {
        let scratch = Scratch::new("wanted");
        let replica = scratch.replica();
        replica.apply(&(1..=4).map(put).collect::<Vec<_>>()).unwrap();
        let record = |byte| RecordId::from_bytes([byte; 16]);
        replica.apply(&(1..=3).map(|byte| WriteOp::Evict(record(byte))).collect::<Vec<_>>()).unwrap();
        let types = |name: &str| Selection { days: None, types: Some([name.to_owned()].into()) };
        replica.set_selection(Some(&types("other"))).unwrap();
        assert_eq!((wanted(&replica), replica.not_held(None).unwrap().len()), (vec![], 3));
        let before = replica.counts().unwrap();
        replica.set_selection(None).unwrap();
        assert_eq!((wanted(&replica), replica.not_held(None).unwrap().len()), (vec![1, 2, 3], 3));
        assert_ne!(replica.counts().unwrap(), before);
        // What comes is here.
        replica.apply(&[put(2)]).unwrap();
        assert_eq!(wanted(&replica), [1, 3]);
        replica.set_selection(Some(&types("other"))).unwrap();
        assert_eq!((wanted(&replica), replica.not_held(Some("secret-type")).unwrap().len()), (vec![], 2));
        assert!(replica.is_evicted(record(1)).unwrap());
        // What is here is not wanted again, and what never was here and a write waits for stays waited for.
        replica.apply(&[WriteOp::Recall(record(2))]).unwrap();
        assert!(replica.record(record(2)).unwrap().unwrap().present && wanted(&replica).is_empty());
        let absent = RecordRow { present: false, ..replica.record(record(4)).unwrap().unwrap() };
        let pending = lockstep_engine::replica::PendingRow {
            operation: lockstep_proto::id::OperationId::from_bytes([4; 16]),
            record: record(4),
            kind: 1,
            content: Vec::new(),
            base: lockstep_engine::replica::Base::Revision(Revision::new(1)),
            policy: lockstep_engine::replica::Policy::KeepBoth,
            pin: lockstep_engine::replica::Pinning::None,
            grew: None,
        };
        let operation = pending.operation;
        replica
            .apply(&[
                WriteOp::SetRecord(absent, EnvelopeSource::Absent),
                WriteOp::AddPending(pending),
                WriteOp::Recall(record(4)),
            ])
            .unwrap();
        assert_eq!((replica.absent(9).unwrap().len(), replica.wanted(None, 9).unwrap().len()), (1, 0));
        replica.apply(&[WriteOp::DropPending(operation), WriteOp::Recall(record(4))]).unwrap();
        assert_eq!(wanted(&replica), [4]);
    }

    #[test]
    fn what_is_looked_for_after_every_sync_has_an_index() {
        let scratch = Scratch::new("plan");
        let replica = scratch.replica();
        let plan = |text: &str| -> String {
            let mut statement =
                replica.db().connection().prepare(&format!("EXPLAIN QUERY PLAN {text}")).unwrap();
            let values = vec![rusqlite::types::Value::Integer(1); statement.parameter_count()];
            let rows = statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3));
            rows.unwrap().map(|row| row.unwrap()).collect::<Vec<String>>().join("; ")
        };
        let due = plan(&format!("SELECT {RECORD_COLUMNS} FROM record WHERE {IS_DUE}"));
        assert!(due.contains("record_due") && !due.contains("B-TREE"), "{due}");
        let absent = plan(
            "SELECT seq FROM record WHERE vault = ?1 AND present = 0 AND evicted = 0 ORDER BY seq, record",
        );
        assert!(absent.contains("record_missing") && !absent.contains("B-TREE"), "{absent}");
        let wanted = plan(&format!("SELECT {RECORD_COLUMNS} FROM record WHERE {WANTED}"));
        assert!(wanted.contains("record_wanted") && !wanted.contains("B-TREE"), "{wanted}");
        let held = plan("SELECT seq FROM record WHERE vault = ?1 AND evicted > 0 AND tag = ?2");
        assert!(held.contains("record_evicted"), "{held}");
    }

    #[test]
    fn a_vault_whose_rows_an_app_has_is_held_whole() {
        let scratch = Scratch::new("host");
        let replica = scratch.replica();
        replica.set_selection(Some(&days(1))).unwrap();
        assert!(matches!(replica.host_store("app"), Err(ClientError::Usage(_))));
        replica.set_selection(None).unwrap();
        replica.host_store("app").unwrap();
        assert!(matches!(replica.set_selection(Some(&days(1))), Err(ClientError::Usage(_))));
        assert_eq!(replica.selection().unwrap(), None);
    }
}
