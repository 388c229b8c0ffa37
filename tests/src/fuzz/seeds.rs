//! Inputs to begin with, made of real structures; `fuzz/src/bin/seeds.rs` writes them to `fuzz/corpus`.

use super::fixture::fixture;
use super::structures::DECODERS;
use lockstep_proto::api::account::{Devices, EnrolDevice, HealDevices};
use lockstep_proto::api::auth::{Authorised, LoginStart, RegisterStart, Statement};
use lockstep_proto::api::object::{BeginUpload, ObjectList};
use lockstep_proto::api::vault::{CreateVault, PushCommit, StageEnvelopes};
use lockstep_proto::archive::BareKeys;
use lockstep_proto::cbor::{ByteArray, Bytes, Wire};
use lockstep_proto::commit::Commit;
use lockstep_proto::device_log::DeviceLogEntry;
use lockstep_proto::envelope::Envelope;
use lockstep_proto::id::{BlobId, Seq};
use lockstep_proto::key_header::KeyHeader;
use lockstep_proto::recovery::Checkpoint;
use lockstep_proto::{Digest, version};

/// Target, name, bytes; the same every time.
pub fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut all = structures();
    all.extend(steps());
    all.extend(texts());
    all.extend(kits());
    all.extend(uploads_and_downloads());
    all
}

pub(super) fn checkpoint() -> Checkpoint {
    let fixture = fixture();
    Checkpoint {
        version: version::VERSION,
        account: fixture.account,
        device_log_index: 2,
        device_log_head: fixture.log.head(),
        keyring_seq: Seq::new(7),
        keyring_head: Digest::from_bytes([7; 32]),
    }
}

fn structures() -> Vec<(&'static str, String, Vec<u8>)> {
    let fixture = fixture();
    let mut all = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>| {
        let which = DECODERS.iter().position(|(known, _)| *known == name).unwrap();
        assert!(DECODERS[which].1(&bytes).is_some(), "{name} decodes");
        all.push(("structures", name.to_owned(), [vec![which as u8], bytes].concat()));
    };
    for (name, body) in [("Enrol", 0), ("Enrol", 1), ("Revoke", 2)] {
        add("DeviceLogEntry", fixture.entries[body].bytes.0.clone());
        add(name, DeviceLogEntry::decode(&fixture.entries[body].bytes.0).unwrap().body.0);
    }
    for header in &fixture.headers {
        add("KeyHeader", header.bytes.0.clone());
    }
    add("Signed", fixture.birth.create.encode());
    add("VaultLogEntry", fixture.birth.create.bytes.0.clone());
    for link in &fixture.chain[..2] {
        add("Commit", link.commit.bytes.0.clone());
        add("Changes", link.changes.clone());
    }
    add("Envelope", fixture.envelope.clone());
    add("EnvelopeHeader", Envelope::decode(&fixture.envelope).unwrap().header.0);
    add("Content", fixture.content.encode());
    add("Checkpoint", checkpoint().encode());
    let header = KeyHeader::decode(&fixture.headers[2].bytes.0).unwrap();
    add("BareKeys", BareKeys::of(&header).unwrap().encode());
    bodies(&mut add);
    let device = fixture.device.to_bytes().to_vec();
    let object = super::object::sealed()[1].object[..59].to_vec();
    for (which, name, bytes) in [(0, "device file", device), (1, "object header", object)] {
        all.push(("structures", name.to_owned(), [vec![(DECODERS.len() + which) as u8], bytes].concat()));
    }
    all
}

/// Bodies of requests.
fn bodies(add: &mut impl FnMut(&str, Vec<u8>)) {
    let fixture = fixture();
    let bytes = || Bytes(vec![7; 32]);
    add("RegisterStart", RegisterStart { account: fixture.account, request: bytes() }.encode());
    add("LoginStart", LoginStart { name: "ada".into(), ke1: bytes() }.encode());
    let enrol = EnrolDevice { key_header: fixture.headers[1].clone(), entry: fixture.entries[1].clone() };
    add("Authorised", Authorised { bytes: enrol.encode().into(), action: ByteArray([3; 64]) }.encode());
    add("EnrolDevice", enrol.encode());
    let statement = Statement {
        account: fixture.account,
        device: fixture.device.id(),
        purpose: 1,
        server_nonce: Digest::ZERO,
        client_nonce: Digest::ZERO,
        signature: ByteArray([0; 64]),
    };
    add("Statement", fixture.device.sign_statement("http://localhost", statement).encode());
    let (entries, key_header) = (fixture.entries.clone(), fixture.headers[2].clone());
    let heal =
        HealDevices { account: fixture.account, entries: entries.clone(), key_header: key_header.clone() };
    add("HealDevices", heal.encode());
    add("Devices", Devices { total: 3, entries, key_header }.encode());
    let birth = fixture.birth.clone();
    add("CreateVault", CreateVault { create: birth.create, genesis: birth.genesis }.encode());
    let link = &fixture.chain[0];
    let push = PushCommit {
        commit: link.commit.clone(),
        changes: link.changes.clone().into(),
        envelopes: vec![fixture.envelope.clone().into()],
        heals: false,
    };
    assert!(Commit::decode(&push.commit.bytes.0).is_ok());
    add("PushCommit", push.encode());
    add("StageEnvelopes", StageEnvelopes(vec![fixture.envelope.clone().into()]).encode());
    let blob = BlobId::from_bytes([9; 16]);
    add("ObjectList", ObjectList(vec![blob]).encode());
    add("BeginUpload", BeginUpload { blob, size: 9_000_000, digest: Digest::ZERO }.encode());
}

