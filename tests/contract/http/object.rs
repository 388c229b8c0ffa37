//! Objects over HTTP: framed uploads, parts, ranges, connections that break.

use super::{BackEnd, Running, Seeded, seed};
use crate::client::{Answer, Client};
use crate::world::{bytes_of, rng};
use lockstep_proto::Digest;
use lockstep_proto::api::object::{BeginUpload, Stored, UploadState, frame_header};
use lockstep_proto::api::problem::Code;
use lockstep_proto::blob::{object_digest, part_digest};
use lockstep_proto::id::BlobId;
use lockstep_proto::limits;

pub(super) fn blob(number: u8) -> BlobId {
    BlobId::from_bytes([number; 16])
}

pub(super) fn frames(objects: &[(BlobId, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (blob, bytes) in objects {
        body.extend_from_slice(&frame_header(*blob, bytes.len() as u32));
        body.extend_from_slice(bytes);
    }
    body
}

impl Seeded {
    pub(super) fn object(&self, blob: BlobId) -> String {
        self.path(&format!("objects/{blob}"))
    }

    pub(super) async fn upload(&self, body: &[u8]) -> Answer {
        self.client.send("POST", &self.path("objects"), "", body).await
    }

    pub(super) async fn begin(&self, blob: BlobId, size: u64, digest: Digest) -> Answer {
        self.client.post(&self.path("uploads"), &BeginUpload { blob, size, digest }).await
    }

    pub(super) async fn part(&self, blob: BlobId, index: u64, bytes: &[u8]) -> Answer {
        self.client.send("PUT", &self.path(&format!("uploads/{blob}/parts/{index}")), "", bytes).await
    }

    pub(super) async fn complete(&self, blob: BlobId) -> Answer {
        self.client.send("POST", &self.path(&format!("uploads/{blob}/complete")), "", b"").await
    }
}

async fn ranged(client: &Client, path: &str, range: &str) -> Answer {
    client.send("GET", path, &format!("range: {range}\r\n"), b"").await
}

pub(super) async fn framed_objects_come_back(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let (one, two) = (bytes_of(&mut rng(1), 700_000), vec![5]);
    let body = frames(&[(blob(1), &one), (blob(2), &two)]);
    for _ in 0..2 {
        let stored: Stored = seeded.upload(&body).await.ok();
        assert_eq!(stored.0, [blob(1), blob(2)], "the same again is the same");
    }
    for (id, bytes) in [(blob(1), &one), (blob(2), &two)] {
        let answer = seeded.client.get(&seeded.object(id)).await;
        assert_eq!((answer.status, answer.header("accept-ranges")), (200, Some("bytes")));
        assert!(answer.body == *bytes);
    }
    let head = seeded.client.send("HEAD", &seeded.object(blob(2)), "", b"").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let other = frames(&[(blob(3), &two), (blob(1), &two)]);
    seeded.upload(&other).await.refused(Code::Exists);
    seeded.client.get(&seeded.object(blob(3))).await.refused(Code::NotFound);
    running.stop().await;
}

pub(super) async fn ranges_are_cut_out(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let bytes = bytes_of(&mut rng(1), 600_000);
    seeded.upload(&frames(&[(blob(1), &[9; 100]), (blob(2), &bytes)])).await.ok::<Stored>();
    let path = seeded.object(blob(2));
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=1-262144", 1, 262_145),
        ("bytes=599999-", 599_999, 600_000),
        ("bytes=-7", 599_993, 600_000),
        ("bytes=-9999999", 0, 600_000),
        ("bytes=500000-18446744073709551615", 500_000, 600_000),
    ] {
        let answer = ranged(&seeded.client, &path, range).await;
        assert_eq!(answer.status, 206, "{range}");
        assert!(answer.body == bytes[from..to], "{range}");
        let expected = format!("bytes {from}-{}/600000", to - 1);
        assert_eq!(answer.header("content-range"), Some(expected.as_str()));
    }
    for range in [
        "bytes=600000-",
        "bytes=5-4",
        "bytes=-0",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "lines=1-2",
        "nonsense",
        "bytes=0-1,5-6",
        "bytes=18446744073709551616-",
        "bytes=--5",
        "bytes=\u{e4}-1",
    ] {
        ranged(&seeded.client, &path, range).await.refused(Code::Range);
    }
    running.stop().await;
}

pub(super) async fn uploads_resume_where_they_stopped(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let bytes = bytes_of(&mut rng(1), limits::PART_BYTES + 1000);
    let (first, last) = bytes.split_at(limits::PART_BYTES);
    let size = bytes.len() as u64;
    let digest = object_digest(size, &[part_digest(first), part_digest(last)]);
    seeded.part(blob(1), 0, first).await.refused(Code::NotFound);
    seeded.complete(blob(1)).await.refused(Code::NotFound);
    let state: UploadState = seeded.begin(blob(1), size, digest).await.ok();
    assert_eq!((state.complete, state.parts), (false, vec![]));
    seeded.part(blob(1), 1, last).await.nothing();
    seeded.complete(blob(1)).await.refused(Code::Mismatch);
    let state: UploadState = seeded.begin(blob(1), size, digest).await.ok();
    assert_eq!((state.complete, state.parts), (false, vec![1]), "what is held is told");
    seeded.begin(blob(1), size + 1, digest).await.refused(Code::Exists);
    seeded.part(blob(1), 0, &first[1..]).await.refused(Code::Mismatch);
    seeded.part(blob(1), 1, &bytes[..1001]).await.refused(Code::Mismatch);
    seeded.part(blob(1), 2, last).await.refused(Code::Malformed);
    seeded.client.get(&seeded.object(blob(1))).await.refused(Code::NotFound);
    let mut wrong = first.to_vec();
    wrong[77] ^= 1;
    seeded.part(blob(1), 0, &wrong).await.nothing();
    seeded.complete(blob(1)).await.refused(Code::Mismatch);
    seeded.part(blob(1), 0, first).await.nothing();
    for _ in 0..2 {
        seeded.complete(blob(1)).await.nothing();
    }
    seeded.part(blob(1), 0, &wrong).await.nothing();
    assert!(seeded.begin(blob(1), size, digest).await.ok::<UploadState>().complete);
    let answer = seeded.client.get(&seeded.object(blob(1))).await;
    assert!(answer.body == bytes, "what is complete does not change");
    let begin = limits::PART_BYTES - 3;
    let range = format!("bytes={begin}-{}", begin + 9);
    let across = ranged(&seeded.client, &seeded.object(blob(1)), &range).await;
    assert!(across.body == bytes[begin..begin + 10], "across the border of two parts");
    for size in [0, (1 << 40) + 1, u64::MAX] {
        seeded.begin(blob(2), size, digest).await.refused(Code::Malformed);
    }
    running.stop().await;
}

pub(super) async fn spoilt_frames_store_nothing(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let good = frames(&[(blob(1), &[1; 5000]), (blob(2), &[2; 5000])]);
    let mut zero = frames(&[(blob(1), &[1; 10])]);
    zero.extend_from_slice(&frame_header(blob(3), 0));
    let mut huge = frames(&[(blob(1), &[1; 10])]);
    huge.extend_from_slice(&frame_header(blob(3), u32::MAX));
    let mut large = frame_header(blob(3), limits::PART_BYTES as u32 + 1).to_vec();
    large.resize(limits::PART_BYTES + 21, 1);
    let twice = frames(&[(blob(1), &[1; 10]), (blob(2), &[1; 10]), (blob(1), &[1; 10])]);
    let ids: Vec<BlobId> = (0..=limits::FRAMES_MAX as u32)
        .map(|number| {
            let mut id = [7; 16];
            id[..4].copy_from_slice(&number.to_be_bytes());
            BlobId::from_bytes(id)
        })
        .collect();
    let many: Vec<(BlobId, &[u8])> = ids.iter().map(|id| (*id, b"x".as_slice())).collect();
    let mut spoilt: Vec<Vec<u8>> = vec![Vec::new(), zero, huge, large, twice, frames(&many)];
    spoilt.extend([1, 19, 20, 21, 5019, 5020, 5021, 5040, good.len() - 1].map(|size| good[..size].to_vec()));
    for body in &spoilt {
        // A body that ends after a whole object is a good one.
        if body.len() == 5020 {
            continue;
        }
        seeded.upload(body).await.refused(Code::Malformed);
        for number in 1..=3 {
            seeded.client.get(&seeded.object(blob(number))).await.refused(Code::NotFound);
        }
    }
    seeded.client.get(&seeded.object(ids[0])).await.refused(Code::NotFound);
    assert_eq!(running.stored_segments(), 0, "no bytes are left behind");
    seeded.upload(&frames(&many[1..])).await.ok::<Stored>();
    running.stop().await;
}

pub(super) async fn an_upload_that_is_cut_off_stores_nothing(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let body = frames(&[(blob(1), &vec![1; 300_000]), (blob(2), &vec![2; 900_000])]);
    let head = seeded.client.head("POST", &seeded.path("objects"));
    for sent in [0, 10, 20, 300_020, 300_030, 1_000_000, body.len() - 1] {
        let mut sized = format!("{head}content-length: {}\r\n\r\n", body.len()).into_bytes();
        sized.extend_from_slice(&body[..sent]);
        let mut chunked =
            format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n", body.len()).into_bytes();
        chunked.extend_from_slice(&body[..sent]);
        for bytes in [sized, chunked] {
            let answer = seeded.client.raw(&bytes, true).await;
            answer.expect("who closes only one side is answered").refused(Code::Malformed);
            for number in 1..=2 {
                seeded.client.get(&seeded.object(blob(number))).await.refused(Code::NotFound);
            }
        }
    }
    seeded.begin(blob(4), 1000, Digest::ZERO).await.ok::<UploadState>();
    let head = seeded.client.head("PUT", &seeded.path(&format!("uploads/{}/parts/0", blob(4))));
    let mut cut = format!("{head}content-length: 1000\r\n\r\n").into_bytes();
    cut.extend_from_slice(&[7; 999]);
    let answer = seeded.client.raw(&cut, true).await;
    answer.expect("who closes only one side is answered").refused(Code::Malformed);
    let state: UploadState = seeded.begin(blob(4), 1000, Digest::ZERO).await.ok();
    assert!(state.parts.is_empty());
    assert_eq!(running.stored_segments(), 0, "no bytes are left behind");
    running.stop().await;
}

/// Whoever is refused while still sending gets the refusal, not a broken connection: a session that ends
/// in the middle of a backup has to look like one.
pub(super) async fn who_is_refused_while_sending_sees_why(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let body = vec![1; limits::PART_BYTES];
    let frames = frames(&[(blob(1), &body)]);
    let part = seeded.path(&format!("uploads/{}/parts/0", blob(1)));
    for _ in 0..8 {
        running.client.send("PUT", &part, "", &body).await.refused(Code::Unauthenticated);
        let answer = running.client.send("POST", &seeded.path("objects"), "", &frames).await;
        answer.refused(Code::Unauthenticated);
        seeded.client.send("PUT", &part, "", &body).await.refused(Code::NotFound);
        let answer = seeded.client.send("POST", &seeded.path("commits"), "", &body).await;
        answer.refused(Code::MediaType);
    }
    running.stop().await;
}
