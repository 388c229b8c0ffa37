//! The server that lies: listens on loopback, asks the real one, tells what the rules say, and writes everything down.

use super::control;
use super::http::{Answer, Request};
use super::rule::{Hits, Reply, Route, Rule};
use lockstep_proto::api::auth::{DeviceLoginStart, Session, Statement};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::DeviceId;
use std::collections::BTreeMap;
use std::io::{BufReader, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request, and what came of it.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// As the client sent it.
    pub request: Request,
    /// As the client got it; none if it got none, or bytes that are no answer.
    pub answer: Option<Answer>,
    /// Rules that were carried out on it.
    pub rules: Vec<String>,
}

impl Exchange {
    /// Method, path, names of headers, size of the body: what is compared where nothing secret may show.
    pub fn line(&self) -> String {
        let request = &self.request;
        let names: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
        format!("{} {} [{}] {}", request.method, request.path, names.join(","), request.body.len())
    }
}

/// Upstreams: the default, and those that single devices get.
#[derive(Default)]
pub(super) struct Views {
    default: Option<String>,
    of: BTreeMap<DeviceId, String>,
    tokens: BTreeMap<String, DeviceId>,
}

#[derive(Default)]
pub(super) struct Shared {
    pub(super) views: Mutex<Views>,
    rules: Mutex<Vec<Rule>>,
    exchanges: Mutex<Vec<Exchange>>,
}

/// A hostile server on loopback, which clients take for the real one.
pub struct Hostile {
    shared: Arc<Shared>,
    /// What clients are told: `http://127.0.0.1:port`. The real server's `LOCKSTEP_PUBLIC_URL` has to be this.
    pub origin: String,
}

impl Hostile {
    /// Starts one on a port of the system's choice.
    ///
    /// # Panics
    /// Without a port.
    pub fn start() -> Self {
        Self::listen("127.0.0.1:0")
    }

    /// Starts one on an address.
    ///
    /// # Panics
    /// If the address can not be had.
    pub fn listen(address: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
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

    /// The real server, `address:port`.
    pub fn set_upstream(&self, address: &str) {
        self.shared.views.lock().unwrap().default = Some(address.to_owned());
    }

    /// Another real server that one device gets instead: its view.
    pub fn set_view(&self, device: DeviceId, address: &str) {
        self.shared.set_view(device, address);
    }

    /// Arms a rule, after those that are armed; gives its counter.
    pub fn arm(&self, rule: Rule) -> Hits {
        self.shared.arm(rule)
    }

    /// Arms what a scenario consists of; gives the counter of each rule.
    pub fn arm_all(&self, rules: Vec<Rule>) -> Vec<Hits> {
        rules.into_iter().map(|rule| self.arm(rule)).collect()
    }

    /// Takes all rules away: from now on it is honest.
    pub fn disarm(&self) {
        self.shared.rules.lock().unwrap().clear();
    }

    /// Forgets what was recorded.
    pub fn forget(&self) {
        self.shared.exchanges.lock().unwrap().clear();
    }

    /// What was recorded, oldest first.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.shared.exchanges.lock().unwrap().clone()
    }

    /// The record's lines ([`Exchange::line`]).
    pub fn trace(&self) -> Vec<String> {
        self.shared.exchanges.lock().unwrap().iter().map(Exchange::line).collect()
    }

    /// Recorded requests on a route.
    pub fn requests(&self, route: &str) -> Vec<Request> {
        let route = Route::new(route);
        let exchanges = self.exchanges();
        exchanges.into_iter().map(|exchange| exchange.request).filter(|request| route.fits(request)).collect()
    }

    /// Recorded answers on a route, oldest first.
    pub fn answers(&self, route: &str) -> Vec<Answer> {
        let route = Route::new(route);
        let exchanges = self.exchanges();
        exchanges.into_iter().filter(|one| route.fits(&one.request)).filter_map(|one| one.answer).collect()
    }
}

impl Shared {
    pub(super) fn arm(&self, rule: Rule) -> Hits {
        let hits = rule.hits();
        self.rules.lock().unwrap().push(rule);
        hits
    }

