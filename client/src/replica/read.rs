//! The engine's reading side, and a few listings for the client.

use super::select::WANTED;
use super::{VaultReplica, signed};
use crate::error::Result as ClientResult;
use lockstep_client_crypto::content::Hlc;
use lockstep_engine::EngineError;
use lockstep_engine::document::Origin;
use lockstep_engine::replica::{
    Base, Head, InFlight, PendingRow, Pinning, Policy, RecordRow, Replica, Result, SealedOperation,
    VersionRow,
};
use lockstep_proto::cbor::{Bytes, Wire as _, decode_local, encode};
use lockstep_proto::chain::Tip;
use lockstep_proto::envelope::KIND_DOCUMENT;
use lockstep_proto::id::{Epoch, OperationId, RecordId, Revision, Seq, VaultId};
use lockstep_proto::state::StateDigest;
use lockstep_proto::{Digest, Signed};
use rusqlite::{OptionalExtension as _, Row, params};

fn failed(error: rusqlite::Error) -> EngineError {
    EngineError::replica(error)
}

fn damaged(what: &str) -> EngineError {
    EngineError::replica(format!("{what} can not be read"))
}

fn number(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(super) fn sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) const RECORD_COLUMNS: &str = "record, revision, digest, seq, kind, present";

pub(super) fn record_row(row: &Row<'_>) -> rusqlite::Result<RecordRow> {
    Ok(RecordRow {
        record: RecordId::from_bytes(row.get(0)?),
        revision: Revision::new(number(row.get(1)?)),
        digest: Digest::from_bytes(row.get(2)?),
        seq: Seq::new(number(row.get(3)?)),
        kind: row.get(4)?,
        present: row.get(5)?,
    })
}

/// A tip as stored: nine fields in one CBOR array.
pub(super) fn encode_tip(tip: &Tip) -> Vec<u8> {
    encode(&(
        tip.vault,
        tip.seq,
        tip.hash,
        tip.epoch,
        tip.device_log_index,
        tip.vault_log_index,
        tip.vault_log_head,
        tip.rotated_at,
        tip.state,
    ))
}

type TipFields = (VaultId, Seq, Digest, Epoch, u64, u64, Digest, u64, Digest);

fn decode_tip(bytes: &[u8]) -> Result<Tip> {
    let fields: TipFields = decode_local(bytes).ok_or_else(|| damaged("the verified head"))?;
    let (vault, seq, hash, epoch, device_log_index, vault_log_index, vault_log_head, rotated_at, state) =
        fields;
    Ok(Tip { vault, seq, hash, epoch, device_log_index, vault_log_index, vault_log_head, rotated_at, state })
}

/// A place of a chain as stored.
pub(super) fn encode_place(place: &(Seq, Digest)) -> Vec<u8> {
    encode(place)
}

type SealedFields = (OperationId, RecordId, Revision, Bytes);

pub(super) fn encode_in_flight(in_flight: &InFlight) -> Vec<u8> {
    let sealed: Vec<SealedFields> = in_flight
        .sealed
        .iter()
        .map(|sealed| (sealed.operation, sealed.record, sealed.revision, sealed.envelope.clone().into()))
        .collect();
    encode(&(&in_flight.commit, Bytes::from(in_flight.changes.clone()), sealed))
}

fn decode_in_flight(bytes: &[u8]) -> Result<InFlight> {
    let fields: (Signed, Bytes, Vec<SealedFields>) =
        decode_local(bytes).ok_or_else(|| damaged("the commit in flight"))?;
    let sealed = fields.2.into_iter().map(|(operation, record, revision, envelope)| SealedOperation {
        operation,
        record,
        revision,
        envelope: envelope.0,
    });
    Ok(InFlight { commit: fields.0, changes: fields.1.0, sealed: sealed.collect() })
}

/// Place of a pending row's sealed content.
pub(super) fn pending_place(vault: VaultId, operation: OperationId) -> Vec<u8> {
    let mut place = b"pending".to_vec();
    place.extend_from_slice(vault.as_bytes());
    place.extend_from_slice(operation.as_bytes());
    place
}

/// Place of what a pending row grew from.
pub(super) fn grew_place(vault: VaultId, operation: OperationId) -> Vec<u8> {
    let mut place = b"grew".to_vec();
    place.extend_from_slice(vault.as_bytes());
    place.extend_from_slice(operation.as_bytes());
    place
}

const PENDING_COLUMNS: &str =
    "operation, record, kind, base_revision, base_operation, policy, pin, content, unpin_seq, grew";

