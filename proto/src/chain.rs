//! The state machine of a valid chain (PROTOCOL.md section 6.3), used by every reader and by the
//! server alike.

use crate::cbor::{CodecError, Wire};
use crate::commit::{
    Change, Changes, Commit, KIND_CHANGE, KIND_GENESIS, KIND_REPAIR, KIND_ROTATE, RepairPlace, repair_input,
};
use crate::device_log::DeviceLog;
use crate::hash::Digest;
use crate::id::{AccountId, DeviceId, Epoch, Seq, VaultId};
use crate::sign::{PublicKey, SignatureError, Signed};
use crate::state::StateDigest;
use crate::vault_log::{KIND_CREATE, KIND_ROTATE as ENTRY_ROTATE, VaultLogEntry, keyring_vault_id};
use crate::{label, limits};

/// Why a commit does not go on a chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// Not decodable.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The signature does not verify.
    #[error("commit {seq} of device {device}: the signature does not verify")]
    Signature {
        /// Seq of the commit.
        seq: Seq,
        /// Claimed author.
        device: DeviceId,
    },
    /// A rule of section 6.3 does not hold.
    #[error("commit {seq} of device {device}: {rule}")]
    Rule {
        /// Seq of the commit.
        seq: Seq,
        /// Claimed author.
        device: DeviceId,
        /// The rule.
        rule: &'static str,
    },
    /// The author names a device-log entry that the reader has not got yet; it fetches the log, then
    /// tries again.
    #[error("commit {seq} names device-log entry {index}, which is not known here")]
    UnknownLogEntry {
        /// Seq of the commit.
        seq: Seq,
        /// Index of the entry.
        index: u64,
    },
}

/// What is known of devices: the reader's verified log, or the server's rows of it.
pub trait Authors {
    /// Hash of the device-log entry at `index`.
    fn entry_hash(&self, index: u64) -> Option<Digest>;
    /// Signing key of a device that is live and of class full as of entry `index`.
    fn author_key(&self, device: DeviceId, index: u64) -> Option<PublicKey>;
    /// Whether a commit of a device counts at a place: not beyond the pin of its revocation.
    fn counts(&self, device: DeviceId, vault: VaultId, seq: Seq) -> bool;
    /// Index of the last revocation at or before entry `index`.
    fn last_revocation(&self, index: u64) -> Option<u64>;
    /// The keyring's epoch as of entry `index`: one more than there are revocations at or before it.
    fn keyring_epoch(&self, index: u64) -> Epoch;
}

impl Authors for DeviceLog {
    fn entry_hash(&self, index: u64) -> Option<Digest> {
        self.hash_at(index)
    }

    fn author_key(&self, device: DeviceId, index: u64) -> Option<PublicKey> {
        let known = self.device(device).filter(|known| known.enrolled_at <= index)?;
        let is_live = known.revoked.as_ref().is_none_or(|revoked| index < revoked.index);
        is_live.then_some(known.sign_key)
    }

    fn counts(&self, device: DeviceId, vault: VaultId, seq: Seq) -> bool {
        let revoked = self.device(device).and_then(|known| known.revoked.as_ref());
        revoked.is_none_or(|revoked| revoked.last(vault).is_some_and(|last| seq <= last))
    }

    fn last_revocation(&self, index: u64) -> Option<u64> {
        self.last_revocation(index)
    }

    fn keyring_epoch(&self, index: u64) -> Epoch {
        self.keyring_epoch_at(index)
    }
}

/// Where a verified chain stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tip {
    /// Vault.
    pub vault: VaultId,
    /// Seq of the last commit.
    pub seq: Seq,
    /// Its hash.
    pub hash: Digest,
    /// Key epoch.
    pub epoch: Epoch,
    /// Device-log index that it named.
    pub device_log_index: u64,
    /// Index of the last vault-log entry.
    pub vault_log_index: u64,
    /// Its hash.
    pub vault_log_head: Digest,
    /// Device-log index that the last vault-log entry named: the epoch's key is younger than that.
    pub rotated_at: u64,
    /// Checksum of the state after it.
    pub state: Digest,
}

impl Tip {
    /// Whether a device revoked by now (at device-log entry `index`) still knows the epoch's key.
    pub fn needs_rotation(&self, authors: &dyn Authors, index: u64) -> bool {
        authors.last_revocation(index).is_some_and(|revoked| revoked > self.rotated_at)
    }
}

/// A commit that was verified as the next of its chain, apart from its changes.
#[derive(Debug, Clone)]
pub struct VerifiedCommit {
    commit: Commit,
    hash: Digest,
    rotated_at: u64,
}

impl VerifiedCommit {
    /// The header.
    pub fn commit(&self) -> &Commit {
        &self.commit
    }

    /// Its hash.
    pub fn hash(&self) -> Digest {
        self.hash
    }

