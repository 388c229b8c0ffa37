//! Reading columns into our types; anything of the wrong shape is [`StoreError::Corrupt`].

use super::failed;
use crate::error::StoreError;
use crate::store::Result;
use lockstep_proto::cbor::ByteArray;
use lockstep_proto::{Digest, Signed};
use sqlx::Row;
use sqlx::postgres::PgRow;

const SHAPE: StoreError = StoreError::Corrupt("a column has another shape than the schema says");

pub(super) fn bytes(row: &PgRow, index: usize) -> Result<Vec<u8>> {
    row.try_get(index).map_err(failed)
}

pub(super) fn digest(row: &PgRow, index: usize) -> Result<Digest> {
    let bytes: &[u8] = row.try_get(index).map_err(failed)?;
    Digest::from_slice(bytes).ok_or(SHAPE)
}

pub(super) fn id16(row: &PgRow, index: usize) -> Result<[u8; 16]> {
    let bytes: &[u8] = row.try_get(index).map_err(failed)?;
    bytes.try_into().map_err(|_| SHAPE)
}

pub(super) fn number(row: &PgRow, index: usize) -> Result<u64> {
    let value: i64 = row.try_get(index).map_err(failed)?;
    u64::try_from(value).map_err(|_| SHAPE)
}

pub(super) fn maybe(row: &PgRow, index: usize) -> Result<Option<u64>> {
    let value: Option<i64> = row.try_get(index).map_err(failed)?;
    value.map(|value| u64::try_from(value).map_err(|_| SHAPE)).transpose()
}

pub(super) fn byte(row: &PgRow, index: usize) -> Result<u8> {
    u8::try_from(number(row, index)?).map_err(|_| SHAPE)
}

pub(super) fn signed(row: &PgRow, bytes_index: usize, signature_index: usize) -> Result<Signed> {
    let signature: &[u8] = row.try_get(signature_index).map_err(failed)?;
    let signature = signature.try_into().map(ByteArray).map_err(|_| SHAPE)?;
    Ok(Signed { bytes: bytes(row, bytes_index)?.into(), signature })
}

/// A number as PostgreSQL stores it; ours never pass 2^63 - 1, and one that does is not stored.
pub(super) fn sql(value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| {
        StoreError::refused(lockstep_proto::api::problem::Code::Malformed, "a number is larger than 2^63 - 1")
    })
}
