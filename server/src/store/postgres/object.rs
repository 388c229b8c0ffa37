//! Objects and parts: where blob bytes lie, not the bytes.
//!
//! Whoever changes an object has locked its account's row, or the object's; several objects in the order of their ids.

use super::row::{digest, id16, maybe, number, sql};
use super::{failed, segment as segments, usage};
use crate::domain::quota::{Allowance, Charge, DefaultQuota, ROW_BYTES};
use crate::error::StoreError;
use crate::store::{FramedObject, ObjectRow, PartRow, Result, SegmentId, VaultKey};
use lockstep_proto::Digest;
use lockstep_proto::api::problem::Code;
use lockstep_proto::blob::{object_digest, part_count};
use lockstep_proto::id::BlobId;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use std::collections::BTreeMap;

pub(super) async fn put_framed(
    c: &mut PgConnection,
    key: VaultKey,
    quota: DefaultQuota,
    segment: SegmentId,
    objects: &[FramedObject],
    now_utc: u64,
) -> Result<bool> {
    usage::lock(c, key).await?;
    // A try before this one may have done it, and its answer was lost.
    if is_recorded(c, segment).await? {
        return Ok(true);
    }
    let known = lock_known(c, key, objects).await?;
    let (mut fresh, mut whole, mut in_part) = (Vec::new(), Vec::new(), Vec::new());
    for object in objects {
        match known.get(&object.blob) {
            None => fresh.push(object),
            Some(known) if known.differs(object.digest) => return Err(differs(object.blob)),
            Some(known) if known.complete && known.digest == object.digest => whole.push(object.blob),
            Some(_) => {
                in_part.push(object.blob);
                fresh.push(object);
            }
        }
    }
    touch(c, key, &whole, now_utc).await?;
    // A segment that holds nothing new stays "being written": it is given up, or collected.
    if fresh.is_empty() {
        return Ok(false);
    }
    empty(c, key, &in_part).await?;
    // All of its bytes count, those of objects that were known before too: they lie there as long as the others.
    let bytes = objects.iter().fold(0_u64, |sum, object| sum.saturating_add(object.size));
    let freed = segments::take(c, segment, bytes).await?;
    let count = u64::try_from(fresh.len().saturating_sub(in_part.len())).unwrap_or(u64::MAX);
    let added = bytes.saturating_add(count.saturating_mul(ROW_BYTES));
    let charge = Charge { added, freed, objects_added: count, objects_freed: 0 };
    usage::charge(c, key, quota, charge, Allowance::Quota).await?;
    fresh.sort_unstable_by_key(|object| object.blob);
    insert_framed(c, key, segment, &fresh, now_utc).await?;
    Ok(true)
}

/// Whether parts lie in a segment.
async fn is_recorded(c: &mut PgConnection, segment: SegmentId) -> Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM part WHERE segment = $1)")
        .bind(&segment.0[..])
        .fetch_one(c)
        .await
        .map_err(failed)
}

async fn insert_framed(
    c: &mut PgConnection,
    key: VaultKey,
    segment: SegmentId,
    fresh: &[&FramedObject],
    now_utc: u64,
) -> Result<()> {
    let blobs: Vec<_> = fresh.iter().map(|object| &object.blob.as_bytes()[..]).collect();
    let sizes = fresh.iter().map(|object| sql(object.size)).collect::<Result<Vec<_>>>()?;
    let digests: Vec<_> = fresh.iter().map(|object| &object.digest.as_bytes()[..]).collect();
    sqlx::query(
        // One that was begun, or is lost, keeps whether a commit names it.
        "INSERT INTO object (vault, blob, size, digest, complete, named, created_utc, lost, reserved_bytes)
         SELECT $1, blob, size, digest, true, false, $2, 0, 0
         FROM unnest($3::bytea[], $4::bigint[], $5::bytea[]) AS fresh (blob, size, digest)
         ON CONFLICT (vault, blob) DO UPDATE SET size = excluded.size, digest = excluded.digest, complete = true,
             lost = CASE WHEN object.lost <> 0 AND object.digest = $6 THEN 2 ELSE object.lost & 2 END,
             created_utc = excluded.created_utc",
    )
    .bind(key.0)
    .bind(sql(now_utc)?)
    .bind(&blobs)
    .bind(&sizes)
    .bind(digests)
    .bind(&Digest::ZERO.as_bytes()[..])
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    let parts: Vec<_> = fresh.iter().map(|object| &object.part.as_bytes()[..]).collect();
    let starts = fresh.iter().map(|object| sql(object.start)).collect::<Result<Vec<_>>>()?;
    sqlx::query(
        "INSERT INTO part (vault, blob, position, digest, segment, start, size)
         SELECT $1, blob, 0, digest, $2, start, size
         FROM unnest($3::bytea[], $4::bytea[], $5::bigint[], $6::bigint[]) AS fresh (blob, digest, start, size)",
    )
    .bind(key.0)
    .bind(&segment.0[..])
    .bind(blobs)
    .bind(parts)
    .bind(starts)
    .bind(sizes)
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(())
}

