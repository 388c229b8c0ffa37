//! Many objects in one answer.

use super::object::{blob, frames};
use super::{BackEnd, Place, Running, Seeded, seed};
use crate::client::Answer;
use crate::objects::settings;
use crate::world::{bytes_of, rng};
use lockstep_proto::Digest;
use lockstep_proto::api::object::{ObjectList, Stored, UploadState};
use lockstep_proto::api::problem::Code;
use lockstep_proto::blob::{object_digest, part_digest};
use lockstep_proto::id::BlobId;
use lockstep_proto::limits;
use lockstep_server::budget::OBJECTS_BUDGET_BYTES;
use lockstep_server::objects::settings::ObjectsAt;
use lockstep_tests::s3::S3;

impl Seeded {
    async fn many(&self, blobs: &[BlobId]) -> Answer {
        self.client.post(&self.path("objects/get"), &ObjectList(blobs.to_vec())).await
    }

    /// An object of one part or more.
    async fn large(&self, blob: BlobId, bytes: &[u8]) {
        let parts: Vec<&[u8]> = bytes.chunks(limits::PART_BYTES).collect();
        let digests: Vec<Digest> = parts.iter().map(|part| part_digest(part)).collect();
        let size = bytes.len() as u64;
        self.begin(blob, size, object_digest(size, &digests)).await.ok::<UploadState>();
        for (index, part) in parts.iter().enumerate() {
            self.part(blob, index as u64, part).await.nothing();
        }
        self.complete(blob).await.nothing();
    }
}

/// The answer is these frames, and says how long it is.
#[track_caller]
fn assert_frames(answer: &Answer, expected: &[(BlobId, &[u8])]) {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    let expected = frames(expected);
    assert_eq!(answer.header("content-length"), Some(expected.len().to_string().as_str()));
    assert!(answer.body == expected, "{} bytes", answer.body.len());
}

pub(super) async fn many_come_in_the_order_asked(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let (one, two, three) = (bytes_of(&mut rng(1), 700_000), vec![5], bytes_of(&mut rng(2), 2_500_000));
    seeded.upload(&frames(&[(blob(1), &one), (blob(2), &two)])).await.ok::<Stored>();
    seeded.upload(&frames(&[(blob(3), &three)])).await.ok::<Stored>();
    // Of two parts, and of other segments than the rest.
    let four = bytes_of(&mut rng(3), limits::PART_BYTES + 1000);
    seeded.large(blob(4), &four).await;
    let all: [(BlobId, &[u8]); 4] = [(blob(1), &one), (blob(2), &two), (blob(3), &three), (blob(4), &four)];
    for order in [vec![0, 1, 2, 3], vec![3, 2, 1, 0], vec![1], vec![2, 0, 2, 2, 1, 1], vec![3, 0]] {
        let expected: Vec<_> = order.into_iter().map(|place| all[place]).collect();
        let blobs: Vec<_> = expected.iter().map(|(blob, _)| *blob).collect();
        assert_frames(&seeded.many(&blobs).await, &expected);
    }
    running.stop().await;
}

pub(super) async fn what_is_not_there_is_an_empty_frame(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let one = bytes_of(&mut rng(1), 1000);
    seeded.upload(&frames(&[(blob(1), &one)])).await.ok::<Stored>();
    // Begun and not complete is not there either.
    seeded.begin(blob(2), 500, Digest::ZERO).await.ok::<UploadState>();
    seeded.part(blob(2), 0, &[1; 500]).await.nothing();
    let (none, one): (&[u8], &[u8]) = (&[], &one);
    for expected in [
        vec![(blob(9), none)],
        vec![(blob(2), none), (blob(9), none)],
        vec![(blob(9), none), (blob(1), one), (blob(2), none)],
        vec![(blob(1), one), (blob(9), none), (blob(1), one)],
    ] {
        let blobs: Vec<_> = expected.iter().map(|(blob, _)| *blob).collect();
        assert_frames(&seeded.many(&blobs).await, &expected);
    }
    running.app.store.lose_object(vault_key(&running, &seeded).await, blob(1)).await.unwrap();
    assert_frames(&seeded.many(&[blob(1)]).await, &[(blob(1), none)]);
    running.stop().await;
}

async fn vault_key(running: &Running, seeded: &Seeded) -> lockstep_server::store::VaultKey {
    running.app.store.vault(seeded.world.account, seeded.keyring).await.unwrap().unwrap().key
}

