//! Giving commits back to a server that lacks them, and looking at a chain that went another way.

use super::changes_of;
use crate::account::Account;
use crate::error::{ClientError, Result};
use crate::replica::VaultReplica;
use crate::vault::Vault;
use lockstep_engine::repair::abandoned_by;
use lockstep_engine::replica::Replica as _;
use lockstep_proto::Digest;
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::vault::{
    CommitEntry, CreateVault, Page, PushCommit, Pushed, StageEnvelopes, StagedEnvelopes,
};
use lockstep_proto::cbor::{Bytes, Wire as _};
use lockstep_proto::commit::Commit;
use lockstep_proto::id::{DeviceId, RecordId, Seq, VaultId};
use std::collections::{BTreeMap, BTreeSet};

/// Envelopes beyond this are staged before their commit is sent.
const INLINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Pages that one look at a chain reads at most.
const PAGES_MAX: usize = 65_536;

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
    pub(super) async fn give_back(&mut self, id: VaultId, after: Seq) -> Result<u64> {
        let Some(replica) = self.db.vault(id, None)? else { return Ok(0) };
        let Some(head) = replica.head()? else { return Ok(0) };
        let mut given = 0_u64;
        let mut seq = after.next();
        while seq <= head.tip.seq {
            self.give_commit_back(&replica, seq).await?;
            given += 1;
            seq = seq.next();
        }
        Ok(given)
    }

    async fn give_commit_back(&self, replica: &VaultReplica, seq: Seq) -> Result<()> {
        let id = replica.vault();
        let missing = || ClientError::Damaged(format!("commit {seq} of vault {id} is missing here"));
        let (commit, changes) = replica.commit(seq)?.ok_or_else(missing)?;
        let mut envelopes: Vec<Bytes> = Vec::new();
        for change in &changes_of(&changes)?.0 {
            let Some((record, _, digest)) = change.version() else { continue };
            let held = replica
                .record(record)?
                .is_some_and(|row| row.seq == seq && row.digest == digest && row.present);
            if held && let Some(envelope) = replica.envelope(record)? {
                envelopes.push(envelope.into());
            }
        }
        let bytes: usize = envelopes.iter().map(|envelope| envelope.0.len()).sum();
        if bytes > INLINE_BYTES_MAX {
            self.stage(id, std::mem::take(&mut envelopes)).await?;
        }
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
        let mut waiting: Vec<Bytes> = Vec::new();
        let mut bytes = 0_usize;
        for envelope in envelopes {
            if bytes.saturating_add(envelope.0.len()) > INLINE_BYTES_MAX {
                self.stage_some(id, std::mem::take(&mut waiting)).await?;
                bytes = 0;
            }
            bytes = bytes.saturating_add(envelope.0.len());
            waiting.push(envelope);
        }
        self.stage_some(id, waiting).await
    }

    async fn stage_some(&self, id: VaultId, envelopes: Vec<Bytes>) -> Result<()> {
        let _staged: StagedEnvelopes =
            self.api.post(&format!("/v1/vaults/{id}/envelopes"), &StageEnvelopes(envelopes)).await?;
        Ok(())
    }
}

/// A commit of the server's chain.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) seq: Seq,
    pub(super) hash: Digest,
    pub(super) device: DeviceId,
}

/// The server's chain from the last commit that is held here, too, up to its end. Only its links were checked.
pub(super) struct ServerChain {
    /// The last commit that both have and that counts.
    pub(super) shared: Seq,
    /// What comes after it.
    pub(super) commits: Vec<Shown>,
    /// Records that it writes.
    pub(super) records: BTreeSet<RecordId>,
    /// Versions that each commit puts, for fetching them.
    pub(super) versions: BTreeMap<Seq, Vec<RecordId>>,
    /// Commits that repairs in it abandon.
    pub(super) abandoned: BTreeSet<(Seq, Digest)>,
}

