//! The command line of records: documents, how they merge, and what waits for a decision.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct RecordPlace {
    /// Record type.
    #[arg(long = "type", value_name = "T")]
    pub(crate) record_type: String,
    /// Vault.
    #[arg(long, default_value = "files", value_name = "V")]
    pub(crate) vault: String,
}

#[derive(Subcommand)]
pub(crate) enum RecordCommand {
    /// Write a record: JSON on standard input.
    Put {
        #[command(flatten)]
        place: RecordPlace,
        /// Id within the type; random if not given.
        #[arg(long)]
        id: Option<String>,
    },
    /// Print a record.
    Get {
        #[command(flatten)]
        place: RecordPlace,
        /// Id within the type.
        #[arg(long)]
        id: String,
    },
    /// List records of a type.
    List {
        #[command(flatten)]
        place: RecordPlace,
    },
    /// Fetch records of a type that this device does not hold, so that they can be read without the server.
    Fetch {
        #[command(flatten)]
        place: RecordPlace,
        /// Only this one, by its id within the type.
        #[arg(long)]
        id: Option<String>,
    },
    /// Delete a record.
    Rm {
        #[command(flatten)]
        place: RecordPlace,
        /// Id within the type.
        #[arg(long)]
        id: String,
    },
    /// List a record's versions, newest first.
    History {
        #[command(flatten)]
        place: RecordPlace,
        /// Id within the type.
        #[arg(long)]
        id: String,
    },
    /// Write an old version of a record as its newest; what is there now stays in its history.
    Restore {
        #[command(flatten)]
        place: RecordPlace,
        /// Id within the type.
        #[arg(long)]
        id: String,
        /// Which, as history shows it.
        #[arg(long, value_name = "N")]
        revision: u64,
    },
}

#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    /// Print a vault's merge policies.
    Show {
        /// Vault.
        #[arg(long, default_value = "files", value_name = "V")]
        vault: String,
    },
    /// Give a vault merge policies, from a JSON file; they hold for every device.
    ///
    /// Without a policy for its type, a record that two devices changed at the same time is kept twice. A type with one
    /// takes documents that are JSON objects only. How the file looks: docs/MERGING.md.
    Set {
        /// The file.
        file: PathBuf,
        /// Vault.
        #[arg(long, default_value = "files", value_name = "V")]
        vault: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum ConflictsCommand {
    /// List what waits for a decision: conflict copies, fields with several values, deletions of what was edited.
    List {
        /// Vault.
        #[arg(long, default_value = "files", value_name = "V")]
        vault: String,
    },
    /// Print all versions of one conflict, with device and time.
    Show {
        #[command(flatten)]
        place: ConflictPlace,
    },
    /// Decide one conflict.
    Resolve {
        #[command(flatten)]
        place: ConflictPlace,
        #[command(flatten)]
        keep: KeepArgs,
    },
    /// List what this device merged without asking, newest first.
    Log {
        /// Vault.
        #[arg(long, default_value = "files", value_name = "V")]
        vault: String,
    },
    /// Undo a merge where both sides had changed something.
    ///
    /// What was changed since is not undone: then nothing is written.
    Undo {
        /// The merge, as log shows it; its beginning is enough.
        merge: String,
        /// Whose values to take: this device's as they were before the merge, or the other's.
        #[arg(long, value_name = "SIDE", value_parser = ["local", "remote"], default_value = "local")]
        keep: String,
        /// Vault.
        #[arg(long, default_value = "files", value_name = "V")]
        vault: String,
    },
}

#[derive(Args)]
pub(crate) struct ConflictPlace {
    #[command(flatten)]
    pub(crate) record: RecordPlace,
    /// Id within the type.
    #[arg(long)]
    pub(crate) id: String,
    /// Which field, its names joined by dots, if more than one waits; "deletion" for a deletion.
    #[arg(long, value_name = "PATH")]
    pub(crate) field: Option<String>,
}

#[derive(Args)]
pub(crate) struct KeepArgs {
    /// local: what this device wrote (of a copy: the copy). remote: what another one wrote. both: make the copy a record
    /// of its own. merged: JSON on standard input. Or the number of a version as show lists it.
    #[arg(long, value_name = "local|remote|both|merged|N")]
    pub(crate) keep: String,
}
