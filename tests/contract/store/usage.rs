//! Usage to the byte, and quotas that hold.

use super::life::{pins, revocation};
use super::{AnyStore, Home, at_once, refused};
use crate::chain::{Chain, Op, put, record};
use crate::world::{bytes_of, id16, rng};
use lockstep_proto::api::problem::Code;
use lockstep_proto::blob::object_digest;
use lockstep_proto::envelope;
use lockstep_proto::id::{BlobId, VaultId};
use lockstep_proto::{Digest, Signed};
use lockstep_server::domain::quota::{QuotaSetting, RESERVE_BYTES, ROW_BYTES, VAULT_BYTES};
use lockstep_server::store::{FramedObject, NewVault, PartRow, Pushed, SegmentId, SignInChange};
use rand::rand_core::Rng as _;
use std::sync::Arc;

const VAULT: VaultId = VaultId::from_bytes([0x44; 16]);
const GRACE: u64 = 100;

fn segment(number: u64) -> SegmentId {
    SegmentId(id16(&mut rng(number)))
}

fn blob(number: u64) -> BlobId {
    BlobId::from_bytes(id16(&mut rng(number ^ 0xb10b)))
}

fn framed(number: u64, size: u64) -> FramedObject {
    let part = Digest::from_bytes([7; 32]);
    FramedObject { blob: blob(number), size, part, digest: object_digest(size, &[part]), start: 0 }
}

fn signed_bytes(signed: &Signed) -> u64 {
    signed.bytes.0.len() as u64 + 64 + ROW_BYTES
}

fn birth_bytes(birth: &NewVault) -> u64 {
    // An empty change list has one byte.
    VAULT_BYTES + signed_bytes(&birth.create) + signed_bytes(&birth.genesis) + 1
}

impl Home {
    /// A vault that is not the keyring, which has the reserve.
    pub(super) async fn plain(store: &AnyStore, seed: u64) -> Self {
        let home = Self::new(store, seed).await;
        let birth = home.world.birth(VAULT, 1);
        let chain = Chain::new(birth.tip.clone(), seed);
        store.create_vault(home.world.account, birth).await.unwrap();
        let key = store.vault(home.world.account, VAULT).await.unwrap().unwrap().key;
        Self { vault: VAULT, key, chain, ..home }
    }

    pub(super) async fn used(&self) -> u64 {
        let usage = self.store.usage(self.world.account).await.unwrap().unwrap();
        assert_eq!(self.store.check_usage(false).await.unwrap(), [], "what is kept is what is there");
        usage.used
    }

    async fn set_quota(&self, bytes: u64) {
        let set = self.store.set_quota(self.world.account, QuotaSetting::Bytes(bytes)).await;
        assert!(set.unwrap());
    }

    /// Leaves room for so many bytes.
    pub(super) async fn leave(&self, bytes: u64) {
        self.set_quota(self.used().await + bytes).await;
    }

    fn commit_bytes(&self, draft: &crate::chain::Draft) -> u64 {
        let push = draft.push(&self.world.author);
        let envelopes: u64 = draft.envelopes.iter().map(|bytes| bytes.len() as u64 + ROW_BYTES).sum();
        signed_bytes(&push.commit) + push.changes.0.len() as u64 + envelopes
    }

    pub(super) async fn collect(&self, now: u64) {
        for segment in self.store.collect(now, GRACE).await.unwrap() {
            self.store.forget_segment(segment).await.unwrap();
        }
    }
}

