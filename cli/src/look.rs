//! `whoami`, `vault`, `status`, `check`, `fingerprint`.

use crate::Context;
use crate::output::DAMAGED;
use lockstep_client::ClientError;
use lockstep_client::account::Account;
use lockstep_client::check::{Report, check as check_vault};
use lockstep_client::error::Result;
use lockstep_client::vault::Vault;
use lockstep_engine::Replica as _;
use lockstep_proto::DeviceId;
use lockstep_proto::api::usage::Usage;
use lockstep_proto::id::{RecordId, Seq};
use lockstep_proto::recovery::{account_fingerprint, identity_fingerprint};
use lockstep_proto::size::size_text;
use serde_json::json;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Records that are named one by one; more are counted.
const MISSING_NAMED_MAX: usize = 16;

pub(crate) fn whoami(context: &Context) -> Result<()> {
    let account = context.account_to_read()?;
    let file = account.file();
    let identity = identity_fingerprint(&account.identity().to_bytes());
    let mut text = format!(
        "name: {}\nserver: {}\naccount: {}\nidentity: {identity}\ndevices:\n",
        file.name, file.server, file.account
    );
    let devices = account.devices();
    for device in &devices {
        let mark = if device.is_this { " (this one)" } else { "" };
        let _ = writeln!(text, "  {} {}{mark}", device.id, crate::output::shown(device.name.as_bytes()));
    }
    let devices: Vec<_> =
        devices.iter().map(|d| json!({ "id": d.id, "name": d.name, "this": d.is_this })).collect();
    context.out.result(
        &text,
        &json!({
            "name": file.name, "server": file.server, "account": file.account,
            "identity": identity, "device": file.device, "devices": devices,
        }),
    );
    Ok(())
}

pub(crate) async fn vault_create(context: &Context, name: &str) -> Result<()> {
    let mut account = context.account()?;
    account.sync_keyring().await?;
    if account.vaults()?.iter().any(|entry| entry.name == name) {
        return Err(ClientError::Usage(format!("there is a vault \"{name}\" already")));
    }
    let mut vault = account.open_vault(name, true).await?;
    account.sync_vault(&mut vault).await?;
    account.pin_heads(false).await?;
    context.synced(&account)?;
    let id = vault.setup().vault().to_string();
    context.out.result(&format!("created vault {name} ({id})"), &json!({ "vault": id, "name": name }));
    Ok(())
}

pub(crate) async fn vault_list(context: &Context) -> Result<()> {
    let mut account = context.account_to_read()?;
    if account.writes() {
        account.sync_keyring().await?;
        context.synced(&account)?;
    }
    let vaults = account.vaults()?;
    let unknown = if account.writes() { account.unknown_vaults().await? } else { Vec::new() };
    let (mut text, mut list) = (String::new(), Vec::new());
    for entry in &vaults {
        let keep = account.selection_of(entry.vault)?;
        let held = keep.as_ref().map(|_| format!("  (here: {})", crate::select::words(keep.as_ref())));
        let name = crate::output::shown(entry.name.as_bytes());
        let _ = writeln!(text, "{}  {name}{}", entry.vault, held.unwrap_or_default());
        list.push(json!({
            "vault": entry.vault.to_string(), "name": entry.name, "known": true,
            "keep": crate::select::value(keep.as_ref()),
        }));
    }
    for id in &unknown {
        let _ = writeln!(
            text,
            "{id}  no key of it is in the keyring; to be rid of it: lockstep vault delete {id}"
        );
    }
    let text = if text.is_empty() { "there is no vault yet".into() } else { text };
    let unknown =
        unknown.iter().map(|id| json!({ "vault": id.to_string(), "name": id.to_string(), "known": false }));
    list.extend(unknown);
    context.out.result(&text, &json!(list));
    Ok(())
}

