//! Newest envelopes that a server lacks although it has their commits: it was healed by a device that did not hold them, or
//! lost them. The server is asked for all of them; those that are held here are posted with their commits again.

use super::chain::{INLINE_BYTES_MAX, batches};
use super::{Diagnosis, Healed, VaultFinding, VaultState, changes_of};
use crate::account::Account;
use crate::error::{ClientError, Result};
use crate::replica::VaultReplica;
use lockstep_engine::replica::{RecordRow, Replica as _};
use lockstep_proto::api::vault::{Entries, GetEnvelopes};
use lockstep_proto::cbor::Bytes;
use lockstep_proto::id::{RecordId, Seq, VaultId};
use lockstep_proto::{Digest, envelope, limits};
use std::collections::{BTreeMap, BTreeSet};

/// Places that are asked for in one request.
const PLACES_A_REQUEST: usize = limits::PAGE_ENTRIES_MAX / 4;
/// Entries beyond the records that are known here, after which a server is not asked for more.
const STRANGERS_MAX: usize = 1000;

type Place = (Seq, RecordId);

impl Account {
    /// Asks the server for every newest envelope of the vaults whose chains it shares with this device, and adds to what
    /// was found those that it does not give out as they were signed. Changes nothing.
    ///
    /// # Errors
    /// [`ClientError`] if the server can not be asked.
    pub async fn look_for_envelopes(&self, diagnosis: &mut Diagnosis) -> Result<()> {
        for found in &mut diagnosis.vaults {
            if found.is_shared() {
                self.look_for_envelopes_of(found).await?;
            }
        }
        Ok(())
    }

    async fn look_for_envelopes_of(&self, found: &mut VaultFinding) -> Result<()> {
        let Some(replica) = self.db.vault(found.vault, None)? else { return Ok(()) };
        let Some(upto) = found.server.min(found.held) else { return Ok(()) };
        let lacking = self.lacking(&replica, upto).await?;
        for row in lacking {
            let place = (row.seq, row.record);
            if held(&replica, &row)?.is_some() {
                found.lacks.insert(place);
            } else {
                found.not_held.insert(place);
            }
        }
        Ok(())
    }

    /// Newest versions up to a commit of which the server does not show the envelope that was signed.
    async fn lacking(&self, replica: &VaultReplica, upto: Seq) -> Result<Vec<RecordRow>> {
        let mut rows: BTreeMap<Place, RecordRow> = BTreeMap::new();
        let (mut after, mut count) = (None, 0_usize);
        loop {
            let page = replica.records_after(after, 1000)?;
            let Some(last) = page.last() else { break };
            after = Some(last.record);
            count = count.saturating_add(page.len());
            let old = page.into_iter().filter(|row| row.seq <= upto);
            rows.extend(old.map(|row| ((row.seq, row.record), row)));
        }
        let base = format!("/v1/vaults/{}/state?upto={upto}", replica.vault());
        let (mut place, mut seen): (Option<Place>, usize) = (None, 0);
        loop {
            let path = match place {
                None => base.clone(),
                Some((seq, record)) => format!("{base}&from-seq={seq}&from-record={record}"),
            };
            let page: Entries = self.api.get(&path).await?;
            seen = seen.saturating_add(page.entries.len());
            if seen > count.saturating_add(STRANGERS_MAX) {
                return Err(ClientError::Server("it shows ever more records that no commit wrote".into()));
            }
            for entry in &page.entries {
                let here = (entry.seq, entry.record);
                if place.is_some_and(|last| last >= here) {
                    return Err(ClientError::Server("entries do not ascend".into()));
                }
                place = Some(here);
                let digest = envelope::digest(&entry.envelope.0);
                if rows.get(&here).is_some_and(|row| row.digest == digest) {
                    rows.remove(&here);
                }
            }
            if !page.more || rows.is_empty() {
                return Ok(rows.into_values().collect());
            }
            if page.entries.is_empty() {
                return Err(ClientError::Server("it promises more entries and sends none".into()));
            }
        }
    }

