//! Notices that vaults moved: over a WebSocket, or by a request that waits.

use super::cbor;
use crate::domain::notices::Listener;
use crate::error::ApiError;
use crate::extract::body::Cbor;
use crate::extract::session::{DeviceSession, of_device, session_of};
use crate::state::App;
use crate::store::SessionRow;
use crate::time::now_utc;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use lockstep_proto::api::notice::{Heads, Listen, WaitForHeads};
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::Wire;
use lockstep_proto::id::{Seq, VaultId};
use lockstep_proto::limits;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

type Answer = Result<Response, ApiError>;

/// Time for the first message of a socket.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// A socket is told at least so often that the server is there; heads and session are looked at then, too.
const HEART_BEAT: Duration = Duration::from_secs(30);
/// A message that is not taken for so long ends the socket.
const SEND: Duration = Duration::from_secs(30);
/// A request waits so long at most.
const WAIT_SECONDS_MAX: u64 = 25;
/// Looks of one listener are at least so far apart, however often it is woken.
const LOOK_PAUSE: Duration = Duration::from_millis(25);
/// What one read of a socket takes at most.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024;
/// What a socket may still be sent when it ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a socket ends: a status code of RFC 6455, or one of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The other side is gone.
    Gone,
    /// The server stops.
    Stops,
    /// What came is no first message, or nothing should have come.
    Malformed,
    /// There is no such session, or it ended.
    SignIn,
    /// The session is no device's.
    Forbidden,
    /// Too many listen.
    Busy,
}

impl End {
    fn frame(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::Gone => return None,
            Self::Stops => (1001, "the server stops"),
            Self::Malformed => (1008, "the first message is a listen request, and nothing follows it"),
            Self::SignIn => (4401, "sign in first: there is no valid session"),
            Self::Forbidden => (4403, "enrol a device first"),
            Self::Busy => (1013, "the server is busy; try again later"),
        };
        Some(CloseFrame { code, reason: reason.into() })
    }
}

impl From<ApiError> for End {
    fn from(error: ApiError) -> Self {
        match error.code() {
            Code::Unauthenticated => Self::SignIn,
            Code::Forbidden => Self::Forbidden,
            Code::Malformed | Code::TooLarge => Self::Malformed,
            _ => Self::Busy,
        }
    }
}

fn busy() -> ApiError {
    ApiError::new(Code::Busy, "too many wait for notices; try again later").retry_after(5)
}

fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ApiError> {
    Arc::clone(places).try_acquire_owned().map_err(|_| busy())
}

