//! A store that gets back what it lost: commits, objects, pins.

use super::{AnyStore, Home, refused};
use crate::chain::{Draft, Op, put, record};
use crate::folder::Folder;
use crate::world::{Author, entry_of};
use lockstep_proto::Digest;
use lockstep_proto::api::auth::SESSION_DEVICE;
use lockstep_proto::api::problem::Code;
use lockstep_proto::blob::object_digest;
use lockstep_proto::commit::{Change, Changes, KIND_REPAIR, RepairPlace, repair_input};
use lockstep_proto::device_log::Pin;
use lockstep_proto::envelope;
use lockstep_proto::id::{BlobId, Seq};
use lockstep_proto::label;
use lockstep_server::domain::commit::PreparedCommit;
use lockstep_server::error::StoreError;
use lockstep_server::store::postgres::{PostgresStore, PostgresUrl};
use lockstep_server::store::sqlite::SqliteStore;
use lockstep_server::store::{
    EntryEffect, FramedObject, ObjectRow, PartRow, Pushed, SegmentId, SessionRow, SignInChange, Store as _,
};
use lockstep_tests::postgres::{Cluster, name_of};
use std::sync::Arc;

const BLOB: BlobId = BlobId::from_bytes([1; 16]);

fn given_back(draft: &Draft, author: &Author) -> PreparedCommit {
    PreparedCommit { heals: true, ..draft.prepare(author) }
}

impl Home {
    async fn give(&self, commit: PreparedCommit) -> Result<Pushed, StoreError> {
        self.store.apply_commit(self.world.account, self.key, commit).await
    }

    /// Uploads an object of ten bytes that are told apart by `content`.
    async fn upload(&self, number: u8, content: u8) -> Result<(), StoreError> {
        let segment = SegmentId([number; 16]);
        let part = Digest::from_bytes([content; 32]);
        let digest = object_digest(10, &[part]);
        self.store.begin_segment(self.key, segment, 10, 1).await.unwrap();
        let object = FramedObject { blob: BLOB, size: 10, part, digest, start: 0 };
        self.store.put_framed(self.key, segment, vec![object], 1).await.map(drop)
    }

    async fn lies_in(&self) -> (ObjectRow, Vec<SegmentId>) {
        let (row, parts) = self.store.object(self.key, BLOB).await.unwrap().unwrap();
        (row, parts.iter().map(|part| part.segment).collect())
    }
}

pub(super) async fn commits_that_do_not_know_of_a_revocation_are_given_back_up_to_its_pin(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    let (second, enrolled) = home.world.second(10);
    store.add_entry(enrolled.clone(), SignInChange::default()).await.unwrap();
    let old = home.draft(&[put(1)]);
    let pinned = old.prepare(&home.world.author);
    let pins = vec![Pin { vault: home.vault, seq: pinned.commit.seq, head: pinned.hash }];
    let effect = EntryEffect::Revoke { device: second.keys.id(), pins };
    let revocation = entry_of(&home.world.identity, "revoke", 2, enrolled.hash, effect);
    store.heal_log(vec![revocation], Digest::ZERO).await.unwrap();
    refused(home.give(pinned.clone()).await, Code::LogMoved);
    let applied = home.give(given_back(&old, &home.world.author)).await.unwrap();
    assert!(matches!(applied, Pushed::Applied { .. }));
    home.chain.follow(&pinned);
    // Nobody revoked anybody after this one: it is new, whatever it says of itself.
    let fresh = home.draft(&[put(2)]);
    let before = home.seen().await;
    refused(home.give(given_back(&fresh, &home.world.author)).await, Code::LogMoved);
    assert_eq!(home.seen().await, before);
    // Of another device it can be one that crossed the revocation.
    let foreign = PreparedCommit { is_foreign: true, ..given_back(&fresh, &home.world.author) };
    assert!(matches!(home.give(foreign).await.unwrap(), Pushed::Applied { .. }));
}

pub(super) async fn a_revoked_device_gets_no_session(store: AnyStore) {
    let home = Home::new(&store, 1).await;
    let (second, enrolled) = home.world.second(10);
    let row = super::session::session(1, SESSION_DEVICE);
    let row = SessionRow { account: home.world.account, device: second.keys.id(), ..row };
    store.add_entry(enrolled.clone(), SignInChange::default()).await.unwrap();
    store.put_session(row).await.unwrap();
    let effect = EntryEffect::Revoke { device: second.keys.id(), pins: Vec::new() };
    let revocation = entry_of(&home.world.identity, "revoke", 2, enrolled.hash, effect);
    store.heal_log(vec![revocation], Digest::ZERO).await.unwrap();
    refused(store.put_session(row).await, Code::Unauthenticated);
    assert_eq!(store.session(row.token_hash, 50).await.unwrap(), None);
    let other = SessionRow { device: home.world.author.keys.id(), ..row };
    store.put_session(other).await.unwrap();
    assert_eq!(store.session(row.token_hash, 50).await.unwrap(), Some(other));
}

