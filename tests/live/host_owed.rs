//! What a host store is owed: references that it was not shown, and changes that it overtook.

use crate::device::{VAULT, World, start, synced};
use crate::host::{Tables, host, sent, write};
use lockstep_client::host::{Host, HostChange, HostSchema, Page, Unresolved};
use lockstep_client::live::{Live, document};
use lockstep_client_crypto::content::BlobRef;
use lockstep_engine::NewRecord;
use lockstep_proto::Digest;
use lockstep_proto::cbor::ByteArray;
use lockstep_proto::id::BlobId;
use serde_json::{Value, json};

/// Two devices that are in sync from the start.
async fn two(world: &World) -> (Live, Live) {
    (synced(&world.signup("a").await).await, synced(&world.login("b").await).await)
}

async fn hand_in(host: &Host, change: &str, record_type: &str, key: i64, document: Option<Value>) {
    host.hand_in(vec![write(change, record_type, key, document)]).await.unwrap();
}

/// What one sends, the other has.
async fn from_to(from: &Live, to: &Live) {
    sent(from).await;
    sent(to).await;
}

/// A document of the vault.
async fn in_vault(live: &Live, record_type: &str) -> Value {
    let records = live.list(VAULT, record_type).await.unwrap();
    assert_eq!(records.len(), 1, "{records:?}");
    serde_json::from_slice(&records[0].document).unwrap()
}

/// Deletes the symptom whose key is 2, so that references to it lead nowhere; gives its name.
async fn delete_burn(live: &Live, host: &Host) -> Vec<u8> {
    let records = live.list(VAULT, "symptom").await.unwrap();
    let is_burn = |document: &[u8]| std::str::from_utf8(document).unwrap().contains("burn");
    let name = records.into_iter().find(|record| is_burn(&record.document)).unwrap().name;
    hand_in(host, "delete burn", "symptom", 2, None).await;
    name
}

/// Pages of one change each, until there is none: the loop of the guide, with an end.
async fn pages(tables: &mut Tables, host: &Host) -> Vec<HostChange> {
    let mut all = Vec::new();
    for _ in 0..20 {
        let page = host.changes(1).await.unwrap();
        for change in &page.changes {
            tables.apply(host, change).await;
        }
        let is_over = page.changes.is_empty();
        all.extend(page.changes.clone());
        host.acknowledge(page).await.unwrap();
        if is_over {
            return all;
        }
    }
    panic!("it does not end");
}

#[tokio::test]
async fn a_reference_to_nothing_brings_its_row_once_and_holds_up_no_other() {
    let world = World::new();
    let (a, b) = two(&world).await;
    let (at_a, at_b) = (host(&a), host(&b));
    let entry = json!({"date": "mon", "symptoms": [1, 2], "worst": 2});
    at_a.hand_in(vec![
        write("a1", "symptom", 1, Some(json!({"name": "ache"}))),
        write("a2", "symptom", 2, Some(json!({"name": "burn"}))),
        write("a3", "entry", 1, Some(entry)),
        write("a4", "dose", 1, Some(json!({"entry": 1, "drug": "d"}))),
    ])
    .await
    .unwrap();
    let burn = delete_burn(&a, &at_a).await;
    from_to(&a, &b).await;
    let mut tables = Tables::default();
    let told = pages(&mut tables, &at_b).await;
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(tables.of("entry"), [(1, json!({"date": "mon", "symptoms": [1], "worst": null}))]);
    assert_eq!(tables.of("dose").len(), 1);
    assert!(pages(&mut tables, &at_b).await.is_empty());
    // It is there again: it comes, and what refers to it, once.
    a.put(VAULT, vec![document("symptom", &burn, b"{\"name\": \"burn\"}".to_vec())]).await.unwrap();
    from_to(&a, &b).await;
    assert_eq!(pages(&mut tables, &at_b).await.len(), 2);
    assert_eq!(tables.of("entry"), [(1, json!({"date": "mon", "symptoms": [1, 2], "worst": 2}))]);
}

