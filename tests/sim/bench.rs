//! One engine without a network: every request is answered at once by whoever plays the server.

use crate::dice::generator;
use crate::fixture::FIXTURE;
use crate::replica::MemReplica;
use crate::server::{ModelServer, PageSizes};
use lockstep_engine::effect::{Answer, Effect, Env, Event, Failure, Input, NewRecord, Request};
use lockstep_engine::engine::VaultEngine;
use lockstep_engine::error::EngineError;
use lockstep_engine::read;
use lockstep_engine::replica::{Pinning, Policy};
use rand::rngs::ChaCha20Rng;
use std::collections::VecDeque;

/// More requests than any sync in here needs.
const SENDS_AT_MOST: usize = 200;

/// Pages that hold everything.
pub(crate) const ROOMY: PageSizes = PageSizes { commits: 100, inline: 100, state: 100, envelopes: 100 };
/// Pages that hold next to nothing.
pub(crate) const TIGHT: PageSizes = PageSizes { commits: 1, inline: 0, state: 1, envelopes: 1 };

/// A device at hand.
pub(crate) struct Desk {
    pub(crate) replica: MemReplica,
    pub(crate) engine: VaultEngine,
    rng: ChaCha20Rng,
    seals_ahead: bool,
    /// Its clock.
    pub(crate) utc_ms: u64,
}

impl Desk {
    /// A device of the fixture, before its first sync.
    pub(crate) fn new(device: usize) -> Self {
        Self::over(device, MemReplica::default(), 0)
    }

    /// A device over what it (or a copy of it) had before.
    pub(crate) fn over(device: usize, replica: MemReplica, life: u64) -> Self {
        let engine = VaultEngine::new(FIXTURE.setup(device), FIXTURE.log());
        Self { replica, engine, rng: generator(life, device as u64), seals_ahead: false, utc_ms: 1_000_000 }
    }

    /// Gives an input and answers every request until nothing is left to do.
    pub(crate) fn run(
        &mut self,
        input: Input,
        serve: &mut dyn FnMut(&Request) -> Result<Answer, Failure>,
    ) -> Vec<Event> {
        self.run_interrupted(input, serve, usize::MAX, Vec::new())
    }

    /// The same; while it waits for the answer to a commit it seals the next one.
    pub(crate) fn run_sealing_ahead(
        &mut self,
        input: Input,
        serve: &mut dyn FnMut(&Request) -> Result<Answer, Failure>,
    ) -> Vec<Event> {
        self.seals_ahead = true;
        let events = self.run(input, serve);
        self.seals_ahead = false;
        events
    }

    /// The same; before the answer to one of the requests, counted from 1, the app writes.
    pub(crate) fn run_interrupted(
        &mut self,
        input: Input,
        serve: &mut dyn FnMut(&Request) -> Result<Answer, Failure>,
        interrupted: usize,
        records: Vec<NewRecord>,
    ) -> Vec<Event> {
        let mut inputs = VecDeque::from([input]);
        let (mut events, mut sends, mut records) = (Vec::new(), 0, Some(records));
        while let Some(input) = inputs.pop_front() {
            let mut env = Env { utc_ms: self.utc_ms, rng: &mut self.rng };
            for effect in self.engine.step(&self.replica, &mut env, input) {
                match effect {
                    Effect::Report(event) => events.push(event),
                    Effect::Write(id, ops) => {
                        self.replica.apply(&ops).unwrap();
                        inputs.push_back(Input::Written(id));
                    }
                    Effect::Send(id, request) => {
                        sends += 1;
                        assert!(sends <= SENDS_AT_MOST, "the sync never ends");
                        if sends == interrupted {
                            inputs.extend(records.take().map(Input::Put));
                        }
                        if self.seals_ahead {
                            let mut env = Env { utc_ms: 1_000_000, rng: &mut self.rng };
                            self.engine.seal_ahead(&self.replica, &mut env);
                        }
                        inputs.push_back(Input::Answered(id, serve(&request)));
                    }
                }
            }
        }
        events
    }

    /// Syncs with an honest server.
    pub(crate) fn sync(&mut self, server: &mut ModelServer) -> Vec<Event> {
        let events = self.run(Input::Sync, &mut |request| server.serve(request));
        assert_eq!(events.last(), Some(&Event::Idle), "{events:?}");
        events
    }

    /// Writes notes, durable together.
    pub(crate) fn put(&mut self, records: Vec<NewRecord>) -> Vec<Event> {
        self.run(Input::Put(records), &mut |_| unreachable!("a put sends nothing"))
    }

    /// Document of a note as it stands here.
    pub(crate) fn read(&self, name: &str) -> Option<Vec<u8>> {
        let record = FIXTURE.keys.record_id(crate::plan::NOTE, name.as_bytes());
        let current = read::current(&self.replica, &FIXTURE.later_keys, record).unwrap();
        current.map(|current| current.content.document.0)
    }
}

/// A note; without a document, its deletion.
pub(crate) fn note(name: &str, document: Option<&[u8]>) -> NewRecord {
    NewRecord {
        record_type: crate::plan::NOTE.into(),
        name: name.as_bytes().to_vec(),
        schema: 1,
        document: document.map(<[u8]>::to_vec),
        blobs: Vec::new(),
        policy: Policy::KeepBoth,
        pin: Pinning::None,
        expected: None,
    }
}

/// What a sync stopped with.
pub(crate) fn stopped(events: &[Event]) -> EngineError {
    let error = events.iter().find_map(|event| match event {
        Event::Stopped(error) => Some(error.clone()),
        _ => None,
    });
    error.unwrap_or_else(|| panic!("the sync did not stop: {events:?}"))
}
