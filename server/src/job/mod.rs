//! Background work: collection of what expired and of objects that no commit names.

pub mod notices;

use crate::error::StoreError;
use crate::objects::Objects;
use crate::store::Store;
use crate::time::now_utc;
use lockstep_proto::limits::STAGED_TTL_SECONDS;
use std::sync::Arc;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_mins(10);

/// Rounds of one run; what is left waits for the next.
const ROUNDS_MAX: usize = 100;

/// Runs for ever; ended with its task.
pub async fn collect_for_ever(store: Arc<dyn Store>, objects: Arc<dyn Objects>) {
    let mut timer = tokio::time::interval(INTERVAL);
    loop {
        timer.tick().await;
        if let Err(error) = collect(&*store, &*objects, now_utc(), STAGED_TTL_SECONDS).await {
            tracing::warn!(%error, "collection failed; it is tried again");
        }
    }
}

/// One round of collection.
///
/// # Errors
/// [`StoreError`]; what was done stays done.
pub async fn collect(
    store: &dyn Store,
    objects: &dyn Objects,
    now_utc: u64,
    grace_seconds: u64,
) -> Result<(), StoreError> {
    for _ in 0..ROUNDS_MAX {
        let segments = store.collect(now_utc, grace_seconds).await?;
        let mut deleted = false;
        for segment in segments {
            match objects.delete(segment).await {
                Ok(()) => {
                    store.forget_segment(segment).await?;
                    deleted = true;
                }
                // One that can not be deleted does not keep the others.
                Err(error) => tracing::warn!(%error, "a segment could not be deleted; it is tried again"),
            }
        }
        if !deleted {
            break;
        }
    }
    Ok(())
}
