//! What the library is told of a host store, as data.

use crate::error::{ClientError, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The tables of a host store that are synced. In JSON: `{"types": {"entry": {"natural_key": ["date"], "references":
/// {"symptomId": "symptom"}}, "symptom": {}}}`. The same on all devices of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostSchema {
    /// By record type.
    pub types: BTreeMap<String, HostType>,
}

/// One table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostType {
    /// Fields whose values say which row it is on every device: strings, whole numbers or truth values, or references.
    /// None: two rows are never the same.
    #[serde(default)]
    pub natural_key: Vec<String>,
    /// Fields that hold a key of another row, or a list of keys, and the type of those rows.
    #[serde(default)]
    pub references: BTreeMap<String, String>,
}

impl HostSchema {
    /// From JSON.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if it is no schema.
    pub fn from_json(text: &str) -> Result<Self> {
        let schema: Self = serde_json::from_str(text)
            .map_err(|error| ClientError::Usage(format!("this is no schema of a host store: {error}")))?;
        schema.check()?;
        Ok(schema)
    }

    pub(crate) fn check(&self) -> Result<()> {
        for (name, of) in &self.types {
            crate::live::check_type(name)?;
            if let Some(target) = of.references.values().find(|target| !self.types.contains_key(*target)) {
                return Err(ClientError::Usage(format!(
                    "\"{name}\" refers to \"{target}\", which is no type"
                )));
            }
            let distinct: BTreeSet<&String> = of.natural_key.iter().collect();
            if distinct.len() != of.natural_key.len() {
                return Err(ClientError::Usage(format!("the natural key of \"{name}\" names a field twice")));
            }
        }
        Ok(())
    }

    pub(crate) fn of(&self, record_type: &str) -> Result<&HostType> {
        let unknown = || ClientError::Usage(format!("the schema has no type \"{record_type}\""));
        self.types.get(record_type).ok_or_else(unknown)
    }

    /// Types, those that are referred to before those that refer to them, as far as there is such an order.
    pub(crate) fn ranks(&self) -> BTreeMap<&str, usize> {
        let mut ranks = BTreeMap::new();
        let mut begun = BTreeSet::new();
        for name in self.types.keys() {
            self.rank(name, &mut begun, &mut ranks);
        }
        ranks
    }

    fn rank<'a>(
        &'a self,
        name: &'a str,
        begun: &mut BTreeSet<&'a str>,
        ranks: &mut BTreeMap<&'a str, usize>,
    ) {
        if !begun.insert(name) {
            return;
        }
        for target in self.types.get(name).into_iter().flat_map(|of| of.references.values()) {
            self.rank(target, begun, ranks);
        }
        ranks.insert(name, ranks.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_read_strictly_and_ordered() {
        let text = r#"{"types": {"entry": {"natural_key": ["date"], "references": {"symptomId": "symptom"}},
                       "symptom": {}, "loop": {"references": {"parent": "loop"}}}}"#;
        let schema = HostSchema::from_json(text).unwrap();
        let ranks = schema.ranks();
        assert!(ranks["symptom"] < ranks["entry"] && ranks.len() == 3);
        for wrong in [
            r#"{"types": {"a": {"references": {"b": "nothing"}}}}"#,
            r#"{"types": {"a": {"natural_key": ["x", "x"]}}}"#,
            r#"{"types": {"lockstep/file": {}}}"#,
            r#"{"types": {"a": {"naturalKey": ["x"]}}}"#,
        ] {
            assert!(HostSchema::from_json(wrong).is_err(), "{wrong}");
        }
    }
}