/// Syncs keyring and vaults; pending writes go out. What is wrong with one vault does not keep the others from it.
pub(crate) async fn sync_all(context: &Context, account: &mut Account) -> Result<Vec<(String, Vault)>> {
    account.sync_keyring().await?;
    let mut open = Vec::new();
    let mut failed = None;
    for entry in account.vaults()? {
        match sync_one(account, &entry.name).await {
            Ok(vault) => open.push((entry.name, vault)),
            Err(error) if account.is_of(entry.vault, &error)? => failed = failed.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    account.pin_heads(false).await?;
    context.synced(account)?;
    Ok(open)
}

async fn sync_one(account: &mut Account, name: &str) -> Result<Vault> {
    let mut vault = account.open_vault(name, false).await?;
    account.sync_vault(&mut vault).await?;
    Ok(vault)
}

pub(crate) async fn status(context: &Context) -> Result<()> {
    let mut account = context.account_to_read()?;
    let synced = if account.writes() { sync_all(context, &mut account).await.map(|_| ()) } else { Ok(()) };
    let mut text = String::new();
    let mut list = Vec::new();
    for entry in account.vaults()? {
        let Ok(vault) = account.open_vault_locally(&entry.name) else { continue };
        let head = vault.replica().head()?.map(|head| head.tip.seq.value());
        let pending = vault.replica().pending_count()?;
        let missing = vault.missing()?;
        let quarantined = vault.replica().quarantined()?.len();
        // What is damaged here is for `check` to say.
        let newest = vault.newest().unwrap_or_default();
        let _ = writeln!(
            text,
            "vault {}: {}{}, {pending} writes pending{}",
            crate::output::shown(entry.name.as_bytes()),
            head.map_or("never synced".into(), |seq| format!("commit {seq}")),
            newest.map_or_else(String::new, |(utc, device)| written_text(&account, utc, device)),
            if quarantined > 0 { format!(", {quarantined} records quarantined") } else { String::new() },
        );
        tell_missing(&mut text, &missing);
        let missing: Vec<_> = missing
            .iter()
            .map(|(seq, record)| json!({ "record": record.to_string(), "commit": seq.value() }))
            .collect();
        list.push(json!({
            "name": entry.name, "vault": entry.vault.to_string(), "commit": head, "pending": pending,
            "complete": missing.is_empty(), "missing": missing, "quarantined": quarantined,
            "written": newest.map(|(utc, _)| utc), "author": newest.map(|(_, device)| device.to_string()),
        }));
    }
    let used = match &synced {
        Ok(()) | Err(ClientError::QuotaExceeded(_)) if account.writes() => Some(account.usage().await?),
        _ => None,
    };
    if let Some(usage) = &used {
        let _ = writeln!(text, "{}", usage_text(usage));
    }
    let answered = account.answered_utc()?;
    if let Some(utc) = answered {
        let _ = writeln!(text, "the server last answered at {}", crate::output::time(utc));
    }
    let file = account.file();
    let state = match &synced {
        Ok(()) if account.writes() => "in sync".to_owned(),
        Ok(()) => "not checked: another process is writing".to_owned(),
        Err(error) => error.to_string(),
    };
    context.out.result(
        &format!("{}@{}: {state}\n{text}", file.name, file.server),
        &json!({ "name": file.name, "server": file.server, "state": state, "vaults": list,
            "answered": answered, "used": used.as_ref().map(|usage| usage.used), "quota": used.as_ref().and_then(|usage| usage.quota),
        }),
    );
    synced
}

/// Names what is to be held here and did not come.
fn tell_missing(text: &mut String, missing: &[(Seq, RecordId)]) {
    if missing.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "  {} records are to be held here, and the server did not give them out as they were signed:",
        missing.len()
    );
    for (seq, record) in missing.iter().take(MISSING_NAMED_MAX) {
        let _ = writeln!(text, "  missing: record {record} of commit {seq}");
    }
}

/// How old what is shown is: a server can withhold what came later, but not make this commit any newer.
fn written_text(account: &Account, utc: u64, device: DeviceId) -> String {
    let id = device.to_string();
    let devices = account.devices();
    let name =
        devices.iter().find(|known| known.id == id).map(|known| known.name.as_str()).unwrap_or_default();
    let (name, id) = (crate::output::shown(name.as_bytes()), crate::output::short(&id));
    format!(" written {} by {name} ({id})", crate::output::time(utc))
}

fn usage_text(usage: &Usage) -> String {
    let used = size_text(usage.used);
    match usage.quota {
        Some(quota) => format!("used {used} of {}", size_text(quota)),
        None => format!("used {used}, no limit"),
    }
}

pub(crate) async fn check(context: &Context, only: Option<&str>, read_data: bool) -> Result<ExitCode> {
    let mut account = context.account()?;
    let vaults = sync_all(context, &mut account).await?;
    let mut report = Report::default();
    let mut found = false;
    let mut add = |name: &str, part: Report| {
        report.commits += part.commits;
        report.records += part.records;
        report.objects += part.objects;
        report.bytes += part.bytes;
        report.not_held += part.not_held;
        report.problems.extend(part.problems.into_iter().map(|problem| format!("vault {name}: {problem}")));
    };
    for (name, vault) in &vaults {
        if only.is_none_or(|only| only == name) {
            found = true;
            add(name, check_vault(vault, read_data, &mut |_| {}).await?);
        }
    }
    if only.is_none() {
        add("keyring", check_vault(account.keyring(), false, &mut |_| {}).await?);
    } else if !found {
        return Err(ClientError::NotFound(format!("there is no vault \"{}\"", only.unwrap_or_default())));
    }
    let mut text = format!(
        "{} commits, {} records{} verified",
        report.commits,
        report.records,
        if read_data {
            format!(", {} objects ({})", report.objects, crate::output::size(report.bytes))
        } else {
            String::new()
        }
    );
    if report.not_held > 0 {
        let _ = write!(text, "; {} of them are not held here, and were looked at there", report.not_held);
    }
    for problem in &report.problems {
        let _ = write!(text, "\nPROBLEM: {problem}");
    }
    if report.problems.is_empty() {
        text.push_str("; no problem found");
    } else {
        text.push_str(
            "\nWhat other devices hold is not affected. Restore the server's data from a newer copy, or keep this \
             device's home: it holds every record as it was received.",
        );
    }
    context.out.result(
        &text,
        &json!({
            "commits": report.commits, "records": report.records, "objects": report.objects,
            "bytes": report.bytes, "not_held": report.not_held, "problems": report.problems,
        }),
    );
    Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DAMAGED) })
}

pub(crate) async fn fingerprint(context: &Context) -> Result<()> {
    let mut account = context.account()?;
    sync_all(context, &mut account).await?;
    let mut heads = Vec::new();
    for vault in account.db().vault_ids()? {
        if let Some(replica) = account.db().vault(vault, None)?
            && let Some(head) = replica.head()?
        {
            heads.push((vault, head.tip.seq, head.tip.hash));
        }
    }
    let log = account.keyring().device_log();
    let last = log.next_index().saturating_sub(1);
    let whole = account_fingerprint(account.id(), last, log.head(), &heads);
    let identity = identity_fingerprint(&account.identity().to_bytes());
    context.out.result(
        &format!(
            "identity: {identity}\naccount:  {whole}\n\nThe identity never changes. The account's line is equal on two \
             devices that have just synced; if it stays different, the server shows them different histories."
        ),
        &json!({ "identity": identity, "account": whole }),
    );
    Ok(())
}
