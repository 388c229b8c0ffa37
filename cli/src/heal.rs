//! `heal`.

use crate::Context;
use crate::args::Heal;
use crate::join::{from_file, prompt};
use crate::look::sync_all;
use crate::output::{INCOMPLETE, shown, size, time};
use lockstep_client::ClientError;
use lockstep_client::account::Account;
use lockstep_client::error::Result;
use lockstep_client::heal::{Diagnosis, Healed, LogState, Lost, VaultFinding, VaultState};
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_engine::replica::Replica as _;
use lockstep_proto::api::problem::Code;
use lockstep_proto::envelope::KIND_TOMBSTONE;
use serde_json::json;
use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

pub(crate) async fn heal(context: &Context, args: Heal) -> Result<ExitCode> {
    let mut account = context.account()?;
    if args.review {
        review(context, &account)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut healed = Healed::default();
    let mut diagnosis = account.diagnose().await?;
    let mut passphrase = None;
    let log_is_whole = diagnosis.log == LogState::Whole;
    if !log_is_whole {
        explain(context, &diagnosis);
        if diagnosis.log == LogState::Parted {
            return Err(ClientError::Fork(
                "devices were enrolled or revoked on both sides since the copy was made; put a newer copy of the \
                 server's data back, or sign in again with the devices that joined since"
                    .into(),
            ));
        }
        agree(context, &args)?;
        passphrase = Some(ask_passphrase(&args)?);
        account.heal_log().await?;
        account.refresh_devices().await?;
        diagnosis = account.diagnose().await?;
    }
    account.look_for_envelopes(&mut diagnosis).await?;
    explain(context, &diagnosis);
    if !diagnosis.is_whole() {
        agree(context, &args)?;
        if diagnosis.needs_owner() && passphrase.is_none() {
            passphrase = Some(ask_passphrase(&args)?);
        }
        mend(&mut account, &diagnosis, passphrase.as_ref(), &mut healed).await?;
    }
    // Before the sync, which may wait for some of them.
    account.give_envelopes_back(&diagnosis, &mut healed).await?;
    let vaults = match sync_all(context, &mut account).await {
        Err(error) if error.code() == Some(Code::MissingObject) => {
            account.push_healing().await?;
            sync_all(context, &mut account).await?
        }
        other => other?,
    };
    account.give_rest_back(&diagnosis, &mut healed).await?;
    account.pin_heads(true).await?;
    if account.sign_in_is_due()? {
        let passphrase = match passphrase {
            Some(passphrase) => passphrase,
            None => ask_passphrase(&args)?,
        };
        account.unlock(&passphrase).await?.change_passphrase(&passphrase).await?;
        account.sign_in_is_done()?;
    }
    let mut found = 0;
    let mut left = Vec::new();
    for (name, vault) in &vaults {
        let lost = vault.lost_objects().await?;
        if lost.is_empty() {
            continue;
        }
        found += lost.len();
        let bytes = lost.iter().map(|object| object.size).fold(0, u64::saturating_add);
        context.out.note(&format!(
            "vault {}: contents of {} files ({}) are gone from the server; they are sent again from the files of \
             this device, if those are still the same",
            shown(name.as_bytes()),
            lost.len(),
            size(bytes)
        ));
        left.extend(vault.upload_lost(lost).await?);
    }
    account.keep_session()?;
    report(context, &healed, log_is_whole, found, &left);
    Ok(if left.is_empty() && is_whole(&healed) { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) })
}

/// Whether the server has everything now, but for objects.
fn is_whole(healed: &Healed) -> bool {
    healed.snapshots_left == 0
        && healed.withheld.is_empty()
        && healed.not_held.is_empty()
        && healed.refused.is_empty()
}

async fn mend(
    account: &mut Account,
    diagnosis: &Diagnosis,
    passphrase: Option<&Passphrase>,
    healed: &mut Healed,
) -> Result<()> {
    account.give_all_back(diagnosis, healed).await?;
    if let Some(passphrase) = passphrase.filter(|_| diagnosis.needs_owner()) {
        account.unlock_held(passphrase)?.join_all(diagnosis, healed).await?;
    }
    // What came back may hold keys and devices that say more of the rest.
    let again = account.diagnose().await?;
    account.give_all_back(&again, healed).await?;
    if let Some(passphrase) = passphrase.filter(|_| again.needs_owner()) {
        account.unlock_held(passphrase)?.join_all(&again, healed).await?;
    }
    Ok(())
}