/// Somebody still cares for these objects: their grace period begins anew.
async fn touch(c: &mut PgConnection, key: VaultKey, blobs: &[BlobId], now_utc: u64) -> Result<()> {
    if blobs.is_empty() {
        return Ok(());
    }
    let blobs: Vec<_> = blobs.iter().map(|blob| &blob.as_bytes()[..]).collect();
    sqlx::query(
        "UPDATE object SET created_utc = greatest(created_utc, $1)
         WHERE vault = $2 AND blob = ANY($3) AND NOT named",
    )
    .bind(sql(now_utc)?)
    .bind(key.0)
    .bind(blobs)
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(())
}

/// Of what `lost` says: the bytes are gone; the parts stay, because the bytes may come back.
const GONE: u64 = 1;
/// Of what `lost` says: the digest was never known here, so that what is uploaded can be replaced for ever.
const UNKNOWN: u64 = 2;

/// What is known of an object before an upload.
struct Known {
    digest: Digest,
    complete: bool,
    lost: u64,
}

impl Known {
    /// Whether it is known to be another one; what was never here may be anything.
    fn differs(&self, digest: Digest) -> bool {
        self.digest != digest && self.digest != Digest::ZERO && self.lost & UNKNOWN == 0
    }
}

/// Those of the objects that exist, locked.
async fn lock_known(
    c: &mut PgConnection,
    key: VaultKey,
    objects: &[FramedObject],
) -> Result<BTreeMap<BlobId, Known>> {
    let blobs: Vec<_> = objects.iter().map(|object| &object.blob.as_bytes()[..]).collect();
    let rows = sqlx::query(
        "SELECT blob, digest, complete, lost FROM object
         WHERE vault = $1 AND blob = ANY($2) ORDER BY blob FOR UPDATE",
    )
    .bind(key.0)
    .bind(blobs)
    .fetch_all(c)
    .await
    .map_err(failed)?;
    let known = rows.iter().map(|row| {
        let (digest, complete) = (digest(row, 1)?, row.try_get(2).map_err(failed)?);
        Ok((BlobId::from_bytes(id16(row, 0)?), Known { digest, complete, lost: number(row, 3)? }))
    });
    known.collect()
}

fn differs(blob: BlobId) -> StoreError {
    StoreError::refused(Code::Exists, format!("object {blob} exists with another size or digest"))
}

/// Drops objects that are locked, and their parts.
pub(super) async fn forget(c: &mut PgConnection, key: VaultKey, blobs: &[BlobId]) -> Result<()> {
    if blobs.is_empty() {
        return Ok(());
    }
    let added = drop_parts(c, key, blobs).await?;
    let blobs: Vec<_> = blobs.iter().map(|blob| &blob.as_bytes()[..]).collect();
    let row = sqlx::query(
        "WITH gone AS (DELETE FROM object WHERE vault = $1 AND blob = ANY($2) RETURNING reserved_bytes)
         SELECT count(*), coalesce(sum(reserved_bytes), 0)::bigint FROM gone",
    )
    .bind(key.0)
    .bind(blobs)
    .fetch_one(&mut *c)
    .await
    .map_err(failed)?;
    let count = number(&row, 0)?;
    let freed = number(&row, 1)?.saturating_add(count.saturating_mul(ROW_BYTES));
    // The parts held are never more than was reserved for the whole.
    let charge = Charge { added, freed, objects_added: 0, objects_freed: count };
    usage::charge(c, key, DefaultQuota(None), charge, Allowance::Always).await
}

