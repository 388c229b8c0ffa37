//! Reading answers: bounded in bytes and in time, whatever the server does.

use crate::error::{ClientError, Result};
use bytes::Bytes;
use reqwest::Response;
use std::time::Duration;

/// Silence for so long ends a request.
pub(super) const STALL: Duration = Duration::from_mins(1);

/// The next chunk of an answer; silence ends it.
///
/// # Errors
/// [`ClientError::Unreachable`].
pub async fn next_chunk(response: &mut Response) -> Result<Option<Bytes>> {
    let server = response.url().origin().ascii_serialization();
    match tokio::time::timeout(STALL, response.chunk()).await {
        Ok(Ok(chunk)) => Ok(chunk),
        Ok(Err(_)) => Err(ClientError::Unreachable { server, reason: "the connection broke".into() }),
        Err(_) => Err(ClientError::Unreachable { server, reason: "it stopped sending".into() }),
    }
}

/// A whole answer of at most `bytes_max`. A server that sends a byte now and then does not hold the client up for ever.
pub(super) async fn read_bounded(response: &mut Response, bytes_max: usize) -> Result<Vec<u8>> {
    let server = response.url().origin().ascii_serialization();
    let told = response.content_length().and_then(|length| usize::try_from(length).ok());
    let mut out = Vec::with_capacity(told.unwrap_or(0).min(bytes_max));
    let whole = async {
        while let Some(chunk) = next_chunk(response).await? {
            if out.len().saturating_add(chunk.len()) > bytes_max {
                return Err(ClientError::Server(format!("an answer is larger than {bytes_max} bytes")));
            }
            out.extend_from_slice(&chunk);
        }
        Ok(())
    };
    match tokio::time::timeout(deadline(bytes_max), whole).await {
        Ok(done) => done?,
        Err(_) => return Err(ClientError::Unreachable { server, reason: "it sends too slowly".into() }),
    }
    Ok(out)
}

/// Time for an answer of at most so many bytes: a minute, and what 8 KiB a second take.
pub(crate) fn deadline(bytes_max: usize) -> Duration {
    const BYTES_A_SECOND: usize = 8 * 1024;
    STALL.saturating_add(Duration::from_secs(u64::try_from(bytes_max / BYTES_A_SECOND).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    /// An answer of single bytes, each after a pause; without an end.
    fn trickle(pause: Duration) -> Response {
        let bytes = futures_util::stream::unfold((), move |()| async move {
            tokio::time::sleep(pause).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
        });
        http::Response::new(reqwest::Body::wrap_stream(bytes)).into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_sends_a_byte_now_and_then_is_given_up() {
        let begun = Instant::now();
        let error = read_bounded(&mut trickle(Duration::from_secs(59)), 8 * 1024).await.unwrap_err();
        assert!(error.to_string().contains("too slowly"), "{error}");
        assert!(begun.elapsed() < Duration::from_mins(2), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_falls_silent_is_given_up() {
        let error = read_bounded(&mut trickle(Duration::from_hours(2)), 8 * 1024).await.unwrap_err();
        assert!(error.to_string().contains("stopped sending"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_read_to_its_limit_and_no_further() {
        let error = read_bounded(&mut trickle(Duration::ZERO), 1000).await.unwrap_err();
        assert!(error.to_string().contains("larger than 1000 bytes"), "{error}");
        let mut whole = http::Response::new(reqwest::Body::from(vec![7; 1000])).into();
        assert_eq!(read_bounded(&mut whole, 1000).await.unwrap(), vec![7; 1000]);
    }
}
