//! The WebSocket of notices. The server's frames are bounded, and read for nothing but heads.

use super::{Api, retry_after};
use crate::error::{ClientError, Result};
use futures_util::{SinkExt as _, StreamExt as _};
use lockstep_proto::api::notice::{Heads, Listen};
use lockstep_proto::cbor::Wire as _;
use reqwest::StatusCode;
use reqwest::header::{CONNECTION, HeaderValue, UPGRADE};
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

/// The server is heard from at least every 30 seconds; silence of twice that and a bit ends a socket.
const SILENCE: Duration = Duration::from_secs(75);
const BEGIN: Duration = Duration::from_secs(30);

/// Close codes of the protocol: the session is not there, or is not a device's.
const CLOSE_SIGN_IN: u16 = 4401;
const CLOSE_FORBIDDEN: u16 = 4403;

/// A socket on which heads come.
pub(crate) struct Socket {
    stream: Box<WebSocketStream<reqwest::Upgraded>>,
    server: String,
}

/// How an attempt to begin one ended.
pub(crate) enum Begun {
    /// There it is.
    Socket(Socket),
    /// The server, or something on the way, knows no WebSockets.
    Unsupported,
}

impl Api {
    /// Begins a socket, and says what is known here. There must be a session.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::Busy`].
    pub(crate) async fn begin_socket(&self, heads: Heads) -> Result<Begun> {
        let key = generate_key();
        let request = self
            .http
            .get(format!("{}/v1/events", self.base))
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", &key);
        let response = match tokio::time::timeout(BEGIN, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.unreachable(&error)),
            Err(_) => return Err(self.silent()),
        };
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let is_busy = status == StatusCode::SERVICE_UNAVAILABLE && retry_after(&response).is_some();
            return if is_busy { Err(self.problem(response).await) } else { Ok(Begun::Unsupported) };
        }
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok();
        if accept.is_none() || response.headers().get("sec-websocket-accept") != accept.as_ref() {
            return Ok(Begun::Unsupported);
        }
        let upgraded = response.upgrade().await.map_err(|error| self.unreachable(&error))?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(Heads::BYTES_MAX))
            .max_frame_size(Some(Heads::BYTES_MAX))
            .read_buffer_size(4 * 1024)
            .write_buffer_size(0)
            .max_write_buffer_size(2 * Listen::BYTES_MAX);
        let stream = WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await;
        let mut socket = Socket { stream: Box::new(stream), server: self.origin.clone() };
        let listen = Listen { token: self.token().unwrap_or_default(), heads };
        let sent = socket.stream.send(Message::Binary(listen.encode().into()));
        match tokio::time::timeout(BEGIN, sent).await {
            Ok(Ok(())) => Ok(Begun::Socket(socket)),
            Ok(Err(error)) => Err(socket.broke(&error)),
            Err(_) => Err(self.silent()),
        }
    }

    fn silent(&self) -> ClientError {
        ClientError::Unreachable { server: self.origin.clone(), reason: "it does not answer".into() }
    }
}

impl Socket {
    /// The next heads; none are told when nothing moved for a while.
    ///
    /// # Errors
    /// [`ClientError::SignedOut`] if the session ended; [`ClientError::Unreachable`] if the socket did, or was silent
    /// for too long; [`ClientError::Server`] for anything that is no heads.
    pub(crate) async fn next(&mut self) -> Result<Heads> {
        // Pings alone are no sign of life.
        match tokio::time::timeout(SILENCE, self.heads()).await {
            Ok(heads) => heads,
            Err(_) => Err(self.ended("it stopped sending")),
        }
    }

    async fn heads(&mut self) -> Result<Heads> {
        loop {
            let message = match self.stream.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(self.broke(&error)),
                None => return Err(self.ended("the connection ended")),
            };
            match message {
                Message::Binary(bytes) => {
                    return Heads::decode(&bytes).map_err(|error| ClientError::Server(error.to_string()));
                }
                // The library answers pings when it is asked for the next message.
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close(frame) => return Err(self.closed(frame.as_ref())),
                Message::Text(_) | Message::Frame(_) => {
                    return Err(ClientError::Server("a notice is not binary".into()));
                }
            }
        }
    }

    fn closed(&self, frame: Option<&CloseFrame>) -> ClientError {
        match frame.map(|frame| u16::from(frame.code)) {
            Some(CLOSE_SIGN_IN | CLOSE_FORBIDDEN) => ClientError::SignedOut,
            Some(1001) => self.ended("it stops"),
            Some(code) => self.ended(&format!("it ended the connection with code {code}")),
            None => self.ended("it ended the connection"),
        }
    }

    fn ended(&self, reason: &str) -> ClientError {
        ClientError::Unreachable { server: self.server.clone(), reason: reason.into() }
    }

    fn broke(&self, error: &tokio_tungstenite::tungstenite::Error) -> ClientError {
        use tokio_tungstenite::tungstenite::Error;
        use tokio_tungstenite::tungstenite::error::ProtocolError;
        match error {
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                self.ended("the connection ended")
            }
            Error::Capacity(_) | Error::Protocol(_) | Error::Utf8(_) => {
                ClientError::Server(error.to_string())
            }
            _ => self.ended("the connection broke"),
        }
    }
}
