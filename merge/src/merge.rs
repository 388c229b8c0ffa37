//! Merging two versions of a record that grew from a common base.

use crate::document::{Doc, DocumentError, Object, Open, Version};
use crate::join::{join, join_deletions};
use crate::policy::{Delete, NewerSchema, TypePolicy};
use crate::record::{Decision, Outcome as Taken, Record, Slot, decisions};
use crate::stamp::Stamp;
use crate::state::State;
use crate::value::{Raw, Value};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::BlobId;
use std::collections::BTreeMap;

/// One of the two versions that are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The pending version, which the server has not got yet.
    Local,
    /// The committed version.
    Remote,
}

/// What came of a merge.
#[derive(Debug)]
pub enum Outcome {
    /// One version, which stands on both.
    Merged(Merged),
    /// The versions can not become one: both are kept as they are, byte for byte.
    Conflict(Conflict),
}

/// A merged version.
#[derive(Debug)]
pub struct Merged {
    /// The greater schema of the two, or that of the version that was taken whole.
    pub schema: u64,
    /// Its document; none if it is a deletion.
    pub document: Option<Vec<u8>>,
    /// Objects that it needs.
    pub objects: Vec<Object>,
    /// Which version it is, byte for byte.
    pub same_as: SameAs,
    /// What was decided, for undoing.
    pub record: Record,
    /// What waits for somebody to decide. Every value of it is in the document.
    pub open: Vec<Open>,
}

/// Which version a merged one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameAs {
    /// A new one.
    Neither,
    /// The pending one: it goes on as it is.
    Local,
    /// The committed one: nothing is left to send.
    Remote,
    /// Both were the same.
    Both,
}

/// Two versions that stay two.
#[derive(Debug)]
pub struct Conflict {
    /// Why.
    pub reason: Reason,
    /// Which was written later; the choice is the same on every device.
    pub later: Side,
}

/// Why two versions can not become one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// Of a schema that the policy does not know yet.
    #[error("a version has schema {found}, the policy knows up to {known}: both are kept; update the app")]
    NewerSchema {
        /// Schema found.
        found: u64,
        /// Newest schema that the policy knows.
        known: u64,
    },
    /// Of a schema that does not merge any more.
    #[error("a version has schema {found}, the policy merges from {oldest} on: both are kept; choose one")]
    OlderSchema {
        /// Schema found.
        found: u64,
        /// Oldest schema that merges.
        oldest: u64,
    },
    /// Not a document that can be merged.
    #[error("the {version} version can not be merged: both are kept; choose one")]
    Unreadable {
        /// Which version.
        version: &'static str,
        /// Why.
        source: DocumentError,
    },
    /// More than a field holds.
    #[error("a field has more than 16 values that wait for a decision: both versions are kept; decide some")]
    TooManyValues,
    /// The merged document would be too large.
    #[error("the merged document breaks a limit: both versions are kept; choose one")]
    Limit {
        /// Which limit.
        source: DocumentError,
    },
}

/// Merges `local` (pending) and `remote` (committed), which both grew from `base`; none if both are new.
///
/// A pending version that was merged grew from the committed version that it was merged with. One that stands
/// against a deletion still grew from what it grew from before: a deletion says nothing of the document.
///
/// The outcome depends on the three versions and the policy only, and for all policies but `prefer-pending` and
/// `prefer-committed` not on which side is which.
pub fn merge(
    policy: &TypePolicy,
    base: Option<&Version<'_>>,
    local: &Version<'_>,
    remote: &Version<'_>,
) -> Outcome {
    let merging = Merging { policy, base, local, remote };
    match merging.run() {
        Ok(merged) => Outcome::Merged(merged),
        Err(reason) => {
            let key = |version: &Version<'_>| (version.stamp, version.document.map(<[u8]>::to_vec));
            let later = if key(local) > key(remote) { Side::Local } else { Side::Remote };
            Outcome::Conflict(Conflict { reason, later })
        }
    }
}

