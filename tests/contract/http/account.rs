//! An account's life: registration, sign-in in all three ways, a second device, recovery.

use super::{BackEnd, Running, as_session};
use crate::client::{Answer, Client};
use crate::world::{bytes_of, digest, rng};
use lockstep_client_crypto::account::{Enrolment, Joining, KeyringKeys, NewCredentials, UnlockedAccount};
use lockstep_client_crypto::device::{DeviceKeys, sign_recovery_statement};
use lockstep_client_crypto::opaque;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_client_crypto::vault::{Birth, Parent, give_birth};
use lockstep_proto::api::account::{Devices, EnrolDevice, OpaqueStart, Recover};
use lockstep_proto::api::auth::{
    ACTION_ENROL, ACTION_RECOVER, ACTION_REGISTER, Authorised, DeviceLoginStart, DeviceLoginStarted,
    LoginFinish, LoginStart, LoginStarted, OpaqueStarted, PURPOSE_DEVICE, PURPOSE_RECOVERY, RecoveryStart,
    RecoveryStarted, RegisterFinish, RegisterStart, SESSION_DEVICE, SESSION_PROVISIONAL, Session,
    SessionInfo, Statement,
};
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::{ByteArray, Wire as _};
use lockstep_proto::device_log::{DeviceLog, Pin};
use lockstep_proto::id::{DeviceId, Seq};
use lockstep_proto::key_header::VerifiedKeyHeader;
use lockstep_proto::vault_log::keyring_vault_id;
use lockstep_proto::{Digest, label};
use rand::rngs::ChaCha20Rng;

/// Somebody with everything at hand.
pub(super) struct Owner {
    pub(super) name: String,
    pub(super) unlocked: UnlockedAccount,
    pub(super) device: DeviceKeys,
    pub(super) passphrase: Passphrase,
    pub(super) recovery: RecoveryKey,
    pub(super) birth: Birth,
    pub(super) session: Session,
    pub(super) finish: Authorised,
    pub(super) rng: ChaCha20Rng,
}

/// Registers over HTTP.
pub(super) async fn register(running: &Running, name: &str, passphrase: &str, seed: u64) -> Owner {
    let mut rng = rng(seed);
    let passphrase = Passphrase::new(passphrase).unwrap();
    let unlocked = UnlockedAccount::create(&mut rng).unwrap();
    let (device, recovery) = (DeviceKeys::generate(&mut rng).unwrap(), RecoveryKey::generate(&mut rng));
    let account = unlocked.account();
    let (registration, request) = opaque::Registration::start(&passphrase, &mut rng).unwrap();
    let start = RegisterStart { account, request: request.into() };
    let started: OpaqueStarted = running.client.post("/v1/register/start", &start).await.ok();
    let record = registration.finish(&passphrase, account, &started.response.0, &mut rng).unwrap();
    let credentials = NewCredentials { passphrase: &passphrase, recovery: &recovery };
    let joining = Joining { device: &device, name: "first", pins: Vec::new() };
    let Enrolment { key_header, entry } = unlocked.first_enrolment(credentials, joining, &mut rng).unwrap();
    let parent = Parent {
        account,
        identity: unlocked.identity(),
        device_log_index: 0,
        device_log_head: entry.digest(label::DEVICE_LOG_ENTRY),
        utc: 1,
    };
    let birth = give_birth(keyring_vault_id(&unlocked.identity().to_bytes()), &parent, &device);
    let bytes = RegisterFinish {
        name: name.into(),
        invite: String::new(),
        ticket: started.ticket,
        opaque_record: record.into(),
        key_header,
        entry,
        keyring_create: birth.create.clone(),
        keyring_genesis: birth.genesis.clone(),
    }
    .encode();
    let action = unlocked.authorise(ACTION_REGISTER, &bytes, 0, Digest::ZERO);
    let finish = Authorised { bytes: bytes.into(), action };
    let session = running.client.post("/v1/register/finish", &finish).await.ok();
    Owner { name: name.into(), unlocked, device, passphrase, recovery, birth, session, finish, rng }
}

