//! A small app on the library: notes in a vault, and symptoms in a database of its own. docs/CLIENT.md explains it.
//!
//! `cargo run -p lockstep-client --example notes -- HOME`, with a home in which a device is signed in.

use lockstep_client::error::Result;
use lockstep_client::host::{Fields, Host, HostKey, HostSchema, HostWrite};
use lockstep_client::live::{Event, Live, Settings, State, document};
use std::path::Path;
use std::time::Duration;

const VAULT: &str = "files";

/// The library keeps the records.
async fn notes(home: &Path) -> Result<Live> {
    let live = Live::start(home, false, Settings::default()).await?;
    live.put(VAULT, vec![document("note", b"2026-01-01", b"{\"mood\":3}".to_vec())]).await?;
    let note = live.get(VAULT, "note", b"2026-01-01").await?;
    assert!(note.is_some_and(|note| note.pending || note.revision.value() > 0));
    Ok(live)
}

/// What is shown is read again when something changed.
async fn follow(live: &Live) -> Result<()> {
    let mut events = live.subscribe();
    while let Some(event) = events.next().await {
        match event {
            Event::Changed(change) => drop(live.read(&change.vault_name, change.record).await?),
            Event::Lagged(_) | Event::Repaired { .. } => drop(live.list(VAULT, "note").await?),
            Event::DeviceJoined { .. } => {}
        }
    }
    Ok(())
}

/// A line for the app's status bar.
fn line(live: &Live) -> String {
    let status = live.status().borrow().clone();
    let state = match status.state {
        State::Idle if status.pending == 0 => "in sync".to_owned(),
        State::Idle => format!("{} to send", status.pending),
        State::Syncing { done, of } => format!("syncing, {done} of {of}"),
        State::Offline { since_utc } => format!("offline since {since_utc}"),
        State::Paused => "paused".to_owned(),
    };
    match status.last_error() {
        Some(trouble) => format!("{state}. {}. {}", trouble.error, trouble.advice),
        None => state,
    }
}

const SCHEMA: &str = r#"{"types": {
    "symptom": {"natural_key": ["name"]},
    "entry": {"natural_key": ["date"], "references": {"symptomId": "symptom"}}
}}"#;

/// The app keeps its rows itself.
async fn rows(live: &Live) -> Result<()> {
    let host = live.host(VAULT, "dexie", HostSchema::from_json(SCHEMA)?)?;
    loop {
        give(&host, outbox()).await?;
        // Now those may be taken out of the app's outbox.
        if !take(&host).await? {
            return Ok(());
        }
    }
}

async fn give(host: &Host, outbox: Vec<(String, i64, Fields)>) -> Result<()> {
    let writes = outbox.into_iter().map(|(change, id, row)| HostWrite {
        change: change.into_bytes(),
        record_type: "entry".into(),
        key: HostKey::Number(id),
        document: Some(row),
    });
    host.hand_in(writes.collect()).await?;
    Ok(())
}

async fn take(host: &Host) -> Result<bool> {
    let page = host.changes(100).await?;
    let is_more = !page.changes.is_empty();
    let mut rows = Vec::new();
    for change in &page.changes {
        let key = if let Some(key) = &change.key {
            key.clone()
        } else {
            let key = HostKey::Number(next_id(&change.record_type));
            host.assign(&change.record_type, &change.name, key.clone()).await?;
            key
        };
        rows.push((change.record_type.as_str(), key, change.document.as_ref()));
    }
    // Else the outbox is handed in first, and the page comes again, with what became of both.
    if write_unless_edited(&rows) {
        host.acknowledge(page).await?;
    }
    Ok(is_more)
}

/// One more than the greatest id of the table.
fn next_id(_table: &str) -> i64 {
    1
}

/// What the app changed and has not handed in: id of the change, id of the row, and the row.
fn outbox() -> Vec<(String, i64, Fields)> {
    Vec::new()
}

/// In one transaction of the app: if the outbox has an entry of one of the rows, nothing is written, and it says false. Else
/// each is written under its id whether it is there or not, or deleted.
fn write_unless_edited(_rows: &[(&str, HostKey, Option<&Fields>)]) -> bool {
    true
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Some(home) = std::env::args_os().nth(1) else { return Ok(()) };
    let live = notes(Path::new(&home)).await?;
    rows(&live).await?;
    let _ = tokio::time::timeout(Duration::from_secs(10), follow(&live)).await;
    std::io::Write::write_all(&mut std::io::stdout(), line(&live).as_bytes()).ok();
    live.close().await;
    Ok(())
}