/// Inputs that spoil nothing, and some that spoil one place.
fn steps() -> Vec<(&'static str, String, Vec<u8>)> {
    let fixture = fixture();
    // One edit: kind 1 flips bits at a place.
    let flip = |place: u32| [vec![1, 1], place.to_be_bytes()[1..].to_vec(), vec![1]].concat();
    let entries = |count: u8| (0..count).flat_map(|which| [which, 0]).collect::<Vec<u8>>();
    let mut all = Vec::new();
    let mut add = |target, name: &str, bytes: &[&[u8]]| all.push((target, name.to_owned(), bytes.concat()));
    add("account", "whole log", &[&[3], &entries(3), &[2, 0]]);
    add("account", "first entry", &[&[1], &entries(1), &[0, 0]]);
    add("account", "spoilt entry", &[&[2, 0], &flip(40), &[0, 0, 0, 0]]);
    add("account", "spoilt header", &[&[3], &entries(3), &[2], &flip(200)]);
    add("account", "entries twice", &[&[4, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0]]);
    let links: Vec<u8> = (0..6).flat_map(|which| [which, 0]).collect();
    add("chain", "whole chain", &[&[0], &links]);
    add("chain", "commit twice", &[&[0, 0, 0, 0, 0, 1, 0]]);
    add("chain", "commit left out", &[&[0, 0, 0, 2, 0]]);
    add("chain", "spoilt commit", &[&[0, 0, 1], &flip(30), &[0, 0, 0]]);
    add("chain", "spoilt changes", &[&[0, 0, 1, 0], &flip(10), &[0, 0]]);
    add("chain", "spoilt birth", &[&[1], &flip(20), &[0]]);
    add("envelope", "whole", &[&[0, 0]]);
    add("envelope", "spoilt header", &[&[0], &flip(20)]);
    add("envelope", "spoilt ciphertext", &[&[0], &flip(300)]);
    add("envelope", "bytes", &[&[1], &fixture.envelope]);
    add("envelope", "content", &[&[2], &fixture.content.encode()]);
    let archive = super::archive::archive();
    add("archive", "whole", &[&[0, 0]]);
    add("archive", "spoilt", &[&[0], &flip(200)]);
    add("archive", "spoilt end", &[&[0], &flip(archive.len() as u32 - 9)]);
    add("archive", "cut off", &[&[0, 1, 0, 0, 20, 0, 0]]);
    add("archive", "bytes", &[&[1], archive]);
    add("object", "whole", &[&[0, 0, 0, 1, 0]]);
    add("object", "small pieces", &[&[1, 0, 0, 0, 9, 0, 0, 40]]);
    add("object", "spoilt header", &[&[0], &flip(30)]);
    add("object", "spoilt second chunk", &[&[0], &flip(70_000)]);
    add("object", "cut off", &[&[0, 1, 0, 1, 0x11, 0x70, 0]]);
    add("object", "made up", &[&[2, 0, 0, 0, 0, 16, 0, 0, 100, 1, 2, 3]]);
    all
}

fn texts() -> Vec<(&'static str, String, Vec<u8>)> {
    let fixture = fixture();
    let key = fixture.recovery.to_text().to_string();
    let mut wrong = key.clone();
    wrong.replace_range(10..11, if &key[10..11] == "q" { "p" } else { "q" });
    let rows = [
        ("recovery key", 0, key.clone()),
        ("recovery key in capitals", 0, key.to_uppercase().replace(' ', "-")),
        ("recovery key mistyped", 0, wrong),
        ("recovery key cut off", 0, key[..40].to_owned()),
        ("checkpoint", 1, checkpoint().to_text()),
        ("id", 2, fixture.vault.to_string()),
        ("size", 3, "1.5 GiB".to_owned()),
        ("size in bytes", 3, "4096".to_owned()),
    ];
    rows.into_iter()
        .map(|(name, which, text)| ("texts", name.to_owned(), [vec![which], text.into_bytes()].concat()))
        .collect()
}

