//! As much of HTTP/1.1 as stands between a client and the server: whole heads, whole bodies.

use std::fmt::Write as _;
use std::io::{BufRead, Read as _, Write};

/// A body that is longer is a defect of whoever sends it.
const BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// A request as the client sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Upper case.
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case, in the order sent.
    pub headers: Vec<(String, String)>,
    /// Whole.
    pub body: Vec<u8>,
}

/// An answer as the client gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Names in lower case; the length is written by itself.
    pub headers: Vec<(String, String)>,
    /// Whole.
    pub body: Vec<u8>,
}

impl Request {
    /// The path without its query.
    pub fn place(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// A value of the query.
    pub fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.path.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        value_of(&self.headers, name)
    }

    pub(super) fn read(from: &mut impl BufRead, continues: &mut impl Write) -> Option<Self> {
        let first = line(from)?;
        let mut words = first.split(' ');
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let headers = headers(from)?;
        if value_of(&headers, "expect").is_some() {
            continues.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
        }
        let body = body(from, &headers)?;
        Some(Self { method, path, headers, body })
    }

    pub(super) fn write(&self, to: &mut impl Write) -> std::io::Result<()> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            if !matches!(name.as_str(), "content-length" | "transfer-encoding" | "connection" | "expect") {
                let _ = write!(head, "{name}: {value}\r\n");
            }
        }
        let _ = write!(head, "content-length: {}\r\nconnection: close\r\n\r\n", self.body.len());
        to.write_all(head.as_bytes())?;
        to.write_all(&self.body)
    }
}

impl Answer {
    /// An answer of the protocol's own media type.
    pub fn cbor(body: Vec<u8>) -> Self {
        Self { status: 200, headers: vec![("content-type".into(), "application/cbor".into())], body }
    }

    /// JSON.
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        let headers = vec![("content-type".into(), "application/json".into())];
        Self { status, headers, body: value.to_string().into_bytes() }
    }

    /// A problem document with a code (RFC 9457).
    pub fn problem(status: u16, code: &str, detail: &str) -> Self {
        let value = serde_json::json!({ "status": status, "code": code, "detail": detail });
        let mut answer = Self::json(status, &value);
        answer.headers = vec![("content-type".into(), "application/problem+json".into())];
        answer
    }

    /// Whether the server did what it was asked for.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(super) fn read(from: &mut impl BufRead) -> Option<Self> {
        let first = line(from)?;
        let status: u16 = first.split(' ').nth(1)?.parse().ok()?;
        let headers = headers(from)?;
        let body = if matches!(status, 204 | 304) { Vec::new() } else { body(from, &headers)? };
        Some(Self { status, headers, body })
    }

    pub(super) fn write(&self, to: &mut impl Write) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} Hostile\r\n", self.status);
        for (name, value) in &self.headers {
            if !matches!(name.as_str(), "content-length" | "transfer-encoding" | "connection") {
                let _ = write!(head, "{name}: {value}\r\n");
            }
        }
        if self.status != 204 {
            let _ = write!(head, "content-length: {}\r\n", self.body.len());
        }
        head.push_str("\r\n");
        to.write_all(head.as_bytes())?;
        to.write_all(&self.body)
    }
}

fn value_of<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn line(from: &mut impl BufRead) -> Option<String> {
    let mut bytes = Vec::new();
    from.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    text.strip_suffix('\n').map(|text| text.trim_end_matches('\r').to_owned())
}

fn headers(from: &mut impl BufRead) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    loop {
        let next = line(from)?;
        if next.is_empty() {
            return Some(found);
        }
        let (name, value) = next.split_once(':')?;
        found.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn body(from: &mut impl BufRead, headers: &[(String, String)]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    if value_of(headers, "transfer-encoding").is_some() {
        loop {
            let size = u64::from_str_radix(line(from)?.split(';').next()?.trim(), 16).ok()?;
            from.by_ref().take(size.min(BODY_BYTES_MAX)).read_to_end(&mut bytes).ok()?;
            line(from)?;
            if size == 0 {
                return Some(bytes);
            }
        }
    }
    let size: u64 = value_of(headers, "content-length").map_or(Some(0), |text| text.parse().ok())?;
    let size = size.min(BODY_BYTES_MAX);
    from.by_ref().take(size).read_to_end(&mut bytes).ok()?;
    (u64::try_from(bytes.len()).ok()? == size).then_some(bytes)
}
