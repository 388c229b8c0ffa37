//! The contract of blob storage: functions over `Arc<dyn Objects>`, run on a folder, on an S3 server in this
//! process, and with the feature `garage` on a bucket that the environment names.

use crate::folder::Folder;
use crate::world::{bytes_of, rng};
use bytes::Bytes;
use lockstep_server::error::StoreError;
use lockstep_server::objects::Objects;
use lockstep_server::objects::local::LocalObjects;
use lockstep_server::objects::s3::S3Objects;
use lockstep_server::objects::settings::{ObjectsAt, S3Settings};
use lockstep_server::store::SegmentId;
use lockstep_tests::s3::S3;
use std::future::Future;
use std::sync::Arc;

type AnyObjects = Arc<dyn Objects>;

async fn on_folder<F: Future<Output = ()>>(test: impl FnOnce(AnyObjects) -> F) {
    let folder = Folder::new();
    test(Arc::new(LocalObjects::open(&folder.path().join("objects")).unwrap())).await;
}

async fn on_s3<F: Future<Output = ()>>(test: impl FnOnce(AnyObjects) -> F) {
    let folder = Folder::new();
    let s3 = S3::start(folder.path());
    test(Arc::new(S3Objects::open(&settings(&s3)).await.unwrap())).await;
}

/// The settings of a bucket, as the server reads them.
pub(crate) fn read_settings(get: impl Fn(&str) -> Option<String>) -> S3Settings {
    let text = get("LOCKSTEP_OBJECTS").unwrap();
    let path_style = ("LOCKSTEP_S3_PATH_STYLE".to_owned(), get("LOCKSTEP_S3_PATH_STYLE"));
    match ObjectsAt::read("LOCKSTEP_OBJECTS", &text, path_style, &get).unwrap() {
        ObjectsAt::S3(settings) => *settings,
        ObjectsAt::Folder(folder) => panic!("{} is no bucket", folder.display()),
    }
}

pub(crate) fn settings(s3: &S3) -> S3Settings {
    let environment = s3.environment("some/prefix");
    read_settings(|name| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone()))
}

/// A prefix of its own for each test, in the bucket that `scripts/test --garage` started.
#[cfg(feature = "garage")]
async fn on_garage<F: Future<Output = ()>>(test: impl FnOnce(AnyObjects) -> F) {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let get = |name: &str| std::env::var(name).ok();
    let bucket = get("LOCKSTEP_TEST_S3_BUCKET").expect("LOCKSTEP_TEST_S3_BUCKET; use scripts/test --garage");
    let settings = read_settings(|name| match name {
        "LOCKSTEP_OBJECTS" => Some(format!("s3://{bucket}/test-{}-{number}", std::process::id())),
        "AWS_ENDPOINT_URL" => Some(get("LOCKSTEP_TEST_S3_ENDPOINT").expect("LOCKSTEP_TEST_S3_ENDPOINT")),
        other => get(other),
    });
    test(Arc::new(S3Objects::open(&settings).await.unwrap())).await;
}

macro_rules! suite {
    ($back_end:ident, $run:path, $($name:ident)+) => {
        mod $back_end {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { $run(super::$name).await })+
        }
    };
}

macro_rules! contract {
    ($back_end:ident, $run:path) => {
        suite! { $back_end, $run,
            ranges_are_read_as_written
            long_segments_are_read_as_written
            a_whole_segment_is_put_at_once
            fewer_bytes_than_asked_for_are_damage
            sizes_are_told
            nothing_is_visible_before_the_end
            what_is_given_up_leaves_nothing
            deleting_twice_is_fine
            segments_do_not_mix
            a_writer_keeps_within_what_it_says
        }
    };
}

contract! { local, super::on_folder }
contract! { s3, super::on_s3 }
#[cfg(feature = "garage")]
contract! { garage, super::on_garage }

const ONE: SegmentId = SegmentId([0x11; 16]);
const TWO: SegmentId = SegmentId([0x12; 16]);

/// Writes a segment in pieces of uneven sizes.
async fn write(objects: &AnyObjects, segment: SegmentId, bytes: &[u8]) {
    let mut writer = objects.create(segment).await.unwrap();
    let (mut rest, mut size) = (bytes, 1);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
        (rest, size) = (after, size * 3 + 1);
    }
    writer.finish().await.unwrap();
}

async fn ranges_are_read_as_written(objects: AnyObjects) {
    let bytes = bytes_of(&mut rng(1), 3_000_001);
    write(&objects, ONE, &bytes).await;
    for (start, size) in
        [(0, 1), (0, bytes.len()), (1, 524_288), (524_287, 2), (1_048_575, 3), (3_000_000, 1)]
    {
        let read = objects.read(ONE, start as u64, size as u64).await.unwrap();
        assert!(read == bytes[start..start + size], "{size} bytes from {start}");
    }
}

/// Lengths round the five MiB of a part of S3.
async fn long_segments_are_read_as_written(objects: AnyObjects) {
    const PART: usize = 5 << 20;
    for size in [PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 70_001] {
        let bytes = bytes_of(&mut rng(size as u64), size);
        write(&objects, ONE, &bytes).await;
        assert_eq!(objects.size(ONE).await.unwrap(), Some(size as u64));
        for start in [0, PART - 70_000, 2 * PART - 70_000, size - 70_000] {
            let wanted = &bytes[start.min(size)..(start + 140_000).min(size)];
            if !wanted.is_empty() {
                let read = objects.read(ONE, start as u64, wanted.len() as u64).await.unwrap();
                assert!(read == wanted, "{} bytes from {start} of {size}", wanted.len());
            }
        }
    }
}

