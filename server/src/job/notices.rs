//! What servers on one database tell each other.

use crate::domain::notices::Notices;
use crate::store::Store;
use std::sync::Arc;
use std::time::Duration;

const ACCOUNTS_A_TELLING: usize = 256;
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Tells of what moved here; what can not be told is made up for when the others look by themselves.
pub async fn tell_for_ever(store: Arc<dyn Store>, notices: Arc<Notices>) {
    loop {
        let accounts = notices.take_moved(ACCOUNTS_A_TELLING).await;
        if let Err(error) = store.tell_moved(accounts).await {
            tracing::warn!(%error, "other servers could not be told what moved here");
        }
    }
}

/// Hears what moved elsewhere. Whenever it begins to hear, everybody is woken once, to look.
pub async fn hear_for_ever(store: Arc<dyn Store>, notices: Arc<Notices>) {
    let mut pause = PAUSE_MIN;
    loop {
        let begin = tokio::time::Instant::now();
        let Err(error) = store.hear_moved(&notices).await else { continue };
        tracing::warn!(%error, "what moves on other servers is not heard; it is tried again");
        pause = if begin.elapsed() > PAUSE_MAX { PAUSE_MIN } else { pause.saturating_mul(2).min(PAUSE_MAX) };
        tokio::time::sleep(pause).await;
    }
}
