//! Rows 22 and 21, what lengths tell: everything on the wire and at rest is of a bucket's size, which depends on the
//! length of the plaintext alone. Nothing is compressed; contents are known again within a vault only.

use super::tap::{Asked, Tap, tapped};
use crate::tree::{noise, write};
use crate::world::{Device, World};
use lockstep_proto::api::object::{BeginUpload, FRAME_HEADER_BYTES, parse_frame_header};
use lockstep_proto::api::vault::{PushCommit, StageEnvelopes};
use lockstep_proto::blob::{HEADER_BYTES, Layout, ObjectHeader};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::device_log::{DeviceLogEntry, Enrol, KIND_ENROL};
use lockstep_proto::envelope::{self, padded_size};
use std::collections::BTreeSet;

const TAG: usize = 16;
/// More than what rides inside a record, so that it becomes an object.
const LARGE: usize = 100_000;

fn is_bucket(bytes: usize) -> bool {
    padded_size(bytes as u64) == bytes as u64
}

/// An envelope's ciphertext is of a bucket, and what is round it of the same length always (but for the revision's and
/// epoch's own).
#[track_caller]
fn check_envelope(bytes: &[u8]) -> usize {
    let (envelope, _) = envelope::decode(bytes).unwrap();
    let plain = envelope.ciphertext.0.len() - TAG;
    assert!(is_bucket(plain), "an envelope of {plain} bytes");
    let round = bytes.len() - envelope.ciphertext.0.len();
    assert!((150..200).contains(&round), "{round} bytes round the ciphertext");
    plain
}

/// An object's plaintext is of a bucket.
#[track_caller]
fn check_object(size: usize, header: &[u8]) {
    let header = ObjectHeader::parse(header[..HEADER_BYTES].try_into().unwrap()).unwrap();
    let chunk = (1_usize << header.chunk_log2) + TAG;
    let chunks = (size - HEADER_BYTES).div_ceil(chunk);
    let plain = size - HEADER_BYTES - chunks * TAG;
    assert!(is_bucket(plain), "an object of {plain} bytes");
    assert_eq!(Layout::new(plain as u64, header.chunk_log2).unwrap().object_bytes, size as u64);
}

/// What requests carried: sizes of envelopes, and of objects.
#[derive(Default, Debug, PartialEq, Eq)]
struct Sizes {
    envelopes: Vec<usize>,
    objects: Vec<usize>,
}

fn measure(asked: &[Asked]) -> Sizes {
    let mut sizes = Sizes::default();
    let mut begun: Option<(usize, usize)> = None;
    for asked in asked.iter().filter(|asked| asked.method() != "GET" && asked.status < 300) {
        let route = asked.route();
        if route.ends_with("/commits") {
            let push = PushCommit::decode(&asked.body).unwrap();
            sizes.envelopes.extend(push.envelopes.iter().map(|envelope| check_envelope(&envelope.0)));
        } else if route.ends_with("/envelopes") {
            let staged = StageEnvelopes::decode(&asked.body).unwrap();
            sizes.envelopes.extend(staged.0.iter().map(|envelope| check_envelope(&envelope.0)));
        } else if route.ends_with("/objects") {
            let mut rest = asked.body.as_slice();
            while !rest.is_empty() {
                let (head, body) = rest.split_at(FRAME_HEADER_BYTES);
                let (_, size) = parse_frame_header(head.try_into().unwrap());
                let (object, after) = body.split_at(size as usize);
                check_object(object.len(), object);
                sizes.objects.push(object.len());
                rest = after;
            }
        } else if route.ends_with("/uploads") {
            let begin = BeginUpload::decode(&asked.body).unwrap();
            begun = Some((begin.size as usize, 0));
            sizes.objects.push(begin.size as usize);
        } else if route.contains("/parts/") {
            let (size, sent) = begun.as_mut().unwrap();
            if *sent == 0 {
                check_object(*size, &asked.body);
            }
            *sent += asked.body.len();
        } else if route.ends_with("/complete") {
            let (size, sent) = begun.take().unwrap();
            assert_eq!(size, sent, "the parts of an object");
        }
    }
    sizes
}

fn changes_of(tap: &Tap, device: &Device, arguments: &[&str]) -> Sizes {
    tap.take();
    device.ok(arguments);
    measure(&tap.take())
}

