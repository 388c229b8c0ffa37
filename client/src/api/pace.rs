//! A limit on how fast bodies are sent and answers are taken in: a token bucket that all requests share.

use bytes::Bytes;
use futures_util::stream::unfold;
use reqwest::{Body, Response, ResponseBuilderExt as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The slowest limit, in bytes a second. A server gives up who sends a body with less than 16 KiB a second.
pub const RATE_MIN: u64 = 64 * 1024;
/// Smaller bodies and answers are calls, and pass as they are.
pub(super) const PACED_BYTES_MIN: usize = 16 * 1024;
/// What may pass at once after a pause.
const BURST: Duration = Duration::from_millis(100);
const PIECE_BYTES_MAX: u64 = 16 * 1024;

/// A token bucket. Whoever takes bytes is told when they may pass; the next one comes after that.
pub(super) struct Pace {
    bytes_a_second: u64,
    /// When everything that was taken so far has passed.
    free_at: Mutex<Instant>,
    /// Bodies go out one after the other, so that each is as fast as the limit lets it be.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Pace {
    pub(super) fn new(bytes_a_second: u64) -> Arc<Self> {
        Arc::new(Self {
            bytes_a_second: bytes_a_second.max(1),
            free_at: Mutex::new(Instant::now()),
            turn: Arc::default(),
        })
    }

    /// Waits until so many bytes may pass.
    async fn take(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let nanos = u128::from(bytes).saturating_mul(1_000_000_000) / u128::from(self.bytes_a_second);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let passes_at = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let earliest = now.checked_sub(BURST).unwrap_or(now);
            let passes_at = (*free_at).max(earliest).checked_add(cost).unwrap_or(now);
            *free_at = passes_at;
            passes_at
        };
        sleep_until(passes_at).await;
    }

    fn piece_bytes(&self) -> usize {
        usize::try_from((self.bytes_a_second / 8).clamp(1, PIECE_BYTES_MAX)).unwrap_or(1)
    }

    /// Waits for the turn of a body.
    pub(super) async fn turn(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// A body that goes out no faster.
    pub(super) fn body(self: &Arc<Self>, body: Bytes) -> Body {
        let pieces = unfold((body, Arc::clone(self)), |(mut rest, pace)| async move {
            if rest.is_empty() {
                return None;
            }
            let piece = rest.split_to(rest.len().min(pace.piece_bytes()));
            pace.take(piece.len()).await;
            Some((Ok::<_, std::io::Error>(piece), (rest, pace)))
        });
        Body::wrap_stream(pieces)
    }

    /// An answer that is taken in no faster: what waits is left to the connection, and so to the sender.
    pub(super) fn answer(self: &Arc<Self>, response: Response) -> Response {
        let mut paced = http::Response::builder().status(response.status()).url(response.url().clone());
        if let Some(headers) = paced.headers_mut() {
            headers.clone_from(response.headers());
        }
        let pieces =
            unfold((response, Bytes::new(), Arc::clone(self)), |(mut response, mut rest, pace)| async {
                if rest.is_empty() {
                    match response.chunk().await {
                        Ok(Some(chunk)) => rest = chunk,
                        Ok(None) => return None,
                        Err(error) => return Some((Err(error), (response, rest, pace))),
                    }
                }
                let piece = rest.split_to(rest.len().min(pace.piece_bytes()));
                pace.take(piece.len()).await;
                Some((Ok(piece), (response, rest, pace)))
            });
        match paced.body(Body::wrap_stream(pieces)) {
            Ok(paced) => paced.into(),
            // Status, address and headers are those of an answer: they make one.
            Err(_) => http::Response::new(Body::default()).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn taken(mut response: Response) -> usize {
        let mut bytes = 0;
        while let Some(chunk) = response.chunk().await.unwrap() {
            bytes += chunk.len();
        }
        bytes
    }

    fn answer_of(bytes: usize) -> Response {
        http::Response::new(Body::from(vec![7; bytes])).into()
    }

    /// Whether a time is what so many bytes take, to a tenth.
    #[track_caller]
    fn assert_took(took: Duration, bytes: usize, rate: u64) {
        let expected = Duration::from_millis(u64::try_from(bytes).unwrap() * 1000 / rate);
        assert!(took >= expected * 9 / 10 && took <= expected * 11 / 10, "{took:?}, not {expected:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_comes_as_fast_as_the_limit_says() {
        for (rate, bytes) in [(64 * 1024, 300_000), (500 * 1024, 3_000_000), (2 << 20, 10_000_000)] {
            let pace = Pace::new(rate);
            let begun = Instant::now();
            assert_eq!(taken(pace.answer(answer_of(bytes))).await, bytes);
            assert_took(begun.elapsed(), bytes, rate);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_share_one_limit() {
        let (rate, bytes) = (1 << 20, 3_000_000);
        let pace = Pace::new(rate);
        let begun = Instant::now();
        let body = http::Response::new(pace.body(vec![7; bytes].into())).into();
        let (sent, one, two) = tokio::join!(
            taken(body),
            taken(pace.answer(answer_of(bytes))),
            taken(pace.answer(answer_of(bytes)))
        );
        assert_eq!((sent, one, two), (bytes, bytes, bytes));
        assert_took(begun.elapsed(), 3 * bytes, rate);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_saves_up_next_to_nothing() {
        let (rate, bytes) = (1 << 20, 2_000_000);
        let pace = Pace::new(rate);
        tokio::time::sleep(Duration::from_hours(1)).await;
        let begun = Instant::now();
        taken(pace.answer(answer_of(bytes))).await;
        assert_took(begun.elapsed(), bytes, rate);
    }
}