/// `GET /v1/events`.
pub(crate) async fn events(
    State(app): State<App>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer {
    let upgrade = upgrade.map_err(|_| {
        let text = "this begins a WebSocket; where none can be had: POST /v1/events/wait";
        ApiError::new(Code::Malformed, text)
    })?;
    let (socket_place, stranger) = (place(&app.waiting.sockets)?, place(&app.waiting.strangers)?);
    let upgrade = upgrade
        .max_message_size(Listen::BYTES_MAX)
        .max_frame_size(Listen::BYTES_MAX)
        .read_buffer_size(SOCKET_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * Heads::BYTES_MAX);
    Ok(upgrade.on_upgrade(async move |mut socket| {
        let end = match first(&app, &mut socket, stranger).await {
            Ok((session, listener, known)) => talk(&app, &mut socket, &session, listener, known).await,
            Err(end) => end,
        };
        if let Some(frame) = end.frame() {
            let _ = timeout(FAREWELL, socket.send(Message::Close(Some(frame)))).await;
        }
        drop(socket_place);
    }))
}

type Known = BTreeMap<VaultId, Seq>;

/// The first message says whose socket it is, and what is known there.
async fn first(
    app: &App,
    socket: &mut WebSocket,
    stranger: OwnedSemaphorePermit,
) -> Result<(SessionRow, Listener, Known), End> {
    let mut stopping = app.stopping.subscribe();
    let message = tokio::select! {
        message = timeout(FIRST_MESSAGE, socket.recv()) => message,
        _ = stopping.wait_for(|stops| *stops) => return Err(End::Stops),
    };
    let bytes = match message {
        Ok(Some(Ok(Message::Binary(bytes)))) => bytes,
        Ok(None | Some(Err(_) | Ok(Message::Close(_)))) => return Err(End::Gone),
        Ok(Some(Ok(_))) | Err(_) => return Err(End::Malformed),
    };
    let Listen { token, heads } = Listen::decode(&bytes).map_err(|_| End::Malformed)?;
    let session = of_device(session_of(app, &token).await?)?;
    let known = known(heads)?;
    drop(stranger);
    let listener = app.notices.listen(session.account).ok_or(End::Busy)?;
    Ok((session, listener, known))
}

fn known(heads: Heads) -> Result<Known, ApiError> {
    let is_ascending = heads.0.is_sorted_by(|one, next| one.0 < next.0);
    if !is_ascending || heads.0.len() > limits::VAULTS_MAX {
        return Err(ApiError::new(Code::Malformed, "heads ascend by vault, each once, at most 1,024"));
    }
    Ok(heads.0.into_iter().collect())
}

/// Heads that are others than what is known, which is known then.
async fn moved(app: &App, session: &SessionRow, known: &mut Known) -> Result<Heads, ApiError> {
    let mut heads = app.store.heads(session.account).await?;
    heads.retain(|(vault, seq)| known.insert(*vault, *seq) != Some(*seq));
    Ok(Heads(heads))
}

/// The same, if the session is still there.
async fn look(app: &App, session: &SessionRow, known: &mut Known) -> Result<Heads, ApiError> {
    app.store.session(session.token_hash, now_utc()).await?.ok_or_else(ApiError::unauthenticated)?;
    moved(app, session, known).await
}

async fn talk(
    app: &App,
    socket: &mut WebSocket,
    session: &SessionRow,
    mut listener: Listener,
    mut known: Known,
) -> End {
    let mut stopping = app.stopping.subscribe();
    // The first answer comes at once: it says that the server listens.
    let mut beat = Instant::now();
    loop {
        let told = match look(app, session, &mut known).await {
            Ok(told) => told,
            // The database is away for a moment: the next look tells.
            Err(error) if error.code() == Code::Busy => Heads::default(),
            Err(error) => return error.into(),
        };
        let next_look = Instant::now() + LOOK_PAUSE;
        if !told.0.is_empty() || beat <= Instant::now() {
            match timeout(SEND, socket.send(Message::Binary(told.encode().into()))).await {
                Ok(Ok(())) => beat = Instant::now() + HEART_BEAT,
                Ok(Err(_)) | Err(_) => return End::Gone,
            }
        }
        tokio::select! {
            () = listener.woken() => {}
            () = sleep_until(beat) => {}
            _ = stopping.wait_for(|stops| *stops) => return End::Stops,
            end = hears(socket) => return end,
        }
        sleep_until(next_look).await;
    }
}

/// Nothing more is to come; pings are answered by the library.
async fn hears(socket: &mut WebSocket) -> End {
    loop {
        match socket.recv().await {
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            None | Some(Err(_) | Ok(Message::Close(_))) => return End::Gone,
            Some(Ok(_)) => return End::Malformed,
        }
    }
}

/// `POST /v1/events/wait`.
pub(crate) async fn wait(
    State(app): State<App>,
    DeviceSession(session): DeviceSession,
    body: Cbor<WaitForHeads>,
) -> Answer {
    let WaitForHeads { heads, seconds } = body.value;
    let mut known = known(heads)?;
    drop(body.reserved);
    let _place = place(&app.waiting.requests)?;
    let mut listener = app.notices.listen(session.account).ok_or_else(busy)?;
    let mut stopping = app.stopping.subscribe();
    let end = Instant::now() + Duration::from_secs(seconds.min(WAIT_SECONDS_MAX));
    loop {
        let told = look(&app, &session, &mut known).await?;
        let is_over = end <= Instant::now() || *stopping.borrow();
        if !told.0.is_empty() || is_over {
            return Ok(cbor(&told));
        }
        tokio::select! {
            () = listener.woken() => {}
            () = sleep_until(end) => {}
            _ = stopping.wait_for(|stops| *stops) => {}
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Waits a little until all sockets have ended.
pub(crate) async fn all_let_go(app: &App) {
    let all = u32::try_from(crate::domain::notices::LISTENERS_MAX).unwrap_or(u32::MAX);
    let _ = timeout(FAREWELL.saturating_mul(2), app.waiting.sockets.acquire_many(all)).await;
}
