//! `signup`, `login`, `recover`, `logout`, `kit refresh`.

use crate::Context;
use crate::args::{Login, Recover, Server, Signup};
use crate::look::sync_all;
use lockstep_client::account::{self, Account, Ignored, NewSecrets, Place, generate_passphrase};
use lockstep_client::api::check_server;
use lockstep_client::error::Result;
use lockstep_client::home::{Home, write_private};
use lockstep_client::{ClientError, kit};
use lockstep_client_crypto::passphrase::Passphrase;
use serde_json::json;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use zeroize::Zeroizing;

/// Checks what can be checked before anybody types a passphrase.
fn origin(context: &Context, server: &Server) -> Result<(String, String)> {
    let origin = check_server(&server.url, context.insecure_http)?;
    let name = server.name.to_lowercase();
    if !lockstep_proto::api::auth::is_account_name(&name) {
        return Err(ClientError::Usage(
            "an account name has 1 to 64 characters of a-z 0-9 . _ - @ + and begins with a letter or digit"
                .into(),
        ));
    }
    Ok((origin, name))
}

fn device_name(server: &Server) -> String {
    let machine = || std::fs::read_to_string("/etc/hostname").ok().map(|name| name.trim().to_owned());
    server
        .device_name
        .clone()
        .or_else(machine)
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "device".into())
}

pub(crate) fn prompt(text: &str, option: &str) -> Result<Zeroizing<String>> {
    if !std::io::stdin().is_terminal() {
        return Err(ClientError::Usage(format!(
            "there is no terminal to ask for the passphrase; say {option} F"
        )));
    }
    rpassword::prompt_password(text).map(Zeroizing::new).map_err(|error| ClientError::io("terminal", error))
}

/// The first line of a file.
pub(crate) fn from_file(path: &Path) -> Result<Passphrase> {
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| ClientError::io(path, error))?);
    let line = text.lines().next().unwrap_or_default();
    Passphrase::new(line).map_err(|error| ClientError::Usage(format!("{}: {error}", path.display())))
}

/// From a file, or asked for.
pub(crate) fn passphrase(file: Option<&Path>) -> Result<Passphrase> {
    match file {
        Some(path) => from_file(path),
        None => Ok(Passphrase::new(&prompt("Passphrase: ", "--passphrase-file")?)?),
    }
}

/// Asks twice; an empty answer takes a generated passphrase.
pub(crate) fn new_passphrase(context: &Context, file: Option<&Path>, option: &str) -> Result<Passphrase> {
    if let Some(path) = file {
        let passphrase = from_file(path)?;
        passphrase.check_strength()?;
        return Ok(passphrase);
    }
    if !std::io::stdin().is_terminal() {
        return Err(ClientError::Usage(format!(
            "there is no terminal to ask for the new passphrase; say {option} F"
        )));
    }
    let generated = generate_passphrase();
    context.out.note("choose a passphrase of at least 10 characters, or press Enter to take this one:");
    // Shown to its owner, on the terminal only.
    let mut terminal = std::io::stderr().lock();
    let _ = writeln!(terminal, "\n    {}\n", *generated);
    drop(terminal);
    let first = prompt("New passphrase: ", option)?;
    let again = prompt("The same again: ", option)?;
    match (first.is_empty(), *first == *again || (first.is_empty() && *again == *generated)) {
        (true, true) => Ok(Passphrase::new(&generated)?),
        (false, true) => {
            let passphrase = Passphrase::new(&first)?;
            passphrase.check_strength()?;
            Ok(passphrase)
        }
        (_, false) => Err(ClientError::Usage("the two passphrases differ; nothing was done".into())),
    }
}

/// Whether a kit of this name is a page.
fn is_page(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        extension.eq_ignore_ascii_case("html") || extension.eq_ignore_ascii_case("htm")
    })
}