/// Device names are of one length.
fn check_names(world: &World) -> usize {
    let database = world.server.database();
    let mut rows = database.prepare("SELECT bytes FROM device_log").unwrap();
    let entries = rows.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    let entries = entries.map(|bytes| DeviceLogEntry::decode(&bytes.unwrap()).unwrap());
    let names = entries.filter(|entry| entry.kind == KIND_ENROL);
    names
        .map(|entry| assert_eq!(Enrol::decode(&entry.body.0).unwrap().name.ciphertext.0.len(), 64 + TAG))
        .count()
}

/// Sizes of all stored envelopes and objects.
fn at_rest(world: &World) -> (Vec<usize>, Vec<usize>) {
    let database = world.server.database();
    let mut rows =
        database.prepare("SELECT envelope FROM version UNION ALL SELECT envelope FROM staged").unwrap();
    let stored = rows.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    let stored = stored.map(|bytes| check_envelope(&bytes.unwrap())).collect();
    let mut rows = database.prepare("SELECT size FROM object").unwrap();
    let objects = rows.query_map([], |row| row.get::<_, i64>(0)).unwrap();
    (stored, objects.map(|size| usize::try_from(size.unwrap()).unwrap()).collect())
}

#[test]
fn row_22_every_size_on_the_wire_and_at_rest_is_of_a_bucket() {
    let (mut world, tap) = tapped();
    let a = world.device("a");
    let (passphrase, kit) = (world.text("passphrase"), world.text("kit"));
    let name = ["--device-name", "x"];
    a.ok(&[&["signup", "--name", "ada", "--passphrase-file", &passphrase, "--kit", &kit][..], &name].concat());
    for (number, size) in [0, 1, 255, 256, 257, 5000, 16_384, 16_385, 70_000, LARGE, 4_300_000, 9_000_001]
        .into_iter()
        .enumerate()
    {
        let path = format!("docs/{}{number}", "deep/".repeat(number));
        write(&world.path(&path), noise(number as u64, size));
    }
    a.backup("docs");
    for size in [0, 1, 100, 300, 1000, 10_000, 200_000] {
        a.put(&format!("record-{}", "x".repeat(size / 100 + 1)), &format!("\"{}\"", "y".repeat(size))).ok();
    }
    a.run_with(&["record", "put", "--type", "a-long-type-of-records", "--vault", "a vault's name"], "{}")
        .ok();
    let b = world.device("b");
    let long = "a device's name of more than sixty-four bytes, which is cut where it ends";
    b.ok(&["login", "--name", "ada", "--passphrase-file", &passphrase, "--device-name", long]);
    b.ok(&["device", "rename", "x", "another name"]);
    let sizes = measure(&tap.take());
    let distinct: BTreeSet<usize> = sizes.envelopes.iter().copied().collect();
    assert!(sizes.envelopes.len() > 25 && distinct.len() > 8, "{sizes:?}");
    assert!(sizes.objects.len() >= 5, "{sizes:?}");
    assert_eq!(check_names(&world), 2);
    // At rest, too: rows, and files of the bucket.
    let (stored, objects) = at_rest(&world);
    assert!(stored.len() >= sizes.envelopes.len() - 3, "{} of {}", stored.len(), sizes.envelopes.len());
    assert_eq!(objects.iter().copied().collect::<BTreeSet<_>>(), sizes.objects.iter().copied().collect());
    world.server.stop();
    let bucket: u64 = world.server.segments().iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(bucket as usize >= objects.iter().sum::<usize>());
}

/// Documents, names and contents of other lengths in one bucket look alike; of other buckets they do not.
#[test]
fn row_22_two_lengths_of_one_bucket_can_not_be_told_apart() {
    let (world, tap) = tapped();
    let a = world.signup("a");
    a.ok(&["vault", "create", "v"]);
    a.put("warm", "1").ok();
    let record = |id: &str, size: usize| {
        tap.take();
        a.put(id, &format!("\"{}\"", "z".repeat(size))).ok();
        let asked = tap.take();
        let bodies: Vec<usize> =
            asked.iter().filter(|one| one.method() == "POST").map(|one| one.body.len()).collect();
        (measure(&asked), bodies)
    };
    let short = record("a", 1);
    assert_eq!((short.0.envelopes.as_slice(), short.0.objects.len()), (&[256][..], 0));
    assert_eq!(record("a much longer name", 60), short);
    assert_ne!(record("b", 400).0, short.0);
    let file = |name: &str, contents: Vec<u8>| {
        let root = format!("root-{name}");
        write(&world.path(&format!("{root}/f")), contents);
        changes_of(&tap, &a, &["backup", &root])
    };
    let one = file("1", noise(1, LARGE));
    assert_eq!(one.objects.len(), 1, "{one:?}");
    assert_eq!(file("2", noise(2, LARGE + 1)).objects, one.objects);
    assert_eq!(file("3", noise(3, padded_size(LARGE as u64) as usize)).objects, one.objects);
    assert_ne!(file("4", noise(4, padded_size(LARGE as u64) as usize + 1)).objects, one.objects);
}

