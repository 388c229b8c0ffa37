//! Registration and the device log (PROTOCOL.md sections 2 and 3): what must hold before anything of it
//! is stored.

use crate::error::Refusal;
use crate::store::{NewEntry, NewVault};
use lockstep_proto::api::account::Devices;
use lockstep_proto::api::auth::action_input;
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::chain;
use lockstep_proto::device_log::{DeviceLog, DeviceLogEntry, DeviceLogError};
use lockstep_proto::id::AccountId;
use lockstep_proto::key_header::{KeyHeader, KeyHeaderError, VerifiedKeyHeader};
use lockstep_proto::sign::{PublicKey, Signature};
use lockstep_proto::{Digest, Signed, label};

fn header_refusal(error: &KeyHeaderError) -> Refusal {
    let code = match error {
        KeyHeaderError::Codec(_) => Code::Malformed,
        KeyHeaderError::Signature(_) => Code::InvalidSignature,
        _ => Code::InvalidChain,
    };
    Refusal::new(code, error.to_string())
}

fn log_refusal(error: &DeviceLogError) -> Refusal {
    let code = match error {
        DeviceLogError::Codec(_) => Code::Malformed,
        DeviceLogError::Signature(_) => Code::InvalidSignature,
        DeviceLogError::Full { .. } => Code::LimitReached,
        _ => Code::InvalidChain,
    };
    Refusal::new(code, error.to_string())
}

/// An identity-signed request.
#[derive(Clone, Copy)]
pub struct Action<'a> {
    /// One of the `ACTION_` constants.
    pub action: u8,
    /// The request's bytes.
    pub body: &'a [u8],
    /// The identity's signature.
    pub signature: &'a Signature,
}

fn check_action(
    identity: &PublicKey,
    account: AccountId,
    action: &Action<'_>,
    log_index: u64,
    log_head: Digest,
) -> Result<(), Refusal> {
    let input = action_input(account, action.action, action.body, log_index, log_head);
    identity
        .verify("request", label::ACTION, &input, action.signature)
        .map_err(|error| Refusal::new(Code::InvalidSignature, error.to_string()))
}

/// Verifies a registration's key header, entry 0 and keyring vault.
///
/// # Errors
/// [`Refusal`].
pub fn check_registration(
    account: AccountId,
    action: &Action<'_>,
    key_header: &Signed,
    entry: &Signed,
    keyring: (&Signed, &Signed),
) -> Result<(NewEntry, NewVault, Digest), Refusal> {
    let verified = VerifiedKeyHeader::verify(account, key_header).map_err(|error| header_refusal(&error))?;
    check_action(verified.identity(), account, action, 0, Digest::ZERO)?;
    let mut log = DeviceLog::new(*verified.identity());
    let new_entry = append(&mut log, &verified, key_header, entry)?;
    let vault = lockstep_proto::vault_log::keyring_vault_id(&verified.identity().to_bytes());
    let birth = chain::verify_birth(vault, account, verified.identity(), &log, keyring.0, keyring.1)
        .map_err(|error| super::commit::refuse(&error))?;
    let keyring = NewVault { create: keyring.0.clone(), genesis: keyring.1.clone(), tip: birth.tip() };
    Ok((new_entry, keyring, verified.header().recovery))
}

/// Verifies the next entry of an account's log, as a whole: action, header, entry, and that the header
/// changed only where it may.
///
/// # Errors
/// [`Refusal`].
pub fn check_next_entry(
    account: AccountId,
    stored: &Devices,
    action: &Action<'_>,
    key_header: &Signed,
    entry: &Signed,
    is_recovery: bool,
) -> Result<(NewEntry, Digest), Refusal> {
    let old =
        VerifiedKeyHeader::verify(account, &stored.key_header).map_err(|error| header_refusal(&error))?;
    let mut log = DeviceLog::new(*old.identity());
    for known in &stored.entries {
        log.append(known).map_err(|error| log_refusal(&error))?;
    }
    // Told before the signature is judged: it covers the log's head, which is another one then.
    let claimed = DeviceLogEntry::decode(&entry.bytes.0)
        .map_err(|error| Refusal::new(Code::Malformed, error.to_string()))?;
    if (claimed.index, claimed.previous) != (log.next_index(), log.head()) {
        return Err(Refusal::new(Code::LogMoved, "the device log moved on; fetch it and try again"));
    }
    let last = log.next_index().saturating_sub(1);
    check_action(old.identity(), account, action, last, log.head())?;
    let new = VerifiedKeyHeader::verify(account, key_header).map_err(|error| header_refusal(&error))?;
    let new_entry = append(&mut log, &new, key_header, entry)?;
    check_header_change(old.header(), new.header(), &new_entry, is_recovery)?;
    Ok((new_entry, new.header().recovery))
}

fn append(
    log: &mut DeviceLog,
    header: &VerifiedKeyHeader,
    key_header: &Signed,
    entry: &Signed,
) -> Result<NewEntry, Refusal> {
    let (index, previous) = (log.next_index(), log.head());
    let device = log.append(entry).map_err(|error| log_refusal(&error))?;
    log.check_key_header(header).map_err(|error| log_refusal(&error))?;
    let sign_key = log.device(device).map(|device| Digest::from_bytes(device.sign_key.to_bytes()));
    Ok(NewEntry {
        account: log.account(),
        index,
        previous,
        entry: entry.clone(),
        hash: log.head(),
        key_header: key_header.clone(),
        device,
        sign_key: sign_key.unwrap_or(Digest::ZERO),
    })
}

/// A header differs from the one before in its counter and one added seal; in a recovery also in wraps
/// and recovery key.
fn check_header_change(
    old: &KeyHeader,
    new: &KeyHeader,
    entry: &NewEntry,
    is_recovery: bool,
) -> Result<(), Refusal> {
    let mut expected = old.clone();
    expected.counter = new.counter;
    if is_recovery {
        let renewed = old.recovery != new.recovery
            && old.wraps.iter().zip(&new.wraps).all(|(before, after)| before.ciphertext != after.ciphertext);
        if !renewed {
            return Err(Refusal::new(Code::InvalidChain, "a recovery replaces passphrase and recovery key"));
        }
        expected.wraps.clone_from(&new.wraps);
        expected.recovery = new.recovery;
    }
    let added = new.keyring.seals.iter().find(|seal| seal.device == entry.device);
    expected.keyring.seals.extend(added.cloned());
    expected.keyring.seals.sort_by_key(|seal| seal.device);
    if &expected == new {
        Ok(())
    } else {
        Err(Refusal::new(Code::InvalidChain, "the key header changes more than this request may"))
    }
}
