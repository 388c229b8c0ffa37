//! Vaults and their logs.

use super::row::{digest, id16, number, signed, sql};
use super::{failed, usage};
use crate::domain::quota::{Allowance, Charge, DefaultQuota, birth_bytes};
use crate::error::StoreError;
use crate::store::{NewVault, Result, VaultKey, VaultRow};
use lockstep_proto::Signed;
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::vault::VaultInfo;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::Changes;
use lockstep_proto::id::{AccountId, Seq, VaultId};
use lockstep_proto::limits::VAULTS_MAX;
use lockstep_proto::state::StateDigest;
use sqlx::{PgConnection, Row as _};

pub(super) async fn list(c: &mut PgConnection, account: AccountId) -> Result<Vec<VaultInfo>> {
    let rows = sqlx::query("SELECT vault, seq, head, records FROM vault WHERE account = $1 ORDER BY vault")
        .bind(&account.as_bytes()[..])
        .fetch_all(c)
        .await
        .map_err(failed)?;
    rows.iter()
        .map(|row| {
            Ok(VaultInfo {
                vault: VaultId::from_bytes(id16(row, 0)?),
                seq: Seq::new(number(row, 1)?),
                head: digest(row, 2)?,
                records: number(row, 3)?,
            })
        })
        .collect()
}

pub(super) async fn heads(c: &mut PgConnection, account: AccountId) -> Result<Vec<(VaultId, Seq)>> {
    let rows = sqlx::query("SELECT vault, seq FROM vault WHERE account = $1 ORDER BY vault")
        .bind(&account.as_bytes()[..])
        .fetch_all(c)
        .await
        .map_err(failed)?;
    rows.iter().map(|row| Ok((VaultId::from_bytes(id16(row, 0)?), Seq::new(number(row, 1)?)))).collect()
}

pub(super) async fn find(
    c: &mut PgConnection,
    account: AccountId,
    vault: VaultId,
) -> Result<Option<VaultRow>> {
    let row = sqlx::query("SELECT id, seq, head FROM vault WHERE account = $1 AND vault = $2")
        .bind(&account.as_bytes()[..])
        .bind(&vault.as_bytes()[..])
        .fetch_optional(c)
        .await
        .map_err(failed)?;
    row.map(|row| {
        let key = VaultKey(row.try_get(0).map_err(failed)?);
        Ok(VaultRow { key, seq: Seq::new(number(&row, 1)?), head: digest(&row, 2)? })
    })
    .transpose()
}

/// Stores a birth. Without a quota it is the keyring's, which comes with the account.
pub(super) async fn create(
    c: &mut PgConnection,
    account: AccountId,
    new: &NewVault,
    quota: Option<DefaultQuota>,
) -> Result<()> {
    let tip = &new.tip;
    // One birth of an account at a time: the same one twice is once, and the count holds.
    usage::lock_account(c, &account.as_bytes()[..]).await?;
    let known = sqlx::query(
        "SELECT h.hash FROM vault v JOIN commit_header h ON h.vault = v.id AND h.seq = 0
         WHERE v.account = $1 AND v.vault = $2",
    )
    .bind(&account.as_bytes()[..])
    .bind(&tip.vault.as_bytes()[..])
    .fetch_optional(&mut *c)
    .await
    .map_err(failed)?;
    if let Some(row) = known {
        return if digest(&row, 0)? == tip.hash {
            Ok(())
        } else {
            Err(StoreError::refused(Code::Exists, "this vault exists, with another birth"))
        };
    }
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM vault WHERE account = $1")
        .bind(&account.as_bytes()[..])
        .fetch_one(&mut *c)
        .await
        .map_err(failed)?;
    if usize::try_from(count).unwrap_or(usize::MAX) >= VAULTS_MAX {
        return Err(StoreError::refused(
            Code::LimitReached,
            "the account has 1,024 vaults and can not have more",
        ));
    }
    let changes = Changes::default().encode();
    let key: i64 = sqlx::query_scalar(
        "INSERT INTO vault (account, vault, seq, head, epoch, device_log_index, log_index, log_head, state, records,
                            is_keyring, rotated_at)
         VALUES ($1, $2, 0, $3, $4, $5, 0, $6, $7, 0, $8, $9) RETURNING id",
    )
    .bind(&account.as_bytes()[..])
    .bind(&tip.vault.as_bytes()[..])
    .bind(&tip.hash.as_bytes()[..])
    .bind(sql(tip.epoch.value())?)
    .bind(sql(tip.device_log_index)?)
    .bind(&tip.vault_log_head.as_bytes()[..])
    .bind(StateDigest::default().to_bytes())
    .bind(quota.is_none())
    .bind(sql(tip.rotated_at)?)
    .fetch_one(&mut *c)
    .await
    .map_err(failed)?;
    sqlx::query("INSERT INTO vault_log (vault, position, bytes, signature) VALUES ($1, 0, $2, $3)")
        .bind(key)
        .bind(&new.create.bytes.0)
        .bind(&new.create.signature.0[..])
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    sqlx::query(
        "INSERT INTO commit_header (vault, seq, hash, bytes, signature, changes) VALUES ($1, 0, $2, $3, $4, $5)",
    )
    .bind(key)
    .bind(&tip.hash.as_bytes()[..])
    .bind(&new.genesis.bytes.0)
    .bind(&new.genesis.signature.0[..])
    .bind(&changes)
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    let added = birth_bytes(&new.create, &new.genesis, &changes);
    let (quota, allowance) =
        quota.map_or((DefaultQuota(None), Allowance::Always), |quota| (quota, Allowance::Quota));
    usage::charge(c, VaultKey(key), quota, Charge { added, ..Charge::default() }, allowance).await
}

