//! Rows of a host store: their keys, the names of their records, and what is kept of them.

use super::Fields;
use super::schema::{HostSchema, HostType};
use crate::documents::Document;
use crate::error::{ClientError, Result};
use crate::replica::{SchemaTag, StoreKey, VaultReplica};
use crate::rng;
use crate::vault::Vault;
use lockstep_proto::id::RecordId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// Key of a row in the host store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HostKey {
    /// A number, such as `++id` gives.
    Number(i64),
    /// A text, such as a UUID.
    Text(String),
}

impl From<i64> for HostKey {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl HostKey {
    /// No two keys have the same.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Number(number) => format!("n{number}"),
            Self::Text(text) => format!("t{text}"),
        }
    }

    pub(crate) fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => number.as_i64().map(Self::Number),
            Value::String(text) => Some(Self::Text(text.clone())),
            _ => None,
        }
    }

    pub(crate) fn to_value(&self) -> Value {
        match self {
            Self::Number(number) => (*number).into(),
            Self::Text(text) => text.clone().into(),
        }
    }
}

/// Names that are no text (of conflict copies) are written so.
const HEX: &str = "x:";

/// A record's name as a text.
pub(crate) fn name_text(name: &[u8]) -> String {
    let text = std::str::from_utf8(name).ok();
    let text = text.filter(|text| !text.starts_with(HEX) && !text.chars().any(char::is_control));
    text.map_or_else(|| format!("{HEX}{}", rng::hex(name)), str::to_owned)
}

/// The name that a text stands for.
pub(crate) fn name_bytes(text: &str) -> Vec<u8> {
    let digits = text.strip_prefix(HEX).filter(|digits| digits.len().is_multiple_of(2) && digits.is_ascii());
    let bytes = digits.and_then(|digits| {
        let pairs = digits.as_bytes().chunks(2);
        pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
    });
    bytes.unwrap_or_else(|| text.as_bytes().to_vec())
}

/// A name that is the same on every device for rows with the same natural key; none if the row has no such key. `nth`
/// tells rows apart whose record went on to another key since.
pub(crate) fn natural_name(of: &HostType, document: &Fields, nth: u32) -> Result<Option<String>> {
    if of.natural_key.is_empty() {
        return Ok(None);
    }
    let mut values = Vec::new();
    for field in &of.natural_key {
        match document.get(field) {
            None | Some(Value::Null) => return Ok(None),
            Some(value @ (Value::String(_) | Value::Bool(_))) => values.push(value),
            Some(value @ Value::Number(number)) if !number.is_f64() => values.push(value),
            Some(_) => {
                return Err(ClientError::Usage(format!(
                    "field \"{field}\" of a natural key is no text, whole number or truth value"
                )));
            }
        }
    }
    let text = serde_json::to_string(&values)
        .map_err(|_| ClientError::Usage("a natural key can not be written".into()))?;
    Ok(Some(if nth == 0 { format!("k:{text}") } else { format!("k:{text}#{nth}") }))
}

/// A name that nobody else has.
pub(crate) fn minted_name() -> String {
    format!("r:{}", rng::hex(&rng::bytes::<16>()))
}

/// References to rows that had no key in the store, as field and name.
pub(crate) type Withheld = BTreeSet<(String, String)>;

/// What is kept of a row.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    #[serde(rename = "t")]
    pub(crate) record_type: String,
    #[serde(rename = "n")]
    pub(crate) name: String,
    #[serde(rename = "k")]
    pub(crate) key: Option<HostKey>,
    /// The document as the store has it, references as names; none: it has none.
    #[serde(rename = "d")]
    pub(crate) known: Option<Fields>,
    /// Whether the store deleted it: its key may come to name another row.
    #[serde(rename = "x", default)]
    pub(crate) is_deleted: bool,
    /// Counts what the store handed in.
    #[serde(rename = "e", default)]
    pub(crate) edits: u64,
    /// References in it that the store was not shown.
    #[serde(rename = "w", default)]
    pub(crate) withheld: Withheld,
    /// Whether it has to be shown whatever is known: the store may have written over what it handed in, or the other way.
    #[serde(rename = "m", default)]
    pub(crate) must_show: bool,
}

impl Row {
    pub(crate) fn new(record_type: &str, name: String) -> Self {
        let record_type = record_type.to_owned();
        Self {
            record_type,
            name,
            key: None,
            known: None,
            is_deleted: false,
            edits: 0,
            withheld: Withheld::new(),
            must_show: false,
        }
    }

