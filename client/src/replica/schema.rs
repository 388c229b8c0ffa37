//! The database's schema, step by step. `user_version` says how many steps a database has been through; a home
//! from before it was counted stands at 0, and its first step finds everything there.

use crate::error::{ClientError, Result};
use rusqlite::Connection;
use std::path::Path;

/// Each step brings a database one version further. A step that was published is never edited.
const STEPS: &[&str] = &[
    include_str!("schema.sql"),
    // A forgotten snapshot: which commit the write unpins.
    "ALTER TABLE pending ADD COLUMN unpin_seq INTEGER",
    // What repairs abandon and leave aside.
    include_str!("repairs.sql"),
    // A repair that was followed and has to come: seq and hash.
    "ALTER TABLE vault ADD COLUMN expected BLOB",
    // What is on the shelf of one record, and what of it waits.
    "CREATE INDEX shelved_record ON shelved (vault, record, seq);
     CREATE INDEX shelved_waits ON shelved (vault, seq, id) WHERE state = 0",
    // What merging needs and leaves.
    include_str!("merge.sql"),
    // Pending writes in their order, without sorting all of them; and those that follow another.
    "CREATE INDEX pending_order ON pending (vault);
     CREATE INDEX pending_follows ON pending (vault) WHERE base_operation IS NOT NULL",
    // Databases of apps whose rows are records.
    include_str!("host.sql"),
    // What of a vault is held here.
    include_str!("select.sql"),
    // The types that a store's cursor is of.
    "ALTER TABLE host_store ADD COLUMN schema BLOB",
    // Contents that this device sent; tags are keyed, rows sealed under keys of this device.
    "CREATE TABLE content (
         vault  INTEGER NOT NULL,
         tag    BLOB NOT NULL,
         sealed BLOB NOT NULL,
         PRIMARY KEY (vault, tag)
     ) STRICT, WITHOUT ROWID",
    // An envelope that is not here: 1 was let go of, 2 is wanted and nothing waits for it.
    "DROP INDEX record_evicted;
     CREATE INDEX record_evicted ON record (vault, tag, record) WHERE evicted > 0;
     CREATE INDEX record_wanted ON record (vault, seq, record) WHERE evicted = 2",
];

fn version(connection: &Connection) -> Result<usize> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    usize::try_from(version).map_err(|_| super::damaged("its version"))
}

fn too_new(path: &Path) -> ClientError {
    ClientError::Usage(format!(
        "{} was written by a newer version of this program, and may hold what this one does not know; update it",
        path.display()
    ))
}

/// Brings a database to this program's version: whole or not at all.
///
/// # Errors
/// [`ClientError::Usage`] if it is newer than this program, [`ClientError::Database`].
pub(super) fn migrate(connection: &Connection, path: &Path) -> Result<()> {
    if version(connection)? > STEPS.len() {
        return Err(too_new(path));
    }
    let transaction = connection.unchecked_transaction()?;
    let done = version(&transaction)?;
    if done < STEPS.len() {
        for step in STEPS.iter().skip(done) {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "user_version", i64::try_from(STEPS.len()).unwrap_or(i64::MAX))?;
    }
    transaction.commit()?;
    Ok(())
}

