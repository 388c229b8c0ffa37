//! Medians with their range, one a line.

use std::io::Write as _;

/// The middle of what was measured.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

/// What nine, or ninety-nine, of a hundred do not exceed.
pub(super) fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

pub(super) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").unwrap();
    out.flush().unwrap();
}

pub(super) fn heading(text: &str) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    line(&format!("\n{text} (load before: {})", load.split(' ').next().unwrap_or_default()));
}

/// One measure: its median and its range.
pub(super) fn row(name: &str, values: &[f64], unit: &str) {
    let (low, high) =
        values.iter().fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
    let digits = if low >= 1000.0 { 0 } else { 3 };
    line(&format!("{name:52} {:10.digits$} {unit} ({low:.digits$} to {high:.digits$})", median(values)));
}

/// Many waits in milliseconds: their median, and what the slow ones take.
pub(super) fn waits(name: &str, values: &[f64]) {
    line(&format!(
        "{name:52} {:10.3} ms (9 of 10 within {:.3}, 99 of 100 within {:.3}, of {})",
        median(values),
        percentile(values, 90),
        percentile(values, 99),
        values.len()
    ));
}
