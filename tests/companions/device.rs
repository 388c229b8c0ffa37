//! A device of the account, as an app uses the library: everything is local but `sync`.

use lockstep_client::account::{self, Account, Ignored, NewSecrets, Place};
use lockstep_client::check;
use lockstep_client::conflicts::{About, Conflict, Keep};
use lockstep_client::documents::{Body, Document, NewDocument};
use lockstep_client::home::Home;
use lockstep_client::vault::Vault;
use lockstep_client_crypto::content::BlobRef;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_engine::replica::Replica as _;
use lockstep_merge::{Fields, Policies, Side, Value};
use lockstep_proto::id::DeviceId;
use serde_json::Value as Json;
use std::io::Cursor;
use std::path::Path;

const VAULT: &str = "app";
const NAME: &str = "ada";
const PASSPHRASE: &str = "correct horse battery staple";

pub(crate) struct Device {
    account: Account,
    vault: Vault,
}

fn fields(json: &Json) -> Fields {
    match serde_json::from_value(json.clone()).unwrap() {
        Value::Map(fields) => fields,
        _ => panic!("a document is a map"),
    }
}

impl Device {
    /// The first device signs up, the others join.
    pub(crate) async fn join(
        home: &Path,
        origin: &str,
        name: &str,
        policies: &Policies,
        first: bool,
    ) -> Self {
        let passphrase = Passphrase::new(PASSPHRASE).unwrap();
        let place = Place { origin, name: NAME, device_name: name, ignored: Ignored::Some(&[]) };
        let opened = Home::open(home).unwrap();
        let mut account = if first {
            let mut keep = |_: &str| Ok(());
            let secrets = NewSecrets { passphrase: &passphrase, deliver_kit: &mut keep };
            account::signup(opened, &place, "", secrets, false).await.unwrap()
        } else {
            account::login(opened, &place, &passphrase, false).await.unwrap()
        };
        account.sync_keyring().await.unwrap();
        let mut vault = account.open_vault(VAULT, first).await.unwrap();
        vault.use_policies(Some(policies)).unwrap();
        let mut device = Self { account, vault };
        device.sync().await;
        device
    }

    pub(crate) fn id(&self) -> DeviceId {
        self.account.device_id()
    }

    /// Syncs; pictures of drafts may wait.
    pub(crate) async fn settle(&mut self) {
        self.account.sync_keyring().await.unwrap();
        self.account.sync_vault(&mut self.vault).await.unwrap();
    }

    pub(crate) async fn sync(&mut self) {
        self.settle().await;
        assert_eq!(self.vault.waiting_objects().unwrap().objects, 0);
    }

    pub(crate) fn document(&self, record_type: &str, id: &str) -> Option<Document> {
        self.vault.document_named(record_type, id.as_bytes()).unwrap()
    }

    /// A document as the app shows it.
    pub(crate) fn shown(&self, record_type: &str, id: &str) -> Option<Json> {
        let document = self.document(record_type, id)?;
        assert!(matches!(document.body, Body::Fields(_)), "{record_type} {id}");
        document.json()
    }

    pub(crate) async fn put(&mut self, record_type: &str, id: &str, document: &Json, photos: Vec<BlobRef>) {
        let mut blobs = self.document(record_type, id).map(|known| known.blobs).unwrap_or_default();
        blobs.extend(photos);
        self.write(record_type, id, Some(fields(document)), blobs).await;
    }

