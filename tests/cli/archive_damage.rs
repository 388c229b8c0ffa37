//! Damaged and forged archives: refused, or, where it is one object or one version, named; never a wrong byte.

use crate::archive::check;
use crate::program::Done;
use crate::revoke::{id_of, login_as, revoke};
use crate::tree::{noise, write};
use crate::world::{Device, World};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_proto::api::vault::Entry;
use lockstep_proto::archive::{
    ArchiveCommit, ArchiveEnd, ArchiveHeader, ITEM_HEAD_BYTES, PREFIX_BYTES, prefix,
};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::key_header::KeyHeader;
use lockstep_proto::{Digest, Signed, label};

const COMMIT: u8 = 6;
const VERSION: u8 = 7;
const OBJECT: u8 = 9;
const END: u8 = 11;

type Items = Vec<(u8, Vec<u8>)>;

/// The items of an archive, the end among them.
fn items_of(bytes: &[u8]) -> Items {
    let mut rest = &bytes[PREFIX_BYTES..];
    let mut items = Items::new();
    while !rest.is_empty() {
        let (head, after) = rest.split_at(ITEM_HEAD_BYTES);
        let length = u64::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        items.push((head[0], after[..length].to_vec()));
        rest = &after[length..];
    }
    items
}

fn framed(items: &Items) -> Vec<u8> {
    let mut out = prefix().to_vec();
    for (kind, body) in items {
        out.push(*kind);
        out.extend((body.len() as u64).to_be_bytes());
        out.extend(body);
    }
    out
}

/// The same with an end by a device that knows what it does.
fn signed(mut items: Items, by: &Device) -> Vec<u8> {
    items.retain(|(kind, _)| *kind != END);
    let keys = DeviceKeys::from_bytes(&std::fs::read(by.home.join("device")).unwrap()).unwrap();
    let header = ArchiveHeader::decode(&items[0].1).unwrap();
    let digest = Digest::of(label::ARCHIVE_BYTES, &framed(&items));
    let ArchiveHeader { version, suite, account, device, .. } = header;
    let end = ArchiveEnd { version, suite, account, device, items: items.len() as u64, digest };
    items.push((END, keys.sign(label::ARCHIVE, end.encode()).encode()));
    framed(&items)
}

struct Made {
    world: World,
    a: Device,
    bytes: Vec<u8>,
}

impl Made {
    fn new() -> Self {
        let world = World::new();
        let a = world.signup("a");
        write(&world.path("docs/object"), noise(1, 70_000));
        write(&world.path("docs/inline"), "inline");
        a.backup("docs");
        write(&world.path("docs/object"), noise(2, 70_000));
        a.backup("docs");
        a.put("n", "1").ok();
        a.put("m", "2").ok();
        a.ok(&["kit", "refresh", "--kit", "kit"]);
        a.ok(&["export", "archive"]);
        let bytes = std::fs::read(world.path("archive")).unwrap();
        Self { world, a, bytes }
    }

    fn check(&self, bytes: &[u8]) -> Done {
        std::fs::write(self.world.path("changed"), bytes).unwrap();
        check(&self.a, "changed", &["--recovery-key-file", &self.world.text("kit")])
    }

    /// Changes the items and signs them anew.
    fn forged(&self, change: impl FnOnce(&mut Items)) -> Vec<u8> {
        let mut items = items_of(&self.bytes);
        change(&mut items);
        signed(items, &self.a)
    }

    fn refused(&self, bytes: &[u8], what: &str) {
        let done = self.check(bytes);
        assert!(matches!(done.status, Some(2 | 5 | 7)), "{what}: {done:#?}");
        assert!(done.out.is_empty() && !done.err.contains("panicked"), "{what}: {done:#?}");
    }
}

fn first(items: &Items, kind: u8) -> usize {
    items.iter().position(|item| item.0 == kind).unwrap()
}

fn last(items: &Items, kind: u8) -> usize {
    items.iter().rposition(|item| item.0 == kind).unwrap()
}