/// An object whose bytes are gone: it is not complete, and it may be uploaded again. Its parts stay until then: a
/// folder that was not mounted comes back.
pub(super) async fn lose(c: &mut PgConnection, key: VaultKey, blob: BlobId) -> Result<()> {
    sqlx::query(
        "UPDATE object SET complete = false, lost = lost | 1 WHERE vault = $1 AND blob = $2 AND complete",
    )
    .bind(key.0)
    .bind(&blob.as_bytes()[..])
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(())
}

/// Drops the parts of objects and what is reserved for them; their rows stay.
async fn empty(c: &mut PgConnection, key: VaultKey, blobs: &[BlobId]) -> Result<()> {
    if blobs.is_empty() {
        return Ok(());
    }
    let added = drop_parts(c, key, blobs).await?;
    let blobs: Vec<_> = blobs.iter().map(|blob| &blob.as_bytes()[..]).collect();
    let freed: i64 = sqlx::query_scalar(
        "SELECT coalesce(sum(reserved_bytes), 0)::bigint FROM object WHERE vault = $1 AND blob = ANY($2)",
    )
    .bind(key.0)
    .bind(&blobs)
    .fetch_one(&mut *c)
    .await
    .map_err(failed)?;
    sqlx::query("UPDATE object SET reserved_bytes = 0 WHERE vault = $1 AND blob = ANY($2)")
        .bind(key.0)
        .bind(blobs)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    let charge = Charge { added, freed: u64::try_from(freed).unwrap_or(0), ..Charge::default() };
    usage::charge(c, key, DefaultQuota(None), charge, Allowance::Always).await
}

/// Drops the parts of objects; segments that hold nothing else are marked for deletion, and count until then. Gives the
/// bytes that count anew.
async fn drop_parts(c: &mut PgConnection, key: VaultKey, blobs: &[BlobId]) -> Result<u64> {
    let blobs: Vec<_> = blobs.iter().map(|blob| &blob.as_bytes()[..]).collect();
    let rows = sqlx::query("DELETE FROM part WHERE vault = $1 AND blob = ANY($2) RETURNING segment, size")
        .bind(key.0)
        .bind(&blobs)
        .fetch_all(&mut *c)
        .await
        .map_err(failed)?;
    segments::release(c, &segments::by_segment(&rows)?).await
}

pub(super) async fn begin(
    c: &mut PgConnection,
    key: VaultKey,
    quota: DefaultQuota,
    blob: BlobId,
    new: ObjectRow,
    now_utc: u64,
) -> Result<(ObjectRow, Vec<PartRow>)> {
    usage::lock(c, key).await?;
    let lost = lock(c, key, blob).await?;
    let (Some(lost), Some((row, parts))) = (lost, find(c, key, blob).await?) else {
        sqlx::query(
            "INSERT INTO object (vault, blob, size, digest, complete, named, created_utc, lost, reserved_bytes)
             VALUES ($1, $2, $3, $4, false, false, $5, 0, $3)",
        )
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .bind(sql(new.size)?)
        .bind(&new.digest.as_bytes()[..])
        .bind(sql(now_utc)?)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
        let added = new.size.saturating_add(ROW_BYTES);
        let charge = Charge { added, objects_added: 1, ..Charge::default() };
        usage::charge(c, key, quota, charge, Allowance::Quota).await?;
        return Ok((new, Vec::new()));
    };
    touch(c, key, &[blob], now_utc).await?;
    let known = Known { digest: row.digest, complete: row.complete, lost };
    let is_same = row.size == new.size && row.digest == new.digest;
    if known.differs(new.digest) || (row.digest == new.digest && !is_same) {
        return Err(differs(blob));
    }
    if is_same && known.lost & GONE == 0 {
        return Ok((if row.complete { row } else { new }, parts));
    }
    begin_again(c, key, quota, blob, new, &known).await?;
    Ok((new, Vec::new()))
}

