//! Secrets, challenges, accounts, device logs.

use super::session::session;
use super::{AnyStore, at_once, refused};
use crate::world::{World, digest, renewed, rng, sign_in};
use lockstep_proto::Digest;
use lockstep_proto::api::auth::{SESSION_DEVICE, SESSION_PROVISIONAL};
use lockstep_proto::api::problem::Code;
use lockstep_proto::id::AccountId;
use lockstep_server::store::{CHALLENGE_DEVICE, CHALLENGE_LOGIN, Challenge, SignInChange};
use std::sync::Arc;

pub(super) async fn the_first_secret_stays(store: AnyStore) {
    store.ping().await.unwrap();
    assert_eq!(store.secret("a", vec![1]).await.unwrap(), [1]);
    assert_eq!(store.secret("a", vec![2]).await.unwrap(), [1]);
    assert_eq!(store.secret("b", vec![3]).await.unwrap(), [3]);
}

fn challenge(number: u8) -> Challenge {
    Challenge {
        id: Digest::from_bytes([number; 32]),
        kind: CHALLENGE_LOGIN,
        account: AccountId::from_bytes([number; 16]),
        data: vec![number; 9],
        expires_utc: 100,
    }
}

pub(super) async fn challenges_are_used_once_by_their_kind_and_expire(store: AnyStore) {
    for number in 1..=2 {
        store.put_challenge(challenge(number)).await.unwrap();
    }
    let id = challenge(1).id;
    assert!(store.take_challenge(id, CHALLENGE_DEVICE, 50).await.unwrap().is_none(), "another kind");
    let taken = store.take_challenge(id, CHALLENGE_LOGIN, 50).await.unwrap().unwrap();
    assert_eq!((taken.id, taken.kind, taken.account), (id, CHALLENGE_LOGIN, challenge(1).account));
    assert_eq!((taken.data, taken.expires_utc), (vec![1; 9], 100));
    assert!(store.take_challenge(id, CHALLENGE_LOGIN, 50).await.unwrap().is_none(), "used up");
    let id = challenge(2).id;
    assert!(store.take_challenge(id, CHALLENGE_LOGIN, 101).await.unwrap().is_none(), "expired");
    assert!(store.take_challenge(id, CHALLENGE_LOGIN, 50).await.unwrap().is_none(), "and gone");
    store.put_challenge(challenge(3)).await.unwrap();
    store.collect(101, 10).await.unwrap();
    assert!(store.take_challenge(challenge(3).id, CHALLENGE_LOGIN, 50).await.unwrap().is_none(), "collected");
}

pub(super) async fn of_many_takers_of_a_challenge_one_gets_it(store: AnyStore) {
    store.put_challenge(challenge(1)).await.unwrap();
    let take = (0..32).map(|_| {
        let store = Arc::clone(&store);
        async move { store.take_challenge(challenge(1).id, CHALLENGE_LOGIN, 50).await.unwrap().is_some() }
    });
    let won = at_once(take.collect()).await;
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
}

/// Nothing of a refused registration is there.
async fn assert_unknown(store: &AnyStore, world: &World) {
    assert!(!store.account_exists(world.account).await.unwrap());
    assert!(store.recovery_key(world.account).await.unwrap().is_none());
    assert!(store.device_key(world.account, world.author.keys.id()).await.unwrap().is_none());
    assert!(store.devices(world.account, 0, 10).await.unwrap().is_none());
    assert!(store.vaults(world.account).await.unwrap().is_empty());
    assert!(store.vault(world.account, world.keyring()).await.unwrap().is_none());
}

