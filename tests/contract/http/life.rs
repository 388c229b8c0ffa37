//! Revocation, new credentials, deletion: what the routes take, and what they refuse.

use super::account::{Owner, login, register};
use super::{BackEnd, Running, as_session};
use crate::chain::{Chain, put};
use crate::client::Client;
use crate::world::Author;
use lockstep_client_crypto::account::{CredentialChange, Enrolment};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::opaque;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_client_crypto::vault::{Parent, give_birth};
use lockstep_proto::api::account::{
    ChangeCredentials, DeleteAccount, DeleteVault, EnrolDevice, NewRecord, OpaqueStart,
};
use lockstep_proto::api::auth::{
    ACTION_CREDENTIALS, ACTION_DELETE_ACCOUNT, ACTION_DELETE_VAULT, ACTION_ENROL, ACTION_REVOKE, Authorised,
    OpaqueStarted, Session, SessionInfo,
};
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::vault::{CreateVault, Pushed, Vaults};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::chain;
use lockstep_proto::device_log::{DeviceLog, Pin};
use lockstep_proto::id::{AccountId, DeviceId, Seq, VaultId};
use lockstep_proto::key_header::VerifiedKeyHeader;
use lockstep_proto::vault_log::keyring_vault_id;
use lockstep_server::error::StoreError;

type At = (VerifiedKeyHeader, DeviceLog);

const REVOKE: &str = "/v1/account/devices/revoke";
const CREDENTIALS: &str = "/v1/account/credentials";

/// An owner with a second device.
async fn two_devices(running: &Running, seed: u64) -> (Owner, DeviceKeys, Client, Client) {
    let mut owner = register(running, &format!("owner-{seed}"), "a passphrase of some length", seed).await;
    let first = as_session(running, &owner.session);
    let second = DeviceKeys::generate(&mut owner.rng).unwrap();
    let at = owner.log(&first).await;
    let request = owner.enrol_request(&at, &second);
    let session: Session = first.post("/v1/account/devices", &request).await.ok();
    running.forget_tries(&owner.name);
    // Enrolling ended the session that it was done with.
    let session_first = lockstep_server::extract::session::open_session(
        &running.app,
        owner.unlocked.account(),
        Some(owner.device.id()),
    );
    let first = as_session(running, &session_first.await.unwrap());
    (owner, second, first, as_session(running, &session))
}

fn revocation(owner: &mut Owner, at: &At, device: DeviceId, pins: Vec<Pin>) -> Enrolment {
    owner.unlocked.revoke(&at.0, &at.1, device, pins, &mut owner.rng).unwrap()
}

fn signed_by(owner: &Owner, action: u8, new: &Enrolment, log: &DeviceLog) -> Authorised {
    let body = EnrolDevice { key_header: new.key_header.clone(), entry: new.entry.clone() };
    owner.authorised(action, body.encode(), log)
}

pub(super) async fn a_revocation_counts_once_and_only_as_one(on: BackEnd) {
    let running = Running::start_on(on).await;
    let (mut owner, second, first, its) = two_devices(&running, 5).await;
    let at = owner.log(&first).await;
    let pins = owner.pins();
    let good = revocation(&mut owner, &at, second.id(), pins.clone());
    let request = signed_by(&owner, ACTION_REVOKE, &good, &at.1);
    let other_action = signed_by(&owner, ACTION_ENROL, &good, &at.1);
    first.post(REVOKE, &other_action).await.refused(Code::InvalidSignature);
    first.post("/v1/account/devices", &other_action).await.refused(Code::InvalidChain);
    let third = DeviceKeys::generate(&mut owner.rng).unwrap();
    let enrolment = owner.enrol(&at, &third, None);
    let enrols = signed_by(&owner, ACTION_REVOKE, &enrolment, &at.1);
    first.post(REVOKE, &enrols).await.refused(Code::InvalidChain);
    let mixed = Enrolment { key_header: enrolment.key_header, entry: good.entry.clone() };
    first.post(REVOKE, &signed_by(&owner, ACTION_REVOKE, &mixed, &at.1)).await.refused(Code::InvalidChain);
    let mut behind = pins.clone();
    behind[0].head = lockstep_proto::Digest::from_bytes([1; 32]);
    let mut beyond = pins.clone();
    beyond[0].seq = Seq::new(1);
    let mut unknown = pins.clone();
    unknown.push(Pin { vault: VaultId::from_bytes([0xff; 16]), ..pins[0] });
    for pins in [behind, beyond, unknown] {
        let new = revocation(&mut owner, &at, second.id(), pins);
        first.post(REVOKE, &signed_by(&owner, ACTION_REVOKE, &new, &at.1)).await.refused(Code::HeadMoved);
    }
    assert_eq!(owner.log(&first).await.1.next_index(), 2, "nothing changed");
    its.get("/v1/session").await.ok::<SessionInfo>();

    first.post(REVOKE, &request).await.nothing();
    first.post(REVOKE, &request).await.refused(Code::LogMoved);
    its.get("/v1/session").await.refused(Code::Unauthenticated);
    first.get("/v1/session").await.ok::<SessionInfo>();
    let (_, log) = owner.log(&first).await;
    assert!(log.device(second.id()).unwrap().revoked.is_some());
    let first_device = std::mem::replace(&mut owner.device, second);
    let statement = owner.device_statement(&running, &running.origin).await;
    running.client.post("/v1/device-login/finish", &statement).await.refused(Code::Unauthenticated);
    // The last device stays.
    owner.device = first_device;
    running.stop().await;
}