async fn a_whole_segment_is_put_at_once(objects: AnyObjects) {
    let bytes = Bytes::from(bytes_of(&mut rng(2), 8 << 20));
    objects.put(ONE, bytes.clone()).await.unwrap();
    assert!(objects.read(ONE, 0, bytes.len() as u64).await.unwrap() == bytes);
    objects.put(TWO, Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(objects.read(TWO, 0, 1).await.unwrap(), "x");
}

async fn fewer_bytes_than_asked_for_are_damage(objects: AnyObjects) {
    write(&objects, ONE, &[7; 1000]).await;
    for (start, size) in [(0, 1001), (999, 2), (1000, 1), (5000, 1), (u64::MAX, 1), (1, u64::MAX)] {
        let error = objects.read(ONE, start, size).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt(_)), "{size} bytes from {start}: {error}");
    }
    let missing = objects.read(TWO, 0, 1).await.unwrap_err();
    assert!(matches!(missing, StoreError::Corrupt("a segment is missing")), "{missing}");
}

async fn sizes_are_told(objects: AnyObjects) {
    assert_eq!(objects.size(ONE).await.unwrap(), None);
    for size in [1_usize, 1000, 600_000] {
        write(&objects, ONE, &vec![7; size]).await;
        assert_eq!(objects.size(ONE).await.unwrap(), Some(size as u64));
    }
    assert_eq!(objects.size(TWO).await.unwrap(), None);
    objects.delete(ONE).await.unwrap();
    assert_eq!(objects.size(ONE).await.unwrap(), None);
}

async fn nothing_is_visible_before_the_end(objects: AnyObjects) {
    for size in [2_000_000, 12_000_000] {
        let mut writer = objects.create(ONE).await.unwrap();
        writer.write(Bytes::from(vec![7; size])).await.unwrap();
        assert!(objects.read(ONE, 0, 1).await.is_err());
        assert_eq!(objects.size(ONE).await.unwrap(), None);
        writer.finish().await.unwrap();
        assert_eq!(objects.read(ONE, size as u64 - 1, 1).await.unwrap()[..], [7]);
        objects.delete(ONE).await.unwrap();
    }
}

async fn what_is_given_up_leaves_nothing(objects: AnyObjects) {
    for size in [2_000_000, 12_000_000] {
        let mut writer = objects.create(ONE).await.unwrap();
        writer.write(Bytes::from(vec![7; size])).await.unwrap();
        writer.abort().await;
        assert_eq!(objects.size(ONE).await.unwrap(), None);
        let mut writer = objects.create(TWO).await.unwrap();
        writer.write(Bytes::from(vec![7; size])).await.unwrap();
        drop(writer);
        assert_eq!(objects.size(TWO).await.unwrap(), None, "a writer that was dropped");
    }
    write(&objects, ONE, &[8; 10]).await;
    assert_eq!(objects.read(ONE, 0, 10).await.unwrap()[..], [8; 10], "its name is free");
    drop(objects.create(TWO).await.unwrap());
    assert!(objects.read(TWO, 0, 1).await.is_err(), "a writer that was dropped");
}

async fn deleting_twice_is_fine(objects: AnyObjects) {
    write(&objects, ONE, &[7; 10]).await;
    write(&objects, TWO, &[8; 10]).await;
    for _ in 0..2 {
        objects.delete(ONE).await.unwrap();
        assert!(objects.read(ONE, 0, 1).await.is_err());
    }
    assert_eq!(objects.read(TWO, 0, 10).await.unwrap()[..], [8; 10]);
}

async fn segments_do_not_mix(objects: AnyObjects) {
    let tasks: Vec<_> = (0..16_u8)
        .map(|number| {
            let objects = Arc::clone(&objects);
            tokio::spawn(
                async move { write(&objects, SegmentId([number; 16]), &vec![number; 600_000]).await },
            )
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for number in 0..16_u8 {
        let read = objects.read(SegmentId([number; 16]), 0, 600_000).await.unwrap();
        assert!(read.iter().all(|byte| *byte == number));
    }
}

async fn a_writer_keeps_within_what_it_says(objects: AnyObjects) {
    assert!(objects.writer_bytes() > 0);
    // A part of S3 has 5 MiB at least; of two writers of whole bodies both still fit into the budget.
    assert!(objects.writer_bytes() <= 6 << 20, "several writers have to fit into the server's budget");
}

/// Of the folder itself, not of the contract: an upload that was given up leaves no file behind.
#[tokio::test]
async fn no_file_is_left_of_an_upload_that_was_given_up() {
    let folder = Folder::new();
    let objects = LocalObjects::open(folder.path()).unwrap();
    let mut writer = objects.create(ONE).await.unwrap();
    writer.write(Bytes::from(vec![7; 2_000_000])).await.unwrap();
    writer.abort().await;
    assert!(folder.files().is_empty(), "{:?}", folder.files());
}
