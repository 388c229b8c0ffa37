//! The past of a vault: versions that signed commits announced, checked again against what the local database
//! holds before any of it is believed, and their envelopes.

use crate::error::{ClientError, Result};
use crate::late::skipped;
use crate::vault::Vault;
use lockstep_client_crypto::content::Content;
use lockstep_engine::read;
use lockstep_engine::repair::state_at;
use lockstep_engine::replica::{Replica as _, VersionRow};
use lockstep_proto::api::vault::{Entries, GetEnvelopes};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::chain::{self, Authors as _};
use lockstep_proto::commit::{Change, Changes, Commit};
use lockstep_proto::envelope::{KIND_DOCUMENT, KIND_TOMBSTONE};
use lockstep_proto::id::{DeviceId, RecordId, Revision, Seq};
use lockstep_proto::{Digest, label, limits};
use std::collections::BTreeMap;

/// Places that are asked for in one request.
const PLACES_A_REQUEST: usize = limits::PAGE_ENTRIES_MAX / 4;

/// Takes what became of a version.
type Each<'a> = dyn FnMut(&VersionRow, Result<Option<Content>>) -> Result<()> + 'a;

/// What was checked already and need not be again while the vault is open.
#[derive(Default)]
pub(crate) struct Checked {
    /// The commit after which the newest version of every record gives what was signed.
    head: Option<Digest>,
    /// Versions that are as their commits announced them.
    announced: BTreeMap<(Seq, RecordId), VersionRow>,
}

fn damaged(what: &dyn std::fmt::Display) -> ClientError {
    ClientError::Damaged(format!(
        "the local database is damaged: {what}. Sign in again with another --home, and keep this one until what \
         waits in it is known to be elsewhere"
    ))
}

impl Vault {
    /// A stored commit and its change list; the signature is verified again.
    fn signed_commit(&self, seq: Seq) -> Result<(Commit, Vec<u8>)> {
        let stored = self.replica.commit(seq)?.ok_or_else(|| damaged(&format!("commit {seq} is missing")))?;
        let (signed, changes) = stored;
        let commit = Commit::decode(&signed.bytes.0).map_err(|error| damaged(&error))?;
        let author = self.device_log().author_key(commit.device, commit.device_log_index);
        let is_signed = author.is_some_and(|key| signed.verify(Commit::NAME, label::COMMIT, &key).is_ok());
        if !is_signed || (commit.vault, commit.seq) != (self.setup.vault(), seq) {
            return Err(damaged(&format!("commit {seq} is not the one that was signed")));
        }
        Ok((commit, changes))
    }

    /// When the newest commit that was verified says that it was written, seconds since 1970 by its author's clock, and
    /// its author. A server that withholds what came later can not make this any newer.
    ///
    /// # Errors
    /// [`ClientError::Damaged`].
    pub fn newest(&self) -> Result<Option<(u64, DeviceId)>> {
        let Some(head) = self.replica.head()? else { return Ok(None) };
        let (commit, _) = self.signed_commit(head.tip.seq)?;
        Ok(Some((commit.utc, commit.device)))
    }

    /// Whether the versions in force after a commit give what it was signed with.
    fn check_signed(&self, seq: Seq) -> Result<()> {
        let (commit, _) = self.signed_commit(seq)?;
        let sum = state_at(&self.replica, seq).map_err(|error| damaged(&error))?;
        if sum.checksum() == commit.state {
            return Ok(());
        }
        Err(damaged(&format!("what it holds is not the state that commit {seq} was signed with")))
    }

    /// Whether the newest versions as held here give what the head's commit signed: what is not found is not
    /// there, rather than lost here.
    ///
    /// # Errors
    /// [`ClientError::Damaged`].
    pub fn check_state(&self) -> Result<()> {
        let Some(head) = self.replica.head()? else { return Ok(()) };
        if self.checked.borrow().head != Some(head.tip.hash) {
            self.check_signed(head.tip.seq)?;
            self.checked.borrow_mut().head = Some(head.tip.hash);
        }
        Ok(())
    }

    /// Whether the versions in force after a commit, as held here, give the state digest that its author signed
    /// (PROTOCOL.md section 6.2); the newest ones, too. Asks the server for nothing.
    ///
    /// # Errors
    /// [`ClientError::Damaged`] if a version is missing, was changed or is one too many; [`ClientError::NotFound`] if a
    /// repair went back over the commit.
    pub fn check_state_as_of(&self, seq: Seq) -> Result<()> {
        let head = self.replica.head()?.ok_or_else(|| damaged(&"the vault has no head"))?;
        self.check_state()?;
        if seq == head.tip.seq {
            return Ok(());
        }
        let Err(error) = self.check_signed(seq) else { return Ok(()) };
        let skipped = skipped(&self.replica)?;
        match skipped.iter().find(|(to, repair)| seq > *to && seq < *repair) {
            None => Err(error),
            Some((_, repair)) => Err(ClientError::NotFound(format!(
                "commit {seq} does not count any more: the repair of commit {repair} went back over it"
            ))),
        }
    }

