//! Registration and the device log (PROTOCOL.md sections 2 and 3): what must hold before anything of it
//! is stored.

use crate::error::Refusal;
use crate::store::{EntryEffect, NewEntry, NewVault};
use lockstep_proto::api::account::Devices;
use lockstep_proto::api::auth::action_input;
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::chain::{self, ChainError, VerifiedCommit};
use lockstep_proto::device_log::{DeviceLog, DeviceLogEntry, DeviceLogError, Entered};
use lockstep_proto::id::{AccountId, VaultId};
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

/// What a request may change of a key header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderChange {
    /// One added seal.
    Enrol,
    /// Both wraps, the recovery key, and one added seal.
    Recover,
    /// The keyring: a new epoch, sealed to who stays.
    Revoke,
    /// The passphrase's wrap (`passphrase`), the recovery key and its wrap, or both.
    Credentials {
        /// Whether a new OPAQUE record comes with it.
        passphrase: bool,
    },
}

/// An account as stored, verified.
pub struct Known {
    header: VerifiedKeyHeader,
    log: DeviceLog,
}

impl Known {
    /// Verifies what is stored.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn verify(account: AccountId, stored: &Devices) -> Result<Self, Refusal> {
        let header =
            VerifiedKeyHeader::verify(account, &stored.key_header).map_err(|error| header_refusal(&error))?;
        let mut log = DeviceLog::new(*header.identity());
        for known in &stored.entries {
            log.append(known).map_err(|error| log_refusal(&error))?;
        }
        Ok(Self { header, log })
    }

    /// Verifies the birth of a vault of the account.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn check_birth(
        &self,
        vault: VaultId,
        create: &Signed,
        genesis: &Signed,
    ) -> Result<VerifiedCommit, ChainError> {
        chain::verify_birth(vault, self.log.account(), self.header.identity(), &self.log, create, genesis)
    }

    /// Verifies the identity's signature of an action over the log as it is.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check_action(&self, action: &Action<'_>) -> Result<(), Refusal> {
        let last = self.log.next_index().saturating_sub(1);
        check_action(self.header.identity(), self.log.account(), action, last, self.log.head())
    }

    /// Verifies the next entry, as a whole: action, header, entry, and that the header changed only where it may.
    /// Gives the entry and the recovery sign-in key.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check_next(
        mut self,
        action: &Action<'_>,
        key_header: &Signed,
        entry: &Signed,
        change: HeaderChange,
    ) -> Result<(NewEntry, Digest), Refusal> {
        // Told before the signature is judged: it covers the log's head, which is another one then.
        let claimed = DeviceLogEntry::decode(&entry.bytes.0)
            .map_err(|error| Refusal::new(Code::Malformed, error.to_string()))?;
        if (claimed.index, claimed.previous) != (self.log.next_index(), self.log.head()) {
            return Err(Refusal::new(Code::LogMoved, "the device log moved on; fetch it and try again"));
        }
        self.check_action(action)?;
        let account = self.log.account();
        let new = VerifiedKeyHeader::verify(account, key_header).map_err(|error| header_refusal(&error))?;
        let new_entry = append(&mut self.log, &new, key_header, entry)?;
        check_header_change(self.header.header(), new.header(), &new_entry, change)?;
        Ok((new_entry, new.header().recovery))
    }

    /// Verifies entries that follow the stored ones and the key header that the last of them names; entries that
    /// are stored already may come before them. Gives what is new and the recovery sign-in key.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check_missing(
        mut self,
        entries: &[Signed],
        key_header: &Signed,
    ) -> Result<(Vec<NewEntry>, Digest), Refusal> {
        let account = self.log.account();
        let new = VerifiedKeyHeader::verify(account, key_header).map_err(|error| header_refusal(&error))?;
        let mut found = Vec::with_capacity(entries.len());
        for entry in entries {
            let claimed = DeviceLogEntry::decode(&entry.bytes.0)
                .map_err(|error| Refusal::new(Code::Malformed, error.to_string()))?;
            if let Some(held) = self.log.hash_at(claimed.index) {
                if held != entry.digest(label::DEVICE_LOG_ENTRY) {
                    return Err(Refusal::new(Code::LogMoved, "the device log parted from these entries"));
                }
                continue;
            }
            found.push(append_entry(&mut self.log, key_header, entry)?);
        }
        if !found.is_empty() {
            self.log.check_key_header(&new).map_err(|error| log_refusal(&error))?;
        }
        Ok((found, new.header().recovery))
    }
}

