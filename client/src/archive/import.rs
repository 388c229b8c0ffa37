//! Importing: what an archive's heads say, and its snapshots in their order, written into new vaults of an account under
//! new keys. A record in each new vault says which import it is, so that a run that was cut off goes on there.

use super::fill::{Fill, Tally};
use super::mark::Mark;
use super::open::{Opened, OpenedVault};
use super::{Progress, refused};
use crate::account::Account;
use crate::error::{ClientError, Result};
use crate::keyring::record;
use crate::rng;
use crate::vault::Vault;
use lockstep_engine::files::SOURCE_TYPE;
use lockstep_engine::read;
use lockstep_engine::replica::{Policy, Replica as _};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::{SourceId, VaultId};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Record type of the mark in a vault that an import makes.
pub(super) const IMPORT_TYPE: &str = "lockstep/import";
/// Names that are tried for a new vault.
const NAMES_MAX: u32 = 1000;
/// Characters of a vault's name that are kept in front of what is added to it.
const NAME_CHARS: usize = 100;

/// A vault that was imported.
#[derive(Debug, Clone, Default)]
pub struct ImportedVault {
    /// Its name in the archive.
    pub from: String,
    /// The new vault's name.
    pub name: String,
    /// The new vault.
    pub vault: String,
    /// What is in it that an earlier run, or this one, brought.
    pub tally: Tally,
    /// Whether an earlier run had finished it.
    pub was_done: bool,
}

/// What an import came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The vaults.
    pub vaults: Vec<ImportedVault>,
    /// What could not be imported, for people.
    pub problems: Vec<String>,
}

/// Writes everything of an archive into an account.
///
/// # Errors
/// [`ClientError`]; the same import again goes on where it was.
pub async fn import(
    account: &mut Account,
    opened: &mut Opened,
    stop: &Arc<AtomicBool>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome> {
    compare(account, opened)?;
    account.sync_keyring().await?;
    let mut outcome = Outcome { problems: std::mem::take(&mut opened.problems), ..Outcome::default() };
    let total = u64::try_from(opened.vaults.len()).unwrap_or(u64::MAX);
    for (source, done) in opened.vaults.iter().zip(0_u64..) {
        let (name, mut target, mark) = target_of(account, opened, source).await?;
        let mut imported = ImportedVault {
            from: source.name.clone(),
            name,
            vault: target.setup.vault().to_string(),
            was_done: mark.done,
            tally: Tally::default(),
        };
        if !mark.done {
            let mut fill = Fill::new(account, &mut target, source, &opened.index, mark, stop);
            let mut told = |bytes| progress(Progress { vaults: (done, total), bytes: (bytes, 0) });
            fill.go(&mut told).await?;
            imported.tally = fill.tally;
            outcome
                .problems
                .extend(fill.problems.into_iter().map(|problem| format!("vault {}: {problem}", source.name)));
        }
        outcome.vaults.push(imported);
    }
    account.pin_heads(false).await?;
    Ok(outcome)
}

/// On a device of the same account: what it verified and what the archive says is one history.
fn compare(account: &Account, opened: &Opened) -> Result<()> {
    if account.id() != opened.account.id() {
        return Ok(());
    }
    let (own, read) = (account.keyring.device_log(), opened.account.keyring.device_log());
    let last = own.next_index().min(read.next_index()).saturating_sub(1);
    if own.hash_at(last) != read.hash_at(last) {
        return Err(refused(&"its device log is another one than this device verified"));
    }
    let keyring = std::iter::once(&opened.account.keyring);
    for vault in keyring.chain(opened.vaults.iter().map(|opened| &opened.vault)) {
        let id = vault.setup.vault();
        let Some(held) = account.db.vault(id, None)? else { continue };
        let (Some(own), Some(read)) = (held.head()?, vault.replica.head()?) else { continue };
        let seq = own.tip.seq.min(read.tip.seq);
        let (here, there) = (held.commit_hash(seq)?, vault.replica.commit_hash(seq)?);
        let given_up = match (here, there) {
            (Some(here), Some(there)) => {
                here == there
                    || held.is_abandoned(seq, there)?
                    || held.gave_up(seq, there)?
                    || vault.replica.is_abandoned(seq, here)?
            }
            _ => false,
        };
        if !given_up {
            return Err(refused(&format!(
                "commit {seq} of vault {id} is another one than this device verified"
            )));
        }
    }
    Ok(())
}

/// The new vault of a source: the one that an earlier run of this import began, or a fresh one.
async fn target_of(
    account: &mut Account,
    opened: &Opened,
    source: &OpenedVault,
) -> Result<(String, Vault, Mark)> {
    let from = source.vault.setup.vault();
    let name = mark_name(opened, from);
    let base: String = source.name.chars().take(NAME_CHARS).collect();
    for number in 1..=NAMES_MAX {
        let called = match number {
            1 => format!("{base}-imported"),
            _ => format!("{base}-imported-{number}"),
        };
        let is_there = account.vaults()?.iter().any(|entry| entry.name == called);
        let mut vault = account.open_vault(&called, true).await?;
        account.sync_vault(&mut vault).await?;
        let place = vault.setup.keys.record_id(IMPORT_TYPE, &name);
        if let Some(known) = read::current(&vault.replica, &vault.setup.keys, place)? {
            let mark = Mark::decode(&known.content.document.0).map_err(|_| {
                ClientError::Damaged(format!("the mark of the import in vault {called} can not be read"))
            })?;
            return Ok((called, vault, mark));
        }
        // One that an earlier run made, and nothing else, is empty.
        let is_empty = vault.replica.records_after(None, 1)?.is_empty();
        if is_there && !is_empty {
            continue;
        }
        let sources = source.vault.sources()?.into_iter();
        let mark = Mark {
            archive: opened.digest,
            vault: from,
            utc: rng::now_utc(),
            sources: sources.map(|source| (source.id, SourceId::from_bytes(rng::bytes()))).collect(),
            done: false,
        };
        vault.put(vec![record(IMPORT_TYPE, name, mark.encode(), Policy::Overwrite)]).await?;
        account.send(&mut vault).await?;
        return Ok((called, vault, mark));
    }
    Err(ClientError::Usage(format!("there are too many vaults whose names begin with {base}-imported")))
}

/// Name of the mark's record: the archive's digest and the vault that it was.
pub(super) fn mark_name(opened: &Opened, from: VaultId) -> Vec<u8> {
    let mut name = opened.digest.as_bytes().to_vec();
    name.extend_from_slice(from.as_bytes());
    name
}

/// Whether records of a type are written by the import in a way of their own.
pub(super) fn is_own(record_type: &str) -> bool {
    use lockstep_engine::files::{FILE_TYPE, SNAPSHOT_TYPE};
    [FILE_TYPE, SNAPSHOT_TYPE, SOURCE_TYPE, IMPORT_TYPE].contains(&record_type)
}
