//! Local writes without waiting: the engine answers them at once, and its write is carried out in the same call.

use crate::error::{ClientError, Result};
use crate::rng;
use crate::vault::{CLONED, Vault};
use lockstep_engine::{Effect, Env, Event, Input, NewRecord};
use lockstep_proto::id::OperationId;

impl Vault {
    /// Writes records durably here, as [`Self::put`] does; within [`crate::replica::Db::together`] as part of that.
    ///
    /// # Errors
    /// [`ClientError`]; nothing was written then.
    pub(crate) fn put_now(&mut self, records: Vec<NewRecord>) -> Result<Vec<OperationId>> {
        if self.replica.db().meta(CLONED)?.is_some() {
            return Err(ClientError::Cloned("noticed before".into()));
        }
        let mut generator = rng::system();
        let mut env = Env { utc_ms: rng::now_ms(), rng: &mut generator };
        let mut stored = Vec::new();
        let mut inputs = vec![Input::Put(records)];
        while let Some(input) = inputs.pop() {
            for effect in self.engine.step(&self.replica, &mut env, input) {
                match effect {
                    Effect::Write(id, ops) => {
                        self.replica.apply(&ops)?;
                        inputs.push(Input::Written(id));
                    }
                    Effect::Report(Event::Stored(operations)) => stored.extend(operations),
                    Effect::Report(Event::Stopped(error)) => return Err(error.into()),
                    Effect::Report(_) | Effect::Send(..) => {}
                }
            }
        }
        Ok(stored)
    }
}
