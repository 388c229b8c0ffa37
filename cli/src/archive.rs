//! `export` and `import`.

use crate::Context;
use crate::args::{Export, Import};
use crate::backup::path_text;
use crate::join::passphrase;
use crate::output::{INCOMPLETE, shown, size, time};
use lockstep_client::archive::{self, Key, Opened, Options, import, plain};
use lockstep_client::error::Result;
use lockstep_client::{ClientError, kit};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use zeroize::Zeroizing;

fn status(problems: &[String]) -> ExitCode {
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) }
}

fn tell(context: &Context, problems: &[String]) {
    for problem in problems {
        context.out.note(&format!("not whole: {problem}"));
    }
}

pub(crate) async fn export(context: &Context, args: Export) -> Result<ExitCode> {
    let path = match (&args.archive, &args.decrypted) {
        (_, Some(folder)) => return decrypted(context, folder).await,
        (Some(path), None) => path,
        (None, None) => return Err(ClientError::Usage("say which file to write, or --decrypted DIR".into())),
    };
    let mut account = context.account()?;
    let pending = account.pending()?;
    let options = Options {
        without_passphrase_wrap: args.without_passphrase_wrap,
        force: args.force,
        stop: Arc::clone(&context.stop),
    };
    let mut meter = context.out.meter("writing");
    let done = archive::write(&mut account, path, &options, &mut |progress| {
        meter.show(progress.vaults, progress.bytes);
    })
    .await;
    meter.end();
    context.synced(&account)?;
    let outcome = done?;
    tell(context, &outcome.problems);
    if account.pending()? > 0 {
        context.out.note(&format!("writes that wait for the server are not in the archive ({pending})"));
    }
    let counts = outcome.counts;
    context.out.result(
        &format!(
            "{}: {}; vaults: {}, commits: {}, objects: {}, {}; read back and verified\nopens with: {}the recovery key\naccount: {}",
            path_text(path),
            size(outcome.bytes),
            outcome.vaults,
            counts.commits,
            counts.objects,
            if outcome.problems.is_empty() {
                "nothing is missing".to_owned()
            } else {
                format!("{} things are missing", outcome.problems.len())
            },
            if args.without_passphrase_wrap { "" } else { "the passphrase of today, or " },
            outcome.fingerprint,
        ),
        &json!({
            "archive": path_text(path), "bytes": outcome.bytes, "vaults": outcome.vaults,
            "commits": counts.commits, "versions": counts.versions, "objects": counts.objects,
            "content_bytes": counts.bytes, "fingerprint": outcome.fingerprint, "problems": outcome.problems,
        }),
    );
    Ok(status(&outcome.problems))
}

/// Opens an archive with what the user has.
async fn open(context: &Context, args: &Import, folder: &Path) -> Result<Opened> {
    let kit = match &args.recovery_key_file {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| ClientError::io(path, error))?;
            Some(kit::parse(&Zeroizing::new(text))?)
        }
    };
    let typed = match &kit {
        None => Some(passphrase(args.passphrase_file.as_deref())?),
        Some(kit) => {
            if kit.checkpoint.is_none() {
                context.out.note(
                    "this is a bare recovery key: without the kit's checkpoint an archive of an old state, or by a \
                     device that was revoked, is not noticed",
                );
            }
            None
        }
    };
    let key = match (&kit, &typed) {
        (Some(kit), _) => Key::Recovery(kit),
        (None, Some(typed)) => Key::Passphrase(typed),
        (None, None) => {
            return Err(ClientError::Usage("say --passphrase-file or --recovery-key-file".into()));
        }
    };
    let mut meter = context.out.meter("verifying");
    let opened = archive::open(&args.archive, folder, key, &args.ignore_pins_of, &mut |progress| {
        meter.show(progress.vaults, progress.bytes);
    })
    .await;
    meter.end();
    if let Err(ClientError::WrongPassphrase | ClientError::WrongRecoveryKey) = &opened {
        context
            .out
            .note("an archive opens with the passphrase and the recovery key of the day that it was made");
    }
    opened
}

