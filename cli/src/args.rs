//! The command line.

mod documents;
mod files;

pub(crate) use documents::{ConflictPlace, ConflictsCommand, PolicyCommand, RecordCommand, RecordPlace};
pub(crate) use files::{Backup, Restore, Run};

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// End-to-end encrypted backup and sync. The server stores what it can not read, and can not go back in
/// time, hide or change anything unnoticed.
#[derive(Parser)]
#[command(name = "lockstep", version, propagate_version = true, after_help = crate::output::STATUSES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Args)]
pub(crate) struct Global {
    /// Folder of this device: keys, database. One device a home. Default: lockstep in the XDG data folder.
    #[arg(long, global = true, env = "LOCKSTEP_HOME", value_name = "DIR", display_order = 101)]
    pub(crate) home: Option<PathBuf>,
    /// Print results as JSON.
    #[arg(long, global = true, display_order = 102)]
    pub(crate) json: bool,
    /// Allow http:// to other machines: everybody on the way sees who signs in and when.
    #[arg(long, global = true, display_order = 103)]
    pub(crate) insecure_http: bool,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Create an account and make this home its first device.
    Signup(Signup),
    /// Add this home to an account as a new device.
    Login(Login),
    /// Get back into an account with the recovery key: new passphrase, new recovery key, new kit.
    Recover(Recover),
    /// End the session; the home stays and the device signs in again when needed.
    Logout {
        /// Remove this device's keys and data from the home. Refused while writes wait for the server.
        #[arg(long)]
        wipe: bool,
    },
    /// Show account, server and device of this home.
    Whoami,
    /// Change the passphrase.
    #[command(subcommand)]
    Passphrase(PassphraseCommand),
    /// Replace the recovery key, and with it the kit.
    #[command(subcommand)]
    RecoveryKey(RecoveryKeyCommand),
    /// List, rename and revoke the account's devices.
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Delete the account.
    #[command(subcommand)]
    Account(AccountCommand),
    /// Create, list and delete vaults.
    #[command(subcommand)]
    Vault(VaultCommand),
    /// Back up files and folders; each PATH is a source with its own snapshots.
    ///
    /// A file .lockstepignore in a folder says what is left out below it, in the syntax of .gitignore. What is left out
    /// is not in the new snapshot, even if earlier ones have it.
    Backup(Backup),
    /// List finished snapshots.
    Snapshots {
        /// Vault.
        #[arg(long, default_value = "files", value_name = "V")]
        vault: String,
    },
    /// List the files of the newest snapshots, or of one.
    Ls(Ls),
    /// Restore snapshots to DEST/<source name>/...
    Restore(Restore),
    /// List every version of one file that finished snapshots hold, newest first.
    History(History),
    /// Show what differs between two snapshots.
    ///
    /// A line begins with + for what is only in NEW, - for what is only in OLD, M where contents, kind or a link's
    /// target differ, and m where only time or mode do. Snapshots of two sources are compared by path below the root.
    Diff(Diff),
    /// Take snapshots out of the list; this alone frees no space.
    ///
    /// They are no longer shown or restored, and no longer kept from retention. The files themselves are not touched, and other snapshots keep all that they hold. No space is freed at the
    /// server by this alone: that is for retention, which drops old versions that no snapshot holds and is not there
    /// yet. The newest snapshot of a source may be forgotten, too; the next backup sends only what changed.
    Forget(Forget),
    /// Read and write single records (JSON documents).
    #[command(subcommand)]
    Record(RecordCommand),
    /// Say how edits that devices made at the same time become one.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// List what waits for a decision, and decide; see what was merged without asking, and undo it.
    #[command(subcommand)]
    Conflicts(ConflictsCommand),
    /// List the account's sessions, and end them.
    #[command(subcommand)]
    Session(SessionCommand),
    /// Follow vaults, and print every change of a record as it arrives, a JSON object a line.
    ///
    /// What is there already is synced first, and not printed. Ctrl-C ends it. Other commands can run in this home
    /// meanwhile. A file's line has its path, a record's its type and id; what they say is for: lockstep record get.
    /// Where a repair took back what was printed, a line says "repaired": read anew what you follow.
    Watch {
        /// Only these vaults; the others are synced all the same.
        #[arg(long, value_name = "V")]
        vault: Vec<String>,
    },
    /// Show vaults, pending writes, what the account uses, and whether the server can be reached.
    Status,
    /// Verify everything: chain, signatures, state digest, every envelope; with --read-data every blob.
    Check {
        /// One vault only.
        #[arg(long, value_name = "V")]
        vault: Option<String>,
        /// Download and verify all contents, too.
        #[arg(long)]
        read_data: bool,
    },
    /// Write everything to one file that restores the account without any server.
    ///
    /// The file holds what the server holds, encrypted as it is there: the passphrase or the recovery key opens it. It is
    /// read back and verified before it gets its name.
    Export(Export),
    /// Write everything of an archive into new vaults of this account: files with all their snapshots, and records.
    ///
    /// All of it is verified first. The new vaults are called like those of the archive, with -imported behind; their
    /// keys are new. Cut off, the same command goes on where it was; run again, it changes nothing.
    Import(Import),
    /// Show the account's fingerprint, to compare between devices.
    Fingerprint,
    /// Mend a server that was restored from an older copy, or a vault with a commit that is not valid: looks,
    /// explains, asks, and gives back what this device holds.
    Heal(Heal),
    /// Keep the recovery kit up to date.
    #[command(subcommand)]
    Kit(KitCommand),
    /// Print what completes commands and options in a shell.
    ///
    /// bash: lockstep completions bash > ~/.local/share/bash-completion/completions/lockstep
    Completions {
        /// For which one.
        shell: Shell,
    },
    /// Write manual pages, one a command, to a folder that is there.
    Man {
        /// The folder, such as ~/.local/share/man/man1
        dir: PathBuf,
    },
}

