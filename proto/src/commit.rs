//! Commits and their change lists (PROTOCOL.md section 6.1).

use crate::cbor::{CodecError, Wire, encode, next_element};
use crate::hash::Digest;
use crate::id::{AccountId, BlobId, DeviceId, Epoch, RecordId, Revision, Seq, VaultId};
use crate::sign::{Signature, Signed};
use crate::{label, limits, wire_array};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeTuple as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Birth of a vault.
pub const KIND_GENESIS: u8 = 1;
/// Records written.
pub const KIND_CHANGE: u8 = 2;
/// New key epoch.
pub const KIND_ROTATE: u8 = 3;
/// Old versions dropped; refused in this draft.
pub const KIND_PURGE: u8 = 4;
/// Identity-signed repair: abandons commits of this chain, or of one that parted from it.
pub const KIND_REPAIR: u8 = 5;

wire_array! {
    /// A commit header: one link of a vault's chain. Signed by the device, apart from it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Commit {
        /// Version byte.
        pub version: u8,
        /// Suite.
        pub suite: u8,
        /// Vault.
        pub vault: VaultId,
        /// Position, from 0.
        pub seq: Seq,
        /// Hash of the commit at seq - 1; zero at genesis.
        pub previous: Digest,
        /// Hash of the commit at `seq.skip_target()`; zero at genesis.
        pub skip: Digest,
        /// One of the `KIND_` constants.
        pub kind: u8,
        /// Key epoch of the vault.
        pub epoch: Epoch,
        /// Author.
        pub device: DeviceId,
        /// Index of the last device-log entry that the author had verified.
        pub device_log_index: u64,
        /// Hash of that entry.
        pub device_log_head: Digest,
        /// Index of the last vault-log entry.
        pub vault_log_index: u64,
        /// Hash of that entry.
        pub vault_log_head: Digest,
        /// Claimed time, seconds since 1970; shown, never trusted.
        pub utc: u64,
        /// Digest of the change list.
        pub changes: Digest,
        /// Checksum of the state digest after this commit.
        pub state: Digest,
    }
}

impl Wire for Commit {
    const NAME: &'static str = "commit";
    const BYTES_MAX: usize = limits::COMMIT_BYTES_MAX;
    const VERSIONED: bool = true;

    fn check(&self) -> Result<(), CodecError> {
        crate::version::check_suite(Self::NAME, self.version, self.suite)?;
        let rule = |rule| Err(CodecError::Rule { what: Self::NAME, rule });
        match self.kind {
            KIND_GENESIS if self.seq.value() != 0 => rule("a genesis stands at seq 0"),
            KIND_CHANGE | KIND_ROTATE | KIND_REPAIR if self.seq.value() == 0 => rule("seq 0 is a genesis"),
            KIND_GENESIS | KIND_CHANGE | KIND_ROTATE | KIND_REPAIR => Ok(()),
            KIND_PURGE => rule("purge commits are not part of this draft; an update is needed"),
            _ => rule("the kind is unknown; an update is needed"),
        }
    }
}

impl Commit {
    /// Hash of a commit's encoding.
    pub fn hash_of(bytes: &[u8]) -> Digest {
        Digest::of(label::COMMIT, bytes)
    }
}

/// One change of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A record's new version.
    Put {
        /// Record.
        record: RecordId,
        /// Its new revision.
        revision: Revision,
        /// Digest of the envelope.
        envelope: Digest,
        /// Objects that the document needs, strictly ascending.
        blobs: Vec<BlobId>,
    },
    /// A record's deletion.
    Tombstone {
        /// Record.
        record: RecordId,
        /// Its new revision.
        revision: Revision,
        /// Digest of the envelope.
        envelope: Digest,
    },
    /// The state as of this seq is kept whatever the retention says.
    Pin(Seq),
    /// It no longer is.
    Unpin(Seq),
    /// The vault-log entry that begins a key epoch; alone in a rotate commit.
    Rotate(Box<Signed>),
    /// In a repair: the state goes back to what it was after this commit; all between are abandoned.
    GoBack(Seq),
    /// In a repair: a commit of a chain that parted from this one, abandoned.
    Abandon(Seq, Digest),
    /// In a repair, last: the identity's signature over [`repair_input`].
    Authority(Signature),
}