#[test]
fn a_flipped_byte_anywhere_is_refused() {
    let made = Made::new();
    let places = 300;
    for number in 0..places {
        let place = made.bytes.len() * number / places;
        let mut damaged = made.bytes.clone();
        damaged[place] ^= 1 << (number % 8);
        made.refused(&damaged, &format!("byte {place}"));
    }
}

#[test]
fn what_is_cut_off_or_goes_on_is_refused() {
    let made = Made::new();
    let length = made.bytes.len();
    for cut in [0, 1, PREFIX_BYTES, PREFIX_BYTES + 4, length / 3, length / 2, length - 65, length - 1] {
        made.refused(&made.bytes[..cut], &format!("{cut} bytes"));
    }
    made.refused(&[&made.bytes[..], b"x"].concat(), "one byte more");
    made.refused(b"no archive at all", "another file");
}

#[test]
fn items_that_were_moved_dropped_or_doubled_are_refused() {
    let made = Made::new();
    let items = items_of(&made.bytes);
    for at in 0..items.len() {
        let mut dropped = items.clone();
        dropped.remove(at);
        made.refused(&framed(&dropped), &format!("item {at} is dropped"));
        let mut doubled = items.clone();
        doubled.insert(at, items[at].clone());
        made.refused(&framed(&doubled), &format!("item {at} comes twice"));
        if at > 0 && items[at] != items[at - 1] {
            let mut swapped = items.clone();
            swapped.swap(at, at - 1);
            made.refused(&framed(&swapped), &format!("item {at} is moved"));
        }
    }
}

/// What a device of the account may have done: the end is good, and something before it is not.
#[test]
fn what_its_maker_changed_is_refused_or_named() {
    let made = Made::new();
    made.check(&made.forged(|_| {})).ok();
    let refused = |what: &str, change: &dyn Fn(&mut Items)| {
        made.refused(&made.forged(|items| change(items)), what);
    };
    refused("a commit is dropped", &|items| {
        items.remove(first(items, COMMIT) + 1);
    });
    refused("the last commits are dropped, and the pins are not reached", &|items| {
        let keep = first(items, COMMIT);
        let vault = items.iter().rposition(|item| item.0 == 5).unwrap();
        let mut at = 0;
        items.retain(|(kind, _)| {
            at += 1;
            at - 1 > vault || at - 1 == keep || !matches!(*kind, COMMIT | VERSION)
        });
    });
    refused("a commit's signature is another", &|items| {
        let at = last(items, COMMIT);
        let mut commit = ArchiveCommit::decode(&items[at].1).unwrap();
        commit.commit.signature.0[5] ^= 1;
        items[at].1 = commit.encode();
    });
    refused("a change list is another", &|items| {
        let at = last(items, COMMIT);
        let mut commit = ArchiveCommit::decode(&items[at].1).unwrap();
        *commit.changes.0.last_mut().unwrap() ^= 1;
        items[at].1 = commit.encode();
    });
    refused("an envelope is another", &|items| {
        let at = last(items, VERSION);
        let mut entry = Entry::decode(&items[at].1).unwrap();
        *entry.envelope.0.last_mut().unwrap() ^= 1;
        items[at].1 = entry.encode();
    });
    refused("a revision is another", &|items| {
        let at = last(items, VERSION);
        let mut entry = Entry::decode(&items[at].1).unwrap();
        entry.revision = entry.revision.next();
        items[at].1 = entry.encode();
    });
    refused("a device-log entry is dropped", &|items| {
        items.remove(2);
    });
    refused("the key header is another", &|items| {
        let mut header = Signed::decode(&items[1].1).unwrap();
        header.signature.0[0] ^= 1;
        items[1].1 = header.encode();
    });
    // One version, one object: the rest is read.
    let named = |what: &str, text: &str, change: &dyn Fn(&mut Items)| {
        let done = made.check(&made.forged(|items| change(items)));
        assert_eq!(done.status, Some(3), "{what}: {done:#?}");
        assert!(done.err.contains(text), "{what}: {done:#?}");
    };
    named("a version is dropped", "is missing", &|items| {
        items.remove(last(items, VERSION));
    });
    named("an object is dropped", "is missing or damaged", &|items| {
        items.remove(first(items, OBJECT));
    });
    for place in [0, 20, 70, 80, 30_000, 70_000] {
        named(
            &format!("byte {place} of an object"),
            "is missing or damaged (lockstep/file object)",
            &|items| {
                let at = first(items, OBJECT);
                items[at].1[16 + place] ^= 1;
            },
        );
    }
}

