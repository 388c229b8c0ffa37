//! `vault keep` and `record fetch`: what of a vault this device holds.

use crate::Context;
use crate::args::RecordPlace;
use crate::backup::open_to_read;
use crate::output::shown;
use crate::record::{name_of, told};
use lockstep_client::ClientError;
use lockstep_client::error::Result;
use lockstep_client::select::Selection;
use lockstep_client::vault::Vault;
use lockstep_client_crypto::content::Content;
use lockstep_engine::EngineError;
use lockstep_engine::read::{self, Current};
use lockstep_engine::replica::{Replica as _, VersionRow};
use lockstep_engine::select::LIBRARY_TYPES;
use lockstep_proto::id::RecordId;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

/// `vault keep`; with neither days nor types, everything is held.
pub(crate) async fn keep(context: &Context, name: &str, days: Option<u64>, types: Vec<String>) -> Result<()> {
    if types.iter().any(|record_type| record_type.starts_with(LIBRARY_TYPES)) {
        return Err(ClientError::Usage("types that begin with lockstep/ are always held".into()));
    }
    let types =
        Some(types.into_iter().collect()).filter(|types: &std::collections::BTreeSet<_>| !types.is_empty());
    let selection = (days.is_some() || types.is_some()).then_some(Selection { days, types });
    let mut account = context.account()?;
    let known = account.refresh_keyring().await;
    if matches!(known, Err(ClientError::Unreachable { .. })) {
        let mut vault = account.open_vault_locally(name)?;
        vault.keep(selection.as_ref())?;
        context.out.note("the server can not be reached: it is so with the next sync");
        return report(context, &vault, name);
    }
    known?;
    let mut vault = account.open_vault(name, false).await?;
    // Before the sync, so that a new device never has more than it is to hold.
    vault.keep(selection.as_ref())?;
    account.sync_vault(&mut vault).await?;
    account.pin_heads(false).await?;
    context.synced(&account)?;
    if let Err(error) = vault.replica().db().shrink() {
        context.out.note(&format!("the space that is free in the database stays there: {error}"));
    }
    report(context, &vault, name)
}

fn report(context: &Context, vault: &Vault, name: &str) -> Result<()> {
    let selection = vault.replica().selection()?;
    let not_held = vault.not_held(None)?.len();
    let text = format!(
        "this device holds {} of vault {}; {not_held} records are not held",
        words(selection.as_ref()),
        shown(name.as_bytes())
    );
    context
        .out
        .result(&text, &json!({ "name": name, "keep": value(selection.as_ref()), "not_held": not_held }));
    Ok(())
}

/// What is held, for people.
pub(crate) fn words(selection: Option<&Selection>) -> String {
    let Some(selection) = selection else { return "everything".into() };
    let types = selection.types.as_ref().map(|types| {
        let types: Vec<String> = types.iter().map(|name| shown(name.as_bytes())).collect();
        format!("records of type {}", types.join(", "))
    });
    match (types, selection.days) {
        (Some(types), Some(days)) => format!("{types} of the last {days} days"),
        (Some(types), None) => types,
        (None, Some(days)) => format!("the records of the last {days} days"),
        (None, None) => "everything".into(),
    }
}

/// The same for programs.
pub(crate) fn value(selection: Option<&Selection>) -> Value {
    selection.map_or(Value::Null, |selection| json!({ "days": selection.days, "types": selection.types }))
}

/// Says how many records a list does not show.
pub(crate) fn tell_not_held(context: &Context, vault: &Vault, record_type: &str) -> Result<()> {
    let count = vault.not_held(Some(record_type))?.len();
    if count > 0 {
        let record_type = shown(record_type.as_bytes());
        context.out.note(&format!(
            "{count} more are known and not held on this device; to fetch them: lockstep record fetch --type {record_type}"
        ));
    }
    Ok(())
}

/// `record fetch`.
pub(crate) async fn fetch(context: &Context, place: &RecordPlace, id: Option<&str>) -> Result<()> {
    let (_account, mut vault, trouble) = open_to_read(context, &place.vault).await?;
    if let Some(trouble) = trouble {
        return Err(trouble);
    }
    if !vault.replica().db().writes() {
        return Err(ClientError::Usage(
            "another lockstep process is writing in this home: wait for it to end".into(),
        ));
    }
    let records = match id {
        Some(id) => vec![vault.setup().keys.record_id(&place.record_type, &name_of(id))],
        None => vault.not_held(Some(&place.record_type))?,
    };
    let count = vault.fetch(&records).await?;
    context.out.result(&format!("fetched {count} records"), &json!({ "fetched": count }));
    Ok(())
}

/// A record as it stands; one that is not held is fetched, if the server is there and believed.
pub(crate) async fn current(
    context: &Context,
    vault: &mut Vault,
    record: RecordId,
    trouble: Option<&ClientError>,
) -> Result<Option<Current>> {
    let read = |vault: &Vault| read::current(vault.replica(), &vault.setup().keys, record);
    let found = read(vault);
    let Err(EngineError::NotHeld { seq, .. }) = found else { return Ok(found?) };
    if trouble.is_some() || context.is_away.load(Ordering::Relaxed) {
        return Ok(found?);
    }
    if vault.replica().db().writes() {
        vault.fetch(&[record]).await?;
        return Ok(read(vault)?);
    }
    // Another process writes here: it is shown, and not kept.
    let Some(version) = vault.replica().version(seq, record)? else { return Ok(None) };
    let mut shown_now = None;
    let mut take = |_: &VersionRow, opened: Option<Content>| {
        shown_now = opened;
        Ok(())
    };
    if let Some(version) = vault.open_versions(&[version], &mut take).await?.first() {
        return Err(lockstep_client::past::withheld(version));
    }
    Ok(shown_now.map(|content| Current { content, revision: version.revision, pending: false }))
}

/// What an error of a read that found nothing held comes down to: why the server was not asked.
pub(crate) fn explain(error: ClientError, trouble: Option<ClientError>) -> ClientError {
    match (error, trouble) {
        (error @ ClientError::NotHeld(_), trouble) => told(trouble).err().unwrap_or(error),
        (error, _) => error,
    }
}