    pub(super) fn set_view(&self, device: DeviceId, address: &str) {
        self.views.lock().unwrap().of.insert(device, address.to_owned());
    }

    pub(super) fn disarm(&self) {
        self.rules.lock().unwrap().clear();
    }

    pub(super) fn forget(&self) {
        self.exchanges.lock().unwrap().clear();
    }

    pub(super) fn exchanges(&self) -> Vec<Exchange> {
        self.exchanges.lock().unwrap().clone()
    }

    pub(super) fn hits(&self) -> Vec<(String, u64)> {
        self.rules.lock().unwrap().iter().map(|rule| (rule.name.clone(), rule.hits().count())).collect()
    }

    /// The device that asks, as far as its session or its words say.
    fn device_of(&self, request: &Request) -> Option<DeviceId> {
        if let Ok(start) = DeviceLoginStart::decode(&request.body) {
            return Some(start.device);
        }
        if let Ok(statement) = Statement::decode(&request.body) {
            return Some(statement.device);
        }
        let token = request.header("authorization")?.strip_prefix("Bearer ")?;
        self.views.lock().unwrap().tokens.get(token).copied()
    }

    fn upstream_of(&self, request: &Request) -> Option<String> {
        let device = self.device_of(request);
        let views = self.views.lock().unwrap();
        device.and_then(|device| views.of.get(&device)).or(views.default.as_ref()).cloned()
    }

    fn on_request(&self, request: &mut Request, done: &mut Vec<String>) -> Option<Reply> {
        for rule in self.rules.lock().unwrap().iter_mut() {
            let (is_done, reply) = rule.on_request(request);
            if is_done {
                done.push(rule.name.clone());
            }
            if reply.is_some() {
                return reply;
            }
        }
        None
    }

    fn on_answer(&self, request: &Request, answer: &mut Answer, done: &mut Vec<String>) -> Option<Reply> {
        // Who the session is for is remembered, so that its requests go where the device's go.
        if let Ok(session) = Session::decode(&answer.body) {
            self.views.lock().unwrap().tokens.insert(session.token, session.device);
        }
        for rule in self.rules.lock().unwrap().iter_mut() {
            let (is_done, reply) = rule.on_answer(request, answer);
            if is_done {
                done.push(rule.name.clone());
            }
            if reply.is_some() {
                return reply;
            }
        }
        None
    }

    /// What the client gets.
    fn reply(&self, request: &Request, done: &mut Vec<String>) -> Reply {
        let mut sent = request.clone();
        if let Some(reply) = self.on_request(&mut sent, done) {
            return reply;
        }
        let Some(mut answer) = self.upstream_of(&sent).and_then(|address| ask(&address, &sent)) else {
            return Reply::Cut;
        };
        self.on_answer(&sent, &mut answer, done).unwrap_or(Reply::Answer(answer))
    }
}

/// Asks the real server.
fn ask(address: &str, request: &Request) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_nodelay(true).ok()?;
    // It may answer before it has read everything.
    let _ = request.write(&mut stream);
    Answer::read(&mut BufReader::new(stream))
}

fn serve(client: TcpStream, shared: &Arc<Shared>) {
    client.set_nodelay(true).unwrap();
    let mut out = client.try_clone().unwrap();
    let mut from = BufReader::new(client);
    while let Some(request) = Request::read(&mut from, &mut out) {
        if request.place().starts_with("/hostile/") {
            if control::answer(shared, &request).write(&mut out).is_err() {
                break;
            }
            continue;
        }
        let mut rules = Vec::new();
        let reply = shared.reply(&request, &mut rules);
        let answer = match &reply {
            Reply::Answer(answer) => Some(answer.clone()),
            Reply::Raw(_) | Reply::Cut => None,
        };
        // Written down before it is told: who has the answer finds it in the record.
        shared.exchanges.lock().unwrap().push(Exchange { request, answer, rules });
        let goes_on = match reply {
            Reply::Answer(answer) => answer.write(&mut out).is_ok(),
            Reply::Raw(bytes) => {
                let _ = out.write_all(&bytes);
                false
            }
            Reply::Cut => false,
        };
        if !goes_on {
            break;
        }
    }
    let _ = out.shutdown(Shutdown::Both);
}
