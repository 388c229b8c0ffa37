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
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::id::{DeviceId, Seq, VaultId};
use std::collections::{BTreeMap, BTreeSet};

/// Pages that one look ahead reads at most, and commits in them.
const PAGES_MAX: u32 = 4096;
const COMMITS_MAX: usize = 1 << 20;

/// A place of a chain.
pub(crate) type Place = (Seq, Digest);

/// Hashes of a linked run of commits.
pub(crate) type Run = BTreeMap<Seq, Digest>;

/// What looks ahead came to.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// The commits that the last one saw.
    pub(crate) run: Run,
    /// Pinned places that the chain neither passes through nor gives up, and that were given up here: whoever heals
    /// is about to sign the repair that names them.
    pub(crate) passed_by: BTreeSet<Place>,
}

/// The place that is pinned for a device by its revocation, if a commit of it lies on the way there.
pub(crate) fn bound_of(devices: &DeviceLog, vault: VaultId, device: DeviceId, seq: Seq) -> Option<Place> {
    let pin = devices.device(device)?.revoked.as_ref()?.pin(vault)?;
    (seq <= pin.seq).then_some((pin.seq, pin.head))
}

/// What is to be done about a commit of a device that is revoked.
pub(crate) enum Bound {
    /// Nothing.
    Met,
    /// The chain must be seen to pass through this place first: what the device wrote counts on the way there only.
    LookAhead(Place),
    /// It does not pass through it.
    PassedBy,
}

/// Where a page leads to, as far as its commits and a look ahead from it say.
pub(crate) struct Bounds<'a> {
    replica: &'a dyn Replica,
    devices: &'a DeviceLog,
    vault: VaultId,
    passed_by: &'a BTreeSet<Place>,
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
        looked: &'a Looked,
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
        let ahead = &looked.run;
        let ahead = last.is_some_and(|(seq, hash)| ahead.get(&seq) == Some(&hash)).then_some(ahead);
        Ok(Self { replica, devices, vault, passed_by: &looked.passed_by, links, page: run, ahead })
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
            if is_other && !self.passed_by.contains(&place) && !self.replica.abandoned(place.0, place.1)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// What binds a commit of a device.
    pub(crate) fn of(&self, device: DeviceId, seq: Seq) -> Result<Bound> {
        let bound = bound_of(self.devices, self.vault, device, seq).filter(|_| self.links);
        let Some(place) = bound else { return Ok(Bound::Met) };
        if self.at(place.0) == Some(place.1) || self.replica.abandoned(place.0, place.1)? {
            return Ok(Bound::Met);
        }
        Ok(if self.passed_by.contains(&place) { Bound::PassedBy } else { Bound::LookAhead(place) })
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
