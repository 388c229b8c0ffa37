//! Applying commits: everything is read, judged and written in the writer's transaction.

use super::row::{digest, id16, maybe, number, sql};
use super::{failed, heal, pieces, repair, stage, usage};
use crate::domain::commit::{Judged, Live, PreparedCommit, VaultState, check_authority, judge};
use crate::domain::quota::{DefaultQuota, allowance_of, charge_of};
use crate::error::{Refusal, StoreError};
use crate::store::{Pushed, Result, VaultKey, no_vault};
use lockstep_proto::Digest;
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::chain::{Authors, Tip};
use lockstep_proto::commit::{Change, KIND_CHANGE};
use lockstep_proto::envelope::{KIND_DOCUMENT, KIND_TOMBSTONE};
use lockstep_proto::id::{AccountId, BlobId, DeviceId, Epoch, RecordId, Revision, Seq, VaultId};
use lockstep_proto::key_header::KeyHeader;
use lockstep_proto::sign::PublicKey;
use lockstep_proto::state::StateDigest;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};
use std::collections::BTreeMap;

pub(super) async fn apply(
    c: &mut SqliteConnection,
    account: AccountId,
    key: VaultKey,
    quota: DefaultQuota,
    mut push: PreparedCommit,
) -> Result<Pushed> {
    let (end, state, records) = vault(c, key).await?;
    let seq = push.commit.seq;
    if seq <= end.seq {
        let same = commit_hash(c, key, seq).await? == Some(push.hash);
        if same && push.heals {
            heal::fill(c, key, quota, &push).await?;
        }
        return Ok(if same { Pushed::Applied { seq, head: push.hash } } else { Pushed::HeadMoved });
    }
    if seq != end.seq.next() || push.commit.previous != end.hash {
        return Ok(Pushed::HeadMoved);
    }
    let back_to = push.changes.goes_back_to();
    let is_plain = push.commit.kind == KIND_CHANGE && back_to.is_none();
    let identity = if is_plain { None } else { identity(c, account).await? };
    if back_to.is_some() {
        let identity = identity.as_ref().ok_or(StoreError::Corrupt("an identity is no valid key"))?;
        check_authority(&push, account, identity)?;
    }
    let (tip, state, records) = match back_to.filter(|to| *to < end.seq) {
        Some(to) => repair::at(c, key, to, (end, state, records)).await?,
        None => (end, state, records),
    };
    let staged = stage::take(c, key, &mut push).await?;
    let lost = check_objects(c, key, &push).await?;
    let skip = commit_hash(c, key, seq.skip_target()).await?;
    let skip = skip.ok_or(StoreError::Corrupt("a commit of the chain is missing"))?;
    let live = live(c, key, &push.records()).await?;
    let authors = authors(c, account, &push).await?;
    let vault = VaultState { account, identity, tip, skip, state, records, live };
    let judged = judge(&push, &vault, &authors)?;
    let mut charge = charge_of(&push, &staged, lost);
    if let Some(to) = back_to {
        let log_bytes = repair::write(c, key, to, seq, judged.tip.vault_log_index).await?;
        charge.freed = charge.freed.saturating_add(log_bytes);
    }
    usage::charge(c, key, quota, charge, allowance_of(&push.changes)).await?;
    write(c, key, &push, &vault.live, &judged).await?;
    stage::forget(c, key, &staged).await?;
    Ok(Pushed::Applied { seq, head: push.hash })
}

/// The account's identity key.
async fn identity(c: &mut SqliteConnection, account: AccountId) -> Result<Option<PublicKey>> {
    let header: Vec<u8> = sqlx::query_scalar("SELECT key_header FROM account WHERE id = ?")
        .bind(&account.as_bytes()[..])
        .fetch_one(c)
        .await
        .map_err(failed)?;
    let header =
        KeyHeader::decode(&header).map_err(|_| StoreError::Corrupt("a key header can not be read"))?;
    Ok(PublicKey::from_bytes(header.identity.as_bytes()))
}

