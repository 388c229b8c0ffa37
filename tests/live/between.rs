//! Something between devices and the server that can turn requests away, and counts them.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

#[derive(Default)]
struct Shared {
    upstream: OnceLock<String>,
    /// Requests whose path has this in it are turned away, with so many seconds to wait.
    refused: Mutex<Option<(String, u64)>>,
    /// When requests came that were to be turned away.
    came: Mutex<Vec<Instant>>,
    requests: AtomicU64,
}

#[derive(Clone)]
pub(crate) struct Between {
    pub(crate) origin: String,
    shared: Arc<Shared>,
}

impl Between {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared::default());
        let between = Self { origin, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(client, &shared));
            }
        });
        between
    }

    pub(crate) fn lead_to(&self, address: &str) {
        self.shared.upstream.set(address.to_owned()).unwrap();
    }

    pub(crate) fn refuse(&self, path: &str, seconds: u64) {
        *self.shared.refused.lock().unwrap() = Some((path.to_owned(), seconds));
    }

    pub(crate) fn let_through(&self) {
        *self.shared.refused.lock().unwrap() = None;
    }

    /// When requests were turned away.
    pub(crate) fn turned_away(&self) -> Vec<Instant> {
        self.shared.came.lock().unwrap().clone()
    }

    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }
}

fn serve(mut client: TcpStream, shared: &Arc<Shared>) {
    let Ok(mut server) = TcpStream::connect(shared.upstream.get().unwrap()) else { return };
    let (mut back, mut answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut answers, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..count]);
        let first = text.lines().next().unwrap_or_default().to_owned();
        if first.ends_with("HTTP/1.1") {
            shared.requests.fetch_add(1, Ordering::Relaxed);
            let refused = shared.refused.lock().unwrap().clone();
            if let Some((_, seconds)) = refused.filter(|(path, _)| first.contains(path.as_str())) {
                shared.came.lock().unwrap().push(Instant::now());
                let answer = format!(
                    "HTTP/1.1 503 Service Unavailable\r\nretry-after: {seconds}\r\ncontent-length: 0\r\n\
                     connection: close\r\n\r\n"
                );
                let _ = client.write_all(answer.as_bytes());
                break;
            }
        }
        if server.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
}
