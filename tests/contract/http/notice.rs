//! Notices: who listens is told which vaults moved, and nothing else; whose session ends is told no more.

use super::{BackEnd, Place, Running, Seeded, postgres, seed};
use crate::chain::{Op, put};
use crate::client::Client;
use crate::folder::Folder;
use futures_util::{SinkExt as _, StreamExt as _};
use lockstep_proto::api::notice::{Heads, Listen, WaitForHeads};
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::vault::{CreateVault, Pushed};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::{AccountId, Seq, VaultId};
use lockstep_server::domain::notices::LISTENERS_A_ACCOUNT_MAX;
use lockstep_tests::postgres::Cluster;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// What is waited for comes at once; a machine that is busy takes a while. Below the heart beat of 30 seconds, which
/// would tell, too.
const SOON: Duration = Duration::from_secs(20);

struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    async fn open(client: &Client) -> Self {
        let stream = TcpStream::connect(client.address).await.unwrap();
        let address = format!("ws://{}/v1/events", client.address);
        Self(client_async(address, stream).await.unwrap().0)
    }

    /// Opens one and says what is known.
    async fn listen(client: &Client, known: &[(VaultId, u64)]) -> Self {
        let mut socket = Self::open(client).await;
        let token = client.token.clone().unwrap();
        socket.send(Message::Binary(Listen { token, heads: heads(known) }.encode().into())).await;
        socket
    }

    async fn send(&mut self, message: Message) {
        self.0.send(message).await.unwrap();
    }

    async fn message(&mut self) -> Message {
        timeout(SOON, self.0.next()).await.expect("it came too late").expect("no end").unwrap()
    }

    async fn told(&mut self) -> Vec<(VaultId, u64)> {
        match self.message().await {
            Message::Binary(bytes) => Heads::decode(&bytes)
                .unwrap()
                .0
                .into_iter()
                .map(|(vault, seq)| (vault, seq.value()))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Nothing comes for a moment.
    async fn is_silent(&mut self) {
        let next = timeout(Duration::from_millis(300), self.0.next()).await;
        assert!(next.is_err(), "{next:?}");
    }

    async fn ends(&mut self, code: u16) {
        match self.message().await {
            Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), code, "{frame:?}"),
            other => panic!("{other:?}"),
        }
    }
}

fn heads(known: &[(VaultId, u64)]) -> Heads {
    Heads(known.iter().map(|(vault, seq)| (*vault, Seq::new(*seq))).collect())
}

async fn push(seeded: &mut Seeded, ops: &[Op]) {
    let author = &seeded.world.author;
    let draft = seeded.chain.draft(author, ops);
    let pushed: Pushed = seeded.client.post(&seeded.path("commits"), &draft.push(author)).await.ok();
    seeded.chain.follow(&draft.prepare(author));
    assert_eq!(pushed.seq, seeded.chain.seq());
}

pub(super) async fn a_socket_is_told_what_moved(on: BackEnd) {
    let running = Running::start_on(on).await;
    let mut seeded = seed(&running).await;
    let keyring = seeded.keyring;
    let mut behind = Socket::listen(&seeded.client, &[]).await;
    assert_eq!(behind.told().await, [(keyring, 0)], "what is not known is told at once");
    let mut socket = Socket::listen(&seeded.client, &[(keyring, 0)]).await;
    assert_eq!(socket.told().await, [], "the server listens");
    socket.is_silent().await;
    for seq in 1..=3 {
        push(&mut seeded, &[put(1)]).await;
        for socket in [&mut socket, &mut behind] {
            assert_eq!(socket.told().await, [(keyring, seq)]);
        }
    }
    let vault = VaultId::from_bytes([0x41; 16]);
    let birth = seeded.world.birth(vault, 5);
    let create = CreateVault { create: birth.create, genesis: birth.genesis };
    seeded.client.post("/v1/vaults", &create).await.nothing();
    assert_eq!(socket.told().await, [(vault, 0)]);
    socket.send(Message::Ping(vec![1].into())).await;
    assert_eq!(socket.message().await, Message::Pong(vec![1].into()));
    let mut order = [(vault, 0), (keyring, 9)];
    order.sort_unstable_by_key(|(vault, _)| std::cmp::Reverse(*vault));
    Socket::listen(&seeded.client, &order).await.ends(1008).await;
    order.reverse();
    let mut ahead = Socket::listen(&seeded.client, &order).await;
    assert_eq!(ahead.told().await, [(keyring, 3)], "a server that is behind says so");
    running.stop().await;
    for socket in [&mut socket, &mut ahead] {
        socket.ends(1001).await;
    }
}

pub(super) async fn who_may_not_listen_is_told_why(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let listen = |token: &str| Listen { token: token.into(), heads: Heads::default() }.encode();
    let token = seeded.client.token.clone().unwrap();
    let mut long = listen(&token);
    long.resize(Listen::BYTES_MAX + 1, 0);
    for (first, code) in [
        (Message::Text("hello".into()), 1008),
        (Message::Binary(vec![0x80].into()), 1008),
        (Message::Binary(listen("").into()), 4401),
        (Message::Binary(listen(&"A".repeat(43)).into()), 4401),
        (Message::Binary(listen(seeded.provisional.token.as_deref().unwrap()).into()), 4403),
    ] {
        let mut socket = Socket::open(&seeded.client).await;
        socket.send(first).await;
        socket.ends(code).await;
    }
    let mut socket = Socket::open(&seeded.client).await;
    let _ = socket.0.send(Message::Binary(long.into())).await;
    let end = timeout(SOON, socket.0.next()).await.unwrap();
    assert!(!matches!(end, Some(Ok(Message::Binary(_)))), "too long a message was taken: {end:?}");
    let mut socket = Socket::listen(&seeded.client, &[(seeded.keyring, 0)]).await;
    socket.told().await;
    socket.send(Message::Binary(listen(&token).into())).await;
    socket.ends(1008).await;
    seeded.client.get("/v1/events").await.refused(Code::Malformed);
    running.stop().await;
}

