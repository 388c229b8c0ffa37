//! Becoming a device of an account: by signing up, with the passphrase, or with the recovery key.

use super::finish::{Seen, account_file, complete, look, open_db, resume, settle};
use super::{Account, fetch_create, keyring_id, keyring_setup};
use crate::api::Api;
use crate::error::{ClientError, Result};
use crate::home::Home;
use crate::keyring::{Known, check_log_pins, check_pin, counting};
use crate::kit::{self, Kit};
use crate::rng;
use crate::vault::{CLONED, Vault};
use lockstep_client_crypto::account::{Credential, Joining, NewCredentials, UnlockedAccount};
use lockstep_client_crypto::device::{DeviceKeys, sign_recovery_statement};
use lockstep_client_crypto::opaque::{Login, Registration};
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_client_crypto::vault::{Parent, give_birth};
use lockstep_engine::replica::Replica as _;
use lockstep_proto::api::account::{EnrolDevice, OpaqueStart, Recover};
use lockstep_proto::api::auth::{
    ACTION_ENROL, ACTION_RECOVER, ACTION_REGISTER, Authorised, LoginFinish, LoginStart, LoginStarted,
    OpaqueStarted, PURPOSE_RECOVERY, RecoveryStart, RecoveryStarted, RegisterFinish, RegisterStart, Session,
    Statement,
};
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::server::ServerInfo;
use lockstep_proto::cbor::{ByteArray, Wire as _};
use lockstep_proto::commit::Commit;
use lockstep_proto::device_log::{DeviceLog, Pin};
use lockstep_proto::id::{AccountId, DeviceId, Seq};
use lockstep_proto::recovery::Checkpoint;
use lockstep_proto::version::{SUITE, VERSION};
use lockstep_proto::{Digest, label};
use std::collections::BTreeSet;
use std::sync::Arc;
use zeroize::Zeroizing;

/// What a new account or a recovery comes with.
pub struct NewSecrets<'a> {
    /// The new passphrase.
    pub passphrase: &'a Passphrase,
    /// Shows or writes the kit; called before anything is sent. An error stops everything.
    pub deliver_kit: &'a mut dyn FnMut(&str) -> Result<()>,
}

/// A server, a name and a home.
pub struct Place<'a> {
    /// Checked origin.
    pub origin: &'a str,
    /// Account name.
    pub name: &'a str,
    /// Name of this device, for the owner's eyes.
    pub device_name: &'a str,
    /// Devices that are not believed.
    pub ignored: Ignored<'a>,
}

/// Devices of an account whose head pins are not believed when another one joins: a stolen or faulty device can pin
/// what no chain satisfies.
#[derive(Debug, Clone, Copy)]
pub enum Ignored<'a> {
    /// These, each by the beginning of its id.
    Some(&'a [String]),
    /// All others: they are revoked as soon as this one is in.
    Others,
}

impl Ignored<'_> {
    pub(crate) fn devices(self, log: &DeviceLog, own: DeviceId) -> Result<BTreeSet<DeviceId>> {
        let ids = || log.devices().map(|device| device.id).filter(|id| *id != own);
        let Self::Some(texts) = self else { return Ok(ids().collect()) };
        let mut found = BTreeSet::new();
        for text in texts {
            let fits: Vec<DeviceId> = ids().filter(|id| id.to_string().starts_with(text.as_str())).collect();
            match fits.as_slice() {
                [one] if text.len() >= 4 => found.insert(*one),
                _ => {
                    return Err(ClientError::Usage(format!(
                        "\"{text}\" is not the beginning, of 4 characters at least, of one device's id"
                    )));
                }
            };
        }
        Ok(found)
    }
}

/// Meets a server before anybody types a passphrase for it: version, suite and its own name must be what we expect.
///
/// # Errors
/// [`ClientError::Server`] for another version or suite, [`ClientError::Usage`] for another name.
pub async fn meet(origin: &str) -> Result<()> {
    check_origin(&*Api::new(origin.to_owned())?).await.map(|_| ())
}

/// Asks the server who it is; it must call itself what we call it.
async fn check_origin(api: &Api) -> Result<ServerInfo> {
    let info: ServerInfo = api.get_open("/v1/server").await?;
    if !info.versions.contains(&VERSION) {
        let spoken: Vec<String> =
            info.versions.iter().map(|v| lockstep_proto::version::describe(*v)).collect();
        return Err(ClientError::Server(format!(
            "it speaks {}, this program {}; update the older one",
            spoken.join(", "),
            lockstep_proto::version::describe(VERSION)
        )));
    }
    if info.suite != SUITE {
        return Err(ClientError::Server(format!(
            "it offers suite {}, this program knows suite {SUITE} alone; update the older one",
            info.suite
        )));
    }
    if info.origin != api.origin() {
        return Err(ClientError::Usage(format!(
            "the server calls itself {}, you call it {}; use its own address, or set its LOCKSTEP_PUBLIC_URL",
            info.origin,
            api.origin()
        )));
    }
    Ok(info)
}

