//! Versions written by devices 1, 2, 3, ... at minute 1, 2, 3, ...

use lockstep_merge::{
    Fields, Hlc, Merged, Object, Outcome, Policies, Stamp, TypePolicy, Value, Version, View, merge, read,
    write,
};
use lockstep_proto::id::DeviceId;
use serde_json::{Value as Json, json};

/// A version as a device or the server holds it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Held {
    pub(crate) schema: u64,
    pub(crate) stamp: Stamp,
    pub(crate) document: Option<Vec<u8>>,
    pub(crate) objects: Vec<Object>,
}

impl Held {
    pub(crate) fn version(&self) -> Version<'_> {
        let document = self.document.as_deref();
        Version { schema: self.schema, stamp: self.stamp, document, objects: &self.objects }
    }
}

pub(crate) fn stamp(device: u8, minute: u64) -> Stamp {
    let hlc = Hlc { utc_ms: minute * 60_000, counter: 0 };
    Stamp { hlc, device: DeviceId::from_bytes([device; 16]) }
}

pub(crate) fn policies(json: &Json) -> Policies {
    Policies::from_json(&json.to_string()).unwrap_or_else(|error| panic!("{error}"))
}

/// A type of which documents merge by field.
pub(crate) fn by_field(fields: &Json) -> TypePolicy {
    whole(&json!({ "policy": "three-way", "fields": fields, "default": "last-write-wins" }), "edit-wins")
}

pub(crate) fn whole(document: &Json, delete: &str) -> TypePolicy {
    let policy = json!({ "schema": { "oldest": 1, "newest": 2 }, "delete": delete, "document": document });
    policies(&json!({ "lockstep-merge": 1, "types": { "t": policy } })).of("t").unwrap().clone()
}

pub(crate) fn value(json: &Json) -> Value {
    serde_json::from_value(json.clone()).unwrap()
}

pub(crate) fn fields(json: &Json) -> Fields {
    match value(json) {
        Value::Map(fields) => fields,
        _ => panic!("a map"),
    }
}

pub(crate) fn json_of<T: serde::Serialize>(value: &T) -> Json {
    serde_json::to_value(value).unwrap()
}

/// The first version of a record.
pub(crate) fn first(policy: &TypePolicy, by: Stamp, json: &Json) -> Held {
    let document = write(policy, None, fields(json), by).unwrap();
    Held { schema: 1, stamp: by, document: Some(document), objects: Vec::new() }
}

/// A version that replaces another.
pub(crate) fn edit(policy: &TypePolicy, before: &Held, by: Stamp, json: &Json) -> Held {
    let document = write(policy, Some(&before.version()), fields(json), by).unwrap();
    Held { stamp: by, document: Some(document), ..before.clone() }
}

pub(crate) fn deletion(by: Stamp) -> Held {
    Held { schema: 1, stamp: by, document: None, objects: Vec::new() }
}

pub(crate) fn outcome(policy: &TypePolicy, base: Option<&Held>, local: &Held, remote: &Held) -> Outcome {
    let base = base.map(Held::version);
    merge(policy, base.as_ref(), &local.version(), &remote.version())
}

pub(crate) fn merged(policy: &TypePolicy, base: Option<&Held>, local: &Held, remote: &Held) -> Merged {
    match outcome(policy, base, local, remote) {
        Outcome::Merged(merged) => merged,
        Outcome::Conflict(conflict) => panic!("{}", conflict.reason),
    }
}

/// The version that a merge makes of the pending one.
pub(crate) fn held(merged: &Merged, local: &Held) -> Held {
    let document = merged.document.clone();
    Held { schema: merged.schema, stamp: local.stamp, document, objects: merged.objects.clone() }
}

pub(crate) fn view(policy: &TypePolicy, held: &Held) -> View {
    read(policy, &held.version()).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn shown(policy: &TypePolicy, held: &Held) -> Json {
    json_of(&view(policy, held).fields)
}

/// Both versions were made from `base`, by device 1 at minute 2 and by device 2 at minute 3; what becomes of them.
pub(crate) fn clash(policy: &TypePolicy, base: &Json, one: &Json, two: &Json) -> Merged {
    let base = first(policy, stamp(1, 1), base);
    let one = edit(policy, &base, stamp(1, 2), one);
    let two = edit(policy, &base, stamp(2, 3), two);
    let there = merged(policy, Some(&base), &one, &two);
    let back = merged(policy, Some(&base), &two, &one);
    if policy.document().is_order_free() {
        assert!(there.document == back.document, "it makes no difference which side is pending");
    }
    there
}

/// The same, as the app sees it.
#[track_caller]
pub(crate) fn check(policy: &TypePolicy, base: &Json, one: &Json, two: &Json, want: &Json) {
    let merged = clash(policy, base, one, two);
    let local = first(policy, stamp(9, 9), &json!({}));
    let got = shown(policy, &held(&merged, &local));
    assert_eq!(got, *want);
}
