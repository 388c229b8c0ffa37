//! A model of the server for one vault: what PROTOCOL.md section 6 asks of it, with small pages so that
//! every kind of request is needed. It knows no key.

use crate::fixture::FIXTURE;
use lockstep_engine::effect::{Answer, Failure, Request};
use lockstep_proto::api::vault::{CommitEntry, Entry, Page, PushCommit};
use lockstep_proto::chain::{self, Tip};
use lockstep_proto::commit::{Change, Changes, Commit};
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::envelope::{self, KIND_DOCUMENT, KIND_TOMBSTONE, blob_list_digest};
use lockstep_proto::id::{BlobId, RecordId, Revision, Seq};
use lockstep_proto::state::StateDigest;
use lockstep_proto::{Digest, Signed, cbor::Wire as _};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The refusal of a commit that does not know of a revocation.
pub(crate) const LOG_MOVED: &str = "log_moved";

/// The refusal of a commit that puts something beyond the account's quota.
pub(crate) const QUOTA: &str = "quota_exceeded";

/// A record's newest version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) revision: Revision,
    pub(crate) digest: Digest,
    pub(crate) seq: Seq,
}

/// Any version.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) revision: Revision,
    pub(crate) kind: u8,
    pub(crate) envelope: Vec<u8>,
    pub(crate) is_replaced: bool,
}

/// The state after a commit, and its versions.
type Checked = (StateDigest, Vec<(RecordId, Digest, Version)>);

/// Sizes of pages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageSizes {
    pub(crate) commits: usize,
    pub(crate) inline: usize,
    pub(crate) state: usize,
    pub(crate) envelopes: usize,
}

/// All that the server has.
#[derive(Clone)]
pub(crate) struct ModelServer {
    pub(crate) commits: Vec<(Signed, Vec<u8>, Digest)>,
    pub(crate) tip: Tip,
    pub(crate) state: StateDigest,
    pub(crate) live: BTreeMap<RecordId, Live>,
    pub(crate) versions: BTreeMap<(Seq, RecordId), Version>,
    pub(crate) staged: BTreeMap<Digest, Vec<u8>>,
    pub(crate) log: Arc<DeviceLog>,
    pub(crate) sizes: PageSizes,
    /// Whether the account is beyond its quota.
    pub(crate) refuses_puts: bool,
    /// Objects that are not there.
    pub(crate) missing: BTreeSet<BlobId>,
}

impl ModelServer {
    /// A server whose vault was just born.
    pub(crate) fn new(sizes: PageSizes) -> Self {
        let f = &*FIXTURE;
        let log = f.log();
        let (create, genesis) = (&f.birth.create, &f.birth.genesis);
        let born =
            chain::verify_birth(f.keys.vault(), f.account, &f.identity, &*log, create, genesis).unwrap();
        let changes = Changes::default().encode();
        Self {
            commits: vec![(genesis.clone(), changes, born.hash())],
            tip: born.tip(),
            state: StateDigest::default(),
            live: BTreeMap::new(),
            versions: BTreeMap::new(),
            staged: BTreeMap::new(),
            log,
            sizes,
            refuses_puts: false,
            missing: BTreeSet::new(),
        }
    }

    /// Answers a request.
    pub(crate) fn serve(&mut self, request: &Request) -> Result<Answer, Failure> {
        match request {
            Request::Commits { after } => Ok(Answer::Page(self.page(*after))),
            Request::State { after, upto, from } => {
                if *upto > self.tip.seq {
                    return Err(Failure::Refused("the vault has no such commit yet".into()));
                }
                let (entries, more) = self.entries(*after, *upto, *from, self.sizes.state);
                Ok(Answer::Entries(entries, more))
            }
            Request::Envelopes { places } => {
                let found = places.iter().filter_map(|place| self.entry(*place));
                let entries: Vec<Entry> = found.take(self.sizes.envelopes).collect();
                let more = entries.len() < places.len();
                Ok(Answer::Entries(entries, more))
            }
            Request::Stage { envelopes } => {
                for bytes in envelopes {
                    self.staged.insert(envelope::digest(&bytes.0), bytes.0.clone());
                }
                Ok(Answer::Staged)
            }
            Request::Push(push) => self.push(push),
            Request::DeviceLog => Ok(Answer::DeviceLog(self.log.clone())),
        }
    }

    /// The first page after a commit.
    pub(crate) fn page(&self, after: Option<Seq>) -> Page {
        let first = after.map_or(0, |seq| seq.value() as usize + 1);
        let rest = self.commits.get(first..).unwrap_or_default();
        let commits: Vec<CommitEntry> = rest
            .iter()
            .take(self.sizes.commits)
            .map(|(commit, changes, _)| CommitEntry {
                commit: commit.clone(),
                changes: Some(changes.clone().into()),
            })
            .collect();
        let more = rest.len() > commits.len();
        let entries = if commits.is_empty() {
            Vec::new()
        } else {
            let last = Seq::new((first + commits.len() - 1) as u64);
            self.entries(after, last, None, self.sizes.inline).0
        };
        Page { head_seq: self.tip.seq, commits, more, entries }
    }

