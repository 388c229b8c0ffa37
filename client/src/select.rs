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
use lockstep_proto::id::{RecordId, Seq, VaultId};
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
        if self.setup.heals || !self.replica.db().lets_go() {
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
    /// [`crate::ClientError::RecordRollback`] if it gives out an older version; then those that did not come are not held,
    /// as before, and nothing waits for them.
    pub async fn fetch(&mut self, records: &[RecordId]) -> Result<u64> {
        let mut missing = Vec::new();
        for record in records {
            if self.replica.record(*record)?.is_some_and(|row| !row.present) {
                missing.push(*record);
            }
        }
        if missing.is_empty() {
            return Ok(0);
        }
        let done = self.drive(Input::Fetch(missing.clone())).await;
        let held = Some(rng::now_utc());
        let mut ops = Vec::new();
        for record in &missing {
            if self.replica.record(*record)?.is_some_and(|row| row.present) {
                ops.push(WriteOp::Hold(*record, held));
            }
        }
        let count = u64::try_from(ops.len()).unwrap_or(0);
        if done.is_err() {
            ops.extend(select::give_up(&self.replica, records)?);
        }
        self.replica.apply(&ops)?;
        done?;
        Ok(count)
    }

    /// Records whose newest version should be here and is not: the server did not give it out, or not as it was signed,
    /// when it was asked last. Every sync asks for them again; what is sent waits only for those that never were here.
    ///
    /// # Errors
    /// [`crate::ClientError::Database`].
    pub fn missing(&self) -> Result<Vec<(Seq, RecordId)>> {
        let mut rows = self.replica.absent(usize::MAX)?;
        rows.extend(self.replica.wanted(None, usize::MAX)?);
        Ok(rows.into_iter().map(|row| (row.seq, row.record)).collect())
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
