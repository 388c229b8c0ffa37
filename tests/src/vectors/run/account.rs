//! The key hierarchy, the device log, and what identity and devices sign.

use crate::vectors::json::{self, Fault, In, hex, item};
use crate::vectors::world::WORLD;
use lockstep_client_crypto::account::{Credential, KeyringKeys, UnlockedAccount};
use lockstep_client_crypto::device::{DeviceKeys, SealContext};
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::{CryptoError, OpenError, kdf, seal};
use lockstep_proto::api::auth::{Statement, action_input, statement_input};
use lockstep_proto::cbor::{ByteArray, Wire, encode};
use lockstep_proto::device_log::{
    DeviceLog, DeviceLogEntry, DeviceNameHeader, Enrol, KIND_ENROL, KIND_REVOKE, KeysChanged, Revoke,
};
use lockstep_proto::hash::Digest;
use lockstep_proto::id::{AccountId, DeviceId, Epoch};
use lockstep_proto::key_header::{DeviceSeal, PROFILES, VerifiedKeyHeader, WrapHeader, account_id};
use lockstep_proto::sign::Signed;
use lockstep_proto::version::{SUITE, VERSION};
use lockstep_proto::{label, recovery, vault_log};
use serde_json::{Value, json};
use unicode_normalization::UnicodeNormalization as _;

type Out = Result<Value, Fault>;

pub(super) fn account(input: In<'_>) -> Result<AccountId, Fault> {
    input.array("account").map(AccountId::from_bytes)
}

pub(super) fn passphrase_kek(input: In<'_>) -> Out {
    let typed = input.text("passphrase");
    let passphrase = Passphrase::new(typed).map_err(|_| Fault::new("passphrase"))?;
    let (account, salt, profile) = (account(input)?, input.fixed::<16>("salt")?, input.small("profile"));
    let kek = match passphrase.derive_kek(account, profile, &salt) {
        Ok(kek) => kek,
        Err(CryptoError::Misuse { .. }) => return Err(Fault::new("profile")),
        Err(error) => return Err(error.into()),
    };
    assert!(PROFILES.iter().any(|(known, ..)| *known == profile));
    let argon_salt = Digest::of(label::KEK_SALT, &encode(&(account, salt))).truncate16();
    let normalised: String = typed.nfkc().collect();
    Ok(json!({ "normalised": hex(normalised), "argon-salt": hex(argon_salt), "kek": hex(kek.expose()) }))
}

pub(super) fn recovery_key(input: In<'_>) -> Result<RecoveryKey, Fault> {
    Ok(RecoveryKey::parse(&recovery::recovery_key_text(&input.array("recovery")?))?)
}

pub(super) fn recovery_kek(input: In<'_>) -> Out {
    let key = recovery_key(input)?;
    let info = encode(&(label::RECOVERY_KEK.as_str(), account(input)?, input.fixed::<16>("salt")?));
    let kek = kdf::expand::<32>(&SecretKey::from_bytes(&input.array("recovery")?), &info);
    Ok(json!({ "kek": hex(*kek), "login-public": hex(key.login_public().as_bytes()) }))
}

pub(super) fn wrap(input: In<'_>) -> Out {
    let kek = SecretKey::from_bytes(&input.array("kek")?);
    let header = encode(&WrapHeader {
        version: VERSION,
        suite: SUITE,
        account: account(input)?,
        role: input.small("role"),
        profile: input.small("profile"),
        salt: input.fixed("salt")?,
        nonce: input.fixed("nonce")?,
    });
    let root = seal::open(
        &kek,
        label::ROOT_WRAP,
        &header,
        &input.array("nonce")?,
        &input.digest("commitment")?,
        &input.array::<48>("ciphertext")?,
    )?;
    let root = SecretKey::from_slice(&root).ok_or(OpenError)?;
    let seed = kdf::derive::<32, u8>(&root, label::IDENTITY_KEY, kdf::NONE);
    let identity = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes();
    Ok(json!({ "header": hex(header), "root": hex(root.expose()), "identity": hex(identity) }))
}

pub(super) fn key_header(input: In<'_>) -> Out {
    let header = VerifiedKeyHeader::verify(account(input)?, &input.signed("signed")?)?;
    Ok(json!({
        "identity": hex(header.identity().to_bytes()),
        "counter": header.header().counter,
        "hash": hex(header.hash().as_bytes()),
        "value": json::value(&header.header().encode()),
    }))
}

pub(super) fn unlock(input: In<'_>) -> Out {
    let header = VerifiedKeyHeader::verify(account(input)?, &input.signed("signed")?)?;
    let recovery = recovery_key(input)?;
    let unlocked = UnlockedAccount::unlock(&header, Credential::Recovery(&recovery))?;
    Ok(keyring(unlocked.keyring()))
}

fn keyring(keyring: &KeyringKeys) -> Value {
    let keys: Vec<_> = keyring.keys().map(|(_, key)| hex(key.expose())).collect();
    json!({ "keys": keys, "vault-secret": hex(keyring.vault_secret().expose()) })
}

