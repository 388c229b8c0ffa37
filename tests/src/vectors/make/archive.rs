//! A small account with everything that an archive holds, and archives of it.

use super::archive_vault::VaultWriter;
use crate::vectors::world::{UTC, fixed, rng};
use crate::vectors::{File, Golden, hex};
use lockstep_client_crypto::account::{Enrolment, Joining, NewCredentials, UnlockedAccount};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::vault::{Parent, VaultKeys};
use lockstep_engine::files::{
    FILE_TYPE, FileDoc, FileTime, KIND_FILE, KIND_FOLDER, KIND_LINK, SNAPSHOT_TYPE, SOURCE_TYPE, SnapshotDoc,
    SourceDoc, file_name,
};
use lockstep_engine::keyring::{
    HEAD_PIN_TYPE, HeadPinDoc, VAULT_KEY_TYPE, VAULT_TYPE, VaultDoc, VaultKeyDoc, vault_key_name,
};
use lockstep_proto::archive::{ArchiveEnd, ArchiveHeader, BareKeys, prefix};
use lockstep_proto::cbor::{ByteArray, Wire as _};
use lockstep_proto::device_log::{DeviceLog, Pin};
use lockstep_proto::hash::Digest;
use lockstep_proto::id::{BlobId, DeviceId, Epoch, RecordId, Seq, SourceId, VaultId};
use lockstep_proto::key_header::{KeyHeader, VerifiedKeyHeader};
use lockstep_proto::label;
use lockstep_proto::vault_log::{files_vault_id, keyring_vault_id};
use lockstep_proto::version::{SUITE, VERSION};
use rand::rngs::ChaCha20Rng;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Index of the device that makes the archive.
pub(super) const LAPTOP: usize = 0;
/// Index of the device that is revoked.
pub(super) const TABLET: usize = 1;

/// Item types of section 10.1.
pub(super) const HEADER: u8 = 1;
pub(super) const KEYS: u8 = 2;
pub(super) const BARE_KEYS: u8 = 3;
pub(super) const ENTRY: u8 = 4;
pub(super) const VAULT: u8 = 5;
pub(super) const COMMIT: u8 = 6;
pub(super) const VERSION_ITEM: u8 = 7;
pub(super) const MISSING_VERSION: u8 = 8;
pub(super) const OBJECT: u8 = 9;
pub(super) const MISSING_OBJECT: u8 = 10;
pub(super) const END: u8 = 11;

/// Type and body of an item.
pub(super) type Item = (u8, Vec<u8>);

/// Who writes.
pub(super) struct Owner {
    pub(super) account: UnlockedAccount,
    pub(super) devices: [DeviceKeys; 2],
    pub(super) log: Vec<Enrolment>,
}

impl Owner {
    fn new(rng: &mut ChaCha20Rng) -> Self {
        let account = UnlockedAccount::create(rng).unwrap();
        let devices = [(); 2].map(|()| DeviceKeys::generate(rng).unwrap());
        let recovery = RecoveryKey::parse(&lockstep_proto::recovery::recovery_key_text(&recovery())).unwrap();
        let passphrase = Passphrase::new("a passphrase of the archive").unwrap();
        let credentials = NewCredentials { passphrase: &passphrase, recovery: &recovery };
        let joining = Joining { device: &devices[LAPTOP], name: "laptop", pins: Vec::new() };
        let first = account.first_enrolment(credentials, joining, rng).unwrap();
        Self { account, devices, log: vec![first] }
    }

    fn device_log(&self) -> DeviceLog {
        let mut log = DeviceLog::new(*self.account.identity());
        for enrolment in &self.log {
            log.append(&enrolment.entry).unwrap();
        }
        log
    }

    fn header(&self) -> VerifiedKeyHeader {
        VerifiedKeyHeader::verify(self.account.account(), &self.log.last().unwrap().key_header).unwrap()
    }

    pub(super) fn log_head(&self) -> Digest {
        self.log.last().unwrap().entry.digest(label::DEVICE_LOG_ENTRY)
    }

