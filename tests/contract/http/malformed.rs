//! Bodies that are not what a route takes: every one is refused with a problem document, none hangs,
//! none is a fault of the server.

use super::authority::{ROUTES, fill};
use super::{BackEnd, NAME, Running, Seeded, material, seed};
use crate::chain::put;
use crate::client::{Answer, Client};
use crate::world::{bytes_of, rng};
use lockstep_client_crypto::opaque;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_proto::Digest;
use lockstep_proto::api::account::{
    ChangeCredentials, DeleteAccount, DeleteVault, EnrolDevice, HealDevices, OpaqueStart, Recover,
};
use lockstep_proto::api::auth::{
    ACTION_CREDENTIALS, ACTION_DELETE_ACCOUNT, ACTION_DELETE_VAULT, ACTION_ENROL, ACTION_RECOVER,
    ACTION_REGISTER, ACTION_REVOKE, Authorised, DeviceLoginStart, LoginFinish, LoginStart, PURPOSE_DEVICE,
    RecoveryStart, RegisterFinish, RegisterStart, Statement,
};
use lockstep_proto::api::notice::{Heads, WaitForHeads};
use lockstep_proto::api::object::{BeginUpload, ObjectList};
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::vault::{CreateVault, GetEnvelopes, StageEnvelopes};
use lockstep_proto::cbor::{ByteArray, Wire as _};
use lockstep_proto::id::{BlobId, DeviceId, Seq, VaultId};
use lockstep_proto::limits::{COMMIT_BODY_BYTES_MAX, SMALL_BODY_BYTES_MAX, TINY_BODY_BYTES_MAX};

/// A route that takes CBOR: path, its largest body, a small body that decodes.
struct Taker {
    path: String,
    bytes_max: usize,
    valid: Vec<u8>,
}

fn sign_in_takers(seeded: &Seeded) -> Vec<(&'static str, usize, Vec<u8>)> {
    let (account, device) = (seeded.world.account, seeded.world.author.keys.id());
    let passphrase = Passphrase::new("a passphrase of some length").unwrap();
    let (_, request) = opaque::Registration::start(&passphrase, &mut rng(1)).unwrap();
    let (_, ke1) = opaque::Login::start(&passphrase, &mut rng(1)).unwrap();
    let statement = Statement {
        account,
        device,
        purpose: PURPOSE_DEVICE,
        server_nonce: Digest::ZERO,
        client_nonce: Digest::ZERO,
        signature: ByteArray([1; 64]),
    };
    let request = || request.clone().into();
    let start = RegisterStart { account, request: request() }.encode();
    let login = LoginStart { name: NAME.into(), ke1: ke1.into() }.encode();
    let finish = LoginFinish { login: Digest::ZERO, ke3: vec![1; 64].into() }.encode();
    let tiny = TINY_BODY_BYTES_MAX;
    vec![
        ("/v1/register/start", tiny, start),
        ("/v1/login/start", tiny, login),
        ("/v1/login/finish", tiny, finish),
        ("/v1/recovery/start", tiny, RecoveryStart { name: NAME.into() }.encode()),
        ("/v1/recovery/finish", tiny, statement.encode()),
        ("/v1/device-login/start", tiny, DeviceLoginStart { account, device: DeviceId::ZERO }.encode()),
        ("/v1/device-login/finish", tiny, statement.encode()),
        ("/v1/account/opaque", tiny, OpaqueStart { request: request() }.encode()),
    ]
}

fn identity_takers(seeded: &Seeded) -> Vec<(&'static str, usize, Vec<u8>)> {
    let enrolment = &material().enrolment;
    let (key_header, entry) = (enrolment.key_header.clone(), enrolment.entry.clone());
    let birth = seeded.world.birth(seeded.keyring, 1);
    let register = RegisterFinish {
        name: "another".into(),
        invite: String::new(),
        ticket: Digest::ZERO,
        opaque_record: vec![0; 192].into(),
        key_header: key_header.clone(),
        entry: entry.clone(),
        keyring_create: birth.create,
        keyring_genesis: birth.genesis,
    };
    let (ticket, opaque_record) = (Digest::ZERO, vec![0; 192].into());
    let recover = Recover { ticket, opaque_record, key_header: key_header.clone(), entry: entry.clone() };
    let signed = |bytes: Vec<u8>, action| {
        let action = material().unlocked.authorise(action, &bytes, 0, seeded.world.author.log_head);
        Authorised { bytes: bytes.into(), action }.encode()
    };
    let change = || EnrolDevice { key_header: key_header.clone(), entry: entry.clone() }.encode();
    let credentials =
        ChangeCredentials { record: None, key_header: key_header.clone(), entry: entry.clone() }.encode();
    let account = seeded.world.account;
    let delete = DeleteVault { vault: VaultId::from_bytes([0x52; 16]) }.encode();
    let small = SMALL_BODY_BYTES_MAX;
    vec![
        ("/v1/register/finish", small, signed(register.encode(), ACTION_REGISTER)),
        ("/v1/account/devices", small, signed(change(), ACTION_ENROL)),
        ("/v1/account/recover", small, signed(recover.encode(), ACTION_RECOVER)),
        ("/v1/account/devices/revoke", small, signed(change(), ACTION_REVOKE)),
        ("/v1/account/credentials", small, signed(credentials, ACTION_CREDENTIALS)),
        ("/v1/account/delete", small, signed(DeleteAccount { account }.encode(), ACTION_DELETE_ACCOUNT)),
        ("/v1/vaults/{v}/delete", small, signed(delete, ACTION_DELETE_VAULT)),
        ("/v1/heal/devices", small, HealDevices { account, entries: vec![entry], key_header }.encode()),
    ]
}

