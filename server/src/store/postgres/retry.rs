//! One operation, one transaction, and what is tried again: what PostgreSQL did not do, or what may be done
//! twice.

use super::{PostgresStore, failed};
use crate::domain::opaque::random_bytes;
use crate::error::StoreError;
use crate::store::Result;
use sqlx::{Connection as _, PgConnection};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Tries of one operation: with the pauses between them enough for a server to be restarted.
const TRIES_MAX: u32 = 7;
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A try that takes longer hangs: the network swallows what is sent.
const TRY: Duration = Duration::from_mins(1);

pub(super) type Boxed<'c, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'c>>;

/// How an operation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// One statement, which is a transaction by itself; doing it twice is doing it once.
    Statement,
    /// Statements that see one moment and change nothing.
    Snapshot,
    /// Changes; doing them twice is doing them once.
    Idempotent,
    /// Changes that must not be done twice: tried again only while `COMMIT` was not sent.
    Once,
}

impl Run {
    fn begin(self) -> Option<&'static str> {
        match self {
            Self::Statement => None,
            Self::Snapshot => Some("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"),
            Self::Idempotent | Self::Once => Some("BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE"),
        }
    }
}

/// What a failure says about the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// PostgreSQL rolled it back; it can be done again.
    RolledBack,
    /// The connection was lost: before `COMMIT` nothing is done, after it nobody knows.
    Connection,
    /// Trying again would not help.
    Final,
}

fn lost(error: &StoreError) -> Lost {
    let StoreError::Unavailable(source) = error else { return Lost::Final };
    match source.downcast_ref::<sqlx::Error>() {
        Some(sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) => Lost::Connection,
        Some(sqlx::Error::Database(error)) => match error.code().as_deref() {
            // Serialisation failure, deadlock; a row that somebody else stored in between.
            Some("40001" | "40P01" | "23505") => Lost::RolledBack,
            // Too many connections; shut down, crashed, starting; idle for too long; not the primary server.
            Some("53300" | "57P01" | "57P02" | "57P03" | "25P03" | "25006") => Lost::Connection,
            Some(code) if code.starts_with("08") => Lost::Connection,
            _ => Lost::Final,
        },
        _ => Lost::Final,
    }
}

fn hangs() -> StoreError {
    StoreError::Unavailable(Arc::new(std::io::Error::other("the database did not answer for a minute")))
}

/// Full jitter: between nothing and twice as long as the last bound.
async fn pause(tries: u32) {
    let bound = PAUSE_MIN.saturating_mul(2_u32.saturating_pow(tries)).min(PAUSE_MAX);
    let share = f64::from(u32::from_le_bytes(random_bytes())) / f64::from(u32::MAX);
    tokio::time::sleep(bound.mul_f64(share)).await;
}

impl PostgresStore {
    /// Runs an operation on its arguments until it is done, refused, or there is no sense in going on.
    pub(super) async fn run<A: Send, T: Send>(
        &self,
        how: Run,
        mut arguments: A,
        work: impl for<'c> Fn(&'c mut PgConnection, &'c mut A) -> Boxed<'c, T> + Send + Sync,
    ) -> Result<T> {
        let mut tries = 0;
        loop {
            let mut committing = false;
            let trying = self.try_once(how, &mut arguments, &work, &mut committing);
            let error = match tokio::time::timeout(TRY, trying).await.unwrap_or_else(|_| Err(hangs())) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let again = match lost(&error) {
                Lost::RolledBack => true,
                Lost::Connection => how != Run::Once || !committing,
                Lost::Final => false,
            };
            tries = u32::saturating_add(tries, 1);
            if !again || tries >= TRIES_MAX {
                return Err(error);
            }
            tracing::debug!(%error, tries, "an operation is tried again");
            pause(tries).await;
        }
    }

    async fn try_once<A: Send, T: Send>(
        &self,
        how: Run,
        arguments: &mut A,
        work: &(impl for<'c> Fn(&'c mut PgConnection, &'c mut A) -> Boxed<'c, T> + Send + Sync),
        committing: &mut bool,
    ) -> Result<T> {
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        let Some(begin) = how.begin() else { return work(&mut connection, arguments).await };
        let mut transaction = connection.begin_with(begin).await.map_err(failed)?;
        match work(&mut transaction, arguments).await {
            Ok(done) => {
                *committing = true;
                transaction.commit().await.map_err(failed)?;
                Ok(done)
            }
            Err(error) => {
                // If this fails the connection is gone, and the transaction with it.
                let _ = transaction.rollback().await;
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_help_is_tried_again() {
        let io = |kind| failed(sqlx::Error::Io(std::io::Error::from(kind)));
        assert_eq!(lost(&io(std::io::ErrorKind::ConnectionReset)), Lost::Connection);
        assert_eq!(lost(&io(std::io::ErrorKind::UnexpectedEof)), Lost::Connection);
        assert_eq!(lost(&failed(sqlx::Error::PoolTimedOut)), Lost::Final, "it waited long enough");
        assert_eq!(lost(&failed(sqlx::Error::PoolClosed)), Lost::Final);
        assert_eq!(lost(&StoreError::Full), Lost::Final);
        assert_eq!(lost(&StoreError::Corrupt("x")), Lost::Final);
        let other = StoreError::Unavailable(Arc::new(std::io::Error::other("x")));
        assert_eq!(lost(&other), Lost::Final);
        assert_eq!(lost(&hangs()), Lost::Final);
    }
}
