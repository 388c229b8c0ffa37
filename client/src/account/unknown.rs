//! Vaults of which this device has no key, looked at without one. What a revocation pins binds for ever: a head that
//! a server made up must not get there.

use super::Account;
use crate::error::{ClientError, Result};
use lockstep_proto::api::vault::{CommitEntry, Page, VaultInfo, VaultLog};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::chain::{self, Authors as _};
use lockstep_proto::commit::Commit;
use lockstep_proto::id::{Seq, VaultId};
use lockstep_proto::label;

impl Account {
    /// Checks that devices of the account signed the head that the server lists for a vault, and every commit on the
    /// way of skip links from there to its birth: one for each binary digit of the head's place.
    ///
    /// # Errors
    /// [`ClientError::Server`] if they did not.
    pub(crate) async fn check_listed(&self, info: &VaultInfo) -> Result<()> {
        let id = info.vault;
        let log = &**self.keyring.device_log();
        let made_up = || {
            ClientError::Server(format!(
                "it lists commit {} as the head of vault {id}, and no device of the account signed that",
                info.seq
            ))
        };
        let entries: VaultLog = self.api.get(&format!("/v1/vaults/{id}/log")).await?;
        let create = entries.0.first().ok_or_else(made_up)?;
        let birth = self.first_after(id, None).await?.ok_or_else(made_up)?;
        chain::verify_birth(id, self.id(), log.identity(), log, create, &birth.commit)
            .map_err(|_| made_up())?;
        let (mut seq, mut hash) = (info.seq, info.head);
        while let Some(previous) = seq.previous() {
            let entry = self.first_after(id, Some(previous)).await?.ok_or_else(made_up)?;
            let commit = Commit::decode(&entry.commit.bytes.0).map_err(|_| made_up())?;
            let key = log.author_key(commit.device, commit.device_log_index).ok_or_else(made_up)?;
            let is_signed = entry.commit.verify(Commit::NAME, label::COMMIT, &key).is_ok();
            let is_it = (commit.vault, commit.seq, Commit::hash_of(&entry.commit.bytes.0)) == (id, seq, hash);
            if !is_signed || !is_it {
                return Err(made_up());
            }
            (seq, hash) = (seq.skip_target(), commit.skip);
        }
        if hash == Commit::hash_of(&birth.commit.bytes.0) { Ok(()) } else { Err(made_up()) }
    }

    async fn first_after(&self, id: VaultId, after: Option<Seq>) -> Result<Option<CommitEntry>> {
        let query = after.map_or_else(String::new, |after| format!("?after={after}"));
        let page: Page = self.api.get(&format!("/v1/vaults/{id}/commits{query}")).await?;
        Ok(page.commits.into_iter().next())
    }
}