pub(super) fn device_seal(input: In<'_>) -> Out {
    let device = DeviceId::from_bytes(input.array("device")?);
    let seed = input.fixed::<32>("seal-seed")?;
    let other = ByteArray([1_u8; 32]);
    let stored = encode(&(VERSION, device, other, seed, other, other));
    let keys = DeviceKeys::from_bytes(&stored)?;
    let identity = input.public("identity")?;
    let context = SealContext {
        identity: &identity,
        account: account(input)?,
        vault: vault_log::keyring_vault_id(&identity.to_bytes()),
        epoch: Epoch::new(input.number("epoch")),
    };
    let sealed = DeviceSeal {
        device,
        encapsulated: input.fixed("encapsulated")?,
        ciphertext: input.fixed("ciphertext")?,
    };
    Ok(json!({ "key": hex(keys.open_seal(&context, &sealed)?.expose()) }))
}

/// The bytes of an item of a log: a number stands for that entry of the golden device log.
fn log_item(value: &Value) -> Vec<u8> {
    match value.as_u64() {
        Some(entry) => WORLD.log[usize::try_from(entry).unwrap()].entry.encode(),
        None => item(value),
    }
}

/// The key header: a number stands for that of a golden case.
fn named_header(input: In<'_>) -> Result<Signed, Fault> {
    match input.0["key-header"].as_u64() {
        Some(entry) => Ok(WORLD.log[usize::try_from(entry).unwrap()].key_header.clone()),
        None => input.signed("key-header"),
    }
}

/// Verifies the log of `identity` and `log`; the last one is kept, because flips in what stands on it ask for it again.
pub(super) fn verified_log(input: In<'_>) -> Result<DeviceLog, Fault> {
    thread_local! {
        static LAST: std::cell::RefCell<Option<(blake3::Hash, DeviceLog)>> = const { std::cell::RefCell::new(None) };
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(input.text("identity").as_bytes());
    for signed in input.list("log") {
        hasher.update(b",").update(signed.to_string().as_bytes());
    }
    let name = hasher.finalize();
    let known =
        LAST.with_borrow(|last| last.as_ref().filter(|last| last.0 == name).map(|last| last.1.clone()));
    if let Some(log) = known {
        return Ok(log);
    }
    let mut log = DeviceLog::new(input.public("identity")?);
    for signed in input.list("log") {
        log.append(&Signed::decode(&log_item(signed))?)?;
    }
    LAST.with_borrow_mut(|last| *last = Some((name, log.clone())));
    Ok(log)
}

pub(super) fn device_log(input: In<'_>) -> Out {
    let account = account(input)?;
    if account_id(&input.array("identity")?) != account {
        return Err(Fault::new("identity"));
    }
    let log = verified_log(input)?;
    log.check_key_header(&VerifiedKeyHeader::verify(account, &named_header(input)?)?)?;
    let ids = |live: bool| -> Vec<String> {
        let devices = log.devices().filter(|device| device.revoked.is_none() == live);
        devices.map(|device| hex(device.id.as_bytes())).collect()
    };
    Ok(json!({
        "head": hex(log.head().as_bytes()),
        "entries": log.next_index(),
        "key-header-counter": log.key_header().0,
        "keyring-epoch": log.keyring_epoch().value(),
        "live": ids(true),
        "revoked": ids(false),
    }))
}

pub(super) fn device_log_entry(input: In<'_>) -> Out {
    let identity = input.public("identity")?;
    let signed = input.signed("signed")?;
    let entry = DeviceLogEntry::decode(&signed.bytes.0)?;
    signed.verify("device-log entry", label::DEVICE_LOG_ENTRY, &identity)?;
    let body = &entry.body.0;
    match entry.kind {
        KIND_ENROL => drop(Enrol::decode(body)?),
        KIND_REVOKE => drop(Revoke::decode(body)?),
        _ => drop(KeysChanged::decode(body)?),
    }
    Ok(json!({
        "hash": hex(signed.digest(label::DEVICE_LOG_ENTRY).as_bytes()),
        "value": json::value(&signed.bytes.0),
        "body": json::value(body),
    }))
}

pub(super) fn device_name(input: In<'_>) -> Out {
    let keyring = SecretKey::from_bytes(&input.array("key")?);
    let key = kdf::derive_key(&keyring, label::DEVICE_NAME, kdf::NONE);
    let header = encode(&DeviceNameHeader {
        version: VERSION,
        suite: SUITE,
        account: account(input)?,
        device: DeviceId::from_bytes(input.array("device")?),
        epoch: Epoch::new(input.number("epoch")),
        nonce: input.fixed("nonce")?,
    });
    let padded = seal::open(
        &key,
        label::DEVICE_NAME,
        &header,
        &input.array("nonce")?,
        &input.digest("commitment")?,
        &input.array::<80>("ciphertext")?,
    )?;
    let name = std::str::from_utf8(&padded).map_err(|_| OpenError)?;
    Ok(json!({ "name": name.trim_end_matches('\0') }))
}

pub(super) fn statement(input: In<'_>) -> Out {
    let statement = Statement::decode(&input.bytes("statement"))?;
    let signed = statement_input(input.text("origin"), &statement);
    input.public("public")?.verify("statement", label::LOGIN, &signed, &statement.signature)?;
    Ok(json!({ "input": hex(signed), "value": json::value(&statement.encode()) }))
}

pub(super) fn action(input: In<'_>) -> Out {
    let signed = action_input(
        account(input)?,
        input.small("action"),
        &input.bytes("body"),
        input.number("log-index"),
        input.digest("log-head")?,
    );
    input.public("identity")?.verify("action", label::ACTION, &signed, &input.fixed("signature")?)?;
    Ok(json!({ "input": hex(signed) }))
}
