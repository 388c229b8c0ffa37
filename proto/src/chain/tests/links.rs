//! Tests of how a commit hangs on the one before it, and of what it carries.

use super::*;

#[test]
fn a_commit_follows_the_one_before_it() {
    let log = Log { pin: Some(9) };
    judge(&tip(0), &log, &commit(STAYS, 1)).unwrap();
    let spoilt: [Spoilt<Commit>; 10] = [
        ("it belongs to another vault", |commit| commit.vault = VaultId::from_bytes([9; 16])),
        ("does not follow the commit before it", |commit| commit.seq = Seq::new(6)),
        ("does not follow the commit before it", |commit| commit.seq = Seq::new(8)),
        ("does not follow the commit before it", |commit| commit.previous = Digest::ZERO),
        ("its skip link is wrong", |commit| commit.skip = Digest::from_bytes([1; 32])),
        ("its key epoch is not the vault's", |commit| commit.epoch = Epoch::new(2)),
        ("its key epoch is not the vault's", |commit| commit.epoch = Epoch::new(4)),
        ("the vault log's last entry", |commit| commit.vault_log_index = 3),
        ("the vault log's last entry", |commit| commit.vault_log_head = Digest::ZERO),
        ("an older device-log entry", |commit| {
            (commit.device_log_index, commit.device_log_head) = (0, entry_at(0));
        }),
    ];
    for (rule, spoil) in spoilt {
        let mut next = commit(STAYS, 1);
        spoil(&mut next);
        refused(judge(&tip(0), &log, &next), rule);
    }
    let signed = sign(label::COMMIT, LEAVES, commit(STAYS, 1).encode());
    let judged = verify_next(&tip(0), Digest::ZERO, &log, &signed).map_err(|error| error.to_string());
    refused(judged, "the signature does not verify");
}

#[test]
fn nothing_follows_the_last_seq_that_there_is() {
    let last = Tip { seq: Seq::new(u64::MAX), ..tip(0) };
    let next = Commit { seq: Seq::new(u64::MAX), ..commit(STAYS, 1) };
    refused(judge(&last, &Log { pin: Some(9) }, &next), "does not follow the commit before it");
}

fn kind(kind: u8, changes: &Changes) -> Result<(), String> {
    let (log, identity) = (Log { pin: Some(9) }, public(STAYS));
    let next = Commit { kind, ..commit(LEAVES, 1) };
    let verified = judge(&tip(0), &log, &next)?;
    let owner = Owner { account: ACCOUNT, identity: &identity };
    verify_kind(&tip(0), owner, &log, &verified, changes).map_err(|error| error.to_string())
}

/// A repair of the commit that follows [`tip`], signed for an account by a key.
fn repair(account: AccountId, signer: DeviceId, says: Vec<Change>) -> Changes {
    let next = commit(LEAVES, 1);
    let place =
        RepairPlace { vault: next.vault, seq: next.seq, previous: next.previous, device: next.device };
    let signed = sign(label::REPAIR, signer, repair_input(account, &place, &says));
    Changes([says, vec![Change::Authority(signed.signature)]].concat())
}

#[test]
fn changes_are_what_the_kind_of_a_commit_allows() {
    let pin = Changes(vec![Change::Pin(Seq::new(1))]);
    kind(KIND_CHANGE, &pin).unwrap();
    let repair = repair(ACCOUNT, STAYS, vec![Change::GoBack(Seq::new(5))]);
    kind(KIND_REPAIR, &repair).unwrap();
    refused(kind(KIND_REPAIR, &pin), "not what its kind allows");
    refused(kind(KIND_CHANGE, &repair), "not what its kind allows");
    let entry = sign(label::VAULT_LOG_ENTRY, STAYS, vec![1]);
    refused(kind(KIND_CHANGE, &Changes(vec![Change::Rotate(Box::new(entry))])), "not what its kind allows");
    let identity = public(STAYS);
    let owner = Owner { account: ACCOUNT, identity: &identity };
    let judged = verify_authority(owner, &commit(LEAVES, 1), &pin).map_err(|error| error.to_string());
    refused(judged, "not what its kind allows");
}

#[test]
fn a_repair_goes_back_to_an_earlier_commit_with_the_identitys_word() {
    let says = |seq| vec![Change::GoBack(Seq::new(seq))];
    let other = AccountId::from_bytes([9; 16]);
    refused(kind(KIND_REPAIR, &repair(ACCOUNT, LEAVES, says(5))), "did not sign this repair");
    refused(kind(KIND_REPAIR, &repair(other, STAYS, says(5))), "did not sign this repair");
    for seq in [0, 4, 5] {
        kind(KIND_REPAIR, &repair(ACCOUNT, STAYS, says(seq))).unwrap();
    }
    for seq in [6, 7, 8, u64::MAX] {
        refused(kind(KIND_REPAIR, &repair(ACCOUNT, STAYS, says(seq))), "goes back to no earlier commit");
    }
    let abandons = vec![Change::Abandon(Seq::new(9), Digest::ZERO)];
    kind(KIND_REPAIR, &repair(ACCOUNT, STAYS, abandons)).unwrap();
}

#[test]
fn a_change_list_is_the_one_that_was_signed_and_pins_no_future() {
    let judge = |list: Vec<Change>| {
        let bytes = Changes(list.clone()).encode();
        let next = Commit { changes: Changes::digest_of(&bytes), ..commit(STAYS, 1) };
        let read = verify_changes(&next, &bytes).map_err(|error| error.to_string())?;
        assert_eq!(read.0, list);
        Ok(())
    };
    let place = commit(STAYS, 1).seq.value();
    for seq in [0, place - 1, place] {
        judge(vec![Change::Pin(Seq::new(seq))]).unwrap();
        judge(vec![Change::Unpin(Seq::new(seq))]).unwrap();
    }
    let rule = "is empty or pins a commit of the future";
    for seq in [place + 1, u64::MAX] {
        refused(judge(vec![Change::Pin(Seq::new(seq))]), rule);
        refused(judge(vec![Change::Unpin(Seq::new(seq))]), rule);
        refused(judge(vec![Change::Pin(Seq::new(0)), Change::Unpin(Seq::new(seq))]), rule);
    }
    refused(judge(vec![]), rule);
    let other = Changes(vec![Change::Pin(Seq::new(1))]).encode();
    let judged = verify_changes(&commit(STAYS, 1), &other).map_err(|error| error.to_string());
    refused(judged, "not the one that was signed");
}
