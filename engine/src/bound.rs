//! What binds a chain beyond its links, before anything of it is persisted: the pins of the verified device log, and
//! the place of a repair that was followed and has to come. A page shows where its own commits lead; where that is not
//! far enough the chain is looked at ahead, its links only.

use crate::engine::Setup;
use crate::error::EngineError;
use crate::repair;
use crate::replica::{Head, Replica, Result, WriteOp};
use lockstep_proto::Digest;
use lockstep_proto::api::vault::Page;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::Commit;
use lockstep_proto::device_log::{DeviceLog, Pin};
use lockstep_proto::id::{DeviceId, Seq, VaultId};
use std::collections::BTreeMap;

/// Pages that one look ahead reads at most, and commits in them.
const PAGES_MAX: u32 = 4096;
const COMMITS_MAX: usize = 1 << 20;

/// A place of a chain.
pub(crate) type Place = (Seq, Digest);

/// Hashes of a linked run of commits.
pub(crate) type Run = BTreeMap<Seq, Digest>;

/// Where a page leads to, as far as its commits and a look ahead from it say.
pub(crate) struct Bounds<'a> {
    replica: &'a dyn Replica,
    devices: &'a DeviceLog,
    vault: VaultId,
    /// Whether the page goes on where this device stands; if not, it is refused for that.
    links: bool,
    page: Run,
    /// What was seen ahead, if the page lies on it.
    ahead: Option<&'a Run>,
}

impl<'a> Bounds<'a> {
    pub(crate) fn new(
        replica: &'a dyn Replica,
        vault: VaultId,
        devices: &'a DeviceLog,
        ahead: &'a Run,
        page: &Page,
    ) -> Result<Self> {
        let links = Self::links(page, replica.head()?.as_ref());
        let mut run = Run::new();
        let mut last: Option<Place> = None;
        for entry in &page.commits {
            let Ok(commit) = Commit::decode(&entry.commit.bytes.0) else { break };
            if last.is_some_and(|(seq, hash)| commit.seq != seq.next() || commit.previous != hash) {
                break;
            }
            let place = (commit.seq, Commit::hash_of(&entry.commit.bytes.0));
            run.insert(place.0, place.1);
            last = Some(place);
        }
        let ahead = last.is_some_and(|(seq, hash)| ahead.get(&seq) == Some(&hash)).then_some(ahead);
        Ok(Self { replica, devices, vault, links, page: run, ahead })
    }

