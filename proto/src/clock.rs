//! Hybrid logical clocks (PROTOCOL.md section 8). They settle concurrent edits of one base and nothing else: no
//! order of commits, no expiry and no refusal depends on them.

use crate::wire_array;

/// How far ahead of its own clock a reading may be for a device to adopt it, in milliseconds: 24 hours.
pub const HLC_AHEAD_MS_MAX: u64 = 24 * 3600 * 1000;

wire_array! {
    /// A hybrid logical clock's reading.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub struct Hlc {
        /// Milliseconds since 1970.
        pub utc_ms: u64,
        /// Counter within the millisecond.
        pub counter: u64,
    }
}

impl Hlc {
    /// Before every other reading.
    pub const ZERO: Self = Self { utc_ms: 0, counter: 0 };

    /// The next reading, for a write: later than this one, whatever the device's clock says.
    #[must_use]
    pub const fn tick(self, utc_ms: u64) -> Self {
        if utc_ms > self.utc_ms { Self { utc_ms, counter: 0 } } else { self.next() }
    }

    /// The next reading after another device's was seen: later than this one, and later than the other unless that
    /// is more than 24 hours ahead of the device's clock. Such a one is not adopted, so that one device whose clock
    /// runs away takes no other with it.
    #[must_use]
    pub fn receive(self, other: Self, utc_ms: u64) -> Self {
        let is_adopted = other.utc_ms <= utc_ms.saturating_add(HLC_AHEAD_MS_MAX);
        if is_adopted { self.max(other).tick(utc_ms) } else { self.tick(utc_ms) }
    }

    /// The least reading after this one. A full counter, which only a broken or hostile writer has, goes on in the
    /// next millisecond.
    #[must_use]
    pub const fn next(self) -> Self {
        match self.counter.checked_add(1) {
            Some(counter) => Self { utc_ms: self.utc_ms, counter },
            None if self.utc_ms == u64::MAX => self,
            None => Self { utc_ms: self.utc_ms.saturating_add(1), counter: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(utc_ms: u64, counter: u64) -> Hlc {
        Hlc { utc_ms, counter }
    }

    #[test]
    fn a_device_clock_that_moves_on_is_taken() {
        assert_eq!(at(5, 7).tick(6), at(6, 0));
    }

    #[test]
    fn a_device_clock_that_stands_or_goes_back_is_counted_over() {
        assert_eq!(at(5, 7).tick(5), at(5, 8));
        assert_eq!(at(5, 7).tick(1), at(5, 8));
    }

    #[test]
    fn a_full_counter_goes_on_in_the_next_millisecond() {
        assert_eq!(at(5, u64::MAX).tick(5), at(6, 0));
        assert_eq!(at(u64::MAX, u64::MAX).tick(5), at(u64::MAX, u64::MAX));
    }

    #[test]
    fn a_reading_from_elsewhere_is_adopted_up_to_a_day_ahead() {
        let day = HLC_AHEAD_MS_MAX;
        assert_eq!(at(5, 0).receive(at(100, 3), 10), at(100, 4));
        assert_eq!(at(5, 0).receive(at(10 + day, 3), 10), at(10 + day, 4));
        assert_eq!(at(5, 0).receive(at(11 + day, 3), 10), at(10, 0));
        assert_eq!(at(50, 1).receive(at(u64::MAX, u64::MAX), 10), at(50, 2));
    }

    #[test]
    fn a_reading_from_the_past_does_not_turn_the_clock_back() {
        assert_eq!(at(50, 1).receive(at(7, 9), 10), at(50, 2));
        assert_eq!(at(5, 1).receive(at(7, 9), 10), at(10, 0));
    }

    #[test]
    fn readings_order_by_time_then_counter() {
        assert!(at(1, 9) < at(2, 0) && at(2, 0) < at(2, 1) && Hlc::ZERO < at(0, 1));
    }
}
