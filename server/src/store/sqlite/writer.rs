//! The one writer: takes up to 64 waiting jobs, runs each in a savepoint of one transaction, commits once
//! (one fsync), then answers them all.

use super::failed;
use crate::error::StoreError;
use crate::store::Result;
use futures_util::FutureExt as _;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

const BATCH_JOBS_MAX: usize = 64;
const QUEUE_JOBS_MAX: usize = 256;

pub(super) type Boxed<'c, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'c>>;

trait Job: Send {
    /// Runs the job; false rolls its savepoint back.
    fn run<'a>(
        &'a mut self,
        connection: &'a mut SqliteConnection,
    ) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>>;
    /// Answers once the transaction ended.
    fn answer(self: Box<Self>, committed: Result<()>);
}

struct Typed<T, F> {
    work: Option<F>,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Job for Typed<T, F>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> Boxed<'c, T> + Send + 'static,
{
    fn run<'a>(
        &'a mut self,
        connection: &'a mut SqliteConnection,
    ) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(async move {
            let Some(work) = self.work.take() else { return false };
            let outcome = AssertUnwindSafe(async { work(connection).await }).catch_unwind().await;
            let outcome = outcome.unwrap_or(Err(StoreError::Corrupt("a write job panicked")));
            let keep = outcome.is_ok();
            self.outcome = Some(outcome);
            keep
        })
    }

    fn answer(self: Box<Self>, committed: Result<()>) {
        let result = match (self.outcome, committed) {
            (Some(Err(own)), _) => Err(own),
            (_, Err(batch)) => Err(batch),
            (Some(done), Ok(())) => done,
            (None, Ok(())) => Err(stopped()),
        };
        // Nobody waits any more when the request was dropped; the write stands.
        let _ = self.reply.send(result);
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable(std::sync::Arc::new(std::io::Error::other("the database writer has stopped")))
}

pub(super) struct Writer {
    queue: Mutex<Option<mpsc::Sender<Box<dyn Job>>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(connection: SqliteConnection, options: SqliteConnectOptions) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_JOBS_MAX);
        let task = tokio::spawn(work(connection, options, receiver));
        Self { queue: Mutex::new(Some(sender)), task: Mutex::new(Some(task)) }
    }

    /// Runs a job; resolves when its transaction is durable. A job must not wait for another job.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Boxed<'c, T> + Send + 'static,
    {
        let sender = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(stopped)?;
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Typed { work: Some(work), outcome: None, reply });
        sender.send(job).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Lets the queue run dry and closes the connection.
    pub(super) async fn stop(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

async fn work(
    connection: SqliteConnection,
    options: SqliteConnectOptions,
    mut queue: mpsc::Receiver<Box<dyn Job>>,
) {
    let mut connection = Some(connection);
    let mut batch = Vec::with_capacity(BATCH_JOBS_MAX);
    while queue.recv_many(&mut batch, BATCH_JOBS_MAX).await > 0 {
        let committed = match open(&mut connection, &options).await {
            Ok(open) => run_batch(open, &mut batch).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &committed {
            tracing::error!(%error, jobs = batch.len(), "a write transaction failed");
            // After a full disk or a failed write the connection may be left within a transaction that is
            // gone: the next batch begins on a new one.
            if let Some(failed) = connection.take() {
                let _ = failed.close_hard().await;
            }
        }
        for job in batch.drain(..) {
            job.answer(committed.clone());
        }
    }
    if let Some(connection) = connection {
        let _ = connection.close().await;
    }
}

async fn open<'a>(
    connection: &'a mut Option<SqliteConnection>,
    options: &SqliteConnectOptions,
) -> Result<&'a mut SqliteConnection> {
    if connection.is_none() {
        *connection = Some(SqliteConnection::connect_with(options).await.map_err(failed)?);
    }
    connection.as_mut().ok_or_else(stopped)
}

async fn run_batch(connection: &mut SqliteConnection, batch: &mut [Box<dyn Job>]) -> Result<()> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    for job in batch {
        sqlx::query("SAVEPOINT job").execute(&mut *transaction).await.map_err(failed)?;
        if !job.run(&mut transaction).await {
            sqlx::query("ROLLBACK TO job").execute(&mut *transaction).await.map_err(failed)?;
        }
        sqlx::query("RELEASE job").execute(&mut *transaction).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}
