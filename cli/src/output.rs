//! What the program prints, and its exit statuses.

use crate::progress::Meter;
use lockstep_client::ClientError;
use lockstep_proto::api::problem::Code;
use serde_json::Value;
use std::io::Write as _;

/// The statuses, for `--help`.
pub(crate) const STATUSES: &str = "Exit status:
  0  done
  1  failed
  2  wrong usage
  3  done, but something could not be read, or not be restored
  4  the server can not be reached, or is busy
  5  wrong passphrase or recovery key, or signed out
  6  the server went back in time, shows another history, or withholds something
  7  something is damaged
  8  another process writes in this home
  9  this home is a copy of another one that is in use
 10  a disk is full, or the account's quota is used up
 11  not found, or taken
130  stopped by Ctrl-C";

pub(crate) const INCOMPLETE: u8 = 3;
pub(crate) const DAMAGED: u8 = 7;
pub(crate) const INTERRUPTED: u8 = 130;

/// Exit status of an error.
pub(crate) fn status_of(error: &ClientError) -> u8 {
    match error {
        ClientError::Usage(_) | ClientError::NoAccount(_) => 2,
        ClientError::Unreachable { .. }
        | ClientError::Busy(_)
        | ClientError::KeysBehind(_)
        | ClientError::NotHeld(_) => 4,
        ClientError::WrongPassphrase
        | ClientError::WrongRecoveryKey
        | ClientError::SignedOut
        | ClientError::Revoked => 5,
        ClientError::Rollback(_)
        | ClientError::RecordRollback(_)
        | ClientError::Fork(_)
        | ClientError::Incomplete(_)
        | ClientError::Server(_) => 6,
        ClientError::Damaged(_) | ClientError::Fault(_) | ClientError::Database(_) => DAMAGED,
        ClientError::Locked(_) => 8,
        ClientError::Cloned(_) => 9,
        ClientError::DiskFull(_) | ClientError::QuotaExceeded(_) => 10,
        ClientError::NotFound(_) => 11,
        ClientError::Interrupted => INTERRUPTED,
        ClientError::Unfinished(error) => status_of(error),
        ClientError::Refused { code, .. } => match code {
            Some(Code::StorageFull) => 10,
            Some(Code::NameTaken | Code::NotFound | Code::RegistrationClosed) => 11,
            Some(Code::Throttled) => 4,
            _ => 1,
        },
        _ => 1,
    }
}

/// Where results and notes go.
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// A result: text for people, a value for programs.
    pub(crate) fn result(&self, text: &str, value: &Value) {
        let line = if self.json { value.to_string() } else { text.trim_end().to_owned() };
        print(&line);
    }

    /// A line for programs, whatever was asked for.
    #[expect(clippy::unused_self, reason = "said through the output, like everything else")]
    pub(crate) fn line(&self, value: &Value) {
        print(&value.to_string());
    }

    /// A note on standard error; not in JSON mode's output, and no secret.
    #[expect(clippy::unused_self, reason = "said through the output, like everything else")]
    pub(crate) fn note(&self, text: &str) {
        complain(&format!("lockstep: {text}"));
    }

    /// An error on standard error.
    pub(crate) fn error(&self, error: &ClientError) {
        if self.json {
            let value = serde_json::json!({ "error": error.to_string(), "status": status_of(error) });
            complain(&value.to_string());
        } else {
            complain(&format!("lockstep: {error}"));
        }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Progress for people.
    pub(crate) fn meter(&self, what: &'static str) -> Meter {
        Meter::new(what, self.json)
    }
}

/// A closed pipe ends the output, not the work.
fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
}

pub(crate) fn complain(line: &str) {
    let mut out = std::io::stderr().lock();
    let _ = writeln!(out, "{line}");
}

/// A size for people.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// Bytes of a name, safe to print: what is not printable is escaped.
pub(crate) fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let is_plain = std::str::from_utf8(name).is_ok() && !text.chars().any(char::is_control);
    if is_plain { text.into_owned() } else { name.escape_ascii().to_string() }
}

/// The beginning of an id, enough to name it by.
pub(crate) fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// Seconds since 1970 as UTC.
pub(crate) fn time(utc: u64) -> String {
    let (year, month, day) = civil(utc / 86_400);
    let second = utc % 86_400;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Days since 1970 as year, month, day (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Reads a time: `2026-11-20` (its end), `2026-11-20T08:30:00Z`, or seconds since 1970.
pub(crate) fn parse_time(text: &str) -> Result<u64, ClientError> {
    let wrong =
        || ClientError::Usage(format!("\"{text}\" is no time such as 2026-11-20 or 2026-11-20T08:30:00Z"));
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(seconds);
    }
    let (date, clock) = match text.split_once(['T', ' ']) {
        Some((date, clock)) => (date, clock.strip_suffix('Z').ok_or_else(wrong)?),
        None => (text, "23:59:59"),
    };
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    let parts: Vec<&str> = date.split('-').collect();
    let [year, month, day] = parts.as_slice() else { return Err(wrong()) };
    let clock: Vec<&str> = clock.split(':').collect();
    let [hour, minute, second] = clock.as_slice() else { return Err(wrong()) };
    let (year, month, day) = (number(year)?, number(month)?, number(day)?);
    let (hour, minute, second) = (number(hour)?, number(minute)?, number(second)?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 60
    {
        return Err(wrong());
    }
    let days = (0..366 * 8100).skip(usize::try_from((year - 1970) * 365).unwrap_or(0));
    let found = days.take(3000).find(|days| civil(*days) == (year, month, day));
    Ok(found.ok_or_else(wrong)? * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_round_trip() {
        assert_eq!(time(0), "1970-01-01 00:00:00Z");
        assert_eq!(time(1_795_163_400), "2026-11-20 08:30:00Z");
        assert_eq!(parse_time("2026-11-20T08:30:00Z").ok(), Some(1_795_163_400));
        assert_eq!(parse_time("2024-02-29").ok().map(time), Some("2024-02-29 23:59:59Z".into()));
        assert_eq!(parse_time("17").ok(), Some(17));
        for wrong in ["2023-02-29", "yesterday", "2026-13-01", "2026-11-20T08:30:00"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_that_are_not_printable_are_escaped() {
        assert_eq!(shown("héllo".as_bytes()), "héllo");
        assert_eq!(shown(b"a\xff\n"), "a\\xff\\n");
    }
}
