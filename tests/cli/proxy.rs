//! A connection that can be cut at an exact request.

use crate::program::poll;
use crate::world::World;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};

/// What happens to a request whose first line contains a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It never reaches the server.
    Before(&'static str),
    /// The server gets and answers it; the answer is lost.
    After(&'static str),
}

/// Puts another body in the place of an answer: gets the request's first line and what the server says.
type Lie = Box<dyn FnMut(&str, Vec<u8>) -> Vec<u8> + Send>;

/// Every request from some number on is lost, before it reaches the server or after it was answered.
#[derive(Debug, Clone, Copy)]
struct CutOff {
    left: u64,
    after: bool,
}

#[derive(Default)]
struct Shared {
    upstream: OnceLock<String>,
    cut: Mutex<Option<(Cut, u64)>>,
    /// Requests that are to be cut and still go through.
    spared: Mutex<u64>,
    cut_off: Mutex<Option<CutOff>>,
    /// Requests that change something and still go through, and what happens to the next ones.
    nth: Mutex<Option<(u64, Cut)>>,
    cuts: Mutex<u64>,
    /// Cuts that were carried out: after an answer that is lost, the server is done.
    hits: Mutex<u64>,
    /// Requests that are kept waiting, and how many more of them.
    hold: Mutex<Option<(&'static str, u64)>>,
    holding: Mutex<u64>,
    lie: Mutex<Option<Lie>>,
}

impl Shared {
    /// What happens to a request now; counted if it is cut.
    fn cut_of(&self, line: &str) -> Option<Cut> {
        if let Some(off) = self.cut_off.lock().unwrap().as_mut() {
            if off.left == 0 {
                *self.cuts.lock().unwrap() += 1;
                return Some(if off.after { Cut::After("") } else { Cut::Before("") });
            }
            off.left -= 1;
        }
        if let Some((left, what)) = self.nth.lock().unwrap().as_mut()
            && !line.starts_with("GET ")
        {
            if *left == 0 {
                *self.cuts.lock().unwrap() += 1;
                return Some(what.clone());
            }
            *left -= 1;
        }
        let mut cut = self.cut.lock().unwrap();
        let (what, left) = cut.as_mut()?;
        let (Cut::Before(text) | Cut::After(text)) = what;
        if *left == 0 || !line.contains(*text) {
            return None;
        }
        let mut spared = self.spared.lock().unwrap();
        if *spared > 0 {
            *spared -= 1;
            return None;
        }
        *left -= 1;
        *self.cuts.lock().unwrap() += 1;
        Some(what.clone())
    }
}

impl Shared {
    /// Keeps a request waiting until the proxy is healed, if it is one to be kept.
    fn wait(&self, line: &str) {
        {
            let mut hold = self.hold.lock().unwrap();
            match hold.as_mut() {
                Some((text, left)) if *left > 0 && line.contains(*text) => *left -= 1,
                _ => return,
            }
        }
        *self.holding.lock().unwrap() += 1;
        assert!(poll(80, || self.hold.lock().unwrap().is_none()), "it is never let go");
        *self.holding.lock().unwrap() -= 1;
    }
}

/// A proxy on loopback, which clients take for the server.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    pub(crate) origin: String,
}

impl Proxy {
    pub(crate) fn start() -> Self {
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
        Self { shared, origin }
    }

    /// A world behind a proxy, which its devices take for the server.
    pub(crate) fn with_world() -> (World, Self) {
        let proxy = Self::start();
        let world = World::with(&[("LOCKSTEP_PUBLIC_URL", &proxy.origin)]);
        proxy.set_upstream(world.server.address());
        (world, proxy)
    }

    pub(crate) fn set_upstream(&self, address: &str) {
        self.shared.upstream.set(address.to_owned()).unwrap();
    }

    /// Cuts so many requests from now on.
    pub(crate) fn cut(&self, cut: Cut, times: u64) {
        *self.shared.cut.lock().unwrap() = Some((cut, times));
    }

    /// Lets so many of the requests through that a cut is about, and cuts every one after them.
    pub(crate) fn cut_from(&self, spared: u64, cut: Cut) {
        *self.shared.spared.lock().unwrap() = spared;
        self.cut(cut, u64::MAX);
    }

    /// Lets so many requests through, and loses every one after them.
    pub(crate) fn cut_off(&self, left: u64, after: bool) {
        *self.shared.cut_off.lock().unwrap() = Some(CutOff { left, after });
    }

    /// Cuts from the nth request on that changes something (counted from 0), whichever it is.
    pub(crate) fn cut_nth(&self, nth: u64, after: bool) {
        let what = if after { Cut::After("") } else { Cut::Before("") };
        *self.shared.hits.lock().unwrap() = 0;
        *self.shared.nth.lock().unwrap() = Some((nth, what));
    }

    /// Keeps the next so many requests waiting until it is healed.
    pub(crate) fn hold(&self, text: &'static str, times: u64) {
        *self.shared.hold.lock().unwrap() = Some((text, times));
    }

    /// How many requests are kept waiting.
    pub(crate) fn holding(&self) -> u64 {
        *self.shared.holding.lock().unwrap()
    }

    /// From now on says something else than the server.
    pub(crate) fn lie(&self, lie: impl FnMut(&str, Vec<u8>) -> Vec<u8> + Send + 'static) {
        *self.shared.lie.lock().unwrap() = Some(Box::new(lie));
    }

    pub(crate) fn heal(&self) {
        *self.shared.lie.lock().unwrap() = None;
        *self.shared.cut.lock().unwrap() = None;
        *self.shared.spared.lock().unwrap() = 0;
        *self.shared.cut_off.lock().unwrap() = None;
        *self.shared.nth.lock().unwrap() = None;
        *self.shared.hold.lock().unwrap() = None;
    }

    /// How many cuts were carried out, to their end, since [`Self::cut_nth`].
    pub(crate) fn hits(&self) -> u64 {
        *self.shared.hits.lock().unwrap()
    }

    /// How many requests were cut so far.
    pub(crate) fn cuts(&self) -> u64 {
        *self.shared.cuts.lock().unwrap()
    }
}

/// One request after the other: whole head, body by its length, whole answer.
fn serve(mut client: TcpStream, shared: &Shared) {
    client.set_nodelay(true).unwrap();
    let mut server: Option<TcpStream> = None;
    while let Some(head) = read_head(&mut client) {
        let line = head.lines().next().unwrap_or_default();
        let cut = shared.cut_of(line);
        if matches!(cut, Some(Cut::Before(_))) {
            *shared.hits.lock().unwrap() += 1;
            break;
        }
        shared.wait(line);
        if server.is_none() {
            assert!(poll(20, || shared.upstream.get().is_some()));
            server = TcpStream::connect(shared.upstream.get().unwrap()).ok();
            if let Some(server) = &server {
                server.set_nodelay(true).unwrap();
            }
        }
        let Some(upstream) = &mut server else { break };
        if upstream.write_all(head.as_bytes()).is_err() || !copy(&mut client, upstream, body_len(&head)) {
            break;
        }
        let Some(answer) = read_head(upstream) else { break };
        if cut.is_some() {
            *shared.hits.lock().unwrap() += 1;
            break;
        }
        let mut lie = shared.lie.lock().unwrap();
        let said = if let Some(lie) = lie.as_mut() {
            instead(upstream, &mut client, line, &answer, lie)
        } else {
            drop(lie);
            client.write_all(answer.as_bytes()).is_ok() && copy(upstream, &mut client, body_len(&answer))
        };
        if !said {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}

/// Bytes up to the empty line; none at the end of the connection.
fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    String::from_utf8(head).ok()
}

fn body_len(head: &str) -> u64 {
    let lower = head.to_ascii_lowercase();
    assert!(!lower.contains("transfer-encoding:"), "{head}");
    let value = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
    value.map_or(0, |value| value.trim().parse().unwrap())
}

/// Sends what is said in the place of an answer.
fn instead(from: &mut TcpStream, to: &mut TcpStream, line: &str, answer: &str, lie: &mut Lie) -> bool {
    let mut body = Vec::new();
    if from.take(body_len(answer)).read_to_end(&mut body).is_err() {
        return false;
    }
    let body = if answer.starts_with("HTTP/1.1 200") { lie(line, body) } else { body };
    let head: String = answer
        .lines()
        .filter(|line| !line.is_empty() && !line.to_ascii_lowercase().starts_with("content-length:"))
        .fold(String::new(), |head, line| head + line + "\r\n");
    let length =
        if body_len(answer) == 0 { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    to.write_all(format!("{head}{length}\r\n").as_bytes()).is_ok() && to.write_all(&body).is_ok()
}

fn copy(from: &mut TcpStream, to: &mut TcpStream, len: u64) -> bool {
    std::io::copy(&mut from.take(len), to).is_ok_and(|copied| copied == len)
}
