//! The contract of blob storage: functions over `Arc<dyn Objects>`, run on a folder.

use crate::folder::Folder;
use crate::world::{bytes_of, rng};
use bytes::Bytes;
use lockstep_server::objects::Objects;
use lockstep_server::objects::local::LocalObjects;
use lockstep_server::store::SegmentId;
use std::future::Future;
use std::sync::Arc;

type AnyObjects = Arc<dyn Objects>;

async fn on_folder<F: Future<Output = ()>>(test: impl FnOnce(AnyObjects) -> F) {
    let folder = Folder::new();
    test(Arc::new(LocalObjects::open(&folder.path().join("objects")).unwrap())).await;
}

macro_rules! suite {
    ($back_end:ident, $run:path, $($name:ident)+) => {
        mod $back_end {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { $run(super::$name).await })+
        }
    };
}

suite! { local, super::on_folder,
    ranges_are_read_as_written
    fewer_bytes_than_asked_for_are_an_error
    nothing_is_visible_before_the_end
    what_is_given_up_leaves_nothing
    deleting_twice_is_fine
    segments_do_not_mix
    a_writer_keeps_within_what_it_says
}

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

async fn fewer_bytes_than_asked_for_are_an_error(objects: AnyObjects) {
    write(&objects, ONE, &[7; 1000]).await;
    for (start, size) in [(0, 1001), (999, 2), (1000, 1), (5000, 1), (u64::MAX, 1), (1, u64::MAX)] {
        assert!(objects.read(ONE, start, size).await.is_err(), "{size} bytes from {start}");
    }
    assert!(objects.read(TWO, 0, 1).await.is_err(), "no such segment");
}

async fn nothing_is_visible_before_the_end(objects: AnyObjects) {
    let mut writer = objects.create(ONE).await.unwrap();
    writer.write(Bytes::from(vec![7; 2_000_000])).await.unwrap();
    assert!(objects.read(ONE, 0, 1).await.is_err());
    writer.finish().await.unwrap();
    assert_eq!(objects.read(ONE, 1_999_999, 1).await.unwrap()[..], [7]);
}

async fn what_is_given_up_leaves_nothing(objects: AnyObjects) {
    let mut writer = objects.create(ONE).await.unwrap();
    writer.write(Bytes::from(vec![7; 2_000_000])).await.unwrap();
    writer.abort().await;
    assert!(objects.read(ONE, 0, 1).await.is_err());
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
    assert!(objects.writer_bytes() <= 4 << 20, "many writers have to fit into the server's budget");
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
