//! Sizes as people write them: `10 GiB`, `500MB`, `1.5 TiB`, `4096`.

/// A text that is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no size: {reason}; write it like 10 GiB, 500 MB or 4096 (bytes)")]
pub struct SizeError {
    text: String,
    reason: &'static str,
}

/// Units by name, in lower case, and their bytes.
const UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("b", 1),
    ("kb", 1000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("pb", 1_000_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("pib", 1 << 50),
];

const DECIMALS_MAX: usize = 3;

/// Reads a size: a number, with up to three decimals if a unit follows, and a unit (bytes if there is none). Units of
/// 1,000 and of 1,024 are told apart; `10G` is refused, because it is neither.
///
/// # Errors
/// [`SizeError`].
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let wrong = |reason| SizeError { text: text.chars().take(40).collect(), reason };
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at_checked(end).ok_or_else(|| wrong("it is not readable"))?;
    let unit = unit.trim().to_ascii_lowercase();
    let (_, factor) =
        UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| wrong("its unit is not known"))?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || decimals.is_empty() {
        return Err(wrong("it begins with no number"));
    }
    if decimals.len() > DECIMALS_MAX || decimals.contains('.') {
        return Err(wrong("it has more than three decimals"));
    }
    let whole: u64 = whole.parse().map_err(|_| wrong("it is too large"))?;
    let thousandths: u64 = format!("{decimals:0<3}").parse().map_err(|_| wrong("it is not readable"))?;
    let bytes = u128::from(*factor) * (u128::from(whole) * 1000 + u128::from(thousandths));
    if bytes % 1000 != 0 && *factor == 1 {
        return Err(wrong("there is no part of a byte"));
    }
    let bytes = i64::try_from(bytes / 1000).map_err(|_| wrong("it is too large"))?;
    u64::try_from(bytes).map_err(|_| wrong("it is too large"))
}

/// A size for people, in units of 1,024, rounded down to hundredths.
pub fn size_text(bytes: u64) -> String {
    let (name, factor) = match bytes {
        0..1_024 => return format!("{bytes} B"),
        1_024..1_048_576 => ("KiB", 1 << 10),
        1_048_576..1_073_741_824 => ("MiB", 1 << 20),
        1_073_741_824..1_099_511_627_776 => ("GiB", 1 << 30),
        _ => ("TiB", 1_u64 << 40),
    };
    let hundredths = u128::from(bytes) * 100 / u128::from(factor);
    let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("10 GiB", 10 << 30),
            ("10gib", 10 << 30),
            (" 500MB ", 500_000_000),
            ("1.5 TiB", 3 << 39),
            ("0.001 KB", 1),
            ("7 B", 7),
            ("8191 PiB", 8191 << 50),
            ("3 KiB", 3 << 10),
            ("3 MiB", 3 << 20),
            ("3 GiB", 3 << 30),
            ("3 TiB", 3 << 40),
            ("3 GB", 3_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "GiB",
            "10 G",
            "10 GiBs",
            "-1",
            "1.2345 GiB",
            "1.5",
            "1..5 GiB",
            "1. GiB",
            ".5 GiB",
            "1e9",
            "9000 PiB",
        ] {
            let error = parse_size(text).unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("10 GiB"), "{error}");
        }
        assert!(parse_size(&"9".repeat(1000)).unwrap_err().to_string().len() < 200);
    }

    #[test]
    fn sizes_are_shown() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1_048_575, "1023.99 KiB"),
            (1_048_576, "1 MiB"),
            (1_073_741_823, "1023.99 MiB"),
            (10 << 30, "10 GiB"),
            ((10 << 30) - 1, "9.99 GiB"),
            (1_288_490_189, "1.2 GiB"),
            (1 << 50, "1024 TiB"),
        ] {
            assert_eq!(size_text(bytes), text);
        }
    }
}