pub(super) async fn lists_and_answers_have_bounds(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let part = bytes_of(&mut rng(1), limits::PART_BYTES);
    seeded.large(blob(1), &part).await;
    seeded.large(blob(2), &part.repeat(4)).await;
    seeded.large(blob(3), &[&part.repeat(4)[..], &[1]].concat()).await;
    seeded.upload(&frames(&[(blob(4), &[7])])).await.ok::<Stored>();
    seeded.many(&[]).await.refused(Code::Malformed);
    let most = vec![blob(4); limits::OBJECTS_GET_MAX];
    let expected: Vec<(BlobId, &[u8])> = most.iter().map(|blob| (*blob, &[7][..])).collect();
    assert_frames(&seeded.many(&most).await, &expected);
    seeded.many(&[&most[..], &[blob(4)]].concat()).await.refused(Code::TooLarge);
    // Exactly so much, as one object or as several; not a byte more.
    assert_frames(&seeded.many(&[blob(2)]).await, &[(blob(2), &part.repeat(4))]);
    assert_frames(&seeded.many(&[blob(1); 4]).await, &[(blob(1), part.as_slice()); 4]);
    seeded.many(&[blob(1), blob(1), blob(1), blob(1), blob(4)]).await.refused(Code::TooLarge);
    seeded.many(&[blob(3)]).await.refused(Code::TooLarge);
    seeded.many(&[blob(4), blob(3)]).await.refused(Code::TooLarge);
    running.stop().await;
}

/// Headers fall anywhere in the pieces that are read.
pub(super) async fn neighbours_come_whole_whatever_their_sizes(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let mib = limits::MIB;
    let sizes = [mib - 1, 1, 1, mib, 2 * mib + 1, 3, mib - 4, 500_000, 1];
    let objects: Vec<(BlobId, Vec<u8>)> = sizes
        .iter()
        .enumerate()
        .map(|(number, size)| (blob(number as u8 + 1), bytes_of(&mut rng(number as u64), *size)))
        .collect();
    let all: Vec<(BlobId, &[u8])> = objects.iter().map(|(blob, bytes)| (*blob, bytes.as_slice())).collect();
    seeded.upload(&frames(&all)).await.ok::<Stored>();
    for skipped in 0..sizes.len() {
        let mut some = all.clone();
        some.remove(skipped);
        let blobs: Vec<_> = some.iter().map(|(blob, _)| *blob).collect();
        assert_frames(&seeded.many(&blobs).await, &some);
    }
    running.stop().await;
}

pub(super) async fn lost_bytes_are_told_before_anything_is_promised(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    seeded.upload(&frames(&[(blob(1), &[1; 1000])])).await.ok::<Stored>();
    let before = running.place.folder.files();
    seeded.upload(&frames(&[(blob(2), &[2; 1000])])).await.ok::<Stored>();
    let segments = running.place.folder.files().into_iter().filter(|path| !before.contains(path));
    for segment in segments.filter(|path| path.components().any(|part| part.as_os_str() == "objects")) {
        std::fs::remove_file(segment).unwrap();
    }
    seeded.many(&[blob(2), blob(1)]).await.refused(Code::NotFound);
    assert_frames(&seeded.many(&[blob(1)]).await, &[(blob(1), &[1; 1000])]);
    running.stop().await;
}

pub(super) async fn a_budget_that_is_used_up_keeps_nobody_waiting(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let bytes = bytes_of(&mut rng(1), 3_000_000);
    seeded.upload(&frames(&[(blob(1), &bytes), (blob(2), &[2])])).await.ok::<Stored>();
    let all = running.app.objects_budget.try_reserve(OBJECTS_BUDGET_BYTES).unwrap();
    assert_frames(&seeded.many(&[blob(1), blob(2)]).await, &[(blob(1), &bytes), (blob(2), &[2])]);
    drop(all);
    // What an answer took, it gave back.
    assert_frames(&seeded.many(&[blob(1), blob(2)]).await, &[(blob(1), &bytes), (blob(2), &[2])]);
    assert!(running.app.objects_budget.try_reserve(OBJECTS_BUDGET_BYTES).is_some());
    running.stop().await;
}

/// What lies together in a bucket is one request to it.
pub(super) async fn neighbours_in_a_bucket_are_one_request(on: BackEnd) {
    let place = Place::new(on);
    let s3 = S3::start(&place.folder.path().join("s3"));
    let running =
        Running::start_in(place.with(|config| config.objects = ObjectsAt::S3(Box::new(settings(&s3))))).await;
    let seeded = seed(&running).await;
    let objects: Vec<(BlobId, Vec<u8>)> =
        (1..=40).map(|number| (blob(number), vec![number; 20_000])).collect();
    let all: Vec<(BlobId, &[u8])> = objects.iter().map(|(blob, bytes)| (*blob, bytes.as_slice())).collect();
    seeded.upload(&frames(&all)).await.ok::<Stored>();
    let before = s3.requests();
    let blobs: Vec<_> = all.iter().map(|(blob, _)| *blob).collect();
    assert_frames(&seeded.many(&blobs).await, &all);
    assert_eq!(s3.requests() - before, 1);
    running.stop().await;
}
