//! Who may ask what: the whole route table, without a session, with a provisional one, with another
//! account's, with a wrong method, with bad ids.

use super::{BackEnd, Running, Seeded, seed};
use crate::client::{Answer, Client};
use crate::world::{World, rng};
use lockstep_proto::api::auth::{SESSION_DEVICE, Session};
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::vault::{Page, VaultLog, Vaults};
use lockstep_proto::id::{SessionId, VaultId};
use lockstep_proto::{Digest, label};
use lockstep_server::extract::session::open_session;
use lockstep_server::store::SessionRow;

/// Whom a route serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    AnySession,
    /// A provisional session for the keyring vault only.
    AnySessionOfVault,
    Device,
}

use Needs::{AnySession, AnySessionOfVault, Device, Nothing};

/// Every route; `{v}` a vault, `{b}` an object, `{r}` a record, `{s}` a session.
pub(super) const ROUTES: &[(&str, &str, Needs)] = &[
    ("GET", "/healthz", Nothing),
    ("GET", "/readyz", Nothing),
    ("GET", "/v1/server", Nothing),
    ("POST", "/v1/register/start", Nothing),
    ("POST", "/v1/register/finish", Nothing),
    ("POST", "/v1/login/start", Nothing),
    ("POST", "/v1/login/finish", Nothing),
    ("POST", "/v1/recovery/start", Nothing),
    ("POST", "/v1/recovery/finish", Nothing),
    ("POST", "/v1/device-login/start", Nothing),
    ("POST", "/v1/device-login/finish", Nothing),
    ("GET", "/v1/session", AnySession),
    ("POST", "/v1/account/opaque", AnySession),
    ("GET", "/v1/account/devices", AnySession),
    ("POST", "/v1/account/devices", AnySession),
    ("POST", "/v1/account/recover", AnySession),
    ("GET", "/v1/account/usage", Device),
    ("GET", "/v1/account/sessions", Device),
    ("DELETE", "/v1/account/sessions/{s}", Device),
    ("POST", "/v1/account/devices/revoke", Device),
    ("POST", "/v1/account/credentials", Device),
    ("POST", "/v1/account/delete", Device),
    ("POST", "/v1/heal/devices", Nothing),
    // A socket says in its first message whose it is; see the tests of notices.
    ("GET", "/v1/events", Nothing),
    ("POST", "/v1/events/wait", Device),
    ("GET", "/v1/vaults", AnySession),
    ("POST", "/v1/vaults", Device),
    ("POST", "/v1/vaults/{v}/delete", Device),
    ("GET", "/v1/vaults/{v}/log", AnySessionOfVault),
    ("POST", "/v1/vaults/{v}/envelopes", Device),
    ("POST", "/v1/vaults/{v}/envelopes/get", AnySessionOfVault),
    ("GET", "/v1/vaults/{v}/commits", AnySessionOfVault),
    ("POST", "/v1/vaults/{v}/commits", Device),
    ("GET", "/v1/vaults/{v}/state?upto=0", AnySessionOfVault),
    ("GET", "/v1/vaults/{v}/records/{r}/history", AnySessionOfVault),
    ("POST", "/v1/vaults/{v}/objects", Device),
    ("POST", "/v1/vaults/{v}/objects/missing", Device),
    ("POST", "/v1/vaults/{v}/objects/get", Device),
    ("GET", "/v1/vaults/{v}/objects/{b}", Device),
    ("POST", "/v1/vaults/{v}/uploads", Device),
    ("PUT", "/v1/vaults/{v}/uploads/{b}/parts/0", Device),
    ("POST", "/v1/vaults/{v}/uploads/{b}/complete", Device),
    ("DELETE", "/v1/session", AnySession),
];

const ID: &str = "0b0b0b0b-0b0b-0b0b-0b0b-0b0b0b0b0b0b";

pub(super) fn fill(path: &str, vault: VaultId) -> String {
    path.replace("{v}", &vault.to_string()).replace("{b}", ID).replace("{r}", ID).replace("{s}", ID)
}

async fn ask(client: &Client, method: &str, path: &str) -> Answer {
    let headers = if method == "GET" { "" } else { "content-type: application/cbor\r\n" };
    client.send(method, path, headers, if method == "GET" { b"" } else { b"\x80" }).await
}