    /// The tip after this commit.
    pub fn tip(&self) -> Tip {
        Tip {
            vault: self.commit.vault,
            seq: self.commit.seq,
            hash: self.hash,
            epoch: self.commit.epoch,
            device_log_index: self.commit.device_log_index,
            vault_log_index: self.commit.vault_log_index,
            vault_log_head: self.commit.vault_log_head,
            rotated_at: self.rotated_at,
            state: self.commit.state,
        }
    }
}

/// Verifies a vault's birth: vault-log entry 0 and genesis, both by one enrolled device of `account`.
///
/// # Errors
/// [`ChainError`].
pub fn verify_birth(
    vault: VaultId,
    account: AccountId,
    identity: &PublicKey,
    authors: &dyn Authors,
    create: &Signed,
    genesis: &Signed,
) -> Result<VerifiedCommit, ChainError> {
    let entry = VaultLogEntry::decode(&create.bytes.0)?;
    let commit = Commit::decode(&genesis.bytes.0)?;
    let rule = rule_of(&commit);
    if entry.kind != KIND_CREATE
        || entry.vault != vault
        || entry.account != account
        || entry.identity.as_bytes() != &identity.to_bytes()
    {
        return rule("the vault's creation names another vault, account or identity");
    }
    let key = author(&commit, authors)?;
    if (entry.device, entry.device_log_index, entry.device_log_head)
        != (commit.device, commit.device_log_index, commit.device_log_head)
    {
        return rule("creation and genesis are not by the same device at the same place of its log");
    }
    create
        .verify(VaultLogEntry::NAME, label::VAULT_LOG_ENTRY, &key)
        .map_err(|error| signature(&commit, error))?;
    if commit.kind != KIND_GENESIS || commit.vault != vault {
        return rule("it is not the genesis of this vault");
    }
    if commit.previous != Digest::ZERO || commit.skip != Digest::ZERO || commit.epoch != entry.epoch {
        return rule("a genesis has nothing before it and epoch 1");
    }
    if commit.vault_log_index != 0 || commit.vault_log_head != VaultLogEntry::hash_of(&create.bytes.0) {
        return rule("it does not name the vault's creation");
    }
    if commit.changes != Changes::digest_of(&Changes::default().encode())
        || commit.state != StateDigest::default().checksum()
    {
        return rule("a genesis has no changes and the empty state");
    }
    genesis.verify(Commit::NAME, label::COMMIT, &key).map_err(|error| signature(&commit, error))?;
    let hash = Commit::hash_of(&genesis.bytes.0);
    let rotated_at = entry.device_log_index;
    Ok(VerifiedCommit { commit, hash, rotated_at })
}

/// Verifies that a commit follows `tip`, apart from its changes and their effect on the state.
/// `skip` is the hash of the commit at the skip target. Of a repair that goes back, `tip` has the place of the
/// chain's end and everything else of the commit that it goes back to.
///
/// # Errors
/// [`ChainError`]; the chain stays at `tip`.
pub fn verify_next(
    tip: &Tip,
    skip: Digest,
    authors: &dyn Authors,
    signed: &Signed,
) -> Result<VerifiedCommit, ChainError> {
    let commit = Commit::decode(&signed.bytes.0)?;
    let rule = rule_of(&commit);
    if commit.vault != tip.vault {
        return rule("it belongs to another vault");
    }
    if commit.seq != tip.seq.next() || commit.seq == tip.seq || commit.previous != tip.hash {
        return rule("it does not follow the commit before it");
    }
    if commit.skip != skip {
        return rule("its skip link is wrong");
    }
    if commit.kind == KIND_GENESIS {
        return rule("a genesis stands at seq 0");
    }
    let rotates = commit.kind == KIND_ROTATE;
    if if rotates { commit.epoch <= tip.epoch } else { commit.epoch != tip.epoch } {
        return rule("its key epoch is not the vault's, or not a later one in a rotation");
    }
    if rotates && Some(commit.vault_log_index) != tip.vault_log_index.checked_add(1)
        || !rotates
            && (commit.vault_log_index, commit.vault_log_head) != (tip.vault_log_index, tip.vault_log_head)
    {
        return rule("it does not name the vault log's last entry");
    }
    if commit.device_log_index < tip.device_log_index {
        return rule("it names an older device-log entry than the commit before it");
    }
    let key = author(&commit, authors)?;
    signed.verify(Commit::NAME, label::COMMIT, &key).map_err(|error| signature(&commit, error))?;
    if !authors.counts(commit.device, commit.vault, commit.seq) {
        return rule("its author was revoked before it");
    }
    if commit.kind == KIND_CHANGE && tip.needs_rotation(authors, commit.device_log_index) {
        return rule("a device was revoked and the vault has no new key epoch since");
    }
    if rotates && !tip.needs_rotation(authors, commit.device_log_index) {
        return rule("it begins a key epoch although no device was revoked since the last one began");
    }
    let hash = Commit::hash_of(&signed.bytes.0);
    let rotated_at = if rotates { commit.device_log_index } else { tip.rotated_at };
    Ok(VerifiedCommit { commit, hash, rotated_at })
}

