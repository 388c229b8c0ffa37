//! What needs the owner: `passphrase`, `recovery-key`, `device`, `account`, `vault delete`.

use crate::Context;
use crate::args::{AccountCommand, DeviceCommand, PassphraseCommand, RecoveryKeyCommand, Unlock};
use crate::join::{ask, deliver, from_file, new_passphrase, passphrase as ask_passphrase};
use crate::output::{short, shown, time};
use lockstep_client::account::{Account, DeviceInfo, KitState};
use lockstep_client::error::Result;
use lockstep_client::{ClientError, kit};
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_proto::id::DeviceId;
use serde_json::json;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::Path;
use zeroize::Zeroizing;

fn unlock_with(unlock: &Unlock) -> Result<Passphrase> {
    ask_passphrase(unlock.passphrase_file.as_deref())
}

/// A device as it is named to people.
pub(crate) fn called(device: &DeviceInfo) -> String {
    format!("{} ({})", shown(device.name.as_bytes()), short(&device.id))
}

pub(crate) async fn passphrase(context: &Context, command: PassphraseCommand) -> Result<()> {
    let PassphraseCommand::Change { unlock, new_passphrase_file: file } = command;
    let given = file.as_deref().map(from_file).transpose()?;
    if let Some(given) = &given {
        given.check_strength()?;
    }
    let old = unlock_with(&unlock)?;
    let mut account = context.account()?;
    let unlocked = account.unlock(&old).await;
    match (unlocked, given) {
        (Ok(mut owner), given) => {
            let new = match given {
                Some(given) => given,
                None => new_passphrase(context, None, "--new-passphrase-file")?,
            };
            owner.change_passphrase(&new).await?;
        }
        // An earlier try counted, and its answer was lost: then the new one opens.
        (Err(ClientError::WrongPassphrase), Some(given)) => drop(account.unlock(&given).await?),
        (Err(error), _) => return Err(error),
    }
    context.synced(&account)?;
    context.out.result(
        "the passphrase is changed; the old one is worth nothing any more, and the recovery key is as it was",
        &json!({ "changed": true }),
    );
    Ok(())
}

pub(crate) async fn recovery_key(context: &Context, command: RecoveryKeyCommand) -> Result<()> {
    let RecoveryKeyCommand::Rotate { unlock, kit } = command;
    let file = kit.as_deref();
    if file.is_none() && context.out.is_json() {
        return Err(ClientError::Usage("say --kit FILE with --json: the kit is not printed then".into()));
    }
    let passphrase = unlock_with(&unlock)?;
    let mut account = context.account()?;
    let mut owner = account.unlock(&passphrase).await?;
    let state = match file.filter(|path| path.symlink_metadata().is_ok()) {
        None => None,
        Some(path) => Some(owner.kit_state(&read_kit(path)?)?),
    };
    if state == Some(KitState::Other) {
        let path = file.unwrap_or(Path::new("")).display();
        return Err(ClientError::Usage(format!("{path} exists; choose another file for the kit")));
    }
    if state != Some(KitState::Counts) {
        context.out.note("the old kit stays valid until this command says that it is done");
        let mut deliver_kit = deliver(context, file, state == Some(KitState::Begun));
        owner.rotate_recovery_key(&mut deliver_kit).await.inspect_err(|_| {
            context.out.note("keep the old kit: the new one is good only if the same command ends well");
        })?;
    }
    context.synced(&account)?;
    context.out.result(
        "done: the new kit is valid, the old one is worth nothing any more, and the passphrase is as it was",
        &json!({ "rotated": true, "kit": file.map(|path| path.display().to_string()) }),
    );
    Ok(())
}

/// What stands where a new kit is to be written; a file that is no kit is somebody's all the same.
fn read_kit(path: &Path) -> Result<kit::Kit> {
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| ClientError::io(path, error))?);
    kit::parse(&text).map_err(|_| {
        ClientError::Usage(format!("{} exists; choose another file for the kit", path.display()))
    })
}

pub(crate) async fn device(context: &Context, command: DeviceCommand) -> Result<()> {
    match command {
        DeviceCommand::List => list(context).await,
        DeviceCommand::Rename { device, name } => rename(context, &device, &name).await,
        DeviceCommand::Revoke { device, unlock } => revoke(context, &device, &unlock).await,
    }
}