impl VaultReplica {
    pub(super) fn records(&self, condition: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<RecordRow>> {
        let text = format!("SELECT {RECORD_COLUMNS} FROM record WHERE {condition}");
        let mut statement = self.db.connection().prepare_cached(&text).map_err(failed)?;
        let rows = statement.query_map(values, record_row).map_err(failed)?;
        rows.map(|row| row.map_err(failed)).collect()
    }

    fn pending_where(&self, condition: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<PendingRow>> {
        let text = format!("SELECT {PENDING_COLUMNS} FROM pending WHERE {condition}");
        let mut statement = self.db.connection().prepare_cached(&text).map_err(failed)?;
        let mut rows = statement.query(values).map_err(failed)?;
        let mut out = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            out.push(self.pending_row(row)?);
        }
        Ok(out)
    }

    fn pending_row(&self, row: &Row<'_>) -> Result<PendingRow> {
        let operation = OperationId::from_bytes(row.get(0).map_err(failed)?);
        let base_revision: Option<i64> = row.get(3).map_err(failed)?;
        let base_operation: Option<[u8; 16]> = row.get(4).map_err(failed)?;
        let base = match (base_revision, base_operation) {
            (Some(revision), None) => Base::Revision(Revision::new(number(revision))),
            (None, Some(operation)) => Base::Pending(OperationId::from_bytes(operation)),
            _ => return Err(damaged("a pending write")),
        };
        let policy = match row.get::<_, i64>(5).map_err(failed)? {
            0 => Policy::KeepBoth,
            1 => Policy::AdoptCommitted,
            2 => Policy::Overwrite,
            3 => Policy::Merge,
            _ => return Err(damaged("a pending write")),
        };
        let pin =
            match (row.get::<_, bool>(6).map_err(failed)?, row.get::<_, Option<i64>>(8).map_err(failed)?) {
                (false, None) => Pinning::None,
                (true, None) => Pinning::Pin,
                (false, Some(seq)) => Pinning::Unpin(Seq::new(number(seq))),
                (true, Some(_)) => return Err(damaged("a pending write")),
            };
        let sealed: Vec<u8> = row.get(7).map_err(failed)?;
        let content = self.db.keys().open_row(&pending_place(self.vault, operation), &sealed);
        let grew: Option<Vec<u8>> = row.get(9).map_err(failed)?;
        let grew = match grew {
            Some(sealed) => {
                let place = grew_place(self.vault, operation);
                let bytes = self.db.keys().open_row(&place, &sealed).ok();
                let origin = bytes.and_then(|bytes| Origin::decode(&bytes).ok());
                Some(origin.ok_or_else(|| damaged("what a pending write grew from"))?)
            }
            None => None,
        };
        Ok(PendingRow {
            operation,
            record: RecordId::from_bytes(row.get(1).map_err(failed)?),
            kind: row.get(2).map_err(failed)?,
            content: content.map_err(|_| damaged("a pending write"))?.to_vec(),
            base,
            policy,
            pin,
            grew,
        })
    }

    /// Number of pending writes.
    ///
    /// # Errors
    /// [`crate::ClientError::Database`].
    pub fn pending_count(&self) -> ClientResult<u64> {
        let mut statement =
            self.db.connection().prepare_cached("SELECT count(*) FROM pending WHERE vault = ?1")?;
        Ok(statement.query_row([self.key], |row| row.get(0)).map(number)?)
    }

    /// Records of a type (and group), tombstones and replaced ones included.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn tagged(&self, record_type: &str, group: &[u8]) -> ClientResult<Vec<RecordRow>> {
        let tag = self.db.keys().tag("type", record_type.as_bytes());
        let group = self.db.keys().tag("group", group);
        let condition = "vault = ?1 AND tag = ?2 AND group_tag = ?3 ORDER BY record";
        Ok(self.records(condition, params![self.key, &tag[..], &group[..]])?)
    }

