//! Giving commits back to a server that lacks them.

use super::envelopes::newest_of;
use crate::account::Account;
use crate::error::{ClientError, Result};
use lockstep_engine::replica::Replica as _;
use lockstep_proto::Signed;
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::vault::{CreateVault, PushCommit, Pushed, StageEnvelopes, StagedEnvelopes};
use lockstep_proto::cbor::Bytes;
use lockstep_proto::id::{RecordId, Seq, VaultId};
use std::collections::BTreeSet;

/// Envelopes beyond this are staged before their commit is sent.
pub(super) const INLINE_BYTES_MAX: usize = 4 * 1024 * 1024;

impl Account {
    /// Posts a vault's birth to a server that lost the whole vault.
    pub(super) async fn give_birth_back(&mut self, id: VaultId) -> Result<()> {
        let vault = self.heal_vault(id)?;
        let missing = || ClientError::Damaged(format!("the birth of vault {id} is missing here"));
        let (genesis, _) = vault.replica.commit(Seq::new(0))?.ok_or_else(missing)?;
        let body = CreateVault { create: vault.setup.create.clone(), genesis };
        self.api.post_nothing("/v1/vaults", Some(&body)).await
    }

    /// Posts the commits after one that the server has, with the envelopes that are held here. Whoever else holds
    /// more can post the same again.
    pub(super) async fn give_back(
        &mut self,
        id: VaultId,
        after: Seq,
        not_held: &mut BTreeSet<(Seq, RecordId)>,
    ) -> Result<u64> {
        let Some(replica) = self.db.vault(id, None)? else { return Ok(0) };
        let Some(head) = replica.head()? else { return Ok(0) };
        let mut given = 0_u64;
        let mut seq = after.next();
        while seq <= head.tip.seq {
            let missing = || ClientError::Damaged(format!("commit {seq} of vault {id} is missing here"));
            let (commit, changes) = replica.commit(seq)?.ok_or_else(missing)?;
            let (mut envelopes, others) = newest_of(&replica, seq, &changes)?;
            not_held.extend(others);
            let bytes: usize = envelopes.iter().map(|envelope| envelope.0.len()).sum();
            if bytes > INLINE_BYTES_MAX {
                self.stage(id, std::mem::take(&mut envelopes)).await?;
            }
            self.post_commit(id, commit, changes, envelopes).await?;
            given += 1;
            seq = seq.next();
        }
        Ok(given)
    }

    /// Posts a commit that the server lacks, or envelopes of one that it has.
    pub(super) async fn post_commit(
        &self,
        id: VaultId,
        commit: Signed,
        changes: Vec<u8>,
        envelopes: Vec<Bytes>,
    ) -> Result<()> {
        let push = PushCommit { commit, changes: changes.into(), envelopes, heals: true };
        let pushed: Result<Pushed> = self.api.post(&format!("/v1/vaults/{id}/commits"), &push).await;
        match pushed {
            Ok(_) => Ok(()),
            Err(ClientError::HeadMoved(_)) => Err(ClientError::Refused {
                code: Some(Code::HeadMoved),
                detail: "somebody wrote to the server meanwhile; run: lockstep heal, again".into(),
                names: Vec::new(),
            }),
            Err(error) => Err(error),
        }
    }

    async fn stage(&self, id: VaultId, envelopes: Vec<Bytes>) -> Result<()> {
        for some in batches(envelopes, INLINE_BYTES_MAX) {
            self.stage_some(id, some).await?;
        }
        Ok(())
    }

    async fn stage_some(&self, id: VaultId, envelopes: Vec<Bytes>) -> Result<()> {
        let _staged: StagedEnvelopes =
            self.api.post(&format!("/v1/vaults/{id}/envelopes"), &StageEnvelopes(envelopes)).await?;
        Ok(())
    }
}

/// Envelopes in their order, so many together as fit into so many bytes, at least one.
pub(super) fn batches(envelopes: Vec<Bytes>, bytes_max: usize) -> Vec<Vec<Bytes>> {
    let mut all: Vec<Vec<Bytes>> = Vec::new();
    let mut size_bytes = 0_usize;
    for envelope in envelopes {
        size_bytes = size_bytes.saturating_add(envelope.0.len());
        if let Some(last) = all.last_mut().filter(|_| size_bytes <= bytes_max) {
            last.push(envelope);
        } else {
            size_bytes = envelope.0.len();
            all.push(vec![envelope]);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_goes_together_and_everything_goes_in_its_order() {
        let sizes = |sizes: &[usize]| -> Vec<Vec<usize>> {
            let envelopes = sizes.iter().map(|size| vec![0; *size].into()).collect();
            batches(envelopes, 10)
                .iter()
                .map(|some| some.iter().map(|bytes| bytes.0.len()).collect())
                .collect()
        };
        assert_eq!(sizes(&[]), Vec::<Vec<usize>>::new());
        assert_eq!(sizes(&[4, 6, 1, 9, 1]), [vec![4, 6], vec![1, 9], vec![1]]);
        assert_eq!(sizes(&[30, 2, 11, 9, 2]), [vec![30], vec![2], vec![11], vec![9], vec![2]]);
    }
}
