//! Applying commits: the account's row is locked, and the vault's, then everything is read, judged and written in that
//! transaction. Whoever waited for the lock sees what the one before did.

use super::row::{digest, id16, maybe, number, sql};
use super::{failed, heal, repair, stage, usage, version};
use crate::domain::commit::{Judged, Live, PreparedCommit, VaultState, judge};
use crate::domain::quota::{DefaultQuota, allowance_of, charge_of};
use crate::error::{Refusal, StoreError};
use crate::store::{Pushed, Result, VaultKey, no_vault};
use lockstep_proto::Digest;
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::chain::{Authors, Tip};
use lockstep_proto::commit::KIND_CHANGE;
use lockstep_proto::id::{AccountId, BlobId, DeviceId, Epoch, RecordId, Revision, Seq, VaultId};
use lockstep_proto::key_header::KeyHeader;
use lockstep_proto::sign::PublicKey;
use lockstep_proto::state::StateDigest;
use sqlx::{PgConnection, Row as _};
use std::collections::BTreeMap;

/// `came_along`: digests of the envelopes that the push brought, ascending. Those that an earlier try took from
/// the staged ones are taken again.
pub(super) async fn apply(
    c: &mut PgConnection,
    account: AccountId,
    key: VaultKey,
    quota: DefaultQuota,
    push: &mut PreparedCommit,
    came_along: &[Digest],
) -> Result<Pushed> {
    push.envelopes.retain(|digest, _| came_along.binary_search(digest).is_ok());
    usage::lock(c, key).await?;
    let (end, state, records) = lock_vault(c, key).await?;
    let seq = push.commit.seq;
    if seq <= end.seq {
        let same = commit_hash(c, key, seq).await? == Some(push.hash);
        if same && push.heals {
            heal::fill(c, key, quota, push).await?;
        }
        return Ok(if same { Pushed::Applied { seq, head: push.hash } } else { Pushed::HeadMoved });
    }
    if seq != end.seq.next() || push.commit.previous != end.hash {
        return Ok(Pushed::HeadMoved);
    }
    let (tip, state, records) = match push.changes.goes_back_to().filter(|to| *to < end.seq) {
        Some(to) => repair::at(c, key, to, (end, state, records)).await?,
        None => (end, state, records),
    };
    let staged = stage::take(c, key, push).await?;
    let lost = check_objects(c, key, push).await?;
    let skip = commit_hash(c, key, seq.skip_target()).await?;
    let skip = skip.ok_or(StoreError::Corrupt("a commit of the chain is missing"))?;
    let live = live(c, key, &push.records()).await?;
    let authors = authors(c, account, push).await?;
    let identity = if push.commit.kind == KIND_CHANGE { None } else { identity(c, account).await? };
    let vault = VaultState { account, identity, tip, skip, state, records, live };
    let judged = judge(push, &vault, &authors)?;
    let mut charge = charge_of(push, &staged, lost);
    if let Some(to) = push.changes.goes_back_to() {
        let log_bytes = repair::write(c, key, to, seq, judged.tip.vault_log_index).await?;
        charge.freed = charge.freed.saturating_add(log_bytes);
    }
    usage::charge(c, key, quota, charge, allowance_of(&push.changes)).await?;
    write(c, key, push, &vault.live, &judged).await?;
    stage::forget(c, key, &staged).await?;
    Ok(Pushed::Applied { seq, head: push.hash })
}

/// The account's identity key.
async fn identity(c: &mut PgConnection, account: AccountId) -> Result<Option<PublicKey>> {
    let header: Vec<u8> = sqlx::query_scalar("SELECT key_header FROM account WHERE id = $1")
        .bind(&account.as_bytes()[..])
        .fetch_one(c)
        .await
        .map_err(failed)?;
    let header =
        KeyHeader::decode(&header).map_err(|_| StoreError::Corrupt("a key header can not be read"))?;
    Ok(PublicKey::from_bytes(header.identity.as_bytes()))
}

