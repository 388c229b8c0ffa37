//! Reading: pages, cursors, states as of a commit, history.

use super::{AnyStore, Home, all_commits, place_of, walk};
use crate::chain::{Op, Version, put, record};
use crate::world::{id16, rng};
use lockstep_proto::api::vault::Entry;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::Commit;
use lockstep_proto::id::{BlobId, RecordId, Seq};
use lockstep_proto::{Digest, limits};
use lockstep_server::store::{EntryQuery, FramedObject, SegmentId};
use std::sync::Arc;

fn seq_of(commit: &lockstep_proto::Signed) -> Seq {
    Commit::decode(&commit.bytes.0).unwrap().seq
}

pub(super) async fn commits_come_in_pages(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    for _ in 0..limits::PAGE_COMMITS_MAX {
        home.commit(&[put(1)]).await;
    }
    let head = home.chain.seq();
    let (told, first, more) = store.commits(home.key, None, limits::PAGE_CHANGES_BYTES_MAX).await.unwrap();
    assert_eq!((told, first.len(), more), (head, limits::PAGE_COMMITS_MAX, true));
    let all = all_commits(&store, home.key).await;
    let seqs: Vec<_> = all.iter().map(|entry| seq_of(&entry.commit).value()).collect();
    assert_eq!(seqs, (0..=head.value()).collect::<Vec<_>>(), "every commit once, in order");
    for (after, count) in [(0, 1024), (1, 1023), (900, 124), (1023, 1), (1024, 0), (u64::MAX >> 1, 0)] {
        let (told, page, more) =
            store.commits(home.key, Some(Seq::new(after)), limits::PAGE_CHANGES_BYTES_MAX).await.unwrap();
        assert_eq!((told, page.len(), more), (head, count, false), "after {after}");
        assert!(page.first().is_none_or(|entry| seq_of(&entry.commit).value() == after + 1));
    }
}

/// Objects that commits may name; only rows, the store never looks at bytes.
async fn objects(home: &Home, count: usize) -> Vec<BlobId> {
    let mut random = rng(3);
    let segment = SegmentId(id16(&mut random));
    let mut blobs: Vec<BlobId> = (0..count).map(|_| BlobId::from_bytes(id16(&mut random))).collect();
    blobs.sort_unstable();
    let framed = blobs.iter().map(|blob| FramedObject {
        blob: *blob,
        size: 1,
        part: Digest::ZERO,
        digest: Digest::ZERO,
        start: 0,
    });
    home.store.begin_segment(home.key, segment, 1, 1).await.unwrap();
    home.store.put_framed(home.key, segment, framed.collect(), 1).await.unwrap();
    blobs
}

pub(super) async fn change_lists_fill_pages(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    let blobs = objects(&home, limits::BLOBS_PER_CHANGE_MAX).await;
    let ops: Vec<Op> = (0..100).map(|number| Op::Put(record(number), 40, blobs.clone())).collect();
    for _ in 0..5 {
        home.commit(&ops).await;
    }
    let mut after = Some(Seq::new(0));
    let mut sizes = Vec::new();
    loop {
        let (_, page, more) = store.commits(home.key, after, limits::PAGE_CHANGES_BYTES_MAX).await.unwrap();
        let bytes: usize = page.iter().map(|entry| entry.changes.as_ref().unwrap().0.len()).sum();
        assert!(bytes <= limits::PAGE_CHANGES_BYTES_MAX);
        assert_eq!(seq_of(&page[0].commit), after.unwrap().next());
        after = page.last().map(|entry| seq_of(&entry.commit));
        sizes.push(page.len());
        if !more {
            break;
        }
    }
    assert_eq!((sizes, after), (vec![2, 2, 1], Some(Seq::new(5))));
}

/// What the model holds for a query.
fn expected(versions: &[Version], after: Option<u64>, upto: u64, current_only: bool) -> Vec<Entry> {
    let mut found: Vec<&Version> = versions
        .iter()
        .filter(|version| after.is_none_or(|after| version.seq.value() > after))
        .filter(|version| version.seq.value() <= upto)
        .filter(|version| version.replaced.is_none_or(|seq| !current_only && seq.value() > upto))
        .collect();
    found.sort_by_key(|version| (version.seq, version.record));
    let entry = |version: &Version| Entry {
        seq: version.seq,
        record: version.record,
        revision: version.revision,
        kind: version.kind,
        envelope: version.envelope.clone().into(),
    };
    found.into_iter().map(entry).collect()
}

