//! A reader of chains: section 6.3 with repairs (6.7), on the functions that every client and the server use.

use super::account::verified_log;
use super::record::vault;
use crate::vectors::json::{Fault, In, hex, item, item_array};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::chain::{Owner, Tip, verify_birth, verify_changes, verify_kind, verify_next};
use lockstep_proto::commit::{Changes, Commit, KIND_REPAIR};
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::hash::Digest;
use lockstep_proto::id::{RecordId, Revision, Seq};
use lockstep_proto::sign::Signed;
use lockstep_proto::state::StateDigest;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What a reader knows after a commit that counts.
#[derive(Clone)]
pub struct After {
    /// Where the chain stands.
    pub tip: Tip,
    /// Newest version of every record.
    pub records: BTreeMap<RecordId, (Revision, Digest, Seq)>,
    /// Their sum.
    pub state: StateDigest,
}

/// A chain as far as it was read.
#[derive(Clone)]
pub struct Chain {
    log: DeviceLog,
    /// Hash of every commit, those that do not count too.
    pub hashes: Vec<Digest>,
    /// By seq; none where the commit does not count.
    pub after: Vec<Option<After>>,
    /// What repairs gave up, in order.
    pub abandoned: Vec<Digest>,
}

/// A signed commit and its change list.
pub type Link = (Signed, Vec<u8>);

fn chain_fault() -> Fault {
    Fault::new("chain")
}

impl Chain {
    /// A chain that begins with its birth.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn born(
        log: DeviceLog,
        vault: lockstep_proto::VaultId,
        create: &Signed,
        genesis: &Link,
    ) -> Result<Self, Fault> {
        let born = verify_birth(vault, log.account(), log.identity(), &log, create, &genesis.0)?;
        if Changes::digest_of(&genesis.1) != born.commit().changes {
            return Err(chain_fault());
        }
        let after = After { tip: born.tip(), records: BTreeMap::new(), state: StateDigest::default() };
        Ok(Self { log, hashes: vec![born.hash()], after: vec![Some(after)], abandoned: Vec::new() })
    }

    /// What counts at the end.
    pub fn last(&self) -> &After {
        self.after.iter().rev().flatten().next().unwrap()
    }

    /// Hash that a commit at `seq` has as its skip link.
    pub fn skip(&self, seq: Seq) -> Digest {
        let target = usize::try_from(seq.skip_target().value()).unwrap();
        self.hashes.get(target).copied().unwrap_or(Digest::ZERO)
    }

    fn judge(&self, from: &After, link: &Link) -> Result<(After, Changes), Fault> {
        let skip = self.skip(from.tip.seq.next());
        let verified = verify_next(&from.tip, skip, &self.log, &link.0)?;
        let commit = verified.commit();
        let changes = verify_changes(commit, &link.1)?;
        let owner = Owner { account: self.log.account(), identity: self.log.identity() };
        verify_kind(&from.tip, owner, &self.log, &verified, &changes)?;
        let mut after = from.clone();
        for (record, revision, digest) in changes.0.iter().filter_map(lockstep_proto::commit::Change::version)
        {
            let last = after.records.get(&record).copied();
            if last.map_or(Revision::new(0), |last| last.0).next() != revision {
                return Err(chain_fault());
            }
            if let Some((revision, digest, seq)) = last {
                after.state.remove(record, revision, digest, seq);
            }
            after.state.add(record, revision, digest, commit.seq);
            after.records.insert(record, (revision, digest, commit.seq));
        }
        if after.state.checksum() != commit.state {
            return Err(chain_fault());
        }
        after.tip = verified.tip();
        Ok((after, changes))
    }

    fn take(&mut self, after: After, changes: &Changes) {
        self.abandoned.extend(changes.abandoned().map(|(_, hash)| hash));
        self.hashes.push(after.tip.hash);
        self.after.push(Some(after));
    }

    /// Reads what follows.
    ///
    /// # Errors
    /// [`Fault`] of the first commit that does not go on, if no repair goes back behind it.
    pub fn read(&mut self, links: &[Link]) -> Result<(), Fault> {
        let mut place = 0;
        while place < links.len() {
            place = self.step(links, place)?;
        }
        Ok(())
    }

    /// Reads the commit at `place`, or on to a repair behind it; gives the place after it.
    fn step(&mut self, links: &[Link], place: usize) -> Result<usize, Fault> {
        let link = &links[place];
        let goes_back = Changes::decode(&link.1).is_ok_and(|changes| changes.goes_back_to().is_some());
        let judged = if goes_back { Err(chain_fault()) } else { self.judge(self.last(), link) };
        match judged {
            Ok((after, changes)) => {
                self.take(after, &changes);
                Ok(place + 1)
            }
            Err(fault) => self
                .look_for_repair(links, place)
                .ok_or_else(|| if goes_back { self.repair_fault(link) } else { fault }),
        }
    }

    /// Why a repair that goes back from the chain's very end is refused.
    fn repair_fault(&self, link: &Link) -> Fault {
        self.judge_repair(link).err().unwrap_or_else(chain_fault)
    }

    /// Judges a repair that goes back, behind the last linked commit.
    fn judge_repair(&self, link: &Link) -> Result<(After, Changes), Fault> {
        let target = Changes::decode(&link.1)?.goes_back_to().ok_or_else(chain_fault)?;
        let target = usize::try_from(target.value()).map_err(|_| chain_fault())?;
        let mut from = self.after.get(target).cloned().flatten().ok_or_else(chain_fault)?;
        from.tip.seq = Seq::new(u64::try_from(self.hashes.len()).unwrap() - 1);
        from.tip.hash = *self.hashes.last().unwrap();
        self.judge(&from, link)
    }

    /// From `place` on, by links only: takes the first repair that goes back to what counts. Gives the place after it.
    fn look_for_repair(&mut self, links: &[Link], place: usize) -> Option<usize> {
        let mut ahead = self.clone();
        for (place, link) in links.iter().enumerate().skip(place) {
            let commit = Commit::decode(&link.0.bytes.0).ok()?;
            if commit.seq.value() != u64::try_from(ahead.hashes.len()).unwrap()
                || Some(&commit.previous) != ahead.hashes.last()
            {
                return None;
            }
            if commit.kind == KIND_REPAIR
                && let Ok((after, changes)) = ahead.judge_repair(link)
            {
                let back = usize::try_from(changes.goes_back_to()?.value()).unwrap();
                ahead.abandoned.extend(ahead.hashes.iter().skip(back + 1).copied().collect::<Vec<_>>());
                for gone in ahead.after.iter_mut().skip(back + 1) {
                    *gone = None;
                }
                ahead.take(after, &changes);
                *self = ahead;
                return Some(place + 1);
            }
            ahead.hashes.push(Commit::hash_of(&link.0.bytes.0));
            ahead.after.push(None);
        }
        None
    }

    fn check_pins(&self, pins: &[(u64, Digest)]) -> Result<(), Fault> {
        let abandoned: BTreeSet<_> = self.abandoned.iter().collect();
        for (seq, hash) in pins {
            let found = usize::try_from(*seq).ok().and_then(|seq| self.hashes.get(seq));
            if found != Some(hash) && !abandoned.contains(hash) {
                return Err(Fault::new(if found.is_some() { "fork" } else { "rollback" }));
            }
        }
        Ok(())
    }
}

