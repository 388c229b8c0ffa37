//! Framing: which item may follow which, how long it may be, and the digest over all of them.

use super::{ArchiveCommit, ArchiveHeader, ArchiveVault, BareKeys, MissingVersion};
use crate::api::vault::Entry;
use crate::cbor::{CodecError, Wire};
use crate::commit::Commit;
use crate::device_log::DeviceLogEntry;
use crate::envelope::{KIND_DOCUMENT, KIND_TOMBSTONE};
use crate::hash::{Digest, DigestStream};
use crate::id::{BlobId, RecordId, Seq, VaultId};
use crate::sign::{SignatureError, Signed};
use crate::vault_log::keyring_vault_id;
use crate::version::{SUITE, VERSION};
use crate::{label, limits};

/// First bytes of every archive.
pub const MAGIC: [u8; 4] = *b"LSAR";
/// Magic, version and suite.
pub const PREFIX_BYTES: usize = 6;
/// Type and length of an item.
pub const ITEM_HEAD_BYTES: usize = 9;
/// Id of an object, before its bytes.
const BLOB_ID_BYTES: u64 = 16;

/// The first bytes of an archive.
pub fn prefix() -> [u8; PREFIX_BYTES] {
    let [a, b, c, d] = MAGIC;
    [a, b, c, d, VERSION, SUITE]
}

/// Why a file is not an archive, or not a whole one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// It is no archive at all.
    #[error("it is no Lockstep archive")]
    NoArchive,
    /// A structure is malformed.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A signature does not verify.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// A rule of the format does not hold.
    #[error("item {item}: {rule}")]
    Item {
        /// Which item, from 0.
        item: u64,
        /// The rule.
        rule: &'static str,
    },
    /// The end does not fit what comes before it.
    #[error("{rule}")]
    Damaged {
        /// What does not fit.
        rule: &'static str,
    },
}

/// The types of items, in the order in which they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ItemKind {
    /// [`ArchiveHeader`].
    Header,
    /// The signed key header.
    KeyHeader,
    /// [`BareKeys`].
    BareKeys,
    /// A signed device-log entry.
    Device,
    /// [`ArchiveVault`].
    Vault,
    /// [`ArchiveCommit`].
    Commit,
    /// [`Entry`].
    Version,
    /// [`MissingVersion`].
    MissingVersion,
    /// An object, behind its id.
    Object,
    /// The id of an object that was not there.
    MissingObject,
    /// The signed end.
    End,
}

impl ItemKind {
    const ALL: [Self; 11] = [
        Self::Header,
        Self::KeyHeader,
        Self::BareKeys,
        Self::Device,
        Self::Vault,
        Self::Commit,
        Self::Version,
        Self::MissingVersion,
        Self::Object,
        Self::MissingObject,
        Self::End,
    ];

    fn parse(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte.checked_sub(1)?)).copied()
    }

    fn number(self) -> u8 {
        Self::ALL.iter().zip(1_u8..).find(|(kind, _)| **kind == self).map_or(0, |(_, number)| number)
    }

    /// Longest body.
    fn bytes_max(self) -> u64 {
        let bytes = match self {
            Self::Header | Self::MissingVersion => 256,
            Self::KeyHeader => Signed::BYTES_MAX,
            Self::BareKeys => BareKeys::BYTES_MAX,
            Self::Device => DeviceLogEntry::BYTES_MAX.saturating_add(128),
            Self::Vault => limits::ARCHIVE_ITEM_BYTES_MAX,
            Self::Commit => ArchiveCommit::BYTES_MAX,
            Self::Version => limits::ENVELOPE_BYTES_MAX.saturating_add(256),
            Self::Object => return limits::ARCHIVE_OBJECT_BYTES_MAX,
            Self::MissingObject => 16,
            Self::End => 1024,
        };
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Whether an item of this type may come after one of another; `None`: at the beginning.
    fn may_follow(self, last: Option<Self>) -> bool {
        let Some(last) = last else { return self == Self::Header };
        match self {
            Self::Header => false,
            Self::KeyHeader | Self::BareKeys => last == Self::Header,
            Self::Device => matches!(last, Self::KeyHeader | Self::BareKeys | Self::Device),
            Self::Vault => last == Self::Device || (last > Self::Vault && last < Self::End),
            Self::Commit => matches!(last, Self::Vault | Self::Commit),
            Self::End => last > Self::Vault && last < Self::End,
            _ => last > Self::Vault && last <= self,
        }
    }
}

/// Type and length of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemHead {
    /// Type.
    pub kind: ItemKind,
    /// Length of the body in bytes.
    pub bytes: u64,
}

