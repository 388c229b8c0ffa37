//! Objects, uploads, segments, collection: rows only, the bytes are elsewhere.

use super::{AnyStore, Home, at_once, refused};
use crate::chain::{Op, put, record};
use crate::world::{id16, rng};
use lockstep_proto::Digest;
use lockstep_proto::api::problem::Code;
use lockstep_proto::blob::object_digest;
use lockstep_proto::id::BlobId;
use lockstep_server::error::StoreError;
use lockstep_server::store::{FramedObject, ObjectRow, PartRow, Pushed, SegmentId};
use std::sync::Arc;

const GRACE: u64 = 100;

fn blob(number: u8) -> BlobId {
    BlobId::from_bytes([number; 16])
}

fn segment(number: u64) -> SegmentId {
    SegmentId(id16(&mut rng(number)))
}

fn framed(number: u8, content: u8, start: u64) -> FramedObject {
    let part = Digest::from_bytes([content; 32]);
    FramedObject { blob: blob(number), size: 10, part, digest: object_digest(10, &[part]), start }
}

impl Home {
    async fn frames(&self, at: SegmentId, objects: Vec<FramedObject>, now: u64) -> Result<(), StoreError> {
        let bytes = objects.iter().map(|object| object.size + 20).sum();
        self.store.begin_segment(self.key, at, bytes, now).await.unwrap();
        self.store.put_framed(self.key, at, objects, now).await.map(drop)
    }

    async fn is_there(&self, number: u8) -> bool {
        self.store.object(self.key, blob(number)).await.unwrap().is_some()
    }

    async fn part(&self, number: u8, index: u64, content: u8, at: SegmentId) -> Result<(), StoreError> {
        self.store.begin_segment(self.key, at, 0, 10).await.unwrap();
        let digest = Digest::from_bytes([content; 32]);
        let part = PartRow { index, digest, segment: at, start: 0, size: 10 };
        self.store.put_part(self.key, blob(number), part, 10).await.map(drop)
    }
}

pub(super) async fn framed_objects_are_stored_once(store: AnyStore) {
    let home = Home::new(&store, 1).await;
    home.frames(segment(1), vec![framed(1, 1, 0), framed(2, 2, 10)], 10).await.unwrap();
    let (row, parts) = store.object(home.key, blob(2)).await.unwrap().unwrap();
    let object = framed(2, 2, 10);
    assert_eq!(row, ObjectRow { size: 10, digest: object.digest, complete: true });
    assert_eq!(parts, [PartRow { index: 0, digest: object.part, segment: segment(1), start: 10, size: 10 }]);
    home.frames(segment(2), vec![framed(2, 2, 0), framed(3, 3, 10)], 20)
        .await
        .expect("known ones are accepted");
    let (_, parts) = store.object(home.key, blob(2)).await.unwrap().unwrap();
    assert_eq!(parts[0].segment, segment(1), "and stay where they are");
    let (_, parts) = store.object(home.key, blob(3)).await.unwrap().unwrap();
    assert_eq!((parts[0].segment, parts[0].start), (segment(2), 10));
    home.frames(segment(3), vec![framed(1, 1, 0)], 30).await.expect("nothing new at all");
    let other = Home::new(&store, 2).await;
    assert!(!other.is_there(1).await, "objects belong to their vault");
    other.frames(segment(4), vec![framed(1, 9, 0)], 10).await.expect("so do their ids");
    let many: Vec<_> = (0..=255).map(|number| framed(number, number, u64::from(number) * 10)).collect();
    other.frames(segment(5), many[2..].to_vec(), 10).await.unwrap();
    assert!(other.is_there(255).await && other.is_there(2).await);
}

pub(super) async fn the_same_objects_at_once_are_stored_once(store: AnyStore) {
    let home = Home::new(&store, 1).await;
    let key = home.key;
    let uploads = (0..8_u8).map(|number| {
        let store = Arc::clone(&store);
        let mut objects: Vec<_> =
            (0..50_u8).map(|object| framed(object, object, u64::from(object) * 10)).collect();
        if number.is_multiple_of(2) {
            objects.reverse();
        }
        async move {
            store.begin_segment(key, segment(u64::from(number)), 0, 10).await.unwrap();
            store.put_framed(key, segment(u64::from(number)), objects, 1000).await.unwrap();
        }
    });
    at_once(uploads.collect()).await;
    let mut used = std::collections::BTreeSet::new();
    for number in 0..50 {
        let (row, parts) = store.object(key, blob(number)).await.unwrap().unwrap();
        assert!(row.complete && parts.len() == 1);
        used.insert(parts[0].segment);
    }
    assert_eq!(used.len(), 1, "whoever came first stored all of them");
    let dead = store.collect(1000, 500).await.unwrap();
    assert_eq!(dead.len(), 7);
    assert!(dead.iter().all(|segment| !used.contains(segment)));
}

