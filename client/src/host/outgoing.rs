//! What a host store hands in.

use super::join::{Newer, join};
use super::row::{HostKey, Row, Rows, Withheld, minted_name, name_bytes, natural_name};
use super::{Fields, HostWrite, Taken};
use crate::documents::{NewDocument, fields_from_json};
use crate::error::{ClientError, Result};
use crate::live::deletion;
use lockstep_engine::NewRecord;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Rows with one natural key that are told apart by a number.
const SAME_KEY_MAX: u32 = 64;

/// What becomes of what is handed in.
pub(crate) struct Outgoing<'a> {
    rows: Rows<'a>,
    newer: Newer,
    /// Rows of this batch that are new, by type and key: others of it may refer to them.
    batch: BTreeMap<(&'a str, &'a HostKey), &'a Fields>,
    /// Rows whose names are being looked for.
    begun: BTreeSet<(String, HostKey)>,
}

impl<'a> Outgoing<'a> {
    pub(crate) fn new(rows: Rows<'a>, newer: Newer, writes: &'a [HostWrite]) -> Self {
        let mut batch = BTreeMap::new();
        for write in writes {
            if let Some(document) = &write.document {
                batch.entry((write.record_type.as_str(), &write.key)).or_insert(document);
            }
        }
        Self { rows, newer, batch, begun: BTreeSet::new() }
    }

    /// Takes one write: gives what is to be written to the vault. A write that was handed in before has no effect.
    pub(crate) fn take(&mut self, write: &HostWrite) -> Result<(Taken, Vec<NewRecord>)> {
        self.rows.schema.of(&write.record_type)?;
        if !self.rows.replica().note_host_change(self.rows.store, &write.change)? {
            return Ok((Taken::Before, Vec::new()));
        }
        let Some(fields) = &write.document else { return self.delete(write) };
        let mut row = self.row_for(&write.record_type, &write.key, Some(fields))?;
        let (portable, withheld) = self.portable(&write.record_type, fields, Some(&row))?;
        let record = self.rows.record(&row.record_type, &row.name);
        let here = self.rows.here(record)?;
        let mut records = Vec::new();
        let mut put = |fields: &Fields| -> Result<()> {
            records.push(self.new_record(&row, Some(fields))?);
            Ok(())
        };
        match &here {
            Some(here) if *here == portable => {}
            Some(here) if row.known.as_ref() != Some(here) => {
                // The store did not see what is here. What it wrote is kept in the history, too.
                let joined = join(row.known.as_ref(), &portable, here, self.newer);
                put(&portable)?;
                if joined != portable {
                    put(&joined)?;
                }
            }
            _ => put(&portable)?,
        }
        (row.known, row.is_deleted, row.withheld) = (Some(portable), false, withheld);
        self.keep(row)?;
        Ok((Taken::Now, records))
    }

    fn delete(&mut self, write: &HostWrite) -> Result<(Taken, Vec<NewRecord>)> {
        let Some(mut row) = self.rows.row_of_key(&write.record_type, &write.key)? else {
            return Ok((Taken::Now, Vec::new()));
        };
        let record = self.rows.record(&row.record_type, &row.name);
        let here = self.rows.here(record)?;
        let mut records = Vec::new();
        // An edit that the store did not see stays, and comes back to it.
        if here.is_some() && here == row.known {
            records.push(self.new_record(&row, None)?);
        }
        (row.known, row.is_deleted, row.withheld) = (None, true, Withheld::new());
        self.keep(row)?;
        Ok((Taken::Now, records))
    }

    fn keep(&self, mut row: Row) -> Result<()> {
        row.edits = row.edits.saturating_add(1);
        self.rows.set(&row)
    }

    /// The row of a key; it gets its name now if it has none.
    fn row_for(&mut self, record_type: &str, key: &HostKey, fields: Option<&Fields>) -> Result<Row> {
        let known = self.rows.row_of_key(record_type, key)?;
        if let Some(row) = known.as_ref().filter(|row| !row.is_deleted || fields.is_none()) {
            return Ok(row.clone());
        }
        let name = self.name_for(record_type, key, fields)?;
        if let Some(mut old) = known {
            if old.name == name {
                return Ok(old);
            }
            // After a deletion the key names another row.
            old.key = None;
            self.rows.set(&old)?;
        }
        let record = self.rows.record(record_type, &name);
        let row = match self.rows.row(record)? {
            Some(row) => Row { key: Some(key.clone()), ..row },
            None => Row { key: Some(key.clone()), ..Row::new(record_type, name) },
        };
        self.rows.set(&row)?;
        Ok(row)
    }