/// Whether a process that may not write can read the database as it is.
///
/// # Errors
/// [`ClientError::Usage`] if it is older or newer.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<()> {
    let found = version(connection)?;
    if found > STEPS.len() {
        return Err(too_new(path));
    }
    if found < STEPS.len() {
        return Err(ClientError::Usage(format!(
            "{} is in use by an older version of this program; wait for it to end, then run this command again",
            path.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Db;
    use super::*;
    use lockstep_client_crypto::content::Hlc;
    use lockstep_client_crypto::local::LocalKeys;
    use lockstep_client_crypto::secret::SecretKey;
    use lockstep_engine::document::Origin;
    use lockstep_engine::replica::{Base, PendingRow, Pinning, Policy, Replica as _, WriteOp};
    use lockstep_proto::id::{DeviceId, OperationId, RecordId, Revision, Seq, VaultId};
    use rusqlite::params;
    use std::path::PathBuf;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("lockstep-schema-{}-{name}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn database(&self) -> PathBuf {
            self.0.join("replica.sqlite")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    const VAULT: VaultId = VaultId::from_bytes([7; 16]);

    fn keys() -> LocalKeys {
        LocalKeys::new(&SecretKey::from_bytes(&[5; 32]))
    }

    fn operation(byte: u8) -> OperationId {
        OperationId::from_bytes([byte; 16])
    }

    /// A database as the program made it before versions were counted, with two pending writes and a stat row.
    fn old_database(path: &Path) {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch(STEPS[0]).unwrap();
        let text = "INSERT INTO vault (id, vault, create_bytes, create_signature) VALUES (3, ?1, x'01', ?2)";
        connection.execute(text, params![VAULT.as_bytes(), [0_u8; 64]]).unwrap();
        for (byte, pin) in [(1, false), (2, true)] {
            let place = super::super::read::pending_place(VAULT, operation(byte));
            let content = keys().seal_row(&place, &[byte], &mut crate::rng::system());
            let text =
                "INSERT INTO pending (vault, operation, record, kind, base_revision, policy, pin, content)
                        VALUES (3, ?1, ?2, 1, 4, 2, ?3, ?4)";
            connection.execute(text, params![[byte; 16], [9_u8; 16], pin, content]).unwrap();
        }
        assert_eq!(version(&connection).unwrap(), 0);
    }

    #[test]
    fn a_database_from_before_is_brought_up_to_date_with_all_that_it_holds() {
        let scratch = Scratch::new("old");
        old_database(&scratch.database());
        // Who may not write can not mend it either.
        assert!(matches!(Db::open(&scratch.database(), keys(), false), Err(ClientError::Usage(_))));
        for _ in 0..2 {
            let db = Db::open(&scratch.database(), keys(), true).unwrap();
            let replica = db.vault(VAULT, None).unwrap().unwrap();
            let rows = replica.pending(10).unwrap();
            let pins: Vec<_> = rows.iter().take(2).map(|row| (row.content.clone(), row.pin)).collect();
            assert_eq!(pins, [(vec![1], Pinning::None), (vec![2], Pinning::Pin)]);
            assert_eq!(version(db.connection()).unwrap(), STEPS.len());
        }
        assert!(Db::open(&scratch.database(), keys(), false).is_ok());
    }

    #[test]
    fn all_of_a_pending_write_is_kept() {
        let scratch = Scratch::new("new");
        let db = Db::open(&scratch.database(), keys(), true).unwrap();
        let create = super::super::signed((vec![1], [0; 64]));
        let replica = db.vault(VAULT, Some(&create)).unwrap().unwrap();
        let row = PendingRow {
            operation: operation(1),
            record: RecordId::from_bytes([1; 16]),
            kind: 2,
            content: vec![1, 2, 3],
            base: Base::Revision(Revision::new(1)),
            policy: Policy::Merge,
            pin: Pinning::Unpin(Seq::new(17)),
            grew: Some(Origin {
                schema: 3,
                hlc: Hlc { utc_ms: 4, counter: 5 },
                device: DeviceId::from_bytes([6; 16]),
                kind: 1,
                document: vec![7].into(),
                blobs: Vec::new(),
            }),
        };
        replica.apply(&[WriteOp::AddPending(row.clone())]).unwrap();
        assert_eq!(replica.pending(10).unwrap(), std::slice::from_ref(&row));
        let changed = PendingRow { pin: Pinning::Pin, grew: None, ..row.clone() };
        replica.apply(&[WriteOp::ReplacePending(row.operation, changed.clone())]).unwrap();
        assert_eq!(replica.pending(10).unwrap(), [changed]);
    }

    #[test]
    fn a_database_of_a_newer_program_is_left_alone() {
        let scratch = Scratch::new("newer");
        drop(Db::open(&scratch.database(), keys(), true).unwrap());
        let next = STEPS.len() + 1;
        let connection = Connection::open(scratch.database()).unwrap();
        connection.pragma_update(None, "user_version", i64::try_from(next).unwrap()).unwrap();
        for writes in [true, false] {
            let error = Db::open(&scratch.database(), keys(), writes).err().unwrap();
            assert!(error.to_string().contains("newer version"), "{error}");
        }
        assert_eq!(version(&connection).unwrap(), next);
    }
}