pub(super) async fn a_lost_object_keeps_its_parts_until_it_is_uploaded_again(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    assert!(!store.has_segments().await.unwrap());
    home.upload(1, 1).await.unwrap();
    assert!(store.has_segments().await.unwrap());
    home.commit(&[Op::Put(record(1), 40, vec![BLOB])]).await;
    let whole = home.lies_in().await;
    store.lose_object(home.key, BLOB).await.unwrap();
    let lost = (ObjectRow { complete: false, ..whole.0 }, whole.1.clone());
    assert_eq!(home.lies_in().await, lost);
    assert!(store.collect(1_000_000, 1).await.unwrap().is_empty(), "nothing is deleted");
    let draft = home.draft(&[Op::Put(record(2), 40, vec![BLOB])]);
    refused(home.try_push(&home.world.author, &draft).await, Code::MissingObject);
    let part = Digest::from_bytes([1; 32]);
    let row = PartRow { index: 0, digest: part, segment: SegmentId([2; 16]), start: 0, size: 10 };
    store.begin_segment(home.key, row.segment, 0, 1).await.unwrap();
    refused(store.put_part(home.key, BLOB, row, 1).await, Code::NotFound);
    store.complete_object(home.key, BLOB).await.expect("the bytes came back");
    assert_eq!(home.lies_in().await, whole);

    store.lose_object(home.key, BLOB).await.unwrap();
    refused(home.upload(3, 9).await, Code::Exists);
    refused(store.begin_object(home.key, BLOB, 10, Digest::ZERO, 1).await, Code::Exists);
    refused(store.begin_object(home.key, BLOB, 11, whole.0.digest, 1).await, Code::Exists);
    let (row_again, parts) = store.begin_object(home.key, BLOB, 10, whole.0.digest, 1).await.unwrap();
    assert!(!row_again.complete && parts.is_empty());
    store.put_part(home.key, BLOB, row, 1).await.unwrap();
    let (_, parts) = store.begin_object(home.key, BLOB, 10, whole.0.digest, 1).await.unwrap();
    assert_eq!(parts.len(), 1, "it goes on where it was");
    store.complete_object(home.key, BLOB).await.unwrap();
    assert_eq!(home.lies_in().await, (whole.0, vec![row.segment]));
    assert!(store.collect(1_000_000, 1).await.unwrap().contains(&SegmentId([1; 16])));
    refused(home.upload(4, 9).await, Code::Exists);
    assert!(store.check_usage(false).await.unwrap().is_empty());
}

pub(super) async fn what_was_lost_before_it_was_known_can_always_be_put_right(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    let draft = home.draft(&[Op::Put(record(1), 40, vec![BLOB])]);
    home.give(given_back(&draft, &home.world.author)).await.unwrap();
    home.chain.follow(&draft.prepare(&home.world.author));
    let digest_of = |content: u8| object_digest(10, &[Digest::from_bytes([content; 32])]);
    for (number, content) in [(1, 9), (2, 8), (3, 1)] {
        home.upload(number, content).await.unwrap();
        let row = ObjectRow { size: 10, digest: digest_of(content), complete: true };
        assert_eq!(home.lies_in().await, (row, vec![SegmentId([number; 16])]));
    }
    home.upload(4, 1).await.unwrap();
    assert_eq!(home.lies_in().await.1, [SegmentId([3; 16])], "the same again is the same");
    store.lose_object(home.key, BLOB).await.unwrap();
    // Begun by somebody who says something else, it is not blocked either.
    store.begin_object(home.key, BLOB, 30, Digest::ZERO, 1).await.unwrap();
    store.begin_object(home.key, BLOB, 30, digest_of(7), 1).await.unwrap();
    let (_, parts) = store.begin_object(home.key, BLOB, 10, digest_of(1), 1).await.unwrap();
    assert!(parts.is_empty());
    let part = Digest::from_bytes([1; 32]);
    let row = PartRow { index: 0, digest: part, segment: SegmentId([5; 16]), start: 0, size: 10 };
    store.begin_segment(home.key, row.segment, 0, 1).await.unwrap();
    store.put_part(home.key, BLOB, row, 1).await.unwrap();
    store.complete_object(home.key, BLOB).await.unwrap();
    home.upload(6, 2).await.unwrap();
    assert_eq!(home.lies_in().await.0.digest, digest_of(2));
    assert!(store.check_usage(false).await.unwrap().is_empty());
    home.commit(&[Op::Put(record(2), 40, vec![BLOB])]).await;
}