    /// Whether versions are as the commits that put them announced them: revision, digest, and whether they are
    /// deletions, which no state digest says.
    ///
    /// # Errors
    /// [`ClientError::Damaged`].
    pub(crate) fn check_announced(&self, versions: &[VersionRow]) -> Result<()> {
        let mut by_commit: BTreeMap<Seq, Vec<&VersionRow>> = BTreeMap::new();
        for version in versions {
            if self.checked.borrow().announced.get(&(version.seq, version.record)) != Some(version) {
                by_commit.entry(version.seq).or_default().push(version);
            }
        }
        for (seq, versions) in by_commit {
            let (commit, changes) = self.signed_commit(seq)?;
            let list = chain::verify_changes(&commit, &changes).map_err(|error| damaged(&error))?;
            for version in versions {
                if !is_announced(&list, version) {
                    let record = version.record;
                    return Err(damaged(&format!("record {record} is not as commit {seq} announced it")));
                }
                self.checked.borrow_mut().announced.insert((seq, version.record), *version);
            }
        }
        Ok(())
    }

    /// Every version of a record that verified change lists announced, newest first.
    ///
    /// # Errors
    /// [`ClientError::Damaged`] if one is missing here or was changed.
    pub fn versions(&self, record: RecordId) -> Result<Vec<VersionRow>> {
        let mut found: Vec<VersionRow> = Vec::new();
        let Some(row) = self.replica.record(record)? else { return Ok(found) };
        let (mut place, mut revision) = (Some(row.seq), row.revision);
        while let Some(seq) = place {
            let missing = || damaged(&format!("revision {revision} of record {record} is missing"));
            let version = self.replica.version(seq, record)?.ok_or_else(missing)?;
            let goes_back = version.previous_seq.is_none_or(|previous| previous < seq);
            if version.revision != revision || !goes_back {
                return Err(missing());
            }
            found.push(version);
            place = version.previous_seq;
            revision = Revision::new(revision.value().saturating_sub(1));
        }
        if revision != Revision::new(0) {
            return Err(damaged(&format!("revision {revision} of record {record} is missing")));
        }
        self.check_announced(&found)?;
        Ok(found)
    }

    /// Opens versions, fetching the envelopes that are not here; they are accepted by digest. `each` gets what
    /// comes, none for an envelope that does not open. Gives the versions that the server does not have.
    ///
    /// # Errors
    /// [`ClientError::Server`] if an envelope is not the one that its commit announced.
    pub async fn open_versions(
        &self,
        versions: &[VersionRow],
        each: &mut dyn FnMut(&VersionRow, Option<Content>) -> Result<()>,
    ) -> Result<Vec<VersionRow>> {
        self.open_each(versions, &mut |version, opened| each(version, opened?)).await
    }

    /// The same; `each` gets what is wrong with an envelope, too, and says whether that is the end.
    pub(crate) async fn open_each(
        &self,
        versions: &[VersionRow],
        each: &mut Each<'_>,
    ) -> Result<Vec<VersionRow>> {
        let mut past: Vec<&VersionRow> = Vec::new();
        for version in versions {
            match self.replica.record(version.record)? {
                Some(row) if row.present && row.seq == version.seq => {
                    let opened = read::open(&self.replica, &self.setup.keys, &row);
                    each(version, opened.map_err(ClientError::from))?;
                }
                _ => past.push(version),
            }
        }
        let mut missing = Vec::new();
        for chunk in past.chunks(PLACES_A_REQUEST) {
            let mut wanted = chunk.to_vec();
            while !wanted.is_empty() {
                let before = wanted.len();
                let more = self.ask(&mut wanted, each).await?;
                if !more || wanted.len() == before {
                    break;
                }
            }
            missing.extend(wanted.into_iter().copied());
        }
        Ok(missing)
    }

    /// One request; leaves what did not come, and says whether more may come.
    async fn ask(&self, wanted: &mut Vec<&VersionRow>, each: &mut Each<'_>) -> Result<bool> {
        let path = format!("/v1/vaults/{}/envelopes/get", self.setup.vault());
        let places = wanted.iter().map(|version| (version.seq, version.record)).collect();
        let page: Entries = self.api().post(&path, &GetEnvelopes(places)).await?;
        let mut got = BTreeMap::new();
        for entry in page.entries {
            got.insert((entry.seq, entry.record), entry.envelope.0);
        }
        let mut left = Vec::new();
        for version in std::mem::take(wanted) {
            match got.remove(&(version.seq, version.record)) {
                Some(bytes) => {
                    let opened = read::open_version(&self.replica, &self.setup, version, &bytes);
                    each(version, opened.map_err(ClientError::from))?;
                }
                None => left.push(version),
            }
        }
        *wanted = left;
        Ok(page.more)
    }
}

fn is_announced(list: &Changes, version: &VersionRow) -> bool {
    let expected = Some((version.record, version.revision, version.digest));
    list.0.iter().any(|change| {
        let kind = if matches!(change, Change::Put { .. }) { KIND_DOCUMENT } else { KIND_TOMBSTONE };
        change.version() == expected && kind == version.kind
    })
}

/// What the server has to have and does not show.
pub fn withheld(version: &VersionRow) -> ClientError {
    ClientError::Incomplete(format!(
        "the server withholds revision {} of record {}, of commit {}",
        version.revision, version.record, version.seq
    ))
}