/// Versions that are named one by one; more are counted.
const WITHHELD_NAMED_MAX: usize = 16;

/// Says in words what was found, and what would be done.
fn explain(context: &Context, diagnosis: &Diagnosis) {
    match &diagnosis.log {
        LogState::Whole => {}
        LogState::Behind(count) => context.out.note(&format!(
            "the server lacks the last {count} entries of the device log: it was restored from an older copy. They \
             are given back, so that devices that joined since are known and revoked ones stay out"
        )),
        LogState::Unknown => context.out.note(
            "the server does not know this device: either it was revoked, or the server was restored from a copy \
             that is older than this device. What this device knows of the account's devices is given back",
        ),
        LogState::Parted => {
            context.out.note("the server's device log went another way than the one that this device verified");
        }
    }
    for found in &diagnosis.vaults {
        let envelopes = (!found.lacks.is_empty()).then(|| {
            format!(
                "the server lacks the newest versions of {} records that this device holds; they are given back",
                found.lacks.len()
            )
        });
        let not_held = (!found.not_held.is_empty()).then(|| {
            format!(
                "the server lacks the newest versions of {} records that this device does not hold either; they are \
                 not given back. Another device that holds them can do that: run lockstep heal there",
                found.not_held.len()
            )
        });
        for text in [in_words(found), envelopes, not_held].into_iter().flatten() {
            context.out.note(&format!("vault {}: {text}", shown(found.name.as_bytes())));
        }
    }
}

fn in_words(found: &VaultFinding) -> Option<String> {
    let held = found.held.map_or_else(|| "nothing".into(), |seq| format!("commit {seq}"));
    Some(match &found.state {
        VaultState::Whole => return None,
        VaultState::Missing => {
            format!("the server does not have it; all commits up to {held} are given back")
        }
        VaultState::Behind(seq) => {
            format!("the server ends at commit {seq}, this device has {held}; what is between is given back")
        }
        VaultState::Parted(shared) => format!(
            "the server's history and this device's part after commit {shared}. The server's is kept; what this \
             device has beyond it is written again on top, and where both changed the same, both versions are \
             kept. A repair that you sign tells your other devices"
        ),
        VaultState::Fault(text) => format!(
            "{text}. A repair that you sign goes back to the last good commit; what came after it is kept for \
             review, and what valid devices wrote is written again"
        ),
        VaultState::Unfinished => "an earlier healing was cut off; it goes on".into(),
    })
}

fn agree(context: &Context, args: &Heal) -> Result<()> {
    if args.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(ClientError::Usage(
            "there is no terminal to ask; say --yes if this is what you want".into(),
        ));
    }
    let _ = context;
    let mut terminal = std::io::stderr().lock();
    let _ = write!(terminal, "Go on? [y/N] ");
    let _ = terminal.flush();
    drop(terminal);
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|error| ClientError::io("terminal", error))?;
    if line.trim().eq_ignore_ascii_case("y") || line.trim().eq_ignore_ascii_case("yes") {
        Ok(())
    } else {
        Err(ClientError::Usage("nothing was done".into()))
    }
}

fn ask_passphrase(args: &Heal) -> Result<Passphrase> {
    match &args.passphrase_file {
        Some(path) => from_file(path),
        None => Ok(Passphrase::new(&prompt("Passphrase: ", "--passphrase-file")?)?),
    }
}

