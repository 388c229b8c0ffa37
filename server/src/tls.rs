//! TLS for who has no reverse proxy: a certificate chain and its key from files, read again when they change.

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

const FILE_BYTES_MAX: u64 = 1024 * 1024;
const CERTIFICATES_MAX: usize = 16;
const LOOK_INTERVAL: Duration = Duration::from_mins(1);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where certificate and key lie (PEM).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why certificate or key can not be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", file.display())]
pub struct TlsError {
    file: PathBuf,
    reason: String,
}

/// What tells that a file changed.
type Stamp = Option<(SystemTime, u64)>;

/// The certificate in use.
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<CertifiedKey>>,
    seen: Mutex<(Stamp, Stamp)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Tls {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn stamp(file: &Path) -> Stamp {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn stamps(files: &TlsFiles) -> (Stamp, Stamp) {
    (stamp(&files.cert), stamp(&files.key))
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |reason: String| TlsError { file: file.to_path_buf(), reason };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(|error| failed(error.to_string()))?;
    opened.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    Ok(bytes)
}

fn load(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let wrong = |file: &Path, reason: String| TlsError { file: file.to_path_buf(), reason };
    let bytes = read(&files.cert)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).take(CERTIFICATES_MAX).collect();
    let chain = chain.map_err(|_| wrong(&files.cert, "it is no PEM".to_owned()))?;
    if chain.is_empty() {
        return Err(wrong(&files.cert, "there is no certificate in it".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|_| wrong(&files.key, "there is no private key in it".to_owned()))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider())
        .map_err(|error| wrong(&files.key, format!("it does not go with the certificate: {error}")))
}

impl Tls {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn open(files: &TlsFiles) -> Result<Arc<Self>, TlsError> {
        let seen = stamps(files);
        let current = load(files)?;
        Ok(Arc::new(Self {
            files: files.clone(),
            current: RwLock::new(Arc::new(current)),
            seen: Mutex::new(seen),
        }))
    }

    /// Reads certificate and key again; new connections get them.
    ///
    /// # Errors
    /// [`TlsError`]; the old ones stay in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = stamps(&self.files);
        let new = load(&self.files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(())
    }

    /// Whether a file changed since it was last read.
    fn changed(&self) -> bool {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) != stamps(&self.files)
    }

    fn reload_and_say(&self) {
        match self.reload() {
            Ok(()) => tracing::info!("the certificate was read again"),
            Err(error) => tracing::error!(%error, "the new certificate is not used; the old one is kept"),
        }
    }

    /// Takes connections with this certificate.
    ///
    /// # Errors
    /// The library has no protocol version that it could speak.
    pub fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, TlsError> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError { file: self.files.cert.clone(), reason: error.to_string() })?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Self>::clone(self);
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// Reads the files again when they changed, looked at once a minute, and at SIGHUP, which is listened for from
/// now on. Runs for ever; ended with its task.
pub fn watch(tls: Arc<Tls>) -> impl Future<Output = ()> + Send {
    let mut hang_up = HangUp::listen();
    async move {
        let mut timer = tokio::time::interval(LOOK_INTERVAL);
        loop {
            let asked = tokio::select! {
                _ = timer.tick() => false,
                () = hang_up.next() => true,
            };
            let tls = Arc::clone(&tls);
            let looked = tokio::task::spawn_blocking(move || {
                if asked || tls.changed() {
                    tls.reload_and_say();
                }
            });
            let _ = looked.await;
        }
    }
}

/// SIGHUP, where there is one.
struct HangUp(#[cfg(unix)] Option<tokio::signal::unix::Signal>);

impl HangUp {
    #[cfg(unix)]
    fn listen() -> Self {
        Self(tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok())
    }

    #[cfg(not(unix))]
    fn listen() -> Self {
        Self()
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.0
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// A connection, encrypted or not.
pub trait Connection: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Connection for T {}

/// Shakes hands, if there is TLS; who takes longer than ten seconds is cut off.
///
/// # Errors
/// The other side speaks no TLS, or too slowly.
pub async fn accept<S: Connection + Unpin + 'static>(
    acceptor: Option<TlsAcceptor>,
    stream: S,
) -> io::Result<Pin<Box<dyn Connection>>> {
    let Some(acceptor) = acceptor else { return Ok(Box::pin(stream)) };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(accepted) => Ok(Box::pin(accepted?)),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long")),
    }
}
