//! A device at work: the client library on a runtime of its own. It stays on the thread that made it.

use lockstep_client::account::{self, Account, Ignored, NewSecrets, Place};
use lockstep_client::home::Home;
use lockstep_client::vault::Vault;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_engine::NewRecord;
use lockstep_engine::read;
use lockstep_engine::replica::{Pinning, Policy, Replica as _};
use std::future::Future;
use std::path::Path;
use std::sync::OnceLock;
use tokio::runtime::{Builder, Runtime};

const PASSPHRASE: &str = "a passphrase for measuring";
pub(super) const TYPE: &str = "bench/document";
const DOCUMENT_BYTES: usize = 500;

/// A device with one vault open.
pub(super) struct Device {
    pub(super) account: Account,
    pub(super) vault: Vault,
}

/// One for all devices, as the command-line program has one.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}

fn place<'a>(origin: &'a str, name: &'a str) -> Place<'a> {
    Place { origin, name, device_name: "bench", ignored: Ignored::Some(&[]) }
}

impl Device {
    /// Signs up.
    pub(super) fn first(folder: &Path, origin: &str, name: &str, vault: &str) -> Self {
        let (home, passphrase) = (Home::open(folder).unwrap(), Passphrase::new(PASSPHRASE).unwrap());
        let mut deliver_kit = |_: &str| Ok(());
        let secrets = NewSecrets { passphrase: &passphrase, deliver_kit: &mut deliver_kit };
        let place = place(origin, name);
        let account = runtime().block_on(account::signup(home, &place, "", secrets, false)).unwrap();
        Self::with_vault(account, vault)
    }

    /// Signs in on a new device.
    pub(super) fn another(folder: &Path, origin: &str, name: &str, vault: &str) -> Self {
        let (home, passphrase) = (Home::open(folder).unwrap(), Passphrase::new(PASSPHRASE).unwrap());
        let place = place(origin, name);
        let account = runtime().block_on(account::login(home, &place, &passphrase, false)).unwrap();
        Self::with_vault(account, vault)
    }

    /// A home that has an account, again.
    pub(super) fn again(folder: &Path, vault: &str) -> Self {
        let account = Account::open(Home::open(folder).unwrap(), false).unwrap();
        Self::with_vault(account, vault)
    }

    fn with_vault(mut account: Account, name: &str) -> Self {
        let vault = runtime().block_on(async {
            account.sync_keyring().await.unwrap();
            account.open_vault(name, true).await.unwrap()
        });
        Self { account, vault }
    }

    /// Goes on with another vault.
    pub(super) fn open(&mut self, name: &str) {
        self.vault = runtime().block_on(async {
            self.account.sync_keyring().await.unwrap();
            self.account.open_vault(name, true).await.unwrap()
        });
    }

    pub(super) fn put(&mut self, records: Vec<NewRecord>) {
        runtime().block_on(self.vault.put(records)).unwrap();
    }

    pub(super) fn sync(&mut self) {
        runtime().block_on(self.vault.sync()).unwrap();
    }

    pub(super) fn send(&mut self) {
        runtime().block_on(self.vault.send()).unwrap();
    }

    pub(super) fn pull(&mut self) {
        runtime().block_on(self.vault.pull()).unwrap();
    }

    /// Runs something of this device's.
    pub(super) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        runtime().block_on(work)
    }

    /// The document of a number, as it stands here.
    pub(super) fn read(&self, number: usize) -> Option<Vec<u8>> {
        let record = self.vault.setup().keys.record_id(TYPE, &name(number));
        let current = read::current(self.vault.replica(), &self.vault.setup().keys, record).unwrap();
        current.map(|current| current.content.document.0)
    }

    /// Every document of these numbers is here, and nothing else.
    pub(super) fn check(&self, count: usize) {
        let listed = self.vault.replica().list(TYPE, None).unwrap().len();
        assert_eq!(listed, count, "documents here");
        assert_eq!(self.vault.replica().pending_count().unwrap(), 0, "nothing waits");
        for number in (0..count).step_by((count / 100).max(1)) {
            assert_eq!(self.read(number), Some(document(number)), "document {number}");
        }
    }
}

fn name(number: usize) -> Vec<u8> {
    format!("document-{number}").into_bytes()
}

/// 500 bytes of JSON that only this number has.
pub(super) fn document(number: usize) -> Vec<u8> {
    let mut text = format!("{{\"number\":{number},\"text\":\"");
    while text.len() < DOCUMENT_BYTES - 2 {
        text.push(char::from(b'a' + u8::try_from((text.len() * 7 + number) % 26).unwrap()));
    }
    text.push_str("\"}");
    text.into_bytes()
}

pub(super) fn record(number: usize, document: Vec<u8>) -> NewRecord {
    NewRecord {
        record_type: TYPE.into(),
        name: name(number),
        schema: 1,
        document: Some(document),
        blobs: Vec::new(),
        policy: Policy::KeepBoth,
        pin: Pinning::None,
        expected: None,
    }
}

pub(super) fn records(from: usize, count: usize) -> Vec<NewRecord> {
    (from..from + count).map(|number| record(number, document(number))).collect()
}
