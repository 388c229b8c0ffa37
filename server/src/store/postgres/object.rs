//! Objects, parts and segments: where blob bytes lie, not the bytes.
//!
//! Whoever changes an object has locked its row, several in the order of their ids. All parts of a segment
//! come in the transaction that begins to use it: later none can come, only go.

use super::failed;
use super::row::{bytes, digest, id16, number, sql};
use crate::error::StoreError;
use crate::store::{FramedObject, ObjectRow, PartRow, Result, SegmentId, VaultKey};
use lockstep_proto::Digest;
use lockstep_proto::api::problem::Code;
use lockstep_proto::blob::{object_digest, part_count};
use lockstep_proto::id::BlobId;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use std::collections::{BTreeMap, BTreeSet};

pub(super) async fn begin_segment(
    c: &mut PgConnection,
    key: VaultKey,
    segment: SegmentId,
    now_utc: u64,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO segment (id, vault, state, created_utc) VALUES ($1, $2, 1, $3) ON CONFLICT DO NOTHING",
    )
    .bind(&segment.0[..])
    .bind(key.0)
    .bind(sql(now_utc)?)
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(())
}

async fn use_segment(c: &mut PgConnection, segment: SegmentId) -> Result<()> {
    let used = sqlx::query("UPDATE segment SET state = 2 WHERE id = $1 AND state = 1")
        .bind(&segment.0[..])
        .execute(c)
        .await
        .map_err(failed)?;
    if used.rows_affected() == 1 {
        Ok(())
    } else {
        Err(StoreError::refused(Code::Expired, "the upload took too long; send it again"))
    }
}

pub(super) async fn put_framed(
    c: &mut PgConnection,
    key: VaultKey,
    segment: SegmentId,
    objects: &[FramedObject],
    now_utc: u64,
) -> Result<()> {
    let known = lock_known(c, key, objects).await?;
    let (mut fresh, mut whole, mut in_part) = (Vec::new(), Vec::new(), Vec::new());
    for object in objects {
        match known.get(&object.blob) {
            None => fresh.push(object),
            Some((found, _)) if *found != object.digest => return Err(differs(object.blob)),
            Some((_, true)) => whole.push(object.blob),
            Some((_, false)) => {
                in_part.push(object.blob);
                fresh.push(object);
            }
        }
    }
    touch(c, key, &whole, now_utc).await?;
    // A segment that holds nothing new stays "being written" and is collected.
    if fresh.is_empty() {
        return Ok(());
    }
    forget(c, key, &in_part).await?;
    use_segment(c, segment).await?;
    // Two uploads of the same objects wait for each other in one order.
    fresh.sort_unstable_by_key(|object| object.blob);
    insert_framed(c, key, segment, &fresh, now_utc).await
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
        "INSERT INTO object (vault, blob, size, digest, complete, named, created_utc)
         SELECT $1, blob, size, digest, true, false, $2
         FROM unnest($3::bytea[], $4::bigint[], $5::bytea[]) AS fresh (blob, size, digest)",
    )
    .bind(key.0)
    .bind(sql(now_utc)?)
    .bind(&blobs)
    .bind(&sizes)
    .bind(digests)
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

/// Those of the objects that exist, locked: digest, and whether they are complete.
async fn lock_known(
    c: &mut PgConnection,
    key: VaultKey,
    objects: &[FramedObject],
) -> Result<BTreeMap<BlobId, (Digest, bool)>> {
    let blobs: Vec<_> = objects.iter().map(|object| &object.blob.as_bytes()[..]).collect();
    let rows = sqlx::query(
        "SELECT blob, digest, complete FROM object WHERE vault = $1 AND blob = ANY($2) ORDER BY blob FOR UPDATE",
    )
    .bind(key.0)
    .bind(blobs)
    .fetch_all(c)
    .await
    .map_err(failed)?;
    let known = rows.iter().map(|row| {
        let complete = row.try_get(2).map_err(failed)?;
        Ok((BlobId::from_bytes(id16(row, 0)?), (digest(row, 1)?, complete)))
    });
    known.collect()
}

fn differs(blob: BlobId) -> StoreError {
    StoreError::refused(Code::Exists, format!("object {blob} exists with another size or digest"))
}

/// Drops objects and their parts; segments that hold nothing else are marked for deletion.
async fn forget(c: &mut PgConnection, key: VaultKey, blobs: &[BlobId]) -> Result<()> {
    if blobs.is_empty() {
        return Ok(());
    }
    let blobs: Vec<_> = blobs.iter().map(|blob| &blob.as_bytes()[..]).collect();
    let rows = sqlx::query("DELETE FROM part WHERE vault = $1 AND blob = ANY($2) RETURNING segment")
        .bind(key.0)
        .bind(&blobs)
        .fetch_all(&mut *c)
        .await
        .map_err(failed)?;
    sqlx::query("DELETE FROM object WHERE vault = $1 AND blob = ANY($2)")
        .bind(key.0)
        .bind(blobs)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    release(c, &rows.iter().map(|row| bytes(row, 0)).collect::<Result<_>>()?).await
}

