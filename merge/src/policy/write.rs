//! Policies to the structure that is written.

use super::{Delete, FORMAT, NewerSchema, Order, Policies, Rule, TypePolicy};
use crate::value::{Fields, Value};

pub(super) fn policies(policies: &Policies) -> Fields {
    let types = policies.types.iter().map(|(name, policy)| (name.clone(), type_policy(policy)));
    let mut out = Fields::from([
        ("lockstep-merge".to_owned(), Value::Int(FORMAT.into())),
        ("types".to_owned(), Value::Map(types.collect())),
    ]);
    if let Some(default) = &policies.default {
        out.insert("default".to_owned(), type_policy(default));
    }
    out
}

fn type_policy(policy: &TypePolicy) -> Value {
    let newer = match policy.newer {
        NewerSchema::KeepBoth => "keep-both",
        NewerSchema::NewerWins => "newer-wins",
    };
    let schema = Fields::from([
        ("oldest".to_owned(), Value::Int(policy.oldest.into())),
        ("newest".to_owned(), Value::Int(policy.newest.into())),
        ("newer".to_owned(), Value::text(newer)),
    ]);
    let delete = match policy.delete {
        Delete::EditWins => "edit-wins",
        Delete::DeleteWins => "delete-wins",
        Delete::LastWriteWins => "last-write-wins",
        Delete::Manual => "manual",
    };
    Value::Map(Fields::from([
        ("schema".to_owned(), Value::Map(schema)),
        ("delete".to_owned(), Value::text(delete)),
        ("document".to_owned(), rule(&policy.document)),
    ]))
}

fn rule(of: &Rule) -> Value {
    let word = ("policy".to_owned(), Value::text(of.word()));
    match of {
        Rule::ThreeWay(rules) => {
            let fields = rules.fields.iter().map(|(name, of)| (name.clone(), rule(of)));
            Value::Map(Fields::from([
                word,
                ("fields".to_owned(), Value::Map(fields.collect())),
                ("default".to_owned(), rule(&rules.default)),
            ]))
        }
        Rule::Union { key: Some(key) } => {
            Value::Map(Fields::from([word, ("key".to_owned(), Value::text(key))]))
        }
        Rule::Max(Order(words)) | Rule::Min(Order(words)) if !words.is_empty() => {
            let words = words.iter().map(|word| Value::text(word)).collect();
            Value::Map(Fields::from([word, ("order".to_owned(), Value::Array(words))]))
        }
        _ => word.1,
    }
}
