//! Joining chains that parted: what this device holds of the one that is given up is carried over as pending writes,
//! and the owner signs a repair that says which commits no longer count. Nothing is dropped: what can not or must
//! not be carried over stays on the shelf, for review.

use super::shown::{ServerChain, two_chains};
use super::{Healed, skipped};
use crate::account::Owner;
use crate::error::{ClientError, Result};
use crate::late::{commit_at, first_late, skipped as skipped_in};
use crate::replica::VaultReplica;
use crate::rng;
use crate::vault::Vault;
use lockstep_engine::repair::{self, Plan, head_at};
use lockstep_engine::replica::{Replica as _, WriteOp};
use lockstep_engine::skipped::is_fault;
use lockstep_proto::Digest;
use lockstep_proto::api::vault::{PushCommit, Pushed};
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::id::{DeviceId, Seq, VaultId};

/// Commits that one repair abandons at most; more take several.
const ABANDONED_A_REPAIR: usize = 2000;
/// Pulls, each followed by a look at the chain, until both show the same: others may write meanwhile.
const LOOKS_MAX: usize = 4;

/// Whether something on the shelf waits: versions to be carried over, or commits that no repair abandons yet.
pub(super) fn is_unfinished(replica: &VaultReplica) -> Result<bool> {
    Ok(replica.has_waiting()? || !replica.unnamed_commits()?.is_empty())
}

