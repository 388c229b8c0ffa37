//! Tests of a vault's birth.

use super::*;

const LOG: Log = Log { pin: Some(9) };

fn creation() -> VaultLogEntry {
    VaultLogEntry {
        version: VERSION,
        suite: SUITE,
        vault: VAULT,
        index: 0,
        previous: Digest::ZERO,
        kind: KIND_CREATE,
        account: ACCOUNT,
        identity: Digest::from_bytes(public(STAYS).to_bytes()),
        epoch: Epoch::new(1),
        device: LEAVES,
        device_log_index: 1,
        device_log_head: entry_at(1),
    }
}

fn genesis(create: &Signed) -> Commit {
    Commit {
        seq: Seq::new(0),
        previous: Digest::ZERO,
        kind: KIND_GENESIS,
        epoch: Epoch::new(1),
        vault_log_index: 0,
        vault_log_head: VaultLogEntry::hash_of(&create.bytes.0),
        changes: Changes::digest_of(&Changes::default().encode()),
        ..commit(LEAVES, 1)
    }
}

fn judge(create: &Signed, genesis: &Signed) -> Result<VerifiedCommit, String> {
    verify_birth(VAULT, ACCOUNT, &public(STAYS), &LOG, create, genesis).map_err(|error| error.to_string())
}

/// A birth whose parts differ from the right ones.
fn born(entry: impl Fn(&mut VaultLogEntry), commit: impl Fn(&mut Commit)) -> Result<VerifiedCommit, String> {
    let mut create = creation();
    entry(&mut create);
    let create = sign(label::VAULT_LOG_ENTRY, LEAVES, create.encode());
    let mut genesis = genesis(&create);
    commit(&mut genesis);
    judge(&create, &sign(label::COMMIT, LEAVES, genesis.encode()))
}

#[test]
fn a_birth_gives_the_first_tip() {
    let create = sign(label::VAULT_LOG_ENTRY, LEAVES, creation().encode());
    let commit = genesis(&create);
    let born = judge(&create, &sign(label::COMMIT, LEAVES, commit.encode())).unwrap();
    assert_eq!((born.commit(), born.hash()), (&commit, Commit::hash_of(&commit.encode())));
    let tip = Tip {
        vault: VAULT,
        seq: Seq::new(0),
        hash: born.hash(),
        epoch: Epoch::new(1),
        device_log_index: 1,
        vault_log_index: 0,
        vault_log_head: commit.vault_log_head,
        rotated_at: 1,
        state: StateDigest::default().checksum(),
    };
    assert_eq!(born.tip(), tip);
}

#[test]
fn a_creation_is_of_this_vault_account_and_identity() {
    let spoilt: [fn(&mut VaultLogEntry); 4] = [
        |entry| (entry.kind, entry.index) = (ENTRY_ROTATE, 1),
        |entry| entry.vault = VaultId::from_bytes([9; 16]),
        |entry| entry.account = AccountId::from_bytes([9; 16]),
        |entry| entry.identity = Digest::from_bytes(public(LEAVES).to_bytes()),
    ];
    for spoil in spoilt {
        refused(born(spoil, |_| {}), "another vault, account or identity");
    }
}

#[test]
fn creation_and_genesis_are_by_one_device_at_one_place_of_its_log() {
    let spoilt: [fn(&mut VaultLogEntry); 3] = [
        |entry| entry.device = STAYS,
        |entry| entry.device_log_index = 0,
        |entry| entry.device_log_head = entry_at(0),
    ];
    for spoil in spoilt {
        refused(born(spoil, |_| {}), "not by the same device at the same place");
    }
    let other = |commit: &mut Commit| commit.device_log_head = entry_at(0);
    refused(born(|_| {}, other), "it names another device log");
    let unknown = |commit: &mut Commit| commit.device_log_index = 4;
    refused(born(|_| {}, unknown), "which is not known here");
    let late = |commit: &mut Commit| (commit.device_log_index, commit.device_log_head) = (2, entry_at(2));
    refused(born(|_| {}, late), "not an enrolled device that may write");
    let create = sign(label::VAULT_LOG_ENTRY, STAYS, creation().encode());
    let commit = genesis(&create).encode();
    refused(judge(&create, &sign(label::COMMIT, LEAVES, commit)), "the signature does not verify");
    let create = sign(label::VAULT_LOG_ENTRY, LEAVES, creation().encode());
    let commit = genesis(&create).encode();
    refused(judge(&create, &sign(label::COMMIT, STAYS, commit)), "the signature does not verify");
}

#[test]
fn a_genesis_is_empty_and_has_nothing_before_it() {
    let spoilt: [Spoilt<Commit>; 9] = [
        ("not the genesis of this vault", |commit| (commit.kind, commit.seq) = (KIND_CHANGE, Seq::new(1))),
        ("not the genesis of this vault", |commit| commit.vault = VaultId::from_bytes([9; 16])),
        ("nothing before it and epoch 1", |commit| commit.previous = Digest::from_bytes([1; 32])),
        ("nothing before it and epoch 1", |commit| commit.skip = Digest::from_bytes([1; 32])),
        ("nothing before it and epoch 1", |commit| commit.epoch = Epoch::new(2)),
        ("it does not name the vault's creation", |commit| commit.vault_log_index = 1),
        ("it does not name the vault's creation", |commit| commit.vault_log_head = Digest::ZERO),
        ("no changes and the empty state", |commit| commit.changes = Digest::ZERO),
        ("no changes and the empty state", |commit| commit.state = Digest::ZERO),
    ];
    for (rule, spoil) in spoilt {
        refused(born(|_| {}, spoil), rule);
    }
}