/// A home for a new device.
fn fresh_home(home: &Home) -> Result<()> {
    match home.account()? {
        Some(file) if file.enrolled => Err(ClientError::Usage(format!(
            "{} belongs to account {} already; use another --home, or: lockstep logout --wipe",
            home.path().display(),
            file.name
        ))),
        _ => home.wipe(),
    }
}

/// Signs up.
///
/// # Errors
/// [`ClientError`]; the account exists only if this succeeds, or says so.
pub async fn signup(
    home: Home,
    place: &Place<'_>,
    invite: &str,
    secrets: NewSecrets<'_>,
    insecure_http: bool,
) -> Result<Account> {
    secrets.passphrase.check_strength()?;
    let api = Api::new(place.origin.to_owned())?;
    check_origin(&api).await?;
    if let Some((account, device)) = resume(&home, place, &api).await? {
        return complete(home, place, account, &device, &api, insecure_http).await;
    }
    fresh_home(&home)?;
    let mut generator = rng::system();
    let account = UnlockedAccount::create(&mut generator)?;
    let id = account.account();
    let device = Arc::new(DeviceKeys::generate(&mut generator)?);
    let recovery = RecoveryKey::generate(&mut generator);
    let credentials = NewCredentials { passphrase: secrets.passphrase, recovery: &recovery };
    let joining = Joining { device: &device, name: place.device_name, pins: Vec::new() };
    let first = account.first_enrolment(credentials, joining, &mut generator)?;
    let log_head = first.entry.digest(label::DEVICE_LOG_ENTRY);
    let parent = Parent {
        account: id,
        identity: account.identity(),
        device_log_index: 0,
        device_log_head: log_head,
        utc: rng::now_utc(),
    };
    let birth = give_birth(keyring_id(account.identity()), &parent, &device);

    let (registration, request) = Registration::start(secrets.passphrase, &mut generator)?;
    let started: OpaqueStarted =
        api.post_open("/v1/register/start", &RegisterStart { account: id, request: request.into() }).await?;
    let opaque_record = registration.finish(secrets.passphrase, id, &started.response.0, &mut generator)?;

    home.set_next(&account_file(place, id, &device, false), &device)?;
    let checkpoint = Checkpoint {
        version: VERSION,
        account: id,
        device_log_index: 0,
        device_log_head: log_head,
        keyring_seq: Seq::new(0),
        keyring_head: Commit::hash_of(&birth.genesis.bytes.0),
    };
    let identity = account.identity().to_bytes();
    (secrets.deliver_kit)(&kit::text(place.origin, place.name, &identity, &recovery, &checkpoint))?;

    let finish = RegisterFinish {
        name: place.name.to_owned(),
        invite: invite.to_owned(),
        ticket: started.ticket,
        opaque_record: opaque_record.into(),
        key_header: first.key_header,
        entry: first.entry,
        keyring_create: birth.create,
        keyring_genesis: birth.genesis,
    }
    .encode();
    let action = account.authorise(ACTION_REGISTER, &finish, 0, Digest::ZERO);
    let body = Authorised { bytes: finish.into(), action };
    let sent: Result<Session> = api.post_open("/v1/register/finish", &body).await;
    settle(&api, id, &device, sent).await?;

    drop(account);
    complete(home, place, id, &device, &api, insecure_http).await
}

