//! `record put|get|list|rm|history|restore`.

use crate::Context;
use crate::args::{RecordCommand, RecordPlace};
use crate::backup::{bring_up_to_date, open_to_read};
use crate::output::{shown, time};
use crate::select;
use lockstep_client::account::Account;
use lockstep_client::documents::{Body, NewDocument, fields_from_json, json_of};
use lockstep_client::error::Result;
use lockstep_client::vault::Vault;
use lockstep_client::{ClientError, past, rng};
use lockstep_client_crypto::content::Content;
use lockstep_engine::replica::{Policy, Replica as _, VersionRow};
use lockstep_engine::{EngineError, NewRecord, read};
use lockstep_proto::envelope::KIND_TOMBSTONE;
use lockstep_proto::id::{RecordId, Revision, Seq};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::sync::atomic::Ordering;

const DOCUMENT_BYTES_MAX: u64 = 900 * 1024;

pub(crate) async fn run(context: &Context, command: RecordCommand) -> Result<()> {
    match command {
        RecordCommand::Put { place, id } => put(context, &place, id).await,
        RecordCommand::Get { place, id } => get(context, &place, &id).await,
        RecordCommand::List { place } => list(context, &place).await,
        RecordCommand::Fetch { place, id } => select::fetch(context, &place, id.as_deref()).await,
        RecordCommand::Rm { place, id } => rm(context, &place, &id).await,
        RecordCommand::History { place, id } => history(context, &place, &id).await,
        RecordCommand::Restore { place, id, revision } => restore(context, &place, &id, revision).await,
    }
}

pub(crate) fn check_type(place: &RecordPlace) -> Result<()> {
    if place.record_type.starts_with("lockstep/") {
        return Err(ClientError::Usage("types that begin with lockstep/ belong to the program".into()));
    }
    Ok(())
}

/// Opens a vault for writing; offline, with what is held.
pub(crate) async fn open(context: &Context, name: &str, create: bool) -> Result<(Account, Vault)> {
    let mut account = context.account()?;
    match bring_up_to_date(context, &mut account, name, create).await {
        Ok(vault) => Ok((account, vault)),
        Err(ClientError::Unreachable { .. }) if account.vaults()?.iter().any(|entry| entry.name == name) => {
            context.out.note("the server can not be reached: working with what this device holds");
            context.is_away.store(true, Ordering::Relaxed);
            let vault = account.open_vault_locally(name)?;
            Ok((account, vault))
        }
        Err(error) => Err(error),
    }
}

/// Whether the trouble is only that the server is away: then what is held is good enough for reading.
pub(crate) fn told(trouble: Option<ClientError>) -> Result<()> {
    match trouble {
        None | Some(ClientError::Unreachable { .. }) => Ok(()),
        Some(error) => Err(error),
    }
}

/// Sends what is pending; offline, it stays pending and says so.
pub(crate) async fn send(context: &Context, account: &mut Account, vault: &mut Vault) -> Result<bool> {
    let sent = if context.is_away.load(Ordering::Relaxed) { None } else { Some(account.send(vault).await) };
    match sent {
        Some(Ok(())) => Ok(true),
        None | Some(Err(ClientError::Unreachable { .. } | ClientError::Busy(_))) => {
            context.out.note("kept on this device; it is sent when the server can be reached");
            Ok(false)
        }
        Some(Err(error)) => Err(error),
    }
}

/// Pins what was sent, if that is due. It waits for the next command if the server went away meanwhile, or the
/// account's quota is used up.
pub(crate) async fn pin(account: &mut Account) -> Result<()> {
    match account.pin_heads(false).await {
        Err(ClientError::Unreachable { .. } | ClientError::Busy(_) | ClientError::QuotaExceeded(_)) => Ok(()),
        other => other,
    }
}

/// The same for deletions: they go on beyond the account's quota, unless they follow a write that waits.
pub(crate) async fn send_deletions(
    context: &Context,
    account: &mut Account,
    vault: &mut Vault,
    records: &[RecordId],
) -> Result<bool> {
    match send(context, account, vault).await {
        Err(error @ ClientError::QuotaExceeded(_)) => {
            for record in records {
                if !vault.replica().pending_of(*record)?.is_empty() {
                    return Err(error);
                }
            }
            Ok(true)
        }
        other => other,
    }
}

