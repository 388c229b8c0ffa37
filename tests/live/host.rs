//! Host stores: rows of an app's own database as records.

use crate::device::{VAULT, World, status, synced};
use lockstep_client::host::{Fields, Host, HostChange, HostKey, HostSchema, HostWrite, Import, Taken};
use lockstep_client::live::{Live, State};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(crate) const SCHEMA: &str = r#"{"types": {
    "symptom": {},
    "entry": {"natural_key": ["date"], "references": {"symptoms": "symptom", "worst": "symptom"}},
    "dose": {"natural_key": ["entry", "drug"], "references": {"entry": "entry"}},
    "item": {"references": {"parent": "item"}}
}}"#;

pub(crate) fn host(live: &Live) -> Host {
    live.host(VAULT, "app", HostSchema::from_json(SCHEMA).unwrap()).unwrap()
}

pub(crate) fn fields(value: Value) -> Fields {
    let Value::Object(fields) = value else { panic!("{value}") };
    fields
}

pub(crate) fn write(change: &str, record_type: &str, key: i64, document: Option<Value>) -> HostWrite {
    HostWrite {
        change: change.into(),
        record_type: record_type.into(),
        key: key.into(),
        document: document.map(fields),
    }
}

/// An app's tables: rows by type and key.
#[derive(Default)]
pub(crate) struct Tables(pub(crate) BTreeMap<(String, i64), Fields>);

impl Tables {
    /// Takes all changes as an app does; gives them.
    pub(crate) async fn pull(&mut self, host: &Host) -> Vec<HostChange> {
        let mut all = Vec::new();
        loop {
            let page = host.changes(2).await.unwrap();
            if page.changes.is_empty() {
                host.acknowledge(page).await.unwrap();
                return all;
            }
            for change in &page.changes {
                self.apply(host, change).await;
            }
            all.extend(page.changes.clone());
            host.acknowledge(page).await.unwrap();
        }
    }

    pub(crate) async fn apply(&mut self, host: &Host, change: &HostChange) {
        let key = match &change.key {
            Some(HostKey::Number(key)) => *key,
            Some(HostKey::Text(_)) => panic!("keys are numbers here"),
            None => {
                let last = self.0.keys().filter(|(t, _)| *t == change.record_type).map(|(_, key)| *key).max();
                let key = last.unwrap_or(0) + 1;
                host.assign(&change.record_type, &change.name, key.into()).await.unwrap();
                key
            }
        };
        let place = (change.record_type.clone(), key);
        match &change.document {
            Some(document) => self.0.insert(place, document.clone()),
            None => self.0.remove(&place),
        };
    }

    pub(crate) fn of(&self, record_type: &str) -> Vec<(i64, Value)> {
        let rows = self.0.iter().filter(|((t, _), _)| t == record_type);
        rows.map(|((_, key), fields)| (*key, Value::Object(fields.clone()))).collect()
    }
}

pub(crate) async fn sent(live: &Live) {
    live.sync_now().await.unwrap();
    status(live, "everything sent", |status| status.pending == 0 && status.state == State::Idle).await;
}

#[tokio::test]
async fn what_is_handed_in_twice_has_one_effect_and_does_not_come_back() {
    let world = World::new();
    let home = world.signup("a").await;
    let live = synced(&home).await;
    let app = host(&live);
    let one = || vec![write("c1", "symptom", 7, Some(json!({"name": "ache"})))];
    assert_eq!(app.hand_in(one()).await.unwrap(), [Taken::Now]);
    assert_eq!(app.hand_in(one()).await.unwrap(), [Taken::Before]);
    live.close().await;
    let live = synced(&home).await;
    let app = host(&live);
    assert_eq!(app.hand_in(one()).await.unwrap(), [Taken::Before]);
    sent(&live).await;
    let records = live.list(VAULT, "symptom").await.unwrap();
    assert_eq!((records.len(), records[0].revision.value()), (1, 1));
    assert!(app.changes(10).await.unwrap().changes.is_empty(), "its own change came back");
    // All or none.
    let wrong = vec![
        write("c2", "symptom", 8, Some(json!({"name": "x"}))),
        write("c3", "dose", 1, Some(json!({"entry": 99, "drug": "d"}))),
    ];
    let error = app.hand_in(wrong).await.unwrap_err();
    assert!(error.to_string().contains("was not handed in"), "{error}");
    assert_eq!(live.list(VAULT, "symptom").await.unwrap().len(), 1);
    assert_eq!(app.hand_in(vec![write("c2", "symptom", 8, None)]).await.unwrap(), [Taken::Now]);
    // What is given up may come again as another change.
    app.release(vec![b"c1".to_vec()]).await.unwrap();
    assert_eq!(app.hand_in(one()).await.unwrap(), [Taken::Now]);
}

