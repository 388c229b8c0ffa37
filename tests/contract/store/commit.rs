//! Commits: all or nothing, once, one at a time.

use super::{AnyStore, Home, all_entries, at_once, refused};
use crate::chain::{Draft, Op, put, record, sealed};
use crate::world::Author;
use lockstep_proto::Digest;
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::{Change, Changes};
use lockstep_proto::envelope::{self, KIND_DOCUMENT, KIND_TOMBSTONE};
use lockstep_proto::id::{BlobId, DeviceId, Epoch, Revision, Seq, VaultId};
use lockstep_proto::limits;
use lockstep_server::domain::commit::PreparedCommit;
use lockstep_server::store::{Pushed, SignInChange};
use std::sync::Arc;

pub(super) async fn commits_are_applied_and_seen(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    let histories: [&[Op]; 4] = [
        &[put(1), put(2)],
        &[put(2), put(3), Op::Pin(1)],
        &[Op::Tombstone(record(1)), put(3)],
        &[put(1), Op::Pin(0), Op::Unpin(1)],
    ];
    let mut drafts = Vec::new();
    for ops in histories {
        let draft = home.draft(ops);
        home.push(&draft).await;
        drafts.push(draft);
    }
    let info = store.vaults(home.world.account).await.unwrap()[0].clone();
    assert_eq!(
        (info.vault, info.seq, info.head, info.records),
        (home.vault, Seq::new(4), home.chain.tip.hash, 3)
    );
    let row = store.vault(home.world.account, home.vault).await.unwrap().unwrap();
    assert_eq!((row.key, row.seq, row.head), (home.key, Seq::new(4), home.chain.tip.hash));
    let (head, commits, more) =
        store.commits(home.key, Some(Seq::new(0)), limits::PAGE_CHANGES_BYTES_MAX).await.unwrap();
    assert_eq!((head, more, commits.len()), (Seq::new(4), false, 4));
    for (commit, draft) in commits.iter().zip(&drafts) {
        let pushed = draft.push(&home.world.author);
        assert_eq!((&commit.commit, commit.changes.as_ref()), (&pushed.commit, Some(&pushed.changes)));
    }
    let live = all_entries(&store, home.key, Seq::new(4)).await;
    let expected: Vec<_> = home.chain.live().map(|version| (version.seq, version.record)).collect();
    assert_eq!(live.iter().map(|entry| (entry.seq, entry.record)).collect::<Vec<_>>(), expected);
}

pub(super) async fn the_same_commit_is_one_commit(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    home.commit(&[put(1)]).await;
    let draft = home.draft(&[put(1), put(2)]);
    let prepared = draft.prepare(&home.world.author);
    let (account, key) = (home.world.account, home.key);
    let tries = (0..16).map(|_| {
        let (store, prepared) = (Arc::clone(&store), prepared.clone());
        async move { store.apply_commit(account, key, prepared).await.unwrap() }
    });
    let applied = Pushed::Applied { seq: Seq::new(2), head: prepared.hash };
    assert!(at_once(tries.collect()).await.iter().all(|pushed| *pushed == applied));
    home.chain.follow(&prepared);
    home.commit(&[put(3)]).await;
    let before = home.seen().await;
    assert_eq!(store.apply_commit(account, key, prepared).await.unwrap(), applied, "long after");
    assert_eq!(home.seen().await, before);
    assert_eq!(before.commits.len(), 4);
    assert_eq!(before.vaults[0].records, 3);
}

pub(super) async fn of_many_commits_on_one_head_one_wins(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    for round in 0..4_u64 {
        let drafts: Vec<Draft> = (0..32).map(|number| home.draft(&[put(number), put(100 + round)])).collect();
        let prepared: Vec<_> = drafts.iter().map(|draft| draft.prepare(&home.world.author)).collect();
        let (account, key) = (home.world.account, home.key);
        let tries = prepared.iter().map(|prepared| {
            let (store, prepared) = (Arc::clone(&store), prepared.clone());
            async move { store.apply_commit(account, key, prepared).await.unwrap() }
        });
        let results = at_once(tries.collect()).await;
        let mut winners = prepared.iter().zip(&results).filter(|(_, pushed)| **pushed != Pushed::HeadMoved);
        let (winner, pushed) = winners.next().expect("somebody wins");
        assert_eq!(*pushed, Pushed::Applied { seq: winner.commit.seq, head: winner.hash });
        assert_eq!(winners.count(), 0, "and nobody else");
        home.chain.follow(winner);
        let row = store.vault(account, home.vault).await.unwrap().unwrap();
        assert_eq!((row.seq, row.head), (home.chain.seq(), home.chain.tip.hash));
    }
    home.commit(&[put(1)]).await;
    assert_eq!(home.seen().await.entries.len(), home.chain.live().count());
}