fn takers(seeded: &mut Seeded) -> Vec<Taker> {
    let mut takers = sign_in_takers(seeded);
    takers.extend(identity_takers(seeded));
    let birth = seeded.world.birth(VaultId::from_bytes([0x51; 16]), 1);
    let create = CreateVault { create: birth.create, genesis: birth.genesis };
    let draft = seeded.chain.draft(&seeded.world.author, &[put(1), put(2)]);
    let stage = StageEnvelopes(vec![draft.envelopes[0].clone().into()]);
    let begin = BeginUpload { blob: BlobId::from_bytes([2; 16]), size: 10, digest: Digest::ZERO };
    let get = GetEnvelopes(vec![(Seq::new(1), crate::chain::record(1))]);
    let push = draft.push(&seeded.world.author).encode();
    takers.push(("/v1/vaults", CreateVault::BYTES_MAX, create.encode()));
    takers.push(("/v1/vaults/{v}/envelopes", COMMIT_BODY_BYTES_MAX, stage.encode()));
    takers.push(("/v1/vaults/{v}/envelopes/get", GetEnvelopes::BYTES_MAX, get.encode()));
    takers.push(("/v1/vaults/{v}/commits", COMMIT_BODY_BYTES_MAX, push));
    let list = ObjectList(vec![BlobId::from_bytes([2; 16])]);
    takers.push(("/v1/vaults/{v}/objects/missing", ObjectList::BYTES_MAX, list.encode()));
    takers.push(("/v1/vaults/{v}/objects/get", ObjectList::BYTES_MAX, list.encode()));
    // It is answered at once: the keyring's head is none of those that are said.
    let wait = WaitForHeads { heads: Heads(vec![(VaultId::ZERO, Seq::new(1))]), seconds: 0 };
    takers.push(("/v1/events/wait", WaitForHeads::BYTES_MAX, wait.encode()));
    takers.push(("/v1/vaults/{v}/uploads", TINY_BODY_BYTES_MAX, begin.encode()));
    let covered = |path: &str| takers.iter().any(|(known, ..)| *known == path);
    for (_, path, _) in ROUTES.iter().filter(|(method, ..)| *method == "POST") {
        let takes_no_cbor = path.ends_with("/objects") || path.ends_with("/complete");
        assert!(takes_no_cbor || covered(path), "{path} is not tested");
    }
    let filled = takers.into_iter();
    filled
        .map(|(path, bytes_max, valid)| Taker { path: fill(path, seeded.keyring), bytes_max, valid })
        .collect()
}

/// Sends a body with the session that the route takes.
async fn send(running: &Running, seeded: &Seeded, taker: &Taker, body: &[u8]) -> Answer {
    running.forget_tries(NAME);
    session_for(seeded, taker).post_bytes(&taker.path, body).await
}

fn session_for<'a>(seeded: &'a Seeded, taker: &Taker) -> &'a Client {
    if taker.path.ends_with("/recover") { &seeded.provisional } else { &seeded.client }
}

