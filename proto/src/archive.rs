//! Archives: one file that restores an account without any server (PROTOCOL.md section 10.1). The structures are
//! here; [`Items`] is the order in which they come, for who writes and who reads alike, without any I/O.

mod items;

pub use items::{
    ArchiveError, ITEM_HEAD_BYTES, Item, ItemHead, ItemKind, Items, MAGIC, PREFIX_BYTES, prefix,
};

use crate::cbor::{Bytes, CodecError, Wire};
use crate::hash::Digest;
use crate::id::{AccountId, DeviceId, RecordId, Seq, VaultId};
use crate::key_header::{KeyHeader, Keyring, ROLE_RECOVERY, Wrap, account_id};
use crate::sign::{PublicKey, Signed};
use crate::{label, limits, wire_array};

wire_array! {
    /// Whose archive it is, and who says that he made it, and when.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ArchiveHeader {
        /// Version byte.
        pub version: u8,
        /// Suite.
        pub suite: u8,
        /// Account.
        pub account: AccountId,
        /// Its identity key.
        pub identity: Digest,
        /// The device that made the archive and signs its end.
        pub device: DeviceId,
        /// When, seconds since 1970, by that device's clock.
        pub utc: u64,
    }
}

impl Wire for ArchiveHeader {
    const NAME: &'static str = "archive header";
    const BYTES_MAX: usize = 256;
    const VERSIONED: bool = true;

    fn check(&self) -> Result<(), CodecError> {
        crate::version::check_suite(Self::NAME, self.version, self.suite)?;
        check_identity(Self::NAME, self.account, &self.identity)
    }
}

fn check_identity(what: &'static str, account: AccountId, identity: &Digest) -> Result<(), CodecError> {
    let bytes = identity.as_bytes();
    if account_id(bytes) != account || PublicKey::from_bytes(bytes).is_none() {
        return Err(CodecError::Rule { what, rule: "the identity key does not belong to the account" });
    }
    Ok(())
}

wire_array! {
    /// What the recovery key opens, without the passphrase's wrap and the seals of devices.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct BareKeys {
        /// Version byte.
        pub version: u8,
        /// Suite.
        pub suite: u8,
        /// Account.
        pub account: AccountId,
        /// Counter of the key header that it is from.
        pub counter: u64,
        /// Identity public key.
        pub identity: Digest,
        /// Public key of recovery sign-in.
        pub recovery: Digest,
        /// The recovery wrap.
        pub wrap: Wrap,
        /// The keyring without seals.
        pub keyring: Keyring,
    }
}

impl Wire for BareKeys {
    const NAME: &'static str = "keys of the archive";
    const BYTES_MAX: usize = limits::KEY_HEADER_BYTES_MAX;
    const VERSIONED: bool = true;

    fn check(&self) -> Result<(), CodecError> {
        crate::version::check_suite(Self::NAME, self.version, self.suite)?;
        let rule = |rule| Err(CodecError::Rule { what: Self::NAME, rule });
        check_identity(Self::NAME, self.account, &self.identity)?;
        if self.wrap.role != ROLE_RECOVERY || self.wrap.profile != 0 {
            return rule("its one wrap is the recovery key's");
        }
        if PublicKey::from_bytes(self.recovery.as_bytes()).is_none() {
            return rule("the recovery key is not a valid key");
        }
        if self.counter == 0 || !self.keyring.seals.is_empty() {
            return rule("its counter begins at 1, and it has no device seals");
        }
        self.keyring.check_links()
    }
}

impl BareKeys {
    /// What remains of a key header.
    pub fn of(header: &KeyHeader) -> Option<Self> {
        let wrap = header.wraps.iter().find(|wrap| wrap.role == ROLE_RECOVERY)?.clone();
        Some(Self {
            version: header.version,
            suite: header.suite,
            account: header.account,
            counter: header.counter,
            identity: header.identity,
            recovery: header.recovery,
            wrap,
            keyring: Keyring { seals: Vec::new(), ..header.keyring.clone() },
        })
    }
}

wire_array! {
    /// A vault; its commits, versions and objects follow.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ArchiveVault {
        /// Vault.
        pub vault: VaultId,
        /// Its birth, and the rotations that count.
        pub log: Vec<Signed>,
    }
}

impl Wire for ArchiveVault {
    const NAME: &'static str = "vault of the archive";
    const BYTES_MAX: usize = limits::ARCHIVE_ITEM_BYTES_MAX;

    fn check(&self) -> Result<(), CodecError> {
        let entries = u64::try_from(self.log.len()).unwrap_or(u64::MAX);
        if entries == 0 || entries > limits::VAULT_LOG_ENTRIES_MAX {
            return Err(CodecError::Rule { what: Self::NAME, rule: "its log has 1 to 4,096 entries" });
        }
        Ok(())
    }
}

wire_array! {
    /// A commit with its change list.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ArchiveCommit {
        /// The signed commit.
        pub commit: Signed,
        /// Encoding of its change list.
        pub changes: Bytes,
    }
}

impl Wire for ArchiveCommit {
    const NAME: &'static str = "commit of the archive";
    const BYTES_MAX: usize = limits::CHANGES_BYTES_MAX + 4 * limits::KIB;
}

wire_array! {
    /// A version that the server did not have any more.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct MissingVersion {
        /// Commit that put it.
        pub seq: Seq,
        /// Record.
        pub record: RecordId,
    }
}

impl Wire for MissingVersion {
    const NAME: &'static str = "missing version";
    const BYTES_MAX: usize = 64;
}

wire_array! {
    /// What the maker signs.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ArchiveEnd {
        /// Version byte.
        pub version: u8,
        /// Suite.
        pub suite: u8,
        /// Account.
        pub account: AccountId,
        /// The device that made the archive.
        pub device: DeviceId,
        /// Items before the end.
        pub items: u64,
        /// Digest of every byte before the end item.
        pub digest: Digest,
    }
}

impl Wire for ArchiveEnd {
    const NAME: &'static str = "end of the archive";
    const BYTES_MAX: usize = 256;
    const VERSIONED: bool = true;

    fn check(&self) -> Result<(), CodecError> {
        crate::version::check_suite(Self::NAME, self.version, self.suite)
    }
}

/// Verifies the end of an archive: what it says of the bytes before it, and the maker's signature.
///
/// # Errors
/// [`ArchiveError`]; nothing of the archive is whole then.
pub fn verify_end(
    signed: &Signed,
    header: &ArchiveHeader,
    items: &Items,
    maker: &PublicKey,
) -> Result<(), ArchiveError> {
    let end = ArchiveEnd::decode(&signed.bytes.0)?;
    if (end.account, end.device) != (header.account, header.device) {
        return Err(ArchiveError::Damaged { rule: "its end is that of another archive" });
    }
    if (end.items, end.digest) != (items.count(), items.digest()) {
        return Err(ArchiveError::Damaged { rule: "its bytes are not the ones that its maker signed" });
    }
    signed.verify(ArchiveEnd::NAME, label::ARCHIVE, maker)?;
    Ok(())
}

#[cfg(test)]
mod tests;
