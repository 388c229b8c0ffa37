//! Giving device-log entries back, asking for lost objects, starting without the folder of objects.

use super::account::register;
use super::life::{REVOKE, revocation, signed_by, two_devices};
use super::object::{blob, frames};
use super::{BackEnd, Place, Running, as_session, seed};
use crate::client::Answer;
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_proto::Signed;
use lockstep_proto::api::account::{Devices, HealDevices};
use lockstep_proto::api::auth::ACTION_REVOKE;
use lockstep_proto::api::object::{ObjectList, Stored};
use lockstep_proto::api::problem::Code;
use lockstep_proto::id::AccountId;
use lockstep_server::Server;
use lockstep_server::http::Peer;
use lockstep_server::objects::local::MARKER;

const HEAL: &str = "/v1/heal/devices";

impl Running {
    fn forget_heals(&self) {
        self.app.sources.succeeded(&Peer(([127, 0, 0, 1], 1).into()).bucket("heal"));
    }

    async fn heal(&self, account: AccountId, entries: &[&Signed], key_header: &Signed) -> Answer {
        let entries = entries.iter().map(|entry| (*entry).clone()).collect();
        self.client.post(HEAL, &HealDevices { account, entries, key_header: key_header.clone() }).await
    }
}

pub(super) async fn every_failure_of_giving_entries_back_is_the_same(on: BackEnd) {
    let running = Running::start_on(on).await;
    let mut owner = register(&running, "owner", "a passphrase of some length", 21).await;
    let client = as_session(&running, &owner.session);
    let (account, at) = (owner.unlocked.account(), owner.log(&client).await);
    let stored: Devices = client.get("/v1/account/devices").await.ok();
    let (held, header) = (&stored.entries[0], &stored.key_header);
    let device = DeviceKeys::generate(&mut owner.rng).unwrap();
    let next = owner.enrol(&at, &device, None);
    let other = register(&running, "other", "a passphrase of some length", 22).await;
    let mut unsigned = next.entry.clone();
    unsigned.signature.0[1] ^= 1;
    let mut broken = next.entry.clone();
    broken.bytes.0.truncate(9);
    let mut bad_header = next.key_header.clone();
    bad_header.signature.0[1] ^= 1;
    let detail = |answer: &Answer| {
        answer.refused(Code::LogMoved);
        answer.body.clone()
    };
    let unknown = detail(&running.heal(AccountId::ZERO, &[&next.entry], &next.key_header).await);
    for (account, entries, header) in [
        (account, vec![&unsigned], &next.key_header),
        (account, vec![&broken], &next.key_header),
        (account, vec![&next.entry], &bad_header),
        (account, vec![&next.entry], header),
        (account, vec![&next.entry, &next.entry], &next.key_header),
        (account, vec![held, &unsigned], &next.key_header),
        (other.unlocked.account(), vec![held], header),
        (other.unlocked.account(), vec![&next.entry], &next.key_header),
    ] {
        running.forget_heals();
        assert_eq!(detail(&running.heal(account, &entries, header).await), unknown);
    }
    running.forget_heals();
    for account in [account, AccountId::ZERO] {
        running.heal(account, &[], header).await.refused(Code::Malformed);
    }
    assert_eq!(owner.log(&client).await.1.next_index(), 1, "nothing changed");
    // What is held already is fine, and no reason to try without end.
    running.heal(account, &[held], header).await.nothing();
    let mut throttled = false;
    for _ in 0..20 {
        throttled |= running.heal(account, &[held], header).await.status == 429;
    }
    assert!(throttled);
    running.forget_heals();
    running.heal(account, &[held, &next.entry], &next.key_header).await.nothing();
    assert!(owner.log(&client).await.1.device(device.id()).is_some());
    running.stop().await;
}

pub(super) async fn a_revocation_that_was_refused_is_not_entered_by_another_way(on: BackEnd) {
    let running = Running::start_on(on).await;
    let (mut owner, second, first, _) = two_devices(&running, 23).await;
    let at = owner.log(&first).await;
    let mut pins = owner.pins();
    pins[0].head = lockstep_proto::Digest::from_bytes([1; 32]);
    let behind = revocation(&mut owner, &at, second.id(), pins);
    first.post(REVOKE, &signed_by(&owner, ACTION_REVOKE, &behind, &at.1)).await.refused(Code::HeadMoved);
    let account = owner.unlocked.account();
    running.heal(account, &[&behind.entry], &behind.key_header).await.refused(Code::LogMoved);
    assert_eq!(owner.log(&first).await.1.next_index(), 2);
    let pins = owner.pins();
    let good = revocation(&mut owner, &at, second.id(), pins);
    running.heal(account, &[&good.entry], &good.key_header).await.nothing();
    assert!(owner.log(&first).await.1.device(second.id()).unwrap().revoked.is_some());
    running.stop().await;
}

pub(super) async fn asking_for_objects_destroys_nothing(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let body = frames(&[(blob(1), &[1; 1000]), (blob(2), &[2; 1000])]);
    let stored: Stored = seeded.upload(&body).await.ok();
    let ask = async || {
        let list = ObjectList(stored.0.clone());
        seeded.client.post(&seeded.path("objects/missing"), &list).await.ok::<ObjectList>().0
    };
    let folder = running.place.folder.path();
    let (mounted, away) = (folder.join("data/objects"), folder.join("away"));
    assert_eq!(ask().await, []);
    std::fs::rename(&mounted, &away).unwrap();
    for _ in 0..2 {
        assert_eq!(ask().await, stored.0);
    }
    assert!(running.app.store.collect(1, 1).await.unwrap().is_empty(), "nothing is to be deleted");
    let path = seeded.path(&format!("objects/{}", blob(2)));
    seeded.client.get(&path).await.refused(Code::NotFound);
    std::fs::rename(&away, &mounted).unwrap();
    assert_eq!(ask().await, []);
    assert_eq!(seeded.client.get(&path).await.body, [2; 1000]);
    running.stop().await;
}

pub(super) async fn no_start_without_the_folder_of_objects(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    seeded.upload(&frames(&[(blob(1), &[1; 1000])])).await.ok::<Stored>();
    let Place { folder, config } = running.stop().await;
    let (mounted, away) = (folder.path().join("data/objects"), folder.path().join("away"));
    std::fs::rename(&mounted, &away).unwrap();
    let Err(error) = Server::bind(&config).await else { panic!("it started") };
    assert!(error.to_string().contains("is it not mounted?"), "{error}");
    // A folder of an older version has no mark yet.
    std::fs::remove_file(away.join(MARKER)).unwrap();
    std::fs::remove_dir(&mounted).unwrap();
    std::fs::rename(&away, &mounted).unwrap();
    Server::bind(&config).await.unwrap();
    assert!(mounted.join(MARKER).exists());
    // Somebody says that they are gone for good.
    std::fs::remove_dir_all(&mounted).unwrap();
    std::fs::create_dir(&mounted).unwrap();
    std::fs::write(mounted.join(MARKER), "").unwrap();
    Server::bind(&config).await.unwrap();
}
