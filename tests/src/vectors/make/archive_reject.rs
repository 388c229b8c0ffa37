//! Archives that are refused. Where it is not the end that is wrong, the end is a good one of what stands before it.

use super::archive::{
    BARE_KEYS, COMMIT, END, ENTRY, HEADER, Item, KEYS, LAPTOP, MADE, MISSING_OBJECT, MISSING_VERSION, Made,
    OBJECT, STRANGER, TABLET, VAULT, VERSION_ITEM, input, missing, pieces,
};
use crate::vectors::world::fixed;
use crate::vectors::{File, Reject, hex};
use lockstep_proto::api::vault::Entry;
use lockstep_proto::archive::{ArchiveCommit, ArchiveEnd, ArchiveHeader, ArchiveVault};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::Commit;
use lockstep_proto::hash::Digest;
use lockstep_proto::id::Seq;
use lockstep_proto::limits::{ARCHIVE_ITEM_BYTES_MAX, ARCHIVE_OBJECT_BYTES_MAX};

pub(super) fn reject() -> Vec<File> {
    vec![framing(), ends(), keys(), vaults()]
}

/// Places of the items of a type.
fn places(items: &[Item], kind: u8) -> Vec<usize> {
    (0..items.len()).filter(|place| items[*place].0 == kind).collect()
}

/// The golden archive's items, changed, under a good end.
fn changed(change: impl FnOnce(&mut Vec<Item>)) -> Vec<Vec<u8>> {
    let mut items = MADE.items();
    change(&mut items);
    pieces(&MADE.with_end(items))
}

fn framing() -> File {
    let mut file = Reject::new("archive-framing", "archive", "10.1");
    let mut add = |fault: &str, pieces: &[Vec<u8>]| file.case(fault, input(pieces), "archive");
    let whole = pieces(&MADE.with_end(MADE.items()));
    let flipped = |place: usize, bits: u8| {
        let mut whole = whole.clone();
        whole[0][place] ^= bits;
        whole
    };
    add("another magic", &flipped(3, 1));
    add("version 1", &flipped(4, 0x83));
    add("another suite", &flipped(5, 3));
    add("nothing behind the prefix", &whole[..1]);
    add("no end", &whole[..whole.len() - 1]);
    let mut cut = whole.clone();
    cut.last_mut().unwrap().pop();
    add("cut off by a byte", &cut);
    add("a byte after the end", &[&whole[..], &[vec![0]]].concat());
    add("a second end", &[&whole[..], &whole[whole.len() - 1..]].concat());
    let head = |kind: u8, length: u64| [&[kind], &length.to_be_bytes()[..]].concat();
    let long = |kind: u8, length: u64| [&whole[..whole.len() - 1], &[head(kind, length)]].concat();
    add("an item of more than 8 MiB", &long(VAULT, ARCHIVE_ITEM_BYTES_MAX as u64 + 1));
    add("an object of more than 1 TiB + 1 GiB", &long(OBJECT, ARCHIVE_OBJECT_BYTES_MAX + 1));
    add("a length of all ones", &long(OBJECT, u64::MAX));
    add("an object shorter than its id", &changed(|items| items.push((OBJECT, vec![0xff; 15]))));
    add("type 0", &changed(|items| items.push((0, Vec::new()))));
    add("type 12", &changed(|items| items.push((12, Vec::new()))));
    add("no header", &changed(|items| drop(items.remove(0))));
    add("the header twice", &changed(|items| items.insert(1, items[0].clone())));
    add("no keys", &changed(|items| drop(items.remove(1))));
    let bare = (BARE_KEYS, MADE.bare_keys().encode());
    add("both kinds of keys", &changed(|items| items.insert(2, bare)));
    add("no device log", &changed(|items| items.retain(|item| item.0 != ENTRY)));
    add("no vaults", &changed(|items| items.truncate(places(items, VAULT)[0])));
    add("an entry of the log behind a vault", &changed(|items| items.push(items[2].clone())));
    orders(&mut add);
    file.file()
}

/// Items of vaults in another order, or twice.
fn orders(add: &mut impl FnMut(&str, &[Vec<u8>])) {
    let mut swapped = |fault: &str, kind: u8, n: usize| {
        add(
            fault,
            &changed(|items| {
                let places = places(items, kind);
                items.swap(places[n], places[n + 1]);
            }),
        );
    };
    swapped("versions are not ascending", VERSION_ITEM, 1);
    swapped("commits are not in their order", COMMIT, 1);
    swapped("entries of the device log are not in their order", ENTRY, 0);
    let last = |kind: u8| {
        move |items: &mut Vec<Item>| {
            let place = *places(items, kind).last().unwrap();
            items.insert(place, items[place].clone());
        }
    };
    add("a version twice", &changed(last(VERSION_ITEM)));
    add("an object twice", &changed(last(OBJECT)));
    add(
        "a vault twice",
        &changed(|items| {
            let at = *places(items, VAULT).last().unwrap();
            let again = items[at..].to_vec();
            items.extend(again);
        }),
    );
    add(
        "the keyring is not the first vault",
        &changed(|items| {
            let starts = places(items, VAULT);
            let keyring: Vec<Item> = items.drain(starts[0]..starts[1]).collect();
            let end = starts[2] - starts[1] + starts[0];
            items.splice(end..end, keyring);
        }),
    );
    add(
        "the vaults are not ascending",
        &changed(|items| {
            let starts = places(items, VAULT);
            let second: Vec<Item> = items.drain(starts[1]..starts[2]).collect();
            items.extend(second);
        }),
    );
    add(
        "a vault without a commit",
        &changed(|items| {
            let at = *places(items, VAULT).last().unwrap();
            items.truncate(at + 1);
        }),
    );
    add(
        "an object before a version",
        &changed(|items| {
            let (object, version) = (places(items, OBJECT)[0], places(items, VERSION_ITEM));
            let before = version.into_iter().rev().find(|place| *place < object).unwrap();
            items.swap(object, before);
        }),
    );
}

