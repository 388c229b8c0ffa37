//! Row 7 of the attack catalogue, ciphertext before proof of the passphrase: without a sign-in that was finished nothing
//! is served, and guessing gets slower without locking anybody out.

use super::authority::{Needs, ROUTES, fill};
use super::{BackEnd, NAME, Running, seed};
use crate::world::rng;
use lockstep_client_crypto::opaque;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_proto::api::auth::{
    DeviceLoginStart, DeviceLoginStarted, LoginFinish, LoginStart, LoginStarted, RecoveryStart,
    RecoveryStarted,
};
use lockstep_proto::api::problem::Code;
use lockstep_server::domain::throttle::{DELAY_SECONDS_MAX, FREE_TRIES};
use std::collections::BTreeSet;

const SPECIFICATION: &str = include_str!("../../../docs/PROTOCOL.md");

/// Method and path, places as `{}`, without a query.
fn plain(method: &str, path: &str) -> String {
    let path = path.split('?').next().unwrap();
    let parts: Vec<&str> = path.split('/').collect();
    let parts = parts.into_iter().map(|part| match part {
        _ if part.starts_with('{') => "{}",
        // The one index that the table below fills in.
        "0" => "{}",
        other => other,
    });
    format!("{method} {}", parts.collect::<Vec<_>>().join("/"))
}

/// Routes of the specification's table.
fn specified() -> BTreeSet<String> {
    let (_, section) = SPECIFICATION.split_once("### 12.2 Routes").unwrap();
    let (section, _) = section.split_once("```cddl").unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let mut found = BTreeSet::new();
    for cell in cells {
        let words: Vec<&str> = cell.split(['`', ' ', ',']).filter(|word| !word.is_empty()).collect();
        let path = words.iter().find(|word| word.starts_with('/')).unwrap();
        for method in words.iter().filter(|word| ["GET", "POST", "PUT", "DELETE"].contains(word)) {
            found.insert(plain(method, path));
        }
    }
    found
}

/// The table that every test of authority goes through is the specification's.
#[test]
fn row_07_every_route_of_the_specification_is_asked() {
    let asked: BTreeSet<String> = ROUTES.iter().map(|(method, path, _)| plain(method, path)).collect();
    let mut expected = specified();
    assert!(expected.len() > 35, "{expected:?}");
    expected.extend(["GET /healthz", "GET /readyz"].map(str::to_owned));
    assert_eq!(asked, expected);
    let open = ROUTES.iter().filter(|(.., needs)| *needs == Needs::Nothing).map(|(_, path, _)| *path);
    let allowed = [
        "/healthz",
        "/readyz",
        "/v1/server",
        "/v1/events",
        "/v1/register/",
        "/v1/login/",
        "/v1/recovery/",
        "/v1/device-login/",
        "/v1/heal/",
    ];
    for path in open {
        assert!(allowed.iter().any(|start| path.starts_with(start)), "{path} is open");
    }
}

/// With what a sign-in has told before it is finished, used as a token in every way, and after it was finished wrongly.
pub(super) async fn row_07_a_sign_in_that_is_not_finished_opens_nothing(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let passphrase = Passphrase::new("not the passphrase").unwrap();
    let (_, ke1) = opaque::Login::start(&passphrase, &mut rng(7)).unwrap();
    let start = LoginStart { name: NAME.into(), ke1: ke1.into() };
    let begun: LoginStarted = running.client.post("/v1/login/start", &start).await.ok();
    let recovery: RecoveryStarted =
        running.client.post("/v1/recovery/start", &RecoveryStart { name: NAME.into() }).await.ok();
    let (account, device) = (seeded.world.account, seeded.world.author.keys.id());
    let device_login: DeviceLoginStarted =
        running.client.post("/v1/device-login/start", &DeviceLoginStart { account, device }).await.ok();
    let refused: LoginStarted = running.client.post("/v1/login/start", &start).await.ok();
    let finish = LoginFinish { login: refused.login, ke3: vec![7; 64].into() };
    running.client.post("/v1/login/finish", &finish).await.refused(Code::Unauthenticated);
    // A second try at what was finished wrongly is no try.
    running.client.post("/v1/login/finish", &finish).await.refused(Code::Unauthenticated);
    let told = [begun.login, recovery.nonce, device_login.nonce, refused.login];
    let mut tokens = vec![None];
    tokens.extend(told.iter().map(|digest| Some(digest.to_string())));
    tokens.extend(told.iter().map(|digest| Some(base64(digest.as_bytes()))));
    tokens.push(Some(base64(&begun.ke2.0[..32])));
    let mut asked = 0;
    for (method, path, _) in ROUTES.iter().filter(|(.., needs)| *needs != Needs::Nothing) {
        let path = fill(path, seeded.keyring);
        for token in &tokens {
            let client =
                token.as_deref().map_or_else(|| running.client.clone(), |token| running.client.with(token));
            let answer = client.send(method, &path, "", b"").await;
            answer.refused(Code::Unauthenticated);
            let text = String::from_utf8_lossy(&answer.body);
            assert!(answer.body.len() < 400 && !text.contains(&account.to_string()), "{text}");
            asked += 1;
        }
    }
    assert!(asked > 250);
    // The same requests are answered to who did finish.
    let answer = seeded.client.get("/v1/account/devices").await;
    assert_eq!(answer.status, 200);
    running.stop().await;
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().div_ceil(3) * 3, 0);
    let digits = padded.chunks_exact(3).flat_map(|c| {
        let bits = u32::from(c[0]) << 16 | u32::from(c[1]) << 8 | u32::from(c[2]);
        [18, 12, 6, 0].map(|shift| DIGITS[(bits >> shift & 63) as usize] as char)
    });
    digits.take((bytes.len() * 8).div_ceil(6)).collect()
}

/// The delays that strangers get for one name: they double, and end at a minute; its owner's device is not slowed.
pub(super) async fn row_07_delays_grow_and_are_capped(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let passphrase = Passphrase::new("not the passphrase").unwrap();
    let (_, ke1) = opaque::Login::start(&passphrase, &mut rng(7)).unwrap();
    let start = LoginStart { name: NAME.into(), ke1: ke1.into() };
    let mut delays = Vec::new();
    for _ in 0..FREE_TRIES {
        assert_eq!(running.client.post("/v1/login/start", &start).await.status, 200);
    }
    // The clock of the tries is a while ahead, and moved on by as much as was asked for each time, as who waits would.
    let mut ahead = 100;
    for _ in 0..10 {
        let now = lockstep_server::time::now_utc() + ahead;
        running.app.names.try_now(NAME.as_bytes(), now).unwrap();
        let answer = running.client.post("/v1/login/start", &start).await;
        answer.refused(Code::Throttled);
        let told: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        delays.push(told - ahead);
        ahead = told;
    }
    let expected = [1, 2, 4, 8, 16, 32, 60, 60, 60, 60];
    assert_eq!(DELAY_SECONDS_MAX, 60);
    for (told, expected) in delays.iter().zip(expected) {
        // The real clock goes on meanwhile.
        assert!(*told <= expected && told + 2 > expected, "{delays:?}");
    }
    // Other ways in are open all the while.
    let (account, device) = (seeded.world.account, seeded.world.author.keys.id());
    running
        .client
        .post("/v1/device-login/start", &DeviceLoginStart { account, device })
        .await
        .ok::<DeviceLoginStarted>();
    running
        .client
        .post("/v1/recovery/start", &RecoveryStart { name: NAME.into() })
        .await
        .ok::<RecoveryStarted>();
    assert_eq!(seeded.client.get("/v1/vaults").await.status, 200);
    running.stop().await;
}