/// Devices of one account, all of them in its log.
async fn devices(home: &mut Home, count: u64) -> Vec<Author> {
    let mut authors = Vec::new();
    let mut head = home.world.author.log_head;
    for index in 1..=count {
        let (author, mut entry) = home.world.second(1000 + index);
        (entry.index, entry.previous) = (index, head);
        head = entry.hash;
        home.store.add_entry(entry, SignInChange::default()).await.unwrap();
        authors.push(author);
    }
    for author in &mut authors {
        (author.log_index, author.log_head) = (count, head);
    }
    authors
}

pub(super) async fn of_32_devices_one_wins_each_round(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    let mut left = devices(&mut home, 32).await;
    let (account, key) = (home.world.account, home.key);
    while !left.is_empty() {
        let number = left.len() as u64;
        let drafts: Vec<_> =
            left.iter().map(|device| home.chain.draft(device, &[put(number), put(99)])).collect();
        let pushes: Vec<_> = drafts.iter().zip(&left).map(|(draft, device)| draft.prepare(device)).collect();
        let tries = pushes.iter().map(|push| {
            let (store, push) = (Arc::clone(&store), push.clone());
            async move { store.apply_commit(account, key, push).await.unwrap() }
        });
        let results = at_once(tries.collect()).await;
        let won: Vec<usize> =
            (0..results.len()).filter(|index| results[*index] != Pushed::HeadMoved).collect();
        assert_eq!(won.len(), 1, "of {number} one wins: {results:?}");
        let winner = &pushes[won[0]];
        assert_eq!(results[won[0]], Pushed::Applied { seq: winner.commit.seq, head: winner.hash });
        home.chain.follow(winner);
        left.remove(won[0]);
    }
    let seen = home.seen().await;
    assert_eq!(seen.commits.len(), 33, "genesis, and one of each device");
    assert_eq!(seen.entries.len(), home.chain.live().count());
}

type Spoil = fn(&mut Draft);

fn change_of(draft: &mut Draft) -> (&mut Revision, &mut Digest) {
    match &mut draft.changes.0[0] {
        Change::Put { revision, envelope, .. } => (revision, envelope),
        other => panic!("{other:?}"),
    }
}

/// Seals the first change's envelope anew with a spoilt header, and names it.
fn reseal(draft: &mut Draft, spoil: impl FnOnce(&mut envelope::EnvelopeHeader)) {
    let (_, mut header) = envelope::decode(&draft.envelopes[0]).unwrap();
    spoil(&mut header);
    draft.envelopes[0] = sealed(&header, vec![1; 40]);
    let digest = envelope::digest(&draft.envelopes[0]);
    *change_of(draft).1 = digest;
}

/// Each breaks one rule of a commit that puts records 1 (revision 2) and 7 (revision 1) at seq 3.
const SPOILT: &[(&str, Code, Spoil)] = &[
    ("state", Code::InvalidChain, |draft| draft.commit.state = Digest::ZERO),
    ("skip", Code::InvalidChain, |draft| draft.commit.skip = Digest::ZERO),
    ("skip to previous of previous", Code::InvalidChain, |draft| draft.commit.skip = draft.commit.state),
    ("epoch", Code::InvalidChain, |draft| draft.commit.epoch = Epoch::new(2)),
    ("vault", Code::InvalidChain, |draft| draft.commit.vault = VaultId::ZERO),
    ("vault-log index", Code::InvalidChain, |draft| draft.commit.vault_log_index = 1),
    ("vault-log head", Code::InvalidChain, |draft| draft.commit.vault_log_head = Digest::ZERO),
    ("device-log head", Code::InvalidChain, |draft| draft.commit.device_log_head = Digest::ZERO),
    ("device-log index", Code::InvalidChain, |draft| draft.commit.device_log_index = 1),
    ("device-log index beyond numbers", Code::Malformed, |draft| draft.commit.device_log_index = u64::MAX),
    ("device", Code::InvalidChain, |draft| draft.commit.device = DeviceId::ZERO),
    ("revision too high", Code::InvalidChain, |draft| *change_of(draft).0 = Revision::new(3)),
    ("revision again", Code::InvalidChain, |draft| *change_of(draft).0 = Revision::new(1)),
    ("missing envelope", Code::MissingEnvelope, |draft| drop(draft.envelopes.remove(1))),
    ("another envelope", Code::MissingEnvelope, |draft| draft.envelopes[0] = draft.envelopes[1].clone()),
    ("no envelope", Code::Malformed, |draft| {
        draft.envelopes[0] = vec![0x80];
        *change_of(draft).1 = envelope::digest(&[0x80]);
    }),
    ("envelope of the other record", Code::InvalidChain, |draft| {
        *change_of(draft).1 = envelope::digest(&draft.envelopes[1]);
    }),
    ("envelope record", Code::InvalidChain, |draft| reseal(draft, |header| header.record = record(9))),
    ("envelope vault", Code::InvalidChain, |draft| reseal(draft, |header| header.vault = VaultId::ZERO)),
    ("envelope revision", Code::InvalidChain, |draft| {
        reseal(draft, |header| header.revision = Revision::new(5));
    }),
    ("envelope kind", Code::InvalidChain, |draft| reseal(draft, |header| header.kind = KIND_TOMBSTONE)),
    ("envelope epoch", Code::InvalidChain, |draft| reseal(draft, |header| header.epoch = Epoch::new(7))),
    ("envelope device", Code::InvalidChain, |draft| reseal(draft, |header| header.device = DeviceId::ZERO)),
    ("envelope blobs", Code::InvalidChain, |draft| reseal(draft, |header| header.blobs = Digest::ZERO)),
    ("tombstone over a document", Code::InvalidChain, |draft| {
        let Some((record, revision, envelope)) = draft.changes.0[0].version() else { panic!() };
        draft.changes.0[0] = Change::Tombstone { record, revision, envelope };
    }),
    ("missing object", Code::MissingObject, |draft| {
        let Change::Put { blobs, .. } = &mut draft.changes.0[0] else { panic!() };
        blobs.push(BlobId::from_bytes([1; 16]));
    }),
];

