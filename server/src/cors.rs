//! Web pages of other origins that may talk to this server: those that the settings list, and no others.
//!
//! Sessions are bearer tokens and never cookies, so credentials are never allowed, and no page gets `*`.

use crate::state::App;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

const ORIGINS_MAX: usize = 64;
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, range, if-match, if-none-match, if-modified-since, if-unmodified-since, if-range",
);
const EXPOSED: HeaderValue = HeaderValue::from_static("content-range, retry-after, www-authenticate");
/// How long a browser need not ask again, in seconds.
const MAX_AGE_SECONDS: HeaderValue = HeaderValue::from_static("600");
/// An answer depends on the origin; one to a preflight on what it asks as well.
const VARY: HeaderValue = HeaderValue::from_static("origin");
const VARY_PREFLIGHT: HeaderValue =
    HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers");

/// Origins of pages that may talk to this server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CorsOrigins(Vec<String>);

impl CorsOrigins {
    /// Reads exact origins, comma separated.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let origins: Vec<String> = parts.map(as_browsers_say).collect::<Result<_, _>>()?;
        if origins.len() > ORIGINS_MAX {
            return Err(format!("more than {ORIGINS_MAX} origins"));
        }
        Ok(Self(origins))
    }

    /// The origin of a request, if it is listed.
    fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        self.0.iter().any(|known| known.as_bytes() == origin.as_bytes()).then(|| origin.clone())
    }
}

/// An origin in the spelling of browsers, which leave the usual port out.
fn as_browsers_say(text: &str) -> Result<String, String> {
    let origin = crate::config::check_origin(text)?;
    if origin.contains('*') || !origin.is_ascii() {
        return Err(format!("\"{text}\" is no exact origin such as https://app.example.org"));
    }
    let usual = if origin.starts_with("https://") { ":443" } else { ":80" };
    Ok(origin.strip_suffix(usual).unwrap_or(&origin).to_owned())
}

/// Answers preflights of listed origins and marks answers to them; everything else stays as it is.
pub(crate) async fn cors(State(app): State<App>, request: Request, next: Next) -> Response {
    if app.cors.0.is_empty() {
        return next.run(request).await;
    }
    let allowed = app.cors.allowed(request.headers());
    let is_preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    match allowed {
        Some(origin) if is_preflight => preflight(origin),
        Some(origin) => {
            let mut response = next.run(request).await;
            let headers = response.headers_mut();
            headers.append(header::VARY, VARY);
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            response
        }
        None => {
            let mut response = next.run(request).await;
            response.headers_mut().append(header::VARY, if is_preflight { VARY_PREFLIGHT } else { VARY });
            response
        }
    }
}

fn preflight(origin: HeaderValue) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let told: [(HeaderName, HeaderValue); 5] = [
        (header::VARY, VARY_PREFLIGHT),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin),
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECONDS),
    ];
    response.headers_mut().extend(told);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_origins_are_taken() {
        let origins = CorsOrigins::parse("https://App.example.org/, http://localhost:5173,https://a.org:443");
        let expected = ["https://app.example.org", "http://localhost:5173", "https://a.org"];
        assert_eq!(origins.unwrap().0, expected);
        for wrong in
            ["*", "null", "https://*.example.org", "example.org", "https://a.org/path", "ftp://a.org"]
        {
            assert!(CorsOrigins::parse(wrong).is_err(), "{wrong}");
        }
        assert!(CorsOrigins::parse(&vec!["https://a.org"; ORIGINS_MAX + 1].join(",")).is_err());
        assert_eq!(CorsOrigins::parse(""), Ok(CorsOrigins::default()));
    }

    #[test]
    fn a_listed_origin_is_the_same_byte_for_byte() {
        let origins = CorsOrigins::parse("https://a.org").unwrap();
        let ask = |origin: &'static [u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, HeaderValue::from_bytes(origin).unwrap());
            origins.allowed(&headers).is_some()
        };
        assert!(ask(b"https://a.org"));
        for other in
            [&b"https://a.org.evil.example"[..], b"http://a.org", b"https://b.a.org", b"null", b"\xff"]
        {
            assert!(!ask(other));
        }
    }
}
