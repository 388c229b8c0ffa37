//! Row 23, user enumeration: who asks with a name that exists and who asks with one that does not get answers of one
//! shape, at the price of the same operations.

use crate::program::poll;
use crate::world::World;
use lockstep_client_crypto::opaque;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_proto::Digest;
use lockstep_proto::api::auth::{
    DeviceLoginStart, DeviceLoginStarted, LoginFinish, LoginStart, LoginStarted, PURPOSE_DEVICE,
    PURPOSE_RECOVERY, RecoveryStart, RecoveryStarted, Statement,
};
use lockstep_proto::cbor::{ByteArray, Wire};
use lockstep_proto::id::{AccountId, DeviceId};
use rand::SeedableRng as _;
use rand::rngs::ChaCha20Rng;
use std::io::{Read as _, Write as _};

/// What a stranger sees of an answer, and what it cost.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: String,
    headers: Vec<String>,
    size: usize,
    /// Every operation on the database, by its statement.
    work: Vec<String>,
}

fn log_len(world: &World) -> usize {
    world.server.log.metadata().unwrap().len() as usize
}

/// Lines that the server logged since a place in its log.
fn logged(world: &World, from: usize) -> Vec<serde_json::Value> {
    let log = std::fs::read(&world.server.log).unwrap();
    let lines = log[from..].split(|byte| *byte == b'\n');
    lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// The statements among them, but for those round every write, and those of the server's own jobs.
fn statements(lines: &[serde_json::Value]) -> Vec<String> {
    let of_queries = lines.iter().filter(|line| line["target"] == "sqlx::query");
    let texts = of_queries.map(|line| match line["db.statement"].as_str().unwrap().trim() {
        "" => line["summary"].as_str().unwrap().to_owned(),
        text => text.split_whitespace().collect::<Vec<_>>().join(" "),
    });
    let is_round =
        |text: &str| ["SAVEPOINT", "RELEASE", "BEGIN", "COMMIT"].iter().any(|word| text.starts_with(word));
    let is_job = |text: &str| text.contains("segment") || text.contains("expires_utc <=");
    texts.filter(|text| !is_round(text) && !is_job(text)).collect()
}

/// Asks, and counts what that costs.
fn ask<A: Wire>(world: &World, path: &str, body: &impl Wire) -> (Seen, Option<A>) {
    let from = log_len(world);
    let address = world.server.address();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let body = body.encode();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/cbor\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let text = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut lines = text.lines();
    let status = lines.next().unwrap().to_owned();
    let mut headers: Vec<String> = lines
        .map(|line| if line.starts_with("date:") { "date".to_owned() } else { line.to_owned() })
        .collect();
    headers.sort();
    // The last line of a request is the one about it.
    let is_done = |lines: &[serde_json::Value]| lines.iter().any(|line| line["route"] == path);
    assert!(poll(20, || is_done(&logged(world, from))), "{path} is not logged");
    let work = statements(&logged(world, from));
    (Seen { status, headers, size: answer.len() - end, work }, A::decode(&answer[end + 4..]).ok())
}

/// All that can be asked without a session: what is seen of it, and the ids that were told.
fn everything(world: &World, name: &str, device: DeviceId) -> (Vec<Seen>, Vec<AccountId>) {
    let passphrase = Passphrase::new("not the passphrase").unwrap();
    let (_, ke1) = opaque::Login::start(&passphrase, &mut ChaCha20Rng::from_seed([3; 32])).unwrap();
    let (one, login) =
        ask::<LoginStarted>(world, "/v1/login/start", &LoginStart { name: name.into(), ke1: ke1.into() });
    let login = login.unwrap();
    let finish = LoginFinish { login: login.login, ke3: vec![7; 64].into() };
    let (two, none) = ask::<LoginStarted>(world, "/v1/login/finish", &finish);
    assert!(none.is_none());
    let (three, recovery) =
        ask::<RecoveryStarted>(world, "/v1/recovery/start", &RecoveryStart { name: name.into() });
    let recovery = recovery.unwrap();
    let statement = |account, device, purpose, server_nonce| Statement {
        account,
        device,
        purpose,
        server_nonce,
        client_nonce: Digest::ZERO,
        signature: ByteArray([7; 64]),
    };
    let signed = statement(recovery.account, DeviceId::ZERO, PURPOSE_RECOVERY, recovery.nonce);
    let (four, _) = ask::<LoginStarted>(world, "/v1/recovery/finish", &signed);
    let account = login.account;
    let (five, started) =
        ask::<DeviceLoginStarted>(world, "/v1/device-login/start", &DeviceLoginStart { account, device });
    let signed = statement(account, device, PURPOSE_DEVICE, started.unwrap().nonce);
    let (six, _) = ask::<LoginStarted>(world, "/v1/device-login/finish", &signed);
    (vec![one, two, three, four, five, six], vec![account, recovery.account])
}

#[test]
fn row_23_known_and_unknown_names_get_the_same_answers_for_the_same_work() {
    let mut world = World::with(&[("LOCKSTEP_LOG", "info,sqlx=debug")]);
    let a = world.signup("a");
    let own: DeviceId = crate::revoke::id_of(&a).parse().unwrap();
    let other = DeviceId::from_bytes([9; 16]);
    // What is done once by a connection is done before anything is counted.
    everything(&world, "warm", other);
    everything(&world, "ada", own);
    let (known, ids) = everything(&world, "ada", own);
    assert_eq!((ids[0], ids[0]), (ids[1], crate::revoked_keys::account_of(&world.server.database())));
    assert!(known.iter().all(|seen| !seen.work.is_empty()), "nothing is counted: {known:#?}");
    assert!(known[0].status.contains("200") && known[1].status.contains("401"), "{known:#?}");
    let (unknown, fake) = everything(&world, "nobody", other);
    assert_eq!(known, unknown);
    assert!(fake[0] == fake[1] && fake[0] != ids[0]);
    // A device that there is not, of an account that there is.
    assert_eq!(everything(&world, "ada", other).0, known);
    let (again, same) = everything(&world, "nobody", other);
    assert_eq!((again, same), (unknown, fake.clone()));
    assert_ne!(everything(&world, "somebody", other).1, fake);
    world.server.stop();
    world.server.restart();
    assert_eq!(everything(&world, "nobody", other).1, fake, "the same id after a restart");
}
