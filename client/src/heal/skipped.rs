//! What a repair is about to go back over is kept first: what devices that are live wrote, as far as it is really
//! theirs, waits to be carried over; everything else is kept for review. All of it is on the shelf before the repair
//! is sent, so that a healing that is cut off goes on with it.

use super::Healed;
use super::shown::{ServerChain, decode, page, two_chains};
use crate::error::Result;
use crate::replica::Shelved;
use crate::vault::Vault;
use lockstep_engine::files::SNAPSHOT_TYPE;
use lockstep_engine::read::version_at;
use lockstep_engine::replica::Replica as _;
use lockstep_engine::skipped::{Announced, Skipped};
use lockstep_proto::api::vault::{Entries, GetEnvelopes};
use lockstep_proto::commit::Commit;
use lockstep_proto::id::{RecordId, Revision, Seq};
use lockstep_proto::{Digest, limits};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Places that are asked for in one request.
const PLACES_A_REQUEST: usize = limits::PAGE_ENTRIES_MAX / 4;

/// Puts the versions of all commits after a good one on the shelf. The first one that is not held here is the one that
/// does not count: of it nothing is carried over.
pub(super) async fn shelve(vault: &Vault, shown: &ServerChain, good: Seq, healed: &mut Healed) -> Result<()> {
    let log = Arc::clone(vault.device_log());
    let fault = shown.beyond.as_ref().map(decode).transpose()?.map(|commit| commit.seq);
    let end = shown.end(&vault.replica)?;
    let mut after = good;
    while after < end.0 {
        let page = page(vault, Some(after)).await?;
        if page.commits.is_empty() {
            return Err(two_chains(vault));
        }
        for entry in &page.commits {
            // Whatever came since stands behind the repair's place, and refuses it.
            if after >= end.0 {
                break;
            }
            let commit = decode(entry)?;
            let hash = Commit::hash_of(&entry.commit.bytes.0);
            if commit.seq != after.next() || shown.hash_at(&vault.replica, commit.seq)? != hash {
                return Err(two_chains(vault));
            }
            after = commit.seq;
            let skipped = Skipped::read(&log, &commit, entry);
            let carries = skipped.is_live && Some(commit.seq) != fault;
            let part = Part { vault, good, seq: commit.seq, hash, carries };
            for versions in skipped.versions.chunks(PLACES_A_REQUEST) {
                part.keep(versions, healed).await?;
            }
        }
    }
    Ok(())
}

/// A commit that is gone back over.
struct Part<'a> {
    vault: &'a Vault,
    good: Seq,
    seq: Seq,
    hash: Digest,
    carries: bool,
}

impl Part<'_> {
    /// Keeps versions of it: those that are held here, then those that the server gives.
    async fn keep(&self, versions: &[Announced], healed: &mut Healed) -> Result<()> {
        let replica = &self.vault.replica;
        let mut wanted: BTreeMap<RecordId, &Announced> = BTreeMap::new();
        for version in versions {
            let held = replica.record(version.record)?.is_some_and(|row| row.present && row.seq == self.seq);
            let envelope = if held { replica.envelope(version.record)? } else { None };
            match envelope.filter(|bytes| version.is(bytes)) {
                Some(bytes) => self.put(vec![(version, bytes)], healed)?,
                None => drop(wanted.insert(version.record, version)),
            }
        }
        let path = format!("/v1/vaults/{}/envelopes/get", self.vault.setup.vault());
        while !wanted.is_empty() {
            let places = wanted.keys().map(|record| (self.seq, *record)).collect();
            let page: Entries = self.vault.api().post(&path, &GetEnvelopes(places)).await?;
            let mut came = Vec::new();
            for entry in page.entries.into_iter().filter(|entry| entry.seq == self.seq) {
                let version = wanted.get(&entry.record).filter(|version| version.is(&entry.envelope.0));
                if let Some(version) = version.copied() {
                    wanted.remove(&entry.record);
                    came.push((version, entry.envelope.0));
                }
            }
            // What is not there any more is left out; a full page is asked for again without what came.
            let is_last = !page.more || came.is_empty();
            self.put(came, healed)?;
            if is_last {
                break;
            }
        }
        if self.carries {
            healed.withheld.extend(wanted.into_keys().map(|record| (self.seq, record)));
        }
        Ok(())
    }

    /// Puts versions on the shelf, whose envelopes are the ones that were announced.
    fn put(&self, versions: Vec<(&Announced, Vec<u8>)>, healed: &mut Healed) -> Result<()> {
        let mut rows = Vec::with_capacity(versions.len());
        for (version, envelope) in versions {
            let opened = version.open(&self.vault.setup, &envelope);
            // A snapshot is of a state that no longer is.
            let fits = opened.is_some_and(|opened| opened.content.record_type != SNAPSHOT_TYPE);
            let before = version_at(&self.vault.replica, version.record, self.good)?;
            let waits = self.carries && fits;
            healed.kept += u64::from(!waits);
            let row = Shelved {
                id: 0,
                seq: self.seq,
                commit: Some(self.hash),
                record: version.record,
                revision: version.revision,
                kind: version.kind,
                has_envelope: true,
                base: before.map_or(Revision::new(0), |before| before.revision),
                waits,
            };
            rows.push((row, version.digest, envelope));
        }
        self.vault.replica.shelve(self.good, &rows)
    }
}
