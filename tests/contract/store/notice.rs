//! What servers on one database tell each other.

use lockstep_proto::id::AccountId;
use lockstep_server::domain::notices::{Listener, Notices};
use lockstep_server::store::Store;
use lockstep_server::store::postgres::{PostgresStore, PostgresUrl};
use lockstep_tests::postgres::Cluster;
use std::sync::Arc;
use std::time::Duration;

/// A server on a database, who hears, and one who listens to what is heard of an account.
async fn server(url: &str, account: AccountId) -> (Arc<PostgresStore>, Listener) {
    let store = Arc::new(PostgresStore::open(&PostgresUrl::parse(url).unwrap(), 4).await.unwrap());
    let notices = Arc::new(Notices::default());
    let mut listener = notices.listen(account).unwrap();
    let (hears, heard) = (Arc::clone(&store), notices);
    tokio::spawn(async move { hears.hear_moved(&heard).await });
    // It begins with a wake.
    listener.woken().await;
    (store, listener)
}

/// The others are woken, once for each time; who told is not, for it woke its own listeners before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_does_not_wake_for_what_it_told_itself() {
    let account = AccountId::from_bytes([7; 16]);
    let url = Cluster::shared().database();
    let (one, mut by_one) = server(&url, account).await;
    let (_other, mut by_other) = server(&url, account).await;
    for _ in 0..3 {
        one.tell_moved(vec![account]).await.unwrap();
        tokio::time::timeout(Duration::from_secs(10), by_other.woken()).await.expect("the other hears");
    }
    // What is told later is heard later: had its own words woken it, they would have by now.
    let woken = tokio::time::timeout(Duration::from_millis(300), by_one.woken()).await;
    assert!(woken.is_err(), "it heard itself");
}
