//! Everything decrypted, in a folder: the newest snapshot of every source, every record, and a list of it all.

use super::Progress;
use super::write::settle;
use crate::account::Account;
use crate::documents::Body;
use crate::error::{ClientError, Result};
use crate::home::write_private;
use crate::restore::{self, restore};
use crate::rng;
use crate::vault::Vault;
use lockstep_client_crypto::content::Content;
use lockstep_engine::files::{FILE_TYPE, SNAPSHOT_TYPE, SOURCE_TYPE};
use lockstep_engine::read;
use lockstep_engine::replica::{RecordRow, Replica as _, VersionRow};
use lockstep_proto::envelope::KIND_DOCUMENT;
use lockstep_proto::id::RecordId;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The list of everything.
pub const MANIFEST: &str = "manifest.json";
/// Longest name of a file here, without what is added to it.
const NAME_BYTES_MAX: usize = 200;

/// What a decrypted export came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Vaults.
    pub vaults: u64,
    /// Snapshots that were restored.
    pub snapshots: u64,
    /// Files, folders and links.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Records.
    pub records: u64,
    /// What could not be written, for people.
    pub problems: Vec<String>,
}

/// Why records can not be written, for people.
type Wrong = BTreeMap<RecordId, String>;

/// Writes everything to a folder that is new or empty.
///
/// # Errors
/// [`ClientError`]; what was written stays there.
pub async fn write(
    account: &mut Account,
    folder: &Path,
    stop: &Arc<AtomicBool>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome> {
    prepare(folder)?;
    let (vaults, problems) = settle(account).await?;
    let mut outcome = Outcome { problems, ..Outcome::default() };
    let mut list = Vec::new();
    let total = u64::try_from(vaults.len()).unwrap_or(u64::MAX);
    for ((name, vault), done) in vaults.iter().zip(0_u64..) {
        progress(Progress { vaults: (done, total), bytes: (outcome.bytes, 0) });
        let called =
            Some(safe(name.as_bytes())).filter(|called| called != MANIFEST && called.len() <= NAME_BYTES_MAX);
        let called = called.unwrap_or_else(|| vault.setup.vault().to_string());
        let place = folder.join(&called);
        make_folder(&place)?;
        let mut job = Job { name, vault, place, stop, outcome: &mut outcome };
        let snapshots = job.snapshots().await?;
        let records = job.records().await?;
        list.push(json!({
            "vault": vault.setup.vault().to_string(), "name": name, "folder": called,
            "snapshots": snapshots, "records": records,
        }));
        outcome.vaults += 1;
    }
    let manifest = json!({
        "about": "Everything of a Lockstep account, decrypted: whoever reads this folder reads all of it.",
        "account": account.id().to_string(), "utc": rng::now_utc(), "vaults": list, "problems": outcome.problems,
    });
    let text = serde_json::to_vec_pretty(&manifest)
        .map_err(|_| ClientError::Damaged("the list of everything can not be written".into()))?;
    write_private(&folder.join(MANIFEST), &text, false)?;
    Ok(outcome)
}

/// The folder is there, empty, and its owner's alone.
fn prepare(folder: &Path) -> Result<()> {
    let io = |error| ClientError::io(folder, error);
    match folder.symlink_metadata() {
        Ok(_) => {
            if std::fs::read_dir(folder).map_err(io)?.next().is_some() {
                let text = format!("{} is not empty; choose another folder", folder.display());
                return Err(ClientError::Usage(text));
            }
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).map_err(io)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)
        }
        Err(error) => Err(io(error)),
    }
}

fn make_folder(path: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().mode(0o700).create(path);
    made.map_err(|error| ClientError::io(path, error))
}

struct Job<'a> {
    name: &'a str,
    vault: &'a Vault,
    place: PathBuf,
    stop: &'a Arc<AtomicBool>,
    outcome: &'a mut Outcome,
}