async fn vault(c: &mut SqliteConnection, key: VaultKey) -> Result<(Tip, StateDigest, u64)> {
    let row = sqlx::query(
        "SELECT vault, seq, head, epoch, device_log_index, log_index, log_head, state, records, rotated_at
         FROM vault WHERE id = ?",
    )
    .bind(key.0)
    .fetch_optional(c)
    .await
    .map_err(failed)?
    .ok_or_else(no_vault)?;
    let state: &[u8] = row.try_get(7).map_err(failed)?;
    let state =
        StateDigest::from_bytes(state).ok_or(StoreError::Corrupt("a state digest has another length"))?;
    let tip = Tip {
        vault: VaultId::from_bytes(id16(&row, 0)?),
        seq: Seq::new(number(&row, 1)?),
        hash: digest(&row, 2)?,
        epoch: Epoch::new(number(&row, 3)?),
        device_log_index: number(&row, 4)?,
        vault_log_index: number(&row, 5)?,
        vault_log_head: digest(&row, 6)?,
        rotated_at: number(&row, 9)?,
        state: state.checksum(),
    };
    Ok((tip, state, number(&row, 8)?))
}

async fn commit_hash(c: &mut SqliteConnection, key: VaultKey, seq: Seq) -> Result<Option<Digest>> {
    let row = sqlx::query("SELECT hash FROM commit_header WHERE vault = ? AND seq = ?")
        .bind(key.0)
        .bind(sql(seq.value())?)
        .fetch_optional(c)
        .await
        .map_err(failed)?;
    row.map(|row| digest(&row, 0)).transpose()
}

/// Every object that the push names is complete in this vault; from here on none of them is collected. When a store is
/// healed they may be missing: gives how many are new as lost ones.
async fn check_objects(c: &mut SqliteConnection, key: VaultKey, push: &PreparedCommit) -> Result<u64> {
    let mut missing = push.blobs();
    let named: Vec<_> = missing.iter().copied().collect();
    for blobs in pieces(&named) {
        let mut query =
            QueryBuilder::<Sqlite>::new("UPDATE object SET named = 1 WHERE complete = 1 AND vault = ");
        query.push_bind(key.0).push(" AND blob IN (");
        let mut list = query.separated(", ");
        for blob in blobs {
            list.push_bind(&blob.as_bytes()[..]);
        }
        query.push(") RETURNING blob");
        for row in query.build().fetch_all(&mut *c).await.map_err(failed)? {
            missing.remove(&BlobId::from_bytes(id16(&row, 0)?));
        }
    }
    if push.heals {
        return heal::lose(c, key, missing).await;
    }
    if missing.is_empty() {
        return Ok(0);
    }
    let mut refusal =
        Refusal::new(Code::MissingObject, "objects that the commit names are not there; upload them again");
    refusal.names = missing.iter().map(ToString::to_string).collect();
    Err(refusal.into())
}

async fn live(
    c: &mut SqliteConnection,
    key: VaultKey,
    records: &[RecordId],
) -> Result<BTreeMap<RecordId, Live>> {
    let mut found = BTreeMap::new();
    for records in pieces(records) {
        let mut query =
            QueryBuilder::<Sqlite>::new("SELECT record, revision, digest, seq FROM live WHERE vault = ");
        query.push_bind(key.0).push(" AND record IN (");
        let mut list = query.separated(", ");
        for record in records {
            list.push_bind(&record.as_bytes()[..]);
        }
        query.push(")");
        for row in query.build().fetch_all(&mut *c).await.map_err(failed)? {
            let live = Live {
                revision: Revision::new(number(&row, 1)?),
                digest: digest(&row, 2)?,
                seq: Seq::new(number(&row, 3)?),
            };
            found.insert(RecordId::from_bytes(id16(&row, 0)?), live);
        }
    }
    Ok(found)
}

/// The rows of the device log that this commit's author claims.
struct Claimed {
    index: u64,
    hash: Option<Digest>,
    device: DeviceId,
    key: Option<PublicKey>,
    /// Whether the author was revoked, and the last commit that may be its own then.
    revoked: bool,
    last: Option<Seq>,
    last_revocation: Option<u64>,
    keyring_epoch: Epoch,
}

impl Authors for Claimed {
    fn entry_hash(&self, index: u64) -> Option<Digest> {
        self.hash.filter(|_| index == self.index)
    }

    fn author_key(&self, device: DeviceId, _index: u64) -> Option<PublicKey> {
        self.key.filter(|_| device == self.device)
    }

    fn counts(&self, _device: DeviceId, _vault: VaultId, seq: Seq) -> bool {
        !self.revoked || self.last.is_some_and(|last| seq <= last)
    }

    fn last_revocation(&self, _index: u64) -> Option<u64> {
        self.last_revocation
    }

