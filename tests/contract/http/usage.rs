//! Usage and quotas over HTTP.

use super::object::{blob, frames};
use super::{BackEnd, Place, Running, Seeded, seed};
use crate::chain::{Chain, put};
use crate::client::Answer;
use lockstep_proto::Digest;
use lockstep_proto::api::object::{Stored, UploadState};
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::usage::Usage;
use lockstep_proto::api::vault::{Pushed, StageEnvelopes};
use lockstep_proto::blob::{object_digest, part_digest};
use lockstep_proto::id::VaultId;
use lockstep_server::domain::quota::{QuotaSetting, ROW_BYTES};

const VAULT: VaultId = VaultId::from_bytes([0x66; 16]);

impl Seeded {
    async fn usage(&self) -> Usage {
        self.client.get("/v1/account/usage").await.ok()
    }

    /// Asks about a vault that is not the keyring, which has the reserve.
    async fn plain(mut self, running: &Running) -> Self {
        let birth = self.world.birth(VAULT, 1);
        self.chain = Chain::new(birth.tip.clone(), 9);
        self.keyring = VAULT;
        running.app.store.create_vault(self.world.account, birth).await.unwrap();
        self
    }

    async fn leave(&self, running: &Running, bytes: u64) -> u64 {
        let quota = self.usage().await.used + bytes;
        running.app.store.set_quota(self.world.account, QuotaSetting::Bytes(quota)).await.unwrap();
        quota
    }
}

/// What is left on the disk and in the books when everything is refused: nothing.
async fn assert_untouched(running: &Running, seeded: &Seeded, before: &Usage, segments: usize) {
    let now = seeded.usage().await;
    assert_eq!((now.used, now.objects), (before.used, before.objects));
    assert_eq!(running.stored_segments(), segments);
    assert_eq!(running.app.store.check_usage(false).await.unwrap(), []);
}

fn refused_with(answer: &Answer, used: u64, quota: u64) {
    answer.refused(Code::QuotaExceeded);
    assert_eq!(answer.status, 403);
    let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((document["used"].as_u64(), document["quota"].as_u64()), (Some(used), Some(quota)));
    assert!(document["detail"].as_str().unwrap().contains("quota"), "{document}");
}

pub(super) async fn the_servers_quota_is_everybodys(on: BackEnd) {
    let running = Running::start_in(Place::new(on).with(|config| config.quota = Some(1 << 20))).await;
    let seeded = seed(&running).await.plain(&running).await;
    let usage = seeded.usage().await;
    assert_eq!((usage.quota, usage.objects, usage.records), (Some(1 << 20), 0, 0));
    let body = frames(&[(blob(1), &vec![1; 600_000])]);
    seeded.upload(&body).await.ok::<Stored>();
    let used = seeded.usage().await.used;
    assert_eq!(used, usage.used + 600_000 + ROW_BYTES);
    let more = frames(&[(blob(2), &vec![1; 600_000])]);
    refused_with(&seeded.upload(&more).await, used, 1 << 20);
    running.app.store.set_quota(seeded.world.account, QuotaSetting::Unlimited).await.unwrap();
    assert_eq!(seeded.usage().await.quota, None);
    seeded.upload(&more).await.ok::<Stored>();
    assert_eq!(seeded.usage().await.objects, 2);
    running.stop().await;
}

