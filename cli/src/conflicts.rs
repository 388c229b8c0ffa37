//! `policy show|set`, `conflicts list|show|resolve|log|undo`.

use crate::Context;
use crate::args::{ConflictPlace, ConflictsCommand, PolicyCommand};
use crate::backup::open_to_read;
use crate::output::{short, shown, time};
use crate::record::{check_type, id_of, name_of, open, parse, pin, send, told};
use lockstep_client::ClientError;
use lockstep_client::account::Account;
use lockstep_client::conflicts::{About, Candidate, Conflict, Keep, Shown};
use lockstep_client::documents::{POLICIES_TYPE, json_of, kept};
use lockstep_client::error::Result;
use lockstep_client::replica::MergeEntry;
use lockstep_client::rng;
use lockstep_client::vault::Vault;
use lockstep_merge::{Policies, Side, Stamp};
use lockstep_proto::id::DeviceId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

const INPUT_BYTES_MAX: u64 = 900 * 1024;

pub(crate) async fn policy(context: &Context, command: PolicyCommand) -> Result<()> {
    match command {
        PolicyCommand::Show { vault } => show_policies(context, &vault).await,
        PolicyCommand::Set { file, vault } => set_policies(context, &file, &vault).await,
    }
}

async fn show_policies(context: &Context, name: &str) -> Result<()> {
    let (_account, vault, trouble) = open_to_read(context, name).await?;
    let record = vault.setup().keys.record_id(POLICIES_TYPE, b"policies");
    if vault.document(record)?.is_none() {
        context
            .out
            .result("there are none: a record that two devices changed at once is kept twice", &Value::Null);
        return told(trouble);
    }
    let text = vault.policies().to_json();
    let value = serde_json::from_str(&text).unwrap_or(Value::Null);
    context.out.result(&text, &value);
    told(trouble)
}

async fn set_policies(context: &Context, file: &Path, name: &str) -> Result<()> {
    let text = std::fs::read_to_string(file).map_err(|error| ClientError::io(file, error))?;
    let policies = Policies::from_json(&text).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(" ({cause})")).unwrap_or_default();
        ClientError::Usage(format!("{}: {error}{cause}", file.display()))
    })?;
    let (mut account, mut vault) = open(context, name, true).await?;
    vault.put_policies(&policies).await?;
    let sent = send(context, &mut account, &mut vault).await?;
    let types: Vec<&str> = policies.types().map(|(name, _)| name).collect();
    let text = format!("vault \"{name}\" merges {} types", types.len());
    context.out.result(&text, &json!({ "vault": name, "types": types, "sent": sent }));
    if sent { pin(&mut account).await } else { Ok(()) }
}

pub(crate) async fn run(context: &Context, command: ConflictsCommand) -> Result<()> {
    match command {
        ConflictsCommand::List { vault } => list(context, &vault).await,
        ConflictsCommand::Show { place } => show(context, &place).await,
        ConflictsCommand::Resolve { place, keep } => resolve(context, &place, &keep.keep).await,
        ConflictsCommand::Log { vault } => log(context, &vault).await,
        ConflictsCommand::Undo { merge, keep, vault } => undo(context, &merge, &keep, &vault).await,
    }
}

/// Names of the account's devices.
struct Names(BTreeMap<String, String>);

impl Names {
    fn of(account: &Account) -> Self {
        Self(account.devices().into_iter().map(|device| (device.id, device.name)).collect())
    }

    fn name(&self, device: DeviceId) -> String {
        let id = device.to_string();
        self.0.get(&id).map_or_else(|| short(&id).to_owned(), |name| shown(name.as_bytes()))
    }

    fn who(&self, stamp: Stamp) -> String {
        format!("{} by {}", time(stamp.hlc.utc_ms / 1000), self.name(stamp.device))
    }
}

fn about(conflict: &Conflict) -> (&'static str, String) {
    match &conflict.about {
        About::Copy { .. } => ("copy", String::new()),
        About::Field { path } => ("field", path.join(".")),
        About::Deletion => ("deletion", String::new()),
    }
}

fn value_of(candidate: &Candidate) -> Value {
    match &candidate.value {
        None => Value::Null,
        Some(Shown::Document(body)) => json_of(body).unwrap_or(Value::Null),
        Some(Shown::Field(value)) => serde_json::to_value(value).unwrap_or(Value::Null),
    }
}

