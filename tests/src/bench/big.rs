//! A vault of very many documents.

use super::Plan;
use super::alone::{nothing, rate};
use super::device::{Device, records};
use super::figures::{line, row};
use super::server::Server;
use std::path::Path;
use std::time::Instant;

/// Documents that are put together while the vault is built.
const BATCH: usize = 20_000;

pub(super) fn measure(plan: &Plan, folder: &Path, server: &Server) {
    if plan.big == 0 {
        return;
    }
    let (mut total, count) = (plan.big, plan.documents);
    let mut writer = Device::first(&folder.join("writer"), &server.origin, "big", "big");
    writer.sync();
    let begin = Instant::now();
    let mut from = 0;
    while from < total {
        let batch = BATCH.min(total - from);
        writer.put(records(from, batch));
        writer.sync();
        from += batch;
    }
    line(&format!("{:52} {:10.0} /s", format!("{total} documents: put and push"), rate(total, begin)));
    let mut reader = Device::another(&folder.join("reader"), &server.origin, "big", "big");
    let begin = Instant::now();
    reader.pull();
    line(&format!("{:52} {:10.0} /s", "pull them all on a new device", rate(total, begin)));
    reader.check(total);
    let (mut put, mut push, mut pull) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.runs {
        let new = records(total, count);
        let begin = Instant::now();
        writer.put(new);
        put.push(rate(count, begin));
        let begin = Instant::now();
        writer.sync();
        push.push(rate(count, begin));
        let begin = Instant::now();
        reader.pull();
        pull.push(rate(count, begin));
        total += count;
    }
    reader.check(total);
    row(&format!("put {count} more"), &put, "/s");
    row(&format!("push {count} more, all confirmed"), &push, "/s");
    row("pull them on the other device", &pull, "/s");
    nothing(&mut reader, &format!("nothing new: a pull, {total} documents"));
}
