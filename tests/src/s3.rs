//! A real S3 server on loopback, in this process: `s3s` over a folder. It checks signatures, wants parts of
//! 5 MiB, and counts the requests that it is asked.

use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Key of the one user.
pub const ACCESS_KEY: &str = "GKlockstep";
/// Its secret.
pub const SECRET_KEY: &str = "a-secret-that-is-said-nowhere";
/// The one bucket.
pub const BUCKET: &str = "lockstep";
/// The server's region.
pub const REGION: &str = "us-east-1";

/// A running S3 server; it ends when this is dropped.
pub struct S3 {
    address: SocketAddr,
    folder: PathBuf,
    requests: Arc<AtomicUsize>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl S3 {
    /// Starts a server that keeps everything below a folder, which is created. It has one empty bucket.
    pub fn start(folder: &Path) -> Self {
        std::fs::create_dir_all(folder.join(BUCKET)).unwrap();
        let mut s3 = Self {
            address: ([127, 0, 0, 1], 0).into(),
            folder: folder.to_path_buf(),
            requests: Arc::default(),
            running: None,
        };
        s3.restart();
        s3
    }

    /// Starts it again, on the same port and folder.
    pub fn restart(&mut self) {
        self.stop();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(&self.folder).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let listener = std::net::TcpListener::bind(self.address).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let requests = Arc::clone(&self.requests);
        // A runtime of its own: what a test does to its runtime does not stop this server.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = serve(TcpListener::from_std(listener).unwrap(), service, requests) => {}
                    _ = stopped => {}
                }
            });
        });
        self.running = Some((stop, thread));
    }

    /// Stops it; connections break.
    pub fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            // It may have ended by itself, which its thread then says.
            let _ = stop.send(());
            thread.join().unwrap();
        }
    }

    /// Scheme, host and port.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where the bucket's objects lie, and what the server itself keeps.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How many requests it was asked.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// The environment of a server that uses the bucket below a prefix.
    pub fn environment(&self, prefix: &str) -> Vec<(&'static str, String)> {
        vec![
            ("LOCKSTEP_OBJECTS", format!("s3://{BUCKET}/{prefix}")),
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_REGION", REGION.into()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.into()),
        ]
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve(listener: TcpListener, service: S3Service, requests: Arc<AtomicUsize>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (service, requests) = (service.clone(), Arc::clone(&requests));
        let counted = hyper::service::service_fn(move |request| {
            requests.fetch_add(1, Ordering::SeqCst);
            hyper::service::Service::call(&service, request)
        });
        connections.spawn(async move {
            let http = hyper::server::conn::http1::Builder::new();
            // A client may go away in the middle of an answer.
            let _ = http.serve_connection(TokioIo::new(stream), counted).await;
        });
    }
}
