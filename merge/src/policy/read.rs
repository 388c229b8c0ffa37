//! Policies from the structure that is read.

use super::{Delete, FORMAT, FieldRules, NewerSchema, Order, Policies, PolicyError, Rule, TypePolicy};
use crate::limits;
use crate::value::{Fields, Value};
use lockstep_proto::limits::RECORD_TYPE_BYTES_MAX;
use std::collections::{BTreeMap, BTreeSet};

type Result<T> = std::result::Result<T, PolicyError>;

/// A name in a message is cut to so many letters.
const SHOWN_MAX: usize = 64;

const RULES: &str = "last-write-wins, three-way, union, max, min, sum-of-deltas, text, append-only, \
                     prefer-committed, prefer-pending or manual";
const WHOLE_RULES: &str = "three-way, last-write-wins, manual, prefer-committed or prefer-pending";

fn invalid<T>(path: &str, what: impl Into<String>, advice: impl Into<String>) -> Result<T> {
    Err(PolicyError::Invalid { path: path.to_owned(), what: what.into(), advice: advice.into() })
}

fn shown(name: &str) -> String {
    let mut short: String = name.chars().take(SHOWN_MAX).collect();
    if short.len() < name.len() {
        short.push('…');
    }
    format!("\"{}\"", short.escape_debug())
}

fn below(path: &str, name: &str) -> String {
    let name: String = name.chars().take(SHOWN_MAX).collect();
    format!("{path}.{}", name.escape_debug())
}

/// A map of which every key is asked for; what is left over is an error.
struct Open<'a> {
    path: &'a str,
    left: BTreeMap<&'a str, &'a Value>,
    known: Vec<&'static str>,
}

impl<'a> Open<'a> {
    fn new(path: &'a str, value: &'a Value) -> Result<Self> {
        let left = map(path, value)?.iter().map(|(key, value)| (key.as_str(), value)).collect();
        Ok(Self { path, left, known: Vec::new() })
    }

    fn take(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.push(key);
        self.left.remove(key)
    }

    fn need(&mut self, key: &'static str, advice: &str) -> Result<&'a Value> {
        match self.take(key) {
            Some(value) => Ok(value),
            None => invalid(self.path, format!("\"{key}\" is missing"), advice),
        }
    }

    fn finish(self) -> Result<()> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(key) => invalid(
                self.path,
                format!("{} is not known here", shown(key)),
                format!("take it out, or write one of: {}", self.known.join(", ")),
            ),
        }
    }
}

fn map<'a>(path: &str, value: &'a Value) -> Result<&'a Fields> {
    match value {
        Value::Map(fields) => Ok(fields),
        _ => invalid(path, "this is no map", "write { ... }"),
    }
}

fn text<'a>(path: &str, value: &'a Value) -> Result<&'a str> {
    match value {
        Value::Text(text) => Ok(text),
        _ => invalid(path, "this is no text", "write a word in quotes"),
    }
}

fn number(path: &str, value: &Value) -> Result<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
    .map_or_else(|| invalid(path, "this is no whole number from 0", "write a number such as 1"), Ok)
}

