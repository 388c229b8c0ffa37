//! `/hostile/...`: arming scenarios and reading the record over HTTP, for clients that are not written in Rust.

use super::http::{Answer, Request};
use super::scenario::{self, At};
use super::server::{Exchange, Shared};
use serde_json::{Value, json};

pub(super) fn answer(shared: &Shared, request: &Request) -> Answer {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    match (request.method.as_str(), request.place()) {
        ("GET", "/hostile/scenarios") => {
            let list: Vec<Value> = scenario::all()
                .iter()
                .map(|one| json!({ "name": one.name, "row": one.row, "does": one.does, "must": one.must }))
                .collect();
            Answer::json(200, &json!(list))
        }
        ("POST", "/hostile/arm") => arm(shared, &body),
        ("POST", "/hostile/disarm") => {
            shared.disarm();
            Answer::json(200, &json!({}))
        }
        ("POST", "/hostile/reset") => {
            shared.disarm();
            shared.forget();
            Answer::json(200, &json!({}))
        }
        ("POST", "/hostile/view") => view(shared, &body),
        ("GET", "/hostile/requests") => {
            let list: Vec<Value> = shared.exchanges().iter().map(shown).collect();
            Answer::json(200, &json!(list))
        }
        ("GET", "/hostile/hits") => {
            let list: Vec<Value> =
                shared.hits().into_iter().map(|(rule, hits)| json!({ "rule": rule, "hits": hits })).collect();
            Answer::json(200, &json!(list))
        }
        _ => wrong("there is no such control"),
    }
}

fn wrong(why: &str) -> Answer {
    Answer::json(400, &json!({ "error": why }))
}

fn arm(shared: &Shared, body: &Value) -> Answer {
    let Some(scenario) = body["scenario"].as_str().and_then(scenario::find) else {
        return wrong("there is no such scenario; GET /hostile/scenarios lists them");
    };
    let at = At {
        at: body["at"].as_u64().unwrap_or(0),
        vault: body["vault"].as_str().map(str::to_owned),
        record: body["record"].as_str().map(str::to_owned),
    };
    for rule in (scenario.rules)(&at) {
        shared.arm(rule);
    }
    Answer::json(200, &json!({ "armed": scenario.name }))
}

fn view(shared: &Shared, body: &Value) -> Answer {
    let device = body["device"].as_str().and_then(|text| text.parse().ok());
    match (device, body["upstream"].as_str()) {
        (Some(device), Some(upstream)) => {
            shared.set_view(device, upstream);
            Answer::json(200, &json!({}))
        }
        _ => wrong("a view has a device and an upstream"),
    }
}

fn shown(one: &Exchange) -> Value {
    let request = &one.request;
    let names: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
    json!({
        "method": request.method, "path": request.path, "headers": names,
        "body": hex(&request.body),
        "digest": lockstep_proto::blob::part_digest(&request.body).to_string(),
        "status": one.answer.as_ref().map(|answer| answer.status),
        "rules": one.rules,
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
