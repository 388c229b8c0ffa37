//! A server that asks to be left alone, about everything or about one vault.

use crate::between::Between;
use crate::device::{NOTE, VAULT, World, put, says, status, synced};
use lockstep_client::live::{State, document};
use std::time::Duration;

/// Longer than a request waits by itself.
const SECONDS: u64 = 11;

fn world() -> (World, Between) {
    let between = Between::start();
    let world = World::with(&[("LOCKSTEP_PUBLIC_URL", &between.origin)]);
    between.lead_to(world.server.address());
    (world, between)
}

#[tokio::test]
async fn a_server_that_asks_to_wait_is_left_alone_for_so_long() {
    let (world, between) = world();
    let home = world.signup("a").await;
    let live = synced(&home).await;
    between.refuse("/v1/vaults", SECONDS);
    put(&live, "n", "1").await;
    let busy = status(&live, "that it is busy", |status| status.last_error().is_some()).await;
    assert!(!busy.last_error().unwrap().needs_person, "{busy:?}");
    let first = between.turned_away();
    // It comes once more, when it may.
    let again = tokio::time::timeout(Duration::from_secs(30), async {
        while between.turned_away().len() == first.len() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    again.await.unwrap();
    let came = between.turned_away();
    let waited = came[first.len()] - came[first.len() - 1];
    assert!((SECONDS..SECONDS + 6).contains(&waited.as_secs()), "{waited:?}, of {} requests", came.len());
    // Somebody who asks by hand need not wait.
    between.let_through();
    live.sync_now().await.unwrap();
    status(&live, "everything sent", |status| status.pending == 0 && status.state == State::Idle).await;
}

#[tokio::test]
async fn a_vault_that_is_refused_keeps_no_other_from_it() {
    let (world, between) = world();
    let (home_a, home_b) = (world.signup("a").await, world.login("b").await);
    let (a, b) = (synced(&home_a).await, synced(&home_b).await);
    a.create_vault("other").await.unwrap();
    status(&a, "the vault", |status| status.vaults.len() == 2).await;
    let id = a.status().borrow().vaults.iter().find(|vault| vault.name == "other").unwrap().vault;
    b.sync_now().await.unwrap();
    between.refuse(&format!("/v1/vaults/{id}/commits"), 3600);
    a.put("other", vec![document(NOTE, b"m", b"1".to_vec())]).await.unwrap();
    let of_other = |status: &lockstep_client::live::Status| {
        status.vaults.iter().any(|vault| vault.name == "other" && vault.trouble.is_some())
    };
    let status_a = status(&a, "the trouble", of_other).await;
    assert!(status_a.trouble.is_none() && status_a.pending == 1, "{status_a:?}");
    for n in 0..3 {
        put(&a, "n", &format!("{n}")).await;
        says(&b, "n", &format!("{n}")).await;
    }
    let still = a.status().borrow().clone();
    assert!(of_other(&still) && still.pending == 1, "{still:?}");
    between.let_through();
    a.sync_now().await.unwrap();
    let done = status(&a, "everything sent", |status| status.pending == 0).await;
    assert!(done.last_error().is_none(), "{done:?}");
    assert!(b.list(VAULT, NOTE).await.unwrap().len() == 1);
}