    fn keyring_epoch(&self, _index: u64) -> Epoch {
        self.keyring_epoch
    }
}

async fn authors(c: &mut SqliteConnection, account: AccountId, push: &PreparedCommit) -> Result<Claimed> {
    let (index, device) = (push.commit.device_log_index, push.commit.device);
    let row = sqlx::query(
        "SELECT l.hash, d.sign_key, d.revoked_at, p.seq,
                (SELECT max(r.revoked_at) FROM device r WHERE r.account = ?2 AND r.revoked_at <= ?3),
                (SELECT max(r.revoked_at) FROM device r WHERE r.account = ?2),
                (SELECT count(*) FROM device r WHERE r.account = ?2 AND r.revoked_at <= ?3),
                (SELECT n.seq FROM device r
                 LEFT JOIN device_pin n ON n.account = r.account AND n.device = r.device AND n.vault = ?4
                 WHERE r.account = ?2 AND r.revoked_at IS NOT NULL ORDER BY r.revoked_at DESC LIMIT 1)
         FROM device_log l
         LEFT JOIN device d ON d.account = l.account AND d.device = ?1 AND d.enrolled_at <= l.position
         LEFT JOIN device_pin p ON p.account = l.account AND p.device = ?1 AND p.vault = ?4
         WHERE l.account = ?2 AND l.position = ?3",
    )
    .bind(&device.as_bytes()[..])
    .bind(&account.as_bytes()[..])
    .bind(sql(index)?)
    .bind(&push.commit.vault.as_bytes()[..])
    .fetch_optional(c)
    .await
    .map_err(failed)?;
    let none = Claimed {
        index,
        hash: None,
        device,
        key: None,
        revoked: false,
        last: None,
        last_revocation: None,
        keyring_epoch: Epoch::new(1),
    };
    let Some(row) = row else { return Ok(none) };
    let revoked_at = maybe(&row, 2)?;
    let (last_revocation, newest, pinned) = (maybe(&row, 4)?, maybe(&row, 5)?, maybe(&row, 7)?);
    // What is given back was there before the revocation that its pin tells of, or comes from who only has it.
    let was_there = pinned.is_some_and(|pin| push.commit.seq.value() <= pin);
    let is_old = push.heals && (push.is_foreign || was_there);
    if !is_old && newest.is_some_and(|newest| index < newest) {
        return Err(StoreError::refused(
            Code::LogMoved,
            "a device was revoked since; fetch the device log and try again",
        ));
    }
    let key: Option<Vec<u8>> = row.try_get(1).map_err(failed)?;
    let key = key.and_then(|bytes| PublicKey::from_bytes(bytes.as_slice().try_into().ok()?));
    let key = key.filter(|_| revoked_at.is_none_or(|revoked| index < revoked));
    let last = maybe(&row, 3)?.map(Seq::new);
    Ok(Claimed {
        hash: Some(digest(&row, 0)?),
        key,
        revoked: revoked_at.is_some(),
        last,
        last_revocation,
        keyring_epoch: Epoch::new(number(&row, 6)?).next(),
        ..none
    })
}

