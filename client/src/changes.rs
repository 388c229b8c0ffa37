//! What the commits of a verified chain changed, for whoever follows a vault.

use crate::error::Result;
use crate::heal::changes_of;
use crate::late::{commit_at, skipped};
use crate::vault::Vault;
use lockstep_client_crypto::content::Content;
use lockstep_engine::read;
use lockstep_engine::repair::counting;
use lockstep_engine::replica::Replica as _;
use lockstep_proto::Digest;
use lockstep_proto::commit::Change;
use lockstep_proto::envelope::{KIND_DOCUMENT, KIND_TOMBSTONE};
use lockstep_proto::id::{DeviceId, RecordId, Revision, Seq};

/// One version of one record, as its commit announced it.
#[derive(Debug, Clone)]
pub struct Changed {
    /// The commit.
    pub seq: Seq,
    /// Who signed it.
    pub device: DeviceId,
    /// The record.
    pub record: RecordId,
    /// Its revision.
    pub revision: Revision,
    /// Whether it was deleted.
    pub deleted: bool,
    /// What the record says now, as far as it opens: a later commit may have changed it again.
    pub content: Option<Content>,
}

impl Vault {
    /// The last commit that is verified here; none before the vault was synced.
    ///
    /// # Errors
    /// [`crate::ClientError::Database`].
    pub fn verified(&self) -> Result<Option<(Seq, Digest)>> {
        Ok(self.replica.head()?.map(|head| (head.tip.seq, head.tip.hash)))
    }

    /// Whether a commit that was the last one here still counts: no repair gave it up, or went back over it.
    ///
    /// # Errors
    /// [`crate::ClientError::Damaged`], [`crate::ClientError::Database`].
    pub fn still_counts(&self, place: (Seq, Digest)) -> Result<bool> {
        let (seq, hash) = place;
        Ok(self.replica.commit_hash(seq)? == Some(hash) && counting(&self.replica, seq)? == seq)
    }

    /// What the commits after one changed, in their order, up to so many changes; and the last commit that they are of.
    /// Commits that a repair went back over changed nothing.
    ///
    /// # Errors
    /// [`crate::ClientError::Damaged`], [`crate::ClientError::Database`].
    pub fn changed_since(&self, after: Seq, limit: usize) -> Result<(Vec<Changed>, Seq)> {
        let mut found = Vec::new();
        let mut last = after;
        let Some((end, _)) = self.verified()? else { return Ok((found, last)) };
        let skipped = skipped(&self.replica)?;
        while last < end && found.len() < limit {
            last = last.next();
            if skipped.iter().any(|(to, repair)| last > *to && last < *repair) {
                continue;
            }
            let (commit, changes) = commit_at(&self.replica, last)?;
            for change in &changes_of(&changes)?.0 {
                let Some((record, revision, _)) = change.version() else { continue };
                let kind = if matches!(change, Change::Put { .. }) { KIND_DOCUMENT } else { KIND_TOMBSTONE };
                let row = self.replica.record(record)?;
                let content = match row.filter(|row| row.present) {
                    Some(row) => read::open(&self.replica, &self.setup.keys, &row)?,
                    None => None,
                };
                let deleted = kind == KIND_TOMBSTONE;
                found.push(Changed { seq: last, device: commit.device, record, revision, deleted, content });
            }
        }
        Ok((found, last))
    }
}
