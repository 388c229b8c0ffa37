//! What deletions leave behind: no row of the account or the vault in any table, and every segment to the collector.
//! Looks into the tables of each database, past the store.

use super::{AnyStore, Home};
use crate::chain::{Op, put, record};
use crate::folder::Folder;
use crate::world::{Author, entry_of};
use lockstep_proto::Digest;
use lockstep_proto::api::auth::SESSION_DEVICE;
use lockstep_proto::blob::object_digest;
use lockstep_proto::device_log::Pin;
use lockstep_proto::id::{BlobId, DeviceId};
use lockstep_server::store::postgres::{PostgresStore, PostgresUrl};
use lockstep_server::store::sqlite::SqliteStore;
use lockstep_server::store::{
    CHALLENGE_DEVICE, Challenge, EntryEffect, FramedObject, PartRow, SegmentId, SessionRow, SignInChange,
    Store as _,
};
use lockstep_tests::postgres::{Cluster, name_of};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Every table that keeps something of an account or a vault, and whether it does so by account.
const TABLES: &[(&str, bool)] = &[
    ("device", true),
    ("device_log", true),
    ("device_pin", true),
    ("session", true),
    ("challenge", true),
    ("vault", true),
    ("vault_log", false),
    ("commit_header", false),
    ("version", false),
    ("live", false),
    ("pin", false),
    ("staged", false),
    ("object", false),
    ("part", false),
    ("segment", false),
];

const SIZE: u64 = 30;

fn segment(seed: u64, number: u8) -> SegmentId {
    SegmentId([number + seed as u8 * 16; 16])
}

fn framed(number: u8, start: u64) -> FramedObject {
    let part = Digest::from_bytes([number; 32]);
    let blob = BlobId::from_bytes([number; 16]);
    FramedObject { blob, size: SIZE, part, digest: object_digest(SIZE, &[part]), start }
}

/// A row of everything, in a vault that is not the keyring; gives its segments.
async fn fill(store: &AnyStore, seed: u64) -> (Home, BTreeSet<SegmentId>) {
    let mut home = Home::plain(store, seed).await;
    let (account, key) = (home.world.account, home.key);
    store.begin_segment(key, segment(seed, 1), 2 * SIZE, 10).await.unwrap();
    store.put_framed(key, segment(seed, 1), vec![framed(1, 0), framed(2, SIZE)], 10).await.unwrap();
    for (number, is_whole) in [(3, true), (4, false)] {
        let object = framed(number, 0);
        store.begin_object(key, object.blob, SIZE, object.digest, 10).await.unwrap();
        store.begin_segment(key, segment(seed, number), 0, 10).await.unwrap();
        let at = segment(seed, number);
        let part = PartRow { index: 0, digest: object.part, segment: at, start: 0, size: SIZE };
        store.put_part(key, object.blob, part, 10).await.unwrap();
        if is_whole {
            store.complete_object(key, object.blob).await.unwrap();
        }
    }
    store.begin_segment(key, segment(seed, 5), 99, 10).await.unwrap();
    home.commit(&[put(1), Op::Put(record(2), 40, vec![framed(1, 0).blob]), Op::Pin(1)]).await;
    home.commit(&[Op::Tombstone(record(1))]).await;
    let draft = home.draft(&[put(7)]);
    let digest = lockstep_proto::envelope::digest(&draft.envelopes[0]);
    store.stage(key, vec![(digest, draft.envelopes[0].clone())], 1000).await.unwrap();
    revoke_somebody(&home).await;
    let row = super::session::session(seed as u16, SESSION_DEVICE);
    store.put_session(SessionRow { account, device: home.world.author.keys.id(), ..row }).await.unwrap();
    let id = Digest::from_bytes([seed as u8; 32]);
    let challenge = Challenge { id, kind: CHALLENGE_DEVICE, account, data: vec![1], expires_utc: 1000 };
    store.put_challenge(challenge).await.unwrap();
    let segments = [1, 3, 4, 5].map(|number| segment(seed, number)).into();
    (home, segments)
}

async fn revoke_somebody(home: &Home) {
    let joining = Author::new(50 + home.world.seed);
    let device: DeviceId = joining.keys.id();
    let enrol = EntryEffect::Enrol { device, sign_key: joining.keys.sign_public() };
    let enrol = entry_of(&home.world.identity, "enrol", 1, home.world.author.log_head, enrol);
    home.store.add_entry(enrol.clone(), SignInChange::default()).await.unwrap();
    let listed = home.store.vaults(home.world.account).await.unwrap();
    let pins = listed.iter().map(|row| Pin { vault: row.vault, seq: row.seq, head: row.head }).collect();
    let revoke =
        entry_of(&home.world.identity, "revoke", 2, enrol.hash, EntryEffect::Revoke { device, pins });
    home.store.add_entry(revoke, SignInChange::default()).await.unwrap();
}