pub(super) async fn commits_and_staged_envelopes_count_to_the_byte(store: AnyStore) {
    let mut home = Home::plain(&store, 1).await;
    let world = &home.world;
    let births = birth_bytes(&world.birth(world.keyring(), 1)) + birth_bytes(&world.birth(VAULT, 1));
    let mut expected = births + signed_bytes(&world.entry().entry);
    assert_eq!(home.used().await, expected);
    let (second, entry) = world.second(20);
    expected += signed_bytes(&entry.entry);
    store.add_entry(entry, SignInChange::default()).await.unwrap();
    assert_eq!(home.used().await, expected, "the device log counts");
    assert_eq!(second.log_index, 1);

    let draft = home.draft(&[put(1), put(2), Op::Pin(0)]);
    expected += home.commit_bytes(&draft);
    home.push(&draft).await;
    assert_eq!(home.used().await, expected);
    let applied = draft.prepare(&home.world.author);
    store.apply_commit(home.world.account, home.key, applied).await.unwrap();
    assert_eq!(home.used().await, expected, "the same commit counts once");

    let draft = home.draft(&[put(1), Op::Tombstone(record(2)), put(3)]);
    let staged: Vec<_> =
        draft.envelopes.iter().map(|bytes| (envelope::digest(bytes), bytes.clone())).collect();
    let staged_bytes = |range: std::ops::Range<usize>| -> u64 {
        staged[range].iter().map(|(_, bytes)| bytes.len() as u64 + ROW_BYTES).sum()
    };
    store.stage(home.key, staged[..2].to_vec(), 1000).await.unwrap();
    assert_eq!(home.used().await, expected + staged_bytes(0..2));
    store.stage(home.key, staged.clone(), 2000).await.unwrap();
    assert_eq!(home.used().await, expected + staged_bytes(0..3), "what is staged twice counts once");
    let mut bare = draft.clone();
    bare.envelopes.truncate(1);
    refused(home.try_push(&second, &bare).await, Code::InvalidSignature);
    assert_eq!(home.used().await, expected + staged_bytes(0..3), "a refused commit counts nothing");
    let whole = home.commit_bytes(&draft);
    let pushed = home.try_push(&home.world.author, &bare).await.unwrap();
    assert!(matches!(pushed, Pushed::Applied { .. }));
    // The first came along, although it was staged too: that copy counts until it expires.
    expected += whole;
    assert_eq!(home.used().await, expected + staged_bytes(0..1));
    store.collect(2001, GRACE).await.unwrap();
    assert_eq!(home.used().await, expected);
    let usage = store.usage(home.world.account).await.unwrap().unwrap();
    assert_eq!((usage.records, usage.objects, usage.quota), (3, 0, None));
}

pub(super) async fn objects_count_from_the_begin_to_the_deletion(store: AnyStore) {
    let home = Home::plain(&store, 1).await;
    let before = home.used().await;
    store.begin_segment(home.key, segment(1), 1000, 10).await.unwrap();
    assert_eq!(home.used().await, before + 1000, "announced bytes count");
    let objects = vec![framed(1, 300), framed(2, 200)];
    assert!(store.put_framed(home.key, segment(1), objects.clone(), 10).await.unwrap());
    let one = before + 500 + 2 * ROW_BYTES;
    assert_eq!(home.used().await, one, "those that came count");
    store.begin_segment(home.key, segment(2), 600, 20).await.unwrap();
    assert!(!store.put_framed(home.key, segment(2), objects, 20).await.unwrap(), "nothing new");
    assert_eq!(home.used().await, one + 600);
    store.drop_segment(segment(2)).await.unwrap();
    assert_eq!(home.used().await, one + 600, "until its bytes are gone");
    store.forget_segment(segment(2)).await.unwrap();
    assert_eq!(home.used().await, one);
    store.drop_segment(segment(1)).await.unwrap();
    store.forget_segment(segment(1)).await.unwrap();
    assert_eq!(home.used().await, one, "a segment in use is not given up");

    // Bytes of objects that were known lie in the segment as long as a new one does.
    store.begin_segment(home.key, segment(3), 1000, 20).await.unwrap();
    let objects = vec![framed(1, 300), framed(3, 1)];
    assert!(store.put_framed(home.key, segment(3), objects, 20).await.unwrap());
    let two = one + 301 + ROW_BYTES;
    assert_eq!(home.used().await, two);

    let digest = object_digest(5000, &[Digest::from_bytes([1; 32])]);
    store.begin_object(home.key, blob(4), 5000, digest, 20).await.unwrap();
    store.begin_object(home.key, blob(4), 5000, digest, 20).await.unwrap();
    let begun = two + 5000 + ROW_BYTES;
    assert_eq!(home.used().await, begun, "a begun upload counts in full, once");
    let part = |content: u8, at: u64| PartRow {
        index: 0,
        digest: Digest::from_bytes([content; 32]),
        segment: segment(at),
        start: 0,
        size: 5000,
    };
    for (content, at, is_used) in [(9, 10, true), (9, 11, false), (1, 12, true)] {
        store.begin_segment(home.key, segment(at), 0, 20).await.unwrap();
        let used = store.put_part(home.key, blob(4), part(content, at), 20).await.unwrap();
        assert_eq!(used, is_used, "the same part again is not needed");
    }
    assert_eq!(home.used().await, begun + 5000, "a replaced part counts until it is deleted");
    home.collect(20).await;
    assert_eq!(home.used().await, begun);
    store.complete_object(home.key, blob(4)).await.unwrap();
    assert_eq!(home.used().await, begun);
    assert_eq!(store.usage(home.world.account).await.unwrap().unwrap().objects, 4);

    let dead = store.collect(1000, GRACE).await.unwrap();
    assert_eq!(dead.len(), 4, "three in use, and one that was not needed");
    let rows_gone = home.used().await;
    assert_eq!(rows_gone, before + 500 + 301 + 5000, "bytes count until they are gone");
    for segment in dead {
        store.forget_segment(segment).await.unwrap();
    }
    assert_eq!(home.used().await, before);
    assert_eq!(store.usage(home.world.account).await.unwrap().unwrap().objects, 0);
}

