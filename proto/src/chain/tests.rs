//! Tests of the chain's rules: here those about revocations and key epochs.

mod birth;
mod links;

use super::*;
use crate::cbor::ByteArray;
use crate::sign::signing_input;
use crate::version::{SUITE, VERSION};
use ed25519_dalek::{Signer as _, SigningKey};

const VAULT: VaultId = VaultId::from_bytes([5; 16]);
const ACCOUNT: AccountId = AccountId::from_bytes([6; 16]);
const STAYS: DeviceId = DeviceId::from_bytes([1; 16]);
const LEAVES: DeviceId = DeviceId::from_bytes([2; 16]);

fn key(device: DeviceId) -> SigningKey {
    SigningKey::from_bytes(&[device.as_bytes()[0]; 32])
}

fn public(device: DeviceId) -> PublicKey {
    PublicKey::from_bytes(&key(device).verifying_key().to_bytes()).unwrap()
}

fn entry_at(index: u64) -> Digest {
    Digest::of(label::DEVICE_LOG_ENTRY, &index.to_be_bytes())
}

/// A device log of four entries; entry 2 revokes a device, with a pin or with none.
struct Log {
    pin: Option<u64>,
}

impl Authors for Log {
    fn entry_hash(&self, index: u64) -> Option<Digest> {
        (index < 4).then(|| entry_at(index))
    }

    fn author_key(&self, device: DeviceId, index: u64) -> Option<PublicKey> {
        (device == STAYS || (device == LEAVES && index < 2)).then(|| public(device))
    }

    fn counts(&self, device: DeviceId, _vault: VaultId, seq: Seq) -> bool {
        device != LEAVES || self.pin.is_some_and(|pin| seq.value() <= pin)
    }

    fn last_revocation(&self, index: u64) -> Option<u64> {
        (index >= 2).then_some(2)
    }

    fn keyring_epoch(&self, index: u64) -> Epoch {
        Epoch::new(1 + u64::from(index >= 2))
    }
}

fn tip(rotated_at: u64) -> Tip {
    Tip {
        vault: VAULT,
        seq: Seq::new(6),
        hash: Digest::from_bytes([7; 32]),
        epoch: Epoch::new(3),
        device_log_index: 1,
        vault_log_index: 2,
        vault_log_head: Digest::from_bytes([8; 32]),
        rotated_at,
        state: StateDigest::default().checksum(),
    }
}

fn commit(device: DeviceId, index: u64) -> Commit {
    let tip = tip(0);
    Commit {
        version: VERSION,
        suite: SUITE,
        vault: VAULT,
        seq: tip.seq.next(),
        previous: tip.hash,
        skip: Digest::ZERO,
        kind: KIND_CHANGE,
        epoch: tip.epoch,
        device,
        device_log_index: index,
        device_log_head: entry_at(index),
        vault_log_index: tip.vault_log_index,
        vault_log_head: tip.vault_log_head,
        utc: 1,
        changes: Digest::ZERO,
        state: tip.state,
    }
}

fn sign(label: crate::label::Label, device: DeviceId, bytes: Vec<u8>) -> Signed {
    let signature = ByteArray(key(device).sign(&signing_input(label, &bytes)).to_bytes());
    Signed { bytes: bytes.into(), signature }
}

fn judge(tip: &Tip, log: &Log, commit: &Commit) -> Result<VerifiedCommit, String> {
    let signed = sign(label::COMMIT, commit.device, commit.encode());
    verify_next(tip, Digest::ZERO, log, &signed).map_err(|error| error.to_string())
}

