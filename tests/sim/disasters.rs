//! Devices that are set back, doubled or lost. Whoever meets a commit of its own that it does not remember gets a new
//! identity, as the client's `login` gives it: replica and pending writes stay.

use crate::dice::{Draws, generator};
use crate::fixture::{DEVICES, FIXTURE, SPARES};
use crate::replica::MemReplica;
use crate::world::{Device, World};
use lockstep_engine::VaultEngine;
use lockstep_engine::effect::Input;
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::id::Seq;
use std::sync::Arc;

const DISASTERS_AT_MOST: usize = 4;

/// A device's disk and memory at a moment.
pub(crate) struct Snapshot {
    device: usize,
    identity: usize,
    replica: MemReplica,
    log: Arc<DeviceLog>,
    has_later_key: bool,
    nonces: Draws,
}

impl World {
    /// Whether one more device can be doubled or lost: each takes a new identity in the end.
    pub(crate) fn has_spares(&self) -> bool {
        self.ledger.disasters < DISASTERS_AT_MOST && self.joined < SPARES
    }

    /// Remembers a device as it is, but for what is not synced.
    pub(crate) fn photograph(&self, index: usize) -> Option<Snapshot> {
        let device = &self.devices[index];
        device.unsynced.is_empty().then(|| Snapshot {
            device: index,
            identity: device.identity,
            replica: device.replica.clone(),
            log: device.log.clone(),
            has_later_key: device.has_later_key,
            nonces: device.nonces,
        })
    }

    /// Sets a device back.
    pub(crate) fn restore(&mut self, snapshot: Snapshot) {
        let index = snapshot.device;
        self.say(|| format!("device {index} is restored from a snapshot"));
        let device = &mut self.devices[index];
        let given_up = std::mem::replace(&mut device.replica, snapshot.replica);
        device.identity = snapshot.identity;
        device.log = snapshot.log;
        device.has_later_key = snapshot.has_later_key;
        device.nonces = snapshot.nonces;
        self.ledger.set_back(index, &given_up, &device.replica, FIXTURE.devices[snapshot.identity].id());
        self.restart(index);
    }

    /// A device goes on twice.
    pub(crate) fn double(&mut self, index: usize) {
        let Some(snapshot) = self.photograph(index) else { return };
        let copy = self.devices.len();
        self.say(|| format!("device {index} is cloned: device {copy}"));
        let mut device = Device::new(self.seed, index, snapshot.log.clone());
        device.ids = generator(self.seed, 300 + copy as u64);
        self.devices.push(device);
        self.restore(Snapshot { device: copy, ..snapshot });
    }

    /// A device loses everything and joins again.
    pub(crate) fn wipe(&mut self, index: usize) {
        self.say(|| format!("device {index} loses everything"));
        let device = &mut self.devices[index];
        let given_up = std::mem::take(&mut device.replica);
        let identity = FIXTURE.devices[device.identity].id();
        self.ledger.set_back(index, &given_up, &device.replica, identity);
        self.join_again(index);
    }

    /// A device meets a commit of its own that it does not remember.
    pub(crate) fn met_a_copy(&mut self, index: usize, seq: Seq) {
        let identity = FIXTURE.devices[self.devices[index].identity].id();
        let hash = self.server.commits[seq.value() as usize].2;
        if self.ledger.dropped.contains(&hash) {
            // A known limit (docs/RELIABILITY.md): it gave this commit up, and it arrived after all.
            self.ledger.count("own commit taken for a copy's");
            let pending = self.devices[index].replica.pending.iter();
            self.ledger.doubled.extend(pending.map(|row| row.operation));
        } else if !self.ledger.forked.contains(&identity) {
            return self.demand(Err(format!("device {index} takes itself for another at commit {seq}")));
        }
        self.ledger.count("copy met");
        if self.hooks.ends_clones && self.joined < SPARES {
            return self.join_again(index);
        }
        self.devices[index].replica.given_up.insert((seq, hash));
        self.restart(index);
    }

    fn join_again(&mut self, index: usize) {
        self.ledger.count("joined again");
        let identity = DEVICES + self.joined;
        self.joined += 1;
        if self.server.log.next_index() < FIXTURE.logs[identity].next_index() {
            self.server.log = FIXTURE.logs[identity].clone();
        }
        let device = &mut self.devices[index];
        device.identity = identity;
        device.engine = VaultEngine::new(device.setup(), device.log.clone());
        self.catch_up(index);
    }

    /// Everything that lasts ends; nobody is kept off.
    pub(crate) fn calm(&mut self) {
        self.yesterday = None;
        self.down_until_ms = 0;
        self.server.refuses_puts = false;
        for device in &mut self.devices {
            device.offline_until_ms = 0;
            device.disk_full_until_ms = 0;
        }
        for index in 0..self.devices.len() {
            self.soon(index, Input::Sync);
        }
    }
}
