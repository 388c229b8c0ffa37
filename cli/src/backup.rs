//! `backup`, `snapshots`, `ls`, `restore`.

use crate::Context;
use crate::args::{Backup, Ls, Restore, Run};
use crate::input::read;
use crate::output::{INCOMPLETE, parse_time, shown, size, time};
use crate::progress::State;
use globset::{Glob, GlobSet, GlobSetBuilder};
use lockstep_client::ClientError;
use lockstep_client::account::Account;
use lockstep_client::backup::rules::Rules;
use lockstep_client::backup::{Options, Outcome, backup as run_backup};
use lockstep_client::error::Result;
use lockstep_client::restore::{self, restore as run_restore};
use lockstep_client::snapshot::Snapshot;
use lockstep_client::vault::Vault;
use lockstep_engine::files::{KIND_FOLDER, KIND_LINK};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

fn globs(patterns: &[String]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = Glob::new(pattern)
            .map_err(|error| ClientError::Usage(format!("--exclude {pattern}: {error}")))?;
        set.add(glob);
    }
    set.build().map_err(|error| ClientError::Usage(format!("--exclude: {error}")))
}

pub(crate) fn path_text(path: &Path) -> String {
    shown(path.as_os_str().as_bytes())
}

fn rules(args: &Backup) -> Result<Rules> {
    let mut rules = Rules::new(globs(&args.exclude)?, &args.exclude_file)?;
    rules.exclude_caches = args.exclude_caches;
    rules.one_file_system = args.one_file_system;
    Ok(rules)
}

fn limit_rate(account: &Account, run: &Run) -> Result<()> {
    run.limit_rate.map_or(Ok(()), |rate| account.api().limit_rate(rate))
}

pub(crate) async fn backup(context: &Context, args: Backup) -> Result<ExitCode> {
    let mut options = Options {
        rules: rules(&args)?,
        known_as: None,
        tags: args.tag.clone(),
        deduplicate: !args.no_deduplicate,
        stop: Arc::clone(&context.stop),
    };
    for path in &args.paths {
        path.symlink_metadata().map_err(|error| ClientError::io(path, error))?;
    }
    let mut account = context.account()?;
    limit_rate(&account, &args.run)?;
    account.sync_keyring().await?;
    let mut paths = args.paths.clone();
    // Kept to the end: the contents lie in it.
    let mut input = None;
    if let Some(name) = &args.stdin {
        let read = read(context, &account, name, &args).await?;
        paths = vec![read.file().to_path_buf()];
        options.known_as = Some(read.root().to_path_buf());
        input = Some(read);
    }
    let mut vault = account.open_vault(&args.vault, true).await?;
    let mut results = Vec::new();
    let mut incomplete = false;
    for path in &paths {
        let source = path_text(options.known_as.as_deref().unwrap_or(path));
        let mut meter = context.out.meter("backing up").in_form(args.run.progress, "backup", source);
        let done = run_backup(&mut account, &mut vault, path, &options, &mut |progress| {
            meter.show(
                (progress.entries, progress.entries_total.unwrap_or(0)),
                (progress.bytes, progress.bytes_total.unwrap_or(0)),
            );
        })
        .await;
        meter.finish(State::of(&done, is_whole));
        let outcome = match done {
            Ok(outcome) => outcome,
            Err(error) => {
                account.keep_session()?;
                return Err(error);
            }
        };
        incomplete |= !is_whole(&outcome);
        report(context, &outcome);
        results.push(value_of(&outcome));
        if !context.out.is_json() {
            context.out.result(&text_of(&outcome), &Value::Null);
        }
    }
    drop(input);
    account.pin_heads(false).await?;
    context.synced(&account)?;
    if context.out.is_json() {
        context.out.result("", &json!(results));
    }
    Ok(if incomplete { ExitCode::from(INCOMPLETE) } else { ExitCode::SUCCESS })
}

/// Whether everything could be read.
fn is_whole(outcome: &Outcome) -> bool {
    outcome.unreadable.is_empty() && outcome.rules_unread.is_empty()
}

/// Names what was not read.
fn report(context: &Context, outcome: &Outcome) {
    for path in &outcome.special {
        context.out.note(&format!("left out, neither file nor folder nor link: {}", path_text(path)));
    }
    for (path, reason) in &outcome.rules_unread {
        context.out.note(&format!("can not be followed: {}: {reason}", path_text(path)));
    }
    for (path, reason) in &outcome.unreadable {
        context.out.note(&format!("could not be read: {}: {reason}", path_text(path)));
    }
    if !outcome.unreadable.is_empty() {
        context.out.note("what could not be read is kept as it was in the last snapshot");
    }
}