fn line_of(conflict: &Conflict) -> String {
    let id = shown(id_of(&conflict.name).as_bytes());
    let count = conflict.candidates.len();
    let what = match about(conflict) {
        ("copy", _) => "a copy of what could not become one".to_owned(),
        ("field", path) if path.is_empty() => format!("{count} versions of the whole"),
        ("field", path) => format!("field {}: {count} values", shown(path.as_bytes())),
        _ => "deleted on one device, changed on another".to_owned(),
    };
    format!("{}  {id}  {what}", shown(conflict.record_type.as_bytes()))
}

fn json_of_conflict(conflict: &Conflict, names: &Names) -> Value {
    let (kind, field) = about(conflict);
    let version = |(index, candidate): (usize, &Candidate)| {
        json!({
            "number": index + 1, "side": if candidate.is_local { "local" } else { "remote" },
            "device": candidate.stamp.device.to_string(), "device_name": names.name(candidate.stamp.device),
            "utc": candidate.stamp.hlc.utc_ms / 1000, "value": value_of(candidate),
            "is_there": candidate.value.is_some(),
        })
    };
    json!({
        "type": conflict.record_type, "id": id_of(&conflict.name), "conflict": kind, "field": field,
        "versions": conflict.candidates.iter().enumerate().map(version).collect::<Vec<_>>(),
    })
}

async fn list(context: &Context, name: &str) -> Result<()> {
    let (account, vault, trouble) = open_to_read(context, name).await?;
    let names = Names::of(&account);
    let found = vault.conflicts()?;
    let text: Vec<String> = found.iter().map(line_of).collect();
    let list: Vec<Value> = found.iter().map(|conflict| json_of_conflict(conflict, &names)).collect();
    let text = if text.is_empty() { "nothing waits for a decision".to_owned() } else { text.join("\n") };
    context.out.result(&text, &json!(list));
    told(trouble)
}

/// The one conflict that is meant.
fn find(vault: &Vault, place: &ConflictPlace) -> Result<Conflict> {
    let record = vault.setup().keys.record_id(&place.record.record_type, &name_of(&place.id));
    let none = || {
        ClientError::NotFound(format!(
            "nothing of \"{}\" of type \"{}\" waits for a decision; see: lockstep conflicts list",
            place.id, place.record.record_type
        ))
    };
    let document = vault.document(record)?.ok_or_else(none)?;
    let mut found = vault.conflicts_of(&document)?;
    if let Some(wanted) = &place.field {
        found.retain(|conflict| match about(conflict) {
            ("field", path) => path == *wanted,
            (kind, _) => kind == wanted,
        });
    }
    match found.len() {
        0 => Err(none()),
        1 => found.pop().ok_or_else(none),
        _ => {
            let fields: Vec<String> = found
                .iter()
                .map(|conflict| match about(conflict) {
                    ("field", path) => path,
                    (kind, _) => kind.to_owned(),
                })
                .collect();
            Err(ClientError::Usage(format!("say --field, one of: {}", fields.join(", "))))
        }
    }
}

async fn show(context: &Context, place: &ConflictPlace) -> Result<()> {
    let (account, vault, trouble) = open_to_read(context, &place.record.vault).await?;
    let names = Names::of(&account);
    let conflict = find(&vault, place)?;
    let mut text = format!("{}\n", line_of(&conflict));
    for (index, candidate) in conflict.candidates.iter().enumerate() {
        let side = if candidate.is_local { "local" } else { "remote" };
        let value = match &candidate.value {
            None if conflict.about == About::Deletion => "deleted".to_owned(),
            None => "not there".to_owned(),
            Some(_) => value_of(candidate).to_string(),
        };
        let _ = writeln!(text, "{}  {side:6}  {}  {value}", index + 1, names.who(candidate.stamp));
    }
    context.out.result(&text, &json_of_conflict(&conflict, &names));
    told(trouble)
}

