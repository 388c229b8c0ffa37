//! A vault of the account that archives are about: its chain, its versions and its objects as they are written.

use super::archive::{COMMIT, Item, OBJECT, Owner, VAULT, VERSION_ITEM};
use crate::vectors::world::{UTC, fixed};
use lockstep_client_crypto::blob::{ObjectSealer, new_reference};
use lockstep_client_crypto::content::{BlobRef, Content, Hlc};
use lockstep_client_crypto::vault::{Rotating, SealAs, VaultKeys, give_birth, sign_rotation};
use lockstep_proto::api::vault::Entry;
use lockstep_proto::archive::{ArchiveCommit, ArchiveVault};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::{Change, Changes, Commit, KIND_CHANGE, KIND_ROTATE};
use lockstep_proto::device_log::Pin;
use lockstep_proto::envelope::{self, KIND_DOCUMENT, KIND_TOMBSTONE};
use lockstep_proto::hash::Digest;
use lockstep_proto::id::{BlobId, Epoch, OperationId, RecordId, Revision, Seq, VaultId};
use lockstep_proto::label;
use lockstep_proto::sign::Signed;
use lockstep_proto::state::StateDigest;
use lockstep_proto::version::{SUITE, VERSION};
use rand::rngs::ChaCha20Rng;
use std::collections::BTreeMap;

/// Type and name of a record.
pub(super) type Name<'a> = (&'a str, &'a [u8]);

pub(super) struct VaultWriter {
    pub(super) keys: VaultKeys,
    epoch: Epoch,
    /// Its log.
    pub(super) log: Vec<Signed>,
    /// Its commits and their change lists.
    pub(super) links: Vec<(Signed, Vec<u8>)>,
    state: StateDigest,
    records: BTreeMap<RecordId, (Revision, Digest, Seq)>,
    versions: Vec<Entry>,
    objects: BTreeMap<BlobId, Vec<u8>>,
    /// The next record pins its own commit.
    pub(super) pins_next: bool,
}

impl VaultWriter {
    /// A vault that the account's first device brings forth.
    pub(super) fn new(owner: &Owner, keys: VaultKeys) -> Self {
        let birth = give_birth(keys.vault(), &owner.parent(), &owner.devices[0]);
        Self {
            keys,
            epoch: Epoch::new(1),
            log: vec![birth.create],
            links: vec![(birth.genesis, Changes::default().encode())],
            state: StateDigest::default(),
            records: BTreeMap::new(),
            versions: Vec::new(),
            objects: BTreeMap::new(),
            pins_next: false,
        }
    }

    pub(super) fn id(&self) -> VaultId {
        self.keys.vault()
    }

    fn hash(&self, seq: usize) -> Digest {
        Commit::hash_of(&self.links[seq].0.bytes.0)
    }

    fn next(&self) -> Seq {
        Seq::new(self.links.len() as u64)
    }

    /// A pin of the head.
    pub(super) fn pin(&self) -> Pin {
        let last = self.links.len() - 1;
        Pin { vault: self.id(), seq: Seq::new(last as u64), head: self.hash(last) }
    }

    /// The next commit, changed by `tweak` before it is signed.
    pub(super) fn commit(
        &mut self,
        owner: &Owner,
        by: usize,
        kind: u8,
        changes: Vec<Change>,
        tweak: impl FnOnce(&mut Commit),
    ) {
        let (seq, changes) = (self.next(), Changes(changes));
        for (record, revision, envelope) in changes.0.iter().filter_map(Change::version) {
            if let Some((revision, envelope, seq)) = self.records.insert(record, (revision, envelope, seq)) {
                self.state.remove(record, revision, envelope, seq);
            }
            self.state.add(record, revision, envelope, seq);
        }
        let (list, parent) = (changes.encode(), owner.parent());
        let mut commit = Commit {
            version: VERSION,
            suite: SUITE,
            vault: self.id(),
            seq,
            previous: self.hash(self.links.len() - 1),
            skip: self.hash(usize::try_from(seq.skip_target().value()).unwrap()),
            kind,
            epoch: self.epoch,
            device: owner.devices[by].id(),
            device_log_index: parent.device_log_index,
            device_log_head: parent.device_log_head,
            vault_log_index: self.log.len() as u64 - 1,
            vault_log_head: self.log.last().unwrap().digest(label::VAULT_LOG_ENTRY),
            utc: UTC + seq.value(),
            changes: Changes::digest_of(&list),
            state: self.state.checksum(),
        };
        tweak(&mut commit);
        self.links.push((owner.devices[by].sign(label::COMMIT, commit.encode()), list));
    }

    /// A rotation to the next epoch.
    pub(super) fn rotate(&mut self, owner: &Owner, by: usize) {
        self.epoch = Epoch::new(self.epoch.value() + 1);
        let rotating = Rotating {
            parent: &owner.parent(),
            index: self.log.len() as u64 - 1,
            head: self.log.last().unwrap().digest(label::VAULT_LOG_ENTRY),
            epoch: self.epoch,
        };
        let entry = sign_rotation(self.id(), &rotating, &owner.devices[by]);
        self.log.push(entry.clone());
        self.commit(owner, by, KIND_ROTATE, vec![Change::Rotate(Box::new(entry))], |_| {});
    }

