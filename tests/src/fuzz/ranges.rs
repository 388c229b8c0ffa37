//! Ranges of objects: the client's download, whatever a server answers and wherever its answers break off, gives out only
//! what was sealed; the server's reader of the header.

use super::edit::Input;
use super::fixture::fixture;
use super::object::{Sealed, sealed};
use bytes::Bytes;
use lockstep_client::api::{Api, StandIn};
use lockstep_client::blob::download;
use lockstep_client::error::{ClientError, Result};
use lockstep_proto::api::frames::parse_range;
use lockstep_proto::api::problem::Code;
use reqwest::{Body, Response};
use std::io::Error;
use std::sync::{Arc, Mutex};
use tokio::runtime::{Builder, Runtime};

/// An answer comes in at most so many pieces.
const PIECES_MAX: usize = 64;
/// A download ends when the server gave nothing so many times in a row.
const EMPTY_MAX: u32 = 4;

/// What is answered, and what came of it.
#[derive(Default)]
struct Script {
    input: Vec<u8>,
    which: usize,
    /// Bytes that were given.
    given: u64,
    empty: u32,
    /// Whether every answer was a piece of the object from the byte that was asked for.
    is_honest: bool,
    /// Whether the server gave nothing too often.
    is_silent: bool,
}

struct Liar(Arc<Mutex<Script>>);

/// The bytes of an answer, and whether the connection breaks after them.
fn answer(script: &mut Script, input: &mut Input<'_>, from: u64) -> Result<(Vec<u8>, bool)> {
    let (object, other) = (&sealed()[script.which].object, &sealed()[1 - script.which].object);
    let begin = (from as usize).min(object.len());
    let kind = input.byte() % 8;
    let mut bytes = object[begin..].to_vec();
    script.is_honest &= kind <= 2;
    match kind {
        0 => {}
        1 | 2 => bytes.truncate(input.number()),
        3 => input.spoil(&mut bytes),
        4 => bytes = object[input.number() % (object.len() + 1)..].to_vec(),
        5 => bytes = other[begin.min(other.len())..].to_vec(),
        6 => {
            let len = input.number();
            bytes = input.take(len).to_vec();
        }
        _ => {
            let code = [Code::NotFound, Code::Range, Code::Unauthenticated][usize::from(input.byte() % 3)];
            return Err(ClientError::Refused { code: Some(code), detail: "no".into(), names: Vec::new() });
        }
    }
    Ok((bytes, kind == 2))
}

impl StandIn for Liar {
    fn answer(&self, path: &str, body: Option<&[u8]>, from: u64) -> Result<Response> {
        let script = &mut *self.0.lock().unwrap();
        let blob = sealed()[script.which].reference.blob;
        assert_eq!((path, body), (&*format!("/v1/vaults/{}/objects/{blob}", fixture().vault), None));
        assert_eq!(from, script.given, "the range begins where the last answer ended");
        let bytes = std::mem::take(&mut script.input);
        let mut input = Input(&bytes);
        let (bytes, breaks) = answer(script, &mut input, from)?;
        let piece = input.number() % 100_000;
        script.input = input.0.to_vec();
        script.given += bytes.len() as u64;
        script.empty = if bytes.is_empty() { script.empty + 1 } else { 0 };
        script.is_silent |= script.empty >= EMPTY_MAX;
        let piece = if piece == 0 { 65_536 } else { piece.max(bytes.len() / PIECES_MAX + 1) };
        let mut pieces: Vec<_> = bytes.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        if breaks {
            pieces.push(Err(Error::other("the connection broke")));
        }
        Ok(http::Response::new(Body::wrap_stream(futures_util::stream::iter(pieces))).into())
    }
}

struct Client {
    api: Arc<Api>,
    script: Arc<Mutex<Script>>,
    runtime: Runtime,
}

impl Client {
    fn new() -> Self {
        let script = Arc::new(Mutex::new(Script::default()));
        let api = Api::without_server(Box::new(Liar(Arc::clone(&script)))).unwrap();
        Self { api, script, runtime: Builder::new_current_thread().enable_time().build().unwrap() }
    }

    fn download(&self, which: usize, input: &[u8]) {
        let Sealed { reference, contents, .. } = &sealed()[which];
        *self.script.lock().unwrap() =
            Script { input: input.to_vec(), which, is_honest: true, ..Script::default() };
        let mut out = Vec::new();
        let mut sink = |piece: &[u8]| {
            out.extend_from_slice(piece);
            Ok(())
        };
        let keys = &fixture().vault_keys;
        let whole = self.runtime.block_on(download(&self.api, keys, reference, &mut sink)).is_ok();
        assert!(contents.starts_with(&out), "something unverified was given out");
        assert!(!whole || out == *contents, "only the whole contents are whole");
        let script = self.script.lock().unwrap();
        assert!(whole || !script.is_honest || script.is_silent, "pieces of the object are put together");
    }
}

thread_local! {
    static CLIENT: Client = Client::new();
}

/// The server's side: a range that is taken lies within the object, and what the client asks for is taken.
fn header(text: &str, size: u64) {
    if let Some((begin, end)) = parse_range(text, size) {
        assert!(begin < end && end <= size, "{text} of {size}: {begin}..{end}");
        let again = format!("bytes={begin}-{}", end - 1);
        assert_eq!(parse_range(&again, size), Some((begin, end)), "{text} of {size}");
    }
    let from = text.len() as u64;
    assert_eq!(parse_range(&format!("bytes={from}-"), size), (from < size).then_some((from, size)));
}

/// A download of which the input is what the server answers; or a header.
pub(super) fn target(data: &[u8]) {
    let mut input = Input(data);
    match input.byte() % 3 {
        2 => {
            let size = (input.number() as u64) << (input.byte() % 41);
            if let Ok(text) = std::str::from_utf8(input.0) {
                header(text, size);
            }
        }
        which => CLIENT.with(|client| client.download(usize::from(which), input.0)),
    }
}
