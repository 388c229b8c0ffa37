//! Starting, accepting connections, stopping.

use crate::config::{Config, Database};
use crate::domain::opaque::{Opaque, random_bytes};
use crate::error::StoreError;
use crate::objects::settings::ObjectsAt;
use crate::proxy::TrustedProxies;
use crate::router::router;
use crate::state::{App, Shared};
use crate::store::Store;
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::SqliteStore;
use crate::tls::{self, Tls, TlsError};
use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use lockstep_proto::version::{VERSION, describe};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

const CONNECTIONS_MAX: usize = 1024;
const HEADER_READ_TIMEOUT: Duration = Duration::from_mins(1);
const WRITE_STALL: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(20);
const BUFFER_BYTES: usize = 64 * 1024;
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Address of the client.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

impl Peer {
    /// Throttling key of this source: an IPv4 address, or an IPv6 /64.
    pub fn bucket(&self, purpose: &str) -> Vec<u8> {
        let mut key = purpose.as_bytes().to_vec();
        match self.0.ip() {
            IpAddr::V4(address) => key.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => key.extend(address.octets().iter().take(8)),
        }
        key
    }
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A folder can not be used.
    #[error("the folder {folder} can not be used: {source}")]
    Folder {
        /// Which.
        folder: String,
        /// Why.
        source: io::Error,
    },
    /// Another server uses the folder.
    #[error("another lockstep-server uses the data folder {folder}; stop it first")]
    Locked {
        /// Which.
        folder: String,
    },
    /// The PostgreSQL database can not be used.
    #[error("the database {database} can not be opened; check LOCKSTEP_DATABASE_URL")]
    Database {
        /// Which.
        database: String,
        /// Why.
        source: StoreError,
    },
    /// The database or blob storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The data is of another draft of the protocol.
    #[error(
        "the stored data is of {held} of the protocol, this program speaks {spoken}; use another data folder"
    )]
    Draft {
        /// What is stored.
        held: String,
        /// What this program speaks.
        spoken: String,
    },
    /// Certificate or key can not be used.
    #[error("no TLS with {0}")]
    Tls(#[from] TlsError),
    /// The address can not be listened on.
    #[error("can not listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// A server that is ready to serve.
pub struct Server {
    listener: TcpListener,
    app: App,
    edge: Edge,
    tls: Option<Arc<Tls>>,
    jobs: JoinSet<()>,
    _lock: Option<FolderLock>,
}

/// Keeps other processes from the data folder of the embedded default until it is dropped.
pub struct FolderLock {
    _file: std::fs::File,
}

/// Opens (and creates) the data folder, for this process alone.
fn lock_folder(config: &Config) -> Result<FolderLock, StartError> {
    let folder = config.data.display().to_string();
    let failed = |source| StartError::Folder { folder: folder.clone(), source };
    create_private(&config.data).map_err(failed)?;
    let lock = std::fs::File::create(config.data.join("lock")).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(FolderLock { _file: lock }),
        Err(std::fs::TryLockError::WouldBlock) => Err(StartError::Locked { folder }),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

#[cfg(unix)]
fn create_private(folder: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn create_private(folder: &std::path::Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)
}

/// Opens the database and brings its schema up to date. A PostgreSQL database may have many servers; the
/// embedded default has one, which holds the lock of its folder.
///
/// # Errors
/// [`StartError`].
pub async fn open_store(config: &Config) -> Result<(Arc<dyn Store>, Option<FolderLock>), StartError> {
    match &config.database {
        Database::Sqlite(path) => {
            let lock = lock_folder(config)?;
            let store = SqliteStore::open(path).await?.with_default_quota(config.quota);
            Ok((Arc::new(store), Some(lock)))
        }
        Database::Postgres(url) => {
            let store = PostgresStore::open(url, config.database_connections)
                .await
                .map_err(|source| StartError::Database { database: url.to_string(), source })?;
            Ok((Arc::new(store.with_default_quota(config.quota)), None))
        }
    }
}

/// Refuses data of another draft of the protocol by naming it.
async fn check_draft(store: &dyn Store) -> Result<(), StartError> {
    let held = store.secret("draft", vec![VERSION]).await?;
    match held.as_slice() {
        [VERSION] => Ok(()),
        [other] => Err(StartError::Draft { held: describe(*other), spoken: describe(VERSION) }),
        _ => Err(StoreError::Corrupt("the draft of the stored data can not be read").into()),
    }
}

impl Server {
    /// Opens everything and binds the address.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn bind(config: &Config) -> Result<Self, StartError> {
        let tls = config.tls.as_ref().map(Tls::open).transpose()?;
        let acceptor = tls.as_ref().map(Tls::acceptor).transpose()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (store, lock) = open_store(config).await?;
        if let ObjectsAt::Folder(folder) = &config.objects {
            create_private(folder)
                .map_err(|source| StartError::Folder { folder: folder.display().to_string(), source })?;
        }
        let objects = crate::objects::open(&config.objects, store.has_segments().await?).await?;
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|source| StartError::Listen { address: config.listen, source })?;
        let address = listener.local_addr().unwrap_or(config.listen);
        check_draft(&*store).await?;
        let opaque = store.secret("opaque", Opaque::generate()).await?;
        let opaque = Opaque::from_bytes(&opaque).ok_or(StoreError::Corrupt("the OPAQUE keys are damaged"))?;
        let fake: [u8; 32] = random_bytes();
        let fake_key = store.secret("fake", fake.to_vec()).await?;
        let fake_key =
            fake_key.try_into().map_err(|_| StoreError::Corrupt("the key of fake answers is damaged"))?;
        let shared = Shared {
            store,
            objects,
            opaque,
            fake_key,
            budget: crate::budget::Budget::default(),
            open_budget: crate::budget::Budget::for_open_routes(),
            objects_budget: crate::budget::Budget::for_objects(),
            names: crate::domain::throttle::Throttle::default(),
            freeze: crate::domain::freeze::Freeze::default(),
            sources: crate::domain::throttle::Throttle::default(),
            refused: crate::domain::refused::RefusedEntries::default(),
            notices: Arc::default(),
            waiting: crate::state::WaitingPlaces::default(),
            stopping: watch::Sender::new(false),
            origin: config.public_url.clone().unwrap_or_else(|| format!("{scheme}://{address}")),
            cors: config.cors_origins.clone(),
            registration: config.registration,
        };
        let mut jobs = JoinSet::new();
        if let Some(tls) = &tls {
            jobs.spawn(tls::watch(Arc::clone(tls)));
        }
        let edge = Edge { acceptor, proxies: Arc::new(config.trusted_proxies.clone()) };
        Ok(Self { listener, app: App(Arc::new(shared)), edge, tls, jobs, _lock: lock })
    }

    /// The certificate in use, if connections are encrypted.
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// The address that is listened on.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// The public origin.
    pub fn origin(&self) -> &str {
        &self.app.origin
    }

    /// Shared state, for tests and jobs.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Serves until `stop` resolves, then lets running requests end.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let (store, objects) = (Arc::clone(&self.app.store), Arc::clone(&self.app.objects));
        self.jobs.spawn(crate::job::collect_for_ever(Arc::clone(&store), objects));
        self.jobs
            .spawn(crate::job::notices::tell_for_ever(Arc::clone(&store), Arc::clone(&self.app.notices)));
        self.jobs.spawn(crate::job::notices::hear_for_ever(store, Arc::clone(&self.app.notices)));
        let app = self.app.clone();
        let stop = async move {
            stop.await;
            app.stopping.send_replace(true);
        };
        serve(self.listener, router(self.app.clone()), self.edge, stop).await;
        crate::route::notice::all_let_go(&self.app).await;
        self.jobs.shutdown().await;
        self.app.store.close().await;
    }
}

