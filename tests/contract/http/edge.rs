//! The edge of the server: TLS, reverse proxies, pages of other origins.

use super::{BackEnd, Place, Running};
use crate::client::Answer;
use crate::folder::Folder;
use lockstep_proto::api::auth::RegisterStart;
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::server::ServerInfo;
use lockstep_proto::id::AccountId;
use lockstep_server::Server;
use lockstep_server::config::{Config, Database};
use lockstep_server::cors::CorsOrigins;
use lockstep_server::proxy::TrustedProxies;
use lockstep_server::tls::TlsFiles;
use lockstep_tests::tls::Certificate;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;

fn files(folder: &Path) -> TlsFiles {
    TlsFiles { cert: folder.join("cert.pem"), key: folder.join("key.pem") }
}

async fn encrypted(certificate: &Certificate) -> Running {
    let folder = Folder::new();
    let files = files(folder.path());
    certificate.write(&files.cert, &files.key);
    let database = Database::Sqlite(folder.path().join("data/test.sqlite"));
    Running::start_in(Place::at(folder, database).with(|config| config.tls = Some(files))).await
}

/// Asks over TLS, trusting one certificate.
async fn get(running: &Running, certificate: &Arc<Certificate>, path: &'static str) -> io::Result<String> {
    let (address, certificate) = (running.client.address, Arc::clone(certificate));
    tokio::task::spawn_blocking(move || certificate.connect(address)?.get(path)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_come_encrypted_and_in_no_other_way() {
    let certificate = Arc::new(Certificate::default());
    let running = encrypted(&certificate).await;
    assert_eq!(running.origin, format!("https://{}", running.client.address));
    // Who shakes no hands keeps nobody else waiting.
    let silent = TcpStream::connect(running.client.address).await.unwrap();
    let answer = get(&running, &certificate, "/healthz").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");
    let address = running.client.address;
    let trusted = Arc::clone(&certificate);
    let protocol =
        tokio::task::spawn_blocking(move || trusted.connect(address).unwrap().protocol().map(<[u8]>::to_vec));
    assert_eq!(protocol.await.unwrap().as_deref(), Some(&b"http/1.1"[..]));
    assert!(get(&running, &Arc::default(), "/healthz").await.is_err(), "another certificate");
    let plain = format!("{}\r\n", running.client.head("GET", "/healthz"));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut answer = Vec::new();
    tokio::io::AsyncWriteExt::write_all(&mut stream, plain.as_bytes()).await.unwrap();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await;
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    drop(silent);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_taken_and_a_broken_one_is_not() {
    let (old, new, other) =
        (Arc::<Certificate>::default(), Arc::<Certificate>::default(), Certificate::default());
    let running = encrypted(&old).await;
    let tls = running.tls.clone().unwrap();
    let files = files(running.place.folder.path());
    let address = running.client.address;
    let trusted = Arc::clone(&old);
    let open = tokio::task::spawn_blocking(move || trusted.connect(address).unwrap()).await.unwrap();

    new.write(&files.cert, &files.key);
    tls.reload().unwrap();
    get(&running, &new, "/healthz").await.unwrap();
    assert!(get(&running, &old, "/healthz").await.is_err(), "the old one is no longer shown");
    let answer = tokio::task::spawn_blocking(move || open.get("/healthz")).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "a connection that was open goes on: {answer}");

    let spare = files.cert.with_extension("spare");
    let spoil: [(&str, &dyn Fn()); 4] = [
        ("key.pem", &|| other.write(&files.cert, &spare)),
        ("cert.pem", &|| std::fs::write(&files.cert, "nonsense").unwrap()),
        ("key.pem", &|| {
            new.write(&files.cert, &files.key);
            std::fs::write(&files.key, "").unwrap();
        }),
        ("cert.pem", &|| std::fs::remove_file(&files.cert).unwrap()),
    ];
    for (name, spoil) in spoil {
        spoil();
        let error = tls.reload().unwrap_err().to_string();
        assert!(error.contains(name) && !error.contains("PRIVATE"), "{error}");
        get(&running, &new, "/healthz").await.unwrap();
    }
    other.write(&files.cert, &files.key);
    tls.reload().unwrap();
    get(&running, &Arc::new(other), "/healthz").await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_certificate_the_server_does_not_start() {
    let folder = Folder::new();
    let data = folder.path().join("data").display().to_string();
    let mut config = Config::load(None, |name| (name == "LOCKSTEP_DATA").then(|| data.clone())).unwrap();
    config.listen = ([127, 0, 0, 1], 0).into();
    config.tls = Some(files(folder.path()));
    let error = Server::bind(&config).await.err().unwrap().to_string();
    assert!(error.contains("cert.pem") && !folder.path().join("data").exists(), "{error}");
}

/// Begins to register; says what came of it.
async fn try_register(running: &Running, forwarded: &str) -> Answer {
    let start = RegisterStart { account: AccountId::from_bytes([1; 16]), request: vec![0; 32].into() };
    let body = lockstep_proto::cbor::Wire::encode(&start);
    let headers = format!("content-type: application/cbor\r\nx-forwarded-for: {forwarded}\r\n");
    running.client.send("POST", "/v1/register/start", &headers, &body).await
}

/// How many of twenty tries were slowed down.
async fn slowed(running: &Running, forwarded: impl Fn(u8) -> String) -> usize {
    let mut count = 0;
    for number in 0..20 {
        if try_register(running, &forwarded(number)).await.status == 429 {
            count += 1;
        }
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_trusted_proxy_each_client_is_slowed_down_by_itself() {
    let trust = |config: &mut Config| config.trusted_proxies = TrustedProxies::parse("127.0.0.1").unwrap();
    let running = Running::start_in(Place::new(BackEnd::Sqlite).with(trust)).await;
    assert_eq!(slowed(&running, |number| format!("198.51.100.{number}")).await, 0);
    let spoofing = |number| format!("203.0.113.{number}, 192.0.2.1");
    assert!(slowed(&running, spoofing).await > 0, "one client that makes others up");
    try_register(&running, "192.0.2.1").await.refused(Code::Throttled);
    assert_ne!(try_register(&running, "192.0.2.2").await.status, 429);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_is_believed() {
    for trusted in ["", "127.0.0.2, 10.0.0.0/8, ::1"] {
        let trust = |config: &mut Config| config.trusted_proxies = TrustedProxies::parse(trusted).unwrap();
        let running = Running::start_in(Place::new(BackEnd::Sqlite).with(trust)).await;
        assert!(slowed(&running, |number| format!("198.51.100.{number}")).await > 0, "{trusted}");
        running.stop().await;
    }
}

const PAGE: &str = "https://app.example.org";

async fn with_pages() -> Running {
    let origins = format!("{PAGE}, http://localhost:5173");
    let allow = |config: &mut Config| config.cors_origins = CorsOrigins::parse(&origins).unwrap();
    Running::start_in(Place::new(BackEnd::Sqlite).with(allow)).await
}

fn preflight(origin: &str) -> String {
    format!(
        "origin: {origin}\r\naccess-control-request-method: PUT\r\naccess-control-request-headers: range\r\n"
    )
}

fn allowances(answer: &Answer) -> Vec<&str> {
    let names = answer.headers.iter().map(|(name, _)| name.as_str());
    names.filter(|name| name.starts_with("access-control-")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listed_page_is_told_what_it_may() {
    let running = with_pages().await;
    for origin in [PAGE, "http://localhost:5173"] {
        let answer = running.client.send("OPTIONS", "/v1/vaults", &preflight(origin), b"").await;
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        let methods = answer.header("access-control-allow-methods").unwrap();
        let headers = answer.header("access-control-allow-headers").unwrap();
        assert!(["GET", "POST", "PUT", "DELETE"].iter().all(|method| methods.contains(method)));
        let needed = ["authorization", "content-type", "range", "if-match", "if-none-match"];
        assert!(needed.iter().all(|name| headers.contains(name)), "{headers}");
        assert!(answer.header("vary").unwrap().contains("origin"));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        let from = format!("origin: {origin}\r\n");
        let answer = running.client.send("GET", "/v1/server", &from, b"").await;
        answer.ok::<ServerInfo>();
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        assert_eq!(answer.header("vary"), Some("origin"));
        let refused = running.client.send("GET", "/v1/vaults", &from, b"").await;
        refused.refused(Code::Unauthenticated);
        let exposed = refused.header("access-control-expose-headers").unwrap();
        assert!(
            ["content-range", "retry-after", "www-authenticate"].iter().all(|name| exposed.contains(name))
        );
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_other_page_gets_nothing() {
    let running = with_pages().await;
    for origin in [
        "https://evil.example",
        "https://app.example.org.evil.example",
        "null",
        "*",
        "HTTPS://APP.EXAMPLE.ORG",
    ] {
        let answer = running.client.send("OPTIONS", "/v1/vaults", &preflight(origin), b"").await;
        answer.refused(Code::MethodNotAllowed);
        assert_eq!(allowances(&answer), [""; 0], "{origin}");
        assert!(answer.header("vary").unwrap().contains("origin"));
        let answer = running.client.send("GET", "/v1/server", &format!("origin: {origin}\r\n"), b"").await;
        answer.ok::<ServerInfo>();
        assert_eq!(allowances(&answer), [""; 0], "{origin}");
        assert_eq!(answer.header("vary"), Some("origin"));
    }
    let no_preflight =
        running.client.send("OPTIONS", "/v1/vaults", &format!("origin: {PAGE}\r\n"), b"").await;
    no_preflight.refused(Code::MethodNotAllowed);
    assert_eq!(allowances(&running.client.get("/v1/server").await), [""; 0]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_nothing_listed_there_is_no_word_of_it() {
    let running = Running::start_on(BackEnd::Sqlite).await;
    let answer = running.client.send("OPTIONS", "/v1/vaults", &preflight(PAGE), b"").await;
    answer.refused(Code::MethodNotAllowed);
    assert_eq!((allowances(&answer), answer.header("vary")), (Vec::new(), None));
    let answer = running.client.send("GET", "/v1/server", &format!("origin: {PAGE}\r\n"), b"").await;
    assert_eq!((allowances(&answer), answer.header("vary")), (Vec::new(), None));
    running.stop().await;
}