async fn lock_vault(c: &mut PgConnection, key: VaultKey) -> Result<(Tip, StateDigest, u64)> {
    let row = sqlx::query(
        "SELECT vault, seq, head, epoch, device_log_index, log_index, log_head, state, records, rotated_at
         FROM vault WHERE id = $1 FOR UPDATE",
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

async fn commit_hash(c: &mut PgConnection, key: VaultKey, seq: Seq) -> Result<Option<Digest>> {
    let row = sqlx::query("SELECT hash FROM commit_header WHERE vault = $1 AND seq = $2")
        .bind(key.0)
        .bind(sql(seq.value())?)
        .fetch_optional(c)
        .await
        .map_err(failed)?;
    row.map(|row| digest(&row, 0)).transpose()
}

/// Every object that the push names is complete in this vault. From here on none of them is collected: its
/// row is locked, and marked when the transaction ends. When a store is healed they may be missing: gives how many are
/// new as lost ones.
async fn check_objects(c: &mut PgConnection, key: VaultKey, push: &PreparedCommit) -> Result<u64> {
    let mut missing = push.blobs();
    if missing.is_empty() {
        return Ok(0);
    }
    let named: Vec<BlobId> = missing.iter().copied().collect();
    let blobs: Vec<_> = named.iter().map(|blob| &blob.as_bytes()[..]).collect();
    let rows = sqlx::query(
        "SELECT blob FROM object WHERE vault = $1 AND blob = ANY($2) AND complete ORDER BY blob FOR UPDATE",
    )
    .bind(key.0)
    .bind(&blobs)
    .fetch_all(&mut *c)
    .await
    .map_err(failed)?;
    for row in &rows {
        missing.remove(&BlobId::from_bytes(id16(row, 0)?));
    }
    if !missing.is_empty() && !push.heals {
        let mut refusal = Refusal::new(
            Code::MissingObject,
            "objects that the commit names are not there; upload them again",
        );
        refusal.names = missing.iter().map(ToString::to_string).collect();
        return Err(refusal.into());
    }
    sqlx::query(
        "UPDATE object SET named = true WHERE vault = $1 AND blob = ANY($2) AND complete AND NOT named",
    )
    .bind(key.0)
    .bind(blobs)
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    if missing.is_empty() { Ok(0) } else { heal::lose(c, key, missing).await }
}

async fn live(c: &mut PgConnection, key: VaultKey, records: &[RecordId]) -> Result<BTreeMap<RecordId, Live>> {
    let records: Vec<_> = records.iter().map(|record| &record.as_bytes()[..]).collect();
    let rows =
        sqlx::query("SELECT record, revision, digest, seq FROM live WHERE vault = $1 AND record = ANY($2)")
            .bind(key.0)
            .bind(records)
            .fetch_all(c)
            .await
            .map_err(failed)?;
    let found = rows.iter().map(|row| {
        let live = Live {
            revision: Revision::new(number(row, 1)?),
            digest: digest(row, 2)?,
            seq: Seq::new(number(row, 3)?),
        };
        Ok((RecordId::from_bytes(id16(row, 0)?), live))
    });
    found.collect()
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

async fn authors(c: &mut PgConnection, account: AccountId, push: &PreparedCommit) -> Result<Claimed> {
    let (index, device) = (push.commit.device_log_index, push.commit.device);
    let row = sqlx::query(
        "SELECT l.hash, d.sign_key, d.revoked_at, p.seq,
                (SELECT max(r.revoked_at) FROM device r WHERE r.account = $2 AND r.revoked_at <= $3),
                (SELECT max(r.revoked_at) FROM device r WHERE r.account = $2),
                (SELECT count(*) FROM device r WHERE r.account = $2 AND r.revoked_at <= $3)
         FROM device_log l
         LEFT JOIN device d ON d.account = l.account AND d.device = $1 AND d.enrolled_at <= l.position
         LEFT JOIN device_pin p ON p.account = l.account AND p.device = $1 AND p.vault = $4
         WHERE l.account = $2 AND l.position = $3",
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
    let (last_revocation, newest) = (maybe(&row, 4)?, maybe(&row, 5)?);
    if !push.heals && newest.is_some_and(|newest| index < newest) {
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
    c: &mut PgConnection,
    key: VaultKey,
    push: &PreparedCommit,
    before: &BTreeMap<RecordId, Live>,
    judged: &Judged,
) -> Result<()> {
    let seq = sql(push.commit.seq.value())?;
    sqlx::query(
        "INSERT INTO commit_header (vault, seq, hash, bytes, signature, changes)
         VALUES ($1, $2, $3, $4, $5, $6)",
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
    version::write(c, key, push, before, seq).await?;
    version::write_pins(c, key, push).await?;
    if let Some(entry) = push.changes.rotation() {
        sqlx::query("INSERT INTO vault_log (vault, position, bytes, signature) VALUES ($1, $2, $3, $4)")
            .bind(key.0)
            .bind(sql(judged.tip.vault_log_index)?)
            .bind(&entry.bytes.0)
            .bind(&entry.signature.0[..])
            .execute(&mut *c)
            .await
            .map_err(failed)?;
    }
    sqlx::query(
        "UPDATE vault SET seq = $1, head = $2, device_log_index = $3, state = $4, records = $5, epoch = $6,
                          log_index = $7, log_head = $8, rotated_at = $9 WHERE id = $10",
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