    /// Whether it is looked at again although nothing was committed.
    fn is_owed(&self) -> bool {
        self.must_show || !self.withheld.is_empty()
    }
}

/// A document as an object, if it is one.
pub(crate) fn fields_of(document: &Document) -> Option<Fields> {
    match document.json() {
        Some(Value::Object(fields)) => Some(fields),
        _ => None,
    }
}

/// A store's rows of one vault.
pub(crate) struct Rows<'a> {
    pub(crate) vault: &'a Vault,
    pub(crate) store: StoreKey,
    pub(crate) schema: &'a HostSchema,
}

impl Rows<'_> {
    pub(crate) fn replica(&self) -> &VaultReplica {
        self.vault.replica()
    }

    /// The document that is here, writes that wait included; none if it is not there, or not a store's to read.
    pub(crate) fn here(&self, record: RecordId) -> Result<Option<Fields>> {
        Ok(self.vault.document(record)?.as_ref().and_then(fields_of))
    }

    pub(crate) fn record(&self, record_type: &str, name: &str) -> RecordId {
        self.vault.setup().keys.record_id(record_type, &name_bytes(name))
    }

    pub(crate) fn row(&self, record: RecordId) -> Result<Option<Row>> {
        let Some(plain) = self.replica().host_row(self.store, record)? else { return Ok(None) };
        serde_json::from_slice(&plain)
            .map_err(|_| ClientError::Damaged("the local database is damaged: a row of a host store".into()))
    }

    /// Looks at a record again, whatever is committed.
    pub(crate) fn owe(&self, record: RecordId) -> Result<()> {
        match self.row(record)? {
            Some(row) if row.must_show => Ok(()),
            Some(row) => self.set(&Row { must_show: true, ..row }),
            None if self.replica().host_row(self.store, record)?.is_some() => Ok(()),
            // Nobody knows its type and name: no row.
            None => self.replica().set_host_row(self.store, record, None, true, b"null"),
        }
    }

    /// Says which schema this is.
    pub(crate) fn schema_tag(&self) -> SchemaTag {
        self.replica().schema_tag(&serde_json::to_vec(self.schema).unwrap_or_default())
    }

    /// The key under which the store has a row; none if it has no such row.
    pub(crate) fn key_of(&self, record: RecordId) -> Result<Option<HostKey>> {
        Ok(self.row(record)?.and_then(|row| row.key.filter(|_| !row.is_deleted)))
    }

    pub(crate) fn row_of_key(&self, record_type: &str, key: &HostKey) -> Result<Option<Row>> {
        let Some(record) = self.replica().host_record(self.store, (record_type, &key.text()))? else {
            return Ok(None);
        };
        self.row(record)
    }

    pub(crate) fn set(&self, row: &Row) -> Result<()> {
        let plain = zeroize::Zeroizing::new(serde_json::to_vec(row).unwrap_or_default());
        let key = row.key.as_ref().map(HostKey::text);
        let key = key.as_deref().map(|key| (row.record_type.as_str(), key));
        let record = self.record(&row.record_type, &row.name);
        self.replica().set_host_row(self.store, record, key, row.is_owed(), &plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_of_the_natural_key_alone() {
        let of = HostType { natural_key: vec!["date".into(), "n".into()], ..HostType::default() };
        let name = |value: Value| natural_name(&of, value.as_object().unwrap(), 0);
        let one = name(json!({"date": "2026-01-01", "n": 1, "mood": 3})).unwrap();
        assert_eq!(one.as_deref(), Some("k:[\"2026-01-01\",1]"));
        assert_eq!(name(json!({"n": 1, "date": "2026-01-01"})).unwrap(), one);
        assert_ne!(name(json!({"n": "1", "date": "2026-01-01"})).unwrap(), one);
        assert_eq!(name(json!({"date": null, "n": 1})).unwrap(), None);
        assert!(name(json!({"date": 1.5, "n": 1})).is_err());
        assert_ne!(minted_name(), minted_name());
    }

    #[test]
    fn every_name_has_a_text_and_comes_back() {
        for name in [&b"r:12"[..], b"k:[1]\0\xff\x01", b"x:00", b""] {
            assert_eq!(name_bytes(&name_text(name)), name);
        }
    }
}
