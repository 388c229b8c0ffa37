//! `backup`, `restore`, and what they have in common.

use crate::progress::Form;
use clap::Args;
use lockstep_proto::size::parse_size;
use std::path::PathBuf;

const USAGE: &str =
    "lockstep backup [OPTIONS] PATH...\n       lockstep backup [OPTIONS] --stdin NAME [--command CMD]";

#[derive(Args)]
#[command(override_usage = USAGE)]
pub(crate) struct Backup {
    /// Files and folders.
    #[arg(required_unless_present = "stdin", value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Vault; made on first use.
    #[arg(long, default_value = "files", value_name = "V")]
    pub(crate) vault: String,
    /// Tag of the snapshots. May be repeated.
    #[arg(long, value_name = "T")]
    pub(crate) tag: Vec<String>,
    /// Leave out what matches, by name or by path below PATH. May be repeated.
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Leave out what the patterns in a file match, as in a .gitignore in PATH. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) exclude_file: Vec<PathBuf>,
    /// Of folders below PATH that have a CACHEDIR.TAG, keep only that.
    #[arg(long)]
    pub(crate) exclude_caches: bool,
    /// Stay on the file system of PATH; a folder where another one is mounted is kept, empty.
    #[arg(long)]
    pub(crate) one_file_system: bool,
    /// Send contents again although this device sent them into the vault before.
    #[arg(long)]
    pub(crate) no_deduplicate: bool,
    /// Back up standard input instead, as one file NAME.
    ///
    /// It is a source of its own, and waits in the home, not encrypted, until it is read to its end. If it is empty, or
    /// can not be read, nothing is backed up. That a program before a pipe failed can not be seen: see --command.
    #[arg(long, value_name = "NAME", conflicts_with_all = [
        "paths", "exclude", "exclude_file", "exclude_caches", "one_file_system",
    ])]
    pub(crate) stdin: Option<String>,
    /// With --stdin: back up what CMD prints (sh -c CMD); if it fails, nothing.
    #[arg(long, value_name = "CMD", requires = "stdin", conflicts_with = "paths")]
    pub(crate) command: Option<String>,
    #[command(flatten)]
    pub(crate) run: Run,
}

#[derive(Args)]
pub(crate) struct Restore {
    /// Folder to restore to.
    pub(crate) dest: PathBuf,
    /// Only these paths, each beginning with a source's name.
    pub(crate) paths: Vec<PathBuf>,
    /// Vault.
    #[arg(long, default_value = "files", value_name = "V")]
    pub(crate) vault: String,
    /// One snapshot, by the beginning of its id.
    #[arg(long, value_name = "S", conflicts_with = "at")]
    pub(crate) snapshot: Option<String>,
    /// The newest snapshot of each source at or before a time: 2026-11-20, 2026-11-20T08:30:00Z, or seconds
    /// since 1970.
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// Replace what differs.
    #[arg(long)]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) run: Run,
}

/// How a run that moves contents goes.
#[derive(Args)]
pub(crate) struct Run {
    /// Send and fetch no faster than so many bytes a second: 500K, 2M; K is 1,024. At least 64K.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub(crate) limit_rate: Option<u64>,
    /// How to show progress on standard error.
    #[arg(long, value_name = "FORM", default_value = "auto")]
    pub(crate) progress: Form,
}

/// Reads a rate: a size, or a number with K, M or G behind it.
fn parse_rate(text: &str) -> Result<u64, String> {
    let wrong = || "write it like 500K, 2M or 1.5MiB (bytes a second)".to_owned();
    let is_short = text.ends_with(['k', 'K', 'm', 'M', 'g', 'G']);
    let whole = if is_short { format!("{text}iB") } else { text.to_owned() };
    parse_size(&whole).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        for (text, bytes) in [
            ("500K", 512_000),
            ("2m", 2 << 20),
            ("1.5M", 3 << 19),
            ("1G", 1 << 30),
            ("100000", 100_000),
            ("2MB", 2_000_000),
            ("64KiB", 65_536),
        ] {
            assert_eq!(parse_rate(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "K", "fast", "-1", "1T", "1.2345M"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }
}