fn report(context: &Context, healed: &Healed, log_is_whole: bool, found: usize, left: &[Lost]) {
    let mut text = String::new();
    let given = healed.commits + healed.envelopes + healed.repairs + healed.carried;
    if log_is_whole && given == 0 && found == 0 {
        text.push_str("nothing to heal: the server has everything that this device holds");
    } else {
        let _ = write!(
            text,
            "healed: {} commits given back, {} envelopes of others, {} repairs signed, {} versions carried over, {} \
             kept for review, {} objects uploaded again",
            healed.commits,
            healed.envelopes,
            healed.repairs,
            healed.carried,
            healed.kept,
            found - left.len()
        );
    }
    if healed.kept > 0 {
        text.push_str("\nWhat is kept for review: lockstep heal --review");
    }
    if healed.snapshots_left > 0 {
        let _ = write!(
            text,
            "\n{} snapshots could not be carried over whole; run: lockstep backup, again",
            healed.snapshots_left
        );
    }
    for (seq, record) in healed.withheld.iter().take(WITHHELD_NAMED_MAX) {
        let _ = write!(
            text,
            "\nwithheld: what commit {seq} wrote to record {record}; the server does not give it out as it was signed, \
             so that it was not carried over. The device that wrote it has it"
        );
    }
    if healed.withheld.len() > WITHHELD_NAMED_MAX {
        let _ = write!(text, "\nwithheld: {} versions in all", healed.withheld.len());
    }
    for (seq, record) in healed.not_held.iter().take(WITHHELD_NAMED_MAX) {
        let _ = write!(
            text,
            "\nnot given back: what commit {seq} wrote to record {record}; this device does not hold it, by what it \
             is to keep (see: lockstep vault list). Run lockstep heal on a device that holds it"
        );
    }
    if healed.not_held.len() > WITHHELD_NAMED_MAX {
        let _ = write!(text, "\nnot given back: {} versions in all", healed.not_held.len());
    }
    for (seq, record) in healed.refused.iter().take(WITHHELD_NAMED_MAX) {
        let _ = write!(
            text,
            "\nstill missing: what commit {seq} wrote to record {record}; the server got it back and does not give it \
             out. Write it again on a device that holds it"
        );
    }
    if healed.refused.len() > WITHHELD_NAMED_MAX {
        let _ = write!(text, "\nstill missing: {} versions in all", healed.refused.len());
    }
    for object in left {
        let _ = write!(
            text,
            "\nstill missing: {} ({}); another device may have it: run lockstep heal there, or lockstep backup here",
            shown(object.name.as_os_str().as_bytes()),
            size(object.size)
        );
    }
    let names: Vec<String> = left.iter().map(|object| shown(object.name.as_os_str().as_bytes())).collect();
    context.out.result(
        &text,
        &json!({
            "commits": healed.commits, "envelopes": healed.envelopes, "refused": healed.refused.len(),
            "repairs": healed.repairs, "carried": healed.carried, "kept": healed.kept,
            "snapshots_left": healed.snapshots_left, "withheld": healed.withheld.len(), "not_held": healed.not_held.len(), "uploaded": found - left.len(), "missing": names,
        }),
    );
}

/// Lists what no longer counts and was not carried over, or was and stays on the shelf.
fn review(context: &Context, account: &Account) -> Result<()> {
    let devices = account.devices();
    let mut text = String::new();
    let mut list = Vec::new();
    for entry in account.vaults()? {
        let Ok(vault) = account.open_vault_locally(&entry.name) else { continue };
        for row in vault.replica().shelved()? {
            let envelope = vault.replica().shelved_envelope(row.id)?;
            let opened = envelope.and_then(|bytes| vault.setup().keys.open(&bytes).ok());
            let Some(opened) = opened else { continue };
            // What stands in the vault as it was is no matter for review.
            let current = vault.replica().envelope(row.record)?;
            let current = current.and_then(|bytes| vault.setup().keys.open(&bytes).ok());
            if current.is_some_and(|current| {
                (current.content.document, current.header.kind)
                    == (opened.content.document.clone(), opened.header.kind)
            }) {
                continue;
            }
            let device = opened.header.device.to_string();
            let device =
                devices.iter().find(|known| known.id == device).map_or("?", |known| known.name.as_str());
            let name = shown(&opened.content.name.0);
            let written = opened.content.hlc.utc_ms / 1000;
            let deleted = row.kind == KIND_TOMBSTONE;
            let document: serde_json::Value =
                serde_json::from_slice(&opened.content.document.0).unwrap_or(serde_json::Value::Null);
            let _ = writeln!(
                text,
                "{}  commit {}  {}  {} {}{}  by {}  {}",
                shown(entry.name.as_bytes()),
                row.seq,
                time(written),
                shown(opened.content.record_type.as_bytes()),
                name,
                if deleted { " (deleted)" } else { "" },
                shown(device.as_bytes()),
                if document.is_null() { String::new() } else { document.to_string() },
            );
            list.push(json!({
                "vault": entry.name, "commit": row.seq.value(), "utc": written, "name": name, "device": device,
                "type": opened.content.record_type, "deleted": deleted, "document": document,
            }));
        }
    }
    context.out.result(if text.is_empty() { "nothing is kept for review" } else { &text }, &json!(list));
    Ok(())
}
