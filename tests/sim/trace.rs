//! Lines of a trace: short, and with what is needed to follow one write.

use lockstep_engine::effect::{Answer, Event, Failure, Request};
use lockstep_engine::replica::WriteOp;
use lockstep_proto::api::vault::Page;
use lockstep_proto::commit::Commit;

/// The beginning of an id.
fn short(id: impl std::fmt::Display) -> String {
    id.to_string().chars().take(6).collect()
}

pub(crate) fn of_event(event: &Event) -> String {
    match event {
        Event::Stored(operations) => format!("stored {}", operations.len()),
        Event::Pushed { seq, operations } => format!("pushed {seq} with {}", operations.len()),
        Event::Pulled { seq, records } => format!("pulled {records} records up to {seq}"),
        other => format!("{other:?}"),
    }
}

pub(crate) fn of_request(request: &Request) -> String {
    match request {
        Request::Push(push) => {
            let commit = Commit::hash_of(&push.commit.bytes.0);
            format!("push {}, {} envelopes", short(commit), push.envelopes.len())
        }
        Request::Stage { envelopes } => format!("stage {}", envelopes.len()),
        Request::Envelopes { places } => format!("envelopes {}", places.len()),
        Request::State { after, upto, from } => {
            format!(
                "state after {after:?} up to {upto} from {:?}",
                from.map(|(seq, record)| (seq, short(record)))
            )
        }
        other => format!("{other:?}"),
    }
}

pub(crate) fn of_answer(answer: &Result<Answer, Failure>) -> String {
    let page = |page: &Page| {
        format!("{} commits, {} entries, head {}", page.commits.len(), page.entries.len(), page.head_seq)
    };
    match answer {
        Ok(Answer::Page(found)) => page(found),
        Ok(Answer::HeadMoved(found)) => format!("head moved, {}", page(found)),
        Ok(Answer::Entries(entries, more)) => format!("{} entries, more {more}", entries.len()),
        Ok(Answer::DeviceLog(log)) => format!("device log of {}", log.next_index()),
        other => format!("{other:?}"),
    }
}

pub(crate) fn of_write(ops: &[WriteOp]) -> String {
    ops.iter().map(of_op).collect::<Vec<_>>().join("; ")
}

fn of_op(op: &WriteOp) -> String {
    match op {
        WriteOp::AddPending(row) => {
            format!(
                "add {} of {} upon {:?}, {:?}",
                short(row.operation),
                short(row.record),
                row.base,
                row.policy
            )
        }
        WriteOp::ReplacePending(operation, row) => {
            format!("replace {}: {} upon {:?}", short(operation), short(row.record), row.base)
        }
        WriteOp::DropPending(operation) => format!("drop {}", short(operation)),
        WriteOp::SetInFlight(in_flight) => {
            let sealed = in_flight.sealed.iter();
            let sealed: Vec<String> = sealed.map(|sealed| short(sealed.operation)).collect();
            format!("in flight {} with {sealed:?}", short(Commit::hash_of(&in_flight.commit.bytes.0)))
        }
        WriteOp::AddCommit { seq, hash, .. } => format!("commit {seq} {}", short(hash)),
        WriteOp::AddVersion(row) => format!("version {} of {}", row.revision, short(row.record)),
        WriteOp::SetRecord(row, _) => format!("record {} at {}", short(row.record), row.revision),
        WriteOp::StageEnvelope { seq, record, .. } => format!("stage {seq} {}", short(record)),
        WriteOp::SetHead(head) => format!("head {}", head.tip.seq),
        WriteOp::SetClock(_) => "clock".into(),
        other => format!("{other:?}").chars().take(60).collect(),
    }
}