pub(super) async fn another_digest_stores_nothing(store: AnyStore) {
    let home = Home::new(&store, 1).await;
    home.frames(segment(1), vec![framed(1, 1, 0)], 10).await.unwrap();
    refused(home.frames(segment(2), vec![framed(5, 5, 0), framed(1, 2, 10)], 10).await, Code::Exists);
    assert!(!home.is_there(5).await, "all or nothing");
    let (row, _) = store.object(home.key, blob(1)).await.unwrap().unwrap();
    assert_eq!(row.digest, framed(1, 1, 0).digest);
    let digest = row.digest;
    refused(store.begin_object(home.key, blob(1), 11, digest, 10).await, Code::Exists);
    refused(store.begin_object(home.key, blob(1), 10, Digest::ZERO, 10).await, Code::Exists);
    let (row, parts) = store.begin_object(home.key, blob(1), 10, digest, 10).await.unwrap();
    assert!(row.complete && parts.len() == 1, "the same again is already whole");
}

pub(super) async fn uploads_begin_resume_and_complete(store: AnyStore) {
    let home = Home::new(&store, 1).await;
    let size = 2 * lockstep_proto::limits::PART_BYTES as u64 + 10;
    let parts_of = |contents: [u8; 3]| contents.map(|content| Digest::from_bytes([content; 32]));
    let digest = lockstep_proto::blob::object_digest(size, &parts_of([1, 2, 4]));
    refused(home.part(1, 0, 1, segment(1)).await, Code::NotFound);
    let (row, parts) = store.begin_object(home.key, blob(1), size, digest, 10).await.unwrap();
    assert_eq!((row, parts.len()), (ObjectRow { size, digest, complete: false }, 0));
    home.part(1, 2, 3, segment(2)).await.unwrap();
    home.part(1, 0, 1, segment(3)).await.unwrap();
    home.part(1, 2, 4, segment(4)).await.expect("a part may come again");
    let (row, parts) = store.begin_object(home.key, blob(1), size, digest, 10).await.unwrap();
    assert!(!row.complete);
    let held: Vec<_> = parts.iter().map(|part| (part.index, part.segment)).collect();
    assert_eq!(held, [(0, segment(3)), (2, segment(4))], "ascending; the later bytes stand");
    refused(store.complete_object(home.key, blob(1)).await, Code::Mismatch);
    home.part(1, 1, 7, segment(7)).await.unwrap();
    refused(store.complete_object(home.key, blob(1)).await, Code::Mismatch);
    home.part(1, 1, 2, segment(5)).await.unwrap();
    refused(store.complete_object(home.key, blob(2)).await, Code::NotFound);
    store.complete_object(home.key, blob(1)).await.unwrap();
    store.complete_object(home.key, blob(1)).await.expect("idempotent");
    let before = store.object(home.key, blob(1)).await.unwrap().unwrap();
    assert!(before.0.complete);
    home.part(1, 1, 9, segment(6)).await.expect("a repeated part of a complete object is fine");
    assert_eq!(store.object(home.key, blob(1)).await.unwrap().unwrap(), before, "and changes nothing");
    let mut dead = store.collect(10, GRACE).await.unwrap();
    dead.sort_unstable();
    let mut replaced = [segment(2), segment(7)];
    replaced.sort_unstable();
    assert_eq!(dead, replaced, "only what was replaced");
}

pub(super) async fn a_framed_object_replaces_an_upload_in_part(store: AnyStore) {
    let home = Home::new(&store, 1).await;
    let object = framed(1, 1, 0);
    store.begin_object(home.key, blob(1), object.size, object.digest, 10).await.unwrap();
    home.part(1, 0, 1, segment(1)).await.unwrap();
    home.frames(segment(2), vec![object], 10).await.unwrap();
    let (row, parts) = store.object(home.key, blob(1)).await.unwrap().unwrap();
    assert!(row.complete);
    assert_eq!(parts.iter().map(|part| part.segment).collect::<Vec<_>>(), [segment(2)]);
    assert_eq!(store.collect(10, GRACE).await.unwrap(), [segment(1)]);
}

pub(super) async fn what_nobody_names_is_collected(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    home.frames(segment(1), vec![framed(1, 1, 0), framed(2, 2, 10)], 1000).await.unwrap();
    home.frames(segment(2), vec![framed(3, 3, 0)], 1000).await.unwrap();
    store.begin_object(home.key, blob(4), 30, Digest::ZERO, 1000).await.unwrap();
    home.part(4, 0, 1, segment(3)).await.unwrap();
    home.frames(segment(4), vec![framed(5, 5, 0)], 1200).await.unwrap();
    home.commit(&[Op::Put(record(1), 40, vec![blob(1)])]).await;
    assert!(store.collect(1000 + GRACE, GRACE).await.unwrap().is_empty(), "within the grace period");
    assert!(home.is_there(3).await);
    let mut dead = store.collect(1001 + GRACE, GRACE).await.unwrap();
    dead.sort_unstable();
    let mut expected = [segment(2), segment(3)];
    expected.sort_unstable();
    assert_eq!(dead, expected, "a segment lives as long as one of its objects");
    let left: Vec<u8> = {
        let mut left = Vec::new();
        for number in 1..=5 {
            if home.is_there(number).await {
                left.push(number);
            }
        }
        left
    };
    assert_eq!(left, [1, 5]);
    let again = store.collect(1001 + GRACE, GRACE).await.unwrap();
    assert_eq!(again.len(), 2, "told again until it is forgotten");
    for segment in again {
        store.forget_segment(segment).await.unwrap();
    }
    store.forget_segment(segment(1)).await.expect("a segment in use is not forgotten");
    assert!(store.collect(1001 + GRACE, GRACE).await.unwrap().is_empty());
    home.commit(&[Op::Tombstone(record(1))]).await;
    assert_eq!(store.collect(1_000_000, GRACE).await.unwrap(), [segment(4)]);
    assert!(home.is_there(1).await, "named once, named for ever: history needs it");
    home.frames(segment(6), vec![framed(3, 3, 0)], 2000).await.expect("what was collected can come again");
}

