//! What whoever runs the server does to accounts, apart from the command line.

use crate::domain::quota::QuotaSetting;
use crate::error::StoreError;
use crate::store::Store;
use lockstep_proto::size::{SizeError, parse_size, size_text};
use std::fmt::Write as _;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// No such account.
    #[error("there is no account \"{0}\"")]
    NoAccount(String),
    /// Neither a size nor a word that is known.
    #[error("{0}, or none (no limit), or default")]
    Size(#[from] SizeError),
    /// Numbers are off.
    #[error("{0}\nrun: lockstep-server check-usage --mend, to set them right")]
    Off(String),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn setting(text: &str) -> Result<QuotaSetting, SizeError> {
    match text {
        "none" => Ok(QuotaSetting::Unlimited),
        "default" => Ok(QuotaSetting::Default),
        text => parse_size(text).map(QuotaSetting::Bytes),
    }
}

/// Sets an account's quota, if one is given, and says what it uses and may use.
///
/// # Errors
/// [`AdminError`].
pub async fn quota(store: &dyn Store, name: &str, size: Option<&str>) -> Result<String, AdminError> {
    let size = size.map(setting).transpose()?;
    let none = || AdminError::NoAccount(name.to_owned());
    let account = store.sign_in(name).await?.ok_or_else(none)?.account;
    if let Some(size) = size {
        store.set_quota(account, size).await?;
    }
    let usage = store.usage(account).await?.ok_or_else(none)?;
    let whose = match store.quota(account).await?.ok_or_else(none)? {
        QuotaSetting::Default => "the server's default",
        QuotaSetting::Unlimited | QuotaSetting::Bytes(_) => "its own",
    };
    let quota = usage.quota.map_or_else(|| "no limit".to_owned(), |bytes| format!("of {}", size_text(bytes)));
    Ok(format!("{name}: used {} ({} bytes), {quota} ({whose})", size_text(usage.used), usage.used))
}

/// Counts anew what every account uses.
///
/// # Errors
/// [`AdminError::Off`] names every number that is not what its rows say, unless it is mended.
pub async fn check_usage(store: &dyn Store, mend: bool) -> Result<String, AdminError> {
    let faults = store.check_usage(mend).await?;
    let mut text = String::new();
    for fault in &faults {
        let place = fault.vault.map_or_else(String::new, |vault| format!(", vault {vault}"));
        let ((bytes, objects), (counted, counted_objects)) = (fault.kept, fault.counted);
        let _ = writeln!(text, "{}{place}: {bytes} bytes are kept, {counted} are there", fault.name);
        if objects != counted_objects {
            let _ = writeln!(
                text,
                "{}{place}: {objects} objects are kept, {counted_objects} are there",
                fault.name
            );
        }
    }
    let text = text.trim_end().to_owned();
    match (faults.is_empty(), mend) {
        (true, _) => Ok("every account's usage is right".to_owned()),
        (false, true) => Ok(format!("{text}\nset right")),
        (false, false) => Err(AdminError::Off(text)),
    }
}