fn strictly_ascending(entries: &[Entry]) -> bool {
    entries.is_sorted_by(|left, right| place_of(left) < place_of(right))
}

/// Puts and tombstones of a few records, some of the first commits large.
fn some_ops(random: &mut impl rand::rand_core::Rng, records: u64) -> Vec<Op> {
    let chosen = (0..records).filter(|_| random.next_u32().is_multiple_of(4));
    let mut ops: Vec<Op> = Vec::new();
    for number in chosen.collect::<Vec<_>>() {
        let op = match random.next_u32() % 5 {
            0 => Op::Tombstone(record(number)),
            _ => Op::Put(record(number), 20 + (random.next_u32() % 900) as usize, Vec::new()),
        };
        ops.push(op);
    }
    if ops.is_empty() { vec![put(0)] } else { ops }
}

pub(super) async fn entries_are_what_the_model_says(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    let mut random = rng(11);
    for round in 0..24 {
        let ops = some_ops(&mut random, if round == 3 { 1500 } else { 24 });
        home.commit(&ops).await;
    }
    let versions = home.chain.versions.clone();
    let head = home.chain.seq().value();
    for upto in [0, 1, 3, 4, 11, head] {
        for after in [None, Some(0), Some(2), Some(4), Some(10), Some(head), Some(1 << 62)] {
            for current_only in [false, true] {
                let model = expected(&versions, after, upto, current_only);
                for bytes_max in [1, 5000, 1 << 22] {
                    if bytes_max == 1 && model.len() > 60 {
                        continue;
                    }
                    let query = EntryQuery {
                        after: after.map(Seq::new),
                        upto: Seq::new(upto),
                        from: None,
                        current_only,
                        bytes_max,
                    };
                    let entries = walk(&store, home.key, query).await;
                    assert!(strictly_ascending(&entries), "{query:?}");
                    assert!(entries == model, "{query:?}: {} of {}", entries.len(), model.len());
                }
            }
        }
    }
}

pub(super) async fn a_cursor_has_no_gaps_while_others_write(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    let mut random = rng(12);
    for _ in 0..10 {
        let ops = some_ops(&mut random, 24);
        home.commit(&ops).await;
    }
    let upto = home.chain.seq();
    let model = expected(&home.chain.versions, None, upto.value(), false);
    let mut query = EntryQuery { after: None, upto, from: None, current_only: false, bytes_max: 900 };
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let (page, more) = store.entries(home.key, query).await.unwrap();
        entries.extend(page);
        query.from = entries.last().map(place_of);
        if !more {
            break;
        }
        // Between any two pages somebody replaces and deletes what is still to come.
        let ops = some_ops(&mut random, 24);
        home.commit(&ops).await;
    }
    assert!(strictly_ascending(&entries));
    assert_eq!(entries, model, "the state as of a commit does not move");
}

pub(super) async fn readers_see_no_gaps_while_somebody_writes(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    let mut random = rng(13);
    let mut pushes = Vec::new();
    for _ in 0..60 {
        let ops = some_ops(&mut random, 24);
        let push = home.chain.draft(&home.world.author, &ops).prepare(&home.world.author);
        home.chain.follow(&push);
        pushes.push(push);
    }
    let (account, key, head) = (home.world.account, home.key, home.chain.seq());
    let versions = Arc::new(home.chain.versions.clone());
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (store, versions) = (Arc::clone(&store), Arc::clone(&versions));
            tokio::spawn(async move {
                let mut after = Seq::new(0);
                while after < head {
                    let (told, page, more) =
                        store.commits(key, Some(after), limits::PAGE_CHANGES_BYTES_MAX).await.unwrap();
                    for commit in &page {
                        assert_eq!(seq_of(&commit.commit), after.next(), "no gap");
                        after = after.next();
                    }
                    assert_eq!((told, more), (after, false), "head and page are of one moment");
                    let query = EntryQuery {
                        after: None,
                        upto: after,
                        from: None,
                        current_only: false,
                        bytes_max: 3000,
                    };
                    let entries = walk(&store, key, query).await;
                    assert_eq!(
                        entries,
                        expected(&versions, None, after.value(), false),
                        "all of it is there"
                    );
                }
            })
        })
        .collect();
    for push in pushes {
        store.apply_commit(account, key, push).await.unwrap();
    }
    for reader in readers {
        reader.await.unwrap();
    }
}

