//! Getting the envelopes of what was verified: the state at first, single ones where it lacks them.

use super::{Doing, Then, VaultEngine};
use crate::effect::{Effect, Env, Request};
use crate::error::EngineError;
use crate::pull::Pull;
use crate::replica::{RecordRow, Replica, Result};
use lockstep_proto::api::vault::Entry;
use lockstep_proto::limits;

impl VaultEngine {
    pub(super) fn ask_state(&mut self, pull: Box<Pull>, out: &mut Vec<Effect>) {
        let request = Request::State { after: pull.after(), upto: pull.upto(), from: pull.last_place() };
        self.send(request, Doing::State(pull), out);
    }

    pub(super) fn state_page(
        &mut self,
        replica: &dyn Replica,
        mut pull: Box<Pull>,
        entries: Vec<Entry>,
        more: bool,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        let before = pull.last_place();
        pull.take(replica, &self.setup, entries)?;
        if more && pull.last_place() == before {
            return Err(EngineError::server(
                "it promises more entries and sends none of those that were asked for",
            ));
        }
        if pull.is_complete() || (!more && pull.missing(replica)?.is_empty()) {
            return self.finish_pull(replica, *pull, out);
        }
        if !more {
            return self.ask_missing(replica, pull, out);
        }
        // Envelopes do not wait in memory: they are staged, invisible until the round is whole.
        let ops = pull.stage();
        self.write(ops, Then::State(pull), out);
        Ok(())
    }

    pub(super) fn ask_missing(
        &mut self,
        replica: &dyn Replica,
        mut pull: Box<Pull>,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        let places = pull.missing(replica)?;
        self.send(Request::Envelopes { places }, Doing::Missing(pull), out);
        Ok(())
    }

    pub(super) fn missing(
        &mut self,
        replica: &dyn Replica,
        mut pull: Box<Pull>,
        entries: Vec<Entry>,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        if entries.is_empty()
            && let Some((seq, record)) = pull.missing(replica)?.first().copied()
        {
            if pull.has_more() || self.gaps {
                // It may have been replaced since, and its envelope lost when the server was healed; if not, the last
                // round asks for it.
                return self.finish_pull(replica, *pull, out);
            }
            return Err(EngineError::Incomplete { vault: self.setup.vault(), seq, record });
        }
        pull.take(replica, &self.setup, entries)?;
        if pull.missing(replica)?.is_empty() {
            return self.finish_pull(replica, *pull, out);
        }
        let ops = pull.stage();
        self.write(ops, Then::Missing(pull), out);
        Ok(())
    }

    pub(super) fn finish_pull(
        &mut self,
        replica: &dyn Replica,
        pull: Pull,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        let more = pull.has_more();
        let (ops, events) = pull.finish(replica, &self.setup)?;
        self.write(ops, Then::Pulled { events, more }, out);
        Ok(())
    }

    pub(super) fn fill_or_push(
        &mut self,
        replica: &dyn Replica,
        env: &mut Env<'_>,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        let absent = replica.absent(limits::PAGE_ENTRIES_MAX)?;
        if absent.is_empty() {
            return self.build(replica, env, out);
        }
        let places = absent.iter().map(|row| (row.seq, row.record)).collect();
        self.send(Request::Envelopes { places }, Doing::Fill(absent), out);
        Ok(())
    }

    pub(super) fn fill(
        &mut self,
        replica: &dyn Replica,
        env: &mut Env<'_>,
        rows: &[RecordRow],
        entries: Vec<Entry>,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        let vault = self.setup.vault();
        let first = rows.first().ok_or(EngineError::server("nothing was asked"))?;
        if entries.is_empty() {
            if self.gaps {
                let (ops, events) = crate::pull::without(replica, &self.setup)?;
                if ops.is_empty() {
                    return self.build(replica, env, out);
                }
                self.write(ops, Then::Filled { events }, out);
                return Ok(());
            }
            return Err(EngineError::Incomplete { vault, seq: first.seq, record: first.record });
        }
        let (ops, events) = crate::pull::fill(replica, &self.setup, rows, entries)?;
        self.write(ops, Then::Filled { events }, out);
        Ok(())
    }
}