fn text_of(outcome: &Outcome) -> String {
    let (files, folders, links, bytes) = outcome.counts;
    let left_out =
        if outcome.left_out > 0 { format!(", {} left out", outcome.left_out) } else { String::new() };
    format!(
        "{}: {files} files, {folders} folders, {links} links, {}; {} changed, {} deleted{left_out}; snapshot {}",
        path_text(&outcome.root),
        size(bytes),
        outcome.changed,
        outcome.deleted,
        outcome.snapshot.get(..12).unwrap_or(&outcome.snapshot)
    )
}

fn value_of(outcome: &Outcome) -> Value {
    let (files, folders, links, bytes) = outcome.counts;
    let reasons = |paths: &[(PathBuf, String)]| -> Vec<Value> {
        let one = |(path, reason): &(PathBuf, String)| json!({ "path": path_text(path), "reason": reason });
        paths.iter().map(one).collect()
    };
    json!({
        "root": path_text(&outcome.root), "snapshot": outcome.snapshot, "files": files, "folders": folders,
        "links": links, "bytes": bytes, "changed": outcome.changed, "deleted": outcome.deleted,
        "unreadable": reasons(&outcome.unreadable), "rules_unread": reasons(&outcome.rules_unread),
        "left_out": outcome.left_out,
        "special": outcome.special.iter().map(|path| path_text(path)).collect::<Vec<_>>(),
    })
}

/// Opens a vault for reading, up to date if this process may write and the server is honest and there. If not,
/// what this device holds is read all the same; the error comes along, to be told at the end.
pub(crate) async fn open_to_read(
    context: &Context,
    name: &str,
) -> Result<(Account, Vault, Option<ClientError>)> {
    let mut account = context.account_to_read()?;
    if !account.writes() {
        let vault = account.open_vault_locally(name)?;
        return Ok((account, vault, None));
    }
    match bring_up_to_date(context, &mut account, name, false).await {
        Ok(vault) => Ok((account, vault, None)),
        Err(error) => match account.open_vault_locally(name) {
            Ok(vault) => {
                context.out.note("showing what this device holds");
                Ok((account, vault, Some(error)))
            }
            Err(_) => Err(error),
        },
    }
}

/// Syncs keyring and vault. Beyond the account's quota that is as far as it goes: everything was pulled and checked
/// before anything was pushed.
pub(crate) async fn bring_up_to_date(
    context: &Context,
    account: &mut Account,
    name: &str,
    create: bool,
) -> Result<Vault> {
    account.refresh_keyring().await?;
    let mut is_full = is_full(account.push_keyring().await)?;
    let mut vault = account.open_vault(name, create).await?;
    is_full |= self::is_full(account.sync_vault(&mut vault).await)?;
    if is_full {
        context
            .out
            .note("the account's quota is used up: what this device wrote waits here; see: lockstep status");
    } else {
        account.pin_heads(false).await?;
    }
    context.synced(account)?;
    Ok(vault)
}

