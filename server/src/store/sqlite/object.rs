//! Objects, parts and segments: where blob bytes lie, not the bytes.

use super::row::{digest, id16, maybe, number, sql};
use super::{ROWS_A_STATEMENT, failed, segment as segments, usage};
use crate::domain::quota::{Allowance, Charge, DefaultQuota, ROW_BYTES};
use crate::error::StoreError;
use crate::store::{FramedObject, ObjectRow, PartRow, Result, SegmentId, VaultKey};
use lockstep_proto::Digest;
use lockstep_proto::api::problem::Code;
use lockstep_proto::blob::{object_digest, part_count};
use lockstep_proto::id::BlobId;
use lockstep_proto::limits;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};
use std::collections::BTreeMap;

pub(super) async fn put_framed(
    c: &mut SqliteConnection,
    key: VaultKey,
    quota: DefaultQuota,
    segment: SegmentId,
    objects: Vec<FramedObject>,
    now_utc: u64,
) -> Result<bool> {
    let known = known(c, key, &objects).await?;
    let mut fresh = Vec::new();
    let mut count = 0_u64;
    for object in &objects {
        match known.get(&object.blob) {
            None => {
                fresh.push(object);
                count = count.saturating_add(1);
            }
            Some(known) if known.differs(object.digest) => return Err(differs(object.blob)),
            Some(known) if known.complete && known.digest == object.digest => {
                touch(c, key, object.blob, now_utc).await?;
            }
            Some(_) => {
                empty(c, key, object.blob).await?;
                fresh.push(object);
            }
        }
    }
    // A segment that holds nothing new stays "being written": it is given up, or collected.
    if fresh.is_empty() {
        return Ok(false);
    }
    // All of its bytes count, those of objects that were known before too: they lie there as long as the others.
    let bytes = objects.iter().fold(0_u64, |sum, object| sum.saturating_add(object.size));
    let freed = segments::take(c, segment, bytes).await?;
    let added = bytes.saturating_add(count.saturating_mul(ROW_BYTES));
    let charge = Charge { added, freed, objects_added: count, objects_freed: 0 };
    usage::charge(c, key, quota, charge, Allowance::Quota).await?;
    insert_framed(c, key, segment, &fresh, now_utc).await?;
    Ok(true)
}