/// Whatever happens, in whatever order: what is kept is what is there.
pub(super) async fn usage_follows_any_history(store: AnyStore) {
    let mut home = Home::plain(&store, 1).await;
    home.leave(60_000).await;
    let mut random = rng(77);
    let mut refusals = 0;
    for step in 0..400_u64 {
        let now = 1000 + step * 10;
        let number = random.next_u64();
        let which = number / 16 % 12;
        let done = match number % 16 {
            0..=3 => {
                let at = segment(10_000 + step);
                let objects: Vec<_> = (which..which + 3).map(|which| framed(which, 1 + which * 40)).collect();
                let announced = store.begin_segment(home.key, at, 300, now).await;
                match announced {
                    Ok(()) => store.put_framed(home.key, at, objects, now).await.map(drop),
                    Err(error) => Err(error),
                }
            }
            4..=6 => {
                let object = framed(which, 1 + which * 40);
                store.begin_object(home.key, object.blob, object.size, object.digest, now).await.map(drop)
            }
            7..=8 => {
                let at = segment(20_000 + step);
                store.begin_segment(home.key, at, 0, now).await.unwrap();
                let digest = Digest::from_bytes([(number / 1000 % 3) as u8 + 6; 32]);
                let part = PartRow { index: 0, digest, segment: at, start: 0, size: 1 + which * 40 };
                store.put_part(home.key, blob(which), part, now).await.map(drop)
            }
            9 => store.complete_object(home.key, blob(which)).await,
            10..=11 => {
                let (digest, bytes) = staged(&home, number, 300);
                store.stage(home.key, vec![(digest, bytes)], now + 200).await
            }
            12..=13 => {
                let ops = [put(which), Op::Put(record(20 + which), 100, vec![blob(which)])];
                let draft = home.draft(&ops);
                match home.try_push(&home.world.author, &draft).await {
                    Ok(Pushed::Applied { .. }) => {
                        home.chain.follow(&draft.prepare(&home.world.author));
                        Ok(())
                    }
                    Ok(Pushed::HeadMoved) => panic!("nobody else writes"),
                    Err(error) => Err(error),
                }
            }
            14 => store.drop_segment(segment(10_000 + step.saturating_sub(number % 5))).await,
            _ => {
                home.collect(now).await;
                Ok(())
            }
        };
        refusals += u32::from(done.is_err());
        let (used, quota) = (home.used().await, quota_of(&home).await);
        assert!(used <= quota, "step {step}: {used} of {quota}");
    }
    assert!(refusals > 20, "{refusals}");
    home.collect(1_000_000).await;
    home.used().await;
}

/// An envelope that any vault would stage.
fn staged(home: &Home, seed: u64, size: usize) -> (Digest, Vec<u8>) {
    let mut chain = Chain::of(&home.world, home.vault);
    let draft = chain.draft(&home.world.author, &[Op::Put(record(seed), size, Vec::new())]);
    let mut bytes = draft.envelopes[0].clone();
    let filling = bytes_of(&mut rng(seed), 8);
    let end = bytes.len();
    bytes[end - 8..].copy_from_slice(&filling);
    (envelope::digest(&bytes), bytes)
}

async fn quota_of(home: &Home) -> u64 {
    home.store.usage(home.world.account).await.unwrap().unwrap().quota.unwrap()
}

