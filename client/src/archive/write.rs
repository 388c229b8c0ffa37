//! Making an archive: everything is brought up to date, streamed to a temporary file, read back, and only then the
//! file gets its name.

use super::copy::copy_object;
use super::file::{Archive, folder_of};
use super::look::Counts;
use super::open::{Key, open};
use super::wanted::{Wanted, chain_of, objects_of, versions_of};
use super::{Progress, refused};
use crate::account::Account;
use crate::error::{ClientError, Result};
use crate::rng;
use crate::vault::Vault;
use lockstep_client_crypto::content::BlobRef;
use lockstep_engine::read;
use lockstep_engine::replica::{Replica as _, VersionRow};
use lockstep_proto::api::vault::{Entries, Entry, GetEnvelopes};
use lockstep_proto::archive::{
    ArchiveCommit, ArchiveEnd, ArchiveHeader, ArchiveVault, BareKeys, ItemKind, MissingVersion,
};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::Changes;
use lockstep_proto::envelope;
use lockstep_proto::id::{BlobId, RecordId, Seq};
use lockstep_proto::key_header::KeyHeader;
use lockstep_proto::version::{SUITE, VERSION};
use lockstep_proto::{Digest, label};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Other devices may write while everything is brought up to date.
const ROUNDS_MAX: usize = 16;
/// Envelopes that are asked for in one request.
const PLACES_A_REQUEST: usize = 256;

/// How an archive is made.
pub struct Options {
    /// Leave the passphrase's wrap out: only the recovery key opens the archive.
    pub without_passphrase_wrap: bool,
    /// Replace a file that is there.
    pub force: bool,
    /// Set to stop cleanly.
    pub stop: Arc<AtomicBool>,
}

/// What an archive came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Bytes of the file.
    pub bytes: u64,
    /// Vaults, the keyring not among them.
    pub vaults: u64,
    /// What is in it, as it was read back.
    pub counts: Counts,
    /// The account's fingerprint, as `lockstep fingerprint` shows it.
    pub fingerprint: String,
    /// What is not in it, or not whole.
    pub problems: Vec<String>,
}