#[tokio::test]
async fn keys_and_references_are_each_stores_own() {
    let world = World::new();
    let (a, b) = (synced(&world.signup("a").await).await, synced(&world.login("b").await).await);
    let (at_a, at_b) = (host(&a), host(&b));
    // B has a symptom of its own under the key that A uses for another one.
    let own = vec![write("b1", "symptom", 1, Some(json!({"name": "of b"})))];
    at_b.hand_in(own).await.unwrap();
    let mut tables = Tables::default();
    tables.0.insert(("symptom".into(), 1), fields(json!({"name": "of b"})));
    at_a.hand_in(vec![
        // The dose refers to an entry that comes later in the batch, and that to symptoms.
        write("a1", "dose", 1, Some(json!({"entry": 5, "drug": "d", "mg": 10}))),
        write("a2", "entry", 5, Some(json!({"date": "mon", "symptoms": [1, 2], "worst": 2}))),
        write("a3", "symptom", 1, Some(json!({"name": "ache"}))),
        write("a4", "symptom", 2, Some(json!({"name": "burn"}))),
        write("a5", "item", 1, Some(json!({"parent": 2}))),
        write("a6", "item", 2, Some(json!({"parent": 1}))),
        write("a7", "item", 3, Some(json!({"parent": null}))),
    ])
    .await
    .unwrap();
    sent(&a).await;
    sent(&b).await;
    let told = tables.pull(&at_b).await;
    assert!(told.iter().all(|change| change.document.is_some() && change.device.is_some()));
    let symptoms: BTreeMap<String, i64> = tables
        .of("symptom")
        .into_iter()
        .map(|(key, row)| (row["name"].as_str().unwrap().to_owned(), key))
        .collect();
    assert_eq!((symptoms.len(), symptoms["of b"]), (3, 1));
    let entry =
        json!({"date": "mon", "symptoms": [symptoms["ache"], symptoms["burn"]], "worst": symptoms["burn"]});
    assert_eq!(tables.of("entry"), [(1, entry)]);
    assert_eq!(tables.of("dose"), [(1, json!({"entry": 1, "drug": "d", "mg": 10}))]);
    // Rows that refer to each other: one of them came twice.
    let items = tables.of("item");
    let parents: BTreeMap<i64, i64> =
        items.iter().filter_map(|(key, row)| Some((*key, row["parent"].as_i64()?))).collect();
    assert_eq!((items.len(), parents.len()), (3, 2), "{items:?}");
    assert!(parents.iter().all(|(key, parent)| parents[parent] == *key), "{items:?}");
    // A deletion, and an edit of B that goes the other way.
    let mut edited = fields(tables.of("entry")[0].1.clone());
    edited.insert("mood".into(), 3.into());
    at_b.hand_in(vec![write("b2", "entry", 1, Some(Value::Object(edited)))]).await.unwrap();
    at_a.hand_in(vec![write("a8", "dose", 1, None)]).await.unwrap();
    sent(&a).await;
    sent(&b).await;
    sent(&a).await;
    let told = at_a.changes(10).await.unwrap().changes;
    let entry = told.iter().find(|change| change.record_type == "entry").unwrap();
    assert_eq!(entry.key, Some(5.into()));
    let expected = json!({"date": "mon", "symptoms": [1, 2], "worst": 2, "mood": 3});
    assert_eq!(Value::Object(entry.document.clone().unwrap()), expected);
    tables.pull(&at_b).await;
    assert!(tables.of("dose").is_empty());
}