/// Step 5: builds the keyring vault to its head and checks checkpoint and pins. Gives the pin of its head.
async fn build_keyring(
    home: &Home,
    api: &Arc<Api>,
    seen: &Seen,
    unlocked: &UnlockedAccount,
    device: &Arc<DeviceKeys>,
    checkpoint: Option<&Checkpoint>,
    ignored: Ignored<'_>,
) -> Result<Pin> {
    let account = unlocked.account();
    if let Some(checkpoint) = checkpoint {
        if checkpoint.account != account {
            return Err(ClientError::Usage("the kit belongs to another account".into()));
        }
        match seen.log.hash_at(checkpoint.device_log_index) {
            Some(hash) if hash == checkpoint.device_log_head => {}
            Some(_) => return Err(ClientError::Fork("the device log is not the one of the kit".into())),
            None => {
                return Err(ClientError::Rollback(
                    "the server went back in time: the device log is older than the kit".into(),
                ));
            }
        }
    }
    let id = keyring_id(unlocked.identity());
    let create = fetch_create(api, id).await?;
    let db = open_db(home, device)?;
    if db.device_log()?.len() > seen.entries.len() {
        return Err(ClientError::Rollback(
            "the server went back in time: the device log is shorter than before".into(),
        ));
    }
    db.set_devices(0, &seen.entries, &seen.key_header)?;
    // This builds on what is verified; the copy that was met before has no say in it.
    db.drop_meta(CLONED)?;
    let replica = db
        .vault(id, Some(&create))?
        .ok_or_else(|| ClientError::Damaged("the home's database is damaged".into()))?;
    let setup = keyring_setup(account, unlocked.identity(), unlocked.keyring(), device, create);
    let mut keyring = Vault::new(setup, Arc::new(seen.log.clone()), replica, Arc::clone(api));
    keyring.pull().await?;
    let ignored = ignored.devices(&seen.log, device.id())?;
    check_log_pins(&keyring, &ignored)?;
    let head =
        keyring.replica.head()?.ok_or_else(|| ClientError::Server("the keyring vault is empty".into()))?;
    let mut pins: Vec<Known> = seen.log.pins().iter().map(|pin| Known { pin: *pin, by: None }).collect();
    for doc in counting(&keyring, &ignored)? {
        pins.extend(doc.heads.iter().map(|pin| Known { pin: *pin, by: Some(doc.device) }));
    }
    pins.extend(checkpoint.map(|checkpoint| Known {
        pin: Pin { vault: id, seq: checkpoint.keyring_seq, head: checkpoint.keyring_head },
        by: None,
    }));
    for known in pins.iter().filter(|known| known.pin.vault == id) {
        check_pin(&keyring.replica, known, true)?;
    }
    Ok(Pin { vault: id, seq: head.tip.seq, head: head.tip.hash })
}

/// Signs in on a new device, or gives a copied home its own identity.
///
/// # Errors
/// [`ClientError::WrongPassphrase`] for a wrong passphrase and an unknown name alike.
pub async fn login(
    home: Home,
    place: &Place<'_>,
    passphrase: &Passphrase,
    insecure_http: bool,
) -> Result<Account> {
    let before = home.account()?.filter(|file| file.enrolled);
    let renews = before.as_ref().is_some_and(|file| file.server == place.origin && file.name == place.name);
    let api = Api::new(place.origin.to_owned())?;
    check_origin(&api).await?;
    if let Some((account, device)) = resume(&home, place, &api).await? {
        return complete(home, place, account, &device, &api, insecure_http).await;
    }
    if !renews {
        fresh_home(&home)?;
    }
    let mut generator = rng::system();
    let (attempt, ke1) = Login::start(passphrase, &mut generator)?;
    let start = LoginStart { name: place.name.to_owned(), ke1: ke1.into() };
    let started: LoginStarted = api.post_open("/v1/login/start", &start).await?;
    let wrong = |_| ClientError::WrongPassphrase;
    let ke3 = attempt
        .finish(passphrase, started.account, place.origin, &started.ke2.0, &mut generator)
        .map_err(wrong)?;
    let finish = LoginFinish { login: started.login, ke3: ke3.into() };
    let session: Session = match api.post_open("/v1/login/finish", &finish).await {
        Err(error) if error.code() == Some(Code::Unauthenticated) => {
            return Err(ClientError::WrongPassphrase);
        }
        other => other?,
    };
    api.set_token(Some(session.token));
    let account = started.account;
    if renews && before.is_some_and(|file| file.account != account.to_string()) {
        return Err(ClientError::Fork("the server shows another account under this name".into()));
    }

    let seen = look(&api, account).await?;
    let unlocked =
        UnlockedAccount::unlock(&seen.header, Credential::Passphrase(passphrase)).map_err(|_| unopened())?;
    let device = Arc::new(match home.device()?.filter(|_| renews) {
        Some(old) => old.renew(&mut generator)?,
        None => DeviceKeys::generate(&mut generator)?,
    });
    let pin = build_keyring(&home, &api, &seen, &unlocked, &device, None, place.ignored).await?;
    let joining = Joining { device: &device, name: place.device_name, pins: vec![pin] };
    let enrolment = unlocked.enrol(&seen.header, &seen.log, None, joining, &mut generator)?;
    let request = EnrolDevice { key_header: enrolment.key_header, entry: enrolment.entry }.encode();
    let last = seen.log.next_index().saturating_sub(1);
    let action = unlocked.authorise(ACTION_ENROL, &request, last, seen.log.head());
    drop(unlocked);
    home.set_next(&account_file(place, account, &device, false), &device)?;
    let body = Authorised { bytes: request.into(), action };
    let sent: Result<Session> = api.post("/v1/account/devices", &body).await;
    settle(&api, account, &device, sent).await?;
    complete(home, place, account, &device, &api, insecure_http).await
}