/// Writes an archive of the account to a new file.
///
/// # Errors
/// [`ClientError`]; there is no file then.
pub async fn write(
    account: &mut Account,
    path: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome> {
    if !options.force && path.symlink_metadata().is_ok() {
        return Err(ClientError::Usage(format!("{} exists; say --force to replace it", path.display())));
    }
    let (vaults, mut problems) = settle(account).await?;
    let mut archive = Archive::begin(path, Arc::clone(&options.stop))?;
    let bytes = archive.account(account, &vaults, options, &mut problems, progress).await?;
    let folder = folder_of(path);
    let key = Key::Held(account.names.duplicate());
    let mut opened = open(&archive.temporary, folder, key, &[], progress).await?;
    let counts = opened.look_at_all(&mut |_| {})?;
    // What the server did not have was named when it was asked for.
    for problem in opened.problems.drain(..) {
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    let fingerprint = opened.fingerprint.clone();
    drop(opened);
    archive.finish(path)?;
    Ok(Outcome {
        bytes,
        vaults: u64::try_from(vaults.len()).unwrap_or(u64::MAX),
        counts,
        fingerprint,
        problems,
    })
}

/// Brings keyring and vaults up to date, until no device wrote meanwhile: then every pin of the keyring is reached by
/// the vaults. A vault that a fault stops is taken as far as it is good, and named.
pub(super) async fn settle(account: &mut Account) -> Result<(Vec<(String, Vault)>, Vec<String>)> {
    for _ in 0..ROUNDS_MAX {
        account.sync_keyring().await?;
        let before = account.keyring.replica.head()?.map(|head| head.tip.hash);
        let (mut open, mut problems) = (Vec::new(), Vec::new());
        for entry in account.vaults()? {
            match sync_one(account, &entry.name).await {
                Ok(vault) => open.push((entry.name, vault)),
                Err(error) if account.is_of(entry.vault, &error)? => {
                    problems.push(format!("vault {}: {error}", entry.name));
                    if let Ok(vault) = account.open_held(entry.vault)
                        && vault.replica.head()?.is_some()
                    {
                        open.push((entry.name, vault));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        account.pin_heads(false).await?;
        account.refresh_keyring().await?;
        if account.keyring.replica.head()?.map(|head| head.tip.hash) == before {
            open.sort_by_key(|(_, vault)| vault.setup.vault());
            return Ok((open, problems));
        }
    }
    Err(ClientError::Busy("other devices of the account write all the time".into()))
}

async fn sync_one(account: &mut Account, name: &str) -> Result<Vault> {
    let mut vault = account.open_vault(name, false).await?;
    match account.sync_vault(&mut vault).await {
        // Everything was pulled before anything was pushed; what waits is not in the archive.
        Ok(()) | Err(ClientError::QuotaExceeded(_)) => Ok(vault),
        Err(error) => Err(error),
    }
}

impl Archive {
    async fn account(
        &mut self,
        account: &Account,
        vaults: &[(String, Vault)],
        options: &Options,
        problems: &mut Vec<String>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<u64> {
        let device = account.device.id();
        let header = ArchiveHeader {
            version: VERSION,
            suite: SUITE,
            account: account.id(),
            identity: Digest::from_bytes(account.identity().to_bytes()),
            device,
            utc: rng::now_utc(),
        };
        self.item(ItemKind::Header, &header.encode())?;
        let damaged = || ClientError::Damaged("the home is damaged: there is no key header".into());
        let signed = account.db.key_header()?.ok_or_else(damaged)?;
        if options.without_passphrase_wrap {
            let whole = KeyHeader::decode(&signed.bytes.0).map_err(|_| damaged())?;
            self.item(ItemKind::BareKeys, &BareKeys::of(&whole).ok_or_else(damaged)?.encode())?;
        } else {
            self.item(ItemKind::KeyHeader, &signed.encode())?;
        }
        for entry in account.db.device_log()? {
            self.item(ItemKind::Device, &entry.encode())?;
        }
        let total = u64::try_from(vaults.len()).unwrap_or(u64::MAX);
        self.vault("keyring", &account.keyring, true, problems, &mut |_| {}).await?;
        for ((name, vault), done) in vaults.iter().zip(0_u64..) {
            let mut told = |bytes| progress(Progress { vaults: (done, total), bytes: (bytes, 0) });
            self.vault(name, vault, false, problems, &mut told).await?;
        }
        let end = ArchiveEnd {
            version: VERSION,
            suite: SUITE,
            account: account.id(),
            device,
            items: self.items.count(),
            digest: self.items.digest(),
        };
        let end = account.device.sign(label::ARCHIVE, end.encode());
        self.item(ItemKind::End, &end.encode())?;
        self.sync()?;
        Ok(self.bytes)
    }

    async fn vault(
        &mut self,
        name: &str,
        vault: &Vault,
        is_keyring: bool,
        problems: &mut Vec<String>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let id = vault.setup.vault();
        let Some(head) = vault.replica.head()? else { return Ok(()) };
        let chain = chain_of(&vault.replica)?;
        let log =
            std::iter::once(vault.setup.create.clone()).chain(chain.rotations.iter().cloned()).collect();
        self.item(ItemKind::Vault, &ArchiveVault { vault: id, log }.encode())?;
        let missing = |seq: Seq| ClientError::Damaged(format!("commit {seq} of vault {id} is missing here"));
        let mut seq = Seq::new(0);
        while seq <= head.tip.seq {
            let (commit, changes) = vault.replica.commit(seq)?.ok_or_else(|| missing(seq))?;
            self.item(ItemKind::Commit, &ArchiveCommit { commit, changes: changes.into() }.encode())?;
            seq = seq.next();
        }
        let wanted = versions_of(vault, &chain, is_keyring)?;
        let mut objects = BTreeMap::new();
        let lost = self.versions(vault, &wanted, &mut objects).await?;
        for version in lost {
            let VersionRow { seq, record, .. } = version;
            self.item(ItemKind::MissingVersion, &MissingVersion { seq, record }.encode())?;
            problems.push(format!("vault {name}: record {record} of commit {seq} is missing"));
        }
        let mut gone = Vec::new();
        for (blob, source) in objects {
            let reference = self.reference(vault, blob, source)?;
            if !copy_object(self, vault, blob, reference.as_ref(), progress).await? {
                gone.push(blob);
            }
        }
        for blob in gone {
            self.item(ItemKind::MissingObject, blob.as_bytes())?;
        }
        Ok(())
    }

    /// Writes versions, from here or from the server; gives those in force that nobody has. `objects`: what they name,
    /// and where the version stands in the file.
    async fn versions(
        &mut self,
        vault: &Vault,
        wanted: &[Wanted],
        objects: &mut BTreeMap<BlobId, Option<Source>>,
    ) -> Result<Vec<VersionRow>> {
        let mut lost = Vec::new();
        let mut list: (Option<Seq>, Changes) = (None, Changes::default());
        for chunk in wanted.chunks(PLACES_A_REQUEST) {
            let mut envelopes = gather(vault, chunk).await?;
            for Wanted { version, in_force } in chunk {
                let VersionRow { seq, record, revision, kind, .. } = *version;
                if list.0 != Some(seq) {
                    let (_, changes) = crate::late::commit_at(&vault.replica, seq)?;
                    list = (Some(seq), Changes::decode(&changes).unwrap_or_default());
                }
                let mut source = None;
                match envelopes.remove(&(seq, record)) {
                    Some(envelope) => {
                        let entry = Entry { seq, record, revision, kind, envelope: envelope.into() }.encode();
                        let place = self.item(ItemKind::Version, &entry)?;
                        source = Some(Source { version: *version, place, bytes: entry.len() });
                    }
                    None if *in_force => lost.push(*version),
                    None => continue,
                }
                if *in_force {
                    for blob in objects_of(&list.1, version) {
                        objects.entry(blob).or_insert(source);
                    }
                }
            }
        }
        Ok(lost)
    }

    /// What opens an object, as the version says that names it.
    fn reference(&mut self, vault: &Vault, blob: BlobId, source: Option<Source>) -> Result<Option<BlobRef>> {
        let Some(Source { version, place, bytes }) = source else { return Ok(None) };
        let entry = Entry::decode(&self.read_back(place, bytes)?).map_err(|error| refused(&error))?;
        let content = read::open_version(&vault.replica, &vault.setup, &version, &entry.envelope.0)?;
        Ok(content.and_then(|content| content.blobs.into_iter().find(|reference| reference.blob == blob)))
    }
}

/// Where a version stands in the file.
#[derive(Clone, Copy)]
struct Source {
    version: VersionRow,
    place: u64,
    bytes: usize,
}

type Envelopes = BTreeMap<(Seq, RecordId), Vec<u8>>;

/// The envelopes of versions: those that are here, and of the others those that the server has. Each is the one that
/// its commit announced.
async fn gather(vault: &Vault, wanted: &[Wanted]) -> Result<Envelopes> {
    let mut found = Envelopes::new();
    let mut places = Vec::new();
    for Wanted { version, .. } in wanted {
        let place = (version.seq, version.record);
        let row = vault.replica.record(version.record)?.filter(|row| row.present && row.seq == version.seq);
        match row.map(|_| vault.replica.envelope(version.record)).transpose()?.flatten() {
            Some(bytes) if envelope::digest(&bytes) == version.digest => {
                found.insert(place, bytes);
            }
            _ => places.push(place),
        }
    }
    let digests: BTreeMap<(Seq, RecordId), Digest> = wanted
        .iter()
        .map(|wanted| ((wanted.version.seq, wanted.version.record), wanted.version.digest))
        .collect();
    let path = format!("/v1/vaults/{}/envelopes/get", vault.setup.vault());
    while !places.is_empty() {
        let page: Entries = vault.api().post(&path, &GetEnvelopes(places.clone())).await?;
        let before = places.len();
        for entry in page.entries {
            let place = (entry.seq, entry.record);
            let bytes = entry.envelope.0;
            if digests.get(&place) == Some(&envelope::digest(&bytes)) {
                places.retain(|wanted| *wanted != place);
                found.insert(place, bytes);
            }
        }
        if !page.more || places.len() == before {
            break;
        }
    }
    Ok(found)
}
