//! One device that writes, another that reads.

use super::Plan;
use super::device::{Device, document, record, records};
use super::figures::{row, waits};
use super::server::Server;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Changes of one document that are timed.
const CHANGES: usize = 200;
/// Between two of them: somebody who types.
const PAUSE: Duration = Duration::from_millis(30);

pub(super) fn ms(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1000.0
}

pub(super) fn rate(count: usize, begin: Instant) -> f64 {
    count as f64 / begin.elapsed().as_secs_f64()
}

/// Push and pull of documents; gives the median of the pushes.
pub(super) fn throughput(plan: &Plan, folder: &Path, server: &Server) -> f64 {
    let (count, origin) = (plan.documents, &server.origin);
    let (mut put, mut push, mut pull) = (Vec::new(), Vec::new(), Vec::new());
    let mut writer = Device::first(&folder.join("writer"), origin, "alone", "run-0");
    for run in 0..plan.runs {
        writer.open(&format!("run-{run}"));
        writer.sync();
        let new = records(0, count);
        let begin = Instant::now();
        writer.put(new);
        put.push(rate(count, begin));
        let begin = Instant::now();
        writer.sync();
        push.push(rate(count, begin));
        let home = folder.join(format!("reader-{run}"));
        let mut reader = Device::another(&home, origin, "alone", &format!("run-{run}"));
        let begin = Instant::now();
        reader.pull();
        pull.push(rate(count, begin));
        reader.check(count);
        drop(reader);
        std::fs::remove_dir_all(home).unwrap();
    }
    row(&format!("put {count} documents, durable on the device"), &put, "/s");
    row(&format!("push {count}, all confirmed"), &push, "/s");
    row("pull them on a new device, stored and indexed", &pull, "/s");
    super::figures::median(&push)
}

/// How long nothing takes, and one change.
pub(super) fn latency(plan: &Plan, folder: &Path, server: &Server) {
    let mut writer = Device::first(&folder.join("writer"), &server.origin, "latency", "small");
    writer.put(records(0, 1000));
    writer.sync();
    nothing(&mut writer, "nothing new: a pull, 1,000 documents");
    changes(plan, &mut writer, &folder.join("reader"), server, "latency", "small", 1000);
}

pub(super) fn nothing(device: &mut Device, name: &str) {
    let mut taken = Vec::new();
    for _ in 0..CHANGES {
        let begin = Instant::now();
        device.pull();
        taken.push(ms(begin));
    }
    waits(name, &taken);
}

/// One document changes again and again, while another device listens.
fn changes(
    plan: &Plan,
    writer: &mut Device,
    folder: &Path,
    server: &Server,
    name: &str,
    vault: &str,
    documents: usize,
) {
    let (shown, is_shown) = mpsc::channel();
    let (origin, name, vault, folder) =
        (server.origin.clone(), name.to_owned(), vault.to_owned(), folder.to_owned());
    let changes = CHANGES.min(plan.documents);
    let reader = std::thread::spawn(move || {
        let mut reader = Device::another(&folder, &origin, &name, &vault);
        reader.pull();
        reader.check(documents);
        let (id, seq) =
            (reader.vault.setup().vault(), lockstep_engine::Replica::head(reader.vault.replica()));
        let seq = seq.unwrap().unwrap().tip.seq;
        let mut listener = reader.account.listener(BTreeMap::from([(id, seq)]));
        // The first look tells of other vaults.
        reader.block_on(listener.next()).unwrap();
        shown.send((0, Instant::now(), Instant::now())).unwrap();
        let mut last = 0;
        while last < changes {
            let told = reader.block_on(listener.next()).unwrap();
            let at_server = Instant::now();
            if told.iter().any(|(vault, _)| *vault == id) {
                reader.pull();
                let document = reader.read(0).unwrap();
                last = usize::from_be_bytes(document[..8].try_into().unwrap());
                shown.send((last, at_server, Instant::now())).unwrap();
            }
        }
    });
    is_shown.recv().unwrap();
    let (mut durable, mut confirmed, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    for change in 1..=changes {
        let mut text = document(0);
        text[..8].copy_from_slice(&change.to_be_bytes());
        let begin = Instant::now();
        writer.put(vec![record(0, text)]);
        writer.send();
        confirmed.push(ms(begin));
        let (number, at_server, at) = is_shown.recv().unwrap();
        assert_eq!(number, change, "each change is shown");
        // A notice comes after the commit is durable.
        durable.push(at_server.duration_since(begin).as_secs_f64() * 1000.0);
        seen.push(at.duration_since(begin).as_secs_f64() * 1000.0);
        std::thread::sleep(PAUSE);
    }
    reader.join().unwrap();
    waits("one changed document, durable at the server", &durable);
    waits("the same, until its device has it confirmed", &confirmed);
    waits("the same, until the other device shows it", &seen);
}
