//! The test vectors of `vectors/`: how they are made from fixed randomness ([`make`]), and how a file is read again
//! ([`run`]). `vectors/README.md` has the format.

#![allow(
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    reason = "cases are written down in place, and every op has one signature"
)]

pub mod json;
pub mod make;
pub mod run;
pub mod world;

pub use json::{Fault, In, hex, unhex};
use serde_json::{Map, Value, json};

/// One file, before it is written.
pub struct File {
    /// Path below `vectors/`.
    pub path: String,
    /// What is in it.
    pub value: Value,
    /// Cases that are not what their maker says.
    pub wrong: Vec<String>,
}

/// Every file of `golden/` and `reject/`: its path and its text.
pub fn files() -> Vec<(String, String)> {
    let mut files = make::golden();
    files.extend(make::reject());
    let wrong: Vec<_> = files.iter().flat_map(|file| file.wrong.iter().map(String::as_str)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    files.into_iter().map(|file| (file.path, text(&file.value))).collect()
}

/// A file's text.
pub fn text(value: &Value) -> String {
    format!("{value:#}\n")
}

/// The cases of one golden file as they are collected.
pub struct Golden {
    name: &'static str,
    head: Map<String, Value>,
    op: &'static str,
    cases: Vec<Value>,
}

impl Golden {
    /// Begins a file of one op.
    pub fn new(name: &'static str, op: &'static str, section: &str, about: &str) -> Self {
        let mut head = Map::new();
        head.insert("about".into(), about.into());
        head.insert("section".into(), section.into());
        head.insert("op".into(), op.into());
        head.insert("sealed".into(), json!([]));
        head.insert("plain".into(), json!([]));
        Self { name, head, op, cases: Vec::new() }
    }

    /// Inputs of which every flipped bit is refused.
    #[must_use]
    pub fn sealed(mut self, names: &[&str]) -> Self {
        self.head.insert("sealed".into(), json!(names));
        self
    }

    /// Inputs of which every flipped bit is refused or gives something else.
    #[must_use]
    pub fn plain(mut self, names: &[&str]) -> Self {
        self.head.insert("plain".into(), json!(names));
        self
    }

    /// Adds a case. `known` is what its maker knows of the result: what is read has to agree.
    pub fn case(&mut self, name: &str, input: Value, known: Value) {
        let out = match run::run(self.op, input.as_object().unwrap()) {
            Ok(out) => out,
            Err(fault) => panic!("{}, {name}: refused ({})", self.name, fault.class),
        };
        for (key, value) in known.as_object().unwrap() {
            assert_eq!(out.get(key), Some(value), "{}, {name}: {key}", self.name);
        }
        self.cases.push(json!({ "name": name, "in": input, "out": out }));
    }

    /// Adds a case with a remark beside `in` and `out`.
    pub fn case_with(&mut self, name: &str, input: Value, known: Value, key: &str, remark: Value) {
        self.case(name, input, known);
        self.cases.last_mut().unwrap()[key] = remark;
    }

    /// The file.
    pub fn file(self) -> File {
        let mut value = self.head;
        value.insert("cases".into(), Value::Array(self.cases));
        File { path: format!("golden/{}.json", self.name), value: Value::Object(value), wrong: Vec::new() }
    }
}

/// The cases of one reject file as they are collected.
pub struct Reject {
    name: &'static str,
    op: &'static str,
    section: &'static str,
    cases: Vec<Value>,
    wrong: Vec<String>,
}

impl Reject {
    /// Begins a file of one op.
    pub fn new(name: &'static str, op: &'static str, section: &'static str) -> Self {
        Self { name, op, section, cases: Vec::new(), wrong: Vec::new() }
    }

    /// Adds a case, of which its maker says how it is refused.
    pub fn case(&mut self, fault: &str, input: Value, class: &str) {
        let Err(found) = run::run(self.op, input.as_object().unwrap()) else {
            return self.wrong.push(format!("{}, {fault}: it is taken", self.name));
        };
        if found.class != class {
            self.wrong.push(format!("{}, {fault}: {}, not {class}", self.name, found.class));
        }
        let mut case = json!({ "fault": fault, "in": input, "error": class, "released": found.released() });
        if let Some(position) = found.position {
            case["position"] = position.into();
        }
        self.cases.push(case);
    }

    /// Another class that is as right for a case.
    pub fn or(&mut self, fault: &str, class: &str) {
        self.cases.iter_mut().find(|case| case["fault"] == fault).unwrap()["or"] = class.into();
    }

    /// The file.
    pub fn file(self) -> File {
        let value = json!({ "section": self.section, "op": self.op, "cases": self.cases });
        File { path: format!("reject/{}.json", self.name), value, wrong: self.wrong }
    }
}