pub(super) async fn what_breaks_a_rule_changes_nothing(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    home.commit(&[put(1), put(2)]).await;
    home.commit(&[put(3)]).await;
    let good = home.draft(&[put(1), put(7)]);
    assert_eq!(good.commit.seq, Seq::new(3));
    let before = home.seen().await;
    for (what, code, spoil) in SPOILT {
        let mut draft = good.clone();
        spoil(&mut draft);
        let result = home.try_push(&home.world.author, &draft).await;
        assert!(result.is_err(), "{what}: {result:?}");
        refused(result, *code);
        assert_eq!(home.seen().await, before, "{what}");
    }
    let stranger = Author::new(50);
    refused(home.try_push(&stranger, &good).await, Code::InvalidSignature);
    assert_eq!(home.seen().await, before);
    home.push(&good).await;
}

pub(super) async fn what_does_not_decode_is_refused_before(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    let good = home.draft(&[put(1), put(2)]);
    let author = &home.world.author;
    let parse = |spoil: &dyn Fn(&mut Draft)| {
        let mut draft = good.clone();
        spoil(&mut draft);
        PreparedCommit::parse(draft.push(author)).err().map(|refusal| refusal.code)
    };
    assert_eq!(parse(&|_| ()), None);
    assert_eq!(parse(&|draft| draft.changes.0.clear()), Some(Code::InvalidChain), "no changes");
    assert_eq!(parse(&|draft| draft.changes.0.swap(0, 1)), Some(Code::Malformed), "order");
    assert_eq!(parse(&|draft| draft.changes.0.push(Change::Pin(Seq::new(2)))), Some(Code::InvalidChain));
    assert_eq!(parse(&|draft| draft.commit.kind = 1), Some(Code::Malformed), "genesis");
    for kind in [0, 4, 6] {
        assert_eq!(parse(&|draft| draft.commit.kind = kind), Some(Code::Malformed), "kind {kind}");
    }
    for kind in [3, 5] {
        let mut draft = good.clone();
        draft.commit.kind = kind;
        refused(home.try_push(author, &draft).await, Code::InvalidChain);
    }
    assert_eq!(parse(&|draft| draft.commit.version = 1), Some(Code::Malformed));
    assert_eq!(parse(&|draft| draft.envelopes.push(vec![0; (1 << 20) + 1])), Some(Code::TooLarge));
    let mut push = good.push(author);
    push.changes = Changes(vec![good.changes.0[0].clone()]).encode().into();
    let refusal = PreparedCommit::parse(push).err().map(|refusal| refusal.code);
    assert_eq!(refusal, Some(Code::InvalidChain), "another change list than the signed one");
    home.push(&good).await;
}

pub(super) async fn another_head_is_told_apart(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    let stale = home.draft(&[put(1)]);
    home.commit(&[put(2)]).await;
    let good = home.draft(&[put(3)]);
    let before = home.seen().await;
    let mut drafts = vec![stale, good.clone(), good.clone(), good.clone()];
    drafts[1].commit.previous = Digest::ZERO;
    drafts[2].commit.seq = Seq::new(3);
    drafts[3].commit.seq = Seq::new(u64::MAX);
    for draft in drafts {
        let pushed = home.try_push(&home.world.author, &draft).await.unwrap();
        assert_eq!(pushed, Pushed::HeadMoved);
        assert_eq!(home.seen().await, before);
    }
    home.push(&good).await;
}

