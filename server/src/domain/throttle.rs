//! Slows guessing down without locking anybody out: after a few free tries each further one has to wait
//! longer, up to a minute. Device and recovery sign-in are never throttled by name.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Tries before any delay.
pub const FREE_TRIES: u32 = 6;
/// Longest delay, in seconds.
pub const DELAY_SECONDS_MAX: u64 = 60;
/// After this time without a try a bucket is forgotten, in seconds.
const FORGET_SECONDS: u64 = 900;
const BUCKETS_MAX: usize = 65_536;

#[derive(Clone, Copy)]
struct Bucket {
    tries: u32,
    last_utc: u64,
    next_utc: u64,
}

/// Buckets by key: a name, a source.
#[derive(Default)]
pub struct Throttle {
    buckets: Mutex<HashMap<Vec<u8>, Bucket>>,
}

impl Throttle {
    /// Counts a try of `key`.
    ///
    /// # Errors
    /// Seconds to wait.
    pub fn try_now(&self, key: &[u8], now_utc: u64) -> Result<(), u64> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX {
            buckets.retain(|_, bucket| bucket.last_utc.saturating_add(FORGET_SECONDS) > now_utc);
        }
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(key) {
            // Made-up keys must not lock real ones out: the oldest half makes room.
            let mut ages: Vec<u64> = buckets.values().map(|bucket| bucket.last_utc).collect();
            ages.sort_unstable();
            let middle = ages.get(ages.len() / 2).copied().unwrap_or(now_utc);
            buckets.retain(|_, bucket| bucket.tries > FREE_TRIES || bucket.last_utc > middle);
            // Somebody filled it up with keys that are slowed down: what it took them is worth more than what it
            // spares one of them, and room for one key at a time would cost everybody a walk through all of them.
            if buckets.len() > BUCKETS_MAX / 2 {
                buckets.retain(|_, bucket| bucket.last_utc > middle);
            }
            let mut over = buckets.len().saturating_sub(BUCKETS_MAX / 2);
            buckets.retain(|_, _| {
                let stays = over == 0;
                over = over.saturating_sub(1);
                stays
            });
        }
        let bucket =
            buckets.entry(key.to_vec()).or_insert(Bucket { tries: 0, last_utc: now_utc, next_utc: 0 });
        if bucket.last_utc.saturating_add(FORGET_SECONDS) <= now_utc {
            *bucket = Bucket { tries: 0, last_utc: now_utc, next_utc: 0 };
        }
        if now_utc < bucket.next_utc {
            return Err(bucket.next_utc.saturating_sub(now_utc));
        }
        bucket.tries = bucket.tries.saturating_add(1);
        bucket.last_utc = now_utc;
        let over = bucket.tries.saturating_sub(FREE_TRIES);
        if over > 0 {
            let delay = 1_u64.checked_shl(over.saturating_sub(1)).unwrap_or(u64::MAX).min(DELAY_SECONDS_MAX);
            bucket.next_utc = now_utc.saturating_add(delay);
        }
        Ok(())
    }

    /// Forgets the tries of a key: somebody signed in.
    pub fn succeeded(&self, key: &[u8]) {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_are_capped_and_end() {
        let throttle = Throttle::default();
        for _ in 0..=FREE_TRIES {
            assert_eq!(throttle.try_now(b"a", 100), Ok(()));
        }
        assert_eq!(throttle.try_now(b"a", 100), Err(1));
        assert_eq!(throttle.try_now(b"b", 100), Ok(()), "others are not slowed down");
        let mut now = 101;
        let mut delays = Vec::new();
        for _ in 0..8 {
            assert_eq!(throttle.try_now(b"a", now), Ok(()));
            let wait = throttle.try_now(b"a", now).unwrap_err();
            delays.push(wait);
            now += wait;
        }
        assert_eq!(delays, [2, 4, 8, 16, 32, 60, 60, 60]);
        throttle.succeeded(b"a");
        assert_eq!(throttle.try_now(b"a", now), Ok(()));
    }

    /// However it was filled up, making room makes room for many.
    #[test]
    fn made_up_keys_do_not_jam_it() {
        let throttle = Throttle::default();
        for number in 0..BUCKETS_MAX {
            for _ in 0..=FREE_TRIES {
                throttle.try_now(&number.to_be_bytes(), 100).unwrap();
            }
        }
        let size = || throttle.buckets.lock().unwrap().len();
        assert_eq!(size(), BUCKETS_MAX);
        assert_eq!(throttle.try_now(b"somebody", 101), Ok(()));
        assert!(size() <= BUCKETS_MAX / 2 + 1);
        for number in 0..BUCKETS_MAX * 2 {
            throttle.try_now(&(number + BUCKETS_MAX).to_be_bytes(), 102).unwrap();
            assert!(size() <= BUCKETS_MAX);
        }
    }
}