pub(super) async fn without_a_session_nothing_is_served(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let token = seeded.client.token.clone().unwrap();
    let expired = SessionRow {
        token_hash: Digest::of(label::LOCAL_SESSION, &[9; 32]),
        account: seeded.world.account,
        device: seeded.world.author.keys.id(),
        kind: SESSION_DEVICE,
        id: SessionId::from_bytes([9; 16]),
        created_utc: 0,
        used_utc: 0,
        expires_utc: 1,
    };
    running.app.store.put_session(expired).await.unwrap();
    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
    let wrong = [
        String::new(),
        bearer(""),
        bearer("CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk"),
        bearer(&"A".repeat(43)),
        bearer(&token[..42]),
        bearer(&format!("{token}A")),
        bearer(&format!("{token}=")),
        bearer(&"A".repeat(9000)),
        format!("authorization: bearer {token}\r\n"),
        format!("authorization: Basic {token}\r\n"),
        format!("x-authorization: Bearer {token}\r\n"),
        "authorization: Bearer \u{e4}\r\n".to_owned(),
    ];
    let mut bodies = Vec::new();
    for (method, path, needs) in ROUTES {
        let path = fill(path, seeded.keyring);
        for headers in &wrong {
            let answer = running.client.send(method, &path, headers, b"").await;
            if *needs == Nothing {
                assert_ne!(answer.status, 401, "{method} {path}");
            } else {
                assert_eq!(answer.status, 401, "{method} {path} {headers}");
                answer.refused(Code::Unauthenticated);
                bodies.push(answer.body);
            }
        }
        assert_ne!(ask(&seeded.client, method, &path).await.status, 401, "{method} {path}");
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "one answer, whatever is wrong");
    seeded.client.get("/v1/session").await.refused(Code::Unauthenticated);
    running.stop().await;
}

pub(super) async fn a_provisional_session_sees_the_keyring_and_no_more(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let vault = VaultId::from_bytes([0x21; 16]);
    running.app.store.create_vault(seeded.world.account, seeded.world.birth(vault, 2)).await.unwrap();
    let client = &seeded.provisional;
    for (method, path, needs) in ROUTES.iter().filter(|(_, path, _)| *path != "/v1/session") {
        for (vault, is_keyring) in [(seeded.keyring, true), (vault, false), (VaultId::ZERO, false)] {
            let answer = ask(client, method, &fill(path, vault)).await;
            let refused = match needs {
                Device => true,
                AnySessionOfVault => !is_keyring,
                Nothing | AnySession => false,
            };
            assert_eq!(answer.status == 403, refused, "{method} {path} {is_keyring}");
            if refused {
                answer.refused(Code::Forbidden);
            }
            assert!(answer.status < 500, "{method} {path}");
        }
    }
    assert_eq!(client.get("/v1/vaults").await.ok::<Vaults>().0.len(), 2);
    assert_eq!(client.get(&seeded.path("log")).await.ok::<VaultLog>().0.len(), 1);
    assert_eq!(client.get(&seeded.path("commits")).await.ok::<Page>().commits.len(), 1);
    running.stop().await;
}

pub(super) async fn another_account_finds_nothing(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let other = World::new(77);
    running.app.store.register(other.registration("other")).await.unwrap();
    let session: Session =
        open_session(&running.app, other.account, Some(other.author.keys.id())).await.unwrap();
    let client = running.client.with(&session.token);
    let vaults: Vaults = client.get("/v1/vaults").await.ok();
    assert_eq!(vaults.0.iter().map(|row| row.vault).collect::<Vec<_>>(), [other.keyring()]);
    for (method, path, _) in ROUTES.iter().filter(|(_, path, _)| path.contains("{v}")) {
        let wanted = fill(path, seeded.keyring);
        let body = if *method == "GET" { b"".as_slice() } else { valid_body(path) };
        let answer = client.send(method, &wanted, "content-type: application/cbor\r\n", body).await;
        // A commit is decoded before its vault is looked at by nobody: 404 comes first everywhere.
        if !path.ends_with("/commits") || *method == "GET" {
            assert_eq!(answer.status, 404, "{method} {path}");
        }
        assert!((400..500).contains(&answer.status), "{method} {path}: {}", answer.status);
        answer.problem();
    }
    running.stop().await;
}

