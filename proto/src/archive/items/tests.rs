//! Tests of the order and the counts of items.

use super::*;
use crate::archive::prefix;

fn signed() -> Signed {
    Signed { bytes: vec![1].into(), signature: crate::cbor::ByteArray([0; 64]) }
}

#[test]
fn items_have_the_numbers_of_the_specification_and_a_big_endian_length() {
    for (number, kind) in (1_u8..).zip(ItemKind::ALL) {
        let head = ItemHead { kind, bytes: 0x0102 };
        assert_eq!(head.to_bytes(), [number, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(ItemKind::parse(number), Some(kind));
    }
    assert_eq!((ItemKind::parse(0), ItemKind::parse(12)), (None, None));
}

#[test]
fn each_item_follows_what_it_may_and_nothing_else() {
    use ItemKind::{
        BareKeys, Commit, Device, End, Header, KeyHeader, MissingObject, MissingVersion, Object, Vault,
        Version,
    };
    let inside = [Commit, Version, MissingVersion, Object, MissingObject];
    let after: [(ItemKind, &[ItemKind]); 11] = [
        (Header, &[]),
        (KeyHeader, &[Header]),
        (BareKeys, &[Header]),
        (Device, &[KeyHeader, BareKeys, Device]),
        (Vault, &[Device, Commit, Version, MissingVersion, Object, MissingObject]),
        (Commit, &[Vault, Commit]),
        (Version, &inside[..2]),
        (MissingVersion, &inside[..3]),
        (Object, &inside[..4]),
        (MissingObject, &inside),
        (End, &inside),
    ];
    for (kind, may) in after {
        for last in ItemKind::ALL {
            assert_eq!(kind.may_follow(Some(last)), may.contains(&last), "{kind:?} after {last:?}");
        }
        assert_eq!(kind.may_follow(None), kind == Header, "{kind:?} first");
    }
}

/// Items that stand at a place.
fn at(last: ItemKind) -> Items {
    let mut items = Items::begin(&prefix()).unwrap();
    items.last = Some(last);
    items
}

fn head(kind: ItemKind, bytes: u64) -> [u8; ITEM_HEAD_BYTES] {
    ItemHead { kind, bytes }.to_bytes()
}

#[test]
fn an_object_ends_before_the_next_item_begins() {
    let mut items = at(ItemKind::Commit);
    let object = items.head(&head(ItemKind::Object, 20)).unwrap();
    items.object(object, BlobId::ZERO).unwrap();
    assert!(items.head(&head(ItemKind::Object, 20)).is_err(), "four bytes are still to come");
    items.object_bytes(&[0; 3]).unwrap();
    assert!(items.head(&head(ItemKind::End, 20)).is_err(), "one byte is still to come");
    assert!(items.clone().object_bytes(&[0; 2]).is_err());
    items.object_bytes(&[0; 1]).unwrap();
    assert!(items.head(&head(ItemKind::Commit, 20)).is_err(), "it does not belong here");
    items.head(&head(ItemKind::End, 20)).unwrap();
}

#[test]
fn an_empty_object_is_its_id() {
    let mut items = at(ItemKind::Commit);
    assert!(items.head(&head(ItemKind::Object, 15)).is_err());
    let object = items.head(&head(ItemKind::Object, 16)).unwrap();
    items.object(object, BlobId::ZERO).unwrap();
    items.head(&head(ItemKind::MissingObject, 16)).unwrap();
}

#[test]
fn a_body_is_as_long_as_its_head_says_and_in_its_order() {
    let body = signed().encode();
    let bytes = body.len() as u64;
    let take = |last, head, body: &[u8]| at(last).take(head, body).is_ok();
    let device = |bytes| ItemHead { kind: ItemKind::Device, bytes };
    assert!(take(ItemKind::Device, device(bytes), &body));
    assert!(
        !take(ItemKind::Device, device(bytes + 1), &body)
            && !take(ItemKind::Device, device(bytes - 1), &body)
    );
    assert!(!take(ItemKind::Commit, device(bytes), &body));
}

#[test]
fn a_device_log_is_no_longer_than_one_can_be() {
    let body = signed().encode();
    let device = ItemHead { kind: ItemKind::Device, bytes: body.len() as u64 };
    let take = |entries, bytes| {
        let mut items = at(ItemKind::Device);
        items.devices = (entries, bytes);
        items.take(device, &body).is_ok()
    };
    assert!(take(0, 0) && take(4095, 0) && !take(4096, 0) && !take(5000, 0));
    let most = (7 << 20) - body.len();
    assert!(take(0, most) && !take(0, most + 1) && !take(0, most + 1000));
}

#[test]
fn the_keyring_comes_first_and_then_vaults_ascending() {
    let id = |byte| VaultId::from_bytes([byte; 16]);
    let vault = |byte| ArchiveVault { vault: id(byte), log: vec![signed()] };
    let begin = |bytes: &[u8]| {
        let mut items = at(ItemKind::Device);
        items.keyring = Some(id(5));
        for byte in bytes {
            items.begin_vault(vault(*byte)).ok()?;
            assert_eq!(items.vault(), Some(id(*byte)));
        }
        Some(())
    };
    for right in [&[5][..], &[5, 1], &[5, 1, 2], &[5, 6], &[5, 1, 9]] {
        assert!(begin(right).is_some(), "{right:?}");
    }
    for wrong in [&[1][..], &[5, 5], &[5, 1, 1], &[5, 2, 1], &[5, 6, 1], &[5, 1, 5]] {
        assert!(begin(wrong).is_none(), "{wrong:?}");
    }
    assert_eq!(at(ItemKind::Device).vault(), None);
}

#[test]
fn there_are_no_more_vaults_than_an_account_has() {
    let begin = |vaults| {
        let mut items = at(ItemKind::Device);
        (items.keyring, items.vault, items.vaults) = (None, Some(VaultId::ZERO), vaults);
        items.begin_vault(ArchiveVault { vault: VaultId::from_bytes([1; 16]), log: vec![signed()] }).is_ok()
    };
    assert!(begin(1023) && !begin(1024) && !begin(1500));
}