    /// Newest and number of pending writes, and number of records whose envelope is not here and should be: with the head they say
    /// whether anything changed.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn counts(&self) -> ClientResult<(i64, i64, i64)> {
        let mut statement = self.db.connection().prepare_cached(
            "SELECT (SELECT coalesce(max(id), 0) FROM pending WHERE vault = ?1),
                    (SELECT count(*) FROM pending WHERE vault = ?1),
                    (SELECT count(*) FROM record WHERE vault = ?1 AND present = 0 AND evicted = 0)
                        + (SELECT count(*) FROM record WHERE vault = ?1 AND evicted = 2)",
        )?;
        Ok(statement.query_row([self.key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?)
    }

    /// Every version that counts, each record's from the first to the newest.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub(crate) fn versions(&self) -> ClientResult<Vec<VersionRow>> {
        let text = "SELECT seq, record, revision, digest, kind, previous_seq FROM version WHERE vault = ?1
                    ORDER BY record, seq";
        let mut statement = self.db.connection().prepare_cached(text)?;
        let rows = statement.query_map([self.key], |row| {
            let previous: Option<i64> = row.get(5)?;
            Ok(VersionRow {
                seq: Seq::new(number(row.get(0)?)),
                record: RecordId::from_bytes(row.get(1)?),
                revision: Revision::new(number(row.get(2)?)),
                digest: Digest::from_bytes(row.get(3)?),
                kind: row.get(4)?,
                previous_seq: previous.map(|seq| Seq::new(number(seq))),
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Records whose envelope is here and does not open.
    ///
    /// # Errors
    /// [`crate::ClientError`].
    pub fn quarantined(&self) -> ClientResult<Vec<RecordRow>> {
        Ok(self.records("vault = ?1 AND quarantined = 1 ORDER BY record", params![self.key])?)
    }
}

impl Replica for VaultReplica {
    fn head(&self) -> Result<Option<Head>> {
        let mut statement = self
            .db
            .connection()
            .prepare_cached("SELECT tip, state FROM vault WHERE id = ?1")
            .map_err(failed)?;
        let row: (Option<Vec<u8>>, Option<Vec<u8>>) =
            statement.query_row([self.key], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
        match row {
            (Some(tip), Some(state)) => {
                let tip = decode_tip(&tip)?;
                let state = StateDigest::from_bytes(&state).filter(|state| state.checksum() == tip.state);
                let state = state.ok_or_else(|| damaged("the state digest"))?;
                Ok(Some(Head { tip, state }))
            }
            (None, None) => Ok(None),
            _ => Err(damaged("the verified head")),
        }
    }

    fn commit_hash(&self, seq: Seq) -> Result<Option<Digest>> {
        let text = "SELECT hash FROM commit_row WHERE vault = ?1 AND seq = ?2";
        let mut statement = self.db.connection().prepare_cached(text).map_err(failed)?;
        let hash: Option<[u8; 32]> = statement
            .query_row(params![self.key, sql(seq.value())], |row| row.get(0))
            .optional()
            .map_err(failed)?;
        Ok(hash.map(Digest::from_bytes))
    }

    fn gave_up(&self, seq: Seq, hash: Digest) -> Result<bool> {
        let text = "SELECT 1 FROM shelved_commit WHERE vault = ?1 AND seq = ?2 AND hash = ?3";
        let mut statement = self.db.connection().prepare_cached(text).map_err(failed)?;
        statement.exists(params![self.key, sql(seq.value()), hash.as_bytes()]).map_err(failed)
    }

    fn commit(&self, seq: Seq) -> Result<Option<(Signed, Vec<u8>)>> {
        let text = "SELECT bytes, signature, changes FROM commit_row WHERE vault = ?1 AND seq = ?2";
        let mut statement = self.db.connection().prepare_cached(text).map_err(failed)?;
        let row = statement.query_row(params![self.key, sql(seq.value())], |row| {
            Ok((signed((row.get(0)?, row.get(1)?)), row.get(2)?))
        });
        row.optional().map_err(failed)
    }

    fn record(&self, record: RecordId) -> Result<Option<RecordRow>> {
        Ok(self.records("vault = ?1 AND record = ?2", params![self.key, record.as_bytes()])?.pop())
    }

    fn envelope(&self, record: RecordId) -> Result<Option<Vec<u8>>> {
        let text = "SELECT envelope FROM record WHERE vault = ?1 AND record = ?2 AND present = 1";
        let mut statement = self.db.connection().prepare_cached(text).map_err(failed)?;
        let row = statement.query_row(params![self.key, record.as_bytes()], |row| row.get(0));
        row.optional().map_err(failed)
    }

    fn staged(&self, seq: Seq, record: RecordId) -> Result<Option<Vec<u8>>> {
        let text = "SELECT envelope FROM staged WHERE vault = ?1 AND seq = ?2 AND record = ?3";
        let mut statement = self.db.connection().prepare_cached(text).map_err(failed)?;
        let values = params![self.key, sql(seq.value()), record.as_bytes()];
        statement.query_row(values, |row| row.get(0)).optional().map_err(failed)
    }

    fn version(&self, seq: Seq, record: RecordId) -> Result<Option<VersionRow>> {
        let text = "SELECT revision, digest, kind, previous_seq FROM version
                    WHERE vault = ?1 AND seq = ?2 AND record = ?3";
        let mut statement = self.db.connection().prepare_cached(text).map_err(failed)?;
        let row = statement.query_row(params![self.key, sql(seq.value()), record.as_bytes()], |row| {
            let previous: Option<i64> = row.get(3)?;
            Ok(VersionRow {
                seq,
                record,
                revision: Revision::new(number(row.get(0)?)),
                digest: Digest::from_bytes(row.get(1)?),
                kind: row.get(2)?,
                previous_seq: previous.map(|seq| Seq::new(number(seq))),
            })
        });
        row.optional().map_err(failed)
    }

    fn records_after(&self, after: Option<RecordId>, limit: usize) -> Result<Vec<RecordRow>> {
        let after = after.map_or_else(Vec::new, |record| record.as_bytes().to_vec());
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.records("vault = ?1 AND record > ?2 ORDER BY record LIMIT ?3", params![self.key, after, limit])
    }

    fn absent(&self, limit: usize) -> Result<Vec<RecordRow>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let condition = "vault = ?1 AND present = 0 AND evicted = 0 ORDER BY seq, record LIMIT ?2";
        self.records(condition, params![self.key, limit])
    }

    fn wanted(&self, after: Option<(Seq, RecordId)>, limit: usize) -> Result<Vec<RecordRow>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (seq, record) = match after {
            Some((seq, record)) => (sql(seq.value()), record.as_bytes().to_vec()),
            None => (-1, Vec::new()),
        };
        self.records(WANTED, params![self.key, seq, record, limit])
    }

    fn is_evicted(&self, record: RecordId) -> Result<bool> {
        let text = "SELECT 1 FROM record WHERE vault = ?1 AND record = ?2 AND evicted = 1";
        let mut statement = self.db.connection().prepare_cached(text).map_err(failed)?;
        statement.exists(params![self.key, record.as_bytes()]).map_err(failed)
    }

    fn pending(&self, limit: usize) -> Result<Vec<PendingRow>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.pending_where("vault = ?1 ORDER BY id LIMIT ?2", params![self.key, limit])
    }

    fn pending_after(&self, after: OperationId, limit: usize) -> Result<Vec<PendingRow>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let place = "(SELECT id FROM pending WHERE vault = ?1 AND operation = ?3)";
        let condition = format!("vault = ?1 AND id > {place} ORDER BY id LIMIT ?2");
        self.pending_where(&condition, params![self.key, limit, after.as_bytes()])
    }

    fn pending_of(&self, record: RecordId) -> Result<Vec<PendingRow>> {
        self.pending_where("vault = ?1 AND record = ?2 ORDER BY id", params![self.key, record.as_bytes()])
    }

    fn has_followers(&self) -> Result<bool> {
        let text = "SELECT 1 FROM pending WHERE vault = ?1 AND base_operation IS NOT NULL LIMIT 1";
        let mut statement = self.db.connection().prepare_cached(text).map_err(failed)?;
        statement.exists([self.key]).map_err(failed)
    }

    fn abandoned(&self, seq: Seq, hash: Digest) -> Result<bool> {
        self.is_abandoned(seq, hash).map_err(EngineError::replica)
    }

    fn expected(&self) -> Result<Option<(Seq, Digest)>> {
        let mut statement = self
            .db
            .connection()
            .prepare_cached("SELECT expected FROM vault WHERE id = ?1")
            .map_err(failed)?;
        let bytes: Option<Vec<u8>> = statement.query_row([self.key], |row| row.get(0)).map_err(failed)?;
        let place = |bytes: Vec<u8>| decode_local(&bytes).ok_or_else(|| damaged("an expected repair"));
        bytes.map(place).transpose()
    }

    fn in_flight(&self) -> Result<Option<InFlight>> {
        let mut statement = self
            .db
            .connection()
            .prepare_cached("SELECT in_flight FROM vault WHERE id = ?1")
            .map_err(failed)?;
        let bytes: Option<Vec<u8>> = statement.query_row([self.key], |row| row.get(0)).map_err(failed)?;
        bytes.map(|bytes| decode_in_flight(&bytes)).transpose()
    }

    fn clock(&self) -> Result<Hlc> {
        let text = "SELECT clock_ms, clock_counter FROM vault WHERE id = ?1";
        let mut statement = self.db.connection().prepare_cached(text).map_err(failed)?;
        let row: (i64, i64) =
            statement.query_row([self.key], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
        Ok(Hlc { utc_ms: number(row.0), counter: number(row.1) })
    }

    fn list(&self, record_type: &str, group: Option<&[u8]>) -> Result<Vec<RecordRow>> {
        let tag = self.db.keys().tag("type", record_type.as_bytes());
        let kind = i64::from(KIND_DOCUMENT);
        match group {
            None => self.records(
                "vault = ?1 AND tag = ?2 AND kind = ?3 AND present = 1 ORDER BY record",
                params![self.key, &tag[..], kind],
            ),
            Some(group) => {
                let group = self.db.keys().tag("group", group);
                self.records(
                    "vault = ?1 AND tag = ?2 AND group_tag = ?4 AND kind = ?3 AND present = 1 ORDER BY record",
                    params![self.key, &tag[..], kind, &group[..]],
                )
            }
        }
    }
}