fn kits() -> Vec<(&'static str, String, Vec<u8>)> {
    let [lines, page] = super::kit::kits();
    let named =
        |server: &str, name: &str| [&[3, server.len() as u8], server.as_bytes(), name.as_bytes()].concat();
    let key = fixture().recovery.to_text();
    let rows: [(&str, Vec<u8>); 11] = [
        ("lines", vec![0]),
        ("page", vec![1]),
        ("lines with a letter changed", vec![0, 1, 1, 0, 1, 130, 1]),
        ("lines cut off", vec![0, 1, 0, 0, 1, 100]),
        ("page cut off", vec![1, 1, 0, 0, 20, 0]),
        ("lines as text", [&[2], lines.as_bytes()].concat()),
        (
            "end of a page as text",
            [&b"\x02<!doctype html>"[..], &page.as_bytes()[page.len() - 700..]].concat(),
        ),
        ("bare key", [&[2], key.as_bytes()].concat()),
        ("page without a kit", b"\x02<!DOCTYPE html><p>hello</p>".to_vec()),
        ("name with marks", named("https://sync.example.org", "</pre><script>\"&amp;\"</script>")),
        ("name like a line", named("recovery key: lsrk", "<pre id=\"kit\">recovery key:")),
    ];
    rows.into_iter().map(|(name, bytes)| ("kit", name.to_owned(), bytes)).collect()
}

fn uploads_and_downloads() -> Vec<(&'static str, String, Vec<u8>)> {
    let frame = lockstep_proto::api::object::frame_header(BlobId::from_bytes([7; 16]), 5);
    let rows: [(&'static str, &str, Vec<u8>); 19] = [
        ("frames", "three", vec![0, 0, 0, 0, 3, 1, 0, 0, 0, 5, 2, 0, 1, 0, 3, 0, 0, 0, 0, 1]),
        ("frames", "the same id twice", vec![0, 0, 0, 7, 2, 1, 0, 0, 0, 5, 1, 0, 0, 0, 5]),
        ("frames", "as many as there may be", vec![0, 0, 0, 0, 0, 0, 0, 16, 0]),
        ("frames", "one too many", vec![0, 0, 0, 0, 0, 0, 0, 16, 1]),
        ("frames", "an object of 8 MiB", vec![0, 0, 0, 0, 1, 1, 0, 128, 0, 0]),
        ("frames", "an object larger than 8 MiB", vec![0, 0, 0, 0, 1, 1, 0, 128, 0, 1]),
        ("frames", "more than 16 MiB", vec![0, 0, 0, 0, 2, 1, 0, 127, 255, 236, 2, 0, 127, 255, 237]),
        ("frames", "cut off", vec![0, 0, 0, 1, 1, 1, 0, 0, 0, 50, 0, 0, 0, 0, 1, 0, 0, 0, 40, 0]),
        ("frames", "bytes", [&[1, 0, 0, 3], &frame[..], b"hello"].concat()),
        ("ranges", "whole", vec![0]),
        ("ranges", "in pieces", vec![0, 1, 0, 100, 0, 0, 0, 9, 2, 1, 0, 0, 0, 3, 0, 1, 0, 0, 9, 0, 0, 0]),
        ("ranges", "breaks without a byte", vec![1, 2, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 70]),
        ("ranges", "from another place", vec![0, 1, 1, 0, 59, 0, 0, 0, 4, 0, 0, 59, 0, 0, 0]),
        ("ranges", "another object", vec![1, 5, 0, 0, 0]),
        ("ranges", "refused after a piece", vec![0, 1, 0, 0, 70, 0, 0, 0, 7, 1]),
        ("ranges", "header", b"\x02\x00\x00\x64\x00bytes=90-".to_vec()),
        ("ranges", "header of the end", b"\x02\x00\x00\x64\x28bytes=-5".to_vec()),
        ("ranges", "spoilt", vec![0, 3, 1, 1, 0, 0, 100, 1, 0, 0, 0]),
        ("ranges", "spoilt behind a piece", vec![0, 1, 0, 1, 0, 0, 0, 0, 3, 1, 1, 1, 0, 0, 7, 0, 0, 0]),
    ];
    rows.into_iter().map(|(target, name, bytes)| (target, name.to_owned(), bytes)).collect()
}
