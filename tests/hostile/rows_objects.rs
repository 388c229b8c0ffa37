//! Row 8: chunks of objects; and uploads whose end is lost.

use crate::scene::{assert_told, document, world_behind};
use crate::tree::{assert_no_parts, assert_same, noise};
use crate::world::{Device, World};
use lockstep_proto::api::object::{FRAME_HEADER_BYTES, parse_frame_header};
use lockstep_proto::blob::HEADER_BYTES;
use lockstep_tests::hostile::scenario::object::each_named_object;
use lockstep_tests::hostile::scenario::{At, rules};
use lockstep_tests::hostile::{Answer, Hostile, Route, Rule};
use std::collections::BTreeMap;

/// Three chunks of 64 KiB and a part of a fourth.
const BYTES: usize = 200_000;
/// A chunk with its tag.
const CHUNK_BYTES: usize = 65_536 + 16;

/// Two files of one size whose objects have several chunks.
fn two_files() -> (World, Hostile, Device) {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    document(&world, "one", &noise(1, BYTES));
    document(&world, "two", &noise(2, BYTES));
    document(&world, "small", b"inline");
    a.backup("docs");
    (world, hostile, a)
}

/// Restores while the server lies: what was lied about does not appear, not in part either; all else is whole. Gives
/// which of the two files are missing. The first one's contents are noise of this seed.
fn restore_of(
    world: &World,
    hostile: &Hostile,
    device: &Device,
    of: Vec<Rule>,
    seed_of_one: u64,
) -> Vec<&'static str> {
    let _ = std::fs::remove_dir_all(world.path("out"));
    let hits = hostile.arm_all(of);
    let done = device.run(&["restore", "out"]);
    hostile.disarm();
    assert_told(&hits);
    assert!(!done.err.contains("panicked"), "{done:#?}");
    assert_eq!(done.status, Some(3), "{done:#?}");
    let out = world.path("out/docs");
    assert_no_parts(&world.path("out"));
    assert_eq!(std::fs::read(out.join("small")).unwrap(), b"inline");
    let mut missing = Vec::new();
    for (name, seed) in [("one", seed_of_one), ("two", 2)] {
        if let Ok(bytes) = std::fs::read(out.join(name)) {
            assert!(bytes == noise(seed, BYTES), "{name} is there and wrong");
        } else {
            missing.push(name);
            assert!(done.err.contains(&format!("docs/{name}")), "{done:#?}");
        }
    }
    assert!(!missing.is_empty());
    missing
}

/// The same of the files as [`two_files`] makes them; gives how many are missing.
fn restore(world: &World, hostile: &Hostile, device: &Device, of: Vec<Rule>) -> usize {
    restore_of(world, hostile, device, of, 1).len()
}

#[test]
fn row_08_chunks_dropped_reordered_twice_and_truncated() {
    let (world, hostile, a) = two_files();
    for (name, count) in
        [("chunk-dropped", 4), ("chunks-reordered", 3), ("chunk-twice", 3), ("object-truncated", 3)]
    {
        for at in 0..count {
            assert_eq!(restore(&world, &hostile, &a, rules(name, &At::number(at))), 2, "{name} {at}");
        }
    }
    a.ok(&["restore", "whole"]);
    assert_same(&world.path("docs"), &world.path("whole/docs"));
}

#[test]
fn row_08_objects_spliced_and_taken_for_each_other() {
    let (world, hostile, a) = two_files();
    for name in ["objects-spliced", "object-of-another"] {
        restore(&world, &hostile, &a, rules(name, &At::default()));
    }
    a.ok(&["restore", "whole"]);
    assert_same(&world.path("docs"), &world.path("whole/docs"));
}

/// The only object that a backup sent: its id and its bytes.
fn only_object(hostile: &Hostile) -> (String, Vec<u8>) {
    let mut sent = framed(hostile);
    assert_eq!(sent.len(), 1);
    sent.pop().unwrap()
}

/// Serves these bytes as an object.
fn serving(blob: &str, body: Vec<u8>) -> Vec<Rule> {
    let (blob, route) = (blob.to_owned(), Route::new("GET /v1/vaults/{}/objects/{}"));
    vec![Rule::answer("older-spliced", move |request, answer| {
        if answer.status == 206 && route.parts(request).is_some_and(|parts| parts[1] == blob) {
            *answer = Answer::problem(416, "range", "the object ends before that");
            return true;
        }
        each_named_object(request, answer, &mut |id, object| {
            if id.to_string() != blob {
                return false;
            }
            assert_eq!(object.len(), body.len());
            object.clone_from(&body);
            true
        })
    })]
}