pub(super) async fn a_taken_name_stores_nothing(store: AnyStore) {
    let (one, two) = (World::new(1), World::new(2));
    store.register(one.registration("name")).await.unwrap();
    refused(store.register(two.registration("name")).await, Code::NameTaken);
    assert_unknown(&store, &two).await;
    let found = store.sign_in("name").await.unwrap().unwrap();
    let expected = sign_in(one.seed);
    assert_eq!(found.account, one.account);
    assert_eq!((found.credential, found.opaque_record), (expected.credential, expected.opaque_record));
    assert_eq!(found.recovery, expected.recovery);
    store.register(two.registration("other")).await.unwrap();
    assert_eq!(store.sign_in("other").await.unwrap().unwrap().account, two.account);
    assert_eq!(store.recovery_key(two.account).await.unwrap(), Some(sign_in(two.seed).recovery));
    let key = store.device_key(two.account, two.author.keys.id()).await.unwrap();
    assert_eq!(key, Some(two.author.keys.sign_public()));
    assert!(store.device_key(one.account, two.author.keys.id()).await.unwrap().is_none(), "not its device");
    assert_eq!(store.vaults(two.account).await.unwrap().len(), 1);
}

pub(super) async fn a_taken_account_id_stores_nothing(store: AnyStore) {
    let world = World::new(1);
    store.register(world.registration("name")).await.unwrap();
    refused(store.register(world.registration("again")).await, Code::NameTaken);
    assert!(store.sign_in("again").await.unwrap().is_none());
    assert!(store.sign_in("name").await.unwrap().is_some());
}

pub(super) async fn of_many_accounts_one_gets_a_name(store: AnyStore) {
    let worlds: Vec<World> = (0..16).map(World::new).collect();
    let tries = worlds.iter().map(|world| {
        let (store, new) = (Arc::clone(&store), world.registration("name"));
        async move { store.register(new).await }
    });
    let results = at_once(tries.collect()).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let holder = store.sign_in("name").await.unwrap().unwrap().account;
    for (world, result) in worlds.iter().zip(results) {
        if result.is_ok() {
            assert_eq!(holder, world.account);
        } else {
            refused(result, Code::NameTaken);
            assert_unknown(&store, world).await;
        }
    }
}

pub(super) async fn an_invite_is_good_for_one_registration(store: AnyStore) {
    let mut random = rng(9);
    let (code, expired) = (digest(&mut random), digest(&mut random));
    store.put_invite(code, 2000).await.unwrap();
    store.put_invite(expired, 999).await.unwrap();
    let invited = |world: &World, name: &str, code| {
        let mut new = world.registration(name);
        new.invite = Some(code);
        new
    };
    let worlds: Vec<World> = (0..3).map(World::new).collect();
    store.register(worlds[0].registration("name")).await.unwrap();
    refused(store.register(invited(&worlds[1], "b", Digest::ZERO)).await, Code::RegistrationClosed);
    refused(store.register(invited(&worlds[1], "b", expired)).await, Code::RegistrationClosed);
    refused(store.register(invited(&worlds[1], "name", code)).await, Code::NameTaken);
    assert_unknown(&store, &worlds[1]).await;
    store.register(invited(&worlds[1], "b", code)).await.expect("a refused registration uses no code up");
    refused(store.register(invited(&worlds[2], "c", code)).await, Code::RegistrationClosed);
    assert_unknown(&store, &worlds[2]).await;
}

pub(super) async fn the_device_log_is_compared_and_swapped(store: AnyStore) {
    let world = World::new(1);
    store.register(world.registration("name")).await.unwrap();
    let seconds: Vec<_> = (10..18).map(|seed| world.second(seed)).collect();
    let tries = seconds.iter().map(|(_, entry)| {
        let (store, entry) = (Arc::clone(&store), entry.clone());
        async move { store.add_entry(entry, SignInChange::default()).await }
    });
    let results = at_once(tries.collect()).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let devices = store.devices(world.account, 0, 10).await.unwrap().unwrap();
    assert_eq!((devices.total, devices.entries.len()), (2, 2));
    for ((author, entry), result) in seconds.iter().zip(results) {
        let key = store.device_key(world.account, author.keys.id()).await.unwrap();
        if result.is_ok() {
            assert_eq!(devices.entries[1], entry.entry);
            assert_eq!(devices.key_header, entry.key_header, "header and log are of one moment");
            assert_eq!(key, Some(author.keys.sign_public()));
        } else {
            refused(result, Code::LogMoved);
            assert_eq!(key, None);
        }
    }
    let (_, mut elsewhere) = world.second(30);
    (elsewhere.index, elsewhere.previous) = (2, Digest::from_bytes([1; 32]));
    refused(store.add_entry(elsewhere.clone(), SignInChange::default()).await, Code::LogMoved);
    elsewhere.account = AccountId::from_bytes([1; 16]);
    refused(store.add_entry(elsewhere, SignInChange::default()).await, Code::LogMoved);
}

