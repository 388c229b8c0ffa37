//! Several servers on one PostgreSQL database and one folder of objects: which one a device talks to does
//! not matter, nor does it when one of them, a connection or PostgreSQL itself dies in the middle.

use super::object::{blob, frames};
use super::{BackEnd, Place, Running, Seeded, postgres, seed};
use crate::chain::{Op, put, record};
use crate::client::{Answer, Client};
use crate::folder::Folder;
use lockstep_proto::api::object::Stored;
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::vault::{Page, PushCommit, Pushed, Vaults};
use lockstep_proto::id::Seq;
use lockstep_server::config::Database;
use lockstep_server::store::Store as _;
use lockstep_server::store::postgres::{PostgresStore, PostgresUrl};
use lockstep_tests::postgres::{Cluster, name_of};
use sqlx::{Connection as _, PgConnection};

/// Two servers, and a device that has a session with both.
struct Two {
    one: Running,
    other: Running,
    seeded: Seeded,
    there: Client,
    url: String,
}

impl Two {
    async fn start() -> Self {
        let url = Cluster::shared().database();
        let place = Place::at(Folder::new(), postgres(&url));
        let (one, other) = (Running::start_in(place.clone()).await, Running::start_in(place).await);
        let seeded = seed(&one).await;
        let there = other.client.with(seeded.client.token.as_deref().unwrap());
        Self { one, other, seeded, there, url }
    }

    /// The next commit; the model follows it.
    fn next(&mut self, ops: &[Op]) -> PushCommit {
        let author = &self.seeded.world.author;
        let draft = self.seeded.chain.draft(author, ops);
        self.seeded.chain.follow(&draft.prepare(author));
        draft.push(author)
    }

    async fn page(&self, client: &Client) -> Page {
        client.get(&(self.seeded.path("commits") + "?after=0")).await.ok()
    }

    /// Both servers show the chain that the model knows.
    async fn assert_whole(&self) {
        let head = self.seeded.chain.seq();
        for client in [&self.seeded.client, &self.there] {
            let page = self.page(client).await;
            assert_eq!((page.head_seq, page.commits.len() as u64), (head, head.value()));
            assert_eq!(page.entries.len(), self.seeded.chain.live().count());
        }
    }

    fn sql(&self, statement: &str) -> String {
        Cluster::shared().sql(name_of(&self.url), statement)
    }

    /// The connection whose statement begins so and waits for a lock, when there is one.
    fn waiting(&self, statement: &str, but: &str) -> String {
        for _ in 0..600 {
            let pid = self.sql(&format!(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database()
                 AND wait_event_type = 'Lock' AND query LIKE '{statement}%' AND pid::text <> '{but}'"
            ));
            if !pid.is_empty() {
                return pid;
            }
        }
        panic!("nobody waits in: {statement}");
    }

    /// Whoever is to write a pin waits until this connection ends.
    async fn hold_pins(&self) -> PgConnection {
        let mut holder = PgConnection::connect(&self.url).await.unwrap();
        sqlx::raw_sql("BEGIN; LOCK TABLE pin IN ACCESS EXCLUSIVE MODE").execute(&mut holder).await.unwrap();
        holder
    }

    async fn stop(self) {
        self.one.stop().await;
        self.other.stop().await;
    }
}

/// Sends a commit on a task of its own.
fn post(client: &Client, path: &str, push: &PushCommit) -> tokio::task::JoinHandle<Answer> {
    let (client, path, push) = (client.clone(), path.to_owned(), push.clone());
    tokio::spawn(async move { client.post(&path, &push).await })
}

