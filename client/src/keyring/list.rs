//! Which vaults there are. Any device can write a key record and a name: a key whose birth nobody signed is no vault,
//! and no name stands for two of them.

use super::{Result, VaultEntry};
use crate::account::Account;
use lockstep_proto::id::VaultId;
use std::collections::BTreeSet;

impl Account {
    /// Vaults that the keyring knows, by name.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn vaults(&self) -> Result<Vec<VaultEntry>> {
        let register = self.register()?;
        let entry = |(vault, name): (&VaultId, &String)| VaultEntry { vault: *vault, name: name.clone() };
        let mut found: Vec<VaultEntry> = register.vaults.iter().map(entry).collect();
        found.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(found)
    }

    /// Vaults that were deleted: a device can write a mark, but not the identity's word for it.
    pub(crate) fn deleted_vaults(&self) -> Result<BTreeSet<VaultId>> {
        Ok(self.register()?.deleted.keys().copied().collect())
    }
}