#[test]
fn no_wrong_byte_is_imported() {
    let made = Made::new();
    let spoilt = made.forged(|items| {
        for (_, body) in items.iter_mut().filter(|item| item.0 == OBJECT) {
            let at = body.len() - 100;
            body[at] ^= 1;
        }
    });
    std::fs::write(made.world.path("changed"), spoilt).unwrap();
    let other = World::new();
    let b = other.signup("b");
    let (archive, kit) = (made.world.text("changed"), made.world.text("kit"));
    b.run(&["import", &archive, "--recovery-key-file", &kit])
        .ends(3, &["object: its contents are missing or damaged"]);
    b.ok(&["restore", "out", "--vault", "files-imported"]);
    assert!(!other.path("out/docs/object").exists());
    assert_eq!(std::fs::read(other.path("out/docs/inline")).unwrap(), b"inline");
    b.ok(&["check", "--read-data"]);
}

#[test]
fn a_revoked_device_makes_no_archive_and_nobody_else_does() {
    let world = World::new();
    let a = world.signup("a");
    a.put("n", "1").ok();
    let b = login_as(&world, "b");
    let id = id_of(&b);
    b.ok(&["export", "of-b"]);
    revoke(&world, &a, &id).ok();
    a.ok(&["export", "archive"]);
    let made = Made { bytes: std::fs::read(world.path("archive")).unwrap(), world, a };
    let name = |device: &str| {
        let device = device.parse().unwrap();
        move |items: &mut Items| {
            let header = ArchiveHeader::decode(&items[0].1).unwrap();
            items[0].1 = ArchiveHeader { device, ..header }.encode();
        }
    };
    let mut items = items_of(&made.bytes);
    name(&id)(&mut items);
    let done = made.check(&signed(items, &b)).ends(7, &["revoked"]);
    assert!(done.out.is_empty());
    // Nor does it sign in another's name.
    made.refused(&signed(items_of(&made.bytes), &b), "another's signature");
    // What it made before it was revoked is still an archive of that day; a kit of today says that it is old.
    let kit = made.world.text("kit");
    check(&made.a, "of-b", &["--recovery-key-file", &kit]).ok();
    made.a.ok(&["kit", "refresh", "--kit", "kit"]);
    check(&made.a, "of-b", &["--recovery-key-file", &kit]).ends(7, &["older than the kit"]);
}

#[test]
fn without_the_passphrases_wrap_nobody_can_try_passphrases() {
    let made = Made::new();
    made.a.ok(&["export", "bare", "--without-passphrase-wrap"]);
    let bare = std::fs::read(made.world.path("bare")).unwrap();
    let header = Signed::decode(&items_of(&made.bytes)[1].1).unwrap();
    let header = KeyHeader::decode(&header.bytes.0).unwrap();
    let (passphrase, recovery) = (&header.wraps[0], &header.wraps[1]);
    let holds = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    for part in [
        &passphrase.ciphertext.0[..],
        &passphrase.salt.0,
        &passphrase.nonce.0,
        passphrase.commitment.as_bytes(),
    ] {
        assert!(holds(&made.bytes, part) && !holds(&bare, part));
    }
    assert!(holds(&bare, &recovery.ciphertext.0));
    let file = made.world.text("passphrase");
    check(&made.a, "bare", &["--passphrase-file", &file]).ends(2, &["only the recovery key opens it"]);
    check(&made.a, "bare", &["--recovery-key-file", &made.world.text("kit")]).ok();
}
