//! Many clients at once.

use super::Plan;
use super::alone::rate;
use super::device::{Device, record, records};
use super::figures::{line, median, row};
use super::server::Server;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::Instant;

/// Documents that each of many clients pushes.
const EACH: usize = 1000;

/// Every client has an account and a vault of its own, and all push at once.
pub(super) fn vaults(plan: &Plan, folder: &Path, server: &Server, single: f64) {
    if plan.clients == 0 {
        return;
    }
    let (clients, each) = (plan.clients, EACH.min(plan.documents));
    // Signing up is slow on purpose, and is not what is measured.
    for number in 0..clients {
        let name = format!("client-{number}");
        drop(Device::first(&folder.join(&name), &server.origin, &name, "vault-0"));
    }
    let mut totals = Vec::new();
    for run in 0..plan.runs {
        let barrier = Arc::new(Barrier::new(clients + 1));
        let threads: Vec<_> = (0..clients)
            .map(|number| {
                let (barrier, folder) = (Arc::clone(&barrier), folder.join(format!("client-{number}")));
                std::thread::spawn(move || {
                    let mut device = Device::again(&folder, &format!("vault-{run}"));
                    device.sync();
                    device.put(records(0, each));
                    barrier.wait();
                    device.sync();
                    device.check(each);
                })
            })
            .collect();
        barrier.wait();
        let begin = Instant::now();
        for thread in threads {
            thread.join().unwrap();
        }
        totals.push(rate(clients * each, begin));
    }
    row(&format!("{clients} clients at once, {each} documents each"), &totals, "/s");
    line(&format!("{:52} {:10.0} % of one client's", "", median(&totals) / single * 100.0));
}

/// Devices of one account that all write to one vault.
pub(super) fn one_vault(plan: &Plan, folder: &Path, server: &Server) {
    if plan.devices == 0 {
        return;
    }
    let (devices, commits) = (plan.devices, plan.commits);
    let homes: Vec<_> = (0..devices).map(|number| folder.join(format!("device-{number}"))).collect();
    for (number, home) in homes.iter().enumerate() {
        let join = if number == 0 { Device::first } else { Device::another };
        drop(join(home, &server.origin, "one-vault", "shared"));
    }
    let barrier = Arc::new(Barrier::new(devices));
    let threads: Vec<_> = homes
        .into_iter()
        .enumerate()
        .map(|(device, home)| {
            let barrier = Arc::clone(&barrier);
            std::thread::spawn(move || {
                let mut own = Device::again(&home, "shared");
                own.sync();
                barrier.wait();
                let begin = Instant::now();
                for commit in 0..commits {
                    let number = device * commits + commit;
                    own.put(vec![record(number, super::device::document(number))]);
                    own.send();
                }
                let taken = begin.elapsed().as_secs_f64();
                barrier.wait();
                own.pull();
                own.check(devices * commits);
                taken
            })
        })
        .collect();
    let taken: Vec<f64> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    row(&format!("{devices} devices, {commits} commits each, one vault"), &taken, "s");
    let (fastest, slowest) =
        (taken.iter().copied().fold(f64::MAX, f64::min), taken.iter().copied().fold(0.0, f64::max));
    line(&format!("{:52} {:10.2} slowest to fastest", "", slowest / fastest));
}
