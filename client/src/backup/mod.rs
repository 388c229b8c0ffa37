//! Backing up folders: each path is a source with its own snapshots (PROTOCOL.md section 7).

mod group;
mod input;
mod known;
pub(crate) mod plan;
pub mod rules;
mod run;
pub mod scan;
mod source;

pub use input::Input;
pub use run::{Options, Outcome, backup};

/// What a run tells while it works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Entries seen.
    pub entries: u64,
    /// Bytes of files seen.
    pub bytes: u64,
    /// Bytes read and sent.
    pub sent_bytes: u64,
    /// Entries in all, once the scan is done.
    pub entries_total: Option<u64>,
    /// Bytes in all, once the scan is done.
    pub bytes_total: Option<u64>,
}
