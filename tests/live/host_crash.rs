//! An app with a database of its own that is killed again and again, in the middle of whatever it does: every change of
//! both sides arrives, and has its effect once.

use crate::device::{VAULT, World, status, synced};
use crate::host::{fields, host};
use crate::program::poll;
use lockstep_client::host::{Host, HostKey, HostWrite};
use lockstep_client::live::State;
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const HOME: &str = "LOCKSTEP_TEST_HOST_HOME";
const ROWS: i64 = 60;
const KILLS: u64 = 8;

/// The app's database: its rows, and its changes that were not handed in yet, in one transaction each.
struct Tables(Connection);

impl Tables {
    fn open(home: &Path) -> Self {
        let database = Connection::open(home.with_extension("app")).unwrap();
        database.busy_timeout(Duration::from_secs(10)).unwrap();
        let _mode: String =
            database.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).unwrap();
        database
            .execute_batch(
                "CREATE TABLE IF NOT EXISTS symptom (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL);
                 CREATE TABLE IF NOT EXISTS outbox (change TEXT PRIMARY KEY, id INTEGER NOT NULL, body TEXT NOT NULL)",
            )
            .unwrap();
        Self(database)
    }

    fn made(&self) -> i64 {
        let text = "SELECT count(*) FROM symptom WHERE body LIKE '%of the app%'";
        self.0.query_row(text, [], |row| row.get(0)).unwrap()
    }

    fn make(&self, n: i64) {
        let transaction = self.0.unchecked_transaction().unwrap();
        let body = json!({ "n": n, "by": "of the app" }).to_string();
        transaction.execute("INSERT INTO symptom (body) VALUES (?1)", [&body]).unwrap();
        let id = transaction.last_insert_rowid();
        let values = params![format!("change {n}"), id, body];
        transaction.execute("INSERT INTO outbox (change, id, body) VALUES (?1, ?2, ?3)", values).unwrap();
        transaction.commit().unwrap();
    }

    fn outbox(&self) -> Vec<HostWrite> {
        let mut statement =
            self.0.prepare("SELECT change, id, body FROM outbox ORDER BY id LIMIT 7").unwrap();
        let rows = statement.query_map([], |row| {
            let (change, id, body): (String, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(HostWrite {
                change: change.into_bytes(),
                record_type: "symptom".into(),
                key: id.into(),
                document: Some(fields(serde_json::from_str(&body).unwrap())),
            })
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    fn bodies(&self) -> Vec<Value> {
        let mut statement = self.0.prepare("SELECT body FROM symptom ORDER BY id").unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.map(|body| serde_json::from_str(&body.unwrap()).unwrap()).collect()
    }
}

/// Hands in what there is, and takes what there is; says whether there was anything.
async fn turn(tables: &Tables, host: &Host) -> bool {
    let writes = tables.outbox();
    let count = writes.len();
    if count > 0 {
        let changes: Vec<_> = writes.iter().map(|write| write.change.clone()).collect();
        host.hand_in(writes).await.unwrap();
        for change in &changes {
            let change = std::str::from_utf8(change).unwrap();
            tables.0.execute("DELETE FROM outbox WHERE change = ?1", [change]).unwrap();
        }
        host.release(changes).await.unwrap();
    }
    let page = host.changes(5).await.unwrap();
    let is_over = count == 0 && page.changes.is_empty();
    for change in &page.changes {
        let key = match &change.key {
            Some(HostKey::Number(key)) => *key,
            _ => {
                let last: i64 = tables
                    .0
                    .query_row("SELECT coalesce(max(id), 0) FROM symptom", [], |row| row.get(0))
                    .unwrap();
                host.assign("symptom", &change.name, (last + 1).into()).await.unwrap();
                last + 1
            }
        };
        let body = Value::Object(change.document.clone().unwrap()).to_string();
        let text = "INSERT INTO symptom (id, body) VALUES (?1, ?2)
                    ON CONFLICT (id) DO UPDATE SET body = excluded.body";
        tables.0.execute(text, params![key, body]).unwrap();
    }
    host.acknowledge(page).await.unwrap();
    !is_over
}

/// The app itself, in a process of its own: makes rows until it has made all of them, and syncs them.
#[test]
fn child() {
    let Some(home) = std::env::var_os(HOME).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let live = lockstep_client::live::Live::start(&home, false, Default::default()).await.unwrap();
        let (tables, host) = (Tables::open(&home), host(&live));
        loop {
            let made = tables.made();
            if made < ROWS {
                tables.make(made);
            }
            if !turn(&tables, &host).await && made >= ROWS {
                break;
            }
        }
        status(&live, "everything sent", |status| status.pending == 0 && status.state == State::Idle).await;
        live.close().await;
    });
}

fn start_child(home: &Path) -> std::process::Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["host_crash::child", "--exact", "--nocapture"]).env(HOME, home);
    command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap()
}

#[tokio::test]
async fn an_app_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let world = World::new();
    let (home_a, home_b) = (world.signup("a").await, world.login("b").await);
    let b = synced(&home_b).await;
    let at_b = host(&b);
    let mut theirs = 0;
    for kill in 0..KILLS {
        let mut child = start_child(&home_a);
        for _ in 0..5 {
            let document = Some(fields(json!({ "n": theirs, "by": "of b" })));
            let change = format!("b{theirs}").into_bytes();
            let write = HostWrite { change, record_type: "symptom".into(), key: theirs.into(), document };
            at_b.hand_in(vec![write]).await.unwrap();
            theirs += 1;
        }
        tokio::time::sleep(Duration::from_millis(40 + kill * 45)).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let made = Tables::open(&home_a).made();
    println!("{made} of {ROWS} rows were made when it was killed last");
    status(&b, "everything of b sent", |status| status.pending == 0 && status.state == State::Idle).await;
    let mut child = start_child(&home_a);
    let mut ended = None;
    assert!(poll(40, || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    }));
    assert!(ended.unwrap().success());
    // Once more, now that everything is there.
    let a = synced(&home_a).await;
    let tables = Tables::open(&home_a);
    while turn(&tables, &host(&a)).await {}
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for body in tables.bodies() {
        *counts.entry(body.to_string()).or_default() += 1;
    }
    assert_eq!(counts.len() as i64, ROWS + theirs, "{counts:?}");
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    b.sync_now().await.unwrap();
    let records = b.list(VAULT, "symptom").await.unwrap();
    assert_eq!(records.len() as i64, ROWS + theirs);
    assert!(records.iter().all(|record| record.revision.value() == 1), "{records:?}");
}
