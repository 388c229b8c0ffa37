//! Documents: records whose contents the library reads and merges, by the policies of their types (docs/MERGING.md).
//!
//! Policies come from the app ([`Vault::use_policies`]) or stand in the vault itself ([`Vault::put_policies`]), where
//! every device finds the same ones.

use crate::error::{ClientError, Result};
use crate::replica::VaultReplica;
use crate::vault::Vault;
use lockstep_client_crypto::content::{BlobRef, Content};
use lockstep_client_crypto::vault::VaultKeys;
use lockstep_engine::document::Origin;
use lockstep_engine::replica::{Pinning, Policy, Replica as _};
use lockstep_engine::{Input, NewRecord, read};
use lockstep_merge::{Fields, NOTES_KEY, Open, Policies, Stamp, TypePolicy, Value};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::envelope::KIND_DOCUMENT;
use lockstep_proto::id::{DeviceId, RecordId, Revision};
use lockstep_proto::{Digest, label};
use std::sync::Arc;

/// Type of the record that holds a vault's merge policies.
pub const POLICIES_TYPE: &str = "lockstep/policies";
/// Its name.
const POLICIES_NAME: &[u8] = b"policies";
/// By which policies it was looked which records wait for a decision; followed by the vault's id.
const LOOKED_BY: &str = "policies-of-";

/// What a document holds.
#[derive(Clone, PartialEq, Eq)]
pub enum Body {
    /// Fields, as the app sees them.
    Fields(Fields),
    /// The app's own bytes.
    Bytes(Vec<u8>),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Body([redacted])")
    }
}

/// A document as it stands here.
#[derive(Clone)]
pub struct Document {
    /// Its record.
    pub record: RecordId,
    /// Record type.
    pub record_type: String,
    /// Name within the type.
    pub name: Vec<u8>,
    /// Version of the type's schema.
    pub schema: u64,
    /// Who wrote it, and when.
    pub stamp: Stamp,
    /// Contents.
    pub body: Body,
    /// Objects that it needs.
    pub blobs: Vec<BlobRef>,
    /// What in it waits for a decision.
    pub open: Vec<Open>,
    /// The record that this conflict copy was split from.
    pub conflict_of: Option<RecordId>,
    /// Verified revision; 0 if the server has none yet.
    pub revision: Revision,
    /// Whether a write of it waits for the server.
    pub pending: bool,
    /// Its bytes, notes included.
    raw: Vec<u8>,
}

impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Document({}, revision {})", self.record, self.revision)
    }
}

impl Document {
    fn new(policy: Option<&TypePolicy>, content: Content, device: DeviceId, record: RecordId) -> Self {
        let (body, open) = read_body(policy, &content, device);
        Self {
            record,
            conflict_of: content.conflict_of(),
            record_type: content.record_type,
            name: content.name.0,
            schema: content.schema,
            stamp: Stamp { hlc: content.hlc, device },
            body,
            blobs: content.blobs,
            open,
            revision: Revision::new(0),
            pending: false,
            raw: content.document.0,
        }
    }

    /// The version, for [`NewDocument::seen`].
    pub fn seen(&self) -> Origin {
        Origin {
            schema: self.schema,
            hlc: self.stamp.hlc,
            device: self.stamp.device,
            kind: KIND_DOCUMENT,
            document: self.raw.clone().into(),
            blobs: self.blobs.clone(),
        }
    }

    /// The same bytes as a new version of a record, whatever is there.
    pub(crate) fn as_it_is(&self, name: Vec<u8>) -> NewRecord {
        self.with_bytes(name, self.raw.clone())
    }

    /// Other bytes as a new version of a record, whatever is there.
    pub(crate) fn with_bytes(&self, name: Vec<u8>, bytes: Vec<u8>) -> NewRecord {
        NewRecord {
            record_type: self.record_type.clone(),
            name,
            schema: self.schema,
            document: Some(bytes),
            blobs: self.blobs.clone(),
            policy: Policy::KeepBoth,
            pin: Pinning::None,
            expected: None,
        }
    }

    /// The contents as JSON; none if they are neither fields nor JSON text. Bytes in a field become a list of numbers.
    pub fn json(&self) -> Option<serde_json::Value> {
        json_of(&self.body)
    }
}