pub(super) async fn the_device_log_comes_in_pages(store: AnyStore) {
    let world = World::new(1);
    store.register(world.registration("name")).await.unwrap();
    let mut entries = vec![world.entry()];
    for index in 1..7_u64 {
        let (_, mut entry) = world.second(100 + index);
        entry.index = index;
        entry.previous = entries.last().unwrap().hash;
        store.add_entry(entry.clone(), SignInChange::default()).await.unwrap();
        entries.push(entry);
    }
    for (from, limit) in [(0, 3), (3, 3), (6, 3), (7, 3), (900, 3), (0, 0), (0, 100)] {
        let page = store.devices(world.account, from, limit).await.unwrap().unwrap();
        let expected: Vec<_> =
            entries.iter().skip(from as usize).take(limit).map(|entry| entry.entry.clone()).collect();
        assert_eq!(page.entries, expected, "from {from}, at most {limit}");
        assert_eq!(page.total, 7);
        assert_eq!(page.key_header, entries[6].key_header);
    }
}

pub(super) async fn a_recovery_swaps_sign_in_data_with_the_entry(store: AnyStore) {
    let world = World::new(1);
    store.register(world.registration("name")).await.unwrap();
    let mut rows =
        [session(1, SESSION_PROVISIONAL), session(2, SESSION_DEVICE), session(3, SESSION_PROVISIONAL)];
    rows[0].account = world.account;
    rows[1].account = world.account;
    for row in rows {
        store.put_session(row).await.unwrap();
    }
    let (_, mut stale) = world.second(10);
    stale.previous = Digest::from_bytes([9; 32]);
    refused(store.add_entry(stale, renewed(77)).await, Code::LogMoved);
    assert_eq!(
        store.recovery_key(world.account).await.unwrap(),
        Some(sign_in(1).recovery),
        "nothing changed"
    );
    assert_eq!(store.session(rows[0].token_hash, 50).await.unwrap(), Some(rows[0]));
    store.add_entry(world.second(10).1, renewed(77)).await.unwrap();
    let found = store.sign_in("name").await.unwrap().unwrap();
    assert_eq!(found.opaque_record, sign_in(77).opaque_record);
    assert_eq!(found.credential, sign_in(77).credential);
    assert_eq!(store.recovery_key(world.account).await.unwrap(), Some(sign_in(77).recovery));
    let left = [None, Some(rows[1]), Some(rows[2])];
    for (row, expected) in rows.iter().zip(left) {
        assert_eq!(store.session(row.token_hash, 50).await.unwrap(), expected);
    }
}

pub(super) async fn a_page_of_the_device_log_is_of_one_moment(store: AnyStore) {
    let world = World::new(1);
    store.register(world.registration("name")).await.unwrap();
    let mut entries = vec![world.entry()];
    for index in 1..40_u64 {
        let (_, mut entry) = world.second(100 + index);
        (entry.index, entry.previous) = (index, entries.last().unwrap().hash);
        entries.push(entry);
    }
    let account = world.account;
    let (writing, written) = (Arc::clone(&store), entries.clone());
    let writer = tokio::spawn(async move {
        for entry in &written[1..] {
            writing.add_entry(entry.clone(), SignInChange::default()).await.unwrap();
        }
    });
    loop {
        let page = store.devices(account, 0, 100).await.unwrap().unwrap();
        let last = entries.iter().find(|entry| entry.key_header == page.key_header).unwrap();
        assert_eq!((page.total, page.entries.len() as u64), (last.index + 1, last.index + 1));
        assert_eq!(page.entries.last(), Some(&last.entry));
        if page.total == 40 {
            break;
        }
    }
    writer.await.unwrap();
}