pub(super) async fn abandoned_segments_are_collected(store: AnyStore) {
    let home = Home::new(&store, 1).await;
    store.begin_segment(home.key, segment(1), 10, 1000).await.unwrap();
    home.frames(segment(2), vec![framed(1, 1, 0)], 2000).await.unwrap();
    home.frames(segment(3), vec![framed(1, 1, 0)], 1000).await.expect("nothing new in it");
    assert!(store.collect(1000 + GRACE, GRACE).await.unwrap().is_empty());
    let mut dead = store.collect(1001 + GRACE, GRACE).await.unwrap();
    dead.sort_unstable();
    let mut expected = [segment(1), segment(3)];
    expected.sort_unstable();
    assert_eq!(dead, expected);
    let late = store.put_framed(home.key, segment(1), vec![framed(7, 7, 0)], 1200).await;
    refused(late, Code::Expired);
    assert!(!home.is_there(7).await, "no row names bytes that are being deleted");
    store.begin_object(home.key, blob(8), 30, Digest::ZERO, 1200).await.unwrap();
    let part = PartRow { index: 0, digest: Digest::ZERO, segment: segment(1), start: 0, size: 10 };
    refused(store.put_part(home.key, blob(8), part, 10).await, Code::Expired);
    assert!(store.object(home.key, blob(8)).await.unwrap().unwrap().1.is_empty());
}

pub(super) async fn commits_need_whole_objects_of_their_vault(store: AnyStore) {
    let (mut home, other) = (Home::new(&store, 1).await, Home::new(&store, 2).await);
    home.frames(segment(1), vec![framed(1, 1, 0)], 1000).await.unwrap();
    other.frames(segment(2), vec![framed(2, 2, 0)], 1000).await.unwrap();
    store.begin_object(home.key, blob(3), 10, Digest::ZERO, 1000).await.unwrap();
    home.part(3, 0, 1, segment(3)).await.unwrap();
    let draft = home.draft(&[Op::Put(record(1), 40, vec![blob(1), blob(2), blob(3)]), put(2)]);
    let before = home.seen().await;
    match home.try_push(&home.world.author, &draft).await {
        Err(StoreError::Refused(refusal)) => {
            assert_eq!(refusal.code, Code::MissingObject);
            assert_eq!(refusal.names, [blob(2).to_string(), blob(3).to_string()], "all of them are named");
        }
        result => panic!("{result:?}"),
    }
    assert_eq!(home.seen().await, before);
    store.collect(5000, GRACE).await.unwrap();
    assert!(!home.is_there(1).await, "a refused commit names nothing");
}

pub(super) async fn naming_and_collecting_do_not_cross(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    let mut named = 0;
    for round in 0..24_u8 {
        let place = segment(100 + u64::from(round));
        home.frames(place, vec![framed(round, round, 0)], 1000).await.unwrap();
        let draft = home.draft(&[Op::Put(record(u64::from(round)), 40, vec![blob(round)])]);
        let prepared = draft.prepare(&home.world.author);
        let (account, key) = (home.world.account, home.key);
        let commit = {
            let (store, prepared) = (Arc::clone(&store), prepared.clone());
            async move { store.apply_commit(account, key, prepared).await }
        };
        let collect = {
            let store = Arc::clone(&store);
            async move { store.collect(5000, GRACE).await.unwrap() }
        };
        // Which of the two goes first is the scheduler's; half of the rounds lean the other way.
        let (commit, collect) = (tokio::spawn(commit), tokio::spawn(collect));
        let (pushed, dead) = if round.is_multiple_of(2) {
            let pushed = commit.await.unwrap();
            (pushed, collect.await.unwrap())
        } else {
            let dead = collect.await.unwrap();
            (commit.await.unwrap(), dead)
        };
        if let Ok(Pushed::Applied { .. }) = pushed {
            named += 1;
            home.chain.follow(&prepared);
            assert!(home.is_there(round).await && !dead.contains(&place), "round {round}");
        } else {
            refused(pushed, Code::MissingObject);
            assert!(!home.is_there(round).await && dead.contains(&place), "round {round}");
        }
    }
    assert!(store.collect(9000, GRACE).await.unwrap().len() == 24 - named);
}