/// Signs in with a passphrase.
pub(super) async fn login(
    running: &Running,
    name: &str,
    passphrase: &Passphrase,
    rng: &mut ChaCha20Rng,
) -> Answer {
    let (login, ke1) = opaque::Login::start(passphrase, rng).unwrap();
    let start = LoginStart { name: name.into(), ke1: ke1.into() };
    let started: LoginStarted = running.client.post("/v1/login/start", &start).await.ok();
    let ke3 = login.finish(passphrase, started.account, &running.origin, &started.ke2.0, rng);
    // Who can not make KE3 sends anything: the server has to say no by itself.
    let ke3 = ke3.unwrap_or_else(|_| bytes_of(rng, 64));
    let finish = LoginFinish { login: started.login, ke3: ke3.into() };
    let answer = running.client.post("/v1/login/finish", &finish).await;
    running.client.post("/v1/login/finish", &finish).await.refused(Code::Unauthenticated);
    answer
}

impl Owner {
    fn client(&self, running: &Running) -> Client {
        as_session(running, &self.session)
    }

    async fn device_nonce(&self, running: &Running, device: DeviceId) -> Digest {
        let start = DeviceLoginStart { account: self.unlocked.account(), device };
        running.client.post("/v1/device-login/start", &start).await.ok::<DeviceLoginStarted>().nonce
    }

    fn statement(&mut self, device: DeviceId, purpose: u8, server_nonce: Digest) -> Statement {
        Statement {
            account: self.unlocked.account(),
            device,
            purpose,
            server_nonce,
            client_nonce: digest(&mut self.rng),
            signature: ByteArray([0; 64]),
        }
    }

    /// A good statement for this origin.
    pub(super) async fn device_statement(&mut self, running: &Running, origin: &str) -> Statement {
        let nonce = self.device_nonce(running, self.device.id()).await;
        let statement = self.statement(self.device.id(), PURPOSE_DEVICE, nonce);
        self.device.sign_statement(origin, statement)
    }

    pub(super) async fn recovery_statement(&mut self, running: &Running, origin: &str) -> Statement {
        let start = RecoveryStart { name: self.name.clone() };
        let started: RecoveryStarted = running.client.post("/v1/recovery/start", &start).await.ok();
        assert_eq!(started.account, self.unlocked.account());
        let statement = self.statement(DeviceId::ZERO, PURPOSE_RECOVERY, started.nonce);
        sign_recovery_statement(&self.recovery, origin, statement)
    }

    /// Verified log and header, as a client gets them.
    pub(super) async fn log(&self, client: &Client) -> (VerifiedKeyHeader, DeviceLog) {
        let devices: Devices = client.get("/v1/account/devices").await.ok();
        assert_eq!(devices.total, devices.entries.len() as u64);
        let header = VerifiedKeyHeader::verify(self.unlocked.account(), &devices.key_header).unwrap();
        let mut log = DeviceLog::new(*self.unlocked.identity());
        for entry in &devices.entries {
            log.append(entry).unwrap();
        }
        log.check_key_header(&header).unwrap();
        (header, log)
    }

    pub(super) fn pins(&self) -> Vec<Pin> {
        let head = self.birth.genesis.digest(label::COMMIT);
        vec![Pin { vault: keyring_vault_id(&self.unlocked.identity().to_bytes()), seq: Seq::new(0), head }]
    }

    pub(super) fn enrol(
        &mut self,
        (header, log): &(VerifiedKeyHeader, DeviceLog),
        device: &DeviceKeys,
        new: Option<NewCredentials<'_>>,
    ) -> Enrolment {
        let joining = Joining { device, name: "second", pins: self.pins() };
        self.unlocked.enrol(header, log, new, joining, &mut self.rng).unwrap()
    }

    pub(super) fn authorised(&self, action: u8, bytes: Vec<u8>, log: &DeviceLog) -> Authorised {
        let action = self.unlocked.authorise(action, &bytes, log.next_index() - 1, log.head());
        Authorised { bytes: bytes.into(), action }
    }

