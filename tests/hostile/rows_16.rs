//! Row 16, a revoked party keeps access: it gets nothing from an honest server, takes nothing from a colluding one, and
//! old membership that is served again is refused. That nothing of the database opens for it is in `revoked_keys.rs`.

use super::tap::{Lie, Tap, cbor, head_of, tapped};
use crate::revoke::{id_of, login_as, revoke};
use crate::revoked_keys::device_log;
use crate::world::{Device, World};
use lockstep_proto::Signed;
use lockstep_proto::api::account::Devices;
use lockstep_proto::cbor::Wire as _;
use std::io::{Read as _, Write as _};

fn token(device: &Device) -> String {
    std::fs::read_to_string(device.home.join("session")).unwrap().trim().to_owned()
}

/// Status of a request with a token.
fn status(world: &World, path: &str, token: &str) -> u16 {
    let address = world.server.address();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer)[9..12].parse().unwrap()
}

/// Files of a home, whose contents may not change by a refusal; the database as its rows.
fn held(device: &Device) -> Vec<(String, i64)> {
    let database = rusqlite::Connection::open(device.home.join("replica.sqlite")).unwrap();
    let mut tables = database.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").unwrap();
    let names: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    names
        .into_iter()
        .map(|name| {
            let text = format!("SELECT count(*) FROM \"{name}\"");
            let count = database.query_row(&text, [], |row| row.get(0)).unwrap();
            (name, count)
        })
        .collect()
}

#[test]
fn row_16_a_revoked_device_is_served_nothing_and_takes_nothing_that_is_lent_to_it() {
    let (world, tap) = tapped();
    let a = world.signup("a");
    let c = login_as(&world, "c");
    a.put("n", "\"before\"").ok();
    assert_eq!(c.get("n"), "\"before\"");
    let (old, id) = (token(&c), id_of(&c));
    let mut paths: Vec<String> = tap
        .take()
        .iter()
        .filter(|asked| asked.method() == "GET" && asked.path() != "/v1/server")
        .map(|asked| asked.path().to_owned())
        .collect();
    paths.sort();
    paths.dedup();
    assert!(paths.len() > 5 && paths.iter().all(|path| status(&world, path, &old) == 200), "{paths:?}");
    revoke(&world, &a, "c").ok();
    a.put("n", "\"after\"").ok();
    for path in &paths {
        assert_eq!(status(&world, path, &old), 401, "{path}");
    }
    // A server that takes its side lends it the session of another device: it is shown everything, and the log tells it.
    tap.lend(&token(&a));
    tap.take();
    for _ in 0..2 {
        c.run(&["status"]).ends(5, &["revoked"]);
        let done = c.run(&["record", "get", "--type", "note", "--id", "n"]);
        assert!(!done.out.contains("after"), "{done:?}");
    }
    assert!(
        tap.take().iter().any(|asked| asked.method() == "GET" && asked.status == 200),
        "nothing was lent"
    );
    tap.be_honest();
    assert_eq!(a.get("n"), "\"after\"");
    let log = device_log(
        &world.server.database(),
        *crate::revoked_keys::header(&world.server.database()).identity(),
    );
    assert!(log.device(id.parse().unwrap()).unwrap().revoked.is_some());
}

/// The device log and key header as they are at the server now.
fn membership(world: &World) -> (Vec<Signed>, Signed) {
    let database = world.server.database();
    let mut rows = database.prepare("SELECT bytes, signature FROM device_log ORDER BY position").unwrap();
    let signed = |bytes: Vec<u8>, signature: Vec<u8>| Signed {
        bytes: bytes.into(),
        signature: lockstep_proto::cbor::ByteArray(signature.try_into().unwrap()),
    };
    let entries = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let entries =
        entries.map(|row| row.unwrap()).map(|(bytes, signature)| signed(bytes, signature)).collect();
    let text = "SELECT key_header, key_header_signature FROM account";
    let (bytes, signature) = database.query_row(text, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    (entries, signed(bytes, signature))
}

/// Serves a device log of so many entries with a key header.
fn serve(tap: &Tap, entries: Vec<Signed>, key_header: Signed) {
    tap.lie(move |asked| {
        if !asked.path().starts_with("/v1/account/devices") || asked.method() != "GET" {
            return None;
        }
        let from = asked.path().split("from=").nth(1).map_or(0, |from| from.parse().unwrap());
        let rest = entries.iter().skip(from).cloned().collect();
        let total = entries.len() as u64;
        Some(cbor(&Devices { total, entries: rest, key_header: key_header.clone() }.encode()))
    });
}

#[test]
fn row_16_old_membership_that_is_served_again_is_refused() {
    let (world, tap) = tapped();
    let a = world.signup("a");
    let (b, c) = (login_as(&world, "b"), login_as(&world, "c"));
    a.put("n", "1").ok();
    for device in [&b, &c] {
        device.ok(&["status"]);
    }
    let (old_log, old_header) = membership(&world);
    revoke(&world, &a, "c").ok();
    b.put("n", "2").ok();
    let (log, header) = membership(&world);
    assert_eq!(log.len(), old_log.len() + 1);
    let before = held(&b);
    let cases = [
        ("the old log and header", old_log.clone(), old_header.clone(), "went back in time"),
        ("the new log, the old header", log.clone(), old_header.clone(), "key header"),
        ("the old log, the new header", old_log.clone(), header, "went back in time"),
    ];
    for (what, entries, key_header, text) in cases {
        serve(&tap, entries, key_header);
        tap.take();
        for arguments in [vec!["device", "list"], vec!["status"]] {
            let lies = tap.lies();
            let done = b.run(&arguments);
            if tap.lies() == lies {
                continue;
            }
            assert_eq!(done.status, Some(6), "{what}: {done:?}");
            assert!(done.err.contains(text), "{what}: {done:?}");
        }
        assert!(tap.lies() > 0, "{what}: the log was never asked for");
        assert!(
            tap.take().iter().all(|asked| !asked.route().ends_with("/commits") || asked.method() == "GET")
        );
        assert_eq!(held(&b), before, "{what}");
    }
    // Who never saw the revocation is told by the vaults, which are under keys made after it.
    serve(&tap, old_log, old_header);
    let d = world.device("d");
    let done = d.try_login(&world.text("passphrase"));
    assert_eq!(done.status, Some(6), "{done:?}");
    let asked = tap.take();
    assert!(asked.iter().any(|asked| asked.route() == "POST /v1/login/finish"));
    assert!(
        asked.iter().all(|asked| asked.route() != "POST /v1/account/devices"),
        "it enrolled on an old log"
    );
    // No log at all is no membership, either.
    tap.lie(|asked| {
        let is_log = asked.method() == "GET" && asked.path().starts_with("/v1/account/devices");
        is_log.then(|| Lie::Raw(head_of(404, "application/problem+json", "content-length: 0\r\n")))
    });
    let done = world.device("e").try_login(&world.text("passphrase"));
    assert!(done.status.is_some_and(|status| status != 0), "{done:?}");
    tap.be_honest();
    d.try_login(&world.text("passphrase")).ok();
    assert_eq!((b.get("n"), d.get("n")), ("2".into(), "2".into()));
}