/// What a device writes after a revocation names it, and is under a new key epoch.
pub(super) async fn commits_after_a_revocation_name_it_and_are_under_a_new_epoch(on: BackEnd) {
    let running = Running::start_on(on).await;
    let (mut owner, second, first, its) = two_devices(&running, 6).await;
    let at = owner.log(&first).await;
    let (account, identity) = (owner.unlocked.account(), *owner.unlocked.identity());
    let vault = keyring_vault_id(&identity.to_bytes());
    let born =
        chain::verify_birth(vault, account, &identity, &at.1, &owner.birth.create, &owner.birth.genesis);
    let mut chain = Chain::new(born.unwrap().tip(), 6);
    let author_at = |keys: &DeviceKeys, log: &DeviceLog| Author {
        keys: DeviceKeys::from_bytes(&keys.to_bytes()).unwrap(),
        log_index: log.next_index() - 1,
        log_head: log.head(),
    };
    let path = format!("/v1/vaults/{vault}/commits");
    let old = author_at(&second, &at.1);
    let draft = chain.draft(&old, &[put(1)]);
    its.post(&path, &draft.push(&old)).await.ok::<Pushed>();
    let pins_before = owner.pins();
    chain.follow(&draft.prepare(&old));
    let new = revocation(&mut owner, &at, second.id(), pins_before);
    first.post(REVOKE, &signed_by(&owner, ACTION_REVOKE, &new, &at.1)).await.refused(Code::HeadMoved);
    // Its writes wait from here on: it can not outrun its revocation.
    let draft = chain.draft(&old, &[put(3)]);
    its.post(&path, &draft.push(&old)).await.refused(Code::Busy);
    let birth = give_birth(VaultId::from_bytes([0x61; 16]), &parent_at(&owner, &at.1), &second);
    let birth = CreateVault { create: birth.create, genesis: birth.genesis };
    its.post("/v1/vaults", &birth).await.refused(Code::Busy);
    let pins = vec![Pin { vault, seq: chain.tip.seq, head: chain.tip.hash }];
    let new = revocation(&mut owner, &at, second.id(), pins);
    first.post(REVOKE, &signed_by(&owner, ACTION_REVOKE, &new, &at.1)).await.nothing();

    let stale = author_at(&owner.device, &at.1);
    let draft = chain.draft(&stale, &[put(2)]);
    first.post(&path, &draft.push(&stale)).await.refused(Code::LogMoved);
    let log = owner.log(&first).await.1;
    let author = author_at(&owner.device, &log);
    let draft = chain.draft(&author, &[put(2)]);
    first.post(&path, &draft.push(&author)).await.refused(Code::InvalidChain);
    // For the revoked one no session begins; were there one still, the store would refuse what it signs.
    let session = lockstep_server::extract::session::open_session(&running.app, account, Some(second.id()));
    assert!(session.await.is_err());
    let late = author_at(&second, &log);
    let store = &running.app.store;
    let key = store.vault(account, vault).await.unwrap().unwrap().key;
    for (author, code) in [(&late, Code::InvalidChain), (&old, Code::LogMoved)] {
        let push = chain.draft(author, &[put(2)]).prepare(author);
        match store.apply_commit(account, key, push).await {
            Err(StoreError::Refused(refusal)) => assert_eq!(refusal.code, code),
            other => panic!("{other:?}"),
        }
    }

    first
        .post(&path, &chain.rotation(account, &identity, &author, 1).push(&author))
        .await
        .refused(Code::InvalidChain);
    let mut elsewhere = chain.rotation(account, &identity, &author, 2);
    elsewhere.commit.vault_log_head = lockstep_proto::Digest::ZERO;
    first.post(&path, &elsewhere.push(&author)).await.refused(Code::InvalidChain);
    let good = chain.rotation(account, &identity, &author, 2);
    first.post(&path, &good.push(&author)).await.ok::<Pushed>();
    chain.follow(&good.prepare(&author));
    let draft = chain.draft(&author, &[put(2)]);
    first.post(&path, &draft.push(&author)).await.ok::<Pushed>();
    running.stop().await;
}

