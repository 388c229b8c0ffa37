//! One lie: what it is told about, and what it does. Every rule counts how often it did it.

use super::http::{Answer, Request};
use lockstep_proto::cbor::Wire;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often a rule was carried out.
#[derive(Debug, Clone, Default)]
pub struct Hits(Arc<AtomicU64>);

impl Hits {
    /// So often.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A request by method and path: `GET /v1/vaults/{}/commits`, where `{}` is one part of the path, whatever it is. The
/// query does not matter.
#[derive(Debug, Clone)]
pub struct Route(String);

impl Route {
    /// A route.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Whether a request is one.
    pub fn fits(&self, request: &Request) -> bool {
        self.parts(request).is_some()
    }

    /// What stands in the place of every `{}`; none if the request is another one.
    pub fn parts<'a>(&self, request: &'a Request) -> Option<Vec<&'a str>> {
        let (method, path) = self.0.split_once(' ')?;
        if method != request.method {
            return None;
        }
        let (mut known, mut sent) = (path.split('/'), request.place().split('/'));
        let mut parts = Vec::new();
        loop {
            match (known.next(), sent.next()) {
                (None, None) => return Some(parts),
                (Some("{}"), Some(part)) => parts.push(part),
                (Some(one), Some(other)) if one == other => {}
                _ => return None,
            }
        }
    }
}

/// What is said in the place of the server's answer.
#[derive(Debug, Clone)]
pub enum Reply {
    /// This.
    Answer(Answer),
    /// These bytes, whatever they are, and the end of the connection.
    Raw(Vec<u8>),
    /// Nothing: the connection ends.
    Cut,
}

type OfRequest = Box<dyn FnMut(&mut Request) -> bool + Send>;
type OfAnswer = Box<dyn FnMut(&Request, &mut Answer) -> bool + Send>;
type Before = Box<dyn FnMut(&Request) -> Option<Reply> + Send>;
type After = Box<dyn FnMut(&Request, &Answer) -> Option<Reply> + Send>;

enum Act {
    Request(OfRequest),
    Answer(OfAnswer),
    Before(Before),
    After(After),
}

/// A lie with a name.
pub struct Rule {
    /// For the record of what was done.
    pub name: String,
    /// How often it is told at most.
    left: u64,
    hits: Hits,
    act: Act,
}

impl Rule {
    fn new(name: &str, act: Act) -> Self {
        Self { name: name.to_owned(), left: u64::MAX, hits: Hits::default(), act }
    }

    /// Changes what the server gets. The closure says whether it did.
    pub fn request(name: &str, change: impl FnMut(&mut Request) -> bool + Send + 'static) -> Self {
        Self::new(name, Act::Request(Box::new(change)))
    }

    /// Changes what the client gets. The closure says whether it did.
    pub fn answer(name: &str, change: impl FnMut(&Request, &mut Answer) -> bool + Send + 'static) -> Self {
        Self::new(name, Act::Answer(Box::new(change)))
    }

    /// Answers in the server's place, which never learns of the request.
    pub fn before(name: &str, reply: impl FnMut(&Request) -> Option<Reply> + Send + 'static) -> Self {
        Self::new(name, Act::Before(Box::new(reply)))
    }

    /// Lets the server do it and answer, and says something else.
    pub fn after(name: &str, reply: impl FnMut(&Request, &Answer) -> Option<Reply> + Send + 'static) -> Self {
        Self::new(name, Act::After(Box::new(reply)))
    }

    /// Changes answers of one type: good ones are decoded, changed and encoded again. The closure says whether it
    /// changed something.
    pub fn answer_of<T: Wire>(
        name: &str,
        route: &str,
        mut change: impl FnMut(&Request, &mut T) -> bool + Send + 'static,
    ) -> Self {
        let route = Route::new(route);
        Self::answer(name, move |request, answer| {
            if !answer.is_success() || !route.fits(request) {
                return false;
            }
            let mut body = T::decode(&answer.body).expect("the real server's answer");
            let is_changed = change(request, &mut body);
            if is_changed {
                answer.body = body.encode();
            }
            is_changed
        })
    }

    /// Loses requests on a route, before the server gets them or after it answered.
    pub fn cut(name: &str, route: &str, is_after: bool) -> Self {
        let route = Route::new(route);
        if is_after {
            Self::after(name, move |request, _| route.fits(request).then_some(Reply::Cut))
        } else {
            Self::before(name, move |request| route.fits(request).then_some(Reply::Cut))
        }
    }

    /// Tells it so often at most.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.left = times;
        self
    }

    /// Its counter.
    pub fn hits(&self) -> Hits {
        self.hits.clone()
    }

    fn done(&mut self, is_done: bool) -> bool {
        if is_done {
            self.left = self.left.saturating_sub(1);
            self.hits.add();
        }
        is_done
    }

    pub(super) fn on_request(&mut self, request: &mut Request) -> (bool, Option<Reply>) {
        if self.left == 0 {
            return (false, None);
        }
        let (is_done, reply) = match &mut self.act {
            Act::Request(change) => (change(request), None),
            Act::Before(say) => {
                let reply = say(request);
                (reply.is_some(), reply)
            }
            Act::Answer(_) | Act::After(_) => (false, None),
        };
        (self.done(is_done), reply)
    }

    pub(super) fn on_answer(&mut self, request: &Request, answer: &mut Answer) -> (bool, Option<Reply>) {
        if self.left == 0 {
            return (false, None);
        }
        let (is_done, reply) = match &mut self.act {
            Act::Answer(change) => (change(request, answer), None),
            Act::After(say) => {
                let reply = say(request, answer);
                (reply.is_some(), reply)
            }
            Act::Request(_) | Act::Before(_) => (false, None),
        };
        (self.done(is_done), reply)
    }
}