async fn write(
    c: &mut SqliteConnection,
    key: VaultKey,
    push: &PreparedCommit,
    before: &BTreeMap<RecordId, Live>,
    judged: &Judged,
) -> Result<()> {
    let seq = sql(push.commit.seq.value())?;
    sqlx::query(
        "INSERT INTO commit_header (vault, seq, hash, bytes, signature, changes) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(key.0)
    .bind(seq)
    .bind(&push.hash.as_bytes()[..])
    .bind(&push.signed.bytes.0)
    .bind(&push.signed.signature.0[..])
    .bind(&push.change_bytes)
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    write_versions(c, key, push, before, seq).await?;
    write_pins(c, key, push).await?;
    if let Some(entry) = push.changes.rotation() {
        sqlx::query("INSERT INTO vault_log (vault, position, bytes, signature) VALUES (?, ?, ?, ?)")
            .bind(key.0)
            .bind(sql(judged.tip.vault_log_index)?)
            .bind(&entry.bytes.0)
            .bind(&entry.signature.0[..])
            .execute(&mut *c)
            .await
            .map_err(failed)?;
    }
    sqlx::query(
        "UPDATE vault SET seq = ?, head = ?, device_log_index = ?, state = ?, records = ?, epoch = ?,
                          log_index = ?, log_head = ?, rotated_at = ? WHERE id = ?",
    )
    .bind(seq)
    .bind(&push.hash.as_bytes()[..])
    .bind(sql(judged.tip.device_log_index)?)
    .bind(judged.state.to_bytes())
    .bind(sql(judged.records)?)
    .bind(sql(judged.tip.epoch.value())?)
    .bind(sql(judged.tip.vault_log_index)?)
    .bind(&judged.tip.vault_log_head.as_bytes()[..])
    .bind(sql(judged.tip.rotated_at)?)
    .bind(key.0)
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(())
}

async fn write_versions(
    c: &mut SqliteConnection,
    key: VaultKey,
    push: &PreparedCommit,
    before: &BTreeMap<RecordId, Live>,
    seq: i64,
) -> Result<()> {
    let mut rows = Vec::with_capacity(push.changes.0.len());
    for change in &push.changes.0 {
        let Some((record, revision, digest)) = change.version() else { continue };
        let kind = if matches!(change, Change::Put { .. }) { KIND_DOCUMENT } else { KIND_TOMBSTONE };
        let previous = before.get(&record).map(|live| sql(live.seq.value())).transpose()?;
        let envelope = match push.envelopes.get(&digest) {
            Some(envelope) => envelope.as_slice(),
            None if push.heals => &[],
            None => return Err(StoreError::Corrupt("a judged push lacks an envelope")),
        };
        rows.push((record, sql(revision.value())?, kind, digest, previous, envelope));
    }
    for chunk in pieces(&rows) {
        let mut query = QueryBuilder::<Sqlite>::new(
            "INSERT INTO version (vault, seq, record, revision, kind, digest, previous_seq, envelope) ",
        );
        query.push_values(chunk, |mut row, (record, revision, kind, digest, previous, envelope)| {
            row.push_bind(key.0)
                .push_bind(seq)
                .push_bind(&record.as_bytes()[..])
                .push_bind(*revision)
                .push_bind(i64::from(*kind))
                .push_bind(&digest.as_bytes()[..])
                .push_bind(*previous)
                .push_bind(*envelope);
        });
        query.build().execute(&mut *c).await.map_err(failed)?;
        let mut query =
            QueryBuilder::<Sqlite>::new("INSERT INTO live (vault, record, revision, digest, seq) ");
        query.push_values(chunk, |mut row, (record, revision, _, digest, ..)| {
            row.push_bind(key.0)
                .push_bind(&record.as_bytes()[..])
                .push_bind(*revision)
                .push_bind(&digest.as_bytes()[..])
                .push_bind(seq);
        });
        query.push(
            " ON CONFLICT (vault, record) DO UPDATE
              SET revision = excluded.revision, digest = excluded.digest, seq = excluded.seq",
        );
        query.build().execute(&mut *c).await.map_err(failed)?;
        let places: Vec<_> = chunk.iter().filter_map(|row| Some((row.4?, row.0))).collect();
        for places in pieces(&places) {
            replace(c, key, places, seq).await?;
        }
    }
    Ok(())
}

/// Marks the versions that were the newest as replaced.
async fn replace(
    c: &mut SqliteConnection,
    key: VaultKey,
    places: &[(i64, RecordId)],
    seq: i64,
) -> Result<()> {
    let mut query = QueryBuilder::<Sqlite>::new("UPDATE version SET replaced = ");
    query.push_bind(seq).push(" WHERE vault = ").push_bind(key.0).push(" AND (seq, record) IN (VALUES ");
    let mut list = query.separated(", ");
    for (previous, record) in places {
        list.push("(").push_bind_unseparated(*previous).push_unseparated(", ");
        list.push_bind_unseparated(&record.as_bytes()[..]).push_unseparated(")");
    }
    query.push(")");
    query.build().execute(c).await.map_err(failed)?;
    Ok(())
}

async fn write_pins(c: &mut SqliteConnection, key: VaultKey, push: &PreparedCommit) -> Result<()> {
    for change in &push.changes.0 {
        let (statement, seq) = match change {
            Change::Pin(seq) => ("INSERT INTO pin (vault, seq) VALUES (?, ?) ON CONFLICT DO NOTHING", seq),
            Change::Unpin(seq) => ("DELETE FROM pin WHERE vault = ? AND seq = ?", seq),
            _ => continue,
        };
        sqlx::query(statement).bind(key.0).bind(sql(seq.value())?).execute(&mut *c).await.map_err(failed)?;
    }
    Ok(())
}