/// A body that decodes, so that it is not what is refused.
fn valid_body(path: &str) -> &'static [u8] {
    match path.rsplit('/').next() {
        Some("uploads") => {
            b"\x83\x50\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x01\x58\x20\
              0123456789abcdef0123456789abcdef"
        }
        Some("delete") => {
            b"\x82\x41\x80\x58\x40\
              0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
        }
        _ => b"\x80",
    }
}

pub(super) async fn unknown_routes_and_methods_are_told_apart(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    for path in ["/", "/v1", "/v1/", "/v2/server", "/v1/vaults/", "/v1/server/", "/V1/server"] {
        for client in [&running.client, &seeded.client] {
            for method in ["GET", "POST", "DELETE"] {
                client.send(method, path, "", b"").await.refused(Code::NotFound);
            }
        }
    }
    for (_, path, _) in ROUTES {
        let bare = path.split('?').next().unwrap();
        let known: Vec<_> =
            ROUTES.iter().filter(|(_, other, _)| other.split('?').next() == Some(bare)).collect();
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "NONSENSE"] {
            if known.iter().all(|(other, ..)| *other != method) {
                let answer = seeded.client.send(method, &fill(path, seeded.keyring), "", b"").await;
                assert_eq!(answer.status, 405, "{method} {path}");
                answer.refused(Code::MethodNotAllowed);
                assert!(answer.header("allow").is_some(), "RFC 9110: 405 names what is allowed");
            }
        }
    }
    running.stop().await;
}

/// Places in paths and queries that hold no id, or no number.
fn spoilt_paths(seeded: &Seeded) -> Vec<String> {
    let mut paths = Vec::new();
    let id = seeded.keyring.to_string();
    let bad = [
        "x".to_owned(),
        id.to_uppercase(),
        id.replace('-', ""),
        format!("{id}0"),
        id[..35].to_owned(),
        format!("%7b{id}%7d"),
        "%00".to_owned(),
        "%ff%fe".to_owned(),
        "..%2f..%2fetc%2fpasswd".to_owned(),
        "a".repeat(4000),
    ];
    for (method, path, _) in ROUTES {
        for bad in &bad {
            for place in ["{v}", "{b}", "{r}", "{s}"] {
                if path.contains(place) {
                    let filled = fill(&path.replace(place, bad), seeded.keyring);
                    paths.push(format!("{method} {filled}"));
                }
            }
        }
    }
    for index in ["x", "-1", "18446744073709551616", "1e3", "%30x", "9223372036854775807"] {
        paths.push(format!("PUT {}", seeded.path(&format!("uploads/{ID}/parts/{index}"))));
    }
    let most = u64::MAX;
    for query in [
        "commits?after=x",
        "commits?after=-1",
        "commits?after=18446744073709551616",
        "commits?bogus=1",
        "commits?after=1&after=2",
        "state",
        "state?upto=x",
        "state?upto=0&from-seq=0",
        "state?upto=0&from-record=0b0b0b0b-0b0b-0b0b-0b0b-0b0b0b0b0b0b",
        "state?upto=0&from-seq=0&from-record=x",
        "state?upto=0&current=perhaps",
        "state?upto=0&bogus=1",
        "state?upto=1",
        &format!("state?upto={most}"),
        &format!("state?upto=0&after={most}"),
        &format!("state?upto=0&from-seq={most}&from-record={ID}"),
    ] {
        paths.push(format!("GET {}", seeded.path(query)));
    }
    for query in ["from=x", "from=-1", "bogus=1", &format!("from={most}")] {
        paths.push(format!("GET /v1/account/devices?{query}"));
    }
    paths
}

pub(super) async fn bad_places_are_refused(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    // Something to upload a part of, so that only its index is wrong.
    let blob = ID.parse().unwrap();
    let key = running.app.store.vault(seeded.world.account, seeded.keyring).await.unwrap().unwrap().key;
    let digest = crate::world::digest(&mut rng(1));
    running.app.store.begin_object(key, blob, 10, digest, 1).await.unwrap();
    for line in spoilt_paths(&seeded) {
        let (method, path) = line.split_once(' ').unwrap();
        let body = valid_body(path.split('?').next().unwrap());
        let body = if method == "GET" { b"".as_slice() } else { body };
        let answer = seeded.client.send(method, path, "content-type: application/cbor\r\n", body).await;
        assert!(matches!(answer.status, 400 | 404), "{line:.120}: {}", answer.status);
        assert!(matches!(answer.problem(), Code::Malformed | Code::NotFound), "{line:.120}");
    }
    running.stop().await;
}