const WRITES_PIN: &str = "INSERT INTO pin";
const LOCKS_ACCOUNT: &str = "SELECT 1 FROM account WHERE id =";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn either_server_will_do() {
    let mut two = Two::start().await;
    let path = two.seeded.path("commits");
    for round in 0..6 {
        let push = two.next(&[put(round), put(100)]);
        let client = if round % 2 == 0 { two.seeded.client.clone() } else { two.there.clone() };
        client.post(&path, &push).await.ok::<Pushed>();
        two.assert_whole().await;
    }
    let bytes = vec![7; 300_000];
    two.seeded.upload(&frames(&[(blob(1), &bytes)])).await.ok::<Stored>();
    let push = two.next(&[Op::Put(record(1), 40, vec![blob(1)])]);
    two.there.post(&path, &push).await.ok::<Pushed>();
    for client in [&two.seeded.client, &two.there] {
        assert!(client.get(&two.seeded.object(blob(1))).await.body == bytes);
        assert_eq!(client.get("/v1/vaults").await.ok::<Vaults>().0[0].seq, two.seeded.chain.seq());
    }
    two.there.send("DELETE", "/v1/session", "", b"").await.nothing();
    two.seeded.client.get("/v1/vaults").await.refused(Code::Unauthenticated);
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_race_through_two_servers_has_one_winner() {
    let mut two = Two::start().await;
    let path = two.seeded.path("commits");
    for round in 0..8 {
        let author = &two.seeded.world.author;
        let drafts: Vec<_> = (0..8).map(|number| two.seeded.chain.draft(author, &[put(number)])).collect();
        let pushes: Vec<_> = drafts.iter().map(|draft| draft.push(author)).collect();
        // Each goes to both servers at once.
        let posts: Vec<_> = pushes
            .iter()
            .flat_map(|push| [post(&two.seeded.client, &path, push), post(&two.there, &path, push)])
            .collect();
        let mut statuses = Vec::new();
        for answer in posts {
            statuses.push(answer.await.unwrap().status);
        }
        let won: Vec<usize> = (0..drafts.len()).filter(|index| statuses[2 * index] == 200).collect();
        assert_eq!(won.len(), 1, "round {round}: {statuses:?}");
        assert_eq!(statuses[2 * won[0] + 1], 200, "the same commit is one commit");
        assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 14, "{statuses:?}");
        let prepared = drafts[won[0]].prepare(&two.seeded.world.author);
        two.seeded.chain.follow(&prepared);
    }
    two.assert_whole().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_connection_that_dies_in_mid_commit_loses_nothing() {
    let mut two = Two::start().await;
    let path = two.seeded.path("commits");
    let push = two.next(&[put(1), put(2), Op::Pin(0)]);
    let holder = two.hold_pins().await;
    let answer = post(&two.seeded.client, &path, &push);
    let first = two.waiting(WRITES_PIN, "");
    two.sql(&format!("SELECT pg_terminate_backend({first})"));
    two.waiting(WRITES_PIN, &first);
    assert_eq!(two.page(&two.there).await.head_seq, Seq::new(0), "nothing of it is seen");
    holder.close().await.unwrap();
    let answer = answer.await.unwrap();
    let pushed: Pushed = answer.ok();
    assert_eq!((pushed.seq, pushed.head), (Seq::new(1), two.seeded.chain.tip.hash));
    assert_eq!(two.there.post(&path, &push).await, answer, "the other server says the same");
    assert_eq!(two.sql("SELECT count(*) FROM pin"), "1");
    two.assert_whole().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_dies_in_mid_commit_loses_nothing() {
    let mut two = Two::start().await;
    let path = two.seeded.path("commits");
    let push = two.next(&[put(1), put(2), Op::Pin(0)]);
    let holder = two.hold_pins().await;
    let cut = post(&two.seeded.client, &path, &push);
    let first = two.waiting(WRITES_PIN, "");
    two.one.task.abort();
    cut.abort();
    // What the dead server began still holds the account; its connection goes as those of dead processes do.
    let answer = post(&two.there, &path, &push);
    two.waiting(LOCKS_ACCOUNT, "");
    two.sql(&format!("SELECT pg_terminate_backend({first})"));
    two.waiting(WRITES_PIN, &first);
    holder.close().await.unwrap();
    let answer = answer.await.unwrap();
    let pushed: Pushed = answer.ok();
    assert_eq!((pushed.seq, pushed.head), (Seq::new(1), two.seeded.chain.tip.hash));
    let again = Running::start_in(two.one.place.clone()).await;
    two.seeded.client = again.client.with(two.seeded.client.token.as_deref().unwrap());
    assert_eq!(two.seeded.client.post(&path, &push).await, answer);
    two.assert_whole().await;
    again.stop().await;
    two.other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connections_that_are_cut_all_the_time_cost_no_commit() {
    let mut two = Two::start().await;
    let path = two.seeded.path("commits");
    let pushes: Vec<_> = (0..30).map(|number| two.next(&[put(number), put(100)])).collect();
    let clients = [two.seeded.client.clone(), two.there.clone()];
    let writer = tokio::spawn(async move {
        for (number, push) in pushes.iter().enumerate() {
            let mut tries = 0;
            loop {
                let answer = clients[(number + tries) % 2].post(&path, push).await;
                if answer.status == 200 {
                    break;
                }
                answer.refused(Code::Busy);
                assert!(answer.header("retry-after").is_some());
                tries += 1;
                assert!(tries < 100, "commit {number} never comes through");
            }
        }
    });
    while !writer.is_finished() {
        two.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'lockstep-server'",
        );
    }
    writer.await.unwrap();
    two.assert_whole().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgresql_stops_and_comes_back() {
    let cluster = Cluster::start();
    let running = Running::start_in(Place::at(Folder::new(), postgres(&cluster.database()))).await;
    let mut seeded = seed(&running).await;
    let path = seeded.path("commits");
    for mode in ["immediate", "fast"] {
        let draft = seeded.chain.draft(&seeded.world.author, &[put(1)]);
        let push = draft.push(&seeded.world.author);
        cluster.stop(mode);
        for _ in 0..2 {
            let answer = seeded.client.post(&path, &push).await;
            answer.refused(Code::Busy);
            assert!(answer.header("retry-after").is_some());
        }
        assert_eq!(running.client.get("/readyz").await.status, 503);
        cluster.start_again();
        seeded.client.post(&path, &push).await.ok::<Pushed>();
        seeded.chain.follow(&draft.prepare(&seeded.world.author));
        assert_eq!(running.client.get("/readyz").await.status, 200);
    }
    let page: Page = seeded.client.get(&path).await.ok();
    assert_eq!((page.head_seq, page.commits.len()), (Seq::new(2), 3));
    running.stop().await;
}

#[test]
fn many_servers_start_at_once_on_an_empty_database() {
    let url = PostgresUrl::parse(&Cluster::shared().database()).unwrap();
    let start = |number: u8| {
        let url = url.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let store = PostgresStore::open(&url, 2).await.unwrap();
                let secret = store.secret("opaque", vec![number]).await.unwrap();
                store.close().await;
                secret
            })
        })
    };
    let starts: Vec<_> = (0..8).map(start).collect();
    let secrets: std::collections::BTreeSet<_> =
        starts.into_iter().map(|start| start.join().unwrap()).collect();
    assert_eq!(secrets.len(), 1, "all of them have the secret of the first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_folder_is_locked() {
    let running = Running::start_on(BackEnd::Postgres).await;
    assert!(matches!(running.place.config.database, Database::Postgres(_)));
    let folder = &running.place.folder;
    let marker = folder.path().join("data/objects").join(lockstep_server::objects::local::MARKER);
    assert_eq!(folder.files(), [marker], "no lock and no database in the folder");
    running.stop().await;
}