    fn entries(
        &self,
        after: Option<Seq>,
        upto: Seq,
        from: Option<(Seq, RecordId)>,
        limit: usize,
    ) -> (Vec<Entry>, bool) {
        let first = after.map_or(Seq::new(0), Seq::next);
        let later = self.versions.range((first, RecordId::from_bytes([0; 16]))..);
        let fits = |(place, version): &(&(Seq, RecordId), &Version)| {
            from.is_none_or(|from| **place > from) && !version.is_replaced
        };
        let mut found = later
            .take_while(|(place, _)| place.0 <= upto)
            .filter(fits)
            .filter_map(|(place, _)| self.entry(*place));
        let entries = found.by_ref().take(limit).collect();
        (entries, found.next().is_some())
    }

    /// A version by place.
    pub(crate) fn entry(&self, place: (Seq, RecordId)) -> Option<Entry> {
        self.versions.get(&place).map(|version| Entry {
            seq: place.0,
            record: place.1,
            revision: version.revision,
            kind: version.kind,
            envelope: version.envelope.clone().into(),
        })
    }

    fn push(&mut self, push: &PushCommit) -> Result<Answer, Failure> {
        let refused = |what: String| Failure::Refused(what);
        let commit = Commit::decode(&push.commit.bytes.0).map_err(|error| refused(error.to_string()))?;
        let hash = Commit::hash_of(&push.commit.bytes.0);
        if let Some((_, _, known)) = self.commits.get(commit.seq.value() as usize)
            && *known == hash
        {
            return Ok(Answer::Pushed);
        }
        if commit.seq != self.tip.seq.next() || commit.previous != self.tip.hash {
            return Ok(Answer::HeadMoved(self.page(commit.seq.previous())));
        }
        let skip = self.commits[commit.seq.skip_target().value() as usize].2;
        let last = self.log.last_revocation(self.log.next_index());
        if last.is_some_and(|revoked| commit.device_log_index < revoked) {
            return Err(refused(LOG_MOVED.into()));
        }
        let verified = chain::verify_next(&self.tip, skip, &*self.log, &push.commit)
            .map_err(|error| refused(error.to_string()))?;
        let changes =
            chain::verify_changes(&commit, &push.changes.0).map_err(|error| refused(error.to_string()))?;
        let owner = chain::Owner { account: FIXTURE.account, identity: &FIXTURE.identity };
        chain::verify_kind(&self.tip, owner, &*self.log, &verified, &changes)
            .map_err(|error| refused(error.to_string()))?;
        if self.refuses_puts && changes.0.iter().any(|change| matches!(change, Change::Put { .. })) {
            return Err(refused(QUOTA.into()));
        }
        let named = changes.0.iter().flat_map(|change| change.blobs());
        let missing: Vec<BlobId> = named.filter(|blob| self.missing.contains(*blob)).copied().collect();
        if !missing.is_empty() {
            return Err(Failure::MissingObjects(missing));
        }
        let (state, fresh) = self.check(push, &commit, &changes).map_err(refused)?;
        if state.checksum() != commit.state {
            return Err(refused("the state digest is not the one after these changes".into()));
        }
        self.state = state;
        for (record, digest, version) in fresh {
            let live = Live { revision: version.revision, digest, seq: commit.seq };
            if let Some(old) = self.live.insert(record, live) {
                self.versions.get_mut(&(old.seq, record)).unwrap().is_replaced = true;
            }
            self.versions.insert((commit.seq, record), version);
        }
        self.tip = verified.tip();
        self.commits.push((push.commit.clone(), push.changes.0.clone(), hash));
        Ok(Answer::Pushed)
    }

    /// The state after a commit, and the versions that it brings.
    fn check(&self, push: &PushCommit, commit: &Commit, changes: &Changes) -> Result<Checked, String> {
        let (mut state, mut fresh) = (self.state.clone(), Vec::new());
        let inline: BTreeMap<Digest, &Vec<u8>> =
            push.envelopes.iter().map(|bytes| (envelope::digest(&bytes.0), &bytes.0)).collect();
        for change in &changes.0 {
            let Some((record, revision, digest)) = change.version() else { continue };
            let bytes = match inline.get(&digest) {
                Some(bytes) => (*bytes).clone(),
                None => self.staged.get(&digest).cloned().ok_or("missing_envelope")?,
            };
            let (_, header) = envelope::decode(&bytes).map_err(|error| error.to_string())?;
            let kind = if matches!(change, Change::Put { .. }) { KIND_DOCUMENT } else { KIND_TOMBSTONE };
            let found = (header.vault, header.record, header.revision, header.kind, header.device);
            if found != (commit.vault, record, revision, kind, commit.device)
                || header.epoch != commit.epoch
                || header.blobs != blob_list_digest(change.blobs())
            {
                return Err("an envelope belongs elsewhere".into());
            }
            let before = self.live.get(&record).copied();
            if revision != before.map_or(Revision::new(1), |live| live.revision.next()) {
                return Err("a revision is not the last one plus one".into());
            }
            if let Some(old) = before {
                state.remove(record, old.revision, old.digest, old.seq);
            }
            state.add(record, revision, digest, commit.seq);
            fresh.push((record, digest, Version { revision, kind, envelope: bytes, is_replaced: false }));
        }
        Ok((state, fresh))
    }
}