fn links(links: &[Value]) -> Result<Vec<Link>, Fault> {
    links.iter().map(|link| Ok((Signed::decode(&item(&link[0]))?, item(&link[1])))).collect()
}

/// Names of a chain's beginnings: of its birth's inputs, and of each number of commits.
fn beginnings(input: In<'_>, name: &str) -> Vec<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    for name in ["identity", "log", "vault", "create"] {
        hasher.update(input.0[name].to_string().as_bytes()).update(b";");
    }
    let mut names = vec![hasher.finalize()];
    for link in input.list(name) {
        hasher.update(link.to_string().as_bytes());
        names.push(hasher.finalize());
    }
    names
}

/// Reads a chain. Beginnings that were read last are kept: who flips the bits of one commit reads those before it once.
fn read(input: In<'_>, name: &str) -> Result<Chain, Fault> {
    thread_local! {
        static READ: std::cell::RefCell<Vec<(blake3::Hash, Chain)>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    let names = beginnings(input, name);
    let known = READ.with_borrow_mut(|read| {
        read.retain(|known| names.contains(&known.0));
        let place = names.iter().rposition(|name| read.iter().any(|known| known.0 == *name))?;
        let chain = read.iter().find(|known| known.0 == names[place])?.1.clone();
        Some((place, chain))
    });
    let keep = |place: usize, chain: &Chain| {
        READ.with_borrow_mut(|read| {
            if read.iter().all(|known| known.0 != names[place]) {
                read.push((names[place], chain.clone()));
            }
        });
    };
    let (begin, mut chain) = if let Some(known) = known {
        known
    } else {
        let genesis = links(input.list(name).get(..1).ok_or_else(chain_fault)?)?;
        let create = input.signed("create")?;
        (1, Chain::born(verified_log(input)?, vault(input)?, &create, &genesis[0])?)
    };
    let rest = links(&input.list(name)[begin..])?;
    let mut place = 0;
    while place < rest.len() {
        keep(begin + place, &chain);
        place = chain.step(&rest, place)?;
    }
    Ok(chain)
}

fn out(chain: &Chain) -> Value {
    let last = chain.last();
    let records: Vec<Value> = last
        .records
        .iter()
        .map(|(record, (revision, digest, seq))| {
            json!([hex(record.as_bytes()), revision.value(), hex(digest.as_bytes()), seq.value()])
        })
        .collect();
    json!({
        "seq": last.tip.seq.value(),
        "hash": hex(last.tip.hash.as_bytes()),
        "epoch": last.tip.epoch.value(),
        "state": hex(last.tip.state.as_bytes()),
        "records": records,
        "abandoned": chain.abandoned.iter().map(|hash| hex(hash.as_bytes())).collect::<Vec<_>>(),
    })
}

pub(super) fn chain(input: In<'_>) -> Result<Value, Fault> {
    let chain = read(input, "commits")?;
    let mut pins = Vec::new();
    for pin in input.list("pins") {
        pins.push((pin[0].as_u64().unwrap(), Digest::from_bytes(item_array(&pin[1])?)));
    }
    chain.check_pins(&pins)?;
    Ok(out(&chain))
}

/// A reader that verified `held` is shown `commits`.
pub(super) fn parted(input: In<'_>) -> Result<Value, Fault> {
    let (held, chain) = (read(input, "held")?, read(input, "commits")?);
    let head = (held.last().tip.seq.value(), held.last().tip.hash);
    chain.check_pins(&[head])?;
    Ok(out(&chain))
}