/// Whose vault it is.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// Account.
    pub account: AccountId,
    /// Its identity.
    pub identity: &'a PublicKey,
}

/// Verifies that a commit's changes are what its kind allows: a rotation's entry, a repair's authority.
///
/// # Errors
/// [`ChainError`].
pub fn verify_kind(
    tip: &Tip,
    owner: Owner<'_>,
    authors: &dyn Authors,
    verified: &VerifiedCommit,
    changes: &Changes,
) -> Result<(), ChainError> {
    let commit = verified.commit();
    let rule = rule_of(commit);
    match (commit.kind, changes.rotation(), changes.repair()) {
        (KIND_CHANGE, None, None) => Ok(()),
        (KIND_ROTATE, Some(entry), None) => verify_rotation(tip, owner, authors, commit, entry),
        (KIND_REPAIR, None, Some((says, signature))) => {
            let place = RepairPlace {
                vault: commit.vault,
                seq: commit.seq,
                previous: commit.previous,
                device: commit.device,
            };
            let input = repair_input(owner.account, &place, says);
            if owner.identity.verify("repair", label::REPAIR, &input, signature).is_err() {
                return rule("the identity did not sign this repair");
            }
            if changes.goes_back_to().is_some_and(|seq| seq.next() >= commit.seq) {
                return rule("it goes back to no earlier commit");
            }
            Ok(())
        }
        _ => rule("its changes are not what its kind allows"),
    }
}

fn verify_rotation(
    tip: &Tip,
    owner: Owner<'_>,
    authors: &dyn Authors,
    commit: &Commit,
    signed: &Signed,
) -> Result<(), ChainError> {
    let entry = VaultLogEntry::decode(&signed.bytes.0)?;
    let rule = rule_of(commit);
    if commit.vault == keyring_vault_id(&owner.identity.to_bytes()) {
        if commit.epoch != authors.keyring_epoch(commit.device_log_index) {
            return rule("the keyring's epoch is one more than there are revocations");
        }
    } else if commit
        .epoch
        .value()
        .checked_sub(tip.epoch.value())
        .is_none_or(|step| step > limits::EPOCH_STEP_MAX)
    {
        return rule("its key epoch is too far beyond the vault's");
    }
    let place = (ENTRY_ROTATE, commit.vault, commit.vault_log_index, tip.vault_log_head, commit.epoch);
    if (entry.kind, entry.vault, entry.index, entry.previous, entry.epoch) != place
        || entry.account != owner.account
        || entry.identity.as_bytes() != &owner.identity.to_bytes()
        || commit.vault_log_head != VaultLogEntry::hash_of(&signed.bytes.0)
    {
        return rule("its vault-log entry does not follow the one before it");
    }
    if (entry.device, entry.device_log_index, entry.device_log_head)
        != (commit.device, commit.device_log_index, commit.device_log_head)
    {
        return rule("its vault-log entry is not by its author at the same place of the device log");
    }
    let key = author(commit, authors)?;
    signed.verify(VaultLogEntry::NAME, label::VAULT_LOG_ENTRY, &key).map_err(|error| signature(commit, error))
}

/// Decodes and verifies a commit's change list: digest, order, and pins not beyond the commit.
///
/// # Errors
/// [`ChainError`].
pub fn verify_changes(commit: &Commit, bytes: &[u8]) -> Result<Changes, ChainError> {
    if Changes::digest_of(bytes) != commit.changes {
        return rule_of(commit)("the change list is not the one that was signed");
    }
    let changes = Changes::decode(bytes)?;
    let beyond = changes.0.iter().any(|change| match change {
        Change::Pin(seq) | Change::Unpin(seq) => *seq > commit.seq,
        _ => false,
    });
    if changes.0.is_empty() || beyond {
        return Err(ChainError::Rule {
            seq: commit.seq,
            device: commit.device,
            rule: "the change list is empty or pins a commit of the future",
        });
    }
    Ok(changes)
}

fn author(commit: &Commit, authors: &dyn Authors) -> Result<PublicKey, ChainError> {
    let index = commit.device_log_index;
    let Some(hash) = authors.entry_hash(index) else {
        return Err(ChainError::UnknownLogEntry { seq: commit.seq, index });
    };
    let fault = |rule| ChainError::Rule { seq: commit.seq, device: commit.device, rule };
    if hash != commit.device_log_head {
        return Err(fault("it names another device log"));
    }
    authors
        .author_key(commit.device, index)
        .ok_or_else(|| fault("its author is not an enrolled device that may write"))
}

fn rule_of<T>(commit: &Commit) -> impl Fn(&'static str) -> Result<T, ChainError> + use<T> {
    let (seq, device) = (commit.seq, commit.device);
    move |rule| Err(ChainError::Rule { seq, device, rule })
}

fn signature(commit: &Commit, _error: SignatureError) -> ChainError {
    ChainError::Signature { seq: commit.seq, device: commit.device }
}

#[cfg(test)]
mod tests;
