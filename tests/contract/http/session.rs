//! The list of sessions, and sessions that are ended from elsewhere.

use super::{BackEnd, Running, as_session, seed};
use crate::client::Client;
use crate::world::World;
use lockstep_proto::api::auth::{SESSION_DEVICE, SESSION_PROVISIONAL, SessionInfo};
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::session::{SessionEntry, Sessions};
use lockstep_proto::{Digest, label};
use lockstep_server::extract::session::{open_recovery_session, open_session};
use lockstep_server::store::SessionRow;
use lockstep_server::time::now_utc;

async fn list(client: &Client) -> Vec<SessionEntry> {
    client.get("/v1/account/sessions").await.ok::<Sessions>().0
}

async fn revoke(client: &Client, entry: &SessionEntry) -> crate::client::Answer {
    client.send("DELETE", &format!("/v1/account/sessions/{}", entry.id), "", b"").await
}

pub(super) async fn a_revoked_session_is_dead_at_once(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let device = seeded.world.author.keys.id();
    let second = open_session(&running.app, seeded.world.account, Some(device)).await.unwrap();
    let second = as_session(&running, &second);
    let entries = list(&seeded.client).await;
    assert_eq!(entries.len(), 3, "two of the device, and a provisional one");
    let kinds: Vec<_> = entries.iter().map(|entry| (entry.kind, entry.device == device)).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == (SESSION_DEVICE, true)).count(), 2);
    assert_eq!(kinds.iter().filter(|kind| **kind == (SESSION_PROVISIONAL, false)).count(), 1);
    let mine: Vec<_> = entries.iter().filter(|entry| entry.is_this).collect();
    assert_eq!(mine.len(), 1, "and this one is told apart");
    let other = list(&second).await.into_iter().find(|entry| entry.is_this).unwrap();
    assert_ne!(other.id, mine[0].id);
    revoke(&seeded.client, &other).await.nothing();
    second.get("/v1/session").await.refused(Code::Unauthenticated);
    revoke(&seeded.client, &other).await.refused(Code::NotFound);
    // Who signs in anew is not thrown out by a device that may be stolen.
    let provisional = entries.iter().find(|entry| entry.kind == SESSION_PROVISIONAL).unwrap();
    revoke(&seeded.client, provisional).await.refused(Code::Forbidden);
    seeded.client.get("/v1/session").await.ok::<SessionInfo>();
    revoke(&seeded.client, mine[0]).await.nothing();
    seeded.client.get("/v1/session").await.refused(Code::Unauthenticated);
    running.stop().await;
}

pub(super) async fn nobody_sees_or_ends_another_accounts_sessions(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let other = World::new(77);
    running.app.store.register(other.registration("other")).await.unwrap();
    let session = open_session(&running.app, other.account, Some(other.author.keys.id())).await.unwrap();
    let client = running.client.with(&session.token);
    let own = list(&client).await;
    assert_eq!(own.len(), 1);
    for entry in list(&seeded.client).await {
        assert_ne!(entry.id, own[0].id);
        revoke(&client, &entry).await.refused(Code::NotFound);
    }
    seeded.client.get("/v1/session").await.ok::<SessionInfo>();
    running.stop().await;
}

/// A session's name says nothing about its token, and a recovery's session looks like any provisional one.
pub(super) async fn names_of_sessions_are_of_no_use(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    open_recovery_session(&running.app, seeded.world.account).await.unwrap();
    let token = seeded.client.token.clone().unwrap();
    let entries = list(&seeded.client).await;
    let provisional = entries.iter().filter(|entry| entry.kind == SESSION_PROVISIONAL).count();
    assert_eq!((entries.len(), provisional), (3, 2));
    let body = seeded.client.get("/v1/account/sessions").await.body;
    let hash = Digest::of(label::LOCAL_SESSION, token.as_bytes());
    assert!(!body.windows(16).any(|window| hash.as_bytes().starts_with(window)));
    for entry in &entries {
        let id = entry.id.to_string();
        running.client.with(&id).get("/v1/session").await.refused(Code::Unauthenticated);
    }
    running.stop().await;
}

pub(super) async fn the_last_use_is_written_down_now_and_then(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let now = now_utc();
    let token = seeded.client.token.clone().unwrap();
    let rows = running.app.store.sessions(seeded.world.account, now).await.unwrap();
    let row = rows.iter().find(|row| row.kind == SESSION_DEVICE).unwrap();
    let ask = |used_utc: u64| {
        let old = SessionRow { used_utc, ..*row };
        let (store, client) = (running.app.store.clone(), running.client.with(&token));
        async move {
            store.end_session(old.token_hash).await.unwrap();
            store.put_session(old).await.unwrap();
            list(&client).await;
            list(&client).await.into_iter().find(|entry| entry.is_this).unwrap().used_utc
        }
    };
    let recent = now - 1800;
    assert_eq!(ask(recent).await, recent, "not for every request");
    assert!(ask(now - 7200).await >= now, "but once an hour");
    running.stop().await;
}