/// Deletes a vault and an account beside others that stay. `count` gives the rows of a table, all in all.
async fn nothing_remains(store: AnyStore, count: impl Fn(&str) -> i64) {
    let counts =
        || -> BTreeMap<&str, i64> { TABLES.iter().map(|(table, _)| (*table, count(table))).collect() };
    let nothing = counts();
    assert!(nothing.values().all(|count| *count == 0), "{nothing:?}");
    let (stays, kept) = fill(&store, 1).await;
    let before = counts();
    assert!(before.values().all(|count| *count > 0), "there is a row of everything: {before:?}");
    let (home, segments) = fill(&store, 2).await;
    for (table, count) in counts() {
        assert_eq!(count, 2 * before[table], "{table}");
    }
    let whole = home.used().await;
    store.delete_vault(home.key).await.unwrap();
    let one_vault = counts();
    for (table, is_accounts) in TABLES {
        let own = match *table {
            "vault" | "vault_log" | "commit_header" => 1,
            _ if *is_accounts => before[table],
            "segment" => i64::try_from(segments.len()).unwrap(),
            _ => 0,
        };
        assert_eq!(one_vault[table], before[table] + own, "{table} after the vault's deletion");
    }
    let bytes_stored = 2 * SIZE + 2 * SIZE + 99;
    let left = home.used().await;
    assert!(left >= bytes_stored && left < whole, "its bytes count until they are gone: {left} of {whole}");
    let dead: BTreeSet<_> = store.collect(20, 1000).await.unwrap().into_iter().collect();
    assert_eq!(dead, segments);
    assert_eq!(dead.intersection(&kept).count(), 0);
    store.forget_segment(segment(2, 1)).await.unwrap();
    assert_eq!(home.used().await, left - 2 * SIZE);
    store.forget_segment(segment(2, 1)).await.unwrap();
    assert_eq!(home.used().await, left - 2 * SIZE, "once");

    store.delete_account(home.world.account).await.unwrap();
    let dead: BTreeSet<_> = store.collect(20, 1000).await.unwrap().into_iter().collect();
    assert_eq!(dead.len(), segments.len() - 1);
    for at in dead {
        store.forget_segment(at).await.unwrap();
    }
    assert_eq!(counts(), before, "what is another's stays");
    stays.used().await;
    store.delete_account(stays.world.account).await.unwrap();
    let dead: BTreeSet<_> = store.collect(20, 1000).await.unwrap().into_iter().collect();
    assert_eq!(dead, kept);
    for at in dead {
        store.forget_segment(at).await.unwrap();
    }
    assert_eq!(counts(), nothing);
    assert_eq!(store.check_usage(false).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_remains_in_sqlite() {
    let folder = Folder::new();
    let path = folder.path().join("test.sqlite");
    let store = Arc::new(SqliteStore::open(&path).await.unwrap());
    let database = rusqlite::Connection::open(&path).unwrap();
    let count = |table: &str| {
        database.query_row(&format!("SELECT count(*) FROM {table}"), (), |row| row.get(0)).unwrap()
    };
    let mut known: BTreeSet<String> = TABLES.iter().map(|(table, _)| (*table).to_owned()).collect();
    known.extend(["secret", "invite", "account", "vault_key", "_sqlx_migrations"].map(str::to_owned));
    let mut statement = database
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        .unwrap();
    let tables: BTreeSet<String> =
        statement.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(tables, known, "a new table has to be looked at here");
    nothing_remains(store.clone(), count).await;
    assert_eq!(count("account"), 0);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_remains_in_postgresql() {
    let url = Cluster::shared().database();
    let store = Arc::new(PostgresStore::open(&PostgresUrl::parse(&url).unwrap(), 4).await.unwrap());
    let sql = |statement: &str| Cluster::shared().sql(name_of(&url), statement);
    let count = |table: &str| sql(&format!("SELECT count(*) FROM {table}")).parse().unwrap();
    let mut known: BTreeSet<String> = TABLES.iter().map(|(table, _)| (*table).to_owned()).collect();
    known.extend(["secret", "invite", "account", "_sqlx_migrations"].map(str::to_owned));
    let tables = sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'");
    let tables: BTreeSet<String> = tables.lines().map(str::to_owned).collect();
    assert_eq!(tables, known, "a new table has to be looked at here");
    nothing_remains(store.clone(), count).await;
    assert_eq!(count("account"), 0);
    store.close().await;
}