/// Who says that he made it, and what of: a reader can compare.
fn about(opened: &Opened) -> (String, Value) {
    let header = &opened.header;
    let text = format!(
        "made by {} ({}), {}, by its own word; device log {}\naccount: {}\n",
        shown(opened.maker.as_bytes()),
        header.device,
        time(header.utc),
        opened.log_index,
        opened.fingerprint
    );
    let value = json!({
        "account": header.account.to_string(), "device": header.device.to_string(), "device_name": opened.maker,
        "utc": header.utc, "log_index": opened.log_index, "fingerprint": opened.fingerprint,
        "vaults": opened.vaults.iter().map(|vault| vault.name.as_str()).collect::<Vec<_>>(),
    });
    (text, value)
}

async fn decrypted(context: &Context, folder: &Path) -> Result<ExitCode> {
    let mut account = context.account()?;
    context.out.note(&format!("what is written to {} is not encrypted", path_text(folder)));
    let mut meter = context.out.meter("writing");
    let done = plain::write(&mut account, folder, &context.stop, &mut |progress| {
        meter.show(progress.vaults, progress.bytes);
    })
    .await;
    meter.end();
    context.synced(&account)?;
    let outcome = done?;
    tell(context, &outcome.problems);
    context.out.result(
        &format!(
            "{}: vaults: {}, snapshots: {}, entries: {} ({}), records: {}; {} lists all of it\nNothing here is encrypted: \
             keep the folder where nobody else reads, and delete it when it is not needed",
            path_text(folder),
            outcome.vaults,
            outcome.snapshots,
            outcome.entries,
            size(outcome.bytes),
            outcome.records,
            plain::MANIFEST
        ),
        &json!({
            "folder": path_text(folder), "vaults": outcome.vaults, "snapshots": outcome.snapshots,
            "entries": outcome.entries, "bytes": outcome.bytes, "records": outcome.records,
            "problems": outcome.problems,
        }),
    );
    Ok(status(&outcome.problems))
}

pub(crate) async fn import(context: &Context, args: Import) -> Result<ExitCode> {
    if args.check {
        return check(context, &args).await;
    }
    let mut account = context.account()?;
    let mut opened = open(context, &args, &context.home).await?;
    let (mut text, mut value) = about(&opened);
    let mut meter = context.out.meter("importing");
    let done = import::import(&mut account, &mut opened, &context.stop, &mut |progress| {
        meter.show(progress.vaults, progress.bytes);
    })
    .await;
    meter.end();
    context.synced(&account)?;
    let outcome = done?;
    tell(context, &outcome.problems);
    let mut list = Vec::new();
    for vault in &outcome.vaults {
        let tally = vault.tally;
        let _ = if vault.was_done {
            writeln!(
                text,
                "vault {}: imported before, as {}",
                shown(vault.from.as_bytes()),
                shown(vault.name.as_bytes())
            )
        } else {
            writeln!(
                text,
                "vault {}: imported as {}; snapshots: {}, versions of files: {}, records: {}, sent: {}",
                shown(vault.from.as_bytes()),
                shown(vault.name.as_bytes()),
                tally.snapshots,
                tally.files,
                tally.records,
                size(tally.bytes)
            )
        };
        list.push(json!({
            "from": vault.from, "name": vault.name, "vault": vault.vault, "imported_before": vault.was_done,
            "snapshots": tally.snapshots, "files": tally.files, "records": tally.records, "bytes": tally.bytes,
        }));
    }
    if let Value::Object(fields) = &mut value {
        fields.insert("imported".into(), json!(list));
        fields.insert("problems".into(), json!(outcome.problems));
    }
    context.out.result(&text, &value);
    Ok(status(&outcome.problems))
}

async fn check(context: &Context, args: &Import) -> Result<ExitCode> {
    let mut opened = open(context, args, &std::env::temp_dir()).await?;
    let counts = opened.look_at_all(&mut |_| {})?;
    let (mut text, mut value) = about(&opened);
    tell(context, &opened.problems);
    let _ = write!(
        text,
        "verified: vaults: {}, commits: {}, versions: {}, objects: {} ({}); problems: {}",
        opened.vaults.len(),
        counts.commits,
        counts.versions,
        counts.objects,
        size(counts.bytes),
        opened.problems.len()
    );
    if let Value::Object(fields) = &mut value {
        fields.insert("commits".into(), json!(counts.commits));
        fields.insert("versions".into(), json!(counts.versions));
        fields.insert("objects".into(), json!(counts.objects));
        fields.insert("content_bytes".into(), json!(counts.bytes));
        fields.insert("problems".into(), json!(opened.problems));
    }
    context.out.result(&text, &value);
    Ok(status(&opened.problems))
}