/// Whether a push ended because the account's quota is used up.
fn is_full(pushed: Result<()>) -> Result<bool> {
    match pushed {
        Ok(()) => Ok(false),
        Err(ClientError::QuotaExceeded(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

/// A command that showed what it could ends with what was wrong.
pub(crate) fn told(trouble: Option<ClientError>) -> Result<()> {
    trouble.map_or(Ok(()), Err)
}

pub(crate) async fn snapshots(context: &Context, name: &str) -> Result<()> {
    let (account, vault, trouble) = open_to_read(context, name).await?;
    let devices = account.devices();
    let mut text = String::new();
    let mut list = Vec::new();
    for snapshot in vault.snapshots()? {
        let device = snapshot.source.doc.device.to_string();
        let device_name =
            devices.iter().find(|known| known.id == device).map_or("?", |known| known.name.as_str());
        let (files, _, _, bytes, unreadable) = snapshot.doc.counts;
        let _ = writeln!(
            text,
            "{}  {}  {}  {files} files, {}{}{}  ({} on {})",
            snapshot.id.get(..12).unwrap_or(&snapshot.id),
            time(snapshot.doc.end_utc),
            shown(&snapshot.source.doc.name.0),
            size(bytes),
            if unreadable > 0 { format!(", {unreadable} unreadable") } else { String::new() },
            snapshot.doc.tags.iter().fold(String::new(), |text, tag| text + " #" + tag),
            shown(&snapshot.source.doc.root.0),
            shown(device_name.as_bytes()),
        );
        list.push(json!({
            "snapshot": snapshot.id, "commit": snapshot.seq.value(), "source": shown(&snapshot.source.doc.name.0),
            "root": shown(&snapshot.source.doc.root.0), "device": device, "device_name": device_name,
            "start_utc": snapshot.doc.start_utc, "end_utc": snapshot.doc.end_utc, "files": files, "bytes": bytes,
            "unreadable": unreadable, "tags": snapshot.doc.tags,
        }));
    }
    context.out.result(if text.is_empty() { "there is no snapshot yet" } else { &text }, &json!(list));
    told(trouble)
}

fn chosen(vault: &Vault, snapshot: Option<&str>, at: Option<&str>) -> Result<Vec<Snapshot>> {
    match (snapshot, at) {
        (Some(prefix), _) => Ok(vec![vault.snapshot(prefix)?]),
        (None, at) => {
            let at = at.map(parse_time).transpose()?;
            let found = vault.newest_snapshots(at)?;
            if found.is_empty() {
                let when = if at.is_some() { " at or before that time" } else { "" };
                return Err(ClientError::NotFound(format!("there is no finished snapshot{when}")));
            }
            Ok(found)
        }
    }
}

pub(crate) async fn ls(context: &Context, args: Ls) -> Result<()> {
    let (_account, vault, trouble) = open_to_read(context, &args.vault).await?;
    let mut text = String::new();
    let mut list = Vec::new();
    let snapshots = match chosen(&vault, args.snapshot.as_deref(), None) {
        Ok(snapshots) => snapshots,
        Err(error) => return Err(trouble.unwrap_or(error)),
    };
    for snapshot in snapshots {
        let name = PathBuf::from(std::ffi::OsStr::from_bytes(&snapshot.source.doc.name.0));
        let found = vault.files_of(&snapshot).await?;
        for (path, reason) in &found.failed {
            context.out.note(&format!("not shown: {}: {path}: {reason}", path_text(&name)));
        }
        for file in found.files {
            let below = std::ffi::OsStr::from_bytes(&file.doc.path.0);
            let path = if file.doc.path.0.is_empty() { name.clone() } else { name.join(below) };
            if args.path.as_ref().is_some_and(|wanted| !path.starts_with(wanted)) {
                continue;
            }
            let (mark, kind) = match file.doc.kind {
                KIND_FOLDER => ("/", "folder"),
                KIND_LINK => ("@", "link"),
                _ => ("", "file"),
            };
            let seconds = u64::try_from(file.doc.mtime.0).unwrap_or(0);
            let _ = writeln!(text, "{:>12}  {}  {}{mark}", file.doc.size, time(seconds), path_text(&path));
            list.push(json!({
                "path": path_text(&path), "kind": kind, "size": file.doc.size,
                "mtime": [file.doc.mtime.0, file.doc.mtime.1], "mode": file.doc.mode, "snapshot": snapshot.id,
            }));
        }
    }
    if list.is_empty() {
        return Err(trouble.unwrap_or_else(|| ClientError::NotFound("nothing is there".into())));
    }
    context.out.result(&text, &json!(list));
    told(trouble)
}

pub(crate) async fn restore(context: &Context, args: Restore) -> Result<ExitCode> {
    let (account, vault, trouble) = open_to_read(context, &args.vault).await?;
    limit_rate(&account, &args.run)?;
    // Contents come from the server: from one that is not believed nothing is restored.
    told(trouble)?;
    let snapshots = chosen(&vault, args.snapshot.as_deref(), args.at.as_deref())?;
    let options = restore::Options {
        paths: args.paths.clone(),
        overwrite: args.overwrite,
        stop: Arc::clone(&context.stop),
    };
    let meter = context.out.meter("restoring");
    let mut meter = meter.in_form(args.run.progress, "restore", path_text(&args.dest));
    let done = run_restore(&vault, &snapshots, &args.dest, &options, &mut |progress| {
        meter.show(progress.entries, progress.bytes);
    })
    .await;
    meter.finish(State::of(&done, |outcome| outcome.failed.is_empty()));
    let outcome = done?;
    for (path, reason) in &outcome.failed {
        context.out.note(&format!("not restored: {}: {reason}", path_text(path)));
    }
    let failed: Vec<_> = outcome
        .failed
        .iter()
        .map(|(path, reason)| json!({ "path": path_text(path), "reason": reason }))
        .collect();
    context.out.result(
        &format!(
            "{} entries written ({}), {} unchanged, {} not restored, to {}",
            outcome.written,
            size(outcome.bytes),
            outcome.unchanged,
            outcome.failed.len(),
            path_text(&args.dest)
        ),
        &json!({
            "written": outcome.written, "bytes": outcome.bytes, "unchanged": outcome.unchanged, "failed": failed,
            "snapshots": snapshots.iter().map(|snapshot| snapshot.id.clone()).collect::<Vec<_>>(),
        }),
    );
    Ok(if outcome.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) })
}
