//! Stopping: what runs ends well, nothing new begins.

use super::{BackEnd, Running, seed};
use lockstep_proto::Digest;
use lockstep_proto::api::account::OpaqueStart;
use lockstep_proto::api::object::BeginUpload;
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::BlobId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Sends a head that expects to be told to go on; being told shows that the request runs.
async fn begun(running: &Running, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(running.client.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

pub(super) async fn a_running_request_ends_and_nothing_new_begins(on: BackEnd) {
    let mut running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let blob = BlobId::from_bytes([3; 16]);
    let begin = BeginUpload { blob, size: 10, digest: Digest::ZERO };
    seeded.client.post_bytes(&seeded.path("uploads"), &begin.encode()).await;
    let path = seeded.path(&format!("uploads/{blob}/parts/0"));
    let head = seeded.client.head("PUT", &path) + "expect: 100-continue\r\ncontent-length: 10\r\n\r\n";
    let mut part = begun(&running, &head).await;
    let request = OpaqueStart { request: vec![0; 32].into() }.encode();
    let size = request.len();
    let head = seeded.client.head("POST", "/v1/account/opaque")
        + &format!(
            "content-type: application/cbor\r\nexpect: 100-continue\r\ncontent-length: {size}\r\n\r\n"
        );
    let mut cut = begun(&running, &head).await;
    cut.write_all(&request[..5]).await.unwrap();

    let (stop, _) = oneshot::channel();
    std::mem::replace(&mut running.stop, stop).send(()).unwrap();
    let mut tries = 0;
    while TcpStream::connect(running.client.address).await.is_ok() {
        tries += 1;
        assert!(tries < 100_000, "new connections are still taken");
        tokio::task::yield_now().await;
    }
    assert!(!running.task.is_finished(), "the server waits for what runs");
    part.write_all(&[7; 10]).await.unwrap();
    let mut answer = String::new();
    part.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    drop(cut);
    running.task.await.unwrap();
}

pub(super) async fn what_was_answered_is_there_after_a_restart(on: BackEnd) {
    let running = Running::start_on(on).await;
    let mut seeded = seed(&running).await;
    let draft = seeded.chain.draft(&seeded.world.author, &[crate::chain::put(1)]);
    let push = draft.push(&seeded.world.author);
    let path = seeded.path("commits");
    let pushed = seeded.client.post(&path, &push).await;
    let running = Running::start_in(running.stop().await).await;
    let client = running.client.with(&seeded.client.token.unwrap());
    let again = client.post(&path, &push).await;
    assert_eq!((again.status, again.body), (200, pushed.body), "sessions and commits outlive a restart");
    client.get("/v1/vaults").await.ok::<lockstep_proto::api::vault::Vaults>();
    running.client.get("/v1/vaults").await.refused(Code::Unauthenticated);
    running.stop().await;
}
