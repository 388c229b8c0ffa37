//! Policies as data: what becomes of concurrent edits, by record type and field (docs/MERGING.md).
//!
//! One schema for JSON and CBOR, read strictly: a word, a field or an option that is not known is an error that says
//! where it stands, what is wrong and what to write instead. A policy that was read is sound: nothing is left to
//! find out in the middle of a merge.

mod read;
mod write;

use crate::limits;
use crate::value::{Raw, Value};
use lockstep_proto::cbor::{CodecError, Wire as _};
use std::collections::BTreeMap;

/// Version of the format.
pub const FORMAT: u64 = 1;

/// Why a policy file is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Too long to be read.
    #[error("the policy file is {actual} bytes long, at most {max} are allowed: split it by vault")]
    TooLong {
        /// Length in bytes.
        actual: usize,
        /// Limit in bytes.
        max: usize,
    },
    /// Not JSON.
    #[error("the policy file is no JSON that can be read: mend it at the place that the cause names")]
    Json(#[source] serde_json::Error),
    /// Not CBOR.
    #[error("the policy is no deterministic CBOR map: encode it with this library")]
    Cbor(#[source] CodecError),
    /// Well-formed, but not a policy.
    #[error("{path}: {what}; {advice}")]
    Invalid {
        /// Where, as names joined by dots.
        path: String,
        /// What is wrong there.
        what: String,
        /// What to do.
        advice: String,
    },
}

/// The policies of one app; by default none, and nothing is merged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policies {
    /// By record type.
    pub(crate) types: BTreeMap<String, TypePolicy>,
    /// Of all other types; without it they are not merged.
    pub(crate) default: Option<TypePolicy>,
}

/// What holds for records of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypePolicy {
    /// Oldest schema version whose documents merge by this policy.
    pub(crate) oldest: u64,
    /// Newest schema version that this policy knows.
    pub(crate) newest: u64,
    /// What becomes of a clash in which a document is of a newer schema.
    pub(crate) newer: NewerSchema,
    /// Deletion against edit.
    pub(crate) delete: Delete,
    /// The document as a whole.
    pub(crate) document: Rule,
}

/// A clash with a document of a schema that the policy does not know: it is never merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewerSchema {
    /// Both versions are kept as a conflict.
    KeepBoth,
    /// The document of the newer schema stays, byte for byte.
    NewerWins,
}

/// Deletion against edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delete {
    /// The edited document stays.
    EditWins,
    /// The document goes.
    DeleteWins,
    /// The later of both.
    LastWriteWins,
    /// The document stays, and the deletion waits for somebody to decide.
    Manual,
}

/// What becomes of concurrent edits of one field, or of a whole document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// The later value, by hybrid clock, then by device id.
    LastWriteWins,
    /// A map, merged key by key.
    ThreeWay(FieldRules),
    /// A list as a set: what either side added, without what either side removed; an addition wins.
    Union {
        /// The elements are maps, and this key in them says which are the same.
        key: Option<String>,
    },
    /// The greatest of concurrent values.
    Max(Order),
    /// The least of concurrent values.
    Min(Order),
    /// A whole number; all changes of it add up.
    SumOfDeltas,
    /// Text, merged by lines and words.
    Text,
    /// A list that only grows, in the order of time.
    AppendOnly,
    /// The value that the server has.
    PreferCommitted,
    /// The value that the server has not got yet.
    PreferPending,
    /// Every value is kept until somebody decides.
    Manual,
}

/// Rules of a map's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRules {
    pub(crate) fields: BTreeMap<String, Rule>,
    /// Of all other keys.
    pub(crate) default: Box<Rule>,
}

impl FieldRules {
    pub(crate) fn of(&self, field: &str) -> &Rule {
        self.fields.get(field).unwrap_or(&self.default)
    }
}

/// How `max` and `min` compare: by the place in a list of words, else by the natural order of values. What is not in
/// the list is below all that are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Order(pub(crate) Vec<String>);

impl Order {
    pub(crate) fn rank(&self, value: &Value) -> Option<usize> {
        let Value::Text(text) = value else { return None };
        self.0.iter().position(|word| word == text)
    }
}

impl Rule {
    /// Its word in a policy file.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::LastWriteWins => "last-write-wins",
            Self::ThreeWay(_) => "three-way",
            Self::Union { .. } => "union",
            Self::Max(_) => "max",
            Self::Min(_) => "min",
            Self::SumOfDeltas => "sum-of-deltas",
            Self::Text => "text",
            Self::AppendOnly => "append-only",
            Self::PreferCommitted => "prefer-committed",
            Self::PreferPending => "prefer-pending",
            Self::Manual => "manual",
        }
    }

    /// Whether values of it can wait for a decision.
    fn can_wait(&self) -> bool {
        match self {
            Self::Manual => true,
            Self::ThreeWay(rules) => rules.default.can_wait() || rules.fields.values().any(Self::can_wait),
            _ => false,
        }
    }

    /// Whether the order in which devices reach the server makes no difference: all but the two that name a side.
    pub fn is_order_free(&self) -> bool {
        match self {
            Self::PreferCommitted | Self::PreferPending => false,
            Self::ThreeWay(rules) => {
                rules.default.is_order_free() && rules.fields.values().all(Self::is_order_free)
            }
            _ => true,
        }
    }
}

impl TypePolicy {
    /// Newest schema version that it knows.
    pub const fn schema(&self) -> u64 {
        self.newest
    }

    /// Whether anything in a document of the type can wait for a decision.
    pub fn can_wait(&self) -> bool {
        self.delete == Delete::Manual || self.document.can_wait()
    }

    /// The rule of the document as a whole.
    pub const fn document(&self) -> &Rule {
        &self.document
    }
}

impl Policies {
    /// Reads a JSON file.
    ///
    /// # Errors
    /// [`PolicyError`] says where, what and what to do.
    pub fn from_json(text: &str) -> Result<Self, PolicyError> {
        check_length(text.len())?;
        let value: Value = serde_json::from_str(text).map_err(PolicyError::Json)?;
        read::policies(&value)
    }

    /// Reads the same structure as deterministic CBOR.
    ///
    /// # Errors
    /// [`PolicyError`] says where, what and what to do.
    pub fn from_cbor(bytes: &[u8]) -> Result<Self, PolicyError> {
        check_length(bytes.len())?;
        let raw = Raw::decode(bytes).map_err(PolicyError::Cbor)?;
        read::policies(&Value::Map(raw.0))
    }

    /// The structure as deterministic CBOR.
    pub fn to_cbor(&self) -> Vec<u8> {
        Raw(write::policies(self)).encode()
    }

    /// The structure as JSON.
    pub fn to_json(&self) -> String {
        // Text keys, text, numbers and lists: there is nothing in it that JSON has not.
        serde_json::to_string_pretty(&Raw(write::policies(self))).unwrap_or_default()
    }

    /// The policy of a record type; none if records of this type are not merged.
    pub fn of(&self, record_type: &str) -> Option<&TypePolicy> {
        self.types.get(record_type).or(self.default.as_ref())
    }

    /// The types that have a policy of their own.
    pub fn types(&self) -> impl Iterator<Item = (&str, &TypePolicy)> {
        self.types.iter().map(|(name, policy)| (name.as_str(), policy))
    }
}

fn check_length(actual: usize) -> Result<(), PolicyError> {
    let max = limits::POLICY_BYTES_MAX;
    if actual > max { Err(PolicyError::TooLong { actual, max }) } else { Ok(()) }
}