    pub(super) fn enrol_request(
        &mut self,
        at: &(VerifiedKeyHeader, DeviceLog),
        device: &DeviceKeys,
    ) -> Authorised {
        let Enrolment { key_header, entry } = self.enrol(at, device, None);
        self.authorised(ACTION_ENROL, EnrolDevice { key_header, entry }.encode(), &at.1)
    }

    /// A recovery with a passphrase and recovery key; the OPAQUE record is made through `client`.
    async fn recover_request(
        &mut self,
        client: &Client,
        device: &DeviceKeys,
        passphrase: &Passphrase,
        recovery: &RecoveryKey,
    ) -> Authorised {
        let (registration, request) = opaque::Registration::start(passphrase, &mut self.rng).unwrap();
        let start = OpaqueStart { request: request.into() };
        let started: OpaqueStarted = client.post("/v1/account/opaque", &start).await.ok();
        let account = self.unlocked.account();
        let record = registration.finish(passphrase, account, &started.response.0, &mut self.rng).unwrap();
        let at = self.log(client).await;
        let new = NewCredentials { passphrase, recovery };
        let Enrolment { key_header, entry } = self.enrol(&at, device, Some(new));
        let recover = Recover { ticket: started.ticket, opaque_record: record.into(), key_header, entry };
        self.authorised(ACTION_RECOVER, recover.encode(), &at.1)
    }
}

fn assert_session(session: &Session, owner: &Owner, device: DeviceId, kind: u8) {
    assert_eq!((session.account, session.device, session.kind), (owner.unlocked.account(), device, kind));
    assert_eq!(session.token.len(), 43);
}

pub(super) async fn registration_and_three_ways_to_sign_in(on: BackEnd) {
    let running = Running::start_on(on).await;
    let mut owner = register(&running, "owner", "a passphrase of some length", 5).await;
    let device = owner.device.id();
    assert_session(&owner.session, &owner, device, SESSION_DEVICE);
    let info: SessionInfo = owner.client(&running).get("/v1/session").await.ok();
    assert_eq!((info.account, info.device, info.kind), (owner.unlocked.account(), device, SESSION_DEVICE));
    let again = running.client.post("/v1/register/finish", &owner.finish).await;
    again.refused(Code::Expired);

    let passphrase = Passphrase::new("a passphrase of some length").unwrap();
    let session: Session = login(&running, "owner", &passphrase, &mut owner.rng).await.ok();
    assert_session(&session, &owner, DeviceId::ZERO, SESSION_PROVISIONAL);
    let (header, _) = owner.log(&as_session(&running, &session)).await;
    KeyringKeys::open_as_device(&header, &owner.device).unwrap();

    let origin = running.origin.clone();
    let statement = owner.device_statement(&running, &origin).await;
    let session: Session = running.client.post("/v1/device-login/finish", &statement).await.ok();
    assert_session(&session, &owner, device, SESSION_DEVICE);
    running.client.post("/v1/device-login/finish", &statement).await.refused(Code::Unauthenticated);

    let statement = owner.recovery_statement(&running, &origin).await;
    let session: Session = running.client.post("/v1/recovery/finish", &statement).await.ok();
    assert_session(&session, &owner, DeviceId::ZERO, SESSION_PROVISIONAL);
    running.client.post("/v1/recovery/finish", &statement).await.refused(Code::Unauthenticated);

    let client = as_session(&running, &session);
    client.send("DELETE", "/v1/session", "", b"").await.nothing();
    client.get("/v1/session").await.refused(Code::Unauthenticated);
    running.stop().await;
}