/// Shells that completion is there for.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Command {
    /// Whether it is about the program alone, and needs no home.
    pub(crate) fn needs_no_home(&self) -> bool {
        matches!(self, Self::Completions { .. } | Self::Man { .. })
    }
}

#[derive(Args)]
pub(crate) struct Export {
    /// The file to write.
    #[arg(required_unless_present = "decrypted")]
    pub(crate) archive: Option<PathBuf>,
    /// Write everything decrypted to a new or empty folder instead: the newest snapshot of every source, all records,
    /// and a manifest.json. Whoever reads the folder reads all of it.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["archive", "without_passphrase_wrap", "force"])]
    pub(crate) decrypted: Option<PathBuf>,
    /// Leave out what the passphrase opens: only the recovery key opens the archive, and nobody who finds it can try
    /// passphrases on it.
    #[arg(long)]
    pub(crate) without_passphrase_wrap: bool,
    /// Replace a file that is there.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args)]
pub(crate) struct Import {
    /// The file that export wrote.
    pub(crate) archive: PathBuf,
    /// Read the passphrase from the first line of a file instead of asking.
    #[arg(long, value_name = "F", conflicts_with = "recovery_key_file")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Open it with the recovery key: the kit, text or page, or a file with the bare key. With a kit, an archive that is
    /// older than its checkpoint is refused.
    #[arg(long, value_name = "F")]
    pub(crate) recovery_key_file: Option<PathBuf>,
    /// Do not believe what a stolen or faulty device says that it verified; the beginning of its id.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) ignore_pins_of: Vec<String>,
    /// Only verify and tell; nothing is written anywhere, and no account is needed.
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Subcommand)]
pub(crate) enum KitCommand {
    /// Give the kit a new checkpoint: recovering with it then refuses a server that went back to before now.
    ///
    /// The recovery key stays as it is. The kit is rewritten whole or not at all. Without --kit only the new line
    /// is printed, to be put in the place of the old one.
    Refresh {
        /// The kit, text or page. It must be this account's, and its recovery key the one in force.
        #[arg(long, value_name = "FILE")]
        kit: Option<PathBuf>,
    },
}

#[derive(Args)]
pub(crate) struct Heal {
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Read the passphrase from the first line of a file instead of asking.
    #[arg(long, value_name = "F")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Only list what earlier repairs left aside for review.
    #[arg(long, conflicts_with_all = ["yes", "passphrase_file"])]
    pub(crate) review: bool,
}

#[derive(Args)]
pub(crate) struct Server {
    /// Address of the server, such as https://sync.example.org
    #[arg(long = "server", value_name = "URL", env = "LOCKSTEP_SERVER")]
    pub(crate) url: String,
    /// Account name.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
    /// Read the passphrase from the first line of a file instead of asking.
    #[arg(long, value_name = "F")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Name of this device, for you. Default: the machine's name.
    #[arg(long, value_name = "TEXT")]
    pub(crate) device_name: Option<String>,
}

#[derive(Args)]
pub(crate) struct Signup {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Write the recovery kit to a new file (mode 0600) instead of printing it here; a name that ends in .html makes
    /// it a page for the printer.
    #[arg(long, value_name = "FILE")]
    pub(crate) kit: Option<PathBuf>,
    /// Invite code, if the server asks for one.
    #[arg(long, value_name = "CODE", default_value = "")]
    pub(crate) invite: String,
}

#[derive(Args)]
pub(crate) struct Login {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Do not believe what a stolen or faulty device says that it verified; the beginning of its id. Revoke it next.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) ignore_pins_of: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Recover {
    #[command(flatten)]
    pub(crate) server: Server,
    /// The kit, text or page, or a file with the bare recovery key.
    #[arg(long, value_name = "F")]
    pub(crate) recovery_key_file: PathBuf,
    /// Write the new kit to a new file (mode 0600) instead of printing it here; a name that ends in .html makes it a
    /// page for the printer.
    #[arg(long, value_name = "FILE")]
    pub(crate) kit: Option<PathBuf>,
    /// Revoke all earlier devices, without asking: they can read nothing that is written from then on.
    #[arg(long, conflicts_with = "keep_others")]
    pub(crate) revoke_others: bool,
    /// Keep all earlier devices, without asking.
    #[arg(long)]
    pub(crate) keep_others: bool,
}

