//! A writer's model of one vault: builds good commits, and lets a test spoil them before they are signed.

use crate::world::{Author, World, bytes_of, rng};
use lockstep_client_crypto::vault::{Parent, Rotating, sign_rotation};
use lockstep_proto::api::vault::PushCommit;
use lockstep_proto::cbor::{ByteArray, Bytes, Wire as _};
use lockstep_proto::chain::Tip;
use lockstep_proto::commit::{
    Change, Changes, Commit, KIND_CHANGE, KIND_REPAIR, KIND_ROTATE, RepairPlace, repair_input,
};
use lockstep_proto::envelope::{
    self, Envelope, EnvelopeHeader, KIND_DOCUMENT, KIND_TOMBSTONE, blob_list_digest,
};
use lockstep_proto::id::{AccountId, BlobId, Epoch, RecordId, Revision, Seq, VaultId};
use lockstep_proto::sign::PublicKey;
use lockstep_proto::state::StateDigest;
use lockstep_proto::version::{SUITE, VERSION};
use lockstep_proto::{Digest, label};
use lockstep_server::domain::commit::PreparedCommit;
use rand::rngs::ChaCha20Rng;
use std::collections::BTreeMap;

/// What a commit is to do; records ascending, pins last.
#[derive(Clone)]
pub(crate) enum Op {
    Put(RecordId, usize, Vec<BlobId>),
    Tombstone(RecordId),
    Pin(u64),
    Unpin(u64),
}

pub(crate) fn record(number: u64) -> RecordId {
    let mut bytes = [0x20; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    RecordId::from_bytes(bytes)
}

pub(crate) fn put(number: u64) -> Op {
    Op::Put(record(number), 40, Vec::new())
}

/// A commit before it is signed.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) commit: Commit,
    pub(crate) changes: Changes,
    pub(crate) envelopes: Vec<Vec<u8>>,
}

impl Draft {
    /// Signs over the change list as it is now.
    pub(crate) fn push(&self, author: &Author) -> PushCommit {
        let changes = self.changes.encode();
        let mut commit = self.commit.clone();
        commit.changes = Changes::digest_of(&changes);
        let commit = author.keys.sign(label::COMMIT, commit.encode());
        let envelopes = self.envelopes.iter().map(|bytes| Bytes::from(bytes.clone())).collect();
        PushCommit { commit, changes: changes.into(), envelopes, heals: false }
    }

    pub(crate) fn prepare(&self, author: &Author) -> PreparedCommit {
        PreparedCommit::parse(self.push(author)).unwrap()
    }
}

/// One version as the model remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) seq: Seq,
    pub(crate) record: RecordId,
    pub(crate) revision: Revision,
    pub(crate) kind: u8,
    pub(crate) envelope: Vec<u8>,
    pub(crate) replaced: Option<Seq>,
}

/// The vault as an honest writer knows it.
pub(crate) struct Chain {
    pub(crate) tip: Tip,
    pub(crate) hashes: Vec<Digest>,
    pub(crate) state: StateDigest,
    pub(crate) versions: Vec<Version>,
    newest: BTreeMap<RecordId, usize>,
    rng: ChaCha20Rng,
}

/// What a vault was after an earlier commit.
#[derive(Clone)]
pub(crate) struct Earlier {
    tip: Tip,
    state: StateDigest,
    versions: Vec<Version>,
    newest: BTreeMap<RecordId, usize>,
}

impl Chain {
    pub(crate) fn new(tip: Tip, seed: u64) -> Self {
        let hashes = vec![tip.hash];
        let state = StateDigest::default();
        Self { tip, hashes, state, versions: Vec::new(), newest: BTreeMap::new(), rng: rng(seed) }
    }