/// Writes the kit to a new file, or prints it.
pub(crate) fn deliver(
    context: &Context,
    file: Option<&Path>,
    replaces: bool,
) -> impl FnMut(&str) -> Result<()> + use<> {
    let json = context.out.is_json();
    let file = file.map(Path::to_path_buf);
    move |text: &str| match &file {
        Some(path) if !replaces && path.symlink_metadata().is_ok() => {
            Err(ClientError::Usage(format!("{} exists; choose another file for the kit", path.display())))
        }
        Some(path) if is_page(path) => write_private(path, kit::page::page(text)?.as_bytes(), replaces),
        Some(path) => write_private(path, text.as_bytes(), replaces),
        None if json => {
            Err(ClientError::Usage("say --kit FILE with --json: the kit is not printed then".into()))
        }
        None => {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{text}").map_err(|error| ClientError::io("standard output", error))
        }
    }
}

fn joined(context: &Context, account: &Account, what: &str, revoked: &[String]) -> Result<()> {
    account.keep_session()?;
    let file = account.file();
    context.out.result(
        &format!("{what} {} on {} (device {})", file.name, file.server, file.device),
        &json!({
            "account": file.account, "name": file.name, "server": file.server, "device": file.device,
            "revoked": revoked,
        }),
    );
    Ok(())
}

pub(crate) async fn signup(context: &Context, args: Signup) -> Result<()> {
    let (origin, name) = origin(context, &args.server)?;
    check_kit_place(context, args.kit.as_deref())?;
    account::meet(&origin).await?;
    let home = Home::open(&context.home)?;
    let passphrase = new_passphrase(context, args.server.passphrase_file.as_deref(), "--passphrase-file")?;
    let device_name = device_name(&args.server);
    let place =
        Place { origin: &origin, name: &name, device_name: &device_name, ignored: Ignored::Some(&[]) };
    let mut deliver_kit = deliver(context, args.kit.as_deref(), false);
    let secrets = NewSecrets { passphrase: &passphrase, deliver_kit: &mut deliver_kit };
    let done = account::signup(home, &place, &args.invite, secrets, context.insecure_http).await;
    let account = done.inspect_err(|error| disown_kit(context, args.kit.as_deref(), error))?;
    joined(context, &account, "signed up as", &[])
}

/// A kit that already stands there is never written over.
fn check_kit_place(context: &Context, kit: Option<&Path>) -> Result<()> {
    // A try that was cut off has written its kit already.
    let goes_on = context.home.join("account.next").exists();
    match kit {
        Some(path) if !goes_on && path.symlink_metadata().is_ok() => {
            Err(ClientError::Usage(format!("{} exists; choose another file for the kit", path.display())))
        }
        _ => Ok(()),
    }
}

fn disown_kit(context: &Context, kit: Option<&Path>, error: &ClientError) {
    let is_valid = matches!(error, ClientError::Unfinished(_));
    if let Some(path) = kit.filter(|path| path.exists() && !is_valid) {
        context.out.note(&format!(
            "the kit {} is good only if this succeeds; keep the old one until then",
            path.display()
        ));
    }
}

pub(crate) async fn login(context: &Context, args: Login) -> Result<()> {
    let (origin, name) = origin(context, &args.server)?;
    account::meet(&origin).await?;
    let home = Home::open(&context.home)?;
    let passphrase = passphrase(args.server.passphrase_file.as_deref())?;
    let device_name = device_name(&args.server);
    let ignored = Ignored::Some(&args.ignore_pins_of);
    let place = Place { origin: &origin, name: &name, device_name: &device_name, ignored };
    let account = account::login(home, &place, &passphrase, context.insecure_http).await?;
    joined(context, &account, "signed in as", &[])
}