pub(super) async fn what_is_refused_leaves_nothing_behind(on: BackEnd) {
    let running = Running::start_on(on).await;
    let mut seeded = seed(&running).await.plain(&running).await;
    let quota = seeded.leave(&running, 10_000).await;
    let before = seeded.usage().await;
    let body = frames(&[(blob(1), &[1; 5000]), (blob(2), &[2; 5000])]);
    refused_with(&seeded.upload(&body).await, before.used, quota);
    // Its rows do not fit, although its bytes do.
    let tight = frames(&[(blob(1), &[1; 4950]), (blob(2), &[2; 4950])]);
    seeded.upload(&tight).await.refused(Code::QuotaExceeded);
    assert_untouched(&running, &seeded, &before, 0).await;
    // Without a length it is a large one.
    let head = seeded.client.head("POST", &seeded.path("objects"));
    let small = frames(&[(blob(1), &[1; 50])]);
    let mut chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n", small.len()).into_bytes();
    chunked.extend_from_slice(&small);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    seeded.client.raw(&chunked, false).await.unwrap().refused(Code::QuotaExceeded);
    seeded.begin(blob(3), 10_000, Digest::ZERO).await.refused(Code::QuotaExceeded);
    let draft = seeded.chain.draft(&seeded.world.author, &[put(1), put(2)]);
    let large = StageEnvelopes(vec![vec![0; 0].into()]);
    seeded.client.post(&seeded.path("envelopes"), &large).await.refused(Code::Malformed);
    assert_untouched(&running, &seeded, &before, 0).await;
    seeded.leave(&running, 0).await;
    let stage = StageEnvelopes(vec![draft.envelopes[0].clone().into()]);
    seeded.client.post(&seeded.path("envelopes"), &stage).await.refused(Code::QuotaExceeded);
    let push = draft.push(&seeded.world.author);
    seeded.client.post(&seeded.path("commits"), &push).await.refused(Code::QuotaExceeded);
    assert_untouched(&running, &seeded, &before, 0).await;
    seeded.leave(&running, 10_000).await;
    seeded.client.post(&seeded.path("commits"), &push).await.ok::<Pushed>();
    running.stop().await;
}

/// Bytes that no row needs are deleted at once: nobody fills the disk with what does not count.
pub(super) async fn what_is_sent_twice_is_stored_and_counted_once(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await.plain(&running).await;
    let body = frames(&[(blob(1), &[1; 5000])]);
    seeded.upload(&body).await.ok::<Stored>();
    let before = seeded.usage().await;
    for _ in 0..5 {
        seeded.upload(&body).await.ok::<Stored>();
        seeded.upload(&frames(&[(blob(1), &[2; 5000])])).await.refused(Code::Exists);
        seeded.upload(&body[..4000]).await.refused(Code::Malformed);
    }
    assert_untouched(&running, &seeded, &before, 1).await;
    let part = [3; 1000];
    let digest = object_digest(1000, &[part_digest(&part)]);
    seeded.begin(blob(2), 1000, digest).await.ok::<UploadState>();
    let begun = seeded.usage().await;
    assert_eq!((begun.used, begun.objects), (before.used + 1000 + ROW_BYTES, 2));
    for _ in 0..5 {
        seeded.part(blob(2), 0, &part).await.nothing();
    }
    seeded.complete(blob(2)).await.nothing();
    for _ in 0..5 {
        seeded.part(blob(2), 0, &part).await.nothing();
    }
    assert_untouched(&running, &seeded, &begun, 2).await;
    running.stop().await;
}

pub(super) async fn of_many_uploads_at_once_those_that_fit_are_taken(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await.plain(&running).await;
    let size = 10_000_u64;
    let quota = seeded.leave(&running, 5 * (size + ROW_BYTES) + 100).await;
    let before = seeded.usage().await;
    let path = seeded.path("objects");
    let tries: Vec<_> = (0..32_u8)
        .map(|number| {
            let (client, path) = (seeded.client.clone(), path.clone());
            let body = frames(&[(blob(number), &vec![number; 10_000])]);
            tokio::spawn(async move { client.send("POST", &path, "", &body).await })
        })
        .collect();
    let mut taken = 0;
    for answer in tries {
        let answer = answer.await.unwrap();
        if answer.status == 200 {
            taken += 1;
        } else {
            answer.refused(Code::QuotaExceeded);
        }
    }
    assert!((1..=5).contains(&taken), "{taken}");
    let now = seeded.usage().await;
    assert!(now.used <= quota);
    assert_eq!((now.used, now.objects), (before.used + taken * (size + ROW_BYTES), taken));
    assert_eq!(running.stored_segments() as u64, taken);
    assert_eq!(running.app.store.check_usage(false).await.unwrap(), []);
    running.stop().await;
}