#[tokio::test]
async fn a_second_populated_device_merges_instead_of_duplicating() {
    let world = World::new();
    let (a, b) = (synced(&world.signup("a").await).await, synced(&world.login("b").await).await);
    let (at_a, at_b) = (host(&a), host(&b));
    let row = |t: &str, key: i64, row: Value| (t.to_owned(), HostKey::from(key), fields(row));
    at_a.import(vec![
        row("entry", 1, json!({"date": "mon", "mood": 1, "note": "of a"})),
        row("entry", 2, json!({"date": "tue", "mood": 2})),
        row("symptom", 1, json!({"name": "ache"})),
    ])
    .await
    .unwrap();
    sent(&a).await;
    b.sync_now().await.unwrap();
    assert_eq!(at_b.imported().await.unwrap(), Import::None);
    let rows = || {
        vec![
            row("entry", 1, json!({"date": "tue", "mood": 9, "sleep": 7})),
            row("entry", 2, json!({"date": "wed", "mood": 3})),
            row("symptom", 1, json!({"name": "ache"})),
        ]
    };
    assert_eq!(at_b.import(rows()).await.unwrap(), [Taken::Now; 3]);
    assert_eq!(at_b.imported().await.unwrap(), Import::Begun);
    assert_eq!(at_b.import(rows()).await.unwrap(), [Taken::Before; 3], "it can be taken up again");
    at_b.finish_import().await.unwrap();
    assert_eq!(at_b.imported().await.unwrap(), Import::Done);
    assert!(at_b.import(rows()).await.unwrap_err().to_string().contains("is done"));
    sent(&b).await;
    sent(&a).await;
    // One Tuesday, with what both knew of it; what B thought of it is in the history.
    let entries = a.list(VAULT, "entry").await.unwrap();
    assert_eq!(entries.len(), 3, "{entries:?}");
    let tuesday = entries.iter().find(|entry| entry.name == b"k:[\"tue\"]").unwrap();
    let document: Value = serde_json::from_slice(&tuesday.document).unwrap();
    assert_eq!(document, json!({"date": "tue", "mood": 2, "sleep": 7}));
    let history = a.history(VAULT, "entry", b"k:[\"tue\"]").await.unwrap();
    assert_eq!(history.len(), 3, "{history:?}");
    // Rows without a natural key are different ones.
    assert_eq!(a.list(VAULT, "symptom").await.unwrap().len(), 2);
    // B is told what became of its Tuesday, under its own key, and of Monday, which is new.
    let mut tables = Tables::default();
    tables.0.extend(rows().into_iter().map(|(t, key, fields)| match key {
        HostKey::Number(key) => ((t, key), fields),
        HostKey::Text(_) => panic!(),
    }));
    tables.pull(&at_b).await;
    let entries = tables.of("entry");
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[0], (1, json!({"date": "tue", "mood": 2, "sleep": 7})));
    assert_eq!(entries[2], (3, json!({"date": "mon", "mood": 1, "note": "of a"})));
}

#[tokio::test]
async fn edits_that_did_not_see_each_other_meet_field_by_field() {
    let world = World::new();
    let (a, b) = (synced(&world.signup("a").await).await, synced(&world.login("b").await).await);
    let (at_a, at_b) = (host(&a), host(&b));
    at_a.hand_in(vec![write("a1", "entry", 1, Some(json!({"date": "mon", "mood": 1, "note": ""})))])
        .await
        .unwrap();
    sent(&a).await;
    b.sync_now().await.unwrap();
    let mut tables = Tables::default();
    tables.pull(&at_b).await;
    at_a.hand_in(vec![write("a2", "entry", 1, Some(json!({"date": "mon", "mood": 2, "note": ""})))])
        .await
        .unwrap();
    sent(&a).await;
    b.sync_now().await.unwrap();
    // It is here, but the store has not been told.
    let edit = json!({"date": "mon", "mood": 1, "note": "of b"});
    at_b.hand_in(vec![write("b1", "entry", 1, Some(edit))]).await.unwrap();
    let told = tables.pull(&at_b).await;
    assert_eq!(told.len(), 1);
    let both = json!({"date": "mon", "mood": 2, "note": "of b"});
    assert_eq!(tables.of("entry"), [(1, both)]);
    // A deletion that did not see an edit: the edit stays and comes back.
    sent(&b).await;
    a.sync_now().await.unwrap();
    at_a.hand_in(vec![write("a3", "entry", 1, Some(json!({"date": "mon", "mood": 4, "note": ""})))])
        .await
        .unwrap();
    sent(&a).await;
    sent(&b).await;
    at_b.hand_in(vec![write("b2", "entry", 1, None)]).await.unwrap();
    let told = tables.pull(&at_b).await;
    assert_eq!((told.len(), &told[0].key), (1, &Some(1.into())));
    assert!(told[0].document.is_some());
}

/// A cursor that counts no more, as after a repair: everything is compared, and only what differs comes.
#[tokio::test]
async fn a_cursor_that_does_not_count_any_more_loses_and_repeats_nothing() {
    let world = World::new();
    let (home_a, home_b) = (world.signup("a").await, world.login("b").await);
    let (a, b) = (synced(&home_a).await, synced(&home_b).await);
    for n in 0..5 {
        host(&a).hand_in(vec![write(&format!("a{n}"), "symptom", n, Some(json!({"n": n})))]).await.unwrap();
    }
    sent(&a).await;
    b.sync_now().await.unwrap();
    let mut tables = Tables::default();
    assert_eq!(tables.pull(&host(&b)).await.len(), 5);
    b.close().await;
    let database = rusqlite::Connection::open(home_b.join("replica.sqlite")).unwrap();
    assert_eq!(database.execute("UPDATE host_store SET hash = zeroblob(32)", []).unwrap(), 1);
    drop(database);
    let edit = vec![write("e1", "symptom", 1, Some(json!({"n": "new"}))), write("e2", "symptom", 2, None)];
    host(&a).hand_in(edit).await.unwrap();
    sent(&a).await;
    let b = synced(&home_b).await;
    let told = tables.pull(&host(&b)).await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(tables.of("symptom").len(), 4);
    assert!(tables.pull(&host(&b)).await.is_empty());
}
