//! Which chain is followed: one that goes on from what was verified, past places that were pinned, and back where a
//! repair says so.

use super::{Doing, Then, VaultEngine};
use crate::bound::{self, Ahead, Place, Seen};
use crate::effect::{Effect, Env, Request};
use crate::error::EngineError;
use crate::pull::{Pull, Verdict};
use crate::repair::{self, Search};
use crate::replica::{Replica, Result, WriteOp};
use crate::seek::{Seek, Sought};
use lockstep_proto::api::vault::Page;
use lockstep_proto::device_log::Pin;

/// Looks ahead that a server gets between two rounds: more are needed by none whose chain stays the same.
const LOOKS_MAX: u32 = 64;

impl VaultEngine {
    pub(super) fn page(
        &mut self,
        replica: &dyn Replica,
        env: &mut Env<'_>,
        page: Page,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        let vault = self.setup.vault();
        let head = replica.head()?;
        if let Some(head) = &head
            && page.head_seq < head.tip.seq
        {
            let cause = EngineError::Rollback { vault, verified: head.tip.seq, server: page.head_seq };
            return self.seek(replica, cause, out);
        }
        if page.commits.is_empty() {
            let at_head = head.is_some_and(|head| head.tip.seq == page.head_seq);
            if page.more || !at_head {
                return Err(EngineError::server("it withholds commits that it says are there"));
            }
            if let Some((verified, _)) = replica.expected()? {
                return Err(EngineError::Rollback { vault, verified, server: page.head_seq });
            }
            return self.fill_or_push(replica, env, out);
        }
        let looked = &self.looked;
        let verified = match Pull::verify(replica, &self.setup, &self.devices, looked, env.utc_ms, &page) {
            Err(fork @ EngineError::Fork { .. }) if head.is_some() => return self.seek(replica, fork, out),
            Err(fault @ EngineError::Fault { .. }) => {
                let Some(search) = Search::new(replica)? else { return Err(fault) };
                return self.go_on_returning(replica, Box::new(search), page, fault, out);
            }
            other => other?,
        };
        let mut pull = match verified {
            Verdict::Round(pull) => pull,
            Verdict::NeedDevices => {
                self.send(Request::DeviceLog, Doing::Devices(Box::new(page)), out);
                return Ok(());
            }
            Verdict::LookAhead(place) => return self.look_ahead(replica, place, out),
        };
        pull.take(replica, &self.setup, page.entries)?;
        if pull.is_complete() {
            return self.finish_pull(replica, *pull, out);
        }
        self.ask_state(pull, out);
        Ok(())
    }

    /// Nothing is taken before it is seen that the chain leads to this place, or gives it up.
    pub(super) fn look_ahead(
        &mut self,
        replica: &dyn Replica,
        place: Place,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        self.looks = self.looks.saturating_add(1);
        if self.looks > LOOKS_MAX {
            return Err(EngineError::server("its chain is another one whenever it is looked at"));
        }
        let ahead = Ahead::new(replica, place)?;
        self.send(Request::Commits { after: ahead.after() }, Doing::Ahead(Box::new(ahead)), out);
        Ok(())
    }

    pub(super) fn seen(
        &mut self,
        replica: &dyn Replica,
        mut ahead: Box<Ahead>,
        page: &Page,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        let place = ahead.place();
        let seen = match ahead.take(&self.setup, &self.devices, page) {
            Err(EngineError::Rollback { .. } | EngineError::Fork { .. })
                if self.is_given_up_pin(replica, place)? =>
            {
                // Each is looked for once: that is no end in itself.
                if self.looked.passed_by.insert(place) {
                    self.looks = self.looks.saturating_sub(1);
                }
                return self.ask_commits(replica, out);
            }
            seen => seen?,
        };
        match seen {
            Seen::Ask(after) => self.send(Request::Commits { after }, Doing::Ahead(ahead), out),
            Seen::Passes(run) => {
                self.looked.run = run;
                self.ask_commits(replica, out)?;
            }
            Seen::GivenUp(repair, abandoned, run) => {
                self.looked.run = run;
                let ops = bound::follow(replica, place, repair, abandoned)?;
                self.write(ops, Then::Ahead, out);
            }
        }
        Ok(())
    }

    /// Whether a place is pinned, and was given up here without a repair that says so yet: who heals signs it next.
    fn is_given_up_pin(&self, replica: &dyn Replica, place: Place) -> Result<bool> {
        let (vault, (seq, head)) = (self.setup.vault(), place);
        let pin = Pin { vault, seq, head };
        Ok(self.setup.heals
            && self.pull_only
            && self.devices.pins().contains(&pin)
            && replica.expected()? != Some(place)
            && replica.gave_up(seq, head)?)
    }

    /// The server's chain does not pass through what was verified here: looks for a repair that says why.
    pub(super) fn seek(
        &mut self,
        replica: &dyn Replica,
        cause: EngineError,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        let Some(seek) = Seek::new(replica, cause.clone())? else { return Err(cause) };
        self.send(Request::Commits { after: seek.after() }, Doing::Seek(Box::new(seek)), out);
        Ok(())
    }

    pub(super) fn sought(
        &mut self,
        replica: &dyn Replica,
        mut seek: Box<Seek>,
        page: &Page,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        match seek.take(replica, &self.setup, &self.devices, page)? {
            Sought::Ask(after) => self.send(Request::Commits { after }, Doing::Seek(seek), out),
            Sought::GivenUp { shared, repair } => {
                let mut ops = repair::give_up(replica, shared, false)?;
                ops.push(WriteOp::SetExpected(Some(repair)));
                self.write(ops, Then::WentBack, out);
            }
        }
        Ok(())
    }

    /// A commit that does not count: behind it there may be a repair that says how the chain goes on.
    pub(super) fn go_on_returning(
        &mut self,
        replica: &dyn Replica,
        mut search: Box<Search>,
        page: Page,
        fault: EngineError,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        let more = page.more && !page.commits.is_empty();
        if let Some(found) = search.take(replica, &self.setup, &self.devices, page.commits)? {
            let mut ops = found.ops(replica)?;
            bound::arrived(replica, self.setup.vault(), &mut ops)?;
            self.write(ops, Then::WentBack, out);
            return Ok(());
        }
        if !more || search.is_at_its_end() {
            return Err(fault);
        }
        let after = Some(search.after());
        self.send(Request::Commits { after }, Doing::Return(search, fault), out);
        Ok(())
    }
}