pub(super) async fn of_many_uploads_at_once_those_that_fit_are_taken(store: AnyStore) {
    let home = Arc::new(Home::plain(&store, 1).await);
    let size = 1000;
    let fits = 5;
    home.leave(fits * (size + ROW_BYTES) + size).await;
    let begin = (0..32).map(|number| {
        let home = Arc::clone(&home);
        async move { home.store.begin_object(home.key, blob(number), size, Digest::ZERO, 10).await.map(drop) }
    });
    let results = at_once(begin.collect()).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count() as u64, fits);
    results.into_iter().filter(Result::is_err).for_each(|result| refused(result, Code::QuotaExceeded));
    assert_eq!(home.used().await, quota_of(&home).await - size);

    home.collect(1000).await;
    home.leave(fits * (size + ROW_BYTES)).await;
    let frames = (100..132).map(|number| {
        let home = Arc::clone(&home);
        async move {
            let at = segment(number);
            home.store.begin_segment(home.key, at, size, 1000).await?;
            let done = home.store.put_framed(home.key, at, vec![framed(number, size)], 1000).await;
            assert!(
                home.store.usage(home.world.account).await.unwrap().unwrap().used <= quota_of(&home).await
            );
            if done.is_err() {
                home.store.drop_segment(at).await.unwrap();
                home.store.forget_segment(at).await.unwrap();
            }
            done.map(drop)
        }
    });
    let results = at_once(frames.collect()).await;
    let taken = results.iter().filter(|result| result.is_ok()).count() as u64;
    assert!((1..=fits).contains(&taken), "{taken}");
    results.into_iter().filter(Result::is_err).for_each(|result| refused(result, Code::QuotaExceeded));
    assert!(home.used().await <= quota_of(&home).await);

    home.leave(3 * 700).await;
    let stage = (200..232).map(|number| {
        let home = Arc::clone(&home);
        async move { home.store.stage(home.key, vec![staged(&home, number, 200)], 5000).await }
    });
    let results = at_once(stage.collect()).await;
    let taken = results.iter().filter(|result| result.is_ok()).count();
    assert!((1..=4).contains(&taken), "{taken}");
    results.into_iter().filter(Result::is_err).for_each(|result| refused(result, Code::QuotaExceeded));
    assert!(home.used().await <= quota_of(&home).await);
}

pub(super) async fn a_quota_is_kept_by_every_way_to_store(store: AnyStore) {
    let mut home = Home::plain(&store, 1).await;
    let draft = home.draft(&[put(1), put(2)]);
    let size = home.commit_bytes(&draft);
    home.leave(size - 1).await;
    let before = home.seen().await;
    refused(home.try_push(&home.world.author, &draft).await, Code::QuotaExceeded);
    assert_eq!(home.seen().await, before, "a refused commit changes nothing");
    home.leave(size).await;
    home.push(&draft).await;
    assert_eq!(home.used().await, quota_of(&home).await, "to the byte");

    refused(store.begin_segment(home.key, segment(1), 1, 10).await, Code::QuotaExceeded);
    refused(store.begin_object(home.key, blob(1), 1, Digest::ZERO, 10).await, Code::QuotaExceeded);
    assert!(store.object(home.key, blob(1)).await.unwrap().is_none());
    refused(store.stage(home.key, vec![staged(&home, 1, 40)], 1000).await, Code::QuotaExceeded);
    let birth = home.world.birth(VaultId::from_bytes([0x55; 16]), 1);
    refused(store.create_vault(home.world.account, birth).await, Code::QuotaExceeded);
    assert_eq!(store.vaults(home.world.account).await.unwrap().len(), 2);

    // What was announced fits, what came does not.
    home.leave(100).await;
    store.begin_segment(home.key, segment(2), 100, 10).await.unwrap();
    let late = store.put_framed(home.key, segment(2), vec![framed(2, 100)], 10).await;
    refused(late, Code::QuotaExceeded);
    assert!(store.object(home.key, blob(2)).await.unwrap().is_none());
    home.collect(1000).await;

    // A part that was begun has its place; another in its stead needs more.
    home.leave(10 + ROW_BYTES).await;
    store.begin_object(home.key, blob(3), 10, Digest::ZERO, 1000).await.unwrap();
    for (content, at) in [(1, 3), (2, 4)] {
        store.begin_segment(home.key, segment(at), 0, 1000).await.unwrap();
        let digest = Digest::from_bytes([content; 32]);
        let part = PartRow { index: 0, digest, segment: segment(at), start: 0, size: 10 };
        let done = store.put_part(home.key, blob(3), part, 1000).await;
        if content == 1 {
            assert!(done.unwrap());
        } else {
            refused(done, Code::QuotaExceeded);
        }
    }
    let (_, parts) = store.object(home.key, blob(3)).await.unwrap().unwrap();
    assert_eq!(parts[0].digest, Digest::from_bytes([1; 32]), "the part that was held stays");
}

