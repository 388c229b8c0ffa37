//! Where the servers of these tests keep their data. `LOCKSTEP_TEST_BACK_END` chooses for the whole run: not set, the
//! embedded default (SQLite and a folder); `postgres-s3`, a database of a PostgreSQL and a bucket of an S3 server that
//! the tests start.

use crate::tree::{copy, files};
use lockstep_tests::postgres::{Cluster, name_of};
use lockstep_tests::s3::{BUCKET, S3};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::env::VarError;
use std::path::{Path, PathBuf};

const VARIABLE: &str = "LOCKSTEP_TEST_BACK_END";
const PREFIX: &str = "objects";

pub(crate) fn is_embedded() -> bool {
    match std::env::var(VARIABLE) {
        Err(VarError::NotPresent) => true,
        Ok(name) if name == "postgres-s3" => false,
        other => panic!("{VARIABLE} is {other:?}; it may be postgres-s3 or not set"),
    }
}

/// Tests about the embedded default's own folder. On other back ends they are no part of the suite; `full.rs` has a test that
/// names them all.
macro_rules! embedded_only {
    ($($(#[doc = $doc:literal])* fn $name:ident() $body:block)+) => {
        $(
            $(#[doc = $doc])*
            #[test]
            fn $name() {
                if $crate::back_end::is_embedded() $body
            }
        )+
        pub(crate) const EMBEDDED_ONLY: &[&str] = &[$(stringify!($name)),+];
    };
}
pub(crate) use embedded_only;

/// What the data of one server lies in.
pub(crate) struct BackEnd {
    /// The embedded default's folder.
    data: PathBuf,
    /// Name of a database of the cluster that all tests share.
    database: Option<String>,
    bucket: Option<S3>,
    /// Copies of the database, by the folders that they were made to.
    copies: BTreeMap<PathBuf, String>,
}

impl BackEnd {
    /// Makes what the run wants for a server below a folder, but for what the settings name already, and names it in
    /// the settings.
    pub(crate) fn new(folder: &Path, settings: &mut Vec<(String, String)>) -> Self {
        let mut made =
            Self { data: folder.join("server"), database: None, bucket: None, copies: BTreeMap::new() };
        if is_embedded() {
            return made;
        }
        let is_named =
            |settings: &[(String, String)], name: &str| settings.iter().any(|(key, _)| key == name);
        if !is_named(settings, "LOCKSTEP_DATABASE_URL") {
            let url = Cluster::shared().database();
            made.database = Some(name_of(&url).to_owned());
            settings.push(("LOCKSTEP_DATABASE_URL".into(), url));
        }
        if !is_named(settings, "LOCKSTEP_OBJECTS") {
            let s3 = S3::start(&folder.join("bucket"));
            settings.extend(s3.environment(PREFIX).into_iter().map(|(key, value)| (key.to_owned(), value)));
            made.bucket = Some(s3);
        }
        made
    }

    pub(crate) fn objects(&self) -> PathBuf {
        match &self.bucket {
            Some(s3) => s3.folder().join(BUCKET).join(PREFIX),
            None => self.data.join("objects"),
        }
    }

    fn sqlite(&self) -> Connection {
        let connection = Connection::open(self.data.join("lockstep.sqlite")).unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        connection
    }

    /// The database, for reading: SQLite's own, or a copy of all tables as they are now.
    pub(crate) fn database(&self) -> Connection {
        let connection = match &self.database {
            Some(name) => copy_tables(name, Connection::open_in_memory().unwrap()),
            None => self.sqlite(),
        };
        connection.execute_batch("PRAGMA query_only = ON").unwrap();
        connection
    }

    /// Deletes or updates rows behind the server's back; gives how many.
    #[track_caller]
    pub(crate) fn change(&self, statement: &str) -> usize {
        match &self.database {
            Some(name) => {
                let counted = format!("WITH done AS ({statement} RETURNING 1) SELECT count(*) FROM done");
                Cluster::shared().sql(name, &counted).parse().unwrap()
            }
            None => self.sqlite().execute(statement, []).unwrap(),
        }
    }

    /// Bytes as they are written in a statement.
    pub(crate) fn literal(&self, bytes: &[u8]) -> String {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let hex = hex.concat();
        if self.database.is_some() { format!("'\\x{hex}'::bytea") } else { format!("X'{hex}'") }
    }

    /// Copies everything to a folder. No server runs: then nothing is asked of the bucket, either.
    pub(crate) fn back_up(&mut self, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        if let Some(name) = &self.database {
            self.copies.insert(to.to_path_buf(), Cluster::shared().copy(name));
        }
        match &self.bucket {
            Some(s3) => copy(s3.folder(), &to.join("bucket")),
            None => copy(&self.data, &to.join("whole")),
        }
    }

    /// Makes the database that of a copy, or empty.
    pub(crate) fn put_back_database(&self, from: Option<&Path>) {
        if let Some(name) = &self.database {
            return Cluster::shared().put_back(name, from.map(|from| self.copies[from].as_str()));
        }
        for name in ["lockstep.sqlite", "lockstep.sqlite-wal", "lockstep.sqlite-shm"] {
            let _ = std::fs::remove_file(self.data.join(name));
            if let Some(copy) = from.map(|from| from.join("whole").join(name)).filter(|copy| copy.exists()) {
                std::fs::copy(copy, self.data.join(name)).unwrap();
            }
        }
    }

    /// Makes the objects those of a copy, or none.
    pub(crate) fn put_back_objects(&self, from: Option<&Path>) {
        let (place, copied) = match &self.bucket {
            // With what the S3 server keeps beside its bucket.
            Some(s3) => (s3.folder().to_path_buf(), from.map(|from| from.join("bucket"))),
            None => (self.objects(), from.map(|from| from.join("whole/objects"))),
        };
        std::fs::remove_dir_all(&place).unwrap();
        if self.bucket.is_some() {
            std::fs::create_dir_all(place.join(BUCKET)).unwrap();
        }
        if let Some(copied) = copied.filter(|copied| copied.exists()) {
            copy(&copied, &place);
        }
    }

    /// Files in which something of the server lies. On PostgreSQL: the cluster's but for those of other databases, its
    /// write-ahead log and what it logs included, those of the bucket, and one with the contents of all tables, because
    /// PostgreSQL may compress values.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut found = self.tidy_files();
        if let Some(name) = &self.database {
            let cluster = Cluster::shared();
            let (home, bases) = (cluster.home(), cluster.home().join("data/base"));
            found.extend(files(home).into_iter().filter(|path| !path.starts_with(&bases)));
            let contents = self.data.with_file_name("tables.sqlite");
            let _ = std::fs::remove_file(&contents);
            drop(copy_tables(name, Connection::open(&contents).unwrap()));
            found.push(contents);
        }
        found
    }

    /// Files of a server that stopped in which nothing that was replaced may lie. A row's old version stays in a table
    /// of PostgreSQL until that is vacuumed, and in the write-ahead log until that is written over: what is claimed
    /// there is that nothing of it is in the database's own files after `VACUUM FULL`, which this runs.
    pub(crate) fn vacuumed_files(&self) -> Vec<PathBuf> {
        if let Some(name) = &self.database {
            Cluster::shared().sql(name, "VACUUM FULL");
        }
        self.tidy_files()
    }

    fn tidy_files(&self) -> Vec<PathBuf> {
        let mut found = files(&self.data);
        if let Some(name) = &self.database {
            let cluster = Cluster::shared();
            cluster.sql(name, "CHECKPOINT");
            found.extend(files(&cluster.folder_of(name)));
        }
        found.extend(self.bucket.iter().flat_map(|s3| files(s3.folder())));
        found
    }
}

impl Drop for BackEnd {
    fn drop(&mut self) {
        // What a failed test leaves is there until the cluster ends.
        if !std::thread::panicking() {
            for name in self.database.iter().chain(self.copies.values()) {
                Cluster::shared().remove(name);
            }
        }
    }
}

/// Copies all tables of a PostgreSQL database as they are at one moment.
fn copy_tables(database: &str, into: Connection) -> Connection {
    let cluster = Cluster::shared();
    let columns = cluster.sql(
        database,
        "SELECT table_name, column_name, data_type FROM information_schema.columns
         WHERE table_schema = 'public' ORDER BY table_name, ordinal_position",
    );
    let mut all: BTreeMap<&str, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for line in columns.lines() {
        let [table, column, kind]: [&str; 3] = line.split('|').collect::<Vec<_>>().try_into().unwrap();
        let (kind, text) = match kind {
            "bytea" => ("BLOB", format!("'X''' || encode({column}, 'hex') || ''''")),
            "bigint" | "integer" => ("INTEGER", format!("{column}::text")),
            "boolean" => ("INTEGER", format!("{column}::integer::text")),
            _ => ("TEXT", format!("'''' || replace({column}::text, '''', '''''') || ''''")),
        };
        let (kinds, texts) = all.entry(table).or_default();
        kinds.push(format!("{column} {kind}"));
        texts.push(format!("coalesce({text}, 'NULL')"));
    }
    assert!(!all.is_empty(), "{database} has no tables");
    let mut selects = Vec::new();
    for (table, (kinds, texts)) in all {
        into.execute_batch(&format!("CREATE TABLE {table} ({})", kinds.join(", "))).unwrap();
        let values = texts.join(" || ',' || ");
        selects.push(format!("SELECT 'INSERT INTO {table} VALUES (' || {values} || ');' FROM {table}"));
    }
    let rows = cluster.sql(database, &selects.join(" UNION ALL "));
    into.execute_batch(&format!("BEGIN; {rows} COMMIT")).unwrap();
    into
}
