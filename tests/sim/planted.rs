//! The simulator is tested itself: bugs planted in wrappers must be found within a few seeds.

use crate::faults::Hooks;
use crate::plan;
use crate::server::ModelServer;
use lockstep_engine::effect::{Answer, Failure, Request};
use lockstep_engine::replica::{EnvelopeSource, RecordRow, WriteOp};
use lockstep_proto::envelope::KIND_DOCUMENT;

const SEEDS_AT_MOST: u64 = 60;
/// Planted bugs have their own seeds.
const BASE_SEED: u64 = 7_000_000;

fn is_caught(name: &str, hooks: Hooks) {
    for seed in BASE_SEED..BASE_SEED + SEEDS_AT_MOST {
        if let Some(failure) = plan::run(seed, hooks).failure {
            println!("{name}: caught by seed {} of {SEEDS_AT_MOST}: {failure}", seed - BASE_SEED + 1);
            return;
        }
    }
    panic!("{name}: not caught by {SEEDS_AT_MOST} seeds");
}

fn without(ops: Vec<WriteOp>, is_dropped: fn(&WriteOp) -> bool) -> Vec<WriteOp> {
    ops.into_iter().filter(|op| !is_dropped(op)).collect()
}

pub(crate) fn forgets_the_commit_in_flight(ops: Vec<WriteOp>) -> Vec<WriteOp> {
    without(ops, |op| matches!(op, WriteOp::SetInFlight(_)))
}

#[test]
fn a_commit_that_is_not_persisted_before_it_is_sent() {
    is_caught("SetInFlight dropped", Hooks { write: forgets_the_commit_in_flight, ..Hooks::HONEST });
}

#[test]
fn a_server_that_acknowledges_before_it_stores() {
    let serve = |server: &mut ModelServer, request: &Request| -> Result<Answer, Failure> {
        match request {
            Request::Push(_) if server.commits.len() % 5 == 4 => Ok(Answer::Pushed),
            _ => server.serve(request),
        }
    };
    is_caught("acknowledged, not stored", Hooks { serve, ..Hooks::HONEST });
}

#[test]
fn head_moved_taken_for_pushed() {
    let answer = |answer| match answer {
        Answer::HeadMoved(_) => Answer::Pushed,
        other => other,
    };
    is_caught("409 ignored", Hooks { answer, ..Hooks::HONEST });
}

#[test]
fn a_write_that_was_reported_and_not_synced() {
    is_caught("skipped fsync", Hooks { is_durable: false, ..Hooks::HONEST });
}

#[test]
fn a_write_that_is_torn_by_a_crash() {
    is_caught("torn write", Hooks { is_atomic: false, ..Hooks::HONEST });
}

#[test]
fn conflict_copies_that_are_thrown_away() {
    let write = |ops: Vec<WriteOp>| {
        let is_pull = ops.iter().any(|op| matches!(op, WriteOp::ClearStaged));
        let drop_instead = |op| match op {
            WriteOp::ReplacePending(operation, _) if is_pull => WriteOp::DropPending(operation),
            other => other,
        };
        ops.into_iter().map(drop_instead).collect()
    };
    is_caught("last writer wins", Hooks { write, ..Hooks::HONEST });
}

#[test]
fn pending_writes_that_are_moved_onto_what_they_never_saw() {
    let write = |ops: Vec<WriteOp>| {
        let is_pull = ops.iter().any(|op| matches!(op, WriteOp::ClearStaged));
        if is_pull { without(ops, |op| matches!(op, WriteOp::ReplacePending(..))) } else { ops }
    };
    is_caught("clash not settled", Hooks { write, ..Hooks::HONEST });
}

#[test]
fn writes_of_a_commit_that_stay_pending() {
    let write = |ops: Vec<WriteOp>| {
        let is_confirmed = ops.iter().any(|op| matches!(op, WriteOp::AddCommit { .. }));
        if is_confirmed { without(ops, |op| matches!(op, WriteOp::DropPending(_))) } else { ops }
    };
    is_caught("pushed twice", Hooks { write, ..Hooks::HONEST });
}

#[test]
fn a_cursor_that_is_advanced_before_the_envelopes_are_there() {
    let write = |ops: Vec<WriteOp>| {
        let forget = |op| match op {
            WriteOp::SetRecord(row, EnvelopeSource::Staged) if row.kind == KIND_DOCUMENT => {
                WriteOp::SetRecord(RecordRow { present: false, ..row }, EnvelopeSource::Absent)
            }
            other => other,
        };
        ops.into_iter().map(forget).collect()
    };
    // What is not there is asked for again: the engine heals it.
    for seed in BASE_SEED..BASE_SEED + 20 {
        let outcome = plan::run(seed, Hooks { write, ..Hooks::HONEST });
        assert_eq!(outcome.failure, None, "seed {seed}");
    }
}

#[test]
fn a_server_that_leaves_the_last_commit_of_a_page_out() {
    let answer = |answer| match answer {
        Answer::Page(mut page) if page.commits.len() > 1 => {
            page.commits.pop();
            page.head_seq = page.head_seq.previous().unwrap();
            Answer::Page(page)
        }
        other => other,
    };
    is_caught("head hidden", Hooks { answer, ..Hooks::HONEST });
}