    fn name_for(&mut self, record_type: &str, key: &HostKey, fields: Option<&Fields>) -> Result<String> {
        let of = self.rows.schema.of(record_type)?;
        if of.natural_key.is_empty() {
            return Ok(minted_name());
        }
        let Some(fields) = fields else {
            return Err(ClientError::Usage(format!(
                "a row refers to row {} of \"{record_type}\", which was not handed in; hand it in before, or with it",
                key.text().get(1..).unwrap_or_default()
            )));
        };
        let place = (record_type.to_owned(), key.clone());
        if !self.begun.insert(place.clone()) {
            return Err(ClientError::Usage(format!("natural keys of \"{record_type}\" refer to each other")));
        }
        let of_key: Fields = fields
            .iter()
            .filter(|(field, _)| of.natural_key.contains(field))
            .map(|(field, value)| (field.clone(), value.clone()))
            .collect();
        let (portable, _) = self.portable(record_type, &of_key, None)?;
        self.begun.remove(&place);
        for nth in 0..SAME_KEY_MAX {
            let Some(name) = natural_name(of, &portable, nth)? else { break };
            let record = self.rows.record(record_type, &name);
            let is_taken = self
                .rows
                .row(record)?
                .is_some_and(|row| !row.is_deleted && row.key.is_some_and(|of_row| of_row != *key));
            let still_has_it = match self.rows.here(record)? {
                Some(here) => natural_name(of, &here, nth)?.as_ref() == Some(&name),
                None => true,
            };
            if !is_taken && still_has_it {
                return Ok(name);
            }
        }
        Ok(minted_name())
    }

    /// The document with names in the place of keys, and what of a row's withheld references is still in it.
    fn portable(
        &mut self,
        record_type: &str,
        fields: &Fields,
        row: Option<&Row>,
    ) -> Result<(Fields, Withheld)> {
        let references = self.rows.schema.of(record_type)?.references.clone();
        let mut portable = fields.clone();
        let mut kept = Withheld::new();
        for (field, target) in references {
            let before = row.and_then(|row| row.known.as_ref()).and_then(|known| known.get(&field));
            let of_field = row.into_iter().flat_map(|row| &row.withheld).filter(|(of, _)| *of == field);
            let mut withheld: Vec<&str> = of_field.map(|(_, name)| name.as_str()).collect();
            let keys = match fields.get(&field) {
                None | Some(Value::Null) => None,
                Some(Value::Array(keys)) => Some(keys.as_slice()),
                Some(key) => {
                    let name = self.name_of(&target, &field, key)?;
                    portable.insert(field, Value::String(name));
                    continue;
                }
            };
            let mut names = Vec::new();
            for key in keys.unwrap_or_default() {
                names.push(self.name_of(&target, &field, key)?);
            }
            withheld.retain(|name| !names.iter().any(|of_store| of_store == name));
            // What the store was not shown it did not take out either.
            if keys.is_some() || !withheld.is_empty() {
                portable.insert(field.clone(), with_withheld(names, &withheld, before));
            }
            kept.extend(withheld.into_iter().map(|name| (field.clone(), name.to_owned())));
        }
        Ok((portable, kept))
    }

    fn name_of(&mut self, target: &str, field: &str, key: &Value) -> Result<String> {
        let key = HostKey::from_value(key)
            .ok_or_else(|| ClientError::Usage(format!("field \"{field}\" holds no key of \"{target}\"")))?;
        if let Some(row) = self.rows.row_of_key(target, &key)? {
            return Ok(row.name);
        }
        let fields = self.batch.get(&(target, &key)).map(|fields| (*fields).clone());
        Ok(self.row_for(target, &key, fields.as_ref())?.name)
    }

    /// As the engine takes it: merged by the policy of its type, if there is one. A store knows nothing of objects and
    /// schemas; those of what is here stay.
    fn new_record(&self, row: &Row, fields: Option<&Fields>) -> Result<NewRecord> {
        let name = name_bytes(&row.name);
        let vault = self.rows.vault;
        let here = match fields {
            Some(_) => vault.document(self.rows.record(&row.record_type, &row.name))?,
            None => None,
        };
        if vault.policies().of(&row.record_type).is_none() {
            let bytes = fields.map(|fields| serde_json::to_vec(fields).unwrap_or_default());
            let new = NewRecord { document: bytes, ..deletion(&row.record_type, &name) };
            return Ok(match here {
                Some(here) => NewRecord { schema: here.schema, blobs: here.blobs, ..new },
                None => new,
            });
        }
        let json = fields.map(|fields| fields_from_json(Value::Object(fields.clone())));
        vault.new_record(NewDocument {
            record_type: row.record_type.clone(),
            name,
            schema: None,
            fields: json.transpose()?,
            blobs: here.map_or_else(Vec::new, |here| here.blobs),
            seen: None,
            expected: None,
        })
    }
}

/// A reference as it was before, if the store changed nothing of what it was shown; else what it says and what it was not
/// shown.
fn with_withheld(names: Vec<String>, withheld: &[&str], before: Option<&Value>) -> Value {
    match before {
        Some(Value::Array(all)) => {
            let shown = all.iter().filter_map(Value::as_str).filter(|name| !withheld.contains(name));
            if shown.eq(names.iter().map(String::as_str)) {
                return Value::Array(all.clone());
            }
        }
        Some(name @ Value::String(_)) if names.is_empty() && !withheld.is_empty() => return name.clone(),
        _ => {}
    }
    names.into_iter().chain(withheld.iter().map(|name| (*name).to_owned())).map(Value::String).collect()
}
