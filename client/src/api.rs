//! HTTP: typed calls of `/v1`. Answers are bounded and strictly decoded; a session that ended is renewed
//! once with the device key; only requests that may be repeated are.

mod answer;
mod pace;
mod socket;

pub use answer::next_chunk;
pub use pace::RATE_MIN;
pub(crate) use socket::{Begun, Socket};

use crate::error::{ClientError, Result};
use crate::rng;
pub(crate) use answer::deadline;
use answer::{STALL, read_bounded};
use bytes::Bytes;
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_proto::Digest;
use lockstep_proto::api::MEDIA_TYPE;
use lockstep_proto::api::auth::{
    DeviceLoginStart, DeviceLoginStarted, PURPOSE_DEVICE, SESSION_DEVICE, Session, Statement,
};
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::vault::Page;
use lockstep_proto::cbor::{ByteArray, Wire, encode_large};
use lockstep_proto::id::AccountId;
use pace::{PACED_BYTES_MIN, Pace};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RANGE, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TRIES_MAX: u32 = 4;
/// A request waits for so long by itself.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// No wait that is asked for is believed to be longer.
const ASKED_SECONDS_MAX: u64 = 24 * 3600;
const PROBLEM_BYTES_MAX: usize = 256 * 1024;

/// A server, and who talks to it.
pub struct Api {
    http: reqwest::Client,
    /// What answers in the place of a server.
    stand_in: Option<Box<dyn StandIn>>,
    base: String,
    origin: String,
    token: Mutex<Option<String>>,
    signer: Mutex<Option<(AccountId, Arc<DeviceKeys>)>>,
    /// Until when the server last asked to be left alone.
    asked: Mutex<Option<Instant>>,
    /// How fast contents go and come; as fast as they can if it was not said.
    pace: OnceLock<Arc<Pace>>,
}

/// Answers requests without any server: an archive that is read.
pub trait StandIn: Send + Sync {
    /// Answers one request; `from`: the first byte of an object that is wanted.
    ///
    /// # Errors
    /// [`ClientError`].
    fn answer(&self, path: &str, body: Option<&[u8]>, from: u64) -> Result<Response>;
}

/// Checks a server address: `https`, or `http` to loopback, unless insecure is allowed. Gives the origin.
///
/// # Errors
/// [`ClientError::Usage`].
pub fn check_server(text: &str, insecure_http: bool) -> Result<String> {
    let usage =
        |reason: &str| ClientError::Usage(format!("the server address \"{text}\" can not be used: {reason}"));
    let url = Url::parse(text).map_err(|_| usage("it is no address such as https://sync.example.org"))?;
    let host = url.host().ok_or_else(|| usage("it names no host"))?;
    let is_loopback = match &host {
        url::Host::Domain(name) => *name == "localhost",
        url::Host::Ipv4(address) => address.is_loopback(),
        url::Host::Ipv6(address) => address.is_loopback(),
    };
    match url.scheme() {
        "https" => {}
        "http" if is_loopback || insecure_http => {}
        "http" => {
            return Err(usage(
                "http:// is refused to anything but this machine, because everybody on the way could read who signs \
                 in; use https://, or say --insecure-http",
            ));
        }
        _ => return Err(usage("only https:// and http:// are known")),
    }
    if url.path() != "/" || url.query().is_some() || !url.username().is_empty() || url.fragment().is_some() {
        return Err(usage("only scheme, host and port are expected"));
    }
    Ok(url.origin().ascii_serialization())
}

impl Api {
    /// Talks to the server at an origin that was checked.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] if TLS can not be set up.
    pub fn new(origin: String) -> Result<Arc<Self>> {
        Self::build(origin, None)
    }

