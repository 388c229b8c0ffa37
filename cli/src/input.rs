//! `backup --stdin`: standard input, or what a command prints, as a file of its own.

use crate::Context;
use crate::args::Backup;
use crate::progress::State;
use lockstep_client::ClientError;
use lockstep_client::account::Account;
use lockstep_client::backup::Input;
use lockstep_client::error::Result;
use std::io::{Error, ErrorKind, IsTerminal as _, Read};
use std::process::{Child, Command, Stdio};

/// Reads the input to its end, before anything of it is sent. A command has to end well, too.
pub(crate) async fn read(context: &Context, account: &Account, name: &str, args: &Backup) -> Result<Input> {
    let meter = context.out.meter("reading");
    let mut meter = meter.in_form(args.run.progress, "read", name.to_owned());
    let show = &mut |bytes| meter.show((0, 0), (bytes, 0));
    let read = if let Some(command) = &args.command {
        from_command(context, account, name, command, show).await
    } else {
        let stream = std::io::stdin();
        if stream.is_terminal() {
            context.out.note("reading standard input; Ctrl-D ends it");
        }
        Input::read(account.home(), name, ("standard input", stream), &context.stop, show).await
    };
    meter.finish(State::of(&read, |_| true));
    read
}

async fn from_command(
    context: &Context,
    account: &Account,
    name: &str,
    command: &str,
    show: &mut (dyn FnMut(u64) + Send),
) -> Result<Input> {
    let (mut child, stream) = start(command).map_err(|error| ClientError::io("sh", error))?;
    let taken = Input::read(account.home(), name, (command, stream), &context.stop, show).await;
    let is_over = match &taken {
        Ok(_) => true,
        // It printed nothing, and may say why by its status.
        Err(ClientError::Io { source, .. }) => source.kind() == ErrorKind::UnexpectedEof,
        Err(_) => false,
    };
    if !is_over {
        // Nobody reads what it would still print: it would never end.
        let _ = child.kill();
        let _ = child.wait();
        return taken;
    }
    let status = child.wait().map_err(|error| ClientError::io(command, error))?;
    if status.success() {
        return taken;
    }
    let text = format!("the command ended with {status}; nothing was backed up");
    Err(ClientError::io(command, Error::other(text)))
}

fn start(command: &str) -> std::io::Result<(Child, impl Read + Send + 'static)> {
    let mut child =
        Command::new("sh").arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let stream = child.stdout.take().ok_or_else(|| Error::other("it has no output"))?;
    Ok((child, stream))
}