/// One of a few words.
fn word<T: Copy>(path: &str, value: &Value, words: &[(&'static str, T)]) -> Result<T> {
    let found = text(path, value)?;
    if let Some((_, meant)) = words.iter().find(|(word, _)| *word == found) {
        return Ok(*meant);
    }
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    invalid(path, format!("{} is not known", shown(found)), format!("write one of: {}", known.join(", ")))
}

pub(super) fn policies(value: &Value) -> Result<Policies> {
    let path = "policy";
    let mut open = Open::new(path, value)?;
    let version = open.need("lockstep-merge", "write \"lockstep-merge\": 1, the version of the format")?;
    let version = number("policy.lockstep-merge", version)?;
    if version != FORMAT {
        return invalid(
            "policy.lockstep-merge",
            format!("format {version} is not known, this library reads format {FORMAT}"),
            "update the app, or write the policy in format 1",
        );
    }
    let types = open.need("types", "write \"types\": { \"your type\": { ... } }")?;
    let types = map("policy.types", types)?;
    if types.len() > limits::TYPES_MAX {
        return invalid("policy.types", format!("{} types, at most 256", types.len()), "merge some of them");
    }
    let mut read = BTreeMap::new();
    for (name, value) in types {
        let path = below("policy.types", name);
        if name.is_empty() || name.len() > RECORD_TYPE_BYTES_MAX {
            return invalid(&path, "a type's name has 1 to 128 bytes", "give it another name");
        }
        if name.starts_with("lockstep/") {
            return invalid(&path, "types that begin with lockstep/ belong to the library", "take it out");
        }
        read.insert(name.clone(), type_policy(&path, value)?);
    }
    let default = open.take("default").map(|value| type_policy("policy.default", value)).transpose()?;
    open.finish()?;
    Ok(Policies { types: read, default })
}

fn type_policy(path: &str, value: &Value) -> Result<TypePolicy> {
    let mut open = Open::new(path, value)?;
    let schema = open.need("schema", "write \"schema\": { \"oldest\": 1, \"newest\": 1 }")?;
    let (oldest, newest, newer) = schema_range(&below(path, "schema"), schema)?;
    let choices = [
        ("edit-wins", Delete::EditWins),
        ("delete-wins", Delete::DeleteWins),
        ("last-write-wins", Delete::LastWriteWins),
        ("manual", Delete::Manual),
    ];
    let delete = open.need(
        "delete",
        "declare what becomes of a deletion against an edit: edit-wins, delete-wins, last-write-wins or manual",
    )?;
    let delete = word(&below(path, "delete"), delete, &choices)?;
    let document = open.need("document", "write \"document\": { \"policy\": \"three-way\", ... }")?;
    let document_path = below(path, "document");
    let document = rule(&document_path, document, 0)?;
    open.finish()?;
    check_whole(path, &document_path, &document, delete)?;
    Ok(TypePolicy { oldest, newest, newer, delete, document })
}

fn check_whole(path: &str, document_path: &str, document: &Rule, delete: Delete) -> Result<()> {
    match document {
        Rule::ThreeWay(_)
        | Rule::LastWriteWins
        | Rule::Manual
        | Rule::PreferCommitted
        | Rule::PreferPending => {}
        _ => {
            return invalid(
                document_path,
                format!("\"{}\" is for a field, not for a document", document.word()),
                format!("write one of: {WHOLE_RULES}"),
            );
        }
    }
    if delete == Delete::LastWriteWins && *document != Rule::LastWriteWins {
        return invalid(
            path,
            format!("\"delete\": \"last-write-wins\" contradicts \"document\": \"{}\"", document.word()),
            "a document of which fields merge has no one time: declare edit-wins, delete-wins or manual, or make \
             the document last-write-wins, too",
        );
    }
    Ok(())
}

fn schema_range(path: &str, value: &Value) -> Result<(u64, u64, NewerSchema)> {
    let mut open = Open::new(path, value)?;
    let oldest =
        open.need("oldest", "write the oldest schema version whose documents still merge, such as 1")?;
    let oldest = number(&below(path, "oldest"), oldest)?;
    let newest = open.need("newest", "write the schema version that the app writes, such as 1")?;
    let newest = number(&below(path, "newest"), newest)?;
    let words = [("keep-both", NewerSchema::KeepBoth), ("newer-wins", NewerSchema::NewerWins)];
    let newer = open.take("newer").map(|value| word(&below(path, "newer"), value, &words)).transpose()?;
    open.finish()?;
    if oldest > newest {
        let what = format!("oldest {oldest} contradicts newest {newest}");
        return invalid(path, what, "let oldest be at most newest");
    }
    Ok((oldest, newest, newer.unwrap_or(NewerSchema::KeepBoth)))
}

fn rule(path: &str, value: &Value, depth: usize) -> Result<Rule> {
    if let Value::Text(name) = value {
        return plain_rule(path, name);
    }
    let mut open = match value {
        Value::Map(_) => Open::new(path, value)?,
        _ => return invalid(path, "this is no policy", format!("write one of: {RULES}")),
    };
    let name = open.need("policy", &format!("write \"policy\": and one of: {RULES}"))?;
    let read = match text(&below(path, "policy"), name)? {
        "three-way" => Rule::ThreeWay(field_rules(path, &mut open, depth)?),
        "union" => {
            let key = open.take("key").map(|key| key_name(&below(path, "key"), key)).transpose()?;
            Rule::Union { key }
        }
        "max" => Rule::Max(order(path, &mut open)?),
        "min" => Rule::Min(order(path, &mut open)?),
        other => plain_rule(&below(path, "policy"), other)?,
    };
    open.finish()?;
    Ok(read)
}

fn plain_rule(path: &str, name: &str) -> Result<Rule> {
    Ok(match name {
        "last-write-wins" => Rule::LastWriteWins,
        "union" => Rule::Union { key: None },
        "max" => Rule::Max(Order::default()),
        "min" => Rule::Min(Order::default()),
        "sum-of-deltas" => Rule::SumOfDeltas,
        "text" => Rule::Text,
        "append-only" => Rule::AppendOnly,
        "prefer-committed" => Rule::PreferCommitted,
        "prefer-pending" => Rule::PreferPending,
        "manual" => Rule::Manual,
        "three-way" => {
            let advice = "write { \"policy\": \"three-way\", \"default\": \"last-write-wins\" }";
            return invalid(path, "\"three-way\" does not say what becomes of each key", advice);
        }
        _ => {
            return invalid(path, format!("{} is no policy", shown(name)), format!("write one of: {RULES}"));
        }
    })
}

fn field_rules(path: &str, open: &mut Open<'_>, depth: usize) -> Result<FieldRules> {
    if depth >= limits::POLICY_DEPTH_MAX {
        return invalid(
            path,
            "more than 4 three-way policies inside each other",
            "merge the inner map as a whole",
        );
    }
    let inner = depth.saturating_add(1);
    let default = open.need("default", "declare what holds for fields that the policy does not name")?;
    let default = Box::new(rule(&below(path, "default"), default, inner)?);
    let mut fields = BTreeMap::new();
    if let Some(value) = open.take("fields") {
        let path = below(path, "fields");
        let named = map(&path, value)?;
        if named.len() > limits::FIELDS_MAX {
            return invalid(
                &path,
                format!("{} fields, at most 1,024", named.len()),
                "leave some to the default",
            );
        }
        for (name, value) in named {
            let path = below(&path, name);
            if name.is_empty() || name.len() > limits::KEY_BYTES_MAX {
                return invalid(&path, "a field's name has 1 to 256 bytes", "give it another name");
            }
            if depth == 0 && name == crate::meta::KEY {
                return invalid(
                    &path,
                    "the name \"~\" belongs to the library",
                    "give the field another name",
                );
            }
            fields.insert(name.clone(), rule(&path, value, inner)?);
        }
    }
    Ok(FieldRules { fields, default })
}

fn key_name(path: &str, value: &Value) -> Result<String> {
    let name = text(path, value)?;
    if name.is_empty() || name.len() > limits::KEY_BYTES_MAX {
        return invalid(path, "a key's name has 1 to 256 bytes", "write the key that tells elements apart");
    }
    Ok(name.to_owned())
}

fn order(path: &str, open: &mut Open<'_>) -> Result<Order> {
    let Some(value) = open.take("order") else { return Ok(Order::default()) };
    let path = below(path, "order");
    let Value::Array(items) = value else {
        return invalid(&path, "this is no list", "write the words from the least to the greatest");
    };
    if items.is_empty() || items.len() > limits::ORDER_MAX {
        return invalid(
            &path,
            format!("{} words", items.len()),
            "write 1 to 64 words, from the least to the greatest",
        );
    }
    let words: Vec<String> =
        items.iter().map(|item| text(&path, item).map(str::to_owned)).collect::<Result<_>>()?;
    let mut seen = BTreeSet::new();
    if let Some(twice) = words.iter().find(|word| !seen.insert(word.as_str())) {
        return invalid(&path, format!("{} stands twice", shown(twice)), "let every word have one place");
    }
    Ok(Order(words))
}