    fn links(page: &Page, head: Option<&Head>) -> bool {
        let first = page.commits.first().and_then(|entry| Commit::decode(&entry.commit.bytes.0).ok());
        match (first, head) {
            (Some(first), Some(head)) => first.seq == head.tip.seq.next() && first.previous == head.tip.hash,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    fn at(&self, seq: Seq) -> Option<Digest> {
        self.page.get(&seq).or_else(|| self.ahead?.get(&seq)).copied()
    }

    fn pins(&self) -> impl Iterator<Item = Place> {
        self.devices.pins().iter().filter(|pin| pin.vault == self.vault).map(|pin| (pin.seq, pin.head))
    }

    /// A place that the page as a whole does not lead to although it must: that of a repair that has to come, or a
    /// pinned one that it passes by.
    pub(crate) fn missed(&self) -> Result<Option<Place>> {
        if !self.links {
            return Ok(None);
        }
        if let Some(place) = self.replica.expected()?
            && self.at(place.0) != Some(place.1)
        {
            return Ok(Some(place));
        }
        for place in self.pins() {
            let is_other = self.at(place.0).is_some_and(|hash| hash != place.1);
            if is_other && !self.replica.abandoned(place.0, place.1)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// A place that the chain must be seen to pass through before a commit of a device may be taken: what a revoked
    /// device wrote counts on the way to its revocation's pin only.
    pub(crate) fn needed(&self, device: DeviceId, seq: Seq) -> Result<Option<Place>> {
        let revoked = self.devices.device(device).and_then(|known| known.revoked.as_ref());
        let pin = revoked.and_then(|revoked| revoked.pins.iter().find(|pin| pin.vault == self.vault));
        let bound = pin.copied().filter(|pin| self.links && seq <= pin.seq);
        let Some(Pin { seq: last, head, .. }) = bound else {
            return Ok(None);
        };
        let is_seen = self.at(last) == Some(head) || self.replica.abandoned(last, head)?;
        Ok((!is_seen).then_some((last, head)))
    }
}

/// A look ahead from the head: whether the server's chain passes through a place, or has a repair that gives it up.
pub(crate) struct Ahead {
    place: Place,
    last: Option<Place>,
    run: Run,
    pages: u32,
}

/// What is written when a repair at `repair` gives up what `place` was looked for: the furthest repair has to come.
pub(crate) fn follow(
    replica: &dyn Replica,
    place: Place,
    repair: Place,
    abandoned: Vec<Place>,
) -> Result<Vec<WriteOp>> {
    let before = replica.expected()?.filter(|known| *known != place && known.0 > repair.0);
    let mut ops: Vec<WriteOp> =
        abandoned.into_iter().map(|(seq, hash)| WriteOp::Abandon(seq, hash)).collect();
    ops.push(WriteOp::SetExpected(Some(before.unwrap_or(repair))));
    Ok(ops)
}

/// A repair that went back over commits here: the one that had to come is among them, or did not come.
pub(crate) fn arrived(replica: &dyn Replica, vault: VaultId, ops: &mut Vec<WriteOp>) -> Result<()> {
    let Some((seq, expected)) = replica.expected()? else { return Ok(()) };
    let came = ops.iter().find_map(|op| match op {
        WriteOp::AddCommit { seq: here, hash, .. } if *here == seq => Some(*hash),
        _ => None,
    });
    match came {
        Some(hash) if hash == expected => ops.push(WriteOp::SetExpected(None)),
        Some(_) => return Err(EngineError::Fork { vault, seq }),
        None => {}
    }
    Ok(())
}

/// What a page of it leads to.
pub(crate) enum Seen {
    /// Another page is needed, after this commit.
    Ask(Option<Seq>),
    /// The chain passes through the place; all commits on the way to it.
    Passes(Run),
    /// A repair, at this place, gives these commits up; all commits on the way to it.
    GivenUp(Place, Vec<Place>, Run),
}

impl Ahead {
    pub(crate) fn new(replica: &dyn Replica, place: Place) -> Result<Self> {
        let last = replica.head()?.map(|head| (head.tip.seq, head.tip.hash));
        Ok(Self { place, last, run: Run::new(), pages: 0 })
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    pub(crate) fn after(&self) -> Option<Seq> {
        self.last.map(|(seq, _)| seq)
    }

    /// Takes a page that was asked for.
    pub(crate) fn take(&mut self, setup: &Setup, devices: &DeviceLog, page: &Page) -> Result<Seen> {
        let fork = EngineError::Fork { vault: setup.vault(), seq: self.place.0 };
        self.pages = self.pages.saturating_add(1);
        if self.pages > PAGES_MAX || self.run.len() > COMMITS_MAX {
            return Err(fork);
        }
        for entry in &page.commits {
            let commit = Commit::decode(&entry.commit.bytes.0).map_err(EngineError::server)?;
            let follows = match self.last {
                Some((seq, hash)) => commit.seq == seq.next() && commit.previous == hash,
                None => commit.seq == Seq::new(0),
            };
            if !follows || commit.vault != setup.vault() {
                return Err(EngineError::server("its commits do not follow each other"));
            }
            let here = (commit.seq, Commit::hash_of(&entry.commit.bytes.0));
            self.run.insert(here.0, here.1);
            self.last = Some(here);
            if here == self.place {
                return Ok(Seen::Passes(std::mem::take(&mut self.run)));
            }
            let abandoned = repair::abandoned_by(setup, devices, entry);
            if abandoned.contains(&self.place) {
                return Ok(Seen::GivenUp(here, abandoned, std::mem::take(&mut self.run)));
            }
        }
        if page.more && !page.commits.is_empty() {
            return Ok(Seen::Ask(self.after()));
        }
        let (vault, verified, server) = (setup.vault(), self.place.0, page.head_seq);
        Err(if server < verified { EngineError::Rollback { vault, verified, server } } else { fork })
    }
}