fn merged_value() -> Result<Value> {
    let mut text = Vec::new();
    std::io::stdin()
        .take(INPUT_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(|error| ClientError::io("standard input", error))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > INPUT_BYTES_MAX {
        return Err(ClientError::Usage("the merged value is larger than 900 KiB".into()));
    }
    serde_json::from_slice(&text)
        .map_err(|error| ClientError::Usage(format!("standard input is not JSON: {error}")))
}

fn keep_of(word: &str) -> Result<Keep> {
    Ok(match word {
        "local" => Keep::Local,
        "remote" => Keep::Remote,
        "both" => Keep::Both,
        "merged" => Keep::Merged(Some(serde_json::from_value(merged_value()?).map_err(|error| {
            ClientError::Usage(format!("the merged value can not stand in a document: {error}"))
        })?)),
        number => {
            let number = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
            Keep::Number(number.ok_or_else(|| {
                ClientError::Usage("--keep takes local, remote, both, merged, or a number from 1 on".into())
            })?)
        }
    })
}

async fn resolve(context: &Context, place: &ConflictPlace, word: &str) -> Result<()> {
    check_type(&place.record)?;
    let keep = keep_of(word)?;
    let (mut account, mut vault) = open(context, &place.record.vault, false).await?;
    let conflict = find(&vault, place)?;
    vault.resolve(&conflict, keep).await?;
    let sent = send(context, &mut account, &mut vault).await?;
    context.out.result(
        &format!("decided: {}", line_of(&conflict)),
        &json!({ "id": place.id, "keep": word, "sent": sent }),
    );
    if sent { pin(&mut account).await } else { Ok(()) }
}

fn entry_text(vault: &Vault, entry: &MergeEntry, names: &Names) -> Result<(String, Value)> {
    let was = kept(&entry.pending)?;
    let id = id_of(&was.name.0);
    let key = rng::hex(&entry.entry);
    let mut text = format!(
        "{}  {}  {}  {}  with what {} wrote\n",
        key.get(..8).unwrap_or(&key),
        time(entry.utc),
        shown(was.record_type.as_bytes()),
        shown(id.as_bytes()),
        names.name(entry.decisions.remote.device),
    );
    let mut fields = Vec::new();
    for decision in &entry.decisions.decisions {
        let path = decision.path.join(".");
        let outcome = serde_json::to_value(decision.outcome).unwrap_or(Value::Null);
        let slot = |slot: &lockstep_merge::Slot| serde_json::to_value(&slot.0).unwrap_or(Value::Null);
        let values = [slot(&decision.local), slot(&decision.remote), slot(&decision.merged)];
        if decision.is_clash() {
            let place = if path.is_empty() { "the whole".to_owned() } else { shown(path.as_bytes()) };
            let [local, remote, merged] = values.each_ref().map(|value| match value {
                Value::Null => "nothing".to_owned(),
                value => value.to_string(),
            });
            let _ = writeln!(text, "    {place} ({}): {local} and {remote} became {merged}", decision.rule);
        }
        let [local, remote, merged] = values;
        fields.push(json!({
            "field": path, "rule": decision.rule, "outcome": outcome, "clash": decision.is_clash(),
            "local": local, "remote": remote, "merged": merged,
        }));
    }
    let value = json!({
        "merge": key, "utc": entry.utc, "type": was.record_type, "id": id,
        "with_revision": entry.revision.value(), "with_device": entry.decisions.remote.device.to_string(),
        "before": parse(vault, &was), "fields": fields,
    });
    Ok((text, value))
}

async fn log(context: &Context, name: &str) -> Result<()> {
    let (account, vault, trouble) = open_to_read(context, name).await?;
    let names = Names::of(&account);
    let (mut text, mut list) = (String::new(), Vec::new());
    for entry in vault.merges()? {
        let (line, value) = entry_text(&vault, &entry, &names)?;
        text.push_str(&line);
        list.push(value);
    }
    context
        .out
        .result(if text.is_empty() { "nothing was merged on this device" } else { &text }, &json!(list));
    told(trouble)
}

async fn undo(context: &Context, merge: &str, keep: &str, name: &str) -> Result<()> {
    let (mut account, mut vault) = open(context, name, false).await?;
    let mut found: Vec<MergeEntry> = vault.merges()?;
    found.retain(|entry| rng::hex(&entry.entry).starts_with(merge));
    let entry = match (found.pop(), found.pop()) {
        (Some(entry), None) if !merge.is_empty() => entry,
        (None, _) => {
            let text = format!("there is no merge {merge}; see: lockstep conflicts log");
            return Err(ClientError::NotFound(text));
        }
        _ => return Err(ClientError::Usage(format!("more than one merge begins with \"{merge}\""))),
    };
    let side = if keep == "remote" { Side::Remote } else { Side::Local };
    vault.undo_merge(&entry, side).await?;
    let sent = send(context, &mut account, &mut vault).await?;
    let id = vault.document(entry.record)?.map(|document| id_of(&document.name));
    context.out.result(
        "undone: written as a new version",
        &json!({ "merge": rng::hex(&entry.entry), "id": id, "keep": keep, "sent": sent }),
    );
    if sent { pin(&mut account).await } else { Ok(()) }
}
