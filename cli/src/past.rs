//! `history`, `diff`, `forget`.

use crate::Context;
use crate::args::{Diff, Forget, History};
use crate::backup::{open_to_read, path_text, told};
use crate::output::{INCOMPLETE, shown, size, time};
use crate::record::{open, send_deletions};
use lockstep_client::diff::{Change, Difference};
use lockstep_client::error::Result;
use lockstep_client::history::{FileVersion, Held};
use lockstep_client::snapshot::{Snapshot, SnapshotFile};
use lockstep_engine::files::{KIND_FOLDER, KIND_LINK, SNAPSHOT_TYPE};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Ids of snapshots in a line of a history; the others are counted.
const IDS_SHOWN: usize = 2;

fn kind_of(file: &SnapshotFile) -> &'static str {
    match file.doc.kind {
        KIND_FOLDER => "folder",
        KIND_LINK => "link",
        _ => "file",
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn file_value(file: &SnapshotFile) -> Value {
    json!({
        "kind": kind_of(file), "size": file.doc.size, "mtime": [file.doc.mtime.0, file.doc.mtime.1],
        "mode": file.doc.mode,
    })
}

fn mtime(file: &SnapshotFile) -> String {
    time(u64::try_from(file.doc.mtime.0).unwrap_or(0))
}

pub(crate) async fn history(context: &Context, args: History) -> Result<()> {
    let (_account, vault, trouble) = open_to_read(context, &args.vault).await?;
    let history = match vault.file_history(&args.path).await {
        Ok(history) => history,
        Err(error) => return Err(trouble.unwrap_or(error)),
    };
    let text: String = history.versions.iter().map(version_text).collect();
    let list: Vec<Value> = history.versions.iter().map(version_value).collect();
    context.out.result(&text, &json!(list));
    told(trouble.or(history.trouble))
}

fn ids_text(snapshots: &[Snapshot]) -> String {
    let ids: Vec<&str> = snapshots.iter().take(IDS_SHOWN).map(|snapshot| short(&snapshot.id)).collect();
    match snapshots.len().checked_sub(IDS_SHOWN) {
        None | Some(0) => ids.join(", "),
        Some(more) => format!("{} and {more} later", ids.join(", ")),
    }
}

fn version_text(version: &FileVersion) -> String {
    let when = version.snapshots.first().map_or(0, |first| first.doc.end_utc);
    let what = match (&version.held, version.change) {
        (Held::Deleted, _) => "deleted".to_owned(),
        (Held::Unreadable(reason), _) => format!("can not be shown: {reason}"),
        (Held::File(file), change) => {
            let became = match change {
                Some(Change::Added) => "new",
                Some(Change::Contents) => "contents changed",
                Some(Change::Metadata) => "only time or mode changed",
                Some(Change::Removed) | None => "the same again",
            };
            format!("{}, {}, of {}: {became}", kind_of(file), size(file.doc.size), mtime(file))
        }
    };
    format!("{}  {what}  (in {})\n", time(when), ids_text(&version.snapshots))
}

fn change_text(change: Change) -> &'static str {
    match change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Contents => "contents",
        Change::Metadata => "metadata",
    }
}

fn version_value(version: &FileVersion) -> Value {
    let mut value = match &version.held {
        Held::File(file) => file_value(file),
        _ => json!({ "kind": null }),
    };
    if let Value::Object(fields) = &mut value {
        let ids: Vec<&str> = version.snapshots.iter().map(|snapshot| snapshot.id.as_str()).collect();
        let source = version.snapshots.first().map(|first| shown(&first.source.doc.name.0));
        fields.insert("end_utc".into(), json!(version.snapshots.first().map(|first| first.doc.end_utc)));
        fields.insert("snapshots".into(), json!(ids));
        fields.insert("source".into(), json!(source));
        fields.insert("commit".into(), json!(version.seq.value()));
        fields.insert("deleted".into(), json!(matches!(version.held, Held::Deleted)));
        fields.insert("change".into(), json!(version.change.map(change_text)));
        if let Held::Unreadable(reason) = &version.held {
            fields.insert("unreadable".into(), json!(reason));
        }
    }
    value
}

