//! Documents of an app: reading, writing, deciding open conflicts.

use crate::meta::{self, NotesError};
use crate::policy::{Rule, TypePolicy};
use crate::stamp::Stamp;
use crate::state::{Register, State, rule_of};
use crate::value::{Fields, Raw, Value};
use lockstep_proto::cbor::{CodecError, Wire as _};
use lockstep_proto::id::BlobId;
use std::collections::BTreeMap;

/// One version of a record, as its envelope has it.
#[derive(Clone, Copy)]
pub struct Version<'a> {
    /// Version of the type's schema.
    pub schema: u64,
    /// The content's clock and the envelope's device.
    pub stamp: Stamp,
    /// The document's bytes; none if the version is a deletion.
    pub document: Option<&'a [u8]>,
    /// Objects that it needs.
    pub objects: &'a [Object],
}

impl std::fmt::Debug for Version<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Version({:?}, [redacted])", self.stamp)
    }
}

/// An object of a document. The document names it by its id, as 16 bytes or as text.
#[derive(Clone, PartialEq, Eq)]
pub struct Object {
    /// Its id.
    pub id: BlobId,
    /// The encoded reference, which merging does not look into.
    pub reference: Vec<u8>,
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Object({}, [redacted])", self.id)
    }
}

/// Why a document is not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// Its bytes are no document.
    #[error("the document is no deterministic CBOR map with text keys")]
    Codec(#[from] CodecError),
    /// What merging noted in it can not be read.
    #[error("the document can not be merged: {0}")]
    Notes(#[from] NotesError),
    /// The app's own key.
    #[error("a document has no field \"~\": it belongs to the library; give the field another name")]
    ReservedField,
    /// Of a later version of the app.
    #[error(
        "the document has schema {found}, this app knows up to {known}: it is kept as it is; update the app"
    )]
    NewerSchema {
        /// Schema found.
        found: u64,
        /// Newest schema that the policy knows.
        known: u64,
    },
    /// A deletion, where a document is needed.
    #[error("the record is deleted: write it anew")]
    Deleted,
    /// A whole document can only become a document.
    #[error("a decision on a whole document is a map of fields: give one, or delete the document")]
    NotADocument,
    /// Nothing to decide.
    #[error("no conflict waits there: list what is open and choose one of it")]
    NothingOpen,
}

/// The library's own key in a document.
pub const NOTES_KEY: &str = meta::KEY;

type Result<T> = std::result::Result<T, DocumentError>;

/// A document as the app sees it.
#[derive(Clone, PartialEq, Eq)]
pub struct View {
    /// Its fields.
    pub fields: Fields,
    /// What waits for a decision.
    pub open: Vec<Open>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View([redacted], {} open)", self.open.len())
    }
}

/// A conflict that waits for somebody to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Open {
    /// Concurrent values of a field, or of the document (empty path). The app sees the last.
    Field {
        /// The field, from the outermost map in.
        path: Vec<String>,
        /// Every value, the earliest first; none where somebody took the field out.
        values: Vec<(Stamp, Option<Value>)>,
    },
    /// Somebody deleted what somebody else edited.
    Deletion {
        /// Who deleted it, and when.
        by: Stamp,
    },
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// This value for the field; none takes it out.
    Field {
        /// The field, as in [`Open::Field`].
        path: Vec<String>,
        /// Its value from now on.
        value: Option<Value>,
    },
    /// The document stays. To have it deleted, delete it.
    KeepDocument,
}

/// A version in parts.
#[derive(Clone)]
pub(crate) struct Doc {
    /// None is a deletion.
    pub(crate) state: Option<State>,
    /// A deletion that waits for a decision.
    pub(crate) deletion: Option<Stamp>,
    /// When the version was written.
    pub(crate) stamp: Stamp,
}

impl Doc {
    /// Reads a version. One without notes was written by a plain writer: what differs from the base is its doing.
    pub(crate) fn load(rule: &Rule, version: &Version<'_>, base: Option<&Self>) -> Result<Self> {
        let stamp = version.stamp;
        let Some(bytes) = version.document else { return Ok(Self { state: None, deletion: None, stamp }) };
        let mut fields = Raw::decode(bytes)?.0;
        if let Some(notes) = fields.remove(meta::KEY) {
            let (state, deletion) = meta::read(rule, fields, &notes)?;
            return Ok(Self { state: Some(state), deletion, stamp });
        }
        Ok(Self::edited(rule, base, fields, version.stamp))
    }

    /// The document after these fields were written over it.
    fn edited(rule: &Rule, before: Option<&Self>, fields: Fields, stamp: Stamp) -> Self {
        let stamp = stamp.after(before.and_then(Self::latest));
        let fields = Value::Map(fields);
        let state = match before.and_then(|before| before.state.as_ref()) {
            Some(before) => before.edit(rule, Some(&fields), stamp),
            None => State::fresh(rule, &fields, stamp),
        };
        Self { state: Some(state), deletion: before.and_then(|before| before.deletion), stamp }
    }

    /// The latest stamp that anything in it has.
    pub(crate) fn latest(&self) -> Option<Stamp> {
        let inside = self.state.as_ref().and_then(State::latest);
        inside.max(self.deletion).max(self.state.is_none().then_some(self.stamp))
    }

    /// The document's bytes, with notes.
    pub(crate) fn encode(rule: &Rule, state: &State, deletion: Option<Stamp>) -> Result<Vec<u8>> {
        let raw = Self::raw(rule, state, deletion);
        raw.check()?;
        let bytes = raw.encode();
        if bytes.len() > Raw::BYTES_MAX {
            return Err(too_long(bytes.len()));
        }
        Ok(bytes)
    }