async fn insert_framed(
    c: &mut SqliteConnection,
    key: VaultKey,
    segment: SegmentId,
    fresh: &[&FramedObject],
    now_utc: u64,
) -> Result<()> {
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
              lost = CASE WHEN object.lost <> 0 AND object.digest = zeroblob(32) THEN 2 ELSE object.lost & 2 END,
              created_utc = excluded.created_utc",
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

async fn known(
    c: &mut SqliteConnection,
    key: VaultKey,
    objects: &[FramedObject],
) -> Result<BTreeMap<BlobId, Known>> {
    let mut known = BTreeMap::new();
    for chunk in objects.chunks(ROWS_A_STATEMENT) {
        let mut query =
            QueryBuilder::<Sqlite>::new("SELECT blob, digest, complete, lost FROM object WHERE vault = ");
        query.push_bind(key.0).push(" AND blob IN (");
        let mut list = query.separated(", ");
        for object in chunk {
            list.push_bind(&object.blob.as_bytes()[..]);
        }
        query.push(")");
        for row in query.build().fetch_all(&mut *c).await.map_err(failed)? {
            let (digest, complete) = (digest(&row, 1)?, number(&row, 2)? == 1);
            let found = Known { digest, complete, lost: number(&row, 3)? };
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
    let added = drop_parts(c, key, blob).await?;
    let gone = sqlx::query("DELETE FROM object WHERE vault = ? AND blob = ? RETURNING reserved_bytes")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .fetch_optional(&mut *c)
        .await
        .map_err(failed)?;
    let mut charge = Charge { added, ..Charge::default() };
    if let Some(row) = gone {
        charge.freed = number(&row, 0)?.saturating_add(ROW_BYTES);
        charge.objects_freed = 1;
    }
    // The parts held are never more than was reserved for the whole.
    usage::charge(c, key, DefaultQuota(None), charge, Allowance::Always).await
}

/// An object whose bytes are gone: it is not complete, and it may be uploaded again. Its parts stay until then: a
/// folder that was not mounted comes back.
pub(super) async fn lose(c: &mut SqliteConnection, key: VaultKey, blob: BlobId) -> Result<()> {
    sqlx::query(
        "UPDATE object SET complete = 0, lost = lost | 1 WHERE vault = ? AND blob = ? AND complete = 1",
    )
    .bind(key.0)
    .bind(&blob.as_bytes()[..])
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(())
}

/// Drops an object's parts and what is reserved for them; its row stays.
async fn empty(c: &mut SqliteConnection, key: VaultKey, blob: BlobId) -> Result<()> {
    let reserved: Option<i64> =
        sqlx::query_scalar("SELECT reserved_bytes FROM object WHERE vault = ? AND blob = ?")
            .bind(key.0)
            .bind(&blob.as_bytes()[..])
            .fetch_optional(&mut *c)
            .await
            .map_err(failed)?;
    let added = drop_parts(c, key, blob).await?;
    sqlx::query("UPDATE object SET reserved_bytes = 0 WHERE vault = ? AND blob = ?")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    let freed = reserved.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
    let charge = Charge { added, freed, ..Charge::default() };
    usage::charge(c, key, DefaultQuota(None), charge, Allowance::Always).await
}

/// Drops an object's parts; segments that hold nothing else are marked for deletion, and count until then. Gives the
/// bytes that count anew.
async fn drop_parts(c: &mut SqliteConnection, key: VaultKey, blob: BlobId) -> Result<u64> {
    let parts = sqlx::query("DELETE FROM part WHERE vault = ? AND blob = ? RETURNING segment, size")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .fetch_all(&mut *c)
        .await
        .map_err(failed)?;
    let mut added = 0_u64;
    for row in &parts {
        let counted = segments::release(c, SegmentId(id16(row, 0)?), number(row, 1)?).await?;
        added = added.saturating_add(counted);
    }
    Ok(added)
}

pub(super) async fn begin(
    c: &mut SqliteConnection,
    key: VaultKey,
    quota: DefaultQuota,
    blob: BlobId,
    new: ObjectRow,
    now_utc: u64,
) -> Result<(ObjectRow, Vec<PartRow>)> {
    let Some((row, parts)) = find(c, key, blob).await? else {
        sqlx::query(
            "INSERT INTO object (vault, blob, size, digest, complete, named, created_utc, reserved_bytes)
             VALUES (?1, ?2, ?3, ?4, 0, 0, ?5, ?3)",
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
    touch(c, key, blob, now_utc).await?;
    let known = Known { digest: row.digest, complete: row.complete, lost: lost(c, key, blob).await? };
    let is_same = row.size == new.size && row.digest == new.digest;
    if known.differs(new.digest) || (row.digest == new.digest && !is_same) {
        return Err(differs(blob));
    }
    if is_same && known.lost & GONE == 0 {
        if row.complete {
            return Ok((row, parts));
        }
        return Ok((new, parts));
    }
    begin_again(c, key, quota, blob, new, &known).await?;
    Ok((new, Vec::new()))
}

async fn lost(c: &mut SqliteConnection, key: VaultKey, blob: BlobId) -> Result<u64> {
    let row = sqlx::query("SELECT lost FROM object WHERE vault = ? AND blob = ?")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .fetch_one(c)
        .await
        .map_err(failed)?;
    number(&row, 0)
}

/// One that was lost takes its place again, as does another one in the place of what was never known here.
async fn begin_again(
    c: &mut SqliteConnection,
    key: VaultKey,
    quota: DefaultQuota,
    blob: BlobId,
    new: ObjectRow,
    known: &Known,
) -> Result<()> {
    empty(c, key, blob).await?;
    let is_unknown = known.lost & UNKNOWN != 0 || (known.lost != 0 && known.digest == Digest::ZERO);
    sqlx::query(
        "UPDATE object SET size = ?1, digest = ?2, complete = 0, reserved_bytes = ?1, lost = ?5
         WHERE vault = ?3 AND blob = ?4",
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

pub(super) async fn put_part(
    c: &mut SqliteConnection,
    key: VaultKey,
    quota: DefaultQuota,
    blob: BlobId,
    part: PartRow,
    now_utc: u64,
) -> Result<bool> {
    let begun = sqlx::query("SELECT complete, reserved_bytes, lost FROM object WHERE vault = ? AND blob = ?")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .fetch_optional(&mut *c)
        .await
        .map_err(failed)?;
    // One that was lost is begun again first.
    match begun {
        Some(row) if number(&row, 0)? == 1 => return Ok(false),
        Some(row) if number(&row, 1)? > 0 && number(&row, 2)? & GONE == 0 => {}
        _ => return Err(StoreError::refused(Code::NotFound, "this upload was not begun, or it expired")),
    }
    touch(c, key, blob, now_utc).await?;
    if !replace_part(c, key, quota, blob, &part).await? {
        return Ok(false);
    }
    segments::take(c, part.segment, 0).await?;
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
    Ok(true)
}

/// Makes place for a part; false if the same bytes are held. Other bytes count until they are deleted.
async fn replace_part(
    c: &mut SqliteConnection,
    key: VaultKey,
    quota: DefaultQuota,
    blob: BlobId,
    part: &PartRow,
) -> Result<bool> {
    let held =
        sqlx::query("SELECT digest, segment, size FROM part WHERE vault = ? AND blob = ? AND position = ?")
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
    sqlx::query("DELETE FROM part WHERE vault = ? AND blob = ? AND position = ?")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .bind(sql(part.index)?)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    let added = segments::release(c, SegmentId(id16(&held, 1)?), number(&held, 2)?).await?;
    usage::charge(c, key, quota, Charge { added, ..Charge::default() }, Allowance::Quota).await?;
    Ok(true)
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
    sqlx::query("UPDATE object SET complete = 1, lost = lost & 2 WHERE vault = ? AND blob = ?")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

/// An object without its parts.
pub(super) async fn find_row(
    c: &mut SqliteConnection,
    key: VaultKey,
    blob: BlobId,
) -> Result<Option<ObjectRow>> {
    let row = sqlx::query("SELECT size, digest, complete FROM object WHERE vault = ? AND blob = ?")
        .bind(key.0)
        .bind(&blob.as_bytes()[..])
        .fetch_optional(&mut *c)
        .await
        .map_err(failed)?;
    let object = |row: SqliteRow| {
        Ok(ObjectRow { size: number(&row, 0)?, digest: digest(&row, 1)?, complete: number(&row, 2)? == 1 })
    };
    row.map(object).transpose()
}

/// An object and its parts, ascending.
pub(super) async fn find(
    c: &mut SqliteConnection,
    key: VaultKey,
    blob: BlobId,
) -> Result<Option<(ObjectRow, Vec<PartRow>)>> {
    let Some(object) = find_row(c, key, blob).await? else { return Ok(None) };
    let rows = sqlx::query(
        "SELECT position, digest, segment, start, size FROM part WHERE vault = ? AND blob = ? ORDER BY position",
    )
    .bind(key.0)
    .bind(&blob.as_bytes()[..])
    .fetch_all(c)
    .await
    .map_err(failed)?;
    Ok(Some((object, rows.iter().map(part).collect::<Result<_>>()?)))
}

fn part(row: &SqliteRow) -> Result<PartRow> {
    Ok(PartRow {
        index: number(row, 0)?,
        digest: digest(row, 1)?,
        segment: SegmentId(id16(row, 2)?),
        start: number(row, 3)?,
        size: number(row, 4)?,
    })
}

/// Those that are complete, with their parts, of one moment: one statement, of one shape whatever is asked for.
pub(super) async fn find_all(
    c: &mut SqliteConnection,
    key: VaultKey,
    blobs: &[BlobId],
    bytes_max: u64,
) -> Result<BTreeMap<BlobId, (u64, Vec<PartRow>)>> {
    let mut found = BTreeMap::new();
    for some in blobs.chunks(limits::OBJECTS_GET_MAX) {
        let mut query = QueryBuilder::<Sqlite>::new(
            "SELECT p.position, p.digest, p.segment, p.start, p.size, o.blob, o.size FROM object o
             LEFT JOIN part p ON p.vault = o.vault AND p.blob = o.blob AND o.size <= ",
        );
        query.push_bind(sql(bytes_max)?).push(" WHERE o.vault = ").push_bind(key.0);
        query.push(" AND o.complete = 1 AND o.blob IN (");
        let mut list = query.separated(", ");
        for blob in some.iter().cycle().take(limits::OBJECTS_GET_MAX) {
            list.push_bind(&blob.as_bytes()[..]);
        }
        query.push(") ORDER BY o.blob, p.position");
        for row in query.build().fetch_all(&mut *c).await.map_err(failed)? {
            let blob = BlobId::from_bytes(id16(&row, 5)?);
            let (_, parts) = found.entry(blob).or_insert((number(&row, 6)?, Vec::new()));
            if maybe(&row, 0)?.is_some() {
                parts.push(part(&row)?);
            }
        }
    }
    Ok(found)
}