/// One that was lost takes its place again, as does another one in the place of what was never known here.
async fn begin_again(
    c: &mut PgConnection,
    key: VaultKey,
    quota: DefaultQuota,
    blob: BlobId,
    new: ObjectRow,
    known: &Known,
) -> Result<()> {
    empty(c, key, &[blob]).await?;
    let is_unknown = known.lost & UNKNOWN != 0 || (known.lost != 0 && known.digest == Digest::ZERO);
    sqlx::query(
        "UPDATE object SET size = $1, digest = $2, complete = false, reserved_bytes = $1, lost = $5
         WHERE vault = $3 AND blob = $4",
    )
    .bind(sql(new.size)?)
    .bind(&new.digest.as_bytes()[..])
    .bind(key.0)
    .bind(&blob.as_bytes()[..])
    .bind(sql(if is_unknown { UNKNOWN } else { 0 })?)
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    usage::charge(c, key, quota, Charge { added: new.size, ..Charge::default() }, Allowance::Quota).await
}

/// Locks an object's row, and gives what it says of a loss; none if there is no such object.
async fn lock(c: &mut PgConnection, key: VaultKey, blob: BlobId) -> Result<Option<u64>> {
    let row = sqlx::query("SELECT lost FROM object WHERE vault = $1 AND blob = $2 FOR UPDATE")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .fetch_optional(c)
        .await
        .map_err(failed)?;
    row.map(|row| number(&row, 0)).transpose()
}

fn expired() -> StoreError {
    StoreError::refused(Code::NotFound, "this upload was not begun, or it expired")
}