/// How the passphrase comes in.
#[derive(Args)]
pub(crate) struct Unlock {
    /// Read the passphrase from the first line of a file instead of asking.
    #[arg(long, value_name = "F")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum PassphraseCommand {
    /// Change the passphrase. Devices stay signed in, and the recovery key stays as it is.
    Change {
        #[command(flatten)]
        unlock: Unlock,
        /// Read the new passphrase from the first line of a file instead of asking.
        #[arg(long, value_name = "F")]
        new_passphrase_file: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub(crate) enum RecoveryKeyCommand {
    /// Make a new recovery key and a new kit. The old kit stays valid until this command says that it is done.
    Rotate {
        #[command(flatten)]
        unlock: Unlock,
        /// Write the new kit to a new file (mode 0600) instead of printing it here; a name that ends in .html makes it a
        /// page for the printer.
        #[arg(long, value_name = "FILE")]
        kit: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub(crate) enum DeviceCommand {
    /// List the account's devices, and when each one was last seen.
    List,
    /// Give a device another name.
    Rename {
        /// Its name, or the beginning of its id.
        device: String,
        /// The new name; encrypted.
        name: String,
    },
    /// Shut a device out: it can read nothing that is written from now on. What it holds, it keeps.
    Revoke {
        /// Its name, or the beginning of its id.
        device: String,
        #[command(flatten)]
        unlock: Unlock,
    },
}

#[derive(Subcommand)]
pub(crate) enum AccountCommand {
    /// Delete the account and everything in it at the server, then wipe this home. There is no way back.
    Delete {
        #[command(flatten)]
        unlock: Unlock,
        /// Do not ask for the account's name.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum VaultCommand {
    /// Create a vault.
    Create {
        /// Its name; encrypted.
        name: String,
    },
    /// List vaults, and what this device holds of them.
    List,
    /// Say what this device holds of a vault: what is new, some types of records, or all of it.
    ///
    /// Everything is verified all the same. What is not held stays at the server and on other devices; it is listed as not
    /// held, and fetched when it is read. Files and snapshots, and what waits to be sent or decided, are always held.
    Keep {
        /// Its name.
        name: String,
        /// Records that were written in the last N days.
        #[arg(long, value_name = "N")]
        days: Option<u64>,
        /// Records of this type. May be repeated. With --days: those of this type that are new.
        #[arg(long = "type", value_name = "T")]
        types: Vec<String>,
        /// Everything.
        #[arg(long, conflicts_with_all = ["days", "types"], required_unless_present_any = ["days", "types"])]
        all: bool,
    },
    /// Delete a vault and everything in it, on all devices and at the server. There is no way back.
    Delete {
        /// Its name.
        name: String,
        #[command(flatten)]
        unlock: Unlock,
        /// Do not ask for the vault's name.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum SessionCommand {
    /// List sessions: which device, since when, when last used (to about an hour), and which is this one.
    List,
    /// End sessions at once. A device that is still enrolled signs in again by its own key: this ends stolen
    /// sessions, not devices.
    Revoke {
        /// Beginning of a session's id.
        #[arg(required_unless_present = "others")]
        id: Option<String>,
        /// All but this one.
        #[arg(long, conflicts_with = "id")]
        others: bool,
    },
}

#[derive(Args)]
pub(crate) struct Ls {
    /// Path, beginning with a source's name.
    pub(crate) path: Option<PathBuf>,
    /// Vault.
    #[arg(long, default_value = "files", value_name = "V")]
    pub(crate) vault: String,
    /// Beginning of a snapshot's id.
    #[arg(long, value_name = "S")]
    pub(crate) snapshot: Option<String>,
}

#[derive(Args)]
pub(crate) struct History {
    /// Path, beginning with a source's name, as ls shows it: docs/letters/a.txt
    pub(crate) path: PathBuf,
    /// Vault.
    #[arg(long, default_value = "files", value_name = "V")]
    pub(crate) vault: String,
}

#[derive(Args)]
pub(crate) struct Diff {
    /// Beginning of a snapshot's id.
    pub(crate) old: String,
    /// Beginning of another snapshot's id.
    pub(crate) new: String,
    /// Vault.
    #[arg(long, default_value = "files", value_name = "V")]
    pub(crate) vault: String,
}

#[derive(Args)]
pub(crate) struct Forget {
    /// Beginnings of snapshots' ids.
    #[arg(required = true, value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<String>,
    /// Vault.
    #[arg(long, default_value = "files", value_name = "V")]
    pub(crate) vault: String,
}
