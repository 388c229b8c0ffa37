//! Tests of commits and change lists.

use super::*;
use crate::cbor::ByteArray;

fn put(byte: u8, blobs: Vec<BlobId>) -> Change {
    Change::Put {
        record: RecordId::from_bytes([byte; 16]),
        revision: Revision::new(1),
        envelope: Digest::from_bytes([byte; 32]),
        blobs,
    }
}

#[test]
fn change_lists_round_trip() {
    let tombstone = Change::Tombstone {
        record: RecordId::from_bytes([9; 16]),
        revision: Revision::new(2),
        envelope: Digest::ZERO,
    };
    let list = Changes(vec![
        put(1, vec![BlobId::from_bytes([1; 16]), BlobId::from_bytes([2; 16])]),
        tombstone,
        Change::Pin(Seq::new(3)),
        Change::Unpin(Seq::new(4)),
    ]);
    assert_eq!(Changes::decode(&list.encode()).unwrap(), list);
}

#[test]
fn order_and_reserved_changes_are_refused() {
    let blob = BlobId::from_bytes([1; 16]);
    for list in [
        vec![put(2, vec![]), put(1, vec![])],
        vec![put(1, vec![]), put(1, vec![])],
        vec![Change::Pin(Seq::new(1)), put(1, vec![])],
        vec![Change::Pin(Seq::new(1)), Change::Unpin(Seq::new(1))],
        vec![put(1, vec![blob, blob])],
    ] {
        assert!(Changes::decode(&Changes(list).encode()).is_err());
    }
    assert!(Changes::decode(&crate::cbor::encode(&[(3_u8, RecordId::ZERO)])).is_err(), "purge");
    assert!(Changes::decode(&crate::cbor::encode(&[(4_u8, 1_u64, 1_u64)])).is_err(), "one element too many");
}

fn decoded(list: Vec<Change>) -> Result<Changes, String> {
    Changes::decode(&Changes(list).encode()).map_err(|error| error.to_string())
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, String>, rule: &str) {
    let error = result.unwrap_err();
    assert!(error.contains(rule), "{error}");
}

fn rotation() -> Change {
    Change::Rotate(Box::new(Signed { bytes: vec![1].into(), signature: ByteArray([0; 64]) }))
}

fn authority() -> Change {
    Change::Authority(ByteArray([5; 64]))
}

fn abandon(seq: u64, hash: u8) -> Change {
    Change::Abandon(Seq::new(seq), Digest::from_bytes([hash; 32]))
}

#[test]
fn a_list_has_no_more_changes_and_blobs_than_the_limit() {
    let pins = |count: u64| (0..count).map(|seq| Change::Pin(Seq::new(seq))).collect::<Vec<_>>();
    decoded(pins(4096)).unwrap();
    refused(decoded(pins(4097)), "more than 4,096 changes");
    refused(decoded(pins(5000)), "more than 4,096 changes");
    let blobs = |count: u16| {
        let blob = |number: u16| {
            let mut bytes = [0; 16];
            bytes[..2].copy_from_slice(&number.to_be_bytes());
            BlobId::from_bytes(bytes)
        };
        vec![put(1, (0..count).map(blob).collect())]
    };
    decoded(blobs(1024)).unwrap();
    refused(decoded(blobs(1025)), "more than 1,024 blobs");
    refused(decoded(blobs(1500)), "more than 1,024 blobs");
}

#[test]
fn revisions_begin_at_one() {
    let zero = Change::Tombstone {
        record: RecordId::from_bytes([1; 16]),
        revision: Revision::new(0),
        envelope: Digest::ZERO,
    };
    refused(decoded(vec![zero]), "revisions begin at 1");
}

#[test]
fn rotations_and_repairs_stand_alone() {
    let list = decoded(vec![rotation()]).unwrap();
    assert_eq!(list, Changes(vec![rotation()]));
    assert!(list.rotation().is_some() && list.repair().is_none() && !list.is_plain());
    refused(decoded(vec![rotation(), put(1, vec![])]), "a rotation stands alone");
    refused(decoded(vec![rotation(), rotation()]), "a rotation stands alone");
    for stray in [rotation(), authority(), abandon(1, 1), Change::GoBack(Seq::new(1))] {
        let pin = Change::Pin(Seq::new(1));
        refused(decoded(vec![put(1, vec![]), stray, pin]), "do not mix with other changes");
    }
    let plain = decoded(vec![put(1, vec![]), Change::Pin(Seq::new(1))]).unwrap();
    assert!(plain.is_plain() && plain.rotation().is_none() && plain.repair().is_none());
    assert_eq!((plain.goes_back_to(), plain.abandoned().count()), (None, 0));
}