/// A rule, and a way to break it.
type Spoilt<T> = (&'static str, fn(&mut T));

#[track_caller]
fn refused<T>(result: Result<T, String>, rule: &str) {
    let error = result.err().expect("it is refused");
    assert!(error.contains(rule), "{error}");
}

#[test]
fn after_a_revocation_only_a_new_epoch_takes_changes() {
    let log = Log { pin: Some(6) };
    judge(&tip(0), &log, &commit(STAYS, 1)).expect("who does not know of it yet");
    for index in [2, 3] {
        refused(judge(&tip(0), &log, &commit(STAYS, index)), "no new key epoch since");
        refused(judge(&tip(1), &log, &commit(STAYS, index)), "no new key epoch since");
        assert!(tip(1).needs_rotation(&log, index));
        judge(&tip(2), &log, &commit(STAYS, index)).expect("rotated at the revocation");
        judge(&tip(3), &log, &commit(STAYS, index)).expect("rotated after it");
    }
    assert!(!tip(0).needs_rotation(&log, 1) && !tip(2).needs_rotation(&log, 3));
}

#[test]
fn what_a_revoked_device_wrote_counts_up_to_its_pin() {
    let seq = tip(0).seq.next().value();
    judge(&tip(0), &Log { pin: Some(seq) }, &commit(LEAVES, 1)).expect("at the pin");
    judge(&tip(0), &Log { pin: Some(seq + 1) }, &commit(LEAVES, 1)).expect("before the pin");
    for pin in [Some(seq - 1), Some(0), None] {
        refused(judge(&tip(0), &Log { pin }, &commit(LEAVES, 1)), "revoked before it");
    }
    // Naming the revocation itself makes nobody live again.
    for index in [2, 3] {
        let log = Log { pin: Some(seq) };
        refused(judge(&tip(2), &log, &commit(LEAVES, index)), "not an enrolled device");
    }
}

/// A rotation and the vault-log entry in it.
fn rotation(device: DeviceId, index: u64, epoch: u64) -> (Commit, VaultLogEntry) {
    let mut commit = commit(device, index);
    let entry = VaultLogEntry {
        version: VERSION,
        suite: SUITE,
        vault: VAULT,
        index: commit.vault_log_index + 1,
        previous: commit.vault_log_head,
        kind: ENTRY_ROTATE,
        account: ACCOUNT,
        identity: Digest::from_bytes(public(STAYS).to_bytes()),
        epoch: Epoch::new(epoch),
        device,
        device_log_index: index,
        device_log_head: entry_at(index),
    };
    (commit.kind, commit.epoch) = (KIND_ROTATE, entry.epoch);
    commit.vault_log_index = entry.index;
    (commit, entry)
}

fn judge_rotation(log: &Log, mut commit: Commit, entry: &VaultLogEntry) -> Result<Tip, String> {
    let signed = sign(label::VAULT_LOG_ENTRY, commit.device, entry.encode());
    commit.vault_log_head = VaultLogEntry::hash_of(&signed.bytes.0);
    let changes = Changes(vec![Change::Rotate(Box::new(signed))]);
    let verified = judge(&tip(0), log, &commit)?;
    let identity = public(STAYS);
    let owner = Owner { account: ACCOUNT, identity: &identity };
    verify_kind(&tip(0), owner, log, &verified, &changes).map_err(|error| error.to_string())?;
    Ok(verified.tip())
}

#[test]
fn a_rotation_begins_a_later_epoch() {
    let log = Log { pin: Some(0) };
    for epoch in [4, 5, 900] {
        let (commit, entry) = rotation(STAYS, 3, epoch);
        let after = judge_rotation(&log, commit, &entry).unwrap();
        assert_eq!((after.epoch, after.rotated_at, after.vault_log_index), (Epoch::new(epoch), 3, 3));
        assert!(!after.needs_rotation(&log, 3));
    }
    for epoch in [0, 1, 3] {
        let (commit, entry) = rotation(STAYS, 3, epoch);
        refused(judge_rotation(&log, commit, &entry), "not a later one in a rotation");
    }
    let (commit, entry) = rotation(LEAVES, 3, 4);
    refused(judge_rotation(&log, commit, &entry), "not an enrolled device");
}

#[test]
fn without_a_revocation_no_epoch_begins() {
    let log = Log { pin: Some(0) };
    // It does not know of the revocation; another one was for it.
    let (commit, entry) = rotation(STAYS, 1, 4);
    refused(judge_rotation(&log, commit, &entry), "although no device was revoked");
    let (commit, _) = rotation(STAYS, 3, 4);
    for rotated_at in [2, 3] {
        refused(judge(&tip(rotated_at), &log, &commit), "although no device was revoked");
    }
}

#[test]
fn an_epoch_is_not_far_beyond_the_last_one() {
    let log = Log { pin: Some(0) };
    let now = tip(0).epoch.value();
    let (commit, entry) = rotation(STAYS, 3, now + limits::EPOCH_STEP_MAX);
    judge_rotation(&log, commit, &entry).expect("as far as it goes");
    for epoch in [now + limits::EPOCH_STEP_MAX + 1, u64::MAX] {
        let (commit, entry) = rotation(STAYS, 3, epoch);
        refused(judge_rotation(&log, commit, &entry), "too far beyond");
    }
}

#[test]
fn the_keyring_has_the_epoch_of_the_log_that_its_rotation_names() {
    let log = Log { pin: Some(0) };
    let identity = public(STAYS);
    let vault = keyring_vault_id(&identity.to_bytes());
    let before = Tip { vault, epoch: Epoch::new(1), ..tip(0) };
    for epoch in 2..5 {
        let (mut commit, mut entry) = rotation(STAYS, 3, epoch);
        (commit.vault, entry.vault) = (vault, vault);
        let signed = sign(label::VAULT_LOG_ENTRY, commit.device, entry.encode());
        commit.vault_log_head = VaultLogEntry::hash_of(&signed.bytes.0);
        let changes = Changes(vec![Change::Rotate(Box::new(signed))]);
        let verified = judge(&before, &log, &commit).unwrap();
        let owner = Owner { account: ACCOUNT, identity: &identity };
        let judged =
            verify_kind(&before, owner, &log, &verified, &changes).map_err(|error| error.to_string());
        match epoch {
            2 => judged.expect("one revocation"),
            _ => refused(judged, "one more than there are revocations"),
        }
    }
}

#[test]
fn a_rotation_says_the_same_as_its_entry() {
    let log = Log { pin: Some(0) };
    let spoilt: [fn(&mut VaultLogEntry); 9] = [
        |entry| entry.epoch = Epoch::new(5),
        |entry| entry.index += 1,
        |entry| entry.previous = Digest::ZERO,
        |entry| entry.vault = VaultId::from_bytes([9; 16]),
        |entry| entry.account = AccountId::from_bytes([9; 16]),
        |entry| entry.identity = Digest::ZERO,
        |entry| entry.device = LEAVES,
        |entry| entry.device_log_index = 1,
        |entry| entry.device_log_head = Digest::ZERO,
    ];
    for spoil in spoilt {
        let (commit, mut entry) = rotation(STAYS, 3, 4);
        spoil(&mut entry);
        refused(judge_rotation(&log, commit, &entry), "vault-log entry");
    }
    let (mut commit, _) = rotation(STAYS, 3, 4);
    commit.vault_log_index = tip(0).vault_log_index;
    refused(judge(&tip(0), &log, &commit), "the vault log's last entry");
    // A change that carries a rotation's epoch, and a rotation without an entry.
    let mut change = super::tests::commit(STAYS, 1);
    change.epoch = Epoch::new(4);
    refused(judge(&tip(0), &log, &change), "its key epoch is not the vault's");
    let (commit, _) = rotation(STAYS, 3, 4);
    let verified = judge(&tip(0), &log, &commit).unwrap();
    let identity = public(STAYS);
    let owner = Owner { account: ACCOUNT, identity: &identity };
    let plain = Changes(vec![Change::Pin(Seq::new(1))]);
    let result = verify_kind(&tip(0), owner, &log, &verified, &plain);
    refused(result.map_err(|error| error.to_string()), "not what its kind allows");
}