    /// Who signs now.
    pub(super) fn parent(&self) -> Parent<'_> {
        Parent {
            account: self.account.account(),
            identity: self.account.identity(),
            device_log_index: self.log.len() as u64 - 1,
            device_log_head: self.log_head(),
            utc: UTC,
        }
    }

    fn enrol(&mut self, device: usize, pins: Vec<Pin>, rng: &mut ChaCha20Rng) {
        let joining = Joining { device: &self.devices[device], name: "tablet", pins };
        let entry = self.account.enrol(&self.header(), &self.device_log(), None, joining, rng).unwrap();
        self.log.push(entry);
    }

    fn revoke(&mut self, device: usize, pins: Vec<Pin>, rng: &mut ChaCha20Rng) {
        let id = self.devices[device].id();
        let entry = self.account.revoke(&self.header(), &self.device_log(), id, pins, rng).unwrap();
        self.log.push(entry);
        let header = self.header();
        self.account.take_header(&header).unwrap();
    }
}

/// The recovery key of the account.
pub(super) fn recovery() -> [u8; 32] {
    fixed("recovery key of the archive")
}

/// The account.
pub(super) struct Made {
    pub(super) owner: Owner,
    pub(super) keyring: VaultWriter,
    pub(super) files: VaultWriter,
    pub(super) notes: VaultWriter,
}

/// The one account.
pub(super) static MADE: LazyLock<Made> = LazyLock::new(Made::new);

const SOURCE: SourceId = SourceId::from_bytes([0x50; 16]);

fn file(path: &str, kind: u8, size: u64) -> FileDoc {
    FileDoc {
        source: SOURCE,
        path: path.as_bytes().into(),
        kind,
        size,
        mtime: FileTime(1_700_000_000, 5),
        mode: if kind == KIND_FOLDER { 0o750 } else { 0o640 },
        target: b"".as_slice().into(),
        inline: b"".as_slice().into(),
        owner: (),
        xattrs: (),
        acl: (),
        hard_link: (),
        sparse: (),
        codec: (),
        chunker: (),
    }
}

fn small(path: &str, contents: &[u8]) -> FileDoc {
    FileDoc { inline: contents.into(), ..file(path, KIND_FILE, contents.len() as u64) }
}

fn snapshot() -> SnapshotDoc {
    SnapshotDoc {
        source: SOURCE,
        start_utc: UTC,
        end_utc: UTC + 9,
        roots: vec![b"/home/x".as_slice().into()],
        tags: vec!["first".into()],
        counts: (3, 1, 1, 1010, 0),
        unreadable: Vec::new(),
    }
}

impl Made {
    pub(super) fn new() -> Self {
        let mut rng = rng("archive");
        let owner = Owner::new(&mut rng);
        let identity = owner.account.identity().to_bytes();
        let keys = |vault, name: &str| {
            VaultKeys::new(vault, &SecretKey::from_bytes(&fixed(&format!("secret of {name}"))))
                .with_epoch(Epoch::new(1), SecretKey::from_bytes(&fixed(&format!("key 1 of {name}"))))
                .with_epoch(Epoch::new(2), SecretKey::from_bytes(&fixed(&format!("key 2 of {name}"))))
        };
        let mut ring = VaultKeys::new(keyring_vault_id(&identity), &owner.account.keyring().vault_secret());
        for (epoch, key) in owner.account.keyring().keys() {
            ring.add_epoch(epoch, SecretKey::from_bytes(key.expose()));
        }
        let notes = VaultId::from_bytes([0x77; 16]);
        let mut made = Self {
            keyring: VaultWriter::new(&owner, ring),
            files: VaultWriter::new(&owner, keys(files_vault_id(&identity), "files")),
            notes: VaultWriter::new(&owner, keys(notes, "notes")),
            owner,
        };
        made.births(&mut rng);
        made.owner.enrol(TABLET, Self::pins(&[&made.keyring]), &mut rng);
        made.backup(&mut rng);
        made.notes.put(&made.owner, LAPTOP, ("app/note", b"hello"), b"a note".to_vec(), Vec::new(), &mut rng);
        made.owner.revoke(TABLET, Self::pins(&[&made.keyring, &made.files, &made.notes]), &mut rng);
        made.after(&mut rng);
        made
    }

