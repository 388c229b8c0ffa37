//! Forging: commits that break one rule, and answers that are not what the server has.

use crate::fixture::FIXTURE;
use crate::server::{Live, ModelServer, Version};
use lockstep_client_crypto::content::{Content, Hlc};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::vault::SealAs;
use lockstep_engine::effect::Answer;
use lockstep_proto::api::vault::{Entry, Page};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::{Change, Changes, Commit, KIND_CHANGE};
use lockstep_proto::envelope::{self, KIND_DOCUMENT};
use lockstep_proto::id::{Epoch, OperationId, RecordId, Revision, Seq};
use lockstep_proto::version::{SUITE, VERSION};
use lockstep_proto::{Digest, label};

/// A commit before it is signed, open to every wrong.
pub(crate) struct Draft {
    pub(crate) commit: Commit,
    pub(crate) changes: Changes,
    pub(crate) envelope: Vec<u8>,
    pub(crate) record: RecordId,
}

impl Draft {
    /// A good commit by a device upon the server's head: one new record.
    pub(crate) fn new(server: &ModelServer, device: &DeviceKeys, name: &[u8]) -> Self {
        let content = content(name);
        let record = FIXTURE.keys.record_id(&content.record_type, name);
        let seal_as = SealAs { kind: KIND_DOCUMENT, revision: Revision::new(1), epoch: Epoch::new(1) };
        let mut rng = crate::dice::generator(9, u64::from(name[0]));
        let envelope = FIXTURE.keys.seal(seal_as, &content, device, &mut rng).unwrap();
        let tip = &server.tip;
        let seq = tip.seq.next();
        let mut draft = Self {
            commit: Commit {
                version: VERSION,
                suite: SUITE,
                vault: tip.vault,
                seq,
                previous: tip.hash,
                skip: server.commits[seq.skip_target().value() as usize].2,
                kind: KIND_CHANGE,
                epoch: tip.epoch,
                device: device.id(),
                device_log_index: server.log.next_index() - 1,
                device_log_head: server.log.head(),
                vault_log_index: tip.vault_log_index,
                vault_log_head: tip.vault_log_head,
                utc: 1,
                changes: Digest::ZERO,
                state: Digest::ZERO,
            },
            changes: Changes::default(),
            envelope,
            record,
        };
        draft.list(server, Revision::new(1));
        draft
    }

    /// Makes change list and state anew, after the envelope was changed or with another revision.
    pub(crate) fn list(&mut self, server: &ModelServer, revision: Revision) {
        let digest = envelope::digest(&self.envelope);
        let put = Change::Put { record: self.record, revision, envelope: digest, blobs: Vec::new() };
        self.changes = Changes(vec![put]);
        let mut state = server.state.clone();
        state.add(self.record, revision, digest, self.commit.seq);
        self.commit.state = state.checksum();
        self.commit.changes = Changes::digest_of(&self.changes.encode());
    }

    /// Signs it, and has the server store it without looking.
    pub(crate) fn publish(self, server: &mut ModelServer, device: &DeviceKeys) {
        let changes = self.changes.encode();
        let bytes = self.commit.encode();
        let hash = Commit::hash_of(&bytes);
        server.commits.push((device.sign(label::COMMIT, bytes), changes, hash));
        let digest = envelope::digest(&self.envelope);
        let (seq, revision) = (self.commit.seq, Revision::new(1));
        server.state.add(self.record, revision, digest, seq);
        server.live.insert(self.record, Live { revision, digest, seq });
        let version = Version { revision, kind: KIND_DOCUMENT, envelope: self.envelope, is_replaced: false };
        server.versions.insert((seq, self.record), version);
        server.tip.seq = seq;
        server.tip.hash = hash;
    }
}

fn content(name: &[u8]) -> Content {
    Content {
        record_type: crate::plan::NOTE.into(),
        name: name.into(),
        schema: 1,
        codec: 0,
        hlc: Hlc { utc_ms: 1, counter: 0 },
        operation: OperationId::from_bytes([name[0]; 16]),
        base_revision: Revision::new(0),
        conflict_of: Vec::new().into(),
        document: b"forged".as_slice().into(),
        blobs: Vec::new(),
        manifest: (),
    }
}

/// Lets a page be changed, wherever one is.
pub(crate) fn in_page(answer: Answer, change: impl FnOnce(&mut Page)) -> Answer {
    match answer {
        Answer::Page(mut page) => {
            change(&mut page);
            Answer::Page(page)
        }
        other => other,
    }
}

/// Lets entries be changed, wherever some are.
pub(crate) fn in_entries(answer: Answer, change: impl FnOnce(&mut Vec<Entry>)) -> Answer {
    match answer {
        Answer::Page(mut page) => {
            change(&mut page.entries);
            Answer::Page(page)
        }
        Answer::Entries(mut entries, more) => {
            change(&mut entries);
            Answer::Entries(entries, more)
        }
        other => other,
    }
}

/// The page after a commit, with one bit of a part flipped.
pub(crate) fn flip(bytes: &mut [u8], bit: usize) {
    bytes[bit / 8] ^= 1 << (bit % 8);
}

/// A seq.
pub(crate) fn seq(value: u64) -> Seq {
    Seq::new(value)
}
