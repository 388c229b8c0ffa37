//! A server that lies on demand: it stands in front of the real one, records every request, and does to requests and
//! answers what armed rules say. `tests/hostile/README.md` says how another client is run against it.
//!
//! [`http`] is what passes through; a [`Rule`] is one lie; [`Hostile`] is the server that tells it; [`scenario`] holds
//! the lies that have a name; [`control`] is the interface for programs that are not written in Rust.

pub mod control;
pub mod http;
pub mod rule;
pub mod scenario;
pub mod server;

pub use http::{Answer, Request};
pub use rule::{Hits, Reply, Route, Rule};
pub use server::{Exchange, Hostile};