impl Owner<'_> {
    /// Joins the server's chain of a vault with the one that is held here.
    pub(super) async fn join(&mut self, id: VaultId, healed: &mut Healed) -> Result<()> {
        // Devices that joined since may be among the authors.
        self.account().refresh_devices().await?;
        let mut vault = self.account().heal_vault(id)?.healing();
        let shared = ServerChain::shared(&vault).await?;
        let shown = ServerChain::read(&vault, shared, shared).await?;
        let lost = counting_after(&vault, shared)?;
        if head_of(&vault)?.0 > shared {
            vault.replica.apply(&repair::give_up(&vault.replica, shared, true)?)?;
        }
        settle_others(&vault, &shown)?;
        self.carry_over(&mut vault, false, healed).await?;
        // The server's branch, as far as it is valid.
        let (good, shown) = self.look(&mut vault, shared, lost).await?;
        skipped::shelve(&vault, &shown, good, healed).await?;
        self.repair(&mut vault, &shown, good, healed).await?;
        vault.pull().await?;
        self.carry_over(&mut vault, true, healed).await?;
        if id == self.account().keyring.setup.vault() {
            return self.account().push_keyring().await;
        }
        match vault.sync().await {
            // A new key epoch comes first: with it the rest goes out in the usual way.
            Err(ClientError::KeysBehind(_)) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Pulls, and looks at the chain from the last commit that counts: it ends where the pull ended, or goes on with a
    /// commit that is not valid. Whatever else it shows is another chain, and nobody signs it away.
    async fn look(
        &mut self,
        vault: &mut Vault,
        shared: Seq,
        lost: Option<Digest>,
    ) -> Result<(Seq, ServerChain)> {
        for _ in 0..LOOKS_MAX {
            match vault.pull().await {
                Ok(_) | Err(ClientError::Fault(_)) => {}
                Err(error) => return Err(error),
            }
            let verified = head_of(vault)?.0;
            let late = self.first_late(vault, shared)?.and_then(Seq::previous);
            let good = late.filter(|good| *good < verified).unwrap_or(verified);
            let shown = ServerChain::read(vault, good, verified).await?;
            if lost.is_some() && shown.hash_at(&vault.replica, shared.next()).ok() == lost {
                // What was given up because it was not shown is shown again.
                return Err(two_chains(vault));
            }
            let Some(beyond) = &shown.beyond else { return Ok((good, shown)) };
            // The server showed the pull less: behind a repair that was signed already no other one is.
            if shown.returns.iter().any(|to| *to <= verified) {
                continue;
            }
            let binds = |seq, head| shown.commit(seq) == Some(head) || shown.abandoned.contains(&(seq, head));
            if is_fault(&vault.replica, &vault.setup, vault.device_log(), beyond, binds)? {
                return Ok((good, shown));
            }
        }
        Err(two_chains(vault))
    }

    /// Signs and posts the repairs that are needed: one that goes back over commits that do not count, and those
    /// that name what was given up here.
    async fn repair(
        &mut self,
        vault: &mut Vault,
        shown: &ServerChain,
        mut good: Seq,
        healed: &mut Healed,
    ) -> Result<()> {
        let mut abandoned = vault.replica.unnamed_commits()?;
        let mut end = shown.end(&vault.replica)?;
        while good < end.0 || !abandoned.is_empty() {
            let rest = abandoned.split_off(abandoned.len().min(ABANDONED_A_REPAIR));
            let target = end.0.next().skip_target();
            let plan = Plan {
                last: end,
                skip: if target == end.0 { end.1 } else { shown.hash_at(&vault.replica, target)? },
                good: head_at(&vault.replica, good)?,
                abandoned: std::mem::replace(&mut abandoned, rest),
                utc: rng::now_utc(),
            };
            let devices = std::sync::Arc::clone(vault.device_log());
            let built = repair::build(&vault.setup, &devices, &plan, |place, says| {
                self.unlocked().authorise_repair(place, says)
            });
            // Remembered before it is sent: met again in the chain, it is known as this device's own.
            vault.replica.apply(&[WriteOp::DropInFlight, WriteOp::SetInFlight(built.clone())])?;
            let push = PushCommit {
                commit: built.commit,
                changes: built.changes.into(),
                envelopes: Vec::new(),
                heals: false,
            };
            let path = format!("/v1/vaults/{}/commits", vault.setup.vault());
            let _pushed: Pushed = self.account().api.post(&path, &push).await?;
            healed.repairs += 1;
            vault.pull().await?;
            end = head_of(vault)?;
            good = end.0;
        }
        if vault.replica.unnamed_commits()?.is_empty() { Ok(()) } else { Err(two_chains(vault)) }
    }

    /// The first commit here that a revoked device wrote late: it was accepted while the revocation was forgotten.
    fn first_late(&mut self, vault: &Vault, shared: Seq) -> Result<Option<Seq>> {
        let account = self.account();
        let log = std::sync::Arc::clone(account.keyring.device_log());
        let held = first_late(vault, &log, &account.db, false)?.map(|(seq, _)| seq);
        // What was given up may reach further back than what both have now: an earlier run was cut off.
        let Some((first, _)) = vault.replica.unnamed_commits()?.first().copied() else { return Ok(held) };
        // On a branch that the revocation did not see, nothing of the device is at or before its pin.
        let skipped = skipped_in(&vault.replica)?;
        let (mut seq, end) = (shared.next().min(first), head_of(vault)?.0);
        while seq <= end {
            let device = commit_at(&vault.replica, seq)?.0.device;
            let is_off = is_off_its_bound(vault, &log, device, seq)?;
            if is_off && !skipped.iter().any(|(to, repair)| seq > *to && seq < *repair) {
                return Ok(held.into_iter().chain([seq]).min());
            }
            seq = seq.next();
        }
        Ok(held)
    }
}

/// The commit after the last one that both have, if it counts here: it is about to be given up.
fn counting_after(vault: &Vault, shared: Seq) -> Result<Option<Digest>> {
    let seq = shared.next();
    let is_skipped = skipped_in(&vault.replica)?.iter().any(|(to, repair)| seq > *to && seq < *repair);
    Ok(if is_skipped { None } else { vault.replica.commit_hash(seq)? })
}

/// Whether a commit here is by a revoked device and not on the way to what its revocation pinned.
fn is_off_its_bound(vault: &Vault, log: &DeviceLog, device: DeviceId, seq: Seq) -> Result<bool> {
    let Some(revoked) = log.device(device).and_then(|known| known.revoked.as_ref()) else { return Ok(false) };
    Ok(match revoked.pin(vault.setup.vault()).filter(|pin| seq <= pin.seq) {
        Some(pin) => vault.replica.commit_hash(pin.seq)? != Some(pin.head),
        None => true,
    })
}

/// What another device's repair abandoned or went back over, that device carried over.
fn settle_others(vault: &Vault, shown: &ServerChain) -> Result<()> {
    let replica = &vault.replica;
    let mut others = Vec::new();
    for (to, repair) in skipped_in(replica)? {
        if commit_at(replica, repair)?.0.device != vault.setup.device.id() {
            others.push((to, repair));
        }
    }
    let mut done = Vec::new();
    for row in replica.waiting()? {
        let Some(hash) = row.commit else { continue };
        let is_between = others.iter().any(|(to, repair)| row.seq > *to && row.seq < *repair);
        let is_skipped = is_between && replica.commit_hash(row.seq)? == Some(hash);
        // Of an earlier healing here that was cut off, the repair is this device's own: it goes on.
        if is_skipped || shown.abandoned.contains(&(row.seq, hash)) {
            done.push(row.id);
        }
    }
    replica.settle_shelved(&done)
}

fn head_of(vault: &Vault) -> Result<(Seq, Digest)> {
    let head = vault.replica.head()?;
    let head = head.ok_or_else(|| ClientError::Damaged("the vault was never synced here".into()))?;
    Ok((head.tip.seq, head.tip.hash))
}