/// What lies between a connection and its requests.
#[derive(Clone, Default)]
pub struct Edge {
    /// Encrypts connections.
    pub acceptor: Option<TlsAcceptor>,
    /// Proxies whose word about their clients is taken.
    pub proxies: Arc<TrustedProxies>,
}

/// Accepts connections until `stop` resolves; then waits for running requests, at most 20 seconds.
pub async fn serve(listener: TcpListener, router: Router, edge: Edge, stop: impl Future<Output = ()>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let closing = watch::Sender::new(false);
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT).max_buf_size(BUFFER_BYTES);
    http.max_header_size(HEADER_BYTES_MAX);
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        while connections.try_join_next().is_some() {}
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (listener.accept().await, slot)
        };
        let (stream, peer, slot) = tokio::select! {
            () = &mut stop => break,
            accepted = next => match accepted {
                (Ok((stream, peer)), slot) => (stream, peer, slot),
                (Err(error), _) => {
                    // Out of file descriptors, most likely: do not spin.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        // A reader that takes nothing for so long is cut off, and gives its share of the budget back.
        let mut stream = tokio_io_timeout::TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_STALL));
        let stream = Box::pin(stream);
        let (router, proxies) = (router.clone(), Arc::clone(&edge.proxies));
        let service =
            hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
                let client = Peer(proxies.client(peer, request.headers()));
                request.extensions_mut().insert(client);
                tower::ServiceExt::oneshot(router.clone(), request)
            });
        let (http, mut closing, acceptor) = (http.clone(), closing.subscribe(), edge.acceptor.clone());
        connections.spawn(async move {
            let stream = match tls::accept(acceptor, stream).await {
                Ok(stream) => stream,
                Err(error) => return tracing::debug!(%error, "a handshake failed"),
            };
            let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
            tokio::pin!(connection);
            let done = tokio::select! {
                done = connection.as_mut() => done,
                () = closes(&mut closing) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = done {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(slot);
        });
    }
    drop(listener);
    closing.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all).await.is_err() {
        tracing::warn!(left = connections.len(), "requests were still running after the grace period");
    }
    connections.shutdown().await;
}

async fn closes(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closes| *closes).await;
}