    /// Talks to no server at all.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn without_server(stand_in: Box<dyn StandIn>) -> Result<Arc<Self>> {
        Self::build(String::new(), Some(stand_in))
    }

    fn build(origin: String, stand_in: Option<Box<dyn StandIn>>) -> Result<Arc<Self>> {
        // A provider that is installed already is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .user_agent(concat!("lockstep/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .retry(reqwest::retry::never())
            .pool_idle_timeout(Duration::from_secs(20))
            .pool_max_idle_per_host(8)
            .http1_only()
            .tcp_nodelay(true)
            .referer(false)
            .build()
            .map_err(|error| ClientError::Unreachable {
                server: origin.clone(),
                reason: error.to_string(),
            })?;
        Ok(Arc::new(Self {
            http,
            stand_in,
            base: origin.clone(),
            origin,
            token: Mutex::new(None),
            signer: Mutex::new(None),
            asked: Mutex::new(None),
            pace: OnceLock::new(),
        }))
    }

    /// Limits how fast contents are sent and taken in, in bytes a second, from here on. Small calls are not slowed
    /// down, nor counted.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if it is less than [`RATE_MIN`].
    pub fn limit_rate(&self, bytes_a_second: u64) -> Result<()> {
        if bytes_a_second < RATE_MIN {
            return Err(ClientError::Usage(format!(
                "a limit of {bytes_a_second} bytes a second is too low: a server gives up a request that is slower \
                 than that; at least {RATE_MIN} (64K) are needed"
            )));
        }
        // It is said once.
        let _ = self.pace.set(Pace::new(bytes_a_second));
        Ok(())
    }

    /// The origin.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Uses a session's token.
    pub fn set_token(&self, token: Option<String>) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// The token in use.
    pub fn token(&self) -> Option<String> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How much longer the server asked to be left alone (`Retry-After`, RFC 9110 section 10.2.3), in its last answer that
    /// asked for it.
    pub fn asked_to_wait(&self) -> Option<Duration> {
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.map(|until| until.saturating_duration_since(Instant::now())).filter(|wait| !wait.is_zero())
    }

    fn note_asked(&self, wait: Duration) {
        let until = Instant::now().checked_add(wait);
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Lets the device sign in by itself when a session ends.
    pub fn set_signer(&self, account: AccountId, device: Arc<DeviceKeys>) {
        *self.signer.lock().unwrap_or_else(PoisonError::into_inner) = Some((account, device));
    }

    /// Signs in with the device key.
    ///
    /// # Errors
    /// [`ClientError::SignedOut`] if the server does not know the device.
    pub async fn device_login(&self) -> Result<()> {
        let signer = self.signer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (account, keys) = signer.ok_or(ClientError::SignedOut)?;
        let start = DeviceLoginStart { account, device: keys.id() };
        let started: DeviceLoginStarted = self.post_open("/v1/device-login/start", &start).await?;
        let statement = keys.sign_statement(
            &self.origin,
            Statement {
                account,
                device: keys.id(),
                purpose: PURPOSE_DEVICE,
                server_nonce: started.nonce,
                client_nonce: Digest::from_bytes(rng::bytes()),
                signature: ByteArray([0; 64]),
            },
        );
        let session: Session = match self.post_open("/v1/device-login/finish", &statement).await {
            Err(error) if error.code() == Some(Code::Unauthenticated) => return Err(ClientError::SignedOut),
            other => other?,
        };
        if session.account != account || session.device != keys.id() || session.kind != SESSION_DEVICE {
            return Err(ClientError::Server("the session is for somebody else".into()));
        }
        self.set_token(Some(session.token));
        Ok(())
    }

    /// `POST` without a session; a 401 is the caller's to explain.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post_open<B: Wire, A: Wire>(&self, path: &str, body: &B) -> Result<A> {
        let response = self.send(Method::POST, path, Some(body.encode().into()), None, false).await?;
        self.decode(response).await
    }

    /// `POST` with a session.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post<B: Wire, A: Wire>(&self, path: &str, body: &B) -> Result<A> {
        let response = self.send(Method::POST, path, Some(encode_large(body).into()), None, true).await?;
        self.decode(response).await
    }

    /// `POST` with a session; the answer has no body.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post_nothing<B: Wire>(&self, path: &str, body: Option<&B>) -> Result<()> {
        self.send(Method::POST, path, body.map(|body| body.encode().into()), None, true).await?;
        Ok(())
    }

    /// `POST` without a session; the answer has no body.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post_open_nothing<B: Wire>(&self, path: &str, body: &B) -> Result<()> {
        self.send(Method::POST, path, Some(body.encode().into()), None, false).await?;
        Ok(())
    }

    /// `POST` of raw bytes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post_bytes<A: Wire>(&self, path: &str, body: Bytes) -> Result<A> {
        let response = self.send(Method::POST, path, Some(body), None, true).await?;
        self.decode(response).await
    }

    /// `PUT` of raw bytes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put_bytes(&self, path: &str, body: Bytes) -> Result<()> {
        self.send(Method::PUT, path, Some(body), None, true).await?;
        Ok(())
    }

    /// `GET`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<A: Wire>(&self, path: &str) -> Result<A> {
        let response = self.send(Method::GET, path, None, None, true).await?;
        self.decode(response).await
    }

    /// `GET` without a session.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_open<A: Wire>(&self, path: &str) -> Result<A> {
        let response = self.send(Method::GET, path, None, None, false).await?;
        self.decode(response).await
    }

    /// `DELETE`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete(&self, path: &str) -> Result<()> {
        self.send(Method::DELETE, path, None, None, true).await?;
        Ok(())
    }

    /// `GET` of an object from a byte on; read it with [`next_chunk`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_object(&self, path: &str, from: u64) -> Result<Response> {
        if let Some(stand_in) = &self.stand_in {
            return stand_in.answer(path, None, from);
        }
        let range = (from > 0).then(|| format!("bytes={from}-"));
        self.send(Method::GET, path, None, range, true).await
    }

    /// `POST` whose answer is read with [`next_chunk`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn post_for_bytes<B: Wire>(&self, path: &str, body: &B) -> Result<Response> {
        self.send(Method::POST, path, Some(body.encode().into()), None, true).await
    }

    /// Whether something else answers in the place of a server.
    pub(crate) fn has_stand_in(&self) -> bool {
        self.stand_in.is_some()
    }

    async fn decode<A: Wire>(&self, mut response: Response) -> Result<A> {
        let bytes = read_bounded(&mut response, A::BYTES_MAX).await?;
        A::decode(&bytes).map_err(|error| ClientError::Server(error.to_string()))
    }

    /// Sends, waits where the server asks for it, renews the session once. Every request of the protocol
    /// may be sent again: it is idempotent, or answers the second time with a code that tells.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        range: Option<String>,
        with_session: bool,
    ) -> Result<Response> {
        if let Some(stand_in) = &self.stand_in {
            return stand_in.answer(path, body.as_deref(), 0);
        }
        let mut renewed = false;
        let mut tries = 0;
        loop {
            tries += 1;
            let outcome = self.send_once(&method, path, body.clone(), range.as_deref(), with_session).await;
            let retry = match outcome {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED && with_session && !renewed => {
                    renewed = true;
                    Box::pin(self.device_login()).await?;
                    continue;
                }
                Ok(response) => {
                    let wait = retry_after(&response);
                    let status = response.status();
                    let error = self.problem(response).await;
                    if let Some(wait) = wait {
                        self.note_asked(wait);
                    }
                    match wait {
                        // Who is asked to wait for longer says so to its caller, and does not try again before.
                        Some(wait) if status == StatusCode::SERVICE_UNAVAILABLE && wait <= WAIT_MAX => {
                            (error, wait)
                        }
                        _ => return Err(error),
                    }
                }
                Err(error) => (error, Duration::from_millis(150 << tries.min(4))),
            };
            let (error, wait) = retry;
            if tries >= TRIES_MAX {
                return Err(error);
            }
            tokio::time::sleep(jittered(wait)).await;
        }
    }

    async fn send_once(
        &self,
        method: &Method,
        path: &str,
        body: Option<Bytes>,
        range: Option<&str>,
        with_session: bool,
    ) -> Result<Response> {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.base));
        if with_session && let Some(token) = self.token() {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(range) = range {
            request = request.header(RANGE, range);
        }
        let pace = self.pace.get();
        let mut turn = None;
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, MEDIA_TYPE);
            request = match pace.filter(|_| body.len() >= PACED_BYTES_MIN) {
                Some(pace) => {
                    turn = Some(pace.turn().await);
                    request.header(CONTENT_LENGTH, body.len()).body(pace.body(body))
                }
                None => request.body(body),
            };
        }
        // Bodies are at most 16 MiB: a minute of silence, plus a minute for every MiB on the slowest line.
        let sent = tokio::time::timeout(STALL * 10, request.send()).await;
        drop(turn);
        match sent {
            Ok(Ok(response)) => Ok(match pace.filter(|_| is_large(&response)) {
                Some(pace) => pace.answer(response),
                None => response,
            }),
            Ok(Err(error)) => Err(self.unreachable(&error)),
            Err(_) => Err(ClientError::Unreachable {
                server: self.origin.clone(),
                reason: "it does not answer".into(),
            }),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        let mut reason = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            reason = inner.to_string();
            cause = inner.source();
        }
        ClientError::Unreachable { server: self.origin.clone(), reason }
    }

    /// Reads a problem document.
    async fn problem(&self, mut response: Response) -> ClientError {
        let status = response.status();
        if status == StatusCode::CONFLICT && content_type_is_cbor(&response) {
            return match read_bounded(&mut response, Page::BYTES_MAX).await.map(|bytes| Page::decode(&bytes))
            {
                Ok(Ok(page)) => ClientError::HeadMoved(Box::new(page)),
                Ok(Err(error)) => ClientError::Server(error.to_string()),
                Err(error) => error,
            };
        }
        let Ok(bytes) = read_bounded(&mut response, PROBLEM_BYTES_MAX).await else {
            return ClientError::Server(format!("status {status}"));
        };
        let document: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let text = |key: &str| document.get(key).and_then(serde_json::Value::as_str).map(printable);
        let detail = text("detail").unwrap_or_else(|| format!("status {status}"));
        let code = text("code").and_then(|code| Code::parse(&code));
        let names = document.get("names").and_then(serde_json::Value::as_array);
        let names = names.map(|names| names.iter().filter_map(|name| name.as_str().map(printable)).collect());
        if code == Some(Code::QuotaExceeded) {
            let number = |key: &str| document.get(key).and_then(serde_json::Value::as_u64);
            return ClientError::QuotaExceeded(number("used").zip(number("quota")));
        }
        if status.is_server_error() && code != Some(Code::StorageFull) {
            return ClientError::Busy(detail);
        }
        ClientError::Refused { code, detail, names: names.unwrap_or_default() }
    }
}

/// Whether an answer is more than a small call's; one that does not say counts as large.
fn is_large(response: &Response) -> bool {
    response
        .content_length()
        .is_none_or(|length| usize::try_from(length).is_ok_and(|length| length >= PACED_BYTES_MIN))
}

fn content_type_is_cbor(response: &Response) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|value| value == MEDIA_TYPE)
}

/// Text of a server, made safe to print.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(400).collect()
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds: u64 = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds.clamp(1, ASKED_SECONDS_MAX)))
}

fn jittered(wait: Duration) -> Duration {
    let random: [u8; 1] = rng::bytes();
    let [byte] = random;
    wait.saturating_add(wait.saturating_mul(u32::from(byte)) / 512)
}
