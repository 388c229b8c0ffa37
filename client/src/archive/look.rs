//! Looking at everything in an archive that was opened: every version in force, and every object to its end.

use super::index::{Held, Index};
use super::object::Contents;
use super::open::Opened;
use super::wanted::{chain_of, objects_of, versions_of};
use super::{of_archive, refused};
use crate::error::Result;
use crate::late::commit_at;
use crate::vault::Vault;
use lockstep_client_crypto::content::Content;
use lockstep_engine::read;
use lockstep_engine::replica::{Replica as _, VersionRow};
use lockstep_proto::api::vault::Entry;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::Changes;
use lockstep_proto::id::{BlobId, Seq};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Counts of a whole look at an archive.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Commits.
    pub commits: u64,
    /// Versions that are here.
    pub versions: u64,
    /// Objects that are whole.
    pub objects: u64,
    /// Bytes of their contents.
    pub bytes: u64,
}

impl Opened {
    /// Looks at everything: every version in force and every object. What is missing or damaged is added to
    /// [`Self::problems`].
    ///
    /// # Errors
    /// [`ClientError`] if it can not be done.
    pub fn look_at_all(&mut self, progress: &mut dyn FnMut(Counts)) -> Result<Counts> {
        let mut look =
            Look { index: Arc::clone(&self.index), counts: Counts::default(), problems: Vec::new() };
        look.vault("keyring", &self.account.keyring, true, progress)?;
        for opened in &self.vaults {
            look.vault(&opened.name, &opened.vault, false, progress)?;
        }
        self.problems.append(&mut look.problems);
        Ok(look.counts)
    }
}

struct Look {
    index: Arc<Index>,
    counts: Counts,
    problems: Vec<String>,
}

impl Look {
    fn vault(
        &mut self,
        name: &str,
        vault: &Vault,
        is_keyring: bool,
        progress: &mut dyn FnMut(Counts),
    ) -> Result<()> {
        let chain = chain_of(&vault.replica)?;
        let head = vault.replica.head()?.map_or(Seq::new(0), |head| head.tip.seq);
        self.counts.commits = self.counts.commits.saturating_add(head.next().value());
        let mut list: (Option<Seq>, Changes) = (None, Changes::default());
        let mut done: BTreeMap<BlobId, bool> = BTreeMap::new();
        for wanted in versions_of(vault, &chain, is_keyring)?.iter().filter(|wanted| wanted.in_force) {
            let version = &wanted.version;
            if list.0 != Some(version.seq) {
                let (_, changes) = commit_at(&vault.replica, version.seq)?;
                list = (Some(version.seq), Changes::decode(&changes).unwrap_or_default());
            }
            let content = self.version(name, vault, version)?;
            for blob in objects_of(&list.1, version) {
                if done.contains_key(&blob) {
                    continue;
                }
                let reference = content
                    .as_ref()
                    .and_then(|content| content.blobs.iter().find(|known| known.blob == blob));
                let whole = match reference {
                    Some(reference) => Contents::open(&self.index, &vault.setup.keys, reference)
                        .ok()
                        .flatten()
                        .is_some_and(Contents::into_whole),
                    // Nobody can tell what it should be.
                    None => matches!(self.index.object(vault.setup.vault(), blob)?, Held::Here(_)),
                };
                done.insert(blob, whole);
                if whole {
                    self.counts.objects += 1;
                    let size = reference.map_or(0, |reference| reference.size);
                    self.counts.bytes = self.counts.bytes.saturating_add(size);
                } else {
                    let what = content.as_ref().map_or_else(String::new, called);
                    self.problems.push(format!("vault {name}: object {blob} is missing or damaged{what}"));
                }
            }
            progress(self.counts);
        }
        Ok(())
    }

    fn version(&mut self, name: &str, vault: &Vault, version: &VersionRow) -> Result<Option<Content>> {
        let VersionRow { seq, record, .. } = *version;
        let Held::Here(span) = self.index.version(vault.setup.vault(), seq, record)? else {
            self.problems.push(format!("vault {name}: record {record} of commit {seq} is missing"));
            return Ok(None);
        };
        let entry = Entry::decode(&self.index.read(span)?).map_err(|error| refused(&error))?;
        let fits = (entry.revision, entry.kind) == (version.revision, version.kind);
        let opened = read::open_version(&vault.replica, &vault.setup, version, &entry.envelope.0);
        let content = opened.map_err(|error| of_archive(error.into()))?;
        if !fits {
            return Err(refused(&format!("record {record} is not as its commit announced it")));
        }
        self.counts.versions += 1;
        if content.is_none() {
            self.problems.push(format!("vault {name}: record {record} of commit {seq} does not open"));
        }
        Ok(content)
    }
}

/// What a person calls a record.
fn called(content: &Content) -> String {
    let name = &content.name.0;
    let shown = match content.record_type.as_str() {
        lockstep_engine::files::FILE_TYPE => name.get(16..).unwrap_or_default(),
        _ => name.as_slice(),
    };
    format!(" ({} {})", content.record_type, String::from_utf8_lossy(shown).escape_debug())
}