fn parent_at<'a>(owner: &'a Owner, log: &DeviceLog) -> Parent<'a> {
    Parent {
        account: owner.unlocked.account(),
        identity: owner.unlocked.identity(),
        device_log_index: log.next_index() - 1,
        device_log_head: log.head(),
        utc: 1,
    }
}

async fn record(owner: &mut Owner, client: &Client, passphrase: &Passphrase) -> NewRecord {
    let (registration, request) = opaque::Registration::start(passphrase, &mut owner.rng).unwrap();
    let start = OpaqueStart { request: request.into() };
    let started: OpaqueStarted = client.post("/v1/account/opaque", &start).await.ok();
    let account = owner.unlocked.account();
    let record = registration.finish(passphrase, account, &started.response.0, &mut owner.rng).unwrap();
    NewRecord { ticket: started.ticket, opaque_record: record.into() }
}

fn credentials(
    owner: &mut Owner,
    at: &At,
    change: CredentialChange<'_>,
    record: Option<NewRecord>,
) -> Authorised {
    let new = owner.unlocked.change_credentials(&at.0, &at.1, change, &mut owner.rng).unwrap();
    let request = ChangeCredentials { record, key_header: new.key_header, entry: new.entry };
    owner.authorised(ACTION_CREDENTIALS, request.encode(), &at.1)
}

pub(super) async fn new_credentials_are_what_the_request_says(on: BackEnd) {
    let running = Running::start_on(on).await;
    let mut owner = register(&running, "owner", "a passphrase of some length", 7).await;
    let client = as_session(&running, &owner.session);
    let at = owner.log(&client).await;
    let passphrase = Passphrase::new("another passphrase, longer").unwrap();
    let recovery = RecoveryKey::generate(&mut owner.rng);
    let only_passphrase = CredentialChange { passphrase: Some(&passphrase), recovery: None };
    let only_recovery = CredentialChange { passphrase: None, recovery: Some(&recovery) };
    let nothing = CredentialChange { passphrase: None, recovery: None };
    let given = record(&mut owner, &client, &passphrase).await;
    for (change, record) in [
        (only_passphrase, None),
        (only_recovery, Some(given.clone())),
        (nothing, None),
        (nothing, Some(given.clone())),
    ] {
        let request = credentials(&mut owner, &at, change, record);
        client.post(CREDENTIALS, &request).await.refused(Code::InvalidChain);
    }
    let mut forged = credentials(&mut owner, &at, only_passphrase, Some(given.clone()));
    forged.action.0[3] ^= 1;
    client.post(CREDENTIALS, &forged).await.refused(Code::InvalidSignature);
    let unknown = NewRecord { ticket: lockstep_proto::Digest::ZERO, ..given.clone() };
    let request = credentials(&mut owner, &at, only_passphrase, Some(unknown));
    client.post(CREDENTIALS, &request).await.refused(Code::Expired);
    // An enrolment is no change of credentials, whatever it is signed as.
    let third = DeviceKeys::generate(&mut owner.rng).unwrap();
    let new = owner.enrol(&at, &third, None);
    let request = ChangeCredentials { record: None, key_header: new.key_header, entry: new.entry };
    let request = owner.authorised(ACTION_CREDENTIALS, request.encode(), &at.1);
    client.post(CREDENTIALS, &request).await.refused(Code::InvalidChain);
    assert_eq!(owner.log(&client).await.1.next_index(), 1, "nothing changed");

    let request = credentials(&mut owner, &at, only_passphrase, Some(given));
    client.post(CREDENTIALS, &request).await.nothing();
    client.post(CREDENTIALS, &request).await.refused(Code::LogMoved);
    client.get("/v1/session").await.ok::<SessionInfo>();
    running.forget_tries("owner");
    let old = login(&running, "owner", &owner.passphrase, &mut owner.rng).await;
    old.refused(Code::Unauthenticated);
    let session: Session = login(&running, "owner", &passphrase, &mut owner.rng).await.ok();
    let provisional = as_session(&running, &session);
    let at = owner.log(&client).await;
    let request = credentials(&mut owner, &at, only_recovery, None);
    provisional.post(CREDENTIALS, &request).await.refused(Code::Forbidden);
    client.post(CREDENTIALS, &request).await.nothing();
    // Who was half signed in with what counted before starts again.
    provisional.get("/v1/session").await.refused(Code::Unauthenticated);
    let origin = running.origin.clone();
    let statement = owner.recovery_statement(&running, &origin).await;
    running.client.post("/v1/recovery/finish", &statement).await.refused(Code::Unauthenticated);
    owner.recovery = recovery;
    let statement = owner.recovery_statement(&running, &origin).await;
    running.client.post("/v1/recovery/finish", &statement).await.ok::<Session>();
    running.stop().await;
}

