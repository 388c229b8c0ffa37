//! A database of the first schema is counted when it is brought up to date.

use super::{AnyStore, Home};
use crate::chain::{Op, put, record};
use crate::folder::Folder;
use crate::world::{id16, rng};
use lockstep_proto::Digest;
use lockstep_proto::api::auth::SESSION_DEVICE;
use lockstep_proto::blob::object_digest;
use lockstep_proto::id::{BlobId, VaultId};
use lockstep_server::domain::quota::QuotaSetting;
use lockstep_server::store::sqlite::SqliteStore;
use lockstep_server::store::{FramedObject, PartRow, SegmentId, Store as _};
use std::path::Path;
use std::sync::Arc;

const SIZE: u64 = 10;

fn framed(number: u8, start: u64) -> FramedObject {
    let part = Digest::from_bytes([number; 32]);
    let blob = BlobId::from_bytes([number; 16]);
    FramedObject { blob, size: SIZE, part, digest: object_digest(SIZE, &[part]), start }
}

fn segment(number: u64) -> SegmentId {
    SegmentId(id16(&mut rng(number)))
}

/// Takes all migrations but the first back.
fn unmigrate(path: &Path) {
    let database = rusqlite::Connection::open(path).unwrap();
    for statement in [
        "DROP INDEX session_account",
        "DROP INDEX segment_owner",
        "DROP TABLE device_pin",
        "DROP TABLE vault_key",
        "DELETE FROM secret WHERE name = 'draft'",
    ] {
        database.execute(statement, ()).unwrap();
    }
    for (table, columns) in [
        ("device", &["revoked_at"][..]),
        ("version", &["abandoned"]),
        ("account", &["used_bytes", "spared_bytes", "quota_bytes"]),
        ("vault", &["used_bytes", "objects", "is_keyring", "rotated_at"]),
        ("object", &["reserved_bytes", "lost"]),
        ("segment", &["counted_bytes", "owner"]),
        ("session", &["id", "created_utc", "used_utc"]),
    ] {
        for column in columns {
            database.execute(&format!("ALTER TABLE {table} DROP COLUMN {column}"), ()).unwrap();
        }
    }
    assert_eq!(database.execute("DELETE FROM _sqlx_migrations WHERE version >= 2", ()).unwrap(), 2);
}

/// One of everything that counts.
async fn fill(store: &AnyStore) -> Home {
    let mut home = Home::new(store, 1).await;
    let birth = home.world.birth(VaultId::from_bytes([0x77; 16]), 1);
    store.create_vault(home.world.account, birth).await.unwrap();
    store.begin_segment(home.key, segment(1), 2 * SIZE, 10).await.unwrap();
    store.put_framed(home.key, segment(1), vec![framed(1, 0), framed(2, SIZE)], 10).await.unwrap();
    for (number, is_whole) in [(3, true), (4, false)] {
        let object = framed(number, 0);
        store.begin_object(home.key, object.blob, SIZE, object.digest, 10).await.unwrap();
        let at = segment(number.into());
        store.begin_segment(home.key, at, 0, 10).await.unwrap();
        let part = PartRow { index: 0, digest: object.part, segment: at, start: 0, size: SIZE };
        store.put_part(home.key, object.blob, part, 10).await.unwrap();
        if is_whole {
            store.complete_object(home.key, object.blob).await.unwrap();
        }
    }
    home.commit(&[put(1), Op::Put(record(2), 400, vec![framed(1, 0).blob]), Op::Pin(1)]).await;
    home.commit(&[Op::Tombstone(record(1))]).await;
    let draft = home.draft(&[put(7)]);
    let digest = lockstep_proto::envelope::digest(&draft.envelopes[0]);
    store.stage(home.key, vec![(digest, draft.envelopes[0].clone())], 1000).await.unwrap();
    let session = super::session::session(1, SESSION_DEVICE);
    store.put_session(session).await.unwrap();
    home
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_before_it_was_counted_is_counted() {
    let folder = Folder::new();
    let path = folder.path().join("test.sqlite");
    let first = Arc::new(SqliteStore::open(&path).await.unwrap());
    let store: AnyStore = first.clone();
    let home = fill(&store).await;
    let account = home.world.account;
    let before = store.usage(account).await.unwrap().unwrap();
    assert_eq!((before.objects, before.records), (4, 2));
    first.close().await;
    drop((home, store, first));
    unmigrate(&path);

    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.usage(account).await.unwrap().unwrap(), before);
    assert_eq!(store.check_usage(false).await.unwrap(), []);
    let session = super::session::session(1, SESSION_DEVICE);
    let found = store.session(session.token_hash, 50).await.unwrap().unwrap();
    assert_eq!((found.device, found.kind, found.expires_utc), (session.device, session.kind, 1000));
    let listed = store.sessions(session.account, 50).await.unwrap();
    assert_eq!(listed, [found], "it has a name now");
    // The keyring is told apart, and everything is freed as it was counted.
    store.set_quota(account, QuotaSetting::Bytes(1)).await.unwrap();
    let world = crate::world::World::new(1);
    let keyring = store.vault(account, world.keyring()).await.unwrap().unwrap().key;
    store.begin_segment(keyring, segment(9), 10, 10).await.expect("the keyring has the reserve");
    for segment in store.collect(1_000_000, 10).await.unwrap() {
        store.forget_segment(segment).await.unwrap();
    }
    assert_eq!(store.check_usage(false).await.unwrap(), []);
    let usage = store.usage(account).await.unwrap().unwrap();
    assert_eq!(usage.objects, 1, "the one that a commit names");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_that_are_off_are_named_and_mended() {
    let folder = Folder::new();
    let path = folder.path().join("test.sqlite");
    let first = Arc::new(SqliteStore::open(&path).await.unwrap());
    let store: AnyStore = first.clone();
    let home = fill(&store).await;
    let right = store.usage(home.world.account).await.unwrap();
    let database = rusqlite::Connection::open(&path).unwrap();
    let key = home.key.0;
    database.execute("UPDATE vault SET used_bytes = used_bytes + 7 WHERE id = ?", [key]).unwrap();
    database.execute("UPDATE account SET used_bytes = used_bytes - 5", ()).unwrap();
    for mend in [false, true] {
        let faults = store.check_usage(mend).await.unwrap();
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert_eq!((faults[0].vault, faults[0].kept.0), (Some(home.vault), faults[0].counted.0 + 7));
        assert_eq!((faults[1].vault, faults[1].kept.0 + 5), (None, faults[1].counted.0));
        assert!(faults.iter().all(|fault| fault.name == "name-1"));
    }
    assert_eq!(store.check_usage(false).await.unwrap(), []);
    assert_eq!(store.usage(home.world.account).await.unwrap(), right);
    first.close().await;
}