/// The passphrase signed in, and yet the account does not open: the server's doing.
fn unopened() -> ClientError {
    ClientError::Server("the account's key header does not open with this passphrase or key".into())
}

/// Recovers with the recovery key: new passphrase, new recovery key, new kit; the old ones stop working.
///
/// # Errors
/// [`ClientError::WrongRecoveryKey`] for a wrong key and an unknown name alike.
pub async fn recover(
    home: Home,
    place: &Place<'_>,
    kit: &Kit,
    secrets: NewSecrets<'_>,
    insecure_http: bool,
) -> Result<Account> {
    secrets.passphrase.check_strength()?;
    let api = Api::new(place.origin.to_owned())?;
    check_origin(&api).await?;
    if let Some((account, device)) = resume(&home, place, &api).await? {
        return complete(home, place, account, &device, &api, insecure_http).await;
    }
    fresh_home(&home)?;
    let account = recovery_session(&api, place, kit).await?;
    let seen = look(&api, account).await?;
    let unlocked =
        UnlockedAccount::unlock(&seen.header, Credential::Recovery(&kit.recovery)).map_err(|_| unopened())?;
    let mut generator = rng::system();
    let device = Arc::new(DeviceKeys::generate(&mut generator)?);
    let checkpoint = kit.checkpoint.as_ref();
    let pin = build_keyring(&home, &api, &seen, &unlocked, &device, checkpoint, place.ignored).await?;

    let (registration, request) = Registration::start(secrets.passphrase, &mut generator)?;
    let started: OpaqueStarted =
        api.post("/v1/account/opaque", &OpaqueStart { request: request.into() }).await?;
    let opaque_record =
        registration.finish(secrets.passphrase, account, &started.response.0, &mut generator)?;
    let recovery = RecoveryKey::generate(&mut generator);
    let credentials = NewCredentials { passphrase: secrets.passphrase, recovery: &recovery };
    let joining = Joining { device: &device, name: place.device_name, pins: vec![pin] };
    let enrolment = unlocked.enrol(&seen.header, &seen.log, Some(credentials), joining, &mut generator)?;
    let checkpoint = Checkpoint {
        version: VERSION,
        account,
        device_log_index: seen.log.next_index(),
        device_log_head: enrolment.entry.digest(label::DEVICE_LOG_ENTRY),
        keyring_seq: pin.seq,
        keyring_head: pin.head,
    };
    home.set_next(&account_file(place, account, &device, false), &device)?;
    let identity = unlocked.identity().to_bytes();
    (secrets.deliver_kit)(&kit::text(place.origin, place.name, &identity, &recovery, &checkpoint))?;
    let request = Recover {
        ticket: started.ticket,
        opaque_record: opaque_record.into(),
        key_header: enrolment.key_header,
        entry: enrolment.entry,
    }
    .encode();
    let last = seen.log.next_index().saturating_sub(1);
    let action = unlocked.authorise(ACTION_RECOVER, &request, last, seen.log.head());
    drop(unlocked);
    let body = Authorised { bytes: request.into(), action };
    let sent: Result<Session> = api.post("/v1/account/recover", &body).await;
    settle(&api, account, &device, sent).await?;
    complete(home, place, account, &device, &api, insecure_http).await
}

async fn recovery_session(api: &Api, place: &Place<'_>, kit: &Kit) -> Result<AccountId> {
    let start = RecoveryStart { name: place.name.to_owned() };
    let started: RecoveryStarted = api.post_open("/v1/recovery/start", &start).await?;
    if kit.account.is_some_and(|account| account != started.account) {
        return Err(ClientError::WrongRecoveryKey);
    }
    let statement = Statement {
        account: started.account,
        device: DeviceId::ZERO,
        purpose: PURPOSE_RECOVERY,
        server_nonce: started.nonce,
        client_nonce: Digest::from_bytes(rng::bytes()),
        signature: ByteArray([0; 64]),
    };
    let statement = sign_recovery_statement(&kit.recovery, place.origin, statement);
    let session: Session = match api.post_open("/v1/recovery/finish", &statement).await {
        Err(error) if error.code() == Some(Code::Unauthenticated) => {
            return Err(ClientError::WrongRecoveryKey);
        }
        other => other?,
    };
    api.set_token(Some(session.token));
    Ok(started.account)
}

/// A generated passphrase.
pub fn generate_passphrase() -> Zeroizing<String> {
    Passphrase::generate(&mut rng::system())
}