#[tokio::test]
async fn an_edit_takes_no_reference_away_that_the_store_was_not_shown() {
    let world = World::new();
    let (a, b) = two(&world).await;
    let (at_a, at_b) = (host(&a), host(&b));
    let entry = json!({"date": "mon", "symptoms": [2, 1], "worst": 2});
    at_a.hand_in(vec![
        write("a1", "symptom", 1, Some(json!({"name": "ache"}))),
        write("a2", "symptom", 2, Some(json!({"name": "burn"}))),
        write("a3", "entry", 1, Some(entry)),
    ])
    .await
    .unwrap();
    let before = in_vault(&a, "entry").await;
    let burn = delete_burn(&a, &at_a).await;
    from_to(&a, &b).await;
    let mut tables = Tables::default();
    pages(&mut tables, &at_b).await;
    let edit = |mood: u32| Some(json!({"date": "mon", "symptoms": [1], "worst": null, "mood": mood}));
    for mood in [1, 2] {
        hand_in(&at_b, &format!("b{mood}"), "entry", 1, edit(mood)).await;
        let now = in_vault(&b, "entry").await;
        assert_eq!((&now["symptoms"], &now["worst"]), (&before["symptoms"], &before["worst"]), "{mood}");
    }
    // It comes into being, and gets its key; an edit from before the row that refers to it came again.
    sent(&b).await;
    a.put(VAULT, vec![document("symptom", &burn, b"{\"name\": \"burn\"}".to_vec())]).await.unwrap();
    from_to(&a, &b).await;
    let page = at_b.changes(1).await.unwrap();
    assert_eq!((page.changes.len(), page.changes[0].record_type.as_str()), (1, "symptom"));
    tables.apply(&at_b, &page.changes[0]).await;
    at_b.acknowledge(page).await.unwrap();
    hand_in(&at_b, "b3", "entry", 1, edit(3)).await;
    let now = in_vault(&b, "entry").await;
    assert_eq!((&now["symptoms"], &now["worst"]), (&before["symptoms"], &before["worst"]));
    pages(&mut tables, &at_b).await;
    let shown = json!({"date": "mon", "symptoms": [2, 1], "worst": 2, "mood": 3});
    assert_eq!(tables.of("entry"), [(1, shown)]);
    // What it was shown it can take out.
    hand_in(&at_b, "b4", "entry", 1, edit(4)).await;
    let now = in_vault(&b, "entry").await;
    assert_eq!((now["symptoms"].as_array().unwrap().len(), &now["worst"]), (1, &Value::Null));
}

/// An entry that both have; then A's edit of it is in a page that B was given.
async fn given_out(a: &Live, b: &Live, tables: &mut Tables) -> Page {
    let (at_a, at_b) = (host(a), host(b));
    hand_in(&at_a, "a1", "entry", 1, Some(json!({"date": "mon", "mood": 1, "note": ""}))).await;
    from_to(a, b).await;
    pages(tables, &at_b).await;
    hand_in(&at_a, "a2", "entry", 1, Some(json!({"date": "mon", "mood": 2, "note": ""}))).await;
    from_to(a, b).await;
    let page = at_b.changes(1).await.unwrap();
    assert_eq!(page.changes.len(), 1);
    page
}

#[tokio::test]
async fn a_deletion_between_a_page_and_its_acknowledgement_loses_no_change() {
    let world = World::new();
    let (a, b) = two(&world).await;
    let mut tables = Tables::default();
    let page = given_out(&a, &b, &mut tables).await;
    tables.0.clear();
    hand_in(&host(&b), "b1", "entry", 1, None).await;
    host(&b).acknowledge(page).await.unwrap();
    let told = pages(&mut tables, &host(&b)).await;
    assert_eq!(told.len(), 1);
    assert_eq!(tables.of("entry"), [(1, json!({"date": "mon", "mood": 2, "note": ""}))]);
    // Now it is a deletion of what the store has seen.
    hand_in(&host(&b), "b2", "entry", 1, None).await;
    assert!(b.list(VAULT, "entry").await.unwrap().is_empty());
    from_to(&b, &a).await;
    assert!(pages(&mut tables, &host(&b)).await.is_empty());
}