/// Contents as JSON.
pub fn json_of(body: &Body) -> Option<serde_json::Value> {
    match body {
        Body::Fields(fields) => serde_json::to_value(fields).ok(),
        Body::Bytes(bytes) => serde_json::from_slice(bytes).ok(),
    }
}

/// A content that this device keeps, decoded.
///
/// # Errors
/// [`ClientError::Damaged`].
pub fn kept(bytes: &[u8]) -> Result<Content> {
    Content::decode(bytes)
        .map_err(|error| ClientError::Damaged(format!("the local database is damaged: {error}")))
}

/// What an app sees of a content, and what in it waits. A document of a newer schema is shown as it is.
fn read_body(policy: Option<&TypePolicy>, content: &Content, device: DeviceId) -> (Body, Vec<Open>) {
    let origin = Origin::new(content, KIND_DOCUMENT, device);
    if let Some(view) = policy.and_then(|policy| origin.view(policy).ok()) {
        return (Body::Fields(view.fields), view.open);
    }
    let body = match lockstep_merge::decode(&content.document.0) {
        Ok(mut fields) => {
            fields.remove(NOTES_KEY);
            Body::Fields(fields)
        }
        Err(_) => Body::Bytes(content.document.0.clone()),
    };
    (body, Vec::new())
}

/// A document to be written.
#[derive(Clone)]
pub struct NewDocument {
    /// Record type; not one that begins with `lockstep/`.
    pub record_type: String,
    /// Name within the type.
    pub name: Vec<u8>,
    /// Version of the type's schema; none is the newest that the type's policy knows, or 1.
    pub schema: Option<u64>,
    /// Contents; none deletes the record.
    pub fields: Option<Fields>,
    /// Objects that it needs.
    pub blobs: Vec<BlobRef>,
    /// The version that the writer saw ([`Document::seen`]). If another one is here by now, both become one; without it the
    /// write counts as one of what is here.
    pub seen: Option<Origin>,
    /// Revision that the writer read, for compare-and-swap; none takes what is there now.
    pub expected: Option<Revision>,
}

impl std::fmt::Debug for NewDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewDocument([redacted])")
    }
}

/// The policies that stand in a vault. Those that can not be read are none: then both sides of a clash are kept.
fn stored_policies(replica: &VaultReplica, keys: &VaultKeys) -> Option<Policies> {
    let record = keys.record_id(POLICIES_TYPE, POLICIES_NAME);
    let current = read::current(replica, keys, record).ok().flatten()?;
    Policies::from_cbor(&current.content.document.0).ok()
}

impl Vault {
    /// Merges by these policies from now on, whatever stands in the vault: those of the app that this home belongs to.
    /// They hold for every program that opens this home, until others are given; none goes back to those of the vault.
    ///
    /// # Errors
    /// [`ClientError::Database`].
    pub fn use_policies(&mut self, policies: Option<&Policies>) -> Result<()> {
        self.replica.set_own_policies(policies.map(Policies::to_cbor).as_deref())?;
        self.load_policies()
    }

    /// The policies by which documents are merged here.
    pub fn policies(&self) -> &Arc<Policies> {
        &self.setup.policies
    }