    /// Changes some fields of what is shown; null takes one out.
    pub(crate) async fn edit(&mut self, record_type: &str, id: &str, changes: &Json, photos: Vec<BlobRef>) {
        let mut document =
            self.shown(record_type, id).unwrap_or_else(|| panic!("{record_type} {id} is there"));
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Json::Null => drop(document.as_object_mut().unwrap().remove(name)),
                value => document[name] = value.clone(),
            }
        }
        self.put(record_type, id, &document, photos).await;
    }

    pub(crate) async fn delete(&mut self, record_type: &str, id: &str) {
        self.write(record_type, id, None, Vec::new()).await;
    }

    async fn write(&mut self, record_type: &str, id: &str, fields: Option<Fields>, blobs: Vec<BlobRef>) {
        let (record_type, name) = (record_type.to_owned(), id.as_bytes().to_vec());
        let new = NewDocument { record_type, name, schema: None, fields, blobs, seen: None, expected: None };
        self.vault.put_documents(vec![new]).await.unwrap();
    }

    /// A picture that waits here to be sent.
    pub(crate) fn photo(&self, contents: &[u8]) -> BlobRef {
        self.vault.attach(&mut Cursor::new(contents)).unwrap()
    }

    /// Where sealed pictures of a state lie.
    pub(crate) fn objects(&self, state: &str) -> std::path::PathBuf {
        let home = self.account.home().path();
        home.join("objects").join(self.vault.setup().vault().to_string()).join(state)
    }

    /// A picture as it is read; from the server alone, if it is not to be looked for here.
    pub(crate) async fn contents(&self, reference: &BlobRef, let_go: bool) -> Vec<u8> {
        if let_go {
            self.vault.let_go(reference.blob).unwrap();
            assert!(!self.vault.holds(reference.blob));
        }
        let mut contents = Vec::new();
        let mut take = |piece: &[u8]| {
            contents.extend_from_slice(piece);
            Ok(())
        };
        self.vault.contents(reference, &mut take).await.unwrap();
        contents
    }

    /// Conflicts as type, id and what they are about.
    pub(crate) fn conflicts(&self) -> Vec<Json> {
        let mut found: Vec<Json> = self.vault.conflicts().unwrap().iter().map(named).collect();
        found.sort_by_key(ToString::to_string);
        found
    }

    pub(crate) async fn resolve(&mut self, conflict: &Json, keep: &Json) {
        let found = self.vault.conflicts().unwrap();
        let found = found.iter().find(|known| named(known) == *conflict);
        let found = found.unwrap_or_else(|| panic!("{conflict} is not open: {:?}", self.conflicts())).clone();
        let keep = match keep.as_str() {
            Some("local") => Keep::Local,
            Some("remote") => Keep::Remote,
            _ => Keep::Merged(Some(serde_json::from_value(keep["merged"].clone()).unwrap())),
        };
        self.vault.resolve(&found, keep).await.unwrap();
    }

    /// Undoes the newest merge of a record.
    pub(crate) async fn undo(&mut self, record_type: &str, id: &str, side: &str) {
        let record = self.vault.setup().keys.record_id(record_type, id.as_bytes());
        let merges = self.vault.merges().unwrap();
        let merge = merges.iter().find(|merge| merge.record == record).expect("a merge of this device");
        let side = if side == "local" { Side::Local } else { Side::Remote };
        self.vault.undo_merge(merge, side).await.unwrap();
    }

    pub(crate) async fn revoke(&mut self, device: DeviceId) {
        let passphrase = Passphrase::new(PASSPHRASE).unwrap();
        self.account.sync_keyring().await.unwrap();
        self.account.ignore_pins_of(&[device]);
        self.account.unlock(&passphrase).await.unwrap().revoke(&[device]).await.unwrap();
    }

    /// Everything that is here and at the server, verified, and nothing waits.
    pub(crate) async fn check(&self) {
        let report = check::check(&self.vault, true, &mut |_| {}).await.unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        assert!(self.vault.replica().pending(1).unwrap().is_empty());
    }

    /// Every document of these types, as shown.
    pub(crate) fn everything(&self, types: &[&str]) -> Vec<(String, Vec<u8>, Json)> {
        let mut all = Vec::new();
        for record_type in types {
            for row in self.vault.replica().list(record_type, None).unwrap() {
                let document = self.vault.document(row.record).unwrap().unwrap();
                all.push(((*record_type).to_owned(), document.name.clone(), document.json().unwrap()));
            }
        }
        all.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        all
    }
}

fn named(conflict: &Conflict) -> Json {
    let about = match &conflict.about {
        About::Copy { .. } => "copy".to_owned(),
        About::Field { path } => path.join("."),
        About::Deletion => "deletion".to_owned(),
    };
    let name = String::from_utf8_lossy(&conflict.name);
    serde_json::json!([conflict.record_type, name, about])
}
