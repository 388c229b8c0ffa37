//! Vaults over HTTP: birth, staging, commits, lost races, pulls.

use super::{BackEnd, Running, seed};
use crate::chain::{Op, put, record};
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::server::ServerInfo;
use lockstep_proto::api::vault::{
    CreateVault, Entries, Entry, GetEnvelopes, History, Page, Pushed, StageEnvelopes, StagedEnvelopes,
    VaultLog, Vaults,
};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::{RecordId, Seq, VaultId};
use lockstep_proto::{envelope, limits};

fn places(entries: &[Entry]) -> Vec<(u64, RecordId)> {
    entries.iter().map(|entry| (entry.seq.value(), entry.record)).collect()
}

pub(super) async fn the_server_says_what_it_is(on: BackEnd) {
    let running = Running::start_on(on).await;
    assert_eq!(running.client.get("/healthz").await.body, b"ok\n");
    assert_eq!(running.client.get("/readyz").await.body, b"ready\n");
    let info: ServerInfo = running.client.get("/v1/server").await.ok();
    assert_eq!(info.versions, [lockstep_proto::version::VERSION]);
    assert_eq!(info.origin, running.origin);
    assert_eq!(info.origin, format!("http://{}", running.client.address));
    assert_eq!(info.limits.len(), limits::PUBLISHED.len());
    running.stop().await;
}

pub(super) async fn vaults_are_born_once(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let vault = VaultId::from_bytes([0x41; 16]);
    let create = |utc| {
        let birth = seeded.world.birth(vault, utc);
        CreateVault { create: birth.create, genesis: birth.genesis }
    };
    for _ in 0..2 {
        seeded.client.post("/v1/vaults", &create(5)).await.nothing();
    }
    seeded.client.post("/v1/vaults", &create(6)).await.refused(Code::Exists);
    let mut forged = create(5);
    forged.genesis.signature.0[0] ^= 1;
    seeded.client.post("/v1/vaults", &forged).await.refused(Code::InvalidSignature);
    let mut mixed = create(5);
    mixed.genesis = seeded.world.birth(seeded.keyring, 1).genesis;
    seeded.client.post("/v1/vaults", &mixed).await.refused(Code::InvalidChain);
    let log: VaultLog = seeded.client.get(&format!("/v1/vaults/{vault}/log")).await.ok();
    assert_eq!(log.0, [create(5).create]);
    assert_eq!(seeded.client.get("/v1/vaults").await.ok::<Vaults>().0.len(), 2);
    running.stop().await;
}

