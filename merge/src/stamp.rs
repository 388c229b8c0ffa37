//! Who wrote something when.

use lockstep_proto::clock::Hlc;
use lockstep_proto::id::DeviceId;
use lockstep_proto::wire_array;

wire_array! {
    /// When something was written and by which device; the later one first by clock, then by device id. No two
    /// writes have the same one, since a device's clock rises strictly.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub struct Stamp {
        /// The writer's hybrid clock.
        pub hlc: Hlc,
        /// The writer.
        pub device: DeviceId,
    }
}

impl Stamp {
    /// This stamp, or the least one of the same device that is later than what the writer saw: an edit is never
    /// older than what it replaces, however slow its device's clock is.
    #[must_use]
    pub(crate) fn after(self, seen: Option<Self>) -> Self {
        match seen {
            Some(seen) if seen >= self => Self { hlc: seen.hlc.next(), device: self.device },
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_is_later_than_what_it_replaces() {
        let stamp = |utc_ms, counter, device| Stamp {
            hlc: Hlc { utc_ms, counter },
            device: DeviceId::from_bytes([device; 16]),
        };
        assert_eq!(stamp(9, 0, 1).after(Some(stamp(5, 5, 2))), stamp(9, 0, 1));
        assert_eq!(stamp(3, 0, 1).after(Some(stamp(5, 5, 2))), stamp(5, 6, 1));
        assert_eq!(stamp(5, 5, 2).after(Some(stamp(5, 5, 2))), stamp(5, 6, 2));
        assert_eq!(stamp(3, 0, 1).after(None), stamp(3, 0, 1));
    }
}