pub(super) async fn statements_for_others_are_refused(on: BackEnd) {
    let running = Running::start_on(on).await;
    let mut owner = register(&running, "owner", "a passphrase of some length", 5).await;
    let origin = running.origin.clone();
    let mut refusals: Vec<Answer> = Vec::new();
    let elsewhere = owner.device_statement(&running, "http://other.example:1").await;
    let mut purpose = owner.device_statement(&running, &origin).await;
    purpose.purpose = PURPOSE_RECOVERY;
    let purpose = owner.device.sign_statement(&origin, purpose);
    let mut flipped = owner.device_statement(&running, &origin).await;
    flipped.signature.0[9] ^= 1;
    let mut invented = owner.device_statement(&running, &origin).await;
    invented.server_nonce = Digest::from_bytes([5; 32]);
    let invented = owner.device.sign_statement(&origin, invented);
    let other_nonce = owner.device_nonce(&running, DeviceId::from_bytes([1; 16])).await;
    let other_device = owner.statement(owner.device.id(), PURPOSE_DEVICE, other_nonce);
    let other_device = owner.device.sign_statement(&origin, other_device);
    let recovery = owner.recovery_statement(&running, &origin).await;
    for statement in [elsewhere, purpose, flipped.clone(), invented, other_device, recovery.clone()] {
        refusals.push(running.client.post("/v1/device-login/finish", &statement).await);
    }
    flipped.signature.0[9] ^= 1;
    refusals.push(running.client.post("/v1/device-login/finish", &flipped).await);
    let device = owner.device_statement(&running, &origin).await;
    let mut named = owner.recovery_statement(&running, &origin).await;
    named.device = owner.device.id();
    let named = sign_recovery_statement(&owner.recovery, &origin, named);
    let elsewhere = owner.recovery_statement(&running, "https://other.example").await;
    for statement in [device, named, elsewhere] {
        refusals.push(running.client.post("/v1/recovery/finish", &statement).await);
    }
    for refusal in &refusals {
        refusal.refused(Code::Unauthenticated);
        assert_eq!(refusal.body, refusals[0].body, "one answer for every failed sign-in");
    }
    // A nonce of one purpose is not used up by the other: the recovery statement is still good.
    running.client.post("/v1/recovery/finish", &recovery).await.ok::<Session>();
    running.stop().await;
}

pub(super) async fn a_second_device_joins_once(on: BackEnd) {
    let running = Running::start_on(on).await;
    let mut owner = register(&running, "owner", "a passphrase of some length", 5).await;
    let session: Session = {
        let passphrase = Passphrase::new("a passphrase of some length").unwrap();
        login(&running, "owner", &passphrase, &mut owner.rng).await.ok()
    };
    let provisional = as_session(&running, &session);
    let at = owner.log(&provisional).await;
    let (second, third) =
        (DeviceKeys::generate(&mut owner.rng).unwrap(), DeviceKeys::generate(&mut owner.rng).unwrap());
    let request = owner.enrol_request(&at, &second);
    let late = owner.enrol_request(&at, &third);
    let mut forged = request.clone();
    forged.action.0[3] ^= 1;
    provisional.post("/v1/account/devices", &forged).await.refused(Code::InvalidSignature);
    let session: Session = provisional.post("/v1/account/devices", &request).await.ok();
    assert_session(&session, &owner, second.id(), SESSION_DEVICE);
    provisional.get("/v1/session").await.refused(Code::Unauthenticated);
    let (header, log) = owner.log(&as_session(&running, &session)).await;
    assert_eq!((log.next_index(), header.header().counter), (2, 2));
    KeyringKeys::open_as_device(&header, &second).unwrap();
    KeyringKeys::open_as_device(&header, &owner.device).unwrap();
    let first = owner.client(&running);
    for stale in [&late, &request] {
        let answer = first.post("/v1/account/devices", stale).await;
        assert!(matches!(answer.problem(), Code::LogMoved | Code::InvalidSignature));
    }
    let origin = running.origin.clone();
    owner.device = second;
    let statement = owner.device_statement(&running, &origin).await;
    let session: Session = running.client.post("/v1/device-login/finish", &statement).await.ok();
    assert_session(&session, &owner, owner.device.id(), SESSION_DEVICE);
    running.stop().await;
}

