//! Syncs that go well.

use crate::device::{NOTE, VAULT, World, event, get, put, says, start, status, synced};
use lockstep_client::live::{Event, Live, Settings, State, Subscription, document};
use lockstep_proto::id::Revision;
use std::collections::BTreeSet;
use std::time::Duration;

/// The next event about a committed change.
async fn committed(events: &mut Subscription) -> lockstep_client::live::Change {
    loop {
        if let Event::Changed(change) = event(events).await
            && change.committed.is_some()
        {
            return change;
        }
    }
}

#[tokio::test]
async fn two_devices_see_each_others_writes_through_notices() {
    let world = World::new();
    let (a, b) = (synced(&world.signup("a").await).await, synced(&world.login("b").await).await);
    let (mut at_a, mut at_b) = (a.subscribe(), b.subscribe());
    put(&a, "n", "of a").await;
    // First as it is durable there, then as it is committed.
    let Event::Changed(local) = event(&mut at_a).await else { panic!() };
    assert_eq!((local.own, local.committed, local.deleted), (true, None, false));
    let own = committed(&mut at_a).await;
    assert_eq!((own.own, own.record), (true, local.record));
    let theirs = committed(&mut at_b).await;
    assert_eq!((theirs.own, theirs.device), (false, own.device));
    assert_eq!(theirs.record_type.as_deref(), Some(NOTE));
    assert_eq!((theirs.name.as_deref(), &*theirs.vault_name), (Some(&b"n"[..]), VAULT));
    let seen = b.read(VAULT, theirs.record).await.unwrap().unwrap();
    assert_eq!((seen.document, seen.pending), (b"of a".to_vec(), false));
    // And the other way; a deletion, too.
    put(&b, "n", "of b").await;
    says(&a, "n", "of b").await;
    b.delete(VAULT, NOTE, b"n").await.unwrap();
    loop {
        let change = committed(&mut at_a).await;
        if change.deleted {
            assert_eq!(change.name.as_deref(), Some(&b"n"[..]));
            break;
        }
    }
    assert_eq!(get(&a, "n").await, None);
    assert!(a.list(VAULT, NOTE).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_past_of_a_record_is_listed_and_comes_back() {
    let world = World::new();
    let live = synced(&world.signup("a").await).await;
    for text in ["one", "two"] {
        put(&live, "n", text).await;
        status(&live, "a sync", |status| status.pending == 0 && status.state == State::Idle).await;
    }
    let history = live.history(VAULT, NOTE, b"n").await.unwrap();
    let revisions: Vec<u64> = history.iter().map(|version| version.revision.value()).collect();
    assert_eq!(revisions, [2, 1]);
    assert!(history.iter().all(|version| version.written_utc > 0 && !version.deleted));
    live.restore(VAULT, NOTE, b"n", Revision::new(1)).await.unwrap();
    assert_eq!(get(&live, "n").await.as_deref(), Some("one"));
    let error = live.restore(VAULT, NOTE, b"n", Revision::new(9)).await.unwrap_err();
    assert!(error.to_string().contains("no revision 9"), "{error}");
}

#[tokio::test]
async fn status_is_seen_in_order_and_counted() {
    let world = World::new();
    let home = world.signup("a").await;
    let live = synced(&home).await;
    live.pause().await.unwrap();
    assert_eq!(live.status().borrow().state, State::Paused);
    let many: Vec<_> =
        (0..1_200).map(|n| document(NOTE, format!("n{n}").as_bytes(), vec![b'x'; 2_000])).collect();
    live.put(VAULT, many).await.unwrap();
    let before = status(&live, "what waits", |status| status.pending == 1_200).await;
    assert_eq!(before.state, State::Paused);
    let mut seen = live.status();
    let watching = tokio::spawn(async move {
        let mut states = Vec::new();
        while let Ok(status) = seen.wait_for(|_| true).await.map(|status| status.clone()) {
            if states.last() != Some(&status.state) {
                states.push(status.state);
            }
            if matches!(states.as_slice(), [.., State::Syncing { .. }, State::Idle]) && status.pending == 0 {
                return states;
            }
            if seen.changed().await.is_err() {
                break;
            }
        }
        panic!("sync ended: {states:?}");
    });
    live.resume().await.unwrap();
    let states = watching.await.unwrap();
    let progress: Vec<(u64, u64)> = states
        .iter()
        .filter_map(|state| match state {
            State::Syncing { done, of } => Some((*done, *of)),
            _ => None,
        })
        .collect();
    assert!(progress.is_sorted() && progress.iter().all(|(done, of)| done <= of), "{states:?}");
    assert!(progress.iter().any(|(_, of)| *of == 1_200), "{states:?}");
    assert!(progress.iter().any(|(done, _)| (1..1_200).contains(done)), "{states:?}");
    assert_eq!((states.first(), states.last()), (Some(&State::Paused), Some(&State::Idle)));
    let status = live.status().borrow().clone();
    assert!(status.last_success_utc.is_some() && status.conflicts == 0);
    let statistics = status.statistics;
    assert!(statistics.syncs >= 2 && statistics.failures == 0, "{statistics:?}");
    assert!(statistics.median().unwrap() > Duration::ZERO);
    // They are of the device, and outlive the program.
    live.close().await;
    let live = start(&home).await;
    assert!(live.status().borrow().statistics.syncs >= statistics.syncs);
}

#[tokio::test]
async fn a_pause_stops_everything_and_nothing_is_lost() {
    let world = World::new();
    let (a, b) = (synced(&world.signup("a").await).await, synced(&world.login("b").await).await);
    b.pause().await.unwrap();
    for n in 0..12 {
        // In the middle of whatever it does.
        a.resume().await.unwrap();
        put(&a, &format!("n{n}"), "text").await;
        tokio::time::sleep(Duration::from_millis(7 * n)).await;
        a.pause().await.unwrap();
    }
    assert!(a.list(VAULT, NOTE).await.unwrap().len() == 12);
    a.resume().await.unwrap();
    status(&a, "everything sent", |status| status.pending == 0 && status.state == State::Idle).await;
    assert!(b.list(VAULT, NOTE).await.unwrap().is_empty(), "it is paused");
    b.resume().await.unwrap();
    says(&b, "n11", "text").await;
    let notes = b.list(VAULT, NOTE).await.unwrap();
    assert!(notes.len() == 12 && notes.iter().all(|note| note.revision == Revision::new(1)), "{notes:?}");
}

#[tokio::test]
async fn a_slow_subscriber_is_told_that_it_lagged() {
    let world = World::new();
    let (home_a, home_b) = (world.signup("a").await, world.login("b").await);
    let a = synced(&home_a).await;
    let b = Live::start(&home_b, false, Settings { events_max: 8, ..Settings::default() }).await.unwrap();
    b.sync_now().await.unwrap();
    let mut slow = b.subscribe();
    for n in 0..40 {
        put(&a, &format!("n{n}"), "text").await;
    }
    says(&b, "n39", "text").await;
    status(&b, "the end of that sync", |status| status.state == State::Idle).await;
    let Event::Lagged(missed) = event(&mut slow).await else { panic!("it was not told") };
    let mut told = 0;
    while let Some(Event::Changed(_)) = slow.try_next() {
        told += 1;
    }
    assert_eq!((missed + told, told), (40, 8));
    // It reads again, and has everything.
    assert_eq!(b.list(VAULT, NOTE).await.unwrap().len(), 40);
}

#[tokio::test]
async fn a_metered_network_is_left_alone() {
    let world = World::new();
    let (home_a, home_b) = (world.signup("a").await, world.login("b").await);
    let a = synced(&home_a).await;
    let hourly = Settings { metered: Some(Duration::from_hours(1)), ..Settings::default() };
    let b = Live::start(&home_b, false, hourly).await.unwrap();
    status(&b, "its one sync", |status| status.statistics.syncs == 1 && status.state == State::Idle).await;
    put(&a, "n", "1").await;
    put(&b, "m", "1").await;
    status(&a, "the write sent", |status| status.pending == 0).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(get(&b, "n").await, None, "it listened");
    assert_eq!(b.status().borrow().pending, 1, "it pushed");
    // By hand it goes at once; on another network it listens.
    b.sync_now().await.unwrap();
    assert_eq!(get(&b, "n").await.as_deref(), Some("1"));
    b.set_metered(None).await.unwrap();
    put(&a, "n", "2").await;
    says(&b, "n", "2").await;
}

#[tokio::test]
async fn vaults_are_made_and_told() {
    let world = World::new();
    let (a, b) = (synced(&world.signup("a").await).await, synced(&world.login("b").await).await);
    let error = a.put("other", vec![document(NOTE, b"n", vec![1])]).await.unwrap_err();
    assert!(error.to_string().contains("there is no vault \"other\""), "{error}");
    let reserved = a.put(VAULT, vec![document("lockstep/file", b"n", vec![1])]).await.unwrap_err();
    assert!(reserved.to_string().contains("belong to the program"), "{reserved}");
    let mut events = b.subscribe();
    a.create_vault("other").await.unwrap();
    a.put("other", vec![document(NOTE, b"n", b"1".to_vec())]).await.unwrap();
    // It is told from its birth on.
    let change = committed(&mut events).await;
    assert_eq!((&*change.vault_name, change.name.as_deref()), ("other", Some(&b"n"[..])));
    let names: BTreeSet<String> = b.status().borrow().vaults.iter().map(|vault| vault.name.clone()).collect();
    assert_eq!(names, BTreeSet::from([VAULT.to_owned(), "other".to_owned()]));
}

#[tokio::test]
async fn conflicts_are_counted() {
    let world = World::new();
    let (a, b) = (synced(&world.signup("a").await).await, synced(&world.login("b").await).await);
    for live in [&a, &b] {
        live.pause().await.unwrap();
    }
    put(&a, "n", "of a").await;
    put(&b, "n", "of b").await;
    for live in [&a, &b] {
        live.resume().await.unwrap();
        live.sync_now().await.unwrap();
    }
    status(&b, "the copy", |status| status.conflicts == 1).await;
    status(&a, "the copy", |status| status.conflicts == 1).await;
    let notes = a.list(VAULT, NOTE).await.unwrap();
    let copy = notes.iter().find(|note| note.conflict_of.is_some()).unwrap();
    assert_eq!((notes.len(), &copy.document[..]), (2, &b"of b"[..]));
    a.delete(VAULT, NOTE, &copy.name).await.unwrap();
    status(&b, "that it is settled", |status| status.conflicts == 0).await;
}