pub(super) async fn a_session_that_ends_takes_its_sockets_along(on: BackEnd) {
    let running = Running::start_on(on).await;
    let mut seeded = seed(&running).await;
    let mut socket = Socket::listen(&seeded.client, &[(seeded.keyring, 0)]).await;
    socket.told().await;
    let session = lockstep_server::extract::session::open_session(
        &running.app,
        seeded.world.account,
        Some(seeded.world.author.keys.id()),
    );
    let other = running.client.with(&session.await.unwrap().token);
    other.send("DELETE", "/v1/session", "", b"").await.nothing();
    socket.is_silent().await;
    push(&mut seeded, &[put(1)]).await;
    assert_eq!(socket.told().await.len(), 1, "another session's end is no end of this one");
    seeded.client.send("DELETE", "/v1/session", "", b"").await.nothing();
    socket.ends(4401).await;
    running.stop().await;
}

pub(super) async fn listeners_have_a_bound(on: BackEnd) {
    let running = Running::start_on(on).await;
    let seeded = seed(&running).await;
    let all: Vec<_> = (0..LISTENERS_A_ACCOUNT_MAX)
        .map(|_| running.app.notices.listen(seeded.world.account).unwrap())
        .collect();
    let mut socket = Socket::listen(&seeded.client, &[]).await;
    socket.ends(1013).await;
    let wait = WaitForHeads { heads: Heads::default(), seconds: 0 };
    let answer = seeded.client.post("/v1/events/wait", &wait).await;
    answer.refused(Code::Busy);
    assert!(answer.header("retry-after").is_some());
    assert!(running.app.notices.listen(AccountId::from_bytes([9; 16])).is_some(), "others are not held up");
    drop(all);
    let mut socket = Socket::listen(&seeded.client, &[]).await;
    assert_eq!(socket.told().await, [(seeded.keyring, 0)]);
    running.stop().await;
}

pub(super) async fn a_request_waits_until_something_moves(on: BackEnd) {
    let running = Running::start_on(on).await;
    let mut seeded = seed(&running).await;
    let keyring = seeded.keyring;
    let client = seeded.client.clone();
    let wait = |known: &[(VaultId, u64)], seconds| WaitForHeads { heads: heads(known), seconds };
    let told: Heads = client.post("/v1/events/wait", &wait(&[], 25)).await.ok();
    assert_eq!(told, heads(&[(keyring, 0)]), "at once");
    let told: Heads = client.post("/v1/events/wait", &wait(&[(keyring, 0)], 0)).await.ok();
    assert_eq!(told, Heads::default(), "nothing moved");
    let waiting = tokio::spawn(async move {
        let known = WaitForHeads { heads: heads(&[(keyring, 0)]), seconds: u64::MAX };
        client.post("/v1/events/wait", &known).await.ok::<Heads>()
    });
    // It listens before the commit comes, or sees it when it looks: both are told.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begin = Instant::now();
    push(&mut seeded, &[put(1)]).await;
    assert_eq!(waiting.await.unwrap(), heads(&[(keyring, 1)]));
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    let wrong = WaitForHeads { heads: Heads(vec![(keyring, Seq::new(0)); 2]), seconds: 0 };
    seeded.client.post("/v1/events/wait", &wrong).await.refused(Code::Malformed);
    let none = wait(&[], 0);
    seeded.provisional.post("/v1/events/wait", &none).await.refused(Code::Forbidden);
    running.client.post("/v1/events/wait", &none).await.refused(Code::Unauthenticated);
    let client = seeded.client.clone();
    let waiting = tokio::spawn(async move {
        let known = WaitForHeads { heads: heads(&[(keyring, 1)]), seconds: 25 };
        client.post("/v1/events/wait", &known).await.ok::<Heads>()
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    running.stop().await;
    assert_eq!(waiting.await.unwrap(), Heads::default(), "a server that stops lets go");
}

/// What moves on one server is told by another one on the same database, also after PostgreSQL cut its connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_on_one_database_tell_each_other() {
    let url = Cluster::shared().database();
    let place = Place::at(Folder::new(), postgres(&url));
    let (one, other) = (Running::start_in(place.clone()).await, Running::start_in(place).await);
    let mut seeded = seed(&one).await;
    let there = other.client.with(seeded.client.token.as_deref().unwrap());
    let mut socket = Socket::listen(&there, &[(seeded.keyring, 0)]).await;
    assert_eq!(socket.told().await, []);
    for seq in 1..=2 {
        push(&mut seeded, &[put(1)]).await;
        assert_eq!(socket.told().await, [(seeded.keyring, seq)]);
    }
    let name = lockstep_tests::postgres::name_of(&url);
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    Cluster::shared().sql(name, cut);
    push(&mut seeded, &[put(2)]).await;
    assert_eq!(socket.told().await, [(seeded.keyring, 3)], "whoever listens again looks");
    one.stop().await;
    other.stop().await;
}
