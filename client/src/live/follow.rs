//! From one state of a vault to the next: what subscribers are told.

use super::event::{Change, Event};
use crate::account::Account;
use crate::changes::Changed;
use crate::error::Result;
use crate::vault::Vault;
use lockstep_engine::replica::Replica as _;
use lockstep_proto::Digest;
use lockstep_proto::id::{DeviceId, Seq, VaultId};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Where each vault was last seen. Not held across anything that waits.
pub(crate) struct Follow {
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) own: DeviceId,
    places: BTreeMap<VaultId, (Seq, Digest)>,
}

impl Follow {
    pub(crate) fn new(events: broadcast::Sender<Event>, own: DeviceId) -> Self {
        Self { events, own, places: BTreeMap::new() }
    }

    /// What is held before anything is synced is no news.
    pub(crate) fn begin(&mut self, account: &Account) -> Result<()> {
        for vault in account.db().vault_ids()? {
            if let Some(replica) = account.db().vault(vault, None)?
                && let Some(head) = replica.head()?
            {
                self.places.insert(vault, (head.tip.seq, head.tip.hash));
            }
        }
        Ok(())
    }

    /// The last commit of each vault that was seen, the keyring included.
    pub(crate) fn seen(&self) -> BTreeMap<VaultId, Seq> {
        self.places.iter().map(|(vault, (seq, _))| (*vault, *seq)).collect()
    }

    /// The keyring's commits are no news for an app.
    pub(crate) fn saw(&mut self, keyring: &Vault) -> Result<()> {
        if let Some(end) = keyring.verified()? {
            self.places.insert(keyring.setup().vault(), end);
        }
        Ok(())
    }

    pub(crate) fn tell(&self, event: Event) {
        // It is no trouble that nobody listens.
        let _ = self.events.send(event);
    }
}

/// Tells what a vault's commits changed since it was last seen. A vault that is new here is told from its birth on.
pub(crate) async fn look(follow: &RefCell<Follow>, name: &Arc<str>, vault: &Vault) -> Result<()> {
    let id = vault.setup().vault();
    let Some(end) = vault.verified()? else { return Ok(()) };
    let last = follow.borrow().places.get(&id).copied();
    if last == Some(end) {
        return Ok(());
    }
    if let Some(last) = last
        && !vault.still_counts(last)?
    {
        let mut follow = follow.borrow_mut();
        follow.places.insert(id, end);
        follow.tell(Event::Repaired { vault: id, vault_name: Arc::clone(name), seq: end.0 });
        return Ok(());
    }
    for seq in vault.counting_since(last.map_or(Seq::new(0), |(seq, _)| seq))? {
        let hash = vault.replica().commit_hash(seq)?;
        let changes = vault.changed_in(seq)?;
        {
            let mut follow = follow.borrow_mut();
            for change in changes {
                let change = follow.change(id, name, change);
                follow.tell(Event::Changed(change));
            }
            if let Some(hash) = hash {
                follow.places.insert(id, (seq, hash));
            }
        }
        // The app's calls come in between.
        tokio::task::yield_now().await;
    }
    follow.borrow_mut().places.insert(id, end);
    Ok(())
}

impl Follow {
    fn change(&self, vault: VaultId, name: &Arc<str>, change: Changed) -> Change {
        let (record_type, record_name) =
            change.content.map(|content| (content.record_type, content.name.0)).unzip();
        Change {
            vault,
            vault_name: Arc::clone(name),
            record: change.record,
            record_type,
            name: record_name,
            deleted: change.deleted,
            device: change.device,
            own: change.device == self.own,
            committed: Some((change.seq, change.revision)),
        }
    }
}
