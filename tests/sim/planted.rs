//! The simulator is tested itself: bugs planted in wrappers must be found within a few seeds.

use crate::faults::Hooks;
use crate::plan::Trial;
use crate::replica::MemReplica;
use crate::server::ModelServer;
use lockstep_engine::effect::{Answer, Failure, Request};
use lockstep_engine::replica::{Base, EnvelopeSource, PendingRow, RecordRow, WriteOp};
use lockstep_proto::api::vault::Page;
use lockstep_proto::envelope::KIND_DOCUMENT;
use lockstep_proto::state::StateDigest;

const SEEDS_AT_MOST: u64 = 200;
/// Planted bugs have their own seeds.
const BASE_SEED: u64 = 7_000_000;

fn is_caught(name: &str, hooks: Hooks) {
    for seed in BASE_SEED..BASE_SEED + SEEDS_AT_MOST {
        if let Some(failure) = Trial::new(seed, hooks).quiet().run().failure {
            println!("caught: {name}: by seed {}: {failure}", seed - BASE_SEED + 1);
            return;
        }
    }
    panic!("{name}: not caught by {SEEDS_AT_MOST} seeds");
}

/// What the engine puts right by itself is no bug that could be caught.
fn is_healed(hooks: Hooks) {
    for seed in BASE_SEED..BASE_SEED + 40 {
        let outcome = Trial::new(seed, hooks).quiet().run();
        assert_eq!(outcome.failure, None, "seed {seed}");
    }
}

fn is_pull(ops: &[WriteOp]) -> bool {
    ops.iter().any(|op| matches!(op, WriteOp::ClearStaged))
}

fn is_confirmation(ops: &[WriteOp]) -> bool {
    !is_pull(ops) && ops.iter().any(|op| matches!(op, WriteOp::AddCommit { .. }))
}

/// Changes operations of pulls one by one.
fn in_pulls(ops: Vec<WriteOp>, change: impl FnMut(WriteOp) -> WriteOp) -> Vec<WriteOp> {
    if is_pull(&ops) { ops.into_iter().map(change).collect() } else { ops }
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
    let answer = |_: &Request, answer| match answer {
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
        in_pulls(ops, |op| match op {
            WriteOp::ReplacePending(operation, _) => WriteOp::DropPending(operation),
            other => other,
        })
    };
    is_caught("last writer wins", Hooks { write, ..Hooks::HONEST });
}

#[test]
fn pending_writes_that_are_moved_onto_what_they_never_saw() {
    let write = |ops: Vec<WriteOp>| {
        if is_pull(&ops) { without(ops, |op| matches!(op, WriteOp::ReplacePending(..))) } else { ops }
    };
    is_caught("clash not settled", Hooks { write, ..Hooks::HONEST });
}

#[test]
fn writes_of_a_commit_that_stay_pending() {
    let write = |ops: Vec<WriteOp>| {
        if is_confirmation(&ops) { without(ops, |op| matches!(op, WriteOp::DropPending(_))) } else { ops }
    };
    is_caught("pushed twice", Hooks { write, ..Hooks::HONEST });
}

#[test]
fn a_server_that_leaves_the_last_commit_of_a_page_out() {
    let answer = |_: &Request, answer| match answer {
        Answer::Page(mut page) if page.commits.len() > 1 => {
            page.commits.pop();
            page.head_seq = page.head_seq.previous().unwrap();
            Answer::Page(page)
        }
        other => other,
    };
    is_caught("head hidden", Hooks { answer, ..Hooks::HONEST });
}

#[test]
fn a_disk_that_is_full_and_does_not_say_so() {
    is_caught("full disk ignored", Hooks { reports_full_disk: false, ..Hooks::HONEST });
}

#[test]
fn a_commit_in_flight_that_a_restart_forgets() {
    let start = |replica: &mut MemReplica| replica.in_flight = None;
    is_caught("in flight forgotten at a restart", Hooks { start, ..Hooks::HONEST });
}

#[test]
fn pending_writes_that_a_restart_finds_in_another_order() {
    let start = |replica: &mut MemReplica| replica.pending.reverse();
    is_caught("pending writes reordered", Hooks { start, ..Hooks::HONEST });
}

#[test]
fn staged_envelopes_that_are_used_for_another_record() {
    let write = |mut ops: Vec<WriteOp>| {
        let staged = ops.iter_mut().filter_map(|op| match op {
            WriteOp::StageEnvelope { envelope, .. } => Some(envelope),
            _ => None,
        });
        if let [first, .., last] = &mut staged.collect::<Vec<_>>()[..] {
            std::mem::swap(*first, *last);
        }
        ops
    };
    is_caught("staged envelopes exchanged", Hooks { write, ..Hooks::HONEST });
}

