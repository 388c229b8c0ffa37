//! `lockstep watch`: changes are printed as they arrive, over a socket or without one.

use crate::heal::heal;
use crate::program::{Running, poll};
use crate::revoke::{login_as, revoke};
use crate::tree::write;
use crate::world::{Device, World};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

const SECONDS_MAX: u64 = 60;

fn watch(device: &Device, arguments: &[&str]) -> Running {
    let mut all = vec!["watch"];
    all.extend(arguments);
    let running = device.start(&all);
    assert!(poll(SECONDS_MAX, || running.said().contains("watching")), "{}", running.said());
    running
}

/// Waits for a number of lines, and gives all.
#[track_caller]
fn lines(running: &Running, count: usize) -> Vec<Value> {
    let came = poll(SECONDS_MAX, || running.printed().lines().count() >= count);
    assert!(came, "{} lines are missing: {} {}", count, running.printed(), running.said());
    running.printed().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn changes_are_printed_as_they_arrive() {
    let world = World::new();
    let (a, b) = (world.signup("a"), world.login("b"));
    a.put("before", "1").ok();
    let running = watch(&b, &[]);
    a.put("n", "1").ok();
    let line = &lines(&running, 1)[0];
    assert_eq!((&line["vault"], &line["type"], &line["id"]), (&"files".into(), &"note".into(), &"n".into()));
    assert_eq!(
        (&line["own"], &line["deleted"], &line["revision"]),
        (&false.into(), &false.into(), &1.into())
    );
    // Its home is nobody's meanwhile: other commands go on there.
    b.put("n", "2").ok();
    let line = &lines(&running, 2)[1];
    assert_eq!((&line["own"], &line["revision"]), (&true.into(), &2.into()));
    a.ok(&["record", "rm", "--type", "note", "--id", "n"]);
    let line = &lines(&running, 3)[2];
    assert_eq!((&line["deleted"], &line["id"]), (&true.into(), &"n".into()));
    write(&world.path("docs/photo"), "of somebody");
    a.backup("docs");
    let came = poll(SECONDS_MAX, || running.printed().contains("\"path\":\"photo\""));
    assert!(came, "{}", running.printed());
    let all = running.printed();
    assert!(!all.contains("before") && all.matches("\"id\":\"n\"").count() == 3, "{all}");
    running.interrupt();
    running.done().ok();
}

#[test]
fn one_vault_is_followed_if_told_so_and_must_be_there() {
    let world = World::new();
    let (a, b) = (world.signup("a"), world.login("b"));
    a.ok(&["vault", "create", "other"]);
    a.put("n", "1").ok();
    b.run(&["watch", "--vault", "nothing"]).ends(11, &["there is no vault \"nothing\""]);
    let running = watch(&b, &["--vault", "other"]);
    a.put("n", "2").ok();
    a.run_with(&["record", "put", "--vault", "other", "--type", "note", "--id", "m"], "1").ok();
    let line = &lines(&running, 1)[0];
    assert_eq!((&line["vault"], &line["id"]), (&"other".into(), &"m".into()));
    running.interrupt();
    let done = running.done().ok();
    assert_eq!(done.out.lines().count(), 1, "{done:#?}");
}

#[test]
fn a_server_that_goes_away_is_waited_for() {
    let mut world = World::new();
    let (a, b) = (world.signup("a"), world.login("b"));
    a.put("n", "1").ok();
    let running = watch(&b, &[]);
    // It listens by then, and its connection ends without a word.
    a.put("n", "2").ok();
    lines(&running, 1);
    world.server.kill();
    assert!(poll(SECONDS_MAX, || running.said().contains("it is tried again")), "{}", running.said());
    world.server.restart();
    a.put("n", "3").ok();
    assert_eq!(lines(&running, 2)[1]["revision"], 3);
    assert!(poll(SECONDS_MAX, || running.said().contains("is there again")), "{}", running.said());
    running.interrupt();
    running.done().ok();
}

/// Of a vault that shows something that nobody signed it is told that it does, and the others go on.
#[test]
fn a_vault_that_can_not_be_synced_does_not_end_it() {
    let world = World::new();
    let (a, b) = (world.signup("a"), world.login("b"));
    a.put("n", "1").ok();
    a.ok(&["vault", "create", "other"]);
    a.run_with(&["record", "put", "--vault", "other", "--type", "note", "--id", "m"], "1").ok();
    let text = "SELECT h.vault, h.seq, h.signature FROM commit_header h JOIN vault v ON v.id = h.vault
                WHERE v.is_keyring = 0 AND h.seq = v.seq ORDER BY v.id DESC LIMIT 1";
    let (vault, seq, signature): (i64, i64, Vec<u8>) = world
        .server
        .database()
        .query_row(text, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap();
    let sign = |signature: &[u8]| {
        let bytes = world.server.literal(signature);
        let changed = world.server.change(&format!(
            "UPDATE commit_header SET signature = {bytes} WHERE vault = {vault} AND seq = {seq}"
        ));
        assert_eq!(changed, 1);
    };
    sign(&[7; 64]);
    let mut running = watch(&b, &[]);
    assert!(running.said().contains("vault other: "), "{}", running.said());
    a.put("n", "2").ok();
    let line = &lines(&running, 1)[0];
    assert_eq!((&line["vault"], &line["id"], &line["revision"]), (&"files".into(), &"n".into(), &2.into()));
    assert!(running.is_running());
    // It is tried again, and its change is told then.
    sign(&signature);
    let line = &lines(&running, 2)[1];
    assert_eq!((&line["vault"], &line["id"]), (&"other".into(), &"m".into()));
    assert!(
        poll(SECONDS_MAX, || running.said().contains("vault other is in sync again")),
        "{}",
        running.said()
    );
    running.interrupt();
    running.done().ok();
}

/// A server that goes back in time is not followed.
#[test]
fn a_server_that_went_back_ends_it() {
    let mut world = World::new();
    let (a, b) = (world.signup("a"), world.login("b"));
    a.put("n", "1").ok();
    assert_eq!(b.get("n"), "1");
    let copy = world.path("copy");
    world.server.back_up(&copy);
    a.put("n", "2").ok();
    let running = watch(&b, &[]);
    world.server.put_back(&copy, true, true);
    running.done().ends(6, &["went back in time"]);
}

/// What was printed and is gone back over later is not passed over in silence.
#[test]
fn what_a_repair_takes_back_is_said() {
    let mut world = World::new();
    let owner = world.signup("a");
    let (revoked, good) = (login_as(&world, "b"), login_as(&world, "c"));
    owner.put("n", "1").ok();
    for device in [&good, &revoked] {
        assert_eq!(device.get("n"), "1");
    }
    let copy = world.path("copy");
    world.server.back_up(&copy);
    revoke(&world, &owner, "b").ok();
    // The server forgets the revocation, which the good device has not seen either.
    world.server.put_back(&copy, true, true);
    let running = watch(&good, &[]);
    revoked.put("late", "1").ok();
    assert_eq!(lines(&running, 1)[0]["id"], "late");
    heal(&world, &owner).ok();
    let line = &lines(&running, 2)[1];
    assert_eq!((&line["repaired"], &line["vault"]), (&true.into(), &"files".into()));
    owner.put("n", "2").ok();
    let came = poll(SECONDS_MAX, || running.printed().contains("\"id\":\"n\""));
    assert!(came, "{}", running.printed());
    running.interrupt();
    running.done().ok();
    good.run(&["record", "get", "--type", "note", "--id", "late"]).ends(11, &[]);
}

/// Something on the way that knows no WebSockets: it leaves the header out that asks for one.
struct NoSockets {
    origin: String,
    upstream: Arc<OnceLock<String>>,
    waited: Arc<AtomicU64>,
}

impl NoSockets {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let (upstream, waited) = (Arc::new(OnceLock::<String>::new()), Arc::new(AtomicU64::new(0)));
        let (server, counted) = (Arc::clone(&upstream), Arc::clone(&waited));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(upstream) = TcpStream::connect(server.get().unwrap()) else { continue };
                let (client_end, upstream_end) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
                let counted = Arc::clone(&counted);
                std::thread::spawn(move || copy(client, upstream, |bytes| without_upgrade(bytes, &counted)));
                std::thread::spawn(move || copy(upstream_end, client_end, |bytes| bytes));
            }
        });
        Self { origin, upstream, waited }
    }
}

fn without_upgrade(bytes: Vec<u8>, waited: &AtomicU64) -> Vec<u8> {
    let text = String::from_utf8_lossy(&bytes);
    if text.starts_with("POST /v1/events/wait ") {
        waited.fetch_add(1, Ordering::Relaxed);
    }
    if text.starts_with("GET /v1/events ") {
        return text.replace("websocket", "something").into_bytes();
    }
    bytes
}

fn copy(mut from: TcpStream, mut to: TcpStream, mut change: impl FnMut(Vec<u8>) -> Vec<u8>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&change(buffer[..count].to_vec())).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[test]
fn without_sockets_requests_wait() {
    let between = NoSockets::start();
    let world = World::with(&[("LOCKSTEP_PUBLIC_URL", &between.origin)]);
    between.upstream.set(world.server.address().to_owned()).unwrap();
    let (a, b) = (world.signup("a"), world.login("b"));
    a.put("n", "1").ok();
    let running = watch(&b, &[]);
    for revision in 2..=3 {
        a.put("n", "2").ok();
        assert_eq!(lines(&running, revision - 1)[revision - 2]["revision"], revision);
    }
    assert!(between.waited.load(Ordering::Relaxed) > 0, "no request waited");
    running.interrupt();
    running.done().ok();
}
