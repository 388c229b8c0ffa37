//! What goes between devices and server, and what happens to it on the way.

use crate::dice::Dice;
use crate::faults::Fault;
use crate::server::ModelServer;
use crate::tamper::flip;
use crate::trace;
use crate::world::{Lie, Occurrence, World};
use lockstep_engine::effect::{Answer, Failure, Input, Request};
use lockstep_proto::api::vault::{Entry, Page};

/// When a device gives up waiting for an answer.
const TIMEOUT_MS: u64 = 2000;

type Answered = Result<Answer, Failure>;

impl World {
    /// Lets time pass.
    pub(crate) fn pass(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while self.failure.is_none()
            && let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= until
        {
            self.now_ms = entry.key().0;
            let occurrence = entry.remove();
            self.happen(occurrence);
        }
        self.now_ms = until;
    }

    /// Lets everything that is under way come to its end; at most so many occurrences.
    pub(crate) fn drain(&mut self, at_most: usize) {
        for _ in 0..at_most {
            let Some(((at, _), occurrence)) = self.queue.pop_first() else { return };
            self.now_ms = self.now_ms.max(at);
            self.happen(occurrence);
            if self.failure.is_some() {
                return;
            }
        }
        self.demand(Err("it does not come to rest".into()));
    }

    pub(crate) fn later(&mut self, delay_ms: u64, occurrence: Occurrence) {
        self.ticket += 1;
        self.queue.insert((self.now_ms + delay_ms, self.ticket), occurrence);
    }

    /// Gives a device, as it runs now, an input in a moment.
    pub(crate) fn soon(&mut self, device: usize, input: Input) {
        let incarnation = self.devices[device].incarnation;
        self.later(1, Occurrence::Give { device, incarnation, input, lie: None });
    }

    pub(crate) fn transmit(&mut self, device: usize, id: u64, request: &Request) {
        let incarnation = self.devices[device].incarnation;
        let input = Input::Answered(id, Err(Failure::Later("no answer".into())));
        self.later(TIMEOUT_MS, Occurrence::Give { device, incarnation, input, lie: None });
        if self.now_ms < self.devices[device].offline_until_ms || self.strikes(Fault::RequestLost) {
            return;
        }
        let copies = if self.strikes(Fault::Duplicated) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = self.delay();
            self.later(delay, Occurrence::Serve { device, incarnation, id, request: request.clone() });
        }
    }

    fn delay(&mut self) -> u64 {
        let delay = self.dice.below(self.faults.delay_ms_max);
        if self.strikes(Fault::Late) { delay + TIMEOUT_MS } else { delay }
    }

    fn happen(&mut self, occurrence: Occurrence) {
        match occurrence {
            Occurrence::Give { device, incarnation, input, lie } => {
                if self.devices[device].incarnation == incarnation {
                    self.arrive(device, &input, lie);
                    self.input(device, input);
                }
            }
            Occurrence::Break { device, incarnation, id } => {
                let to = &self.devices[device];
                if to.incarnation == incarnation && to.awaits == Some(id) {
                    self.say(|| format!("device {device}: the answer to {id} ends in the middle"));
                    self.restart(device);
                }
            }
            Occurrence::Serve { device, incarnation, id, request } => {
                if self.now_ms >= self.down_until_ms {
                    self.serve(device, incarnation, id, &request);
                }
            }
        }
    }

    /// An input reaches a device: if it is the answer that it waits for, lies of it count from here.
    fn arrive(&mut self, index: usize, input: &Input, lie: Option<Lie>) {
        let Input::Answered(id, answer) = input else { return };
        let device = &mut self.devices[index];
        if device.awaits != Some(*id) {
            return;
        }
        device.awaits = None;
        if let Ok(Answer::DeviceLog(log)) = answer
            && log.next_index() > device.log.next_index()
        {
            // The adapter keeps the log before it hands it on.
            device.log = log.clone();
        }
        device.lied_to |= lie.is_some();
        device.must_notice |= lie == Some(Lie::Behind);
    }

    fn serve(&mut self, device: usize, incarnation: u64, id: u64, request: &Request) {
        let is_push = matches!(request, Request::Push(_));
        if self.strikes(Fault::ServerError) {
            let input = Input::Answered(id, Err(Failure::Later("503".into())));
            return self.give_back(device, incarnation, input, None);
        }
        if is_push && self.strikes(Fault::ServerRestart) {
            return self.restart_server(request);
        }
        let (answer, is_old) = match &mut self.yesterday {
            // What it has forgotten would be written on: whoever writes hears nothing.
            Some((until, _)) if self.now_ms < *until && is_push => return,
            Some((until, old)) if self.now_ms < *until => (old.serve(request), true),
            _ => (self.serve_honestly(request), false),
        };
        self.say(|| format!("server to device {device}, {id}: {}", trace::of_answer(&answer)));
        if matches!(answer, Ok(Answer::HeadMoved(_))) {
            self.ledger.count("head moved");
        }
        let is_planned = is_push && self.lose_answers > 0;
        if is_planned || self.strikes(Fault::AnswerLost) {
            self.lose_answers = self.lose_answers.saturating_sub(u64::from(is_push));
            if is_planned {
                self.ledger.count(Fault::AnswerLost.name());
            }
            return;
        }
        if self.strikes(Fault::ErrorAfter) {
            let input = Input::Answered(id, Err(Failure::Later("500".into())));
            return self.give_back(device, incarnation, input, None);
        }
        if self.strikes(Fault::ShortBody) {
            let delay = self.delay();
            return self.later(delay, Occurrence::Break { device, incarnation, id });
        }
        let is_behind = match (request, &answer) {
            (Request::Commits { after: Some(after) }, Ok(Answer::Page(page))) => page.head_seq < *after,
            _ => false,
        };
        let mut lie = is_old.then_some(if is_behind { Lie::Behind } else { Lie::Yesterday });
        let mut answer = answer.map(|answer| (self.hooks.answer)(request, answer));
        if self.strikes(Fault::Tampered) && tamper(&mut answer, &mut self.dice) {
            lie = Some(Lie::Tampered);
        }
        self.give_back(device, incarnation, Input::Answered(id, answer), lie);
    }

    fn give_back(&mut self, device: usize, incarnation: u64, input: Input, lie: Option<Lie>) {
        let delay = self.delay();
        self.later(delay, Occurrence::Give { device, incarnation, input, lie });
    }

    fn serve_honestly(&mut self, request: &Request) -> Answered {
        let epoch = self.server.tip.epoch;
        let answer = (self.hooks.serve)(&mut self.server, request);
        if self.server.tip.epoch > epoch {
            self.ledger.count("rotated");
        }
        answer
    }

    /// The server is killed in the middle of a push: it was applied or not, and what was staged is there or not.
    fn restart_server(&mut self, request: &Request) {
        let (applied, kept) = (self.dice.chance(500), self.dice.chance(500));
        self.say(|| format!("the server is killed; the push was applied: {applied}; staging kept: {kept}"));
        let is_honest = self.yesterday.as_ref().is_none_or(|(until, _)| self.now_ms >= *until);
        if applied && is_honest {
            let answer = self.serve_honestly(request);
            drop(answer);
        }
        if !kept {
            self.server.staged.clear();
        }
        self.down_until_ms = self.now_ms + self.dice.below(3000);
    }

    /// The server shows an old state for a while.
    pub(crate) fn roll_back(&mut self, old: ModelServer, ms: u64) {
        self.say(|| format!("the server shows what it was at commit {}", old.tip.seq));
        self.yesterday = Some((self.now_ms + ms, old));
    }
}