pub(super) async fn staged_envelopes_of_a_commit_fit_into_memory(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    let ops: Vec<Op> = (0..17).map(|number| Op::Put(record(number), 1_000_000, Vec::new())).collect();
    for (count, code) in [(17, Some(Code::TooLarge)), (16, None)] {
        let mut draft = home.draft(&ops[..count]);
        let envelopes = std::mem::take(&mut draft.envelopes);
        let staged = envelopes.into_iter().map(|bytes| (envelope::digest(&bytes), bytes)).collect();
        store.stage(home.key, staged, 1000).await.unwrap();
        let pushed = home.try_push(&home.world.author, &draft).await;
        match code {
            Some(code) => refused(pushed, code),
            None => assert!(matches!(pushed, Ok(Pushed::Applied { .. }))),
        }
    }
}

/// A repair by the account's identity, which is the first device's key here.
fn repair(home: &mut Home, to: u64, is_signed: bool) -> PreparedCommit {
    let mut draft = home.draft(&[]);
    draft.commit.kind = KIND_REPAIR;
    let commit = &draft.commit;
    let place = RepairPlace {
        vault: commit.vault,
        seq: commit.seq,
        previous: commit.previous,
        device: commit.device,
    };
    let says = [Change::GoBack(Seq::new(to))];
    let input = repair_input(home.world.account, &place, &says);
    let mut signature = home.world.author.keys.sign(label::REPAIR, input).signature;
    signature.0[0] ^= u8::from(!is_signed);
    draft.changes = Changes([&says[..], &[Change::Authority(signature)]].concat());
    draft.prepare(&home.world.author)
}

/// `pins` gives the pinned commits of the store's only vault, ascending.
async fn a_repair_puts_pins_back(store: AnyStore, pins: impl Fn() -> Vec<i64>) {
    let mut home = Home::new(&store, 1).await;
    // Records stay as they are, so that going back changes pins alone.
    home.commit(&[Op::Pin(0), Op::Pin(1)]).await;
    home.commit(&[Op::Unpin(1)]).await;
    home.commit(&[Op::Pin(1), Op::Pin(2)]).await;
    home.commit(&[Op::Unpin(0), Op::Unpin(2), Op::Pin(4)]).await;
    assert_eq!(pins(), [1, 4]);
    let forged = repair(&mut home, 2, false);
    refused(home.give(forged).await, Code::InvalidChain);
    assert_eq!(pins(), [1, 4]);
    let back = repair(&mut home, 2, true);
    assert!(matches!(home.give(back.clone()).await.unwrap(), Pushed::Applied { .. }));
    assert_eq!(pins(), [0], "as after commit 2");
    home.chain.follow(&back);
    // What an earlier repair abandoned has no say when a later one goes back behind it.
    home.commit(&[Op::Unpin(0), Op::Pin(1)]).await;
    let back = repair(&mut home, 5, true);
    home.give(back).await.unwrap();
    assert_eq!(pins(), [0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_puts_pins_back_on_sqlite() {
    let folder = Folder::new();
    let path = folder.path().join("test.sqlite");
    let store = Arc::new(SqliteStore::open(&path).await.unwrap());
    a_repair_puts_pins_back(store.clone(), || {
        let database = rusqlite::Connection::open(&path).unwrap();
        let mut rows = database.prepare("SELECT seq FROM pin ORDER BY seq").unwrap();
        rows.query_map((), |row| row.get::<_, i64>(0)).unwrap().map(Result::unwrap).collect()
    })
    .await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_puts_pins_back_on_postgres() {
    let cluster = Cluster::shared();
    let url = cluster.database();
    let store = Arc::new(PostgresStore::open(&PostgresUrl::parse(&url).unwrap(), 16).await.unwrap());
    a_repair_puts_pins_back(store.clone(), || {
        let rows = cluster.sql(name_of(&url), "SELECT seq FROM pin ORDER BY seq");
        rows.lines().map(|seq| seq.parse().unwrap()).collect()
    })
    .await;
    store.close().await;
}