pub(super) async fn put_part(
    c: &mut PgConnection,
    key: VaultKey,
    quota: DefaultQuota,
    blob: BlobId,
    part: &PartRow,
    now_utc: u64,
) -> Result<bool> {
    usage::lock(c, key).await?;
    let begun = sqlx::query(
        "SELECT complete, reserved_bytes, lost FROM object WHERE vault = $1 AND blob = $2 FOR UPDATE",
    )
    .bind(key.0)
    .bind(&blob.as_bytes()[..])
    .fetch_optional(&mut *c)
    .await
    .map_err(failed)?;
    let begun = begun.ok_or_else(expired)?;
    // A try before this one may have done it, and its answer was lost.
    if is_recorded(c, part.segment).await? {
        return Ok(true);
    }
    if begun.try_get(0).map_err(failed)? {
        return Ok(false);
    }
    // One that was lost is begun again first.
    if number(&begun, 1)? == 0 || number(&begun, 2)? & GONE != 0 {
        return Err(expired());
    }
    touch(c, key, &[blob], now_utc).await?;
    if !replace_part(c, key, quota, blob, part).await? {
        return Ok(false);
    }
    segments::take(c, part.segment, 0).await?;
    sqlx::query(
        "INSERT INTO part (vault, blob, position, digest, segment, start, size)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(key.0)
    .bind(&blob.as_bytes()[..])
    .bind(sql(part.index)?)
    .bind(&part.digest.as_bytes()[..])
    .bind(&part.segment.0[..])
    .bind(sql(part.start)?)
    .bind(sql(part.size)?)
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(true)
}

/// Makes place for a part; false if the same bytes are held. Other bytes count until they are deleted.
async fn replace_part(
    c: &mut PgConnection,
    key: VaultKey,
    quota: DefaultQuota,
    blob: BlobId,
    part: &PartRow,
) -> Result<bool> {
    let held = sqlx::query("SELECT digest FROM part WHERE vault = $1 AND blob = $2 AND position = $3")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .bind(sql(part.index)?)
        .fetch_optional(&mut *c)
        .await
        .map_err(failed)?;
    let Some(held) = held else { return Ok(true) };
    if digest(&held, 0)? == part.digest {
        return Ok(false);
    }
    let gone = sqlx::query(
        "DELETE FROM part WHERE vault = $1 AND blob = $2 AND position = $3 RETURNING segment, size",
    )
    .bind(key.0)
    .bind(&blob.as_bytes()[..])
    .bind(sql(part.index)?)
    .fetch_all(&mut *c)
    .await
    .map_err(failed)?;
    let added = segments::release(c, &segments::by_segment(&gone)?).await?;
    usage::charge(c, key, quota, Charge { added, ..Charge::default() }, Allowance::Quota).await?;
    Ok(true)
}

pub(super) async fn complete(c: &mut PgConnection, key: VaultKey, blob: BlobId) -> Result<()> {
    lock(c, key, blob).await?.ok_or_else(expired)?;
    let (object, parts) = find(c, key, blob).await?.ok_or_else(expired)?;
    if object.complete {
        return Ok(());
    }
    let count = part_count(object.size);
    if u64::try_from(parts.len()) != Ok(count) {
        let detail = format!("the object has {count} parts, {} are there", parts.len());
        return Err(StoreError::refused(Code::Mismatch, detail));
    }
    let digests: Vec<Digest> = parts.iter().map(|part| part.digest).collect();
    if object_digest(object.size, &digests) != object.digest {
        return Err(StoreError::refused(
            Code::Mismatch,
            "the parts do not give the digest that was announced",
        ));
    }
    sqlx::query("UPDATE object SET complete = true, lost = lost & 2 WHERE vault = $1 AND blob = $2")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

/// An object without its parts.
pub(super) async fn find_row(c: &mut PgConnection, key: VaultKey, blob: BlobId) -> Result<Option<ObjectRow>> {
    let row = sqlx::query("SELECT size, digest, complete FROM object WHERE vault = $1 AND blob = $2")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .fetch_optional(c)
        .await
        .map_err(failed)?;
    let object = |row: PgRow| {
        let complete = row.try_get(2).map_err(failed)?;
        Ok(ObjectRow { size: number(&row, 0)?, digest: digest(&row, 1)?, complete })
    };
    row.map(object).transpose()
}

/// An object and its parts, ascending; of one moment in a snapshot, or when its row is locked.
pub(super) async fn find(
    c: &mut PgConnection,
    key: VaultKey,
    blob: BlobId,
) -> Result<Option<(ObjectRow, Vec<PartRow>)>> {
    let Some(object) = find_row(c, key, blob).await? else { return Ok(None) };
    let rows = sqlx::query(
        "SELECT position, digest, segment, start, size FROM part WHERE vault = $1 AND blob = $2 ORDER BY position",
    )
    .bind(key.0)
    .bind(&blob.as_bytes()[..])
    .fetch_all(c)
    .await
    .map_err(failed)?;
    Ok(Some((object, rows.iter().map(part).collect::<Result<_>>()?)))
}

fn part(row: &PgRow) -> Result<PartRow> {
    Ok(PartRow {
        index: number(row, 0)?,
        digest: digest(row, 1)?,
        segment: SegmentId(id16(row, 2)?),
        start: number(row, 3)?,
        size: number(row, 4)?,
    })
}

/// Those that are complete, with their parts, of one moment: one statement.
pub(super) async fn find_all(
    c: &mut PgConnection,
    key: VaultKey,
    blobs: &[BlobId],
    bytes_max: u64,
) -> Result<BTreeMap<BlobId, (u64, Vec<PartRow>)>> {
    let blobs: Vec<_> = blobs.iter().map(|blob| &blob.as_bytes()[..]).collect();
    let rows = sqlx::query(
        "SELECT p.position, p.digest, p.segment, p.start, p.size, o.blob, o.size FROM object o
         LEFT JOIN part p ON p.vault = o.vault AND p.blob = o.blob AND o.size <= $3
         WHERE o.vault = $1 AND o.complete AND o.blob = ANY($2) ORDER BY o.blob, p.position",
    )
    .bind(key.0)
    .bind(blobs)
    .bind(sql(bytes_max)?)
    .fetch_all(c)
    .await
    .map_err(failed)?;
    let mut found = BTreeMap::new();
    for row in &rows {
        let blob = BlobId::from_bytes(id16(row, 5)?);
        let (_, parts) = found.entry(blob).or_insert((number(row, 6)?, Vec::new()));
        if maybe(row, 0)?.is_some() {
            parts.push(part(row)?);
        }
    }
    Ok(found)
}