/// Marks segments for deletion in which no part lies any more. They are locked by a statement before: of
/// two that take the last parts of a segment the later one sees that they are gone.
pub(super) async fn release(c: &mut PgConnection, segments: &BTreeSet<Vec<u8>>) -> Result<()> {
    if segments.is_empty() {
        return Ok(());
    }
    let segments: Vec<_> = segments.iter().map(Vec::as_slice).collect();
    sqlx::query("SELECT 1 FROM segment WHERE id = ANY($1) ORDER BY id FOR UPDATE")
        .bind(&segments)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    sqlx::query(
        "UPDATE segment SET state = 3
         WHERE id = ANY($1) AND NOT EXISTS (SELECT 1 FROM part WHERE part.segment = segment.id)",
    )
    .bind(segments)
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(())
}

pub(super) async fn begin(
    c: &mut PgConnection,
    key: VaultKey,
    blob: BlobId,
    size: u64,
    digest: Digest,
    now_utc: u64,
) -> Result<(ObjectRow, Vec<PartRow>)> {
    if lock(c, key, blob).await?
        && let Some((row, parts)) = find(c, key, blob).await?
    {
        touch(c, key, &[blob], now_utc).await?;
        return if row.size == size && row.digest == digest { Ok((row, parts)) } else { Err(differs(blob)) };
    }
    sqlx::query(
        "INSERT INTO object (vault, blob, size, digest, complete, named, created_utc)
         VALUES ($1, $2, $3, $4, false, false, $5)",
    )
    .bind(key.0)
    .bind(&blob.as_bytes()[..])
    .bind(sql(size)?)
    .bind(&digest.as_bytes()[..])
    .bind(sql(now_utc)?)
    .execute(c)
    .await
    .map_err(failed)?;
    Ok((ObjectRow { size, digest, complete: false }, Vec::new()))
}

/// Locks an object's row; false if there is none.
async fn lock(c: &mut PgConnection, key: VaultKey, blob: BlobId) -> Result<bool> {
    let row = sqlx::query("SELECT 1 FROM object WHERE vault = $1 AND blob = $2 FOR UPDATE")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .fetch_optional(c)
        .await
        .map_err(failed)?;
    Ok(row.is_some())
}

fn expired() -> StoreError {
    StoreError::refused(Code::NotFound, "this upload was not begun, or it expired")
}

pub(super) async fn put_part(
    c: &mut PgConnection,
    key: VaultKey,
    blob: BlobId,
    part: &PartRow,
    now_utc: u64,
) -> Result<()> {
    let row = sqlx::query("SELECT complete FROM object WHERE vault = $1 AND blob = $2 FOR UPDATE")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .fetch_optional(&mut *c)
        .await
        .map_err(failed)?;
    let row = row.ok_or_else(expired)?;
    if row.try_get(0).map_err(failed)? {
        return Ok(());
    }
    let before = sqlx::query("SELECT segment FROM part WHERE vault = $1 AND blob = $2 AND position = $3")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .bind(sql(part.index)?)
        .fetch_optional(&mut *c)
        .await
        .map_err(failed)?;
    let before = before.map(|row| bytes(&row, 0)).transpose()?;
    if before.as_deref() == Some(&part.segment.0[..]) {
        return Ok(());
    }
    use_segment(c, part.segment).await?;
    touch(c, key, &[blob], now_utc).await?;
    sqlx::query(
        "INSERT INTO part (vault, blob, position, digest, segment, start, size)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (vault, blob, position) DO UPDATE SET digest = excluded.digest,
             segment = excluded.segment, start = excluded.start, size = excluded.size",
    )
    .bind(key.0)
    .bind(&blob.as_bytes()[..])
    .bind(sql(part.index)?)
    .bind(&part.digest.as_bytes()[..])
    .bind(&part.segment.0[..])
    .bind(sql(part.start)?)
    .bind(sql(part.size)?)
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    release(c, &before.into_iter().collect()).await
}

pub(super) async fn complete(c: &mut PgConnection, key: VaultKey, blob: BlobId) -> Result<()> {
    if !lock(c, key, blob).await? {
        return Err(expired());
    }
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
    sqlx::query("UPDATE object SET complete = true WHERE vault = $1 AND blob = $2")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

/// An object and its parts; of one moment in a snapshot, or when its row is locked.
pub(super) async fn find(
    c: &mut PgConnection,
    key: VaultKey,
    blob: BlobId,
) -> Result<Option<(ObjectRow, Vec<PartRow>)>> {
    let row = sqlx::query("SELECT size, digest, complete FROM object WHERE vault = $1 AND blob = $2")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .fetch_optional(&mut *c)
        .await
        .map_err(failed)?;
    let Some(row) = row else { return Ok(None) };
    let complete = row.try_get(2).map_err(failed)?;
    let object = ObjectRow { size: number(&row, 0)?, digest: digest(&row, 1)?, complete };
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