fn is_same(a: &Version<'_>, b: &Version<'_>) -> bool {
    a.stamp == b.stamp && a.document == b.document
}

struct Merging<'a> {
    policy: &'a TypePolicy,
    base: Option<&'a Version<'a>>,
    local: &'a Version<'a>,
    remote: &'a Version<'a>,
}

impl Merging<'_> {
    fn run(&self) -> Result<Merged, Reason> {
        let (local, remote) = (self.local, self.remote);
        if is_same(local, remote) {
            return Ok(self.whole(Side::Local, SameAs::Both, Vec::new()));
        }
        if self.base.is_some_and(|base| is_same(base, remote)) {
            return Ok(self.whole(Side::Local, SameAs::Local, Vec::new()));
        }
        if self.base.is_some_and(|base| is_same(base, local)) {
            return Ok(self.whole(Side::Remote, SameAs::Remote, Vec::new()));
        }
        match (local.document, remote.document) {
            (None, None) => Ok(self.deletions()),
            (None, Some(_)) => self.delete_against_edit(Side::Local),
            (Some(_), None) => self.delete_against_edit(Side::Remote),
            (Some(_), Some(_)) => self.edits(),
        }
    }

    const fn version(&self, side: Side) -> &Version<'_> {
        match side {
            Side::Local => self.local,
            Side::Remote => self.remote,
        }
    }

    fn record(&self, decisions: Vec<Decision>) -> Record {
        let base = self.base.map(|base| base.stamp).into_iter().collect();
        Record { base, local: self.local.stamp, remote: self.remote.stamp, decisions }
    }

    /// One side as it is.
    fn whole(&self, side: Side, same_as: SameAs, decisions: Vec<Decision>) -> Merged {
        let version = self.version(side);
        let open = match version.document {
            Some(_) if version.schema <= self.policy.newest => {
                let rule = &self.policy.document;
                Doc::load(rule, version, None).map(|doc| doc.open(rule)).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        Merged {
            schema: version.schema,
            document: version.document.map(<[u8]>::to_vec),
            objects: version.objects.to_vec(),
            same_as,
            record: self.record(decisions),
            open,
        }
    }

    fn take(&self, side: Side, decisions: Vec<Decision>) -> Merged {
        let same_as = match side {
            Side::Local => SameAs::Local,
            Side::Remote => SameAs::Remote,
        };
        self.whole(side, same_as, decisions)
    }

    /// Both deleted it: nothing is left to send.
    fn deletions(&self) -> Merged {
        self.take(Side::Remote, Vec::new())
    }

    fn delete_against_edit(&self, deleted: Side) -> Result<Merged, Reason> {
        let edited = match deleted {
            Side::Local => Side::Remote,
            Side::Remote => Side::Local,
        };
        let version = self.version(edited);
        let unknown = self.unknown_schema(version);
        let doc = if unknown.is_none() { Some(self.edited(edited)?) } else { None };
        if let Some((_, false)) = doc {
            // Written, and nothing changed: no clash.
            return Ok(self.take(deleted, Vec::new()));
        }
        let by = self.version(deleted).stamp;
        let (taken, outcome) = match self.policy.delete {
            Delete::EditWins => (edited, edited.into()),
            Delete::DeleteWins => (deleted, deleted.into()),
            Delete::LastWriteWins => {
                let edit = doc.as_ref().and_then(|(doc, _)| doc.latest()).unwrap_or(version.stamp);
                let later = if edit > by { edited } else { deleted };
                (later, later.into())
            }
            Delete::Manual => (edited, Taken::Open),
        };
        let document = |side| Slot(if side == deleted { None } else { shown(version) });
        let decision = Decision {
            path: Vec::new(),
            rule: "delete".to_owned(),
            outcome,
            local: document(Side::Local),
            remote: document(Side::Remote),
            merged: document(taken),
        };
        match (outcome, doc, unknown) {
            (Taken::Open, Some((Doc { state: Some(state), deletion, .. }, _)), _) => {
                self.finish(&state, deletion.max(Some(by)), version.schema, vec![decision])
            }
            (Taken::Open, _, Some(reason)) => Err(reason),
            _ => Ok(self.take(taken, vec![decision])),
        }
    }

    /// A side's document, and whether it differs from the base.
    fn edited(&self, side: Side) -> Result<(Doc, bool), Reason> {
        let base = self.base_doc()?;
        let doc = self.load(side, base.as_ref())?;
        let is_changed = base.is_none_or(|base| base.state != doc.state || base.deletion != doc.deletion);
        Ok((doc, is_changed))
    }

    fn edits(&self) -> Result<Merged, Reason> {
        for version in [self.local, self.remote] {
            if let Some(reason) = self.unknown_schema(version) {
                return self.unknown(reason);
            }
        }
        let base = self.base_doc()?;
        let local = self.load(Side::Local, base.as_ref())?;
        let remote = self.load(Side::Remote, base.as_ref())?;
        let (Some(local_state), Some(remote_state)) = (&local.state, &remote.state) else {
            return Ok(self.deletions());
        };
        let rule = &self.policy.document;
        let base_state = base.as_ref().and_then(|base| base.state.as_ref());
        let merged = join(rule, base_state, local_state, remote_state).map_err(|_| Reason::TooManyValues)?;
        let base_deletion = base.as_ref().and_then(|base| base.deletion);
        let deletion = join_deletions(base_deletion, local.deletion, remote.deletion);
        let decisions = decisions(rule, base_state, local_state, remote_state, &merged);
        let is_side = |doc: &Doc| doc.state.as_ref() == Some(&merged) && doc.deletion == deletion;
        match (is_side(&local), is_side(&remote)) {
            (true, true) if self.local.document == self.remote.document => {
                Ok(self.whole(Side::Remote, SameAs::Both, decisions))
            }
            // The same in other bytes: which of them stays must not depend on the side.
            (true, true) if self.local.document < self.remote.document => {
                Ok(self.take(Side::Local, decisions))
            }
            (_, true) => Ok(self.take(Side::Remote, decisions)),
            (true, false) => Ok(self.take(Side::Local, decisions)),
            (false, false) => {
                self.finish(&merged, deletion, self.local.schema.max(self.remote.schema), decisions)
            }
        }
    }

    /// A new document of both.
    fn finish(
        &self,
        state: &State,
        deletion: Option<Stamp>,
        schema: u64,
        decisions: Vec<Decision>,
    ) -> Result<Merged, Reason> {
        let rule = &self.policy.document;
        let bytes = Doc::encode(rule, state, deletion).map_err(|source| Reason::Limit { source })?;
        let objects = self.objects(&bytes);
        let stamp = state.latest().unwrap_or(self.local.stamp);
        let doc = Doc { state: Some(state.clone()), deletion, stamp };
        let open = doc.open(rule);
        Ok(Merged {
            schema,
            document: Some(bytes),
            objects,
            same_as: SameAs::Neither,
            record: self.record(decisions),
            open,
        })
    }

    /// Objects of both sides, but for those that a side took out and nothing in the document names.
    fn objects(&self, document: &[u8]) -> Vec<Object> {
        let values = values_of(document);
        let ids = |version: &Version<'_>| -> BTreeMap<BlobId, Object> {
            version.objects.iter().map(|object| (object.id, object.clone())).collect()
        };
        let (local, remote) = (ids(self.local), ids(self.remote));
        let base_objects = self.base.map(|base| base.objects).unwrap_or_default();
        let base = self.base.map(ids).unwrap_or_default();
        let is_kept = |object: &Object| {
            let id = &object.id;
            (local.contains_key(id) && remote.contains_key(id))
                || !base.contains_key(id)
                || values.iter().any(|value| names(value, *id))
        };
        let mut kept: Vec<Object> = base_objects.iter().filter(|object| is_kept(object)).cloned().collect();
        let mut added: BTreeMap<BlobId, Object> = remote.clone();
        for (id, object) in &local {
            let there = added.entry(*id).or_insert_with(|| object.clone());
            if object.reference > there.reference {
                there.clone_from(object);
            }
        }
        kept.extend(added.into_values().filter(|object| !base.contains_key(&object.id)));
        kept
    }

    fn base_doc(&self) -> Result<Option<Doc>, Reason> {
        let Some(base) = self.base else { return Ok(None) };
        if base.document.is_some() && base.schema > self.policy.newest {
            return Err(Reason::NewerSchema { found: base.schema, known: self.policy.newest });
        }
        Doc::load(&self.policy.document, base, None)
            .map(Some)
            .map_err(|source| Reason::Unreadable { version: "base", source })
    }

    fn load(&self, side: Side, base: Option<&Doc>) -> Result<Doc, Reason> {
        let version = match side {
            Side::Local => "pending",
            Side::Remote => "committed",
        };
        Doc::load(&self.policy.document, self.version(side), base)
            .map_err(|source| Reason::Unreadable { version, source })
    }

    fn unknown_schema(&self, version: &Version<'_>) -> Option<Reason> {
        let (found, policy) = (version.schema, self.policy);
        if found > policy.newest {
            return Some(Reason::NewerSchema { found, known: policy.newest });
        }
        (found < policy.oldest).then_some(Reason::OlderSchema { found, oldest: policy.oldest })
    }

    /// A version of a schema that does not merge.
    fn unknown(&self, reason: Reason) -> Result<Merged, Reason> {
        let newest = self.local.schema.max(self.remote.schema);
        if self.policy.newer == NewerSchema::KeepBoth || newest <= self.policy.newest {
            return Err(reason);
        }
        let key =
            |version: &Version<'_>| (version.schema, version.stamp, version.document.map(<[u8]>::to_vec));
        let taken = if key(self.local) > key(self.remote) { Side::Local } else { Side::Remote };
        let decision = Decision {
            path: Vec::new(),
            rule: "newer-schema".to_owned(),
            outcome: taken.into(),
            local: Slot(shown(self.local)),
            remote: Slot(shown(self.remote)),
            merged: Slot(shown(self.version(taken))),
        };
        Ok(self.take(taken, vec![decision]))
    }
}