async fn list(context: &Context) -> Result<()> {
    let mut account = context.account_to_read()?;
    let synced = if account.writes() { account.sync_keyring().await } else { Ok(()) };
    let mut text = String::new();
    let mut devices = Vec::new();
    for device in account.devices() {
        let seen = device.seen_utc.map_or_else(|| "never".to_owned(), time);
        let mark = match (device.is_this, device.is_revoked) {
            (true, _) => " (this one)",
            (_, true) => " (revoked)",
            _ => "",
        };
        let name = shown(device.name.as_bytes());
        let _ = writeln!(text, "{}  {name}{mark}, last seen {seen}", short(&device.id));
        devices.push(json!({
            "id": device.id, "name": device.name, "this": device.is_this, "revoked": device.is_revoked,
            "seen_utc": device.seen_utc,
        }));
    }
    if synced.is_ok() && account.writes() {
        context.synced(&account)?;
    }
    context.out.result(&text, &json!(devices));
    synced
}

async fn rename(context: &Context, device: &str, name: &str) -> Result<()> {
    let mut account = context.account()?;
    account.sync_keyring().await?;
    let id = account.find_device(device)?;
    account.rename_device(id, name).await?;
    context.synced(&account)?;
    let id = id.to_string();
    let text = format!("device {} is called {} now", short(&id), shown(name.as_bytes()));
    context.out.result(&text, &json!({ "id": id, "name": name }));
    Ok(())
}

async fn revoke(context: &Context, device: &str, unlock: &Unlock) -> Result<()> {
    let mut account = context.account()?;
    // What it says that it verified may be what keeps this from working.
    let synced = account.sync_keyring().await;
    let id = match (account.find_device(device), synced) {
        (Ok(id), _) => id,
        (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(error),
    };
    account.ignore_pins_of(&[id]);
    let text = id.to_string();
    let known = account.devices().into_iter().find(|known| known.id == text);
    let name = known.map_or_else(|| short(&text).to_owned(), |known| called(&known));
    context.out.note(&format!(
        "revoking {name}: it can write nothing any more, and read nothing that is written from now on; what it \
         holds, it keeps"
    ));
    let passphrase = unlock_with(unlock)?;
    account.unlock(&passphrase).await?.revoke(&[id]).await?;
    context.synced(&account)?;
    context.out.result(
        &format!(
            "revoked {name}; every vault goes on under a new key. If somebody who has it may know the passphrase, \
             run: lockstep passphrase change"
        ),
        &json!({ "id": text, "revoked": true }),
    );
    Ok(())
}

/// Revokes several devices of an account that was opened just now.
pub(crate) async fn revoke_all(
    account: &mut Account,
    passphrase: &Passphrase,
    devices: &[DeviceInfo],
) -> Result<()> {
    let ids: Vec<DeviceId> = devices.iter().filter_map(|device| device.id.parse().ok()).collect();
    account.ignore_pins_of(&ids);
    account.unlock(passphrase).await?.revoke(&ids).await
}

/// What can not be undone is asked for by its name.
fn confirm(context: &Context, what: &str, name: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(ClientError::Usage("there is no terminal to ask; say --yes".into()));
    }
    context.out.note(&format!("{what} There is no way back."));
    if ask(&format!("Type {} to go on: ", shown(name.as_bytes())))? == name {
        Ok(())
    } else {
        Err(ClientError::Usage("that is another name; nothing was done".into()))
    }
}

pub(crate) async fn account(context: &Context, command: AccountCommand) -> Result<()> {
    let AccountCommand::Delete { unlock, yes } = command;
    let mut account = context.account()?;
    let (name, server) = (account.file().name.clone(), account.file().server.clone());
    let what = format!(
        "this deletes the account {name} on {server} for all of its devices: every vault, every backup, every version."
    );
    confirm(context, &what, &name, yes)?;
    let passphrase = unlock_with(&unlock)?;
    account.delete(&passphrase).await?;
    account.home().wipe()?;
    context.out.result(
        &format!("deleted the account {name}; nothing of it is left at {server}, and this home is empty"),
        &json!({ "deleted": true, "name": name }),
    );
    Ok(())
}

pub(crate) async fn vault_delete(context: &Context, name: &str, unlock: &Unlock, yes: bool) -> Result<()> {
    let mut account = context.account()?;
    let what = format!(
        "this deletes the vault {} for all devices: every backup, record and version in it.",
        shown(name.as_bytes())
    );
    confirm(context, &what, name, yes)?;
    let passphrase = unlock_with(unlock)?;
    account.unlock(&passphrase).await?.delete_vault(name).await?;
    context.synced(&account)?;
    context.out.result(
        &format!("deleted the vault {}", shown(name.as_bytes())),
        &json!({ "deleted": true, "name": name }),
    );
    Ok(())
}