pub(crate) async fn recover(context: &Context, args: Recover) -> Result<()> {
    let (origin, name) = origin(context, &args.server)?;
    check_kit_place(context, args.kit.as_deref())?;
    let path = &args.recovery_key_file;
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| ClientError::io(path, error))?);
    let kit = kit::parse(&text)?;
    if kit.checkpoint.is_none() {
        context.out.note(
            "this is a bare recovery key: without the kit's checkpoint a server that shows an old state of the \
             account is not noticed",
        );
    }
    account::meet(&origin).await?;
    let home = Home::open(&context.home)?;
    let passphrase = new_passphrase(context, args.server.passphrase_file.as_deref(), "--passphrase-file")?;
    let device_name = device_name(&args.server);
    let ignored = if args.revoke_others { Ignored::Others } else { Ignored::Some(&[]) };
    let place = Place { origin: &origin, name: &name, device_name: &device_name, ignored };
    let mut deliver_kit = deliver(context, args.kit.as_deref(), false);
    let secrets = NewSecrets { passphrase: &passphrase, deliver_kit: &mut deliver_kit };
    let done = account::recover(home, &place, &kit, secrets, context.insecure_http).await;
    let mut account = done.inspect_err(|error| disown_kit(context, args.kit.as_deref(), error))?;
    let earlier: Vec<_> =
        account.devices().into_iter().filter(|device| !device.is_this && !device.is_revoked).collect();
    let names: Vec<String> = earlier.iter().map(crate::owner::called).collect();
    let mut revoked = Vec::new();
    let mut done = Ok(());
    if !earlier.is_empty() && revokes(context, &args, &names)? {
        done = crate::owner::revoke_all(&mut account, &passphrase, &earlier).await;
        if done.is_ok() {
            revoked = earlier.into_iter().map(|device| device.id).collect();
        } else {
            context.out.note("recovered, but not every earlier device is revoked; see: lockstep device list");
        }
    } else if !earlier.is_empty() {
        context.out.note(&format!(
            "earlier devices can still read and write everything: {}; to shut one out, run: lockstep device revoke",
            names.join(", ")
        ));
    }
    joined(context, &account, "recovered", &revoked)?;
    done
}

/// Whether a recovery revokes the earlier devices: as told, or as answered.
fn revokes(context: &Context, args: &Recover, names: &[String]) -> Result<bool> {
    if args.revoke_others || args.keep_others || !std::io::stdin().is_terminal() {
        return Ok(args.revoke_others);
    }
    context.out.note(&format!("earlier devices of the account: {}", names.join(", ")));
    let answer =
        ask("Revoke all of them, so that they can read nothing that is written from now on? [y/N] ")?;
    Ok(matches!(answer.to_lowercase().as_str(), "y" | "yes"))
}

/// Asks on the terminal; the answer is no secret.
pub(crate) fn ask(question: &str) -> Result<String> {
    let io = |error| ClientError::io("terminal", error);
    let mut terminal = std::io::stderr().lock();
    write!(terminal, "{question}").and_then(|()| terminal.flush()).map_err(io)?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(io)?;
    Ok(line.trim().to_owned())
}

pub(crate) async fn logout(context: &Context, wipe: bool) -> Result<()> {
    let account = context.account()?;
    if wipe {
        let pending = account.pending()?;
        if pending > 0 {
            return Err(ClientError::Usage(format!(
                "{pending} writes wait for the server; run: lockstep status, while it can be reached, then try again"
            )));
        }
    }
    account.logout().await?;
    if wipe {
        account.home().wipe()?;
    }
    let text = if wipe {
        "signed out; the home is empty"
    } else {
        "signed out; this device signs in again when needed"
    };
    context.out.result(text, &json!({ "signed_out": true, "wiped": wipe }));
    Ok(())
}

/// Gives an existing kit a new checkpoint, or prints one.
pub(crate) async fn refresh_kit(context: &Context, path: Option<&Path>) -> Result<()> {
    let Some(path) = path else {
        let mut account = context.account()?;
        sync_all(context, &mut account).await?;
        let line = account.checkpoint()?.to_text();
        context.out.result(
            &format!(
                "checkpoint: {line}\n\nPut this line in the place of the kit's old one: recovering then refuses a \
                 server that went back to before now."
            ),
            &json!({ "checkpoint": line }),
        );
        return Ok(());
    };
    // A link stays a link; what it points to is rewritten.
    let path = path.canonicalize().map_err(|error| ClientError::io(path, error))?;
    let kit = Zeroizing::new(std::fs::read_to_string(&path).map_err(|error| ClientError::io(&path, error))?);
    let mut account = context.account()?;
    sync_all(context, &mut account).await?;
    let refreshed = account.refreshed_kit(&kit).await?;
    write_private(&path, refreshed.as_bytes(), true)?;
    context.out.result(
        &format!("{} has a new checkpoint; print it again", path.display()),
        &json!({ "kit": path.display().to_string() }),
    );
    Ok(())
}