/// Makes an answer wrong, if there is anything in it.
fn tamper(answer: &mut Answered, dice: &mut Dice) -> bool {
    match answer {
        Ok(Answer::Page(page) | Answer::HeadMoved(page)) => {
            if dice.chance(500) && tamper_entries(&mut page.entries, dice) {
                return true;
            }
            tamper_page(page, dice)
        }
        Ok(Answer::Entries(entries, _)) => tamper_entries(entries, dice),
        _ => false,
    }
}

fn tamper_page(page: &mut Page, dice: &mut Dice) -> bool {
    if page.commits.is_empty() {
        return false;
    }
    let place = dice.index(page.commits.len());
    let entry = &mut page.commits[place];
    let bytes: &mut [u8] = match (dice.below(4), &mut entry.changes) {
        (0, _) => &mut entry.commit.bytes.0,
        (1, _) => &mut entry.commit.signature.0,
        (2, Some(changes)) => &mut changes.0,
        _ => {
            page.commits.remove(place);
            return true;
        }
    };
    let bit = dice.index(bytes.len() * 8);
    flip(bytes, bit);
    true
}

fn tamper_entries(entries: &mut Vec<Entry>, dice: &mut Dice) -> bool {
    if entries.is_empty() {
        return false;
    }
    let place = dice.index(entries.len());
    match dice.below(3) {
        0 => {
            let bit = dice.index(entries[place].envelope.0.len() * 8);
            flip(&mut entries[place].envelope.0, bit);
        }
        1 => drop(entries.remove(place)),
        _ => {
            let other = dice.index(entries.len());
            if other == place {
                return false;
            }
            let envelope = entries[place].envelope.clone();
            entries[place].envelope = std::mem::replace(&mut entries[other].envelope, envelope);
        }
    }
    true
}
