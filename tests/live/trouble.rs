//! What goes wrong, and what goes on all the same.

use crate::device::{VAULT, World, get, put, says, start, status, synced};
use lockstep_client::ClientError;
use lockstep_client::live::State;
use std::time::Duration;

#[tokio::test]
async fn a_server_that_is_killed_in_the_middle_is_waited_for() {
    let mut world = World::new();
    let (home_a, home_b) = (world.signup("a").await, world.login("b").await);
    let (a, b) = (synced(&home_a).await, synced(&home_b).await);
    for round in 0..3 {
        for n in 0..30 {
            put(&a, &format!("n{n}"), &format!("{round}")).await;
        }
        // The push has begun, or is about to.
        tokio::time::sleep(Duration::from_millis(250 + 60 * round)).await;
        world.server.kill();
        put(&a, "while it is away", &format!("{round}")).await;
        world.server.restart();
    }
    status(&a, "everything sent", |status| status.pending == 0 && status.state == State::Idle).await;
    for n in 0..30 {
        says(&b, &format!("n{n}"), "2").await;
    }
    says(&b, "while it is away", "2").await;
    assert_eq!(b.status().borrow().conflicts, 0);
}

#[tokio::test]
async fn an_app_without_a_server_goes_on_and_says_so() {
    let mut world = World::new();
    let (home_a, home_b) = (world.signup("a").await, world.login("b").await);
    world.server.kill();
    // It begins offline, and begins again.
    for text in ["1", "2"] {
        let a = start(&home_a).await;
        put(&a, "n", text).await;
        assert_eq!(get(&a, "n").await.as_deref(), Some(text));
        let away = status(&a, "that it is away", |s| matches!(s.state, State::Offline { .. })).await;
        let trouble = away.last_error().unwrap();
        assert!(matches!(*trouble.error, ClientError::Unreachable { .. }), "{trouble:?}");
        assert!(!trouble.needs_person && trouble.advice.contains("by itself"), "{trouble:?}");
        assert!(away.pending > 0 && away.statistics.successes == 0);
        a.close().await;
    }
    let a = start(&home_a).await;
    status(&a, "that it is away", |status| matches!(status.state, State::Offline { .. })).await;
    world.server.restart();
    let back =
        status(&a, "that it is back", |status| status.pending == 0 && status.state == State::Idle).await;
    assert!(back.last_error().is_none() && back.last_success_utc.is_some(), "{back:?}");
    let b = synced(&home_b).await;
    assert_eq!(get(&b, "n").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn a_home_is_free_once_it_is_closed() {
    let world = World::new();
    let home = world.signup("a").await;
    let live = start(&home).await;
    let second = lockstep_client::live::Live::start(&home, false, Default::default()).await;
    assert!(matches!(second, Err(ClientError::Locked(_))), "{second:?}");
    let other = live.clone();
    live.close().await;
    assert!(other.get(VAULT, "note", b"n").await.is_err());
    start(&home).await.close().await;
}