/// What the identity signs of a repair: its place, its author, and what it says but for this signature.
pub fn repair_input(account: AccountId, commit: &RepairPlace, says: &[Change]) -> Vec<u8> {
    encode(&(account, commit.vault, commit.seq, commit.previous, commit.device, says))
}

/// Place and author of a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepairPlace {
    /// Vault.
    pub vault: VaultId,
    /// Seq of the repair.
    pub seq: Seq,
    /// Hash of the commit before it.
    pub previous: Digest,
    /// Author.
    pub device: DeviceId,
}

const OP_PUT: u8 = 1;
const OP_TOMBSTONE: u8 = 2;
const OP_PIN: u8 = 4;
const OP_UNPIN: u8 = 5;
const OP_ROTATE: u8 = 7;
const OP_GO_BACK: u8 = 8;
const OP_ABANDON: u8 = 9;
const OP_AUTHORITY: u8 = 10;

impl Change {
    /// Record, revision and envelope digest of a put or tombstone.
    pub fn version(&self) -> Option<(RecordId, Revision, Digest)> {
        match self {
            Self::Put { record, revision, envelope, .. } | Self::Tombstone { record, revision, envelope } => {
                Some((*record, *revision, *envelope))
            }
            _ => None,
        }
    }

    /// The blobs of a put.
    pub fn blobs(&self) -> &[BlobId] {
        match self {
            Self::Put { blobs, .. } => blobs,
            _ => &[],
        }
    }
}

impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Put { record, revision, envelope, blobs } => {
                let mut tuple = serializer.serialize_tuple(5)?;
                tuple.serialize_element(&OP_PUT)?;
                tuple.serialize_element(record)?;
                tuple.serialize_element(revision)?;
                tuple.serialize_element(envelope)?;
                tuple.serialize_element(blobs)?;
                tuple.end()
            }
            Self::Tombstone { record, revision, envelope } => {
                (OP_TOMBSTONE, record, revision, envelope).serialize(serializer)
            }
            Self::Pin(seq) => (OP_PIN, seq).serialize(serializer),
            Self::Unpin(seq) => (OP_UNPIN, seq).serialize(serializer),
            Self::Rotate(entry) => (OP_ROTATE, entry).serialize(serializer),
            Self::GoBack(seq) => (OP_GO_BACK, seq).serialize(serializer),
            Self::Abandon(seq, hash) => (OP_ABANDON, seq, hash).serialize(serializer),
            Self::Authority(signature) => (OP_AUTHORITY, signature).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Change {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ChangeVisitor;
        impl<'de> Visitor<'de> for ChangeVisitor {
            type Value = Change;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a change")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Change, A::Error> {
                let op: u8 = next_element(&mut seq, 0)?;
                match op {
                    OP_PUT => Ok(Change::Put {
                        record: next_element(&mut seq, 1)?,
                        revision: next_element(&mut seq, 2)?,
                        envelope: next_element(&mut seq, 3)?,
                        blobs: next_element(&mut seq, 4)?,
                    }),
                    OP_TOMBSTONE => Ok(Change::Tombstone {
                        record: next_element(&mut seq, 1)?,
                        revision: next_element(&mut seq, 2)?,
                        envelope: next_element(&mut seq, 3)?,
                    }),
                    OP_PIN => Ok(Change::Pin(next_element(&mut seq, 1)?)),
                    OP_UNPIN => Ok(Change::Unpin(next_element(&mut seq, 1)?)),
                    OP_ROTATE => Ok(Change::Rotate(Box::new(next_element(&mut seq, 1)?))),
                    OP_GO_BACK => Ok(Change::GoBack(next_element(&mut seq, 1)?)),
                    OP_ABANDON => Ok(Change::Abandon(next_element(&mut seq, 1)?, next_element(&mut seq, 2)?)),
                    OP_AUTHORITY => Ok(Change::Authority(next_element(&mut seq, 1)?)),
                    _ => Err(A::Error::custom("this kind of change is not part of this draft")),
                }
            }
        }
        deserializer.deserialize_seq(ChangeVisitor)
    }
}