pub(super) async fn at_the_quota_deleting_and_devices_go_on(store: AnyStore) {
    let mut home = Home::plain(&store, 1).await;
    home.commit(&[put(1), put(2), put(3)]).await;
    home.leave(0).await;
    home.commit(&[Op::Tombstone(record(1)), Op::Pin(1)]).await;
    home.commit(&[Op::Unpin(1)]).await;
    let mixed = home.draft(&[put(2), Op::Tombstone(record(3))]);
    refused(home.try_push(&home.world.author, &mixed).await, Code::QuotaExceeded);
    let (second, entry) = home.world.second(20);
    store.add_entry(entry.clone(), SignInChange::default()).await.expect("devices come and go at any time");
    // Far below what is used it is no different.
    home.set_quota(1).await;
    home.commit(&[Op::Tombstone(record(2))]).await;
    let mut keyring = Home::keyring_of(&store, &home).await;
    keyring.commit(&[put(1)]).await;
    let staged_there = staged(&keyring, 5, 40);
    store.stage(keyring.key, vec![staged_there], 1000).await.expect("the keyring goes on");
    refused(store.stage(home.key, vec![staged(&home, 5, 40)], 1000).await, Code::QuotaExceeded);
    let deletion = home.draft(&[Op::Tombstone(record(3))]);
    let envelopes = deletion.envelopes.iter().map(|bytes| (envelope::digest(bytes), bytes.clone()));
    store.stage(home.key, envelopes.collect(), 1000).await.expect("deletions may be staged");
    home.push(&deletion).await;

    // The reserve has an end, too: it is no second quota.
    let mut spent = 0;
    let end = loop {
        let large: Vec<Op> = (0..7).map(|number| Op::Put(record(number), 1 << 19, Vec::new())).collect();
        let draft = keyring.draft(&large);
        match keyring.try_push(&keyring.world.author, &draft).await {
            Ok(_) => keyring.chain.follow(&draft.prepare(&keyring.world.author)),
            Err(error) => break error,
        }
        spent += keyring.commit_bytes(&draft);
        assert!(spent <= RESERVE_BYTES);
    };
    refused::<()>(Err(end), Code::QuotaExceeded);
    assert!(spent > RESERVE_BYTES / 2);
    // Whoever used it up is shut out: what that needs is written.
    let gone = revocation(&home.world, &entry, second.keys.id(), pins(&home).await);
    store.add_entry(gone.clone(), SignInChange::default()).await.expect("devices come and go at any time");
    for there in [&mut keyring, &mut home] {
        (there.world.author.log_index, there.world.author.log_head) = (gone.index, gone.hash);
        let (account, identity) = (there.world.account, there.world.identity);
        let rotation = there.chain.rotation(account, &identity, &there.world.author, 2);
        there.push(&rotation).await;
    }
    keyring.commit(&[put(1)]).await;
    home.commit(&[Op::Tombstone(record(1))]).await;
    home.used().await;
}

impl Home {
    /// The same account's keyring.
    async fn keyring_of(store: &AnyStore, home: &Self) -> Self {
        let world = crate::world::World::new(home.world.seed);
        let vault = world.keyring();
        let key = store.vault(world.account, vault).await.unwrap().unwrap().key;
        let chain = Chain::of(&world, vault);
        Self { store: Arc::clone(store), world, vault, key, chain }
    }
}

pub(super) async fn quotas_are_set_and_unset(store: AnyStore) {
    let home = Home::plain(&store, 1).await;
    let account = home.world.account;
    assert_eq!(store.quota(account).await.unwrap(), Some(QuotaSetting::Default));
    for (setting, quota) in [
        (QuotaSetting::Bytes(5), Some(5)),
        (QuotaSetting::Bytes(0), Some(0)),
        (QuotaSetting::Unlimited, None),
        (QuotaSetting::Default, None),
    ] {
        assert!(store.set_quota(account, setting).await.unwrap());
        assert_eq!(store.quota(account).await.unwrap(), Some(setting));
        assert_eq!(store.usage(account).await.unwrap().unwrap().quota, quota);
        let begun = store.begin_object(home.key, blob(1), 10, Digest::ZERO, 10).await;
        assert_eq!(begun.is_ok(), quota.is_none(), "{setting:?}");
    }
    let stranger = crate::world::World::new(60).account;
    assert!(!store.set_quota(stranger, QuotaSetting::Unlimited).await.unwrap());
    assert!(store.quota(stranger).await.unwrap().is_none());
    assert!(store.usage(stranger).await.unwrap().is_none());
}
