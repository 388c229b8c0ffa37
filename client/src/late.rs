//! Commits of a chain that do not count: what repairs went back over, and what a revoked device wrote late.

use crate::error::{ClientError, Result};
use crate::replica::{Db, VaultReplica};
use crate::vault::Vault;
use lockstep_engine::replica::Replica as _;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::{Changes, Commit, KIND_REPAIR};
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::id::{DeviceId, Seq, VaultId};
use std::collections::BTreeMap;

/// Stretches of a stored chain that repairs went back over: the last commit that counts, and the repair. Ascending,
/// apart from each other.
pub(crate) fn skipped(replica: &VaultReplica) -> Result<Vec<(Seq, Seq)>> {
    let Some(head) = replica.head()? else { return Ok(Vec::new()) };
    let mut found: Vec<(Seq, Seq)> = Vec::new();
    let mut seq = Seq::new(0);
    while seq <= head.tip.seq {
        let (commit, changes) = commit_at(replica, seq)?;
        if commit.kind == KIND_REPAIR
            && let Ok(changes) = Changes::decode(&changes)
            && let Some(to) = changes.goes_back_to()
        {
            // A later repair may go back over an earlier one.
            found.retain(|(_, repair)| *repair <= to);
            found.push((to, seq));
        }
        seq = seq.next();
    }
    Ok(found)
}

pub(crate) fn commit_at(replica: &VaultReplica, seq: Seq) -> Result<(Commit, Vec<u8>)> {
    let damaged =
        || ClientError::Damaged(format!("commit {seq} of vault {} is missing here", replica.vault()));
    let (signed, changes) = replica.commit(seq)?.ok_or_else(damaged)?;
    Ok((Commit::decode(&signed.bytes.0).map_err(|_| damaged())?, changes))
}

/// The first commit here that a revoked device wrote beyond its pin and that no repair went back over. Each
/// revocation is looked at once: what comes later is verified as it comes.
pub(crate) fn first_late(
    vault: &Vault,
    log: &DeviceLog,
    db: &Db,
    writes: bool,
) -> Result<Option<(Seq, DeviceId)>> {
    let id = vault.setup.vault();
    let Some(head) = vault.replica.head()? else { return Ok(None) };
    let mut bounds: BTreeMap<DeviceId, Seq> = BTreeMap::new();
    for device in log.devices() {
        let Some(revoked) = &device.revoked else { continue };
        if db.meta(&looked_at(id, device.id))?.is_none() {
            bounds.insert(device.id, revoked.last(id).map_or(Seq::new(0), Seq::next));
        }
    }
    let Some(mut seq) = bounds.values().min().copied() else { return Ok(None) };
    let skipped = skipped(&vault.replica)?;
    // The stretches ascend like the commits.
    let mut stretches = skipped.iter().peekable();
    while seq <= head.tip.seq {
        while stretches.next_if(|(_, repair)| *repair <= seq).is_some() {}
        let counts = stretches.peek().is_none_or(|(to, _)| seq <= *to);
        if counts {
            let device = commit_at(&vault.replica, seq)?.0.device;
            if bounds.get(&device).is_some_and(|bound| seq >= *bound) {
                return Ok(Some((seq, device)));
            }
        }
        seq = seq.next();
    }
    for device in bounds.into_keys().filter(|_| writes) {
        db.set_meta(&looked_at(id, device), b"1")?;
    }
    Ok(None)
}

fn looked_at(vault: VaultId, device: DeviceId) -> String {
    format!("late {vault} {device}")
}