    /// Gives the server the envelopes back that were found to be lacking, and asks for them: those that it still does not
    /// give out are named.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn give_envelopes_back(&self, diagnosis: &Diagnosis, healed: &mut Healed) -> Result<()> {
        for found in &diagnosis.vaults {
            self.give_envelopes_of(found, healed).await?;
        }
        Ok(())
    }

    /// Looks at the vaults whose chains were not shared when this was found, and gives back what their healing left
    /// lacking.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn give_rest_back(&self, diagnosis: &Diagnosis, healed: &mut Healed) -> Result<()> {
        for found in diagnosis.vaults.iter().filter(|found| !found.is_shared()) {
            let Some(replica) = self.db.vault(found.vault, None)? else { continue };
            let head = replica.head()?.map(|head| head.tip.seq);
            let mut found = VaultFinding { held: head, server: head, ..found.clone() };
            self.look_for_envelopes_of(&mut found).await?;
            self.give_envelopes_of(&found, healed).await?;
        }
        Ok(())
    }

    async fn give_envelopes_of(&self, found: &VaultFinding, healed: &mut Healed) -> Result<()> {
        healed.not_held.extend(&found.not_held);
        if found.lacks.is_empty() {
            return Ok(());
        }
        let Some(replica) = self.db.vault(found.vault, None)? else { return Ok(()) };
        let mut by_commit: BTreeMap<Seq, Vec<RecordId>> = BTreeMap::new();
        for (seq, record) in &found.lacks {
            by_commit.entry(*seq).or_default().push(*record);
        }
        let mut given: BTreeMap<Place, Digest> = BTreeMap::new();
        for (seq, records) in by_commit {
            given.extend(self.give_envelopes_of_commit(&replica, seq, &records).await?);
        }
        let count = given.len();
        self.confirm(found.vault, &mut given).await?;
        healed.envelopes += u64::try_from(count.saturating_sub(given.len())).unwrap_or(0);
        healed.refused.extend(given.into_keys());
        Ok(())
    }

    async fn give_envelopes_of_commit(
        &self,
        replica: &VaultReplica,
        seq: Seq,
        records: &[RecordId],
    ) -> Result<Vec<(Place, Digest)>> {
        let id = replica.vault();
        let missing = || ClientError::Damaged(format!("commit {seq} of vault {id} is missing here"));
        let (commit, changes) = replica.commit(seq)?.ok_or_else(missing)?;
        let (mut envelopes, mut given): (Vec<Bytes>, Vec<_>) = (Vec::new(), Vec::new());
        for record in records {
            // A new version may have come since.
            let Some(row) = replica.record(*record)?.filter(|row| row.seq == seq) else { continue };
            if let Some(bytes) = held(replica, &row)? {
                envelopes.push(bytes.into());
                given.push(((seq, *record), row.digest));
            }
        }
        for some in batches(envelopes, INLINE_BYTES_MAX) {
            self.post_commit(id, commit.clone(), changes.clone(), some).await?;
        }
        Ok(given)
    }

    /// Leaves what the server does not give out as it was signed.
    async fn confirm(&self, id: VaultId, given: &mut BTreeMap<Place, Digest>) -> Result<()> {
        let path = format!("/v1/vaults/{id}/envelopes/get");
        let all: Vec<Place> = given.keys().copied().collect();
        for chunk in all.chunks(PLACES_A_REQUEST) {
            let mut wanted: BTreeSet<Place> = chunk.iter().copied().collect();
            while !wanted.is_empty() {
                let places = wanted.iter().copied().collect();
                let page: Entries = self.api.post(&path, &GetEnvelopes(places)).await?;
                let before = wanted.len();
                for entry in page.entries {
                    let place = (entry.seq, entry.record);
                    wanted.remove(&place);
                    if given.get(&place) == Some(&envelope::digest(&entry.envelope.0)) {
                        given.remove(&place);
                    }
                }
                if !page.more || wanted.len() == before {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl VaultFinding {
    /// Whether the server has a chain that this device has, too, up to its end.
    fn is_shared(&self) -> bool {
        matches!(self.state, VaultState::Whole | VaultState::Behind(_))
    }
}

/// The envelope of a newest version, if it is here and undamaged.
pub(super) fn held(replica: &VaultReplica, row: &RecordRow) -> Result<Option<Vec<u8>>> {
    let bytes = if row.present { replica.envelope(row.record)? } else { None };
    Ok(bytes.filter(|bytes| envelope::digest(bytes) == row.digest))
}

/// Newest versions after a commit whose envelopes are not here: nobody gets them from this device.
pub(super) fn not_here(replica: &VaultReplica, after: Option<Seq>) -> Result<BTreeSet<Place>> {
    let mut rows = replica.not_held(None)?;
    rows.extend(replica.absent(usize::MAX)?);
    let lacking = rows.into_iter().filter(|row| after.is_none_or(|after| row.seq > after));
    Ok(lacking.map(|row| (row.seq, row.record)).collect())
}

/// What a commit writes that is still the newest of its record: the envelopes that are here, and the places of the others.
pub(super) fn newest_of(
    replica: &VaultReplica,
    seq: Seq,
    changes: &[u8],
) -> Result<(Vec<Bytes>, Vec<Place>)> {
    let (mut envelopes, mut not_held) = (Vec::new(), Vec::new());
    for change in &changes_of(changes)?.0 {
        let Some((record, _, digest)) = change.version() else { continue };
        let row = replica.record(record)?.filter(|row| row.seq == seq && row.digest == digest);
        let Some(row) = row else { continue };
        match held(replica, &row)? {
            Some(bytes) => envelopes.push(bytes.into()),
            None => not_held.push((seq, record)),
        }
    }
    Ok((envelopes, not_held))
}