fn mark(change: Change) -> char {
    match change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Contents => 'M',
        Change::Metadata => 'm',
    }
}

pub(crate) async fn diff(context: &Context, args: Diff) -> Result<ExitCode> {
    let (_account, vault, trouble) = open_to_read(context, &args.vault).await?;
    let found = vault.snapshot(&args.old).and_then(|old| Ok((old, vault.snapshot(&args.new)?)));
    let (old, new) = match found {
        Ok(found) => found,
        Err(error) => return Err(trouble.unwrap_or(error)),
    };
    let is_one_source = old.source.id == new.source.id;
    if !is_one_source {
        context.out.note(&format!(
            "the snapshots are of two sources, {} and {}: compared by path below the root",
            shown(&old.source.doc.name.0),
            shown(&new.source.doc.name.0)
        ));
    }
    let diff = vault.diff(&old, &new).await?;
    for (path, reason) in &diff.failed {
        context.out.note(&format!("not compared, and so perhaps shown as + or -: {path}: {reason}"));
    }
    let name = PathBuf::from(std::ffi::OsStr::from_bytes(&new.source.doc.name.0));
    let path_of = |difference: &Difference| {
        let below = std::ffi::OsStr::from_bytes(&difference.path);
        match (is_one_source, difference.path.is_empty()) {
            (true, true) => path_text(&name),
            (true, false) => path_text(&name.join(below)),
            (false, true) => ".".to_owned(),
            (false, false) => path_text(below.as_ref()),
        }
    };
    let mut text = String::new();
    let mut list = Vec::new();
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for difference in &diff.differences {
        let path = path_of(difference);
        let _ = writeln!(text, "{} {path}", mark(difference.change));
        *totals.entry(change_text(difference.change)).or_default() += 1;
        list.push(json!({
            "path": path, "change": change_text(difference.change),
            "before": difference.before.as_ref().map(file_value),
            "after": difference.after.as_ref().map(file_value),
        }));
    }
    let total = |change| totals.get(change_text(change)).copied().unwrap_or(0);
    let (added, removed) = (total(Change::Added), total(Change::Removed));
    let (contents, metadata) = (total(Change::Contents), total(Change::Metadata));
    let unchanged = diff.unchanged;
    let _ = writeln!(
        text,
        "{added} added (+), {removed} removed (-), {contents} with other contents (M), {metadata} with only another \
         time or mode (m), {unchanged} unchanged"
    );
    context.out.result(
        &text,
        &json!({
            "old": old.id, "new": new.id, "one_source": is_one_source, "differences": list,
            "added": added, "removed": removed, "contents": contents, "metadata": metadata,
            "unchanged": unchanged, "not_compared": diff.failed.len(),
        }),
    );
    told(trouble)?;
    Ok(if diff.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) })
}

pub(crate) async fn forget(context: &Context, args: Forget) -> Result<()> {
    let (mut account, mut vault) = open(context, &args.vault, false).await?;
    // All are found before the first is forgotten.
    let mut chosen: BTreeMap<String, Snapshot> = BTreeMap::new();
    for prefix in &args.snapshots {
        let snapshot = vault.snapshot(prefix)?;
        chosen.insert(snapshot.id.clone(), snapshot);
    }
    let chosen: Vec<Snapshot> = chosen.into_values().collect();
    vault.forget(&chosen).await?;
    let keys = &vault.setup().keys;
    let records: Vec<_> =
        chosen.iter().map(|snapshot| keys.record_id(SNAPSHOT_TYPE, &snapshot.name)).collect();
    let sent = send_deletions(context, &mut account, &mut vault, &records).await?;
    account.keep_session()?;
    let mut text = String::new();
    for snapshot in &chosen {
        let name = shown(&snapshot.source.doc.name.0);
        let _ = writeln!(text, "forgot {} of {name}, {}", short(&snapshot.id), time(snapshot.doc.end_utc));
    }
    let ids: Vec<&str> = chosen.iter().map(|snapshot| snapshot.id.as_str()).collect();
    context.out.result(&text, &json!({ "forgotten": ids, "sent": sent }));
    Ok(())
}
