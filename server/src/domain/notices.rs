//! Wakes whoever waits for an account's vaults to move. What is told is read from the store when it is told: a wake
//! that comes twice or too often costs a query, one that is lost is made up for at the next look (docs/adr/0013).

use lockstep_proto::id::AccountId;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, watch};

/// Listeners of an account at once: twice its devices.
pub const LISTENERS_A_ACCOUNT_MAX: usize = 2 * lockstep_proto::limits::DEVICES_MAX;
/// Listeners of this server at once.
pub const LISTENERS_MAX: usize = 4096;

/// Who waits, by account.
#[derive(Default)]
pub struct Notices {
    waiting: Mutex<Waiting>,
    /// Accounts that moved here, which other servers on the same database do not know of yet.
    moved: Mutex<BTreeSet<AccountId>>,
    has_moved: Notify,
}

#[derive(Default)]
struct Waiting {
    accounts: HashMap<AccountId, (watch::Sender<()>, usize)>,
    listeners: usize,
}

/// One who waits.
pub struct Listener {
    account: AccountId,
    notices: Arc<Notices>,
    wakes: watch::Receiver<()>,
}

impl Notices {
    /// Begins to listen; none if too many do.
    pub fn listen(self: &Arc<Self>, account: AccountId) -> Option<Listener> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.listeners >= LISTENERS_MAX {
            return None;
        }
        let (sender, count) = waiting.accounts.entry(account).or_insert_with(|| (watch::Sender::new(()), 0));
        if *count >= LISTENERS_A_ACCOUNT_MAX {
            return None;
        }
        *count = count.saturating_add(1);
        let wakes = sender.subscribe();
        waiting.listeners = waiting.listeners.saturating_add(1);
        Some(Listener { account, notices: Arc::clone(self), wakes })
    }

    /// Something of an account moved: wakes who waits here, and remembers to tell other servers.
    pub fn moved(&self, account: AccountId) {
        self.wake(account);
        self.moved.lock().unwrap_or_else(PoisonError::into_inner).insert(account);
        self.has_moved.notify_one();
    }

    /// The same as soon as what this gives is dropped.
    pub fn moved_when_dropped(self: &Arc<Self>, account: AccountId) -> Moved {
        Moved { account, notices: Arc::clone(self) }
    }

    /// Wakes who waits for an account here.
    pub fn wake(&self, account: AccountId) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((sender, _)) = waiting.accounts.get(&account) {
            sender.send_replace(());
        }
    }

    /// Wakes everybody: wakes may have been lost.
    pub fn wake_all(&self) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for (sender, _) in waiting.accounts.values() {
            sender.send_replace(());
        }
    }

    /// Waits for accounts that moved here, at most so many; they are told apart from none that come later.
    pub async fn take_moved(&self, limit: usize) -> Vec<AccountId> {
        loop {
            let has_moved = self.has_moved.notified();
            let taken = {
                let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
                let rest = moved.iter().nth(limit).copied();
                let rest = rest.map(|first| moved.split_off(&first)).unwrap_or_default();
                std::mem::replace(&mut *moved, rest)
            };
            if !taken.is_empty() {
                return taken.into_iter().collect();
            }
            has_moved.await;
        }
    }
}

/// Says that an account moved when it is dropped.
pub struct Moved {
    account: AccountId,
    notices: Arc<Notices>,
}

impl Drop for Moved {
    fn drop(&mut self) {
        self.notices.moved(self.account);
    }
}

impl Listener {
    /// Waits until something may have moved since the last time.
    pub async fn woken(&mut self) {
        if self.wakes.changed().await.is_err() {
            // The sender lives as long as its listeners.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut waiting = self.notices.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.listeners = waiting.listeners.saturating_sub(1);
        if let Some((_, count)) = waiting.accounts.get_mut(&self.account) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                waiting.accounts.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn account(number: u8) -> AccountId {
        AccountId::from_bytes([number; 16])
    }

    #[test]
    fn a_wake_reaches_its_account_only_and_is_not_lost_before_somebody_waits() {
        let notices = Arc::new(Notices::default());
        let mut one = notices.listen(account(1)).unwrap();
        let mut other = notices.listen(account(2)).unwrap();
        notices.wake(account(1));
        notices.wake(account(1));
        assert!(one.woken().now_or_never().is_some());
        assert!(one.woken().now_or_never().is_none(), "two wakes are one");
        assert!(other.woken().now_or_never().is_none());
        notices.wake_all();
        assert!(one.woken().now_or_never().is_some() && other.woken().now_or_never().is_some());
    }

    #[test]
    fn listeners_are_bounded_and_leave_nothing_behind() {
        let notices = Arc::new(Notices::default());
        let mut all: Vec<Listener> =
            (0..LISTENERS_A_ACCOUNT_MAX).map(|_| notices.listen(account(1)).unwrap()).collect();
        assert!(notices.listen(account(1)).is_none());
        let others = LISTENERS_MAX - all.len();
        for number in 0..others {
            let mut id = [7; 16];
            id[..4].copy_from_slice(&u32::try_from(number / LISTENERS_A_ACCOUNT_MAX).unwrap().to_be_bytes());
            all.push(notices.listen(AccountId::from_bytes(id)).unwrap());
        }
        assert!(notices.listen(account(2)).is_none());
        all.pop();
        all.push(notices.listen(account(2)).unwrap());
        all.clear();
        let waiting = notices.waiting.lock().unwrap();
        assert!(waiting.accounts.is_empty() && waiting.listeners == 0);
    }

    #[test]
    fn what_moved_is_taken_once_and_in_parts() {
        let notices = Notices::default();
        assert!(notices.take_moved(2).now_or_never().is_none());
        for number in [3, 1, 2, 1] {
            notices.moved(account(number));
        }
        let mut taken = notices.take_moved(2).now_or_never().unwrap();
        taken.extend(notices.take_moved(2).now_or_never().unwrap());
        assert_eq!(taken, [account(1), account(2), account(3)]);
        assert!(notices.take_moved(2).now_or_never().is_none());
    }
}
