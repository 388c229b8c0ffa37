//! `watch`: follows vaults and prints what changes, a JSON object a line.

use crate::Context;
use crate::look::sync_all;
use crate::output::shown;
use lockstep_client::account::Account;
use lockstep_client::changes::Changed;
use lockstep_client::error::Result;
use lockstep_client::home::Home;
use lockstep_client::notice::Listener;
use lockstep_client::vault::Vault;
use lockstep_client::{ClientError, rng};
use lockstep_engine::files::{FILE_TYPE, FileDoc};
use lockstep_proto::Digest;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::{DeviceId, Seq, VaultId};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// How long another process may write here before it is tried again.
const LOCKED_PAUSE: Duration = Duration::from_millis(500);
/// Between two syncs.
const SYNC_PAUSE: Duration = Duration::from_millis(250);

pub(crate) async fn watch(context: &Context, only: &[String]) -> Result<()> {
    let mut following =
        Following { context, only, printed: BTreeMap::new(), pause: PAUSE_MIN, is_away: false };
    tokio::select! {
        done = following.run() => done,
        () = stopped(context) => Ok(()),
    }
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
    /// The last commit of each vault whose changes were printed.
    printed: BTreeMap<VaultId, (Seq, Digest)>,
    pause: Duration,
    /// Whether it was said that the server is away.
    is_away: bool,
}

impl Following<'_> {
    async fn run(&mut self) -> Result<()> {
        self.sync(true).await?;
        let mut listener = self.listener()?;
        self.context.out.note("watching; Ctrl-C ends it");
        loop {
            match listener.next().await {
                Ok(told) => {
                    self.is_back();
                    if told
                        .iter()
                        .any(|(vault, seq)| self.printed.get(vault).map(|(seq, _)| seq) != Some(seq))
                    {
                        self.sync(false).await?;
                        // Other commands find the home free meanwhile, however often somebody writes.
                        tokio::time::sleep(SYNC_PAUSE).await;
                    }
                }
                Err(error @ (ClientError::Unreachable { .. } | ClientError::Busy(_))) => {
                    self.wait(&error).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A listener has nothing to do with the home's lock: other commands go on meanwhile.
    fn listener(&self) -> Result<Listener> {
        let account = Account::open(Home::open_read_only(&self.context.home), self.context.insecure_http)?;
        let known = self.printed.iter().map(|(vault, (seq, _))| (*vault, *seq)).collect();
        Ok(account.listener(known))
    }

    fn is_back(&mut self) {
        self.pause = PAUSE_MIN;
        if std::mem::take(&mut self.is_away) {
            self.context.out.note("the server is there again");
        }
    }

    async fn wait(&mut self, error: &ClientError) {
        if !std::mem::replace(&mut self.is_away, true) {
            self.context.out.note(&format!("{error}; it is tried again"));
        }
        let [byte] = rng::bytes::<1>();
        tokio::time::sleep(self.pause / 2 + self.pause.saturating_mul(u32::from(byte)) / 256).await;
        self.pause = self.pause.saturating_mul(2).min(PAUSE_MAX);
    }

    /// Syncs, and prints what is new; the first time only remembers where each vault is.
    async fn sync(&mut self, is_first: bool) -> Result<()> {
        loop {
            match self.sync_once(is_first).await {
                Err(ClientError::Locked(_)) => tokio::time::sleep(LOCKED_PAUSE).await,
                Err(error @ (ClientError::Unreachable { .. } | ClientError::Busy(_))) if !is_first => {
                    self.wait(&error).await;
                }
                other => return other,
            }
        }
    }

    async fn sync_once(&mut self, is_first: bool) -> Result<()> {
        let mut account = self.context.account()?;
        let own = account.device_id();
        let open = sync_all(self.context, &mut account).await?;
        for name in self.only {
            if is_first && open.iter().all(|(known, _)| known != name) {
                return Err(ClientError::NotFound(format!("there is no vault \"{name}\"")));
            }
        }
        for (name, vault) in open {
            let Some(end) = vault.verified()? else { continue };
            let id = vault.setup().vault();
            let is_followed = self.only.is_empty() || self.only.contains(&name);
            // A vault that is new here is shown from its birth on.
            let last = self.printed.insert(id, end);
            if !is_first && is_followed {
                self.print(&name, &vault, last, end.0, own)?;
            }
        }
        Ok(())
    }

    fn print(
        &self,
        name: &str,
        vault: &Vault,
        last: Option<(Seq, Digest)>,
        end: Seq,
        own: DeviceId,
    ) -> Result<()> {
        let id = vault.setup().vault().to_string();
        if let Some(last) = last
            && !vault.still_counts(last)?
        {
            let line = json!({ "vault": name, "vault_id": id, "commit": end.value(), "repaired": true });
            self.context.out.line(&line);
            return Ok(());
        }
        for seq in vault.counting_since(last.map_or(Seq::new(0), |(seq, _)| seq))? {
            for change in vault.changed_in(seq)? {
                let mut line = line(&change);
                if let Value::Object(fields) = &mut line {
                    fields.insert("vault".into(), json!(name));
                    fields.insert("vault_id".into(), json!(id));
                    fields.insert("own".into(), json!(change.device == own));
                }
                self.context.out.line(&line);
            }
        }
        Ok(())
    }
}

fn line(change: &Changed) -> Value {
    let content = change.content.as_ref();
    let record_type = content.map(|content| content.record_type.as_str());
    let path = content
        .filter(|content| content.record_type == FILE_TYPE)
        .and_then(|content| FileDoc::decode(&content.document.0).ok())
        .map(|doc| shown(&doc.path.0));
    let id = content
        .filter(|content| !content.record_type.starts_with("lockstep/"))
        .map(|content| crate::record::id_of(&content.name.0));
    json!({
        "commit": change.seq.value(), "device": change.device.to_string(), "record": change.record.to_string(),
        "revision": change.revision.value(), "deleted": change.deleted, "type": record_type, "id": id, "path": path,
    })
}
