//! Makes every file of `golden/` and `reject/`.

mod account;
mod account_reject;
mod archive;
mod archive_reject;
mod archive_vault;
mod basic;
mod basic_reject;
mod chain;
mod chain_reject;
mod coding_reject;
mod limits_reject;
mod log_reject;
mod object;
mod record;
mod record_reject;
mod wire;

use super::File;
pub use archive::golden_archive;
pub use object::golden_object;

/// The golden files.
pub fn golden() -> Vec<File> {
    [
        basic::golden(),
        account::golden(),
        record::golden(),
        chain::golden(),
        object::golden(),
        wire::golden(),
        archive::golden(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The reject files.
pub fn reject() -> Vec<File> {
    [
        basic_reject::reject(),
        coding_reject::reject(),
        account_reject::reject(),
        log_reject::reject(),
        record_reject::reject(),
        chain_reject::reject(),
        object::reject(),
        wire::reject(),
        archive_reject::reject(),
        limits_reject::reject(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
