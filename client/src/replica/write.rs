//! Carrying out the engine's writes: all operations of one effect in one transaction.

use super::VaultReplica;
use super::read::{encode_in_flight, encode_place, encode_tip, grew_place, pending_place, sql};
use super::select::{DUE, EVICT, HOLD, RECALL};
use crate::error::Result;
use lockstep_engine::replica::{
    Base, EnvelopeSource, IndexInfo, PendingRow, Pinning, Policy, RecordRow, WriteOp,
};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::OperationId;
use rusqlite::{Connection, params};
use zeroize::Zeroizing;

/// Tags of type and group, and whether somebody has to decide.
type Tags = (Option<[u8; 16]>, Option<[u8; 16]>, Option<bool>);

impl VaultReplica {
    /// Carries out operations durably, together.
    ///
    /// # Errors
    /// [`crate::ClientError`]; nothing was written then.
    pub fn apply(&self, ops: &[WriteOp]) -> Result<()> {
        self.db.together(|| ops.iter().try_for_each(|op| self.apply_one(self.db.connection(), op)))
    }

    fn apply_one(&self, t: &Connection, op: &WriteOp) -> Result<()> {
        let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| -> Result<()> {
            t.prepare_cached(sql)?.execute(values)?;
            Ok(())
        };
        match op {
            WriteOp::AddPending(row) => self.add_pending(t, row),
            WriteOp::ReplacePending(operation, row) => self.replace_pending(t, *operation, row),
            WriteOp::DropPending(operation) => run(
                "DELETE FROM pending WHERE vault = ?1 AND operation = ?2",
                params![self.key, operation.as_bytes()],
            ),
            WriteOp::AddMerge(row) => self.add_merge(t, row),
            WriteOp::SetInFlight(in_flight) => run(
                "UPDATE vault SET in_flight = ?2 WHERE id = ?1",
                params![self.key, encode_in_flight(in_flight)],
            ),
            WriteOp::DropInFlight => {
                run("UPDATE vault SET in_flight = NULL WHERE id = ?1", params![self.key])
            }
            WriteOp::AddCommit { seq, hash, commit, changes } => run(
                "INSERT INTO commit_row (vault, seq, hash, bytes, signature, changes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    self.key,
                    sql(seq.value()),
                    hash.as_bytes(),
                    commit.bytes.0,
                    commit.signature.0,
                    changes
                ],
            ),
            WriteOp::AddVersion(row) => run(
                "INSERT INTO version (vault, seq, record, revision, digest, kind, previous_seq)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    self.key,
                    sql(row.seq.value()),
                    row.record.as_bytes(),
                    sql(row.revision.value()),
                    row.digest.as_bytes(),
                    row.kind,
                    row.previous_seq.map(|seq| sql(seq.value())),
                ],
            ),
            WriteOp::SetRecord(row, source) => self.set_record(t, row, source),
            WriteOp::Evict(record) => run(EVICT, params![self.key, record.as_bytes()]),
            WriteOp::Recall(record) => run(RECALL, params![self.key, record.as_bytes()]),
            WriteOp::Hold(record, utc) => {
                run(HOLD, params![self.key, record.as_bytes(), utc.map(|utc| sql(utc.saturating_add(1)))])
            }
            WriteOp::StageEnvelope { seq, record, envelope, index } => {
                let (tag, group, conflict) = self.tags(index.as_ref());
                run(
                    "INSERT OR REPLACE INTO staged (vault, seq, record, tag, group_tag, conflict, envelope)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    params![self.key, sql(seq.value()), record.as_bytes(), tag, group, conflict, envelope],
                )
            }
            WriteOp::GoBack { to, on_chain, carries } => self.go_back(t, *to, *on_chain, *carries),
            WriteOp::Abandon(seq, hash) => run(
                "INSERT OR IGNORE INTO abandoned (vault, seq, hash) VALUES (?1, ?2, ?3)",
                params![self.key, sql(seq.value()), hash.as_bytes()],
            ),
            WriteOp::SetExpected(place) => run(
                "UPDATE vault SET expected = ?2 WHERE id = ?1",
                params![self.key, place.as_ref().map(encode_place)],
            ),
            WriteOp::ClearStaged => run("DELETE FROM staged WHERE vault = ?1", params![self.key]),
            WriteOp::SetHead(head) => run(
                "UPDATE vault SET tip = ?2, state = ?3 WHERE id = ?1",
                params![self.key, encode_tip(&head.tip), head.state.to_bytes()],
            ),
            WriteOp::SetClock(clock) => run(
                "UPDATE vault SET clock_ms = ?2, clock_counter = ?3 WHERE id = ?1",
                params![self.key, sql(clock.utc_ms), sql(clock.counter)],
            ),
        }
    }

    fn tags(&self, index: Option<&IndexInfo>) -> Tags {
        let keys = self.db.keys();
        match index {
            None => (None, None, None),
            Some(info) => {
                let (tag, group) =
                    (keys.tag("type", info.record_type.as_bytes()), keys.tag("group", &info.group));
                (Some(tag), Some(group), Some(info.conflict))
            }
        }
    }

    fn set_record(&self, t: &Connection, row: &RecordRow, source: &EnvelopeSource) -> Result<()> {
        const UPSERT: &str = "ON CONFLICT (vault, record) DO UPDATE SET revision = excluded.revision,
            digest = excluded.digest, seq = excluded.seq, kind = excluded.kind, present = excluded.present,
            tag = coalesce(excluded.tag, tag), group_tag = coalesce(excluded.group_tag, group_tag),
            quarantined = excluded.quarantined, conflict = excluded.conflict,
            envelope = excluded.envelope, due = excluded.due, evicted = 0";
        const COLUMNS: &str = "(vault, record, revision, digest, seq, kind, present, tag, group_tag, quarantined, conflict, envelope, due)";
        let seq = sql(row.seq.value());
        let revision = sql(row.revision.value());
        if matches!(source, EnvelopeSource::Staged) {
            let text = format!(
                "INSERT INTO record {COLUMNS}
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6, 1, tag, group_tag, tag IS NULL, coalesce(conflict, 0), envelope, {DUE}
                 FROM staged
                 WHERE vault = ?1 AND record = ?2 AND seq = ?5 {UPSERT}"
            );
            let values =
                params![self.key, row.record.as_bytes(), revision, row.digest.as_bytes(), seq, row.kind];
            if t.prepare_cached(&text)?.execute(values)? != 1 {
                return Err(super::damaged("a staged envelope"));
            }
            return Ok(());
        }
        let (envelope, (tag, group, conflict)) = match source {
            EnvelopeSource::Here(bytes, index) => (Some(bytes), self.tags(index.as_ref())),
            _ => (None, (None, None, None)),
        };
        let text = format!(
            "INSERT INTO record {COLUMNS} VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, {DUE}) {UPSERT}"
        );
        let values = params![
            self.key,
            row.record.as_bytes(),
            revision,
            row.digest.as_bytes(),
            seq,
            row.kind,
            row.present,
            tag,
            group,
            row.present && tag.is_none(),
            conflict.unwrap_or(false),
            envelope
        ];
        t.prepare_cached(&text)?.execute(values)?;
        Ok(())
    }

    fn add_pending(&self, t: &Connection, row: &PendingRow) -> Result<()> {
        let text = "INSERT INTO pending
            (vault, operation, record, kind, base_revision, base_operation, policy, pin, content, unpin_seq, grew)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        self.bind_pending(t, text, row.operation, row)
    }

    fn replace_pending(&self, t: &Connection, operation: OperationId, row: &PendingRow) -> Result<()> {
        let text = "UPDATE pending SET record = ?3, kind = ?4, base_revision = ?5, base_operation = ?6,
            policy = ?7, pin = ?8, content = ?9, unpin_seq = ?10, grew = ?11 WHERE vault = ?1 AND operation = ?2";
        self.bind_pending(t, text, operation, row)
    }

    fn bind_pending(
        &self,
        t: &Connection,
        text: &str,
        operation: OperationId,
        row: &PendingRow,
    ) -> Result<()> {
        let (revision, base) = match row.base {
            Base::Revision(revision) => (Some(sql(revision.value())), None),
            Base::Pending(operation) => (None, Some(*operation.as_bytes())),
        };
        let policy = match row.policy {
            Policy::KeepBoth => 0,
            Policy::AdoptCommitted => 1,
            Policy::Overwrite => 2,
            Policy::Merge => 3,
        };
        let (pin, unpin_seq) = match row.pin {
            Pinning::None => (false, None),
            Pinning::Pin => (true, None),
            Pinning::Unpin(seq) => (false, Some(sql(seq.value()))),
        };
        let place = pending_place(self.vault, operation);
        let content = self.db.keys().seal_row(&place, &row.content, &mut crate::rng::system());
        let grew = row.grew.as_ref().map(|grew| {
            let place = grew_place(self.vault, operation);
            self.db.keys().seal_row(&place, &Zeroizing::new(grew.encode()), &mut crate::rng::system())
        });
        let values = params![
            self.key,
            operation.as_bytes(),
            row.record.as_bytes(),
            row.kind,
            revision,
            base,
            policy,
            pin,
            content,
            unpin_seq,
            grew
        ];
        t.prepare_cached(text)?.execute(values)?;
        Ok(())
    }
}