    fn raw(rule: &Rule, state: &State, deletion: Option<Stamp>) -> Raw {
        let mut fields = match state.visible(rule) {
            Some(Value::Map(fields)) => fields,
            _ => Fields::new(),
        };
        fields.insert(meta::KEY.to_owned(), meta::write(rule, state, deletion));
        Raw(fields)
    }

    pub(crate) fn open(&self, rule: &Rule) -> Vec<Open> {
        let mut open: Vec<Open> = self.deletion.map(|by| Open::Deletion { by }).into_iter().collect();
        if let Some(state) = &self.state {
            open_in(rule, state, &mut Vec::new(), &mut open);
        }
        open
    }
}

fn too_long(actual: usize) -> DocumentError {
    DocumentError::Codec(CodecError::TooLong { what: Raw::NAME, actual, max: Raw::BYTES_MAX })
}

fn open_in(rule: &Rule, state: &State, path: &mut Vec<String>, open: &mut Vec<Open>) {
    match state {
        State::Register(register) if *rule == Rule::Manual && register.is_split() => {
            let values = register.siblings.iter().map(|(stamp, value)| (*stamp, value.clone())).collect();
            open.push(Open::Field { path: path.clone(), values });
        }
        State::Map(children) => {
            for (name, child) in children {
                path.push(name.clone());
                open_in(rule_of(rule, name), child, path, open);
                path.pop();
            }
        }
        _ => {}
    }
}

fn check_schema(policy: &TypePolicy, version: &Version<'_>) -> Result<()> {
    if version.document.is_some() && version.schema > policy.newest {
        return Err(DocumentError::NewerSchema { found: version.schema, known: policy.newest });
    }
    Ok(())
}

/// The fields of a document without any policy; the library's notes stand among them, under [`NOTES_KEY`].
///
/// # Errors
/// [`DocumentError::Codec`].
pub fn decode(bytes: &[u8]) -> Result<Fields> {
    Ok(Raw::decode(bytes)?.0)
}

/// A document as bytes, in their one form.
///
/// # Errors
/// [`DocumentError::ReservedField`], and [`DocumentError::Codec`] beyond a limit.
pub fn encode(fields: Fields) -> Result<Vec<u8>> {
    if fields.contains_key(meta::KEY) {
        return Err(DocumentError::ReservedField);
    }
    let raw = Raw(fields);
    raw.check()?;
    let bytes = raw.encode();
    if bytes.len() > Raw::BYTES_MAX { Err(too_long(bytes.len())) } else { Ok(bytes) }
}

/// Reads a document for the app: its fields without notes, and what waits for a decision.
///
/// # Errors
/// [`DocumentError`]; a document of a newer schema is not read.
pub fn read(policy: &TypePolicy, version: &Version<'_>) -> Result<View> {
    check_schema(policy, version)?;
    let doc = Doc::load(&policy.document, version, None)?;
    let state = doc.state.as_ref().ok_or(DocumentError::Deleted)?;
    let fields = match state.visible(&policy.document) {
        Some(Value::Map(fields)) => fields,
        _ => Fields::new(),
    };
    Ok(View { fields, open: doc.open(&policy.document) })
}

/// Writes a document: notes, beside its fields, which of them this write changed. `before` is the version that the
/// app saw, pending or not; a first version has none and gets no notes.
///
/// # Errors
/// [`DocumentError`]; nothing is written over a document of a newer schema.
pub fn write(
    policy: &TypePolicy,
    before: Option<&Version<'_>>,
    fields: Fields,
    stamp: Stamp,
) -> Result<Vec<u8>> {
    let Some(before) = before else { return encode(fields) };
    if fields.contains_key(meta::KEY) {
        return Err(DocumentError::ReservedField);
    }
    check_schema(policy, before)?;
    let rule = &policy.document;
    let before = Doc::load(rule, before, None)?;
    let after = Doc::edited(rule, Some(&before), fields, stamp);
    let state = after.state.as_ref().ok_or(DocumentError::Deleted)?;
    Doc::encode(rule, state, after.deletion)
}

/// Decides an open conflict; the result is written like any edit.
///
/// # Errors
/// [`DocumentError::NothingOpen`] if none waits there.
pub fn resolve(policy: &TypePolicy, current: &Version<'_>, choice: Choice, stamp: Stamp) -> Result<Vec<u8>> {
    check_schema(policy, current)?;
    let rule = &policy.document;
    let mut doc = Doc::load(rule, current, None)?;
    let stamp = stamp.after(doc.latest());
    let state = doc.state.as_mut().ok_or(DocumentError::Deleted)?;
    match choice {
        Choice::KeepDocument => {
            doc.deletion.take().ok_or(DocumentError::NothingOpen)?;
        }
        Choice::Field { path, value } => {
            match &value {
                Some(Value::Map(fields)) if path.is_empty() && fields.contains_key(meta::KEY) => {
                    return Err(DocumentError::ReservedField);
                }
                Some(Value::Map(_)) => {}
                _ if path.is_empty() => return Err(DocumentError::NotADocument),
                _ => {}
            }
            let (rule, state) = descend(rule, state, &path).ok_or(DocumentError::NothingOpen)?;
            match state {
                State::Register(register) if *rule == Rule::Manual && register.is_split() => {
                    *register = Register::one(stamp, value);
                }
                _ => return Err(DocumentError::NothingOpen),
            }
        }
    }
    Doc::encode(rule, state, doc.deletion)
}

fn descend<'r, 's>(
    rule: &'r Rule,
    state: &'s mut State,
    path: &[String],
) -> Option<(&'r Rule, &'s mut State)> {
    let Some((name, rest)) = path.split_first() else { return Some((rule, state)) };
    let children: &mut BTreeMap<String, State> = match state {
        State::Map(children) => children,
        _ => return None,
    };
    descend(rule_of(rule, name), children.get_mut(name)?, rest)
}