/// A document's fields as they stand, for a record; none if it can not be read.
fn shown(version: &Version<'_>) -> Option<Value> {
    let mut fields = Raw::decode(version.document?).ok()?.0;
    fields.remove(crate::meta::KEY);
    Some(Value::Map(fields))
}

/// Everything that a document holds: its fields, and the values that wait in its notes. The stamps there hold ids, too,
/// but of devices.
fn values_of(document: &[u8]) -> Vec<Value> {
    let mut fields = Raw::decode(document).map(|raw| raw.0).unwrap_or_default();
    let root = match fields.remove(crate::meta::KEY) {
        Some(Value::Array(parts)) => parts.into_iter().nth(2),
        _ => None,
    };
    std::iter::once(Value::Map(fields)).chain(root).collect()
}

/// Whether a document names an object: in its fields, or in a value that waits in its notes.
pub fn names_object(document: &[u8], id: BlobId) -> bool {
    values_of(document).iter().any(|value| names(value, id))
}

/// Whether an object's id stands in a value, as bytes or as text.
fn names(value: &Value, id: BlobId) -> bool {
    let text = id.to_string();
    value.any(&mut |value| match value {
        Value::Bytes(bytes) => bytes.as_slice() == id.as_bytes(),
        Value::Text(found) => *found == text,
        _ => false,
    })
}

impl From<Side> for Taken {
    fn from(side: Side) -> Self {
        match side {
            Side::Local => Self::Local,
            Side::Remote => Self::Remote,
        }
    }
}
