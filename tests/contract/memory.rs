//! What a page costs, and a segment on its way to a bucket. Peak memory is the whole process's, so each probe runs alone, in a process
//! of its own.

use crate::chain::{Chain, Op, record};
use crate::folder::Folder;
use crate::objects::settings;
use crate::world::World;
use bytes::Bytes;
use lockstep_proto::limits::{ENVELOPE_BYTES_MAX, MIB};
use lockstep_server::objects::Objects as _;
use lockstep_server::objects::s3::S3Objects;
use lockstep_server::store::sqlite::SqliteStore;
use lockstep_server::store::{EntryQuery, SegmentId, Store, VaultKey};
use lockstep_tests::s3::S3;
use std::process::Command;

/// Room for one page, its rows, and the database's cache: the server's whole budget is 16 MiB.
const GROWTH_BYTES_MAX: u64 = 24 * MIB as u64;
const RECORDS: u64 = 48;

fn status_bytes(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// How far the peak rises above what is held now, in bytes.
async fn growth(work: impl Future<Output = ()>) -> u64 {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status_bytes("VmRSS:");
    work.await;
    status_bytes("VmHWM:").saturating_sub(before)
}

async fn large_vault(store: &SqliteStore) -> (VaultKey, Chain) {
    let world = World::new(1);
    store.register(world.registration("name")).await.unwrap();
    let key = store.vault(world.account, world.keyring()).await.unwrap().unwrap().key;
    let mut chain = Chain::of(&world, world.keyring());
    for number in 0..RECORDS {
        let op = Op::Put(record(number), ENVELOPE_BYTES_MAX - 400, Vec::new());
        let prepared = chain.draft(&world.author, &[op]).prepare(&world.author);
        store.apply_commit(world.account, key, prepared.clone()).await.unwrap();
        chain.follow(&prepared);
    }
    (key, chain)
}

async fn probe() {
    let folder = Folder::new();
    let store = SqliteStore::open(&folder.path().join("test.sqlite")).await.unwrap();
    let (key, chain) = large_vault(&store).await;
    let upto = chain.seq();
    drop(chain);
    let query = EntryQuery { after: None, upto, from: None, current_only: false, bytes_max: 4 * MIB };
    let grown = growth(async {
        let (page, more) = store.entries(key, query).await.unwrap();
        assert!(more && page.len() == 4);
    })
    .await;
    store.close().await;
    println!("grown by {grown} bytes");
    assert!(grown <= GROWTH_BYTES_MAX, "a page of 4 MiB took {} MiB", grown / MIB as u64);
}

const PROBE: &str = "LOCKSTEP_TEST_MEMORY_PROBE";

/// Starts a test again in a process of its own, which does the measuring.
fn measure(test: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(PROBE, "1")
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("grown by"), "the probe ran: {said}");
    assert!(output.status.success(), "{said}");
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_page_of_entries_costs_a_page_of_memory() {
    if std::env::var_os(PROBE).is_some() {
        return probe().await;
    }
    measure("memory::a_page_of_entries_costs_a_page_of_memory");
}

/// The S3 server of the tests runs in the same process and keeps next to nothing.
async fn probe_writer() {
    const SEGMENT_BYTES: usize = 64 * MIB;
    const CHUNK_BYTES: usize = 64 * 1024;
    let folder = Folder::new();
    let s3 = S3::start(folder.path());
    let objects = S3Objects::open(&settings(&s3)).await.unwrap();
    let mut writer = objects.create(SegmentId([1; 16])).await.unwrap();
    let grown = growth(async {
        for _ in 0..SEGMENT_BYTES / CHUNK_BYTES {
            writer.write(Bytes::from(vec![7; CHUNK_BYTES])).await.unwrap();
        }
        writer.finish().await.unwrap();
    })
    .await;
    println!("grown by {grown} bytes");
    let most = objects.writer_bytes() + 6 * MIB;
    assert!(grown <= most as u64, "a segment of 64 MiB took {} MiB", grown / MIB as u64);
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_segment_on_its_way_to_a_bucket_costs_a_part_of_memory() {
    if std::env::var_os(PROBE).is_some() {
        return probe_writer().await;
    }
    measure("memory::a_segment_on_its_way_to_a_bucket_costs_a_part_of_memory");
}
