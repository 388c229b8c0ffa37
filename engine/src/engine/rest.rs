//! What comes after all else: envelopes that were let go of, and are asked for by name or wanted again. A server may have
//! lost them, so that nothing that is to be sent waits for one.

use super::{Doing, Then, VaultEngine};
use crate::effect::{Effect, Event, Request};
use crate::error::EngineError;
use crate::pull;
use crate::replica::{RecordRow, Replica, Result};
use lockstep_proto::api::vault::Entry;
use lockstep_proto::id::{RecordId, Seq, VaultId};
use lockstep_proto::limits;
use std::collections::{BTreeMap, BTreeSet};

/// How far wanted envelopes were asked for.
#[derive(Default)]
pub(super) struct Asked {
    /// What lies up to here did not come, or is here.
    upto: Option<(Seq, RecordId)>,
    /// What came and is not what was signed.
    refused: BTreeSet<RecordId>,
}

impl VaultEngine {
    /// Nothing is left to be sent: asks for what was named or is wanted, and otherwise ends the sync.
    pub(super) fn rest(&mut self, replica: &dyn Replica, out: &mut Vec<Effect>) -> Result<()> {
        let mut named = Vec::new();
        for record in &self.fetch {
            named.extend(replica.record(*record)?.filter(|row| !row.present));
        }
        named.sort_unstable_by_key(place);
        named.dedup();
        named.truncate(limits::PAGE_ENTRIES_MAX);
        if !named.is_empty() {
            self.ask(named, Doing::Fetch, out);
            return Ok(());
        }
        while let Some(asked) = &mut self.asked {
            let mut wanted = replica.wanted(asked.upto, limits::PAGE_ENTRIES_MAX)?;
            let Some(last) = wanted.last().map(place) else { break };
            wanted.retain(|row| !asked.refused.contains(&row.record));
            if !wanted.is_empty() {
                self.ask(wanted, Doing::Wanted, out);
                return Ok(());
            }
            asked.upto = Some(last);
        }
        out.push(Effect::Report(Event::Idle));
        Ok(())
    }

    fn ask(&mut self, rows: Vec<RecordRow>, doing: fn(Vec<RecordRow>) -> Doing, out: &mut Vec<Effect>) {
        let places = rows.iter().map(place).collect();
        self.send(Request::Envelopes { places }, doing(rows), out);
    }

    /// What was asked for by name came, or some of it.
    pub(super) fn fetched(
        &mut self,
        replica: &dyn Replica,
        rows: &[RecordRow],
        entries: Vec<Entry>,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        if entries.is_empty() {
            let first = rows.first().ok_or(EngineError::server("nothing was asked"))?;
            return Err(incomplete(self.setup.vault(), first));
        }
        let (ops, events) = pull::fill(replica, &self.setup, rows, entries)?;
        self.write(ops, Then::Rest { events }, out);
        Ok(())
    }

    /// What is wanted came, or some of it. What did not, or is not what was signed, is reported and left as it is.
    pub(super) fn came_back(
        &mut self,
        replica: &dyn Replica,
        rows: &[RecordRow],
        entries: Vec<Entry>,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        let mut left: BTreeMap<RecordId, &RecordRow> = rows.iter().map(|row| (row.record, row)).collect();
        let (mut ops, mut events) = (Vec::new(), Vec::new());
        let asked = self.asked.get_or_insert_default();
        let is_over = entries.is_empty();
        for entry in entries {
            let record = entry.record;
            let Some(row) = left.remove(&record) else {
                return Err(EngineError::server(format!("record {record} was not asked for")));
            };
            match pull::fill(replica, &self.setup, std::slice::from_ref(row), vec![entry]) {
                Ok((more_ops, more_events)) => {
                    ops.extend(more_ops);
                    events.extend(more_events);
                }
                Err(error @ EngineError::Replica { .. }) => return Err(error),
                Err(error) => {
                    asked.refused.insert(record);
                    events.push(Event::StillWanted { record, error });
                }
            }
        }
        if is_over {
            // None of these is there. They are not asked for again before the next sync.
            asked.upto = rows.last().map(place);
            let vault = self.setup.vault();
            let lost = rows.iter().map(|row| (row.record, incomplete(vault, row)));
            events.extend(lost.map(|(record, error)| Event::StillWanted { record, error }));
        }
        self.write(ops, Then::Rest { events }, out);
        Ok(())
    }
}

fn incomplete(vault: VaultId, row: &RecordRow) -> EngineError {
    EngineError::Incomplete { vault, seq: row.seq, record: row.record }
}

fn place(row: &RecordRow) -> (Seq, RecordId) {
    (row.seq, row.record)
}