#[test]
fn a_repair_goes_back_at_most_once_then_abandons_ascending() {
    let back = || Change::GoBack(Seq::new(3));
    for says in [
        vec![back()],
        vec![abandon(4, 1)],
        vec![back(), abandon(4, 1), abandon(4, 2), abandon(5, 1)],
        vec![abandon(4, 2), abandon(5, 1)],
    ] {
        let list = [says.clone(), vec![authority()]].concat();
        let repair = decoded(list.clone()).unwrap();
        assert_eq!(repair, Changes(list));
        assert_eq!(repair.repair(), Some((&says[..], &ByteArray([5; 64]))));
        assert!(!repair.is_plain() && repair.rotation().is_none());
        let goes_back = matches!(says[0], Change::GoBack(_)).then(|| Seq::new(3));
        assert_eq!(repair.goes_back_to(), goes_back);
        let abandoned: Vec<_> = repair.abandoned().map(|(seq, hash)| Change::Abandon(seq, hash)).collect();
        assert_eq!(abandoned, says[usize::from(goes_back.is_some())..]);
    }
    for says in [
        vec![back(), back()],
        vec![abandon(4, 1), back()],
        vec![abandon(4, 1), abandon(4, 1)],
        vec![abandon(4, 2), abandon(4, 1)],
        vec![abandon(5, 1), abandon(4, 1)],
        vec![back(), put(1, vec![])],
        vec![Change::Pin(Seq::new(1))],
        vec![authority()],
    ] {
        refused(decoded([says, vec![authority()]].concat()), "goes back at most once");
    }
    refused(decoded(vec![authority()]), "a repair says something");
}

#[test]
fn the_identity_signs_place_author_and_all_that_a_repair_says() {
    let place = RepairPlace {
        vault: VaultId::from_bytes([1; 16]),
        seq: Seq::new(7),
        previous: Digest::from_bytes([2; 32]),
        device: DeviceId::from_bytes([3; 16]),
    };
    let account = AccountId::from_bytes([4; 16]);
    let says = [Change::GoBack(Seq::new(3)), abandon(4, 1)];
    let mut inputs = std::collections::BTreeSet::new();
    for input in [
        repair_input(account, &place, &says),
        repair_input(AccountId::ZERO, &place, &says),
        repair_input(account, &RepairPlace { vault: VaultId::ZERO, ..place }, &says),
        repair_input(account, &RepairPlace { seq: Seq::new(8), ..place }, &says),
        repair_input(account, &RepairPlace { previous: Digest::ZERO, ..place }, &says),
        repair_input(account, &RepairPlace { device: DeviceId::ZERO, ..place }, &says),
        repair_input(account, &place, &says[..1]),
        repair_input(account, &place, &says[1..]),
    ] {
        assert!(inputs.insert(input));
    }
}

#[test]
fn versions_and_blobs_are_those_of_puts_and_tombstones() {
    let blob = BlobId::from_bytes([1; 16]);
    let change = put(3, vec![blob]);
    let version = (RecordId::from_bytes([3; 16]), Revision::new(1), Digest::from_bytes([3; 32]));
    assert_eq!((change.version(), change.blobs()), (Some(version), &[blob][..]));
    let (record, revision, envelope) = version;
    let tombstone = Change::Tombstone { record, revision, envelope };
    assert_eq!((tombstone.version(), tombstone.blobs()), (Some(version), &[][..]));
    assert_eq!((rotation().version(), rotation().blobs()), (None, &[][..]));
}

#[test]
fn a_commit_is_of_a_known_kind_and_only_the_genesis_is_at_zero() {
    let commit = |kind, seq| Commit {
        version: crate::version::VERSION,
        suite: crate::version::SUITE,
        vault: VaultId::ZERO,
        seq: Seq::new(seq),
        previous: Digest::ZERO,
        skip: Digest::ZERO,
        kind,
        epoch: Epoch::new(1),
        device: DeviceId::ZERO,
        device_log_index: 0,
        device_log_head: Digest::ZERO,
        vault_log_index: 0,
        vault_log_head: Digest::ZERO,
        utc: 0,
        changes: Digest::ZERO,
        state: Digest::ZERO,
    };
    let judge = |commit: Commit| Commit::decode(&commit.encode()).map_err(|error| error.to_string());
    for (kind, seq) in [(KIND_GENESIS, 0), (KIND_CHANGE, 1), (KIND_ROTATE, 1), (KIND_REPAIR, 9)] {
        assert_eq!(judge(commit(kind, seq)), Ok(commit(kind, seq)));
    }
    refused(judge(commit(KIND_GENESIS, 1)), "a genesis stands at seq 0");
    for kind in [KIND_CHANGE, KIND_ROTATE, KIND_REPAIR] {
        refused(judge(commit(kind, 0)), "seq 0 is a genesis");
    }
    for seq in [0, 1] {
        refused(judge(commit(KIND_PURGE, seq)), "purge commits are not part of this draft");
        refused(judge(commit(0, seq)), "the kind is unknown");
        refused(judge(commit(6, seq)), "the kind is unknown");
    }
    refused(judge(Commit { suite: 2, ..commit(KIND_CHANGE, 1) }), "not suite 1");
}
