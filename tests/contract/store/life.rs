//! Revocations and deletions.

use super::{AnyStore, Home, refused};
use crate::chain::put;
use crate::world::{Author, World, digest, rng, sign_in};
use lockstep_proto::api::auth::SESSION_DEVICE;
use lockstep_proto::api::problem::Code;
use lockstep_proto::device_log::Pin;
use lockstep_proto::id::{BlobId, DeviceId, Seq, SessionId, VaultId};
use lockstep_proto::{Digest, label};
use lockstep_server::store::{EntryEffect, FramedObject, NewEntry, SegmentId, SessionRow, SignInChange};

const VAULT: VaultId = VaultId::from_bytes([0x33; 16]);

pub(super) fn revocation(world: &World, after: &NewEntry, device: DeviceId, pins: Vec<Pin>) -> NewEntry {
    let mut entry = world.second(99).1;
    (entry.index, entry.previous) = (after.index + 1, after.hash);
    entry.effect = EntryEffect::Revoke { device, pins };
    entry
}

fn session_of(world: &World, device: DeviceId, number: u8) -> SessionRow {
    SessionRow {
        token_hash: Digest::from_bytes([number; 32]),
        account: world.account,
        device,
        kind: SESSION_DEVICE,
        id: SessionId::from_bytes([number; 16]),
        created_utc: 1,
        used_utc: 1,
        expires_utc: 100,
    }
}

/// A home with a second device and a second vault.
async fn with_second(store: &AnyStore) -> (Home, Author, NewEntry) {
    let home = Home::new(store, 1).await;
    let (second, entry) = home.world.second(10);
    store.add_entry(entry.clone(), SignInChange::default()).await.unwrap();
    store.create_vault(home.world.account, home.world.birth(VAULT, 2)).await.unwrap();
    (home, second, entry)
}

pub(super) async fn pins(home: &Home) -> Vec<Pin> {
    let listed = home.store.vaults(home.world.account).await.unwrap();
    let mut pins: Vec<Pin> =
        listed.iter().map(|row| Pin { vault: row.vault, seq: row.seq, head: row.head }).collect();
    pins.sort_by_key(|pin| pin.vault);
    pins
}

pub(super) async fn a_revocation_whose_pins_are_behind_changes_nothing(store: AnyStore) {
    let (mut home, second, entry) = with_second(&store).await;
    let (account, device) = (home.world.account, second.keys.id());
    let (own, its) =
        (session_of(&home.world, home.world.author.keys.id(), 1), session_of(&home.world, device, 2));
    for row in [own, its] {
        store.put_session(row).await.unwrap();
    }
    let early = pins(&home).await;
    let draft = home.chain.draft(&second, &[put(1)]);
    home.try_push(&second, &draft).await.unwrap();
    home.chain.follow(&draft.prepare(&second));
    let before = (home.seen().await, store.devices(account, 0, 10).await.unwrap().unwrap());
    let good = pins(&home).await;
    let mut wrong = vec![early, good[..1].to_vec(), Vec::new()];
    for place in 0..good.len() {
        let mut other = good.clone();
        other[place].head = digest(&mut rng(5));
        wrong.push(other);
        let mut beyond = good.clone();
        beyond[place].seq = Seq::new(50);
        wrong.push(beyond);
        let mut unknown = good.clone();
        unknown[place].vault = VaultId::from_bytes([0x77; 16]);
        wrong.push(unknown);
    }
    for pins in wrong {
        let revocation = revocation(&home.world, &entry, device, pins);
        refused(store.add_entry(revocation, SignInChange::default()).await, Code::HeadMoved);
        assert_eq!((home.seen().await, store.devices(account, 0, 10).await.unwrap().unwrap()), before);
        assert!(store.device_key(account, device).await.unwrap().is_some());
        assert_eq!(store.session(its.token_hash, 50).await.unwrap(), Some(its));
    }
    // What others wrote since does no harm.
    (home.world.author.log_index, home.world.author.log_head) = (1, second.log_head);
    home.commit(&[put(2)]).await;
    let revocation = revocation(&home.world, &entry, device, good);
    store.add_entry(revocation.clone(), SignInChange::default()).await.unwrap();
    assert!(store.device_key(account, device).await.unwrap().is_none());
    assert_eq!(store.session(its.token_hash, 50).await.unwrap(), None);
    assert_eq!(store.session(own.token_hash, 50).await.unwrap(), Some(own));
    refused(store.add_entry(revocation, SignInChange::default()).await, Code::LogMoved);
}

