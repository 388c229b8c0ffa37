//! Objects, parts and segments: where blob bytes lie, not the bytes.

use super::failed;
use super::row::{digest, id16, number, sql};
use crate::error::StoreError;
use crate::store::{FramedObject, ObjectRow, PartRow, Result, SegmentId, VaultKey};
use lockstep_proto::Digest;
use lockstep_proto::api::problem::Code;
use lockstep_proto::blob::{object_digest, part_count};
use lockstep_proto::id::BlobId;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};
use std::collections::BTreeMap;

const ROWS_A_STATEMENT: usize = 100;

pub(super) async fn begin_segment(
    c: &mut SqliteConnection,
    key: VaultKey,
    segment: SegmentId,
    now_utc: u64,
) -> Result<()> {
    sqlx::query("INSERT INTO segment (id, vault, state, created_utc) VALUES (?, ?, 1, ?)")
        .bind(&segment.0[..])
        .bind(key.0)
        .bind(sql(now_utc)?)
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

async fn use_segment(c: &mut SqliteConnection, segment: SegmentId) -> Result<()> {
    let used = sqlx::query("UPDATE segment SET state = 2 WHERE id = ? AND state = 1")
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
    c: &mut SqliteConnection,
    key: VaultKey,
    segment: SegmentId,
    objects: Vec<FramedObject>,
    now_utc: u64,
) -> Result<()> {
    let known = known(c, key, &objects).await?;
    let mut fresh = Vec::new();
    for object in &objects {
        match known.get(&object.blob) {
            None => fresh.push(object),
            Some(known) if known.differs(object.digest) => return Err(differs(object.blob)),
            Some(Known { complete: true, .. }) => touch(c, key, object.blob, now_utc).await?,
            Some(_) => {
                drop_parts(c, key, object.blob).await?;
                fresh.push(object);
            }
        }
    }
    // A segment that holds nothing new stays "being written" and is collected.
    if fresh.is_empty() {
        return Ok(());
    }
    use_segment(c, segment).await?;
    let now = sql(now_utc)?;
    for rows in fresh.chunks(ROWS_A_STATEMENT) {
        let mut query = QueryBuilder::<Sqlite>::new(
            "INSERT INTO object (vault, blob, size, digest, complete, named, created_utc) ",
        );
        query.push_values(rows, |mut row, object| {
            row.push_bind(key.0)
                .push_bind(&object.blob.as_bytes()[..])
                .push_bind(i64::try_from(object.size).unwrap_or(i64::MAX))
                .push_bind(&object.digest.as_bytes()[..])
                .push_bind(1_i64)
                .push_bind(0_i64)
                .push_bind(now);
        });
        // One that was begun, or is lost, keeps whether a commit names it.
        query.push(
            " ON CONFLICT (vault, blob) DO UPDATE SET size = excluded.size, digest = excluded.digest, complete = 1,
              lost = 0, created_utc = excluded.created_utc",
        );
        query.build().execute(&mut *c).await.map_err(failed)?;
        let mut query = QueryBuilder::<Sqlite>::new(
            "INSERT INTO part (vault, blob, position, digest, segment, start, size) ",
        );
        query.push_values(rows, |mut row, object| {
            row.push_bind(key.0)
                .push_bind(&object.blob.as_bytes()[..])
                .push_bind(0_i64)
                .push_bind(&object.part.as_bytes()[..])
                .push_bind(&segment.0[..])
                .push_bind(i64::try_from(object.start).unwrap_or(i64::MAX))
                .push_bind(i64::try_from(object.size).unwrap_or(i64::MAX));
        });
        query.build().execute(&mut *c).await.map_err(failed)?;
    }
    Ok(())
}

/// Somebody still cares for this object: its grace period begins anew.
async fn touch(c: &mut SqliteConnection, key: VaultKey, blob: BlobId, now_utc: u64) -> Result<()> {
    sqlx::query(
        "UPDATE object SET created_utc = max(created_utc, ?) WHERE vault = ? AND blob = ? AND named = 0",
    )
    .bind(sql(now_utc)?)
    .bind(key.0)
    .bind(&blob.as_bytes()[..])
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(())
}

/// What is known of an object before an upload.
struct Known {
    digest: Digest,
    complete: bool,
}

impl Known {
    /// Whether it is known to be another one; what was never here has a digest of zeros, and may be anything.
    fn differs(&self, digest: Digest) -> bool {
        self.digest != digest && self.digest != Digest::ZERO
    }
}

async fn known(
    c: &mut SqliteConnection,
    key: VaultKey,
    objects: &[FramedObject],
) -> Result<BTreeMap<BlobId, Known>> {
    let mut known = BTreeMap::new();
    for chunk in objects.chunks(ROWS_A_STATEMENT) {
        let mut query =
            QueryBuilder::<Sqlite>::new("SELECT blob, digest, complete FROM object WHERE vault = ");
        query.push_bind(key.0).push(" AND blob IN (");
        let mut list = query.separated(", ");
        for object in chunk {
            list.push_bind(&object.blob.as_bytes()[..]);
        }
        query.push(")");
        for row in query.build().fetch_all(&mut *c).await.map_err(failed)? {
            let found = Known { digest: digest(&row, 1)?, complete: number(&row, 2)? == 1 };
            known.insert(BlobId::from_bytes(id16(&row, 0)?), found);
        }
    }
    Ok(known)
}

fn differs(blob: BlobId) -> StoreError {
    StoreError::refused(Code::Exists, format!("object {blob} exists with another size or digest"))
}

/// Drops an object and its parts.
pub(super) async fn forget(c: &mut SqliteConnection, key: VaultKey, blob: BlobId) -> Result<()> {
    drop_parts(c, key, blob).await?;
    sqlx::query("DELETE FROM object WHERE vault = ? AND blob = ?")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

/// An object whose bytes are gone: its parts are forgotten, it is not complete, and it may be uploaded again.
pub(super) async fn lose(c: &mut SqliteConnection, key: VaultKey, blob: BlobId) -> Result<()> {
    drop_parts(c, key, blob).await?;
    sqlx::query("UPDATE object SET complete = 0, lost = 1 WHERE vault = ? AND blob = ?")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

/// Drops an object's parts; segments that hold nothing else are marked for deletion.
async fn drop_parts(c: &mut SqliteConnection, key: VaultKey, blob: BlobId) -> Result<()> {
    let segments = sqlx::query("DELETE FROM part WHERE vault = ? AND blob = ? RETURNING segment")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .fetch_all(&mut *c)
        .await
        .map_err(failed)?;
    for row in &segments {
        release(c, SegmentId(id16(row, 0)?)).await?;
    }
    Ok(())
}

/// Marks a segment for deletion if no part lies in it any more.
async fn release(c: &mut SqliteConnection, segment: SegmentId) -> Result<()> {
    sqlx::query(
        "UPDATE segment SET state = 3 WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM part WHERE part.segment = ?1)",
    )
    .bind(&segment.0[..])
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(())
}

pub(super) async fn begin(
    c: &mut SqliteConnection,
    key: VaultKey,
    blob: BlobId,
    size: u64,
    digest: Digest,
    now_utc: u64,
) -> Result<(ObjectRow, Vec<PartRow>)> {
    if let Some((row, parts)) = find(c, key, blob).await? {
        touch(c, key, blob, now_utc).await?;
        if row.digest == Digest::ZERO && !row.complete {
            // Named while its contents were not here: what it is, is told now.
            sqlx::query("UPDATE object SET size = ?, digest = ? WHERE vault = ? AND blob = ?")
                .bind(sql(size)?)
                .bind(&digest.as_bytes()[..])
                .bind(key.0)
                .bind(&blob.as_bytes()[..])
                .execute(c)
                .await
                .map_err(failed)?;
            return Ok((ObjectRow { size, digest, complete: false }, Vec::new()));
        }
        return if row.size == size && row.digest == digest { Ok((row, parts)) } else { Err(differs(blob)) };
    }
    sqlx::query(
        "INSERT INTO object (vault, blob, size, digest, complete, named, created_utc) VALUES (?, ?, ?, ?, 0, 0, ?)",
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

pub(super) async fn put_part(
    c: &mut SqliteConnection,
    key: VaultKey,
    blob: BlobId,
    part: PartRow,
    now_utc: u64,
) -> Result<()> {
    let begun = sqlx::query("SELECT complete FROM object WHERE vault = ? AND blob = ?")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .fetch_optional(&mut *c)
        .await
        .map_err(failed)?;
    match begun {
        None => return Err(StoreError::refused(Code::NotFound, "this upload was not begun, or it expired")),
        Some(row) if number(&row, 0)? == 1 => return Ok(()),
        Some(_) => {}
    }
    use_segment(c, part.segment).await?;
    touch(c, key, blob, now_utc).await?;
    let before =
        sqlx::query("DELETE FROM part WHERE vault = ? AND blob = ? AND position = ? RETURNING segment")
            .bind(key.0)
            .bind(&blob.as_bytes()[..])
            .bind(sql(part.index)?)
            .fetch_optional(&mut *c)
            .await
            .map_err(failed)?;
    if let Some(row) = before {
        release(c, SegmentId(id16(&row, 0)?)).await?;
    }
    sqlx::query(
        "INSERT INTO part (vault, blob, position, digest, segment, start, size) VALUES (?, ?, ?, ?, ?, ?, ?)",
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
    Ok(())
}

pub(super) async fn complete(c: &mut SqliteConnection, key: VaultKey, blob: BlobId) -> Result<()> {
    let expired = || StoreError::refused(Code::NotFound, "this upload was not begun, or it expired");
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
    sqlx::query("UPDATE object SET complete = 1, lost = 0 WHERE vault = ? AND blob = ?")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

pub(super) async fn find(
    c: &mut SqliteConnection,
    key: VaultKey,
    blob: BlobId,
) -> Result<Option<(ObjectRow, Vec<PartRow>)>> {
    let row = sqlx::query("SELECT size, digest, complete FROM object WHERE vault = ? AND blob = ?")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .fetch_optional(&mut *c)
        .await
        .map_err(failed)?;
    let Some(row) = row else { return Ok(None) };
    let object =
        ObjectRow { size: number(&row, 0)?, digest: digest(&row, 1)?, complete: number(&row, 2)? == 1 };
    let rows = sqlx::query(
        "SELECT position, digest, segment, start, size FROM part WHERE vault = ? AND blob = ? ORDER BY position",
    )
    .bind(key.0)
    .bind(&blob.as_bytes()[..])
    .fetch_all(c)
    .await
    .map_err(failed)?;
    let parts = rows
        .iter()
        .map(|row| {
            Ok(PartRow {
                index: number(row, 0)?,
                digest: digest(row, 1)?,
                segment: SegmentId(id16(row, 2)?),
                start: number(row, 3)?,
                size: number(row, 4)?,
            })
        })
        .collect::<Result<_>>()?;
    Ok(Some((object, parts)))
}