pub(super) async fn commits_are_pushed_staged_and_pulled(on: BackEnd) {
    let running = Running::start_on(on).await;
    let mut seeded = seed(&running).await;
    let client = seeded.client.clone();
    let (commits, stage) = (seeded.path("commits"), seeded.path("envelopes"));
    for ops in [vec![put(1), put(2)], vec![put(2), put(3)], vec![Op::Tombstone(record(1))]] {
        let draft = seeded.chain.draft(&seeded.world.author, &ops);
        let mut push = draft.push(&seeded.world.author);
        let first = push.envelopes.remove(0);
        client.post(&commits, &push).await.refused(Code::MissingEnvelope);
        let staged: StagedEnvelopes = client.post(&stage, &StageEnvelopes(vec![first.clone()])).await.ok();
        assert_eq!(staged.0, [envelope::digest(&first.0)]);
        let pushed: Pushed = client.post(&commits, &push).await.ok();
        seeded.chain.follow(&draft.prepare(&seeded.world.author));
        assert_eq!((pushed.seq, pushed.head), (seeded.chain.seq(), seeded.chain.tip.hash));
        let again: Pushed = client.post(&commits, &push).await.ok();
        assert_eq!(again, pushed, "the same commit once more");
    }
    let page: Page = client.get(&format!("{commits}?after=0")).await.ok();
    assert_eq!((page.head_seq, page.commits.len(), page.more), (Seq::new(3), 3, false));
    assert_eq!(places(&page.entries), [(2, record(2)), (2, record(3)), (3, record(1))], "squashed");
    let page: Page = client.get(&format!("{commits}?after=3")).await.ok();
    assert_eq!((page.head_seq, page.commits.len(), page.entries.len()), (Seq::new(3), 0, 0));
    assert_eq!(client.get(&commits).await.ok::<Page>().commits.len(), 4, "from genesis");
    let state: Entries = client.get(&seeded.path("state?upto=1")).await.ok();
    assert_eq!(places(&state.entries), [(1, record(1)), (1, record(2))], "as of commit 1");
    let path = seeded.path(&format!("state?upto=3&after=0&from-seq=2&from-record={}", record(2)));
    assert_eq!(places(&client.get(&path).await.ok::<Entries>().entries), [(2, record(3)), (3, record(1))]);
    let current: Entries = client.get(&seeded.path("state?upto=1&current=true")).await.ok();
    assert!(current.entries.is_empty(), "everything of commit 1 was replaced");
    let ask =
        GetEnvelopes(vec![(Seq::new(2), record(2)), (Seq::new(9), record(2)), (Seq::new(1), record(2))]);
    let got: Entries = client.post(&seeded.path("envelopes/get"), &ask).await.ok();
    assert_eq!(places(&got.entries), [(2, record(2)), (1, record(2))]);
    let history: History = client.get(&seeded.path(&format!("records/{}/history", record(1)))).await.ok();
    assert_eq!(places(&history.0), [(3, record(1)), (1, record(1))]);
    running.stop().await;
}

pub(super) async fn a_lost_race_brings_the_page(on: BackEnd) {
    let running = Running::start_on(on).await;
    let mut seeded = seed(&running).await;
    let path = seeded.path("commits");
    let mine = seeded.chain.draft(&seeded.world.author, &[put(1)]);
    let theirs = seeded.chain.draft(&seeded.world.author, &[put(2)]);
    seeded.client.post(&path, &theirs.push(&seeded.world.author)).await.ok::<Pushed>();
    let lost = seeded.client.post(&path, &mine.push(&seeded.world.author)).await;
    assert_eq!((lost.status, lost.header("content-type")), (409, Some("application/cbor")));
    let page = Page::decode(&lost.body).unwrap();
    assert_eq!((page.head_seq, page.commits.len(), page.entries.len()), (Seq::new(1), 1, 1));
    assert_eq!(page.commits[0].commit, theirs.push(&seeded.world.author).commit);
    running.stop().await;
}

pub(super) async fn commits_of_others_are_refused(on: BackEnd) {
    let running = Running::start_on(on).await;
    let mut seeded = seed(&running).await;
    let path = seeded.path("commits");
    let draft = seeded.chain.draft(&seeded.world.author, &[put(1)]);
    let mut stranger = crate::world::Author::new(40);
    stranger.log_head = seeded.world.author.log_head;
    let mut foreign = seeded.chain.draft(&stranger, &[put(1)]);
    seeded.client.post(&path, &foreign.push(&stranger)).await.refused(Code::InvalidChain);
    foreign.commit.device = seeded.world.author.keys.id();
    let answer = seeded.client.post(&path, &foreign.push(&stranger)).await;
    answer.refused(Code::InvalidSignature);
    let mut elsewhere = draft.clone();
    elsewhere.commit.vault = VaultId::from_bytes([1; 16]);
    let answer = seeded.client.post(&path, &elsewhere.push(&seeded.world.author)).await;
    answer.refused(Code::InvalidChain);
    let page: Page = seeded.client.get(&path).await.ok();
    assert_eq!(page.head_seq, Seq::new(0), "nothing was stored");
    seeded.client.post(&path, &draft.push(&seeded.world.author)).await.ok::<Pushed>();
    running.stop().await;
}
