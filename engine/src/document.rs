//! Documents as merging sees them: versions of a record, with their stamps and objects.

use crate::{EngineError, engine::Setup};
use lockstep_client_crypto::content::{BlobRef, Content, Hlc};
use lockstep_client_crypto::vault::Opened;
use lockstep_merge::{DocumentError, Object, Stamp, TypePolicy, Version, View};
use lockstep_proto::cbor::{Bytes, Wire, decode_local, encode};
use lockstep_proto::envelope::KIND_DOCUMENT;
use lockstep_proto::id::DeviceId;
use lockstep_proto::{limits, wire_array};

wire_array! {
    /// A version of a record that a pending write grew from: the base of a merge.
    #[derive(Clone, PartialEq, Eq)]
    pub struct Origin {
        /// Version of the type's schema.
        pub schema: u64,
        /// The writer's clock.
        pub hlc: Hlc,
        /// The writer.
        pub device: DeviceId,
        /// Document or tombstone.
        pub kind: u8,
        /// The document.
        pub document: Bytes,
        /// Its objects.
        pub blobs: Vec<BlobRef>,
    }
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Origin({:?}, {}, [redacted])", self.hlc, self.device)
    }
}

impl Wire for Origin {
    const NAME: &'static str = "origin of a pending write";
    const BYTES_MAX: usize = limits::ENVELOPE_BYTES_MAX;
    const SECRET: bool = true;
}

impl Origin {
    /// A version that a device wrote.
    pub fn new(content: &Content, kind: u8, device: DeviceId) -> Self {
        Self {
            schema: content.schema,
            hlc: content.hlc,
            device,
            kind,
            document: content.document.clone(),
            blobs: content.blobs.clone(),
        }
    }

    /// A version as its envelope has it.
    pub fn of(opened: &Opened) -> Self {
        Self::new(&opened.content, opened.header.kind, opened.header.device)
    }

    pub(crate) const fn is_deletion(&self) -> bool {
        self.kind != KIND_DOCUMENT
    }

    /// Gives the version to a function.
    pub fn with<T>(&self, take: impl FnOnce(&Version<'_>) -> T) -> T {
        let objects = objects(&self.blobs);
        take(&self.version(&objects))
    }

    /// The version; `objects` are its blobs' ([`objects`]).
    pub(crate) fn version<'a>(&'a self, objects: &'a [Object]) -> Version<'a> {
        Version {
            schema: self.schema,
            stamp: Stamp { hlc: self.hlc, device: self.device },
            document: (!self.is_deletion()).then_some(&self.document.0[..]),
            objects,
        }
    }

    /// What the app sees.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn view(&self, policy: &TypePolicy) -> Result<View, DocumentError> {
        self.with(|version| lockstep_merge::read(policy, version))
    }
}

/// Blobs as merging sees them.
pub(crate) fn objects(blobs: &[BlobRef]) -> Vec<Object> {
    blobs.iter().map(|blob| Object { id: blob.blob, reference: encode(blob) }).collect()
}

/// And back.
pub(crate) fn blobs(objects: &[Object]) -> Result<Vec<BlobRef>, EngineError> {
    let blob = |object: &Object| {
        decode_local(&object.reference)
            .ok_or_else(|| EngineError::replica("an object's reference is damaged"))
    };
    objects.iter().map(blob).collect()
}

/// Whether somebody has to decide something of a version: it is a conflict copy, or values or a deletion in it wait.
pub(crate) fn is_conflict(setup: &Setup, content: &Content, device: DeviceId) -> bool {
    if content.conflict_of().is_some() {
        return true;
    }
    let policy = setup.policies.of(&content.record_type).filter(|policy| policy.can_wait());
    // A version that was never merged has no notes, and then nothing waits in it.
    policy.is_some_and(|policy| {
        let view = Origin::new(content, KIND_DOCUMENT, device).view(policy);
        view.is_ok_and(|view| !view.open.is_empty())
    })
}
