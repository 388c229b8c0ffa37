//! The library itself: its list of scenarios is the one that its documentation has, and its views go to whom they are
//! for.

use lockstep_proto::Digest;
use lockstep_proto::api::auth::{DeviceLoginStart, Session};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::{AccountId, DeviceId};
use lockstep_tests::hostile::{Hostile, Reply, Rule, scenario};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

#[test]
fn every_scenario_is_documented_and_has_a_name_of_its_own() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/hostile/README.md")).unwrap();
    let mut names = BTreeSet::new();
    for one in scenario::all() {
        assert!(names.insert(one.name), "{} is there twice", one.name);
        assert!(text.contains(&format!("`{}`", one.name)), "{} is not documented", one.name);
        assert!(!(one.rules)(&scenario::At::default()).is_empty());
    }
}

/// A server that gives one answer to everybody.
fn upstream(body: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut some = [0; 4096];
            let _ = client.read(&mut some);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = client.write_all(head.as_bytes());
            let _ = client.write_all(&body);
        }
    });
    address
}

fn ask(origin: &str, head: &str, body: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(origin.strip_prefix("http://").unwrap()).unwrap();
    let text = format!("{head}\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(text.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn a_device_with_a_view_of_its_own_gets_it_before_and_after_it_signs_in() {
    let hostile = Hostile::start();
    let device = DeviceId::from_bytes([1; 16]);
    let session = Session {
        token: "of-the-device".into(),
        account: AccountId::from_bytes([2; 16]),
        device,
        kind: 2,
        expires_utc: 0,
    };
    hostile.set_upstream(&upstream(b"everybody's".to_vec()));
    hostile.set_view(device, &upstream(session.encode()));
    let start = DeviceLoginStart { account: session.account, device }.encode();
    let post = "POST /v1/device-login/start HTTP/1.1";
    assert!(ask(&hostile.origin, post, &start).ends_with(&session.encode()));
    let get = |token: &str| format!("GET /v1/vaults HTTP/1.1\r\nauthorization: Bearer {token}");
    assert!(ask(&hostile.origin, &get("of-the-device"), b"").ends_with(&session.encode()));
    assert!(ask(&hostile.origin, &get("of-another"), b"").ends_with(b"everybody's"));
}

#[test]
fn scenarios_are_armed_and_the_record_is_read_over_http() {
    let hostile = Hostile::start();
    hostile.set_upstream(&upstream(Digest::ZERO.as_bytes().to_vec()));
    let text = |answer: Vec<u8>| String::from_utf8_lossy(&answer).into_owned();
    let armed = ask(&hostile.origin, "POST /hostile/arm HTTP/1.1", b"{\"scenario\":\"complete-refused\"}");
    assert!(text(armed).contains("\"armed\":\"complete-refused\""));
    let wrong = ask(&hostile.origin, "POST /hostile/arm HTTP/1.1", b"{\"scenario\":\"none\"}");
    assert!(text(wrong).starts_with("HTTP/1.1 400"));
    let refused = ask(&hostile.origin, "POST /v1/vaults/v/uploads/b/complete HTTP/1.1\r\nx-name: x", b"abc");
    assert!(text(refused).starts_with("HTTP/1.1 422"));
    let requests = text(ask(&hostile.origin, "GET /hostile/requests HTTP/1.1", b""));
    for part in ["\"body\":\"616263\"", "\"status\":422", "x-name", "\"rules\":[\"complete-refused\"]"] {
        assert!(requests.contains(part), "{requests}");
    }
    let hits = text(ask(&hostile.origin, "GET /hostile/hits HTTP/1.1", b""));
    assert!(hits.contains("\"hits\":1"), "{hits}");
    ask(&hostile.origin, "POST /hostile/reset HTTP/1.1", b"");
    assert!(text(ask(&hostile.origin, "GET /hostile/requests HTTP/1.1", b"")).ends_with("[]"));
    assert!(text(ask(&hostile.origin, "GET /hostile/scenarios HTTP/1.1", b"")).contains("wrap-flipped"));
}

#[test]
fn a_rule_says_raw_bytes_a_number_of_times() {
    let hostile = Hostile::start();
    hostile.set_upstream(&upstream(b"honest".to_vec()));
    let rule = Rule::before("raw", |_| Some(Reply::Raw(b"no HTTP at all".to_vec()))).times(1);
    let hits = hostile.arm(rule);
    assert_eq!(ask(&hostile.origin, "GET /v1/server HTTP/1.1", b""), b"no HTTP at all");
    assert!(ask(&hostile.origin, "GET /v1/server HTTP/1.1", b"").ends_with(b"honest"));
    assert_eq!(hits.count(), 1);
}