fn ends() -> File {
    let mut file = Reject::new("archive-end", "archive", "10.1");
    let mut add = |fault: &str, by: usize, tweak: &dyn Fn(&mut ArchiveEnd)| {
        let mut items = MADE.items();
        items.push(MADE.end(&items, by, tweak));
        file.case(fault, input(&pieces(&items)), "archive");
    };
    let tablet = MADE.owner.devices[TABLET].id();
    add("signed by another device", TABLET, &|_| {});
    add("signed by a revoked device, which it names", TABLET, &|end| end.device = tablet);
    add("names another device", LAPTOP, &|end| end.device = tablet);
    add("one item fewer", LAPTOP, &|end| end.items -= 1);
    add("one item more", LAPTOP, &|end| end.items += 1);
    add("another digest", LAPTOP, &|end| end.digest = Digest::from_bytes([1; 32]));
    add("another account", LAPTOP, &|end| end.account = lockstep_proto::AccountId::from_bytes([1; 16]));
    add("another suite", LAPTOP, &|end| end.suite = 2);
    add("version 1", LAPTOP, &|end| end.version = 1);
    let mut items = MADE.with_end(MADE.items());
    let object = places(&items, OBJECT)[0];
    *items[object].1.last_mut().unwrap() ^= 1;
    file.case("an object that changed after the end was signed", input(&pieces(&items)), "archive");
    let mut items = MADE.with_end(MADE.items());
    let end = items.iter_mut().find(|item| item.0 == END).unwrap();
    *end.1.last_mut().unwrap() ^= 1;
    file.case("a flipped bit of the signature", input(&pieces(&items)), "archive");
    file.file()
}

fn keys() -> File {
    let mut file = Reject::new("archive-keys", "archive", "10.1");
    let mut add = |fault: &str, pieces: &[Vec<u8>]| file.case(fault, input(pieces), "archive");
    let header = |tweak: &dyn Fn(&mut ArchiveHeader)| {
        changed(|items| {
            let mut header = ArchiveHeader::decode(&items[0].1).unwrap();
            tweak(&mut header);
            items[0] = (HEADER, header.encode());
        })
    };
    let tablet = MADE.owner.devices[TABLET].id();
    add("made by a device that is revoked", &{
        let mut items = MADE.items();
        let mut header = ArchiveHeader::decode(&items[0].1).unwrap();
        header.device = tablet;
        items[0] = (HEADER, header.encode());
        items.push(MADE.end(&items, TABLET, |end| end.device = tablet));
        pieces(&items)
    });
    add("made by no device of the log", &header(&|header| header.device = lockstep_proto::DeviceId::ZERO));
    add(
        "another account",
        &header(&|header| header.account = lockstep_proto::AccountId::from_bytes([1; 16])),
    );
    add("another identity", &header(&|header| header.identity = Digest::from_bytes([1; 32])));
    let old = MADE.owner.log[1].key_header.encode();
    add("the key header before the last entry", &changed(|items| items[1] = (KEYS, old)));
    add(
        "the device log without its last entry",
        &changed(|items| {
            let last = *places(items, ENTRY).last().unwrap();
            items.remove(last);
        }),
    );
    let bare = |tweak: &dyn Fn(&mut lockstep_proto::archive::BareKeys)| {
        let mut keys = MADE.bare_keys();
        tweak(&mut keys);
        changed(|items| items[1] = (BARE_KEYS, keys.encode()))
    };
    add("bare keys of another counter", &bare(&|keys| keys.counter -= 1));
    add("bare keys of an older epoch", &bare(&|keys| keys.keyring.epoch = lockstep_proto::id::Epoch::new(1)));
    add("bare keys without a link", &bare(&|keys| keys.keyring.links.clear()));
    add("bare keys with the passphrase's wrap", &bare(&|keys| keys.wrap.role = 1));
    let mut other = MADE.bare_keys();
    other.recovery = Digest::from_bytes(*MADE.owner.devices[LAPTOP].sign_public().as_bytes());
    let foreign = changed(|items| items[1] = (BARE_KEYS, other.encode()));
    file.case("bare keys of another recovery key", input(&foreign), "open");
    let mut other = input(&pieces(&MADE.with_end(MADE.items())));
    other["recovery"] = hex(fixed::<32>("another recovery key")).into();
    file.case("another recovery key", other, "open");
    file.file()
}