    fn pins(vaults: &[&VaultWriter]) -> Vec<Pin> {
        let mut pins: Vec<Pin> = vaults.iter().map(|vault| vault.pin()).collect();
        pins.sort_by_key(|pin| pin.vault);
        pins
    }

    /// A vault's key of an epoch, in the keyring.
    fn share(&mut self, which: fn(&Self) -> (&VaultWriter, &'static str), epoch: u64, rng: &mut ChaCha20Rng) {
        let (vault, name) = which(self);
        let (id, number) = (vault.id(), Epoch::new(epoch));
        let doc = VaultKeyDoc {
            vault: id,
            epoch: number,
            key: ByteArray(fixed(&format!("key {epoch} of {name}"))),
            secret: ByteArray(fixed(&format!("secret of {name}"))),
            create: vault.log[0].clone(),
            genesis: vault.links[0].0.clone(),
            made_in: self.owner.account.keyring().epoch(),
        };
        let name = vault_key_name(id, number);
        self.keyring.put(&self.owner, LAPTOP, (VAULT_KEY_TYPE, &name), doc.encode(), Vec::new(), rng);
    }

    fn births(&mut self, rng: &mut ChaCha20Rng) {
        self.share(|made| (&made.files, "files"), 1, rng);
        self.share(|made| (&made.notes, "notes"), 1, rng);
        let vault = self.notes.id();
        let doc = VaultDoc { vault, name: "my notes".into(), deleted_utc: 0, deletion: None };
        let name = (VAULT_TYPE, &vault.as_bytes()[..]);
        self.keyring.put(&self.owner, LAPTOP, name, doc.encode(), Vec::new(), rng);
    }

    /// A source with a folder, files, a link and a deleted file; a snapshot; and a change behind it.
    fn backup(&mut self, rng: &mut ChaCha20Rng) {
        let Self { owner, files, .. } = self;
        let device: DeviceId = owner.devices[TABLET].id();
        let (root, name) = (b"/home/x".as_slice().into(), b"x".as_slice().into());
        let doc = SourceDoc { device, root, name, utc: UTC };
        files.put(owner, TABLET, (SOURCE_TYPE, SOURCE.as_bytes()), doc.encode(), Vec::new(), rng);
        let photo: Vec<u8> = (0..1000_u32).map(|place| (place % 251) as u8).collect();
        let blobs = vec![files.object(&photo, rng)];
        let link = FileDoc { target: b"letter.txt".as_slice().into(), ..file("link", KIND_LINK, 0) };
        for (doc, blobs) in [
            (file("", KIND_FOLDER, 0), Vec::new()),
            (small("letter.txt", b"Dear Ada,"), Vec::new()),
            (file("photo", KIND_FILE, 1000), blobs),
            (link, Vec::new()),
            (small("gone", b"!"), Vec::new()),
        ] {
            let name = file_name(SOURCE, &doc.path.0);
            files.put(owner, TABLET, (FILE_TYPE, &name), doc.encode(), blobs, rng);
        }
        files.bury(owner, TABLET, (FILE_TYPE, &file_name(SOURCE, b"gone")), rng);
        files.pins_next = true;
        files.put(owner, TABLET, (SNAPSHOT_TYPE, &[0x51; 16]), snapshot().encode(), Vec::new(), rng);
        let letter = small("letter.txt", b"Dear Ada, once more");
        let name = file_name(SOURCE, b"letter.txt");
        files.put(owner, TABLET, (FILE_TYPE, &name), letter.encode(), Vec::new(), rng);
    }

    /// After the revocation: the keyring and one vault go on under new keys, and the device says what it saw.
    fn after(&mut self, rng: &mut ChaCha20Rng) {
        for (epoch, key) in self.owner.account.keyring().keys() {
            self.keyring.keys.add_epoch(epoch, SecretKey::from_bytes(key.expose()));
        }
        self.keyring.rotate(&self.owner, LAPTOP);
        self.share(|made| (&made.files, "files"), 2, rng);
        self.files.rotate(&self.owner, LAPTOP);
        let settings = ("app/settings", &b""[..]);
        self.files.put(&self.owner, LAPTOP, settings, b"{}".to_vec(), Vec::new(), rng);
        let device = self.owner.devices[LAPTOP].id();
        let doc = HeadPinDoc {
            device,
            utc: UTC,
            device_log_index: self.owner.log.len() as u64 - 1,
            device_log_head: self.owner.log_head(),
            heads: Self::pins(&[&self.files, &self.notes]),
        };
        let name = (HEAD_PIN_TYPE, &device.as_bytes()[..]);
        self.keyring.put(&self.owner, LAPTOP, name, doc.encode(), Vec::new(), rng);
    }

    /// All items but the end.
    pub(super) fn items(&self) -> Vec<Item> {
        let (account, device) = (self.owner.account.account(), self.owner.devices[LAPTOP].id());
        let identity = Digest::from_bytes(self.owner.account.identity().to_bytes());
        let header =
            ArchiveHeader { version: VERSION, suite: SUITE, account, identity, device, utc: UTC + 100 };
        let mut items = vec![(HEADER, header.encode())];
        items.push((KEYS, self.owner.log.last().unwrap().key_header.encode()));
        items.extend(self.owner.log.iter().map(|enrolment| (ENTRY, enrolment.entry.encode())));
        items.extend(self.keyring.items());
        let mut vaults = [&self.files, &self.notes];
        vaults.sort_by_key(|vault| vault.id());
        items.extend(vaults.iter().flat_map(|vault| vault.items()));
        items
    }

    /// The end of an archive of some items, changed by `tweak` before a device signs it.
    pub(super) fn end(&self, items: &[Item], by: usize, tweak: impl FnOnce(&mut ArchiveEnd)) -> Item {
        let bytes = [prefix().to_vec(), items.iter().flat_map(framed).collect()].concat();
        let mut end = ArchiveEnd {
            version: VERSION,
            suite: SUITE,
            account: self.owner.account.account(),
            device: self.owner.devices[LAPTOP].id(),
            items: items.len() as u64,
            digest: Digest::of(label::ARCHIVE_BYTES, &bytes),
        };
        tweak(&mut end);
        (END, self.owner.devices[by].sign(label::ARCHIVE, end.encode()).encode())
    }

    /// The same items with a good end.
    pub(super) fn with_end(&self, mut items: Vec<Item>) -> Vec<Item> {
        items.push(self.end(&items, LAPTOP, |_| {}));
        items
    }

    /// The keys without the passphrase's wrap.
    pub(super) fn bare_keys(&self) -> BareKeys {
        let header = KeyHeader::decode(&self.owner.log.last().unwrap().key_header.bytes.0).unwrap();
        BareKeys::of(&header).unwrap()
    }
}

/// An item's bytes.
pub(super) fn framed(item: &Item) -> Vec<u8> {
    let (kind, body) = item;
    [&[*kind], &(body.len() as u64).to_be_bytes()[..], body].concat()
}

/// The bytes of an archive of these items.
pub(super) fn archive(items: &[Item]) -> Vec<u8> {
    [prefix().to_vec(), items.iter().flat_map(framed).collect()].concat()
}

/// The archive that others are made of.
pub fn golden_archive() -> &'static [u8] {
    static GOLDEN: LazyLock<Vec<u8>> = LazyLock::new(|| archive(&MADE.with_end(MADE.items())));
    &GOLDEN
}