/// Never CBOR of any structure of ours.
fn never_valid(random: &mut rand::rngs::ChaCha20Rng) -> Vec<(&'static str, Vec<u8>)> {
    let tagged = [0xd9, 0xd9, 0xf7].repeat(2000);
    let mut claims = vec![0x82];
    claims.extend_from_slice(&[0x5b, 0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let mut list_claims = vec![0x83, 0x9b, 0, 0, 0x0f];
    list_claims.extend_from_slice(&[0xff; 6]);
    vec![
        ("empty", Vec::new()),
        ("one byte", vec![0xff]),
        ("a map", vec![0xa0]),
        ("null", vec![0xf6]),
        ("a float", vec![0xfb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0]),
        ("deep arrays", vec![0x81; 8000]),
        ("deep endless arrays", vec![0x9f; 8000]),
        ("deep maps", vec![0xa1; 8000]),
        ("deep tags", tagged),
        ("an endless string", vec![0x5f; 8000]),
        ("a huge array", vec![0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("a huge string", vec![0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("a huge text", vec![0x7b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("a huge string inside", claims),
        ("a huge list inside", list_claims),
        ("random bytes", bytes_of(random, 200)),
        ("many random bytes", bytes_of(random, 8000)),
    ]
}

pub(super) async fn bytes_that_are_no_structure_are_malformed(on: BackEnd) {
    let running = Running::start_on(on).await;
    let mut seeded = seed(&running).await;
    let takers = takers(&mut seeded);
    let mut random = rng(6);
    for taker in &takers {
        for (what, body) in never_valid(&mut random) {
            let answer = send(&running, &seeded, taker, &body).await;
            assert_eq!(answer.status, 400, "{}: {what}", taker.path);
            answer.refused(Code::Malformed);
        }
        let client = session_for(&seeded, taker);
        for media in ["", "content-type: application/json\r\n", "content-type: application/cbor2\r\n"] {
            client.send("POST", &taker.path, media, &taker.valid).await.refused(Code::MediaType);
        }
    }
    let deep = vec![0x81; COMMIT_BODY_BYTES_MAX];
    let answer = seeded.client.post_bytes(&seeded.path("commits"), &deep).await;
    answer.refused(Code::Malformed);
    running.stop().await;
}

/// Not a fault of the server, and told in one of the known forms.
fn assert_told(answer: &Answer, what: &str) {
    assert!(answer.status < 500, "{what}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
    let is_page = answer.status == 409 && answer.header("content-type") == Some("application/cbor");
    if answer.status >= 300 && !is_page {
        answer.problem();
    }
}

pub(super) async fn cut_and_flipped_bodies_are_told_apart_from_faults(on: BackEnd) {
    let running = Running::start_on(on).await;
    let mut seeded = seed(&running).await;
    for taker in takers(&mut seeded) {
        let size = taker.valid.len();
        for cut in (0..size).step_by(size.div_ceil(24)).chain([size - 1]) {
            let answer = send(&running, &seeded, &taker, &taker.valid[..cut]).await;
            assert_eq!(answer.status, 400, "{} cut at {cut}", taker.path);
            answer.refused(Code::Malformed);
        }
        let mut longer = taker.valid.clone();
        longer.push(0);
        send(&running, &seeded, &taker, &longer).await.refused(Code::Malformed);
        // Small bodies byte by byte; of large ones the beginning, and a sample.
        let places = (0..size.min(48)).chain((48..size).step_by(size.div_ceil(64)));
        for (number, place) in places.enumerate() {
            let mut flipped = taker.valid.clone();
            flipped[place] ^= 1 << (number % 8);
            let answer = send(&running, &seeded, &taker, &flipped).await;
            assert_told(&answer, &format!("{} byte {place}", taker.path));
        }
    }
    assert_eq!(running.client.get("/readyz").await.status, 200);
    running.stop().await;
}

pub(super) async fn bodies_beyond_their_limit_are_too_large(on: BackEnd) {
    let running = Running::start_on(on).await;
    let mut seeded = seed(&running).await;
    for taker in takers(&mut seeded) {
        let client = session_for(&seeded, &taker);
        let over = vec![0; taker.bytes_max + 1];
        send(&running, &seeded, &taker, &over).await.refused(Code::TooLarge);
        let head = client.head("POST", &taker.path) + "content-type: application/cbor\r\n";
        let mut chunked =
            format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n", over.len()).into_bytes();
        chunked.extend_from_slice(&over);
        chunked.extend_from_slice(b"\r\n0\r\n\r\n");
        client.raw(&chunked, false).await.unwrap().refused(Code::TooLarge);
        // What is only claimed is not waited for, nor set memory aside for.
        for claimed in [taker.bytes_max as u64 + 1, 1 << 40, u64::MAX >> 1] {
            let claim = format!("{head}content-length: {claimed}\r\n\r\n");
            client.raw(claim.as_bytes(), true).await.unwrap().refused(Code::TooLarge);
        }
        let short = format!("{head}content-length: {}\r\n\r\n\u{1}", taker.valid.len());
        client.raw(short.as_bytes(), true).await.unwrap().refused(Code::Malformed);
    }
    running.stop().await;
}

pub(super) async fn raw_routes_refuse_nonsense(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let blob = BlobId::from_bytes([2; 16]);
    let begin = BeginUpload { blob, size: 12_345, digest: Digest::ZERO };
    assert_eq!(seeded.client.post(&seeded.path("uploads"), &begin).await.status, 200);
    let (frames, part) = (seeded.path("objects"), seeded.path(&format!("uploads/{blob}/parts/0")));
    for (what, body) in never_valid(&mut rng(6)) {
        let answer = seeded.client.send("POST", &frames, "", &body).await;
        assert_eq!(answer.status, 400, "{what}");
        answer.refused(Code::Malformed);
        seeded.client.send("PUT", &part, "", &body).await.refused(Code::Mismatch);
    }
    let over = vec![1; lockstep_proto::limits::PART_BYTES + 1];
    seeded.client.send("PUT", &part, "", &over).await.refused(Code::TooLarge);
    let mut large = Vec::new();
    for number in 0..3_u8 {
        let id = BlobId::from_bytes([number; 16]);
        let size = lockstep_proto::limits::PART_BYTES;
        large.extend_from_slice(&lockstep_proto::api::object::frame_header(id, size as u32));
        large.resize(large.len() + size, number);
    }
    seeded.client.send("POST", &frames, "", &large).await.refused(Code::TooLarge);
    assert_eq!(running.stored_segments(), 0);
    running.stop().await;
}