impl Job<'_> {
    async fn snapshots(&mut self) -> Result<Vec<Value>> {
        let options = restore::Options { paths: Vec::new(), overwrite: false, stop: Arc::clone(self.stop) };
        let mut list = Vec::new();
        for snapshot in self.vault.newest_snapshots(None)? {
            let one = std::slice::from_ref(&snapshot);
            let name = snapshot.source.doc.name.0.escape_ascii().to_string();
            match restore(self.vault, one, &self.place, &options, &mut |_| {}).await {
                Ok(done) => {
                    self.outcome.snapshots += 1;
                    self.outcome.entries = self.outcome.entries.saturating_add(done.written);
                    self.outcome.bytes = self.outcome.bytes.saturating_add(done.bytes);
                    for (path, reason) in done.failed {
                        self.outcome.problems.push(format!("{}: {reason}", path.display()));
                    }
                }
                Err(error @ (ClientError::Incomplete(_) | ClientError::Damaged(_))) => {
                    self.outcome.problems.push(format!("vault {}: source {name}: {error}", self.name));
                }
                Err(error) => return Err(error),
            }
            list.push(json!({
                "snapshot": snapshot.id, "source": name, "root": snapshot.source.doc.root.0.escape_ascii().to_string(),
                "end_utc": snapshot.doc.end_utc, "tags": snapshot.doc.tags, "unreadable": snapshot.doc.counts.4,
            }));
        }
        Ok(list)
    }

    /// A name for the folder of records that no source restores under.
    fn records_folder(&self) -> Result<String> {
        let taken: BTreeSet<Vec<u8>> =
            self.vault.sources()?.into_iter().map(|source| source.doc.name.0).collect();
        let mut name = "records".to_owned();
        while taken.contains(name.as_bytes()) {
            name.push('_');
        }
        Ok(name)
    }

    async fn records(&mut self) -> Result<Vec<Value>> {
        let top = self.records_folder()?;
        let (mut list, mut made, mut after) = (Vec::new(), BTreeSet::new(), None);
        loop {
            let page = self.vault.replica.records_after(after, 1000)?;
            let Some(last) = page.last() else { return Ok(list) };
            after = Some(last.record);
            let (mut fetched, mut wrong) = self.not_held(&page).await?;
            for row in page.iter().filter(|row| row.kind == KIND_DOCUMENT) {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(ClientError::Interrupted);
                }
                let keys = &self.vault.setup.keys;
                let content = if row.present {
                    read::open(&self.vault.replica, keys, row).map_err(|error| error.to_string())
                } else {
                    wrong.remove(&row.record).map_or_else(|| Ok(fetched.remove(&row.record)), Err)
                };
                let missing = if row.present { "it does not open" } else { "it is missing" };
                let content = match content.and_then(|content| content.ok_or_else(|| missing.into())) {
                    Ok(content) => content,
                    Err(why) => {
                        let text = format!(
                            "vault {}: record {} of commit {}: {why}",
                            self.name, row.record, row.seq
                        );
                        self.outcome.problems.push(text);
                        continue;
                    }
                };
                if [FILE_TYPE, SNAPSHOT_TYPE, SOURCE_TYPE].contains(&content.record_type.as_str()) {
                    continue;
                }
                let file = self.record(&top, &mut made, row.record, &content)?;
                list.push(json!({
                    "type": content.record_type, "name": String::from_utf8_lossy(&content.name.0),
                    "name_hex": rng::hex(&content.name.0), "file": file, "revision": row.revision.value(),
                    "schema": content.schema, "objects": content.blobs.len(),
                }));
                if !content.blobs.is_empty() {
                    let text = format!("vault {}: {file}: its objects are not written out", self.name);
                    self.outcome.problems.push(text);
                }
            }
        }
    }

    /// Contents of what this device does not hold, from the server; and what is wrong with those that can not be had.
    async fn not_held(&self, page: &[RecordRow]) -> Result<(BTreeMap<RecordId, Content>, Wrong)> {
        let mut versions = Vec::new();
        for row in page.iter().filter(|row| row.kind == KIND_DOCUMENT && !row.present) {
            versions.extend(self.vault.replica.version(row.seq, row.record)?);
        }
        let (mut found, mut wrong) = (BTreeMap::new(), Wrong::new());
        let mut take = |version: &VersionRow, opened: Result<Option<Content>>| {
            let record = version.record;
            match opened {
                Ok(Some(content)) => drop(found.insert(record, content)),
                Ok(None) => drop(wrong.insert(record, "it does not open".into())),
                // One that is not what was signed says nothing of the others.
                Err(
                    error @ (ClientError::RecordRollback(_)
                    | ClientError::Server(_)
                    | ClientError::Incomplete(_)
                    | ClientError::Damaged(_)),
                ) => drop(wrong.insert(record, error.to_string())),
                Err(error) => return Err(error),
            }
            Ok(())
        };
        self.vault.open_each(&versions, &mut take).await?;
        Ok((found, wrong))
    }

    fn record(
        &mut self,
        top: &str,
        made: &mut BTreeSet<PathBuf>,
        record: RecordId,
        content: &Content,
    ) -> Result<String> {
        let group = safe(content.record_type.as_bytes());
        for folder in [PathBuf::from(top), Path::new(top).join(&group)] {
            if made.insert(folder.clone()) {
                make_folder(&self.place.join(folder))?;
            }
        }
        let name = Some(safe(&content.name.0)).filter(|name| name.len() <= NAME_BYTES_MAX);
        // A document that merges is written as its fields, as an app sees them.
        let (bytes, suffix) = match self.vault.body_of(content) {
            Body::Fields(fields) => (serde_json::to_vec_pretty(&fields).unwrap_or_default(), "json"),
            Body::Bytes(bytes) if serde_json::from_slice::<Value>(&bytes).is_ok() => (bytes, "json"),
            Body::Bytes(bytes) => (bytes, "bin"),
        };
        // A `%` that no two digits follow: no name of a record is written like this.
        let name = name.unwrap_or_else(|| format!("%{record}"));
        let file = format!("{top}/{group}/{name}.{suffix}");
        write_private(&self.place.join(&file), &bytes, false)?;
        self.outcome.records += 1;
        Ok(file)
    }
}

/// A name as one plain component of a path: letters and digits stay, all else but a few signs is written as `%` and two
/// digits. No two names are written alike.
fn safe(name: &[u8]) -> String {
    use std::fmt::Write as _;
    let escape = |out: &mut String, bytes: &[u8]| {
        for byte in bytes {
            let _ = write!(out, "%{byte:02x}");
        }
    };
    let mut out = String::new();
    let Ok(text) = std::str::from_utf8(name) else {
        escape(&mut out, name);
        return out;
    };
    for character in text.chars() {
        let is_plain = character.is_alphanumeric() || " _-+@,()".contains(character);
        if is_plain || (character == '.' && !out.is_empty()) {
            out.push(character);
        } else {
            escape(&mut out, character.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    if out.is_empty() { "%".into() } else { out }
}

#[cfg(test)]
mod tests {
    use super::safe;

    #[test]
    fn names_are_one_plain_component() {
        for (name, written) in [
            (&b"a"[..], "a"),
            (b"..", "%2e."),
            (b".", "%2e"),
            (b"", "%"),
            (b"a/b", "a%2fb"),
            (b"a\0b", "a%00b"),
            (b"%41", "%2541"),
            (b"\xff", "%ff"),
            ("\u{e9} 1.txt".as_bytes(), "\u{e9} 1.txt"),
        ] {
            assert_eq!(safe(name), written);
        }
    }
}
