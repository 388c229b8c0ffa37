//! What the commits of a verified chain changed, for whoever follows a vault.

use crate::error::Result;
use crate::heal::changes_of;
use crate::late::commit_at;
use crate::vault::Vault;
use lockstep_client_crypto::content::Content;
use lockstep_engine::read;
use lockstep_engine::repair::counting;
use lockstep_engine::replica::Replica as _;
use lockstep_proto::Digest;
use lockstep_proto::commit::{Change, KIND_REPAIR};
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

    /// The commits after one, ascending, but for those that a repair among them went back over. The one before them has
    /// to count still ([`Self::still_counts`]), so that what lies before it need not be looked at.
    ///
    /// # Errors
    /// [`crate::ClientError::Damaged`], [`crate::ClientError::Database`].
    pub fn counting_since(&self, after: Seq) -> Result<Vec<Seq>> {
        let mut found = Vec::new();
        let mut at = self.verified()?.map(|(seq, _)| seq);
        // From the end: a later repair may go back over an earlier one.
        while let Some(seq) = at.filter(|seq| *seq > after) {
            let (commit, changes) = commit_at(&self.replica, seq)?;
            found.push(seq);
            let to = if commit.kind == KIND_REPAIR { changes_of(&changes)?.goes_back_to() } else { None };
            at = to.filter(|to| *to < seq).or_else(|| seq.previous());
        }
        found.reverse();
        Ok(found)
    }

    /// What a commit changed, in the order of its change list.
    ///
    /// # Errors
    /// [`crate::ClientError::Damaged`], [`crate::ClientError::Database`].
    pub fn changed_in(&self, seq: Seq) -> Result<Vec<Changed>> {
        let (commit, changes) = commit_at(&self.replica, seq)?;
        let device = commit.device;
        let mut found = Vec::new();
        for change in &changes_of(&changes)?.0 {
            let Some((record, revision, _)) = change.version() else { continue };
            let content = match self.replica.record(record)?.filter(|row| row.present) {
                Some(row) => read::open(&self.replica, &self.setup.keys, &row)?,
                None => None,
            };
            let deleted = !matches!(change, Change::Put { .. });
            found.push(Changed { seq, device, record, revision, deleted, content });
        }
        Ok(found)
    }
}
