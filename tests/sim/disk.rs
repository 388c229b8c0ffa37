//! Disks: writes that are carried out, that fail, that are torn, and that a crash swallows.

use crate::faults::Fault;
use crate::replica::MemReplica;
use crate::trace;
use crate::undo::hash_before;
use crate::world::{Moment, Occurrence, World};
use lockstep_engine::effect::{Event, Input};
use lockstep_engine::replica::WriteOp;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::Commit;
use lockstep_proto::id::OperationId;

impl World {
    pub(crate) fn write(&mut self, index: usize, id: u64, ops: Vec<WriteOp>) {
        self.effects += 1;
        let ops = (self.hooks.write)(ops);
        if self.crashes(index, Moment::Before) {
            if !self.hooks.is_atomic {
                let half = &ops[..ops.len() / 2];
                let result =
                    self.devices[index].replica.apply(half).and_then(|_| self.ledger.wrote(index, half));
                self.demand(result);
            }
            return;
        }
        if self.fails(index, &ops) {
            return;
        }
        let device = &mut self.devices[index];
        if let ([WriteOp::DropInFlight, ..], Some(in_flight)) = (&ops[..], &device.replica.in_flight)
            && !ops.iter().any(|op| matches!(op, WriteOp::AddCommit { .. }))
        {
            self.ledger.dropped.insert(Commit::hash_of(&in_flight.commit.bytes.0));
        }
        let links = check_links(&device.replica, &ops);
        let mut result = links.and_then(|()| self.ledger.wrote(index, &ops));
        match device.replica.apply(&ops) {
            Ok(undo) => device.unsynced.push((id, undo, added(&ops))),
            Err(what) => result = result.and(Err(what)),
        }
        self.say(|| format!("device {index} writes {id}: {}", trace::of_write(&ops)));
        self.demand(result);
        if self.crashes(index, Moment::After) {
            return;
        }
        self.tell(index, id);
    }

    /// Says in a while that a write was carried out.
    fn tell(&mut self, device: usize, id: u64) {
        let delay = if self.faults.delay_ms_max > 1 { self.dice.below(20) } else { 0 };
        let incarnation = self.devices[device].incarnation;
        let input = Input::Written(id);
        self.later(delay, Occurrence::Give { device, incarnation, input, lie: None });
    }

    /// Whether the disk does not take a write.
    fn fails(&mut self, index: usize, ops: &[WriteOp]) -> bool {
        if self.now_ms < self.devices[index].disk_full_until_ms || self.strikes(Fault::DiskFull) {
            self.say(|| format!("device {index}: the disk is full"));
            if self.dice.chance(200) {
                self.devices[index].disk_full_until_ms = self.now_ms + self.dice.below(4000);
            }
            // As the adapter does: the error goes to the app, and the engine is made anew.
            self.restart(index);
            if !self.hooks.reports_full_disk {
                let told = Event::Stored(added(ops));
                let result = self.ledger.wrote(index, ops).and_then(|()| self.ledger.reported(&told));
                self.demand(result);
            }
            return true;
        }
        if self.strikes(Fault::TornWrite) {
            let replica = &mut self.devices[index].replica;
            let before = replica.clone();
            let torn = replica.apply(&ops[..ops.len().div_ceil(2)]);
            let is_whole = torn.map(|undo| undo.back(replica)).map(|()| *replica == before);
            self.demand(match is_whole {
                Ok(false) => Err("a torn write leaves something".into()),
                other => other.map(drop),
            });
            self.crash(index);
            return true;
        }
        false
    }

    /// A write and those before it are on the disk.
    pub(crate) fn synced(&mut self, index: usize, id: u64) {
        let device = &mut self.devices[index];
        let Some(place) = device.unsynced.iter().position(|(known, ..)| *known == id) else { return };
        let told = device.unsynced.drain(..=place).next_back();
        device.told = told.filter(|_| !self.hooks.is_durable).map(|(_, undo, added)| (undo, added));
    }

    /// Ends a device's process and starts it again over what is durable.
    pub(crate) fn crash(&mut self, index: usize) {
        self.say(|| format!("device {index} crashes"));
        let mut lost = Vec::new();
        let unsynced = self.devices[index].unsynced.len();
        if !self.hooks.is_durable {
            lost = self.devices[index].unsynced.drain(..).collect();
            lost.extend(self.devices[index].told.take().map(|(undo, added)| (0, undo, added)));
            lost.rotate_right(1);
        } else if unsynced > 0 && self.strikes(Fault::Unsynced) {
            let kept = self.dice.index(unsynced);
            lost = self.devices[index].unsynced.drain(kept..).collect();
        }
        for (_, undo, added) in lost.into_iter().rev() {
            let replica = &mut self.devices[index].replica;
            undo.back(replica);
            let clock = replica.clock;
            if self.hooks.is_durable {
                self.ledger.unwrote(index, &added, clock);
            }
        }
        self.restart(index);
    }
}

/// Invariant 8: what becomes the chain follows what was the chain.
fn check_links(replica: &MemReplica, ops: &[WriteOp]) -> Result<(), String> {
    let mut last = None;
    for op in ops {
        let WriteOp::AddCommit { seq, hash, commit, .. } = op else { continue };
        let signed = Commit::decode(&commit.bytes.0).map_err(|error| error.to_string())?;
        let before = last.or_else(|| hash_before(replica, *seq));
        if before.is_some_and(|before| before != signed.previous) {
            return Err(format!("commit {seq} does not follow what was verified"));
        }
        last = Some(*hash);
    }
    Ok(())
}

/// Operations that a write makes durable.
fn added(ops: &[WriteOp]) -> Vec<OperationId> {
    let rows = ops.iter().filter_map(|op| match op {
        WriteOp::AddPending(row) => Some(row.operation),
        _ => None,
    });
    rows.collect()
}