#[tokio::test]
async fn an_edit_between_a_page_and_its_acknowledgement_reverts_nothing() {
    let world = World::new();
    let (a, b) = two(&world).await;
    let mut tables = Tables::default();
    let page = given_out(&a, &b, &mut tables).await;
    // The store wrote the page over its edit, or the edit over the page: nobody knows.
    b.pause().await.unwrap();
    hand_in(&host(&b), "b1", "entry", 1, Some(json!({"date": "mon", "mood": 1, "note": "of b"}))).await;
    host(&b).acknowledge(page).await.unwrap();
    let both = json!({"date": "mon", "mood": 2, "note": "of b"});
    assert_eq!(in_vault(&b, "entry").await, both);
    assert_eq!(pages(&mut tables, &host(&b)).await.len(), 1, "while nothing can be sent");
    assert_eq!(tables.of("entry"), [(1, both)]);
    let next = json!({"date": "mon", "mood": 2, "note": "of b", "sleep": 7});
    hand_in(&host(&b), "b2", "entry", 1, Some(next.clone())).await;
    assert_eq!(in_vault(&b, "entry").await, next);
}

#[tokio::test]
async fn logs_show_nothing_of_rows() {
    let world = World::new();
    let live = synced(&world.signup("a").await).await;
    let entry = json!({"date": "mon", "note": "SECRET"});
    let edit = write("SECRET", "SECRET", 4711, Some(entry.clone()));
    live.put(VAULT, vec![document("entry", b"SECRET", entry.to_string().into_bytes())]).await.unwrap();
    let worst = json!({"date": "tue", "worst": "SECRET"}).to_string().into_bytes();
    live.put(VAULT, vec![document("entry", b"SECRET two", worst)]).await.unwrap();
    sent(&live).await;
    let page = host(&live).changes(10).await.unwrap();
    assert_eq!(page.changes.len(), 2);
    let unresolved: Vec<&Unresolved> = page.changes.iter().flat_map(|change| &change.unresolved).collect();
    assert_eq!((unresolved.len(), unresolved[0].name.as_str()), (1, "SECRET"));
    let text = format!("{edit:?} {page:?} {:?} {unresolved:?} {:?}", page.changes, edit.key);
    assert!(!text.contains("SECRET") && !text.contains("4711") && !text.contains("entry"), "{text}");
}

#[tokio::test]
async fn an_edit_leaves_the_objects_and_the_schema_of_what_is_here() {
    let world = World::new();
    let live = synced(&world.signup("a").await).await;
    // The object is at no server.
    live.pause().await.unwrap();
    let (blob, content_hash, seed) = (BlobId::from_bytes([7; 16]), Digest::ZERO, ByteArray([9; 32]));
    let blobs = vec![BlobRef { blob, size: 10, content_hash, seed, chunk_log2: 16 }];
    let record = document("entry", b"k:[\"mon\"]", b"{\"date\": \"mon\", \"photo\": 1}".to_vec());
    live.put(VAULT, vec![NewRecord { schema: 3, blobs: blobs.clone(), ..record }]).await.unwrap();
    hand_in(&host(&live), "a1", "entry", 1, Some(json!({"date": "mon", "mood": 1}))).await;
    let now = live.get(VAULT, "entry", b"k:[\"mon\"]").await.unwrap().unwrap();
    assert!(now.pending && now.document.windows(6).any(|text| text == b"\"mood\""), "{now:?}");
    assert_eq!((now.schema, now.blobs), (3, blobs));
}