pub(super) async fn commits_that_do_not_know_of_a_revocation_are_refused(store: AnyStore) {
    let (mut home, second, entry) = with_second(&store).await;
    let pins = pins(&home).await;
    let revocation = revocation(&home.world, &entry, second.keys.id(), pins);
    store.add_entry(revocation.clone(), SignInChange::default()).await.unwrap();
    let before = home.seen().await;
    for index in [0, 1] {
        let mut author = Author::new(home.world.seed);
        author.log_index = index;
        author.log_head = if index == 0 { home.world.author.log_head } else { second.log_head };
        let draft = home.chain.draft(&author, &[put(1)]);
        refused(home.try_push(&author, &draft).await, Code::LogMoved);
    }
    let draft = home.chain.draft(&second, &[put(1)]);
    refused(home.try_push(&second, &draft).await, Code::LogMoved);
    // Knowing of it is not enough: without a new key epoch nobody writes, and the revoked device never.
    for keys in [&home.world.author, &second] {
        let mut author = Author::new(1);
        author.keys = lockstep_client_crypto::device::DeviceKeys::from_bytes(&keys.keys.to_bytes()).unwrap();
        (author.log_index, author.log_head) = (2, revocation.hash);
        let draft = home.chain.draft(&author, &[put(1)]);
        refused(home.try_push(&author, &draft).await, Code::InvalidChain);
    }
    assert_eq!(home.seen().await, before);
    // A new epoch opens the vault again, once.
    (home.world.author.log_index, home.world.author.log_head) = (2, revocation.hash);
    let (account, identity) = (home.world.account, home.world.identity);
    let again = home.chain.rotation(account, &identity, &home.world.author, 1);
    refused(home.try_push(&home.world.author, &again).await, Code::InvalidChain);
    let rotation = home.chain.rotation(account, &identity, &home.world.author, 2);
    home.push(&rotation).await;
    let log = store.vault_log(home.key).await.unwrap();
    assert_eq!(log.len(), 2);
    assert_eq!(log[1].digest(label::VAULT_LOG_ENTRY), home.chain.tip.vault_log_head);
    home.commit(&[put(1)]).await;
    let again = home.chain.rotation(account, &identity, &home.world.author, 2);
    refused(home.try_push(&home.world.author, &again).await, Code::InvalidChain);
    home.commit(&[put(1)]).await;
}

/// Puts an object into a vault that a commit does not name.
async fn put_object(home: &Home, number: u8) -> SegmentId {
    let segment = SegmentId([number; 16]);
    home.store.begin_segment(home.key, segment, 9, 1).await.unwrap();
    let object = FramedObject {
        blob: BlobId::from_bytes([number; 16]),
        digest: Digest::from_bytes([number; 32]),
        part: Digest::from_bytes([number; 32]),
        start: 0,
        size: 9,
    };
    home.store.put_framed(home.key, segment, vec![object], 1).await.unwrap();
    segment
}

pub(super) async fn a_deleted_vault_is_gone_and_others_stay(store: AnyStore) {
    let (mut one, two) = (Home::new(&store, 1).await, Home::new(&store, 2).await);
    let account = one.world.account;
    one.commit(&[put(1)]).await;
    let segment = put_object(&one, 7).await;
    let other = put_object(&two, 8).await;
    store.create_vault(account, one.world.birth(VAULT, 2)).await.unwrap();
    let before = two.seen().await;
    store.delete_vault(one.key).await.unwrap();
    store.delete_vault(one.key).await.unwrap();
    assert!(store.vault(account, one.vault).await.unwrap().is_none());
    assert_eq!(store.vaults(account).await.unwrap().len(), 1);
    assert!(store.vault_log(one.key).await.unwrap().is_empty());
    assert!(store.object(one.key, BlobId::from_bytes([7; 16])).await.unwrap().is_none());
    assert_eq!(two.seen().await, before);
    assert!(store.object(two.key, BlobId::from_bytes([8; 16])).await.unwrap().is_some());
    // Who still holds the deleted vault's key comes upon nothing, whatever is made next.
    let next = Home::new(&store, 3).await;
    store.create_vault(account, one.world.birth(VaultId::from_bytes([0x34; 16]), 2)).await.unwrap();
    assert_ne!(next.key, one.key);
    store.delete_vault(next.key).await.unwrap();
    let last = Home::new(&store, 4).await;
    assert_ne!(last.key, next.key);
    assert!(store.vault_log(next.key).await.unwrap().is_empty());
    let dead = store.collect(2, 1000).await.unwrap();
    assert!(dead.contains(&segment) && !dead.contains(&other));
}

