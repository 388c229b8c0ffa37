//! What signing up, signing in and recovering share: looking at an account, and making the home its own once the
//! device is enrolled, whatever was cut off before.

use super::join::Place;
use super::{Account, fetch_create, fetch_devices, keyring_id};
use crate::api::Api;
use crate::error::{ClientError, Result};
use crate::home::{AccountFile, Home};
use crate::replica::Db;
use crate::vault::CLONED;
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::local::LocalKeys;
use lockstep_proto::Signed;
use lockstep_proto::api::auth::Session;
use lockstep_proto::api::problem::Code;
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::id::AccountId;
use lockstep_proto::key_header::VerifiedKeyHeader;
use std::sync::Arc;

pub(super) fn account_file(
    place: &Place<'_>,
    account: AccountId,
    device: &DeviceKeys,
    enrolled: bool,
) -> AccountFile {
    AccountFile {
        server: place.origin.to_owned(),
        name: place.name.to_owned(),
        account: account.to_string(),
        device: device.id().to_string(),
        enrolled,
    }
}

pub(super) fn open_db(home: &Home, device: &DeviceKeys) -> Result<std::rc::Rc<Db>> {
    Db::open(&home.replica_path(), LocalKeys::new(device.index_key()), true)
}

/// After an action was sent: a session came back, or the answer was lost and the device key tells whether
/// the action happened.
pub(super) async fn settle(
    api: &Api,
    account: AccountId,
    device: &Arc<DeviceKeys>,
    sent: Result<Session>,
) -> Result<()> {
    api.set_signer(account, Arc::clone(device));
    let lost = match &sent {
        Ok(session) => {
            api.set_token(Some(session.token.clone()));
            return Ok(());
        }
        Err(ClientError::Unreachable { .. } | ClientError::Busy(_) | ClientError::SignedOut) => true,
        // Sent twice by the retry below it: the first one may have been the one that counted.
        Err(error) => matches!(
            error.code(),
            Some(Code::NameTaken | Code::LogMoved | Code::Expired | Code::Unauthenticated)
        ),
    };
    if lost && api.device_login().await.is_ok() {
        return Ok(());
    }
    sent.map(|_| ())
}

/// An earlier try may have been cut off after its request was sent: the persisted device key tells.
pub(super) async fn resume(
    home: &Home,
    place: &Place<'_>,
    api: &Api,
) -> Result<Option<(AccountId, Arc<DeviceKeys>)>> {
    let Some((file, keys)) = home.next()? else { return Ok(None) };
    let account =
        file.account.parse().ok().filter(|_| file.server == place.origin && file.name == place.name);
    if let Some(account) = account {
        let keys = Arc::new(keys);
        api.set_signer(account, Arc::clone(&keys));
        match api.device_login().await {
            Ok(()) => return Ok(Some((account, keys))),
            Err(ClientError::SignedOut) => {}
            Err(error) => return Err(error),
        }
    }
    home.drop_next()?;
    Ok(None)
}

/// The device is enrolled, as far as the server says: checks that the log says so, and makes the home its own.
/// What fails from here on does not undo it; the same command goes on.
pub(super) async fn complete(
    home: Home,
    place: &Place<'_>,
    account: AccountId,
    device: &Arc<DeviceKeys>,
    api: &Arc<Api>,
    insecure_http: bool,
) -> Result<Account> {
    let done = complete_home(home, place, account, device, api, insecure_http).await;
    done.map_err(|error| ClientError::Unfinished(Box::new(error)))
}

async fn complete_home(
    home: Home,
    place: &Place<'_>,
    account: AccountId,
    device: &Arc<DeviceKeys>,
    api: &Arc<Api>,
    insecure_http: bool,
) -> Result<Account> {
    let seen = look(api, account).await?;
    if seen.log.device(device.id()).is_none() {
        return Err(ClientError::Server("its device log does not have this device".into()));
    }
    let keyring = keyring_id(seen.log.identity());
    let create = fetch_create(api, keyring).await?;
    let db = open_db(&home, device)?;
    db.set_devices(0, &seen.entries, &seen.key_header)?;
    db.vault(keyring, Some(&create))?;
    db.drop_meta(CLONED)?;
    drop(db);
    home.take_next(&account_file(place, account, device, true), device)?;
    home.set_session(api.token().as_deref())?;
    let mut account = Account::open(home, insecure_http)?;
    account.ignored = place.ignored.devices(&seen.log, device.id())?;
    account.sync_keyring().await?;
    account.pin_heads(true).await?;
    account.keep_session()?;
    Ok(account)
}

/// What a first look at the account gave, all of it verified.
pub(super) struct Seen {
    pub(super) header: VerifiedKeyHeader,
    pub(super) key_header: Signed,
    pub(super) log: DeviceLog,
    pub(super) entries: Vec<Signed>,
}

/// Steps 1 to 3 of the order of verification.
pub(super) async fn look(api: &Api, account: AccountId) -> Result<Seen> {
    let devices = fetch_devices(api, 0).await?;
    let server = |error: &dyn std::fmt::Display| ClientError::Server(error.to_string());
    let header = VerifiedKeyHeader::verify(account, &devices.key_header).map_err(|error| server(&error))?;
    let mut log = DeviceLog::new(*header.identity());
    for entry in &devices.entries {
        log.append(entry).map_err(|error| server(&error))?;
    }
    log.check_key_header(&header).map_err(|error| server(&error))?;
    Ok(Seen { header, key_header: devices.key_header, log, entries: devices.entries })
}
