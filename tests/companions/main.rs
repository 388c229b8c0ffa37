//! The five companion apps: their data and merge rules, each driven through a day on three devices - apart and together,
//! clashes, deletions, photographs, a lost phone - with the state that all of them must end in. The days are data:
//! `days/*.json`; the rules are those of `merge/tests/companions`.
//!
//! The devices use the client library against the real server, on the back end that `LOCKSTEP_TEST_BACK_END` names.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions,
    clippy::print_stdout,
    dead_code,
    unused_imports,
    unused_macros,
    unreachable_pub,
    missing_docs
)]

#[path = "../cli/back_end.rs"]
mod back_end;
mod day;
mod device;
mod objects;
#[path = "../cli/program.rs"]
mod program;
#[path = "../cli/server.rs"]
mod server;
#[path = "../cli/tree.rs"]
mod tree;

macro_rules! day {
    ($test:ident, $app:literal) => {
        #[tokio::test]
        async fn $test() {
            day::live(
                include_str!(concat!("../../merge/tests/companions/", $app, ".json")),
                include_str!(concat!("days/", $app, ".json")),
            )
            .await;
        }
    };
}

day!(symptom_tracker, "symptom-tracker");
day!(packing_list, "packing-list");
day!(interview_assessments, "interview-assessments");
day!(clinical_desktop, "clinical-desktop");
day!(mood_journal, "mood-journal");
