//! The global budget of body and page bytes held in memory: who comes when it is used up waits a little,
//! then gets 503 with Retry-After.

use crate::error::ApiError;
use lockstep_proto::api::problem::Code;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that all requests together may hold.
pub const BUDGET_BYTES: usize = 16 * 1024 * 1024;
/// Of which requests without a session may hold so much, apart from the rest.
pub const OPEN_BUDGET_BYTES: usize = 2 * 1024 * 1024;
/// Bytes that answers of many objects may hold in large pieces, apart from the rest: who takes them slowly keeps nobody from
/// sending.
pub const OBJECTS_BUDGET_BYTES: usize = 8 * 1024 * 1024;
const UNIT_BYTES: usize = 1024;
const WAIT: Duration = Duration::from_secs(10);

/// Hands out parts of the budget.
#[derive(Clone)]
pub struct Budget(Arc<Semaphore>, usize);

/// A part of the budget; given back when dropped.
#[derive(Debug)]
pub struct Reserved {
    _permit: OwnedSemaphorePermit,
}

impl Default for Budget {
    fn default() -> Self {
        let bytes = BUDGET_BYTES - OPEN_BUDGET_BYTES;
        Self(Arc::new(Semaphore::new(bytes / UNIT_BYTES)), bytes)
    }
}

impl Budget {
    /// The small budget of routes that need no session.
    pub fn for_open_routes() -> Self {
        Self(Arc::new(Semaphore::new(OPEN_BUDGET_BYTES / UNIT_BYTES)), OPEN_BUDGET_BYTES)
    }

    /// The budget of answers of many objects.
    pub fn for_objects() -> Self {
        Self(Arc::new(Semaphore::new(OBJECTS_BUDGET_BYTES / UNIT_BYTES)), OBJECTS_BUDGET_BYTES)
    }

    /// Reserves `bytes` if they are free now.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reserved> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok()?;
        let permit = Arc::clone(&self.0).try_acquire_many_owned(units).ok()?;
        Some(Reserved { _permit: permit })
    }

    /// Reserves `bytes`, waiting at most ten seconds. More than the whole budget counts as the whole.
    ///
    /// # Errors
    /// 503 with Retry-After.
    pub async fn reserve(&self, bytes: usize) -> Result<Reserved, ApiError> {
        let units = bytes.min(self.1).div_ceil(UNIT_BYTES);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let acquired = tokio::time::timeout(WAIT, Arc::clone(&self.0).acquire_many_owned(units)).await;
        match acquired {
            Ok(Ok(permit)) => Ok(Reserved { _permit: permit }),
            _ => Err(ApiError::new(Code::Busy, "the server is busy; try again shortly").retry_after(2)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_comes_too_late_is_told_when_to_come_back() {
        let budget = Budget::default();
        let all = budget.reserve(BUDGET_BYTES * 2).await.ok().unwrap();
        let refused = budget.reserve(1).await.err().unwrap();
        assert_eq!(refused.code(), Code::Busy);
        drop(all);
        assert!(budget.reserve(1).await.is_ok());
    }

    #[test]
    fn what_is_not_free_now_is_not_waited_for() {
        let budget = Budget::for_objects();
        let most = budget.try_reserve(OBJECTS_BUDGET_BYTES - 1).unwrap();
        assert!(budget.try_reserve(1025).is_none());
        drop(most);
        assert!(budget.try_reserve(OBJECTS_BUDGET_BYTES).is_some());
        assert!(budget.try_reserve(OBJECTS_BUDGET_BYTES + 1).is_none());
    }
}