impl ServerChain {
    /// Reads it; with `from`, what comes after that commit, whether it is held here or not.
    pub(super) async fn read(vault: &Vault, from: Option<Seq>) -> Result<Self> {
        let replica = &vault.replica;
        let broken = || ClientError::Server("its commits do not follow each other".into());
        let mut after = from.or(replica.head()?.map(|head| head.tip.seq));
        let mut stride = 1_u64;
        // Back to a commit that both have, in growing steps; the genesis is one.
        let mut page = loop {
            let page = page(vault, after).await?;
            let known = match (after, page.commits.first()) {
                (Some(seq), Some(first)) => {
                    let commit = decode(first)?;
                    commit.seq == seq.next() && replica.commit_hash(seq)? == Some(commit.previous)
                }
                // Nothing comes after: it is shared only if the server ends right here.
                (Some(seq), None) => page.head_seq == seq && at_end(vault, seq).await?,
                (None, _) => true,
            };
            if known {
                break page;
            }
            let from = after.map_or(0, Seq::value).min(page.head_seq.value());
            after = from.checked_sub(stride).map(Seq::new);
            stride = stride.saturating_mul(4);
        };
        let mut chain = Self {
            shared: after.unwrap_or(Seq::new(0)),
            commits: Vec::new(),
            records: BTreeSet::new(),
            versions: BTreeMap::new(),
            abandoned: BTreeSet::new(),
        };
        let mut last = after.map(|seq| replica.commit_hash(seq).map(|hash| (seq, hash))).transpose()?;
        for _ in 0..PAGES_MAX {
            for entry in &page.commits {
                let commit = decode(entry)?;
                let hash = Commit::hash_of(&entry.commit.bytes.0);
                let follows = last.is_none_or(|(seq, previous)| {
                    commit.seq == seq.next() && previous == Some(commit.previous)
                });
                if !follows {
                    return Err(broken());
                }
                last = Some((commit.seq, Some(hash)));
                chain.take(vault, entry, &commit, hash, from.is_some())?;
            }
            if !page.more || page.commits.is_empty() {
                return chain.counting(vault, from).await;
            }
            page = self::page(vault, last.map(|(seq, _)| seq)).await?;
        }
        Err(ClientError::Server("its chain does not end".into()))
    }

    /// The last commit that both have may be one that does not count here: then everything after the last one that
    /// does is looked at.
    async fn counting(self, vault: &Vault, from: Option<Seq>) -> Result<Self> {
        let counts = lockstep_engine::repair::counting(&vault.replica, self.shared)?;
        if from.is_some() || counts == self.shared {
            return Ok(self);
        }
        Box::pin(Self::read(vault, Some(counts))).await
    }

    fn take(
        &mut self,
        vault: &Vault,
        entry: &CommitEntry,
        commit: &Commit,
        hash: Digest,
        all: bool,
    ) -> Result<()> {
        let devices = vault.device_log();
        self.abandoned.extend(abandoned_by(&vault.setup, devices, entry));
        if !all && self.commits.is_empty() && vault.replica.commit_hash(commit.seq)? == Some(hash) {
            self.shared = commit.seq;
            return Ok(());
        }
        let changes = entry.changes.as_ref().map_or(&[][..], |changes| &changes.0);
        // A list that can not be read belongs to a commit that does not count.
        if let Ok(changes) = changes_of(changes) {
            let records: Vec<RecordId> =
                changes.0.iter().filter_map(|change| change.version().map(|(record, ..)| record)).collect();
            self.records.extend(records.iter().copied());
            self.versions.insert(commit.seq, records);
        }
        self.commits.push(Shown { seq: commit.seq, hash, device: commit.device });
        Ok(())
    }

    /// Its last commit.
    pub(super) fn end(&self, replica: &VaultReplica) -> Result<(Seq, Digest)> {
        if let Some(last) = self.commits.last() {
            return Ok((last.seq, last.hash));
        }
        let missing = || ClientError::Damaged("a commit is missing here".into());
        Ok((self.shared, replica.commit_hash(self.shared)?.ok_or_else(missing)?))
    }

    /// Hash of a commit of it.
    pub(super) fn hash_at(&self, replica: &VaultReplica, seq: Seq) -> Result<Digest> {
        let shown = self.commits.iter().find(|commit| commit.seq == seq).map(|commit| commit.hash);
        let hash = match shown {
            Some(hash) => Some(hash),
            None => replica.commit_hash(seq)?,
        };
        hash.ok_or_else(|| ClientError::Server(format!("commit {seq} is not shown")))
    }
}

fn decode(entry: &CommitEntry) -> Result<Commit> {
    Commit::decode(&entry.commit.bytes.0).map_err(|error| ClientError::Server(error.to_string()))
}

async fn page(vault: &Vault, after: Option<Seq>) -> Result<Page> {
    let query = after.map_or_else(String::new, |after| format!("?after={after}"));
    vault.api().get(&format!("/v1/vaults/{}/commits{query}", vault.setup.vault())).await
}

/// Whether the server's last commit is the one that is held here at its place.
async fn at_end(vault: &Vault, seq: Seq) -> Result<bool> {
    let before = page(vault, seq.previous()).await?;
    let Some(last) = before.commits.first() else { return Ok(false) };
    Ok(vault.replica.commit_hash(seq)? == Some(Commit::hash_of(&last.commit.bytes.0)))
}