    /// A commit by a device that any reader stops before: it says another state than there is.
    pub(super) fn fault(&mut self, owner: &Owner, by: usize) {
        let pin = vec![Change::Pin(self.next())];
        self.commit(owner, by, KIND_CHANGE, pin, |commit| commit.state = Digest::ZERO);
    }

    pub(super) fn record(&self, kind: &str, name: &[u8]) -> RecordId {
        self.keys.record_id(kind, name)
    }

    /// A commit with the next version of a record.
    pub(super) fn put(
        &mut self,
        owner: &Owner,
        by: usize,
        (kind, name): Name<'_>,
        document: Vec<u8>,
        blobs: Vec<BlobRef>,
        rng: &mut ChaCha20Rng,
    ) {
        let envelope = self.seal(owner, by, (kind, name), (KIND_DOCUMENT, document, &blobs), rng);
        let (record, revision) = (self.record(kind, name), self.revision(self.record(kind, name)));
        let mut blobs: Vec<_> = blobs.iter().map(|reference| reference.blob).collect();
        blobs.sort_unstable();
        let mut changes =
            vec![Change::Put { record, revision, envelope: envelope::digest(&envelope), blobs }];
        if std::mem::take(&mut self.pins_next) {
            changes.push(Change::Pin(self.next()));
        }
        self.keep(record, revision, KIND_DOCUMENT, envelope);
        self.commit(owner, by, KIND_CHANGE, changes, |_| {});
    }

    /// A commit with a record's tombstone.
    pub(super) fn bury(&mut self, owner: &Owner, by: usize, (kind, name): Name<'_>, rng: &mut ChaCha20Rng) {
        let envelope = self.seal(owner, by, (kind, name), (KIND_TOMBSTONE, Vec::new(), &[]), rng);
        let (record, revision) = (self.record(kind, name), self.revision(self.record(kind, name)));
        let change = Change::Tombstone { record, revision, envelope: envelope::digest(&envelope) };
        self.keep(record, revision, KIND_TOMBSTONE, envelope);
        self.commit(owner, by, KIND_CHANGE, vec![change], |_| {});
    }

    /// The next revision of a record.
    fn revision(&self, record: RecordId) -> Revision {
        Revision::new(self.records.get(&record).map_or(0, |known| known.0.value()) + 1)
    }

    fn keep(&mut self, record: RecordId, revision: Revision, kind: u8, envelope: Vec<u8>) {
        self.versions.push(Entry { seq: self.next(), record, revision, kind, envelope: envelope.into() });
    }

    fn seal(
        &self,
        owner: &Owner,
        by: usize,
        (kind, name): Name<'_>,
        (as_kind, document, blobs): (u8, Vec<u8>, &[BlobRef]),
        rng: &mut ChaCha20Rng,
    ) -> Vec<u8> {
        let revision = self.revision(self.record(kind, name));
        let content = Content {
            record_type: kind.into(),
            name: name.into(),
            schema: 1,
            codec: 0,
            hlc: Hlc { utc_ms: UTC * 1000, counter: 0 },
            operation: OperationId::from_bytes(fixed(&format!("{} {}", self.id(), self.links.len()))),
            base_revision: Revision::new(revision.value() - 1),
            conflict_of: Vec::new().into(),
            document: document.into(),
            blobs: blobs.to_vec(),
            manifest: (),
        };
        let seal_as = SealAs { kind: as_kind, revision, epoch: self.epoch };
        self.keys.seal(seal_as, &content, &owner.devices[by], rng).unwrap()
    }

    /// Seals an object.
    pub(super) fn object(&mut self, contents: &[u8], rng: &mut ChaCha20Rng) -> BlobRef {
        let mut hasher = self.keys.content_hasher();
        hasher.update(contents);
        let reference = new_reference(contents.len() as u64, hasher.finish(), rng);
        let (mut sealer, mut object) = ObjectSealer::new(&self.keys, &reference).unwrap();
        sealer.push(contents, &mut object).unwrap();
        sealer.finish(&mut object).unwrap();
        self.objects.insert(reference.blob, object);
        reference
    }

    /// Where a record's newest version is, and an object of the vault.
    pub(super) fn lost(&self, record: RecordId) -> (Seq, BlobId) {
        (self.records[&record].2, *self.objects.keys().next().unwrap())
    }

    /// The body of the item of a version.
    pub(super) fn version(&self, seq: Seq, record: RecordId) -> Vec<u8> {
        let is = |entry: &&Entry| (entry.seq, entry.record) == (seq, record);
        self.versions.iter().find(is).unwrap().encode()
    }

    /// The vault's items.
    pub(super) fn items(&self) -> Vec<Item> {
        let head = ArchiveVault { vault: self.id(), log: self.log.clone() };
        let mut items = vec![(VAULT, head.encode())];
        for (commit, changes) in &self.links {
            let link = ArchiveCommit { commit: commit.clone(), changes: changes.clone().into() };
            items.push((COMMIT, link.encode()));
        }
        let mut versions: Vec<_> = self.versions.iter().collect();
        versions.sort_by_key(|entry| (entry.seq, entry.record));
        items.extend(versions.iter().map(|entry| (VERSION_ITEM, entry.encode())));
        let objects = self.objects.iter().map(|(blob, object)| [blob.as_bytes(), &object[..]].concat());
        items.extend(objects.map(|body| (OBJECT, body)));
        items
    }
}