fn vaults() -> File {
    let mut file = Reject::new("archive-vaults", "archive", "10.1");
    let mut add = |fault: &str, pieces: &[Vec<u8>]| file.case(fault, input(pieces), "archive");
    logs(&mut add);
    cut_off(&mut add);
    versions(&mut add);
    file.file()
}

/// Where the items of the vault `files` begin and end.
fn files(items: &[Item]) -> (usize, usize) {
    let starts = places(items, VAULT);
    let is_files = |place: &&usize| ArchiveVault::decode(&items[**place].1).unwrap().vault == MADE.files.id();
    let start = *starts.iter().find(is_files).unwrap();
    let end = starts.iter().copied().find(|place| *place > start).unwrap_or(items.len());
    (start, end)
}

/// Changes the item of a vault.
fn head(items: &mut [Item], place: usize, change: impl FnOnce(&mut ArchiveVault)) {
    let mut head = ArchiveVault::decode(&items[place].1).unwrap();
    change(&mut head);
    items[place] = (VAULT, head.encode());
}

/// Logs that are not those of the chains.
fn logs(add: &mut impl FnMut(&str, &[Vec<u8>])) {
    let mut of_files = |fault: &str, change: &dyn Fn(&mut ArchiveVault)| {
        let pieces = changed(|items| {
            let (start, _) = files(items);
            head(items, start, change);
        });
        add(fault, &pieces);
    };
    of_files("a log without the rotation", &|head| head.log.truncate(1));
    of_files("a log with a rotation twice", &|head| head.log.push(head.log[1].clone()));
    of_files("another birth than the keyring's", &|head| head.log[0] = MADE.notes.log[0].clone());
    let keyring = changed(|items| {
        let start = places(items, VAULT)[0];
        head(items, start, |head| head.log.truncate(1));
    });
    add("the keyring's log without its rotation", &keyring);
    let mut made = Made::new();
    made.keyring.fault(&made.owner, LAPTOP);
    made.keyring.rotate(&made.owner, LAPTOP);
    add("a fault in the keyring, and a rotation behind it", &pieces(&made.with_end(made.items())));
}

/// A vault's items without what is of a commit from `seq` on, nor the rotation behind it.
fn before(items: &mut Vec<Item>, (start, end): (usize, usize), seq: u64) {
    let kept = |item: &Item| match item.0 {
        COMMIT => {
            let link = ArchiveCommit::decode(&item.1).unwrap();
            Commit::decode(&link.commit.bytes.0).unwrap().seq < Seq::new(seq)
        }
        VERSION_ITEM => Entry::decode(&item.1).unwrap().seq < Seq::new(seq),
        _ => true,
    };
    head(items, start, |head| head.log.truncate(1));
    let rest: Vec<Item> = items.splice(start..end, []).filter(kept).collect();
    items.splice(start..start, rest);
}

/// Chains that end before what the device log pins.
fn cut_off(add: &mut impl FnMut(&str, &[Vec<u8>])) {
    let pieces = changed(|items| {
        let section = files(items);
        before(items, section, 9);
    });
    add("a vault that ends before a pin of the device log", &pieces);
    let pieces = changed(|items| {
        let starts = places(items, VAULT);
        before(items, (starts[0], starts[1]), 3);
    });
    add("a keyring that ends before a pin of the device log", &pieces);
}

/// Versions and objects that are not what the chain announces, or there and missing at once.
fn versions(add: &mut impl FnMut(&str, &[Vec<u8>])) {
    let last = |change: &dyn Fn(&mut Entry)| {
        changed(|items| {
            let at = *places(items, VERSION_ITEM).last().unwrap();
            let mut entry = Entry::decode(&items[at].1).unwrap();
            change(&mut entry);
            items[at].1 = entry.encode();
        })
    };
    let flip = |entry: &mut Entry| *entry.envelope.0.last_mut().unwrap() ^= 1;
    add("a version with another digest than announced", &last(&flip));
    add("a version of another kind than announced", &last(&|entry| entry.kind = 3 - entry.kind));
    let pieces = changed(|items| {
        let at = *places(items, VERSION_ITEM).last().unwrap();
        let entry = Entry::decode(&items[at].1).unwrap();
        items.insert(at + 1, (MISSING_VERSION, missing(entry.seq, entry.record)));
    });
    add("a missing version that is there", &pieces);
    let pieces = changed(|items| {
        let at = places(items, OBJECT)[0];
        let blob = items[at].1[..16].to_vec();
        items.insert(at + 1, (MISSING_OBJECT, blob));
    });
    add("a missing object that is there", &pieces);
    let pieces = changed(|items| {
        let at = places(items, OBJECT)[0];
        let stranger = (MISSING_OBJECT, STRANGER.as_bytes().to_vec());
        let behind = at + 1;
        items.splice(behind..behind, [stranger.clone(), stranger]);
    });
    add("a missing object twice", &pieces);
}
