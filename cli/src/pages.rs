//! `completions`, `man`: both from the definition of the command line.

use crate::args::{Cli, Shell};
use clap::CommandFactory as _;
use clap_complete::generate;
use lockstep_client::ClientError;
use lockstep_client::error::Result;
use std::path::Path;

const NAME: &str = "lockstep";

pub(crate) fn completions(shell: Shell) -> Result<()> {
    let (mut command, mut text) = (Cli::command(), Vec::new());
    match shell {
        Shell::Bash => generate(clap_complete::Shell::Bash, &mut command, NAME, &mut text),
        Shell::Zsh => generate(clap_complete::Shell::Zsh, &mut command, NAME, &mut text),
        Shell::Fish => generate(clap_complete::Shell::Fish, &mut command, NAME, &mut text),
    }
    let written = std::io::Write::write_all(&mut std::io::stdout().lock(), &text);
    written.map_err(|error| ClientError::io("standard output", error))
}

pub(crate) fn man(folder: &Path) -> Result<()> {
    clap_mangen::generate_to(Cli::command(), folder).map_err(|error| ClientError::io(folder, error))
}
