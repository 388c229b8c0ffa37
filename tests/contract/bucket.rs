//! What is particular to a bucket: how many requests are made, what an unfinished upload leaves, what is said
//! when the bucket is gone, away, or refuses the key.

use crate::folder::Folder;
use crate::objects::settings;
use bytes::Bytes;
use lockstep_server::error::{ApiError, StoreError};
use lockstep_server::objects::Objects;
use lockstep_server::objects::s3::S3Objects;
use lockstep_server::objects::settings::Hidden;
use lockstep_server::store::SegmentId;
use lockstep_tests::s3::{BUCKET, S3, SECRET_KEY};
use std::path::Path;

const ONE: SegmentId = SegmentId([0x11; 16]);
const TWO: SegmentId = SegmentId([0x12; 16]);

async fn write(objects: &S3Objects, segment: SegmentId, size: usize) {
    let mut writer = objects.create(segment).await.unwrap();
    writer.write(Bytes::from(vec![7; size])).await.unwrap();
    writer.finish().await.unwrap();
}

/// Parts and notes of uploads that were begun, where this server keeps them.
fn unfinished(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with(".upload")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_as_few_as_can_be() {
    let folder = Folder::new();
    let s3 = S3::start(folder.path());
    let objects = S3Objects::open(&settings(&s3)).await.unwrap();
    let mut before = s3.requests();
    let mut since = || {
        let (now, then) = (s3.requests(), before);
        before = now;
        now - then
    };
    write(&objects, ONE, 5 << 20).await;
    assert_eq!(since(), 1, "what fits one part is one put");
    objects.put(ONE, Bytes::from(vec![7; 8 << 20])).await.unwrap();
    assert_eq!(since(), 1, "and what is in memory anyway");
    write(&objects, ONE, (5 << 20) + 1).await;
    assert_eq!(since(), 4, "begin, two parts, complete");
    objects.read(ONE, 0, 1000).await.unwrap();
    assert_eq!(since(), 1);
    objects.size(ONE).await.unwrap().unwrap();
    assert_eq!(since(), 1);
    objects.delete(ONE).await.unwrap();
    assert_eq!(since(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_part_is_left_of_an_upload_that_was_given_up() {
    let folder = Folder::new();
    let s3 = S3::start(folder.path());
    let objects = S3Objects::open(&settings(&s3)).await.unwrap();
    for dropped in [false, true] {
        let mut writer = objects.create(ONE).await.unwrap();
        writer.write(Bytes::from(vec![7; 12_000_000])).await.unwrap();
        assert!(unfinished(s3.folder()).len() >= 3, "two parts and a note");
        if dropped {
            drop(writer);
        } else {
            writer.abort().await;
            assert_eq!(unfinished(s3.folder()), [""; 0]);
        }
        let mut tries = 0;
        while !unfinished(s3.folder()).is_empty() {
            tries += 1;
            assert!(tries < 1_000_000, "a dropped writer gives its upload up");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_gone_is_no_missing_segment() {
    let folder = Folder::new();
    let s3 = S3::start(folder.path());
    let objects = S3Objects::open(&settings(&s3)).await.unwrap();
    write(&objects, ONE, 10).await;
    std::fs::rename(s3.folder().join(BUCKET), s3.folder().join("elsewhere")).unwrap();
    for error in [
        objects.read(ONE, 0, 1).await.unwrap_err(),
        objects.size(ONE).await.unwrap_err(),
        S3Objects::open(&settings(&s3)).await.err().unwrap(),
    ] {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert!(error.to_string().contains("404 NoSuchBucket"), "{error}");
    }
    std::fs::rename(s3.folder().join("elsewhere"), s3.folder().join(BUCKET)).unwrap();
    assert_eq!(objects.read(ONE, 0, 1).await.unwrap()[..], [7]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_away_is_unavailable_and_comes_back() {
    let folder = Folder::new();
    let mut s3 = S3::start(folder.path());
    let objects = S3Objects::open(&settings(&s3)).await.unwrap();
    write(&objects, ONE, 10).await;
    let mut writer = objects.create(TWO).await.unwrap();
    s3.stop();
    writer.write(Bytes::from(vec![7; 10])).await.unwrap();
    let (read, size, deleted, finished) =
        tokio::join!(objects.read(ONE, 0, 1), objects.size(ONE), objects.delete(ONE), writer.finish());
    for error in [read.unwrap_err(), size.unwrap_err(), deleted.unwrap_err(), finished.unwrap_err()] {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert!(error.to_string().contains("no connection could be made"), "{error}");
    }
    s3.restart();
    assert_eq!(objects.read(ONE, 0, 1).await.unwrap()[..], [7]);
    assert_eq!(objects.size(TWO).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_is_refused_and_not_told() {
    let folder = Folder::new();
    let s3 = S3::start(folder.path());
    let right = settings(&s3);
    let mut wrong_secret = right.clone();
    wrong_secret.secret_key = Hidden::new("s3cr3t-of-another");
    let mut wrong_key = right.clone();
    wrong_key.access_key = Hidden::new("GKnobody");
    let mut with_token = wrong_secret.clone();
    with_token.session_token = Some(Hidden::new("t0k3n"));
    for settings in [wrong_secret, wrong_key, with_token] {
        let error = S3Objects::open(&settings).await.err().unwrap();
        let shown = format!("{error} {error:?} {settings:?} {:?}", ApiError::from(error.clone()));
        assert!(shown.contains("access was refused (403"), "{shown}");
        for hidden in ["s3cr3t", "t0k3n", "GKnobody", SECRET_KEY] {
            assert!(!shown.contains(hidden), "{shown}");
        }
    }
    S3Objects::open(&right).await.unwrap();
}