pub(super) async fn authors_are_devices_of_the_log(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    let (second, entry) = home.world.second(20);
    let draft = home.chain.draft(&second, &[put(1)]);
    refused(home.try_push(&second, &draft).await, Code::InvalidChain);
    store.add_entry(entry, SignInChange::default()).await.unwrap();
    let mut early = draft.clone();
    (early.commit.device_log_index, early.commit.device_log_head) = (0, home.world.author.log_head);
    refused(home.try_push(&second, &early).await, Code::InvalidChain);
    let mut unsigned = draft.prepare(&second);
    unsigned.signed.signature.0[5] ^= 1;
    let key = home.key;
    refused(store.apply_commit(home.world.account, key, unsigned).await, Code::InvalidSignature);
    let prepared = draft.prepare(&second);
    let stranger = crate::world::World::new(60).account;
    refused(store.apply_commit(stranger, key, prepared.clone()).await, Code::InvalidChain);
    let pushed = store.apply_commit(home.world.account, key, prepared.clone()).await.unwrap();
    assert!(matches!(pushed, Pushed::Applied { .. }));
    home.chain.follow(&prepared);
    // The first device still names entry 0, but the chain has gone on to entry 1.
    let behind = home.draft(&[put(2)]);
    refused(home.try_push(&home.world.author, &behind).await, Code::InvalidChain);
    home.world.author.log_index = 1;
    home.world.author.log_head = second.log_head;
    home.commit(&[put(2)]).await;
}

pub(super) async fn staged_envelopes_are_used(store: AnyStore) {
    let (mut home, other) = (Home::new(&store, 1).await, Home::new(&store, 2).await);
    let draft = home.draft(&[put(1), put(2), put(3)]);
    let mut bare = draft.clone();
    bare.envelopes.truncate(1);
    let staged = |range: std::ops::Range<usize>| {
        let envelopes = draft.envelopes[range].iter();
        envelopes.map(|bytes| (envelope::digest(bytes), bytes.clone())).collect::<Vec<_>>()
    };
    store.stage(other.key, staged(0..3), 1000).await.unwrap();
    refused(home.try_push(&home.world.author, &bare).await, Code::MissingEnvelope);
    store.stage(home.key, staged(1..2), 1000).await.unwrap();
    let before = home.seen().await;
    refused(home.try_push(&home.world.author, &bare).await, Code::MissingEnvelope);
    assert_eq!(home.seen().await, before, "staged envelopes are invisible");
    store.stage(home.key, staged(1..3), 1000).await.unwrap();
    let pushed = home.try_push(&home.world.author, &bare).await.unwrap();
    assert!(matches!(pushed, Pushed::Applied { .. }), "the refused try used nothing up");
    home.chain.follow(&draft.prepare(&home.world.author));
    let entries = all_entries(&store, home.key, Seq::new(1)).await;
    assert_eq!(entries.iter().map(|entry| entry.envelope.0.clone()).collect::<Vec<_>>(), draft.envelopes);
    assert!(entries.iter().all(|entry| entry.kind == KIND_DOCUMENT));
    home.commit(&[put(1)]).await;
}

pub(super) async fn staged_envelopes_expire(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    let draft = home.draft(&[put(1), put(2)]);
    let mut bare = draft.clone();
    bare.envelopes.clear();
    let staged: Vec<_> =
        draft.envelopes.iter().map(|bytes| (envelope::digest(bytes), bytes.clone())).collect();
    store.stage(home.key, staged.clone(), 1000).await.unwrap();
    store.stage(home.key, staged[..1].to_vec(), 2000).await.expect("again is fine, and lasts longer");
    store.collect(1500, 100_000).await.unwrap();
    match home.try_push(&home.world.author, &bare).await {
        Err(lockstep_server::error::StoreError::Refused(refusal)) => {
            assert_eq!(refusal.code, Code::MissingEnvelope);
            assert_eq!(refusal.names, [staged[1].0.to_string()]);
        }
        other => panic!("{other:?}"),
    }
    store.stage(home.key, staged[1..].to_vec(), 2000).await.unwrap();
    store.collect(1500, 100_000).await.unwrap();
    let pushed = home.try_push(&home.world.author, &bare).await.unwrap();
    assert!(matches!(pushed, Pushed::Applied { .. }));
}

pub(super) async fn a_large_commit_is_whole(store: AnyStore) {
    let mut home = Home::new(&store, 1).await;
    let ops: Vec<Op> = (0..1000).map(put).collect();
    home.commit(&ops).await;
    home.commit(&ops).await;
    let live = all_entries(&store, home.key, Seq::new(2)).await;
    assert_eq!(live.len(), 1000);
    assert!(live.iter().all(|entry| (entry.seq, entry.revision) == (Seq::new(2), Revision::new(2))));
    assert_eq!(all_entries(&store, home.key, Seq::new(1)).await.len(), 1000);
    assert_eq!(store.vaults(home.world.account).await.unwrap()[0].records, 1000);
}