/// The first item of a type in a vault's section.
pub(super) fn place_of(items: &[Item], kind: u8, is: impl Fn(&[u8]) -> bool) -> usize {
    items.iter().position(|item| item.0 == kind && is(&item.1)).unwrap()
}

/// The input of a case: what is the same as in the golden archive is named by its place there.
pub(super) fn input(pieces: &[Vec<u8>]) -> Value {
    let golden = golden_archive();
    let mut out: Vec<Value> = Vec::new();
    let mut last: Option<(usize, usize)> = None;
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        let after = last.map_or(0, |last| last.1);
        let here = golden[after..].starts_with(piece).then_some(after);
        let found = here.or_else(|| golden.windows(piece.len()).position(|window| window == &piece[..]));
        match (found, last) {
            (Some(from), Some(known)) if known.1 == from => last = Some((known.0, from + piece.len())),
            (found, known) => {
                out.extend(known.map(|(from, to)| json!([from, to])));
                last = found.map(|from| (from, from + piece.len()));
                out.extend(found.is_none().then(|| json!(hex(piece))));
            }
        }
    }
    out.extend(last.map(|(from, to)| json!([from, to])));
    let archive = json!({ "file": "golden/archive.json", "case": 0, "pieces": out });
    json!({ "archive": archive, "recovery": hex(recovery()) })
}