async fn put(context: &Context, place: &RecordPlace, id: Option<String>) -> Result<()> {
    check_type(place)?;
    let mut text = Vec::new();
    std::io::stdin()
        .take(DOCUMENT_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(|error| ClientError::io("standard input", error))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > DOCUMENT_BYTES_MAX {
        return Err(ClientError::Usage("the document is larger than 900 KiB".into()));
    }
    let document: Value = serde_json::from_slice(&text)
        .map_err(|error| ClientError::Usage(format!("standard input is not JSON: {error}")))?;
    let (mut account, mut vault) = open(context, &place.vault, true).await?;
    let id = id.unwrap_or_else(|| rng::hex(&rng::bytes::<16>()));
    let record = new_record(&vault, place, &id, Some(document))?;
    write(context, &mut vault, record).await?;
    let sent = send(context, &mut account, &mut vault).await?;
    context.out.result(&id, &json!({ "id": id, "sent": sent }));
    if sent { pin(&mut account).await } else { Ok(()) }
}

/// Writes a record here. To merge with what is there, it has to be known: it is fetched if it is not held.
async fn write(context: &Context, vault: &mut Vault, record: NewRecord) -> Result<()> {
    if record.policy == Policy::Merge && !context.is_away.load(Ordering::Relaxed) {
        let place = vault.setup().keys.record_id(&record.record_type, &record.name);
        vault.fetch(&[place]).await?;
    }
    vault.put(vec![record]).await
}

/// A record of JSON, by its type's merge policy if it has one.
fn new_record(vault: &Vault, place: &RecordPlace, id: &str, document: Option<Value>) -> Result<NewRecord> {
    let merges = vault.policies().of(&place.record_type).is_some();
    let (fields, text) = match document {
        Some(document) if merges => (Some(fields_from_json(document)?), None),
        Some(document) => (None, Some(document.to_string().into_bytes())),
        None => (None, None),
    };
    let new = vault.new_record(NewDocument {
        record_type: place.record_type.clone(),
        name: name_of(id),
        schema: None,
        fields,
        blobs: Vec::new(),
        seen: None,
        expected: None,
    })?;
    Ok(if text.is_some() { NewRecord { document: text, ..new } } else { new })
}

const OPERATION_BYTES: usize = 16;

/// How a record's name is written as an id. A conflict copy, named by a zero byte and an operation id behind
/// the original's name, is `name~` and 32 digits.
pub(crate) fn id_of(name: &[u8]) -> String {
    let split = name.len().checked_sub(OPERATION_BYTES + 1).and_then(|at| name.split_at_checked(at));
    match split {
        Some((base, [0, operation @ ..])) => {
            format!("{}~{}", String::from_utf8_lossy(base), rng::hex(operation))
        }
        _ => String::from_utf8_lossy(name).into_owned(),
    }
}

/// The name that an id stands for.
pub(crate) fn name_of(id: &str) -> Vec<u8> {
    let copy = id.rsplit_once('~').and_then(|(base, digits)| {
        let operation: Option<Vec<u8>> =
            (digits.len() == 2 * OPERATION_BYTES).then(|| digits.as_bytes().chunks(2)).and_then(|pairs| {
                pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
            });
        let mut name = base.as_bytes().to_vec();
        name.push(0);
        name.extend(operation?);
        Some(name)
    });
    copy.unwrap_or_else(|| id.as_bytes().to_vec())
}

pub(crate) fn parse(vault: &Vault, content: &Content) -> Value {
    json_of(&vault.body_of(content))
        .unwrap_or_else(|| Value::String(String::from_utf8_lossy(&content.document.0).into_owned()))
}

fn missing(place: &RecordPlace, id: &str) -> ClientError {
    ClientError::NotFound(format!("there is no record \"{id}\" of type \"{}\"", place.record_type))
}

/// What is not held may be what a server hides that is not believed: then that is said.
fn not_held(trouble: Option<ClientError>, place: &RecordPlace, id: &str) -> ClientError {
    told(trouble).err().unwrap_or_else(|| missing(place, id))
}

async fn get(context: &Context, place: &RecordPlace, id: &str) -> Result<()> {
    let (_account, mut vault, trouble) = open_to_read(context, &place.vault).await?;
    let record = vault.setup().keys.record_id(&place.record_type, &name_of(id));
    let current = match select::current(context, &mut vault, record, trouble.as_ref()).await {
        Ok(Some(current)) => current,
        Ok(None) => return Err(not_held(trouble, place, id)),
        Err(error) => return Err(select::explain(error, trouble)),
    };
    let document = parse(&vault, &current.content);
    context.out.result(&document.to_string(), &document);
    told(trouble)
}

async fn list(context: &Context, place: &RecordPlace) -> Result<()> {
    let (_account, vault, trouble) = open_to_read(context, &place.vault).await?;
    let keys = &vault.setup().keys;
    let mut found = BTreeMap::new();
    for row in vault.replica().list(&place.record_type, None)? {
        if let Some(current) = read::current(vault.replica(), keys, row.record)? {
            found.insert(current.content.name.0.clone(), current);
        }
    }
    for row in vault.replica().pending(usize::MAX)? {
        if let Some(current) = read::current(vault.replica(), keys, row.record)?
            && current.content.record_type == place.record_type
        {
            found.insert(current.content.name.0.clone(), current);
        }
    }
    let mut text = String::new();
    let mut list = Vec::new();
    for (name, current) in &found {
        let conflict = current.content.conflict_of().is_some();
        let mark = if conflict { "  (conflict copy)" } else { "" };
        let _ = writeln!(text, "{}  revision {}{mark}", shown(id_of(name).as_bytes()), current.revision);
        list.push(json!({
            "id": id_of(name), "revision": current.revision.value(),
            "pending": current.pending, "conflict": conflict, "document": parse(&vault, &current.content),
        }));
    }
    context.out.result(if text.is_empty() { "there is none" } else { &text }, &json!(list));
    select::tell_not_held(context, &vault, &place.record_type)?;
    told(trouble)
}

async fn rm(context: &Context, place: &RecordPlace, id: &str) -> Result<()> {
    check_type(place)?;
    let (mut account, mut vault) = open(context, &place.vault, false).await?;
    let keys = &vault.setup().keys;
    let record = keys.record_id(&place.record_type, &name_of(id));
    match read::current(vault.replica(), keys, record) {
        // It is there; what it says is not needed.
        Err(EngineError::NotHeld { .. } | EngineError::Incomplete { .. }) => {}
        other => drop(other?.ok_or_else(|| missing(place, id))?),
    }
    let deletion = new_record(&vault, place, id, None)?;
    write(context, &mut vault, deletion).await?;
    let sent = send_deletions(context, &mut account, &mut vault, &[record]).await?;
    context.out.result(&format!("deleted {id}"), &json!({ "id": id, "sent": sent }));
    Ok(())
}

/// Every version that a verified change list announced, however many the server shows at once.
async fn history(context: &Context, place: &RecordPlace, id: &str) -> Result<()> {
    let (_account, vault, trouble) = open_to_read(context, &place.vault).await?;
    let record = vault.setup().keys.record_id(&place.record_type, &name_of(id));
    let versions = vault.versions(record)?;
    if versions.is_empty() {
        return Err(not_held(trouble, place, id));
    }
    let mut opened: BTreeMap<Seq, Option<(u64, Value)>> = BTreeMap::new();
    let mut take = |version: &VersionRow, content: Option<Content>| {
        let shown = content.map(|content| (content.hlc.utc_ms / 1000, parse(&vault, &content)));
        opened.insert(version.seq, shown);
        Ok(())
    };
    let withheld = vault.open_versions(&versions, &mut take).await?;
    let mut text = String::new();
    let mut list = Vec::new();
    for version in &versions {
        let found = opened.remove(&version.seq);
        let shown = found.is_some();
        let (written, document) = found.flatten().unzip();
        let deleted = version.kind == KIND_TOMBSTONE;
        let document = document.filter(|_| !deleted);
        let words = match (&document, deleted, shown) {
            (_, true, _) => "deleted".to_owned(),
            (Some(document), ..) => document.to_string(),
            (None, _, true) => "does not open".to_owned(),
            (None, _, false) => "is not shown by the server".to_owned(),
        };
        let when = written.map_or_else(|| "at an unknown time".to_owned(), time);
        let _ = writeln!(text, "revision {}  {when}  {words}", version.revision);
        list.push(json!({
            "revision": version.revision.value(), "commit": version.seq.value(), "utc": written,
            "deleted": deleted, "document": document, "withheld": !shown,
        }));
    }
    context.out.result(&text, &json!(list));
    told(trouble)?;
    withheld.first().map_or(Ok(()), |version| Err(past::withheld(version)))
}

/// Writes an old version as a new one.
async fn restore(context: &Context, place: &RecordPlace, id: &str, revision: u64) -> Result<()> {
    check_type(place)?;
    let (mut account, mut vault) = open(context, &place.vault, false).await?;
    let record = vault.setup().keys.record_id(&place.record_type, &name_of(id));
    let versions = vault.versions(record)?;
    if versions.is_empty() {
        return Err(missing(place, id));
    }
    let revision = Revision::new(revision);
    let version = versions.iter().find(|version| version.revision == revision).copied().ok_or_else(|| {
        ClientError::NotFound(format!("\"{id}\" has no revision {revision}; see: lockstep record history"))
    })?;
    if version.kind == KIND_TOMBSTONE {
        return Err(ClientError::Usage(format!(
            "revision {revision} of \"{id}\" is a deletion; to delete it again, run: lockstep record rm"
        )));
    }
    let mut found = None;
    let mut take = |_: &VersionRow, content: Option<Content>| {
        found = content;
        Ok(())
    };
    if let Some(version) = vault.open_versions(&[version], &mut take).await?.first() {
        return Err(past::withheld(version));
    }
    let opened = found.ok_or_else(|| {
        ClientError::Damaged(format!("revision {revision} of \"{id}\" does not open; see: lockstep check"))
    })?;
    let record = match vault.body_of(&opened) {
        Body::Fields(fields) if vault.policies().of(&place.record_type).is_some() => {
            vault.new_record(NewDocument {
                record_type: place.record_type.clone(),
                name: name_of(id),
                schema: Some(opened.schema),
                fields: Some(fields),
                blobs: opened.blobs,
                seen: None,
                expected: None,
            })?
        }
        _ => {
            let (document, blobs) = (Some(opened.document.0), opened.blobs);
            let policy = Policy::KeepBoth;
            NewRecord {
                schema: opened.schema,
                document,
                blobs,
                policy,
                ..new_record(&vault, place, id, None)?
            }
        }
    };
    write(context, &mut vault, record).await?;
    let sent = send(context, &mut account, &mut vault).await?;
    let text = format!("wrote revision {revision} of {id} as its newest version");
    context.out.result(&text, &json!({ "id": id, "revision": revision.value(), "sent": sent }));
    Ok(())
}
