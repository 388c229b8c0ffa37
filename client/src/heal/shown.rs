//! The server's chain beyond what is held here, for joining chains that parted and for repairing what does not count.
//! Links and signatures are checked, so that only devices of the account can make it long.

use crate::error::{ClientError, Result};
use crate::replica::VaultReplica;
use crate::vault::Vault;
use lockstep_engine::repair::{abandoned_by, counting, goes_back_to};
use lockstep_engine::replica::Replica as _;
use lockstep_engine::skipped::is_signed;
use lockstep_proto::Digest;
use lockstep_proto::api::vault::{CommitEntry, Page};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::Commit;
use lockstep_proto::id::Seq;
use std::collections::BTreeSet;

/// Commits that one look at a chain takes at most.
const COMMITS_MAX: usize = 1 << 20;

/// The server's chain from a commit that is held here up to its end.
pub(super) struct ServerChain {
    from: Seq,
    /// Hashes of what comes after it, in order.
    commits: Vec<Digest>,
    /// Commits that repairs in it abandon.
    pub(super) abandoned: BTreeSet<(Seq, Digest)>,
    /// Where repairs among those that are not held here go back to.
    pub(super) returns: Vec<Seq>,
    /// The first one that is not held here.
    pub(super) beyond: Option<CommitEntry>,
}

impl ServerChain {
    /// The last commit that the server's chain and the one held here have in common and that counts here.
    pub(super) async fn shared(vault: &Vault) -> Result<Seq> {
        let replica = &vault.replica;
        let mut after = replica.head()?.map(|head| head.tip.seq);
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
        let mut shared = after;
        loop {
            for entry in &page.commits {
                let commit = decode(entry)?;
                let hash = Commit::hash_of(&entry.commit.bytes.0);
                let follows = commit.seq == shared.map_or(Seq::new(0), Seq::next);
                if !follows || replica.commit_hash(commit.seq)? != Some(hash) {
                    return counted(vault, shared);
                }
                shared = Some(commit.seq);
            }
            if !page.more || page.commits.is_empty() {
                return counted(vault, shared);
            }
            page = self::page(vault, shared).await?;
        }
    }

    /// What comes after a commit that is held; up to `held`, it has to be what is held.
    ///
    /// # Errors
    /// [`ClientError::Server`] if it is not, or if something is there that no device of the account signed.
    pub(super) async fn read(vault: &Vault, from: Seq, held: Seq) -> Result<Self> {
        let replica = &vault.replica;
        let missing = || ClientError::Damaged("a commit is missing here".into());
        let mut last = (from, replica.commit_hash(from)?.ok_or_else(missing)?);
        let mut chain =
            Self { from, commits: Vec::new(), abandoned: BTreeSet::new(), returns: Vec::new(), beyond: None };
        loop {
            let page = page(vault, Some(last.0)).await?;
            for entry in &page.commits {
                let commit = decode(entry)?;
                last = follow(vault, last, &commit, entry)?;
                if last.0 <= held && replica.commit_hash(last.0)? != Some(last.1) {
                    return Err(two_chains(vault));
                }
                if last.0 == held.next() {
                    chain.beyond = Some(entry.clone());
                }
                if last.0 > held {
                    chain.returns.extend(goes_back_to(&vault.setup, vault.device_log(), entry));
                }
                chain.abandoned.extend(abandoned_by(&vault.setup, vault.device_log(), entry));
                chain.commits.push(last.1);
            }
            if chain.commits.len() > COMMITS_MAX {
                return Err(ClientError::Server(format!(
                    "its chain has more than {COMMITS_MAX} commits here"
                )));
            }
            if !page.more || page.commits.is_empty() {
                break;
            }
        }
        if last.0 < held { Err(two_chains(vault)) } else { Ok(chain) }
    }

    /// Its last commit.
    pub(super) fn end(&self, replica: &VaultReplica) -> Result<(Seq, Digest)> {
        let count = u64::try_from(self.commits.len()).unwrap_or(u64::MAX);
        let seq = Seq::new(self.from.value().saturating_add(count));
        Ok((seq, self.hash_at(replica, seq)?))
    }

    /// Hash of a commit of what comes after.
    pub(super) fn commit(&self, seq: Seq) -> Option<Digest> {
        let place = seq.value().checked_sub(self.from.next().value())?;
        self.commits.get(usize::try_from(place).ok()?).copied()
    }

    /// Hash of a commit of it.
    pub(super) fn hash_at(&self, replica: &VaultReplica, seq: Seq) -> Result<Digest> {
        let hash = match self.commit(seq) {
            Some(hash) => Some(hash),
            None => replica.commit_hash(seq)?,
        };
        hash.ok_or_else(|| ClientError::Server(format!("commit {seq} is not shown")))
    }
}

/// The place of a commit that follows another, if a device of the account signed it.
fn follow(vault: &Vault, last: (Seq, Digest), commit: &Commit, entry: &CommitEntry) -> Result<(Seq, Digest)> {
    if (commit.vault, commit.seq, commit.previous) != (vault.setup.vault(), last.0.next(), last.1) {
        return Err(ClientError::Server("its commits do not follow each other".into()));
    }
    if !is_signed(vault.device_log(), commit, &entry.commit) {
        return Err(ClientError::Server(format!(
            "commit {} of vault {} is not signed by the device that it names; the server made it up, and nothing was \
             changed",
            commit.seq, commit.vault
        )));
    }
    Ok((commit.seq, Commit::hash_of(&entry.commit.bytes.0)))
}

/// The last commit that both have may be one that does not count here: then everything after the last one that does
/// is looked at.
fn counted(vault: &Vault, shared: Option<Seq>) -> Result<Seq> {
    let other = || ClientError::Fork(format!("vault {} has another first commit there", vault.setup.vault()));
    Ok(counting(&vault.replica, shared.ok_or_else(other)?)?)
}

/// The server shows one chain to a pull and another one to a look at it.
pub(super) fn two_chains(vault: &Vault) -> ClientError {
    ClientError::Server(format!(
        "it shows another chain of vault {} whenever it is looked at; nothing was signed",
        vault.setup.vault()
    ))
}

pub(super) fn decode(entry: &CommitEntry) -> Result<Commit> {
    Commit::decode(&entry.commit.bytes.0).map_err(|error| ClientError::Server(error.to_string()))
}

pub(super) async fn page(vault: &Vault, after: Option<Seq>) -> Result<Page> {
    let query = after.map_or_else(String::new, |after| format!("?after={after}"));
    vault.api().get(&format!("/v1/vaults/{}/commits{query}", vault.setup.vault())).await
}

/// Whether the server's last commit is the one that is held here at its place.
async fn at_end(vault: &Vault, seq: Seq) -> Result<bool> {
    let before = page(vault, seq.previous()).await?;
    let Some(last) = before.commits.first() else { return Ok(false) };
    Ok(vault.replica.commit_hash(seq)? == Some(Commit::hash_of(&last.commit.bytes.0)))
}