#[tokio::test]
async fn what_a_schema_did_not_have_comes_with_one_that_has_it() {
    let world = World::new();
    let (a, b) = two(&world).await;
    let at_a = host(&a);
    hand_in(&at_a, "a1", "symptom", 1, Some(json!({"name": "ache"}))).await;
    hand_in(&at_a, "a2", "item", 1, Some(json!({"parent": null}))).await;
    from_to(&a, &b).await;
    let narrow = HostSchema::from_json(r#"{"types": {"item": {}}}"#).unwrap();
    let mut tables = Tables::default();
    assert_eq!(pages(&mut tables, &b.host(VAULT, "app", narrow.clone()).unwrap()).await.len(), 1);
    let told = pages(&mut tables, &host(&b)).await;
    assert_eq!((told.len(), told[0].record_type.as_str()), (1, "symptom"));
    // What came while the store did not know of it, in between.
    let narrow = b.host(VAULT, "app", narrow).unwrap();
    hand_in(&at_a, "a3", "symptom", 2, Some(json!({"name": "burn"}))).await;
    from_to(&a, &b).await;
    assert!(pages(&mut tables, &narrow).await.is_empty());
    assert_eq!(pages(&mut tables, &host(&b)).await.len(), 1);
    assert!(pages(&mut tables, &host(&b)).await.is_empty());
}

#[tokio::test]
async fn what_can_not_be_read_holds_up_nothing_and_comes_once_it_can() {
    let mut world = World::new();
    let (home_a, home_b) = (world.signup("a").await, world.login("b").await);
    let (a, b) = (synced(&home_a).await, synced(&home_b).await);
    let at_a = host(&a);
    hand_in(&at_a, "a1", "symptom", 1, Some(json!({"name": "ache"}))).await;
    from_to(&a, &b).await;
    // One of which something is known, and one of which nothing is.
    let mut tables = Tables::default();
    assert_eq!(pages(&mut tables, &host(&b)).await.len(), 1);
    hand_in(&at_a, "a2", "symptom", 1, Some(json!({"name": "aches"}))).await;
    hand_in(&at_a, "a3", "symptom", 2, Some(json!({"name": "burn"}))).await;
    from_to(&a, &b).await;
    b.close().await;
    world.server.kill();
    let present = |n: u8| {
        let database = rusqlite::Connection::open(home_b.join("replica.sqlite")).unwrap();
        let of_vault = "vault = (SELECT vault FROM host_store) AND kind = 1";
        database.execute(&format!("UPDATE record SET present = ?1 WHERE {of_vault}"), [n]).unwrap()
    };
    assert!(present(0) >= 2);
    let b = start(&home_b).await;
    hand_in(&host(&b), "b1", "item", 1, Some(json!({"parent": null}))).await;
    assert!(pages(&mut tables, &host(&b)).await.is_empty());
    b.close().await;
    present(1);
    let b = start(&home_b).await;
    let told = pages(&mut tables, &host(&b)).await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(tables.of("symptom"), [(1, json!({"name": "aches"})), (2, json!({"name": "burn"}))]);
}

/// What the guide asks of an app: a page whose row has an entry in the outbox waits until that was handed in.
#[tokio::test]
async fn an_edit_from_before_a_page_meets_it_if_it_is_handed_in_first() {
    let world = World::new();
    let (a, b) = two(&world).await;
    let mut tables = Tables::default();
    let page = given_out(&a, &b, &mut tables).await;
    let mut outbox = vec![write("b1", "entry", 1, Some(json!({"date": "mon", "mood": 1, "note": "of b"})))];
    if page.changes.iter().all(|change| outbox.iter().all(|entry| change.key.as_ref() != Some(&entry.key))) {
        tables.apply(&host(&b), &page.changes[0]).await;
        host(&b).acknowledge(page).await.unwrap();
    }
    host(&b).hand_in(std::mem::take(&mut outbox)).await.unwrap();
    assert_eq!(pages(&mut tables, &host(&b)).await.len(), 1);
    let both = json!({"date": "mon", "mood": 2, "note": "of b"});
    assert_eq!(tables.of("entry"), [(1, both.clone())]);
    from_to(&b, &a).await;
    assert_eq!(in_vault(&a, "entry").await, both);
}

#[tokio::test]
async fn an_edit_of_a_page_that_is_not_acknowledged_yet_takes_nothing_back() {
    let world = World::new();
    let (a, b) = two(&world).await;
    let mut tables = Tables::default();
    let page = given_out(&a, &b, &mut tables).await;
    tables.apply(&host(&b), &page.changes[0]).await;
    let edit = json!({"date": "mon", "mood": 2, "note": "after it"});
    hand_in(&host(&b), "b1", "entry", 1, Some(edit.clone())).await;
    host(&b).acknowledge(page).await.unwrap();
    assert_eq!(in_vault(&b, "entry").await, edit);
    pages(&mut tables, &host(&b)).await;
    assert_eq!(tables.of("entry"), [(1, edit)]);
}