impl ItemHead {
    /// As it stands in the file.
    pub fn to_bytes(&self) -> [u8; ITEM_HEAD_BYTES] {
        let mut out = [0; ITEM_HEAD_BYTES];
        let length = self.bytes.to_be_bytes();
        let bytes = std::iter::once(self.kind.number()).chain(length);
        for (place, byte) in out.iter_mut().zip(bytes) {
            *place = byte;
        }
        out
    }
}

/// An item, decoded.
#[derive(Debug, Clone)]
pub enum Item {
    /// Whose archive it is.
    Header(ArchiveHeader),
    /// The key header.
    KeyHeader(Signed),
    /// Keys without the passphrase's wrap.
    BareKeys(Box<BareKeys>),
    /// An entry of the device log.
    Device(Signed),
    /// A vault begins.
    Vault(ArchiveVault),
    /// A commit, and the same decoded.
    Commit(ArchiveCommit, Box<Commit>),
    /// A version.
    Version(Entry),
    /// A version that was not there.
    MissingVersion(MissingVersion),
    /// An object that was not there.
    MissingObject(BlobId),
    /// The end.
    End(Signed),
}

/// Takes items in their order and refuses any other. Whoever writes an archive uses it in the same way, so that
/// nothing is written that would be refused.
#[derive(Debug, Clone)]
pub struct Items {
    count: u64,
    digest: DigestStream,
    last: Option<ItemKind>,
    keyring: Option<VaultId>,
    devices: (u64, usize),
    vaults: usize,
    vault: Option<VaultId>,
    next_seq: Seq,
    version: Option<(Seq, RecordId)>,
    missing_version: Option<(Seq, RecordId)>,
    object: Option<BlobId>,
    missing_object: Option<BlobId>,
    /// Bytes of an object that are still to come.
    left: u64,
}

impl Items {
    /// Begins with the first bytes of a file.
    ///
    /// # Errors
    /// [`ArchiveError`] for another magic, version or suite.
    pub fn begin(first: &[u8; PREFIX_BYTES]) -> Result<Self, ArchiveError> {
        let [magic @ .., version, suite] = first;
        if *magic != MAGIC {
            return Err(ArchiveError::NoArchive);
        }
        crate::version::check_suite("archive", *version, *suite)?;
        let mut digest = DigestStream::new(label::ARCHIVE_BYTES);
        digest.update(first);
        Ok(Self {
            count: 0,
            digest,
            last: None,
            keyring: None,
            devices: (0, 0),
            vaults: 0,
            vault: None,
            next_seq: Seq::new(0),
            version: None,
            missing_version: None,
            object: None,
            missing_object: None,
            left: 0,
        })
    }

    /// Items so far, the end not among them.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Digest of everything so far, the end not in it.
    pub fn digest(&self) -> Digest {
        self.digest.digest()
    }

    /// The vault whose items come.
    pub fn vault(&self) -> Option<VaultId> {
        self.vault
    }

    fn rule<T>(&self, rule: &'static str) -> Result<T, ArchiveError> {
        Err(ArchiveError::Item { item: self.count, rule })
    }