pub(super) async fn deletions_are_for_what_they_name(on: BackEnd) {
    let running = Running::start_on(on).await;
    let mut owner = register(&running, "owner", "a passphrase of some length", 8).await;
    let client = as_session(&running, &owner.session);
    let log = owner.log(&client).await.1;
    let account = owner.unlocked.account();
    let keyring = keyring_vault_id(&owner.unlocked.identity().to_bytes());
    let vault = VaultId::from_bytes([0x61; 16]);
    let birth = give_birth(vault, &parent_at(&owner, &log), &owner.device);
    client.post("/v1/vaults", &CreateVault { create: birth.create, genesis: birth.genesis }).await.nothing();
    let of = |vault: VaultId| format!("/v1/vaults/{vault}/delete");
    let delete = |action: u8, vault: VaultId| owner.authorised(action, DeleteVault { vault }.encode(), &log);
    let good = delete(ACTION_DELETE_VAULT, vault);
    client.post(&of(vault), &delete(ACTION_DELETE_ACCOUNT, vault)).await.refused(Code::InvalidSignature);
    client.post(&of(vault), &delete(ACTION_DELETE_VAULT, keyring)).await.refused(Code::Forbidden);
    client.post(&of(keyring), &delete(ACTION_DELETE_VAULT, keyring)).await.refused(Code::Forbidden);
    client.post(&of(keyring), &good).await.refused(Code::Forbidden);
    assert_eq!(client.get("/v1/vaults").await.ok::<Vaults>().0.len(), 2);
    client.post(&of(vault), &good).await.nothing();
    client.post(&of(vault), &good).await.refused(Code::NotFound);
    assert_eq!(client.get("/v1/vaults").await.ok::<Vaults>().0.len(), 1);

    let whole =
        |action: u8, account: AccountId| owner.authorised(action, DeleteAccount { account }.encode(), &log);
    let path = "/v1/account/delete";
    client.post(path, &whole(ACTION_DELETE_VAULT, account)).await.refused(Code::InvalidSignature);
    client.post(path, &whole(ACTION_DELETE_ACCOUNT, AccountId::ZERO)).await.refused(Code::Forbidden);
    let good = whole(ACTION_DELETE_ACCOUNT, account);
    let session: Session = login(&running, "owner", &owner.passphrase, &mut owner.rng).await.ok();
    as_session(&running, &session).post(path, &good).await.refused(Code::Forbidden);
    client.post(path, &good).await.nothing();
    client.post(path, &good).await.refused(Code::Unauthenticated);
    as_session(&running, &session).get("/v1/session").await.refused(Code::Unauthenticated);
    running.forget_tries("owner");
    let gone = login(&running, "owner", &owner.passphrase, &mut owner.rng).await;
    gone.refused(Code::Unauthenticated);
    running.forget_tries("owner");
    register(&running, "owner", "a passphrase of some length", 9).await;
    running.stop().await;
}