pub(super) async fn log(c: &mut PgConnection, key: VaultKey) -> Result<Vec<Signed>> {
    let rows = sqlx::query("SELECT bytes, signature FROM vault_log WHERE vault = $1 ORDER BY position")
        .bind(key.0)
        .fetch_all(c)
        .await
        .map_err(failed)?;
    rows.iter().map(|row| signed(row, 0, 1)).collect()
}

/// Removes everything of a vault; its segments are marked for deletion, and count for the account until then. The
/// account's row is locked, and the vault's: whoever comes later finds none of it.
pub(super) async fn delete(c: &mut PgConnection, key: VaultKey) -> Result<()> {
    for statement in [
        "SELECT 1 FROM account WHERE id = (SELECT account FROM vault WHERE id = $1) FOR NO KEY UPDATE",
        "SELECT 1 FROM vault WHERE id = $1 FOR UPDATE",
        "SELECT 1 FROM object WHERE vault = $1 ORDER BY blob FOR UPDATE",
        // An upload counted its parts; it is gone with the vault.
        "UPDATE segment SET counted_bytes = (SELECT coalesce(sum(size), 0) FROM part WHERE part.segment = segment.id)
         WHERE vault = $1 AND counted_bytes = 0",
        "UPDATE account SET used_bytes = account.used_bytes - v.used_bytes
             + (SELECT coalesce(sum(counted_bytes), 0) FROM segment WHERE segment.vault = v.id)
         FROM vault v WHERE v.id = $1 AND account.id = v.account",
        "UPDATE segment SET state = 3, vault = 0, owner = v.account FROM vault v
         WHERE v.id = $1 AND segment.vault = v.id",
        "DELETE FROM part WHERE vault = $1",
        "DELETE FROM object WHERE vault = $1",
        "DELETE FROM staged WHERE vault = $1",
        "DELETE FROM pin WHERE vault = $1",
        "DELETE FROM live WHERE vault = $1",
        "DELETE FROM version WHERE vault = $1",
        "DELETE FROM commit_header WHERE vault = $1",
        "DELETE FROM vault_log WHERE vault = $1",
        "DELETE FROM vault WHERE id = $1",
    ] {
        sqlx::query(statement).bind(key.0).execute(&mut *c).await.map_err(failed)?;
    }
    Ok(())
}

/// The keys of all vaults of an account.
pub(super) async fn keys(c: &mut PgConnection, account: AccountId) -> Result<Vec<VaultKey>> {
    let keys: Vec<i64> = sqlx::query_scalar("SELECT id FROM vault WHERE account = $1")
        .bind(&account.as_bytes()[..])
        .fetch_all(c)
        .await
        .map_err(failed)?;
    Ok(keys.into_iter().map(VaultKey).collect())
}
