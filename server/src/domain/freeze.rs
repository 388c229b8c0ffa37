//! Holds a device's writes back for a moment while its owner revokes it: a device that writes all the time must not
//! outrun the heads that its revocation has to pin.

use lockstep_proto::id::{AccountId, DeviceId};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// How long, in seconds; each refused revocation begins it anew.
pub const FREEZE_SECONDS: u64 = 60;
const DEVICES_MAX: usize = 4096;

/// Devices whose writes wait.
#[derive(Default)]
pub struct Freeze {
    until_utc: Mutex<HashMap<(AccountId, DeviceId), u64>>,
}

impl Freeze {
    /// Holds a device's writes back. Only for a revocation that the account's identity signed.
    pub fn hold(&self, account: AccountId, device: DeviceId, now_utc: u64) {
        let mut until = self.until_utc.lock().unwrap_or_else(PoisonError::into_inner);
        if until.len() >= DEVICES_MAX {
            until.retain(|_, until| *until > now_utc);
        }
        if until.len() < DEVICES_MAX {
            until.insert((account, device), now_utc.saturating_add(FREEZE_SECONDS));
        }
    }

    /// Lets a device's writes go: it is revoked, and there are none.
    pub fn release(&self, account: AccountId, device: DeviceId) {
        self.until_utc.lock().unwrap_or_else(PoisonError::into_inner).remove(&(account, device));
    }

    /// Whether a device's writes wait.
    pub fn holds(&self, account: AccountId, device: DeviceId, now_utc: u64) -> bool {
        let until = self.until_utc.lock().unwrap_or_else(PoisonError::into_inner);
        until.get(&(account, device)).is_some_and(|until| *until > now_utc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_held_for_its_time_and_no_other() {
        let freeze = Freeze::default();
        let (account, device) = (AccountId::from_bytes([1; 16]), DeviceId::from_bytes([2; 16]));
        freeze.hold(account, device, 100);
        assert!(freeze.holds(account, device, 100) && freeze.holds(account, device, 99 + FREEZE_SECONDS));
        assert!(!freeze.holds(account, device, 100 + FREEZE_SECONDS));
        assert!(!freeze.holds(account, DeviceId::from_bytes([3; 16]), 100));
        assert!(!freeze.holds(AccountId::from_bytes([3; 16]), device, 100));
        freeze.release(account, device);
        assert!(!freeze.holds(account, device, 100));
    }

    #[test]
    fn what_is_held_is_bounded() {
        let freeze = Freeze::default();
        let account = AccountId::from_bytes([1; 16]);
        let device = |number: u16| {
            let mut id = [0; 16];
            id[..2].copy_from_slice(&number.to_be_bytes());
            DeviceId::from_bytes(id)
        };
        for number in 0..5000 {
            freeze.hold(account, device(number), 100);
        }
        assert_eq!(freeze.until_utc.lock().unwrap().len(), DEVICES_MAX);
        freeze.hold(account, device(6000), 100 + FREEZE_SECONDS);
        assert_eq!(freeze.until_utc.lock().unwrap().len(), 1);
    }
}
