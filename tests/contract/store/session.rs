//! Sessions: found until they end, listed and revoked by a name that is not their token, bounded.

use super::{AnyStore, Home, at_once};
use lockstep_proto::Digest;
use lockstep_proto::api::auth::{SESSION_DEVICE, SESSION_PROVISIONAL};
use lockstep_proto::id::{AccountId, DeviceId, SessionId};
use lockstep_proto::limits::SESSIONS_MAX;
use lockstep_server::store::SessionRow;
use std::sync::Arc;

const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);
const OTHER: AccountId = AccountId::from_bytes([2; 16]);

pub(super) fn session(number: u16, kind: u8) -> SessionRow {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    let mut id = [8; 16];
    id[..2].copy_from_slice(&number.to_be_bytes());
    SessionRow {
        token_hash: Digest::from_bytes(bytes),
        id: SessionId::from_bytes(id),
        account: ACCOUNT,
        device: DeviceId::from_bytes(id),
        kind,
        created_utc: u64::from(number),
        used_utc: u64::from(number),
        expires_utc: 1000,
    }
}

pub(super) async fn sessions_are_found_until_they_end(store: AnyStore) {
    let (one, two) = (session(1, SESSION_DEVICE), session(2, SESSION_DEVICE));
    for row in [one, two] {
        store.put_session(row).await.unwrap();
    }
    assert_eq!(store.session(one.token_hash, 999).await.unwrap(), Some(one));
    assert_eq!(store.session(one.token_hash, 1001).await.unwrap(), None, "expired");
    assert_eq!(store.session(Digest::ZERO, 50).await.unwrap(), None, "unknown");
    store.end_session(one.token_hash).await.unwrap();
    store.end_session(one.token_hash).await.unwrap();
    assert_eq!(store.session(one.token_hash, 50).await.unwrap(), None);
    assert_eq!(store.session(two.token_hash, 50).await.unwrap(), Some(two), "the other goes on");
    store.collect(1001, 10).await.unwrap();
    assert_eq!(store.session(two.token_hash, 50).await.unwrap(), None, "collected");
}

pub(super) async fn sessions_are_listed_and_revoked_by_their_account(store: AnyStore) {
    let mine = [session(1, SESSION_DEVICE), session(2, SESSION_PROVISIONAL), session(3, SESSION_DEVICE)];
    let other = SessionRow { account: OTHER, ..session(4, SESSION_DEVICE) };
    let expired = SessionRow { expires_utc: 40, ..session(5, SESSION_DEVICE) };
    for row in [mine[2], other, mine[0], expired, mine[1]] {
        store.put_session(row).await.unwrap();
    }
    assert_eq!(store.sessions(ACCOUNT, 50).await.unwrap(), mine, "live ones, oldest first");
    assert_eq!(store.sessions(OTHER, 50).await.unwrap(), [other]);
    assert!(!store.revoke_session(ACCOUNT, other.id).await.unwrap(), "another account's");
    assert_eq!(store.session(other.token_hash, 50).await.unwrap(), Some(other));
    assert!(store.revoke_session(ACCOUNT, mine[0].id).await.unwrap());
    assert!(!store.revoke_session(ACCOUNT, mine[0].id).await.unwrap(), "once");
    assert_eq!(store.session(mine[0].token_hash, 50).await.unwrap(), None, "dead at once");
    assert_eq!(store.sessions(ACCOUNT, 50).await.unwrap(), mine[1..]);
}

pub(super) async fn the_last_use_of_a_session_only_grows(store: AnyStore) {
    let row = session(1, SESSION_DEVICE);
    store.put_session(row).await.unwrap();
    for (now, expected) in [(500, 500), (400, 500), (600, 600)] {
        store.touch_session(row.token_hash, now).await.unwrap();
        let found = store.session(row.token_hash, 50).await.unwrap().unwrap();
        assert_eq!(found, SessionRow { used_utc: expected, ..row });
    }
    store.end_session(row.token_hash).await.unwrap();
    store.touch_session(row.token_hash, 700).await.unwrap();
    assert_eq!(store.session(row.token_hash, 50).await.unwrap(), None, "what ended stays ended");
}

pub(super) async fn who_opens_sessions_in_a_loop_ends_the_oldest(store: AnyStore) {
    let count = SESSIONS_MAX as u16;
    let account = Home::new(&store, 1).await.world.account;
    let session = move |number, kind| SessionRow { account, ..session(number, kind) };
    let provisional = session(5000, SESSION_PROVISIONAL);
    let other = SessionRow { account: OTHER, ..session(5001, SESSION_DEVICE) };
    for row in [provisional, other] {
        store.put_session(row).await.unwrap();
    }
    let open = (1..=count + 40).map(|number| {
        let store = Arc::clone(&store);
        async move { store.put_session(session(number, SESSION_DEVICE)).await.unwrap() }
    });
    at_once(open.collect()).await;
    let live = store.sessions(account, 50).await.unwrap();
    let devices: Vec<_> = live.iter().filter(|row| row.kind == SESSION_DEVICE).collect();
    assert_eq!(devices.len(), SESSIONS_MAX);
    let last = session(count + 41, SESSION_DEVICE);
    store.put_session(last).await.unwrap();
    assert_eq!(store.session(devices[0].token_hash, 50).await.unwrap(), None, "the oldest ended");
    assert_eq!(store.session(devices[1].token_hash, 50).await.unwrap(), Some(*devices[1]));
    assert_eq!(store.session(last.token_hash, 50).await.unwrap(), Some(last));
    let old = SessionRow { created_utc: 0, ..session(count + 42, SESSION_DEVICE) };
    store.put_session(old).await.unwrap();
    assert_eq!(store.session(old.token_hash, 50).await.unwrap(), Some(old), "the new one stays in any case");
    assert_eq!(store.session(provisional.token_hash, 50).await.unwrap(), Some(provisional), "of its kind");
    assert_eq!(store.session(other.token_hash, 50).await.unwrap(), Some(other), "of its account");
}
