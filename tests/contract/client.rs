//! A small HTTP/1.1 client that can also misbehave: it writes what it is told, byte for byte, on a
//! connection of its own, and reads the answer to the end.

use lockstep_proto::api::MEDIA_TYPE;
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::Wire;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Where to, and as whom.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) token: Option<String>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn parse(bytes: &[u8], is_head: bool) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        let answer = Self { status, headers, body: bytes[end + 4..].to_vec() };
        if let Some(size) = answer.header("content-length").filter(|_| !is_head) {
            assert_eq!(size, answer.body.len().to_string(), "the body is whole");
        }
        assert_eq!(answer.header("transfer-encoding"), None, "this client reads no chunks");
        answer
    }

    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok<T: Wire>(&self) -> T {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), Some(MEDIA_TYPE));
        T::decode(&self.body).unwrap()
    }

    #[track_caller]
    pub(crate) fn nothing(&self) {
        assert_eq!((self.status, self.body.len()), (204, 0), "{}", String::from_utf8_lossy(&self.body));
    }

    /// The code of a problem document; everything about its form is checked.
    #[track_caller]
    pub(crate) fn problem(&self) -> Code {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{} {text}", self.status);
        let document: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(document["status"], self.status, "{text}");
        let name = document["code"].as_str().unwrap();
        let code = Code::parse(name).unwrap_or_else(|| panic!("an unknown code: {text}"));
        assert_eq!(code.status(), self.status, "{text}");
        assert_eq!(document["type"], format!("urn:lockstep:problem:{name}"));
        assert!(document["title"].is_string() && document["detail"].is_string(), "{text}");
        assert_eq!(self.status == 401, self.header("www-authenticate").is_some());
        code
    }

    #[track_caller]
    pub(crate) fn refused(&self, code: Code) {
        assert_eq!(self.problem(), code, "{}", String::from_utf8_lossy(&self.body));
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, token: None }
    }

    pub(crate) fn with(&self, token: &str) -> Self {
        Self { address: self.address, token: Some(token.to_owned()) }
    }

    /// A request's head, without the empty line at its end.
    pub(crate) fn head(&self, method: &str, path: &str) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address);
        if let Some(token) = &self.token {
            head = head + "authorization: Bearer " + token + "\r\n";
        }
        head
    }

    /// Sends raw bytes, ends its side if told to, and reads the answer; none if there came none.
    pub(crate) async fn raw(&self, bytes: &[u8], end: bool) -> Option<Answer> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // A server may answer and close before it has read everything.
        let _ = stream.write_all(bytes).await;
        if end {
            let _ = stream.shutdown().await;
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        (!answer.is_empty()).then(|| Answer::parse(&answer, bytes.starts_with(b"HEAD ")))
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let size = body.len();
        let mut bytes =
            format!("{}{headers}content-length: {size}\r\n\r\n", self.head(method, path)).into_bytes();
        bytes.extend_from_slice(body);
        let answer = self.raw(&bytes, false).await;
        answer.unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", b"").await
    }

    pub(crate) async fn post_bytes(&self, path: &str, body: &[u8]) -> Answer {
        self.send("POST", path, "content-type: application/cbor\r\n", body).await
    }

    pub(crate) async fn post<T: Wire>(&self, path: &str, body: &T) -> Answer {
        self.post_bytes(path, &body.encode()).await
    }
}