    pub(crate) fn of(world: &World, vault: VaultId) -> Self {
        Self::new(world.birth(vault, 1).tip, world.seed)
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = &Version> {
        self.versions.iter().filter(|version| version.replaced.is_none())
    }

    pub(crate) fn seq(&self) -> Seq {
        self.tip.seq
    }

    fn change(&mut self, op: &Op, author: &Author) -> (Change, Option<Vec<u8>>) {
        let (record, size, blobs, kind) = match op {
            Op::Pin(seq) => return (Change::Pin(Seq::new(*seq)), None),
            Op::Unpin(seq) => return (Change::Unpin(Seq::new(*seq)), None),
            Op::Put(record, size, blobs) => (*record, *size, blobs.clone(), KIND_DOCUMENT),
            Op::Tombstone(record) => (*record, 40, Vec::new(), KIND_TOMBSTONE),
        };
        let before = self.newest.get(&record).map(|index| self.versions[*index].revision);
        let revision = before.unwrap_or(Revision::new(0)).next();
        let header = EnvelopeHeader {
            version: VERSION,
            suite: SUITE,
            kind,
            vault: self.tip.vault,
            record,
            revision,
            epoch: self.tip.epoch,
            device: author.keys.id(),
            blobs: blob_list_digest(&blobs),
            nonce: ByteArray([0; 24]),
        };
        let sealed = sealed(&header, bytes_of(&mut self.rng, size));
        let envelope = envelope::digest(&sealed);
        let change = match kind {
            KIND_DOCUMENT => Change::Put { record, revision, envelope, blobs },
            _ => Change::Tombstone { record, revision, envelope },
        };
        (change, Some(sealed))
    }

    /// The next commit; the model stays where it is.
    pub(crate) fn draft(&mut self, author: &Author, ops: &[Op]) -> Draft {
        let (mut changes, mut envelopes) = (Vec::new(), Vec::new());
        let seq = self.tip.seq.next();
        let mut state = self.state.clone();
        for op in ops {
            let (change, envelope) = self.change(op, author);
            if let Some((record, revision, digest)) = change.version() {
                if let Some(before) = self.newest.get(&record).map(|index| &self.versions[*index]) {
                    let old = envelope::digest(&before.envelope);
                    state.remove(record, before.revision, old, before.seq);
                }
                state.add(record, revision, digest, seq);
            }
            changes.push(change);
            envelopes.extend(envelope);
        }
        let commit = Commit {
            version: VERSION,
            suite: SUITE,
            vault: self.tip.vault,
            seq,
            previous: self.tip.hash,
            skip: self.hashes[seq.skip_target().value() as usize],
            kind: KIND_CHANGE,
            epoch: self.tip.epoch,
            device: author.keys.id(),
            device_log_index: author.log_index,
            device_log_head: author.log_head,
            vault_log_index: self.tip.vault_log_index,
            vault_log_head: self.tip.vault_log_head,
            utc: 1,
            changes: Digest::ZERO,
            state: state.checksum(),
        };
        Draft { commit, changes: Changes(changes), envelopes }
    }

    /// The commit that begins a key epoch.
    pub(crate) fn rotation(
        &mut self,
        account: AccountId,
        identity: &PublicKey,
        author: &Author,
        epoch: u64,
    ) -> Draft {
        let parent = Parent {
            account,
            identity,
            device_log_index: author.log_index,
            device_log_head: author.log_head,
            utc: 1,
        };
        let (index, head, epoch) = (self.tip.vault_log_index, self.tip.vault_log_head, Epoch::new(epoch));
        let rotating = Rotating { parent: &parent, index, head, epoch };
        let entry = sign_rotation(self.tip.vault, &rotating, &author.keys);
        let mut draft = self.draft(author, &[]);
        (draft.commit.kind, draft.commit.epoch) = (KIND_ROTATE, epoch);
        draft.commit.vault_log_index = index + 1;
        draft.commit.vault_log_head = entry.digest(label::VAULT_LOG_ENTRY);
        draft.changes = Changes(vec![Change::Rotate(Box::new(entry))]);
        draft
    }

    pub(crate) fn remember(&self) -> Earlier {
        let (tip, state) = (self.tip.clone(), self.state.clone());
        Earlier { tip, state, versions: self.versions.clone(), newest: self.newest.clone() }
    }

    /// A repair by which the chain goes back to what was before. The author's key is the identity's, too.
    pub(crate) fn repair(&mut self, account: AccountId, author: &Author, earlier: &Earlier) -> Draft {
        let mut draft = self.draft(author, &[]);
        let commit = &mut draft.commit;
        (commit.kind, commit.epoch, commit.state) =
            (KIND_REPAIR, earlier.tip.epoch, earlier.state.checksum());
        (commit.vault_log_index, commit.vault_log_head) =
            (earlier.tip.vault_log_index, earlier.tip.vault_log_head);
        let says = vec![Change::GoBack(earlier.tip.seq)];
        let place = RepairPlace {
            vault: commit.vault,
            seq: commit.seq,
            previous: commit.previous,
            device: commit.device,
        };
        let signed = author.keys.sign(label::REPAIR, repair_input(account, &place, &says));
        draft.changes = Changes(says.into_iter().chain([Change::Authority(signed.signature)]).collect());
        draft
    }

    /// Follows a repair that was applied: what was before counts again, at the end of this chain.
    pub(crate) fn go_back(&mut self, applied: &PreparedCommit, earlier: Earlier) {
        self.hashes.push(applied.hash);
        let (seq, device_log_index) = (applied.commit.seq, applied.commit.device_log_index);
        self.tip = Tip { seq, hash: applied.hash, device_log_index, ..earlier.tip };
        (self.state, self.versions, self.newest) = (earlier.state, earlier.versions, earlier.newest);
    }

    /// Follows a commit that was applied.
    pub(crate) fn follow(&mut self, applied: &PreparedCommit) {
        let seq = applied.commit.seq;
        assert_eq!(seq, self.tip.seq.next());
        for change in &applied.changes.0 {
            let Some((record, revision, digest)) = change.version() else { continue };
            let envelope = applied.envelopes[&digest].clone();
            let kind = if matches!(change, Change::Put { .. }) { KIND_DOCUMENT } else { KIND_TOMBSTONE };
            if let Some(before) = self.newest.get(&record).map(|index| &mut self.versions[*index]) {
                before.replaced = Some(seq);
                let old = envelope::digest(&before.envelope);
                self.state.remove(record, before.revision, old, before.seq);
            }
            self.state.add(record, revision, digest, seq);
            self.newest.insert(record, self.versions.len());
            self.versions.push(Version { seq, record, revision, kind, envelope, replaced: None });
        }
        self.tip.seq = seq;
        self.tip.hash = applied.hash;
        self.tip.device_log_index = applied.commit.device_log_index;
        self.tip.epoch = applied.commit.epoch;
        self.tip.vault_log_index = applied.commit.vault_log_index;
        self.tip.vault_log_head = applied.commit.vault_log_head;
        self.hashes.push(applied.hash);
    }
}

/// An envelope around bytes that nobody can open; the server can not tell.
pub(crate) fn sealed(header: &EnvelopeHeader, ciphertext: Vec<u8>) -> Vec<u8> {
    let commitment = Digest::of(label::ENVELOPE, &ciphertext);
    Envelope { header: header.encode().into(), commitment, ciphertext: ciphertext.into() }.encode()
}