/// A commit's change list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Changes(pub Vec<Change>);

impl Changes {
    /// Digest of the list's encoding.
    pub fn digest_of(bytes: &[u8]) -> Digest {
        Digest::of(label::CHANGES, bytes)
    }
}

impl Wire for Changes {
    const NAME: &'static str = "change list";
    const BYTES_MAX: usize = limits::CHANGES_BYTES_MAX;

    fn check(&self) -> Result<(), CodecError> {
        let rule = |rule| Err(CodecError::Rule { what: Self::NAME, rule });
        if self.0.len() > limits::CHANGES_MAX {
            return rule("more than 4,096 changes");
        }
        if matches!(self.0.first(), Some(Change::Rotate(_))) {
            return if self.0.len() == 1 { Ok(()) } else { rule("a rotation stands alone") };
        }
        if matches!(self.0.last(), Some(Change::Authority(_))) {
            return self.check_repair();
        }
        let mut last_record: Option<RecordId> = None;
        let mut last_pin: Option<Seq> = None;
        for change in &self.0 {
            match change {
                Change::Put { record, revision, .. } | Change::Tombstone { record, revision, .. } => {
                    if last_pin.is_some() || last_record.is_some_and(|last| last >= *record) {
                        return rule("record changes come first, strictly ascending by record");
                    }
                    if revision.value() == 0 {
                        return rule("revisions begin at 1");
                    }
                    if change.blobs().len() > limits::BLOBS_PER_CHANGE_MAX {
                        return rule("more than 1,024 blobs in one change");
                    }
                    if !change.blobs().is_sorted_by(|left, right| left < right) {
                        return rule("blobs are strictly ascending");
                    }
                    last_record = Some(*record);
                }
                Change::Pin(seq) | Change::Unpin(seq) => {
                    if last_pin.is_some_and(|last| last >= *seq) {
                        return rule("pins are strictly ascending");
                    }
                    last_pin = Some(*seq);
                }
                _ => return rule("rotations and repairs do not mix with other changes"),
            }
        }
        Ok(())
    }
}

impl Changes {
    /// A repair: at most one way back, then abandoned commits strictly ascending, then the authority.
    fn check_repair(&self) -> Result<(), CodecError> {
        let rule = |rule| Err(CodecError::Rule { what: Self::NAME, rule });
        let says = self.0.split_last().map_or(&[][..], |(_, says)| says);
        let mut last: Option<(Seq, Digest)> = None;
        for (place, change) in says.iter().enumerate() {
            match change {
                Change::GoBack(_) if place == 0 => {}
                Change::Abandon(seq, hash) if last.is_none_or(|last| last < (*seq, *hash)) => {
                    last = Some((*seq, *hash));
                }
                _ => return rule("a repair goes back at most once, then abandons in ascending order"),
            }
        }
        if says.is_empty() { rule("a repair says something") } else { Ok(()) }
    }

    /// Whether it writes records and pins, and nothing else.
    pub fn is_plain(&self) -> bool {
        self.rotation().is_none() && self.repair().is_none()
    }

    /// The vault-log entry of a rotation.
    pub fn rotation(&self) -> Option<&Signed> {
        match self.0.as_slice() {
            [Change::Rotate(entry)] => Some(entry),
            _ => None,
        }
    }

    /// What a repair says, and the identity's signature over it.
    pub fn repair(&self) -> Option<(&[Change], &Signature)> {
        match self.0.split_last() {
            Some((Change::Authority(signature), says)) => Some((says, signature)),
            _ => None,
        }
    }

    /// The commit that a repair goes back to.
    pub fn goes_back_to(&self) -> Option<Seq> {
        match self.0.first() {
            Some(Change::GoBack(seq)) => Some(*seq),
            _ => None,
        }
    }

    /// Commits of other chains that a repair abandons.
    pub fn abandoned(&self) -> impl Iterator<Item = (Seq, Digest)> {
        self.0.iter().filter_map(|change| match change {
            Change::Abandon(seq, hash) => Some((*seq, *hash)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests;
