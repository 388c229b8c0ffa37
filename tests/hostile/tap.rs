//! A server between the clients and the real one: it writes down every request with its answer, and lies where it is
//! told to.

use crate::program::poll;
use crate::world::World;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};

/// One request, and what the real server said.
#[derive(Clone, Default)]
pub(super) struct Asked {
    /// Request line and headers, as they came.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    pub(super) status: u16,
    pub(super) answer: Vec<u8>,
}

impl Asked {
    pub(super) fn method(&self) -> &str {
        self.head.split(' ').next().unwrap()
    }

    /// Path and query.
    pub(super) fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    /// Method and path, without ids and query: the route.
    pub(super) fn route(&self) -> String {
        let path = self.path().split('?').next().unwrap();
        let is_id = |part: &str| part.len() == 36 && part.matches('-').count() == 4;
        let parts: Vec<&str> = path.split('/').map(|part| if is_id(part) { "{}" } else { part }).collect();
        format!("{} {}", self.method(), parts.join("/"))
    }
}

/// What the client gets in the place of the answer. The connection ends after it.
pub(super) enum Lie {
    /// These bytes, head and all.
    Raw(Vec<u8>),
    /// A head, then the same bytes again and again, so often at most.
    Endless(Vec<u8>, Vec<u8>, u64),
}

/// A CBOR answer.
pub(super) fn cbor(body: &[u8]) -> Lie {
    let mut out = head_of(200, "application/cbor", &format!("content-length: {}\r\n", body.len()));
    out.extend_from_slice(body);
    Lie::Raw(out)
}

pub(super) fn head_of(status: u16, media: &str, more: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\ncontent-type: {media}\r\n{more}\r\n").into_bytes()
}

type Liar = Box<dyn Fn(&Asked) -> Option<Lie> + Send>;

#[derive(Default)]
struct Shared {
    upstream: OnceLock<String>,
    asked: Mutex<Vec<Asked>>,
    liar: Mutex<Option<Liar>>,
    /// Whose session is used in the place of the client's own.
    token: Mutex<Option<String>>,
    lies: Mutex<u64>,
    /// Bytes of endless answers that were taken.
    taken: Mutex<u64>,
}

/// The tap, on loopback.
pub(super) struct Tap {
    shared: Arc<Shared>,
}

/// A world whose clients go through a tap.
pub(super) fn tapped() -> (World, Tap) {
    tapped_with(&[])
}

/// The same, with settings of its server.
pub(super) fn tapped_with(settings: &[(&str, &str)]) -> (World, Tap) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let shared = Arc::new(Shared::default());
    let for_thread = Arc::clone(&shared);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let shared = Arc::clone(&for_thread);
            std::thread::spawn(move || serve(client, &shared));
        }
    });
    let world = World::with(&[settings, &[("LOCKSTEP_PUBLIC_URL", &origin)]].concat());
    shared.upstream.set(world.server.address().to_owned()).unwrap();
    (world, Tap { shared })
}

impl Tap {
    /// From now on answers are what this says; none is the real answer.
    pub(super) fn lie(&self, liar: impl Fn(&Asked) -> Option<Lie> + Send + 'static) {
        *self.shared.lies.lock().unwrap() = 0;
        *self.shared.taken.lock().unwrap() = 0;
        *self.shared.liar.lock().unwrap() = Some(Box::new(liar));
    }

    /// From now on requests with a session are made with this one.
    pub(super) fn lend(&self, token: &str) {
        *self.shared.token.lock().unwrap() = Some(token.to_owned());
    }

    pub(super) fn be_honest(&self) {
        *self.shared.liar.lock().unwrap() = None;
        *self.shared.token.lock().unwrap() = None;
    }

    /// How many answers were lies since the last [`Self::lie`].
    pub(super) fn lies(&self) -> u64 {
        *self.shared.lies.lock().unwrap()
    }

    /// How much of endless answers was taken since then.
    pub(super) fn taken(&self) -> u64 {
        *self.shared.taken.lock().unwrap()
    }

    /// What was asked since the last call.
    pub(super) fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.shared.asked.lock().unwrap())
    }
}

/// One request after the other, until a lie ends the connection.
fn serve(client: TcpStream, shared: &Shared) {
    client.set_nodelay(true).unwrap();
    let mut client = BufReader::new(client);
    let mut server: Option<BufReader<TcpStream>> = None;
    while let Some((head, body)) = read_message(&mut client) {
        if server.is_none() {
            assert!(poll(20, || shared.upstream.get().is_some()));
            server = TcpStream::connect(shared.upstream.get().unwrap()).ok().map(BufReader::new);
        }
        let Some(upstream) = &mut server else { break };
        let sent = as_whom(&head, shared.token.lock().unwrap().as_deref());
        if upstream.get_mut().write_all(&[sent.as_bytes(), &body].concat()).is_err() {
            break;
        }
        let Some((answer_head, answer)) = read_message(upstream) else { break };
        let status = answer_head.split(' ').nth(1).unwrap().parse().unwrap();
        let asked = Asked { head, body, status, answer: answer.clone() };
        let lie = shared.liar.lock().unwrap().as_ref().and_then(|liar| liar(&asked));
        shared.asked.lock().unwrap().push(asked);
        if let Some(lie) = lie {
            *shared.lies.lock().unwrap() += 1;
            tell(client.get_mut(), lie, shared);
            break;
        }
        if client.get_mut().write_all(&[answer_head.as_bytes(), &answer].concat()).is_err() {
            break;
        }
    }
    let _ = client.get_mut().shutdown(Shutdown::Both);
}

fn tell(client: &mut TcpStream, lie: Lie, shared: &Shared) {
    match lie {
        Lie::Raw(bytes) => {
            let _ = client.write_all(&bytes);
        }
        Lie::Endless(head, chunk, times) => {
            let _ = client.write_all(&head);
            for _ in 0..times {
                if client.write_all(&chunk).is_err() {
                    break;
                }
                *shared.taken.lock().unwrap() += chunk.len() as u64;
            }
        }
    }
}

/// The head with another session's token, if the request has one.
fn as_whom(head: &str, token: Option<&str>) -> String {
    let Some(token) = token else { return head.to_owned() };
    let is_session = |line: &str| line.to_ascii_lowercase().starts_with("authorization:");
    head.split_inclusive("\r\n")
        .map(
            |line| {
                if is_session(line) { format!("authorization: Bearer {token}\r\n") } else { line.to_owned() }
            },
        )
        .collect()
}

/// Head and body, whose length has to be told.
fn read_message(stream: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_until(b'\n', &mut head).ok()? == 0 {
            return None;
        }
    }
    let head = String::from_utf8(head).ok()?;
    let lower = head.to_ascii_lowercase();
    assert!(!lower.contains("transfer-encoding:"), "{head}");
    let value = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
    let mut body = vec![0; value.map_or(0, |value| value.trim().parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}
