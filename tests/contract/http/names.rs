//! What strangers learn about names: nothing (registration apart), and guessing gets slower.

use super::account::register;
use super::{BackEnd, NAME, Running, seed};
use crate::client::Answer;
use crate::world::{bytes_of, rng};
use lockstep_client_crypto::CryptoRng;
use lockstep_client_crypto::opaque;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_proto::Digest;
use lockstep_proto::api::auth::{
    LoginFinish, LoginStart, LoginStarted, PURPOSE_RECOVERY, RecoveryStart, RecoveryStarted, Statement,
};
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::{ByteArray, Wire as _};
use lockstep_proto::id::{AccountId, DeviceId};

/// Everything of an answer that must not tell names apart: status, header names, sizes.
fn shape(answer: &Answer) -> (u16, Vec<String>, usize) {
    let mut names: Vec<String> = answer.headers.iter().map(|(name, _)| name.clone()).collect();
    names.sort();
    (answer.status, names, answer.body.len())
}

/// A wrong passphrase for a name, all the way: the answers, and the account id that was told.
async fn guess(running: &Running, name: &str, rng: &mut dyn CryptoRng) -> (Vec<Answer>, AccountId) {
    let passphrase = Passphrase::new("not the passphrase").unwrap();
    let (login, ke1) = opaque::Login::start(&passphrase, rng).unwrap();
    let start = LoginStart { name: name.into(), ke1: ke1.into() };
    let first = running.client.post("/v1/login/start", &start).await;
    let started: LoginStarted = first.ok();
    let failed = login.finish(&passphrase, started.account, &running.origin, &started.ke2.0, rng);
    assert!(matches!(failed, Err(lockstep_client_crypto::CryptoError::Open(_))), "the client sees one error");
    let finish = LoginFinish { login: started.login, ke3: vec![7; 64].into() };
    let second = running.client.post("/v1/login/finish", &finish).await;
    let third = running.client.post("/v1/recovery/start", &RecoveryStart { name: name.into() }).await;
    let recovery: RecoveryStarted = third.ok();
    assert_eq!(recovery.account, started.account, "both ways tell the same id");
    let statement = Statement {
        account: recovery.account,
        device: DeviceId::ZERO,
        purpose: PURPOSE_RECOVERY,
        server_nonce: recovery.nonce,
        client_nonce: Digest::ZERO,
        signature: ByteArray([7; 64]),
    };
    let fourth = running.client.post("/v1/recovery/finish", &statement).await;
    (vec![first, second, third, fourth], started.account)
}

pub(super) async fn unknown_names_look_like_wrong_passphrases(on: BackEnd) {
    let running = Running::start_on(on).await;
    let owner = register(&running, "known", "a passphrase of some length", 8).await;
    let mut rng = rng(9);
    let (known, account) = guess(&running, "known", &mut rng).await;
    assert_eq!(account, owner.unlocked.account());
    let (unknown, fake) = guess(&running, "nobody", &mut rng).await;
    for (known, unknown) in known.iter().zip(&unknown) {
        assert_eq!(shape(known), shape(unknown));
        if known.status != 200 {
            known.refused(Code::Unauthenticated);
            assert_eq!(known.body, unknown.body);
        }
    }
    assert_ne!(fake, account);
    let (again, same) = guess(&running, "nobody", &mut rng).await;
    assert_eq!(same, fake, "an unknown name keeps its id");
    assert_ne!(again[0].body, unknown[0].body, "but no answer repeats");
    let (_, other) = guess(&running, "somebody", &mut rng).await;
    assert_ne!(other, fake);
    let running = Running::start_in(running.stop().await).await;
    let start = RecoveryStart { name: "nobody".into() };
    let started: RecoveryStarted = running.client.post("/v1/recovery/start", &start).await.ok();
    assert_eq!(started.account, fake, "across restarts, too");
    running.stop().await;
}

pub(super) async fn guessing_is_slowed_down_for_any_name(on: BackEnd) {
    let running = Running::start_on(on).await;
    seed(&running).await;
    let (_, ke1) =
        opaque::Login::start(&Passphrase::new("not the passphrase").unwrap(), &mut rng(3)).unwrap();
    for name in [NAME, "nobody"] {
        let start = LoginStart { name: name.into(), ke1: ke1.clone().into() };
        let mut free = 0;
        let slowed = loop {
            let answer = running.client.post("/v1/login/start", &start).await;
            if answer.status != 200 {
                break answer;
            }
            free += 1;
            assert!(free < 20, "{name} is never slowed down");
        };
        assert!(free >= 3, "a few tries are free");
        slowed.refused(Code::Throttled);
        let wait: u64 = slowed.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait));
        let recovery = RecoveryStart { name: name.into() };
        running.client.post("/v1/recovery/start", &recovery).await.ok::<RecoveryStarted>();
    }
    let start = LoginStart { name: "third".into(), ke1: ke1.into() };
    running.client.post("/v1/login/start", &start).await.ok::<LoginStarted>();
    running.stop().await;
}

/// A name that can not exist costs no memory and no row: else a flood of 8 KiB names fills both.
pub(super) async fn names_that_can_not_exist_are_malformed(on: BackEnd) {
    let running = Running::start_on(on).await;
    let mut random = rng(4);
    let (_, ke1) =
        opaque::Login::start(&Passphrase::new("not the passphrase").unwrap(), &mut random).unwrap();
    let long = "x".repeat(65);
    let longer: String =
        bytes_of(&mut random, 3000).iter().map(|byte| char::from(b'a' + byte % 26)).collect();
    for name in ["", "UPPER", "with space", ".dot", "n\u{e4}me", "nul\0", &long, &longer] {
        let start = LoginStart { name: name.into(), ke1: ke1.clone().into() };
        let answer = running.client.post("/v1/login/start", &start).await;
        assert_eq!(answer.status, 400, "{} bytes: {name:.20}", name.len());
        answer.refused(Code::Malformed);
        let start = RecoveryStart { name: name.into() };
        running.client.post_bytes("/v1/recovery/start", &start.encode()).await.refused(Code::Malformed);
    }
    running.stop().await;
}