pub(super) async fn a_recovery_replaces_both_credentials(on: BackEnd) {
    let running = Running::start_on(on).await;
    let mut owner = register(&running, "owner", "a passphrase of some length", 5).await;
    let origin = running.origin.clone();
    let (new_passphrase, new_recovery) =
        (Passphrase::new("another passphrase, longer").unwrap(), RecoveryKey::generate(&mut owner.rng));
    let statement = owner.recovery_statement(&running, &origin).await;
    let session: Session = running.client.post("/v1/recovery/finish", &statement).await.ok();
    let statement = owner.recovery_statement(&running, &origin).await;
    let half: Session = running.client.post("/v1/recovery/finish", &statement).await.ok();
    let (client, half) = (as_session(&running, &session), as_session(&running, &half));
    let second = DeviceKeys::generate(&mut owner.rng).unwrap();
    let request = owner.recover_request(&client, &second, &new_passphrase, &new_recovery).await;
    let mut forged = request.clone();
    forged.action.0[3] ^= 1;
    client.post("/v1/account/recover", &forged).await.refused(Code::InvalidSignature);
    owner.client(&running).post("/v1/account/recover", &request).await.refused(Code::Forbidden);
    let done: Session = client.post("/v1/account/recover", &request).await.ok();
    assert_session(&done, &owner, second.id(), SESSION_DEVICE);
    half.get("/v1/session").await.refused(Code::Unauthenticated);
    owner.client(&running).get("/v1/session").await.ok::<SessionInfo>();
    let statement = owner.recovery_statement(&running, &origin).await;
    running.client.post("/v1/recovery/finish", &statement).await.refused(Code::Unauthenticated);
    owner.recovery = new_recovery;
    let statement = owner.recovery_statement(&running, &origin).await;
    running.client.post("/v1/recovery/finish", &statement).await.ok::<Session>();
    let old = login(&running, "owner", &owner.passphrase, &mut owner.rng).await;
    old.refused(Code::Unauthenticated);
    login(&running, "owner", &new_passphrase, &mut owner.rng).await.ok::<Session>();
    running.stop().await;
}

pub(super) async fn a_recovery_takes_a_recovery_sign_in(on: BackEnd) {
    let running = Running::start_on(on).await;
    let mut owner = register(&running, "owner", "a passphrase of some length", 5).await;
    let session: Session = login(&running, "owner", &owner.passphrase, &mut owner.rng).await.ok();
    let client = as_session(&running, &session);
    let (second, recovery) =
        (DeviceKeys::generate(&mut owner.rng).unwrap(), RecoveryKey::generate(&mut owner.rng));
    let passphrase = Passphrase::new("another passphrase, longer").unwrap();
    let request = owner.recover_request(&client, &second, &passphrase, &recovery).await;
    client.post("/v1/account/recover", &request).await.refused(Code::Forbidden);
    running.stop().await;
}

/// PROTOCOL.md section 3.3: who lost the race for the log's next place is told so, and can try again.
pub(super) async fn a_lost_race_for_the_log_is_told_as_such(on: BackEnd) {
    let running = Running::start_on(on).await;
    let mut owner = register(&running, "owner", "a passphrase of some length", 5).await;
    let client = owner.client(&running);
    let at = owner.log(&client).await;
    let (second, third) =
        (DeviceKeys::generate(&mut owner.rng).unwrap(), DeviceKeys::generate(&mut owner.rng).unwrap());
    let (request, late) = (owner.enrol_request(&at, &second), owner.enrol_request(&at, &third));
    let session: Session = client.post("/v1/account/devices", &request).await.ok();
    let client = as_session(&running, &session);
    client.post("/v1/account/devices", &late).await.refused(Code::LogMoved);
    client.post("/v1/account/devices", &request).await.refused(Code::LogMoved);
    let again = owner.log(&client).await;
    let built_anew = owner.enrol_request(&again, &third);
    client.post("/v1/account/devices", &built_anew).await.ok::<Session>();
    running.stop().await;
}
