//! A server, and devices of one account whose homes are driven through the library.

use crate::server::Server;
use lockstep_client::account::{self, Ignored, NewSecrets, Place};
use lockstep_client::home::Home;
use lockstep_client::live::{Event, Live, Settings, Status, document};
use lockstep_client_crypto::passphrase::Passphrase;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) const VAULT: &str = "files";
pub(crate) const NOTE: &str = "note";
const NAME: &str = "ada";
const PASSPHRASE: &str = "correct horse battery staple";
/// What does not come within this time does not come.
const WAIT_MAX: Duration = Duration::from_secs(40);

/// A folder with a server in it; removed when the test went well.
pub(crate) struct World {
    pub(crate) server: Server,
    folder: PathBuf,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    pub(crate) fn with(settings: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("lockstep-live-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        Self { server: Server::start(&folder, settings), folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The first device of the account, with its default vault; gives its home.
    pub(crate) async fn signup(&self, name: &str) -> PathBuf {
        let home = self.path(name);
        let passphrase = Passphrase::new(PASSPHRASE).unwrap();
        let origin = self.server.origin.clone();
        let place = Place { origin: &origin, name: NAME, device_name: name, ignored: Ignored::Some(&[]) };
        let mut keep = |_: &str| Ok(());
        let secrets = NewSecrets { passphrase: &passphrase, deliver_kit: &mut keep };
        let opened = Home::open(&home).unwrap();
        let mut account = account::signup(opened, &place, "", secrets, false).await.unwrap();
        account.open_vault(VAULT, true).await.unwrap();
        home
    }

    /// One more device; gives its home.
    pub(crate) async fn login(&self, name: &str) -> PathBuf {
        let home = self.path(name);
        let passphrase = Passphrase::new(PASSPHRASE).unwrap();
        let origin = self.server.origin.clone();
        let place = Place { origin: &origin, name: NAME, device_name: name, ignored: Ignored::Some(&[]) };
        account::login(Home::open(&home).unwrap(), &place, &passphrase, false).await.unwrap();
        home
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.kill();
        if !std::thread::panicking() {
            std::fs::remove_dir_all(&self.folder).unwrap();
        }
    }
}

pub(crate) async fn start(home: &Path) -> Live {
    Live::start(home, false, Settings::default()).await.unwrap()
}

/// Starts it and waits until everything was synced once.
pub(crate) async fn synced(home: &Path) -> Live {
    let live = start(home).await;
    let status = live.sync_now().await.unwrap();
    assert!(status.last_error().is_none(), "{status:?}");
    live
}

pub(crate) async fn put(live: &Live, name: &str, text: &str) {
    live.put(VAULT, vec![document(NOTE, name.as_bytes(), text.into())]).await.unwrap();
}

pub(crate) async fn get(live: &Live, name: &str) -> Option<String> {
    let record = live.get(VAULT, NOTE, name.as_bytes()).await.unwrap()?;
    Some(String::from_utf8(record.document).unwrap())
}

/// Waits for a status, and gives it.
#[track_caller]
pub(crate) fn status(
    live: &Live,
    what: &'static str,
    is_it: impl Fn(&Status) -> bool,
) -> impl Future<Output = Status> {
    let mut status = live.status();
    async move {
        let found = tokio::time::timeout(WAIT_MAX, status.wait_for(is_it)).await.map(|s| s.unwrap().clone());
        found.unwrap_or_else(|_| panic!("{what} did not come: {:?}", status.borrow()))
    }
}

/// Waits until a record says something.
pub(crate) async fn says(live: &Live, name: &str, text: &str) {
    let found = tokio::time::timeout(WAIT_MAX, async {
        while get(live, name).await.as_deref() != Some(text) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(found.await.is_ok(), "\"{name}\" is {:?}, not \"{text}\"", get(live, name).await);
}

/// The next event.
pub(crate) async fn event(events: &mut lockstep_client::live::Subscription) -> Event {
    tokio::time::timeout(WAIT_MAX, events.next()).await.expect("an event").expect("sync goes on")
}