pub(super) async fn envelopes_come_by_place(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    let other = Home::new(&store, 2).await;
    home.commit(&[put(1), put(2)]).await;
    home.commit(&[put(1), Op::Tombstone(record(2))]).await;
    let at = |seq, number| (Seq::new(seq), record(number));
    let there = [at(2, 2), at(1, 1), at(2, 1), at(1, 2)];
    let absent = [at(0, 1), at(3, 1), at(1, 3), at(u64::MAX >> 1, 1)];
    let asked: Vec<_> = there.iter().zip(&absent).flat_map(|(one, two)| [*two, *one]).collect();
    let (entries, more) = store.envelopes(home.key, asked).await.unwrap();
    assert!(!more);
    assert_eq!(
        entries.iter().map(place_of).collect::<Vec<_>>(),
        there,
        "in the order asked, absent ones left out"
    );
    for entry in &entries {
        let version = home
            .chain
            .versions
            .iter()
            .find(|version| (version.seq, version.record) == place_of(entry))
            .unwrap();
        assert_eq!((entry.revision, entry.kind), (version.revision, version.kind));
        assert_eq!(entry.envelope.0, version.envelope);
    }
    let (twice, _) = store.envelopes(home.key, vec![there[0], there[0]]).await.unwrap();
    assert_eq!(twice.len(), 2);
    let (none, more) = store.envelopes(other.key, there.to_vec()).await.unwrap();
    assert!(none.is_empty() && !more, "another vault's envelopes");
}

pub(super) async fn pages_of_envelopes_are_bounded(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    let size = limits::ENVELOPE_BYTES_MAX - 400;
    let mut places: Vec<(Seq, RecordId)> = Vec::new();
    for number in 0..6 {
        home.commit(&[Op::Put(record(number), size, Vec::new())]).await;
        places.push((home.chain.seq(), record(number)));
    }
    let (page, more) = store.envelopes(home.key, places.clone()).await.unwrap();
    assert_eq!((page.len(), more), (4, true));
    assert_eq!(page.iter().map(place_of).collect::<Vec<_>>(), places[..4]);
    let query = EntryQuery {
        after: None,
        upto: home.chain.seq(),
        from: None,
        current_only: true,
        bytes_max: usize::MAX,
    };
    let (page, more) = store.entries(home.key, query).await.unwrap();
    assert_eq!((page.len(), more), (4, true), "whatever the caller asks for, a page has its limit");
    let (page, more) = store.entries(home.key, EntryQuery { bytes_max: 0, ..query }).await.unwrap();
    assert_eq!((page.len(), more), (1, true), "one always fits");
    home.commit(&[Op::Tombstone(record(0))]).await;
    for _ in 0..5 {
        home.commit(&[Op::Put(record(0), size, Vec::new())]).await;
    }
    assert_eq!(store.history(home.key, record(0)).await.unwrap().len(), 4);
}

pub(super) async fn history_is_newest_first_and_bounded(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    home.commit(&[put(1), put(2)]).await;
    home.commit(&[put(2)]).await;
    home.commit(&[Op::Tombstone(record(1)), put(3)]).await;
    home.commit(&[put(1)]).await;
    let versions = store.history(home.key, record(1)).await.unwrap();
    let seqs: Vec<_> =
        versions.iter().map(|entry| (entry.seq.value(), entry.revision.value(), entry.kind)).collect();
    assert_eq!(seqs, [(4, 3, 1), (3, 2, 2), (1, 1, 1)]);
    for entry in &versions {
        let version = home
            .chain
            .versions
            .iter()
            .find(|version| (version.seq, version.record) == place_of(entry))
            .unwrap();
        assert_eq!(entry.envelope.0, version.envelope);
    }
    assert!(store.history(home.key, record(9)).await.unwrap().is_empty());
    for _ in 0..limits::HISTORY_ENTRIES_MAX {
        home.commit(&[put(3)]).await;
    }
    let versions = store.history(home.key, record(3)).await.unwrap();
    assert_eq!(versions.len(), limits::HISTORY_ENTRIES_MAX);
    assert_eq!(versions[0].seq, home.chain.seq());
    assert!(versions.is_sorted_by(|newer, older| newer.revision.value() == older.revision.value() + 1));
}