/// Rows that a compressor would make small are as large as noise: what somebody injects next to a secret changes no
/// length but by its own.
#[test]
fn row_21_nothing_is_compressed() {
    let (world, tap) = tapped();
    let a = world.signup("a");
    a.put("warm", "1").ok();
    let of_record = |id: &str, text: &str| {
        tap.take();
        a.put(id, &format!("\"{text}\"")).ok();
        measure(&tap.take()).envelopes
    };
    let hex = |seed: u64, size| crate::canary::hex(&noise(seed, size));
    let (same, random) = (of_record("a", &"0".repeat(4000)), of_record("b", &hex(1, 2000)));
    assert_eq!((same.len(), &same), (1, &random));
    // A guess beside the secret, right or wrong.
    let secret = hex(2, 1000);
    let guess = |guess: &str| format!("{secret}{guess}");
    let (right, wrong) = (of_record("c", &guess(&secret)), of_record("d", &guess(&hex(3, 1000))));
    assert_eq!(right, wrong);
    for (number, contents) in
        [vec![0; LARGE], noise(4, LARGE), b"ab".repeat(LARGE / 2)].into_iter().enumerate()
    {
        let root = format!("root-{number}");
        write(&world.path(&format!("{root}/f")), contents);
        let sizes = changes_of(&tap, &a, &["backup", &root]);
        assert_eq!(sizes.objects, [Layout::new(LARGE as u64, 16).unwrap().object_bytes as usize], "{number}");
    }
}

/// Contents that are there already, in another vault, under another account or sent by another device, are sent all the
/// same, as other bytes under another id. What a device sent itself into a vault it does not send into it again, unless it
/// is told to: who can place files in a folder that is backed up, and watches the wire, learns whether it was sent before.
#[test]
fn row_21_contents_that_others_sent_are_sent_again() {
    let (world, tap) = tapped();
    let a = world.signup("a");
    let contents = noise(1, LARGE);
    let mut sent = Vec::new();
    for vault in ["one", "two", "three"] {
        let root = format!("root-{vault}");
        write(&world.path(&format!("{root}/f")), &contents);
        tap.take();
        a.ok(&["backup", &root, "--vault", vault]);
        let asked = tap.take();
        assert_eq!(measure(&asked).objects.len(), 1, "{vault}");
        let frames = asked.iter().find(|asked| asked.route().ends_with("/objects")).unwrap();
        sent.push(frames.body.clone());
    }
    let id = |frames: &[u8]| frames[..16].to_vec();
    let header = |frames: &[u8]| frames[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + HEADER_BYTES].to_vec();
    let tail = |frames: &[u8]| frames[frames.len() - 1000..].to_vec();
    for (one, two) in [(0, 1), (0, 2), (1, 2)] {
        let (one, two) = (&sent[one], &sent[two]);
        assert_eq!(one.len(), two.len());
        assert!(id(one) != id(two) && header(one) != header(two) && tail(one) != tail(two));
    }
    let stranger = world.device("x");
    let passphrase = world.text("passphrase");
    stranger.ok(&["signup", "--name", "bob", "--passphrase-file", &passphrase, "--kit", "kit-2"]);
    let count = |device: &Device, arguments: &[&str]| {
        let changes =
            changes_of(&tap, device, &[&["backup", "root-one", "--vault", "one"], arguments].concat());
        assert!(!changes.envelopes.is_empty());
        changes.objects.len()
    };
    assert_eq!(count(&stranger, &[]), 1);
    let b = crate::revoke::login_as(&world, "b");
    assert_eq!(count(&b, &[]), 1, "what another device sent nobody here has seen");
    write(&world.path("root-one/copy"), &contents);
    assert_eq!(count(&a, &[]), 0, "it is there already, and was sent from here");
    write(&world.path("root-one/copy 2"), &contents);
    assert_eq!(count(&a, &["--no-deduplicate"]), 1, "nothing is learned of what is there");
    crate::tree::set_time(&world.path("root-one/f"), 1_600_000_000, 0);
    assert_eq!(count(&a, &["--no-deduplicate"]), 0, "its own contents of before");
    a.ok(&["check", "--read-data", "--vault", "one"]);
}