    /// Takes type and length of the next item: nothing is allocated for one that is too long.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn head(&mut self, bytes: &[u8; ITEM_HEAD_BYTES]) -> Result<ItemHead, ArchiveError> {
        let [kind, length @ ..] = bytes;
        let Some(kind) = ItemKind::parse(*kind) else {
            return self.rule("its type is not part of this draft; an update is needed");
        };
        let head = ItemHead { kind, bytes: u64::from_be_bytes(*length) };
        if self.left > 0 || !kind.may_follow(self.last) {
            return self.rule("it does not belong here");
        }
        if head.bytes > kind.bytes_max() {
            return self.rule("it is longer than an item of its type can be");
        }
        if kind == ItemKind::Object && head.bytes < BLOB_ID_BYTES {
            return self.rule("it is too short for an object");
        }
        if kind != ItemKind::End {
            self.digest.update(bytes);
        }
        Ok(head)
    }

    /// Takes the body of an item that is no object.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn take(&mut self, head: ItemHead, body: &[u8]) -> Result<Item, ArchiveError> {
        if u64::try_from(body.len()) != Ok(head.bytes) || !head.kind.may_follow(self.last) {
            return self.rule("its length is another than it says");
        }
        let item = self.decode(head.kind, body)?;
        self.last = Some(head.kind);
        if head.kind != ItemKind::End {
            self.digest.update(body);
            self.count = self.count.saturating_add(1);
        }
        Ok(item)
    }

    /// Takes the id of an object, which stands before its bytes.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn object(&mut self, head: ItemHead, blob: BlobId) -> Result<(), ArchiveError> {
        if head.kind != ItemKind::Object || self.object.is_some_and(|last| last >= blob) {
            return self.rule("objects ascend, each once");
        }
        self.object = Some(blob);
        self.left = head.bytes.saturating_sub(BLOB_ID_BYTES);
        self.last = Some(head.kind);
        self.digest.update(blob.as_bytes());
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// Takes the next bytes of an object.
    ///
    /// # Errors
    /// [`ArchiveError`] if they are more than it has.
    pub fn object_bytes(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        match u64::try_from(bytes.len()).ok().and_then(|taken| self.left.checked_sub(taken)) {
            Some(left) => self.left = left,
            None => return self.rule("it is longer than it says"),
        }
        self.digest.update(bytes);
        Ok(())
    }

    fn decode(&mut self, kind: ItemKind, body: &[u8]) -> Result<Item, ArchiveError> {
        Ok(match kind {
            ItemKind::Header => {
                let header = ArchiveHeader::decode(body)?;
                self.keyring = Some(keyring_vault_id(header.identity.as_bytes()));
                Item::Header(header)
            }
            ItemKind::KeyHeader => Item::KeyHeader(Signed::decode(body)?),
            ItemKind::BareKeys => Item::BareKeys(Box::new(BareKeys::decode(body)?)),
            ItemKind::Device => {
                let (entries, bytes) = self.devices;
                self.devices = (entries.saturating_add(1), bytes.saturating_add(body.len()));
                let bytes_max = limits::DEVICE_LOG_WITH_REVOCATIONS_BYTES_MAX.saturating_add(limits::MIB);
                if self.devices.0 > limits::DEVICE_LOG_ENTRIES_MAX || self.devices.1 > bytes_max {
                    return self.rule("the device log is longer than one can be");
                }
                Item::Device(Signed::decode(body)?)
            }
            ItemKind::Vault => self.begin_vault(ArchiveVault::decode(body)?)?,
            ItemKind::Commit => {
                let entry = ArchiveCommit::decode(body)?;
                let commit = Commit::decode(&entry.commit.bytes.0)?;
                if Some(commit.vault) != self.vault || commit.seq != self.next_seq {
                    return self.rule("it is not the vault's next commit");
                }
                self.next_seq = commit.seq.next();
                Item::Commit(entry, Box::new(commit))
            }
            ItemKind::Version => {
                let entry = Entry::decode(body)?;
                let place = (entry.seq, entry.record);
                if !matches!(entry.kind, KIND_DOCUMENT | KIND_TOMBSTONE)
                    || self.version.is_some_and(|last| last >= place)
                {
                    return self.rule("versions ascend, each once, and are documents or tombstones");
                }
                self.version = Some(place);
                Item::Version(entry)
            }
            ItemKind::MissingVersion => {
                let missing = MissingVersion::decode(body)?;
                let place = (missing.seq, missing.record);
                if self.missing_version.is_some_and(|last| last >= place) {
                    return self.rule("missing versions ascend, each once");
                }
                self.missing_version = Some(place);
                Item::MissingVersion(missing)
            }
            ItemKind::Object => return self.rule("an object is taken piece by piece"),
            ItemKind::MissingObject => {
                let Some(blob) = BlobId::from_slice(body) else {
                    return self.rule("it is no id of an object");
                };
                if self.missing_object.is_some_and(|last| last >= blob) {
                    return self.rule("missing objects ascend, each once");
                }
                self.missing_object = Some(blob);
                Item::MissingObject(blob)
            }
            ItemKind::End => Item::End(Signed::decode(body)?),
        })
    }

    fn begin_vault(&mut self, vault: ArchiveVault) -> Result<Item, ArchiveError> {
        let follows = match self.vault {
            None => Some(vault.vault) == self.keyring,
            Some(last) if Some(last) == self.keyring => Some(vault.vault) != self.keyring,
            Some(last) => vault.vault > last && Some(vault.vault) != self.keyring,
        };
        if !follows {
            return self.rule("the keyring comes first, then the other vaults, ascending, each once");
        }
        // The keyring counts with them.
        if self.vaults >= limits::VAULTS_MAX {
            return self.rule("there are more vaults than an account can have");
        }
        self.vaults = self.vaults.saturating_add(1);
        self.vault = Some(vault.vault);
        self.next_seq = Seq::new(0);
        (self.version, self.missing_version) = (None, None);
        (self.object, self.missing_object) = (None, None);
        Ok(Item::Vault(vault))
    }
}

#[cfg(test)]
mod tests;
