//! What an archive has to have of a vault: the versions in force at the head and at the pinned snapshots, and the
//! objects that they name.

use crate::error::Result;
use crate::late::{commit_at, skipped};
use crate::replica::VaultReplica;
use crate::vault::Vault;
use lockstep_engine::replica::{Replica as _, VersionRow};
use lockstep_proto::Signed;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::{Change, Changes};
use lockstep_proto::id::{BlobId, Seq};
use std::collections::BTreeSet;

/// What is read off a chain that counts.
#[derive(Default)]
pub(crate) struct Chain {
    /// Commits that snapshots pin.
    pub(crate) pins: BTreeSet<Seq>,
    /// Vault-log entries of its rotations.
    pub(crate) rotations: Vec<Signed>,
}

/// Walks over the commits that count.
pub(crate) fn chain_of(replica: &VaultReplica) -> Result<Chain> {
    let mut chain = Chain::default();
    let Some(head) = replica.head()? else { return Ok(chain) };
    let skipped = skipped(replica)?;
    let mut seq = Seq::new(0);
    while seq <= head.tip.seq {
        if !skipped.iter().any(|(to, repair)| seq > *to && seq < *repair) {
            let (_, changes) = commit_at(replica, seq)?;
            for change in Changes::decode(&changes).unwrap_or_default().0 {
                match change {
                    Change::Pin(pinned) => {
                        chain.pins.insert(pinned);
                    }
                    Change::Unpin(pinned) => {
                        chain.pins.remove(&pinned);
                    }
                    Change::Rotate(entry) => chain.rotations.push(*entry),
                    _ => {}
                }
            }
        }
        seq = seq.next();
    }
    Ok(chain)
}

/// A version that is wanted.
pub(crate) struct Wanted {
    pub(crate) version: VersionRow,
    /// Whether it is in force at the head or at a pinned snapshot: what is not there is missing.
    pub(crate) in_force: bool,
}

/// The versions of a vault that belong in an archive, ascending by (seq, record). Of the keyring all: first versions
/// count there, whatever was written over them, and deletions for ever.
pub(crate) fn versions_of(vault: &Vault, chain: &Chain, is_keyring: bool) -> Result<Vec<Wanted>> {
    let rows = vault.replica.versions()?;
    let mut wanted = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let next = rows.get(at.saturating_add(1)).filter(|next| next.record == row.record);
        let in_force = match next {
            None => true,
            Some(next) => chain.pins.range(row.seq..next.seq).next().is_some(),
        };
        if in_force || is_keyring {
            wanted.push(Wanted { version: *row, in_force });
        }
    }
    wanted.sort_unstable_by_key(|wanted| (wanted.version.seq, wanted.version.record));
    Ok(wanted)
}

/// The objects that a version names, as its commit says.
pub(crate) fn objects_of(changes: &Changes, version: &VersionRow) -> Vec<BlobId> {
    let is_it = |change: &&Change| change.version().is_some_and(|(record, ..)| record == version.record);
    changes.0.iter().find(is_it).map(Change::blobs).unwrap_or_default().to_vec()
}
