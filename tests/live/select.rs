//! A library that keeps a home in sync whose device holds less than everything.

use crate::device::{NOTE, VAULT, World, put, start, status, synced};
use lockstep_client::account::Account;
use lockstep_client::home::Home;
use lockstep_client::live::{Live, Settings};
use lockstep_client::select::Selection;
use std::path::Path;
use std::time::Duration;

/// Says what a home is to hold of its vault, before anybody keeps it in sync.
fn keep(home: &Path, selection: &Selection) {
    let account = Account::open(Home::open(home).unwrap(), false).unwrap();
    account.open_vault_locally(VAULT).unwrap().keep(Some(selection)).unwrap();
}

/// How many records a home knows and does not hold, as another process sees it.
fn not_held(home: &Path) -> usize {
    let account = Account::open(Home::open_read_only(home), false).unwrap();
    account.open_vault_locally(VAULT).unwrap().not_held(None).unwrap().len()
}

async fn until(what: &str, is_it: impl Fn() -> bool) {
    let found = tokio::time::timeout(Duration::from_secs(40), async {
        while !is_it() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(found.await.is_ok(), "{what}");
}

#[tokio::test]
async fn what_becomes_due_is_let_go_of_though_nothing_comes() {
    let world = World::new();
    let home = world.signup("a").await;
    // Whatever is a second old.
    keep(&home, &Selection { days: Some(0), types: None });
    let settings = Settings { every: Duration::from_secs(1), ..Settings::default() };
    let live = Live::start(&home, false, settings).await.unwrap();
    live.sync_now().await.unwrap();
    for number in 0..3 {
        put(&live, &format!("n{number}"), "text").await;
    }
    status(&live, "that everything is sent", |status| status.pending == 0).await;
    until("three records are let go of", || not_held(&home) == 3).await;
    assert!(live.list(VAULT, NOTE).await.unwrap().is_empty());
    assert!(live.status().borrow().last_error().is_none());
}

#[tokio::test]
async fn a_conflict_whose_other_side_is_not_held_ends_no_sync() {
    let world = World::new();
    let a = synced(&world.signup("a").await).await;
    let home = world.login("b").await;
    synced(&home).await.close().await;
    keep(&home, &Selection { days: None, types: Some(["other".to_owned()].into()) });
    let b = start(&home).await;
    b.sync_now().await.unwrap();
    for live in [&a, &b] {
        live.pause().await.unwrap();
    }
    put(&a, "n", "of a").await;
    put(&b, "n", "of b").await;
    for live in [&a, &b] {
        live.resume().await.unwrap();
        live.sync_now().await.unwrap();
    }
    let found = b.sync_now().await.unwrap();
    assert_eq!((found.conflicts, not_held(&home)), (1, 1));
    assert!(found.last_error().is_none(), "{found:?}");
    assert_eq!(found.pending, 0);
}
