//! `watch`: follows vaults and prints what changes, a JSON object a line.

use crate::Context;
use crate::output::{shown, status_of};
use lockstep_client::ClientError;
use lockstep_client::account::Account;
use lockstep_client::error::Result;
use lockstep_client::home::Home;
use lockstep_client::live::{Change, Event, Live, Settings, State, Status, Subscription, Trouble};
use lockstep_engine::files::{FILE_TYPE, FileDoc};
use lockstep_engine::read;
use lockstep_proto::cbor::Wire as _;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch::Receiver;

pub(crate) async fn watch(context: &Context, only: &[String]) -> Result<ExitCode> {
    // Other commands find the home free in between.
    let settings = Settings { shares_home: true, events_max: 1 << 16, ..Settings::default() };
    let live = Live::start(&context.home, context.insecure_http, settings).await?;
    let (events, status) = (live.subscribe(), live.status());
    let mut following = Following {
        context,
        only,
        events,
        status,
        is_away: false,
        in_trouble: BTreeSet::new(),
        reader: None,
    };
    let done = tokio::select! {
        done = following.run(&live) => done,
        () = stopped(context) => Ok(ExitCode::SUCCESS),
    };
    live.close().await;
    done
}

/// Resolves once Ctrl-C was pressed.
async fn stopped(context: &Context) {
    while !context.stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

struct Following<'a> {
    context: &'a Context,
    /// Names of the vaults to follow; none: all.
    only: &'a [String],
    events: Subscription,
    status: Receiver<Status>,
    /// Whether it was said that the server is away.
    is_away: bool,
    /// Vaults of which it was said that they can not be synced.
    in_trouble: BTreeSet<String>,
    /// What is held, read beside whoever writes.
    reader: Option<Account>,
}

impl Following<'_> {
    async fn run(&mut self, live: &Live) -> Result<ExitCode> {
        let first = live.sync_now().await?;
        if let Some(trouble) = &first.trouble {
            return Ok(self.end(trouble));
        }
        for name in self.only {
            if first.vaults.iter().all(|vault| vault.name != *name) {
                return Err(ClientError::NotFound(format!("there is no vault \"{name}\"")));
            }
        }
        // What was there before is no news.
        while let Some(event) = self.events.try_next() {
            if let Event::DeviceJoined { name, id } = event {
                self.context.tell_device(&name, &id);
            }
        }
        self.say_troubles(&first);
        self.context.out.note("watching; Ctrl-C ends it");
        loop {
            tokio::select! {
                event = self.events.next() => match event {
                    Some(event) => self.print(event),
                    None => return Err(ClientError::Usage("sync ended".into())),
                },
                changed = self.status.changed() => {
                    changed.map_err(|_| ClientError::Usage("sync ended".into()))?;
                    let status = self.status.borrow_and_update().clone();
                    if let Some(trouble) = status.trouble.as_ref().filter(|trouble| trouble.needs_person) {
                        return Ok(self.end(trouble));
                    }
                    self.say_troubles(&status);
                }
            }
        }
    }

    fn end(&self, trouble: &Trouble) -> ExitCode {
        self.context.out.error(&trouble.error);
        ExitCode::from(status_of(&trouble.error))
    }

    /// Each once, until it is over.
    fn say_troubles(&mut self, status: &Status) {
        let out = &self.context.out;
        let is_away = matches!(status.state, State::Offline { .. });
        match (&status.trouble, is_away) {
            (Some(trouble), true) if !self.is_away => {
                out.note(&format!("{}; it is tried again", trouble.error));
                self.is_away = true;
            }
            (None, false) if self.is_away => {
                out.note("the server is there again");
                self.is_away = false;
            }
            _ => {}
        }
        for vault in &status.vaults {
            // Whether the server is away is told once for all.
            let is_told = |trouble: &&Trouble| matches!(*trouble.error, ClientError::Unreachable { .. });
            match &vault.trouble {
                Some(trouble) if is_told(&trouble) => {}
                Some(trouble) if !is_away && self.in_trouble.insert(vault.name.clone()) => {
                    let name = shown(vault.name.as_bytes());
                    out.note(&format!("vault {name}: {}; {}", trouble.error, trouble.advice));
                }
                None if self.in_trouble.remove(&vault.name) => {
                    out.note(&format!("vault {} is in sync again", shown(vault.name.as_bytes())));
                }
                _ => {}
            }
        }
    }

    fn is_followed(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    fn print(&mut self, event: Event) {
        let line = match event {
            Event::Changed(change) if self.is_followed(&change.vault_name) => self.line(&change),
            Event::Repaired { vault, vault_name, seq } if self.is_followed(&vault_name) => Some(json!({
                "vault": &*vault_name, "vault_id": vault.to_string(), "commit": seq.value(), "repaired": true,
            })),
            Event::Lagged(missed) => Some(json!({ "lagged": missed })),
            Event::DeviceJoined { name, id } => {
                self.context.tell_device(&name, &id);
                None
            }
            _ => None,
        };
        if let Some(line) = line {
            self.context.out.line(&line);
        }
    }

    fn line(&mut self, change: &Change) -> Option<Value> {
        let (seq, revision) = change.committed?;
        let record_type = change.record_type.as_deref();
        let is_file = record_type == Some(FILE_TYPE) && !change.deleted;
        let path = if is_file { self.path(change) } else { None };
        let id = change
            .name
            .as_deref()
            .filter(|_| record_type.is_some_and(|record_type| !record_type.starts_with("lockstep/")))
            .map(crate::record::id_of);
        Some(json!({
            "commit": seq.value(), "device": change.device.to_string(), "record": change.record.to_string(),
            "revision": revision.value(), "deleted": change.deleted, "type": record_type, "id": id, "path": path,
            "vault": &*change.vault_name, "vault_id": change.vault.to_string(), "own": change.own,
        }))
    }

    /// The path of a file as its record says it now.
    fn path(&mut self, change: &Change) -> Option<String> {
        for _ in 0..2 {
            if self.reader.is_none() {
                let home = Home::open_read_only(&self.context.home);
                self.reader = Account::open(home, self.context.insecure_http).ok();
            }
            let path = self.reader.as_ref().and_then(|account| {
                let vault = account.open_vault_locally(&change.vault_name).ok()?;
                let current = read::current(vault.replica(), &vault.setup().keys, change.record).ok()??;
                let doc = FileDoc::decode(&current.content.document.0).ok()?;
                Some(shown(&doc.path.0))
            });
            if path.is_some() {
                return path;
            }
            // It may have been opened before the key came.
            self.reader = None;
        }
        None
    }
}
