//! Births of vaults.

use super::{AnyStore, Home, at_once, refused};
use crate::world::World;
use lockstep_proto::api::problem::Code;
use lockstep_proto::id::{Seq, VaultId};
use lockstep_proto::limits;
use std::sync::Arc;

const VAULT: VaultId = VaultId::from_bytes([0x33; 16]);

pub(super) async fn the_same_birth_twice_is_once(store: AnyStore) {
    let home = Home::new(&store, 1).await;
    let account = home.world.account;
    let (birth, other) = (home.world.birth(VAULT, 5), home.world.birth(VAULT, 6));
    let tries = (0..8).map(|_| {
        let (store, birth) = (Arc::clone(&store), birth.clone());
        async move { store.create_vault(account, birth).await }
    });
    assert!(at_once(tries.collect()).await.iter().all(Result::is_ok));
    assert_eq!(store.vaults(account).await.unwrap().len(), 2, "keyring and this one");
    let before = home.seen().await;
    store.create_vault(account, birth.clone()).await.unwrap();
    refused(store.create_vault(account, other).await, Code::Exists);
    assert_eq!(home.seen().await, before);
    let row = store.vault(account, VAULT).await.unwrap().unwrap();
    assert_eq!((row.seq, row.head), (Seq::new(0), birth.tip.hash));
    assert_eq!(store.vault_log(row.key).await.unwrap(), [birth.create]);
    let (head, commits, more) = store.commits(row.key, None, limits::PAGE_CHANGES_BYTES_MAX).await.unwrap();
    assert_eq!((head, commits.len(), more), (Seq::new(0), 1, false));
    assert_eq!(commits[0].commit, birth.genesis);
}

pub(super) async fn vaults_belong_to_their_account(store: AnyStore) {
    let (one, two) = (Home::new(&store, 1).await, Home::new(&store, 2).await);
    store.create_vault(one.world.account, one.world.birth(VAULT, 5)).await.unwrap();
    assert!(store.vault(two.world.account, VAULT).await.unwrap().is_none());
    assert!(store.vault(two.world.account, one.vault).await.unwrap().is_none());
    store.create_vault(two.world.account, two.world.birth(VAULT, 5)).await.expect("nobody squats on an id");
    let key_one = store.vault(one.world.account, VAULT).await.unwrap().unwrap().key;
    let key_two = store.vault(two.world.account, VAULT).await.unwrap().unwrap().key;
    assert_ne!(key_one, key_two);
    assert_eq!(store.vault_log(key_two).await.unwrap(), [two.world.birth(VAULT, 5).create]);
    assert!(store.vaults(World::new(3).account).await.unwrap().is_empty());
    let mut ids: Vec<_> =
        store.vaults(one.world.account).await.unwrap().iter().map(|row| row.vault).collect();
    ids.sort_unstable();
    let mut expected = [one.vault, VAULT];
    expected.sort_unstable();
    assert_eq!(ids, expected);
}

pub(super) async fn an_account_has_at_most_1024_vaults(store: AnyStore) {
    let home = Home::new(&store, 1).await;
    let account = home.world.account;
    let births: Vec<_> = (0..1024_u16)
        .map(|number| {
            let mut id = [0x44; 16];
            id[..2].copy_from_slice(&number.to_be_bytes());
            home.world.birth(VaultId::from_bytes(id), 1)
        })
        .collect();
    let tries = births[..1023].iter().map(|birth| {
        let (store, birth) = (Arc::clone(&store), birth.clone());
        async move { store.create_vault(account, birth).await }
    });
    assert!(at_once(tries.collect()).await.iter().all(Result::is_ok));
    refused(store.create_vault(account, births[1023].clone()).await, Code::LimitReached);
    store.create_vault(account, births[0].clone()).await.expect("an old birth again is no new vault");
    assert_eq!(store.vaults(account).await.unwrap().len(), 1024);
}
