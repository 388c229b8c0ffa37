//! What servers on one database tell each other, by LISTEN and NOTIFY. Telling is a transaction of its own, after the
//! commit that it is about: a commit that told would queue behind every other one that does, for PostgreSQL lets
//! one at a time through.

use super::{ACQUIRE_TIMEOUT, failed};
use crate::domain::notices::Notices;
use crate::error::StoreError;
use crate::store::Result;
use lockstep_proto::id::AccountId;
use sqlx::PgConnection;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use std::sync::Arc;

const CHANNEL: &str = "lockstep_moved";

/// Tells the others; a server that hears itself knows that it need not look again.
pub(super) async fn tell(c: &mut PgConnection, server: u64, accounts: &[AccountId]) -> Result<()> {
    let names: Vec<String> = accounts.iter().map(|account| format!("{account} {server:016x}")).collect();
    sqlx::query("SELECT pg_notify($1, name) FROM unnest($2::text[]) AS name")
        .bind(CHANNEL)
        .bind(names)
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

/// Listens on a connection of its own until that is lost.
pub(super) async fn hear(options: PgConnectOptions, server: u64, notices: &Notices) -> Result<()> {
    let own = format!("{server:016x}");
    let pool =
        PgPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT).connect_lazy_with(options);
    let mut listener = PgListener::connect_with(&pool).await.map_err(failed)?;
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await.map_err(failed)?;
    // What moved before somebody listened.
    notices.wake_all();
    while let Some(told) = listener.try_recv().await.map_err(failed)? {
        let Some((account, from)) = told.payload().split_once(' ') else { continue };
        if from != own
            && let Ok(account) = account.parse()
        {
            notices.wake(account);
        }
    }
    Err(StoreError::Unavailable(Arc::new(sqlx::Error::PoolClosed)))
}
