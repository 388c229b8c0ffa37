//! `session list|revoke`.

use crate::Context;
use crate::args::SessionCommand;
use crate::output::{shown, time};
use lockstep_client::ClientError;
use lockstep_client::account::{Account, SessionInfo};
use lockstep_client::error::Result;
use serde_json::json;
use std::fmt::Write as _;

pub(crate) async fn run(context: &Context, command: SessionCommand) -> Result<()> {
    let mut account = context.account_to_read()?;
    match command {
        SessionCommand::List => list(context, &mut account).await?,
        SessionCommand::Revoke { id, .. } => revoke(context, &account, id.as_deref()).await?,
    }
    account.keep_session()
}

async fn list(context: &Context, account: &mut Account) -> Result<()> {
    // Names of new devices come with the keyring. Sessions are shown whatever the server does.
    if account.writes()
        && let Err(error) = account.refresh_keyring().await
    {
        context.out.note(&format!("names of devices may be missing: {error}"));
    }
    let mut text = String::new();
    let mut list = Vec::new();
    for session in account.sessions().await? {
        let _ = writeln!(
            text,
            "{}  {}  since {}, last used {}{}",
            session.id,
            shown(session.device_name.as_bytes()),
            time(session.created_utc),
            time(session.used_utc),
            if session.is_this { "  (this one)" } else { "" },
        );
        list.push(json!({
            "id": session.id, "device": session.device, "device_name": session.device_name,
            "created_utc": session.created_utc, "used_utc": session.used_utc,
            "expires_utc": session.expires_utc, "this": session.is_this,
        }));
    }
    context.out.result(&text, &json!(list));
    Ok(())
}

/// The session that an id's beginning names; it has to be one.
fn chosen(sessions: Vec<SessionInfo>, prefix: &str) -> Result<SessionInfo> {
    let mut found = sessions.into_iter().filter(|session| session.id.starts_with(prefix));
    match (found.next(), found.next()) {
        (Some(session), None) => Ok(session),
        (Some(_), Some(_)) => Err(ClientError::Usage(format!("more than one session begins with {prefix}"))),
        (None, _) => {
            Err(ClientError::NotFound(format!("there is no session {prefix}; see: lockstep session list")))
        }
    }
}

/// Ends one session, or all but this one.
async fn revoke(context: &Context, account: &Account, id: Option<&str>) -> Result<()> {
    let sessions = account.sessions().await?;
    let chosen = match id {
        Some(prefix) => vec![chosen(sessions, prefix)?],
        None => sessions.into_iter().filter(|session| !session.is_this).collect(),
    };
    let mut ended = Vec::new();
    for session in chosen {
        if account.revoke_session(&session.id).await? {
            ended.push(session.id);
        }
    }
    context.out.result(&format!("{} sessions ended", ended.len()), &json!({ "ended": ended }));
    Ok(())
}