/// Whether posted entries go on from the end of a stored log, as far as can be told without reading the log: `end` is
/// its last entry, and the identity of its key header signed whatever is new. False if nothing is.
///
/// # Errors
/// [`Refusal`].
pub fn check_follows(account: AccountId, end: &Devices, entries: &[Signed]) -> Result<bool, Refusal> {
    let moved = || Refusal::new(Code::LogMoved, "the entries do not follow the device log as it is here");
    let head = end.entries.last().ok_or_else(moved)?.digest(label::DEVICE_LOG_ENTRY);
    let identity = KeyHeader::decode(&end.key_header.bytes.0).ok();
    let identity = identity.and_then(|header| PublicKey::from_bytes(header.identity.as_bytes()));
    let identity = identity.ok_or_else(moved)?;
    let (mut next, mut previous) = (end.total, head);
    for signed in entries {
        let entry = DeviceLogEntry::decode(&signed.bytes.0).map_err(|_| moved())?;
        if entry.account != account {
            return Err(moved());
        }
        if entry.index < end.total {
            continue;
        }
        if (entry.index, entry.previous) != (next, previous) {
            return Err(moved());
        }
        signed.verify(DeviceLogEntry::NAME, label::DEVICE_LOG_ENTRY, &identity).map_err(|_| moved())?;
        next = next.saturating_add(1);
        previous = signed.digest(label::DEVICE_LOG_ENTRY);
    }
    let is_held = entries.last().is_some_and(|last| last.digest(label::DEVICE_LOG_ENTRY) == head);
    if next > end.total || is_held { Ok(next > end.total) } else { Err(moved()) }
}

fn append(
    log: &mut DeviceLog,
    header: &VerifiedKeyHeader,
    key_header: &Signed,
    entry: &Signed,
) -> Result<NewEntry, Refusal> {
    let new = append_entry(log, key_header, entry)?;
    log.check_key_header(header).map_err(|error| log_refusal(&error))?;
    Ok(new)
}

fn append_entry(log: &mut DeviceLog, key_header: &Signed, entry: &Signed) -> Result<NewEntry, Refusal> {
    let (index, previous) = (log.next_index(), log.head());
    let damaged = || Refusal::new(Code::Internal, "the device log contradicts itself");
    let effect = match log.append(entry).map_err(|error| log_refusal(&error))? {
        Entered::Enrolled(device) => {
            let known = log.device(device).ok_or_else(damaged)?;
            EntryEffect::Enrol { device, sign_key: Digest::from_bytes(known.sign_key.to_bytes()) }
        }
        Entered::Revoked(device) => {
            let known = log.device(device).and_then(|known| known.revoked.as_ref()).ok_or_else(damaged)?;
            EntryEffect::Revoke { device, pins: known.pins.clone() }
        }
        Entered::Keys => EntryEffect::Keys,
    };
    Ok(NewEntry {
        account: log.account(),
        index,
        previous,
        entry: entry.clone(),
        hash: log.head(),
        key_header: key_header.clone(),
        effect,
    })
}

/// A header differs from the one before in its counter and in what the change may change.
fn check_header_change(
    old: &KeyHeader,
    new: &KeyHeader,
    entry: &NewEntry,
    change: HeaderChange,
) -> Result<(), Refusal> {
    let refuse = |text: &str| Err(Refusal::new(Code::InvalidChain, text));
    let mut expected = old.clone();
    expected.counter = new.counter;
    let renewed: Vec<bool> = old
        .wraps
        .iter()
        .zip(&new.wraps)
        .map(|(before, after)| before.ciphertext != after.ciphertext && before.salt != after.salt)
        .collect();
    match (change, &entry.effect) {
        (HeaderChange::Enrol, EntryEffect::Enrol { .. }) => {}
        (HeaderChange::Recover, EntryEffect::Enrol { .. }) => {
            if renewed != [true, true] || old.recovery == new.recovery {
                return refuse("a recovery replaces passphrase and recovery key");
            }
            expected.wraps.clone_from(&new.wraps);
            expected.recovery = new.recovery;
        }
        (HeaderChange::Revoke, EntryEffect::Revoke { .. }) => {
            let links = new.keyring.links.get(..old.keyring.links.len());
            if new.keyring.epoch != old.keyring.epoch.next() || links != Some(old.keyring.links.as_slice()) {
                return refuse("a revocation begins the next epoch of the keyring and keeps its links");
            }
            expected.keyring = new.keyring.clone();
        }
        (HeaderChange::Credentials { passphrase }, EntryEffect::Keys) => {
            let recovery = old.recovery != new.recovery;
            if renewed != [passphrase, recovery] || !(passphrase || recovery) {
                return refuse("it replaces another wrap than the request says");
            }
            expected.recovery = new.recovery;
            for (expected, (new, renewed)) in expected.wraps.iter_mut().zip(new.wraps.iter().zip(renewed)) {
                if renewed {
                    expected.clone_from(new);
                }
            }
        }
        _ => return refuse("the device-log entry is of another kind than the request"),
    }
    if let EntryEffect::Enrol { device, .. } = &entry.effect {
        let added = new.keyring.seals.iter().find(|seal| seal.device == *device);
        expected.keyring.seals.extend(added.cloned());
        expected.keyring.seals.sort_by_key(|seal| seal.device);
    }
    if &expected == new { Ok(()) } else { refuse("the key header changes more than this request may") }
}