/// The same file, the same size, sealed before by the same device: of the older object the whole, the header, all chunks,
/// each single chunk, everything from a chunk on, everything up to one.
#[test]
fn row_08_an_older_version_of_the_same_file_by_the_same_device_is_spliced_in() {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    document(&world, "one", &noise(1, BYTES));
    hostile.forget();
    a.backup("docs");
    let (old_id, old) = only_object(&hostile);
    document(&world, "one", &noise(3, BYTES));
    hostile.forget();
    a.backup("docs");
    let (id, new) = only_object(&hostile);
    document(&world, "two", &noise(2, BYTES));
    document(&world, "small", b"inline");
    a.backup("docs");
    assert!(old_id != id && old != new && old.len() == new.len());
    let mut bounds: Vec<usize> = (HEADER_BYTES..new.len()).step_by(CHUNK_BYTES).collect();
    bounds.push(new.len());
    assert_eq!(bounds.len(), 5, "four chunks");
    let (zero, end) = (0, new.len());
    let chunks = bounds.windows(2).map(|pair| pair[0]..pair[1]);
    let later = bounds[1..4].iter().map(|from| *from..end);
    let earlier = bounds[1..4].iter().map(|upto| HEADER_BYTES..*upto);
    let of_old = [zero..end, zero..HEADER_BYTES, HEADER_BYTES..end].into_iter();
    for range in of_old.chain(chunks).chain(later).chain(earlier) {
        let mut body = new.clone();
        body[range.clone()].copy_from_slice(&old[range.clone()]);
        let missing = restore_of(&world, &hostile, &a, serving(&id, body), 3);
        assert_eq!(missing, ["one"], "{range:?} of the older version");
    }
    a.ok(&["restore", "whole"]);
    assert_same(&world.path("docs"), &world.path("whole/docs"));
}

/// Every byte of the header, and bytes of every chunk and its tag.
#[test]
fn row_08_flipped_bytes() {
    let (world, hostile, a) = two_files();
    let body = hostile.requests("POST /v1/vaults/{}/objects").pop().unwrap().body;
    let (_, size) = parse_frame_header(body[..FRAME_HEADER_BYTES].try_into().unwrap());
    let last = u64::from(size) - 1;
    let (header, chunk) = (HEADER_BYTES as u64, CHUNK_BYTES as u64);
    let of_chunks = (0..3).map(|index| header + index * chunk).flat_map(|at| [at, at + chunk - 1]);
    let places: Vec<u64> = (0..HEADER_BYTES as u64).chain(of_chunks).chain([last]).collect();
    for at in places {
        assert_eq!(restore(&world, &hostile, &a, rules("object-flipped", &At::number(at))), 2, "byte {at}");
    }
}

/// From the prefix on: 19 bytes, and 32 of the commitment.
fn place_of(object: &[u8]) -> Vec<u8> {
    object[HEADER_BYTES - 51..HEADER_BYTES].to_vec()
}

/// Every object that was sent framed: its id and its bytes.
fn framed(hostile: &Hostile) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for request in hostile.requests("POST /v1/vaults/{}/objects") {
        let mut rest = &request.body[..];
        while rest.len() >= FRAME_HEADER_BYTES {
            let (head, after) = rest.split_at(FRAME_HEADER_BYTES);
            let (blob, size) = parse_frame_header(head.try_into().unwrap());
            let (object, later) = after.split_at(size as usize);
            found.push((blob.to_string(), object.to_vec()));
            rest = later;
        }
    }
    found
}

/// Every piece of an object that was sent: prefix and commitment of the object, number of the part, bytes.
fn sent_pieces(hostile: &Hostile) -> Vec<(Vec<u8>, usize, Vec<u8>)> {
    let whole = framed(hostile).into_iter().map(|(_, object)| (place_of(&object), 0, object));
    let mut found: Vec<_> = whole.collect();
    // Parts come in their order: those behind the first belong to the header that came last.
    let mut begun = BTreeMap::new();
    for request in hostile.requests("PUT /v1/vaults/{}/uploads/{}/parts/{}") {
        let path: Vec<&str> = request.place().split('/').collect();
        let (blob, part) = (path[5].to_owned(), path[7].parse().unwrap());
        if part == 0 {
            begun.insert(blob.clone(), place_of(&request.body));
        }
        found.push((begun[&blob].clone(), part, request.body));
    }
    found
}

/// One prefix and commitment stand over one ciphertext only, ever; gives how many there are.
fn assert_no_reuse(hostile: &Hostile) -> usize {
    let mut seen: BTreeMap<(Vec<u8>, usize), Vec<u8>> = BTreeMap::new();
    for (place, part, bytes) in sent_pieces(hostile) {
        let known = seen.entry((place, part)).or_insert_with(|| bytes.clone());
        assert!(*known == bytes, "two ciphertexts under one key and nonce: part {part}");
    }
    seen.keys().filter(|(_, part)| *part == 0).count()
}

/// The end of an upload is lost, or refused; then the file changes, and changes back.
#[test]
fn lost_acknowledgements_of_uploads_repeat_no_key_and_nonce() {
    for (name, bytes) in [("complete-lost", 9_000_000), ("complete-refused", 9_000_000), ("framed", BYTES)] {
        let (world, hostile) = world_behind();
        let a = world.signup("a");
        document(&world, "f", &noise(1, bytes));
        let of = || match name {
            "framed" => rules("complete-lost", &At::number(1)),
            other => rules(other, &At::number(0)),
        };
        let mut tries = 0;
        for seed in [1, 2, 1, 3] {
            // One byte more, so that time and size tell that it changed.
            tries += 1;
            document(&world, "f", &noise(seed, bytes + tries));
            let hits = hostile.arm_all(of());
            let done = a.run(&["backup", "docs"]);
            hostile.disarm();
            assert_told(&hits);
            assert_ne!(done.status, Some(0), "{done:#?}");
            assert_no_reuse(&hostile);
        }
        // The contents of before under their old size, too.
        document(&world, "f", &noise(1, bytes + 1));
        a.backup("docs");
        assert!(assert_no_reuse(&hostile) >= 4, "{name}");
        assert_same(&world.path("docs"), &a.restore("out").join("docs"));
        a.ok(&["check", "--read-data"]);
    }
}