pub(super) async fn a_deleted_account_is_gone_and_its_name_is_free(store: AnyStore) {
    let (mut one, two) = (Home::new(&store, 1).await, Home::new(&store, 2).await);
    let account = one.world.account;
    one.commit(&[put(1)]).await;
    let segment = put_object(&one, 7).await;
    let row = session_of(&one.world, one.world.author.keys.id(), 3);
    store.put_session(row).await.unwrap();
    let before = two.seen().await;
    store.delete_account(account).await.unwrap();
    store.delete_account(account).await.unwrap();
    assert!(!store.account_exists(account).await.unwrap());
    assert!(store.sign_in("name-1").await.unwrap().is_none());
    assert!(store.devices(account, 0, 10).await.unwrap().is_none());
    assert!(store.device_key(account, one.world.author.keys.id()).await.unwrap().is_none());
    assert!(store.vaults(account).await.unwrap().is_empty());
    assert_eq!(store.session(row.token_hash, 50).await.unwrap(), None);
    assert_eq!(two.seen().await, before);
    assert!(store.collect(2, 1000).await.unwrap().contains(&segment));
    store.register(World::new(3).registration("name-1")).await.unwrap();
    assert_eq!(store.sign_in("name-1").await.unwrap().unwrap().recovery, sign_in(3).recovery);
    // The same account may come back, too.
    store.register(one.world.registration("name-4")).await.unwrap();
    assert_eq!(store.devices(account, 0, 10).await.unwrap().unwrap().total, 1);
    assert_eq!(store.vaults(account).await.unwrap()[0].seq, Seq::new(0));
}

pub(super) async fn no_session_begins_for_a_revoked_device(store: AnyStore) {
    let (home, second, entry) = with_second(&store).await;
    let row = session_of(&home.world, second.keys.id(), 1);
    store.put_session(row).await.unwrap();
    let revocation = revocation(&home.world, &entry, second.keys.id(), pins(&home).await);
    store.add_entry(revocation, SignInChange::default()).await.unwrap();
    let late = session_of(&home.world, second.keys.id(), 2);
    refused(store.put_session(late).await, Code::Unauthenticated);
    assert!(store.sessions(home.world.account, 50).await.unwrap().is_empty());
    store.put_session(session_of(&home.world, home.world.author.keys.id(), 3)).await.unwrap();
}

/// Of a commit and its device's revocation whose pins do not know of it one is taken, whatever the order.
pub(super) async fn commits_and_their_devices_revocation_do_not_cross(store: AnyStore) {
    for seed in 0..8 {
        let mut home = Home::new(&store, seed).await;
        let (second, entry) = home.world.second(10 + seed);
        store.add_entry(entry.clone(), SignInChange::default()).await.unwrap();
        let revocation = revocation(&home.world, &entry, second.keys.id(), pins(&home).await);
        let commit = home.chain.draft(&second, &[put(1)]).prepare(&second);
        let (account, key) = (home.world.account, home.key);
        let (committing, revoking) = (std::sync::Arc::clone(&store), std::sync::Arc::clone(&store));
        let tasks = (
            tokio::spawn(async move { committing.apply_commit(account, key, commit).await }),
            tokio::spawn(async move { revoking.add_entry(revocation, SignInChange::default()).await }),
        );
        let (committed, revoked) = (tasks.0.await.unwrap(), tasks.1.await.unwrap());
        assert_ne!(committed.is_ok(), revoked.is_ok(), "{committed:?} {revoked:?}");
        match revoked {
            Ok(()) => refused(committed, Code::LogMoved),
            Err(error) => refused::<()>(Err(error), Code::HeadMoved),
        }
    }
}