    /// Writes the vault's policies, for every device that brings none of its own.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put_policies(&mut self, policies: &Policies) -> Result<()> {
        let record = NewRecord {
            record_type: POLICIES_TYPE.into(),
            name: POLICIES_NAME.to_vec(),
            schema: lockstep_merge::policy::FORMAT,
            document: Some(policies.to_cbor()),
            blobs: Vec::new(),
            policy: Policy::Overwrite,
            pin: Pinning::None,
            expected: None,
        };
        self.put(vec![record]).await?;
        self.load_policies()
    }

    /// Takes the app's policies, or else those that stand in the vault. Those that can not be read are none.
    pub(crate) fn load_policies(&mut self) -> Result<()> {
        let stored = self.policies_now()?;
        if stored == *self.setup.policies { Ok(()) } else { self.take_policies(Arc::new(stored)) }
    }

    /// The policies as they stand by now, which a sync may have brought.
    pub(crate) fn policies_now(&self) -> Result<Policies> {
        let stored = match self.replica.own_policies()? {
            Some(own) => Policies::from_cbor(&own).ok(),
            None => stored_policies(&self.replica, &self.setup.keys),
        };
        Ok(stored.unwrap_or_default())
    }

    fn take_policies(&mut self, policies: Arc<Policies>) -> Result<()> {
        let db = self.replica.db();
        let key = format!("{LOOKED_BY}{}", self.setup.vault());
        let digest = Digest::of_cbor(label::LOCAL_DOCUMENT, &policies.to_cbor());
        if db.writes() && db.meta(&key)?.as_deref() != Some(&digest.as_bytes()[..]) {
            self.replica.forget_open()?;
            db.set_meta(&key, digest.as_bytes())?;
        }
        self.setup.policies = policies;
        self.renew_engine();
        Ok(())
    }

    /// A document that an engine can take: merged by its type's policy, or by none.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if it breaks a limit.
    pub fn new_record(&self, new: NewDocument) -> Result<NewRecord> {
        let policy = self.setup.policies.of(&new.record_type);
        let document = new.fields.map(lockstep_merge::encode).transpose();
        Ok(NewRecord {
            record_type: new.record_type,
            name: new.name,
            schema: new.schema.unwrap_or_else(|| policy.map_or(1, TypePolicy::schema)),
            document: document.map_err(|error| ClientError::Usage(error.to_string()))?,
            blobs: new.blobs,
            policy: if policy.is_some() { Policy::Merge } else { Policy::KeepBoth },
            pin: Pinning::None,
            expected: new.expected,
        })
    }

    /// Writes documents durably here, together; they are sent by [`Self::sync`].
    ///
    /// # Errors
    /// [`ClientError`]; then none is written.
    pub async fn put_documents(&mut self, documents: Vec<NewDocument>) -> Result<()> {
        let mut edits = Vec::new();
        for mut new in documents {
            let seen = new.seen.take();
            edits.push((self.new_record(new)?, seen));
        }
        self.drive(Input::Edit(edits)).await?;
        Ok(())
    }

    /// A document as it stands here, writes that wait included; none if it is not there or deleted.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn document(&self, record: RecordId) -> Result<Option<Document>> {
        let row = self.replica.record(record)?;
        let revision = row.map_or(Revision::new(0), |row| row.revision);
        let pending = self.replica.pending_of(record)?.pop();
        let (content, device, pending) = match (pending, row) {
            (Some(last), _) if last.kind != KIND_DOCUMENT => return Ok(None),
            (Some(last), _) => (kept(&last.content)?, self.setup.device.id(), true),
            (None, Some(row)) if row.kind == KIND_DOCUMENT && row.present => {
                let opened = read::open_row(&self.replica, &self.setup.keys, &row)?;
                let Some(opened) = opened else { return Ok(None) };
                (opened.content, opened.header.device, false)
            }
            (None, Some(row)) if row.kind == KIND_DOCUMENT => {
                return Err(read::absence(&self.replica, self.setup.vault(), &row)?.into());
            }
            _ => return Ok(None),
        };
        let policy = self.setup.policies.of(&content.record_type);
        let document = Document::new(policy, content, device, record);
        Ok(Some(Document { revision, pending, ..document }))
    }

    /// The same by type and name.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn document_named(&self, record_type: &str, name: &[u8]) -> Result<Option<Document>> {
        self.document(self.setup.keys.record_id(record_type, name))
    }

    /// A version from the past as an app reads it: fields or bytes.
    pub fn body_of(&self, content: &Content) -> Body {
        read_body(self.setup.policies.of(&content.record_type), content, self.setup.device.id()).0
    }
}

/// A JSON value as the fields of a document.
///
/// # Errors
/// [`ClientError::Usage`] if it is no object, or holds what documents can not.
pub fn fields_from_json(json: serde_json::Value) -> Result<Fields> {
    match serde_json::from_value(json) {
        Ok(Value::Map(fields)) => Ok(fields),
        Ok(_) => Err(ClientError::Usage(
            "a document of a type with a merge policy is a JSON object: write {...}".into(),
        )),
        Err(error) => Err(ClientError::Usage(format!("the document can not be merged: {error}"))),
    }
}
