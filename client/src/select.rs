//! Holding less than everything of a vault (docs/adr/0015-selective-sync.md): what a device is to hold, letting go of the
//! rest, and fetching it again. Everything is verified all the same.

use crate::account::Account;
use crate::error::Result;
use crate::rng;
use crate::vault::Vault;
use lockstep_engine::Input;
use lockstep_engine::engine::Setup;
use lockstep_engine::replica::{Replica as _, WriteOp};
use lockstep_engine::select;
use lockstep_proto::envelope::KIND_DOCUMENT;
use lockstep_proto::id::{RecordId, VaultId};
use std::sync::Arc;

pub use lockstep_engine::select::Selection;

/// Records that are looked at together.
const RECORDS_AT_ONCE: usize = 1000;

impl Vault {
    /// Says what this device is to hold of the vault from now on; none: everything. What it is to hold no longer is let
    /// go of, and what it lacks is fetched, with the next sync.
    ///
    /// # Errors
    /// [`crate::ClientError::Database`].
    pub fn keep(&mut self, selection: Option<&Selection>) -> Result<()> {
        self.replica.set_selection(selection)
    }

    /// Lets go of the envelopes that the selection does not hold; gives how many. Every sync does it, once the server
    /// has everything. The envelope of a record that waits to be sent or decided stays.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn evict(&mut self) -> Result<u64> {
        let Some(selection) = self.replica.selection()? else { return Ok(0) };
        // A server that is being healed may need what is here.
        if self.setup.heals || !self.replica.db().writes() {
            return Ok(0);
        }
        // What the policies of the last round leave to somebody waits, too.
        let setup = Setup { policies: Arc::new(self.policies_now()?), ..self.setup.clone() };
        let now = rng::now_utc();
        let since = selection.since(now);
        let (mut count, mut after) = (0_u64, (-1, 0));
        loop {
            let (rows, last) = self.replica.due(since, after, RECORDS_AT_ONCE)?;
            let Some(last) = last else { return Ok(count) };
            after = last;
            let ops = select::evict(&self.replica, &setup, &selection, now, &rows)?;
            let evicted = ops.iter().filter(|op| matches!(op, WriteOp::Evict(_))).count();
            count = count.saturating_add(u64::try_from(evicted).unwrap_or(0));
            self.replica.apply(&ops)?;
        }
    }

    /// Fetches records that are not held; gives how many. Each is taken as the commit that wrote it announced it. It is
    /// held until it would be too old if it had been written now, a new version of it comes, or [`Self::keep`] says anew
    /// what is held.
    ///
    /// # Errors
    /// [`crate::ClientError::Incomplete`] if the server does not give one out,
    /// [`crate::ClientError::RecordRollback`] if it gives out an older version; then they are not held, as before.
    pub async fn fetch(&mut self, records: &[RecordId]) -> Result<u64> {
        let wanted = select::recall(&self.replica, records)?;
        // One that was wanted before and did not come is given up, too, if it does not come now.
        let is_missing = |record: &RecordId| -> Result<bool> {
            Ok(self.replica.record(*record)?.is_some_and(|row| !row.present))
        };
        let mut is_any_missing = false;
        for record in records {
            is_any_missing |= is_missing(record)?;
        }
        if wanted.is_empty() && !is_any_missing {
            return Ok(0);
        }
        self.replica.apply(&wanted)?;
        let done = self.drive(Input::Pull).await;
        if done.is_err() {
            self.replica.apply(&select::give_up(&self.replica, records)?)?;
        }
        done?;
        let held = Some(rng::now_utc());
        let mut ops = Vec::new();
        for op in &wanted {
            if let WriteOp::Recall(record) = op
                && self.replica.record(*record)?.is_some_and(|row| row.present)
            {
                ops.push(WriteOp::Hold(*record, held));
            }
        }
        self.replica.apply(&ops)?;
        Ok(u64::try_from(ops.len()).unwrap_or(0))
    }

    /// Records (of a type) that are known and not held here, but for deletions.
    ///
    /// # Errors
    /// [`crate::ClientError::Database`].
    pub fn not_held(&self, record_type: Option<&str>) -> Result<Vec<RecordId>> {
        let rows = self.replica.not_held(record_type)?.into_iter();
        Ok(rows.filter(|row| row.kind == KIND_DOCUMENT).map(|row| row.record).collect())
    }
}

impl Account {
    /// What this device holds of a vault; none: everything.
    ///
    /// # Errors
    /// [`crate::ClientError::Database`].
    pub fn selection_of(&self, vault: VaultId) -> Result<Option<Selection>> {
        self.db.vault(vault, None)?.map_or(Ok(None), |replica| replica.selection())
    }
}
