//! A server whose chain does not pass through what was verified here may still be right: after its data was
//! restored from an older copy, the owner may have given this branch up. Then its chain has a repair, signed by the
//! identity, that names this very head. This looks for it; without one the server is not believed.

use crate::engine::Setup;
use crate::error::EngineError;
use crate::repair;
use crate::replica::{Replica, Result};
use lockstep_proto::Digest;
use lockstep_proto::api::vault::Page;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::Commit;
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::id::Seq;

/// Pages that one search reads at most.
const PAGES_MAX: u32 = 4096;

/// A search under way.
pub(crate) struct Seek {
    /// What is said if nothing is found.
    cause: EngineError,
    /// The head that was verified here.
    head: (Seq, Digest),
    /// Where the next page begins; none: at the genesis.
    after: Option<Seq>,
    stride: u64,
    pages: u32,
    /// The last commit that both have, once it is known that there is one.
    shared: Option<Seq>,
    last: Option<(Seq, Digest)>,
    /// The repair that gives the head up.
    given_up: Option<(Seq, Digest)>,
}

/// What a page leads to.
pub(crate) enum Sought {
    /// Another page is needed, after this commit.
    Ask(Option<Seq>),
    /// The head is given up by a repair at this place; both chains pass through the commit before.
    GivenUp { shared: Seq, repair: (Seq, Digest) },
}

impl Seek {
    /// A search for a repair that gives the held head up; none if there is nothing before it.
    pub(crate) fn new(replica: &dyn Replica, cause: EngineError) -> Result<Option<Self>> {
        let Some(head) = replica.head()? else { return Ok(None) };
        let after = head.tip.seq.previous();
        if after.is_none() {
            return Ok(None);
        }
        let head = (head.tip.seq, head.tip.hash);
        Ok(Some(Self { cause, head, after, stride: 1, pages: 0, shared: None, last: None, given_up: None }))
    }

    pub(crate) fn after(&self) -> Option<Seq> {
        self.after
    }

    /// Takes a page that was asked for.
    pub(crate) fn take(
        &mut self,
        replica: &dyn Replica,
        setup: &Setup,
        devices: &DeviceLog,
        page: &Page,
    ) -> Result<Sought> {
        self.pages = self.pages.saturating_add(1);
        if self.pages > PAGES_MAX {
            return Err(self.cause.clone());
        }
        if self.shared.is_none() && !self.begins_shared(replica, page)? {
            return self.back(page);
        }
        for entry in &page.commits {
            let Ok(commit) = Commit::decode(&entry.commit.bytes.0) else { return Err(self.cause.clone()) };
            let hash = Commit::hash_of(&entry.commit.bytes.0);
            let follows = self
                .last
                .is_none_or(|(seq, previous)| commit.seq == seq.next() && commit.previous == previous);
            if !follows || commit.vault != setup.vault() {
                return Err(self.cause.clone());
            }
            self.last = Some((commit.seq, hash));
            if replica.commit_hash(commit.seq)? == Some(hash) {
                self.shared = Some(commit.seq);
            }
            if self.given_up.is_none() && repair::abandons(setup, devices, entry, self.head) {
                self.given_up = self.last;
            }
        }
        match (self.last, page.more && !page.commits.is_empty(), self.given_up, self.shared) {
            (Some((seq, _)), true, ..) => Ok(Sought::Ask(Some(seq))),
            (_, _, Some(repair), Some(shared)) => Ok(Sought::GivenUp { shared, repair }),
            _ => Err(self.cause.clone()),
        }
    }

    /// Whether a page begins right after a commit that is held here.
    fn begins_shared(&mut self, replica: &dyn Replica, page: &Page) -> Result<bool> {
        let Some(first) = page.commits.first() else { return Ok(false) };
        let Ok(commit) = Commit::decode(&first.commit.bytes.0) else { return Err(self.cause.clone()) };
        match self.after {
            Some(seq) if commit.seq == seq.next() && replica.commit_hash(seq)? == Some(commit.previous) => {
                self.shared = Some(seq);
                self.last = Some((seq, commit.previous));
                Ok(true)
            }
            None if replica.commit_hash(Seq::new(0))? == Some(Commit::hash_of(&first.commit.bytes.0)) => {
                self.shared = Some(Seq::new(0));
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Further back, in growing steps.
    fn back(&mut self, page: &Page) -> Result<Sought> {
        let Some(after) = self.after else { return Err(self.cause.clone()) };
        let below_head = page.head_seq.value().min(after.value()).checked_sub(self.stride);
        self.stride = self.stride.saturating_mul(4);
        self.after = below_head.map(Seq::new);
        Ok(Sought::Ask(self.after))
    }
}