/// The pieces of an archive of some items.
pub(super) fn pieces(items: &[Item]) -> Vec<Vec<u8>> {
    std::iter::once(prefix().to_vec()).chain(items.iter().map(framed)).collect()
}

/// Without the newest version of a file and an object; both are said to be missing.
fn lacking() -> Vec<Item> {
    let mut items = MADE.items();
    let record = MADE.files.record(FILE_TYPE, &file_name(SOURCE, b"letter.txt"));
    let (seq, object) = MADE.files.lost(record);
    let version = MADE.files.version(seq, record);
    let at = place_of(&items, VERSION_ITEM, |body| body == version);
    items.remove(at);
    let at = place_of(&items, OBJECT, |body| body.starts_with(object.as_bytes()));
    items[at] = (MISSING_OBJECT, object.as_bytes().to_vec());
    items.insert(at, (MISSING_VERSION, missing(seq, record)));
    MADE.with_end(items)
}

/// The body of an item 8.
pub(super) fn missing(seq: Seq, record: RecordId) -> Vec<u8> {
    lockstep_proto::archive::MissingVersion { seq, record }.encode()
}

/// A blob id that nothing names.
pub(super) const STRANGER: BlobId = BlobId::from_bytes([0xee; 16]);

pub(super) fn golden() -> Vec<File> {
    let about = "An account with two devices, a revocation and three vaults; the recovery key opens it";
    let mut file = Golden::new("archive", "archive", "10.1", about).sealed(&["archive"]);
    let known = json!({ "whole": true });
    let input_of = |bytes: &[u8]| json!({ "archive": hex(bytes), "recovery": hex(recovery()) });
    file.case("whole", input_of(golden_archive()), known.clone());
    let mut file_2 = Golden::new("archive-parts", "archive", "10.1", "The same account, otherwise written");
    let mut items = MADE.items();
    items[1] = (BARE_KEYS, MADE.bare_keys().encode());
    file_2.case("without the passphrase's wrap", input(&pieces(&MADE.with_end(items))), known);
    let said = json!({ "whole": false });
    file_2.case("a version and an object are missing", input(&pieces(&lacking())), said.clone());
    let mut made = Made::new();
    made.files.fault(&made.owner, LAPTOP);
    made.files.rotate(&made.owner, LAPTOP);
    let faulty = input(&pieces(&made.with_end(made.items())));
    file_2.case("a fault in a vault, and a rotation behind it", faulty, said.clone());
    let mut made = Made::new();
    made.keyring.fault(&made.owner, LAPTOP);
    file_2.case("a fault in the keyring", input(&pieces(&made.with_end(made.items()))), said);
    vec![file.file(), file_2.file()]
}
