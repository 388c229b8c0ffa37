//! Progress: a bar on a terminal, a plain line now and then otherwise, or an object a line for programs.

use crate::output::{complain, size};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lockstep_client::ClientError;
use lockstep_client::error::Result;
use serde_json::json;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// How progress is shown; always on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// A bar on a terminal, a line now and then otherwise; nothing with --json
    Auto,
    /// A JSON object a line, a few a second
    Json,
    /// Nothing
    None,
}

/// How a piece of work stands or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    Done,
    /// Done, and something is missing.
    Incomplete,
    Failed,
    /// Stopped by Ctrl-C.
    Stopped,
}

impl State {
    /// How it ended; `is_whole`: whether nothing is missing.
    pub(crate) fn of<T>(result: &Result<T>, is_whole: impl FnOnce(&T) -> bool) -> Self {
        match result {
            Ok(done) if is_whole(done) => Self::Done,
            Ok(_) => Self::Incomplete,
            Err(ClientError::Interrupted) => Self::Stopped,
            Err(_) => Self::Failed,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// How far something is: so many, and of how many if that is known.
#[derive(Clone, Copy, Default)]
struct Count {
    done: u64,
    total: Option<u64>,
}

/// Time between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// Time between two objects.
const OBJECT_INTERVAL: Duration = Duration::from_millis(250);

enum Shown {
    Bar(ProgressBar),
    Lines,
    /// What it is, and of what.
    Objects(&'static str, String),
    Nothing,
}

/// Shows progress.
pub(crate) struct Meter {
    shown: Shown,
    what: &'static str,
    entries: Count,
    bytes: Count,
    begun: Instant,
    last: Option<Instant>,
}

impl Meter {
    /// For people, in so many words: "backing up".
    pub(crate) fn new(what: &'static str, is_silent: bool) -> Self {
        let shown = if is_silent {
            Shown::Nothing
        } else if std::io::stderr().is_terminal() {
            Shown::Bar(bar())
        } else {
            Shown::Lines
        };
        let (begun, count) = (Instant::now(), Count::default());
        Self { shown, what, entries: count, bytes: count, begun, last: None }
    }

    /// In another form; `task` and `source` are what programs know it by.
    pub(crate) fn in_form(mut self, form: Form, task: &'static str, source: String) -> Self {
        match form {
            Form::Auto => {}
            Form::Json => self.shown = Shown::Objects(task, source),
            Form::None => self.shown = Shown::Nothing,
        }
        self
    }

    /// Entries and bytes, of how many; a total of 0 is not known yet.
    pub(crate) fn show(&mut self, entries: (u64, u64), bytes: (u64, u64)) {
        let count = |(done, total)| Count { done, total: (total > 0).then_some(total) };
        (self.entries, self.bytes) = (count(entries), count(bytes));
        match &self.shown {
            Shown::Bar(bar) => {
                bar.set_length(bytes.1.max(bytes.0));
                bar.set_position(bytes.0);
                let files = of("files", &entries.0.to_string(), self.entries.total.map(|n| n.to_string()));
                bar.set_message(format!("{}{files}", self.what));
            }
            Shown::Lines if self.is_due(LINE_INTERVAL, self.begun) => {
                let files = of("files", &entries.0.to_string(), self.entries.total.map(|n| n.to_string()));
                let (done, total) = (size(bytes.0), self.bytes.total.map(size));
                let total = total.map_or_else(String::new, |total| format!(" of {total}"));
                complain(&format!("{}{files}: {done}{total}", self.what));
            }
            Shown::Objects(..) if self.last.is_none() || self.is_due(OBJECT_INTERVAL, self.begun) => {
                self.say(State::Running);
            }
            _ => return,
        }
        self.last = Some(Instant::now());
    }

    fn is_due(&self, interval: Duration, otherwise: Instant) -> bool {
        self.last.unwrap_or(otherwise).elapsed() >= interval
    }

    /// The last word: for programs it is a summary.
    pub(crate) fn finish(self, state: State) {
        self.say(state);
        self.end();
    }

    /// Takes the bar away.
    pub(crate) fn end(self) {
        if let Shown::Bar(bar) = self.shown {
            bar.finish_and_clear();
        }
    }

    fn say(&self, state: State) {
        let Shown::Objects(task, source) = &self.shown else { return };
        complain(&line(task, source, state, (self.entries, self.bytes), self.begun.elapsed()).to_string());
    }
}

/// " 3 of 7 files"; nothing if it is not known of how many.
fn of(what: &str, done: &str, total: Option<String>) -> String {
    total.map_or_else(String::new, |total| format!(" {done} of {total} {what}"))
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(8));
    let template =
        "{msg} [{bar:24}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// An object for programs. What is not known is null; README.md says what the fields mean.
fn line(task: &str, source: &str, state: State, counts: (Count, Count), took: Duration) -> serde_json::Value {
    let (entries, bytes) = counts;
    let millis = took.as_millis();
    let speed = u64::try_from(u128::from(bytes.done) * 1000 / millis.max(1)).unwrap_or(u64::MAX);
    let left = bytes.total.map(|total| total.saturating_sub(bytes.done));
    let seconds_left = match (state, left) {
        (State::Running, Some(left)) if speed > 0 => Some(left / speed),
        (State::Running, _) => None,
        _ => Some(0),
    };
    json!({
        "progress": task, "source": source, "state": state.word(),
        "entries": entries.done, "entries_total": entries.total,
        "bytes": bytes.done, "bytes_total": bytes.total, "bytes_per_second": speed,
        "seconds": u64::try_from(millis / 1000).unwrap_or(u64::MAX), "seconds_left": seconds_left,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_says_how_fast_and_how_long_still() {
        let entries = Count { done: 3, total: Some(10) };
        let bytes = Count { done: 4_000_000, total: Some(10_000_000) };
        let value = line("backup", "/x", State::Running, (entries, bytes), Duration::from_secs(2));
        assert_eq!(value["bytes_per_second"], 2_000_000);
        assert_eq!((&value["seconds"], &value["seconds_left"]), (&2.into(), &3.into()));
        assert_eq!((&value["entries"], &value["entries_total"]), (&3.into(), &10.into()));
    }

    #[test]
    fn what_is_not_known_is_null() {
        let value = line(
            "read",
            "x",
            State::Running,
            (Count::default(), Count { done: 5, total: None }),
            Duration::ZERO,
        );
        assert!(value["bytes_total"].is_null() && value["seconds_left"].is_null(), "{value}");
        assert_eq!(line("read", "x", State::Done, <_>::default(), Duration::ZERO)["seconds_left"], 0);
    }
}
