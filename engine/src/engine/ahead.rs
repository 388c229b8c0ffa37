//! What may be done before its turn: nothing of it changes what is sent or kept, but for when.

use super::{Doing, Phase, Then, VaultEngine};
use crate::effect::{Env, Event, Request};
use crate::push;
use crate::replica::{Replica, Result};

/// Up to so many pending writes are sent before the server is asked for what is new.
const PUSHED_FIRST_MAX: usize = 8;

/// Whether a commit is sent at once: a small change is there a round trip earlier, and if the head moved on the answer
/// brings the page that would have been asked for.
pub(super) fn may_push_first(replica: &dyn Replica) -> Result<bool> {
    let waiting = replica.pending(PUSHED_FIRST_MAX.saturating_add(1))?;
    Ok((1..=PUSHED_FIRST_MAX).contains(&waiting.len())
        && replica.head()?.is_some()
        && replica.in_flight()?.is_none()
        && replica.expected()?.is_none()
        && replica.absent(1)?.is_empty())
}

impl VaultEngine {
    /// The request for commits that follows the write which is being carried out, if one does: an adapter may send it
    /// before it has written, and give its answer when it is asked for.
    pub fn asks_next(&self) -> Option<Request> {
        let Phase::Writing { then: Then::Pulled { events, more: true }, .. } = &self.phase else {
            return None;
        };
        events.iter().rev().find_map(|event| match event {
            Event::Pulled { seq, .. } => Some(Request::Commits { after: Some(*seq) }),
            _ => None,
        })
    }

    /// Seals what the next commit will carry, while the adapter waits for the answer to a commit; does nothing at any other
    /// time. Whether an adapter calls it changes when the work is done, and nothing else.
    pub fn seal_ahead(&mut self, replica: &dyn Replica, env: &mut Env<'_>) {
        let Phase::Waiting { doing: Doing::Push(in_flight), .. } = &self.phase else { return };
        if self.deletions_only || !self.ahead.is_empty() {
            return;
        }
        let Ok(Some(head)) = replica.head() else { return };
        // What goes wrong here goes wrong again when the commit is built, and is told then.
        let sealed = push::seal_ahead(replica, &self.setup, head.tip.epoch, in_flight, env);
        if let Ok((rows, sealed)) = sealed {
            self.ahead = rows;
            self.made.extend(sealed);
        }
    }

    pub(super) fn forget_made(&mut self) {
        self.made.clear();
        self.staged.clear();
        self.ahead.clear();
    }
}