#[test]
fn a_cursor_that_is_advanced_past_a_record() {
    let write = |mut ops: Vec<WriteOp>| {
        if is_pull(&ops)
            && let Some(place) = ops.iter().rposition(|op| matches!(op, WriteOp::SetRecord(..)))
        {
            ops.remove(place);
        }
        ops
    };
    is_caught("cursor advanced too early", Hooks { write, ..Hooks::HONEST });
}

#[test]
fn a_cursor_that_is_advanced_before_the_envelopes_are_there() {
    // What is not there is asked for again.
    let write = |ops: Vec<WriteOp>| {
        let forget = |op| match op {
            WriteOp::SetRecord(row, EnvelopeSource::Staged) if row.kind == KIND_DOCUMENT => {
                WriteOp::SetRecord(RecordRow { present: false, ..row }, EnvelopeSource::Absent)
            }
            other => other,
        };
        ops.into_iter().map(forget).collect()
    };
    is_healed(Hooks { write, ..Hooks::HONEST });
}

#[test]
fn a_deletion_that_is_forgotten() {
    let write =
        |ops| without(ops, |op| matches!(op, WriteOp::SetRecord(row, _) if row.kind != KIND_DOCUMENT));
    is_caught("tombstone forgotten", Hooks { write, ..Hooks::HONEST });
}

#[test]
fn a_clock_that_is_not_kept() {
    let write = |ops| without(ops, |op| matches!(op, WriteOp::SetClock(_)));
    is_caught("clock goes back", Hooks { write, ..Hooks::HONEST });
}

#[test]
fn a_state_that_is_taken_on_trust() {
    let write = |ops: Vec<WriteOp>| {
        in_pulls(ops, |op| match op {
            WriteOp::SetHead(mut head) => {
                head.state = StateDigest::default();
                WriteOp::SetHead(head)
            }
            other => other,
        })
    };
    is_caught("state digest not kept", Hooks { write, ..Hooks::HONEST });
}

#[test]
fn operation_ids_that_repeat() {
    is_caught("operation id reused", Hooks { draws_ids: false, ..Hooks::HONEST });
}

#[test]
fn a_generator_that_repeats_itself() {
    // A nonce is made of what it is for as well: others do not repeat.
    is_healed(Hooks { draws_nonces: false, ..Hooks::HONEST });
}

#[test]
fn a_device_that_goes_on_as_its_copy() {
    is_caught("clone kept", Hooks { ends_clones: false, ..Hooks::HONEST });
}

#[test]
fn a_follow_up_that_stands_on_what_it_never_saw() {
    // A write that waits is said to have seen one more write than its device sent.
    let write = |ops: Vec<WriteOp>| {
        let is_confirmation = is_confirmation(&ops);
        let wrong = |op| match op {
            WriteOp::ReplacePending(operation, row) if is_confirmation => {
                let Base::Revision(base) = row.base else { return WriteOp::ReplacePending(operation, row) };
                WriteOp::ReplacePending(operation, PendingRow { base: Base::Revision(base.next()), ..row })
            }
            other => other,
        };
        ops.into_iter().map(wrong).collect()
    };
    is_caught("follow-up base wrong", Hooks { write, ..Hooks::HONEST });
}

#[test]
fn a_server_that_exchanges_envelopes_of_one_size() {
    // Only what is authenticated beside the contents tells one from the other.
    let serve = |server: &mut ModelServer, request: &Request| -> Result<Answer, Failure> {
        let mut answer = server.serve(request)?;
        if let Answer::Entries(entries, _) | Answer::Page(Page { entries, .. }) = &mut answer
            && let [first, .., last] = &mut entries[..]
            && first.envelope.0.len() == last.envelope.0.len()
        {
            std::mem::swap(&mut first.envelope, &mut last.envelope);
        }
        Ok(answer)
    };
    is_caught("envelopes exchanged", Hooks { serve, ..Hooks::HONEST });
}

#[test]
fn a_server_that_applies_a_repeated_push_again() {
    let serve = |server: &mut ModelServer, request: &Request| -> Result<Answer, Failure> {
        if let Request::Push(push) = request
            && let Some((signed, changes, hash)) = server.commits.last().cloned()
            && signed == push.commit
        {
            server.commits.push((signed, changes, hash));
            server.tip.seq = server.tip.seq.next();
            return Ok(Answer::Pushed);
        }
        server.serve(request)
    };
    is_caught("push applied twice", Hooks { serve, ..Hooks::HONEST });
}

#[test]
fn a_device_that_takes_an_old_server_for_a_current_one() {
    let answer = |request: &Request, mut answer| {
        if let (Request::Commits { after: Some(after) }, Answer::Page(page)) = (request, &mut answer) {
            page.head_seq = page.head_seq.max(*after);
        }
        answer
    };
    is_caught("rollback overlooked", Hooks { answer, ..Hooks::HONEST });
}
